"""The registry: a shared array of the children, by which any process that has it can serve a cancel request.

The entry of a child stands at its slot's number, so that it is set, cleared and found without a search (claim C11). It
has three words: the child's pid, and two check words, 128 bits of a digest of pid and cancel key together. The entry
of slot 0, which is no slot, is the supervisor's own: its pid, and when it was started.

- A key is the slot's number and 128 random bits. The number makes finding an entry O(1); a search by pid would be
  stopped short by the first entry that somebody had scribbled that pid on.
- The array is shared and may be read and scribbled upon. Who reads it learns no key. No number in it is ever used as
  a pid: that of the request is, which must be right; and as the digest binds pid and key, no entry can be turned by a
  foreign pid upon another process. (A child that means harm needs no registry: it can call `os.kill`.)
- There is no lock. Each word is one aligned 8-byte store. Of an entry the pid is stored last and cleared first, so that
  it is there, or gone, with one store; check words of which one is another child's are no digest of any key.

Between "this entry has that pid" and the signal the child may be reaped, and its pid given to another process. So a
canceller matches the entry, opens a handle on the process that has the pid, and reads the entry **again**: the
supervisor clears an entry before it reaps the child, so if the entry is still there the pid was the child's when the
handle was opened. Only then does it signal, by the handle. PostgreSQL, which signals by pid, accepts that gap.
Source: PostgreSQL's ShmemBackendArray and processCancelRequest; the model's `_cancelling`.
"""

from __future__ import annotations

import contextlib
import hmac
import io
import mmap
import operator
import os
import signal
import struct
from hashlib import blake2s
from typing import Any, Final

from armed.errors import Closed
from armed.slots import WORD, check_size, sealed_file

with contextlib.suppress(ImportError):  # not a Unix; nothing below is called there
    import fcntl

__all__ = ["CANCEL_SIGNAL", "Registry", "cancel", "draw_key"]

CANCEL_SIGNAL: Final = getattr(signal, "SIGUSR1", signal.SIGTERM)
"""What a cancelled child gets. PostgreSQL's SIGINT would be taken for Ctrl-C, which comes to the whole process group,
and is ignored by whatever a shell starts in the background: there a request would do nothing."""

_ENTRY: Final = 3  # words
_SLOT: Final = 4  # bytes of a key, and so are the next
_RANDOM: Final = 16
_PIDS: Final = range(2, 1 << 31)  # 0, -1 and -n stand for groups and for everybody, 1 is init


def draw_key(slot: int) -> bytes:
    """Return a cancel key for the next child in this slot, which nobody can guess and no other child had."""
    return slot.to_bytes(_SLOT, "little") + os.urandom(_RANDOM)


class Registry:
    """The entries of slots 1 to `size`, in memory that forked children share and that can be handed on by descriptor.

    Whoever makes it is the supervisor, and alone calls `enter`, `clear` and `retire`. Pages of slots that were never
    used are never touched. Raises `ValueError` for a size below 1 or above `MAX_SLOTS`, `OSError` when there is no
    memory or descriptor.
    """

    __slots__ = ("_file", "_memory", "_words")

    def __init__(self, size: int) -> None:
        length = (check_size("size", size) + 1) * _ENTRY
        self._map(sealed_file("armed-registry", length), mmap.PROT_READ | mmap.PROT_WRITE)
        self._words[1] = _start_time(os.getpid()) or 0
        self._words[0] = os.getpid()

    @classmethod
    def attach(cls, descriptor: int) -> Registry:
        """Return the registry behind a descriptor that was handed on, to read it only; the descriptor is copied.

        For a process of the supervisor's PID namespace. Raises `ValueError` if it is no registry, `OSError`.
        """
        registry = cls.__new__(cls)
        file = io.FileIO(os.dup(descriptor))
        try:
            if os.fstat(descriptor).st_size % (_ENTRY * WORD) or not _is_sealed(descriptor):
                raise ValueError(f"descriptor {descriptor} is no registry: hand on what Registry.fileno() answers")
            registry._map(file, mmap.PROT_READ)
        except BaseException:
            file.close()
            raise
        return registry

    def _map(self, file: io.FileIO, protection: int) -> None:
        self._file = file
        self._memory = mmap.mmap(file.fileno(), 0, prot=protection)
        # As in SlotTable: an item is loaded and stored by one aligned 8-byte move.
        self._words = memoryview(self._memory).cast("Q")

    def fileno(self) -> int:
        """Return the descriptor to hand on. It is not inheritable by exec unless passed on purpose. Raises `Closed`."""
        if self._file.closed:
            raise Closed("this registry is closed: its generation is over; ask a living supervisor for its registry")
        return self._file.fileno()

    def __reduce__(self) -> tuple[Any, ...]:
        """For a child that is spawned: the memory is handed on by descriptor. Raises `Closed`."""
        from multiprocessing.reduction import DupFd  # it loads much, and is needed for this alone

        return _attach_what_was_handed_on, (DupFd(self.fileno()),)

    def enter(self, slot: int, pid: int, key: bytes) -> None:
        """Set the entry of a child that was forked and is not reaped. O(1). Raises `ValueError` when closed."""
        at = slot * _ENTRY
        self._words[at + 1], self._words[at + 2] = struct.unpack("=2Q", _digest(pid, key))
        self._words[at] = pid

    def clear(self, slot: int) -> None:
        """Clear the entry of a child that is not reaped yet. O(1). Harmless when repeated, and when closed."""
        at = slot * _ENTRY
        with contextlib.suppress(ValueError):  # closed: nobody is cancelled by it any more
            self._words[at] = 0
            self._words[at + 1] = 0
            self._words[at + 2] = 0

    def holds(self, pid: int, key: bytes) -> bool:
        """Whether there is, now, an entry of this pid and key. O(1). Never, when closed."""
        at = int.from_bytes(key[:_SLOT], "little") * _ENTRY
        try:
            if not _ENTRY <= at < len(self._words):
                return False
            entry = struct.pack("=3Q", self._words[at], self._words[at + 1], self._words[at + 2])
        except ValueError:  # closed, perhaps by another thread between two of these words
            return False
        return hmac.compare_digest(entry, struct.pack("=Q", pid) + _digest(pid, key))

    def is_kept(self) -> bool:
        """Whether the supervisor lives, which clears an entry before its pid is released; when it is dead nobody does.

        It is known by its pid and the moment of its start, to a hundredth of a second: not even a reused pid has both.
        (A supervisor's process that has become another program, by exec, is not told apart.)
        """
        try:
            pid, start = self._words[0], self._words[1]
        except ValueError:
            return False
        return pid in _PIDS and _start_time(pid) == start

    def retire(self) -> None:
        """Let no request be served from here on, whoever has the memory; free this process's part of it. Repeatable."""
        with contextlib.suppress(ValueError):  # it was done before
            self._words[0] = 0
        self.close()

    def close(self) -> None:
        """Free this process's mapping and descriptor; nothing changes for others. Harmless when repeated."""
        self._words.release()
        self._memory.close()
        self._file.close()


def _attach_what_was_handed_on(handed: Any) -> Registry:
    with io.FileIO(handed.detach()) as file:
        return Registry.attach(file.fileno())


def cancel(registry: Registry, pid: int, key: bytes) -> bool:
    """Send `CANCEL_SIGNAL` to the registered child with this pid and cancel key; return whether it was sent. O(1).

    For any process and thread, without a lock. A pid or a key that is wrong, stale or no longer in use signals nobody,
    and so does a request when the supervisor is dead or its registry closed. The child may end while it is being
    cancelled: the signal is lost then.

    An exit status that somebody else has taken, by an `os.wait()` in the supervisor's program, releases a pid before
    its entry is cleared: this is not seen. Raises `TypeError` for what is no number and no bytes, `OSError` when there
    is no descriptor left or the child is another user's: nobody was signalled.
    """
    if not isinstance(key, bytes):
        raise TypeError(f"a cancel key is bytes, this is a {type(key).__qualname__}: pass Child.cancel_key")
    pid = operator.index(pid)
    if pid not in _PIDS or not registry.holds(pid, key):
        return False
    handles: list[io.FileIO] = []
    try:
        # One call of C code, as in Watch.add.
        handles.extend(map(io.FileIO, map(os.pidfd_open, (pid,))))
        # In this order. Only a supervisor that lives has cleared the entries of those who are gone.
        if not registry.holds(pid, key) or not registry.is_kept():
            return False
        signal.pidfd_send_signal(handles[0].fileno(), CANCEL_SIGNAL)
    except ProcessLookupError:  # reaped in the meantime
        return False
    finally:
        for handle in handles:
            handle.close()
    return True


def _digest(pid: int, key: bytes) -> bytes:
    return blake2s(pid.to_bytes(WORD, "little") + key, digest_size=2 * WORD).digest()


def _is_sealed(descriptor: int) -> bool:
    try:
        return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:  # it is not memory
        return False


def _start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the machine did; None if it is dead. Source: proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
