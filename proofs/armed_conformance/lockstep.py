"""Model and implementation, step by step together: every difference raises `Mismatch`, which tells the whole story.

The harness chooses what children do; the model says whether it is legal and what follows; the implementation must agree
on every flag, every decision, every refusal and on what is held. What the implementation may choose (which free slot,
in which order deaths are dealt with, whether a child that is told to stop gets to leave in the orderly way) is checked
against what the model allows, not predicted. Where each step of a child is seen, the `Monitor` holds every flag to the
rows of the lifecycle besides; of a server several are seen at once, and there its flags are compared and no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any, NoReturn, TypeVar

from armed_conformance import calls
from armed_conformance.protocol import (
    Cannot,
    Circumstance,
    Death,
    Decided,
    ExitKind,
    Implementation,
    NotHere,
    Observation,
    Possible,
    Refused,
    Step,
)
from armed_model.interpret import Instance, Size, State
from armed_model.lifecycle import ROWS, WALSENDER_ROWS, LifecycleViolation, Monitor, SlotState, Who
from armed_model.profiles import REFERENCE, CleanWord, Kind, Profile
from armed_model.profiles import Step as StartUpStep
from armed_model.system import (
    ACTIVE,
    ASSIGNED,
    OTHER,
    RESERVED,
    STREAMING,
    UNUSED,
    Mode,
    Phase,
    Shutdown,
    System,
    armed,
    clean,
    failed,
    flag,
    holds,
    mode,
    phase,
    shutdown,
    slot_of,
    status,
)
from armed_model.system import kind as kind_of
from armed_model.terms import Term

CHILDREN = 4
"""How many children can have a slot at once: a history has so many slots at most."""

MOST_HELD = 4
"""How many entries of the harness's resource a child holds at most."""

BESIDES = 4
"""How many children there may be besides those that have slots: auxiliary and dead-end ones."""

REAPING = {Decided.CLEAN: "reap_clean", Decided.CRASH: "reap_crash", Decided.BOOK_KEEPING: "reap_book_keeping"}
"""What the supervisor makes of a death -> the model's action."""
_ORDERLY_ON_REQUEST = 1
"""The status with which a child leaves that is asked to (SIGTERM)."""


_Result = TypeVar("_Result")


Order = tuple[str, ...] | tuple[str, int] | tuple[str, int, str]
"""What the harness does, as plain data: a method of Lockstep; which child, counted from 1 as started; what of it."""


class Mismatch(AssertionError):
    """Implementation and model disagree. The message is the story: numbered steps, what was allowed, what was seen."""

    slots: int = 0
    orders: tuple[Order, ...] = ()
    """What was ordered, with so many slots: `replay` does it again."""


class DoesNotReturn(Mismatch):
    """A call to the implementation did not return within `calls.LIMIT` seconds."""


@dataclass(frozen=True, order=True)
class Cell:
    """What a child was at its death: the unit in which coverage is counted."""

    phase: str
    engaged: bool
    failed: bool
    held: int
    exit_kind: str
    kind: str = Kind.BACKEND.value

    def __str__(self) -> str:
        return f"{self.exit_kind} while {self.situation}"

    @property
    def situation(self) -> str:
        """The situation in words."""
        state = f"{'engaged' if self.engaged else 'idle'}{', spoilt' if self.failed else ''}"
        who = f"{self.kind}, " * (self.kind != Kind.BACKEND.value)
        return f"{who}{self.phase}, {state}, holding {'2 or more' if self.held == 2 else self.held}"


@dataclass
class Coverage:
    """What has been exercised so far, over many histories."""

    histories: int = 0
    steps: int = 0
    refusals: int = 0
    deaths: Counter[str] = field(default_factory=Counter)
    armed_deaths: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    recoveries: int = 0
    generations: int = 1
    """The highest generation that any history has reached."""
    cells: Counter[Cell] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    obeyed: Counter[str] = field(default_factory=Counter)
    """What was done of a history that was written down, by the name of the order."""
    not_done: Counter[str] = field(default_factory=Counter)
    """What was ordered and not done, in such a history or a random one, by the reason."""

    def add(self, cell: Cell, decided: Decided) -> None:
        """Count a death that was ordered, and that the supervisor has dealt with; its cell only if it has decided."""
        if decided is not Decided.BOOK_KEEPING:
            self.cells[cell] += 1
        self.deaths[cell.exit_kind] += 1
        self.armed_deaths += cell.engaged


def profile_of(implementation: Implementation) -> Profile:
    """Return the profile that an implementation is held to."""
    found: Profile = getattr(implementation, "profile", REFERENCE)
    return found


@dataclass
class _Actor:
    """What the harness knows of a child: its number in the model, and what it can be told."""

    model: int
    held: list[int] = field(default_factory=list)  # entries that the end of the block will give back, last first
    kept: list[int] = field(default_factory=list)  # those that it will not: a take cut short, a give-back that failed
    ending_block: bool = False  # giving back has begun; the block takes nothing more
    frozen: bool = False
    auxiliary: bool = False  # the supervisor has started it
    died_in: Cell | None = None  # the situation in which the harness has ended it


class Lockstep:
    """One history: an implementation, the model's state beside it, and the story so far."""

    def __init__(self, implementation: Implementation, slots: int, coverage: Coverage | None = None) -> None:
        """Open the implementation with `slots` slots (at most CHILDREN); where that raises, it is closed again.

        It is held to the profile that it names, if it does.
        """
        if not 1 <= slots <= CHILDREN:
            raise ValueError(f"a history has 1 to {CHILDREN} slots, not {slots}")
        self.implementation, self.slots, self._asked_for = implementation, slots, slots
        self.profile = profile_of(implementation)
        self.coverage = coverage if coverage is not None else Coverage()
        self.coverage.histories += 1
        self.story: list[str] = []
        self.orders: list[Order] = []
        self._numbers: list[int] = []  # the children, as started
        self._actors: dict[int, _Actor] = {}
        self._dealt_with: tuple[Death, ...] = ()
        self._generation = 1
        self._arranged: set[Circumstance] = set()
        self._may_lose_patience = False
        self._dead_before: set[int] = set()  # when the shutdown was asked for
        self.stopped = False
        self._not_ours = calls.children()
        self._tell(f"a supervisor with {slots} slot{'s' * (slots > 1)}")
        try:
            self._open()
            self._compare({Who.SUPERVISOR})
        except BaseException:
            self.abandon()
            raise

    def _open(self) -> None:
        try:
            has = self._ask("open", lambda: self.implementation.open(self._asked_for))
        except Refused as refused:
            self._differ("open cannot be refused", f"it was: {refused}")
        room = self.slots + 1  # for one whose start must be refused, as there is no slot for it
        if has is not None:
            if not isinstance(has, int) or has < self.slots:
                self._differ(f"open returns how many slots it has, {self.slots} or more", f"it returned {has!r}")
            self._tell(f"    it has {has}")
            self.slots, room = has, has + BESIDES
        self._instance = _instance(self.profile, self.slots, room)
        self._state: State = self._instance.initial
        rows = (*ROWS, *(WALSENDER_ROWS if Kind.WALSENDER in self.profile.kinds else ()))
        self._monitor = Monitor(self.slots, rows)

    # What the harness may do -----------------------------------------------------------------------------------------

    @property
    def children(self) -> list[int]:
        """The living children that the harness has started, by number."""
        return [child for child in self._living() if not self._actors[child].auxiliary]

    @property
    def dead_ends(self) -> list[int]:
        """Those of them that are dead-end children."""
        return [child for child in self.children if self._read(kind_of, self._actors[child]) is Kind.DEAD_END]

    @property
    def auxiliaries(self) -> list[int]:
        """The living children that the supervisor has started of its own accord."""
        return [child for child in self._living() if self._actors[child].auxiliary]

    def _living(self) -> list[int]:
        return [child for child in self._actors if self.phase(child) is not Phase.EXITED]

    @property
    def steppable(self) -> list[int]:
        """The living children that respond."""
        return [child for child in self.children if not self._actors[child].frozen]

    def _actor(self, child: int) -> _Actor:
        if child not in self._actors:
            self._differ(
                f"child {child} is still there: only patience_ends has a recovery kill who is stuck", "it was reaped"
            )
        return self._actors[child]

    def phase(self, child: int) -> Phase:
        """Where the child is in its life, says the model."""
        found: Phase = self._read(phase, self._actors[child])
        return found

    def arrange(self, circumstance: Circumstance) -> None:
        """Arrange for what comes next. Raises Cannot if it would take what the implementation cannot do."""
        self.orders.append(("arrange", circumstance.value))
        self._needs(circumstance)
        self._tell(f"arranged: {circumstance.value}")
        self._agree("arrange", lambda: self.implementation.arrange(circumstance))
        self._arranged.add(circumstance)

    def start(self) -> int | None:
        """Start a child, legal or not; return its number, or None where it was refused, as it had to be."""
        if self._free_number() is None:
            raise Cannot("start: the model has no room for another child")
        self.orders.append(("start",))
        self._tell("start a child")
        refusal = child = None
        try:
            child = self._ask("start", self.implementation.start, may_be_impossible=True)
        except Refused as refused:
            refusal = str(refused)
        except Cannot:
            self._deal_with_what_came_first()
            self._compare({Who.SUPERVISOR})
            raise
        self._deal_with_what_came_first()
        if refusal is not None:
            self._refused_to_start(refusal)
            return None
        if not isinstance(child, int):
            self._differ("start returns a child's number", f"it returned {child!r}")
        if self.stopped:
            self._differ("a supervisor that has stopped starts nobody", f"child {child} was started")
        if Circumstance.FORK_FAILS in self._arranged:
            self._differ("the fork fails, and that is told", f"child {child} was started")
        seen = self._look()
        if child in self._actors:
            self._differ("each child has a number of its own", f"there is a child {child} already")
        if child not in seen.children:
            self._differ(f"child {child} is there and has a slot", "it is not among the children")
        slot = seen.children[child]
        self._tell(f"    child {child}, " + (f"in slot {slot}" if slot else "a dead-end child"))
        self._numbers.append(child)
        actor = self._actors[child] = _Actor(self._free_number() or 0)
        if slot == 0:
            if not self._can("fork_dead_end", actor.model):
                why = self._why_not("fork_dead_end", actor.model)
                self._differ(f"no dead-end child is started: {why}", f"child {child} is one")
            self._do("fork_dead_end", actor.model)
        else:
            self._assigned(child, slot)
            self._do("fork", actor.model)
        for action in self._before_serving() if slot or not self.profile.engages_once else ():
            self._do(action, actor.model)
        self._compare({Who.SUPERVISOR})
        return child

    def _refused_to_start(self, why: str) -> None:
        self._tell(f"    refused: {why}")
        self.coverage.refusals += 1
        legal = self._assignments()
        if legal and Circumstance.FORK_FAILS in self._arranged:
            self._arranged.remove(Circumstance.FORK_FAILS)
            self._do("assign", *legal[0])
            self._do("fork_fails")
        elif legal:
            self._differ("a child can be started", f"it was refused: {why}")
        self._compare({Who.SUPERVISOR})

    def _assigned(self, child: int, slot: int) -> None:
        """Let a slot be given out, which the implementation has chosen."""
        legal = self._assignments()
        if not legal:
            self._differ("no child can be started now", f"child {child} was started in slot {slot}")
        choice = next((choice for choice in legal if choice[0] == slot), None)
        if choice is None:
            why = self._why_not("assign", *self._choices(slot)[-1]) if slot in self._all_slots() else "there is none"
            self._differ(f"slot {slot} cannot be given out: {why}", "it was")
        self._do("assign", *choice)

    def _choices(self, slot: int) -> list[tuple[int, ...]]:
        """What `assign` may be asked with this slot: with each word, where words are fresh."""
        if self.profile.clean_word is CleanWord.CONSTANT:
            return [(slot,)]
        return [(slot, word) for word in self._instance.words if word >= len(RESERVED)]

    def _assignments(self) -> list[tuple[int, ...]]:
        choices = [choice for slot in self._all_slots() for choice in self._choices(slot)]
        return [choice for choice in choices if self._can("assign", *choice)]

    def _deal_with_what_came_first(self) -> None:
        """Account for what an implementation has dealt with before it did what it was told."""
        self._deal_with_deaths()
        seen = self._look()
        if seen.stopped and Circumstance.STARTUP_FAILS in self._arranged and self._can("only_dead_ends_left"):
            self._expect_no_generation(seen)
        elif seen.generation != self._generation and not seen.stopped:
            self._tell(f"    a new generation: {seen.generation}")
            self._expect_generation(seen.generation)
        self._account_for_auxiliaries(seen)

    def _before_serving(self) -> list[str]:
        """The start-up steps that a child has behind it when it can be told something: in them it is told nothing."""
        return [step.value for step in self.profile.start if step in (StartUpStep.ASK, StartUpStep.CHECK)]

    def _to_serve(self) -> list[str]:
        """The start-up steps that SERVE takes."""
        return [step.value for step in self.profile.start if step.value not in self._before_serving()]

    def step(self, child: int, step: Step) -> None:
        """Have a living child take a step, legal or not; what the model forbids must be refused and change nothing.

        Raises Cannot if it would take what the implementation cannot do.
        """
        self.orders.append(("step", self._number(child), step.value))
        actor = self._actor(child)
        step = self._possible(actor, step)
        self._needs(step)
        if step in _GIVE_FAILURES and len(actor.held) == 1 and self.phase(child) is Phase.LEAVING:
            self._needs(Step.DISARM)  # the exit path will be through
        action, arguments = self._action(actor, step)
        legal = action is None or self._can(action, *arguments)
        before = self._look().resource.get(child, frozenset())
        self._tell(f"child {child}: {step.value}")
        try:
            self._ask(step.value, lambda: self.implementation.step(child, step), may_be_impossible=True)
        except Refused as refused:
            self._tell(f"    refused: {refused}")
            self.coverage.refusals += 1
            if legal:
                self._differ(f"{step.value} is legal here", f"it was refused: {refused}")
            if step is Step.DISARM and self._read(armed, actor):
                actor.ending_block = True  # it has ended, and the switch stays armed
            self._compare({Who.CHILD})
            return
        if not legal:
            self._differ(f"{step.value} must be refused: {self._why_not(action or '', *arguments)}", "it was done")
        self._keep_account(actor, step, before, self._look().resource.get(child, frozenset()))
        if action is not None:
            self._do(action, *arguments)
        by = {Who.CHILD}
        match step:
            case Step.SERVE | Step.STREAM:
                for further in self._to_serve()[1:]:
                    self._do(further, actor.model)
                if step is Step.STREAM:
                    self._do("stream", actor.model)
            case Step.SCRIBBLE:
                by = {Who.ENVIRONMENT}
            case Step.FREEZE:
                actor.frozen = True
            case Step.LEAVE:
                self._do("leave", actor.model)
                actor.ending_block = True
        if self.phase(child) is Phase.LEAVING and not actor.held:
            if step in _GIVE_FAILURES:
                step = Step.DISARM  # the exit path is through: wait for the end
                self._agree(step.value, lambda: self.implementation.step(child, Step.DISARM))
            if step is Step.DISARM:
                self._do("orderly_exit", actor.model, 0)
                self.coverage.deaths["left step by step"] += 1
        self._compare(by)

    def end(self, child: int, kind: ExitKind) -> None:
        """Have a living child end. A frozen one can only be killed; one that is leaving can only end raw.

        Raises Cannot if it would take what the implementation cannot do.
        """
        self.orders.append(("end", self._number(child), kind.name))
        actor = self._actor(child)
        if actor.frozen:
            kind = ExitKind.SIGKILL
        elif self.phase(child) is Phase.LEAVING and kind.exit.orderly:
            kind = ExitKind.RAW_EXIT_0
        self._needs(kind)
        self._tell(f"child {child}: ends by {kind}")
        self._end(child, kind)

    def end_auxiliary(self, which: int, kind: ExitKind) -> None:
        """Have a child end that the supervisor has started: of those that there are the one numbered `which`, from 1.

        Raises Cannot if there is none, or it cannot end so.
        """
        self.orders.append(("end_auxiliary", which, kind.name))
        self._needs(kind)
        if len(self.auxiliaries) < which:
            raise Cannot(f"end auxiliary child {which}: there is none")
        child = self.auxiliaries[which - 1]
        self._tell(f"auxiliary child {child}: ends by {kind}")
        self._end(child, kind)

    def _end(self, child: int, kind: ExitKind) -> None:
        actor = self._actors[child]
        self._agree("end", lambda: self.implementation.end(child, kind), may_be_impossible=True)
        actor.died_in = self._cell_of(actor, kind)
        if kind.exit.orderly:
            self._leave_in_the_orderly_way(actor, kind.exit.status)
        else:
            self._do("raw_exit", actor.model, kind.exit.status)
        self._compare({Who.CHILD})

    def supervise(self) -> None:
        """Let the supervisor deal with every death, and compare each decision, the generation, and all that is left."""
        self.orders.append(("supervise",))
        self._tell("the supervisor looks")
        self._agree("supervise", self.implementation.supervise)
        self._deal_with_deaths()
        seen = self._look()
        if Circumstance.STARTUP_FAILS in self._arranged and self._can("only_dead_ends_left"):
            self._expect_no_generation(seen)
            return
        if seen.generation != self._generation:
            self._tell(f"    a new generation: {seen.generation}")
            self._expect_generation(seen.generation)
        self._compare({Who.SUPERVISOR})
        unreaped = [child for child in self._actors if self.phase(child) is Phase.EXITED]
        if unreaped:
            self._differ("every dead child is reaped", f"child {unreaped[0]} is not")
        held_up = Circumstance.PATIENCE_ENDS not in self._arranged and self._somebody_is_stuck()
        if self._mode() is not Mode.RUNNING and not held_up:
            self._differ("nothing holds the recovery up: there is a new generation", "there is none")

    def stop(self) -> None:
        """Ask for an orderly shutdown, and compare how everybody ended."""
        self.orders.append(("stop",))
        self._tell("an orderly shutdown is asked for")
        self._do("ask_orderly")
        self._may_lose_patience = self._somebody_is_stuck() or ExitKind.SIGTERM in self.implementation.cannot
        self._dead_before = {child for child in self._actors if self.phase(child) is Phase.EXITED}
        self._agree("stop_supervisor", self.implementation.stop_supervisor)
        self._deal_with_deaths()
        if not self._can("stop"):
            self._differ("a stopped supervisor has no child left", self._why_not("stop"))
        self._do("stop")
        self._expect_stopped("", self._look())

    def close(self) -> None:
        """Close the implementation; no process that has begun since it was opened may be left."""
        self._tell("everything is closed")
        try:
            self._agree("close", self.implementation.close)
        finally:
            left = calls.children() - self._not_ours
            calls.end_children(left)
        if left:
            pids = ", ".join(map(str, sorted(left)))
            self._differ("no process is left that began in this history", f"still there, or not reaped: {pids}")

    def abandon(self) -> None:
        """Close after something has gone wrong already: that is what will be told, whatever goes wrong now."""
        with suppress(Mismatch):
            self.close()

    # Calls to the implementation -------------------------------------------------------------------------------------

    def _ask(self, call: str, make: Callable[[], _Result], *, may_be_impossible: bool = False) -> _Result:
        """Call the implementation. What it raises is a difference, but for Refused; so is a call that does not end.

        Cannot is none where the protocol says so. That something is missing here says nothing about the implementation.
        """
        if call != "close":  # what was begun is closed whatever has come
            calls.stop_if_interrupted()
        try:
            with calls.time_limit(calls.LIMIT):
                return make()
        except (Refused, Mismatch, NotHere):
            raise
        except Cannot as reason:
            if not may_be_impossible:
                self._differ(f"{call} does what is said in the protocol", f"it raised Cannot: {reason}")
            self._tell(f"    not done, it cannot: {reason}")
            raise
        except calls.TookTooLong:
            self._differ(f"{call} returns", f"it did not return within {calls.LIMIT:g} s", DoesNotReturn)
        except Exception as error:
            self._differ(f"{call} does what is said in the protocol", f"it raised {type(error).__name__}: {error}")

    def _agree(self, call: str, make: Callable[[], None], *, may_be_impossible: bool = False) -> None:
        """Call what nobody may refuse."""
        try:
            self._ask(call, make, may_be_impossible=may_be_impossible)
        except Refused as refused:
            self._differ(f"{call} cannot be refused", f"it was: {refused}")

    def _look(self) -> Observation:
        """Observe; what is no observation is a difference, and so is one that changes what was seen before."""
        try:
            seen = self._ask("observe", self.implementation.observe)
        except Refused as refused:
            self._differ("observe cannot be refused", f"it was: {refused}")
        if not isinstance(seen, Observation):
            self._differ("observe returns an Observation", f"it returned {seen!r}")
        if found := _not_as_declared(seen):
            self._differ("an Observation holds what its fields are declared to hold", found)
        if tuple(seen.deaths[: len(self._dealt_with)]) != self._dealt_with:
            self._differ(f"these deaths were seen before: {self._dealt_with}", f"now it says {tuple(seen.deaths)}")
        return seen

    def _needs(self, what: Possible) -> None:
        """Raise Cannot for what the implementation has said it cannot do, or its profile does not have."""
        if what in self.implementation.cannot or (what is Step.STREAM and Kind.WALSENDER not in self.profile.kinds):
            raise Cannot(str(what))

    # What follows ----------------------------------------------------------------------------------------------------

    def _deal_with_deaths(self) -> None:
        deaths = self._look().deaths
        for death in deaths[len(self._dealt_with) :]:
            self._dealt_with += (death,)
            self._deal_with(death)

    def _deal_with(self, death: Death) -> None:
        self._tell(f"    child {death.child} was reaped with status {death.status}: {death.decided.value}")
        actor = self._actors.get(death.child)
        if actor is None:
            self._differ("each child is reaped once", f"child {death.child} was reaped again")
        self.coverage.decisions[death.decided.value] += 1
        if death.status is None and (actor.died_in is not None or not self.profile.engages_once):
            self._differ(f"it is said with which status child {death.child} ended", "None was reported")
        if self.phase(death.child) is not Phase.EXITED:
            self._end_by_the_supervisor(death, actor)
        expected = self._read(status, actor)
        if death.decided is Decided.BOOK_KEEPING and self._mode() is Mode.RUNNING:
            self._lose_patience()
        if death.status is not None and expected != death.status:
            self._differ(f"child {death.child} ended with status {expected}", f"status {death.status} was reported")
        suffix = "" if self._read(slot_of, actor) else "_without_a_slot"
        reaping = REAPING[death.decided] + suffix
        if not self._can(reaping, actor.model):
            allowed = [made.value for made, action in REAPING.items() if self._can(action + suffix, actor.model)]
            self._differ(
                f"the decision about child {death.child} is: {' or '.join(allowed)} ({self._describe(actor)})",
                f"it was: {death.decided.value}",
            )
        self._do(reaping, actor.model)
        if actor.died_in is not None:
            self.coverage.add(actor.died_in, death.decided)
        del self._actors[death.child]

    def _lose_patience(self) -> None:
        """Let the orderly shutdown, if there is one, have taken too long: where somebody does not leave when asked.

        Who was dead before has kept nobody waiting: that death is decided first.
        """
        if self._may_lose_patience and not self._dead_before & self._actors.keys() and self._can("ask_immediate"):
            self._do("ask_immediate")

    def _end_by_the_supervisor(self, death: Death, actor: _Actor) -> None:
        """Account for a child that the harness did not end: killed, or asked to leave by a shutdown."""
        if death.status is None or death.status not in (0, 1):
            if not self._can("kill", actor.model):
                self._lose_patience()
            if not self._can("kill", actor.model):
                self._differ(f"child {death.child} lives, and nobody ended it", f"it ended with status {death.status}")
            self._do("kill", actor.model)
            if death.status is not None:
                self._state = self._with_status(actor.model, death.status)
        elif self._is_shutting_down() or self._read(kind_of, actor) is Kind.DEAD_END:
            was_leaving = self._read(phase, actor) is Phase.LEAVING  # then its own status may have come first
            says_0 = actor.auxiliary or (was_leaving and death.status == 0)
            self._leave_in_the_orderly_way(actor, 0 if says_0 else _ORDERLY_ON_REQUEST)
        else:
            self._differ(f"child {death.child} lives, and nobody asked it to leave", f"status {death.status}")

    def _leave_in_the_orderly_way(self, actor: _Actor, with_status: int) -> None:
        """Go the exit path in the model: leave, give everything back that can be, disarm unless spoilt, exit."""
        if self._read(phase, actor) is not Phase.LEAVING:
            self._do("leave", actor.model)
        if self._can("give", actor.model) and not actor.kept:
            self._do("give", actor.model)
        actor.held.clear()
        if self._can("disarm", actor.model):
            self._do("disarm", actor.model)
        self._do("orderly_exit", actor.model, with_status)

    def _expect_generation(self, number: int) -> None:
        if number != self._generation + 1:
            self._differ(f"the next generation is {self._generation + 1}", f"it is {number}")
        for action in ("only_dead_ends_left", "all_gone", "reset", "started"):
            if not self._can(action):
                self._differ(f"there is no reset now: {self._why_not(action)}", f"generation {number} has begun")
            self._do(action)
        self._generation = number
        self.coverage.recoveries += 1
        self.coverage.generations = max(self.coverage.generations, number)

    def _expect_no_generation(self, seen: Observation) -> None:
        """Let the model's supervisor fail to begin a generation; it must have stopped."""
        for action in ("only_dead_ends_left", "all_gone", "reset", "startup_fails"):
            self._do(action)
        self._expect_stopped("no generation can be made: ", seen)

    def _expect_stopped(self, why: str, seen: Observation) -> None:
        """Compare what is seen of a supervisor that has stopped: it says no other generation, and shows no child."""
        self.stopped = True
        if not seen.stopped:
            self._differ(f"{why}the supervisor has stopped", "it has not")
        if seen.generation != self._generation:
            self._differ(f"the last generation was {self._generation}", f"it says {seen.generation}")
        if seen.children:
            self._differ("a stopped supervisor has no child left", f"child {min(seen.children)} is still there")

    # Steps of the harness and actions of the model -------------------------------------------------------------------

    def _possible(self, actor: _Actor, step: Step) -> Step:
        """Turn a step that cannot be expressed at this point into the nearest one that can.

        The end of a block gives back before it disarms, and a child cannot be stopped in the middle of an exit path
        that has nothing left to give back.
        """
        if step is Step.SCRIBBLE and (self._read(phase, actor) is Phase.CHECKED or not self._read(slot_of, actor)):
            return Step.SERVE
        if step is Step.STREAM and self._read(phase, actor) is Phase.SERVING:
            return Step.SERVE
        if len(actor.held + actor.kept) == MOST_HELD and step in (Step.TAKE, Step.TAKE_FAILS_LATE):
            step = Step.GIVE
        if (actor.ending_block and step in _NEEDS_AN_OPEN_BLOCK) or (step is Step.LEAVE and not actor.held):
            step = Step.DISARM
        if step is Step.DISARM and actor.held:
            return Step.GIVE
        if step in (Step.GIVE, Step.GIVE_FAILS, Step.GIVE_FAILS_LATE) and not actor.held:
            return Step.DISARM
        return step

    def _action(self, actor: _Actor, step: Step) -> tuple[str | None, tuple[int, ...]]:
        """Return the model's action for a step, given what the harness holds; None where nothing may change."""
        child = actor.model
        last = len(actor.held + actor.kept) == 1
        match step:
            case Step.SERVE | Step.STREAM:
                return self._to_serve()[0], (child,)
            case Step.GIVE:
                return ("give", (child,)) if last else (None, ())
            case Step.GIVE_FAILS_LATE:
                return ("give_fails_late" if last else "give_fails", (child,))
            case Step.SCRIBBLE:
                return "stray_write", (child, self._read(slot_of, actor), OTHER.number)
            case Step.TAKE_REFUSED:
                return ("take", (child,)) if not self._can("take", child) else (None, ())
            case Step.TAKE_FAILS_FOR_MEMORY | Step.TAKE_FAILS_OTHERWISE:
                return "take_fails", (child,)
            case Step.LEAVE | Step.GRANDCHILD | Step.FREEZE:
                return None, ()
            case Step.DISARM if self._read(phase, actor) is Phase.LEAVING and self._read(failed, actor):
                return None, ()  # the exit path ends, and the switch stays armed
            case _:
                return step.value, (child,)

    def _keep_account(self, actor: _Actor, step: Step, before: frozenset[int], after: frozenset[int]) -> None:
        """Follow what the child holds, by the harness's own resource; each step has one right effect on it.

        What is taken has a number of its own; what is given back is what was taken last.
        """
        taken, given = sorted(after - before), sorted(before - after)
        match step:
            case Step.SERVE | Step.STREAM if StartUpStep.TAKE in self.profile.start:
                if len(taken) != 1 or given:
                    self._differ(f"{step.value} takes one thing", f"taken: {taken}, given back: {given}")
                actor.held.extend(taken)
            case Step.TAKE | Step.TAKE_FAILS_LATE:
                if len(taken) != 1 or given:
                    self._differ(f"{step.value} takes one entry", f"taken: {taken}, given back: {given}")
                (actor.held if step is Step.TAKE else actor.kept).extend(taken)
            case Step.GIVE | Step.GIVE_FAILS | Step.GIVE_FAILS_LATE:
                last = actor.held.pop()
                expected = [] if step is Step.GIVE_FAILS else [last]
                if taken or given != expected:
                    self._differ(f"{step.value} gives back {expected}", f"taken: {taken}, given back: {given}")
                actor.kept += [last] if step is Step.GIVE_FAILS else []
            case _:
                if taken or given:
                    self._differ(f"{step.value} changes nothing held", f"taken: {taken}, given back: {given}")
        if step in (Step.GIVE, Step.GIVE_FAILS, Step.GIVE_FAILS_LATE):
            actor.ending_block = True
        if step is Step.ARM:
            actor.ending_block = False

    def _compare(self, by: set[Who]) -> None:
        """Compare every flag, every child's slot and what is held; and hold each flag's change to the lifecycle."""
        if self.stopped:
            return  # generation and children were compared as it stopped; flags mean nothing any more
        seen = self._look()
        if seen.stopped:
            self._differ("the supervisor has not stopped: nobody asked it to", "it says that it has")
        self._account_for_auxiliaries(seen)
        if unknown := set(seen.flags) - set(self._all_slots()):
            self._differ(f"the slots are 1 to {self.slots}", f"there is a flag of slot {min(unknown, key=str)}")
        for slot in self._all_slots():
            if slot not in seen.flags:
                self._differ(f"slot {slot} is {self._flag(slot).value}", "its flag is not shown")
            state = seen.flags[slot]
            expected = self._flag(slot)
            if state is not expected:
                self._differ(f"slot {slot} is {expected.value}", f"it is {state.value}")
            if self.profile.engages_once:
                continue
            try:
                self._monitor.see(slot, state, by)
            except LifecycleViolation as violation:
                self._differ("every change of a flag is a row of the lifecycle", str(violation))
        for child, actor in self._actors.items():
            slot = self._read(slot_of, actor)
            if seen.children.get(child) != slot:
                self._differ(f"child {child} has slot {slot}", f"it has {seen.children.get(child)}")
            held = sorted(seen.resource.get(child, ()))
            if bool(held) != self._read(holds, actor):
                self._differ(f"child {child} holds {'nothing' if held else 'something'}", f"it holds {held}")
            if held != (entries := sorted(actor.held + actor.kept)):
                self._differ(f"child {child} holds {entries}", f"it holds {held}")
        if extra := set(seen.children) - set(self._actors):
            self._differ("a reaped child is gone", f"child {min(extra)} is still there")

    def _account_for_auxiliaries(self, seen: Observation) -> None:
        """Let the model's supervisor start the auxiliary children that it is seen to have started."""
        for child in sorted((seen.auxiliary & seen.children.keys()) - self._actors.keys()):
            model, slot = self._free_number(), seen.children[child]
            if model is None:
                self._differ(f"there are at most {self._instance.size.children} children", f"child {child} is one more")
            self._tell(f"    auxiliary child {child} has begun" + (f", in slot {slot}" if slot else ""))
            self._actors[child] = _Actor(model, held=sorted(seen.resource.get(child, ())), auxiliary=True)
            if slot:
                self._do("assign_auxiliary", slot)
                self._do("fork", model)
                for action in self._to_serve():
                    self._do(action, model)
            else:
                self._do("fork_auxiliary", model)
                self._do("take_without_a_slot", model)

    def _flag(self, slot: int) -> SlotState:
        word = self._instance.read(self._state, flag, slot)
        if word == UNUSED.number:
            return SlotState.UNUSED
        if word == ACTIVE.number:
            return SlotState.ACTIVE
        if word == STREAMING.number and Kind.WALSENDER in self.profile.kinds:
            return SlotState.WALSENDER
        is_constant = self.profile.clean_word is CleanWord.CONSTANT
        clean_word = ASSIGNED.number if is_constant else self._instance.read(self._state, clean, slot)
        return SlotState.ASSIGNED if word == clean_word else SlotState.FOREIGN

    # The model -------------------------------------------------------------------------------------------------------

    def _read(self, variable: Term, actor: _Actor) -> Any:
        return self._instance.read(self._state, variable, actor.model)

    def _can(self, action: str, *arguments: int) -> bool:
        return action in self._instance.actions and self._instance.enabled(self._state, action, *arguments)

    def _do(self, action: str, *arguments: int) -> None:
        if not self._can(action, *arguments):
            self._differ(f"{action} cannot happen: {self._why_not(action, *arguments)}", "it happened")
        self._state = self._instance.step(self._state, action, *arguments)
        self.coverage.steps += 1
        self.coverage.actions[action] += 1

    def _with_status(self, child: int, value: int) -> State:
        """Let the model's child have died of the very signal that was seen: any but 0 and 1 is the same to it."""
        at = self._instance.index[status.name]
        values = list(self._state[at])
        values[child] = value
        return (*self._state[:at], tuple(values), *self._state[at + 1 :])

    def _why_not(self, action: str, *arguments: int) -> str:
        if action not in self._instance.actions:
            return f"there is no such action in the profile {self.profile.name}"
        return self._instance.why_not(self._state, action, *arguments)

    def _free_number(self) -> int | None:
        """A child of the model that is not there."""
        numbers = range(1, self._instance.size.children + 1)
        return next((each for each in numbers if self._instance.read(self._state, phase, each) is Phase.NONE), None)

    def _mode(self) -> Mode:
        found: Mode = self._instance.read(self._state, mode)
        return found

    def _somebody_is_stuck(self) -> bool:
        return any(self._actors[child].frozen for child in self.children)

    def _is_shutting_down(self) -> bool:
        return self._instance.read(self._state, shutdown) is not Shutdown.NONE

    def _all_slots(self) -> range:
        return range(1, self.slots + 1)

    def _describe(self, actor: _Actor) -> str:
        slot = self._read(slot_of, actor)
        number = self._read(status, actor)
        return f"status {number}, its slot is {self._flag(slot).value}, the supervisor is {self._mode().value}"

    # The story -------------------------------------------------------------------------------------------------------

    def _cell_of(self, actor: _Actor, kind: ExitKind) -> Cell:
        """Return in which situation a child ends, and how."""
        where, of_kind = self._read(phase, actor).value, self._read(kind_of, actor).value
        held = min(len(actor.held + actor.kept), 2)
        return Cell(where, self._read(armed, actor), self._read(failed, actor), held, str(kind), of_kind)

    def _tell(self, line: str) -> None:
        self.story.append(line)

    def _number(self, child: int) -> int:
        """Return which child this is, as started: what an implementation calls it may be another each time."""
        return len(self._numbers) - self._numbers[::-1].index(child)

    def child(self, number: int) -> int | None:
        """Return the child that was started as this one, from 1; None where it is not there, or dead."""
        found = self._numbers[number - 1] if 1 <= number <= len(self._numbers) else None
        return found if found in self.children else None

    def _differ(self, allowed: str, seen: str, kind: type[Mismatch] = Mismatch) -> NoReturn:
        calls.stop_if_interrupted()  # Ctrl-C comes to the implementation's children, too
        numbered, number = [], 0
        for line in self.story:
            if line.startswith(" "):
                numbered.append(f"      {line.strip()}")
            else:
                number += 1
                numbered.append(f"  {number:2}. {line}")
        story = "\n".join(numbered)
        mismatch = kind(
            f"implementation and model disagree\n{story}\n  the model says: {allowed}\n  what was seen:  {seen}"
        )
        mismatch.slots, mismatch.orders = self._asked_for, tuple(self.orders)
        raise mismatch


_GIVE_FAILURES = frozenset({Step.GIVE_FAILS, Step.GIVE_FAILS_LATE})
_NEEDS_AN_OPEN_BLOCK = frozenset(
    {
        Step.TAKE,
        Step.TAKE_REFUSED,
        Step.TAKE_FAILS,
        Step.TAKE_FAILS_FOR_MEMORY,
        Step.TAKE_FAILS_OTHERWISE,
        Step.TAKE_FAILS_LATE,
        Step.LEAVE,
    }
)
_KINDS = {
    "flags": Mapping,
    "children": Mapping,
    "auxiliary": Set,
    "deaths": Sequence,
    "generation": int,
    "resource": Mapping,
}


def _not_as_declared(seen: Observation) -> str:
    """Say what in an observation is not of the kind that the protocol declares; "" if all is."""
    for name, kind in _KINDS.items():
        if not isinstance(value := getattr(seen, name), kind):
            return f"{name} is {value!r}"
    odd: list[object] = [state for state in seen.flags.values() if not isinstance(state, SlotState)]
    odd += [death for death in seen.deaths if not (isinstance(death, Death) and isinstance(death.decided, Decided))]
    odd += [held for held in seen.resource.values() if not isinstance(held, Set)]
    if not odd:
        held = (entry for entries in seen.resource.values() for entry in entries)
        dead = (death.child for death in seen.deaths)
        numbers = chain(seen.children, seen.children.values(), seen.auxiliary, seen.resource, held, dead)
        odd = [number for number in numbers if not isinstance(number, int)]
    return f"there is {odd[0]!r}" if odd else ""


@cache
def _instance(profile: Profile, slots: int, room: int) -> Instance:
    """Compile the model once for each number of slots: compiling takes longer than a history."""
    return Instance(System(profile, "+stray"), Size(slots, room))
