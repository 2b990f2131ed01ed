"""Throw-away PostgreSQL servers: made from nothing, on a Unix socket only, run by another user than root."""

from __future__ import annotations

import os
import pwd
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg

from armed_conformance.protocol import NotHere
from armed_model.profiles import PROFILES, Profile

PROFILE_OF: Final = {15: PROFILES["15"], 16: PROFILES["15"], 17: PROFILES["15"], 18: PROFILES["18"]}
"""The profile that a major release is held to. Others are refused: nobody has read their sources for it."""

LIMIT: Final = 30.0
"""Seconds in which a server must have started, stopped, or done whatever else it is waited for."""

PORT: Final = 5432
USER: Final = "postgres"
"""The database superuser of a throw-away cluster, without a password: nobody else can reach its socket."""

_READY: Final = r"database system is ready to accept connections"
_SETTINGS: Final[Mapping[str, str | int]] = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "2MB",
    "dynamic_shared_memory_type": "mmap",  # files in the data directory, no names in /dev/shm
    "autovacuum": "off",
    "logging_collector": "off",
    "log_line_prefix": "[%p] ",
    "authentication_timeout": "600s",
}


class NoServer(NotHere):
    """There is no server to be had; the message says why, and what to do."""


def servers() -> list[Path]:
    """Return where the servers are that are to be tested: ARMED_POSTGRES, BINDIR:BINDIR..., or else Debian's."""
    if "ARMED_POSTGRES" in os.environ:
        return [Path(each) for each in os.environ["ARMED_POSTGRES"].split(":") if each]
    return [each.parent for each in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))]


def version_of(bindir: str | os.PathLike[str]) -> tuple[int, str]:
    """Return the major release of the programs in a directory, and the whole version. Raises NoServer."""
    program = Path(bindir) / "postgres"
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=LIMIT, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise NoServer(f"{bindir} has no program `postgres` that runs ({error}): give the BINDIR of a server") from None
    found = re.search(r"\(PostgreSQL\) ((\d+)\.\d+)(?!\S)", said)
    if found is None:
        raise NoServer(f"{program} says {said.strip()!r}: that is no release of PostgreSQL")
    return int(found[2]), found[1]


def profile_of(bindir: str | os.PathLike[str]) -> Profile:
    """Return the profile that the server in a directory is held to. Raises NoServer."""
    major, version = version_of(bindir)
    if major not in PROFILE_OF:
        known = ", ".join(map(str, PROFILE_OF))
        raise NoServer(f"{bindir} is PostgreSQL {version}: known are {known}; nobody has modelled that one")
    return PROFILE_OF[major]


class Cluster:
    """A data directory with at most one server on it. `close`, or the end of a with block, removes everything."""

    def __init__(self, bindir: str | os.PathLike[str], **settings: str | int) -> None:
        """Make the data directory. `settings` are server settings besides the usual ones. Raises NoServer."""
        self.bindir = Path(bindir).resolve()
        self.major, self.version = version_of(bindir)
        self.settings: dict[str, str | int] = {**_SETTINGS, **settings}
        self.directory = Path(tempfile.mkdtemp(prefix="armed-pg-", dir="/tmp"))  # the socket's path must be short
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._has_served = False
        try:
            self._user = _other_user(self.bindir)
            self.directory.chmod(0o755)
            (self.directory / "log").touch()
            for name in ("data", "socket"):
                (self.directory / name).mkdir(mode=0o700)
                if self._user is not None:
                    shutil.chown(self.directory / name, self._user, pwd.getpwnam(self._user).pw_gid)
            options = ["--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust", f"--username={USER}"]
            self._run(str(self.bindir / "initdb"), *options, "--pgdata", str(self.data))
        except BaseException:
            self.close()
            raise

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def postmaster(self) -> int:
        """The pid of the running postmaster. Raises NoServer where none was started."""
        if self._postmaster is None:
            raise NoServer("the server was not started")
        return self._postmaster.pid

    @property
    def runs(self) -> bool:
        """Whether the postmaster lives."""
        return self._postmaster is not None and self._postmaster.poll() is None

    @property
    def log(self) -> str:
        """All that the server has logged since the cluster was made."""
        return (self.directory / "log").read_text(errors="replace")

    def log_since(self, position: int) -> str:
        """Return what was logged after so many bytes."""
        with open(self.directory / "log", "rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace")

    def start(self, **settings: str | int) -> None:
        """Start the server and wait until it serves. `settings` hold for this start alone.

        Raises NoServer; AssertionError where it has served before: then it is here, and something is wrong with it.
        """
        options = [f"--{name}={value}" for name, value in {**self.settings, **settings}.items()]
        command = [str(self.bindir / "postgres"), "-D", str(self.data), "-k", str(self.directory / "socket"), *options]
        before = (self.directory / "log").stat().st_size
        with open(self.directory / "log", "ab") as log:
            self._postmaster = subprocess.Popen(
                [*self._as_the_user(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env=_environment(),
            )
        until = time.monotonic() + LIMIT
        while not re.search(_READY, logged := self.log_since(before)):
            if not self.runs or time.monotonic() > until:
                kind, again = (AssertionError, " again") if self._has_served else (NoServer, "")
                raise kind(f"PostgreSQL {self.version} does not start{again}:\n{logged[-2000:]}")
            time.sleep(0.005)
        self._has_served = True

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Stop the server and return its exit status: SIGTERM smart, SIGINT fast, SIGQUIT immediate.

        Raises TimeoutError where it does not stop in time.
        """
        assert self._postmaster is not None
        if self.runs:
            self._postmaster.send_signal(how)
            self._postmaster.send_signal(signal.SIGCONT)
        try:
            return self._postmaster.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the server does not stop within {LIMIT:g} s") from None

    def close(self) -> None:
        """Stop the server at once, and remove everything. May be repeated."""
        if self._postmaster is not None and self.runs:
            with suppress(TimeoutError):
                self.stop(signal.SIGQUIT)
            self._postmaster.kill()
            self._postmaster.wait(LIMIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        """Return the cluster."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def connect(self, **parameters: Any) -> psycopg.Connection[Any]:
        """Open a session, in autocommit mode. Raises what psycopg does."""
        defaults = {"host": self.socket_directory, "port": PORT, "user": USER, "dbname": "postgres"}
        return psycopg.connect(**{**defaults, "autocommit": True, "connect_timeout": int(LIMIT), **parameters})

    @property
    def socket_directory(self) -> str:
        """Where the socket is, for clients."""
        return str(self.directory / "socket")

    @property
    def socket(self) -> str:
        """The socket itself."""
        return f"{self.socket_directory}/.s.PGSQL.{PORT}"

    def let_fork(self, allowed: bool) -> None:
        """Let the postmaster's forks fail from now on, or succeed again (RLIMIT_NPROC). Raises NoServer."""
        usual = resource.getrlimit(resource.RLIMIT_NPROC)[0]  # it has inherited ours
        most = "0" if not allowed else "unlimited" if usual == resource.RLIM_INFINITY else str(usual)
        self._run("prlimit", f"--pid={self.postmaster}", f"--nproc={most}:")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep the postmaster from acting inside the block (SIGSTOP): who dies meanwhile stays a zombie."""
        os.kill(self.postmaster, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.postmaster, signal.SIGCONT)

    def library(self, statement: str) -> Path:
        """Build a shared library that does something in C as soon as it is loaded; the same one is built once.

        `LOAD` it in a session, whose backend then runs `statement`: `_exit(0)` leaves raw. Only a C compiler is needed,
        no header of the server: it never comes so far that the server asks for the library's version.
        Raises NoServer where there is no compiler, or it refuses.
        """
        built = self.directory / f"{statement.encode().hex()}.so"
        if not built.exists():
            build(_SOURCE.replace("STATEMENT", statement), built)
        return built

    def _run(self, program: str, *arguments: str) -> None:
        done = _finish([*self._as_the_user(), program, *arguments], LIMIT * 2, cwd="/", env=_environment())
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise NoServer(f"{program} of PostgreSQL {self.version} fails: {said}")

    def _as_the_user(self) -> list[str]:
        """How a program is run as the server's user, without core files, and to die with this process."""
        user = []
        if self._user is not None:
            user = [f"--reuid={self._user}", f"--regid={pwd.getpwnam(self._user).pw_gid}", "--clear-groups"]
        return ["prlimit", "--core=0", "setpriv", *user, "--pdeathsig=KILL", "--"]


def compiler() -> str:
    """Return the C compiler. Raises NoServer."""
    found = shutil.which("cc")
    if found is None:
        raise NoServer("there is no C compiler (cc): install one, to have foreign code in the server")
    return found


def build(source: str, library: Path) -> None:
    """Build a shared library from a text in C. Raises NoServer where there is no compiler, or it refuses or hangs."""
    text = library.with_suffix(".c")
    text.write_text(source)
    done = _finish([compiler(), "-shared", "-fPIC", "-o", str(library), str(text)], LIMIT)
    if done.returncode:
        raise NoServer(f"the C compiler cannot build {text}: {done.stderr}\n{source}")


def _finish(command: list[str], limit: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. Raises NoServer where that does not come in time."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, **options)
    except subprocess.TimeoutExpired:
        raise NoServer(f"does not come to an end within {limit:g} s: {' '.join(command)}") from None


_SOURCE: Final = """#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((constructor)) static void as_it_is_loaded(void) { STATEMENT; }
"""


def _other_user(bindir: Path) -> str | None:
    """Return whom the server runs as, where we are root (it refuses to be); None: as ourselves. Raises NoServer."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            pwd.getpwnam(name)
            may = subprocess.run(
                ["setpriv", f"--reuid={name}", "--clear-groups", "test", "-x", bindir / "postgres"], check=False
            )
            if may.returncode:
                raise NoServer(f"the user {name} may not run {bindir}/postgres: put it where everybody can read it")
            return name
    raise NoServer("we are root, which PostgreSQL refuses to be, and there is no user postgres or nobody")


def _environment() -> dict[str, str]:
    """Return an environment that sets nothing of PostgreSQL's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
