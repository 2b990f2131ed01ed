"""The supervisor's interface: arguments, what is refused, order of events, closing."""

import contextlib
import functools
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import armed
from armed import (
    Closed,
    CrashWhileClosing,
    Decision,
    EventKind,
    ForeignProcess,
    InUse,
    LostAtEnd,
    Mode,
    NotRunning,
    SlotsExhausted,
    StartupFailed,
    Supervisor,
    Unsupported,
    supervisor,
)
from armed.exits import Watch

LIMIT = 20.0
ROOT = str(Path(armed.__file__).parent.parent)


def kinds(events):
    return [event.kind.value for event in events]


@pytest.mark.parametrize("slots", [0, -1, 2**20 + 1])
def test_too_few_or_too_many_slots_are_refused(slots):
    with pytest.raises(ValueError, match="1 to 1048576"):
        Supervisor(slots)


def generator():
    yield 1


async def coroutine(*_):
    pass


async def async_generator(*_):
    yield 1


class AsyncCallable:
    async def __call__(self, *_):
        pass


DEFERRED = [generator, coroutine, async_generator, AsyncCallable(), functools.partial(coroutine, 1)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("slots", value) for value in ("4", 1.5, None, True, math.nan)]
    + [("make_shared", value) for value in (3, *DEFERRED[1:])]  # a generator function makes, then cleans up
    + [(name, value) for name in ("startup", "dead_end", "on_event") for value in (3, *DEFERRED)]
    + [("startup_limit", value) for value in ("1", None)]
    + [("stop_after", value) for value in ("1", None, True, [])],
)
def test_an_argument_of_the_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(TypeError, match=f"^{name} is "):
        Supervisor(**{name: value})


@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan, 10**400, "x", True])
def test_what_is_no_time_is_refused_by_name(seconds):
    error = TypeError if seconds in ("x", True) else ValueError
    with pytest.raises(error, match=r"^stop_after is .*0 or more"):
        Supervisor(stop_after=seconds)
    with Supervisor() as sup:
        for call in (sup.step, sup.run, sup.close):
            with pytest.raises(error, match=r"^timeout is .*0 or more"):
                call(seconds)
        for call in (sup.step, sup.close):
            with pytest.raises(TypeError, match=r"^timeout is None"):
                call(None)
        assert sup.mode is Mode.RUNNING


@pytest.mark.parametrize("target", DEFERRED)
def test_a_target_whose_call_does_nothing_yet_is_refused(target):
    with Supervisor() as sup, pytest.raises(TypeError, match=r"^target is an? (generator|async) function"):
        sup.start(target)


def test_a_target_is_callable():
    with Supervisor() as sup, pytest.raises(TypeError, match="me, shared"):
        sup.start(3)


def test_targets_get_their_engager_what_is_shared_and_their_arguments(gate):
    said = gate()

    def target(me, shared, *args):
        said.open(repr((type(me).__name__, me.slot, me.generation, shared, args)).encode())

    with Supervisor(make_shared=lambda: "shared") as sup:
        child = sup.start(target, 1, "two")
        assert said.wait() == b"('Engager', 1, 1, 'shared', (1, 'two'))"
        assert (child.slot, child.generation, child.args, child.outcome) == (1, 1, (1, "two"), None)
        assert sup.children == (child,)
        assert kinds(sup.run(LIMIT)) == ["started", "exited"]
        assert sup.children == ()


def test_when_no_slot_is_left_starting_is_refused_and_a_reaped_child_frees_one(gate, until):
    # C16: never more children than slots
    may_end = gate()
    with Supervisor(slots=2) as sup:
        first = [sup.start(lambda me, shared: may_end.wait()) for _ in range(2)]
        with pytest.raises(SlotsExhausted, match="all 2 slots"):
            sup.start(lambda me, shared: None)
        may_end.open()
        until(sup, EventKind.EXITED)
        assert sup.start(lambda me, shared: None).slot in {child.slot for child in first}
        may_end.open()
        sup.run(LIMIT)


def test_step_waits_no_longer_than_it_is_told(gate):
    may_end = gate()
    with Supervisor() as sup:
        sup.start(lambda me, shared: may_end.wait())
        assert kinds(sup.step(0)) == ["started"]
        for timeout in (0, 0.0001, 0.05):
            began = time.monotonic()
            assert sup.step(timeout) == []
            assert timeout <= time.monotonic() - began < timeout + 1
        assert sup.run(0.01) == []
        may_end.open()


def test_a_failing_make_shared_fails_the_constructor():
    def make_shared():
        raise OSError("no memory")

    with pytest.raises(StartupFailed, match="no memory") as caught:
        Supervisor(make_shared=make_shared)
    assert isinstance(caught.value.__cause__, OSError)


def test_use_after_close_is_refused_but_closing_again_is_not():
    sup = Supervisor()
    assert kinds(sup.close()) == ["closing", "closed"]
    assert sup.close() == []
    for use in (lambda: sup.start(print), lambda: sup.step(0), sup.run, sup.__enter__):
        with pytest.raises(Closed):
            use()
    for use in (sup.slots.state, sup.slots.word, sup.slots.view, sup.slots.release):
        with pytest.raises(Closed, match="generation"):
            use(1)
    with pytest.raises(Closed, match="generation"):
        sup.slots.assign()
    assert (sup.mode, sup.children, sup.generation) == (Mode.STOPPED, (), 1)


def test_another_process_cannot_use_a_supervisor(gate, reaped):
    said = gate()
    with Supervisor() as sup:
        pid = os.fork()
        if pid == 0:
            for use in (lambda: sup.start(print), lambda: sup.step(0), sup.run, sup.close, sup.__enter__):
                try:
                    use()
                except ForeignProcess:
                    said.open()
            sup.__del__()
            os._exit(0)
        assert reaped(pid) == 0
        assert said.wait() == b"." * 5
        child = sup.start(lambda me, shared: None)
        sup.run(LIMIT)
        assert child.outcome.decision is Decision.CLEAN


def test_closing_asks_children_to_end_and_they_give_back(gate):
    ready, given = gate(), gate()

    def target(me, shared):
        with me.engage() as hold:
            hold.take(ready.open, given.open)
            signal.pause()

    with Supervisor() as sup:
        children = [sup.start(target) for _ in range(3)]
        for _ in range(3):
            os.read(ready.read_end, 1)
        events = sup.close(LIMIT)
        assert kinds(events) == ["started"] * 3 + ["closing"] + ["exited"] * 3 + ["closed"]
        assert {child.outcome.status for child in children} == {1}
        assert len(given.wait()) == 3
        assert sup.mode is Mode.STOPPED


def deaf(me, shared, ready, armed=True):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if armed:
        me.engage().__enter__()
    ready.open()
    while True:
        signal.pause()


def test_who_does_not_end_in_time_is_stopped_and_reported_as_lost(gate):
    ready = gate()
    with Supervisor() as sup:
        child = sup.start(deaf, ready)
        ready.wait()
        events = sup.close(0.1)
        assert kinds(events) == ["started", "closing", "stopping", "lost", "closed"]
        assert child.outcome.status == -signal.SIGQUIT


def test_who_ignores_sigquit_too_is_killed(gate):
    ready = gate()

    def target(me, shared):
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        deaf(me, shared, ready)

    with Supervisor(stop_after=0.1) as sup:
        child = sup.start(target)
        ready.wait()
        sup.close(0)
        assert child.outcome.status == -signal.SIGKILL


def test_a_crash_while_closing_stops_everyone_at_once_and_restarts_nothing(gate):
    ready = gate()

    def crash(me, shared):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        with me.engage():
            ready.open()
            signal.pause()

    made = []
    with Supervisor(make_shared=lambda: made.append(1)) as sup:
        first, second = sup.start(deaf, ready), sup.start(crash)
        for _ in range(2):
            os.read(ready.read_end, 1)
        began = time.monotonic()
        with pytest.raises(CrashWhileClosing) as caught:
            sup.close(3600)
        assert time.monotonic() - began < LIMIT
        events = caught.value.events
        assert kinds(events)[2:] == ["closing", "crashed", "stopping", "lost", "closed"]
        assert (events[3].child, events[5].child) == (second, first)
        assert (second.outcome.status, first.outcome.status) == (0, -signal.SIGQUIT)
        assert (sup.mode, sup.generation, made) == (Mode.STOPPED, 1, [1])
        assert sup.close() == []


def test_an_unclean_status_while_closing_is_a_crash_too(gate):
    ready = gate()

    def target(me, shared):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
        ready.open()
        signal.pause()

    sup = Supervisor()
    sup.start(target)
    ready.wait()
    with pytest.raises(CrashWhileClosing):
        sup.close(LIMIT)


def test_closing_during_a_recovery_waits_for_the_end_of_children_and_resets_nothing(gate, until):
    ready = gate()

    def target(me, shared):
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        deaf(me, shared, ready)

    with Supervisor(stop_after=0.2) as sup:
        stubborn = sup.start(target)
        ready.wait()
        sup.start(lambda me, shared: os._exit(2))
        until(sup, EventKind.STOPPING)
        with pytest.raises(NotRunning):
            sup.start(print)
        assert kinds(sup.close()) == ["closing", "limit", "lost", "closed"]
        assert (sup.generation, stubborn.outcome.status) == (1, -signal.SIGKILL)


def test_nothing_is_started_once_closing_has_begun_and_an_interrupted_close_can_be_repeated(gate):
    ready, may_end = gate(), gate()

    def target(me, shared):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ready.open()
        may_end.wait()

    def interrupt(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Supervisor() as sup:
            child = sup.start(target)
            ready.wait()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(TimeoutError):
                sup.close(LIMIT)
            with pytest.raises(NotRunning, match="closing"):
                sup.start(print)
            may_end.open()
            assert kinds(sup.close()) == ["started", "closing", "exited", "closed"]
            assert child.outcome.decision is Decision.CLEAN
    finally:
        signal.signal(signal.SIGALRM, before)


def test_who_is_lost_at_the_end_of_a_with_block_is_named_by_an_error(gate):
    children = []

    def body():
        with Impatient() as sup:
            children.append(sup.start(deaf, ready))
            ready.wait()

    ready = gate()
    with pytest.raises(LostAtEnd) as caught:
        body()
    assert f"child {children[0].pid} in slot 1 with args" in str(caught.value)
    assert "status -3" in str(caught.value)
    assert kinds(caught.value.events) == ["started", "closing", "stopping", "lost", "closed"]


class Impatient(Supervisor):
    def close(self, timeout=0.1):
        return super().close(timeout)


def test_a_crash_of_which_no_call_has_told_is_told_at_the_end_of_the_block():
    made = []

    def make_shared():
        if made:
            raise KeyboardInterrupt
        made.append(1)

    def body():
        with Supervisor(make_shared=make_shared) as sup:
            sup.start(lambda me, shared, number: os._exit(2), 13)
            with contextlib.suppress(KeyboardInterrupt):
                sup.run(LIMIT)

    with pytest.raises(LostAtEnd, match=r"args \(13,\), status 2") as caught:
        body()
    assert kinds(caught.value.events) == ["started", "crashed", "stopping", "closing", "closed"]


def ends_armed_when_asked(me, shared, ready):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with me.engage():
        ready.open()
        while True:
            signal.pause()


@pytest.mark.parametrize("raised", [ValueError("body"), SystemExit(5), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("target", [ends_armed_when_asked, deaf])
def test_the_exception_of_the_body_comes_out_with_a_note_of_what_was_lost(gate, target, raised):
    def body():
        with Impatient() as sup:
            sup.start(target, ready)
            ready.wait()
            raise raised

    ready = gate()
    name = "LostAtEnd" if target is deaf else "CrashWhileClosing"
    warns = contextlib.nullcontext() if isinstance(raised, Exception) else pytest.warns(RuntimeWarning, match=name)
    with warns, pytest.raises(type(raised)) as caught:
        body()
    assert caught.value is raised
    (note,) = raised.__notes__
    assert note.startswith(f"{name} at the end of the supervisor's block: ")
    assert "in slot 1" in note
    del raised.__notes__


def test_a_second_thread_is_refused_and_harms_nothing(gate):
    inside, may_end = gate(), gate()

    def target(me, shared):
        inside.open()
        may_end.wait()

    with Supervisor(slots=2) as sup:
        child = sup.start(target)
        inside.wait()
        events = []
        thread = threading.Thread(target=lambda: events.extend(sup.run(LIMIT)))
        thread.start()
        while not sup._user:
            pass
        for use in (lambda: sup.start(print), lambda: sup.step(0), lambda: sup.run(0), sup.close):
            with pytest.raises(InUse, match="another thread"):
                use()
        may_end.open()
        thread.join(LIMIT)
        assert (kinds(events), child.outcome.status) == (["started", "exited"], 0)
        again = sup.start(lambda me, shared: None)  # one after the other is well
        assert kinds(sup.run(LIMIT)) == ["started", "exited"]
        assert again.outcome.decision is Decision.CLEAN


def test_many_threads_at_once_never_corrupt_a_supervisor():
    unexpected = []

    def use(sup, until):
        while time.monotonic() < until:
            for call in (lambda: sup.start(lambda me, shared: None), lambda: sup.step(0)):
                try:
                    call()
                except (InUse, SlotsExhausted):
                    pass
                except Exception as error:
                    unexpected.append(error)
            slots = [child.slot for child in sup.children]
            if len(slots) != len(set(slots)):
                unexpected.append(slots)

    with Supervisor(slots=4) as sup:
        threads = [threading.Thread(target=use, args=(sup, time.monotonic() + 1)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        sup.run(LIMIT)
        assert (unexpected, sup.generation, sup.children) == ([], 1, ())


def test_a_signal_handler_may_use_the_supervisor_that_it_interrupts(gate):
    started = []
    before = signal.signal(signal.SIGALRM, lambda *_: started.append(sup.start(lambda me, shared: None)))
    may_end = gate()
    try:
        with Supervisor() as sup:
            sup.start(lambda me, shared: may_end.wait())
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            while not started:
                sup.step(LIMIT)
            may_end.open()
            sup.run(LIMIT)
            assert started[0].outcome.status == 0
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_event_is_printed_as_it_was():
    with Supervisor() as sup:
        child = sup.start(lambda me, shared, number: None, 7)
        started, exited = sup.run(LIMIT)
        name = f"child {child.pid} in slot 1 with args (7,)"
        assert repr(started) == f"<Event started, generation 1, {name}>"
        assert repr(exited) == f"<Event exited, generation 1, {name}, status 0>"
        assert repr(sup.close()[0]) == "<Event closing, generation 1>"


def test_a_supervisor_that_was_never_closed_warns_and_ends_its_children(gate, reaped):
    alive = gate()

    def target(me, shared):
        alive.open()
        signal.pause()

    sup = Supervisor()
    child = sup.start(target)
    alive.wait()
    alive.close_write_end()
    held = [sup]
    del sup
    with pytest.warns(ResourceWarning, match="never closed"):
        held.clear()
    assert alive.wait() == b""
    os.waitpid(child.pid, 0)


def test_a_failed_fork_leaves_no_slot_behind(forked, reaped):
    def body():  # in a process of its own: the limit is one of the user, and root has none
        with Supervisor(slots=1) as sup:
            soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
            if os.getuid() == 0:
                os.setresuid(65534, 65534, 0)
            resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
            with pytest.raises(OSError, match="temporarily"):
                sup.start(print)
            assert (sup.children, sup.slots.word(1)) == ((), 0)
            resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
            child = sup.start(lambda me, shared: None)
            sup.run(LIMIT)
            assert (child.slot, child.outcome.status) == (1, 0)

    assert reaped(forked(body)) == 42


class OutOfDescriptors(Watch):
    """Watches until there is no descriptor left, which happens at the worst moment: between fork and pidfd_open."""

    before = None

    def open(self, pid):
        if self.before is not None:
            self.before()
        free = os.dup(0)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            return super().open(pid)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_child_that_cannot_be_watched_is_ended_and_its_slot_released():
    with Supervisor(slots=1) as sup:
        sup._watch.close()
        sup._watch = OutOfDescriptors()
        with pytest.raises(OSError, match="Too many open files"):
            sup.start(lambda me, shared: signal.pause())
        assert (sup.children, sup.mode, sup.slots.word(1)) == ((), Mode.RUNNING, 0)


def test_a_child_whose_pidfd_is_number_0_is_a_child_as_others(forked, reaped):
    def body():
        with Supervisor(slots=1) as sup:
            os.close(0)  # the next descriptor that is opened has this number
            child = sup.start(lambda me, shared: None)
            assert kinds(sup.run(LIMIT)) == ["started", "exited"]
            assert (child.pid > 0, child.outcome.status) == (True, 0)

    assert reaped(forked(body)) == 42


def test_a_child_that_cannot_be_watched_and_was_armed_already_has_crashed(gate):
    is_armed = gate()

    def target(me, shared):
        with me.engage():
            is_armed.open()
            signal.pause()

    with Supervisor(slots=1) as sup:
        sup._watch.close()
        sup._watch = OutOfDescriptors()
        sup._watch.before = is_armed.wait
        with pytest.raises(OSError, match="Too many open files"):
            sup.start(target)
        assert sup.mode is Mode.STOPPING
        assert kinds(sup.step(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]


def test_the_package_is_importable_where_the_supervisor_is_not_supported():
    program = """
import sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None  # as where there is no such module
sys.platform = "win32"
import armed
assert armed.exit_status(256) == 1
try:
    armed.Supervisor()
except armed.Unsupported as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT, check=True)
    assert "Linux 5.6" in answer.stdout


def test_the_package_needs_nothing_but_the_standard_library():
    program = "import sys, armed; print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    answer = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {ROOT!r}); {program}"],
        capture_output=True, text=True, timeout=LIMIT, check=True,
    )  # fmt: skip
    assert set(answer.stdout.split()) <= {"armed", "__main__"}


def test_all_that_is_exported_exists():
    assert all(hasattr(armed, name) for name in armed.__all__)
    assert issubclass(armed.Unsupported, armed.ArmedError)


def test_a_fork_that_is_refused_by_an_exception_of_any_kind_leaves_no_slot_behind(forked, reaped):
    def body():
        refuse = True

        def hook(name, arguments):
            if name == "os.fork" and refuse:
                raise RuntimeError("no fork now")

        with Supervisor(slots=1) as sup:
            sys.addaudithook(hook)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="no fork now"):
                    sup.start(print)
            refuse = False
            assert sup.start(lambda me, shared: None).slot == 1
            sup.run(LIMIT)

    assert reaped(forked(body)) == 42


@pytest.mark.parametrize("armed", [False, True])
def test_a_child_that_somebody_reaped_before_it_was_watched_has_crashed(armed):
    def target(me, shared):
        if armed:
            me.engage().__enter__()
        os._exit(0)

    class Late(Watch):
        def open(self, pid):
            os.waitid(os.P_PID, pid, os.WEXITED)
            return super().open(pid)

    with Supervisor(slots=1) as sup:
        sup._watch.close()
        sup._watch = Late()
        with pytest.raises(ProcessLookupError):
            sup.start(target)
        assert (sup.children, sup.mode, sup.slots.word(1)) == ((), Mode.STOPPING, 0)
        events = sup.step(LIMIT)
        assert kinds(events) == ["started", "crashed", "stopping", "reset", "running"]
        assert events[1].child.outcome.status == -127


class Interrupted(Exception):
    pass


@pytest.fixture
def alarm():
    """Call a function from a handler of SIGALRM, in so many seconds."""

    def alarm(seconds, function):
        signal.signal(signal.SIGALRM, lambda *_: function())
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.getsignal(signal.SIGALRM)
    yield alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def interrupt():
    raise Interrupted


def test_run_after_an_interrupted_close_waits_for_the_children_and_recovers_nothing(gate, alarm):
    ready, may_end = gate(), gate()

    def target(me, shared):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with me.engage():
            ready.open()
            may_end.wait()
            os._exit(0)

    sup = Supervisor()
    sup.start(target)
    ready.wait()
    alarm(0.05, interrupt)
    with pytest.raises(Interrupted):
        sup.close(LIMIT)
    may_end.open()
    assert kinds(sup.run(LIMIT)) == ["started", "closing", "crashed", "stopping"]
    assert (sup.generation, sup.children, sup.mode) == (1, (), Mode.STOPPING)
    assert sup.run() == []
    with pytest.raises(CrashWhileClosing) as caught:
        sup.close()
    assert kinds(caught.value.events) == ["closed"]
    assert sup.close() == []


def test_of_two_timeouts_of_a_close_the_earlier_end_counts(gate, alarm):
    ready = gate()
    sup = Supervisor()
    sup.start(deaf, ready)
    ready.wait()
    for timeout in (3600, 1800, 7200):
        seen, began = [], time.monotonic()
        alarm(0.05, lambda seen=seen: (seen.append((time.monotonic(), sup._deadlines.stop_at)), interrupt()))
        with pytest.raises(Interrupted):
            sup.close(timeout)
        ((now, stop_at),) = seen
        if timeout < 7200:
            assert began + timeout <= stop_at <= now + timeout
            earliest = stop_at
        assert stop_at == earliest
    began = time.monotonic()
    assert kinds(sup.close(0)) == ["started", "closing", "stopping", "lost", "closed"]
    assert time.monotonic() - began < LIMIT


def test_a_close_asks_until_it_is_heard(gate):
    ready = gate()

    def target(me, shared):
        asked = []
        signal.signal(signal.SIGTERM, lambda *_: asked.append(1) if len(asked) < 2 else sys.exit(0))
        ready.open()
        while True:
            signal.pause()

    sup = Supervisor()
    child = sup.start(target)
    ready.wait()
    assert kinds(sup.close(LIMIT)) == ["started", "closing", "exited", "closed"]
    assert child.outcome.status == 0


@pytest.mark.parametrize("call", ["step", "run", "close"])
def test_a_signal_handler_may_close_the_supervisor_that_it_interrupts(gate, alarm, call):
    ready, told = gate(), []
    sup = Supervisor(stop_after=0)
    sup.start(deaf, ready)
    ready.wait()
    sup.step(0)
    alarm(0.05, lambda: told.extend(sup.close(0)))
    assert getattr(sup, call)(LIMIT) == []
    assert [kind for kind in kinds(told) if kind != "closing"] == ["stopping", "limit", "lost", "closed"]
    assert (sup.mode, sup.children) == (Mode.STOPPED, ())
    with pytest.raises(Closed):
        sup.run()


def test_a_crash_while_closing_is_told_in_later_generations_too(gate):
    ready = gate()
    sup = Supervisor()
    sup.start(lambda me, shared: os._exit(2))
    sup.run(LIMIT)
    sup.start(ends_armed_when_asked, ready)
    ready.wait()
    with pytest.raises(CrashWhileClosing):
        sup.close(LIMIT)
    assert sup.generation == 2


def test_a_constructor_that_fails_leaves_nothing_behind(monkeypatch):
    made = []

    def kept(make):
        def make_and_keep(*args):
            made.append(make(*args))
            return made[-1]

        return make_and_keep

    monkeypatch.setattr(supervisor, "begin_generation", kept(supervisor.begin_generation))
    monkeypatch.setattr(supervisor, "Lifeline", kept(supervisor.Lifeline))
    with monkeypatch.context() as patch:
        patch.setattr("armed.recovery.Registry", lambda size: os.open("/nowhere", 0))
        with pytest.raises(FileNotFoundError):
            Supervisor()
    (lifeline,) = made
    assert lifeline._read_end.closed
    assert lifeline._write_end.closed


@pytest.mark.parametrize(("release", "is_supported"), [("5.4.0-generic", False), ("5.6.0", True), ("6.1-rc1+", True)])
def test_a_kernel_that_is_too_old_is_refused(monkeypatch, release, is_supported):
    name = list(os.uname())
    name[2] = release
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(name))
    if is_supported:
        Supervisor().close()
    else:
        with pytest.raises(Unsupported, match=r"5\.4 .*5\.6 or later"):
            Supervisor()


@pytest.mark.parametrize("call", ["step", "close"])
def test_a_handler_that_uses_the_supervisor_at_any_time_in_a_program_with_threads_does_no_harm(call):
    """Signals are blocked in the thread that reaps, but another one may get them, and the handler runs all the same."""
    events, until, stop = [], time.monotonic() + 2, threading.Event()
    switch = sys.getswitchinterval()

    def use(*_):
        events.extend(sup.step(0) if call == "step" or time.monotonic() < until - 1 else sup.close())

    def pester():
        while not stop.is_set():
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(0.004)

    before = signal.signal(signal.SIGUSR2, use)
    sup = Supervisor(4)
    thread = threading.Thread(target=pester)
    children = []
    try:
        sys.setswitchinterval(1e-5)
        thread.start()
        while time.monotonic() < until:
            with contextlib.suppress(SlotsExhausted, NotRunning, Closed, ValueError):
                children.append(sup.start(lambda me, shared: None))
            with contextlib.suppress(Closed):
                events.extend(sup.step(0.01))
    finally:
        stop.set()
        thread.join(LIMIT)
        sys.setswitchinterval(switch)
        signal.signal(signal.SIGUSR2, before)
    events.extend(sup.close())
    ended = [event.child for event in events if event.is_end]
    assert len(ended) == len(set(ended)) >= len(children) > 10
    assert {child.outcome.status for child in ended} <= {0, 1}
    assert EventKind.CRASHED not in {event.kind for event in events}
