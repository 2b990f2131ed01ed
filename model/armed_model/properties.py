"""What is claimed of the system: named properties, each a sentence, a premise and a conclusion.

ALWAYS properties speak of every reachable state, STEP properties of every step from one: there `after(term)` reads the
state after the step, and `actor` is the process that takes it. The names are part of the interface.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from armed_model.lifecycle import ROWS, SlotState
from armed_model.system import (
    ACTIVE,
    CHILD,
    SLOT,
    UNUSED,
    WHO,
    Mode,
    Phase,
    Shutdown,
    armed,
    clean,
    engaged,
    failed,
    flag,
    holds,
    in_use,
    launching,
    mode,
    no_slot,
    orderly,
    owed,
    owner,
    phase,
    shutdown,
    slot_of,
    status,
    token,
    torn,
    variables,
)
from armed_model.terms import Parameter, Term, both, either, implies, negate, one_of

after = variables.primed

OF_A_SLOT = (flag, clean, in_use, owner)
OF_A_CHILD = (phase, slot_of, token, engaged, holds, failed, status, armed, orderly)


ASSUMPTIONS = {
    "A1": "Actions are atomic: each store of a flag is one aligned 8-byte store, each decision reads the flag once.",
    "A2": "Fork and wait order the stores: the child sees the supervisor's, the supervisor sees the dead child's.",
    "A3": "Each exit is reported once, and a pid is not reused before its process is reaped.",
    "A4": "SIGKILL ends a process.",
    "A5": "A generation has finitely many children.",
    "A6": "no_copy_back: nobody but the slot's owner writes this very assignment's clean word.",
    "A7": "Shared state is touched only between arm and disarm.",
    "A8": "Counting and ranking steps are on paper.",
    "A9": "The Python code is tested against the model, not proved.",
    "A10": "A token that is drawn was never used before.",
}
"""What every verdict rests on. Each property names those that it needs; A9 stands between all of them and the code."""

_ALL = ("A1", "A2", "A3", "A9", "A10")


class Kind(enum.Enum):
    """What a property speaks of."""

    ALWAYS = "always"
    STEP = "step"


@dataclass(frozen=True, eq=False)
class Property:
    """A claim: for every member of `over`, the premise implies the conclusion."""

    name: str
    sentence: str
    kind: Kind
    over: tuple[Parameter, ...]
    premise: Term
    conclusion: Term
    cites: tuple[str, ...]
    environment: str = "calm"
    assumes: tuple[str, ...] = _ALL

    @property
    def claim(self) -> Term:
        """The whole formula."""
        return implies(self.premise, self.conclusion)


# --- Vocabulary ------------------------------------------------------------------------------------------------------

actor = Parameter("actor", WHO)
c, d = Parameter("child", CHILD), Parameter("other_child", CHILD)
s = Parameter("slot", SLOT)

exists_c = phase[c] != Phase.NONE
exists_d = phase[d] != Phase.NONE
is_reaped = both(phase[c] == Phase.EXITED, after(phase[c]) == Phase.NONE)
is_given_a_slot = both(slot_of[c] != after(slot_of[c]), after(slot_of[c]) != no_slot)
comes_into_use = both(negate(in_use[s]), after(in_use[s]))
under_way = one_of(mode, Mode.STOPPING, Mode.RESETTING, Mode.STARTING)
is_decided_clean = both(is_reaped, shutdown != Shutdown.IMMEDIATE, after(mode) == Mode.RUNNING)
is_decided_crashed = both(is_reaped, mode == Mode.RUNNING, after(mode) == Mode.STOPPING)
status_is_clean = one_of(status[c], 0, 1)
reset_is_to_come = one_of(mode, Mode.STOPPING, Mode.RESETTING)
is_reset = both(mode == Mode.RESETTING, after(mode) == Mode.STARTING)

def slot_says(state: SlotState, slot: Term) -> Term:
    """Return the condition that the flag of `slot` stands for this state of the lifecycle."""
    match state:
        case SlotState.UNUSED:
            return flag[slot] == UNUSED
        case SlotState.ASSIGNED:
            return both(flag[slot] != UNUSED, flag[slot] == clean[slot])
        case SlotState.ACTIVE:
            return flag[slot] == ACTIVE
        case SlotState.FOREIGN:
            return negate(one_of(flag[slot], UNUSED, ACTIVE, clean[slot]))


def unchanged(*terms: Term) -> Term:
    """All of these terms have the same value after the step."""
    return both(*[after(term) == term for term in terms])


def _some_row_of_the_lifecycle() -> Term:
    return either(
        *[
            both(slot_says(row.source, s), after(slot_says(row.dest, s)), actor == row.who)
            for row in ROWS
        ]
    )


# --- Properties ------------------------------------------------------------------------------------------------------

PROPERTIES = (
    Property(
        "armed_exit_triggers_recovery",
        "After an armed child is reaped, and no immediate shutdown was asked for, no child is given a slot "
        "until a reset has happened.",
        Kind.STEP,
        over=(c, s),
        premise=both(owed, shutdown != Shutdown.IMMEDIATE),
        conclusion=negate(either(is_given_a_slot, comes_into_use)),
        cites=("C1", "C3", "C5"),
        assumes=(*_ALL, "A7"),
    ),
    Property(
        "decision_is_exact",
        "When no shutdown was asked for, reaping a child starts recovery, or finds it under way, iff its status is "
        "not clean, or its slot does not hold its clean value, or recovery was under way.",
        Kind.STEP,
        over=(c,),
        premise=both(shutdown == Shutdown.NONE, is_reaped),
        conclusion=after(under_way)
        == either(negate(status_is_clean), flag[slot_of[c]] != clean[slot_of[c]], under_way),
        cites=("C1", "C5", "C13"),
    ),
    Property(
        "held_resource_never_looks_clean",
        "A child that still holds the shared resource is never decided clean.",
        Kind.STEP,
        over=(c,),
        premise=both(is_reaped, holds[c]),
        conclusion=negate(is_decided_clean),
        cites=("C4",),
        assumes=(*_ALL, "A7"),
    ),
    Property(
        "orderly_exit_never_alarms",
        "A child that left in the orderly way, none of whose takes or give-backs failed, that holds nothing, with "
        "status 0 or 1, is not decided crashed.",
        Kind.STEP,
        over=(c,),
        premise=both(is_reaped, orderly[c], negate(failed[c]), negate(holds[c]), status_is_clean),
        conclusion=negate(is_decided_crashed),
        cites=("C13",),
    ),
    Property(
        "slot_has_one_owner",
        "Two living or unreaped children never have the same slot.",
        Kind.ALWAYS,
        over=(c, d),
        premise=both(exists_c, exists_d, c != d),
        conclusion=slot_of[c] != slot_of[d],
        cites=("C14",),
    ),
    Property(
        "flag_follows_lifecycle",
        "Every change of a flag is a row of the lifecycle, made by the process whose row it is.",
        Kind.STEP,
        over=(s,),
        premise=after(flag[s]) != flag[s],
        conclusion=_some_row_of_the_lifecycle(),
        cites=("C6", "C7"),
    ),
    Property(
        "reset_only_when_alone",
        "The reset happens only when no child of this generation lives or is unreaped.",
        Kind.STEP,
        over=(c,),
        premise=is_reset,
        conclusion=phase[c] == Phase.NONE,
        cites=("C5",),
    ),
    Property(
        "second_crash_adds_nothing",
        "While a reset is to come, reaping changes only the child's own phase and slot.",
        Kind.STEP,
        over=(c, d, s),
        premise=both(reset_is_to_come, is_reaped),
        conclusion=both(
            unchanged(mode, shutdown, launching),
            implies(s != slot_of[c], unchanged(*[each[s] for each in OF_A_SLOT])),
            implies(
                d != c,
                unchanged(*[each[d] for each in OF_A_CHILD]),
            ),
        ),
        cites=("C5",),
    ),
)

BY_NAME = {each.name: each for each in PROPERTIES}

# --- What must be seen to happen -------------------------------------------------------------------------------------

SOMETIMES: dict[str, Term] = {
    "an armed child is reaped": owed,
    "somebody dies holding the resource": torn,
    **{f"a child is {each.value}": phase[c] == each for each in Phase},
    **{f"the supervisor is {each.value}": mode == each for each in Mode},
    **{f"shutdown asked for: {each.value}": shutdown == each for each in Shutdown},
    **{f"a slot is {each.value}": slot_says(each, s) for each in SlotState if each is not SlotState.FOREIGN},
}
"""States that a bounded instance must reach (for some child `c`, some slot `s`): else what is proved may be vacuous."""
