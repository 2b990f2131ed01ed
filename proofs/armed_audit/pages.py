"""Pages of the site that need verdicts and runs: the matrix as a picture, and every counterexample step by step.

What the definition alone says is in `armed_model.specification`. The matrix is decided anew when the site is built,
once, and must say what is recorded.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from armed_audit import versions
from armed_audit.runs import SAYS, values
from armed_audit.viewer import viewer
from armed_model.explore import named, replay
from armed_model.interpret import Instance, State
from armed_model.profiles import CONTROLS, PROFILES, REFERENCE
from armed_model.properties import NAMES, leads_to
from armed_model.specification import GENERATED
from armed_model.system import System
from armed_proofs.matrix import ALL_PROFILES, Cell, Matrix, Verdict, decide, unexpected

# --- The matrix as a picture -----------------------------------------------------------------------------------------


def matrix_picture() -> str:
    """Return the recorded verdicts on the switch as an SVG; a refuted cell leads to its counterexample."""
    image = versions.picture(lambda profile, name: f"counterexamples.html#{anchor(profile, name)}")
    return f'<div class="scrolls">\n{image}</div>'


def anchor(profile: str, name: str) -> str:
    """Return the name of the place where a refuted cell's counterexample is told."""
    return f"{name}-in-{profile}".replace(", ", "-").replace(" ", "-").replace(".", "-").replace("_", "-")


# --- Every counterexample --------------------------------------------------------------------------------------------


class Stale(Exception):
    """The verdicts found are not the recorded ones: what is recorded cannot be shown."""


@cache
def decided() -> tuple[Matrix, ...]:
    """Decide the matrix, negative controls included, once. Raises Stale where it is not as recorded."""
    return as_recorded(decide(ALL_PROFILES))


def as_recorded(matrices: Iterable[Matrix]) -> tuple[Matrix, ...]:
    """Return matrices that say what is recorded of their profiles, and raise Stale for others."""
    found = tuple(matrices)
    if differences := unexpected(found):
        raise Stale("; ".join(differences))
    return found


def matrix_viewer() -> str:
    """Return the decided matrix as a component to step through, ready for a page in Markdown. Raises Stale."""
    return f"``````{{raw}} html\n{viewer(decided())}\n``````\n"


def counterexamples() -> str:
    """Return the page of every refuted cell's run. Raises Stale where the verdicts are not as recorded."""
    return counterexamples_of(decided())


def counterexamples_of(matrices: Iterable[Matrix]) -> str:
    """Return the runs of every refuted cell of these matrices, those of negative controls first."""
    return "\n".join(_counterexample_lines(matrices)) + "\n"


def _counterexample_lines(matrices: Iterable[Matrix]) -> Iterator[str]:
    refuted = [cell for each in matrices for cell in each.cells if cell.verdict is Verdict.REFUTED]
    yield GENERATED
    yield f"*The matrix was decided for it: {len(refuted)} cells are refuted, each by a shortest run.*"
    yield ""
    yield "## The story of 2009"
    yield ""
    yield "Without the switch, the exit status alone decides (the negative control `no-dead-man-switch`): these must be"
    yield "refuted, or the proofs prove nothing."
    for cell in refuted:
        if cell.profile in CONTROLS:
            yield from _one_run([cell])
    yield ""
    yield "## By property"
    yield ""
    yield "Where profiles are refuted by the same run it is told once."
    same: dict[tuple[str, str], list[Cell]] = {}
    for cell in refuted:
        if cell.profile in PROFILES:
            same.setdefault((cell.name, run_table(cell)), []).append(cell)
    order = [*NAMES, *[each.name for each in leads_to(REFERENCE)]]
    for cells in sorted(same.values(), key=lambda cells: order.index(cells[0].claim.name)):
        yield from _one_run(cells)


def _one_run(cells: list[Cell]) -> Iterator[str]:
    first = cells[0]
    yield ""
    for cell in cells:
        yield f"({anchor(cell.profile, cell.name)})="
    yield f"### {first.name}, in {', '.join(cell.profile for cell in cells)}"
    yield ""
    yield f"*{first.claim.sentence}*"
    yield ""
    for finding in dict.fromkeys(cell.finding.sentence for cell in cells if cell.finding is not None):
        yield finding
        yield ""
    mended = {cell.finding.mended_by for cell in cells if cell.finding is not None and cell.finding.mended_by}
    if mended:
        yield f"Mended by {', '.join(sorted(mended))}."
        yield ""
    yield run_table(first)
    yield ""
    leads = first.claim.name in [each.name for each in leads_to(REFERENCE)]
    if leads:
        yield "From here nothing that is due can ever be done."
    else:
        yield f"With the last step `{first.claim.name}` is violated." if first.counterexample else ""
    yield f"({first.size}; environment {first.claim.environment}.)"


def run_table(cell: Cell) -> str:
    """Return the run of a refuted cell as an HTML table: a row a step, a column a slot or child; changes are marked."""
    assert cell.counterexample is not None
    assert cell.size is not None
    profile = {**PROFILES, **CONTROLS}[cell.profile]
    system = System(profile, cell.claim.environment, cell.backends_alone)
    instance = Instance(system, cell.size)
    states = replay(instance, cell.counterexample)
    slots, children = range(1, cell.size.slots + 1), range(1, cell.size.children + 1)
    others = cell.claim.environment in ("+grandchild", "+cancel")
    heads = ["", "who", "step", "supervisor", *[f"slot {s}" for s in slots], *[f"child {c}" for c in children]]
    heads += [{"+grandchild": "grandchild", "+cancel": "request"}[cell.claim.environment]] if others else []
    lines = ['<div class="scrolls"><table class="run">', "<thead><tr>"]
    lines += [f'<th scope="col">{head}</th>' for head in heads]
    lines += ["</tr></thead>", "<tbody>"]
    before = _columns(instance, states[0])
    lines.append("<tr><td>0</td><td></td><td>at first</td>" + "".join(map(_cell, before, before)) + "</tr>")
    for number, (step, after) in enumerate(zip(cell.counterexample, states[1:], strict=True), 1):
        action = instance.actions[step.action].action
        told = f"<code>{step.action}({named(instance, step)})</code> {_in_html(action.sentence)}"
        now = _columns(instance, after)
        lines.append(f"<tr><td>{number}</td><td>{action.by.value}</td><td>{told}</td>")
        lines.append("".join(map(_cell, before, now)) + "</tr>")
        before = now
    return "\n".join([*lines, "</tbody></table></div>"])


def _in_html(sentence: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(sentence, quote=False))


def _cell(before: list[str], now: list[str]) -> str:
    lines = "<br>".join(each if each in before else f"<mark>{each}</mark>" for each in now)
    return f"<td>{lines}</td>" if before == now else f'<td class="changed">{lines}</td>'


def _columns(instance: Instance, state: State) -> list[list[str]]:
    """Return what stands in each column: the supervisor, every slot, every child, and what the environment adds."""
    now, size = values(instance, state), instance.size
    columns = [_supervisor(now)]
    columns += [_slot(now, number) for number in range(1, size.slots + 1)]
    columns += [_child(now, number) for number in range(1, size.children + 1)]
    if instance.system.environment == "+grandchild":
        columns.append(_grandchild(now))
    if instance.system.environment == "+cancel":
        columns.append(_request(now))
    return columns


Values = Mapping[str, str]
"""The values of a state in words, by the variable's name and the number of the slot or child: `flag.1`."""


def _supervisor(now: Values) -> list[str]:
    parts = [now["mode"]]
    if now["shutdown"] != "none":
        parts.append(f"{now['shutdown']} shutdown asked for")
    if now["launching"] != "none":
        parts.append(f"launching for {now['launching']}")
    if now["owed"] == "yes":
        parts.append("<em>owes a reset: who was armed is gone</em>")
    if now["torn"] == "yes":
        parts.append("<em>memory is torn: who held is gone</em>")
    return parts


def _slot(now: Values, number: int) -> list[str]:
    parts = [f"<strong>{now[f'{SAYS}.{number}']}</strong>"]
    if now[f"in_use.{number}"] == "yes":
        parts.append("in use")
    if now[f"owner.{number}"] != "none":
        parts.append(f"owner: {now[f'owner.{number}']}")
    return parts


def _child(now: Values, number: int) -> list[str]:
    phase = now[f"phase.{number}"]
    if phase == "none":
        return ["none"]
    slot = now[f"slot_of.{number}"]
    parts = [
        f"{phase}, status {now[f'status.{number}']}" if phase == "exited" else phase,
        f"{now[f'kind.{number}']}, {'no slot' if slot == 'none' else slot}",
    ]
    return [*parts, *[f"<strong>{each}</strong>" for each in ("armed", "holds") if now[f"{each}.{number}"] == "yes"]]


def _grandchild(now: Values) -> list[str]:
    if now["copy_slot"] == "none":
        return ["none"]
    has = [word for name, word in (("copy_gives", "a give-back"), ("copy_disarms", "a disarm")) if now[name] == "yes"]
    return [f"takes {now['copy_slot']} for its own", f"has {' and '.join(has) or 'nothing'} to do"]


def _request(now: Values) -> list[str]:
    astray = now["handle_astray"] == "yes"
    return [now["request"], *(["<em>astray: another process has the pid by now</em>"] if astray else [])]
