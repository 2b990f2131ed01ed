"""Fixtures for all tests: whatever a test does, no process, no descriptor and no name in /dev/shm is left after it."""

import faulthandler
import gc
import os

import pytest

os.register_at_fork(after_in_child=faulthandler.disable)  # children that die by SIGSEGV do so on purpose


def _descriptors():
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_left():
    descriptors, names = _descriptors(), set(os.listdir("/dev/shm"))
    yield
    gc.collect()
    with pytest.raises(ChildProcessError):  # no child, living or unreaped
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    assert _descriptors() == descriptors
    assert set(os.listdir("/dev/shm")) <= names  # somebody else's may have gone
