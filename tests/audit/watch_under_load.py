"""How `armed watch` does beside a server at work: is every recovery reported and none invented, and what does it cost?

    python tests/audit/watch_under_load.py BINDIR [SECONDS [DEATHS [PAIRS]]]

It is no test, for it takes minutes, and what it measures means something on a quiet machine only. First `pgbench -C`,
which connects anew for each transaction, runs for SECONDS (60), while DEATHS (20) backends leave raw; what was reported
is compared with the server's log. Then the throughput of a run in PAIRS (60) of seconds, of which the watch looks in
one and is stopped in the other, in random order: whatever else the machine does falls on both. Exit status 1 where a
recovery is missing or invented, or something impossible is reported.
"""

import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress

import psycopg

from armed_conformance.postgres.cluster import LIMIT, Cluster

CLIENTS = 8
TARGET = 0.97
REINITIALIZING = "all server processes terminated; reinitializing"


def pgbench(cluster, *options, **more):
    program = cluster.bindir / "pgbench"
    if not program.exists():
        program = shutil.which("pgbench") or "/usr/lib/postgresql/15/bin/pgbench"
    environment = {**os.environ, "PGHOST": cluster.socket_directory, "PGUSER": "postgres", "PGDATABASE": "postgres"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True, **more}
    return subprocess.Popen([program, *options], env=environment, **pipes)


def processor_time(pid):
    """Return the seconds of processor time that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def watching(cluster, log):
    command = [sys.executable, "-m", "armed_audit", "watch", str(cluster.data), "--json"]
    with open(log, "w") as file:
        process = subprocess.Popen([*command, "--changes"], stdout=file)
    until = time.monotonic() + LIMIT
    while not os.path.getsize(log):
        assert time.monotonic() < until, "it does not begin"
        assert process.poll() is None, "it has ended"
        time.sleep(0.01)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()  # not SIGINT: what a script runs in the background ignores that
        process.wait(LIMIT)


def deaths(cluster, seconds, wanted, log):
    """Run load and deaths side by side; return the deaths and the summary."""
    library = cluster.library("_exit(0)")
    begun, done = time.monotonic(), 0
    load = None
    with watching(cluster, log):
        while time.monotonic() - begun < seconds:
            if load is None or load.poll() is not None:  # it gives up at each crash
                if load is not None:
                    load.communicate()
                load = pgbench(cluster, "-n", "-S", "-C", "-c", str(CLIENTS), "-T", str(int(seconds) + 1))
            if done < wanted and time.monotonic() - begun > (done + 0.5) * seconds / wanted:
                with suppress(psycopg.OperationalError):
                    connection = cluster.connect()
                    with connection, suppress(psycopg.OperationalError):
                        done += 1
                        connection.execute(f"LOAD '{library}'")
            time.sleep(0.02)
        load.terminate()
        load.communicate()
        until = time.monotonic() + LIMIT
        while True:  # the last recovery is over
            with suppress(psycopg.OperationalError), cluster.connect():
                break
            assert time.monotonic() < until
            time.sleep(0.02)
        time.sleep(0.5)  # and some looks are over
    with open(log) as file:
        events = [json.loads(line) for line in file]
    return done, events


def throughput(cluster, pairs, log):
    """Return transactions in each pair of seconds, watched and not, and what share of a core the watch used."""
    order = [watched for _ in range(pairs) for watched in random.sample([True, False], 2)]
    figures = {True: [], False: []}
    options = ("-n", "-S", "-C", "-c", str(CLIENTS), "-P", "1", "-T", str(len(order) + 5))
    with watching(cluster, log) as watch:
        load = pgbench(cluster, *options, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        told = map(re.compile(r"progress: \S+ s, (\S+) tps").match, load.stderr)
        seconds = (float(each[1]) for each in told if each)
        next(seconds)
        before = processor_time(watch)
        for watched in order:
            os.kill(watch, signal.SIGCONT if watched else signal.SIGSTOP)
            figures[watched].append(next(seconds))
        used = processor_time(watch) - before
        load.terminate()
        load.communicate()
    return figures[True], figures[False], used / pairs


def main():
    bindir, *rest = sys.argv[1:]
    seconds, wanted, pairs = [int(each) for each in rest] + [60, 20, 60][len(rest) :]
    with Cluster(bindir) as cluster, tempfile.TemporaryDirectory() as folder:
        cluster.start()
        log = f"{folder}/log"
        pgbench(cluster, "-i", "-q").communicate()
        done, events = deaths(cluster, seconds, wanted, log)
        recovered, summary = cluster.log.count(REINITIALIZING), events[-1]
        reported = sum(each["event"] == "recovery" for each in events)
        certain = sum(each["event"] == "armed_exit" and each["certain"] for each in events)
        print(f"PostgreSQL {cluster.version}: {done} raw deaths in {seconds} s, {recovered} recoveries in its log")
        print(f"reported: {reported} recoveries; {certain} armed exits were seen as such; {json.dumps(summary)}")
        if pairs:
            watched, alone, share = throughput(cluster, pairs, log)
            one, other = statistics.median(watched), statistics.median(alone)
            paired = statistics.median(one / other for one, other in zip(watched, alone, strict=True))
            print(f"{pairs} pairs: {one:.0f} transactions/s watched, {other:.0f} not: {one / other:.3f} x;")
            print(f"median of the pairs' ratios {paired:.3f} x; to be reached {TARGET};")
            print(f"the watch used {100 * share:.1f} % of a core")
    return 0 if reported == recovered == done and not summary["impossible"] else 1


if __name__ == "__main__":
    sys.exit(main())
