"""Slot 0 and nobody are never written, and who is not there is blank: in every reachable state, by every step."""

import pytest

from armed_model.interpret import INDEX
from armed_model.lifecycle import Who
from armed_model.system import Phase, in_use, phase, variables

OF_A_CHILD = ("phase", "slot_of", "token", "engaged", "holds", "failed", "status", "armed", "orderly")
OF_A_SLOT = ("flag", "clean", "in_use", "owner")

INSTANCES = [(2, 1, "calm"), (1, 2, "calm"), (1, 1, "+stray"), (1, 2, "+stray")]


def test_every_array_is_of_slots_or_of_children():
    arrays = {variable.name: variable.index.name for variable in variables if variable.index is not None}
    assert arrays == {
        **dict.fromkeys(OF_A_CHILD, "Child"),
        **dict.fromkeys(OF_A_SLOT, "Slot"),
        "used": "Word",
    }


@pytest.mark.parametrize("size", INSTANCES, ids=str)
def test_slot_zero_and_nobody_are_blank(reachable, size):
    for state in reachable(*size):
        for name in (*OF_A_CHILD, *OF_A_SLOT):
            assert state[INDEX[name]][0] == 0, (name, state)


@pytest.mark.parametrize("size", INSTANCES, ids=str)
def test_no_step_writes_at_slot_zero_or_for_nobody(reachable, instance, size):
    here = instance(*size)
    written = {
        name: [
            (update.variable.name, here.predicate(update.index, each.action.of))
            for update in each.action.effect
            if update.index is not None and update.variable.name != "used"
        ]
        for name, each in here.actions.items()
    }
    counted = 0
    for state in reachable(*size):
        for name, arguments, _ in here.steps(state):
            for variable, index in written[name]:
                assert index(state, state, 0, *arguments) > 0, (name, variable, state)
                counted += 1
    assert counted > 1000


@pytest.mark.parametrize("size", INSTANCES, ids=str)
def test_a_child_that_is_not_there_is_blank(reachable, instance, size):
    here = instance(*size)
    for state in reachable(*size):
        for child in range(1, here.size.children + 1):
            if here.read(state, phase, child) is Phase.NONE:
                assert [state[INDEX[name]][child] for name in OF_A_CHILD] == [0] * len(OF_A_CHILD), state


@pytest.mark.parametrize("size", [size for size in INSTANCES if size[2] == "calm"], ids=str)
def test_a_slot_that_is_not_in_use_is_blank(reachable, instance, size):
    here = instance(*size)
    for state in reachable(*size):
        for slot in range(1, here.size.slots + 1):
            if not here.read(state, in_use, slot):
                assert [state[INDEX[name]][slot] for name in OF_A_SLOT] == [0] * len(OF_A_SLOT), state


@pytest.mark.parametrize("size", INSTANCES, ids=str)
def test_a_step_of_a_child_touches_itself_and_its_own_flag_only(reachable, instance, size):
    """What a child writes: its own row, and the flag of its own slot; a stray write one flag, and nothing else."""
    here = instance(*size)
    rows = [(INDEX[name], name in OF_A_CHILD) for name in (*OF_A_CHILD, *OF_A_SLOT)]
    kept = [at for name, at in INDEX.items() if name not in (*OF_A_CHILD, *OF_A_SLOT)]
    counted = 0
    for state in reachable(*size):
        for name, arguments, after in here.steps(state):
            by = here.actions[name].action.by
            if by is Who.SUPERVISOR:
                continue
            counted += 1
            child = arguments[0]
            slot = arguments[1] if by is Who.ENVIRONMENT else state[INDEX["slot_of"]][child]
            for at, is_of_a_child in rows:
                own = child if is_of_a_child and by is Who.CHILD else slot if at == INDEX["flag"] else None
                before_and_after = enumerate(zip(state[at], after[at], strict=True))
                assert all(old == new or i == own for i, (old, new) in before_and_after), (name, arguments, state)
            assert all(state[at] == after[at] for at in kept), (name, arguments, state)
    assert counted > 400
