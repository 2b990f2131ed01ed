"""The command line: `armed verify`, `armed prove`, `armed conform`. Names and exit statuses are part of the interface.

Tables go to standard output, progress to standard error. With `--json` and no file the JSON takes standard output, and
the table goes to standard error. A file of `--json` is known by its ending, so that it is not taken for a target, nor a
target for a file: `--json x.json`, or `--json=FILE` for any other name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from armed_audit import verify as verification
from armed_conformance.run import ADAPTERS, Report, UnknownTarget
from armed_conformance.run import conform as run_conformance
from armed_model.properties import BY_NAME
from armed_proofs import matrix

HOLDS, FAILS, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: everything holds; something does not; the call is off, or its result cannot be shown; Ctrl-C."""

app = typer.Typer(
    name="armed",
    help="A formally checked dead man switch for worker processes: proofs, and real processes held to the model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
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
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else USAGE
    return HOLDS


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
        """Give a function that says what is being worked on; on a terminal as one line that is written over.

        Ctrl-C inside ends the command with one clear line.
        """
        try:
            if not self._progress.is_terminal:
                yield lambda _: None
                return
            with Status("", console=self._progress) as status:
                yield lambda what: status.update(escape(what))
        except KeyboardInterrupt:
            print("armed: interrupted; all processes it started have ended", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    def finished(self, part: verification.Part) -> None:
        """Say that a part is through, where there is no terminal to show progress on."""
        if not self._progress.is_terminal:
            told = f"armed: {part.name} {'holds' if part.holds else 'FAILS'} ({part.seconds:.1f} s)"
            print(told, file=sys.stderr, flush=True)

    def write_json(self, result: Any) -> None:
        """Write the result where it was asked for."""
        if self._json_file is None:
            return
        text = json.dumps(result, indent=2) + "\n"
        if self._json_file == STANDARD_OUTPUT:
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except BrokenPipeError:
                _nobody_reads()
            return
        try:
            Path(self._json_file).write_text(text)
        except OSError as error:
            _refuse(f"cannot write {self._json_file}: {error.strerror}")


def must_be_writable(file: Path) -> None:
    """Refuse a file that cannot be written before the work begins, not after it. Leaves nothing behind."""
    try:
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
    full: Annotated[bool, typer.Option("--full", help="Everything (the default).")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="What could not be run is a failure.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the random histories; without it one is drawn.")] = None,
    evidence: Annotated[Path, typer.Option(help="Where the result is kept, as verify.json.")] = Path("armed-evidence"),
    json_file: JsonOption = None,
) -> None:
    """Run everything: model, proofs, negative controls, and real processes; one table. Exit 0 iff everything holds."""
    if quick and full:
        _refuse("--quick and --full exclude each other")
    output = Output(json_file)
    file = evidence / "verify.json"
    try:
        evidence.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(f"cannot keep the result in {evidence}: {error.strerror}; give another --evidence DIR")
    must_be_writable(file)
    with output.progress() as progress:
        result = verification.verify(
            quick=quick, strict=strict, seed=seed, progress=progress, finished=output.finished
        )
    _show_verification(output.table, result)
    as_json = result.as_json()
    output.write_json(as_json)
    try:
        file.write_text(json.dumps(as_json, indent=2) + "\n")
    except OSError as error:
        _refuse(f"cannot write {file}: {error.strerror}")
    raise typer.Exit(HOLDS if result.holds else FAILS)


@app.command()
def prove(
    profile: Annotated[str | None, typer.Option(help="One profile or negative control; without it, all.")] = None,
    claim: Annotated[str | None, typer.Option("--property", help="One property; without it, all.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Record the verdicts found as the expected ones.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Decide every property: proved for any number of slots and children, or refuted with a shortest run.

    Exit 0 iff all verdicts equal the recorded ones.
    """
    if profile is not None and profile not in matrix.ALL_PROFILES:
        _refuse(f"no profile {profile!r}: give one of {', '.join(matrix.ALL_PROFILES)}")
    if claim is not None and claim not in BY_NAME:
        _refuse(f"no property {claim!r}: give one of {', '.join(BY_NAME)}")
    if record and (profile or claim):
        _refuse("--record takes all verdicts: leave --profile and --property out")
    output = Output(json_file)
    with output.progress() as progress:
        names = [profile] if profile else list(matrix.ALL_PROFILES)
        decided = [matrix.decide(name, progress, claim) for name in names]
    cells = [cell for each in decided for cell in each.cells]
    if not cells:
        _refuse(f"nothing is recorded of {claim} in {profile}")
    if record:
        print(f"recorded in {matrix.record(decided)}", file=sys.stderr)
    _show_cells(output.table, cells)
    differences = matrix.unexpected(decided, claim)
    for line in differences:
        output.table.print(f"[red]not as recorded:[/] {escape(line)}")
    output.write_json([cell.as_json() for cell in cells])
    raise typer.Exit(FAILS if differences else HOLDS)


@app.command()
def conform(
    target: Annotated[
        str, typer.Argument(help=f"{', '.join(ADAPTERS)}, or package.module:Class of your own implementation.")
    ] = "armed:fork",
    histories: Annotated[int, typer.Option(min=1, help="How many random histories, after the directed ones.")] = 200,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same choices; without it one is drawn, and shown.")
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Hold real processes to the model, step by step. Exit 0 iff nothing differs and every cell was seen.

    A cell is the situation of a child at its death and the way it ended. What differs is told as a story, shrunk.
    """
    output = Output(json_file)
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` has it
    try:
        with output.progress() as progress:
            report = run_conformance(
                target,
                histories,
                seed=seed,
                progress=lambda what, done, total: progress(f"{target}, {what}: {done} of {total}"),
            )
    except UnknownTarget as error:
        _refuse(f"{error} (looked for in {here} and on PYTHONPATH)")
    _show_conformance(output.table, report)
    output.write_json(report.as_json())
    raise typer.Exit(HOLDS if report.passed else FAILS)


# --- Tables ----------------------------------------------------------------------------------------------------------


def _show_verification(console: Console, result: verification.Verification) -> None:
    table = Table(title="armed verify" + (" --quick" if result.quick else ""), title_justify="left")
    table.add_column("part")
    table.add_column("what was looked at", overflow="fold")
    table.add_column("s", justify="right")
    table.add_column("")
    for part in result.parts:
        counts = ", ".join(f"{name.replace('_', ' ')} {_count(value)}" for name, value in part.counts.items())
        verdict = "[green]holds[/]" if part.holds else "[red]FAILS[/]"
        table.add_row(part.name, f"{escape(part.claim)}\n[dim]{escape(counts)}[/]", f"{part.seconds:.1f}", verdict)
    console.print(table)
    for part in result.parts:
        for line in part.notes:
            console.print(escape(line), highlight=False, soft_wrap=True)
        for line in part.as_json()["failures"]:
            console.print(f"[red]{part.name}:[/] {escape(line)}", highlight=False, soft_wrap=True)
    for line in result.left_out:
        console.print(f"left out by --quick: {escape(line)}", highlight=False)
    verdict = "[green]Everything holds[/]" if result.holds else "[red]Something does not hold[/]"
    console.print(f"{verdict} ({result.seconds:.1f} s).", highlight=False)


def _count(value: Any) -> str:
    return f"{sum(value.values()):,}" if isinstance(value, dict) else f"{value:,}"


def _show_cells(console: Console, cells: list[matrix.Cell]) -> None:
    for profile in dict.fromkeys(cell.profile for cell in cells):
        table = Table(title=f"armed prove: {profile}", title_justify="left", min_width=72)
        table.add_column("property", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("scope")
        for cell in cells:
            if cell.profile == profile:
                colour = {"proved": "green", "refuted": "yellow"}.get(cell.verdict.value, "red")
                scope = cell.scope + ", definitional" * cell.restates
                table.add_row(cell.claim.name, f"[{colour}]{cell.verdict.value}[/]", scope)
        console.print(table)
    for cell in cells:
        if cell.counterexample is not None:
            told = f"\n{cell.profile}: {cell.claim.name} is refuted. {escape(cell.claim.sentence)}"
            console.print(told, highlight=False, soft_wrap=True)
            console.print(f"A shortest run ({cell.scope}):")
            for number, line in enumerate(cell.story, 1):
                console.print(f"  {number}. {escape(line)}", highlight=False, soft_wrap=True)
        for failure in cell.failures:
            console.print(f"[red]{cell.claim.name}:[/] {failure.name}: {escape(failure.answer)}", soft_wrap=True)
        if cell.premise is None:
            console.print(f"[red]{cell.claim.name}:[/] its premise was never reached: nothing is proved")


def _show_conformance(console: Console, report: Report) -> None:
    result = report.as_json()
    table = Table(title=f"armed conform {escape(report.target)}", title_justify="left", show_header=False)
    for name in ("histories", "directed", "steps", "refusals", "armed_deaths", "recoveries", "generations", "seed"):
        table.add_row(name.replace("_", " "), f"{result[name]}")
    table.add_row("deaths", ", ".join(f"{kind}: {count}" for kind, count in result["deaths"].items()))
    table.add_row("decisions", ", ".join(f"{kind}: {count}" for kind, count in result["decisions"].items()))
    table.add_row("cells seen", f"{result['cells_seen']} of {result['cells_wanted']}")
    table.add_row("cannot", ", ".join(report.cannot) or "nothing: it can express every step and exit kind")
    console.print(table)
    for line in _not_looked_at(report):
        console.print(f"[yellow]{escape(line)}[/]", highlight=False, soft_wrap=True)
    if report.mismatch:
        console.print(f"[red]{escape(report.mismatch)}[/]", highlight=False, soft_wrap=True)
    for cell in report.missing[: 0 if report.mismatch else 10]:
        console.print(f"[red]never seen:[/] {escape(str(cell))}", soft_wrap=True)
    verdict = "[green]no difference from the model[/]" if report.passed else "[red]it does not conform[/]"
    console.print(f"{escape(report.target)}: {verdict} ({report.seconds:.1f} s).", highlight=False)


def _not_looked_at(report: Report) -> list[str]:
    """Say which cells and which stories an implementation escapes by what it cannot do."""
    lines = [f"not looked at, for what it cannot do: {len(report.left_out)} cells"] if report.left_out else []
    for situation in dict.fromkeys(cell.situation for cell in report.left_out):
        kinds = [cell.exit_kind for cell in report.left_out if cell.situation == situation]
        lines.append(f"  {situation}: {', '.join(kinds)}")
    cells = {str(cell) for cell in report.left_out}
    lines += [f"  cut short: {name}" for name in report.cut_short if name not in cells]
    return lines
