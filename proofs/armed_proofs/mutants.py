"""`armed mutate`: judge every mutant of the specification, in several processes, and say who kills what.

`mutations.py` lists the mutants; `judge.py` judges one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import cache
from typing import Any

from armed_model.properties import NAMES
from armed_model.system import ENVIRONMENTS
from armed_proofs.judge import Baseline, Fate, Judgement, Place, baseline, judge
from armed_proofs.mutations import ORDER, Mutant, mutants
from armed_proofs.processes import workers

PROCESSES = 2
"""How many mutants are judged at a time."""


class Baselines(dict[Place, Baseline]):
    """What is known of each unmutated system, found when it is first asked for."""

    def __missing__(self, place: Place) -> Baseline:
        self[place] = baseline(place)
        return self[place]


@dataclass(frozen=True)
class Kills:
    """How many mutants a property is refuted by (or changes the length of its shortest run), and how many it alone.

    That is counted in the first instance in which a mutant is noticed: another property may notice it in a larger one.
    """

    all: int
    alone: int


@dataclass(frozen=True)
class Report:
    """What became of every mutant, in the order of the story. `seconds` is the time on the wall."""

    judgements: tuple[Judgement, ...]
    seconds: float

    @property
    def counts(self) -> dict[Fate, int]:
        """How many mutants met each fate."""
        found = Counter(each.fate for each in self.judgements)
        return {fate: found[fate] for fate in Fate}

    @property
    def survivors(self) -> tuple[Judgement, ...]:
        """The mutants that are neither killed nor equivalent: there must be none."""
        return tuple(each for each in self.judgements if not each.fate.killed and each.fate is not Fate.EQUIVALENT)

    @property
    def kills(self) -> dict[str, Kills]:
        """What each property kills."""
        by = [each.by for each in self.judgements if each.fate.killed]
        names = (*NAMES, *sorted({name for each in by for name in each if ": " not in name} - {*NAMES}))
        return {name: Kills(sum(name in each for each in by), sum(each == (name,) for each in by)) for name in names}

    @property
    def redundant(self) -> tuple[str, ...]:
        """The properties without which every mutant that is killed would still be killed."""
        return tuple(name for name, kills in self.kills.items() if not kills.alone)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "mutants": len(self.judgements),
            "killed": sum(each.fate.killed for each in self.judgements),
            "counts": {fate.name.lower(): count for fate, count in self.counts.items()},
            "survivors": [each.mutant for each in self.survivors],
            "kills": {name: {"all": each.all, "alone": each.alone} for name, each in self.kills.items()},
            "seconds": round(self.seconds, 1),
            "judgements": [each.as_json() for each in self.judgements],
        }


def mutate(
    progress: Callable[[str], None] = lambda _: None, only: str = "", processes: int = PROCESSES
) -> Report:
    """Judge every mutant, or those with `only` in their names. `progress` is told of each when it is judged."""
    began = time.perf_counter()
    chosen = [position for position, mutant in enumerate(mutants()) if only in mutant.name]
    known: dict[Place, Baseline] = {}  # of the profiles that nearly all mutants are of: the rest when it is needed
    if not only:
        with workers(processes) as pool:
            places = [(profile.name, environment) for profile in ORDER[:2] for environment in ENVIRONMENTS]
            tasks = {pool.submit(baseline, place): place for place in places}
            for task in as_completed(tasks):
                known[tasks[task]] = task.result()
                progress(f"{', '.join(tasks[task])}: unmutated ({len(known)} of {len(tasks)})")
    found: dict[int, Judgement] = {}
    with workers(processes, _KNOWN.update, (known,)) as pool:
        judging = {pool.submit(_judge, position): position for position in chosen}
        for each in as_completed(judging):
            judgement = found[judging[each]] = each.result()
            progress(f"{len(found)} of {len(chosen)}: {describe(judgement)}")
    return Report(tuple(found[position] for position in chosen), time.perf_counter() - began)


def describe(judgement: Judgement) -> str:
    """Say in a line what became of a mutant."""
    by = list(judgement.by[:3]) + (["..."] if len(judgement.by) > 3 else [])
    details = [", ".join(by), judgement.where, judgement.why]
    return f"{judgement.mutant}: {judgement.fate.value}" + "".join(f"; {each}" for each in details if each)


_KNOWN = Baselines()


@cache
def _mutants() -> tuple[Mutant, ...]:
    return mutants()


def _judge(position: int) -> Judgement:
    return judge(_mutants()[position], _KNOWN)
