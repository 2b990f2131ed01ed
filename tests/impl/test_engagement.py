"""The child's side: take and give back, arm and disarm. Each body runs in a real child."""

import contextlib
import gc
import os
import signal
import threading

import pytest

from armed import AlreadyArmed, Decision, ForeignProcess, NotArmed, StillArmed, Supervisor, WrongThread

LIMIT = 20.0
CLEAN, CRASH = Decision.CLEAN, Decision.CRASH


def refused(say, call, error):
    try:
        call()
    except error:
        say(error.__name__)
    else:
        say("accepted")


class Manager:
    def __init__(self, say, name, answer=False):
        self.say, self.name, self.answer = say, name, answer

    def __enter__(self):
        self.say(f"+{self.name}")
        return self.name

    def __exit__(self, kind, error, trace):
        self.say(f"-{self.name}:{kind.__name__ if kind else None}")
        return self.answer


def test_what_is_taken_is_given_back_last_first(in_child):
    def body(me, say):
        with me.engage() as hold:
            assert hold.enter(Manager(say, "a")) == "a"
            assert hold.take(lambda: "b", lambda: say("-b")) == "b"
            hold.enter(Manager(say, "c"))
        say("end")

    outcome, said = in_child(body)
    assert said == ["+a", "+c", "-c:None", "-b", "-a:None", "end"]
    assert outcome.decision is CLEAN


def test_a_child_may_engage_again_after_it_has_disarmed(in_child):
    # C6, C7: when it is armed, when disarmed
    def body(me, say):
        for _ in range(3):
            with me.engage():
                pass
            with me.engage() as hold:
                hold.take(list, lambda: say("given"))

    outcome, said = in_child(body)
    assert (outcome.decision, said) == (CLEAN, ["given"] * 3)


def test_managers_see_the_exception_and_may_suppress_it_as_with_does(in_child):
    def body(me, say):
        with me.engage() as hold:
            hold.enter(Manager(say, "outer"))
            hold.enter(Manager(say, "middle", answer=True))
            hold.enter(Manager(say, "inner"))
            raise KeyError
        say("suppressed")

    outcome, said = in_child(body)
    assert said[3:] == ["-inner:KeyError", "-middle:KeyError", "-outer:None", "suppressed"]
    assert (outcome.decision, outcome.status) == (CLEAN, 0)


def test_a_true_answer_of_give_back_or_without_exception_suppresses_nothing(in_child):
    def body(me, say):
        with me.engage() as hold:
            hold.enter(Manager(say, "m", answer=True))
        with me.engage() as hold:
            hold.take(list, lambda: True)
            raise KeyError

    assert in_child(body)[0].status == 1


def test_an_exception_leaves_a_clean_slot(in_child):
    # C13: an orderly exit is no crash
    def body(me, say):
        with me.engage() as hold:
            hold.take(list, lambda: say("given"))
            raise KeyError

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status, said) == (CLEAN, 1, ["given"])


@pytest.mark.parametrize("swallow", [False, True])
def test_a_failing_give_back_leaves_the_child_armed_for_good_and_the_rest_still_run(in_child, swallow):
    def body(me, say):
        def fail():
            raise OSError("no")

        try:
            with me.engage() as hold:
                hold.take(list, lambda: say("first"))
                if swallow:  # a manager that suppresses whatever it sees
                    hold.enter(Manager(say, "m", answer=True))
                hold.take(list, fail)
                hold.take(list, lambda: say("last"))
        except StillArmed as error:
            say(type(error.__cause__).__name__)
        refused(say, me.engage().__enter__, StillArmed)

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status) == (CRASH, 0)
    assert said == ["+m"] * swallow + ["last"] + ["-m:OSError"] * swallow + ["first", "OSError", "StillArmed"]


def test_the_first_failure_that_is_no_exception_is_raised_itself_after_the_rest_have_run(in_child):
    def body(me, say):
        def fail(error):
            raise error

        try:
            with me.engage() as hold:
                hold.take(list, lambda: say("first"))
                hold.take(list, lambda: fail(KeyboardInterrupt))
                hold.take(list, lambda: fail(OSError))
        except KeyboardInterrupt:
            say("KeyboardInterrupt")

    outcome, said = in_child(body)
    assert (outcome.decision, said) == (CRASH, ["first", "KeyboardInterrupt"])


def test_a_give_back_is_called_once_even_if_it_fails(in_child):
    def body(me, say):
        def fail():
            say("fail")
            raise OSError

        with me.engage() as hold:
            hold.take(list, fail)

    assert in_child(body)[1] == ["fail"]


ACQUIRE_ERRORS = [
    (OSError, CLEAN),
    (StopIteration, CLEAN),
    (LookupError, CLEAN),
    (MemoryError, CRASH),
    (KeyboardInterrupt, CRASH),
    (SystemExit, CRASH),
    (GeneratorExit, CRASH),
]


@pytest.mark.parametrize(("error", "decision"), ACQUIRE_ERRORS)
@pytest.mark.parametrize("as_manager", [False, True])
def test_only_an_exception_out_of_acquire_means_that_nothing_was_taken(in_child, error, decision, as_manager):
    def body(me, say):
        def acquire(*_):
            raise error

        manager = type("M", (), {"__enter__": acquire, "__exit__": lambda *_: say("given")})()
        with me.engage() as hold:
            hold.take(list, lambda: say("other"))
            try:
                hold.enter(manager) if as_manager else hold.take(acquire, lambda: say("given"))
            except BaseException as raised:
                say(type(raised).__name__)
            hold.take(list, lambda: say("later"))

    outcome, said = in_child(body)
    assert outcome.decision is decision
    assert said == ["RuntimeError" if error is StopIteration else error.__name__, "later", "other"]


def test_engaging_inside_a_block_is_refused_and_harmless(in_child):
    def body(me, say):
        with me.engage() as hold:
            refused(say, me.engage().__enter__, AlreadyArmed)
            hold.take(list, lambda: say("given"))
            refused(say, me.engage().__enter__, AlreadyArmed)

    outcome, said = in_child(body)
    assert (outcome.decision, said) == (CLEAN, ["AlreadyArmed", "AlreadyArmed", "given"])


def test_nothing_is_acquired_outside_a_block(in_child):
    def body(me, say):
        for use in (lambda: me.take(lambda: say("acquired"), list), lambda: me.enter(Manager(say, "m"))):
            refused(say, use, NotArmed)
        with me.engage() as hold:
            hold.take(list, lambda: refused(say, use, NotArmed))  # the end of a block is outside
        refused(say, use, NotArmed)

    outcome, said = in_child(body)
    assert (outcome.decision, said) == (CLEAN, ["NotArmed"] * 4)


@pytest.mark.parametrize(("acquire", "give_back", "name"), [(3, list, "acquire"), (list, None, "give_back")])
def test_what_cannot_be_called_is_refused_before_anything_is_acquired(in_child, acquire, give_back, name):
    def body(me, say):
        with me.engage() as hold:
            try:
                hold.take(acquire if acquire == 3 else lambda: say("acquired"), give_back)
            except TypeError as error:
                say(str(error).split()[0])

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status, said) == (CLEAN, 0, [name])


def test_what_is_no_context_manager_is_refused(in_child):
    def body(me, say):
        with me.engage() as hold:
            refused(say, lambda: hold.enter(3), TypeError)

    outcome, said = in_child(body)
    assert (outcome.decision, said) == (CLEAN, ["TypeError"])


def test_other_threads_are_refused(in_child):
    def body(me, say):
        def other():
            refused(say, me.engage().__enter__, WrongThread)
            refused(say, lambda: me.take(lambda: say("acquired"), list), WrongThread)
            refused(say, lambda: me.__exit__(None, None, None), WrongThread)

        def run():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(20)

        run()
        with me.engage() as hold:
            hold.take(list, lambda: say("given"))
            run()
            say("still")

    outcome, said = in_child(body)
    assert (outcome.decision, said) == (CLEAN, ["WrongThread"] * 6 + ["still", "given"])


def fork_and_wait(in_grandchild):
    pid = os.fork()
    if pid == 0:
        in_grandchild()
        os._exit(0)
    os.waitpid(pid, 0)


def test_a_grandchild_takes_and_gives_back_nothing(in_child):
    def body(me, say):
        def use():
            refused(say, me.engage().__enter__, ForeignProcess)
            refused(say, lambda: me.take(lambda: say("acquired"), list), ForeignProcess)
            refused(say, lambda: me.enter(Manager(say, "m")), ForeignProcess)
            refused(say, lambda: me.__exit__(None, None, None), ForeignProcess)
            say(me.finish())

        fork_and_wait(use)
        with me.engage() as hold:
            hold.take(list, lambda: say("given"))
            fork_and_wait(use)
            say("parent")

    outcome, said = in_child(body)
    assert (outcome.decision, said) == (CLEAN, (["ForeignProcess"] * 4 + ["False"]) * 2 + ["parent", "given"])


@pytest.mark.parametrize("ending", ["returns", "raises", "exits"])
def test_a_grandchild_that_comes_back_to_the_launcher_changes_nothing(in_child, ending):
    def body(me, say):
        with me.engage() as hold:
            hold.take(list, lambda: say("given"))
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                say("armed")
                os._exit(0)
            if ending == "raises":
                raise KeyError
            if ending == "exits":
                raise SystemExit(0)

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status, said) == (CRASH, 0, ["armed"])


@pytest.mark.parametrize("ending", ["returns", "raises", "exits"])
def test_a_grandchild_that_comes_back_out_of_a_give_back_goes_no_further(in_child, ending):
    def body(me, say):
        def fork():
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                say("armed")
                os._exit(0)
            if ending == "raises":
                raise KeyError
            if ending == "exits":
                raise SystemExit(0)

        with me.engage() as hold:
            hold.take(list, lambda: say("given"))
            hold.take(list, fork)

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status, said) == (CRASH, 0, ["armed"])


def test_a_grandchild_that_comes_back_out_of_acquire_goes_no_further(in_child):
    def body(me, say):
        def fork():
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                say("armed")
                os._exit(0)

        with me.engage() as hold:
            hold.take(list, lambda: say("given"))
            hold.take(fork, lambda: say("given"))

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status, said) == (CRASH, 0, ["armed"])


def test_the_exit_path_ends_an_engagement_that_the_target_left_open(in_child):
    # C8: disarming is the last touch
    def body(me, say):
        def generator():
            with me.engage() as hold:
                hold.take(list, lambda: say("given"))
                yield

        kept.append(generator())
        next(kept[0])

    kept = []
    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status, said) == (CLEAN, 0, ["given"])


BOTH_SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


class Finalized:
    def __init__(self, act):
        self.act = act

    def __del__(self):
        self.act()


@BOTH_SIGNALS
@pytest.mark.parametrize("where", ["finalizer", "callback"])
def test_a_stop_signal_whose_exception_would_be_dropped_can_be_sent_again(in_child, number, where):
    """Hypothesis has a callback of the collector; a forked child inherits it."""

    def body(me, say):
        def act(phase="start", info=None):
            os.kill(os.getpid(), number)
            say(phase)

        with me.engage():
            if where == "finalizer":
                Finalized(act)
            else:
                gc.callbacks[:] = [act]
                gc.collect()
                gc.callbacks.clear()
            say("on")
            os.kill(os.getpid(), number)
            say("later")

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status) == (CLEAN, 1)
    assert said == (["start", "on"] if where == "finalizer" else ["start", "stop", "on"])


@BOTH_SIGNALS
@pytest.mark.parametrize("where", ["idle", "engaged"])
def test_a_stop_signal_ends_a_child_at_once_in_the_orderly_way(in_child, number, where):
    def body(me, say):
        with me.engage() if where == "engaged" else contextlib.nullcontext():
            os.kill(os.getpid(), number)
            say("later")

    outcome, said = in_child(lambda me, say: (say("in"), body(me, say)))
    assert (outcome.decision, outcome.status, said) == (CLEAN, 1, ["in"])


@BOTH_SIGNALS
@pytest.mark.parametrize("failing", [False, True])
def test_a_stop_signal_during_acquire_waits_until_that_call_is_over(in_child, number, failing):
    def body(me, say):
        def acquire():
            os.kill(os.getpid(), number)
            say("acquired")
            if failing:
                raise OSError

        with me.engage() as hold:
            hold.take(acquire, lambda: say("given"))
            say("later")

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status, said) == (CLEAN, 1, ["acquired"] + ["given"] * (not failing))


@BOTH_SIGNALS
def test_a_stop_signal_during_a_nested_take_waits_for_the_outer_one(in_child, number):
    def body(me, say):
        def outer():
            hold.take(lambda: os.kill(os.getpid(), number), lambda: say("inner"))
            say("acquired")

        with me.engage() as hold:
            hold.take(outer, lambda: say("outer"))
            say("later")

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status, said) == (CLEAN, 1, ["acquired", "inner", "outer"])


@BOTH_SIGNALS
def test_a_stop_signal_during_a_give_back_waits_until_all_is_given_back(in_child, number):
    def body(me, say):
        with me.engage() as hold:
            hold.take(list, lambda: say("first"))
            hold.take(list, lambda: (os.kill(os.getpid(), number), say("last")))
        say("later")

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status, said) == (CLEAN, 1, ["last", "first"])


@BOTH_SIGNALS
def test_a_stop_signal_on_the_exit_path_is_only_noted(in_child, number):
    kept = []

    def body(me, say):
        def generator():
            with me.engage() as hold:
                hold.take(list, lambda: (os.kill(os.getpid(), number), say("given")))
                yield

        kept.append(generator())
        next(kept[0])

    outcome, said = in_child(body)
    assert (outcome.decision, outcome.status, said) == (CLEAN, 0, ["given"])


@BOTH_SIGNALS
def test_a_stop_signal_after_an_interrupted_acquire_still_ends_the_child(in_child, number):
    def body(me, say):
        def acquire():
            raise KeyboardInterrupt

        with me.engage() as hold:
            with contextlib.suppress(KeyboardInterrupt):
                hold.take(acquire, list)
            os.kill(os.getpid(), number)
            say("later")

    outcome, said = in_child(lambda me, say: (say("in"), body(me, say)))
    assert (outcome.status, said) == (1, ["in"])


def test_who_ignores_sigint_in_the_supervisor_ignores_it_in_its_children(gate):
    before, said = signal.signal(signal.SIGINT, signal.SIG_IGN), gate()

    def target(me, shared):
        os.kill(os.getpid(), signal.SIGINT)
        said.open(b"later")

    try:
        with Supervisor() as sup:
            child = sup.start(target)
            sup.run(LIMIT)
        assert (said.wait(), child.outcome.status) == (b"later", 0)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_end_of_a_block_refuses_a_process_that_came_back_out_of_a_give_back(in_child):
    def body(me, say):
        forked = []

        def give_back():
            forked.append(os.fork())

        try:
            with me.engage() as hold:
                hold.take(list, give_back)
            here = "went on"
        except ForeignProcess:
            here = "refused"
        if forked == [0]:
            say(f"grandchild:{here}")
            os._exit(0)
        os.waitpid(forked[0], 0)
        say(f"child:{here.replace(' ', '-')}")

    outcome, said = in_child(body)
    assert said == ["grandchild:refused", "child:went-on"]
    assert outcome.decision is Decision.CLEAN
