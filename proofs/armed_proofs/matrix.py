"""The theorem matrix: what is proved, for any number of slots and children, what is refuted, and by which run.

A cell is one property in one profile. It is *proved* when the invariant is inductive and implies the property, every
query answered `unsat`. It is *refuted* when a bounded instance has a run to a violation: the shortest, found breadth
first and replayed step by step. Whatever is neither is *open*, and open is a failure.
"""

from __future__ import annotations

import enum
import time
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import z3

from armed_model.explore import (
    Check,
    Found,
    Run,
    StillSearching,
    explore,
    holds_at_the_end,
    premises,
    tell,
    violations,
)
from armed_model.interpret import Instance, Size
from armed_model.profiles import CONTROLS, PROFILES, Profile
from armed_model.properties import PROPERTIES, Property
from armed_model.system import System
from armed_proofs.obligations import Answer, discharge, invariant_obligations, property_obligations

SIZES = (Size(1, 1), Size(1, 2), Size(2, 2))
"""The instances that are searched for a violation, smallest first."""

SEARCH_LIMIT = 1_000_000
"""How many states a search may meet before it gives up and the cell stays open."""


class Verdict(enum.Enum):
    """What the prover says."""

    PROVED = "proved"
    REFUTED = "refuted"
    OPEN = "open"
    """Neither: some query was not `unsat`, and no violation was found within the bounds. A failure."""


@dataclass(frozen=True)
class Cell:
    """One property in one profile, with what its verdict rests on.

    `premise` is the shortest run on which the premise holds; None says that it was never reached, and then nothing is
    proved. `restates` says that the property follows from the actions alone, without the invariant (definitional).
    """

    profile: str
    claim: Property
    verdict: Verdict
    scope: str
    obligations: int
    seconds: float
    failures: tuple[Answer, ...] = ()
    restates: bool = False
    premise: Run | None = None
    counterexample: Run | None = None
    story: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the cell in the published format."""
        return {
            "profile": self.profile,
            "property": self.claim.name,
            "environment": self.claim.environment,
            "verdict": self.verdict.value,
            "scope": self.scope,
            "assumptions": list(self.claim.assumes),
            "solvers": [solver_version()],
            "seconds": round(self.seconds, 3),
            "counterexample": _run_as_json(self.counterexample),
            "sentence": self.claim.sentence,
            "cites": list(self.claim.cites),
            "definitional": self.restates,
            "obligations": self.obligations,
            "premise": _run_as_json(self.premise),
            "failures": [f"{each.name}: {each.answer}" for each in self.failures],
        }


def _run_as_json(run: Run | None) -> list[dict[str, Any]] | None:
    return None if run is None else [{"action": step.action, "arguments": list(step.arguments)} for step in run]


def solver_version() -> str:
    """Return the name and version of the solver that answers the queries."""
    return f"z3 {z3.get_version_string()}"


@dataclass(frozen=True)
class Matrix:
    """The cells of one profile, and the part that they share: whether the invariant is inductive."""

    profile: Profile
    cells: tuple[Cell, ...]
    invariant: tuple[Answer, ...]
    seconds: float

    @property
    def obligations(self) -> int:
        """How many queries were answered."""
        return len(self.invariant) + sum(cell.obligations for cell in self.cells)


def decide_profile(
    profile: Profile,
    claims: Iterable[Property] = PROPERTIES,
    progress: Callable[[str], None] = lambda _: None,
) -> Matrix:
    """Decide every property of a profile. `progress` is told what is being worked on, one phrase at a time."""
    began = time.perf_counter()
    claims = tuple(claims)
    system = System(profile)
    progress(f"{profile.name}: is the invariant inductive?")
    invariant = tuple(discharge(invariant_obligations(system)))
    progress(f"{profile.name}: is every premise reached?")
    reached = _reach_premises(system, claims)
    cells = []
    for claim in claims:
        progress(f"{profile.name}: {claim.name}")
        cells.append(_decide(system, claim, invariant, reached.get(claim.name)))
    return Matrix(profile, tuple(cells), invariant, time.perf_counter() - began)


def _decide(system: System, claim: Property, invariant: tuple[Answer, ...], premise: Run | None) -> Cell:
    began = time.perf_counter()
    answers = tuple(discharge(property_obligations(system, claim)))
    bare = discharge(property_obligations(system, claim, with_invariant=False))
    restates = all(answer.proved for answer in bare)
    failures = tuple(answer for answer in (*(() if restates else invariant), *answers) if not answer.proved)
    name = system.profile.name
    if not failures and premise is not None:
        seconds = time.perf_counter() - began
        return Cell(name, claim, Verdict.PROVED, "unbounded", len(answers), seconds, restates=restates, premise=premise)
    found, size = _refute(system, claim)
    verdict = Verdict.OPEN if found is None else Verdict.REFUTED
    return Cell(
        name,
        claim,
        verdict,
        str(size),
        len(answers),
        time.perf_counter() - began,
        failures=() if found else failures,
        premise=premise,
        counterexample=found.run if found else None,
        story=tuple(tell(Instance(system, size), found.run)) if found else (),
    )


def _refute(system: System, claim: Property) -> tuple[Found | None, Size]:
    """Search the instances for a shortest run to a violation, and replay it."""
    for size in SIZES:
        instance = Instance(system, size)
        checks = violations(instance, (claim,))
        found = _search(instance, checks).get(claim.name)
        if found is not None:
            return found, size
    return None, SIZES[-1]


def _reach_premises(system: System, claims: tuple[Property, ...]) -> dict[str, Run]:
    """Return for each property a shortest replayed run on which its premise holds."""
    instance = Instance(system, SIZES[-1])
    found = _search(instance, premises(instance, claims))
    return {name: each.run for name, each in found.items()}


def _search(instance: Instance, checks: dict[str, Check]) -> dict[str, Found]:
    try:
        found = explore(instance, checks, stop_when_all_found=True, limit=SEARCH_LIMIT).found
    except StillSearching:
        return {}
    for name, each in found.items():
        if holds_at_the_end(instance, each.run, checks[name]) != each.binding:
            raise AssertionError(f"the run to {name} does not replay: the search and the interpreter disagree")
    return found


def expected_verdicts() -> dict[str, dict[str, str]]:
    """Return the recorded verdicts, profile -> property -> verdict: a change of any is a reviewed difference."""
    return tomllib.loads(files("armed_proofs").joinpath("verdicts.toml").read_text())


def unexpected(matrices: Iterable[Matrix], only: str | None = None) -> list[str]:
    """Compare verdicts with the recorded ones, and return a line for each that differs or is missing on either side.

    `only`: the one property that was decided; the others recorded are not missed then.
    """
    recorded = expected_verdicts()
    lines = []
    for matrix in matrices:
        wanted = recorded.get(matrix.profile.name, {})
        if only is not None:
            wanted = {name: verdict for name, verdict in wanted.items() if name == only}
        found = {cell.claim.name: cell.verdict.value for cell in matrix.cells}
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                said = f"{found.get(name, 'not decided')}; recorded is {wanted.get(name, 'nothing')}"
                lines.append(f"{matrix.profile.name}: {name} is {said}")
    return lines


def verdicts_as_toml(matrices: Iterable[Matrix]) -> str:
    """Write the verdicts in the format in which they are recorded."""
    lines = ["# Recorded by `armed prove --record`; a change of any line is a finding to be reviewed."]
    for matrix in matrices:
        lines += ["", f"[{matrix.profile.name}]"]
        lines += [f'{cell.claim.name} = "{cell.verdict.value}"' for cell in matrix.cells]
    return "\n".join(lines) + "\n"


def decide(name: str, progress: Callable[[str], None] = lambda _: None, only: str | None = None) -> Matrix:
    """Decide the properties of the profile or negative control `name`, or one of them.

    Of a negative control those are decided that it is recorded to refute: it is there for them.
    """
    profile = PROFILES.get(name) or CONTROLS[name]
    names = [each.name for each in PROPERTIES] if name in PROFILES else list(expected_verdicts()[name])
    claims = [claim for claim in PROPERTIES if claim.name in names and only in (None, claim.name)]
    return decide_profile(profile, claims, progress)


def record(matrices: Iterable[Matrix]) -> str:
    """Write the verdicts found over the recorded ones, and return the file's path."""
    path = str(files("armed_proofs").joinpath("verdicts.toml"))
    with open(path, "w") as file:
        file.write(verdicts_as_toml(matrices))
    return path


ALL_PROFILES = (*PROFILES, *CONTROLS)
"""The names of every profile, the negative controls last."""
