"""Early warning: an armed child that is dying is noticed before it is dead, and nothing is decided by it. Real kernel.

A child whose main thread is gone while another thread lives is one that takes as long to die as a test needs.
"""

import contextlib
import ctypes
import faulthandler
import logging
import mmap
import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from armed import CrashWhileClosing, Decision, Mode, NotRunning, Supervisor, Unsupported, early, supervisor
from armed.slots import active_word

LIMIT = 20.0
SYS_EXIT = {"x86_64": 60, "aarch64": 93}.get(os.uname().machine)
SYS_FUTEX = {"x86_64": 202, "aarch64": 98}.get(os.uname().machine)
FUTEX_WAKE = 1


def is_available():
    bell, _ = early.hang_bell("auto")
    if bell is not None:
        bell.close()
    return bell is not None


# Needs Linux 6.7 with io_uring allowed, which nobody can install.
pytestmark = pytest.mark.skipif(not is_available(), reason="NOT RUN: this system has no early warning")


def kinds(events):
    return [event.kind.value for event in events]


def has_rung(sup, limit=0):
    """Whether a ring waits to be heard."""
    return bool(select.select([sup._bell.ear.file], [], [], limit)[0])


def dead(child):
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


def rings():
    """The descriptors of io_uring that this process has."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the directory itself
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [link for link in found if "io_uring" in link]


def end_main_thread():
    ctypes.CDLL(None).syscall(SYS_EXIT, 0)


def dying(me, shared, may_end):
    """Armed, and without a main thread; not dead before it may end, and then with status 0."""
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    threading.Thread(target=lambda: (may_end.wait(), os._exit(0))).start()
    with me.engage():
        end_main_thread()


def waiting(me, shared, ready):
    with me.engage():
        ready.open()
        while True:
            signal.pause()


def by_exit(me, shared, status):
    with me.engage():
        os._exit(status)


def by_signal(me, shared, number):
    faulthandler.disable()
    with me.engage():
        os.kill(os.getpid(), number)


def by_a_thread(me, shared):
    with me.engage():
        threading.Thread(target=os._exit, args=(0,)).start()
        while True:
            signal.pause()


def by_a_failed_give_back(me, shared):
    with me.engage() as hold:
        hold.take(list, lambda: 1 / 0)


ARMED = [
    (by_exit, 0), (by_exit, 1), (by_exit, 2), (by_signal, signal.SIGKILL), (by_signal, signal.SIGSEGV),
    (by_a_thread,), (by_a_failed_give_back,),
]  # fmt: skip


def by_return(me, shared):
    with me.engage():
        pass


def by_exit_after_the_block(me, shared):
    by_return(me, shared)
    os._exit(0)


def by_sys_exit_inside_the_block(me, shared):
    with me.engage() as hold:
        hold.take(list, list)
        sys.exit(1)


def left_to_the_exit_path(me, shared):
    me.engage().__enter__().take(list, list)


DISARMED = [(by_return,), (by_exit_after_the_block,), (by_sys_exit_inside_the_block,), (left_to_the_exit_path,)]


@pytest.mark.parametrize("death", ARMED, ids=lambda death: "-".join(map(str, (death[0].__name__, *death[1:]))))
def test_the_bell_rings_however_an_armed_child_dies(death):
    with Supervisor() as sup:
        assert not has_rung(sup)
        dead(sup.start(*death))
        assert has_rung(sup)
        assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]


@pytest.mark.parametrize("death", DISARMED, ids=lambda death: death[0].__name__)
def test_the_bell_is_silent_when_a_disarmed_child_dies(death):
    with Supervisor() as sup:
        dead(sup.start(*death))
        assert not has_rung(sup)
        assert kinds(sup.run(LIMIT)) == ["started", "exited"]


def test_it_rings_again_in_each_generation():
    with Supervisor() as sup:
        for _ in range(4):
            dead(sup.start(by_exit, 0))
            assert has_rung(sup)
            sup.run(LIMIT)
            assert not has_rung(sup)
        assert (sup.generation, sup.early_warning) == (5, "on")


@pytest.mark.parametrize(
    "death", [*ARMED, *DISARMED], ids=lambda death: "-".join(map(str, (death[0].__name__, *death[1:])))
)
def test_what_is_decided_does_not_depend_on_it(death, gate):
    outcomes = []
    for wanted in ("on", "off"):
        ready = gate()
        with Supervisor(early_warning=wanted) as sup:
            sibling = sup.start(waiting, ready)
            ready.wait()
            child = sup.start(*death)
            dead(child)
            events = sup.step(LIMIT)
            while sup.mode is not Mode.RUNNING:
                events += sup.step(LIMIT)
            word = child.outcome.slot_word
            left = "clean" if word == child._token else "active" if word == active_word(child._token) else "foreign"
            outcomes.append(
                (kinds(events), child.outcome.decision, child.outcome.status, left, sibling.outcome is None)
            )
    assert outcomes[0] == outcomes[1]


def test_the_others_are_stopped_while_the_child_that_crashed_is_still_dying(gate):
    ready, may_end = gate(), gate()
    with Supervisor(stop_after=LIMIT) as sup:
        sibling = sup.start(waiting, ready)
        ready.wait()
        culprit = sup.start(dying, may_end)
        assert kinds(sup.step(0)) == ["started", "started"]
        noticed = sup.step(LIMIT)
        assert [(event.kind.value, event.child, event.is_end) for event in noticed] == [("noticed", culprit, False)]
        while sibling.outcome is None:
            assert sup.step(0.05) == []  # of what else happens nothing is told before that child's outcome is known
        assert (sup.mode, sup.children, culprit.outcome) == (Mode.STOPPING, (culprit,), None)
        with pytest.raises(NotRunning):
            sup.start(waiting, ready)
        may_end.open()
        events = sup.run(LIMIT)
        assert kinds(events) == ["crashed", "stopping", "lost", "reset", "running"]
        assert [event.child for event in events] == [culprit, None, sibling, None, None]
        assert (culprit.outcome.status, culprit.outcome.decision) == (0, Decision.CRASH)
        assert culprit.outcome.slot_word == active_word(culprit._token)


def test_the_word_that_counts_is_the_one_that_was_read_when_it_was_noticed(gate):
    may_end = gate()
    with Supervisor(stop_after=LIMIT) as sup:
        culprit = sup.start(dying, may_end)
        while sup.mode is Mode.RUNNING:
            sup.step(0.05)
        sup.slots.view(culprit.slot)[0] = culprit._token  # nobody but the child's main thread does that in good faith
        may_end.open()
        assert kinds(sup.run(LIMIT)) == ["crashed", "stopping", "reset", "running"]
        assert (culprit.outcome.slot_word, culprit.outcome.lost) == (active_word(culprit._token), True)


def test_a_notice_is_told_once_and_only_as_long_as_the_child_is_not_dead(gate):
    may_end, told = gate(), []
    with Supervisor(stop_after=LIMIT, on_event=told.append) as sup:
        culprit = sup.start(dying, may_end)
        assert has_rung(sup, LIMIT)
        assert kinds(sup.run(0.05)) == ["started", "noticed"]
        assert (sup.mode, culprit.outcome, sup.due_in() > 0) == (Mode.STOPPING, None, True)
        may_end.open()
        assert kinds(sup.run(LIMIT)) == ["crashed", "stopping", "reset", "running"]
        dead(sup.start(by_exit, 0))
        assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]
    assert kinds(told)[:6] == ["started", "noticed", "crashed", "stopping", "reset", "running"]
    assert kinds(told).count("noticed") == 1


def test_without_it_they_are_stopped_when_that_child_is_dead(gate):
    ready, may_end = gate(), gate()
    with Supervisor(stop_after=LIMIT, early_warning="off") as sup:
        sibling = sup.start(waiting, ready)
        ready.wait()
        sup.start(dying, may_end)
        sup.step(0)
        assert sup.step(0.2) == []
        assert (sup.mode, sibling.outcome) == (Mode.RUNNING, None)
        may_end.open()
        assert kinds(sup.run(LIMIT)) == ["crashed", "stopping", "lost", "reset", "running"]


def test_events_before_that_crash_are_not_held_back(gate):
    ready, may_end = gate(), gate()
    with Supervisor(stop_after=LIMIT) as sup:
        dead(sup.start(by_exit, 0))
        while sup.generation == 1:
            sup._turn(0)  # what a step does, except to tell
        sup.start(waiting, ready)
        ready.wait()
        sup.start(dying, may_end)
        assert has_rung(sup, LIMIT)
        sup._turn(0)
        assert sup.mode is Mode.STOPPING
        told = ["started", "crashed", "stopping", "reset", "running", "started", "started", "noticed"]
        assert kinds(sup.step(LIMIT)) == told
        may_end.open()
        assert kinds(sup.run(LIMIT)) == ["crashed", "stopping", "lost", "reset", "running"]


def test_recovery_from_the_death_of_a_big_child_begins_before_its_pidfd_reports(monkeypatch):
    was_dead = []

    def touch_and_exit(me, shared):
        memory = bytearray(256 << 20)
        memory[:: mmap.PAGESIZE] = b"." * len(range(0, len(memory), mmap.PAGESIZE))
        with me.engage():
            os._exit(0)

    def stop(children):
        was_dead.extend(bool(select.select([pidfd], [], [], 0)[0]) for pidfd, _ in children)

    monkeypatch.setattr(supervisor.recovery, "stop", stop)
    with Supervisor() as sup:
        for _ in range(5):  # where the dying child takes the processor that the supervisor wants, it may be late
            sup.start(touch_and_exit)
            assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]
    assert False in was_dead


def test_a_child_without_a_main_thread_is_killed_when_its_time_is_over(gate):
    with Supervisor(stop_after=0.1) as sup:
        child = sup.start(dying, gate())
        assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]
        assert child.outcome.status == -signal.SIGKILL


def test_a_close_that_comes_after_the_notice_restarts_nothing_and_is_no_crash_while_closing(gate):
    may_end = gate()
    sup = Supervisor(stop_after=LIMIT)
    sup.start(dying, may_end)
    while sup.mode is Mode.RUNNING:
        sup.step(0.05)
    may_end.open()
    assert kinds(sup.close(LIMIT)) == ["crashed", "stopping", "closing", "closed"]


def test_a_notice_while_closing_is_a_crash_while_closing(gate):
    ready = gate()

    def dies_when_asked(me, shared):
        signal.signal(signal.SIGTERM, lambda *_: end_main_thread())
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        threading.Thread(target=threading.Event().wait).start()
        waiting(me, shared, ready)

    sup = Supervisor(stop_after=0.1)
    child = sup.start(dies_when_asked)
    ready.wait()
    with pytest.raises(CrashWhileClosing) as caught:
        sup.close(LIMIT)
    assert kinds(caught.value.events) == ["started", "closing", "crashed", "stopping", "closed"]
    assert child.outcome.status == -signal.SIGKILL


# False hints.


def test_a_process_that_an_armed_child_forked_rings_and_nothing_is_made_of_it(gate, until):
    may_end = gate()

    def target(me, shared):
        with me.engage():
            if os.fork() == 0:
                os._exit(0)
            os.wait()
            may_end.wait()

    with Supervisor() as sup:
        child = sup.start(target)
        assert has_rung(sup, LIMIT)
        assert kinds(sup.step(0)) == ["started"]
        assert sup.step(0.05) == []
        assert (sup.mode, has_rung(sup), child.outcome) == (Mode.RUNNING, False, None)
        may_end.open()
        assert kinds(sup.run(LIMIT)) == ["exited"]


def test_programs_and_threads_of_an_armed_child_do_not_ring():
    def target(me, shared):
        with me.engage():
            subprocess.run(["true"], check=True)
            thread = threading.Thread(target=list)
            thread.start()
            thread.join()

    with Supervisor() as sup:
        dead(sup.start(target))
        assert not has_rung(sup)
        assert kinds(sup.run(LIMIT)) == ["started", "exited"]


def test_a_child_that_disarms_between_the_two_looks_is_clean(gate, monkeypatch):
    may_disarm = gate()

    def target(me, shared):
        with me.engage():
            if os.fork() == 0:
                os._exit(0)
            os.wait()
            may_disarm.wait()

    def look(pid):
        may_disarm.open()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return early.is_exiting(pid)

    monkeypatch.setattr(supervisor, "is_exiting", look)
    with Supervisor() as sup:
        child = sup.start(target)
        assert has_rung(sup, LIMIT)
        assert kinds(sup.run(LIMIT)) == ["started", "exited"]
        assert child.outcome.decision is Decision.CLEAN


def test_who_is_exiting_is_told_by_the_kernel(gate, forked, reaped):
    ready = gate()
    pid = forked(ready.wait)
    assert not early.is_exiting(pid)
    ready.open()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert early.is_exiting(pid)
    reaped(pid)
    assert not early.is_exiting(pid)


def test_a_child_of_a_supervisor_in_an_armed_child_does_not_ring_the_outer_bell():
    def target(me, shared):
        with me.engage(), Supervisor() as inner:
            inner.start(lambda me, shared: os._exit(0))  # it disarms nothing: it never was armed
            inner.run(LIMIT)

    with Supervisor() as sup:
        dead(sup.start(target))
        assert not has_rung(sup)
        assert kinds(sup.run(LIMIT)) == ["started", "exited"]


# The word.


def test_nobody_can_scribble_over_the_bell():
    def target(me, shared, sup):
        faulthandler.disable()
        sup._bell._page[0] = 1

    with Supervisor() as sup:
        child = sup.start(target, sup)
        sup.run(LIMIT)
        assert (child.outcome.status, sup.early_warning) == (-signal.SIGSEGV, "on")


def test_a_bell_that_was_scribbled_over_all_the_same_is_given_up_once(caplog, monkeypatch):
    libc = ctypes.CDLL(None)
    with Supervisor() as sup:
        bell, turns = sup._bell, []
        address = ctypes.c_void_p(bell._address)
        libc.mprotect(address, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_WRITE)
        bell._page[0] = 1
        libc.syscall(SYS_FUTEX, address, FUTEX_WAKE, 1)
        turn = sup._turn
        monkeypatch.setattr(sup, "_turn", lambda deadline: (turns.append(deadline), turn(deadline)))
        assert sup.step(0.2) == []
        assert len(turns) < 5
        assert sup.early_warning.startswith("off: ")
        assert rings() == []
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("armed", logging.WARNING)
        sup.start(by_exit, 0)
        assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]


def test_it_goes_on_when_the_thread_that_made_the_supervisor_ends(gate):
    ready, may_end, made = gate(), gate(), []
    thread = threading.Thread(target=lambda: made.append(Supervisor(stop_after=LIMIT)))
    thread.start()
    thread.join(LIMIT)
    with made[0] as sup:
        assert has_rung(sup, LIMIT)  # the wait was cancelled: that is no ring
        assert sup.step(0) == []
        assert (sup.early_warning, has_rung(sup)) == ("on", False)
        sibling = sup.start(waiting, ready)
        ready.wait()
        sup.start(dying, may_end)
        sup.step(0)
        while sibling.outcome is None:
            sup.step(0.05)
        may_end.open()
        sup.run(LIMIT)


def test_a_child_that_another_thread_starts_rings():
    with Supervisor() as sup:
        started = []
        thread = threading.Thread(target=lambda: started.append(sup.start(by_exit, 0)))
        thread.start()
        thread.join(LIMIT)
        dead(started[0])
        assert has_rung(sup)
        sup.run(LIMIT)


# Where there is none.


def without(name):
    def break_it(monkeypatch):
        machine = os.uname().machine
        monkeypatch.setattr(early, "_NUMBERS", {machine: early._NUMBERS[machine] | {name: -1}})

    return break_it


MISSING = {
    "io_uring_setup": without("io_uring_setup"),
    "io_uring_enter": without("io_uring_enter"),
    "robust list": without("get_robust_list"),
    "Linux 6.7": lambda monkeypatch: monkeypatch.setattr(early, "_FUTEX_WAIT", 255),
    "x86-64 or aarch64": lambda monkeypatch: monkeypatch.setattr(early, "_NUMBERS", {}),
    "and ctypes": lambda monkeypatch: monkeypatch.delitem(sys.modules, "ctypes"),
    "another namespace": lambda monkeypatch: monkeypatch.setattr(os, "readlink", lambda path: "1"),
}


@pytest.mark.parametrize("why", MISSING)
def test_where_it_cannot_be_it_is_off_and_says_why(why, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "armed")
    descriptors = set(os.listdir("/proc/self/fd"))
    MISSING[why](monkeypatch)
    with Supervisor() as sup:
        assert sup.early_warning.startswith("off: ")
        assert why in sup.early_warning
        assert [(record.name, record.levelno) for record in caplog.records] == [("armed", logging.INFO)]
        assert why in caplog.text
        sup.start(by_exit, 0)
        assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]
    with pytest.raises(Unsupported, match=why):
        Supervisor(early_warning="on")
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_it_may_be_wanted_or_not():
    for wanted, answer in (("auto", "on"), ("on", "on"), ("off", "off: it was not wanted")):
        with Supervisor(early_warning=wanted) as sup:
            assert sup.early_warning == answer
    for wrong in ("maybe", None, True):
        with pytest.raises(ValueError, match=r"early_warning is .* auto, on, off"):
            Supervisor(early_warning=wrong)


@pytest.mark.parametrize("is_lost", [False, True])
def test_each_thread_that_starts_children_finds_out_once_where_its_list_is(is_lost, monkeypatch):
    def start():
        dead(sup.start(by_exit, 0))
        heard.append(has_rung(sup))
        assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]

    heard = []
    with Supervisor() as sup:
        start()
        if is_lost:
            without("get_robust_list")(monkeypatch)
        start()
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
    assert heard == [True, True, not is_lost]


# What is left.


def test_a_closed_supervisor_leaves_neither_descriptors_nor_memory():
    def maps():
        with open("/proc/self/maps") as lines:
            return sum("/dev/zero" in line or line.split()[1] == "rw-s" for line in lines)

    descriptors, before = set(os.listdir("/proc/self/fd")), maps()
    for _ in range(10):
        with Supervisor() as sup:
            sup.start(by_exit, 0)
            sup.run(LIMIT)
            bell = sup._bell
            assert maps() > before
        assert bell.ear._queues.closed
        assert bell._page.closed
        assert (set(os.listdir("/proc/self/fd")), maps()) == (descriptors, before)
    bell.close()


def test_a_child_has_no_descriptor_of_the_bell_and_a_copy_of_the_queues(gate):
    said = gate()

    def target(me, shared, sup):
        sup._bell.ear._words[:] = memoryview(b"\xff" * 2 * mmap.PAGESIZE).cast("I")
        said.open(str(rings()).encode())

    with Supervisor() as sup:
        before = bytes(sup._bell.ear._queues)
        sup.start(target, sup)
        sup.run(LIMIT)
        assert (said.wait(), len(rings())) == (b"[]", 1)
        assert bytes(sup._bell.ear._queues) == before
        dead(sup.start(by_exit, 0))
        assert has_rung(sup)
        assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]


def test_it_is_off_in_a_supervisor_that_failed_to_start_and_nothing_is_left(monkeypatch):
    descriptors = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(supervisor.Watch, "add_file", lambda self, file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Supervisor()
    assert set(os.listdir("/proc/self/fd")) == descriptors


# --- The slice of the thread that waits ------------------------------------------------------------------------------


def slice_of_this_thread():
    """Nanoseconds, as the kernel says; 0 where it knows no slices."""
    number = {"x86_64": 315, "aarch64": 275}[os.uname().machine]
    attributes = (ctypes.c_uint64 * 7)()
    assert ctypes.CDLL(None).syscall(number, 0, attributes, 56, 0) == 0
    return attributes[3]


# Needs Linux 6.12, which nobody can install: before it the kernel says 0. One that is short already fails the tests.
with_slices = pytest.mark.skipif(
    is_available() and slice_of_this_thread() == 0,
    reason="NOT RUN: this kernel gives a thread no slice of its own",
)


@pytest.fixture
def bell():
    bell = early.Bell()
    yield bell
    bell.close()


def waits(bell, ready=(), seconds=1.0):
    """Return the slice inside of a wait."""
    found = []
    assert bell.wait(lambda given: found.append((given, slice_of_this_thread())) or [*ready], seconds) == [*ready]
    ((given, inside),) = found
    assert given == seconds
    return inside


@with_slices
def test_the_slice_is_short_while_the_supervisor_waits_and_not_after(bell):
    usual = slice_of_this_thread()
    assert waits(bell) == 100_000 < usual
    assert slice_of_this_thread() == usual
    assert waits(bell, [bell.ear.number + 1]) == 100_000
    assert slice_of_this_thread() == usual


@with_slices
@pytest.mark.parametrize(
    "next_call", [lambda bell: bell.rope(), lambda bell: bell.close(), waits, lambda bell: waits(bell, seconds=0.0)],
    ids=["start", "close", "wait", "poll"],
)  # fmt: skip
def test_after_a_ring_it_stays_short_until_the_next_call(bell, next_call):
    usual = slice_of_this_thread()
    waits(bell, [bell.ear.number])
    assert slice_of_this_thread() == 100_000
    waits(bell, [bell.ear.number])
    next_call(bell)
    assert slice_of_this_thread() == usual


@with_slices
def test_who_polls_keeps_his_slice(bell):
    usual = slice_of_this_thread()
    assert waits(bell, seconds=0.0) == waits(bell, seconds=-1.0) == usual


@with_slices
def test_an_exception_that_comes_while_it_waits_restores_it(bell):
    usual = slice_of_this_thread()
    with pytest.raises(ZeroDivisionError):
        bell.wait(lambda seconds: 1 // 0, 1.0)
    assert slice_of_this_thread() == usual


@with_slices
def test_a_thread_that_has_chosen_its_policy_keeps_it(bell):
    found = []

    def batch():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        found.extend([slice_of_this_thread(), waits(bell), slice_of_this_thread(), os.sched_getscheduler(0)])

    thread = threading.Thread(target=batch)
    thread.start()
    thread.join()
    usual = found[0]
    assert found == [usual, usual, usual, os.SCHED_BATCH]


@with_slices
def test_who_changes_its_scheduling_while_it_waits_is_not_undone(bell):
    found = {}

    def changes():
        usual = slice_of_this_thread()
        bell.wait(lambda seconds: os.setpriority(os.PRIO_PROCESS, 0, 7) or [], 1.0)  # of this thread alone
        found["nice"] = os.getpriority(os.PRIO_PROCESS, 0), slice_of_this_thread() == usual
        bell.wait(lambda seconds: early._set_slice(500_000) or [], 1.0)
        found["slice"] = slice_of_this_thread()
        bell.wait(lambda seconds: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)) or [], 1.0)
        found["policy"] = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)

    thread = threading.Thread(target=changes)
    thread.start()
    thread.join()
    assert found == {"nice": (7, True), "slice": 500_000, "policy": (os.SCHED_BATCH, 7)}


@with_slices
def test_children_have_the_usual_slice(gate):
    usual, may_end = slice_of_this_thread(), gate()

    def target(me, shared):
        shared[8 * me.generation : 8 * me.generation + 8] = slice_of_this_thread().to_bytes(8, "little")

    page = mmap.mmap(-1, mmap.PAGESIZE)
    with Supervisor(make_shared=lambda: page, stop_after=LIMIT) as sup:
        sup.start(target)
        sup.run(LIMIT)
        sup.start(dying, may_end)
        assert kinds(sup.step(LIMIT))[0] == "started"
        assert kinds(sup.step(LIMIT)) == ["noticed"]
        assert slice_of_this_thread() == 100_000
        may_end.open()
        sup.run(LIMIT)
        assert slice_of_this_thread() == usual
        sup.start(target)
        sup.run(LIMIT)
    assert [int.from_bytes(page[at : at + 8], "little") for at in (8, 16)] == [usual, usual]
