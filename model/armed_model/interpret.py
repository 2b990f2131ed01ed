"""z3 expression -> Python function: the same definition, run on concrete states of a bounded instance.

A state is a tuple with an entry for each state variable that some action of the system writes, in the order of their
declaration: a plain value, or a tuple of values for an array. Slots and children are their numbers (0: none), words are
numbers (the reserved ones first), members of an enumeration are their positions, the rest are ints and bools of Python.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import z3

from armed_model.profiles import CleanWord
from armed_model.properties import actor
from armed_model.system import BOUNDED_USED, CONSTANTS, RESERVED, System, used, variables, words
from armed_model.terms import Action, Parameter, Sort, Term, Variable, symbols

State = tuple[Any, ...]
Arguments = tuple[int, ...]
Successor = tuple[int, Arguments, State]
"""The position of an action among the system's actions, its arguments, the state after it."""


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


class NotInterpretable(Exception):
    """An expression uses an operator that the interpreter does not know."""


_BINARY = {z3.Z3_OP_EQ: "==", z3.Z3_OP_LE: "<=", z3.Z3_OP_GE: ">=", z3.Z3_OP_LT: "<", z3.Z3_OP_GT: ">"}
_SORT_OF = {variable.index.name: variable.index for variable in variables if variable.index is not None}


class _Source:
    """Writes expressions as Python source: variables as items of the states S and T, parameters by their `bound` names.

    A variable that nothing writes is written as its blank value.
    """

    def __init__(self, instance: Instance, bound: dict[str, str] | None = None) -> None:
        self.instance = instance
        self.names = dict(bound or {})
        self.constant: dict[str, str] = {}
        for constant in CONSTANTS:
            self.names[constant.name] = str(constant.number)
        for variable in variables:
            at = instance.index.get(variable.name)
            for name, state in ((variable.name, "S"), (variable.name + "'", "T")):
                if at is not None:
                    self.names[name] = f"{state}[{at}]"
                elif variable is not used:
                    self.constant[name] = self.write(variable.blank)
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
                name = node.decl().name()
                return self.constant[name] if name in self.constant else self.names[name]
            case z3.Z3_OP_DT_CONSTRUCTOR:
                sort = node.sort()
                return str(next(i for i in range(sort.num_constructors()) if sort.constructor(i).eq(node.decl())))
            case z3.Z3_OP_SELECT if arguments[0].eq(used.z3):
                variable, body = BOUNDED_USED
                return self.write(z3.substitute(body.z3, (variable.z3, arguments[1])))
            case z3.Z3_OP_SELECT if z3.is_const(arguments[0]) and arguments[0].decl().name() in self.constant:
                return self.constant[arguments[0].decl().name()]
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
        count = self.instance.count(_SORT_OF[node.var_sort(0).name()])
        stand_in = z3.Const(name, node.var_sort(0))
        self.names[name] = name
        body = self.write(z3.substitute_vars(node.body(), stand_in))
        return f"{'all' if node.is_forall() else 'any'}([{body} for {name} in {tuple(range(count))}])"

    def after(self, action: Action) -> str:
        """Write the state after an action."""
        updates = {update.variable.name: update for update in action.effect}
        entries = []
        for variable in self.instance.variables:
            old, update = self.names[variable.name], updates.get(variable.name)
            if update is None:
                entries.append(old)
            elif update.index is not None:
                entries.append(f"put({old}, {self.write(update.index.z3)}, {self.write(update.value)})")
            elif variable.index is not None:
                entries.append(f"({self.write(update.value)},) * {self.instance.count(variable.index)}")
            else:
                entries.append(self.write(update.value))
        return f"({', '.join(entries)},)"


def _put(values: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _function(parameters: list[str], expression: str) -> Callable[..., Any]:
    function: Callable[..., Any] = eval(f"lambda {', '.join(parameters)}: {expression}", {"put": _put})
    return function


def _conjuncts(node: Any) -> Iterator[Any]:
    """Take a conjunction apart."""
    if z3.is_and(node):
        for child in node.children():
            yield from _conjuncts(child)
    else:
        yield node


def _loops(
    source: _Source, over: tuple[Parameter, ...], conditions: Iterable[Any], inside: list[str], depth: int = 1
) -> list[str]:
    """Write nested loops over the parameters, each condition as far out as it can stand, and what is done inside."""
    names = [parameter.name for parameter in over]
    wanted: list[list[str]] = [[] for _ in range(len(over) + 1)]
    for condition in conditions:
        needs = [names.index(name) + 1 for name in symbols(condition) & set(names)]
        wanted[max(needs, default=0)].append(source.write(condition))
    lines = []
    for level, tests in enumerate(wanted):
        if level:
            parameter = over[level - 1]
            values = tuple(source.instance.members(parameter))
            lines.append("    " * depth + f"for {source.names[parameter.name]} in {values}:")
            depth += 1
        if tests:
            lines.append("    " * depth + f"if {' and '.join(tests)}:")
            depth += 1
    return lines + ["    " * depth + line for line in inside]


def _define(name: str, parameters: str, lines: list[str], **known: Any) -> Callable[..., Any]:
    """Make a function that appends to `out` and returns it."""
    namespace: dict[str, Any] = {"put": _put, **known}
    exec("\n".join([f"def {name}({parameters}):", "    out = []", *lines, "    return out"]), namespace)
    function: Callable[..., Any] = namespace[name]
    return function


@dataclass(frozen=True, eq=False)
class CompiledAction:
    """An action as two functions of a state and the action's arguments: `enabled` and `next_state`."""

    instance: Instance
    action: Action

    @property
    def domains(self) -> tuple[range | tuple[int, ...], ...]:
        """What each argument ranges over."""
        return tuple(self.instance.members(parameter) for parameter in self.action.of)

    @cached_property
    def enabled(self) -> Callable[..., bool]:
        """The whole guard."""
        source, names = self.instance.source(self.action.of)
        conditions = [source.write(term.z3) for term in self.action.conditions]
        return _function(["S", *names], " and ".join(conditions) or "True")

    @cached_property
    def next_state(self) -> Callable[..., State]:
        """All effects at once."""
        source, names = self.instance.source(self.action.of)
        return _function(["S", *names], source.after(self.action))


@dataclass(frozen=True, eq=False)
class Sought:
    """Something to look for on every step: a condition on members of `over`, or (`on_states`) on a state alone."""

    over: tuple[Parameter, ...]
    condition: Term
    on_states: bool


class Instance:
    """A system with so many slots and children: concrete states, and what can happen in them."""

    def __init__(self, system: System, size: Size) -> None:
        self.system, self.size = system, size
        written = {update.variable.name for action in system.actions for update in action.effect}
        self.variables = [each for each in variables if each.name in written and each is not used]
        self.index = {variable.name: position for position, variable in enumerate(self.variables)}
        """Where in a state each variable stands."""
        self.written: dict[str, tuple[object, list[str]]] = {}
        """The source of what was compiled before, by name, with the action or what was sought: watching changes often.

        Instances of the same size and the same variables may share it.
        """

    @cached_property
    def words(self) -> tuple[int, ...]:
        """The words of this instance: those reserved, and one fresh one more than slots can hold at once."""
        reserved = [constant.number for constant in words(self.system.profile)]
        fresh = self.size.slots + 1 if self.system.profile.clean_word is CleanWord.FRESH else 0
        return (*reserved, *range(len(RESERVED), len(RESERVED) + fresh))

    def count(self, sort: Sort) -> int:
        """Return one more than the greatest number that a member of a sort has; the number 0 is "none"."""
        match sort.name:
            case "Slot":
                return self.size.slots + 1
            case "Child":
                return self.size.children + 1
            case "Word":
                return max(self.words) + 1
        raise ValueError(f"{sort.name} has no bound")

    def members(self, parameter: Parameter) -> range | tuple[int, ...]:
        """Return what a parameter ranges over: never slot 0, never nobody; any word; an Int's small domain."""
        if parameter.domain:
            return parameter.domain
        if parameter.sort.enum is not None:
            return range(len(parameter.sort.enum))
        return self.words if parameter.sort.name == "Word" else range(1, self.count(parameter.sort))

    @cached_property
    def actions(self) -> dict[str, CompiledAction]:
        """Every action of the system, by name; each is compiled when it is first used."""
        return {action.name: CompiledAction(self, action) for action in self.system.actions}

    def source(self, over: tuple[Parameter, ...]) -> tuple[_Source, list[str]]:
        """Return what writes Python source about members of `over`, and the names of its parameters for them."""
        names = [f"p{i}" for i in range(len(over))]
        bound = {parameter.name: name for parameter, name in zip(over, names, strict=True)}
        return _Source(self, {actor.name: "A", **bound}), names

    @cached_property
    def initial(self) -> State:
        """The first state: everything blank."""
        source = _Source(self)

        def first(variable: Variable) -> Any:
            blank = eval(source.write(variable.blank))
            return blank if variable.index is None else (blank,) * self.count(variable.index)

        return tuple(first(variable) for variable in self.variables)

    @cached_property
    def successors(self) -> Callable[[State], list[Successor]]:
        """A function that returns every step possible in a state: all actions in one, for speed."""
        lines = []
        for position, action in enumerate(self.system.actions):
            lines += self._once(f"{position}: {action.name}", action, partial(self._write_steps, position, action))
        return _define("successors", "S", lines)

    def _write_steps(self, position: int, action: Action) -> list[str]:
        source, names = self.source(action.of)
        conditions = [part for term in action.conditions for part in _conjuncts(term.z3)]
        arguments = "".join(f"{name}, " for name in names)
        step = [f"out.append(({position}, ({arguments}), {source.after(action)}))"]
        return _loops(source, action.of, conditions, step)

    def _once(self, name: str, what: object, write: Callable[[], list[str]]) -> list[str]:
        known = self.written.get(name)
        if known is None or known[0] is not what:
            self.written[name] = known = (what, write())
        return known[1]

    def steps(self, state: State) -> Iterator[tuple[str, Arguments, State]]:
        """Yield every step possible in `state`: the action's name, its arguments, the state after it."""
        for position, arguments, after in self.successors(state):
            yield self.system.actions[position].name, arguments, after

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
        source, names = self.source(action.of)
        reasons = [""] * (len(action.conditions) - len(action.guard)) + [conjunct.why for conjunct in action.guard]
        for term, why in zip(action.conditions, reasons, strict=True):
            if not _function(["S", *names], source.write(term.z3))(state, *arguments):
                return f"{term} ({why})" if why else str(term)
        return "it is enabled"

    def predicate(self, term: Term, over: tuple[Parameter, ...] = ()) -> Callable[..., bool]:
        """Compile a condition to a function of (state, state after, actor, *members of `over`)."""
        source, names = self.source(over)
        return _function(["S", "T", "A", *names], source.write(term.z3))

    def watch(self, look_for: dict[str, Sought]) -> Callable[[State, State, int], list[tuple[str, Arguments]]]:
        """Compile everything sought to one function of (state, state after, actor): what is there, for which members.

        What is sought on states is looked for in the first of the two.
        """
        lines = []
        for name, sought in look_for.items():
            lines += self._once(name, sought, partial(self._write_watch, name, sought))
        return _define("watch", "S, T, A", lines)

    def _write_watch(self, name: str, sought: Sought) -> list[str]:
        source, names = self.source(sought.over)
        arguments = "".join(f"{each}, " for each in names)
        conditions = list(_conjuncts(sought.condition.z3))
        return _loops(source, sought.over, conditions, [f"out.append(({name!r}, ({arguments})))"])

    def bindings(self, over: tuple[Parameter, ...]) -> list[Arguments]:
        """Return all tuples of members that `over` ranges over."""
        return list(itertools.product(*[self.members(parameter) for parameter in over]))

    def read(self, state: State, variable: Term, index: int | None = None) -> Any:
        """Return a variable's value in `state`: an enumeration's member, or a number, or a bool."""
        if not isinstance(variable, Variable):
            raise TypeError(f"{variable} is no state variable")
        at = self.index.get(variable.name)
        if at is None:
            value = eval(_Source(self).write(variable.blank))
        else:
            value = state[at] if index is None else state[at][index]
        return list(variable.sort.enum)[value] if variable.sort.enum is not None else value
