"""Processes that work for a command: whatever ends it, Ctrl-C at any moment or SIGKILL, they do not outlive it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context
from typing import Any

_ENDS = {signal.SIGINT, signal.SIGTERM}
"""What may be an exception in the process that works: Ctrl-C always, SIGTERM where a program makes it one."""
_PR_SET_PDEATHSIG = 1


@contextmanager
def workers(
    processes: int, initializer: Callable[..., object] = lambda: None, initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Give so many processes to work in. An exception out of the block, as Ctrl-C is, ends them at once."""
    others = active_children()
    # Forked, as everywhere here: to spawn would leave a helper process behind.
    begin = (_begin_working, (os.getpid(), initializer, initargs))
    with ProcessPoolExecutor(processes, get_context("fork"), *begin) as pool:
        with _uninterrupted():
            pool.submit(int)  # starts all: if Ctrl-C came in the middle of that, the pool would be waited for for ever
        try:
            yield pool
        except BaseException:
            for worker in active_children():
                if worker not in others:
                    worker.kill()
            pool.shutdown(cancel_futures=True)
            raise


def run(command: Sequence[str], directory: str, limit: float) -> tuple[int, str]:
    """Run a program in a directory; return its exit status, and what it has written to standard output and error.

    Raises OSError, and subprocess.TimeoutExpired after `limit` seconds; it has ended then.
    """
    with _uninterrupted() as let_in:  # else Ctrl-C might come when it is there, and nobody has it yet
        process = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, preexec_fn=_end_with(os.getpid()),
        )  # fmt: skip
        with process:
            try:
                let_in()
                output, _ = process.communicate(timeout=limit)
            except BaseException:
                process.kill()
                process.wait()  # after a KeyboardInterrupt nobody else does
                raise
    return process.returncode, output


@contextmanager
def _uninterrupted() -> Iterator[Callable[[], object]]:
    """Keep Ctrl-C out of a block, and give the function that lets it in again."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    let_in = partial(signal.pthread_sigmask, signal.SIG_SETMASK, before)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # runs the handlers of what came until now
        yield let_in
    finally:
        let_in()


def _begin_working(parent: int, initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes, and the first one ends the others
    _end_with(parent)()
    initializer(*initargs)


def _end_with(parent: int) -> Callable[[], None]:
    def begin() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    return begin
