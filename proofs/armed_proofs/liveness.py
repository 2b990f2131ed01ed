"""Liveness, by a chain of stages, each with a rank: what has to be shown, again as ground queries.

    in each stage some helpful action can be taken     (fairness: then it is taken in the end)
    taking it goes to the next stage, or lowers the rank of a child: alive 2, dead 1, gone 0
    no action leads out of the chain, or raises a rank

A generation has finitely many children (A5), so the ranks come down to 0; this counting is on paper (A8). Where an
obligation fails, a lasso is looked for: a run to a state in which nothing that is due can ever be taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from armed_model.explore import Exploration, Run, Step, StillSearching
from armed_model.interpret import Instance, Sought, State
from armed_model.profiles import Kind
from armed_model.properties import LeadsTo, after
from armed_model.system import (
    CHILD,
    Mode,
    Phase,
    Shutdown,
    System,
    armed,
    c,
    is_looked_at,
    kind,
    launching,
    mode,
    no_slot,
    nobody,
    phase,
    shutdown,
    told,
)
from armed_model.terms import Action, Parameter, Term, both, either, implies, negate, one_of, substitute
from armed_proofs.invariants import invariant
from armed_proofs.obligations import Obligation, facts_of_a_state, facts_of_a_step, goal_after

x = Parameter("waited_for", CHILD)

lives = negate(one_of(phase[x], Phase.NONE, Phase.EXITED))
is_dead = phase[x] == Phase.EXITED
is_gone = phase[x] == Phase.NONE
idle = launching == no_slot
in_business = negate(one_of(mode, Mode.STOPPED, Mode.DEAD))
ending = both(in_business, either(one_of(mode, Mode.STOPPING, Mode.DRAINING), shutdown == Shutdown.IMMEDIATE))
"""Children are being ended, after a crash or for an immediate shutdown."""
is_waited_for = either(mode != Mode.STOPPING, shutdown == Shutdown.IMMEDIATE, kind[x] != Kind.DEAD_END)


def obligations(system: System, claim: LeadsTo) -> list[Obligation]:
    """Return what shows a liveness property, given the invariant; those with the same facts stand together."""
    prove = {
        "armed_exit_leads_to_restart": _restart,
        "crash_leads_to_reset": _reset_comes,
        "supervisor_death_ends_children": _ends_with_the_supervisor,
    }
    found = list(prove[claim.name](_Chain(system)))
    order = {id(each.facts): position for position, each in enumerate(found)}
    return sorted(found, key=lambda each: order[id(each.facts)])


class _Chain:
    """A system, its invariant, and the facts that the obligations of its actions share."""

    def __init__(self, system: System) -> None:
        self.system = system
        conjuncts = invariant(system)
        self.of_a_state = facts_of_a_state(system, conjuncts, (x,))
        self.of_a_step = {action.name: facts_of_a_step(system, conjuncts, action, (x,)) for action in system.actions}

    def can(self, name: str, stage: Term, *helpful: str) -> Obligation:
        """In this stage one of the helpful actions can be taken, of the child `x` if it is of one.

        What a guard says of everybody is granted: it is the stage's own premise, that the ranks of all have come to 0.
        """
        ways = [_guard(action) for action in self.system.actions if action.name in helpful]
        return Obligation(name, self.of_a_state, implies(stage, either(*ways)).z3)

    def leads(self, name: str, stage: Term, then: Term, only: str | None = None) -> Iterator[Obligation]:
        """Every action taken in this stage leads to what follows."""
        for action in self.system.actions:
            if only in (None, action.name):
                goal = goal_after(action, implies(stage, after(then)))
                yield Obligation(f"{name}: {action.name}", self.of_a_step[action.name], goal, of_an_action=True)


def _guard(action: Action) -> Term:
    bound = [(parameter, x) for parameter in action.of if parameter.sort is CHILD]
    return both(*[substitute(term, bound) for term in action.conditions if not term.has_quantifier])


def _restart(chain: _Chain) -> Iterator[Obligation]:
    system = chain.system
    counts = [is_looked_at(system.profile, x)] if system.backends_alone else []
    noticed = both(in_business, is_dead, armed[x], *counts)
    undecided = both(noticed, mode == Mode.RUNNING)
    # From the armed exit to the crash.
    yield chain.can(
        "an armed exit can be found out", both(undecided, idle, shutdown != Shutdown.IMMEDIATE), "reap_crash"
    )
    yield from chain.leads("an armed exit is not forgotten", undecided,
        either(undecided, one_of(mode, Mode.STOPPING, Mode.STOPPED), ending),
    )  # fmt: skip
    crash = phase[nobody] == Phase.NONE
    yield from chain.leads("a crash starts recovery", crash, mode == Mode.STOPPING, only="reap_crash")
    yield from _reset_comes(chain)
    # From the reset to service.
    starting = mode == Mode.STARTING
    yield from chain.leads("starting goes on", starting,
        one_of(mode, Mode.STARTING, Mode.RUNNING, Mode.STOPPING, Mode.STOPPED),
    )  # fmt: skip
    preparing = both(starting, shutdown != Shutdown.IMMEDIATE)
    yield chain.can("service can be opened", both(preparing, idle, is_gone), "started")
    if not system.profile.auxiliaries_while_running:
        yield chain.can("who prepares too long can be ended", both(preparing, lives), "kill", "kill_stuck")
        decided = ("reap_clean", "reap_crash", "reap_clean_without_a_slot", "reap_crash_without_a_slot")
        yield chain.can("who has prepared can be reaped", both(preparing, idle, is_dead), *decided)


def _reset_comes(chain: _Chain) -> Iterator[Obligation]:
    yield chain.can("a child being launched can be done with", both(in_business, launching != no_slot), "fork_fails")
    # From the crash until everybody is gone.
    yield chain.can("whoever lives can be ended", both(ending, is_waited_for, lives), "kill", "kill_stuck")
    reaped = ("reap_book_keeping", "reap_book_keeping_without_a_slot")
    yield chain.can("whoever is dead can be reaped", both(ending, is_waited_for, is_dead), *reaped)
    yield from chain.leads("ending goes on", ending, either(ending, one_of(mode, Mode.RESETTING, Mode.STOPPED)))
    yield from chain.leads("who is dead stays dead", both(ending, is_dead), either(is_dead, is_gone))
    yield from chain.leads("who is gone stays gone", both(ending, is_gone), either(is_gone, negate(is_waited_for)))
    everybody_else_is_gone = implies(is_waited_for, is_gone)
    for mode_now, then in ((Mode.STOPPING, "only_dead_ends_left"), (Mode.DRAINING, "all_gone")):
        stage = both(mode == mode_now, shutdown != Shutdown.IMMEDIATE, everybody_else_is_gone)
        yield chain.can(f"when they are gone {then} can be taken", stage, then)
    at_the_end = both(ending, shutdown == Shutdown.IMMEDIATE, is_gone)
    yield chain.can("when all are gone an immediate shutdown can end", at_the_end, "stop")
    # From there to the reset.
    yield chain.can("the reset can be made", both(mode == Mode.RESETTING, shutdown == Shutdown.NONE), "reset")
    yield chain.can(
        "a shutdown can end instead", both(mode == Mode.RESETTING, shutdown != Shutdown.NONE, is_gone), "stop"
    )
    yield from chain.leads("the reset is to come until it is made", mode == Mode.RESETTING,
        one_of(mode, Mode.RESETTING, Mode.STARTING, Mode.STOPPED),
    )  # fmt: skip
    # The helpful actions help.
    for action, result in (
        ("kill", phase[c] == Phase.EXITED),
        ("kill_stuck", phase[c] == Phase.EXITED),
        *[(f"reap_{how}{slot}", phase[c] == Phase.NONE)
          for how in ("clean", "crash", "book_keeping") for slot in ("", "_without_a_slot")],
        ("fork_fails", idle),
        ("only_dead_ends_left", mode == Mode.DRAINING),
        ("all_gone", mode == Mode.RESETTING),
        ("reset", mode == Mode.STARTING),
        ("started", mode == Mode.RUNNING),
        ("stop", mode == Mode.STOPPED),
    ):  # fmt: skip
        yield from chain.leads(f"{action} helps", phase[nobody] == Phase.NONE, result, only=action)


def _ends_with_the_supervisor(chain: _Chain) -> Iterator[Obligation]:
    orphaned = both(mode == Mode.DEAD, lives)
    yield chain.can("an orphan ends, or can take its next step", orphaned, "lifeline_kills", "ask", "check_fails")
    yield from chain.leads("the supervisor stays dead", mode == Mode.DEAD, mode == Mode.DEAD)
    yield from chain.leads("nobody is born", both(mode == Mode.DEAD, negate(lives)), negate(lives))
    asked = both(orphaned, either(told[x], phase[x] == Phase.ASKED))
    yield from chain.leads("who has asked has asked", asked, either(negate(lives), told[x], phase[x] == Phase.ASKED))
    yield from chain.leads("asking helps", orphaned, phase[c] == Phase.ASKED, only="ask")
    for action in ("lifeline_kills", "check_fails"):
        yield from chain.leads(f"{action} helps", orphaned, phase[c] == Phase.EXITED, only=action)


# --- Lassos ----------------------------------------------------------------------------------------------------------


def lasso(instance: Instance, claim: LeadsTo, limit: int) -> Run | None:
    """Return a shortest run to a state that is pending, and in which no fair action can be taken that changes anything.

    From there nothing needs ever happen: the loop of the lasso is to stay. Raises StillSearching beyond `limit` states.
    """
    is_pending = _pending(instance, claim)
    names = [action.name for action in instance.system.actions]
    seen: dict[State, tuple[State, Step] | None] = {instance.initial: None}
    frontier = [instance.initial]
    while frontier:
        fresh: list[State] = []
        for state in frontier:
            steps = instance.successors(state)
            if not any(names[position] in claim.fairness and to != state for position, _, to in steps) and is_pending(
                state, state, 0
            ):
                run: list[Step] = []
                at: State = state
                while (came := seen[at]) is not None:
                    at, step = came
                    run.append(step)
                return tuple(reversed(run))
            for position, arguments, to in steps:
                if to not in seen:
                    seen[to] = (state, Step(names[position], arguments))
                    fresh.append(to)
        if len(seen) > limit:
            raise StillSearching(f"more than {limit:,} states", Exploration(states=len(seen)))
        frontier = fresh
    return None


def is_lasso(instance: Instance, claim: LeadsTo, states: list[Any]) -> bool:
    """Whether a replayed run ends in a state that is pending, and in which no fair action can change anything."""
    last = states[-1]
    is_due = any(name in claim.fairness and to != last for name, _, to in instance.steps(last))
    return bool(_pending(instance, claim)(last, last, 0)) and not is_due


def _pending(instance: Instance, claim: LeadsTo) -> Any:
    return instance.watch({claim.name: Sought(claim.over, claim.pending, on_states=True)})
