"""An exception, a SIGTERM or the end at every bytecode of the child's side: never clean while something is held.

A trace function in a real child interrupts it before its nth instruction inside the package, for each n there is.
"""

import contextlib
import dis
import itertools
import mmap
import os
import signal
import sys
from types import CodeType

import pytest

from armed import ArmedError, Decision, Engager, StillArmed, Supervisor, engagement, launch

LIMIT = 20.0
TRACED = {engagement.__file__, launch.__file__}
INSIDE = {Engager._ask.__code__, Engager._give.__code__}  # a take or a give-back is under way
HELD = slice(0, 2)
WAS_INSIDE, WAS_REACHED = 2, 3


class InterruptedByAlarmError(Exception):
    """What a handler of SIGALRM may raise: an Exception like any other."""


def throw(error):
    raise error


INTERRUPTIONS = {
    "KeyboardInterrupt": lambda: throw(KeyboardInterrupt()),
    "Exception": lambda: throw(InterruptedByAlarmError()),
    "SystemExit": lambda: throw(SystemExit(0)),
    "SIGTERM": lambda: signal.raise_signal(signal.SIGTERM),
    "_exit": lambda: os._exit(0),
}


class Interruption:
    """The prelude of a child: from there on interrupt it before its nth traced instruction.

    `again`: interrupt it once more so many instructions later, if not 0. Only where monitoring is: a trace function
    that raises is called no more.
    """

    def __init__(self, memory, n, interrupt, again=0):
        self.memory, self.left, self.interrupt, self.again = memory, n, interrupt, again

    def __call__(self):
        if sys.version_info >= (3, 12):
            self.monitor()
        else:
            self.trace()

    def monitor(self):
        """On 3.12 and later settrace leaves instructions out, silently; monitoring sees each."""
        monitoring, tool = sys.monitoring, sys.monitoring.DEBUGGER_ID
        monitoring.use_tool_id(tool, "interruption")
        monitoring.register_callback(tool, monitoring.events.INSTRUCTION, lambda code, at: self.count(sys._getframe(1)))
        for module in (engagement, launch):
            for code in codes_of(module):
                monitoring.set_local_events(tool, code, monitoring.events.INSTRUCTION)

    def trace(self):
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename in TRACED:  # these have begun already
            frame.f_trace, frame.f_trace_opcodes = self.trace_instruction, True
            frame = frame.f_back
        sys.settrace(self.trace_call)

    def trace_call(self, frame, event, arg):
        if frame.f_code.co_filename not in TRACED:
            return None
        frame.f_trace_opcodes = True
        return self.trace_instruction

    def trace_instruction(self, frame, event, arg):
        if event == "opcode":
            self.count(frame)
        return self.trace_instruction

    def count(self, frame):
        self.left -= 1
        if self.left != 0:
            return
        if self.again:
            self.left, self.again = self.again, 0
        elif sys.version_info >= (3, 12):
            sys.monitoring.free_tool_id(sys.monitoring.DEBUGGER_ID)
        sys.settrace(None)
        self.memory[WAS_REACHED] = 1
        self.memory[16:80] = f"{frame.f_code.co_name}+{frame.f_lasti}".encode().ljust(64)
        at = frame
        while at is not None:
            self.memory[WAS_INSIDE] |= at.f_code in INSIDE
            at = at.f_back
        self.interrupt()


def codes_of(module):
    """Return the code of every function that is defined in a module, also in its classes and functions."""
    found = []
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    for value in itertools.chain(vars(module).values(), *(vars(each).values() for each in classes)):
        function = getattr(value, "__wrapped__", getattr(value, "fget", value))
        if getattr(getattr(function, "__code__", None), "co_filename", None) == module.__file__:
            pending = [function.__code__]
            while pending:
                found.append(pending.pop())
                pending += [const for const in found[-1].co_consts if isinstance(const, CodeType)]
    return found


def empty(me, memory):
    with me.engage():
        pass


class Manager:
    def __init__(self, memory):
        self.memory = memory

    def __enter__(self):
        self.memory[1] = 1

    def __exit__(self, *details):
        self.memory[1] = 0


def holding(me, memory):
    with me.engage() as hold:
        hold.take(lambda: memory.__setitem__(0, 1), lambda: memory.__setitem__(0, 0))
        hold.enter(Manager(memory))


def leaving_open(me, memory):
    """Leave everything to the exit path."""
    hold = me.engage().__enter__()
    hold.take(lambda: memory.__setitem__(0, 1), lambda: memory.__setitem__(0, 0))
    hold.enter(Manager(memory))


def going_on(me, memory):
    """Catch whatever came, take something if that is possible, and end as badly as can be."""
    with contextlib.suppress(BaseException), me.engage():
        pass
    with contextlib.suppress(ArmedError):
        me.take(lambda: memory.__setitem__(0, 1), list)
    os._exit(0)


def sweep(target, interruption, again=0):
    """Return for each n in turn: the decision, whether something is held, whether a take or give-back was under way."""
    memory, found, tester = mmap.mmap(-1, mmap.PAGESIZE), [], os.getpid()
    with Supervisor(slots=1, make_shared=lambda: memory, restart_limit=None) as sup:
        for n in range(1, 10_000):
            memory[:4] = bytes(4)
            try:
                child = sup._start(target, (), Interruption(memory, n, INTERRUPTIONS[interruption], again))
            finally:
                if os.getpid() != tester:  # a child that came back out of start()
                    os._exit(99)
            sup.run(LIMIT)
            assert child.outcome is not None, f"stuck when interrupted at {memory[16:80].decode()}"
            if not memory[WAS_REACHED]:
                assert child.outcome.decision is Decision.CLEAN
                memory.close()
                return found
            assert child.outcome.status in (0, 1), f"interrupted at {memory[16:80].decode()}"
            found.append((child.outcome.decision, any(memory[HELD]), bool(memory[WAS_INSIDE])))
    raise AssertionError("no end of instructions")


def instructions(*functions):
    return sum(len(list(dis.get_instructions(function))) for function in functions)


@pytest.mark.parametrize("target", [empty, holding, leaving_open])
@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_a_child_interrupted_anywhere_is_never_clean_while_it_holds_something(target, interruption, capfd):
    found = sweep(target, interruption)
    decisions = [decision for decision, _, _ in found]
    # Else the trace is not what it seems: these run in every child, but for the lines that refuse and report.
    always = instructions(Engager.engage, Engager.__enter__, Engager.__exit__, Engager.finish, launch._live)
    assert len(found) > always / 2
    assert decisions[0] is decisions[-1] is Decision.CLEAN
    assert not [n for n, (decision, held, _) in enumerate(found, 1) if decision is Decision.CLEAN and held]
    if interruption == "_exit":
        # Armed on one interval: it begins once and ends once.
        assert sum(a is not b for a, b in itertools.pairwise(decisions)) == 2
        assert decisions.count(Decision.CRASH) > (20 if target is empty else 200)
    elif interruption == "SIGTERM":
        assert set(decisions) == {Decision.CLEAN}
    else:
        outside = {decision for decision, _, inside in found if not inside}
        assert outside == {Decision.CLEAN}
    assert "Fatal" not in capfd.readouterr().err


def test_a_child_that_goes_on_after_an_interrupted_engagement_takes_nothing_while_it_looks_clean(capfd):
    found = sweep(going_on, "Exception")
    assert not [n for n, (decision, held, _) in enumerate(found, 1) if decision is Decision.CLEAN and held]
    assert [n for n, (decision, held, _) in enumerate(found, 1) if decision is Decision.CRASH and held]
    assert "Fatal" not in capfd.readouterr().err


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a trace function that raises is called no more")
@pytest.mark.parametrize("again", [1, 2, 5, 13, 34])
@pytest.mark.parametrize("interruption", ["KeyboardInterrupt", "Exception"])
def test_a_child_interrupted_twice_on_its_way_out_is_never_clean_while_it_holds_something(interruption, again, capfd):
    found = sweep(leaving_open, interruption, again)
    decisions = {decision for decision, _, _ in found}
    assert decisions == {Decision.CLEAN, Decision.CRASH}
    assert not [n for n, (decision, held, _) in enumerate(found, 1) if decision is Decision.CLEAN and held]
    assert "Fatal" not in capfd.readouterr().err


def engaging_again(me, memory):
    """Catch whatever came; then a clean word and a refusal contradict each other."""
    with contextlib.suppress(BaseException):
        holding(me, memory)
    was_clean = me._word[0] == me._token[0]
    try:
        with me.engage():
            pass
    except StillArmed:
        os._exit(9 if was_clean else 0)


@pytest.mark.parametrize("interruption", ["KeyboardInterrupt", "Exception"])
def test_a_child_that_has_given_everything_back_may_engage_again_wherever_it_was_interrupted(interruption, capfd):
    found = sweep(engaging_again, interruption)  # no status is 9
    assert {decision for decision, _, _ in found} == {Decision.CLEAN, Decision.CRASH}
    assert "Fatal" not in capfd.readouterr().err


def test_an_exception_on_the_very_last_steps_does_not_change_how_the_target_has_ended(capfd):
    memory, late, tester = mmap.mmap(-1, mmap.PAGESIZE), [], os.getpid()

    def target(me, shared):
        memory[90] = 1
        raise SystemExit(1)

    with Supervisor(slots=1, restart_limit=None) as sup:
        for n in itertools.count(1):
            memory[:100] = bytes(100)
            try:
                child = sup._start(target, (), Interruption(memory, n, INTERRUPTIONS["SystemExit"]))
            finally:
                if os.getpid() != tester:
                    os._exit(99)
            sup.run(LIMIT)
            if not memory[WAS_REACHED]:
                break
            if memory[90] and memory[16:80].startswith(b"_live+"):
                late.append(child.outcome.status)
    memory.close()
    # Before the first of these instructions has run, the outcome is not recorded yet.
    assert late[1:] == [1] * (len(late) - 1)
    assert len(late) > 5
