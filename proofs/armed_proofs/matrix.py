"""The theorem matrix: what is proved, for any number of slots and children, what is refuted, and by which run.

A cell is one property in one profile. It is *proved* when the invariant is inductive and implies the property, every
query answered `unsat`, and its premise is reached by a run. It is *refuted* when a bounded instance has a run to a
violation: the shortest, found breadth first and taken again step by step, by the compiled functions and by z3. Whatever
is neither is *open*, and open is a failure; *out of scope* says why it is not decided.

Where a run that refutes has an auxiliary child in it, the property is decided for backends alone, too.
"""

from __future__ import annotations

import enum
import time
import tomllib
from collections.abc import Callable, Iterable
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

import z3

from armed_model.explore import Run, StillSearching, explore, holds_at_the_end, premises, replay, tell, violations
from armed_model.interpret import Instance, Size, Sought
from armed_model.profiles import CONTROLS, PROFILES, REFERENCE, Profile
from armed_model.properties import NAMES, LeadsTo, Property, leads_to, properties
from armed_model.system import ENVIRONMENTS, System
from armed_model.terms import symbols
from armed_proofs.liveness import is_lasso, lasso
from armed_proofs.liveness import obligations as liveness_obligations
from armed_proofs.obligations import Answer, Obligation, discharge, invariant_obligations, property_obligations
from armed_proofs.processes import workers
from armed_proofs.replay import replay_by_definition, with_fresh_words

SIZES = (Size(1, 1), Size(2, 1), Size(1, 2), Size(2, 2))
"""The instances that are searched for a violation or a premise, in this order."""

SEARCH_LIMIT = 200_000
"""How many states a search may meet before it gives up and the cell stays open."""

Claim = Property | LeadsTo
Progress = Callable[[str], None]


PROCESSES = 2
"""How many processes decide at once."""

ALL_PROFILES = (*PROFILES, *CONTROLS)
"""The names of every profile, the negative controls last."""

ALL_NAMES = (*NAMES, *[each.name for each in leads_to(REFERENCE)])
"""The names of every property."""


class Verdict(enum.Enum):
    """What the prover says."""

    PROVED = "proved"
    REFUTED = "refuted"
    OPEN = "open"
    """Neither: some query was not `unsat`, and no violation was found within the bounds. A failure."""
    OUT_OF_SCOPE = "out of scope"


@dataclass(frozen=True)
class Statement:
    """What a property says, in words: its terms cannot be sent to another process."""

    name: str
    sentence: str
    environment: str
    cites: tuple[str, ...]
    assumes: tuple[str, ...]
    out_of_scope: str


def _statement(claim: Claim) -> Statement:
    return Statement(claim.name, claim.sentence, claim.environment, claim.cites, claim.assumes, claim.out_of_scope)


@dataclass(frozen=True)
class Finding:
    """What a person has to say of a refutation: why it is so, what mended it, and who can reach it."""

    sentence: str
    mended_by: str
    reach: str


@dataclass(frozen=True)
class Cell:
    """One property in one profile, with what its verdict rests on.

    `premise` is the shortest run on which the premise holds; None says that it was never reached, and then nothing is
    proved. `restates` says that the property follows from the actions alone, without the invariant (definitional).
    `size` is the bounded instance that a counterexample is from.
    """

    profile: str
    claim: Statement
    verdict: Verdict
    backends_alone: bool = False
    obligations: int = 0
    seconds: float = 0.0
    failures: tuple[Answer, ...] = ()
    restates: bool = False
    premise: Run | None = None
    counterexample: Run | None = None
    size: Size | None = None
    story: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The property's name, and whether it was decided for backends alone."""
        return self.claim.name + (", backends alone" if self.backends_alone else "")

    @property
    def scope(self) -> str:
        """For how much the verdict holds."""
        return "unbounded" if self.verdict is Verdict.PROVED else str(self.size or "")

    @property
    def finding(self) -> Finding | None:
        """What is written down about this refutation."""
        if self.verdict is not Verdict.REFUTED:
            return None
        return findings().get((self.profile, self.name))

    def as_json(self) -> dict[str, Any]:
        """Return the cell in the published format."""
        finding = self.finding
        return {
            "profile": self.profile,
            "property": self.claim.name,
            "children": "backends alone" if self.backends_alone else "all",
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
            "reason": self.claim.out_of_scope,
            "finding": None if finding is None else asdict(finding),
        }


def _run_as_json(run: Run | None) -> list[dict[str, Any]] | None:
    return None if run is None else [{"action": step.action, "arguments": list(step.arguments)} for step in run]


def solver_version() -> str:
    """Return the name and version of the solver that answers the queries."""
    return f"z3 {z3.get_version_string()}"


@dataclass(frozen=True)
class Matrix:
    """The cells of one profile, and what they share: whether the invariants are inductive, by environment."""

    profile: Profile
    cells: tuple[Cell, ...]
    invariants: dict[str, tuple[Answer, ...]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def obligations(self) -> int:
        """How many queries were answered."""
        return sum(map(len, self.invariants.values())) + sum(cell.obligations for cell in self.cells)


# --- Deciding --------------------------------------------------------------------------------------------------------


def decide_profiles(
    profiles: Iterable[Profile],
    only: Iterable[str] | None = None,
    progress: Progress = lambda _: None,
    processes: int = PROCESSES,
) -> list[Matrix]:
    """Decide the properties of profiles (or those named `only`), in so many processes at once.

    `progress` is told what has been decided. With one process it is done in this one, as it must be for a profile that
    is not registered.
    """
    profiles = list(profiles)
    names = set(only) if only is not None else {*ALL_NAMES}
    work = [(profile, environment, names) for profile in profiles for environment in ENVIRONMENTS]
    parts: dict[tuple[str, str], _Decided] = {}
    if processes == 1:
        for each in work:
            parts[each[0].name, each[1]] = _decide_system(*each)
            progress(f"{each[0].name}, {each[1]}")
    else:
        with workers(processes) as pool:
            calm_first = sorted(work, key=lambda each: each[1] != "calm")  # it has most queries
            tasks = {pool.submit(_decide_system, *each): each for each in calm_first}
            for task in as_completed(tasks):
                profile, environment, _ = tasks[task]
                parts[profile.name, environment] = task.result()
                progress(f"{profile.name}, {environment} ({len(parts)} of {len(work)})")
    matrices = []
    for profile in profiles:
        mine = [parts[profile.name, environment] for environment in ENVIRONMENTS]
        cells = sorted(
            (cell for each in mine for cell in each.cells),
            key=lambda cell: (ALL_NAMES.index(cell.claim.name), cell.backends_alone),
        )
        invariants = {key: answers for each in mine for key, answers in each.invariants.items()}
        matrices.append(Matrix(profile, tuple(cells), invariants, sum(each.seconds for each in mine)))
    return matrices


@dataclass(frozen=True)
class _Decided:
    cells: tuple[Cell, ...]
    invariants: dict[str, tuple[Answer, ...]]
    seconds: float


def _decide_system(profile: Profile, environment: str, names: set[str]) -> _Decided:
    """Decide what is claimed of a profile in one environment, where need be of backends alone, too."""
    began = time.perf_counter()
    invariants: dict[str, tuple[Answer, ...]] = {}
    cells = _decide_all(System(profile, environment), names, invariants)
    by_auxiliary = {cell.claim.name for cell in cells if cell.verdict is Verdict.REFUTED and _needs_an_auxiliary(cell)}
    narrowed = by_auxiliary & _differ_for_backends_alone(profile) if by_auxiliary else set()
    if narrowed:
        cells += _decide_all(System(profile, environment, backends_alone=True), narrowed, invariants)
    return _Decided(tuple(cells), invariants, time.perf_counter() - began)


def _needs_an_auxiliary(cell: Cell) -> bool:
    return any(step.action in ("fork_auxiliary", "assign_auxiliary") for step in cell.counterexample or ())


def _differ_for_backends_alone(profile: Profile) -> set[str]:
    """Return the names of the properties that say something else of backends alone, or speak of the ghosts that do."""
    differ = {each.name for each in leads_to(profile) if each.name == "armed_exit_leads_to_restart"}
    for every, alone in zip(properties(profile), properties(profile, backends_alone=True), strict=True):
        if not every.claim.z3.eq(alone.claim.z3) or symbols(every.premise.z3) & {"owed", "torn"}:
            differ.add(every.name)
    return differ


def _decide_all(system: System, names: set[str], invariants: dict[str, tuple[Answer, ...]]) -> list[Cell]:
    profile, alone = system.profile, system.backends_alone
    every: list[Claim] = [*properties(profile, alone), *leads_to(profile, alone)]
    every = [each for each in every if each.name in names and each.environment == system.environment]
    if not every:
        return []
    name = profile.name
    out = [Cell(name, _statement(each), Verdict.OUT_OF_SCOPE, alone) for each in every if each.out_of_scope]
    claims = [each for each in every if not each.out_of_scope]
    inductive = tuple(discharge(invariant_obligations(system)))
    key = system.environment + (", backends alone" if system.backends_alone else "")
    invariants[key] = inductive
    safety = [each for each in claims if isinstance(each, Property)]
    answers, restating = _ask(system, safety)
    unproved = tuple(each for each in inductive if not each.proved)
    proved = {}
    for claim in safety:
        restates = claim.name in restating
        failures = tuple(each for each in answers[claim.name] if not each.proved)
        proved[claim.name] = (restates, failures + (() if restates else unproved))
    doubtful = [claim for claim in safety if proved[claim.name][1]]
    reached, violated = _search(system, safety, doubtful)
    cells = []
    for claim in safety:
        restates, failures = proved[claim.name]
        cell = Cell(
            name,
            _statement(claim),
            Verdict.PROVED,
            system.backends_alone,
            len(answers[claim.name]),
            sum(each.seconds for each in answers[claim.name]),
            restates=restates,
            premise=reached.get(claim.name),
        )
        if claim.name in violated:
            run, size, story = violated[claim.name]
            cell = replace(cell, verdict=Verdict.REFUTED, counterexample=run, size=size, story=story)
        elif failures or claim.name not in reached:
            cell = replace(cell, verdict=Verdict.OPEN, failures=failures, size=SIZES[-1])
        cells.append(cell)
    return out + cells + [_decide_run(system, each, unproved) for each in claims if isinstance(each, LeadsTo)]


def _ask(system: System, claims: list[Property]) -> tuple[dict[str, list[Answer]], set[str]]:
    """Return the answers to every obligation of each claim, and the claims that need no invariant.

    First every obligation is asked without the invariant: most hold of the action alone. The others then with it.
    """
    answers: dict[str, list[Answer]] = {claim.name: [] for claim in claims}
    shown: set[str] = set()
    needs_more: set[str] = set()
    for claim, answer in _answers(property_obligations(system, claims, with_invariant=False)):
        if answer.proved:
            answers[claim.name].append(answer)
            shown.add(answer.name)
        else:
            needs_more.add(claim.name)
    for claim, answer in _answers(property_obligations(system, claims, but_for=shown)):
        answers[claim.name].append(answer)
    return answers, {*answers} - needs_more


def _answers(pairs: Iterable[tuple[Property, Obligation]]) -> Iterable[tuple[Property, Answer]]:
    pairs = list(pairs)
    return zip([claim for claim, _ in pairs], discharge([each for _, each in pairs]), strict=True)


Violation = tuple[Run, Size, tuple[str, ...]]


def _search(
    system: System, claims: list[Property], doubtful: list[Property]
) -> tuple[dict[str, Run], dict[str, Violation]]:
    """Search the instances for shortest runs to the premises of all claims, and to violations of the doubtful ones."""
    reached: dict[str, Run] = {}
    violated: dict[str, Violation] = {}
    by_name = {claim.name: claim for claim in claims}
    for size in SIZES:
        instance = Instance(system, size)
        wanted = {name: each for name, each in premises(claims).items() if name not in reached}
        refuting = {name: each for name, each in violations(doubtful).items() if name not in violated}
        if not wanted and not refuting:
            break
        look_for = {**{f"premise {name}": each for name, each in wanted.items()}, **refuting}
        for name, (run, binding) in _found(instance, look_for).items():
            if name.startswith("premise "):
                reached[name.removeprefix("premise ")] = with_fresh_words(instance, run)
            else:
                replay_by_definition(instance, run, by_name[name], binding)
                violated[name] = (with_fresh_words(instance, run), size, tuple(tell(instance, run)))
    return reached, violated


def _found(instance: Instance, look_for: dict[str, Sought]) -> dict[str, tuple[Run, tuple[int, ...]]]:
    try:
        found = explore(instance, look_for, stop_when_all_found=True, limit=SEARCH_LIMIT).found
    except StillSearching as still:
        found = still.so_far.found
    for name, each in found.items():
        if each.binding not in holds_at_the_end(instance, each.run, look_for[name]):
            raise AssertionError(f"the run to {name} does not replay: the search and the interpreter disagree")
    return {name: (each.run, each.binding) for name, each in found.items()}


def _decide_run(system: System, claim: LeadsTo, unproved: tuple[Answer, ...]) -> Cell:
    began = time.perf_counter()
    answers = list(discharge(liveness_obligations(system, claim)))
    failures = tuple(each for each in answers if not each.proved) + unproved
    pending = {claim.name: Sought(claim.over, claim.pending, on_states=True)}
    instance = Instance(system, Size(1, 2))
    premise = _found(instance, pending).get(claim.name)
    cell = Cell(
        system.profile.name, _statement(claim), Verdict.PROVED, system.backends_alone, len(answers),
        time.perf_counter() - began,
        premise=None if premise is None else with_fresh_words(instance, premise[0]),
    )  # fmt: skip
    if not failures and premise is not None:
        return cell
    for size in SIZES[:-1]:
        instance = Instance(system, size)
        try:
            run = lasso(instance, claim, SEARCH_LIMIT)
        except StillSearching:
            continue
        if run is not None:
            if not is_lasso(instance, claim, replay(instance, run)):
                raise AssertionError(f"the run to {claim.name} does not replay")
            replay_by_definition(instance, run)
            story = (*tell(instance, run), "From here nothing that is due can ever be done.")
            run = with_fresh_words(instance, run)
            return replace(cell, verdict=Verdict.REFUTED, counterexample=run, size=size, story=story)
    return replace(cell, verdict=Verdict.OPEN, failures=failures, size=SIZES[-2])


# --- What is recorded ------------------------------------------------------------------------------------------------


def expected_verdicts() -> dict[str, dict[str, str]]:
    """Return the recorded verdicts, profile -> property -> verdict: a change of any is a reviewed difference."""
    return tomllib.loads(files("armed_proofs").joinpath("verdicts.toml").read_text())


@cache
def findings() -> dict[tuple[str, str], Finding]:
    """Return what is written down about refutations, by profile and property."""
    text = files("armed_proofs").joinpath("findings.toml").read_text()
    return {
        (profile, each["property"]): Finding(each["sentence"], each.get("mended_by", ""), each["reach"])
        for each in tomllib.loads(text)["finding"]
        for profile in each["profiles"]
    }


def unexpected(matrices: Iterable[Matrix], only: str | None = None) -> list[str]:
    """Return a line for each verdict that differs from the recorded one, is open, or is refuted without a word of why.

    `only`: the one property that was decided; the others recorded are not missed then.
    """
    recorded = expected_verdicts()
    lines = []
    for matrix in matrices:
        name = matrix.profile.name
        wanted = {
            key: verdict
            for key, verdict in recorded.get(name, {}).items()
            if only is None or key.removesuffix(", backends alone") == only
        }
        found = {cell.name: cell.verdict for cell in matrix.cells}
        for key in sorted(wanted.keys() | found.keys()):
            said = found[key].value if key in found else "not decided"
            if wanted.get(key) != said:
                lines.append(f"{name}: {key} is {said}; recorded is {wanted.get(key, 'nothing')}")
            elif said == Verdict.OPEN.value:
                lines.append(f"{name}: {key} is open: neither proved nor refuted")
        told = {
            key
            for profile, key in findings()
            if profile == name and only in (None, key.removesuffix(", backends alone"))
        }
        refuted = {key for key, verdict in found.items() if verdict is Verdict.REFUTED}
        if matrix.profile.name in PROFILES:
            lines += [f"{name}: {key} is refuted, and findings.toml does not say why" for key in sorted(refuted - told)]
            lines += [f"{name}: {key} is in findings.toml, and is not refuted" for key in sorted(told - refuted)]
        lines += [
            f"{name}, {environment}: the invariant is not inductive: {answer.name} is {answer.answer}"
            for environment, answers in matrix.invariants.items()
            for answer in answers
            if not answer.proved and matrix.profile.name in PROFILES
        ]
    return lines


def verdicts_as_toml(matrices: Iterable[Matrix]) -> str:
    """Write the verdicts in the format in which they are recorded. Raises ValueError where one is open."""
    lines = ["# Recorded by `armed prove --record`; a change of any line is a finding to be reviewed."]
    for matrix in matrices:
        lines += ["", f'["{matrix.profile.name}"]']
        for cell in matrix.cells:
            if cell.verdict is Verdict.OPEN:
                raise ValueError(f"{matrix.profile.name}: {cell.name} is open, and an open cell is not recorded")
            lines.append(f'"{cell.name}" = "{cell.verdict.value}"')
    return "\n".join(lines) + "\n"


def decide(
    names: Iterable[str], progress: Progress = lambda _: None, only: str | None = None, processes: int = PROCESSES
) -> list[Matrix]:
    """Decide the properties of the profiles and negative controls named, or one of them.

    Of a negative control those are decided that it is recorded to refute: it is there for them.
    """
    names = list(names)
    chosen = None if only is None else [only]
    decided = decide_profiles([PROFILES[name] for name in names if name in PROFILES], chosen, progress, processes)
    for name in names:
        if name in CONTROLS:
            of_control = [each for each in expected_verdicts()[name] if only in (None, each)]
            decided += decide_profiles([CONTROLS[name]], of_control, progress, processes=1)
    return decided


def record(matrices: Iterable[Matrix]) -> str:
    """Write the verdicts found over the recorded ones, and return the file's path. Raises ValueError if one is open."""
    path = str(files("armed_proofs").joinpath("verdicts.toml"))
    text = verdicts_as_toml(matrices)
    with open(path, "w") as file:
        file.write(text)
    return path
