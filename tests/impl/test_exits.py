"""Pure functions: what a status means, and what is decided about it."""

import os

import pytest

from armed import Decision, decide, exit_status
from armed.exits import UNKNOWN


def test_every_wait_status_means_what_the_system_says():
    for wait_status in range(0x10000):
        if os.WIFEXITED(wait_status):
            assert exit_status(wait_status) == os.WEXITSTATUS(wait_status)
        elif os.WIFSIGNALED(wait_status):
            assert exit_status(wait_status) == -os.WTERMSIG(wait_status)
        else:
            assert exit_status(wait_status) == UNKNOWN


@pytest.mark.parametrize("wrong", [-1, 0x10000])
def test_what_is_no_wait_status_is_refused(wrong):
    with pytest.raises(ValueError, match="16 bits"):
        exit_status(wrong)


TOKEN = 0x0123456789ABCDEF
WORDS = [0, TOKEN, TOKEN ^ (2**64 - 1), TOKEN + 1, 2**64 - 1]


def test_a_death_is_clean_iff_the_status_is_0_or_1_and_the_slot_holds_its_clean_value():
    clean = {
        (wait_status, word)
        for wait_status in range(0x10000)
        for word in WORDS
        if decide(exit_status(wait_status), word, TOKEN) is Decision.CLEAN
    }
    # In wait's encoding the exit status is the high byte; bit 7 of an exit is unused, and the system ignores it.
    assert clean == {(code << 8 | core, TOKEN) for code in (0, 1) for core in (0, 0x80)}


def test_what_is_no_exit_is_never_clean():
    assert decide(UNKNOWN, TOKEN, TOKEN) is Decision.CRASH
