"""Early warning: the kernel rings a bell as soon as an armed child's main thread dies, before it frees its memory.

That takes 0.2 ms, while the pidfd of a child that has 1 GiB reports after 70. A ring is a hint and decides nothing: the
supervisor looks who is exiting, and where there is no bell it learns the same later.

A thread tells the kernel which futex word it is about to take (`list_op_pending` of its robust list). When it dies with
one there that is 0, the kernel wakes who waits for that word, and writes nothing. The bell is such a word, one for all
children; to arm it is one store into memory of the child's own, to disarm it another. A process that the child forks
inherits the store and rings falsely; a robust mutex of the C library (LMDB has one) that the armed thread takes
displaces it, so that nothing rings. The supervisor waits by io_uring, in its epoll set: no thread, no cost at rest.

Who rings goes on dying, and the supervisor may be woken on the same processor: it would run after that, and have heard
nothing early. So while it waits its slice is short: who has a shorter one runs first (Linux 6.12). No share is larger.
Source: Linux, handle_futex_death (5.5), io_uring's FUTEX_WAIT (6.7), PREEMPT_SHORT (6.12); get_robust_list(2),
io_uring_setup(2), sched_setattr(2).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import itertools
import logging
import mmap
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from armed.errors import Unsupported

with contextlib.suppress(ImportError):  # a Python that was built without it: looked at below
    import ctypes

__all__ = ["MUTE", "Bell", "Deaf", "Ear", "Rope", "Wanted", "hang_bell", "is_exiting"]

_LOG: Final = logging.getLogger("armed")
Wanted = Literal["auto", "on", "off"]

_NUMBERS: Final = {  # of system calls
    "x86_64": {"mprotect": 10, "get_robust_list": 274, "sched_setattr": 314, "sched_getattr": 315,
               "io_uring_setup": 425, "io_uring_enter": 426},
    "aarch64": {"mprotect": 226, "get_robust_list": 100, "sched_setattr": 274, "sched_getattr": 275,
                "io_uring_setup": 425, "io_uring_enter": 426},
}  # fmt: skip
_NO_MMAP: Final = 1 << 14  # the queues are in memory of ours: one descriptor, and nothing to map
_FUTEX_WAIT: Final = 51
_SHARED_32_BITS: Final = 2
_WOKEN_BY_ANYBODY: Final = 0xFFFFFFFF
_32_BITS: Final = 0xFFFFFFFF
_PF_EXITING: Final = 4
_SCHED_ATTR: Final = struct.Struct("=IIQiIQQQ")  # its size, the policy, flags, nice, priority, the slice in ns, ...
_SCHED_OTHER: Final = 0
_SHORT: Final = 100_000
"""The shortest slice that the kernel gives, in nanoseconds."""


class Deaf(Unsupported):
    """The bell cannot be heard, or cannot be heard any more."""


@dataclass(frozen=True)
class Rope:
    """What a child holds of the bell: `end[0] = pull` arms it, `end[0] = 0` disarms it."""

    end: memoryview
    pull: int


MUTE: Final = Rope(memoryview(bytearray(8)).cast("Q"), 0)
"""The rope of no bell."""


def hang_bell(wanted: Wanted, start_method: str = "fork") -> tuple[Bell | None, str]:
    """Return a bell and "on", or None and "off: ..." saying why. Raises `Unsupported` if it must be on and cannot."""
    if wanted not in get_args(Wanted):
        raise ValueError(f"early_warning is {wanted!r}: give one of {', '.join(get_args(Wanted))}")
    if wanted == "off":
        return None, "off: it was not wanted"
    try:
        if start_method != "fork":
            raise Unsupported("the bell is in memory that only a fork inherits")
        return Bell(), "on"
    except (Unsupported, OSError) as error:
        if wanted == "on":
            raise Unsupported(f'there is no early warning here: {error}; early_warning="auto" goes without') from error
        _LOG.info("early warning is off: %s", error)
        return None, f"off: {error}"


def is_exiting(pid: int) -> bool:
    """Whether the main thread of an unreaped child will execute nothing any more. False if nobody can say."""
    try:
        with io.FileIO(f"/proc/{pid}/stat") as file:
            stat = file.read()
    except OSError:
        return False
    return bool(int(stat[stat.rindex(b")") + 1 :].split()[6]) & _PF_EXITING)


class Bell:
    """The futex word and how it is rung. Raises `Unsupported` or `OSError` where there can be none."""

    __slots__ = ("_address", "_of_thread", "_page", "ear")

    def __init__(self) -> None:
        if os.uname().machine not in _NUMBERS or sys.maxsize < 1 << 32 or "ctypes" not in sys.modules:
            raise Unsupported("it needs x86-64 or aarch64, and ctypes")
        if os.readlink("/proc/self") != str(os.getpid()):
            raise Unsupported("/proc shows the processes of another namespace")
        self._of_thread: Final = threading.local()  # its rope, and its usual slice while it has a short one
        self._page: Final = mmap.mmap(-1, mmap.PAGESIZE)  # shared with all children forked later
        self._address: Final = _address_of(self._page)
        # A stray write harms who writes: with another value the bell would not ring, and nobody could wait for it.
        if _call("mprotect", self._address, mmap.PAGESIZE, mmap.PROT_READ) < 0:
            raise Unsupported(_failure_of("mprotect"))
        if self.rope() is MUTE:
            raise Unsupported("this C library registers no robust list")
        self.ear: Final = Ear(self._address)

    def rope(self) -> Rope:
        """Return the rope for a child that the calling thread forks next: in the child that is the main thread.

        Its robust list is where this thread's is, which is found out once: in a child each page that is touched counts.
        """
        self._restore_slice()
        try:
            rope: Rope = self._of_thread.rope
        except AttributeError:
            rope = self._of_thread.rope = self._find_rope()
        return rope

    def _find_rope(self) -> Rope:
        answers = (ctypes.c_long * 2)()
        answer = ctypes.addressof(answers)
        failed = _call("get_robust_list", 0, answer, answer + 8)
        head = answers[0]
        if failed or not head:
            return MUTE
        # struct robust_list_head: the list; how far from an entry its futex word is; list_op_pending, an entry.
        distance = ctypes.c_long.from_address(head + 8).value
        pending = memoryview(ctypes.c_ulong.from_address(head + 16))
        return Rope(pending.cast("B").cast("Q"), self._address - distance)

    def wait(self, wait: Callable[[float], list[int]], seconds: float) -> list[int]:
        """Return what `wait(seconds)` does, with a short slice meanwhile: what it says is ready may be the bell.

        Then the slice stays short until the next call, as who has rung is still dying. A fork is for the usual one.
        """
        ready: list[int] = []
        try:
            if seconds > 0:
                self._shorten_slice()
            ready = wait(seconds)
            return ready
        finally:
            if self.ear.number not in ready:
                self._restore_slice()

    def _shorten_slice(self) -> None:
        """Do nothing where the kernel knows no slices, or this thread has another policy than the usual one."""
        usual = _slice_of_this_thread()
        if usual > _SHORT:
            self._of_thread.usual = usual
            _set_slice(_SHORT)

    def _restore_slice(self) -> None:
        usual = getattr(self._of_thread, "usual", 0)
        if usual:
            if _slice_of_this_thread() == _SHORT:  # else somebody has chosen another one, or a policy, meanwhile
                _set_slice(usual)
            self._of_thread.usual = 0

    def close(self) -> None:
        """Free what the supervisor has of it. Harmless when repeated."""
        self._restore_slice()
        self.ear.close()
        self._page.close()


def _slice_of_this_thread() -> int:
    """Return nanoseconds; 0 where the kernel knows no slices, or the policy is not the usual one."""
    _, policy, _, _, _, its_slice, *_ = _SCHED_ATTR.unpack(_scheduling())
    return int(its_slice) if policy == _SCHED_OTHER else 0


def _set_slice(its_slice: int) -> None:
    """Change the slice of this thread, and nothing else of its scheduling."""
    size, policy, flags, nice, priority, _, *rest = _SCHED_ATTR.unpack(_scheduling())
    changed = bytearray(_SCHED_ATTR.pack(size, policy, flags, nice, priority, its_slice, *rest))
    _call("sched_setattr", 0, _address_of(changed), 0)


def _scheduling() -> bytearray:
    """Return this thread's struct sched_attr; nothing but zeros, so no slice, where the system does not tell."""
    attributes = bytearray(_SCHED_ATTR.size)
    _call("sched_getattr", 0, _address_of(attributes), len(attributes), 0)
    return attributes


class Ear:
    """Waits by io_uring for a futex word that is 0: `file` is readable when the waiter has been woken.

    Questions and answers are counted in the queues themselves, so that each step may be taken again after an exception
    of a signal handler.
    """

    __slots__ = ("_answered", "_asked", "_heard", "_queues", "_results", "_taken", "_words", "file", "number")

    def __init__(self, address: int) -> None:
        # Private, and the kernel holds these pages: a fork copies them, so that no child can write into ours.
        self._queues: Final = mmap.mmap(-1, 2 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._words: Final = memoryview(self._queues).cast("I")
        queues, parameters = _address_of(self._queues), bytearray(120)  # struct io_uring_params
        struct.pack_into("=8xI60xQ32xQ", parameters, 0, _NO_MMAP, queues + mmap.PAGESIZE, queues)
        question = (_FUTEX_WAIT, _SHARED_32_BITS, 0, address, _WOKEN_BY_ANYBODY)  # struct io_uring_sqe: the only one
        struct.pack_into("=B3xiQQ24xQ", self._queues, mmap.PAGESIZE, *question)
        opened: list[io.FileIO] = []
        try:
            # One call of C code opens and records, as in Watch.add.
            setup = itertools.starmap(_syscall(), (_arguments("io_uring_setup", 1, _address_of(parameters)),))
            opened.extend(map(io.FileIO, setup, ("r+",)))
        except ValueError:  # -1 is no descriptor
            raise Deaf(_failure_of("io_uring_setup")) from None
        self.file: Final = opened[0]
        self.number: Final = self.file.fileno()
        # Where in the queues these are, in words: how many questions the kernel has taken and we have asked, how many
        # answers we have heard and it has given, and the answers.
        self._taken, self._asked = (at // 4 for at in struct.unpack_from("2I", parameters, 40))
        self._heard, self._answered = (at // 4 for at in struct.unpack_from("2I", parameters, 80))
        self._results: Final = struct.unpack_from("I", parameters, 100)[0] // 4
        try:
            self._ask()
            if self._words[self._answered]:
                raise Deaf("io_uring waits for futexes from Linux 6.7 on")
        except BaseException:
            self.close()
            raise

    def rings(self) -> Iterator[None]:
        """Go on listening; yield, if it has rung, for one ring. Raises `Deaf` if that is not possible any more.

        It is crossed off when the caller is done with it: after an exception it will be yielded again. One, as the next
        may come before he is done, again and again.
        """
        words = self._words
        if (heard := words[self._heard]) != words[self._answered]:
            self._ask()  # first, so that what rings from here on is another answer
            error = -words[self._results + 4 * (heard & 1) + 2] & _32_BITS  # of a struct io_uring_cqe
            if error not in (0, errno.ECANCELED):  # that is the end of the thread that asked
                raise Deaf(f"waiting for the futex: {os.strerror(error)}")
            if error == 0:
                yield
            words[self._heard] = (heard + 1) & _32_BITS

    def close(self) -> None:
        """Listen no more. Harmless when repeated."""
        self.file.close()
        self._words.release()
        self._queues.close()

    def _ask(self) -> None:
        words = self._words
        if words[self._asked] == words[self._answered]:
            words[self._asked] = (words[self._asked] + 1) & _32_BITS
        if words[self._taken] != words[self._asked] and _call("io_uring_enter", self.number, 1) < 0:
            raise Deaf(_failure_of("io_uring_enter"))


@functools.cache
def _syscall() -> Callable[..., int]:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.argtypes, function.restype = (ctypes.c_long,) * 7, ctypes.c_long
    return cast("Callable[..., int]", function)


def _arguments(name: str, *arguments: int) -> tuple[int, ...]:
    return (_NUMBERS[os.uname().machine][name], *arguments, *(0,) * (6 - len(arguments)))


def _call(name: str, *arguments: int) -> int:
    return _syscall()(*_arguments(name, *arguments))


def _failure_of(name: str) -> str:
    return f"{name}: {os.strerror(ctypes.get_errno())}"


def _address_of(memory: mmap.mmap | bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
