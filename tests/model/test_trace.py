"""Journals against the model: what is read, what is filled in by search, and what is refused, with the reason."""

import json
import random

import pytest

from armed_model.events import ACTIONS_NOT_TOLD, EVENTS
from armed_model.lifecycle import Who
from armed_model.profiles import PROFILES, REFERENCE, Kind
from armed_model.system import Mode, Phase, System, clean, flag, kind, mode, phase, slot_of, status
from armed_model.trace import Follower, Line, NoBehaviour, check, parse

ALL_ONES = (1 << 64) - 1
SUPERVISOR = 100_000


def line(event, generation=1, **fields):
    return {"event": event, "generation": generation, "time": 0.5} | fields


def opened(slots=2, startup=False):
    return line("opened", format=1, pid=SUPERVISOR, slots=slots, startup=startup)


def started(pid, slot, word=None, **fields):
    child = {"pid": pid, "slot": slot, "kind": "worker", "clean_word": hex(word or 1000 + pid)}
    return line("started", child=child, **fields)


def end(event, pid, slot, decision, status=0, word=None, **fields):
    child = {"pid": pid, "slot": slot, "kind": "worker", "decision": decision, "status": status}
    return line(event, child=child | {"slot_word": hex(1000 + pid if word is None else word)}, **fields)


def told(*lines, **options):
    return check([json.dumps(each) for each in lines], **options)


CLOSE = line("closing"), line("closed")
LIFE = opened(), started(71, 1), end("exited", 71, 1, "clean"), *CLOSE


def test_a_life_is_a_behaviour():
    found = told(*LIFE)
    assert (found.accepted, found.lines, found.supervisors, found.foreign_words) == (True, 5, 1, 0)


# --- What is no journal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON"),
        ('{"event": "star', "cut short"),
        ("[" * 100_000, "no JSON"),
        ("17", "no JSON object"),
        ('{"action": "arm"}', "event: it is missing"),
        ('{"event": ["closed"]}', "event: ['closed'] is unknown"),
        ('{"event": "armed", "generation": 1, "time": 0}', "event: 'armed' is unknown"),
        ('{"event": "closed", "generation": 0, "time": 0}', "generation: it is 0, and must be a whole number from 1"),
        ('{"event": "closed", "generation": true, "time": 0}', "generation: it is True"),
        ('{"event": "closed", "generation": 1}', "time: it is missing"),
        ('{"event": "closed", "generation": 1, "time": 0, "child": {}}', "child: closed is of no child"),
        ('{"event": "started", "generation": 1, "time": 0}', "child: it is missing"),
        ('{"event": "started", "generation": 1, "time": 0, "child": 71}', "child: it must be an object"),
    ],
)
def test_a_line_that_is_none_is_refused_with_the_field_that_is_wrong(text, reason):
    found = check([json.dumps(LIFE[0]), text, *map(json.dumps, LIFE[1:])])
    assert (found.accepted, found.lines, found.seen) == (False, 1, text)
    assert reason in found.reason
    assert found.allowed


@pytest.mark.parametrize("at", [0, 1, 2])
def test_each_field_is_asked_for_and_looked_at(at):
    def broken(within, name):
        lines = json.loads(json.dumps(LIFE))
        inner = lines[at] if within == "" else lines[at]["child"]
        yield inner.pop(name), lines
        inner[name] = None
        yield None, lines

    names = [("", name) for name in LIFE[at]] + [("child.", name) for name in LIFE[at].get("child", {})]
    for within, name in names:
        for _, lines in broken(within, name):
            found = told(*lines)
            assert (found.accepted, found.lines) == (False, at), (within, name)
            assert found.reason.startswith(f"{within}{name}: "), found.reason


@pytest.mark.parametrize(
    ("field", "value"),
    [("slot", 0), ("slot", -1), ("status", 256), ("slot_word", "0xZZ"), ("slot_word", "1"), ("slot_word", hex(1 << 64)),
     ("decision", "maybe"), ("kind", "walsender"), ("kind", []), ("pid", 0)],
)  # fmt: skip
def test_values_that_nothing_has_are_refused(field, value):
    lines = json.loads(json.dumps(LIFE))
    lines[2]["child"][field] = value
    found = told(*lines)
    assert (found.accepted, found.lines) == (False, 2)
    assert found.reason.startswith(f"child.{field}: ")


def test_an_empty_journal_is_refused():
    assert check([]).reason == "it is empty"
    assert not check([], unfinished=True).accepted


def test_a_journal_that_is_cut_off_in_front_is_refused():
    assert "cut off in front" in told(*LIFE[1:]).reason


def test_a_journal_without_its_end_is_accepted_only_when_asked():
    found = told(*LIFE[:2])
    assert (found.accepted, found.lines, found.seen) == (False, 2, "")
    assert "line 1 is not closed" in found.reason
    assert told(*LIFE[:2], unfinished=True).accepted
    assert not told(*LIFE, LIFE[-1], unfinished=True).accepted


def test_an_environment_that_says_nothing_of_journals_is_refused():
    with pytest.raises(ValueError, match=r"not in '\+orphan'"):
        told(*LIFE, environment="+orphan")


# --- What is no behaviour --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([started(71, 1), started(72, 1)], "two children never share a slot"),
        ([started(71, 1), started(71, 2)], "child 71 is there already"),
        ([started(71, 3)], "there is no slot 3; `opened` said 2"),
        ([started(71, 1), end("exited", 71, 2, "clean")], "child 71 is a worker child in slot 1, not"),
        ([started(71, 1), end("exited", 72, 1, "clean")], "there is no child 72"),
        ([started(71, 1), end("exited", 71, 1, "clean", word=7)], "a foreign word in its slot it is not to be decided"),
        ([started(71, 1), end("exited", 71, 1, "clean", word=0)], "status 0 and 0 in its slot it is not to be decided"),
        ([started(71, 1), end("exited", 71, 1, "clean", status=2)], "with status 2 and the clean word"),
        ([started(71, 1), end("crashed", 71, 1, "crash")], "with status 0 and the clean word"),
        ([started(71, 1), end("lost", 71, 1, "crash", status=2)], "recovery, or the end, is on"),
        ([started(71, 1), end("exited", 71, 1, "crash")], "of a child that is decided clean, not crash"),
        ([started(71, 1), end("exited", 71, 1, "clean"), started(72, 2, 1071)], "was the clean word of an earlier"),
        ([started(71, 1), end("exited", 71, 1, "clean"), started(72, 2, 1071 ^ ALL_ONES)], "its complement, was the"),
        ([started(71, 1), started(72, 2, 1071 ^ ALL_ONES)], "its complement, was the clean word of an earlier"),
        ([started(71, 1, ALL_ONES)], "is no clean word"),
        ([started(SUPERVISOR, 1)], "child 100000 is the supervisor itself"),
        ([line("started", generation=2, child=started(71, 1)["child"])], "this is of generation 1, not 2"),
        ([line("reset", 2)], "everybody is gone"),
        ([line("running")], "memory is new"),
        ([line("limit")], "nobody's time can be over"),
        ([line("stopping")], "closing has begun"),
        ([line("closed")], "it was asked to"),
        ([line("closing"), started(71, 1)], "nobody starts once a shutdown was asked for"),
        ([started(71, 1), *CLOSE], "no child outlives its supervisor"),
        ([started(71, 1), end("crashed", 71, 1, "crash", 2), line("reset", 2)], "`stopping` must come next"),
        ([*CLOSE, line("closing")], "the supervisor is closed"),
    ],
)
def test_what_no_supervisor_does_is_found_out_with_the_reason(lines, reason):
    found = told(opened(), *lines)
    assert not found.accepted
    assert found.seen
    assert reason in found.reason


def test_a_child_that_says_no_is_started_only_where_no_slot_is_free():
    no = line("started", child={"pid": 90, "slot": 0, "kind": "dead-end"})
    workers = [started(n, n) for n in range(1, 10)]
    assert told(opened(9), *workers, no, unfinished=True).accepted
    assert not told(opened(9), *workers[1:], no, unfinished=True).accepted
    assert not told(opened(10), *workers, no, unfinished=True).accepted
    assert not told(opened(1 << 20), *workers, no, unfinished=True).accepted


def test_what_could_have_come_is_told():
    found = told(opened(), started(71, 1), line("running"))
    assert [each.partition(":")[0] for each in found.allowed] == [
        "started, a new worker child",
        "closing",
        "exited, worker child 71 in slot 1",
        "crashed, worker child 71 in slot 1",
    ]
    assert found.allowed[2].endswith(": status 0 or 1 with the clean word")
    assert "any status with the armed word" in found.allowed[3]


def test_as_many_children_as_there_are_find_their_place():
    starts = [started(n, n) for n in range(1, 101)]
    ends = [end("exited", n, n, "clean") for n in range(100, 0, -1)]
    assert told(opened(100), *starts, *ends, *CLOSE).accepted


def test_a_long_journal_is_read_line_by_line_with_no_more_kept_than_is_alive():
    def lines():
        yield json.dumps(opened())
        for n in range(1, 10_000):
            yield json.dumps(started(n, 1 + n % 2))
            yield json.dumps(end("exited", n, 1 + n % 2, "clean"))
        yield from map(json.dumps, CLOSE)

    assert check(lines()).lines == 20_001


# --- The table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_every_action_is_told_or_a_childs_own_or_said_not_to_be_told(profile):
    system = System(profile, "+stray")
    in_runs = {name for meaning in EVENTS for run in meaning.runs for name in run}
    assert not in_runs & set(ACTIONS_NOT_TOLD)
    for action in system.actions:
        is_childs_own = action.by is Who.CHILD
        assert (action.name in in_runs) + (action.name in ACTIONS_NOT_TOLD) + is_childs_own == 1, action.name


def test_every_action_that_is_named_exists():
    everywhere = {action.name for profile in PROFILES.values() for action in System(profile, "+stray").actions}
    assert {name for meaning in EVENTS for run in meaning.runs for name in run} <= everywhere
    assert set(ACTIONS_NOT_TOLD) <= everywhere


def test_where_a_startup_child_comes_first_the_model_has_been_after_a_reset(instance, reachable):
    """So a journal may begin there: it is no state of the checker's own making."""
    follower = Follower(System(REFERENCE), parse(json.dumps(opened(1, startup=True))))
    (state,) = follower._states
    assert instance(1, 2).read(state, mode) is Mode.STARTING
    assert state in reachable(1, 2)


# --- The search that puts nothing off --------------------------------------------------------------------------------


class Whole:
    """Every state that the lines so far allow, with every silent step taken as soon as it is possible.

    Pids and slots are the model's own numbers. What is owed, or told once only, is left to the one compared with.
    """

    def __init__(self, instance, state):
        self.instance, self.states, self.words = instance, {state}, {}
        supervisors = {"only_dead_ends_left", "all_gone", "kill", "kill_stuck", "stray_write"}
        self.silent = {
            i for i, action in enumerate(instance.system.actions)
            if action.by is Who.CHILD or action.name in supervisors
        }  # fmt: skip
        self.close()

    def close(self):
        todo = list(self.states)
        while todo:
            for position, _, after in self.instance.successors(todo.pop()):
                if position in self.silent and after not in self.states:
                    self.states.add(after)
                    todo.append(after)

    def is_dead_as_told(self, state, told):
        read = self.instance.read
        if read(state, phase, told.pid) is not Phase.EXITED or read(state, slot_of, told.pid) != told.slot:
            return False
        if min(read(state, status, told.pid) % 256, 2) != told.status:
            return False
        word, clean_one = read(state, flag, told.slot), read(state, clean, told.slot)
        slot, assigned = told.slot, self.words.get(told.pid)
        says = {assigned: word == clean_one, 0: word == 0}
        if slot and told.slot_word not in says:
            is_armed = told.slot_word == assigned ^ ALL_ONES
            says[told.slot_word] = word == 1 if is_armed else word not in (0, 1, clean_one)
        statuses = (0,) if read(state, kind, told.pid) is Kind.AUXILIARY else (0, 1)
        is_clean = told.status in statuses and (not slot or word == clean_one)
        return (not slot or says[told.slot_word]) and is_clean is (told.decision == "clean")

    def take(self, meanings, told):
        """Whether the event is possible; if so, go on."""
        after = set()
        for meaning in meanings:
            conditions = [self.instance.predicate(when.holds(REFERENCE)) for when in meaning.when]
            here = {state for state in self.states if all(holds(state, state, 0) for holds in conditions)}
            if meaning.decision:
                here = {state for state in here if self.is_dead_as_told(state, told)}
            for run in meaning.runs:
                there = here
                for name in run:
                    there = {step for state in there for step in self.steps(state, name, told)}
                after |= there
        if after:
            self.states = after
            self.close()
            if told.clean_word is not None:
                self.words[told.pid] = told.clean_word
        return bool(after)

    def steps(self, state, name, told):
        if name not in self.instance.actions:
            return
        over = [parameter.name for parameter in self.instance.actions[name].action.of]
        for other, arguments, after in self.instance.steps(state):
            if other != name:
                continue
            given = dict(zip(over, arguments, strict=True))
            if given.get("c", told.pid) == told.pid and given.get("s", told.slot) == told.slot:
                yield after


def lines_to_try(rng, slots, children, generation, words):
    """Draw a line that may be right or wrong, with pids and slots that the small instance has."""
    late = () if rng.random() < 0.1 else ("closing", "closed")
    # A notice is no step of the model: it only says how the child must end.
    event = rng.choice([each.event for each in EVENTS if each.event not in late and not each.is_a_notice])
    of = rng.choice([meaning.of for meaning in EVENTS if meaning.event == event])
    number = generation + (event == "reset")
    if not of:
        return Line(event, number)
    pid, child_kind = rng.randint(1, children), rng.choice(of)
    slot = rng.randint(1, slots) if child_kind == "worker" else 0
    if not any(meaning.decision for meaning in EVENTS if meaning.event == event):
        return Line(event, number, pid, child_kind, slot, rng.getrandbits(60) | 16 if slot else None)
    word = words.get(pid) or 0
    slot_word = rng.choice([word, word, word ^ ALL_ONES, 0, 7]) if slot else 0
    decision = rng.choice(["clean", "crash"])
    return Line(event, number, pid, child_kind, slot, None, decision, rng.choice([0, 0, 1, 2]), slot_word)


OF_THE_FORMAT = ("must come next", "no crash was told", "time can be over", "is there already", "there is no child",
                 " child in slot ", "is decided", "startup child has prepared", "there has been one in this generation",
                 "`opened` says")  # fmt: skip
"""Reasons that are of the format, or of what was told before, and none of the model's."""


@pytest.mark.parametrize(
    ("slots", "children", "environment", "walks"), [(1, 2, "calm", 8), (2, 2, "calm", 3), (1, 2, "+stray", 2)]
)
def test_to_put_a_childs_steps_off_changes_no_answer(slots, children, environment, walks, instance):
    rng, agreed = random.Random(20261127), {True: 0, False: 0}
    seen = set()
    whole_instance = instance(slots, children, environment)
    for walk in range(walks):
        startup = walk % 2 == 1
        follower = Follower(System(REFERENCE, environment), parse(json.dumps(opened(slots, startup))))
        first = list(whole_instance.initial)
        first[whole_instance.index["mode"]] = list(Mode).index(Mode.STARTING if startup else Mode.RUNNING)
        whole, generation = Whole(whole_instance, tuple(first)), 1
        for _ in range(120):
            told = lines_to_try(rng, slots, children, generation, whole.words)
            is_owed = told.event == follower._owed
            try:
                follower.take(told)
                accepted, why = True, ""
            except NoBehaviour as error:
                accepted, why = False, str(error)
                if any(reason in why for reason in OF_THE_FORMAT):
                    continue
            meanings = [
                meaning for meaning in EVENTS
                if meaning.event == told.event and (told.kind in meaning.of or not (told.kind or meaning.of))
                and (is_owed or not meaning.is_owed)
            ]  # fmt: skip
            assert whole.take(meanings, told) is accepted, (told, why)
            agreed[accepted] += 1
            seen |= {told.event} if accepted else set()
            generation = follower.generation
            if follower.is_over:
                break
    assert min(agreed.values()) > walks, agreed
    assert "started" in seen


# --- Notices ---------------------------------------------------------------------------------------------------------


def noticed(pid, slot):
    return line("noticed", child={"pid": pid, "slot": slot, "kind": "worker"})


def armed_end(event, pid, slot):
    return end(event, pid, slot, "crash", word=1000 + pid ^ ALL_ONES)


BEFORE = opened(), started(71, 1), started(72, 2)
CRASHED, STOPPING, CLOSING, CLOSED = armed_end("crashed", 71, 1), line("stopping"), line("closing"), line("closed")


@pytest.mark.parametrize(
    "lines",
    [
        [noticed(71, 1), CRASHED, STOPPING, armed_end("lost", 72, 2), line("reset", 2), line("running", 2)],
        [noticed(71, 1), CRASHED, CLOSING, STOPPING, armed_end("lost", 72, 2), CLOSED],
        [noticed(71, 1), CLOSING, CRASHED, STOPPING, armed_end("lost", 72, 2), CLOSED],
        [CLOSING, noticed(71, 1), CRASHED, STOPPING, armed_end("lost", 72, 2), CLOSED],
        [end("exited", 72, 2, "clean"), noticed(71, 1), CRASHED, STOPPING, CLOSING, CLOSED],
    ],
)
def test_the_crash_of_who_was_noticed_to_die_armed_comes_next(lines):
    assert told(*BEFORE, *lines, unfinished=True).accepted


ONLY_CRASHED = "`crashed` must come next"


@pytest.mark.parametrize(
    ("lines", "wrong", "reason"),
    [
        ([noticed(71, 1)], end("exited", 71, 1, "clean"), ONLY_CRASHED),
        ([noticed(71, 1)], noticed(71, 1), ONLY_CRASHED),
        ([noticed(71, 1)], noticed(72, 2), ONLY_CRASHED),
        ([noticed(71, 1)], armed_end("crashed", 72, 2), "it is child 71 that was noticed"),
        ([noticed(71, 1)], armed_end("lost", 71, 1), ONLY_CRASHED),
        ([noticed(71, 1)], armed_end("lost", 72, 2), ONLY_CRASHED),
        ([noticed(71, 1)], started(73, 3), ONLY_CRASHED),
        ([noticed(71, 1)], STOPPING, ONLY_CRASHED),
        ([CLOSING, noticed(71, 1)], STOPPING, ONLY_CRASHED),
        ([noticed(71, 1), CLOSING], STOPPING, ONLY_CRASHED),
        ([noticed(71, 1)], end("crashed", 71, 1, "crash", status=-9), "was armed when it was noticed"),
        ([CRASHED], noticed(71, 1), "there is no child 71"),
        ([CRASHED], noticed(72, 2), "`stopping` must come next"),
        ([CRASHED, STOPPING], noticed(72, 2), "only where deaths are decided"),
        ([CLOSING, STOPPING], noticed(72, 2), "only where deaths are decided"),
    ],
)
def test_what_contradicts_a_notice_is_refused(lines, wrong, reason):
    before = opened(3), *BEFORE[1:], *lines
    found = told(*before, wrong, unfinished=True)
    assert (found.accepted, found.lines) == (False, len(before))
    assert reason in found.reason


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_a_notice_is_refused_where_no_death_is_known_before_the_reaping(profile):
    found = told(*BEFORE, noticed(71, 1), profile=profile, unfinished=True)
    assert found.accepted is profile.early_notice
    assert found.accepted or "may be known before the reaping" in found.reason


# --- Startup children ------------------------------------------------------------------------------------------------


def of_startup(event, pid, generation=1, **fields):
    return line(event, generation, child={"pid": pid, "slot": 0, "kind": "startup"} | fields)


def prepared(pid, generation=1):
    return (
        of_startup("startup", pid, generation),
        of_startup("exited", pid, generation, decision="clean", status=0, slot_word="0x0"),
    )


def failed(pid, generation=1):
    crashed = of_startup("crashed", pid, generation, decision="crash", status=1, slot_word="0x0")
    return of_startup("startup", pid, generation), crashed, line("stopping", generation)


RECOVERY = started(71, 1), CRASHED, STOPPING, line("reset", 2)


def test_a_startup_child_prepares_each_generation():
    lines = *prepared(81), line("running"), *RECOVERY, *failed(82, 2), line("reset", 3), *prepared(83, 3)
    assert told(opened(startup=True), *lines, line("running", 3), line("closing", 3), line("closed", 3)).accepted


@pytest.mark.parametrize(
    ("startup", "lines", "wrong", "reason"),
    [
        (False, [*RECOVERY], of_startup("startup", 81, 2), "`opened` says that there is none"),
        (True, [], line("running"), "no startup child has prepared it"),
        (True, [*prepared(81), line("running"), *RECOVERY], line("running", 2), "no startup child has prepared it"),
        (True, [*failed(81), line("reset", 2)], line("running", 2), "no startup child has prepared it"),
        (True, [prepared(81)[0]], of_startup("startup", 82), "there has been one in this generation"),
        (True, [*prepared(81)], of_startup("startup", 82), "there has been one in this generation"),
    ],
)
def test_there_is_one_startup_child_in_each_generation_or_none(startup, lines, wrong, reason):
    found = told(opened(startup=startup), *lines, wrong)
    assert (found.accepted, found.lines) == (False, 1 + len(lines))
    assert reason in found.reason
