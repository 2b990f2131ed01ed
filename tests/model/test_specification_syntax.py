"""In the files of the specification, Python's own connectives build nothing: they would lose half of a formula.

`a == B and c` is not a conjunction but one of its operands; `x in (A, B)` and `x is A` are no conditions of a state.
Most of them raise when they meet a term; this walks the source, so that they are not written in the first place.
"""

import ast
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
    "armed_model.lifecycle": {"Monitor.fire", "Monitor.see"},
    "armed_model.system": {"System.__post_init__"},
}
"""The functions that run and build no term. They deal in names, enumerations and sets."""


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

    def visit(self, node):
        if name := name_of(node):
            self.found.append((".".join(self.place), name))
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            self.place.append(node.name)
            self.generic_visit(node)
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
}


@pytest.mark.parametrize("source", PLANTED)
def test_each_construct_is_found_where_it_is_planted(source):
    assert [name for _, name in misuses(source, {"Monitor.fire"})] == [PLANTED[source]]


def test_what_is_not_a_term_is_left_alone():
    assert misuses("d = {e.value: x for e in Phase if e is not Phase.NONE}\nt = both(phase[c] == A, x != y)") == []
    assert misuses("class Monitor:\n    def fire(self):\n        return not x", {"Monitor.fire"}) == []
