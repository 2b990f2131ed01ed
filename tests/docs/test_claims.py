"""Claims and citations: a citation of what is no claim, and a claim that nothing cites, are found out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from armed_audit.claims import Dangling, check, markdown
from armed_audit.traceability import Citing, citing, claims

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "claims.md"


def test_the_page_is_written_from_the_claims_and_what_cites_them():
    assert PAGE.read_text() == markdown(), "write it anew: armed export claims > docs/claims.md"


def test_the_command_writes_the_page():
    command = [sys.executable, "-m", "armed_audit", "export", "claims"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout == PAGE.read_text()


def test_every_citation_that_there_is_stands_in_the_page():
    sections = dict(re.findall(r"^- \*\*(C\d+)\*\*:(.*?)(?=^- \*\*|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    assert list(sections) == list(claims())
    assert len(check()) > 60
    for each in citing():
        for claim in each.cites:
            assert f"`{each.name}`" in sections[claim], (claim, each)


@pytest.mark.parametrize("what", ["row", "action", "property"])
def test_a_citation_of_what_is_no_claim_is_named(what):
    with pytest.raises(Dangling, match=f"the {what} planted cites C99"):
        check([*citing(), Citing(what, "planted", ("C1", "C99"))])


def test_a_claim_that_nothing_cites_is_named():
    with pytest.raises(Dangling, match="nothing in the model cites C17"):
        check(claims={**claims(), "C17": {"sentence": "A claim that nothing serves."}})


def test_a_claim_that_lost_its_last_citation_is_named():
    with pytest.raises(Dangling, match="nothing in the model cites C10"):
        check([each for each in citing() if "C10" not in each.cites])


def test_a_reason_for_not_being_modelled_that_is_out_of_date_is_named():
    with pytest.raises(Dangling, match="C1 is said not to be modelled, and is cited"):
        check(claims={**claims(), "C1": {"sentence": "", "not_modelled": "out of date"}})


def test_whatever_the_code_and_the_documents_cite_is_a_claim():
    patterns = ("*.md", "docs/*.md", "*/armed*/**/*.py", "*/armed*/*.toml")
    files = [file for pattern in patterns for file in ROOT.glob(pattern)]
    assert len(files) > 50
    for file in files:
        for claim in re.findall(r"\bC[0-9]{1,2}\b", file.read_text()):
            assert claim in claims(), f"{file}: {claim}"
