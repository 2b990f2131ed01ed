"""The mutants: every conjunct, effect, action, row of the lifecycle and line of a profile, changed one at a time.

Is every conjunct needed, is every effect checked? A mutant is the specification with one thing dropped or changed;
`judge.py` says who notices. A definition that several profiles share is mutated once, and named after the first of
them in ORDER. An action that reads differently in 18 than in `reference` is another definition; of one that reads
differently in a still older profile, what differs is mutated there.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from armed_model.lifecycle import ROWS, WALSENDER_ROWS, Row
from armed_model.profiles import PROFILES, REFERENCE, V8_4_0, V8_4_1, V9_4, V15, V18, Kind, Profile
from armed_model.properties import rows_of
from armed_model.system import ENVIRONMENTS, System, variables
from armed_model.terms import Action, Conjunct, either, symbols

ORDER = (REFERENCE, V18, V15, V9_4, V8_4_1, V8_4_0)
"""Which profile a definition is mutated in: the first that has it."""

_NEVER = either().because("the action was dropped")


class What(enum.Enum):
    """What is changed."""

    CONJUNCT = "a conjunct of a guard dropped"
    EFFECT = "an effect dropped"
    ACTION = "an action dropped"
    ROW = "a row of the lifecycle dropped"
    LINE = "a line of a profile changed"


@dataclass(frozen=True, eq=False)
class Mutant:
    """One change. `places` are the systems that it changes, (profile, environment), that of its name first.

    Of `original` and `instead` (an action), `rows` and `line` (the profile that it makes) those say what is changed
    that belong to `what`; `dropped` is the conjunct that is missing.
    """

    name: str
    what: What
    profile: str
    places: tuple[tuple[str, str], ...]
    original: Action | None = None
    instead: Action | None = None
    dropped: Conjunct | None = None
    rows: tuple[Row, ...] = ()
    line: Profile | None = None


def mutants() -> tuple[Mutant, ...]:
    """Return all of them, in the order of the story. Their names differ."""
    named: dict[str, Mutant] = {}
    for each in (*_of_actions(), *_of_rows(), *_of_profiles()):
        name, count = each.name, 1
        while name in named:
            count += 1
            name = f"{each.name} ({count})"
        named[name] = replace(each, name=name)
    return tuple(named.values())


def definition(action: Action) -> tuple[str, ...]:
    """Return what an action says, so that two that say the same are equal; the reasons and the sentence left out."""
    return (action.name, action.by.value, *[parameter.name for parameter in action.of], *_parts(action))


def _parts(action: Action) -> list[str]:
    """Write each conjunct and each effect."""
    places = ["" if update.index is None else f"[{update.index.z3.sexpr()}]" for update in action.effect]
    return [
        *[conjunct.term.z3.sexpr() for conjunct in action.guard],
        *[
            f"{update.variable.name}{place} := {update.value.sexpr()}"
            for update, place in zip(action.effect, places, strict=True)
        ],
    ]


def _of_actions() -> Iterator[Mutant]:
    actions: dict[tuple[str, ...], Action] = {}
    places: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for profile in ORDER:
        for environment in ENVIRONMENTS:
            for action in System(profile, environment).actions:
                key = definition(action)
                actions.setdefault(key, action)
                places.setdefault(key, []).append((profile.name, environment))
    known: set[tuple[str, str]] = set()
    for key, action in actions.items():
        profile_name = places[key][0][0]
        fresh = [(action.name, part) for part in _parts(action)]
        old = known if profile_name not in (REFERENCE.name, V18.name) else set()
        name = f"{profile_name}: {action.name}"
        of_all = Mutant(name, What.ACTION, profile_name, tuple(places[key]), action)
        for position, conjunct in enumerate(action.guard):
            if fresh[position] in old:
                continue
            guard = action.guard[:position] + action.guard[position + 1 :]
            yield replace(
                of_all,
                name=f"{name} without the guard {_brief(conjunct)}",
                what=What.CONJUNCT,
                instead=replace(action, guard=guard),
                dropped=conjunct,
            )
        for position, update in enumerate(action.effect):
            if fresh[len(action.guard) + position] in old:
                continue
            effect = action.effect[:position] + action.effect[position + 1 :]
            yield replace(
                of_all,
                name=f"{name} without the effect on {update.variable.name}",
                what=What.EFFECT,
                instead=replace(action, effect=effect),
            )
        yield replace(of_all, name=f"{name} dropped", instead=replace(action, guard=(*action.guard, _NEVER)))
        known |= {*fresh}


def _brief(conjunct: Conjunct) -> str:
    text = " ".join(str(conjunct.term.z3).split())
    if len(text) <= 60:
        return text
    return "on " + " and ".join(variable.name for variable in variables if variable.name in symbols(conjunct.term.z3))


def _of_rows() -> Iterator[Mutant]:
    for profile, own in ((REFERENCE, ROWS), (V18, WALSENDER_ROWS)):
        for row in own:
            yield Mutant(
                f"{profile.name}: lifecycle without {row.source.value} -{row.trigger.value}-> {row.dest.value}",
                What.ROW,
                profile.name,
                tuple((profile.name, environment) for environment in ENVIRONMENTS),
                rows=tuple(each for each in rows_of(profile) if each is not row),
            )


def _of_profiles() -> Iterator[Mutant]:
    """Every line of `reference` and of 18; of the others what differs from the profile before them."""
    before = {V8_4_1: V8_4_0, V9_4: V8_4_1, V15: V9_4}
    for profile in ORDER:
        for field in fields(Profile):
            value = getattr(profile, field.name)
            if field.name in ("name", "sentence"):
                continue
            if profile in before and getattr(before[profile], field.name) == value:
                continue
            for text, other in _others(value):
                if profile is V8_4_0 and field.name != "start" and (field.name, other) in _seen_elsewhere():
                    continue
                yield Mutant(
                    f"{profile.name}: {field.name} {text}",
                    What.LINE,
                    profile.name,
                    tuple((profile.name, environment) for environment in ENVIRONMENTS),
                    line=_replaced(profile, field.name, other),
                )


def _replaced(profile: Profile, name: str, value: Any) -> Profile:
    return replace(profile, **{name: value})


def _seen_elsewhere() -> set[tuple[str, object]]:
    """Return the changes of a line that are made in `reference` or in 18 already."""
    return {
        (field.name, other)
        for profile in (REFERENCE, V18)
        for field in fields(Profile)
        if field.name not in ("name", "sentence")
        for _, other in _others(getattr(profile, field.name))
    }


def _others(value: object) -> Iterator[tuple[str, object]]:
    """Yield what else a line might say: a bool flipped, another member, a tuple with one missing or two swapped."""
    match value:
        case bool():
            yield f"{not value}", not value
        case enum.Enum():
            for other in type(value):
                if other is not value:
                    yield f"{other.name}", other
        case tuple():
            for position, member in enumerate(value):
                yield f"without {member.name}", value[:position] + value[position + 1 :]
            if value and not isinstance(value[0], Kind):
                for i in range(len(value) - 1):
                    one, two = value[i], value[i + 1]
                    yield f"with {two.name} before {one.name}", (*value[:i], two, one, *value[i + 2 :])
        case _:
            raise TypeError(f"no other value is known for {value!r}")


assert {*ORDER} == {*PROFILES.values()}
