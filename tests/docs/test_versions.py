"""The page on what each version guarantees is what the recorded verdicts and findings say."""

from __future__ import annotations

from pathlib import Path

from armed_audit.versions import markdown

PAGE = Path(__file__).parents[2] / "docs" / "versions.md"


def test_the_page_is_written_from_what_is_recorded() -> None:
    assert PAGE.read_text() == markdown(), "write it anew: armed export versions > docs/versions.md"
