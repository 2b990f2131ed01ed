"""The registry and the cancel request: the right pid and key reach their child, everything else reaches nobody."""

import array
import contextlib
import fcntl
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import armed
from armed import (
    Closed,
    Decision,
    EventKind,
    ForeignProcess,
    Registry,
    Supervisor,
    cancel,
    exits,
    registry,
    slots,
)
from armed.registry import CANCEL_SIGNAL, draw_key
from armed.slots import MAX_SLOTS

LIMIT = 20.0
IMPL = str(Path(armed.__file__).parent.parent)
LAST_PID = "/proc/sys/kernel/ns_last_pid"


class Served:
    """A child with a handler of its own for the cancel signal, which tells of each that it gets."""

    def __init__(self, sup, gate):
        self.ready, self.signalled, self.may_end = gate(), gate(), gate()
        self.child = sup.start(self.target)
        assert self.ready.wait() == b"."
        self.pid, self.key, self.slot = self.child.pid, self.child.cancel_key, self.child.slot

    def target(self, me, shared):
        signal.signal(CANCEL_SIGNAL, lambda *_: self.signalled.open())
        self.ready.open()
        self.may_end.wait()

    def end(self, sup):
        """Let it end and be reaped. True iff it was signalled since the last time that somebody looked."""
        self.may_end.open()
        while self.child.outcome is None:
            assert sup.step(LIMIT), "it did not end in time"
        assert self.child.outcome.decision is Decision.CLEAN
        return self.signalled.is_open()


@pytest.fixture
def sup(nothing_left):
    with Supervisor(slots=3) as sup:
        yield sup


@pytest.fixture
def served(sup, gate):
    return lambda: Served(sup, gate)


@pytest.fixture
def entries(nothing_left):
    """Return the words of a registry, writable, as a child has them: entry s begins at 3 * s."""
    views = []

    def entries(registry):
        views.append(memoryview(mmap.mmap(registry.fileno(), 0)).cast("Q"))
        return views[-1]

    yield entries
    for view in views:
        view.release()


# Who is signalled.


def test_the_right_pid_and_key_reach_their_child_and_no_other(sup, served):
    # C11: an entry of the array is found by its slot
    first, second = served(), served()
    assert sup.cancel(second.pid, second.key) is True
    assert second.signalled.wait() == b"."
    assert not first.end(sup)
    assert not second.end(sup)


def test_a_child_may_be_cancelled_again(sup, served):
    child = served()
    for _ in range(3):
        assert sup.cancel(child.pid, child.key)
        assert child.signalled.wait() == b"."
    assert not child.end(sup)


def test_a_wrong_key_signals_nobody(sup, served):
    child, other = served(), served()
    one_bit = bytes([*child.key[:-1], child.key[-1] ^ 1])
    far_slot = (2**32 - 1).to_bytes(4, "little") + child.key[4:]
    no_slot = bytes(4) + child.key[4:]
    for wrong in (b"", bytes(20), one_bit, child.key[:-1], child.key + b"\0", far_slot, no_slot, other.key):
        assert sup.cancel(child.pid, wrong) is False
    assert not child.end(sup)
    assert not other.end(sup)


def test_a_wrong_pid_signals_nobody(sup, served):
    child, other = served(), served()
    numbers = (
        0,
        1,
        -1,
        -child.pid,
        -os.getpgrp(),
        os.getpid(),
        other.pid,
        2**31,
        2**64,
        -(2**64),
        2**64 + child.pid,
        True,
    )
    for wrong in numbers:
        assert sup.cancel(wrong, child.key) is False
    assert not child.end(sup)
    assert not other.end(sup)


@pytest.mark.parametrize(
    ("pid", "key"), [("1", b"x" * 20), (None, b"x" * 20), (2.0, b"x" * 20), (5, "x" * 20), (5, None)]
)
def test_what_is_no_pid_or_no_key_is_a_type_error(sup, pid, key):
    with pytest.raises(TypeError):
        sup.cancel(pid, key)


def test_the_key_of_an_earlier_child_in_the_slot_signals_nobody(sup, served):
    earlier = served()
    earlier.end(sup)
    later = served()
    assert later.slot == earlier.slot
    for pid, key in ((earlier.pid, earlier.key), (later.pid, earlier.key), (earlier.pid, later.key)):
        assert sup.cancel(pid, key) is False
    assert not later.end(sup)


def test_each_child_has_a_key_of_its_own_which_is_not_printed(sup):
    children = [sup.start(lambda me, shared: None) for _ in range(3)]
    assert len({child.cancel_key for child in children}) == 3
    assert [len(child.cancel_key) for child in children] == [20] * 3
    assert all("key" not in repr(child) for child in children)
    sup.run(LIMIT)


# Scribbled entries.


@pytest.mark.parametrize("stray", [0, 1, 2**64 - 1, 2**32 - 1, "its own", "the supervisor's"])
def test_no_pid_that_a_child_scribbles_into_an_entry_is_signalled(sup, gate, served, stray):
    """0 would be the group, -1 everybody; its own pid, another's entry taken over."""
    victim, done = served(), gate()
    pid = {"its own": 0, "the supervisor's": os.getpid()}.get(stray, stray)

    def scribbler(me, shared):
        signal.signal(CANCEL_SIGNAL, lambda *_: os._exit(1))
        sup.registry._words[3 * victim.slot] = os.getpid() if stray == "its own" else pid
        done.open()
        while True:
            signal.pause()

    culprit = sup.start(scribbler)
    done.wait()
    for asked in {victim.pid, pid, culprit.pid, os.getpid(), 0, 1, -1}:
        assert sup.cancel(asked, victim.key) is False
    assert sup.cancel(culprit.pid, culprit.cancel_key) is True  # the scribbled entry does not hide another one
    while culprit.outcome is None:
        sup.step(LIMIT)
    assert culprit.outcome.status == 1
    assert not victim.end(sup)


def test_an_entry_scribbled_with_the_pid_of_another_process_signals_neither(sup, served, entries, forked, reaped, gate):
    signalled, ready, may_end = gate(), gate(), gate()

    def body():
        signal.signal(CANCEL_SIGNAL, lambda *_: signalled.open())
        ready.open()
        may_end.wait()

    innocent = forked(body)
    ready.wait()
    child, other = served(), served()
    words = entries(sup.registry)
    for pid in (innocent, other.pid):
        words[3 * child.slot] = pid
        for key in (child.key, other.key[:4] + child.key[4:], child.key[:4] + other.key[4:]):
            assert sup.cancel(pid, key) is False
        assert sup.cancel(child.pid, child.key) is False
    assert sup.cancel(other.pid, other.key) is True
    assert other.signalled.wait() == b"."
    may_end.open()
    assert reaped(innocent) == 42
    assert not signalled.is_open()
    assert not child.end(sup)
    assert not other.end(sup)


@pytest.mark.parametrize("word", [0, 1, 2])
@pytest.mark.parametrize("stray", [0, 1, 2**64 - 1])
def test_an_entry_of_which_any_word_is_foreign_matches_nothing(sup, served, entries, word, stray):
    child = served()
    entries(sup.registry)[3 * child.slot + word] = stray
    assert sup.cancel(child.pid, child.key) is False
    assert not child.end(sup)


def test_an_entry_half_of_one_child_and_half_of_another_matches_neither(entries, nothing_left):
    """What a reader may see while the supervisor stores. Even with the same pid: it may be given out again."""
    table = Registry(1)
    words, pid, keys = entries(table), os.getpid(), [draw_key(1) for _ in range(2)]
    states = []
    for key in keys:
        table.enter(1, pid, key)
        states.append(list(words[3:6]))
        assert table.holds(pid, key)
    for mixture in range(1, 7):
        words[3:6] = array.array("Q", [states[mixture >> at & 1][at] for at in range(3)])
        if states[0][0] == states[1][0] and mixture in (1, 6):  # only the pids are exchanged, and they are the same
            assert [table.holds(pid, key) for key in keys] == [mixture == 1, mixture == 6]
        else:
            assert not any(table.holds(pid, key) for key in keys), mixture
    table.close()


@pytest.mark.parametrize("pid", [0, 1])
def test_no_entry_makes_a_pid_below_two_be_signalled(monkeypatch, pid):
    """Not even a complete one, by a mistake of ours. Here no handle on init may be opened if it fails."""
    table, key, asked = Registry(1), draw_key(1), []
    monkeypatch.setattr(registry.os, "pidfd_open", asked.append)
    table.enter(1, pid, key)
    assert table.holds(pid, key)
    assert cancel(table, pid, key) is False
    assert asked == []
    table.close()


def test_a_request_that_matches_no_entry_opens_no_handle(sup, served, monkeypatch):
    child, asked = served(), []
    with monkeypatch.context() as patch:
        patch.setattr(registry.os, "pidfd_open", asked.append)
        assert sup.cancel(child.pid, draw_key(child.slot)) is False
    assert asked == []
    child.end(sup)


def test_slot_zero_is_no_slot_and_its_entry_matches_nothing():
    table, key = Registry(1), draw_key(0)
    table.enter(0, os.getpid(), key)
    assert not table.holds(os.getpid(), key)
    table.close()


def test_who_reads_the_entries_learns_no_key(sup, served, entries):
    child = served()
    assert child.key[4:12] not in bytes(entries(sup.registry))
    assert child.key[12:] not in bytes(entries(sup.registry))
    child.end(sup)


def test_the_words_are_stored_in_the_order_that_makes_and_unmakes_an_entry_at_once():
    table, stores = Registry(1), []

    class Words:
        def __setitem__(self, at, value):
            stores.append((at, bool(value)))

        def release(self):
            pass

    real, table._words = table._words, Words()
    table.enter(1, 2, draw_key(1))
    assert stores == [(4, True), (5, True), (3, True)]
    stores.clear()
    table.clear(1)
    assert stores == [(3, False), (4, False), (5, False)]
    table._words = real
    table.close()


# The gap between the match and the signal.


MOMENTS = ["before the handle", "before the second look", "before the signal"]


def stopped_canceller(forked, table, pid, key, moment):
    """Fork a process that cancels, and stops at this moment. When it goes on, its status is 10 + the answer."""

    def stopping(function, first):
        def stopping_function(*args):
            if first:
                os.kill(os.getpid(), signal.SIGSTOP)
            answer = function(*args)
            if not first:
                os.kill(os.getpid(), signal.SIGSTOP)
            return answer

        return stopping_function

    def body():
        if moment == "before the signal":
            Registry.is_kept = stopping(Registry.is_kept, first=False)
        else:
            os.pidfd_open = stopping(os.pidfd_open, first=moment == "before the handle")
        os._exit(10 + cancel(table, pid, key))

    canceller = forked(body)
    assert os.waitid(os.P_PID, canceller, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code == os.CLD_STOPPED
    return canceller


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_canceller_that_is_held_up_signals_if_the_child_is_still_there(sup, served, forked, reaped, moment):
    child = served()
    canceller = stopped_canceller(forked, sup.registry, child.pid, child.key, moment)
    os.kill(canceller, signal.SIGCONT)
    assert reaped(canceller) == 11
    assert child.signalled.wait() == b"."
    child.end(sup)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_canceller_held_up_while_the_slot_gets_another_child_signals_nobody(sup, served, forked, reaped, moment):
    earlier = served()
    canceller = stopped_canceller(forked, sup.registry, earlier.pid, earlier.key, moment)
    earlier.end(sup)
    later = served()
    assert later.slot == earlier.slot
    os.kill(canceller, signal.SIGCONT)
    assert reaped(canceller) == 10
    assert not later.end(sup)


def give_out_next(pid):
    """Have the kernel give this pid to the next process, if nobody is faster."""
    try:
        with open(LAST_PID, "w") as last:
            last.write(str(pid - 1))
    except OSError as error:
        # It takes CAP_CHECKPOINT_RESTORE, which root has, and CI is root; the other tests here need no pid of choice.
        pytest.skip(f"NOT RUN: which pid comes next cannot be said: {LAST_PID}: {error}")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_canceller_held_up_while_the_pid_gets_another_child_signals_nobody(sup, served, forked, reaped, moment):
    for _ in range(50):
        earlier = served()
        canceller = stopped_canceller(forked, sup.registry, earlier.pid, earlier.key, moment)
        earlier.end(sup)
        give_out_next(earlier.pid)
        later = served()
        os.kill(canceller, signal.SIGCONT)
        answer = reaped(canceller)
        was_signalled = later.end(sup)
        assert (answer, was_signalled) == (10, False)
        if later.pid == earlier.pid:
            assert later.slot == earlier.slot
            return
    pytest.fail("somebody else was faster in 50 tries: the pid never was another child's")


def test_the_entry_is_cleared_while_the_pid_still_is_the_childs(sup, monkeypatch):
    seen = []
    reap = exits.reap

    def watched(pidfd):
        seen.append((sup.registry.holds(child.pid, child.cancel_key), exits.observe(pidfd)))
        reap(pidfd)

    monkeypatch.setattr(exits, "reap", watched)
    child = sup.start(lambda me, shared: None)
    assert sup.registry.holds(child.pid, child.cancel_key)
    sup.run(LIMIT)
    assert seen == [(False, 0)]


def test_a_start_that_is_undone_clears_the_entry_before_it_reaps(sup, monkeypatch):
    seen, keys = [], []
    end, draw = exits.end, draw_key

    def watched(pid):
        seen.append(sup.registry.holds(pid, keys[-1]))
        return end(pid)

    def kept(slot):
        keys.append(draw(slot))
        return keys[-1]

    def failing(kind, child):
        seen.append(sup.registry.holds(child.pid, child.cancel_key))
        raise OSError("after the entry was set")

    with monkeypatch.context() as patch:
        patch.setattr(armed.supervisor, "draw_key", kept)
        patch.setattr(exits, "end", watched)
        patch.setattr(sup, "_note", failing)
        with pytest.raises(OSError, match="after the entry"):
            sup.start(lambda me, shared: signal.pause())
    assert seen == [True, False]


# Who cancels, and when.


ATTACHED = """
import sys
from armed import Registry, cancel
table = Registry.attach(int(sys.argv[1]))
try:
    table.enter(1, 2, bytes(20))
except TypeError:
    print("read only")
print(cancel(table, int(sys.argv[2]), bytes.fromhex(sys.argv[3])), cancel(table, int(sys.argv[2]), bytes(20)))
table.close()
"""


def test_a_process_that_has_the_descriptor_cancels(sup, served):
    child, bystander = served(), served()
    descriptor = sup.registry.fileno()
    ran = subprocess.run(
        [sys.executable, "-c", ATTACHED, str(descriptor), str(child.pid), child.key.hex()],
        env={"PYTHONPATH": IMPL}, pass_fds=[descriptor], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ran.stdout.split("\n"), ran.stderr) == (["read only", "True False", ""], "")
    assert child.signalled.wait() == b"."
    assert not bystander.end(sup)
    assert not child.end(sup)


def test_a_child_cancels_another_with_the_registry_but_not_by_the_supervisor(sup, served, gate):
    child, said = served(), gate()

    def canceller(me, shared, table):
        try:
            sup.cancel(child.pid, child.key)
        except ForeignProcess:
            said.open(repr(cancel(table, child.pid, child.key)).encode())

    sup.start(canceller, sup.registry)
    assert said.wait() == b"True"
    assert child.signalled.wait() == b"."
    assert not child.end(sup)


def test_another_thread_cancels_while_one_is_in_run(sup, served):
    child, answers = served(), []

    def asking():
        answers.append(sup.cancel(child.pid, child.key))
        child.signalled.wait()
        child.may_end.open()

    thread = threading.Thread(target=asking)
    thread.start()
    sup.run(LIMIT)
    thread.join(LIMIT)
    assert answers == [True]
    assert child.child.outcome.decision is Decision.CLEAN


def test_a_child_without_a_handler_ends_in_the_orderly_way(sup, gate):
    ready, given = gate(), gate()

    def target(me, shared):
        with me.engage() as hold:
            hold.take(ready.open, given.open)
            while True:
                signal.pause()

    signal.pthread_sigmask(signal.SIG_BLOCK, [CANCEL_SIGNAL])
    try:
        child = sup.start(target)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [CANCEL_SIGNAL])
    ready.wait()
    assert sup.cancel(child.pid, child.cancel_key)
    assert [event.kind for event in sup.run(LIMIT)] == [EventKind.STARTED, EventKind.EXITED]
    assert (child.outcome.status, child.outcome.decision, given.wait()) == (1, Decision.CLEAN, b".")


def test_a_child_that_is_dead_and_not_reaped_is_no_error(sup):
    child = sup.start(lambda me, shared: None)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert sup.cancel(child.pid, child.cancel_key) is True  # sent, and lost
    sup.run(LIMIT)
    assert sup.cancel(child.pid, child.cancel_key) is False


def test_a_new_generation_has_a_registry_of_its_own(sup, served, until):
    child = served()
    last = sup.registry
    with contextlib.closing(Registry.attach(last.fileno())) as attached:
        crashing = sup.start(lambda me, shared: os._exit(2))
        until(sup, EventKind.RUNNING)
        assert child.child.outcome.lost
        assert sup.registry is not last
        assert not attached.is_kept()
        for table in (attached, last, sup.registry):
            assert not table.holds(child.pid, child.key)
            assert cancel(table, child.pid, child.key) is False
            assert cancel(table, crashing.pid, crashing.cancel_key) is False
        with pytest.raises(Closed, match="generation is over"):
            last.fileno()
        later = served()
        assert sup.cancel(later.pid, later.key) is True
        assert later.signalled.wait() == b"."
        assert not later.end(sup)


def test_when_the_supervisor_is_closed_nobody_is_signalled(gate):
    with Supervisor(slots=1) as sup:
        child = Served(sup, gate)
        attached = Registry.attach(sup.registry.fileno())
        child.end(sup)
    assert sup.cancel(child.pid, child.key) is False
    assert cancel(attached, child.pid, child.key) is False
    attached.close()
    attached.close()


def test_when_the_supervisor_is_dead_nobody_is_signalled(gate, forked, reaped):
    """Nobody clears the entries then, so that a pid in them may be anybody's: here an innocent process has it."""
    ready, signalled, may_end, told, may_die = gate(), gate(), gate(), gate(), gate()

    def body():
        signal.signal(CANCEL_SIGNAL, lambda *_: signalled.open())
        ready.open()
        may_end.wait()

    innocent = forked(body)
    ready.wait()
    key = draw_key(1)

    def owner():
        table = Registry(1)
        table.enter(1, innocent, key)
        told.open(str(table.fileno()).encode())
        may_die.wait()

    keeper = forked(owner)
    handed = os.open(f"/proc/{keeper}/fd/{int(told.wait())}", os.O_RDONLY)
    attached = Registry.attach(handed)
    os.close(handed)
    assert cancel(attached, innocent, key) is True
    assert signalled.wait() == b"."
    may_die.open()
    os.waitid(os.P_PID, keeper, os.WEXITED | os.WNOWAIT)
    assert cancel(attached, innocent, key) is False  # dead, not reaped
    assert reaped(keeper) == 42
    assert cancel(attached, innocent, key) is False
    may_end.open()
    assert reaped(innocent) == 42
    assert not signalled.is_open()
    attached.close()


def test_another_process_with_the_supervisors_pid_is_not_the_supervisor(entries):
    table = Registry(1)
    assert table.is_kept()
    entries(table)[1] += 1  # it was started at another time
    assert not table.is_kept()
    entries(table)[1] -= 1
    for nobody in (0, 1, 2**64 - 1, 2**22 + 1):
        entries(table)[0] = nobody
        assert not table.is_kept()
    table.close()


# The memory.


def test_the_memory_is_sealed_and_has_no_name(sup):
    descriptor = sup.registry.fileno()
    assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    assert not os.get_inheritable(descriptor)


def test_what_is_no_registry_is_not_attached(gate):
    pipe = gate()
    with pytest.raises(ValueError, match="no registry"):
        Registry.attach(pipe.read_end)
    unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, 48)
    with pytest.raises(ValueError, match="no registry"):
        Registry.attach(unsealed)
    os.close(unsealed)
    with slots.sealed_file("other", 7) as other, pytest.raises(ValueError, match="no registry"):
        Registry.attach(other.fileno())
    with pytest.raises(OSError, match="descriptor"):
        Registry.attach(-1)


def test_the_largest_registry_touches_no_page_that_it_does_not_use():
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1])

    before = resident()
    table = Registry(MAX_SLOTS)
    table.enter(MAX_SLOTS, 2, draw_key(MAX_SLOTS))
    assert resident() - before < 100  # pages, of 6,144
    table.close()


@pytest.mark.parametrize("size", [0, -1, MAX_SLOTS + 1])
def test_too_few_or_too_many_entries_are_refused(size):
    with pytest.raises(ValueError, match="1 to 1048576"):
        Registry(size)


def test_a_system_that_has_no_descriptor_left_says_so_and_nobody_is_signalled(sup, served, monkeypatch):
    child = served()

    def none_left(pid):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(registry.os, "pidfd_open", none_left)
        with pytest.raises(OSError, match="Too many"):
            sup.cancel(child.pid, child.key)
    assert not child.end(sup)


def test_a_cancel_leaves_no_descriptor_behind(sup, served):
    child = served()
    before = os.listdir("/proc/self/fd")
    assert sup.cancel(child.pid, child.key)
    assert not sup.cancel(child.pid, bytes(20))
    assert os.listdir("/proc/self/fd") == before
    assert select.select([child.signalled.read_end], [], [], LIMIT)[0]
    child.end(sup)
