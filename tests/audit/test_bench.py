"""The benchmarks: each topic gives figures, and says what it has not measured. No test asserts a time."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import util
from pathlib import Path

import pytest

from armed import Supervisor
from armed_audit import bench
from armed_audit.cli import run
from armed_proofs import tlc

LIMIT = 60
SMALLEST = ["--trials", "1", "--memory", "0", "--children", "2", "--peer", "ProcessPoolExecutor"]
FIGURES = ("median", "p10", "p90", "min", "max")


def measured(topic, tmp_path, *options):
    file = tmp_path / "figures.json"
    assert run(["bench", topic, *SMALLEST, *options, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["machine"]["cores"] > 0
    assert list(result["topics"]) == [topic]
    return {(row["case"], row["who"]): row for row in result["topics"][topic]}


def must_be_plausible(row, least=0.0):
    assert row["trials"] > 0
    assert row["not_run"] is None
    assert all(row[name] >= least for name in FIGURES)
    assert row["min"] <= row["p10"] <= row["median"] <= row["p90"] <= row["max"]
    assert least == 0.0 or row["median"] > 0.0


def test_detect_compares_with_the_floor_and_with_peers_also_where_memory_was_touched(tmp_path, capsys):
    rows = measured("detect", tmp_path, "--memory", "64")
    for who in ("pidfd", "armed", "ProcessPoolExecutor"):
        must_be_plausible(rows["0 MB touched", who], least=1e-6)
        must_be_plausible(rows["64 MB touched", who], least=1e-6)
        assert rows["256 MB touched", who]["not_run"] == "left out by --memory 64"
        assert "median" not in rows["256 MB touched", who]
    ratios = rows["0 MB touched", "armed"]["ratios"]
    assert [(each["to"], each["target"]) for each in ratios] == [("pidfd", 1.15), ("ProcessPoolExecutor", 0.6)]
    assert all(each["met"] is (each["value"] <= each["target"]) for each in ratios)
    late = rows["0 MB touched", "armed, no early warning"]
    with Supervisor() as supervisor:
        available = supervisor.early_warning
    if available == "on":
        must_be_plausible(late, least=1e-6)
    else:
        assert late["not_run"] == f"the same, early warning is {available}"
    assert "armed bench detect" in capsys.readouterr().out


def test_a_peer_that_is_not_there_is_said_to_be_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "find_spec", lambda name: None if name == "loky" else util.find_spec(name))
    row = measured("detect", tmp_path, "--peer", "loky")["0 MB touched", "loky"]
    assert row["trials"] == 0
    assert row["not_run"] == "not installed; do: pip install 'armed[bench]'"
    assert "0 MB touched, loky: not run: not installed; do: pip" in capsys.readouterr().out


@pytest.mark.parametrize("peer", ["loky", "Pebble", "mpire"])  # billiard takes ten seconds
def test_a_peer_that_is_there_is_measured(peer, tmp_path, capsys):
    row = measured("detect", tmp_path, "--peer", peer)["0 MB touched", peer]
    if util.find_spec(bench.PEERS[peer].module) is None:
        assert row["not_run"]
    else:
        must_be_plausible(row, least=1e-6)
    capsys.readouterr()


def test_engage_is_compared_with_a_lock(tmp_path, capsys):
    rows = measured("engage", tmp_path)
    for row in rows.values():
        must_be_plausible(row, least=1e-6)
    (ratio,) = rows["once", "with me.engage() as hold"]["ratios"]
    assert (ratio["to"], ratio["target"]) == ("with lock", 2.2)
    capsys.readouterr()


def test_slots_compares_a_large_table_with_a_small_one(tmp_path, capsys):
    rows = measured("slots", tmp_path)
    for (case, _), row in rows.items():
        must_be_plausible(row, least=0.0 if case == "memory" else 1e-6)
    (ratio,) = rows["assign + release", "1,000,000 slots"]["ratios"]
    assert (ratio["to"], ratio["target"]) == ("16 slots", 1.2)
    capsys.readouterr()


def test_recover_is_compared_with_kill_wait_and_fork(tmp_path, capsys):
    rows = measured("recover", tmp_path)
    assert len(rows) == 12
    for row in rows.values():
        must_be_plausible(row, least=1e-6)
    ratios = rows["2 children, at work", "armed"]["ratios"]
    assert [(each["to"], each["target"]) for each in ratios] == [
        ("SIGKILL, wait, fork", 1.3), ("the same, one first", None),
    ]  # fmt: skip
    capsys.readouterr()


def test_rest_counts_wake_ups(tmp_path, capsys):
    rows = measured("rest", tmp_path)
    assert {who for _, who in rows} == {"armed", "ProcessPoolExecutor"}
    for row in rows.values():
        must_be_plausible(row)
    assert rows["64 children", "armed"]["ratios"][0]["target"] == 0.0
    capsys.readouterr()


def test_without_a_topic_all_are_measured_and_what_cannot_be_is_said(tmp_path, monkeypatch, capsys):
    def missing(*_):
        raise tlc.Missing("TLC is not here")
        yield

    def one_row(topic):
        return lambda extent, progress: [bench.Row(topic, "once", "armed", "ns", [1.0])]

    monkeypatch.setattr(bench, "TOPICS", {topic: one_row(topic) for topic in bench.TOPICS})
    monkeypatch.setattr(tlc, "second_opinions", missing)
    file = tmp_path / "figures.json"
    assert run(["bench", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert list(result["topics"]) == ["detect", "engage", "slots", "recover", "rest"]
    assert result["not_run"] == {"explore": "TLC is not here"}
    assert "armed bench explore: not run: TLC is not here" in capsys.readouterr().out


def test_a_contender_that_fails_is_out_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def ask(host, do, **order):
        if order["who"] == "armed":
            raise bench.HostFailed("it broke")
        return {"ms": 1.0}

    monkeypatch.setattr(bench.Host, "ask", ask)
    rows = measured("detect", tmp_path, "--trials", "3")
    assert (rows["0 MB touched", "armed"]["trials"], rows["0 MB touched", "armed"]["not_run"]) == (0, "it broke")
    assert rows["0 MB touched", "pidfd"]["trials"] == 3
    capsys.readouterr()


def test_a_host_that_fails_says_why():
    with bench.Arena(["mine"]) as arena, pytest.raises(bench.HostFailed, match="KeyError: 'nonsense'"):
        arena.host("mine").ask("nonsense")
    with bench.Arena(["mine"]) as arena:
        os.kill(arena.host("mine").pid, signal.SIGKILL)
        with pytest.raises(bench.HostFailed, match="has ended"):
            arena.host("mine").ask("engage", rounds=1, loops=1)


def test_a_row_without_floor_has_no_ratio_and_a_ratio_without_target_no_verdict():
    assert bench.Ratio("pidfd", 1.0).is_met is None
    assert bench.Ratio("pidfd", 1.0, 1.0).is_met
    assert not bench.Ratio("pidfd", 1.1, 1.0).is_met
    row = bench.Row("detect", "0 MB touched", "armed", "ms", [3.0, 1.0, 2.0])
    assert (row.quantile(0.1), row.median, row.quantile(0.9)) == (1.0, 2.0, 3.0)


def test_ctrl_c_leaves_no_process_behind(tmp_path):
    call = [sys.executable, "-m", "armed_audit", "bench", "detect", "--trials", "1000", "--memory", "0"]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=in_folder(tmp_path))
    with process:
        until = time.monotonic() + LIMIT
        while len(hosts := sessions_of_children(process.pid)) < 3 or not list(tmp_path.glob("armed-bench-*/stamp")):
            assert time.monotonic() < until
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not any(bench._session(host) for host in hosts)
    assert not list(tmp_path.iterdir())


def in_folder(path):
    return {**os.environ, "TMPDIR": str(path)}


def sessions_of_children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--plot", "figures.pdf"], "ends in .svg or .png"),
        (["--plot", "/proc/nowhere.svg"], "/proc/nowhere.svg"),
        (["--peer", "celery"], "give one of ProcessPoolExecutor"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_work_begins(options, said, monkeypatch, capsys):
    monkeypatch.setattr("armed_audit.cli.find_spec", lambda name: name)
    assert run(["bench", "detect", *options]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_plot_without_matplotlib_is_refused_with_the_pip_command(monkeypatch, capsys):
    monkeypatch.setattr("armed_audit.cli.find_spec", lambda name: None)
    assert run(["bench", "engage", "--plot", "figures.svg"]) == 2
    assert capsys.readouterr().err == "armed: --plot needs matplotlib; do: pip install 'armed[bench]'\n"


def test_a_plot_is_drawn(tmp_path):
    file = tmp_path / "figures.svg"
    call = [sys.executable, "-m", "armed_audit", "bench", "engage", *SMALLEST, "--plot", str(file)]
    subprocess.run(call, check=True, capture_output=True, timeout=LIMIT)  # not in here: it keeps its fonts open
    assert "<svg" in file.read_text()


def test_help_says_that_a_benchmark_is_no_test(capsys):
    assert run(["bench", "--help"]) == 0
    assert "a benchmark is no test" in " ".join(capsys.readouterr().out.split())
