"""The lockstep machine: Hypothesis makes up histories of model and implementation together, and shrinks what differs.

Every rule is total: a step that the model forbids must be refused, and a rule that finds nobody to act upon starts
somebody. (Rules with preconditions starve: a machine may be left with none that can run.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from armed_conformance.histories import OF_AUXILIARIES
from armed_conformance.lockstep import CHILDREN, Coverage, DoesNotReturn, Lockstep, Mismatch, profile_of
from armed_conformance.protocol import Cannot, ExitKind, Implementation, NotHere, Step
from armed_model.profiles import Kind

STEPS = 30
"""How many rules a history has at most."""

_WHO = st.integers(0, CHILDREN - 1)
_CRASHES = st.sampled_from([ExitKind.RAW_EXIT_0, ExitKind.RAW_EXIT_1])
_LIFE = (Step.SERVE, Step.ARM, Step.TAKE, Step.TAKE, Step.GIVE, Step.GIVE, Step.DISARM)


class _Ended(BaseException):
    """Ends the run at once with what is not to be shrunk any further: Hypothesis passes on what is no Exception."""

    def __init__(self, by: Mismatch | NotHere) -> None:
        self.by = by


def machine_for(
    make: Callable[[], Implementation],
    coverage: Coverage,
    on_history: Callable[[Coverage], None] = lambda _: None,
) -> type[RuleBasedStateMachine]:
    """Return a state machine that holds what `make` makes to the model and counts in `coverage`.

    `on_history` is called after each history. For a pytest suite: `TestMine = machine_for(Mine, Coverage()).TestCase`.
    """
    implementation = make()
    cannot = implementation.cannot
    streams = Kind.WALSENDER in profile_of(implementation).kinds
    expressible = [step for step in Step if step not in cannot and (streams or step is not Step.STREAM)]
    steps = st.sampled_from(expressible or list(Step))
    possible = [kind for kind in ExitKind if kind not in cannot]
    halves = [kind for kind in possible if kind.exit.orderly], [kind for kind in possible if not kind.exit.orderly]
    kinds = st.one_of([st.sampled_from(half) for half in halves if half])  # half of all deaths are raw
    found: list[Mismatch] = []

    @contextmanager
    def ending_what_is_not_to_be_shrunk() -> Iterator[None]:
        try:
            yield
        except DoesNotReturn as mismatch:  # each further try would take as long
            raise _Ended(mismatch) from None
        except Mismatch as mismatch:
            found.append(mismatch)
            raise
        except NotHere as missing:  # what was found before is not to be lost by that
            raise _Ended(found[-1] if found else missing) from None

    class LockstepMachine(RuleBasedStateMachine):
        lockstep: Lockstep | None = None

        failed = False

        @initialize(slots=st.integers(1, CHILDREN))
        def open(self, slots: int) -> None:
            with ending_what_is_not_to_be_shrunk():
                self.lockstep = Lockstep(make(), slots, coverage)

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

        @rule(who=_WHO, kind=_CRASHES)
        def crash(self, who: int, kind: ExitKind) -> None:
            """Somebody leaves while armed, and the supervisor looks: so that a history sees several generations."""
            for step in (Step.SERVE, Step.ARM):
                self.step(who, step)
            self.end(who, kind)
            self.supervise()

        @rule(which=_WHO, kind=kinds)
        def end_auxiliary(self, which: int, kind: ExitKind) -> None:
            self._try(lambda lockstep: _end_an_auxiliary(lockstep, which, kind))

        @rule()
        def supervise(self) -> None:
            self._try(lambda lockstep: lockstep.supervise())

        def teardown(self) -> None:
            if self.lockstep is None:
                return
            try:
                if not self.failed:
                    self._try(lambda lockstep: lockstep.stop())
                    self._try(lambda lockstep: lockstep.close())
            finally:
                if self.failed:
                    self.lockstep.abandon()
                on_history(coverage)

        def _try(self, act: Callable[[Lockstep], object]) -> None:
            assert self.lockstep is not None
            try:
                with ending_what_is_not_to_be_shrunk():
                    act(self.lockstep)
            except Cannot as reason:
                coverage.not_done[str(reason)] += 1
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


def _unsteady(flaky: BaseException) -> BaseException:
    """Return the difference in what Hypothesis says of histories that go another way each time, or were ended."""
    found: list[BaseException] = [flaky]
    for each in found:
        if isinstance(each, _Ended):
            return each.by
        if isinstance(each, Mismatch):
            story, slots, orders = str(each), each.slots, each.orders
            mismatch = Mismatch(f"{story}\n  (not each time: this history was not shrunk)")
            mismatch.slots, mismatch.orders = slots, orders
            return mismatch
        found += [*getattr(each, "exceptions", ()), *filter(None, (each.__cause__, each.__context__))]
    return flaky


def _end_an_auxiliary(lockstep: Lockstep, which: int, kind: ExitKind) -> None:
    """End a child that the supervisor has started, as it can be; start one of one's own where there is none."""
    if (count := len(lockstep.auxiliaries)) and kind in OF_AUXILIARIES:
        lockstep.end_auxiliary(1 + which % count, kind)
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
    """Run random histories. Raises the Mismatch of the smallest failing one, or at once that of a call without end.

    The same seed makes the same choices, as long as Hypothesis and the modules that are loaded are the same (it looks
    at the numbers in one's own code). How children end that the supervisor ends may differ between two runs.
    """
    machine = machine_for(make, coverage, on_history)
    if seed is not None:
        machine = hypothesis.seed(seed)(machine)
    with TemporaryDirectory(prefix="armed-") as nothing_is_kept:
        set_hypothesis_home_dir(nothing_is_kept)
        try:
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
        except _Ended as ended:
            raise ended.by from None
        except hypothesis.errors.Flaky as flaky:
            raise _unsteady(flaky) from None
        finally:
            set_hypothesis_home_dir(None)
