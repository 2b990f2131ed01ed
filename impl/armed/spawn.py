"""Start a child in a fresh interpreter, as PostgreSQL does where it cannot fork (EXEC_BACKEND; on Windows, always).

All that a child needs is written, pickled, into memory without a name, and handed on by descriptor, as the slot table
and the lifeline are. Nothing waits for the child to read it, so a child that is stopped or dies at once stops nobody.
What `multiprocessing` does for its own spawned processes is done here, too: the main module is imported under another
name, and locks, queues and shared memory of its "spawn" context can be among what is shared and among the arguments.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Set
from multiprocessing import context, popen_spawn_posix, process, reduction, resource_tracker, util
from multiprocessing import spawn as of_multiprocessing
from pathlib import Path
from typing import Final, NoReturn

from armed.exits import Lifeline, hold_lifeline
from armed.launch import Launch, run_child
from armed.registry import CANCEL_SIGNAL
from armed.slots import SlotTable, attach

__all__ = ["be_spawned", "spawning"]

_ROOT: Final = str(Path(__file__).parents[1])
_COMMAND: Final = (
    "import sys; sys.path.append({root!r}); from armed.spawn import be_spawned; be_spawned({payload}, {life})"
)


class _Passing:
    """What `multiprocessing.reduction.DupFd` asks: notes the descriptors that the child is to get."""

    DupFd = popen_spawn_posix._DupFd

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return descriptor


@contextlib.contextmanager
def spawning(launch: Launch, table: SlotTable, lifeline: Lifeline) -> Iterator[Callable[[], int]]:
    """Give a function that starts the child and returns its pid, by one call of C code.

    `launch` is told without what only a fork inherits: the child maps the table itself. Raises `TypeError` for what
    cannot be pickled.
    """
    launch = launch._replace(lifeline=None, watch=None, rope=None)
    opened: list[io.FileIO] = []
    try:
        opened.extend(map(io.FileIO, map(os.memfd_create, ("armed-launch",)), ("r+",)))
        passing = _Passing()
        tracker: int | None = resource_tracker._resource_tracker._fd  # type: ignore[attr-defined]
        if tracker is not None:  # names of shared memory that a child attaches to are not for it to remove
            passing.duplicate_for_child(tracker)
        told = (passing.duplicate_for_child(table.fileno()) if launch.slot else None, tracker)
        preparation = of_multiprocessing.get_preparation_data(f"armed-{launch.slot}")
        context.set_spawning_popen(passing)  # type: ignore[arg-type]
        try:
            pickled = b"".join(map(reduction.ForkingPickler.dumps, (told, preparation, launch)))
        except Exception as error:  # whatever a __reduce__ raises
            raise TypeError(
                f"to be spawned, the target, its arguments and what is shared must be picklable: {error}"
            ) from error
        finally:
            context.set_spawning_popen(None)
        opened[0].write(pickled)
        opened[0].seek(0)
        payload, life = opened[0].fileno(), lifeline.fileno()
        command = _COMMAND.format(root=_ROOT, payload=payload, life=life)
        executable = os.fsdecode(of_multiprocessing.get_executable())
        arguments = [executable, *util._args_from_interpreter_flags(), "-c", command]  # type: ignore[attr-defined]
        kept = [payload, life, *passing.descriptors]
        yield functools.partial(
            os.posix_spawn,
            executable,
            arguments,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, each, each) for each in dict.fromkeys(kept)
            ],  # not closed by exec, then
            setsigmask=_blocked(launch.mask),
            setsigdef=[signal.SIGQUIT],
        )
    finally:
        for file in opened:
            file.close()


def _blocked(mask: Set[int]) -> set[int]:
    """Return the mask to begin with: who is asked to end before he can note it would die of the signal."""
    return {*mask} - {signal.SIGQUIT} | {signal.SIGTERM, signal.SIGINT, CANCEL_SIGNAL}


def be_spawned(payload: int, life: int) -> NoReturn:
    """Be the child, in the fresh interpreter. Tied to the supervisor's life before the program's own code runs.

    What the interpreter runs by itself (`site`, `.pth` files) comes before, and has the supervisor's life to hope for.
    """
    try:
        hold_lifeline(life)
        os.close(life)
        launch, word = _receive(payload)
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)
    run_child(launch, word)


def _receive(payload: int) -> tuple[Launch, memoryview]:
    process.current_process()._inheriting = True  # type: ignore[attr-defined]
    try:
        with open(payload, "rb") as file:
            table, tracker = pickle.load(file)
            resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]
            of_multiprocessing.prepare(pickle.load(file))
            launch: Launch = pickle.load(file)
    finally:
        del process.current_process()._inheriting  # type: ignore[attr-defined]
    word = attach(table, launch.slot) if table is not None else memoryview(bytearray(8)).cast("Q")
    return launch, word
