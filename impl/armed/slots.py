"""The slot table: one shared word for each slot, and the supervisor's private record of who has which. No policy.

A slot is unused, assigned or active. The supervisor assigns it before it starts a child; the child makes it active
when it arms the switch, and assigned again when it disarms; the supervisor releases it when the child is gone.
The shared word says which it is:

    0                      unused
    token                  assigned: the clean value, drawn afresh for each assignment
    ~token                 active: the child is armed
    anything else          foreign: somebody wrote where he should not

No lock and no barrier is needed: a slot's word is written by the supervisor before the fork, by its one child from
then to its death, and by the supervisor after it has seen the death; fork and wait order the hand-over.

The words are shared and may be scribbled upon; what the supervisor does depends on its private record, never on a
word. A word is read for one purpose, once its child will not change it any more: to say whether it still is clean.
Source: PostgreSQL's PMSignalState and pmsignal.c; the private record is commit 18a4a620e2de.
"""

from __future__ import annotations

import contextlib
import enum
import io
import itertools
import mmap
import operator
import os
from typing import Final

from armed.errors import Closed, SlotsExhausted

with contextlib.suppress(ImportError):  # not a Unix; nothing below is called there
    import fcntl

__all__ = ["MAX_SLOTS", "SlotState", "SlotTable", "active_word", "attach"]

MAX_SLOTS: Final = 1 << 20
WORD: Final = 8  # bytes
_ALL_ONES: Final = (1 << 64) - 1


class SlotState(enum.Enum):
    """What a slot's word says, in the light of the supervisor's record."""

    UNUSED = "unused"
    ASSIGNED = "assigned"
    ACTIVE = "active"
    FOREIGN = "foreign"


def active_word(token: int) -> int:
    """Return the word of an armed slot: the complement, so that no single stray bit makes it clean."""
    return token ^ _ALL_ONES


class SlotTable:
    """Slots 1 to `size` in memory shared with every child forked later; slot 0 is no slot and is never written.

    Pages of slots that were never used are never touched.

    Raises `ValueError` for a size below 1 or above `MAX_SLOTS`, `OSError` when there is no memory or descriptor.
    """

    __slots__ = ("_file", "_freed", "_highest", "_memory", "_tokens", "_words", "size")

    def __init__(self, size: int) -> None:
        self.size: Final = check_size("size", size)
        self._file = sealed_file("armed-slots", self.size + 1)  # kept open for children that are spawned
        try:
            self._memory = mmap.mmap(self._file.fileno(), 0)
        except BaseException:
            self._file.close()
            raise
        # An item store through this view is one aligned 8-byte store (struct.pack_into writes byte by byte).
        self._words = memoryview(self._memory).cast("Q")
        self._tokens: dict[int, int] = {}  # slots in use; private, never read from shared memory
        self._freed: list[int] = []
        self._highest = 0  # slots above it were never given out

    def assign(self) -> tuple[int, int]:
        """Give out a free slot: unused -> assigned. Return the slot and its token. O(1).

        For the supervisor, before the fork. The old word is not looked at: a stray write to a free slot must not
        stop the supervisor (commit 18a4a620e2de). Raises `SlotsExhausted` (claim C16), `Closed`.
        """
        self._require_open()
        token = _draw_token()
        if self._freed:
            slot = self._freed.pop()
        elif self._highest < self.size:
            self._highest = slot = self._highest + 1
        else:
            raise SlotsExhausted(f"all {self.size} slots are in use: wait for a child to end, or ask for more slots")
        self._tokens[slot] = token
        self._words[slot] = token
        return slot, token

    def release(self, slot: int) -> int:
        """Take a slot back: any state -> unused. Return the word it held, read exactly once. O(1).

        For the supervisor, when the slot's child is dead or was never started. Legal whatever the word is: an active
        one is the switch firing (claim C1). Raises `ValueError` if the slot is not in use, `Closed`.
        """
        self._require_open()
        self.token(slot)
        word = self._words[slot]
        self._words[slot] = 0
        # One call of C code, or an exception of a signal handler could come between and the slot be lost.
        self._freed.extend(itertools.compress((slot,), map(self._tokens.pop, (slot,))))
        return word

    def in_use(self) -> dict[int, int]:
        """Return the slots in use with their tokens."""
        return dict(self._tokens)

    @property
    def free(self) -> int:
        """How many slots are not in use."""
        return self.size - len(self._tokens)

    def in_use_by(self, slot: int, token: int) -> bool:
        """Whether this is the assignment that a slot is in use by."""
        return self._tokens.get(slot) == token

    def recount(self) -> None:
        """Find the free slots anew from those in use: after an exception in the middle of an assign or a release."""
        self._freed = [slot for slot in range(self._highest, 0, -1) if slot not in self._tokens]

    def token(self, slot: int) -> int:
        """Return the clean value of a slot in use. Raises `ValueError` if it is not in use."""
        try:
            return self._tokens[slot]
        except KeyError:
            raise ValueError(f"slot {slot} is not in use: name one that assign() gave out") from None

    def word(self, slot: int) -> int:
        """Return the shared word of a slot as it is now. Raises `ValueError` if there is no such slot, `Closed`."""
        self._require_open()
        if not 1 <= slot <= self.size:
            raise ValueError(f"there is no slot {slot}: slots are numbered from 1 to {self.size}")
        return self._words[slot]

    def state(self, slot: int) -> SlotState:
        """Return what a slot's word says now; for observers. Raises as `word` does."""
        word, token = self.word(slot), self._tokens.get(slot, 0)
        if word == token:
            return SlotState.ASSIGNED if token else SlotState.UNUSED
        return SlotState.ACTIVE if token and word == active_word(token) else SlotState.FOREIGN

    def view(self, slot: int) -> memoryview:
        """Return a view of one word: its holder cannot reach another slot, and needs no index arithmetic."""
        self.word(slot)
        return self._words[slot : slot + 1]

    def fileno(self) -> int:
        """Return the descriptor of the memory, for `attach` in a child that is spawned."""
        return self._file.fileno()

    def close(self) -> None:
        """Free this process's mapping; a slot's word can no longer be read. Harmless when repeated."""
        self._words.release()
        self._memory.close()
        self._file.close()

    def _require_open(self) -> None:
        if self._memory.closed:
            raise Closed("the generation of this slot table is over and its memory is freed: ask a living supervisor")


def attach(descriptor: int, slot: int) -> memoryview:
    """Map the table that a descriptor stands for; return one slot's word. Closes the descriptor."""
    try:
        memory = mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)
    return memoryview(memory).cast("Q")[slot : slot + 1]


def sealed_file(name: str, words: int) -> io.FileIO:
    """Return a file of memory, all 0, to be mapped and shared; it lives as long as somebody has it mapped or open.

    It has no name in any directory, so that nothing is left behind however this process ends, and is sealed: a child
    that could shrink it would give the supervisor a SIGBUS. Raises `OSError` when there is no memory or descriptor.
    """
    opened: list[io.FileIO] = []
    try:
        # One call of C code opens and records, as in Watch.add.
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        opened.extend(map(io.FileIO, map(os.memfd_create, (name,), (flags,)), ("r+",)))
        os.ftruncate(opened[0].fileno(), words * WORD)
        fcntl.fcntl(opened[0].fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return opened[0]
    except BaseException:
        for file in opened:
            file.close()
        raise


def check_size(name: str, size: int) -> int:
    """Return the number of slots, or raise `ValueError` (`TypeError`) if there cannot be that many."""
    wrong = f"{name} is {size!r}: give a whole number from 1 to {MAX_SLOTS}"
    if isinstance(size, bool) or not hasattr(type(size), "__index__"):
        raise TypeError(wrong)
    if not 1 <= operator.index(size) <= MAX_SLOTS:
        raise ValueError(wrong)
    return operator.index(size)


def _draw_token() -> int:
    """Return 64 random bits that are neither 0 (unused) nor all ones, whose complement 0 is.

    Random, so that a word left over from an earlier assignment, or written blindly, is never this one's clean value.
    """
    while (token := int.from_bytes(os.urandom(WORD), "little")) in (0, _ALL_ONES):
        pass
    return token
