"""Slot 0 and nobody are never written, and who is not there is blank: in every reachable state, by every step."""

import pytest

from armed_model.lifecycle import Who
from armed_model.profiles import PROFILES
from armed_model.system import CONTROL_ENVIRONMENTS, ENVIRONMENTS, OTHER, Mode, variables

OF_A_CHILD = (
    *("phase", "kind", "slot_of", "told", "token", "engaged", "to_give", "to_disarm", "holds", "failed", "status"),
    *("armed", "orderly"),
)
OF_A_SLOT = ("flag", "clean", "in_use", "owner")
OF_A_GRANDCHILD = ("copy_slot", "copy_of", "copy_token", "copy_gives", "copy_disarms")
OF_A_REQUEST = ("request", "aimed", "entry_gone", "handle_astray", "handle_gone")


def may_leave_a_flag(environment, profile):
    """Whether the flag of a slot that nobody has may be other than unused.

    A stray write may leave anything, a grandchild its parent's disarm, and 8.4.0 forgets the slot of a failed fork.
    """
    grandchild_disarms = profile not in ("15", "reference")
    return {"+stray": True, "+copy-back": True, "+grandchild": grandchild_disarms}.get(environment, profile == "8.4.0")


INSTANCES = [
    *[(1, 1, environment, profile) for profile in PROFILES for environment in {**ENVIRONMENTS, **CONTROL_ENVIRONMENTS}],
    *[(2, 1, environment, profile) for profile in PROFILES for environment in ("calm", "+orphan", "+cancel")],
    (2, 1, "+grandchild", "15"),
    (2, 1, "+grandchild", "reference"),
    (1, 2, "calm", "reference"),
]


def numbered(here, *names):
    """Return those of the variables that this instance has, with the place of each in a state."""
    return [(name, here.index[name]) for name in names if name in here.index]


def absent(here, state):
    """Whose rows are blank: the members of the sorts Child and Slot that are not there."""
    phase, owner = state[here.index["phase"]], state[here.index["owner"]]
    nowhere = {child for child in range(1, here.size.children + 1) if phase[child] == 0}
    launching = state[here.index["launching"]]
    return nowhere, {slot for slot in range(1, here.size.slots + 1) if owner[slot] == 0 and slot != launching}


def test_every_array_is_of_slots_or_of_children_and_every_scalar_is_known():
    arrays = {variable.name: variable.index.name for variable in variables if variable.index is not None}
    assert arrays == {
        **dict.fromkeys(OF_A_CHILD, "Child"),
        **dict.fromkeys(OF_A_SLOT, "Slot"),
        "used": "Word",
    }
    scalars = {"mode", "shutdown", "launching", "launching_as", "ticking", "owed", "torn"}
    assert {variable.name for variable in variables} - set(arrays) == {*scalars, *OF_A_GRANDCHILD, *OF_A_REQUEST}


@pytest.mark.parametrize("size", INSTANCES, ids=str)
def test_slot_zero_and_nobody_are_blank(reachable, instance, size):
    here = instance(*size)
    rows = numbered(here, *OF_A_CHILD, *OF_A_SLOT)
    assert len(rows) >= 10
    for state in reachable(*size):
        for name, at in rows:
            assert state[at][0] == 0, (name, state)


@pytest.mark.parametrize("size", INSTANCES, ids=str)
def test_no_step_writes_at_slot_zero_or_for_nobody(reachable, instance, size):
    here = instance(*size)
    written = [
        [
            (update.variable.name, here.predicate(update.index, action.of))
            for update in action.effect
            if update.index is not None and update.variable.name != "used"
        ]
        for action in here.system.actions
    ]
    counted = 0
    for state in reachable(*size):
        for position, arguments, _ in here.successors(state):
            for variable, index in written[position]:
                assert index(state, state, 0, *arguments) > 0, (position, variable, state)
                counted += 1
    assert counted > 1000


@pytest.mark.parametrize("size", INSTANCES, ids=str)
def test_a_child_that_is_not_there_is_blank(reachable, instance, size):
    here = instance(*size)
    rows = numbered(here, *OF_A_CHILD)
    for state in reachable(*size):
        for child in absent(here, state)[0]:
            assert not any(state[at][child] for _, at in rows), state


@pytest.mark.parametrize("size", INSTANCES, ids=str)
def test_a_slot_that_nobody_has_is_blank(reachable, instance, size):
    here = instance(*size)
    rows = numbered(here, "clean", "in_use", "owner")
    flag, mode = here.index["flag"], here.index["mode"]
    differ = 0
    for state in reachable(*size):
        if state[mode] == list(Mode).index(Mode.DEAD):  # a supervisor that died while launching releases nothing
            continue
        for slot in absent(here, state)[1]:
            assert not any(state[at][slot] for _, at in rows), state
            differ += state[flag][slot] != 0
    assert (differ > 0) is may_leave_a_flag(*size[2:])


@pytest.mark.parametrize("size", INSTANCES, ids=str)
def test_where_there_is_no_grandchild_or_no_request_nothing_is_left_of_one(reachable, instance, size):
    here = instance(*size)
    for there, of_it in (("copy_slot", OF_A_GRANDCHILD), ("request", OF_A_REQUEST)):
        if size[2] in ("+grandchild", "+cancel"):
            rows = [state[at] for state in reachable(*size) if there in here.index and not state[here.index[there]]
                    for _, at in numbered(here, *of_it)]  # fmt: skip
            assert not any(rows), there


@pytest.mark.parametrize("size", INSTANCES, ids=str)
def test_a_step_of_a_child_touches_itself_and_its_own_flag_only(reachable, instance, size):
    """What a child writes: its own row, and the flag of its own slot; a stray write one flag, and nothing else."""
    here = instance(*size)
    rows = [(at, name in OF_A_CHILD) for name, at in numbered(here, *OF_A_CHILD, *OF_A_SLOT)]
    copies = [here.index[name] for name in OF_A_GRANDCHILD if name in here.index]
    kept = {*here.index.values()} - {at for at, _ in rows}
    flag, slot_of = here.index["flag"], here.index["slot_of"]
    counted = 0
    for state in reachable(*size):
        for position, arguments, after in here.successors(state):
            action = here.system.actions[position]
            if action.by is not Who.CHILD and action.name != "stray_write":
                continue
            counted += 1
            child = arguments[0]
            slot = arguments[1] if action.by is Who.ENVIRONMENT else state[slot_of][child]
            for at, is_of_a_child in rows:
                if state[at] == after[at]:
                    continue
                own = child if is_of_a_child and action.by is Who.CHILD else slot if at == flag else None
                before_and_after = enumerate(zip(state[at], after[at], strict=True))
                assert all(old == new or i == own for i, (old, new) in before_and_after), (action.name, state)
            may_change = copies if action.name == "fork_grandchild" else []
            assert all(state[at] == after[at] or at in may_change for at in kept), (action.name, arguments, state)
    assert counted > 300


def test_a_word_that_nobody_gives_out_stands_in_a_flag_only_where_somebody_scribbles(reachable, instance):
    for profile in PROFILES:
        for environment in ("calm", "+stray"):
            here = instance(1, 1, environment, profile)
            flags = {state[here.index["flag"]][1] for state in reachable(1, 1, environment, profile)}
            assert (OTHER.number in flags) is (environment == "+stray"), profile
