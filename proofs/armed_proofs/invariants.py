"""The inductive invariant of profile `reference`, conjunct by conjunct, each with a name that messages print.

Unlike a property's, an invariant's parameters range over slot 0 and nobody too: so it may be instantiated at any term.
Together the conjuncts hold at first and are preserved by every action; `obligations.py` has each of that checked.
"""

from __future__ import annotations

from armed_model.system import (
    ACTIVE,
    CHILD,
    OTHER,
    RESERVED,
    SLOT,
    UNUSED,
    Mode,
    Phase,
    Shutdown,
    armed,
    clean,
    engaged,
    failed,
    flag,
    holds,
    in_use,
    launching,
    mode,
    no_slot,
    nobody,
    orderly,
    owed,
    owner,
    phase,
    shutdown,
    slot_of,
    token,
    used,
)
from armed_model.terms import Parameter, Term, both, choose, either, implies, negate, one_of

c = Parameter("inv_child", CHILD)
s = Parameter("inv_slot", SLOT)
w_reserved = both(*[used[word] for word in RESERVED])

there_is_c = phase[c] != Phase.NONE

INVARIANTS: dict[str, tuple[tuple[Parameter, ...], Term]] = {
    # Nobody and slot 0 are blank for ever.
    "nobody_is_nobody": ((), phase[nobody] == Phase.NONE),
    "slot_zero_is_never_given_out": ((), negate(in_use[no_slot])),
    # Who has which slot.
    "child_has_a_slot": (
        (c,),
        implies(there_is_c, both(slot_of[c] != no_slot, in_use[slot_of[c]], owner[slot_of[c]] == c)),
    ),
    "owner_has_the_slot": (
        (s,),
        implies(owner[s] != nobody, both(slot_of[owner[s]] == s, phase[owner[s]] != Phase.NONE)),
    ),
    "slot_in_use_has_an_owner": ((s,), implies(both(in_use[s], launching != s), owner[s] != nobody)),
    "free_slot_is_blank": (
        (s,),
        implies(negate(in_use[s]), both(owner[s] == nobody, flag[s] == UNUSED, clean[s] == UNUSED)),
    ),
    "launched_slot_is_assigned": (
        (),
        implies(
            launching != no_slot,
            both(in_use[launching], owner[launching] == nobody, flag[launching] == clean[launching]),
        ),
    ),
    "launching_is_part_of_service": (
        (),
        implies(launching != no_slot, both(mode == Mode.RUNNING, shutdown == Shutdown.NONE)),
    ),
    # Words.
    "reserved_words_are_used": ((), w_reserved),
    "clean_words_are_used": ((s,), used[clean[s]]),
    "clean_word_is_not_reserved": ((s,), implies(in_use[s], negate(one_of(clean[s], UNUSED, ACTIVE, OTHER)))),
    "child_knows_its_clean_word": ((c,), implies(there_is_c, token[c] == clean[slot_of[c]])),
    # The switch.
    "flag_tells_whether_armed": (
        (c,),
        implies(there_is_c, flag[slot_of[c]] == choose(armed[c], ACTIVE, clean[slot_of[c]])),
    ),
    "armed_while_engaged": ((c,), armed[c] == engaged[c]),
    "holds_only_while_engaged": ((c,), implies(holds[c], engaged[c])),
    "fails_only_while_engaged": ((c,), implies(failed[c], engaged[c])),
    "nothing_before_the_exit_path": ((c,), implies(one_of(phase[c], Phase.NONE, Phase.STARTING), negate(engaged[c]))),
    "orderly_exit_disarms_unless_spoilt": (
        (c,),
        implies(orderly[c], both(phase[c] == Phase.EXITED, either(negate(engaged[c]), failed[c]))),
    ),
    # Recovery.
    "nobody_lives_across_a_reset": (
        (c,),
        implies(one_of(mode, Mode.RESETTING, Mode.STARTING, Mode.STOPPED), phase[c] == Phase.NONE),
    ),
    "recovery_is_owed_until_the_reset": (
        (),
        implies(
            owed,
            either(one_of(mode, Mode.STOPPING, Mode.RESETTING, Mode.STOPPED), shutdown == Shutdown.IMMEDIATE),
        ),
    ),
}
