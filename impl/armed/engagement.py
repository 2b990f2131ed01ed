"""The child's side of the switch: arm, take and give back, disarm.

    def target(me, shared):
        with me.engage() as hold:                          # armed from here
            table = hold.enter(open_table(shared))         # a context manager
            row = hold.take(shared.lock.acquire, shared.lock.release)
            ...                                            # whatever ends the process here starts recovery
                                                           # given back last first, then disarmed

The rule of this file: **the clean value is stored only when everything taken has been given back.** Each thing taken
is an entry, *asked* before it is acquired, then *held*, *giving* and *given*, or *failed*; the switch is disarmed iff
every entry is given. Whoever does not know whether he holds something counts as holding it: a false alarm at worst.

Exceptions may come at any bytecode (signal handlers raise them). Outside a take or a give-back they do no harm:
the end of the block or, at the latest, the exit path of the launcher (`finish`) gives back and disarms. That decides
the order of the stores below; each says why.

One thing cannot be told apart: an `Exception` that a signal handler raises during acquire, from one that acquire itself
raises to say that nothing was taken. It is taken for the latter, and the switch disarmed, though the thing may be held.
What a handler raises must be no `Exception`, then: `KeyboardInterrupt`, `SystemExit`, a class of one's own.
Source: PostgreSQL's MarkPostmasterChildActive and MarkPostmasterChildInactive; claims C6 to C8 and C13.
"""

from __future__ import annotations

import enum
import functools
import gc
import itertools
import mmap
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from threading import get_ident
from types import CodeType, FrameType, TracebackType
from typing import Final, TypeVar

from armed.early import MUTE, Rope
from armed.errors import AlreadyArmed, ArmedError, ForeignProcess, NotArmed, StillArmed, WrongThread
from armed.slots import active_word

__all__ = ["Engager", "WithoutSlot"]

T = TypeVar("T")
_MADV_WIPEONFORK: Final = 18  # Linux 4.14; the mmap module has no name for it


class Progress(enum.Enum):
    """How far one thing taken has come."""

    ASKED = "asked"  # being acquired: it may be held or not
    HELD = "held"
    GIVING = "giving"
    GIVEN = "given"  # or never taken
    FAILED = "failed"


class _Entry:
    """One thing taken. `value` is empty until acquire has returned, then it is its answer alone."""

    __slots__ = ("give_back", "is_manager", "progress", "value")

    def __init__(self, give_back: Callable[..., object], is_manager: bool) -> None:
        self.progress = Progress.ASKED
        self.value: list[object] = []
        self.give_back = give_back
        self.is_manager = is_manager  # its give_back gets the exception's details and may suppress it


class Engager:
    """What a child gets as `me`: its slot, its generation, and the engagement itself, any number of times.

    One object serves all engagements of a child, one after another, so that an engagement costs little more than
    a lock. For the child's main thread only.
    """

    __slots__ = (
        "_active", "_bell", "_entries", "_is_open", "_must_stop", "_page", "_pull", "_thread", "_token", "_word",
        "generation", "slot",
    )  # fmt: skip

    def __init__(self, slot: int, generation: int, word: memoryview, token: int, rope: Rope = MUTE) -> None:
        self.slot: Final = slot
        self.generation: Final = generation
        self._word: Final = word
        # The token is kept in this page only, which the kernel wipes in a forked process: a grandchild reads 0 there,
        # has no clean value to store, and needs no look at its pid (a system call) to know that it is foreign.
        self._page: Final = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._page.madvise(_MADV_WIPEONFORK)
        words = memoryview(self._page).cast("Q")
        self._token: Final = words[:1]
        self._token[0] = token
        self._active: Final = words[1:2]  # beside it, as to compute it would take as long as a store
        self._active[0] = active_word(token)
        # The bell is armed only while the switch is: after it, and disarmed before it. Whatever falls between the two
        # stores, a ring is missing at worst, and a ring is only a hint.
        self._bell: Final = rope.end
        self._pull: Final = rope.pull
        self._bell[0] = 0  # what it was when the supervisor forked, which may be an armed child itself
        self._thread: Final = get_ident()
        self._is_open = False
        self._entries: Final[list[_Entry]] = []  # once the block has ended it is empty, or the child stays armed
        self._must_stop = False  # SIGTERM, SIGINT or the cancel signal came

    def engage(self) -> Engager:
        """Return the engagement, for a `with` statement, which arms the switch. Without `with` nothing happens.

        The `with` raises `AlreadyArmed` inside a block, `StillArmed` if an earlier block could not give everything
        back, `ForeignProcess` in a process forked by the child, `WrongThread` outside its main thread.
        """
        return self

    def __enter__(self) -> Engager:
        active = self._active[0]
        if not active or self._is_open or self._entries or get_ident() != self._thread:
            raise self._refusal()
        # Armed first, then open: an exception between the two leaves a block that nobody ends and that blocks nothing.
        self._word[0] = active
        self._is_open = True
        self._bell[0] = self._pull
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        token = self._token[0]
        if not token or get_ident() != self._thread:
            raise self._refusal()
        # Closed first: from here nothing can be taken, not even by a signal handler, so what the next line sees stays.
        self._is_open = False
        if not self._entries:
            self._bell[0] = 0
            self._word[0] = token
            return False
        failure, left = self._end(error)
        if not self._token[0]:
            raise self._refusal()
        if failure is None:
            self._obey()
            return error is not None and left is None
        if not isinstance(failure, Exception):
            raise failure
        self._obey()
        raise StillArmed(
            f"giving back failed ({failure!r}): the child stays armed and its end will start recovery; let it end"
        ) from failure

    def take(self, acquire: Callable[[], T], give_back: Callable[[], object]) -> T:
        """Call `acquire` and return its answer; `give_back` will be called, without arguments, at the end of the block.

        Whatever acquire raises is passed on. An `Exception` other than `MemoryError` means that nothing was taken
        (it must undo what it did before it raises; a signal handler must raise none); after any other exception nobody
        knows, and the switch will not be disarmed any more. The answer of give_back is ignored; if it raises, the
        switch is not disarmed any more.

        Raises `TypeError` if one of the two is not callable, `NotArmed` outside a block, `ForeignProcess`,
        `WrongThread`: then acquire was not called.
        """
        if not (callable(acquire) and callable(give_back)):
            name, wrong = ("give_back", give_back) if callable(acquire) else ("acquire", acquire)
            raise TypeError(f"{name} is called without arguments, this is {wrong!r}: nothing was acquired")
        return self._ask_and_obey(acquire, (), _Entry(give_back, is_manager=False))

    def enter(self, manager: AbstractContextManager[T]) -> T:
        """Enter a context manager and return the value of its `__enter__`; it is left at the end of the block.

        As with `take`, its `__enter__` being acquire, its `__exit__` give_back; this gets the details of the
        exception that ends the block, and suppresses it by a true answer, as in a `with` statement.

        Raises `TypeError` for what is no context manager; otherwise as `take`.
        """
        kind = type(manager)
        try:
            acquire, give_back = kind.__enter__, functools.partial(kind.__exit__, manager)
        except AttributeError:
            raise TypeError(f"{kind.__qualname__} is no context manager: use take(acquire, give_back)") from None
        return self._ask_and_obey(acquire, (manager,), _Entry(give_back, is_manager=True))

    def finish(self) -> bool:
        """Give back what is left, then disarm if all is given: the exit path, called by the launcher only.

        Whatever the mark of the block says: an exception may have come between its stores. May be called again after
        an exception: every give-back is called at most once. A foreign word over an idle slot is left where it is: it
        is evidence. Does nothing, and returns False, in a process forked by the child.
        """
        self._is_open = False
        if self._entries or self._word[0] == self._active[0]:
            self._end(None)
        return bool(self._token[0])

    def on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        """Raise `SystemExit(1)` at once or, during a take, a give-back or the exit path, when that is over.

        Handles SIGTERM, SIGINT and the cancel signal. Once: a close asks again and again, and who is on his way out is
        not disturbed. Not where the interpreter would drop it (`sys.unraisablehook`): there it has to be asked again.
        """
        if not self._must_stop and not _is_dropped(frame):
            self._must_stop = True
            self._obey(frame)

    # What follows is private to this file.

    def _ask_and_obey(self, acquire: Callable[..., T], arguments: tuple[object, ...], entry: _Entry) -> T:
        try:
            return self._ask(acquire, arguments, entry)
        finally:
            self._obey()

    def _ask(self, acquire: Callable[..., T], arguments: tuple[object, ...], entry: _Entry) -> T:
        if not self._token[0] or get_ident() != self._thread:
            raise self._refusal()
        if not self._is_open:
            raise NotArmed("nothing is taken outside an engagement: do it inside `with me.engage() as hold:`")
        answers: Iterable[T] = itertools.starmap(acquire, (arguments,))
        self._entries.append(entry)
        try:
            # One call of C code acquires and records the answer: no exception of a signal handler can fall between.
            entry.value.extend(answers)
        except BaseException as error:
            if entry.value:
                entry.progress = Progress.HELD
            elif isinstance(error, Exception) and not isinstance(error, MemoryError):
                entry.progress = Progress.GIVEN
            raise
        if not entry.value:  # extend() takes StopIteration for an end, as a generator would
            entry.progress = Progress.GIVEN
            raise RuntimeError("acquire raised StopIteration: nothing was taken; let it raise another exception")
        entry.progress = Progress.HELD
        return entry.value[0]  # type: ignore[return-value] # the one answer of acquire

    def _end(self, error: BaseException | None) -> tuple[BaseException | None, BaseException | None]:
        """Give back, last first, then disarm iff all is given. Return what failed, and the error unless suppressed.

        The block is closed already. The failure is the first one that is no `Exception`, else the first.
        """
        failures: list[BaseException] = []
        for entry in reversed(self._entries):
            # The token is asked for each time: a give-back may fork, and come back here in both processes.
            if entry.progress is Progress.HELD and self._token[0]:
                error = self._give(entry, error, failures)
        token = self._token[0]
        if not token:
            return None, error
        if all(entry.progress is Progress.GIVEN for entry in self._entries):
            # Forgotten first: what is left in the other order would be taken for something that was not given back.
            self._entries.clear()
            self._bell[0] = 0
            self._word[0] = token
            return None, error
        failures.sort(key=lambda failure: isinstance(failure, Exception))
        return failures[0] if failures else _UNKNOWN_FAILURE, error

    def _give(self, entry: _Entry, error: BaseException | None, failures: list[BaseException]) -> BaseException | None:
        """Give one thing back; return the exception that the next manager is to see, as nested `with` blocks would."""
        entry.progress = Progress.GIVING
        try:
            if not entry.is_manager:
                entry.give_back()
            elif error is None:
                entry.give_back(None, None, None)
            elif entry.give_back(type(error), error, error.__traceback__):
                error = None
        except BaseException as failure:
            entry.progress = Progress.FAILED
            failures.append(failure)
            return failure
        entry.progress = Progress.GIVEN
        return error

    def _refusal(self) -> ArmedError:
        if not self._token[0]:
            return ForeignProcess("this process was forked by the child: it does not share its slot; leave it alone")
        if get_ident() != self._thread:
            return WrongThread("only the child's main thread engages, takes and gives back: do it there")
        if self._is_open:
            return AlreadyArmed("this child is engaged: end that block first; hold more things in it with hold.take()")
        return StillArmed("an earlier block did not give everything back: the child stays armed; let it end")

    def _obey(self, frame: FrameType | None = None) -> None:
        """Leave, if a stop signal came, unless a call is under way that must not be interrupted.

        Called after each such call, so that a `StillArmed` does not take the place of the `SystemExit` for good.
        """
        if not self._must_stop:
            return
        frame = frame or sys._getframe(1)
        while frame is not None:
            if frame.f_code in UNINTERRUPTED:
                return
            frame = frame.f_back
        raise SystemExit(1)


class WithoutSlot(Engager):
    """What a child without a slot gets as `me`: there is no switch to arm, and nothing is taken."""

    __slots__ = ()

    def engage(self) -> Engager:
        """Raise `NotArmed`."""
        raise NotArmed("this child has no slot, so nothing would notice its end: take shared resources in others")


_UNKNOWN_FAILURE: Final = RuntimeError("a take or a give-back was interrupted")

UNINTERRUPTED: Final[set[CodeType]] = {Engager._ask.__code__, Engager._end.__code__}
"""Code during which a stop signal is only noted. The stack says truly what is under way; a counter could get stuck."""


def _is_dropped(frame: FrameType | None) -> bool:
    """Whether an exception out of this frame goes nowhere: in a finalizer, or a callback of the garbage collector."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code in callbacks:
            return True
        frame = frame.f_back
    return False
