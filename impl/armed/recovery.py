"""Recovery: the others are stopped, and when all are gone a new generation begins with nothing of the last one.

Nothing is repaired. Memory in which somebody died is never served again, nor is a lock that died held: a generation
has a slot table, a registry and shared objects of its own.
Source: PostgreSQL's HandleChildCrash and PostmasterStateMachine; claim C5.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import math
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from armed.errors import StartupFailed
from armed.registry import Registry
from armed.slots import SlotTable

with contextlib.suppress(ImportError):  # not a Unix; nothing below is called there
    import resource

__all__ = ["Deadlines", "Generation", "Mode", "begin_generation"]


class Mode(enum.Enum):
    """What the supervisor is about. Children are started in `RUNNING` only."""

    RUNNING = "running"
    STOPPING = "stopping"  # a child crashed, or closing took too long: the others are made to end
    RESETTING = "resetting"  # all are gone; the next generation is being made
    STARTING = "starting"  # it is made and not yet served: the startup child prepares it
    STOPPED = "stopped"


@dataclass(frozen=True, eq=False)
class Generation:
    """All that recovery makes anew. `shared` is what `make_shared` answered, for every child of the generation."""

    number: int
    slots: SlotTable
    registry: Registry
    shared: Any
    cleanup: Iterator[Any]  # what is left of make_shared where it is a generator function; else nothing

    def close(self) -> None:
        """Free the slot table and the registry, from which nobody can be cancelled any more. May be repeated."""
        self.registry.retire()
        self.slots.close()

    def retire(self) -> None:
        """Free all that was made: nobody is left who uses it. May be repeated.

        An exception of make_shared's clean-up is told in a `RuntimeWarning`: there is nothing that it could stop.
        """
        self.close()
        try:
            for _ in self.cleanup:
                raise RuntimeError("make_shared yielded more than once")
        except Exception as error:
            said = f"make_shared raised {error!r} when it cleaned up after generation {self.number}"
            warnings.warn(said, RuntimeWarning, 2)


def begin_generation(number: int, size: int, make_shared: Callable[[], Any] | None) -> Generation:
    """Make shared objects, a slot table and a registry from nothing. Raises `StartupFailed` when make_shared raises."""
    with contextlib.ExitStack() as undo:
        # These first: what make_shared has made need not be undone then.
        slots = SlotTable(size)
        undo.callback(slots.close)
        registry = Registry(size)
        undo.callback(registry.retire)
        cleanup: Iterator[Any] = iter(())
        try:
            shared = None if make_shared is None else make_shared()
            if inspect.isgenerator(shared):
                cleanup = shared
                shared = next(cleanup)
        except Exception as error:
            raise StartupFailed(
                f"make_shared raised {error!r} for generation {number}; no child is left: mend it and make a new "
                "Supervisor"
            ) from error
        undo.pop_all()
    return Generation(number, slots, registry, shared, cleanup)


@dataclass(frozen=True)
class Deadlines:
    """When patience ends, on the clock of `time.monotonic`, in seconds."""

    ask_at: float = math.inf  # closing: who is still there is asked again to end
    stop_at: float = math.inf  # closing: who is still there is stopped
    kill_at: float = math.inf  # who did not stop is killed
    startup_at: float = math.inf  # the startup child has had its time

    @property
    def next(self) -> float:
        """The nearest one."""
        return min(self.ask_at, self.stop_at, self.kill_at, self.startup_at)


NEVER: Final = Deadlines()

ASK_AGAIN_AFTER: Final = 0.2
"""Seconds between two SIGTERMs of a close. Python runs a signal handler between bytecodes: a signal that arrives just
before a system call begins would wait for that call, which may be for ever; the next one interrupts it."""


def ask_to_end(pidfds: Iterable[int]) -> None:
    """Send SIGTERM: a child ends in the orderly way, after the take or give-back it is at."""
    for pidfd in pidfds:
        _send(pidfd, signal.SIGTERM)


def stop(children: Iterable[tuple[int, int]]) -> None:
    """Send SIGQUIT to children given as (pidfd, pid): they end at once, by its default action, without a core file."""
    for pidfd, pid in children:
        if _send(pidfd, 0):  # else its pid may be anybody's by now
            _forbid_core(pid)
            _send(pidfd, signal.SIGQUIT)


def kill(pidfds: Iterable[int]) -> None:
    """Send SIGKILL: ends a child that is stopped or ignores SIGQUIT (PostgreSQL 9.4's SIGKILL_CHILDREN_AFTER_SECS)."""
    for pidfd in pidfds:
        _send(pidfd, signal.SIGKILL)


def _send(pidfd: int, number: int) -> bool:
    """Send a signal (0: none); whether that was possible. One child that cannot be reached must not save the others.

    It was reaped by a wait() of the program's own; or it has other rights than the supervisor, which may have given up
    being root since: then the lifeline ends it.
    """
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        return False
    return True


def _forbid_core(pid: int) -> None:
    """Suppress the core dump that SIGQUIT makes; done just before it, so that a genuine SIGSEGV still dumps.

    A limit of 1 byte, not 0: only 1 suppresses a core that is piped to a program (core(5)). The soft limit may not
    exceed the hard one, and RLIM_INFINITY is -1, which min() would take for the least.
    """
    with contextlib.suppress(OSError, ValueError):
        hard = resource.prlimit(pid, resource.RLIMIT_CORE)[1]
        resource.prlimit(pid, resource.RLIMIT_CORE, (1 if hard else 0, hard))
