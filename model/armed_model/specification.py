"""The specification as text for people, in Markdown: every sentence and every formula is read from the definition.

Formulas are written in words: `phase[c] in {"serving", "leaving"} and not engaged[c]`. Pictures are SVG that takes its
colours from the page it stands in.
"""

from __future__ import annotations

import dataclasses
import enum
import html
import re
from collections.abc import Iterator
from typing import Any

from armed_model.lifecycle import ROWS, WALSENDER_ROWS, Row, SlotState, Trigger
from armed_model.profiles import PROFILES, Profile
from armed_model.properties import ASSUMPTIONS, LeadsTo, Property, leads_to, properties
from armed_model.render import writer
from armed_model.system import CONSTANTS, ENVIRONMENTS, Mode, Phase, Request, Shutdown, System, variables
from armed_model.terms import Action, Parameter, Update

GENERATED = "*This part is generated from the definition, when the site is built.*"

ENVIRONMENT_SENTENCES = {
    "calm": "What always may happen: orderly and raw exits at any point with any status, failing takes, give-backs, "
    "hooks and forks, stuck children, shutdowns.",
    "+grandchild": "A child may fork: the copy is unknown to the supervisor, and may do what the child would do on its "
    "way out.",
    "+stray": "A child that is attached to shared memory may write any value to any flag.",
    "+orphan": "The supervisor may die at any moment.",
    "+cancel": "Cancel requests name a child by its pid and key.",
}
"""What each environment adds to calm."""

# --- Formulas in words -----------------------------------------------------------------------------------------------

_WORDS = (
    (r" /\ ", " and "),
    (r" \/ ", " or "),
    (r" \notin ", " not in "),
    (r" \in ", " in "),
    (" # ", " is not "),
    (" = ", " is "),
    ("~", "not "),
    ("TRUE", "true"),
    ("FALSE", "false"),
    (" => ", " implies "),
    (" <=> ", " iff "),
    ("IF ", "if "),
    (" THEN ", " then "),
    (" ELSE ", " else "),
    ("Used(", "used("),
)
_EVERY = re.compile(r"\\([AE]) (\w+) in \w+(?:\.\.\w+)? :")


def in_words(expression: Any, bound: frozenset[str] = frozenset()) -> str:
    """Write a z3 expression in one line of words; `bound` are the parameters in scope.

    A prime means after the step: `phase'[c]`.
    """
    text = writer(set(bound)).text(expression)
    for sign, word in _WORDS:
        text = text.replace(sign, word)
    return _EVERY.sub(lambda found: f"for {'all' if found[1] == 'A' else 'some'} {found[2]}:", text)


def _bound(action: Action) -> frozenset[str]:
    return frozenset(parameter.name for parameter in action.of)


def guard_in_words(action: Action) -> list[tuple[str, str]]:
    """Return the conjuncts of a guard, each with its reason."""
    return [(in_words(each.term.z3, _bound(action)), each.why) for each in action.guard]


def effect_in_words(action: Action) -> list[tuple[str, str]]:
    """Return the locations that an action writes, each with its new value."""
    return [(_location(each, action), in_words(each.value, _bound(action))) for each in action.effect]


def _location(update: Update, action: Action) -> str:
    variable = update.variable
    if variable.index is None:
        return variable.name
    if update.index is None:
        return f"{variable.name}, everywhere"
    return f"{variable.name}[{in_words(update.index.z3, _bound(action))}]"


# --- The life of a slot ----------------------------------------------------------------------------------------------


def lifecycle() -> str:
    """Return the table of the rows."""
    return "\n".join(_lifecycle_lines()) + "\n"


def _lifecycle_lines() -> Iterator[str]:
    yield GENERATED
    yield ""
    yield "| trigger | from | to | who | claims | where |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in (*ROWS, *WALSENDER_ROWS):
        where = "9.4, 15, 18" if row in WALSENDER_ROWS else "every profile"
        yield (
            f"| {row.trigger.value} | {row.source.value} | {row.dest.value} | {row.who.value} "
            f"| {', '.join(row.cites)} | {where} |"
        )
    yield ""
    yield "| state | what the flag says |"
    yield "| --- | --- |"
    for state in SlotState:
        yield f"| {state.value} | {_SLOT_STATES[state]} |"


_SLOT_STATES = {
    SlotState.UNUSED: "nobody has the slot",
    SlotState.ASSIGNED: "given to a child that has not armed the switch yet, or has disarmed it: the clean state",
    SlotState.ACTIVE: "the switch is armed: the child may have touched shared memory and not given everything back",
    SlotState.WALSENDER: "armed, too: PostgreSQL's senders of the write-ahead log say so",
    SlotState.FOREIGN: "a value that neither the supervisor nor the slot's owner writes: somebody scribbled over it",
}

_AT = {
    SlotState.UNUSED: (80, 130),
    SlotState.ASSIGNED: (310, 130),
    SlotState.ACTIVE: (540, 130),
    SlotState.WALSENDER: (540, 300),
    SlotState.FOREIGN: (80, 300),
}
"""Where the states stand in the picture."""

_BEND = {
    (Trigger.ARM, SlotState.ASSIGNED): 26,
    (Trigger.DISARM, SlotState.ACTIVE): 26,
    (Trigger.ASSIGN, SlotState.UNUSED): 26,
    (Trigger.RELEASE, SlotState.ASSIGNED): 26,
    (Trigger.RELEASE, SlotState.ACTIVE): -92,
    (Trigger.RELEASE, SlotState.WALSENDER): 40,
    (Trigger.RELEASE, SlotState.FOREIGN): 0,
    (Trigger.DISARM, SlotState.WALSENDER): 26,
    (Trigger.STREAM, SlotState.ACTIVE): 0,
}
"""How far a row's arrow bends to its left, so that no two run over one another."""


def lifecycle_picture() -> str:
    """Return the picture of the rows, as SVG: an arrow for each."""
    arrows = [_arrow(row) for row in (*ROWS, *WALSENDER_ROWS)]
    states = [_state(state) for state in SlotState]
    title = "The life of a slot: a state a box, a row an arrow"
    return "\n".join(
        [
            f'<svg class="picture" viewBox="0 0 640 330" role="img" aria-label="{title}" '
            'xmlns="http://www.w3.org/2000/svg">',
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="context-stroke"/></marker></defs>',
            *arrows,
            *states,
            "</svg>",
        ]
    )


def _state(state: SlotState) -> str:
    x, y = _AT[state]
    return (
        f'<g class="state"><rect x="{x - 55}" y="{y - 19}" width="110" height="38" rx="8"/>'
        f'<text x="{x}" y="{y + 5}">{state.value}</text></g>'
    )


def _arrow(row: Row) -> str:
    fires = row.trigger is Trigger.RELEASE and row.source is not SlotState.ASSIGNED
    look = 'class="row fires"' if fires else 'class="row"'
    label = row.trigger.value + (": the switch fires" if fires and row.source is SlotState.ACTIVE else "")
    name = f"<title>{row.trigger.value}: {row.source.value} to {row.dest.value}, by the {row.who.value}</title>"
    if row.source is row.dest:
        x, y = _AT[row.source]
        path = f"M{x - 30},{y - 19} C{x - 60},{y - 80} {x + 30},{y - 80} {x},{y - 21}"
        return f'<g {look}>{name}<path d="{path}"/><text x="{x - 15}" y="{y - 72}">{label}</text></g>'
    (x1, y1), (x2, y2) = _AT[row.source], _AT[row.dest]
    dx, dy = x2 - x1, y2 - y1
    length = (dx * dx + dy * dy) ** 0.5
    ux, uy = dx / length, dy / length
    left = (uy, -ux)  # to the left of who goes along, as y points down
    bend = _BEND[row.trigger, row.source]
    cx, cy = (x1 + x2) / 2 + left[0] * bend * 2, (y1 + y2) / 2 + left[1] * bend * 2
    sx, sy = _edge(x1, y1, cx, cy)
    ex, ey = _edge(x2, y2, cx, cy)
    lx, ly = (sx + 2 * cx + ex) / 4, (sy + 2 * cy + ey) / 4
    side = -1 if bend < 0 else 1
    lx, ly = lx + left[0] * side * 32, ly + left[1] * side * 13 + 4
    return (
        f'<g {look}>{name}<path d="M{sx:.0f},{sy:.0f} Q{cx:.0f},{cy:.0f} {ex:.0f},{ey:.0f}"/>'
        f'<text x="{lx:.0f}" y="{ly:.0f}">{label}</text></g>'
    )


def _edge(x: float, y: float, towards_x: float, towards_y: float) -> tuple[float, float]:
    """Return where the line from a state's middle leaves its box."""
    dx, dy = towards_x - x, towards_y - y
    scale = min(57 / abs(dx) if dx else 9e9, 21 / abs(dy) if dy else 9e9)
    return x + dx * scale, y + dy * scale


# --- State variables -------------------------------------------------------------------------------------------------


def state() -> str:
    """Return the tables of the state variables and of the enumerations they range over."""
    return "\n".join(_state_lines()) + "\n"


def _state_lines() -> Iterator[str]:
    yield GENERATED
    yield ""
    yield "A *ghost* is no variable of the system: it remembers what is true, so that properties can speak of it, and"
    yield "nothing may read it to decide anything."
    yield ""
    yield "| variable | of each | holds | at first | what it is |"
    yield "| --- | --- | --- | --- | --- |"
    for each in variables:
        index = "" if each.index is None else each.index.name.lower()
        ghost = "ghost: " if each.ghost else ""
        yield (
            f"| `{each.name}` | {index} | {each.sort.name} | `{in_words(each.blank)}` | {ghost}{each.meaning} |"
        )
    yield ""
    yield "Slots, children and words are unbounded sorts, told apart only by equality. These words have names: "
    yield ", ".join(f"`{each.name}`" for each in CONSTANTS) + "."
    yield ""
    for members in (Mode, Phase, Shutdown, Request):
        yield f"**{members.__name__}**: " + ", ".join(f"`{each.value}`" for each in members) + "."
        yield ""


# --- Actions ---------------------------------------------------------------------------------------------------------

Variant = tuple[tuple[str, ...], Action]
"""An action as it reads in some profiles, which are named."""


def variants() -> dict[str, dict[str, list[Variant]]]:
    """Return environment -> name -> variants of each action; of an environment those that only it has."""
    found: dict[str, dict[str, list[Variant]]] = {}
    calm = {action.name for profile in PROFILES.values() for action in System(profile).actions}
    for environment in ENVIRONMENTS:
        mine: dict[str, list[Variant]] = {}
        for profile in (PROFILES["reference"], *[each for each in PROFILES.values() if each.name != "reference"]):
            for action in System(profile, environment).actions:
                if environment == "calm" or action.name not in calm:
                    _add(mine.setdefault(action.name, []), action, profile)
        found[environment] = mine
    return found


def _add(known: list[Variant], action: Action, profile: Profile) -> None:
    for position, (names, like) in enumerate(known):
        if _reads(like) == _reads(action):
            known[position] = ((*names, profile.name), like)
            return
    known.append(((profile.name,), action))


def _reads(action: Action) -> tuple[Any, ...]:
    names = [parameter.name for parameter in action.of]
    return action.sentence, action.by, names, guard_in_words(action), effect_in_words(action), action.cites


def actions() -> str:
    """Return every action, in the order of the story, with what differs between profiles."""
    return "\n".join(_action_lines()) + "\n"


def _action_lines() -> Iterator[str]:
    yield GENERATED
    for environment, mine in variants().items():
        yield ""
        yield f"## {environment}" if environment != "calm" else "## Calm"
        yield ""
        yield ENVIRONMENT_SENTENCES[environment]
        for name, known in mine.items():
            yield ""
            yield f"({_anchor(name)})="
            yield f"### {name}"
            yield ""
            yield from _one_action(known)


def _anchor(action: str) -> str:
    return f"action-{action}"


def _one_action(known: list[Variant]) -> Iterator[str]:
    everywhere = [name for names, _ in known for name in names]
    in_order = [name for name in PROFILES if name in everywhere]
    sentences: dict[str, list[str]] = {}
    for names, action in known:
        sentences.setdefault(action.sentence, []).extend(names)
    for sentence, said_in in sentences.items():
        yield sentence if len(sentences) == 1 else f"- {_listed(said_in)}: {sentence}"
    yield ""
    first = known[0][1]
    of = ", ".join(f"`{each.name}`: {_ranges_over(each)}" for each in first.of) or "nothing in particular"
    cites = ", ".join(dict.fromkeys(claim for _, action in known for claim in action.cites)) or "none"
    there = "every profile" if len(in_order) == len(PROFILES) else ", ".join(in_order)
    yield f"Taken by: the {first.by.value}. Of: {of}. Claims: {cites}. In: {there}."
    yield ""
    for title, columns, part in (
        ("guard", ("it can be taken where", "because"), guard_in_words),
        ("effect", ("what changes", "becomes"), effect_in_words),
    ):
        lines: dict[tuple[str, str], list[str]] = {}
        for names, action in known:
            for line in part(action):
                lines.setdefault(line, []).extend(names)
        differ = any(len(names) != len(everywhere) for names in lines.values())
        if not lines:
            yield f"No {title}."
            continue
        yield f"| {columns[0]} | {columns[1]} |" + (" only in |" if differ else "")
        yield "| --- | --- |" + (" --- |" if differ else "")
        for (left, right), stands_in in lines.items():
            right_side = right if title == "guard" else f"`{right}`"
            only = "" if len(stands_in) == len(everywhere) else _listed(stands_in)
            yield f"| `{left}` | {right_side} |" + (f" {only} |" if differ else "")
        yield ""


def _listed(names: list[str]) -> str:
    return ", ".join(name for name in PROFILES if name in names)


def _ranges_over(parameter: Parameter) -> str:
    return {"Slot": "a slot", "Child": "a child", "Word": "a word", "Int": "an exit status"}[parameter.sort.name]


# --- Profiles --------------------------------------------------------------------------------------------------------


def profiles() -> str:
    """Return the profiles side by side; what a profile changes of the one before it is in bold."""
    return "\n".join(_profile_lines()) + "\n"


def _profile_lines() -> Iterator[str]:
    yield GENERATED
    yield ""
    for profile in PROFILES.values():
        yield f"- **{profile.name}**: {profile.sentence}"
    yield ""
    yield "In bold: what differs from the profile to the left."
    yield ""
    yield "| | " + " | ".join(PROFILES) + " |"
    yield "| --- |" + " --- |" * len(PROFILES)
    for each in dataclasses.fields(Profile):
        if each.name in ("name", "sentence"):
            continue
        cells = [_value(getattr(profile, each.name)) for profile in PROFILES.values()]
        marked = [f"**{cell}**" if i and cell != cells[i - 1] else cell for i, cell in enumerate(cells)]
        yield f"| {each.name.replace('_', ' ')} | " + " | ".join(marked) + " |"
    yield ""
    yield "## The steps of a start, in order"
    yield ""
    yield "| profile | from the fork to the child's own code |"
    yield "| --- | --- |"
    for profile in PROFILES.values():
        then = "" if profile.engages_once else ", then arm, take ... give, disarm as often as it likes"
        yield f"| {profile.name} | {', '.join(step.value.replace('_', ' ') for step in profile.start)}{then} |"


def _value(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case enum.Enum():
            return str(value.value).replace("_", " ")
        case tuple():
            return ", ".join(map(_value, value))
    return str(value)


# --- Properties and assumptions --------------------------------------------------------------------------------------


def claimed(profile: Profile) -> tuple[Property | LeadsTo, ...]:
    """Return whatever is claimed of a profile: of states, of steps, of whole runs."""
    return (*properties(profile), *leads_to(profile))


def assumptions() -> str:
    """Return the table of what every verdict rests on, and which properties name which assumption."""
    claims = claimed(PROFILES["reference"])
    lines = [GENERATED, "", "| | assumption | named by |", "| --- | --- | --- |"]
    for name, sentence in ASSUMPTIONS.items():
        by = [f"`{claim.name}`" for claim in claims if name in claim.assumes]
        every = "every property" if len(by) == len(claims) else ", ".join(by)
        lines.append(f"| {name} | {sentence} | {every or 'no property: it is about the code'} |")
    return "\n".join(lines) + "\n"


def properties_in_words() -> str:
    """Return every property as it reads in `reference`: its sentence, and its formula in words."""
    return "\n".join(_property_lines()) + "\n"


def _property_lines() -> Iterator[str]:
    yield GENERATED
    for claim in claimed(PROFILES["reference"]):
        yield ""
        yield f"(property-{claim.name})="
        yield f"## {claim.name}"
        yield ""
        yield claim.sentence
        yield ""
        yield from _formula(claim)
        rests = ", ".join(claim.assumes)
        cites = ", ".join(claim.cites) or "none"
        yield f"Environment: {claim.environment}. Claims: {cites}. Assumptions: {rests}."


def _formula(claim: Property | LeadsTo) -> Iterator[str]:
    bound = frozenset(parameter.name for parameter in claim.over)
    over = ", ".join(f"every {parameter.name}" for parameter in claim.over).replace("_", " ")
    if isinstance(claim, LeadsTo):
        yield f"For {over}: " if over else ""
        yield "not for ever"
        yield ""
        yield from _code(in_words(claim.pending.z3, bound))
        yield ""
        return
    speaks = "In every reachable state" if claim.claims.value == "always" else "In every step"
    premise, conclusion = in_words(claim.premise.z3, bound), in_words(claim.conclusion.z3, bound)
    conclusion = f"({conclusion})" if " iff " in conclusion else conclusion
    yield f"{speaks}" + (f", for {over}:" if over else ":")
    yield ""
    shown = conclusion if premise == "true" else f"{premise}\nimplies {conclusion}"
    yield from _code(shown)
    yield ""


def _code(text: str) -> Iterator[str]:
    yield '<pre class="formula">' + html.escape(text, quote=False) + "</pre>"
