"""What an implementation of the switch must be able to do to be held to the model, and what it lets be seen.

The harness tells children what to do and looks at flags, decisions, the generation, and a resource of its own. It never
tells the supervisor how to decide. Children are numbered by the implementation as they are started; slots from 1.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from armed_model.lifecycle import SlotState


class Step(enum.Enum):
    """What a living child can be told to do. The name is that of the model's action where it has one."""

    HOOK = "hook"
    ARM = "arm"
    TAKE = "take"
    TAKE_REFUSED = "take_refused"
    """The take fails and undoes what it did: nothing is taken, nothing is spoilt."""
    TAKE_FAILS = "take_fails"
    TAKE_FAILS_LATE = "take_fails_late"
    GIVE = "give"
    GIVE_FAILS = "give_fails"
    GIVE_FAILS_LATE = "give_fails_late"
    DISARM = "disarm"
    LEAVE = "leave"
    """Begin to leave in the orderly way with status 0, and stop before the first give-back."""
    SCRIBBLE = "scribble"
    """Write a foreign word over the flag of its own slot."""
    GRANDCHILD = "grandchild"
    """Fork a process that leaves through the child's own exit path; wait for its end."""
    FREEZE = "freeze"
    """Stop responding (SIGSTOP): from now on only SIGKILL helps."""

    def __str__(self) -> str:
        return self.value


class Exit(NamedTuple):
    """What an exit kind is to the model."""

    orderly: bool
    status: int


class ExitKind(enum.Enum):
    """How a child can be made to end: each with what it is to the model. This is the one table of them."""

    RETURN = ("return", Exit(True, 0))
    EXCEPTION = ("an exception", Exit(True, 1))
    SYS_EXIT_0 = ("sys.exit(0)", Exit(True, 0))
    SYS_EXIT_1 = ("sys.exit(1)", Exit(True, 1))
    SYS_EXIT_2 = ("sys.exit(2)", Exit(True, 2))
    RAW_EXIT_0 = ("_exit(0)", Exit(False, 0))
    RAW_EXIT_1 = ("_exit(1)", Exit(False, 1))
    RAW_EXIT_2 = ("_exit(2)", Exit(False, 2))
    SIGTERM = ("SIGTERM", Exit(True, 1))
    SIGKILL = ("SIGKILL", Exit(False, -9))
    SIGSEGV = ("SIGSEGV", Exit(False, -11))

    @property
    def exit(self) -> Exit:
        """Orderly or raw, and the status."""
        return self.value[1]

    def __str__(self) -> str:
        return self.value[0]


class Decided(enum.Enum):
    """What the supervisor made of a death."""

    CLEAN = "clean"
    CRASH = "crash"
    BOOK_KEEPING = "book-keeping"
    """A recovery, or the end, was under way: nothing was decided."""


@dataclass(frozen=True)
class Death:
    """One death that the supervisor has dealt with: whose, with which status, and what was made of it."""

    child: int
    status: int
    decided: Decided


@dataclass(frozen=True)
class Observation:
    """What can be seen now. `deaths` are all so far, in the order in which the supervisor dealt with them."""

    flags: Mapping[int, SlotState]
    """slot -> what it holds: every slot, as long as the supervisor has not stopped."""
    children: Mapping[int, int] = field(default_factory=dict)
    """child -> its slot; those not reaped yet."""
    deaths: tuple[Death, ...] = ()
    generation: int = 1
    resource: Mapping[int, int] = field(default_factory=dict)
    """child -> how many entries of the harness's resource it holds; those not reaped yet."""
    stopped: bool = False


class Refused(Exception):
    """The implementation refused a step, or to start a child."""


class Implementation(Protocol):
    """An implementation of the switch under test; a new one is made, without arguments, for each history.

    Every call returns within a limit of its own, or raises. What it raises, other than Refused where that is said, is
    reported as a difference, and so is a call that takes longer than `calls.LIMIT`. SIGALRM belongs to the harness.
    """

    @property
    def cannot(self) -> frozenset[Step | ExitKind]:
        """The steps and exit kinds that this implementation cannot express.

        They are never ordered, and the report names them, and all that is not looked at for that reason.
        """

    def open(self, slots: int) -> None:
        """Start the supervisor with so many slots."""

    def start(self) -> int:
        """Start a child and return its number; it stands before its exit path. Raises Refused."""

    def step(self, child: int, step: Step) -> None:
        """Have a living child take a step, and return when it is taken. Raises Refused; then nothing has changed."""

    def end(self, child: int, kind: ExitKind) -> None:
        """Have a living child end, and return when it is dead. The supervisor may not have noticed yet."""

    def supervise(self) -> None:
        """Let the supervisor deal with every death so far, and finish a recovery that no stuck child holds up."""

    def stop_supervisor(self) -> None:
        """Ask for an orderly shutdown, which after a short time becomes an immediate one, and wait for its end."""

    def observe(self) -> Observation:
        """Look, and change nothing."""

    def close(self) -> None:
        """End everything, also after a call that failed, `open` included.

        Nothing may be left: no descriptor, no name, and no process, which is checked.
        """
