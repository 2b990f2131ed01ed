"""The decision agrees with the model for every wait status and slot word, and a wrong one is found."""

import os

import pytest

from armed import Decision, Kind, decide, exit_status
from armed_conformance.decisions import (
    FEW_WAIT_STATUSES,
    WAIT_STATUSES,
    WORDS,
    compare_decisions,
    more_words,
    status_by_the_system,
)
from armed_conformance.lockstep import Mismatch


def test_every_decision_is_the_models():
    # C15: the culprit, for every status and word
    more = len(FEW_WAIT_STATUSES) * len(more_words())
    assert compare_decisions() == 3 * (65_536 * len(WORDS) + more) == 3 * (327_680 + 5 * 1144)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda status, word, token, kind: Decision.CLEAN if status in (0, 1) else Decision.CRASH,
        lambda status, word, token, kind: Decision.CLEAN if word == token else Decision.CRASH,
        lambda status, word, token, kind: Decision.CLEAN if status == 0 and word == token else Decision.CRASH,
        lambda status, word, token, kind: Decision.CLEAN if status in (0, 1, 2) and word == token else Decision.CRASH,
        lambda status, word, token, kind: Decision.CLEAN if status in (0, 1) and word else Decision.CRASH,
        lambda status, word, token, kind: decide(status, token if word == 2 else word, token),
        lambda status, word, token, kind: decide(status, word & 0xFFFF_FFFF, token & 0xFFFF_FFFF),
        lambda status, word, token, kind: decide(status, word >> 1, token >> 1),
        lambda status, word, token, kind: decide(status, word & ~(1 << 40), token & ~(1 << 40)),
        lambda status, word, token, kind: Decision.CLEAN if status in (0, 1) and word >> 63 == 0 else Decision.CRASH,
        lambda status, word, token, kind: decide(status, word, token),  # knows one kind only
        lambda status, word, token, kind: decide(status, word, token, Kind.STARTUP),
        lambda status, word, token, kind: decide(status, word, token, Kind.DEAD_END),
        lambda status, word, token, kind: decide(abs(status), word, token, kind),  # takes SIGHUP for exit status 1
    ],
)
def test_a_wrong_rule_is_found(wrong):
    with pytest.raises(Mismatch, match="wait status"):
        compare_decisions(wrong)


def test_wait_statuses_are_read_as_the_system_reads_them():
    for wait_status in WAIT_STATUSES:
        if os.WIFEXITED(wait_status) or os.WIFSIGNALED(wait_status):
            assert exit_status(wait_status) == status_by_the_system(wait_status)
        else:
            assert exit_status(wait_status) not in (0, 1)
