"""One conformance run: the directed histories, random ones, the floor of coverage; a report of what was seen."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from armed_conformance.adapters.armed import ArmedFork
from armed_conformance.histories import cells_wanted, deaths, play, stories
from armed_conformance.lockstep import Cell, Coverage, Mismatch
from armed_conformance.machine import run_histories
from armed_conformance.protocol import Implementation

ADAPTERS: dict[str, Callable[[], Implementation]] = {"armed:fork": ArmedFork}
"""The implementations that come with the kit, by the name that the command line takes."""


class UnknownTarget(ValueError):
    """There is no implementation of that name."""


@dataclass
class Report:
    """What a run has seen. It passes only if nothing differed and every cell that the target can reach was seen."""

    target: str
    seed: int | None
    coverage: Coverage = field(default_factory=Coverage)
    directed: int = 0
    wanted: int = 0
    missing: list[Cell] = field(default_factory=list)
    cannot: list[str] = field(default_factory=list)
    mismatch: str | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the implementation agreed with the model everywhere that had to be visited."""
        return self.mismatch is None and not self.missing and self.coverage.histories > 0

    def as_json(self) -> dict[str, Any]:
        """Return the report in the published format."""
        seen = self.coverage
        return {
            "target": self.target,
            "passed": self.passed,
            "seed": self.seed,
            "histories": seen.histories,
            "directed": self.directed,
            "steps": seen.steps,
            "refusals": seen.refusals,
            "deaths": dict(sorted(seen.deaths.items())),
            "armed_deaths": seen.armed_deaths,
            "decisions": dict(sorted(seen.decisions.items())),
            "recoveries": seen.recoveries,
            "cells_seen": self.wanted - len(self.missing),
            "cells_wanted": self.wanted,
            "cells_missing": [str(cell) for cell in self.missing],
            "cannot": self.cannot,
            "mismatch": self.mismatch,
            "seconds": round(self.seconds, 2),
        }


def find(target: str) -> Callable[[], Implementation]:
    """Return what makes the implementation called `target`: a name of ADAPTERS, or package.module:Class.

    Raises UnknownTarget with the names that there are.
    """
    if target in ADAPTERS:
        return ADAPTERS[target]
    module, _, name = target.partition(":")
    try:
        made: Callable[[], Implementation] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(ADAPTERS)
        raise UnknownTarget(f"no implementation {target!r} ({error}): give {known}, or package.module:Class") from error
    return made


def conform(
    target: str,
    histories: int,
    *,
    seed: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Report:
    """Hold an implementation to the model. `progress` is told what is going on: a phrase, how many of how many.

    A difference ends the run and is reported as a story, not raised. Raises UnknownTarget.
    """
    make = find(target)
    report = Report(target, seed)
    began = time.perf_counter()
    implementation = make()
    report.cannot = sorted(str(each) for each in implementation.cannot)
    wanted = cells_wanted(implementation)
    report.wanted = len(wanted)
    directed = [*stories(), *deaths()]
    name = ""
    try:
        for number, history in enumerate(directed):
            name = f"directed history: {history.name}\n"
            progress("directed histories", number, len(directed))
            play(history, make(), report.coverage)
            report.directed += 1
        name = ""
        before = report.coverage.histories
        run_histories(
            make,
            histories,
            report.coverage,
            seed=seed,
            on_history=lambda seen: progress("random histories", min(seen.histories - before, histories), histories),
        )
    except Mismatch as mismatch:
        report.mismatch = f"{name}{mismatch}"
    report.missing = sorted(wanted - set(report.coverage.cells))
    report.seconds = time.perf_counter() - began
    return report
