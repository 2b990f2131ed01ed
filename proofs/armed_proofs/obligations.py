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

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import z3

from armed_model.properties import Claim, Property, actor
from armed_model.system import (
    CONSTANTS,
    INITIALLY,
    NULLS,
    System,
    aimed,
    clean,
    copy_of,
    copy_slot,
    launching,
    owner,
    slot_of,
    token,
    variables,
)
from armed_model.terms import Action, Parameter, Term, substitute, symbols
from armed_proofs.invariants import Candidate, invariant

IMPOSSIBLE = "impossible: the action cannot happen"
"""The answer where the invariant contradicts the action's guard. That it can hold itself is shown at first."""

LIMIT_MS = 10_000
"""How long one query may take. They take milliseconds; one that does not is a failure, never a pass."""

# z3's own handler of Ctrl-C would make an `unknown` of it, of which nobody else hears; Python's runs after the answer.
z3.set_param("ctrl_c", False)


@dataclass(frozen=True, eq=False)
class Obligation:
    """One query. `facts` and the negated goal together must be unsatisfiable.

    `of_an_action`: the facts say that an action happens. That may be impossible, given the invariant.
    """

    name: str
    facts: tuple[Any, ...]
    goal: Any
    of_an_action: bool = False

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
        return self.answer in ("proved", IMPOSSIBLE)


def discharge(obligations: Iterable[Obligation]) -> Iterator[Answer]:
    """Ask z3 each query, and yield its answers in the same order.

    Queries with the same facts share a solver, and are first asked together: whether one of their goals can fail. Only
    if so, each is asked alone. Facts that contradict each other would prove anything: they are answered "vacuous",
    which is not proved, unless they say that an action happens: then it cannot. Nor is a query with a quantifier
    proved, whatever z3 would say of it.
    """
    for _, group in itertools.groupby(obligations, key=lambda each: id(each.facts)):
        yield from _discharge_together(list(group))


def _discharge_together(group: list[Obligation]) -> Iterator[Answer]:
    began = time.perf_counter()
    solver = z3.SimpleSolver()
    solver.set("timeout", LIMIT_MS)
    facts = group[0].facts
    solver.add(*facts)
    possible = solver.check()
    ground = _is_ground(*facts, *[each.goal for each in group])
    together = _ask(solver, z3.And(*[each.goal for each in group])) if ground and possible == z3.sat else None
    if together == z3.unsat:
        seconds = (time.perf_counter() - began) / len(group)
        yield from (Answer(each.name, "proved", seconds) for each in group)
        return
    for each in group:
        began = time.perf_counter()
        if not each.is_ground:
            answer = "refused: the query has a quantifier"
        elif possible == z3.unsat:
            answer = IMPOSSIBLE if each.of_an_action else "vacuous: no state satisfies the facts"
        else:
            result = _ask(solver, each.goal) if possible == z3.sat else possible
            if result == z3.unknown:
                answer = f"unknown: {solver.reason_unknown()}"
            else:
                answer = "proved" if result == z3.unsat else "sat"
        yield Answer(each.name, answer, time.perf_counter() - began)


def _ask(solver: Any, goal: Any) -> Any:
    solver.push()
    solver.add(z3.Not(goal))
    result = solver.check()
    solver.pop()
    return result


def invariant_obligations(system: System, conjuncts: Mapping[str, Candidate] | None = None) -> Iterator[Obligation]:
    """Yield what makes the invariant inductive: it holds at first, and every action preserves every conjunct.

    Conjuncts that speak of nothing that an action writes need no query: they stay as they are.
    """
    conjuncts = invariant(system) if conjuncts is None else conjuncts
    first = _distinct()
    for name, (over, term) in conjuncts.items():
        yield Obligation(f"init: {name}", first, _initially(term.z3, over))
    speaks_of = {name: symbols(term.z3) for name, (_, term) in conjuncts.items()}
    over = tuple({parameter.name: parameter for each, _ in conjuncts.values() for parameter in each}.values())
    for action in system.actions:
        written = {update.variable.name for update in action.effect}
        touched = [name for name in conjuncts if speaks_of[name] & written]
        if not touched:
            continue
        after = [(variables[name].z3, new) for name, new in action.after().items()]
        facts = (*_guard_facts(system, action, over), *_invariant_facts(system, conjuncts, action, over))
        for name in touched:
            goal = z3.substitute(conjuncts[name][1].z3, after)
            yield Obligation(f"{action.name} preserves {name}", facts, z3.simplify(goal), of_an_action=True)


def property_obligations(
    system: System,
    claims: Iterable[Property],
    *,
    with_invariant: bool = True,
    conjuncts: Mapping[str, Candidate] | None = None,
    but_for: Set[str] = frozenset(),
) -> Iterator[tuple[Property, Obligation]]:
    """Yield what shows each property, given the invariant (or, to see whether it restates the actions, without).

    `but_for`: the names of obligations that are left out, because they were shown already.
    """
    if conjuncts is None:
        conjuncts = invariant(system) if with_invariant else {}
    by_over: dict[tuple[str, ...], list[Property]] = {}
    for claim in claims:
        by_over.setdefault((claim.claims.value, *[parameter.name for parameter in claim.over]), []).append(claim)
    for group in by_over.values():
        over = group[0].over
        real = _real(over)
        if group[0].claims is Claim.ALWAYS:
            facts = (*_distinct(), *real, *_invariant_facts(system, conjuncts, None, over))
            for claim in group:
                yield claim, Obligation(f"invariant implies {claim.name}", facts, claim.claim.z3)
            continue
        for action in system.actions:
            left = [claim for claim in group if f"{action.name} respects {claim.name}" not in but_for]
            if not left:
                continue
            by = Term((actor == action.by).z3.arg(1))
            facts = (
                *_guard_facts(system, action, over),
                *real,
                *_invariant_facts(system, conjuncts, action, over),
            )
            for claim in left:
                witnessed = _with_witnesses(claim.claim.z3, _terms(system, action, over))
                goal = goal_after(action, substitute(Term(witnessed), [(actor, by)]))
                yield claim, Obligation(f"{action.name} respects {claim.name}", facts, goal, of_an_action=True)


def impossible_actions(system: System) -> set[str]:
    """Return the names of the actions that the invariant shows never to happen."""
    conjuncts = invariant(system)
    steps = (
        Obligation(action.name, facts_of_a_step(system, conjuncts, action, ()), z3.BoolVal(False), of_an_action=True)
        for action in system.actions
    )
    return {answer.name for answer in discharge(steps) if answer.answer == IMPOSSIBLE}


def facts_of_a_state(
    system: System, conjuncts: Mapping[str, Candidate], over: tuple[Parameter, ...]
) -> tuple[Any, ...]:
    """Return what is known in a state that satisfies the invariant, as far as it speaks of `over`."""
    return (*_distinct(), *_real(over), *_invariant_facts(system, conjuncts, None, over))


def facts_of_a_step(
    system: System, conjuncts: Mapping[str, Candidate], action: Action, over: tuple[Parameter, ...]
) -> tuple[Any, ...]:
    """Return what is known where an action is taken in a state that satisfies the invariant."""
    guard = _guard_facts(system, action, over)
    return (*guard, *_real(over), *_invariant_facts(system, conjuncts, action, over))


def goal_after(action: Action, claim: Term) -> Any:
    """Return a claim about a step, its primed variables replaced by their values after the action."""
    speaks_of, after = symbols(claim.z3), action.after()
    pairs = [
        (variable.primed, after.get(variable.name, variable.z3))
        for variable in variables
        if variable.name + "'" in speaks_of
    ]
    return z3.simplify(z3.substitute(claim.z3, *pairs))


def _real(over: tuple[Parameter, ...]) -> tuple[Any, ...]:
    """Return that what a claim speaks of is not slot 0, nor nobody."""
    return tuple((parameter != NULLS[parameter.sort.name]).z3 for parameter in over if parameter.sort.name in NULLS)


# --- Ground instances ------------------------------------------------------------------------------------------------


def _initially(expression: Any, over: tuple[Parameter, ...]) -> Any:
    """Read an expression in the initial state."""
    first = {}
    for variable in variables:
        first[variable.name] = variable.blank if variable.index is None else z3.K(variable.index.z3, variable.blank)
    for update in INITIALLY:
        assert update.index is not None
        first[update.variable.name] = z3.Store(first[update.variable.name], update.index.z3, update.value)
    return z3.simplify(z3.substitute(expression, [(variable.z3, first[variable.name]) for variable in variables]))


def _terms(system: System, action: Action | None, over: tuple[Parameter, ...]) -> dict[str, list[Any]]:
    """Return the terms of each free sort at which hypotheses are instantiated."""
    key = (system.environment, action, *[parameter.name for parameter in over])
    if key not in _TERMS:
        _TERMS[key] = _make_terms(system, action, over)
    return _TERMS[key]


_TERMS: dict[tuple[Any, ...], dict[str, list[Any]]] = {}


def _make_terms(system: System, action: Action | None, over: tuple[Parameter, ...]) -> dict[str, list[Any]]:
    named = [*(action.of if action else ()), *over]
    slots = [launching.z3, NULLS["Slot"].z3, *[p.z3 for p in named if p.sort.name == "Slot"]]
    children = [NULLS["Child"].z3, *[p.z3 for p in named if p.sort.name == "Child"]]
    match system.environment:
        case "+grandchild":
            slots.append(copy_slot.z3)
            children.append(copy_of.z3)
        case "+cancel":
            children.append(aimed.z3)
    slots, children = (
        [*slots, *[slot_of[Term(child)].z3 for child in children]],
        [*children, *[owner[Term(slot)].z3 for slot in slots]],
    )
    words = [constant.z3 for constant in CONSTANTS if constant.sort.name == "Word"]
    words += [p.z3 for p in named if p.sort.name == "Word"]
    words += [clean[Term(slot)].z3 for slot in slots] + [token[Term(child)].z3 for child in children]
    return {"Slot": slots, "Child": children, "Word": words}


def _guard_facts(system: System, action: Action, over: tuple[Parameter, ...]) -> tuple[Any, ...]:
    """Return the action's guard, its for-all conjuncts instantiated."""
    terms = _terms(system, action, over)
    facts = list(_distinct())
    for condition in action.conditions:
        facts += _instances_of_for_all(condition.z3, terms)
    return tuple(facts)


def _instances_of_for_all(expression: Any, terms: dict[str, list[Any]]) -> list[Any]:
    """Take conjunctions apart and instantiate what is said of all; an `exists`, or an `or` with a for-all, stays."""
    if z3.is_and(expression):
        return [fact for child in expression.children() for fact in _instances_of_for_all(child, terms)]
    if z3.is_quantifier(expression) and expression.is_forall():
        return [z3.substitute_vars(expression.body(), term) for term in terms[expression.var_sort(0).name()]]
    if z3.is_or(expression) and any(not _is_ground(child) for child in expression.children()):
        ways = [_instances_of_for_all(child, terms) for child in expression.children()]
        return [z3.Or(*[z3.And(*way) for way in ways])]
    return [expression]


def _with_witnesses(goal: Any, terms: dict[str, list[Any]]) -> Any:
    """Name who might be the one that a goal says exists: a goal that is harder to reach, and has no quantifier."""
    if z3.is_quantifier(goal) and goal.is_exists():
        return z3.Or(*[z3.substitute_vars(goal.body(), term) for term in terms[goal.var_sort(0).name()]])
    if z3.is_implies(goal):
        return z3.Implies(goal.arg(0), _with_witnesses(goal.arg(1), terms))
    return goal


_INSTANCES: dict[tuple[Any, ...], tuple[Any, Any]] = {}


def _invariant_facts(
    system: System, conjuncts: Mapping[str, Candidate], action: Action | None, over: tuple[Parameter, ...]
) -> tuple[Any, ...]:
    """Return the instances of every conjunct of the invariant."""
    terms = _terms(system, action, over)
    facts = []
    for parameters, conjunct in conjuncts.values():
        for chosen in itertools.product(*[terms[parameter.sort.name] for parameter in parameters]):
            known = (conjunct.z3.get_id(), *[term.get_id() for term in chosen])
            if known not in _INSTANCES:  # the expressions are kept with the instance: an id is reused once they are not
                pairs = [(parameter.z3, term) for parameter, term in zip(parameters, chosen, strict=True)]
                _INSTANCES[known] = (z3.substitute(conjunct.z3, *pairs), (conjunct, chosen))
            facts.append(_INSTANCES[known][0])
    return tuple(facts)


def _distinct() -> tuple[Any, ...]:
    words = [constant.z3 for constant in CONSTANTS if constant.sort.name == "Word"]
    return (z3.Distinct(*words),)


def _is_ground(*expressions: Any) -> bool:
    return not any(Term(expression).has_quantifier for expression in expressions)
