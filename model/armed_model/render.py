"""The definition in other languages: a TLA+ module of any system, for TLC and for whoever reads TLA+.

The module is derived from the same terms as everything else, and is meant to be read: an action is a definition with
its sentence above it and its guard's reasons beside it. It does not depend on the size of the instance, which stands
in the configuration. Slots and children are their numbers (0: none), words are numbers, members of an enumeration are
strings, and of the words that ran out `Used` says what the interpreter says, so that state counts can be compared.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import z3

from armed_model.interpret import NotInterpretable, Size
from armed_model.lifecycle import Who
from armed_model.profiles import CleanWord
from armed_model.properties import Claim, Property, actor, properties
from armed_model.system import BOUNDED_USED, CONSTANTS, RESERVED, WHO, System, used, variables, words
from armed_model.terms import Action, Parameter, Sort, Variable, symbols

WIDTH = 110
"""How wide a line of the module may be; only a long name makes it wider."""

_SETS = {"Slot": ("Slots", "0..N"), "Child": ("Children", "0..M"), "Word": ("Words", "Words")}
"""For each free sort, the set of what a parameter ranges over, and the set with "none" in it."""

_ENUMS = {sort.name: sort.enum for sort in (WHO, *[variable.sort for variable in variables]) if sort.enum is not None}

_KEPT = {"OTHER": "OTHER_WORD"}
"""Names that mean something in TLA+, and what is written for them."""

_VARIABLES = {variable.name for variable in variables}
_CONSTANTS = {constant.name for constant in CONSTANTS}

# How tightly an expression holds together, the loosest first
_LOOSE, _IMPLIES, _JUNCTION, _NOT, _COMPARISON, _ATOM = range(6)
_COMPARE = {z3.Z3_OP_LE: "<=", z3.Z3_OP_GE: ">=", z3.Z3_OP_LT: "<", z3.Z3_OP_GT: ">"}


# --- The module ------------------------------------------------------------------------------------------------------


def claims_of(system: System) -> tuple[Property, ...]:
    """Return what is claimed in this profile and just this environment, but for what is out of scope."""
    claims = properties(system.profile, system.backends_alone)
    return tuple(each for each in claims if each.environment == system.environment and not each.out_of_scope)


def tla_name(system: System) -> str:
    """Return the name of the module of a system, such as `armed_reference_calm`."""
    alone = "_backends_alone" if system.backends_alone else ""
    return re.sub(r"\W+", "_", f"armed_{system.profile.name}_{system.environment.lstrip('+')}{alone}")


def tla(system: System, claims: Iterable[Property] | None = None) -> str:
    """Return the TLA+ module of a system, with the properties given; without, all that are claimed of it.

    Raises NotInterpretable where a term uses an operator that has no translation.
    """
    module = _Module(system)
    actions = [line for action in system.actions for line in ("", *module.action(action))]
    who_acts = module.next_step()
    claimed = claims_of(system) if claims is None else tuple(claims)
    spoken = [line for claim in claimed for line in ("", *module.claim(claim))]
    lines = [
        f"{f' MODULE {tla_name(system)} ':-^{WIDTH}}",
        *_comment(f"Profile {system.profile.name}: {system.profile.sentence}"),
        *_comment(f"Environment: {system.environment}. Generated from the specification; do not edit."),
        "EXTENDS Integers",
        "",
        *module.sorts(),
        *module.state(),
        *actions,
        *who_acts,
        *spoken,
        "=" * WIDTH,
    ]
    return "\n".join(lines) + "\n"


def tla_config(system: System, size: Size, claims: Iterable[Property] | None = None) -> str:
    """Return the configuration that makes TLC check an instance of the module: its bounds, and what is claimed."""
    claimed = claims_of(system) if claims is None else tuple(claims)
    invariants = ["TypeOK", *[claim.name for claim in claimed if claim.claims is Claim.ALWAYS]]
    on_steps = [claim.name for claim in claimed if claim.claims is Claim.STEP]
    lines = [
        rf"\* {tla_name(system)}: {size}. A stopped supervisor does nothing more: run TLC with -deadlock.",
        f"CONSTANTS N = {size.slots}  M = {size.children}",
        "SPECIFICATION Spec",
        *[f"INVARIANT {name}" for name in invariants],
        *[f"PROPERTY {name}" for name in on_steps],
    ]
    return "\n".join(lines) + "\n"


@dataclass
class _Module:
    """The parts of one module. State variables that were mentioned are noted: some of them are never written."""

    system: System
    mentioned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        written = {update.variable.name for action in self.system.actions for update in action.effect}
        self.variables = [each for each in variables if each.name in written and each is not used]

    def sorts(self) -> list[str]:
        fresh = self.system.profile.clean_word is CleanWord.FRESH
        known = ", ".join(_KEPT.get(word.name, word.name) for word in words(self.system.profile))
        first = len(RESERVED)
        return [
            r"CONSTANTS N, M  \* how many slots and how many children there are",
            "",
            "Slots == 1..N",
            "Children == 1..M",
            *[f"{_KEPT.get(constant.name, constant.name)} == {constant.number}" for constant in CONSTANTS],
            *(
                [
                    r"\* One fresh word more than slots can hold at once",
                    rf"Words == {{{known}}} \union {first}..({first} + N)",
                ]
                if fresh
                else [f"Words == {{{known}}}"]
            ),
            "",
        ]

    def state(self) -> list[str]:
        names = [variable.name for variable in self.variables]
        never = [each for each in variables if each.name in self.mentioned - {used.name, *names}]
        longest = max(map(len, names))
        enums = dict.fromkeys(each.sort for each in self.variables if each.sort.enum is not None)
        lines = [line for sort in enums for line in _set(sort)]
        lines += ["", "VARIABLES"]
        for variable in self.variables:
            comma = "" if variable is self.variables[-1] else ","
            ghost = "ghost: " if variable.ghost else ""
            lines.append(f"    {variable.name + comma:{longest + 2}}\\* {ghost}{variable.meaning}")
        lines += ["", *_tuple("vars ==", names, 0), ""]
        if never:
            lines += [
                r"\* What nothing in this system writes keeps its first value",
                *[f"{each.name} == {self._blank(each)}" for each in never],
                "",
            ]
        parameter, body = BOUNDED_USED
        if used.name in self.mentioned:
            says = _Writer(self.mentioned, {parameter.name}).block(body.z3, WIDTH - 4)
            lines += [
                *_comment("Words run out here, so a word is used only while it is reserved or stands somewhere"),
                f"Used({parameter}) ==",
                *_indented(says, 4),
                "",
            ]
        lines += ["TypeOK ==", *[f"    /\\ {each.name} \\in {_type(each)}" for each in self.variables], ""]
        return [*lines, "Init ==", *[f"    /\\ {each.name} = {self._blank(each)}" for each in self.variables]]

    def _blank(self, variable: Variable) -> str:
        value = self._write(variable.blank, set())
        return value if variable.index is None else f"[any \\in {_SETS[variable.index.name][1]} |-> {value}]"

    def _write(self, node: Any, bound: set[str]) -> str:
        return _Writer(self.mentioned, bound).text(node)

    def action(self, action: Action) -> list[str]:
        writer = _Writer(self.mentioned, {parameter.name for parameter in action.of})
        lines = [*_comment(action.sentence + (f" [{', '.join(action.cites)}]" if action.cites else ""))]
        lines.append(f"{_call(action)} ==")
        for conjunct in action.guard:
            lines += _with_reason(writer.block(conjunct.term.z3, WIDTH - 7), conjunct.why)
        updates = {update.variable.name: update for update in action.effect}
        for variable in self.variables:
            update = updates.get(variable.name)
            if update is None:
                continue
            if variable.index is None:
                value = writer.grouped(update.value)
            elif update.index is None:
                value = f"[any \\in {_SETS[variable.index.name][1]} |-> {writer.text(update.value)}]"
            else:
                value = f"[{variable.name} EXCEPT ![{writer.text(update.index.z3)}] = {writer.grouped(update.value)}]"
            lines.append(f"    /\\ {variable.name}' = {value}")
        unchanged = [variable.name for variable in self.variables if variable.name not in updates]
        return [*lines, *(_tuple("/\\ UNCHANGED", unchanged, 4) if unchanged else [])]

    def next_step(self) -> list[str]:
        lines: list[str] = []
        for who in self._actors():
            lines += ["", f"{_by(who)} =="]
            for action in self.system.actions:
                if action.by is who:
                    lines.append(f"    \\/ {_bind('E', action.of)}{_call(action)}")
        return [*lines, "", "Next == " + r" \/ ".join(map(_by, self._actors())), "", "Spec == Init /\\ [][Next]_vars"]

    def _formula(self, claim: Property) -> list[str]:
        """Write what is claimed; the premise stands outside the quantifiers that it does not need, to be read once."""
        writer = _Writer(self.mentioned, {parameter.name for parameter in claim.over})
        needed = symbols(claim.premise.z3)
        outside = [parameter for parameter in claim.over if parameter.name in needed]
        inside = [parameter for parameter in claim.over if parameter.name not in needed]
        if inside:
            conclusion = [_bind("A", inside).rstrip(), *_indented(writer.block(claim.conclusion.z3, WIDTH - 17), 3)]
        else:
            conclusion = writer.group(claim.conclusion.z3, WIDTH - 14)
        if outside:
            implication = [*writer.group(claim.premise.z3, WIDTH - 11), *_hung("=> ", conclusion)]
            return [_bind("A", outside).rstrip(), *_indented(implication, 3)]
        # In parentheses: what begins with `[x \in` is read as a function
        return [*writer.group(claim.premise.z3, WIDTH - 8, _ATOM), *_hung("=> ", conclusion)]

    def _actors(self) -> list[Who]:
        return [who for who in Who if any(action.by is who for action in self.system.actions)]

    def claim(self, claim: Property) -> list[str]:
        lines, formula = _comment(claim.sentence), self._formula(claim)
        if claim.claims is Claim.ALWAYS:
            return [*lines, f"{claim.name} ==", *_indented(formula, 4)]
        if actor.name not in symbols(claim.claim.z3):
            formula[-1] += "]_vars"
            return [*lines, f"{claim.name} ==", f"    [][{formula[0]}", *_indented(formula[1:], 7)]
        # Whoever could have taken the step, the claim holds of it
        each = [f'/\\ {claim.name}_by("{who.value}") \\/ ~{_by(who)}' for who in self._actors()]
        each[-1] += "]_vars"
        return [
            *lines,
            f"{claim.name}_by({actor.name}) ==",
            *_indented(formula, 4),
            f"{claim.name} ==",
            f"    [][{each[0]}",
            *_indented(each[1:], 7),
        ]


# --- Expressions -----------------------------------------------------------------------------------------------------


def writer(bound: set[str]) -> _Writer:
    """Return what writes a z3 expression as TLA+; `bound` are the names of the parameters in scope."""
    return _Writer(set(), bound)


@dataclass
class _Writer:
    """Writes z3 expressions as TLA+; `bound` are the names in scope, which a quantifier must not use again."""

    mentioned: set[str]
    bound: set[str]
    written: dict[tuple[int, frozenset[str]], tuple[Any, tuple[str, int]]] = field(default_factory=dict)
    """What was written before, by the term's identity (so it is kept alive) and the names that were in scope."""

    def text(self, node: Any) -> str:
        """Write an expression in one line."""
        return self._write(node)[0]

    def grouped(self, node: Any, at_least: int = _ATOM) -> str:
        """Write it in one line, in parentheses unless it holds together as tightly as it must."""
        text, level = self._write(node)
        return text if level >= at_least else f"({text})"

    def block(self, node: Any, room: int) -> list[str]:
        """Write it in one line if there is room, else in several, the parts of a junction one below the other."""
        node = _bare(node)
        text = self.text(node)
        if len(text) <= room:
            return [text]
        if z3.is_quantifier(node):
            head, body, name = self._open(node)
            lines = [head, *_indented(self.block(body, room - 3), 3)]
            self.bound.remove(name)
            return lines
        arguments = node.children()
        if (z3.is_and(node) or z3.is_or(node)) and not _choices(node):
            sign = "/\\ " if z3.is_and(node) else "\\/ "
            return [line for part in _flat(node) for line in _hung(sign, self.block(part, room - 3))]
        if z3.is_implies(node):
            return [*self.group(arguments[0], room), *_hung("=> ", self.group(arguments[1], room - 3))]
        if z3.is_eq(node) and z3.is_bool(arguments[0]):
            return [*self.group(arguments[0], room), *_hung("<=> ", self.group(arguments[1], room - 4))]
        if z3.is_not(node):
            return _hung("~", self.group(arguments[0], room - 1))
        return [text]

    def group(self, node: Any, room: int, at_least: int = _NOT) -> list[str]:
        """Write it as a block that holds together, in parentheses where it must."""
        text = self.grouped(node, at_least)
        if len(text) <= room:
            return [text]
        lines = _hung("(", self.block(node, room - 2))
        return [*lines[:-1], lines[-1] + ")"]

    def _open(self, node: Any) -> tuple[str, Any, str]:
        """Take a quantifier apart: its head, its body, and the name that the body speaks of."""
        name = node.var_name(0)
        while name in self.bound:
            name += "_"
        self.bound.add(name)
        body = z3.substitute_vars(node.body(), z3.Const(name, node.var_sort(0)))
        members = _SETS[node.var_sort(0).name()][1]
        return rf"\{'A' if node.is_forall() else 'E'} {name} \in {members} :", body, name

    def _write(self, node: Any) -> tuple[str, int]:
        known = node.get_id(), frozenset(self.bound)
        if known not in self.written:
            self.written[known] = node, self._write_anew(_bare(node))
        return self.written[known][1]

    def _write_anew(self, node: Any) -> tuple[str, int]:
        if z3.is_quantifier(node):
            head, body, name = self._open(node)
            text = f"{head} {self.text(body)}"
            self.bound.remove(name)
            return text, _LOOSE
        if z3.is_int_value(node):
            return str(node.as_long()), _ATOM
        kind, arguments = node.decl().kind(), node.children()
        match kind:
            case z3.Z3_OP_TRUE:
                return "TRUE", _ATOM
            case z3.Z3_OP_FALSE:
                return "FALSE", _ATOM
            case z3.Z3_OP_UNINTERPRETED if not arguments:
                name = node.decl().name()
                self.mentioned.add(name.rstrip("'"))
                return _KEPT.get(name, name), _ATOM
            case z3.Z3_OP_DT_CONSTRUCTOR:
                return f'"{_member(node)}"', _ATOM
            case z3.Z3_OP_SELECT if arguments[0].decl().name().rstrip("'") == used.name:
                self.mentioned.add(used.name)
                prime = arguments[0].decl().name().removeprefix(used.name)
                return f"Used({self.text(arguments[1])}){prime}", _ATOM
            case z3.Z3_OP_SELECT:
                return f"{self.grouped(arguments[0])}[{self.text(arguments[1])}]", _ATOM
            case z3.Z3_OP_AND | z3.Z3_OP_OR:
                return self._junction(node)
            case z3.Z3_OP_NOT:
                return self._negation(arguments[0])
            case z3.Z3_OP_IMPLIES:
                return " => ".join(self.grouped(each, _NOT) for each in arguments), _IMPLIES
            case z3.Z3_OP_EQ if z3.is_bool(arguments[0]):
                return " <=> ".join(self.grouped(each, _NOT) for each in arguments), _IMPLIES
            case z3.Z3_OP_EQ:
                return self._comparison("=", node), _COMPARISON
            case z3.Z3_OP_DISTINCT if len(arguments) == 2 and not z3.is_bool(arguments[0]):
                return self._comparison("#", node), _COMPARISON
            case z3.Z3_OP_ITE:
                condition, then, otherwise = map(self.text, arguments)
                return f"IF {condition} THEN {then} ELSE {otherwise}", _LOOSE
            case _ if kind in _COMPARE:
                return f" {_COMPARE[kind]} ".join(map(self.grouped, arguments)), _COMPARISON
        raise NotInterpretable(str(node))

    def _junction(self, node: Any) -> tuple[str, int]:
        if choices := _choices(node):
            return self._membership(choices, r"\in"), _COMPARISON
        if not node.children():
            return "TRUE" if z3.is_and(node) else "FALSE", _ATOM
        sign = r" /\ " if z3.is_and(node) else r" \/ "
        return sign.join(self.grouped(part, _NOT) for part in _flat(node)), _JUNCTION

    def _comparison(self, sign: str, node: Any) -> str:
        return f" {sign} ".join(map(self.grouped, _sides(node)))

    def _membership(self, choices: list[tuple[Any, Any]], sign: str) -> str:
        values = ", ".join(self.text(value) for _, value in choices)
        return f"{self.grouped(choices[0][0])} {sign} {{{values}}}"

    def _negation(self, node: Any) -> tuple[str, int]:
        node = _bare(node)
        if choices := _choices(node):
            return self._membership(choices, r"\notin"), _COMPARISON
        if z3.is_not(node):
            return self._write(node.arg(0))
        if (z3.is_eq(node) or z3.is_distinct(node)) and node.num_args() == 2 and not z3.is_bool(node.arg(0)):
            return self._comparison("#" if z3.is_eq(node) else "=", node), _COMPARISON
        return f"~{self.grouped(node)}", _NOT


def _bare(node: Any) -> Any:
    """Return the one part of a junction of one part; another term is itself."""
    while (z3.is_and(node) or z3.is_or(node)) and node.num_args() == 1:
        node = node.arg(0)
    return node


def _flat(node: Any) -> list[Any]:
    """Return the parts of a junction, and in their place those of a part that is the same junction."""
    parts: list[Any] = []
    for part in map(_bare, node.children()):
        same = part.decl().kind() == node.decl().kind() if z3.is_app(part) else False
        parts += _flat(part) if same and not _choices(part) else [part]
    return parts


def _choices(node: Any) -> list[tuple[Any, Any]]:
    """Return the equations of a disjunction that says that one thing is one of several; else none."""
    parts = node.children() if z3.is_or(node) and node.num_args() > 1 else []
    if not all(z3.is_eq(each) and not z3.is_bool(each.arg(0)) for each in parts):
        return []
    sides = [_sides(each) for each in parts]
    return sides if all(left.eq(sides[0][0]) for left, _ in sides) else []


def _sides(equation: Any) -> tuple[Any, Any]:
    """Return both sides of an equation, the one to be told first: what changes before what it is compared with."""
    left, right = equation.children()
    return (left, right) if _rank(left) <= _rank(right) else (right, left)


def _rank(node: Any) -> int:
    names = symbols(node)
    if any(name.endswith("'") for name in names):
        return 0
    if names & _VARIABLES:
        return 1
    return 3 if names <= _CONSTANTS else 2


def _member(node: Any) -> str:
    """Return what a member of an enumeration is called."""
    sort = node.sort()
    position = next(i for i in range(sort.num_constructors()) if sort.constructor(i).eq(node.decl()))
    return str(list(_ENUMS[sort.name()])[position].value)


# --- Layout ----------------------------------------------------------------------------------------------------------


def _call(action: Action) -> str:
    name = "".join(part.capitalize() for part in action.name.split("_"))
    return name + (f"({', '.join(parameter.name for parameter in action.of)})" if action.of else "")


def _by(who: Who) -> str:
    return f"By{who.value.capitalize()}"


def _bind(quantifier: str, over: Sequence[Parameter]) -> str:
    """Write the head of a quantifier over what parameters range over; of none it is empty."""
    if not over:
        return ""
    return rf"\{quantifier} " + ", ".join(f"{each.name} \\in {_members(each)}" for each in over) + " : "


def _members(parameter: Parameter) -> str:
    if parameter.domain:
        return f"{{{', '.join(map(str, parameter.domain))}}}"
    return _SETS[parameter.sort.name][0]


def _type(variable: Variable) -> str:
    of = _set_of(variable.sort)
    return of if variable.index is None else f"[{_SETS[variable.index.name][1]} -> {of}]"


def _set_of(sort: Sort) -> str:
    if sort.enum is not None:
        return sort.name
    return {"Bool": "BOOLEAN", "Int": "Int"}.get(sort.name) or _SETS[sort.name][1]


def _set(sort: Sort) -> list[str]:
    """Define the set of an enumeration's members."""
    first = f"{sort.name} == {{"
    members = ", ".join(f'"{member.value}"' for member in sort.enum or ())
    return textwrap.wrap(members + "}", WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=r"\* ", subsequent_indent=r"\* ")


def _with_reason(block: list[str], why: str) -> list[str]:
    """Write a conjunct, with its reason beside it where there is room, else above it."""
    lines = _indented(_hung("/\\ ", block), 4)
    if len(lines) == 1 and len(line := f"{lines[0]:44}  \\* {why}") <= WIDTH:
        return [line]
    return [f"    \\* {why}", *lines]


def _tuple(head: str, names: Sequence[str], indent: int) -> list[str]:
    first = " " * indent + f"{head} <<"
    return textwrap.wrap(", ".join(names) + ">>", WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def _hung(sign: str, block: list[str]) -> list[str]:
    return [sign + block[0], *_indented(block[1:], len(sign))]


def _indented(lines: Iterable[str], by: int) -> list[str]:
    return [" " * by + line for line in lines]
