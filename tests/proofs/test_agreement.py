"""The comparison of the compiled model with z3 passes, and fails on each difference that is planted."""

import contextlib
from dataclasses import replace

import pytest

from armed_model import interpret
from armed_model.interpret import INDEX, Instance
from armed_proofs.agreement import Disagreement, compare

COMPILE = interpret._compile_action


@pytest.fixture
def lie(monkeypatch):
    """Plant other functions in a compiled action: lie("arm", enabled=lambda truth: ...)."""

    def plant(name, **lies):
        def compile_action(action, size):
            compiled = COMPILE(action, size)
            if action.name != name:
                return compiled
            return replace(compiled, **{what: make(getattr(compiled, what)) for what, make in lies.items()})

        monkeypatch.setattr(interpret, "_compile_action", compile_action)

    return plant


def test_the_compiled_model_agrees_with_z3():
    assert compare(5, seed=1) > 500


def test_other_seeds_are_other_states(monkeypatch):
    seen = []
    predicate = Instance.predicate

    def spy(self, term, over=()):
        compiled = predicate(self, term, over)
        return lambda state, *rest: seen.append(state) or compiled(state, *rest)

    monkeypatch.setattr(Instance, "predicate", spy)
    compare(1, seed=1)
    compare(1, seed=2)
    assert len(set(seen)) == 2


def put(state, name, value):
    at = INDEX[name]
    return (*state[:at], value, *state[at + 1 :])


def test_a_guard_that_is_too_weak_is_found(lie):
    lie("started", enabled=lambda truth: lambda state: True)
    with pytest.raises(Disagreement, match=r"the guard of started\(\): the compiled model and z3 differ"):
        compare(10)


def test_a_guard_that_is_too_strong_is_found(lie):
    lie("ask_immediate", enabled=lambda truth: lambda state: False)
    with pytest.raises(Disagreement, match="the guard of ask_immediate"):
        compare(30)


def test_a_wrong_new_value_is_found(lie):
    lie("all_gone", next_state=lambda truth: lambda state: put(truth(state), "mode", 3))
    with pytest.raises(Disagreement, match="mode after all_gone"):
        compare(2)


def test_a_new_value_at_the_wrong_location_is_found(lie):
    def next_state(truth):
        return lambda state, child: put(state, "holds", tuple(i == 3 - child or old for i, old in enumerate(
            state[INDEX["holds"]])))

    lie("take", next_state=next_state)
    with pytest.raises(Disagreement, match="holds after take"):
        compare(10)


def test_a_change_that_no_effect_names_is_found(lie):
    lie("hook", next_state=lambda truth: lambda state, child: put(truth(state, child), "torn", True))
    with pytest.raises(Disagreement, match=r"hook\(\d,\) changes torn, which no effect names"):
        compare(10)


def test_effects_that_are_not_simultaneous_are_found(lie):
    """`flag[slot_of[c]]` reads the old slot_of; here the child is forgotten first, then slot 0 is released."""

    def next_state(truth):
        def too_late(state, child):
            slot_of = state[INDEX["slot_of"]]
            forgotten = put(state, "slot_of", tuple(0 if i == child else old for i, old in enumerate(slot_of)))
            return truth(forgotten, child)

        return too_late

    lie("reap_clean", next_state=next_state)
    with pytest.raises(Disagreement, match="after reap_clean"):
        compare(10)


def test_a_property_read_wrong_is_found(monkeypatch):
    predicate = Instance.predicate

    def negated(self, term, over=()):
        compiled = predicate(self, term, over)
        return lambda *arguments: not compiled(*arguments)

    monkeypatch.setattr(Instance, "predicate", negated)
    with pytest.raises(Disagreement, match="the premise of armed_exit_triggers_recovery"):
        compare(1)


def test_a_disagreement_passes_through_context_managers_and_says_what():
    @contextlib.contextmanager
    def around():
        yield

    with pytest.raises(Disagreement) as raised, around():
        raise Disagreement("this and that differ")
    assert str(raised.value) == "this and that differ"
