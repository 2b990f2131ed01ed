"""A history that differs is kept in a file, small, and can be played again; the kit works in somebody's own suite."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conformance import planted

from armed_conformance import replay
from armed_conformance.adapters.armed import ArmedFork
from armed_conformance.histories import play, stories
from armed_conformance.lockstep import Coverage, Mismatch
from armed_conformance.machine import run_histories
from armed_conformance.protocol import NotHere, Step
from armed_conformance.run import conform
from armed_conformance.run import replay as replay_history

sys.modules["planted"] = planted  # so that a target can be named in it

SHORTEST = [["start"], ["step", 1, "serve"], ["step", 1, "arm"], ["end", 1, "RAW_EXIT_0"], ["supervise"]]


def written(folder, slots=1, orders=SHORTEST, form=replay.FORMAT):
    file = folder / "history.json"
    file.write_text(json.dumps({"format": form, "slots": slots, "orders": orders}))
    return file


def test_a_directed_history_that_differs_is_shrunk_to_what_matters(tmp_path):
    report = conform("planted:StatusOnly", 1)
    assert report.directed > 0
    orders = [list(order) for order in report.failing.orders]
    assert orders == [*SHORTEST[:-1], ["stop"]]  # at its end, too, a supervisor decides about who is dead
    replay.save(report.failing, tmp_path / "kept.json")
    again = replay_history("planted:StatusOnly", replay.load(tmp_path / "kept.json"))
    assert again.mismatch == str(report.failing)
    assert not again.passed
    mended = replay_history("armed:fork", replay.load(tmp_path / "kept.json"))
    assert mended.passed
    assert mended.steps > 5


class GoesAway(planted.StatusOnly):
    """Is there once, and never again."""

    was_there = False

    def open(self, slots):
        if GoesAway.was_there:
            raise NotHere("it is gone")
        GoesAway.was_there = True
        super().open(slots)


def test_a_difference_is_told_though_what_differed_is_not_here_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(GoesAway, "was_there", False)
    with pytest.raises(Mismatch) as found:
        play(replay.load(written(tmp_path)), GoesAway(), Coverage())
    assert replay.shrink(GoesAway, found.value) is found.value
    assert GoesAway.was_there


def test_a_difference_that_random_histories_find_is_told_though_what_differed_is_not_here_any_more(monkeypatch):
    def differs(self):
        GoesAway.has_differed = True
        raise RuntimeError("the server has ended")

    def open_once_more(self, slots):
        if GoesAway.has_differed:
            raise NotHere("it is gone")
        planted.StatusOnly.open(self, slots)

    monkeypatch.setattr(GoesAway, "has_differed", False, raising=False)
    monkeypatch.setattr(GoesAway, "open", open_once_more)
    monkeypatch.setattr(GoesAway, "supervise", differs)
    with pytest.raises(Mismatch, match="the server has ended"):
        run_histories(GoesAway, 20, Coverage(), seed=1)


@pytest.mark.parametrize("history", [*stories()], ids=lambda history: history.name)
def test_what_is_ordered_is_written_down_and_followed(history):
    """A story and its replay take the same steps of the model."""
    told, followed = Coverage(), Coverage()

    def note(lockstep):
        history.play(lockstep)
        orders.extend(lockstep.orders)

    orders = []
    play(replay.History("noted", history.slots, note), ArmedFork(), told)
    again = replay.History("again", history.slots, lambda lockstep: replay.follow(lockstep, orders))
    play(again, ArmedFork(), followed)
    assert orders
    assert (followed.cells, followed.refusals, followed.recoveries) == (told.cells, told.refusals, told.recoveries)


def test_children_are_known_by_their_order_not_by_what_the_implementation_calls_them(tmp_path):
    history = replay.load(written(tmp_path, orders=[*SHORTEST, ["start"], ["step", 2, "serve"], ["end", 1, "RETURN"]]))
    coverage = Coverage()
    play(history, ArmedFork(), coverage)
    assert coverage.actions["hook"] == 2
    assert sum(coverage.deaths.values()) == 1  # the first one is not there to die again


def test_a_replay_says_what_was_left_out_and_does_not_pass_where_nothing_was_done(tmp_path):
    def again(*orders):
        return replay_history("armed:fork", replay.load(written(tmp_path, orders=orders)))

    some = again(["start"], ["end", 1, "RETURN"], ["step", 1, "arm"], ["step", 2, "arm"])
    assert some.passed
    assert some.cannot == "do 2 of 4 orders (child 1 is not there, child 2 is not there)"
    nothing = again(["start"], ["step", 2, "arm"], ["stop"], ["supervise"])
    assert nothing.mismatch is None
    assert not nothing.passed
    assert nothing.cannot == "do 2 of 4 orders (child 2 is not there, the supervisor has stopped)"
    assert nothing.as_json()["left_out"] == {"child 2 is not there": 1, "the supervisor has stopped": 1}
    whole = again(["start"], ["stop"])
    assert whole.passed
    assert whole.cannot is None


def test_what_an_implementation_cannot_do_is_left_out(tmp_path):
    class NeverArms(ArmedFork):
        cannot = frozenset({Step.ARM})

    coverage = Coverage()
    play(replay.load(written(tmp_path)), NeverArms(), coverage)
    assert coverage.actions["hook"] == 1
    assert coverage.actions["arm"] == 0
    assert coverage.decisions["clean"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no JSON"),
        ("[]", "no history"),
        ('{"format": "armed history 2"}', "no history"),
        ('{"format": "armed history 1", "slots": 9, "orders": [["start"]]}', "slots is 9"),
        ('{"format": "armed history 1", "slots": 1, "orders": []}', "no orders"),
        ('{"format": "armed history 1", "slots": 1, "orders": [["begin"]]}', "order 1"),
        ('{"format": "armed history 1", "slots": 1, "orders": [["start"], ["end", 1]]}', "order 2"),
        ('{"format": "armed history 1", "slots": 1, "orders": [["end", 0, "RETURN"]]}', "child's number"),
        ('{"format": "armed history 1", "slots": 1, "orders": [["end", true, "RETURN"]]}', "child's number"),
        ('{"format": "armed history 1", "slots": 1, "orders": [["step", 1, "dance"]]}', '"dance" is none of'),
        ('{"format": "armed history 1", "slots": 1, "orders": [["step", 1, ["arm"]]]}', "is none of"),
    ],
)
def test_a_file_that_is_no_history_is_refused_with_the_reason(tmp_path, content, said):
    file = tmp_path / "history.json"
    file.write_text(content)
    with pytest.raises(replay.BadHistory, match=r"history\.json") as refused:
        replay.load(file)
    assert said in str(refused.value)


def test_a_mismatch_says_what_was_ordered(tmp_path):
    with pytest.raises(Mismatch) as found:
        play(replay.load(written(tmp_path)), planted.StatusOnly(), Coverage())
    assert [list(order) for order in found.value.orders] == SHORTEST
    assert found.value.slots == 1


SUITE = """
from armed_conformance.suite import ConformanceTests
from {module} import {name}

class TestMine(ConformanceTests):
    implementation = {name}
    histories = 5
    seed = 1
"""


def in_a_suite(folder, module, name):
    (folder / "test_mine.py").write_text(SUITE.format(module=module, name=name))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "-x"]
    environment = {**os.environ, "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, env=environment)


def test_in_a_suite_of_ones_own_it_passes(tmp_path):
    ran = in_a_suite(tmp_path, "armed_conformance.adapters.armed", "ArmedFork")
    assert ran.returncode == 0, ran.stdout
    assert int(ran.stdout.split()[-4]) > 170, ran.stdout


def test_in_a_suite_of_ones_own_a_bug_is_told_as_a_story(tmp_path):
    ran = in_a_suite(tmp_path, "planted", "StatusOnly")
    assert ran.returncode == 1, ran.stdout
    assert "what was seen:  it was: clean" in ran.stdout


def test_in_a_suite_of_ones_own_what_is_not_declared_is_no_skip(tmp_path):
    (tmp_path / "shy.py").write_text(SHY)
    ran = in_a_suite(tmp_path, "shy", "Shy")
    assert ran.returncode == 1, ran.stdout
    assert "it is not declared that the implementation cannot do that today" in ran.stdout


SHY = """
from armed_conformance.adapters.armed import ArmedFork
from armed_conformance.protocol import Cannot

class Shy(ArmedFork):
    def end(self, child, kind):
        raise Cannot("do that today")
"""


def test_a_suite_without_an_implementation_is_refused():
    from armed_conformance.suite import ConformanceTests

    with pytest.raises(TypeError, match="implementation"):
        type("TestNothing", (ConformanceTests,), {})
