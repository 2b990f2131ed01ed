"""The whole system: the supervisor, any number of slots and children, and everything each of them may do.

The supervisor (PostgreSQL: the postmaster) assigns a slot, forks a child, and reaps it when it has died. A child's own
steps are: the exit path is registered, the switch is armed, the shared resource is taken ... given back, the switch is
disarmed; then it may engage again, or leave. At any point it may end raw: `_exit`, a signal, with any status.

Read the state variables first, then the actions from top to bottom; `actions(profile)` is the specification.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from armed_model.lifecycle import Who
from armed_model.profiles import Decision, Profile
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
    either,
    enumeration,
    exists,
    for_all,
    free_sort,
    negate,
    one_of,
    symbols,
)

SUPERVISOR, CHILD_ITSELF, ENVIRONMENT = Who.SUPERVISOR, Who.CHILD, Who.ENVIRONMENT

# --- Sorts and constants ---------------------------------------------------------------------------------------------


class Phase(enum.Enum):
    """Where a child is between its fork and its reaping."""

    NONE = "none"
    """There is no such child."""
    STARTING = "starting"
    """Forked; its exit path is not registered yet."""
    SERVING = "serving"
    """Its own code runs, engaged or not."""
    LEAVING = "leaving"
    """Its exit path runs."""
    EXITED = "exited"
    """Dead, and not reaped."""


class Mode(enum.Enum):
    """What the supervisor is doing. PostgreSQL: `pmState` with `FatalError` (`postmaster.c`)."""

    RUNNING = "running"
    STOPPING = "stopping"
    """There was a crash: the others are being stopped."""
    RESETTING = "resetting"
    """They are gone: shared memory is about to be made anew."""
    STARTING = "starting"
    """Shared memory is new; nothing is served yet."""
    STOPPED = "stopped"


class Shutdown(enum.Enum):
    """What was asked for."""

    NONE = "none"
    ORDERLY = "orderly"
    """Start nobody, let those who are there leave. PostgreSQL: smart and fast."""
    IMMEDIATE = "immediate"
    """End everybody now; no decision is made and no recovery follows."""


SLOT = free_sort("Slot")
CHILD = free_sort("Child")
WORD = free_sort("Word")
PHASE, MODE, SHUTDOWN, WHO = enumeration(Phase), enumeration(Mode), enumeration(Shutdown), enumeration(Who)

no_slot = Constant("no_slot", SLOT, 0)
nobody = Constant("nobody", CHILD, 0)
UNUSED = Constant("UNUSED", WORD, 0)
ACTIVE = Constant("ACTIVE", WORD, 1)
OTHER = Constant("OTHER", WORD, 2)
"""A word that is nobody's: what a process that scribbles may leave."""
CONSTANTS = (no_slot, nobody, UNUSED, ACTIVE, OTHER)
NULLS = {"Slot": no_slot, "Child": nobody}

KILLED = -9
"""The status of a child that the supervisor has ended: neither 0 nor 1, which is all that matters."""

# --- State variables -------------------------------------------------------------------------------------------------

variables = Variables()
_scalar, _array = variables.scalar, variables.array

mode = _scalar("mode", MODE, Mode.RUNNING, "what the supervisor is doing")
shutdown = _scalar("shutdown", SHUTDOWN, Shutdown.NONE, "what kind of shutdown was asked for")
launching = _scalar("launching", SLOT, no_slot, "the slot assigned to a child that is not forked yet")

flag = _array("flag", SLOT, WORD, UNUSED, "the shared word of the slot: written without a lock, read at release")
clean = _array("clean", SLOT, WORD, UNUSED, "supervisor-private: the word that this assignment counts as clean")
in_use = _array("in_use", SLOT, BOOL, False, "supervisor-private: the slot is given out; allocation reads this alone")
owner = _array("owner", SLOT, CHILD, nobody, "supervisor-private: the child that was forked for the slot")
used = _array("used", WORD, BOOL, False, "the word has served before, or is reserved: a fresh one has not (A10)")

phase = _array("phase", CHILD, PHASE, Phase.NONE, "where the child is in its life")
slot_of = _array("slot_of", CHILD, SLOT, no_slot, "the child's slot")
token = _array("token", CHILD, WORD, UNUSED, "child-private: the clean word of its slot")
engaged = _array("engaged", CHILD, BOOL, False, "child-private: an engagement is open, or could not be ended")
holds = _array("holds", CHILD, BOOL, False, "the child holds the shared resource")
failed = _array("failed", CHILD, BOOL, False, "child-private: a take was cut short, or a give-back failed")
status = _array("status", CHILD, INT, 0, "the exit status: n for exit(n), -n for an end by signal n")

armed = _array("armed", CHILD, BOOL, False, "armed and not since disarmed", ghost=True)
orderly = _array("orderly", CHILD, BOOL, False, "left through its exit path", ghost=True)
owed = _scalar("owed", BOOL, False, "an armed child was reaped, and no reset has happened since", ghost=True)
torn = _scalar("torn", BOOL, False, "somebody died holding, and no reset has happened since", ghost=True)

RESERVED = (UNUSED, ACTIVE, OTHER)
"""The words that no assignment ever draws."""

INITIALLY = tuple(used[word].becomes(True) for word in RESERVED)
"""At first everything is blank, but for these."""

_s, _w = Parameter("s", SLOT), Parameter("w", WORD)
BOUNDED_USED = (_w, either(one_of(_w, *RESERVED), exists(_s, either(flag[_s] == _w, clean[_s] == _w))))
"""In a bounded instance words run out, so there a word is used only while it is reserved or stands somewhere.

That forgets nothing: a word that stands nowhere is like any other that stands nowhere.
"""

# --- What guards say -------------------------------------------------------------------------------------------------

c, d = Parameter("c", CHILD), Parameter("d", CHILD)
s = Parameter("s", SLOT)
w = Parameter("w", WORD)
k = Parameter("k", INT, domain=(0, 1, 2))  # compared with 0 and 1 only, so 2 stands for all others

attached = one_of(phase[c], Phase.STARTING, Phase.SERVING, Phase.LEAVING)
status_is_clean = one_of(status[c], 0, 1)
slot_is_clean = flag[slot_of[c]] == clean[slot_of[c]]
everybody_is_gone = for_all(d, phase[d] == Phase.NONE)
slot_is_looked_at = shutdown != Shutdown.IMMEDIATE

_idle = (launching == no_slot).because("the supervisor does one thing at a time, and starting a child takes two")
_dead = (phase[c] == Phase.EXITED).because("only the dead are reaped, each once (A3)")


def decided_clean(profile: Profile) -> Term:
    """Return the profile's rule of when the death of `c` is no crash."""
    match profile.decision:
        case Decision.STATUS_AND_SLOT:
            return both(status_is_clean, slot_is_clean)
        case Decision.STATUS:
            return status_is_clean


def _forget_child() -> tuple[Update, ...]:
    """Release the slot of `c`, and make every trace of `c` blank (the ghosts remember what it left behind)."""
    return (
        flag[slot_of[c]].becomes(UNUSED),
        clean[slot_of[c]].becomes(UNUSED),
        in_use[slot_of[c]].becomes(False),
        owner[slot_of[c]].becomes(nobody),
        phase[c].becomes(Phase.NONE),
        slot_of[c].becomes(no_slot),
        token[c].becomes(UNUSED),
        engaged[c].becomes(False),
        holds[c].becomes(False),
        failed[c].becomes(False),
        status[c].becomes(0),
        armed[c].becomes(False),
        orderly[c].becomes(False),
        owed.becomes(either(owed, armed[c])),
        torn.becomes(either(torn, holds[c])),
    )


# --- Actions ---------------------------------------------------------------------------------------------------------


def actions(profile: Profile, environment: str = "calm") -> tuple[Action, ...]:
    """Return everything that may happen in `profile`, in the order of the story, in an environment of ENVIRONMENTS."""
    return (
        *_starting(),
        *_life_of_a_child(),
        *_reaping(profile),
        *_recovery(),
        *_shutting_down(),
        *ENVIRONMENTS[environment],
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


def _starting() -> tuple[Action, ...]:
    return (
        _action(
            "assign",
            "The supervisor gives out a free slot, and writes a fresh clean word into it.",
            by=SUPERVISOR,
            of=(s, w),
            guard=(
                (mode == Mode.RUNNING).because("no child starts in memory that is in doubt"),
                (shutdown == Shutdown.NONE).because("no child starts once a shutdown was asked for"),
                _idle,
                negate(in_use[s]).because("two children never share a slot; the shared flag is not consulted"),
                negate(used[w]).because("a word of an earlier assignment must not look clean"),
            ),
            effect=(
                flag[s].becomes(w),
                clean[s].becomes(w),
                used[w].becomes(True),
                in_use[s].becomes(True),
                launching.becomes(s),
            ),
            cites=("C14", "C16"),
        ),
        _action(
            "fork",
            "The fork succeeds: there is a child, and it knows its slot and the slot's clean word.",
            by=SUPERVISOR,
            of=(c,),
            guard=(
                (launching != no_slot).because("a child is forked for a slot"),
                (phase[c] == Phase.NONE).because("the child is a new one"),
            ),
            effect=(
                phase[c].becomes(Phase.STARTING),
                slot_of[c].becomes(launching),
                token[c].becomes(clean[launching]),
                owner[launching].becomes(c),
                launching.becomes(no_slot),
            ),
            cites=("C14",),
        ),
        _action(
            "fork_fails",
            "The fork fails: the slot is released.",
            by=SUPERVISOR,
            of=(),
            guard=((launching != no_slot).because("a child is forked for a slot"),),
            effect=(
                flag[launching].becomes(UNUSED),
                clean[launching].becomes(UNUSED),
                in_use[launching].becomes(False),
                launching.becomes(no_slot),
            ),
            cites=("C16",),
        ),
    )


def _life_of_a_child() -> tuple[Action, ...]:
    serving = (phase[c] == Phase.SERVING).because("a step of the child's own code")
    serving_or_leaving = one_of(phase[c], Phase.SERVING, Phase.LEAVING).because("in a block's end, or on the way out")
    is_engaged = engaged[c].because("resources are taken inside an engagement only")
    has_it = holds[c].because("what is given back was taken")
    return (
        _action(
            "hook",
            "The exit path is registered, before anything is armed.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=((phase[c] == Phase.STARTING).because("first of all, once"),),
            effect=(phase[c].becomes(Phase.SERVING),),
            cites=("C13",),
        ),
        _action(
            "arm",
            "The child arms the switch.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(serving, negate(engaged[c]).because("one engagement at a time")),
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
        _action(
            "leave",
            "The child leaves in the orderly way (return, exception, sys.exit, SIGTERM): its exit path begins.",
            by=CHILD_ITSELF,
            of=(c, k),
            guard=(attached.because("on the way out, too: another exception may take the place of the first"),),
            effect=(phase[c].becomes(Phase.LEAVING), status[c].becomes(k)),
            cites=("C13",),
        ),
        _action(
            "orderly_exit",
            "The child's exit path is through: it is dead.",
            by=CHILD_ITSELF,
            of=(c,),
            guard=(
                (phase[c] == Phase.LEAVING).because("after the exit path"),
                either(negate(engaged[c]), failed[c]).because("the exit path ends an open engagement, unless spoilt"),
            ),
            effect=(phase[c].becomes(Phase.EXITED), orderly[c].becomes(True)),
            cites=("C13",),
        ),
        _action(
            "raw_exit",
            "The child dies with no exit path run: `_exit` in somebody's code, or a signal from outside.",
            by=CHILD_ITSELF,
            of=(c, k),
            guard=(attached.because("it lives"),),
            effect=(phase[c].becomes(Phase.EXITED), status[c].becomes(k)),
            cites=("C1", "C2", "C3"),
        ),
    )


def _reaping(profile: Profile) -> tuple[Action, ...]:
    is_clean = decided_clean(profile)
    return (
        _action(
            "reap_clean",
            "The supervisor reaps a child, decides that it left cleanly, and serves on.",
            by=SUPERVISOR,
            of=(c,),
            guard=(
                _dead,
                _idle,
                (mode == Mode.RUNNING).because("during a recovery deaths are book-keeping"),
                slot_is_looked_at.because("in an immediate shutdown deaths are book-keeping"),
                is_clean.because("the decision"),
            ),
            effect=_forget_child(),
            cites=("C13",),
        ),
        _action(
            "reap_crash",
            "The supervisor reaps a child, decides that it crashed, and starts to stop the others.",
            by=SUPERVISOR,
            of=(c,),
            guard=(
                _dead,
                _idle,
                (mode == Mode.RUNNING).because("during a recovery deaths are book-keeping"),
                slot_is_looked_at.because("in an immediate shutdown deaths are book-keeping"),
                negate(is_clean).because("the decision"),
            ),
            effect=(*_forget_child(), mode.becomes(Mode.STOPPING)),
            cites=("C1", "C5", "C15"),
        ),
        _action(
            "reap_book_keeping",
            "The supervisor reaps a child whose death decides nothing any more.",
            by=SUPERVISOR,
            of=(c,),
            guard=(
                _dead,
                _idle,
                either(mode != Mode.RUNNING, shutdown == Shutdown.IMMEDIATE).because("recovery, or the end, is on"),
            ),
            effect=_forget_child(),
            cites=("C5",),
        ),
    )


def _recovery() -> tuple[Action, ...]:
    return (
        _action(
            "kill",
            "The supervisor ends a child: nobody goes on in memory that is in doubt.",
            by=SUPERVISOR,
            of=(c,),
            guard=(
                attached.because("it lives"),
                either(mode == Mode.STOPPING, shutdown == Shutdown.IMMEDIATE).because("a crash, or the end"),
            ),
            effect=(phase[c].becomes(Phase.EXITED), status[c].becomes(KILLED)),
            cites=("C5",),
        ),
        _action(
            "all_gone",
            "The last child of the generation is reaped.",
            by=SUPERVISOR,
            of=(),
            guard=(
                (mode == Mode.STOPPING).because("there was a crash"),
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
                clean.becomes_blank(),
                in_use.becomes_blank(),
                owner.becomes_blank(),
                owed.becomes(False),
                torn.becomes(False),
                mode.becomes(Mode.STARTING),
            ),
            cites=("C4", "C5"),
        ),
        _action(
            "started",
            "The new generation is ready: the supervisor serves again.",
            by=SUPERVISOR,
            of=(),
            guard=((mode == Mode.STARTING).because("memory is new"),),
            effect=(mode.becomes(Mode.RUNNING),),
            cites=("C5",),
        ),
        _action(
            "startup_fails",
            "The new generation cannot be made: the supervisor stops, with no child left.",
            by=SUPERVISOR,
            of=(),
            guard=((mode == Mode.STARTING).because("memory is new"),),
            effect=(mode.becomes(Mode.STOPPED),),
        ),
    )


def _shutting_down() -> tuple[Action, ...]:
    in_business = (mode != Mode.STOPPED).because("it has not stopped yet")
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
                in_business,
                (shutdown != Shutdown.NONE).because("it was asked to"),
                everybody_is_gone.because("no child outlives its supervisor"),
            ),
            effect=(mode.becomes(Mode.STOPPED),),
        ),
    )


# --- Environments ----------------------------------------------------------------------------------------------------

ENVIRONMENTS: dict[str, tuple[Action, ...]] = {
    "calm": (),
    "+stray": (
        _action(
            "stray_write",
            "A child that is attached to shared memory scribbles over some slot's flag.",
            by=ENVIRONMENT,
            of=(c, s, w),
            guard=(
                attached.because("only somebody attached to shared memory can write there"),
                (w != clean[s]).because("assumption no_copy_back (A6): not this very assignment's clean word"),
            ),
            effect=(flag[s].becomes(w),),
        ),
    ),
}


@dataclass(frozen=True)
class System:
    """A profile in an environment: its actions by name, and the shared state variables and constants.

    Raises ValueError where a ghost would decide anything: be read by a guard, or by an ordinary variable's new value.
    """

    profile: Profile
    environment: str = "calm"

    def __post_init__(self) -> None:
        ghosts = {variable.name for variable in variables if variable.ghost}
        for action in self.actions:
            read = [term.z3 for term in action.conditions]
            read += [update.value for update in action.effect if not update.variable.ghost]
            read += [update.index.z3 for update in action.effect if update.index is not None]
            for expression in read:
                if seen := symbols(expression) & ghosts:
                    raise ValueError(f"{action.name} reads the ghost {', '.join(sorted(seen))}")

    @property
    def actions(self) -> tuple[Action, ...]:
        """Every action, in the order of the story."""
        return actions(self.profile, self.environment)

    @property
    def variables(self) -> Variables:
        """Every state variable, in the order of its declaration."""
        return variables
