"""How `armed watch` does beside a server at work: is every recovery reported and none invented, and what does it cost?

    python tests/audit/watch_under_load.py BINDIR [SECONDS [DEATHS [ROUNDS]]]

It is no test, for it takes minutes, and what it measures means something on a quiet machine only. First `pgbench -C`,
which connects anew for each transaction, runs for SECONDS (60), while DEATHS (20) backends leave raw; what was reported
is compared with the server's log. Then the throughput of ROUNDS (16) pairs of short runs, one watched and one not, in
random order. Exit status 1 where a recovery is missing or invented, or something impossible is reported.
"""

import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress

import psycopg

from armed_conformance.postgres.cluster import LIMIT, Cluster

CLIENTS = 8
RUN = 4  # seconds of one run of a pair
TARGET = 0.97
REINITIALIZING = "all server processes terminated; reinitializing"


def pgbench(cluster, *options, **more):
    program = cluster.bindir / "pgbench"
    if not program.exists():
        program = shutil.which("pgbench") or "/usr/lib/postgresql/15/bin/pgbench"
    environment = {**os.environ, "PGHOST": cluster.socket_directory, "PGUSER": "postgres", "PGDATABASE": "postgres"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen([program, *options], env=environment, **pipes, **more)


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
    begun, before = time.monotonic(), processor_time(process.pid)
    used = []
    try:
        yield used
    finally:
        used.append((processor_time(process.pid) - before) / (time.monotonic() - begun))
        process.send_signal(2)
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


def throughput(cluster, rounds, log):
    """Return transactions per second, watched and not, and what share of a core the watch used."""
    figures, shares = {True: [], False: []}, []
    for number in range(rounds):
        for watched in random.sample([True, False], 2):
            options = ("-n", "-S", "-C", "-c", str(CLIENTS), "-T", str(RUN))
            if watched:
                with watching(cluster, log) as used:
                    said = pgbench(cluster, *options).communicate()[0]
                shares += used
            else:
                said = pgbench(cluster, *options).communicate()[0]
            figures[watched].append(float(re.search(r"tps = ([\d.]+)", said)[1]))
        print(f"  pair {number + 1}: {figures[True][-1]:.0f} {figures[False][-1]:.0f}", file=sys.stderr)
    return figures[True], figures[False], shares


def main():
    bindir, *rest = sys.argv[1:]
    seconds, wanted, rounds = [int(each) for each in rest] + [60, 20, 16][len(rest) :]
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
        if rounds:
            watched, alone, shares = throughput(cluster, rounds, log)
            one, other = statistics.median(watched), statistics.median(alone)
            pairs = statistics.median(one / other for one, other in zip(watched, alone, strict=True))
            print(f"{rounds} pairs of {RUN} s: {one:.0f} transactions/s watched, {other:.0f} not: {one / other:.3f} x;")
            print(f"median of the pairs' ratios {pairs:.3f} x; to be reached {TARGET}")
            print(f"the watch used {100 * statistics.median(shares):.1f} % of a core")
    return 0 if reported == recovered == done and not summary["impossible"] else 1


if __name__ == "__main__":
    sys.exit(main())
