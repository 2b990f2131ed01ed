"""What is claimed of the system: named properties, each a sentence, a premise and a conclusion.

ALWAYS properties speak of every reachable state, STEP properties of every step from one: there `after(term)` reads the
state after the step, and `actor` is the process that takes it. LEADS_TO properties, at the end, speak of whole runs.
The names are part of the interface.
"""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, replace
from functools import lru_cache

from armed_model.lifecycle import ROWS, WALSENDER_ROWS, Row, SlotState, Trigger, Who
from armed_model.profiles import (
    REFERENCE,
    Allocation,
    Cancel,
    CleanWord,
    CrashAfterReset,
    InAnotherProcess,
    Kind,
    Profile,
    Step,
)
from armed_model.system import (
    ACTIVE,
    CHILD,
    RESERVED,
    SLOT,
    STREAMING,
    UNUSED,
    WHO,
    WORD,
    Mode,
    Phase,
    Request,
    Shutdown,
    System,
    aimed,
    armed,
    children_are_ended,
    clean,
    clean_word,
    copy_disarms,
    copy_gives,
    copy_of,
    copy_slot,
    copy_token,
    engaged,
    entry_gone,
    failed,
    flag,
    handle_astray,
    handle_gone,
    holds,
    in_use,
    is_decided,
    is_looked_at,
    kind,
    launching,
    launching_as,
    mode,
    no_slot,
    nobody,
    orderly,
    owed,
    owner,
    phase,
    phases,
    request,
    shutdown,
    slot_of,
    start_up_phases,
    status,
    status_is_clean,
    ticking,
    to_disarm,
    to_give,
    token,
    told,
    torn,
    variables,
)
from armed_model.terms import Action, Parameter, Term, both, either, exists, implies, negate, one_of, substitute

after = variables.primed

OF_A_SLOT = (flag, clean, in_use, owner)
OF_A_CHILD = (
    phase, kind, slot_of, told, token, engaged, to_give, to_disarm, holds, failed, status, armed, orderly
)  # fmt: skip

ASSUMPTIONS = {
    "A1": "Actions are atomic: each store of a flag is one aligned store of a word, each decision reads the flag once.",
    "A2": "Fork and wait order the stores: the child sees the supervisor's, the supervisor sees the dead child's.",
    "A3": "Each exit is reported once, and a pid is not reused before its process is reaped.",
    "A4": "SIGKILL ends a process.",
    "A5": "A generation has finitely many children.",
    "A6": "no_copy_back: nobody but the slot's owner writes this very assignment's clean word.",
    "A7": "Shared state is touched only between arm and disarm.",
    "A8": "Counting and ranking steps are on paper.",
    "A9": "The Python code is tested against the model, not proved.",
    "A10": "A token that is drawn was never used before.",
    "A11": "A fork of a child finds zeros where the child has its token (MADV_WIPEONFORK).",
}
"""What every verdict rests on. Each property names those that it needs; A9 stands between all of them and the code."""

_ALL = ("A1", "A2", "A3", "A9")


class Claim(enum.Enum):
    """What a property speaks of."""

    ALWAYS = "always"
    STEP = "step"


@dataclass(frozen=True, eq=False)
class Property:
    """A claim: for every member of `over`, the premise implies the conclusion.

    `out_of_scope` is the reason why it is not decided in this profile; empty where it is. `of_the_model`: it says that
    the model is as meant, and no more of PostgreSQL.
    """

    name: str
    sentence: str
    claims: Claim
    over: tuple[Parameter, ...]
    premise: Term
    conclusion: Term
    cites: tuple[str, ...] = ()
    environment: str = "calm"
    assumes: tuple[str, ...] = _ALL
    out_of_scope: str = ""
    of_the_model: bool = False

    @property
    def claim(self) -> Term:
        """The whole formula."""
        return implies(self.premise, self.conclusion)


# --- Vocabulary ------------------------------------------------------------------------------------------------------

actor = Parameter("actor", WHO)
c, d = Parameter("child", CHILD), Parameter("other_child", CHILD)
s, r = Parameter("slot", SLOT), Parameter("other_slot", SLOT)
w = Parameter("word", WORD)

exists_c = phase[c] != Phase.NONE
exists_d = phase[d] != Phase.NONE
is_forked = both(phase[c] == Phase.NONE, after(phase[c]) != Phase.NONE)
is_reaped = both(phase[c] == Phase.EXITED, after(phase[c]) == Phase.NONE)
dies = both(phase[c] != Phase.EXITED, after(phase[c]) == Phase.EXITED)
is_given_a_slot = both(slot_of[c] != after(slot_of[c]), after(slot_of[c]) != no_slot)
is_assigned = both(launching != s, after(launching) == s)
under_way = one_of(mode, Mode.STOPPING, Mode.DRAINING, Mode.RESETTING, Mode.STARTING)
is_decided_crashed = both(is_reaped, negate(one_of(mode, Mode.STOPPING)), after(mode) == Mode.STOPPING)
reset_is_to_come = one_of(mode, Mode.STOPPING, Mode.DRAINING, Mode.RESETTING)
is_reset = both(mode == Mode.RESETTING, after(mode) == Mode.STARTING)


def slot_says(profile: Profile, state: SlotState, slot: Term) -> Term:
    """Return the condition that the flag of `slot` stands for this state of the lifecycle."""
    match state:
        case SlotState.UNUSED:
            return flag[slot] == UNUSED
        case SlotState.ASSIGNED:
            return both(flag[slot] != UNUSED, flag[slot] == clean_word(profile, slot))
        case SlotState.ACTIVE:
            return flag[slot] == ACTIVE
        case SlotState.WALSENDER:
            return flag[slot] == STREAMING if Kind.WALSENDER in profile.kinds else either()
        case SlotState.FOREIGN:
            streaming = [STREAMING] if Kind.WALSENDER in profile.kinds else []
            return negate(one_of(flag[slot], UNUSED, ACTIVE, clean_word(profile, slot), *streaming))


def unchanged(*terms: Term) -> Term:
    """All of these terms have the same value after the step."""
    return both(*[after(term) == term for term in terms])


def is_decided_clean(profile: Profile) -> Term:
    """A child is reaped, deaths are decided now, and this one starts no recovery."""
    return both(is_reaped, is_decided(profile), shutdown != Shutdown.IMMEDIATE, after(mode) == mode)


def is_available(profile: Profile, slot: Term) -> Term:
    """Allocation would give the slot out."""
    return flag[slot] == UNUSED if profile.allocation is Allocation.SHARED else negate(in_use[slot])


def rows_of(profile: Profile) -> tuple[Row, ...]:
    """Return the rows of the lifecycle in this profile."""
    return (*ROWS, *(WALSENDER_ROWS if Kind.WALSENDER in profile.kinds else ()))


def some_row_of_the_lifecycle(profile: Profile, rows: tuple[Row, ...]) -> Term:
    """The change of the flag of `s` is one of the rows, made by the process whose row it is."""
    return either(
        *[
            both(slot_says(profile, row.source, s), after(slot_says(profile, row.dest, s)), actor == row.who)
            for row in rows
        ]
    )


def can_write_the_flag(acting: tuple[Action, ...], by: Who, child: Term) -> Term:
    """Some action of this process (of this child, if it has one) that writes the flag of `s` can be taken."""
    ways = []
    for action in acting:
        written = [update for update in action.effect if update.variable is flag]
        if action.by is not by or not written or written[0].index is None:
            continue  # the reset writes all flags, when nobody is there: reset_only_when_alone
        names = {"Child": child, "Slot": s, "Word": w}
        if action.name.startswith("assign"):
            second = {parameter.name: r for parameter in action.of[1:] if parameter.sort is SLOT}
        else:
            second = {}
        bound = [(parameter, second.get(parameter.name, names[parameter.sort.name])) for parameter in action.of]
        terms = [*action.conditions, written[0].index == s]
        ways.append(both(*[substitute(term, bound) for term in terms]))
    return either(*ways)


# --- Safety ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def properties(
    profile: Profile,
    backends_alone: bool = False,
    *,
    acting: tuple[Action, ...] | None = None,
    rows: tuple[Row, ...] | None = None,
) -> tuple[Property, ...]:
    """Return what is claimed of every state and every step, as it reads in this profile.

    `backends_alone`: the child spoken of is of a kind whose slot is looked at. `acting`, `rows`: the actions and the
    lifecycle that the claims speak of, where they are not the profile's own (mutants).
    """
    counts = [is_looked_at(profile, c)] if backends_alone else []
    acting = System(profile).actions if acting is None else acting
    rows = rows_of(profile) if rows is None else rows
    claims = (
        *_about_the_switch(profile, counts), *_about_slots(profile, acting, rows), *_about_recovery(profile, counts),
        *_beyond_calm(profile, rows), *_about_single_steps(profile),
    )  # fmt: skip
    return tuple(replace(each, assumes=_assumed(profile, each)) for each in claims)


def _assumed(profile: Profile, claim: Property | LeadsTo) -> tuple[str, ...]:
    """Return what a claim assumes in this profile: of tokens, and of who copies one back, only where there are any."""
    named = {*claim.assumes}
    if profile.clean_word is CleanWord.FRESH:
        named |= {"A10"} | ({"A6"} if claim.environment == "+stray" else set())
    return tuple(sorted(named, key=[*ASSUMPTIONS].index))


def _about_the_switch(profile: Profile, counts: list[Term]) -> tuple[Property, ...]:
    slot_is_clean = flag[slot_of[c]] == clean_word(profile, slot_of[c])
    clock_is_over = both(mode == Mode.STARTING, ticking)
    return (
        Property(
            "armed_exit_triggers_recovery",
            "After an armed child is reaped, and no immediate shutdown was asked for, no child is given a slot "
            "until a reset has happened.",
            Claim.STEP,
            over=(c, s),
            premise=both(owed, shutdown != Shutdown.IMMEDIATE),
            conclusion=negate(either(is_given_a_slot, is_assigned)),
            cites=("C1", "C2", "C3", "C5"),
            assumes=(*_ALL, "A7"),
        ),
        Property(
            "decision_is_exact",
            "When no shutdown was asked for, reaping a child whose slot is looked at starts recovery, or finds it "
            "under way, iff its status is not clean for its kind, or its slot does not hold its clean value, or "
            "recovery was under way.",
            Claim.STEP,
            over=(c,),
            premise=both(
                shutdown == Shutdown.NONE, is_looked_at(profile, c), slot_of[c] != no_slot, mode != Mode.DEAD, is_reaped
            ),
            conclusion=after(under_way) == either(negate(status_is_clean(c)), negate(slot_is_clean), under_way),
            cites=("C1", "C2", "C5", "C13", "C15"),
        ),
        Property(
            "the_status_decides_where_there_is_no_slot",
            "While deaths are decided, reaping a child that has no slot starts recovery iff its status is not clean "
            "for its kind.",
            Claim.STEP,
            over=(c,),
            premise=both(is_decided(profile), shutdown != Shutdown.IMMEDIATE, slot_of[c] == no_slot, is_reaped),
            conclusion=(after(mode) == Mode.STOPPING) == negate(status_is_clean(c)),
            cites=("C9",),
        ),
        Property(
            "held_resource_never_looks_clean",
            "A child that still holds the shared resource is never decided clean.",
            Claim.STEP,
            over=(c,),
            premise=both(is_reaped, holds[c], *counts),
            conclusion=negate(is_decided_clean(profile)),
            cites=("C4",),
            assumes=(*_ALL, "A7"),
        ),
        Property(
            "orderly_exit_never_alarms",
            "A child that left in the orderly way, none of whose takes, give-backs and hooks failed, and that gave "
            "back whatever it took, with a status that is clean for its kind, is not decided crashed.",
            Claim.STEP,
            over=(c,),
            premise=both(is_reaped, orderly[c], negate(holds[c]), status_is_clean(c), *counts),
            conclusion=negate(is_decided_crashed),
            cites=("C13",),
        ),
        Property(
            "recovery_starts_only_for_a_crash",
            "Recovery starts, early or not, and the clock that may start it later, only for a dead child, the one "
            "reaped where one is, whose status is not clean for its kind or whose slot does not hold its clean value.",
            Claim.STEP,
            over=(),
            premise=either(
                both(mode != Mode.STOPPING, after(mode) == Mode.STOPPING, negate(clock_is_over)),
                both(negate(ticking), after(ticking)),
            ),
            conclusion=exists(
                c,
                both(
                    phase[c] == Phase.EXITED,
                    either(after(phase[c]) == Phase.NONE, *([unchanged(phase)] if profile.early_notice else [])),
                    either(negate(status_is_clean(c)), both(slot_of[c] != no_slot, negate(slot_is_clean))),
                ),
            ),
            cites=("C13", "C15"),
        ),
        Property(
            "failures_happen_while_armed",
            "A take, a give-back or a hook fails only in a living child whose switch is on, or that has no slot; and "
            "no hook that disarms fails before the one that gives back was run or skipped.",
            Claim.STEP,
            over=(c,),
            premise=both(negate(failed[c]), after(failed[c])),
            conclusion=both(
                one_of(phase[c], Phase.SERVING, Phase.LEAVING),
                either(armed[c], slot_of[c] == no_slot),
                either(negate(after(to_give[c])), negate(to_disarm[c]), after(to_disarm[c])),
                actor == Who.CHILD,
            ),
            cites=("C4", "C7"),
            of_the_model=True,
        ),
        Property(
            "the_flag_tells_whether_armed",
            "The flag of a living or unreaped child's slot is its clean value exactly while the child is not armed.",
            Claim.ALWAYS,
            over=(c,),
            premise=both(exists_c, slot_of[c] != no_slot),
            conclusion=slot_is_clean == negate(armed[c]),
            cites=("C6", "C7"),
        ),
    )


def _about_slots(profile: Profile, acting: tuple[Action, ...], rows: tuple[Row, ...]) -> tuple[Property, ...]:
    other_writer = either(
        both(can_write_the_flag(acting, Who.SUPERVISOR, c), can_write_the_flag(acting, Who.CHILD, d)),
        both(c != d, can_write_the_flag(acting, Who.CHILD, c), can_write_the_flag(acting, Who.CHILD, d)),
    )
    has_its_owner = both(
        owner[s] != nobody, phase[owner[s]] != Phase.NONE, slot_of[owner[s]] == s,
        one_of(kind[owner[s]], *profile.with_a_slot),
    )  # fmt: skip
    is_blank = both(flag[s] == UNUSED, clean[s] == UNUSED, negate(in_use[s]))
    return (
        Property(
            "slot_has_one_owner",
            "Two living or unreaped children never have the same slot.",
            Claim.ALWAYS,
            over=(c, d),
            premise=both(exists_c, exists_d, c != d, slot_of[c] != no_slot),
            conclusion=slot_of[c] != slot_of[d],
            cites=("C14",),
        ),
        Property(
            "flag_has_one_writer",
            "The supervisor and the children never can write the same flag at the same time (but for the reset, when "
            "nobody is there): the flag needs no lock.",
            Claim.ALWAYS,
            over=(c, d, s, r, w),
            premise=can_write_the_flag(acting, Who.CHILD, d),
            conclusion=negate(other_writer),
            cites=("C14",),
        ),
        Property(
            "no_slot_leaks",
            "A slot that allocation would not give out is being launched, or has an owner that is living or unreaped.",
            Claim.ALWAYS,
            over=(s,),
            premise=both(mode != Mode.DEAD, negate(is_available(profile, s))),
            conclusion=either(launching == s, both(owner[s] != nobody, phase[owner[s]] != Phase.NONE)),
            cites=("C16",),
        ),
        Property(
            "assignment_never_fails",
            "Each slot that is not available is being launched, or has its own owner, living or unreaped, of a kind "
            "that has slots; so, by counting (on paper), fewer such children than slots means a free slot. And no "
            "search for a slot ends the supervisor.",
            Claim.STEP,
            over=(s,),
            premise=both(mode != Mode.DEAD, either(negate(is_available(profile, s)), after(mode) != mode)),
            conclusion=both(
                either(is_available(profile, s), launching == s, has_its_owner), after(mode) != Mode.DEAD
            ),
            cites=("C16",),
            assumes=(*_ALL, "A8"),
        ),
        Property(
            "flag_follows_lifecycle",
            "Every change of a flag is a row of the lifecycle, made by the process whose row it is.",
            Claim.STEP,
            over=(s,),
            premise=after(flag[s]) != flag[s],
            conclusion=some_row_of_the_lifecycle(profile, rows),
            cites=("C1", "C6", "C7", "C13", "C14", "C15", "C16"),
        ),
        Property(
            "an_owner_has_its_slot",
            "Whom the supervisor's record names as a slot's owner is living or unreaped, and has that slot.",
            Claim.ALWAYS,
            over=(s,),
            premise=owner[s] != nobody,
            conclusion=both(phase[owner[s]] != Phase.NONE, slot_of[owner[s]] == s),
            cites=("C14",),
            of_the_model=True,
        ),
        Property(
            "who_is_not_there_is_blank",
            "Of a child that is not there, and of a slot that nobody has, nothing is left: neither in its flag nor in "
            "any record.",
            Claim.ALWAYS,
            over=(c, s),
            premise=both(mode != Mode.DEAD, either(negate(exists_c), both(launching != s, owner[s] == nobody))),
            conclusion=both(
                implies(negate(exists_c), _blank(c)),
                implies(both(launching != s, owner[s] == nobody), is_blank),
            ),
            cites=("C14",),
            of_the_model=True,
        ),
    )


def _blank(child: Term) -> Term:
    return both(
        kind[child] == Kind.BACKEND, slot_of[child] == no_slot, token[child] == UNUSED, status[child] == 0,
        negate(either(*[each[child] for each in (
            told, engaged, to_give, to_disarm, holds, failed, armed, orderly)])),
    )  # fmt: skip


def _about_recovery(profile: Profile, counts: list[Term]) -> tuple[Property, ...]:
    alone = (
        "between the reset and service only the start-up process touches shared memory (in crash recovery), and its "
        "failure ends the server"
    )
    prepared = [] if profile.auxiliaries_while_running else [negate(exists_c)]
    minded = profile.crash_after_reset is not CrashAfterReset.BOOKED
    refused = both(mode == Mode.STOPPING, after(kind[c]) == Kind.DEAD_END)
    prepares = both(mode == Mode.STARTING, after(kind[c]) == Kind.AUXILIARY)
    in_recovery = [
        *([refused] if profile.dead_ends_in_recovery else []),
        *([prepares] if profile.auxiliaries_while_starting else []),
    ]
    return (
        Property(
            "no_start_during_recovery",
            "While recovery is under way, from the crash to service, no child whose slot is looked at is given one.",
            Claim.STEP,
            over=(c, s),
            premise=under_way,
            conclusion=negate(
                either(
                    both(is_given_a_slot, after(is_looked_at(profile, c))),
                    both(is_assigned, one_of(after(launching_as), *profile.looked_at)),
                )
            ),
            cites=("C5",),
        ),
        Property(
            "recovery_starts_nobody_else",
            "While recovery is under way no child starts but dead-end ones before the reset, where clients get "
            "them then, and auxiliary ones after it, where those prepare.",
            Claim.STEP,
            over=(c,),
            premise=both(under_way, is_forked),
            conclusion=either(*in_recovery),
            cites=("C5",),
        ),
        Property(
            "reset_only_when_alone",
            "The reset happens only when no child of this generation lives or is unreaped.",
            Claim.STEP,
            over=(c,),
            premise=is_reset,
            conclusion=phase[c] == Phase.NONE,
            cites=("C5",),
        ),
        Property(
            "reset_is_fresh",
            "After the reset every slot is unused, nobody has one, nothing is held, nothing is owed, and no clock "
            "runs, whatever was written to the flags.",
            Claim.STEP,
            over=(c, s),
            premise=is_reset,
            conclusion=both(
                after(flag[s]) == UNUSED,
                after(clean[s]) == UNUSED,
                negate(after(in_use[s])),
                after(owner[s]) == nobody,
                negate(after(holds[c])),
                negate(after(owed)),
                negate(after(torn)),
                negate(after(ticking)),
                after(launching) == no_slot,
            ),
            cites=("C4", "C5"),
            environment="+stray",
        ),
        Property(
            "torn_memory_is_not_served",
            "After a child is reaped that still holds the shared resource, no child is given a slot until a reset has "
            "happened, but for an immediate shutdown.",
            Claim.STEP,
            over=(c, s),
            premise=both(torn, shutdown != Shutdown.IMMEDIATE),
            conclusion=negate(either(is_given_a_slot, is_assigned)),
            cites=("C4", "C5"),
            assumes=(*_ALL, "A7"),
        ),
        Property(
            "second_crash_adds_nothing",
            "While a reset is to come, reaping changes only the child's own phase, slot and registry entry.",
            Claim.STEP,
            over=(c, d, s),
            premise=both(reset_is_to_come, is_reaped),
            conclusion=both(
                unchanged(mode, shutdown, launching),
                implies(s != slot_of[c], unchanged(*[each[s] for each in OF_A_SLOT])),
                implies(d != c, unchanged(*[each[d] for each in OF_A_CHILD])),
            ),
            cites=("C5",),
        ),
        Property(
            "crash_after_reset_recovers_again",
            "A child that dies between the reset and service with a status that is not clean for its kind starts "
            "recovery anew, but for an immediate shutdown.",
            Claim.STEP,
            over=(c,),
            premise=both(
                mode == Mode.STARTING, shutdown != Shutdown.IMMEDIATE, is_reaped, negate(status_is_clean(c))
            ),
            conclusion=after(mode) == Mode.STOPPING,
            cites=("C5",),
            out_of_scope="" if profile.auxiliaries_while_starting else alone,
        ),
        Property(
            "the_ghosts_remember",
            "Reaping a child sets `owed` where it was armed, and `torn` where it held.",
            Claim.STEP,
            over=(c,),
            premise=both(is_reaped, either(armed[c], holds[c]), *counts),
            conclusion=both(implies(armed[c], after(owed)), implies(holds[c], after(torn))),
            cites=("C4",),
            of_the_model=True,
        ),
        Property(
            "recovery_goes_in_order",
            "Recovery goes from stopping to draining, resetting, starting and service, in this order, or to an end, or "
            "from starting back to stopping, where a crash after the reset may do that; and where preparing the new "
            "generation is a child's task, it serves only when that child has ended.",
            Claim.STEP,
            over=(c,),
            premise=after(mode) != mode,
            conclusion=either(
                both(mode == Mode.RUNNING, one_of(after(mode), Mode.STOPPING)),
                both(
                    mode == Mode.STOPPING,
                    after(mode) == Mode.DRAINING,
                    either(negate(exists_c), kind[c] == Kind.DEAD_END),
                ),
                both(mode == Mode.DRAINING, after(mode) == Mode.RESETTING, negate(exists_c)),
                both(mode == Mode.RESETTING, after(mode) == Mode.STARTING, shutdown == Shutdown.NONE),
                *([both(mode == Mode.STARTING, after(mode) == Mode.STOPPING)] if minded else []),
                both(mode == Mode.STARTING, after(mode) == Mode.RUNNING, *prepared),
                both(after(mode) == Mode.STOPPED, negate(exists_c), mode != Mode.DEAD, after(launching) == no_slot),
                both(after(mode) == Mode.DEAD, negate(one_of(mode, Mode.STOPPED, Mode.DEAD))),
            ),
            cites=("C5",),
            of_the_model=True,
        ),
    )


def _beyond_calm(profile: Profile, rows: tuple[Row, ...]) -> tuple[Property, ...]:
    releases = tuple(row for row in rows if row.trigger is Trigger.RELEASE)
    if profile.engages_once:
        would_do = both(after(copy_gives) == to_give[c], after(copy_disarms) == to_disarm[c])
    else:
        disarms = both(engaged[c], negate(failed[c]))
        would_do = both(after(copy_gives) == holds[c], after(copy_disarms) == disarms)
    is_no_copy_back = [after(flag[s]) != clean[s]] if profile.clean_word is CleanWord.FRESH else []
    match profile.allocation:
        case Allocation.SHARED:
            looks_free = exists(r, both(flag[s] == UNUSED, r != no_slot, owner[r] == nobody))
        case Allocation.PRIVATE:
            looks_free = negate(in_use[s])
        case Allocation.PRIVATE_THEN_SHARED:
            looks_free = both(negate(in_use[s]), flag[s] == UNUSED)
    prepares = Kind.AUXILIARY in profile.with_a_slot and profile.auxiliaries_while_starting
    searches = [Mode.RUNNING, *([Mode.STARTING] if prepares else [])]
    by_handle: list[Term] = []
    if profile.cancel is not Cancel.BY_HANDLE:
        signalled = both(request == Request.MATCHED, after(request) == Request.NONE)
        the_right_one = either(phase[aimed] == Phase.NONE, negate(entry_gone))
    else:
        signalled = both(request == Request.CONFIRMED, after(request) == Request.NONE)
        the_right_one = either(handle_gone, both(negate(handle_astray), phase[aimed] != Phase.NONE))
        forgotten = both(after(aimed) == nobody, negate(after(either(entry_gone, handle_astray, handle_gone))))
        by_handle = [
            both(
                request == Request.MATCHED,
                after(request) == Request.OPENED,
                phase[aimed] != Phase.NONE,
                after(handle_astray) == entry_gone,
            ),
            both(request == Request.OPENED, after(request) == Request.CONFIRMED, negate(entry_gone)),
            both(request == Request.MATCHED, after(request) == Request.NONE, phase[aimed] == Phase.NONE, forgotten),
            both(request == Request.OPENED, after(request) == Request.NONE, entry_gone, forgotten),
        ]
    return (
        Property(
            "grandchild_never_disarms",
            "A process forked by a child cannot change a flag.",
            Claim.STEP,
            over=(s,),
            premise=actor == Who.GRANDCHILD,
            conclusion=unchanged(flag[s]),
            cites=("C7",),
            environment="+grandchild",
            assumes=(*_ALL, *([] if profile.engages_once else ["A11"])),
        ),
        Property(
            "grandchild_gives_nothing_back",
            "A process forked by a child does not give the shared resource back (PostgreSQL: the PGPROC; hooks that "
            "are registered later are not modelled, and do run there).",
            Claim.STEP,
            over=(c,),
            premise=both(actor == Who.GRANDCHILD, copy_gives),
            conclusion=both(unchanged(holds[c]), either(after(copy_gives), after(copy_slot) == no_slot)),
            cites=("C4",),
            environment="+grandchild",
            assumes=(*_ALL, *([] if profile.engages_once else ["A11"])),
        ),
        Property(
            "a_grandchild_is_a_copy",
            "A grandchild comes of a living child that has a slot and is not on its way out, one at a time, with what "
            "its parent would do on its way out.",
            Claim.STEP,
            over=(c,),
            premise=both(copy_of != c, after(copy_of) == c),
            conclusion=both(
                copy_slot == no_slot,
                after(copy_slot) == slot_of[c],
                slot_of[c] != no_slot,
                negate(one_of(phase[c], Phase.NONE, Phase.LEAVING, Phase.STUCK, Phase.EXITED)),
                would_do,
                after(copy_token) == UNUSED,
            ),
            cites=("C4", "C7"),
            environment="+grandchild",
            of_the_model=True,
        ),
        Property(
            "a_grandchild_does_each_thing_once",
            "Each step of a grandchild is one that it cannot take again.",
            Claim.STEP,
            over=(),
            premise=actor == Who.GRANDCHILD,
            conclusion=both(
                copy_slot != no_slot,
                either(
                    both(copy_gives, negate(after(copy_gives))),
                    both(copy_disarms, negate(after(copy_disarms)), negate(copy_gives)),
                    after(copy_slot) == no_slot,
                ),
            ),
            cites=("C4", "C7"),
            environment="+grandchild",
            of_the_model=True,
        ),
        Property(
            "no_copy_of_who_is_not_there",
            "A grandchild whose parent was reaped is nobody's copy.",
            Claim.ALWAYS,
            over=(c,),
            premise=copy_of == c,
            conclusion=exists_c,
            cites=("C4",),
            environment="+grandchild",
            of_the_model=True,
        ),
        Property(
            "no_copy_without_a_grandchild",
            "Of a grandchild that is not there, or is of the generation before, nothing is left that could be done.",
            Claim.ALWAYS,
            over=(),
            premise=copy_slot == no_slot,
            conclusion=both(copy_of == nobody, negate(either(copy_gives, copy_disarms))),
            cites=("C4", "C7"),
            environment="+grandchild",
            of_the_model=True,
        ),
        Property(
            "the_generation_takes_its_grandchildren_with_it",
            "After the reset no grandchild of the generation before is followed: it is attached to memory that nobody "
            "uses.",
            Claim.STEP,
            over=(),
            premise=is_reset,
            conclusion=after(copy_slot) == no_slot,
            cites=("C4", "C5"),
            environment="+grandchild",
            of_the_model=True,
        ),
        Property(
            "supervisor_survives_stray_writes",
            "No flag value stops the supervisor or makes it give a slot out twice.",
            Claim.STEP,
            over=(c, s),
            premise=both(mode != Mode.DEAD, either(after(mode) != mode, is_assigned)),
            conclusion=both(
                after(mode) != Mode.DEAD, implies(both(is_assigned, exists_c), slot_of[c] != s)
            ),
            cites=("C14", "C16"),
            environment="+stray",
        ),
        Property(
            "only_a_free_slot_is_given_out",
            "A slot is given out only if everything that allocation reads says that it is free.",
            Claim.STEP,
            over=(s,),
            premise=is_assigned,
            conclusion=looks_free,
            cites=("C14", "C16"),
            environment="+stray",
            of_the_model=True,
        ),
        Property(
            "the_supervisor_ends_at_a_search_only",
            "While it can look for no slot (in a recovery, in a shutdown, while a child is being launched) the "
            "supervisor does not end of itself.",
            Claim.STEP,
            over=(),
            premise=both(
                mode != Mode.DEAD,
                either(negate(one_of(mode, *searches)), shutdown != Shutdown.NONE, launching != no_slot),
            ),
            conclusion=after(mode) != Mode.DEAD,
            cites=("C16",),
            environment="+stray",
            of_the_model=True,
        ),
        Property(
            "release_is_total",
            "Whatever was written to a flag, releasing the slot of a dead child is a row of the lifecycle.",
            Claim.STEP,
            over=(c, s),
            premise=both(is_reaped, slot_of[c] == s),
            conclusion=some_row_of_the_lifecycle(profile, releases),
            cites=("C1", "C15"),
            environment="+stray",
        ),
        Property(
            "stray_writes_are_as_assumed",
            "A stray write needs somebody attached to shared memory, and never leaves this very assignment's clean "
            "word where that is fresh (A6).",
            Claim.STEP,
            over=(s,),
            premise=both(actor == Who.ENVIRONMENT, after(flag[s]) != flag[s]),
            conclusion=exists(c, both(exists_c, phase[c] != Phase.EXITED, *is_no_copy_back)),
            environment="+stray",
            of_the_model=True,
        ),
        Property(
            "a_child_writes_as_it_arms_or_disarms",
            "A child's step that changes a flag arms, disarms, or turns to streaming: nothing else of its doing hides "
            "a stray write.",
            Claim.STEP,
            over=(s,),
            premise=both(actor == Who.CHILD, after(flag[s]) != flag[s]),
            conclusion=negate(unchanged(armed, kind)),
            cites=("C6", "C7", "C8"),
            environment="+stray",
            of_the_model=True,
        ),
        Property(
            "armed_exit_triggers_recovery_despite_stray_writes",
            "After an armed child is reaped, and no immediate shutdown was asked for, no child is given a slot "
            "until a reset has happened, whatever was written to the flags.",
            Claim.STEP,
            over=(c, s),
            premise=both(owed, shutdown != Shutdown.IMMEDIATE),
            conclusion=negate(either(is_given_a_slot, is_assigned)),
            cites=("C1", "C2", "C3", "C5"),
            environment="+stray",
            assumes=(*_ALL, "A7"),
        ),
        Property(
            "only_its_lifeline_kills_an_orphan",
            "A child dies of its own doing or of a stranger's signal, or is ended by a living supervisor; after that "
            "one's death the kernel ends only who has asked for it.",
            Claim.STEP,
            over=(c,),
            premise=dies,
            conclusion=both(
                exists_c,
                either(
                    actor == Who.CHILD,
                    both(actor == Who.SUPERVISOR, mode != Mode.DEAD),
                    both(
                        actor == Who.ENVIRONMENT, mode == Mode.DEAD, told[c], negate(after(status_is_clean(c)))
                    ),
                ),
            ),
            environment="+orphan",
            of_the_model=True,
        ),
        Property(
            "an_ended_supervisor_does_nothing",
            "A supervisor that has stopped or died stays as it is, and does nothing more.",
            Claim.STEP,
            over=(),
            premise=one_of(mode, Mode.STOPPED, Mode.DEAD),
            conclusion=both(
                actor != Who.SUPERVISOR,
                unchanged(mode, shutdown, launching),
                launching == no_slot,
                launching_as == Kind.BACKEND,
            ),
            environment="+orphan",
            of_the_model=True,
        ),
        Property(
            "the_dead_remember_nothing",
            "What was in a dead child's own memory is gone, whoever ended it.",
            Claim.ALWAYS,
            over=(c,),
            premise=phase[c] == Phase.EXITED,
            conclusion=both(
                token[c] == UNUSED, negate(either(told[c], engaged[c], to_give[c], to_disarm[c], failed[c]))
            ),
            environment="+orphan",
            of_the_model=True,
        ),
        Property(
            "cancel_reaches_its_owner_only",
            "Where a cancel request that matched an entry is delivered, it reaches the child of that entry, or nobody.",
            Claim.STEP,
            over=(),
            premise=signalled,
            conclusion=the_right_one,
            cites=("C11",),
            environment="+cancel",
        ),
        Property(
            "a_request_goes_in_order",
            "A cancel request matches a registered child, or one that was registered when the copy was made in which "
            "it is looked for, one at a time; where it is delivered by a handle, that is opened on whoever has the pid "
            "then, and confirmed while the entry is there; else it is forgotten.",
            Claim.STEP,
            over=(c,),
            premise=either(after(request) != request, both(after(aimed) == c, aimed != c)),
            conclusion=either(
                both(
                    request == Request.NONE,
                    one_of(after(request), Request.CONNECTED, Request.MATCHED),
                    implies(after(aimed) == c, both(exists_c, slot_of[c] != no_slot)),
                    after(aimed) != nobody,
                ),
                both(request == Request.CONNECTED, after(request) == Request.MATCHED, unchanged(aimed)),
                *by_handle,
                both(
                    signalled,
                    after(aimed) == nobody,
                    negate(after(either(entry_gone, handle_astray, handle_gone))),
                ),
            ),
            cites=("C11",),
            environment="+cancel",
            of_the_model=True,
        ),
        Property(
            "a_reaped_child_has_no_entry",
            "When a child is reaped whose entry a request names, its entry is recorded to be gone, and a handle on it "
            "to be stale.",
            Claim.STEP,
            over=(c,),
            premise=both(is_reaped, aimed == c),
            conclusion=both(
                after(entry_gone), implies(one_of(request, Request.OPENED, Request.CONFIRMED), after(handle_gone))
            ),
            cites=("C11",),
            environment="+cancel",
            of_the_model=True,
        ),
        Property(
            "a_handle_knows_its_process_was_reaped",
            "The process that a handle is on has not been reaped, unless that is recorded of the handle.",
            Claim.ALWAYS,
            over=(),
            premise=request != Request.NONE,
            conclusion=either(
                one_of(request, Request.CONNECTED, Request.MATCHED), handle_gone, phase[aimed] != Phase.NONE
            ),
            cites=("C11",),
            environment="+cancel",
            of_the_model=True,
        ),
    )


def _about_single_steps(profile: Profile) -> tuple[Property, ...]:
    order = [*start_up_phases(profile).values(), Phase.SERVING]
    starts = [both(phase[c] == one, after(phase[c]) == then) for one, then in itertools.pairwise(order)]
    if profile.engages_once:  # an auxiliary child without a slot has nothing to arm
        starts.append(both(phase[c] == Phase.STARTING, after(phase[c]) == Phase.SERVING, slot_of[c] == no_slot))
    responds_c = negate(one_of(phase[c], Phase.NONE, Phase.STUCK, Phase.EXITED))
    in_order = either(
        both(phase[c] == Phase.NONE, one_of(after(phase[c]), order[0], Phase.SERVING), actor == Who.SUPERVISOR),
        *[both(step, actor == Who.CHILD) for step in starts],
        both(responds_c, after(phase[c]) == Phase.LEAVING, actor == Who.CHILD),
        both(one_of(phase[c], Phase.SERVING, Phase.LEAVING), after(phase[c]) == Phase.STUCK, actor == Who.CHILD),
        both(phase[c] != Phase.NONE, after(phase[c]) == Phase.EXITED),
        both(phase[c] == Phase.EXITED, after(phase[c]) == Phase.NONE, actor == Who.SUPERVISOR),
    )
    is_dead = both(phase[c] == Phase.EXITED, after(phase[c]) == Phase.EXITED)
    supervisor_kills = both(dies, actor == Who.SUPERVISOR)
    return (
        Property(
            "life_goes_in_order",
            "A child goes through its start-up steps one by one, each once, then serves, leaves or gets stuck, dies, "
            "and is reaped; nobody but the supervisor forks or reaps it, and its own steps are its own.",
            Claim.STEP,
            over=(c,),
            premise=after(phase[c]) != phase[c],
            conclusion=in_order,
            cites=("C6", "C7"),
            of_the_model=True,
        ),
        Property(
            "the_dead_do_nothing",
            "What is recorded of a dead child stays as it is until it is reaped.",
            Claim.STEP,
            over=(c,),
            premise=is_dead,
            conclusion=unchanged(*[each[c] for each in OF_A_CHILD]),
            of_the_model=True,
        ),
        Property(
            "the_stuck_do_nothing",
            "What is recorded of a stuck child stays as it is until it is ended.",
            Claim.STEP,
            over=(c,),
            premise=both(phase[c] == Phase.STUCK, after(phase[c]) == Phase.STUCK),
            conclusion=unchanged(*[each[c] for each in OF_A_CHILD]),
            of_the_model=True,
        ),
        Property(
            "nobody_is_ended_without_a_reason",
            "The supervisor ends a child only after a crash, in an immediate shutdown, or when preparing a new "
            "generation has taken too long, and a stuck one only where SIGKILL follows; and the status is not a clean "
            "one.",
            Claim.STEP,
            over=(c,),
            premise=supervisor_kills,
            conclusion=both(
                children_are_ended(profile),
                mode != Mode.DEAD,
                negate(after(status_is_clean(c))),
                negate(after(orderly[c])),
                *([] if profile.kills_stuck else [phase[c] != Phase.STUCK]),
            ),
            cites=("C5",),
            of_the_model=True,
        ),
        Property(
            "an_orderly_exit_is_complete",
            "Who has left in the orderly way, with nothing failed, was on its exit path, with nothing left to do.",
            Claim.STEP,
            over=(c,),
            premise=both(negate(orderly[c]), after(orderly[c])),
            conclusion=both(
                phase[c] == Phase.LEAVING,
                dies,
                unchanged(holds[c], armed[c]),
                negate(either(to_give[c], to_disarm[c], engaged[c], failed[c])),
            ),
            cites=("C13",),
            of_the_model=True,
        ),
        Property(
            "a_life_begins_blank",
            "A child that is forked holds nothing, is not armed, and has the slot that was launched, or none.",
            Claim.STEP,
            over=(c, s),
            premise=is_forked,
            conclusion=both(
                negate(after(either(holds[c], armed[c], engaged[c], failed[c], to_give[c], to_disarm[c], told[c]))),
                after(slot_of[c]) == launching,
                one_of(after(kind[c]), *profile.kinds),
                implies(launching != no_slot, after(kind[c]) == launching_as),
                implies(launching == s, after(owner[s]) == c),
                *([after(token[c]) == clean[launching]] if profile.clean_word is CleanWord.FRESH else []),
                after(launching) == no_slot,
                after(launching_as) == Kind.BACKEND,
            ),
            cites=("C14",),
            of_the_model=True,
        ),
        Property(
            "an_assignment_is_new",
            "A slot that is given out had no owner, nothing was being launched, and it holds its clean value; where "
            "clean words are fresh, no other slot's record has the same.",
            Claim.STEP,
            over=(s, r),
            premise=is_assigned,
            conclusion=both(
                launching == no_slot,
                owner[s] == nobody,
                mode != Mode.DEAD,
                shutdown == Shutdown.NONE,
                after(flag[s]) == after(clean_word(profile, s)),
                negate(after(is_available(profile, s))),
                *(
                    [after(negate(one_of(clean[s], *RESERVED))), implies(r != s, after(clean[s]) != clean[r])]
                    if profile.clean_word is CleanWord.FRESH
                    else []
                ),
            ),
            cites=("C14",),
            of_the_model=True,
        ),
        Property(
            "disarm_comes_last",
            "A disarm comes after everything was given back, by the child itself, and writes the clean value.",
            Claim.STEP,
            over=(c,),
            premise=both(armed[c], negate(after(armed[c])), negate(is_reaped)),
            conclusion=both(
                actor == Who.CHILD,
                negate(holds[c]),
                negate(failed[c]),
                negate(to_give[c]),
                after(flag[slot_of[c]]) == clean_word(profile, slot_of[c]),
                unchanged(phase[c]),
            ),
            cites=("C7", "C8"),
        ),
        Property(
            "nobody_takes_on_the_way_out",
            "A child takes the shared resource by itself, and only before it leaves, gets stuck or dies.",
            Claim.STEP,
            over=(c,),
            premise=both(negate(holds[c]), after(holds[c])),
            conclusion=both(
                actor == Who.CHILD,
                negate(one_of(phase[c], Phase.NONE, Phase.LEAVING, Phase.STUCK, Phase.EXITED)),
            ),
            cites=("C4", "C8"),
            of_the_model=True,
        ),
        Property(
            "nobody_stops_unasked",
            "The supervisor stops only when it was asked to, or when a new generation cannot be made (PostgreSQL: with "
            "restart_after_crash on).",
            Claim.STEP,
            over=(),
            premise=both(mode != Mode.STOPPED, after(mode) == Mode.STOPPED),
            conclusion=either(shutdown != Shutdown.NONE, mode == Mode.STARTING),
            cites=("C5",),
            of_the_model=True,
        ),
        Property(
            "no_alarm_in_an_immediate_shutdown",
            "Once an immediate shutdown was asked for, no recovery starts.",
            Claim.STEP,
            over=(),
            premise=shutdown == Shutdown.IMMEDIATE,
            conclusion=either(mode == Mode.STOPPING, after(mode) != Mode.STOPPING),
            cites=("C5",),
            of_the_model=True,
        ),
        Property(
            "nobody_starts_in_a_shutdown",
            "Once a shutdown was asked for, no child starts, and no slot is given out (a simplification: PostgreSQL "
            "starts dead-end children then, workers in a smart shutdown, and a checkpointer to finish).",
            Claim.STEP,
            over=(c, s),
            premise=shutdown != Shutdown.NONE,
            conclusion=negate(either(is_forked, is_assigned)),
            of_the_model=True,
        ),
        Property(
            "no_supervisor_step_is_empty",
            "Each step of the supervisor changes its mode, what was asked of it, what it launches, or a child's phase.",
            Claim.STEP,
            over=(),
            premise=actor == Who.SUPERVISOR,
            conclusion=negate(unchanged(mode, shutdown, launching, phase)),
            of_the_model=True,
        ),
        Property(
            "one_thing_at_a_time",
            "While a child is being launched the supervisor does nothing else, and is in service, or prepares it.",
            Claim.STEP,
            over=(),
            premise=both(launching != no_slot, actor == Who.SUPERVISOR),
            conclusion=both(
                after(launching) == no_slot,
                unchanged(mode, shutdown),
                shutdown == Shutdown.NONE,
                either(mode == Mode.RUNNING, both(mode == Mode.STARTING, launching_as == Kind.AUXILIARY)),
            ),
            cites=("C16",),
            environment="+stray",
            of_the_model=True,
        ),
    )


def by_name(profile: Profile, backends_alone: bool = False) -> dict[str, Property]:
    """Return the same by their names."""
    return {each.name: each for each in properties(profile, backends_alone)}


NAMES = tuple(by_name(REFERENCE))
"""The names of all these properties, the same in every profile."""


def sometimes(profile: Profile) -> dict[str, Term]:
    """Return the states that a bounded instance must reach (for some child `c`, some slot `s`).

    What is proved of states that are never reached may be vacuous.
    """
    states = [each for each in SlotState if each is not SlotState.FOREIGN]
    if Kind.WALSENDER not in profile.kinds:
        states.remove(SlotState.WALSENDER)
    modes = [each for each in Mode if each is not Mode.DEAD]
    return {
        "an armed child is reaped": owed,
        "somebody dies holding the resource": torn,
        **{f"a child is {each.value}": phase[c] == each for each in phases(profile)},
        **{f"a child is of kind {each.value}": both(exists_c, kind[c] == each) for each in profile.kinds},
        **{f"the supervisor is {each.value}": mode == each for each in modes},
        **{f"shutdown asked for: {each.value}": shutdown == each for each in Shutdown},
        **{f"a slot is {each.value}": slot_says(profile, each, s) for each in states},
        "a child serves while the switch is off": both(phase[c] == Phase.SERVING, negate(armed[c])),
        **(
            {"who has no slot serves, and holds": both(phase[c] == Phase.SERVING, holds[c], slot_of[c] == no_slot)}
            if profile.engages_once and Kind.AUXILIARY not in profile.with_a_slot
            else {}
        ),
        "a child has left in the orderly way with a status that is not clean": both(
            orderly[c], negate(status_is_clean(c))
        ),
        "a child has left with nothing to give": both(orderly[c], negate(holds[c]), negate(armed[c])),
    }


def sometimes_a_step(profile: Profile, environment: str = "calm") -> dict[str, Term]:
    """Return the steps that a bounded instance must take (for some child `c`): what may happen, may really happen.

    Of an environment those that only it adds.
    """
    if environment == "+cancel" and profile.cancel is Cancel.BY_PID_OF_A_COPY:
        late = both(request == Request.CONNECTED, after(request) == Request.MATCHED, entry_gone)
        return {"a cancel request matches a child that was reaped before": late}
    if environment == "+cancel" and profile.cancel is Cancel.BY_HANDLE:
        over = after(request) == Request.NONE
        return {
            "a cancel request finds that the process is gone": both(request == Request.MATCHED, over),
            "a cancel request finds that the entry is gone": both(request == Request.OPENED, over),
        }
    if environment == "+grandchild" and profile.in_another_process is InAnotherProcess.NOTHING:
        late = both(copy_gives, copy_of == nobody, negate(after(copy_gives)), unchanged(copy_slot))
        return {"a grandchild gives back after its parent was reaped": late}
    if environment != "calm":
        return {}
    fails, takes = both(negate(failed[c]), after(failed[c])), both(negate(holds[c]), after(holds[c]))
    gives = both(holds[c], negate(after(holds[c])), unchanged(phase[c]))
    every = {
        "a fork fails": both(launching != no_slot, after(launching) == no_slot, unchanged(phase)),
        "a child takes": both(takes, negate(after(failed[c]))),
        "a child gives back": both(gives, negate(after(failed[c]))),
        "a child disarms": both(armed[c], negate(after(armed[c])), unchanged(phase[c])),
        "a child that has done nothing yet exits with status 1": both(
            phase[c] == Phase.STARTING, dies, after(status[c]) == 1
        ),
        "who has a slot is decided clean": both(is_decided_clean(profile), slot_of[c] != no_slot),
        "who has a slot is decided crashed": both(is_decided_crashed, slot_of[c] != no_slot),
        "who has no slot is decided clean": both(is_decided_clean(profile), slot_of[c] == no_slot),
        "who has no slot is decided crashed": both(is_decided_crashed, slot_of[c] == no_slot),
        "service begins again": both(mode == Mode.STARTING, after(mode) == Mode.RUNNING),
        "a new generation cannot be made": both(
            mode == Mode.STARTING, after(mode) == Mode.STOPPED, shutdown == Shutdown.NONE
        ),
    }
    if profile.dead_ends_in_recovery:
        every["a client is told no while the others are stopped"] = both(
            mode == Mode.STOPPING, phase[c] == Phase.NONE, after(kind[c]) == Kind.DEAD_END
        )
    if profile.crash_after_reset is CrashAfterReset.ON_THE_CLOCK:
        every["a clock ends start-up"] = both(
            mode == Mode.STARTING, after(mode) == Mode.STOPPING, unchanged(phase)
        )
    if profile.early_notice:
        every["a death is noticed early"] = both(mode != Mode.STOPPING, after(mode) == Mode.STOPPING, unchanged(phase))
    if profile.engages_once:
        every["a hook that gives back fails"] = both(fails, to_give[c])
        every["a hook that disarms fails"] = both(fails, negate(to_give[c]))
        if Kind.AUXILIARY not in profile.with_a_slot:
            every["who has no slot gives back"] = both(gives, slot_of[c] == no_slot)
        if Step.HOOK_DISARM in profile.start:
            every["a hook that disarms runs after one that gives back has failed"] = both(
                failed[c], holds[c], armed[c], negate(after(armed[c])), unchanged(phase[c])
            )
        return every
    return {
        **every,
        "a take is cut short before its first effect": both(fails, negate(holds[c]), negate(after(holds[c]))),
        "a take is cut short after its last effect": both(fails, takes),
        "a give-back fails before its first effect": both(fails, phase[c] == Phase.LEAVING, unchanged(holds[c])),
        "a give-back fails after its last effect": both(fails, gives),
    }


# --- Liveness --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LeadsTo:
    """A claim about whole runs: while `pending` holds of members of `over`, it does not do so for ever.

    `fairness` names the actions that are taken in the end if they can be taken again and again, and says why.
    """

    name: str
    sentence: str
    over: tuple[Parameter, ...]
    pending: Term
    fairness: dict[str, str]
    cites: tuple[str, ...]
    environment: str
    assumes: tuple[str, ...]
    out_of_scope: str = ""


def leads_to(profile: Profile, backends_alone: bool = False) -> tuple[LeadsTo, ...]:
    """Return what is claimed of whole runs, as it reads in this profile."""
    counts = [is_looked_at(profile, c)] if backends_alone else []
    is_told = "the kernel delivers a signal that it was asked for"
    unknown = "how a child of PostgreSQL notices the death of the postmaster is not among the facts collected here"
    does_what_is_due = {
        **dict.fromkeys(_REAPING, "the supervisor looks at every death in the end"),
        "fork_fails": "a fork succeeds or fails",
        "kill": "a signal is delivered",
        "kill_stuck": "a signal is delivered, and SIGKILL ends a process (A4)",
        **dict.fromkeys(
            ("only_dead_ends_left", "all_gone", "reset", "stop"),
            "the supervisor does what is due when nobody is left",
        ),
        "started": "preparing a generation ends (PostgreSQL: the start-up process does, or a clock ends it)",
    }
    claims = (
        LeadsTo(
            "armed_exit_leads_to_restart",
            "Every armed exit leads to a reset, and the reset to service or another crash, or to a stopped supervisor "
            "with no child left; stuck children notwithstanding.",
            over=(c,),
            pending=both(
                either(owed, both(phase[c] == Phase.EXITED, armed[c], *counts), mode == Mode.STARTING),
                mode != Mode.STOPPED,
            ),
            fairness=does_what_is_due,
            cites=("C1", "C5"),
            environment="calm",
            assumes=(*_ALL, "A4", "A5", "A7", "A8"),
        ),
        LeadsTo(
            "crash_leads_to_reset",
            "Every crash leads to a reset, or to a stopped supervisor with no child left; stuck children "
            "notwithstanding.",
            over=(),
            pending=reset_is_to_come,
            fairness=does_what_is_due,
            cites=("C5",),
            environment="calm",
            assumes=(*_ALL, "A4", "A5", "A8"),
        ),
        LeadsTo(
            "supervisor_death_ends_children",
            "When the supervisor dies, every child ends.",
            over=(c,),
            pending=both(mode == Mode.DEAD, negate(one_of(phase[c], Phase.NONE, Phase.EXITED))),
            fairness={
                "ask": "nobody's code but the launcher's own runs before",
                "check_fails": "nobody's code but the launcher's own runs before",
                "lifeline_kills": is_told,
            },
            cites=(),
            environment="+orphan",
            assumes=(*_ALL, "A4", "A5", "A8"),
            out_of_scope="" if Step.ASK in profile.start else unknown,
        ),
    )
    return tuple(replace(each, assumes=_assumed(profile, each)) for each in claims)


_REAPING = tuple(
    f"reap_{decided}{slot}" for slot in ("", "_without_a_slot") for decided in ("clean", "crash", "book_keeping")
)
