"""One conformance run: the directed histories, random ones, the floor of coverage; a report of what was seen."""

from __future__ import annotations

import importlib
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from armed_conformance import calls
from armed_conformance.adapters.armed import ArmedFork, ArmedSpawn
from armed_conformance.histories import History, actions_wanted, cells, cells_wanted, deaths, play, stories
from armed_conformance.lockstep import Cell, Coverage, DoesNotReturn, Mismatch, profile_of
from armed_conformance.machine import run_histories
from armed_conformance.protocol import Circumstance, ExitKind, Implementation, NotHere, Step
from armed_conformance.replay import shrink
from armed_model.profiles import Profile

ADAPTERS: dict[str, Callable[[], Implementation]] = {"armed:fork": ArmedFork, "armed:spawn": ArmedSpawn}
"""The implementations that come with the kit, by the name that the command line takes."""
POSTGRES = "postgres:"
"""What stands before the directory of a PostgreSQL server's programs in the name of a target."""


_CALLS = ("open", "start", "step", "end", "supervise", "stop_supervisor", "observe", "close")


class UnknownTarget(ValueError):
    """There is no implementation of that name, or what has that name is none."""


def draw_seed() -> int:
    """Return a seed for a run that was given none, so that it can be repeated."""
    return random.SystemRandom().randrange(1 << 32)


@dataclass(frozen=True, order=True)
class Untaken:
    """An action of the model that no directed history has taken, though each should be."""

    action: str

    def __str__(self) -> str:
        return f"the model's {self.action}"


@dataclass(frozen=True, order=True)
class Undeclared:
    """A directed history that was cut short by what the target has not declared that it cannot do."""

    history: str
    reason: str

    def __str__(self) -> str:
        return f"the end of {self.history!r}: it is not declared that the implementation cannot {self.reason}"


@dataclass
class Report:
    """What a run has seen. It passes only if nothing differed and all that the target can reach was seen.

    `missing`: cells never seen, actions of the model that no directed history has taken, and ends of directed histories
    that the target has not said it cannot reach; `cannot`: what it says it cannot do; `left_out` and `cut_short`: the
    cells and the directed histories that were not looked at for that reason.
    """

    target: str
    seed: int
    coverage: Coverage = field(default_factory=Coverage)
    directed: int = 0
    wanted: int = 0
    missing: list[Cell | Untaken | Undeclared] = field(default_factory=list)
    cannot: list[str] = field(default_factory=list)
    left_out: list[Cell] = field(default_factory=list)
    cut_short: list[str] = field(default_factory=list)
    mismatch: str | None = None
    failing: Mismatch | None = None
    """What differed, with the history that led there: `replay.save` keeps it."""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the implementation agreed with the model everywhere that had to be visited."""
        return self.mismatch is None and self.wanted > 0 and not self.missing and self.coverage.histories > 0

    def cells(self) -> dict[str, dict[str, int]]:
        """Return how often each situation has ended in each way; 0 is a cell that was wanted and not seen."""
        missing = [each for each in self.missing if isinstance(each, Cell)]
        found: dict[str, dict[str, int]] = {}
        for cell in sorted({*self.coverage.cells, *missing}):
            found.setdefault(cell.situation, {})[cell.exit_kind] = self.coverage.cells[cell]
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the report in the published format."""
        seen = self.coverage
        cells_missing = [str(each) for each in self.missing if isinstance(each, Cell)]
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
            "generations": seen.generations,
            "cells_seen": self.wanted - len(cells_missing),
            "cells_wanted": self.wanted,
            "cells_missing": cells_missing,
            "cells": self.cells(),
            "actions_missing": [each.action for each in self.missing if isinstance(each, Untaken)],
            "undeclared": [str(each) for each in self.missing if isinstance(each, Undeclared)],
            "cannot": self.cannot,
            "cells_left_out": [str(cell) for cell in self.left_out],
            "directed_cut_short": self.cut_short,
            "not_done": dict(sorted(seen.not_done.items())),
            "mismatch": self.mismatch,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class Replay:
    """What came of one history that was played again. `left_out`: how many orders could not be obeyed, by reason."""

    target: str
    history: str
    steps: int
    obeyed: dict[str, int]
    left_out: dict[str, int]
    mismatch: str | None

    @property
    def cannot(self) -> str | None:
        """What the target cannot do, where an order was left out."""
        done, left = sum(self.obeyed.values()), sum(self.left_out.values())
        return f"do {left} of {done + left} orders ({', '.join(self.left_out)})" if left else None

    @property
    def passed(self) -> bool:
        """Whether implementation and model went the same way, as far as a child could be ordered something."""
        is_empty = bool(self.left_out) and self.obeyed.keys() <= {"start", "supervise", "stop"}
        return self.mismatch is None and self.steps > 0 and not is_empty

    def as_json(self) -> dict[str, Any]:
        """Return the result in the published format."""
        return {**asdict(self), "cannot": self.cannot, "passed": self.passed}


def find(target: str) -> Callable[[], Implementation]:
    """Return what makes the implementation called `target`: a name of ADAPTERS, or package.module:Class.

    Raises UnknownTarget with the reason, and the names that there are, where it is not the class of an implementation;
    NotHere where it needs a package that is not installed.
    """
    if target in ADAPTERS:
        return ADAPTERS[target]
    if target.startswith(POSTGRES):
        return _postgres(target)
    if target.startswith("armed:"):
        raise _unknown(target, "there is none of that name")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", target):
        raise _unknown(target, "that is no name of this form")
    module, _, name = target.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever a module raises when it is imported
        raise _unknown(target, f"importing {module}: {type(error).__name__}: {error}") from error
    if not isinstance(made := getattr(found, name, None), type):
        raise _unknown(target, f"{module} has no class {name}")
    _check(target, made)
    return made


def _postgres(target: str) -> Callable[[], Implementation]:
    try:
        from armed_conformance.adapters.postgres import Postgres
        from armed_conformance.postgres.cluster import NoServer, profile_of
    except ImportError as error:
        raise NotHere(f"{target} needs {error.name}; do: pip install 'armed[postgres]'") from None
    bindir = target.removeprefix(POSTGRES)
    try:
        profile_of(bindir)
    except NoServer as error:
        raise UnknownTarget(str(error)) from None
    return partial(Postgres, bindir)


def _check(target: str, made: Callable[[], Any]) -> None:
    """Raise UnknownTarget where what is made lacks what the protocol demands of it."""
    before = calls.children()
    try:
        with calls.time_limit(calls.LIMIT):
            implementation = made()
            cannot = implementation.cannot
    except Exception as error:
        raise _unknown(target, f"making one without arguments: {type(error).__name__}: {error}") from error
    except calls.TookTooLong:
        raise _unknown(target, f"making one without arguments does not return within {calls.LIMIT:g} s") from None
    finally:
        begun = calls.children() - before
        calls.end_children(begun)
    if begun:
        raise _unknown(target, "making one without arguments begins a process: that is for `open`")
    needed = _CALLS if isinstance(cannot, Iterable) and set(Circumstance) <= set(cannot) else (*_CALLS, "arrange")
    if missing := [call for call in needed if not callable(getattr(implementation, call, None))]:
        raise _unknown(target, f"it has no {', '.join(missing)}")
    members = list(cannot) if isinstance(cannot, Iterable) else [cannot]
    if wrong := [each for each in members if not isinstance(each, Step | ExitKind | Circumstance)]:
        raise _unknown(target, f"its `cannot` has {wrong[0]!r}, which is no Step, ExitKind or Circumstance")
    if not isinstance(profile := profile_of(implementation), Profile):
        raise _unknown(target, f"its `profile` is {profile!r}, which is no Profile")
    if not isinstance(cannot, frozenset | set):
        raise _unknown(target, "its `cannot` is no set")
    if set(ExitKind) <= cannot:
        raise _unknown(target, "its `cannot` has every ExitKind, so there is nothing to look at")


def replay(target: str, history: History) -> Replay:
    """Play one history again. Raises UnknownTarget."""
    make = find(target)
    coverage = Coverage()
    mismatch = None
    try:
        play(history, make(), coverage)
    except Mismatch as difference:
        mismatch = str(difference)
    return Replay(target, history.name, coverage.steps, dict(coverage.obeyed), dict(coverage.not_done), mismatch)


def _unknown(target: str, why: str) -> UnknownTarget:
    why = " ".join(why.split())
    return UnknownTarget(
        f"no implementation {target!r} ({why}): give {', '.join(ADAPTERS)}, "
        f"{POSTGRES}BINDIR, or package.module:Class"
    )


def conform(
    target: str,
    histories: int,
    *,
    seed: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Report:
    """Hold an implementation to the model. `progress` is told what is going on: a phrase, how many of how many.

    Without a seed one is drawn; the report has it. A difference ends the run and is reported as a story, not raised.
    Raises UnknownTarget.
    """
    make = find(target)
    report = Report(target, draw_seed() if seed is None else seed)
    began = time.perf_counter()
    implementation = make()
    report.cannot = sorted(str(each) for each in implementation.cannot)
    wanted = cells_wanted(implementation)
    report.wanted = len(wanted)
    profile = profile_of(implementation)
    report.left_out = sorted(set(cells(profile)) - wanted)
    directed = [*stories(profile), *deaths(profile)]
    name = ""
    taken: set[str] = set()
    undeclared: list[Undeclared] = []
    try:
        for number, history in enumerate(directed):
            name = f"directed history: {history.name}\n"
            progress("directed histories", number, len(directed))
            reason = play(history, make(), report.coverage)
            if reason is None:
                report.directed += 1
            else:
                report.cut_short.append(history.name)
                undeclared += [Undeclared(history.name, reason)] if reason not in report.cannot else []
            taken = set(report.coverage.actions)
        name = ""
        before = report.coverage.histories
        run_histories(
            make,
            histories,
            report.coverage,
            seed=report.seed,
            on_history=lambda seen: progress("random histories", min(seen.histories - before, histories), histories),
        )
    except Mismatch as mismatch:
        if name and not isinstance(mismatch, DoesNotReturn):  # Hypothesis has shrunk its own
            mismatch = shrink(make, mismatch)
        report.mismatch, report.failing = f"{name}{mismatch}", mismatch
    report.missing = [*sorted(wanted - set(report.coverage.cells))]
    report.missing += [Untaken(action) for action in sorted(actions_wanted(implementation) - taken)]
    report.missing += undeclared
    report.seconds = time.perf_counter() - began
    return report
