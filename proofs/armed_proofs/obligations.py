"""What has to be shown, as ground queries: each is a handful of facts and one negated goal, and must be unsatisfiable.

    the invariant holds at first             init => I
    each action preserves each conjunct      I and guard and effect => I'
    the invariant implies the property       I => P                           (ALWAYS)
                                             I and guard and effect => P      (STEP, for each action)

No query has a quantifier. Hypotheses that speak of all slots or children are instantiated at the terms that matter:
those that the action and the goal name, and their `slot_of` and `owner`. Instances are weaker than what they stand for,
so `unsat` is a proof for any number of slots and children; `sat` only says that these instances do not suffice. The
fragment (arrays, enumerations, free sorts, linear integers; no quantifier) is decidable.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import z3

from armed_model.properties import Kind, Property, actor
from armed_model.system import CONSTANTS, INITIALLY, NULLS, System, clean, launching, owner, slot_of, token, variables
from armed_model.terms import Action, Parameter, Term
from armed_proofs.invariants import INVARIANTS

LIMIT_MS = 10_000
"""How long one query may take. They take milliseconds; one that does not is a failure, never a pass."""


@dataclass(frozen=True, eq=False)
class Obligation:
    """One query. `facts` and the negated goal together must be unsatisfiable."""

    name: str
    facts: tuple[Any, ...]
    goal: Any

    @property
    def is_ground(self) -> bool:
        """Whether the query is free of quantifiers."""
        return _is_ground(*self.facts, self.goal)


@dataclass(frozen=True)
class Answer:
    """What z3 said to one obligation."""

    name: str
    answer: str
    seconds: float

    @property
    def proved(self) -> bool:
        """Whether the query was unsatisfiable; `sat`, `unknown` and a time-out are all no."""
        return self.answer == "proved"


def discharge(obligations: Iterable[Obligation]) -> Iterator[Answer]:
    """Ask z3 each query, and yield its answers in the same order. Queries with the same facts share a solver.

    Facts that contradict each other would prove anything: they are answered "vacuous", which is not proved. Nor is a
    query with a quantifier, whatever z3 would say of it.
    """
    facts: tuple[Any, ...] | None = None
    solver, possible, ground = z3.SimpleSolver(), z3.sat, True
    for obligation in obligations:
        began = time.perf_counter()
        if obligation.facts is not facts:
            facts = obligation.facts
            solver = z3.SimpleSolver()
            solver.set("timeout", LIMIT_MS)
            solver.add(*facts)
            possible, ground = solver.check(), _is_ground(*facts)
        solver.push()
        solver.add(z3.Not(obligation.goal))
        result = solver.check()
        if not (ground and _is_ground(obligation.goal)):
            answer = "refused: the query has a quantifier"
        elif possible == z3.unsat:
            answer = "vacuous: no state satisfies the facts"
        elif z3.unknown in (possible, result):
            answer = f"unknown: {solver.reason_unknown()}"
        else:
            answer = "proved" if result == z3.unsat else "sat"
        solver.pop()
        yield Answer(obligation.name, answer, time.perf_counter() - began)


def invariant_obligations(system: System) -> Iterator[Obligation]:
    """Yield what makes the invariant inductive: it holds at first, and every action preserves every conjunct."""
    for name, (over, term) in INVARIANTS.items():
        yield Obligation(f"init: {name}", _distinct(), _initially(term.z3, over))
    over = tuple({parameter.name: parameter for each, _ in INVARIANTS.values() for parameter in each}.values())
    for action in system.actions:
        after = _after(action)
        facts = (*_guard_facts(action, over), *_invariant_facts(action, over))
        for name, (_, term) in INVARIANTS.items():
            goal = z3.substitute(term.z3, after)
            yield Obligation(f"{action.name} preserves {name}", facts, z3.simplify(goal))


def property_obligations(system: System, claim: Property, *, with_invariant: bool = True) -> Iterator[Obligation]:
    """Yield what shows a property, given the invariant (or, to see whether it restates the actions, without)."""
    real = tuple((parameter != NULLS[parameter.sort.name]).z3 for parameter in claim.over)
    if claim.kind is Kind.ALWAYS:
        facts = (*_distinct(), *real, *(_invariant_facts(None, claim.over) if with_invariant else ()))
        yield Obligation(f"invariant implies {claim.name}", facts, claim.claim.z3)
        return
    primed = [variable.primed for variable in variables]
    for action in system.actions:
        after = dict(zip([v.name for v in variables], [new for _, new in _after(action)], strict=True))
        goal = z3.substitute(
            claim.claim.z3,
            *[(prime, after[variable.name]) for prime, variable in zip(primed, variables, strict=True)],
            (actor.z3, (actor == action.by).z3.arg(1)),
        )
        facts = (
            *_guard_facts(action, claim.over),
            *real,
            *(_invariant_facts(action, claim.over) if with_invariant else ()),
        )
        yield Obligation(f"{action.name} respects {claim.name}", facts, z3.simplify(goal))


# --- Ground instances ------------------------------------------------------------------------------------------------


def _after(action: Action) -> list[tuple[Any, Any]]:
    """Pair each state variable with its value after the action: itself, where no effect names it."""
    new = action.after()
    return [(variable.z3, new.get(variable.name, variable.z3)) for variable in variables]


def _initially(expression: Any, over: tuple[Parameter, ...]) -> Any:
    """Read an expression in the initial state."""
    first = {}
    for variable in variables:
        first[variable.name] = (
            variable.blank if variable.index is None else z3.K(variable.index.z3, variable.blank)
        )
    for update in INITIALLY:
        assert update.index is not None
        first[update.variable.name] = z3.Store(first[update.variable.name], update.index.z3, update.value)
    return z3.simplify(z3.substitute(expression, [(variable.z3, first[variable.name]) for variable in variables]))


def _terms(action: Action | None, over: tuple[Parameter, ...]) -> dict[str, list[Any]]:
    """Return the terms of each free sort at which hypotheses are instantiated."""
    named = [*(action.of if action else ()), *over]
    slots = [launching.z3, NULLS["Slot"].z3, *[p.z3 for p in named if p.sort.name == "Slot"]]
    children = [NULLS["Child"].z3, *[p.z3 for p in named if p.sort.name == "Child"]]
    slots, children = (
        [*slots, *[slot_of[Term(child)].z3 for child in children]],
        [*children, *[owner[Term(slot)].z3 for slot in slots]],
    )
    words = [constant.z3 for constant in CONSTANTS if constant.sort.name == "Word"]
    words += [p.z3 for p in named if p.sort.name == "Word"]
    words += [clean[Term(slot)].z3 for slot in slots] + [token[Term(child)].z3 for child in children]
    return {"Slot": slots, "Child": children, "Word": words}


def _guard_facts(action: Action, over: tuple[Parameter, ...]) -> tuple[Any, ...]:
    """Return the action's guard, its for-all conjuncts instantiated."""
    terms = _terms(action, over)
    facts = list(_distinct())
    for condition in action.conditions:
        expression = condition.z3
        if z3.is_quantifier(expression) and expression.is_forall():
            facts += [z3.substitute_vars(expression.body(), term) for term in terms[expression.var_sort(0).name()]]
        else:
            facts.append(expression)
    return tuple(facts)


def _invariant_facts(action: Action | None, over: tuple[Parameter, ...]) -> tuple[Any, ...]:
    """Return the instances of every conjunct of the invariant."""
    terms = _terms(action, over)
    facts = []
    for parameters, conjunct in INVARIANTS.values():
        instances = [conjunct.z3]
        for parameter in parameters:
            instances = [
                z3.substitute(instance, (parameter.z3, term))
                for instance in instances
                for term in terms[parameter.sort.name]
            ]
        facts += instances
    return tuple(facts)


def _distinct() -> tuple[Any, ...]:
    words = [constant.z3 for constant in CONSTANTS if constant.sort.name == "Word"]
    return (z3.Distinct(*words),)


def _is_ground(*expressions: Any) -> bool:
    goal = z3.Goal()
    goal.add(*expressions)
    return not _HAS_QUANTIFIERS(goal)


_HAS_QUANTIFIERS = z3.Probe("has-quantifiers")
