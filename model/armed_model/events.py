"""What a supervisor tells, and what each line of it means in the model: the definition of the journal's format.

A line is one event. EVENTS says which actions of the supervisor it stands for; ACTIONS_NOT_TOLD says which actions have
no line, and where they are thought to be. `trace.py` reads journals by these tables, `markdown` writes them as a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from armed_model.profiles import Kind, Profile
from armed_model.system import (
    CHILD,
    Mode,
    Phase,
    Shutdown,
    children_are_ended,
    everybody_is_gone,
    is_decided,
    mode,
    phase,
    shutdown,
    slot_is_looked_at,
)
from armed_model.terms import Parameter, Term, both, either, exists, one_of

FORMAT = 1
"""The version of the format, as `opened` has it."""

KINDS = {"worker": Kind.BACKEND, "startup": Kind.AUXILIARY, "dead-end": Kind.DEAD_END}
"""What the journal calls a child, and what the model calls it. Only a worker has a slot."""

CLEAN, CRASH = "clean", "crash"

# --- What a line has -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A value that a line must have, what it must be, and what it says."""

    name: str
    must_be: str
    is_right: Callable[[Any], bool]
    sentence: str


def _is_int(value: Any, least: int, most: int | None = None) -> bool:
    return type(value) is int and value >= least and (most is None or value <= most)


def _is_word(value: Any) -> bool:
    """Whether it is 64 bits written as Python's `hex` writes them."""
    try:
        return isinstance(value, str) and value == hex(number := int(value, 16)) and 0 <= number < 1 << 64
    except ValueError:
        return False


EVERY_LINE = (
    Field("generation", "a whole number from 1", lambda it: _is_int(it, 1), "the generation, counted from 1"),
    Field("time", "a number", lambda it: type(it) in (int, float), "when it was told, in seconds since 1970; not used"),
)
OPENED = (
    Field("format", str(FORMAT), lambda it: _is_int(it, FORMAT, FORMAT), "the version of this format"),
    Field("pid", "a whole number from 1", lambda it: _is_int(it, 1), "the supervisor's process"),
    Field("slots", "a whole number from 1 to 1048576", lambda it: _is_int(it, 1, 1 << 20), "how many slots there are"),
    Field("startup", "true or false", lambda it: type(it) is bool, "whether a startup child prepares each generation"),
)
OF_A_CHILD = (
    Field("pid", "a whole number from 1", lambda it: _is_int(it, 1), "the child's process"),
    Field("kind", "one of " + ", ".join(KINDS), lambda it: isinstance(it, str) and it in KINDS, "what it is for"),
    Field("slot", "a whole number from 0", lambda it: _is_int(it, 0), "its slot, from 1; 0: it has none"),
)
OF_A_WORKERS_START = (
    Field("clean_word", "64 bits, such as 0x1f", _is_word, "what the slot must hold at the end to be clean"),
)
OF_AN_END = (
    Field("decision", f"{CLEAN} or {CRASH}", lambda it: it in (CLEAN, CRASH), "what the supervisor made of the death"),
    Field("status", "-127 to 255", lambda it: _is_int(it, -127, 255), "n for exit(n), -n for a death by signal n"),
    Field("slot_word", "64 bits, such as 0x1f", _is_word, "what the slot held at the release; 0x0: there is no slot"),
)

# --- What a line means -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class When:
    """A condition on the state before, beside the guards of the actions, and its reason."""

    holds: Callable[[Profile], Term]
    why: str


@dataclass(frozen=True)
class Meaning:
    """One event as steps of the model. An event may have several meanings: one that is possible is enough."""

    event: str
    of: tuple[str, ...]
    """The kinds of child that it may be of; none: it is the supervisor's."""
    sentence: str
    runs: tuple[tuple[str, ...], ...]
    """The actions it stands for, one after another; several: any of them. An action's child and slot are the line's."""
    when: tuple[When, ...] = ()
    decision: str = ""
    """Of an end: what the line, and the model, must have decided."""
    owes: str = ""
    """The event that must be told next; only `closing` may come between."""
    is_owed: bool = False
    """Whether it is told only where it is owed."""
    gives_patience: bool = False
    """Whether somebody has a limited time from here on."""
    spends_patience: bool = False
    """Whether that time is over: it can be only once."""
    is_a_notice: bool = False
    """Whether it is of a child that is there, and what it owes is of the same child."""
    prepares: bool = False
    """Whether it is of a startup child: there is one in each generation, or in none."""
    is_prepared: bool = False
    """Whether the generation's startup child, if there is to be one, has done its work."""
    next_generation: bool = False
    """Whether the line has the number of the generation that begins."""


_d = Parameter("d", CHILD)
_somebody = exists(_d, phase[_d] != Phase.NONE)
_in_recovery = one_of(mode, Mode.STOPPING, Mode.DRAINING, Mode.RESETTING)
_WITHOUT = ("startup", "dead-end")

EVENTS = (
    Meaning("started", ("worker",), "A worker was started, in a slot.", (("assign", "fork"),)),
    Meaning("started", ("dead-end",), "A child was started that only says no.", (("fork_dead_end",),)),
    Meaning(
        "startup",
        ("startup",),
        "A child was started that prepares the generation.",
        (("fork_auxiliary",), ("assign_auxiliary", "fork")),
        gives_patience=True,
        prepares=True,
    ),
    Meaning(
        "exited", ("worker",), "It was reaped, and is clean.", (("reap_clean",), ("reap_book_keeping",)), (), CLEAN
    ),
    Meaning(
        "exited",
        _WITHOUT,
        "The same, of a child without a slot.",
        (("reap_clean_without_a_slot",), ("reap_book_keeping_without_a_slot",)),
        decision=CLEAN,
    ),
    Meaning(
        "noticed",
        ("worker",),
        "It begins to die, armed: the others are stopped, no worker is started.",
        ((),),
        (
            When(
                lambda profile: both(is_decided(profile), slot_is_looked_at) if profile.early_notice else either(),
                "deaths are decided, and may be known before the reaping",
            ),
        ),
        owes="crashed",
        is_a_notice=True,
    ),
    Meaning(
        "crashed",
        ("worker",),
        "It was reaped, and is the one that crashed: recovery begins.",
        (("reap_crash",),),
        decision=CRASH,
        owes="stopping",
    ),
    Meaning(
        "crashed",
        _WITHOUT,
        "The same, of a child without a slot.",
        (("reap_crash_without_a_slot",),),
        decision=CRASH,
        owes="stopping",
    ),
    Meaning(
        "lost",
        ("worker",),
        "It was reaped, and is a crash, when the others were being stopped already.",
        (("reap_book_keeping",),),
        decision=CRASH,
    ),
    Meaning(
        "lost",
        _WITHOUT,
        "The same, of a child without a slot.",
        (("reap_book_keeping_without_a_slot",),),
        decision=CRASH,
    ),
    Meaning(
        "stopping",
        (),
        "After a crash: the others are made to end. The reaping has begun it, so nothing more changes.",
        ((),),
        is_owed=True,
        gives_patience=True,
    ),
    Meaning(
        "stopping",
        (),
        "While closing: it took too long, or only a startup child is there. All are made to end.",
        (("ask_immediate",),),
        (
            When(lambda _: shutdown == Shutdown.ORDERLY, "closing has begun"),
            When(lambda _: one_of(mode, Mode.RUNNING, Mode.STARTING), "nobody was being stopped yet"),
        ),
        gives_patience=True,
    ),
    Meaning(
        "limit",
        (),
        "Who did not stop, or the startup child, is killed; that itself has no line.",
        ((),),
        (
            When(children_are_ended, "children are being stopped, or prepare a generation"),
            When(lambda _: _somebody, "somebody is left"),
        ),
        spends_patience=True,
    ),
    Meaning(
        "limit",
        (),
        "There were too many recoveries: there is no other.",
        ((),),
        (
            When(lambda _: both(_in_recovery, everybody_is_gone), "a recovery is under way, and everybody is gone"),
            When(lambda _: shutdown == Shutdown.NONE, "no recovery is wanted in a shutdown"),
        ),
        owes="closed",
    ),
    Meaning("reset", (), "A new generation has been made.", (("reset",),), next_generation=True),
    Meaning("running", (), "The generation is ready; workers are started again.", (("started",),), is_prepared=True),
    Meaning("closing", (), "close() was called.", (("ask_orderly",),)),
    Meaning(
        "closed",
        (),
        "The supervisor has stopped, and no child is left: it was closed, or the next generation could not be made.",
        (("stop",), ("reset", "startup_fails")),
    ),
)
"""Every event but `opened`, which is the first line of a supervisor and no action."""

NAMES = ("opened", *dict.fromkeys(meaning.event for meaning in EVENTS))

ACTIONS_NOT_TOLD: Mapping[str, str] = {
    "only_dead_ends_left": "The supervisor's own book-keeping: possible before any line.",
    "all_gone": "The supervisor's own book-keeping: possible before any line.",
    "kill": "The dead child's line follows, and says how it died: taken before that line.",
    "kill_stuck": "The same.",
    "stray_write": "The same: what somebody scribbled over a slot shows when the slot is released.",
    "fork_fails": "A start that fails leaves nothing behind, and is not told.",
    "notice": "What it begins is told when the child is reaped, in the order of a reaping: as `reap_crash`.",
    "assign_fails": "PostgreSQL's supervisor ends, and tells nothing more.",
    "clock_runs_out": "PostgreSQL's (15 to 17): here such a crash starts recovery at once, and that is told.",
}
"""Actions without a line of their own, but for the steps of a child, which nobody tells: they stand before its end."""


# --- The page --------------------------------------------------------------------------------------------------------


def markdown() -> str:
    """Return the definition of the format as a page, in Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# The journal: its events, and what they mean"
    yield ""
    yield "Written by `armed export events` from `armed_model/events.py`, by which `armed check-trace` reads journals."
    yield "A journal (`Supervisor(journal=...)`) has one event a line, as a JSON object. Other fields are ignored."
    yield ""
    yield "## Fields"
    yield ""
    yield "| where | field | must be | says |"
    yield "| --- | --- | --- | --- |"
    yield f"| every line | `event` | one of {', '.join(NAMES)} | what happened |"
    for where, fields in (
        ("every line", EVERY_LINE),
        ("`opened`", OPENED),
        ("`child`", OF_A_CHILD),
        ("`child`, a worker's `started`", OF_A_WORKERS_START),
        ("`child`, an end", OF_AN_END),
    ):
        for field in fields:
            yield f"| {where} | `{field.name}` | {field.must_be} | {field.sentence} |"
    yield ""
    yield "An end is `exited`, `crashed` or `lost`. A worker's `slot` is 1 or more, any other child's is 0. Words are"
    yield "hexadecimal, as 64 bits are more than some readers of JSON keep. No clean word is that"
    yield "of another start, or the complement of one."
    yield ""
    yield "## Meaning"
    yield ""
    yield "`opened` is the first line of a supervisor, and no action: everything is blank, and it is running, or"
    yield "starting where there is a startup child. A file may have several supervisors, one after another."
    yield ""
    yield "| event | of | means | actions of the model |"
    yield "| --- | --- | --- | --- |"
    for each in EVENTS:
        yield f"| `{each.event}` | {', '.join(each.of)} | {_says(each)} | {_runs(each)} |"
    yield ""
    yield "## What is not told"
    yield ""
    yield "A child's own steps (arm, take, give, disarm, leave, how it ends) have no line: they stand before its end,"
    yield "and what the slot held says which. These have none either:"
    yield ""
    yield "| action | where it is |"
    yield "| --- | --- |"
    for name, where in ACTIONS_NOT_TOLD.items():
        yield f"| `{name}` | {where} |"


def _says(meaning: Meaning) -> str:
    said = [meaning.sentence, *(f"Only where {when.why}." for when in meaning.when)]
    if meaning.is_owed:
        said.append("Only directly after `crashed`.")
    if meaning.owes:
        whose = "Its own " if meaning.is_a_notice else ""
        said.append(f"{whose}`{meaning.owes}` comes next; only `closing` may come between.")
    if meaning.spends_patience:
        said.append("Once after each `stopping` or `startup`.")
    if meaning.prepares:
        said.append("Once in a generation, and only if `opened` says `startup`.")
    if meaning.is_prepared:
        said.append("If `opened` says `startup`, only after the startup child has `exited`.")
    if meaning.next_generation:
        said.append("It has the new generation's number.")
    return " ".join(said)


def _runs(meaning: Meaning) -> str:
    return ", or ".join(" then ".join(f"`{name}`" for name in run) or "none" for run in meaning.runs)
