"""The kit as tests of somebody's own pytest suite, in three lines.

    from armed_conformance.suite import ConformanceTests

    class TestMine(ConformanceTests):
        implementation = Mine

Each directed history is a test of its own, and must see the cell that it is there for; random histories are one more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import ClassVar

import pytest

from armed_conformance.histories import History, cells, deaths, play, stories
from armed_conformance.lockstep import Cell, Coverage, profile_of
from armed_conformance.machine import run_histories
from armed_conformance.protocol import Implementation
from armed_model.profiles import Profile


class ConformanceTests:
    """Holds `implementation`, a class that is made without arguments for each history, to the model."""

    implementation: ClassVar[Callable[[], Implementation]]
    histories: ClassVar[int] = 100
    """How many random histories."""
    seed: ClassVar[int | None] = None
    """The same seed makes the same choices (`armed_conformance.machine.run_histories`)."""

    def __init_subclass__(cls) -> None:
        """Raises TypeError where there is no implementation."""
        super().__init_subclass__()
        if not hasattr(cls, "implementation"):
            raise TypeError(f"{cls.__name__} has no `implementation`: the class that is to be held to the model")

    @classmethod
    def make(cls) -> Implementation:
        """Return a new implementation."""
        return cls.implementation()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each directed history of the profile that the implementation is held to."""
        if "history" in metafunc.fixturenames:
            profile = profile_of(self.make())
            metafunc.parametrize("history", [*stories(profile), *deaths(profile)], ids=lambda history: history.name)

    def test_directed_history(self, history: History) -> None:
        """Implementation and model go the same way; a cell's own history has seen it."""
        coverage, implementation = Coverage(), self.make()
        cannot = play(history, implementation, coverage)
        if cannot is not None:
            declared = {str(each) for each in implementation.cannot}
            assert cannot in declared, f"it is not declared that the implementation cannot {cannot}"
            # Its author has declared it: skipped, with what it is, and not passed.
            pytest.skip(f"the implementation cannot {cannot}")
        cell = _cells_by_name(profile_of(implementation)).get(history.name)
        if cell is not None:
            assert coverage.cells[cell], "the child did not die in the situation that was wanted"

    def test_random_histories(self) -> None:
        """Implementation and model go the same way, whatever Hypothesis thinks of."""
        coverage = Coverage()
        run_histories(self.make, self.histories, coverage, seed=self.seed)
        assert coverage.histories >= self.histories
        assert sum(coverage.deaths.values()) > 0, "no child has died in any of them"


@cache
def _cells_by_name(profile: Profile) -> dict[str, Cell]:
    return {str(cell): cell for cell in cells(profile)}
