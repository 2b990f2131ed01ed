"""The comparison of the compiled model with z3 passes, and fails on each difference that is planted."""

import contextlib
from functools import partial

import pytest

from armed_model.interpret import CompiledAction, Instance
from armed_model.profiles import PROFILES, REFERENCE, V18
from armed_model.system import CONTROL_ENVIRONMENTS, ENVIRONMENTS
from armed_proofs import agreement
from armed_proofs.agreement import SYSTEMS, Disagreement, compare

TRUTH = {
    "enabled": CompiledAction.enabled.func,
    "next_state": CompiledAction.next_state.func,
    "domains": CompiledAction.domains.fget,
}


@pytest.fixture
def only(monkeypatch):
    """Let all states be of one system: only(REFERENCE, "calm")."""

    def choose(profile, environment):
        monkeypatch.setattr(agreement, "SYSTEMS", ((profile, environment, False),))

    return choose


@pytest.fixture
def lie(monkeypatch, only):
    """Plant other functions in a compiled action of the reference: lie("arm", enabled=lambda truth: ...)."""

    def plant(name, **lies):
        for what, make in lies.items():
            monkeypatch.setattr(CompiledAction, what, property(partial(tell, name, TRUTH[what], make)))
        only(REFERENCE, "+stray")

    def tell(name, truth, make, compiled):
        if compiled.action.name != name:
            return truth(compiled)
        instance = compiled.instance
        instance.put = lambda state, name, value: put_at(instance.index, state, name, value)
        return make(truth(compiled), instance)

    return plant


def put_at(index, state, name, value):
    return (*state[: index[name]], value, *state[index[name] + 1 :])


def test_every_profile_in_every_environment_is_compared():
    environments = {*ENVIRONMENTS, *CONTROL_ENVIRONMENTS}
    assert {(profile.name, environment) for profile, environment, alone in SYSTEMS if not alone} == {
        (name, environment) for name in PROFILES for environment in environments
    }
    assert {profile.name for profile, _, alone in SYSTEMS if alone} == set(PROFILES)


def test_the_compiled_model_agrees_with_z3():
    assert compare(len(SYSTEMS), seed=1) > 10_000


def test_states_are_split_evenly(monkeypatch):
    asked = []
    monkeypatch.setattr(
        agreement._World, "compare", lambda self, chance: asked.append(str(self.instance.system)) or 1
    )
    for states, most in [(0, 0), (5, 1), (len(SYSTEMS), 1), (len(SYSTEMS) + 3, 2)]:
        asked.clear()
        assert compare(states) == states == len(asked)
        assert max([asked.count(each) for each in asked], default=0) == most
        assert len(set(asked)) == min(states, len(SYSTEMS))


def test_other_seeds_are_other_states(monkeypatch, only):
    seen = []
    random_state = agreement._World.random_state

    def spy(self, chance):
        seen.append(random_state(self, chance))
        return seen[-1]

    monkeypatch.setattr(agreement._World, "random_state", spy)
    only(V18, "+grandchild")
    for seed in (1, 2, 1):
        compare(1, seed)
    assert seen[:2] == seen[4:]
    assert len(set(seen)) == 4  # two states, and the state after each


def test_a_guard_that_is_too_weak_is_found(lie):
    lie("started", enabled=lambda truth, here: lambda state: True)
    with pytest.raises(Disagreement, match=r"the guard of started\(\): .* differ \(True, False\)"):
        compare(10)


def test_a_guard_that_is_too_strong_is_found(lie):
    lie("ask_immediate", enabled=lambda truth, here: lambda state: False)
    with pytest.raises(Disagreement, match="the guard of ask_immediate"):
        compare(60)


def test_a_wrong_new_value_is_found(lie):
    lie("all_gone", next_state=lambda truth, here: lambda state: here.put(truth(state), "mode", 2))
    with pytest.raises(Disagreement, match="mode after all_gone"):
        compare(2)


def test_a_new_value_at_the_wrong_location_is_found(lie):
    def next_state(truth, here):
        return lambda state, child: here.put(
            state, "holds", tuple(i == 3 - child or old for i, old in enumerate(state[here.index["holds"]]))
        )

    lie("take", next_state=next_state)
    with pytest.raises(Disagreement, match="holds after take"):
        compare(10)


def test_a_change_that_no_effect_names_is_found(lie):
    lie("hook", next_state=lambda truth, here: lambda state, child: here.put(truth(state, child), "torn", True))
    with pytest.raises(Disagreement, match=r"hook\(\d,\) changes torn, which no effect names"):
        compare(10)


def test_effects_that_are_not_simultaneous_are_found(lie):
    """`flag[slot_of[c]]` reads the old slot_of; here the child is forgotten first, then slot 0 is released."""

    def next_state(truth, here):
        def too_late(state, child):
            slot_of = state[here.index["slot_of"]]
            forgotten = here.put(state, "slot_of", tuple(0 if i == child else old for i, old in enumerate(slot_of)))
            return truth(forgotten, child)

        return too_late

    lie("reap_clean", next_state=next_state)
    with pytest.raises(Disagreement, match="after reap_clean"):
        compare(10)


def test_a_property_read_wrong_is_found(monkeypatch, only):
    predicate = Instance.predicate

    def negated(self, term, over=()):
        compiled = predicate(self, term, over)
        return lambda *arguments: not compiled(*arguments)

    monkeypatch.setattr(Instance, "predicate", negated)
    only(V18, "calm")
    with pytest.raises(Disagreement, match="the premise of armed_exit_triggers_recovery"):
        compare(1)


def test_the_words_that_are_used_are_read_alike(lie, monkeypatch):
    """In a bounded instance a word is used while it stands somewhere; a guard that forgets one is too weak."""

    def forgets(truth, here):
        return lambda state, slot, word: truth(here.put(state, "clean", (0, 0, 0)), slot, word)

    random_state = agreement._World.random_state

    def nothing_else_in_the_way(self, chance):
        state = random_state(self, chance)
        for name, blank in {"mode": 0, "shutdown": 0, "launching": 0, "in_use": (False, False, False)}.items():
            state = put_at(self.instance.index, state, name, blank)
        return state

    monkeypatch.setattr(agreement._World, "random_state", nothing_else_in_the_way)
    lie("assign", enabled=forgets)
    with pytest.raises(Disagreement, match="the guard of assign"):
        compare(30)


def test_states_that_z3_does_not_accept_are_no_agreement(monkeypatch, only):
    only(REFERENCE, "calm")
    monkeypatch.setattr(agreement._World, "value_in", lambda self, variable, state: variable.z3)
    world = agreement._World(Instance(agreement.System(REFERENCE), agreement.SIZE))
    world.solver.add(False)
    with pytest.raises(Disagreement, match="z3 does not accept the values of a state: unsat"):
        world.evaluator((), (), 0, dict.fromkeys([each.name for each in world.parameters], 0))


def test_a_value_that_z3_leaves_open_is_no_agreement(monkeypatch, only):
    """Where a variable is given no value, what it evaluates to is not the compiled model's."""
    only(REFERENCE, "calm")
    value_in = agreement._World.value_in
    monkeypatch.setattr(
        agreement._World,
        "value_in",
        lambda self, variable, state: variable.z3 if variable.name == "shutdown" else value_in(self, variable, state),
    )
    with pytest.raises(Disagreement, match="the compiled model and z3 differ"):
        compare(20)


def test_a_disagreement_passes_through_context_managers_and_says_what():
    @contextlib.contextmanager
    def around():
        yield

    with pytest.raises(Disagreement) as raised, around():
        raise Disagreement("this and that differ")
    assert str(raised.value) == "this and that differ"
