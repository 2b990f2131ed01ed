"""Evidence of two profiles and a control, and a real browser to look at it.

The browser is driven by its DevTools protocol through two pipes: no port, no library, nothing left behind.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections import deque

import pytest

from armed_audit.verify import USUAL, Part, Verification
from armed_model.profiles import REFERENCE
from armed_model.system import System
from armed_proofs import cvc5_opinion
from armed_proofs.evidence import write_evidence
from armed_proofs.matrix import decide

LIMIT = 60.0  # seconds for any answer of the browser, and for its end
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
        until = time.monotonic() + LIMIT
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
                self._process.wait(LIMIT / 4)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(LIMIT)
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


@pytest.fixture(scope="session")
def matrices():
    """What is really decided of one of PostgreSQL's profiles, of ours, and of a negative control."""
    return decide(["18", "reference", "no-dead-man-switch"])


@pytest.fixture
def verified(matrices):
    """The JSON of a verification whose proofs were run, and whose other parts are of the usual form."""
    run = Verification(USUAL, strict=False, seed=7, matrices=matrices, seconds=1.0)
    run.parts = [
        Part("proofs", "decided", counts={"proved": 1}, seconds=0.5),
        Part("cvc5", "a second solver", counts={"obligations": 1}),
        Part("TLC", "a second opinion", not_run="Java is missing"),
        Part("conformance", "compared", counts={"histories": 2, "deaths": {"SIGKILL": 3}}, notes=["a <note>"],
             tables={"cells": {"serving, idle": {"SIGKILL": 3, "return": 0}}}),
    ]  # fmt: skip
    return json.loads(json.dumps(run.as_json()))


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A directory with the queries of one small system, written down and answered by two solvers."""
    folder = tmp_path_factory.mktemp("texts")
    write_evidence(folder, [System(REFERENCE, "+orphan")], ask=cvc5_opinion.ask, versions=["cvc5 x"], jobs=1)
    return folder


@pytest.fixture
def evidence(verified, texts, tmp_path):
    """An evidence directory."""
    folder = tmp_path / "evidence"
    shutil.copytree(texts, folder)
    (folder / "verify.json").write_text(json.dumps(verified))
    return folder
