"""Exhaustive search of a bounded instance: how many states, how deep, the shortest run to anything.

What is found here is real for these bounds and says nothing beyond them: "no violation" is bounded, and only the
proofs are for any number of slots and children. A shortest run that refutes a property refutes it for good.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from armed_model.interpret import Arguments, Instance, Sought, State
from armed_model.lifecycle import SlotState, Who
from armed_model.properties import Claim, Property, slot_says
from armed_model.system import SLOT, flag
from armed_model.terms import Parameter, both, negate


@dataclass(frozen=True)
class Step:
    """One step of a run: the action and its arguments."""

    action: str
    arguments: Arguments


Run = tuple[Step, ...]


@dataclass(frozen=True)
class Found:
    """The shortest run to something, and the members (children, slots) for which it is so at its end."""

    run: Run
    binding: Arguments


@dataclass
class Exploration:
    """What a search has seen.

    `complete` says that every reachable state of the instance was visited; a search that stops early proves nothing.
    """

    states: int = 0
    transitions: int = 0
    depth: int = 0
    seconds: float = 0.0
    complete: bool = False
    actions_seen: set[str] = field(default_factory=set)
    found: dict[str, Found] = field(default_factory=dict)


class StillSearching(Exception):
    """More states were met than the caller's limit allows. What was found until then is in `so_far`."""

    def __init__(self, message: str, so_far: Exploration) -> None:
        super().__init__(message)
        self.so_far = so_far


def explore(
    instance: Instance,
    look_for: Mapping[str, Sought] | None = None,
    *,
    stop_when_all_found: bool = False,
    limit: int = 5_000_000,
) -> Exploration:
    """Search breadth first from the initial state, so that the first run found to anything is a shortest one.

    `look_for` names what to look for, on every state or on every step. Raises StillSearching when more than `limit`
    distinct states are met.
    """
    began = time.perf_counter()
    seen: dict[State, tuple[State, Step] | None] = {instance.initial: None}
    on_states = {name: each for name, each in (look_for or {}).items() if each.on_states}
    on_steps = {name: each for name, each in (look_for or {}).items() if not each.on_states}
    in_states, in_steps = instance.watch(on_states), instance.watch(on_steps)
    watched = len(on_states) + len(on_steps)
    names = [action.name for action in instance.system.actions]
    actors = [list(Who).index(action.by) for action in instance.system.actions]
    successors = instance.successors
    result = Exploration()
    enabled: set[int] = set()

    def note(what: str, binding: Arguments, run: Run) -> None:
        if what not in result.found:
            result.found[what] = Found(run, binding)
            if on_states.pop(what, None) is None:
                del on_steps[what]

    for what, binding in in_states(instance.initial, instance.initial, 0):
        note(what, binding, ())
    frontier = [instance.initial]
    while frontier and not (stop_when_all_found and not on_states and not on_steps):
        fresh: list[State] = []
        for state in frontier:
            for position, arguments, after in successors(state):
                result.transitions += 1
                enabled.add(position)
                if after not in seen:
                    seen[after] = (state, Step(names[position], arguments))
                    fresh.append(after)
                    if on_states:
                        for what, binding in in_states(after, after, 0):
                            note(what, binding, _run_to(seen, after))
                if on_steps:
                    for what, binding in in_steps(state, after, actors[position]):
                        note(what, binding, (*_run_to(seen, state), Step(names[position], arguments)))
            if len(seen) > limit:
                result.states = len(seen)
                raise StillSearching(f"more than {limit:,} states", result)
        result.depth += bool(fresh)
        frontier = fresh
        if len(on_states) + len(on_steps) < watched:  # what was found is sought no longer; to say so takes a while
            watched = len(on_states) + len(on_steps)
            in_states, in_steps = instance.watch(on_states), instance.watch(on_steps)
    result.states = len(seen)
    result.actions_seen = {names[position] for position in enabled}
    result.complete = not frontier
    result.seconds = time.perf_counter() - began
    return result


def reachable(instance: Instance) -> Iterator[State]:
    """Yield every reachable state once, the nearest first."""
    seen = {instance.initial}
    frontier = [instance.initial]
    while frontier:
        yield from frontier
        fresh: list[State] = []
        for state in frontier:
            for _, _, after in instance.successors(state):
                if after not in seen:
                    seen.add(after)
                    fresh.append(after)
        frontier = fresh


def _run_to(seen: dict[State, tuple[State, Step] | None], state: State) -> Run:
    steps: list[Step] = []
    while (came := seen[state]) is not None:
        state, step = came
        steps.append(step)
    return tuple(reversed(steps))


def replay(instance: Instance, run: Run) -> list[State]:
    """Take the steps of a run one by one and return all states, the initial one first.

    Raises ValueError at the first step that is not enabled: a run that does not replay is no run.
    """
    states = [instance.initial]
    for step in run:
        states.append(instance.step(states[-1], step.action, *step.arguments))
    return states


def holds_at_the_end(instance: Instance, run: Run, sought: Sought) -> list[Arguments]:
    """Replay a run, and return the members for which what is sought is there in its last state, or on its last step."""
    states = replay(instance, run)
    if not sought.on_states and not run:
        return []
    if sought.on_states:
        found = instance.watch({"": sought})(states[-1], states[-1], 0)
    else:
        who = list(Who).index(instance.actions[run[-1].action].action.by)
        found = instance.watch({"": sought})(states[-2], states[-1], who)
    return [binding for _, binding in found]


def violations(properties: Iterable[Property]) -> dict[str, Sought]:
    """Return what to look for to refute each property."""
    return {
        each.name: Sought(each.over, both(each.premise, negate(each.conclusion)), each.claims is Claim.ALWAYS)
        for each in properties
    }


def premises(properties: Iterable[Property]) -> dict[str, Sought]:
    """Return what to look for to reach the premise of each property."""
    return {each.name: Sought(each.over, each.premise, each.claims is Claim.ALWAYS) for each in properties}


def tell(instance: Instance, run: Run) -> list[str]:
    """Write a run as a story, a line a step: what is done to whom, and what the slot's flag says where it changes."""
    states = replay(instance, run)
    lines = []
    for step, before, after in zip(run, states, states[1:], strict=False):
        action = instance.actions[step.action].action
        changes = [
            f"slot {slot} is {says(instance, after, slot).value}"
            for slot in range(1, instance.size.slots + 1)
            if instance.read(before, flag, slot) != instance.read(after, flag, slot)
        ]
        told = f"{step.action}({named(instance, step)}): {action.sentence}"
        lines.append(" ".join([told, *([f"[{', '.join(changes)}]"] if changes else [])]))
    return lines


def named(instance: Instance, step: Step) -> str:
    """Write a step's arguments, each with what it is: `slot 1, word 5`."""
    kinds = [parameter.sort.name for parameter in instance.actions[step.action].action.of]
    names = ["status" if kind == "Int" else kind.lower() for kind in kinds]
    return ", ".join(f"{name} {value}" for name, value in zip(names, step.arguments, strict=True))


def says(instance: Instance, state: State, slot: int) -> SlotState:
    """Return what a slot's flag stands for in this state."""
    for each, holds in _sayings(instance).items():
        if holds(state, state, 0, slot):
            return each
    raise AssertionError(f"slot {slot} is in no state of the lifecycle")


@lru_cache(maxsize=64)
def _sayings(instance: Instance) -> dict[SlotState, Callable[..., bool]]:
    slot = Parameter("slot", SLOT)
    return {
        each: instance.predicate(slot_says(instance.system.profile, each, slot), (slot,)) for each in SlotState
    }
