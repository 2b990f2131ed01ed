"""The matrix of property and profile as a piece of HTML: open a cell, and step through its run.

It is complete in itself (no network, no framework): the markup, its style, its script, and the runs as data. Without a
script it is still a table of verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from armed_audit.runs import SAYS, SHOWN, NoSuchRun, blank, states_of_run
from armed_model.profiles import CONTROLS
from armed_model.properties import OF_A_CHILD, OF_A_SLOT
from armed_proofs.matrix import ALL_NAMES, Matrix

RUNS = ("counterexample", "premise")
"""What a cell may have a run to."""

ALWAYS_SHOWN = {"mode", "owed", "torn", SAYS, "flag", "in_use", "owner", "phase", "slot_of", "status", "holds", "armed"}
"""The other variables are shown where a run changes them."""

GROUPS = ("what is so", "what the supervisor believes", "what the child believes", "what is true, and nobody reads")
"""The groups of variables, in the order in which they are shown."""


@cache
def templates() -> Environment:
    """Return the templates of this package; everything that is put into them is escaped."""
    return Environment(
        loader=PackageLoader("armed_audit"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def text_of(name: str) -> str:
    """Return a file that lies beside the templates."""
    return files("armed_audit").joinpath("templates", name).read_text(encoding="utf-8")


def as_script(data: Any) -> str:
    """Return JSON that may stand in a script element: nothing in it ends the element."""
    return json.dumps(data, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")


def viewer(matrices: Sequence[Matrix] | Sequence[Mapping[str, Any]], name: str = "matrix") -> str:
    """Return the matrix as a fragment of HTML, to be put into a page as it is.

    Takes what `armed_proofs.matrix.decide` returns, or cells as `armed prove --json` writes them (in `armed verify`:
    `matrix`). `name` begins every id: give another one to each matrix of a page. A run that the model of this version
    does not have is shown as a list of its actions, and said to be so.
    """
    cells = cells_of(matrices)
    rows = _rows(cells)
    data = {
        "blank": blank(),
        "variables": _variables(),
        "groups": GROUPS,
        "always": sorted(ALWAYS_SHOWN),
        "cells": {_key(cell): _shown(cell) for cell in cells},
    }
    profiles = list(dict.fromkeys(cell["profile"] for cell in cells))
    groups = {
        "Profiles": [each for each in profiles if each not in CONTROLS],
        "Negative controls": [each for each in profiles if each in CONTROLS],
    }
    page: str = templates().get_template("viewer.html").render(
        name=name,
        tables=[
            (title, shown, [row for row in rows if row["cells"].keys() & shown]) for title, shown in groups.items()
        ],
        key=_key,
        sign=sign,
        data=as_script(data),
        style=text_of("viewer.css"),
        script=text_of("viewer.js"),
    )
    return page


def cells_of(matrices: Sequence[Matrix] | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the cells in the published format, whichever way they were given."""
    cells: list[Mapping[str, Any]] = []
    for each in matrices:
        cells += [cell.as_json() for cell in each.cells] if isinstance(each, Matrix) else [each]
    return cells


def name_of(cell: Mapping[str, Any]) -> str:
    """Return the name of a cell's row: the property, and whether it was decided for backends alone."""
    return str(cell["property"]) + (", backends alone" if cell["children"] != "all" else "")


def sign(cell: Mapping[str, Any]) -> str:
    """Return the verdict in a word or two; of a refutation with the length of its run."""
    match cell["verdict"]:
        case "refuted":
            return f"refuted {len(cell['counterexample'])}"
        case "out of scope":
            return "-"
        case "open":
            return "OPEN"
    return str(cell["verdict"]) + ("*" if cell["definitional"] else "")


def _key(cell: Mapping[str, Any]) -> str:
    return f"{cell['profile']}: {name_of(cell)}"


def _rows(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each property: its name, its first cell, and its cells by profile; in the model's order."""
    rows: dict[str, dict[str, Any]] = {}
    for cell in cells:
        name = name_of(cell)
        rows.setdefault(name, {"name": name, "first": cell, "cells": {}})["cells"][cell["profile"]] = cell
    known = {name: position for position, name in enumerate(ALL_NAMES)}

    def place(row: Mapping[str, Any]) -> tuple[int, bool]:
        return known.get(row["first"]["property"], len(known)), row["first"]["children"] != "all"

    return sorted(rows.values(), key=place)


def _variables() -> list[dict[str, str]]:
    """Return what is shown of slots, children and the rest: name, meaning, whose it is, and who knows it."""
    shown = [
        {"name": each.name, "meaning": _meaning(each.meaning), "group": _group(each), "of": _of(each)}
        for each in SHOWN
    ]
    says = {"name": SAYS, "meaning": "what the flag stands for", "group": GROUPS[0], "of": "slot"}
    return [says, *shown]


def _meaning(text: str) -> str:
    return text.removeprefix("supervisor-private: ").removeprefix("child-private: ")


def _group(variable: Any) -> str:
    supervisors = ("mode", "shutdown", "launching", "launching_as")
    if variable.ghost:
        return GROUPS[3]
    if variable.meaning.startswith("child-private"):
        return GROUPS[2]
    return GROUPS[1] if variable.meaning.startswith("supervisor-private") or variable.name in supervisors else GROUPS[0]


def _of(variable: Any) -> str:
    if any(variable is each for each in OF_A_SLOT):
        return "slot"
    return "child" if any(variable is each for each in OF_A_CHILD) else ""


def _shown(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the script needs of a cell; its runs with their states."""
    runs = {}
    for which in RUNS:
        if cell[which] is not None:
            try:
                runs[which] = states_of_run(
                    cell["profile"], cell["environment"], cell[which], cell["children"] != "all"
                )
            except NoSuchRun:
                runs[which] = {"steps": cell[which], "unknown": True}
    finding = cell["finding"]
    return {
        "property": name_of(cell),
        "profile": cell["profile"],
        "environment": cell["environment"],
        "verdict": cell["verdict"],
        "scope": cell["scope"],
        "sentence": cell["sentence"],
        "cites": cell["cites"],
        "assumptions": cell["assumptions"],
        "obligations": cell["obligations"],
        "definitional": cell["definitional"],
        "reason": cell["reason"],
        "finding": "" if finding is None else finding["sentence"],
        "mended_by": "" if finding is None else finding["mended_by"],
        "failures": cell["failures"],
        "runs": runs,
    }
