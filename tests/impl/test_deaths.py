"""Every way to end, at every place: what is decided about it. Claims C1, C2 and C13."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest

from armed import Decision, EventKind, SlotState, Supervisor, Unsupported
from armed.slots import active_word

LIMIT = 20.0


def raise_error():
    raise KeyError("wanted")


def die_of(number):
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


# name: (what the child does, its status, whether the exit path is passed)
ENDINGS = {
    "return": (lambda: None, 0, True),
    "raise": (raise_error, 1, True),
    "sys.exit()": (sys.exit, 0, True),
    "sys.exit(0)": (lambda: sys.exit(0), 0, True),
    "sys.exit(1)": (lambda: sys.exit(1), 1, True),
    "sys.exit(2)": (lambda: sys.exit(2), 2, True),
    "sys.exit(-1)": (lambda: sys.exit(-1), 255, True),
    "sys.exit(256)": (lambda: sys.exit(256), 0, True),
    "sys.exit(2**40)": (lambda: sys.exit(2**40), 0, True),
    "sys.exit('text')": (lambda: sys.exit("text"), 1, True),
    "SIGTERM": (lambda: os.kill(os.getpid(), signal.SIGTERM), 1, True),
    "SIGINT": (lambda: os.kill(os.getpid(), signal.SIGINT), 1, True),
    "_exit(0)": (lambda: os._exit(0), 0, False),
    "_exit(1)": (lambda: os._exit(1), 1, False),
    "_exit(2)": (lambda: os._exit(2), 2, False),
    "SIGQUIT": (lambda: os.kill(os.getpid(), signal.SIGQUIT), -3, False),
    "SIGKILL": (lambda: os.kill(os.getpid(), signal.SIGKILL), -9, False),
    "SIGSEGV": (lambda: die_of(signal.SIGSEGV), -11, False),
}
PLACES = ["idle", "engaged", "holding", "disarmed"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_death_is_clean_iff_its_status_is_0_or_1_and_it_was_not_armed(ending, place, capfd):
    end, status, orderly = ENDINGS[ending]

    def target(me, shared):
        if place == "disarmed":
            with me.engage() as hold:
                hold.take(list, list)
        if place in ("idle", "disarmed"):
            end()
            return
        with me.engage() as hold:
            if place == "holding":
                hold.take(list, list)
            end()

    armed = place in ("engaged", "holding") and not orderly
    clean = status in (0, 1) and not armed
    with Supervisor(slots=2) as sup:
        child = sup.start(target)
        token = sup.slots.token(child.slot)
        events = [event.kind for event in sup.run(LIMIT)]
    assert child.outcome.status == status
    assert child.outcome.slot_word == (active_word(token) if armed else token)
    assert child.outcome.decision is (Decision.CLEAN if clean else Decision.CRASH)
    assert child.outcome.lost is not clean
    if clean:
        assert events == [EventKind.STARTED, EventKind.EXITED]
    else:
        assert events == [
            EventKind.STARTED, EventKind.CRASHED, EventKind.STOPPING, EventKind.RESET, EventKind.RUNNING,
        ]  # fmt: skip
    said = capfd.readouterr().err
    assert ("KeyError" in said) == (ending == "raise")
    assert ("text" in said) == (ending == "sys.exit('text')")
    assert ("Traceback" in said) == (ending == "raise")


@pytest.mark.parametrize(("ending", "status"), [("sys.exit(0)", 0), ("sys.exit(2)", 2), ("raise", 1), ("_exit(1)", 1)])
def test_a_child_that_ends_before_its_exit_path_stands_never_enters_the_target(ending, status, gate):
    entered = gate()
    with Supervisor() as sup:
        child = sup._start(lambda me, shared: entered.open(), (), ENDINGS[ending][0])
        token = sup.slots.token(child.slot)
        sup.run(LIMIT)
        assert (child.outcome.status, child.outcome.slot_word) == (status, token)
    assert not entered.is_open()


def test_release_of_an_active_slot_starts_recovery(until):
    def target(me, shared):
        with me.engage():
            os._exit(0)

    with Supervisor() as sup:
        child = sup.start(target)
        until(sup, EventKind.RUNNING)
        assert (sup.generation, child.generation, child.outcome.status) == (2, 1, 0)
        assert sup.slots.state(child.slot) is SlotState.UNUSED


@pytest.mark.parametrize("stray", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("raw", [False, True])
def test_a_foreign_word_found_at_death_is_a_crash(stray, raw):
    def target(me, shared):
        me._word[0] = stray
        if raw:
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os._exit(1)

    with Supervisor() as sup:
        child = sup.start(target)
        sup.run(LIMIT)
        assert (child.outcome.slot_word, child.outcome.decision) == (stray, Decision.CRASH)
        assert sup.generation == 2


def test_the_clean_value_of_an_earlier_assignment_is_found_out():
    def target(me, shared, word):
        if word:
            me._word[0] = word
            os._exit(0)

    with Supervisor() as sup:
        first = sup.start(target, None)
        sup.run(LIMIT)
        second = sup.start(target, first.outcome.slot_word)
        sup.run(LIMIT)
        assert first.slot == second.slot
        assert second.outcome.decision is Decision.CRASH


def test_a_child_that_the_program_reaped_itself_is_never_clean():
    with Supervisor() as sup:
        child = sup.start(lambda me, shared: None)
        os.waitid(os.P_PID, child.pid, os.WEXITED)
        with pytest.warns(RuntimeWarning, match=f"child {child.pid} .* exit status was taken away.*by their pid"):
            sup.run(LIMIT)
        assert (child.outcome.decision, child.outcome.status) == (Decision.CRASH, -127)


def test_what_is_printed_comes_out_once():
    program = """
import armed
print("parent", end=".")  # into a pipe, so it waits in a buffer
with armed.Supervisor() as sup:
    for name in ("first", "second"):
        sup.start(lambda me, shared, name: print(name, end="."), name)
        sup.run(20)
"""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, env=buffered, capture_output=True, text=True, timeout=LIMIT, check=True)
    assert out.stdout == "parent.first.second."


def test_the_exit_handlers_of_the_supervisor_do_not_run_in_children(gate):
    import atexit
    import multiprocessing.util

    ran = gate()
    atexit.register(ran.open)
    finalizer = multiprocessing.util.Finalize(None, ran.open, exitpriority=1)
    try:
        with Supervisor() as sup:
            sup.start(lambda me, shared: None)
            sup.start(lambda me, shared: sys.exit(1))
            sup.run(LIMIT)
        assert not ran.is_open()
    finally:
        atexit.unregister(ran.open)
        finalizer.cancel()


def test_what_a_child_put_in_a_multiprocessing_queue_arrives():
    import multiprocessing

    queue = multiprocessing.get_context("fork").Queue()
    queue.put("of the supervisor")
    assert queue.get(timeout=LIMIT) == "of the supervisor"
    with Supervisor(make_shared=lambda: queue) as sup:
        sup.start(lambda me, shared: shared.put("x" * 1_000_000))
        assert len(queue.get(timeout=LIMIT)) == 1_000_000
        sup.run(LIMIT)
    queue.close()
    queue.join_thread()


def test_the_end_of_a_child_leaves_the_programs_own_processes_alone(gate, reaped):
    import multiprocessing

    may_end = gate()
    process = multiprocessing.get_context("fork").Process(target=may_end.wait, daemon=True)
    process.start()
    with Supervisor() as sup:
        child = sup.start(lambda me, shared: None)
        sup.run(LIMIT)
        assert child.outcome.status == 0
    may_end.open()
    process.join(LIMIT)
    assert process.exitcode == 0
    process.close()


def test_signals_mean_in_a_child_what_they_mean_in_a_new_process(in_child):
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN), signal.signal(signal.SIGCHLD, lambda *_: None)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    try:

        def body(me, say):
            say(signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL)
            say(signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL)
            say(signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == me.on_stop_signal)
            say(not signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            say(signal.set_wakeup_fd(-1) == -1)

        assert in_child(body)[1] == ["True"] * 5
    finally:
        signal.set_wakeup_fd(-1)
        reader.close()
        writer.close()
        signal.signal(signal.SIGQUIT, before[0])
        signal.signal(signal.SIGCHLD, before[1])


def test_the_parents_signal_mask_is_restored_and_inherited(in_child):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
    try:
        _, said = in_child(
            lambda me, say: say(",".join(sorted(s.name for s in signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
        )
        assert said == ["SIGUSR2"]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGUSR2, signal.SIGTERM}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2, signal.SIGTERM])


def test_a_child_has_none_of_its_siblings_descriptors_and_all_of_the_programs(gate):
    may_end, said, between = gate(), gate(), []

    def look(me, shared):
        links = []
        for each in between:
            os.fstat(each.read_end), os.fstat(each.write_end)  # raises where it was closed
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the one that listed
                links.append(os.readlink(f"/proc/self/fd/{fd}"))
        said.open(repr([link for link in links if "pidfd" in link or "eventpoll" in link]).encode())

    with Supervisor() as sup:
        for _ in range(3):
            sup.start(lambda me, shared: may_end.wait())
            between.append(gate())
        sup.start(look)
        assert said.wait() == b"[]"
        sup.close()


def test_where_warnings_are_errors_a_stolen_exit_status_is_one_and_nothing_else_is_harmed():
    with Supervisor() as sup:
        child, other = sup.start(lambda me, shared: None), sup.start(lambda me, shared: None)
        os.waitid(os.P_PID, child.pid, os.WEXITED)
        with pytest.raises(RuntimeWarning, match="taken away"):
            sup.run(LIMIT)
        events = sup.run(LIMIT)
        assert [event.kind for event in events if event.child is child] == [EventKind.STARTED, EventKind.CRASHED]
        assert other.outcome is not None
        assert sup.generation == 2


def test_no_supervisor_and_no_child_while_sigchld_is_ignored():
    with Supervisor() as sup:
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            for use in (Supervisor, lambda: sup.start(print)):
                with pytest.raises(Unsupported, match="SIG_DFL"):
                    use()
        finally:
            signal.signal(signal.SIGCHLD, before)
        child = sup.start(lambda me, shared: None)
        sup.run(LIMIT)
        assert (sup.generation, child.outcome.decision) == (1, Decision.CLEAN)
