"""Crash points: a child ended or interrupted, and a supervisor killed, before each bytecode instruction in turn.

Each point is a life of its own, of real processes, judged by a resource of this module's own: a page of shared memory,
that a child changes when it takes and gives back, in two stores each, so that half of it can be done. A child that has
taken, or given back half, must be decided a crash; one that was not engaged must not. A supervisor that is killed
leaves no process and no name in /dev/shm.

Instructions are counted by `sys.monitoring` from Python 3.12 on and by a trace function before. Traces lie, silently:
so each sweep says how many there were, and that a child's decision flips where it must.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

from armed import Decision, Engager, EventKind, Supervisor, early, engagement, exits, launch, recovery, registry
from armed import slots as slot_table
from armed import supervisor as supervision
from armed_conformance import calls, crash_targets
from armed_conformance.crash_targets import HELD, STAGE, TARGETS, clean, leave_armed, wait_for_ever

LIMIT: Final = 20.0
"""Seconds that any one life may take; the children of a killed supervisor have `ORPHANS_END_WITHIN`."""

ORPHANS_END_WITHIN: Final = 5.0

FEWEST_OF_A_CHILD: Final = 200
FEWEST_OF_A_SUPERVISOR: Final = 5_000
"""Instructions that there are at the least: else the trace is not what it seems."""

FEWEST_TO_FLIP: Final = 20
"""With as many points some fall where a child is engaged, and some where it is not."""

_SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER
# In the shared page, beside what the targets write: whether the point was reached, whether in a take or a give-back,
# how many instructions there were, and where the point is.
_REACHED, _INSIDE, _COUNT, _WHERE = 32, 33, slice(40, 48), slice(64, 128)


class Trip:
    """Counts the instructions that this process executes in some functions, and acts before the nth.

    `again`: acts once more so many instructions later, if not 0; only where instructions are monitored, as a trace
    function that raises is called no more. Other processes, such as forked children, are left alone.
    """

    def __init__(self, codes: Iterable[CodeType], n: int, act: Callable[[FrameType], object], again: int = 0) -> None:
        self.codes, self.left, self.act, self.again = frozenset(codes), n, act, again
        self.count = 0

    def arm(self) -> None:
        """Begin, also in functions that are being executed already."""
        self.pid = os.getpid()
        if sys.version_info >= (3, 12):
            monitoring, tool = sys.monitoring, sys.monitoring.DEBUGGER_ID
            monitoring.use_tool_id(tool, "crash points")
            monitoring.register_callback(
                tool, monitoring.events.INSTRUCTION, lambda code, at: self._tick(sys._getframe(1))
            )
            for code in self.codes:
                monitoring.set_local_events(tool, code, monitoring.events.INSTRUCTION)
            return
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code in self.codes:
                frame.f_trace, frame.f_trace_opcodes = self._trace_instruction, True
            frame = frame.f_back
        sys.settrace(self._trace_call)

    def disarm(self) -> None:
        """Count no more. Harmless when repeated."""
        if sys.version_info < (3, 12):
            sys.settrace(None)
        elif sys.monitoring.get_tool(sys.monitoring.DEBUGGER_ID):
            for code in self.codes:
                sys.monitoring.set_local_events(sys.monitoring.DEBUGGER_ID, code, 0)
            sys.monitoring.free_tool_id(sys.monitoring.DEBUGGER_ID)

    def _trace_call(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code not in self.codes:
            return None
        frame.f_trace_opcodes = True
        return self._trace_instruction

    def _trace_instruction(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            self._tick(frame)
        return self._trace_instruction

    def _tick(self, frame: FrameType) -> None:
        if os.getpid() != self.pid:
            return
        self.count += 1
        self.left -= 1
        if self.left == 0:
            if self.again:
                self.left, self.again = self.again, 0
            else:
                self.disarm()
            self.act(frame)


@cache
def codes_of(*modules: ModuleType) -> frozenset[CodeType]:
    """Return the code of every function that is defined in the modules, also in their classes and functions."""
    found: set[CodeType] = set()
    for module in modules:
        classes = [value for value in vars(module).values() if isinstance(value, type)]
        for value in itertools.chain(vars(module).values(), *(vars(each).values() for each in classes)):
            function = getattr(value, "__wrapped__", getattr(value, "fget", value))
            code = getattr(getattr(function, "__func__", function), "__code__", None)
            pending = [code] if isinstance(code, CodeType) and code.co_filename == module.__file__ else []
            while pending:
                found.add(pending[-1])
                pending += [const for const in pending.pop().co_consts if isinstance(const, CodeType)]
    return frozenset(found)


def place(frame: FrameType) -> str:
    """Name a point: the function, and the offset of the instruction in it."""
    return f"{frame.f_code.co_name}+{frame.f_lasti}"


@dataclass(frozen=True)
class Sample:
    """Which points are taken: every `every`th, from `offset` on."""

    every: int = 1
    offset: int = 0

    def points(self) -> Iterator[int]:
        """Yield the numbers of the points, from 1."""
        return itertools.count(1 + self.offset % self.every, self.every)

    def __str__(self) -> str:
        if self.every == 1:
            return "every boundary"
        return f"every {self.every}th boundary, beginning with number {1 + self.offset % self.every}"


EVERY: Final = Sample()


@cache
def commit() -> str:
    """Return the commit of the source tree that this is run from, or "" where there is none. It is asked once."""
    return commit_now()


def commit_now() -> str:
    """Return what `commit` does, asked anew: somebody may check out another one."""
    # Of a tree that holds this file: where armed is installed in somebody's project, that has a commit, too.
    return _git("rev-parse", "HEAD") if _git("ls-files", "--", __file__) else ""


def changed() -> bool:
    """Whether files of the source tree differ from its commit, which then does not say what was run."""
    return bool(changes())


def changes() -> str:
    """Return how the files of the source tree differ from its commit; "" where they do not, or there is none."""
    return _git("diff", "HEAD") if commit() else ""


def _git(*arguments: str) -> str:
    call = ["git", "--no-optional-locks", "-C", os.path.dirname(__file__), *arguments]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(call, check=True, capture_output=True, text=True, timeout=LIMIT).stdout.strip()
    return ""


def sample_of_this_commit(every: int) -> Sample:
    """Return a sample that begins elsewhere at each commit, so that in time all points are taken."""
    return Sample(every, int(commit()[:8] or "0", 16))


@dataclass
class Sweep:
    """What became of one target under one ending, at each point taken."""

    name: str
    boundaries: int = 0
    points: int = 0
    flips: list[str] = field(default_factory=list)
    """Where the decision changes: the first point of each new decision."""
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        flips = f"; {', '.join(self.flips)}" if self.flips else ""
        return f"{self.name}: {self.points} of {self.boundaries} boundaries{flips}"


# --- A child ---------------------------------------------------------------------------------------------------------


class InterruptedByAlarmError(Exception):
    """What a handler of SIGALRM may raise: an Exception like any other."""


def _throw(error: BaseException) -> None:
    raise error


def _quietly(act: Callable[[], object]) -> None:
    """Strike a child that need not report on standard error what has come out of its target."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    act()


KILLS: Final[dict[str, Callable[[], object]]] = {
    "_exit(0)": partial(os._exit, 0),
    "_exit(1)": partial(os._exit, 1),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
}
RAISED: Final[dict[str, Callable[[], object]]] = {
    "SystemExit": lambda: _throw(SystemExit(0)),
    "KeyboardInterrupt": lambda: _throw(KeyboardInterrupt()),
    "MemoryError": lambda: _throw(MemoryError()),
    "Exception": lambda: _throw(InterruptedByAlarmError()),
    "SIGTERM": lambda: signal.raise_signal(signal.SIGTERM),
}
_ENTRY_AT_WORK: Final = {Engager._ask.__code__, Engager._give.__code__}  # a take or a give-back is under way


def child_codes(ending: str = "") -> frozenset[CodeType]:
    """Return the code of the child's side, and of what it takes and gives back.

    Without the latter where an Exception is raised: an acquire undoes itself before it raises one, and none could
    between its last instruction and its return.
    """
    return codes_of(engagement, launch) if ending == "Exception" else codes_of(engagement, launch, crash_targets)


class Prelude:
    """Called in a child before its exit path stands: from there on it is ended, or interrupted, before its nth step.

    With n = 0 it is left alone, and its steps are counted.
    """

    def __init__(
        self, memory: mmap.mmap, n: int, act: Callable[[], object], codes: Iterable[CodeType], again: int = 0
    ) -> None:
        self.memory, self.act = memory, act
        self.trip = Trip(codes, n or 1, self.strike if n else self.note, again if n else 1)

    def __call__(self) -> None:
        """Begin."""
        self.trip.arm()

    def note(self, frame: FrameType) -> None:
        """Count, and go on."""
        self.memory[_COUNT] = self.trip.count.to_bytes(8, "little")
        self.trip.again = 1

    def strike(self, frame: FrameType) -> None:
        """Say where this is, and end or interrupt."""
        self.memory[_REACHED] = 1
        self.memory[_WHERE] = place(frame).encode()[:64].ljust(64)
        at: FrameType | None = frame
        while at is not None:
            if at.f_code in _ENTRY_AT_WORK:
                self.memory[_INSIDE] = 1
            at = at.f_back
        self.act()


@dataclass(frozen=True)
class Life:
    """How one child ended that was struck at one point."""

    where: str
    decision: Decision
    status: int
    held: bool  # by the harness's own resource: something is taken, or half given back
    inside: bool  # a take or a give-back was under way
    stage: int  # how far the target had come; 0 before it engages


def lives(
    target: Callable[..., object],
    act: Callable[[], object],
    codes: Iterable[CodeType],
    sample: Sample = EVERY,
    again: int = 0,
) -> Iterator[Life]:
    """Yield for each point in turn how a child ended that was struck there; return when there is none that far.

    Raises AssertionError for a child that does not end, or that comes back out of start() as a second supervisor.
    """
    memory, tester = mmap.mmap(-1, mmap.PAGESIZE), os.getpid()
    with contextlib.closing(memory), Supervisor(1, lambda: memory, restart_limit=None) as sup:
        for n in sample.points():
            memory[:] = bytes(mmap.PAGESIZE)
            try:
                child = sup._start(target, (), Prelude(memory, n, act, codes, again))
            finally:
                if os.getpid() != tester:
                    os._exit(99)
            sup.run(LIMIT)
            where = memory[_WHERE].decode().strip()
            if child.outcome is None:
                raise AssertionError(f"the child that was struck at {where} does not end")
            if not memory[_REACHED]:
                return
            yield Life(
                where, child.outcome.decision, child.outcome.status, any(memory[HELD]), bool(memory[_INSIDE]),
                memory[STAGE],
            )  # fmt: skip


def boundaries_of(target: Callable[..., object], codes: Iterable[CodeType]) -> int:
    """Return how many instructions a child executes that is left alone."""
    with contextlib.closing(mmap.mmap(-1, mmap.PAGESIZE)) as memory, Supervisor(1, lambda: memory) as sup:
        sup._start(target, (), Prelude(memory, 0, int, codes))
        sup.run(LIMIT)
        return int.from_bytes(memory[_COUNT], "little")


def sweep_child(target: str, ending: str, sample: Sample = EVERY) -> Sweep:
    """Strike a child with one of `KILLS` or `RAISED` at each point of the sample, and judge each death."""
    function, codes = TARGETS[target], child_codes(ending)
    sweep = Sweep(f"{target}, {ending}", boundaries_of(function, codes))
    last: Decision | None = None
    changes = 0
    for life in lives(function, partial(_quietly, (KILLS | RAISED)[ending]), codes, sample):
        sweep.points += 1
        if life.decision is not last:
            sweep.flips.append(f"{life.decision.value} from {life.where}")
            changes += last is not None
            last = life.decision
        if wrong := _wrong_with(life, ending):
            sweep.failures.append(f"{sweep.name} at {life.where}: {wrong}")
    if ending.startswith("_exit") and sample.every == 1 and changes != 2:
        sweep.failures.append(f"{sweep.name}: it is not armed on one interval: {sweep.flips}")
    # A tracer that sees a part only, or children that end before their time, would pass for a sweep.
    wanted = len(range(1 + sample.offset % sample.every, sweep.boundaries + 1, sample.every))
    if sweep.boundaries < FEWEST_OF_A_CHILD or sweep.points != wanted or not sweep.points:
        sweep.failures.append(f"{sweep.name}: {sweep.points} points, {wanted} wanted of {sweep.boundaries} boundaries")
    if ending.startswith("_exit") and len({flip.split()[0] for flip in sweep.flips}) < 2 and wanted > FEWEST_TO_FLIP:
        sweep.failures.append(f"{sweep.name}: all were decided alike: {sweep.flips}")
    return sweep


def _wrong_with(life: Life, ending: str) -> str:
    """Say what is wrong with a decision, by what the harness knows itself; "" if nothing is."""
    crash = life.decision is Decision.CRASH
    if ending == "SIGKILL":
        return "" if crash and life.status == -signal.SIGKILL else f"status {life.status} was decided {life.decision}"
    if life.status not in (0, 1):
        return f"it ended with status {life.status}"
    if life.held and not crash:
        return "something is held, or given back by half, and it was decided clean"
    if ending in KILLS:
        if life.stage in crash_targets.ENGAGED and not crash:
            return "it was engaged, and was decided clean"
        if life.stage in crash_targets.NOT_ENGAGED and crash:
            return "it was not engaged, and was decided a crash"
    elif ending == "SIGTERM":
        return "it was asked to end, and was decided a crash" if crash else ""
    elif crash and not life.inside and not life.held:
        return "nothing was asked and nothing is held, and it was decided a crash"
    return ""


# --- The supervisor --------------------------------------------------------------------------------------------------


def supervisor_codes() -> frozenset[CodeType]:
    """Return the code of the supervisor's side."""
    modules = [supervision, early, exits, slot_table, recovery, registry]
    if "armed.spawn" in sys.modules:
        modules.append(sys.modules["armed.spawn"])
    return codes_of(*modules)


def sweep_supervisor(
    start_method: str, sample: Sample = EVERY, progress: Callable[[int], None] = lambda _: None
) -> Sweep:
    """Kill a supervisor at each point of the sample: while it assigns, starts, reaps, recovers and closes.

    Each must leave no process, within `ORPHANS_END_WITHIN` seconds, and no new name in /dev/shm. The calling process
    must have no children: it adopts those of the killed one for the time.
    """
    sweep = Sweep(f"supervisor, {start_method}, SIGKILL")
    if start_method == "spawn":
        import armed.spawn  # noqa: F401 - so that it is counted, too
    names = calls.names()
    with _adopting():
        for n in itertools.chain((0,), sample.points()):
            count, failure = _kill_supervisor(start_method, n)
            if n == 0:
                sweep.boundaries = count
                if failure != "it was not killed":
                    sweep.failures.append(f"{sweep.name}: left alone, {failure}")
                continue
            if failure == "it was not killed":
                break
            sweep.points += 1
            progress(n)
            if failure:
                sweep.failures.append(f"{sweep.name} at boundary {n}: {failure}")
        if left := calls.names() - names:
            sweep.failures.append(f"{sweep.name}: left in /dev/shm: {sorted(left)}")
    # How many instructions there are depends on what comes when: by up to a fifth, on a machine with much to do.
    wanted = len(range(1 + sample.offset % sample.every, sweep.boundaries + 1, sample.every))
    missed = wanted - sweep.points
    if sweep.boundaries < FEWEST_OF_A_SUPERVISOR or not sweep.points or missed > max(1, wanted // 5):
        sweep.failures.append(f"{sweep.name}: {sweep.points} points, {wanted} wanted of {sweep.boundaries} boundaries")
    return sweep


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Become the parent of orphaned descendants."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    try:
        yield
    finally:
        prctl(_SUBREAPER, 0, 0, 0, 0)


def _kill_supervisor(start_method: str, n: int) -> tuple[int, str]:
    """Let one supervisor live until its nth instruction; return how many it executed, and what is wrong."""
    reader, writer = os.pipe()  # each process holds the write end: when none is left, the read end says so
    os.set_inheritable(writer, True)
    count = mmap.mmap(-1, mmap.PAGESIZE)
    ready: list[int] = []
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            trip = Trip(supervisor_codes() | codes_of(launch), n, lambda frame: os.kill(os.getpid(), signal.SIGKILL))
            trip.arm()
            _scenario(start_method)
            trip.disarm()
            count[:8] = trip.count.to_bytes(8, "little")
            status = 0
        finally:
            os._exit(status)
    try:
        try:
            os.close(writer)
            handle = os.pidfd_open(pid)
            with contextlib.closing(os.fdopen(handle, "rb", buffering=0)):
                ready, _, _ = select.select([handle], [], [], LIMIT)
        finally:  # also where Ctrl-C came
            if not ready:
                os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        failure = "" if ready else f"{LIMIT} s later it was not killed and had not ended"
        if not select.select([reader], [], [], ORPHANS_END_WITHIN)[0]:
            failure = f"somebody outlived it by {ORPHANS_END_WITHIN} s"
        if not failure and status != -signal.SIGKILL:
            failure = "it was not killed" if status == 0 else f"it ended with status {status}"
        if left := _reap_orphans():
            failure = f"{left} processes outlived it by {ORPHANS_END_WITHIN} s"
        return int.from_bytes(count[:8], "little"), failure
    except BaseException:
        _reap_orphans()
        raise
    finally:
        os.close(reader)
        count.close()


def _reap_orphans() -> int:
    """Reap the processes that were adopted; kill and count those that are still there after the limit."""
    until, left = time.monotonic() + ORPHANS_END_WITHIN, 0
    with contextlib.suppress(ChildProcessError):
        while True:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            if info is not None:
                continue
            if time.monotonic() > until:
                children = f"/proc/self/task/{os.getpid()}/children"
                with open(children) as file:
                    pids = [int(each) for each in file.read().split()]
                left += len(pids)
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
            time.sleep(0.0005)
    return left


def _scenario(start_method: str) -> None:
    """Assign, start, reap, recover, begin anew, and close."""
    with Supervisor(2, start_method=start_method, restart_limit=None) as sup:
        sup.start(wait_for_ever)
        sup.start(leave_armed, restart=True)  # armed in the first generation only
        until = time.monotonic() + LIMIT
        events: list[EventKind] = []
        while events.count(EventKind.EXITED) < 1 and time.monotonic() < until:
            events += [event.kind for event in sup.step(LIMIT)]
        sup.start(clean)
        sup.run(LIMIT)
