"""The whole system: the supervisor, any number of slots and children, and everything each of them may do.

The supervisor (PostgreSQL: the postmaster) assigns a slot, forks a child, and reaps it when it has died. A child's own
steps are, in `reference`: the exit path is registered, the switch is armed, the shared resource is taken ... given
back, the switch is disarmed; then it may engage again, or leave. PostgreSQL's children engage once, in their profile's
own order. At any point a child may end raw: `_exit`, a signal, with any status.

Read the state variables first, then the actions from top to bottom; `actions(profile)` is the specification.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

from armed_model.lifecycle import Who
from armed_model.profiles import (
    Allocation,
    Cancel,
    CleanWord,
    CrashAfterReset,
    Decision,
    InAnotherProcess,
    Kind,
    Profile,
    Step,
)
from armed_model.terms import (
    BOOL,
    INT,
    Action,
    Conjunct,
    Constant,
    Parameter,
    Term,
    Update,
    Variables,
    both,
    choose,
    either,
    enumeration,
    exists,
    for_all,
    free_sort,
    negate,
    one_of,
    symbols,
)

SUPERVISOR, CHILD_ITSELF, GRANDCHILD, ENVIRONMENT = Who.SUPERVISOR, Who.CHILD, Who.GRANDCHILD, Who.ENVIRONMENT

# --- Sorts and constants ---------------------------------------------------------------------------------------------


class Phase(enum.Enum):
    """Where a child is between its fork and its reaping."""

    NONE = "none"
    """There is no such child."""
    STARTING = "starting"
    """Forked; it has done nothing yet. The next five are named after the start-up step that was done last."""
    ASKED = "asked"
    CHECKED = "checked"
    TAKEN = "taken"
    ARMED = "armed"
    HOOKED = "hooked"
    SERVING = "serving"
    """Its own code runs, engaged or not."""
    LEAVING = "leaving"
    """Its exit path runs."""
    STUCK = "stuck"
    """It does nothing any more, and ends only if it is made to."""
    EXITED = "exited"
    """Dead, and not reaped."""


class Mode(enum.Enum):
    """What the supervisor is doing. PostgreSQL: `pmState` with `FatalError` (`postmaster.c`)."""

    RUNNING = "running"
    STOPPING = "stopping"
    """There was a crash: the others are being stopped."""
    DRAINING = "draining"
    """Nobody with access to shared memory is left, and nobody is let in. Dead-end children may still be there."""
    RESETTING = "resetting"
    """They are gone: shared memory is about to be made anew."""
    STARTING = "starting"
    """Shared memory is new; nothing is served yet."""
    STOPPED = "stopped"
    DEAD = "dead"
    """The supervisor has ended without having stopped its children."""


class Shutdown(enum.Enum):
    """What was asked for."""

    NONE = "none"
    ORDERLY = "orderly"
    """Start nobody, let those who are there leave. PostgreSQL: smart and fast."""
    IMMEDIATE = "immediate"
    """End everybody now; no decision is made and no recovery follows."""


class Request(enum.Enum):
    """How far a cancel request has come."""

    NONE = "none"
    CONNECTED = "connected"
    """The process that serves it has been forked, with a copy of the registry."""
    MATCHED = "matched"
    """Its pid and key are those of an entry of the registry, or of the copy."""
    OPENED = "opened"
    """There is a handle on the process that has the pid."""
    CONFIRMED = "confirmed"
    """The entry was read again, and still matches."""


SLOT = free_sort("Slot")
CHILD = free_sort("Child")
WORD = free_sort("Word")
PHASE, MODE, SHUTDOWN, WHO = enumeration(Phase), enumeration(Mode), enumeration(Shutdown), enumeration(Who)
KIND, REQUEST = enumeration(Kind), enumeration(Request)

no_slot = Constant("no_slot", SLOT, 0)
nobody = Constant("nobody", CHILD, 0)
UNUSED = Constant("UNUSED", WORD, 0)
ACTIVE = Constant("ACTIVE", WORD, 1)
OTHER = Constant("OTHER", WORD, 2)
"""A word that is nobody's: what a process that scribbles may leave."""
ASSIGNED = Constant("ASSIGNED", WORD, 3)
"""The clean word of every slot, where that is always the same one."""
STREAMING = Constant("STREAMING", WORD, 4)
"""PostgreSQL: PM_CHILD_WALSENDER."""
CONSTANTS = (no_slot, nobody, UNUSED, ACTIVE, OTHER, ASSIGNED, STREAMING)
NULLS = {"Slot": no_slot, "Child": nobody}

KILLED = -9
"""The status of a child that the supervisor has ended: neither 0 nor 1, which is all that matters."""

# --- State variables -------------------------------------------------------------------------------------------------

variables = Variables()
_scalar, _array = variables.scalar, variables.array

mode = _scalar("mode", MODE, Mode.RUNNING, "what the supervisor is doing")
shutdown = _scalar("shutdown", SHUTDOWN, Shutdown.NONE, "what kind of shutdown was asked for")
launching = _scalar("launching", SLOT, no_slot, "the slot assigned to a child that is not forked yet")
ticking = _scalar("ticking", BOOL, False, "since the reset a crash was booked that gives start-up a limit")
launching_as = _scalar("launching_as", KIND, Kind.BACKEND, "the kind of that child")

flag = _array("flag", SLOT, WORD, UNUSED, "the shared word of the slot: written without a lock, read at release")
clean = _array("clean", SLOT, WORD, UNUSED, "supervisor-private: the word that this assignment counts as clean")
in_use = _array("in_use", SLOT, BOOL, False, "supervisor-private: the slot is given out")
owner = _array("owner", SLOT, CHILD, nobody, "supervisor-private: the child that was forked for the slot")
used = _array("used", WORD, BOOL, False, "the word has served before, or is reserved: a fresh one has not (A10)")

phase = _array("phase", CHILD, PHASE, Phase.NONE, "where the child is in its life")
kind = _array("kind", CHILD, KIND, Kind.BACKEND, "what the child is for")
slot_of = _array("slot_of", CHILD, SLOT, no_slot, "the child's slot")
told = _array("told", CHILD, BOOL, False, "the kernel will end the child when the supervisor dies")
token = _array("token", CHILD, WORD, UNUSED, "child-private: the clean word of its slot")
engaged = _array("engaged", CHILD, BOOL, False, "child-private: an engagement is open, or could not be ended")
to_give = _array("to_give", CHILD, BOOL, False, "child-private: a hook is registered that gives back")
to_disarm = _array("to_disarm", CHILD, BOOL, False, "child-private: a hook is registered that disarms")
holds = _array("holds", CHILD, BOOL, False, "the child holds the shared resource")
failed = _array("failed", CHILD, BOOL, False, "child-private: a take was cut short, or a give-back or hook failed")
status = _array("status", CHILD, INT, 0, "the exit status: n for exit(n), -n for an end by signal n")

armed = _array("armed", CHILD, BOOL, False, "armed and not since disarmed", ghost=True)
orderly = _array("orderly", CHILD, BOOL, False, "left through its exit path, and nothing failed", ghost=True)
owed = _scalar("owed", BOOL, False, "an armed child was reaped, and no reset has happened since", ghost=True)
torn = _scalar("torn", BOOL, False, "somebody who was reaped held, and no reset has happened since", ghost=True)

copy_slot = _scalar("copy_slot", SLOT, no_slot, "the slot that the grandchild takes for its own; none: there is none")
copy_of = _scalar("copy_of", CHILD, nobody, "the child that the grandchild is a fork of, while that is not reaped")
copy_token = _scalar("copy_token", WORD, UNUSED, "what stands in the grandchild where the child has its token")
copy_gives = _scalar("copy_gives", BOOL, False, "the grandchild has a give-back that it inherited")
copy_disarms = _scalar("copy_disarms", BOOL, False, "the grandchild has a disarm that it inherited")

request = _scalar("request", REQUEST, Request.NONE, "how far the cancel request has come")
aimed = _scalar("aimed", CHILD, nobody, "the child whose pid and key it names")
entry_gone = _scalar("entry_gone", BOOL, False, "that child's entry has been removed since")
handle_astray = _scalar("handle_astray", BOOL, False, "the handle is on a later process with the same pid", ghost=True)
handle_gone = _scalar("handle_gone", BOOL, False, "the process that the handle is on has been reaped", ghost=True)

RESERVED = (UNUSED, ACTIVE, OTHER, ASSIGNED, STREAMING)
"""The words that no assignment ever draws."""

INITIALLY = tuple(used[word].becomes(True) for word in RESERVED)
"""At first everything is blank, but for these."""

_s, _w = Parameter("s", SLOT), Parameter("w", WORD)
BOUNDED_USED = (_w, either(one_of(_w, *RESERVED), exists(_s, either(flag[_s] == _w, clean[_s] == _w))))
"""In a bounded instance words run out, so there a word is used only while it is reserved or stands somewhere.

That forgets nothing: a word that stands nowhere is like any other that stands nowhere.
"""


def words(profile: Profile) -> tuple[Constant, ...]:
    """Return the reserved words that mean something in this profile; the others are like OTHER."""
    if profile.clean_word is CleanWord.FRESH:
        return UNUSED, ACTIVE, OTHER
    return (UNUSED, ACTIVE, OTHER, ASSIGNED, *([STREAMING] if Kind.WALSENDER in profile.kinds else []))


def clean_word(profile: Profile, slot: Term) -> Term:
    """Return what the slot must hold at release to be clean."""
    return clean[slot] if profile.clean_word is CleanWord.FRESH else ASSIGNED


# --- What guards say -------------------------------------------------------------------------------------------------

c, d = Parameter("c", CHILD), Parameter("d", CHILD)
s, t, u = Parameter("s", SLOT), Parameter("t", SLOT), Parameter("u", SLOT)
w = Parameter("w", WORD)
k = Parameter("k", INT, domain=(0, 1, 2))  # compared with 0 and 1 only, so 2 stands for all others

lives = negate(one_of(phase[c], Phase.NONE, Phase.EXITED))
responds = negate(one_of(phase[c], Phase.NONE, Phase.STUCK, Phase.EXITED))
has_slot = slot_of[c] != no_slot
everybody_is_gone = for_all(d, phase[d] == Phase.NONE)
slot_is_looked_at = shutdown != Shutdown.IMMEDIATE

_idle = (launching == no_slot).because("the supervisor does one thing at a time, and starting a child takes two")
_dead = (phase[c] == Phase.EXITED).because("only the dead are reaped, each once (A3)")
_new = (phase[c] == Phase.NONE).because("the child is a new one")
_no_shutdown = (shutdown == Shutdown.NONE).because("nobody starts once a shutdown was asked for (a simplification)")
_lives = lives.because("it lives")


def status_is_clean(child: Term) -> Term:
    """Return whether the exit status is clean for the child's kind.

    Simplified for AUXILIARY, to 0 only: PostgreSQL's walreceiver, archiver, slotsync and io workers may say 1, and its
    checkpointer 0 only in a shutdown.
    """
    return either(status[child] == 0, both(status[child] == 1, kind[child] != Kind.AUXILIARY))


def is_looked_at(profile: Profile, child: Term) -> Term:
    """Return whether the child is of a kind whose slot is looked at."""
    return one_of(kind[child], *profile.looked_at)


def decided_clean(profile: Profile) -> Term:
    """Return the profile's rule of when the death of `c`, which has a slot, is no crash."""
    match profile.decision:
        case Decision.STATUS_AND_SLOT:
            slot_is_clean = flag[slot_of[c]] == clean_word(profile, slot_of[c])
            return both(status_is_clean(c), either(negate(is_looked_at(profile, c)), slot_is_clean))
        case Decision.STATUS:
            return status_is_clean(c)
        case Decision.SLOT:
            return either(negate(is_looked_at(profile, c)), flag[slot_of[c]] == clean_word(profile, slot_of[c]))


def is_decided(profile: Profile) -> Term:
    """Return whether deaths are decided now; else they are book-keeping."""
    at_once = profile.crash_after_reset is CrashAfterReset.DECIDED
    return one_of(mode, Mode.RUNNING, *([Mode.STARTING] if at_once else []))


def children_are_ended(profile: Profile) -> Term:
    """Return whether the supervisor ends children now. Where a child prepares the new generation, it has a limit."""
    modes = [Mode.STOPPING, Mode.DRAINING, *([] if profile.auxiliaries_while_running else [Mode.STARTING])]
    return either(one_of(mode, *modes), shutdown == Shutdown.IMMEDIATE)


# --- Actions ---------------------------------------------------------------------------------------------------------


@cache
def actions(profile: Profile, environment: str = "calm", backends_alone: bool = False) -> tuple[Action, ...]:
    """Return everything that may happen in `profile`, in the order of the story, in an environment of ENVIRONMENTS.

    `backends_alone`: the ghosts `owed` and `torn` remember only those whose slot is looked at.
    """
    return (
        *_starting(profile),
        *_start_up(profile),
        *(_one_engagement(profile) if profile.engages_once else _engagements()),
        *_ending(profile),
        *_reaping(profile, backends_alone),
        *_recovery(profile),
        *_shutting_down(),
        *{**ENVIRONMENTS, **CONTROL_ENVIRONMENTS}[environment](profile),
    )


def _action(
    name: str,
    sentence: str,
    by: Who,
    of: tuple[Parameter, ...],
    guard: tuple[Conjunct, ...],
    effect: tuple[Update, ...],
    cites: tuple[str, ...] = (),
) -> Action:
    return Action(name, sentence, by, of, guard, effect, cites, NULLS)


# Starting a child: the supervisor's side


def _starting(profile: Profile) -> tuple[Action, ...]:
    release = _release(profile, launching) if profile.failed_fork_releases else ()
    knows_its_word = (token[c].becomes(clean[launching]),) if profile.clean_word is CleanWord.FRESH else ()
    kind_is_known = (launching_as.becomes(Kind.BACKEND),) if Kind.AUXILIARY in profile.with_a_slot else ()
    return (
        _assign(profile, Kind.BACKEND),
        *([_assign(profile, Kind.AUXILIARY)] if Kind.AUXILIARY in profile.with_a_slot else []),
        *_assign_fails(profile),
        _action(
            "fork",
            "The fork succeeds: there is a child, and it knows its slot.",
            by=SUPERVISOR,
            of=(c,),
            guard=((launching != no_slot).because("a child is forked for a slot"), _new),
            effect=(
                phase[c].becomes(Phase.STARTING),
                kind[c].becomes(launching_as),
                slot_of[c].becomes(launching),
                *knows_its_word,
                owner[launching].becomes(c),
                launching.becomes(no_slot),
                *kind_is_known,
            ),
            cites=("C14",),
        ),
        _action(
            "fork_fails",
            "The fork fails" + (": the slot is released." if release else ", and the slot is not released."),
            by=SUPERVISOR,
            of=(),
            guard=((launching != no_slot).because("a child is forked for a slot"),),
            effect=(*release, launching.becomes(no_slot), *kind_is_known),
            cites=("C16",),
        ),
        *([] if Kind.AUXILIARY in profile.with_a_slot else [_fork_auxiliary(profile)]),
        _fork_dead_end(profile),
    )


def _auxiliaries_start_in(profile: Profile) -> Conjunct:
    modes = [
        *([Mode.RUNNING] if profile.auxiliaries_while_running else []),
        *([Mode.STARTING] if profile.auxiliaries_while_starting else []),
    ]
    return one_of(mode, *modes).because("when auxiliary children start")


def _free(profile: Profile) -> tuple[tuple[Parameter, ...], tuple[Conjunct, ...]]:
    """Return what says that slot `s` is free, and the parameters it needs besides."""
    match profile.allocation:
        case Allocation.SHARED:
            return (t,), (
                (flag[s] == UNUSED).because("the shared flag is what tells that a slot is free"),
                (owner[t] == nobody).because("by the count of children there is a free slot, if not this one"),
            )
        case Allocation.PRIVATE:
            return (), (negate(in_use[s]).because("two children never share a slot; the flag is not consulted"),)
        case Allocation.PRIVATE_THEN_SHARED:
            return (), (
                negate(in_use[s]).because("two children never share a slot"),
                (flag[s] == UNUSED).because("the flag is tested, too"),
            )


def _assign(profile: Profile, of_kind: Kind) -> Action:
    parameters, is_free = _free(profile)
    if of_kind is Kind.AUXILIARY:
        name, for_whom, when = "assign_auxiliary", "an auxiliary child", _auxiliaries_start_in(profile)
    else:
        in_service = (mode == Mode.RUNNING).because("no child starts in memory that is in doubt")
        name, for_whom, when = "assign", "a backend", in_service
    fresh = profile.clean_word is CleanWord.FRESH
    return _action(
        name,
        "The supervisor gives out a free slot, and writes "
        + ("a fresh clean word into it." if fresh else f"ASSIGNED into it, for {for_whom}."),
        by=SUPERVISOR,
        of=(s, *parameters, *([w] if fresh else [])),
        guard=(
            when,
            _no_shutdown,
            _idle,
            *is_free,
            *([negate(used[w]).because("a word of an earlier assignment must not look clean")] if fresh else []),
        ),
        effect=(
            flag[s].becomes(w if fresh else ASSIGNED),
            *([clean[s].becomes(w), used[w].becomes(True)] if fresh else []),
            *([] if profile.allocation is Allocation.SHARED else [in_use[s].becomes(True)]),
            launching.becomes(s),
            *([launching_as.becomes(of_kind)] if of_kind is Kind.AUXILIARY else []),
        ),
        cites=("C14", "C16"),
    )


def _assign_fails(profile: Profile) -> tuple[Action, ...]:
    also = [Mode.STARTING] if Kind.AUXILIARY in profile.with_a_slot and profile.auxiliaries_while_starting else []
    starts = one_of(mode, Mode.RUNNING, *also).because("a slot is wanted")
    match profile.allocation:
        case Allocation.SHARED:
            why = "By the count of children there is a free slot, but no flag is unused: the supervisor ends."
            nothing = for_all(u, either(u == no_slot, flag[u] != UNUSED))
            reason = ((owner[s] == nobody).because("there is one"), nothing.because("and none is found"))
        case Allocation.PRIVATE:
            return ()
        case Allocation.PRIVATE_THEN_SHARED:
            why = "The flag of a free slot is not unused: the supervisor ends."
            reason = (negate(in_use[s]).because("it is free"), (flag[s] != UNUSED).because("and does not look so"))
    guard = (starts, _no_shutdown, _idle, *reason)
    return (_action("assign_fails", why, SUPERVISOR, (s,), guard, (mode.becomes(Mode.DEAD),), cites=("C16",)),)


def _release(profile: Profile, slot: Term) -> tuple[Update, ...]:
    """Make the supervisor's record of a slot blank, and its flag unused."""
    return (
        flag[slot].becomes(UNUSED),
        *([clean[slot].becomes(UNUSED)] if profile.clean_word is CleanWord.FRESH else []),
        *([] if profile.allocation is Allocation.SHARED else [in_use[slot].becomes(False)]),
    )


def _fork_auxiliary(profile: Profile) -> Action:
    return _action(
        "fork_auxiliary",
        "The supervisor starts an auxiliary child. It has no slot.",
        by=SUPERVISOR,
        of=(c,),
        guard=(_auxiliaries_start_in(profile), _no_shutdown, _idle, _new),
        effect=(phase[c].becomes(Phase.STARTING), kind[c].becomes(Kind.AUXILIARY)),
        cites=("C9", "C10"),
    )


def _fork_dead_end(profile: Profile) -> Action:
    none_is_free = both(
        mode == Mode.RUNNING, launching == no_slot, for_all(u, either(u == no_slot, owner[u] != nobody))
    )
    in_recovery = [mode == Mode.STOPPING] if profile.dead_ends_in_recovery else []
    first = Phase.SERVING if profile.engages_once else Phase.STARTING
    return _action(
        "fork_dead_end",
        "There is no slot for a client, or no service: the supervisor starts a child that only says so.",
        by=SUPERVISOR,
        of=(c,),
        guard=(either(none_is_free, *in_recovery).because("else it would be served"), _no_shutdown, _new),
        effect=(phase[c].becomes(first), kind[c].becomes(Kind.DEAD_END)),
        cites=("C16",),
    )


# Start-up and engagement: the child's side

_AFTER = {
    Step.ASK: Phase.ASKED,
    Step.CHECK: Phase.CHECKED,
    Step.TAKE: Phase.TAKEN,
    Step.ARM: Phase.ARMED,
    Step.HOOK_DISARM: Phase.HOOKED,
}
"""The phase after a start-up step that is not the last; after the last a child is serving."""

_DOES: dict[Step, tuple[str, tuple[Update, ...], tuple[str, ...]]] = {
    Step.ASK: ("The child asks to be ended when the supervisor dies.", (told[c].becomes(mode != Mode.DEAD),), ()),
    Step.CHECK: ("The child sees that the supervisor lives.", (), ()),
    Step.HOOK: ("The exit path is registered, before anything is armed.", (), ("C13",)),
    Step.TAKE: ("The child takes the shared resource.", (holds[c].becomes(True),), ("C4",)),
    Step.ARM: ("The child arms the switch.", (flag[slot_of[c]].becomes(ACTIVE), armed[c].becomes(True)), ("C6",)),
    Step.HOOK_BOTH: (
        "One hook is registered, which will give back and then disarm.",
        (to_give[c].becomes(True), to_disarm[c].becomes(True)),
        ("C7", "C13"),
    ),
    Step.HOOK_GIVE: ("The hook is registered that will give back.", (to_give[c].becomes(True),), ("C7",)),
    Step.HOOK_DISARM: ("The hook is registered that will disarm.", (to_disarm[c].becomes(True),), ("C7",)),
}
"""What a start-up step does: its sentence, its effect, the claims it serves."""


def start_up_phases(profile: Profile) -> dict[Step, Phase]:
    """Return in which phase each start-up step is taken."""
    befores = [Phase.STARTING, *[_AFTER[step] for step in profile.start[:-1]]]
    return dict(zip(profile.start, befores, strict=True))


def phases(profile: Profile) -> tuple[Phase, ...]:
    """Return the phases that a child can be in."""
    absent = {*_AFTER.values()} - {*start_up_phases(profile).values()}
    return tuple(phase for phase in Phase if phase not in absent)


def _start_up(profile: Profile) -> tuple[Action, ...]:
    steps = []
    before = start_up_phases(profile)
    afters = [*list(before.values())[1:], Phase.SERVING]
    for (step, at), then in zip(before.items(), afters, strict=True):
        sentence, effect, cites = _DOES[step]
        guard = [(phase[c] == at).because("one step after the other, each once")]
        if profile.engages_once:
            guard.append(has_slot.because("who has no slot has nothing to arm"))
        if step is Step.CHECK:
            guard.append((mode != Mode.DEAD).because("the supervisor lives"))
        effect = (*effect, phase[c].becomes(then))
        steps.append(_action(step.value, sentence, CHILD_ITSELF, (c,), tuple(guard), effect, cites))
        if step is Step.CHECK:
            steps.append(_check_fails(profile, at))
    if Kind.AUXILIARY in profile.kinds and profile.engages_once and Kind.AUXILIARY not in profile.with_a_slot:
        steps.append(
            _action(
                "take_without_a_slot",
                "An auxiliary child takes the shared resource, and registers a hook that will give it back.",
                by=CHILD_ITSELF,
                of=(c,),
                guard=(
                    (phase[c] == Phase.STARTING).because("once"),
                    (kind[c] == Kind.AUXILIARY).because("others have slots, or touch nothing"),
                ),
                effect=(holds[c].becomes(True), to_give[c].becomes(True), phase[c].becomes(Phase.SERVING)),
                cites=("C9",),
            )
        )
    return tuple(steps)


def _check_fails(profile: Profile, at: Phase) -> Action:
    return _action(
        "check_fails",
        "The child sees that the supervisor is dead, and ends.",
        by=CHILD_ITSELF,
        of=(c,),
        guard=(
            (phase[c] == at).because("after it has asked to be told: before, the death might fall in between"),
            (mode == Mode.DEAD).because("the supervisor is dead"),
        ),
        effect=_dies(profile, 1),
    )


def _engagements() -> tuple[Action, ...]:
    serving = (phase[c] == Phase.SERVING).because("a step of the child's own code")
    serving_or_leaving = one_of(phase[c], Phase.SERVING, Phase.LEAVING).because("in a block's end, or on the way out")
    is_engaged = engaged[c].because("resources are taken inside an engagement only")
    has_it = holds[c].because("what is given back was taken")
    return (
        _action(
            "arm",
            "The child arms the switch.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(
                serving,
                has_slot.because("the switch is the slot's"),
                negate(engaged[c]).because("one engagement at a time"),
            ),
            effect=(flag[slot_of[c]].becomes(ACTIVE), engaged[c].becomes(True), armed[c].becomes(True)),
            cites=("C6", "C8"),
        ),
        _action(
            "take",
            "The child takes the shared resource.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(serving, is_engaged),
            effect=(holds[c].becomes(True),),
            cites=("C4",),
        ),
        _action(
            "take_fails",
            "The take is cut short before its first effect.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(serving, is_engaged),
            effect=(failed[c].becomes(True),),
        ),
        _action(
            "take_fails_late",
            "The take is cut short after its last effect.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(serving, is_engaged),
            effect=(holds[c].becomes(True), failed[c].becomes(True)),
        ),
        _action(
            "give",
            "The child gives the resource back.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(serving_or_leaving, has_it),
            effect=(holds[c].becomes(False),),
            cites=("C7",),
        ),
        _action(
            "give_fails",
            "The give-back fails before its first effect.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(serving_or_leaving, has_it),
            effect=(failed[c].becomes(True),),
        ),
        _action(
            "give_fails_late",
            "The give-back fails after its last effect.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(serving_or_leaving, has_it),
            effect=(holds[c].becomes(False), failed[c].becomes(True)),
        ),
        _action(
            "disarm",
            "The child disarms the switch: it writes its token, blindly.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(
                serving_or_leaving,
                engaged[c].because("there is an engagement to end"),
                negate(holds[c]).because("first everything is given back"),
                negate(failed[c]).because("what may not have been given back must not look clean"),
            ),
            effect=(flag[slot_of[c]].becomes(token[c]), engaged[c].becomes(False), armed[c].becomes(False)),
            cites=("C7", "C8"),
        ),
    )


def _one_engagement(profile: Profile) -> tuple[Action, ...]:
    leaving = (phase[c] == Phase.LEAVING).because("on the way out")
    given = negate(to_give[c]).because("the last hook registered runs first; in one hook, giving comes first")
    one_hook = Step.HOOK_BOTH in profile.start
    return (
        *([_stream()] if Kind.WALSENDER in profile.kinds else []),
        _action(
            "give",
            "The child's exit hook gives the resource back.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(leaving, to_give[c].because("the hook is registered, and has not run")),
            effect=(holds[c].becomes(False), to_give[c].becomes(False)),
            cites=("C7",),
        ),
        _action(
            "give_hook_fails",
            "The hook that gives back fails before it has, and is skipped" + (", all of it." if one_hook else "."),
            by=CHILD_ITSELF,
            of=(c,),
            guard=(leaving, to_give[c].because("the hook is registered, and has not run")),
            effect=(
                failed[c].becomes(True),
                to_give[c].becomes(False),
                *([to_disarm[c].becomes(False)] if one_hook else []),
            ),
        ),
        _action(
            "disarm",
            "The child's exit hook disarms the switch.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(leaving, given, to_disarm[c].because("the hook is registered, and has not run")),
            effect=(flag[slot_of[c]].becomes(ASSIGNED), armed[c].becomes(False), to_disarm[c].becomes(False)),
            cites=("C7", "C8"),
        ),
        _action(
            "disarm_hook_fails",
            "The hook that disarms fails before it has: it is skipped.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(leaving, given, to_disarm[c].because("the hook is registered, and has not run")),
            effect=(failed[c].becomes(True), to_disarm[c].becomes(False)),
        ),
    )


def _stream() -> Action:
    return _action(
        "stream",
        "A backend turns to sending the write-ahead log, and its flag says so.",
        by=CHILD_ITSELF,
        of=(c,),
        guard=(
            (phase[c] == Phase.SERVING).because("a step of the child's own code"),
            (kind[c] == Kind.BACKEND).because("once, and for good"),
        ),
        effect=(kind[c].becomes(Kind.WALSENDER), flag[slot_of[c]].becomes(STREAMING)),
        cites=("C6",),
    )


def _dies(profile: Profile, with_status: object) -> tuple[Update, ...]:
    """Let `c` be dead: what was in its own memory is gone with it."""
    if profile.engages_once:
        memory = [to_give[c].becomes(False), to_disarm[c].becomes(False)]
    else:
        memory = [told[c].becomes(False), token[c].becomes(UNUSED), engaged[c].becomes(False)]
    return phase[c].becomes(Phase.EXITED), status[c].becomes(with_status), *memory, failed[c].becomes(False)


def _orderly_exit(profile: Profile) -> Action:
    if profile.engages_once:
        is_through = negate(either(to_give[c], to_disarm[c])).because("after every hook")
    else:
        is_through = either(negate(engaged[c]), failed[c]).because("it ends an open engagement, unless spoilt")
    return _action(
        "orderly_exit",
        "The child's exit path is through: it is dead.",
        by=CHILD_ITSELF,
        of=(c, k),
        guard=((phase[c] == Phase.LEAVING).because("after the exit path"), is_through),
        effect=(*_dies(profile, k), orderly[c].becomes(negate(failed[c]))),
        cites=("C13",),
    )


def _ending(profile: Profile) -> tuple[Action, ...]:
    asks = Step.ASK in profile.start
    early = negate(one_of(phase[c], Phase.STARTING, Phase.ASKED))
    return (
        _action(
            "leave",
            "The child leaves in the orderly way (return, exception, sys.exit, SIGTERM): its exit path begins.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(
                responds.because("it lives"),
                (phase[c] != Phase.LEAVING).because("once"),
                *([early.because("until then nobody's code but the launcher's own runs")] if asks else []),
            ),
            effect=(phase[c].becomes(Phase.LEAVING),),
            cites=("C13",),
        ),
        _orderly_exit(profile),
        _action(
            "raw_exit",
            "The child dies, its exit path not run: `_exit` in somebody's code, or a stranger's signal (counted so).",
            by=CHILD_ITSELF,
            of=(c, k),
            guard=(_lives,),
            effect=_dies(profile, k),
            cites=("C1", "C2", "C3"),
        ),
        _action(
            "get_stuck",
            "The child does nothing any more: it hangs, or spins, and heeds no signal that can be ignored.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(one_of(phase[c], Phase.SERVING, Phase.LEAVING).because("whose own code, or clean-up, runs"),),
            effect=(phase[c].becomes(Phase.STUCK),),
        ),
    )


# Reaping: the decision


def _forget_child(profile: Profile, has_a_slot: bool, backends_alone: bool) -> tuple[Update, ...]:
    """Release the slot of `c`, if any, and make every trace of `c` blank (the ghosts remember what it left behind)."""
    counts = [is_looked_at(profile, c)] if backends_alone else []
    return (
        *([*_release(profile, slot_of[c]), owner[slot_of[c]].becomes(nobody)] if has_a_slot else []),
        phase[c].becomes(Phase.NONE),
        kind[c].becomes(Kind.BACKEND),
        slot_of[c].becomes(no_slot),
        holds[c].becomes(False),
        status[c].becomes(0),
        armed[c].becomes(False),
        orderly[c].becomes(False),
        owed.becomes(either(owed, both(armed[c], *counts))),
        torn.becomes(either(torn, both(holds[c], *counts))),
        copy_of.becomes(choose(copy_of == c, nobody, copy_of)),
        entry_gone.becomes(either(entry_gone, aimed == c)),
        handle_gone.becomes(either(handle_gone, both(aimed == c, one_of(request, Request.OPENED, Request.CONFIRMED)))),
    )


def _reaping(profile: Profile, backends_alone: bool) -> tuple[Action, ...]:
    # The status alone says that it is a crash: whose slot is looked at does not start before service.
    a_crash_was_booked = either(ticking, both(mode == Mode.STARTING, negate(status_is_clean(c))))
    has_a_clock = profile.crash_after_reset is CrashAfterReset.ON_THE_CLOCK
    starts_the_clock = [ticking.becomes(a_crash_was_booked)] if has_a_clock else []
    reaped = []
    for has_a_slot in (True, False):
        suffix = "" if has_a_slot else "_without_a_slot"
        who = "a child" if has_a_slot else "a child that has no slot"
        is_clean = decided_clean(profile) if has_a_slot else status_is_clean(c)
        this = has_slot if has_a_slot else negate(has_slot)
        common = (_dead, _idle, this.because("a slot is released, or there is none"))
        decided = (
            is_decided(profile).because("during a recovery deaths are book-keeping"),
            slot_is_looked_at.because("in an immediate shutdown deaths are book-keeping"),
        )
        forget = _forget_child(profile, has_a_slot, backends_alone)
        reaped += [
            _action(
                "reap_clean" + suffix,
                f"The supervisor reaps {who}, decides that it left cleanly, and goes on.",
                by=SUPERVISOR,
                of=(c,),
                guard=(*common, *decided, is_clean.because("the decision")),
                effect=forget,
                cites=("C13",),
            ),
            _action(
                "reap_crash" + suffix,
                f"The supervisor reaps {who}, decides that it crashed, and starts to stop the others.",
                by=SUPERVISOR,
                of=(c,),
                guard=(*common, *decided, negate(is_clean).because("the decision")),
                effect=(*forget, mode.becomes(Mode.STOPPING)),
                cites=("C1", "C5", "C15"),
            ),
            _action(
                "reap_book_keeping" + suffix,
                f"The supervisor reaps {who}, and its death decides nothing any more.",
                by=SUPERVISOR,
                of=(c,),
                guard=(
                    *common,
                    (mode != Mode.DEAD).because("the supervisor lives"),
                    either(negate(is_decided(profile)), shutdown == Shutdown.IMMEDIATE).because(
                        "recovery, or the end, is on"
                    ),
                ),
                effect=(*forget, *starts_the_clock),
                cites=("C5",),
            ),
        ]
    return (*([_notice(profile)] if profile.early_notice else []), *reaped)


def _notice(profile: Profile) -> Action:
    return _action(
        "notice",
        "The supervisor learns that an armed child is dying before it can be reaped, and starts to stop the others.",
        by=SUPERVISOR,
        of=(c,),
        guard=(
            _dead,
            _idle,
            has_slot.because("the switch is the slot's"),
            is_decided(profile).because("during a recovery deaths are book-keeping"),
            slot_is_looked_at.because("in an immediate shutdown deaths are book-keeping"),
            (flag[slot_of[c]] != clean_word(profile, slot_of[c])).because("whatever its status, it is a crash"),
        ),
        effect=(mode.becomes(Mode.STOPPING),),
        cites=("C1", "C5"),
    )


# Recovery


def _recovery(profile: Profile) -> tuple[Action, ...]:
    ends_others = children_are_ended(profile)
    has_a_clock = profile.crash_after_reset is CrashAfterReset.ON_THE_CLOCK
    supervisor_lives = (mode != Mode.DEAD).because("the supervisor lives")
    preparing_is_over = (
        []
        if profile.auxiliaries_while_running
        else [everybody_is_gone.because("the child that prepares the generation has ended well")]
    )
    return (
        _action(
            "kill",
            "The supervisor ends a child: nobody goes on in memory that is in doubt.",
            by=SUPERVISOR,
            of=(c,),
            guard=(
                responds.because("it lives, and heeds the signal"),
                ends_others.because("a crash, the end, or preparing the new generation has taken too long"),
                supervisor_lives,
            ),
            effect=_dies(profile, KILLED),
            cites=("C5",),
        ),
        *([_kill_stuck(profile, ends_others, supervisor_lives)] if profile.kills_stuck else []),
        _action(
            "only_dead_ends_left",
            "The last child that had access to shared memory is reaped: nobody is let in any more.",
            by=SUPERVISOR,
            of=(),
            guard=(
                (mode == Mode.STOPPING).because("there was a crash"),
                for_all(d, either(phase[d] == Phase.NONE, kind[d] == Kind.DEAD_END)).because(
                    "dead-end children are not waited for yet"
                ),
            ),
            effect=(mode.becomes(Mode.DRAINING),),
            cites=("C5",),
        ),
        _action(
            "all_gone",
            "The last child of the generation is reaped.",
            by=SUPERVISOR,
            of=(),
            guard=(
                (mode == Mode.DRAINING).because("nobody is let in"),
                everybody_is_gone.because("memory is not made anew under anybody's feet"),
            ),
            effect=(mode.becomes(Mode.RESETTING),),
            cites=("C5",),
        ),
        _action(
            "reset",
            "Shared memory is made anew: a new generation.",
            by=SUPERVISOR,
            of=(),
            guard=(
                (mode == Mode.RESETTING).because("everybody is gone"),
                (shutdown == Shutdown.NONE).because("nobody would use it"),
            ),
            effect=(
                flag.becomes_blank(),
                *([clean.becomes_blank()] if profile.clean_word is CleanWord.FRESH else []),
                *([] if profile.allocation is Allocation.SHARED else [in_use.becomes_blank()]),
                owner.becomes_blank(),
                owed.becomes(False),
                torn.becomes(False),
                *_no_grandchild(),  # who is left of the last generation is attached to memory that nobody uses
                mode.becomes(Mode.STARTING),
            ),
            cites=("C4", "C5"),
        ),
        _action(
            "started",
            "The new generation is ready: the supervisor serves again.",
            by=SUPERVISOR,
            of=(),
            guard=((mode == Mode.STARTING).because("memory is new"), _idle, *preparing_is_over),
            effect=(mode.becomes(Mode.RUNNING), *([ticking.becomes(False)] if has_a_clock else [])),
            cites=("C5",),
        ),
        *([_clock_runs_out()] if has_a_clock else []),
        _action(
            "startup_fails",
            "The new generation cannot be made: the supervisor stops, with no child left.",
            by=SUPERVISOR,
            of=(),
            guard=(
                (mode == Mode.STARTING).because("memory is new"),
                _idle,
                everybody_is_gone.because("no child outlives its supervisor"),
            ),
            effect=(mode.becomes(Mode.STOPPED),),
        ),
    )


def _clock_runs_out() -> Action:
    return _action(
        "clock_runs_out",
        "The clock that a crash has started is over, and the new generation is not ready: recovery starts anew.",
        by=SUPERVISOR,
        of=(),
        guard=(
            (mode == Mode.STARTING).because("memory is new"),
            _idle,
            ticking.because("a crash was booked since the reset"),
            (shutdown != Shutdown.IMMEDIATE).because("in an immediate shutdown everybody is ended anyway"),
        ),
        effect=(mode.becomes(Mode.STOPPING), ticking.becomes(False)),
        cites=("C5",),
    )


def _kill_stuck(profile: Profile, ends_others: Term, supervisor_lives: Conjunct) -> Action:
    return _action(
        "kill_stuck",
        "The limit is over: the supervisor ends a child that did not heed the first signal, by one that it must (A4).",
        by=SUPERVISOR,
        of=(c,),
        guard=(
            (phase[c] == Phase.STUCK).because("it lives, and did not heed the signal"),
            ends_others.because("a crash, the end, or preparing the new generation has taken too long"),
            supervisor_lives,
        ),
        effect=_dies(profile, KILLED),
        cites=("C5",),
    )


def _shutting_down() -> tuple[Action, ...]:
    in_business = negate(one_of(mode, Mode.STOPPED, Mode.DEAD)).because("it has not ended yet")
    return (
        _action(
            "ask_orderly",
            "An orderly shutdown is asked for.",
            by=SUPERVISOR,
            of=(),
            guard=(_idle, in_business, (shutdown == Shutdown.NONE).because("it is the first time")),
            effect=(shutdown.becomes(Shutdown.ORDERLY),),
        ),
        _action(
            "ask_immediate",
            "An immediate shutdown is asked for, at once or because the orderly one took too long.",
            by=SUPERVISOR,
            of=(),
            guard=(_idle, in_business, (shutdown != Shutdown.IMMEDIATE).because("it is the first time")),
            effect=(shutdown.becomes(Shutdown.IMMEDIATE),),
        ),
        _action(
            "stop",
            "Everybody is gone: the supervisor stops.",
            by=SUPERVISOR,
            of=(),
            guard=(
                _idle,
                in_business,
                (shutdown != Shutdown.NONE).because("it was asked to"),
                everybody_is_gone.because("no child outlives its supervisor"),
            ),
            effect=(mode.becomes(Mode.STOPPED),),
        ),
    )


# --- Environments ----------------------------------------------------------------------------------------------------


def _stray(profile: Profile, copies_back: bool = False) -> tuple[Action, ...]:
    no_copy_back = (w != clean[s]).because("assumption no_copy_back (A6): not this very assignment's clean word")
    return (
        _action(
            "stray_write",
            "A child that is attached to shared memory scribbles over some slot's flag.",
            by=ENVIRONMENT,
            of=(c, s, w),
            guard=(
                lives.because("only somebody attached to shared memory can write there"),
                *([no_copy_back] if profile.clean_word is CleanWord.FRESH and not copies_back else []),
            ),
            effect=(flag[s].becomes(w),),
        ),
    )


def _no_grandchild() -> tuple[Update, ...]:
    return (
        copy_slot.becomes(no_slot),
        copy_of.becomes(nobody),
        copy_token.becomes(UNUSED),
        copy_gives.becomes(False),
        copy_disarms.becomes(False),
    )


def _grandchild(profile: Profile) -> tuple[Action, ...]:
    """One grandchild at a time: a copy of a child, with what the child would do on its way out.

    Raises ValueError where tokens are to be wiped that are not there.
    """
    wiped = profile.in_another_process is InAnotherProcess.TOKEN_IS_WIPED
    if wiped and profile.engages_once:
        raise ValueError("who engages once writes a constant, and has no token that could be wiped")
    stops = profile.in_another_process is InAnotherProcess.GIVE_CHECKS_PID
    knows = [(copy_token != UNUSED).because("without a token nothing is given back nor disarmed")] if wiped else []
    there = (copy_slot != no_slot).because("there is a grandchild")
    if profile.engages_once:
        gives: Term = to_give[c]
        disarms: Term = to_disarm[c]
    else:
        gives, disarms = holds[c], both(engaged[c], negate(failed[c]))
    give = _action(
        "grandchild_gives",
        "The grandchild runs its parent's give-back.",
        by=GRANDCHILD,
        of=(),
        guard=(copy_gives.because("it inherited one"), (copy_of != nobody).because("of a child that is there"), *knows),
        effect=(holds[copy_of].becomes(False), copy_gives.becomes(False)),
        cites=("C4",),
    )
    give_late = _action(
        "grandchild_gives_late",
        "The grandchild runs the give-back of a parent that has been reaped: what that does to others is not modelled.",
        by=GRANDCHILD,
        of=(),
        guard=(copy_gives.because("it inherited one"), (copy_of == nobody).because("of a child that is gone"), *knows),
        effect=(copy_gives.becomes(False),),
    )
    stop = _action(
        "grandchild_is_stopped",
        "The give-back finds that it runs in another process than the one that took, and stops that.",
        by=GRANDCHILD,
        of=(),
        guard=(copy_gives.because("it inherited one"),),
        effect=_no_grandchild(),
    )
    return (
        _action(
            "fork_grandchild",
            "A child forks: the grandchild has a copy of what its parent would do on its way out.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(
                responds.because("it lives"),
                (phase[c] != Phase.LEAVING).because("assumed: hooks do not fork"),
                has_slot.because("who has none has nothing to lose"),
                (copy_slot == no_slot).because("one at a time"),
            ),
            effect=(
                copy_slot.becomes(slot_of[c]),
                copy_of.becomes(c),
                copy_token.becomes(UNUSED if wiped else token[c]),
                copy_gives.becomes(gives),
                copy_disarms.becomes(disarms),
            ),
        ),
        *((stop,) if stops else (give, give_late)),
        _action(
            "grandchild_disarms",
            "The grandchild runs its parent's disarm.",
            by=GRANDCHILD,
            of=(),
            guard=(
                copy_disarms.because("it inherited one"),
                negate(copy_gives).because("giving back comes first"),
                *knows,
            ),
            effect=(flag[copy_slot].becomes(copy_token if wiped else ASSIGNED), copy_disarms.becomes(False)),
            cites=("C7",),
        ),
        _action("grandchild_ends", "The grandchild ends.", GRANDCHILD, (), (there,), _no_grandchild()),
    )


def _orphan(profile: Profile) -> tuple[Action, ...]:
    lifeline = _action(
        "lifeline_kills",
        "The kernel ends a child that has asked for it in time.",
        by=ENVIRONMENT,
        of=(c,),
        guard=(
            _lives,
            (mode == Mode.DEAD).because("the supervisor is dead"),
            told[c].because("it asked while the supervisor lived"),
        ),
        effect=_dies(profile, KILLED),
    )
    return (
        _action(
            "supervisor_dies",
            "The supervisor dies.",
            by=ENVIRONMENT,
            of=(),
            guard=(negate(one_of(mode, Mode.STOPPED, Mode.DEAD)).because("it lives"),),
            effect=(
                mode.becomes(Mode.DEAD),
                launching.becomes(no_slot),
                *([launching_as.becomes(Kind.BACKEND)] if Kind.AUXILIARY in profile.with_a_slot else []),
            ),
        ),
        *([lifeline] if Step.ASK in profile.start else []),
    )


def _cancelling(profile: Profile) -> tuple[Action, ...]:
    """One cancel request at a time. A request that matches no entry does nothing, and is no step."""
    over = (
        request.becomes(Request.NONE),
        aimed.becomes(nobody),
        entry_gone.becomes(False),
        handle_astray.becomes(False),
        handle_gone.becomes(False),
    )
    is_registered = (
        (request == Request.NONE).because("one at a time"),
        (phase[c] != Phase.NONE).because("the entry is there until the child is reaped (18: or clears it)"),
        has_slot.because("who has no slot has no entry"),
    )
    matches = _action(
        "cancel_matches",
        "A cancel request's pid and key are those of an entry of the registry.",
        by=ENVIRONMENT,
        of=(c,),
        guard=is_registered,
        effect=(request.becomes(Request.MATCHED), aimed.becomes(c)),
        cites=("C11",),
    )
    has_matched = ((request == Request.MATCHED).because("an entry has matched"),)
    signals = _action("cancel_signals", "Whoever has the pid is signalled.", ENVIRONMENT, (), has_matched, over)
    match profile.cancel:
        case Cancel.BY_PID_OF_A_COPY:
            return (
                _action(
                    "cancel_connects",
                    "A cancel request's connection is made: who serves it is forked, with a copy of the registry.",
                    by=ENVIRONMENT,
                    of=(c,),
                    guard=is_registered,
                    effect=(request.becomes(Request.CONNECTED), aimed.becomes(c)),
                ),
                _action(
                    "cancel_matches",
                    "Its pid and key come, and are those of an entry of the copy, whoever has the pid now.",
                    by=ENVIRONMENT,
                    of=(),
                    guard=((request == Request.CONNECTED).because("the copy is as old as the connection"),),
                    effect=(request.becomes(Request.MATCHED),),
                ),
                signals,
            )
        case Cancel.BY_PID:
            return matches, signals
        case Cancel.BY_HANDLE:
            gone = either(
                both(request == Request.MATCHED, phase[aimed] == Phase.NONE),
                both(request == Request.OPENED, entry_gone),
            )
            return (
                matches,
                _action(
                    "cancel_opens",
                    "A handle is opened on the process that has the pid now.",
                    by=ENVIRONMENT,
                    of=(),
                    guard=(
                        (request == Request.MATCHED).because("an entry has matched"),
                        (phase[aimed] != Phase.NONE).because("there is a process with that pid"),
                    ),
                    effect=(request.becomes(Request.OPENED), handle_astray.becomes(entry_gone)),
                ),
                _action(
                    "cancel_confirms",
                    "The entry is read again, and is still the one that matched.",
                    by=ENVIRONMENT,
                    of=(),
                    guard=(
                        (request == Request.OPENED).because("after the handle was opened"),
                        negate(entry_gone).because("pid and key still match"),
                    ),
                    effect=(request.becomes(Request.CONFIRMED),),
                ),
                _action(
                    "cancel_signals",
                    "The process that the handle is on is signalled, if it is there.",
                    by=ENVIRONMENT,
                    of=(),
                    guard=((request == Request.CONFIRMED).because("the entry is still the one that matched"),),
                    effect=over,
                ),
                _action(
                    "cancel_misses",
                    "There is no such process, or no such entry, any more: nobody is signalled.",
                    by=ENVIRONMENT,
                    of=(),
                    guard=(gone.because("the child has been reaped in the meantime"),),
                    effect=over,
                ),
            )


ENVIRONMENTS: dict[str, Callable[[Profile], tuple[Action, ...]]] = {
    "calm": lambda _: (),
    "+grandchild": _grandchild,
    "+stray": _stray,
    "+orphan": _orphan,
    "+cancel": _cancelling,
}

CONTROL_ENVIRONMENTS: dict[str, Callable[[Profile], tuple[Action, ...]]] = {
    "+copy-back": lambda profile: _stray(profile, copies_back=True),
}
"""Negative controls: environments in which an assumption does not hold."""


@dataclass(frozen=True)
class System:
    """A profile in an environment: its actions by name, and the shared state variables and constants.

    Raises ValueError where a ghost would decide anything: be read by a guard, or by an ordinary variable's new value.
    """

    profile: Profile
    environment: str = "calm"
    backends_alone: bool = False

    def __post_init__(self) -> None:
        ghosts = {variable.name for variable in variables if variable.ghost}
        for action in self.actions:
            read = [term.z3 for term in action.conditions]
            read += [update.value for update in action.effect if not update.variable.ghost]
            read += [update.index.z3 for update in action.effect if update.index is not None]
            for expression in read:
                if seen := symbols(expression) & ghosts:
                    raise ValueError(f"{action.name} reads the ghost {', '.join(sorted(seen))}")

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        """Every action, in the order of the story."""
        return actions(self.profile, self.environment, self.backends_alone)

    @property
    def variables(self) -> Variables:
        """Every state variable, in the order of its declaration."""
        return variables
