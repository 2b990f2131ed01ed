"""Runs, taken again by the definition itself: what is a run replays, and what is none does not."""

import random

import pytest

from armed_model.explore import Step, explore, replay, violations
from armed_model.interpret import Instance, Size
from armed_model.profiles import NO_DEAD_MAN_SWITCH, PROFILES, REFERENCE, V15
from armed_model.properties import by_name
from armed_model.system import ENVIRONMENTS, System
from armed_proofs import replay as module
from armed_proofs.replay import DoesNotReplay, replay_by_definition, with_fresh_words


def run_of(*steps):
    return tuple(Step(name, arguments) for name, *arguments in steps for arguments in [tuple(arguments)])


TO_THE_CRASH = run_of(
    ("assign", 1, 5), ("fork", 1), ("ask", 1), ("check", 1), ("hook", 1), ("arm", 1), ("raw_exit", 1, 0),
    ("reap_crash", 1),
)  # fmt: skip
RECOVERY = (*TO_THE_CRASH, *run_of(("only_dead_ends_left",), ("all_gone",), ("reset",), ("started",)))
ONE = Instance(System(REFERENCE), Size(1, 1))
CONTROL = Instance(System(NO_DEAD_MAN_SWITCH), Size(1, 1))


@pytest.fixture
def words_as_they_are(monkeypatch):
    """No renaming, so that nothing but the definition looks at the run."""
    monkeypatch.setattr(module, "with_fresh_words", lambda instance, run: run)


# --- What is a run ---------------------------------------------------------------------------------------------------


def test_a_whole_recovery_replays():
    replay_by_definition(ONE, RECOVERY)
    replay_by_definition(ONE, ())


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("profile", PROFILES)
def test_random_runs_of_the_compiled_functions_are_runs_of_the_definition(profile, environment):
    chance = random.Random(f"{profile} {environment}")
    instance = Instance(System(PROFILES[profile], environment), Size(2, 2))
    for _ in range(2):
        state, run = instance.initial, []
        while len(run) < 25 and (possible := list(instance.steps(state))):
            wanted = [each for each in possible if each[0] not in ("ask_orderly", "ask_immediate", "supervisor_dies")]
            name, arguments, state = chance.choice(wanted or possible)
            run.append(Step(name, arguments))
        replay_by_definition(instance, tuple(run))


# --- What is none ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", range(len(RECOVERY) - 1), ids=lambda i: RECOVERY[i].action)
def test_a_run_with_one_step_removed_does_not_replay(words_as_they_are, missing):
    with pytest.raises(DoesNotReplay, match=r"(?s)step \d+, \w+\(.*\): .* does not hold"):
        replay_by_definition(ONE, RECOVERY[:missing] + RECOVERY[missing + 1 :])


def test_the_compiled_functions_refuse_it_too():
    with pytest.raises(ValueError, match="is not enabled"):
        replay_by_definition(ONE, TO_THE_CRASH[:2] + TO_THE_CRASH[3:])


def test_what_is_said_of_everybody_is_said_of_each(words_as_they_are):
    """The guard of all_gone is for all children, and there are two."""
    two = Instance(System(V15), Size(2, 2))
    to_draining = run_of(
        *[("assign", 1), ("fork", 1), ("raw_exit", 1, 2), ("reap_crash", 1), ("fork_dead_end", 2)],
        ("only_dead_ends_left",),
    )
    replay_by_definition(two, to_draining)
    with pytest.raises(DoesNotReplay, match=r"step 7, all_gone\(\): ForAll"):
        replay_by_definition(two, (*to_draining, Step("all_gone", ())))


def test_slot_zero_and_nobody_are_no_arguments(words_as_they_are):
    with pytest.raises(DoesNotReplay, match="step 1, assign"):
        replay_by_definition(ONE, run_of(("assign", 0, 5)))
    with pytest.raises(DoesNotReplay, match="step 2, fork"):
        replay_by_definition(ONE, run_of(("assign", 1, 5), ("fork", 0)))


@pytest.mark.parametrize("word", range(5))
def test_a_reserved_word_is_never_drawn(words_as_they_are, word):
    with pytest.raises(DoesNotReplay, match="step 1, assign"):
        replay_by_definition(ONE, run_of(("assign", 1, word)))


# --- Words -----------------------------------------------------------------------------------------------------------

REUSED = run_of(("assign", 1, 5), ("fork_fails",), ("assign", 1, 5))


def test_a_run_that_uses_a_word_again_is_none_of_the_definition(words_as_they_are):
    """In a bounded instance words run out, so the compiled functions take it."""
    assert len(replay(ONE, REUSED)) == 4
    with pytest.raises(DoesNotReplay, match=r"step 3, assign\(1, 5\): .*used.* does not hold"):
        replay_by_definition(ONE, REUSED)


def test_with_its_words_renamed_it_is_one():
    assert with_fresh_words(ONE, REUSED) == run_of(("assign", 1, 5), ("fork_fails",), ("assign", 1, 6))
    replay_by_definition(ONE, REUSED)


def test_a_word_that_still_stands_somewhere_keeps_its_name():
    """A stray write of a word that is in use is of that very word; the names are given in the order of the story."""
    stray = Instance(System(REFERENCE, "+stray"), Size(2, 1))
    run = run_of(("assign", 1, 6), ("fork", 1), ("stray_write", 1, 2, 6), ("assign", 2, 5))
    renamed = with_fresh_words(stray, run)
    assert renamed == run_of(("assign", 1, 5), ("fork", 1), ("stray_write", 1, 2, 5), ("assign", 2, 6))
    replay_by_definition(stray, run)


def test_renaming_twice_is_renaming_once_and_nothing_is_renamed_where_the_word_is_a_constant():
    assert with_fresh_words(ONE, with_fresh_words(ONE, REUSED)) == with_fresh_words(ONE, REUSED)
    fifteen = Instance(System(V15), Size(1, 1))
    run = run_of(("assign", 1), ("fork_fails",), ("assign", 1))
    assert with_fresh_words(fifteen, run) == run


# --- The violation at the end ----------------------------------------------------------------------------------------


def found(instance, name):
    claim = by_name(instance.system.profile)[name]
    each = explore(instance, violations([claim]), stop_when_all_found=True).found[name]
    return claim, each.run, each.binding


@pytest.mark.parametrize(
    ("instance", "name"),
    [
        (CONTROL, "armed_exit_triggers_recovery"),
        (CONTROL, "decision_is_exact"),
        (Instance(System(PROFILES["8.4.0"]), Size(1, 1)), "no_slot_leaks"),
        (Instance(System(PROFILES["8.4.0"], "+grandchild"), Size(1, 1)), "grandchild_never_disarms"),
        (Instance(System(PROFILES["18"], "+cancel"), Size(1, 1)), "cancel_reaches_its_owner_only"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.system.profile.name,
)
def test_the_last_step_is_the_violation_and_the_one_before_is_none(instance, name):
    claim, run, binding = found(instance, name)
    replay_by_definition(instance, run, claim, binding)
    with pytest.raises(DoesNotReplay, match=f"the run does not violate {name}"):
        replay_by_definition(instance, run[:-1], claim, binding)


def test_a_violation_is_one_of_somebody():
    claim, run, (child, slot) = found(CONTROL, "armed_exit_triggers_recovery")
    assert (child, slot) == (1, 1)
    wide = Instance(System(NO_DEAD_MAN_SWITCH), Size(2, 1))
    with pytest.raises(DoesNotReplay, match="does not violate"):
        replay_by_definition(wide, run, claim, (1, 2))


def test_a_run_that_violates_nothing_does_not_replay_as_a_refutation():
    bindings = {"armed_exit_triggers_recovery": (1, 1), "no_slot_leaks": (1,), "recovery_goes_in_order": (1,)}
    for claim, binding in bindings.items():
        with pytest.raises(DoesNotReplay, match=f"the run does not violate {claim}"):
            replay_by_definition(ONE, RECOVERY, by_name(REFERENCE)[claim], binding)


def test_the_actor_is_who_took_the_last_step():
    """`no_supervisor_step_is_empty` speaks of the supervisor's steps; the child's arm changes none of what it names."""
    claim = by_name(REFERENCE)["no_supervisor_step_is_empty"]
    with pytest.raises(DoesNotReplay, match="does not violate"):
        replay_by_definition(ONE, TO_THE_CRASH[:6], claim, ())


def test_a_violation_may_be_of_a_word_that_the_run_does_not_name():
    claim = by_name(REFERENCE)["flag_has_one_writer"]
    with pytest.raises(DoesNotReplay, match="does not violate"):
        replay_by_definition(ONE, RECOVERY, claim, (1, 1, 1, 1, 6))
