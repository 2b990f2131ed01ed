"""The entry point of `armed`: it works in the base install too, and then says what is missing."""

from __future__ import annotations

import sys

EXTRA = {"typer", "rich", "z3", "transitions", "hypothesis"}


def main() -> int:
    """Run the command line; return its exit status. 2: it could not run at all."""
    try:
        from armed_audit.cli import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRA:
            raise
        print(f"armed: {error.name} is not installed; do: pip install 'armed[verify]'", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
