"""Processes that work for a command end with it, whatever ends it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from armed_proofs import processes
from armed_proofs.processes import workers

LIMIT = 60


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_ends_who_works_for_somebody_at_once(error):
    def interrupted():
        with workers(2) as pool:
            for _ in range(4):
                pool.submit(time.sleep, 300)
            raise error

    began = time.monotonic()
    with pytest.raises(error):
        interrupted()
    assert time.monotonic() - began < 100


def test_a_program_says_how_it_ended_and_what_it_wrote(tmp_path):
    code = "import os, sys; print(os.getcwd()); print('told', file=sys.stderr); sys.exit(3)"
    status, output = processes.run([sys.executable, "-c", code], str(tmp_path), LIMIT)
    assert (status, sorted(output.split())) == (3, sorted([str(tmp_path), "told"]))


def test_a_program_that_takes_too_long_is_ended(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(["sleep", "300"], str(tmp_path), 0.1)


@pytest.mark.parametrize("at", ["when it is begun", "later"])
def test_ctrl_c_ends_a_program_whenever_it_comes(at, tmp_path, monkeypatch):
    begun = subprocess.Popen

    def interrupted(*arguments, **options):
        process = begun(*arguments, **options)
        os.kill(os.getpid(), signal.SIGINT)  # before anybody has it
        return process

    if at == "when it is begun":
        monkeypatch.setattr(subprocess, "Popen", interrupted)
    else:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
    with pytest.raises(KeyboardInterrupt):
        processes.run(["sleep", "300"], str(tmp_path), LIMIT)
    if at == "later":
        timer.join()


def test_a_program_ends_with_who_has_begun_it(tmp_path):
    code = f"from armed_proofs import processes; processes.run(['sleep', '300'], {str(tmp_path)!r}, 300)"
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
    until = time.monotonic() + LIMIT
    found = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")
    while not (children := found.read_text().split()) or "sleep" not in Path(f"/proc/{children[0]}/comm").read_text():
        assert time.monotonic() < until
    supervisor.kill()
    supervisor.wait()
    while Path(f"/proc/{children[0]}").exists() and Path(f"/proc/{children[0]}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < until  # who has adopted it may not have reaped it
        time.sleep(0.01)
