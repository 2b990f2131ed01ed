"""Everything that `armed verify` runs, part by part, each with counts that must not be 0."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from armed_conformance.decisions import compare_decisions
from armed_conformance.lockstep import Mismatch
from armed_conformance.run import conform, draw_seed
from armed_model.explore import explore, violations
from armed_model.interpret import Instance, Size
from armed_model.profiles import CONTROLS, PROFILES, REFERENCE
from armed_model.properties import ASSUMPTIONS, PROPERTIES, SOMETIMES
from armed_model.properties import c as some_child
from armed_model.properties import s as some_slot
from armed_model.system import System
from armed_proofs.agreement import Disagreement, compare
from armed_proofs.matrix import Matrix, decide, solver_version, unexpected

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Extent:
    """How much is done; what the quick run leaves out is the difference."""

    sizes: tuple[Size, ...]
    states_compared: int
    histories: int


QUICK = Extent(sizes=(Size(1, 2), Size(2, 1)), states_compared=20, histories=100)
FULL = Extent(
    sizes=(*QUICK.sizes, Size(1, 3), Size(3, 1), Size(2, 2), Size(2, 3)), states_compared=200, histories=1000
)


@dataclass
class Part:
    """One part of the run: what it is, whether it holds, its counts, and what went wrong."""

    name: str
    claim: str
    counts: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether nothing failed and nothing that had to be counted was missing."""
        return not self.failures and not self.empty

    @property
    def empty(self) -> list[str]:
        """The counts that are 0: a check that looked at nothing has not passed."""
        return [name for name, count in self.counts.items() if count in (0, {})]

    def as_json(self) -> dict[str, Any]:
        """Return the part in the published format."""
        return {
            "part": self.name,
            "claim": self.claim,
            "holds": self.holds,
            "counts": self.counts,
            "failures": self.failures + [f"the count of {name} is 0" for name in self.empty],
            "seconds": round(self.seconds, 2),
        }


@dataclass
class Verification:
    """The whole run: its parts, the cells of the matrix, the stories of the controls, and what was left out."""

    quick: bool
    strict: bool
    seed: int
    parts: list[Part] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether every part holds."""
        return bool(self.parts) and all(part.holds for part in self.parts)

    @property
    def left_out(self) -> list[str]:
        """What a full run does and this one did not."""
        if not self.quick:
            return []
        more = ", ".join(str(size) for size in FULL.sizes if size not in QUICK.sizes)
        return [
            f"exploration of {more}",
            f"model against z3 on {FULL.states_compared} random states (here {QUICK.states_compared})",
            f"{FULL.histories} random histories (here {QUICK.histories})",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the run in the published format."""
        return {
            "holds": self.holds,
            "quick": self.quick,
            "strict": self.strict,
            "seed": self.seed,
            "left_out": self.left_out,
            "parts": [part.as_json() for part in self.parts],
            "matrix": [cell.as_json() for matrix in self.matrices for cell in matrix.cells],
            "assumptions": ASSUMPTIONS,
            "versions": {
                "armed": version("armed"),
                "python": platform.python_version(),
                "kernel": platform.release(),
                "solver": solver_version(),
                "hypothesis": version("hypothesis"),
                "transitions": version("transitions"),
            },
            "seconds": round(self.seconds, 2),
        }


def verify(
    *,
    quick: bool,
    strict: bool,
    seed: int | None,
    progress: Progress = lambda _: None,
    finished: Callable[[Part], None] = lambda _: None,
) -> Verification:
    """Run every part; a part that fails does not keep the others from running.

    `progress` is told what is going on, `finished` is given each part when it is through. Without a seed one is drawn.
    """
    extent = QUICK if quick else FULL
    run = Verification(quick, strict, draw_seed() if seed is None else seed)
    began = time.perf_counter()
    plan: list[tuple[Part, Callable[[Part], None]]] = [
        (Part("exploration", "no bounded instance violates a property; everything is reached"),
         lambda part: _explore(part, extent, progress)),
        (Part("interpreter", "the compiled model and z3 agree on random states"),
         lambda part: _compare_interpreters(part, extent, progress)),
        (Part("proofs", "every property holds for any number of slots and children"),
         lambda part: _prove(part, run, progress)),
        (Part("controls", "without the switch the same properties are refuted"),
         lambda part: _refute(part, run, progress)),
        (Part("decisions", "the implementation decides as the model does, for every wait status and slot word"),
         lambda part: _decisions(part, progress)),
        (Part("conformance", "real processes do what the model does, step by step"),
         lambda part: _conform(part, extent, run.seed, progress)),
    ]  # fmt: skip
    for part, act in plan:
        started = time.perf_counter()
        act(part)
        part.seconds = time.perf_counter() - started
        run.parts.append(part)
        finished(part)
    run.seconds = time.perf_counter() - began
    return run


def _explore(part: Part, extent: Extent, progress: Progress) -> None:
    part.counts = {"instances": 0, "states": 0, "transitions": 0, "depth": 0, "actions": 0, "reached": 0}
    for size in extent.sizes:
        progress(f"exploring {size}")
        instance = Instance(System(REFERENCE), size)
        sometimes = {name: _somewhere(instance, name) for name in SOMETIMES}
        result = explore(instance, {**violations(instance, PROPERTIES), **sometimes})
        for name, found in result.found.items():
            if name not in sometimes:
                part.failures.append(f"{name} is violated in {len(found.run)} steps")
        part.failures += [f"never reached in {size}: {name}" for name in sometimes if name not in result.found]
        part.failures += [f"never enabled in {size}: {name}" for name in set(instance.actions) - result.actions_seen]
        if not result.complete:
            part.failures.append(f"the search of {size} did not finish")
        part.counts["instances"] += 1
        part.counts["states"] += result.states
        part.counts["transitions"] += result.transitions
        part.counts["depth"] = max(part.counts["depth"], result.depth)
        part.counts["actions"] = len(result.actions_seen)
        part.counts["reached"] = len(sometimes)


def _somewhere(instance: Instance, name: str) -> Callable[[Any, Any, int], tuple[int, ...] | None]:
    """Look for a state in which something is so for some child and some slot."""
    over = (some_child, some_slot)
    holds = instance.predicate(SOMETIMES[name], over)
    bindings = instance.bindings(over)
    return lambda before, after, who: next((b for b in bindings if holds(after, after, who, *b)), None)


def _compare_interpreters(part: Part, extent: Extent, progress: Progress) -> None:
    progress("comparing the compiled model with z3")
    part.counts = {"random states": extent.states_compared, "values": 0}
    try:
        part.counts["values"] = compare(extent.states_compared)
    except Disagreement as disagreement:
        part.failures.append(str(disagreement))


def _prove(part: Part, run: Verification, progress: Progress) -> None:
    matrices = [decide(name, progress) for name in PROFILES]
    run.matrices += matrices
    cells = [cell for matrix in matrices for cell in matrix.cells]
    part.counts = {
        "properties proved": sum(cell.verdict.value == "proved" for cell in cells),
        "obligations": sum(matrix.obligations for matrix in matrices),
        "premises reached": sum(cell.premise is not None for cell in cells),
    }
    part.failures += unexpected(matrices)


def _refute(part: Part, run: Verification, progress: Progress) -> None:
    matrices = [decide(name, progress) for name in CONTROLS]
    run.matrices += matrices
    cells = [cell for matrix in matrices for cell in matrix.cells]
    part.counts = {"controls refuted": sum(cell.counterexample is not None for cell in cells)}
    part.failures += unexpected(matrices)
    for cell in cells[:1]:
        part.notes.append(f"{cell.profile}: {cell.claim.name} is refuted. The story of the commit of May 2009:")
        part.notes += [f"  {number}. {line}" for number, line in enumerate(cell.story, 1)]


def _decisions(part: Part, progress: Progress) -> None:
    progress("comparing all decisions")
    part.counts = {"decisions": 0}
    try:
        part.counts["decisions"] = compare_decisions()
    except Mismatch as mismatch:
        part.failures.append(str(mismatch))


def _conform(part: Part, extent: Extent, seed: int, progress: Progress) -> None:
    report = conform(
        "armed:fork",
        extent.histories,
        seed=seed,
        progress=lambda what, done, total: progress(f"armed:fork, {what}: {done} of {total}"),
    )
    seen = report.as_json()
    wanted = ("histories", "steps", "deaths", "armed_deaths", "recoveries", "refusals", "cells_seen", "cells_wanted")
    part.counts = {name: seen[name] for name in wanted}
    part.failures += [report.mismatch] if report.mismatch else []
    if not report.mismatch:
        part.failures += [f"never seen: {cell}" for cell in report.missing]
