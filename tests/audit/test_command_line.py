"""The command line: exit statuses, JSON, refusals, Ctrl-C, and what a base install says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from armed_audit import verify as verification
from armed_audit.cli import run
from armed_audit.verify import Part
from armed_model.properties import PROPERTIES
from armed_proofs import matrix

LIMIT = 120
COMMAND = [sys.executable, "-m", "armed_audit"]


def armed(*arguments, **options):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=LIMIT, **options)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One quick verification, as a user runs it: the process, its JSON, and the evidence directory."""
    folder = tmp_path_factory.mktemp("verify")
    ran = armed("verify", "--quick", "--strict", "--seed", "1", "--json", cwd=folder)
    return ran, json.loads(ran.stdout), folder


def test_verify_holds_and_counts_nothing_as_zero(quick):
    ran, result, _ = quick
    assert ran.returncode == 0, ran.stderr
    assert result["holds"]
    names = [part["part"] for part in result["parts"]]
    assert names == ["exploration", "interpreter", "proofs", "controls", "decisions", "conformance"]
    for part in result["parts"]:
        assert part["holds"]
        assert part["counts"]
        assert all(part["counts"].values()), part
        assert part["failures"] == []


def test_verify_says_what_every_verdict_rests_on_and_which_seed_it_used(quick):
    _, result, _ = quick
    assert result["seed"] == 1
    named = {name for cell in result["matrix"] for name in cell["assumptions"]}
    assert named
    assert all(len(result["assumptions"][name]) > 10 for name in named)


def test_verify_says_without_a_terminal_that_a_part_is_through(quick):
    ran, result, _ = quick
    for part in result["parts"]:
        assert f"armed: {part['part']} holds (" in ran.stderr


def test_verify_says_what_quick_leaves_out(quick):
    ran, result, _ = quick
    assert len(result["left_out"]) == 3
    assert "left out by --quick" in ran.stderr


def test_verify_keeps_its_evidence(quick):
    _, result, folder = quick
    assert json.loads((folder / "armed-evidence" / "verify.json").read_text()) == result


def test_verify_prints_the_story_of_the_control(quick):
    ran, _, _ = quick
    assert "raw_exit(child 1, status 0)" in ran.stderr
    assert "reap_clean(child 1)" in ran.stderr


def test_the_json_goes_to_standard_output_and_the_table_to_standard_error(quick):
    ran, _, _ = quick
    assert ran.stdout.startswith("{")
    assert "armed verify --quick" in ran.stderr


def test_prove_has_eight_properties_of_reference_proved_without_bounds():
    ran = armed("prove", "--profile", "reference", "--json")
    cells = json.loads(ran.stdout)
    assert ran.returncode == 0
    assert {cell["property"] for cell in cells} == {claim.name for claim in PROPERTIES}
    assert len(cells) == 8
    for cell in cells:
        assert (cell["profile"], cell["verdict"], cell["scope"]) == ("reference", "proved", "unbounded")
        assert cell["counterexample"] is None
        assert cell["assumptions"]
        assert cell["solvers"]
        assert cell["premise"]


def test_prove_writes_json_to_a_file_and_the_table_to_standard_output(tmp_path):
    file = tmp_path / "cells.json"
    ran = armed("prove", "--property", "slot_has_one_owner", "--json", str(file))
    assert ran.returncode == 0
    assert "slot_has_one_owner" in ran.stdout
    assert [cell["property"] for cell in json.loads(file.read_text())] == ["slot_has_one_owner"]


def test_prove_of_the_control_prints_the_runs_that_refute():
    ran = armed("prove", "--profile", "no-dead-man-switch")
    assert ran.returncode == 0
    assert ran.stdout.count("refuted") >= 3
    assert "raw_exit(child 1, status 0)" in ran.stdout


def test_prove_fails_when_a_verdict_is_not_the_recorded_one(monkeypatch, capsys):
    recorded = matrix.expected_verdicts()
    recorded["reference"]["slot_has_one_owner"] = "refuted"
    monkeypatch.setattr(matrix, "expected_verdicts", lambda: recorded)
    assert run(["prove", "--profile", "reference", "--property", "slot_has_one_owner"]) == 1
    assert "not as recorded" in capsys.readouterr().out


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
    assert not list(tmp_path.iterdir()), "neither a file of the target's name nor anything of Hypothesis"


@pytest.mark.parametrize("command", ["conform", "prove", "verify"])
def test_a_word_after_json_that_does_not_look_like_a_file_is_no_file(command, tmp_path):
    ran = armed(command, "--json", "result", cwd=tmp_path)
    assert ran.returncode == 2
    assert "result" in ran.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_of_any_name_can_be_given_with_an_equals_sign(tmp_path):
    ran = armed("prove", "--property", "slot_has_one_owner", "--profile", "reference", "--json=a:b", cwd=tmp_path)
    assert ran.returncode == 0
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
    assert "not looked at, for what it cannot do: 14 cells" in ran.stdout
    assert "serving, engaged, holding 1: SIGSEGV" in ran.stdout
    assert "cut short: a crash during recovery" in ran.stdout


def test_json_may_stand_before_the_target():
    ran = armed("conform", "--json", "armed:fork", "--histories", "1", "--seed", "1")
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["target"] == "armed:fork"


def test_conform_of_something_wrong_fails_and_tells_the_story():
    folder = Path(__file__).parents[1] / "conformance"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    ran = armed("conform", "planted:StatusOnly", "--histories", "1", env=environment)
    assert ran.returncode == 1
    assert "the model says:" in ran.stdout
    assert "does not conform" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prove", "--profile", "19"], "reference"),
        (["prove", "--property", "nonsense"], "slot_has_one_owner"),
        (["prove", "--record", "--profile", "reference"], "leave --profile"),
        (["prove", "--profile", "no-dead-man-switch", "--property", "slot_has_one_owner"], "nothing is recorded"),
        (["conform", "nonsense"], "armed:fork"),
        (["conform", "--histories", "0"], "histories"),
        (["conform", "os:getcwd"], "os has no class getcwd"),
        (["prove", "--json="], "--json= has no FILE"),
        (["verify", "--quick", "--full"], "exclude each other"),
        (["verify", "--nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_call_that_is_off_is_refused_in_words(arguments, said):
    ran = armed(*arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_result_that_cannot_be_written_is_one_clear_line():
    ran = armed("prove", "--profile", "reference", "--property", "slot_has_one_owner", "--json", "/nowhere/x.json")
    assert ran.returncode == 2
    assert "cannot write /nowhere/x.json" in ran.stderr
    assert "Traceback" not in ran.stderr


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
        done = verification.Verification(quick=True, strict=False, seed=1)
        done.parts.append(Part("planted part", "claim", counts={"things": 1}))
        return done

    monkeypatch.setattr(verification, "verify", loses_the_directory)
    assert run(["verify", f"--evidence={folder}"]) == 2
    said = capsys.readouterr()
    assert "planted part" in said.out
    assert "cannot write" in said.err


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


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"], ["prove", "--help"], ["conform", "--help"]])
def test_help_teaches(arguments):
    ran = armed(*arguments)
    assert ran.returncode == 0
    assert "Usage" in ran.stdout


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


def test_ctrl_c_in_the_middle_of_a_conformance_run_leaves_nothing_behind():
    process = subprocess.Popen(
        [*COMMAND, "conform", "--histories", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        until = time.monotonic() + LIMIT
        while not (children := children_of(process.pid)):
            assert time.monotonic() < until
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not [child for child in children if Path(f"/proc/{child}").exists() and child in children_of(1)]


# --- What makes a verification fail ----------------------------------------------------------------------------------


def test_a_count_of_zero_is_no_pass():
    assert not Part("part", "claim", counts={"histories": 0}).holds
    assert not Part("part", "claim", counts={"deaths": {}}).holds
    assert Part("part", "claim", counts={"histories": 1}).holds


def test_a_part_that_fails_fails_the_verification_and_the_others_still_run(monkeypatch, tmp_path):
    def fails():
        raise verification.Mismatch("planted")

    monkeypatch.setattr(verification, "compare_decisions", fails)
    monkeypatch.setattr(verification, "QUICK", verification.Extent((verification.Size(1, 2),), 1, 1))
    assert run(["verify", "--quick", "--seed", "1", "--evidence", str(tmp_path)]) == 1
    result = json.loads((tmp_path / "verify.json").read_text())
    assert not result["holds"]
    assert [part["part"] for part in result["parts"] if not part["holds"]] == ["decisions"]
    assert "planted" in str(result)
