"""What can go wrong, by name. Every message says what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armed.supervisor import Event


class ArmedError(Exception):
    """The base of every error of this package."""


class Unsupported(ArmedError):
    """The supervisor lacks what it is made of: Linux 5.6 or later, and a process that is told how its children end.

    Or there is to be early warning, and cannot be.
    """


# The supervisor's side.


class SlotsExhausted(ArmedError):
    """Every slot has an owner that lives or is not reaped yet."""


class NotRunning(ArmedError):
    """No child is started between a crash and the reset, nor once closing has begun (claim C5)."""


class Closed(ArmedError):
    """The supervisor has been closed, or has stopped for good; or a slot table's generation is over."""


class InUse(ArmedError):
    """Another thread is in a method of this supervisor. Nothing was done."""


class StartupFailed(ArmedError):
    """A generation could not be made; no child is left.

    `make_shared` raised, and the exception it raised is the cause of this one; or the `startup` child failed once more
    than `restart_limit` allows. `events` is what happened until then and was not returned by any call.
    """

    events: tuple[Event, ...] = ()


class RecoveryLimit(ArmedError):
    """There were more recoveries than `restart_limit` allows: the supervisor has stopped, and no child is left.

    `events` is what happened until then and was not returned by any call.
    """

    events: tuple[Event, ...] = ()


class CrashWhileClosing(ArmedError):
    """A child crashed while the supervisor was closing: everything has ended, nothing was restarted.

    `events` is what `close` would have returned.
    """

    events: tuple[Event, ...] = ()


class LostAtEnd(ArmedError):
    """At the end of a `with` block: the work of a child was lost and nobody was told. Everything has ended.

    It did not end in time and was stopped, or it crashed before and no call has returned that event. `events` is what
    `close`, which gives no such error, would have returned.
    """

    events: tuple[Event, ...] = ()


# The child's side.


class AlreadyArmed(ArmedError):
    """A child engages once at a time."""


class NotArmed(ArmedError):
    """Something was to be taken outside an engagement; nothing was acquired."""


class StillArmed(ArmedError):
    """Something taken was not given back, so the child stays armed until it dies (claim C4)."""


class ForeignProcess(ArmedError):
    """Another process than the one it belongs to used this object; nothing was done."""


class WrongThread(ArmedError):
    """A child engages, takes and gives back in its main thread only."""
