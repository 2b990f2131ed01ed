"""Does the compiled model mean what z3 means? Both evaluate the same definition on random states, and must agree.

The states are random, not reachable: guards and effects are compared where no run leads, too. Every guard, every effect
and every property is evaluated; z3's answer is a proof that the expression has that value, not a model it made up.
"""

from __future__ import annotations

import random
from typing import Any

import z3

from armed_model.interpret import INDEX, Instance, Size, State
from armed_model.lifecycle import Who
from armed_model.profiles import REFERENCE
from armed_model.properties import PROPERTIES, actor
from armed_model.system import CONSTANTS, RESERVED, System, clean, flag, used, variables
from armed_model.terms import Sort, Variable

SIZE = Size(2, 2)
STATUSES = (-9, 0, 1, 2)


class Disagreement(Exception):
    """The compiled function and z3 give an expression different values in some state."""


def compare(states: int, seed: int = 0) -> int:
    """Compare on so many random states, and return how many values were compared. Raises Disagreement."""
    chance = random.Random(seed)
    instance = Instance(System(REFERENCE, "+stray"), SIZE)
    world = _World(instance)
    compared = 0
    for _ in range(states):
        state, after = world.random_state(chance), world.random_state(chance)
        who = chance.randrange(len(Who))
        for name, compiled in instance.actions.items():
            arguments = tuple(chance.choice(domain) for domain in compiled.domains)
            names = list(zip(compiled.action.of, arguments, strict=True))
            bound = [(p.z3, world.constant(p.sort, value)) for p, value in names]
            guard = z3.And(*[term.z3 for term in compiled.action.conditions])
            world.expect(f"the guard of {name}{arguments}", guard, compiled.enabled(state, *arguments), state, bound)
            new_state = compiled.next_state(state, *arguments)
            written = compiled.action.after()
            for variable, at in INDEX.items():
                if variable not in written and new_state[at] != state[at]:
                    raise Disagreement(f"{name}{arguments} changes {variable}, which no effect names")
            for variable, new in written.items():
                if variable != used.name:
                    world.expect_value(f"{variable} after {name}{arguments}", variable, new, new_state, state, bound)
                    compared += 1
            compared += 1
        for claim in PROPERTIES:
            members = chance.choice(instance.bindings(claim.over))
            bound = [
                (p.z3, world.constant(p.sort, value)) for p, value in zip(claim.over, members, strict=True)
            ]
            bound.append((actor.z3, world.constant(actor.sort, who)))
            for what, term in (("premise", claim.premise), ("conclusion", claim.conclusion)):
                value = instance.predicate(term, claim.over)(state, after, who, *members)
                world.expect(f"the {what} of {claim.name}", term.z3, value, state, bound, after)
                compared += 1
    return compared


class _World:
    """A finite world for z3: a constant for each slot, child and word, all different."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.members: dict[str, list[Any]] = {}
        for sort in {variable.index.name: variable.index for variable in variables if variable.index}.values():
            fixed = {constant.number: constant.z3 for constant in CONSTANTS if constant.sort is sort}
            count = instance.size.count(sort)
            self.members[sort.name] = [fixed.get(i, z3.Const(f"{sort.name}!{i}", sort.z3)) for i in range(count)]
        self.written_states: dict[State, dict[str, Any]] = {}
        self.solver = z3.SimpleSolver()
        self.solver.set("timeout", 10_000)
        self.solver.add(*[z3.Distinct(*members) for members in self.members.values()])

    def constant(self, sort: Sort, value: Any) -> Any:
        if sort.name in self.members:
            return self.members[sort.name][value]
        if sort.enum is not None:
            return sort.z3.constructor(value)()
        return z3.BoolVal(value) if sort.name == "Bool" else z3.IntVal(value)

    def random_state(self, chance: random.Random) -> State:
        def value(variable: Variable) -> Any:
            sort = variable.sort
            if sort.name in self.members:
                return chance.randrange(len(self.members[sort.name]))
            if sort.enum is not None:
                return chance.randrange(len(sort.enum))
            return chance.choice((False, True)) if sort.name == "Bool" else chance.choice(STATUSES)

        return tuple(
            value(variable)
            if variable.index is None
            else tuple(value(variable) for _ in self.members[variable.index.name])
            for variable in variables
            if variable is not used
        )

    def values_of(self, state: State) -> dict[str, Any]:
        """Return for each variable the z3 expression of its value in `state`; building them is what takes time."""
        if state in self.written_states:
            return self.written_states[state]
        values = self.written_states[state] = {}
        rest = iter(state)
        for variable in variables:
            if variable is used:
                standing = {*state[_at(flag)], *state[_at(clean)]}
                content = tuple(word < len(RESERVED) or word in standing for word in range(len(self.members["Word"])))
            else:
                content = next(rest)
            values[variable.name] = self.written(variable, content)
        return values

    def written(self, variable: Variable, content: Any) -> Any:
        if variable.index is None:
            return self.constant(variable.sort, content)
        array = z3.K(variable.index.z3, self.constant(variable.sort, content[0]))
        for member, value in zip(self.members[variable.index.name], content, strict=True):
            array = z3.Store(array, member, self.constant(variable.sort, value))
        return array

    def expect(
        self, what: str, expression: Any, value: bool, state: State, bound: list[Any], after: State | None = None
    ) -> None:
        self.prove(what, self.grounded(expression, state, bound, after) == z3.BoolVal(bool(value)))

    def expect_value(
        self, what: str, name: str, expression: Any, new_state: State, state: State, bound: list[Any]
    ) -> None:
        variable = variables[name]
        content = new_state[_at(variable)]
        ground = self.grounded(expression, state, bound, None)
        if variable.index is None:
            self.prove(what, ground == self.constant(variable.sort, content))
            return
        members = self.members[variable.index.name]
        pairs = zip(members, content, strict=True)
        self.prove(what, z3.And(*[z3.Select(ground, m) == self.constant(variable.sort, v) for m, v in pairs]))

    def grounded(self, expression: Any, state: State, bound: list[Any], after: State | None) -> Any:
        """Write values for all variables and parameters, and expand quantifiers over the members."""
        now = self.values_of(state)
        pairs = [(variable.z3, now[variable.name]) for variable in variables] + bound
        if after is not None:
            later = self.values_of(after)
            pairs += [(variable.primed, later[variable.name]) for variable in variables]
        return z3.substitute(self.expanded(expression), *pairs)

    def expanded(self, expression: Any) -> Any:
        if z3.is_quantifier(expression):
            members = self.members[expression.var_sort(0).name()]
            bodies = [self.expanded(z3.substitute_vars(expression.body(), member)) for member in members]
            return z3.And(*bodies) if expression.is_forall() else z3.Or(*bodies)
        quantified = [(child, self.expanded(child)) for child in expression.children() if not z3.is_const(child)]
        return z3.substitute(expression, *quantified) if quantified else expression

    def prove(self, what: str, equation: Any) -> None:
        self.solver.push()
        self.solver.add(z3.Not(equation))
        answer = self.solver.check()
        self.solver.pop()
        if answer != z3.unsat:
            raise Disagreement(f"{what}: the compiled model and z3 differ ({answer})")


def _at(variable: Any) -> int:
    return [each.name for each in variables if each is not used].index(variable.name)
