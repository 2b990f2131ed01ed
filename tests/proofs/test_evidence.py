"""The texts that are given to other solvers: z3 reads them as it was asked, and a hash stands for what is asked."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import z3

from armed_model.profiles import PROFILES, REFERENCE, V15
from armed_model.properties import by_name, leads_to
from armed_model.system import CHILD, Mode, Phase, System, clean, flag, mode, phase, shutdown, slot_of, status
from armed_model.terms import Parameter
from armed_proofs import evidence
from armed_proofs.evidence import NotInductive, Proofs, Refused, all_systems, prove, smtlib, write_evidence
from armed_proofs.matrix import expected_verdicts
from armed_proofs.obligations import Obligation, invariant_obligations

SYSTEM = System(REFERENCE)
child = Parameter("somebody", CHILD)

HASHES = """
import hashlib, sys
from armed_model.profiles import PROFILES
from armed_model.system import System
from armed_proofs.evidence import smtlib
from armed_proofs.obligations import invariant_obligations

for name in sys.argv[1:]:
    hash = hashlib.sha256()
    for obligation in list(invariant_obligations(System(PROFILES[name], "+cancel")))[::5]:
        hash.update(smtlib(obligation).encode())
    print(name, hash.hexdigest())
"""


@pytest.fixture(scope="module")
def proofs():
    return prove(SYSTEM)


def answer(text):
    """What z3 says of a text, read in a context of its own."""
    solver = z3.Solver(ctx=z3.Context())
    solver.from_string(text)
    return str(solver.check())


def hashes(system):
    return {each.name: hashlib.sha256(smtlib(each).encode()).hexdigest() for each in invariant_obligations(system)}


# --- The text --------------------------------------------------------------------------------------------------------


def test_z3_gives_the_text_the_answer_that_it_gave_the_obligation(proofs):
    for each in proofs.proved[::60]:
        assert answer(smtlib(each.obligation, SYSTEM, each.claim)) == "unsat", each.obligation.name


def test_z3_reads_back_just_the_facts_and_the_negated_goal(proofs):
    """Not only is the answer the same: each assertion that is read is equivalent to the one that was written."""
    kept = {}
    obligation = next(each for each in proofs.obligations if each.name.startswith("arm preserves"))
    for expression in (*obligation.facts, obligation.goal):
        stack = [expression]
        while stack:
            part = stack.pop()
            stack += part.children()
            if z3.is_const(part) and part.decl().kind() == z3.Z3_OP_UNINTERPRETED:
                kept[part.decl().name()] = part
    text = "\n".join(line for line in smtlib(obligation).splitlines() if not line.startswith("(declare"))
    sorts = {sort.name(): sort for sort in (part.sort() for part in kept.values()) if sort.kind() != z3.Z3_ARRAY_SORT}
    for array in [part.sort() for part in kept.values() if part.sort().kind() == z3.Z3_ARRAY_SORT]:
        sorts |= {each.name(): each for each in (array.domain(), array.range())}
    sorts = {name: sort for name, sort in sorts.items() if name not in ("Bool", "Int")}
    decls = {name: part.decl() for name, part in kept.items()}
    *facts, goal = z3.parse_smt2_string(text, sorts=sorts, decls=decls)
    unique = {evidence.write(fact).text: fact for fact in obligation.facts}
    assert len(facts) == len(unique) > 100
    solver = z3.Solver()
    for read, written in zip([*facts, goal], [*unique.values(), z3.Not(obligation.goal)], strict=True):
        assert solver.check(read != written) == z3.unsat, written


def test_the_text_says_what_it_is():
    claim = by_name(REFERENCE)["slot_has_one_owner"]
    lines = smtlib(Obligation("a  name\nof two lines", (), (mode == mode).z3), SYSTEM, claim).splitlines()
    assert lines[:7] == [
        "; obligation: a name of two lines",
        "; profile: reference",
        "; environment: calm",
        "; property: slot_has_one_owner",
        f"; says: {claim.sentence}",
        f"; cites: {', '.join(claim.cites)}",
        "; expected: unsat; the facts and the negated goal together have no model",
    ]
    assert lines[7:10] == [
        "(set-info :smt-lib-version 2.6)",
        "(set-logic QF_AUFDTLIA)",
        "(set-info :status unsat)",
    ]
    assert lines[-3:] == ["(declare-const mode Mode)", "(assert (not (= mode mode)))", "(check-sat)"]


def test_sorts_are_declared_before_the_constants_and_only_what_is_used_is():
    text = smtlib(Obligation("q", ((phase[child] == Phase.EXITED).z3,), (status[child] == -9).z3))
    assert [line for line in text.splitlines() if line.startswith("(declare")] == [
        "(declare-sort Child 0)",
        f"(declare-datatype Phase ({' '.join(f'(Phase.{each.name})' for each in Phase)}))",
        "(declare-const phase (Array Child Phase))",
        "(declare-const somebody Child)",
        "(declare-const status (Array Child Int))",
    ]
    assert "(assert (= (select phase somebody) Phase.EXITED))" in text
    assert "(assert (not (= (- 9) (select status somebody))))" in text


def test_a_quantifier_is_refused_wherever_it_hides():
    everywhere = z3.ForAll([child.z3], (phase[child] == Phase.NONE).z3)
    ground = (mode == Mode.RUNNING).z3
    for obligation in (
        Obligation("in a fact", (z3.Or(ground, z3.Not(everywhere)),), ground),
        Obligation("in the goal", (ground,), z3.Implies(everywhere, ground)),
    ):
        with pytest.raises(Refused, match="quantifiers"):
            smtlib(obligation)


def test_what_is_not_of_the_logic_is_refused():
    for strange in (
        z3.Int("n") * z3.Int("n") == 1,
        z3.Real("r") == 1,
        z3.Function("f", z3.IntSort(), z3.BoolSort())(1),
    ):
        with pytest.raises(Refused, match="not of the logic"):
            smtlib(Obligation("strange", (), strange))


def test_a_constant_array_is_not_written_but_what_is_read_from_it():
    """Not every solver takes one; the initial state is made of them."""
    slot, other = z3.Consts("slot other", slot_of.sort.z3)
    word = z3.Const("word", flag.sort.z3)
    blank = z3.K(slot_of.sort.z3, z3.Const("blank", flag.sort.z3))
    assert evidence.write(z3.Select(blank, slot)).text == "blank"
    assert evidence.write(z3.Select(z3.Store(blank, slot, word), other)).text == "(ite (= other slot) word blank)"
    with pytest.raises(Refused, match="const"):
        evidence.write(blank == clean.z3)
    assert not any("as const" in smtlib(each) for each in invariant_obligations(SYSTEM) if each.name.startswith("init"))


def test_arguments_are_in_one_order_where_theirs_means_nothing():
    running, none = (mode == Mode.RUNNING).z3, phase[child].z3 == (phase[child] == Phase.NONE).z3.arg(1)
    for connective in (z3.And, z3.Or):
        assert evidence.write(connective(running, none)).text == evidence.write(connective(none, running)).text
    assert evidence.write(z3.Implies(running, none)).text != evidence.write(z3.Implies(none, running)).text
    assert evidence.write(z3.And()).text == "true"
    assert evidence.write(z3.Or()).text == "false"
    assert evidence.write(z3.And(running)).text == evidence.write(running).text


def test_a_name_that_is_no_symbol_is_quoted():
    assert evidence.write(mode.primed).text == "|mode'|"
    assert evidence.write(mode.z3).text == "mode"


# --- The hash --------------------------------------------------------------------------------------------------------


def test_the_texts_are_the_same_in_every_process_whatever_was_built_before():
    def run(seed, *names):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", HASHES, *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        return sorted(done.stdout.splitlines())

    one, other = run("1", "reference", "15"), run("2", "15", "reference")
    assert one == other
    assert len(set(one)) == 2


def test_a_changed_conjunct_changes_the_hashes_of_its_action_alone(monkeypatch):
    before = hashes(SYSTEM)
    changed = System(REFERENCE)
    actions = list(changed.actions)
    at = next(i for i, action in enumerate(actions) if action.name == "arm")
    arm = actions[at]
    actions[at] = replace(arm, guard=(*arm.guard, (shutdown != shutdown).because("no reason")))
    monkeypatch.setitem(changed.__dict__, "actions", tuple(actions))
    after = hashes(changed)
    assert before.keys() == after.keys()
    differing = {name for name in before if before[name] != after[name]}
    assert differing == {name for name in before if name.startswith("arm preserves ")}
    assert len(differing) > 10


def test_a_changed_goal_changes_its_own_hash_alone(proofs):
    facts = proofs.obligations[-1].facts
    goals = [(mode == Mode.RUNNING).z3, (mode != Mode.RUNNING).z3]
    texts = {smtlib(Obligation("the same name", facts, goal)) for goal in goals}
    assert len(texts) == 2


# --- What is evidence ------------------------------------------------------------------------------------------------


def test_everything_claimed_of_the_reference_is_evidence(proofs):
    assert proofs.skipped == ()
    every = [*by_name(REFERENCE).values(), *leads_to(REFERENCE)]
    claims = {claim.name for claim in every if claim.environment == "calm"}
    assert {"armed_exit_triggers_recovery", "armed_exit_leads_to_restart"} <= claims
    assert {each.claim.name for each in proofs.proved if each.claim} == claims
    assert len(proofs.proved) > 1000
    assert 0 < len(proofs.impossible) < 100


def test_what_z3_does_not_prove_is_no_evidence():
    proofs = prove(System(V15, "+stray"))
    proved = {each.claim.name for each in proofs.proved if each.claim}
    assert "armed_exit_triggers_recovery_despite_stray_writes" in proofs.skipped
    assert "supervisor_survives_stray_writes" in proved
    claims = {claim.name for claim in by_name(V15).values() if claim.environment == "+stray"}
    assert proved | set(proofs.skipped) == claims
    assert not proved & set(proofs.skipped)


def test_an_invariant_that_is_none_is_an_error(monkeypatch):
    planted = Obligation("planted", (), (mode == Mode.RUNNING).z3)
    monkeypatch.setattr(evidence, "invariant_obligations", lambda system: [planted])
    with pytest.raises(NotInductive, match="reference, calm: planted is answered sat"):
        prove(SYSTEM)


def test_a_chain_of_stages_that_is_not_shown_is_no_evidence():
    """In 8.4 nobody is killed who does not heed SIGQUIT; of the same chain some obligations are proved."""
    proofs = prove(System(PROFILES["8.4.1"], "calm"))
    assert {"armed_exit_leads_to_restart", "crash_leads_to_reset"} <= set(proofs.skipped)
    assert not [each for each in proofs.proved if each.claim and each.claim.name == "crash_leads_to_reset"]


def test_every_proved_cell_is_among_what_is_asked_of_all_systems():
    asked = {
        (system.profile.name, claim.name + ", backends alone" * system.backends_alone)
        for system in all_systems() for claim in evidence._claims(system)
    }  # fmt: skip
    recorded = expected_verdicts()
    proved = {
        (profile, name) for profile in PROFILES for name, verdict in recorded[profile].items() if verdict == "proved"
    }
    assert len(proved) > 250
    assert proved - asked == set()
    assert len({(system.profile.name, system.environment) for system in all_systems()}) == 6 * 5


@pytest.fixture
def few(monkeypatch, proofs):
    """The proofs of a system, cut down to some: what is written of them is the same, and it takes no time."""
    some = Proofs(SYSTEM, proofs.proved[::100], ("a_property_that_was_not_proved",))
    monkeypatch.setattr(evidence, "prove", lambda system: some)
    return some


def test_the_index_leads_to_every_text_with_its_hash(tmp_path, few):
    told = []
    index = write_evidence(tmp_path, [SYSTEM], jobs=1, progress=told.append)
    said = json.loads(index.read_text())
    assert index == tmp_path / "smt2" / "index.json"
    assert said["solvers"] == [f"z3 {z3.get_version_string()}"]
    assert said["not_proved"] == [
        {"profile": "reference", "environment": "calm", "property": "a_property_that_was_not_proved"}
    ]
    assert [entry["obligation"] for entry in said["obligations"]] == [each.name for each in few.obligations]
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.gz")}
    assert {entry["file"] for entry in said["obligations"]} == files
    for entry, each in zip(said["obligations"], few.proved, strict=True):
        text = gzip.decompress((tmp_path / entry["file"]).read_bytes())
        assert text.decode() == smtlib(each.obligation, SYSTEM, each.claim)
        assert entry["sha256"] == hashlib.sha256(text).hexdigest()
        assert entry["file"].startswith("smt2/reference/calm/")
        assert entry["property"] == (each.claim.name if each.claim else None)
        assert entry["cites"] == (list(each.claim.cites) if each.claim else [])
        assert (entry["expected"], entry["z3"], entry["cvc5"]) == ("unsat", "unsat", None)
        assert entry["impossible"] == each.is_impossible
    assert told == ["reference, calm: done"]


def test_another_solvers_answers_stand_in_the_index_whatever_they_are(tmp_path, few):
    def ask(obligations, impossible):
        assert [each.name for each in obligations] == [each.name for each in few.obligations]
        assert impossible == few.impossible
        return ["unknown", *["unsat"] * (len(obligations) - 1)]

    index = write_evidence(tmp_path, [SYSTEM], ask=ask, versions=["another 1.0"], jobs=1)
    said = json.loads(index.read_text())
    assert said["solvers"][1:] == ["another 1.0"]
    assert [entry["cvc5"] for entry in said["obligations"]] == ["unknown"] + ["unsat"] * (len(few.proved) - 1)


def test_evidence_of_an_earlier_time_is_replaced_and_nothing_else(tmp_path, few):
    folder = tmp_path / "smt2" / "reference" / "calm"
    folder.mkdir(parents=True)
    (folder / "gone.smt2.gz").write_bytes(b"stale")
    (folder / "notes.txt").write_text("mine")
    first = write_evidence(tmp_path, [SYSTEM], jobs=1).read_bytes()
    packed = {file.name: file.read_bytes() for file in folder.glob("*.gz")}
    assert not (folder / "gone.smt2.gz").exists()
    assert (folder / "notes.txt").read_text() == "mine"
    assert write_evidence(tmp_path, [SYSTEM], jobs=1).read_bytes() == first
    assert {file.name: file.read_bytes() for file in folder.glob("*.gz")} == packed


def test_the_work_is_done_in_several_processes_and_told_in_order():
    systems = [System(V15, "+orphan"), System(REFERENCE, "+orphan"), System(V15, "+stray")]
    told = []
    assert evidence.for_each_system(_told, systems, 2, told.append) == [
        ("15", "+orphan", True),
        ("reference", "+orphan", True),
        ("15", "+stray", True),
    ]
    assert sorted(told) == ["15, +orphan: done", "15, +stray: done", "reference, +orphan: done"]


HERE = os.getpid()


def _told(system):
    return system.profile.name, system.environment, os.getpid() != HERE


def test_what_goes_wrong_in_another_process_is_raised_here():
    with pytest.raises(NotInductive, match="on purpose"):
        evidence.for_each_system(_fail, [SYSTEM, SYSTEM], 2)


def _fail(system):
    raise NotInductive("on purpose")


def test_names_of_files_are_safe():
    assert evidence._safe("init: slot zero, +stray/../x") == "init-slot-zero-stray-..-x"
    with pytest.raises(ValueError, match="too long"):
        evidence._safe("x" * 121)
