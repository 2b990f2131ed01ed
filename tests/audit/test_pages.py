"""What the site tells of verdicts and runs: the picture of the matrix, and runs as tables with their changes marked."""

from __future__ import annotations

import re

import pytest

from armed_audit.pages import Stale, anchor, as_recorded, counterexamples_of, matrix_picture, run_table
from armed_model.profiles import PROFILES
from armed_proofs.matrix import decide, expected_verdicts


@pytest.fixture(scope="module")
def leak():
    """The matrix of 8.4.0, of which one property is decided: after a failed fork the slot is not released."""
    return decide(["8.4.0"], only="no_slot_leaks", processes=1)


def test_verdicts_that_are_not_the_recorded_ones_are_not_shown(leak):
    with pytest.raises(Stale, match=r"8\.4\.0: slot_has_one_owner is not decided; recorded is proved"):
        as_recorded(leak)


def test_a_run_is_a_row_a_step_and_what_a_step_changes_is_marked(leak):
    ((cell,),) = [matrix.cells for matrix in leak]
    rows = [re.findall(r"<td.*?</td>", row) for row in run_table(cell).replace("\n", "").split("<tr>")[2:]]
    marked = [["changed" in column for column in row[3:]] for row in rows]
    texts = [[re.sub(r"<br>", ", ", re.sub(r"</?(?!br)\w+[^>]*>", "", column)) for column in row[3:]] for row in rows]
    assert texts == [
        ["running", "unused", "none"],
        ["running, launching for slot 1", "assigned", "none"],
        ["running", "assigned", "none"],
    ]
    assert marked == [[False] * 3, [True, True, False], [True, False, False]]
    assert "<mark>launching for slot 1</mark>" in rows[1][3]
    assert "<mark>running" not in rows[1][3]


def test_a_counterexample_is_told_with_its_sentence_its_finding_and_its_place(leak):
    page = counterexamples_of(leak)
    ((cell,),) = [matrix.cells for matrix in leak]
    for part in (f"({anchor('8.4.0', 'no_slot_leaks')})=", cell.claim.sentence, cell.finding.sentence, "45f9b4646f2f"):
        assert part in page


def test_the_picture_says_of_each_cell_what_is_recorded():
    picture = matrix_picture()
    recorded = expected_verdicts()
    told = re.findall(r"<title>([\w ,]+) in ([\w.]+): ([a-z ]+)</title>", picture)
    assert len(told) == len(set(told)) > 100
    for name, profile, verdict in told:
        assert recorded[profile][name] == verdict
    assert {profile for _, profile, _ in told} == {*PROFILES}
    links = re.findall(r'href="counterexamples.html#([\w-]+)"', picture)
    assert links == [anchor(profile, name) for name, profile, verdict in told if verdict == "refuted"]
