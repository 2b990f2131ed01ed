"""What several of these tests look at: every reachable state of small instances, each found once."""

import functools

import pytest

from armed_model.interpret import Instance, Size
from armed_model.profiles import REFERENCE
from armed_model.system import System


@functools.cache
def instance_of(slots, children, environment):
    return Instance(System(REFERENCE, environment), Size(slots, children))


@functools.cache
def states_of(slots, children, environment):
    instance = instance_of(slots, children, environment)
    seen, todo = {instance.initial}, [instance.initial]
    while todo:
        for _, _, after in instance.steps(todo.pop()):
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return frozenset(seen)


@pytest.fixture(scope="session")
def instance():
    """The reference with so many slots and children: instance(1, 2), or instance(1, 2, "+stray")."""
    return lambda slots, children, environment="calm": instance_of(slots, children, environment)


@pytest.fixture(scope="session")
def reachable():
    """Every reachable state, by a search of the tests' own."""
    return lambda slots, children, environment="calm": states_of(slots, children, environment)
