"""Fixtures for all tests: whatever a test does, no process, no descriptor and no name in /dev/shm is left after it."""

import gc
import os

import pytest


def _descriptors():
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_left():
    before = _descriptors(), set(os.listdir("/dev/shm"))
    yield
    gc.collect()
    with pytest.raises(ChildProcessError):  # no child, living or unreaped
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    assert (_descriptors(), set(os.listdir("/dev/shm"))) == before
