"""The specification as text leaves nothing out, and says what the definition says."""

from __future__ import annotations

import re

import pytest

from armed_model import specification
from armed_model.lifecycle import ROWS, WALSENDER_ROWS, SlotState
from armed_model.profiles import PROFILES, REFERENCE
from armed_model.properties import ASSUMPTIONS
from armed_model.specification import claimed, guard_in_words, in_words, variants
from armed_model.system import ENVIRONMENTS, Mode, Phase, System, c, d, engaged, flag, mode, phase, slot_of, used, w
from armed_model.terms import Term, both, choose, either, exists, for_all, implies, negate, one_of

EVERY_ACTION = {
    action.name: action
    for profile in PROFILES.values()
    for environment in ENVIRONMENTS
    for action in System(profile, environment).actions
}


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (phase[c] == Phase.EXITED, 'phase[c] is "exited"'),
        (negate(engaged[c]), "not engaged[c]"),
        (both(engaged[c], mode != Mode.DEAD), 'engaged[c] and mode is not "dead"'),
        (either(negate(engaged[c]), engaged[d]), "not engaged[c] or engaged[d]"),
        (negate(both(engaged[c], engaged[d])), "not (engaged[c] and engaged[d])"),
        (one_of(mode, Mode.RUNNING, Mode.STARTING), 'mode in {"running", "starting"}'),
        (negate(one_of(mode, Mode.RUNNING, Mode.STARTING)), 'mode not in {"running", "starting"}'),
        (for_all(d, engaged[d]), "for all d: engaged[d]"),
        (exists(d, engaged[d]), "for some d: engaged[d]"),
        (implies(engaged[c], engaged[d]), "engaged[c] implies engaged[d]"),
        (engaged[c] == engaged[d], "engaged[c] iff engaged[d]"),
        (choose(engaged[c], flag[slot_of[c]], flag[slot_of[d]]) == w,
         "(if engaged[c] then flag[slot_of[c]] else flag[slot_of[d]]) is w"),
        (negate(used[w]), "not used(w)"),
        (both(), "true"),
    ],
)  # fmt: skip
def test_a_formula_is_written_in_words(term: Term, words: str) -> None:
    assert in_words(term.z3, frozenset({"c", "w"})) == words


def test_no_sign_of_another_language_is_left_in_any_formula() -> None:
    text = specification.actions() + specification.properties_in_words() + specification.state()
    assert not re.findall(r"\\|/\\|[#~] |<=>|=>|TRUE|FALSE|IF |THEN|Used", re.sub(r"^#+ ", "", text, flags=re.M))


def test_every_action_of_every_profile_and_environment_has_its_place() -> None:
    text = specification.actions()
    assert len(EVERY_ACTION) > 50
    for name in EVERY_ACTION:
        assert text.count(f"\n### {name}\n") == 1, name


def test_every_conjunct_with_its_reason_and_every_effect_is_told_of_the_profiles_that_have_it() -> None:
    sections = dict(re.findall(r"\n### (\w+)\n(.*?)(?=\n\(action-|\n## |\Z)", specification.actions(), re.DOTALL))
    for profile in PROFILES.values():
        for environment in ENVIRONMENTS:
            for action in System(profile, environment).actions:
                lines = [line for line in sections[action.name].splitlines() if line.startswith("| `")]
                told = [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines]
                for left, right in (*guard_in_words(action), *specification.effect_in_words(action)):
                    here = [row for row in told if row[:2] == [left, right]]
                    assert here, (profile.name, action.name, left)
                    assert any(len(row) == 2 or not row[2] or profile.name in row[2].split(", ") for row in here)


def test_what_differs_is_not_told_of_profiles_that_do_not_have_it() -> None:
    told = {line for line in specification.actions().splitlines() if line.startswith("| `not used(w)`")}
    assert [line.split("|")[-2].strip() for line in told] == ["reference"]


def test_an_action_that_reads_the_same_everywhere_has_one_variant() -> None:
    assert [names for names, _ in variants()["calm"]["get_stuck"]] == [("reference", *list(PROFILES)[:-1])]
    assert len(variants()["calm"]["arm"]) > 1


def test_the_picture_has_a_box_for_each_state_and_an_arrow_for_each_row() -> None:
    picture = specification.lifecycle_picture()
    for state in SlotState:
        assert f">{state.value}</text></g>" in picture
    for row in (*ROWS, *WALSENDER_ROWS):
        told = f"<title>{row.trigger.value}: {row.source.value} to {row.dest.value}, by the {row.who.value}</title>"
        assert picture.count(told) == 1
    assert picture.count("<title>") == len(ROWS) + len(WALSENDER_ROWS)


def test_what_differs_between_profiles_is_in_bold() -> None:
    lines = specification.profiles().splitlines()
    assert "| failed fork releases | no | **yes** | yes | yes | yes | yes |" in lines


def test_every_property_and_every_assumption_is_told() -> None:
    text = specification.properties_in_words()
    for claim in claimed(REFERENCE):
        assert text.count(f"\n## {claim.name}\n\n{claim.sentence}\n") == 1
    for name, sentence in ASSUMPTIONS.items():
        assert f"| {name} | {sentence} |" in specification.assumptions()
    assert {name for claim in claimed(REFERENCE) for name in claim.assumes} == {*ASSUMPTIONS}
