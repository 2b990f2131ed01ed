"""Exhaustive replay: in every state that the model reaches with so many orders, every order, on real processes.

An order is what the harness can tell: start, a step or the end of a child, something arranged, supervise, stop; legal
or to be refused. First the states are searched, breadth first and on the model alone: Lockstep runs beside an
implementation that is the model itself. Then histories walk on the implementation under test, in lockstep as ever,
until every order was given in every state that fewer than `depth` orders reach. They go on from where they are, so a
state is entered in some way, not in each, and most often not in the shortest.

A state here is the model's, with what the harness knows: who is stopped, which entries are held, what is arranged.
Children, slots and fresh words are interchangeable to the model: states that differ only in which of them are one
state, and whichever slot an implementation gives out leads to it. How many children and generations there were before
is not part of it.
"""

from __future__ import annotations

import copy
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from armed_conformance.lockstep import (
    CHILDREN,
    REAPING,
    Coverage,
    DoesNotReturn,
    Lockstep,
    Mismatch,
    Order,
    profile_of,
)
from armed_conformance.protocol import (
    Cannot,
    Circumstance,
    Death,
    ExitKind,
    Implementation,
    Observation,
    Possible,
    Refused,
    Step,
)
from armed_conformance.replay import obey, shrink
from armed_conformance.run import find
from armed_model.profiles import REFERENCE
from armed_model.system import RESERVED, Mode, Phase, clean, mode, slot_of, status
from armed_model.terms import Variable

SLOTS: Final = 2
"""How many slots there are if nobody says otherwise: for one child and a bystander."""

EVERYTHING_IS_ORDERED: Final = 5
"""From this depth on each step, exit kind and circumstance is ordered somewhere: what comes last is to give back what
was taken, after start, serve, arm and take."""

EVERYTHING: Final[tuple[Possible, ...]] = (*[s for s in Step if s is not Step.STREAM], *ExitKind, *Circumstance)
"""What can be ordered of an implementation of `reference`, which has no walsenders."""

Configuration = tuple[Any, ...]
"""A state up to renaming: where two are equal, the same can be ordered, and the same follows, as the model sees it."""

STOPPED: Final[Configuration] = ("stopped",)
"""The supervisor has stopped: here every history ends."""

_STOP: Final[Order] = ("stop",)


class NotSearched(ValueError):
    """The states are searched in `reference` alone, and the target is held to another profile."""


# States and orders ---------------------------------------------------------------------------------------------------


def configuration(lockstep: Lockstep) -> tuple[Configuration, list[int]]:
    """Return the state that a history is in, and its children as the state has them, one of those that are alike."""
    if lockstep.stopped:
        return STOPPED, []
    state, instance = lockstep._state, lockstep._instance
    owner = {lockstep._read(slot_of, actor): child for child, actor in lockstep._actors.items()}
    slots, children = [], {}
    for slot in lockstep._all_slots():
        there = _values(lockstep, "Slot", slot, slot)
        if slot in owner:
            actor = lockstep._actors[owner[slot]]
            there += _values(lockstep, "Child", actor.model, slot)
            there += len(actor.held), len(actor.kept), int(actor.ending_block), int(actor.frozen)
            children[there] = owner[slot]
        slots.append(there)
    shared = tuple(state[instance.index[each.name]] for each in instance.variables if each.index is None)
    arranged = tuple(sorted(each.value for each in lockstep._arranged))
    return (shared, arranged, *sorted(slots)), [children[there] for there in sorted(children)]


def _values(lockstep: Lockstep, sort: str, number: int, slot: int) -> tuple[int, ...]:
    """Return what the model's arrays over a sort say of one member; a fresh word as what it is in this slot."""
    state, instance = lockstep._state, lockstep._instance

    def value(array: Variable) -> int:
        found = int(state[instance.index[array.name]][number])
        if array.sort.name == "Word" and found >= len(RESERVED):
            return len(RESERVED) + int(found != instance.read(state, clean, slot))
        return found

    arrays = [each for each in instance.variables if each.index is not None and each.index.name == sort]
    return tuple(value(each) for each in arrays if each.sort.name not in ("Slot", "Child"))  # these are the grouping


def orders(lockstep: Lockstep, children: list[int]) -> Iterator[Order]:
    """Yield every order that can be given here, once: not what Lockstep would turn into another one.

    `children` are those of the configuration; they are numbered as they stand there, from 1.
    """
    yield from (("start",), ("supervise",), _STOP)
    yield from (("arrange", each.value) for each in Circumstance if each not in lockstep._arranged)
    for number, child in enumerate(children, 1):
        actor, leaving = lockstep._actors[child], lockstep.phase(child) is Phase.LEAVING
        if child in lockstep.steppable:
            yield from (("step", number, each.value) for each in Step if lockstep._possible(actor, each) is each)
        if child in lockstep.children:
            for kind in ExitKind:
                if kind is ExitKind.SIGKILL or not (actor.frozen or (leaving and kind.exit.orderly)):
                    yield "end", number, kind.name


def _addressed(order: Order, lockstep: Lockstep, children: list[int]) -> Order:
    """Return the order with the child's number as started, as `obey` and a file have it."""
    match order:
        case (name, int(number), what):
            return name, lockstep._number(children[number - 1]), what
    return order


# The search on the model ---------------------------------------------------------------------------------------------


class _TheModel:
    """An implementation that does what the model says, as it stands in the Lockstep beside it. It shows no flags."""

    lockstep: Lockstep
    profile = REFERENCE

    def __init__(self, cannot: frozenset[Possible]) -> None:
        self.cannot = cannot
        self.seen = Observation({})
        self.started = self.taken = 0

    def open(self, slots: int) -> None: ...

    def start(self) -> int:
        here = self.lockstep
        possible = here._assignments()
        if not possible or Circumstance.FORK_FAILS in here._arranged:
            raise Refused("says the model")
        self.started += 1
        self.seen = replace(self.seen, children={**self.seen.children, self.started: possible[0][0]})
        return self.started

    def step(self, child: int, step: Step) -> None:
        here, actor = self.lockstep, self.lockstep._actors[child]
        action, arguments = here._action(actor, step)
        if action is not None and not here._can(action, *arguments):
            raise Refused("says the model")
        held = self.seen.resource.get(child, frozenset())
        if step in (Step.TAKE, Step.TAKE_FAILS_LATE):
            self.taken += 1
            held |= {self.taken}
        elif step in (Step.GIVE, Step.GIVE_FAILS_LATE):
            held -= {actor.held[-1]}
        self.seen = replace(self.seen, resource={**self.seen.resource, child: held})

    def end(self, child: int, kind: ExitKind) -> None: ...

    def arrange(self, circumstance: Circumstance) -> None: ...

    def supervise(self) -> None:
        """Reap the dead; in a recovery end all but the stuck; begin a generation when nobody is left."""
        here, state, left = self.lockstep, self.lockstep._state, dict(self.lockstep._actors)
        instance = here._instance

        def reap(child: int) -> None:
            nonlocal state
            number = left.pop(child).model
            decided = next(made for made, action in REAPING.items() if instance.enabled(state, action, number))
            death = Death(child, instance.read(state, status, number), decided)
            state = instance.step(state, REAPING[decided], number)
            self.seen = replace(self.seen, deaths=(*self.seen.deaths, death))

        for child in [child for child in left if child not in here.children]:
            reap(child)
        if instance.read(state, mode) is Mode.RUNNING:
            return
        for child, actor in list(left.items()):
            if not actor.frozen or Circumstance.PATIENCE_ENDS in here._arranged:
                state = instance.step(state, "kill", actor.model)
                reap(child)
        if not left:
            stopped = Circumstance.STARTUP_FAILS in here._arranged
            generation = self.seen.generation + (not stopped)
            self.seen = replace(self.seen, children={}, generation=generation, stopped=stopped)

    def stop_supervisor(self) -> None: ...

    def observe(self) -> Observation:
        return self.seen

    def close(self) -> None: ...


class _OnTheModel(Lockstep):
    """A history of the model with itself: it can be copied, and there is nothing to compare."""

    def __init__(self, slots: int, cannot: frozenset[Possible]) -> None:
        self.model = _TheModel(cannot)
        self.model.lockstep = self
        super().__init__(self.model, slots)

    def _compare(self, by: object) -> None: ...

    def after(self, order: Order) -> _OnTheModel:
        """Return a copy in which one more order was obeyed. Raises Cannot."""
        new = copy.copy(self)
        new.model = new.implementation = copy.copy(self.model)
        new.model.lockstep = new
        new._actors = {
            child: replace(actor, held=[*actor.held], kept=[*actor.kept]) for child, actor in self._actors.items()
        }
        new._numbers, new._arranged = [*self._numbers], {*self._arranged}
        new.story, new.orders = [], [*self.orders]
        obey(new, order)
        return new


@dataclass(frozen=True)
class Node:
    """A state: the orders that lead to it, as few as any, and what can be ordered there, each with where it leads."""

    way: tuple[Order, ...]
    leads: dict[Order, int] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """How many orders lead to it."""
        return len(self.way)


class Graph:
    """All states that `depth` orders reach, by number: 0 is the first one, 1 that of a supervisor that has stopped.

    What can be ordered is known in those that fewer orders reach.
    """

    def __init__(self, depth: int, slots: int = SLOTS, cannot: frozenset[Possible] = frozenset()) -> None:
        """Search."""
        first = _OnTheModel(slots, cannot)
        self.number = {configuration(first)[0]: 0, STOPPED: 1}
        self.nodes = [Node(()), Node((_STOP,))]
        level = [first]
        for _ in range(depth):
            level = [new for lockstep in level for new in self._expand(lockstep)]

    def _expand(self, lockstep: _OnTheModel) -> Iterator[_OnTheModel]:
        """Give every order; yield what led to a state that is new."""
        here, children = configuration(lockstep)
        leads = self.nodes[self.number[here]].leads
        for order in orders(lockstep, children):
            if order == _STOP:
                leads[order] = self.number[STOPPED]
                continue
            try:
                after = lockstep.after(_addressed(order, lockstep, children))
            except Cannot:
                continue
            there = configuration(after)[0]
            if there not in self.number:
                self.number[there] = len(self.nodes)
                self.nodes.append(Node(tuple(after.orders)))
                yield after
            leads[order] = self.number[there]


# The walk on the implementation --------------------------------------------------------------------------------------


@dataclass
class Exhaustion:
    """What was seen in an exhaustive replay. It passes only if nothing differed, and nothing was left out."""

    target: str
    depth: int
    slots: int
    coverage: Coverage = field(default_factory=Coverage)
    states: int = 0
    """How many states fewer than `depth` orders reach."""
    states_seen: int = 0
    orders: int = 0
    """How many orders there are in them, all together: each state counts its own."""
    ordered: Counter[str] = field(default_factory=Counter)
    """How many of these were given, by what was ordered."""
    missing: list[str] = field(default_factory=list)
    """States never seen, and orders never given, as they would be from a new supervisor on; none if something differed,
    for then the run has ended early."""
    cannot: list[str] = field(default_factory=list)
    mismatch: str | None = None
    failing: Mismatch | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every order was given in every state, and model and implementation went the same way."""
        return self.mismatch is None and not self.missing and 0 < self.orders == self.ordered.total()

    @property
    def never_ordered(self) -> list[str]:
        """What the target can do, and was never ordered: it takes more depth, or what the target cannot do."""
        given = {*self.ordered, *self.cannot}
        return [str(each) for each in EVERYTHING if str(each) not in given]

    def as_json(self) -> dict[str, Any]:
        """Return the report in the published format."""
        return {
            "target": self.target,
            "passed": self.passed,
            "depth": self.depth,
            "slots": self.slots,
            "states": self.states,
            "states_seen": self.states_seen,
            "orders": self.orders,
            "orders_given": self.ordered.total(),
            "ordered": dict(sorted(self.ordered.items())),
            "never_ordered": self.never_ordered,
            "histories": self.coverage.histories,
            "steps": self.coverage.steps,
            "refusals": self.coverage.refusals,
            "deaths": dict(sorted(self.coverage.deaths.items())),
            "armed_deaths": self.coverage.armed_deaths,
            "decisions": dict(sorted(self.coverage.decisions.items())),
            "recoveries": self.coverage.recoveries,
            "cannot": self.cannot,
            "missing": self.missing,
            "mismatch": self.mismatch,
            "seconds": round(self.seconds, 2),
        }


class _Walk:
    """Histories through the graph, until every order was given in every state above its last two levels."""

    def __init__(self, graph: Graph, depth: int) -> None:
        self.graph = graph
        self.leads = [dict(node.leads) for node in graph.nodes]
        """Where orders lead. One that has led elsewhere is taken out, so that nobody is sent that way again in vain."""
        self.todo = {
            number: dict.fromkeys(node.leads)
            for number, node in enumerate(graph.nodes)
            if node.depth < depth and graph.nodes[number].leads
        }
        self.seen: set[int] = set()
        self.given: list[Order] = []

    @property
    def is_left(self) -> bool:
        """Whether there is an order that was not given yet, and a way to it."""
        return self._next(0) is not None

    def history(
        self, make: Callable[[], Implementation], slots: int, coverage: Coverage, progress: Callable[[int], None]
    ) -> None:
        """Walk from a new supervisor to its end. Raises Mismatch."""
        lockstep = Lockstep(make(), slots, coverage)
        try:
            while not lockstep.stopped:
                self._go_on(lockstep)
                progress(len(self.given))
        except BaseException:
            lockstep.abandon()
            raise
        lockstep.close()

    def _go_on(self, lockstep: Lockstep) -> None:
        state, children = configuration(lockstep)
        here = self.graph.number.get(state)
        order = None if here is None else self._next(here)
        if order is None or here is None:
            self._leave(lockstep)
            return
        self.seen.add(here)
        try:
            obey(lockstep, _addressed(order, lockstep, children))
        except Cannot:
            del self.leads[here][order]
            return
        if order in self.todo.get(here, ()):
            del self.todo[here][order]
            self.given.append(order)
        if self.graph.number.get(configuration(lockstep)[0]) != self.leads[here][order]:
            del self.leads[here][order]

    def _next(self, here: int) -> Order | None:
        """Return an order not given yet, of those that change nothing first; or the next on the way to such a state."""
        untaken = [order for order in self.todo.get(here, ()) if order in self.leads[here]]
        if untaken:
            return min(untaken, key=lambda order: (order == _STOP, self.leads[here][order] != here))
        first: dict[int, Order] = {}
        queue = deque([here])
        while queue:
            at = queue.popleft()
            for order, there in self.leads[at].items():
                if there not in first and there != here:
                    first[there] = first.get(at, order)
                    if any(each in self.leads[there] for each in self.todo.get(there, ())):
                        return first[there]
                    queue.append(there)
        return None

    def _leave(self, lockstep: Lockstep) -> None:
        """Nothing is left to do from here. Who is stuck is ended first: a shutdown waits for it to lose patience."""
        try:
            for child in set(lockstep.children) - set(lockstep.steppable):
                lockstep.end(child, ExitKind.SIGKILL)
        except Cannot:
            pass
        lockstep.stop()


def exhaust(
    target: str,
    depth: int,
    *,
    slots: int = SLOTS,
    progress: Callable[[int, int], None] = lambda given, all_of_them: None,
) -> Exhaustion:
    """Give every order in every state that fewer than `depth` orders reach. `progress` is told how many of how many.

    A difference ends the run and is reported as a story, shrunk, not raised. Raises UnknownTarget, NotSearched, and
    ValueError where the depth is less than 1 or the model has no room for so many slots.
    """
    if depth < 1 or not 1 <= slots <= CHILDREN:
        raise ValueError(f"depth is 1 or more, and there are 1 to {CHILDREN} slots: not {depth} and {slots}")
    make = find(target)
    if (profile := profile_of(make())) is not REFERENCE:
        raise NotSearched(f"{target} is held to the profile {profile.name}; every order is given in reference alone")
    began = time.perf_counter()
    cannot = frozenset(make().cannot)
    graph = Graph(depth + 1, slots, cannot)  # one level more, for the ways back from the last
    walk = _Walk(graph, depth)
    wanted = set(walk.todo)
    total = sum(map(len, walk.todo.values()))
    report = Exhaustion(target, depth, slots, states=len(wanted), orders=total, cannot=sorted(map(str, cannot)))
    try:
        while walk.is_left:
            walk.history(make, slots, report.coverage, lambda given: progress(given, total))
    except Mismatch as mismatch:
        report.failing = mismatch if isinstance(mismatch, DoesNotReturn) else shrink(make, mismatch)
        report.mismatch = str(report.failing)
    else:
        report.missing = list(_missing(graph, walk, sorted(wanted)))
    report.ordered = Counter(map(_what, walk.given))
    report.states_seen = len(walk.seen & wanted)
    report.seconds = time.perf_counter() - began
    return report


def _missing(graph: Graph, walk: _Walk, wanted: Iterable[int]) -> Iterator[str]:
    for state in wanted:
        way = graph.nodes[state].way
        if state not in walk.seen:
            yield f"state: {_told(way)}"
        else:
            yield from (f"order: {_told((*way, order))}" for order in walk.todo[state])


def _what(order: Order) -> str:
    """Say what is ordered, with the name that the protocol has for it."""
    match order:
        case ("end", _, str(kind)):
            return str(ExitKind[kind])
        case (_, _, str(what)) | ("arrange", str(what)):
            return what
    return str(order[0])


def _told(way: tuple[Order, ...]) -> str:
    return "; ".join(" ".join(map(str, order)) for order in way) or "a new supervisor"
