"""The page on what each version guarantees is what the recorded verdicts and findings say."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from armed_audit.versions import markdown, picture

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "versions.md"


def test_the_page_is_written_from_what_is_recorded() -> None:
    assert PAGE.read_text() == markdown(), "write it anew: armed export versions > docs/versions.md"


def test_the_picture_is_drawn_from_what_is_recorded() -> None:
    assert (DOCS / "matrix.svg").read_text() == picture(), "draw it anew: armed export matrix > docs/matrix.svg"


def test_each_cell_of_the_page_is_in_the_picture() -> None:
    drawn = [each.get("class") for each in ElementTree.fromstring(picture()).iter("{http://www.w3.org/2000/svg}rect")]
    cells = markdown().split("## Checks of the model itself")[0]
    assert drawn.count("proved") == cells.count("| proved ") > 100
    assert drawn.count("refuted") == cells.count("| **refuted** ") > 30
    assert drawn.count("scope") == cells.count("| - ")
