"""The compiled model, on states whose guards and effects are worked out here by hand."""

import functools
import itertools

import pytest
import z3

from armed_model.interpret import INDEX, Instance, NotInterpretable, Size
from armed_model.lifecycle import Who
from armed_model.profiles import REFERENCE
from armed_model.properties import BY_NAME, after
from armed_model.system import (
    ACTIVE,
    CHILD,
    INT,
    UNUSED,
    Mode,
    Phase,
    Shutdown,
    System,
    clean,
    everybody_is_gone,
    flag,
    in_use,
    launching,
    mode,
    no_slot,
    owner,
    phase,
    shutdown,
    slot_of,
    status,
    used,
)
from armed_model.system import c as child
from armed_model.system import s as slot
from armed_model.system import w as word
from armed_model.terms import Parameter, Term, both, choose, either, exists, for_all, implies, negate, one_of

FIRST_WORD = 3  # after the three reserved ones
KEPT = {"mode", "shutdown", "launching"}


def plain(value):
    return list(type(value)).index(value) if isinstance(value, Mode | Phase | Shutdown) else value


def state(instance, base=None, **changes):
    """The initial state (or another), but for some variables: mode=Mode.STOPPING, flag={1: 3}."""
    values = list(base or instance.initial)
    for name, change in changes.items():
        at = INDEX[name]
        if isinstance(change, dict):
            values[at] = tuple(plain(change.get(i, old)) for i, old in enumerate(values[at]))
        else:
            values[at] = plain(change)
    return tuple(values)


@pytest.fixture(scope="module")
def two(instance):
    return instance(2, 2)


@pytest.fixture(scope="module")
def armed_child(two):
    """Child 2 serves in slot 1, armed; slot 2 is free."""
    return state(
        two,
        flag={1: 1},
        clean={1: 4},
        in_use={1: True},
        owner={1: 2},
        phase={2: Phase.SERVING},
        slot_of={2: 1},
        token={2: 4},
        engaged={2: True},
        armed={2: True},
    )


def changed(before, after):
    return {
        name: (before[at], after[at])
        for name, at in INDEX.items()
        if before[at] != after[at]
    }


# --- Sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slots", "children"), [(0, 1), (1, 0), (-1, 2), (0, 0)])
def test_an_instance_has_a_slot_and_a_child(slots, children):
    with pytest.raises(ValueError, match=f"at least one slot and one child, not {slots} and {children}"):
        Size(slots, children)


def test_a_size_counts_none_and_one_word_more_than_slots_can_hold():
    assert [Size(2, 3).count(sort) for sort in (slot.sort, child.sort, word.sort)] == [3, 4, 6]
    with pytest.raises(ValueError, match="Int has no bound"):
        Size(2, 3).count(INT)


def test_parameters_are_never_slot_zero_nor_nobody_and_may_be_any_word():
    size = Size(2, 3)
    assert list(size.members(slot)) == [1, 2]
    assert list(size.members(child)) == [1, 2, 3]
    assert list(size.members(word)) == [0, 1, 2, 3, 4, 5]
    assert size.members(Parameter("k", INT, domain=(0, 1, 2))) == (0, 1, 2)


def test_a_size_is_said_in_words():
    assert [str(Size(1, 1)), str(Size(2, 3))] == ["1 slot x 1 child", "2 slots x 3 children"]


# --- States ----------------------------------------------------------------------------------------------------------


def test_at_first_everything_is_blank(two):
    assert set(INDEX) == {
        *KEPT,
        *("flag", "clean", "in_use", "owner"),
        *("phase", "slot_of", "token", "engaged", "holds", "failed", "status"),
        *("armed", "orderly", "owed", "torn"),
    }
    for name, value in zip(INDEX, two.initial, strict=True):
        assert value in (0, False, (0, 0, 0), (False, False, False)), name
    assert two.read(two.initial, mode) is Mode.RUNNING
    assert two.read(two.initial, shutdown) is Shutdown.NONE
    assert two.read(two.initial, phase, 2) is Phase.NONE


def test_what_is_read_is_a_member_or_a_plain_value(two, armed_child):
    assert two.read(armed_child, phase, 2) is Phase.SERVING
    assert two.read(armed_child, flag, 1) == 1
    assert two.read(armed_child, in_use) == (False, True, False)
    with pytest.raises(TypeError, match="is no state variable"):
        two.read(armed_child, flag[slot])


def test_all_that_can_happen_at_first(two):
    fresh = range(FIRST_WORD, FIRST_WORD + 3)
    assert {(name, arguments) for name, arguments, _ in two.steps(two.initial)} == {
        *(("assign", each) for each in itertools.product((1, 2), fresh)),
        ("ask_orderly", ()),
        ("ask_immediate", ()),
    }


# --- Effects ---------------------------------------------------------------------------------------------------------


def test_assign_puts_the_word_in_two_places_and_leaves_the_rest(two):
    after = two.step(two.initial, "assign", 2, 4)
    assert changed(two.initial, after) == {
        "flag": ((0, 0, 0), (0, 0, 4)),
        "clean": ((0, 0, 0), (0, 0, 4)),
        "in_use": ((False, False, False), (False, False, True)),
        "launching": (0, 2),
    }


def test_fork_reads_what_was_launching_before_it_ends_the_launch(two):
    before = two.step(two.initial, "assign", 2, 4)
    assert changed(before, two.step(before, "fork", 1)) == {
        "phase": ((0, 0, 0), (0, 1, 0)),
        "slot_of": ((0, 0, 0), (0, 2, 0)),
        "token": ((0, 0, 0), (0, 4, 0)),
        "owner": ((0, 0, 0), (0, 0, 1)),
        "launching": (2, 0),
    }


def test_disarm_writes_the_token_blindly(two, armed_child):
    scribbled = state(two, armed_child, token={2: 5})
    after = two.step(scribbled, "disarm", 2)
    assert two.read(after, flag) == (0, 5, 0)
    assert changed(scribbled, after) == {
        "flag": ((0, 1, 0), (0, 5, 0)),
        "engaged": ((False, False, True), (False, False, False)),
        "armed": ((False, False, True), (False, False, False)),
    }


def test_reaping_reads_the_slot_before_it_forgets_it(two, armed_child):
    dead = two.step(armed_child, "raw_exit", 2, 1)
    assert changed(armed_child, dead) == {"phase": ((0, 0, 2), (0, 0, 4)), "status": ((0, 0, 0), (0, 0, 1))}
    after = two.step(dead, "reap_crash", 2)
    assert after == state(two, mode=Mode.STOPPING, owed=True)


def test_reset_makes_every_location_blank(two):
    before = state(
        two,
        mode=Mode.RESETTING,
        flag={1: 5, 2: 2},
        clean={2: 4},
        in_use={1: True, 2: True},
        owner={1: 2},
        owed=True,
        torn=True,
        status={2: 2},
    )
    assert two.step(before, "reset") == state(two, mode=Mode.STARTING, status={2: 2})


# --- Guards ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status_of_2", "word_in_1", "decision"),
    [(0, 4, "reap_clean"), (1, 4, "reap_clean"), (2, 4, "reap_crash"), (-9, 4, "reap_crash"), (0, 1, "reap_crash"),
     (1, 0, "reap_crash"), (0, 5, "reap_crash"), (-9, 1, "reap_crash")],
)
def test_a_death_is_clean_iff_the_status_is_0_or_1_and_the_slot_holds_its_clean_word(
    two, status_of_2, word_in_1, decision
):
    dead = state(
        two,
        flag={1: word_in_1},
        clean={1: 4},
        in_use={1: True},
        owner={1: 2},
        phase={2: Phase.EXITED},
        slot_of={2: 1},
        status={2: status_of_2},
    )
    reaps = ("reap_clean", "reap_crash", "reap_book_keeping")
    assert [name for name in reaps if two.enabled(dead, name, 2)] == [decision]
    assert not any(two.enabled(dead, name, 1) for name in reaps)


def test_everybody_is_gone_when_no_child_is_left(two):
    stopping = state(two, mode=Mode.STOPPING)
    assert two.enabled(stopping, "all_gone")
    for number in (1, 2):
        for where in (Phase.STARTING, Phase.SERVING, Phase.LEAVING, Phase.EXITED):
            assert not two.enabled(state(two, mode=Mode.STOPPING, phase={number: where}), "all_gone")


def conjunct(instance, name, number):
    """A conjunct of the action's guard as messages print it, with its reason."""
    written = instance.actions[name].action.guard[number]
    return f"{written.term} ({written.why})"


def test_why_not_names_the_first_conjunct_that_fails_with_its_reason(two, armed_child):
    serving, not_engaged = (conjunct(two, "arm", number) for number in (0, 1))
    assert serving.startswith("phase[c] == Phase.SERVING (")
    assert not_engaged.startswith("Not(engaged[c]) (")
    assert two.why_not(armed_child, "take", 2) == "it is enabled"
    assert two.why_not(armed_child, "arm", 2) == not_engaged
    assert two.why_not(armed_child, "arm", 1) == serving
    assert two.why_not(armed_child, "arm", 0).endswith("nobody")
    assert two.why_not(armed_child, "all_gone") == conjunct(two, "all_gone", 0)
    several = state(two, shutdown=Shutdown.ORDERLY, in_use={1: True})
    assert two.why_not(several, "assign", 1, 0) == conjunct(two, "assign", 1)


def test_a_step_that_is_not_enabled_is_refused_with_the_reason(two, armed_child):
    with pytest.raises(ValueError, match="is not enabled") as refused:
        two.step(armed_child, "arm", 2)
    assert str(refused.value) == f"arm(2,) is not enabled: {conjunct(two, 'arm', 1)}"
    assert two.enabled(armed_child, "arm", 2) is False
    assert two.enabled(armed_child, "take", 2) is True


# --- Words -----------------------------------------------------------------------------------------------------------


@functools.cache
def is_used_in(instance):
    return instance.predicate(used[word], (word,))


def fresh_words(instance, state):
    is_used = is_used_in(instance)
    return [each for each in instance.size.members(word) if not is_used(state, state, 0, each)]


def test_a_word_is_fresh_while_it_stands_nowhere_and_a_reserved_one_never(two):
    assert fresh_words(two, two.initial) == [3, 4, 5]
    assert fresh_words(two, state(two, flag={1: 4})) == [3, 5]
    assert fresh_words(two, state(two, clean={2: 5})) == [3, 4]
    assert fresh_words(two, state(two, flag={1: 3, 2: 4}, clean={1: 3, 2: 3})) == [5]
    assert fresh_words(two, state(two, flag={1: 1, 2: 2}, clean={1: 0})) == [3, 4, 5]


def test_a_word_that_was_released_is_fresh_again(two):
    assigned = two.step(two.initial, "assign", 1, 3)
    assert fresh_words(two, assigned) == [4, 5]
    assert fresh_words(two, two.step(assigned, "fork_fails")) == [3, 4, 5]


def test_there_is_always_a_fresh_word_for_a_free_slot(reachable, instance):
    two_slots = instance(2, 1)
    for each in reachable(2, 1):
        assert fresh_words(two_slots, each) or two_slots.read(each, in_use) == (False, True, True)


# --- Expressions -----------------------------------------------------------------------------------------------------

d = Parameter("each", CHILD)


@pytest.mark.parametrize(
    ("term", "value"),
    [
        (mode == Mode.STOPPING, True),
        (mode != Mode.STOPPING, False),
        (one_of(mode, Mode.RUNNING, Mode.RESETTING), False),
        (one_of(status[child], 0, 2), True),
        (flag[slot] == ACTIVE, True),
        (flag[slot_of[child]] == ACTIVE, True),
        (clean[slot_of[child]] == UNUSED, False),
        (owner[slot] == child, True),
        (launching == no_slot, True),
        (both(in_use[slot], negate(in_use[slot])), False),
        (either(in_use[slot], negate(in_use[slot])), True),
        (implies(in_use[slot], mode == Mode.RUNNING), False),
        (implies(negate(in_use[slot]), mode == Mode.RUNNING), True),
        (choose(in_use[slot], status[child], 7) == 2, True),
        (choose(negate(in_use[slot]), status[child], 7) == 7, True),
        (in_use[slot] == (mode == Mode.STOPPING), True),
        (for_all(d, phase[d] == Phase.NONE), False),
        (for_all(d, one_of(phase[d], Phase.NONE, Phase.EXITED)), True),
        (exists(d, phase[d] == Phase.EXITED), True),
        (exists(d, phase[d] == Phase.SERVING), False),
        (exists(d, both(phase[d] == Phase.EXITED, d != child)), False),
        (for_all(d, exists(child, phase[d] != phase[child])), True),
        (for_all(d, exists(child, both(phase[d] == phase[child], status[child] == 2))), False),
        (everybody_is_gone, False),
        (both(), True),
        (either(), False),
        (Term(status.z3[child.z3] <= 2), True),
        (Term(status.z3[child.z3] >= 3), False),
        (Term(status.z3[child.z3] < 3), True),
        (Term(status.z3[child.z3] > 2), False),
        (after(mode) == Mode.RUNNING, True),
        (after(both(mode == Mode.RUNNING, flag[slot] == UNUSED)), True),
        (both(mode == Mode.STOPPING, after(flag[slot]) == flag[slot]), False),
    ],
    ids=lambda value: " ".join(str(value).split())[:70],
)
def test_an_expression_has_the_value_worked_out_by_hand(two, term, value):
    before = state(
        two,
        mode=Mode.STOPPING,
        flag={1: 1},
        clean={1: 3},
        in_use={1: True},
        owner={1: 2},
        phase={2: Phase.EXITED},
        slot_of={2: 1},
        status={2: 2},
    )
    holds = two.predicate(term, (slot, child))
    assert holds(before, two.initial, 0, 1, 2) is value


@pytest.mark.parametrize(
    "term",
    [
        Term(status.z3[child.z3] + 1 == 2),
        Term(z3.Xor(in_use.z3[slot.z3], True)),
        Term(z3.Store(in_use.z3, slot.z3, True) == in_use.z3),
        Term(z3.Distinct(mode.z3, mode.z3, mode.z3)),
    ],
    ids=["addition", "exclusive or", "store", "three distinct"],
)
def test_an_operator_that_is_not_known_is_refused(two, term):
    with pytest.raises(NotInterpretable):
        two.predicate(term, (slot, child))


# --- Properties ------------------------------------------------------------------------------------------------------


def test_a_violation_names_the_members_for_which_it_is_one(two):
    shared = state(two, phase={1: Phase.SERVING, 2: Phase.EXITED}, slot_of={1: 2, 2: 2})
    violated = two.violation(BY_NAME["slot_has_one_owner"])
    assert violated(shared, shared, 0) == (1, 2)
    assert violated(two.initial, two.initial, 0) is None


def test_a_step_property_reads_both_states_and_who_took_the_step(two):
    violated = two.violation(BY_NAME["flag_follows_lifecycle"])
    assigned = two.step(two.initial, "assign", 2, 3)
    supervisor, itself, environment = range(3)
    assert list(Who) == [Who.SUPERVISOR, Who.CHILD, Who.ENVIRONMENT]
    assert violated(two.initial, assigned, supervisor) is None
    assert violated(two.initial, assigned, itself) == (2,)
    assert violated(two.initial, assigned, environment) == (2,)
    assert violated(assigned, assigned, itself) is None


def test_a_witness_satisfies_the_premise(two):
    witness = two.witness(BY_NAME["slot_has_one_owner"])
    assert witness(two.initial, two.initial, 0) is None
    lively = state(two, phase={1: Phase.SERVING, 2: Phase.EXITED}, slot_of={1: 1, 2: 2})
    assert witness(lively, lively, 0) == (1, 2)


def test_the_actions_of_an_instance_are_those_of_its_system():
    stray = Instance(System(REFERENCE, "+stray"), Size(1, 1))
    assert list(stray.actions) == [action.name for action in stray.system.actions]
    assert stray.actions["stray_write"].domains == (range(1, 2), range(1, 2), range(5))
