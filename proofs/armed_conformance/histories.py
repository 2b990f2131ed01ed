"""Directed histories: every exit kind in every situation that the model reaches, and the stories that must be told.

The situations are computed from the model; the ways to get a child into each are written down here, and a way that does
not lead where it says is found out, because what is counted is the model's state at the death.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from armed_conformance.lockstep import Cannot, Cell, Coverage, Lockstep
from armed_conformance.protocol import Circumstance, ExitKind, Implementation, Possible, Step
from armed_model.explore import reachable
from armed_model.interpret import Instance, Size
from armed_model.profiles import REFERENCE
from armed_model.system import Phase, System, engaged, failed, holds, phase, slot_of

Situation = tuple[str, bool, bool, int]
"""What a child is just before its death: phase, engaged, failed, entries held (2: two or more)."""

H, A, T, G, L = Step.HOOK, Step.ARM, Step.TAKE, Step.GIVE, Step.LEAVE
WAYS: dict[Situation, tuple[Step, ...]] = {
    ("checked", False, False, 0): (),
    ("serving", False, False, 0): (H,),
    ("serving", True, False, 0): (H, A),
    ("serving", True, False, 1): (H, A, T),
    ("serving", True, False, 2): (H, A, T, T),
    ("serving", True, True, 0): (H, A, Step.TAKE_FAILS),
    ("serving", True, True, 1): (H, A, T, Step.TAKE_FAILS),
    ("serving", True, True, 2): (H, A, T, Step.TAKE_FAILS_LATE),
    ("leaving", True, False, 0): (H, A, T, L, G),
    ("leaving", True, False, 1): (H, A, T, L),
    ("leaving", True, False, 2): (H, A, T, T, L),
    ("leaving", True, True, 0): (H, A, T, T, L, Step.GIVE_FAILS_LATE, G),
    ("leaving", True, True, 1): (H, A, T, Step.TAKE_FAILS, L),
    ("leaving", True, True, 2): (H, A, T, Step.TAKE_FAILS_LATE, L),
}
"""How to get a child into each situation."""

UNSTOPPABLE = frozenset({("leaving", False, False, 0)})
"""Situations in which a child cannot be made to stop: an exit path that has nothing to do is through at once."""


def situations() -> set[Situation]:
    """Compute from the model every situation in which a child that has a slot can be just before it dies.

    The harness tells a child nothing before it has checked that its supervisor lives, and has no child that gets stuck
    of itself: it stops one where it wants it stuck.
    """
    instance = Instance(System(REFERENCE), Size(1, 1))
    seen: set[Situation] = set()
    for state in reachable(instance):
        where = instance.read(state, phase, 1)
        if where in (Phase.CHECKED, Phase.SERVING, Phase.LEAVING) and instance.read(state, slot_of, 1):
            flags = instance.read(state, engaged, 1), instance.read(state, failed, 1)
            for held in (1, 2) if instance.read(state, holds, 1) else (0,):
                seen.add((where.value, *flags, held))
    return seen


def cells() -> dict[Cell, frozenset[Step | ExitKind]]:
    """Return every situation x exit kind, each with what an implementation must be able to do to get there."""
    found: dict[Cell, frozenset[Step | ExitKind]] = {}
    for situation in situations() - UNSTOPPABLE:
        for kind in ExitKind:
            if situation[0] == Phase.LEAVING.value and kind.exit.orderly:
                continue  # who is leaving in the orderly way already can only be ended raw
            found[Cell(*situation, str(kind))] = frozenset({*WAYS[situation], kind})
    return found


def cells_wanted(implementation: Implementation) -> set[Cell]:
    """Return every cell that must be seen with this implementation: all that need nothing that it cannot do."""
    return {cell for cell, needs in cells().items() if not needs & implementation.cannot}


_A_CRASH: frozenset[Possible] = frozenset({ExitKind.SIGKILL})
ACTIONS: dict[str, frozenset[Possible]] = {
    "assign": frozenset(),
    "fork": frozenset(),
    "ask": frozenset(),
    "check": frozenset(),
    "fork_fails": frozenset({Circumstance.FORK_FAILS}),
    "hook": frozenset({H}),
    "arm": frozenset({H, A}),
    "take": frozenset({H, A, T}),
    "take_fails": frozenset({H, A, Step.TAKE_FAILS}),
    "take_fails_late": frozenset({H, A, T, Step.TAKE_FAILS_LATE}),
    "give": frozenset({H, A, T, G}),
    "give_fails": frozenset({H, A, T, Step.GIVE_FAILS}),
    "give_fails_late": frozenset({H, A, T, Step.GIVE_FAILS_LATE}),
    "disarm": frozenset({H, A, Step.DISARM}),
    "leave": frozenset({ExitKind.SIGTERM}),
    "orderly_exit": frozenset({ExitKind.SIGTERM}),
    "raw_exit": _A_CRASH,
    "reap_clean": frozenset({ExitKind.RAW_EXIT_0}),
    "reap_crash": _A_CRASH,
    "reap_book_keeping": _A_CRASH,
    "kill": _A_CRASH,
    "only_dead_ends_left": _A_CRASH,
    "all_gone": _A_CRASH,
    "reset": _A_CRASH,
    "started": _A_CRASH,
    "startup_fails": frozenset({H, A, ExitKind.RAW_EXIT_0, Circumstance.STARTUP_FAILS}),
    "ask_orderly": frozenset(),
    "ask_immediate": frozenset({H, A, Step.FREEZE}),
    "stop": frozenset(),
    "stray_write": frozenset({H, Step.SCRIBBLE}),
}
"""Every action that a harness can bring about, with what must be possible for the directed histories to take it."""

NEVER_TAKEN = {
    "check_fails": "a supervisor that dies between fork and check takes the harness with it",
    "fork_auxiliary": "the protocol has no child that prepares a generation",
    "fork_dead_end": "the protocol has no dead-end child",
    "get_stuck": "the harness stops a child where it wants it stuck",
    "kill_stuck": "a stopped child is killed as any other",
    "notice": "an early notice is not observed: the decision is compared",
    **{
        f"reap_{decided}_without_a_slot": "every child of the protocol has a slot"
        for decided in ("clean", "crash", "book_keeping")
    },
}
"""The other actions of the model, and why they are not compared."""


def actions_wanted(implementation: Implementation) -> set[str]:
    """Return the model's actions that the directed histories must take with this implementation."""
    return {action for action, needs in ACTIONS.items() if not needs & implementation.cannot}


@dataclass(frozen=True)
class History:
    """A directed history: its name, how many slots it needs, and what happens in it."""

    name: str
    slots: int
    play: Callable[[Lockstep], None]


def deaths() -> Iterator[History]:
    """Yield a history for every situation: a child dies there in every way, a bystander is watched, service goes on."""
    for situation, way in WAYS.items():
        for kind in ExitKind:
            if situation[0] == Phase.LEAVING.value and kind.exit.orderly:
                continue
            yield History(str(Cell(*situation, str(kind))), 2, _death(way, kind))


def _death(way: tuple[Step, ...], kind: ExitKind) -> Callable[[Lockstep], None]:
    def play(lockstep: Lockstep) -> None:
        bystander, child = _start(lockstep), _start(lockstep)
        _walk_as_far_as_possible(lockstep, bystander, (H, A, T))
        _walk(lockstep, child, way)
        lockstep.end(child, kind)
        lockstep.start()  # no slot is free: it must be refused
        lockstep.supervise()
        _serves(lockstep)

    return play


def _start(lockstep: Lockstep) -> int:
    child = lockstep.start()
    if child is None:
        raise AssertionError("a directed history asked for a child that the model does not allow")
    return child


def _walk(lockstep: Lockstep, child: int, way: tuple[Step, ...]) -> None:
    for step in way:
        lockstep.step(child, step)


def _walk_as_far_as_possible(lockstep: Lockstep, child: int, way: tuple[Step, ...]) -> None:
    with suppress(Cannot):
        _walk(lockstep, child, way)


def _serves(lockstep: Lockstep) -> None:
    """Whatever happened, the supervisor serves: a whole life from start to clean exit, as far as it can be told."""
    child = lockstep.start()
    if child is not None:
        _walk_as_far_as_possible(lockstep, child, (H, A, T, T, G, G, Step.DISARM, A, T, G, Step.DISARM))
        _end_somehow(lockstep, child)
        lockstep.supervise()


def _a_crash_in_every_generation(lockstep: Lockstep) -> None:
    """Status 0 and 1 by turns, so that each is decided three times, the last time in generations 5 and 6."""
    for kind in (ExitKind.RAW_EXIT_0, ExitKind.RAW_EXIT_1) * 3:
        child, bystander, idle = _start(lockstep), _start(lockstep), _start(lockstep)
        _walk(lockstep, idle, (H,))
        lockstep.end(idle, kind)
        lockstep.supervise()  # clean
        _walk_as_far_as_possible(lockstep, bystander, (H, A, T))
        _walk(lockstep, child, (H, A))
        lockstep.end(child, kind)
        lockstep.supervise()
        _serves(lockstep)


def _two_crashes_before_the_supervisor_looks(lockstep: Lockstep) -> None:
    one, two, three = _start(lockstep), _start(lockstep), _start(lockstep)
    _walk(lockstep, one, (H, A, T))
    _walk(lockstep, two, (H, A))
    _walk(lockstep, three, (H,))
    lockstep.end(one, ExitKind.RAW_EXIT_0)
    lockstep.end(two, ExitKind.RAW_EXIT_1)
    lockstep.supervise()
    _serves(lockstep)


def _a_crash_during_recovery(lockstep: Lockstep) -> None:
    stuck, one = _start(lockstep), _start(lockstep)
    _walk(lockstep, stuck, (H, A, T, Step.FREEZE))
    _walk(lockstep, one, (H, A))
    lockstep.end(one, ExitKind.RAW_EXIT_0)
    lockstep.supervise()
    lockstep.start()  # recovery is under way: it must be refused
    lockstep.end(stuck, ExitKind.SIGKILL)
    lockstep.supervise()
    _serves(lockstep)


def _a_stuck_child_is_killed_in_recovery(lockstep: Lockstep) -> None:
    stuck, one = _start(lockstep), _start(lockstep)
    _walk(lockstep, stuck, (H, Step.FREEZE))
    lockstep.arrange(Circumstance.PATIENCE_ENDS)
    _walk(lockstep, one, (H, A))
    lockstep.end(one, ExitKind.RAW_EXIT_0)
    lockstep.supervise()
    _serves(lockstep)


def _a_fork_that_fails_costs_nothing(lockstep: Lockstep) -> None:
    bystander = _start(lockstep)
    for _ in range(2):
        lockstep.arrange(Circumstance.FORK_FAILS)
        lockstep.start()
    _walk_as_far_as_possible(lockstep, bystander, (H, A, T))
    _start(lockstep)  # the last slot is still to be had
    lockstep.start()


def _a_generation_that_cannot_be_made(lockstep: Lockstep) -> None:
    bystander, child = _start(lockstep), _start(lockstep)
    _walk(lockstep, bystander, (H,))
    _walk(lockstep, child, (H, A))
    lockstep.arrange(Circumstance.STARTUP_FAILS)
    lockstep.end(child, ExitKind.RAW_EXIT_0)
    lockstep.supervise()


def _life(*way: Step) -> Callable[[Lockstep], None]:
    """A child takes these steps, and ends in the first way that is possible."""

    def play(lockstep: Lockstep) -> None:
        child = _start(lockstep)
        _walk(lockstep, child, way)
        _end_somehow(lockstep, child)
        lockstep.supervise()
        _serves(lockstep)

    return play


def _end_somehow(lockstep: Lockstep, child: int) -> None:
    lockstep.end(child, next(kind for kind in ExitKind if kind not in lockstep.implementation.cannot))


def _shutdown_of(way: tuple[Step, ...], *, dead: bool = False) -> Callable[[Lockstep], None]:
    def play(lockstep: Lockstep) -> None:
        child, other = _start(lockstep), _start(lockstep)
        _walk(lockstep, child, way)
        _walk(lockstep, other, (H, A, T, T))
        if dead:
            lockstep.end(child, ExitKind.RAW_EXIT_0)
        lockstep.stop()

    return play


def _shutdown_during_recovery(lockstep: Lockstep) -> None:
    stuck, one = _start(lockstep), _start(lockstep)
    _walk(lockstep, stuck, (H, Step.FREEZE))
    _walk(lockstep, one, (H, A))
    lockstep.end(one, ExitKind.RAW_EXIT_0)
    lockstep.supervise()
    lockstep.stop()


def _a_failed_give_back_keeps_the_switch_armed(lockstep: Lockstep) -> None:
    child = _start(lockstep)
    _walk(lockstep, child, (H, A, T, T, Step.GIVE_FAILS, G, Step.DISARM, A, T))
    lockstep.end(child, ExitKind.RETURN)
    lockstep.supervise()
    _serves(lockstep)


def _a_refused_take_spoils_nothing(lockstep: Lockstep) -> None:
    child = _start(lockstep)
    _walk(lockstep, child, (T, Step.DISARM, H, T, A, A, Step.TAKE_REFUSED, T, G, Step.DISARM, Step.DISARM))
    lockstep.end(child, ExitKind.SYS_EXIT_1)
    lockstep.supervise()


def _scribbled(before: tuple[Step, ...], after: tuple[Step, ...], kind: ExitKind) -> Callable[[Lockstep], None]:
    def play(lockstep: Lockstep) -> None:
        child = _start(lockstep)
        _walk(lockstep, child, (*before, Step.SCRIBBLE, *after))
        lockstep.end(child, kind)
        lockstep.supervise()
        _serves(lockstep)

    return play


def _the_clean_value_of_an_earlier_assignment(lockstep: Lockstep) -> None:
    for way, kind in (((H,), ExitKind.RETURN), ((H, A, Step.SCRIBBLE), ExitKind.RAW_EXIT_0)):
        child = _start(lockstep)
        _walk(lockstep, child, way)
        lockstep.end(child, kind)
        lockstep.supervise()
    _serves(lockstep)


def _grandchild(way: tuple[Step, ...]) -> Callable[[Lockstep], None]:
    def play(lockstep: Lockstep) -> None:
        child = _start(lockstep)
        _walk(lockstep, child, (*way, Step.GRANDCHILD))
        lockstep.end(child, ExitKind.RAW_EXIT_0)
        lockstep.supervise()
        _serves(lockstep)

    return play


def _every_slot_is_used_again(lockstep: Lockstep) -> None:
    for _ in range(3):
        children = [_start(lockstep) for _ in range(lockstep.slots)]
        lockstep.start()
        for child in children:
            _walk(lockstep, child, (H, A, T, G, Step.DISARM))
            lockstep.end(child, ExitKind.SYS_EXIT_0)
        lockstep.supervise()


def stories() -> Iterator[History]:
    """Yield the histories of more than one child, of recovery and shutdown, of foreign words and grandchildren."""
    yield History("every slot is used again", 3, _every_slot_is_used_again)
    yield History("a crash in every generation", 3, _a_crash_in_every_generation)
    yield History("two crashes before the supervisor looks", 3, _two_crashes_before_the_supervisor_looks)
    yield History("a crash during recovery", 3, _a_crash_during_recovery)
    yield History("a stuck child is killed in recovery", 2, _a_stuck_child_is_killed_in_recovery)
    yield History("a fork that fails costs nothing", 2, _a_fork_that_fails_costs_nothing)
    yield History("a generation that cannot be made", 2, _a_generation_that_cannot_be_made)
    yield History("nothing is taken in a block", 1, _life(H, A, Step.DISARM, A, Step.DISARM))
    yield History("what is taken last is given back first", 1, _life(H, A, T, T, T, G, G, G, Step.DISARM))
    for cut in (Step.TAKE_FAILS, Step.TAKE_FAILS_FOR_MEMORY, Step.TAKE_FAILS_OTHERWISE):
        yield History(f"{cut} keeps the switch armed", 1, _life(H, A, cut, Step.DISARM, A))
    yield History("a give-back that fails late keeps the switch armed", 1, _life(H, A, T, Step.GIVE_FAILS_LATE, A))
    yield History("a failed give-back keeps the switch armed", 1, _a_failed_give_back_keeps_the_switch_armed)
    yield History("a refused take spoils nothing", 1, _a_refused_take_spoils_nothing)
    yield History("shutdown with a child before its exit path", 2, _shutdown_of(()))
    yield History("shutdown with a child idle", 2, _shutdown_of((H,)))
    yield History("shutdown with a child holding", 2, _shutdown_of((H, A, T)))
    yield History("shutdown with a child giving", 2, _shutdown_of((H, A, T, G)))
    yield History("shutdown with a spoilt child", 2, _shutdown_of((H, A, Step.TAKE_FAILS)))
    yield History("shutdown with a child leaving", 2, _shutdown_of((H, A, T, L)))
    yield History("shutdown with a stuck child", 2, _shutdown_of((H, A, Step.FREEZE)))
    yield History("shutdown with a crash undecided", 2, _shutdown_of((H, A), dead=True))
    yield History("shutdown during recovery", 2, _shutdown_during_recovery)
    yield History("a foreign word while idle", 1, _scribbled((H,), (), ExitKind.RETURN))
    yield History("a foreign word while armed", 1, _scribbled((H, A), (), ExitKind.RAW_EXIT_0))
    yield History("a foreign word that is written over", 1, _scribbled((H,), (A, Step.DISARM), ExitKind.RETURN))
    yield History("the clean value of an earlier assignment", 1, _the_clean_value_of_an_earlier_assignment)
    yield History("a grandchild of a child idle", 1, _grandchild((H,)))
    yield History("a grandchild of a child armed", 1, _grandchild((H, A)))
    yield History("a grandchild of a child holding", 1, _grandchild((H, A, T)))
    yield History("a grandchild of a child giving", 1, _grandchild((H, A, T, G)))


def play(history: History, implementation: Implementation, coverage: Coverage) -> str | None:
    """Play one history from open to close; the implementation is closed in any case. Raises Mismatch.

    Return what the implementation cannot do, where the history was cut short for that; None where it was played to its
    end.
    """
    lockstep = Lockstep(implementation, history.slots, coverage)
    cannot = None
    try:
        try:
            history.play(lockstep)
        except Cannot as reason:
            cannot = str(reason)
        if not lockstep.stopped:
            lockstep.stop()
    except BaseException:
        lockstep.abandon()
        raise
    lockstep.close()
    return cannot
