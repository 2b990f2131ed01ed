"""The kit finds nothing in `armed`, and finds every bug that is planted into it."""

import sys
from dataclasses import replace

import pytest
from tests.conformance import planted

from armed_conformance.adapters.armed import ArmedFork
from armed_conformance.histories import (
    ACTIONS,
    NEVER_TAKEN,
    UNSTOPPABLE,
    WAYS,
    actions_wanted,
    cells_wanted,
    deaths,
    play,
    situations,
    stories,
)
from armed_conformance.lockstep import Coverage, Lockstep, Mismatch
from armed_conformance.machine import machine_for, run_histories
from armed_conformance.protocol import ExitKind, Step
from armed_conformance.run import UnknownTarget, conform, find
from armed_model.profiles import REFERENCE, Decision
from armed_model.system import System

sys.modules["planted"] = planted  # so that a target can be named in it

DIRECTED = [*stories(), *deaths()]


@pytest.mark.parametrize("history", DIRECTED, ids=lambda history: history.name)
def test_armed_does_what_the_model_does(history):
    coverage = Coverage()
    play(history, ArmedFork(), coverage)
    assert coverage.steps > 0


def test_there_is_a_way_into_every_situation_that_the_model_reaches():
    assert set(WAYS) == situations() - UNSTOPPABLE
    assert situations() >= UNSTOPPABLE


def test_the_directed_histories_see_every_cell():
    coverage = Coverage()
    for history in deaths():
        play(history, ArmedFork(), coverage)
    wanted = cells_wanted(ArmedFork())
    assert len(wanted) == 8 * len(ExitKind) + 6 * 6  # 8 situations before leaving, 6 while leaving, where 6 are raw
    assert set(coverage.cells) >= wanted
    assert coverage.recoveries > 0
    assert coverage.refusals > 0


def test_a_cell_is_seen_when_something_was_decided():
    coverage = Coverage()
    two = next(history for history in stories() if history.name == "two crashes before the supervisor looks")
    play(two, ArmedFork(), coverage)
    assert coverage.decisions["crash"] < sum(coverage.deaths.values())
    assert len(coverage.cells) == coverage.decisions["crash"] + coverage.decisions["clean"]


def test_random_histories_find_no_difference():
    coverage = Coverage()
    run_histories(ArmedFork, 40, coverage, seed=1)
    assert coverage.histories >= 40
    assert coverage.recoveries > 0
    assert coverage.armed_deaths > 0


@pytest.mark.parametrize("bug", planted.ALL, ids=lambda bug: bug.__name__)
def test_directed_histories_catch_every_planted_bug(bug):
    def stories_told():
        for history in DIRECTED:
            try:
                play(history, bug(), Coverage())
            except Mismatch as mismatch:
                yield str(mismatch)

    assert any(planted.ALL[bug] in story for story in stories_told())


@pytest.mark.parametrize("bug", planted.SEEN_IN_ONE_STORY, ids=lambda bug: bug.__name__)
def test_a_bug_that_shows_in_one_story_only_is_caught_there(bug, monkeypatch):
    monkeypatch.setattr("armed_conformance.adapters.armed.LIMIT", 2.0)
    name, told = planted.SEEN_IN_ONE_STORY[bug]
    story = next(history for history in DIRECTED if history.name == name)
    with pytest.raises(Mismatch, match=told):
        play(story, bug(), Coverage())


def test_every_action_of_the_model_has_a_place_in_the_floor():
    assert set(ACTIONS) | set(NEVER_TAKEN) == {action.name for action in System(REFERENCE, "+stray").actions}
    assert not set(ACTIONS) & set(NEVER_TAKEN)
    assert actions_wanted(ArmedFork()) == set(ACTIONS)


def test_an_action_that_no_directed_history_takes_fails_the_run(monkeypatch):
    without = [story for story in stories() if "fork" not in story.name]
    monkeypatch.setattr("armed_conformance.run.stories", lambda _: iter(without))
    report = conform("armed:fork", 1, seed=1)
    assert report.mismatch is None
    assert report.as_json()["actions_missing"] == ["fork_fails"]
    assert [str(each) for each in report.missing] == ["the model's fork_fails"]
    assert not report.passed


@pytest.mark.parametrize("bug", planted.ALL, ids=lambda bug: bug.__name__)
def test_random_histories_catch_every_planted_bug_and_shrink_it_to_a_story(bug):
    seed = 2 if bug is planted.GrandchildMayDisarm else 1  # it is found with the other, too, and takes a minute
    with pytest.raises(Mismatch) as caught:
        run_histories(bug, 1500, Coverage(), seed=seed)
    story = str(caught.value)
    assert "1. a supervisor with" in story
    assert "the model says:" in story
    assert "what was seen:" in story
    steps = [line for line in story.splitlines() if line.strip()[:1].isdigit()]
    assert len(steps) <= 9, story


def test_a_planted_bug_leaves_nothing_behind_for_the_next():
    with pytest.raises(Mismatch):
        run_histories(planted.FlagOnly, 200, Coverage(), seed=1)
    play(DIRECTED[0], ArmedFork(), Coverage())


def test_a_machine_can_stand_in_a_suite_of_its_own():
    mine = machine_for(ArmedFork, Coverage())
    assert mine.TestCase.settings is not None


def test_a_conformance_run_counts_what_it_has_seen():
    report = conform("armed:fork", 5, seed=1)
    seen = report.as_json()
    assert report.passed
    assert seen["cells_seen"] == seen["cells_wanted"] > 0
    assert seen["recoveries"] > 0
    assert seen["directed"] == len(DIRECTED)
    assert not seen["cannot"]


def test_a_conformance_run_of_something_wrong_tells_the_story():
    report = conform("planted:StatusOnly", 5, seed=1)
    assert not report.passed
    assert "the model says:" in report.mismatch


def test_a_cell_that_is_not_seen_fails_the_run(monkeypatch):
    monkeypatch.setattr("armed_conformance.run.deaths", lambda _: iter(()))
    report = conform("armed:fork", 1, seed=1)
    assert report.mismatch is None
    assert report.missing
    assert not report.passed


@pytest.mark.parametrize("target", ["armed:nonsense", "no_such_module:Class", "json:NoSuchClass", ""])
def test_an_unknown_target_is_refused_by_name(target):
    with pytest.raises(UnknownTarget, match="armed:fork"):
        find(target)


@pytest.mark.parametrize("slots", [0, 5, -1])
def test_a_history_has_as_many_slots_as_the_model_has_room_for(slots):
    with pytest.raises(ValueError, match="1 to 4 slots"):
        Lockstep(ArmedFork(), slots)


def test_an_implementation_is_held_to_its_own_profile_whatever_that_is_called():
    class ByTheSlot(ArmedFork):
        profile = replace(REFERENCE, decision=Decision.SLOT)

    killed = next(history for history in DIRECTED if history.name == "SIGKILL while serving, idle, holding 0")
    play(killed, ArmedFork(), Coverage())
    with pytest.raises(Mismatch, match="the decision about child 2 is: clean"):
        play(killed, ByTheSlot(), Coverage())


def test_what_an_implementation_cannot_do_is_not_wanted_of_it():
    class Poor(ArmedFork):
        cannot = frozenset({ExitKind.SIGSEGV, Step.SCRIBBLE})

    assert not [cell for cell in cells_wanted(Poor()) if cell.exit_kind == "SIGSEGV"]
