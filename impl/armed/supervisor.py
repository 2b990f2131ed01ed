"""The supervisor: start children, reap them, decide about each death, recover, close.

    with Supervisor(make_shared=make_shared) as sup:
        sup.start(target, 42)
        for event in sup.run():
            ...

All that happens to children is seen and acted upon inside `step`, `run` and `close`: there is no thread, no signal
handler and no polling. One thread at a time, of the process that made the supervisor, uses it; others are refused.
Source: PostgreSQL's postmaster.c (PostmasterMain, CleanupBackend, HandleChildCrash, PostmasterStateMachine).
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import os
import reprlib
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from threading import get_ident
from types import TracebackType
from typing import Any

from armed import exits, recovery
from armed.errors import (
    ArmedError,
    Closed,
    CrashWhileClosing,
    ForeignProcess,
    InUse,
    LostAtEnd,
    NotRunning,
    StartupFailed,
    Unsupported,
)
from armed.exits import Lifeline, Watch, check_seconds
from armed.launch import Launch, flush_standard_streams, run_child, signals_blocked
from armed.recovery import NEVER, Deadlines, Mode, begin_generation
from armed.slots import SlotTable, check_size

__all__ = ["Child", "Decision", "Event", "EventKind", "Outcome", "Supervisor", "decide"]


class Decision(enum.Enum):
    """What the supervisor makes of a death."""

    CLEAN = "clean"
    CRASH = "crash"


def decide(status: int, word: int, token: int) -> Decision:
    """Decide about a death: clean iff the status is 0 or 1 and the slot holds exactly its clean value.

    `status` as `exit_status` gives it, `word` as read at the release, `token` the clean value of that assignment.
    Exit status 1 alone is no crash: it is an error that the child survived to report, and gave back what it held.
    Source: claims C1, C2 and C15; PostgreSQL's CleanupBackend.
    """
    return Decision.CLEAN if status in (0, 1) and word == token else Decision.CRASH


@dataclass(frozen=True)
class Outcome:
    """How a child ended."""

    decision: Decision
    status: int  # n for exit(n), -n for a death by signal n, or armed.exits.UNKNOWN
    slot_word: int  # as read at the release

    @property
    def lost(self) -> bool:
        """Whether its work must be presumed undone."""
        return self.decision is Decision.CRASH


@dataclass(eq=False)
class Child:
    """A child, alive or dead. `outcome` is None until it is reaped."""

    pid: int
    slot: int
    generation: int
    args: tuple[Any, ...]
    outcome: Outcome | None = field(default=None, init=False)


class EventKind(enum.Enum):
    """What happened. A recovery is crashed, stopping, then lost or exited for each other child, reset, running."""

    STARTED = "started"
    EXITED = "exited"  # decided clean
    CRASHED = "crashed"  # the death that started a recovery, or that spoilt an orderly close
    STOPPING = "stopping"  # whoever is left is made to end
    LOST = "lost"  # decided a crash when the others were being stopped already
    RESET = "reset"  # a new generation has been made
    RUNNING = "running"  # children are started again
    CLOSING = "closing"
    CLOSED = "closed"


_ENDS = (EventKind.EXITED, EventKind.CRASHED, EventKind.LOST)


@dataclass(frozen=True)
class Event:
    """One thing that happened; `generation` is the child's, or the supervisor's where there is no child.

    `child.outcome` is how the child has ended by now, also in the event of its start. `repr` is of that time.
    """

    kind: EventKind
    generation: int
    child: Child | None = None

    def __repr__(self) -> str:
        """Say what happened; the outcome is left out where it came later."""
        child = "" if self.child is None else f", {_name(self.child, with_end=self.kind in _ENDS)}"
        return f"<Event {self.kind.value}, generation {self.generation}{child}>"


def _name(child: Child, with_end: bool = True) -> str:
    end = f", status {child.outcome.status}" if with_end and child.outcome is not None else ""
    return f"child {child.pid} in slot {child.slot} with args {reprlib.repr(child.args)}{end}"


def _lost_in(events: Iterable[Event]) -> str:
    """Name the children whose work these events report as lost; "" if there are none."""
    lost = [_name(event.child) for event in events if event.child and event.kind in (EventKind.CRASHED, EventKind.LOST)]
    return "; ".join(lost[:5]) + (f"; and {len(lost) - 5} more" if len(lost) > 5 else "")


class Supervisor:
    """Starts children that share memory, and recovers when one of them dies armed.

    slots        how many children there can be at once, 1 to 2**20
    make_shared  makes what the children share, from nothing: called now, and once in each recovery, in this process.
                 Its answer goes to every child of that generation; let it make locks, memory and queues anew
    stop_after   seconds that a child has from SIGQUIT to SIGKILL

    Leave its children to it: an exit status that a wait() of the program's own takes away is counted as a crash (status
    -127), with a `RuntimeWarning`.

    Raises `StartupFailed` if make_shared raises, `Unsupported` on other systems than Linux 5.6 or later and while
    SIGCHLD is ignored, `ValueError` and `TypeError` for arguments that are none.
    """

    _pid = 0  # for __del__, if __init__ raises

    def __init__(
        self, slots: int = 64, make_shared: Callable[[], Any] | None = None, *, stop_after: float = 5.0
    ) -> None:
        _require_linux()
        _require_exit_statuses()
        self._size = check_size("slots", slots)
        self._make_shared = _check_make_shared(make_shared)
        self._stop_after = check_seconds("stop_after", stop_after)
        self._mode = Mode.RESETTING
        self._children: dict[int, Child] = {}  # by pidfd: those not reaped yet
        self._deadlines = NEVER
        self._events: list[Event] = []  # not returned yet
        self._is_closing = False
        self._crashed_while_closing = False
        self._user: dict[str, tuple[int]] = {}  # the thread that is in one of the methods
        self._generation = begin_generation(1, self._size, make_shared)
        with contextlib.ExitStack() as undo:
            undo.callback(self._generation.slots.close)
            self._lifeline = Lifeline()
            undo.callback(self._lifeline.close)
            self._watch = Watch()
            undo.pop_all()
        self._pid = os.getpid()
        self._mode = Mode.RUNNING

    @property
    def mode(self) -> Mode:
        """What the supervisor is about."""
        return self._mode

    @property
    def generation(self) -> int:
        """The number of the generation, from 1; each recovery begins the next."""
        return self._generation.number

    @property
    def slots(self) -> SlotTable:
        """The slot table of this generation, for observers."""
        return self._generation.slots

    @property
    def children(self) -> tuple[Child, ...]:
        """The children that are not reaped yet, oldest first."""
        return tuple(self._children.values())

    def start(self, target: Callable[..., object], *args: object) -> Child:
        """Start a child that calls target(me, shared, *args), `me` being its `Engager`.

        Raises `SlotsExhausted`, `NotRunning` during recovery and closing, `Closed`, `InUse`, `Unsupported` while
        SIGCHLD is ignored, `OSError` when the system refuses, `TypeError` for what is no target, such as a generator
        function: then no child is left and no slot is lost.
        """
        return self._start(target, args, None)

    def step(self, timeout: float) -> list[Event]:
        """Wait for something to happen, `timeout` seconds at most; act on it and return what happened, oldest first.

        An event that was not returned yet is returned at once. Recovery advances in here, and calls make_shared.
        Raises `StartupFailed` if that raises (then the supervisor has stopped and no child is left), `Closed`, `InUse`,
        and `OSError` when the system refuses memory for the next generation: call it again.
        """
        deadline = time.monotonic() + check_seconds("timeout", timeout)
        with self._one_thread():
            self._require_open()
            self._turn(time.monotonic() if self._events else deadline)
            while not self._events and time.monotonic() < deadline:
                self._turn(deadline)
            return self._take_events()

    def run(self, timeout: float | None = None) -> list[Event]:
        """Step until no child is left and no recovery is under way, or for `timeout` seconds; return what happened.

        Raises as `step` does.
        """
        deadline = time.monotonic() + (float("inf") if timeout is None else check_seconds("timeout", timeout))
        with self._one_thread():
            self._require_open()
            self._turn(time.monotonic())
            while (self._children or self._mode is not Mode.RUNNING) and time.monotonic() < deadline:
                self._turn(deadline)
            return self._take_events()

    def close(self, timeout: float = 10.0) -> list[Event]:
        """End all children and free everything; return what happened. Harmless when repeated.

        The children get SIGTERM, and `timeout` seconds to end in the orderly way; who is left then is stopped, as in
        a recovery, and has a lost event. A crash before that stops everyone at once, restarts nothing, and raises
        `CrashWhileClosing` when all has ended. During a recovery, waits for the children's end and leaves it at that.
        If an exception of a signal handler interrupts it, call it again. Raises `InUse`.

        The end of a `with` block closes, too. It returns no events: if one says that work was lost, it raises
        `LostAtEnd`. If an exception ended the block, that one is passed on, with a note about what went wrong here.
        """
        timeout = check_seconds("timeout", timeout)
        with self._one_thread():
            return [] if self._mode is Mode.STOPPED else self._close(timeout)

    def _close(self, timeout: float) -> list[Event]:
        self._require_open()
        if not self._is_closing:
            self._is_closing = True
            self._note(EventKind.CLOSING)
            if self._mode is Mode.RUNNING:
                now = time.monotonic()
                self._deadlines = Deadlines(ask_at=now, stop_at=now + timeout)
        while self._children:
            self._turn(float("inf"))
        self._shut()
        self._note(EventKind.CLOSED)
        events = self._take_events()
        if self._crashed_while_closing:
            crash = CrashWhileClosing(f"a child crashed while closing, all have ended: {_lost_in(events)}")
            crash.events = tuple(events)
            raise crash
        return events

    def __enter__(self) -> Supervisor:
        self._require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            events = self.close()
            if lost := _lost_in(events):
                failure = LostAtEnd(
                    f"work was lost, all have ended: {lost}; if they need more time, call close(timeout)"
                )
                failure.events = tuple(events)
                raise failure
        except ArmedError as failure:
            if error is None:
                raise
            said = f"{type(failure).__name__} at the end of the supervisor's block: {failure}"
            error.add_note(said)
            if not isinstance(error, Exception):  # SystemExit, Ctrl-C: it may end the program without being printed
                warnings.warn(said, RuntimeWarning, 2)

    def __del__(self) -> None:
        if self._pid == os.getpid() and self._mode is not Mode.STOPPED:
            self._shut()
            warnings.warn(f"{self!r} was never closed: use `with`, or close()", ResourceWarning, 2, self)

    # Starting.

    def _start(
        self, target: Callable[..., object], args: tuple[object, ...], prelude: Callable[[], object] | None
    ) -> Child:
        if not callable(target):
            raise TypeError(f"a target is called with (me, shared, *args), this is a {type(target).__qualname__}")
        _refuse_deferred("target", target, "call asyncio.run() or the loop inside it")
        with self._one_thread():
            return self._fork(target, args, prelude)

    def _fork(
        self, target: Callable[..., object], args: tuple[object, ...], prelude: Callable[[], object] | None
    ) -> Child:
        self._require_open()
        _require_exit_statuses()
        if self._mode is not Mode.RUNNING or self._is_closing:
            what = "closing" if self._is_closing else self._mode.value
            raise NotRunning(f"no child is started while {what}: step() until there is a running event")
        flush_standard_streams()
        generation = self._generation
        # No exception of a signal handler may fall between the fork and the record of the child, nor any in the child.
        with signals_blocked() as mask:
            slot, token = generation.slots.assign()
            try:
                pid = os.fork()
            except OSError:
                generation.slots.release(slot)  # 8.4.0 forgot this (commit 45f9b4646f2f)
                raise
            if pid == 0:
                word = generation.slots.view(slot)
                run_child(
                    Launch(
                        target, args, generation.shared, slot, generation.number, word, token,
                        self._lifeline, self._watch, mask, prelude,
                    )
                )  # fmt: skip
            child = Child(pid, slot, generation.number, args)
            try:
                self._children[self._watch.add(pid)] = child
            except OSError:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                found = generation.slots.release(slot)
                if found != token:  # it was quick, and armed already
                    self._conclude(child, Outcome(Decision.CRASH, -signal.SIGKILL, found))
                raise
        self._note(EventKind.STARTED, child)
        return child

    # What happens.

    def _turn(self, deadline: float) -> None:
        """Wait for deaths or until something is due, `deadline` at the latest; do what that asks for."""
        noted = len(self._events)
        self._advance()
        due = min(deadline, self._deadlines.next) if len(self._events) == noted else 0.0
        for pidfd in self._watch.wait(due - time.monotonic()):
            with signals_blocked():  # a death is recorded once and whole
                self._reap(pidfd)
        self._advance()

    def _reap(self, pidfd: int) -> None:
        """Decide about a dead child and let it go. Its slot is read while its pid still is its own."""
        status = exits.observe(pidfd)
        if status is None:
            return
        child = self._children[pidfd]
        token = self.slots.token(child.slot)
        word = self.slots.release(child.slot)
        exits.reap(pidfd)
        self._watch.remove(pidfd)
        del self._children[pidfd]
        self._conclude(child, Outcome(decide(status, word, token), status, word))
        if status == exits.UNKNOWN:  # last: a filter may make it an exception
            warnings.warn(
                f"{_name(child, with_end=False)} counts as crashed: its exit status was taken away. Ignore no SIGCHLD, "
                "and wait for processes of your own by their pid, not with os.wait() or waitpid(-1)",
                RuntimeWarning,
                2,
            )

    def _conclude(self, child: Child, outcome: Outcome) -> None:
        """Record how a child ended. The first crash stops the others; a second one adds nothing."""
        child.outcome = outcome
        if not outcome.lost:
            self._note(EventKind.EXITED, child)
        elif self._mode is Mode.RUNNING:
            self._crashed_while_closing = self._is_closing
            self._note(EventKind.CRASHED, child)
            self._stop_children()
        else:
            self._note(EventKind.LOST, child)

    def _stop_children(self) -> None:
        self._mode = Mode.STOPPING
        self._deadlines = Deadlines(kill_at=time.monotonic() + self._stop_after)
        self._note(EventKind.STOPPING)
        recovery.stop((pidfd, child.pid) for pidfd, child in self._children.items())

    def _advance(self) -> None:
        """Do what is due: lose patience with who should have ended, reset when all are gone."""
        now = time.monotonic()
        if now >= self._deadlines.ask_at:
            self._deadlines = replace(self._deadlines, ask_at=now + recovery.ASK_AGAIN_AFTER)
            recovery.ask_to_end(self._children)
        if now >= self._deadlines.stop_at:
            self._stop_children()
        if now >= self._deadlines.kill_at:
            self._deadlines = NEVER
            recovery.kill(self._children)
        if self._mode in (Mode.STOPPING, Mode.RESETTING) and not self._children and not self._is_closing:
            self._reset()

    def _reset(self) -> None:
        """Begin the next generation. An exception of a signal handler leaves it to the next step to begin again."""
        self._mode = Mode.RESETTING
        self._deadlines = NEVER
        last = self._generation
        try:
            self._generation = begin_generation(last.number + 1, self._size, self._make_shared)
        except StartupFailed as error:
            self._shut()
            error.events = tuple(self._take_events())
            raise
        self._mode = Mode.STARTING
        self._note(EventKind.RESET)
        last.slots.close()  # nobody is left who uses it
        self._mode = Mode.RUNNING
        self._note(EventKind.RUNNING)

    def _note(self, kind: EventKind, child: Child | None = None) -> None:
        self._events.append(Event(kind, self.generation if child is None else child.generation, child))

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _shut(self) -> None:
        """Free everything; with the lifeline's write end any child still there ends."""
        self._mode = Mode.STOPPED
        self._deadlines = NEVER
        self._lifeline.close()
        self._watch.close()
        self.slots.close()

    @contextlib.contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Refuse other threads while one is in here; it may come again, from a signal handler.

        A dictionary, not a lock: an exception of a signal handler cannot fall between "entered" and the record of it,
        since the entry itself tells whose it is.
        """
        self._require_own_process()
        entry = (get_ident(),)
        try:
            if self._user.setdefault("entry", entry) != entry:
                raise InUse("another thread is using this supervisor: let its call return first, or give it a timeout")
            yield
        finally:
            if self._user.get("entry") is entry:
                self._user.clear()

    def _require_own_process(self) -> None:
        if self._pid != os.getpid():
            raise ForeignProcess("this supervisor belongs to the process that made it: make one of your own")

    def _require_open(self) -> None:
        self._require_own_process()
        if self._mode is Mode.STOPPED:
            raise Closed("this supervisor has stopped for good: make a new one")


def _require_linux() -> None:
    needed = {os: ("pidfd_open", "memfd_create", "waitid", "fork"), select: ("epoll",)}
    if sys.platform != "linux" or not all(hasattr(module, name) for module in needed for name in needed[module]):
        raise Unsupported("a Supervisor needs pidfds, epoll and memfd: run it on Linux 5.6 or later")


def _require_exit_statuses() -> None:
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        raise Unsupported(
            "SIGCHLD is ignored, so that the kernel throws exit statuses away: "
            "call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first"
        )


def _refuse_deferred(name: str, function: Callable[..., object], remedy: str) -> None:
    """Raise `TypeError` for a function whose call does nothing yet: a generator function or an `async def`."""
    for code in (function, type(function).__call__):
        if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
            raise TypeError(f"{name} is a generator function, whose call does nothing yet: {remedy}")
        if inspect.iscoroutinefunction(code):
            raise TypeError(f"{name} is an async function, whose call does nothing yet: {remedy}")


def _check_make_shared(make_shared: Callable[[], Any] | None) -> Callable[[], Any] | None:
    if make_shared is not None and not callable(make_shared):
        raise TypeError(f"make_shared is called without arguments, this is a {type(make_shared).__qualname__}")
    if make_shared is not None:
        _refuse_deferred("make_shared", make_shared, "return what is to be shared")
    return make_shared
