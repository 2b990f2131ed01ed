"""The exhaustive search: what it counts, that it is shortest first, and that it says when it is not through.

The counts are recorded here. They were found by running and are no claim; that they change unnoticed would be one.
"""

import pytest

from armed_model.explore import (
    Found,
    Step,
    StillSearching,
    explore,
    holds_at_the_end,
    premises,
    replay,
    tell,
    violations,
)
from armed_model.interpret import Instance, Size
from armed_model.profiles import NO_DEAD_MAN_SWITCH, REFERENCE
from armed_model.properties import BY_NAME, PROPERTIES, SOMETIMES
from armed_model.properties import c as any_child
from armed_model.properties import s as any_slot
from armed_model.system import Mode, System, mode, owed

ACTIONS = {
    *("assign", "fork", "fork_fails"),
    *("hook", "arm", "take", "take_fails", "take_fails_late", "give", "give_fails", "give_fails_late", "disarm"),
    *("leave", "orderly_exit", "raw_exit"),
    *("reap_clean", "reap_crash", "reap_book_keeping"),
    *("kill", "all_gone", "reset", "started", "startup_fails"),
    *("ask_orderly", "ask_immediate", "stop"),
}

COUNTS = {  # slots, children, environment: states, transitions, depth
    (1, 1, "calm"): (315, 1_594, 9),
    (1, 2, "calm"): (595, 3_124, 9),
    (2, 1, "calm"): (1_419, 7_866, 9),
    (2, 2, "calm"): (87_999, 831_564, 15),
    (1, 1, "+stray"): (1_223, 8_638, 9),
    (1, 2, "+stray"): (2_411, 17_212, 9),
}


def somewhere(instance, term):
    """A check: the term holds in the state after the step, for some child and some slot."""
    holds = instance.predicate(term, (any_child, any_slot))
    members = instance.bindings((any_child, any_slot))
    return lambda before, after, who: next((each for each in members if holds(after, after, who, *each)), None)


def everything(instance):
    return {name: somewhere(instance, term) for name, term in SOMETIMES.items()} | premises(instance, PROPERTIES)


@pytest.fixture(scope="session")
def explored(instance):
    """One search of each instance, for everything that is to be seen."""
    seen = {}

    def search(*size):
        if size not in seen:
            seen[size] = explore(instance(*size), everything(instance(*size)))
        return seen[size]

    return search


@pytest.mark.parametrize("size", COUNTS, ids=str)
def test_the_counts_are_those_recorded(explored, size):
    result = explored(*size)
    assert (result.states, result.transitions, result.depth) == COUNTS[size]
    assert result.complete
    assert result.seconds > 0


@pytest.mark.parametrize("size", COUNTS, ids=str)
def test_every_action_is_seen(explored, size):
    assert explored(*size).actions_seen == ACTIONS | ({"stray_write"} if size[2] == "+stray" else set())


def test_no_state_is_missed(explored, reachable):
    for size in [(1, 1, "calm"), (2, 1, "calm"), (1, 1, "+stray")]:
        assert explored(*size).states == len(reachable(*size))


@pytest.mark.parametrize("size", [size for size in COUNTS if size[2] == "calm"], ids=str)
def test_everything_that_is_to_be_seen_is_reached(explored, size):
    assert set(SOMETIMES) <= set(explored(*size).found)
    needs_two = {"slot_has_one_owner", "second_crash_adds_nothing"}  # two children at once
    missing = set() if size == (2, 2, "calm") else needs_two
    assert set(BY_NAME) - set(explored(*size).found) == missing


def test_each_run_found_replays_and_ends_where_it_says(explored, instance):
    two = instance(2, 2)
    checks = everything(two)
    for name, found in explored(2, 2, "calm").found.items():
        assert holds_at_the_end(two, found.run, checks[name]) == found.binding, name
        if found.run:  # one step earlier it is not so yet
            assert holds_at_the_end(two, found.run[:-1], checks[name]) is None, name


@pytest.mark.parametrize("profile", [REFERENCE, NO_DEAD_MAN_SWITCH], ids=lambda profile: profile.name)
def test_the_first_run_found_is_a_shortest_one(profile):
    one = Instance(System(profile), Size(1, 1))
    checks = everything(one) | {f"not {name}": check for name, check in violations(one, PROPERTIES).items()}
    found = explore(one, checks).found
    # A search of this test's own: all states exactly n steps away, n = 0, 1, 2 ...
    supervisor, itself = 0, 1
    by = {name: supervisor if each.action.by.value == "supervisor" else itself for name, each in one.actions.items()}
    shortest = {name: 0 for name, check in checks.items() if check(one.initial, one.initial, 0) is not None}
    layer = {one.initial}
    for steps in range(1, 12):
        following = set()
        for state in layer:
            for name, _, after in one.steps(state):
                following.add(after)
                for what in checks.keys() - shortest.keys():
                    if checks[what](state, after, by[name]) is not None:
                        shortest[what] = steps
        layer = following
    assert {name: len(each.run) for name, each in found.items()} == shortest
    assert len(shortest) > 20
    assert any(name.startswith("not ") for name in shortest) is (profile is NO_DEAD_MAN_SWITCH)


def test_a_property_of_states_is_read_after_the_step_and_one_of_steps_from_before_to_after(explored):
    found = explored(2, 2, "calm").found
    there_are_two = [step.action for step in found["slot_has_one_owner"].run]
    assert there_are_two == ["assign", "fork", "assign", "fork"]
    assert found["slot_has_one_owner"].binding == (1, 2)
    is_reset = [step.action for step in found["reset_only_when_alone"].run]
    assert is_reset == ["assign", "fork", "raw_exit", "reap_crash", "all_gone", "reset"]


def test_no_property_is_violated_in_the_reference(instance):
    for size in [(1, 2), (2, 1)]:
        assert explore(instance(*size), violations(instance(*size), PROPERTIES)).found == {}


def test_a_run_with_a_step_that_is_not_enabled_does_not_replay(instance):
    one = instance(1, 1)
    good = (Step("assign", (1, 3)), Step("fork", (1,)), Step("hook", (1,)))
    assert len(replay(one, good)) == 4
    for bad in [
        (*good, Step("disarm", (1,))),
        (good[0], good[2]),
        (Step("assign", (1, 2)),),
        (good[0], Step("fork", (0,)), good[2]),
    ]:
        with pytest.raises(ValueError, match="is not enabled"):
            replay(one, bad)


def test_replay_returns_every_state_the_initial_one_first(instance):
    one = instance(1, 1)
    states = replay(one, (Step("ask_immediate", ()), Step("stop", ())))
    assert states[0] == one.initial
    assert [one.read(state, mode) for state in states] == [Mode.RUNNING, Mode.RUNNING, Mode.STOPPED]
    assert replay(one, ()) == [one.initial]


def test_a_check_at_the_end_of_no_steps_reads_the_initial_state(instance):
    one = instance(1, 1)
    assert holds_at_the_end(one, (), somewhere(one, mode == Mode.RUNNING)) == (1, 1)
    assert holds_at_the_end(one, (), somewhere(one, owed)) is None


def test_a_check_at_the_end_is_told_who_took_the_last_step(instance):
    one = instance(1, 1)
    actors = []

    def note(before, after, who):
        actors.append(who)

    run = (Step("assign", (1, 3)), Step("fork", (1,)), Step("hook", (1,)))
    for length in (1, 3):
        holds_at_the_end(one, run[:length], note)
    assert actors == [0, 1]


@pytest.mark.parametrize("limit", [0, 100, 314])
def test_a_search_beyond_its_limit_is_given_up(instance, limit):
    with pytest.raises(StillSearching, match=f"more than {limit} states"):
        explore(instance(1, 1), limit=limit)


def test_a_search_within_its_limit_is_through(instance):
    result = explore(instance(1, 1), limit=315)
    assert (result.states, result.complete) == (315, True)


def test_a_search_that_stops_early_says_so(instance):
    one = instance(1, 1)
    look_for = {"stopping": somewhere(one, mode == Mode.STOPPING)}
    early = explore(one, look_for, stop_when_all_found=True)
    assert early.complete is False
    assert early.states < 315
    assert len(early.found["stopping"].run) == 4
    assert explore(one, look_for).complete is True
    assert explore(one, look_for).found == early.found


def test_a_search_for_what_is_never_found_is_through(instance):
    result = explore(instance(1, 1), {"never": lambda before, after, who: None}, stop_when_all_found=True)
    assert (result.states, result.complete, result.found) == (315, True, {})


def test_what_holds_at_first_is_found_without_a_step(instance):
    one = instance(1, 1)
    found = explore(one, {"running": somewhere(one, mode == Mode.RUNNING)}, stop_when_all_found=True).found
    assert found == {"running": Found((), (1, 1))}


def test_a_run_is_told_with_what_the_flag_says_where_it_changes(instance):
    two = instance(2, 2)
    run = (Step("assign", (2, 3)), Step("fork", (1,)), Step("hook", (1,)), Step("arm", (1,)), Step("raw_exit", (1, 0)))
    assigned, forked, _, armed, exited, reaped = tell(two, (*run, Step("reap_crash", (1,))))
    assert assigned.startswith("assign(slot 2, word 3): ")
    assert assigned.endswith("[slot 2 is assigned]")
    assert forked == f"fork(child 1): {two.actions['fork'].action.sentence}"
    assert armed == f"arm(child 1): {two.actions['arm'].action.sentence} [slot 2 is active]"
    assert exited.startswith("raw_exit(child 1, status 0): ")
    assert reaped.endswith("[slot 2 is unused]")


def test_a_scribbled_flag_is_told_to_be_foreign(instance):
    stray = instance(1, 1, "+stray")
    run = (Step("assign", (1, 3)), Step("fork", (1,)), Step("stray_write", (1, 1, 2)))
    assert tell(stray, run)[-1].endswith("[slot 1 is foreign]")
