"""Implementations with one bug each, planted into `armed` itself: real processes, wrong on purpose.

A bug is a replacement of one attribute, made when the implementation is opened and undone when it is closed; children
are forked, so they have it too.
"""

from contextlib import ExitStack
from unittest.mock import patch

import armed.engagement
import armed.supervisor
from armed import Decision, Engager, SlotState
from armed.engagement import Progress
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
