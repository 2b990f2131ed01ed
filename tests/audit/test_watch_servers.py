"""`armed watch` on real servers: looks taken by hand, in order, and the command itself."""

import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from contextlib import ExitStack, suppress
from fcntl import ioctl
from pathlib import Path

import psycopg
import pytest

from armed_audit import watch
from armed_audit.watch import EventKind, Looker, happened
from armed_conformance.postgres import memory
from armed_conformance.postgres.cluster import LIMIT, Cluster
from armed_model.lifecycle import SlotState

COMMAND = [sys.executable, "-m", "armed_audit", "watch"]
SMALL = {"max_connections": 4, "superuser_reserved_connections": 0, "max_wal_senders": 2, "max_worker_processes": 1}


@pytest.fixture
def cluster(bindir):
    with Cluster(bindir, **SMALL) as cluster:
        cluster.start()
        yield cluster


class Watched:
    """A cluster that is looked at when a test says so."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.looker = Looker(cluster.data)
        self.last = self.looker.look()
        self.events = []

    def look(self):
        """Look once; return what happened since the look before."""
        now = self.looker.look()
        events, self.last = list(happened(self.last, now)), now
        self.events += events
        return events

    def until(self, wanted):
        """Look until something is so."""
        end = time.monotonic() + LIMIT
        while not wanted(self):
            log = self.cluster.log.splitlines()[-12:]
            assert time.monotonic() < end, f"not seen in time; {self.events}; the log ends with {log}"
            self.look()

    def told(self, kind):
        return [event for event in self.events if event.kind is kind]

    def child_of(self, connection):
        (child,) = [each for each in self.last.children.values() if each.pid == connection.info.backend_pid]
        return child


@pytest.fixture
def watched(cluster):
    watched = Watched(cluster)
    # What has just been started may be on its way yet.
    watched.until(lambda seen: all(each.kind != watch.STARTING for each in seen.last.children.values()))
    yield watched
    watched.looker.close()


def leave_raw(cluster, connection, how="_exit(0)"):
    with pytest.raises(psycopg.OperationalError):
        connection.execute(f"LOAD '{cluster.library(how)}'")
    connection.close()


def test_each_child_is_known_by_its_kind_and_owns_its_slot(cluster, watched):
    with cluster.connect() as client, cluster.connect(replication="database") as sender:
        watched.look()
        children = watched.last.children.values()
        assert len(children) >= 6
        for child in children:
            assert child.kind in watch.KINDS[cluster.major]
            if child.kind not in ("client backend", "background worker"):
                assert child.title.startswith(child.kind), child
        assert watched.child_of(client).kind == "client backend"
        assert watched.child_of(sender).kind == "walsender"
        owners = {slot: held.child for slot, held in watched.last.slots.items()}
        with_a_slot = [each for each in children if cluster.major >= 18 or each.kind in watch.WITH_A_SLOT_TO_17]
        assert sorted(each.pid for each in owners.values()) == sorted(each.pid for each in with_a_slot)
        assert all(child.slot == slot for slot, child in owners.items())
        for each in with_a_slot:
            assert each.state is (SlotState.WALSENDER if each.kind == "walsender" else SlotState.ACTIVE)


def test_a_walsender_that_streams_says_so(cluster, watched):
    receiver = subprocess.Popen(
        [cluster.bindir / "pg_receivewal", "-h", cluster.socket_directory, "-U", "postgres", "-D", cluster.directory],
        stderr=subprocess.DEVNULL,
    )
    try:
        watched.until(lambda seen: any(held.flag == 3 for held in seen.last.slots.values()))
        (held,) = [held for held in watched.last.slots.values() if held.flag == 3]
        assert held.child.kind == "walsender"
    finally:
        receiver.kill()
        receiver.wait(LIMIT)
    changes = [EventKind.CHANGE, EventKind.IMPOSSIBLE]
    watched.until(lambda seen: any(event.data.get("to") == "unused" for event in seen.events if event.kind in changes))
    assert not watched.told(EventKind.IMPOSSIBLE)


def test_an_orderly_end_is_no_armed_exit(cluster, watched):
    client = cluster.connect()
    watched.look()
    child = watched.child_of(client)
    client.close()
    watched.until(lambda seen: seen.told(EventKind.ENDED))
    assert [event.data["pid"] for event in watched.told(EventKind.ENDED)] == [child.pid]
    assert not {EventKind.ARMED_EXIT, EventKind.CRASH, EventKind.IMPOSSIBLE} & {event.kind for event in watched.events}
    end = [event for event in watched.told(EventKind.CHANGE) if event.data["to"] == "unused"]
    assert end[-1].data["slot"] == child.slot
    assert end[-1].data["steps"][-1] == "release"


@pytest.mark.parametrize(("how", "status"), [("_exit(0)", 0), ("raise(SIGKILL)", -9)])
def test_an_armed_exit_is_seen_with_its_status_before_it_is_reaped(cluster, watched, how, status):
    client = cluster.connect()
    watched.look()
    child = watched.child_of(client)
    with cluster.stopped():
        leave_raw(cluster, client, how)
        watched.until(lambda seen: seen.told(EventKind.ARMED_EXIT))
        (event,) = watched.told(EventKind.ARMED_EXIT)
        assert event.data["certain"]
        (who,) = event.data["of"]
        assert (who["pid"], who["slot"], who["state"], who["status"]) == (child.pid, child.slot, "active", status)
        watched.look()
        assert len(watched.told(EventKind.ARMED_EXIT)) == 1, "it is told once"
        assert not watched.told(EventKind.CRASH), "nobody has decided yet"
    watched.until(lambda seen: seen.told(EventKind.RECOVERY))
    watched.look()
    assert len(watched.told(EventKind.CRASH)) == len(watched.told(EventKind.RECOVERY)) == 1
    assert len(watched.told(EventKind.ARMED_EXIT)) == 1, "the others were stopped"
    assert not watched.told(EventKind.IMPOSSIBLE)


def test_a_crash_is_seen_while_it_is_handled(cluster, watched):
    """One child is kept from leaving, so that the server has to wait."""
    client, stuck = cluster.connect(), cluster.connect()
    watched.look()
    pid, other = client.info.backend_pid, stuck.info.backend_pid
    os.kill(other, signal.SIGSTOP)
    try:
        leave_raw(cluster, client)
        watched.until(lambda seen: seen.told(EventKind.ARMED_EXIT) and seen.told(EventKind.CRASH))
        assert len(watched.told(EventKind.CRASH)) == 1
        assert not watched.told(EventKind.RECOVERY)
        assert watched.last.quitting
        (event,) = watched.told(EventKind.ARMED_EXIT)
        assert pid in [each["pid"] for each in event.data["of"]]
        assert other not in [each["pid"] for each in event.data["of"]]
    finally:
        with suppress(ProcessLookupError):
            os.kill(other, signal.SIGCONT)
    watched.until(lambda seen: seen.told(EventKind.RECOVERY))
    watched.look()
    assert other in [event.data["pid"] for event in watched.told(EventKind.STOPPED)]
    assert len(watched.told(EventKind.ARMED_EXIT)) == len(watched.told(EventKind.CRASH)) == 1
    stuck.close()


def test_a_raw_exit_of_a_child_that_no_look_saw_is_a_crash_and_a_recovery(cluster, watched):
    leave_raw(cluster, cluster.connect())
    watched.until(lambda seen: seen.told(EventKind.RECOVERY))
    assert len(watched.told(EventKind.CRASH)) == 1
    with suppress(psycopg.OperationalError):
        cluster.connect().close()
    watched.until(lambda seen: any(each.kind == "checkpointer" for each in seen.last.children.values()))
    assert len(watched.told(EventKind.RECOVERY)) == 1
    assert not watched.told(EventKind.IMPOSSIBLE)


def test_who_was_listed_just_before_the_memory_was_made_anew_is_not_forgotten(cluster, watched, monkeypatch):
    client = cluster.connect()
    watched.look()
    child = watched.child_of(client)
    server = watched.looker.server
    listed, processes = [server.processes()], server.processes
    leave_raw(cluster, client)
    generation, end = watched.looker._generation, time.monotonic() + LIMIT
    while True:
        assert time.monotonic() < end, "the memory is not made anew"
        with suppress(memory.BeingMadeAnew):
            if server.generation() != generation:
                break
    monkeypatch.setattr(server, "processes", lambda known=(): listed.pop() if listed else processes(known))
    watched.until(lambda seen: seen.told(EventKind.ARMED_EXIT))
    (event,) = watched.told(EventKind.ARMED_EXIT)
    assert child.pid in [each["pid"] for each in event.data["of"]]


def test_after_a_recovery_the_servers_own_processes_have_no_slot_of_another_child(cluster, watched):
    """In 15 to 17 they are forked with the number that was given out last, and that number is given out again."""
    leave_raw(cluster, cluster.connect())
    watched.until(lambda seen: seen.told(EventKind.RECOVERY))
    end = time.monotonic() + LIMIT
    while True:
        with suppress(psycopg.OperationalError):
            client = cluster.connect()
            break
        assert time.monotonic() < end, "the server does not come back"
    with client:
        anew = Looker(cluster.data)  # it has seen nothing of what came before
        look = anew.look()
        anew.close()
        (child,) = [each for each in look.children.values() if each.pid == client.info.backend_pid]
        assert child.slot
        assert look.slots[child.slot].child == child
        for held in look.slots.values():
            assert cluster.major >= 18 or held.child.kind in watch.WITH_A_SLOT_TO_17


def test_a_client_that_waits_and_one_that_is_told_no_are_told_apart(cluster, watched):
    """A dead-end child of 15 to 17 has an old slot number, which is another child's."""
    with ExitStack() as sockets:
        for _ in range(watched.looker.server.slots + 3):
            each = sockets.enter_context(socket.socket(socket.AF_UNIX))
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(LIMIT), 0))
            each.connect(cluster.socket)
        before = watched.last.children.keys()
        waiting = watched.looker.server.slots + 3
        watched.until(lambda seen: len(seen.last.children.keys() - before) == waiting)
        watched.look()
        new = [child for name, child in watched.last.children.items() if name not in before]
        assigned = [child for child in new if child.slot]
        assert 0 < len(assigned) < len(new)
        assert {child.state for child in assigned} == {SlotState.ASSIGNED}
        assert len({child.slot for child in assigned}) == len(assigned)
        assert all(held.child is not None for held in watched.last.slots.values())
    # Each is gone, whose slot is used again by a child of which a dead-end one has the number.
    watched.until(lambda seen: seen.last.children.keys() == before)
    assert not watched.told(EventKind.IMPOSSIBLE)


@pytest.mark.parametrize(("value", "state"), [(77, "foreign"), (0, "unused")])
def test_a_flag_that_is_scribbled_over_is_reported_as_impossible(cluster, watched, value, state):
    with cluster.connect() as client:
        watched.look()
        child = watched.child_of(client)
        scribble(watched.looker.server, child.slot, value)
        (event,) = watched.look()
        assert event.kind is EventKind.IMPOSSIBLE
        assert (event.data["slot"], event.data["pid"], event.data["to"]) == (child.slot, child.pid, state)
        scribble(watched.looker.server, child.slot, 2)
        watched.look()


def test_a_walsender_that_turns_back_is_reported_as_impossible(cluster, watched):
    with cluster.connect(replication="database") as sender:
        watched.look()
        child = watched.child_of(sender)
        assert child.state is SlotState.WALSENDER
        scribble(watched.looker.server, child.slot, 2)
        (event,) = watched.look()
        assert event.kind is EventKind.IMPOSSIBLE
        assert (event.data["from"], event.data["to"]) == ("walsender", "active")


def scribble(server, slot, value):
    file = os.open(f"/proc/{server.postmaster}/mem", os.O_WRONLY)
    os.pwrite(file, struct.pack("=i", value), server.address_of(slot))
    os.close(file)


def test_the_watch_has_the_memory_open_for_reading_alone(watched):
    path, found = f"/proc/{watched.looker.server.postmaster}/mem", 0
    for each in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{each}") == path:
                flags = re.search(r"flags:\s+(\d+)", Path(f"/proc/self/fdinfo/{each}").read_text())[1]
                assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY
                found += 1
    assert found == 1


def test_a_living_child_that_the_systems_list_lacks_is_not_taken_for_gone(cluster, watched, monkeypatch):
    """Proc(5): the list may lack a child while another one ends."""
    with cluster.connect() as client:
        watched.look()
        listed = memory._children
        monkeypatch.setattr(memory, "_children", lambda pid: set(listed(pid)) - {client.info.backend_pid})
        assert watched.look() == []
        assert watched.child_of(client).pid == client.info.backend_pid


# --- The command -----------------------------------------------------------------------------------------------------


class Command:
    """`armed watch`, running."""

    def __init__(self, cluster, *options, **more):
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        self.process = subprocess.Popen([*COMMAND, str(cluster.data), *options], **more)
        self.said = b""

    def line(self):
        while b"\n" not in self.said:
            assert select.select([self.process.stdout], [], [], LIMIT)[0], "it said nothing in time"
            self.said += os.read(self.process.stdout.fileno(), 1 << 16) or pytest.fail("it has ended")
        line, _, self.said = self.said.partition(b"\n")
        return line.decode()

    def rest(self):
        said, complained = self.process.communicate(timeout=LIMIT)
        return (self.said + said).decode(), complained.decode(), self.process.returncode


@pytest.fixture
def command(cluster):
    running = []

    def command(*options, **more):
        running.append(Command(cluster, *options, **more))
        return running[-1]

    yield command
    for each in running:
        each.process.kill()
        each.process.communicate(timeout=LIMIT)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_log_has_one_object_a_line(cluster, command, end):
    client = cluster.connect()
    watching = command("--json", "--interval", "0.02")
    first = json.loads(watching.line())
    assert (first["event"], first["postmaster"], first["version"]) == ("watching", cluster.postmaster, cluster.major)
    leave_raw(cluster, client)
    lines = [first]
    while lines[-1]["event"] != "armed_exit" or "recovery" not in {each["event"] for each in lines}:
        lines.append(json.loads(watching.line()))
    watching.process.send_signal(end)
    said, complained, status = watching.rest()
    lines += map(json.loads, said.splitlines())
    assert (complained, status) == ("", 0)
    assert [each["event"] for each in lines].count("recovery") == lines[-1]["recoveries"] == 1
    assert lines[-1]["event"] == "summary"
    assert lines[-1]["armed_exits"] == lines[-1]["crashes"] == 1
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", each["time"]) for each in lines)


def test_it_ends_by_itself_with_a_summary(command):
    said, complained, status = command("--for", "0.3", "--interval", "0.02").rest()
    assert (complained, status) == ("", 0)
    first, last = said.splitlines()
    assert "watching PostgreSQL" in first
    looks = re.search(r"summary: looks ([\d,]+), changes 0, missed steps 0.* impossible 0", last)
    assert int(looks[1]) >= 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_the_servers_end_is_told_and_ends_it(cluster, command, how):
    watching = command("--json")
    watching.line()
    cluster.stop(how)
    said, complained, status = watching.rest()
    lines = [json.loads(each) for each in said.splitlines()]
    assert (complained, status) == ("", 0)
    assert [each["event"] for each in lines] == ["server_ended", "summary"]


def test_a_server_that_does_not_restart_after_a_crash_ends_it(cluster, command):
    with cluster.connect() as client:
        client.execute("ALTER SYSTEM SET restart_after_crash = off")
        client.execute("SELECT pg_reload_conf()")
    client = cluster.connect()
    watching = command("--json")
    watching.line()
    leave_raw(cluster, client)
    said, complained, status = watching.rest()
    assert (complained, status) == ("", 0)
    events = [json.loads(each)["event"] for each in said.splitlines()]
    assert events[-2:] == ["server_ended", "summary"]
    assert "recovery" not in events


def test_something_impossible_is_its_exit_status(cluster, command):
    watching = command("--json", "--interval", "0.02")
    watching.line()
    server = memory.Server(cluster.postmaster)
    scribble(server, 2, 77)
    server.close()
    line = json.loads(watching.line())
    assert (line["event"], line["slot"], line["value"]) == ("impossible", 2, 77)
    watching.process.send_signal(signal.SIGINT)
    assert watching.rest()[2] == 1


def test_on_a_terminal_it_is_a_live_table_of_its_width(cluster, command):
    here, there = pty.openpty()
    ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    client = cluster.connect()
    watching = command("--for", "1", stdout=there, stderr=there, env={**environment, "TERM": "xterm"})
    os.close(there)
    shown = b""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and select.select([here], [], [], LIMIT)[0]:
        try:
            shown += os.read(here, 1 << 16)
        except OSError:  # nobody has it open any more
            break
    os.close(here)
    row = f"{client.info.backend_pid} client backend"
    client.close()
    assert watching.process.wait(LIMIT) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "\x1b[" in shown.decode()
    assert row.replace(" ", "") in text.replace(" ", "")
    assert max(len(line) for line in re.split(r"[\r\n]+", text)) <= 80
    assert "summary: looks" in text


def test_the_file_of_the_log_beside_the_lines(command, tmp_path):
    file = tmp_path / "log.json"
    said, _, status = command("--for", "0", "--json", str(file)).rest()
    assert status == 0
    assert "watching PostgreSQL" in said
    assert [json.loads(line)["event"] for line in file.read_text().splitlines()] == ["watching", "summary"]


# --- What cannot be watched ------------------------------------------------------------------------------------------


def refused(*call, **options):
    ran = subprocess.run([*COMMAND, *map(str, call)], capture_output=True, text=True, timeout=LIMIT, **options)
    assert ran.returncode == 2, ran.stdout
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert ran.stderr.startswith("armed: ")
    return ran.stderr


def test_a_data_directory_without_a_server_is_refused(bindir):
    with Cluster(bindir) as cluster:
        assert "no server runs on it" in refused(cluster.data)
        (cluster.data / "postmaster.pid").write_text("4194305\n")
        assert "the server has ended" in refused(cluster.data)
        (cluster.data / "postmaster.pid").write_text(f"{os.getpid()}\n")
        assert "does not work there" in refused(cluster.data)
        (cluster.data / "postmaster.pid").write_text("garbage\n")
        assert "the server has ended" in refused(cluster.data)


def test_what_is_no_data_directory_is_refused(tmp_path):
    assert "it is no data directory" in refused(tmp_path)
    assert "is no directory" in refused(tmp_path / "nowhere")


def test_an_unknown_release_is_refused(cluster):
    (cluster.data / "PG_VERSION").write_text("14\n")
    assert "is PostgreSQL 14: known are 15, 16, 17, 18" in refused(cluster.data)


# CI is root, so that it runs there.
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: only root can be somebody else")
@pytest.mark.parametrize("mode", [0o700, 0o755], ids=["not even the pid", "the pid, but not the memory"])
def test_somebody_else_is_told_who_may(cluster, mode):
    cluster.data.chmod(mode)
    (cluster.data / "postmaster.pid").chmod(0o644)
    code = (  # the program may be where nobody can read it: it is loaded before
        "import os, sys\n"
        "from armed_audit import cli, watch\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    watch.Looker(watch.Path(sys.argv[1]))\n"
        "except watch.CannotLook as error:\n"
        "    print(error)\n"
    )
    call = [sys.executable, "-c", code, str(cluster.data)]
    ran = subprocess.run(call, capture_output=True, text=True, timeout=LIMIT, check=False)
    cluster.data.chmod(0o700)
    assert ran.stderr == ""
    assert re.fullmatch(r".*be root, or the server's own user.*\n", ran.stdout)


def test_a_layout_that_does_not_add_up_is_refused(cluster):
    """The number of slots stands before them: with another one, nothing fits."""
    server = memory.Server(cluster.postmaster)
    file = os.open(f"/proc/{cluster.postmaster}/mem", os.O_WRONLY)
    at = server.address_of(1) - 4
    os.pwrite(file, struct.pack("=i", server.slots + 1), at)
    try:
        assert "unknown layout" in refused(cluster.data)
    finally:
        os.pwrite(file, struct.pack("=i", server.slots), at)
        os.close(file)
        server.close()


def test_flags_that_look_like_a_length_are_not_taken_for_one(cluster):
    """The last slot but two is the third to be given out, in 15 to 17: active is 2, and two slots follow."""
    server = memory.Server(cluster.postmaster)
    found, last_but_two = server.slots, server.flags()[-3]
    scribble(server, found - 2, 2)
    try:
        server.find()
        assert server.slots == found
    finally:
        scribble(server, found - 2, last_but_two)
        server.close()


def test_without_the_extra_it_names_the_pip_command(tmp_path):
    code = "import sys; sys.modules['elftools'] = None\nfrom armed_audit.cli import run\nsys.exit(run(sys.argv[1:]))"
    call = [sys.executable, "-c", code, "watch", str(tmp_path)]
    ran = subprocess.run(call, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ran.returncode == 2
    assert ran.stderr == "armed: elftools is not installed; do: pip install 'armed[postgres]'\n"
