"""Figures of the report, drawn as HTML and SVG from published JSON: coverage as a heat map, benchmarks as strokes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from armed_audit.viewer import templates

WIDTH, LEFT, ROW = 720, 250, 18
"""Of a plot: its width, where the strokes begin, and the height of a row, in units of its own."""


def heat_maps(parts: Sequence[Mapping[str, Any]]) -> Markup:
    """Return a table for each table of the parts, the darker a cell the larger its count; 0 stands out."""
    maps = []
    for part in parts:
        for name, rows in part.get("tables", {}).items():
            columns = sorted({column for row in rows.values() for column in row})
            most = max((count for row in rows.values() for count in row.values()), default=0)
            shade = {count: _shade(count, most) for row in rows.values() for count in row.values()}
            maps.append({"part": part["part"], "name": name, "columns": columns, "rows": rows, "shade": shade})
    return Markup(templates().get_template("heat_map.html").render(maps=maps))


def _shade(count: int, most: int) -> int:
    """Return 0 for what was not seen, else 1 to 5 by the logarithm."""
    return 0 if not count else 1 + min(4, int(4 * math.log(count) / math.log(most))) if most > 1 else 1


def plots(bench: Mapping[str, Any]) -> Markup:
    """Return a plot for each topic of `armed bench --json` and unit: p10, median and p90; a target is a stroke.

    What was not measured is listed, with the reason.
    """
    drawn = []
    not_run = [f"{topic}: {why}" for topic, why in bench.get("not_run", {}).items()]
    for topic, rows in bench["topics"].items():
        measured = [row for row in rows if row.get("median") is not None]
        for unit in dict.fromkeys(row["unit"] for row in measured):
            drawn.append(_plot(topic, unit, [row for row in measured if row["unit"] == unit]))
        not_run += [f"{topic}, {row['case']}, {row['who']}: {row['not_run']}" for row in rows if row.get("not_run")]
    explored = [row for row in bench["topics"].get("explore", ()) if "seconds_tlc" in row]
    template = templates().get_template("plots.html")
    return Markup(
        template.render(plots=drawn, explored=explored, not_run=not_run, width=WIDTH, left=LEFT, row=ROW)
    )


def _plot(topic: str, unit: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    medians = {(row["case"], row["who"]): row["median"] for row in rows}
    targets = [
        (place, ratio["target"] * (medians.get((row["case"], ratio["to"]), 0) if ratio["to"] else 1), ratio)
        for place, row in enumerate(rows)
        for ratio in row["ratios"]
        if ratio["target"] is not None
    ]
    figures = [row[each] for row in rows for each in ("p10", "median", "p90")] + [value for _, value, _ in targets]
    positive = [each for each in figures if each > 0]
    low = 10 ** math.floor(math.log10(min(positive, default=1)))
    high = 10 ** math.ceil(math.log10(max(positive, default=10)))
    decades = max(1, round(math.log10(high / low)))

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 20) * math.log10(max(value, low) / low) / decades, 1)

    return {
        "topic": topic,
        "unit": unit,
        "height": ROW * (len(rows) + 2),
        "ticks": [(x(low * 10**each), f"{low * 10**each:g}") for each in range(decades + 1)],
        "rows": [
            {
                "label": f"{row['case']}: {row['who']}",
                "ours": row["who"].startswith(("armed", "with me")),
                "y": ROW * (place + 1),
                "p10": x(row["p10"]),
                "median": x(row["median"]),
                "p90": x(row["p90"]),
                "told": f"{row['median']:g} {unit} (p10 {row['p10']:g}, p90 {row['p90']:g}, n {row['trials']})",
            }
            for place, row in enumerate(rows)
        ],
        "targets": [
            {"x": x(value), "y": ROW * (place + 1), "met": ratio["met"], "told": _told(ratio)}
            for place, value, ratio in targets
            if value > 0
        ],
        "ratios": [
            {"case": row["case"], "who": row["who"], "to": ratio["to"] or "", "value": ratio["value"],
             "target": ratio["target"], "met": ratio["met"]}
            for row in rows for ratio in row["ratios"]
        ],
    }  # fmt: skip


def _told(ratio: Mapping[str, Any]) -> str:
    of = f" x {ratio['to']}" if ratio["to"] else ""
    return f"target {ratio['target']:g}{of}: {'met' if ratio['met'] else 'not met'}"
