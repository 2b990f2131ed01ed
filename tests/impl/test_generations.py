"""How a generation is made, prepared, served again, and given up: make_shared, startup, restart, limits, dead ends."""

import itertools
import os
import select
import signal
import sys
import time

import pytest
from tests.impl.conftest import LIMIT

from armed import (
    Decision,
    EventKind,
    Kind,
    Mode,
    NotArmed,
    NotRunning,
    RecoveryLimit,
    SlotsExhausted,
    StartupFailed,
    Supervisor,
    decide,
)


def kinds(events):
    return [event.kind.value for event in events]


def crash(me, shared, *_):
    with me.engage():
        os._exit(0)


def waiting(me, shared, gate):
    gate.open()
    while True:
        signal.pause()


# --- make_shared as a generator ---------------------------------------------------------------------------------------


def test_a_generator_makes_each_generation_and_cleans_up_when_it_is_gone():
    said = []

    def make_shared():
        number = len([each for each in said if each.startswith("make")]) + 1
        said.append(f"make {number}")
        yield number
        said.append(f"clean {number}")

    seen = []
    with Supervisor(make_shared=make_shared) as sup:
        sup.start(lambda me, shared: os._exit(shared))
        sup.run(LIMIT)
        assert said == ["make 1"]
        sup.start(crash)
        seen += kinds(sup.run(LIMIT))
        assert said == ["make 1", "make 2", "clean 1"]
        child = sup.start(lambda me, shared: sys.exit(shared - 1))
        sup.run(LIMIT)
        assert child.outcome.status == 1, "it got what the second call yielded"
    assert said == ["make 1", "make 2", "clean 1", "clean 2"]
    assert seen[-2:] == ["reset", "running"]


@pytest.mark.parametrize("fault", ["raises", "yields twice"])
def test_a_clean_up_that_fails_is_told_and_stops_nothing(fault):
    def make_shared():
        yield 1
        if fault == "raises":
            raise OSError("planted")
        yield 2

    with Supervisor(make_shared=make_shared) as sup:
        sup.start(crash)
        with pytest.warns(RuntimeWarning, match="planted" if fault == "raises" else "more than once"):
            sup.run(LIMIT)
        assert (sup.mode, sup.generation) == (Mode.RUNNING, 2)
        with pytest.warns(RuntimeWarning):
            sup.close()


def test_a_generator_that_yields_nothing_makes_nothing():
    with pytest.raises(StartupFailed, match="StopIteration"):
        Supervisor(make_shared=lambda: (_ for _ in ()))


# --- The startup child ------------------------------------------------------------------------------------------------


class Notes:
    """Shared by inheritance: what children write, in a pipe."""

    def __init__(self, gate):
        self.gate = gate
        self.name = "?"


def test_a_startup_child_prepares_each_generation_and_alone_sees_the_last_one(gate):
    said = gate()
    made = iter(["first", "second"])

    def make_shared():
        return next(made)

    def startup(me, shared, previous):
        assert me.slot == 0
        said.open(f"{me.generation} {shared} after {previous}\n".encode())

    with Supervisor(make_shared=make_shared, startup=startup) as sup:
        assert (sup.mode, sup.children, sup.slots.in_use()) == (Mode.RUNNING, (), {})
        assert said.wait() == b"1 first after None\n"
        assert kinds(sup.step(0)) == ["startup", "exited", "running"]
        sup.start(crash)
        events = sup.run(LIMIT)
        assert said.wait() == b"2 second after first\n"
        assert kinds(events) == ["started", "crashed", "stopping", "reset", "startup", "exited", "running"]
        assert [event.child.kind for event in events if event.kind is EventKind.STARTUP] == [Kind.STARTUP]


def test_nothing_is_started_while_a_generation_is_prepared(gate):
    may_go_on = gate()

    def startup(me, shared, previous):
        if me.generation == 2:
            may_go_on.wait()

    with Supervisor(startup=startup) as sup:
        sup.start(crash)
        while sup.mode is not Mode.STARTING:
            sup.step(LIMIT)
        with pytest.raises(NotRunning, match="starting"):
            sup.start(crash)
        may_go_on.open()
        sup.run(LIMIT)
        assert sup.mode is Mode.RUNNING


@pytest.mark.parametrize(
    "failure", [lambda: os._exit(1), lambda: sys.exit(2), lambda: 1 / 0, lambda: os.kill(os.getpid(), signal.SIGKILL)]
)
def test_a_startup_child_that_fails_is_tried_again_with_what_the_last_generation_left(gate, failure):
    said, made = gate(), iter(range(1, 9))

    def startup(me, shared, previous):
        said.open(f"{shared} after {previous};".encode())
        if me.generation == 2:
            failure()

    with Supervisor(make_shared=lambda: next(made), startup=startup) as sup:
        sup.start(crash)
        events = kinds(sup.run(LIMIT))
        again = ["stopping", "reset", "startup"]
        assert events[-10:] == ["crashed", *again, "crashed", *again, "exited", "running"]
        assert said.wait() == b"1 after None;2 after 1;3 after 1;"
        assert sup.generation == 3


def test_a_startup_child_that_takes_too_long_is_ended_and_that_is_a_failure(gate):
    def startup(me, shared, previous):
        if me.generation == 2:
            signal.pause()

    with Supervisor(startup=startup, startup_limit=0.2) as sup:
        sup.start(crash)
        began = time.monotonic()
        events = kinds(sup.run(LIMIT))
        assert time.monotonic() - began > 0.2
        assert events[-8:] == ["startup", "limit", "crashed", "stopping", "reset", "startup", "exited", "running"]


def test_a_startup_child_that_always_fails_is_given_up_and_nothing_is_left():
    with pytest.raises(StartupFailed, match="restart_limit allows 2") as failure:
        Supervisor(startup=lambda me, shared, previous: sys.exit(1), restart_limit=(2, 60.0))
    assert kinds(failure.value.events).count("startup") == 3
    assert kinds(failure.value.events)[-2:] == ["limit", "closed"]


def test_closing_while_a_generation_is_prepared_ends_the_startup_child(gate):
    began = gate()

    def startup(me, shared, previous):
        if me.generation == 2:
            waiting(me, shared, began)

    sup = Supervisor(startup=startup)
    sup.start(crash)
    while sup.mode is not Mode.STARTING:
        sup.step(LIMIT)
    began.wait()
    events = sup.close(LIMIT)
    assert kinds(events)[-4:] == ["closing", "stopping", "lost", "closed"]
    assert sup.generation == 2


def test_a_startup_child_has_no_switch(gate):
    # C9: who has no slot is not covered
    said = gate()

    def startup(me, shared, previous):
        for attempt in (me.engage, lambda: me.take(int, int)):
            try:
                attempt()
            except NotArmed as refusal:
                said.open(str(refusal).split(":")[0].encode() + b";")

    with Supervisor(startup=startup):
        no_switch, nothing_taken = said.wait().split(b";")[:2]
        assert no_switch == b"this child has no slot, so nothing would notice its end"
        assert nothing_taken == b"nothing is taken outside an engagement"


@pytest.mark.parametrize("status", [*range(-20, 0), 0, 1, 2, 255])
def test_where_there_is_no_slot_the_status_decides(status):
    assert (decide(status, 0, 0, Kind.STARTUP) is Decision.CLEAN) == (status == 0)
    assert (decide(status, 0, 0, Kind.DEAD_END) is Decision.CLEAN) == (status in (0, 1))


# --- Restart ----------------------------------------------------------------------------------------------------------


def test_work_that_was_lost_is_begun_anew_once_and_clean_work_is_not(gate):
    ready, said = gate(), gate()

    def work(me, shared, name):
        said.open(f"{name}{me.generation} ".encode())
        if me.generation == 1:
            waiting(me, shared, ready)

    with Supervisor() as sup:
        done = sup.start(lambda me, shared: None, restart=True)
        sup.run(LIMIT)
        lost = []
        for name in "ab":
            lost.append(sup.start(work, name, restart=True))
            ready.wait()
        forgotten = sup.start(work, "c")
        ready.wait()
        crashed = sup.start(lambda me, shared: crash(me, shared) if me.generation == 1 else None, restart=True)
        events = sup.run(LIMIT)
        started = [event.child for event in events if event.kind is EventKind.STARTED and event.generation == 2]
        assert {child.restarts for child in started} == {crashed, *lost}
        assert len(started) == 3
        assert done not in {child.restarts for child in started}
        assert forgotten.outcome.lost
        assert sorted(said.wait().split()[3:]) == [b"a2", b"b2"]


def test_what_was_begun_anew_is_begun_anew_again():
    with Supervisor(restart_limit=(3, 60.0)) as sup:
        first = sup.start(lambda me, shared: crash(me, shared) if me.generation < 3 else None, restart=True)
        events = sup.run(LIMIT)
        assert kinds(events).count("started") == 3
        last = [event.child for event in events if event.kind is EventKind.STARTED][-1]
        assert last.restarts.restarts is first
        assert last.outcome.decision is Decision.CLEAN


def test_what_cannot_be_begun_anew_now_is_begun_by_the_next_step(monkeypatch):
    real = os.fork
    calls = []

    def failing():
        calls.append(1)
        if len(calls) == 2:
            raise BlockingIOError(11, "planted: no more processes")
        return real()

    monkeypatch.setattr(os, "fork", failing)
    with Supervisor() as sup:
        sup.start(lambda me, shared: crash(me, shared) if me.generation == 1 else None, restart=True)
        with pytest.raises(BlockingIOError):
            sup.run(LIMIT)
        assert sup.due_in() == 0.0
        assert kinds(sup.run(LIMIT))[-2:] == ["started", "exited"]
        assert len(calls) == 3


def lost_work(sup, ready, work, number=4):
    """Start so many children, that will be started again, and have one of them crash; return them."""

    def lost(me, shared, name):
        if me.generation > 1:
            work(name)
        elif name == number:
            crash(me, shared)
        else:
            waiting(me, shared, ready)

    children = []
    for name in range(1, number + 1):
        children.append(sup.start(lost, name, restart=True))
        if name < number:
            ready.wait()
    return children


@pytest.mark.parametrize("refused", ["fork", "pidfd_open"])
def test_of_much_work_what_the_system_refuses_is_begun_by_the_next_step_and_the_rest_only_once(
    refused, gate, monkeypatch
):
    said, real, calls = gate(), getattr(os, refused), []

    def fails_at_the_third(*args):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(24, "planted")
        return real(*args)

    with Supervisor() as sup:
        lost = lost_work(sup, gate(), lambda name: said.open(f"{name} ".encode()))
        monkeypatch.setattr(os, refused, fails_at_the_third)
        with pytest.raises(OSError, match="planted"):
            sup.run(LIMIT)
        begun = sup.children
        assert len(begun) == len(sup.slots.in_use()) == 2
        events = sup.run(LIMIT)
        started = [event.child for event in events if event.kind is EventKind.STARTED and event.generation == 2]
        assert tuple(started[:2]) == begun
        assert (len(started), {child.restarts for child in started}) == (4, {*lost})
        assert all(child.outcome.decision is Decision.CLEAN for child in started)
        assert sup.counts["crashed"] == 1
        assert {*said.wait().split()} == {b"1", b"2", b"3", b"4"}


def test_children_that_are_begun_anew_together_have_nothing_of_one_another(gate):
    ready, said = gate(), gate()
    with Supervisor() as sup:
        lost_work(sup, ready, lambda name: said.open(f"{sorted(map(int, os.listdir('/proc/self/fd')))}\n".encode()))
        sup.run(LIMIT)
        descriptors = said.wait().splitlines()
        assert len(descriptors) == 4
        assert len(set(descriptors)) == 1, "a pidfd of a sibling was left open"


def test_of_much_work_so_much_is_begun_anew_as_there_are_slots(gate, monkeypatch):
    may_end = gate()

    def work(*_):
        assert select.select([may_end.read_end], [], [], LIMIT)[0]

    with Supervisor(slots=3) as sup:
        lost_work(sup, gate(), work, number=3)
        monkeypatch.setattr(os, "fork", lambda: (monkeypatch.undo(), fork_fails()))
        with pytest.raises(BlockingIOError):
            sup.run(LIMIT)
        others = [sup.start(work) for _ in range(2)]
        sup.step(0.0)
        assert [child.restarts is None for child in sup.children] == [True, True, False]
        may_end.open()
        sup.run(LIMIT)
        begun = sup.run(LIMIT)
        assert [child.outcome.decision for child in others] == [Decision.CLEAN] * 2
        assert (sup.counts["started"], sup.counts["exited"], begun) == (8, 5, [])


def test_closing_begins_nothing_anew(gate):
    ready = gate()
    sup = Supervisor()
    sup.start(waiting, ready, restart=True)
    ready.wait()
    assert "started" not in kinds(sup.close())[1:]
    assert sup.children == ()


# --- The limit of recoveries ------------------------------------------------------------------------------------------


def test_more_recoveries_than_allowed_end_the_supervisor_with_nobody_left(gate):
    ready = gate()
    with Supervisor(restart_limit=(2, 60.0)) as sup:
        for _ in range(2):
            sup.start(crash)
            sup.run(LIMIT)
        sup.start(waiting, ready)
        ready.wait()
        sup.start(crash)
        with pytest.raises(RecoveryLimit, match=r"number 3 in 60\.0 seconds") as limit:
            sup.run(LIMIT)
        assert sup.mode is Mode.STOPPED
        assert kinds(limit.value.events)[-3:] == ["lost", "limit", "closed"]
        assert sup.counts["crashed"] == 3


def test_recoveries_that_are_long_ago_do_not_count():
    with Supervisor(restart_limit=(1, 0.2)) as sup:
        for _ in range(3):
            sup.start(crash)
            sup.run(LIMIT)
            time.sleep(0.25)
        assert sup.generation == 4


@pytest.mark.parametrize("wrong", [5, (5,), (-1, 1.0), (1.5, 1.0), (True, 1.0), (1, -1.0), (1, "x"), "ab"])
def test_a_limit_that_is_none_is_refused(wrong):
    with pytest.raises((TypeError, ValueError), match="restart_limit"):
        Supervisor(restart_limit=wrong)


# --- Dead ends --------------------------------------------------------------------------------------------------------


def test_where_no_slot_is_free_a_dead_end_child_says_no(gate):
    ready, said = gate(), gate()

    def dead_end(*args):
        said.open(f"no, {args}".encode())

    with Supervisor(slots=1, dead_end=dead_end) as sup:
        sup.start(waiting, ready)
        ready.wait()
        refused = sup.start(print, 1, 2)
        assert (refused.slot, refused.kind) == (0, Kind.DEAD_END)
        assert said.wait() == b"no, (1, 2)"
        while refused.outcome is None:
            sup.step(LIMIT)
        assert (refused.outcome.decision, refused.outcome.slot_word) == (Decision.CLEAN, 0)
        assert sup.mode is Mode.RUNNING


def test_without_one_starting_is_refused(gate):
    ready = gate()
    with Supervisor(slots=1) as sup:
        sup.start(waiting, ready)
        ready.wait()
        with pytest.raises(SlotsExhausted):
            sup.start(print)


def test_a_dead_end_child_that_crashes_is_a_crash(gate):
    ready = gate()
    with Supervisor(slots=1, dead_end=lambda: os.kill(os.getpid(), signal.SIGSEGV)) as sup:
        sup.start(waiting, ready)
        ready.wait()
        refused = sup.start(print)
        events = sup.run(LIMIT)
        assert next(event.child for event in events if event.kind is EventKind.CRASHED) is refused
        assert kinds(events)[-3:] == ["lost", "reset", "running"]


def test_while_others_are_being_stopped_a_dead_end_child_says_no_and_after_that_starting_is_refused(gate, until):
    ready, said, may_end = gate(), gate(), gate()

    def stubborn(me, shared):
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        ready.open()
        may_end.wait()

    def dead_end(*args):
        said.open(f"no, {args}".encode())
        signal.pause()

    with Supervisor(slots=3, dead_end=dead_end) as sup:
        last = sup.start(stubborn)
        ready.wait()
        sup.start(crash)
        until(sup, EventKind.STOPPING)
        refused = sup.start(print, 1)
        assert (refused.slot, refused.kind, sup.mode) == (0, Kind.DEAD_END, Mode.STOPPING)
        assert said.wait() == b"no, (1,)"
        may_end.open()
        while last.outcome is None:
            sup.step(LIMIT)
        with pytest.raises(NotRunning, match="stopping"):
            sup.start(print, 2)
        assert kinds(until(sup, EventKind.RUNNING)) == ["lost", "reset", "running"]
        assert refused.outcome.status == -signal.SIGQUIT, "who says no must not hold a recovery up"


def test_a_recovery_waits_for_dead_end_children_too(gate):
    ready, said = gate(), gate()

    def dead_end():
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        said.open()
        signal.pause()

    with Supervisor(slots=1, dead_end=dead_end, stop_after=0.3) as sup:
        armed = sup.start(lambda me, shared: (me.engage().__enter__(), ready.open(), signal.pause()))
        ready.wait()
        stubborn = sup.start(print)
        said.wait()
        os.kill(armed.pid, signal.SIGKILL)
        events = sup.run(LIMIT)
        assert kinds(events)[-4:] == ["limit", "lost", "reset", "running"]
        assert stubborn.outcome.status == -signal.SIGKILL


def test_what_failed_to_be_prepared_at_first_is_nothing_that_the_next_one_reads():
    seen = []

    def startup(me, shared, previous):
        os.write(writer, f"{shared}:{previous};".encode())
        if me.generation < 3:
            raise RuntimeError("wanted")

    reader, writer = os.pipe()
    names = (f"shared{n}" for n in itertools.count(1))
    try:
        Supervisor(make_shared=lambda: next(names), startup=startup).close()
        seen = os.read(reader, 100).decode()
    finally:
        os.close(reader), os.close(writer)
    assert seen == "shared1:None;shared2:None;shared3:None;"


def test_work_that_finds_no_slot_waits_for_one_and_the_dead_are_reaped_meanwhile(monkeypatch):
    def job(me, shared):
        if me.generation == 1:
            crash(me, shared)

    with Supervisor(slots=1) as sup:
        lost = sup.start(job, restart=True)
        while sup.mode is Mode.RUNNING:
            sup.step(LIMIT)
        fork = os.fork
        monkeypatch.setattr(os, "fork", lambda: (monkeypatch.undo(), fork_fails()))
        with pytest.raises(BlockingIOError):
            sup.run(LIMIT)
        assert os.fork is fork
        other = sup.start(lambda me, shared: None)
        events = sup.run(LIMIT)
        while not any(event.child is not None and event.child.restarts is lost for event in events):
            events += sup.run(LIMIT)
        assert other.outcome.decision is Decision.CLEAN
        sup.run(LIMIT)


def fork_fails():
    raise BlockingIOError(11, "planted")


@pytest.mark.parametrize("options", [{"journal": "/nowhere/journal"}, {"early_warning": "perhaps"}])
def test_nothing_is_made_for_a_supervisor_that_cannot_be(options):
    with pytest.raises((OSError, ValueError)):
        Supervisor(make_shared=lambda: pytest.fail("it was called"), **options)
