"""Everything that `armed verify` runs, part by part, each with counts that must not be 0."""

from __future__ import annotations

import ctypes
import itertools
import json
import platform
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from armed import Decision
from armed_conformance import crash_points, crash_targets, soak, stray_writes
from armed_conformance.decisions import compare_decisions
from armed_conformance.exhaustive import EVERYTHING_IS_ORDERED, exhaust
from armed_conformance.lockstep import Mismatch
from armed_conformance.protocol import NotHere
from armed_conformance.run import POSTGRES, UnknownTarget, conform, draw_seed
from armed_model.explore import explore, violations
from armed_model.interpret import Instance, Size, Sought
from armed_model.profiles import CONTROLS, PROFILES, Profile
from armed_model.properties import ASSUMPTIONS, properties, sometimes, sometimes_a_step
from armed_model.properties import c as some_child
from armed_model.properties import s as some_slot
from armed_model.system import ENVIRONMENTS, System
from armed_proofs import cvc5_opinion, evidence, tlc
from armed_proofs.agreement import Disagreement, compare
from armed_proofs.invariants import key
from armed_proofs.matrix import Matrix, Verdict, decide, expected_verdicts, solver_version, unexpected
from armed_proofs.obligations import impossible_actions

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Extent:
    """How much is done; what the quick and the usual run leave out is the difference to the full one."""

    name: str
    profiles: tuple[str, ...]
    sizes: tuple[Size, ...]
    reference_sizes: tuple[Size, ...]
    states_compared: int
    by_cvc5: tuple[System, ...]
    by_tlc: tuple[tlc.Bounds, ...]
    histories: int
    spawned_histories: int
    server_histories: int
    """On each PostgreSQL server that is found."""
    orders_deep: int
    """In every state that fewer orders reach, every order is given."""
    child_points: int
    """One of so many boundaries at which a child is struck; `supervisor_points` likewise, by start method."""
    supervisor_points: dict[str, int]
    stray_writes: int
    lives: int


QUICK = Extent(
    name="quick",
    profiles=("18", "reference"),
    sizes=(Size(1, 1),),
    reference_sizes=(Size(2, 1), Size(1, 2)),
    states_compared=20,
    by_cvc5=tuple(System(PROFILES["reference"], environment) for environment in ("calm", "+stray")),
    by_tlc=tlc.QUICK,
    histories=60,
    spawned_histories=0,
    server_histories=0,
    orders_deep=3,
    child_points=50,
    supervisor_points={"fork": 400},
    stray_writes=100_000,  # with fewer, no child may happen to die armed
    lives=500,
)
USUAL = Extent(
    name="usual",
    profiles=tuple(PROFILES),
    sizes=(*QUICK.sizes, Size(2, 1), Size(1, 2)),
    reference_sizes=(*QUICK.reference_sizes, Size(2, 2), Size(3, 2)),
    states_compared=200,
    by_cvc5=evidence.all_systems(),
    by_tlc=tlc.USUAL,
    histories=600,
    spawned_histories=0,
    server_histories=20,
    orders_deep=5,
    child_points=8,
    supervisor_points={"fork": 40, "spawn": 400},
    stray_writes=200_000,
    lives=5_000,
)
FULL = replace(
    USUAL,
    name="full",
    by_tlc=tlc.FULL,
    histories=1_000,
    spawned_histories=200,
    server_histories=200,
    orders_deep=6,
    child_points=1,
    supervisor_points={"fork": 1, "spawn": 1},
    stray_writes=1_000_000,
    lives=100_000,
)
EXTENTS = {each.name: each for each in (QUICK, USUAL, FULL)}


@dataclass
class Part:
    """One part of the run: what it is, whether it holds, its counts, and what went wrong."""

    name: str
    claim: str
    counts: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """Counts by two things at once: name of the table -> row -> column -> count."""
    not_run: str = ""
    """Why the part, or some of it, was not run: a tool is missing. Under --strict that is a failure."""
    seconds: float = 0.0

    @property
    def fails(self) -> bool:
        """Whether something failed, or something that had to be counted was missing."""
        return bool(self.failures or self.empty)

    @property
    def verdict(self) -> str:
        """In a word: what was not run does not hold, and is no failure unless `--strict` makes it one."""
        return "FAILS" if self.fails else "NOT RUN" if self.not_run else "holds"

    @property
    def empty(self) -> list[str]:
        """The counts that are 0: a check that looked at nothing has not passed."""
        if self.not_run and not self.counts:
            return []
        return [name for name, count in self.counts.items() if _total(count) == 0] if self.counts else ["anything"]

    def as_json(self) -> dict[str, Any]:
        """Return the part in the published format."""
        return {
            "part": self.name,
            "claim": self.claim,
            "holds": self.verdict == "holds",
            "not_run": self.not_run,
            "counts": self.counts,
            "tables": self.tables,
            "failures": self.failures + [f"the count of {name} is 0" for name in self.empty],
            "notes": self.notes,
            "seconds": round(self.seconds, 2),
        }


@dataclass
class Verification:
    """The whole run: its parts, the cells of the matrix, the stories of the controls, and what was left out."""

    extent: Extent
    strict: bool
    seed: int
    parts: list[Part] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    seconds: float = 0.0
    commit: str = field(default_factory=crash_points.commit)
    changes: str = field(default_factory=crash_points.changes)
    """Of which commit it is and how files differed from that: as it was when the run began."""
    id: str = field(default_factory=partial(secrets.token_hex, 8))
    """What no other run has: the files that it leaves know each other by it."""

    @property
    def holds(self) -> bool:
        """Whether something was run, and no part fails."""
        return any(part.verdict == "holds" for part in self.parts) and not any(part.fails for part in self.parts)

    @property
    def not_run(self) -> list[str]:
        """The names of the parts that were not run."""
        return [part.name for part in self.parts if part.not_run]

    @property
    def left_out(self) -> list[str]:
        """What a full run does and this one did not, and what no run of this command does."""
        here, left = self.extent, []
        if here.profiles != FULL.profiles:
            others = ", ".join(name for name in FULL.profiles if name not in here.profiles)
            left = [
                f"deciding and exploring the profiles {others}",
                f"exploration of calm at {_sizes(FULL.sizes)} (here {_sizes(here.sizes)}), of the other "
                f"environments at {_sizes(FULL.sizes[:2])} (here {_sizes(here.sizes[:2])}), "
                f"and of reference, calm, at {_sizes(FULL.reference_sizes)} (here {_sizes(here.reference_sizes)})",
                f"model against z3 on {FULL.states_compared} random states (here {here.states_compared})",
                f"cvc5 on all {len(FULL.by_cvc5)} systems (here {len(here.by_cvc5)})",
                "that everything is reached that should be, but for reference, calm",
                "every proved obligation as SMT-LIB text",
            ]
        if here != FULL:
            left += [
                f"TLC on {len(FULL.by_tlc)} instances (here {len(here.by_tlc)})",
                f"{FULL.histories} random histories (here {here.histories}), "
                f"and {FULL.spawned_histories} with spawned children (here {here.spawned_histories or 'none'})",
                f"{FULL.server_histories} random histories on each PostgreSQL server (here {here.server_histories})",
                f"every order in every state that fewer than {FULL.orders_deep} orders reach "
                f"(here {here.orders_deep})",
                f"every boundary of a child (here one of {here.child_points}) and of a supervisor "
                f"(here {_sampled(here.supervisor_points)})",
                f"{FULL.stray_writes:,} stray writes (here {here.stray_writes:,})",
                f"{FULL.lives:,} lives under one supervisor (here {here.lives:,})",
            ]
        return [*left, "mutants of the specification: `armed mutate`"]

    def as_json(self) -> dict[str, Any]:
        """Return the run in the published format."""
        return {
            "holds": self.holds,
            "extent": self.extent.name,
            "strict": self.strict,
            "seed": self.seed,
            "run": self.id,
            "left_out": self.left_out,
            "parts": [part.as_json() for part in self.parts],
            "matrix": [cell.as_json() for matrix in self.matrices for cell in matrix.cells],
            "assumptions": ASSUMPTIONS,
            "versions": {
                "armed": version("armed"),
                "commit": self.commit,
                "changed": bool(self.changes),
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
    extent: Extent,
    strict: bool,
    seed: int | None,
    keep: Path | None = None,
    progress: Progress = lambda _: None,
    finished: Callable[[Part], None] = lambda _: None,
) -> Verification:
    """Run every part; a part that fails, even by an exception, does not keep the others from running.

    `progress` is told what is going on, `finished` is given each part when it is through. Without a seed one is drawn.
    `strict`: a part that cannot be run for want of a tool has failed. `keep`: where the obligations are written, unless
    the run is quick.
    """
    run = Verification(extent, strict, draw_seed() if seed is None else seed)
    began = time.perf_counter()
    plan: list[tuple[Part, Callable[[Part], None]]] = [
        (Part("exploration", "in bounded instances what is proved is not violated, and everything is reached"),
         lambda part: _explore(part, extent, run, progress)),
        (Part("interpreter", "the compiled model and z3 agree on random states"),
         lambda part: _compare_interpreters(part, extent, run.seed, progress)),
        (Part("proofs", "each property is proved for any number of slots and children, or refuted, as is recorded"),
         lambda part: _prove(part, extent, run, progress)),
        (Part("controls", "without the switch the same properties are refuted"),
         lambda part: _refute(part, run, progress)),
        (Part("cvc5", "a second solver gives the same answers"),
         lambda part: _ask_cvc5(part, extent, None if extent is QUICK else keep, run, progress)),
        (Part("TLC", "a second model checker counts the same states and refutes the same properties"),
         lambda part: _ask_tlc(part, extent, progress)),
        (Part("decisions", "the implementation decides as the model does, for every wait status"),
         lambda part: _decisions(part, progress)),
        (Part("conformance", "real processes do what the model does, step by step"),
         lambda part: _conform(part, "armed:fork", extent.histories, run.seed, progress)),
        (Part("exhaustive", "whatever is ordered in states that few orders reach, real processes do as the model does"),
         lambda part: _exhaust(part, extent, progress)),
        (Part("crash points", "struck before any instruction, what holds something is not clean, and nothing is left"),
         lambda part: _crash_points(part, extent, progress)),
        (Part("stray writes", "whatever is written into the table, the supervisor does not fail and is not deceived"),
         lambda part: _stray_writes(part, extent, run.seed, progress)),
        (Part("soak", "after many lives there is as much of everything as there was before"),
         lambda part: _soak(part, extent, run.seed, progress)),
    ]  # fmt: skip
    if extent.spawned_histories:
        spawned = Part("conformance, spawn", "the same with children in fresh interpreters")
        plan.append(
            (spawned, lambda part: _conform(part, "armed:spawn", extent.spawned_histories, run.seed, progress))
        )
    if extent.server_histories:
        servers = Part("PostgreSQL", "real servers do what the model of their release does, step by step")
        plan.append((servers, lambda part: _conform_servers(part, extent.server_histories, run.seed, progress)))
    plan.insert(0, plan.pop(2))  # the verdicts first: the other parts are held against them
    for part, act in plan:
        started = time.perf_counter()
        try:
            act(part)
        except Exception as error:  # a defect of the tool itself: told, and counted as a failure
            if is_ctrl_c(error):
                raise KeyboardInterrupt from error
            part.failures.append(f"{type(error).__name__}: {error}")
        if part.not_run and strict:
            part.failures.append(f"not run, and --strict: {part.not_run}")
        if crash_points.commit_now() not in (run.commit, "") or crash_points.changes() != run.changes:
            part.failures.append("files were changed, or another commit was checked out, while it ran")
        part.seconds = time.perf_counter() - started
        run.parts.append(part)
        finished(part)
    run.seconds = time.perf_counter() - began
    return run


def is_ctrl_c(error: Exception) -> bool:
    """Whether it is what ctypes, by which z3 is called, makes of a KeyboardInterrupt while it converts arguments."""
    return isinstance(error, ctypes.ArgumentError) and "KeyboardInterrupt" in str(error)


def _total(count: Any) -> int:
    return sum(map(_total, count.values())) if isinstance(count, dict) else int(count)


def _sizes(sizes: tuple[Size, ...]) -> str:
    return ", ".join(str(size) for size in sizes)


def _explore(part: Part, extent: Extent, run: Verification, progress: Progress) -> None:
    part.counts = {"instances": 0, "states": 0, "transitions": 0, "depth": 0, "actions seen": 0, "reached": 0}
    refuted = {
        (cell.profile, cell.claim.name)
        for matrix in run.matrices
        for cell in matrix.cells
        if cell.verdict is Verdict.REFUTED
    }
    for profile in [PROFILES[name] for name in extent.profiles]:
        seen: set[str] = set()
        for environment in ENVIRONMENTS:
            wanted = _to_reach(profile, environment)
            reached: set[str] = set()
            system = System(profile, environment)
            sizes = extent.sizes if environment == "calm" else extent.sizes[:2]
            if profile.name == "reference" and environment == "calm":
                sizes = (*extent.sizes, *[size for size in extent.reference_sizes if size not in extent.sizes])
            for size in sizes:
                progress(f"exploring {profile.name}, {environment}, {size}")
                claims = [each for each in properties(profile) if each.environment == environment]
                result = explore(Instance(system, size), {**violations(claims), **wanted})
                reached |= result.found.keys() & wanted.keys()
                seen |= result.actions_seen
                for name in result.found.keys() - wanted.keys():
                    if (profile.name, name) not in refuted and not _is_out_of_scope(profile, name):
                        part.failures.append(f"{profile.name}, {environment}: {name} is violated, and was not refuted")
                part.counts["instances"] += 1
                part.counts["states"] += result.states
                part.counts["transitions"] += result.transitions
                part.counts["depth"] = max(part.counts["depth"], result.depth)
            if len(sizes) > 1:
                missed = wanted.keys() - reached
                part.failures += [f"never reached in {profile.name}: {name}" for name in sorted(missed)]
            if len(sizes) > 1:  # what calm, at more sizes, or another environment before has seen counts here, too
                never = {action.name for action in system.actions} - seen
                for name in sorted(never - impossible_actions(system)):
                    told = f"{profile.name}, {environment}: {name} never happens, and is not proved impossible"
                    part.failures.append(told)
            part.counts["reached"] += len(reached)
        part.counts["actions seen"] += len(seen)


def _to_reach(profile: Profile, environment: str) -> dict[str, Sought]:
    """Return the states and the steps that must be seen in this environment; of the calm ones it is enough there."""
    states = sometimes(profile) if environment == "calm" else {}
    steps = sometimes_a_step(profile, environment)
    return {
        **{name: Sought((some_child, some_slot), term, on_states=True) for name, term in states.items()},
        **{name: Sought((some_child,), term, on_states=False) for name, term in steps.items()},
    }


def _is_out_of_scope(profile: Profile, name: str) -> bool:
    return any(each.name == name and each.out_of_scope for each in properties(profile))


def _compare_interpreters(part: Part, extent: Extent, seed: int, progress: Progress) -> None:
    progress("comparing the compiled model with z3")
    part.counts = {"random states": extent.states_compared, "values": 0}
    try:
        part.counts["values"] = compare(extent.states_compared, seed)
    except Disagreement as disagreement:
        part.failures.append(str(disagreement))


def _prove(part: Part, extent: Extent, run: Verification, progress: Progress) -> None:
    matrices = decide(extent.profiles, progress)
    run.matrices += matrices
    cells = [cell for matrix in matrices for cell in matrix.cells]
    part.counts = {
        verdict.value: sum(cell.verdict is verdict for cell in cells)
        for verdict in (Verdict.PROVED, Verdict.REFUTED, Verdict.OUT_OF_SCOPE)
    } | {
        "obligations": sum(matrix.obligations for matrix in matrices),
        "premises reached": sum(cell.premise is not None for cell in cells),
    }
    part.notes += [
        f"{matrix.profile.name}: " + ", ".join(f"{n} {verdict}" for verdict, n in Counter(
            cell.verdict.value for cell in matrix.cells).items())
        for matrix in matrices
    ]  # fmt: skip
    part.failures += unexpected(matrices)
    missing = {*extent.profiles} - {cell.profile for cell in cells}
    part.failures += [f"nothing is decided in {profile}" for profile in sorted(missing)]


def _refute(part: Part, run: Verification, progress: Progress) -> None:
    matrices = decide(CONTROLS, progress)
    run.matrices += matrices
    cells = [cell for matrix in matrices for cell in matrix.cells]
    part.counts = {"controls refuted": sum(cell.counterexample is not None for cell in cells)}
    part.failures += unexpected(matrices)
    for cell in cells[:1]:
        part.notes.append(f"{cell.profile}: {cell.claim.name} is refuted. The story of the commit of May 2009:")
        part.notes += [f"  {number}. {line}" for number, line in enumerate(cell.story, 1)]


def _ask_cvc5(part: Part, extent: Extent, keep: Path | None, run: Verification, progress: Progress) -> None:
    progress("asking cvc5")
    try:
        versions = [cvc5_opinion.version()]
    except cvc5_opinion.Missing as missing:
        part.not_run = str(missing)
        return
    if keep is None:
        opinions = cvc5_opinion.second_opinions(extent.by_cvc5, progress=lambda what: progress(f"cvc5: {what}"))
        part.counts = {"systems": len(opinions), "obligations": sum(each.obligations for each in opinions)}
        for each in opinions:
            if not each.agrees:
                answers = each.disagreements[:3] or "nothing was asked"
                part.failures.append(f"{each.profile}, {each.environment}: {answers}")
            part.failures += _not_asked(each.profile, each.environment, each.skipped)
        return
    index = evidence.write_evidence(
        keep,
        extent.by_cvc5,
        ask=cvc5_opinion.ask,
        versions=versions,
        run=run.id,
        progress=lambda what: progress(f"cvc5, obligations written: {what}"),
    )
    written = json.loads(index.read_text())
    entries = written["obligations"]
    part.counts = {"systems": len(extent.by_cvc5), "obligations": len(entries)}
    part.failures += [f"{each['obligation']}: {each['cvc5']}" for each in entries if each["cvc5"] != "unsat"]
    asked = {(each["profile"], each["environment"]) for each in entries}
    for system in extent.by_cvc5:
        if (system.profile.name, key(system)) not in asked:
            part.failures.append(f"{system.profile.name}, {key(system)}: nothing was asked")
    for each in written["not_proved"]:
        part.failures += _not_asked(each["profile"], each["environment"], [each["property"]])
    part.notes.append(f"Every obligation is written down, with its hash and both solvers' answers: {index}")


def _not_asked(profile: str, environment: str, properties: Iterable[str]) -> list[str]:
    """Return a line for each property that z3 did not prove this time, so that cvc5 was not asked, though recorded."""
    _, comma, alone = environment.partition(", ")
    recorded = expected_verdicts()[profile]
    return [
        f"{profile}, {environment}: {name} was not proved again, and cvc5 was not asked"
        for name in properties
        if recorded.get(f"{name}{comma}{alone}") != Verdict.REFUTED.value
    ]


def _ask_tlc(part: Part, extent: Extent, progress: Progress) -> None:
    progress("asking TLC")
    try:
        opinions = []
        for each in tlc.second_opinions(extent.by_tlc):
            opinions.append(each)
            progress(f"TLC: {each.profile}, {each.environment}, {each.size} ({len(opinions)} of {len(extent.by_tlc)})")
    except tlc.Missing as missing:
        part.not_run = str(missing)
        return
    part.counts = {
        "instances": len(opinions),
        "states": sum(each.theirs for each in opinions),
        "properties held": sum(each.held for each in opinions),
        "properties refuted": sum(len(each.refuted) for each in opinions),
    }
    for each in opinions:
        part.failures += [f"{each.profile}, {each.environment}, {each.size}: {line}" for line in each.differences]


def _decisions(part: Part, progress: Progress) -> None:
    progress("comparing all decisions")
    part.counts = {"decisions": 0}
    try:
        part.counts["decisions"] = compare_decisions()
    except Mismatch as mismatch:
        part.failures.append(str(mismatch))


def _conform(part: Part, target: str, histories: int, seed: int, progress: Progress) -> None:
    report = conform(
        target,
        histories,
        seed=seed,
        progress=lambda what, done, total: progress(f"{target}, {what}: {done} of {total}"),
    )
    seen = report.as_json()
    wanted = ("histories", "steps", "deaths", "armed_deaths", "recoveries", "refusals", "cells_seen", "cells_wanted")
    part.counts = {name: seen[name] for name in wanted}
    part.tables = {"cells": seen["cells"]}
    part.failures += [report.mismatch] if report.mismatch else []
    if not report.mismatch:  # both have adapters of ours, which can do what the histories need
        part.failures += [f"never seen: {cell}" for cell in report.missing]
        part.failures += [f"cut short: {name}" for name in report.cut_short]


def _exhaust(part: Part, extent: Extent, progress: Progress) -> None:
    report = exhaust(
        "armed:fork", extent.orders_deep, progress=lambda given, total: progress(f"orders: {given:,} of {total:,}")
    )
    seen = report.as_json()
    wanted = ("depth", "slots", "states_seen", "states", "orders_given", "orders", "histories", "steps", "refusals")
    part.counts = {name: seen[name] for name in (*wanted, "deaths", "recoveries")}
    part.failures += [report.mismatch] if report.mismatch else [f"never seen: {each}" for each in report.missing]
    if report.depth >= EVERYTHING_IS_ORDERED and not report.mismatch:
        part.failures += [f"never ordered: {each}" for each in report.never_ordered]


def _conform_servers(part: Part, histories: int, seed: int, progress: Progress) -> None:
    try:
        from armed_conformance.postgres.cluster import profile_of, servers, version_of
    except ImportError as error:
        part.not_run = f"{error.name} is missing; do: pip install 'armed[postgres]'"
        return
    found = servers()
    if not found:
        part.not_run = "no PostgreSQL server is found: install one, or set ARMED_POSTGRES=BINDIR:BINDIR..."
        return
    total: Counter[str] = Counter()
    missed = []
    for bindir in found:
        one = Part(part.name, part.claim)
        try:
            _conform(one, f"{POSTGRES}{bindir}", histories, seed, progress)
        except (NotHere, UnknownTarget) as error:  # such as a release that no profile describes
            missed.append(f"{bindir}: {error}")
            continue
        total["servers"] += 1
        for name, count in one.counts.items():
            total[name] += sum(count.values()) if isinstance(count, dict) else count
        part.failures += [f"{bindir}: {line}" for line in one.failures]
        part.tables[f"cells, PostgreSQL {version_of(bindir)[1]}, {bindir}"] = one.tables["cells"]
        part.notes.append(f"PostgreSQL {version_of(bindir)[1]}, held to profile {profile_of(bindir).name}: {bindir}")
    part.counts = dict(total)
    part.not_run = "; ".join(missed)


def _sampled(points: dict[str, int]) -> str:
    methods = [f"one of {points[each]}, {each}" if each in points else f"no {each}" for each in ("fork", "spawn")]
    return "; ".join(methods)


def _crash_points(part: Part, extent: Extent, progress: Progress) -> None:
    part.counts = {"child boundaries": 0, "child points": 0, "supervisor boundaries": 0, "supervisor points": 0}
    sample = crash_points.sample_of_this_commit
    for target, ending in itertools.product(crash_targets.TARGETS, {**crash_points.KILLS, **crash_points.RAISED}):
        progress(f"striking a child: {target}, {ending}")
        _add_sweep(part, "child", crash_points.sweep_child(target, ending, sample(extent.child_points)))
    for start_method, every in extent.supervisor_points.items():
        at = partial("killing a supervisor, {}: instruction {:,}".format, start_method)
        sweep = crash_points.sweep_supervisor(start_method, sample(every), lambda n, at=at: progress(at(n)))  # type: ignore[misc]
        _add_sweep(part, "supervisor", sweep)
    part.notes.append(f"children: {sample(extent.child_points)}; commit {crash_points.commit() or 'unknown'}")


def _add_sweep(part: Part, side: str, sweep: crash_points.Sweep) -> None:
    part.counts[f"{side} boundaries"] += sweep.boundaries
    part.counts[f"{side} points"] += sweep.points
    part.failures += sweep.failures
    part.notes.append(str(sweep))


def _stray_writes(part: Part, extent: Extent, seed: int, progress: Progress) -> None:
    report = stray_writes.scribble(
        extent.stray_writes, seed, lambda done: progress(f"stray writes: {done:,} of {extent.stray_writes:,}")
    )
    part.counts = {
        "writes": report.writes,
        "lives": report.lives,
        "armed deaths": report.armed_deaths,
        "recoveries": report.recoveries,
        "false alarms": report.false_alarms,
    }
    part.failures += report.failures
    part.notes.append("A false alarm: a child had disarmed, was scribbled over, and is decided a crash. That is safe.")
    decision = stray_writes.copying_back()
    part.notes.append(f"The clean value of its own assignment, copied back by an armed child: {decision.value}.")
    if decision is not Decision.CLEAN:
        part.failures.append("copying back is found out, and the documents say that it is not")


def _soak(part: Part, extent: Extent, seed: int, progress: Progress) -> None:
    balance = soak.soak(extent.lives, seed, lambda done: progress(f"soak: {done:,} of {extent.lives:,} lives"))
    part.counts = {"lives": balance.lives, "recoveries": balance.recoveries, **balance.deaths}
    part.failures += balance.differences
    after = balance.after
    part.notes.append(
        f"After {balance.lives:,} lives as before: {after.slots} slots in use, {after.descriptors} descriptors, "
        f"{after.children} children, {after.threads} threads, {len(after.names)} names in /dev/shm; "
        f"{balance.growth:,} bytes more."
    )
