"""The life of one slot: its states, who may move it, and the rows that say how.

A slot belongs to one child at a time. The supervisor assigns it before the fork and releases it after the child's
death; in between the child arms the switch when it first touches shared memory and disarms it when it has given
everything back. A release that finds the slot in any other state than *assigned* is the switch firing.

This table is written independently of the actions in `system.py`. That every change of a flag there is a row here is a
theorem (`flag_follows_lifecycle`); at run time `Monitor` holds real processes to the same rows.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from transitions import Machine, MachineError


class SlotState(enum.Enum):
    """What a slot's flag says. PostgreSQL: PM_CHILD_UNUSED, PM_CHILD_ASSIGNED, PM_CHILD_ACTIVE (`pmsignal.c`)."""

    UNUSED = "unused"
    ASSIGNED = "assigned"
    """Given to a child that has not armed the switch yet, or has disarmed it: the clean state."""
    ACTIVE = "active"
    """The switch is armed: the child may have touched shared memory and not given everything back."""
    WALSENDER = "walsender"
    """Armed too: PostgreSQL's senders of the write-ahead log say so (9.0 and later; PM_CHILD_WALSENDER)."""
    FOREIGN = "foreign"
    """A value that neither the supervisor nor the slot's owner writes: some process has scribbled over the flag."""


class Trigger(enum.Enum):
    """The steps in a slot's life."""

    ASSIGN = "assign"
    ARM = "arm"
    STREAM = "stream"
    DISARM = "disarm"
    RELEASE = "release"


class Who(enum.Enum):
    """The process that takes a step."""

    SUPERVISOR = "supervisor"
    CHILD = "child"
    GRANDCHILD = "grandchild"
    """A fork of a child, of which the supervisor does not know. It owns no row."""
    ENVIRONMENT = "environment"
    """Nobody's intention: a stray write, a failure of somebody else's. It owns no row."""


@dataclass(frozen=True)
class Row:
    """One legal change of a flag, the process that makes it, and the claims it serves."""

    trigger: Trigger
    source: SlotState
    dest: SlotState
    who: Who
    cites: tuple[str, ...]


ROWS = (
    Row(Trigger.ASSIGN, SlotState.UNUSED, SlotState.ASSIGNED, Who.SUPERVISOR, ("C14", "C16")),
    Row(Trigger.ARM, SlotState.ASSIGNED, SlotState.ACTIVE, Who.CHILD, ("C6",)),
    Row(Trigger.DISARM, SlotState.ACTIVE, SlotState.ASSIGNED, Who.CHILD, ("C7",)),
    # Release is total. From ASSIGNED the child has left cleanly; from any other state the switch fires.
    Row(Trigger.RELEASE, SlotState.ASSIGNED, SlotState.UNUSED, Who.SUPERVISOR, ("C13",)),
    Row(Trigger.RELEASE, SlotState.ACTIVE, SlotState.UNUSED, Who.SUPERVISOR, ("C1", "C15")),
    Row(Trigger.RELEASE, SlotState.FOREIGN, SlotState.UNUSED, Who.SUPERVISOR, ("C1",)),
    Row(Trigger.RELEASE, SlotState.UNUSED, SlotState.UNUSED, Who.SUPERVISOR, ("C1",)),
)

WALSENDER_ROWS = (
    Row(Trigger.STREAM, SlotState.ACTIVE, SlotState.WALSENDER, Who.CHILD, ("C6",)),
    Row(Trigger.DISARM, SlotState.WALSENDER, SlotState.ASSIGNED, Who.CHILD, ("C7",)),
    Row(Trigger.RELEASE, SlotState.WALSENDER, SlotState.UNUSED, Who.SUPERVISOR, ("C1", "C15")),
)
"""What comes with walsenders, in the profiles that have them."""


class LifecycleViolation(Exception):
    """A flag was seen to change in a way that is no row of the lifecycle."""


class _Slot:
    """What `transitions` moves: it sets the attribute `state`."""

    state: SlotState


class Monitor:
    """Follows the flags of slots 1..n and raises at the first change that is no row.

    One `transitions` machine is shared by all slots: they have the same rows and each its own state.
    """

    def __init__(self, slots: int, rows: tuple[Row, ...] = ROWS) -> None:
        """Watch `slots` slots, all unused. Where there are walsenders, `rows` has theirs, too."""
        self._rows = rows
        self._slots = {number: _Slot() for number in range(1, slots + 1)}
        self._machine = Machine(
            model=list(self._slots.values()),
            states=SlotState,
            transitions=[
                {"trigger": row.trigger.value, "source": row.source, "dest": row.dest} for row in rows
            ],
            initial=SlotState.UNUSED,
            auto_transitions=False,  # the default would add a way from everywhere to everywhere
            send_event=False,
        )

    def state(self, slot: int) -> SlotState:
        """Return the state in which `slot` was left by the last change seen."""
        return self._slots[slot].state

    def fire(self, slot: int, trigger: Trigger, who: Who) -> bool:
        """Take one step; for a release, answer whether the slot was clean (exactly assigned).

        Raises LifecycleViolation when the step is no row, or not this process's to take.
        """
        before = self.state(slot)
        if not any(row.trigger is trigger and row.source is before and row.who is who for row in self._rows):
            raise LifecycleViolation(f"slot {slot}: {trigger.value} by the {who.value} while {before.value}")
        try:
            self._machine.events[trigger.value].trigger(self._slots[slot])
        except MachineError as error:  # the guard above and the machine are built from the same rows
            raise LifecycleViolation(f"slot {slot}: {error}") from error
        return trigger is Trigger.RELEASE and before is SlotState.ASSIGNED

    def see(self, slot: int, after: SlotState, by: Iterable[Who], at_most: int = 1) -> tuple[Trigger, ...]:
        """Explain an observed change to `after`, made by processes in `by`, by a row, or a shortest path of `at_most`.

        Returns the triggers; none where nothing changed. A stray write explains everything: it is passed as
        ENVIRONMENT in `by` and leaves the slot FOREIGN, and a slot that was scribbled over is not followed until it is
        released. Raises LifecycleViolation.
        """
        before, actors = self.state(slot), set(by)
        if before is after or (before is SlotState.FOREIGN and after is not SlotState.UNUSED):
            return ()
        path = shortest_path(before, after, [row for row in self._rows if row.who in actors])
        if path is not None and len(path) <= at_most:
            for row in path:
                self.fire(slot, row.trigger, row.who)
            return tuple(row.trigger for row in path)
        if Who.ENVIRONMENT in actors:
            self._machine.set_state(SlotState.FOREIGN, model=self._slots[slot])
            return ()
        who = " or ".join(sorted(actor.value for actor in actors)) or "nobody"
        raise LifecycleViolation(f"slot {slot}: {before.value} -> {after.value} by {who} is no row of the lifecycle")


def shortest_path(before: SlotState, after: SlotState, rows: Iterable[Row]) -> tuple[Row, ...] | None:
    """Return the fewest rows, at least one, that lead from one state to another; None where none do."""
    known = tuple(rows)
    paths: list[tuple[Row, ...]] = [(row,) for row in known if row.source is before]
    seen: set[SlotState] = set()
    for path in paths:
        if path[-1].dest is after:
            return path
        if path[-1].dest not in seen:
            seen.add(path[-1].dest)
            paths += [(*path, row) for row in known if row.source is path[-1].dest]
    return None
