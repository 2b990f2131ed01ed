"""The slot table alone, in one process."""

import pytest

from armed import SlotsExhausted, SlotState, SlotTable, slots
from armed.slots import MAX_SLOTS, active_word


@pytest.fixture
def table(nothing_left):
    table = SlotTable(3)
    yield table
    table.close()


def test_slots_are_numbered_from_one_and_given_out_once(table):
    # C14: no two owners
    assert [table.assign()[0] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(SlotsExhausted, match="all 3 slots"):
        table.assign()


def test_a_released_slot_is_given_out_again(table):
    for _ in range(3):
        table.assign()
    table.release(2)
    assert table.assign()[0] == 2


def test_each_assignment_has_a_token_of_its_own(table):
    tokens = set()
    for _ in range(1000):
        slot, token = table.assign()
        assert token not in (0, 2**64 - 1)
        assert table.word(slot) == table.token(slot) == token
        assert table.release(slot) == token
        tokens.add(token)
    assert len(tokens) == 1000


def test_the_states_are_unused_assigned_active_foreign(table):
    assert table.state(1) is SlotState.UNUSED
    slot, token = table.assign()
    assert table.state(slot) is SlotState.ASSIGNED
    word = table.view(slot)
    word[0] = active_word(token)
    assert table.state(slot) is SlotState.ACTIVE
    for stray in (0, 1, token ^ 1, 2**64 - 1):
        word[0] = stray
        assert table.state(slot) is SlotState.FOREIGN
    word.release()


@pytest.mark.parametrize("stray", [0, 1, 2**64 - 1])
def test_release_is_total_and_says_what_it_found(table, stray):
    slot, _ = table.assign()
    with table.view(slot) as word:
        word[0] = stray
    assert table.release(slot) == stray
    assert table.state(slot) is SlotState.UNUSED


def test_a_stray_write_to_a_free_slot_stops_nobody(table):
    with table.view(1) as word:
        word[0] = 2**64 - 1
    assert table.state(1) is SlotState.FOREIGN
    slot, token = table.assign()
    assert (slot, table.word(slot), table.state(slot)) == (1, token, SlotState.ASSIGNED)


def test_a_slot_that_is_not_in_use_is_not_released(table):
    slot, _ = table.assign()
    table.release(slot)
    for wrong in (slot, 2, 0, -1, 4):
        with pytest.raises(ValueError, match="not in use"):
            table.release(wrong)
    assert [table.assign()[0] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("wrong", [0, -1, 4])
def test_there_is_no_slot_outside_the_table(table, wrong):
    for look in (table.word, table.state, table.view):
        with pytest.raises(ValueError, match="numbered from 1 to 3"):
            look(wrong)


def test_a_view_reaches_its_own_word_only(table):
    with table.view(2) as word:
        assert len(word) == 1
        with pytest.raises(IndexError):
            word[1] = 0


def test_word_zero_is_never_written(table):
    for _ in range(3):
        table.assign()
    for slot in (1, 2, 3):
        table.release(slot)
    assert table._words[0] == 0


def test_the_memory_cannot_be_resized(table):
    table._words.release()
    with pytest.raises(PermissionError):
        table._memory.resize(8)


@pytest.mark.parametrize("size", [0, -1, MAX_SLOTS + 1])
def test_too_few_or_too_many_slots_are_refused(size):
    with pytest.raises(ValueError, match="1 to 1048576"):
        SlotTable(size)


@pytest.mark.parametrize("size", ["2", 2.0, None])
def test_a_number_of_slots_is_an_integer(size):
    with pytest.raises(TypeError):
        SlotTable(size)


def test_the_largest_table_touches_no_page_that_it_does_not_use():
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1])

    before = resident()
    table = SlotTable(MAX_SLOTS)
    table.assign()
    assert resident() - before < 100  # pages, of 2,048
    table.close()
    table.close()


def test_a_token_is_never_a_word_that_means_something_else(table, monkeypatch):
    drawn = [bytes(8), b"\xff" * 8, b"\x01" * 8]
    monkeypatch.setattr(slots.os, "urandom", lambda size: drawn.pop(0))
    assert table.assign() == (1, 0x0101010101010101)
    assert drawn == []
