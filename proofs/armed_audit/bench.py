"""Benchmarks of the supervisor: each figure beside its floor and its peers, in one run.

Figures are of this machine, now; the ratios are what to quote. So that a ratio means something:

- Contenders take turns in random order, trial by trial: what else the machine does falls on all alike.
- Each has a process of its own (`bench_host`).
- A worker waits a random part of its peer's polling period before it dies: who polls is not met in step.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from armed import Supervisor
from armed_audit.bench_host import LIMIT

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Peer:
    """A library that does what the supervisor does: notice that a worker has died."""

    module: str
    period: float = 0.2  # seconds, at least as long as it waits between two looks
    share: float = 0.5  # of the trials


PEERS: Final = {
    "ProcessPoolExecutor": Peer("concurrent.futures", share=1.0),
    "loky": Peer("loky"),
    "Pebble": Peer("pebble"),
    "mpire": Peer("mpire"),
    "billiard": Peer("billiard", period=1.0, share=0.025),  # more than ten seconds each
}

FLOOR, ARMED, LATE, EXECUTOR = "pidfd", "armed", "armed, no early warning", "ProcessPoolExecutor"
RAW, ONE_FIRST, BY_HAND = "SIGKILL, wait, fork", "the same, one first", "armed, start()"
MEGABYTES: Final = {0: 1.0, 64: 0.25, 256: 0.125, 1024: 0.0625}
"""What a dying child has touched, with the share of the trials: 1 GiB takes seconds to touch."""
CHILDREN: Final = (2, 8, 32, 128)
MANY_AT_REST: Final = 64
SETTLE: Final = 0.2
"""Seconds from the beginning of a rest until it is looked at, and from there to its end."""


@dataclass(frozen=True)
class Extent:
    """How much is measured: deaths for each contender, the largest memory touched, the largest group, the peers."""

    trials: int = 80
    megabytes: int = 1024
    children: int = 128
    peers: tuple[str, ...] = tuple(PEERS)

    def of(self, share: float) -> int:
        """Return how many trials are such a share of them, at least one."""
        return max(1, math.ceil(self.trials * share))


@dataclass(frozen=True)
class Ratio:
    """A median divided by another one, that of the row `to`; of itself where `to` is empty."""

    to: str
    value: float
    target: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None if there is none."""
        return None if self.target is None else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        """Return the ratio in the published format."""
        return {"to": self.to or None, "value": round(self.value, 4), "target": self.target, "met": self.is_met}


@dataclass
class Row:
    """What was measured of one contender in one case."""

    topic: str
    case: str
    who: str
    unit: str
    samples: list[float] = field(default_factory=list)
    not_run: str = ""
    ratios: list[Ratio] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)

    def quantile(self, share: float) -> float:
        """Return the smallest sample that such a share of the samples does not exceed."""
        return sorted(self.samples)[max(0, math.ceil(share * len(self.samples)) - 1)]

    def as_json(self) -> dict[str, Any]:
        """Return the row in the published format; no figures where nothing was measured."""
        row: dict[str, Any] = {"case": self.case, "who": self.who, "unit": self.unit, "trials": len(self.samples)}
        if self.samples:
            figures = {"median": self.median, "p10": self.quantile(0.1), "p90": self.quantile(0.9)}
            figures |= {"min": min(self.samples), "max": max(self.samples)}
            row |= {name: round(value, 4) for name, value in figures.items()}
        return row | {"not_run": self.not_run or None, "ratios": [each.as_json() for each in self.ratios]}


class Rows:
    """The rows of one topic, by case and contender, in the order in which they were asked for."""

    def __init__(self, topic: str, unit: str) -> None:
        self._topic = topic
        self._unit = unit
        self._rows: dict[tuple[str, str], Row] = {}

    def row(self, case: str, who: str, unit: str = "") -> Row:
        """Return the row of a contender in a case, which may be new."""
        return self._rows.setdefault((case, who), Row(self._topic, case, who, unit or self._unit))

    def compare(self, case: str, who: str, to: str, target: float | None = None) -> None:
        """Put a contender's ratio to another one beside it, if both were measured."""
        row, other = self.row(case, who), self.row(case, to)
        if row.samples and other.samples and other.median:
            row.ratios.append(Ratio(to, row.median / other.median, target))

    def done(self) -> list[Row]:
        """Return all rows."""
        return list(self._rows.values())


# --- Processes that are measured -------------------------------------------------------------------------------------


class HostFailed(Exception):
    """A trial gave no figure; the message says why."""


class Host:
    """One contender's process, and everything that it starts: a session of its own, of which nothing is left."""

    def __init__(self, folder: Path) -> None:
        self._heard = b""
        with (folder / "stderr").open("ab") as errors:
            self._process = subprocess.Popen(
                # -P: what lies about in the working directory is no library.
                [sys.executable, "-P", "-c", "from armed_audit.bench_host import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C comes to us alone, and we end it
            )

    @property
    def pid(self) -> int:
        """The process that waits for the workers."""
        return self._process.pid

    def ask(self, do: str, **order: Any) -> Any:
        """Give an order and return its answer. Raises `HostFailed`."""
        try:
            _pipe(self._process.stdin).write(json.dumps({"do": do, **order}).encode() + b"\n")
            _pipe(self._process.stdin).flush()
        except OSError:
            raise HostFailed("its process has ended") from None
        return self.hear()

    def hear(self) -> Any:
        """Return the next answer. Raises `HostFailed`."""
        until = time.monotonic() + 2 * LIMIT  # what the host waits for has limits, too; they come first
        answers = _pipe(self._process.stdout).fileno()
        while b"\n" not in self._heard:
            if not select.select([answers], [], [], max(0.0, until - time.monotonic()))[0]:
                raise HostFailed(f"no answer for {2 * LIMIT:.0f} s")
            more = os.read(answers, 1 << 16)
            if not more:
                raise HostFailed("its process has ended")
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise HostFailed(answer["error"])
        return answer

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it end; if it does not, or something went wrong, end it and everything that it has started."""
        try:
            with contextlib.suppress(OSError):
                _pipe(self._process.stdin).close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0 if kind is None else 0.0)
        finally:
            self._end_session()
            _pipe(self._process.stdout).close()

    def _end_session(self) -> None:
        """Kill what is left, multiprocessing's trackers last: they end by themselves, and take names in /dev/shm away.

        Our own child is reaped last: until then no other session can have its number.
        """
        begun = time.monotonic()
        while (left := _session(self.pid)) and (elapsed := time.monotonic() - begun) < 10.0:
            for pid, command in left.items():
                if b"resource_tracker" not in command or elapsed > 5.0:
                    _kill(pid, self.pid)
            time.sleep(0.005)
        self._process.wait(5.0)


def _pipe(file: IO[bytes] | None) -> IO[bytes]:
    assert file is not None, "it was asked for"
    return file


def _session(number: int) -> dict[int, bytes]:
    """Return the living processes of a session, with their command lines."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _is_in_session(int(entry), number):
            with contextlib.suppress(OSError):
                found[int(entry)] = Path(f"/proc/{entry}/cmdline").read_bytes()
    return found


def _is_in_session(pid: int, number: int) -> bool:
    try:
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except (OSError, ValueError):
        return False
    return int(session) == number and state not in "ZX"


def _kill(pid: int, session: int) -> None:
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if _is_in_session(pid, session):  # looked at again: the number might be somebody else's by now
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


class Arena:
    """The hosts of one topic, and a file for the last words of those who die."""

    def __init__(self, contenders: Iterable[str]) -> None:
        self._contenders = list(contenders)
        self._hosts: dict[str, Host] = {}
        self._out: dict[str, str] = {}

    def __enter__(self) -> Arena:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="armed-bench-")))
            self._stamp = folder / "stamp"
            self._stamp.write_bytes(bytes(8))
            for who in self._contenders:
                self._hosts[who] = stack.enter_context(Host(folder))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def stamp(self) -> str:
        """The file for the last words."""
        return str(self._stamp)

    def host(self, who: str) -> Host:
        """Return the process of a contender."""
        return self._hosts[who]

    @contextlib.contextmanager
    def trial(self, row: Row) -> Iterator[bool]:
        """Say whether this contender is still in; one whose trial fails is out, and its row says why."""
        if (reason := self._out.get(row.who)) is not None:
            row.not_run = reason
            yield False
            return
        try:
            yield True
        except HostFailed as failure:
            self._out[row.who] = row.not_run = str(failure)


def _absent(peers: Sequence[str]) -> dict[str, str]:
    """Return the peers that cannot be measured, with the reason."""
    why = "not installed; do: pip install 'armed[bench]'"
    return {peer: why for peer in peers if find_spec(PEERS[peer].module) is None}


def _shuffled(plan: list[tuple[Any, str]]) -> list[tuple[Any, str]]:
    random.shuffle(plan)
    return plan


# --- Topics ----------------------------------------------------------------------------------------------------------


def detect(extent: Extent, progress: Progress) -> list[Row]:
    """From the last thing a worker does to the moment when whoever waits for it knows."""
    rows = Rows("detect", "ms")
    absent = _absent(extent.peers)
    with Supervisor() as supervisor:
        if supervisor.early_warning != "on":
            absent[LATE] = f"the same, early warning is {supervisor.early_warning}"
    shares = {FLOOR: 1.0, ARMED: 1.0, LATE: 1.0, **{peer: PEERS[peer].share for peer in extent.peers}}
    large = [who for who in (FLOOR, ARMED, LATE, EXECUTOR) if who in shares]
    plan: list[tuple[int, str]] = []
    for megabytes, part in MEGABYTES.items():
        for who in large if megabytes else shares:
            row = rows.row(_touched(megabytes), who)
            row.not_run = absent.get(who, "") or _too_large(megabytes, extent)
            if not row.not_run:
                plan += [(megabytes, who)] * extent.of(shares[who] * part)
    with Arena(who for who in shares if who not in absent) as arena:
        for number, (megabytes, who) in enumerate(_shuffled(plan), 1):
            progress(f"detect: {number} of {len(plan)}, {who}, {_touched(megabytes)}")
            row = rows.row(_touched(megabytes), who)
            delay = random.uniform(0.0, PEERS[who].period if who in PEERS else 0.2)
            with arena.trial(row) as is_in:
                if is_in:
                    answer = arena.host(who).ask("detect", who=who, stamp=arena.stamp, megabytes=megabytes, delay=delay)
                    row.samples.append(answer["ms"])
    for row in rows.done():
        if row.who == FLOOR:
            continue
        which = (row.case, row.who)
        rows.compare(*which, FLOOR, {(_touched(0), ARMED): 1.15, (_touched(1024), ARMED): 0.05}.get(which))
        if row.who in (ARMED, LATE) and EXECUTOR in shares:
            rows.compare(*which, EXECUTOR, 0.6 if which == (_touched(0), ARMED) else None)
    return rows.done()


def _touched(megabytes: int) -> str:
    return f"{megabytes} MB touched"


def _too_large(megabytes: int, extent: Extent) -> str:
    if megabytes > extent.megabytes:
        return f"left out by --memory {extent.megabytes}"
    if megabytes * 2 > (available := _available_megabytes()):
        return f"only {available} MB of memory are free"
    return ""


def _available_megabytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def engage(extent: Extent, progress: Progress) -> list[Row]:
    """An engagement in which nothing is taken, beside one existing lock, both with the loop around them."""
    rows = Rows("engage", "ns")
    case = "once"
    progress("engage: in a child")
    with Arena([ARMED]) as arena:
        row = rows.row(case, "with me.engage() as hold")
        try:
            measured = arena.host(ARMED).ask("engage", rounds=extent.of(2.0), loops=5000)
        except HostFailed as failure:
            row.not_run = str(failure)
            return rows.done()
    for who, samples in measured.items():
        rows.row(case, who).samples = samples
    rows.compare(case, "with me.engage() as hold", "with lock", 2.2)
    return rows.done()


def slots(extent: Extent, progress: Progress) -> list[Row]:
    """Giving out a slot and taking it back, in a small and in a large table; memory of slots that were never used."""
    rows = Rows("slots", "ns")
    progress("slots: 16 and 1,000,000")
    with Arena([ARMED]) as arena:
        try:
            measured = arena.host(ARMED).ask("slots", rounds=extent.of(1.0), loops=2000)
        except HostFailed as failure:
            rows.row("assign + release", "1,000,000 slots").not_run = str(failure)
            return rows.done()
    for case, ways in measured.items():
        for who, samples in ways.items():
            rows.row(case, who, "bytes a slot" if case == "memory" else "ns").samples = samples
    rows.compare("assign + release", "1,000,000 slots", "16 slots", 1.2)
    rows.compare("random, half in use", "1,000,000 slots", "16 slots")
    unused = rows.row("memory", "1,000,000 slots")
    unused.ratios.append(Ratio("", unused.median, 1.0))
    return rows.done()


def recover(extent: Extent, progress: Progress) -> list[Row]:
    """From the death of one of a group until all are gone, as many are started anew, and these are at work."""
    rows = Rows("recover", "ms")
    contenders = {RAW: "at once", ONE_FIRST: "one first", ARMED: "restart", BY_HAND: "start"}
    groups = [size for size in CHILDREN if size <= extent.children]
    plan = [(size, who) for size in groups for who in contenders for _ in range(extent.of(0.25))]
    with Arena(contenders) as arena:
        for size in groups:
            for until in ("at work", "started", "gone"):
                for who in contenders:
                    rows.row(_group(size, until), who)
        for number, (size, who) in enumerate(_shuffled(plan), 1):
            progress(f"recover: {number} of {len(plan)}, {who}, {size} children")
            with arena.trial(rows.row(_group(size, "at work"), who)) as is_in:
                if is_in:
                    order = {"how": contenders[who], "children": size, "delay": random.uniform(0.0, 0.05)}
                    for until, milliseconds in arena.host(who).ask("recover", **order).items():
                        rows.row(_group(size, until), who).samples.append(milliseconds)
    for size in groups:
        for until in ("at work", "started", "gone"):
            target = None if until == "gone" else 1.4 if size == 128 else 1.3
            rows.compare(_group(size, until), ARMED, RAW, target)
            rows.compare(_group(size, until), ARMED, ONE_FIRST)
            rows.compare(_group(size, until), BY_HAND, RAW)
    return rows.done()


def _group(size: int, until: str) -> str:
    return f"{size} children, {until}"


def rest(extent: Extent, progress: Progress) -> list[Row]:
    """How often a supervisor wakes up that waits for children of whom nothing is to be heard."""
    rows = Rows("rest", "wake-ups/s")
    absent = _absent(extent.peers)
    contenders = [(1, ARMED), *[(1, peer) for peer in extent.peers], (MANY_AT_REST, ARMED)]
    for children, who in contenders:
        rows.row(_children(children), who).not_run = absent.get(who, "")
    plan = [each for each in contenders if each[1] not in absent] * extent.of(0.0375)
    with Arena({who: None for _, who in plan}) as arena:
        for number, (children, who) in enumerate(_shuffled(plan), 1):
            progress(f"rest: {number} of {len(plan)}, {who}, {_children(children)}")
            row = rows.row(_children(children), who)
            with arena.trial(row) as is_in:
                if is_in:
                    row.samples.append(_wake_ups(arena.host(who), who, children, min(1.0, 0.1 * extent.trials)))
    for row in rows.done():
        if row.who == ARMED and row.samples:
            row.ratios.append(Ratio("", row.median, 0.0))
    return rows.done()


def _children(number: int) -> str:
    return "1 child" if number == 1 else f"{number} children"


def _wake_ups(host: Host, who: str, children: int, seconds: float) -> float:
    """Count from outside how often the threads of a host give up the processor while it waits, for each second."""
    host.ask("rest", who=who, children=children, seconds=SETTLE + seconds + SETTLE)
    heard = time.monotonic()
    time.sleep(random.uniform(0.5, 1.0) * SETTLE)
    began, before = time.monotonic(), _switches(host.pid)
    time.sleep(seconds)
    ended, after = time.monotonic(), _switches(host.pid)
    host.hear()
    if ended - heard > SETTLE + seconds + SETTLE:
        raise HostFailed("the machine is too busy: the rest was over before it had been looked at")
    return (after - before) / (ended - began)


def _switches(pid: int) -> int:
    """Return the voluntary context switches of all threads of a process."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
    return total


TOPICS: Final[dict[str, Callable[[Extent, Progress], list[Row]]]] = {
    "detect": detect, "engage": engage, "slots": slots, "recover": recover, "rest": rest,
}  # fmt: skip


# --- What is said of it ----------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Return what the figures are of: they mean nothing without it."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {name: found for name, peer in PEERS.items() if (found := _version(peer.module))},
    }


def _version(module: str) -> str:
    try:
        return version(module)
    except PackageNotFoundError:
        return ""


PLOTS: Final = (".svg", ".png")


def plot(rows: Sequence[Row], file: Path) -> None:
    """Draw medians with the tenth and the ninetieth percentile, a panel for each topic, and targets as strokes.

    Raises `ImportError` without matplotlib, `OSError` if the file cannot be written.
    """
    from matplotlib.figure import Figure

    measured = [row for row in rows if row.samples]
    panels = {
        topic: [row for row in measured if row.topic == topic] for topic in dict.fromkeys(r.topic for r in measured)
    }
    heights = [len(panel) + 2 for panel in panels.values()]
    figure = Figure(figsize=(10.0, 0.28 * sum(heights) + 0.5), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for (topic, panel), (axis,) in zip(panels.items(), axes, strict=True):
        medians = {(row.case, row.who): row.median for row in panel}
        for place, row in enumerate(panel):
            colour = "tab:blue" if row.who.startswith(("armed", "with me")) else "tab:gray"
            axis.plot([row.quantile(0.1), row.quantile(0.9)], [place, place], color=colour, linewidth=2)
            axis.plot([row.median], [place], "o", color=colour)
            for ratio in row.ratios:
                if ratio.target is not None:
                    base = medians[row.case, ratio.to] if ratio.to else 1.0
                    axis.plot([base * ratio.target], [place], "|", color="tab:red", markersize=12)
        axis.set_yticks(range(len(panel)), [f"{row.case}: {row.who}" for row in panel], fontsize=8)
        axis.invert_yaxis()
        axis.set_xscale("log" if all(min(row.samples) > 0 for row in panel) else "symlog")
        axis.set_title(f"{topic}, {panel[0].unit} (p10, median, p90; red: target)", fontsize=9, loc="left")
    figure.savefig(file)
