"""A process that is measured: one contender in each, so that nobody's threads or memory are in another's figures.

It reads one order a line from standard input, and answers each with a line, both in JSON. When standard input ends, so
does it. Only the supervisor and the one peer are imported: a fork, and the end of what was forked, cost by the page.

Peers are used as their documents say, with one worker. Whoever waits here does so for `LIMIT` seconds at most.
"""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
import multiprocessing
import os
import random
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, NamedTuple, TextIO

from armed import SlotTable, Supervisor
from armed.exits import Lifeline

LIMIT: Final = 60.0
"""Seconds that any single wait may take."""

STATUS: Final = 1
"""What a worker exits with. Not 0: some pools do not notice that at all, and all are to be measured by the same."""


class TooLate(Exception):
    """Something took longer than `LIMIT`."""


class Death(NamedTuple):
    """How a worker is to die: the file for its last words, the memory it touches, and the seconds that it waits."""

    stamp: str
    megabytes: int
    delay: float


def die(death: Death) -> None:
    """Touch memory, wait, write down what time it is, and leave at once."""
    if death.megabytes:
        memory = mmap.mmap(-1, death.megabytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory[:: mmap.PAGESIZE] = bytes(len(memory) // mmap.PAGESIZE)
    with open(death.stamp, "r+b") as file:
        last_words = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
    last_words[0] = 0  # the page fault is not to be a part of what is measured
    time.sleep(death.delay)
    last_words[0] = time.monotonic_ns()
    os._exit(STATUS)


# --- Who notices a death ---------------------------------------------------------------------------------------------


def pidfd_knows(death: Death) -> int:
    """Fork, and poll a pidfd: no supervisor can know earlier that a process has ended."""
    pid = os.fork()
    if pid == 0:
        try:
            die(death)
        finally:
            os._exit(2)
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        ready = poll.poll(LIMIT * 1000)
        now = time.monotonic_ns()
    finally:
        os.close(pidfd)
        os.kill(pid, signal.SIGKILL)  # it is not reaped yet, so the pid is its own
        os.waitpid(pid, 0)
    return now if ready else _too_late()


def armed_knows(death: Death, early_warning: Literal["auto", "off"]) -> int:
    """One armed child; what the program is told first is the notice or, where there is none, the death."""
    with Supervisor(early_warning=early_warning) as supervisor:
        supervisor.start(_die_armed, death)
        supervisor.step(0.0)  # tells of the start
        events = supervisor.step(LIMIT)
        now = time.monotonic_ns()
        supervisor.run(LIMIT)
        return now if events else _too_late()


def _die_armed(me: Any, shared: None, death: Death) -> None:
    with me.engage():
        die(death)


Wait = Callable[[float], object]
Submit = Callable[..., Wait]
Open = Callable[[], AbstractContextManager[tuple[Submit, type[Exception]]]]
"""Opens a pool; gives what submits a call and answers how to wait for it, and how the pool says that a worker died."""


def pool_knows(pool: Open, death: Death) -> int:
    """One worker, there and warm; the caller waits for the result."""
    with pool() as (submit, worker_died):
        submit(os.getpid)(LIMIT)
        wait = submit(die, death)
        try:
            wait(LIMIT)
        except worker_died:
            return time.monotonic_ns()
    return _too_late()


@contextlib.contextmanager
def _executor() -> Iterator[tuple[Submit, type[Exception]]]:
    with ProcessPoolExecutor(max_workers=1) as pool:
        yield lambda function, *args: pool.submit(function, *args).result, BrokenProcessPool


@contextlib.contextmanager
def _loky() -> Iterator[tuple[Submit, type[Exception]]]:
    import loky
    from loky.process_executor import TerminatedWorkerError

    pool = loky.get_reusable_executor(max_workers=1)
    try:
        yield lambda function, *args: pool.submit(function, *args).result, TerminatedWorkerError
    finally:
        pool.shutdown(kill_workers=True)


@contextlib.contextmanager
def _pebble() -> Iterator[tuple[Submit, type[Exception]]]:
    import pebble

    with pebble.ProcessPool(max_workers=1) as pool:
        yield lambda function, *args: pool.schedule(function, args=args).result, pebble.ProcessExpired


@contextlib.contextmanager
def _mpire() -> Iterator[tuple[Submit, type[Exception]]]:
    import mpire

    with mpire.WorkerPool(n_jobs=1) as pool:
        yield lambda function, *args: pool.apply_async(function, args=args).get, RuntimeError


@contextlib.contextmanager
def _billiard() -> Iterator[tuple[Submit, type[Exception]]]:
    import billiard
    from billiard.einfo import ExceptionWithTraceback
    from billiard.exceptions import WorkerLostError

    def submit(function: Callable[..., object], *args: object) -> Wait:
        result = pool.apply_async(function, args)

        def wait(timeout: float) -> object:
            try:
                return result.get(timeout)
            except ExceptionWithTraceback as wrapped:  # what it raises for a worker that is lost, too
                raise wrapped.exc from None

        return wait

    pool = billiard.Pool(processes=1)
    try:
        yield submit, WorkerLostError
    finally:
        pool.terminate()
        pool.join()


POOLS: Final[dict[str, Open]] = {
    "ProcessPoolExecutor": _executor, "loky": _loky, "Pebble": _pebble, "mpire": _mpire, "billiard": _billiard,
}  # fmt: skip


# --- Orders ----------------------------------------------------------------------------------------------------------


def detect(who: str, stamp: str, megabytes: int, delay: float) -> dict[str, float]:
    """Have a worker die; return how many milliseconds later that is known."""
    death = Death(stamp, megabytes, delay)
    match who:
        case "pidfd":
            knows = pidfd_knows(death)
        case "armed":
            knows = armed_knows(death, "auto")
        case "armed, no early warning":
            knows = armed_knows(death, "off")
        case _:
            knows = pool_knows(POOLS[who], death)
    with open(stamp, "rb") as file:
        (died,) = struct.unpack("=q", file.read(8))
    return {"ms": (knows - died) / 1e6}


def rest(who: str, children: int, seconds: float) -> dict[str, float]:
    """Wait for that long for children of whom nothing is to be heard; say so when it begins. For armed children only.

    A pool has one worker, which is busy for that time.
    """
    if who in POOLS:
        with POOLS[who]() as (submit, _):
            submit(os.getpid)(LIMIT)
            wait = submit(time.sleep, seconds)
            began = _say_that_it_rests()
            wait(LIMIT)
            return {"seconds": time.monotonic() - began}
    reader, writer = os.pipe()
    with Supervisor(slots=children) as supervisor, _closed(reader, writer):
        for _ in range(children):
            supervisor.start(_serve, writer)
        supervisor.step(0.0)
        _hear(reader, children)
        began = _say_that_it_rests()
        supervisor.step(seconds)
        return {"seconds": time.monotonic() - began}


def _say_that_it_rests() -> float:
    _say({"resting": True})
    return time.monotonic()


def recover(how: str, children: int, delay: float) -> dict[str, float]:
    """Kill, wait and start anew; return after how many milliseconds all are gone, started, and at work."""
    reader, writer = os.pipe()
    with _closed(reader, writer):
        began, *ends = RECOVERIES[how](children, delay, reader, writer)
    return {name: (end - began) / 1e6 for name, end in zip(("gone", "started", "at work"), ends, strict=True)}


def _recover_armed(children: int, delay: float, reader: int, writer: int, restart: bool) -> list[int]:
    """With `restart` the supervisor starts them anew; else this program does, one after the other."""
    made: list[int] = []  # when a generation was made: then those of the last are gone
    with Supervisor(children, lambda: made.append(time.monotonic_ns())) as supervisor:
        started = [supervisor.start(_serve, writer, restart=restart) for _ in range(children)]
        _hear(reader, children)
        supervisor.step(0.0)
        time.sleep(delay)
        times = [time.monotonic_ns()]
        os.kill(random.choice(started).pid, signal.SIGKILL)
        while supervisor.generation == 1 or len(supervisor.children) < children * restart:
            supervisor.step(LIMIT) or _too_late()
        for _ in range(0 if restart else children):
            supervisor.start(_serve, writer)
        times += [made[-1], time.monotonic_ns()]
        _hear(reader, children)
        times.append(time.monotonic_ns())
        supervisor.close(LIMIT)
    return times


def _serve(me: Any, shared: None, writer: int) -> None:
    with me.engage():
        os.write(writer, b".")
        time.sleep(LIMIT)


def _recover_raw(children: int, delay: float, reader: int, writer: int, one_first: bool) -> list[int]:
    """Do the least that there is to do: SIGKILL, wait, fork; with the same lifeline, so that no child is orphaned.

    With `one_first` the others are killed when the first is known to be dead. Without it all are at once: nobody could
    do that for whom the first death is the news.
    """
    lifeline = Lifeline()
    pids: list[int] = []
    try:
        pids += [_fork_raw(lifeline, writer) for _ in range(children)]
        _hear(reader, children)
        first = os.pidfd_open(pids[-1])
        with _closed(first):
            time.sleep(delay)
            times = [time.monotonic_ns()]
            if one_first:
                os.kill(pids[-1], signal.SIGKILL)
                select.select([first], [], [], LIMIT)[0] or _too_late()
            _end_raw(pids)
            times.append(time.monotonic_ns())
        pids += [_fork_raw(lifeline, writer) for _ in range(children)]
        times.append(time.monotonic_ns())
        _hear(reader, children)
        times.append(time.monotonic_ns())
    finally:
        _end_raw(pids)
        lifeline.close()
    return times


def _fork_raw(lifeline: Lifeline, writer: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            lifeline.hold()
            os.write(writer, b".")
            time.sleep(LIMIT)
        finally:
            os._exit(2)
    return pid


def _end_raw(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    while pids:
        os.waitpid(pids.pop(), 0)


RECOVERIES: Final[dict[str, Callable[[int, float, int, int], list[int]]]] = {
    "at once": functools.partial(_recover_raw, one_first=False),
    "one first": functools.partial(_recover_raw, one_first=True),
    "restart": functools.partial(_recover_armed, restart=True),
    "start": functools.partial(_recover_armed, restart=False),
}


def engage(rounds: int, loops: int) -> dict[str, list[float]]:
    """Return nanoseconds for each round of an engagement, of a lock, and of the loop around both, in an armed child."""
    reader, writer = os.pipe()
    with _closed(reader), Supervisor(slots=1, make_shared=multiprocessing.Lock) as supervisor:
        with _closed(writer):
            supervisor.start(_engage_in_rounds, rounds, loops, writer)
        with open(reader, closefd=False) as results:
            measured: dict[str, list[float]] = json.loads(results.read())
        supervisor.run(LIMIT)
    return measured


def _engage_in_rounds(me: Any, lock: Any, rounds: int, loops: int, writer: int) -> None:
    def engagement() -> None:
        for _ in range(loops):
            with me.engage() as hold:  # noqa: F841 - as it is written where something is taken
                pass

    def with_lock() -> None:
        for _ in range(loops):
            with lock:
                pass

    def nothing() -> None:
        for _ in range(loops):
            pass

    ways = {"with me.engage() as hold": engagement, "with lock": with_lock, "empty loop": nothing}
    with open(writer, "w") as results:
        json.dump(_in_turn(ways, rounds, loops), results)


def slots(rounds: int, loops: int) -> dict[str, dict[str, list[float]]]:
    """Return, for small and large tables, nanoseconds for each assign + release, and bytes for each slot never used."""
    few, many = 16, 1_000_000
    held = [SlotTable(few)]  # what the first one costs is the code
    bytes_used = []
    for _ in range(3):
        before = _resident()
        held.append(SlotTable(many))
        bytes_used.append((_resident() - before) / many)

    def assign_and_release(table: SlotTable) -> Callable[[], None]:
        def work() -> None:
            for _ in range(loops):
                slot, _ = table.assign()
                table.release(slot)

        return work

    def churn(table: SlotTable) -> Callable[[], None]:
        used = [table.assign()[0] for _ in range(table.size // 2)]

        def work() -> None:
            for _ in range(loops):
                at = int(random.random() * len(used))
                table.release(used[at])
                used[at] = table.assign()[0]

        return work

    tables = {f"{few} slots": held[0], f"{many:,} slots": held[1]}
    churned = {f"{few} slots": SlotTable(few), f"{many:,} slots": held[2]}
    return {
        "assign + release": _in_turn({n: assign_and_release(each) for n, each in tables.items()}, rounds, loops),
        "random, half in use": _in_turn({n: churn(each) for n, each in churned.items()}, rounds, loops),
        "memory": {f"{many:,} slots": bytes_used},
    }


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


def _in_turn(ways: dict[str, Callable[[], None]], rounds: int, loops: int) -> dict[str, list[float]]:
    """Return nanoseconds for one turn of the loop, round by round; each round in an order of its own."""
    measured: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            began = time.perf_counter_ns()
            ways[name]()
            measured[name].append((time.perf_counter_ns() - began) / loops)
    return measured


# --- The process -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _closed(*descriptors: int) -> Iterator[None]:
    try:
        yield
    finally:
        for each in descriptors:
            os.close(each)


def _hear(reader: int, children: int) -> None:
    """Wait until each child has written its byte."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    until = time.monotonic() + LIMIT
    while children:
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            _too_late()
        children -= len(os.read(reader, children))


def _too_late() -> int:
    raise TooLate(f"nothing was heard for {LIMIT:.0f} s")


ORDERS: Final[dict[str, Callable[..., Any]]] = {
    "detect": detect, "rest": rest, "recover": recover, "engage": engage, "slots": slots,
}  # fmt: skip

_answers: list[TextIO] = []


def _say(answer: Any) -> None:
    print(json.dumps(answer), file=_answers[0], flush=True)


def main() -> None:
    """Obey until nobody orders any more."""
    _answers.append(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = ORDERS[order.pop("do")](**order)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        _say(answer)
