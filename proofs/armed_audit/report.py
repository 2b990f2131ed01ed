"""The audit report: one HTML file, and the same as JSON, from the evidence of `armed verify`.

Nothing is decided here. What the evidence says is put beside the definitions it speaks of, each with its place in the
source; what it does not say is listed as not shown. The same inputs give the same bytes, but for the block `times`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from armed_audit import figures
from armed_audit import traceability as trace
from armed_audit.verify import EXTENTS
from armed_audit.versions import REACH
from armed_audit.viewer import name_of, sign, templates, text_of, viewer
from armed_conformance.crash_points import changed, commit
from armed_model.profiles import PROFILES
from armed_model.properties import Property, leads_to, properties
from armed_proofs.matrix import ALL_NAMES

VERIFY, INDEX, MUTANTS, BENCH = "verify.json", "smt2/index.json", "mutants.json", "bench.json"
"""The files of an evidence directory; all but the first may be missing."""

PAGE, JSON = "report.html", "report.json"
"""The files that are written."""


class BadEvidence(Exception):
    """A file of the evidence cannot be read, is not what its name says, or contradicts itself."""


def gather(evidence: Path, directory: Path | None = None) -> dict[str, Any]:
    """Read the evidence, and return all that the report says, as plain data. Raises BadEvidence.

    Of benchmarks what stands in the evidence is taken, else what stands in the directory that is written to.
    """
    verified = _read(evidence / VERIFY, ("parts", "matrix", "assumptions", "versions", "left_out", "extent", "run"))
    index = _read_if_there(evidence / INDEX, ("obligations", "solvers", "not_proved"))
    if index is not None and index.get("run") != verified["run"]:
        index = None  # what lies there is of another run
    mutants = _read_if_there(evidence / MUTANTS, ("kills", "survivors", "counts", "only"))
    bench = _read_if_there(evidence / BENCH, ("machine", "topics"))
    if bench is None and directory is not None:
        bench = _read_if_there(directory / BENCH, ("machine", "topics"))
    with _as_bad_evidence():
        return _put_together(verified, index, mutants, bench)


@contextmanager
def _as_bad_evidence() -> Iterator[None]:
    """Say of what is not of our format that it is not."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, TemplateError) as error:
        told = f"the evidence is of another format, or the report has a defect: {error!r}; run armed verify again"
        raise BadEvidence(told) from error


def _put_together(
    verified: dict[str, Any], index: dict[str, Any] | None, mutants: dict[str, Any] | None, bench: dict[str, Any] | None
) -> dict[str, Any]:
    cells: list[dict[str, Any]] = verified["matrix"]
    cited, promised, in_code, tested = trace.citing(), trace.claims(), trace.code(), trace.tests()
    loose = trace.dangling(cited, promised, in_code, cells, tested if trace.repository() else None)
    loose += [f"nothing is decided in {each}" for each in _not_decided(verified)]
    stale = _stale(verified, cells)
    return {
        "report": "armed",
        "version": version("armed"),
        "holds": _holds(verified),
        "run": verified["run"],
        "extent": verified["extent"],
        "strict": verified["strict"],
        "seed": verified["seed"],
        "versions": verified["versions"],
        "commit_of_this_report": commit(),
        "tests_are_here": trace.repository() is not None,
        "stale": stale,
        "dangling": loose,
        "verdicts": _counts(cells),
        "parts": [{key: value for key, value in part.items() if key != "seconds"} for part in verified["parts"]],
        "assumptions": verified["assumptions"],
        "trusted_base": _trusted_base(verified, index),
        "claims": _claims(cited, promised, in_code, tested, cells),
        "properties": _properties(cells, index, mutants, tested),
        "systems": _systems(index),
        "not_shown": _not_shown(verified, index, mutants, bench, cited),
        "mutants": mutants and {key: mutants[key] for key in ("mutants", "counts", "survivors", "only")},
        "bench": bench,
        "check_again": _check_again(verified, index),
        "matrix": [{key: value for key, value in cell.items() if key != "seconds"} for cell in cells],
        "times": _times(verified, cells),
    }


def render(data: Mapping[str, Any], root: str = "") -> str:
    """Return the report as one page of HTML that needs nothing else.

    `root`, which ends in a slash, is where the sources are, as seen from the page; without it they are named only.
    """
    page: str = templates().get_template("report.html").render(
        data,
        root=root,
        profiles=[*PROFILES],
        reach=REACH,
        style=text_of("report.css"),
        viewer=viewer(data["matrix"]),
        heat_maps=figures.heat_maps(data["parts"]),
        plots=figures.plots(data["bench"]) if data["bench"] else "",
    )
    return page


def write(data: Mapping[str, Any], directory: Path) -> Path:
    """Write report.html and report.json to the directory, and return the first. Raises BadEvidence and OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    checkout = trace.repository()
    root = "" if checkout is None else Path(os.path.relpath(checkout, directory.resolve())).as_posix() + "/"
    with _as_bad_evidence():
        texts = {JSON: json.dumps(data, indent=1) + "\n", PAGE: render(data, root)}
    try:
        for name, text in texts.items():
            (directory / f".{name}").write_text(text, encoding="utf-8")
        for name in texts:  # both or, if it is interrupted before, none
            (directory / f".{name}").replace(directory / name)
    finally:
        for name in texts:
            (directory / f".{name}").unlink(missing_ok=True)
    return directory / PAGE


def _read(file: Path, wanted: Sequence[str]) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadEvidence(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise BadEvidence(f"{file} is no JSON: {error}") from None
    missing = [name for name in wanted if not isinstance(found, dict) or name not in found]
    if missing:
        raise BadEvidence(f"{file} is not what `armed` writes there: it has no {', '.join(missing)}")
    return dict(found)


def _holds(verified: Mapping[str, Any]) -> bool:
    """Whether the run holds, by its parts. Raises BadEvidence where it says otherwise."""
    parts = verified["parts"]
    holds = any(part["holds"] for part in parts) and not any(part["failures"] for part in parts)
    if holds != verified["holds"]:
        told = "holds, and its parts do not" if verified["holds"] else "does not hold, and its parts do"
        raise BadEvidence(f"the evidence contradicts itself: the run {told}; run armed verify again")
    return holds


def _not_decided(verified: Mapping[str, Any]) -> list[str]:
    """Return the profiles that a run of this extent decides, and of which there is no verdict."""
    decided = {cell["profile"] for cell in verified["matrix"]}
    return [profile for profile in EXTENTS[verified["extent"]].profiles if profile not in decided]


def _read_if_there(file: Path, wanted: Sequence[str]) -> dict[str, Any] | None:
    return _read(file, wanted) if file.exists() else None


def _counts(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return how many cells of each profile have each verdict."""
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        of_profile = counts.setdefault(cell["profile"], {})
        of_profile[cell["verdict"]] = of_profile.get(cell["verdict"], 0) + 1
    return counts


def _stale(verified: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each way in which the evidence is of something else than what is here now."""
    lines = []
    then, now = verified["versions"], {"armed": version("armed"), "commit": commit()}
    for name, what in (("armed", "version"), ("commit", "commit")):
        if then[name] != now[name]:
            lines.append(f"It is of {what} {then[name] or 'unknown'}; here is {what} {now[name] or 'unknown'}.")
    if not then["commit"]:
        lines.append("It does not say of which commit it is.")
    if then.get("changed"):
        lines.append("The work tree had changes that were not committed: the commit does not say what was verified.")
    if changed():
        lines.append("The work tree has changes that are not committed: what is shown of the source is of these.")
    decided = {(cell["profile"], cell["property"]) for cell in cells}
    for profile in [name for name in PROFILES if name in {cell["profile"] for cell in cells}]:
        missing = [name for name in ALL_NAMES if (profile, name) not in decided]
        lines += [f"It has no verdict of {name} in {profile}." for name in missing]
    return lines


# --- What has to be believed -----------------------------------------------------------------------------------------


def _trusted_base(verified: Mapping[str, Any], index: Mapping[str, Any] | None) -> dict[str, Any]:
    packages = []
    for package, (_, role) in trace.PACKAGES.items():
        lines = {name: trace.lines_of(text) for name, text in trace.sources(package)}
        listed = [{"file": name, "lines": count} for name, count in lines.items()]
        packages.append({"package": package, "role": role, "lines": sum(lines.values()), "files": listed})
    versions = verified["versions"]
    others = [
        ("Python", versions["python"], "CPython runs everything."),
        ("Linux", versions["kernel"], "fork, wait, signals, pidfds and shared memory do as they are documented."),
        ("the solver", versions["solver"], "Answers the queries. What it calls unsat is believed."),
        *[(each.partition(" ")[0], each.partition(" ")[2], "Asked the same queries, those with the same facts as one.")
          for each in (index["solvers"][1:] if index else [])],
        ("transitions", versions["transitions"], "Makes the lifecycle's machine, which watches flags; proves nothing."),
        ("hypothesis", versions["hypothesis"], "Draws the histories; what it does not draw is not tried."),
    ]  # fmt: skip
    return {
        "packages": packages,
        "others": [{"what": what, "version": number, "role": role} for what, number, role in others],
        "calls": trace.calls_out("armed"),
    }


# --- Claims and properties -------------------------------------------------------------------------------------------


def _claims(
    cited: Sequence[trace.Citing],
    promised: Mapping[str, Mapping[str, str]],
    in_code: Mapping[str, Sequence[trace.Place]],
    tested: Mapping[str, Sequence[trace.Place]],
    cells: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    verdicts: dict[str, dict[str, str]] = {}
    for cell in cells:
        if cell["children"] == "all":
            verdicts.setdefault(cell["property"], {})[cell["profile"]] = sign(cell)
    found = []
    for claim, words in promised.items():
        by = {what: [each.name for each in cited if each.what == what and claim in each.cites]
              for what in ("row", "action", "property")}  # fmt: skip
        tests = [place for name in (claim, *by["property"]) for place in tested.get(name, ())]
        found.append(
            {
                "claim": claim,
                "sentence": words["sentence"],
                "not_modelled": words.get("not_modelled", ""),
                "untested": words.get("untested", ""),
                "rows": by["row"],
                "actions": [_place(name, "model/armed_model/system.py") for name in by["action"]],
                "properties": [{"name": name, "verdicts": verdicts.get(name, {})} for name in by["property"]],
                "tests": [asdict(place) for place in dict.fromkeys(tests)],
                "code": [asdict(place) for place in in_code.get(claim, ())],
            }
        )
    return found


def _place(name: str, file: str) -> dict[str, Any]:
    place = trace.definitions(file).get(name)
    return {"name": name, "file": file, "line": 0} if place is None else asdict(place)


def _properties(
    cells: Sequence[Mapping[str, Any]],
    index: Mapping[str, Any] | None,
    mutants: Mapping[str, Any] | None,
    tested: Mapping[str, Sequence[trace.Place]],
) -> list[dict[str, Any]]:
    """Return each property with its verdicts, in the order of the model."""
    written = _written(index)
    of_the_model = {
        each.name for profile in PROFILES.values() for each in (*properties(profile), *leads_to(profile))
        if isinstance(each, Property) and each.of_the_model
    }  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    profiles = list(dict.fromkeys(cell["profile"] for cell in cells))
    for cell in sorted(
        cells,
        key=lambda each: (_place_of(each["property"]), profiles.index(each["profile"]), each["children"] != "all"),
    ):
        name = cell["property"]
        entry = found.setdefault(
            name,
            {
                **_place(name, "model/armed_model/properties.py"),
                "sentence": cell["sentence"],
                "environment": cell["environment"],
                "cites": cell["cites"],
                "of_the_model": name in of_the_model,
                "tests": [asdict(place) for place in tested.get(name, ())],
                "kills": None if mutants is None else mutants["kills"].get(name, {"all": 0, "alone": 0}),
                "verdicts": [],
            },
        )
        texts = written.get(_where(cell), [])
        entry["verdicts"].append(
            {
                "profile": cell["profile"],
                "children": cell["children"],
                "verdict": cell["verdict"],
                "sign": sign(cell),
                "key": f"{cell['profile']}: {name_of(cell)}",
                "scope": cell["scope"],
                "assumptions": cell["assumptions"],
                "solvers": cell["solvers"] + (index["solvers"][1:] if index and texts else []),
                "obligations": cell["obligations"],
                "texts": len(texts),
                "digest": _digest(texts),
                "premise": None if cell["premise"] is None else len(cell["premise"]),
                "reason": cell["reason"],
                "finding": cell["finding"],
            }
        )
    return list(found.values())


def _place_of(name: str) -> int:
    return ALL_NAMES.index(name) if name in ALL_NAMES else len(ALL_NAMES)


def _written(index: Mapping[str, Any] | None) -> dict[tuple[str, str, str | None], list[str]]:
    """Return the hashes of the texts, by profile, environment and property (None: the invariant's)."""
    found: dict[tuple[str, str, str | None], list[str]] = {}
    for each in index["obligations"] if index else []:
        found.setdefault((each["profile"], each["environment"], each["property"]), []).append(each["sha256"])
    return found


def _where(cell: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return where the index has a cell's texts."""
    alone = "" if cell["children"] == "all" else f", {cell['children']}"
    return cell["profile"], cell["environment"] + alone, cell["property"]


def _digest(hashes: Sequence[str]) -> str:
    """Return one hash for many: of the sorted hashes, a line each, as `sort | sha256sum` makes it; "" for none."""
    return hashlib.sha256("".join(f"{each}\n" for each in sorted(hashes)).encode()).hexdigest() if hashes else ""


def _systems(index: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return what is written down of each profile in each environment."""
    systems: dict[tuple[str, str], dict[str, Any]] = {}
    hashes: dict[tuple[str, str], list[str]] = {}
    for each in index["obligations"] if index else []:
        key = (each["profile"], each["environment"])
        system = systems.setdefault(
            key,
            {"profile": key[0], "environment": key[1], "folder": each["file"].rpartition("/")[0],
             "invariant": 0, "properties": 0, "agreed": 0},
        )  # fmt: skip
        system["invariant" if each["property"] is None else "properties"] += 1
        system["agreed"] += each["z3"] == each["cvc5"] == each["expected"]
        hashes.setdefault(key, []).append(each["sha256"])
    return [{**system, "digest": _digest(hashes[key])} for key, system in systems.items()]


# --- What is not shown -----------------------------------------------------------------------------------------------


def _not_shown(
    verified: Mapping[str, Any],
    index: Mapping[str, Any] | None,
    mutants: Mapping[str, Any] | None,
    bench: Mapping[str, Any] | None,
    cited: Sequence[trace.Citing],
) -> dict[str, Any]:
    parts, cells = verified["parts"], verified["matrix"]
    not_run = [f"{part['part']}: {part['not_run']}" for part in parts if part["not_run"] and not part["failures"]]
    if index is None:
        not_run.append("the queries as SMT-LIB text: armed verify writes them, with cvc5 and without --quick")
    if mutants is not None and mutants["only"]:
        not_run.append(f"mutants of the specification, but for those with {mutants['only']} in their names")
    if mutants is None:
        not_run.append(f"mutants of the specification: armed mutate --json EVIDENCE/{MUTANTS}")
    if bench is None:
        not_run.append(f"benchmarks: armed bench --json EVIDENCE/{BENCH}")
    if not any("postgres" in part["part"].lower() for part in parts):
        not_run.append("a PostgreSQL server held to the profile of its release: armed conform postgres:BINDIR")
    if trace.repository() is None:
        not_run.append("tests: they are not in this installation; in the checkout, python -m pytest")
    written = _written(index)
    unwritten = [
        f"{cell['profile']}: {name_of(cell)}" for cell in cells
        if index and cell["verdict"] == "proved" and cell["profile"] in PROFILES
        and _where(cell) not in written
    ]  # fmt: skip
    of_another = {
        name: f"{name}: of commit {found.get('commit') or 'unknown'}" + ", with changes" * bool(found.get("changed"))
        for name, found in ((MUTANTS, mutants), (BENCH, bench))
        if found is not None and (found.get("changed") or found.get("commit") != verified["versions"]["commit"])
    }
    survive = mutants["survivors"] if mutants is not None and MUTANTS not in of_another else ()
    return {
        "left_out": verified["left_out"],
        "of_another_commit": [*of_another.values()],
        "not_run": not_run,
        "failed": [f"{part['part']}: {line}" for part in parts for line in part["failures"]]
        + [f"a mutant survives: {each}" for each in survive],
        "open": [f"{cell['profile']}: {name_of(cell)}" for cell in cells if cell["verdict"] == "open"],
        "without_texts": unwritten,
        "refuted": _refuted(cells),
        "out_of_scope": _out_of_scope(cells),
        "definitional": sorted({cell["property"] for cell in cells if cell["definitional"]}, key=_place_of),
        "citing_nothing": [each.name for each in cited if each.what == "property" and not each.cites],
    }  # fmt: skip


def _refuted(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the refutations, those of a property that are so for the same reason as one: steps by profile."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in cells:
        if cell["verdict"] == "refuted":
            key = (name_of(cell), cell["finding"]["sentence"] if cell["finding"] else "")
            one = found.setdefault(key, {"property": key[0], "finding": cell["finding"], "steps": {}})
            one["steps"][cell["profile"]] = len(cell["counterexample"] or ())
    return sorted(found.values(), key=lambda each: _place_of(each["property"].partition(",")[0]))


def _out_of_scope(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell["verdict"] == "out of scope":
            found.setdefault((name_of(cell), cell["reason"]), []).append(cell["profile"])
    return [{"property": name, "reason": reason, "profiles": profiles} for (name, reason), profiles in found.items()]


# --- How to check it again -------------------------------------------------------------------------------------------


def _check_again(verified: Mapping[str, Any], index: Mapping[str, Any] | None) -> list[dict[str, str]]:
    option = "" if verified["extent"] == "usual" else f" --{verified['extent']}"
    first = index["obligations"][0] if index and index["obligations"] else None
    commands = [
        ("all of it, with the same histories", f"armed verify{option} --seed {verified['seed']}"),
        ("one cell, its run told step by step", "armed prove --profile 18 --property armed_exit_triggers_recovery"),
        ("the whole matrix, against the recorded verdicts", "armed prove"),
        ("a bounded instance, every state", "armed explore --profile reference --slots 2 --children 2"),
        ("the specification, in another model checker", "armed export tla --profile reference --to spec"),
        ("that the properties notice changes of the model", f"armed mutate --json armed-evidence/{MUTANTS}"),
        ("real processes against the model", f"armed conform armed:fork --seed {verified['seed']}"),
        ("real processes, every order to a depth", "armed conform armed:fork --depth 5"),
        ("a PostgreSQL server", "armed conform postgres:BINDIR"),
        ("a supervisor's own journal", "armed check-trace journal.jsonl"),
        ("the figures", f"armed bench --json armed-evidence/{BENCH}"),
        ("the tests", "python -m pytest"),
        ("this report", "armed report DIR"),
    ]
    if first is not None:
        commands[3:3] = [
            ("one text: its hash", f"zcat {first['file']} | sha256sum    # {first['sha256']}"),
            ("one text, by a solver of your own", f"zcat {first['file']} | cvc5 --lang smt2    # {first['expected']}"),
            ("the digest of a system", f"for f in {first['file'].rpartition('/')[0]}/*.gz; do zcat $f | sha256sum | "
                                       "cut -c1-64; done | LC_ALL=C sort | sha256sum"),
        ]  # fmt: skip
    return [{"what": what, "command": command} for what, command in commands]


def _times(verified: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what differs from run to run though nothing has changed: it stands apart from all else."""
    by_property: dict[str, float] = {}
    for cell in cells:
        by_property[cell["property"]] = by_property.get(cell["property"], 0.0) + cell["seconds"]
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "verify_seconds": verified["seconds"],
        "parts": {part["part"]: part["seconds"] for part in verified["parts"]},
        "properties": {name: round(seconds, 3) for name, seconds in by_property.items()},
        "cells": {f"{cell['profile']}: {name_of(cell)}": cell["seconds"] for cell in cells},
    }
