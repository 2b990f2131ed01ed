"""The inductive invariants: candidates, written once for all profiles, and which of them hold where.

Unlike a property's, a candidate's parameters range over slot 0 and nobody too: so it may be instantiated at any term.
`invariants.toml` records for every profile and environment which candidates are not inductive there; `obligations.py`
has each of the others checked anew. Whoever changes the model lets `armed prove --select` choose again.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from armed_model.profiles import Allocation, Cancel, CleanWord, InAnotherProcess, Kind, Profile, Step
from armed_model.properties import OF_A_CHILD
from armed_model.system import (
    ACTIVE,
    CHILD,
    RESERVED,
    SLOT,
    STREAMING,
    UNUSED,
    Mode,
    Phase,
    Request,
    Shutdown,
    System,
    aimed,
    armed,
    clean,
    clean_word,
    copy_disarms,
    copy_gives,
    copy_of,
    copy_slot,
    copy_token,
    engaged,
    entry_gone,
    failed,
    flag,
    handle_astray,
    handle_gone,
    holds,
    in_use,
    kind,
    launching,
    launching_as,
    mode,
    no_slot,
    nobody,
    orderly,
    owed,
    owner,
    phase,
    phases,
    request,
    shutdown,
    slot_of,
    start_up_phases,
    status,
    ticking,
    to_disarm,
    to_give,
    token,
    told,
    torn,
    used,
    variables,
)
from armed_model.terms import Array, Parameter, Term, both, choose, either, implies, negate, one_of

Candidate = tuple[tuple[Parameter, ...], Term]

c = Parameter("inv_child", CHILD)
s = Parameter("inv_slot", SLOT)

there_is_c = phase[c] != Phase.NONE
c_has_a_slot = slot_of[c] != no_slot
until_the_reset = either(
    one_of(mode, Mode.STOPPING, Mode.DRAINING, Mode.RESETTING, Mode.STOPPED, Mode.DEAD), shutdown == Shutdown.IMMEDIATE
)


def candidates(system: System) -> dict[str, Candidate]:
    """Return everything that might be inductive in this system, by name."""
    profile = system.profile
    once = _one_engagement(profile) if profile.engages_once else _engagements()
    return {
        **_never_written(system),
        **_blanks(),
        **_slots(profile),
        **_kinds(profile),
        **once,
        **_recovery(),
        **(_grandchild(profile) if system.environment == "+grandchild" else _no_grandchild()),
        **(_cancelling(profile) if system.environment == "+cancel" else _no_request()),
    }


def _never_written(system: System) -> dict[str, Candidate]:
    """Say of every variable that no action writes that it is blank for ever."""
    written = {update.variable.name for action in system.actions for update in action.effect}
    found: dict[str, Candidate] = {}
    for variable in variables:
        if variable.name not in written and variable is not used:
            over: tuple[Parameter, ...] = ()
            value: Term = variable
            if isinstance(variable, Array):
                index = c if variable.index is CHILD else s
                over, value = (index,), variable[index]
            found[f"{variable.name}_is_never_written"] = (over, value == Term(variable.blank))
    return found


def _blanks() -> dict[str, Candidate]:
    flags_of_c = [each[c] for each in OF_A_CHILD if each.sort.name == "Bool"]
    return {
        "nobody_is_nobody": ((), phase[nobody] == Phase.NONE),
        "slot_zero_is_never_given_out": ((), both(negate(in_use[no_slot]), owner[no_slot] == nobody)),
        "slot_zero_is_never_written": ((), both(flag[no_slot] == UNUSED, clean[no_slot] == UNUSED)),
        "who_is_not_there_has_no_slot": ((c,), implies(phase[c] == Phase.NONE, negate(c_has_a_slot))),
        "who_is_not_there_is_blank": (
            (c,),
            implies(
                phase[c] == Phase.NONE,
                both(kind[c] == Kind.BACKEND, token[c] == UNUSED, status[c] == 0, negate(either(*flags_of_c))),
            ),
        ),
        "the_dead_remember_nothing": (
            (c,),
            implies(
                phase[c] == Phase.EXITED,
                both(token[c] == UNUSED, negate(either(told[c], engaged[c], to_give[c], to_disarm[c], failed[c]))),
            ),
        ),
        "only_the_dead_have_a_status": ((c,), either(phase[c] == Phase.EXITED, status[c] == 0)),
        "only_the_dead_have_left": ((c,), implies(orderly[c], phase[c] == Phase.EXITED)),
    }


def _slots(profile: Profile) -> dict[str, Candidate]:
    launched = launching != no_slot
    private = profile.allocation is not Allocation.SHARED
    is_accounted_for = either(launching == s, owner[s] != nobody, mode == Mode.DEAD)
    nobody_has_it = either(s == no_slot, both(owner[s] == nobody, launching != s))
    is_free = both(nobody_has_it, mode != Mode.DEAD)  # who dies while it launches leaves a slot that nobody has
    return {
        "child_owns_its_slot": ((c,), implies(c_has_a_slot, both(owner[slot_of[c]] == c, there_is_c))),
        "owner_has_the_slot": (
            (s,), implies(owner[s] != nobody, both(slot_of[owner[s]] == s, phase[owner[s]] != Phase.NONE))
        ),
        "launched_slot_has_no_owner": ((), owner[launching] == nobody),
        "launched_slot_is_clean": ((), implies(launched, flag[launching] == clean_word(profile, launching))),
        "launching_is_part_of_service": (
            (),
            implies(
                launched,
                both(
                    shutdown == Shutdown.NONE,
                    either(mode == Mode.RUNNING, both(mode == Mode.STARTING, launching_as == Kind.AUXILIARY)),
                ),
            ),
        ),
        "launching_as_is_blank": ((), either(launched, launching_as == Kind.BACKEND)),
        "flag_of_a_free_slot_is_unused": ((s,), implies(is_free, flag[s] == UNUSED)),
        "free_slot_is_blank": ((s,), implies(is_free, clean[s] == UNUSED)),
        "flag_of_a_slot_given_out_is_not_unused": ((s,), implies(negate(nobody_has_it), flag[s] != UNUSED)),
        **(
            {
                "slot_in_use_has_an_owner": ((s,), implies(in_use[s], is_accounted_for)),
                "owned_slot_is_in_use": ((s,), implies(owner[s] != nobody, in_use[s])),
                "launched_slot_is_in_use": ((), implies(launched, in_use[launching])),
            }
            if private
            else {}
        ),
        **(
            {
                "reserved_words_are_used": ((), both(*[used[word] for word in RESERVED])),
                "clean_words_are_used": ((s,), used[clean[s]]),
                "flags_are_used": ((s,), used[flag[s]]),
                "clean_word_is_not_reserved": (
                    (s,), implies(negate(nobody_has_it), negate(one_of(clean[s], *RESERVED)))
                ),
                "clean_word_of_a_slot_in_use_is_not_reserved": (
                    (s,), implies(both(in_use[s]), negate(one_of(clean[s], *RESERVED)))
                ),
                "child_knows_its_clean_word": (
                    (c,), implies(both(c_has_a_slot, phase[c] != Phase.EXITED), token[c] == clean[slot_of[c]])
                ),
            }
            if profile.clean_word is CleanWord.FRESH
            else {}
        ),
    }  # fmt: skip


def _kinds(profile: Profile) -> dict[str, Candidate]:
    launched = [each for each in profile.with_a_slot if each is not Kind.WALSENDER]
    return {
        "kinds_are_the_profile's": ((c,), one_of(kind[c], *profile.kinds)),
        "launched_kind_has_a_slot": ((), one_of(launching_as, *launched)),
        "kinds_with_a_slot": ((c,), implies(there_is_c, c_has_a_slot == one_of(kind[c], *profile.with_a_slot))),
        "phases_are_the_profile's": ((c,), one_of(phase[c], *phases(profile))),
        "dead_ends_hold_nothing": ((c,), implies(kind[c] == Kind.DEAD_END, negate(either(holds[c], to_give[c])))),
        "no_switch_without_a_slot": (
            (c,), implies(negate(c_has_a_slot), negate(either(armed[c], engaged[c], to_disarm[c])))
        ),
    }  # fmt: skip


def _engagements() -> dict[str, Candidate]:
    alive = negate(one_of(phase[c], Phase.NONE, Phase.EXITED))
    nothing = negate(either(armed[c], engaged[c], holds[c], failed[c]))
    early = one_of(phase[c], Phase.NONE, Phase.STARTING, Phase.ASKED, Phase.CHECKED)
    return {
        "nothing_before_the_exit_path": ((c,), implies(early, nothing)),
        "armed_while_engaged": ((c,), implies(alive, armed[c] == engaged[c])),
        "holds_only_while_armed": ((c,), implies(holds[c], armed[c])),
        "fails_only_while_armed": ((c,), implies(failed[c], armed[c])),
        "orderly_exit_disarms": ((c,), implies(orderly[c], negate(either(armed[c], holds[c])))),
        "the_flag_tells_whether_armed": (
            (c,), implies(c_has_a_slot, flag[slot_of[c]] == choose(armed[c], ACTIVE, clean[slot_of[c]]))
        ),
        "armed_is_not_clean": ((c,), implies(armed[c], flag[slot_of[c]] != clean[slot_of[c]])),
        "asks_before_it_serves": (
            (c,), either(one_of(phase[c], Phase.NONE, Phase.STARTING, Phase.ASKED, Phase.EXITED), told[c])
        ),
        "asks_before_it_checks": ((c,), implies(phase[c] == Phase.ASKED, either(told[c], mode == Mode.DEAD))),
    }  # fmt: skip


def _one_engagement(profile: Profile) -> dict[str, Candidate]:
    """Return what has been done at each phase, from the order of the start-up steps."""
    found: dict[str, Candidate] = {}
    done: set[Step] = set()
    for step, at in start_up_phases(profile).items():
        found[f"at_{at.value}"] = ((c,), implies(phase[c] == at, _has_done(done)))
        done.add(step)
    armed_word = choose(kind[c] == Kind.WALSENDER, STREAMING, ACTIVE)
    is_clean = clean_word(profile, slot_of[c])
    is_on_its_way_out = one_of(phase[c], Phase.LEAVING, Phase.STUCK)
    return {
        **found,
        "at_serving": ((c,), implies(both(phase[c] == Phase.SERVING, c_has_a_slot), _has_done(done))),
        "streaming_after_start_up": (
            (c,),
            implies(
                kind[c] == Kind.WALSENDER,
                either(is_on_its_way_out, one_of(phase[c], Phase.SERVING, Phase.EXITED)),
            ),
        ),
        "the_flag_tells_whether_armed": (
            (c,), implies(c_has_a_slot, flag[slot_of[c]] == choose(armed[c], armed_word, is_clean))
        ),
        "who_has_to_disarm_is_armed": ((c,), implies(to_disarm[c], armed[c])),
        "who_has_to_give_holds": ((c,), implies(to_give[c], holds[c])),
        "who_has_to_give_has_to_disarm": ((c,), implies(both(to_give[c], c_has_a_slot), to_disarm[c])),
        "who_has_to_disarm_only_has_given": (
            (c,),
            implies(both(to_disarm[c], negate(to_give[c]), is_on_its_way_out), negate(holds[c])),
        ),
        "who_failed_has_nothing_to_do": ((c,), implies(failed[c], negate(either(to_give[c], to_disarm[c])))),
        "an_orderly_exit_disarms_unless_it_holds": (
            (c,),
            implies(both(phase[c] == Phase.EXITED, orderly[c], c_has_a_slot), either(holds[c], negate(armed[c]))),
        ),
        "who_starts_up_has_a_slot": (
            (c,), either(negate(one_of(phase[c], *list(start_up_phases(profile).values())[1:])), c_has_a_slot)
        ),
        "dead_ends_do_not_start_up": (
            (c,), implies(kind[c] == Kind.DEAD_END, negate(one_of(phase[c], *start_up_phases(profile).values())))
        ),
        "leaving_armed_holds_or_disarms": (
            (c,),
            implies(
                both(one_of(phase[c], Phase.LEAVING, Phase.STUCK), armed[c]), either(holds[c], to_disarm[c], failed[c])
            ),
        ),
    }  # fmt: skip


def _has_done(done: set[Step]) -> Term:
    def says(term: Term, *steps: Step) -> Term:
        return term if done & {*steps} else negate(term)

    return both(
        says(holds[c], Step.TAKE),
        says(armed[c], Step.ARM),
        says(to_give[c], Step.HOOK_BOTH, Step.HOOK_GIVE),
        says(to_disarm[c], Step.HOOK_BOTH, Step.HOOK_DISARM),
        negate(failed[c]),
    )


def _recovery() -> dict[str, Candidate]:
    return {
        "nobody_lives_across_a_reset": ((c,), implies(one_of(mode, Mode.RESETTING, Mode.STOPPED), negate(there_is_c))),
        "only_dead_ends_are_drained": (
            (c,),
            implies(both(mode == Mode.DRAINING, there_is_c), kind[c] == Kind.DEAD_END),
        ),
        "the_supervisor_lives": ((), mode != Mode.DEAD),
        "only_auxiliaries_prepare": ((c,), implies(both(mode == Mode.STARTING, there_is_c), kind[c] == Kind.AUXILIARY)),
        "the_clock_is_of_the_start_up": ((), implies(ticking, one_of(mode, Mode.STARTING, Mode.STOPPED, Mode.DEAD))),
        "recovery_is_owed_until_the_reset": ((), implies(owed, until_the_reset)),
        "memory_is_torn_until_the_reset": ((), implies(torn, until_the_reset)),
    }


def _grandchild(profile: Profile) -> dict[str, Candidate]:
    return {
        "copy_of_is_part_of_a_copy": ((), implies(copy_slot == no_slot, negate(either(copy_gives, copy_disarms)))),
        "nobody_is_copied": ((), implies(copy_slot == no_slot, copy_of == nobody)),
        "a_copy_is_of_somebody_who_is_there": ((), either(copy_of == nobody, phase[copy_of] != Phase.NONE)),
        "a_copy_is_of_somebody_with_a_slot": ((), either(copy_of == nobody, slot_of[copy_of] != no_slot)),
        "the_copy_has_no_token": ((), copy_token == UNUSED),
        **(
            {"the_copy_gives_before_it_disarms": ((), implies(copy_disarms, copy_gives))}
            if profile.in_another_process is InAnotherProcess.GIVE_CHECKS_PID
            else {}
        ),
    }


def _no_grandchild() -> dict[str, Candidate]:
    gone = both(copy_slot == no_slot, copy_of == nobody, copy_token == UNUSED, negate(either(copy_gives, copy_disarms)))
    return {"there_is_no_grandchild": ((), gone)}


def _no_request() -> dict[str, Candidate]:
    gone = both(request == Request.NONE, aimed == nobody, negate(either(entry_gone, handle_astray, handle_gone)))
    return {"there_is_no_request": ((), gone)}


def _cancelling(profile: Profile) -> dict[str, Candidate]:
    with_handle = one_of(request, Request.OPENED, Request.CONFIRMED)
    return {
        "no_handle_astray_when_confirmed": ((), implies(request == Request.CONFIRMED, negate(handle_astray))),
        "a_handle_goes_astray_with_its_entry": ((), implies(handle_astray, entry_gone)),
        "no_entry_without_a_request": (
            (), implies(request == Request.NONE, negate(either(entry_gone, handle_astray, handle_gone)))
        ),
        "no_aim_without_a_request": ((), implies(request == Request.NONE, aimed == nobody)),
        "who_is_aimed_at_without_a_slot_is_another": (
            (), either(aimed == nobody, slot_of[aimed] != no_slot, entry_gone)
        ),
        "no_handle_yet": ((), either(with_handle, negate(either(handle_astray, handle_gone)))),
        **(
            {"no_handle_where_there_are_none": ((), negate(with_handle))}
            if profile.cancel is not Cancel.BY_HANDLE
            else {}
        ),
        "a_handle_is_on_somebody": (
            (), implies(both(with_handle, negate(handle_gone)), phase[aimed] != Phase.NONE)
        ),
    }  # fmt: skip


@cache
def _recorded() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads(files("armed_proofs").joinpath("invariants.toml").read_text())


def key(system: System) -> str:
    """Return the name under which the invariant of a system is recorded beside its profile's."""
    return system.environment + (", backends alone" if system.backends_alone else "")


def invariant(system: System) -> dict[str, Candidate]:
    """Return the invariant of a system: the candidates but for those recorded as not inductive there."""
    dropped = _recorded().get(system.profile.name, {}).get(key(system), [])
    return {name: each for name, each in candidates(system).items() if name not in dropped}
