"""Adapter for the package `armed`: real forked children, stepped; real signals, real shared memory."""

from __future__ import annotations

import signal
import time

from armed import CrashWhileClosing, Event, EventKind, Mode, NotRunning, SlotsExhausted, Supervisor
from armed.testing import Cells, Command, SteppedChild, Stepper
from armed_conformance.protocol import Death, Decided, ExitKind, Observation, Refused, Step
from armed_model.lifecycle import SlotState

LIMIT = 20.0
"""Seconds in which the supervisor must have dealt with a death, or finished a recovery."""

STUCK_AFTER = 0.1
"""Seconds after which a shutdown loses patience with a child that is stuck on purpose. A recovery does not, so that a
history runs the same way each time: a stuck child holds it up until the history ends the child."""

_SIGNALS = {
    ExitKind.SIGTERM: signal.SIGTERM,
    ExitKind.SIGKILL: signal.SIGKILL,
    ExitKind.SIGSEGV: signal.SIGSEGV,
}


_MAY_BE_THE_LAST = frozenset({Step.DISARM, Step.GIVE_FAILS, Step.GIVE_FAILS_LATE})
"""Steps after which, on the way out, nothing is left to do but to end."""


class ArmedFork:
    """`armed.Supervisor` with children started by fork. The supervisor acts only inside `supervise` and the end."""

    cannot: frozenset[Step | ExitKind] = frozenset()

    def __init__(self) -> None:
        self._supervisor: Supervisor | None = None
        self._cells: Cells | None = None
        self._children: dict[int, SteppedChild] = {}
        self._frozen: set[int] = set()
        self._deaths: list[Death] = []
        self._recovering = False

    def open(self, slots: int) -> None:
        """Start the supervisor with so many slots."""
        self._slots = slots

        def make_shared() -> Cells:
            self._cells = Cells(slots)
            return self._cells

        self._supervisor = self.make_supervisor(slots, make_shared)
        self._stepper = Stepper(self._supervisor)

    def make_supervisor(self, slots: int, make_shared: object) -> Supervisor:
        """Make the supervisor under test; a variant with a planted bug makes another one."""
        return Supervisor(slots, make_shared, stop_after=LIMIT)  # type: ignore[arg-type]  # it is a callable

    def start(self) -> int:
        """Start a child that stands before its exit path."""
        try:
            stepped = self._stepper.start()
        except (SlotsExhausted, NotRunning) as error:
            raise Refused(type(error).__name__) from error
        number = len(self._children) + 1
        self._children[number] = stepped
        return number

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
        while self._is_busy(self._supervisor):
            if time.monotonic() > until:
                raise TimeoutError("the supervisor does not come to rest")
            self._record(self._supervisor.step(0.05))

    def _is_busy(self, supervisor: Supervisor) -> bool:
        self._record(supervisor.step(0))
        alive = self._alive()
        held_up = bool(alive) and alive <= self._frozen
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
        alive = self._alive()
        for number in alive:
            self._children[number].hurry()
        if self._supervisor.mode is not Mode.RUNNING:
            for number in alive & self._frozen:
                self._children[number].send(signal.SIGCONT)  # SIGQUIT waits for it already
        self._supervisor._stop_after = STUCK_AFTER
        try:
            events = self._supervisor.close(STUCK_AFTER if alive & self._frozen else LIMIT)
        except CrashWhileClosing as error:
            events = list(error.events)
        self._record(events)

    def _record(self, events: list[Event]) -> None:
        numbers = {id(stepped.child): number for number, stepped in self._children.items()}
        for event in events:
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
                    decided = {EventKind.EXITED: Decided.CLEAN, EventKind.CRASHED: Decided.CRASH}.get(
                        event.kind, Decided.BOOK_KEEPING
                    )
                    if self._recovering:
                        decided = Decided.BOOK_KEEPING
                    self._deaths.append(Death(numbers[id(event.child)], event.child.outcome.status, decided))

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
        self.stop_supervisor()
        for stepped in self._children.values():
            stepped.close()
        self._children.clear()
