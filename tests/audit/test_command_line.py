"""The command line: exit statuses, JSON, refusals, Ctrl-C, and what a base install says."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from armed_audit import verify as verification
from armed_audit.cli import Output, run
from armed_audit.verify import Part
from armed_model.system import ENVIRONMENTS
from armed_proofs import matrix, tlc

LIMIT = 120
COMMAND = [sys.executable, "-m", "armed_audit"]


def armed(*arguments, **options):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=LIMIT, **options)


@pytest.fixture
def in_one_process(monkeypatch):
    """The matrix starts no processes of its own, so that none is left in the one that runs the tests."""
    monkeypatch.setattr(matrix, "decide", partial(matrix.decide, processes=1))


def test_prove_has_every_property_of_reference_proved_without_bounds():
    ran = armed("prove", "--profile", "reference", "--json")
    cells = json.loads(ran.stdout)
    assert ran.returncode == 0
    assert [cell["property"] for cell in cells] == [*matrix.ALL_NAMES]
    assert {cell["environment"] for cell in cells} == set(ENVIRONMENTS)
    for cell in cells:
        assert (cell["profile"], cell["verdict"], cell["scope"]) == ("reference", "proved", "unbounded")
        assert cell["counterexample"] is None
        assert cell["assumptions"]
        assert cell["solvers"]
        assert cell["premise"] is not None
    assert "refuted (n)" in ran.stderr
    assert "OPEN" not in ran.stderr


def test_prove_writes_json_to_a_file_and_the_table_to_standard_output(tmp_path):
    file = tmp_path / "cells.json"
    ran = armed("prove", "--property", "slot_has_one_owner", "--json", str(file))
    assert ran.returncode == 0
    assert "slot_has_one_owner" in ran.stdout
    cells = json.loads(file.read_text())
    assert [(cell["profile"], cell["property"]) for cell in cells] == [
        (profile, "slot_has_one_owner") for profile in matrix.PROFILES
    ]


def test_prove_of_one_property_shows_who_refutes_it_how_and_what_mended_it(in_one_process, capsys):
    assert run(["prove", "--profile", "8.4.0", "--property", "no_slot_leaks"]) == 0
    said = capsys.readouterr().out
    assert "8.4.0: no_slot_leaks is refuted." in said
    assert "Mended by 45f9b4646f2f. Can be reached from outside." in said
    assert "2. fork_fails(): The fork fails, and the slot is not released." in said


def test_prove_says_why_a_property_is_out_of_scope(in_one_process, capsys):
    assert run(["prove", "--profile", "15", "--property", "supervisor_death_ends_children"]) == 0
    assert "supervisor_death_ends_children is out of scope: how a child" in " ".join(capsys.readouterr().out.split())


def test_prove_of_the_control_prints_the_runs_that_refute():
    ran = armed("prove", "--profile", "no-dead-man-switch")
    assert ran.returncode == 0
    assert ran.stdout.count("refuted") >= 3
    assert "raw_exit(child 1, status 0)" in ran.stdout


def test_prove_fails_when_a_verdict_is_not_the_recorded_one(monkeypatch, capsys, in_one_process):
    recorded = matrix.expected_verdicts()
    recorded["reference"]["slot_has_one_owner"] = "refuted"
    monkeypatch.setattr(matrix, "expected_verdicts", lambda: recorded)
    assert run(["prove", "--profile", "reference", "--property", "slot_has_one_owner"]) == 1
    assert "not as recorded" in capsys.readouterr().out


def test_prove_fails_where_a_cell_is_open_and_names_what_did_not_go_through(monkeypatch, capsys, in_one_process):
    monkeypatch.setattr(matrix, "lasso", lambda instance, claim, limit: None)
    assert run(["prove", "--profile", "8.4.0", "--property", "armed_exit_leads_to_restart"]) == 1
    said = capsys.readouterr().out
    assert "OPEN" in said
    assert "whoever lives can be ended: sat" in said
    assert "not as recorded: 8.4.0: armed_exit_leads_to_restart is open" in said.replace("\n", " ")


def test_prove_records_what_it_finds_and_never_what_is_open(monkeypatch, capsys, in_one_process, tmp_path):
    recorded = matrix.expected_verdicts()
    monkeypatch.setattr(matrix, "files", lambda package: tmp_path)
    monkeypatch.setattr(matrix, "expected_verdicts", lambda: recorded)
    monkeypatch.setattr(matrix, "ALL_PROFILES", ("no-dead-man-switch",))
    assert run(["prove", "--record"]) == 0
    assert f"recorded in {tmp_path}/verdicts.toml" in capsys.readouterr().err
    assert '"decision_is_exact" = "refuted"' in (tmp_path / "verdicts.toml").read_text()
    (tmp_path / "verdicts.toml").unlink()
    monkeypatch.setattr(matrix, "SEARCH_LIMIT", 1)
    assert run(["prove", "--record"]) == 2
    assert "is open, and an open cell is not recorded" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- Explore, mutate, export, bench ----------------------------------------------------------------------------------


def test_explore_counts_tells_what_never_happens_and_what_is_violated(tmp_path, capsys):
    file = tmp_path / "counts.json"
    assert run(["explore", "--profile", "8.4.0", "--slots", "1", "--children", "1", "--json", str(file)]) == 0
    said = capsys.readouterr().out
    result = json.loads(file.read_text())
    assert f"{result['states']:,}" in said
    assert result["states"] > 100 < result["transitions"]
    assert "no_slot_leaks is violated. A shortest run:" in said
    assert [step["action"] for step in result["violated"]["no_slot_leaks"]] == ["assign", "fork_fails"]


def test_explore_of_the_reference_finds_nothing_violated(capsys):
    assert run(["explore", "--slots", "1", "--children", "1", "--environment", "+orphan"]) == 0
    assert "nothing" in capsys.readouterr().out


def test_explore_fails_where_what_is_proved_is_violated(monkeypatch, capsys):
    recorded = matrix.expected_verdicts()
    recorded["8.4.0"]["no_slot_leaks"] = "proved"
    monkeypatch.setattr(matrix, "expected_verdicts", lambda: recorded)
    assert run(["explore", "--profile", "8.4.0", "--slots", "1", "--children", "1"]) == 1
    capsys.readouterr()


def test_the_control_environment_can_be_explored(capsys):
    assert run(["explore", "--slots", "1", "--children", "1", "--environment", "+copy-back"]) == 1
    assert "armed_exit_triggers_recovery_despite_stray_writes is violated" in capsys.readouterr().out


def test_mutate_judges_the_mutants_asked_for():
    ran = armed("mutate", "--only", "reference: ask_orderly without the effect", "--processes", "1", "--json")
    report = json.loads(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    assert report["mutants"] == report["killed"] == 1
    assert report["survivors"] == []
    assert "1 mutants, no survivor" in ran.stderr


def test_mutate_of_no_mutant_is_refused():
    ran = armed("mutate", "--only", "no such mutant")
    assert ran.returncode == 2
    assert ran.stderr == "armed: no mutant has 'no such mutant' in its name\n"


def test_export_writes_a_module_and_its_configuration(tmp_path, capsys):
    assert run(["export", "tla", "--slots", "1", "--children", "2", "--to", str(tmp_path / "tla")]) == 0
    written = sorted(each.name for each in (tmp_path / "tla").iterdir())
    assert [Path(name).suffix for name in written] == [".cfg", ".tla"]
    said = capsys.readouterr().out
    assert all(name in said for name in written)
    assert "MODULE" in (tmp_path / "tla" / written[1]).read_text().splitlines()[0]


def test_export_of_the_versions_is_the_page_of_the_verdicts(capsys):
    assert run(["export", "versions"]) == 0
    said = capsys.readouterr().out
    assert all(f"`{name}`" in said for name in matrix.ALL_NAMES)


def test_bench_without_tlc_is_refused_in_words(monkeypatch, capsys):
    def missing(*_):
        raise tlc.Missing("TLC is not here")
        yield

    monkeypatch.setattr(tlc, "second_opinions", missing)
    assert run(["bench", "explore"]) == 2
    assert "TLC is not here" in capsys.readouterr().err


# --- Conform ---------------------------------------------------------------------------------------------------------


def test_conform_counts_and_passes():
    ran = armed("conform", "armed:fork", "--histories", "10", "--seed", "1", "--json")
    report = json.loads(ran.stdout)
    assert ran.returncode == 0
    assert report["cells_seen"] == report["cells_wanted"] > 0
    assert report["histories"] >= report["directed"] + 10


@pytest.mark.parametrize("before", [["--json"], ["--json", "-"], []])
def test_a_target_beside_json_is_what_is_tested(before, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "conformance")}
    after = [] if before else ["--json"]
    ran = armed("conform", *before, "planted:StatusOnly", *after, "--histories", "1", env=environment, cwd=tmp_path)
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["target"] == "planted:StatusOnly"
    kept = ["armed-failure.json"]
    assert [file.name for file in tmp_path.iterdir()] == kept, "no file of the target's name, nothing of Hypothesis"


def test_conform_gives_every_order_to_a_depth():
    ran = armed("conform", "armed:fork", "--depth", "2", "--slots", "1", "--json")
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["passed"]
    assert (result["depth"], result["slots"]) == (2, 1)
    assert result["states"] == result["states_seen"] == 5
    assert result["orders"] == result["orders_given"] == 51
    assert result["histories"] > 0
    assert result["steps"] > 0
    assert "5 of 5 that fewer than 2 orders reach" in ran.stderr
    assert "no difference from the model" in ran.stderr


def test_what_differs_at_a_depth_is_told_and_kept_to_be_played_again(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "conformance")}
    ran = armed("conform", "planted:FlagOnly", "--depth", "2", "--slots", "1", env=environment, cwd=tmp_path)
    assert ran.returncode == 1, ran.stderr
    assert "what was seen:  it was: clean" in ran.stdout
    assert "does not conform" in ran.stdout
    again = armed("conform", "planted:FlagOnly", "--replay", "armed-failure.json", env=environment, cwd=tmp_path)
    assert again.returncode == 1
    assert "what was seen:  it was: clean" in again.stdout
    mended = armed("conform", "armed:fork", "--replay", "armed-failure.json", cwd=tmp_path)
    assert mended.returncode == 0, mended.stdout


@pytest.mark.parametrize("command", ["conform", "prove", "verify"])
def test_a_word_after_json_that_does_not_look_like_a_file_is_no_file(command, tmp_path):
    ran = armed(command, "--json", "result", cwd=tmp_path)
    assert ran.returncode == 2
    assert "result" in ran.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_of_any_name_can_be_given_with_an_equals_sign(tmp_path, in_one_process):
    call = ["prove", "--property", "slot_has_one_owner", "--profile", "reference", f"--json={tmp_path}/a:b"]
    assert run(call) == 0
    assert json.loads((tmp_path / "a:b").read_text())


def test_an_implementation_in_the_working_directory_is_found(tmp_path):
    (tmp_path / "mine.py").write_text("from armed_conformance.adapters.armed import ArmedFork as Mine\n")
    script = Path(sys.executable).with_name("armed")
    call = [script, "conform", "mine:Mine", "--histories", "1"]
    ran = subprocess.run(call, capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    ran = subprocess.run([*call[:2], "yours:Mine"], capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path)
    assert ran.returncode == 2
    assert f"looked for in {tmp_path}" in ran.stderr


def test_conform_says_what_it_has_not_looked_at(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from armed_conformance.adapters.armed import ArmedFork\n"
        "from armed_conformance.protocol import ExitKind, Step\n"
        "class Mine(ArmedFork):\n"
        "    cannot = frozenset({ExitKind.SIGSEGV, Step.FREEZE})\n"
    )
    ran = armed("conform", "mine:Mine", "--histories", "1", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "not looked at, for what it cannot do: 14 cells, the ends of " in ran.stdout
    assert ran.stdout.rstrip().splitlines()[-2].startswith("not looked at")  # and then the verdict
    assert ran.stdout.rstrip().splitlines()[-1].startswith("mine:Mine: no difference from the model")


def test_json_may_stand_before_the_target():
    ran = armed("conform", "--json", "armed:fork", "--histories", "1", "--seed", "1")
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["target"] == "armed:fork"


def test_conform_of_something_wrong_fails_tells_the_story_and_keeps_it(tmp_path):
    folder = Path(__file__).parents[1] / "conformance"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    ran = armed("conform", "planted:StatusOnly", "--histories", "1", env=environment, cwd=tmp_path)
    assert ran.returncode == 1
    assert "the model says:" in ran.stdout
    assert "does not conform" in ran.stdout
    again = re.search("again: armed (.*)", ran.stdout)[1].split()
    ran = armed(*again, env=environment, cwd=tmp_path)
    assert ran.returncode == 1
    assert "the model says: the decision about child 1 is: crash" in ran.stdout
    ran = armed("conform", "armed:fork", "--replay", "armed-failure.json", "--json", cwd=tmp_path)
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["passed"]


def test_a_history_that_cannot_be_kept_or_read_is_one_clear_line(tmp_path, in_one_process, capsys):
    assert run(["conform", "--replay", f"{tmp_path}/nowhere.json"]) == 2
    assert "--replay needs a TARGET" in capsys.readouterr().err
    assert run(["conform", "armed:fork", "--replay", f"{tmp_path}/nowhere.json"]) == 2
    assert f"cannot read {tmp_path}/nowhere.json" in capsys.readouterr().err
    (tmp_path / "empty.json").write_text("{}")
    assert run(["conform", "armed:fork", "--replay", f"{tmp_path}/empty.json"]) == 2
    assert "is no history" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prove", "--profile", "19"], "reference"),
        (["prove", "--property", "nonsense"], "slot_has_one_owner"),
        (["prove", "--record", "--profile", "reference"], "leave --profile"),
        (["prove", "--profile", "no-dead-man-switch", "--property", "slot_has_one_owner"], "nothing is recorded"),
        (["prove", "--select", "--property", "slot_has_one_owner"], "leave --profile"),
        (["explore", "--profile", "19"], "8.4.0"),
        (["explore", "--environment", "storm"], "+stray"),
        (["explore", "--slots", "0"], "slots"),
        (["explore", "--limit", "10"], "more than 10 states"),
        (["export", "cobol"], "give tla"),
        (["export", "tla", "--to", "/proc/nowhere"], "/proc/nowhere: No such file"),
        (["bench", "nonsense"], "give detect, engage"),
        (["conform", "nonsense"], "armed:fork"),
        (["conform", "--histories", "0"], "histories"),
        (["conform", "--depth", "0"], "depth"),
        (["conform", "--depth", "2", "--slots", "5"], "slots"),
        (["conform", "--depth", "2", "--seed", "1"], "leave --histories and --seed out"),
        (["conform", "--slots", "2"], "goes with --depth"),
        (["conform", "os:getcwd"], "os has no class getcwd"),
        (["prove", "--json="], "--json= has no FILE"),
        (["verify", "--quick", "--full"], "exclude each other"),
        (["verify", "--nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_call_that_is_off_is_refused_in_words(arguments, said, in_one_process, capsys):
    assert run(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_call_that_is_off_has_its_exit_status_and_no_traceback():
    ran = armed("prove", "--profile", "19")
    assert ran.returncode == 2
    assert ran.stderr.startswith("armed: no profile '19'")
    assert "Traceback" not in ran.stderr


def test_a_result_that_cannot_be_written_is_one_clear_line(capsys):
    assert run(["prove", "--property", "slot_has_one_owner", "--json", "/nowhere/x.json"]) == 2
    assert "cannot write /nowhere/x.json" in capsys.readouterr().err


@pytest.fixture
def verify_must_not_run(monkeypatch):
    def ran(**_):
        raise AssertionError("it was run before it was known where the result goes")

    monkeypatch.setattr(verification, "verify", ran)


@pytest.mark.parametrize("option", ["--evidence={}/file", "--evidence={}/file/below", "--json={}", "--json={}/no/x"])
def test_verify_looks_first_whether_its_result_can_be_written(option, verify_must_not_run, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(["verify", f"--evidence={tmp_path}/evidence", option.format(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == ""


def test_verify_shows_its_table_when_the_result_cannot_be_written_after_all(monkeypatch, tmp_path, capsys):
    folder = tmp_path / "evidence"

    def loses_the_directory(**_):
        folder.rmdir()
        done = verification.Verification(verification.QUICK, strict=False, seed=1)
        done.parts.append(Part("planted part", "claim", counts={"things": 1}))
        return done

    monkeypatch.setattr(verification, "verify", loses_the_directory)
    assert run(["verify", f"--evidence={folder}"]) == 2
    said = capsys.readouterr()
    assert "planted part" in said.out
    assert "verify.json: No such file" in said.err


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_closed_pipe_is_one_line_and_no_verdict(option):
    reader, writer = os.pipe()
    os.close(reader)
    call = [*COMMAND, "prove", "--profile", "reference", "--property", "slot_has_one_owner", *option]
    ran = subprocess.run(call, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=LIMIT)
    os.close(writer)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1] == "armed: nobody reads the result: the pipe is closed"
    assert "Traceback" not in ran.stderr


COMMANDS = ["verify", "prove", "explore", "mutate", "export", "bench", "conform", "watch", "report"]


@pytest.mark.parametrize("command", [[], *[[each] for each in COMMANDS]], ids=str)
def test_help_teaches(command, capsys):
    assert run([*command, "--help"]) == 0
    said = capsys.readouterr().out
    assert "Usage" in said
    if not command:
        assert all(each in said for each in COMMANDS)


def test_the_version_names_the_solver():
    ran = armed("--version")
    assert ran.returncode == 0
    assert "armed 0" in ran.stdout
    assert "z3" in ran.stdout


def test_without_the_extra_it_names_the_pip_command():
    code = (
        "import sys; sys.modules['typer'] = None\n"
        "from armed_audit.__main__ import main; sys.exit(main())"
    )
    ran = subprocess.run([sys.executable, "-c", code, "verify"], capture_output=True, text=True, timeout=LIMIT)
    assert ran.returncode == 2
    assert ran.stderr == "armed: typer is not installed; do: pip install 'armed[verify]'\n"


def test_the_base_install_knows_its_version():
    code = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['armed', '--version']\n"
        "from armed_audit.__main__ import main; sys.exit(main())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert ran.returncode == 0
    assert ran.stdout.startswith("armed 0")


def test_ctrl_c_during_the_imports_is_one_line():
    code = (
        "import sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'armed_audit.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from armed_audit.__main__ import main; sys.exit(main())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert ran.returncode == 130
    assert ran.stderr == "armed: interrupted\n"


def test_ctrl_c_while_text_is_compiled_and_run_has_its_exit_status(tmp_path):
    """In `exec` of a string, as where a dataclass is made: Python then ends by SIGINT, though all is caught."""
    (tmp_path / "interrupted.py").write_text(
        "import sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'armed_audit.cli': exec('raise KeyboardInterrupt')\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from armed_audit.__main__ import main\n"
        "sys.exit(main())"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert ran.stderr == "armed: interrupted\n"
    assert ran.returncode == 130


def children_of(pid):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            if int(status.rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [["mutate"], ["prove"]])
def test_ctrl_c_ends_the_processes_that_work_for_a_command(command, end):
    process = subprocess.Popen([*COMMAND, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        until = time.monotonic() + LIMIT
        while len(children := children_of(process.pid)) < 2:
            assert time.monotonic() < until
            assert process.poll() is None
        process.send_signal(end)
        _, errors = process.communicate(timeout=5)  # not when they are through with what they do, which takes longer
    assert process.returncode == 130
    assert errors == "armed: interrupted; all processes it started have ended\n"
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


WITH_CHILDREN = {
    "conform": ["conform", "--histories", "100000"],
    "bench": ["bench", "explore"],  # and a directory for TLC
}


def java_is_there():
    try:
        return bool(tlc.java() and tlc.jar())
    except tlc.Missing:
        return False


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", WITH_CHILDREN)
def test_an_end_in_the_middle_leaves_nothing_behind(command, end, tmp_path):
    if command == "bench" and not java_is_there():
        assert os.environ.get("ARMED_STRICT") != "1", "NOT RUN: no Java"
        pytest.skip("NOT RUN: no Java")  # counted and said; under ARMED_STRICT, as in `.ci/run`, the line before fails
    process = subprocess.Popen(
        [*COMMAND, *WITH_CHILDREN[command]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    with process, closing(SimpleNamespace(close=process.kill)):
        until = time.monotonic() + LIMIT
        while not (children := children_of(process.pid)) or (command == "bench" and not list(tmp_path.iterdir())):
            assert time.monotonic() < until
            assert process.poll() is None
        process.send_signal(end)
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, errors
    assert errors.endswith("armed: interrupted; all processes it started have ended\n")
    assert "Traceback" not in errors or "Exception ignored" in errors  # it came where Python drops it, which is told
    assert not list(tmp_path.iterdir())
    assert not [child for child in children if Path(f"/proc/{child}").exists() and child in children_of(1)]


@pytest.mark.parametrize(
    ("before", "status"), [("pass", signal.SIGTERM), ("signal.signal(signal.SIGTERM, lambda *_: os._exit(200))", 56)]
)
def test_a_process_that_a_command_forks_does_of_sigterm_what_it_would_anywhere(before, status):
    code = (
        "import os, signal, sys\n"
        "from armed_audit import __main__ as command\n"
        "def forks():\n"
        f"    {before}\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os.kill(os.getpid(), 15)\n"
        "    return -os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255\n"
        "command._run = forks\n"
        "sys.exit(command.main())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert (ran.returncode, ran.stderr) == (status, "")


def test_interruptions_that_come_close_to_each_other_hang_nobody():
    """The second one comes at each line, one after the other, that handling the first one executes."""
    code = (
        "import os, signal, sys\n"
        "from armed_conformance import calls\n"
        "signal.signal(signal.SIGINT, calls.interrupt)\n"
        "def is_inside(frame):\n"
        "    while frame is not None and frame.f_code is not calls.interrupt.__code__:\n"
        "        frame = frame.f_back\n"
        "    return frame is not None\n"
        "def trace(frame, event, argument):\n"
        "    global lines\n"
        "    if event == 'line' and is_inside(frame):\n"
        "        lines += 1\n"
        "        if lines == at:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "    return trace\n"
        "at, lines = 0, 0\n"
        "while lines >= at:\n"
        "    at, lines = at + 1, 0\n"
        "    sys.settrace(trace)\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
        "    sys.settrace(None)\n"
        "assert at > 2\n"
        "try:\n"
        "    calls.stop_if_interrupted()\n"
        "except KeyboardInterrupt:\n"
        "    print('remembered')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert (ran.returncode, ran.stdout) == (0, "remembered\n"), ran.stderr


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["after a fork", "in a finalizer"])
def test_an_interruption_that_python_drops_ends_the_command_all_the_same(when, end, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os, signal\n"
        "from armed_conformance.adapters.armed import ArmedFork\n"
        "class Dropped:\n"
        "    def __del__(self):\n"
        f"        signal.raise_signal({end:d})\n"
        "class Mine(ArmedFork):\n"
        "    def start(self):\n"
        f"        if {when!r} == 'in a finalizer':\n"
        "            Dropped()\n"
        "        else:\n"
        f"            os.register_at_fork(after_in_parent=lambda: signal.raise_signal({end:d}))\n"
        "            pid = os.fork()\n"
        "            if pid == 0:\n"
        "                os._exit(0)\n"
        "            os.waitpid(pid, 0)\n"
        "        return super().start()\n"
    )
    ran = armed("conform", "mine:Mine", "--histories", "100000", cwd=tmp_path)
    assert ran.returncode == 130, ran.stderr
    assert "Exception ignored" in ran.stderr  # it was dropped
    assert ran.stderr.endswith("armed: interrupted; all processes it started have ended\n")
    assert not (tmp_path / "armed-failure.json").exists()


def test_what_a_child_does_of_ctrl_c_is_no_difference(tmp_path):
    """Ctrl-C on a terminal comes to the children, too: they may end by it, before the harness knows of it."""
    (tmp_path / "mine.py").write_text(
        "import os, signal\n"
        "from armed_conformance.adapters.armed import ArmedFork\n"
        "class Mine(ArmedFork):\n"
        "    def step(self, child, step):\n"
        "        try:\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "        except KeyboardInterrupt:\n"
        "            raise BrokenPipeError from None\n"
    )
    ran = armed("conform", "mine:Mine", cwd=tmp_path)
    assert ran.returncode == 130, ran.stdout
    assert not (tmp_path / "armed-failure.json").exists()


def test_without_a_terminal_progress_is_told_now_and_then(monkeypatch, capsys):
    now = iter([0.0, 29.0, 30.0, 31.0])
    monkeypatch.setattr("armed_audit.cli.time", SimpleNamespace(monotonic=lambda: next(now)))
    with Output(None).progress() as progress:
        progress("too early")
        progress("after half a minute")
    assert capsys.readouterr().err == "armed: after half a minute\n"
