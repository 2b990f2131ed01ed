"""The lockstep machine: Hypothesis makes up histories of model and implementation together, and shrinks what differs.

Every rule is total: a step that the model forbids must be refused, and a rule that finds nobody to act upon starts
somebody. (Rules with preconditions starve: a machine may be left with none that can run.)
"""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from armed_conformance.lockstep import CHILDREN, Coverage, Lockstep
from armed_conformance.protocol import ExitKind, Implementation, Step

STEPS = 30
"""How many rules a history has at most."""

_WHO = st.integers(0, CHILDREN - 1)
_LIFE = (Step.HOOK, Step.ARM, Step.TAKE, Step.TAKE, Step.GIVE, Step.GIVE, Step.DISARM)


def machine_for(
    make: Callable[[], Implementation],
    coverage: Coverage,
    on_history: Callable[[Coverage], None] = lambda _: None,
) -> type[RuleBasedStateMachine]:
    """Return a state machine that holds what `make` makes to the model and counts in `coverage`.

    `on_history` is called after each history. For a pytest suite: `TestMine = machine_for(Mine, Coverage()).TestCase`.
    """
    cannot = make().cannot
    steps = st.sampled_from([step for step in Step if step not in cannot])
    possible = [kind for kind in ExitKind if kind not in cannot]
    kinds = st.one_of(  # half of all deaths are raw
        st.sampled_from([kind for kind in possible if kind.exit.orderly]),
        st.sampled_from([kind for kind in possible if not kind.exit.orderly]),
    )

    class LockstepMachine(RuleBasedStateMachine):
        lockstep: Lockstep | None = None

        @initialize(slots=st.integers(1, CHILDREN))
        def open(self, slots: int) -> None:
            self.failed = True  # until the history is through
            self.implementation = make()
            self.lockstep = Lockstep(self.implementation, slots, coverage)
            self.failed = False

        @rule()
        def start(self) -> None:
            self._try(lambda lockstep: lockstep.start())

        @rule(who=_WHO, last=st.integers(1, len(_LIFE)), then=steps)
        def live(self, who: int, last: int, then: Step) -> None:
            """Somebody does the usual things in the usual order, as far as the one numbered `last`, then any other."""
            for step in (*_LIFE[:last], then):
                self.step(who, step)

        @rule(who=_WHO, step=steps)
        def any_step(self, who: int, step: Step) -> None:
            self.step(who, step)

        def step(self, who: int, step: Step) -> None:
            self._try(lambda lockstep: _with_somebody(lockstep, who, lambda child: lockstep.step(child, step)))

        @rule(who=_WHO, kind=kinds)
        def end(self, who: int, kind: ExitKind) -> None:
            self._try(lambda lockstep: _end_somebody(lockstep, who, kind))

        @rule()
        def supervise(self) -> None:
            self._try(lambda lockstep: lockstep.supervise())

        def teardown(self) -> None:
            try:
                if self.lockstep is not None and not self.failed:
                    self._try(lambda lockstep: lockstep.stop())
            finally:
                if self.lockstep is not None:
                    self.implementation.close()
                    on_history(coverage)

        def _try(self, act: Callable[[Lockstep], object]) -> None:
            assert self.lockstep is not None
            try:
                act(self.lockstep)
            except BaseException:
                self.failed = True
                raise

    return LockstepMachine


def _with_somebody(lockstep: Lockstep, who: int, act: Callable[[int], None]) -> None:
    """Act upon a living child that responds; start one where there is none."""
    if children := lockstep.steppable:
        act(children[who % len(children)])
    else:
        lockstep.start()


def _end_somebody(lockstep: Lockstep, who: int, kind: ExitKind) -> None:
    if children := lockstep.children:
        lockstep.end(children[who % len(children)], kind)
    else:
        lockstep.start()


def run_histories(
    make: Callable[[], Implementation],
    histories: int,
    coverage: Coverage,
    *,
    seed: int | None = None,
    on_history: Callable[[Coverage], None] = lambda _: None,
) -> None:
    """Run random histories. Raises the Mismatch of the smallest failing one. The same seed gives the same histories."""
    machine = machine_for(make, coverage, on_history)
    if seed is not None:
        machine = hypothesis.seed(seed)(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=histories,
            stateful_step_count=STEPS,
            deadline=None,  # processes take the time they take; every wait has a limit of its own
            database=None,
            phases=(Phase.generate, Phase.shrink),
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            report_multiple_bugs=False,
        ),
    )
