"""`armed verify`: its parts, their counts, what makes each of them fail, and that none keeps others from running."""

import ctypes
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from armed import Decision
from armed_audit import verify as verification
from armed_audit.cli import run
from armed_audit.verify import EXTENTS, FULL, QUICK, USUAL, Part, verify
from armed_conformance import crash_points, soak
from armed_conformance.exhaustive import EVERYTHING, Exhaustion
from armed_conformance.lockstep import Mismatch
from armed_conformance.run import Report
from armed_model.interpret import Size
from armed_model.profiles import CONTROLS, PROFILES, REFERENCE, V8_4_0
from armed_model.system import Mode, mode
from armed_model.terms import both
from armed_proofs import cvc5_opinion, matrix, tlc
from armed_proofs.matrix import Cell, Matrix, Statement, Verdict

PARTS = [
    "proofs", "exploration", "interpreter", "controls", "cvc5", "TLC", "decisions", "conformance", "exhaustive",
    "crash points", "stray writes", "soak",
]  # fmt: skip
COUNTS = {
    "proofs": {"proved", "obligations", "premises reached"},
    "exploration": {"instances", "states", "transitions", "depth", "actions seen", "reached"},
    "interpreter": {"random states", "values"},
    "controls": {"controls refuted"},
    "cvc5": {"systems", "obligations"},
    "TLC": {"instances", "states"},
    "decisions": {"decisions"},
    "conformance": {"histories", "steps", "deaths", "armed_deaths", "recoveries", "cells_seen", "cells_wanted"},
    "exhaustive": {"depth", "slots", "states", "states_seen", "orders", "orders_given", "histories", "deaths"},
    "crash points": {"child boundaries", "child points", "supervisor boundaries", "supervisor points"},
    "stray writes": {"writes", "lives", "armed deaths", "recoveries"},
    "soak": {"lives", "recoveries", "exited", "crashed"},
}

SMALL = """
import sys
from dataclasses import replace
from armed_audit import cli, verify

quick = verify.QUICK
verify.QUICK = replace(quick, reference_sizes=quick.reference_sizes[1:], states_compared=2, by_cvc5=quick.by_cvc5[:1],
                       by_tlc=quick.by_tlc[-1:], histories=2, orders_deep=2, child_points=200,
                       supervisor_points={"fork": 4000}, lives=300)
sys.exit(cli.run(sys.argv[1:]))
"""
"""All parts, with small bounds: what the whole of it finds is for CI to see."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One verification, as a user runs it: the process, its JSON, and its directory."""
    folder = tmp_path_factory.mktemp("verify")
    call = [sys.executable, "-c", SMALL, "verify", "--quick", "--seed", "1", "--json"]
    ran = subprocess.run(call, capture_output=True, text=True, timeout=300, cwd=folder)
    return ran, json.loads(ran.stdout), folder


def test_it_holds_and_counts_nothing_as_zero(small):
    ran, result, _ = small
    assert ran.returncode == 0, ran.stderr
    assert result["holds"]
    assert [part["part"] for part in result["parts"]] == PARTS
    for part in result["parts"]:
        assert part["failures"] == []
        if part["not_run"]:
            assert part["part"] == "TLC", "that needs Java; all else is part of the extra"
            assert os.environ.get("ARMED_STRICT") != "1"
            continue
        assert part["holds"], part
        assert COUNTS[part["part"]] <= part["counts"].keys()
        assert all(part["counts"].values()), part


def test_it_says_what_every_verdict_rests_on_which_seed_it_used_and_with_what(small):
    _, result, _ = small
    assert result["seed"] == 1
    assert {cell["profile"] for cell in result["matrix"]} == {"18", "reference", *CONTROLS}
    named = {name for cell in result["matrix"] for name in cell["assumptions"]}
    assert named
    assert all(len(result["assumptions"][name]) > 10 for name in named)
    assert {"armed", "python", "kernel", "solver"} <= result["versions"].keys()


def test_it_says_without_a_terminal_that_a_part_is_through(small):
    ran, result, _ = small
    for part in result["parts"]:
        assert f"armed: {part['part']}: {'NOT RUN' if part['not_run'] else 'holds'} (" in ran.stderr


def test_it_says_what_quick_leaves_out(small):
    ran, result, _ = small
    assert result["extent"] == "quick"
    assert len(result["left_out"]) == 14
    assert "left out by --quick" in ran.stderr
    assert any("armed mutate" in line for line in result["left_out"])


def test_it_keeps_its_evidence_and_leaves_nothing_else(small):
    _, result, folder = small
    assert json.loads((folder / "armed-evidence" / "verify.json").read_text()) == result
    assert [each.name for each in folder.iterdir()] == ["armed-evidence"]


def test_it_prints_the_story_of_the_control(small):
    ran, _, _ = small
    assert "raw_exit(child 1, status 0)" in ran.stderr
    assert "reap_clean(child 1)" in ran.stderr


def test_the_json_goes_to_standard_output_and_the_table_to_standard_error(small):
    ran, _, _ = small
    assert ran.stdout.startswith("{")
    assert "armed verify --quick" in ran.stderr


def test_quick_is_less_than_usual_and_that_less_than_full():
    assert set(QUICK.profiles) < set(USUAL.profiles) == set(FULL.profiles) == set(PROFILES)
    assert set(QUICK.sizes) < set(USUAL.sizes) == set(FULL.sizes)
    assert set(QUICK.reference_sizes) < set(USUAL.reference_sizes) == set(FULL.reference_sizes)
    assert set(QUICK.by_tlc) <= {*USUAL.by_tlc, *QUICK.by_tlc}
    assert set(USUAL.by_tlc) < set(FULL.by_tlc)
    assert len(USUAL.by_cvc5) == len(FULL.by_cvc5) == len(PROFILES) * 5 + 1  # backends alone, in 18
    for name in ("states_compared", "histories", "orders_deep", "stray_writes", "lives"):
        assert getattr(QUICK, name) < getattr(USUAL, name) <= getattr(FULL, name)
    assert QUICK.child_points > USUAL.child_points > FULL.child_points == 1
    assert set(FULL.supervisor_points.values()) == {1}
    assert FULL.spawned_histories > USUAL.spawned_histories == 0
    assert FULL.server_histories > USUAL.server_histories > QUICK.server_histories == 0


def test_what_is_left_out_is_said_of_each_extent():
    said = {each.name: verification.Verification(each, strict=False, seed=1).left_out for each in EXTENTS.values()}
    assert said["full"] == ["mutants of the specification: `armed mutate`"]
    assert set(said["full"]) < set(said["usual"])
    assert len(said["usual"]) == 8
    assert "100,000 lives under one supervisor (here 5,000)" in said["usual"]


# --- What makes it fail ----------------------------------------------------------------------------------------------


def test_a_count_of_zero_is_no_pass():
    assert Part("part", "claim").verdict == "FAILS"
    assert Part("part", "claim", counts={"histories": 0}).verdict == "FAILS"
    assert Part("part", "claim", counts={"deaths": {}}).verdict == "FAILS"
    assert Part("part", "claim", counts={"deaths": {"raw": {"SIGKILL": 0}}}).verdict == "FAILS"
    assert Part("part", "claim", counts={"histories": 1}).verdict == "holds"
    assert Part("part", "claim", counts={"histories": 0}).as_json()["failures"] == ["the count of histories is 0"]


def test_a_part_that_was_not_run_is_neither_a_failure_nor_a_pass():
    part = Part("part", "claim", not_run="no Java")
    assert part.verdict == "NOT RUN"
    assert not part.as_json()["holds"]
    part.failures.append("--strict")
    assert part.verdict == "FAILS"


def test_no_parts_are_no_pass_nor_are_parts_that_were_not_run():
    nothing = verification.Verification(QUICK, strict=False, seed=1)
    assert not nothing.holds
    nothing.parts.append(Part("part", "claim", not_run="no Java"))
    assert not nothing.holds
    nothing.parts.append(Part("part", "claim", counts={"things": 1}))
    assert nothing.holds


STEPS = {
    "exploration": "_explore",
    "interpreter": "_compare_interpreters",
    "proofs": "_prove",
    "controls": "_refute",
    "cvc5": "_ask_cvc5",
    "TLC": "_ask_tlc",
    "decisions": "_decisions",
    "conformance": "_conform",
    "exhaustive": "_exhaust",
    "crash points": "_crash_points",
    "stray writes": "_stray_writes",
    "soak": "_soak",
    "PostgreSQL": "_conform_servers",
}


@pytest.fixture
def only(monkeypatch):
    """Run one part as it is, and for each of the others say that it has looked at something."""

    def looks(part, *_):
        part.counts = {"things": 1}

    def verify_only(*names, strict=False, keep=None, quick=True):
        for each in STEPS.keys() - {*names}:
            monkeypatch.setattr(verification, STEPS[each], looks)
        result = verify(extent=verification.QUICK if quick else USUAL, strict=strict, seed=1, keep=keep)
        assert [part.name for part in result.parts] == (PARTS if quick else [*PARTS, "PostgreSQL"])
        assert all(part.verdict == "holds" for part in result.parts if part.name not in names)
        parts = {part.name: part for part in result.parts}
        assert result.holds is not any(parts[name].fails for name in names)
        return parts[names[0]] if len(names) == 1 else parts

    return verify_only


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_raises_fails_and_the_others_still_run(only, monkeypatch, name):
    def breaks(*_):
        raise RuntimeError("planted")

    monkeypatch.setattr(verification, STEPS[name], breaks)
    assert only(name).failures == ["RuntimeError: planted"]


@pytest.mark.parametrize("command", [["verify", "--quick"], ["prove", "--profile", "18"]], ids=lambda each: each[0])
def test_ctrl_c_while_z3_is_called_ends_the_run(command, monkeypatch, tmp_path, capsys):
    class Interrupts(ctypes.c_void_p):
        @classmethod
        def from_param(cls, _):
            raise KeyboardInterrupt

    def calls(*_):
        function = ctypes.CDLL(None).getpid
        function.argtypes = [Interrupts]
        function(0)

    monkeypatch.setattr(verification, "decide", calls)
    monkeypatch.setattr(matrix, "decide", calls)
    monkeypatch.chdir(tmp_path)
    assert run(command) == 130
    assert capsys.readouterr().err.endswith("armed: interrupted; all processes it started have ended\n")


def test_the_exit_status_and_the_evidence_say_that_a_part_failed(monkeypatch, tmp_path, capsys):
    for step in STEPS.values():
        monkeypatch.setattr(verification, step, lambda part, *_: part.counts.update(things=1))

    def fails():
        raise Mismatch("planted")

    monkeypatch.setattr(verification, "compare_decisions", fails)
    monkeypatch.setattr(verification, "_decisions", DECISIONS)
    assert run(["verify", "--quick", "--seed", "1", "--evidence", str(tmp_path)]) == 1
    result = json.loads((tmp_path / "verify.json").read_text())
    assert not result["holds"]
    assert [part["part"] for part in result["parts"] if not part["holds"]] == ["decisions"]
    assert "decisions: planted" in capsys.readouterr().out


DECISIONS = verification._decisions


def bounds(monkeypatch, profile, *sizes, reference_sizes=()):
    small = replace(
        QUICK, profiles=(profile.name,), sizes=sizes, reference_sizes=reference_sizes, states_compared=1, by_cvc5=(),
        by_tlc=(), histories=1,
    )  # fmt: skip
    monkeypatch.setattr(verification, "QUICK", small)


# Exploration


def test_a_property_that_is_violated_and_was_not_refuted_fails_the_exploration(only, monkeypatch):
    bounds(monkeypatch, V8_4_0, Size(1, 1))
    failures = only("exploration").failures
    assert "8.4.0, calm: no_slot_leaks is violated, and was not refuted" in failures
    assert "8.4.0, +cancel: cancel_reaches_its_owner_only is violated, and was not refuted" in failures


def test_what_is_violated_and_was_refuted_is_no_failure(only, monkeypatch):
    recorded = matrix.expected_verdicts()["8.4.0"]
    bounds(monkeypatch, V8_4_0, Size(1, 1))

    def refutes(part, extent, result, progress):
        part.counts = {"things": 1}
        result.matrices.append(Matrix(V8_4_0, tuple(cell(name, Verdict(said)) for name, said in recorded.items())))

    monkeypatch.setattr(verification, "_prove", refutes)
    parts = only("exploration", "proofs")
    assert parts["exploration"].failures == []
    assert parts["exploration"].counts["instances"] == 5


def cell(name, verdict, **more):
    says = Statement(name, "It is so.", "calm", (), ("A1",), "")
    return Cell("8.4.0", says, verdict, **more)


def test_what_must_be_reached_and_is_not_fails_the_exploration(only, monkeypatch):
    never = both(mode == Mode.RUNNING, mode == Mode.STOPPING)
    every = verification.sometimes
    monkeypatch.setattr(verification, "sometimes", lambda profile: {**every(profile), "pigs fly": never})
    bounds(monkeypatch, REFERENCE, Size(1, 1), reference_sizes=(Size(1, 2),))
    assert only("exploration").failures == ["never reached in reference: pigs fly"]


def test_an_action_that_never_happens_has_to_be_proved_impossible(only, monkeypatch):
    monkeypatch.setattr(verification, "impossible_actions", lambda system: set())
    bounds(monkeypatch, REFERENCE, Size(1, 1), reference_sizes=(Size(1, 2),))
    told = "check_fails never happens, and is not proved impossible"
    assert only("exploration").failures == [f"reference, calm: {told}"]
    bounds(monkeypatch, REFERENCE, Size(1, 1), Size(2, 1))
    assert f"reference, +stray: {told}" in only("exploration").failures
    assert f"reference, +orphan: {told}" not in only("exploration").failures  # it happens there


# Proofs and controls


def test_a_verdict_that_is_not_the_recorded_one_fails_the_proofs(only, monkeypatch):
    recorded = matrix.expected_verdicts()
    recorded["reference"]["slot_has_one_owner"] = "refuted"
    monkeypatch.setattr(matrix, "expected_verdicts", lambda: recorded)
    bounds(monkeypatch, REFERENCE, Size(1, 1))
    decided = Matrix(
        REFERENCE,
        tuple(replace(cell(name, Verdict.PROVED), profile="reference") for name in matrix.ALL_NAMES),
    )
    monkeypatch.setattr(verification, "decide", lambda names, progress: [decided])
    assert "reference: slot_has_one_owner is proved; recorded is refuted" in only("proofs").failures


def test_an_open_cell_fails_the_proofs(only, monkeypatch):
    decided = Matrix(REFERENCE, (cell("slot_has_one_owner", Verdict.OPEN),))
    monkeypatch.setattr(verification, "decide", lambda names, progress: [decided])
    assert "reference: slot_has_one_owner is open; recorded is proved" in only("proofs").failures


def test_a_profile_that_is_not_decided_fails_the_proofs(only, monkeypatch):
    monkeypatch.setattr(verification, "decide", lambda names, progress: [])
    assert {"nothing is decided in 18", "nothing is decided in reference"} <= {*only("proofs").failures}


@pytest.mark.parametrize("what", ["commit_now", "changes"])
def test_what_is_changed_while_it_runs_fails_the_part_and_those_after_it(what, monkeypatch):
    for step in STEPS.values():
        monkeypatch.setattr(verification, step, lambda part, *_: part.counts.update(things=1))

    def changes(part, *_):
        part.counts.update(things=1)
        monkeypatch.setattr(crash_points, what, lambda: "another")

    monkeypatch.setattr(verification, "_decisions", changes)
    parts = verify(extent=QUICK, strict=False, seed=1).parts
    failed = [part.name for part in parts if part.failures]
    assert failed == PARTS[PARTS.index("decisions") :]
    assert {line for part in parts for line in part.failures} == {
        "files were changed, or another commit was checked out, while it ran"
    }


def test_nothing_proved_is_no_pass(only, monkeypatch):
    monkeypatch.setattr(verification, "decide", lambda names, progress: [])
    assert "obligations" in only("proofs").empty


def test_a_control_that_is_not_refuted_fails(only, monkeypatch):
    monkeypatch.setattr(matrix, "SEARCH_LIMIT", 1)
    monkeypatch.setattr(verification, "decide", partial(matrix.decide, processes=1))
    part = only("controls")
    assert part.empty == ["controls refuted"]
    assert "no-dead-man-switch: decision_is_exact is open; recorded is refuted" in part.failures


# Second opinions


def missing(*_, **__):
    raise cvc5_opinion.Missing("no cvc5 here")


def missing_java(*_, **__):
    raise tlc.Missing("no Java here")


@pytest.mark.parametrize("strict", [False, True])
def test_a_second_opinion_that_cannot_be_had_is_told_and_fails_where_that_is_strict(only, monkeypatch, strict):
    monkeypatch.setattr(cvc5_opinion, "version", missing)
    monkeypatch.setattr(tlc, "second_opinions", missing_java)
    parts = only("cvc5", "TLC", strict=strict)
    assert (parts["cvc5"].not_run, parts["TLC"].not_run) == ("no cvc5 here", "no Java here")
    assert parts["cvc5"].failures == (["not run, and --strict: no cvc5 here"] if strict else [])
    assert parts["TLC"].failures == (["not run, and --strict: no Java here"] if strict else [])


@pytest.mark.parametrize("option", [[], ["--strict"]])
def test_not_run_is_shown_and_is_a_failure_where_that_is_strict(monkeypatch, tmp_path, capsys, option):
    for name in STEPS.keys() - {"cvc5", "TLC"}:
        monkeypatch.setattr(verification, STEPS[name], lambda part, *_: part.counts.update(things=1))
    monkeypatch.setattr(cvc5_opinion, "version", missing)
    monkeypatch.setattr(tlc, "second_opinions", missing_java)
    assert run(["verify", "--quick", *option, "--evidence", str(tmp_path)]) == (1 if option else 0)
    said = capsys.readouterr().out
    assert said.count("NOT RUN") == (0 if option else 2)
    assert "no Java here" in said
    assert ("Everything that was run holds; not run: cvc5, TLC" in said) is not bool(option)
    told = {part["part"]: part["not_run"] for part in json.loads((tmp_path / "verify.json").read_text())["parts"]}
    assert (told["cvc5"], told["TLC"]) == ("no cvc5 here", "no Java here")


def test_a_second_solver_that_disagrees_fails(only, monkeypatch):
    disagrees = cvc5_opinion.Opinion("reference", "calm", 10, 1, (("arm preserves this", "sat"),), (), 0.1)
    monkeypatch.setattr(cvc5_opinion, "version", lambda: "cvc5 0")
    monkeypatch.setattr(cvc5_opinion, "second_opinions", lambda systems, progress: [disagrees])
    (failure,) = only("cvc5").failures
    assert "reference, calm" in failure
    assert "arm preserves this" in failure


def test_a_full_run_keeps_every_obligation_and_fails_where_an_answer_is_another(only, monkeypatch, tmp_path):
    def writes(keep, systems, **_):
        index = keep / "index.json"
        of = [{"profile": system.profile.name, "environment": system.environment} for system in systems]
        entries = [{"obligation": "one", "cvc5": "unsat", **each} for each in of[1:]]
        entries[0] |= {"obligation": "two", "cvc5": "unknown"}
        not_proved = [{**of[0], "property": name} for name in ("slot_has_one_owner", "no_slot_leaks")]
        index.write_text(json.dumps({"obligations": entries, "not_proved": not_proved}))
        return index

    monkeypatch.setattr(cvc5_opinion, "version", lambda: "cvc5 0")
    monkeypatch.setattr(verification.evidence, "write_evidence", writes)
    part = only("cvc5", keep=tmp_path, quick=False)
    assert part.failures == [
        "two: unknown",
        "8.4.0, calm: nothing was asked",
        "18, calm, backends alone: nothing was asked",
        "8.4.0, calm: slot_has_one_owner was not proved again, and cvc5 was not asked",
    ]
    assert str(tmp_path / "index.json") in part.notes[0]


def test_a_model_checker_that_differs_fails(only, monkeypatch):
    differs = tlc.Opinion("15", "calm", Size(1, 1), 10, 11, 1, ("no_slot_leaks",), ("11 states, not 10",), 0.1, 0.1)
    monkeypatch.setattr(tlc, "second_opinions", lambda instances: iter([differs]))
    assert only("TLC").failures == ["15, calm, 1 slot x 1 child: 11 states, not 10"]


def test_a_model_checker_that_was_asked_nothing_is_no_pass(only, monkeypatch):
    monkeypatch.setattr(tlc, "second_opinions", lambda instances: iter([]))
    assert "instances" in only("TLC").empty


# The model against z3, decisions, real processes


def test_an_interpreter_that_disagrees_with_z3_fails(only, monkeypatch):
    def disagrees(*_):
        raise verification.Disagreement("planted")

    monkeypatch.setattr(verification, "compare", disagrees)
    part = only("interpreter")
    assert part.failures == ["planted"]
    assert part.empty == ["values"]


def test_decisions_that_were_not_compared_are_no_pass(only, monkeypatch):
    monkeypatch.setattr(verification, "compare_decisions", lambda: 0)
    assert only("decisions").empty == ["decisions"]


def conforms(monkeypatch, **facts):
    report = Report("armed:fork", 1, **facts)
    monkeypatch.setattr(verification, "conform", lambda *_, **__: report)


def test_a_cell_that_was_never_seen_fails(only, monkeypatch):
    conforms(monkeypatch, wanted=2, missing=["serving, engaged: SIGKILL"])
    assert "never seen: serving, engaged: SIGKILL" in only("conformance").failures


def test_a_history_that_was_cut_short_fails(only, monkeypatch):
    conforms(monkeypatch, wanted=2, cut_short=["clean lives"])
    assert "cut short: clean lives" in only("conformance").failures


def test_a_mismatch_fails_and_is_what_is_told(only, monkeypatch):
    conforms(monkeypatch, wanted=2, missing=["serving, engaged: SIGKILL"], mismatch="the model says: crash")
    assert only("conformance").failures == ["the model says: crash"]


def test_histories_that_were_not_run_are_no_pass(only, monkeypatch):
    conforms(monkeypatch, wanted=2)
    assert {"histories", "steps", "deaths", "recoveries"} <= {*only("conformance").empty}


def exhausts(monkeypatch, depth=2, **facts):
    report = Exhaustion("armed:fork", depth, 2, **facts)
    monkeypatch.setattr(verification, "exhaust", lambda *_, **__: report)


def test_a_state_that_was_never_seen_fails(only, monkeypatch):
    exhausts(monkeypatch, states=2, states_seen=1, missing=["state: start; start"])
    assert only("exhaustive").failures == ["never seen: state: start; start"]


def test_what_differs_in_a_state_fails_and_is_what_is_told(only, monkeypatch):
    exhausts(monkeypatch, depth=5, mismatch="the model says: crash")
    assert only("exhaustive").failures == ["the model says: crash"]


def test_a_kind_of_order_that_was_never_given_fails_at_a_depth_where_each_is(only, monkeypatch):
    every = [str(each) for each in EVERYTHING]
    exhausts(monkeypatch, depth=5, ordered=Counter(every[1:]))
    assert only("exhaustive").failures == [f"never ordered: {every[0]}"]


def test_orders_that_were_not_given_are_no_pass(only, monkeypatch):
    exhausts(monkeypatch)
    assert {"states", "states_seen", "orders", "orders_given", "histories", "deaths"} <= {*only("exhaustive").empty}


# Crash points, stray writes, soak


def test_a_crash_point_that_is_judged_wrong_fails(only, monkeypatch):
    swept = crash_points.Sweep("holding, _exit(0)", 10, 5, ["clean from engage+2"], ["at engage+2: it was engaged"])
    monkeypatch.setattr(crash_points, "sweep_child", lambda *_: swept)
    monkeypatch.setattr(crash_points, "sweep_supervisor", lambda *_: replace(swept, points=0, failures=[]))
    part = only("crash points")
    assert set(part.failures) == {"at engage+2: it was engaged"}
    assert part.empty == ["supervisor points"]
    assert "holding, _exit(0): 5 of 10 boundaries; clean from engage+2" in part.notes


def test_a_supervisor_that_is_deceived_by_stray_writes_fails(only, monkeypatch):
    monkeypatch.setattr("armed.supervisor.decide", lambda status, word, token, kind: Decision.CLEAN)
    monkeypatch.setattr("armed.supervisor.is_exiting", lambda pid: False)  # the early look decides by itself
    failures = only("stray writes", quick=False).failures  # of the few lives of a quick run none may leave armed
    assert any(line.startswith("a child left armed, its slot held") for line in failures)


def test_a_soak_that_leaves_something_fails(only, monkeypatch):
    leak = []
    soaked = soak.soak
    monkeypatch.setattr(soak, "soak", lambda *_: soaked(20, 1, lambda done: leak or leak.append(os.dup(0))))
    try:
        (failure,) = only("soak").failures
        assert failure.startswith("descriptors: ")
    finally:
        os.close(leak[0])


# --- PostgreSQL servers ----------------------------------------------------------------------------------------------


def test_servers_that_are_not_there_are_said_not_to_have_been_run(only, monkeypatch):
    monkeypatch.setenv("ARMED_POSTGRES", "")
    part = only("PostgreSQL", quick=False)
    assert part.not_run.startswith("no PostgreSQL server is found")
    assert not part.fails
    assert only("PostgreSQL", quick=False, strict=True).failures == [f"not run, and --strict: {part.not_run}"]


def test_each_server_is_held_to_the_model_and_what_differs_is_told_with_its_name(only, monkeypatch, bindir):
    monkeypatch.setenv("ARMED_POSTGRES", f"{bindir}:{bindir}")
    differs = Report("other", 1, mismatch="the model says: crash")
    reports = iter([Report("armed", 1), Report("one", 1), differs])
    monkeypatch.setattr(verification, "conform", lambda *_, **__: next(reports))
    part = only("PostgreSQL", "conformance", quick=False)["PostgreSQL"]
    assert part.counts["servers"] == 2
    assert part.failures == [f"{bindir}: the model says: crash"]
    assert "histories" in part.empty
    assert len(part.notes) == 2
