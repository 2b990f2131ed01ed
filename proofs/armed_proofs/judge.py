"""Who notices a mutant? Cells of the matrix, runs to what must be seen, or nobody.

A mutant is *killed* when a property that was proved is refuted by a run; when the length of a refuted property's
shortest run changes; when a state of `sometimes`, a property's premise, or a step of some action can no longer be
reached; or when what had to come in the end need not come. It is *equivalent* when ground queries show that, under the
proved invariant of every system that it changes, old and new steps relate the same states, up to steps that change
nothing. It is *open* when some proof no longer goes through and no run is found, and else it has *survived*.
Numbers of states, a transcription, hashes: none of these kills.
"""

from __future__ import annotations

import enum
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import z3

from armed_model.explore import Exploration, Run, StillSearching, explore, premises, violations
from armed_model.interpret import Instance, Size, Sought
from armed_model.lifecycle import Who
from armed_model.profiles import PROFILES, Profile
from armed_model.properties import Claim, LeadsTo, Property, leads_to, properties, sometimes, sometimes_a_step
from armed_model.properties import c as any_child
from armed_model.properties import s as any_slot
from armed_model.system import CHILD, KILLED, NULLS, RESERVED, SLOT, System, status, used, variables
from armed_model.terms import Action, Parameter, Term, Update, both, either, one_of, substitute
from armed_proofs.invariants import Candidate, candidates, invariant
from armed_proofs.liveness import lasso
from armed_proofs.liveness import obligations as liveness_obligations
from armed_proofs.mutations import Mutant, What, definition
from armed_proofs.obligations import discharge, invariant_obligations, property_obligations
from armed_proofs.select import select

SIZES = (Size(1, 1), Size(2, 1), Size(1, 2))
"""The instances that are searched, in this order."""

SEARCH_LIMIT = 60_000
"""How many states one search may meet. What was found until then is found."""

Place = tuple[str, str]
"""A profile's name, and an environment."""


class Fate(enum.Enum):
    """What becomes of a mutant."""

    REFUTED = "a proved property is refuted"
    LENGTH = "the shortest run of a refuted property changes"
    LASSO = "what had to come need not come"
    LOST = "something that must be reached is not"
    ABSENT = "only the dropped action itself is missed"
    REFUSED = "the definition refuses it"
    ELSEWHERE = "refuted, or another length, in an environment that the property does not name"
    EQUIVALENT = "equivalent"
    OPEN = "open: some proof does not go through, and no run is found"
    SURVIVED = "survived"

    @property
    def killed(self) -> bool:
        """Whether somebody has noticed."""
        return self not in (Fate.EQUIVALENT, Fate.ABSENT, Fate.OPEN, Fate.SURVIVED)


@dataclass(frozen=True)
class Judgement:
    """What became of a mutant: by what (properties, or what is not reached), where, and the run that shows it."""

    mutant: str
    what: What
    fate: Fate
    by: tuple[str, ...] = ()
    where: str = ""
    run: tuple[str, ...] = ()
    why: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {
            "mutant": self.mutant,
            "what": self.what.value,
            "fate": self.fate.name.lower(),
            "by": list(self.by),
            "where": self.where,
            "run": list(self.run),
            "why": self.why,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Baseline:
    """What is known of an unmutated system: plain data, so that it is found once and handed on to other processes.

    `lengths`: of each property that is not proved the shortest run that refutes it within SIZES. `reached`: what was
    seen in the instances `complete`, of which every state was visited. `comes`: the liveness properties proved.
    """

    proved: frozenset[str]
    lengths: Mapping[str, int]
    reached: frozenset[str]
    complete: frozenset[Size]
    comes: frozenset[str]


@dataclass(frozen=True)
class Acting(System):
    """A system whose actions are given."""

    given: tuple[Action, ...] = ()

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        """Those given."""
        return self.given


# --- The original ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Original:
    """An unmutated system, and all that is built from it once."""

    system: System

    @cached_property
    def claims(self) -> dict[str, Property]:
        """Every property that is decided in this profile, whatever environment it names."""
        return {each.name: each for each in properties(self.system.profile) if not each.out_of_scope}

    @cached_property
    def runs(self) -> tuple[LeadsTo, ...]:
        """The liveness properties of just this environment."""
        every = leads_to(self.system.profile)
        return tuple(each for each in every if each.environment == self.system.environment and not each.out_of_scope)

    @cached_property
    def invariant(self) -> dict[str, Candidate]:
        """The proved invariant."""
        return invariant(self.system)

    @cached_property
    def instances(self) -> dict[Size, Instance]:
        """The instances that are searched."""
        return {size: Instance(self.system, size) for size in SIZES}

    @cached_property
    def violations(self) -> dict[str, Sought]:
        """What refutes each property."""
        return violations(self.claims.values())

    @cached_property
    def to_reach(self) -> dict[str, Sought]:
        """What must be seen somewhere."""
        own = [each for each in self.claims.values() if each.environment == self.system.environment]
        return {
            **{f"state: {name}": Sought((any_child, any_slot), term, on_states=True)
               for name, term in sometimes(self.system.profile).items()},
            **{f"step: {name}": Sought((any_child,), term, on_states=False)
               for environment in dict.fromkeys(("calm", self.system.environment))
               for name, term in sometimes_a_step(self.system.profile, environment).items()},
            **{f"premise: {name}": each for name, each in premises(own).items()},
            **{f"action: {action.name}": _enabled(action) for action in self.system.actions},
        }  # fmt: skip


@cache
def original(place: Place) -> Original:
    """Return the unmutated system of a place."""
    return Original(System(PROFILES[place[0]], place[1]))


def _enabled(action: Action) -> Sought:
    return Sought(action.of, both(*action.conditions), on_states=True)


def baseline(place: Place) -> Baseline:
    """Prove, refute and reach everything in an unmutated system."""
    this = original(place)
    proved = {*this.claims} - _unproved(this.system, this.claims, this.invariant)
    refuting = {f"refuted: {name}": each for name, each in this.violations.items() if name not in proved}
    look_for = {**refuting, **this.to_reach}
    lengths: dict[str, int] = {}
    reached: set[str] = set()
    complete: set[Size] = set()
    for size, instance in this.instances.items():
        seen = _search(instance, look_for)
        for name, each in seen.found.items():
            if name.startswith("refuted: "):
                property_name = name.removeprefix("refuted: ")
                lengths[property_name] = min(len(each.run), lengths.get(property_name, len(each.run)))
        if seen.complete:
            complete.add(size)
            reached |= {name for name in seen.found if name in this.to_reach}
    comes = {
        claim.name
        for claim in this.runs
        if all(answer.proved for answer in discharge(liveness_obligations(this.system, claim)))
    }
    return Baseline(frozenset(proved), lengths, frozenset(reached), frozenset(complete), frozenset(comes))


def _search(instance: Instance, look_for: Mapping[str, Sought]) -> Exploration:
    try:
        return explore(instance, look_for, stop_when_all_found=True, limit=SEARCH_LIMIT)
    except StillSearching as still:
        return still.so_far


def _unproved(system: System, claims: Mapping[str, Property], conjuncts: Mapping[str, Candidate]) -> set[str]:
    """Return the names of the properties that are not proved, all of them where the invariant is not inductive.

    Of the actions that `system` has: where it has one alone, the others are granted.
    """
    if not all(answer.proved for answer in discharge(invariant_obligations(system, conjuncts))):
        return {*claims}
    pairs = list(property_obligations(system, claims.values(), conjuncts=conjuncts))
    answers = discharge([obligation for _, obligation in pairs])
    return {claim.name for (claim, _), answer in zip(pairs, answers, strict=True) if not answer.proved}


# --- Equivalence -----------------------------------------------------------------------------------------------------


def why_equivalent(place: Place, mutant: Mutant) -> str:
    """Return why old and new steps relate the same states in this system; empty where that is not shown.

    Every new step must be an old one, or change nothing, or be a step of another action of the same process; and the
    other way round. Shown by the queries of a property that speaks of whole variables.
    """
    old, new = mutant.original, mutant.instead
    assert old is not None
    assert new is not None
    this = original(place)
    nothing = _goes_to(())
    redundant = _missing(mutant)
    same = [redundant[0]] if redundant else [_goes_to(old.effect)]
    over = redundant[1] if redundant else ()
    if redundant and _is_shown(this, new, redundant[0], over):
        return "the conjunct follows from the others"
    if mutant.what is What.EFFECT and _is_shown(this, new, _goes_to_everywhere(old.effect), (*_ANYBODY.values(),)):
        return "the effect changes nothing"
    pairs = [(new, [*same, nothing], over), (old, [_goes_to(new.effect), nothing] if new.effect else [nothing], ())]
    if mutant.what is What.ACTION:
        pairs = [(old, [nothing], ())]
    elif mutant.what is What.CONJUNCT:
        pairs = pairs[:1]
    if all(_is_shown(this, action, either(*ways), over) for action, ways, over in pairs):
        return "its steps change nothing" if mutant.what is not What.EFFECT else "the steps that differ change nothing"
    others = [way for other in this.system.actions if other.name != old.name for way in _ways(other, old)]
    if others and all(_is_shown(this, action, either(*ways, *others), over) for action, ways, over in pairs):
        return "the steps that differ are those of another action of the same process"
    return ""


def _missing(mutant: Mutant) -> tuple[Term, tuple[Parameter, ...]] | None:
    """Return the dropped conjunct, and over whom it is to be shown."""
    if mutant.dropped is None:
        return None
    term = mutant.dropped.term
    if z3.is_quantifier(term.z3) and term.z3.is_forall():
        sort = term.z3.var_sort(0).name()
        anybody, null = _ANYBODY[sort], NULLS[sort]
        return (
            both(*[Term(z3.substitute_vars(term.z3.body(), each.z3)) for each in (anybody, null)]),
            (anybody,),
        )
    return term, ()


_ANYBODY = {sort.name: Parameter(f"any_{sort.name.lower()}", sort) for sort in (CHILD, SLOT)}


def _goes_to(effect: tuple[Update, ...]) -> Term:
    """After the step everything is as these effects make it, and all else as it was."""
    new = Action("any", "", Who.SUPERVISOR, (), (), effect).after()
    return both(*[Term(each.primed == new.get(each.name, each.z3)) for each in variables])


def _goes_to_everywhere(effect: tuple[Update, ...]) -> Term:
    """The same, said of any one place of each array: a goal that needs no reasoning about whole arrays."""
    new = Action("any", "", Who.SUPERVISOR, (), (), effect).after()
    parts = []
    for each in variables:
        if each.index is None or each.index.name not in _ANYBODY:
            parts.append(Term(each.primed == new.get(each.name, each.z3)))
            continue
        for at in (_ANYBODY[each.index.name], NULLS[each.index.name]):
            parts.append(Term(z3.Select(each.primed, at.z3) == z3.Select(new.get(each.name, each.z3), at.z3)))
    return both(*parts)


def _ways(other: Action, than: Action) -> list[Term]:
    """The step is one of another action of the same process, of the same child and slot, with whatever status."""
    if other.by is not than.by or any(term.has_quantifier for term in other.conditions):
        return []
    mine: dict[str, list[Term]] = {}
    for parameter in than.of:
        mine.setdefault(parameter.sort.name, []).append(parameter)
    dying = [status[child] for child in mine.get("Child", [])]
    mine.setdefault("Int", [*dying, *[Term(z3.IntVal(value)) for value in (0, 1, KILLED)]])
    ways = []
    for chosen in itertools.product(*[mine.get(parameter.sort.name, []) for parameter in other.of]):
        bound = list(zip(other.of, chosen, strict=True))
        ways.append(both(*[substitute(term, bound) for term in (*other.conditions, _goes_to(other.effect))]))
    return ways


def _is_shown(this: Original, action: Action, goal: Term, over: tuple[Parameter, ...]) -> bool:
    claim = Property("the steps are the same", "", Claim.STEP, over, both(), goal)
    pairs = list(property_obligations(_alone(this, action), [claim], conjuncts=this.invariant))
    return all(answer.proved for answer in discharge([each for _, each in pairs]))


def _alone(this: Original, action: Action) -> Acting:
    return Acting(this.system.profile, this.system.environment, given=(action,))


# --- Judging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutated:
    """A mutant in one place: its system, what is claimed there, and which of the proved properties are in doubt."""

    place: Place
    system: System
    claims: dict[str, Property]
    doubtful: frozenset[str]
    weaker: bool = False
    """Whether it can do everything that the original can, so that nothing can be lost."""


def judge(mutant: Mutant, baselines: Mapping[Place, Baseline]) -> Judgement:
    """Say what becomes of a mutant. `baselines` has every place of ORDER."""
    began = time.perf_counter()
    fate = _judge(mutant, baselines)
    return replace(fate, seconds=time.perf_counter() - began)


def _judge(mutant: Mutant, baselines: Mapping[Place, Baseline]) -> Judgement:
    reasons: list[str] = []
    weak: list[Judgement] = []
    profile = ""
    searched: set[str] = set()
    for place in mutant.places:
        if place[0] != profile:
            profile = place[0]
        if mutant.original is not None and (why := why_equivalent(place, mutant)):
            reasons.append(why)
            continue
        if profile not in searched and len(searched) == 2:
            continue  # two profiles have been searched in vain, or for the weaker reasons
        searched.add(profile)
        if len(searched) == 2 and any(each.fate is Fate.ELSEWHERE or each.fate is Fate.ABSENT for each in weak):
            break
        try:
            here = _mutate(mutant, place, baselines[place])
        except (KeyError, ValueError, TypeError) as refused:
            return Judgement(mutant.name, mutant.what, Fate.REFUSED, where=_name(place), why=repr(refused))
        if here is None:
            reasons.append("the system is the same")
            continue
        found = _search_all(mutant, here, baselines[place])
        if found.fate not in (Fate.ELSEWHERE, Fate.ABSENT, Fate.OPEN, Fate.SURVIVED):
            return found
        weak.append(found)
    for fate in (Fate.ELSEWHERE, Fate.ABSENT, Fate.OPEN, Fate.SURVIVED):
        for each in weak:
            if each.fate is fate:
                return each
    return Judgement(mutant.name, mutant.what, Fate.EQUIVALENT, why="; ".join(dict.fromkeys(reasons)))


def _name(place: Place) -> str:
    return f"{place[0]}, {place[1]}"


def _mutate(mutant: Mutant, place: Place, before: Baseline) -> Mutated | None:
    """Return the mutated system in one place, or None where it is the same there."""
    this = original(place)
    system = this.system
    if mutant.line is not None:
        return _with_line(this, mutant.line, place, before)
    if mutant.rows:
        claims = {each.name: each for each in properties(system.profile, rows=mutant.rows) if not each.out_of_scope}
        changed = {name for name, each in claims.items() if not each.claim.z3.eq(this.claims[name].claim.z3)}
        claims = {name: claims[name] if name in changed else each for name, each in this.claims.items()}
        return Mutated(place, system, claims, before.proved & changed)
    assert mutant.original is not None
    assert mutant.instead is not None
    instead, what = _as_searched(mutant.original, mutant.instead), definition(mutant.original)
    at = next(i for i, action in enumerate(system.actions) if definition(action) == what)
    acting = (*system.actions[:at], instead, *system.actions[at + 1 :])
    claims = dict(this.claims)
    if any(update.variable.name == "flag" for update in mutant.original.effect):
        calm = System(system.profile).actions
        speaks = tuple(mutant.instead if definition(each) == what else each for each in calm)
        anew = {each.name: each for each in properties(system.profile, acting=speaks)}
        for name, each in this.claims.items():
            if not each.claim.z3.eq(anew[name].claim.z3):
                claims[name] = anew[name]
    own = {name: claims[name] for name in before.proved}
    mutated = Acting(system.profile, system.environment, given=acting)
    doubtful = set() if mutant.what is What.ACTION else _unproved(_alone(this, mutant.instead), own, this.invariant)
    doubtful |= {name for name in own if claims[name] is not this.claims[name]}
    return Mutated(place, mutated, claims, frozenset(doubtful), weaker=mutant.what is What.CONJUNCT)


def _same(this: Original, name: str) -> Action | None:
    return next((action for action in this.system.actions if action.name == name), None)


def _as_searched(old: Action, new: Action) -> Action:
    """Where words are not marked as used any more, only the reserved ones are (an instance knows it no other way)."""
    writes = [any(update.variable is used for update in action.effect) for action in (old, new)]
    if writes != [True, False]:
        return new
    word = next(parameter for parameter in new.of if parameter.sort.name == "Word")
    pair = (used[word].z3, one_of(word, *RESERVED).z3)
    guard = tuple(replace(each, term=Term(z3.substitute(each.term.z3, pair))) for each in new.guard)
    return replace(new, guard=guard)


def _with_line(this: Original, line: Profile, place: Place, before: Baseline) -> Mutated | None:
    """Change the system, and hold it to what is claimed of the profile as it stands."""
    system = System(line, place[1])
    if [*map(definition, system.actions)] == [*map(definition, this.system.actions)]:
        return None
    return Mutated(place, system, dict(this.claims), before.proved)


def _search_all(mutant: Mutant, here: Mutated, before: Baseline) -> Judgement:
    """Search the instances for whatever kills, the smallest first, and then ask whether the proofs still go through."""
    this = original(here.place)
    refuting = violations([here.claims[name] for name in (*here.doubtful, *before.lengths) if name in here.claims])
    # What is not changed is sought as it was: its source is written already.
    refuting = {name: this.violations[name] if here.claims[name] is this.claims.get(name) else each
                for name, each in refuting.items()}  # fmt: skip
    to_reach: dict[str, Sought] = {}
    if not here.weaker and mutant.what is not What.ROW:
        now = {action.name: action for action in here.system.actions}
        own = premises([each for each in here.claims.values() if each.environment == here.place[1]])
        for name in before.reached:
            if mutant.what is What.ACTION and mutant.instead is not None and name == f"action: {mutant.instead.name}":
                continue
            kind, _, rest = name.partition(": ")
            if kind == "action" and rest not in now:
                continue  # a changed line of a profile does without it: who else notices?
            if kind == "action" and now[rest] is not _same(this, rest):
                to_reach[name] = _enabled(now[rest])
            elif kind == "premise" and here.claims.get(rest) is not this.claims[rest]:
                to_reach[name] = own.get(rest, Sought((), either(), True))
            else:
                to_reach[name] = this.to_reach[name]
    searches: dict[Size, Exploration] = {}
    look_for = {**refuting, **to_reach}
    if look_for:
        for size in SIZES:
            instance = _instance(mutant, here, size)
            seen = searches[size] = _search(instance, look_for)
            for fate, names in _shown(here, before, seen, own=True):
                return _judgement(mutant, here, fate, names, seen, size)
            look_for = {name: each for name, each in look_for.items() if name not in seen.found or name in refuting}
            if not look_for:
                break
        if lost := _lost(before, to_reach, searches):
            return _judgement(mutant, here, Fate.LOST, sorted(lost))
        if longer := _longer(here, before, refuting, searches):
            own_ones = [name for name in longer if here.claims[name].environment == here.place[1]]
            if own_ones:
                return _judgement(mutant, here, Fate.LENGTH, own_ones)
    if mutant.what is not What.ROW:
        for size in (SIZES[0], SIZES[2]):
            instance = _instance(mutant, here, size)
            for claim in leads_to(this.system.profile):
                if claim.name in before.comes and (run := _lasso(instance, claim)) is not None:
                    return _judgement(mutant, here, Fate.LASSO, [claim.name], run=run, size=size)
    for size, seen in searches.items():
        for _, names in _shown(here, before, seen, own=False):
            return _judgement(mutant, here, Fate.ELSEWHERE, names, seen, size)
    if searches and (longer := _longer(here, before, refuting, searches)):
        return _judgement(mutant, here, Fate.ELSEWHERE, longer)
    if mutant.what is What.ACTION and f"action: {mutant.original.name if mutant.original else ''}" in before.reached:
        return _judgement(mutant, here, Fate.ABSENT, [f"action: {mutant.original.name if mutant.original else ''}"])
    unproved = _really_unproved(here)
    return _judgement(mutant, here, Fate.OPEN if unproved else Fate.SURVIVED, sorted(unproved))


def _instance(mutant: Mutant, here: Mutated, size: Size) -> Instance:
    """Return an instance of the mutated system; but for a mutant of a profile its states are those of the original."""
    instance = Instance(here.system, size)
    if mutant.line is None:
        before = original(here.place).instances[size]
        instance.variables, instance.index, instance.written = before.variables, before.index, before.written
    return instance


def _shown(here: Mutated, before: Baseline, seen: Exploration, *, own: bool) -> list[tuple[Fate, list[str]]]:
    """Return what a search shows of properties that name this environment, or of the others."""
    names = [
        name for name in seen.found if name in here.claims and (here.claims[name].environment == here.place[1]) is own
    ]
    refuted = [name for name in names if name in here.doubtful]
    shorter = [name for name in names if len(seen.found[name].run) < before.lengths.get(name, 0)]
    return ([(Fate.REFUTED, refuted)] if refuted else []) + ([(Fate.LENGTH, shorter)] if shorter else [])


def _lost(before: Baseline, to_reach: Mapping[str, Sought], searches: Mapping[Size, Exploration]) -> set[str]:
    """Return what is not reached any more; nothing, where a search that was complete for the original is not."""
    lost = {*to_reach}
    for seen in searches.values():
        lost -= {*seen.found}
    if any(size in searches and not searches[size].complete for size in before.complete):
        return set()
    return lost


def _longer(
    here: Mutated, before: Baseline, refuting: Mapping[str, Sought], searches: Mapping[Size, Exploration]
) -> list[str]:
    """Return the refuted properties that no run of the old length refutes any more."""
    return [
        name
        for name, length in before.lengths.items()
        if name in refuting
        and all(
            (seen.complete or seen.depth >= length)
            and (name not in seen.found or len(seen.found[name].run) > length)
            for seen in searches.values()
        )
    ]


def _really_unproved(here: Mutated) -> set[str]:
    """Choose the invariant anew, and return the doubtful properties that it does not imply."""
    if not here.doubtful:
        return set()
    dropped = select(here.system)
    conjuncts = {name: each for name, each in candidates(here.system).items() if name not in dropped}
    return _unproved(here.system, {name: here.claims[name] for name in here.doubtful}, conjuncts)


def _lasso(instance: Instance, claim: LeadsTo) -> Run | None:
    try:
        return lasso(instance, claim, SEARCH_LIMIT)
    except StillSearching:
        return None


def _judgement(
    mutant: Mutant,
    here: Mutated,
    fate: Fate,
    names: list[str],
    seen: Exploration | None = None,
    size: Size | None = None,
    run: Run = (),
) -> Judgement:
    if seen is not None and names:
        names = sorted(names, key=lambda name: len(seen.found[name].run))
        run = seen.found[names[0]].run
    where = _name(here.place) + (f", {size}" if size else "")
    story = tuple(f"{step.action}({', '.join(map(str, step.arguments))})" for step in run)
    return Judgement(mutant.name, mutant.what, fate, tuple(names), where, story)

