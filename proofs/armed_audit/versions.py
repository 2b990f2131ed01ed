"""The page that says, version by version, what the switch guarantees, from the recorded verdicts and findings."""

from __future__ import annotations

from collections.abc import Iterator

from armed_model.profiles import PROFILES, REFERENCE, Profile
from armed_model.properties import LeadsTo, Property, leads_to, properties
from armed_proofs.matrix import expected_verdicts, findings

_SIGNS = {"proved": "proved", "refuted": "**refuted**", "out of scope": "-"}
_REACH = {"outside": "Can be reached from outside.", "debugger": "Only a debugger reaches it."}


def markdown() -> str:
    """Return the page, in Markdown. `armed prove` finds the same verdicts, or fails."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    recorded = {name: expected_verdicts()[name] for name in PROFILES}
    claims = {each.name: each for each in _claims(REFERENCE)}
    yield "# What the switch guarantees, version by version"
    yield ""
    yield "Written by `armed export versions` from the recorded verdicts; `armed prove` fails where it finds others."
    yield "*Proved*: for any number of slots and children. *Refuted*: by a run, which `armed prove --property NAME`"
    yield "tells step by step. A dash: out of scope, with the reason below. 15 stands for 16 and 17, too; a line's name"
    yield "means its last minor release. A word in brackets is the environment: what is there besides calm."
    yield ""
    for profile in PROFILES.values():
        yield f"- **{profile.name}**: {profile.sentence}"
    yield ""
    yield "| property | " + " | ".join(PROFILES) + " |"
    yield "| --- |" + " --- |" * len(PROFILES)
    names = list(dict.fromkeys(name for verdicts in recorded.values() for name in verdicts))
    order = list(claims)
    for name in sorted(names, key=lambda name: (order.index(_bare(name)), name)):
        environment = claims[_bare(name)].environment
        title = f"`{name}`" if _bare(name) == name else "... of backends alone"
        title += f" ({environment})" if environment != "calm" and _bare(name) == name else ""
        yield f"| {title} | " + " | ".join(_SIGNS.get(recorded[each].get(name, ""), "") for each in PROFILES) + " |"
    yield ""
    yield "A row *of backends alone* is there where the shortest run that refutes has an auxiliary process in it."
    yield ""
    yield "## Why"
    yield ""
    told: dict[tuple[str, str, str, str], list[str]] = {}
    for (profile_name, name), finding in findings().items():
        told.setdefault((name, finding.sentence, finding.mended_by, finding.reach), []).append(profile_name)
    for (name, sentence, mended_by, reach), profiles in told.items():
        mended = f" Mended by {mended_by}." if mended_by else ""
        yield f"- `{name}` in {', '.join(profiles)}: {sentence}{mended} {_REACH[reach]}"
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
    yield "## The properties"
    yield ""
    for claim in claims.values():
        cites = f" ({', '.join(claim.cites)})" if claim.cites else ""
        yield f"- `{claim.name}`: {claim.sentence}{cites}"


def _claims(profile: Profile) -> list[Property | LeadsTo]:
    return [*properties(profile), *leads_to(profile)]


def _bare(name: str) -> str:
    return name.removesuffix(", backends alone")
