"""The exhaustive search: that it is through, that it is shortest first, and that it says when it is not through.

How much it finds is recorded in `recorded_counts.toml` (see `test_recorded_counts.py`).
"""

import itertools

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
from armed_model.explore import (
    reachable as search,
)
from armed_model.interpret import Instance, Size, Sought
from armed_model.lifecycle import Who
from armed_model.profiles import NO_DEAD_MAN_SWITCH, PROFILES, REFERENCE
from armed_model.properties import actor, after, properties, sometimes
from armed_model.properties import c as any_child
from armed_model.properties import s as any_slot
from armed_model.system import Mode, System, mode, owed
from armed_model.terms import both, negate


def somewhere(term, on_states=True):
    """Look for a term that holds in a state, for some child and some slot."""
    return Sought((any_child, any_slot), term, on_states)


def everything(profile):
    """Look for all that a profile must reach, and for all premises."""
    seen = {name: Sought((any_child, any_slot), term, on_states=True) for name, term in sometimes(profile).items()}
    return seen | premises(properties(profile))


@pytest.fixture(scope="session")
def explored(instance):
    """One search of each instance, for everything that is to be seen."""
    seen = {}

    def look(*size):
        if size not in seen:
            here = instance(*size)
            seen[size] = explore(here, everything(here.system.profile))
        return seen[size]

    return look


def test_no_state_is_missed_and_none_is_met_twice(reachable, instance):
    for size in [(1, 1, "calm"), (2, 1, "calm"), (1, 1, "+stray"), (1, 1, "calm", "18"), (1, 1, "+grandchild", "15")]:
        found = list(search(instance(*size)))
        assert len(found) == len(set(found))
        assert set(found) == reachable(*size)
        assert explore(instance(*size)).states == len(found)


def test_the_nearest_states_come_first(instance):
    here = instance(1, 1)
    distance = {here.initial: 0}
    for state in search(here):  # each state is met first from one of the nearest
        for _, _, following in here.steps(state):
            distance.setdefault(following, distance[state] + 1)
    steps = [distance[state] for state in search(here)]
    assert steps == sorted(steps)
    assert max(steps) == explore(here).depth


@pytest.mark.parametrize("profile", PROFILES)
def test_everything_that_is_to_be_seen_is_reached_with_two_children(explored, profile):
    """In a calm world. The second child may be a dead-end child, for want of a slot."""
    result = explored(1, 2, "calm", profile)
    claimed = properties(PROFILES[profile])
    elsewhere = {each.name for each in claimed if each.environment != "calm" or each.out_of_scope}
    assert result.complete
    assert set(everything(PROFILES[profile])) - elsewhere <= set(result.found)


def test_each_run_found_replays_and_ends_where_it_says(explored, instance):
    for size in [(1, 2), (1, 2, "calm", "18")]:
        here = instance(*size)
        wanted = everything(here.system.profile)
        for name, found in explored(*size).found.items():
            assert found.binding in holds_at_the_end(here, found.run, wanted[name]), name
            if len(found.run) > (not wanted[name].on_states):  # one step earlier it is not so yet; no step is none
                assert holds_at_the_end(here, found.run[:-1], wanted[name]) == [], name


@pytest.mark.parametrize("profile", [REFERENCE, NO_DEAD_MAN_SWITCH], ids=lambda profile: profile.name)
def test_the_first_run_found_is_a_shortest_one(profile):
    one = Instance(System(profile), Size(1, 1))
    wanted = everything(profile)
    wanted |= {f"not {name}": check for name, check in violations(properties(profile)).items()}
    del wanted["not flag_has_one_writer"]  # it speaks of five things at once, which takes a minute to ask one by one
    found = explore(one, wanted).found
    # A search of this test's own: all states exactly n steps away, n = 0, 1, 2 ...; and a predicate for each thing
    who = [list(Who).index(action.by) for action in one.system.actions]
    asked = {
        name: (each.on_states, one.predicate(each.condition, each.over), one.bindings(each.over))
        for name, each in wanted.items()
    }
    shortest = {}

    def ask(before, then, by, steps):
        for name in [name for name in asked if name not in shortest]:
            on_states, holds, members = asked[name]
            seen = (then, then, 0) if on_states else (before, then, by)
            if (on_states or steps) and any(holds(*seen, *each) for each in members):
                shortest[name] = steps

    ask(one.initial, one.initial, 0, 0)
    layer, met = {one.initial}, {one.initial}
    for steps in itertools.count(1):
        if not layer:
            break
        following = set()
        for state in layer:
            for position, _, then in one.successors(state):
                following.add(then)
                ask(state, then, who[position], steps)
        layer = following - met
        met |= layer
    assert {name: len(each.run) for name, each in found.items()} == shortest
    assert len(shortest) > 20
    assert any(name.startswith("not ") for name in shortest) is (profile is not REFERENCE)


def test_a_property_of_states_is_read_after_the_step_and_one_of_steps_from_before_to_after(explored):
    found = explored(1, 2).found
    there_are_two = [step.action for step in found["slot_has_one_owner"].run]
    assert there_are_two == ["assign", "fork", "fork_dead_end"]
    assert found["slot_has_one_owner"].binding == (1, 2)
    is_reset = [step.action for step in found["reset_only_when_alone"].run]
    assert is_reset == ["assign", "fork", "raw_exit", "reap_crash", "only_dead_ends_left", "all_gone", "reset"]


def test_no_property_is_violated_in_the_reference(instance):
    for size in [(1, 2), (2, 1)]:
        calm = [each for each in properties(REFERENCE) if each.environment == "calm"]
        assert len(calm) > 20
        assert explore(instance(*size), violations(calm)).found == {}


def test_a_run_with_a_step_that_is_not_enabled_does_not_replay(instance):
    one = instance(1, 1)
    good = (Step("assign", (1, 5)), Step("fork", (1,)), Step("ask", (1,)))
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


def test_what_is_sought_at_the_end_of_no_steps_is_read_in_the_initial_state(instance):
    one = instance(1, 1)
    assert holds_at_the_end(one, (), somewhere(mode == Mode.RUNNING)) == [(1, 1)]
    assert holds_at_the_end(one, (), somewhere(owed)) == []


def test_what_is_sought_at_the_end_is_read_on_the_last_step_by_who_took_it(instance):
    one = instance(1, 1)
    run = (Step("assign", (1, 5)), Step("fork", (1,)), Step("ask", (1,)))
    for who in Who:
        by_who = Sought((), both(actor == who), on_states=False)
        ends = [bool(holds_at_the_end(one, run[:length], by_who)) for length in (1, 2, 3)]
        assert ends == [who is Who.SUPERVISOR, who is Who.SUPERVISOR, who is Who.CHILD]
    crash = (Step("assign", (1, 5)), Step("fork", (1,)), Step("raw_exit", (1, 2)), Step("reap_crash", (1,)))
    begins = somewhere(both(mode == Mode.RUNNING, after(mode) == Mode.STOPPING), on_states=False)
    assert [len(holds_at_the_end(one, crash[:length], begins)) for length in (1, 2, 3, 4)] == [0, 0, 0, 1]


def test_a_search_beyond_its_limit_is_given_up_and_one_within_it_is_through(instance, reachable):
    states = len(reachable(1, 1))
    assert states > 100
    for limit in (0, 100, states - 1):
        with pytest.raises(StillSearching, match=f"more than {limit} states"):
            explore(instance(1, 1), limit=limit)
    result = explore(instance(1, 1), limit=states)
    assert (result.states, result.complete) == (states, True)


def test_a_search_that_stops_early_says_so(instance, reachable):
    one = instance(1, 1)
    look_for = {"stopping": somewhere(mode == Mode.STOPPING)}
    early = explore(one, look_for, stop_when_all_found=True)
    assert early.complete is False
    assert early.states < len(reachable(1, 1))
    assert len(early.found["stopping"].run) == 4
    assert explore(one, look_for).complete is True
    assert explore(one, look_for).found == early.found


def test_a_search_for_what_is_never_found_is_through(instance, reachable):
    result = explore(instance(1, 1), {"never": somewhere(negate(mode == mode))}, stop_when_all_found=True)
    assert (result.states, result.complete, result.found) == (len(reachable(1, 1)), True, {})


def test_what_holds_at_first_is_found_without_a_step(instance):
    one = instance(1, 1)
    found = explore(one, {"running": somewhere(mode == Mode.RUNNING)}, stop_when_all_found=True).found
    assert found == {"running": Found((), (1, 1))}


def test_a_run_is_told_with_what_the_flag_says_where_it_changes(instance):
    two = instance(2, 2)
    start_up = (Step("ask", (1,)), Step("check", (1,)), Step("hook", (1,)))
    run = (Step("assign", (2, 5)), Step("fork", (1,)), *start_up, Step("arm", (1,)), Step("raw_exit", (1, 0)))
    assigned, forked, _, _, _, armed, exited, reaped = tell(two, (*run, Step("reap_crash", (1,))))
    assert assigned.startswith("assign(slot 2, word 5): ")
    assert assigned.endswith("[slot 2 is assigned]")
    assert forked == f"fork(child 1): {two.actions['fork'].action.sentence}"
    assert armed == f"arm(child 1): {two.actions['arm'].action.sentence} [slot 2 is active]"
    assert exited.startswith("raw_exit(child 1, status 0): ")
    assert reaped.endswith("[slot 2 is unused]")


def test_a_walsender_is_told_to_be_one(instance):
    one = instance(1, 1, "calm", "9.4")
    start_up = (Step("take", (1,)), Step("arm", (1,)), Step("hook_both", (1,)))
    run = (Step("assign", (1,) * 2), Step("fork", (1,)), *start_up, Step("stream", (1,)))
    assert tell(one, run)[-1].endswith("[slot 1 is walsender]")


def test_a_scribbled_flag_is_told_to_be_foreign(instance):
    stray = instance(1, 1, "+stray")
    run = (Step("assign", (1, 5)), Step("fork", (1,)), Step("stray_write", (1, 1, 2)))
    assert tell(stray, run)[-1].endswith("[slot 1 is foreign]")
