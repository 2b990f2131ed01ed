"""The life of one slot. What is legal is written out here by hand: an anchor that does not read the rows."""

import itertools

import pytest

from armed_model.lifecycle import ROWS, WALSENDER_ROWS, LifecycleViolation, Monitor, SlotState, Trigger, Who

UNUSED, ASSIGNED, ACTIVE, FOREIGN = SlotState.UNUSED, SlotState.ASSIGNED, SlotState.ACTIVE, SlotState.FOREIGN
WALSENDER = SlotState.WALSENDER
SUPERVISOR, CHILD, ENVIRONMENT = Who.SUPERVISOR, Who.CHILD, Who.ENVIRONMENT

LEGAL = {
    (UNUSED, Trigger.ASSIGN, SUPERVISOR): ASSIGNED,
    (ASSIGNED, Trigger.ARM, CHILD): ACTIVE,
    (ACTIVE, Trigger.DISARM, CHILD): ASSIGNED,
    (UNUSED, Trigger.RELEASE, SUPERVISOR): UNUSED,
    (ASSIGNED, Trigger.RELEASE, SUPERVISOR): UNUSED,
    (ACTIVE, Trigger.RELEASE, SUPERVISOR): UNUSED,
    (FOREIGN, Trigger.RELEASE, SUPERVISOR): UNUSED,
}

LEGAL_WITH_WALSENDERS = LEGAL | {
    (ACTIVE, Trigger.STREAM, CHILD): WALSENDER,
    (WALSENDER, Trigger.DISARM, CHILD): ASSIGNED,
    (WALSENDER, Trigger.RELEASE, SUPERVISOR): UNUSED,
}

EXPLAINED = {
    (UNUSED, ASSIGNED, SUPERVISOR): Trigger.ASSIGN,
    (ASSIGNED, ACTIVE, CHILD): Trigger.ARM,
    (ACTIVE, ASSIGNED, CHILD): Trigger.DISARM,
    (ASSIGNED, UNUSED, SUPERVISOR): Trigger.RELEASE,
    (ACTIVE, UNUSED, SUPERVISOR): Trigger.RELEASE,
    (FOREIGN, UNUSED, SUPERVISOR): Trigger.RELEASE,
}

EXPLAINED_WITH_WALSENDERS = EXPLAINED | {
    (ACTIVE, WALSENDER, CHILD): Trigger.STREAM,
    (WALSENDER, ASSIGNED, CHILD): Trigger.DISARM,
    (WALSENDER, UNUSED, SUPERVISOR): Trigger.RELEASE,
}

ALL_ROWS = (*ROWS, *WALSENDER_ROWS)


def monitor_in(state, rows=ALL_ROWS):
    """A monitor of three slots, the second of which is in `state`."""
    monitor = Monitor(3, rows)
    if state is FOREIGN:
        monitor.see(2, FOREIGN, [ENVIRONMENT])
    if state in (ASSIGNED, ACTIVE, WALSENDER):
        monitor.fire(2, Trigger.ASSIGN, SUPERVISOR)
    if state in (ACTIVE, WALSENDER):
        monitor.fire(2, Trigger.ARM, CHILD)
    if state is WALSENDER:
        monitor.fire(2, Trigger.STREAM, CHILD)
    assert monitor.state(2) is state
    return monitor


def test_the_rows_are_the_legal_steps():
    assert {(row.source, row.trigger, row.who): row.dest for row in ROWS} == LEGAL
    assert len(ROWS) == len(LEGAL)
    assert {(row.source, row.trigger, row.who): row.dest for row in ALL_ROWS} == LEGAL_WITH_WALSENDERS
    assert len(ALL_ROWS) == len(LEGAL_WITH_WALSENDERS)


WITH_AND_WITHOUT = [
    *[("with walsenders", before) for before in SlotState],
    *[("without", before) for before in SlotState if before is not WALSENDER],
]
"""A profile with walsenders and one without, and the states that a slot can be in there."""

ROWS_OF = {"with walsenders": ALL_ROWS, "without": ROWS}


@pytest.mark.parametrize(("trigger", "who"), list(itertools.product(Trigger, Who)))
@pytest.mark.parametrize(("rows", "before"), WITH_AND_WITHOUT, ids=str)
def test_a_step_is_taken_if_it_is_a_row_and_refused_otherwise(rows, before, trigger, who):
    monitor = monitor_in(before, ROWS_OF[rows])
    legal = LEGAL if rows == "without" else LEGAL_WITH_WALSENDERS
    if (before, trigger, who) in legal:
        monitor.fire(2, trigger, who)
        assert monitor.state(2) is legal[before, trigger, who]
    else:
        with pytest.raises(LifecycleViolation) as refused:
            monitor.fire(2, trigger, who)
        assert str(refused.value) == f"slot 2: {trigger.value} by the {who.value} while {before.value}"
        assert monitor.state(2) is before
    assert monitor.state(1) is monitor.state(3) is UNUSED


@pytest.mark.parametrize(("after", "who"), list(itertools.product(SlotState, Who)))
@pytest.mark.parametrize(("rows", "before"), WITH_AND_WITHOUT, ids=str)
def test_a_change_seen_is_explained_by_a_row_or_refused(rows, before, after, who):
    monitor = monitor_in(before, ROWS_OF[rows])
    explained = EXPLAINED if rows == "without" else EXPLAINED_WITH_WALSENDERS
    if (before, after, who) in explained:
        assert monitor.see(2, after, [who]) == (explained[before, after, who],)
        assert monitor.state(2) is after
    elif before is after or (before is FOREIGN and after is not UNUSED):
        assert monitor.see(2, after, [who]) == ()
        assert monitor.state(2) is before
    elif who is ENVIRONMENT:
        assert monitor.see(2, after, [who]) == ()
        assert monitor.state(2) is FOREIGN
    else:
        with pytest.raises(LifecycleViolation) as refused:
            monitor.see(2, after, [who])
        change = f"slot 2: {before.value} -> {after.value} by {who.value}"
        assert str(refused.value) == f"{change} is no row of the lifecycle"
        assert monitor.state(2) is before
    assert monitor.state(1) is monitor.state(3) is UNUSED


def test_a_change_of_several_rows_is_explained_by_a_shortest_path_where_so_many_are_allowed():
    monitor = Monitor(1, (*ROWS, *WALSENDER_ROWS))
    path = Trigger.ASSIGN, Trigger.ARM, Trigger.STREAM
    with pytest.raises(LifecycleViolation):
        monitor.see(1, SlotState.WALSENDER, [SUPERVISOR, CHILD], at_most=2)
    with pytest.raises(LifecycleViolation):
        monitor.see(1, SlotState.WALSENDER, [SUPERVISOR], at_most=9)
    assert monitor.see(1, SlotState.WALSENDER, [SUPERVISOR, CHILD], at_most=3) == path
    assert monitor.see(1, ACTIVE, [SUPERVISOR, CHILD], at_most=4) == (Trigger.DISARM, Trigger.ARM)


@pytest.mark.parametrize("state", SlotState)
def test_release_answers_whether_the_slot_was_exactly_assigned(state):
    assert monitor_in(state).fire(2, Trigger.RELEASE, SUPERVISOR) is (state is ASSIGNED)


def test_only_a_release_answers_yes():
    monitor = Monitor(1)
    assert monitor.fire(1, Trigger.ASSIGN, SUPERVISOR) is False
    assert monitor.fire(1, Trigger.ARM, CHILD) is False
    assert monitor.fire(1, Trigger.DISARM, CHILD) is False


def test_a_slot_goes_through_its_life_twice():
    monitor = Monitor(1)
    for _ in range(2):
        assert monitor.see(1, ASSIGNED, [SUPERVISOR]) == (Trigger.ASSIGN,)
        assert monitor.see(1, ACTIVE, [CHILD]) == (Trigger.ARM,)
        assert monitor.see(1, ASSIGNED, [CHILD]) == (Trigger.DISARM,)
        assert monitor.see(1, ACTIVE, [CHILD]) == (Trigger.ARM,)
        assert monitor.see(1, UNUSED, [SUPERVISOR]) == (Trigger.RELEASE,)


def test_a_slot_that_was_scribbled_over_is_not_followed_until_it_is_released():
    monitor = monitor_in(FOREIGN)
    for state in (ACTIVE, ASSIGNED, FOREIGN, ACTIVE):
        assert monitor.see(2, state, [CHILD]) == ()
        assert monitor.state(2) is FOREIGN
    assert monitor.see(2, UNUSED, [SUPERVISOR]) == (Trigger.RELEASE,)
    with pytest.raises(LifecycleViolation):
        monitor.see(2, ACTIVE, [CHILD])


def test_a_row_explains_a_change_before_a_stray_write_does():
    monitor = monitor_in(ASSIGNED)
    assert monitor.see(2, ACTIVE, [ENVIRONMENT, CHILD]) == (Trigger.ARM,)
    assert monitor.state(2) is ACTIVE


def test_a_stray_write_explains_what_no_row_does():
    monitor = monitor_in(ASSIGNED)
    assert monitor.see(2, UNUSED, [ENVIRONMENT, CHILD]) == ()
    assert monitor.state(2) is FOREIGN


def test_a_change_that_two_processes_would_have_to_share_is_refused():
    # Assign and arm, seen as one change: no single row.
    with pytest.raises(LifecycleViolation, match="unused -> active by child or supervisor is no row"):
        Monitor(1).see(1, ACTIVE, [SUPERVISOR, CHILD])


def test_a_change_by_nobody_is_refused():
    with pytest.raises(LifecycleViolation, match="unused -> assigned by nobody is no row"):
        Monitor(1).see(1, ASSIGNED, [])


def test_slots_are_numbered_from_one():
    monitor = Monitor(2)
    assert [monitor.state(slot) for slot in (1, 2)] == [UNUSED, UNUSED]
    for slot in (0, 3):
        with pytest.raises(KeyError):
            monitor.state(slot)


def test_a_slot_is_watched_for_walsenders_only_where_there_are_any():
    monitor = Monitor(1)
    monitor.fire(1, Trigger.ASSIGN, SUPERVISOR)
    monitor.fire(1, Trigger.ARM, CHILD)
    with pytest.raises(LifecycleViolation, match="active -> walsender by child is no row"):
        monitor.see(1, WALSENDER, [CHILD])


def test_there_is_no_way_from_everywhere_to_everywhere():
    monitor = Monitor(1)
    assert set(monitor._machine.events) == {"assign", "arm", "disarm", "release"}
    assert not [name for name in dir(monitor._slots[1]) if name.startswith("to_")]
