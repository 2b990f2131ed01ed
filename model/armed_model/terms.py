"""The language of the specification: z3 terms that cannot be misread as Python, state variables, and actions.

Python's own operators lie about z3 terms: `a == B and c` *is* `a == B`, `x in (A, B)` is False, and nothing complains.
So a `Term` wraps each z3 expression, its truth value raises, and the connectives have names: `both`, `either`,
`negate`, `implies`, `one_of`, `choose`, `for_all`, `exists`. Only this module, the interpreter and the prover see z3.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import z3

from armed_model.lifecycle import Who

z3.z3.Z3_DEBUG = False
"""z3's Python side need not look at the sorts of arguments: z3 itself does, always. The matrix takes a quarter less."""


@dataclass(frozen=True, eq=False)
class Sort:
    """A domain of values. `null` is the member that means "none": slot 0, nobody."""

    name: str
    z3: Any
    enum: type[enum.Enum] | None = None

    @property
    def free(self) -> bool:
        """Whether the sort is unbounded and without structure: slots, children, words."""
        return self.enum is None and self.name not in ("Bool", "Int")


def free_sort(name: str) -> Sort:
    """Declare a sort with any number of members, told apart only by equality."""
    return Sort(name, z3.DeclareSort(name))


_MEMBERS: dict[enum.Enum, Any] = {}


def enumeration(members: type[enum.Enum]) -> Sort:
    """Make a z3 sort of a Python enum; its members may then be written in terms directly."""
    sort, constants = z3.EnumSort(members.__name__, [f"{members.__name__}.{member.name}" for member in members])
    _MEMBERS.update(zip(members, constants, strict=True))
    return Sort(members.__name__, sort, members)


BOOL = Sort("Bool", z3.BoolSort())
INT = Sort("Int", z3.IntSort())

def _lift(value: object) -> Any:
    match value:
        case Term():
            return value.z3
        case enum.Enum() if value in _MEMBERS:
            return _MEMBERS[value]
        case bool():
            return z3.BoolVal(value)
        case int():
            return z3.IntVal(value)
    raise TypeError(f"{value!r} is neither a term, nor a member of a declared enumeration, nor an int or bool")


def _like(expression: Any, other: object) -> Any:
    lifted = _lift(other)
    if lifted.sort() != expression.sort():
        raise TypeError(f"{expression} is a {expression.sort()} and {other} a {lifted.sort()}: they are never equal")
    return lifted


class Term:
    """A z3 expression without a truth value."""

    __slots__ = ("z3",)
    __hash__ = None  # type: ignore[assignment]  # equality builds a term, so a hash would betray dict and set

    def __init__(self, expression: Any) -> None:
        self.z3 = expression

    def __bool__(self) -> NoReturn:
        raise TypeError(f"the term {self.z3} has no truth value in Python: use both, either, negate, one_of, choose")

    def __eq__(self, other: object) -> Term:  # type: ignore[override]  # builds a term, as z3's own does
        return Term(self.z3 == _like(self.z3, other))

    def __ne__(self, other: object) -> Term:  # type: ignore[override]
        return Term(self.z3 != _like(self.z3, other))

    def __repr__(self) -> str:
        return " ".join(str(self.z3).split())

    @property
    def has_quantifier(self) -> bool:
        """Whether something is said of all, or of some, members of a sort."""
        return _has_quantifier(self.z3)

    def because(self, reason: str) -> Conjunct:
        """Make this term a conjunct of a guard, with the reason why it is there."""
        return Conjunct(self, reason)


@dataclass(frozen=True, eq=False)
class Conjunct:
    """One line of a guard."""

    term: Term
    why: str


def both(*terms: Term) -> Term:
    """All of them (two or more read best as a sentence; of one it is that one)."""
    return Term(z3.And(*[term.z3 for term in terms]))


def either(*terms: Term) -> Term:
    """At least one of them; of none it is false."""
    return Term(z3.Or(*[term.z3 for term in terms]))


def negate(term: Term) -> Term:
    """Not."""
    return Term(z3.Not(term.z3))


def implies(premise: Term, conclusion: Term) -> Term:
    """If the premise, then the conclusion."""
    return Term(z3.Implies(premise.z3, conclusion.z3))


def one_of(term: Term, *values: Term | enum.Enum | int) -> Term:
    """The term equals one of the values."""
    return either(*[term == value for value in values])


def choose(condition: Term, then: object, otherwise: object) -> Term:
    """Return the first value where the condition holds, else the second."""
    first = _lift(then)
    return Term(z3.If(condition.z3, first, _like(first, otherwise)))


def for_all(variable: Parameter, body: Term) -> Term:
    """The body holds for every member of the variable's sort, slot 0 and nobody included."""
    return Term(z3.ForAll([variable.z3], body.z3))


def exists(variable: Parameter, body: Term) -> Term:
    """The body holds for some member of the variable's sort."""
    return Term(z3.Exists([variable.z3], body.z3))


def substitute(term: Term, pairs: Sequence[tuple[Parameter, Term]]) -> Term:
    """Put terms in the place of parameters, all at once."""
    return Term(z3.substitute(term.z3, *[(parameter.z3, new.z3) for parameter, new in pairs]))


class Parameter(Term):
    """A bound name: what an action is of, what a property speaks about. Never slot 0, never nobody.

    `domain` is the handful of values an exploration tries where the sort is Int.
    """

    __slots__ = ("domain", "name", "sort")

    def __init__(self, name: str, sort: Sort, domain: tuple[int, ...] = ()) -> None:
        super().__init__(z3.Const(name, sort.z3))
        self.name, self.sort, self.domain = name, sort, domain


class Constant(Term):
    """A named member of a free sort; constants of one sort differ from each other."""

    __slots__ = ("name", "number", "sort")

    def __init__(self, name: str, sort: Sort, number: int) -> None:
        super().__init__(z3.Const(name, sort.z3))
        self.name, self.sort, self.number = name, sort, number


@dataclass(frozen=True, eq=False)
class Update:
    """The new value of one location, or (index None in an array) of every location of that array."""

    variable: Variable
    index: Term | None
    value: Any


class Location(Term):
    """One element of an array: a term, and a place that an effect may write."""

    __slots__ = ("index", "variable")

    def __init__(self, variable: Array, index: Term) -> None:
        super().__init__(z3.Select(variable.z3, index.z3))
        self.variable, self.index = variable, index

    def becomes(self, value: object) -> Update:
        """Return the effect that gives this location a new value, computed from the old state."""
        return Update(self.variable, self.index, _lift(value))


class Variable(Term):
    """A state variable: its sort, the value it starts with, what it means, and whether it is a ghost.

    A ghost is there for the properties alone; no guard and no ordinary variable's new value may read it.
    """

    __slots__ = ("blank", "ghost", "meaning", "name", "sort")

    def __init__(self, name: str, z3_sort: Any, sort: Sort, blank: object, meaning: str, ghost: bool) -> None:
        super().__init__(z3.Const(name, z3_sort))
        self.name, self.sort, self.blank, self.meaning, self.ghost = name, sort, _lift(blank), meaning, ghost

    @property
    def index(self) -> Sort | None:
        """The sort that an array is indexed by."""
        return None

    @property
    def primed(self) -> Any:
        """The z3 constant that stands for this variable after a step."""
        return z3.Const(self.name + "'", self.z3.sort())


class Scalar(Variable):
    """A state variable that holds one value."""

    __slots__ = ()

    def becomes(self, value: object) -> Update:
        """Return the effect that gives this variable a new value, computed from the old state."""
        return Update(self, None, _lift(value))


class Array(Variable):
    """A state variable that holds a value for every slot, or for every child."""

    __slots__ = ("_index",)

    def __init__(self, name: str, index: Sort, sort: Sort, blank: object, meaning: str, ghost: bool) -> None:
        super().__init__(name, z3.ArraySort(index.z3, sort.z3), sort, blank, meaning, ghost)
        self._index = index

    @property
    def index(self) -> Sort:
        """The sort that this array is indexed by."""
        return self._index

    def __getitem__(self, index: Term) -> Location:
        return Location(self, index)

    def becomes_blank(self) -> Update:
        """Return the effect that gives every location its first value again."""
        return Update(self, None, self.blank)


class Variables:
    """The registry of state variables, in the order of their declaration."""

    def __init__(self) -> None:
        self._by_name: dict[str, Variable] = {}

    def scalar(self, name: str, sort: Sort, blank: object, meaning: str, *, ghost: bool = False) -> Scalar:
        """Declare a variable that holds one value."""
        variable = Scalar(name, sort.z3, sort, blank, meaning, ghost)
        self._add(variable)
        return variable

    def array(self, name: str, index: Sort, sort: Sort, blank: object, meaning: str, *, ghost: bool = False) -> Array:
        """Declare a variable that holds a value for every member of `index`."""
        variable = Array(name, index, sort, blank, meaning, ghost)
        self._add(variable)
        return variable

    def _add(self, variable: Variable) -> None:
        if variable.name in self._by_name:
            raise ValueError(f"the state variable {variable.name} is declared twice")
        self._by_name[variable.name] = variable

    def __iter__(self) -> Iterator[Variable]:
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> Variable:
        return self._by_name[name]

    def primed(self, term: Term) -> Term:
        """Read the term in the state after the step."""
        names = symbols(term.z3)
        return Term(z3.substitute(term.z3, [(each.z3, each.primed) for each in self if each.name in names]))


@dataclass(frozen=True, eq=False)
class Action:
    """What one process may do in one step: enabled where all of the guard holds, then all effects at once.

    Every location that no effect names stays as it is. Parameters that are slots or children are never slot 0 or
    nobody: that conjunct is implied. Raises ValueError where a variable would be written twice (so also where more than
    one location of an array would be), where a value is of the wrong sort, and where a conjunct is no condition.
    """

    name: str
    sentence: str
    by: Who
    of: tuple[Parameter, ...]
    guard: tuple[Conjunct, ...]
    effect: tuple[Update, ...]
    cites: tuple[str, ...] = ()
    nulls: Mapping[str, Constant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for position, update in enumerate(self.effect):
            if any(update.variable is other.variable for other in self.effect[:position]):
                raise ValueError(f"{self.name} writes {update.variable.name} twice")
            if update.value.sort() != update.variable.sort.z3:
                raise ValueError(f"{self.name} gives {update.variable.name} a value of sort {update.value.sort()}")
        for conjunct in self.guard:
            if not z3.is_bool(conjunct.term.z3):
                raise ValueError(f"{self.name} has a conjunct that is no condition: {conjunct.term}")

    @property
    def conditions(self) -> tuple[Term, ...]:
        """The whole guard, the implied conjuncts first."""
        implied = [
            parameter != self.nulls[parameter.sort.name]
            for parameter in self.of
            if parameter.sort.name in self.nulls
        ]
        return (*implied, *[conjunct.term for conjunct in self.guard])

    def after(self) -> dict[str, Any]:
        """Return for each variable written the z3 expression of its value after the step."""
        new: dict[str, Any] = {}
        for update in self.effect:
            variable = update.variable
            if variable.index is None:
                new[variable.name] = update.value
            elif update.index is None:
                new[variable.name] = z3.K(variable.index.z3, update.value)
            else:
                new[variable.name] = z3.Store(variable.z3, update.index.z3, update.value)
        return new


_QUANTIFIED: dict[int, tuple[bool, Any]] = {}
_SYMBOLS: dict[int, tuple[set[str], Any]] = {}
"""What is known of expressions, by their ids. The expression is kept, too: else its id might be used again."""


def _has_quantifier(expression: Any) -> bool:
    known = _QUANTIFIED.get(expression.get_id())
    if known is None:
        answer = z3.is_quantifier(expression) or any(_has_quantifier(child) for child in expression.children())
        known = _QUANTIFIED[expression.get_id()] = (answer, expression)
    return known[0]


def symbols(expression: Any) -> set[str]:
    """Return the names of all constants in a z3 expression, bound ones not."""
    known = _SYMBOLS.get(expression.get_id())
    if known is None:
        if z3.is_quantifier(expression):
            names = symbols(expression.body())
        elif z3.is_const(expression) and expression.decl().kind() == z3.Z3_OP_UNINTERPRETED:
            names = {expression.decl().name()}
        else:
            names = set().union(*[symbols(child) for child in expression.children()])
        known = _SYMBOLS[expression.get_id()] = (names, expression)
    return known[0]
