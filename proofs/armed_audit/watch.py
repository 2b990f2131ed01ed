"""A live, read-only view of a running PostgreSQL server's slots: what is in them, what happened, what cannot happen.

The server is only looked at, some times a second: nothing is written, sent, connected to, stopped or traced. A look
sees a moment, so that steps between two looks are missed; they are inferred from the rows of the lifecycle, by a
shortest path, and counted. `Looker` takes the looks; `happened` says, from two of them, what happened, and is pure.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from armed_conformance.postgres.cluster import PROFILE_OF
from armed_conformance.postgres.memory import (
    BeingMadeAnew,
    CannotLook,
    Process,
    Server,
    postmaster_of,
    state_of,
    title_of,
)
from armed_model.lifecycle import ROWS, WALSENDER_ROWS, Row, SlotState, Trigger, Who, shortest_path

LIMIT: Final = 30.0
"""Seconds for which a server may be without shared memory that can be read, before the watch gives up."""

ARMED: Final = frozenset({SlotState.ACTIVE, SlotState.WALSENDER, SlotState.FOREIGN})
"""The states in which a child's death is a crash."""

STARTING: Final = "starting"
DEAD_END: Final = "dead-end child"
_NAMES_17: Final = (
    "client backend|autovacuum launcher|autovacuum worker|background worker|walsender|slotsync worker|"
    "standalone backend|archiver|background writer|checkpointer|startup|walreceiver|walsummarizer|walwriter|logger"
)
_NAMES_18: Final = _NAMES_17.replace("client backend", f"client backend|{DEAD_END}").replace(
    "checkpointer", "checkpointer|io worker"
)
KINDS: Final[Mapping[int, tuple[str, ...]]] = {
    major: (STARTING, *names.split("|"))
    for major, names in {
        15: "autovacuum launcher|autovacuum worker|client backend|background worker|background writer|checkpointer|"
        "startup|walreceiver|walsender|walwriter|archiver|logger",
        16: "archiver|autovacuum launcher|autovacuum worker|client backend|background worker|background writer|"
        "checkpointer|logger|standalone backend|startup|walreceiver|walsender|walwriter",
        17: _NAMES_17,
        18: _NAMES_18,
    }.items()
}
"""What the values of MyBackendType mean, by major release (`miscadmin.h`)."""

WITH_A_SLOT_TO_17: Final = frozenset(
    {STARTING, "client backend", "walsender", "autovacuum worker", "background worker"}
)
"""To 17 the others have none, and an old number in MyPMChildSlot."""


# --- What is seen ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Child:
    """A child of the postmaster, as a look saw it."""

    pid: int
    started: int
    """With the pid it names a process for ever."""
    kind: str
    title: str = ""
    slot: int = 0
    """The slot it owns; 0: none, or not known."""
    flag: int = 0
    """What its slot held."""
    dead: bool = False
    """Ended, and not reaped yet."""
    status: int | None = None
    """How it ended, where that was seen: n for exit(n), -n for signal n."""
    disarmed: bool = False
    """It was seen armed, and after that not. A child of PostgreSQL arms once."""
    told_to_leave: bool = False
    """When it was last seen, a crash was being handled already."""

    @property
    def state(self) -> SlotState:
        """The state of its slot."""
        return state_of(self.flag)


@dataclass(frozen=True)
class Held:
    """A slot, as a look saw it."""

    flag: int = 0
    child: Child | None = None
    """The living or unreaped child that owns it, if one is known."""
    since: float = 0.0
    """When it was first seen so (seconds, monotonic)."""


@dataclass(frozen=True)
class Look:
    """What one look saw."""

    at: float
    """When (seconds, monotonic)."""
    slots: Mapping[int, Held] | None
    """The slots in use; None: there was no shared memory."""
    children: Mapping[tuple[int, int], Child] = field(default_factory=dict)
    """By pid and start."""
    gone: tuple[Child, ...] = ()
    """Those that the look before saw, as it saw them, and this one does not; and earlier ones, not judged yet."""
    quitting: bool = False
    """The postmaster had told its children to leave because of a crash."""
    anew: bool = False
    """The memory is not the one that was seen before."""
    cause_seen: bool = False
    """Since it was made a child was seen dead and armed; still so in the look that sees it made anew."""


class EventKind(enum.Enum):
    """What can be told."""

    WATCHING = "watching"
    CHANGE = "change"
    ENDED = "ended"
    ARMED_EXIT = "armed_exit"
    STOPPED = "stopped"
    CRASH = "crash"
    RECOVERY = "recovery"
    IMPOSSIBLE = "impossible"
    SERVER_ENDED = "server_ended"
    SUMMARY = "summary"


NOTABLE: Final = frozenset(EventKind) - {EventKind.CHANGE, EventKind.ENDED, EventKind.STOPPED}
"""What is told also where not every change is asked for."""


@dataclass(frozen=True)
class Event:
    """Something that happened, in words and as data."""

    kind: EventKind
    sentence: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self, when: datetime) -> dict[str, Any]:
        """Return the line of the log."""
        return {"time": when.isoformat(timespec="milliseconds"), "event": self.kind.value, **self.data}


# --- From two looks to what happened ---------------------------------------------------------------------------------


def happened(before: Look, after: Look, rows: tuple[Row, ...] = ROWS + WALSENDER_ROWS) -> Iterator[Event]:
    """Say what happened between two looks, one after the other.

    Who is gone is judged one look later, for the postmaster reaps a child first, and then decides; and where the crash
    is seen only now, another one later, together with those gone by then.
    """
    if after.slots is None:
        return
    if after.anew:
        if not before.quitting:
            yield Event(EventKind.CRASH, "crash: the server has stopped all its children")
        yield Event(EventKind.RECOVERY, "recovery: the shared memory was made anew")
    if after.quitting and (after.anew or not before.quitting):
        yield Event(EventKind.CRASH, "crash: the server stops all its children")
    if before.slots is not None and not after.anew:
        for slot in sorted({*before.slots, *after.slots}):
            yield from _change(slot, before.slots.get(slot, Held()), after.slots.get(slot, Held()), after, rows)
    for child in after.children.values():
        was = before.children.get((child.pid, child.started))
        if child.dead and child.state in ARMED and not child.told_to_leave and not (was is not None and was.dead):
            how = "" if child.status is None else f" with {_status(child.status)}"
            told = f"armed exit: {child.kind} {child.pid}, slot {child.slot}, has ended{how} while {child.state.value}"
            told += f" ({child.title})" if child.title else ""
            yield Event(EventKind.ARMED_EXIT, told, {"certain": True, "of": [_facts(child)]})
    if not _begins(before, after.quitting, after.anew):
        yield from _ends(before)


def _change(slot: int, was: Held, now: Held, after: Look, rows: tuple[Row, ...]) -> Iterator[Event]:
    """Explain the change of one slot."""
    source, dest = state_of(was.flag), state_of(now.flag)
    before, owner = was.child, now.child
    same = before is not None and owner is not None and _name(before) == _name(owner)
    another = before is not None and owner is not None and not same
    if was.flag == now.flag and not another:
        return
    data: dict[str, Any] = {"slot": slot, "from": source.value, "to": dest.value}
    who = owner or before
    if who is not None:
        data |= {"pid": who.pid, "kind": who.kind}
    told = f"slot {slot}" + ("" if who is None else f", {who.kind} {who.pid}") + f": {source.value} -> {dest.value}"
    if dest is SlotState.FOREIGN:
        yield Event(EventKind.IMPOSSIBLE, f"{told}: {now.flag} is no state", {**data, "value": now.flag})
        return
    if source is SlotState.FOREIGN and dest is not SlotState.UNUSED:
        path: list[Trigger] | None = []  # who has scribbled over a flag is not followed until it is released
    elif same and before is not None:
        path = _life(source, dest, rows, before.disarmed)
    else:
        path = _lives(source, dest, rows, another=another, crash=after.quitting)
    if path is None:
        yield Event(EventKind.IMPOSSIBLE, f"{told}: no steps of one child lead there", data)
        return
    steps = [trigger.value for trigger in path]
    missed = max(0, len(path) - 1)
    told += f" ({', '.join(steps)})" if steps else " (was foreign)"
    yield Event(EventKind.CHANGE, told, {**data, "steps": steps, "missed": missed})


def _life(source: SlotState, dest: SlotState, rows: tuple[Row, ...], disarmed: bool) -> list[Trigger] | None:
    """Return the child's own steps, of which it arms but once and never after it has disarmed; None: there are none."""
    path = _shortest(source, dest, [row for row in rows if row.who is Who.CHILD])
    if path is None or (Trigger.ARM in path and (disarmed or Trigger.DISARM in path)):
        return None
    return path


def _lives(
    source: SlotState, dest: SlotState, rows: tuple[Row, ...], *, another: bool, crash: bool
) -> list[Trigger] | None:
    """Return a shortest path of anybody's steps; `another`: through the end of one child and the start of another.

    The release of an armed slot is the switch firing: it is no explanation where no crash is handled.
    """
    legal = [
        row
        for row in rows
        if not (row.trigger is Trigger.RELEASE and row.source in (SlotState.ACTIVE, SlotState.WALSENDER) and not crash)
    ]
    if not another:
        return _shortest(source, dest, legal)
    end = _shortest(source, SlotState.UNUSED, legal)
    start = _shortest(SlotState.UNUSED, dest, legal)
    return None if end is None or start is None else end + start


def _shortest(source: SlotState, dest: SlotState, rows: Iterable[Row]) -> list[Trigger] | None:
    path = () if source is dest else shortest_path(source, dest, rows)
    return None if path is None else [row.trigger for row in path]


def _begins(before: Look, quitting: bool, anew: bool) -> bool:
    """Whether a crash is seen first by the look after `before`."""
    return (quitting or anew) and not (before.quitting or before.anew)


def _ends(before: Look) -> Iterator[Event]:
    """Say how those have ended that are gone."""
    suspects = []
    for child in before.gone:
        if child.dead and child.state in ARMED and not child.told_to_leave:
            continue  # told when it was seen dead
        if not (before.quitting or before.anew) or child.slot == 0 or child.state not in ARMED:
            yield _of(EventKind.ENDED, child, "has ended")
        elif child.told_to_leave:
            yield _of(EventKind.STOPPED, child, f"was stopped while {child.state.value}")
        else:
            suspects.append(child)
    if before.cause_seen:
        for child in suspects:
            yield _of(EventKind.STOPPED, child, f"was stopped while {child.state.value}")
    elif suspects:
        suspects.sort(key=lambda child: child.kind != "client backend")  # they run what users load
        names = ", ".join(f"{child.kind} {child.pid} in slot {child.slot}" for child in suspects)
        told = f"armed exit: armed when last seen was {names}"
        if len(suspects) > 1:
            told = f"armed exit: one of {len(suspects)} that were armed when last seen: {names}"
        of = [_facts(child) for child in suspects]
        yield Event(EventKind.ARMED_EXIT, told, {"certain": False, "of": of})


def _of(kind: EventKind, child: Child, what: str) -> Event:
    place = f", slot {child.slot}" if child.slot else ""
    return Event(kind, f"{kind.value}: {child.kind} {child.pid}{place} {what}", _facts(child))


def _facts(child: Child) -> dict[str, Any]:
    """Return what is known of a child, as it is told in JSON."""
    facts: dict[str, Any] = {"pid": child.pid, "kind": child.kind}
    if child.slot:
        facts |= {"slot": child.slot, "state": child.state.value}
    facts["title"] = child.title
    return facts if child.status is None else {**facts, "status": child.status}


def _status(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {-status}"


def _name(child: Child) -> tuple[int, int]:
    return child.pid, child.started


# --- The looks -------------------------------------------------------------------------------------------------------


class Looker:
    """Takes the looks, and knows what the last one saw."""

    def __init__(self, data_directory: Path) -> None:
        """Find the server that runs on a data directory. Raises CannotLook."""
        postmaster = postmaster_of(data_directory)
        self.major = major_of(data_directory)
        self.server = Server(postmaster)
        self._generation = self.server.generation()
        self._old_numbers: set[tuple[int, int]] = set()  # children that have a slot number and not the slot
        self._without_memory_since: float | None = None
        self._last = Look(time.monotonic(), {})

    def close(self) -> None:
        """Let go of the server."""
        self.server.close()

    def look(self) -> Look:
        """Look once. Raises CannotLook: BeingMadeAnew where the postmaster has ended."""
        at, last = time.monotonic(), self._last
        if not self.server.runs:
            raise BeingMadeAnew("the server has ended")
        first = quitting = None
        with suppress(BeingMadeAnew):
            quitting, first = self.server.handles_crash(), self.server.flags()
        processes = self.server.processes(pid for pid, _ in last.children)
        flags, anew, crash = self._memory(at)
        if anew:
            # Who was there a moment ago was of the old memory, and has gone by now. Who is new, the next look sees.
            first, self._old_numbers = None, set()
            remaining = self.server.processes(pid for pid, _ in last.children)
            processes = [each for each in remaining if (each.pid, each.started) in last.children]
        there = {(each.pid, each.started) for each in processes}
        gone = tuple(child for name, child in last.children.items() if name not in there)
        if flags is None or _begins(last, crash, anew):
            gone += last.gone
        # Where the crash came in the middle of this look, it was rather one of those that have gone already.
        told_to_leave = bool(quitting) or (crash and any(child.state in ARMED for child in gone))
        children: dict[tuple[int, int], Child] = {}
        owners: dict[int, Child] = {}
        for process in sorted(processes, key=lambda each: (each.started, each.pid)):  # the older has what two claim
            was = last.children.get((process.pid, process.started))
            child = replace(self._child(process, was, anew=anew), told_to_leave=told_to_leave)
            if child.slot and flags is not None:
                child = self._in_its_slot(child, was, first, flags, taken=child.slot in owners)
                if child.slot:
                    owners[child.slot] = child
            children[child.pid, child.started] = child
        dead = any(each.dead and each.state in ARMED and not each.told_to_leave for each in children.values())
        seen = dead or (last.cause_seen and not last.anew)
        self._last = Look(at, self._slots(flags, owners, at), children, gone, crash, anew, seen)
        return self._last

    def _in_its_slot(
        self, child: Child, was: Child | None, first: tuple[int, ...] | None, flags: tuple[int, ...], *, taken: bool
    ) -> Child:
        """Return a child with what the slot holds whose number it has; without a slot, if that is not its own.

        Of one that had the slot in the look before, what it held while the child was known to live (`first`). A new one
        may have ended by the time of `flags`, and then its slot is unused; so is that of an old number.
        """
        flag = flags[child.slot - 1]
        known = first is not None and was is not None and was.slot == child.slot
        if known and first is not None:
            flag = flag if child.dead and flag else first[child.slot - 1]
        if taken or (not known and flag == 0):
            self._old_numbers.add(_name(child))
            return replace(child, slot=0)
        armed = was is not None and was.state in (SlotState.ACTIVE, SlotState.WALSENDER)
        return replace(child, flag=flag, disarmed=child.disarmed or (armed and state_of(flag) is SlotState.ASSIGNED))

    def _memory(self, at: float) -> tuple[tuple[int, ...] | None, bool, bool]:
        """Return the flags, whether the memory is another one than before, and whether a crash is handled.

        Which memory it is, is asked last: it may be made anew, at the same place, between any two of these steps.
        """
        try:
            try:
                flags, quitting, generation = self._read()
            except BeingMadeAnew:  # it has gone, or has come back elsewhere
                self.server.find()
                flags, quitting, generation = self._read()
            anew = generation != self._generation
            if anew:
                self.server.find()
                flags, quitting, again = self._read()
                if again != generation:
                    raise BeingMadeAnew("the memory was made anew, again")
        except CannotLook:
            self._without_memory_since = self._without_memory_since or at
            if at - self._without_memory_since > LIMIT:
                raise
            return None, False, self._last.quitting
        self._generation, self._without_memory_since = generation, None
        return flags, anew, quitting

    def _read(self) -> tuple[tuple[int, ...], bool, int]:
        return self.server.flags(), self.server.handles_crash(), self.server.generation()

    def _child(self, process: Process, was: Child | None, *, anew: bool) -> Child:
        """Return what a process says of itself; of one that is dead, what it said."""
        name = (process.pid, process.started)
        if was is None or anew:
            was = Child(*name, STARTING)
        if process.dead:
            status = None
            with suppress(OSError):
                seen = self.server.exit_of(process.pid)
                status = None if seen is None else seen.status
            return replace(was, dead=True, status=status)
        was = replace(was, title=title_of(process.pid))
        if was.slot and was.state in (SlotState.ACTIVE, SlotState.WALSENDER):
            return was  # what it is does not change any more
        with suppress(BeingMadeAnew):  # it has just ended
            kind = self.kind_of(process.pid)
            slot = self.server.slot_of(process.pid)
            if (self.major < 18 and kind not in WITH_A_SLOT_TO_17) or slot > self.server.slots:
                slot = 0
            return replace(was, kind=kind, slot=0 if name in self._old_numbers else slot)
        return was

    def kind_of(self, pid: int) -> str:
        """Return what a living child is. Raises CannotLook, and BeingMadeAnew where it has ended."""
        value = int.from_bytes(self.server.variable(pid, "MyBackendType", 4), "little")
        names = KINDS[self.major]
        return names[value] if value < len(names) else f"kind {value}"

    def _slots(self, flags: tuple[int, ...] | None, owners: Mapping[int, Child], at: float) -> dict[int, Held] | None:
        if flags is None:
            return None
        slots = {}
        for slot, flag in enumerate(flags, 1):
            owner = owners.get(slot)
            if owner is None and flag == 0:
                continue
            held = Held(flag if owner is None else owner.flag, owner, at)
            was = (self._last.slots or {}).get(slot)
            if was is not None and was.flag == held.flag and _owner(was) == _owner(held):
                held = replace(held, since=was.since)
            slots[slot] = held
        return slots


def _owner(held: Held) -> tuple[int, int] | None:
    return None if held.child is None else _name(held.child)


def major_of(data_directory: Path) -> int:
    """Return the major release that made a data directory. Raises CannotLook where it is none that is known."""
    file = data_directory / "PG_VERSION"
    try:
        said = file.read_text().strip()
    except OSError as error:
        raise CannotLook(f"cannot read {file}: {error.strerror}") from None
    if not said.isdigit() or int(said) not in PROFILE_OF:
        known = ", ".join(map(str, PROFILE_OF))
        raise CannotLook(f"{data_directory} is PostgreSQL {said}: known are {known}; nobody has modelled that one")
    return int(said)


def watch(looker: Looker, interval: float, seconds: float | None = None) -> Iterator[tuple[Look, list[Event]]]:
    """Look every `interval` seconds, for `seconds` or until the server has ended. Raises CannotLook."""
    last = looker.look()
    begun = due = time.monotonic()
    unknown = Look(begun, {})
    told_at_once = (EventKind.IMPOSSIBLE, EventKind.ARMED_EXIT)
    found = [each for each in happened(unknown, last) if each.kind in told_at_once]
    server = {"postmaster": looker.server.postmaster, "version": looker.major, "slots": looker.server.slots}
    told = f"PostgreSQL {looker.major}, postmaster {looker.server.postmaster}, {looker.server.slots} slots"
    yield last, [Event(EventKind.WATCHING, f"watching {told}", server), *found]
    while seconds is None or time.monotonic() - begun < seconds:
        due = max(due + interval, time.monotonic())
        end = due if seconds is None else min(due, begun + seconds)
        time.sleep(max(0.0, end - time.monotonic()))
        try:
            now = looker.look()
        except CannotLook:
            if looker.server.runs:
                raise
            how = " after a crash" if last.quitting else ""
            yield last, [Event(EventKind.SERVER_ENDED, f"the server has ended{how}", {"after_crash": last.quitting})]
            return
        events = list(happened(last, now))
        last = now
        yield now, events


# --- What is shown ---------------------------------------------------------------------------------------------------


@dataclass
class Summary:
    """What a watch has seen."""

    looks: int = 0
    changes: int = 0
    missed_steps: int = 0
    ended: int = 0
    armed_exits: int = 0
    """Deaths of an armed child, seen as such or inferred from a crash: at most one of these for each crash."""
    crashes: int = 0
    recoveries: int = 0
    impossible: int = 0

    def add(self, event: Event) -> None:
        """Count an event."""
        self.changes += event.kind is EventKind.CHANGE
        self.missed_steps += event.data.get("missed", 0)
        self.ended += event.kind in (EventKind.ENDED, EventKind.STOPPED)
        self.armed_exits += event.kind is EventKind.ARMED_EXIT
        self.crashes += event.kind is EventKind.CRASH
        self.recoveries += event.kind is EventKind.RECOVERY
        self.impossible += event.kind is EventKind.IMPOSSIBLE

    def event(self) -> Event:
        """Return what is told at the end."""
        counts = asdict(self)
        told = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())
        return Event(EventKind.SUMMARY, f"summary: {told}", counts)


_COLOURS: Final = {
    SlotState.ASSIGNED: "cyan",
    SlotState.ACTIVE: "green",
    SlotState.WALSENDER: "blue",
    SlotState.FOREIGN: "bold red",
    SlotState.UNUSED: "bold red",
}
_LOGGED: Final = 8
"""Events that are shown below the table."""
_REDRAWN: Final = 0.25
"""Seconds between two tables: nobody reads faster, and drawing costs more than looking."""


def screen(look: Look, summary: Summary, log: list[str], width: int, height: int) -> Group:
    """Return the table of the slots in use and the last events, for a terminal of so many columns and lines."""
    slots = sorted((look.slots or {}).items())
    while len(log) > 1 and (len(log) > _LOGGED or _lines(log, width) > height // 2):
        log = log[1:]
    room = max(1, height - _lines(log, width) - 7)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, expand=True)
    for name, justify in (("slot", "right"), ("pid", "right"), ("kind", "left"), ("state", "left"), ("for", "right")):
        widest = {"pid": 7, "kind": 19, "state": 9, "for": 6}.get(name)  # the columns are to stay where they are
        table.add_column(name, justify=justify, no_wrap=True, min_width=widest)  # type: ignore[arg-type]
    table.add_column("title", no_wrap=True, overflow="ellipsis", ratio=1)
    for slot, held in slots[:room]:
        state, child = state_of(held.flag), held.child
        word = state.value if state is not SlotState.FOREIGN else f"foreign: {held.flag}"
        who = (str(child.pid), child.kind, Text(child.title)) if child is not None else ("-", "-", "")
        table.add_row(str(slot), who[0], who[1], Text(word, _COLOURS[state]), age(look.at - held.since), who[2])
    lines = [Text(line, overflow="fold") for line in log]
    rest = f"... and {len(slots) - room} more; " if len(slots) > room else ""
    if look.slots is None:
        rest += "the shared memory is being made anew; "
    counts = (
        f"{rest}changes {summary.changes:,}, missed steps {summary.missed_steps:,}, "
        f"armed exits {summary.armed_exits}, recoveries {summary.recoveries}"
    )
    return Group(table, Text(counts, "dim", no_wrap=True, overflow="ellipsis"), *lines)


def _lines(log: list[str], width: int) -> int:
    """How many lines of a terminal the events take, or a few more."""
    return sum(math.ceil(len(line) / max(1, width - 12)) for line in log)


class Screen:
    """Where people read: a live table on a terminal, a line an event elsewhere, nothing where that would be in the way.

    A context manager; at its end the last table stays.
    """

    def __init__(self, console: Console, *, quiet: bool) -> None:
        """Show on a console, or nothing at all."""
        self._console, self._quiet = console, quiet
        self._log: list[str] = []
        self._last: tuple[Look, Summary] | None = None
        self._shown = -math.inf
        self._live: Live | None = None
        if console.is_terminal and not quiet:
            self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def log(self, line: str) -> None:
        """Tell one event."""
        self._log = [*self._log[1 - _LOGGED :], line]
        if self._live is None and not self._quiet:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, look: Look, summary: Summary) -> None:
        """Show a look, if the last one is not shown only just now."""
        self._last = look, summary
        if self._live is not None and look.at - self._shown >= _REDRAWN:
            self._shown = look.at
            self._draw()

    def _draw(self) -> None:
        if self._live is not None and self._last is not None:
            self._live.update(screen(*self._last, self._log, *self._console.size), refresh=True)

    def __enter__(self) -> Self:
        """Begin."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the last table on the terminal."""
        self._draw()
        if self._live is not None:
            self._live.stop()


def age(seconds: float) -> str:
    """Return a duration in at most six characters."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h" if minutes < 6000 else f"{minutes // 1440} d"


def line_of(event: Event, when: datetime) -> str:
    """Return an event as a line for people, with the local time."""
    return f"{when:%H:%M:%S}.{when.microsecond // 1000:03} {event.sentence}"


def local_time() -> datetime:
    """Return the time of day, with its zone."""
    return datetime.now(UTC).astimezone()
