"""The theorem matrix: the verdicts, what they rest on, and that nothing is called proved that is not."""

import json
import tomllib
from dataclasses import replace
from importlib.resources import files

import pytest
import z3

from armed_model.explore import Step, explore, holds_at_the_end, premises, replay, violations
from armed_model.interpret import Instance, Size
from armed_model.profiles import CONTROLS, NO_DEAD_MAN_SWITCH, PROFILES, REFERENCE
from armed_model.properties import ASSUMPTIONS, BY_NAME, PROPERTIES
from armed_model.system import Mode, System, mode
from armed_model.terms import both
from armed_proofs import matrix as module
from armed_proofs.matrix import (
    ALL_PROFILES,
    Verdict,
    decide,
    decide_profile,
    expected_verdicts,
    record,
    unexpected,
    verdicts_as_toml,
)

EIGHT = [
    "armed_exit_triggers_recovery",
    "decision_is_exact",
    "held_resource_never_looks_clean",
    "orderly_exit_never_alarms",
    "slot_has_one_owner",
    "flag_follows_lifecycle",
    "reset_only_when_alone",
    "second_crash_adds_nothing",
]
REFUTED_WITHOUT_THE_SWITCH = [
    "armed_exit_triggers_recovery",
    "decision_is_exact",
    "held_resource_never_looks_clean",
]

THE_STORY_OF_THE_COMMIT = (
    Step("assign", (1, 3)),
    Step("fork", (1,)),
    Step("hook", (1,)),
    Step("arm", (1,)),
    Step("raw_exit", (1, 0)),
    Step("reap_clean", (1,)),
    Step("assign", (1, 3)),
)
"""A child touches shared memory, calls `_exit(0)`, is taken for clean, and its slot is given out again (C2)."""


@pytest.fixture
def only_the_smallest(monkeypatch):
    monkeypatch.setattr(module, "SIZES", (Size(1, 1),))


# --- The reference ---------------------------------------------------------------------------------------------------


def test_every_property_of_the_reference_is_proved_without_bounds(matrices):
    cells = matrices["reference"].cells
    assert [(cell.claim.name, cell.verdict, cell.scope) for cell in cells] == [
        (name, Verdict.PROVED, "unbounded") for name in EIGHT
    ]
    assert all(cell.failures == () and cell.counterexample is None and cell.obligations > 0 for cell in cells)


def test_the_proofs_of_the_reference_are_counted(matrices):
    reference = matrices["reference"]
    assert reference.profile is REFERENCE
    assert all(answer.proved for answer in reference.invariant)
    assert [cell.obligations for cell in reference.cells] == [26, 26, 26, 26, 1, 26, 26, 26]
    assert reference.obligations == 20 + 20 * 26 + 7 * 26 + 1


def test_every_premise_is_reached_by_a_run_that_replays(matrices):
    two = Instance(System(REFERENCE), Size(2, 2))
    checks = premises(two, PROPERTIES)
    lengths = {}
    for cell in matrices["reference"].cells:
        assert len(replay(two, cell.premise)) == len(cell.premise) + 1
        assert holds_at_the_end(two, cell.premise, checks[cell.claim.name]) is not None
        assert holds_at_the_end(two, cell.premise[:-1], checks[cell.claim.name]) is None
        lengths[cell.claim.name] = len(cell.premise)
    assert lengths == dict(zip(EIGHT, (7, 4, 7, 5, 4, 1, 6, 8), strict=True))


def test_one_property_restates_the_actions(matrices):
    assert [cell.claim.name for cell in matrices["reference"].cells if cell.restates] == ["second_crash_adds_nothing"]


# --- The negative control --------------------------------------------------------------------------------------------


def test_the_control_refutes_what_is_recorded(matrices):
    cells = matrices["no-dead-man-switch"].cells
    assert [cell.claim.name for cell in cells] == REFUTED_WITHOUT_THE_SWITCH
    assert {cell.verdict for cell in cells} == {Verdict.REFUTED}
    assert {cell.scope for cell in cells} == {"1 slot x 1 child"}


def test_the_control_refutes_nothing_else():
    for size in (Size(1, 2), Size(2, 1)):
        control = Instance(System(NO_DEAD_MAN_SWITCH), size)
        assert set(explore(control, violations(control, PROPERTIES)).found) == set(REFUTED_WITHOUT_THE_SWITCH)


def test_a_refutation_replays_in_the_control_and_not_in_the_reference(matrices):
    control = Instance(System(NO_DEAD_MAN_SWITCH), Size(1, 1))
    reference = Instance(System(REFERENCE), Size(1, 1))
    checks = violations(control, PROPERTIES)
    for cell in matrices["no-dead-man-switch"].cells:
        assert holds_at_the_end(control, cell.counterexample, checks[cell.claim.name]) is not None
        assert holds_at_the_end(control, cell.counterexample[:-1], checks[cell.claim.name]) is None
        with pytest.raises(ValueError, match=r"reap_clean\(1,\) is not enabled: And\(Or\(.*status"):
            replay(reference, cell.counterexample)
        assert len(cell.story) == len(cell.counterexample)


def test_the_shortest_refutation_is_the_story_of_the_commit(matrices):
    runs = {cell.claim.name: cell.counterexample for cell in matrices["no-dead-man-switch"].cells}
    assert runs["armed_exit_triggers_recovery"] == THE_STORY_OF_THE_COMMIT
    assert runs["decision_is_exact"] == THE_STORY_OF_THE_COMMIT[:6]
    assert runs["held_resource_never_looks_clean"] == (
        *THE_STORY_OF_THE_COMMIT[:4],
        Step("take", (1,)),
        *THE_STORY_OF_THE_COMMIT[4:6],
    )


def test_the_reference_starts_recovery_where_the_control_goes_on():
    reference = Instance(System(REFERENCE), Size(1, 1))
    run = (*THE_STORY_OF_THE_COMMIT[:5], Step("reap_crash", (1,)))
    assert reference.read(replay(reference, run)[-1], mode) is Mode.STOPPING


# --- What is not proved ----------------------------------------------------------------------------------------------


def test_a_property_whose_premise_is_never_reached_is_not_proved(only_the_smallest):
    impossible = replace(BY_NAME["decision_is_exact"], premise=both(mode == Mode.RUNNING, mode == Mode.STOPPING))
    (cell,) = decide_profile(REFERENCE, (impossible,)).cells
    assert cell.verdict is Verdict.OPEN
    assert cell.premise is None
    assert cell.failures == ()


def test_a_property_that_needs_a_broken_invariant_is_not_proved(only_the_smallest, monkeypatch):
    """The property's own obligations go through; the invariant's do not."""
    monkeypatch.setitem(module.invariant_obligations.__globals__["INVARIANTS"], "planted", ((), mode == Mode.RUNNING))
    (cell,) = decide_profile(REFERENCE, (BY_NAME["flag_follows_lifecycle"],)).cells
    assert cell.verdict is Verdict.OPEN
    assert "reap_crash preserves planted" in [failure.name for failure in cell.failures]


def test_unknown_is_open_and_says_so(only_the_smallest, monkeypatch):
    monkeypatch.setattr(z3.Solver, "check", lambda self, *assumptions: z3.unknown)
    (cell,) = decide_profile(REFERENCE, (BY_NAME["reset_only_when_alone"],)).cells
    assert cell.verdict is Verdict.OPEN
    assert cell.counterexample is None
    assert all("unknown" in line for line in cell.as_json()["failures"])
    assert cell.as_json()["failures"]


def test_a_search_that_is_cut_short_reaches_no_premise(only_the_smallest, monkeypatch):
    monkeypatch.setattr(module, "SEARCH_LIMIT", 10)
    (cell,) = decide_profile(REFERENCE, (BY_NAME["reset_only_when_alone"],)).cells
    assert (cell.verdict, cell.premise) == (Verdict.OPEN, None)


def test_a_run_that_does_not_replay_stops_everything(monkeypatch):
    monkeypatch.setattr(module, "holds_at_the_end", lambda instance, run, check: None)
    with pytest.raises(AssertionError, match="does not replay: the search and the interpreter disagree"):
        decide_profile(REFERENCE, (BY_NAME["reset_only_when_alone"],))


# --- The record ------------------------------------------------------------------------------------------------------


def test_the_recorded_verdicts_are_those_found(matrices):
    assert unexpected(matrices.values()) == []


def test_a_changed_verdict_is_noticed(matrices):
    reference = matrices["reference"]
    first, *rest = reference.cells
    changed = replace(reference, cells=(replace(first, verdict=Verdict.OPEN), *rest))
    assert unexpected([changed]) == ["reference: armed_exit_triggers_recovery is open; recorded is proved"]
    changed = replace(reference, cells=(*rest, replace(first, verdict=Verdict.REFUTED)))
    assert unexpected([changed]) == ["reference: armed_exit_triggers_recovery is refuted; recorded is proved"]


def test_a_control_that_passes_is_noticed(matrices):
    control = matrices["no-dead-man-switch"]
    passing = replace(control, cells=tuple(replace(cell, verdict=Verdict.PROVED) for cell in control.cells))
    assert unexpected([matrices["reference"], passing]) == [
        f"no-dead-man-switch: {name} is proved; recorded is refuted" for name in REFUTED_WITHOUT_THE_SWITCH
    ]


def test_a_verdict_that_is_not_recorded_is_noticed(matrices, monkeypatch):
    recorded = expected_verdicts()
    del recorded["reference"]["slot_has_one_owner"]
    del recorded["no-dead-man-switch"]
    monkeypatch.setattr(module, "expected_verdicts", lambda: recorded)
    assert unexpected(matrices.values()) == [
        "reference: slot_has_one_owner is proved; recorded is nothing",
        *(f"no-dead-man-switch: {name} is refuted; recorded is nothing" for name in REFUTED_WITHOUT_THE_SWITCH),
    ]


def test_the_verdicts_are_written_as_they_are_recorded(matrices):
    written = verdicts_as_toml(matrices.values())
    assert written == files("armed_proofs").joinpath("verdicts.toml").read_text()
    assert tomllib.loads(written) == expected_verdicts()


def test_recording_writes_over_the_recorded_verdicts_alone(matrices, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "files", lambda package: tmp_path / package)
    (tmp_path / "armed_proofs").mkdir()
    assert record([matrices["reference"]]) == str(tmp_path / "armed_proofs" / "verdicts.toml")
    assert expected_verdicts() == {"reference": dict.fromkeys(EIGHT, "proved")}


def test_what_is_recorded_is_what_there_is():
    assert [claim.name for claim in PROPERTIES] == EIGHT
    assert list(expected_verdicts()) == list(ALL_PROFILES) == ["reference", "no-dead-man-switch"]
    assert list(ALL_PROFILES) == [*PROFILES, *CONTROLS]
    for name, verdicts in expected_verdicts().items():
        assert set(verdicts) <= set(EIGHT)
        assert set(verdicts.values()) == {"proved" if name in PROFILES else "refuted"}
    assert list(expected_verdicts()["reference"]) == EIGHT


def test_one_property_alone_is_decided_as_among_the_others(matrices):
    (cell,) = decide("no-dead-man-switch", only="decision_is_exact").cells
    (same,) = [each for each in matrices["no-dead-man-switch"].cells if each.claim.name == "decision_is_exact"]
    assert replace(cell, seconds=same.seconds, failures=(), premise=None) == replace(same, failures=(), premise=None)


def test_progress_is_told_a_phrase_at_a_time():
    told = []
    decide("no-dead-man-switch", told.append, only="decision_is_exact")
    assert told == [
        "no-dead-man-switch: is the invariant inductive?",
        "no-dead-man-switch: is every premise reached?",
        "no-dead-man-switch: decision_is_exact",
    ]


# --- The published format --------------------------------------------------------------------------------------------


def test_a_cell_is_published_with_what_it_rests_on(matrices):
    published = {
        *("profile", "property", "environment", "verdict", "scope"),
        *("assumptions", "solvers", "seconds", "counterexample"),
    }
    for matrix in matrices.values():
        for cell in matrix.cells:
            told = json.loads(json.dumps(cell.as_json()))
            assert published <= set(told)
            assert told["profile"] == matrix.profile.name
            assert told["property"] == cell.claim.name
            assert told["environment"] == "calm"
            assert told["verdict"] == cell.verdict.value
            assert told["scope"] == cell.scope
            assert told["assumptions"]
            assert set(told["assumptions"]) <= set(ASSUMPTIONS)
            assert told["solvers"] == [f"z3 {z3.get_version_string()}"]
            assert 0 <= told["seconds"] < 60
            assert told["failures"] == []
            assert bool(told["counterexample"]) is (cell.verdict is Verdict.REFUTED)


def test_a_counterexample_is_published_step_by_step(matrices):
    first = matrices["no-dead-man-switch"].cells[0].as_json()
    assert first["counterexample"] == [
        {"action": "assign", "arguments": [1, 3]},
        {"action": "fork", "arguments": [1]},
        {"action": "hook", "arguments": [1]},
        {"action": "arm", "arguments": [1]},
        {"action": "raw_exit", "arguments": [1, 0]},
        {"action": "reap_clean", "arguments": [1]},
        {"action": "assign", "arguments": [1, 3]},
    ]


def test_a_recorded_property_that_was_not_decided_is_noticed(matrices, monkeypatch):
    recorded = module.expected_verdicts()
    recorded["reference"]["something_else"] = "proved"
    monkeypatch.setattr(module, "expected_verdicts", lambda: recorded)
    found = module.unexpected([matrices["reference"]])
    assert found == ["reference: something_else is not decided; recorded is proved"]
