"""The page on the claims of the first commit: each, and what serves it. Nothing dangles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from armed_audit import traceability
from armed_audit.traceability import Citing

_STANDS = """\
Which of them hold in which version is in [versions](versions.md). Of C11 only that an entry of the array goes with its
child is modelled, not how it is found (`armed.registry` finds it by its slot); of C16 that assignment never fails, the
bound itself being a guard. C10 no longer holds: a preloaded library's log hook runs in every process since 9.2, and the
archiver loads archive modules since 15."""

_MANY = {"row": "rows", "action": "actions", "property": "properties"}


class Dangling(Exception):
    """A citation leads nowhere, or nothing leads to a claim."""


def check(
    citing: Sequence[Citing] | None = None, claims: Mapping[str, Mapping[str, str]] | None = None
) -> Sequence[Citing]:
    """Return whatever cites a claim. Raises Dangling, naming them, where a citation or a claim leads nowhere.

    `citing` and `claims` are those of the definition unless given.
    """
    found = traceability.citing() if citing is None else citing
    if lines := traceability.dangling(found, traceability.claims() if claims is None else claims):
        raise Dangling("; ".join(lines))
    return found


def markdown() -> str:
    """Return the page, in Markdown. Raises Dangling."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    found, claims = check(), traceability.claims()
    yield "# Claims"
    yield ""
    yield "Written by `armed export claims` from the list of claims, and from lifecycle, actions and properties: what"
    yield "PostgreSQL's commit `969d7cd4315b` (5 May 2009, first shipped in 8.4.0) promises, in our words. C13 to C16"
    yield "are implied by it."
    yield ""
    yield "| id | claim |"
    yield "| --- | --- |"
    for claim, says in claims.items():
        yield f"| {claim} | {says['sentence']} |"
    yield ""
    yield _STANDS
    yield ""
    yield "## Who serves which"
    yield ""
    yield "A row is one of the lifecycle, an action one of the system, a property one of those that are decided: in any"
    yield "profile. A citation of what is no claim, and a claim that nothing cites, are errors: nothing dangles."
    yield ""
    for claim, says in claims.items():
        if "not_modelled" in says:
            yield f"- **{claim}**: nothing. {says['not_modelled']}"
            continue
        yield f"- **{claim}**:"
        for what, many in _MANY.items():
            names = [f"`{each.name}`" for each in found if each.what == what and claim in each.cites]
            if names:
                yield f"  - {many}: {', '.join(names)}"
