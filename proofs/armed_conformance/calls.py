"""Calls to the implementation under test: none lasts for ever, none is blamed for Ctrl-C, and none leaves a process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LIMIT = 60.0
"""Seconds that one call may take: longer than any limit that an adapter should have of its own."""


class TookTooLong(BaseException):
    """A call did not return in time. No Exception, so that what is called does not take it for one of its own."""


_interrupted = False


def interrupt(number: int, frame: object) -> None:
    """Handle SIGINT, or what shall be like it. Raises KeyboardInterrupt, and remembers that it has.

    Python drops an exception that comes in a callback, as after a fork, in a finalizer or in the garbage collector.
    """
    global _interrupted  # no lock, as an Event has: a second signal may come at any bytecode of this
    _interrupted = True
    raise KeyboardInterrupt


def stop_if_interrupted() -> None:
    """Raise KeyboardInterrupt if there was one, though it was dropped: then nothing counts that was seen since."""
    if _interrupted:
        raise KeyboardInterrupt


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLong inside the block after so many seconds.

    By SIGALRM, so it works in the main thread alone (elsewhere nothing is limited), and ends what lets Python handle a
    signal: system calls, not a loop in C. It is raised again and again, for those who swallow it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    over = False

    def stop(number: int, frame: object) -> None:
        if not over:
            raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def children() -> set[int]:
    """Return the children of this process, living or unreaped, by pid. Linux only; elsewhere none is seen."""
    if sys.platform != "linux":
        return set()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()  # the usual case, for the price of one call
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended, and somebody else has reaped it
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def names() -> set[str]:
    """Return the names in /dev/shm, but for those of PostgreSQL servers: others may run some, and ours make none."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("PostgreSQL.")}


def end_children(pids: set[int]) -> None:
    """Kill and reap children, so that what one history left is not taken for the next one's."""
    for pid in pids:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
