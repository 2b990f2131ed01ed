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

import _signal  # type: ignore[import-not-found] # as in launch.py
import contextlib
import enum
import inspect
import itertools
import logging
import math
import os
import re
import reprlib
import select
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field, replace
from threading import get_ident
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, NoReturn, TextIO

from armed import exits, recovery
from armed.early import MUTE, Bell, Deaf, Wanted, hang_bell, is_exiting
from armed.errors import (
    ArmedError,
    Closed,
    CrashWhileClosing,
    ForeignProcess,
    InUse,
    LostAtEnd,
    NotRunning,
    RecoveryLimit,
    SlotsExhausted,
    StartupFailed,
    Unsupported,
)
from armed.exits import Lifeline, Watch, check_seconds
from armed.journal import Journal
from armed.launch import Launch, flush_standard_streams, run_child, signals_blocked
from armed.recovery import NEVER, Deadlines, Generation, Mode, begin_generation
from armed.registry import Registry, cancel, draw_key
from armed.slots import SlotTable, check_size

__all__ = ["Child", "Decision", "Event", "EventKind", "Kind", "Outcome", "Supervisor", "decide"]

_LOG: Final = logging.getLogger("armed")
_LOG.addHandler(logging.NullHandler())  # a program that configures no logging is told by step() alone


class Kind(enum.Enum):
    """What a child is for."""

    WORKER = "worker"  # has a slot
    STARTUP = "startup"  # prepares a generation before it is served; no slot
    DEAD_END = "dead-end"  # says no, and ends; no slot


class Decision(enum.Enum):
    """What the supervisor makes of a death."""

    CLEAN = "clean"
    CRASH = "crash"


def decide(status: int, word: int, token: int, kind: Kind = Kind.WORKER) -> Decision:
    """Decide about a death: clean iff the status is 0 or 1 and the slot holds exactly its clean value.

    `status` as `exit_status` gives it, `word` as read at the release, `token` the clean value of that assignment.
    Exit status 1 alone is no crash: it is an error that the child survived to report, and gave back what it held.
    Where there is no slot the status decides; a startup child that says 1 has prepared nothing.
    Source: claims C1, C2, C9 and C15; PostgreSQL's CleanupBackend and HandleChildCrash.
    """
    clean = (0,) if kind is Kind.STARTUP else (0, 1)
    return Decision.CLEAN if status in clean and (kind is not Kind.WORKER or word == token) else Decision.CRASH


@dataclass(frozen=True)
class Outcome:
    """How a child ended."""

    decision: Decision
    status: int  # n for exit(n), -n for a death by signal n, or armed.exits.UNKNOWN
    slot_word: int  # as read at the release; 0 where there was no slot

    @property
    def lost(self) -> bool:
        """Whether its work must be presumed undone."""
        return self.decision is Decision.CRASH


@dataclass(eq=False)
class Child:
    """A child, alive or dead.

    `slot` is 0 where it has none, `outcome` is None until it is reaped, `cancel_key` is for `Supervisor.cancel`.
    """

    pid: int
    slot: int
    generation: int
    args: tuple[Any, ...]
    kind: Kind = Kind.WORKER
    restarts: Child | None = field(default=None, repr=False)  # the child whose work this one began anew
    outcome: Outcome | None = field(default=None, init=False)
    _target: Callable[..., object] | None = field(default=None, repr=False)  # where it is to be started again
    cancel_key: bytes = field(default=b"", repr=False)
    _token: int = field(default=0, repr=False)
    _end: Outcome | None = field(default=None, init=False, repr=False)  # known from its death on, until it is reaped
    _last_word: int | None = field(default=None, init=False, repr=False)  # if it was noticed before its death


@dataclass(eq=False)
class _Start:
    """A start that is under way, or was cut short: all that is needed to undo it."""

    target: Callable[..., object]
    args: tuple[Any, ...]
    kind: Kind = Kind.WORKER
    again: bool = False
    restarts: Child | None = None
    prelude: Callable[[], object] | None = None
    slot: int = 0
    token: int = 0
    child: Child = field(init=False)  # its pid is 0 until it is recorded
    pids: list[int] = field(default_factory=list)  # what fork answered
    pidfd: int | None = None
    status: int | None = None  # of the child, once it has been ended


class EventKind(enum.Enum):
    """What happened. A recovery is crashed, stopping, then lost or exited for each other child, reset, running.

    With a startup child, reset, startup, exited, running; or crashed, and the recovery begins anew.

    With early warning it begins while the child that crashed is still dying, and the others may be gone before it. A
    call that returns in that time tells of it: noticed. The events of the recovery, in this order all the same, are
    told when that child is reaped: then its outcome is known.
    """

    STARTED = "started"
    STARTUP = "startup"  # a startup child was started
    EXITED = "exited"  # decided clean
    NOTICED = "noticed"  # an armed child is dying, and the others are being stopped: crashed follows when it is dead
    CRASHED = "crashed"  # the death that started a recovery, or that spoilt an orderly close
    STOPPING = "stopping"  # whoever is left is made to end
    LOST = "lost"  # decided a crash when the others were being stopped already
    LIMIT = "limit"  # patience is over: with who did not stop, with a startup child (SIGKILL), with recoveries
    RESET = "reset"  # a new generation has been made
    RUNNING = "running"  # children are started again
    CLOSING = "closing"
    CLOSED = "closed"  # also where the next generation could not be made: no child is left, it has stopped for good


_ENDS = (EventKind.EXITED, EventKind.CRASHED, EventKind.LOST)
_ALARMING = (EventKind.CRASHED, EventKind.LOST, EventKind.LIMIT)


@dataclass(frozen=True)
class Event:
    """One thing that happened; `generation` is the child's, or the supervisor's where there is no child.

    `child.outcome` is how the child has ended by now, also in the event of its start. `repr` is of that time.
    """

    kind: EventKind
    generation: int
    child: Child | None = None

    def __hash__(self) -> int:
        return id(self.child)

    @property
    def is_end(self) -> bool:
        """Whether a child has ended."""
        return self.kind in _ENDS

    def __repr__(self) -> str:
        """Say what happened; the outcome is left out where it came later."""
        child = "" if self.child is None else f", {_name(self.child, with_end=self.is_end)}"
        return f"<Event {self.kind.value}, generation {self.generation}{child}>"


def _name(child: Child, with_end: bool = True) -> str:
    end = f", status {child.outcome.status}" if with_end and child.outcome is not None else ""
    place = f"child {child.pid} in slot {child.slot}" if child.slot else f"{child.kind.value} child {child.pid}"
    return f"{place} with args {reprlib.repr(child.args)}{end}"


def _lost_in(events: Iterable[Event]) -> str:
    """Name the children whose work these events report as lost; "" if there are none."""
    lost = [_name(event.child) for event in events if event.child and event.kind in (EventKind.CRASHED, EventKind.LOST)]
    return "; ".join(lost[:5]) + (f"; and {len(lost) - 5} more" if len(lost) > 5 else "")


class Supervisor:
    """Starts children that share memory, and recovers when one of them dies armed.

    slots          how many workers there can be at once, 1 to 2**20
    make_shared    makes what the children share, from nothing: called now, and once in each recovery, in this process.
                   Its answer goes to every child of that generation; let it make locks, memory and queues anew. A
                   generator function yields it once, and cleans up after the yield when the generation is gone
    startup        prepares a generation before it is served: startup(me, shared, previous), in a child of its own
                   without a slot, now and in each recovery. `previous` is what the generation before it shared, None at
                   first: the only place where that may be read. To fail, it raises or exits with a status but 0: then
                   there is another recovery
    startup_limit  seconds that it has
    start_method   "fork"; or "spawn", for a fresh interpreter each: then the target, its arguments and what is shared
                   are pickled, and locks and queues must be of multiprocessing's "spawn" context
    stop_after     seconds that a child has from SIGQUIT to SIGKILL
    restart_limit  (n, seconds): that many recoveries in that time, and no more; None: any number
    dead_end       says no where no slot is free, or others are being stopped in a recovery: dead_end(*args), in a child
                   without a slot, with the arguments of that start, instead of `SlotsExhausted` or `NotRunning`
    early_warning  whether the others are stopped already when an armed child begins to die, which for one with much
                   memory is long before it is dead: "auto", if the system can tell (Linux 6.7, io_uring allowed,
                   children that are forked), "on", or else `Unsupported` is raised, or "off". What is decided does not
                   depend on it
    on_event       called with each event when it is told, in this process; what it raises is logged
    journal        a path or a text stream, to which each event is written as a line of JSON (`armed.journal`)

    Each event is logged, too (`logging.getLogger("armed")`).

    Leave its children to it: an exit status that a wait() of the program's own takes away is counted as a crash (status
    -127), with a `RuntimeWarning`.

    Raises `StartupFailed` if make_shared or the startup child fails, `Unsupported` on other systems than Linux 5.6 or
    later and while SIGCHLD is ignored, `ValueError` and `TypeError` for arguments that are none.
    """

    _pid = 0  # for __del__, if __init__ raises

    def __init__(
        self,
        slots: int = 64,
        make_shared: Callable[[], Any] | None = None,
        *,
        startup: Callable[..., object] | None = None,
        startup_limit: float = 60.0,
        start_method: str = "fork",
        stop_after: float = 5.0,
        restart_limit: tuple[int, float] | None = (5, 60.0),
        dead_end: Callable[..., object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        journal: str | os.PathLike[str] | TextIO | None = None,
        early_warning: Wanted = "auto",
    ) -> None:
        _require_linux()
        _require_exit_statuses()
        self._size = check_size("slots", slots)
        self._make_shared = _check_callable("make_shared", make_shared, "return what is to be shared", generators=True)
        self._startup = _check_callable("startup", startup, "call asyncio.run() or the loop inside it")
        self._startup_limit = check_seconds("startup_limit", startup_limit)
        if start_method not in ("fork", "spawn"):
            raise ValueError(f"start_method is {start_method!r}: give 'fork' or 'spawn'")
        self._spawning: Callable[..., contextlib.AbstractContextManager[Callable[[], int]]] | None = None
        if start_method == "spawn":
            from armed.spawn import spawning  # it loads much of multiprocessing, which a fork does without

            self._spawning = spawning
        self._stop_after = check_seconds("stop_after", stop_after)
        self._restart_limit = _check_limit(restart_limit)
        self._dead_end = _check_callable("dead_end", dead_end, "call asyncio.run() or the loop inside it")
        self._on_event = _check_callable("on_event", on_event, "schedule it, and return")
        self._mode = Mode.RESETTING
        self._previous: Generation | None = None  # served last; kept for the startup child
        self._is_prepared = self._startup is None
        self._recovered_at: dict[int, float] = {}  # when the last generations ended, on the clock of time.monotonic
        self._reset_of = 1  # the generation whose reset was noted last; the first has none
        self._again: dict[Child, None] = {}  # whose work is to be begun anew
        self._counts: Counter[str] = Counter()
        self._children: dict[int, Child] = {}  # by pidfd: those not reaped yet
        self._deadlines = NEVER
        self._events: dict[Event, None] = {}  # not returned yet, in order; what is noted twice is there once
        self._starts: list[_Start] = []
        self._culprit: Child | None = None  # whose crash began the last recovery
        self._is_closing = False
        self._crashed_while_closing = False
        self._user: dict[str, tuple[int]] = {}  # the thread that is in one of the methods
        self._checked: object = None  # the target that was started last
        self._close_asked: float | None = None  # seconds that a close has, which a signal handler called at a bad time
        self._told: dict[Event, None] = {}  # of the events not returned yet: those counted, logged and written already
        with contextlib.ExitStack() as undo:
            self._lifeline = Lifeline()
            undo.callback(self._lifeline.close)
            self._watch = Watch()
            undo.callback(self._watch.close)
            self._bell, self._early_warning = hang_bell(early_warning, start_method)
            if self._bell is not None:
                undo.callback(self._bell.close)
                self._watch.add_file(self._bell.ear.file)
            self._journal = None if journal is None else Journal(journal)
            if self._journal is not None:
                undo.callback(self._journal.close)
            self._generation = begin_generation(1, self._size, make_shared)  # last: nothing of it is to be undone
            undo.pop_all()
        self._pid = os.getpid()
        self._mode = Mode.STARTING if self._startup else Mode.RUNNING
        self._open_journal()
        try:
            while self._mode is not Mode.RUNNING:
                self._turn(float("inf"))
        except BaseException:
            self._end_all()
            self._tell(())
            raise

    @property
    def mode(self) -> Mode:
        """What the supervisor is about."""
        return self._mode

    @property
    def generation(self) -> int:
        """The number of the generation, from 1; each recovery begins the next."""
        return self._generation.number

    @property
    def early_warning(self) -> str:
        """Say "on", or "off: " and why."""
        return self._early_warning

    @property
    def slots(self) -> SlotTable:
        """The slot table of this generation, for observers."""
        return self._generation.slots

    @property
    def counts(self) -> dict[str, int]:
        """How many events of each kind have been told, by their kinds' values."""
        return dict(self._counts)

    def fileno(self) -> int:
        """Return a descriptor that is readable when a child has died: then, and after `due_in`, call step(0).

        For selectors and event loops, which are not to read from it.
        """
        self._require_open()
        return self._watch.fileno()

    def due_in(self) -> float | None:
        """Return the seconds until there is something to do for `step` even if no child dies; None: nothing."""
        self._require_open()
        is_due = not self._children and self._is_recovering()
        if is_due or self._tellable() or self._may_start_again() or self._starts:
            return 0.0
        due = self._deadlines.next
        return None if due == float("inf") else max(due - time.monotonic(), 0.0)

    @property
    def registry(self) -> Registry:
        """The registry of this generation, to be handed to a process of your own that serves cancel requests."""
        return self._generation.registry

    @property
    def children(self) -> tuple[Child, ...]:
        """The children that are not reaped yet, oldest first."""
        return tuple(self._children.values())

    def start(self, target: Callable[..., object], *args: object, restart: bool = False) -> Child:
        """Start a child that calls target(me, shared, *args), `me` being its `Engager`.

        With `restart`, it is started again in the next generation if its work was lost in a recovery: the new child's
        `restarts` is the old one. Its work is begun anew; what it had done and undone is its own to find out.

        Where no slot is free, or while others are being stopped in a recovery, and the supervisor has a `dead_end`,
        that is called in a child of its own instead, whose slot is 0.

        Raises `SlotsExhausted`, `NotRunning` during recovery (the rest of it) and closing, `Closed`, `InUse`,
        `Unsupported` while SIGCHLD is ignored, `OSError` when the system refuses, `TypeError` for what is no target,
        such as a generator function: then no child is left and no slot is lost. If the system refuses after the fork,
        and the child had armed already or somebody else has taken its exit status, there is a crashed event. After an
        exception of a signal handler either nothing is left, too, or the child is one of `children` and has a started
        event.
        """
        return self._start(target, args, None, restart=restart)

    def step(self, timeout: float) -> list[Event]:
        """Wait for something to happen, `timeout` seconds at most; act on it and return what happened, oldest first.

        An event that was not returned yet is returned at once. Recovery advances in here, and calls make_shared: deaths
        are told before, so that a loop of steps hears of a crash at once.
        Raises `StartupFailed` if that raises or the startup child fails too often, `RecoveryLimit` if there were too
        many recoveries (then the supervisor has stopped and no child is left), `Closed`, `InUse`, and `OSError` when
        the system refuses memory for the next generation, or a child that is to start again: call it again.
        """
        deadline = time.monotonic() + check_seconds("timeout", timeout)

        def work() -> None:
            self._require_open()
            self._turn(time.monotonic() if self._tellable() else deadline)
            while not self._tellable() and self._mode is not Mode.STOPPED and time.monotonic() < deadline:
                self._turn(deadline)

        return self._deliver(work)

    def run(self, timeout: float | None = None) -> list[Event]:
        """Step until no child is left and no recovery is under way, or for `timeout` seconds; return what happened.

        Once closing has begun, only until no child is left: nothing is recovered then. Raises as `step` does.
        """
        deadline = time.monotonic() + (float("inf") if timeout is None else check_seconds("timeout", timeout))

        def work() -> None:
            self._require_open()
            self._turn(time.monotonic())
            while (self._children or self._is_recovering()) and time.monotonic() < deadline:
                self._turn(deadline)

        return self._deliver(work)

    def cancel(self, pid: int, key: bytes) -> bool:
        """Send the cancel signal, SIGUSR1, to the living child with this pid and `cancel_key`; return whether it was.

        For any thread, also while another one is in `run`, and for signal handlers. Whoever is not a living child of
        this generation is not signalled, whatever is asked. O(1): the key says which entry it is about. A child
        without a handler of its own for the signal ends by it as by SIGTERM. Raises `ForeignProcess` (another process
        uses `armed.cancel` and the registry), and as `armed.cancel` does.
        """
        self._require_own_process()
        return cancel(self.registry, pid, key)

    def close(self, timeout: float = 10.0) -> list[Event]:
        """End all children and free everything; return what happened. Harmless when repeated.

        The children get SIGTERM, and `timeout` seconds to end in the orderly way; who is left then is stopped, as in
        a recovery, and has a lost event. A crash before that stops everyone at once, restarts nothing, and raises
        `CrashWhileClosing` when all has ended. During a recovery, waits for the children's end and leaves it at that.
        If an exception of a signal handler interrupts it, call it again: the earlier end of the two timeouts counts,
        and what was not returned or raised yet is. Raises `InUse`.

        The end of a `with` block closes, too. It returns no events: if one says that work was lost, it raises
        `LostAtEnd`. If an exception ended the block, that one is passed on, with a note about what went wrong here.
        """
        timeout = check_seconds("timeout", timeout)
        if self._is_below(_WORKING):
            self._close_asked = timeout
        return self._deliver(lambda: self._close(timeout), self._tell_of_a_crash)

    def _close(self, timeout: float) -> None:
        if self._mode is Mode.STOPPED:
            return
        if not self._is_closing:
            self._note(EventKind.CLOSING)
            self._is_closing = True
        if self._mode is Mode.RUNNING:
            now = time.monotonic()
            self._deadlines = Deadlines(ask_at=now, stop_at=min(now + timeout, self._deadlines.stop_at))
        elif self._mode is Mode.STARTING:  # the startup child prepares what nobody will use
            self._stop_children()
        while self._children:
            self._turn(float("inf"))
        if self.mode is not Mode.STOPPED:  # a signal handler may have closed it meanwhile
            self._note(EventKind.CLOSED)
            self._shut()

    def _tell_of_a_crash(self, events: list[Event]) -> None:
        if self._crashed_while_closing:
            crash = CrashWhileClosing(f"a child crashed while closing, all have ended: {_lost_in(events)}")
            crash.events = tuple(events)
            self._tell(events)
            raise crash

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
            self._tell(())
            warnings.warn(f"{self!r} was never closed: use `with`, or close()", ResourceWarning, 2, self)

    # Starting.

    def _start(
        self,
        target: Callable[..., object],
        args: tuple[object, ...],
        prelude: Callable[[], object] | None,
        restart: bool = False,
    ) -> Child:
        if not callable(target):
            raise TypeError(f"a target is called with (me, shared, *args), this is a {type(target).__qualname__}")
        if target is not self._checked:
            _refuse_deferred("target", target, "call asyncio.run() or the loop inside it")
            self._checked = target
        with self._one_thread():
            if self._mode is not Mode.RUNNING or self._is_closing:
                self._require_open()
                if self._may_refuse_in_recovery():
                    return self._refuse(args)
                what = "closing" if self._is_closing else self._mode.value
                raise NotRunning(f"no child is started while {what}: step() until there is a running event")
            start = _Start(target, args, again=restart, prelude=prelude)
            try:
                self._fork([start])
            except SlotsExhausted:
                if self._dead_end is None:
                    raise
                return self._refuse(args)
            if self._close_asked is not None:
                self._close_if_asked()
            return start.child

    def _refuse(self, args: tuple[object, ...]) -> Child:
        assert self._dead_end is not None
        start = _Start(_WithoutAccess(self._dead_end), args, Kind.DEAD_END)
        self._fork([start])
        return start.child

    def _may_refuse_in_recovery(self) -> bool:
        """Whether a dead-end child is started now: as long as others are being stopped, or it might never end."""
        others = any(child.kind is not Kind.DEAD_END for child in self._children.values())
        may = self._dead_end is not None and self._mode is Mode.STOPPING and not self._is_closing
        return may and others and self._lifeline.is_held

    def _fork(self, starts: list[_Start]) -> None:
        """Start these children. Raises `OSError`: then those before the one that was refused have been started."""
        _require_exit_statuses()
        flush_standard_streams()
        self._starts += starts
        try:
            self._begin(starts)
        except BaseException:
            if self._pid != os.getpid():
                os._exit(1)  # a child must not become a second supervisor
            self._undo_starts()
            raise

    def _begin(self, starts: list[_Start]) -> None:
        """Fork and record children. Where an exception comes, at any bytecode, `_starts` tells what is to be undone.

        Each step is done for all before the next is done for any. After a fork every page that is written is copied:
        what can be done before the first, or after the last, is not done between two.

        Signals are blocked for the children's sake. Here that keeps handlers out only while there is one thread:
        another one may get the signal, and Python runs its handler in the main thread nevertheless.
        """
        with signals_blocked() as mask:
            launches = [self._prepare(start, mask) for start in starts]
            try:
                for start, launch in zip(starts, launches, strict=True):
                    # One call of C code starts a process and records the answer.
                    if self._spawning is not None:
                        with self._spawning(launch, self.slots, self._lifeline) as spawn:
                            start.pids.extend(itertools.starmap(spawn, ((),)))
                    else:
                        start.pids.extend(itertools.starmap(os.fork, ((),)))
                    if start.pids[0] == 0:
                        # Who has no slot has a word and a token that nobody looks at.
                        slot = launch.slot
                        run_child(launch, self.slots.view(slot) if slot else memoryview(bytearray(8)).cast("Q"))
                    start.pidfd = self._watch.open(start.pids[0])  # here, as a descriptor is what may be refused
            finally:
                if self._pid == os.getpid():
                    for start in starts:
                        if start.pidfd is not None:
                            self._record(start, start.pidfd)

    def _prepare(self, start: _Start, mask: Set[int]) -> Launch:
        generation = self._generation
        rope = MUTE if self._bell is None else self._bell.rope()
        if start.kind is Kind.WORKER:
            start.slot, start.token = generation.slots.assign()
        slot, token = start.slot, start.token
        start.child = Child(
            0, slot, generation.number, start.args, start.kind, start.restarts, start.target if start.again else None,
            draw_key(slot) if slot else b"", token,
        )  # fmt: skip
        return Launch(
            start.target, start.args, generation.shared, slot, generation.number, token or 1, mask, start.prelude,
            self._lifeline, self._watch, rope,
        )  # fmt: skip

    def _record(self, start: _Start, pidfd: int) -> None:
        child = start.child
        child.pid = start.pids[0]
        if child.slot:
            self.registry.enter(child.slot, child.pid, child.cancel_key)
        self._note(EventKind.STARTUP if child.kind is Kind.STARTUP else EventKind.STARTED, child)
        self._watch.add(pidfd)
        self._children[pidfd] = child
        self._starts.remove(start)

    def _undo_starts(self) -> None:
        """Leave nothing of a start that was cut short. If this is cut short itself, the next call begins with it."""
        if self._is_below(_STARTING):  # a signal handler called; who was interrupted goes on, or comes here himself
            return
        starts = list(self._starts)
        for start in starts:
            if start.pids and start.child not in self._children.values():
                self._undo(start)
        ear = set() if self._bell is None else {self._bell.ear.number}
        for pidfd in self._watch.opened() - self._children.keys() - ear:
            self._watch.remove(pidfd)
        if self._mode is not Mode.STOPPED:
            owned = {child.slot for child in self._children.values() if self._has_slot(child)}
            for slot in self.slots.in_use().keys() - owned:
                self.slots.release(slot)  # 8.4.0 forgot this after a failed fork (commit 45f9b4646f2f)
            self.slots.recount()
        for start in starts:
            self._starts.remove(start)

    def _is_below(self, codes: Set[CodeType]) -> bool:
        """Whether one of these methods is under way below the caller. The stack cannot be wrong, as a mark can."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            if frame.f_code in codes and frame.f_locals["self"] is self:
                return True
            frame = frame.f_back
        return False

    def _undo(self, start: _Start) -> None:
        child = start.child
        child.pid = start.pids[0]
        if start.status is None:
            if self._has_slot(child):
                self.registry.clear(child.slot)  # as in _reap
            start.status = exits.end(child.pid)
        if self._mode is not Mode.STOPPED and self._has_slot(child):
            word = self.slots.word(child.slot)
            if word != start.token or start.status == exits.UNKNOWN:  # it was quick, and armed already
                self._note(EventKind.STARTED, child)  # who has crashed was started
                self._conclude(child, Outcome(Decision.CRASH, start.status, word))
                return
        for kind in (EventKind.STARTED, EventKind.STARTUP):
            self._events.pop(Event(kind, child.generation, child), None)

    # What happens.

    def _turn(self, deadline: float) -> None:
        """Wait for deaths or until something is due, `deadline` at the latest; do what that asks for at once.

        What has happened is told before the next generation is made, which calls make_shared: that is due then. Who is
        dead is reaped before lost work is begun anew: that may fail for want of what the dead still have.
        """
        noted = len(self._tellable())
        self._advance()
        is_due = len(self._tellable()) > noted or self._may_start_again() or self._close_asked is not None
        due = 0.0 if is_due else min(deadline, self._deadlines.next)
        try:
            seconds, wait = due - time.monotonic(), self._watch.wait
            for pidfd in wait(seconds) if self._bell is None else self._bell.wait(wait, seconds):
                with signals_blocked():  # keeps handlers out where there is one thread only: see _begin
                    if self._bell is not None and pidfd == self._bell.ear.number:
                        self._listen(self._bell)
                    else:
                        self._reap(pidfd)
        except (OSError, ValueError, Closed):
            if self._mode is not Mode.STOPPED:  # else a signal handler closed the supervisor in the middle of this
                raise
        if len(self._tellable()) == noted:
            self._advance()
        if self._may_start_again():
            self._start_again()
        self._close_if_asked()

    def _close_if_asked(self) -> None:
        """Do what a signal handler's call of close() has left to the call that it interrupted."""
        if self._close_asked is not None:
            timeout, self._close_asked = self._close_asked, None
            self._close(timeout)

    def _listen(self, bell: Bell) -> None:
        """The bell has rung, or will not ring any more."""
        try:
            for _ in bell.ear.rings():
                if self._mode is Mode.RUNNING:
                    self._look_who_is_dying()
        except Deaf as error:
            self._early_warning = f"off: {error}"
            self._bell = None
            self._watch.remove(bell.ear.number)
            bell.close()
            _LOG.warning("early warning is off: %s", error)

    def _look_who_is_dying(self) -> None:
        """Begin recovery if a child is dying that has not disarmed; it is reaped, and its crash decided, later.

        The word counts that is read when the child's main thread executes nothing any more: nobody else disarms it. The
        look before that only spares most children the other one, which is dear.
        """
        for child in list(self._children.values()):
            if not child.slot or child._end is not None or self.slots.word(child.slot) == child._token:
                continue
            if is_exiting(child.pid):
                word = self.slots.word(child.slot)
                if word != child._token:
                    child._last_word = word
                    self._blame(child)
                    return

    def _reap(self, pidfd: int) -> None:
        """Decide about a dead child and let it go. Its slot is read while its pid still is its own.

        An exception may come at any bytecode, and another call in the meantime: each step may be taken again, and the
        pidfd is reported until the last one has been.
        """
        child = self._children.get(pidfd)
        if child is not None:
            if child._end is None:
                status = exits.observe(pidfd)
                if status is None:
                    return
                if child._last_word is not None:
                    word = child._last_word
                else:
                    word = self.slots.word(child.slot) if child.slot else 0
                child._end = Outcome(decide(status, word, child._token, child.kind), status, word)
            self._conclude(child, child._end)
            if self._has_slot(child):
                # Before the pid is let go: a canceller that finds the entry still there may rely on the pid.
                self.registry.clear(child.slot)
                self.slots.release(child.slot)
            exits.reap(pidfd)
            self._children.pop(pidfd, None)
        self._watch.remove(pidfd)
        if child is not None and child._end is not None and child._end.status == exits.UNKNOWN:
            warnings.warn(  # last: a filter may make it an exception
                f"{_name(child, with_end=False)} counts as crashed: its exit status was taken away. Ignore no SIGCHLD, "
                "and wait for processes of your own by their pid, not with os.wait() or waitpid(-1)",
                RuntimeWarning,
                2,
            )

    def _has_slot(self, child: Child) -> bool:
        """Whether the slot is still this child's: a token is drawn for one assignment only."""
        return self.slots.in_use_by(child.slot, child._token)

    def _conclude(self, child: Child, outcome: Outcome) -> None:
        """Record how a child ended. The first crash stops the others; a second one adds nothing. May be repeated."""
        if not outcome.lost:
            if child.kind is Kind.STARTUP:
                self._is_prepared = True
            self._note(EventKind.EXITED, child)
        elif self._mode in (Mode.RUNNING, Mode.STARTING) or self._culprit is child:
            self._blame(child)
        else:
            self._note(EventKind.LOST, child)
        if child._last_word is not None:
            self._events.pop(Event(EventKind.NOTICED, child.generation, child), None)  # no news any more
        if child.restarts is not None:
            self._again.pop(child.restarts, None)  # it was begun anew, though an exception came before this was noted
        if outcome.lost and child._target is not None:
            self._again[child] = None  # not before the recovery has begun, or it would be started in this generation
        child.outcome = outcome

    def _blame(self, child: Child) -> None:
        """Begin recovery, if this has not been done already: a child that was noticed early is reaped later."""
        self._culprit = child
        crashed = Event(EventKind.CRASHED, child.generation, child)
        if crashed not in self._events:
            self._crashed_while_closing = self._is_closing  # and not what it is when the child is reaped
            if child._last_word is not None and child._end is None:
                self._note(EventKind.NOTICED, child)
            self._note(crashed.kind, child)
        if self._deadlines.kill_at == math.inf:
            self._deadlines = replace(self._deadlines, stop_at=-math.inf)  # so it is due, if an exception interrupts it
            self._stop_children()

    def _stop_children(self) -> None:
        self._mode = Mode.STOPPING
        self._note(EventKind.STOPPING)
        recovery.stop([(pidfd, child.pid) for pidfd, child in list(self._children.items()) if child._end is None])
        self._deadlines = Deadlines(kill_at=time.monotonic() + self._stop_after)

    def _advance(self) -> None:
        """Do what is due: lose patience with who should have ended, reset when all are gone.

        What is due is done first and crossed off then: an exception between the two has it done again, not forgotten.
        """
        now = time.monotonic()
        if now >= self._deadlines.ask_at:
            recovery.ask_to_end(list(self._children))
            self._deadlines = replace(self._deadlines, ask_at=now + recovery.ASK_AGAIN_AFTER)
        if now >= self._deadlines.stop_at:
            self._stop_children()
        if self._mode is Mode.STOPPING and all(child.kind is Kind.DEAD_END for child in self._children.values()):
            recovery.stop([(pidfd, child.pid) for pidfd, child in list(self._children.items()) if child._end is None])
        if now >= self._deadlines.startup_at:
            self._note(EventKind.LIMIT)
            recovery.kill(list(self._children))
            self._deadlines = NEVER
        if now >= self._deadlines.kill_at:
            # Who is noticed to be dying has stopped; how long the kernel takes over it is not his to say.
            if any(child._end is None and child._last_word is None for child in self._children.values()):
                self._note(EventKind.LIMIT)
            recovery.kill(list(self._children))
            self._lifeline.let_go()  # it ends those, too, whom we have no right to kill
            self._deadlines = NEVER
        if not self._children and self._is_recovering():
            self._reset()

    def _is_recovering(self) -> bool:
        """Whether there is a next generation to come: none is made once closing has begun."""
        return self._mode not in (Mode.RUNNING, Mode.STOPPED) and not self._is_closing

    def _reset(self) -> None:
        """Begin the next generation. An exception of a signal handler leaves it to the next step to go on."""
        if self._mode is not Mode.STARTING:
            self._mode = Mode.RESETTING
            self._deadlines = NEVER
            last = self._generation
            self._require_patience(last.number)
            if not self._lifeline.is_held:
                self._lifeline.close()
                self._lifeline = Lifeline()
            try:
                fresh = begin_generation(last.number + 1, self._size, self._make_shared)
            except StartupFailed as error:
                self._give_up(error)
            was_served, self._is_prepared = self._is_prepared, self._startup is None
            self._generation, self._mode = fresh, Mode.STARTING
            # What a startup child failed to prepare is no generation that the next one could read.
            if self._startup is not None and self._previous is None and was_served:
                self._previous = last
                last.close()
            else:
                last.retire()
        if self._reset_of != self.generation:
            self._note(EventKind.RESET)
            self._reset_of = self.generation
        if not self._is_prepared:
            assert self._startup is not None
            previous = None if self._previous is None else self._previous.shared
            self._deadlines = Deadlines(startup_at=time.monotonic() + self._startup_limit)
            self._fork([_Start(self._startup, (previous,), Kind.STARTUP)])
            return
        if self._previous is not None:
            self._previous.retire()
            self._previous = None
        self._deadlines = NEVER
        self._note(EventKind.RUNNING)
        self._mode = Mode.RUNNING

    def _require_patience(self, ended: int) -> None:
        """Stop for good if there were too many recoveries, that from the generation `ended` included."""
        if self._restart_limit is None:
            return
        most, seconds = self._restart_limit
        now = time.monotonic()
        self._recovered_at = {ended: now} | {n: at for n, at in self._recovered_at.items() if at > now - seconds}
        if len(self._recovered_at) > most:
            self._note(EventKind.LIMIT)
            failed = self._culprit is not None and self._culprit.kind is Kind.STARTUP
            what = "the startup child failed" if failed else "a child crashed"
            kind = StartupFailed if failed else RecoveryLimit
            self._give_up(
                kind(
                    f"{what}, the recovery after it would be number {len(self._recovered_at)} in {seconds} seconds, "
                    f"and restart_limit allows {most}: no child is left; find out why, and make a new Supervisor"
                )
            )

    def _give_up(self, error: StartupFailed | RecoveryLimit) -> NoReturn:
        self._note(EventKind.CLOSED)
        self._shut()
        error.events = tuple(self._events)
        self._tell(error.events)
        self._events = {}
        raise error

    def _may_start_again(self) -> bool:
        return bool(self._again) and (self._is_closing or (self._mode is Mode.RUNNING and self.slots.free > 0))

    def _start_again(self) -> None:
        """Begin the work anew that was lost. Its new child tells what was begun: nothing is lost or begun twice.

        Where no slot is free, as the program has started others meanwhile, this waits for one.
        """
        if self._is_closing:
            self._again.clear()
        begun = {child.restarts for child in self._children.values()}
        starts: dict[Child, _Start] = {}
        for lost in list(self._again):
            if lost in begun:
                self._again.pop(lost, None)
            elif len(starts) < self.slots.free:
                assert lost._target is not None
                starts[lost] = _Start(lost._target, lost.args, again=True, restarts=lost)
        if starts:
            self._fork(list(starts.values()))
        for lost in starts:
            self._again.pop(lost, None)

    def _note(self, kind: EventKind, child: Child | None = None) -> None:
        self._events[Event(kind, self.generation if child is None else child.generation, child)] = None

    def _deliver(self, work: Callable[[], None], tell: Callable[[list[Event]], None] | None = None) -> list[Event]:
        """Do the work of a method and return what happened; `tell` may raise it instead.

        If a signal handler raises on the way out, what happened is kept for the next call.
        """
        if self._is_below(_WORKING):  # a signal handler's call, in the middle of what may not be done twice at a time
            return []
        taken: dict[Event, None] = {}
        try:
            with self._one_thread():
                work()
                if tell is not None:
                    tell(list(self._events))
                taken = self._events
                events = self._hand_over()
                self._tell(events)
                self._told.clear()
        except CrashWhileClosing:
            self._events, self._crashed_while_closing = {}, False  # last: it has been told, with its events
            raise
        except BaseException:
            if taken is not self._events:
                self._events = taken | self._events
            raise
        return events

    def _hand_over(self) -> list[Event]:
        told = self._tellable()
        self._events = dict.fromkeys(list(self._events)[len(told) :])
        return list(told)

    def _open_journal(self) -> None:
        try:
            if self._journal is not None:
                self._journal.open(self._size, self._startup is not None)
        except Exception:
            _LOG.exception("the journal could not be begun")  # nor is it a reason to stop where an event cannot be told

    def _tell(self, events: Iterable[Event]) -> None:
        """Count, log and write events, and call on_event. What fails there is logged, and changes nothing here."""
        for event in events:
            if event in self._told:  # an exception came before it could be returned
                continue
            self._told[event] = None
            self._counts[event.kind.value] += 1
            _LOG.log(logging.WARNING if event.kind in _ALARMING else logging.INFO, "%r", event)
            for tell in (None if self._journal is None else self._journal.write, self._on_event):
                try:
                    if tell is not None:
                        tell(event)
                except Exception:
                    _LOG.exception("%r could not be told to %r", event, tell)
        if self._mode is Mode.STOPPED and self._journal is not None and not self._is_below({Supervisor._tell.__code__}):
            self._journal.close()  # not yet, if on_event has closed the supervisor: the rest is to be written

    def _end_all(self) -> None:
        """Kill and reap whoever is left, and shut."""
        recovery.kill(list(self._children))
        self._lifeline.let_go()
        while self._children:
            for pidfd in self._watch.wait(math.inf):
                self._reap(pidfd)
        self._shut()

    def _tellable(self) -> dict[Event, None]:
        """What has happened, without a crash whose child is still dying, and what came after it."""
        if self._culprit is None or self._culprit.outcome is not None:
            return self._events
        crashed = Event(EventKind.CRASHED, self._culprit.generation, self._culprit)
        return dict.fromkeys(itertools.takewhile(lambda event: event != crashed, self._events))

    def _shut(self) -> None:
        """Free everything; with the lifeline's write end any child still there ends. Each step may be repeated."""
        self._deadlines = NEVER
        self._lifeline.close()
        self._watch.close()
        if self._bell is not None:
            self._bell.close()
        self._again.clear()
        for generation in (self._previous, self._generation):
            if generation is not None:
                generation.retire()
        self._mode = Mode.STOPPED  # last: until then a close begins here again

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
            if self._starts:
                self._undo_starts()
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


_STARTING: Final = {Supervisor._begin.__code__, Supervisor._undo_starts.__code__}
_WORKING: Final = {
    method.__code__
    for method in (
        Supervisor._advance, Supervisor._start_again, Supervisor._listen, Supervisor._reap, Supervisor._begin,
        Supervisor._undo_starts, Supervisor._hand_over,
    )
}  # fmt: skip
"""What is not done twice at a time: a call of a signal handler that interrupts it leaves it to the interrupted one."""


def _require_linux() -> None:
    needed = {os: ("pidfd_open", "memfd_create", "waitid", "fork"), select: ("epoll",)}
    if sys.platform != "linux" or not all(hasattr(module, name) for module in needed for name in needed[module]):
        raise Unsupported("a Supervisor needs pidfds, epoll and memfd: run it on Linux 5.6 or later")
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if release is not None and (int(release[1]), int(release[2])) < (5, 6):
        raise Unsupported(f"on Linux {release[0]} the end of one child would end all: run it on Linux 5.6 or later")


def _require_exit_statuses() -> None:
    if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
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


def _check_callable(
    name: str, function: Callable[..., Any] | None, remedy: str, *, generators: bool = False
) -> Callable[..., Any] | None:
    if function is not None and not callable(function):
        raise TypeError(f"{name} is called, this is a {type(function).__qualname__}")
    if function is not None and not (generators and inspect.isgeneratorfunction(function)):
        _refuse_deferred(name, function, remedy)
    return function


def _check_limit(limit: tuple[int, float] | None) -> tuple[int, float] | None:
    if limit is None:
        return None
    try:
        most, seconds = limit
    except (TypeError, ValueError):
        raise TypeError(f"restart_limit is {limit!r}: give (number of recoveries, seconds), or None") from None
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise ValueError(f"restart_limit is {limit!r}: its first member is how many recoveries, 0 or more")
    return most, check_seconds("restart_limit's time", seconds)


@dataclass(frozen=True)
class _WithoutAccess:
    """A target that gets its arguments alone."""

    function: Callable[..., object]

    def __call__(self, me: object, shared: object, *args: object) -> None:
        self.function(*args)
