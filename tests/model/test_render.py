"""The TLA+ module: it says all of the definition, once, in names that do not clash, and means what the terms mean."""

import functools
import re

import pytest
import z3

from armed_model.interpret import NotInterpretable, Size
from armed_model.profiles import CONTROLS, PROFILES, REFERENCE, V8_4_0, V15, V18
from armed_model.properties import Claim, actor, by_name
from armed_model.render import _Writer, claims_of, tla, tla_config, tla_name
from armed_model.system import (
    ENVIRONMENTS,
    OTHER,
    Mode,
    Phase,
    System,
    armed,
    c,
    d,
    flag,
    mode,
    no_slot,
    owed,
    phase,
    s,
    slot_of,
    status,
    used,
    variables,
    w,
)
from armed_model.terms import Term, both, choose, either, for_all, implies, negate, one_of

EVERY = [
    *[(profile, "calm") for profile in PROFILES],
    *[(profile, environment) for profile in ("18", "reference") for environment in list(ENVIRONMENTS)[1:]],
]


@pytest.fixture(scope="module")
def module():
    written = {}

    def of(profile, environment):
        if (profile, environment) not in written:
            written[profile, environment] = tla(System(PROFILES[profile], environment))
        return written[profile, environment]

    return of


@functools.cache
def actions_of(profile, environment):
    return System(PROFILES[profile], environment).actions


def in_one_line(text):
    """The module without its line breaks, also those within comments."""
    return re.sub(r"\s+", " ", text.replace("\n\\* ", " "))


@pytest.mark.parametrize(
    ("system", "name"),
    [
        (System(REFERENCE), "armed_reference_calm"),
        (System(V8_4_0, "+stray"), "armed_8_4_0_stray"),
        (System(V18, "calm", backends_alone=True), "armed_18_calm_backends_alone"),
        (System(CONTROLS["no-dead-man-switch"], "+copy-back"), "armed_no_dead_man_switch_copy_back"),
    ],
)
def test_a_module_is_named_after_profile_and_environment(system, name):
    assert tla_name(system) == name
    assert f" MODULE {name} -" in tla(system).splitlines()[0]


@pytest.mark.parametrize(("profile", "environment"), EVERY)
def test_every_action_is_there_with_its_sentence_and_its_reasons(module, profile, environment):
    text = module(profile, environment)
    flat = in_one_line(text)
    for action in actions_of(profile, environment):
        assert action.sentence in flat
        for conjunct in action.guard:
            assert f"\\* {conjunct.why}\n" in text


@pytest.mark.parametrize(("profile", "environment"), EVERY)
def test_no_name_is_defined_twice(module, profile, environment):
    text = module(profile, environment)
    defined = re.findall(r"^(\w+)(?:\([\w, ]+\))? ==", text, re.MULTILINE)
    declared = re.findall(r"^    (\w+),? +\\\* ", text, re.MULTILINE)
    assert len(declared) > 20
    assert len(defined) > 40
    names = [*defined, *declared]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(("profile", "environment"), EVERY)
def test_every_action_says_of_each_variable_whether_it_changes(module, profile, environment):
    text = module(profile, environment)
    declared = set(re.findall(r"^    (\w+),? +\\\* ", text, re.MULTILINE))
    actions = re.findall(r"^[A-Z]\w+(?:\([\w, ]+\))? ==\n((?:    .*\n)+)", text, re.MULTILINE)
    said = 0
    for body in actions:
        changed = re.findall(r"^    /\\ (\w+)' = ", body, re.MULTILINE)
        unchanged = re.search(r"UNCHANGED <<([^>]+)>>", body)
        if unchanged is not None:
            names = [*changed, *re.split(r",\s+", unchanged[1])]
            assert set(names) == declared
            assert len(names) == len(declared)
            said += 1
    assert said == len(actions_of(profile, environment))


@pytest.mark.parametrize(("profile", "environment"), EVERY)
def test_no_line_is_too_wide_to_be_read(module, profile, environment):
    assert max(map(len, module(profile, environment).splitlines())) <= 130


def test_every_claim_of_the_environment_is_there_and_in_the_configuration(module):
    system = System(REFERENCE)
    text, config = in_one_line(module("reference", "calm")), tla_config(system, Size(2, 3))
    assert len(claims_of(system)) >= 28
    for claim in claims_of(system):
        assert claim.sentence in text
        kind = "INVARIANT" if claim.claims is Claim.ALWAYS else "PROPERTY"
        assert f"\n{kind} {claim.name}\n" in config
    assert "CONSTANTS N = 2  M = 3\n" in config
    assert "INVARIANT TypeOK\n" in config
    assert "SPECIFICATION Spec\n" in config


def test_only_the_claims_asked_for_are_there():
    claim = by_name(V15)["torn_memory_is_not_served"]
    assert "\nPROPERTY torn_memory_is_not_served\n" in tla_config(System(V15), Size(1, 1), [claim])
    assert tla_config(System(V15), Size(1, 1), [claim]).count("PROPERTY") == 1
    assert "PROPERTY" not in tla_config(System(V15), Size(1, 1), [])
    assert "[]" not in tla(System(V15), [claim]).partition("Spec ==")[0]
    assert tla(System(V15), [claim]).partition("Spec ==")[2].count("[][") == 2  # the specification's and the claim's


def test_what_is_out_of_scope_or_of_another_environment_is_not_claimed():
    assert "crash_after_reset_recovers_again" not in [each.name for each in claims_of(System(V8_4_0))]
    assert "crash_after_reset_recovers_again" in [each.name for each in claims_of(System(V15))]
    of_cancel = [each.name for each in claims_of(System(V15, "+cancel"))]
    assert "cancel_reaches_its_owner_only" in of_cancel
    assert "decision_is_exact" not in of_cancel


def test_a_claim_about_who_takes_the_step_is_asked_of_everybody_who_could_have():
    text = tla(System(V15, "+grandchild"))
    assert "grandchild_never_disarms_by(actor) ==" in text
    for who in ("supervisor", "child", "grandchild"):
        assert f'grandchild_never_disarms_by("{who}") \\/ ~By{who.capitalize()}' in text
    assert "ByEnvironment" not in text


def test_a_premise_stands_outside_the_quantifiers_that_it_does_not_need(module):
    text = in_one_line(module("reference", "calm"))
    assert r'[][(mode = "resetting" /\ mode' "'" r' = "starting") => \A child \in Children :' in text
    assert r"no_slot_leaks == \A slot \in Slots :" in text


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (both(owed), "owed"),
        (both(), "TRUE"),
        (either(), "FALSE"),
        (either(both(owed, armed[c])), r"owed /\ armed[c]"),
        (negate(either(both(owed, armed[c]))), r"~(owed /\ armed[c])"),
        (both(owed, either(armed[c], armed[d])), r"owed /\ (armed[c] \/ armed[d])"),
        (either(either(owed, armed[c]), armed[d]), r"owed \/ armed[c] \/ armed[d]"),
        (either(one_of(mode, Mode.DEAD, Mode.STOPPED), owed), r'mode \in {"dead", "stopped"} \/ owed'),
        (negate(one_of(phase[c], Phase.NONE, Phase.EXITED)), r'phase[c] \notin {"none", "exited"}'),
        (either(mode == Mode.DEAD, phase[c] == Phase.NONE), r'mode = "dead" \/ phase[c] = "none"'),
        (one_of(mode, Mode.DEAD), 'mode = "dead"'),
        (negate(mode == Mode.DEAD), 'mode # "dead"'),
        (negate(mode != Mode.DEAD), 'mode = "dead"'),
        (negate(negate(owed)), "owed"),
        (negate(owed == armed[c]), "~(owed <=> armed[c])"),
        (owed == both(armed[c], armed[d]), r"owed <=> (armed[c] /\ armed[d])"),
        (implies(implies(owed, armed[c]), armed[d]), "(owed => armed[c]) => armed[d]"),
        (both(implies(owed, armed[c]), armed[d]), r"(owed => armed[c]) /\ armed[d]"),
        (both(for_all(d, armed[d]), owed), r"(\A d \in 0..M : armed[d]) /\ owed"),
        (for_all(c, armed[c]), r"\A c_ \in 0..M : armed[c_]"),  # c is taken
        (flag[slot_of[c]] == w, "flag[slot_of[c]] = w"),
        (variables.primed(flag[slot_of[c]]) != flag[s], "flag'[slot_of'[c]] # flag[s]"),
        (no_slot == slot_of[c], "slot_of[c] = no_slot"),
        (used[w], "Used(w)"),
        (variables.primed(used[w]), "Used(w)'"),
        (status[c] == -9, "status[c] = -9"),
        (Term(status[c].z3 <= 1), "status[c] <= 1"),
        (flag[s] == OTHER, "flag[s] = OTHER_WORD"),
        (choose(owed, s, no_slot) == s, "(IF owed THEN s ELSE no_slot) = s"),
        (actor == list(type(System(REFERENCE).actions[0].by))[1], 'actor = "child"'),
    ],
    ids=str,
)
def test_a_term_means_in_tla_what_it_means(term, text):
    assert _Writer(set(), {"c", "s", "w"}).text(term.z3) == text


def test_what_does_not_fit_in_a_line_is_told_in_several_with_the_same_meaning():
    writer = _Writer(set(), {"c"})
    term = implies(both(owed, armed[c]), either(both(owed, armed[c]), for_all(d, both(armed[d], owed))))
    assert writer.block(term.z3, 200) == [writer.text(term.z3)]
    assert writer.block(term.z3, 20) == [
        r"(owed /\ armed[c])",
        r"=> (\/ /\ owed",
        r"       /\ armed[c]",
        r"    \/ \A d \in 0..M :",
        r"          /\ armed[d]",
        r"          /\ owed)",
    ]


def test_an_operator_that_has_no_translation_is_refused():
    with pytest.raises(NotInterpretable):
        _Writer(set(), set()).text(status[c].z3 + z3.IntVal(1))
