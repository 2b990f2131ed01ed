"""Crash points, stray writes and the soak: nothing is found in `armed`, and what is planted into it is."""

import os
import random
import signal
import threading
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from tests.conformance import planted as bugs
from tests.conformance.planted import planted

from armed import Decision, SlotsExhausted, Supervisor, supervisor
from armed.slots import SlotTable
from armed_conformance import calls, crash_targets
from armed_conformance.crash_points import (
    EVERY,
    Sample,
    Trip,
    codes_of,
    lives,
    sample_of_this_commit,
    sweep_child,
    sweep_supervisor,
)
from armed_conformance.soak import soak
from armed_conformance.stray_writes import copying_back, scribble

# Crash points of children: all of `armed`'s are in tests/impl/test_interruptions.py.


@pytest.mark.parametrize(
    ("bug", "target", "ending", "told"),
    [
        (bugs.ArmsAfterTaking, "holding", "_exit(0)", "something is held, or given back by half"),
        (bugs.ArmsAfterTaking, "empty", "_exit(0)", "not armed on one interval"),
        (bugs.DisarmsBeforeItGivesBack, "holding", "_exit(1)", "something is held, or given back by half"),
        (bugs.SwallowsFailedGiveBack, "holding", "MemoryError", "something is held, or given back by half"),
        (bugs.StatusOnly, "empty", "_exit(0)", "it was engaged, and was decided clean"),
        (bugs.FlagOnly, "empty", "SIGKILL", "was decided Decision.CLEAN"),
    ],
)
def test_a_bug_shows_at_some_point_of_a_child(bug, target, ending, told):
    with planted(bug):
        failures = sweep_child(target, ending, EVERY if "interval" in told else Sample(3)).failures
    assert any(told in failure for failure in failures), failures


def test_a_false_alarm_shows_too():
    with patch.object(supervisor, "decide", lambda status, word, token, kind: Decision.CRASH):
        for ending, told in (
            ("_exit(0)", "it was not engaged, and was decided a crash"),
            ("SystemExit", "nothing is held, and it was decided a crash"),
            ("SIGTERM", "it was asked to end, and was decided a crash"),
        ):
            assert told in sweep_child("empty", ending, Sample(10)).failures[0]


# Crash points of the supervisor


@pytest.mark.parametrize(("start_method", "every"), [("fork", 60), ("spawn", 600)])
def test_a_supervisor_killed_anywhere_leaves_nothing(start_method, every):
    sweep = sweep_supervisor(start_method, sample_of_this_commit(every))
    assert sweep.failures == []
    assert sweep.boundaries > 5_000
    assert sweep.points > 0.8 * sweep.boundaries / every


def test_a_sweep_that_is_interrupted_leaves_no_supervisor(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("armed_conformance.crash_points.select", SimpleNamespace(select=interrupt))
    with pytest.raises(KeyboardInterrupt):
        sweep_supervisor("fork", Sample(6000, 5999))
    assert not calls.children()


def test_children_that_do_not_hold_the_lifeline_outlive_their_supervisor(monkeypatch):
    monkeypatch.setattr("armed_conformance.crash_points.ORPHANS_END_WITHIN", 0.2)
    monkeypatch.setattr("armed.exits.Lifeline.hold", lambda self: None)
    failures = sweep_supervisor("fork", Sample(4000, 3999)).failures
    assert any("outlived it" in failure for failure in failures), failures


@pytest.mark.parametrize("ending", ["_exit(0)", "SIGKILL", "SystemExit"])
def test_a_trace_that_sees_a_part_only_is_no_sweep(ending, monkeypatch):
    codes = frozenset([crash_targets.empty.__code__])
    monkeypatch.setattr("armed_conformance.crash_points.child_codes", lambda ending="": codes)
    assert any("boundaries" in failure for failure in sweep_child("empty", ending, Sample(3)).failures)


@pytest.mark.parametrize("ending", ["_exit(0)", "SystemExit", "SIGTERM"])
def test_a_sweep_that_is_cut_short_is_no_sweep(ending, monkeypatch):
    monkeypatch.setattr("armed_conformance.crash_points.lives", lambda *each: islice(lives(*each), 3))
    assert any("3 points, " in failure for failure in sweep_child("empty", ending, Sample(10)).failures)


def test_a_name_that_is_left_in_dev_shm_is_found(monkeypatch):
    enter = Supervisor.__enter__

    def leaves(self):
        os.close(os.open("/dev/shm/armed-test-left-behind", os.O_CREAT))
        return enter(self)

    monkeypatch.setattr(Supervisor, "__enter__", leaves)
    try:
        (failure,) = sweep_supervisor("fork", Sample(6000, 5999)).failures
        assert "left in /dev/shm: ['armed-test-left-behind']" in failure
    finally:
        os.unlink("/dev/shm/armed-test-left-behind")


def ten_instructions():
    x = 1
    y = 2
    return x + y


def test_a_trip_counts_what_is_executed_and_acts_once():
    seen = []
    trip = Trip(codes_of(random) | {ten_instructions.__code__}, 3, seen.append)
    trip.arm()
    ten_instructions()
    trip.disarm()
    ten_instructions()
    assert [frame.f_code.co_name for frame in seen] == ["ten_instructions"]


# Stray writes


def test_stray_writes_deceive_nobody():
    report = scribble(50_000, seed=1)
    assert report.failures == []
    assert report.writes >= 50_000
    assert min(report.lives, report.armed_deaths, report.recoveries, report.false_alarms) > 0


def test_copying_back_the_clean_value_is_the_one_thing_that_is_missed():
    assert copying_back() is Decision.CLEAN


def test_a_supervisor_that_takes_foreign_words_for_clean_is_deceived():
    with planted(bugs.ForeignIsClean):
        assert scribble(200_000, seed=1).failures


def test_a_supervisor_that_reads_from_the_table_what_is_free_gives_a_slot_out_twice(monkeypatch):
    def assign(self):
        free = [slot for slot in range(1, self.size + 1) if self._words[slot] == 0]
        if not free:
            raise SlotsExhausted("all are in use")
        self._words[free[0]] = self._tokens[free[0]] = token = random.getrandbits(64)
        return free[0], token

    monkeypatch.setattr(SlotTable, "assign", assign)
    failures = scribble(500_000, seed=1).failures
    assert any("was given out twice" in failure for failure in failures), failures


# The soak


def test_many_lives_leave_everything_as_it_was():
    balance = soak(2_000, seed=1)
    assert balance.differences == []
    assert balance.recoveries > 0
    assert {*balance.deaths} == {"exited", "crashed", "lost"}


def take_descriptor():
    opened = os.dup(0)
    return lambda: os.close(opened)


def take_child():
    if (pid := os.fork()) == 0:
        signal.pause()
    return lambda: (os.kill(pid, signal.SIGKILL), os.waitpid(pid, 0))


def take_thread():
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    return lambda: (ended.set(), thread.join())


def take_name():
    os.close(os.open("/dev/shm/armed-test-soak", os.O_CREAT))
    return lambda: os.unlink("/dev/shm/armed-test-soak")


def take_memory():
    memory = bytearray(b"x") * (64 << 20)  # more than what earlier tests have left may shrink by meanwhile
    return memory.clear


@pytest.mark.parametrize(
    ("take", "told"),
    [
        (take_descriptor, "descriptors: "),
        (take_child, "children: "),
        (take_thread, "threads: "),
        (take_name, "names: "),
        (take_memory, "resident memory has grown"),
    ],
)
def test_what_one_of_many_lives_has_left_is_found(take, told):
    give_back = []
    try:
        (difference,) = soak(50, seed=3, progress=lambda done: give_back or give_back.append(take())).differences
        assert difference.startswith(told)
    finally:
        give_back[0]()


def test_a_slot_that_is_not_free_again_and_a_life_without_an_end_are_differences():
    balance = soak(5, seed=1)
    assert replace(balance, after=replace(balance.after, slots=1)).differences == ["slots: 0 before, 1 after"]
    assert replace(balance, lives=6).differences == ["6 lives, and 5 deaths"]
