"""Which candidates are inductive together? A tool for whoever changes the model; never part of a verification.

Starting from all candidates that hold at first, those that some action does not preserve are dropped, until none is:
what remains is the largest inductive set, and the order of dropping does not matter. What was dropped is recorded in
`invariants.toml`; what remains is checked like anything else from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from armed_model.profiles import PROFILES, Profile
from armed_model.system import ENVIRONMENTS, System
from armed_proofs.invariants import candidates, key
from armed_proofs.obligations import discharge, invariant_obligations


def select(system: System) -> list[str]:
    """Return the names of the candidates that are not in the largest inductive set."""
    every = candidates(system)
    remaining = dict(every)
    at_first = [each for each in invariant_obligations(system, remaining) if each.name.startswith("init: ")]
    for answer in discharge(at_first):
        if not answer.proved:
            del remaining[answer.name.removeprefix("init: ")]
    while True:
        failed = {
            answer.name.split(": ")[-1].split(" preserves ")[-1]
            for answer in discharge(invariant_obligations(system, remaining))
            if not (answer.proved or answer.answer.startswith("vacuous"))
        }
        if not failed:
            return [name for name in every if name not in remaining]
        remaining = {name: each for name, each in remaining.items() if name not in failed}


def systems(profile: Profile) -> list[System]:
    """Return every system of a profile for which an invariant is recorded."""
    return [
        System(profile, environment, backends_alone) for environment in ENVIRONMENTS for backends_alone in (False, True)
    ]


def record(progress: Callable[[str], None] = lambda _: None) -> str:
    """Choose for every profile and environment, write `invariants.toml`, and return its path."""
    lines = ["# Recorded by `armed prove --select`: which candidates of invariants.py are not inductive, and where."]
    for profile in PROFILES.values():
        lines += ["", f'["{profile.name}"]']
        for system in systems(profile):
            progress(f"{profile.name}, {key(system)}: which candidates are inductive?")
            lines.append(f'"{key(system)}" = [')
            lines += [f'    "{name}",' for name in select(system)]
            lines.append("]")
    path = str(files("armed_proofs").joinpath("invariants.toml"))
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path
