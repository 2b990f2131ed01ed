"""How an exit is noticed: the supervisor watches its children's pidfds, a child holds on to the supervisor's lifeline.

Neither polls, installs a signal handler, starts a thread or waits for processes that are not ours.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import select
import signal
import weakref
from typing import Final

with contextlib.suppress(ImportError):  # not a Unix; nothing below is called there
    import fcntl

__all__ = ["UNKNOWN", "Lifeline", "Watch", "exit_status", "hold_lifeline"]

UNKNOWN: Final = -0x7F
"""The status of what is no exit, or was reaped by somebody else. No signal has this number; it is never clean."""

_LONGEST_WAIT: Final = 3600.0  # seconds; epoll takes no infinity, and callers look again after it


def exit_status(wait_status: int) -> int:
    """Return n for an exit with status n, -n for a death by signal n (as `subprocess` does), else `UNKNOWN`.

    Total: each of the 65,536 wait statuses has a meaning; stopped and continued are `UNKNOWN`. Raises `ValueError`
    for any other number. Source: wait(2).
    """
    if not 0 <= wait_status <= 0xFFFF:
        raise ValueError(f"a wait status has 16 bits, this is {wait_status:#x}: pass what waitpid() answered")
    number = wait_status & 0x7F
    return -number if number else wait_status >> 8  # 0x7F stands for stopped and continued


class Watch:
    """The pidfds of the living children in one epoll set: no cost at rest, and constant cost for each exit.

    Each is kept in a file object, which closes it once, however often it is told, and also when it is forgotten.
    """

    __slots__ = ("_epoll", "_files")

    def __init__(self) -> None:
        self._epoll = select.epoll()  # close-on-exec, as every descriptor that Python opens
        self._files: dict[int, io.FileIO] = {}

    def open(self, pid: int) -> int:
        """Open and return the pidfd of a child that is not reaped, to be added. Raises `OSError`."""
        opened: list[io.FileIO] = []
        # One call of C code opens and records: no exception of a signal handler can fall between.
        opened.extend(map(io.FileIO, map(os.pidfd_open, (pid,))))
        number = opened[0].fileno()
        self._files[number] = opened[0]
        return number

    def add(self, pidfd: int) -> None:
        """Watch what was opened. Raises `OSError`."""
        self._epoll.register(pidfd, select.EPOLLIN)

    def add_file(self, file: io.FileIO) -> None:
        """Watch what is readable when something has happened, and close it as if it were a pidfd."""
        self._files[file.fileno()] = file
        self.add(file.fileno())

    def opened(self) -> set[int]:
        """Return the numbers of all that is open here, watched or not."""
        return set(self._files)

    def wait(self, timeout: float) -> list[int]:
        """Return the pidfds of dead children, and what else is ready.

        After `timeout` seconds, rounded up to a millisecond, at the latest.
        """
        return [pidfd for pidfd, _ in self._epoll.poll(min(max(timeout, 0.0), _LONGEST_WAIT))]

    def fileno(self) -> int:
        """Return a descriptor that is readable when a child has died."""
        return self._epoll.fileno()

    def remove(self, pidfd: int) -> None:
        """Stop watching. Harmless when repeated, as after an exception that came in the middle."""
        if pidfd in self._files:
            with contextlib.suppress(OSError, ValueError):  # it was done already, or the set is closed
                # First: a copy in a forked process would keep reporting it for ever.
                self._epoll.unregister(pidfd)
            if (file := self._files.pop(pidfd, None)) is not None:  # before the number is free for another one
                file.close()

    def close(self) -> None:
        """Close all descriptors, whatever is still watched."""
        for file in list(self._files.values()):
            file.close()
        self._files.clear()
        self._epoll.close()

    def close_copies(self) -> None:
        """Close a child's own copies of all descriptors; the set is unharmed. It is not to be used there any more.

        By runs of numbers, and the file objects, which stay as they are, are not touched: that would copy their pages.
        """
        runs: list[list[int]] = []
        for number in sorted(self._files):
            if runs and runs[-1][1] == number:
                runs[-1][1] += 1
            else:
                runs.append([number, number + 1])
        for run in runs:  # none is empty, which would be taken for all that there are
            os.closerange(*run)
        self._epoll.close()


def observe(pidfd: int) -> int | None:
    """Return the exit status of a dead child and leave it unreaped; None while it lives."""
    return _wait(os.P_PIDFD, pidfd, os.WNOHANG | os.WNOWAIT)


def reap(pidfd: int) -> None:
    """Let a dead child go: its pid may be used again from now on. Harmless when repeated."""
    _wait(os.P_PIDFD, pidfd, os.WNOHANG)


def end(pid: int) -> int:
    """Kill and reap a child that is not watched; return its exit status, `UNKNOWN` if somebody else reaped it."""
    # Looked at first: the pid of a child that was reaped already may be anybody's by now.
    if _wait(os.P_PID, pid, os.WNOHANG | os.WNOWAIT) is None:
        os.kill(pid, signal.SIGKILL)
    status = _wait(os.P_PID, pid, 0)
    assert status is not None, "without WNOHANG there is an answer"
    return status


def _wait(kind: int, number: int, flags: int) -> int | None:
    try:
        info = os.waitid(kind, number, os.WEXITED | flags)
    except ChildProcessError:  # reaped by a wait() of the program's own, or SIGCHLD is ignored: it is gone all the same
        return UNKNOWN
    if info is None:
        return None
    match info.si_code:
        case os.CLD_EXITED:
            return exit_status((info.si_status & 0xFF) << 8)
        case os.CLD_KILLED | os.CLD_DUMPED:
            return exit_status(info.si_status & 0x7F)
        case _:
            return UNKNOWN


class Lifeline:
    """A pipe whose write end only the supervisor has: when it dies, however it dies, the kernel closes it.

    Each child asks the kernel for a SIGKILL at that moment, so a child that is busy in C code ends too, and one that
    the supervisor has no right to signal. Nothing is ever written. A child that closes its end, by exec or closerange,
    is no longer tied, and a copy of the write end that the hook below does not see (C code that forks) keeps all alive.
    PR_SET_PDEATHSIG would follow the thread that forked, not the process. Needs Linux 5.6: until then
    pipe_release signalled every reader whenever one of them was closed, so that one child's end would end all.
    """

    __slots__ = ("__weakref__", "_read_end", "_write_end")

    def __init__(self) -> None:
        # As in Watch.add: file objects, and one call of C code.
        pipes = itertools.starmap(os.pipe2, ((os.O_CLOEXEC | os.O_NONBLOCK,),))
        ends: list[io.FileIO] = []
        try:
            ends.extend(map(io.FileIO, itertools.chain.from_iterable(pipes), ("r", "w")))
            self._read_end, self._write_end = ends
            # Or children could not open it if the supervisor gave up being root.
            os.fchmod(self._read_end.fileno(), 0o444)
            _LIFELINES.add(self)
            _register_hook_once()
        except BaseException:
            for end in ends:
                end.close()
            raise

    def hold(self) -> None:
        """Tie this process, a child, to the supervisor's life. May not return: the supervisor may be dead already."""
        hold_lifeline(self._read_end.fileno())
        self._read_end.close()

    def fileno(self) -> int:
        """Return the read end's descriptor, for a child that is spawned."""
        return self._read_end.fileno()

    @property
    def is_held(self) -> bool:
        """Whether the write end is open: children can be tied to it."""
        return not self._write_end.closed

    def let_go(self) -> None:
        """Close the write end: in the supervisor this ends every child still there. Harmless when repeated."""
        self._write_end.close()

    def close(self) -> None:
        """Close both ends. Harmless when repeated."""
        self.let_go()
        self._read_end.close()


def hold_lifeline(read_end: int) -> None:
    """Tie this process, a child, to the life of who has the other end. May not return: that may be dead already."""
    # An open file description of our own: owner and signal are its properties, and siblings have theirs.
    own = os.open(f"/proc/self/fd/{read_end}", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    # "Tell me of its death" and "does it still live?" are two steps, in this order: else a death between is missed.
    with contextlib.suppress(BlockingIOError):
        if os.read(read_end, 1) == b"":
            os.kill(os.getpid(), signal.SIGKILL)


# Any process that inherits a write end keeps every child alive, also one that the supervisor's program forks for
# purposes of its own. So each fork closes them, first thing in the new process; exec does (O_CLOEXEC).
_LIFELINES: weakref.WeakSet[Lifeline] = weakref.WeakSet()
_hook_is_registered = False


def _register_hook_once() -> None:
    global _hook_is_registered
    if not _hook_is_registered:
        os.register_at_fork(after_in_child=_let_go_of_all)
        _hook_is_registered = True


def _let_go_of_all() -> None:
    for lifeline in list(_LIFELINES):
        lifeline.let_go()


def check_seconds(name: str, seconds: float) -> float:
    """Return a length of time in seconds; `ValueError` if it is negative or out of range, `TypeError` if no number."""
    wrong = f"{name} is {seconds!r}: give a number of seconds, 0 or more"
    if isinstance(seconds, bool):
        raise TypeError(wrong)
    try:
        if math.isnan(seconds) or seconds < 0:
            raise ValueError(wrong)
        return float(seconds)
    except TypeError:
        raise TypeError(wrong) from None
    except OverflowError:
        raise ValueError(wrong) from None
