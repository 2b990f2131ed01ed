"""Does the compiled model mean what z3 means? Both evaluate the same definition on random states, and must agree.

The states are random, not reachable: guards and effects are compared where no run leads, too. Every guard, effect and
property of every profile in every environment is evaluated. z3 is given the value of every constant that there is, with
quantifiers written out, so that it has nothing left to choose: what it evaluates an expression to is the value.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import z3

from armed_model.interpret import Arguments, Instance, Size, State
from armed_model.lifecycle import Who
from armed_model.profiles import PROFILES, Profile
from armed_model.properties import actor, properties
from armed_model.system import CONSTANTS, CONTROL_ENVIRONMENTS, ENVIRONMENTS, RESERVED, System, clean, flag, used
from armed_model.system import variables as all_variables
from armed_model.terms import Parameter, Sort, Term, Variable

SIZE = Size(2, 2)
STATUSES = (-9, 0, 1, 2)
CHECK_LIMIT = 10_000
"""Milliseconds that z3 may take to accept the values of one state; it takes about one."""


class Disagreement(Exception):
    """The compiled function and z3 give an expression different values in some state."""


SYSTEMS: tuple[tuple[Profile, str, bool], ...] = (
    *itertools.product(PROFILES.values(), (*ENVIRONMENTS, *CONTROL_ENVIRONMENTS), (False,)),
    *itertools.product(PROFILES.values(), ("calm",), (True,)),
)
"""Every profile in every environment, and with the properties that speak of backends alone."""


def compare(states: int, seed: int = 0) -> int:
    """Compare on so many random states, split over all systems, and return how many values were compared.

    With fewer states than there are systems, which of them are compared depends on the seed. Raises Disagreement.
    """
    chance = random.Random(seed)
    shuffled = chance.sample(SYSTEMS, len(SYSTEMS))
    share, left_over = divmod(states, len(SYSTEMS))
    compared = 0
    for position, system in enumerate(shuffled):
        if times := share + (position < left_over):
            world = _World(Instance(System(*system), SIZE))
            compared += sum(world.compare(chance) for _ in range(times))
    return compared


@dataclass(frozen=True)
class _Question:
    """An expression without quantifiers, the parameters in it, and the compiled model's function for its value."""

    what: str
    over: tuple[Parameter, ...]
    expression: Any
    compiled: Callable[..., bool]


Members = dict[str, list[Any]]
"""For each sort without structure the constants that stand for its members, by their numbers."""


def _members(instance: Instance) -> Members:
    members = {}
    for sort in {each.index.name: each.index for each in all_variables if each.index is not None}.values():
        fixed = {constant.number: constant.z3 for constant in CONSTANTS if constant.sort is sort}
        count = max(instance.count(sort), *[number + 1 for number in fixed])
        members[sort.name] = [fixed.get(i, z3.Const(f"{sort.name}!{i}", sort.z3)) for i in range(count)]
    return members


def _expanded(expression: Any, members: Members) -> Any:
    """Write quantifiers out over the members."""
    if z3.is_quantifier(expression):
        each_body = [z3.substitute_vars(expression.body(), it) for it in members[expression.var_sort(0).name()]]
        bodies = [_expanded(body, members) for body in each_body]
        return z3.And(*bodies) if expression.is_forall() else z3.Or(*bodies)
    if "forall" not in (text := expression.sexpr()) and "exists" not in text:  # much quicker than to walk
        return expression
    parts = [(child, _expanded(child, members)) for child in expression.children() if not z3.is_const(child)]
    return z3.substitute(expression, *parts)


@functools.cache
def _claims(profile: Profile, backends_alone: bool) -> list[tuple[str, tuple[Parameter, ...], Term, Any]]:
    """Return each premise and each conclusion, and what it is with quantifiers written out: they take time to build."""
    members = _members(Instance(System(profile), SIZE))
    return [
        (f"the {part} of {claim.name}", claim.over, term, _expanded(term.z3, members))
        for claim in properties(profile, backends_alone)
        for part, term in (("premise", claim.premise), ("conclusion", claim.conclusion))
    ]


class _World:
    """A finite world for z3: a constant for each slot, child and word, all different."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.members = _members(instance)
        self.solver = z3.SimpleSolver()
        self.solver.set("timeout", CHECK_LIMIT)
        self.solver.add(*[z3.Distinct(*members) for members in self.members.values()])

    def compare(self, chance: random.Random) -> int:
        """Compare everything in one random state, or on one random pair of states; return how many values that is."""
        before, after, who = self.random_state(chance), self.random_state(chance), chance.randrange(len(Who))
        bound = {each.name: chance.choice(self.instance.members(each)) for each in self.parameters}
        values = self.evaluator(before, after, who, bound)
        for question in (*self.guards, *self.claims):
            arguments = [bound[each.name] for each in question.over]
            expected = z3.BoolVal(bool(question.compiled(before, after, who, *arguments)))
            self.expect(question.what, values.eval(question.expression), expected, arguments)
        return len(self.guards) + len(self.claims) + self.compare_effects(before, bound, values)

    def compare_effects(self, before: State, bound: dict[str, int], values: Any) -> int:
        compared = 0
        for name, compiled in self.instance.actions.items():
            arguments = [bound[each.name] for each in compiled.action.of]
            new_state = compiled.next_state(before, *arguments)
            written = self.written[name]
            for variable, at in self.instance.index.items():
                if variable not in written and new_state[at] != before[at]:
                    raise Disagreement(f"{name}{tuple(arguments)} changes {variable}, which no effect names")
            for variable, places in written.items():
                content = new_state[self.instance.index[variable]]
                sort = all_variables[variable].sort
                for place, value in zip(places, content if len(places) > 1 else [content], strict=True):
                    what = f"{variable} after {name}"
                    self.expect(what, values.eval(place), values.eval(self.constant(sort, value)), arguments)
                compared += 1
        return compared

    def expect(self, what: str, value: Any, expected: Any, arguments: list[int]) -> None:
        if not value.eq(expected):
            raise Disagreement(f"{what}{tuple(arguments)}: the compiled model and z3 differ ({expected}, {value})")

    # What is asked

    @cached_property
    def parameters(self) -> list[Parameter]:
        """Every parameter of an action or a property, once."""
        overs = [action.of for action in self.instance.system.actions] + [question.over for question in self.claims]
        return list({parameter.name: parameter for over in overs for parameter in over}.values())

    @cached_property
    def guards(self) -> list[_Question]:
        return [
            _Question(
                f"the guard of {name}",
                compiled.action.of,
                _expanded(z3.And(*[term.z3 for term in compiled.action.conditions]), self.members),
                lambda before, after, who, *arguments, enabled=compiled.enabled: enabled(before, *arguments),
            )
            for name, compiled in self.instance.actions.items()
        ]

    @cached_property
    def claims(self) -> list[_Question]:
        system = self.instance.system
        return [
            _Question(what, over, expression, self.instance.predicate(term, over))
            for what, over, term, expression in _claims(system.profile, system.backends_alone)
        ]

    @cached_property
    def written(self) -> dict[str, dict[str, list[Any]]]:
        """For each action and each variable that it writes, the new value at every location, or the new value."""
        return {
            name: {
                variable: self.places(all_variables[variable], new)
                for variable, new in compiled.action.after().items()
                if variable != used.name
            }
            for name, compiled in self.instance.actions.items()
        }

    def places(self, variable: Variable, new: Any) -> list[Any]:
        return [new] if variable.index is None else [z3.Select(new, each) for each in self.members[variable.index.name]]

    # Values

    def constant(self, sort: Sort, value: Any) -> Any:
        if sort.name in self.members:
            return self.members[sort.name][value]
        if sort.enum is not None:
            return sort.z3.constructor(value)()
        return z3.BoolVal(value) if sort.name == "Bool" else z3.IntVal(value)

    def random_state(self, chance: random.Random) -> State:
        """Return any state at all; half of what is no array is blank, else hardly a guard would hold."""

        def value(variable: Variable) -> Any:
            sort = variable.sort
            if sort.name in self.members:
                return chance.choice(self.instance.words if sort.name == "Word" else range(self.instance.count(sort)))
            if sort.enum is not None:
                return chance.randrange(len(sort.enum))
            return chance.choice((False, True)) if sort.name == "Bool" else chance.choice(STATUSES)

        return tuple(
            (value(variable) if chance.random() < 0.5 else 0)
            if variable.index is None
            else tuple(value(variable) for _ in range(self.instance.count(variable.index)))
            for variable in self.instance.variables
        )

    def evaluator(self, before: State, after: State, who: int, bound: dict[str, int]) -> Any:
        """Return z3's model in which every constant has the value it has here."""
        self.solver.push()
        self.solver.add(actor.z3 == self.constant(actor.sort, who))
        for parameter in self.parameters:
            self.solver.add(parameter.z3 == self.constant(parameter.sort, bound[parameter.name]))
        for variable in all_variables:
            self.solver.add(variable.z3 == self.value_in(variable, before))
            self.solver.add(variable.primed == self.value_in(variable, after))
        answer = self.solver.check()
        if answer != z3.sat:
            raise Disagreement(f"z3 does not accept the values of a state: {answer}")
        values = self.solver.model()
        self.solver.pop()
        return values

    def value_in(self, variable: Variable, state: State) -> Any:
        at = self.instance.index.get(variable.name)
        if variable is used:
            standing = {word for each in (flag, clean) for word in self.content(each, state)}
            content = tuple(word < len(RESERVED) or word in standing for word in range(len(self.members["Word"])))
        elif at is None:
            return variable.blank if variable.index is None else z3.K(variable.index.z3, variable.blank)
        else:
            content = state[at]
        if variable.index is None:
            return self.constant(variable.sort, content)
        array = z3.K(variable.index.z3, self.constant(variable.sort, content[0]))
        for member, value in zip(self.members[variable.index.name], content, strict=True):
            array = z3.Store(array, member, self.constant(variable.sort, value))
        return array

    def content(self, variable: Term, state: State) -> Arguments:
        """Return the words that stand in an array of words; in one that nothing writes, none but UNUSED does."""
        assert isinstance(variable, Variable)
        at = self.instance.index.get(variable.name)
        return (0,) if at is None else state[at]
