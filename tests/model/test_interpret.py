"""The compiled model, on states whose guards and effects are worked out here by hand."""

import enum
import functools
import itertools

import pytest
import z3

from armed_model.explore import premises, violations
from armed_model.interpret import Instance, NotInterpretable, Size, Sought
from armed_model.lifecycle import Who
from armed_model.profiles import PROFILES, REFERENCE, V8_4_0, V15, V18, Kind
from armed_model.properties import after, by_name
from armed_model.system import (
    ACTIVE,
    CHILD,
    INT,
    UNUSED,
    Mode,
    Phase,
    Request,
    Shutdown,
    System,
    clean,
    everybody_is_gone,
    flag,
    in_use,
    kind,
    launching,
    mode,
    no_slot,
    owner,
    phase,
    shutdown,
    slot_of,
    status,
    token,
    torn,
    used,
    variables,
)
from armed_model.system import c as child
from armed_model.system import s as slot
from armed_model.system import w as word
from armed_model.terms import Parameter, Term, both, choose, either, exists, for_all, implies, negate, one_of

FIRST_WORD = 5  # after the reserved ones, two of which mean nothing in the reference


def plain(value):
    return list(type(value)).index(value) if isinstance(value, enum.Enum) else value


def state(instance, base=None, **changes):
    """The initial state (or another), but for some variables: mode=Mode.STOPPING, flag={1: 3}."""
    values = list(base or instance.initial)
    for name, change in changes.items():
        at = instance.index[name]
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
        clean={1: 6},
        in_use={1: True},
        owner={1: 2},
        phase={2: Phase.SERVING},
        slot_of={2: 1},
        token={2: 6},
        engaged={2: True},
        armed={2: True},
    )


def changed(instance, before, after):
    return {
        name: (before[at], after[at])
        for name, at in instance.index.items()
        if before[at] != after[at]
    }


# --- Sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slots", "children"), [(0, 1), (1, 0), (-1, 2), (0, 0)])
def test_an_instance_has_a_slot_and_a_child(slots, children):
    with pytest.raises(ValueError, match=f"at least one slot and one child, not {slots} and {children}"):
        Size(slots, children)


def of_size(slots, children, profile=REFERENCE, environment="calm"):
    return Instance(System(profile, environment), Size(slots, children))


def test_an_instance_counts_none_and_one_fresh_word_more_than_slots_can_hold():
    assert [of_size(2, 3).count(sort) for sort in (slot.sort, child.sort, word.sort)] == [3, 4, 8]
    with pytest.raises(ValueError, match="Int has no bound"):
        of_size(2, 3).count(INT)


def test_the_words_are_those_that_mean_something_and_fresh_ones_where_fresh_ones_are_drawn():
    assert of_size(1, 3).words == (0, 1, 2, 5, 6)
    assert of_size(3, 1).words == (0, 1, 2, 5, 6, 7, 8)
    assert of_size(3, 1, V8_4_0).words == (0, 1, 2, 3)
    assert of_size(3, 1, V15).words == (0, 1, 2, 3, 4)
    assert [of_size(3, 1, profile).count(word.sort) for profile in (V8_4_0, V15)] == [4, 5]


def test_parameters_are_never_slot_zero_nor_nobody_and_may_be_any_word():
    here = of_size(2, 3)
    assert list(here.members(slot)) == [1, 2]
    assert list(here.members(child)) == [1, 2, 3]
    assert list(here.members(word)) == [0, 1, 2, 5, 6, 7]
    assert here.members(Parameter("k", INT, domain=(0, 1, 2))) == (0, 1, 2)
    assert list(here.members(Parameter("kind", kind.sort))) == [0, 1, 2, 3]
    assert here.bindings((slot, child)) == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert here.bindings(()) == [()]


def test_a_size_is_said_in_words():
    assert [str(Size(1, 1)), str(Size(2, 3))] == ["1 slot x 1 child", "2 slots x 3 children"]


# --- States ----------------------------------------------------------------------------------------------------------


CORE = {
    *("mode", "shutdown", "launching", "flag", "owner"),
    *("phase", "kind", "slot_of", "holds", "failed", "status", "armed", "orderly", "owed", "torn"),
    *("copy_of", "entry_gone", "handle_gone"),  # written wherever a child is reaped
}
DRAWS_AND_ENGAGES = {"clean", "in_use", "told", "token", "engaged", "copy_slot", "copy_token", "copy_gives"}
HOOKS = {"to_give", "to_disarm", "copy_slot", "copy_token", "copy_gives", "copy_disarms"}

WRITTEN = {
    ("8.4.0", "calm"): CORE | HOOKS,
    ("8.4.1", "calm"): CORE | HOOKS,
    ("9.4", "calm"): CORE | HOOKS,
    ("15", "calm"): CORE | HOOKS | {"in_use", "ticking"},
    ("18", "calm"): CORE | HOOKS | {"in_use", "launching_as"},
    ("reference", "calm"): CORE | DRAWS_AND_ENGAGES | {"copy_disarms"},
    ("15", "+stray"): CORE | HOOKS | {"in_use", "ticking"},
    ("15", "+cancel"): CORE | HOOKS | {"in_use", "ticking", "request", "aimed", "handle_astray"},
    ("reference", "+cancel"): CORE | DRAWS_AND_ENGAGES | {"copy_disarms", "request", "aimed", "handle_astray"},
}
"""What some action writes: what a state has entries for. The reset writes every record of a slot, and of a copy."""


@pytest.mark.parametrize(("profile", "environment"), WRITTEN, ids=str)
def test_a_state_has_an_entry_for_each_variable_that_some_action_writes(instance, profile, environment):
    here = instance(1, 1, environment, profile)
    assert set(here.index) == WRITTEN[profile, environment]
    assert [variable.name for variable in here.variables] == list(here.index)
    assert list(here.index.values()) == list(range(len(here.initial)))
    assert "used" not in here.index  # in a bounded instance it says where words stand, and is no entry


@pytest.mark.parametrize("profile", PROFILES)
def test_at_first_everything_is_blank(instance, profile):
    here = instance(2, 2, "calm", profile)
    for name, value in zip(here.index, here.initial, strict=True):
        assert value in (0, False, (0, 0, 0), (False, False, False)), name
    assert here.read(here.initial, mode) is Mode.RUNNING
    assert here.read(here.initial, shutdown) is Shutdown.NONE
    assert here.read(here.initial, phase, 2) is Phase.NONE


def test_a_variable_that_nothing_writes_is_read_as_blank(instance):
    here = instance(2, 2, "calm", "8.4.0")
    assert "token" not in here.index
    assert here.read(here.initial, token, 1) == 0
    assert here.read(here.initial, variables["request"]) is Request.NONE
    assert here.read(here.initial, variables["launching_as"]) is Kind.BACKEND
    holds = here.predicate(both(token[child] == UNUSED, after(token[child]) == UNUSED), (child,))
    assert holds(here.initial, here.initial, 0, 1) is True


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
    after = two.step(two.initial, "assign", 2, 6)
    assert changed(two, two.initial, after) == {
        "flag": ((0, 0, 0), (0, 0, 6)),
        "clean": ((0, 0, 0), (0, 0, 6)),
        "in_use": ((False, False, False), (False, False, True)),
        "launching": (0, 2),
    }


def test_fork_reads_what_was_launching_before_it_ends_the_launch(two):
    before = two.step(two.initial, "assign", 2, 6)
    assert changed(two, before, two.step(before, "fork", 1)) == {
        "phase": ((0, 0, 0), (0, 1, 0)),
        "slot_of": ((0, 0, 0), (0, 2, 0)),
        "token": ((0, 0, 0), (0, 6, 0)),
        "owner": ((0, 0, 0), (0, 0, 1)),
        "launching": (2, 0),
    }


def test_disarm_writes_the_token_blindly(two, armed_child):
    scribbled = state(two, armed_child, token={2: 7})
    after = two.step(scribbled, "disarm", 2)
    assert two.read(after, flag) == (0, 7, 0)
    assert changed(two, scribbled, after) == {
        "flag": ((0, 1, 0), (0, 7, 0)),
        "engaged": ((False, False, True), (False, False, False)),
        "armed": ((False, False, True), (False, False, False)),
    }


def test_reaping_reads_the_slot_before_it_forgets_it(two, armed_child):
    dead = two.step(armed_child, "raw_exit", 2, 1)
    serving, exited = plain(Phase.SERVING), plain(Phase.EXITED)
    assert changed(two, armed_child, dead) == {
        "phase": ((0, 0, serving), (0, 0, exited)),
        "status": ((0, 0, 0), (0, 0, 1)),
        "token": ((0, 0, 6), (0, 0, 0)),
        "engaged": ((False, False, True), (False, False, False)),
    }
    after = two.step(dead, "reap_crash", 2)
    assert after == state(two, mode=Mode.STOPPING, owed=True)


def test_reset_makes_every_location_blank(two):
    before = state(
        two,
        mode=Mode.RESETTING,
        flag={1: 7, 2: 2},
        clean={2: 6},
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
    [(0, 6, "reap_clean"), (1, 6, "reap_clean"), (2, 6, "reap_crash"), (-9, 6, "reap_crash"), (0, 1, "reap_crash"),
     (1, 0, "reap_crash"), (0, 7, "reap_crash"), (-9, 1, "reap_crash")],
)
def test_a_death_is_clean_iff_the_status_is_0_or_1_and_the_slot_holds_its_clean_word(
    two, status_of_2, word_in_1, decision
):
    dead = state(
        two,
        flag={1: word_in_1},
        clean={1: 6},
        in_use={1: True},
        owner={1: 2},
        phase={2: Phase.EXITED},
        slot_of={2: 1},
        status={2: status_of_2},
    )
    reaps = [name for name in two.actions if name.startswith("reap_")]
    assert len(reaps) == 6
    assert [name for name in reaps if two.enabled(dead, name, 2)] == [decision]
    assert not any(two.enabled(dead, name, 1) for name in reaps)


@pytest.mark.parametrize(
    ("profile", "kind_of_1", "status_of_1", "word_in_1", "decision"),
    [
        ("18", Kind.BACKEND, 1, 3, "reap_clean"),
        ("18", Kind.BACKEND, 0, 1, "reap_crash"),
        ("18", Kind.WALSENDER, 0, 4, "reap_crash"),
        ("18", Kind.WALSENDER, 1, 3, "reap_clean"),
        ("18", Kind.AUXILIARY, 0, 1, "reap_clean"),  # its slot is not looked at
        ("18", Kind.AUXILIARY, 1, 3, "reap_crash"),
        ("15", Kind.BACKEND, 1, 1, "reap_crash"),
        ("8.4.0", Kind.BACKEND, 0, 3, "reap_clean"),
    ],
)
def test_a_death_is_decided_by_its_kind_too(instance, profile, kind_of_1, status_of_1, word_in_1, decision):
    here = instance(1, 1, "calm", profile)
    dead = state(
        here,
        flag={1: word_in_1},
        owner={1: 1},
        phase={1: Phase.EXITED},
        kind={1: kind_of_1},
        slot_of={1: 1},
        status={1: status_of_1},
    )
    assert [name for name in here.actions if name.startswith("reap_") and here.enabled(dead, name, 1)] == [decision]


def test_everybody_is_gone_when_no_child_is_left(two):
    assert two.enabled(state(two, mode=Mode.DRAINING), "all_gone")
    for number in (1, 2):
        for where in (Phase.STARTING, Phase.SERVING, Phase.LEAVING, Phase.STUCK, Phase.EXITED):
            assert not two.enabled(state(two, mode=Mode.DRAINING, phase={number: where}), "all_gone")


def test_dead_end_children_are_not_waited_for_at_first(two):
    for of_kind in (Kind.BACKEND, Kind.AUXILIARY, Kind.DEAD_END):
        there = state(two, mode=Mode.STOPPING, phase={2: Phase.SERVING}, kind={2: of_kind})
        assert two.enabled(there, "only_dead_ends_left") is (of_kind is Kind.DEAD_END)


def conjunct(instance, name, number):
    """A conjunct of the action's guard as messages print it, with its reason."""
    written = instance.actions[name].action.guard[number]
    return f"{written.term} ({written.why})"


def test_why_not_names_the_first_conjunct_that_fails_with_its_reason(two, armed_child):
    serving, not_engaged = (conjunct(two, "arm", number) for number in (0, 2))
    assert serving.startswith("phase[c] == Phase.SERVING (")
    assert not_engaged.startswith("Not(engaged[c]) (")
    assert two.why_not(armed_child, "take", 2) == "it is enabled"
    assert two.why_not(armed_child, "arm", 2) == not_engaged
    assert two.why_not(armed_child, "arm", 1) == serving
    assert two.why_not(armed_child, "arm", 0).endswith("nobody")
    assert two.why_not(armed_child, "all_gone") == conjunct(two, "all_gone", 0)
    several = state(two, shutdown=Shutdown.ORDERLY, in_use={1: True})
    assert two.why_not(several, "assign", 1, 5) == conjunct(two, "assign", 1)


def test_a_step_that_is_not_enabled_is_refused_with_the_reason(two, armed_child):
    with pytest.raises(ValueError, match="is not enabled") as refused:
        two.step(armed_child, "arm", 2)
    assert str(refused.value) == f"arm(2,) is not enabled: {conjunct(two, 'arm', 2)}"
    assert two.enabled(armed_child, "arm", 2) is False
    assert two.enabled(armed_child, "take", 2) is True


# --- Words -----------------------------------------------------------------------------------------------------------


@functools.cache
def is_used_in(instance):
    return instance.predicate(used[word], (word,))


def fresh_words(instance, state):
    is_used = is_used_in(instance)
    return [each for each in instance.members(word) if not is_used(state, state, 0, each)]


def test_a_word_is_fresh_while_it_stands_nowhere_and_a_reserved_one_never(two):
    assert fresh_words(two, two.initial) == [5, 6, 7]
    assert fresh_words(two, state(two, flag={1: 6})) == [5, 7]
    assert fresh_words(two, state(two, clean={2: 7})) == [5, 6]
    assert fresh_words(two, state(two, flag={1: 5, 2: 6}, clean={1: 5, 2: 5})) == [7]
    assert fresh_words(two, state(two, flag={1: 1, 2: 2}, clean={1: 0})) == [5, 6, 7]


def test_a_word_that_was_released_is_fresh_again(two):
    assigned = two.step(two.initial, "assign", 1, 5)
    assert fresh_words(two, assigned) == [6, 7]
    assert fresh_words(two, two.step(assigned, "fork_fails")) == [5, 6, 7]


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
        clean={1: 5},
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


def sought(instance, look_for, name):
    """Return for a step (before, after, who) the members for which what is sought is there."""
    watch = instance.watch({name: look_for[name]})
    return lambda before, after, who: [binding for _, binding in watch(before, after, who)]


VIOLATIONS, PREMISES = violations(by_name(REFERENCE).values()), premises(by_name(REFERENCE).values())
SUPERVISOR, ITSELF, ENVIRONMENT = (list(Who).index(who) for who in (Who.SUPERVISOR, Who.CHILD, Who.ENVIRONMENT))


def test_a_violation_names_the_members_for_which_it_is_one(two):
    shared = state(two, phase={1: Phase.SERVING, 2: Phase.EXITED}, slot_of={1: 2, 2: 2})
    violated = sought(two, VIOLATIONS, "slot_has_one_owner")
    assert violated(shared, shared, 0) == [(1, 2), (2, 1)]
    assert violated(two.initial, two.initial, 0) == []


def test_a_step_property_reads_both_states_and_who_took_the_step(two):
    violated = sought(two, VIOLATIONS, "flag_follows_lifecycle")
    assigned = two.step(two.initial, "assign", 2, 5)
    assert violated(two.initial, assigned, SUPERVISOR) == []
    assert violated(two.initial, assigned, ITSELF) == [(2,)]
    assert violated(two.initial, assigned, ENVIRONMENT) == [(2,)]
    assert violated(assigned, assigned, ITSELF) == []


def test_a_witness_satisfies_the_premise(two):
    witness = sought(two, PREMISES, "slot_has_one_owner")
    assert witness(two.initial, two.initial, 0) == []
    lively = state(two, phase={1: Phase.SERVING, 2: Phase.EXITED}, slot_of={1: 1, 2: 2})
    assert witness(lively, lively, 0) == [(1, 2), (2, 1)]


def test_several_things_are_watched_at_once_and_each_is_named(two):
    watch = two.watch(
        {
            "a slot is in use": Sought((slot,), in_use[slot], on_states=True),
            "nothing is torn": Sought((), negate(torn), on_states=True),
            "a child is forked": Sought(
                (child,), both(phase[child] == Phase.NONE, after(phase[child]) != Phase.NONE), on_states=False
            ),
        }
    )
    assigned = two.step(two.initial, "assign", 2, 5)
    forked = two.step(assigned, "fork", 2)
    assert watch(two.initial, assigned, 0) == [("nothing is torn", ())]
    assert watch(assigned, forked, 0) == [
        ("a slot is in use", (2,)), ("nothing is torn", ()), ("a child is forked", (2,))
    ]  # fmt: skip
    assert two.watch({})(assigned, forked, 0) == []


# --- All actions at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_all_actions_in_one_function_are_the_actions_one_by_one(reachable, instance, profile):
    """`successors` hoists each condition out of the loops it does not need; here every action is asked by itself."""
    for size in [(1, 1, "+stray", profile), (1, 1, "+grandchild", profile), (2, 1, "calm", profile)]:
        here = instance(*size)
        for each in sorted(reachable(*size))[:: 1 + len(reachable(*size)) // 150]:
            one_by_one = [
                (position, arguments, compiled.next_state(each, *arguments))
                for position, compiled in enumerate(here.actions.values())
                for arguments in itertools.product(*compiled.domains)
                if compiled.enabled(each, *arguments)
            ]
            assert here.successors(each) == one_by_one


def test_the_actions_of_an_instance_are_those_of_its_system():
    stray = of_size(1, 1, REFERENCE, "+stray")
    assert list(stray.actions) == [action.name for action in stray.system.actions]
    assert stray.actions["stray_write"].domains == (range(1, 2), range(1, 2), (0, 1, 2, 5, 6))
    assert of_size(1, 1, V18, "+stray").actions["stray_write"].domains == (range(1, 2), range(1, 2), (0, 1, 2, 3, 4))
