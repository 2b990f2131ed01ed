"""What children do that are struck at each of their instructions; alone, so that a spawned one imports nothing more.

Byte `STAGE` of the shared page says how far the child has come; the bytes `HELD` are the resource, two for each thing
taken: both are set when it is taken and cleared, one after the other, when it is given back.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Final

HELD: Final = slice(0, 4)
STAGE: Final = 8
ENGAGED: Final = {2}
"""Stages in which the child certainly was armed; in others but these two it may be either."""
NOT_ENGAGED: Final = {0, 4}
"""Stages in which it certainly was not."""


def take(memory: Any, thing: int) -> None:
    """Acquire."""
    memory[2 * thing] = 1
    memory[2 * thing + 1] = 1


def give_back(memory: Any, thing: int) -> None:
    """Give back, in two steps."""
    memory[2 * thing] = 0
    memory[2 * thing + 1] = 0


class Manager:
    """The same as a context manager."""

    def __init__(self, memory: Any, thing: int) -> None:
        self.memory, self.thing = memory, thing

    def __enter__(self) -> None:
        take(self.memory, self.thing)

    def __exit__(self, *details: object) -> None:
        give_back(self.memory, self.thing)


def empty(me: Any, memory: Any) -> None:
    """Engage, and take nothing."""
    memory[STAGE] = 1
    with me.engage():
        memory[STAGE] = 2
        memory[STAGE] = 3  # from here on it may have been disarmed
    memory[STAGE] = 4


def holding(me: Any, memory: Any) -> None:
    """Take two things, and give them back."""
    memory[STAGE] = 1
    with me.engage() as hold:
        memory[STAGE] = 2
        hold.take(lambda: take(memory, 0), lambda: give_back(memory, 0))
        hold.enter(Manager(memory, 1))
        memory[STAGE] = 3
    memory[STAGE] = 4


def leaving_open(me: Any, memory: Any) -> None:
    """Leave everything to the exit path."""
    memory[STAGE] = 1
    hold = me.engage().__enter__()
    memory[STAGE] = 2
    hold.take(lambda: take(memory, 0), lambda: give_back(memory, 0))
    hold.enter(Manager(memory, 1))
    memory[STAGE] = 5


TARGETS: Final[dict[str, Callable[..., object]]] = {"empty": empty, "holding": holding, "leaving open": leaving_open}


def wait_for_ever(me: Any, shared: Any) -> None:
    """Hear nothing but signals."""
    while True:
        signal.pause()


def leave_armed(me: Any, shared: Any) -> None:
    """Crash, but not when it is started again."""
    with me.engage():
        if me.generation == 1:
            os._exit(0)


def clean(me: Any, shared: Any) -> None:
    """Engage, and leave in the orderly way."""
    with me.engage():
        pass
