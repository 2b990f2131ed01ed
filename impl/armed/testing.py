"""Children driven step by step: real processes that do what they are told, and stop between any two steps.

A `Stepper` starts them under a supervisor of your own, and `SteppedChild.tell` has one take a step and waits until it
is taken, refused, or the child is dead. The resource they take is a byte of shared memory for each entry (`Cells`), so
that whether something is held can be judged without believing the slot.
"""

from __future__ import annotations

import contextlib
import enum
import faulthandler
import gc
import mmap
import os
import select
import signal
import weakref
from collections.abc import Iterator
from multiprocessing import reduction
from typing import Any, Final

from armed.engagement import Engager
from armed.errors import ArmedError
from armed.supervisor import Child, Supervisor

with contextlib.suppress(ImportError):  # not a Unix; nothing below is called there
    import resource

__all__ = ["Cells", "Command", "SteppedChild", "Stepper"]

LIMIT: Final = 20.0
"""Seconds that any single step may take; a child that takes longer is reported, never waited for."""

ENTRIES: Final = 8  # cells a slot has: more things than a test takes in one engagement
FOREIGN_WORD: Final = 0x5CA1AB1E  # what SCRIBBLE leaves at first; later the clean value of the assignment before


class Command(enum.Enum):
    """What a stepped child can be told."""

    SERVE = "serve"  # go on from the pause before the exit path stands: enter the target
    ARM = "arm"  # enter `with me.engage()`
    TAKE = "take"
    TAKE_REFUSED = "take_refused"  # acquire raises an Exception: nothing is taken
    TAKE_FAILS = "take_fails"  # KeyboardInterrupt before the first effect of acquire
    TAKE_FAILS_FOR_MEMORY = "take_fails_for_memory"  # the same by MemoryError
    TAKE_FAILS_OTHERWISE = "take_fails_otherwise"  # the same by another BaseException that is no Exception
    TAKE_FAILS_LATE = "take_fails_late"  # after its last effect
    GIVE = "give"  # end the block as far as giving back what was taken last
    GIVE_FAILS = "give_fails"  # that give-back raises before its first effect
    GIVE_FAILS_LATE = "give_fails_late"  # after its last effect
    DISARM = "disarm"  # end the block: nothing is left to give back
    LEAVE = "leave"  # sys.exit(0) inside the block; the give-backs wait to be told
    SCRIBBLE = "scribble"  # store a foreign word over the slot's own
    GRANDCHILD = "grandchild"  # fork, and let the new process come back through the end of the block
    HURRY = "hurry"  # no more pauses
    RETURN = "return"
    EXCEPTION = "exception"
    SYS_EXIT_0 = "sys.exit(0)"
    SYS_EXIT_1 = "sys.exit(1)"
    SYS_EXIT_2 = "sys.exit(2)"
    SYS_EXIT_3 = "sys.exit(3)"
    RAW_EXIT_0 = "_exit(0)"
    RAW_EXIT_1 = "_exit(1)"
    RAW_EXIT_2 = "_exit(2)"
    RAW_EXIT_3 = "_exit(3)"


_RAW = {Command.RAW_EXIT_0: 0, Command.RAW_EXIT_1: 1, Command.RAW_EXIT_2: 2, Command.RAW_EXIT_3: 3}
_SYS = {Command.SYS_EXIT_0: 0, Command.SYS_EXIT_1: 1, Command.SYS_EXIT_2: 2, Command.SYS_EXIT_3: 3}
_ENDS = {Command.RETURN, Command.EXCEPTION, *_SYS}
_BLOCK_ENDS = {Command.GIVE, Command.GIVE_FAILS, Command.GIVE_FAILS_LATE, Command.DISARM}


class _CutShort(BaseException):
    """What cuts a take short and is neither an Exception nor one of Python's own."""


_RAISED_BY_ACQUIRE: Final[dict[Command, type[BaseException]]] = {
    Command.TAKE_REFUSED: ValueError,
    Command.TAKE_FAILS: KeyboardInterrupt,
    Command.TAKE_FAILS_FOR_MEMORY: MemoryError,
    Command.TAKE_FAILS_OTHERWISE: _CutShort,
}
"""What acquire raises, as it is told to, before its first effect."""
_TAKES = {Command.TAKE, Command.TAKE_FAILS_LATE, *_RAISED_BY_ACQUIRE}


class Cells:
    """The harness's own resource, in shared memory: a byte for each entry of each slot, not 0 while it is held."""

    def __init__(self, slots: int) -> None:
        descriptor = os.memfd_create("armed-cells")
        os.ftruncate(descriptor, (slots + 1) * ENTRIES)
        self._map(slots, descriptor)

    def _map(self, slots: int, descriptor: int) -> None:
        self._slots, self._descriptor = slots, descriptor
        self._memory = mmap.mmap(descriptor, (slots + 1) * ENTRIES)
        self._close = weakref.finalize(self, os.close, descriptor)

    def close(self) -> None:
        """Free this process's part of it. Harmless when repeated."""
        self._memory.close()
        self._close()

    def __getstate__(self) -> dict[str, Any]:
        """For a child that is spawned: the memory is handed on by descriptor."""
        return {"slots": self._slots, "descriptor": reduction.DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._map(state["slots"], state["descriptor"].detach())

    def take(self, slot: int, entry: int) -> None:
        """Mark an entry of a slot as held."""
        self._memory[slot * ENTRIES + entry] = 1

    def give(self, slot: int, entry: int) -> None:
        """Mark it as not held."""
        self._memory[slot * ENTRIES + entry] = 0

    def held(self, slot: int) -> frozenset[int]:
        """Return which entries the child in `slot` holds, numbered from 0 as they were taken in its engagement."""
        return frozenset(entry for entry in range(ENTRIES) if self._memory[slot * ENTRIES + entry])


class NotResponding(Exception):
    """A stepped child neither answered nor died within the limit."""


class SteppedChild:
    """The supervisor's side of one stepped child."""

    def __init__(self, child: Child, commands: int, replies: int) -> None:
        self.child: Final = child
        self._commands, self._replies = commands, replies
        self._pidfd = os.pidfd_open(child.pid)

    def tell(self, command: Command) -> str:
        """Have the child take a step. Return "done", "ended" (it is dead), or why the step was refused.

        The answer to SERVE says besides which generation the child takes itself to be of: "done in generation 1".
        """
        with contextlib.suppress(BrokenPipeError):  # it is dead: seen below
            os.write(self._commands, command.value.encode() + b"\n")
        return self._answer()

    def send(self, number: signal.Signals) -> None:
        """Send the child a signal. Raises ProcessLookupError once it is reaped."""
        signal.pidfd_send_signal(self._pidfd, number)

    def freeze(self) -> None:
        """Stop the child (SIGSTOP, which nobody can refuse) and return when it stands still."""
        self.send(signal.SIGSTOP)
        os.waitid(os.P_PIDFD, self._pidfd, os.WSTOPPED | os.WNOWAIT)

    def hurry(self) -> None:
        """Let the child end without any more pauses, if it is in the middle of giving back."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._commands, Command.HURRY.value.encode() + b"\n")

    def wait_until_dead(self, limit: float = LIMIT) -> None:
        """Wait for the child's death; it stays unreaped. Raises NotResponding."""
        if not _wait_for([self._pidfd], limit):
            raise NotResponding(f"child {self.child.pid} does not die")

    def is_dead(self) -> bool:
        """Whether the child is dead, reaped or not."""
        return bool(_wait_for([self._pidfd], 0))

    def close(self) -> None:
        """Close the descriptors. A living child takes no more steps."""
        for descriptor in (self._commands, self._replies, self._pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self._commands = self._replies = self._pidfd = -1

    def _answer(self) -> str:
        ready = _wait_for([self._replies, self._pidfd], LIMIT)
        if self._replies in ready and (line := os.read(self._replies, 4096)):
            return line.decode().strip()
        if ready:
            self.wait_until_dead()
            return "ended"
        raise NotResponding(f"child {self.child.pid} takes no step")


class Stepper:
    """Starts stepped children under `supervisor`, whose `make_shared` makes `Cells` (and keeps a hand on them)."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._foreign_word = FOREIGN_WORD

    def start(self) -> SteppedChild:
        """Start a child that stands before its exit path. Raises what Supervisor.start raises."""
        command_reader, command_writer = os.pipe()
        reply_reader, reply_writer = os.pipe()
        puppet = _Puppet(command_reader, reply_writer, self._foreign_word)
        try:
            child = self._supervisor._start(puppet.target, (), puppet.before_exit_path)
            self._foreign_word = child._token
            return SteppedChild(child, command_writer, reply_reader)
        except BaseException:
            os.close(command_writer)
            os.close(reply_reader)
            raise
        finally:
            os.close(command_reader)
            os.close(reply_writer)


def _wait_for(descriptors: list[int], limit: float) -> list[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(limit * 1000)]


class _GiveBackFailed(Exception):
    """What a failing give-back raises."""


class _Puppet:
    """The child's side: reads commands, obeys, replies.

    `pending`: the command that ended the block, for the first give-back to obey.
    """

    me: Engager  # from the moment the target is called
    cells: Cells

    def __init__(self, commands: int, replies: int, foreign_word: int) -> None:
        self.commands, self.replies, self.foreign_word = commands, replies, foreign_word
        self.buffer = b""
        self.was_told_to_hurry = False
        self.owes_a_reply = False
        self.pending: Command | None = None
        self.ending: Command | None = None
        self.entries = 0
        self.has_failed = False  # a give-back has, as it was told to

    def __getstate__(self) -> dict[str, Any]:
        """For a child that is spawned: descriptors are numbers that it does not have."""
        ends = {name: reduction.DupFd(getattr(self, name)) for name in ("commands", "replies")}
        return {**self.__dict__, **ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, commands=state["commands"].detach(), replies=state["replies"].detach())

    @property
    def hurry(self) -> bool:
        """No more pauses: it was told so, or is asked to end, which may have come between any two lines."""
        return self.was_told_to_hurry or self.me._must_stop

    def before_exit_path(self) -> None:
        self.pid = os.getpid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)  # tracebacks of exceptions that are meant to happen
        os.close(null)
        faulthandler.disable()
        gc.callbacks.clear()  # Hypothesis's, in which a signal that is sent once would come to nothing
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (1 if hard else 0, hard))  # no core of a SIGSEGV that is meant
        while True:
            command = self.read()
            if command is Command.SERVE:
                return
            if command is Command.RETURN:
                self.ending = command
                return
            self.obey_anywhere(command, None)

    def target(self, me: Engager, cells: Cells) -> None:
        self.me, self.cells = me, cells
        self.reply(f"done in generation {me.generation}")
        hold = me
        while self.ending is None:
            command = self.read()
            if command is Command.ARM:
                self.block()
            elif command in _TAKES:
                self.attempt(lambda command=command: self.take(hold, command))
            elif command in _BLOCK_ENDS or command is Command.LEAVE:
                self.reply("refused: there is no block to end")
            else:
                self.obey_anywhere(command, None)
        self.end(self.ending)

    def block(self) -> None:
        self.entries = 0
        try:
            with self.me.engage() as hold:
                self.reply("done")
                self.inside(hold)
        except ArmedError as error:
            if os.getpid() != self.pid:
                raise
            if self.ending is None:
                self.reply("done" if self.has_failed else f"refused: {type(error).__name__}")
        else:
            self.reply("done")
        self.has_failed = False

    def inside(self, hold: Engager) -> None:
        while self.ending is None:
            command = self.read()
            if command in _BLOCK_ENDS:
                self.pending = None if command is Command.DISARM else command
                return
            if command is Command.ARM:
                self.attempt(lambda: hold.engage().__enter__())
            elif command in _TAKES:
                self.attempt(lambda command=command: self.take(hold, command))
            elif command is Command.LEAVE:
                self.reply("done")
                self.ending = Command.SYS_EXIT_0
                raise SystemExit(0)
            else:
                self.obey_anywhere(command, None)

    def attempt(self, step: Any) -> None:
        try:
            step()
        except ArmedError as error:
            self.reply(f"refused: {type(error).__name__}")
        except tuple(_RAISED_BY_ACQUIRE.values()):
            self.reply("done")
        else:
            self.reply("done")

    def take(self, hold: Engager, command: Command) -> None:
        entry = self.entries

        def acquire() -> None:
            if command in _RAISED_BY_ACQUIRE:
                raise _RAISED_BY_ACQUIRE[command]
            self.entries += 1
            self.cells.take(self.me.slot, entry)
            if command is Command.TAKE_FAILS_LATE:
                raise KeyboardInterrupt

        hold.take(acquire, lambda: self.give_back(entry))

    def give_back(self, entry: int) -> None:
        """Give one entry back when told to, and wait inside the call for what comes next."""
        command, self.pending = self.pending, None
        if self.has_failed:
            self.has_failed = False
            self.reply("done")
        while not self.hurry:
            command = command or self.read()
            if command in (Command.GIVE_FAILS, Command.GIVE_FAILS_LATE):
                if command is Command.GIVE_FAILS_LATE:
                    self.cells.give(self.me.slot, entry)
                self.has_failed = True  # the answer is given when what follows from it has happened
                raise _GiveBackFailed
            if command is Command.GIVE:
                break
            if self.obey_anywhere(command, entry) == "grandchild":
                return
            command = None
        self.cells.give(self.me.slot, entry)
        while not self.hurry:
            self.reply("done")
            command = self.read()
            if command in _BLOCK_ENDS:
                self.pending = None if command is Command.DISARM else command
                return
            if self.obey_anywhere(command, entry) == "grandchild":
                return

    def obey_anywhere(self, command: Command, entry: int | None) -> str:
        """Obey what can be obeyed at any point. `entry`: inside the give-back of that entry."""
        if command in _RAW:
            os._exit(_RAW[command])
        if command is Command.HURRY:
            self.was_told_to_hurry = True
        elif command in _ENDS:
            self.was_told_to_hurry, self.ending = True, command
            if entry is None:
                self.end(command)
        elif command is Command.SCRIBBLE:
            self.me._word[0] = self.foreign_word
            self.reply("done")
        elif command is Command.GRANDCHILD:
            if (pid := os.fork()) == 0:
                self.was_told_to_hurry = True
                if entry is not None:
                    return "grandchild"  # comes back out of the give-back
                raise SystemExit(0)
            os.waitpid(pid, 0)
            self.reply("done")
        else:
            self.reply("refused: not at this point")
        return ""

    def end(self, command: Command) -> None:
        """End as told; from inside a block the exception goes through its end."""
        if command is Command.EXCEPTION:
            raise RuntimeError("the target raises")
        if command in _SYS:
            raise SystemExit(_SYS[command])

    def read(self) -> Command:
        """Wait for a command; there is always one, or a signal, while the harness lives."""
        if os.getpid() != self.pid:
            raise SystemExit(0)  # a grandchild that came back out of a give-back: nobody tells it anything
        try:
            while b"\n" not in self.buffer:
                if not (more := os.read(self.commands, 4096)):
                    os._exit(70)  # the harness is gone
                self.buffer += more
        except BaseException:  # of a signal handler: on the way out nobody tells us anything any more
            self.was_told_to_hurry = True
            raise
        line, self.buffer = self.buffer.split(b"\n", 1)
        self.owes_a_reply = True
        return Command(line.decode())

    def reply(self, text: str) -> None:
        if self.owes_a_reply and os.getpid() == self.pid:
            self.owes_a_reply = False
            os.write(self.replies, text.encode() + b"\n")


@contextlib.contextmanager
def stepping(slots: int, **options: Any) -> Iterator[tuple[Supervisor, Stepper]]:
    """Make a supervisor with `slots` slots whose shared memory is `Cells`, and a stepper; close it at the end."""
    with Supervisor(slots, lambda: Cells(slots), **{"restart_limit": None, **options}) as supervisor:
        yield supervisor, Stepper(supervisor)
