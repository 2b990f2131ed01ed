"""The command that checks a journal: exit statuses, what it prints, JSON."""

import io
import json
import os
import subprocess
import sys

import pytest

from armed import Supervisor

LIMIT = 120


def armed(*arguments):
    command = [sys.executable, "-m", "armed_audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


@pytest.fixture(scope="module")
def lines():
    def crash(me, shared):
        with me.engage():
            os._exit(0)

    journal = io.StringIO()
    with Supervisor(slots=2, journal=journal) as sup:
        sup.start(crash)
        sup.run(20)
    return journal.getvalue().splitlines(keepends=True)


@pytest.fixture
def journal(tmp_path, lines):
    def write(lines=lines):
        file = tmp_path / "journal.jsonl"
        file.write_text("".join(lines))
        return file

    return write


def test_a_behaviour_is_accepted_with_status_0(journal):
    ran = armed("check-trace", journal())
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "a behaviour of reference: 8 lines, 1 supervisor." in ran.stdout


def test_what_is_none_is_shown_with_its_line_the_reason_and_what_could_have_come(journal, lines):
    ran = armed("check-trace", journal(lines[:2] + lines[3:]))
    assert ran.returncode == 1
    assert "no behaviour of reference: 2 lines are, but not line 3." in ran.stdout
    assert lines[3].strip() in ran.stdout
    assert "stopping: no crash was told just before" in ran.stdout
    assert "crashed, worker child" in ran.stdout


def test_the_result_is_written_as_json(journal, lines):
    found = json.loads(armed("check-trace", journal(lines[:-1]), "--json").stdout)
    assert (found["accepted"], found["lines"], found["seen"], found["profile"]) == (False, 7, "", "reference")
    assert [line.partition(":")[0] for line in found["allowed"]] == ["stopping", "closed"]
    assert armed("check-trace", journal(lines[:-1]), "--unfinished").returncode == 0


def test_the_profile_and_the_environment_count(journal):
    assert armed("check-trace", journal(), "--profile", "no-dead-man-switch").returncode == 1
    assert armed("check-trace", journal(), "--environment", "calm").returncode == 0


@pytest.mark.parametrize("content", ["", "no journal\n", '{"event": "clo', "\udcff\n"])
def test_a_file_that_is_no_journal_is_rejected_and_said_why(tmp_path, content):
    file = tmp_path / "other"
    file.write_bytes(content.encode(errors="surrogateescape"))
    ran = armed("check-trace", file)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "opened: a supervisor begins" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing"], "cannot read missing: No such file or directory"),
        (["."], "cannot read .: Is a directory"),
        ([".", "--profile", "7.4"], "no profile '7.4'"),
        ([".", "--environment", "+orphan"], "no environment '+orphan' here: give one of calm, +stray"),
    ],
)
def test_a_call_that_is_off_is_refused_with_status_2_and_one_line(arguments, said):
    ran = armed("check-trace", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
