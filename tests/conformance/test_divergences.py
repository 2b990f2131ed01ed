"""What the model predicts of PostgreSQL and nobody had shown: each refuted cell of 15 and 18, on real servers.

Each test is a section of docs/divergences.md, and asserts what was seen there, on every server: where the profiles
differ, the one is the other's control. Servers that are found are 15, or (ARMED_POSTGRES) 16, 17 and 18.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from armed_conformance.postgres.cluster import LIMIT, Cluster, profile_of, version_of
from armed_conformance.postgres.memory import Exit, Server
from armed_conformance.postgres.strikes import debugger, log_hook, until, write_flag

UNUSED, ASSIGNED, ACTIVE = 0, 1, 2
FEW = {"max_connections": 3, "superuser_reserved_connections": 0, "max_wal_senders": 0, "wal_level": "minimal"}
SYNCED = {"fsync": "on", "recovery_init_sync_method": "syncfs"}
READY = "database system is ready to accept connections"
NEXT_PID = Path("/proc/sys/kernel/ns_last_pid")


# --- What the tests share --------------------------------------------------------------------------------------------


@contextmanager
def running(bindir, **settings):
    """A throw-away server, and a look into it."""
    with Cluster(bindir, **settings) as cluster:
        cluster.start()
        server = Server(cluster.postmaster)
        try:
            yield cluster, server
        finally:
            server.close()


def not_run(reason):
    """Say why a test cannot be run here; under ARMED_STRICT=1 that is a failure."""
    if os.environ.get("ARMED_STRICT") == "1":
        pytest.fail(f"NOT RUN: {reason}", pytrace=False)
    pytest.skip(f"NOT RUN: {reason}")  # counted and said; `.ci/run` is strict, so there it cannot come to this


def needs_gdb():
    if shutil.which("gdb") is None:
        not_run("no gdb: install it")


def pids(server):
    return {child.pid for child in server.children()}


def reaped(server, pid):
    until(lambda: pid not in pids(server), f"process {pid} is reaped")


def resets(cluster):
    return cluster.log.count("all server processes terminated; reinitializing")


def recovered(cluster, times=1):
    """Wait until the server has made its memory anew, and serves again."""
    until(lambda: resets(cluster) == times and cluster.log.count(READY) == times + 1, "the server has recovered")


def dies_raw(cluster, session, code="_exit(0)"):
    """End a session's backend raw, by a library that it loads."""
    with session, pytest.raises(psycopg.OperationalError):
        session.execute(f"LOAD '{cluster.library(code)}'")


def refused(cluster):
    """What a client is told who gets no session."""
    with pytest.raises(psycopg.OperationalError) as told:
        cluster.connect()
    return str(told.value)


def serves(cluster):
    with cluster.connect() as session:
        return session.execute("SELECT 1").fetchone() == (1,)


def listed(session, pid):
    """Whether pg_stat_activity has a row for a process."""
    return bool(session.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall())


def state_of_process(pid):
    """The letter of proc(5): T is stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


# --- Positive controls -----------------------------------------------------------------------------------------------


def test_a_backend_that_ends_armed_with_status_0_starts_recovery(bindir):
    with running(bindir) as (cluster, server):
        session = cluster.connect()
        pid, slot = session.info.backend_pid, server.slot_of(session.info.backend_pid)
        with cluster.stopped():
            dies_raw(cluster, session)
            assert until(lambda: server.exit_of(pid), "the backend is dead") == Exit(pid, 0)
            assert server.flags()[slot - 1] == ACTIVE
        recovered(cluster)
        assert re.search(rf"\(PID {pid}\) exited with exit code 0", cluster.log)


# --- Auxiliary processes ---------------------------------------------------------------------------------------------


def archiver_that_stops(cluster, server):
    """Wait for an archiver whose archive_library stops it as it is loaded, and return its pid."""
    return until(
        lambda: next(
            (each.pid for each in server.children() if "archiver" in each.title and state_of_process(each.pid) == "T"),
            None,
        ),
        "an archiver that has stopped itself",
        2 * LIMIT,
    )


def end_of_the_archiver(cluster, server):
    """Let it go on, to its end, and return its pid, its slot (0: none) and the slot's flag when it was dead."""
    pid = archiver_that_stops(cluster, server)
    slot = server.slot_of(pid)
    with cluster.stopped():
        os.kill(pid, signal.SIGCONT)
        assert until(lambda: server.exit_of(pid), "the archiver is dead") == Exit(pid, 0)
        flag = server.flags()[slot - 1] if slot else None
    reaped(server, pid)
    return pid, slot, flag


@contextmanager
def archiving(bindir, code):
    """A server whose archive_library stops the archiver as it is loaded, then runs code."""
    with Cluster(bindir, archive_mode="on") as cluster:
        cluster.start(archive_library=str(cluster.library(f"raise(SIGSTOP); {code}")))
        server = Server(cluster.postmaster)
        try:
            yield cluster, server
        finally:
            server.close()


def test_an_archiver_that_ends_raw_with_status_0_is_passed_over(bindir):
    with archiving(bindir, "_exit(0)") as (cluster, server):
        pid, slot, flag = end_of_the_archiver(cluster, server)
        if profile_of(bindir).name == "18":
            assert flag == ACTIVE  # armed: armed_exit_triggers_recovery, armed_exit_leads_to_restart
            assert server.flags()[slot - 1] == UNUSED
        else:
            assert slot == 0
        with cluster.connect() as session:
            assert listed(session, pid)  # it is not there any more
        assert resets(cluster) == 0


PROC_ARRAY_LOCK = "extern char LWLockAcquire(void *, int), *MainLWLockArray; LWLockAcquire(MainLWLockArray + 512, 0)"


def test_a_lock_that_an_archiver_dies_holding_is_held_for_ever(bindir):
    with archiving(bindir, f"{PROC_ARRAY_LOCK}; _exit(0)") as (cluster, server):
        end_of_the_archiver(cluster, server)
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            cluster.connect(connect_timeout=3)
        assert resets(cluster) == 0


def test_a_lock_that_a_backend_dies_holding_is_made_anew(bindir):
    with running(bindir) as (cluster, _):
        dies_raw(cluster, cluster.connect(), f"{PROC_ARRAY_LOCK}; _exit(0)")
        recovered(cluster)
        assert serves(cluster)


def another_archiver(cluster, server):
    """Wait until the postmaster has started another archiver, and return whether there was a place for it."""

    def look():
        assert serves(cluster)  # a client that comes makes the postmaster look
        full = "FATAL:  all AuxiliaryProcs are in use" in cluster.log
        return full or any("archiver" in child.title for child in server.children())

    until(look, "another archiver", 2 * LIMIT)  # one in ten seconds is started
    return "FATAL:  all AuxiliaryProcs are in use" not in cluster.log


def test_archivers_that_end_raw_use_up_the_places_of_auxiliary_processes(bindir):
    # C10 no longer holds: foreign code runs in auxiliary processes
    places = {15: 2, 16: 2, 17: 3}  # besides those of checkpointer, background writer and walwriter
    with archiving(bindir, "_exit(0)") as (cluster, server):
        if cluster.major in places:
            for _ in range(places[cluster.major] - 1):
                end_of_the_archiver(cluster, server)
                assert another_archiver(cluster, server)
            end_of_the_archiver(cluster, server)
            assert not another_archiver(cluster, server)  # until the server is started anew, there is none
        else:  # 38 places: at one archiver in ten seconds that takes minutes
            first, *_ = end_of_the_archiver(cluster, server)
            assert another_archiver(cluster, server)
            with cluster.connect() as session:
                assert listed(session, first)
        assert resets(cluster) == 0


# --- Backends: between the take and what undoes it -------------------------------------------------------------------


AFTER_THE_TAKE = ["break InitProcess", "continue", "break PGSemaphoreReset", "continue"]
A_SEMAPHORE_FAILS = [  # sem_trywait says EAGAIN as it should: we make it EINVAL, and the server reports what it does
    *AFTER_THE_TAKE,
    "break __errno_location",
    "continue",
    "finish",
    "set var *(int *) $rax = 22",
    "delete",
    "continue",
]


def strike(cluster, *commands):
    """Have the debugger follow the backend of the next client through commands; return what the client is told."""
    with debugger(cluster.postmaster, "set follow-fork-mode child", *commands):
        return refused(cluster)


def test_who_ends_between_take_and_arm_is_lost(bindir):
    """To 17. In 18 the same place, after the arming, is decided a crash."""
    needs_gdb()
    with running(bindir, **FEW) as (cluster, server):
        if profile_of(bindir).name == "18":
            strike(cluster, *AFTER_THE_TAKE, "call (void) _exit(0)")
            recovered(cluster)
            return
        for _ in range(3):
            strike(cluster, "break MarkPostmasterChildActive", "continue", "call (void) _exit(0)")
        assert "sorry, too many clients already" in refused(cluster)
        until(lambda: not any("postgres postgres" in child.title for child in server.children()), "nobody is there")
        assert resets(cluster) == 0


def test_a_fatal_error_between_take_and_hook_loses_the_place_of_a_backend(bindir):
    """In 18. To 17 it is decided a crash, since the hook that gives back is the one that disarms."""
    needs_gdb()
    with running(bindir, **FEW) as (cluster, server):
        if profile_of(bindir).name != "18":
            assert "FATAL:  sem_trywait failed" in strike(cluster, *A_SEMAPHORE_FAILS)
            recovered(cluster)
            return
        for _ in range(3):
            assert "FATAL:  sem_trywait failed" in strike(cluster, *A_SEMAPHORE_FAILS)
        assert "sorry, too many clients already" in refused(cluster)
        until(lambda: not any("postgres postgres" in child.title for child in server.children()), "nobody is there")
        assert resets(cluster) == 0


def test_an_orderly_exit_between_arming_and_its_hook_alarms(bindir):
    """In 18. To 17 such an exit holds its PGPROC: it is to alarm."""
    needs_gdb()
    arms = "RegisterPostmasterChildActive" if profile_of(bindir).name == "18" else "MarkPostmasterChildActive"
    with running(bindir) as (cluster, _):
        strike(cluster, f"break {arms}", "continue", "break on_shmem_exit", "continue", "call (void) proc_exit(1)")
        recovered(cluster)
        assert re.search(r"\(PID \d+\) exited with exit code 1", cluster.log)


# --- A process forked by a child -------------------------------------------------------------------------------------

FORKS = """if (level >= 22 && fork() == 0) {
    char byte;
    sigset_t none;
    sigemptyset(&none);
    signal(SIGALRM, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, 0);
    alarm(60);
    FILE *said = fopen("DATA/grandchild", "w");
    fprintf(said, "%d.", getpid());
    fclose(said);
    if (read(open("FIFO", O_RDONLY), &byte, 1) >= 0) exit(0);
}"""


def test_a_fork_in_a_log_hook_disarms_whoever_has_the_slot_then(bindir):
    """In 18. To 17 nothing is registered yet where a client is told that there are too many."""
    with Cluster(bindir, **{**FEW, "max_connections": 2}) as cluster:
        fifo = cluster.directory / "fifo"
        os.mkfifo(fifo)
        fifo.chmod(0o644)
        library, switch = log_hook(cluster, FORKS.replace("DATA", str(cluster.data)).replace("FIFO", str(fifo)))
        cluster.start(shared_preload_libraries=str(library))
        server = Server(cluster.postmaster)
        gate = os.open(fifo, os.O_RDWR)
        try:
            a_fork_disarms(cluster, server, switch, gate, profile_of(bindir).name == "18")
        finally:
            os.close(gate)
            server.close()


def a_fork_disarms(cluster, server, switch, gate, disarms):
    first, second = cluster.connect(), cluster.connect()
    pid_of_the_first = first.info.backend_pid
    used = sum(map(bool, server.flags()))
    switch.touch()
    assert "sorry, too many clients already" in refused(cluster)
    switch.unlink()
    said = cluster.data / "grandchild"
    grandchild = int(until(lambda: said.exists() and said.read_text().endswith(".") and said.read_text(), "it")[:-1])
    until(lambda: sum(map(bool, server.flags())) == used, "its parent is reaped")
    slot = server.slot_of(grandchild)  # its parent's

    first.close()
    reaped(server, pid_of_the_first)
    clients = []
    victim = cluster.connect()  # there is a PGPROC again; slots are given out in another order in each version
    while disarms and server.slot_of(victim.info.backend_pid) != slot:
        pid = victim.info.backend_pid
        victim.close()
        reaped(server, pid)
        clients.append(socket.socket(socket.AF_UNIX))  # who says nothing has a slot, and no PGPROC
        clients[-1].connect(cluster.socket)
        victim = cluster.connect()
        assert len(clients) < 4
    pid = victim.info.backend_pid
    its = server.slot_of(pid)
    assert server.flags()[its - 1] == ACTIVE

    os.write(gate, b"!")
    until(lambda: not Path(f"/proc/{grandchild}").exists() or state_of_process(grandchild) == "Z", "the fork is gone")
    assert server.flags()[its - 1] == (ASSIGNED if disarms else ACTIVE)
    dies_raw(cluster, victim)
    if disarms:
        reaped(server, pid)
        assert listed(second, pid)  # it is not there any more, and nobody noticed
        assert resets(cluster) == 0
    else:
        recovered(cluster)
    for client in clients:
        client.close()
    second.close()


# --- Stray writes ----------------------------------------------------------------------------------------------------


def test_a_stray_write_over_a_free_flag_ends_the_postmaster_of_18_alone(bindir):
    with running(bindir) as (cluster, server):
        session = cluster.connect()
        for slot, flag in enumerate(server.flags(), 1):
            if flag == UNUSED:
                write_flag(server, slot, ACTIVE)
        if profile_of(bindir).name == "18":
            refused(cluster)
            until(lambda: not cluster.runs, "the postmaster has ended")
            assert f"[{cluster.postmaster}] FATAL:  postmaster child slot is already in use" in cluster.log
            until(lambda: "terminating connection due to unexpected postmaster exit" in cluster.log, "it is noticed")
        else:
            assert serves(cluster)
            assert session.execute("SELECT 1").fetchone() == (1,)
        session.close()


def test_a_stray_write_of_assigned_hides_an_armed_exit(bindir):
    with running(bindir) as (cluster, server):
        other, session = cluster.connect(), cluster.connect()
        pid = session.info.backend_pid
        slot = server.slot_of(pid)
        assert server.flags()[slot - 1] == ACTIVE
        write_flag(server, slot, ASSIGNED)
        dies_raw(cluster, session)
        reaped(server, pid)
        assert listed(other, pid)  # it is not there any more, and nobody noticed
        assert resets(cluster) == 0
        other.close()


# --- After the reset -------------------------------------------------------------------------------------------------


def crash_until_startup_is_held(cluster, server):
    """Crash the server until its start-up process is stopped between reset and redo, and return that process.

    It is stopped while it has the files synced (syncfs), or somewhat later: then it is let go, and crashed anew.
    """
    for _ in range(20):
        served, late = cluster.log.count(READY), cluster.log.count("automatic recovery in progress")
        dies_raw(cluster, cluster.connect())
        startup = until(
            lambda served=served: next((child.pid for child in server.children() if child.title == "startup"), None)
            or cluster.log.count(READY) > served,
            "a start-up process, or its end",
        )
        if startup is not True:
            with suppress(ProcessLookupError):
                os.kill(startup, signal.SIGSTOP)
                until(lambda startup=startup: state_of_process(startup) in ("T", "Z", ""), "it is stopped")
            if state_of_process(startup) == "T" and cluster.log.count("automatic recovery in progress") == late:
                return startup
            with suppress(ProcessLookupError):
                os.kill(startup, signal.SIGCONT)
        until(lambda served=served: cluster.log.count(READY) > served, "service")
    raise TimeoutError("in 20 crashes the start-up process was never stopped before redo")


CLOCK = "issuing SIGKILL to recalcitrant children"


def crash_after_reset(cluster, server, title, held_until=lambda: True):
    """Kill an auxiliary process between reset and redo, let start-up go on; return how many resets follow."""
    startup = crash_until_startup_is_held(cluster, server)
    before, served = resets(cluster), cluster.log.count(READY)
    killed = until(
        lambda: next((child.pid for child in server.children() if child.title.startswith(title)), None), title
    )
    os.kill(killed, signal.SIGKILL)
    reaped(server, killed)
    assert startup in pids(server)  # nobody else is stopped
    until(held_until, "what start-up is held for")
    with suppress(ProcessLookupError):
        os.kill(startup, signal.SIGCONT)
    until(lambda: cluster.log.count(READY) > served, "service")
    assert serves(cluster)
    return resets(cluster) - before


def test_a_crash_between_reset_and_redo_stops_nobody(bindir):
    with running(bindir, **SYNCED) as (cluster, server):
        assert crash_after_reset(cluster, server, "background writer") == 0
        assert CLOCK not in cluster.log


def test_after_such_a_crash_a_clock_ends_start_up_to_17(bindir):
    """The clock that profile 15 has, and 18 has not."""
    clock = profile_of(bindir).name != "18"
    with running(bindir, **SYNCED) as (cluster, server):
        end = time.monotonic() + 15  # long enough to see that there is no clock of five seconds
        held_until = (lambda: CLOCK in cluster.log) if clock else (lambda: time.monotonic() > end)
        assert crash_after_reset(cluster, server, "background writer", held_until) == int(clock)
        assert (CLOCK in cluster.log) == clock


def test_to_17_a_checkpointer_that_is_killed_then_is_waited_for_until_the_clock_ends_it(bindir):
    replaced = profile_of(bindir).name == "18" or version_of(bindir)[1] == "16.11"  # an older minor; not so in 16.14
    with running(bindir, **SYNCED) as (cluster, server):
        assert crash_after_reset(cluster, server, "checkpointer") == (0 if replaced else 1)
        assert (CLOCK in cluster.log) == (not replaced)


# --- Cancel requests -------------------------------------------------------------------------------------------------


def session_with_a_key(cluster):
    """Open a session by hand; return its socket, and the pid and key that a cancel request must name."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(LIMIT)
    client.connect(cluster.socket)
    hello = struct.pack("!i", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
    client.sendall(struct.pack("!i", 4 + len(hello)) + hello)
    said = b""
    while not said.endswith(b"Z\0\0\0\5I"):
        said += client.recv(4096)
    return client, *struct.unpack_from("!ii", said, said.index(b"K\0\0\0\f") + 5)


def bye(server, client, pid):
    """End such a session."""
    client.sendall(b"X\0\0\0\4")
    client.close()
    reaped(server, pid)


def session_of_process(cluster, pid):
    """Open sessions until one has a process of this number."""
    if not os.access(NEXT_PID, os.W_OK) or os.geteuid() != 0:
        not_run(f"only root may write {NEXT_PID}: nobody waits until all other numbers were used")
    for _ in range(1000):
        NEXT_PID.write_text(str(pid - 1))
        session = cluster.connect()
        if session.info.backend_pid == pid:
            return session
        session.close()
    raise TimeoutError(f"in 1000 attempts no backend got number {pid}")


@contextmanager
def waiting_for_a_lock(cluster, session):
    """Let a session wait for a lock; yields what gives it, and what tells how the wait has ended."""
    ends = []

    def wait():
        try:
            ends.append(session.execute("SELECT 'given' FROM pg_advisory_lock(1)").fetchone()[0])
        except psycopg.Error as error:
            ends.append(str(error))

    with cluster.connect() as holder, session:
        holder.execute("SELECT pg_advisory_lock(1)")
        thread = threading.Thread(target=wait)
        thread.start()
        waits = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        until(lambda: holder.execute(waits, [session.info.backend_pid]).fetchall(), "the session waits")

        def end():
            thread.join(LIMIT)
            return ends[0]

        yield lambda: holder.execute("SELECT pg_advisory_unlock(1)"), end
        holder.execute("SELECT pg_advisory_unlock(1)")
        thread.join(LIMIT)


def request_to_cancel(client, pid, key):
    client.sendall(struct.pack("!iiii", 16, 80877102, pid, key))


def test_a_cancel_request_may_be_as_old_as_its_connection(bindir):
    """To 17: the process that serves it looks in the list that it was forked with. 18 looks in shared memory."""
    with running(bindir) as (cluster, server):
        client, pid, key = session_with_a_key(cluster)
        before = pids(server)
        late = socket.socket(socket.AF_UNIX)
        late.settimeout(LIMIT)
        late.connect(cluster.socket)
        until(lambda: pids(server) - before, "somebody to serve the request")
        bye(server, client, pid)
        with waiting_for_a_lock(cluster, session_of_process(cluster, pid)) as (give, end):
            request_to_cancel(late, pid, key)  # of the session before, which has ended
            assert late.recv(1) == b""  # it was served
            if profile_of(bindir).name == "18":
                give()
                assert end() == "given"
            else:
                assert end() == "canceling statement due to user request"
        late.close()


WAITS = """if (strcmp(function, "FUNCTION") == 0) {
    char byte;
    fclose(fopen("DATA/matched", "w"));
    (void) !read(open("FIFO", O_RDONLY), &byte, 1);
}"""


def test_a_cancel_request_that_matched_reaches_who_has_the_pid_now(bindir):
    with Cluster(bindir, log_min_messages="debug2") as cluster:
        fifo = cluster.directory / "fifo"
        os.mkfifo(fifo)
        fifo.chmod(0o644)
        function = "SendCancelRequest" if profile_of(bindir).name == "18" else "processCancelRequest"
        code = WAITS.replace("FUNCTION", function).replace("DATA", str(cluster.data)).replace("FIFO", str(fifo))
        library, switch = log_hook(cluster, code)
        switch.touch()
        cluster.start(shared_preload_libraries=str(library))
        gate = os.open(fifo, os.O_RDWR)
        server = Server(cluster.postmaster)
        try:
            client, pid, key = session_with_a_key(cluster)
            with socket.socket(socket.AF_UNIX) as request:
                request.settimeout(LIMIT)
                request.connect(cluster.socket)
                request_to_cancel(request, pid, key)
                until(lambda: (cluster.data / "matched").exists(), "pid and key have matched")
                bye(server, client, pid)
                with waiting_for_a_lock(cluster, session_of_process(cluster, pid)) as (_, end):
                    os.write(gate, b"!")
                    assert end() == "canceling statement due to user request"
        finally:
            os.close(gate)
            server.close()
