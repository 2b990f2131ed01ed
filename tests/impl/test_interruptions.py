"""An exception, a SIGTERM or the end at every bytecode of the child's side: never clean while something is held."""

import contextlib
import dis
import os
import sys

import pytest

from armed import ArmedError, Decision, Engager, StillArmed, launch
from armed_conformance.crash_points import (
    KILLS,
    RAISED,
    TARGETS,
    child_codes,
    lives,
    sample_of_this_commit,
    sweep_child,
)
from armed_conformance.crash_targets import STAGE, holding, leaving_open, take

EXCEPTIONS = ["KeyboardInterrupt", "Exception"]


def instructions(*functions):
    return sum(len(list(dis.get_instructions(function))) for function in functions)


SAMPLED = {"_exit(1)": 5, "SIGKILL": 5, "MemoryError": 5, "SystemExit": 3, "Exception": 3}
"""Of what differs from `_exit(0)` or KeyboardInterrupt in few lines: one of so many points, others at each commit."""


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("ending", [*KILLS, *RAISED])
def test_a_child_struck_anywhere_is_decided_by_what_it_holds(target, ending, capfd):
    sweep = sweep_child(target, ending, sample_of_this_commit(SAMPLED.get(ending, 1)))
    assert sweep.failures == []
    # Else the trace is not what it seems: these run in every child, but for the lines that refuse and report.
    always = instructions(Engager.engage, Engager.__enter__, Engager.__exit__, Engager.finish, launch._live)
    assert sweep.boundaries > always / 2
    assert len(sweep.flips) == {"_exit(0)": 3, "SIGKILL": 1, "SIGTERM": 1}.get(ending, len(sweep.flips))
    assert "Fatal" not in capfd.readouterr().err


def going_on(me, memory):
    """Catch whatever came, take something if that is possible, and end as badly as can be."""
    with contextlib.suppress(BaseException), me.engage():
        pass
    with contextlib.suppress(ArmedError):
        me.take(lambda: take(memory, 0), list)
    os._exit(0)


def sweep(target, ending, again=0):
    """Return all lives of the target, struck in the package's own code."""
    found = list(lives(target, (KILLS | RAISED)[ending], child_codes("Exception"), again=again))
    assert {life.status for life in found} <= {0, 1}
    return found


def clean_but_holding(found):
    return [life.where for life in found if life.decision is Decision.CLEAN and life.held]


def test_a_child_that_goes_on_after_an_interrupted_engagement_takes_nothing_while_it_looks_clean(capfd):
    found = sweep(going_on, "Exception")
    assert not clean_but_holding(found)
    assert [life for life in found if life.decision is Decision.CRASH and life.held]
    assert "Fatal" not in capfd.readouterr().err


# On 3.11 a trace function that raises is called no more, so nothing can come a second time: `.ci/run` runs these on a
# newer Python too, where it finds one, and says so where it does not.
@pytest.mark.skipif(sys.version_info < (3, 12), reason="a trace function that raises is called no more")
@pytest.mark.parametrize("again", [1, 2, 5, 13, 34])
@pytest.mark.parametrize("ending", EXCEPTIONS)
def test_a_child_interrupted_twice_on_its_way_out_is_never_clean_while_it_holds_something(ending, again, capfd):
    found = sweep(leaving_open, ending, again)
    assert {life.decision for life in found} == {Decision.CLEAN, Decision.CRASH}
    assert not clean_but_holding(found)
    assert "Fatal" not in capfd.readouterr().err


def engaging_again(me, memory):
    """Catch whatever came; then a clean word and a refusal contradict each other."""
    with contextlib.suppress(BaseException):
        holding(me, memory)
    was_clean = me._word[0] == me._token[0]
    try:
        with me.engage():
            pass
    except StillArmed:
        os._exit(9 if was_clean else 0)


@pytest.mark.parametrize("ending", EXCEPTIONS)
def test_a_child_that_has_given_everything_back_may_engage_again_wherever_it_was_interrupted(ending, capfd):
    found = sweep(engaging_again, ending)  # no status is 9
    assert {life.decision for life in found} == {Decision.CLEAN, Decision.CRASH}
    assert "Fatal" not in capfd.readouterr().err


def ending_with_1(me, memory):
    memory[STAGE] = 9
    raise SystemExit(1)


def test_an_exception_on_the_very_last_steps_does_not_change_how_the_target_has_ended():
    # Where the target has been called, and is over: in _live, but for the first instruction after it, before whose end
    # the outcome is not recorded.
    late = [
        life.status
        for life in lives(ending_with_1, RAISED["SystemExit"], child_codes("Exception"))
        if life.stage == 9 and life.where.startswith("_live+")
    ]
    assert late[1:] == [1] * (len(late) - 1)
    assert len(late) > 5
