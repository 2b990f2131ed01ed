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
from armed_model.profiles import Profile


class Step(enum.Enum):
    """What a living child can be told to do. The name is that of the model's action where it has one."""

    SERVE = "serve"
    """Go through what is left of the start-up, to its own code. In `reference`: register the exit path. In PostgreSQL's
    profiles, to take and to arm is part of it."""
    STREAM = "stream"
    """The same, and then turn to sending the write-ahead log (PostgreSQL's walsender)."""
    ARM = "arm"
    TAKE = "take"
    TAKE_REFUSED = "take_refused"
    """The take fails and undoes what it did: nothing is taken, nothing is spoilt."""
    TAKE_FAILS = "take_fails"
    """Cut short by KeyboardInterrupt: nobody knows whether it is taken."""
    TAKE_FAILS_FOR_MEMORY = "take_fails_for_memory"
    """The same by MemoryError."""
    TAKE_FAILS_OTHERWISE = "take_fails_otherwise"
    """The same by another BaseException that is no Exception."""
    TAKE_FAILS_LATE = "take_fails_late"
    GIVE = "give"
    GIVE_FAILS = "give_fails"
    GIVE_FAILS_LATE = "give_fails_late"
    DISARM = "disarm"
    LEAVE = "leave"
    """Begin to leave in the orderly way with status 0, and stop before the first give-back."""
    SCRIBBLE = "scribble"
    """Write a foreign word over the flag of its own slot: where values are drawn, that of an earlier assignment."""
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
    SYS_EXIT_3 = ("sys.exit(3)", Exit(True, 3))
    RAW_EXIT_0 = ("_exit(0)", Exit(False, 0))
    RAW_EXIT_1 = ("_exit(1)", Exit(False, 1))
    RAW_EXIT_2 = ("_exit(2)", Exit(False, 2))
    RAW_EXIT_3 = ("_exit(3)", Exit(False, 3))
    SIGTERM = ("SIGTERM", Exit(True, 1))
    SIGKILL = ("SIGKILL", Exit(False, -9))
    SIGSEGV = ("SIGSEGV", Exit(False, -11))

    @property
    def exit(self) -> Exit:
        """Orderly or raw, and the status."""
        return self.value[1]

    def __str__(self) -> str:
        return self.value[0]


class Circumstance(enum.Enum):
    """What can be arranged for what comes next."""

    FORK_FAILS = "fork_fails"
    """The next fork fails, once: that start is refused, and nothing is lost by it."""
    STARTUP_FAILS = "startup_fails"
    """The next generation cannot be made: the supervisor stops by itself, with no child left."""
    PATIENCE_ENDS = "patience_ends"
    """From now on a recovery soon kills who is stuck, and `supervise` returns when it has."""

    def __str__(self) -> str:
        return self.value


Possible = Step | ExitKind | Circumstance
"""What can be ordered, and so what an implementation may be unable to do."""


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
    status: int | None
    """None where nobody can tell: whom a supervisor of PostgreSQL's ends, of that it does not always say how."""
    decided: Decided


@dataclass(frozen=True)
class Observation:
    """What can be seen now. `deaths` are all so far, in the order in which the supervisor dealt with them."""

    flags: Mapping[int, SlotState]
    """slot -> what it holds: every slot, as long as the supervisor has not stopped."""
    children: Mapping[int, int] = field(default_factory=dict)
    """child -> its slot, 0 where it has none; those not reaped yet. A dead-end child has none."""
    auxiliary: frozenset[int] = frozenset()
    """Those of them that the supervisor has started of its own accord."""
    deaths: tuple[Death, ...] = ()
    generation: int = 1
    resource: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """child -> which entries of the harness's resource it holds, by any numbers; those not reaped yet."""
    stopped: bool = False


class Refused(Exception):
    """The implementation refused a step, or to start a child."""


class Cannot(Exception):
    """What was ordered cannot be expressed, ever or just now: nothing was ordered, and nothing has changed."""


class NotHere(Exception):
    """What the implementation needs is not on this machine; the message says what. The model has no part in it."""


class Implementation(Protocol):
    """An implementation of the switch under test; a new one is made, without arguments, for each history.

    Every call returns within a limit of its own, or raises. What it raises, other than Refused and Cannot where that is
    said, is reported as a difference, and so is a call that takes longer than `calls.LIMIT`; but NotHere ends the run.
    The supervisor acts only inside `start`, `supervise` and `stop_supervisor`: one that reaps at once, by itself, is
    taken for wrong. To make an implementation begins nothing, neither a process nor anything else: `open` does.
    SIGALRM belongs to the harness.
    """

    @property
    def cannot(self) -> frozenset[Possible]:
        """The steps, exit kinds and circumstances that this implementation cannot express.

        They are never ordered, and the report names them, and all that is not looked at for that reason.
        """

    @property
    def profile(self) -> Profile:
        """The profile that it is held to. Need not be there: without it, that is `reference`."""

    def open(self, slots: int) -> int | None:
        """Start the supervisor with so many slots. Where it cannot have so few, return how many it has."""

    def start(self) -> int:
        """Start a child and return its number; it stands before SERVE, or is a dead-end child. Raises Refused, Cannot.

        Deaths may be dealt with before.
        """

    def step(self, child: int, step: Step) -> None:
        """Have a living child take a step, and return when it is taken.

        Raises Refused and Cannot; then nothing has changed.
        """

    def end(self, child: int, kind: ExitKind) -> None:
        """Have a living child end, and return when it is dead. The supervisor may not have noticed yet.

        Raises Cannot.
        """

    def arrange(self, circumstance: Circumstance) -> None:
        """Arrange for what comes next. Not called, and need not be there, where none can be arranged."""

    def supervise(self) -> None:
        """Let the supervisor deal with every death so far, and finish a recovery that no stuck child holds up."""

    def stop_supervisor(self) -> None:
        """Ask for an orderly shutdown and wait for its end. Becomes an immediate one only for a child that is stuck."""

    def observe(self) -> Observation:
        """Look, and change nothing."""

    def close(self) -> None:
        """End everything, also after a call that failed, `open` included.

        Nothing may be left: no descriptor, no name, and no process, which is checked.
        """
