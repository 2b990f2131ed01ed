"""Liveness: the chains go through, each link of them can break, and a lasso is a lasso."""

from dataclasses import replace

import pytest
import z3

from armed_model.explore import Step, StillSearching, reachable, replay
from armed_model.interpret import Instance, Size
from armed_model.profiles import PROFILES, REFERENCE
from armed_model.properties import leads_to
from armed_model.system import Mode, Phase, System, mode, phase
from armed_model.terms import either
from armed_proofs import obligations as of_obligations
from armed_proofs.liveness import is_lasso, lasso, obligations
from armed_proofs.obligations import discharge

RESTART, RESET, ORPHANS = leads_to(REFERENCE)
NEVER = either().because("planted: this is never so")

AN_ARMED_CHILD_DIES = tuple(
    Step(name, arguments)
    for name, arguments in (
        ("assign", (1, 5)),
        ("fork", (1,)),
        ("ask", (1,)),
        ("check", (1,)),
        ("hook", (1,)),
        ("arm", (1,)),
        ("raw_exit", (1, 0)),
    )
)


def refused(system, claim):
    return {answer.name: answer.answer for answer in discharge(obligations(system, claim)) if not answer.proved}


def gone(_):
    return None


def never(action):
    return replace(action, guard=(*action.guard, NEVER))


def writing(*updates):
    """Write these alone."""
    return lambda action: replace(action, effect=updates)


def without(why):
    return lambda action: replace(action, guard=tuple(each for each in action.guard if each.why != why))


# --- The chains ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [RESTART, RESET, ORPHANS], ids=lambda claim: claim.name)
def test_every_link_is_proved_in_the_reference_and_ground(claim):
    system = System(REFERENCE, claim.environment)
    queries = obligations(system, claim)
    assert len(queries) > 2 * len(system.actions)
    facts = {id(each.facts): each.facts for each in queries}
    assert not any(of_obligations.Term(fact).has_quantifier for each in facts.values() for fact in each)
    assert not any(of_obligations.Term(each.goal).has_quantifier for each in queries)
    assert refused(system, claim) == {}


@pytest.mark.parametrize("claim", [RESTART, RESET, ORPHANS], ids=lambda claim: claim.name)
def test_no_stage_is_one_that_never_comes(claim):
    """In a stage that is impossible everything "can be taken"."""
    stages = [each for each in obligations(System(REFERENCE, claim.environment), claim) if not each.of_an_action]
    assert stages
    for each in stages:
        solver = z3.SimpleSolver()
        solver.add(*each.facts, each.goal.arg(0))
        assert solver.check() == z3.sat, each.name


@pytest.mark.parametrize("profile", PROFILES)
def test_the_restart_is_proved_from_9_4_on_but_for_the_auxiliaries_of_18(profile):
    system = System(PROFILES[profile])
    claim = leads_to(system.profile)[0]
    failures = refused(system, claim)
    if profile in ("8.4.0", "8.4.1"):  # no SIGKILL follows
        assert "whoever lives can be ended" in failures
    elif profile == "18":
        assert failures
        alone = System(system.profile, backends_alone=True)
        assert refused(alone, leads_to(system.profile, backends_alone=True)[0]) == {}
    else:
        assert failures == {}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_crash_leads_to_a_reset_from_9_4_on(profile):
    system = System(PROFILES[profile])
    failures = refused(system, leads_to(system.profile)[1])
    assert ("whoever lives can be ended" in failures) == (profile in ("8.4.0", "8.4.1"))
    assert bool(failures) == (profile in ("8.4.0", "8.4.1"))


# --- Each link can break ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "link"),
    [
        ("reap_crash", "an armed exit can be found out"),
        ("fork_fails", "a child being launched can be done with"),
        ("kill", "whoever lives can be ended"),
        ("kill_stuck", "whoever lives can be ended"),
        ("reap_book_keeping", "whoever is dead can be reaped"),
        ("reap_book_keeping_without_a_slot", "whoever is dead can be reaped"),
        ("only_dead_ends_left", "when they are gone only_dead_ends_left can be taken"),
        ("all_gone", "when they are gone all_gone can be taken"),
        ("reset", "the reset can be made"),
        ("started", "service can be opened"),
        ("stop", "a shutdown can end instead"),
    ],
)
def test_the_restart_is_not_proved_where_a_helpful_action_is_missing_or_never_possible(changed, action, link):
    assert refused(changed(**{action: gone}), RESTART)[link] == "sat"
    assert refused(changed(**{action: never}), RESTART)[link] == "sat"


def test_the_reset_has_to_be_possible(changed):
    needs_too_much = (mode == Mode.STOPPED).because("planted: it is not, while resetting")
    system = changed(reset=lambda action: replace(action, guard=(*action.guard, needs_too_much)))
    assert set(refused(system, RESTART)) == {"the reset can be made"}


@pytest.mark.parametrize(
    ("action", "change", "link"),
    [
        ("get_stuck", without("whose own code, or clean-up, runs"), "who is dead stays dead: get_stuck"),
        ("fork_auxiliary", without("when auxiliary children start"), "who is gone stays gone: fork_auxiliary"),
        ("started", without("memory is new"), "ending goes on: started"),
        ("startup_fails", writing(mode.becomes(Mode.RESETTING)), "starting goes on: startup_fails"),
        ("reset", writing(), "reset helps: reset"),
        ("ask_orderly", writing(mode.becomes(Mode.RUNNING)), "ending goes on: ask_orderly"),
    ],
)  # fmt: skip
def test_the_restart_is_not_proved_where_an_action_leads_back(changed, action, change, link):
    assert refused(changed(**{action: change}), RESTART)[link] == "sat"


@pytest.mark.parametrize("action", ["lifeline_kills", "ask", "check_fails"])
def test_the_end_of_the_orphans_is_not_proved_without_any_of_its_three_steps(changed, action):
    failures = refused(changed("+orphan", **{action: gone}), ORPHANS)
    assert failures["an orphan ends, or can take its next step"] == "sat"


@pytest.mark.parametrize(
    ("action", "change", "link"),
    [
        ("startup_fails", without("memory is new"), "the supervisor stays dead: startup_fails"),
        ("get_stuck", without("whose own code, or clean-up, runs"), "nobody is born: get_stuck"),
    ],
)  # fmt: skip
def test_the_end_of_the_orphans_is_not_proved_where_an_action_leads_back(changed, action, change, link):
    assert refused(changed("+orphan", **{action: change}), ORPHANS)[link] == "sat"


# --- Fairness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [RESTART, RESET, ORPHANS], ids=lambda claim: claim.name)
def test_fairness_is_asked_of_actions_that_there_are_and_never_of_a_crash(claim):
    names = {action.name for action in System(REFERENCE, claim.environment).actions}
    assert claim.fairness.keys() <= names
    assert not {"raw_exit", "orderly_exit", "leave", "disarm", "supervisor_dies"} & claim.fairness.keys()
    assert all(len(why) > 10 for why in claim.fairness.values())


@pytest.mark.parametrize("claim", [RESTART, RESET, ORPHANS], ids=lambda claim: claim.name)
def test_fair_steps_alone_end_every_pending_state_of_a_small_instance(claim):
    """An anchor that reads no obligation: the fair actions are taken one after the other, and nobody else helps."""
    instance = Instance(System(REFERENCE, claim.environment), Size(1, 1))
    is_pending = instance.predicate(claim.pending, claim.over)

    def pending(state):
        return any(is_pending(state, state, 0, *members) for members in instance.bindings(claim.over))

    ended = 0
    for state in reachable(instance):
        at, count = state, 0
        while pending(at):
            fair = [after for name, _, after in instance.steps(at) if name in claim.fairness]
            assert fair, "nothing that is due can be taken"
            at, count = fair[0], count + 1
            assert count < 20
        ended += count > 0
    assert ended > 50, "there are such states"


# --- Lassos ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [RESTART, RESET, ORPHANS], ids=lambda claim: claim.name)
def test_the_reference_has_no_lasso(claim):
    assert lasso(Instance(System(REFERENCE, claim.environment), Size(1, 1)), claim, 100_000) is None


def test_without_sigkill_a_stuck_child_is_waited_for_for_ever(changed):
    instance = Instance(changed(kill_stuck=gone), Size(1, 1))
    run = lasso(instance, RESTART, 100_000)
    last = replay(instance, run)[-1]
    assert is_lasso(instance, RESTART, replay(instance, run))
    assert instance.read(last, phase, 1) is Phase.STUCK


def test_who_checks_before_it_asks_may_outlive_the_supervisor(changed):
    start = (REFERENCE.start[1], REFERENCE.start[0], *REFERENCE.start[2:])
    instance = Instance(changed("+orphan", replace(REFERENCE, start=start)), Size(1, 1))
    run = lasso(instance, ORPHANS, 100_000)
    names = [step.action for step in run]
    assert "ask" not in names[: names.index("supervisor_dies")]
    assert names.index("check") < names.index("supervisor_dies")
    assert is_lasso(instance, ORPHANS, replay(instance, run))


def test_a_run_to_where_something_is_due_or_nothing_is_pending_is_no_lasso(changed):
    instance = Instance(changed(kill_stuck=gone), Size(1, 1))
    assert not is_lasso(instance, RESTART, replay(instance, ())), "nothing is pending"
    due = replay(instance, AN_ARMED_CHILD_DIES)
    assert not is_lasso(instance, RESTART, due), "the child can be reaped"
    run = lasso(instance, RESTART, 100_000)
    states = replay(instance, run)
    assert not any(is_lasso(instance, RESTART, states[: length + 1]) for length in range(len(run)))


def test_a_lasso_of_another_system_is_none_where_the_child_can_be_killed(changed):
    run = lasso(Instance(changed(kill_stuck=gone), Size(1, 1)), RESTART, 100_000)
    reference = Instance(System(REFERENCE), Size(1, 1))
    assert not is_lasso(reference, RESTART, replay(reference, run))


def test_a_search_for_a_lasso_that_is_cut_short_says_so():
    with pytest.raises(StillSearching, match="more than 10 states"):
        lasso(Instance(System(REFERENCE), Size(1, 1)), RESTART, 10)
