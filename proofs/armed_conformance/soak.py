"""Many lives with random ends under one supervisor: afterwards there is as much of everything as there was before."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from armed import EventKind, NotRunning, SlotsExhausted, Supervisor
from armed_conformance import calls

LIMIT: Final = 30.0
SLOTS: Final = 16
WARM_UP: Final = 500
"""Lives before the memory is looked at first: until then the interpreter and the C library fill their caches."""
GROWTH: Final = 2 << 20
"""Bytes by which the resident memory may have grown, whatever the number of lives."""


@dataclass(frozen=True)
class Holdings:
    """What there is of everything."""

    slots: int
    descriptors: int
    children: int
    threads: int
    names: frozenset[str]  # in /dev/shm
    resident: int  # bytes


@dataclass
class Balance:
    """What there was before and after, and what happened between."""

    lives: int
    before: Holdings
    after: Holdings
    deaths: Counter[str] = field(default_factory=Counter)
    recoveries: int = 0
    seconds: float = 0.0

    @property
    def differences(self) -> list[str]:
        """Name what there is more or less of than before."""
        wrong = [
            f"{name}: {getattr(self.before, name)} before, {getattr(self.after, name)} after"
            for name in ("slots", "descriptors", "children", "threads", "names")
            if getattr(self.before, name) != getattr(self.after, name)
        ]
        if self.growth > GROWTH:
            wrong.append(f"resident memory has grown by {self.growth:,} bytes")
        if (ended := sum(self.deaths.values())) != self.lives:
            wrong.append(f"{self.lives} lives, and {ended} deaths")
        return wrong

    @property
    def growth(self) -> int:
        """How many bytes of resident memory there are more."""
        return self.after.resident - self.before.resident


def _holdings(sup: Supervisor) -> Holdings:
    gc.collect()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * mmap.PAGESIZE
    with open(f"/proc/self/task/{threading.main_thread().native_id}/children") as file:
        children = len(file.read().split())
    return Holdings(
        len(sup.slots.in_use()), len(os.listdir("/proc/self/fd")), children, threading.active_count(),
        frozenset(calls.names()), resident,
    )  # fmt: skip


def _live(me: Any, shared: mmap.mmap, end: str, times: int, seconds: float) -> None:
    """Engage some times, take and give back, and end."""
    for _ in range(times):
        with me.engage() as hold:
            hold.take(lambda: shared.__setitem__(me.slot, 1), lambda: shared.__setitem__(me.slot, 0))
    time.sleep(seconds)
    if end.endswith("armed"):
        me.engage().__enter__().take(lambda: shared.__setitem__(me.slot, 1), lambda: shared.__setitem__(me.slot, 0))
    match end.split(",")[0]:
        case "_exit(0)":
            os._exit(0)
        case "_exit(1)":
            os._exit(1)
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sys.exit(1)":
            sys.exit(1)
        case "sys.exit(2)":
            sys.exit(2)


_ENDS: Final = {
    "return": 60, "return, armed": 10, "sys.exit(1)": 10, "_exit(0)": 10, "_exit(1)": 5, "_exit(0), armed": 2,
    "_exit(1), armed": 1, "SIGKILL": 1, "SIGKILL, armed": 1, "sys.exit(2)": 1,
}  # fmt: skip
"""How a life ends, and how often. What is armed and returns is given back on the exit path."""


def soak(lives: int, seed: int, progress: Callable[[int], None] = lambda _: None) -> Balance:
    """Let so many children live and die; return what there was before and after."""
    drawn = random.Random(seed)
    began = time.perf_counter()
    with Supervisor(SLOTS, lambda: mmap.mmap(-1, mmap.PAGESIZE), restart_limit=None, stop_after=LIMIT) as sup:
        _let_live(sup, min(WARM_UP, lives), drawn, lambda _: None)
        balance = Balance(lives, _holdings(sup), _holdings(sup))
        balance.deaths = _let_live(sup, lives, drawn, progress)
        balance.recoveries = balance.deaths.pop("recoveries", 0)
        balance.after = _holdings(sup)
    balance.seconds = time.perf_counter() - began
    return balance


def _let_live(sup: Supervisor, lives: int, drawn: random.Random, progress: Callable[[int], None]) -> Counter[str]:
    """Start children as long as there is room, until so many have lived; return how they were decided."""
    seen: Counter[str] = Counter()
    left = lives
    until = time.monotonic() + LIMIT
    while left or sup.children:
        with contextlib.suppress(SlotsExhausted, NotRunning):
            while left:
                (end,) = drawn.choices([*_ENDS], [*_ENDS.values()])
                sup.start(_live, end, drawn.randrange(4), drawn.random() * 0.002)
                left -= 1
        for event in sup.step(LIMIT):
            until = time.monotonic() + LIMIT
            seen["recoveries"] += event.kind is EventKind.RUNNING
            seen[event.kind.value] += event.is_end
        if time.monotonic() > until:
            raise TimeoutError(f"nothing happened for {LIMIT} s with {len(sup.children)} children")
        progress(lives - left)
    sup.run(LIMIT)
    return +seen
