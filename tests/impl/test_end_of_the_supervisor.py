"""Children end when the supervisor does, however it ends. The end of file of a canary pipe means that all are gone."""

import contextlib
import hashlib
import multiprocessing
import os
import select
import signal
import subprocess
import threading

import pytest

from armed import EventKind, Mode, Supervisor

LIMIT = 20.0


def at_rest(me, shared, ready):
    ready.open()
    while True:
        signal.pause()


def deaf(me, shared, ready):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGIO):
        signal.signal(number, signal.SIG_IGN)
    at_rest(me, shared, ready)


def busy_in_c(me, shared, ready):
    ready.open()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # an hour, and no bytecode in between


def armed_in_c(me, shared, ready):
    with me.engage():
        busy_in_c(me, shared, ready)


@pytest.mark.parametrize("target", [at_rest, deaf, busy_in_c, armed_in_c])
@pytest.mark.parametrize("end", ["SIGKILL", "_exit", "thread"])
def test_children_end_when_the_supervisor_dies(target, end, gate, reaped):
    ready, canary, go = gate(), gate(), gate()
    pid = os.fork()
    if pid == 0:
        try:
            sup = Supervisor()

            def start():
                for _ in range(3):
                    sup.start(target, ready)

            if end == "thread":  # the thread that forks ends long before the process
                thread = threading.Thread(target=start)
                thread.start()
                thread.join(LIMIT)
            else:
                start()
            go.wait()
        finally:
            os._exit(0)
    canary.close_write_end()
    seen = 0
    while seen < 3:
        seen += len(ready.wait())
    assert not canary.is_open()
    os.kill(pid, signal.SIGKILL) if end == "SIGKILL" else go.open()
    assert reaped(pid) == (-signal.SIGKILL if end == "SIGKILL" else 0)
    assert canary.wait() == b""


def test_a_child_ends_whose_supervisor_died_before_it_held_the_lifeline(gate, forked, reaped):
    canary = gate()

    def body():
        supervisor = os.pidfd_open(os.getpid())
        os.register_at_fork(after_in_child=lambda: select.select([supervisor], [], [], LIMIT))
        sup = Supervisor()
        sup.start(lambda me, shared: signal.pause())
        os.kill(os.getpid(), signal.SIGKILL)

    pid = forked(body)
    canary.close_write_end()
    assert reaped(pid) == -signal.SIGKILL
    assert canary.wait() == b""


def test_a_process_that_the_program_forks_for_itself_does_not_keep_children_alive(gate, reaped):
    ready, canary, pids, may_end = gate(), gate(), gate(), gate()
    pid = os.fork()
    if pid == 0:
        try:
            sup = Supervisor()
            sup.start(at_rest, ready)
            other = os.fork()
            if other == 0:
                os.close(canary.write_end)
                may_end.close_write_end()
                may_end.wait()  # outlives the supervisor
                os._exit(0)
            # Exec closes what fork copies; and it outlives the supervisor, too, until the test has ended.
            subprocess.Popen(["cat"], close_fds=False, stdin=may_end.read_end)
            pids.open()
            may_end.wait(3600)
        finally:
            os._exit(0)
    canary.close_write_end()
    ready.wait()
    pids.wait()
    os.kill(pid, signal.SIGKILL)
    reaped(pid)
    assert canary.wait() == b""


def test_ctrl_c_leaves_no_child(gate, forked, reaped):
    ready, canary = gate(), gate()

    def body():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt), Supervisor() as sup:
            for target in (at_rest, at_rest, armed_and_giving):
                sup.start(target, ready)
            sup.run(LIMIT)
            raise AssertionError("not interrupted")

    pid = forked(body)
    canary.close_write_end()
    seen = 0
    while seen < 3:
        seen += len(ready.wait())
    os.kill(pid, signal.SIGINT)
    assert reaped(pid) == 42
    assert canary.wait() == b""


def test_ctrl_c_at_a_terminal_is_an_orderly_end_of_everyone(gate, forked, reaped):
    """It comes to the whole process group: here to one who holds a lock, to some in the middle of taking it."""
    held, ready, outcomes = gate(), gate(), gate()

    def holding(me, lock):
        with me.engage() as hold:
            hold.enter(lock)
            at_rest(me, lock, held)

    def taking(me, lock):
        with me.engage() as hold:
            hold.take(lambda: (ready.open(), lock.acquire()), lock.release)
            at_rest(me, lock, ready)

    def body():
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        children = []
        with contextlib.suppress(KeyboardInterrupt), Supervisor(make_shared=multiprocessing.Lock) as sup:
            children.append(sup.start(holding))
            held.wait()
            children += [sup.start(taking) for _ in range(3)]
            sup.run(LIMIT)
            raise AssertionError("not interrupted")
        outcomes.open(repr({(child.outcome.decision.value, child.outcome.status) for child in children}).encode())

    pid = forked(body)
    seen = 0
    while seen < 3:
        seen += len(ready.wait())
    os.killpg(pid, signal.SIGINT)
    assert reaped(pid) == 42
    assert outcomes.wait() == b"{('clean', 1)}"


def armed_and_giving(me, shared, ready):
    with me.engage() as hold:
        hold.take(list, list)
        at_rest(me, shared, ready)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_of_a_signal_handler_at_any_time_loses_no_child_and_no_event(gate, forked, reaped, threads):
    """A burst of signals from outside, each of which raises somewhere in start() or step().

    With a second thread they cannot be blocked: that one gets them, and Python runs the handler in this one.
    """
    done, go = gate(), gate()
    interruptions = 200

    def body():
        exposed, count, events = False, 0, []
        for _ in range(threads - 1):
            threading.Thread(target=signal.pause, daemon=True).start()

        def interrupt(*_):
            nonlocal exposed, count
            if exposed:
                exposed, count = False, count + 1
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, interrupt)
        with Supervisor(slots=4) as sup:
            go.open()
            while count < interruptions:
                with contextlib.suppress(KeyboardInterrupt):
                    exposed = True
                    if len(sup.children) < 4:
                        sup.start(lambda me, shared: None)
                    exposed = False
                with contextlib.suppress(KeyboardInterrupt):
                    exposed = True
                    batch = None
                    batch = sup.step(0.002)
                    exposed = False
                events += batch or []
            events += sup.run(LIMIT)
            for kind in (EventKind.STARTED, EventKind.EXITED):
                children = [event.child for event in events if event.kind is kind]
                assert len(set(children)) == len(children) == len(events) / 2 > 0
            assert (sup.mode, sup.generation, sup.children) == (Mode.RUNNING, 1, ())
            assert not any(sup.slots.word(slot) for slot in range(1, 5))

    pid = forked(body)
    done.close_write_end()
    go.wait()
    while not done.is_open():
        os.kill(pid, signal.SIGINT)
        threading.Event().wait(0.0007)  # paces the burst; orders nothing
    assert reaped(pid) == 42


def test_sigkill_of_the_supervisor_at_random_times_leaves_nobody(gate, reaped):
    for turn in range(30):
        canary, go = gate(), gate()
        pid = os.fork()
        if pid == 0:
            try:
                with Supervisor() as sup:
                    go.open()
                    while True:
                        if len(sup.children) < 4:
                            sup.start(armed_in_c, go)
                        else:
                            sup.start(lambda me, shared: os._exit(2))
                        sup.step(0)
                        if sup.mode.value != "running":
                            while EventKind.RUNNING not in [event.kind for event in sup.step(LIMIT)]:
                                pass
            finally:
                os._exit(1)
        canary.close_write_end()
        go.wait()
        threading.Event().wait(turn * 0.0011)  # the moment is arbitrary, which is the point
        os.kill(pid, signal.SIGKILL)
        assert reaped(pid) == -signal.SIGKILL
        assert canary.wait() == b""


def test_a_supervisor_inside_a_child_works(gate):
    said = gate()

    def inner(me, shared):
        with me.engage():
            os._exit(0)

    def outer(me, shared):
        with Supervisor() as sup:
            child = sup.start(inner)
            sup.run(LIMIT)
            said.open(child.outcome.decision.name.encode())

    with Supervisor() as sup:
        child = sup.start(outer)
        sup.run(LIMIT)
        assert said.wait() == b"CRASH"
        assert (child.outcome.status, sup.generation) == (0, 1)


def test_a_fork_lets_go_of_the_lifelines_of_all_supervisors(gate, forked, reaped):
    with Supervisor() as first, Supervisor() as second:

        def body():
            assert not first._lifeline.is_held
            assert not second._lifeline.is_held

        assert reaped(forked(body)) == 42
        assert first._lifeline.is_held
        assert second._lifeline.is_held


def test_a_child_keeps_one_end_of_the_lifeline_and_no_other(gate):
    said = gate()

    def count(me, pipe):
        kept = [fd for fd in os.listdir("/proc/self/fd") if fd_is(fd, pipe)]
        said.open(str(len(kept)).encode())

    def fd_is(fd, pipe):
        with contextlib.suppress(OSError):
            return os.fstat(int(fd)).st_ino == pipe
        return False

    with Supervisor(make_shared=lambda: None) as sup:
        pipe = os.fstat(sup._lifeline._read_end.fileno()).st_ino
        sup.start(lambda me, shared: count(me, pipe))
        assert said.wait() == b"1"
        sup.run(LIMIT)
