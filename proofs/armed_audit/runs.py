"""Runs as plain data: each step, who takes it, and every value that it changes, for readers that step through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from armed_model.explore import Run, Step, named, replay, says
from armed_model.interpret import Instance, Size, State
from armed_model.profiles import CONTROLS, PROFILES
from armed_model.system import RESERVED, System, used, variables
from armed_model.terms import Variable
from armed_proofs.matrix import SIZES

SAYS = "flag_says"
"""What is shown of a slot besides its variables: what its flag stands for."""

SHOWN = tuple(variable for variable in variables if variable is not used)
"""The state variables that are shown. `used` is of words, and says nothing that a run does not."""


class NoSuchRun(Exception):
    """The steps are no run of the system in any instance that is searched: they are of another version of the model."""


def states_of_run(
    profile: str, environment: str, steps: Sequence[Mapping[str, Any]], backends_alone: bool = False
) -> dict[str, Any]:
    """Take a run of a published cell again, and return what `as_states` does, in the smallest instance that has it.

    `steps` are as `armed prove --json` writes them: `{"action": ..., "arguments": [...]}`. Raises NoSuchRun.
    """
    run = tuple(Step(str(step["action"]), tuple(step["arguments"])) for step in steps)
    why: Exception | str = f"there is no profile {profile}"
    if profile in PROFILES or profile in CONTROLS:
        for size in SIZES:
            try:
                return as_states(_instance(profile, environment, backends_alone, size), run)
            except (ValueError, IndexError, KeyError, TypeError) as error:  # not enabled; no such member, or action
                why = error
    raise NoSuchRun(f"{profile}, {environment}: {why}")


def as_states(instance: Instance, run: Run) -> dict[str, Any]:
    """Replay a run, and return its instance's size and its steps, each with the values that it changes.

    A value's key is the variable's name, with the number of the slot or child where it has one (`flag.1`), or
    `flag_says.1`: what the flag of slot 1 stands for. The first state is `blank()`. Raises ValueError at a step that is
    not enabled.
    """
    states = replay(instance, run)
    told = []
    for step, before, after in zip(run, states, states[1:], strict=False):
        action = instance.actions[step.action].action
        old, new = values(instance, before), values(instance, after)
        sets = {key: value for key, value in new.items() if old[key] != value}
        told.append(
            {"action": step.action, "of": named(instance, step), "by": action.by.value, "does": action.sentence}
            | {"sets": sets}
        )
    return {"slots": instance.size.slots, "children": instance.size.children, "steps": told}


def values(instance: Instance, state: State) -> dict[str, str]:
    """Return every value of a state, in words."""
    found = dict(_constant(instance))
    slots, children = range(1, instance.size.slots + 1), range(1, instance.size.children + 1)
    for variable in instance.variables:
        for key, index in _keys(variable, slots, children):
            found[key] = _in_words(variable, instance.read(state, variable, index))
    return found | {f"{SAYS}.{slot}": says(instance, state, slot).value for slot in slots}


@lru_cache(maxsize=64)
def _constant(instance: Instance) -> dict[str, str]:
    """Return the values of what nothing in the system writes."""
    slots, children = range(1, instance.size.slots + 1), range(1, instance.size.children + 1)
    return {
        key: _in_words(variable, instance.read(instance.initial, variable, index))
        for variable in SHOWN
        if variable.name not in instance.index
        for key, index in _keys(variable, slots, children)
    }


def blank() -> dict[str, str]:
    """Return what each variable is at first, for every slot and child, by its name; and `flag_says`."""
    instance = _instance("reference", "calm", False, SIZES[0])
    first = values(instance, instance.initial)
    return {key.partition(".")[0]: value for key, value in first.items()}


def _keys(variable: Variable, slots: range, children: range) -> list[tuple[str, int | None]]:
    if variable.index is None:
        return [(variable.name, None)]
    members = {"Slot": slots, "Child": children}[variable.index.name]
    return [(f"{variable.name}.{number}", number) for number in members]


def _in_words(variable: Variable, value: Any) -> str:
    if variable.sort.enum is not None:
        return str(value.value)
    match variable.sort.name:
        case "Word":
            return RESERVED[value].name if value < len(RESERVED) else f"word {value}"
        case "Slot" | "Child":
            return f"{variable.sort.name.lower()} {value}" if value else "none"
        case "Bool":
            return "yes" if value else "no"
    return str(value)


@cache
def _instance(profile: str, environment: str, backends_alone: bool, size: Size) -> Instance:
    return Instance(System({**PROFILES, **CONTROLS}[profile], environment, backends_alone), size)
