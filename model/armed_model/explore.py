"""Exhaustive search of a bounded instance: how many states, how deep, the shortest run to anything.

What is found here is real for these bounds and says nothing beyond them: "no violation" is bounded, and only the
proofs are for any number of slots and children. A shortest run that refutes a property refutes it for good.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from armed_model.interpret import Arguments, Instance, State
from armed_model.lifecycle import SlotState, Who
from armed_model.properties import Kind, Property, slot_says
from armed_model.system import SLOT, flag
from armed_model.terms import Parameter

Check = Callable[[State, State, int], Arguments | None]
"""A function of (state, state after, actor's position in Who): members for which something is so, or None."""


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
    """More states were met than the caller's limit allows."""


def explore(
    instance: Instance,
    look_for: Mapping[str, Check] | None = None,
    *,
    stop_when_all_found: bool = False,
    limit: int = 5_000_000,
) -> Exploration:
    """Search breadth first from the initial state, so that the first run found to anything is a shortest one.

    `look_for` names what to look for; each is evaluated on every step, and (with the state twice) on the initial state.
    Raises StillSearching when more than `limit` distinct states are met.
    """
    began = time.perf_counter()
    seen: dict[State, tuple[State, Step] | None] = {instance.initial: None}
    wanted = dict(look_for or {})
    result = Exploration()
    actors = {name: list(Who).index(each.action.by) for name, each in instance.actions.items()}
    for name in list(wanted):
        if (binding := wanted[name](instance.initial, instance.initial, 0)) is not None:
            result.found[name] = Found((), binding)
            del wanted[name]
    frontier = [instance.initial]
    while frontier and not (stop_when_all_found and not wanted):
        fresh: list[State] = []
        for state in frontier:
            for name, arguments, after in instance.steps(state):
                result.transitions += 1
                result.actions_seen.add(name)
                new = after not in seen
                if new:
                    seen[after] = (state, Step(name, arguments))
                    fresh.append(after)
                for what in list(wanted):
                    if (binding := wanted[what](state, after, actors[name])) is not None:
                        result.found[what] = Found((*_run_to(seen, state), Step(name, arguments)), binding)
                        del wanted[what]
            if len(seen) > limit:
                raise StillSearching(f"more than {limit} states")
        result.depth += bool(fresh)
        frontier = fresh
    result.states = len(seen)
    result.complete = not frontier
    result.seconds = time.perf_counter() - began
    return result


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


def holds_at_the_end(instance: Instance, run: Run, check: Check) -> Arguments | None:
    """Replay a run, and evaluate a check on its last step (on the initial state, for an empty run)."""
    states = replay(instance, run)
    if not run:
        return check(states[0], states[0], 0)
    who = list(Who).index(instance.actions[run[-1].action].action.by)
    return check(states[-2], states[-1], who)


def violations(instance: Instance, properties: tuple[Property, ...]) -> dict[str, Check]:
    """Return the checks that look for a violation of each property."""
    return {each.name: _on_states(each, instance.violation(each)) for each in properties}


def premises(instance: Instance, properties: tuple[Property, ...]) -> dict[str, Check]:
    """Return the checks that look for a run on which the premise of each property holds."""
    return {each.name: _on_states(each, instance.witness(each)) for each in properties}


def _on_states(claim: Property, check: Check) -> Check:
    if claim.kind is Kind.STEP:
        return check
    return lambda before, after, who: check(after, after, who)


def tell(instance: Instance, run: Run) -> list[str]:
    """Write a run as a story, a line a step: what is done to whom, and what the slot's flag says where it changes."""
    states = replay(instance, run)
    lines = []
    for step, before, after in zip(run, states, states[1:], strict=False):
        action = instance.actions[step.action].action
        names = []
        for parameter, value in zip(action.of, step.arguments, strict=True):
            kind = {"Int": "status"}.get(parameter.sort.name, parameter.sort.name.lower())
            names.append(f"{kind} {value}")
        changes = [
            f"slot {slot} is {_says(instance, after, slot)}"
            for slot in range(1, instance.size.slots + 1)
            if instance.read(before, flag, slot) != instance.read(after, flag, slot)
        ]
        told = f"{step.action}({', '.join(names)}): {action.sentence}"
        lines.append(" ".join([told, *([f"[{', '.join(changes)}]"] if changes else [])]))
    return lines


def _says(instance: Instance, state: State, slot: int) -> str:
    """What a slot's flag stands for."""
    parameter = Parameter("slot", SLOT)
    for each in SlotState:
        if instance.predicate(slot_says(each, parameter), (parameter,))(state, state, 0, slot):
            return each.value
    raise AssertionError(f"slot {slot} is in no state of the lifecycle")
