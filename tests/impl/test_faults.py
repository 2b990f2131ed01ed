"""What the system refuses: an exception that says so, no slot lost, and work as before once it can be had again."""

import errno
import os
import resource
import signal
import threading

import pytest
from tests.impl.conftest import LIMIT

from armed import Decision, EventKind, Mode, Supervisor


def clean(me, shared, *_):
    with me.engage():
        pass


def crash(me, shared):
    with me.engage():
        os._exit(0)


def limit(name, value):
    resource.setrlimit(name, (value, resource.getrlimit(name)[1]))


def decided(sup, child):
    sup.run(LIMIT)
    return child.outcome.decision


def size():
    """Bytes of address space that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def leave_no_gap():
    """Use all descriptors below the highest one; return the lowest that is free."""
    highest = max(int(each) for each in os.listdir("/proc/self/fd"))
    while (lowest := os.dup(0)) <= highest:
        pass
    os.close(lowest)
    return lowest


def refused_for_descriptors(call):
    """Call it with no descriptor to be had, then one, then two ..., until it works; return its answer."""
    refusals, free = 0, leave_no_gap()
    before = set(os.listdir("/proc/self/fd"))
    for more in range(40):
        limit(resource.RLIMIT_NOFILE, free + more)
        try:
            return call(), refusals
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            refusals += 1
        finally:
            limit(resource.RLIMIT_NOFILE, 1024)
        assert set(os.listdir("/proc/self/fd")) == before
    raise AssertionError("refused with 40 descriptors")


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_without_descriptors_everything_is_refused_and_nothing_is_lost(start_method, forked, reaped):
    def body():
        limit(resource.RLIMIT_NOFILE, 1024)
        sup, refusals = refused_for_descriptors(lambda: Supervisor(1, start_method=start_method, early_warning="off"))
        assert refusals > 2
        child, refusals = refused_for_descriptors(lambda: sup.start(clean))
        assert refusals > 0
        assert decided(sup, child) is Decision.CLEAN
        sup.start(crash)
        while sup.mode is Mode.RUNNING:
            sup.step(LIMIT)

        def recover():
            while sup.mode is not Mode.RUNNING:
                sup.step(LIMIT)

        assert refused_for_descriptors(recover)[1] > 0
        assert decided(sup, sup.start(clean)) is Decision.CLEAN
        assert sup.generation == 2
        sup.close()

    assert reaped(forked(body)) == 42


def test_without_memory_for_the_table_there_is_no_supervisor_and_a_recovery_is_tried_again(forked, reaped):
    def body():
        limit(resource.RLIMIT_AS, size() + (4 << 20))
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="allocate memory"):
            Supervisor(2**20)
        assert set(os.listdir("/proc/self/fd")) == before
        limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
        with Supervisor(2**20) as sup:
            sup.start(crash)
            while sup.mode is Mode.RUNNING:
                sup.step(LIMIT)
            limit(resource.RLIMIT_AS, size() + (1 << 20))
            for _ in range(3):
                with pytest.raises(OSError, match="allocate memory"):
                    sup.run(LIMIT)
            limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
            sup.run(LIMIT)
            assert decided(sup, sup.start(clean)) is Decision.CLEAN
            assert sup.generation == 2

    assert reaped(forked(body)) == 42


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_children_of_a_supervisor_that_ignores_sigquit_are_stopped_by_it(start_method, gate):
    ready = gate()
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    os.set_inheritable(ready.write_end, True)
    try:
        with Supervisor(2, start_method=start_method) as sup:
            bystander = sup.start(wait_for_ever, ready.write_end)
            ready.wait()
            sup.start(crash)
            events = sup.run(LIMIT)
        assert bystander.outcome.status == -signal.SIGQUIT
        assert EventKind.LIMIT not in {event.kind for event in events}
    finally:
        signal.signal(signal.SIGQUIT, before)


def wait_for_ever(me, shared, descriptor):
    os.write(descriptor, b".")
    while True:
        signal.pause()


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_thread_may_start_children_which_outlive_it_and_another_may_go_on(start_method, gate):
    ready = gate()
    os.set_inheritable(ready.write_end, True)
    made = []

    def begin():
        sup = Supervisor(2, start_method=start_method)
        made.extend([sup, sup.start(wait_for_ever, ready.write_end)])

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join(LIMIT)
    sup, child = made
    ready.wait()
    assert sup.step(0.3)[0].kind is EventKind.STARTED
    assert child.outcome is None
    assert decided_in_time(sup, sup.start(clean)) is Decision.CLEAN
    sup.start(crash)
    sup.run(LIMIT)
    assert child.outcome.status == -signal.SIGQUIT
    assert decided(sup, sup.start(clean)) is Decision.CLEAN
    sup.close()


def decided_in_time(sup, child):
    while child.outcome is None:
        assert sup.step(LIMIT), "nothing happened in time"
    return child.outcome.decision
