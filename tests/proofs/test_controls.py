"""Negative controls: for every property a change of `reference` under which it is refuted by a run.

A property that nothing can refute says nothing, and a method that proves it where it is false is broken. So each change
is searched for a shortest run to a violation, the run is taken once more by z3, and no proof may go through.
"""

from dataclasses import dataclass, field, replace
from itertools import chain

import pytest

from armed_model.explore import explore, holds_at_the_end, replay, violations
from armed_model.interpret import Instance, Size
from armed_model.profiles import (
    REFERENCE,
    Allocation,
    Cancel,
    CrashAfterReset,
    Decision,
    InAnotherProcess,
    Profile,
    Step,
)
from armed_model.properties import NAMES, by_name, leads_to, properties
from armed_model.system import (
    ACTIVE,
    CONTROL_ENVIRONMENTS,
    OTHER,
    UNUSED,
    Mode,
    Phase,
    c,
    flag,
    mode,
    phase,
    slot_of,
)
from armed_proofs.liveness import is_lasso, lasso
from armed_proofs.liveness import obligations as liveness_obligations
from armed_proofs.obligations import discharge, invariant_obligations, property_obligations
from armed_proofs.replay import replay_by_definition

SIZES = (Size(1, 1), Size(2, 1), Size(1, 2))


def without(why):
    """Drop the conjunct of a guard that stands there for this reason."""

    def change(action):
        guard = tuple(each for each in action.guard if each.why != why)
        assert len(guard) == len(action.guard) - 1, f"{action.name} has no such reason, or it has it twice"
        return replace(action, guard=guard)

    return change


def leaving(variable):
    """Leave a variable as it is."""

    def change(action):
        effect = tuple(each for each in action.effect if each.variable.name != variable)
        assert len(effect) == len(action.effect) - 1, f"{action.name} does not write {variable}"
        return replace(action, effect=effect)

    return change


def writing(update):
    """Write something else, or besides."""

    def change(action):
        return replace(action, effect=(*[e for e in action.effect if e.variable is not update.variable], update))

    return change


def dropped(_):
    return None


@dataclass(frozen=True)
class Control:
    """What is changed: actions, by their names, or a line of the profile; and where the property is asked."""

    actions: dict = field(default_factory=dict)
    profile: Profile = REFERENCE
    environment: str = ""


def planted(**actions):
    return Control(actions)


def line(**fields):
    return Control(profile=replace(REFERENCE, **fields))


STATUS_ALONE = line(decision=Decision.STATUS)
FORGETS = line(failed_fork_releases=False)
NOT_WIPED = line(in_another_process=InAnotherProcess.NOTHING)

CONTROLS = {
    # About the switch.
    "armed_exit_triggers_recovery": STATUS_ALONE,
    "decision_is_exact": STATUS_ALONE,
    "the_status_decides_where_there_is_no_slot": planted(reap_clean_without_a_slot=without("the decision")),
    "held_resource_never_looks_clean": planted(disarm=without("first everything is given back")),
    "orderly_exit_never_alarms": planted(disarm=writing(flag[slot_of[c]].becomes(OTHER))),
    "recovery_starts_only_for_a_crash": planted(notice=without("whatever its status, it is a crash")),
    "failures_happen_while_armed": planted(take_fails=without("resources are taken inside an engagement only")),
    "the_flag_tells_whether_armed": planted(disarm=leaving("flag")),
    # About slots.
    "slot_has_one_owner": planted(assign=without("two children never share a slot; the flag is not consulted")),
    "flag_has_one_writer": planted(reap_clean=without("only the dead are reaped, each once (A3)")),
    "no_slot_leaks": FORGETS,
    "assignment_never_fails": FORGETS,
    "flag_follows_lifecycle": planted(disarm=writing(flag[slot_of[c]].becomes(UNUSED))),
    "an_owner_has_its_slot": planted(fork=leaving("slot_of")),
    "who_is_not_there_is_blank": planted(reap_clean=leaving("status")),
    # About recovery.
    "no_start_during_recovery": planted(assign=without("no child starts in memory that is in doubt")),
    "recovery_starts_nobody_else": planted(fork_auxiliary=without("when auxiliary children start")),
    "reset_only_when_alone": planted(all_gone=without("memory is not made anew under anybody's feet")),
    "reset_is_fresh": planted(reset=leaving("torn")),
    "torn_memory_is_not_served": STATUS_ALONE,
    "second_crash_adds_nothing": planted(reap_book_keeping=writing(mode.becomes(Mode.RESETTING))),
    "crash_after_reset_recovers_again": line(crash_after_reset=CrashAfterReset.BOOKED),
    "the_ghosts_remember": planted(reap_crash=leaving("owed")),
    "recovery_goes_in_order": planted(only_dead_ends_left=writing(mode.becomes(Mode.RESETTING))),
    # In other environments.
    "grandchild_never_disarms": NOT_WIPED,
    "grandchild_gives_nothing_back": NOT_WIPED,
    "no_copy_without_a_grandchild": planted(grandchild_ends=leaving("copy_of")),
    "the_generation_takes_its_grandchildren_with_it": planted(reset=leaving("copy_slot")),
    "a_grandchild_is_a_copy": planted(fork_grandchild=without("assumed: hooks do not fork")),
    "a_grandchild_does_each_thing_once": planted(grandchild_ends=leaving("copy_slot")),
    "no_copy_of_who_is_not_there": planted(reap_clean=leaving("copy_of")),
    "stray_writes_are_as_assumed": Control(environment="+copy-back"),
    "supervisor_survives_stray_writes": line(allocation=Allocation.PRIVATE_THEN_SHARED),
    "only_a_free_slot_is_given_out": planted(
        assign=without("two children never share a slot; the flag is not consulted")
    ),
    "the_supervisor_ends_at_a_search_only": Control(
        {"assign_fails": without("a slot is wanted")}, replace(REFERENCE, allocation=Allocation.PRIVATE_THEN_SHARED)
    ),
    "release_is_total": planted(reap_crash=writing(flag[slot_of[c]].becomes(OTHER))),
    "a_child_writes_as_it_arms_or_disarms": planted(take=writing(flag[slot_of[c]].becomes(ACTIVE))),
    "armed_exit_triggers_recovery_despite_stray_writes": Control(environment="+copy-back"),
    "an_ended_supervisor_does_nothing": planted(stop=without("it has not ended yet")),
    "only_its_lifeline_kills_an_orphan": planted(lifeline_kills=without("it asked while the supervisor lived")),
    "the_dead_remember_nothing": planted(lifeline_kills=leaving("token")),
    "a_request_goes_in_order": planted(cancel_confirms=without("pid and key still match")),
    "a_reaped_child_has_no_entry": planted(reap_clean=leaving("entry_gone")),
    "cancel_reaches_its_owner_only": line(cancel=Cancel.BY_PID),
    "a_handle_knows_its_process_was_reaped": planted(reap_clean=leaving("handle_gone")),
    # About single steps.
    "life_goes_in_order": planted(ask=writing(phase[c].becomes(Phase.SERVING))),
    "the_dead_do_nothing": planted(give=without("in a block's end, or on the way out")),
    "the_stuck_do_nothing": planted(give=without("in a block's end, or on the way out")),
    "nobody_is_ended_without_a_reason": planted(
        kill=without("a crash, the end, or preparing the new generation has taken too long")
    ),
    "an_orderly_exit_is_complete": planted(orderly_exit=without("it ends an open engagement, unless spoilt")),
    "a_life_begins_blank": planted(fork=leaving("token")),
    "an_assignment_is_new": planted(assign=without("a word of an earlier assignment must not look clean")),
    "disarm_comes_last": planted(
        disarm=without("what may not have been given back must not look clean")
    ),
    "nobody_takes_on_the_way_out": planted(take=without("a step of the child's own code")),
    "nobody_starts_in_a_shutdown": planted(
        assign=without("nobody starts once a shutdown was asked for (a simplification)")
    ),
    "no_alarm_in_an_immediate_shutdown": planted(
        reap_crash=without("in an immediate shutdown deaths are book-keeping")
    ),
    "nobody_stops_unasked": planted(stop=without("it was asked to")),
    "no_supervisor_step_is_empty": planted(ask_orderly=without("it is the first time")),
    "one_thing_at_a_time": planted(
        ask_orderly=without("the supervisor does one thing at a time, and starting a child takes two")
    ),
    # About whole runs.
    "armed_exit_leads_to_restart": planted(kill_stuck=dropped),
    "crash_leads_to_reset": planted(all_gone=dropped),
    "supervisor_death_ends_children": line(start=(Step.CHECK, Step.ASK, Step.HOOK)),
}  # fmt: skip

LASSOS = tuple(each.name for each in leads_to(REFERENCE))


def claimed(name, system):
    """The property as it reads in `reference`; what it says of the actions it says of those that are there."""
    if name in LASSOS:
        return next(each for each in leads_to(REFERENCE) if each.name == name)
    return next(each for each in properties(system.profile, acting=system.actions) if each.name == name)


def planted_system(name, changed):
    control = CONTROLS[name]
    of = {**by_name(REFERENCE), **{each.name: each for each in leads_to(REFERENCE)}}[name]
    return changed(control.environment or of.environment, control.profile, **control.actions)


def is_proved(queries):
    return all(answer.proved for answer in discharge(queries))


def test_every_property_has_a_control_and_no_control_is_of_nothing():
    assert CONTROLS.keys() == {*NAMES, *LASSOS}


@pytest.mark.parametrize("name", NAMES)
def test_a_property_is_refuted_where_it_does_not_hold(name, changed):
    system = planted_system(name, changed)
    claim = claimed(name, system)
    sought = violations([claim])
    for size in SIZES:
        instance = Instance(system, size)
        if found := explore(instance, sought, stop_when_all_found=True, limit=200_000).found:
            run, binding = found[name].run, found[name].binding
            assert binding in holds_at_the_end(instance, run, sought[name])
            assert not (run and holds_at_the_end(instance, run[:-1], sought[name])), "it is a shortest run"
            replay_by_definition(instance, run, claim, binding)
            break
    else:
        raise AssertionError(f"nothing refutes {name}")
    proof = chain([each for _, each in property_obligations(system, [claim])], invariant_obligations(system))
    assert not is_proved(proof), "and it is not proved"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_search_refutes_nothing_without_the_change(name, changed):
    """Else the run would be no witness of the change."""
    claim = by_name(REFERENCE)[name]
    instance = Instance(changed(claim.environment), Size(1, 1))
    assert explore(instance, violations([claim])).found == {}


@pytest.mark.parametrize("name", LASSOS)
def test_a_property_of_whole_runs_is_refuted_by_a_lasso(name, changed):
    system = planted_system(name, changed)
    claim = claimed(name, system)
    instance = Instance(system, Size(1, 1))
    run = lasso(instance, claim, 200_000)
    assert is_lasso(instance, claim, replay(instance, run))
    replay_by_definition(instance, run)
    assert not is_proved(chain(liveness_obligations(system, claim), invariant_obligations(system)))


def test_the_control_environment_is_one_assumption_away():
    """A stray write of this very assignment's clean word is all that is added: A6 is needed."""
    assert [*CONTROL_ENVIRONMENTS] == ["+copy-back"]
    assert CONTROLS["armed_exit_triggers_recovery_despite_stray_writes"] == Control(environment="+copy-back")


@pytest.mark.parametrize(
    "change", [without("no such reason"), leaving("no such variable")], ids=["no such reason", "no such variable"]
)
def test_a_change_that_changes_nothing_is_refused(change, changed):
    with pytest.raises(AssertionError):
        changed(disarm=change)
    with pytest.raises(AssertionError, match="no such action"):
        changed(no_such_action=dropped)
