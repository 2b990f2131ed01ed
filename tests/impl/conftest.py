"""Real processes, ordered by pipes."""

import os
import resource
import select
import signal
import time
import traceback

import pytest

from armed import Supervisor

LIMIT = 20.0  # seconds that any one wait may take


@pytest.fixture(scope="session", autouse=True)
def no_core_files():
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_not_ignored():
    """Else, as when a shell started the tests in the background, children would ignore it, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Gate:
    """A pipe by which processes tell each other that something has happened."""

    def __init__(self):
        self.read_end, self.write_end = os.pipe()

    def open(self, note=b"."):
        os.write(self.write_end, note)

    def wait(self, limit=LIMIT):
        """Wait for open(); return the note. Also the test for "nobody holds the write end any more": b""."""
        ready, _, _ = select.select([self.read_end], [], [], limit)
        assert ready, "nothing happened in time"
        return os.read(self.read_end, 4096)

    def is_open(self):
        return bool(select.select([self.read_end], [], [], 0)[0])

    def close_write_end(self):
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def close(self):
        self.close_write_end()
        os.close(self.read_end)


@pytest.fixture
def gate(nothing_left):
    gates = []

    def make():
        gates.append(Gate())
        return gates[-1]

    yield make
    for each in gates:
        each.close()


@pytest.fixture
def until():
    """Step until an event of this kind has come; return all events."""

    def until(sup, kind, limit=LIMIT):
        events, end = [], time.monotonic() + limit
        while kind not in [event.kind for event in events]:
            assert time.monotonic() < end, f"no {kind} in time, only {events}"
            events += sup.step(end - time.monotonic())
        return events

    return until


@pytest.fixture
def forked():
    """Run body() in a process forked by the test itself; its exit status is 42 if all went well. Return its pid."""

    def forked(body):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                body()
                status = 42
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        return pid

    return forked


@pytest.fixture
def reaped():
    """Wait for a process forked by the test itself; return its exit status."""

    def reaped(pid, limit=LIMIT):
        pidfd = os.pidfd_open(pid)
        try:
            ready, _, _ = select.select([pidfd], [], [], limit)
            if not ready:
                os.kill(pid, 9)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert ready, "it did not end in time"
            return status
        finally:
            os.close(pidfd)

    return reaped


@pytest.fixture
def in_child(gate):
    """Run body(me, say) in a child; return its outcome and all that it said."""

    def in_child(body):
        said = gate()

        def target(me, shared):
            body(me, lambda word: said.open(f"{word}\n".encode()))

        with Supervisor(slots=1) as sup:
            child = sup.start(target)
            sup.run(LIMIT)
            assert child.outcome is not None, "it did not end in time"
        said.close_write_end()
        return child.outcome, said.wait().decode().split()

    return in_child
