"""Runs as data: each step with what it changes, in agreement with the interpreter."""

import pytest

from armed_audit.runs import NoSuchRun, as_states, blank, states_of_run, values
from armed_model.explore import Step, replay
from armed_model.interpret import Instance, Size
from armed_model.profiles import REFERENCE, V18
from armed_model.system import System

STORY = [
    {"action": "assign", "arguments": [1]},
    {"action": "fork", "arguments": [1]},
    {"action": "arm", "arguments": [1]},
    {"action": "raw_exit", "arguments": [1, 0]},
    {"action": "reap_crash", "arguments": [1]},
]


def test_each_step_says_who_takes_it_and_what_it_changes():
    steps = states_of_run("18", "calm", STORY)["steps"]
    assert [step["by"] for step in steps] == ["supervisor", "supervisor", "child", "child", "supervisor"]
    assert steps[2]["of"] == "child 1"
    assert steps[2]["sets"] == {"flag.1": "ACTIVE", "flag_says.1": "active", "armed.1": "yes", "phase.1": "armed"}
    assert steps[3]["of"] == "child 1, status 0"
    last = steps[4]["sets"]
    assert (last["mode"], last["owed"], last["phase.1"], last["flag_says.1"]) == ("stopping", "yes", "none", "unused")


def test_the_changes_add_up_to_the_states_of_the_interpreter():
    instance = Instance(System(V18, "calm"), Size(2, 2))
    run = tuple(Step(each["action"], tuple(each["arguments"])) for each in STORY)
    states = replay(instance, run)
    state = values(instance, states[0])
    assert {key.partition(".")[0]: value for key, value in state.items()} == blank()
    for step, expected in zip(as_states(instance, run)["steps"], states[1:], strict=True):
        assert all(state[key] != value for key, value in step["sets"].items())
        state |= step["sets"]
        assert state == values(instance, expected)


def test_every_run_that_is_published_replays(matrices):
    taken = 0
    for cell in [cell for matrix in matrices for cell in matrix.cells]:
        published = cell.as_json()
        for which in ("premise", "counterexample"):
            if published[which] is not None:
                alone = cell.backends_alone
                found = states_of_run(cell.profile, cell.claim.environment, published[which], alone)
                assert len(found["steps"]) == len(published[which])
                taken += 1
    assert taken > 120


@pytest.mark.parametrize(
    ("profile", "environment", "run"),
    [
        ("19", "calm", STORY),
        ("18", "calm", STORY[1:]),  # who forks has assigned before
        ("18", "calm", [{"action": "dream", "arguments": []}]),
        ("18", "calm", [{"action": "assign", "arguments": [9]}]),
        ("18", "calm", [{"action": "assign", "arguments": []}]),
    ],
)
def test_what_is_no_run_of_this_model_is_refused(profile, environment, run):
    with pytest.raises(NoSuchRun):
        states_of_run(profile, environment, run)


def test_words_that_were_drawn_are_told_apart_from_those_reserved():
    first = Instance(System(REFERENCE, "calm"), Size(1, 1))
    step = next(each for each in first.successors(first.initial) if first.system.actions[each[0]].name == "assign")
    sets = as_states(first, (Step("assign", step[1]),))["steps"][0]["sets"]
    assert sets["flag.1"] == sets["clean.1"] == "word 5"
    assert sets["flag_says.1"] == "assigned"
