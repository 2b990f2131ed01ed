"""Fork, and what a child does before and after its target.

The order in a child: lifeline, signals, [prelude], **exit path**, target, exit path, exit. The exit path stands before
the target is called: whatever the target leaves open, and however it ends in Python, `Engager.finish` closes it.
Source: PostgreSQL's fork_process, InitPostmasterChild and proc_exit; claim C13.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # what signal.py wraps, which makes enum members of its answers
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Set
from typing import Any, Final, NamedTuple, NoReturn

from armed.early import MUTE, Rope
from armed.engagement import UNINTERRUPTED, Engager, WithoutSlot
from armed.exits import Lifeline, Watch
from armed.registry import CANCEL_SIGNAL

__all__ = ["Launch", "flush_standard_streams", "run_child", "signals_blocked"]


class Launch(NamedTuple):
    """All that a child needs to know."""

    target: Callable[..., object]
    args: tuple[Any, ...]
    shared: Any
    slot: int  # 0: none
    generation: int
    token: int
    mask: Set[int]  # the supervisor's signal mask before the fork
    prelude: Callable[[], object] | None  # called when all is ready, but before the exit path stands
    # What a child that is spawned has not, or has found by itself.
    lifeline: Lifeline | None = None
    watch: Watch | None = None
    rope: Rope | None = None


@contextlib.contextmanager
def signals_blocked() -> Iterator[Set[int]]:
    """Keep the handlers of signals, which may raise, out of a few lines; give the mask that will be restored."""
    before: Set[int] = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, range(1, 32))  # runs the handlers of what came until now
        yield before
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)  # and of what came since


def flush_standard_streams() -> None:
    """Flush standard output and error: before a fork, or both processes would write what they hold."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - and no code of contextlib: this is done at every start
            stream.flush()
        except Exception:
            pass


def run_child(launch: Launch, word: memoryview) -> NoReturn:
    """Be the child from the fork to the exit, with signals blocked at first. Whatever happens, this does not return.

    The status is 0 if the target returns, that of its `SystemExit` as in a Python program, else 1. The supervisor's
    `atexit` handlers do not run in its children, and the threads of a target end with it.
    """
    status = 1
    try:
        try:
            try:
                status = _be_child(launch, word)
            finally:
                os._exit(status)
        finally:  # an exception of a signal handler, on the very last step: a child must not become a second supervisor
            os._exit(status)
    finally:  # and one more
        os._exit(status)


def _be_child(launch: Launch, word: memoryview) -> int:
    try:
        if launch.lifeline is not None:
            launch.lifeline.hold()  # its write end was closed by the hook on fork
        if launch.watch is not None:
            launch.watch.close_copies()
        me = Engager if launch.slot else WithoutSlot
        engager = me(launch.slot, launch.generation, word, launch.token, launch.rope or MUTE)
        _settle_signals(engager, launch.mask)
        if launch.prelude is not None:
            launch.prelude()
    except BaseException as error:
        _wind_up(error, ours=False)
        return _status_of(error)
    return _live(engager, launch)


def _settle_signals(engager: Engager, mask: Set[int]) -> None:
    """Give the signals that the supervisor uses their meaning in a child; then let them in."""
    _signal.signal(_signal.SIGTERM, engager.on_stop_signal)
    # Who has no use for a cancel request ends by it, in the orderly way; its default action would be a crash. It cannot
    # come before: signals are blocked until the last line, and a target may put a handler of its own in the place.
    _signal.signal(CANCEL_SIGNAL, engager.on_stop_signal)
    # Ctrl-C comes to the whole process group. KeyboardInterrupt would fall into a take or a give-back, and who ignores
    # SIGINT makes the programs that it runs ignore it, too. If the supervisor does, its terminal is somebody else's.
    if _signal.getsignal(_signal.SIGINT) != _signal.SIG_IGN:
        _signal.signal(_signal.SIGINT, engager.on_stop_signal)
    _signal.signal(_signal.SIGQUIT, _signal.SIG_DFL)  # a shell that started the supervisor in the background ignores it
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.set_wakeup_fd(-1)  # the descriptor is the supervisor's
    let_in = {_signal.SIGTERM, _signal.SIGINT, _signal.SIGQUIT, CANCEL_SIGNAL}
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask - let_in)


def _live(engager: Engager, launch: Launch) -> int:
    """Call the target, then go the exit path; return the exit status."""
    outcome: tuple[int, BaseException | None] | None = None
    try:
        try:
            if launch.watch is not None:
                _forget_inherited_multiprocessing()
            outcome = _call(launch.target, (engager, launch.shared, *launch.args))
        finally:
            ours = _leave(engager)
    except BaseException as late:  # of a signal handler, at a bytecode of the lines above
        ours = _leave(engager)
        outcome = outcome or (_status_of(late), late)
    _wind_up(outcome[1], ours)
    return outcome[0]


def _call(target: Callable[..., object], args: tuple[Any, ...]) -> tuple[int, BaseException | None]:
    try:
        target(*args)
    except BaseException as error:
        return _status_of(error), error
    return 0, None


def _status_of(error: BaseException) -> int:
    match error:
        case SystemExit(code=None):
            return 0
        case SystemExit(code=int(code)):
            return code & 0xFF
        case _:
            return 1


def _leave(engager: Engager) -> bool:
    """Give back what is left and disarm: the exit path. Return False in a process forked by the child.

    Begins again after an exception of a signal handler; as no give-back is called twice, that comes to an end.
    """
    while True:
        try:
            return engager.finish()
        except BaseException:
            continue


def _wind_up(error: BaseException | None, ours: bool) -> None:
    """Say how the target failed, and do of a Python program's end what os._exit leaves out. Nothing here can fail."""
    with contextlib.suppress(BaseException):
        if error is not None:
            _report(error)
    with contextlib.suppress(BaseException):
        # The feeder thread of a multiprocessing.Queue writes what was put, and is waited for. A process forked by the
        # child has no such thread, and the processes waited for are not its own.
        if ours and (util := sys.modules.get("multiprocessing.util")) is not None:
            util._exit_function()
    with contextlib.suppress(BaseException):
        flush_standard_streams()


def _report(error: BaseException) -> None:
    match error:
        case KeyboardInterrupt() | SystemExit(code=None | int()):
            pass
        case SystemExit(code=message):
            print(message, file=sys.stderr)
        case _:
            traceback.print_exception(error)


def _forget_inherited_multiprocessing() -> None:
    """Do what multiprocessing does in its own children, if it is loaded: this one is not made by its Process.

    Its finalizers and children are the supervisor's; its queues must learn that they have no feeder thread here.
    """
    with contextlib.suppress(Exception):
        if (util := sys.modules.get("multiprocessing.util")) is not None:
            util._finalizer_registry.clear()
            sys.modules["multiprocessing.process"].__dict__["_children"] = set()
            if util._afterfork_registry:
                util._run_after_forkers()


# On the exit path stop signals are only noted: the child is leaving.
_EXIT_PATH: Final = {_leave.__code__, _wind_up.__code__}
UNINTERRUPTED.update(_EXIT_PATH)
