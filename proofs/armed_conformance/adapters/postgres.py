"""Adapter for real PostgreSQL servers: real sessions, held to the profile of their release.

The postmaster is stopped (SIGSTOP) but for the moments in which it is to act: to start a child, to deal with deaths, to
end. So a child that has died stays a zombie, and its exit status and its flag are *measured* before the postmaster has
seen either. What the postmaster decided is read from its log, and seen by the sessions that live: after a crash each of
them is ended, after a clean death each still answers.

A child is started by a client that connects and sends nothing: it has a slot, and has not armed. SERVE logs in.
Walwriter and background writer are the auxiliary children that are followed. In 18 the slots shown are those of the
pool for clients, and then those two's.
"""

from __future__ import annotations

import atexit
import os
import re
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn

from armed_conformance.postgres.cluster import PORT, USER, Cluster, NoServer, compiler, profile_of
from armed_conformance.postgres.memory import CannotLook, Exit, Server, state_of
from armed_conformance.postgres.strikes import until, write_flag
from armed_conformance.protocol import (
    Cannot,
    Circumstance,
    Death,
    Decided,
    ExitKind,
    Observation,
    Possible,
    Refused,
    Step,
)
from armed_model.lifecycle import SlotState
from armed_model.profiles import Kind

LIMIT: Final = 20.0
"""Seconds in which the server must have done what is waited for; SIGKILL for who is stuck comes after 5."""

PATIENCE_OF_CLIENTS: Final = 1.0
"""Seconds that a client keeps silent which a recovery may wait for."""

MAX_CONNECTIONS: Final = 4
MAX_WAL_SENDERS: Final = 1
SETTINGS: Final[Mapping[str, str | int]] = {
    "max_connections": MAX_CONNECTIONS,
    "max_wal_senders": MAX_WAL_SENDERS,
    "wal_level": "replica",
    "superuser_reserved_connections": 0,
    "max_worker_processes": 0,
    "max_logical_replication_workers": 0,
    "log_min_messages": "debug2",  # else the log has no word of a harmless exit
}
FOLLOWED: Final = ("background writer", "walwriter")
"""The auxiliary children that are followed, by their titles: both leave, with status 0, when SIGTERM asks them to."""

FOREIGN_VALUE: Final = 77

CAN: Final = frozenset(
    {
        Step.SERVE,
        Step.STREAM,
        Step.SCRIBBLE,
        Step.FREEZE,
        *ExitKind,
        Circumstance.FORK_FAILS,
        Circumstance.PATIENCE_ENDS,
    }
)
_BY_A_LIBRARY: Final = {
    ExitKind.SYS_EXIT_0: "exit(0)",
    ExitKind.SYS_EXIT_1: "exit(1)",
    ExitKind.SYS_EXIT_2: "exit(2)",
    ExitKind.SYS_EXIT_3: "exit(3)",
    ExitKind.RAW_EXIT_0: "_exit(0)",
    ExitKind.RAW_EXIT_1: "_exit(1)",
    ExitKind.RAW_EXIT_2: "_exit(2)",
    ExitKind.RAW_EXIT_3: "_exit(3)",
}
"""What a library does, as it is loaded, in a backend that is to end so: libc's exit runs the exit hooks, _exit none."""
_SIGNALS: Final = {
    ExitKind.SIGTERM: signal.SIGTERM,
    ExitKind.SIGKILL: signal.SIGKILL,
    ExitKind.SIGSEGV: signal.SIGSEGV,
}
_EXITED: Final = re.compile(
    r"\] (LOG|DEBUG): +.*\(PID (\d+)\) (?:exited with exit code (\d+)|was terminated by signal (\d+))"
)
_CRASH: Final = "terminating any other active server processes"
_RESET: Final = "all server processes terminated; reinitializing"
_READY: Final = "database system is ready to accept connections"
_FORKED: Final = re.compile(r"\] DEBUG: +forked new .*pid=(\d+)")
_TOO_MANY_CONNECTIONS: Final = "53300"
_CANNOT_CONNECT_NOW: Final = "57P03"  # the server starts up, recovers, or shuts down
_CRASH_SHUTDOWN: Final = "57P02"
_PROTOCOL_3, _PROTOCOL_9 = 3 << 16, 9 << 16


@dataclass(eq=False)
class _Session:
    """A child of the postmaster, and the client's side of it."""

    pid: int
    slot: int
    pgconn: PGconn | None = None  # None: an auxiliary child, which has no client
    session: psycopg.Connection[Any] | None = None  # once it has logged in
    wire: socket.socket | None = None  # where the protocol is spoken by hand
    title: str = ""
    refusal: str = ""  # why it is a dead-end child, as SQLSTATE
    pgproc: int = 0  # where its PGPROC is in shared memory; 0: it has taken none
    frozen: bool = False
    died: Exit | None = None  # measured while the postmaster was stopped
    reaped: bool = False
    was_asked: bool = False  # after its end, what the server's last word was

    @property
    def is_dead_end(self) -> bool:
        return self.pgconn is not None and self.slot == 0

    @property
    def is_walsender(self) -> bool:
        return self.wire is not None and self.pgproc != 0

    @property
    def serves(self) -> bool:
        return self.session is not None or self.is_walsender

    def close(self) -> None:
        if self.wire is not None:
            self.wire.close()
        if self.session is not None:
            self.session.close()
        elif self.pgconn is not None:
            self.pgconn.finish()


@dataclass
class _Log:
    """What the postmaster has said and was not read yet, and what follows from all of it."""

    cluster: Cluster
    position: int
    rest: str = ""
    crashes: int = 0
    resets: int = 0
    ready: int = 0
    forked: list[int] = field(default_factory=list)
    exits: list[tuple[int, int, bool]] = field(default_factory=list)  # pid, status, whether it was called a crash

    def read(self) -> None:
        text = self.cluster.log_since(self.position)
        whole, newline, _ = text.rpartition("\n")
        self.position += len((whole + newline).encode(errors="replace"))
        for line in whole.splitlines():
            if found := _FORKED.search(line):
                self.forked.append(int(found[1]))
            elif found := _EXITED.search(line):
                status = int(found[3]) if found[3] else -int(found[4])
                self._exited(int(found[2]), status, is_crash=found[1] == "LOG")
            self.crashes += _CRASH in line
            self.resets += _RESET in line
            self.ready += _READY in line

    def _exited(self, pid: int, status: int, *, is_crash: bool) -> None:
        if self.exits and self.exits[-1][:2] == (pid, status):
            self.exits.pop()  # to 17 a crash is told twice: at DEBUG2 as any exit, then as what it is
        self.exits.append((pid, status, is_crash))


class Postgres:
    """A PostgreSQL server under test. The postmaster acts only inside `open`, `start`, `supervise` and the end."""

    cannot: frozenset[Possible] = frozenset({*Step, *ExitKind, *Circumstance}) - CAN

    def __init__(self, bindir: str | os.PathLike[str]) -> None:
        """Hold the programs in `bindir` to the profile of their release. Raises NoServer."""
        self.profile = profile_of(bindir)
        self._bindir = Path(bindir)
        self._children: dict[int, _Session] = {}
        self._deaths: list[Death] = []
        self._arranged: set[Circumstance] = set()
        self._recovering = False
        self._immediate = False
        self._by_turns = cycle((True, False))  # where one thing can be brought about in two ways
        self._looking_since = 0.0
        self._stopped = True
        self._begun = False
        self._server: Server | None = None
        self._shown: dict[int, int] = {}  # what is shown as slot n -> which slot of the server that is

    # The protocol ----------------------------------------------------------------------------------------------------

    def open(self, slots: int) -> int:
        """Start the server. It has the slots that it has. Raises NoServer."""
        compiler()  # before anything is begun
        self._cluster = _cluster(self._bindir)
        self._begun = True
        self._log = _Log(self._cluster, len(self._cluster.log.encode(errors="replace")))
        self._cluster.start()
        self._stopped = False
        try:
            self._server = Server(self._cluster.postmaster)
        except CannotLook as error:
            raise NoServer(str(error)) from None
        self._wait_for("its auxiliary processes are there", self._auxiliaries_are_there)
        self._pause()
        self._log.read()
        self._pid_in_pgproc = self._find_pid_in_pgproc()
        own = sorted(child.slot for child in self._children.values() if child.slot)
        self._for_clients = 2 * (MAX_CONNECTIONS + MAX_WAL_SENDERS) if own else self._server.slots
        self._shown = dict(enumerate([*range(1, self._for_clients + 1), *own], 1))
        return len(self._shown)

    def start(self) -> int:
        """Connect, and send nothing."""
        if any(child.died and not child.reaped for child in self._children.values()):
            self.supervise()
        living = [child for child in self._children.values() if not child.reaped]
        if self._recovering and all(child.is_dead_end or child.is_walsender for child in living):
            raise Cannot("start: the server lets nobody in until its dead-end children and walsenders have left")
        before, forked = self._memory.flags(), len(self._log.forked)
        failing = Circumstance.FORK_FAILS in self._arranged
        if failing:
            self._cluster.let_fork(False)
        self._go_on()
        pgconn = pq.PGconn.connect_start(_conninfo(self._cluster))
        try:
            self._wait_for("a child, or a word why not", lambda: len(self._log.forked) > forked or _is_readable(pgconn))
        finally:
            self._pause()
            if failing:
                self._cluster.let_fork(True)
        if len(self._log.forked) == forked:
            said = os.read(pgconn.socket, 1000).decode(errors="replace").strip("\0\n E")
            pgconn.finish()
            self._arranged.discard(Circumstance.FORK_FAILS)
            raise Refused(said)
        after = self._memory.flags()
        given = [slot for slot in range(1, self._for_clients + 1) if before[slot - 1] != after[slot - 1]]
        _check(len(given) <= 1, f"one child was started, and the flags of slots {given} have changed")
        number = len(self._children) + 1
        self._children[number] = _Session(self._log.forked[forked], given[0] if given else 0, pgconn)
        self._children[number].refusal = _CANNOT_CONNECT_NOW if self._recovering else _TOO_MANY_CONNECTIONS
        return number

    def step(self, child: int, step: Step) -> None:
        """Have a child's client do something, or somebody do something to the child."""
        session = self._children[child]
        match step:
            case Step.FREEZE:
                os.kill(session.pid, signal.SIGSTOP)
                session.frozen = True
            case Step.SCRIBBLE:
                write_flag(self._memory, session.slot, FOREIGN_VALUE)
            case Step.SERVE | Step.STREAM:
                if session.is_dead_end:
                    raise Refused("a dead-end child does nothing but say no")
                if session.serves:
                    raise Refused("it serves already")
                self._log_in(session, streams=step is Step.STREAM)

    def end(self, child: int, kind: ExitKind) -> None:
        """Have a child end, and measure how."""
        session = self._children[child]
        if session.pgconn is None:
            os.kill(session.pid, {ExitKind.RETURN: signal.SIGTERM, **_SIGNALS}[kind])
        elif kind in _BY_A_LIBRARY:
            if not session.serves:
                raise Cannot(f"{kind} in a child that has not logged in: no library can be loaded there")
            self._load(session, self._cluster.library(_BY_A_LIBRARY[kind]))
        elif kind in _SIGNALS:
            self._signal(session, _SIGNALS[kind])
        elif kind is ExitKind.RETURN:
            session.close()
        else:
            self._end_by_an_error(session)
        self._measure(session)

    def arrange(self, circumstance: Circumstance) -> None:
        """Arrange for what comes next."""
        self._arranged.add(circumstance)

    def supervise(self) -> None:
        """Let the postmaster go on until it has nothing left to do.

        Where a recovery waits for nobody but clients that were told nothing yet, these say what they want, and leave.
        """
        self._looking_since = time.monotonic()
        for child in self._children.values():  # who is still writing an answer is not told why it is ended
            if child.serves and not (child.reaped or child.died or child.frozen):
                until(partial(_waits, child.pid), f"process {child.pid} waits for its client", LIMIT)
        self._go_on()
        try:
            self._wait_for("the server has come to rest", self._is_at_rest)
        finally:
            self._pause()
        self._bystanders_agree()

    def stop_supervisor(self) -> None:
        """Ask for a fast shutdown."""
        if self._stopped:
            return
        living = [child for child in self._children.values() if not child.reaped and child.died is None]
        stuck = [child for child in living if child.frozen]
        if Circumstance.PATIENCE_ENDS not in self._arranged:
            while stuck:
                child = stuck.pop()
                os.kill(child.pid, signal.SIGCONT)
                child.frozen = False
        self._let_clients_speak(living)  # a shutdown waits for one that says nothing
        if stuck:
            os.kill(self._cluster.postmaster, signal.SIGINT)
            self._go_on()
            self._wait_for("the others have left", lambda: self._are_left(stuck))
            self._immediate = True
            self._cluster.stop(signal.SIGQUIT)
        else:
            self._cluster.stop(signal.SIGINT)
        self._stopped = True
        self._log.read()
        self._note_the_reaped(set())

    def _are_left(self, stuck: list[_Session]) -> bool:
        """Whether of all sessions only those are left that are stuck."""
        there = self._settled()
        if there is None:
            return False
        self._note_the_reaped(there)
        return {child.pid for child in self._children.values() if child.pgconn} & there == {each.pid for each in stuck}

    def observe(self) -> Observation:
        """Look, and change nothing."""
        there = {number: child for number, child in self._children.items() if not child.reaped}
        if self._stopped:
            return Observation({}, deaths=tuple(self._deaths), generation=1 + self._log.resets, stopped=True)
        shown = self._shown
        numbers = {slot: number for number, slot in shown.items()}
        flags = self._memory.flags()
        return Observation(
            flags={number: state_of(flags[slot - 1]) for number, slot in shown.items()},
            children={number: numbers.get(child.slot, 0) for number, child in there.items()},
            auxiliary=frozenset(number for number, child in there.items() if child.pgconn is None),
            deaths=tuple(self._deaths),
            generation=1 + self._log.resets,
            resource={number: frozenset({child.pgproc}) for number, child in there.items() if self._holds(child)},
        )

    def close(self) -> None:
        """End everything; the data directory is kept for the next one."""
        try:
            if self._server is not None:
                self._server.close()
            for child in self._children.values():
                if child.frozen and not child.reaped:  # else the server would wait five seconds for it
                    with suppress(ProcessLookupError):
                        os.kill(child.pid, signal.SIGKILL)
            if self._begun and self._cluster.runs:
                self._cluster.stop(signal.SIGQUIT)
        finally:
            for child in self._children.values():
                child.close()
            self._stopped = True

    # The server ------------------------------------------------------------------------------------------------------

    @property
    def _memory(self) -> Server:
        assert self._server is not None
        return self._server

    def _pause(self) -> None:
        """Stop the postmaster where it waits: elsewhere it may sleep afterwards on what it was told before (to 17)."""
        with suppress(TimeoutError):
            until(partial(_waits, self._cluster.postmaster), "the postmaster waits", LIMIT)
        os.kill(self._cluster.postmaster, signal.SIGSTOP)
        until(lambda: _state(self._cluster.postmaster) in "Tt", "the postmaster is stopped", LIMIT)
        self._log.read()

    def _go_on(self) -> None:
        os.kill(self._cluster.postmaster, signal.SIGCONT)

    def _wait_for(self, what: str, is_so: Callable[[], bool]) -> None:
        def read_and_ask() -> bool:
            self._log.read()
            _check(self._cluster.runs, "the postmaster has ended, and nobody asked it to")
            return is_so()

        try:
            until(read_and_ask, what, LIMIT)
        except TimeoutError as error:
            there = ", ".join(f"{each.title or each.pid}{' (dead)' * each.dead}" for each in self._memory.children())
            said = "\n".join(self._cluster.log.splitlines()[-5:])
            raise TimeoutError(f"{error}; there are: {there}; the log ends with:\n{said}") from None

    def _auxiliaries_are_there(self) -> bool:
        """Whether those that are followed have begun, and armed where they do; note those that are new."""
        known = {child.pid for child in self._children.values() if not child.reaped}
        missing = set(FOLLOWED) - {each.title for each in self._children.values() if not each.reaped}
        for process in self._memory.children():
            if process.title in missing and process.pid not in known and not process.dead:
                pgproc = int.from_bytes(self._memory.variable(process.pid, "MyProc", 8), "little")
                slot = self._memory.slot_of(process.pid) if Kind.AUXILIARY in self.profile.with_a_slot else 0
                if pgproc == 0 or (slot and state_of(self._memory.flags()[slot - 1]) is not SlotState.ACTIVE):
                    continue
                missing.discard(process.title)
                session = _Session(process.pid, slot, title=process.title, pgproc=pgproc)
                self._children[len(self._children) + 1] = session
        return not missing

    def _find_pid_in_pgproc(self) -> int:
        """Find where in a PGPROC its process's pid stands: the first place that is right for all that are known."""
        places: set[int] = set(range(0, 512, 4))
        for child in self._children.values():
            pgproc = self._memory.read(child.pgproc, 512)
            places = {at for at in places if int.from_bytes(pgproc[at : at + 4], "little") == child.pid}
        _check(bool(places), "no PGPROC has its process's pid in it")
        return min(places)

    def _holds(self, child: _Session) -> bool:
        """Whether its PGPROC is still its own: it is given back when no pid, or another one, stands there."""
        if child.pgproc == 0:
            return False
        pid = int.from_bytes(self._memory.read(child.pgproc + self._pid_in_pgproc, 4), "little")
        return pid == child.pid

    # Children --------------------------------------------------------------------------------------------------------

    def _log_in(self, session: _Session, *, streams: bool) -> None:
        held = [child for child in self._children.values() if child.pgconn is not None and self._holds(child)]
        if sum(child.wire is None for child in held) >= MAX_CONNECTIONS and not streams:
            raise Cannot("log in: no PGPROC is left for it")
        if sum(child.wire is not None for child in held) >= MAX_WAL_SENDERS and streams:
            raise Cannot("log in as a walsender: no PGPROC is left for it")
        assert session.pgconn is not None
        if streams:
            session.wire = _dup(session.pgconn)
            _say_hello(session.wire, _PROTOCOL_3, user=USER, database="postgres", replication="database")
            _expect(session.wire, b"Z")
        else:
            session.session = _finish_connecting(session.pgconn)
            session.session.execute("select count(*) from pg_class").fetchone()
        session.pgproc = int.from_bytes(self._memory.variable(session.pid, "MyProc", 8), "little")
        told = self._memory.slot_of(session.pid)
        _check(told == session.slot, f"the child says that it has slot {told}, and the flag of {session.slot} changed")

    def _load(self, session: _Session, library: Path) -> None:
        if session.wire is not None:
            _ask(session.wire, f"LOAD '{library}'")
            return
        assert session.session is not None
        with suppress(psycopg.OperationalError):
            session.session.execute(f"LOAD '{library}'".encode())

    def _signal(self, session: _Session, number: signal.Signals) -> None:
        """Send a signal; by turns SIGTERM through somebody else's session."""
        sessions = [each.session for each in self._children.values() if each is not session and _answers(each)]
        others = [each for each in sessions if each is not None]
        by_a_function = number is signal.SIGTERM and session.serves and next(self._by_turns)
        if by_a_function and others:
            others[0].execute("select pg_terminate_backend(%s)", [session.pid])
        else:
            os.kill(session.pid, number)

    def _end_by_an_error(self, session: _Session) -> None:
        """Have it end by a FATAL error: what is to be had at this point, by turns."""
        if session.session is not None:  # it waits for a statement, and not for long
            with suppress(psycopg.OperationalError):
                session.session.execute("set idle_session_timeout = 1")
            return
        if session.wire is not None:
            _ask(session.wire, "set idle_session_timeout = 1")
            return
        assert session.pgconn is not None
        session.wire = _dup(session.pgconn)
        if session.is_dead_end:
            _say_hello(session.wire, _PROTOCOL_3, user=USER, database="postgres")
            said = _code(_expect(session.wire, b"E"))
            _check(said == session.refusal, f"a dead-end child is to say {session.refusal}, and says {said}")
        elif next(self._by_turns) and self._is_assigned(session.slot):
            # It arms, and disarms again: both are blind stores, which would hide that somebody had written there.
            _say_hello(session.wire, _PROTOCOL_3, user="nobody there", database="postgres")
        else:
            _say_hello(session.wire, _PROTOCOL_9, user=USER)

    def _is_assigned(self, slot: int) -> bool:
        return state_of(self._memory.flags()[slot - 1]) is SlotState.ASSIGNED

    def _let_clients_speak(self, living: list[_Session]) -> None:
        """Have dead-end children leave, to whom nobody has spoken yet; the server may be faster."""
        for child in living:
            if child.is_dead_end and child.wire is None and not child.frozen:
                with suppress(OSError):
                    self._end_by_an_error(child)

    def _measure(self, session: _Session) -> None:
        """Wait until a child is a zombie, and read how it has ended."""

        def is_dead() -> bool:
            session.died = self._memory.exit_of(session.pid)
            return session.died is not None

        until(is_dead, f"process {session.pid} has ended", LIMIT)

    # What the server has made of it ----------------------------------------------------------------------------------

    def _settled(self) -> set[int] | None:
        """The pids of the postmaster's children; None as long as it is not through with those that are dead."""
        known = [child.pid for child in self._children.values() if not child.reaped]
        there = {process.pid: process.dead for process in self._memory.processes(known)}
        if any(there.get(pid) for pid in known) or not _waits(self._cluster.postmaster):
            return None
        self._log.read()
        return set(there)

    def _is_at_rest(self) -> bool:
        resets, ready = self._log.resets, self._log.ready
        there = self._settled()  # after the log was read: who is still there now has outlived what it says
        if there is None:
            return False
        self._note_the_reaped(there)
        if not self._recovering:
            return self._auxiliaries_are_there()
        if resets == self._log.crashes and ready > resets:
            self._memory.find()
            self._recovering = not self._auxiliaries_are_there()
            return not self._recovering
        living = [child for child in self._children.values() if not child.reaped]
        stuck = [child for child in living if child.frozen]
        if not stuck and time.monotonic() > self._looking_since + PATIENCE_OF_CLIENTS:
            self._let_clients_speak(living)  # to 17 a recovery waits for them until authentication_timeout
        held_up = bool(stuck) and all(child.frozen or child.is_dead_end for child in living)
        return held_up and Circumstance.PATIENCE_ENDS not in self._arranged

    def _note_the_reaped(self, there: set[int]) -> None:
        """Note who was reaped, in the order of the log; who is gone without a word comes first if nobody crashed."""
        numbers = {child.pid: number for number, child in self._children.items() if not child.reaped}
        gone = [pid for pid in numbers if pid not in there]
        exits = [each for each in self._log.exits if each[0] in gone]
        self._log.exits = [each for each in self._log.exits if each[0] not in gone]
        told = {pid for pid, _, _ in exits}
        crashed = any(is_crash for _, _, is_crash in exits)
        untold = [pid for pid in gone if pid not in told]
        if not crashed:
            for pid in untold:
                self._reaped(numbers[pid], None, Decided.CLEAN if self._decides else Decided.BOOK_KEEPING)
        for pid, status, is_crash in exits:
            decided = Decided.CRASH if is_crash else Decided.CLEAN
            self._reaped(numbers[pid], status, decided if self._decides else Decided.BOOK_KEEPING)
            self._recovering |= is_crash
        if crashed:
            for pid in untold:
                self._reaped(numbers[pid], None, Decided.BOOK_KEEPING)

    @property
    def _decides(self) -> bool:
        """Whether the postmaster decides about deaths now."""
        return not self._recovering and not self._immediate

    def _reaped(self, number: int, told: int | None, decided: Decided) -> None:
        child = self._children[number]
        child.reaped = True
        status = told
        if child.died is not None:
            status = child.died.status
            _check(told in (None, status), f"the log says status {told} of process {child.pid}; measured was {status}")
        if told is None and decided is Decided.CLEAN:
            _check(bool(child.title), f"process {child.pid} was reaped, and nothing was logged of it")
            status = status or 0  # nothing is logged of an auxiliary child that is taken for clean
        self._deaths.append(Death(number, status, decided))

    def _bystanders_agree(self) -> None:
        """After a crash each session that lived was ended, and told why unless a walsender; else each still answers."""
        for number, child in self._children.items():
            if not child.serves or child.frozen or child.died is not None:
                continue
            if not child.reaped:
                _check(_answers(child), f"child {number} lives, and its session does not answer")
            elif self._deaths_of(number) is Decided.BOOK_KEEPING and not child.was_asked:
                said = _last_words(child)
                why = None if child.is_walsender else _CRASH_SHUTDOWN  # walsenders end without a word
                _check(said == why, f"session {number} was ended in a recovery, and was told {said}")
                child.was_asked = True

    def _deaths_of(self, number: int) -> Decided:
        return next(death.decided for death in self._deaths if death.child == number)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


@cache
def _cluster(bindir: Path) -> Cluster:
    """Make a data directory, once; it is removed when this process ends."""
    cluster = Cluster(bindir, **SETTINGS)
    if cluster.major >= 18:
        cluster.settings["io_method"] = "sync"
    ours = os.getpid()
    atexit.register(lambda: cluster.close() if os.getpid() == ours else None)  # a fork of ours leaves it alone
    return cluster


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _waits(pid: int) -> bool:
    """Whether a process sleeps until it hears of something (Linux: the kernel's function that it sleeps in)."""
    sleeps_in = Path(f"/proc/{pid}/wchan").read_text()
    return "poll" in sleeps_in or "select" in sleeps_in


def _conninfo(cluster: Cluster) -> bytes:
    where = f"host={cluster.socket_directory} port={PORT} user={USER} dbname=postgres"
    return f"{where} sslmode=disable gssencmode=disable".encode()


def _is_readable(pgconn: PGconn) -> bool:
    return bool(select.select([pgconn.socket], [], [], 0)[0])


def _finish_connecting(pgconn: PGconn) -> psycopg.Connection[Any]:
    """Send the startup packet, and go on until the session serves."""
    end = time.monotonic() + LIMIT
    while (state := pgconn.connect_poll()) != pq.PollingStatus.OK:
        if state == pq.PollingStatus.FAILED:
            raise AssertionError(f"no session: {pgconn.error_message.decode(errors='replace')}")
        wanted = [pgconn.socket]
        ready = select.select(
            wanted if state == pq.PollingStatus.READING else [],
            wanted if state == pq.PollingStatus.WRITING else [],
            [],
            max(0, end - time.monotonic()),
        )
        if not any(ready):
            raise TimeoutError(f"no session within {LIMIT:g} s")
    session: psycopg.Connection[Any] = psycopg.Connection(pgconn)
    session.autocommit = True
    return session


def _answers(child: _Session) -> bool:
    if not child.serves or child.frozen or child.died is not None or child.reaped:
        return False
    try:
        if child.session is not None:
            return child.session.execute("select 1").fetchone() == (1,)
        assert child.wire is not None
        _ask(child.wire, "select 1")
        _expect(child.wire, b"Z")
    except (psycopg.OperationalError, OSError):
        return False
    return True


def _last_words(child: _Session) -> str | None:
    """Return the SQLSTATE with which the server has ended an idle session; None where it has said nothing."""
    said = b""
    assert child.pgconn is not None
    with _dup(child.pgconn) as wire, suppress(ConnectionError):
        while more := wire.recv(65536):
            said += more
    return _code(said[5:]) if said else None


# The protocol spoken by hand, where libpq does not let one (src: the manual's chapter on the frontend/backend protocol)


def _dup(pgconn: PGconn) -> socket.socket:
    wire = socket.socket(fileno=os.dup(pgconn.socket))
    wire.settimeout(LIMIT)
    return wire


def _say_hello(wire: socket.socket, protocol: int, **parameters: str) -> None:
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    wire.sendall(struct.pack("!ii", 8 + len(body), protocol) + body)


def _ask(wire: socket.socket, statement: str) -> None:
    body = statement.encode() + b"\0"
    wire.sendall(b"Q" + struct.pack("!i", 4 + len(body)) + body)


def _expect(wire: socket.socket, kind: bytes) -> bytes:
    """Read messages until one of a kind, and return its body."""
    stream = b""
    while True:
        while len(stream) >= 5 and len(stream) > (length := struct.unpack("!i", stream[1:5])[0]):
            if stream[:1] == kind:
                return stream[5 : 1 + length]
            stream = stream[1 + length :]
        more = wire.recv(65536)
        if not more:
            raise ConnectionResetError(f"the server closed a session that waited for {kind!r}; it said {stream!r}")
        stream += more


def _code(error: bytes) -> str:
    """Return the SQLSTATE in the body of an error message."""
    fields = {part[:1]: part[1:] for part in error.split(b"\0") if part}
    return fields[b"C"].decode()
