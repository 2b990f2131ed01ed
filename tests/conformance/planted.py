"""Implementations with one bug each, planted into `armed` itself: real processes, wrong on purpose.

A bug is a replacement of one attribute, made when the implementation is opened and undone when it is closed; children
are forked, so they have it too.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest.mock import patch

import armed.engagement
import armed.recovery
import armed.slots
import armed.supervisor
import armed.testing
from armed import Decision, Engager, EventKind, Mode, SlotState, StartupFailed, Supervisor
from armed.engagement import Progress
from armed.recovery import Deadlines, begin_generation
from armed.slots import active_word
from armed_conformance.adapters.armed import ArmedFork


@contextmanager
def planted(bug):
    """Plant a bug for a while."""
    with ExitStack() as stack:
        for where, name, replacement in bug.bugs:
            stack.enter_context(patch.object(where, name, replacement))
        yield


class Planted(ArmedFork):
    """`armed` with attributes replaced, as (object, name, replacement)."""

    bugs = ()
    early_warning = "off"  # whether a death is noticed before depends on time, and with a bug so do the events

    def open(self, slots):
        self._planted = ExitStack()
        self._planted.enter_context(planted(self))
        super().open(slots)

    def close(self):
        try:
            super().close()
        finally:
            self._planted.close()


def _by_status_only(status, word, token, kind):
    return Decision.CLEAN if status in (0, 1) else Decision.CRASH


class StatusOnly(Planted):
    """Decides by the exit status alone: before the commit of May 2009."""

    bugs = ((armed.supervisor, "decide", _by_status_only),)


def _by_flag_only(status, word, token, kind):
    return Decision.CLEAN if word == token else Decision.CRASH


class FlagOnly(Planted):
    """Decides by the slot alone."""

    bugs = ((armed.supervisor, "decide", _by_flag_only),)


def _foreign_is_clean(status, word, token, kind):
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


_end_in_order = Engager._end


def _disarm_and_end(self, *arguments):
    self._word[0] = self._token[0]
    return _end_in_order(self, *arguments)


class DisarmsBeforeItGivesBack(Planted):
    """The end of the block closes the switch early: the resource is held while the slot looks clean."""

    bugs = ((Engager, "_end", _disarm_and_end),)


class ArmsAfterTaking(Planted):
    """Arms the switch only when something has been taken: there is a moment in which it is held and looks clean."""

    bugs = ((Engager, "__enter__", _enter_without_arming), (Engager, "_ask", _arm_after_taking))


class GrandchildMayDisarm(Planted):
    """Keeps the token in memory that a fork copies: a grandchild that leaves the block writes the clean value."""

    bugs = ((armed.engagement, "_MADV_WIPEONFORK", 0),)


_end = Engager._end


def _end_the_other_way_round(self, *arguments):
    self._entries.reverse()
    return _end(self, *arguments)


class FirstTakenFirstGivenBack(Planted):
    """Gives back in the order in which things were taken."""

    bugs = ((Engager, "_end", _end_the_other_way_round),)


def _not_taken_if(spoils_nothing):
    def ask(self, *arguments):
        try:
            return _ask(self, *arguments)
        except BaseException as error:
            if spoils_nothing(error):
                self._entries[-1].progress = Progress.GIVEN
            raise

    return ((Engager, "_ask", ask),)


class MemoryErrorMeansNotTaken(Planted):
    """Takes a MemoryError out of acquire for a refusal."""

    bugs = _not_taken_if(lambda error: isinstance(error, MemoryError))


class OnlyKeyboardInterruptSpoils(Planted):
    """Takes every other exception out of acquire for a refusal, but for MemoryError."""

    bugs = _not_taken_if(lambda error: not isinstance(error, KeyboardInterrupt | MemoryError))


def _stop_who_should_be_asked(**at):
    return Deadlines(stop_at=at["ask_at"]) if "ask_at" in at else Deadlines(**at)


class StopsInsteadOfAsking(Planted):
    """close() asks nobody and stops everyone at once."""

    bugs = ((armed.supervisor, "Deadlines", _stop_who_should_be_asked),)


class KillsInsteadOfAsking(Planted):
    """close() kills everyone at once."""

    bugs = ((armed.recovery, "ask_to_end", armed.recovery.kill),)


class NeverKillsInRecovery(Planted):
    """A stuck child holds a recovery up for ever."""

    bugs = ((armed.supervisor, "Deadlines", lambda kill_at=0, **at: Deadlines(**at)),)


_conclude = Supervisor._conclude


def _hush(self, child, outcome):
    if outcome.lost and self._is_closing and self.mode is Mode.RUNNING:
        child.outcome = outcome
        self._note(EventKind.LOST, child)
    else:
        _conclude(self, child, outcome)


class HushesACrashWhileClosing(Planted):
    """A child that ends armed while closing is reported as lost, and close() raises nothing."""

    bugs = ((Supervisor, "_conclude", _hush), (Supervisor, "_look_who_is_dying", lambda self: None))


def _conclude_and_raise_nothing(self, child, outcome):
    _conclude(self, child, outcome)
    self._crashed_while_closing = False


class CloseRaisesNothing(Planted):
    """The crash is in the events, but close() does not raise."""

    bugs = ((Supervisor, "_conclude", _conclude_and_raise_nothing),)


def _with_outcome(**changed):
    def conclude(self, child, outcome):
        _conclude(self, child, outcome)
        child.outcome = replace(outcome, **changed)

    return ((Supervisor, "_conclude", conclude),)


class OutcomeIsAlwaysClean(Planted):
    """Only the event says what was decided."""

    bugs = _with_outcome(decision=Decision.CLEAN)


class SlotWordIsMadeUp(Planted):
    """The outcome's word is 0 whatever was read."""

    bugs = _with_outcome(slot_word=0)


class FailedForkCostsASlot(Planted):
    """A fork that fails does not release the slot."""

    bugs = ((Supervisor, "_undo_starts", lambda self: self._starts.clear()),)


def _begin_somehow(number, size, make_shared):
    try:
        return begin_generation(number, size, make_shared)
    except StartupFailed:
        return begin_generation(number, size, None)


class ServesOnWithoutAGeneration(Planted):
    """A generation that cannot be made does not stop the supervisor."""

    bugs = ((armed.supervisor, "begin_generation", _begin_somehow),)


def _begin_smaller(number, size, make_shared):
    return begin_generation(number, size - (number > 2), make_shared)


class ASlotFewerAfterTwoRecoveries(Planted):
    """From the third generation on there is one slot less."""

    bugs = ((armed.supervisor, "begin_generation", _begin_smaller),)


_first_shared = {}


def _begin_with_the_old(number, size, make_shared):
    fresh = begin_generation(number, size, make_shared)
    return replace(fresh, shared=fresh.shared if number == 1 else _first_shared["shared"])


class KeepsTheOldLock(Planted):
    """What the first generation shared is served for ever, whatever was held when a child died."""

    def open(self, slots):
        super().open(slots)
        _first_shared["shared"] = self._supervisor._generation.shared

    def close(self):
        super().close()
        _first_shared.clear()

    bugs = (
        (armed.supervisor, "begin_generation", _begin_with_the_old),
        (armed.testing.Cells, "close", lambda self: None),
    )


_advance, _reset = Supervisor._advance, Supervisor._reset


def _reset_at_once(self):
    _advance(self)
    if self.mode is Mode.STOPPING and not self._is_closing:
        self._reset()


class ResetsBeforeAllAreGone(Planted):
    """The next generation is made while children of the last one live."""

    bugs = ((Supervisor, "_advance", _reset_at_once),)


def _reset_twice(self):
    _reset(self)
    self._mode = Mode.RESETTING
    _reset(self)


class RestartsTwice(Planted):
    """A recovery makes two generations."""

    bugs = ((Supervisor, "_reset", _reset_twice),)


class ReusesAToken(Planted):
    """Every assignment has the same clean value."""

    bugs = ((armed.slots, "_draw_token", lambda: 0x1234_5678),)


_note = Supervisor._note


def _silent(*kinds):
    def note(self, kind, child=None):
        if kind not in kinds:
            _note(self, kind, child)

    return ((Supervisor, "_note", note),)


class NothingStarts(Planted):
    """There are no started events."""

    bugs = _silent(EventKind.STARTED)


class NothingRuns(Planted):
    """There are no running events."""

    bugs = _silent(EventKind.RUNNING)


class NothingCloses(Planted):
    """There are no closing and closed events."""

    bugs = _silent(EventKind.CLOSING, EventKind.CLOSED)


_init = Engager.__init__


def _init_first(self, slot, generation, *arguments):
    _init(self, slot, 1, *arguments)


class EveryGenerationIsTheFirst(Planted):
    """Children are told that they are of generation 1."""

    bugs = ((Engager, "__init__", _init_first),)


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
    ReusesAToken: ("the clean value of an earlier assignment", "scribble"),
    KeepsTheOldLock: ("a crash in every generation", "take takes one entry\n.*taken: .., given back"),
    ResetsBeforeAllAreGone: ("a stuck child is killed in recovery", "there is no reset now"),
    RestartsTwice: ("a crash in every generation", "the next generation is 2\n.*it is 3"),
    EveryGenerationIsTheFirst: ("a crash in every generation", "done in generation 2"),
}
"""Bugs that only one kind of history shows: its name, and what must be told."""


ALL = {
    StatusOnly: "_exit(0)",
    FlagOnly: "status",
    ForeignIsClean: "scribble",
    SwallowsFailedGiveBack: "give_fails",
    DisarmsBeforeItGivesBack: "give",
    ArmsAfterTaking: "arm",
    GrandchildMayDisarm: "grandchild",
}
"""Every planted bug, with a word that the story of its counterexample must contain."""

__all__ = ["ALL", "Planted", "SlotState"]
