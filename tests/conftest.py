"""Fixtures for all tests: whatever a test does, no process, no descriptor and no name in /dev/shm is left after it."""

import base64
import contextlib
import faulthandler
import fcntl
import gc
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections import deque
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
        with contextlib.suppress(OSError):
            if f"/dev/shm/{name}\n" in maps.read_text():
                return True
    return False


@pytest.fixture(autouse=True, scope="module")
def quick_to_collect():
    """What was there before the tests of a file is looked at by no garbage collection after each of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left(quick_to_collect):
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


def pytest_runtest_setup(item):
    """Say NOT RUN where there is no server, or no browser; under ARMED_STRICT=1 that is a failure."""
    if item.get_closest_marker("needs_postgres") is not None and not servers():
        missing = "NOT RUN: no PostgreSQL server: install one, or set ARMED_POSTGRES=BINDIR:BINDIR..."
    elif "browser" in item.fixturenames and shutil.which("chromium") is None:
        missing = "NOT RUN: no browser: install chromium"
    else:
        return
    if os.environ.get("ARMED_STRICT") == "1":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)  # counted and said; `.ci/run` is strict, so there it cannot come to this


# --- A browser -------------------------------------------------------------------------------------------------------
#
# It is driven by its DevTools protocol through two pipes: no port, no library, nothing left behind.

ANSWERS_WITHIN = 60.0  # seconds, and ends within as many
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--disable-breakpad", "--remote-debugging-pipe",
]  # fmt: skip
KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36,
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip


def _pipe():
    """Return a pipe whose ends are neither 3 nor 4: those the browser wants."""
    pipe = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in pipe]
    for end in pipe:
        os.close(end)
    return ends


class Browser:
    """One page. `complaints` are its errors and warnings, `requests` the addresses that were asked for."""

    def __init__(self, folder):
        theirs, self._orders = _pipe()
        self._answers, answers = _pipe()
        self._process = subprocess.Popen(
            [shutil.which("chromium"), *FLAGS, f"--user-data-dir={folder}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False,
            env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}, start_new_session=True,
            preexec_fn=lambda: (os.dup2(theirs, 3), os.dup2(answers, 4)),  # where the browser wants them
        )  # fmt: skip
        os.close(theirs)
        os.close(answers)
        self._heard, self._messages, self._number, self._session = b"", deque(), 0, None
        self.complaints, self.requests, self._events = [], [], []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """Give an order and return its result; what else is told meanwhile is noted."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            order["sessionId"] = self._session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while (message := self._hear()).get("id") != self._number:
            self._note(message)
        assert "error" not in message, f"{method}: {message}"
        return message["result"]

    def _hear(self):
        until = time.monotonic() + ANSWERS_WITHIN
        while not self._messages:
            assert select.select([self._answers], [], [], max(0.0, until - time.monotonic()))[0], "no answer"
            more = os.read(self._answers, 1 << 20)
            assert more, "the browser has ended"
            *whole, self._heard = (self._heard + more).split(b"\0")
            self._messages.extend(map(json.loads, whole))
        return self._messages.popleft()

    def _note(self, message):
        told = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(told["exceptionDetails"])
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.complaints.append(told["args"])
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.complaints.append(told["entry"])
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
        self._events.append(message.get("method"))

    def open(self, file):
        """Load a file and wait until that is done."""
        self._events.clear()
        self.ask("Page.navigate", url=file.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._note(self._hear())

    def run(self, script):
        """Return the value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key):
        """Press and release a key, where the focus is."""
        code = {"windowsVirtualKeyCode": KEYS[key], "key": key, "code": key}
        text = {"text": "\r"} if key == "Enter" else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **code)

    def size(self, width, height=800):
        """Give the window a size, in pixels."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def media(self, kind="", scheme="light"):
        """Show the page as on a screen that is light or dark, or (`print`) as on paper."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=kind, features=features)

    def picture(self, whole=False):
        """Return what is seen, as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])

    def pdf(self):
        """Return the page as it is printed."""
        return base64.b64decode(self.ask("Page.printToPDF", preferCSSPageSize=True)["data"])

    def close(self):
        """End it, and all that it has started."""
        try:
            with contextlib.suppress(OSError, AssertionError):
                self._session = None
                self.ask("Browser.close")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ANSWERS_WITHIN / 4)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(ANSWERS_WITHIN)
            os.close(self._orders)
            os.close(self._answers)


@pytest.fixture
def browser(nothing_left, tmp_path_factory):
    """A browser that knows nothing and is gone after the test, before it is looked at what the test has left."""
    opened = Browser(tmp_path_factory.mktemp("browser"))
    try:
        yield opened
    finally:
        opened.close()
