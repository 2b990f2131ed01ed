"""What is done to a throw-away server on purpose: a flag written over, foreign code in a log hook, a debugger."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from armed_conformance.postgres.cluster import LIMIT, Cluster, NoServer, build
from armed_conformance.postgres.memory import Server

T = TypeVar("T")

_READY: Final = "the debugger is ready"

# What the server wants to find in a library that it is to keep (Pg_magic_func), in words of our own, so that no header
# of the server is needed; and what a log hook gets: the level of a message first, the function it comes from at 24.
_HOOK: Final = """#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct magic {
    int length, release, arguments, index_keys, name_length, float8_by_value;
    char flavour[32];
    MORE_MAGIC
};

extern void (*emit_log_hook)(void *message);

const struct magic *Pg_magic_func(void)
{
    static const struct magic mine = {sizeof mine, RELEASE, 100, 32, 64, 1, "PostgreSQL"};
    return &mine;
}

static void hook(void *message)
{
    int level = *(int *) message;
    const char *function = *(const char **) ((char *) message + 24);
    if (access("SWITCH", F_OK) == 0) { STATEMENT; }
    (void) level, (void) function;
}

void _PG_init(void) { emit_log_hook = hook; }
"""


def write_flag(server: Server, slot: int, value: int) -> None:
    """Write any value over a slot's flag, as a stray store of a child would. Raises OSError."""
    memory = os.open(f"/proc/{server.postmaster}/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(memory, value.to_bytes(4, "little", signed=True), server.address_of(slot))
    finally:
        os.close(memory)


def log_hook(cluster: Cluster, statement: str) -> tuple[Path, Path]:
    """Build a library whose log hook does something in C wherever the server logs, and return it and its switch.

    Give the library to `shared_preload_libraries`. The statement runs only while there is a file with the name of the
    switch, and may look at `level` (22 and more: FATAL) and `function`, the name of the function that logs.
    Raises NoServer where there is no compiler, or it refuses.
    """
    library, switch = cluster.directory / "log_hook.so", cluster.directory / "log_hook.on"
    text = _HOOK.replace("RELEASE", str(cluster.major * 100)).replace("SWITCH", str(switch))
    text = text.replace("MORE_MAGIC", "const char *name, *version;" if cluster.major >= 18 else "")
    build(text.replace("STATEMENT", statement), library)
    return library, switch


@contextmanager
def debugger(pid: int, *commands: str) -> Iterator[Callable[[], str]]:
    """Attach gdb to a process of a throw-away server, and have it run commands; at the block's end they are through.

    The block begins when gdb is attached, and the process stopped. Yields what tells what gdb has said. Raises NoServer
    where there is no gdb, or it does not attach or come to an end in time; what it said is in the message.
    """
    program = shutil.which("gdb")
    if program is None:
        raise NoServer("there is no gdb: install it to make a process end where no foreign code runs")
    given = [word for command in (f"echo {_READY}\\n", *commands) for word in ("-ex", command)]
    with tempfile.TemporaryFile("w+") as said:
        gdb = subprocess.Popen(
            [program, "-nx", "-batch", "-p", str(pid), *given], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )

        def words() -> str:
            return os.pread(said.fileno(), 1 << 20, 0).decode(errors="replace")

        try:
            until(lambda: _READY in words() or gdb.poll() is not None, "gdb is attached")
            yield words
            gdb.wait(LIMIT)
        except (subprocess.TimeoutExpired, TimeoutError):
            raise NoServer(f"gdb does not come to an end: {words()}") from None
        finally:
            gdb.kill()
            gdb.wait(LIMIT)
        if _READY not in words():
            raise NoServer(f"gdb does not attach: {words()}")


def until(look: Callable[[], T], what: str, limit: float = LIMIT) -> T:
    """Return the first true value of what is looked at. Raises TimeoutError, after `limit` seconds, and says `what`."""
    end = time.monotonic() + limit
    while not (value := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"not seen in {limit} seconds: {what}")
        time.sleep(0.001)
    return value
