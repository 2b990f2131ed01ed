"""The supervisor: start children, reap them, decide about each death, recover, close.

    with Supervisor(make_shared=make_shared) as sup:
        sup.start(target, 42)
        for event in sup.run():
            ...

All that happens to children is seen and acted upon inside `step`, `run` and `close`: there is no thread, no signal
handler and no polling. One thread at a time, of the process that made the supervisor, uses it.
Source: PostgreSQL's postmaster.c (PostmasterMain, CleanupBackend, HandleChildCrash, PostmasterStateMachine).
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from armed import exits, recovery
from armed.errors import Closed, CrashWhileClosing, ForeignProcess, NotRunning, StartupFailed, Unsupported
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


@dataclass(frozen=True)
class Event:
    """One thing that happened; `generation` is the child's, or the supervisor's where there is no child."""

    kind: EventKind
    generation: int
    child: Child | None = None


class Supervisor:
    """Starts children that share memory, and recovers when one of them dies armed.

    slots        how many children there can be at once, 1 to 2**20
    make_shared  makes what the children share, from nothing: called now, and once in each recovery, in this process.
                 Its answer goes to every child of that generation; let it make locks, memory and queues anew
    stop_after   seconds that a child has from SIGQUIT to SIGKILL

    Leave its children to it: an exit status that a wait() of the program's own, or an ignored SIGCHLD, takes away is
    counted as a crash.

    Raises `StartupFailed` if make_shared raises, `Unsupported` on other systems than Linux 5.6 or later, `ValueError`
    and `TypeError` for arguments that are none.
    """

    _pid = 0  # for __del__, if __init__ raises

    def __init__(
        self, slots: int = 64, make_shared: Callable[[], Any] | None = None, *, stop_after: float = 5.0
    ) -> None:
        _require_linux()
        self._size = check_size(slots)
        self._make_shared = _check_make_shared(make_shared)
        self._stop_after = check_seconds("stop_after", stop_after)
        self._mode = Mode.RESETTING
        self._children: dict[int, Child] = {}  # by pidfd: those not reaped yet
        self._deadlines = NEVER
        self._events: list[Event] = []  # not returned yet
        self._is_closing = False
        self._crashed_while_closing = False
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

        Raises `SlotsExhausted`, `NotRunning` during recovery and closing, `Closed`, `OSError` when the system
        refuses: then no child is left and no slot is lost.
        """
        return self._start(target, args, None)

    def step(self, timeout: float) -> list[Event]:
        """Wait for something to happen, `timeout` seconds at most; act on it and return what happened, oldest first.

        An event that was not returned yet is returned at once. Recovery advances in here, and calls make_shared.
        Raises `StartupFailed` if that raises (then the supervisor has stopped and no child is left), and `Closed`.
        """
        deadline = time.monotonic() + check_seconds("timeout", timeout)
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
        self._require_open()
        self._turn(time.monotonic())
        while (self._children or self._mode is not Mode.RUNNING) and time.monotonic() < deadline:
            self._turn(deadline)
        return self._take_events()

    def close(self, timeout: float = 10.0) -> list[Event]:
        """End all children and free everything; return what happened. Harmless when repeated.

        The children get SIGTERM, and `timeout` seconds to end in the orderly way; who is left then is stopped, as in
        a recovery. A crash before that stops everyone at once, restarts nothing, and raises `CrashWhileClosing` when
        all has ended. During a recovery, waits for the children's end and leaves it at that. If an exception of a
        signal handler interrupts it, call it again.
        """
        check_seconds("timeout", timeout)
        if self._mode is Mode.STOPPED:
            return []
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
            error = CrashWhileClosing("a child crashed while closing, all have ended: see `events` for who and how")
            error.events = tuple(events)
            raise error
        return events

    def __enter__(self) -> Supervisor:
        self._require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        self._require_open()
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

    def _require_open(self) -> None:
        if self._pid != os.getpid():
            raise ForeignProcess("this supervisor belongs to the process that made it: make one of your own")
        if self._mode is Mode.STOPPED:
            raise Closed("this supervisor has stopped for good: make a new one")


def _require_linux() -> None:
    needed = {os: ("pidfd_open", "memfd_create", "waitid", "fork"), select: ("epoll",)}
    if sys.platform != "linux" or not all(hasattr(module, name) for module in needed for name in needed[module]):
        raise Unsupported("a Supervisor needs pidfds, epoll and memfd: run it on Linux 5.6 or later")


def _check_make_shared(make_shared: Callable[[], Any] | None) -> Callable[[], Any] | None:
    if make_shared is not None and not callable(make_shared):
        raise TypeError(f"make_shared is called without arguments, this is a {type(make_shared).__qualname__}")
    if inspect.isgeneratorfunction(make_shared):
        raise TypeError("make_shared is a generator function, which is not supported yet: return what is to be shared")
    return make_shared
