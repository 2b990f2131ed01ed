"""The matrix in a real browser: cells open, runs are stepped through, nothing is asked of anybody."""

import json
import re

import pytest

from armed_audit.runs import states_of_run
from armed_audit.viewer import as_script, text_of, viewer
from armed_model.profiles import PROFILES

REFUTED = "18: armed_exit_triggers_recovery"
PROVED = "reference: slot_has_one_owner"


def page_of(fragment):
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return f"<!DOCTYPE html><html lang=en><head>{head}<title>x</title></head><body>{fragment}</body></html>"


@pytest.fixture(scope="module")
def fragment(matrices):
    return viewer(matrices)


@pytest.fixture
def page(browser, fragment, tmp_path):
    """The browser with the matrix in it; after the test it has complained of nothing and asked for nothing else."""
    file = tmp_path / "matrix.html"
    file.write_text(page_of(fragment), encoding="utf-8")
    browser.open(file)
    yield browser
    browser.run("0")
    assert browser.complaints == []
    assert browser.requests == [file.as_uri()]


def cell(key):
    return f"document.querySelector('[data-cell={json.dumps(key)}]')"


def text(page, selector):
    return page.run(f"document.querySelector({json.dumps(selector)}).textContent")


def click(page, selector):
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


def state_shown(page):
    """Return what the tables of the open run say, as {variable: values}."""
    rows = "[...document.querySelectorAll('.state tr')].map(row => [...row.children].map(each => each.textContent))"
    return {row[0]: row[1:] for row in page.run(rows) if len(row) > 1 and row[0]}


def test_a_browser_that_complains_or_asks_is_noticed(browser, tmp_path):
    file = tmp_path / "bad.html"
    file.write_text(page_of("<img src='http://127.0.0.1:1/x.png'><script>console.error('no'); oops()</script>"))
    browser.open(file)
    browser.run("0")
    assert len(browser.complaints) >= 2
    assert "http://127.0.0.1:1/x.png" in browser.requests


def test_every_cell_opens(page):
    shown = page.run(
        "[...document.querySelectorAll('[data-cell]')].map(each => { each.click();"
        " const run = document.querySelector('article.run'); const title = run.querySelector('h3').textContent;"
        " run.querySelector('[data-go=last]').click(); run.querySelector('[data-go=close]').click(); return title; })"
    )
    assert len(shown) > 120
    assert any(each == "armed_exit_triggers_recovery in 18: refuted" for each in shown)
    assert page.run("document.querySelectorAll('article.run').length") == 0


def test_a_run_is_stepped_through_by_buttons(page):
    page.run(cell(REFUTED) + ".click()")
    assert text(page, "output") == "Step 0 of 6"
    for _ in range(3):
        click(page, "[data-go=next]")
    assert text(page, "output") == "Step 3 of 6"
    assert text(page, ".said").startswith("The child: arm (child 1).")
    click(page, "[data-go=previous]")
    assert text(page, "output") == "Step 2 of 6"
    click(page, "[data-go=last]")
    assert text(page, "output") == "Step 6 of 6"
    click(page, "[data-go=next]")
    assert text(page, "output") == "Step 6 of 6"
    assert page.run("document.querySelector('[data-go=next]').getAttribute('aria-disabled')") == "true"
    click(page, "[data-go=first]")
    assert text(page, "output") == "Step 0 of 6"
    click(page, ".steps [data-at='5']")
    assert text(page, "output") == "Step 5 of 6"


def test_what_the_supervisor_believes_stands_beside_what_is_true(page):
    page.run(cell(REFUTED) + ".click()")
    click(page, "[data-go=last]")
    shown = state_shown(page)
    assert shown["mode"] == ["running"]  # it goes on, and gives the slot out
    assert shown["owed"] == ["yes"]  # though an armed child was reaped
    assert shown["in use"] == ["yes"]
    groups = page.run("[...document.querySelectorAll('.state tr.group')].map(row => row.textContent)")
    assert {"what the supervisor believes", "what is true, and nobody reads"} <= set(groups)


def test_the_tables_show_the_states_of_the_run(page, matrices):
    (refuted,) = [
        each.as_json() for matrix in matrices for each in matrix.cells
        if each.profile == "18" and each.name == "armed_exit_triggers_recovery"
    ]  # fmt: skip
    page.run(cell(REFUTED) + ".click()")
    state = state_shown(page)
    for step in states_of_run("18", "calm", refuted["counterexample"])["steps"]:
        click(page, "[data-go=next]")
        now = state_shown(page)
        changed = {name for name in now if now[name] != state[name]}
        expected = {key.partition(".")[0].replace("_", " "): value for key, value in step["sets"].items()}
        assert {name: now[name][0] for name in changed} == expected
        marked = page.run(
            "[...document.querySelectorAll('.state td.moved')].map(each => each.parentElement.firstChild.textContent)"
        )
        assert set(marked) == changed
        state = now


def test_all_of_it_is_done_by_keyboard(page):
    page.press("Tab")
    first = page.run("document.activeElement.dataset.cell")
    assert first is not None
    for key, expected in (("End", "reference"), ("Home", "18"), ("ArrowRight", "reference"), ("ArrowLeft", "18")):
        page.press(key)
        assert page.run("document.activeElement.dataset.cell").startswith(expected + ":")
    page.press("ArrowDown")
    page.press("ArrowUp")
    assert page.run("document.activeElement.dataset.cell") == first == REFUTED
    page.press("Enter")
    assert page.run("document.activeElement.className") == "run"
    steps = [("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 6), ("ArrowRight", 6), ("Home", 0)]
    for key, step in steps:
        page.press(key)
        assert text(page, "output") == f"Step {step} of 6"
    page.press("Tab")  # to a button of the run, where the same keys go on
    page.press("ArrowRight")
    assert text(page, "output") == "Step 1 of 6"
    page.press("Escape")
    assert page.run("document.querySelectorAll('article.run').length") == 0
    assert page.run("document.activeElement.dataset.cell") == REFUTED


def test_a_grid_is_one_stop_of_the_tab_key(page):
    assert page.run("document.querySelectorAll('[data-cell][tabindex=\"0\"]').length") == page.run(
        "document.querySelectorAll('.grid').length"
    )


def test_a_proved_cell_shows_the_run_that_reaches_its_premise(page):
    page.run(cell(PROVED) + ".click()")
    assert text(page, ".which") == "The run that reaches its premise"
    assert "For any number of slots and children" in text(page, ".why")
    click(page, "[data-go=last]")
    assert "slot 1" in state_shown(page)["slot of"][0]


def test_a_refuted_cell_has_both_runs(page):
    page.run(cell(REFUTED) + ".click()")
    assert page.run("document.querySelector('[aria-pressed=true]').dataset.which") == "counterexample"
    click(page, "[data-which=premise]")
    assert page.run("document.querySelector('[aria-pressed=true]').dataset.which") == "premise"
    assert text(page, "output").startswith("Step 0 of ")


def test_what_happens_is_read_out(page):
    page.run(cell(REFUTED) + ".click()")
    assert page.run("document.querySelector('.said').getAttribute('aria-live')") == "polite"
    assert page.run("document.querySelector('article.run').getAttribute('aria-label')") == (
        "armed_exit_triggers_recovery in 18"
    )
    assert page.run("[...document.querySelectorAll('button')].filter(each => !each.textContent.trim()).length") == 0


def test_nothing_is_wider_than_a_small_telephone(browser, matrices, tmp_path):
    cells = [each.as_json() for each in matrices[0].cells]
    every = [{**each, "profile": profile} for profile in PROFILES for each in cells]  # as many columns as there are
    (tmp_path / "wide.html").write_text(page_of(viewer(every)), encoding="utf-8")
    browser.size(360)
    browser.open(tmp_path / "wide.html")
    assert browser.run("document.querySelector('.head').children.length") == 1 + len(PROFILES)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    for key in (REFUTED, "18: slot_has_one_owner"):
        browser.run(cell(key) + ".click()")
        click(browser, "[data-go=last]")
    assert browser.run("document.documentElement.scrollWidth") <= 360


def test_it_is_dark_where_the_reader_wants_it_dark(page):
    style = "getComputedStyle(document.querySelector('.armed-matrix'))"
    colours = f"[{style}.backgroundColor, {style}.color]"
    page.media(scheme="light")
    light = page.run(colours)
    page.media(scheme="dark")
    dark = page.run(colours)
    lightness = [[sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in each] for each in (light, dark)]
    assert lightness[0][0] > 600 > lightness[0][1]
    assert lightness[1][0] < 200 < lightness[1][1]


def test_on_paper_the_open_runs_are_tables(page):
    shown = "(each => getComputedStyle(document.querySelector(each)).display)"
    for key in (REFUTED, PROVED):
        page.run(cell(key) + ".click()")
    assert page.run(f"{shown}('.all')") == "none"
    page.media("print")
    assert page.run(f"{shown}('.all')") == "table"
    assert page.run(f"{shown}('.stepper')") == "none"
    assert page.run("document.querySelectorAll('.all').length") == 2
    assert page.run("document.querySelectorAll('.all')[1].rows.length") == 1 + 6
    assert "owed becomes yes" in page.run("document.querySelectorAll('.all')[1].textContent")
    page.media()
    assert page.pdf().startswith(b"%PDF-")


def test_a_run_of_another_version_is_shown_as_its_actions(browser, matrices, tmp_path):
    published = [each.as_json() for each in matrices[0].cells if each.name == "armed_exit_triggers_recovery"]
    published[0]["counterexample"] = [{"action": "dream", "arguments": [1]}]
    file = tmp_path / "old.html"
    file.write_text(page_of(viewer(published)), encoding="utf-8")
    browser.open(file)
    browser.run(cell(REFUTED) + ".click()")
    assert "does not take its run: dream(1)" in text(browser, ".why")
    assert browser.run("getComputedStyle(document.querySelector('.stepper')).display") == "none"
    assert browser.complaints == []


def test_what_a_cell_says_is_text_and_never_markup(browser, matrices, tmp_path):
    published = [each.as_json() for each in matrices[0].cells if each.name == "armed_exit_triggers_recovery"]
    bad = "</script><img src=x onerror=\"document.title='owned'\">"
    published[0]["sentence"] = published[0]["finding"]["sentence"] = bad
    file = tmp_path / "bad.html"
    file.write_text(page_of(viewer(published)), encoding="utf-8")
    browser.open(file)
    browser.run(cell(REFUTED) + ".click()")
    assert text(browser, ".sentence") == bad
    assert browser.run("document.title") == "x"
    assert browser.requests == [file.as_uri()]


def test_two_matrices_may_stand_on_a_page(browser, matrices, tmp_path):
    both = viewer(matrices[:1], "one") + viewer(matrices[1:], "two")
    (tmp_path / "both.html").write_text(page_of(both), encoding="utf-8")
    browser.open(tmp_path / "both.html")
    browser.run(cell(REFUTED) + ".click()")
    browser.run(cell(PROVED) + ".click()")
    assert browser.run("document.querySelectorAll('#one article.run').length") == 1
    assert browser.run("document.querySelectorAll('#two article.run').length") == 1
    assert browser.complaints == []


def test_the_script_is_small_and_makes_no_markup_from_text():
    script = text_of("viewer.js")
    assert len(script.splitlines()) < 300
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\bfetch\b", script)


def test_no_data_ends_its_script_element():
    assert "<" not in as_script({"a": "</script><!--"})
    assert json.loads(as_script({"a": "</script>"})) == {"a": "</script>"}
