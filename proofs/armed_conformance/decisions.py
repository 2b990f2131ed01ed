"""The decision, implementation against model: every wait status with a word of each kind, and many words besides.

A slot's word has 64 bits, so that not all can be tried. What stands in `more_words` is what a wrong comparison would
most likely take for clean: words that differ from the token or from its complement in one bit, small numbers, and
random ones.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable

from armed import Decision, Kind, decide, exit_status
from armed_conformance.lockstep import Mismatch
from armed_model.interpret import Instance, Size, State
from armed_model.profiles import REFERENCE
from armed_model.profiles import Kind as ModelKind
from armed_model.system import (
    ACTIVE,
    OTHER,
    RESERVED,
    UNUSED,
    System,
    c,
    clean,
    decided_clean,
    flag,
    slot_of,
    status,
    status_is_clean,
)
from armed_model.system import kind as kind_of

WAIT_STATUSES = range(1 << 16)
TOKEN = 0x0123_4567_89AB_CDEF
ALL_ONES = (1 << 64) - 1
_CLEAN = len(RESERVED)  # the model's word for this assignment's clean value
_ANOTHER = len(RESERVED) + 1
WORDS = {
    "unused": (0, UNUSED.number),
    "clean": (TOKEN, _CLEAN),
    "active": (~TOKEN & ALL_ONES, ACTIVE.number),
    "the token of another assignment": (0xFEED_FACE_CAFE_F00D, _ANOTHER),
    "all ones": (ALL_ONES, OTHER.number),
}
"""What the slot may hold: its name, the word in shared memory, the word in the model."""

FEW_WAIT_STATUSES = (0x0000, 0x0100, 0x0200, 0x000F, 0x8000)
"""Exit 0, 1, 2, an end by SIGTERM, exit 128: what all of `more_words` are tried with."""


def more_words() -> dict[str, tuple[int, int]]:
    """Return more words that the slot may hold, as WORDS does: none is the token or means anything."""
    words = {}
    for bit in range(64):
        words[f"clean but for bit {bit}"] = TOKEN ^ 1 << bit
        words[f"active but for bit {bit}"] = ~TOKEN & ALL_ONES ^ 1 << bit
    for number in range(1, 17):
        words[f"the number {number}"] = number
    draw = random.Random(1)
    for each in range(1000):
        words[f"random word {each}"] = draw.getrandbits(64)
    return {name: (word, OTHER.number) for name, word in words.items()}


_NO_EXIT = 0x7F  # for the model: any status but 0 and 1


def status_by_the_system(wait_status: int) -> int:
    """Read a wait status by the macros of wait(2): what our own reading is compared with."""
    if os.WIFEXITED(wait_status):
        return os.WEXITSTATUS(wait_status)
    return -os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else _NO_EXIT


KINDS = {Kind.WORKER: ModelKind.BACKEND, Kind.STARTUP: ModelKind.AUXILIARY, Kind.DEAD_END: ModelKind.DEAD_END}
"""What the model calls the kinds of children; only workers have a slot."""


def compare_decisions(decide: Callable[[int, int, int, Kind], Decision] = decide) -> int:
    """Compare decisions about every wait status of every kind, and return how many.

    Raises Mismatch at the first difference.
    """
    instance = Instance(System(REFERENCE), Size(1, 1))
    with_slot = instance.predicate(decided_clean(REFERENCE), (c,))
    without = instance.predicate(status_is_clean(c), (c,))
    compared = 0
    more = WORDS | more_words()
    for wait_status in WAIT_STATUSES:
        seen = exit_status(wait_status)
        words = more if wait_status in FEW_WAIT_STATUSES else WORDS
        for kind, (name, (word, model_word)) in itertools.product(KINDS, words.items()):
            slot = 1 if kind is Kind.WORKER else 0
            state = _dead_child(instance, KINDS[kind], slot, status_by_the_system(wait_status), model_word)
            is_clean = (with_slot if slot else without)(state, state, 0, 1)
            expected = Decision.CLEAN if is_clean else Decision.CRASH
            got = decide(seen, word, TOKEN, kind)
            if got is not expected:
                raise Mismatch(
                    f"a {kind.value} child, wait status {wait_status:#06x} with a slot that is {name}: "
                    f"the model says {expected.value}, the implementation {got.value}"
                )
            compared += 1
    return compared


def _dead_child(instance: Instance, of_kind: ModelKind, slot: int, with_status: int, word: int) -> State:
    """Return a state in which child 1 had this slot, if any, and ended so; slot 1 holds the word."""
    values = list(instance.initial)
    of_kind_at = list(ModelKind).index(of_kind)
    for variable, value in (
        (kind_of, of_kind_at), (slot_of, slot), (status, with_status), (flag, word), (clean, _CLEAN),
    ):  # fmt: skip
        at = instance.index[variable.name]
        values[at] = (values[at][0], value, *values[at][2:])
    return tuple(values)
