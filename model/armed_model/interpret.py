"""z3 expression -> Python function: the same definition, run on concrete states of a bounded instance.

A state is a tuple with an entry for each state variable, in the order of their declaration: a plain value, or a tuple
of values for an array. Slots and children are their numbers (0: none), words are numbers (the reserved ones first),
members of an enumeration are their positions, the rest are ints and bools of Python.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import z3

from armed_model.properties import Property, actor
from armed_model.system import BOUNDED_USED, CONSTANTS, RESERVED, System, used, variables
from armed_model.terms import Action, Parameter, Sort, Term, Variable

State = tuple[Any, ...]
Arguments = tuple[int, ...]

_VARIABLES = [variable for variable in variables if variable is not used]
INDEX = {variable.name: position for position, variable in enumerate(_VARIABLES)}


@dataclass(frozen=True)
class Size:
    """The bounds of an instance: how many slots and children there are besides "none"."""

    slots: int
    children: int

    def __post_init__(self) -> None:
        if self.slots < 1 or self.children < 1:
            raise ValueError(f"an instance needs at least one slot and one child, not {self.slots} and {self.children}")

    def __str__(self) -> str:
        slots = f"{self.slots} slot{'s' * (self.slots > 1)}"
        return f"{slots} x {self.children} child{'ren' * (self.children > 1)}"

    def count(self, sort: Sort) -> int:
        """Return how many members a sort has, "none" included; one word more than slots can hold at once."""
        match sort.name:
            case "Slot":
                return self.slots + 1
            case "Child":
                return self.children + 1
            case "Word":
                return len(RESERVED) + self.slots + 1
        raise ValueError(f"{sort.name} has no bound")

    def members(self, parameter: Parameter) -> range | tuple[int, ...]:
        """Return what a parameter ranges over: never slot 0, never nobody; any word; an Int's small domain."""
        if parameter.domain:
            return parameter.domain
        if parameter.sort.enum is not None:
            return range(len(parameter.sort.enum))
        return range(0 if parameter.sort.name == "Word" else 1, self.count(parameter.sort))


class NotInterpretable(Exception):
    """An expression uses an operator that the interpreter does not know."""


_BINARY = {z3.Z3_OP_EQ: "==", z3.Z3_OP_LE: "<=", z3.Z3_OP_GE: ">=", z3.Z3_OP_LT: "<", z3.Z3_OP_GT: ">"}
_SORT_OF = {variable.index.name: variable.index for variable in variables if variable.index is not None}


class _Source:
    """Writes one expression as Python source; names are given by `bound`, arrays by the state tuple they live in."""

    def __init__(self, size: Size, bound: dict[str, str]) -> None:
        self.size = size
        self.names = dict(bound)
        for constant in CONSTANTS:
            self.names[constant.name] = str(constant.number)
        for variable in _VARIABLES:
            self.names[variable.name] = f"S[{INDEX[variable.name]}]"
            self.names[variable.name + "'"] = f"T[{INDEX[variable.name]}]"
        self.fresh = itertools.count()

    def write(self, node: Any) -> str:
        if z3.is_quantifier(node):
            return self._quantifier(node)
        if z3.is_int_value(node):
            return str(node.as_long())
        kind, arguments = node.decl().kind(), node.children()
        match kind:
            case z3.Z3_OP_TRUE:
                return "True"
            case z3.Z3_OP_FALSE:
                return "False"
            case z3.Z3_OP_UNINTERPRETED if not arguments:
                return self.names[node.decl().name()]
            case z3.Z3_OP_DT_CONSTRUCTOR:
                sort = node.sort()
                return str(next(i for i in range(sort.num_constructors()) if sort.constructor(i).eq(node.decl())))
            case z3.Z3_OP_SELECT if arguments[0].eq(used.z3):
                variable, body = BOUNDED_USED
                return self.write(z3.substitute(body.z3, (variable.z3, arguments[1])))
            case z3.Z3_OP_SELECT:
                return f"{self.write(arguments[0])}[{self.write(arguments[1])}]"
            case z3.Z3_OP_AND:
                return "(" + " and ".join(map(self.write, arguments)) + ")" if arguments else "True"
            case z3.Z3_OP_OR:
                return "(" + " or ".join(map(self.write, arguments)) + ")" if arguments else "False"
            case z3.Z3_OP_NOT:
                return f"(not {self.write(arguments[0])})"
            case z3.Z3_OP_IMPLIES:
                return f"(not {self.write(arguments[0])} or {self.write(arguments[1])})"
            case z3.Z3_OP_DISTINCT if len(arguments) == 2:
                return f"({self.write(arguments[0])} != {self.write(arguments[1])})"
            case z3.Z3_OP_ITE:
                condition, then, otherwise = map(self.write, arguments)
                return f"({then} if {condition} else {otherwise})"
            case _ if kind in _BINARY:
                return f"({self.write(arguments[0])} {_BINARY[kind]} {self.write(arguments[1])})"
        raise NotInterpretable(str(node))

    def _quantifier(self, node: Any) -> str:
        name = f"q{next(self.fresh)}"
        count = self.size.count(_SORT_OF[node.var_sort(0).name()])
        stand_in = z3.Const(name, node.var_sort(0))
        self.names[name] = name
        body = self.write(z3.substitute_vars(node.body(), stand_in))
        return f"{'all' if node.is_forall() else 'any'}({body} for {name} in range({count}))"


def _function(source: _Source, parameters: list[str], expression: str) -> Callable[..., Any]:
    function: Callable[..., Any] = eval(f"lambda {', '.join(parameters)}: {expression}")
    return function


@dataclass(frozen=True)
class CompiledAction:
    """An action as two functions of a state and the action's arguments."""

    action: Action
    domains: tuple[range | tuple[int, ...], ...]
    enabled: Callable[..., bool]
    next_state: Callable[..., State]


def _compile_action(action: Action, size: Size) -> CompiledAction:
    source = _Source(size, {parameter.name: f"p{i}" for i, parameter in enumerate(action.of)})
    parameters = ["S", *[f"p{i}" for i in range(len(action.of))]]
    guard = " and ".join(source.write(term.z3) for term in action.conditions) or "True"
    updates = {update.variable.name: update for update in action.effect}
    entries = []
    for variable in _VARIABLES:
        old = source.names[variable.name]
        update = updates.get(variable.name)
        if update is None:
            entries.append(old)
        elif update.index is not None:
            index, value = source.write(update.index.z3), source.write(update.value)
            entries.append(f"put({old}, {index}, {value})")
        elif variable.index is not None:
            entries.append(f"({source.write(update.value)},) * {size.count(variable.index)}")
        else:
            entries.append(source.write(update.value))
    effect = eval(
        f"lambda {', '.join(parameters)}: ({', '.join(entries)},)", {"put": _put}
    )
    return CompiledAction(
        action,
        tuple(size.members(parameter) for parameter in action.of),
        _function(source, parameters, guard),
        effect,
    )


def _put(values: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    return (*values[:index], value, *values[index + 1 :])


class Instance:
    """A system with so many slots and children: concrete states, and what can happen in them."""

    def __init__(self, system: System, size: Size) -> None:
        self.system, self.size = system, size

    @cached_property
    def actions(self) -> dict[str, CompiledAction]:
        """Every action of the system, compiled, by name."""
        return {action.name: _compile_action(action, self.size) for action in self.system.actions}

    @cached_property
    def initial(self) -> State:
        """The first state: everything blank."""
        source = _Source(self.size, {})

        def first(variable: Variable) -> Any:
            blank = eval(source.write(variable.blank))
            return blank if variable.index is None else (blank,) * self.size.count(variable.index)

        return tuple(first(variable) for variable in _VARIABLES)

    def steps(self, state: State) -> Iterator[tuple[str, Arguments, State]]:
        """Yield every step possible in `state`: the action's name, its arguments, the state after it."""
        for name, compiled in self.actions.items():
            for arguments in itertools.product(*compiled.domains):
                if compiled.enabled(state, *arguments):
                    yield name, arguments, compiled.next_state(state, *arguments)

    def enabled(self, state: State, name: str, *arguments: int) -> bool:
        """Whether the action may happen in `state` with these arguments."""
        return bool(self.actions[name].enabled(state, *arguments))

    def step(self, state: State, name: str, *arguments: int) -> State:
        """Take one step. Raises ValueError, naming the conjunct that fails, where it is not enabled."""
        compiled = self.actions[name]
        if not compiled.enabled(state, *arguments):
            raise ValueError(f"{name}{arguments} is not enabled: {self.why_not(state, name, *arguments)}")
        return compiled.next_state(state, *arguments)

    def why_not(self, state: State, name: str, *arguments: int) -> str:
        """Name the first conjunct of the action's guard that does not hold in `state`."""
        action = self.actions[name].action
        source = _Source(self.size, {parameter.name: f"p{i}" for i, parameter in enumerate(action.of)})
        names = ["S", *[f"p{i}" for i in range(len(action.of))]]
        reasons = [""] * (len(action.conditions) - len(action.guard)) + [conjunct.why for conjunct in action.guard]
        for term, why in zip(action.conditions, reasons, strict=True):
            if not _function(source, names, source.write(term.z3))(state, *arguments):
                return f"{term} ({why})" if why else str(term)
        return "it is enabled"

    def predicate(self, term: Term, over: tuple[Parameter, ...] = ()) -> Callable[..., bool]:
        """Compile a condition to a function of (state, state after, actor, *members of `over`)."""
        source = _Source(self.size, {actor.name: "A", **{p.name: f"p{i}" for i, p in enumerate(over)}})
        return _function(source, ["S", "T", "A", *[f"p{i}" for i in range(len(over))]], source.write(term.z3))

    def bindings(self, over: tuple[Parameter, ...]) -> list[Arguments]:
        """Return all tuples of members that `over` ranges over."""
        return list(itertools.product(*[self.size.members(parameter) for parameter in over]))

    def read(self, state: State, variable: Term, index: int | None = None) -> Any:
        """Return a variable's value in `state`: an enumeration's member, or a number, or a bool."""
        if not isinstance(variable, Variable):
            raise TypeError(f"{variable} is no state variable")
        value = state[INDEX[variable.name]]
        if index is not None:
            value = value[index]
        return list(variable.sort.enum)[value] if variable.sort.enum is not None else value

    def violation(self, claim: Property) -> Callable[[State, State, int], Arguments | None]:
        """Compile a property to a function that returns members of `over` for which a step violates it, or None."""
        holds = self.predicate(claim.claim, claim.over)
        return _first(self.bindings(claim.over), lambda *values: not holds(*values))

    def witness(self, claim: Property) -> Callable[[State, State, int], Arguments | None]:
        """Compile a property's premise to a function that returns members of `over` that satisfy it, or None."""
        return _first(self.bindings(claim.over), self.predicate(claim.premise, claim.over))


def _first(
    bindings: list[Arguments], holds: Callable[..., bool]
) -> Callable[[State, State, int], Arguments | None]:
    def search(before: State, after: State, who: int) -> Arguments | None:
        for binding in bindings:
            if holds(before, after, who, *binding):
                return binding
        return None

    return search
