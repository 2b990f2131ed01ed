"""Claims and citations: what cites what is no claim, and a claim that nothing cites, are found out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from armed_model.claims import CLAIMS, NOT_CITED, Citation, Dangling, check, citations, markdown

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "claims.md"


def test_the_page_is_written_from_the_claims_and_what_cites_them():
    assert PAGE.read_text() == markdown(), "write it anew: armed export claims > docs/claims.md"


def test_nothing_dangles():
    check(citations())


@pytest.mark.parametrize("kind", ["row", "action", "property"])
def test_a_citation_of_what_is_no_claim_is_named(kind):
    planted = Citation(kind, "planted", ("C1", "C99"))
    with pytest.raises(Dangling, match=f"the {kind} planted cites C99, and there is no such claim"):
        check([*citations(), planted])


def test_a_claim_that_nothing_cites_is_named():
    with pytest.raises(Dangling, match="nothing cites C17, and nobody says why"):
        check(citations(), {**CLAIMS, "C17": "A claim that nothing serves."})


def test_a_claim_that_lost_its_last_citation_is_named():
    without = [each for each in citations() if "C10" not in each.cites]
    with pytest.raises(Dangling, match="nothing cites C10"):
        check(without)


def test_a_reason_for_not_being_cited_that_is_out_of_date_is_named():
    with pytest.raises(Dangling, match="C1 is said not to be cited, and is"):
        check(citations(), not_cited={**NOT_CITED, "C1": "out of date"})
    with pytest.raises(Dangling, match="C99 is said not to be cited, and is no claim"):
        check(citations(), not_cited={**NOT_CITED, "C99": "no claim"})


def test_every_kind_of_citation_is_seen():
    assert {each.kind for each in citations()} == {"row", "action", "property"}
    assert len(citations()) == len({(each.kind, each.name) for each in citations()}) > 60


def test_whatever_the_code_and_the_documents_cite_is_a_claim():
    cited = re.compile(r"\bC([0-9]{1,2})\b")
    patterns = ("*.md", "docs/*.md", "*/armed*/**/*.py", "*/armed*/*.toml")
    files = [file for pattern in patterns for file in ROOT.glob(pattern)]
    assert len(files) > 50
    for file in files:
        for number in cited.findall(file.read_text()):
            assert f"C{number}" in CLAIMS, f"{file}: C{number}"
