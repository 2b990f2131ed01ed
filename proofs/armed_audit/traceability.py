"""From each claim to the model, the proofs, the tests and the code, and back; and what leads nowhere.

Everything is read from the definitions themselves and from the source files: there is no second list to keep in step.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from armed_model.lifecycle import ROWS, WALSENDER_ROWS
from armed_model.profiles import PROFILES, Profile
from armed_model.properties import ASSUMPTIONS, leads_to, properties
from armed_model.system import ENVIRONMENTS, System
from armed_proofs.matrix import ALL_NAMES, Verdict

CLAIM = re.compile(r"\bC\d+\b")
COMMIT = re.compile(r"[0-9a-f]{12}")

PACKAGES = {
    "armed_model": ("model", "The specification. What is proved is what is written here: a mistake in it is not found "
                             "by any proof. Its search and interpreter are held against z3 and TLC."),
    "armed_proofs": ("proofs", "Makes the queries from the specification and asks the solvers. Every query is written "
                               "down, so that another solver can be asked; runs are taken again by z3."),
    "armed": ("impl", "The supervisor. Not proved: tested against the model."),
    "armed_conformance": ("proofs", "Drives real processes beside the model. What it does not observe is not "
                                    "compared."),
    "armed_audit": ("proofs", "Runs everything, and writes this report."),
}  # fmt: skip
"""Our packages: the source root of each, and what is believed of it."""

TO_THE_KERNEL = ("ctypes", "fcntl", "mmap", "os", "resource", "select", "signal", "socket")
"""The modules of Python by which a package of ours reaches the kernel."""


@dataclass(frozen=True)
class Place:
    """Something in the source: its name, the file relative to the repository, and the line (from 1)."""

    name: str
    file: str
    line: int


def claims() -> dict[str, dict[str, str]]:
    """Return C1 to C16: each with its sentence; `not_modelled` or `untested` say why there is nothing."""
    return tomllib.loads(files("armed_audit").joinpath("claims.toml").read_text(encoding="utf-8"))


def repository() -> Path | None:
    """Return the checkout that this runs from; None where the packages are installed without it."""
    root = Path(str(files("armed_audit"))).parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "tests").is_dir() else None


def sources(package: str) -> list[tuple[str, str]]:
    """Return the Python files of a package of ours: the name relative to the repository, and the text."""
    folder = Path(str(files(package)))
    named = sorted((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*.py"))
    return [(f"{PACKAGES[package][0]}/{package}/{name}", file.read_text(encoding="utf-8")) for name, file in named]


def lines_of(text: str) -> int:
    """Return how many lines are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


def calls_out(package: str) -> dict[str, list[str]]:
    """Return what a package uses of the modules that reach the kernel, by module."""
    found: dict[str, set[str]] = {}
    for _, text in sources(package):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr.islower():
                module = node.value.id
                if module in TO_THE_KERNEL:
                    found.setdefault(module, set()).add(node.attr)
    return {module: sorted(names) for module, names in sorted(found.items())}


# --- Where things are defined ----------------------------------------------------------------------------------------


@cache
def definitions(file: str) -> dict[str, Place]:
    """Return where a file of the model defines each action or property, by its name.

    What is no call's first argument, but a name that is chosen from, is where it is written.
    """
    tree = [*ast.walk(ast.parse(dict(sources("armed_model"))[file]))]
    found: dict[str, Place] = {}
    for node in tree:
        if isinstance(node, ast.Call):
            for name in _names_defined(node):
                found.setdefault(name, Place(name, file, node.lineno))
    for node in tree:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.setdefault(node.value, Place(node.value, file, node.lineno))
    return found


def _names_defined(call: ast.Call) -> Iterator[str]:
    """Yield the name that a call defines something by: its first argument, or a string that is an argument's name."""
    for argument in call.args[:1]:
        for node in ast.walk(argument):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                yield node.value


def tests() -> dict[str, list[Place]]:
    """Return the tests that speak of each property or claim: those in whose source its name stands."""
    return _mentions(_test_functions(), {*ALL_NAMES, *claims()})


def _test_functions() -> Iterator[tuple[Place, str]]:
    root = repository()
    for file in sorted((root / "tests").rglob("test_*.py")) if root else []:
        if file.parent.name in ("audit", "docs"):  # those are about what is said of claims and properties
            continue
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                first = min([node.lineno, *[each.lineno for each in node.decorator_list]])
                place = Place(node.name, file.relative_to(root).as_posix(), node.lineno) if root else None
                assert place is not None
                yield place, "\n".join(lines[first - 1 : node.end_lineno])


def _mentions(texts: Iterable[tuple[Place, str]], wanted: set[str]) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {name: [] for name in sorted(wanted)}
    for place, text in texts:
        for name in sorted(set(re.findall(r"\w+", text)) & wanted):
            found[name].append(place)
    return found


def code() -> dict[str, list[Place]]:
    """Return the lines of the supervisor that name each claim."""
    found: dict[str, list[Place]] = {claim: [] for claim in claims()}
    for file, text in sources("armed"):
        for number, line in enumerate(text.splitlines(), 1):
            for claim in sorted(set(CLAIM.findall(line))):
                found.setdefault(claim, []).append(Place(line.strip(), file, number))
    return found


# --- Who cites what --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Citing:
    """What cites something: a row of the lifecycle, an action or a property, with the claims and commits it cites."""

    what: str
    name: str
    cites: tuple[str, ...]


def citing() -> list[Citing]:
    """Return everything in the model that may cite a claim, in every profile and environment, each once."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in (*ROWS, *WALSENDER_ROWS):
        name = f"{row.trigger.value}: {row.source.value} to {row.dest.value}"
        found.setdefault(("row", name), set()).update(row.cites)
    for profile in PROFILES.values():
        for environment in ENVIRONMENTS:
            for action in System(profile, environment).actions:
                found.setdefault(("action", action.name), set()).update(action.cites)
        for name, cites in _cited_by_properties(profile):
            found.setdefault(("property", name), set()).update(cites)
    return [Citing(what, name, tuple(sorted(cites, key=in_order))) for (what, name), cites in found.items()]


def _cited_by_properties(profile: Profile) -> list[tuple[str, tuple[str, ...]]]:
    safety = [(each.name, each.cites) for each in properties(profile)]
    return safety + [(each.name, each.cites) for each in leads_to(profile)]


def in_order(claim: str) -> tuple[int, str]:
    """Return what sorts C2 before C10."""
    return (int(claim[1:]), "") if CLAIM.fullmatch(claim) else (99, claim)


def dangling(
    cited: Sequence[Citing],
    promised: Mapping[str, Mapping[str, str]],
    in_code: Iterable[str] = (),
    cells: Iterable[Mapping[str, Any]] = (),
    tested: Mapping[str, Sequence[Place]] | None = None,
) -> list[str]:
    """Return a line for everything that leads nowhere: there should be none.

    A citation of no claim, a claim that nothing cites, or no test, and no word says why, a cell of a property or under
    an assumption that the model does not have, a verdict that rests on no query, a proof whose premise no run reaches.
    """
    lines = [
        f"the {each.what} {each.name} cites {one}, which is neither a claim nor a commit"
        for each in cited
        for one in each.cites
        if one not in promised and not COMMIT.fullmatch(one)
    ]
    lines += [f"the supervisor's code cites {one}, which is no claim" for one in in_code if one not in promised]
    named = {one for each in cited for one in each.cites}
    for name, claim in promised.items():
        if name not in named and not claim.get("not_modelled"):
            lines.append(f"nothing in the model cites {name}, and nothing says why")
        if name in named and claim.get("not_modelled"):
            lines.append(f"{name} is said not to be modelled, and is cited")
        if tested is not None and not tested.get(name) and not {"not_modelled", "untested"} & claim.keys():
            lines.append(f"no test names {name}, and nothing says why")
    for cell in cells:
        where = f"{cell['profile']}: {cell['property']}"
        if cell["property"] not in ALL_NAMES:
            lines.append(f"{where} is of no property of this model")
        lines += [f"{where} assumes {one}, which is not said" for one in cell["assumptions"] if one not in ASSUMPTIONS]
        lines += [f"{where} cites {one}, which is no claim" for one in cell["cites"]
                  if one not in promised and not COMMIT.fullmatch(one)]  # fmt: skip
        if cell["verdict"] not in {each.value for each in Verdict}:
            lines.append(f"{where} is {cell['verdict']!r}, which is no verdict")
        if cell["verdict"] == "proved" and not cell["obligations"]:
            lines.append(f"{where} is proved by no query")
        if cell["verdict"] == "proved" and cell["premise"] is None:
            lines.append(f"{where} is proved, and no run reaches its premise")
        if cell["verdict"] == "refuted" and cell["counterexample"] is None:
            lines.append(f"{where} is refuted by no run")
        if cell["verdict"] == "out of scope" and not cell["reason"]:
            lines.append(f"{where} is out of scope for no reason")
    return lines
