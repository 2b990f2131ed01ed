"""The supervisor's events as lines of JSON, for people, log collectors and `armed check-trace`.

    {"event": "crashed", "generation": 1, "time": 1781.2, "child": {"pid": 71, "slot": 3, "kind": "worker",
     "decision": "crash", "status": 0, "slot_word": "0xb6..."}}

`time` is in seconds on the clock of `time.time`, of the moment at which the event was told. Words are hexadecimal:
64 bits are more than some readers of JSON keep. `decision`, `status` and `slot_word` are there from the child's end on.

So that the file alone tells whether all was in order, there is more in it than events have. The first line of each
supervisor, `opened`, says how many slots there are and whether a startup child comes first. A worker's `started` has
`clean_word`, what its slot must hold at the end: without it nobody could see that a dirty word was called clean. The
whole format, with what each line means, is in docs/events.md.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from armed.supervisor import Event

__all__ = ["FORMAT", "Journal", "as_dict"]

FORMAT: Final = 1
"""The version of the format."""


def as_dict(event: Event) -> dict[str, Any]:
    """Return an event as plain data."""
    line: dict[str, Any] = {"event": event.kind.value, "generation": event.generation, "time": time.time()}
    if (child := event.child) is not None:
        line["child"] = {"pid": child.pid, "slot": child.slot, "kind": child.kind.value}
        if child.slot and event.kind.value == "started":
            line["child"]["clean_word"] = hex(child._token)
        if child.outcome is not None and event.is_end:
            line["child"] |= {
                "decision": child.outcome.decision.value,
                "status": child.outcome.status,
                "slot_word": hex(child.outcome.slot_word),
            }
    return line


class Journal:
    """A file to which events are appended, a line each, flushed at once. Raises `OSError` if it cannot be opened."""

    def __init__(self, to: str | os.PathLike[str] | TextIO) -> None:
        """Write to a path, which is opened for appending, or to a text stream, which is not closed here."""
        self._is_own = isinstance(to, (str, os.PathLike))
        self._file: TextIO = open(to, "a", buffering=1) if isinstance(to, (str, os.PathLike)) else to  # noqa: SIM115

    def open(self, slots: int, startup: bool) -> None:
        """Append the line that begins a supervisor. Raises as `write` does."""
        about = {"format": FORMAT, "pid": os.getpid(), "slots": slots, "startup": startup}
        self._append({"event": "opened", "generation": 1, "time": time.time()} | about)

    def write(self, event: Event) -> None:
        """Append an event. Raises `OSError` and `ValueError` as the file does."""
        self._append(as_dict(event))

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")  # one write: a line is whole or is not there
        self._file.flush()

    def close(self) -> None:
        """Close the file, if it was opened here. Harmless when repeated."""
        if self._is_own:
            self._file.close()
