"""Real PostgreSQL servers held to the model; and what a model that is wrong on purpose makes of the same histories."""

import os
import stat
import subprocess
from dataclasses import replace

import pytest

from armed_conformance.adapters.postgres import FOREIGN_VALUE, Postgres
from armed_conformance.histories import (
    ACTIONS_OF_SERVERS,
    NEVER_TAKEN_OF_SERVERS,
    History,
    cells,
    deaths,
    play,
    stories,
)
from armed_conformance.lockstep import Coverage, Lockstep, Mismatch
from armed_conformance.postgres.cluster import PROFILE_OF, Cluster, NoServer, build, profile_of, version_of
from armed_conformance.postgres.memory import CannotLook, Server
from armed_conformance.protocol import Cannot, ExitKind, Step
from armed_conformance.run import UnknownTarget, conform, find
from armed_model.profiles import PROFILES, Decision
from armed_model.system import System

RAW = [kind for kind in ExitKind if not kind.exit.orderly]


def test_a_server_does_what_the_model_of_its_release_does(bindir):
    report = conform(f"postgres:{bindir}", histories=5, seed=5)
    assert report.mismatch is None
    assert report.missing == []
    assert report.passed
    assert report.wanted == len(cells(profile_of(bindir))) == 39
    assert report.cut_short == []
    assert report.left_out == []
    seen = report.coverage
    assert sum(seen.deaths[str(kind)] for kind in RAW) > 20
    assert seen.armed_deaths > 20
    assert seen.recoveries > 10
    assert set(seen.decisions) == {"clean", "crash", "book-keeping"}


def named(profile, name):
    return next(history for history in (*stories(profile), *deaths(profile)) if history.name == name)


@pytest.mark.parametrize(
    ("decision", "name", "expected", "seen"),
    [
        (Decision.STATUS, "_exit(0) while serving, engaged, holding 1", "clean", "crash"),
        (Decision.STATUS, "a foreign word while starting", "clean", "crash"),
        (Decision.SLOT, "sys.exit(2) while serving, engaged, holding 1", "clean", "crash"),
        (Decision.SLOT, "SIGKILL while starting, idle, holding 0", "clean", "crash"),
    ],
)
def test_a_model_with_a_wrong_rule_is_found_out_by_a_server(bindir, decision, name, expected, seen):
    # C1, C2: the switch decides, and not the status alone
    right = profile_of(bindir)
    wrong = replace(right, name=f"{right.name}, wrong: {decision.name}", decision=decision)

    class HeldToAWrongRule(Postgres):
        def __init__(self):
            super().__init__(bindir)
            self.profile = wrong

    with pytest.raises(Mismatch, match=rf"the decision about child \d+ is: {expected}(.|\n)*it was: {seen}"):
        play(named(right, name), HeldToAWrongRule(), Coverage())
    assert play(named(right, name), Postgres(bindir), Coverage()) is None


def test_a_session_that_is_said_to_hold_nothing_is_found_out(bindir):
    class SaysThatSessionsHoldNothing(Postgres):
        def observe(self):
            seen = super().observe()
            return replace(seen, resource={each: seen.resource[each] for each in seen.auxiliary & {*seen.resource}})

    with pytest.raises(Mismatch, match="serve takes one thing"):
        play(named(profile_of(bindir), "clean lives"), SaysThatSessionsHoldNothing(bindir), Coverage())


def test_the_measured_status_of_an_auxiliary_child_counts(bindir):
    class MeasuresAnother(Postgres):
        def _measure(self, session):
            super()._measure(session)
            if session.title:
                session.died = session.died._replace(status=1)

    history = next(each for each in deaths(profile_of(bindir)) if each.name.startswith("return while auxiliary"))
    with pytest.raises(Mismatch, match=r"ended with status 0(.|\n)*status 1 was reported"):
        play(history, MeasuresAnother(bindir), Coverage())


def beside_a_crash(step):
    def story(lockstep):
        bystander, child = lockstep.start(), lockstep.start()
        lockstep.step(bystander, step)
        lockstep.step(child, Step.SERVE)
        lockstep.end(child, ExitKind.RAW_EXIT_0)
        lockstep.supervise()

    return History("beside a crash", 2, story)


@pytest.mark.parametrize("step", [Step.SERVE, Step.STREAM])
def test_who_is_ended_because_of_a_crash_is_told_so_unless_it_is_a_walsender(bindir, step, monkeypatch):
    coverage = Coverage()
    assert play(beside_a_crash(step), Postgres(bindir), coverage) is None
    assert coverage.recoveries == 1
    words = {Step.SERVE: None, Step.STREAM: "57P02"}[step]
    monkeypatch.setattr("armed_conformance.adapters.postgres._last_words", lambda child: words)
    with pytest.raises(Mismatch, match=f"was ended in a recovery, and was told {words}"):
        play(beside_a_crash(step), Postgres(bindir), Coverage())


def test_a_recovery_that_only_a_stuck_walsender_holds_up_lets_nobody_in(bindir):
    def story(lockstep):
        stuck, child = lockstep.start(), lockstep.start()
        lockstep.step(stuck, Step.STREAM)
        lockstep.step(stuck, Step.FREEZE)
        lockstep.step(child, Step.SERVE)
        lockstep.end(child, ExitKind.RAW_EXIT_0)
        lockstep.supervise()
        with pytest.raises(Cannot, match="lets nobody in"):
            lockstep.start()
        lockstep.end(stuck, ExitKind.SIGKILL)
        lockstep.supervise()
        assert lockstep.start() is not None

    coverage = Coverage()
    assert play(History("a stuck walsender", 2, story), Postgres(bindir), coverage) is None
    assert coverage.recoveries == 1


def test_why_a_dead_end_child_says_no_counts(bindir):
    class IsToldOfARecovery(Postgres):
        def start(self):
            number = super().start()
            self._children[number].refusal = "57P03"
            return number

    history = next(each for each in deaths(profile_of(bindir)) if "exception" in each.name and "dead-end" in each.name)
    with pytest.raises(Mismatch, match="a dead-end child is to say 57P03, and says 53300"):
        play(history, IsToldOfARecovery(bindir), Coverage())


@pytest.mark.parametrize("profile", [PROFILES["15"], PROFILES["18"]], ids=lambda each: each.name)
def test_each_action_of_a_servers_profile_is_wanted_or_there_is_a_reason(profile):
    there = {action.name for action in System(profile, "+stray").actions}
    assert there - ACTIONS_OF_SERVERS.keys() <= NEVER_TAKEN_OF_SERVERS.keys()
    assert not ACTIONS_OF_SERVERS.keys() & NEVER_TAKEN_OF_SERVERS.keys()
    both = {action.name for each in ("15", "18") for action in System(PROFILES[each], "+stray").actions}
    assert ACTIONS_OF_SERVERS.keys() | NEVER_TAKEN_OF_SERVERS.keys() <= both


def test_a_foreign_value_is_written_where_the_server_reads_it(bindir):
    lockstep = Lockstep(Postgres(bindir), 1)
    try:
        child = lockstep.start()
        lockstep.step(child, Step.SCRIBBLE)
        slot = lockstep.implementation._children[child].slot
        assert lockstep.implementation._memory.flags()[slot - 1] == FOREIGN_VALUE
        lockstep.stop()
    finally:
        lockstep.close()


def test_what_a_backend_runs_as_it_loads_a_library_is_what_was_asked_for(bindir):
    with Cluster(bindir) as cluster:
        assert cluster.library("_exit(0)") != cluster.library("exit(0)") != cluster.library("exit(1)")
        assert cluster.library("exit(0)") == cluster.library("exit(0)")
        with pytest.raises(NoServer, match="cannot build"):
            cluster.library("nonsense(")


def test_nothing_is_left_of_a_cluster(bindir):
    with Cluster(bindir) as cluster:
        cluster.start()
        cluster.connect().close()
        postmaster = cluster.postmaster
    assert not cluster.directory.exists()
    assert not os.path.exists(f"/proc/{postmaster}")


def test_a_server_that_does_not_start_says_why(bindir):
    with Cluster(bindir, shared_buffers="none") as cluster, pytest.raises(NoServer, match="shared_buffers"):
        cluster.start()


def test_a_server_that_has_served_and_does_not_start_again_is_no_server_that_is_missing(bindir):
    with Cluster(bindir) as cluster:
        cluster.start()
        cluster.stop()
        with pytest.raises(AssertionError, match=r"does not start again:(.|\n)*shared_buffers"):
            cluster.start(shared_buffers="none")


def test_programs_that_come_to_no_end_are_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr("armed_conformance.postgres.cluster.LIMIT", 0.2)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (stub(tmp_path, "", "exec sleep 60") / "postgres").rename(tmp_path / "cc")
    with pytest.raises(NoServer, match="does not come to an end"):
        build("", tmp_path / "library.so")


def stub(directory, says, does=""):
    program = directory / "postgres"
    program.write_text(f"#!/bin/sh\n{does}\necho '{says}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return directory


@pytest.mark.parametrize("major", [14, 19])
def test_a_release_that_nobody_has_modelled_is_refused(tmp_path, major):
    assert major not in PROFILE_OF
    with pytest.raises(NoServer, match=f"PostgreSQL {major}.1: known are 15, 16, 17, 18"):
        profile_of(stub(tmp_path, f"postgres (PostgreSQL) {major}.1"))


def test_what_is_no_server_is_refused(tmp_path):
    with pytest.raises(NoServer, match="give the BINDIR of a server"):
        version_of(tmp_path)
    with pytest.raises(NoServer, match="no release of PostgreSQL"):
        version_of(stub(tmp_path, "hello"))
    for says in ("18beta1", "18rc1", "18devel", "18"):
        with pytest.raises(NoServer, match="no release of PostgreSQL"):
            profile_of(stub(tmp_path, f"postgres (PostgreSQL) {says}"))
    assert version_of(stub(tmp_path, "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)")) == (15, "15.18")
    with pytest.raises(UnknownTarget, match="give the BINDIR"):
        find(f"postgres:{tmp_path / 'nowhere'}")


def test_the_memory_of_another_program_is_not_taken_for_a_servers():
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        try:
            with pytest.raises(CannotLook):
                Server(other.pid)
        finally:
            other.stdin.close()
