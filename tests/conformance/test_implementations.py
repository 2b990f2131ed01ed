"""What the kit makes of implementations that hide, hang, raise, leave something behind, or cannot do everything."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from armed_audit.cli import run
from armed_conformance import calls
from armed_conformance.adapters.armed import ArmedFork
from armed_conformance.histories import History, cells, cells_wanted, play, stories
from armed_conformance.lockstep import Coverage, DoesNotReturn, Lockstep, Mismatch
from armed_conformance.machine import run_histories
from armed_conformance.protocol import (
    Cannot,
    Circumstance,
    Death,
    Decided,
    ExitKind,
    NotHere,
    Observation,
    Refused,
    Step,
)
from armed_conformance.run import UnknownTarget, conform, find
from armed_model.lifecycle import SlotState

STORIES = {history.name: history for history in stories()}
USED_AGAIN = STORIES["every slot is used again"]


@pytest.fixture
def report_of(monkeypatch):
    """Hold a class to the model as the command line does."""

    def conform_class(made, histories=1):
        monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(Mine=made))
        return conform("mine:Mine", histories, seed=1)

    return conform_class


# --- What is shown ---------------------------------------------------------------------------------------------------


def showing(**changed):
    class Shows(ArmedFork):
        def observe(self):
            seen = super().observe()
            return Observation(**{**vars(seen), **{name: change(seen) for name, change in changed.items()}})

    return Shows()


@pytest.mark.parametrize(
    ("implementation", "told"),
    [
        (showing(flags=lambda seen: {}), "its flag is not shown"),
        (
            showing(flags=lambda seen: {s: f for s, f in seen.flags.items() if f is not SlotState.ACTIVE}),
            "slot 1 is active",
        ),
        (showing(flags=lambda seen: {**seen.flags, 99: SlotState.UNUSED}), "there is a flag of slot 99"),
        (showing(flags=lambda seen: {**seen.flags, "one": SlotState.UNUSED}), "there is a flag of slot one"),
        (showing(flags=lambda seen: dict.fromkeys(seen.flags, "unused")), "there is 'unused'"),
        (showing(deaths=lambda seen: (*seen.deaths, None)), "there is None"),
        (showing(stopped=lambda seen: True), "it says that it has"),
        (showing(stopped=lambda seen: False), "it has not"),
    ],
)
def test_what_is_hidden_made_up_or_claimed_too_early_is_a_difference(implementation, told):
    with pytest.raises(Mismatch, match=told):
        play(USED_AGAIN, implementation, Coverage())


def test_a_death_that_is_told_otherwise_afterwards_is_a_difference():
    known = []

    def rewritten(seen):
        told = tuple(Death(d.child, d.status, Decided.BOOK_KEEPING) if d in known else d for d in seen.deaths)
        known.extend(seen.deaths)
        return told

    with pytest.raises(Mismatch, match="were seen before"):
        play(STORIES["a crash in every generation"], showing(deaths=rewritten), Coverage())


def test_a_child_has_a_number_of_its_own():
    class OneNumber(ArmedFork):
        def start(self):
            super().start()
            return 1

    with pytest.raises(Mismatch, match="there is a child 1 already"):
        play(USED_AGAIN, OneNumber(), Coverage())


def returning(call, made):
    def returns(self, *arguments):
        return made(self, getattr(ArmedFork, call)(self, *arguments))

    return type("Returns", (ArmedFork,), {call: returns})()


@pytest.mark.parametrize(
    ("implementation", "told"),
    [
        (returning("open", lambda it, _: it), "it returned <"),
        (returning("open", lambda it, _: it._slots - 1), "it returned 2"),
        (returning("open", lambda it, _: True), "it returned True"),
        (returning("start", lambda it, child: [child]), r"it returned \[1\]"),
        (returning("start", lambda it, child: None), "it returned None"),
        (showing(flags=lambda seen: None if seen.stopped else seen.flags), "flags is None"),
        (showing(flags=lambda seen: list(seen.flags.values())), r"flags is \["),
        (showing(children=lambda seen: {str(child): slot for child, slot in seen.children.items()}), "there is '1'"),
        (showing(children=lambda seen: dict.fromkeys(seen.children, "one")), "there is 'one'"),
        (showing(resource=lambda seen: {child: [*held] for child, held in seen.resource.items()}), r"there is \["),
        (showing(resource=lambda seen: {child: frozenset("a") for child in seen.resource}), "there is 'a'"),
        (showing(auxiliary=lambda seen: [*seen.children]), r"auxiliary is \["),
        (showing(auxiliary=lambda seen: frozenset(seen.children)), "there is no such action in the profile"),
        (showing(generation=lambda seen: str(seen.generation)), "generation is '1'"),
        (showing(deaths=lambda seen: {death.child: death for death in seen.deaths}), "deaths is {"),
        (showing(deaths=lambda seen: [replace(death, child=[1]) for death in seen.deaths]), r"there is \[1\]"),
    ],
)
def test_what_is_not_of_the_right_kind_is_told_as_a_story(implementation, told):
    with pytest.raises(Mismatch, match=told):
        play(USED_AGAIN, implementation, Coverage())


# --- What is raised --------------------------------------------------------------------------------------------------

CALLS = ("open", "start", "step", "end", "supervise", "stop_supervisor", "observe", "close")


@pytest.mark.parametrize("call", CALLS)
def test_what_a_call_raises_is_told_as_a_story(call, report_of):
    def broken(self, *arguments):
        getattr(ArmedFork, call)(self, *arguments)
        if not vars(self).setdefault("was_broken", 0):
            self.was_broken = 1  # once: what is closed by the same call must not be left open here
            raise RuntimeError("the adapter is broken")

    report = report_of(type("Broken", (ArmedFork,), {call: broken}))
    assert "1. a supervisor with" in report.mismatch
    assert "it raised RuntimeError: the adapter is broken" in report.mismatch
    assert not report.passed


@pytest.mark.parametrize("call", ["end", "supervise", "stop_supervisor", "observe", "close", "open"])
def test_what_nobody_may_refuse_is_not_refused(call, report_of):
    def refuses(self, *arguments):
        getattr(ArmedFork, call)(self, *arguments)
        if not vars(self).setdefault("has_refused", 0):
            self.has_refused = 1
            raise Refused("not today")

    report = report_of(type("Refuses", (ArmedFork,), {call: refuses}))
    assert "not today" in report.mismatch


@pytest.mark.parametrize("call", ["supervise", "stop_supervisor", "observe", "close", "open"])
def test_what_is_not_a_matter_of_ability_is_a_difference(call, report_of):
    def cannot(self, *arguments):
        getattr(ArmedFork, call)(self, *arguments)
        if not vars(self).setdefault("could_not", 0):
            self.could_not = 1
            raise Cannot("not today")

    report = report_of(type("Unable", (ArmedFork,), {call: cannot}))
    assert "it raised Cannot: not today" in report.mismatch


def test_what_cuts_a_history_short_and_is_not_declared_fails_the_run(report_of):
    class Tires(ArmedFork):
        def start(self):
            if self._supervisor.generation > 3:
                raise Cannot("start any more")
            return super().start()

    report = report_of(Tires)
    assert report.mismatch is None
    assert not report.passed
    assert report.cut_short == ["a crash in every generation"]
    said = "the end of 'a crash in every generation': it is not declared that the implementation cannot start any more"
    assert [str(each) for each in report.missing] == [said]
    assert report.as_json()["undeclared"] == [said]


def test_what_was_not_done_in_random_histories_is_counted(report_of):
    class Moody(ArmedFork):
        def step(self, child, step):
            if self._slots == 4:  # no directed history has so many
                raise Cannot("do that today")
            super().step(child, step)

    report = report_of(Moody, 10)
    assert report.passed, report.missing
    assert report.as_json()["not_done"] == {"do that today": report.coverage.not_done["do that today"]}
    assert report.coverage.not_done["do that today"] > 0


def test_who_will_not_deal_with_an_armed_exit_is_found_out(report_of):
    class LooksAway(ArmedFork):
        def supervise(self):
            if any(not kind.exit.orderly and kind.exit.status in (0, 1) for kind in self.ended):
                raise Cannot("deal with that")
            super().supervise()

        ended = ()

        def end(self, child, kind):
            super().end(child, kind)
            self.ended = (*self.ended, kind)

    assert "deal with that" in report_of(LooksAway).mismatch


def test_a_death_is_counted_when_it_has_been_dealt_with():
    coverage = Coverage()
    lockstep = Lockstep(ArmedFork(), 1, coverage)
    try:
        lockstep.end(lockstep.start(), ExitKind.SIGKILL)
        assert not coverage.cells
        assert not coverage.deaths
        lockstep.supervise()
        assert sum(coverage.cells.values()) == coverage.deaths["SIGKILL"] == 1
        lockstep.stop()
    finally:
        lockstep.close()


def test_a_death_without_a_status_is_a_difference():
    untold = showing(deaths=lambda seen: tuple(replace(each, status=None) for each in seen.deaths))
    with pytest.raises(Mismatch, match="None was reported"):
        play(USED_AGAIN, untold, Coverage())


def test_what_is_not_on_this_machine_is_no_difference(report_of, capsys):
    class Absent(ArmedFork):
        def open(self, slots):
            raise NotHere("there is no such server: install one")

    with pytest.raises(NotHere, match="install one"):
        report_of(Absent)
    assert run(["conform", "mine:Mine", "--histories", "1"]) == 2
    assert capsys.readouterr().err.strip() == "armed: there is no such server: install one"


def test_a_difference_is_not_covered_up_by_what_closing_raises():
    class Both(ArmedFork):
        def supervise(self):
            raise RuntimeError("first")

        def close(self):
            super().close()
            raise RuntimeError("second")

    with pytest.raises(Mismatch, match="first"):
        play(USED_AGAIN, Both(), Coverage())


def test_random_histories_tell_what_is_raised_when_they_open():
    class Broken(ArmedFork):
        def open(self, slots):
            raise RuntimeError("the adapter is broken")

    with pytest.raises(Mismatch, match="the adapter is broken"):
        run_histories(Broken, 5, Coverage(), seed=1)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (ArmedFork(), "no class"),
        (os.getcwd, "no class"),
        (type("NeedsMore", (ArmedFork,), {"__init__": lambda self, more: None}), "without arguments"),
        (type("Bare", (), {}), "cannot"),
        (type("Partial", (), {"cannot": frozenset(), "open": print}), "it has no start, step"),
        (type("Wrong", (ArmedFork,), {"cannot": frozenset({"arm", 3})}), "no Step, ExitKind or Circumstance"),
        (type("OfAName", (ArmedFork,), {"profile": "reference"}), "its `profile` is 'reference', which is no Profile"),
        (type("Listed", (ArmedFork,), {"cannot": [Step.ARM]}), "no set"),
        (type("Nothing", (ArmedFork,), {"cannot": frozenset(ExitKind)}), "nothing to look at"),
    ],
)
def test_what_is_no_implementation_is_refused_in_one_line(made, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(Mine=made))
    with pytest.raises(UnknownTarget, match=said) as refused:
        find("mine:Mine")
    assert "\n" not in str(refused.value)


def test_what_begins_a_process_or_hangs_when_it_is_made_is_refused(monkeypatch):
    class Begins(ArmedFork):
        def __init__(self):
            super().__init__()
            with open(os.devnull) as null:
                self.left = subprocess.Popen(["sleep", "60"], stdin=null)
            self.left.returncode = 0  # it is not for Popen to reap

    class HangsAtOnce(ArmedFork):
        def __init__(self):
            signal.pause()

    monkeypatch.setattr(calls, "LIMIT", 0.5)
    for made, said in ((Begins, "begins a process"), (HangsAtOnce, "does not return within 0.5 s")):
        monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(Mine=made))
        with pytest.raises(UnknownTarget, match=f"making one without arguments.*{said}"):
            find("mine:Mine")
    assert not calls.children()


@pytest.mark.parametrize("target", ["mine:", ":Mine", "mine", "mine:Mine:", "a b:C", "mine:Mine.x"])
def test_a_malformed_name_is_refused(target):
    with pytest.raises(UnknownTarget, match="no name of this form"):
        find(target)


def test_a_module_that_cannot_be_imported_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "armed_test_broken.py").write_text("1 +\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownTarget, match="SyntaxError"):
        find("armed_test_broken:Mine")


# --- What does not return, and what is left --------------------------------------------------------------------------


class Hangs(ArmedFork):
    hung = 0

    def supervise(self):
        type(self).hung += 1
        while True:
            try:
                signal.pause()
            except Exception:
                continue


@pytest.fixture
def short_limit(monkeypatch):
    monkeypatch.setattr(calls, "LIMIT", 3.0)
    monkeypatch.setattr(Hangs, "hung", 0)


def test_a_call_that_never_returns_is_told_as_a_story(short_limit):
    with pytest.raises(DoesNotReturn, match="supervise returns") as told:
        play(USED_AGAIN, Hangs(), Coverage())
    assert "it did not return within 3 s" in str(told.value)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_a_call_that_never_returns_ends_random_histories_at_once(short_limit):
    with pytest.raises(DoesNotReturn):
        run_histories(Hangs, 50, Coverage(), seed=1)
    assert Hangs.hung == 1


def test_a_process_that_is_left_is_a_difference_and_is_ended():
    class Leaves(ArmedFork):
        def close(self):
            super().close()
            with open(os.devnull) as null:
                self.left = subprocess.Popen(["sleep", "60"], stdin=null)

    leaves = Leaves()
    with pytest.raises(Mismatch, match="no process is left"):
        play(USED_AGAIN, leaves, Coverage())
    leaves.left.returncode = 0  # it is reaped: Popen must not wait for it
    assert not calls.children()


def test_a_child_that_the_harness_had_before_is_not_taken_for_one_that_is_left():
    with subprocess.Popen(["sleep", "60"]) as before:
        play(USED_AGAIN, ArmedFork(), Coverage())
        assert calls.children() == {before.pid}
        before.kill()


# --- What it cannot do -----------------------------------------------------------------------------------------------

CANNOT = {
    "the hook": {Step.SERVE},
    "arming": {Step.ARM, Step.DISARM},
    "taking": {step for step in Step if "take" in step.value or "give" in step.value},
    "failing": {step for step in Step if "fails" in step.value} | {Step.TAKE_REFUSED},
    "leaving step by step": {Step.LEAVE, Step.DISARM},
    "what is odd": {Step.SCRIBBLE, Step.GRANDCHILD, Step.FREEZE},
    "return": {ExitKind.RETURN},
    "orderly exits": {kind for kind in ExitKind if kind.exit.orderly},
    "raw exits": {kind for kind in ExitKind if not kind.exit.orderly},
    "all but return": set(ExitKind) - {ExitKind.RETURN},
    "every step": set(Step),
    "circumstances": set(Circumstance),
}


@pytest.mark.parametrize("cannot", CANNOT.values(), ids=CANNOT)
def test_what_an_implementation_cannot_do_is_never_ordered_and_is_reported(cannot, report_of):
    class Poor(ArmedFork):
        def step(self, child, step):
            assert step not in cannot
            super().step(child, step)

        def end(self, child, kind):
            assert kind not in cannot
            super().end(child, kind)

        def arrange(self, circumstance):
            assert circumstance not in cannot
            super().arrange(circumstance)

    Poor.cannot = frozenset(cannot)
    report = report_of(Poor, 5)
    assert report.mismatch is None
    assert report.passed
    result = report.as_json()
    assert result["cannot"] == sorted(str(each) for each in cannot)
    assert result["cells_wanted"] + len(result["cells_left_out"]) == len(cells())
    assert report.cut_short


def test_a_cell_is_not_wanted_if_the_way_into_it_needs_what_cannot_be_done():
    class Poor(ArmedFork):
        cannot = frozenset({Step.TAKE, ExitKind.SIGSEGV})

    wanted = cells_wanted(Poor())
    assert wanted
    assert not [cell for cell in wanted if cell.exit_kind == "SIGSEGV" or cell.held or cell.phase == "leaving"]


def test_a_shutdown_with_a_crash_undecided_is_looked_at_though_nothing_can_be_taken():
    class Poor(ArmedFork):
        cannot = frozenset({Step.TAKE})

    assert play(STORIES["shutdown with a crash undecided"], Poor(), Coverage()) is None


# --- Several generations, and the same again -------------------------------------------------------------------------


@pytest.mark.parametrize("generation", [3, 4])
@pytest.mark.parametrize("status", [0, 1])
def test_a_decision_that_is_wrong_only_in_later_generations_is_found(generation, status):
    def wrong(seen):
        if seen.generation < generation:
            return seen.deaths
        known = Late.known
        for death in seen.deaths[len(known) :]:
            is_late = death.status == status and death.decided is Decided.CRASH
            known.append(Death(death.child, death.status, Decided.CLEAN) if is_late else death)
        return tuple(known)

    class Late(ArmedFork):
        known = None

        def observe(self):
            seen = super().observe()
            if Late.known is None or seen.generation < generation:
                Late.known = list(seen.deaths)
            return Observation(**{**vars(seen), "deaths": wrong(seen)})

    with pytest.raises(Mismatch, match=f"child . was reaped with status {status}: clean|decision|generation"):
        play(STORIES["a crash in every generation"], Late(), Coverage())


def test_random_histories_see_several_generations():
    coverage = Coverage()
    run_histories(ArmedFork, 30, coverage, seed=1)
    assert coverage.generations >= 4
    assert coverage.recoveries >= 10


class Recorded(ArmedFork):
    """Keeps what it was told."""

    told = ()

    def open(self, slots):
        Recorded.told.append(("open", slots))
        super().open(slots)

    def start(self):
        Recorded.told.append("start")
        return super().start()

    def step(self, child, step):
        Recorded.told.append((child, step))
        super().step(child, step)

    def end(self, child, kind):
        Recorded.told.append((child, kind))
        super().end(child, kind)

    def supervise(self):
        Recorded.told.append("supervise")
        super().supervise()


def test_the_same_seed_makes_the_same_choices():
    def choices(seed):
        Recorded.told = []
        run_histories(Recorded, 15, Coverage(), seed=seed)
        return Recorded.told

    first = choices(5)
    assert len(first) > 100
    assert choices(5) == first
    assert choices(6) != first


def test_without_a_seed_one_is_drawn_and_reported(monkeypatch):
    monkeypatch.setattr("armed_conformance.run.stories", lambda _: iter([USED_AGAIN]))
    monkeypatch.setattr("armed_conformance.run.deaths", lambda _: iter(()))
    seeds = {conform("armed:fork", 1).as_json()["seed"] for _ in range(2)}
    assert len(seeds) == 2
    assert all(isinstance(seed, int) for seed in seeds)


def test_a_run_leaves_nothing_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_histories(ArmedFork, 3, Coverage(), seed=1)
    assert not list(tmp_path.iterdir())


def test_a_history_that_fails_to_open_is_closed():
    class Broken(ArmedFork):
        closed = 0

        def open(self, slots):
            super().open(slots)
            raise RuntimeError("after it has begun")

        def close(self):
            self.closed += 1
            super().close()

    broken = Broken()
    with pytest.raises(Mismatch, match="after it has begun"):
        Lockstep(broken, 2)
    assert broken.closed == 1


def test_a_history_that_is_cut_short_says_for_what():
    class Poor(ArmedFork):
        cannot = frozenset({Step.FREEZE})

    def freezes(lockstep):
        lockstep.step(lockstep.start(), Step.FREEZE)

    assert play(History("freezes", 1, freezes), Poor(), Coverage()) == "freeze"
    assert play(USED_AGAIN, Poor(), Coverage()) is None


def test_what_differs_after_an_interruption_is_no_difference(monkeypatch):
    monkeypatch.setattr(calls, "_interrupted", False)

    class EndsByIt(ArmedFork):
        def step(self, child, step):
            calls._interrupted = True  # as where Ctrl-C has come to the child, too, and Python has dropped ours
            raise BrokenPipeError

    with pytest.raises(KeyboardInterrupt):
        play(USED_AGAIN, EndsByIt(), Coverage())
