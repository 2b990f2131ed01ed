"""What real supervisors write is a behaviour of the model, and what is no such thing any more is found out."""

import io
import json
import os
import signal
import sys

import pytest

from armed import CrashWhileClosing, EventKind, LostAtEnd, RecoveryLimit, StartupFailed, Supervisor
from armed.exits import Watch
from armed_model.events import EVENTS, NAMES
from armed_model.profiles import NO_DEAD_MAN_SWITCH, PROFILES
from armed_model.trace import check

LIMIT = 20.0


def idle(me, shared, *_):
    with me.engage():
        pass


def crash(me, shared):
    with me.engage():
        os._exit(0)


def deaf(me, shared, ready):
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    os.write(ready, b".")
    while True:
        signal.pause()


def waiting(me, shared, ready):
    os.write(ready, b".")
    while True:
        signal.pause()


def crashing_when_asked(me, shared, ready):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with me.engage():
        waiting(me, shared, ready)


def scribbling(me, shared):
    with me.engage():
        me._word[0] = 0xBAD
        os._exit(0)


def crashing_at_first(me, shared):
    if me.generation == 1:
        crash(me, shared)


def prepare(me, shared, previous):
    pass


def prepare_at_the_second_try(me, shared, previous):
    if me.generation % 2:
        sys.exit(1)


def prepare_the_first(me, shared, previous):
    while me.generation > 1:
        signal.pause()


def paused(*_):
    signal.pause()


def prepare_too_slowly(me, shared, previous):
    while me.generation == 1:
        signal.pause()


def lives(sup, ready):
    for target in (idle, lambda me, shared: sys.exit(1), lambda me, shared: os._exit(0)):
        sup.start(target)
        sup.run(LIMIT)
    for _ in range(2):
        sup.start(idle)
    sup.run(LIMIT)


def crash_beside_others(sup, ready):
    for _ in range(2):
        sup.start(waiting, ready[1])
        os.read(ready[0], 1)
    sup.start(crash)
    sup.run(LIMIT)
    sup.start(idle)
    sup.run(LIMIT)


def notice(sup, ready):
    """Look who is dying as when the bell rings, which not every kernel has."""
    sup.start(waiting, ready[1])
    os.read(ready[0], 1)
    os.waitid(os.P_PID, sup.start(crash).pid, os.WEXITED | os.WNOWAIT)
    sup._deliver(sup._look_who_is_dying)
    sup.run(LIMIT)


def raw_status(sup, ready):
    sup.start(lambda me, shared: os._exit(2))
    sup.run(LIMIT)


def stuck(sup, ready):
    sup.start(deaf, ready[1])
    os.read(ready[0], 1)
    sup.start(crash)
    sup.run(LIMIT)


def one_crash(sup, ready):
    sup.start(crash)
    sup.run(LIMIT)


def again(sup, ready):
    sup.start(crashing_at_first, restart=True)
    sup.run(LIMIT)


def start_two_where_one_is_free(sup, ready):
    """Return the worker and the dead-end child."""
    worker = sup.start(waiting, ready[1])
    os.read(ready[0], 1)
    return worker, sup.start(idle)


def say_no(sup, ready):
    start_two_where_one_is_free(sup, ready)
    while EventKind.EXITED not in [event.kind for event in sup.step(LIMIT)]:
        pass


def lose_the_one_who_says_no(sup, ready):
    os.kill(start_two_where_one_is_free(sup, ready)[0].pid, signal.SIGKILL)
    sup.run(LIMIT)


def kill_the_one_who_says_no(sup, ready):
    os.kill(start_two_where_one_is_free(sup, ready)[1].pid, signal.SIGKILL)
    sup.run(LIMIT)


def too_often(sup, ready):
    for _ in range(2):
        one_crash(sup, ready)


def close_with_a_stuck_child(sup, ready):
    sup.start(deaf, ready[1])
    os.read(ready[0], 1)
    sup.close(0)


def crash_while_closing(sup, ready):
    sup.start(crashing_when_asked, ready[1])
    os.read(ready[0], 1)
    sup.start(waiting, ready[1])
    os.read(ready[0], 1)
    sup.close(LIMIT)


def close_in_a_recovery(sup, ready):
    sup.start(deaf, ready[1])
    os.read(ready[0], 1)
    sup.start(lambda me, shared: os._exit(2))
    while EventKind.CRASHED not in [event.kind for event in sup.step(LIMIT)]:
        pass


def close_while_preparing(sup, ready):
    sup.start(crash)
    while sup.mode.value != "starting":
        sup.step(LIMIT)


class OutOfDescriptors(Watch):
    """Refuses the first child, when that has armed or was never to."""

    before = None

    def add(self, pid):
        if self.before is not None:
            self.before()
            self.before = None
            raise OSError("planted: no descriptor")
        return super().add(pid)


def starts_that_fail(sup, ready):
    def armed(me, shared):
        with me.engage():
            waiting(me, shared, ready[1])

    for target, before in ((idle, lambda: None), (armed, lambda: os.read(ready[0], 1))):
        sup._watch.close()
        sup._watch = OutOfDescriptors()
        sup._watch.before = before
        with pytest.raises(OSError, match="planted"):
            sup.start(target)
        sup.run(LIMIT)


def spawn_one(sup, ready):
    sup.start(print)
    sup.run(LIMIT)


def scribble(sup, ready):
    sup.start(scribbling)
    sup.run(LIMIT)


def made_once():
    made = iter([1])

    def make_shared():
        if next(made, None) is None:
            raise OSError("planted: no memory")

    return make_shared


SCENES = {
    "nothing": (lambda sup, ready: None, {}),
    "clean lives": (lives, {}),
    "a crash beside others": (crash_beside_others, {}),
    "a crash without early warning": (crash_beside_others, {"early_warning": "off"}),
    "a death that is noticed early": (notice, {"early_warning": "off"}),
    "a raw status": (raw_status, {}),
    "a stuck child": (stuck, {"stop_after": 0.1}),
    "work begun anew": (again, {}),
    "a startup child": (one_crash, {"startup": prepare}),
    "a startup child that fails": (one_crash, {"startup": prepare_at_the_second_try}),
    "a startup child that takes too long": (one_crash, {"startup": prepare_too_slowly, "startup_limit": 0.1}),
    "a startup child that always fails": (
        one_crash,
        {"startup": lambda me, shared, previous: sys.exit(1), "restart_limit": (1, 60.0)},
    ),
    "shared memory that cannot be made again": (one_crash, {"make_shared": made_once()}),
    "too many recoveries": (too_often, {"restart_limit": (1, 60.0)}),
    "a dead-end child": (say_no, {"slots": 1, "dead_end": lambda *_: None}),
    "a dead-end child that is lost": (lose_the_one_who_says_no, {"slots": 1, "dead_end": paused}),
    "a dead-end child that crashes": (kill_the_one_who_says_no, {"slots": 1, "dead_end": paused}),
    "close with a stuck child": (close_with_a_stuck_child, {"stop_after": 0.1}),
    "a crash while closing": (crash_while_closing, {}),
    "close in a recovery": (close_in_a_recovery, {"stop_after": 0.1}),
    "close while preparing": (close_while_preparing, {"startup": prepare_the_first}),
    "a child without an inheritance": (spawn_one, {"start_method": "spawn"}),
    "starts that fail": (starts_that_fail, {"early_warning": "off"}),
    "a foreign word": (scribble, {}),
}


@pytest.fixture(scope="module")
def journals():
    """The lines that each scene has left."""
    written = {}
    for name, (act, options) in SCENES.items():
        journal, ready = io.StringIO(), os.pipe()
        try:
            with Supervisor(**({"slots": 4} | options), journal=journal) as sup:
                act(sup, ready)
        except (CrashWhileClosing, LostAtEnd, RecoveryLimit, StartupFailed):
            pass
        finally:
            for end in ready:
                os.close(end)
        written[name] = journal.getvalue().splitlines()
    return written


def events_of(lines):
    return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize("scene", SCENES)
def test_the_journal_of_a_real_supervisor_is_a_behaviour_of_the_model(journals, scene):
    found = check(journals[scene])
    assert found.accepted, found
    assert found.lines == len(journals[scene])
    in_calm = check(journals[scene], environment="calm")
    assert in_calm.accepted is (scene != "a foreign word"), in_calm


def test_every_event_and_every_meaning_was_told_by_a_real_supervisor(journals):
    told = {event for lines in journals.values() for event in events_of(lines)}
    assert told == set(NAMES)
    lines = [json.loads(line) for lines in journals.values() for line in lines]
    told = {(line["event"], line.get("child", {}).get("kind", "")) for line in lines}
    wanted = {(meaning.event, kind) for meaning in EVENTS for kind in meaning.of or ("",)} | {("opened", "")}
    assert wanted <= told


# --- Journals that somebody has tampered with -------------------------------------------------------------------------


def changed(line, path, value):
    """The line with another value at a path such as child.status."""
    copy = json.loads(json.dumps(line))
    *within, last = path.split(".")
    inner = copy
    for name in within:
        inner = inner[name]
    inner[last] = value
    return copy


def changes(line, clean):
    """Other values that a line could have: what was changed, and the line. `clean` is the child's clean word."""
    yield "generation", changed(line, "generation", line["generation"] + 1)
    if line["generation"] > 1:
        yield "generation", changed(line, "generation", line["generation"] - 1)
    if line["event"] == "opened":
        yield "fewer slots", changed(line, "slots", 1)
        yield "startup", changed(line, "startup", not line["startup"])
    child = line.get("child")
    if child is None:
        return
    yield "pid", changed(line, "child.pid", child["pid"] + 100_000)
    for slot in {0, 1, 2} - {child["slot"]}:
        yield "slot", changed(line, "child.slot", slot)
    for kind in {"worker", "startup", "dead-end"} - {child["kind"]}:
        yield "kind", changed(line, "child.kind", kind)
    if "clean_word" in child:
        yield "clean_word", changed(line, "child.clean_word", hex(clean ^ 1))
    if "decision" not in child:
        return
    yield "decision", changed(line, "child.decision", "clean" if child["decision"] == "crash" else "crash")
    for status in {0, 1, 2, -9} - {child["status"]}:
        yield f"status to {status}", changed(line, "child.status", status)
    if child["slot"]:
        words = {"clean": clean, "armed": clean ^ (1 << 64) - 1, "0": 0, "foreign": clean ^ 1}
        for name, word in words.items():
            if hex(word) != child["slot_word"]:
                yield f"slot_word to {name}", changed(line, "child.slot_word", hex(word))


def mutants(lines):
    """Every way in which one line, or the order of two, can be wrong: a name, the event, and the lines."""
    clean = {}
    for i, line in enumerate(lines):
        child = line.get("child", {})
        if "clean_word" in child:
            clean[child["pid"]] = int(child["clean_word"], 16)
        yield "drop", line["event"], lines[:i] + lines[i + 1 :]
        yield "duplicate", line["event"], lines[: i + 1] + lines[i:]
        for what, other in changes(line, clean.get(child.get("pid"), 0)):
            yield what, line["event"], [*lines[:i], other, *lines[i + 1 :]]
        for following in lines[i + 1 : i + 2]:
            swapped = [*lines[:i], following, line, *lines[i + 2 :]]
            yield f"swap with {following['event']}", line["event"], swapped


SCRIBBLED = "somebody may have scribbled over the slot: in calm, only other words of crashes"
STATUS = "another status that is as clean, or as much of a crash"
COMMUTE = "the two may come in either order"
BEHAVIOURS = {
    (
        "drop",
        "limit",
    ): "that patience is over changes nothing by itself, and recoveries end, too, if memory cannot be made",
    ("drop", "noticed"): "a notice is told only if somebody asks between it and the reaping",
    ("drop", "closing"): "in a recovery: then the next generation could not be made, which ends in `closed`, too",
    ("drop", "running"): "where closing comes next: it began before the generation was served",
    ("fewer slots", "opened"): "no more than one was ever in use",
    ("startup", "opened"): "closed before a startup child was started",
    ("clean_word", "started"): SCRIBBLED,
    ("slot_word to 0", "crashed"): SCRIBBLED,
    ("slot_word to 0", "lost"): SCRIBBLED,
    ("slot_word to foreign", "crashed"): SCRIBBLED,
    ("slot_word to foreign", "lost"): SCRIBBLED,
    ("slot_word to armed", "crashed"): "it died armed, then",
    ("slot_word to armed", "lost"): "it died armed, then",
    ("slot_word to clean", "crashed"): "its status alone makes it a crash",
    **{(f"status to {status}", end): STATUS for status in (0, 1, 2, -9) for end in ("crashed", "lost")},
    **{(f"status to {status}", "exited"): STATUS for status in (0, 1)},
    ("swap with closing", "exited"): COMMUTE,
    ("swap with closing", "running"): "closing began before the generation was served",
    ("swap with closing", "stopping"): "close() may come between a crash and the stopping of the others",
    ("swap with crashed", "closing"): COMMUTE,
    ("swap with exited", "closing"): COMMUTE,
    ("swap with exited", "exited"): COMMUTE,
    ("swap with exited", "started"): COMMUTE,
    ("swap with limit", "closing"): COMMUTE,
    ("swap with lost", "lost"): COMMUTE,
    ("swap with started", "exited"): COMMUTE,
    ("swap with started", "started"): COMMUTE,
}
"""The mutants that may be accepted, as they are behaviours of the model, too, and why. All others must be rejected."""


def is_decided_rightly(lines):
    """Whether each end is decided as the guide says, by a rule of the test's own."""
    clean = {}
    for line in lines:
        child = line.get("child", {})
        if line["event"] == "noticed":
            continue
        if "decision" not in child:
            clean[child.get("pid")] = child.get("clean_word", "0x0")
            continue
        statuses = (0,) if child["kind"] == "startup" else (0, 1)
        is_clean = child["status"] in statuses and child["slot_word"] == clean[child["pid"]]
        if is_clean is not (child["decision"] == "clean"):
            return False
    return True


@pytest.mark.parametrize("scene", SCENES)
def test_what_is_dropped_doubled_swapped_or_changed_is_found_out_unless_it_is_a_behaviour_too(journals, scene):
    looked_at = rejected = 0
    for what, event, lines in mutants([json.loads(line) for line in journals[scene]]):
        looked_at += 1
        found = check(map(json.dumps, lines))
        assert not found.accepted or (what, event) in BEHAVIOURS, (what, event, lines)
        assert not found.accepted or is_decided_rightly(lines), (what, event, lines)
        if not found.accepted:
            rejected += 1
            assert found.reason
            assert found.lines < len(lines) or not found.seen
    assert looked_at > 5
    assert rejected > looked_at / 2


def test_an_exit_with_status_0_and_a_dirty_word_is_never_called_clean(journals):
    """Such a line can only come from a supervisor that has no dead man switch, of which it is a behaviour."""
    lines = [json.loads(line) for line in journals["clean lives"]]
    at = next(i for i, line in enumerate(lines) if line["event"] == "exited")
    armed = int(lines[at]["child"]["slot_word"], 16) ^ (1 << 64) - 1
    lines[at]["child"]["slot_word"] = hex(armed)
    found = check(map(json.dumps, lines))
    assert (found.accepted, found.lines) == (False, at)
    assert found.reason == "exited: with status 0 and the armed word in its slot it is not to be decided clean"
    assert check(map(json.dumps, lines), NO_DEAD_MAN_SWITCH).accepted


def test_what_the_switch_has_found_is_no_behaviour_of_a_supervisor_without_one(journals):
    found = check(journals["work begun anew"], NO_DEAD_MAN_SWITCH)
    assert not found.accepted
    assert json.loads(found.seen)["event"] == "crashed"


def test_a_journal_of_reference_with_recoveries_and_workers_alone_is_one_of_15_too(journals):
    assert check(journals["a raw status"], PROFILES["15"]).accepted


def test_several_supervisors_may_follow_one_another_and_one_that_was_killed_is_accepted_only_when_asked(journals):
    first, second = journals["clean lives"], journals["a stuck child"]
    assert check([*first, *second]).supervisors == 2
    killed = [*first[:-1], *second]
    found = check(killed)
    assert (found.accepted, found.lines) == (False, len(first) - 1)
    assert "not closed" in found.reason
    assert check(killed, unfinished=True).accepted
    for n in range(1, len(second)):
        assert check(second[:n], unfinished=True).accepted, (
            "each beginning of a journal is one of a supervisor that runs"
        )
        assert not check(second[:n]).accepted
