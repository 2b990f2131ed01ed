"""The command line. Names and exit statuses are part of the interface.

Tables go to standard output, progress to standard error. With `--json` and no file the JSON takes standard output, and
the table goes to standard error. A file of `--json` is known by its ending, so that it is not taken for a target, nor a
target for a file: `--json x.json`, or `--json=FILE` for any other name.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from difflib import get_close_matches
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from armed_audit import bench as benchmarks
from armed_audit import claims, versions
from armed_audit import report as reports
from armed_audit import verify as verification
from armed_conformance import calls, crash_points, exhaustive
from armed_conformance import replay as histories_as_files
from armed_conformance.lockstep import CHILDREN, Mismatch
from armed_conformance.protocol import NotHere
from armed_conformance.run import ADAPTERS, Report, UnknownTarget
from armed_conformance.run import conform as run_conformance
from armed_conformance.run import replay as replay_history
from armed_model import events, trace
from armed_model.explore import StillSearching, explore, tell, violations
from armed_model.interpret import Instance, Size
from armed_model.profiles import CONTROLS, PROFILES
from armed_model.properties import properties
from armed_model.render import tla, tla_config, tla_name
from armed_model.system import CONTROL_ENVIRONMENTS, ENVIRONMENTS, System
from armed_proofs import matrix, select, tlc
from armed_proofs.mutants import Report as MutationReport
from armed_proofs.mutants import describe, mutate

HOLDS, FAILS, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: everything holds; something does not; the call is off, or its result cannot be shown; Ctrl-C."""
SAY_EVERY = 30.0
"""Seconds between two words of progress where there is no terminal."""

app = typer.Typer(
    name="armed",
    help="A formally checked dead man switch for worker processes: proofs, and real processes held to the model.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)

JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="[FILE.json]",
        help="Write the result as JSON to FILE.json, or to standard output (the table then goes to standard error). "
        "For a name that does not end in .json: --json=FILE.",
    ),
]
STANDARD_OUTPUT = "-"


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        app(_with_json_file(sys.argv[1:] if arguments is None else arguments), prog_name="armed")
    except OSError as error:
        if not error.filename and error.errno not in _NO_ROOM:
            raise
        print(f"armed: {_in_words(error)}", file=sys.stderr)
        return USAGE
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else USAGE
    except Exception as error:
        if not verification.is_ctrl_c(error):
            raise
        status = INTERRUPTED
    else:
        status = HOLDS
    if status == INTERRUPTED:  # also what typer makes of a KeyboardInterrupt
        print("armed: interrupted; all processes it started have ended", file=sys.stderr)
    return status


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def _in_words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _with_json_file(arguments: list[str]) -> list[str]:
    """Let `--json` stand without a file: its value is optional, which the parser cannot express."""
    written = []
    for position, argument in enumerate(arguments):
        written.append(argument)
        following = arguments[position + 1 : position + 2]
        if argument == "--json" and not any(_is_json_file(each) for each in following):
            written.append(STANDARD_OUTPUT)
    return written


def _is_json_file(argument: str) -> bool:
    """Whether what follows `--json` is its file."""
    return argument == STANDARD_OUTPUT or (argument.endswith(".json") and not argument.startswith("-"))


class _Table(Console):
    """A console whose reader may have gone."""

    def on_broken_pipe(self) -> None:
        """Leave with one line: the default would leave with status 1, which says that something does not hold."""
        _nobody_reads()


def _write(text: str) -> None:
    """Write to standard output, whose reader may have gone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _nobody_reads()


def _nobody_reads() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
    _refuse("nobody reads the result: the pipe is closed")


class Output:
    """Where the table, the JSON and the progress of one command go."""

    def __init__(self, json_file: str | None) -> None:
        """Raises typer.Exit, with a line that says why, where the JSON cannot be written."""
        self._json_file = json_file
        self.table = _Table(stderr=json_file == STANDARD_OUTPUT)
        self._progress = Console(stderr=True)
        if json_file == "":
            _refuse("--json= has no FILE")
        if json_file not in (None, STANDARD_OUTPUT):
            must_be_writable(Path(json_file))

    @contextmanager
    def progress(self) -> Iterator[Callable[[str], None]]:
        """Give a function that says what is worked on: on a terminal a line that is written over, else now and then."""
        if not self._progress.is_terminal:
            yield _unless_interrupted(_rarely(_say))
        else:
            with Status("beginning", console=self._progress) as status:
                yield _unless_interrupted(lambda what: status.update(escape(what)))
        calls.stop_if_interrupted()

    def finished(self, part: verification.Part) -> None:
        """Say that a part is through, where there is no terminal to show progress on."""
        if not self._progress.is_terminal:
            _say(f"{part.name}: {part.verdict} ({part.seconds:.1f} s)")

    def measured(self, topic: str, seconds: float) -> None:
        """Say that a topic of the benchmarks is through, where there is no terminal to show progress on."""
        if not self._progress.is_terminal:
            _say(f"{topic} measured ({seconds:.1f} s)")

    @contextmanager
    def json_lines(self) -> Iterator[Callable[[dict[str, Any]], None] | None]:
        """Give a function that writes one object as a line, at once; None where no JSON was asked for.

        Raises typer.Exit, with a line that says why, where it cannot be written.
        """
        if self._json_file is None:
            yield None
            return
        with ExitStack() as files:
            stream = sys.stdout
            if self._json_file != STANDARD_OUTPUT:
                stream = files.enter_context(open(self._json_file, "w"))

            def write(line: dict[str, Any]) -> None:
                try:
                    print(json.dumps(line), file=stream, flush=True)
                except BrokenPipeError:
                    _nobody_reads()

            yield write

    def write_json(self, result: Any) -> None:
        """Write the result where it was asked for."""
        if self._json_file is None:
            return
        text = json.dumps(result, indent=2) + "\n"
        if self._json_file == STANDARD_OUTPUT:
            _write(text)
        else:
            Path(self._json_file).write_text(text)


def _say(what: str) -> None:
    with suppress(OSError):  # who has closed it does not want to hear it, and the work goes on
        print(f"armed: {what}", file=sys.stderr, flush=True)


def _unless_interrupted(say: Callable[[str], None]) -> Callable[[str], None]:
    """Give a function that says what it is told; where a KeyboardInterrupt was dropped it raises that instead."""

    def tell(what: str) -> None:
        calls.stop_if_interrupted()
        say(what)

    return tell


def _rarely(say: Callable[[str], None]) -> Callable[[str], None]:
    """Give a function that says what it is told only if for half a minute nothing was said."""
    said = time.monotonic()

    def tell(what: str) -> None:
        nonlocal said
        if time.monotonic() >= said + SAY_EVERY:
            said = time.monotonic()
            say(what)

    return tell


def must_be_writable(file: Path) -> None:
    """Refuse a file that cannot be written before the work begins, not after it. Leaves nothing behind."""
    try:
        file = file.resolve()  # where it is a link, the link stays
        if not file.exists():
            file.touch()
            file.unlink()
        elif file.is_dir() or file.is_file():
            file.open("a").close()
    except OSError as error:
        _refuse(f"cannot write {file}: {error.strerror}")


def _refuse(message: str) -> NoReturn:
    print(f"armed: {message}", file=sys.stderr)
    raise typer.Exit(USAGE)


def _version(asked: bool) -> None:
    if asked:
        print(f"armed {version('armed')}, {matrix.solver_version()}")
        raise typer.Exit(HOLDS)


@app.callback()
def main(
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None:
    """A formally checked dead man switch for worker processes: proofs, and real processes held to the model."""


@app.command()
def verify(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller bounds; the table says what is left out.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="All crash points, a million stray writes, 100,000 lives: 95 minutes.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="What could not be run is a failure.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the random histories; without it one is drawn.")] = None,
    evidence: Annotated[
        Path, typer.Option(help="Where verify.json is kept, and (in a full run) every obligation, in smt2/.")
    ] = Path("armed-evidence"),
    json_file: JsonOption = None,
) -> None:
    """Run everything: model, proofs, negative controls, and real processes; one table. Exit 0 iff everything holds.

    Of what real processes are put through it takes a part, another one at each commit, and says which; --full, all.
    """
    if quick and full:
        _refuse("--quick and --full exclude each other")
    extent = verification.QUICK if quick else verification.FULL if full else verification.USUAL
    output = Output(json_file)
    _must_hold_evidence(evidence)
    result = _verify(output, extent, evidence, strict, seed)
    output.write_json(result.as_json())
    raise typer.Exit(HOLDS if result.holds else FAILS)


def _must_hold_evidence(evidence: Path) -> None:
    try:
        evidence.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(f"cannot keep the result in {evidence}: {error.strerror}; give another --evidence DIR")
    must_be_writable(evidence / reports.VERIFY)


def _verify(
    output: Output, extent: verification.Extent, evidence: Path, strict: bool = False, seed: int | None = None
) -> verification.Verification:
    with output.progress() as progress:
        result = verification.verify(
            extent=extent, strict=strict, seed=seed, keep=evidence, progress=progress, finished=output.finished
        )
    try:  # before it is shown: whoever reads the table may have gone
        (evidence / reports.VERIFY).write_text(json.dumps(result.as_json(), indent=2) + "\n")
    finally:
        _show_verification(output.table, result, evidence)
    return result


@app.command()
def report(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where report.html and report.json are written.", show_default=False)
    ],
    evidence: Annotated[
        Path,
        typer.Option(
            help="What `armed verify` has left; also read there, where they are: mutants.json (`armed mutate --json`) "
            "and bench.json (`armed bench --json`)."
        ),
    ] = Path("armed-evidence"),
    no_run: Annotated[
        bool, typer.Option("--no-run", help="Where there is no evidence, refuse; else `armed verify` is run first.")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Write the audit report, one page that needs no network: what is shown, by what, under what, and what is not.

    It decides nothing anew. Each run can be stepped through; each claim leads to model, proof and test. Exit 0
    iff the evidence holds, no mutant survives, and nothing dangles. Evidence of another commit is said to be stale.
    """
    output = Output(json_file)
    directory.mkdir(parents=True, exist_ok=True)
    must_be_writable(directory / reports.PAGE)
    if not (evidence / reports.VERIFY).exists():
        if no_run:
            _refuse(f"there is no {reports.VERIFY} in {evidence}: run armed verify, or give --evidence DIR")
        print(f"armed: there is no {reports.VERIFY} in {evidence}: running armed verify first", file=sys.stderr)
        _must_hold_evidence(evidence)
        _verify(output, verification.USUAL, evidence)
    try:
        with output.progress() as progress:
            progress("reading the evidence")
            data = reports.gather(evidence, directory)
            progress("taking every run again")
            page = reports.write(data, directory)
    except reports.BadEvidence as error:
        _refuse(str(error))
    _show_report(output.table, data, page)
    output.write_json(data)
    raise typer.Exit(HOLDS if data["holds"] and not data["dangling"] and not data["not_shown"]["failed"] else FAILS)


@app.command()
def prove(
    profile: Annotated[str | None, typer.Option(help="One profile or negative control; without it, all.")] = None,
    claim: Annotated[str | None, typer.Option("--property", help="One property; without it, all.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Record the verdicts found as the expected ones.")] = False,
    select_anew: Annotated[
        bool, typer.Option("--select", help="First choose anew which candidates are the invariants, and record them.")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Decide every property: proved for any number of slots and children, or refuted with a shortest run.

    With --profile or --property the runs are told, too. Exit 0 iff all verdicts equal the recorded ones.
    """
    if profile is not None and profile not in matrix.ALL_PROFILES:
        _refuse_name("profile", profile, matrix.ALL_PROFILES)
    if claim is not None and claim not in matrix.ALL_NAMES:
        _refuse_name("property", claim, matrix.ALL_NAMES)
    if (record or select_anew) and (profile or claim):
        _refuse("--record and --select take all verdicts: leave --profile and --property out")
    output = Output(json_file)
    with output.progress() as progress:
        if select_anew:
            print(f"recorded in {select.record(progress)}", file=sys.stderr)
        names = [profile] if profile else list(matrix.ALL_PROFILES)
        decided = matrix.decide(names, progress, claim)
    cells = [cell for each in decided for cell in each.cells]
    if not cells:
        _refuse(f"nothing is recorded of {claim} in {profile}")
    if record:
        try:
            print(f"recorded in {matrix.record(decided)}", file=sys.stderr)
        except ValueError as error:
            _refuse(str(error))
    _show_matrix(output.table, decided)
    _show_cells(output.table, cells, runs=bool(profile or claim))
    differences = matrix.unexpected(decided, claim)
    for line in differences:
        output.table.print(f"[red]not as recorded:[/] {escape(line)}", soft_wrap=True)
    if not differences:
        output.table.print("\n[green]All of these verdicts are as recorded.[/]", highlight=False)
    output.write_json([cell.as_json() for cell in cells])
    raise typer.Exit(FAILS if differences else HOLDS)


ProfileOption = Annotated[str, typer.Option("--profile", help=f"One of {', '.join((*PROFILES, *CONTROLS))}.")]
EnvironmentOption = Annotated[
    str, typer.Option("--environment", help=f"One of {', '.join((*ENVIRONMENTS, *CONTROL_ENVIRONMENTS))}.")
]


_MANY_NAMES = 20


def _refuse_name(what: str, name: str, known: Iterable[str]) -> NoReturn:
    """Say which names there are; of many, those that are like this one, if any are."""
    known = list(known)
    like = [each for each in known if name in each] or get_close_matches(name, known, n=5, cutoff=0.5)
    like *= len(known) > _MANY_NAMES
    _refuse(f"no {what} {name!r}: {'there is' if like else 'give one of'} {', '.join(like or known)}")


def _system(profile: str, environment: str) -> System:
    known = {**PROFILES, **CONTROLS}
    if profile not in known:
        _refuse_name("profile", profile, known)
    if environment not in (*ENVIRONMENTS, *CONTROL_ENVIRONMENTS):
        _refuse_name("environment", environment, (*ENVIRONMENTS, *CONTROL_ENVIRONMENTS))
    return System(known[profile], environment)


@app.command("explore")
def explore_instance(
    profile: ProfileOption = "reference",
    environment: EnvironmentOption = "calm",
    slots: Annotated[int, typer.Option(min=1, help="How many slots.")] = 2,
    children: Annotated[int, typer.Option(min=1, help="How many children at a time.")] = 2,
    limit: Annotated[int, typer.Option(min=1, help="Give up beyond so many distinct states.")] = 5_000_000,
    json_file: JsonOption = None,
) -> None:
    """Visit every reachable state of a bounded instance: counts, depth, what happens in it, what is violated and how.

    What is found holds for these bounds and says nothing beyond them. Exit 1 iff a property is violated that is proved.
    """
    system, size = _system(profile, environment), Size(slots, children)
    output = Output(json_file)
    instance = Instance(system, size)
    with output.progress() as progress:
        progress(f"exploring {profile}, {environment}, {size}")
        claims = [each for each in properties(system.profile) if each.environment == environment]
        claims = claims or [each for each in properties(system.profile) if each.environment == "+stray"]
        try:
            result = explore(instance, violations(claims), limit=limit)
        except StillSearching as still:
            _refuse(f"{still}: nothing is known of the rest; give fewer slots or children, or a higher --limit")
    recorded = matrix.expected_verdicts().get(profile, {})
    unexpected = sorted(name for name in result.found if recorded.get(name) == "proved")
    never = [action.name for action in system.actions if action.name not in result.actions_seen]
    table = Table(title=f"armed explore: {profile}, {environment}, {size}", title_justify="left", show_header=False)
    for name, value in (
        ("distinct states", f"{result.states:,}"),
        ("transitions", f"{result.transitions:,}"),
        ("depth", str(result.depth)),
        ("seconds", f"{result.seconds:.2f}"),
        ("actions that happen", f"{len(result.actions_seen)} of {len(system.actions)}"),
        ("never", ", ".join(never) or "none: every action happens"),
        ("violated", ", ".join(f"{name} ({len(each.run)} steps)" for name, each in result.found.items()) or "nothing"),
    ):
        table.add_row(name, value)
    output.table.print(table)
    for name, each in result.found.items():
        output.table.print(f"\n{name} is violated. A shortest run:", highlight=False)
        _tell_run(output.table, tell(instance, each.run))
    output.write_json(
        {
            "profile": profile,
            "environment": environment,
            "slots": slots,
            "children": children,
            "states": result.states,
            "transitions": result.transitions,
            "depth": result.depth,
            "seconds": round(result.seconds, 3),
            "never": never,
            "violated": {
                name: [{"action": step.action, "arguments": list(step.arguments)} for step in each.run]
                for name, each in result.found.items()
            },
        }
    )
    raise typer.Exit(FAILS if unexpected else HOLDS)


@app.command("check-trace")
def check_trace(
    journal: Annotated[Path, typer.Argument(help="What `Supervisor(journal=...)` has written.", show_default=False)],
    profile: ProfileOption = "reference",
    environment: Annotated[
        str, typer.Option(help="+stray: a foreign word in a slot was scribbled there. calm: there is none.")
    ] = "+stray",
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="A supervisor that still runs, or was killed: `closed` may be missing.")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Is the journal of a supervisor a behaviour of the model? Else: up to which line, what came then, what could have.

    What is not told, such as the steps of children, is filled in by search. Exit 0 iff it is a behaviour.
    """
    if environment not in trace.ENVIRONMENTS:
        _refuse(f"no environment {environment!r} here: give one of {', '.join(trace.ENVIRONMENTS)}")
    system = _system(profile, environment)
    output = Output(json_file)
    began = time.monotonic()
    try:
        with journal.open(encoding="utf-8", errors="replace") as lines, output.progress() as progress:
            found = trace.check(_counted(lines, journal, progress), system.profile, environment, unfinished)
    except OSError as error:
        _refuse(f"cannot read {journal}: {error.strerror}")
    seconds = round(time.monotonic() - began, 3)
    _show_trace(output.table, str(journal), profile, found)
    output.write_json(
        {"journal": str(journal), "profile": profile, "environment": environment, **asdict(found), "seconds": seconds}
    )
    raise typer.Exit(HOLDS if found.accepted else FAILS)


def _counted(lines: Iterable[str], journal: Path, progress: Callable[[str], None]) -> Iterator[str]:
    """Pass lines on, and say how many there were."""
    for number, line in enumerate(lines):
        if number % 1000 == 0:
            progress(f"{journal}: line {number:,}")
        yield line


@app.command("mutate")
def mutate_specification(
    only: Annotated[str, typer.Option(help="Only mutants with this in their names.")] = "",
    processes: Annotated[int, typer.Option(min=1, help="How many mutants are judged at a time.")] = 2,
    json_file: JsonOption = None,
) -> None:
    """Change every conjunct, effect, action, row and line of a profile in turn, and see whether a property notices.

    A mutant is killed, or shown to be equivalent; one that survives is a gap. Takes minutes. Exit 0 iff none survives.
    """
    output = Output(json_file)
    source = _of_which_source()
    with output.progress() as progress:
        report = mutate(progress, only, processes)
    if not report.judgements:
        _refuse(f"no mutant has {only!r} in its name")
    _show_mutants(output.table, report)
    output.write_json(report.as_json() | {"only": only} | source)
    raise typer.Exit(FAILS if report.survivors else HOLDS)


@app.command("export")
def export_model(
    form: Annotated[
        str,
        typer.Argument(
            help="tla: a TLA+ module and its configuration; versions: what each profile guarantees; matrix: that as a "
            "picture, in SVG; events: what the lines of a journal mean; claims: C1 to C16, and what serves each."
        ),
    ],
    profile: ProfileOption = "reference",
    environment: EnvironmentOption = "calm",
    slots: Annotated[int, typer.Option(min=1, help="How many slots, in the configuration.")] = 2,
    children: Annotated[int, typer.Option(min=1, help="How many children, in the configuration.")] = 2,
    directory: Annotated[Path, typer.Option("--to", help="The directory to write to.")] = Path(),
) -> None:
    """Write the specification for other people's tools. Obligations in SMT-LIB are written by `armed verify`."""
    pages = {
        "versions": versions.markdown, "matrix": versions.picture, "events": events.markdown, "claims": claims.markdown,
    }  # fmt: skip
    if form in pages:
        try:
            _write(pages[form]())
        except claims.Dangling as error:
            print(f"armed: {error}", file=sys.stderr)
            raise typer.Exit(FAILS) from None
        return
    if form != "tla":
        _refuse(f"no form {form!r}: give tla, {', '.join(pages)}")
    system = _system(profile, environment)
    directory.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("tla", tla(system)), ("cfg", tla_config(system, Size(slots, children)))):
        file = directory / f"{tla_name(system)}.{suffix}"
        file.write_text(text)
        _write(f"{file}\n")


EXPLORE = "explore"
TOPICS = (*benchmarks.TOPICS, EXPLORE)


@app.command()
def bench(
    topic: Annotated[
        str | None,
        typer.Argument(
            help="detect: from a death to who knows of it. engage: an engagement beside a lock. slots: small and large "
            "tables. recover: a whole group. rest: wake-ups. explore: time to verdict beside TLC's. Without it, all.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Deaths for each contender; the rest goes by it.")] = 80,
    memory: Annotated[int, typer.Option(min=0, help="The most that a dying child touches, in MB.")] = 1024,
    children: Annotated[int, typer.Option(min=2, help="The largest group that recovers.")] = 128,
    peer: Annotated[
        list[str] | None,
        typer.Option(help=f"A peer to measure beside; again for more. Without it, all: {', '.join(benchmarks.PEERS)}."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg|png", help="Draw it, with matplotlib.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Measure, side by side in one run. Figures are of this machine, now; the ratios are what to quote.

    Whether a target is met is printed, and does not change the exit status: a benchmark is no test.
    """
    if topic is not None and topic not in TOPICS:
        _refuse(f"no topic {topic!r}: give {', '.join(TOPICS)}, or none for all")
    for name in peer or ():
        if name not in benchmarks.PEERS:
            _refuse(f"no peer {name!r}: give one of {', '.join(benchmarks.PEERS)}")
    if plot is not None:
        _must_be_able_to_plot(plot, topic)
    output = Output(json_file)
    extent = benchmarks.Extent(trials, memory, children, tuple(peer or benchmarks.PEERS))
    result: dict[str, Any] = {"machine": (machine := benchmarks.machine()), "topics": {}, "not_run": {}}
    result |= _of_which_source()
    output.table.print(_of_what(machine), highlight=False, soft_wrap=True)
    rows: list[benchmarks.Row] = []
    for name, measure in benchmarks.TOPICS.items():
        if topic in (None, name):
            began = time.monotonic()
            with output.progress() as progress:
                measured = measure(extent, progress)
            output.measured(name, time.monotonic() - began)
            _show_bench(output.table, name, measure.__doc__ or "", measured)
            result["topics"][name] = [row.as_json() for row in measured]
            rows += measured
    if topic in (None, EXPLORE):
        try:
            with output.progress() as progress:
                opinions = _explore_beside_tlc(progress)
        except (tlc.Missing, tlc.TlcFailed) as error:
            if topic == EXPLORE:
                _refuse(str(error))
            result["not_run"][EXPLORE] = str(error)
            output.table.print(f"armed bench {EXPLORE}: [yellow]not run[/]: {escape(str(error))}", soft_wrap=True)
        else:
            _show_opinions(output.table, opinions)
            result["topics"][EXPLORE] = [each.as_json() for each in opinions]
    output.write_json(result)
    if plot is not None:
        try:
            benchmarks.plot(rows, plot)
        except OSError as error:
            _refuse(f"cannot write {plot}: {error.strerror}")


def _must_be_able_to_plot(file: Path, topic: str | None) -> None:
    """Refuse before the work begins what cannot be drawn after it."""
    if topic == EXPLORE:
        _refuse(f"--plot draws {', '.join(benchmarks.TOPICS)}: {EXPLORE} has a table only")
    if file.suffix not in benchmarks.PLOTS:
        _refuse(f"--plot {file}: give a name that ends in {' or '.join(benchmarks.PLOTS)}")
    if find_spec("matplotlib") is None:
        _refuse("--plot needs matplotlib; do: pip install 'armed[bench]'")
    must_be_writable(file)


def _explore_beside_tlc(progress: Callable[[str], None]) -> list[tlc.Opinion]:
    opinions = []
    for each in tlc.second_opinions([*tlc.QUICK, *tlc.USUAL]):
        opinions.append(each)
        progress(f"{EXPLORE}: {each.profile}, {each.environment}, {each.size}")
    return opinions


@app.command()
def conform(
    target: Annotated[
        str | None,
        typer.Argument(
            help=f"{', '.join(ADAPTERS)}, postgres:BINDIR (a server's programs), or package.module:Class of your own "
            "implementation.",
            show_default="armed:fork",
        ),
    ] = None,
    histories: Annotated[
        int | None, typer.Option(min=1, show_default="200", help="How many random histories, after the directed ones.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same choices; without it one is drawn, and shown.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Instead: every order in each state that fewer than so many reach.")
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(min=1, max=CHILDREN, show_default=str(exhaustive.SLOTS), help="With --depth: how many slots."),
    ] = None,
    failure: Annotated[
        Path, typer.Option(help="Where a history that differs is written, for --replay; not written if none does.")
    ] = Path("armed-failure.json"),
    replay: Annotated[
        Path | None, typer.Option(help="Play the history in this file on TARGET, and nothing else.", dir_okay=False)
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Hold real processes to the model, step by step. Exit 0 iff nothing differs and every cell was seen.

    A cell is the situation of a child at its death and the way it ended. With --depth it is each state, and each order
    in it. What differs is told as a story, shrunk, and kept in a file: --replay plays it again.
    """
    if replay is not None:
        if target is None:
            _refuse("--replay needs a TARGET: on which implementation is the history to be played?")
        _replay(target, replay, Output(json_file))
    target = target or "armed:fork"
    if depth is None and slots is not None:
        _refuse("--slots goes with --depth: other histories have as many slots as they need")
    if depth is not None and (histories, seed) != (None, None):
        _refuse("--depth leaves nothing to chance: leave --histories and --seed out")
    output = Output(json_file)
    report: Report | exhaustive.Exhaustion
    with _importing(), output.progress() as progress:
        if depth is None:
            report = run_conformance(
                target,
                200 if histories is None else histories,
                seed=seed,
                progress=lambda what, done, total: progress(f"{target}, {what}: {done} of {total}"),
            )
        else:
            report = exhaustive.exhaust(
                target,
                depth,
                slots=exhaustive.SLOTS if slots is None else slots,
                progress=lambda given, total: progress(f"{target}, orders: {given:,} of {total:,}"),
            )
    if isinstance(report, Report):
        _show_conformance(output.table, report)
    else:
        _show_exhaustion(output.table, report)
    output.write_json(report.as_json())
    if report.failing is not None:
        _keep(report.failing, failure, target, output)
    raise typer.Exit(HOLDS if report.passed else FAILS)


def _keep(failing: Mismatch, failure: Path, target: str, output: Output) -> None:
    try:
        histories_as_files.save(failing, failure)
    except OSError as error:
        _say(f"the history is not kept: {_in_words(error)}; do: --failure FILE")
        return
    told = f"The history is in {failure}; again: armed conform {target} --replay {failure}"
    output.table.print(told, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def _importing() -> Iterator[None]:
    """Let what is in the working directory be imported, as `python -m` has it; refuse what is no implementation."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        yield
    except exhaustive.NotSearched as error:
        _refuse(f"{error}: leave --depth out")
    except NotHere as error:
        _refuse(str(error))
    except UnknownTarget as error:
        _refuse(f"{error} (looked for in {here} and on PYTHONPATH)")


def _replay(target: str, file: Path, output: Output) -> NoReturn:
    try:
        history = histories_as_files.load(file)
    except OSError as error:
        _refuse(f"cannot read {file}: {error.strerror}")
    except histories_as_files.BadHistory as error:
        _refuse(str(error))
    with _importing(), output.progress() as progress:
        progress(f"{target}, {history.name}")
        result = replay_history(target, history)
    if result.mismatch is not None:
        output.table.print(f"[red]{escape(result.mismatch)}[/]", highlight=False, soft_wrap=True)
    if result.cannot is not None:
        output.table.print(f"[yellow]cut short: it cannot {escape(result.cannot)}[/]", highlight=False)
    verdict = "[green]no difference from the model[/]" if result.passed else "[red]it does not conform[/]"
    if result.mismatch is None and not result.passed:
        verdict = "[yellow]nothing of it could be compared[/]"
    output.table.print(f"{escape(target)}, {escape(history.name)}: {verdict}.", highlight=False, soft_wrap=True)
    output.write_json(result.as_json())
    raise typer.Exit(HOLDS if result.passed else FAILS)


@app.command("watch")
def watch_server(
    data_directory: Annotated[
        Path, typer.Argument(metavar="PGDATA", help="The server's data directory.", readable=False)
    ],
    interval: Annotated[float, typer.Option(min=0.001, help="Seconds between two looks.")] = 0.1,
    seconds: Annotated[float | None, typer.Option("--for", min=0, help="End after so many seconds.")] = None,
    changes: Annotated[
        bool, typer.Option("--changes", help="Tell each change of a flag and each child's end, too.")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Watch the slots of a running PostgreSQL server, 15 to 18: who is armed, armed exits, recoveries, the impossible.

    Read-only: no session, no signal, no trace; needs to be root, or may be the server's user. On a terminal a live
    table, else one event a line; with --json one object a line. Ctrl-C, SIGTERM or the server's end: it ends with a
    summary.
    Exit 1 iff something was seen that cannot be.
    """
    try:
        from armed_audit import watch
        from armed_conformance.postgres.memory import CannotLook
    except ModuleNotFoundError as error:
        _refuse(f"{str(error.name).partition('.')[0]} is not installed; do: pip install 'armed[postgres]'")
    if not math.isfinite(interval):
        _refuse(f"--interval {interval}: give seconds")
    output = Output(json_file)
    summary, ended_by = watch.Summary(), ""
    try:
        looker = watch.Looker(data_directory)
    except CannotLook as error:
        _refuse(str(error))
    # Lines of JSON and a table on the same terminal would be in each other's way; so would they in the same log.
    quiet = json_file == STANDARD_OUTPUT and (sys.stdout.isatty() or not output.table.is_terminal)
    with (
        closing(looker), output.json_lines() as write,
        watch.Screen(output.table, quiet=quiet) as screen,
    ):  # fmt: skip

        def tell(event: watch.Event) -> None:
            summary.add(event)
            if changes or event.kind in watch.NOTABLE:
                now = watch.local_time()
                if write is not None:
                    write(event.as_json(now))
                screen.log(watch.line_of(event, now))

        try:
            for look, events in watch.watch(looker, interval, seconds):
                calls.stop_if_interrupted()
                summary.looks += 1
                for event in events:
                    tell(event)
                screen.show(look, summary)
        except KeyboardInterrupt:
            pass
        except CannotLook as error:
            ended_by = str(error)
        tell(summary.event())
    if ended_by:
        _say(ended_by)
    raise typer.Exit(FAILS if summary.impossible else USAGE if ended_by else HOLDS)


def _of_which_source() -> dict[str, Any]:
    """Of which commit a result is, and whether files differed from it."""
    return {"commit": crash_points.commit(), "changed": crash_points.changed()}


# --- Tables ----------------------------------------------------------------------------------------------------------


_COLOURS = {"holds": "green", "NOT RUN": "yellow", "FAILS": "red"}


def _show_verification(console: Console, result: verification.Verification, evidence: Path) -> None:
    option = "" if result.extent.name == "usual" else f" --{result.extent.name}"
    table = Table(title=f"armed verify{option}", title_justify="left")
    table.add_column("part")
    table.add_column("what was looked at", overflow="fold")
    table.add_column("s", justify="right")
    table.add_column("")
    for part in result.parts:
        counts = ", ".join(f"{name.replace('_', ' ')} {_count(value)}" for name, value in part.counts.items())
        counts = "; ".join(filter(None, (part.not_run, counts)))
        verdict = f"[{_COLOURS[part.verdict]}]{part.verdict}[/]"
        table.add_row(part.name, f"{escape(part.claim)}\n[dim]{escape(counts)}[/]", f"{part.seconds:.1f}", verdict)
    console.print(table)
    for part in result.parts:
        if part.notes:
            console.print(f"[bold]{part.name}[/], in detail", highlight=False)
        for line in part.notes:
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
        for line in part.as_json()["failures"]:
            console.print(f"[red]{part.name}:[/] {escape(line)}", highlight=False, soft_wrap=True)
    for line in result.left_out:
        console.print(f"left out{f' by{option}' if option else ''}: {escape(line)}", highlight=False, soft_wrap=True)
    everything = f"Everything that was run holds; not run: {', '.join(result.not_run)}"
    held = f"[yellow]{everything}[/]" if result.not_run else "[green]Everything holds[/]"
    verdict = held if result.holds else "[red]Something does not hold[/]"
    console.print(f"{verdict} ({result.seconds:.1f} s).", highlight=False)
    console.print(f"The evidence is in {escape(str(evidence))}; a page of it: armed report DIR", highlight=False)


def _show_report(console: Console, data: dict[str, Any], page: Path) -> None:
    for line in data["stale"]:
        console.print(f"[yellow]stale:[/] {escape(line)}", highlight=False, soft_wrap=True)
    for line in (*data["dangling"], *data["not_shown"]["failed"]):
        console.print(f"[red]{escape(line)}[/]", highlight=False, soft_wrap=True)
    for line in data["not_shown"]["not_run"]:
        console.print(f"not run: {escape(line)}", highlight=False, soft_wrap=True)
    for line in data["not_shown"]["left_out"]:
        console.print(f"left out by this {data['extent']} run: {escape(line)}", highlight=False, soft_wrap=True)
    good = data["holds"] and not data["not_shown"]["failed"]
    holds = f"[green]of this {data['extent']} run holds[/]" if good else "[red]does not hold[/]"
    loose = "nothing dangles" if not data["dangling"] else f"[red]{len(data['dangling'])} lead nowhere[/]"
    console.print(f"The evidence {holds}; {loose}.", highlight=False)
    console.print(escape(str(page)), highlight=False, soft_wrap=True)


def _count(value: Any) -> str:
    return f"{sum(value.values()):,}" if isinstance(value, dict) else f"{value:,}"


_SHORT_SIGNS = {
    "proved": "[green]✓[/]",
    "refuted": "[yellow]✗[/]",
    "out of scope": "[dim]-[/]",
    "open": "[red]OPEN[/]",
}
_SIGNS = {
    "proved": "[green]proved[/]",
    "refuted": "[yellow]refuted[/]",
    "out of scope": "[dim]-[/]",
    "open": "[red]OPEN[/]",
}


def _show_matrix(console: Console, decided: list[matrix.Matrix]) -> None:
    ours = [each for each in decided if each.profile.name in PROFILES]
    short = len(decided) > _MOST_IN_WORDS
    for title, shown in (("armed prove", ours), ("negative controls", [each for each in decided if each not in ours])):
        if shown:
            console.print(_table_of_verdicts(title, shown, short))
    proved, refuted = ("✓", "✗ n") if short else ("proved", "refuted (n)")
    console.print(f"{proved}: proved for any number of slots and children (*: by each action alone,", highlight=False)
    console.print(f"without the invariant); {refuted}: refuted, by a run of n steps, the shortest;", highlight=False)
    console.print("-: out of scope; blank: not asked", highlight=False)


def _table_of_verdicts(title: str, decided: list[matrix.Matrix], short: bool) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("property", overflow="fold")
    for each in decided:
        table.add_column(each.profile.name, no_wrap=True, min_width=len(each.profile.name))
    cells = {(each.profile.name, cell.name): cell for each in decided for cell in each.cells}
    names = {cell.name: cell for each in decided for cell in each.cells}
    order = sorted(names, key=lambda name: (matrix.ALL_NAMES.index(names[name].claim.name), names[name].backends_alone))
    for name in order:
        row = [cells.get((each.profile.name, name)) for each in decided]
        environment = names[name].claim.environment
        about = ("  backends alone" if names[name].backends_alone else name) + (
            f" [dim]{environment}[/]" if environment != "calm" else ""
        )
        table.add_row(about, *["" if cell is None else _sign(cell, short) for cell in row])
    return table


_MOST_IN_WORDS = 2
"""Of how many profiles the verdicts stand in words beside each other, in 80 columns."""


def _sign(cell: matrix.Cell, short: bool) -> str:
    star = "*" * (cell.restates and cell.verdict is matrix.Verdict.PROVED)
    steps = "" if cell.counterexample is None else f"{len(cell.counterexample)}"
    if short:
        return _SHORT_SIGNS[cell.verdict.value] + (f" {steps}" if steps else "") + star
    return _SIGNS[cell.verdict.value] + (f" ({steps})" if steps else "") + star


def _show_cells(console: Console, cells: list[matrix.Cell], *, runs: bool) -> None:
    for cell in cells:
        if cell.counterexample is not None:
            finding = cell.finding
            console.print(f"\n[bold]{cell.profile}: {cell.name}[/] is refuted.", highlight=False, soft_wrap=True)
            if finding is not None:
                mended = f" Mended by {finding.mended_by}." if finding.mended_by else " Not mended."
                told = f"{escape(finding.sentence)}{mended} {versions.REACH[finding.reach]}"
                console.print(f"  {told}", highlight=False, soft_wrap=True)
            if runs:
                console.print(f"  Claimed: {escape(cell.claim.sentence)}", highlight=False, soft_wrap=True)
                console.print(f"  A shortest run ({cell.scope}):")
                _tell_run(console, cell.story)
        if runs and cell.verdict is matrix.Verdict.OUT_OF_SCOPE:
            told = f"\n[bold]{cell.profile}: {cell.name}[/] is out of scope: {escape(cell.claim.out_of_scope)}."
            console.print(told, highlight=False, soft_wrap=True)
        for failure in cell.failures:
            console.print(f"[red]{cell.claim.name}:[/] {failure.name}: {escape(failure.answer)}", soft_wrap=True)
        if cell.premise is None and cell.verdict is matrix.Verdict.OPEN:
            console.print(f"[red]{cell.claim.name}:[/] its premise was never reached: nothing is proved")


def _tell_run(console: Console, story: Iterable[str]) -> None:
    for number, line in enumerate(story, 1):
        console.print(f"  {number}. {escape(line)}", highlight=False, soft_wrap=True)


def _show_trace(console: Console, journal: str, profile: str, found: trace.Verdict) -> None:
    if found.accepted:
        foreign = f", {found.foreign_words} with a foreign word in its slot at the end" if found.foreign_words else ""
        supervisors = f"{found.supervisors} supervisor{'s' * (found.supervisors != 1)}"
        told = f"[green]a behaviour of {profile}[/]: {found.lines:,} lines, {supervisors}{foreign}."
        console.print(f"{escape(journal)}: {told}", highlight=False, soft_wrap=True)
        return
    where = f"line {found.lines + 1:,}" if found.seen else "the end"
    before = f"{found.lines:,} lines are, but " if found.lines else ""
    told = f"[red]no behaviour of {profile}[/]: {before}not {where}."
    console.print(f"{escape(journal)}: {told}", highlight=False, soft_wrap=True)
    if found.seen:
        console.print(f"  {escape(found.seen[:400])}", highlight=False, soft_wrap=True)
    console.print(f"  {escape(found.reason)}", highlight=False, soft_wrap=True)
    console.print("What could have come:", highlight=False)
    for line in found.allowed:
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def _show_mutants(console: Console, report: MutationReport) -> None:
    table = Table(title="armed mutate", title_justify="left", show_header=False)
    table.add_row("mutants", str(len(report.judgements)))
    for fate, count in report.counts.items():
        table.add_row(fate.value, str(count))
    console.print(table)
    kills = Table(title="who kills what", title_justify="left")
    for column in ("property", "kills", "alone"):
        kills.add_column(column, justify="left" if column == "property" else "right")
    for name, each in report.kills.items():
        if each.all:
            kills.add_row(name, str(each.all), str(each.alone))
    console.print(kills)
    for judgement in report.survivors:
        console.print(f"[red]survivor:[/] {escape(describe(judgement))}", highlight=False, soft_wrap=True)
    verdict = "[green]no survivor[/]" if not report.survivors else f"[red]{len(report.survivors)} survive[/]"
    console.print(f"{len(report.judgements)} mutants, {verdict} ({report.seconds:.0f} s).", highlight=False)


def _of_what(machine: dict[str, Any]) -> str:
    peers = "".join(f", {name} {each}" for name, each in machine["versions"].items())
    busy = machine["load"] > 0.5
    return (
        f"{machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}{peers}. "
        f"Load {machine['load']} at the beginning"
        + (": [yellow]others are using this machine, quote ratios only[/]." if busy else ".")
    )


def _show_bench(console: Console, name: str, what: str, rows: list[benchmarks.Row]) -> None:
    table = Table(title=f"armed bench {name}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "n", "median", "p10", "p90", "target"):
        table.add_column(column, justify="left" if column in ("", "target") else "right", no_wrap=not column)
    case = ""
    for row in rows:
        if not row.samples:
            continue
        if row.case != case:
            table.add_section()
            table.add_row(f"[bold]{row.case}[/], {row.unit}")
            case = row.case
        figures = [_figure(each) for each in (row.median, row.quantile(0.1), row.quantile(0.9))]
        alone = [_target(ratio) for ratio in row.ratios if not ratio.to]
        table.add_row(f"  {row.who}", str(len(row.samples)), *figures, *alone)
        for ratio in row.ratios:
            if ratio.to:
                table.add_row(f"    / {ratio.to}", "", f"{_figure(ratio.value)} x", "", "", _target(ratio))
    console.print(table)
    console.print(escape(what), highlight=False, soft_wrap=True)
    for row in rows:
        if row.not_run:
            line = f"{row.case}, {row.who}: [yellow]not run[/]: {escape(row.not_run)}"
            console.print(line, highlight=False, soft_wrap=True)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _target(ratio: benchmarks.Ratio) -> str:
    if ratio.target is None:
        return ""
    return f"<= {ratio.target:g}: " + ("[green]met[/]" if ratio.is_met else "[red]not met[/]")


def _show_opinions(console: Console, opinions: list[tlc.Opinion]) -> None:
    table = Table(title=f"armed bench {EXPLORE}", title_justify="left")
    for column in ("instance", "states", "armed, s", "TLC, s", "armed / TLC"):
        table.add_column(column, justify="left" if column == "instance" else "right")
    for each in opinions:
        ratio = each.our_seconds / each.their_seconds
        table.add_row(
            f"{each.profile}, {each.environment}, {each.size}", f"{each.ours:,}",
            f"{each.our_seconds:.2f}", f"{each.their_seconds:.2f}", f"{ratio:.2f}",
        )  # fmt: skip
    console.print(table)


def _show_conformance(console: Console, report: Report) -> None:
    result = report.as_json()
    table = Table(title=f"armed conform {escape(report.target)}", title_justify="left", show_header=False)
    table.add_row("histories", f"{result['histories']:,}, of which {result['directed']} are directed")
    for name in ("steps", "refusals", "armed_deaths", "recoveries", "seed"):
        table.add_row(name.replace("_", " "), f"{result[name]:,}" if name != "seed" else f"{result[name]}")
    table.add_row("most generations", f"{result['generations']} in one history")
    table.add_row("deaths ordered", ", ".join(f"{kind}: {count}" for kind, count in result["deaths"].items()))
    table.add_row("all decisions", ", ".join(f"{kind}: {count}" for kind, count in result["decisions"].items()))
    table.add_row("cells seen", f"{result['cells_seen']} of {result['cells_wanted']}")
    table.add_row("cannot", ", ".join(report.cannot) or "nothing: it can express every step and exit kind")
    console.print(table)
    if report.left_out or report.cut_short:
        ends = f"the ends of {len(report.cut_short)} directed histories (--json names them)"
        told = f"{len(report.left_out)} cells, {ends}"
        console.print(f"[yellow]not looked at, for what it cannot do:[/] {told}", highlight=False, soft_wrap=True)
    _show_verdict(console, report)


def _show_exhaustion(console: Console, report: exhaustive.Exhaustion) -> None:
    result = report.as_json()
    title = f"armed conform {escape(report.target)} --depth {report.depth}"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_row("slots", f"{report.slots}")
    table.add_row("states", f"{report.states_seen:,} of {report.states:,} that fewer than {report.depth} orders reach")
    table.add_row("orders in them", f"{result['orders_given']:,} of {report.orders:,}")
    for name in ("histories", "steps", "refusals", "armed_deaths", "recoveries"):
        table.add_row(name.replace("_", " "), f"{result[name]:,}")
    for name in ("deaths", "decisions"):
        table.add_row(name, ", ".join(f"{kind}: {count}" for kind, count in result[name].items()))
    table.add_row("cannot", ", ".join(report.cannot) or "nothing: it can express every step and exit kind")
    table.add_row("never ordered", ", ".join(report.never_ordered) or "nothing of what it can")
    console.print(table)
    _show_verdict(console, report)


def _show_verdict(console: Console, report: Report | exhaustive.Exhaustion) -> None:
    if report.mismatch:
        console.print(f"[red]{escape(report.mismatch)}[/]", highlight=False, soft_wrap=True)
    for each in report.missing[: 0 if report.mismatch else 10]:
        console.print(f"[red]never seen:[/] {escape(str(each))}", soft_wrap=True)
    verdict = "[green]no difference from the model[/]" if report.passed else "[red]it does not conform[/]"
    console.print(f"{escape(report.target)}: {verdict} ({report.seconds:.1f} s).", highlight=False)
