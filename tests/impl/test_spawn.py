"""Children in fresh interpreters: they do all that forked ones do, and have nothing that is the supervisor's alone."""

import contextlib
import gc
import multiprocessing
import os
import select
import signal
import sys
from multiprocessing import reduction, resource_tracker, shared_memory

import pytest
from tests.impl.conftest import LIMIT

from armed import Decision, EventKind, ForeignProcess, Kind, Mode, Supervisor, cancel

SPAWN = multiprocessing.get_context("spawn")
ARENA = SPAWN.Value("i", 0, lock=False)  # multiprocessing keeps the memory that Values come from: it is not ours


def kinds(events):
    return [event.kind.value for event in events]


class Said:
    """A pipe's write end that can be handed on to a spawned child."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def __call__(self, text):
        os.write(self.descriptor, f"{text}\n".encode())

    def __reduce__(self):
        return _said, (reduction.DupFd(self.descriptor),)


def _said(handed):
    return Said(handed.detach())


@pytest.fixture(autouse=True)
def no_resource_tracker(nothing_left):
    """The process that multiprocessing starts for its own names is not ours to be counted."""
    yield
    gc.collect()  # a lock's end would start it again
    resource_tracker._resource_tracker._stop()


@pytest.fixture
def say(gate):
    pipe = gate()
    said = Said(pipe.write_end)
    said.wait = lambda: pipe.wait().decode().split()
    return said


def counting(me, shared, said):
    lock, number = shared
    with me.engage() as hold:
        hold.enter(lock)
        number.value += 1
    said(f"{me.slot} {me.generation} {number.value} {__name__}")
    sys.exit(1)


def make_shared():
    return SPAWN.Lock(), SPAWN.Value("i", 0, lock=False)


def crash(me, shared, *_):
    with me.engage():
        os._exit(0)


def crash_at_first(me, shared):
    if me.generation == 1:
        crash(me, shared)


def waiting(me, shared, said):
    said("waiting")
    while True:
        signal.pause()


def busy(me, shared, said):
    said(os.getpid())
    while True:
        pass


def tell_descriptors(me, shared, said):
    names = []
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            names.append(os.readlink(f"/proc/self/fd/{each}").split(":")[0].split(" ")[0])
    said(" ".join(sorted(names)))


def fork_inside(me, shared, said):
    try:
        with me.engage():
            if os.fork() == 0:
                os.write(2, b"")
            else:
                os.wait()
    except ForeignProcess:
        said("foreign")
        os._exit(0)


def prepare(me, shared, previous):
    if previous is not None and previous[1].value != 41:
        raise RuntimeError("it was left at 41")
    shared[1].value = 41


def say_no(said, *_):
    said("no")


def test_a_spawned_child_engages_shares_and_exits_as_a_forked_one_does(say):
    with Supervisor(2, make_shared, start_method="spawn") as sup:
        child = sup.start(counting, say)
        sup.run(LIMIT)
        assert child.outcome.decision is Decision.CLEAN
        assert child.outcome.status == 1
        assert say.wait() == ["1", "1", "1", __name__]


def test_a_spawned_child_that_leaves_armed_starts_a_recovery_and_a_new_generation_works(say):
    with Supervisor(2, make_shared, start_method="spawn", startup=prepare) as sup:
        stopped = sup.start(waiting, say)
        assert say.wait() == ["waiting"]
        culprit = sup.start(crash)
        events = sup.run(LIMIT)
        assert kinds(events)[-8:] == ["started", "crashed", "stopping", "lost", "reset", "startup", "exited", "running"]
        assert (culprit.outcome.status, stopped.outcome.status) == (0, -signal.SIGQUIT)
        sup.start(counting, say)
        sup.run(LIMIT)
        assert say.wait()[:3] == ["1", "2", "42"]


def test_work_of_a_spawned_child_is_begun_anew():
    with Supervisor(1, start_method="spawn") as sup:
        first = sup.start(crash_at_first, restart=True)
        events = sup.run(LIMIT)
        again = [event.child for event in events if event.kind is EventKind.STARTED][-1]
        assert again.restarts is first
        assert again.outcome.decision is Decision.CLEAN


def test_a_spawned_dead_end_child_says_no(say):
    with Supervisor(1, start_method="spawn", dead_end=say_no) as sup:
        sup.start(waiting, say)
        assert say.wait() == ["waiting"]
        assert sup.start(waiting, say).kind is Kind.DEAD_END
        assert say.wait() == ["no"]


def test_a_child_that_is_asked_to_end_before_it_can_note_it_ends_in_the_orderly_way(say):
    sup = Supervisor(2, start_method="spawn")
    children = [sup.start(waiting, say) for _ in range(2)]
    events = sup.close(LIMIT)
    assert {child.outcome.decision for child in children} == {Decision.CLEAN}, kinds(events)
    assert {child.outcome.status for child in children} == {1}


def test_a_child_that_is_stopped_before_it_has_read_anything_stops_nobody():
    with Supervisor(2, start_method="spawn", stop_after=0.3) as sup:
        stubborn = sup.start(waiting, None)
        os.kill(stubborn.pid, signal.SIGSTOP)
        sup.start(crash)
        assert kinds(sup.run(LIMIT))[-4:] == ["limit", "lost", "reset", "running"]
        assert stubborn.outcome.status == -signal.SIGKILL


def test_what_cannot_be_pickled_is_refused_and_the_slot_is_free_again():
    descriptors = set(os.listdir("/proc/self/fd"))
    with Supervisor(1, start_method="spawn") as sup:
        before = set(os.listdir("/proc/self/fd"))
        for target, args in ((lambda me, shared: None, ()), (crash, (sys,)), (crash, ((_ for _ in ()),))):
            with pytest.raises(TypeError, match="must be picklable"):
                sup.start(target, *args)
            assert sup.slots.in_use() == {}
        assert set(os.listdir("/proc/self/fd")) == before
        sup.start(crash)
        sup.run(LIMIT)
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_a_child_has_no_descriptor_of_the_supervisor_but_what_it_was_given(say):
    with open("/dev/null") as own, Supervisor(3, start_method="spawn") as sup:
        os.set_inheritable(own.fileno(), False)
        sup.start(tell_descriptors, say)
        names = say.wait()
        # Standard streams apart: the lifeline, what it says this with, and the mapping of the table (mmap keeps one).
        assert names.count("pipe") <= 3 + 2, names
        assert names.count("/memfd") == 1, names
        assert not any(name.startswith("anon_inode") for name in names), names


def cancelling(me, shared, registry, pid, key, said):
    said(f"{cancel(registry, pid, bytes(20))} {cancel(registry, os.getpid(), key)} {cancel(registry, pid, key)}")


def test_a_spawned_child_serves_cancel_requests_and_another_one_is_cancelled(say):
    with Supervisor(2, start_method="spawn") as sup:
        cancelled = sup.start(waiting, say)
        assert say.wait() == ["waiting"]
        sup.start(cancelling, sup.registry, cancelled.pid, cancelled.cancel_key, say)
        assert say.wait() == ["False", "False", "True"]
        sup.run(LIMIT)
        assert (cancelled.outcome.status, cancelled.outcome.decision) == (1, Decision.CLEAN)


def test_a_cancel_request_for_a_child_that_is_still_booting_ends_nobody_else(say):
    with Supervisor(2, start_method="spawn") as sup:
        bystander = sup.start(waiting, say)
        assert say.wait() == ["waiting"]
        booting = sup.start(waiting, say)
        assert sup.cancel(booting.pid, booting.cancel_key)
        while booting.outcome is None:
            sup.step(LIMIT)
        assert (booting.outcome.status, bystander.outcome, sup.generation) == (1, None, 1)


def test_a_fork_of_a_spawned_child_is_foreign(say):
    with Supervisor(1, start_method="spawn") as sup:
        child = sup.start(fork_inside, say)
        sup.run(LIMIT)
        assert say.wait() == ["foreign"]
        assert child.outcome.decision is Decision.CLEAN


def attach(me, shared, name):
    block = shared_memory.SharedMemory(name)
    block.buf[0] += 1
    block.close()


def test_attaching_to_named_memory_does_not_remove_it():
    block = shared_memory.SharedMemory(create=True, size=1)
    try:
        with Supervisor(1, start_method="spawn") as sup:
            for _ in range(2):
                sup.start(attach, block.name)
                sup.run(LIMIT)
        assert block.buf[0] == 2
    finally:
        block.close()
        block.unlink()


def test_spawned_children_end_with_their_supervisor_however_it_dies(gate, forked, reaped):
    first, second, pids = gate(), gate(), gate()

    def body():
        sup = Supervisor(3, start_method="spawn")
        children = [sup.start(busy, Said(first.write_end)), sup.start(waiting, Said(second.write_end))]
        first.wait(), second.wait()
        children.append(sup.start(busy, Said(first.write_end)))  # most probably still booting when the supervisor dies
        pids.open(" ".join(str(child.pid) for child in children).encode())
        signal.pause()

    supervisor = forked(body)
    handles = [os.pidfd_open(int(pid)) for pid in pids.wait().split()]
    os.kill(supervisor, signal.SIGKILL)
    assert reaped(supervisor) == -signal.SIGKILL
    for handle in handles:
        assert select.select([handle], [], [], LIMIT)[0], "a child outlived its supervisor"
        os.close(handle)


@pytest.mark.parametrize("wrong", ["forkserver", "", None])
def test_another_start_method_is_refused(wrong):
    with pytest.raises(ValueError, match="give 'fork' or 'spawn'"):
        Supervisor(start_method=wrong)


def test_a_process_that_cannot_be_made_gives_its_slot_back(monkeypatch):
    def fail(*_, **__):
        raise BlockingIOError(11, "planted")

    with Supervisor(1, start_method="spawn") as sup:
        monkeypatch.setattr(os, "posix_spawn", fail)
        with pytest.raises(BlockingIOError):
            sup.start(crash)
        monkeypatch.undo()
        assert sup.slots.in_use() == {}
        sup.start(crash)
        sup.run(LIMIT)
        assert sup.mode is Mode.RUNNING
