"""What differs between versions of the switch, as data. A profile says what is done, never what holds."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class Decision(enum.Enum):
    """What the supervisor looks at when it decides whether a death is a crash."""

    STATUS_AND_SLOT = "the exit status and the slot"
    STATUS = "the exit status alone"


@dataclass(frozen=True)
class Profile:
    """One version of the switch."""

    name: str
    sentence: str
    decision: Decision


REFERENCE = Profile(
    name="reference",
    sentence="What this project implements: the exit path first, then arm, take ... give back, disarm.",
    decision=Decision.STATUS_AND_SLOT,
)

NO_DEAD_MAN_SWITCH = replace(
    REFERENCE,
    name="no-dead-man-switch",
    sentence="Before the commit of May 2009: an exit with status 0 or 1 is taken for a voluntary, clean one (C2).",
    decision=Decision.STATUS,
)

PROFILES = {profile.name: profile for profile in (REFERENCE,)}
CONTROLS = {profile.name: profile for profile in (NO_DEAD_MAN_SWITCH,)}
"""Negative controls: profiles that are wrong on purpose. A proof method that lets one pass is broken."""
