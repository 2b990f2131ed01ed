"""The entry point of `armed`: it works in the base install too, and then says what is missing."""

from __future__ import annotations

import os
import signal
import sys
from importlib.metadata import version

from armed_conformance.calls import interrupt

EXTRA = {"typer", "rich", "z3", "transitions", "hypothesis", "jinja2"}
FINE, USAGE, INTERRUPTED = 0, 2, 130


def main() -> int:
    """Run the command line; return its exit status. 2: it could not run at all; 130: Ctrl-C, or SIGTERM."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored: in the background
        signal.signal(signal.SIGINT, interrupt)
    # What runs in the background, or as a service, is ended by SIGTERM: what it has made goes with it, too.
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)
        os.register_at_fork(after_in_child=_end_by_sigterm)
    try:
        status = _run()
    except KeyboardInterrupt:
        print("armed: interrupted", file=sys.stderr)
        status = INTERRUPTED
    # After a KeyboardInterrupt in an exec of text, as where a dataclass is made, CPython remembers it, though it was
    # caught: `python -m` then ends by SIGINT whatever the status (_Py_UnhandledKeyboardInterrupt). A next exec forgets.
    exec("")
    return status


def _end_by_sigterm() -> None:
    """Let a process that was forked end by SIGTERM as it would anywhere, unless it is somebody's who handles it."""
    if signal.getsignal(signal.SIGTERM) is interrupt:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run() -> int:
    try:
        from armed_audit.cli import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRA:
            raise
        if sys.argv[1:] == ["--version"]:
            print(f"armed {version('armed')}, without the extra 'verify'")
            return FINE
        print(f"armed: {error.name} is not installed; do: pip install 'armed[verify]'", file=sys.stderr)
        return USAGE
    return run()


if __name__ == "__main__":
    sys.exit(main())
