"""Every query as a text in SMT-LIB, with its hash: so that whoever believes neither us nor z3 can ask another solver.

A text is complete, and is to be answered `unsat`. It depends on nothing but the query: not on what was asked before,
nor on the order of a set; so its SHA-256 tells whether another version of the model asks the same.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import z3

from armed_model.profiles import PROFILES, Profile
from armed_model.properties import LeadsTo, Property, leads_to, properties
from armed_model.system import ENVIRONMENTS, System
from armed_proofs import liveness
from armed_proofs.invariants import key
from armed_proofs.matrix import Claim, expected_verdicts
from armed_proofs.obligations import IMPOSSIBLE, Obligation, discharge, invariant_obligations, property_obligations
from armed_proofs.processes import workers

LOGIC = "QF_AUFDTLIA"
"""No quantifiers; arrays, free sorts, enumerations (as data types without fields), linear integers."""

EXPECTED = "unsat"
"""The answer that every text is to get."""

LONGEST_NAME = 120
"""How many characters the name of a file may have, well within every file system's limit."""

Ask = Callable[[Sequence[Obligation], Collection[str]], Sequence[str]]
"""Asks another solver: obligations, and the names of those that z3 called impossible -> an answer to each."""

_Result = TypeVar("_Result")


class Refused(Exception):
    """A query has a quantifier, or something else that is not of the fragment; it is not written."""


class NotInductive(Exception):
    """z3 does not prove that the recorded invariant is one, so that nothing that rests on it is evidence."""


# --- Expressions -----------------------------------------------------------------------------------------------------

Declaration = tuple[int, str, str]
"""Rank, name and text: sorts come before the constants of these sorts."""


@dataclass(frozen=True)
class Written:
    """An expression in SMT-LIB, and what has to be declared before it. `source` keeps the expression's id its own."""

    text: str
    needs: frozenset[Declaration]
    source: Any = None


_NAMES = {
    z3.Z3_OP_TRUE: "true",
    z3.Z3_OP_FALSE: "false",
    z3.Z3_OP_NOT: "not",
    z3.Z3_OP_AND: "and",
    z3.Z3_OP_OR: "or",
    z3.Z3_OP_IMPLIES: "=>",
    z3.Z3_OP_EQ: "=",
    z3.Z3_OP_DISTINCT: "distinct",
    z3.Z3_OP_ITE: "ite",
    z3.Z3_OP_SELECT: "select",
    z3.Z3_OP_STORE: "store",
    z3.Z3_OP_LE: "<=",
    z3.Z3_OP_LT: "<",
    z3.Z3_OP_GE: ">=",
    z3.Z3_OP_GT: ">",
}
_IN_ANY_ORDER = (z3.Z3_OP_AND, z3.Z3_OP_OR, z3.Z3_OP_EQ, z3.Z3_OP_DISTINCT)
_OF_NOTHING = {z3.Z3_OP_AND: "true", z3.Z3_OP_OR: "false"}
_WRITTEN: dict[int, Written] = {}


def write(expression: Any) -> Written:
    """Write an expression without quantifiers. Raises Refused.

    Where the order of arguments means nothing it is the alphabet's: z3's own depends on what was built before.
    """
    known = _WRITTEN.get(expression.get_id())
    if known is None:
        known = _WRITTEN[expression.get_id()] = replace(_write_anew(expression), source=expression)
    return known


def _write_anew(expression: Any) -> Written:
    if not z3.is_app(expression):
        raise Refused(f"not free of quantifiers: {expression}")
    declaration = expression.decl()
    kind = declaration.kind()
    if z3.is_int_value(expression):
        number = expression.as_long()
        return Written(str(number) if number >= 0 else f"(- {-number})", frozenset())
    if expression.num_args() == 0 and kind in (z3.Z3_OP_UNINTERPRETED, z3.Z3_OP_DT_CONSTRUCTOR):
        return _write_constant(expression, declaration.name(), is_declared=kind == z3.Z3_OP_UNINTERPRETED)
    if kind not in _NAMES:
        raise Refused(f"not of the logic {LOGIC}: {declaration.name()} in {expression}")
    if kind == z3.Z3_OP_SELECT and _begins_blank(expression.arg(0)):
        return write(_read(*expression.children()))
    parts = [write(part) for part in expression.children()]
    needs = frozenset[Declaration]().union(*[part.needs for part in parts])
    texts = [part.text for part in parts]
    if kind in _IN_ANY_ORDER:
        texts.sort()
    if kind in _OF_NOTHING and len(texts) < 2:
        return Written(texts[0] if texts else _OF_NOTHING[kind], needs)
    return Written(f"({' '.join([_NAMES[kind], *texts])})" if texts else _NAMES[kind], needs)


def _begins_blank(array: Any) -> bool:
    """Whether the array is constant but for what is stored in it. Not every solver takes those."""
    while z3.is_store(array):
        array = array.arg(0)
    return bool(z3.is_const_array(array))


def _read(array: Any, index: Any) -> Any:
    """Return what such an array has at the index, without the array."""
    if z3.is_const_array(array):
        return array.arg(0)
    return z3.If(index == array.arg(1), array.arg(2), _read(array.arg(0), index))


def _write_constant(expression: Any, name: str, *, is_declared: bool) -> Written:
    sort, needs = _write_sort(expression.sort())
    if is_declared:
        needs |= {(2, name, f"(declare-const {_symbol(name)} {sort})")}
    return Written(_symbol(name), needs)


def _write_sort(sort: Any) -> tuple[str, frozenset[Declaration]]:
    name = _symbol(sort.name())
    match sort.kind():
        case z3.Z3_BOOL_SORT | z3.Z3_INT_SORT:
            return name, frozenset()
        case z3.Z3_UNINTERPRETED_SORT:
            return name, frozenset({(0, name, f"(declare-sort {name} 0)")})
        case z3.Z3_DATATYPE_SORT:
            members = " ".join(f"({_symbol(sort.constructor(i).name())})" for i in range(sort.num_constructors()))
            return name, frozenset({(1, name, f"(declare-datatype {name} ({members}))")})
        case z3.Z3_ARRAY_SORT:
            (index, of_index), (value, of_value) = _write_sort(sort.domain()), _write_sort(sort.range())
            return f"(Array {index} {value})", of_index | of_value
    raise Refused(f"not of the logic {LOGIC}: the sort {sort}")


def _symbol(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][\w.!@$%^&*+=<>?/~-]*", name, re.ASCII) else f"|{name}|"


# --- Queries ---------------------------------------------------------------------------------------------------------


def write_facts(facts: Iterable[Any]) -> tuple[Written, ...]:
    """Write each fact once, in their order. Raises Refused."""
    return tuple({each.text: each for each in map(write, facts)}.values())


def smtlib(obligation: Obligation, system: System | None = None, claim: Claim | None = None) -> str:
    """Return the obligation as a complete benchmark in SMT-LIB 2.6, `unsat` if the obligation holds. Raises Refused.

    Of the system, and of the property that it belongs to, if any, it tells in comments.
    """
    return _benchmark(obligation, write_facts(obligation.facts), system, claim)


def _benchmark(
    obligation: Obligation, facts: tuple[Written, ...], system: System | None, claim: Claim | None
) -> str:
    goal = write(obligation.goal)
    lines = [f"; {line}" for line in _about(obligation, system, claim)]
    lines += [
        "(set-info :smt-lib-version 2.6)",
        f"(set-logic {LOGIC})",
        f"(set-info :status {EXPECTED})",
        *declarations((*facts, goal)),
        *[f"(assert {fact.text})" for fact in facts],
        f"(assert (not {goal.text}))",
        "(check-sat)",
    ]
    return "\n".join(lines) + "\n"


def declarations(expressions: Iterable[Written]) -> list[str]:
    """Return a line for each sort and constant that the expressions speak of."""
    return [text for _, _, text in sorted(frozenset[Declaration]().union(*[each.needs for each in expressions]))]


def _about(obligation: Obligation, system: System | None, claim: Claim | None) -> list[str]:
    lines = [f"obligation: {obligation.name}"]
    if system is not None:
        lines += [f"profile: {system.profile.name}", f"environment: {key(system)}"]
    if claim is not None:
        lines += [f"property: {claim.name}", f"says: {claim.sentence}", f"cites: {', '.join(claim.cites)}"]
    lines.append(f"expected: {EXPECTED}; the facts and the negated goal together have no model")
    return [" ".join(line.split()) for line in lines]


# --- What is proved of a system --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Proved:
    """An obligation that z3 answers `unsat`, and the property that it belongs to; without, it is the invariant's."""

    obligation: Obligation
    claim: Claim | None
    is_impossible: bool
    """The facts alone have no model: the action that they speak of cannot happen."""


@dataclass(frozen=True, eq=False, repr=False)
class Proofs:
    """All that z3 proves of a system. `skipped` are the properties that it does not: they are no evidence."""

    system: System
    proved: tuple[Proved, ...]
    skipped: tuple[str, ...]

    @property
    def obligations(self) -> list[Obligation]:
        """The queries."""
        return [each.obligation for each in self.proved]

    @property
    def impossible(self) -> frozenset[str]:
        """The names of the queries whose facts alone have no model."""
        return frozenset(each.obligation.name for each in self.proved if each.is_impossible)


def prove(system: System) -> Proofs:
    """Ask z3 what is claimed of the system; of backends alone, what is recorded of them. Raises NotInductive."""
    claims = _claims(system)
    asked: list[tuple[Claim | None, Obligation]] = [(None, each) for each in invariant_obligations(system)]
    asked += property_obligations(system, [each for each in claims if isinstance(each, Property)])
    for run in claims:
        if isinstance(run, LeadsTo):  # several share a chain of stages: a name has to say whose it is
            chain = liveness.obligations(system, run)
            asked += [(run, replace(each, name=f"{run.name}: {each.name}")) for each in chain]
    answers = list(discharge(each for _, each in asked))
    skipped: set[str] = set()
    for (claim, each), answer in zip(asked, answers, strict=True):
        if not answer.proved and claim is None:
            raise NotInductive(f"{system.profile.name}, {key(system)}: {each.name} is answered {answer.answer}")
        if not answer.proved and claim is not None:
            skipped.add(claim.name)
    proved = [
        Proved(each, claim, answer.answer == IMPOSSIBLE)
        for (claim, each), answer in zip(asked, answers, strict=True)
        if claim is None or claim.name not in skipped
    ]
    return Proofs(system, tuple(proved), tuple(claim.name for claim in claims if claim.name in skipped))


def _claims(system: System) -> list[Claim]:
    profile, alone = system.profile, system.backends_alone
    every: list[Claim] = [*properties(profile, alone), *leads_to(profile, alone)]
    recorded = expected_verdicts()[profile.name] if alone else {}
    return [
        each for each in every
        if each.environment == system.environment and not each.out_of_scope
        and (not alone or f"{each.name}, backends alone" in recorded)
    ]  # fmt: skip


def all_systems() -> tuple[System, ...]:
    """Return every profile in every environment, and backends alone where something is proved of them alone."""
    every = [System(profile, environment) for profile in PROFILES.values() for environment in ENVIRONMENTS]
    for profile in PROFILES.values():
        proved = {name for name, verdict in expected_verdicts()[profile.name].items() if verdict == "proved"}
        for environment in ENVIRONMENTS:
            alone = System(profile, environment, backends_alone=True)
            if any(f"{each.name}, backends alone" in proved for each in _claims(alone)):
                every.append(alone)
    return tuple(every)


def for_each_system(
    work: Callable[[System], _Result],
    systems: Iterable[System],
    jobs: int,
    progress: Callable[[str], None] = lambda _: None,
) -> list[_Result]:
    """Do the work for each system in so many processes, and return the results in the order of the systems.

    With one job it is done in this process. The calm environments, which have most queries, come first. An exception
    out of one is raised here.
    """
    systems = tuple(systems)
    told = [f"{system.profile.name}, {key(system)}" for system in systems]
    done: dict[int, _Result] = {}
    if jobs < 2:
        for at, system in enumerate(systems):
            done[at] = work(system)
            progress(f"{told[at]}: done")
    else:
        first = sorted(range(len(systems)), key=lambda at: systems[at].environment != "calm")
        with workers(jobs) as pool:
            running = {}
            for at in first:
                system = systems[at]
                running[pool.submit(_work, work, system.profile, system.environment, system.backends_alone)] = at
            for future in as_completed(running):
                done[running[future]] = future.result()
                progress(f"{told[running[future]]}: done")
    return [done[at] for at in range(len(systems))]


def _work(work: Callable[[System], _Result], profile: Profile, environment: str, backends_alone: bool) -> _Result:
    """Make the system anew in this process, because its expressions cannot be sent to another one."""
    return work(System(profile, environment, backends_alone))


# --- The evidence directory ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A line of the index: where the text is, its SHA-256, and who answered what.

    `impossible`: the facts alone are unsatisfiable, and that is what the other solver was asked.
    """

    file: str
    sha256: str
    obligation: str
    profile: str
    environment: str
    property: str | None
    cites: tuple[str, ...]
    impossible: bool
    expected: str
    z3: str
    cvc5: str | None


def write_evidence(
    directory: Path,
    systems: Iterable[System] | None = None,
    *,
    ask: Ask | None = None,
    versions: Sequence[str] = (),
    run: str = "",
    jobs: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write every proved obligation of the systems (of all of them, when missing) to a file, and return the index.

    The files are `smt2/PROFILE/ENVIRONMENT/NAME.smt2.gz`: the texts are long, and much alike. The hash is the text's,
    as `zcat FILE | sha256sum` prints it. `ask` gets another solver's answers, `versions` names that solver, `run` the
    run that they are of. What stands there of an earlier time is replaced, the index last: there is none of texts that
    are not all there. Raises NotInductive, Refused, OSError.
    """
    systems = all_systems() if systems is None else tuple(systems)
    index = directory / "smt2" / "index.json"
    index.unlink(missing_ok=True)
    written = for_each_system(partial(_write_system, directory, ask), systems, jobs, progress)
    head = {
        "run": run,
        "solvers": [f"z3 {z3.get_version_string()}", *versions],
        "not_proved": [
            {"profile": system.profile.name, "environment": key(system), "property": name}
            for system, (_, skipped) in zip(systems, written, strict=True)
            for name in skipped
        ],
    }
    lines = [json.dumps(asdict(entry)) for entries, _ in written for entry in entries]
    index.write_text(json.dumps(head, indent=1)[:-2] + ',\n "obligations": [\n' + ",\n".join(lines) + "\n ]\n}\n")
    return index


def _write_system(directory: Path, ask: Ask | None, system: System) -> tuple[list[Entry], tuple[str, ...]]:
    proofs = prove(system)
    opinions: Sequence[str | None] = [None] * len(proofs.proved)
    if ask is not None:
        opinions = ask(proofs.obligations, proofs.impossible)
    folder = Path("smt2", _safe(system.profile.name), _safe(key(system)))
    (directory / folder).mkdir(parents=True, exist_ok=True)
    for stale in (directory / folder).glob("*.smt2.gz"):
        stale.unlink()
    entries = []
    both = zip(proofs.proved, opinions, strict=True)
    for _, group in itertools.groupby(both, key=lambda each: id(each[0].obligation.facts)):
        facts: tuple[Written, ...] | None = None
        for each, opinion in group:
            facts = write_facts(each.obligation.facts) if facts is None else facts
            text = _benchmark(each.obligation, facts, system, each.claim).encode()
            file = folder / f"{_safe(each.obligation.name)}.smt2.gz"
            with open(directory / file, "xb") as packed:  # two obligations of one name would be an error
                packed.write(gzip.compress(text, compresslevel=5, mtime=0))
            entries.append(_entry(str(file), text, each, system, opinion))
    return entries, proofs.skipped


def _entry(file: str, text: bytes, proved: Proved, system: System, opinion: str | None) -> Entry:
    return Entry(
        file,
        hashlib.sha256(text).hexdigest(),
        proved.obligation.name,
        system.profile.name,
        key(system),
        proved.claim.name if proved.claim else None,
        proved.claim.cites if proved.claim else (),
        proved.is_impossible,
        EXPECTED,
        EXPECTED,  # what z3 did not answer so is not evidence
        opinion,
    )


def _safe(name: str) -> str:
    """Return the name with nothing in it that a file system or a shell might mind. Raises ValueError if it is long."""
    safe = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")
    if len(safe) > LONGEST_NAME:
        raise ValueError(f"the name is too long for a file: {safe}")
    return safe
