"""Directed histories: every exit kind in every situation that the model reaches, and the stories that must be told.

The situations are computed from the model; the ways to get a child into each are written down here, and a way that does
not lead where it says is found out, because what is counted is the model's state at the death.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from armed_conformance.lockstep import Cell, Coverage, Lockstep, profile_of
from armed_conformance.protocol import Cannot, Circumstance, ExitKind, Implementation, Possible, Step
from armed_model.explore import reachable
from armed_model.interpret import Instance, Size
from armed_model.profiles import REFERENCE, Kind, Profile
from armed_model.system import Phase, System, armed, failed, holds, phase, slot_of
from armed_model.system import kind as kind_of

S, A, T, G, L = Step.SERVE, Step.ARM, Step.TAKE, Step.GIVE, Step.LEAVE


class Situation(NamedTuple):
    """What a child is just before its death. Held: how many entries; 2 is two or more."""

    phase: str
    armed: bool
    failed: bool
    held: int
    kind: str = Kind.BACKEND.value


WAYS: dict[Situation, tuple[Step, ...]] = {
    Situation("checked", False, False, 0): (),
    Situation("serving", False, False, 0): (S,),
    Situation("serving", True, False, 0): (S, A),
    Situation("serving", True, False, 1): (S, A, T),
    Situation("serving", True, False, 2): (S, A, T, T),
    Situation("serving", True, True, 0): (S, A, Step.TAKE_FAILS),
    Situation("serving", True, True, 1): (S, A, T, Step.TAKE_FAILS),
    Situation("serving", True, True, 2): (S, A, T, Step.TAKE_FAILS_LATE),
    Situation("leaving", True, False, 0): (S, A, T, L, G),
    Situation("leaving", True, False, 1): (S, A, T, L),
    Situation("leaving", True, False, 2): (S, A, T, T, L),
    Situation("leaving", True, True, 0): (S, A, T, T, L, Step.GIVE_FAILS_LATE, G),
    Situation("leaving", True, True, 1): (S, A, T, Step.TAKE_FAILS, L),
    Situation("leaving", True, True, 2): (S, A, T, Step.TAKE_FAILS_LATE, L),
}
"""How to get a child into each situation, in `reference`."""

WAYS_OF_SERVERS: dict[Situation, tuple[Step, ...]] = {
    Situation("starting", False, False, 0): (),
    Situation("serving", True, False, 1): (S,),
    Situation("serving", True, False, 1, "walsender"): (Step.STREAM,),
}
"""The same in PostgreSQL's profiles; dead-end and auxiliary children have ways of their own."""

UNSTOPPABLE = frozenset({Situation("leaving", False, False, 0)})
"""Situations in which a child cannot be made to stop: an exit path that has nothing to do is through at once."""

_FROM_OUTSIDE = frozenset(
    {ExitKind.RETURN, ExitKind.EXCEPTION, ExitKind.SIGTERM, ExitKind.SIGKILL, ExitKind.SIGSEGV}
)
"""How a child of PostgreSQL can end in which no library can be loaded: a dead-end child, one that has not logged in."""
OF_AUXILIARIES = frozenset({ExitKind.RETURN, ExitKind.SIGKILL, ExitKind.SIGSEGV})
"""How a harness ends an auxiliary child; RETURN is to ask it to leave."""


def situations(profile: Profile = REFERENCE) -> set[Situation]:
    """Compute from the model every situation in which a child can be just before it dies.

    In `reference` of a child that has a slot: the harness tells a child nothing before it has checked that its
    supervisor lives, and has no child that gets stuck of itself: it stops one where it wants it stuck. In PostgreSQL's
    profiles only a debugger stops a child between the steps of its start-up, or on its way out.
    """
    pauses = (Phase.STARTING, Phase.SERVING) if profile.engages_once else (Phase.CHECKED, Phase.SERVING, Phase.LEAVING)
    instance = Instance(System(profile), Size(1, 1))
    seen: set[Situation] = set()
    for state in reachable(instance):
        where, of_kind = instance.read(state, phase, 1), instance.read(state, kind_of, 1)
        stands = where is Phase.SERVING or of_kind is Kind.BACKEND
        if where in pauses and (stands if profile.engages_once else instance.read(state, slot_of, 1)):
            flags = instance.read(state, armed, 1), instance.read(state, failed, 1)
            most = 1 if profile.engages_once else 2
            for held in range(1, most + 1) if instance.read(state, holds, 1) else (0,):
                seen.add(Situation(where.value, *flags, held, of_kind.value))
    return seen


def cells(profile: Profile = REFERENCE) -> dict[Cell, frozenset[Possible]]:
    """Return every situation x exit kind, each with what an implementation must be able to do to get there."""
    found: dict[Cell, frozenset[Possible]] = {}
    ways = WAYS_OF_SERVERS if profile.engages_once else WAYS
    for situation in situations(profile) - UNSTOPPABLE:
        for kind in _ends(situation):
            found[Cell(*situation[:4], str(kind), situation.kind)] = frozenset({*ways.get(situation, ()), kind})
    return found


def _ends(situation: Situation) -> list[ExitKind]:
    """How a child can end in a situation."""
    if situation.phase == Phase.LEAVING.value:
        return [kind for kind in ExitKind if not kind.exit.orderly]  # it is leaving in the orderly way already
    if situation.kind == Kind.AUXILIARY.value:
        return [kind for kind in ExitKind if kind in OF_AUXILIARIES]
    if situation.phase == Phase.STARTING.value or situation.kind == Kind.DEAD_END.value:
        return [kind for kind in ExitKind if kind in _FROM_OUTSIDE]
    return list(ExitKind)


def cells_wanted(implementation: Implementation) -> set[Cell]:
    """Return every cell that must be seen with this implementation: all that need nothing that it cannot do."""
    wanted = cells(profile_of(implementation)).items()
    return {cell for cell, needs in wanted if not needs & implementation.cannot}


_A_CRASH: frozenset[Possible] = frozenset({ExitKind.SIGKILL})
ACTIONS: dict[str, frozenset[Possible]] = {
    "assign": frozenset(),
    "fork": frozenset(),
    "ask": frozenset(),
    "check": frozenset(),
    "fork_fails": frozenset({Circumstance.FORK_FAILS}),
    "hook": frozenset({S}),
    "arm": frozenset({S, A}),
    "take": frozenset({S, A, T}),
    "take_fails": frozenset({S, A, Step.TAKE_FAILS}),
    "take_fails_late": frozenset({S, A, T, Step.TAKE_FAILS_LATE}),
    "give": frozenset({S, A, T, G}),
    "give_fails": frozenset({S, A, T, Step.GIVE_FAILS}),
    "give_fails_late": frozenset({S, A, T, Step.GIVE_FAILS_LATE}),
    "disarm": frozenset({S, A, Step.DISARM}),
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
    "startup_fails": frozenset({S, A, ExitKind.RAW_EXIT_0, Circumstance.STARTUP_FAILS}),
    "ask_orderly": frozenset(),
    "ask_immediate": frozenset({S, A, Step.FREEZE}),
    "stop": frozenset(),
    "stray_write": frozenset({S, Step.SCRIBBLE}),
}
"""Every action that a harness can bring about, with what must be possible for the directed histories to take it."""

_NOTHING: frozenset[Possible] = frozenset()
_ONCE: frozenset[Possible] = frozenset({S, ExitKind.SIGKILL})
ACTIONS_OF_SERVERS: dict[str, frozenset[Possible]] = {
    **dict.fromkeys(("assign", "assign_auxiliary", "fork", "fork_auxiliary", "fork_dead_end"), _NOTHING),
    "take_without_a_slot": _NOTHING,
    "fork_fails": frozenset({Circumstance.FORK_FAILS}),
    **dict.fromkeys(("take", "arm", "hook_both", "hook_disarm", "hook_give"), _ONCE),
    "stream": frozenset({Step.STREAM}),
    **dict.fromkeys(("leave", "give", "disarm", "orderly_exit", "reap_clean"), _ONCE | {ExitKind.SIGTERM}),
    **dict.fromkeys(("raw_exit", "reap_crash", "reap_book_keeping", "reap_crash_without_a_slot"), _ONCE),
    "reap_clean_without_a_slot": frozenset({ExitKind.SIGTERM}),
    "reap_book_keeping_without_a_slot": _ONCE | {Step.FREEZE},
    **dict.fromkeys(("kill", "only_dead_ends_left", "all_gone", "reset", "started"), _ONCE),
    **dict.fromkeys(("ask_orderly", "stop"), _NOTHING),
    "ask_immediate": _ONCE | {Step.FREEZE, Circumstance.PATIENCE_ENDS},
    "stray_write": _ONCE | {Step.SCRIBBLE},
}
"""The same in PostgreSQL's profiles, of which each has some."""

NEVER_TAKEN_OF_SERVERS = {
    "give_hook_fails": "a hook that fails needs a debugger",
    "disarm_hook_fails": "a hook that fails needs a debugger",
    "get_stuck": "the harness stops a child where it wants it stuck",
    "kill_stuck": "a stopped child is killed as any other",
    "clock_runs_out": "no auxiliary process is made to crash between the reset and redo: shown apart, in divergences",
    "startup_fails": "what 15 and later do when their start-up process fails is not modelled",
    "assign_fails": "it ends the postmaster: shown apart",
}
"""The other actions of those profiles, and why they are not compared."""

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
    profile = profile_of(implementation)
    known = ACTIONS_OF_SERVERS if profile.engages_once else ACTIONS
    there = {action.name for action in System(profile, "+stray").actions}
    return {action for action, needs in known.items() if action in there and not needs & implementation.cannot}


@dataclass(frozen=True)
class History:
    """A directed history: its name, how many slots it needs, and what happens in it."""

    name: str
    slots: int
    play: Callable[[Lockstep], None]


def deaths(profile: Profile = REFERENCE) -> Iterator[History]:
    """Yield a history for every situation: a child dies there in every way, a bystander is watched, service goes on."""
    ways = WAYS_OF_SERVERS if profile.engages_once else WAYS
    others = situations(profile) - UNSTOPPABLE - ways.keys()
    for situation in [*ways, *sorted(others)]:
        for kind in _ends(situation):
            name = str(Cell(*situation[:4], str(kind), situation.kind))
            if situation.kind == Kind.AUXILIARY.value:
                yield History(name, 2, _death_of_an_auxiliary(kind))
            elif situation.kind == Kind.DEAD_END.value:
                yield History(name, 2, _death_of_a_dead_end(kind))
            else:
                yield History(name, 2, _death(ways[situation], kind))


def _death_of_an_auxiliary(kind: ExitKind) -> Callable[[Lockstep], None]:
    def play(lockstep: Lockstep) -> None:
        _hold(lockstep, _start(lockstep))
        for which in range(len(lockstep.auxiliaries), 0, -1):
            lockstep.end_auxiliary(which, kind)
            lockstep.supervise()
        _serves(lockstep)

    return play


def _death_of_a_dead_end(kind: ExitKind) -> Callable[[Lockstep], None]:
    def play(lockstep: Lockstep) -> None:
        _hold(lockstep, _start(lockstep))
        child = _dead_end(lockstep)
        lockstep.step(child, S)  # there is nothing that it could do
        lockstep.end(child, kind)
        lockstep.supervise()
        _serves(lockstep)

    return play


def _dead_end(lockstep: Lockstep) -> int:
    """Start children until there is no slot for one."""
    while not lockstep.dead_ends:
        _start(lockstep)
    return lockstep.dead_ends[0]


def _death(way: tuple[Step, ...], kind: ExitKind) -> Callable[[Lockstep], None]:
    def play(lockstep: Lockstep) -> None:
        bystander, child = _start(lockstep), _start(lockstep)
        _hold(lockstep, bystander)
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


def _arm(lockstep: Lockstep, child: int) -> None:
    """Have a child arm the switch."""
    _walk(lockstep, child, (S,) if lockstep.profile.engages_once else (S, A))


def _hold(lockstep: Lockstep, child: int) -> None:
    """Have a child hold something, if it can."""
    _walk_as_far_as_possible(lockstep, child, (S,) if lockstep.profile.engages_once else (S, A, T))


def _serves(lockstep: Lockstep) -> None:
    """Whatever happened, the supervisor serves: a whole life from start to clean exit, as far as it can be told."""
    child = lockstep.start()
    if child is not None and child not in lockstep.dead_ends:
        _walk_as_far_as_possible(lockstep, child, (S, A, T, T, G, G, Step.DISARM, A, T, G, Step.DISARM))
        _end_somehow(lockstep, child)
        lockstep.supervise()


def _a_crash_in_every_generation(lockstep: Lockstep) -> None:
    """Status 0 and 1 by turns, so that each is decided three times, the last time in generations 5 and 6."""
    for kind in (ExitKind.RAW_EXIT_0, ExitKind.RAW_EXIT_1) * 3:
        child, bystander, idle = _start(lockstep), _start(lockstep), _start(lockstep)
        _walk(lockstep, idle, (S,))
        lockstep.end(idle, kind)
        lockstep.supervise()  # clean
        _hold(lockstep, bystander)
        _arm(lockstep, child)
        lockstep.end(child, kind)
        lockstep.supervise()
        _serves(lockstep)


def _two_crashes_before_the_supervisor_looks(lockstep: Lockstep) -> None:
    one, two, three = _start(lockstep), _start(lockstep), _start(lockstep)
    _walk(lockstep, one, (S, A, T))
    _arm(lockstep, two)
    _walk(lockstep, three, (S,))
    lockstep.end(one, ExitKind.RAW_EXIT_0)
    lockstep.end(two, ExitKind.RAW_EXIT_1)
    lockstep.supervise()
    _serves(lockstep)


def _a_crash_during_recovery(lockstep: Lockstep) -> None:
    stuck, one = _start(lockstep), _start(lockstep)
    _hold(lockstep, stuck)
    lockstep.step(stuck, Step.FREEZE)
    _arm(lockstep, one)
    lockstep.end(one, ExitKind.RAW_EXIT_0)
    lockstep.supervise()
    lockstep.start()  # recovery is under way: it must be refused
    lockstep.end(stuck, ExitKind.SIGKILL)
    lockstep.supervise()
    _serves(lockstep)


def _a_stuck_child_is_killed_in_recovery(lockstep: Lockstep) -> None:
    stuck, one = _start(lockstep), _start(lockstep)
    _walk(lockstep, stuck, (S, Step.FREEZE))
    lockstep.arrange(Circumstance.PATIENCE_ENDS)
    _arm(lockstep, one)
    lockstep.end(one, ExitKind.RAW_EXIT_0)
    lockstep.supervise()
    _serves(lockstep)


def _a_fork_that_fails_costs_nothing(lockstep: Lockstep) -> None:
    bystander = _start(lockstep)
    for _ in range(2):
        lockstep.arrange(Circumstance.FORK_FAILS)
        lockstep.start()
    _hold(lockstep, bystander)
    _start(lockstep)  # the last slot is still to be had
    lockstep.start()


def _a_generation_that_cannot_be_made(lockstep: Lockstep) -> None:
    bystander, child = _start(lockstep), _start(lockstep)
    _walk(lockstep, bystander, (S,))
    _arm(lockstep, child)
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
        _walk_as_far_as_possible(lockstep, other, (S, A, T, T))
        if dead:
            lockstep.end(child, ExitKind.RAW_EXIT_0)
        lockstep.stop()

    return play


def _shutdown_during_recovery(lockstep: Lockstep) -> None:
    stuck, one = _start(lockstep), _start(lockstep)
    _walk(lockstep, stuck, (S, Step.FREEZE))
    _arm(lockstep, one)
    lockstep.end(one, ExitKind.RAW_EXIT_0)
    lockstep.supervise()
    lockstep.stop()


def _a_failed_give_back_keeps_the_switch_armed(lockstep: Lockstep) -> None:
    child = _start(lockstep)
    _walk(lockstep, child, (S, A, T, T, Step.GIVE_FAILS, G, Step.DISARM, A, T))
    lockstep.end(child, ExitKind.RETURN)
    lockstep.supervise()
    _serves(lockstep)


def _a_refused_take_spoils_nothing(lockstep: Lockstep) -> None:
    child = _start(lockstep)
    _walk(lockstep, child, (T, Step.DISARM, S, T, A, A, Step.TAKE_REFUSED, T, G, Step.DISARM, Step.DISARM))
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
    for way, kind in (((S,), ExitKind.RETURN), ((S, A, Step.SCRIBBLE), ExitKind.RAW_EXIT_0)):
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
            _walk(lockstep, child, (S, A, T, G, Step.DISARM))
            lockstep.end(child, ExitKind.SYS_EXIT_0)
        lockstep.supervise()


def _two_of_three(lockstep: Lockstep) -> None:
    one, two, _ = _start(lockstep), _start(lockstep), _start(lockstep)
    _arm(lockstep, one)
    _arm(lockstep, two)
    lockstep.end(one, ExitKind.RAW_EXIT_0)
    lockstep.end(two, ExitKind.RAW_EXIT_1)
    lockstep.supervise()
    _serves(lockstep)


def _a_client_is_told_no_in_a_recovery(lockstep: Lockstep) -> None:
    stuck, one = _start(lockstep), _start(lockstep)
    _walk(lockstep, stuck, (S, Step.FREEZE))
    _arm(lockstep, one)
    lockstep.end(one, ExitKind.RAW_EXIT_1)
    lockstep.supervise()
    for kind in (ExitKind.EXCEPTION, ExitKind.SIGSEGV):
        lockstep.end(_start(lockstep), kind)
        lockstep.supervise()
    lockstep.end(stuck, ExitKind.SIGKILL)
    lockstep.supervise()
    _serves(lockstep)


def _lives(*ways: tuple[tuple[Step, ...], ExitKind]) -> Callable[[Lockstep], None]:
    """Children live and end one after the other, and then all over again at once, before the supervisor looks."""

    def play(lockstep: Lockstep) -> None:
        for way, kind in ways:
            child = _start(lockstep)
            _walk(lockstep, child, way)
            lockstep.end(child, kind)
            lockstep.supervise()
        children = [_start(lockstep) for _ in ways]
        for child, (way, _) in zip(children, ways, strict=True):
            _walk(lockstep, child, way)
        for child, (_, kind) in zip(children, ways, strict=True):
            lockstep.end(child, kind)
        lockstep.supervise()
        _serves(lockstep)

    return play


def _shutdown_of_a_server(*ways: tuple[Step, ...], dead: ExitKind | None = None) -> Callable[[Lockstep], None]:
    def play(lockstep: Lockstep) -> None:
        for way in ways:
            child = _start(lockstep)
            _walk(lockstep, child, way)
        if dead is not None:
            lockstep.end(child, dead)
        if Step.FREEZE in ways[-1]:
            lockstep.arrange(Circumstance.PATIENCE_ENDS)
        lockstep.stop()

    return play


def _shutdown_of_a_full_server(lockstep: Lockstep) -> None:
    _dead_end(lockstep)
    lockstep.stop()


def _stories_of_servers() -> Iterator[History]:
    yield History("clean lives", 4, _lives(*[((S,), kind) for kind in (ExitKind.RETURN, ExitKind.SYS_EXIT_0)]))
    yield History("lives that end by an error", 4, _lives(((S,), ExitKind.EXCEPTION), ((S,), ExitKind.SIGTERM)))
    yield History("logins that fail", 4, _lives(*[((), ExitKind.EXCEPTION)] * 3))
    yield History("clients that send nothing", 4, _lives(((), ExitKind.RETURN), ((), ExitKind.SIGTERM)))
    yield History("two crashes before the supervisor looks", 3, _two_of_three)
    yield History("a crash during recovery", 3, _a_crash_during_recovery)
    yield History("a client is told no in a recovery", 3, _a_client_is_told_no_in_a_recovery)
    yield History("a stuck child is killed in recovery", 2, _a_stuck_child_is_killed_in_recovery)
    yield History("a fork that fails costs nothing", 2, _a_fork_that_fails_costs_nothing)
    for name, way in (("starting", ()), ("serving", (S,)), ("streaming", (Step.STREAM,))):
        yield History(f"shutdown with a child {name}", 2, _shutdown_of_a_server((S,), way))
        yield History(f"a foreign word while {name}", 1, _scribbled(way, (), ExitKind.SIGTERM))
    yield History("a foreign word that is written over", 1, _scribbled((), (S,), ExitKind.RETURN))
    yield History("shutdown with a stuck child", 2, _shutdown_of_a_server((S,), (S, Step.FREEZE)))
    yield History("shutdown with a crash undecided", 2, _shutdown_of_a_server((S,), (S,), dead=ExitKind.RAW_EXIT_0))
    yield History("shutdown with a clean death undecided", 2, _shutdown_of_a_server((S,), (S,), dead=ExitKind.RETURN))
    yield History("shutdown with every slot in use", 2, _shutdown_of_a_full_server)
    yield History("shutdown during recovery", 2, _shutdown_during_recovery)


def stories(profile: Profile = REFERENCE) -> Iterator[History]:
    """Yield the histories of more than one child, of recovery and shutdown, of foreign words and grandchildren."""
    if profile.engages_once:
        yield from _stories_of_servers()
        return
    yield History("every slot is used again", 3, _every_slot_is_used_again)
    yield History("a crash in every generation", 3, _a_crash_in_every_generation)
    yield History("two crashes before the supervisor looks", 3, _two_crashes_before_the_supervisor_looks)
    yield History("a crash during recovery", 3, _a_crash_during_recovery)
    yield History("a stuck child is killed in recovery", 2, _a_stuck_child_is_killed_in_recovery)
    yield History("a fork that fails costs nothing", 2, _a_fork_that_fails_costs_nothing)
    yield History("a generation that cannot be made", 2, _a_generation_that_cannot_be_made)
    yield History("nothing is taken in a block", 1, _life(S, A, Step.DISARM, A, Step.DISARM))
    yield History("what is taken last is given back first", 1, _life(S, A, T, T, T, G, G, G, Step.DISARM))
    for cut in (Step.TAKE_FAILS, Step.TAKE_FAILS_FOR_MEMORY, Step.TAKE_FAILS_OTHERWISE):
        yield History(f"{cut} keeps the switch armed", 1, _life(S, A, cut, Step.DISARM, A))
    yield History("a give-back that fails late keeps the switch armed", 1, _life(S, A, T, Step.GIVE_FAILS_LATE, A))
    yield History("a failed give-back keeps the switch armed", 1, _a_failed_give_back_keeps_the_switch_armed)
    yield History("a refused take spoils nothing", 1, _a_refused_take_spoils_nothing)
    yield History("shutdown with a child before its exit path", 2, _shutdown_of(()))
    yield History("shutdown with a child idle", 2, _shutdown_of((S,)))
    yield History("shutdown with a child holding", 2, _shutdown_of((S, A, T)))
    yield History("shutdown with a child giving", 2, _shutdown_of((S, A, T, G)))
    yield History("shutdown with a spoilt child", 2, _shutdown_of((S, A, Step.TAKE_FAILS)))
    yield History("shutdown with a child leaving", 2, _shutdown_of((S, A, T, L)))
    yield History("shutdown with a stuck child", 2, _shutdown_of((S, A, Step.FREEZE)))
    yield History("shutdown with a crash undecided", 2, _shutdown_of((S, A), dead=True))
    yield History("shutdown during recovery", 2, _shutdown_during_recovery)
    yield History("a foreign word while idle", 1, _scribbled((S,), (), ExitKind.RETURN))
    yield History("a foreign word while armed", 1, _scribbled((S, A), (), ExitKind.RAW_EXIT_0))
    yield History("a foreign word that is written over", 1, _scribbled((S,), (A, Step.DISARM), ExitKind.RETURN))
    yield History("the clean value of an earlier assignment", 1, _the_clean_value_of_an_earlier_assignment)
    yield History("a grandchild of a child idle", 1, _grandchild((S,)))
    yield History("a grandchild of a child armed", 1, _grandchild((S, A)))
    yield History("a grandchild of a child holding", 1, _grandchild((S, A, T)))
    yield History("a grandchild of a child giving", 1, _grandchild((S, A, T, G)))


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
