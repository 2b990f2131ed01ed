"""In the files of the specification, Python's own connectives build nothing: they would lose half of a formula.

`a == B and c` is not a conjunction but one of its operands; `x in (A, B)` and `x is A` are no conditions of a state.
Most of them raise when they meet a term; this walks the source, so that they are not written in the first place.

They are let be where they can lose nothing: in conditions that read the profile's data and nothing of a state. Such a
condition is made of fields of `profile` and `system`, members of enumerations, literals, and names that are nothing
else: parameters annotated as plain, and names given once, to such a condition. A call, an index or any other name in
it, and it is refused.
"""

import ast
import enum
import inspect

import pytest

import armed_model.lifecycle
import armed_model.profiles
import armed_model.properties
import armed_model.system
import armed_proofs.invariants

FILES = (
    armed_model.lifecycle,
    armed_model.profiles,
    armed_model.system,
    armed_model.properties,
    armed_proofs.invariants,
)

PLAIN_PYTHON = {
    "armed_model.lifecycle": {"Monitor.fire", "Monitor.see", "shortest_path"},
    "armed_model.profiles": {"Profile.engages_once"},
    "armed_model.system": {"System.__post_init__"},
    "armed_model.properties": {"can_write_the_flag", "_assumed"},
    "armed_proofs.invariants": {"_never_written", "_has_done.says"},
}
"""The functions that choose by name and by set: of actions, of variables, of steps, of assumptions."""

OBJECTS = {"profile", "system"}
"""Names whose fields are data."""

ANNOTATIONS = {"bool", "str", "Who", "Kind", "Step"}
"""Parameters annotated so are data; so is whether any parameter that may be None is None."""

GIVEN = {"step", "release"}
"""Names that are data, though this cannot see it: a member of Step in a loop, a tuple of effects that may be empty."""


def is_enumeration(name):
    return any(isinstance(getattr(module, name, None), enum.EnumType) for module in FILES)


def is_data(node, names):
    """Whether an expression reads nothing of a state, `names` being data."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in names
        case ast.Attribute(value=ast.Name(id=name)):
            return name in OBJECTS or is_enumeration(name)
        case ast.BoolOp(values=parts) | ast.Tuple(elts=parts):
            return all(is_data(part, names) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return is_data(operand, names)
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Is() | ast.IsNot()], comparators=[ast.Constant(value=None)]):
            return name in names or f"{name} or None" in names
        case ast.Compare(left=left, ops=[_], comparators=[right]):
            return is_data(left, names) and is_data(right, names)
    return False


def data_in(function, outside):
    """Return the names that are data inside a function."""
    parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    names = set(outside) - {parameter.arg for parameter in parameters}
    for parameter in parameters:
        match parameter.annotation:
            case ast.Name(id=annotation) if annotation in ANNOTATIONS:
                names.add(parameter.arg)
            case ast.BinOp(right=ast.Constant(value=None)):
                names.add(f"{parameter.arg} or None")
    bound = [node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if bound.count(name) == 1:
                if is_data(value, names):
                    names.add(name)
            case ast.For(target=ast.Name(id=name), iter=ast.Tuple() as values) if bound.count(name) == 1:
                if is_data(values, names):
                    names.add(name)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                for target, value in zip(targets, values, strict=True):
                    if bound.count(target.id) == 1 and is_data(value, names):
                        names.add(target.id)
    return names


def reads_data_only(node, names):
    """Whether a construct with no business in a term has none there: its condition is data."""
    match node:
        case ast.IfExp(test=test) | ast.If(test=test):
            return is_data(test, names)
        case ast.BoolOp() | ast.UnaryOp() | ast.Compare():
            return is_data(node, names)
    return False


def name_of(node):
    """Name the construct that has no business in a term, or return None."""
    match node:
        case ast.BoolOp(op=ast.And()):
            return "and"
        case ast.BoolOp(op=ast.Or()):
            return "or"
        case ast.UnaryOp(op=ast.Not()):
            return "not"
        case ast.IfExp():
            return "a conditional expression"
        case ast.If() | ast.While() | ast.Assert():
            return "a statement with a condition"
        case ast.Compare(ops=ops) if len(ops) > 1:
            return "a chained comparison"
        case ast.Compare(ops=[ast.In()]):
            return "in"
        case ast.Compare(ops=[ast.NotIn()]):
            return "not in"
        case ast.Compare(ops=[ast.Is() | ast.IsNot()]):
            return "is"
        case ast.Name(id="any" | "all", ctx=ast.Load()):
            return "any or all"
    return None


class Walk(ast.NodeVisitor):
    def __init__(self):
        self.place = []
        self.found = []
        self.data = [GIVEN]

    def visit(self, node):
        if (name := name_of(node)) and not reads_data_only(node, self.data[-1]):
            self.found.append((".".join(self.place), name))
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            self.place.append(node.name)
            self.data.append(data_in(node, self.data[-1]) if isinstance(node, ast.FunctionDef) else self.data[-1])
            self.generic_visit(node)
            self.data.pop()
            self.place.pop()
        elif isinstance(node, ast.comprehension):
            # A filter chooses which terms are built and is none: `for each in SlotState if each is not FOREIGN`.
            self.visit(node.target)
            self.visit(node.iter)
        else:
            self.generic_visit(node)


def misuses(source, plain=frozenset()):
    walk = Walk()
    walk.visit(ast.parse(source))
    return [(place, name) for place, name in walk.found if place not in plain]


@pytest.mark.parametrize("module", FILES, ids=lambda module: module.__name__)
def test_terms_are_built_with_named_connectives_only(module):
    assert misuses(inspect.getsource(module), PLAIN_PYTHON.get(module.__name__, set())) == []


def test_each_exception_is_still_needed():
    for module in FILES:
        needed = {place for place, _ in misuses(inspect.getsource(module))}
        assert PLAIN_PYTHON.get(module.__name__, set()) == needed


PLANTED = {
    "guard = (phase[c] == A and holds[c]).because('')": "and",
    "guard = phase[c] == A or holds[c]": "or",
    "effect = owed.becomes(not armed[c])": "not",
    "guard = status[c] in (0, 1)": "in",
    "guard = status[c] not in (0, 1)": "not in",
    "guard = 0 == status[c] == launching": "a chained comparison",
    "value = w if p == q else v": "a conditional expression",
    "guard = phase[c] is Phase.NONE": "is",
    "guard = phase[c] is not Phase.NONE": "is",
    "guard = all(holds[each] for each in children)": "any or all",
    "def actions(p):\n    if mode == RUNNING:\n        return guard": "a statement with a condition",
    "terms = [phase[each] == A and holds[each] for each in children]": "and",
    "SAYS = {A: lambda word: word == UNUSED or word == ACTIVE}": "or",
    "class Profile:\n    def rule(self, c):\n        return not holds[c]": "not",
    "def fire():\n    return holds[c] or held": "or",
    # Each of these looks like a condition on the profile, and is not.
    "def f(profile):\n    return x if profile.kills_stuck and holds[c] else y": ["a conditional expression", "and"],
    "def f(profile):\n    return x if rule(profile) else y": "a conditional expression",
    "def f(profile):\n    return x if profile.kinds[0] else y": "a conditional expression",
    "def f(profile):\n    return Kind.AUXILIARY in kind[c]": "in",
    "def f(profile):\n    return kind[c] in profile.kinds": "in",
    "def f(profile):\n    return holds[c] is profile.kinds": "is",
    "def f(profile):\n    return mode is Mode.RUNNING": "is",
    "def f(of):\n    wiped = owed\n    return x if wiped else y": "a conditional expression",
    "def f(of):\n    wiped = negate(owed)\n    return x if wiped else y": "a conditional expression",
    "def f(p):\n    b = True\n    b = owed\n    return x if b else y": "a conditional expression",
    "def f(has_a_slot: Term):\n    return x if has_a_slot else y": "a conditional expression",
    "def f(has_a_slot):\n    return x if has_a_slot else y": "a conditional expression",
    "def f(step: Term):\n    return x if step else y": "a conditional expression",
    "def f(b: bool):\n    return 0 == b == 1": "a chained comparison",
    "def f(b: bool):\n    def g(b: Term):\n        return not b": "not",
    "def f(b: bool):\n    return all([b])": "any or all",
    "def f(p):\n    for b in (True, owed):\n        y = x if b else z": "a conditional expression",
    "def f(b: bool):\n    while b:\n        pass": "a statement with a condition",
    "def f(s: Slot):\n    return x if s is None else y": ["a conditional expression", "is"],
}


@pytest.mark.parametrize("source", PLANTED)
def test_each_construct_is_found_where_it_is_planted(source):
    expected = PLANTED[source] if isinstance(PLANTED[source], list) else [PLANTED[source]]
    assert [name for _, name in misuses(source, {"Monitor.fire"})] == expected


def test_what_is_not_a_term_is_left_alone():
    assert misuses("d = {e.value: x for e in Phase if e is not Phase.NONE}\nt = both(phase[c] == A, x != y)") == []
    for source in [
        "def f(profile):\n    return x if profile.kills_stuck else y",
        "def f(profile):\n    return x if Kind.AUXILIARY in profile.kinds and not profile.engages_once else y",
        "def f(profile, alone: bool):\n    if alone:\n        return x",
        "def f(profile):\n    wiped = profile.cancel is Cancel.BY_PID\n    return x if wiped else y",
        "def f(profile):\n    one, two = True, profile.kills_stuck\n    return x if one and two else y",
        "def f(profile):\n    for one in (True, False):\n        y = x if one else z",
        "def f(rows: Rows | None):\n    return x if rows is None else y",
    ]:
        assert misuses(source) == [], source
    assert misuses("class Monitor:\n    def fire(self):\n        return not x", {"Monitor.fire"}) == []
