"""Children that write anywhere in the slot table while the supervisor works: it must not fail, nor be deceived.

What is written: random words; words that mean something (0, 1, all ones); clean and active words of earlier
assignments. Not the clean value of an assignment that is in use: to copy that back is the one thing that is not found
out (assumption no_copy_back), which `copying_back` shows.
"""

from __future__ import annotations

import mmap
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from armed import Child, Decision, EventKind, NotRunning, SlotsExhausted, Supervisor
from armed.slots import active_word

LIMIT: Final = 20.0
SLOTS: Final = 8
BURST: Final = 2_000
"""Writes of one child, if it is not ended before."""
_MEANINGFUL: Final = (0, 1, 2**63, 2**64 - 1)


@dataclass
class Report:
    """What was written and what came of it."""

    writes: int = 0
    lives: int = 0
    armed_deaths: int = 0
    recoveries: int = 0
    false_alarms: int = 0
    """Children that had disarmed, and whose slot had been written to: decided a crash, which is safe."""
    failures: list[str] = field(default_factory=list)


def scribble(writes: int, seed: int, progress: Callable[[int], None] = lambda _: None) -> Report:
    """Let children write so many words into the table of a supervisor at work; return what came of it."""
    report, drawn = Report(), random.Random(seed)
    # The harness's own: two words for each living child, whether it is armed, and how much it has written.
    page = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    known: list[int] = [*_MEANINGFUL]  # and the words of earlier assignments
    places: dict[Child, int] = {}
    try:
        with Supervisor(SLOTS, restart_limit=None, stop_after=LIMIT) as sup:
            while report.writes < writes and not report.failures:
                _start_one(sup, places, page, known, drawn, report)
                _step(sup, places, page, known, drawn, report)
                progress(min(report.writes, writes))
            sup.run(LIMIT)
    except Exception as error:
        report.failures.append(f"the supervisor raised {error!r}")
    return report


def _start_one(
    sup: Supervisor, places: dict[Child, int], page: memoryview, known: list[int], drawn: random.Random, report: Report
) -> None:
    slots = sup.slots
    in_use = {child.slot for child in sup.children}
    words = [drawn.choice((drawn.choice(_MEANINGFUL), drawn.choice(known), drawn.getrandbits(64))) for _ in range(64)]
    targets = [drawn.randrange(1, SLOTS + 1) for _ in range(61)]
    writes, armed, leaves_armed = drawn.random() < 0.7, drawn.random() < 0.7, drawn.random() < 0.2
    place = min(set(range(0, len(page), 2)) - set(places.values()))
    page[place] = page[place + 1] = 0

    def target(me: Any, shared: Any) -> None:
        if writes:
            views = [slots.view(slot) for slot in targets]
            for i in range(BURST):
                views[i % 61][0] = words[i % 64]
                page[place + 1] = i + 1
        if armed:
            with me.engage():
                page[place] = 1
                if leaves_armed:
                    os._exit(0)
                page[place] = 0

    try:
        child = sup.start(target)
    except (SlotsExhausted, NotRunning):
        return
    if child.slot in in_use:
        report.failures.append(f"slot {child.slot} was given out twice")
    places[child] = place


def _step(
    sup: Supervisor, places: dict[Child, int], page: memoryview, known: list[int], drawn: random.Random, report: Report
) -> None:
    is_full = len(sup.children) == SLOTS or drawn.random() < 0.3
    until = time.monotonic() + LIMIT
    for event in sup.step(LIMIT if is_full else 0.0):
        report.recoveries += event.kind is EventKind.RUNNING
        child = event.child
        if not event.is_end or child is None or child.outcome is None:
            continue
        if child not in places:
            report.failures.append("the end of a child was told twice")
            continue
        outcome, place = child.outcome, places.pop(child)
        died_armed = bool(page[place])
        report.lives += 1
        report.writes += page[place + 1]
        report.armed_deaths += died_armed
        if outcome.decision is Decision.CLEAN:
            if died_armed:
                report.failures.append(f"a child left armed, its slot held {outcome.slot_word:#x}: decided clean")
            known[len(_MEANINGFUL) :] = [*known[len(_MEANINGFUL) :][-60:], outcome.slot_word]
            known.append(active_word(outcome.slot_word))
        elif outcome.status == 0 and not died_armed:
            report.false_alarms += 1
    if time.monotonic() > until:
        report.failures.append(f"the supervisor stood still for {LIMIT} s")


def copying_back() -> Decision:
    """Let a child leave armed, its own clean value copied back into its slot: return what is decided about it."""

    def target(me: Any, shared: Any) -> None:
        word = slots.view(me.slot)
        clean = word[0]
        with me.engage():
            word[0] = clean
            os._exit(0)

    with Supervisor(1) as sup:
        slots = sup.slots
        child = sup.start(target)
        sup.run(LIMIT)
        assert child.outcome is not None, "it did not end in time"
        return child.outcome.decision
