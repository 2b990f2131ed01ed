"""The page on the journal's format is the table by which journals are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from armed_model.events import FORMAT, markdown

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


def test_the_page_is_written_from_the_table() -> None:
    assert PAGE.read_text() == markdown(), "write it anew: armed export events > docs/events.md"


def test_the_command_writes_the_page() -> None:
    command = [sys.executable, "-m", "armed_audit", "export", "events"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout == PAGE.read_text()


def test_who_writes_and_who_reads_mean_the_same_format() -> None:
    from armed import journal

    assert journal.FORMAT == FORMAT
