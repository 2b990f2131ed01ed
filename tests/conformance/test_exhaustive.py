"""Every order in every state that few orders reach: all of it is searched, and all of it is walked."""

import re
import sys

import pytest
from tests.conformance import planted

from armed_conformance import exhaustive, replay
from armed_conformance.adapters.armed import ArmedFork
from armed_conformance.exhaustive import EVERYTHING, EVERYTHING_IS_ORDERED, STOPPED, Graph, NotSearched, exhaust
from armed_conformance.histories import History, play
from armed_conformance.lockstep import Coverage
from armed_conformance.protocol import Cannot, Circumstance, ExitKind, Step
from armed_conformance.run import UnknownTarget
from armed_model.profiles import V18

sys.modules["planted"] = planted  # so that a target can be named in it

HERE = sys.modules[__name__]
sys.modules["test_exhaustive"] = HERE  # so that a target can be named in it


# The states


def edges(graph, depth):
    """Every order of a graph, as (state before, what is told, state after)."""
    states = {number: state for state, number in graph.number.items()}
    return {
        (states[number], told(order), states[there])
        for number, node in enumerate(graph.nodes)
        if node.depth < depth
        for order, there in node.leads.items()
        if there != graph.number[STOPPED] or order != ("stop",)
    }


def told(order):
    match order:
        case ("end", _, kind):
            return f"ends by {ExitKind[kind]}"
        case ("arrange", circumstance):
            return f"arranged: {circumstance}"
        case (_, _, step):
            return step
    return {"start": "start a child", "supervise": "the supervisor looks"}.get(order[0])


def edges_without_symmetry(depth, slots):
    """The same by another search: children, slots and words are told apart, and everything is tried upon everybody."""
    first = exhaustive._OnTheModel(slots, frozenset())
    known, found, level = {raw(first)}, set(), [first]
    for _ in range(depth):
        next_level = []
        for lockstep in level:
            for after in everything(lockstep):
                if after.stopped or raw(after) not in known:
                    known.add(raw(after))
                    next_level += [] if after.stopped else [after]
                what = after.story[0].rpartition(": ")[2] if after.story[0].startswith("child") else after.story[0]
                found.add((exhaustive.configuration(lockstep)[0], what, exhaustive.configuration(after)[0]))
        level = next_level
    return found


def raw(lockstep):
    actors = [(a.model, len(a.held), len(a.kept), a.ending_block, a.frozen) for a in lockstep._actors.values()]
    return lockstep._state, tuple(sorted(actors)), frozenset(lockstep._arranged)


def everything(lockstep):
    tried = [("start",), ("supervise",)]
    tried += [("arrange", each.value) for each in Circumstance if each not in lockstep._arranged]
    for child in lockstep.children:
        number = lockstep._number(child)
        tried += [("end", number, each.name) for each in ExitKind]
        tried += [("step", number, each.value) for each in Step if child in lockstep.steppable and each in EVERYTHING]
    return [lockstep.after(order) for order in tried]


@pytest.mark.parametrize(("depth", "slots"), [(6, 1), (4, 2), (3, 3)])
def test_no_state_and_no_order_is_lost_to_symmetry(depth, slots):
    assert edges(Graph(depth, slots), depth) == edges_without_symmetry(depth, slots)


DROPPED = [("start",), ("supervise",), ("arrange", "patience_ends"), ("step", "take_refused"), ("end", "SIGTERM")]


@pytest.mark.parametrize("dropped", DROPPED, ids=str)
def test_an_order_that_is_not_enumerated_is_missed(dropped, monkeypatch):
    """Planted: one kind of order is left out of the enumeration."""
    every = exhaustive.orders

    def all_but_one(*arguments):
        return (order for order in every(*arguments) if (order[0], *order[1:][-1:]) != dropped)

    expected = edges_without_symmetry(4, 1)
    assert edges(Graph(4, 1), 4) == expected
    monkeypatch.setattr(exhaustive, "orders", all_but_one)
    assert edges(Graph(4, 1), 4) < expected


@pytest.mark.parametrize(
    ("depth", "slots", "states", "orders"),
    [(1, 2, 1, 6), (3, 2, 24, 278), (4, 2, 83, 1171), (5, 2, 275, 4027), (6, 2, 754, 10903), (6, 1, 263, 2747)],
)
def test_states_and_orders_are_counted_as_before(depth, slots, states, orders):
    nodes = [node for node in Graph(depth, slots).nodes if node.leads]
    assert (len(nodes), sum(len(node.leads) for node in nodes)) == (states, orders)


def test_from_some_depth_on_everything_is_ordered():
    every = {str(each) for each in EVERYTHING}

    def ordered(depth):
        return {exhaustive._what(order) for node in Graph(depth, 1).nodes for order in node.leads}

    assert ordered(EVERYTHING_IS_ORDERED) == every | {"start", "supervise", "stop"}
    assert every - ordered(EVERYTHING_IS_ORDERED - 1) == {"give", "give_fails", "give_fails_late", "leave"}


def test_what_cannot_be_done_is_not_searched():
    cannot = frozenset({Step.TAKE, ExitKind.SIGTERM, *Circumstance})
    ordered = {exhaustive._what(order) for node in Graph(6, 1, cannot).nodes for order in node.leads}
    assert not ordered & {str(each) for each in cannot}
    assert "give" not in ordered, "there is nothing to give"
    assert "take_fails_late" in ordered


# The walk


def test_armed_does_what_the_model_does_in_every_state():
    told = []
    report = exhaust("armed:fork", 3, progress=lambda given, total: told.append((given, total)))
    assert report.passed, report.mismatch or report.missing
    assert (report.states_seen, report.states) == (24, 24)
    assert (report.ordered.total(), report.orders) == (278, 278)
    assert told[-1] == (278, 278)
    seen = report.as_json()
    assert all(seen[each] for each in ("histories", "steps", "refusals", "deaths", "recoveries"))
    assert not seen["missing"]
    assert seen["ordered"]["SIGKILL"] > 0


def test_spawned_children_do_it_too():
    report = exhaust("armed:spawn", 2, slots=1)
    assert report.passed, report.mismatch or report.missing
    assert report.states_seen > 1


FOUND = {
    planted.StatusOnly: (4, "is: crash .status 1, its slot is active.*\n.*it was: clean"),
    planted.FlagOnly: (2, "is: crash .status -9, its slot is assigned.*\n.*it was: clean"),
    planted.ForeignIsClean: (4, "is: crash .status 1, its slot is foreign.*\n.*it was: clean"),
    planted.SwallowsFailedGiveBack: (5, "give_fails\n.* slot 1 is active\n.* it is assigned"),
    planted.DisarmsBeforeItGivesBack: (4, "grandchild\n.* slot 1 is active\n.* it is foreign"),
    planted.ArmsAfterTaking: (3, "arm\n.* slot 1 is active\n.* it is assigned"),
    planted.GrandchildMayDisarm: (4, "grandchild\n.* slot 1 is active\n.* it is assigned"),
}
"""The depth at which each planted bug is found, with one slot, and what must be told."""


@pytest.mark.parametrize("bug", planted.ALL, ids=lambda bug: bug.__name__)
def test_every_planted_bug_is_found_at_a_small_depth_and_told_as_a_short_story(bug):
    depth, said = FOUND[bug]
    report = exhaust(f"planted:{bug.__name__}", depth, slots=1)
    assert not report.passed
    assert not report.missing, "the run has ended early: nothing is known of the rest"
    assert re.search(said, report.mismatch), report.mismatch
    assert len(report.failing.orders) <= 6, report.failing.orders


def test_a_bug_is_found_at_its_depth_and_not_before():
    assert exhaust("planted:ArmsAfterTaking", 2, slots=1).passed
    assert not exhaust("planted:ArmsAfterTaking", 3, slots=1).passed


class Hides(ArmedFork):
    """Says that it can do everything, until it is opened."""

    @property
    def cannot(self):
        return frozenset() if self._supervisor is None else frozenset({Step.FREEZE})


def test_an_implementation_that_hides_a_state_does_not_pass():
    report = exhaust("test_exhaustive:Hides", 3, slots=1)
    assert report.mismatch is None
    assert not report.passed
    assert report.states_seen < report.states
    assert "order: start; step 1 freeze" in report.missing
    assert "state: start; step 1 freeze" in report.missing


class Poor(ArmedFork):
    cannot = frozenset({*Circumstance, *Step, *ExitKind} - {Step.SERVE, Step.ARM, ExitKind.RAW_EXIT_0})


def test_what_an_implementation_cannot_do_is_not_ordered():
    report = exhaust("test_exhaustive:Poor", 4)
    assert report.passed, report.mismatch or report.missing
    assert set(report.ordered) == {"start", "supervise", "stop", "serve", "arm", "_exit(0)"}
    assert report.never_ordered == []


def test_patience_can_end_in_a_recovery_that_is_under_way():
    freeze, crash = ("step", 1, "freeze"), ("end", 2, "SIGKILL")
    orders = [("start",), ("start",), freeze, crash, ("supervise",), ("arrange", "patience_ends"), ("supervise",)]
    coverage = Coverage()
    play(History("patience", 2, lambda lockstep: replay.follow(lockstep, orders)), ArmedFork(), coverage)
    assert coverage.recoveries == 1


@pytest.mark.parametrize(("depth", "slots"), [(0, 1), (1, 0), (1, 5)])
def test_bounds_that_make_no_sense_are_refused(depth, slots):
    with pytest.raises(ValueError, match="depth is 1 or more"):
        exhaust("armed:fork", depth, slots=slots)


class OfAnotherProfile(ArmedFork):
    profile = V18


def test_another_profile_than_reference_is_refused():
    with pytest.raises(NotSearched, match="held to the profile 18"):
        exhaust("test_exhaustive:OfAnotherProfile", 1)


def test_an_unknown_target_is_refused():
    with pytest.raises(UnknownTarget):
        exhaust("armed:nonsense", 1)


def test_the_model_beside_itself_refuses_what_cannot_be_ordered():
    with pytest.raises(Cannot):
        exhaustive._OnTheModel(1, frozenset({Circumstance.FORK_FAILS})).after(("arrange", "fork_fails"))
