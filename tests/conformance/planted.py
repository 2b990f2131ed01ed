"""Implementations with one bug each, planted into `armed` itself: real processes, wrong on purpose.

A bug is a replacement of one attribute, made when the implementation is opened and undone when it is closed; children
are forked, so they have it too.
"""

import inspect
import sys
import textwrap
from contextlib import ExitStack
from unittest.mock import patch

import armed.engagement
import armed.recovery
import armed.supervisor
from armed import Decision, Engager, Outcome, SlotState, Supervisor
from armed.engagement import UNINTERRUPTED, Progress
from armed.slots import active_word
from armed_conformance.adapters.armed import ArmedFork


class Planted(ArmedFork):
    """`armed` with attributes replaced, as (object, name, replacement)."""

    bugs = ()

    def open(self, slots):
        self._planted = ExitStack()
        for where, name, replacement in self.bugs:
            self._planted.enter_context(patch.object(where, name, replacement))
        super().open(slots)

    def close(self):
        try:
            super().close()
        finally:
            self._planted.close()


def _by_status_only(status, word, token):
    return Decision.CLEAN if status in (0, 1) else Decision.CRASH


class StatusOnly(Planted):
    """Decides by the exit status alone: before the commit of May 2009."""

    bugs = ((armed.supervisor, "decide", _by_status_only),)


def _by_flag_only(status, word, token):
    return Decision.CLEAN if word == token else Decision.CRASH


class FlagOnly(Planted):
    """Decides by the slot alone."""

    bugs = ((armed.supervisor, "decide", _by_flag_only),)


def _foreign_is_clean(status, word, token):
    return Decision.CLEAN if status in (0, 1) and word != active_word(token) else Decision.CRASH


class ForeignIsClean(Planted):
    """Takes every word but the active one for clean."""

    bugs = ((armed.supervisor, "decide", _foreign_is_clean),)


_give = Engager._give


def _swallow(self, entry, error, failures):
    _give(self, entry, error, [])
    entry.progress = Progress.GIVEN
    return error


class SwallowsFailedGiveBack(Planted):
    """Disarms although a give-back failed: the failure was swallowed."""

    bugs = ((Engager, "_give", _swallow),)


_enter, _ask = Engager.__enter__, Engager._ask


def _enter_without_arming(self):
    before = self._word[0]
    try:
        return _enter(self)
    finally:
        self._word[0] = before


def _arm_after_taking(self, *arguments):
    try:
        return _ask(self, *arguments)
    finally:
        if self._entries:
            self._word[0] = active_word(self._token[0])


class ArmsAfterTaking(Planted):
    """Arms the switch only when something has been taken: there is a moment in which it is held and looks clean."""

    bugs = ((Engager, "__enter__", _enter_without_arming), (Engager, "_ask", _arm_after_taking))


class GrandchildMayDisarm(Planted):
    """Keeps the token in memory that a fork copies: a grandchild that leaves the block writes the clean value."""

    bugs = ((armed.engagement, "_MADV_WIPEONFORK", 0),)


def rewritten(owner, name, old, new):
    """Return (owner, name, the same function but for a phrase): for a bug in the middle of a function."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{name} does not say {old!r} once: the bug must be planted anew"
    made = {}
    exec(compile(source.replace(old, new), "<planted>", "exec"), vars(sys.modules[function.__module__]), made)
    if function.__code__ in UNINTERRUPTED:
        UNINTERRUPTED.add(made[name].__code__)
    return owner, name, made[name]


class FirstTakenFirstGivenBack(Planted):
    """Gives back in the order in which things were taken."""

    bugs = (rewritten(Engager, "_end", "reversed(self._entries)", "list(self._entries)"),)


class MemoryErrorMeansNotTaken(Planted):
    """Takes a MemoryError out of acquire for a refusal."""

    bugs = (rewritten(Engager, "_ask", " and not isinstance(error, MemoryError)", ""),)


class OnlyKeyboardInterruptSpoils(Planted):
    """Takes every other BaseException out of acquire for a refusal."""

    bugs = (
        rewritten(
            Engager,
            "_ask",
            "isinstance(error, Exception) and not isinstance(error, MemoryError)",
            "not isinstance(error, KeyboardInterrupt | MemoryError)",
        ),
    )


class StopsInsteadOfAsking(Planted):
    """close() asks nobody and stops everyone at once."""

    bugs = (rewritten(Supervisor, "_close", "ask_at=now, stop_at=now + timeout", "stop_at=now"),)


class KillsInsteadOfAsking(Planted):
    """close() kills everyone at once."""

    bugs = ((armed.recovery, "ask_to_end", armed.recovery.kill),)


class HushesACrashWhileClosing(Planted):
    """A child that ends armed while closing is reported as lost, and close() raises nothing."""

    bugs = (
        rewritten(
            Supervisor,
            "_conclude",
            "elif self._mode is Mode.RUNNING:",
            "elif self._mode is Mode.RUNNING and not self._is_closing:",
        ),
    )


class CloseRaisesNothing(Planted):
    """The crash is in the events, but close() does not raise."""

    bugs = (rewritten(Supervisor, "_conclude", "self._crashed_while_closing = self._is_closing", "pass"),)


class NeverKillsInRecovery(Planted):
    """A stuck child holds a recovery up for ever."""

    bugs = (rewritten(Supervisor, "_advance", "now >= self._deadlines.kill_at", "self._is_closing and now >= 0"),)


class FailedForkCostsASlot(Planted):
    """A fork that fails does not release the slot."""

    bugs = (rewritten(Supervisor, "_fork", "generation.slots.release(slot)  # 8.4.0", "pass  # 8.4.0"),)


class ServesOnWithoutAGeneration(Planted):
    """A generation that cannot be made does not stop the supervisor: the old one is served on."""

    bugs = (rewritten(Supervisor, "_reset", "self._shut()", "self._mode = Mode.RUNNING\n        return"),)


class ASlotFewerAfterTwoRecoveries(Planted):
    """From the third generation on there is one slot less."""

    bugs = (rewritten(Supervisor, "_reset", "self._size,", "self._size - (last.number >= 2),"),)


class OutcomeIsAlwaysClean(Planted):
    """Only the event says what was decided."""

    bugs = (
        rewritten(
            Supervisor,
            "_conclude",
            "child.outcome = outcome",
            "child.outcome = Outcome(Decision.CLEAN, outcome.status, outcome.slot_word)",
        ),
    )


class SlotWordIsMadeUp(Planted):
    """The outcome's word is 0 whatever was read."""

    bugs = ((armed.supervisor, "Outcome", lambda decision, status, word: Outcome(decision, status, 0)),)


def _silent(*kinds):
    told = ", ".join(f"EventKind.{kind}" for kind in kinds)
    return (rewritten(Supervisor, "_note", "self._events", f"kind in ({told},) or self._events"),)


class NothingStarts(Planted):
    """There are no started events."""

    bugs = _silent("STARTED")


class NothingRuns(Planted):
    """There are no running events."""

    bugs = _silent("RUNNING")


class NothingCloses(Planted):
    """There are no closing and closed events."""

    bugs = _silent("CLOSING", "CLOSED")


class EveryGenerationIsTheFirst(Planted):
    """Children are told that they are of generation 1."""

    bugs = (rewritten(Engager, "__init__", "self.generation: Final = generation", "self.generation: Final = 1"),)


SEEN_IN_ONE_STORY = {
    FirstTakenFirstGivenBack: ("what is taken last is given back first", "give gives back .2."),
    MemoryErrorMeansNotTaken: ("take_fails_for_memory keeps the switch armed", "disarm must be refused"),
    OnlyKeyboardInterruptSpoils: ("take_fails_otherwise keeps the switch armed", "disarm must be refused"),
    StopsInsteadOfAsking: ("shutdown with a child idle", "nobody ended it"),
    KillsInsteadOfAsking: ("shutdown with a child idle", "nobody ended it"),
    HushesACrashWhileClosing: ("shutdown with a spoilt child", "the events are in no order"),
    CloseRaisesNothing: ("shutdown with a spoilt child", "close.. says so: False"),
    NeverKillsInRecovery: ("a stuck child is killed in recovery", "does not come to rest"),
    FailedForkCostsASlot: ("a fork that fails costs nothing", "slot 2 is unused"),
    ServesOnWithoutAGeneration: ("a generation that cannot be made", "the supervisor has stopped"),
    ASlotFewerAfterTwoRecoveries: ("a crash in every generation", "there is no slot 3"),
    OutcomeIsAlwaysClean: ("a crash in every generation", "child 1: EventKind.CRASHED, and Outcome"),
    SlotWordIsMadeUp: ("a crash in every generation", "in its slot, its outcome is"),
    NothingStarts: ("every slot is used again", "0 started events of 9 children"),
    NothingRuns: ("a crash in every generation", "the events are in no order"),
    NothingCloses: ("every slot is used again", "the events are in no order"),
    EveryGenerationIsTheFirst: ("a crash in every generation", "done in generation 2"),
}
"""Bugs that only one kind of history shows: its name, and what must be told."""


ALL = {
    StatusOnly: "_exit(0)",
    FlagOnly: "status",
    ForeignIsClean: "scribble",
    SwallowsFailedGiveBack: "give_fails",
    ArmsAfterTaking: "arm",
    GrandchildMayDisarm: "grandchild",
}
"""Every planted bug, with a word that the story of its counterexample must contain."""

__all__ = ["ALL", "Planted", "SlotState"]
