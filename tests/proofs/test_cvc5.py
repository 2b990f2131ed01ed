"""The second opinion: cvc5 agrees where z3 proves, contradicts what is wrong, and is never taken to have agreed."""

import sys

import pytest
import z3

from armed_model.profiles import REFERENCE
from armed_model.system import Mode, System, mode
from armed_proofs import cvc5_opinion
from armed_proofs.cvc5_opinion import Missing, Opinion, ask, second_opinions, version
from armed_proofs.evidence import Refused, prove
from armed_proofs.obligations import Obligation, discharge

SYSTEM = System(REFERENCE)
running, stopping = (mode == Mode.RUNNING).z3, (mode == Mode.STOPPING).z3
true, false = z3.BoolVal(True), z3.BoolVal(False)


@pytest.fixture(scope="module")
def proofs():
    return prove(SYSTEM)


def texts_asked(monkeypatch):
    """Every text that a solver is given from now on, in a list that grows."""
    texts, answers = [], cvc5_opinion._answers

    def listen(text, *rest, **named):
        texts.append(text)
        return answers(text, *rest, **named)

    monkeypatch.setattr(cvc5_opinion, "_answers", listen)
    return texts


# --- Agreement -------------------------------------------------------------------------------------------------------


def test_cvc5_agrees_on_every_obligation_of_the_reference(proofs, monkeypatch):
    texts = texts_asked(monkeypatch)
    assert set(ask(proofs.obligations, proofs.impossible)) == {"unsat"}
    assert len(texts) == 1  # all of them together: none had to be asked again


def test_cvc5_agrees_on_the_texts_that_stand_in_the_evidence(proofs):
    for each in proofs.obligations[::100]:
        assert cvc5_opinion._ask_alone(each, 10_000) == "unsat", each.name


def test_an_opinion_tells_what_was_asked_and_answered():
    told = []
    systems = [System(REFERENCE, "+orphan"), System(REFERENCE, "+stray")]
    orphan, stray = second_opinions(systems, jobs=2, progress=told.append)
    assert sorted(told) == ["reference, +orphan: done", "reference, +stray: done"]
    assert (orphan.environment, stray.environment) == ("+orphan", "+stray")
    assert orphan.agrees
    assert stray.agrees
    assert stray.as_json() == {
        "profile": "reference",
        "environment": "+stray",
        "obligations": len(prove(systems[1]).proved),
        "impossible": len(prove(systems[1]).impossible),
        "disagreements": [],
        "not_proved": [],
        "seconds": round(stray.seconds, 3),
    }


# --- Disagreement ----------------------------------------------------------------------------------------------------


def test_an_obligation_that_lacks_a_fact_is_answered_sat_by_both(proofs):
    """Drop what the goal rests on: with the others of its action it is found out, and they are still agreed on."""
    action = "arm preserves "
    group = [each for each in proofs.obligations if each.name.startswith(action)]
    needed, victim = next((fact, each) for each in group for fact in each.facts if rests_on(each, fact))
    facts = tuple(fact for fact in group[0].facts if not fact.eq(needed))
    poorer = [Obligation(each.name, facts, each.goal, of_an_action=True) for each in group]
    of_z3 = {answer.name: answer.answer for answer in discharge(poorer)}
    of_cvc5 = dict(zip([each.name for each in poorer], ask(poorer), strict=True))
    assert of_z3[victim.name] == of_cvc5[victim.name] == "sat"
    assert {name for name, answer in of_z3.items() if answer == "sat"} == {
        name for name, answer in of_cvc5.items() if answer == "sat"
    }
    assert "unsat" in of_cvc5.values()


def rests_on(obligation, fact):
    solver = z3.SimpleSolver()
    solver.add(*[each for each in obligation.facts if not each.eq(fact)], z3.Not(obligation.goal))
    return solver.check() == z3.sat


def test_the_facts_and_goals_of_one_query_are_not_those_of_the_next():
    shared = (running,)
    queries = [
        Obligation("first follows", shared, running),
        Obligation("first does not follow", shared, stopping),
        Obligation("second follows", (stopping,), stopping),
        Obligation("first of other facts", (stopping,), running),
        Obligation("second contradicts itself", (running, stopping), false),
    ]
    assert ask(queries) == ["unsat", "sat", "unsat", "sat", "unsat"]


def test_what_is_called_impossible_is_asked_of_the_facts_alone():
    queries = [Obligation("follows", (running,), running), Obligation("contradicts", (running, stopping), false)]
    assert ask(queries) == ["unsat", "unsat"]
    assert ask(queries, {"follows", "contradicts"}) == ["sat", "unsat"]


def test_nothing_is_no_agreement():
    assert ask([]) == []
    assert not Opinion("reference", "calm", 0, 0, (), (), 0.0).agrees
    assert Opinion("reference", "calm", 1, 0, (), (), 0.0).agrees
    assert not Opinion("reference", "calm", 1, 0, (("query", "unknown"),), (), 0.0).agrees


def test_a_quantifier_is_refused_though_cvc5_could_answer():
    slot = z3.Const("slot", z3.DeclareSort("Slot"))
    with pytest.raises(Refused, match="quantifiers"):
        ask([Obligation("quantified", (), z3.ForAll([slot], slot == slot))])


def test_a_query_that_takes_too_long_is_no_agreement():
    """Eleven pigeons do not fit into ten holes; to find out takes long, not a hundredth of a second."""
    sits = [[z3.Bool(f"pigeon_{pigeon}_in_hole_{hole}") for hole in range(10)] for pigeon in range(11)]
    crowded = [
        z3.And(sits[one][hole], sits[other][hole]) for hole in range(10) for one in range(11) for other in range(one)
    ]
    hard = Obligation("hard", tuple(z3.Or(*holes) for holes in sits), z3.Or(*crowded))
    (answer,) = ask([hard], limit_ms=10)
    assert answer == "unknown"


@pytest.mark.parametrize("said", [[], ["unsat", "unsat"], ["error: no such symbol"], ["unknown"], ["sat"]])
def test_whatever_is_not_one_unsat_is_no_agreement(monkeypatch, said):
    monkeypatch.setattr(cvc5_opinion, "_answers", lambda *rest, **named: said)
    (answer,) = ask([Obligation("query", (running,), running)])
    assert answer != "unsat"


def test_what_cvc5_cannot_read_is_told():
    assert cvc5_opinion._answers("(assert nonsense)", 1000)[0].startswith("error: ")
    assert cvc5_opinion._answers("(check-sat", 1000)[0].startswith("error: ")


def test_a_disagreement_is_in_the_opinion(monkeypatch):
    monkeypatch.setattr(cvc5_opinion, "ask", lambda queries, *_, **__: ["sat"] + ["unsat"] * (len(queries) - 1))
    (opinion,) = second_opinions([System(REFERENCE, "+orphan")], jobs=1)
    assert not opinion.agrees
    assert len(opinion.disagreements) == 1
    assert opinion.as_json()["disagreements"] == [{"obligation": opinion.disagreements[0][0], "answer": "sat"}]


def test_it_is_said_when_cvc5_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvc5", None)
    for attempt in (version, lambda: second_opinions([SYSTEM]), lambda: ask([Obligation("query", (), true)])):
        with pytest.raises(Missing, match="pip install cvc5"):
            attempt()


def test_the_version_is_told():
    assert version().startswith("cvc5 1.")
