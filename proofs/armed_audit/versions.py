"""The page that says, version by version, what the switch guarantees, from the recorded verdicts and findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from armed_audit.viewer import templates
from armed_model.profiles import PROFILES, REFERENCE, Profile
from armed_model.properties import ASSUMPTIONS, LeadsTo, Property, leads_to, properties
from armed_proofs.matrix import expected_verdicts, findings

_SIGNS = {"proved": "proved", "refuted": "**refuted**", "out of scope": "-"}
_WORDS = {"proved": "proved", "refuted": "refuted", "out of scope": "-"}
REACH = {
    "outside": "Can be reached from outside.",
    "debugger": "Only a debugger reaches it, or on Windows an external kill (C3).",
    "error": "Only a debugger, which makes the error, reaches it.",
}
"""How a finding's reach reads."""

_NOT_MODELLED = """\
Not modelled: a standby (archive recovery, hot standby), restart_after_crash off, the pools by kind of 18,
lock-group leaders, exit hooks other than the PGPROC's and the switch's, children without shared memory, no
status of which is a crash (the syslogger, the statistics collector, the archiver to 13, background workers that
ask for none), the clean statuses peculiar to one kind (1 of the archiver from 14, the walreceiver, the slot sync
and I/O workers; 0 of the checkpointer), who is started in a shutdown, dead-end children
between the reset and service, a failing start-up process that ends the postmaster while auxiliary processes are
there (15 and later), an immediate shutdown that does not wait for the children (to 9.3), and recovery begun
without a dead child ("WAL was shut down unexpectedly", 18). Servers of 16 and 17 do as profile 15 says in the
histories of `armed conform` and in the replays of [divergences](divergences.md); beyond those it is believed."""

_ENVIRONMENTS = """\
A word in brackets is the environment, what is there besides calm. `+grandchild`: a child forks; `+stray`: some
child writes any value to a flag; `+orphan`: the supervisor dies; `+cancel`: cancel requests."""

_COVERAGE = """\
To 17 auxiliary processes are never armed, so rows about armed children say nothing of them; in 18 they are
armed, and what such a row refutes is that nobody looks at the result. To 17 a FATAL error after arming and
before the exit hook is registered leaves the PGPROC held, and is decided crashed: correct by
`orderly_exit_never_alarms`, and a needless restart (e81e8f9342b0 mended one case of it)."""


def markdown() -> str:
    """Return the page, in Markdown. `armed prove` finds the same verdicts, or fails."""
    return "\n".join(_lines()) + "\n"


def picture(link: Callable[[str, str], str] | None = None) -> str:
    """Return the matrix of the switch's guarantees as an image, in SVG, without the checks of the model itself.

    With `link`, which gives the address of a refuted cell, it is for a page that has the colours; else it has its own.
    """
    recorded, claims = _recorded(), _claims_by_name()
    left, step, row_height, top = 410, 74, 22, 28
    columns = {name: left + step // 2 + step * i for i, name in enumerate(PROFILES)}
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(_in_order(recorded, claims, of_the_model=False)):
        cells = [
            {"x": x, "profile": profile, "verdict": verdict, "look": verdict.split()[-1], "word": _WORDS[verdict]}
            for profile, x in columns.items()
            if (verdict := recorded[profile].get(name))
        ]
        rows.append({"y": top + row_height * i, "name": name, "title": _title(name, claims), "cells": cells})
    looks = [cell["look"] for row in rows for cell in row["cells"]]
    told = ", ".join(f"{looks.count(look)} {look}" for look in ("proved", "refuted")) + f", of {len(looks)} cells"
    image: str = templates().get_template("matrix.svg").render(
        rows=rows, columns=list(columns.items()), left=left, cell_width=step - 2, row_height=row_height, told=told,
        width=left + step * len(columns), height=top + row_height * len(rows), link=link,
    )  # fmt: skip
    return image


def _lines() -> Iterator[str]:
    recorded, claims = _recorded(), _claims_by_name()
    yield "# What the switch guarantees, version by version"
    yield ""
    yield "Written by `armed export versions` from the recorded verdicts; `armed prove` fails where it finds others."
    yield "*Proved*: for any number of slots and children. *Refuted*: by a run, which `armed prove --property NAME`"
    yield "tells step by step. A dash: out of scope, with the reason below. 15 stands for 16 and 17, too; a line's name"
    yield "means its last minor release. Refuted cells of 15 and 18 on servers: [divergences](divergences.md)."
    yield _ENVIRONMENTS
    yield ""
    for profile in PROFILES.values():
        yield f"- **{profile.name}**: {profile.sentence}"
    yield ""
    yield from _table(recorded, claims, of_the_model=False)
    yield "A row *of backends alone* is there where the shortest run that refutes has an auxiliary process in it."
    yield _COVERAGE
    yield ""
    yield _NOT_MODELLED
    yield ""
    yield "## Checks of the model itself"
    yield ""
    yield "What these say is that the model is as it was meant: they are decided like the others."
    yield ""
    yield from _table(recorded, claims, of_the_model=True)
    yield "## Why"
    yield ""
    told: dict[tuple[str, str, str, str], list[str]] = {}
    for (profile_name, name), finding in findings().items():
        told.setdefault((name, finding.sentence, finding.mended_by, finding.reach), []).append(profile_name)
    for (name, sentence, mended_by, reach), profiles in told.items():
        mended = f" Mended by {mended_by}." if mended_by else ""
        yield f"- `{name}` in {', '.join(profiles)}: {sentence}{mended} {REACH[reach]}"
    yield ""
    yield "## Out of scope"
    yield ""
    reasons: dict[tuple[str, str], list[str]] = {}
    for profile in PROFILES.values():
        for claim in _claims(profile):
            if claim.out_of_scope:
                reasons.setdefault((claim.name, claim.out_of_scope), []).append(profile.name)
    for (name, reason), profiles in reasons.items():
        yield f"- `{name}` in {', '.join(profiles)}: {reason}."
    yield ""
    yield "## The assumptions"
    yield ""
    for name, sentence in ASSUMPTIONS.items():
        yield f"- {name}: {sentence}"
    yield ""
    yield "## The properties"
    yield ""
    for claim in claims.values():
        cites = f" ({', '.join(claim.cites)})" if claim.cites else ""
        yield f"- `{claim.name}`: {claim.sentence}{cites}"


def _table(
    recorded: dict[str, dict[str, str]], claims: dict[str, Property | LeadsTo], of_the_model: bool
) -> Iterator[str]:
    yield "| property | " + " | ".join(PROFILES) + " |"
    yield "| --- |" + " --- |" * len(PROFILES)
    for name in _in_order(recorded, claims, of_the_model):
        title = _title(name, claims).replace(_bare(name), f"`{_bare(name)}`")
        yield f"| {title} | " + " | ".join(_SIGNS.get(recorded[each].get(name, ""), "") for each in PROFILES) + " |"
    yield ""


def _in_order(
    recorded: dict[str, dict[str, str]], claims: dict[str, Property | LeadsTo], of_the_model: bool
) -> list[str]:
    names = {name for verdicts in recorded.values() for name in verdicts}
    order = list(claims)
    chosen = [name for name in names if _is_of_the_model(claims[_bare(name)]) is of_the_model]
    return sorted(chosen, key=lambda name: (order.index(_bare(name)), name))


def _title(name: str, claims: dict[str, Property | LeadsTo]) -> str:
    if _bare(name) != name:
        return "... of backends alone"
    environment = claims[name].environment
    return name if environment == "calm" else f"{name} ({environment})"


def _recorded() -> dict[str, dict[str, str]]:
    return {name: expected_verdicts()[name] for name in PROFILES}


def _claims_by_name() -> dict[str, Property | LeadsTo]:
    return {each.name: each for each in _claims(REFERENCE)}


def _is_of_the_model(claim: Property | LeadsTo) -> bool:
    return isinstance(claim, Property) and claim.of_the_model


def _claims(profile: Profile) -> list[Property | LeadsTo]:
    return [*properties(profile), *leads_to(profile)]


def _bare(name: str) -> str:
    return name.removesuffix(", backends alone")
