"""What the commit that brought the switch promises, C1 to C16, and who cites which of it: nothing dangles.

The commit is PostgreSQL's 969d7cd4315b (5 May 2009, first shipped in 8.4.0); the sentences are ours. Rows of the
lifecycle, actions and properties name the claims that they serve. A name that is no claim, or a claim that nothing
serves and of which nobody says why, is an error: `check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from armed_model.lifecycle import ROWS, WALSENDER_ROWS
from armed_model.profiles import PROFILES
from armed_model.specification import claimed
from armed_model.system import ENVIRONMENTS, System

CLAIMS = {
    "C1": "A child that ends with status 0 or 1 without having disengaged itself from shared memory is detected by the "
    "parent.",
    "C2": "Without the switch such an exit is taken for a clean one; foreign code may leave without the orderly exit "
    "path.",
    "C3": "On some systems an external kill can carry a status that looks like a voluntary exit.",
    "C4": "If undetected, the dead child's resources stay held: its locks, its place in shared arrays.",
    "C5": "The response is the response to a crash: stop everyone, make shared memory anew, start again.",
    "C6": "The switch is armed when the child acquires its place in shared memory.",
    "C7": "It is disarmed when that place is given back.",
    "C8": "These are the first and the last touches of shared memory in a child, or close enough.",
    "C9": "Auxiliary processes are not covered.",
    "C10": "They need not be: they should not execute user-provided code.",
    "C11": "Where nothing is inherited by fork, the shared array of children is kept with less searching.",
    "C12": "The change is not back-patched.",
    "C13": "A child that leaves in the orderly way is never taken for crashed.",
    "C14": "Two live children never share a slot.",
    "C15": "The child whose slot is not in the clean state at its death is the culprit.",
    "C16": "The number of live children that need a slot never exceeds the number of slots, so assignment never fails.",
}
"""Every claim by its number. C13 to C16 are implied by the commit."""

NOT_CITED = {
    "C12": "It says why there is no earlier profile; what was before is the negative control `no-dead-man-switch`.",
}
"""The claims that no row, action or property serves, and why not."""


class Dangling(Exception):
    """A citation leads nowhere, or nothing leads to a claim."""


@dataclass(frozen=True)
class Citation:
    """Something that names claims: `kind` is "row", "action" or "property"."""

    kind: str
    name: str
    cites: tuple[str, ...]


def citations() -> tuple[Citation, ...]:
    """Return whatever names a claim, each once: rows, then actions, then properties, of all profiles together."""
    every: list[Citation] = [
        *[_of_row(row.trigger.value, row.source.value, row.cites) for row in (*ROWS, *WALSENDER_ROWS)],
        *[Citation("action", each.name, each.cites) for each in _actions()],
        *[Citation("property", each.name, each.cites) for profile in PROFILES.values() for each in claimed(profile)],
    ]
    merged: dict[tuple[str, str], tuple[str, ...]] = {}
    for each in every:
        known = merged.get((each.kind, each.name), ())
        merged[each.kind, each.name] = tuple(dict.fromkeys((*known, *each.cites)))
    return tuple(Citation(kind, name, cites) for (kind, name), cites in merged.items() if cites)


def _of_row(trigger: str, source: str, cites: tuple[str, ...]) -> Citation:
    return Citation("row", f"{trigger} from {source}", cites)


def _actions() -> Iterator[Citation]:
    for profile in PROFILES.values():
        for environment in ENVIRONMENTS:
            for action in System(profile, environment).actions:
                yield Citation("action", action.name, action.cites)


def check(
    cited: Iterable[Citation], claims: Mapping[str, str] = CLAIMS, not_cited: Mapping[str, str] = NOT_CITED
) -> None:
    """Raise Dangling, naming all of them, where a citation is of no claim, or a claim is cited by nothing.

    A claim in `not_cited` must really be cited by nothing: a reason that is out of date dangles, too.
    """
    found = list(cited)
    served = {claim for each in found for claim in each.cites}
    wrong = [f"the {each.kind} {each.name} cites {one}, and there is no such claim"
             for each in found for one in each.cites if one not in claims]  # fmt: skip
    wrong += [f"nothing cites {claim}, and nobody says why" for claim in claims if claim not in served | {*not_cited}]
    wrong += [f"{claim} is said not to be cited, and is" for claim in not_cited if claim in served]
    wrong += [f"{claim} is said not to be cited, and is no claim" for claim in not_cited if claim not in claims]
    if wrong:
        raise Dangling("; ".join(wrong))


_STANDS = """\
Which of them hold in which version is in [versions](versions.md). Of C11 only that an entry of the array goes with its
child is modelled, not how it is found (`armed.registry` finds it by its slot); of C16 that assignment never fails, the
bound itself being a guard. C10 no longer holds: a preloaded library's log hook runs in every process since 9.2, and the
archiver loads archive modules since 15."""


def markdown() -> str:
    """Return the page on the claims, in Markdown. Raises Dangling."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    cited = citations()
    check(cited)
    yield "# Claims"
    yield ""
    yield "Written by `armed export claims` from `armed_model/claims.py`, lifecycle, actions and properties:"
    yield "what PostgreSQL's commit `969d7cd4315b` (5 May 2009, first shipped in 8.4.0) promises, in our words. C13 to"
    yield "C16 are implied by it."
    yield ""
    yield "| id | claim |"
    yield "| --- | --- |"
    for claim, sentence in CLAIMS.items():
        yield f"| {claim} | {sentence} |"
    yield ""
    yield _STANDS
    yield ""
    yield "## Who serves which"
    yield ""
    yield "A row is one of the lifecycle, an action one of the system, a property one of those that are decided: in any"
    yield "profile. A citation of what is no claim, and a claim that nothing cites, are errors: nothing dangles."
    yield ""
    for claim in CLAIMS:
        if claim in NOT_CITED:
            yield f"- **{claim}**: nothing. {NOT_CITED[claim]}"
            continue
        yield f"- **{claim}**:"
        for kind, many in (("row", "rows"), ("action", "actions"), ("property", "properties")):
            names = [f"`{each.name}`" for each in cited if each.kind == kind and claim in each.cites]
            if names:
                yield f"  - {many}: {', '.join(names)}"
