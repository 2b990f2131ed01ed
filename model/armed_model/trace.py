"""Is this journal a behaviour of the model? Else: how far it is one, what comes then, and what could have come.

What nobody tells is filled in by search: `Follower` keeps the set of all states that the lines so far allow. To keep
that set small, a child's own steps are taken only when its end is told, all in one go. Nothing is lost by that: they
change only what is the child's own and its slot's, and until it is reaped no action of others asks for more than that
the child is there. (A test compares this with the search that puts nothing off.) Which of a child's histories led to
the word and the status that are told is forgotten with the child, but for the ghosts, which decide nothing.

The instance is as large as what is alive, and grows with it: a child that is reaped gives its number back, and so does
its slot. One slot more than are in use stands for all that are free.
"""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from armed_model.events import (
    CRASH,
    EVENTS,
    EVERY_LINE,
    NAMES,
    OF_A_CHILD,
    OF_A_WORKERS_START,
    OF_AN_END,
    OPENED,
    Field,
    Meaning,
)
from armed_model.interpret import Arguments, Instance, Size, State
from armed_model.lifecycle import Who
from armed_model.profiles import REFERENCE, CleanWord, Profile
from armed_model.system import (
    ACTIVE,
    CHILD,
    RESERVED,
    UNUSED,
    Mode,
    Phase,
    System,
    c,
    clean_word,
    decided_clean,
    flag,
    slot_of,
    status_is_clean,
)

ENVIRONMENTS = ("calm", "+stray")
"""In which environments a journal is looked at: in calm a foreign word is not explained."""

_NOTICES = tuple(meaning.event for meaning in EVENTS if meaning.is_a_notice)
_ENDS = tuple(dict.fromkeys(meaning.event for meaning in EVENTS if meaning.decision))
_OF_A_CHILD = {meaning.event for meaning in EVENTS if meaning.of}
_ALL_ONES = (1 << 64) - 1
_SHOWN = 12
"""How many children are named when it is said what could have come."""


_STATUSES = {
    (0,): "status 0",
    (1,): "status 1",
    (2,): "a status other than 0 and 1",
    (0, 1): "status 0 or 1",
    (0, 2): "a status other than 1",
    (1, 2): "a status other than 0",
    (0, 1, 2): "any status",
}
"""How it is said which of the statuses 0, 1 and (for all others) 2 are possible."""


class Unreadable(Exception):
    """A line is none of a journal. The message names the field."""


class NoBehaviour(Exception):
    """No state that the lines so far allow has such a step. The message says why."""


class _NotPossible(NoBehaviour):
    """The same, with the reasons to be found only when they are asked for."""

    def __init__(self, reasons: list[Callable[[], str]]) -> None:
        self.reasons = reasons

    def __str__(self) -> str:
        return "; ".join(dict.fromkeys(reason() for reason in self.reasons))


@dataclass(frozen=True)
class Line:
    """A line of a journal, read. Where there is no child, `pid` is 0 (of `opened`: the supervisor's) and `kind` ""."""

    event: str
    generation: int
    pid: int = 0
    kind: str = ""
    slot: int = 0
    clean_word: int | None = None
    decision: str = ""
    status: int = 0
    slot_word: int = 0
    slots: int = 0
    startup: bool = False


@dataclass(frozen=True)
class Verdict:
    """What was found.

    `lines` is the length of the longest prefix that is a behaviour. Where that is not all, `seen` is the line after it
    ("" at the end), `reason` says why it cannot be, and `allowed` what could have come instead.
    """

    accepted: bool
    lines: int
    seen: str = ""
    reason: str = ""
    allowed: tuple[str, ...] = ()
    supervisors: int = 0
    foreign_words: int = 0
    """How many children left a word that neither the supervisor nor they write: somebody scribbled."""


def check(
    lines: Iterable[str],
    profile: Profile = REFERENCE,
    environment: str = "+stray",
    unfinished: bool = False,
) -> Verdict:
    """Decide whether the lines of a journal are a behaviour of the profile.

    `unfinished`: also where a supervisor has no `closed`, since it still runs, was killed, or was never closed. Lines
    are taken one by one: what is kept grows with the children alive, and by one word for each assignment. Raises
    ValueError for an environment that is not in ENVIRONMENTS.
    """
    if environment not in ENVIRONMENTS:
        raise ValueError(f"a journal is looked at in {' or '.join(ENVIRONMENTS)}, not in {environment!r}")
    follower: Follower | None = None
    system = System(profile, environment)
    begun = read = supervisors = foreign = 0

    def failed(reason: str, seen: str = "") -> Verdict:
        allowed = ("opened: a supervisor begins",) if follower is None else tuple(follower.allowed())
        return Verdict(False, read, seen, reason, allowed, supervisors, foreign)

    def not_closed() -> str:
        return f"the supervisor that begins in line {begun} is not closed"

    for text in lines:
        seen = text.rstrip("\r\n")
        try:
            line = parse(seen)
            if line.event == "opened":
                if follower is not None and not follower.is_over and not unfinished:
                    return failed(f"opened: {not_closed()} (one that was killed is accepted with --unfinished)", seen)
                supervisors, begun, foreign = supervisors + 1, read + 1, foreign + (follower.foreign if follower else 0)
                follower = Follower(system, line)
            elif follower is None:
                raise NoBehaviour("a journal begins with `opened`: this one is cut off in front, or is none")
            else:
                follower.take(line)
        except (Unreadable, NoBehaviour) as error:
            return failed(str(error), seen)
        read += 1
    if follower is None:
        return failed("it is empty")
    foreign += follower.foreign
    if not follower.is_over and not unfinished:
        return failed(f"it ends, and {not_closed()} (one that runs or was killed is accepted with --unfinished)")
    return Verdict(True, read, supervisors=supervisors, foreign_words=foreign)


# --- Reading a line --------------------------------------------------------------------------------------------------


def parse(text: str) -> Line:
    """Read one line. Raises Unreadable, naming the field that is missing or wrong."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"this is no JSON, or is cut short ({error})") from None
    if not isinstance(given, dict):
        raise Unreadable("this is no JSON object")
    event = given.get("event")
    if not isinstance(event, str) or event not in NAMES:
        what = f"{event!r} is unknown" if "event" in given else "it is missing"
        raise Unreadable(f"event: {what}; it is one of {', '.join(NAMES)}")
    _require(given, EVERY_LINE)
    if event == "opened":
        _require(given, OPENED)
        return Line(event, given["generation"], given["pid"], slots=given["slots"], startup=given["startup"])
    if event not in _OF_A_CHILD:
        if "child" in given:
            raise Unreadable(f"child: {event} is of no child")
        return Line(event, given["generation"])
    child = given.get("child")
    if not isinstance(child, dict):
        raise Unreadable(f"child: {'it must be an object' if 'child' in given else 'it is missing'}")
    _require(child, OF_A_CHILD, "child.")
    is_end, is_worker = event in _ENDS, child["kind"] == "worker"
    begins = is_worker and not is_end and event not in _NOTICES
    if (child["slot"] > 0) is not is_worker:
        raise Unreadable(f"child.slot: {child['slot']} is none of a {child['kind']} child: only workers have slots")
    if is_end:
        _require(child, OF_AN_END, "child.")
    elif begins:
        _require(child, OF_A_WORKERS_START, "child.")
    if is_end and not is_worker and child["slot_word"] != "0x0":
        raise Unreadable("child.slot_word: where there is no slot it is 0x0")
    return Line(
        event,
        given["generation"],
        child["pid"],
        child["kind"],
        child["slot"],
        int(child["clean_word"], 16) if begins else None,
        child["decision"] if is_end else "",
        child["status"] if is_end else 0,
        int(child["slot_word"], 16) if is_end else 0,
    )


def _require(given: dict[str, Any], fields: tuple[Field, ...], within: str = "") -> None:
    for each in fields:
        if each.name not in given:
            raise Unreadable(f"{within}{each.name}: it is missing")
        if not each.is_right(given[each.name]):
            raise Unreadable(f"{within}{each.name}: it is {given[each.name]!r}, and must be {each.must_be}")


# --- Following a supervisor ------------------------------------------------------------------------------------------

Death = tuple[int, str]
"""How a child ended, as far as the model tells deaths apart: status 0, 1 or (for all others) 2; what its slot held."""
Silent = tuple[tuple[str, Arguments], ...]
"""Steps of one child: an action, and its arguments after the child (and the child's slot, where it has that)."""

AS_ASSIGNED, ARMED, EMPTY, FOREIGN, NONE = "the clean word", "the armed word", "0", "a foreign word", "no slot"


@dataclass(frozen=True)
class _Child:
    """A child that is not reaped: what its first line said, and its numbers in the instance."""

    first: Line
    number: int
    slot: int


class _Model:
    """An instance, and what a follower asks of it."""

    def __init__(self, system: System, size: Size) -> None:
        self.size = size
        self.instance = Instance(system, size)
        self.steps_of_a_child = [
            action.name
            for action in system.actions
            if action.of and action.of[0].sort is CHILD
            and (action.by is Who.CHILD or action.name in ("kill", "kill_stuck", "stray_write"))
        ]  # fmt: skip
        self.steps_of_the_supervisor = [
            name for name in ("only_dead_ends_left", "all_gone") if name in self.instance.actions
        ]
        profile = system.profile
        self.mode, self.slot_of = self.instance.index["mode"], self.instance.index["slot_of"]
        self.status, self.phase = self.instance.index["status"], self.instance.index["phase"]
        self.conditions = {when: self.instance.predicate(when.holds(profile)) for each in EVENTS for when in each.when}
        self.decides_clean = self.instance.predicate(decided_clean(profile), (c,))
        self.decides_clean_without = self.instance.predicate(status_is_clean(c), (c,))
        self.words = {
            AS_ASSIGNED: self.instance.predicate(flag[slot_of[c]] == clean_word(profile, slot_of[c]), (c,)),
            ARMED: self.instance.predicate(flag[slot_of[c]] == ACTIVE, (c,)),
            EMPTY: self.instance.predicate(flag[slot_of[c]] == UNUSED, (c,)),
        }
        self.of_children = [
            position for position, variable in enumerate(self.instance.variables) if variable.index is CHILD
        ]
        self.names_of_words = {
            self.instance.index[name] for name in ("slot_of", "token") if name in self.instance.index
        }
        self.deaths: dict[tuple[Any, ...], dict[Death, Silent]] = {}

    def grown(self, size: Size, states: Iterable[State]) -> tuple[_Model, set[State]]:
        """Return a larger instance, and these states with nothing in what was added."""
        larger = _model(self.instance.system, size)
        first = larger.instance.initial

        def widened(state: State) -> State:
            return tuple(
                (*value, *blank[len(value) :]) if isinstance(value, tuple) else value
                for value, blank in zip(state, first, strict=True)
            )

        return larger, {widened(state) for state in states}

    def bindings(self, name: str, child: int, slot: int) -> Iterator[Arguments]:
        """Yield the arguments of an action for this child and this slot; what else it has ranges over all.

        The word that an assignment draws is the slot's own first: which fresh one it is makes no difference. Nor does
        it which word is scribbled: the reserved ones stand for all.
        """
        ranges: list[Iterable[int]] = []
        for parameter in self.instance.actions[name].action.of:
            if parameter.name == "c":
                ranges.append((child,))
            elif parameter.name == "s":
                ranges.append((slot,))
            elif parameter.name == "w" and name == "assign":
                ranges.append((len(RESERVED) + slot - 1, *self.instance.members(parameter)))
            elif parameter.name == "w":
                ranges.append([word for word in self.instance.words if word < len(RESERVED)])
            else:
                ranges.append(self.instance.members(parameter))
        yield from _product(ranges)

    def after(self, state: State, run: tuple[str, ...], child: int, slot: int) -> State | Callable[[], str]:
        """Take actions one after another, or return a function that says which is not possible, and why.

        To say it takes longer than all the rest, and mostly nobody asks.
        """
        for name in run:
            if name not in self.instance.actions:
                return partial("{} has no {}".format, self.instance.system.profile.name, name)
            action = self.instance.actions[name]
            arguments: Arguments = ()
            for arguments in self.bindings(name, child, slot):
                if action.enabled(state, *arguments):
                    break
            else:
                return partial(self._why_not, state, name, arguments)
            state = action.next_state(state, *arguments)
        return state

    def _why_not(self, state: State, name: str, arguments: Arguments) -> str:
        return f"{name} is not possible: {self.instance.why_not(state, name, *arguments)}"

    def closure(self, states: set[State]) -> set[State]:
        """Return these states, and those after steps of the supervisor that are not told."""
        todo, seen = list(states), set(states)
        while todo:
            state = todo.pop()
            for name in self.steps_of_the_supervisor:
                action = self.instance.actions[name]
                if action.enabled(state) and (after := action.next_state(state)) not in seen:
                    seen.add(after)
                    todo.append(after)
        return seen

    def ways_to_die(self, state: State, child: int) -> dict[Death, Silent]:
        """Return how the child can end from here, and a shortest run of steps of its own to each such end.

        The rest of the state does not matter to that, but for the supervisor's mode; so an answer serves again.
        """
        slot = state[self.slot_of][child]
        own = tuple(
            bool(state[position][child]) if position in self.names_of_words else state[position][child]
            for position in self.of_children
        )
        scalars = tuple(value for value in state if not isinstance(value, tuple))
        key = (own, scalars, self.word(state, child))
        if key not in self.deaths:
            self.deaths[key] = self._search(state, child, slot)
        return self.deaths[key]

    def _search(self, first: State, child: int, slot: int) -> dict[Death, Silent]:
        found: dict[Death, Silent] = {}
        todo: deque[tuple[State, Silent]] = deque([(first, ())])
        seen = {first}
        while todo:
            state, run = todo.popleft()
            if state[self.phase][child] == list(Phase).index(Phase.EXITED):
                status_told = state[self.status][child]
                found.setdefault((status_told if status_told in (0, 1) else 2, self.word(state, child)), run)
                continue  # the dead do nothing
            for name in self.steps_of_a_child:
                if name == "stray_write" and not slot:
                    continue
                action = self.instance.actions[name]
                for arguments in self.bindings(name, child, slot):
                    if action.enabled(state, *arguments):
                        after = action.next_state(state, *arguments)
                        if after not in seen:
                            seen.add(after)
                            todo.append((after, (*run, (name, arguments[1 + (name == "stray_write") :]))))
        return found

    def replay(self, state: State, run: Silent, child: int) -> State:
        """Take steps of one child. Raises ValueError where one is not possible."""
        slot = state[self.slot_of][child]
        for name, rest in run:
            given = (child, slot, *rest) if name == "stray_write" else (child, *rest)
            state = self.instance.step(state, name, *given)
        return state

    def word(self, state: State, child: int) -> str:
        """Return what the child's slot holds."""
        if not state[self.slot_of][child]:
            return NONE
        return next((name for name, says in self.words.items() if says(state, state, 0, child)), FOREIGN)

    def decides(self, state: State, child: int) -> bool:
        """Whether the profile's rule, and nothing else, finds the death of this child clean."""
        rule = self.decides_clean if state[self.slot_of][child] else self.decides_clean_without
        return bool(rule(state, state, 0, child))


@lru_cache(maxsize=16)
def _model(system: System, size: Size) -> _Model:
    """Make a model, which takes tens of milliseconds, or the one that was made before: it has no state of its own."""
    return _Model(system, size)


def _product(ranges: list[Iterable[int]]) -> Iterator[Arguments]:
    """As itertools.product, without making the last range whole before the first answer."""
    if not ranges:
        yield ()
        return
    for first in ranges[0]:
        for rest in _product(ranges[1:]):
            yield (first, *rest)


@dataclass
class Follower:
    """One supervisor, followed through its lines. Raises NoBehaviour from `take`, and then is where it was."""

    system: System
    opened: Line
    foreign: int = 0
    generation: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        """Begin where everything is blank: at the model's first state, or, with a startup child, just after a reset.

        That is a state of the model, too: of each generation but the first.
        """
        if self.opened.generation != 1:
            raise NoBehaviour(f"opened: the first generation is 1, not {self.opened.generation}")
        self._model = _model(self.system, Size(min(self.opened.slots, 2), 2))
        first = list(self._model.instance.initial)
        first[self._model.mode] = list(Mode).index(Mode.STARTING if self.opened.startup else Mode.RUNNING)
        self._states: set[State] = {tuple(first)}
        self._children: dict[int, _Child] = {}  # by pid
        self._slot_numbers: dict[int, int] = {}  # by what the journal calls them
        self._free_children = list(range(1, self._model.size.children + 1))
        self._free_slots = list(range(1, self._model.size.slots + 1))
        self._noticed = 0  # the pid of who was noticed, until it is reaped
        self._startup_child = ""  # the last that was told of this generation's
        self._owed = ""
        self._has_patience = False
        self._drawn: set[int] = set()

    @property
    def is_over(self) -> bool:
        """Whether the supervisor has stopped."""
        stopped = list(Mode).index(Mode.STOPPED)
        return all(state[self._model.mode] == stopped for state in self._states)

    def take(self, line: Line) -> None:
        """Go on by one line. Raises NoBehaviour, and then nothing has changed."""
        if self.is_over:
            raise NoBehaviour(f"{line.event}: the supervisor is closed")
        child = self._subject(line)
        self._require_generation(line)
        meaning, states = self._possible(line, child)
        self._states = self._model.closure(states)
        self._note(line, meaning, child)

    def allowed(self) -> Iterator[str]:
        """Say what could have come next, an event a line."""
        if self.is_over:
            yield "opened: another supervisor begins"
            return
        for meaning in EVENTS:
            if not meaning.of:
                try:
                    self._after(meaning, Line(meaning.event, 0), None)
                except NoBehaviour:
                    continue
                yield f"{meaning.event}: {meaning.sentence}"
            elif not meaning.decision and not meaning.is_a_notice:
                yield from self._startable(meaning)
        shown = list(self._children.values())[:_SHOWN]
        for child in shown:
            yield from self._ends_of(child)
        if len(self._children) > len(shown):
            yield f"the end of one of {len(self._children) - len(shown)} more children"

    # What a line is about

    def _subject(self, line: Line) -> _Child | None:
        if not line.pid:
            return None
        known = self._children.get(line.pid)
        if not line.decision and line.event not in _NOTICES:
            if line.pid == self.opened.pid:
                raise NoBehaviour(f"{line.event}: child {line.pid} is the supervisor itself")
            if known is not None:
                raise NoBehaviour(f"{line.event}: child {line.pid} is there already, and has not been reaped")
            if line.slot > self.opened.slots:
                raise NoBehaviour(f"{line.event}: there is no slot {line.slot}; `opened` said {self.opened.slots}")
            if line.clean_word is not None:
                self._require_fresh(line.clean_word)
            return self._numbered(line)
        if known is None:
            raise NoBehaviour(f"{line.event}: there is no child {line.pid}: it was not started, or has been reaped")
        if (line.kind, line.slot) != (known.first.kind, known.first.slot):
            was = f"a {known.first.kind} child in slot {known.first.slot}"
            raise NoBehaviour(f"{line.event}: child {line.pid} is {was}, not a {line.kind} child in slot {line.slot}")
        return known

    def _require_fresh(self, word: int) -> None:
        if self.system.profile.clean_word is not CleanWord.FRESH:
            return
        if word in (0, _ALL_ONES):
            raise NoBehaviour(f"started: {hex(word)} is no clean word: it, or its complement, says unused")
        if word in self._drawn or word ^ _ALL_ONES in self._drawn:
            raise NoBehaviour(f"started: {hex(word)}, or its complement, was the clean word of an earlier assignment")

    def _numbered(self, line: Line) -> _Child:
        """Give a new child its numbers. A slot in use has its own: that it is not free is the model's to say."""
        self._grow()
        slot = 0
        if line.slot:
            slot = self._slot_numbers.get(line.slot) or (self._free_slots[0] if self._free_slots else 0)
        return _Child(line, self._free_children[0], slot)

    def _grow(self) -> None:
        """Let there be a free child, and a free slot unless all that there are are in use."""
        size = self._model.size
        children = size.children if self._free_children else 2 * size.children
        slots = size.slots if len(self._free_slots) > 1 else min(2 * size.slots, self.opened.slots)
        if (slots, children) == (size.slots, size.children):
            return
        self._model, self._states = self._model.grown(Size(slots, children), self._states)
        for number in range(size.children + 1, children + 1):
            heapq.heappush(self._free_children, number)
        for number in range(size.slots + 1, slots + 1):
            heapq.heappush(self._free_slots, number)

    def _require_generation(self, line: Line) -> None:
        expected = self.generation + any(each.next_generation for each in EVENTS if each.event == line.event)
        if line.generation != expected:
            raise NoBehaviour(f"{line.event}: this is of generation {expected}, not {line.generation}")

    # What is possible

    def _possible(self, line: Line, child: _Child | None) -> tuple[Meaning, set[State]]:
        reasons: list[NoBehaviour] = []
        for meaning in EVENTS:
            if meaning.event == line.event and (line.kind in meaning.of or not (line.kind or meaning.of)):
                try:
                    return meaning, self._after(meaning, line, child)
                except NoBehaviour as error:
                    reasons.append(error)
        if not reasons:
            raise NoBehaviour(f"{line.event}: a {line.kind} child has no such line")
        raise NoBehaviour(f"{line.event}: " + "; or ".join(dict.fromkeys(map(str, reasons))))

    def _after(self, meaning: Meaning, line: Line, child: _Child | None) -> set[State]:
        """Return the states after an event, if it has this meaning. Raises NoBehaviour if there are none."""
        if self._owed and meaning.event not in (self._owed, "closing"):
            raise NoBehaviour(f"`{self._owed}` must come next")
        if meaning.is_owed and not self._owed:
            raise NoBehaviour("no crash was told just before")
        if meaning.spends_patience and not self._has_patience:
            raise NoBehaviour("nobody's time can be over")
        if meaning.decision and line.decision != meaning.decision:
            raise NoBehaviour(f"it is of a child that is decided {meaning.decision}, not {line.decision}")
        if self._noticed and meaning.decision:
            if line.pid != self._noticed:
                raise NoBehaviour(f"it is child {self._noticed} that was noticed")
            if child is not None and child.first.clean_word == line.slot_word:
                raise NoBehaviour("the child was armed when it was noticed, and its slot is said to have been clean")
        if meaning.prepares and not self.opened.startup:
            raise NoBehaviour("`opened` says that there is none")
        if meaning.prepares and self._startup_child:
            raise NoBehaviour("there has been one in this generation")
        if meaning.is_prepared and self.opened.startup and self._startup_child != "exited":
            raise NoBehaviour("no startup child has prepared it")
        after: set[State] = set()
        reasons: list[Callable[[], str]] = []
        for state in self._states:
            failing = [when.why for when in meaning.when if not self._model.conditions[when](state, state, 0)]
            if failing:
                reasons.append(partial("only where {}".format, failing[0]))
                continue
            if meaning.decision:
                assert child is not None
                dead = self._dead(state, line, child)
                if isinstance(dead, str):
                    reasons.append(partial(str, dead))
                    continue
                state = dead
            for run in meaning.runs:
                numbers = (0, 0) if child is None else (child.number, child.slot)
                answer = self._model.after(state, run, *numbers)
                if callable(answer):
                    reasons.append(answer)
                else:
                    after.add(answer)
        if not after:
            raise _NotPossible(reasons)
        return after

    def _dead(self, state: State, line: Line, child: _Child) -> State | str:
        """Return the state in which the child has ended as the line says, or why it cannot have."""
        end = self._death(line, child)
        run = self._model.ways_to_die(state, child.number).get(end)
        if run is None:
            return f"no child of this kind ends with status {line.status} and {end[1]} in its slot"
        dead = self._model.replay(state, run, child.number)
        if self._model.decides(dead, child.number) is (line.decision == CRASH):
            what = "no slot" if end[1] == NONE else f"{end[1]} in its slot"
            return f"with status {line.status} and {what} it is not to be decided {line.decision}"
        return dead

    def _death(self, line: Line, child: _Child) -> Death:
        return line.status if line.status in (0, 1) else 2, self._word(line, child)

    def _word(self, line: Line, child: _Child) -> str:
        if child.first.clean_word is None:
            return NONE
        words = {child.first.clean_word: AS_ASSIGNED, child.first.clean_word ^ _ALL_ONES: ARMED, 0: EMPTY}
        return words.get(line.slot_word, FOREIGN)

    # What has happened

    def _note(self, line: Line, meaning: Meaning, child: _Child | None) -> None:
        self.generation = line.generation
        self._owed = meaning.owes or ("" if meaning.event == self._owed else self._owed)
        if meaning.next_generation:
            self._startup_child = ""
        if line.kind == "startup":
            self._startup_child = line.event
        self._has_patience = meaning.gives_patience or (self._has_patience and not meaning.spends_patience)
        if child is None:
            return
        if meaning.is_a_notice:
            self._noticed = line.pid
            return
        if not meaning.decision:
            self._children[line.pid] = child
            heapq.heappop(self._free_children)
            if line.slot:
                self._slot_numbers[line.slot] = heapq.heappop(self._free_slots)
            if line.clean_word is not None:
                self._drawn.add(line.clean_word)
            return
        self.foreign += self._word(line, child) in (EMPTY, FOREIGN)
        del self._children[line.pid]
        self._noticed = 0
        heapq.heappush(self._free_children, child.number)
        if child.slot:
            heapq.heappush(self._free_slots, self._slot_numbers.pop(line.slot))

    # What could have happened

    def _startable(self, meaning: Meaning) -> Iterator[str]:
        for kind in meaning.of:
            self._grow()
            if kind == "worker" and not self._free_slots:
                continue
            line = Line(meaning.event, self.generation, kind=kind, slot=int(kind == "worker"))
            new = _Child(line, self._free_children[0], self._free_slots[0] if line.slot else 0)
            try:
                self._after(meaning, line, new)
            except NoBehaviour:
                continue
            yield f"{meaning.event}, a new {kind} child: {meaning.sentence}"

    def _ends_of(self, child: _Child) -> Iterator[str]:
        first = child.first
        where = f"{first.kind} child {first.pid}" + (f" in slot {first.slot}" if first.slot else "")
        clean = first.clean_word
        words = [("", 0)] if clean is None else [
            (AS_ASSIGNED, clean), (ARMED, clean ^ _ALL_ONES), (EMPTY, 0), (FOREIGN, clean ^ 1)
        ]  # fmt: skip
        for meaning in EVENTS:
            if first.kind not in meaning.of or not meaning.decision:
                continue
            ways = []
            for name, word in words:
                numbers = tuple(number for number in (0, 1, 2) if self._can_end(meaning, child, number, word))
                if numbers:
                    ways.append(_STATUSES[numbers] + (f" with {name}" if name else ""))
            if ways:
                yield f"{meaning.event}, {where}: {'; '.join(ways)}"

    def _can_end(self, meaning: Meaning, child: _Child, number: int, word: int) -> bool:
        first = child.first
        line = Line(
            meaning.event, self.generation, first.pid, first.kind, first.slot,
            decision=meaning.decision, status=number, slot_word=word,
        )  # fmt: skip
        try:
            self._after(meaning, line, child)
        except NoBehaviour:
            return False
        return True
