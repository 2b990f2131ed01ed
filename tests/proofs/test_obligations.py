"""The queries: which there are, that they are ground, what z3 answers; and what is no proof is not taken for one."""

import itertools

import pytest
import z3

from armed_model.profiles import NO_DEAD_MAN_SWITCH, REFERENCE
from armed_model.properties import BY_NAME, PROPERTIES, Kind
from armed_model.system import ACTIVE, CHILD, UNUSED, Mode, System, flag, mode, phase, slot_of
from armed_model.terms import Parameter
from armed_proofs import obligations as module
from armed_proofs.invariants import INVARIANTS
from armed_proofs.obligations import Obligation, discharge, invariant_obligations, property_obligations

SYSTEM = System(REFERENCE)
ACTIONS = [action.name for action in SYSTEM.actions]
child = Parameter("somebody", CHILD)


@pytest.fixture(scope="module")
def of_the_invariant():
    return list(invariant_obligations(SYSTEM))


@pytest.fixture(scope="module")
def of_properties():
    return {claim.name: list(property_obligations(SYSTEM, claim)) for claim in PROPERTIES}


def refused(queries):
    """The answers that are no proof: name -> answer."""
    return {answer.name: answer.answer for answer in discharge(queries) if not answer.proved}


# --- What is asked ---------------------------------------------------------------------------------------------------


def test_each_conjunct_is_asked_at_first_and_after_each_action(of_the_invariant):
    names = [each.name for each in of_the_invariant]
    assert len(INVARIANTS) == 20
    assert len(ACTIONS) == 26
    assert len(names) == len(set(names)) == 20 + 20 * 26
    assert set(names) == {
        *(f"init: {conjunct}" for conjunct in INVARIANTS),
        *(f"{action} preserves {conjunct}" for action in ACTIONS for conjunct in INVARIANTS),
    }


def test_each_property_is_asked_of_each_action_or_once_of_the_invariant(of_properties):
    for claim in PROPERTIES:
        names = [each.name for each in of_properties[claim.name]]
        if claim.kind is Kind.ALWAYS:
            assert names == [f"invariant implies {claim.name}"]
        else:
            assert names == [f"{action} respects {claim.name}" for action in ACTIONS]


def test_every_query_is_ground(of_the_invariant, of_properties):
    facts_seen = {}  # shared by the queries of one action: looked at once
    for each in (*of_the_invariant, *itertools.chain(*of_properties.values())):
        facts = () if id(each.facts) in facts_seen else each.facts
        facts_seen[id(each.facts)] = each
        assert Obligation(each.name, facts, each.goal).is_ground, each.name
    assert len(facts_seen) == 20 + 26 + 7 * 26 + 1


def test_a_quantifier_is_seen_wherever_it_hides():
    forall = z3.ForAll([child.z3], (phase[child] == phase[child]).z3)
    ground = mode.z3 == mode.z3
    assert Obligation("ground", (ground,), z3.And(ground, z3.Not(ground))).is_ground
    assert not Obligation("in a fact", (ground, z3.Or(ground, z3.Not(forall))), ground).is_ground
    assert not Obligation("in the goal", (ground,), z3.Implies(forall, ground)).is_ground


# --- What is answered ------------------------------------------------------------------------------------------------


def test_the_invariant_of_the_reference_is_inductive(of_the_invariant):
    answers = list(discharge(of_the_invariant))
    assert [answer.name for answer in answers] == [each.name for each in of_the_invariant]
    assert {answer.answer for answer in answers} == {"proved"}
    assert all(answer.proved and 0 < answer.seconds < module.LIMIT_MS / 1000 for answer in answers)


@pytest.mark.parametrize("claim", PROPERTIES, ids=lambda claim: claim.name)
def test_the_invariant_and_the_actions_imply_each_property(of_properties, claim):
    assert refused(of_properties[claim.name]) == {}


def test_the_invariant_is_not_inductive_without_the_switch():
    failures = refused(invariant_obligations(System(NO_DEAD_MAN_SWITCH)))
    assert "reap_clean preserves recovery_is_owed_until_the_reset" in failures
    assert set(failures.values()) == {"sat"}


def test_every_property_but_the_definitional_one_needs_the_invariant():
    without = {
        claim.name: bool(refused(property_obligations(SYSTEM, claim, with_invariant=False))) for claim in PROPERTIES
    }
    assert [name for name, needs in without.items() if not needs] == ["second_crash_adds_nothing"]


# --- What is not proved ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planted", "failing"),
    [
        (((), mode == Mode.RUNNING), "reap_crash preserves planted"),
        (((), mode == Mode.STOPPING), "init: planted"),
        (((child,), flag[slot_of[child]] != ACTIVE), "arm preserves planted"),
        (((child,), flag[slot_of[child]] == UNUSED), "fork preserves planted"),
    ],
    ids=["always running", "never so at first", "never armed", "no child has an assigned slot"],
)
def test_a_false_conjunct_is_not_proved(monkeypatch, planted, failing):
    monkeypatch.setitem(INVARIANTS, "planted", planted)
    assert refused(invariant_obligations(SYSTEM))[failing] == "sat"


def test_a_conjunct_that_contradicts_an_action_proves_nothing_of_it(monkeypatch):
    monkeypatch.setitem(INVARIANTS, "planted", ((), mode == Mode.RUNNING))
    failures = refused(invariant_obligations(SYSTEM))
    for conjunct in INVARIANTS:
        assert failures[f"all_gone preserves {conjunct}"] == "vacuous: no state satisfies the facts"
        assert f"arm preserves {conjunct}" not in failures


def test_a_true_conjunct_that_is_not_inductive_is_not_proved(monkeypatch):
    """Without its supporters a true statement is no invariant: this one needs to know whose slot is whose."""
    for conjunct in ("child_has_a_slot", "owner_has_the_slot"):
        monkeypatch.delitem(INVARIANTS, conjunct)
    assert refused(invariant_obligations(SYSTEM))["arm preserves flag_tells_whether_armed"] == "sat"


@pytest.mark.parametrize(
    ("conjunct", "claim"),
    [
        ("flag_tells_whether_armed", "flag_follows_lifecycle"),
        ("recovery_is_owed_until_the_reset", "armed_exit_triggers_recovery"),
        ("holds_only_while_engaged", "held_resource_never_looks_clean"),
        ("orderly_exit_disarms_unless_spoilt", "orderly_exit_never_alarms"),
        ("child_has_a_slot", "slot_has_one_owner"),
        ("nobody_lives_across_a_reset", "reset_only_when_alone"),
    ],
)
def test_a_property_is_not_proved_without_the_conjunct_that_it_rests_on(monkeypatch, conjunct, claim):
    monkeypatch.delitem(INVARIANTS, conjunct)
    assert "sat" in refused(property_obligations(SYSTEM, BY_NAME[claim])).values()


def test_contradictory_facts_are_answered_vacuous():
    contradiction = ((mode == Mode.RUNNING).z3, (mode == Mode.STOPPING).z3)
    true, false = z3.BoolVal(True), z3.BoolVal(False)
    queries = [Obligation("true", contradiction, true), Obligation("false", contradiction, false)]
    vacuous = "vacuous: no state satisfies the facts"
    assert refused(queries) == {"true": vacuous, "false": vacuous}


def test_the_facts_and_goals_of_one_query_are_not_those_of_the_next():
    running, stopping = (mode == Mode.RUNNING).z3, (mode == Mode.STOPPING).z3
    shared = (running,)
    queries = [
        Obligation("follows", shared, running),
        Obligation("does not follow", shared, stopping),
        Obligation("follows again", shared, running),
        Obligation("of other facts", (stopping,), running),
        Obligation("of these facts", (stopping,), stopping),
    ]
    assert refused(queries) == {"does not follow": "sat", "of other facts": "sat"}


@pytest.mark.parametrize("result", [z3.unknown, z3.sat])
def test_what_z3_does_not_refute_is_not_proved(monkeypatch, result):
    monkeypatch.setattr(z3.Solver, "check", lambda self, *assumptions: result)
    answers = list(discharge(property_obligations(SYSTEM, BY_NAME["slot_has_one_owner"])))
    assert len(answers) == 1
    assert not answers[0].proved
    assert answers[0].answer.startswith(str(result))


def test_a_query_that_takes_too_long_is_not_proved(monkeypatch):
    """Ten pigeons do not fit into nine holes; to find out takes seconds, not a hundredth of one."""
    monkeypatch.setattr(module, "LIMIT_MS", 10)
    sits = [[z3.Bool(f"pigeon {pigeon} in hole {hole}") for hole in range(9)] for pigeon in range(10)]
    crowded = [z3.And(one, other) for hole in zip(*sits, strict=True) for one, other in itertools.combinations(hole, 2)]
    (answer,) = discharge([Obligation("hard", tuple(z3.Or(*holes) for holes in sits), z3.Or(*crowded))])
    assert not answer.proved
    assert answer.answer.startswith("unknown")


def test_the_limit_is_one_that_no_query_comes_near(of_the_invariant):
    assert module.LIMIT_MS == 10_000
    assert max(answer.seconds for answer in discharge(of_the_invariant[:60])) < 1


def test_a_query_with_a_quantifier_is_refused_though_it_could_be_proved():
    mine = phase[child] == phase[child]
    everywhere = z3.ForAll([child.z3], mine.z3)
    said = refused(
        [Obligation("in a fact", (everywhere,), z3.BoolVal(True)), Obligation("in the goal", (), everywhere)]
    )
    assert said == dict.fromkeys(("in a fact", "in the goal"), "refused: the query has a quantifier")


def test_facts_of_which_nobody_knows_whether_they_are_possible_prove_nothing(monkeypatch):
    answers = iter([z3.unknown, z3.unsat])
    monkeypatch.setattr(z3.Solver, "check", lambda self, *assumptions: next(answers))
    assert refused([Obligation("query", (), z3.BoolVal(True))])["query"].startswith("unknown")
