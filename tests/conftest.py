"""Fixtures for all tests: whatever a test does, no process, no descriptor and no name in /dev/shm is left after it."""

import faulthandler
import gc
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from armed_conformance.postgres.cluster import servers

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a script runs in the background begins without one
os.register_at_fork(after_in_child=faulthandler.disable)  # children that die by SIGSEGV do so on purpose


def _descriptors():
    return set(os.listdir("/proc/self/fd"))


def _of_a_server(name):
    """Whether a PostgreSQL server that lives has it: somebody else's, for ours have ended by now."""
    if not name.startswith("PostgreSQL."):
        return False
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if f"/dev/shm/{name}\n" in maps.read_text():
                return True
    return False


@pytest.fixture(autouse=True)
def nothing_left():
    descriptors, names = _descriptors(), set(os.listdir("/dev/shm"))
    yield
    gc.collect()
    with pytest.raises(ChildProcessError):  # no child, living or unreaped
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    assert _descriptors() == descriptors
    left = [name for name in os.listdir("/dev/shm") if name not in names and not _of_a_server(name)]
    assert not [name for name in left if os.path.exists(f"/dev/shm/{name}")]  # somebody else's may have gone


# --- PostgreSQL servers ----------------------------------------------------------------------------------------------


def _each_server():
    return [pytest.param(each, marks=pytest.mark.needs_postgres, id=str(each)) for each in servers() or ["nowhere"]]


@pytest.fixture(scope="session", params=_each_server())
def bindir(request):
    """Where the programs of a PostgreSQL server are: a test that asks for it is run once for each server found."""
    return request.param


def pytest_configure(config):
    config.addinivalue_line("markers", "needs_postgres: runs a PostgreSQL server: ARMED_POSTGRES=BINDIR:BINDIR...")
    config.addinivalue_line("markers", "needs_browser: opens a page in chromium")


def pytest_runtest_setup(item):
    """Say NOT RUN where there is no server, or no browser; under ARMED_STRICT=1 that is a failure."""
    if item.get_closest_marker("needs_postgres") is not None and not servers():
        missing = "NOT RUN: no PostgreSQL server: install one, or set ARMED_POSTGRES=BINDIR:BINDIR..."
    elif item.get_closest_marker("needs_browser") is not None and shutil.which("chromium") is None:
        missing = "NOT RUN: no browser: install chromium"
    else:
        return
    if os.environ.get("ARMED_STRICT") == "1":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)  # counted and said
