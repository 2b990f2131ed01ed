"""How many states, how many transitions, how deep, what never happens: recorded, so that a change is a reviewed diff.

The counts were found by running and are no claim; that they change unnoticed would be one. After a change of the model:

    python tests/model/test_recorded_counts.py

writes `recorded_counts.toml` anew. Read the difference before you commit it.
"""

import tomllib
from pathlib import Path

import pytest

from armed_model.explore import explore
from armed_model.interpret import Instance, Size
from armed_model.profiles import PROFILES
from armed_model.system import CONTROL_ENVIRONMENTS, ENVIRONMENTS, System

FILE = Path(__file__).with_name("recorded_counts.toml")

SIZES = {
    "calm": [(1, 1), (2, 1), (1, 2)],
    **{each: [(1, 1), (2, 1)] for each in (*ENVIRONMENTS, *CONTROL_ENVIRONMENTS) if each != "calm"},
}

TOO_LARGE = {
    *[(profile, "+stray", 2, 1) for profile in ("9.4", "15", "18")],
    *[(profile, "+copy-back", 2, 1) for profile in PROFILES],
    ("18", "+grandchild", 2, 1),
}
"""Left out: more than 50,000 states each."""

NEEDS_TWO_CHILDREN = {
    "18": {"reap_clean_without_a_slot", "reap_crash_without_a_slot"},
}
"""A dead-end child is without a slot, and in 18 nobody else is: it is reaped while somebody has the slot."""

NEVER = {
    # By its own count there is a slot, and no flag is unused: only where a slot is lost, or somebody scribbles.
    **{(profile, environment): {"assign_fails"} for profile in ("8.4.1", "9.4") for environment in (
        "calm", "+orphan", "+cancel")},
    **{("18", environment): {"assign_fails"} for environment in ("calm", "+orphan", "+cancel")},
    # With one slot, whoever could scribble over the flag of a free one has it himself; with two this does happen.
    **{("18", environment): {"assign_fails"} for environment in ("+stray", "+copy-back")},
    # The give-back that checks the pid stops the grandchild, and one hook does both.
    ("15", "+grandchild"): {"grandchild_disarms"},
    # Without the token it does neither.
    ("reference", "+grandchild"): {"check_fails", "grandchild_gives", "grandchild_gives_late", "grandchild_disarms"},
    # The supervisor dies in one environment only.
    **{("reference", environment): {"check_fails"} for environment in ("calm", "+stray", "+cancel", "+copy-back")},
}  # fmt: skip
"""What happens in none of the sizes recorded, for all that it is written: each is a finding, and has its reason."""


def instances():
    """Yield all that is recorded, as (profile, environment, slots, children)."""
    for profile in PROFILES:
        for environment, sizes in SIZES.items():
            for slots, children in sizes:
                if (profile, environment, slots, children) not in TOO_LARGE:
                    yield profile, environment, slots, children


def found_in(profile, environment, slots, children):
    """Search an instance, and return what is recorded of it."""
    system = System(PROFILES[profile], environment)
    result = explore(Instance(system, Size(slots, children)))
    assert result.complete
    return {
        "states": result.states,
        "transitions": result.transitions,
        "depth": result.depth,
        "never": [action.name for action in system.actions if action.name not in result.actions_seen],
    }


def written(counts):
    """Write the file: a table for each profile in each environment, a line for each size."""
    lines = ["# Written by test_recorded_counts.py. Slots x children; `never`: the actions that are never possible."]
    heading = None
    for (profile, environment, slots, children), row in counts.items():
        if heading != (profile, environment):
            heading = (profile, environment)
            lines += ["", f'["{profile}"."{environment}"]']
        never = ", ".join(f'"{name}"' for name in row["never"])
        numbers = ", ".join(f"{name} = {row[name]}" for name in ("states", "transitions", "depth"))
        lines.append(f'"{slots} x {children}" = {{ {numbers}, never = [{never}] }}')
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def recorded():
    return tomllib.loads(FILE.read_text())


@pytest.mark.parametrize(("profile", "environment", "slots", "children"), list(instances()), ids=str)
def test_the_counts_are_those_recorded(recorded, profile, environment, slots, children):
    found = found_in(profile, environment, slots, children)
    assert found == recorded[profile][environment][f"{slots} x {children}"]


def test_nothing_else_is_recorded(recorded):
    rows = {
        (profile, environment, size)
        for profile, environments in recorded.items()
        for environment, sizes in environments.items()
        for size in sizes
    }
    assert rows == {(profile, environment, f"{m} x {n}") for profile, environment, m, n in instances()}


@pytest.mark.parametrize("environment", SIZES)
@pytest.mark.parametrize("profile", PROFILES)
def test_what_never_happens_is_what_is_expected_not_to(recorded, profile, environment):
    never = set.intersection(*[set(row["never"]) for row in recorded[profile][environment].values()])
    needs_more = NEEDS_TWO_CHILDREN.get(profile, set()) if environment != "calm" else set()
    assert never == NEVER.get((profile, environment), set()) | needs_more


if __name__ == "__main__":
    FILE.write_text(written({each: found_in(*each) for each in instances()}))
