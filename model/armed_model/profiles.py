"""What differs between versions of the switch, as data. A profile says what is done, never what holds.

Each profile of PostgreSQL is its predecessor and what changed; it stands for the last minor release of its line unless
the name says otherwise, and 15 stands for 16 and 17 too. The claims of the first commit are in `docs/claims.md`; what
came later is named by its commit in the profiles' sentences.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class Kind(enum.Enum):
    """What a child is for."""

    BACKEND = "backend"
    """Serves a client, or runs work of its own: has a slot, which is looked at when it dies."""
    WALSENDER = "walsender"
    """A backend that has turned to sending the write-ahead log."""
    AUXILIARY = "auxiliary"
    """A process of the server's own: bgwriter, checkpointer ...; in `reference`, what prepares a generation."""
    DEAD_END = "dead-end"
    """Tells a client that there is no room, or no service, and ends. Never has a slot."""


class Step(enum.Enum):
    """A step between the fork and a child's own code. A hook is what an orderly exit will do."""

    ASK = "ask"
    """Ask the kernel to be told of the supervisor's death."""
    CHECK = "check"
    """Check that the supervisor still lives: it may have died before the asking."""
    HOOK = "hook"
    """Register the exit path, which ends whatever engagement is open then."""
    TAKE = "take"
    ARM = "arm"
    HOOK_BOTH = "hook_both"
    """Register one hook that gives back, then disarms."""
    HOOK_GIVE = "hook_give"
    """Register a hook that gives back."""
    HOOK_DISARM = "hook_disarm"
    """Register a hook that disarms."""


class Decision(enum.Enum):
    """What the supervisor looks at when it decides whether a death is a crash."""

    STATUS_AND_SLOT = "the exit status and the slot"
    STATUS = "the exit status alone"
    SLOT = "the slot alone"


class CleanWord(enum.Enum):
    """What an assigned slot holds."""

    CONSTANT = "the same word always"
    FRESH = "a word that was never used before"


class Allocation(enum.Enum):
    """What the supervisor reads when it looks for a free slot."""

    SHARED = "the shared flags, while its own records say that there is one"
    PRIVATE = "its own records"
    PRIVATE_THEN_SHARED = "its own records; a flag that is not unused then ends the supervisor"


class InAnotherProcess(enum.Enum):
    """What keeps a child's exit hooks, or the end of its block, from being run by a fork of the child."""

    NOTHING = "nothing"
    GIVE_CHECKS_PID = "the give-back compares the process with the one that took, and stops it if they differ"
    TOKEN_IS_WIPED = "the child's token is wiped in a fork, and nothing is done without it"


class CrashAfterReset(enum.Enum):
    """What follows when a child that crashed between the reset and service is reaped."""

    BOOKED = "nothing: it is book-keeping"
    ON_THE_CLOCK = "a clock runs; where the new generation is not ready when it is over, recovery starts anew"
    DECIDED = "recovery starts anew"


class Cancel(enum.Enum):
    """Where a cancel request's pid and key are looked for, and how it is delivered once they have matched an entry."""

    BY_PID_OF_A_COPY = "in the registry as it was when the serving process was forked; by the pid"
    BY_PID = "in the registry; by the pid"
    BY_HANDLE = "in the registry; by a handle on the process, opened before the entry is read again"


@dataclass(frozen=True)
class Profile:
    """One version of the switch."""

    name: str
    sentence: str
    start: tuple[Step, ...]
    """From the fork to the child's own code. With ARM in it a child engages once; else as often as it likes."""
    clean_word: CleanWord
    allocation: Allocation
    failed_fork_releases: bool
    kinds: tuple[Kind, ...]
    with_a_slot: tuple[Kind, ...]
    looked_at: tuple[Kind, ...]
    """The kinds whose slot is looked at when they die."""
    auxiliaries_while_starting: bool
    """Whether auxiliary children start between the reset and service."""
    auxiliaries_while_running: bool
    dead_ends_in_recovery: bool
    """Whether clients get one while the others are being stopped, too; else only where no slot is free."""
    kills_stuck: bool
    """Whether SIGKILL follows for a child that the first signal did not end."""
    crash_after_reset: CrashAfterReset
    early_notice: bool
    """Whether an armed child's death may be known before the child can be reaped."""
    in_another_process: InAnotherProcess
    cancel: Cancel
    decision: Decision = Decision.STATUS_AND_SLOT

    @property
    def engages_once(self) -> bool:
        """Whether a child takes and arms on its way to its own code, and never again."""
        return Step.ARM in self.start


V8_4_0 = Profile(
    name="8.4.0",
    sentence="The switch as it was first released (969d7cd4315b).",
    start=(Step.TAKE, Step.ARM, Step.HOOK_BOTH),
    clean_word=CleanWord.CONSTANT,
    allocation=Allocation.SHARED,
    failed_fork_releases=False,
    kinds=(Kind.BACKEND, Kind.AUXILIARY, Kind.DEAD_END),
    with_a_slot=(Kind.BACKEND,),
    looked_at=(Kind.BACKEND,),
    auxiliaries_while_starting=False,
    auxiliaries_while_running=True,
    dead_ends_in_recovery=True,
    kills_stuck=False,
    crash_after_reset=CrashAfterReset.BOOKED,
    early_notice=False,
    in_another_process=InAnotherProcess.NOTHING,
    cancel=Cancel.BY_PID_OF_A_COPY,
)

V8_4_1 = replace(
    V8_4_0,
    name="8.4.1",
    sentence="A failed fork releases the slot (45f9b4646f2f).",
    failed_fork_releases=True,
)

V9_4 = replace(
    V8_4_1,
    name="9.4",
    sentence="Walsenders (9.0); SIGKILL for whoever is still there after five seconds (82233ce7ea42, 9.4).",
    kinds=(Kind.BACKEND, Kind.WALSENDER, Kind.AUXILIARY, Kind.DEAD_END),
    with_a_slot=(Kind.BACKEND, Kind.WALSENDER),
    looked_at=(Kind.BACKEND, Kind.WALSENDER),
    kills_stuck=True,
)

V15 = replace(
    V9_4,
    name="15",
    sentence="Allocation reads private records (18a4a620e2de); the give-back checks the pid (97550c071197); after a "
    "reset checkpointer and bgwriter run before redo (7ff23c6d277d): if one crashes then, only a clock is started.",
    allocation=Allocation.PRIVATE,
    auxiliaries_while_starting=True,
    crash_after_reset=CrashAfterReset.ON_THE_CLOCK,
    in_another_process=InAnotherProcess.GIVE_CHECKS_PID,
)

V18 = replace(
    V15,
    name="18",
    sentence="Arm before take, each with its own hook (2bbc261ddbdf); auxiliary children have slots, whose release "
    "nobody looks at, and assignment tests the shared flag again (a78af0427015); a crash before redo starts no clock; "
    "cancel requests are looked for in shared memory, not in a copy made by fork.",
    start=(Step.ARM, Step.HOOK_DISARM, Step.TAKE, Step.HOOK_GIVE),
    allocation=Allocation.PRIVATE_THEN_SHARED,
    with_a_slot=(Kind.BACKEND, Kind.WALSENDER, Kind.AUXILIARY),
    crash_after_reset=CrashAfterReset.BOOKED,
    cancel=Cancel.BY_PID,
)

REFERENCE = Profile(
    name="reference",
    sentence="What this project implements: the exit path first, then arm, take ... give back, disarm.",
    start=(Step.ASK, Step.CHECK, Step.HOOK),
    clean_word=CleanWord.FRESH,
    allocation=Allocation.PRIVATE,
    failed_fork_releases=True,
    kinds=(Kind.BACKEND, Kind.AUXILIARY, Kind.DEAD_END),
    with_a_slot=(Kind.BACKEND,),
    looked_at=(Kind.BACKEND,),
    auxiliaries_while_starting=True,
    auxiliaries_while_running=False,
    dead_ends_in_recovery=True,
    kills_stuck=True,
    crash_after_reset=CrashAfterReset.DECIDED,
    early_notice=True,
    in_another_process=InAnotherProcess.TOKEN_IS_WIPED,
    cancel=Cancel.BY_HANDLE,
)

NO_DEAD_MAN_SWITCH = replace(
    REFERENCE,
    name="no-dead-man-switch",
    sentence="`reference`, deciding by the exit status alone, as PostgreSQL did before 8.4 (C2).",
    decision=Decision.STATUS,
)

PROFILES = {profile.name: profile for profile in (V8_4_0, V8_4_1, V9_4, V15, V18, REFERENCE)}
CONTROLS = {profile.name: profile for profile in (NO_DEAD_MAN_SWITCH,)}
"""Negative controls: profiles that are wrong on purpose. A proof method that lets one pass is broken."""
