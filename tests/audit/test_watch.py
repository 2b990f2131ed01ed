"""From two looks to what happened: hand-written looks, no server."""

from datetime import UTC, datetime

import pytest

from armed_audit.watch import Child, Event, EventKind, Held, Look, Summary, age, happened, line_of

UNUSED, ASSIGNED, ACTIVE, WALSENDER = range(4)


def child(pid, slot=1, flag=ACTIVE, **more):
    return Child(pid, started=pid * 10, kind="client backend", slot=slot, flag=flag, **more)


def look(*children, at=0.0, **more):
    """A look that sees these children in their slots, and beside them `slots`: {number: flag}."""
    slots = {number: Held(flag) for number, flag in more.pop("slots", {}).items()}
    slots |= {each.slot: Held(each.flag, each) for each in children if each.slot}
    return Look(at, slots, {(each.pid, each.started): each for each in children}, **more)


def kinds(before, after):
    return [event.kind for event in happened(before, after)]


def only(before, after):
    (event,) = happened(before, after)
    return event


@pytest.mark.parametrize(
    ("source", "dest", "steps"),
    [
        (ASSIGNED, ACTIVE, ["arm"]),
        (ASSIGNED, WALSENDER, ["arm", "stream"]),
        (ACTIVE, WALSENDER, ["stream"]),
        (ACTIVE, ASSIGNED, ["disarm"]),
        (WALSENDER, ASSIGNED, ["disarm"]),
    ],
)
def test_a_change_in_one_child_is_a_shortest_path_of_its_own_steps(source, dest, steps):
    event = only(look(child(7, flag=source)), look(child(7, flag=dest)))
    assert event.kind is EventKind.CHANGE
    assert (event.data["steps"], event.data["missed"]) == (steps, len(steps) - 1)
    assert (event.data["slot"], event.data["pid"]) == (1, 7)


@pytest.mark.parametrize(
    ("source", "dest"),
    [(WALSENDER, ACTIVE), (ACTIVE, UNUSED), (ASSIGNED, UNUSED), (UNUSED, ACTIVE), (WALSENDER, UNUSED), (ACTIVE, 77)],
)
def test_what_no_child_can_do_is_impossible(source, dest):
    event = only(look(child(7, flag=source)), look(child(7, flag=dest)))
    assert event.kind is EventKind.IMPOSSIBLE
    assert event.data["from"] != event.data["to"]


def test_a_child_that_has_disarmed_does_not_arm_again():
    before = look(child(7, flag=ASSIGNED, disarmed=True))
    assert kinds(before, look(child(7, disarmed=True))) == [EventKind.IMPOSSIBLE]


@pytest.mark.parametrize(
    ("source", "dest", "steps"),
    [
        (ACTIVE, ACTIVE, ["disarm", "release", "assign", "arm"]),
        (ASSIGNED, ASSIGNED, ["release", "assign"]),
        (WALSENDER, ACTIVE, ["disarm", "release", "assign", "arm"]),
        (ACTIVE, ASSIGNED, ["disarm", "release", "assign"]),
        (77, ACTIVE, []),  # who has scribbled over a flag is told once, and not followed until it is released
    ],
)
def test_a_slot_that_has_another_child_was_released_in_between(source, dest, steps):
    event = only(look(child(7, flag=source)), look(child(8, flag=dest)))
    assert event.kind is EventKind.CHANGE
    assert event.data["steps"] == steps


def test_a_new_child_that_is_active_has_missed_the_assignment():
    event = only(look(), look(child(7)))
    assert (event.data["steps"], event.data["missed"]) == (["assign", "arm"], 1)
    assert event.sentence == "slot 1, client backend 7: unused -> active (assign, arm)"


def test_the_switch_fires_only_where_a_crash_is_handled():
    assert only(look(child(7)), look()).data["steps"] == ["disarm", "release"]
    crash, change = happened(look(child(7)), look(quitting=True))
    assert (crash.kind, change.data["steps"]) == (EventKind.CRASH, ["release"])


def test_a_slot_whose_child_has_just_gone_has_not_changed():
    assert kinds(look(child(7)), look(slots={1: ACTIVE}, gone=(child(7),))) == []


def test_an_orderly_end_is_no_armed_exit_though_the_child_was_active_when_last_seen():
    event = only(look(gone=(child(7),)), look())
    assert (event.kind, event.data["pid"]) == (EventKind.ENDED, 7)


@pytest.mark.parametrize("seen", ["quitting", "anew"])
def test_who_is_gone_with_a_crash_is_an_armed_exit_and_not_sure(seen):
    event = only(look(gone=(child(7),), **{seen: True}), look(quitting=seen == "quitting"))
    assert event.kind is EventKind.ARMED_EXIT
    assert event.data["certain"] is False
    assert [each["pid"] for each in event.data["of"]] == [7]


def test_of_several_that_are_gone_with_a_crash_it_is_one():
    gone = (child(7), child(8, slot=2), child(9, slot=3, flag=ASSIGNED), child(10, slot=0))
    told = list(happened(look(gone=gone, anew=True), look()))
    (exit_,) = [event for event in told if event.kind is EventKind.ARMED_EXIT]
    assert [each["pid"] for each in exit_.data["of"]] == [7, 8]
    assert [event.data["pid"] for event in told if event.kind is EventKind.ENDED] == [9, 10]


@pytest.mark.parametrize("dead", [False, True])
def test_who_lived_when_the_crash_was_handled_was_stopped(dead):
    stopped = child(7, told_to_leave=True, dead=dead)
    assert kinds(look(child(7), quitting=True), look(stopped, quitting=True)) == []
    assert kinds(look(gone=(stopped,), quitting=True), look(quitting=True)) == [EventKind.STOPPED]


def test_who_has_gone_before_the_crash_was_seen_is_judged_by_the_look_that_sees_it():
    """The postmaster releases the slot, and then says that there is a crash; a look may come in between."""
    assert kinds(look(gone=(child(7),)), look(gone=(child(7),), quitting=True)) == [EventKind.CRASH]
    assert kinds(look(gone=(child(7),)), look(gone=(child(7),), anew=True)) == [EventKind.CRASH, EventKind.RECOVERY]
    assert kinds(look(gone=(child(7),), quitting=True), look(anew=True)) == [EventKind.RECOVERY, EventKind.ARMED_EXIT]
    again = [EventKind.CRASH, EventKind.ARMED_EXIT]
    assert kinds(look(gone=(child(7),), anew=True), look(quitting=True)) == again


def test_a_dead_child_that_is_armed_is_an_armed_exit_for_sure_and_told_once():
    dead = child(7, dead=True, status=0)
    event = only(look(child(7)), look(dead))
    assert (event.kind, event.data["certain"]) == (EventKind.ARMED_EXIT, True)
    assert event.data["of"][0]["status"] == 0
    assert "has ended with status 0 while active" in event.sentence
    assert kinds(look(dead), look(dead)) == []
    anew = look(gone=(dead, child(8, slot=2)), anew=True, cause_seen=True)
    assert kinds(look(dead, cause_seen=True), anew) == [EventKind.CRASH, EventKind.RECOVERY]
    other = only(anew, look())
    assert (other.kind, other.data["pid"]) == (EventKind.STOPPED, 8)


def test_a_recovery_whose_crash_no_look_saw_has_one_all_the_same():
    assert kinds(look(), look(anew=True)) == [EventKind.CRASH, EventKind.RECOVERY]
    assert kinds(look(quitting=True), look(anew=True)) == [EventKind.RECOVERY]
    assert kinds(look(), look(quitting=True)) == [EventKind.CRASH]
    assert kinds(look(quitting=True), look(quitting=True)) == []
    again = [EventKind.RECOVERY, EventKind.CRASH]
    assert kinds(look(quitting=True), look(anew=True, quitting=True)) == again
    assert kinds(look(), look(anew=True, quitting=True)) == [EventKind.CRASH, *again]


def test_new_memory_explains_every_flag():
    assert kinds(look(child(7, flag=WALSENDER)), look(child(7), anew=True)) == [EventKind.CRASH, EventKind.RECOVERY]


def test_without_memory_nothing_is_told_and_nobody_is_forgotten():
    without = Look(1.0, None, gone=(child(7),))
    assert kinds(look(child(7)), without) == []
    assert kinds(without, look(anew=True)) == [EventKind.CRASH, EventKind.RECOVERY]
    assert kinds(without, look()) == [EventKind.ENDED]


def test_a_foreign_value_is_told_with_the_value_and_once():
    foreign = look(child(7, flag=77))
    event = only(look(child(7)), foreign)
    assert (event.kind, event.data["value"]) == (EventKind.IMPOSSIBLE, 77)
    assert "77 is no state" in event.sentence
    assert kinds(foreign, foreign) == []
    assert only(foreign, look()).data["steps"] == ["release"]


def test_the_summary_counts_changes_and_missed_steps():
    summary = Summary()
    for event in happened(look(child(7, flag=ASSIGNED)), look(child(7, flag=WALSENDER), child(8, slot=2))):
        summary.add(event)
    assert (summary.changes, summary.missed_steps) == (2, 2)
    assert "changes 2, missed steps 2" in summary.event().sentence


def test_an_event_is_a_line_and_an_object():
    when = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    event = Event(EventKind.CRASH, "crash", {"slot": 1})
    assert line_of(event, when) == "03:04:05.678 crash"
    assert event.as_json(when) == {"time": "2026-01-02T03:04:05.678+00:00", "event": "crash", "slot": 1}


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min"), (6100, "1 h"), (9e5, "10 d")]
)
def test_an_age_is_short(seconds, said):
    assert age(seconds) == said
    assert len(said) <= 6
