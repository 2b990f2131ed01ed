"""The candidates and what is recorded of them: those that are not inductive are dropped, and the rest is true."""

import tomllib
from importlib.resources import files

import pytest

from armed_model.explore import explore
from armed_model.interpret import Instance, Size, Sought
from armed_model.profiles import PROFILES, REFERENCE, V8_4_0, V15, V18
from armed_model.system import ENVIRONMENTS, Mode, System, mode
from armed_model.terms import Parameter, negate
from armed_proofs import invariants, select
from armed_proofs.invariants import candidates, invariant, key
from armed_proofs.obligations import discharge, invariant_obligations

EVERY_SYSTEM = [system for profile in PROFILES.values() for system in select.systems(profile)]
PLANTED = {"planted": ((), mode == Mode.RUNNING)}


@pytest.fixture(scope="module")
def recorded():
    return tomllib.loads(files("armed_proofs").joinpath("invariants.toml").read_text())


def shown(system):
    return f"{system.profile.name} {key(system)}"


def test_every_system_is_recorded_and_no_other(recorded):
    assert list(recorded) == list(PROFILES)
    for name, profile in PROFILES.items():
        assert list(recorded[name]) == [key(system) for system in select.systems(profile)]
    assert {system.environment for system in EVERY_SYSTEM} == set(ENVIRONMENTS)


@pytest.mark.parametrize("system", EVERY_SYSTEM, ids=shown)
def test_what_is_recorded_as_dropped_is_a_candidate_and_the_others_are_the_invariant(recorded, system):
    every, dropped = candidates(system), recorded[system.profile.name][key(system)]
    assert set(dropped) <= set(every)
    assert len(dropped) == len(set(dropped))
    assert list(invariant(system)) == [name for name in every if name not in dropped]
    assert len(invariant(system)) > 20


@pytest.mark.parametrize("system", EVERY_SYSTEM, ids=shown)
def test_no_candidate_has_a_quantifier_and_each_may_be_instantiated_anywhere(system):
    for name, (over, term) in candidates(system).items():
        assert not term.has_quantifier, name
        assert all(isinstance(each, Parameter) and each.sort.name in ("Child", "Slot") for each in over)
        assert len(over) <= 1, "pairs would be instantiated at all pairs"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_invariant_is_true_in_every_state_of_a_small_instance(profile, environment):
    """An anchor beside the proof: a conjunct that a reachable state violates is none, whatever the solver said."""
    system = System(PROFILES[profile], environment)
    look_for = {name: Sought(over, negate(term), on_states=True) for name, (over, term) in invariant(system).items()}
    result = explore(Instance(system, Size(1, 1)), look_for)
    assert result.complete
    assert result.found == {}


def test_a_conjunct_that_is_not_true_is_found_by_the_same_search():
    look_for = {"planted": Sought((), negate(PLANTED["planted"][1]), on_states=True)}
    assert explore(Instance(System(REFERENCE), Size(1, 1)), look_for).found.keys() == {"planted"}


# --- Choosing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "system",
    [System(REFERENCE), System(REFERENCE, "+stray"), System(V8_4_0), System(V18, "+orphan"), System(V15, "+cancel")],
    ids=shown,
)
def test_what_is_recorded_is_what_is_chosen(recorded, system):
    assert select.select(system) == recorded[system.profile.name][key(system)]


def test_a_candidate_that_is_not_inductive_is_dropped_and_takes_none_of_the_others_with_it(monkeypatch):
    system = System(REFERENCE)
    dropped = select.select(system)
    every = candidates(system)
    monkeypatch.setattr(select, "candidates", lambda system: {**every, **PLANTED})
    assert select.select(system) == [*dropped, "planted"]


def test_a_candidate_that_rests_on_one_that_is_dropped_is_dropped_too(monkeypatch):
    system = System(REFERENCE)
    every = candidates(system)
    fewer = {name: each for name, each in every.items() if name != "child_owns_its_slot"}
    monkeypatch.setattr(select, "candidates", lambda system: fewer)
    assert "the_flag_tells_whether_armed" in select.select(system)


def test_a_candidate_that_is_false_at_first_is_dropped(monkeypatch):
    every = candidates(System(REFERENCE))
    monkeypatch.setattr(select, "candidates", lambda system: {**every, "planted": ((), mode == Mode.STOPPED)})
    assert "planted" in select.select(System(REFERENCE))


def test_what_is_chosen_is_written_as_it_is_recorded(monkeypatch, tmp_path, recorded):
    monkeypatch.setattr(select, "files", lambda package: tmp_path)
    monkeypatch.setattr(select, "systems", lambda profile: [System(profile)])
    monkeypatch.setattr(select, "PROFILES", {"reference": REFERENCE})
    told = []
    assert select.record(told.append) == str(tmp_path / "invariants.toml")
    written = tomllib.loads((tmp_path / "invariants.toml").read_text())
    assert written == {"reference": {"calm": recorded["reference"]["calm"]}}
    assert told == ["reference, calm: which candidates are inductive?"]


def test_a_candidate_that_is_not_recorded_as_dropped_is_part_of_the_invariant_and_checked(monkeypatch):
    monkeypatch.setattr(invariants, "_recorded", dict)
    system = System(V8_4_0)
    assert list(invariant(system)) == list(candidates(system))
    refused = [each.name for each in discharge(invariant_obligations(system)) if not each.proved]
    assert refused
