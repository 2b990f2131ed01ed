"""Every conjunct, effect, action, row and line is changed once; who notices is told, and nobody's silence is hidden."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace

import pytest

from armed_model.interpret import Instance, Size
from armed_model.lifecycle import ROWS, WALSENDER_ROWS
from armed_model.profiles import PROFILES, Profile
from armed_model.properties import properties
from armed_model.system import ENVIRONMENTS, System
from armed_proofs import judge as judging
from armed_proofs.judge import Acting, Fate, Judgement, judge
from armed_proofs.mutants import Baselines, Kills, Report, describe
from armed_proofs.mutations import What, definition, mutants

MUTANTS = {mutant.name: mutant for mutant in mutants()}
CALM, ORPHAN = ("reference", "calm"), ("reference", "+orphan")


@pytest.fixture(scope="module")
def baselines():
    return Baselines()


def judged(name, baselines, *places):
    return judge(replace(MUTANTS[name], places=places or (CALM,)), baselines)


# --- Which mutants there are -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["reference", "18"])
def test_every_conjunct_and_every_effect_is_dropped_once(profile):
    wanted, found = Counter(), Counter()
    known = {definition(action) for each in ENVIRONMENTS for action in System(PROFILES["reference"], each).actions}
    seen = set() if profile == "reference" else known
    for environment in ENVIRONMENTS:
        for action in System(PROFILES[profile], environment).actions:
            if definition(action) not in seen:
                seen.add(definition(action))
                wanted += Counter(
                    {What.CONJUNCT: len(action.guard), What.EFFECT: len(action.effect), What.ACTION: 1}
                )
    for mutant in MUTANTS.values():
        if mutant.profile == profile and mutant.original is not None:
            found[mutant.what] += 1
            was, now = mutant.original, mutant.instead
            lost = len(was.guard) - len(now.guard), len(was.effect) - len(now.effect)
            assert lost == {What.CONJUNCT: (1, 0), What.EFFECT: (0, 1), What.ACTION: (-1, 0)}[mutant.what]
    assert found == wanted


def test_every_part_of_every_action_of_every_profile_is_dropped_somewhere():
    conjuncts = {(m.original.name, m.dropped.term.z3.sexpr()) for m in MUTANTS.values() if m.what is What.CONJUNCT}
    actions = {definition(m.original) for m in MUTANTS.values() if m.what is What.ACTION}
    for profile in PROFILES.values():
        for environment in ENVIRONMENTS:
            for action in System(profile, environment).actions:
                assert definition(action) in actions
                for conjunct in action.guard:
                    assert (action.name, conjunct.term.z3.sexpr()) in conjuncts


def test_every_row_is_dropped_and_every_line_of_a_profile_is_changed():
    rows = [mutant for mutant in MUTANTS.values() if mutant.what is What.ROW]
    assert len(rows) == len(ROWS) + len(WALSENDER_ROWS)
    for profile in ("reference", "18"):
        changed = {
            field.name
            for mutant in MUTANTS.values()
            if mutant.what is What.LINE and mutant.profile == profile
            for field in fields(Profile)
            if getattr(mutant.line, field.name) != getattr(PROFILES[profile], field.name)
        }
        assert changed == {field.name for field in fields(Profile)} - {"name", "sentence"}


# --- Who notices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fate", "by"),
    [
        ("reference: disarm without the guard Not(holds[c])", Fate.REFUTED, "held_resource_never_looks_clean"),
        ("reference: assign without the effect on used", Fate.REFUTED, "an_assignment_is_new"),
        ("reference: notice without the guard flag[slot_of[c]] != clean[slot_of[c]]", Fate.REFUTED,
         "recovery_starts_only_for_a_crash"),
        ("reference: lifecycle without active -disarm-> assigned", Fate.REFUTED, "flag_follows_lifecycle"),
        ("reference: decision STATUS", Fate.REFUTED, "armed_exit_triggers_recovery"),
        ("reference: all_gone dropped", Fate.LOST, "action: reset"),
        ("reference: give_fails_late without the effect on holds", Fate.LOST,
         "step: a give-back fails after its last effect"),
        ("reference: start with HOOK before CHECK", Fate.REFUSED, None),
        ("reference: fork_fails without the guard launching != no_slot", Fate.EQUIVALENT, None),
        ("reference: reap_book_keeping without the guard launching == no_slot", Fate.EQUIVALENT, None),
        ("reference: reset without the effect on owner", Fate.EQUIVALENT, None),
        ("reference: check_fails dropped", Fate.EQUIVALENT, None),
    ],
)  # fmt: skip
def test_a_mutant_meets_its_fate(name, fate, by, baselines):
    judgement = judged(name, baselines)
    assert judgement.fate is fate, describe(judgement)
    assert by is None or by in judgement.by
    assert bool(judgement.run) is (fate is Fate.REFUTED)
    assert name in describe(judgement)


def test_who_goes_on_without_its_supervisor_need_not_end(baselines):
    judgement = judged("reference: check without the guard mode != Mode.DEAD", baselines, ORPHAN)
    assert judgement.fate is Fate.LASSO
    assert judgement.by == ("supervisor_death_ends_children",)


def test_the_length_of_a_shortest_run_notices(baselines):
    stray = ("reference", "+stray")
    assert baselines[stray].lengths["the_flag_tells_whether_armed"] == 3
    judgement = judged("reference: fork without the guard phase[c] == Phase.NONE", baselines, stray)
    assert judgement.fate is not Fate.SURVIVED


def test_a_mutant_that_nobody_notices_survives(baselines, monkeypatch):
    name = "reference: notice without the guard flag[slot_of[c]] != clean[slot_of[c]]"
    silent = "recovery_starts_only_for_a_crash"

    def without(*arguments, **named):
        return tuple(each for each in properties(*arguments, **named) if each.name != silent)

    monkeypatch.setattr(judging, "properties", without)
    judging.original.cache_clear()
    try:
        assert judged(name, Baselines()).fate is Fate.SURVIVED
    finally:
        judging.original.cache_clear()


def test_a_proof_that_fails_without_a_run_is_open_and_no_kill(baselines, monkeypatch):
    assert baselines[CALM].proved
    monkeypatch.setattr(judging, "SEARCH_LIMIT", 1)
    judgement = judged("reference: disarm without the guard Not(holds[c])", baselines)
    assert judgement.fate is Fate.OPEN
    assert not judgement.fate.killed
    assert "held_resource_never_looks_clean" in judgement.by


def behaviour(instance):
    """Every step that changes something, in every reachable state, whatever its name."""
    known, todo, changes = {instance.initial}, [instance.initial], set()
    while todo:
        state = todo.pop()
        for _, _, following in instance.steps(state):
            if following != state:
                changes.add((state, following))
            if following not in known:
                known.add(following)
                todo.append(following)
    return changes


@pytest.mark.parametrize("environment", ["calm", "+orphan"])
def test_what_is_shown_to_be_equivalent_behaves_the_same(environment):
    this = judging.original(("reference", environment))
    small = this.instances[Size(1, 1)]
    as_before, equivalent = behaviour(small), 0
    for mutant in list(MUTANTS.values())[::5]:
        if ("reference", environment) not in mutant.places or mutant.original is None:
            continue
        if not judging.why_equivalent(("reference", environment), mutant):
            continue
        acting = tuple(
            mutant.instead if each.name == mutant.original.name else each for each in this.system.actions
        )
        instance = Instance(Acting(this.system.profile, environment, given=acting), Size(1, 1))
        instance.variables, instance.index = small.variables, small.index
        assert behaviour(instance) == as_before, mutant.name
        equivalent += 1
    assert equivalent


# --- The report ------------------------------------------------------------------------------------------------------


def test_the_report_counts_who_kills_what():
    def one(name, fate, *by):
        return Judgement(name, What.EFFECT, fate, by)

    report = Report(
        (
            one("a", Fate.REFUTED, "slot_has_one_owner"),
            one("b", Fate.REFUTED, "slot_has_one_owner", "no_slot_leaks"),
            one("c", Fate.LOST, "state: a child is stuck"),
            one("d", Fate.EQUIVALENT),
            one("e", Fate.SURVIVED),
            one("f", Fate.OPEN, "no_slot_leaks"),
        ),
        1.0,
    )
    assert report.kills["slot_has_one_owner"] == Kills(all=2, alone=1)
    assert report.kills["no_slot_leaks"] == Kills(all=1, alone=0)
    assert "no_slot_leaks" in report.redundant
    assert [each.mutant for each in report.survivors] == ["e", "f"]
    told = json.loads(json.dumps(report.as_json()))
    assert (told["mutants"], told["killed"], told["survivors"]) == (6, 3, ["e", "f"])
    assert told["counts"]["equivalent"] == 1


IN_OTHER_PROCESSES = """
import json
from armed_proofs.mutants import mutate
if __name__ == "__main__":
    lines = []
    report = mutate(lines.append, only="reference: lifecycle without active -", processes=1)
    print(json.dumps([report.as_json(), lines]))
"""


def test_mutants_are_judged_in_other_processes_and_told_of(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IN_OTHER_PROCESSES)
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120)
    report, lines = json.loads(run.stdout)
    assert [each["fate"] for each in report["judgements"]] == ["refuted", "refuted"]
    assert len(lines) == 2
    assert not report["survivors"]
