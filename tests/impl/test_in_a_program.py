"""The supervisor inside somebody's program: events told, written and counted; event loops."""

import asyncio
import contextlib
import io
import json
import logging
import os
import selectors
import signal

import pytest
from tests.impl.conftest import LIMIT

from armed import EventKind, RecoveryLimit, Supervisor


def crash(me, shared):
    with me.engage():
        os._exit(0)


def kinds(events):
    return [event.kind.value for event in events]


@pytest.mark.parametrize("to", ["path", "stream"])
def test_the_journal_has_a_line_for_each_event(tmp_path, to):
    path, stream = tmp_path / "journal.jsonl", io.StringIO()
    told = []
    with Supervisor(journal=path if to == "path" else stream, on_event=told.append) as sup:
        sup.start(lambda me, shared: None)
        sup.run(LIMIT)
        sup.start(crash)
        sup.run(LIMIT)
    text = path.read_text() if to == "path" else stream.getvalue()
    opened, *lines = [json.loads(line) for line in text.splitlines()]
    assert (opened["event"], opened["slots"], opened["startup"], opened["pid"]) == ("opened", 64, False, os.getpid())
    assert [line["event"] for line in lines] == kinds(told)
    assert kinds(told) == [
        "started", "exited", "started", "crashed", "stopping", "reset", "running", "closing", "closed"
    ]  # fmt: skip
    crashed = lines[3]["child"]
    assert (crashed["decision"], crashed["status"], crashed["slot"], crashed["kind"]) == ("crash", 0, 1, "worker")
    assert int(crashed["slot_word"], 16) == told[3].child.outcome.slot_word
    assert "decision" not in lines[2]["child"], "the line of a start does not know the end"
    exited = lines[1]["child"]
    assert lines[0]["child"]["clean_word"] == exited["slot_word"], "it left the word that its slot was assigned with"
    assert int(lines[2]["child"]["clean_word"], 16) ^ int(crashed["slot_word"], 16) == (1 << 64) - 1, "armed"
    assert sup.counts == {kind: kinds(told).count(kind) for kind in kinds(told)}


def test_a_journal_is_appended_to(tmp_path):
    path = tmp_path / "journal.jsonl"
    for _ in range(2):
        with Supervisor(journal=path):
            pass
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == 2 * ["opened", "closing", "closed"]


def test_a_journal_that_cannot_be_written_stops_nothing_and_one_that_cannot_be_opened_is_refused(tmp_path, caplog):
    with pytest.raises(FileNotFoundError):
        Supervisor(journal=tmp_path / "missing" / "journal")

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "planted: no space left")

    with Supervisor(journal=Full()) as sup:
        sup.start(crash)
        assert kinds(sup.run(LIMIT))[-1] == "running"
    assert "could not be told" in caplog.text


def test_what_on_event_raises_is_logged_and_changes_nothing(caplog):
    def raising(event):
        raise ValueError("planted")

    with Supervisor(on_event=raising) as sup:
        sup.start(crash)
        assert kinds(sup.run(LIMIT)) == ["started", "crashed", "stopping", "reset", "running"]
        assert sup.counts["crashed"] == 1
    assert caplog.text.count("ValueError: planted") == 7


def test_events_are_logged_and_crashes_as_warnings(caplog):
    caplog.set_level(logging.INFO, logger="armed")
    with Supervisor() as sup:
        sup.start(crash)
        sup.run(LIMIT)
    levels = {record.args[0].kind: record.levelno for record in caplog.records if record.args}
    assert levels[EventKind.CRASHED] == logging.WARNING
    assert levels[EventKind.STARTED] == levels[EventKind.RUNNING] == logging.INFO


def test_events_that_come_with_an_exception_are_told_too():
    told = []
    with Supervisor(on_event=told.append, restart_limit=(0, 1)) as sup:
        sup.start(crash)
        with pytest.raises(RecoveryLimit):
            sup.run(LIMIT)
    assert kinds(told) == ["started", "crashed", "stopping", "limit", "closed"]


def test_the_descriptor_is_readable_when_a_child_has_died_and_not_before(gate):
    go_on = gate()
    with Supervisor() as sup, selectors.DefaultSelector() as selector:
        selector.register(sup, selectors.EVENT_READ)
        sup.start(lambda me, shared: go_on.wait())
        assert sup.due_in() == 0.0, "the event of the start is there"
        sup.step(0)
        assert sup.due_in() is None
        assert selector.select(0) == []
        go_on.open()
        assert selector.select(LIMIT)
        assert kinds(sup.step(0)) == ["exited"]
        assert selector.select(0) == []


def test_what_is_due_without_a_death_is_told_in_seconds(gate):
    ready = gate()

    def deaf(me, shared):
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        ready.open()
        while True:
            signal.pause()

    with Supervisor(stop_after=0.5) as sup:
        sup.start(deaf)
        ready.wait()
        sup.start(crash)
        while "stopping" not in kinds(sup.step(LIMIT)):
            pass
        assert 0 < sup.due_in() <= 0.5
        sup.run(LIMIT)
        assert sup.due_in() is None


def test_it_lives_in_an_asyncio_program():
    """The way that the guide shows: a reader for deaths, and a timer for what is due."""

    async def supervise(sup, done):
        loop, wake = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(sup.fileno(), wake.set)
        events = []
        try:
            while not done(events):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), sup.due_in())
                wake.clear()
                events += sup.step(0)
        finally:
            loop.remove_reader(sup.fileno())
        return events

    async def program():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        with Supervisor() as sup:
            ticking = asyncio.create_task(tick())
            sup.start(crash)
            events = await asyncio.wait_for(
                supervise(sup, lambda events: EventKind.RUNNING in [event.kind for event in events]), LIMIT
            )
            ticking.cancel()
        return events, ticks

    events, ticks = asyncio.run(program())
    told = [kind for kind in kinds(events) if kind != "noticed"]  # by an early step, or not
    assert told == ["started", "crashed", "stopping", "reset", "running"]
    assert ticks > 0


def test_an_event_is_told_once_though_an_exception_came_while_it_was_told():
    told = []

    def interrupted_once(event):
        told.append(event.kind.value)
        if len(told) == 2:
            raise KeyboardInterrupt

    journal = io.StringIO()
    with Supervisor(on_event=interrupted_once, journal=journal) as sup:
        sup.start(lambda me, shared: None)
        with pytest.raises(KeyboardInterrupt):
            sup.run(LIMIT)
        assert kinds(sup.run(LIMIT)) == ["started", "exited"]
    assert told == ["started", "exited", "closing", "closed"]
    assert sup.counts == {"started": 1, "exited": 1, "closing": 1, "closed": 1}
    assert [json.loads(line)["event"] for line in journal.getvalue().splitlines()] == ["opened", *told]
