"""What several of these tests look at: every reachable state of small instances, each found once."""

import functools
import gc

import pytest

from armed_model.interpret import Instance, Size
from armed_model.profiles import PROFILES
from armed_model.system import System


@functools.cache
def instance_of(slots, children, environment, profile):
    return Instance(System(PROFILES[profile], environment), Size(slots, children))


@functools.cache
def states_of(slots, children, environment, profile):
    instance = instance_of(slots, children, environment, profile)
    seen, todo = {instance.initial}, [instance.initial]
    while todo:
        for _, _, after in instance.steps(todo.pop()):
            if after not in seen:
                seen.add(after)
                todo.append(after)
    states = frozenset(seen)
    gc.freeze()  # they stay to the end: no collection, of which there is one after each test, need look at them again
    return states


@pytest.fixture(scope="session")
def instance():
    """A profile with so many slots and children: instance(1, 2), or instance(1, 2, "+stray", "15")."""
    return lambda slots, children, environment="calm", profile="reference": instance_of(
        slots, children, environment, profile
    )


@pytest.fixture(scope="session")
def reachable():
    """Every reachable state, by a search of the tests' own."""
    return lambda slots, children, environment="calm", profile="reference": states_of(
        slots, children, environment, profile
    )
