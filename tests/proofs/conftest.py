"""The whole matrix, decided once for all tests that look at it."""

import pytest

from armed_proofs.matrix import ALL_PROFILES, decide


@pytest.fixture(scope="session")
def matrices():
    return {name: decide(name) for name in ALL_PROFILES}
