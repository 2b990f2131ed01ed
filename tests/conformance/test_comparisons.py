"""Each comparison of the lockstep is needed: for each there is an implementation that only it can tell is wrong.

Most of them are `armed` with one lie about it, told by what stands between it and the harness.
"""

import signal
from contextlib import suppress
from dataclasses import replace

import pytest

from armed import Mode
from armed_conformance.adapters.armed import ArmedFork
from armed_conformance.histories import History, play
from armed_conformance.lockstep import Coverage, Lockstep, Mismatch
from armed_conformance.protocol import Circumstance, Decided, ExitKind, Refused, Step
from armed_model.lifecycle import SlotState
from armed_model.system import OTHER

S, A, T, G, D = Step.SERVE, Step.ARM, Step.TAKE, Step.GIVE, Step.DISARM


def difference(implementation, story, slots=2):
    """Return what the model says about the first difference in a history."""
    with pytest.raises(Mismatch) as caught:
        play(History("a test", slots, story), implementation, Coverage())
    return str(caught.value).splitlines()[-2].removeprefix("  the model says: ")


def lying(**lies):
    """Make `armed` with an `observe` that changes these fields: each lie is a function of (it, what is so)."""

    class Lying(ArmedFork):
        def observe(self):
            seen = super().observe()
            return replace(seen, **{name: lie(self, seen) for name, lie in lies.items()})

    return Lying()


def walk(lockstep, child, *way):
    for step in way:
        lockstep.step(child, step)


def one_child(*way):
    """Tell of a child that takes these steps and exits raw with status 1."""

    def story(lockstep):
        child = lockstep.start()
        walk(lockstep, child, *way)
        lockstep.end(child, ExitKind.RAW_EXIT_1)
        lockstep.supervise()

    return story


def two_children(lockstep):
    walk(lockstep, lockstep.start(), S, A, T)
    walk(lockstep, lockstep.start(), S)


def stuck_in_recovery(lockstep):
    stuck, one = lockstep.start(), lockstep.start()
    walk(lockstep, stuck, S, Step.FREEZE)
    walk(lockstep, one, S, A)
    lockstep.end(one, ExitKind.RAW_EXIT_0)
    lockstep.supervise()


# --- What is held ----------------------------------------------------------------------------------------------------


def test_a_take_that_takes_two_things():
    twice = lying(resource=lambda it, seen: {c: held | {99} if held else held for c, held in seen.resource.items()})
    assert difference(twice, one_child(S, A, T)) == "take takes one entry"


def test_a_give_back_of_the_wrong_thing():
    class Crossed(ArmedFork):
        most = 0

        def observe(self):
            seen = super().observe()
            self.most = max(self.most, *map(len, seen.resource.values()), 0)
            rest = frozenset({1})  # after two are taken and one is given back, it is the first that looks given back
            crossed = {c: rest if self.most == 2 and len(held) == 1 else held for c, held in seen.resource.items()}
            return replace(seen, resource=crossed)

    assert difference(Crossed(), one_child(S, A, T, T, G)) == "give gives back [1]"


def test_a_refused_take_that_leaves_something_held():
    class Leaks(ArmedFork):
        leaked = frozenset()

        def step(self, child, step):
            super().step(child, step)
            self.leaked = frozenset({99}) if step is Step.TAKE_REFUSED else self.leaked

        def observe(self):
            seen = super().observe()
            return replace(seen, resource={child: held | self.leaked for child, held in seen.resource.items()})

    assert difference(Leaks(), one_child(S, A, T, Step.TAKE_REFUSED)) == "take_refused changes nothing held"


def test_what_somebody_holds_vanishes_while_another_acts():
    vanishes = lying(resource=lambda it, seen: seen.resource if len(seen.children) < 2 else {})
    assert difference(vanishes, two_children) == "child 1 holds something"


def test_what_somebody_holds_becomes_less_while_another_acts():
    def one_is_lost(it, seen):
        return {c: frozenset(sorted(held)[: 3 - len(seen.children)]) for c, held in seen.resource.items()}

    def story(lockstep):
        walk(lockstep, lockstep.start(), S, A, T, T)
        walk(lockstep, lockstep.start(), S)

    assert difference(lying(resource=one_is_lost), story) == "child 1 holds [0, 1]"


# --- Children, slots and flags ---------------------------------------------------------------------------------------


def test_a_reaped_child_that_is_still_shown():
    def every_child_ever(it, seen):
        it.ever = {**getattr(it, "ever", {}), **seen.children}
        return it.ever

    assert difference(lying(children=every_child_ever), one_child(S)) == "a reaped child is gone"


def test_a_new_child_that_is_not_shown():
    assert difference(lying(children=lambda it, seen: {}), one_child(S)) == "child 1 is there and has a slot"


def test_two_children_that_change_places():
    class Swaps(ArmedFork):
        swapped = False

        def step(self, child, step):
            super().step(child, step)
            self.swapped = child == 2

        def observe(self):
            seen = super().observe()
            return replace(seen, children={c: 3 - s if self.swapped else s for c, s in seen.children.items()})

    assert difference(Swaps(), two_children) == "child 1 has slot 1"


def test_a_slot_that_is_given_out_twice():
    twice = lying(children=lambda it, seen: dict.fromkeys(seen.children, 1))
    assert difference(twice, two_children).startswith("slot 1 cannot be given out: ")


def test_an_observation_that_is_none():
    class Blind(ArmedFork):
        def observe(self):
            return vars(super().observe())

    assert difference(Blind(), one_child(S)) == "observe returns an Observation"


def test_a_flag_that_says_something_else():
    def never_active(it, seen):
        return {slot: SlotState.ASSIGNED if flag is SlotState.ACTIVE else flag for slot, flag in seen.flags.items()}

    assert difference(lying(flags=never_active), one_child(S, A)) == "slot 1 is active"


def test_a_change_of_a_flag_that_is_no_row_of_the_lifecycle(monkeypatch):
    """Model and implementation agree, and both are wrong: who arms leaves a foreign word."""
    do = Lockstep._do

    def do_wrong(self, action, *arguments):
        do(self, action, *arguments)
        if action == "arm":
            do(self, "stray_write", arguments[0], 1, OTHER.number)

    class Scribbles(ArmedFork):
        def step(self, child, step):
            super().step(child, step)
            if step is A:
                super().step(child, Step.SCRIBBLE)

    monkeypatch.setattr(Lockstep, "_do", do_wrong)
    assert difference(Scribbles(), one_child(S, A)) == "every change of a flag is a row of the lifecycle"


# --- What is refused, and what is not --------------------------------------------------------------------------------


def test_a_legal_step_that_is_refused():
    class Refuses(ArmedFork):
        def step(self, child, step):
            if step is A:
                raise Refused("not today")
            super().step(child, step)

    assert difference(Refuses(), one_child(S, A)) == "arm is legal here"


def test_an_illegal_step_that_is_done():
    class Obliges(ArmedFork):
        def step(self, child, step):
            with suppress(Refused):
                super().step(child, step)

    assert difference(Obliges(), one_child(S, A, A)).startswith("arm must be refused: ")


def test_a_start_that_is_refused_though_a_slot_is_free():
    class Refuses(ArmedFork):
        def start(self):
            raise Refused("not today")

    assert difference(Refuses(), lambda lockstep: lockstep.start()) == "a child can be started"


def test_a_start_that_is_not_refused_though_no_slot_is_free():
    class Obliges(ArmedFork):
        invented = None

        def start(self):
            try:
                return super().start()
            except Refused:
                self.invented = {2: 1}
                return 2

        def observe(self):
            seen = super().observe()
            return replace(seen, children={**seen.children, **(self.invented or {})})

    def story(lockstep):
        lockstep.start()
        lockstep.start()

    assert difference(Obliges(), story, slots=1) == "no child can be started now"


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
def test_a_start_is_refused_whenever_no_slot_is_free(slots):
    coverage = Coverage()

    def story(lockstep):
        for _ in range(slots + 1):
            lockstep.start()

    play(History("a test", slots, story), ArmedFork(), coverage)
    assert coverage.refusals == 1


def test_a_child_that_is_called_by_a_word_is_not_taken_for_a_refusal():
    class Names(ArmedFork):
        def start(self):
            super().start()
            return "the first"

    assert difference(Names(), lambda lockstep: lockstep.start()) == "start returns a child's number"


def test_a_fork_that_should_fail_and_does_not():
    class DoesNotFail(ArmedFork):
        def arrange(self, circumstance):
            pass

    def story(lockstep):
        lockstep.arrange(Circumstance.FORK_FAILS)
        lockstep.start()

    assert difference(DoesNotFail(), story) == "the fork fails, and that is told"


def test_a_stuck_child_that_is_killed_at_once():
    class Kills(ArmedFork):
        def supervise(self):
            self.arrange(Circumstance.PATIENCE_ENDS)
            super().supervise()

    def story(lockstep):
        stuck_in_recovery(lockstep)
        lockstep.end(1, ExitKind.SIGKILL)

    def another(lockstep):
        stuck_in_recovery(lockstep)
        lockstep.step(1, A)

    for each in (story, another):
        said = difference(Kills(), each)
        assert said == "child 1 is still there: only patience_ends has a recovery kill who is stuck"


# --- Deaths and decisions --------------------------------------------------------------------------------------------


def told(change):
    """Lie about each death that is reported."""
    return lying(deaths=lambda it, seen: tuple(change(death) for death in seen.deaths))


def test_a_status_that_is_not_the_one_with_which_the_child_ended():
    always_0 = told(lambda death: replace(death, status=0 if death.status == 1 else death.status))
    assert difference(always_0, one_child(S)) == "child 1 ended with status 1"


def test_a_decision_that_is_wrong():
    wrong = told(lambda death: replace(death, decided=Decided.CLEAN))
    assert difference(wrong, one_child(S, A)).startswith("the decision about child 1 is: crash (")


def test_a_crash_while_closing_that_is_hushed_up():
    hushed = told(lambda death: replace(death, decided=Decided.BOOK_KEEPING))

    def story(lockstep):
        walk(lockstep, lockstep.start(), S, A, Step.TAKE_FAILS)
        lockstep.stop()

    assert difference(hushed, story).startswith("the decision about child 1 is: crash (")


def test_a_child_that_is_reaped_twice():
    twice = lying(deaths=lambda it, seen: tuple(death for death in seen.deaths for _ in range(2)))
    assert difference(twice, one_child(S)) == "each child is reaped once"


def test_a_dead_child_that_is_not_reaped():
    class Waits(ArmedFork):
        def supervise(self):
            pass

    assert difference(Waits(), one_child(S)) == "every dead child is reaped"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, "child 1 lives, and nobody ended it"),
        (signal.SIGTERM, "child 1 lives, and nobody asked it to leave"),
    ],
)
def test_a_child_that_the_supervisor_ends_for_no_reason(number, said):
    class Ends(ArmedFork):
        def supervise(self):
            self._children[1].send(number)
            self._children[1].wait_until_dead()
            super().supervise()

    def story(lockstep):
        walk(lockstep, lockstep.start(), S)
        lockstep.supervise()

    assert difference(Ends(), story) == said


def test_a_shutdown_that_does_not_tell_of_a_death():
    silent = lying(deaths=lambda it, seen: () if seen.stopped else seen.deaths)
    assert difference(silent, lambda lockstep: lockstep.start()) == "a stopped supervisor has no child left"


def test_a_shutdown_that_still_shows_a_child():
    shows = lying(children=lambda it, seen: {1: 1} if seen.stopped else seen.children)
    assert difference(shows, lambda lockstep: lockstep.start()) == "a stopped supervisor has no child left"


def hushing(who_is_hushed):
    """Make `armed` that tells of these deaths in a shutdown, each (child, status, decided), as of book-keeping."""

    def hush(it, seen):
        if not seen.stopped:
            it.told_before = len(seen.deaths)
            return seen.deaths
        late = [
            replace(death, decided=Decided.BOOK_KEEPING) if who_is_hushed(death) else death
            for death in seen.deaths[it.told_before :]
        ]
        late.sort(key=lambda death: death.child)
        return (*seen.deaths[: it.told_before], *late)

    return lying(deaths=hush)


def dead_and_armed_beside_one_that_is_stuck(first):
    def story(lockstep):
        children = lockstep.start(), lockstep.start()
        dead, stuck = children if first else reversed(children)
        walk(lockstep, dead, S, A)
        walk(lockstep, stuck, S, Step.FREEZE)
        lockstep.end(dead, ExitKind.RAW_EXIT_0)
        lockstep.stop()

    return story


@pytest.mark.parametrize("first", [True, False], ids=["told first", "told after who was killed"])
def test_a_crash_before_a_shutdown_that_is_hushed_up_because_another_child_is_stuck(first):
    hushed = hushing(lambda death: True)
    said = difference(hushed, dead_and_armed_beside_one_that_is_stuck(first))
    child = 1 if first else 2
    assert said.startswith((f"the decision about child {child} is: crash (", "child 1 lives, and nobody ended it"))


def test_a_crash_before_a_shutdown_that_is_hushed_up_because_nobody_can_be_asked_to_leave():
    hushed = hushing(lambda death: True)
    hushed.cannot = frozenset({ExitKind.SIGTERM})

    def story(lockstep):
        child = lockstep.start()
        walk(lockstep, child, S, A)
        lockstep.end(child, ExitKind.RAW_EXIT_0)
        lockstep.stop()

    assert difference(hushed, story).startswith("the decision about child 1 is: crash (")


# --- Generations -----------------------------------------------------------------------------------------------------


def test_a_recovery_that_comes_to_no_end():
    first = lying(generation=lambda it, seen: 1)
    assert difference(first, one_child(S, A)) == "nothing holds the recovery up: there is a new generation"


def test_a_shutdown_that_makes_memory_anew():
    anew = lying(generation=lambda it, seen: seen.generation + seen.stopped)
    assert difference(anew, lambda lockstep: lockstep.start()) == "the last generation was 1"


def test_a_generation_that_is_left_out():
    skips = lying(generation=lambda it, seen: 2 * seen.generation - 1)
    assert difference(skips, one_child(S, A)) == "the next generation is 2"


def test_a_generation_that_begins_under_the_feet_of_a_child():
    early = lying(generation=lambda it, seen: 1 + bool(seen.deaths))
    assert difference(early, stuck_in_recovery).startswith("there is no reset now: ")


def without_a_generation(lockstep):
    child = lockstep.start()
    walk(lockstep, child, S, A)
    lockstep.arrange(Circumstance.STARTUP_FAILS)
    lockstep.end(child, ExitKind.RAW_EXIT_0)
    lockstep.supervise()


class DealsBeforeItStarts(ArmedFork):
    """Deals with deaths before it starts a child, as it may."""

    def start(self):
        if any(self._children[number].is_dead() for number in self._alive()):
            self.supervise()
        if self._supervisor.mode is Mode.STOPPED:
            raise Refused("it has stopped")
        return super().start()


def test_a_generation_that_cannot_be_made_before_a_child_is_started_stops_the_supervisor():
    def story(lockstep):
        lockstep.end(lockstep.start(), ExitKind.SIGKILL)
        lockstep.arrange(Circumstance.STARTUP_FAILS)
        assert lockstep.start() is None
        assert lockstep.stopped

    play(History("a test", 1, story), DealsBeforeItStarts(), Coverage())


def test_a_child_that_is_started_though_the_supervisor_has_stopped():
    class StartsNevertheless(DealsBeforeItStarts):
        def start(self):
            with suppress(Refused):
                return super().start()
            return 2

    def story(lockstep):
        lockstep.end(lockstep.start(), ExitKind.SIGKILL)
        lockstep.arrange(Circumstance.STARTUP_FAILS)
        lockstep.start()

    assert difference(StartsNevertheless(), story) == "a supervisor that has stopped starts nobody"


def test_a_supervisor_that_does_not_stop_when_it_cannot_go_on():
    goes_on = lying(stopped=lambda it, seen: False)
    assert difference(goes_on, without_a_generation) == "no generation can be made: the supervisor has stopped"


def test_a_generation_that_was_never_made_is_claimed():
    claims = lying(generation=lambda it, seen: seen.generation + seen.stopped)
    assert difference(claims, without_a_generation) == "the last generation was 1"
