"""The theorem matrix: the verdicts, what they rest on, and that nothing is called proved that is not."""

import json
import tomllib
from dataclasses import replace
from importlib.resources import files

import pytest
import z3

from armed_model.explore import Step, explore, holds_at_the_end, premises, replay, violations
from armed_model.interpret import Instance, Size, Sought
from armed_model.profiles import CONTROLS, NO_DEAD_MAN_SWITCH, PROFILES, REFERENCE, V18, CleanWord
from armed_model.properties import ASSUMPTIONS, NAMES, Claim, by_name, leads_to
from armed_model.system import ENVIRONMENTS, Mode, System, mode
from armed_model.terms import both, negate
from armed_proofs import invariants, obligations
from armed_proofs import matrix as module
from armed_proofs.liveness import is_lasso
from armed_proofs.matrix import (
    ALL_NAMES,
    ALL_PROFILES,
    Finding,
    Verdict,
    decide,
    decide_profiles,
    expected_verdicts,
    findings,
    record,
    unexpected,
    verdicts_as_toml,
)
from armed_proofs.obligations import Answer, invariant_obligations
from armed_proofs.replay import replay_by_definition

BY_NAME = by_name(REFERENCE)
OF_RUNS = [each.name for each in leads_to(REFERENCE)]
NAMED_IN_THE_DESIGN = [
    *("armed_exit_triggers_recovery", "decision_is_exact", "held_resource_never_looks_clean"),
    *("orderly_exit_never_alarms", "slot_has_one_owner", "flag_has_one_writer", "no_slot_leaks"),
    *("assignment_never_fails", "flag_follows_lifecycle", "no_start_during_recovery", "reset_only_when_alone"),
    *("reset_is_fresh", "torn_memory_is_not_served", "second_crash_adds_nothing", "crash_after_reset_recovers_again"),
    *("cancel_reaches_its_owner_only", "grandchild_never_disarms", "grandchild_gives_nothing_back"),
    *("supervisor_survives_stray_writes", "armed_exit_triggers_recovery_despite_stray_writes"),
    *("armed_exit_leads_to_restart", "supervisor_death_ends_children"),
]
REFUTED_WITHOUT_THE_SWITCH = [
    "armed_exit_triggers_recovery",
    "decision_is_exact",
    "held_resource_never_looks_clean",
]

THE_STORY_OF_THE_COMMIT = (
    Step("assign", (1, 5)),
    Step("fork", (1,)),
    Step("ask", (1,)),
    Step("check", (1,)),
    Step("hook", (1,)),
    Step("arm", (1,)),
    Step("raw_exit", (1, 0)),
    Step("reap_clean", (1,)),
    Step("assign", (1, 6)),
)
"""A child touches shared memory, calls `_exit(0)`, is taken for clean, and its slot is given out again (C2)."""


@pytest.fixture
def only_the_smallest(monkeypatch):
    monkeypatch.setattr(module, "SIZES", (Size(1, 1),))


@pytest.fixture
def decided(monkeypatch):
    """Decide a claim of the test's own making, which goes by the name of one of the properties."""

    def decide_claim(claim, profile=REFERENCE):
        monkeypatch.setattr(module, "properties", lambda profile, backends_alone=False: (claim,))
        monkeypatch.setattr(module, "leads_to", lambda profile, backends_alone=False: ())
        (matrix,) = decide_profiles([profile], [claim.name], processes=1)
        return matrix

    return decide_claim


def only_cell(matrix):
    (cell,) = matrix.cells
    return cell


def cells_of(matrices, verdict):
    return [(matrix, cell) for matrix in matrices.values() for cell in matrix.cells if cell.verdict is verdict]


def claim_of(matrix, cell):
    name = cell.claim.name
    if name in OF_RUNS:
        return next(each for each in leads_to(matrix.profile, cell.backends_alone) if each.name == name)
    return by_name(matrix.profile, cell.backends_alone)[name]


def system_of(matrix, cell):
    return System(matrix.profile, cell.claim.environment, cell.backends_alone)


# --- The verdicts ----------------------------------------------------------------------------------------------------


def test_what_the_design_names_is_claimed_and_every_profile_decides_it():
    assert set(NAMED_IN_THE_DESIGN) <= set(ALL_NAMES)
    assert [*ALL_NAMES] == [*NAMES, *OF_RUNS]


def test_every_profile_decides_every_property(matrices):
    assert list(matrices) == list(ALL_PROFILES) == [*PROFILES, *CONTROLS]
    for name in PROFILES:
        assert [cell.name for cell in matrices[name].cells if not cell.backends_alone] == [*ALL_NAMES]


def test_every_property_of_the_reference_is_proved_without_bounds(matrices):
    cells = matrices["reference"].cells
    assert [(cell.name, cell.verdict, cell.scope) for cell in cells] == [
        (name, Verdict.PROVED, "unbounded") for name in ALL_NAMES
    ]
    assert all(cell.failures == () and cell.counterexample is None and cell.obligations > 0 for cell in cells)


def test_nothing_is_open_and_little_is_out_of_scope(matrices):
    assert cells_of(matrices, Verdict.OPEN) == []
    out = cells_of(matrices, Verdict.OUT_OF_SCOPE)
    assert 0 < len(out) <= 15
    assert all(len(cell.claim.out_of_scope) > 20 for _, cell in out)


def test_the_proofs_of_the_reference_are_counted(matrices):
    reference = matrices["reference"]
    assert reference.profile == REFERENCE
    assert set(reference.invariants) == {BY_NAME[name].environment for name in NAMES}
    for environment, answers in reference.invariants.items():
        system = System(REFERENCE, environment)
        assert [each.name for each in answers] == [each.name for each in invariant_obligations(system)]
        assert all(answer.proved for answer in answers)
    for cell in reference.cells:
        if cell.claim.name in NAMES:
            once = BY_NAME[cell.claim.name].claims is Claim.ALWAYS
            actions = System(REFERENCE, cell.claim.environment).actions
            assert cell.obligations == (1 if once else len(actions)), cell.name
    total = sum(map(len, reference.invariants.values())) + sum(cell.obligations for cell in reference.cells)
    assert reference.obligations == total > 5_000


def test_every_premise_is_reached_by_a_run_that_replays(matrices):
    systems = {environment: System(REFERENCE, environment) for environment in ENVIRONMENTS}
    instances = {name: [Instance(system, size) for size in module.SIZES] for name, system in systems.items()}
    for cell in matrices["reference"].cells:
        claim = claim_of(matrices["reference"], cell)
        if cell.claim.name in OF_RUNS:
            sought = Sought(claim.over, claim.pending, on_states=True)
        else:
            sought = premises([claim])[claim.name]
        instance = next(each for each in instances[cell.claim.environment] if replays(each, cell.premise))
        assert holds_at_the_end(instance, cell.premise, sought), cell.name
        if cell.premise:
            assert not holds_at_the_end(instance, cell.premise[:-1], sought), cell.name


def replays(instance, run):
    """Whether it is a run of this instance: in a larger one a slot may be free, and no dead-end child is started."""
    try:
        return len(replay(instance, run)) == len(run) + 1
    except (ValueError, IndexError):
        return False


def test_what_restates_the_actions_is_labelled(matrices):
    restates = {cell.claim.name for cell in matrices["reference"].cells if cell.restates}
    assert {"recovery_goes_in_order", "second_crash_adds_nothing", "life_goes_in_order"} <= restates
    assert not restates & {"armed_exit_triggers_recovery", "slot_has_one_owner", "flag_follows_lifecycle"}


# --- What is refuted -------------------------------------------------------------------------------------------------


def test_the_control_refutes_what_is_recorded(matrices):
    cells = matrices["no-dead-man-switch"].cells
    assert [cell.claim.name for cell in cells] == REFUTED_WITHOUT_THE_SWITCH
    assert {cell.verdict for cell in cells} == {Verdict.REFUTED}
    assert {cell.scope for cell in cells} == {"1 slot x 1 child"}


def test_every_refutation_is_a_run_that_ends_in_the_violation_and_not_before(matrices):
    refuted = cells_of(matrices, Verdict.REFUTED)
    assert len(refuted) > 30
    for matrix, cell in refuted:
        claim = claim_of(matrix, cell)
        instance = Instance(system_of(matrix, cell), cell.size)
        if cell.claim.name in OF_RUNS:
            assert is_lasso(instance, claim, replay(instance, cell.counterexample))
            assert len(cell.story) == len(cell.counterexample) + 1
            continue
        sought = violations([claim])[claim.name]
        instance = Instance(instance.system, cell.size)
        bindings = holds_at_the_end(instance, cell.counterexample, sought)
        assert bindings, (matrix.profile.name, cell.name)
        assert not holds_at_the_end(instance, cell.counterexample[:-1], sought)
        assert len(cell.story) == len(cell.counterexample)
        replay_by_definition(instance, cell.counterexample, claim, bindings[0])


def test_a_refutation_replays_in_the_control_and_not_in_the_reference(matrices):
    reference = Instance(System(REFERENCE), Size(1, 1))
    for cell in matrices["no-dead-man-switch"].cells:
        with pytest.raises(ValueError, match=r"(?s)reap_clean\(1,\) is not enabled: .*flag"):
            replay(reference, cell.counterexample)


def test_the_shortest_refutation_is_the_story_of_the_commit(matrices):
    runs = {cell.claim.name: cell.counterexample for cell in matrices["no-dead-man-switch"].cells}
    assert runs["armed_exit_triggers_recovery"] == THE_STORY_OF_THE_COMMIT
    assert runs["decision_is_exact"] == THE_STORY_OF_THE_COMMIT[:8]
    assert runs["held_resource_never_looks_clean"] == (
        *THE_STORY_OF_THE_COMMIT[:6],
        Step("take", (1,)),
        *THE_STORY_OF_THE_COMMIT[6:8],
    )


def test_the_control_refutes_nothing_else_but_what_follows_from_it():
    """Without the switch memory that somebody died holding is served: it is of one cause."""
    control = System(NO_DEAD_MAN_SWITCH)
    claims = [each for each in by_name(NO_DEAD_MAN_SWITCH).values() if each.environment == "calm"]
    found = set(explore(Instance(control, Size(1, 1)), violations(claims)).found)
    assert set(REFUTED_WITHOUT_THE_SWITCH) <= found
    assert found - set(REFUTED_WITHOUT_THE_SWITCH) == {"torn_memory_is_not_served"}


def test_the_reference_starts_recovery_where_the_control_goes_on():
    reference = Instance(System(REFERENCE), Size(1, 1))
    run = (*THE_STORY_OF_THE_COMMIT[:7], Step("reap_crash", (1,)))
    assert reference.read(replay(reference, run)[-1], mode) is Mode.STOPPING


def test_what_an_auxiliary_child_refutes_is_decided_for_backends_alone_too(matrices):
    """Else the shortest run would hide a better one."""
    found = {cell.name: cell for cell in matrices["18"].cells}
    assert found["armed_exit_triggers_recovery"].verdict is Verdict.REFUTED
    assert "assign_auxiliary" in [step.action for step in found["armed_exit_triggers_recovery"].counterexample]
    alone = found["armed_exit_triggers_recovery, backends alone"]
    assert (alone.verdict, alone.scope) == (Verdict.PROVED, "unbounded")
    assert found["held_resource_never_looks_clean, backends alone"].verdict is Verdict.REFUTED
    for _, cell in cells_of(matrices, Verdict.REFUTED):
        if cell.backends_alone:
            assert not {"fork_auxiliary", "assign_auxiliary"} & {step.action for step in cell.counterexample}


# --- What is not proved ----------------------------------------------------------------------------------------------


def test_a_property_whose_premise_is_never_reached_is_not_proved(only_the_smallest, decided):
    impossible = replace(BY_NAME["decision_is_exact"], premise=both(mode == Mode.RUNNING, mode == Mode.STOPPING))
    cell = only_cell(decided(impossible))
    assert cell.verdict is Verdict.OPEN
    assert cell.premise is None
    assert cell.failures == ()


@pytest.mark.parametrize("name", ["orderly_exit_never_alarms", "the_flag_tells_whether_armed"])
def test_a_property_claimed_in_an_environment_in_which_it_does_not_hold_is_refuted(decided, name):
    cell = only_cell(decided(replace(BY_NAME[name], environment="+stray")))
    assert cell.verdict is Verdict.REFUTED
    assert "stray_write" in [step.action for step in cell.counterexample]


def test_the_same_property_is_proved_where_it_holds(decided):
    cell = only_cell(decided(BY_NAME["orderly_exit_never_alarms"]))
    assert (cell.verdict, cell.counterexample) == (Verdict.PROVED, None)


def test_a_false_property_is_refuted_with_a_shortest_run(decided):
    cell = only_cell(decided(replace(BY_NAME["slot_has_one_owner"], over=(), premise=both(mode == Mode.STOPPING),
                                     conclusion=negate(mode == Mode.STOPPING))))  # fmt: skip
    assert cell.verdict is Verdict.REFUTED
    assert cell.counterexample[-1].action in ("notice", "reap_crash")
    assert not [step for step in cell.counterexample[:-1] if step.action.startswith(("notice", "reap"))]


@pytest.fixture
def planted_candidate(monkeypatch):
    """A candidate that is not inductive, and is recorded nowhere as dropped."""
    every = invariants.candidates

    def candidates(system):
        return {**every(system), "planted": ((), mode == Mode.RUNNING)}

    monkeypatch.setattr(invariants, "candidates", candidates)


def test_a_property_that_needs_a_broken_invariant_is_not_proved(only_the_smallest, planted_candidate, decided):
    """The property's own obligations go through; the invariant's do not."""
    cell = only_cell(decided(BY_NAME["flag_follows_lifecycle"]))
    assert cell.verdict is Verdict.OPEN
    assert "reap_crash preserves planted" in [failure.name for failure in cell.failures]


def test_an_invariant_that_is_not_inductive_is_reported_though_the_property_needs_none(
    only_the_smallest, planted_candidate, decided, monkeypatch
):
    matrix = decided(BY_NAME["second_crash_adds_nothing"])
    monkeypatch.setattr(module, "expected_verdicts", lambda: {"reference": {only_cell(matrix).name: "proved"}})
    lines = unexpected([matrix])
    assert "reference, calm: the invariant is not inductive: reap_crash preserves planted is sat" in lines


def test_unknown_is_open_and_says_so(only_the_smallest, monkeypatch):
    monkeypatch.setattr(z3.Solver, "check", lambda self, *assumptions: z3.unknown)
    cell = only_cell(decide_profiles([REFERENCE], ["reset_only_when_alone"], processes=1)[0])
    assert cell.verdict is Verdict.OPEN
    assert cell.counterexample is None
    assert all("unknown" in line for line in cell.as_json()["failures"])
    assert cell.as_json()["failures"]


def test_a_search_that_is_cut_short_reaches_no_premise(only_the_smallest, monkeypatch):
    monkeypatch.setattr(module, "SEARCH_LIMIT", 10)
    cell = only_cell(decide_profiles([REFERENCE], ["reset_only_when_alone"], processes=1)[0])
    assert (cell.verdict, cell.premise) == (Verdict.OPEN, None)


def test_a_run_that_does_not_replay_stops_everything(only_the_smallest, monkeypatch):
    monkeypatch.setattr(module, "holds_at_the_end", lambda instance, run, sought: [])
    with pytest.raises(AssertionError, match="does not replay: the search and the interpreter disagree"):
        decide_profiles([REFERENCE], ["reset_only_when_alone"], processes=1)


def test_a_lasso_that_is_none_stops_everything(only_the_smallest, monkeypatch):
    monkeypatch.setattr(module, "SIZES", (Size(1, 1), Size(1, 1)))
    monkeypatch.setattr(module, "lasso", lambda instance, claim, limit: ())
    with pytest.raises(AssertionError, match="the run to armed_exit_leads_to_restart does not replay"):
        decide_profiles([PROFILES["8.4.0"]], ["armed_exit_leads_to_restart"], processes=1)


def test_a_whole_run_of_which_no_lasso_is_found_is_open(monkeypatch):
    monkeypatch.setattr(module, "lasso", lambda instance, claim, limit: None)
    cell = only_cell(decide_profiles([PROFILES["8.4.0"]], ["armed_exit_leads_to_restart"], processes=1)[0])
    assert cell.verdict is Verdict.OPEN
    assert "whoever lives can be ended" in [each.name for each in cell.failures]


# --- The record ------------------------------------------------------------------------------------------------------


def test_the_recorded_verdicts_are_those_found(matrices):
    assert unexpected(matrices.values()) == []


def test_a_changed_verdict_is_noticed(matrices):
    reference = matrices["reference"]
    first, *rest = reference.cells
    changed = replace(reference, cells=(replace(first, verdict=Verdict.OPEN), *rest))
    assert unexpected([changed]) == ["reference: armed_exit_triggers_recovery is open; recorded is proved"]
    changed = replace(reference, cells=(*rest, replace(first, verdict=Verdict.REFUTED)))
    assert unexpected([changed]) == [
        "reference: armed_exit_triggers_recovery is refuted; recorded is proved",
        "reference: armed_exit_triggers_recovery is refuted, and findings.toml does not say why",
    ]


def test_an_open_cell_fails_even_where_it_is_recorded_as_open(matrices, monkeypatch):
    reference = matrices["reference"]
    first, *rest = reference.cells
    opened = replace(reference, cells=(replace(first, verdict=Verdict.OPEN), *rest))
    recorded = expected_verdicts()
    recorded["reference"][first.name] = "open"
    monkeypatch.setattr(module, "expected_verdicts", lambda: recorded)
    assert unexpected([opened]) == [f"reference: {first.name} is open: neither proved nor refuted"]


def test_an_open_cell_is_not_recorded(matrices, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "files", lambda package: tmp_path / package)
    (tmp_path / "armed_proofs").mkdir()
    reference = matrices["reference"]
    first, *rest = reference.cells
    with pytest.raises(ValueError, match=f"reference: {first.name} is open"):
        record([replace(reference, cells=(replace(first, verdict=Verdict.OPEN), *rest))])
    assert not list((tmp_path / "armed_proofs").iterdir())


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
    assert unexpected([matrices["reference"], matrices["no-dead-man-switch"]]) == [
        "reference: slot_has_one_owner is proved; recorded is nothing",
        *(f"no-dead-man-switch: {name} is refuted; recorded is nothing" for name in REFUTED_WITHOUT_THE_SWITCH),
    ]


def test_a_recorded_property_that_was_not_decided_is_noticed(matrices, monkeypatch):
    recorded = expected_verdicts()
    recorded["reference"]["something_else"] = "proved"
    monkeypatch.setattr(module, "expected_verdicts", lambda: recorded)
    found = unexpected([matrices["reference"]])
    assert found == ["reference: something_else is not decided; recorded is proved"]


def test_an_invariant_that_fails_is_noticed_even_where_every_verdict_is_as_recorded(matrices):
    reference = matrices["reference"]
    sat = Answer("arm preserves planted", "sat", 0.0)
    broken = replace(reference, invariants={**reference.invariants, "calm": (sat,)})
    assert unexpected([broken]) == ["reference, calm: the invariant is not inductive: arm preserves planted is sat"]


def test_the_verdicts_are_written_as_they_are_recorded(matrices):
    written = verdicts_as_toml(matrices.values())
    assert written == files("armed_proofs").joinpath("verdicts.toml").read_text()
    assert tomllib.loads(written) == expected_verdicts()


def test_recording_writes_over_the_recorded_verdicts_alone(matrices, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "files", lambda package: tmp_path / package)
    (tmp_path / "armed_proofs").mkdir()
    assert record([matrices["reference"]]) == str(tmp_path / "armed_proofs" / "verdicts.toml")
    assert expected_verdicts() == {"reference": dict.fromkeys(ALL_NAMES, "proved")}


def test_what_is_recorded_is_what_there_is():
    assert list(expected_verdicts()) == list(ALL_PROFILES)
    for name, verdicts in expected_verdicts().items():
        if name in PROFILES:
            assert [key for key in verdicts if not key.endswith(", backends alone")] == [*ALL_NAMES]
        assert set(verdicts.values()) <= {"proved", "refuted", "out of scope"}
    assert set(expected_verdicts()["reference"].values()) == {"proved"}
    assert expected_verdicts()["no-dead-man-switch"] == dict.fromkeys(REFUTED_WITHOUT_THE_SWITCH, "refuted")


def test_one_property_alone_is_decided_as_among_the_others(matrices):
    (alone,) = decide(["no-dead-man-switch"], only="decision_is_exact")
    (same,) = [each for each in matrices["no-dead-man-switch"].cells if each.claim.name == "decision_is_exact"]
    assert replace(only_cell(alone), seconds=0, failures=()) == replace(same, seconds=0, failures=())


def test_progress_is_told_a_phrase_at_a_time():
    told = []
    decide(["no-dead-man-switch"], told.append, only="decision_is_exact")
    assert told
    assert all(line.startswith("no-dead-man-switch, ") for line in told)


# --- Findings --------------------------------------------------------------------------------------------------------


def test_every_refuted_cell_has_a_finding_and_every_finding_a_refuted_cell(matrices):
    refuted = {(matrix.profile.name, cell.name) for matrix, cell in cells_of(matrices, Verdict.REFUTED)}
    assert findings().keys() == {each for each in refuted if each[0] in PROFILES}
    for matrix, cell in cells_of(matrices, Verdict.REFUTED):
        assert (cell.finding is not None) is (matrix.profile.name in PROFILES)
    for each in findings().values():
        assert each.reach in ("outside", "debugger", "error")
        assert each.sentence.endswith((".", ".)"))


def test_whoever_changes_what_was_published_changes_no_finding(matrices):
    matrix, cell = next(each for each in cells_of(matrices, Verdict.REFUTED) if each[0].profile.name == "18")
    published = cell.as_json()
    published["finding"]["sentence"] = "another"
    assert cell.finding.sentence != "another"
    assert findings()[matrix.profile.name, cell.name].sentence != "another"


def test_a_refuted_cell_without_a_finding_is_noticed(matrices, monkeypatch):
    known = {key: each for key, each in findings().items() if key != ("18", "held_resource_never_looks_clean")}
    assert len(known) == len(findings()) - 1
    monkeypatch.setattr(module, "findings", lambda: known)
    assert unexpected([matrices["18"]]) == [
        "18: held_resource_never_looks_clean is refuted, and findings.toml does not say why"
    ]


def test_a_stale_finding_is_noticed(matrices, monkeypatch):
    stale = {("reference", "slot_has_one_owner"): Finding("It was so once.", "", "outside"), **findings()}
    monkeypatch.setattr(module, "findings", lambda: stale)
    assert unexpected([matrices["reference"]]) == [
        "reference: slot_has_one_owner is in findings.toml, and is not refuted"
    ]


@pytest.mark.parametrize("name", ALL_NAMES)
def test_one_property_that_is_as_recorded_is_not_held_against_the_findings_of_another(matrices, name):
    """One name may begin like another."""
    alone = [
        replace(matrix, cells=tuple(cell for cell in matrix.cells if cell.claim.name == name))
        for matrix in matrices.values()
    ]
    assert unexpected([each for each in alone if each.cells], name) == []


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
            assert told["environment"] == claim_of(matrix, cell).environment
            assert told["verdict"] == cell.verdict.value
            assert told["scope"] == cell.scope
            assert told["assumptions"]
            assert set(told["assumptions"]) <= set(ASSUMPTIONS)
            assert told["solvers"] == [f"z3 {z3.get_version_string()}"]
            assert 0 <= told["seconds"] < 60
            assert bool(told["counterexample"]) is (cell.verdict is Verdict.REFUTED)
            if cell.verdict is Verdict.PROVED:
                assert (told["failures"], told["scope"]) == ([], "unbounded")


def test_a_counterexample_is_published_step_by_step(matrices):
    first = matrices["no-dead-man-switch"].cells[0].as_json()
    assert first["counterexample"] == [
        {"action": step.action, "arguments": list(step.arguments)} for step in THE_STORY_OF_THE_COMMIT
    ]


def test_tokens_are_assumed_something_of_only_where_there_are_any(matrices):
    for matrix in matrices.values():
        has_tokens = matrix.profile.clean_word is CleanWord.FRESH
        for cell in matrix.cells:
            named = {*cell.claim.assumes}
            assert ("A10" in named) is has_tokens, cell.name
            assert ("A6" in named) is (has_tokens and cell.claim.environment == "+stray"), cell.name


def test_every_assumption_is_needed_by_some_verdict_or_says_what_stands_beside_all(matrices):
    named = {name for matrix in matrices.values() for cell in matrix.cells for name in cell.claim.assumes}
    assert named == set(ASSUMPTIONS)


def test_the_whole_matrix_in_two_processes_is_the_one_of_one(matrices):
    (here,) = decide_profiles([V18], ["no_slot_leaks", "grandchild_never_disarms"], processes=1)
    there = {cell.name: cell for cell in matrices["18"].cells}
    assert len(here.cells) == 2
    for cell in here.cells:
        assert replace(cell, seconds=0) == replace(there[cell.name], seconds=0)


def test_the_limit_on_each_query_holds_for_the_matrix_too():
    assert obligations.LIMIT_MS == 10_000
