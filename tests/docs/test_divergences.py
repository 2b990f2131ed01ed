"""The page on divergences has a row for each refuted cell of 15 and 18, and names each test of them."""

from __future__ import annotations

import re
from pathlib import Path

from armed_proofs.matrix import expected_verdicts, findings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "divergences.md").read_text()
TESTS = (ROOT / "tests" / "conformance" / "test_divergences.py").read_text()
SEEN = "confirmed|not reachable"
ROW = re.compile(rf"\| `(.+)` \| (15|18) \| ({SEEN}) \| (\w+) \| \[(\d)\]\(#(.+)\) \|")


def test_each_refuted_cell_of_15_and_18_has_its_row_and_there_is_no_other():
    refuted = [
        (name, profile)
        for profile in ("15", "18")
        for name, verdict in expected_verdicts()[profile].items()
        if verdict == "refuted"
    ]
    assert sorted((cell, profile) for cell, profile, *_ in ROW.findall(PAGE)) == sorted(refuted)


def test_each_cell_is_reached_as_the_findings_say():
    for cell, profile, _, how, *_ in ROW.findall(PAGE):
        assert (cell, how) == (cell, findings()[(profile, cell)].reach)


def test_each_row_leads_to_its_section():
    for *_, number, anchor in ROW.findall(PAGE):
        titles = [title for title in re.findall(r"^## (.+)$", PAGE, re.MULTILINE) if title.startswith(f"{number}. ")]
        assert [re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-")) for title in titles] == [anchor]


def test_each_test_is_named_by_the_page_and_there_is_no_other():
    assert set(re.findall(r"`(test_\w+)`", PAGE)) == set(re.findall(r"^def (test_\w+)", TESTS, re.MULTILINE))
