"""A second opinion: cvc5, another solver, on every obligation that z3 calls proved.

cvc5 shares nothing with z3 but the text: it reads the same SMT-LIB that stands in the evidence. It has to answer
`unsat`, too. `sat`, `unknown`, a time-out, an error or no answer at all is a disagreement, never a pass.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import z3

from armed_model.system import System
from armed_proofs.evidence import EXPECTED, LOGIC, all_systems, declarations, for_each_system, prove, smtlib, write
from armed_proofs.invariants import key
from armed_proofs.obligations import Obligation

LIMIT_MS = 10_000
"""How long cvc5 may think about one query. They take milliseconds; one that does not is a failure, never a pass."""


class Missing(Exception):
    """cvc5 cannot be asked: the package `cvc5` is not installed."""


@dataclass(frozen=True)
class Opinion:
    """What cvc5 says of everything that z3 proves of one system.

    `disagreements`: each obligation that it does not answer `unsat`, with its answer. `skipped`: the properties that
    z3 does not prove, so that there is nothing to ask about them.
    """

    profile: str
    environment: str
    obligations: int
    impossible: int
    disagreements: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...]
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether there was something to ask, and cvc5 answered all of it as z3 did."""
        return self.obligations > 0 and not self.disagreements

    def as_json(self) -> dict[str, Any]:
        """Return the opinion in the published format. The seconds are cvc5's alone."""
        return {
            "profile": self.profile,
            "environment": self.environment,
            "obligations": self.obligations,
            "impossible": self.impossible,
            "disagreements": [{"obligation": name, "answer": answer} for name, answer in self.disagreements],
            "not_proved": list(self.skipped),
            "seconds": round(self.seconds, 3),
        }


def version() -> str:
    """Return the name and version of the solver. Raises Missing."""
    return f"cvc5 {_cvc5().__version__}"


def _cvc5() -> Any:
    try:
        import cvc5
    except ImportError as missing:
        raise Missing("cvc5 is not there: install it with `pip install cvc5`") from missing
    return cvc5


def second_opinions(
    systems: Iterable[System] | None = None,
    *,
    jobs: int = 2,
    limit_ms: int = LIMIT_MS,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Opinion]:
    """Let z3 prove what is claimed of each system (of all of them, when missing), and ask cvc5 the same.

    In so many processes at once. Raises Missing, NotInductive, Refused.
    """
    _cvc5()
    work = partial(_opinion, limit_ms)
    return for_each_system(work, all_systems() if systems is None else systems, jobs, progress)


def _opinion(limit_ms: int, system: System) -> Opinion:
    proofs = prove(system)
    began = time.perf_counter()
    answers = ask(proofs.obligations, proofs.impossible, limit_ms=limit_ms)
    asked = zip(proofs.obligations, answers, strict=True)
    return Opinion(
        system.profile.name,
        key(system),
        len(answers),
        len(proofs.impossible),
        tuple((each.name, answer) for each, answer in asked if answer != EXPECTED),
        proofs.skipped,
        time.perf_counter() - began,
    )


def ask(obligations: Sequence[Obligation], impossible: Collection[str] = (), *, limit_ms: int = LIMIT_MS) -> list[str]:
    """Return cvc5's answer to each obligation: "unsat", or whatever else it says. Raises Missing and Refused.

    Of those named `impossible` it is asked whether the facts alone are unsatisfiable, which is more. Obligations with
    the same facts are first asked together: whether one of their goals can fail. Only if that is not `unsat`, each is
    asked alone, by a new solver, in the text that stands in the evidence, but for the answer that is expected.
    """
    obligations = [
        Obligation(each.name, each.facts, _FALSE, each.of_an_action) if each.name in impossible else each
        for each in obligations
    ]
    groups = [list(group) for _, group in itertools.groupby(obligations, key=lambda each: id(each.facts))]
    together = _ask_together(groups, limit_ms)
    answers = []
    for group, answer in zip(groups, together, strict=True):
        if answer == EXPECTED:
            answers += [EXPECTED] * len(group)
        else:
            answers += [_ask_alone(each, limit_ms) for each in group]
    return answers


_FALSE = z3.BoolVal(False)


def _ask_together(groups: Sequence[Sequence[Obligation]], limit_ms: int) -> list[str]:
    """Ask one solver for an answer to each group.

    What costs time is to read the facts, and to assert them. So each is read once and has a name; and the groups of
    one action, by which the names of obligations begin, follow each other: what they share is asserted once.
    """
    lines, names = _named_facts(groups)
    by_action: dict[str, list[int]] = {}
    for at, group in enumerate(groups):
        by_action.setdefault(group[0].name.partition(" ")[0], []).append(at)
    for of_the_action in by_action.values():
        known = {at: dict.fromkeys(names[id(fact)] for fact in groups[at][0].facts) for at in of_the_action}
        shared = set.intersection(*map(set, known.values()))
        lines += ["(push)", _assert_all(name for name in known[of_the_action[0]] if name in shared)]
        for at in of_the_action:
            lines += ["(push)", _assert_all(name for name in known[at] if name not in shared)]
            lines.append(f"(assert (or {' '.join(f'(not {write(each.goal).text})' for each in groups[at])} false))")
            lines += ["(check-sat)", "(pop)"]
        lines.append("(pop)")
    answers = _answers("\n".join(lines), limit_ms, incremental=True)
    if len(answers) != len(groups):
        return ["no answer"] * len(groups)
    in_their_order = dict(zip(itertools.chain(*by_action.values()), answers, strict=True))
    return [in_their_order[at] for at in range(len(groups))]


def _named_facts(groups: Sequence[Sequence[Obligation]]) -> tuple[list[str], dict[int, str]]:
    """Return the declarations, a definition of each fact, and the facts' names by the facts' (Python) ids."""
    facts = {id(fact): write(fact) for fact in {id(fact): fact for group in groups for fact in group[0].facts}.values()}
    goals = [write(each.goal) for group in groups for each in group]
    by_text = {text: f"|fact {at}|" for at, text in enumerate(dict.fromkeys(fact.text for fact in facts.values()))}
    lines = [f"(set-logic {LOGIC})", *declarations((*facts.values(), *goals))]
    lines += [f"(define-fun {name} () Bool {text})" for text, name in by_text.items()]
    return lines, {each: by_text[fact.text] for each, fact in facts.items()}


def _assert_all(names: Iterable[str]) -> str:
    return f"(assert (and {' '.join(names)} true))"


def _ask_alone(obligation: Obligation, limit_ms: int) -> str:
    text = smtlib(obligation).replace(f"(set-info :status {EXPECTED})\n", "")
    answers = _answers(text, limit_ms)
    return answers[0] if len(answers) == 1 else f"no answer: {answers}"


def _answers(text: str, limit_ms: int, *, incremental: bool = False) -> list[str]:
    """Have a new solver read the text, and return all that it says."""
    cvc5 = _cvc5()
    manager = cvc5.TermManager()
    solver = cvc5.Solver(manager)
    solver.setOption("tlimit-per", str(limit_ms))
    solver.setOption("incremental", "true" if incremental else "false")
    symbols = cvc5.SymbolManager(manager)
    parser = cvc5.InputParser(solver, symbols)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "obligation")
    said = []
    try:
        while not (command := parser.nextCommand()).isNull():
            if line := command.invoke(solver, symbols).strip():
                said.append(line)
    except RuntimeError as error:  # all of cvc5's own are
        said.append(f"error: {error}")
    return said
