"""Runs, taken again by the definition itself.

A search uses a bounded instance, in which words run out and are used again. Before a run is published its words are
renamed, so that each assignment draws one that was never used before, and every step is taken once more by z3, on the
terms of the specification: with the unbounded `used`, and without the compiled functions.
"""

from __future__ import annotations

import itertools
from typing import Any

import z3

from armed_model.explore import Run, Step, replay
from armed_model.interpret import Instance
from armed_model.properties import Property, actor
from armed_model.system import CONSTANTS, INITIALLY, RESERVED, clean, flag, variables
from armed_model.terms import Parameter, Sort


class DoesNotReplay(Exception):
    """A run that the compiled functions take is no run of the definition: the two disagree."""


def with_fresh_words(instance: Instance, run: Run) -> Run:
    """Rename the words of a run, so that each assignment draws one that stands nowhere and never stood anywhere."""
    if clean.name not in instance.index:
        return run  # the profile has no fresh words
    states = replay(instance, run)
    fresh = itertools.count(len(RESERVED))
    name: dict[int, int] = {}
    renamed = []
    for step, state in zip(run, states, strict=False):
        action = instance.actions[step.action].action
        standing = {word for each in (flag, clean) for word in state[instance.index[each.name]]}
        arguments = []
        for parameter, value in zip(action.of, step.arguments, strict=True):
            if parameter.sort.name == "Word" and value >= len(RESERVED):
                if value not in standing or value not in name:
                    name[value] = next(fresh)
                value = name[value]
            arguments.append(value)
        renamed.append(Step(step.action, tuple(arguments)))
    return tuple(renamed)


class _World:
    """A constant for every slot, child and word that a run speaks of, all different, and a state made of them."""

    def __init__(self, instance: Instance, run: Run) -> None:
        count = {"Slot": instance.size.slots + 1, "Child": instance.size.children + 1}
        actions = [instance.actions[step.action].action for step in run]
        words = [
            value
            for action, step in zip(actions, run, strict=True)
            for parameter, value in zip(action.of, step.arguments, strict=True)
            if parameter.sort.name == "Word"
        ]
        count["Word"] = max([len(RESERVED) - 1, *words]) + 2  # one more than the run draws
        self.members: dict[str, list[Any]] = {}
        sorts = {constant.sort.name: constant.sort for constant in CONSTANTS}
        for sort, many in count.items():
            fixed = {constant.number: constant.z3 for constant in CONSTANTS if constant.sort.name == sort}
            self.members[sort] = [fixed.get(i, z3.Const(f"{sort}!{i}", sorts[sort].z3)) for i in range(many)]
        self.solver = z3.SimpleSolver()
        self.solver.set("timeout", 10_000)
        self.solver.add(*[z3.Distinct(*members) for members in self.members.values()])
        self.state = {
            variable.name: variable.blank if variable.index is None else z3.K(variable.index.z3, variable.blank)
            for variable in variables
        }
        for update in INITIALLY:
            assert update.index is not None
            name = update.variable.name
            self.state[name] = z3.Store(self.state[name], update.index.z3, update.value)

    def constant(self, sort: Sort, value: int) -> Any:
        if sort.name in self.members:
            return self.members[sort.name][value]
        return sort.z3.constructor(value)() if sort.enum is not None else z3.IntVal(value)

    def bind(self, over: tuple[Parameter, ...], values: tuple[int, ...]) -> list[tuple[Any, Any]]:
        return [(p.z3, self.constant(p.sort, value)) for p, value in zip(over, values, strict=True)]

    def value(self, expression: Any, pairs: list[tuple[Any, Any]]) -> Any:
        """Put the state into an expression; what is said of all members is said of each."""
        states = [(variable.z3, self.state[variable.name]) for variable in variables]
        return z3.substitute(z3.substitute(self._each(expression), *pairs), *states)

    def _each(self, node: Any) -> Any:
        if z3.is_quantifier(node):
            each = [self._each(z3.substitute_vars(node.body(), m)) for m in self.members[node.var_sort(0).name()]]
            return z3.And(*each) if node.is_forall() else z3.Or(*each)
        children = [self._each(child) for child in node.children()]
        if z3.is_and(node):
            return z3.And(*children)
        if z3.is_or(node):
            return z3.Or(*children)
        return node.decl()(*children) if children else node

    def holds(self, claim: Any) -> bool:
        self.solver.push()
        self.solver.add(z3.Not(claim))
        answer = self.solver.check()
        self.solver.pop()
        return bool(answer == z3.unsat)


def replay_by_definition(
    instance: Instance, run: Run, claim: Property | None = None, binding: tuple[int, ...] = ()
) -> None:
    """Take every step of a run by z3, and see that it violates `claim` for the members of `binding` at its end.

    Of words any will do: those of the binding are the bounded instance's. Raises DoesNotReplay, which names the step.
    """
    run = with_fresh_words(instance, run)
    world = _World(instance, run)
    before = dict(world.state)
    for number, step in enumerate(run, 1):
        action = instance.actions[step.action].action
        pairs = world.bind(action.of, step.arguments)
        for condition in action.conditions:
            if not world.holds(world.value(condition.z3, pairs)):
                raise DoesNotReplay(f"step {number}, {step.action}{step.arguments}: {condition} does not hold")
        before = dict(world.state)
        world.state |= {name: z3.simplify(world.value(new, pairs)) for name, new in action.after().items()}
    if claim is None:
        return
    by = instance.actions[run[-1].action].action.by if run else None
    after = {variable.primed: world.state[variable.name] for variable in variables}
    violation = z3.Not(claim.claim.z3)
    of_the_step: list[tuple[Any, Any]] = []
    if claim.claims.value == "step":
        world.state = before
        of_the_step = [*after.items(), *([(actor.z3, (actor == by).z3.arg(1))] if by is not None else [])]
    choices = [
        range(len(world.members["Word"])) if parameter.sort.name == "Word" else (value,)
        for parameter, value in zip(claim.over, binding, strict=True)
    ]
    for members in itertools.product(*choices):
        if world.holds(world.value(violation, [*world.bind(claim.over, members), *of_the_step])):
            return
    raise DoesNotReplay(f"the run does not violate {claim.name}")

