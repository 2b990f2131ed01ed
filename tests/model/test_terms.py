"""Terms cannot be misread as Python, and an action cannot be written wrong."""

import enum
import itertools
from dataclasses import replace

import pytest
import z3

from armed_model import system as system_module
from armed_model.lifecycle import SlotState, Who
from armed_model.profiles import REFERENCE
from armed_model.system import SLOT, WORD, System, flag, mode, orderly, owed, owner, phase, slot_of, status
from armed_model.system import c as child
from armed_model.system import s as slot
from armed_model.system import w as word
from armed_model.terms import (
    BOOL,
    INT,
    Action,
    Constant,
    Location,
    Parameter,
    Term,
    Variables,
    both,
    choose,
    either,
    enumeration,
    exists,
    for_all,
    free_sort,
    implies,
    negate,
    one_of,
    substitute,
    symbols,
)


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


COLOUR = enumeration(Colour)
THING = free_sort("Thing")
variables = Variables()
count = variables.scalar("count", INT, 0, "a number")
colour = variables.scalar("colour", COLOUR, Colour.RED, "a colour")
lit = variables.array("lit", THING, BOOL, False, "a bool for each thing")
secret = variables.scalar("secret", BOOL, False, "for the properties alone", ghost=True)
a, b = Parameter("a", THING), Parameter("b", THING)


def action(guard=(), effect=()):
    return Action("act", "Something is done.", Who.CHILD, (a,), tuple(guard), tuple(effect))


# --- Terms -----------------------------------------------------------------------------------------------------------

WAYS_TO_ASK_FOR_A_TRUTH_VALUE = {
    "bool": lambda: bool(colour == Colour.RED),
    "and": lambda: (colour == Colour.RED) and lit[a],
    "or": lambda: (colour == Colour.RED) or lit[a],
    "not": lambda: not lit[a],
    "in": lambda: colour in (Colour.RED, Colour.GREEN),
    "not in": lambda: colour not in (Colour.RED, Colour.GREEN),
    "if": lambda: Colour.RED if colour == Colour.RED else Colour.GREEN,
    "a chained comparison": lambda: count == count == 0,
    "any": lambda: any([lit[a], lit[b]]),
    "all": lambda: all([lit[a], lit[b]]),
    "a filter": lambda: [1 for _ in range(1) if lit[a]],
    "a difference": lambda: bool(colour != Colour.RED),
}


@pytest.mark.parametrize("way", WAYS_TO_ASK_FOR_A_TRUTH_VALUE)
def test_a_term_has_no_truth_value(way):
    with pytest.raises(TypeError, match="has no truth value in Python: use both, either, negate, one_of, choose"):
        WAYS_TO_ASK_FOR_A_TRUTH_VALUE[way]()


@pytest.mark.parametrize("term", [colour, lit[a], a, colour == Colour.RED, Constant("nothing", THING, 0)], ids=str)
def test_a_term_is_in_no_dict_and_no_set(term):
    with pytest.raises(TypeError, match="unhashable"):
        hash(term)
    with pytest.raises(TypeError, match="unhashable"):
        {term}  # noqa: B018 - it is to raise


def test_terms_are_not_ordered():
    with pytest.raises(TypeError, match="not supported"):
        count < 1  # noqa: B015 - it is to raise


@pytest.mark.parametrize("value", ["red", None, 1.5, SlotState.UNUSED])
def test_a_term_is_compared_with_terms_members_and_numbers_only(value):
    with pytest.raises(TypeError, match="is neither a term, nor a member of a declared enumeration, nor an int"):
        colour == value  # noqa: B015 - it is to raise


@pytest.mark.parametrize(
    "compare",
    [
        lambda: phase[child] == slot_of[child],
        lambda: flag[slot] != child,
        lambda: count == True,  # noqa: E712 - it is to raise
        lambda: choose(lit[a], phase[child], flag[slot]),
    ],
)
def test_terms_of_different_sorts_are_not_compared(compare):
    with pytest.raises(TypeError, match=r" is a .* and .* they are never equal"):
        compare()


@pytest.mark.parametrize(
    "build",
    [
        lambda: flag[child],
        lambda: both(lit[a], count),
        lambda: either(count, lit[a]),
        lambda: negate(count),
        lambda: implies(count, lit[a]),
        lambda: implies(lit[a], count),
        lambda: choose(count, 1, 2),
        lambda: for_all(slot, count),
        lambda: exists(slot, count),
        lambda: substitute(lit[a], [(child, slot)]),
    ],
)
def test_a_term_of_the_wrong_sort_is_refused(build):
    with pytest.raises(z3.Z3Exception, match=r"(?i)sort|type error|invalid argument"):
        build()


def is_valid(term):
    solver = z3.SimpleSolver()
    solver.add(z3.Not(term.z3))
    return solver.check() == z3.unsat


TRUE, FALSE = Term(z3.BoolVal(True)), Term(z3.BoolVal(False))


@pytest.mark.parametrize(
    ("connective", "table"),
    [
        (both, {(0, 0): 0, (0, 1): 0, (1, 0): 0, (1, 1): 1}),
        (either, {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 1}),
        (implies, {(0, 0): 1, (0, 1): 1, (1, 0): 0, (1, 1): 1}),
        (negate, {(0,): 1, (1,): 0}),
        (lambda p, q: p == q, {(0, 0): 1, (0, 1): 0, (1, 0): 0, (1, 1): 1}),
        (lambda p, q: p != q, {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 0}),
        (lambda p, q: choose(p, q, negate(q)), {(0, 0): 1, (0, 1): 0, (1, 0): 0, (1, 1): 1}),
    ],
    ids=["both", "either", "implies", "negate", "equal", "differs", "choose"],
)
def test_a_connective_has_its_truth_table(connective, table):
    for inputs, output in table.items():
        term = connective(*[TRUE if value else FALSE for value in inputs])
        assert is_valid(term if output else negate(term))


def test_connectives_of_nothing():
    assert is_valid(both())
    assert is_valid(negate(either()))


def test_one_of_is_equality_with_one_of_the_values():
    assert is_valid(one_of(colour, Colour.RED, Colour.GREEN))
    assert not is_valid(one_of(colour, Colour.RED))
    assert is_valid(implies(one_of(count, 0, 1), negate(count == 2)))
    assert is_valid(negate(one_of(count)))


def test_quantifiers_bind_their_parameter():
    everything, something = for_all(a, lit[a]), exists(a, lit[a])
    assert symbols(everything.z3) == symbols(something.z3) == {"lit"}
    assert is_valid(implies(everything, lit[b]))
    assert is_valid(implies(lit[b], something))
    assert not is_valid(implies(something, everything))


def test_primed_reads_every_variable_after_the_step():
    assert symbols(variables.primed(both(lit[a], colour == Colour.RED)).z3) == {"lit'", "colour'", "a"}


# --- Variables -------------------------------------------------------------------------------------------------------


def test_a_name_is_declared_once():
    registry = Variables()
    registry.scalar("twice", INT, 0, "a number")
    with pytest.raises(ValueError, match="the state variable twice is declared twice"):
        registry.array("twice", THING, INT, 0, "a number for each thing")
    assert [variable.name for variable in registry] == ["twice"]


def test_variables_come_in_the_order_of_their_declaration():
    assert [variable.name for variable in variables] == ["count", "colour", "lit", "secret"]
    assert variables["lit"] is lit
    assert [variable.ghost for variable in variables] == [False, False, False, True]
    assert lit.index is THING
    assert count.index is None


# --- Actions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "effect",
    [
        (lit[a].becomes(True), lit[a].becomes(False)),
        (lit[a].becomes(True), lit[b].becomes(True)),
        (lit[a].becomes(True), count.becomes(1), lit.becomes_blank()),
        (lit.becomes_blank(), lit[a].becomes(True)),
        (lit[a].becomes(True), Location(lit, a).becomes(True)),
    ],
    ids=["one location", "two locations of one array", "all of an array last", "all of an array first", "a new term"],
)
def test_an_action_writes_no_variable_twice(effect):
    with pytest.raises(ValueError, match="act writes lit twice"):
        action(effect=effect)


def test_an_action_writes_no_scalar_twice():
    with pytest.raises(ValueError, match="act writes count twice"):
        action(effect=(count.becomes(1), colour.becomes(Colour.GREEN), count.becomes(1)))


def test_two_variables_are_not_one_because_their_comparison_is_a_term():
    # `count == other` is a Term; whoever asked it for a truth value would refuse this action, or never any.
    other = Variables().scalar("other", INT, 0, "another number")
    assert len(action(effect=(count.becomes(1), other.becomes(1), lit[a].becomes(True))).effect) == 3


@pytest.mark.parametrize(
    ("update", "name"),
    [
        (count.becomes(True), "count"),
        (count.becomes(Colour.RED), "count"),
        (lit[a].becomes(1), "lit"),
        (colour.becomes(0), "colour"),
        (flag[slot].becomes(child), "flag"),
    ],
)
def test_an_action_refuses_a_value_of_the_wrong_sort(update, name):
    with pytest.raises(ValueError, match=f"act gives {name} a value of sort"):
        action(effect=(count.becomes(1), update) if name != "count" else (update,))


@pytest.mark.parametrize("term", [colour, count, a])
def test_an_action_refuses_a_conjunct_that_is_no_condition(term):
    with pytest.raises(ValueError, match="act has a conjunct that is no condition"):
        action(guard=(lit[a].because("it is one"), term.because("it is none")))


def test_slot_zero_and_nobody_are_excluded_from_parameters_without_being_named():
    nothing = Constant("nothing", THING, 0)
    of_a_thing = replace(action(guard=(lit[b].because("a reason"),)), nulls={"Thing": nothing})
    implied, written = of_a_thing.conditions
    assert implied.z3.eq((a != nothing).z3)
    assert written.z3.eq(lit[b].z3)


def test_what_no_effect_names_is_not_among_the_new_values():
    new = action(effect=(lit[a].becomes(True), count.becomes(2))).after()
    assert set(new) == {"lit", "count"}
    assert new["lit"].eq(z3.Store(lit.z3, a.z3, z3.BoolVal(True)))
    assert new["count"].eq(z3.IntVal(2))
    assert action(effect=(lit.becomes_blank(),)).after()["lit"].eq(z3.K(THING.z3, z3.BoolVal(False)))


# --- Ghosts ----------------------------------------------------------------------------------------------------------


NUMBERS = itertools.count()


def system_with(monkeypatch, **changes):
    """The reference, in an environment with an action of a child and a slot."""
    parts = {"guard": (), "effect": ()} | changes
    planted = Action("peep", "", Who.CHILD, (child, slot, word), parts["guard"], parts["effect"])
    environment = f"+peep {next(NUMBERS)}"  # a name of its own: what is known of an environment may be kept
    monkeypatch.setitem(system_module.ENVIRONMENTS, environment, lambda profile: (planted,))
    return System(REFERENCE, environment)


@pytest.mark.parametrize(
    ("changes", "ghost"),
    [
        ({"guard": (orderly[child].because("a ghost"),)}, "orderly"),
        ({"guard": (negate(either(owed, mode == system_module.Mode.RUNNING)).because("hidden"),)}, "owed"),
        ({"guard": (for_all(child, negate(orderly[child])).because("under a quantifier"),)}, "orderly"),
        ({"effect": (status[child].becomes(choose(owed, 1, 0)),)}, "owed"),
        ({"effect": (flag[choose(owed, slot, slot_of[child])].becomes(word),)}, "owed"),
        ({"effect": (orderly[choose(owed, child, owner[slot])].becomes(True),)}, "owed"),
    ],
    ids=["guard", "inside a guard", "quantified", "value", "index", "index of a ghost"],
)
def test_a_ghost_decides_nothing(monkeypatch, changes, ghost):
    with pytest.raises(ValueError, match=f"peep reads the ghost {ghost}"):
        system_with(monkeypatch, **changes)


def test_a_ghost_may_be_read_by_a_ghost_and_written_by_anybody(monkeypatch):
    system = system_with(monkeypatch, effect=(owed.becomes(orderly[child]), orderly[child].becomes(True)))
    assert system.actions[-1].name == "peep"


def test_the_model_has_six_ghosts():
    assert [variable.name for variable in System(REFERENCE).variables if variable.ghost] == [
        "armed",
        "orderly",
        "owed",
        "torn",
        "handle_astray",
        "handle_gone",
    ]


def test_sorts_without_structure_are_told_from_the_others():
    assert [sort.free for sort in (SLOT, WORD, THING, BOOL, INT, COLOUR)] == [True, True, True, False, False, False]
