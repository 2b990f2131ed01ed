"""Recovery: the others are stopped, all are waited for, and a new generation begins. Claim C5."""

import multiprocessing
import os
import resource
import signal
import time

import pytest

from armed import (
    Closed,
    Decision,
    EventKind,
    Mode,
    NotRunning,
    SlotState,
    SlotTable,
    StartupFailed,
    Supervisor,
    recovery,
)

LIMIT = 20.0


def kinds(events):
    return [event.kind.value for event in events]


def waiting(me, shared, ready):
    """A sibling: engaged and at rest."""
    with me.engage():
        ready.open()
        while True:
            signal.pause()


def crash(me, shared):
    with me.engage():
        os._exit(0)


def test_the_others_are_stopped_and_everything_is_made_anew(gate):
    # C5: the response
    ready, made = gate(), []

    def make_shared():
        made.append(object())
        return made[-1]

    with Supervisor(make_shared=make_shared) as sup:
        siblings = [sup.start(waiting, ready) for _ in range(3)]
        for _ in siblings:
            os.read(ready.read_end, 1)
        table = sup.slots
        culprit = sup.start(crash)
        events = []
        while sup.generation == 1:
            events += [event for event in sup.step(LIMIT) if event.kind is not EventKind.NOTICED]
        assert kinds(events) == ["started"] * 4 + ["crashed", "stopping"] + ["lost"] * 3 + ["reset", "running"]
        assert events[4].child is culprit
        assert {event.child for event in events[6:9]} == set(siblings)
        assert {child.outcome.status for child in siblings} == {-signal.SIGQUIT}
        assert [event.generation for event in events] == [1] * 9 + [2] * 2
        assert (sup.mode, len(made), sup.children) == (Mode.RUNNING, 2, ())
        assert sup.slots is not table
        with pytest.raises(Closed, match="its memory is freed"):
            table.word(1)
        assert all(sup.slots.state(slot) is SlotState.UNUSED for slot in range(1, 65))
        again = sup.start(waiting, ready)
        ready.wait()
        assert (again.generation, again.slot) == (2, 1)


def test_no_child_is_started_between_a_crash_and_the_reset(gate, until):
    ready = gate()
    with Supervisor(stop_after=0.3) as sup:
        stubborn = sup.start(ignoring_sigquit, ready)
        ready.wait()
        sup.start(crash)
        until(sup, EventKind.STOPPING)
        assert sup.mode is Mode.STOPPING
        with pytest.raises(NotRunning, match="stopping"):
            sup.start(crash)
        assert sup.generation == 1
        assert sup.children == (stubborn,)
        until(sup, EventKind.RUNNING)
        assert stubborn.outcome.status == -signal.SIGKILL


def ignoring_sigquit(me, shared, ready):
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    waiting(me, shared, ready)


def stopped(me, shared, ready):
    ready.open()
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize("sibling", [ignoring_sigquit, stopped])
def test_who_is_not_stopped_by_sigquit_is_killed_stop_after_seconds_later(gate, until, sibling):
    ready = gate()
    with Supervisor(stop_after=0.3) as sup:
        child = sup.start(sibling, ready)
        ready.wait()
        if sibling is stopped:
            os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        sup.start(crash)
        until(sup, EventKind.STOPPING)
        began = time.monotonic()
        assert sup.step(0.05) == []
        assert kinds(sup.step(LIMIT)) == ["limit"]
        assert kinds(sup.step(LIMIT)) == ["lost"]  # told before the next generation is made
        assert kinds(sup.step(LIMIT)) == ["reset", "running"]
        assert 0.2 < time.monotonic() - began < LIMIT
        assert (child.outcome.status, child.outcome.decision) == (-signal.SIGKILL, Decision.CRASH)


def test_recovery_leaves_no_core_but_a_genuine_fault_may(gate):
    """The limit is set just before SIGQUIT, and only then."""
    ready = gate()

    def limits(pid):
        with open(f"/proc/{pid}/limits") as lines:
            return next(line.split()[4:6] for line in lines if line.startswith("Max core"))

    with Supervisor(stop_after=LIMIT) as sup:
        child = sup.start(ignoring_sigquit, ready)
        ready.wait()
        hard = limits(child.pid)[1]
        assert limits(child.pid)[0] == "0"  # as these tests have it
        sup.start(crash)
        while sup.mode is Mode.RUNNING:
            sup.step(LIMIT)
        assert limits(child.pid) == (["0", "0"] if hard == "0" else ["1", hard])
        os.kill(child.pid, signal.SIGKILL)
        sup.run(LIMIT)


def test_a_sibling_that_ended_well_during_recovery_is_reported_as_exited(gate, until):
    ready, crashed = gate(), gate()

    def target(me, shared):
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        with me.engage():
            ready.open()
            crashed.wait()

    with Supervisor(stop_after=LIMIT) as sup:
        sibling = sup.start(target)
        ready.wait()
        sup.start(crash)
        until(sup, EventKind.STOPPING)
        crashed.open()
        assert kinds(until(sup, EventKind.RUNNING)) == ["exited", "reset", "running"]
        assert sibling.outcome.decision is Decision.CLEAN


def test_a_second_crash_during_recovery_adds_nothing(gate, until):
    ready, go = gate(), gate()

    def target(me, shared):
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        with me.engage():
            ready.open()
            go.wait()
            os._exit(0)

    made = []
    with Supervisor(make_shared=lambda: made.append(1), stop_after=LIMIT) as sup:
        sup.start(target)
        ready.wait()
        sup.start(crash)
        until(sup, EventKind.STOPPING)
        go.open()
        assert kinds(until(sup, EventKind.RUNNING)) == ["lost", "reset", "running"]
        assert (sup.generation, len(made)) == (2, 2)


def test_each_crash_recovers_again():
    # C1: an armed exit with status 0 is detected
    with Supervisor() as sup:
        for generation in (1, 2, 3):
            assert sup.start(crash).generation == generation
            assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]


def test_a_lock_that_died_held_is_free_in_the_next_generation(gate):
    # C4: what the dead one held
    def hold_and_die(me, lock):
        with me.engage() as hold:
            hold.take(lock.acquire, lock.release)
            os._exit(0)

    def try_lock(me, lock, said):
        with me.engage() as hold:
            said.open(str(hold.take(lambda: lock.acquire(timeout=LIMIT), lock.release)).encode())

    said = gate()
    with Supervisor(make_shared=multiprocessing.get_context("fork").Lock) as sup:
        sup.start(hold_and_die)
        sup.run(LIMIT)
        child = sup.start(try_lock, said)
        assert said.wait() == b"True"
        sup.run(LIMIT)
        assert child.outcome.decision is Decision.CLEAN


def test_make_shared_that_raises_in_recovery_stops_the_supervisor(gate, until):
    ready, made = gate(), []

    def make_shared():
        if made:
            raise OSError("no memory")
        made.append(1)

    sup = Supervisor(make_shared=make_shared)
    sup.start(waiting, ready)
    ready.wait()
    sup.start(crash)
    with pytest.raises(StartupFailed, match="no memory") as caught:
        sup.run(LIMIT)
    assert isinstance(caught.value.__cause__, OSError)
    assert kinds(caught.value.events) == ["started", "started", "crashed", "stopping", "lost", "closed"]
    assert (sup.mode, sup.children) == (Mode.STOPPED, ())
    with pytest.raises(Closed):
        sup.start(print)
    assert sup.close() == []


def test_an_interrupted_make_shared_is_called_again_by_the_next_step():
    calls = []

    def make_shared():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return len(calls)

    with Supervisor(make_shared=make_shared) as sup:
        sup.start(crash)
        with pytest.raises(KeyboardInterrupt):
            sup.run(LIMIT)
        assert (sup.mode, sup.generation) == (Mode.RESETTING, 1)
        assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]
        assert (sup.generation, len(calls)) == (2, 3)


def test_many_children_dying_at_once_are_one_recovery(gate):
    ready, go = gate(), gate()

    def target(me, shared):
        with me.engage():
            ready.open()
            go.wait()
            os._exit(0)

    with Supervisor() as sup:
        children = [sup.start(target) for _ in range(32)]
        seen = 0
        while seen < 32:
            seen += len(ready.wait())
        go.open(b"." * 32)
        go.close_write_end()
        events = kinds(sup.run(LIMIT))
        assert events[32:34] == ["crashed", "stopping"]
        assert sorted(events[34:65]) == ["lost"] * 31
        assert events[65:] == ["reset", "running"]
        assert all(child.outcome.lost for child in children)


# CI is root, so that it runs there.
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up being root")
def test_who_may_not_be_signalled_any_more_is_ended_by_the_lifeline(gate, forked, reaped):
    """A supervisor that gave up being root: one child it has no right to kill must not save the others, nor itself."""

    def body():
        ready = gate()
        with Supervisor(stop_after=0.1) as sup:
            others = [sup.start(waiting, ready)]
            ready.wait()
            culprit = sup.start(lambda me, shared: (me.engage().__enter__(), ready.open(), signal.pause()))
            ready.wait()
            os.setresuid(0, 65534, 0)  # it may neither start a process that is root, nor signal one
            os.setresuid(65534, 65534, 65534)
            others.append(sup.start(ignoring_sigquit, ready))
            ready.wait()
            end_of_another(culprit.pid)
            events = kinds(sup.run(LIMIT))
            assert events == ["started"] * 3 + ["crashed", "stopping", "limit", "lost", "lost", "reset", "running"]
            assert {child.outcome.status for child in others} == {-signal.SIGKILL}
            again = sup.start(lambda me, shared: None)  # under a new lifeline
            sup.run(LIMIT)
            assert again.outcome.status == 0

    helper, orders = gate(), gate()
    root = os.fork()
    if root == 0:  # somebody who may
        try:
            os.kill(int(orders.wait()), signal.SIGKILL)
        finally:
            os._exit(0)

    def end_of_another(pid):
        orders.open(str(pid).encode())

    assert reaped(forked(body)) == 42
    reaped(root)
    helper.close_write_end()


def test_signals_for_a_child_that_was_reaped_reach_nobody_else(gate, forked, reaped):
    """Its pid may be another process's by now: here it is said to be that of one which must keep its core limit."""
    may_end = gate()
    with Supervisor() as sup:
        child = sup.start(lambda me, shared: None)
        os.waitid(os.P_PID, child.pid, os.WEXITED)
        innocent = forked(may_end.wait)
        try:
            hard = resource.prlimit(innocent, resource.RLIMIT_CORE)[1]
            resource.prlimit(innocent, resource.RLIMIT_CORE, (0, hard))
            (pidfd,) = sup._children
            recovery.ask_to_end([pidfd])
            recovery.stop([(pidfd, innocent)])
            recovery.kill([pidfd])
            assert resource.prlimit(innocent, resource.RLIMIT_CORE) == (0, hard)
        finally:
            may_end.open()
            assert reaped(innocent) == 42
        with pytest.warns(RuntimeWarning, match="taken away"):
            sup.run(LIMIT)


def test_a_slot_is_released_while_its_childs_pid_still_is_its_own(monkeypatch):
    seen = []
    release = SlotTable.release

    def watched(self, slot):
        seen.append(os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
        return release(self, slot)

    monkeypatch.setattr(SlotTable, "release", watched)
    with Supervisor() as sup:
        child = sup.start(lambda me, shared: None)
        sup.run(LIMIT)
        assert [info.si_pid for info in seen] == [child.pid]
