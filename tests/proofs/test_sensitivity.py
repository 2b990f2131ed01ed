"""Every conjunct of every guard is dropped in turn, and every effect: who notices?

A mutant is noticed, strongest first, because
    an obligation of the invariant or of a property no longer goes through,
    something that must be seen is no longer seen: an action, a property's premise, a state of SOMETIMES,
    or only because a bounded instance has other numbers of states and steps.
Whoever is noticed by numbers alone, or by nobody, is named below: as equivalent, and then it is shown to be (for any
number of slots and children); or as different, and then it is something that no property says yet. The lists are
exact: a mutant that is noticed better than its list says comes off the list.
"""

from collections import Counter
from dataclasses import dataclass, replace

import pytest

from armed_model.explore import explore, premises
from armed_model.interpret import Instance, Size
from armed_model.profiles import NO_DEAD_MAN_SWITCH, REFERENCE
from armed_model.properties import PROPERTIES, SOMETIMES, Kind, Property, unchanged
from armed_model.properties import c as any_child
from armed_model.properties import s as any_slot
from armed_model.system import CHILD, SLOT, System, mode, used, variables
from armed_model.terms import Action, Parameter, both, negate, symbols
from armed_proofs.obligations import discharge, invariant_obligations, property_obligations

SIZES = ((Size(1, 1), "calm"), (Size(1, 2), "calm"), (Size(2, 1), "calm"), (Size(1, 2), "+stray"))
"""Where numbers are compared, the smallest first; the stray writer, too, has actions that are mutated."""


@dataclass(frozen=True)
class Mutated(System):
    """A system one of whose actions is replaced."""

    mutant: Action | None = None

    @property
    def actions(self):
        return tuple(self.mutant if each.name == self.mutant.name else each for each in super().actions)


@dataclass(frozen=True)
class Alone(Mutated):
    """One action of a system, alone: all others keep their obligations."""

    @property
    def actions(self):
        return (self.mutant,)


@dataclass(frozen=True, eq=False)
class Mutant:
    original: Action
    action: Action
    conjunct: object = None
    update: object = None


NAMES = [variable.name for variable in variables]


def all_mutants():
    """Every mutant, named by the action and the variables that the conjunct reads, or that the effect writes."""
    mutants = {}
    for action in System(REFERENCE, "+stray").actions:
        for i, conjunct in enumerate(action.guard):
            read = [name for name in NAMES if name in symbols(conjunct.term.z3)]
            name = f"{action.name} without the guard on {' and '.join(read)}"
            weaker = replace(action, guard=action.guard[:i] + action.guard[i + 1 :])
            assert name not in mutants
            mutants[name] = Mutant(action, weaker, conjunct=conjunct)
        for i, update in enumerate(action.effect):
            lazier = replace(action, effect=action.effect[:i] + action.effect[i + 1 :])
            mutants[f"{action.name} without the effect on {update.variable.name}"] = Mutant(
                action, lazier, update=update
            )
    return mutants


MUTANTS = all_mutants()

# --- Equivalent: shown below, by queries -----------------------------------------------------------------------------

STUTTERS = {
    "fork_fails without the guard on launching": "slot 0 is blank and stays so",
    "arm without the guard on engaged": "who is engaged is armed already",
    "give without the guard on holds": "what is not held stays not held",
    "disarm without the guard on engaged": "the flag holds the token already",
    "ask_immediate without the guard on shutdown": "it is asked for already",
    "stop without the guard on mode": "it has stopped already",
}
"""The steps that come with the mutant change nothing. They are kept out because a step is to be one."""

REDUNDANT = {
    "reap_book_keeping without the guard on launching": "a launch is part of service, and this action is not",
}
"""The conjunct follows from the others and the invariant. It is kept because all three reaps read alike."""

ANOTHER_NAME = {
    "reap_clean without the guard on mode": "the mode stays",
    "reap_clean without the guard on shutdown": "the mode stays",
    "reap_crash without the guard on mode": "who is dead then was stopped",
}
"""The steps that come with the mutant are those of reap_book_keeping, under another name."""

CHANGES_NOTHING = {
    "reap_clean without the effect on engaged": "a clean slot was disarmed; needed without the switch",
    "reap_clean without the effect on holds": "a clean slot was disarmed; needed without the switch",
    "reap_clean without the effect on failed": "a clean slot was disarmed; needed without the switch",
    "reap_clean without the effect on armed": "a clean slot was disarmed; needed without the switch",
    "reap_clean without the effect on owed": "a clean slot was disarmed; needed without the switch",
    "reap_clean without the effect on torn": "a clean slot was disarmed; needed without the switch",
    "reset without the effect on flag": "each slot was released; with stray writes a free slot may be foreign",
    "reset without the effect on clean": "each slot was released",
    "reset without the effect on in_use": "each slot was released",
    "reset without the effect on owner": "each slot was released",
}
"""What the effect writes is what is there already."""

EQUIVALENT = STUTTERS | REDUNDANT | ANOTHER_NAME | CHANGES_NOTHING

# --- Different: what no property says --------------------------------------------------------------------------------

DIFFERENT = {
    "that the dead do nothing, and only the living take, give back and disarm": {
        "take without the guard on phase",
        "take_fails without the guard on phase",
        "take_fails_late without the guard on phase",
        "give without the guard on phase",
        "give_fails without the guard on phase",
        "give_fails_late without the guard on phase",
        "disarm without the guard on phase",
    },
    "that each action moves its child on: what take, give and their failures do": {
        "take without the effect on holds",
        "take_fails without the effect on failed",
        "take_fails_late without the effect on holds",
        "take_fails_late without the effect on failed",
        "give without the effect on holds",
        "give_fails without the effect on failed",
        "give_fails_late without the effect on holds",
        "give_fails_late without the effect on failed",
    },
    "that exits and ends keep their status, and are ends": {
        "leave without the effect on status",
        "raw_exit without the effect on status",
        "raw_exit without the effect on phase",
        "kill without the effect on status",
        "kill without the effect on phase",
    },
    "that a child that is not there is blank": {
        f"{reap} without the effect on {trace}"
        for reap in ("reap_clean", "reap_crash", "reap_book_keeping")
        for trace in ("slot_of", "token", "status")
    },
    "that the ghosts remember every death": {
        "reap_book_keeping without the effect on owed",
        "reap_book_keeping without the effect on torn",
        "reap_crash without the effect on torn",
        "reset without the effect on torn",
    },
    "that the supervisor starts a child before it does anything else": {"reap_clean without the guard on launching"},
    "that nobody is killed without a reason, and a shutdown is decided once": {
        "kill without the guard on mode and shutdown",
        "reap_crash without the guard on shutdown",
        "reset without the guard on shutdown",
        "ask_orderly without the guard on mode",
        "ask_immediate without the guard on mode",
    },
    "that recovery ends in service, and a shutdown in a stop": {
        "started without the effect on mode",
        "startup_fails without the effect on mode",
        "stop without the effect on mode",
    },
    "anything with stray writes": {
        "stray_write without the guard on phase",
        "stray_write without the guard on clean",
        "stray_write without the effect on flag",
    },
}
"""What is not said -> the mutants that only numbers tell from the original, or nothing does."""

UNNOTICED = {
    "give without the effect on holds",
    "give_fails without the effect on failed",
    "give_fails_late without the effect on holds",
    "give_fails_late without the effect on failed",
    "raw_exit without the effect on status",
    "started without the effect on mode",
}
"""Those among the different that even the numbers do not tell: other actions lead to the same states."""


# --- Who notices -----------------------------------------------------------------------------------------------------


def fails_an_obligation(mutant):
    if mutant.action.by.value == "environment":
        return False  # nothing is claimed with stray writes yet
    system = Alone(REFERENCE, "calm", mutant.action)
    queries = [invariant_obligations(system)]
    queries += [property_obligations(system, claim) for claim in PROPERTIES if claim.kind is Kind.STEP]
    return any(not answer.proved for each in queries for answer in discharge(each))


def everything_to_be_seen(instance):
    members = instance.bindings((any_child, any_slot))

    def somewhere(term):
        holds = instance.predicate(term, (any_child, any_slot))
        return lambda before, after, who: next((each for each in members if holds(after, after, who, *each)), None)

    return {name: somewhere(term) for name, term in SOMETIMES.items()} | premises(instance, PROPERTIES)


@pytest.fixture(scope="module")
def originals():
    """For each size the original, what is to be seen there, and what is seen."""
    found = {}
    for size, environment in SIZES:
        instance = Instance(System(REFERENCE, environment), size)
        look_for = everything_to_be_seen(instance)
        found[size, environment] = instance, look_for, explore(instance, look_for)
    return found


def instance_with(original, mutant):
    """The original instance with one action compiled anew."""
    alone = Alone(REFERENCE, original.system.environment, mutant.action)
    instance = Instance(Mutated(REFERENCE, original.system.environment, mutant.action), original.size)
    instance.__dict__["actions"] = original.actions | Instance(alone, original.size).actions
    return instance


def numbers(exploration):
    return exploration.states, exploration.transitions, exploration.depth


def seen(exploration):
    return exploration.actions_seen | set(exploration.found)


def who_notices(mutant, originals):
    if fails_an_obligation(mutant):
        return "an obligation"
    for original, look_for, before in originals.values():
        if mutant.action.name not in original.actions:
            continue
        now = explore(instance_with(original, mutant), look_for, limit=20 * before.states)
        if seen(before) - seen(now):
            return "something to be seen"
        if numbers(before) != numbers(now):
            return "numbers alone"
    return "nobody"


@pytest.fixture(scope="module")
def noticed(originals):
    return {name: who_notices(mutant, originals) for name, mutant in MUTANTS.items()}


def named(noticed, by):
    return {name for name, notice in noticed.items() if notice == by}


def test_every_conjunct_and_every_effect_is_dropped_once():
    drops = Counter("guard" if mutant.conjunct is not None else "effect" for mutant in MUTANTS.values())
    assert drops == {"guard": 63, "effect": 97}
    assert sum(len(action.guard) + len(action.effect) for action in System(REFERENCE, "+stray").actions) == 160


def test_who_notices_how_many(noticed):
    assert Counter(noticed.values()) == {
        "an obligation": 87,
        "something to be seen": 8,
        "numbers alone": 46,
        "nobody": 19,
    }


def test_whoever_is_told_by_numbers_alone_or_by_nobody_is_named(noticed):
    different = set().union(*DIFFERENT.values())
    assert sum(map(len, DIFFERENT.values())) == len(different)
    assert not different & set(EQUIVALENT)
    assert named(noticed, "numbers alone") | named(noticed, "nobody") == different | set(EQUIVALENT)


def test_what_even_the_numbers_do_not_tell_is_named(noticed):
    assert named(noticed, "nobody") - set(EQUIVALENT) == UNNOTICED


# --- Equivalent, or different ----------------------------------------------------------------------------------------

a_slot, a_child = Parameter("a_slot", SLOT), Parameter("a_child", CHILD)
TRUE = both()


def stays(variable):
    """The variable has the same value after the step, in every place."""
    if variable.index is None:
        return unchanged(variable)
    return unchanged(variable[a_slot if variable.index is SLOT else a_child])


def is_proved_of(action, premise, conclusion):
    claim = Property("claimed", "", Kind.STEP, (a_slot, a_child), premise, conclusion, ())
    answers = list(discharge(property_obligations(Alone(REFERENCE, "calm", action), claim)))
    assert len(answers) == 1
    return answers[0].proved


def is_redundant(mutant):
    return is_proved_of(mutant.action, TRUE, mutant.conjunct.term)


def only_stutters(mutant):
    nothing = both(*[stays(variable) for variable in variables if variable is not used])
    assert "used" not in mutant.action.after()
    return is_proved_of(mutant.action, negate(mutant.conjunct.term), nothing)


def changes_nothing(mutant):
    return is_proved_of(mutant.original, TRUE, stays(mutant.update.variable))


def does_what_book_keeping_does(mutant):
    twin = next(action for action in System(REFERENCE).actions if action.name == "reap_book_keeping")
    ours = [update for update in mutant.action.effect if update.variable is not mode]
    for our, its in zip(ours, twin.effect, strict=True):
        assert our.variable is its.variable
        assert our.value.eq(its.value)
        assert our.index is its.index is None or our.index.z3.eq(its.index.z3)
    may_happen = both(*[conjunct.term for conjunct in twin.guard])
    return is_proved_of(mutant.action, negate(mutant.conjunct.term), both(may_happen, unchanged(mode)))


SHOWN_BY = {
    **dict.fromkeys(STUTTERS, only_stutters),
    **dict.fromkeys(REDUNDANT, is_redundant),
    **dict.fromkeys(ANOTHER_NAME, does_what_book_keeping_does),
    **dict.fromkeys(CHANGES_NOTHING, changes_nothing),
}


@pytest.mark.parametrize("name", EQUIVALENT)
def test_an_equivalent_mutant_is_shown_to_be_one(name):
    assert SHOWN_BY[name](MUTANTS[name])


@pytest.mark.parametrize(
    "name",
    [
        "take without the guard on phase",
        "reap_crash without the guard on shutdown",
        "raw_exit without the effect on status",
        "started without the effect on mode",
    ],
)
def test_a_different_mutant_is_not_shown_to_be_equivalent(name):
    mutant = MUTANTS[name]
    if mutant.update is not None:
        assert not changes_nothing(mutant)
    else:
        assert not is_redundant(mutant)
        assert not only_stutters(mutant)


def behaviour(instance):
    """Every step that changes something, in every reachable state, whatever its name."""
    known, todo, changes = {instance.initial}, [instance.initial], set()
    while todo:
        state = todo.pop()
        for _, _, following in instance.steps(state):
            if following != state:
                changes.add((state, following))
            if following not in known:
                known.add(following)
                todo.append(following)
    return changes


def test_the_different_mutants_are_different(originals):
    left = set().union(*DIFFERENT.values())
    for original, _, _ in originals.values():
        as_before = behaviour(original)
        for name in sorted(left):
            mutant = MUTANTS[name]
            if mutant.action.name in original.actions and behaviour(instance_with(original, mutant)) != as_before:
                left.remove(name)
    assert left == set()


def test_what_the_switch_makes_superfluous_is_needed_without_it():
    control = Instance(System(NO_DEAD_MAN_SWITCH), Size(1, 1))
    reap = next(action for action in control.system.actions if action.name == "reap_clean")
    as_before = behaviour(control)
    for trace in ("engaged", "holds", "failed", "armed", "owed", "torn"):
        lazier = replace(reap, effect=tuple(update for update in reap.effect if update.variable.name != trace))
        assert len(lazier.effect) == len(reap.effect) - 1
        mutated = Instance(Mutated(NO_DEAD_MAN_SWITCH, "calm", lazier), Size(1, 1))
        assert behaviour(mutated) != as_before, trace
