"""Adapter for the package `armed`: real forked children, stepped; real signals, real shared memory."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from armed import CrashWhileClosing, Event, EventKind, Mode, NotRunning, SlotsExhausted, StartupFailed, Supervisor
from armed.testing import Cells, Command, SteppedChild, Stepper
from armed_conformance.protocol import Circumstance, Death, Decided, ExitKind, Observation, Possible, Refused, Step
from armed_model.lifecycle import SlotState
from armed_model.profiles import REFERENCE

LIMIT = 20.0
"""Seconds in which the supervisor must have dealt with a death, or finished a recovery."""

STUCK_AFTER = 0.1
"""Seconds after which a shutdown loses patience with a child that is stuck on purpose. A recovery does only where that
is arranged, so that a history runs the same way each time: a stuck child holds it up until the history ends it."""

_SIGNALS = {
    ExitKind.SIGTERM: signal.SIGTERM,
    ExitKind.SIGKILL: signal.SIGKILL,
    ExitKind.SIGSEGV: signal.SIGSEGV,
}


_MAY_BE_THE_LAST = frozenset({Step.DISARM, Step.GIVE_FAILS, Step.GIVE_FAILS_LATE})
"""Steps after which, on the way out, nothing is left to do but to end."""


_DEATHS = "(exited |lost |limit )*"
_CRASH = "(noticed )?crashed stopping "
_LIFE = f"((started |exited )*{_CRASH}{_DEATHS}reset running )*(started |exited )*"
_CLOSED = f"closing (exited )*((crashed )?stopping {_DEATHS})?closed "
_CLOSED_IN_RECOVERY = f"{_CRASH}{_DEATHS}closing {_DEATHS}closed "
_STARTUP_FAILED = f"{_CRASH}{_DEATHS}closed "
EVENTS = re.compile(f"{_LIFE}({_CLOSED}|{_CLOSED_IN_RECOVERY}|{_STARTUP_FAILED})")
"""The kinds of all events of a supervisor that has stopped, in their order."""


class ArmedFork:
    """`armed.Supervisor` with children started by fork. The supervisor acts only inside `supervise` and the end.

    What `armed` tells besides what the protocol asks for is checked here, and AssertionError says what is wrong: the
    order of all events, the outcome of each child, its generation, and whether close() raises what it must.
    """

    profile = REFERENCE
    cannot: frozenset[Possible] = frozenset()
    start_method = "fork"
    early_warning: Literal["auto", "off"] = "auto"

    def __init__(self) -> None:
        self._supervisor: Supervisor | None = None
        self._cells: Cells | None = None
        self._children: dict[int, SteppedChild] = {}
        self._frozen: set[int] = set()
        self._deaths: list[Death] = []
        self._recovering = False
        self._arranged: set[Circumstance] = set()
        self._kinds: list[EventKind] = []
        self._words: dict[int, int] = {}  # child -> the word in its slot, noted when it was dead and not reaped

    def open(self, slots: int) -> None:
        """Start the supervisor with so many slots."""
        self._slots = slots

        def make_shared() -> Iterator[Cells]:
            if Circumstance.STARTUP_FAILS in self._arranged:
                raise RuntimeError("this generation cannot be made: it was arranged so")
            cells = self._cells = Cells(slots)
            yield cells
            cells.close()

        self._supervisor = self.make_supervisor(slots, make_shared)
        self._stepper = Stepper(self._supervisor)

    def make_supervisor(self, slots: int, make_shared: Callable[[], object]) -> Supervisor:
        """Make the supervisor under test; a variant with a planted bug makes another one."""
        return Supervisor(
            slots,
            make_shared,
            stop_after=LIMIT,
            restart_limit=None,
            start_method=self.start_method,
            early_warning=self.early_warning,
        )

    def start(self) -> int:
        """Start a child that stands before its exit path."""
        try:
            with self._failing_fork():
                stepped = self._stepper.start()
        except (SlotsExhausted, NotRunning, ForkFailed) as error:
            raise Refused(type(error).__name__) from error
        number = len(self._children) + 1
        self._children[number] = stepped
        return number

    @contextmanager
    def _failing_fork(self) -> Iterator[None]:
        """Let the call that makes a process fail inside the block, once, if it was arranged so."""
        name = "fork" if self.start_method == "fork" else "posix_spawn"
        real = getattr(os, name)

        def fail(*_: object, **__: object) -> int:
            self._arranged.remove(Circumstance.FORK_FAILS)
            setattr(os, name, real)
            raise ForkFailed("it was arranged so")

        if Circumstance.FORK_FAILS in self._arranged:
            setattr(os, name, fail)
        try:
            yield
        finally:
            setattr(os, name, real)

    def arrange(self, circumstance: Circumstance) -> None:
        """Arrange for what comes next."""
        assert self._supervisor is not None
        self._arranged.add(circumstance)
        if circumstance is Circumstance.PATIENCE_ENDS:
            self._supervisor._stop_after = STUCK_AFTER
            deadlines = self._supervisor._deadlines
            if deadlines.kill_at < math.inf:  # a recovery is under way already
                self._supervisor._deadlines = replace(deadlines, kill_at=time.monotonic() + STUCK_AFTER)

    def step(self, child: int, step: Step) -> None:
        """Have a living child take a step."""
        if step is Step.FREEZE:
            self._children[child].freeze()
            self._frozen.add(child)
            return
        answer = self._children[child].tell(Command[step.name])
        if answer.startswith("refused"):
            raise Refused(answer.removeprefix("refused: "))
        if answer == "ended" and step not in _MAY_BE_THE_LAST:
            raise AssertionError(f"child {child} died of {step.value}")
        if step is Step.SERVE:
            assert self._supervisor is not None
            expected = f"done in generation {self._supervisor.generation}"
            _check(answer == expected, f"child {child} answers {answer!r}, not {expected!r}")

    def end(self, child: int, kind: ExitKind) -> None:
        """Have a living child end."""
        stepped = self._children[child]
        if kind in _SIGNALS:
            stepped.send(_SIGNALS[kind])
            stepped.hurry()  # SIGTERM waits for the give-back that is under way
        else:
            stepped.tell(Command[kind.name])
        stepped.wait_until_dead()

    def supervise(self) -> None:
        """Let the supervisor deal with every death so far."""
        assert self._supervisor is not None
        until = time.monotonic() + LIMIT
        self._note_words(self._supervisor)
        try:
            while self._is_busy(self._supervisor):
                if time.monotonic() > until:
                    raise TimeoutError("the supervisor does not come to rest")
                self._record(self._supervisor.step(0.05))
        except StartupFailed as failed:
            self._record([*failed.events])
            self._check_events()

    def _note_words(self, supervisor: Supervisor) -> None:
        """Note what the dead have left in their slots."""
        for number in self._alive():
            stepped = self._children[number]
            if stepped.is_dead():
                self._words[number] = supervisor.slots.word(stepped.child.slot)

    def _is_busy(self, supervisor: Supervisor) -> bool:
        self._record(supervisor.step(0))
        alive = self._alive()
        held_up = bool(alive) and alive <= self._frozen and Circumstance.PATIENCE_ENDS not in self._arranged
        return (supervisor.mode is not Mode.RUNNING and not held_up) or any(
            self._children[number].is_dead() for number in alive
        )

    def _alive(self) -> set[int]:
        """The children that are not reaped yet."""
        return {number for number, stepped in self._children.items() if stepped.child.outcome is None}

    def stop_supervisor(self) -> None:
        """Ask for an orderly shutdown and wait for its end."""
        if self._supervisor is None or self._supervisor.mode is Mode.STOPPED:
            return
        self._note_words(self._supervisor)
        alive = self._alive()
        for number in alive:
            self._children[number].hurry()
        stuck = {number for number in alive & self._frozen if not self._children[number].is_dead()}
        if self._supervisor.mode is not Mode.RUNNING:
            for number in stuck:
                self._children[number].send(signal.SIGCONT)  # SIGQUIT waits for it already
        self._supervisor._stop_after = STUCK_AFTER
        try:
            events, raised = self._supervisor.close(STUCK_AFTER if stuck else LIMIT), False
        except CrashWhileClosing as error:
            events, raised = list(error.events), True
        self._record(events)
        self._check_events()
        crashed = EventKind.CRASHED in self._kinds[self._kinds.index(EventKind.CLOSING) :]
        _check(raised == crashed, f"a crash while closing: {crashed}, close() says so: {raised}")

    def _check_events(self) -> None:
        """Check the kinds and the order of all events of a supervisor that has stopped."""
        kinds = "".join(f"{kind.value} " for kind in self._kinds)
        _check(EVENTS.fullmatch(kinds) is not None, f"the events are in no order that may be: {kinds}")
        started = self._kinds.count(EventKind.STARTED)
        _check(started == len(self._children), f"{started} started events of {len(self._children)} children")

    def _record(self, events: list[Event]) -> None:
        numbers = {id(stepped.child): number for number, stepped in self._children.items()}
        for event in events:
            self._kinds.append(event.kind)
            match event.kind:
                case EventKind.STOPPING:
                    self._recovering = True
                case EventKind.RESET:
                    self._recovering = False
                case EventKind.EXITED | EventKind.CRASHED | EventKind.LOST:
                    assert event.child is not None
                    assert event.child.outcome is not None
                    if id(event.child) not in numbers:
                        continue  # Ctrl-C fell between its start and our note of it: everything is being closed
                    self._check_outcome(numbers[id(event.child)], event)
                    decided = {EventKind.EXITED: Decided.CLEAN, EventKind.CRASHED: Decided.CRASH}.get(
                        event.kind, Decided.BOOK_KEEPING
                    )
                    if self._recovering:
                        decided = Decided.BOOK_KEEPING
                    self._deaths.append(Death(numbers[id(event.child)], event.child.outcome.status, decided))

    def _check_outcome(self, number: int, event: Event) -> None:
        """Check that a child's outcome says what its last event and its slot say."""
        assert event.child is not None
        outcome = event.child.outcome
        assert outcome is not None
        _check(outcome.lost == (event.kind is not EventKind.EXITED), f"child {number}: {event.kind}, and {outcome}")
        left = self._words.get(number, outcome.slot_word)
        _check(outcome.slot_word == left, f"child {number} left {left:#x} in its slot, its outcome is {outcome}")

    def observe(self) -> Observation:
        """Look, and change nothing."""
        supervisor, cells = self._supervisor, self._cells
        assert supervisor is not None
        assert cells is not None
        stopped = supervisor.mode is Mode.STOPPED
        children = {} if stopped else {number: self._children[number].child.slot for number in self._alive()}
        slots = () if stopped else range(1, self._slots + 1)
        return Observation(
            flags={slot: SlotState(supervisor.slots.state(slot).value) for slot in slots},
            children=children,
            deaths=tuple(self._deaths),
            generation=supervisor.generation,
            resource={number: cells.held(slot) for number, slot in children.items()},
            stopped=stopped,
        )

    def close(self) -> None:
        """End everything."""
        try:
            self.stop_supervisor()
        finally:
            for stepped in self._children.values():
                stepped.close()
            self._children.clear()


class ForkFailed(OSError):
    """What a fork raises that was arranged to fail."""


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


class ArmedSpawn(ArmedFork):
    """The same with children started in fresh interpreters."""

    start_method = "spawn"
