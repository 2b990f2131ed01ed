"""The queries: which there are, that they are ground, what z3 answers; and what is no proof is not taken for one."""

import itertools
import os
import signal
import threading

import pytest
import z3

from armed_model.explore import explore
from armed_model.interpret import Instance, Size
from armed_model.profiles import NO_DEAD_MAN_SWITCH, PROFILES, REFERENCE, V15, V18
from armed_model.properties import Claim, by_name, properties
from armed_model.system import ACTIVE, CHILD, ENVIRONMENTS, UNUSED, Mode, System, flag, mode, phase, slot_of
from armed_model.terms import Parameter, for_all, symbols
from armed_proofs import obligations as module
from armed_proofs.invariants import candidates, invariant
from armed_proofs.obligations import (
    IMPOSSIBLE,
    Obligation,
    discharge,
    impossible_actions,
    invariant_obligations,
    property_obligations,
)

SYSTEM = System(REFERENCE)
ACTIONS = [action.name for action in SYSTEM.actions]
CONJUNCTS = invariant(SYSTEM)
PROPERTIES = [each for each in properties(REFERENCE) if each.environment == "calm"]
BY_NAME = by_name(REFERENCE)
somebody = Parameter("somebody", CHILD)
VACUOUS = "vacuous: no state satisfies the facts"


@pytest.fixture(scope="module")
def of_the_invariant():
    return list(invariant_obligations(SYSTEM))


@pytest.fixture(scope="module")
def of_properties():
    found = {claim.name: [] for claim in PROPERTIES}
    for claim, each in property_obligations(SYSTEM, PROPERTIES):
        found[claim.name].append(each)
    return found


def refused(queries):
    """The answers that are no proof: name -> answer."""
    return {answer.name: answer.answer for answer in discharge(queries) if not answer.proved}


def queries_of(system, *names, **options):
    claims = [by_name(system.profile)[name] for name in names]
    return [each for _, each in property_obligations(system, claims, **options)]


def with_planted(system, **planted):
    return {**invariant(system), **planted}


# --- What is asked ---------------------------------------------------------------------------------------------------


def test_each_conjunct_is_asked_at_first_and_after_each_action_that_touches_it(of_the_invariant):
    touching = {
        f"{action.name} preserves {name}"
        for action in SYSTEM.actions
        for name, (_, term) in CONJUNCTS.items()
        if {update.variable.name for update in action.effect} & symbols(term.z3)
    }
    names = [each.name for each in of_the_invariant]
    assert len(names) == len(set(names))
    assert set(names) == {*(f"init: {conjunct}" for conjunct in CONJUNCTS), *touching}
    assert len(touching) > 10 * len(CONJUNCTS)


def test_what_is_not_asked_is_true_without_asking(of_the_invariant):
    """A conjunct that speaks of nothing that an action writes is the same term after it."""
    asked = {each.name for each in of_the_invariant}
    left = 0
    for action in SYSTEM.actions:
        for name, (_, term) in CONJUNCTS.items():
            if f"{action.name} preserves {name}" not in asked:
                assert not symbols(term.z3) & set(action.after())
                left += 1
    assert left > 0


def test_each_property_is_asked_of_each_action_or_once_of_the_invariant(of_properties):
    for claim in PROPERTIES:
        names = [each.name for each in of_properties[claim.name]]
        if claim.claims is Claim.ALWAYS:
            assert names == [f"invariant implies {claim.name}"]
        else:
            assert names == [f"{action} respects {claim.name}" for action in ACTIONS]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_query_is_ground(profile, environment):
    system = System(PROFILES[profile], environment)
    claims = [each for each in properties(system.profile) if each.environment == environment]
    queries = [*invariant_obligations(system), *[each for _, each in property_obligations(system, claims)]]
    seen = {}  # the facts are shared by the queries of one action: looked at once
    for each in queries:
        facts = () if id(each.facts) in seen else each.facts
        seen[id(each.facts)] = each
        assert Obligation(each.name, facts, each.goal).is_ground, each.name
    assert len(seen) > len(system.actions)


def test_a_quantifier_is_seen_wherever_it_hides():
    forall = z3.ForAll([somebody.z3], (phase[somebody] == phase[somebody]).z3)
    ground = mode.z3 == mode.z3
    assert Obligation("ground", (ground,), z3.And(ground, z3.Not(ground))).is_ground
    assert not Obligation("in a fact", (ground, z3.Or(ground, z3.Not(forall))), ground).is_ground
    assert not Obligation("in the goal", (ground,), z3.Implies(forall, ground)).is_ground


# --- What is answered ------------------------------------------------------------------------------------------------


def test_the_invariant_of_the_reference_is_inductive(of_the_invariant):
    answers = list(discharge(of_the_invariant))
    assert [answer.name for answer in answers] == [each.name for each in of_the_invariant]
    assert {answer.answer for answer in answers} <= {"proved", IMPOSSIBLE}
    assert {answer.name.split()[0] for answer in answers if answer.answer == IMPOSSIBLE} == {"check_fails"}
    assert all(answer.proved and 0 < answer.seconds < module.LIMIT_MS / 1000 for answer in answers)


@pytest.mark.parametrize("claim", PROPERTIES, ids=lambda claim: claim.name)
def test_the_invariant_and_the_actions_imply_each_property(of_properties, claim):
    assert refused(of_properties[claim.name]) == {}


def test_the_invariant_is_not_inductive_without_the_switch():
    failures = refused(invariant_obligations(System(NO_DEAD_MAN_SWITCH), CONJUNCTS))
    assert "reap_clean preserves recovery_is_owed_until_the_reset" in failures
    assert set(failures.values()) == {"sat"}


RESTATE = {
    "second_crash_adds_nothing",
    "crash_after_reset_recovers_again",
    "the_ghosts_remember",
    "recovery_goes_in_order",
    "life_goes_in_order",
    "the_dead_do_nothing",
}
"""Definitional: what needs the invariant is no restatement of the actions."""

REST_ON_THE_INVARIANT = {
    "decision_is_exact",
    "no_start_during_recovery",
    "reset_only_when_alone",
    "armed_exit_triggers_recovery",
    "held_resource_never_looks_clean",
    "orderly_exit_never_alarms",
    "slot_has_one_owner",
    "flag_has_one_writer",
    "no_slot_leaks",
    "assignment_never_fails",
    "flag_follows_lifecycle",
    "torn_memory_is_not_served",
}


def test_what_restates_the_actions_needs_no_invariant_and_the_rest_does():
    without = {
        name: bool(refused(queries_of(SYSTEM, name, with_invariant=False))) for name in RESTATE | REST_ON_THE_INVARIANT
    }
    assert {name for name, needs in without.items() if needs} == REST_ON_THE_INVARIANT


# --- What is not proved ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planted", "failing"),
    [
        (((), mode == Mode.RUNNING), "reap_crash preserves planted"),
        (((), mode == Mode.STOPPING), "init: planted"),
        (((somebody,), flag[slot_of[somebody]] != ACTIVE), "arm preserves planted"),
        (((somebody,), flag[slot_of[somebody]] == UNUSED), "fork preserves planted"),
    ],
    ids=["always running", "never so at first", "never armed", "no child has an assigned slot"],
)
def test_a_false_conjunct_is_not_proved(planted, failing):
    assert refused(invariant_obligations(SYSTEM, with_planted(SYSTEM, planted=planted)))[failing] == "sat"


def test_a_candidate_that_is_not_inductive_is_found_out_where_it_is_not_recorded():
    """Every candidate that is recorded as dropped is dropped for a reason."""
    for profile, environment in ((REFERENCE, "+stray"), (V18, "calm"), (V15, "+grandchild")):
        system = System(profile, environment)
        every = candidates(system)
        dropped = every.keys() - invariant(system).keys()
        assert dropped
        failures = refused(invariant_obligations(system, every))
        assert failures
        assert {name.split(": ")[-1].split(" preserves ")[-1] for name in failures} <= dropped


def test_a_conjunct_that_contradicts_an_action_says_that_it_cannot_happen_and_is_itself_refuted():
    """So nothing is gained by it: an invariant is believed as a whole, or not at all."""
    queries = invariant_obligations(SYSTEM, with_planted(SYSTEM, planted=((), mode == Mode.RUNNING)))
    answers = {answer.name: answer.answer for answer in discharge(queries)}
    assert {answer for name, answer in answers.items() if name.startswith("all_gone preserves ")} == {IMPOSSIBLE}
    assert {answer for name, answer in answers.items() if name.startswith("arm preserves ")} == {"proved"}
    assert answers["reap_crash preserves planted"] == "sat"


def test_an_invariant_that_no_state_satisfies_proves_no_property_of_states():
    nothing = with_planted(SYSTEM, planted=((), mode == Mode.RUNNING), too=((), mode == Mode.STOPPING))
    queries = queries_of(SYSTEM, "slot_has_one_owner", conjuncts=nothing)
    assert refused(queries) == {"invariant implies slot_has_one_owner": VACUOUS}
    assert "init: too" in refused(invariant_obligations(SYSTEM, nothing))


def test_a_true_conjunct_that_is_not_inductive_is_not_proved():
    """Without its supporters a true statement is no invariant: this one needs to know whose slot is whose."""
    alone = {name: each for name, each in CONJUNCTS.items() if name != "child_owns_its_slot"}
    assert refused(invariant_obligations(SYSTEM, alone))["arm preserves the_flag_tells_whether_armed"] == "sat"


@pytest.mark.parametrize(
    ("conjuncts", "claim"),
    [
        (("the_flag_tells_whether_armed",), "flag_follows_lifecycle"),
        (("recovery_is_owed_until_the_reset",), "armed_exit_triggers_recovery"),
        (("memory_is_torn_until_the_reset",), "torn_memory_is_not_served"),
        (("holds_only_while_armed",), "held_resource_never_looks_clean"),
        (("orderly_exit_disarms",), "orderly_exit_never_alarms"),
        (("child_owns_its_slot",), "slot_has_one_owner"),
        (("slot_in_use_has_an_owner", "clean_word_of_a_slot_in_use_is_not_reserved"), "no_slot_leaks"),
    ],
    ids=lambda each: each if isinstance(each, str) else each[0],
)
def test_a_property_is_not_proved_without_the_conjunct_that_it_rests_on(conjuncts, claim):
    fewer = {name: each for name, each in CONJUNCTS.items() if name not in conjuncts}
    assert len(fewer) == len(CONJUNCTS) - len(conjuncts)
    assert "sat" in refused(queries_of(SYSTEM, claim, conjuncts=fewer)).values()


@pytest.mark.parametrize(
    ("claim", "environment"),
    [
        ("orderly_exit_never_alarms", "+stray"),
        ("the_flag_tells_whether_armed", "+stray"),
        ("flag_follows_lifecycle", "+stray"),
        ("no_slot_leaks", "+stray"),
    ],
)
def test_a_property_is_not_proved_in_an_environment_in_which_it_does_not_hold(claim, environment):
    """`no_slot_leaks` does hold there: a method that refuted everything would say nothing."""
    failures = refused(queries_of(System(REFERENCE, environment), claim))
    assert bool(failures) is (claim != "no_slot_leaks")


def test_contradictory_facts_are_answered_vacuous():
    contradiction = ((mode == Mode.RUNNING).z3, (mode == Mode.STOPPING).z3)
    true, false = z3.BoolVal(True), z3.BoolVal(False)
    queries = [Obligation("true", contradiction, true), Obligation("false", contradiction, false)]
    assert refused(queries) == {"true": VACUOUS, "false": VACUOUS}


def test_contradictory_facts_are_an_action_that_cannot_happen_only_where_they_say_that_one_happens():
    contradiction = ((mode == Mode.RUNNING).z3, (mode == Mode.STOPPING).z3)
    (answer,) = discharge([Obligation("step", contradiction, z3.BoolVal(False), of_an_action=True)])
    assert answer.proved
    assert answer.answer == IMPOSSIBLE


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


def test_one_false_goal_among_many_with_the_same_facts_is_the_one_refused():
    shared = ((mode == Mode.RUNNING).z3,)
    goals = {f"goal {i}": (mode != Mode.STOPPING).z3 for i in range(9)} | {"false": (mode == Mode.STOPPING).z3}
    assert refused([Obligation(name, shared, goal) for name, goal in goals.items()]) == {"false": "sat"}


@pytest.mark.parametrize("result", [z3.unknown, z3.sat])
def test_what_z3_does_not_refute_is_not_proved(monkeypatch, result):
    queries = queries_of(SYSTEM, "slot_has_one_owner")
    monkeypatch.setattr(z3.Solver, "check", lambda self, *assumptions: result)
    answers = list(discharge(queries))
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
    assert max(answer.seconds for answer in discharge(of_the_invariant)) < 1


def test_a_query_with_a_quantifier_is_refused_though_it_could_be_proved():
    everywhere = for_all(somebody, phase[somebody] == phase[somebody]).z3
    shared = ()
    said = refused(
        [
            Obligation("in a fact", (everywhere,), z3.BoolVal(True)),
            Obligation("in the goal", shared, everywhere),
            Obligation("beside one", shared, z3.BoolVal(True)),
        ]
    )
    assert said == dict.fromkeys(("in a fact", "in the goal"), "refused: the query has a quantifier")


def test_facts_of_which_nobody_knows_whether_they_are_possible_prove_nothing(monkeypatch):
    answers = iter([z3.unknown, z3.unsat])
    monkeypatch.setattr(z3.Solver, "check", lambda self, *assumptions: next(answers))
    assert refused([Obligation("query", (), z3.BoolVal(True))])["query"].startswith("unknown")


# --- What cannot happen ----------------------------------------------------------------------------------------------

LARGE_ENOUGH = (Size(1, 1), Size(1, 2))


@pytest.mark.parametrize("profile", PROFILES)
def test_an_action_is_proved_impossible_exactly_where_no_exploration_sees_it(profile):
    system = System(PROFILES[profile])
    seen = set().union(*[explore(Instance(system, size)).actions_seen for size in LARGE_ENOUGH])
    impossible = impossible_actions(system)
    assert not impossible & seen, "what is proved impossible happens"
    never = {action.name for action in system.actions} - seen
    assert never == impossible, "what never happens is not proved impossible"


def test_what_a_grandchild_cannot_do_in_the_reference_is_proved_impossible():
    impossible = impossible_actions(System(REFERENCE, "+grandchild"))
    assert {"grandchild_gives", "grandchild_gives_late", "grandchild_disarms"} <= impossible
    assert "grandchild_ends" not in impossible


def test_nothing_is_impossible_by_an_invariant_that_is_empty(monkeypatch):
    monkeypatch.setattr(module, "invariant", lambda system: {})
    assert impossible_actions(SYSTEM) == set()


def test_ctrl_c_while_z3_works_is_python_s_to_handle():
    """Else it would be an `unknown`, and no interruption."""
    numbers = [z3.Int(f"x{i}") for i in range(14)]
    solver = z3.SimpleSolver()
    solver.set("timeout", 1000)
    solver.add(z3.Sum([x * x * x for x in numbers]) == 33, *[x > 5 for x in numbers[:4]])
    solver.add(numbers[0] * numbers[1] * numbers[2] == numbers[3] * 7919 * numbers[4] + 1)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        solver.check()
    timer.join()
