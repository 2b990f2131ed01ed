"""A look into a running PostgreSQL server: the slots of its children, read from its memory. Nothing is ever written.

The flags are the array `PMChildFlags` of the struct that PostgreSQL calls PMSignalState (`pmsignal.c`). Where it is in
shared memory says the server's own index of it (`ShmemIndex`, `shmem.c`); where in the struct the array is, its size:
no table of versions is needed, and a layout that does not add up is refused. What a child knows of itself (its slot,
its PGPROC) are exported variables of its own, found by the symbols of the program.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from armed_model.lifecycle import SlotState

STATES: Final = {0: SlotState.UNUSED, 1: SlotState.ASSIGNED, 2: SlotState.ACTIVE, 3: SlotState.WALSENDER}
"""What the values of a flag mean (PM_CHILD_UNUSED and so on); any other is foreign."""

_NAME: Final = b"PMSignalState\0"
_ENTRY: Final = struct.Struct("=48sQQQ")  # ShmemIndexEnt: key, location, size, allocated size
_SYMBOL: Final = struct.Struct("=IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
_SEARCHED: Final = 64 << 20  # bytes from the beginning of a mapping: the index is made first
_CHUNK: Final = 1 << 20
_LAST_OFFSET: Final = 256  # of the array in the struct: 40 in 15, 48 in 18
_MOST_SLOTS: Final = 1 << 22
_FEWEST_SLOTS: Final = 4  # a server has more, and a flag is at most 3
_QUIT_FOR_CRASH: Final = 1  # PMQUIT_FOR_CRASH
_DEAD: Final = frozenset("ZX")


class CannotLook(Exception):
    """The server's memory cannot be read or understood; the message says why, and what to do."""


class BeingMadeAnew(CannotLook):
    """The server has no shared memory now: it is making it anew, or has ended."""


class Child(NamedTuple):
    """A child of the postmaster, living or unreaped."""

    pid: int
    title: str
    """What it says it is, without `postgres: `; empty for one that is dead, or has just been forked."""
    dead: bool


class Process(NamedTuple):
    """A child of the postmaster, by what the system says of it."""

    pid: int
    started: int
    """When, in ticks since the boot: with the pid it names a process for ever."""
    dead: bool
    """Whether it has ended and is not reaped."""


class Exit(NamedTuple):
    """How a process that is not reaped yet has ended."""

    pid: int
    status: int
    """n for exit(n), -n for an end by signal n."""


def postmaster_of(data_directory: str | os.PathLike[str]) -> int:
    """Return the pid of the server that runs on a data directory. Raises CannotLook where none does."""
    directory = Path(data_directory)
    try:
        is_directory = directory.is_dir()
    except OSError as error:
        raise CannotLook(f"{directory}: {error.strerror}: be root, or the server's own user") from None
    if not is_directory:
        raise CannotLook(f"{directory} is no directory: give the data directory of a server (SHOW data_directory)")
    try:
        first = (directory / "postmaster.pid").read_text().split("\n", 1)[0]
    except FileNotFoundError:
        kind = "no server runs on it" if (directory / "PG_VERSION").exists() else "it is no data directory"
        raise CannotLook(f"{directory} has no postmaster.pid: {kind}") from None
    except OSError as error:
        raise CannotLook(f"{directory}: {error.strerror}: be root, or the server's own user") from None
    if not first.isdigit() or not Path(f"/proc/{first}").exists():
        raise CannotLook(f"{directory}/postmaster.pid names process {first}, which is not there: the server has ended")
    try:
        at_home = os.path.samefile(f"/proc/{first}/cwd", directory)
    except PermissionError:
        raise CannotLook(f"not allowed to look at process {first}: be root, or the server's own user") from None
    except OSError:
        at_home = False
    if not at_home:  # the file is left of another boot, or of a container, where other processes have these numbers
        raise CannotLook(f"{directory}/postmaster.pid names process {first}, which does not work there: no server here")
    return int(first)


class Server:
    """A running server, by the pid of its postmaster. Every look is a system call or a few; nothing is stopped."""

    def __init__(self, postmaster: int) -> None:
        """Find the slots. Raises CannotLook."""
        self.postmaster = postmaster
        self._program = _link(f"/proc/{postmaster}/exe")
        self._base = _base(postmaster, self._program)  # of each child, too: it is forked, and does not exec
        try:
            self._started = _process(postmaster).started
        except OSError as error:
            raise BeingMadeAnew(f"the postmaster (process {postmaster}) is not there: {error.strerror}") from None
        self._memory: int | None = None
        self._array = (0, 0)
        self.find()

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return self._array[1]

    def find(self) -> None:
        """Find the slots anew, after the server has made its shared memory anew. Raises CannotLook."""
        self.close()
        self._memory = _open(f"/proc/{self.postmaster}/mem")
        try:
            self._array = _find_array(self.postmaster, self._memory)
        except BaseException:
            self.close()
            raise

    @property
    def runs(self) -> bool:
        """Whether the postmaster lives."""
        try:
            process = _process(self.postmaster)
        except OSError:
            return False
        return process.started == self._started and not process.dead

    def generation(self) -> int:
        """Return a number that is another one once shared memory was made anew, though at the same place.

        Raises BeingMadeAnew.
        """
        for mapping in _mappings(self.postmaster):
            if mapping.start <= self._array[0] < mapping.end:
                return mapping.inode
        raise BeingMadeAnew(f"process {self.postmaster} has no shared memory now")

    def close(self) -> None:
        """Let go of the server."""
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None

    def flags(self) -> tuple[int, ...]:
        """Return the value of each flag now; that of slot 1 is the first. Raises BeingMadeAnew."""
        at, slots = self._array
        return struct.unpack(f"={slots}i", self.read(at, 4 * slots))

    def handles_crash(self) -> bool:
        """Whether the postmaster has told its children to leave because of a crash. Raises BeingMadeAnew.

        It says so to them in the struct, before the number of slots, and before it signals them (`sigquit_reason`, 14
        and later); the memory that is made after that says no again.
        """
        return int.from_bytes(self.read(self._array[0] - 8, 4), "little") == _QUIT_FOR_CRASH

    def address_of(self, slot: int) -> int:
        """Return where the flag of a slot is in the server's memory."""
        if not 1 <= slot <= self.slots:
            raise IndexError(f"slot {slot} of {self.slots}")
        return self._array[0] + 4 * (slot - 1)

    def read(self, address: int, count: int) -> bytes:
        """Read the postmaster's memory. Raises BeingMadeAnew where there is none."""
        if self._memory is None:
            raise BeingMadeAnew(f"the memory of process {self.postmaster} cannot be opened")
        return _read(self._memory, address, count)

    def processes(self, known: Iterable[int] = ()) -> list[Process]:
        """Return the postmaster's children now, in no order. Raises BeingMadeAnew where the postmaster has ended.

        The system's list may lack a child while another one ends (proc(5)): those with a pid in `known` are asked for
        one by one.
        """
        found = []
        for pid in {*known, *_children(self.postmaster)}:
            with suppress(OSError):  # it has just been reaped
                fields = _stat(pid)
                if int(fields[1]) == self.postmaster:
                    found.append(_process(pid, fields))
        return found

    def children(self) -> list[Child]:
        """Return the postmaster's children now, with their titles, in no order. Raises as `processes`."""
        return [Child(each.pid, title_of(each.pid), each.dead) for each in self.processes()]

    def exit_of(self, pid: int) -> Exit | None:
        """Return how a child has ended that is dead and not reaped; None for one that is neither. Raises OSError."""
        fields = _stat(pid)
        if fields[0] not in _DEAD:
            return None
        return Exit(pid, os.waitstatus_to_exitcode(int(fields[49])))

    def slot_of(self, pid: int) -> int:
        """Return the slot that a living child takes for its own; 0: none.

        To 17 auxiliary children have none, and an old number there.
        Raises CannotLook, and BeingMadeAnew where the child has ended.
        """
        return int.from_bytes(self.variable(pid, "MyPMChildSlot", 4), "little")

    def variable(self, pid: int, name: str, count: int) -> bytes:
        """Read a variable of the program in a living child. Raises as `slot_of`."""
        file = f"/proc/{self.postmaster}/exe"
        symbols = _symbols(self._program, _Same(file, os.stat(file).st_ino))
        if name not in symbols:
            raise CannotLook(f"{self._program} has no variable {name}: this is no PostgreSQL that is known here")
        memory = _open(f"/proc/{pid}/mem")
        try:
            return _read(memory, self._base + symbols[name], count)
        finally:
            os.close(memory)


def state_of(flag: int) -> SlotState:
    """Return what a flag's value means."""
    return STATES.get(flag, SlotState.FOREIGN)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise CannotLook(
            f"not allowed to read {path}: be root, or the server's own user with kernel.yama.ptrace_scope = 0"
        ) from None
    except OSError as error:
        raise BeingMadeAnew(f"{path}: {error.strerror}") from None


def _link(path: str) -> str:
    try:
        return os.readlink(path).removesuffix(" (deleted)")
    except PermissionError:
        raise CannotLook(f"not allowed to read {path}: be root, or the server's own user") from None
    except OSError as error:
        raise BeingMadeAnew(f"{path}: {error.strerror}: the server has ended") from None


def _read(memory: int, address: int, count: int) -> bytes:
    try:
        data = os.pread(memory, count, address)
    except PermissionError:
        raise CannotLook("not allowed to read the server's memory: be root") from None
    except (OSError, OverflowError) as error:
        raise BeingMadeAnew(f"there is no memory at {address:#x}: {error}") from None
    if len(data) != count:
        raise BeingMadeAnew(f"there is no memory at {address:#x}")
    return data


class _Mapping(NamedTuple):
    start: int
    end: int
    shared: bool
    offset: int
    inode: int
    path: str


def _mappings(pid: int) -> Iterator[_Mapping]:
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except PermissionError:
        raise CannotLook(f"not allowed to read /proc/{pid}/maps: be root, or the server's own user") from None
    except OSError as error:
        raise BeingMadeAnew(f"/proc/{pid}/maps: {error.strerror}") from None
    for line in lines:
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) \S+ (\d+) *(.*)", line)
        if found:
            start, end, offset = (int(found[group], 16) for group in (1, 2, 4))
            yield _Mapping(start, end, found[3].endswith("s"), offset, int(found[5]), found[6])


def _base(pid: int, program: str) -> int:
    for each in _mappings(pid):
        if each.offset == 0 and each.path.removesuffix(" (deleted)") == program:
            return each.start
    raise BeingMadeAnew(f"process {pid} does not run {program}, or has ended")


@dataclass(frozen=True)
class _Same:
    """A file, which is the same by whichever name."""

    path: str = field(compare=False)
    inode: int


@lru_cache(maxsize=8)
def _symbols(program: str, file: _Same) -> dict[str, int]:
    """Return the exported variables of a program, by name: where each is, from where the program is loaded."""
    try:
        with open(file.path, "rb") as opened:
            elf = ELFFile(opened)
            dynamic = elf.get_section_by_name(".dynsym")
            if not isinstance(dynamic, SymbolTableSection):
                raise CannotLook(f"{program} exports nothing")
            if elf.elfclass != 64:
                raise CannotLook(f"{program} is no program of 64 bits: unknown layout")
            base = min(each["p_vaddr"] for each in elf.iter_segments("PT_LOAD"))  # 0, if it may be loaded anywhere
            names = elf.get_section(dynamic["sh_link"]).data()
            # By hand: there are some ten thousand, and the library takes ten times as long.
            return {
                names[name : names.index(b"\0", name)].decode(): value - base
                for name, _, _, _, value, _ in _SYMBOL.iter_unpack(dynamic.data())
                if value
            }
    except OSError as error:
        raise CannotLook(f"cannot read {program}: {error.strerror}") from None


def _find_array(pid: int, memory: int) -> tuple[int, int]:
    """Return where the flags are, and how many. Raises CannotLook."""
    shared = [each for each in _mappings(pid) if each.shared and not each.path.startswith("/dev/shm/")]
    if not shared:
        raise BeingMadeAnew(f"process {pid} has no shared memory")
    for mapping in sorted(shared, key=lambda each: each.start - each.end):  # the largest first
        for entry in _entries(memory, mapping):
            _, location, size, _ = entry
            if mapping.start <= location < location + size <= mapping.end:
                return _array_in(memory, location, size)
    raise CannotLook(f"process {pid} has no PMSignalState in its shared memory: it is no postmaster of a known version")


def _entries(memory: int, mapping: _Mapping) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield what may be the entry of PMSignalState in the index of shared memory."""
    before = b""
    end = min(mapping.end, mapping.start + _SEARCHED)
    for at in range(mapping.start, end, _CHUNK):
        chunk = before + _read(memory, at, min(_CHUNK, end - at))
        base = at - len(before)
        position = chunk.find(_NAME)
        while position >= 0:
            if base + position + _ENTRY.size <= mapping.end:
                yield _ENTRY.unpack(_read(memory, base + position, _ENTRY.size))
            position = chunk.find(_NAME, position + 1)
        before = chunk[1 - len(_NAME) :]


def _array_in(memory: int, location: int, size: int) -> tuple[int, int]:
    """Find the array in the struct: its length stands before it, and it reaches to the struct's end.

    The first that fits is it: what stands before are words of 0, 1 or 2, but behind it the flag of the last slot but
    two may say 2, and two slots follow.
    """
    head = _read(memory, location, min(size, _LAST_OFFSET))
    for offset in range(4, len(head), 4):
        slots = int.from_bytes(head[offset - 4 : offset], "little")
        if 0 < slots <= _MOST_SLOTS and offset + 4 * slots == size:
            if slots < _FEWEST_SLOTS:
                break
            return location + offset, slots
    raise CannotLook(f"PMSignalState has {size} bytes, and no length in it fits: unknown layout")


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError as error:
        raise BeingMadeAnew(f"the postmaster (process {pid}) is not there: {error.strerror}") from None


def _stat(pid: int) -> list[str]:
    """Return what /proc says of a process, from its state on (field 3 of proc(5)). Raises OSError."""
    return _whole(f"/proc/{pid}/stat").rpartition(b")")[2].decode().split()


def _whole(path: str) -> bytes:
    """Read a small file of /proc by few system calls: there are two of each child in every look."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _process(pid: int, fields: list[str] | None = None) -> Process:
    fields = fields or _stat(pid)
    return Process(pid, int(fields[19]), fields[0] in _DEAD)


def title_of(pid: int) -> str:
    """Return what a server process says it is, without `postgres: `; empty for one that is dead or says nothing."""
    try:
        words = _whole(f"/proc/{pid}/cmdline").split(b"\0", 1)[0].decode(errors="replace")
    except OSError:
        return ""
    if not words.startswith("postgres: "):
        return ""
    words = words.removeprefix("postgres: ").strip()  # names of users and databases are in it, which may be anything
    return words if words.isprintable() else "".join(each if each.isprintable() else "?" for each in words)
