"""The site is built from a clean checkout without a warning, and what is stale or dangles keeps it from being built."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from armed_audit import pages
from armed_model.profiles import CONTROLS, PROFILES
from armed_proofs.matrix import expected_verdicts

ROOT = Path(__file__).parents[2]
LIMIT = 300
"""Seconds that building may take; on two idle cores it takes some twenty."""

PLACES = ("model", "impl", "proofs", "docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml")


def checkout(to):
    """Copy what the site is built from, without anything that was built before."""
    to.mkdir()
    for place in PLACES:
        if (ROOT / place).is_dir():
            shutil.copytree(ROOT / place, to / place, ignore=shutil.ignore_patterns("_build", "__pycache__"))
        else:
            shutil.copy(ROOT / place, to / place)
    return to


def build(at):
    """Build the site from the checkout's own packages, whatever is installed."""
    paths = os.pathsep.join(str(at / each) for each in ("model", "impl", "proofs"))
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "docs", "docs/_build"]
    return subprocess.run(
        command, cwd=at, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=LIMIT
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    at = checkout(tmp_path_factory.mktemp("site") / "checkout")
    ran = build(at)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    yield at / "docs" / "_build"
    shutil.rmtree(at)


def test_the_site_is_built_without_a_warning_and_has_every_page(site):
    names = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert len(names) > 15
    assert names <= {page.stem for page in site.glob("*.html")}


def test_no_place_for_something_generated_is_left_empty(site):
    for page in site.glob("*.html"):
        assert "<!-- generated" not in page.read_text(), page.name


def test_every_refuted_cell_has_its_counterexample_and_can_be_stepped_through(site):
    page, viewer = (site / "counterexamples.html").read_text(), (site / "matrix.html").read_text()
    refuted = [
        (profile, name)
        for profile in (*PROFILES, *CONTROLS)
        for name, verdict in expected_verdicts()[profile].items()
        if verdict == "refuted"
    ]
    assert len(refuted) > 40
    for profile, name in refuted:
        assert f'id="{pages.anchor(profile, name)}"' in page, (profile, name)
        assert f'data-cell="{profile}: {name}"' in viewer, (profile, name)


def test_every_link_within_the_site_leads_somewhere(site):
    ids = {page.name: set(re.findall(r'\bid="([^"]+)"', page.read_text())) for page in site.glob("*.html")}
    links = 0
    for page in site.glob("*.html"):
        for link in re.findall(r'<a [^>]*href="([^"]+)"', page.read_text()):
            if re.match(r"[a-z]+:", link):
                continue
            links += 1
            to, _, place = html.unescape(link).partition("#")
            assert (site / (to or page.name)).exists(), f"{page.name}: {link}"
            if place and (to or page.name) in ids:
                assert place in ids[to or page.name], f"{page.name}: {link}"
    assert links > 1000


def test_nothing_is_loaded_from_elsewhere(site):
    loads = re.compile(r'(?:src="|<link [^>]*href="|url\(["\']?|@import ["\'])((?:https?:)?//[^"\')]+)')
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 20
    assert loads.search('<script src="https://example.org/a.js">')
    assert loads.search('<link rel="stylesheet" href="//example.org/a.css">')
    for file in files:
        assert not loads.search(file.read_text()), file.name


@pytest.mark.parametrize("name", ["index", "matrix", "counterexamples", "versions", "benchmarks", "search"])
def test_a_page_opens_in_a_browser_without_a_complaint_and_asks_nobody_else(site, browser, name):
    browser.open(site / f"{name}.html")
    assert browser.run("document.title")
    assert browser.complaints == []
    assert [each for each in browser.requests if not each.startswith((f"file://{site}/", "data:"))] == []


def test_a_refuted_cell_is_stepped_through_on_the_site(site, browser):
    browser.open(site / "matrix.html")
    browser.run("document.querySelector('[data-cell=\"18: armed_exit_triggers_recovery\"]').click()")
    browser.run("document.querySelector('[data-go=next]').click()")
    assert browser.run("document.querySelector('article.run output').textContent").startswith("Step 1 of ")
    assert browser.complaints == []


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("model/armed_model/system.py", 'cites=("C6", "C8")', 'cites=("C6", "C99")', "the action arm cites C99"),
        ("model/armed_model/properties.py", 'cites=("C4", "C8")', 'cites=("C4", "C99")',
         "the property nobody_takes_on_the_way_out cites C99"),
        ("proofs/armed_audit/claims.toml", "[C16]", '[C17]\nsentence = "Nothing serves it."\n[C16]',
         "nothing in the model cites C17"),
        ("docs/versions.md", "| proved |", "| **refuted** |", "docs/versions.md is not what it is written from"),
    ],
    ids=["an-action-cites-C99", "a-property-cites-C99", "a-claim-dangles", "a-table-is-stale"],
)  # fmt: skip
def test_what_is_planted_keeps_the_site_from_being_built(file, old, new, complaint, tmp_path):
    at = checkout(tmp_path / "checkout")
    text = (at / file).read_text()
    assert old in text
    (at / file).write_text(text.replace(old, new, 1))
    ran = build(at)
    assert ran.returncode != 0
    assert complaint in ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_term_of_the_glossary_stands_there_once():
    lines = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    terms = [line for line in lines if re.match(r"[A-Za-z][\w -]*$", line)]
    assert len(terms) > 60
    assert len(terms) == len(set(terms))
