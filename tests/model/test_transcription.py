"""The supervisor and its children once more, written by hand in plain Python, and held to the compiled model.

This is an anchor: it reads no action, no guard and no effect of the specification. The world is a dict; a slot that is
not in use, and a child that is not there, is None. Each state's steps are compared in full: which are possible, with
which arguments, and everything that is so afterwards.
"""

import copy
import random

import pytest

from armed_model.interpret import INDEX

UNUSED, ACTIVE = 0, 1
RESERVED_WORDS = 3
PHASES = ["none", "starting", "serving", "leaving", "exited"]
MODES = ["running", "stopping", "resetting", "starting", "stopped"]
SHUTDOWNS = ["none", "orderly", "immediate"]


# --- The supervisor --------------------------------------------------------------------------------------------------


def release(world, slot):
    """Make the slot free again; true iff its flag held exactly its clean word."""
    was = world["slots"][slot]
    world["slots"][slot] = None
    return was["flag"] == was["clean"]


def reap(world, child):
    """What the supervisor does about a dead child; returns the name of what it was."""
    dead = world["children"][child]
    world["children"][child] = None
    if dead["armed"]:
        world["owed"] = True
    if dead["holds"]:
        world["torn"] = True
    was_clean = release(world, dead["slot"])
    if world["mode"] != "running" or world["shutdown"] == "immediate":
        return "reap_book_keeping"
    if dead["status"] not in (0, 1) or not was_clean:
        world["mode"] = "stopping"
        return "reap_crash"
    return "reap_clean"


def steps_of_the_supervisor(world, words):
    slots, children = world["slots"], world["children"]
    if world["launching"]:
        slot = world["launching"]
        for child, there in children.items():
            if there is None:
                after = copy.deepcopy(world)
                after["children"][child] = {
                    "phase": "starting",
                    "slot": slot,
                    "token": slots[slot]["clean"],
                    "engaged": False,
                    "holds": False,
                    "failed": False,
                    "status": 0,
                    "armed": False,
                    "orderly": False,
                }
                after["slots"][slot]["owner"] = child
                after["launching"] = 0
                yield "fork", (child,), after
        after = copy.deepcopy(world)
        release(after, slot)
        after["launching"] = 0
        yield "fork_fails", (), after
    else:
        if world["mode"] == "running" and world["shutdown"] == "none":
            standing = {word for slot in slots.values() if slot for word in (slot["flag"], slot["clean"])}
            for slot, there in slots.items():
                for word in range(RESERVED_WORDS, words):
                    if there is None and word not in standing:
                        after = copy.deepcopy(world)
                        after["slots"][slot] = {"flag": word, "clean": word, "owner": 0}
                        after["launching"] = slot
                        yield "assign", (slot, word), after
        for child, there in children.items():
            if there and there["phase"] == "exited":
                after = copy.deepcopy(world)
                yield reap(after, child), (child,), after
        if world["mode"] != "stopped":
            for wanted in SHUTDOWNS[1:]:
                if SHUTDOWNS.index(world["shutdown"]) < SHUTDOWNS.index(wanted):
                    yield f"ask_{wanted}", (), {**world, "shutdown": wanted}
    if world["mode"] == "stopping" or world["shutdown"] == "immediate":
        for child, there in children.items():
            if there and there["phase"] != "exited":
                after = copy.deepcopy(world)
                after["children"][child] |= {"phase": "exited", "status": -9}
                yield "kill", (child,), after
    alone = not any(children.values())
    if world["mode"] == "stopping" and alone:
        yield "all_gone", (), {**world, "mode": "resetting"}
    if world["mode"] == "resetting" and world["shutdown"] == "none":
        new_memory = {"slots": dict.fromkeys(slots), "owed": False, "torn": False, "mode": "starting"}
        yield "reset", (), {**world, **new_memory}
    if world["mode"] == "starting":
        yield "started", (), {**world, "mode": "running"}
        yield "startup_fails", (), {**world, "mode": "stopped"}
    if world["mode"] != "stopped" and world["shutdown"] != "none" and alone:
        yield "stop", (), {**world, "mode": "stopped"}


# --- A child ---------------------------------------------------------------------------------------------------------


def steps_of_a_child(me, flag):
    """What a child may do: the step, its status if it has one, its row after the step, and its flag."""
    if me["phase"] in ("none", "exited"):
        return
    for status in (0, 1, 2):
        yield "leave", (status,), me | {"phase": "leaving", "status": status}, flag
        yield "raw_exit", (status,), me | {"phase": "exited", "status": status}, flag
    if me["phase"] == "starting":
        yield "hook", (), me | {"phase": "serving"}, flag
        return
    if me["phase"] == "serving":
        if not me["engaged"]:
            yield "arm", (), me | {"engaged": True, "armed": True}, ACTIVE
        else:
            yield "take", (), me | {"holds": True}, flag
            yield "take_fails", (), me | {"failed": True}, flag
            yield "take_fails_late", (), me | {"holds": True, "failed": True}, flag
    if me["holds"]:
        yield "give", (), me | {"holds": False}, flag
        yield "give_fails", (), me | {"failed": True}, flag
        yield "give_fails_late", (), me | {"holds": False, "failed": True}, flag
    elif me["engaged"] and not me["failed"]:
        yield "disarm", (), me | {"engaged": False, "armed": False}, me["token"]
    if me["phase"] == "leaving" and (me["failed"] or not me["engaged"]):
        yield "orderly_exit", (), me | {"phase": "exited", "orderly": True}, flag


def steps(world, words):
    """Everything that may happen: (action, arguments) -> the world after it."""
    possible = {(name, arguments): after for name, arguments, after in steps_of_the_supervisor(world, words)}
    for number, me in world["children"].items():
        if me:
            flag = world["slots"][me["slot"]]["flag"]
            for name, rest, new, new_flag in steps_of_a_child(me, flag):
                after = copy.deepcopy(world)
                after["children"][number] = new
                after["slots"][me["slot"]]["flag"] = new_flag
                possible[name, (number, *rest)] = after
    return possible


# --- Comparison ------------------------------------------------------------------------------------------------------


def world_of(state):
    """The same world, read from a state of the model."""
    value = {name: state[at] for name, at in INDEX.items()}
    slots = {
        slot: {name: value[name][slot] for name in ("flag", "clean", "owner")} if value["in_use"][slot] else None
        for slot in range(1, len(value["flag"]))
    }
    children = {
        child: {
            "phase": PHASES[value["phase"][child]],
            "slot": value["slot_of"][child],
            **{
                name: value[name][child]
                for name in ("token", "engaged", "holds", "failed", "status", "armed", "orderly")
            },
        }
        if value["phase"][child]
        else None
        for child in range(1, len(value["phase"]))
    }
    return {
        "mode": MODES[value["mode"]],
        "shutdown": SHUTDOWNS[value["shutdown"]],
        "launching": value["launching"],
        "owed": value["owed"],
        "torn": value["torn"],
        "slots": slots,
        "children": children,
    }


def compare(instance, state):
    """Compare all steps of one state, and return those of the model."""
    theirs = {(name, arguments): after for name, arguments, after in instance.steps(state)}
    ours = steps(world_of(state), instance.size.count(_word_sort(instance)))
    assert set(ours) == set(theirs), state
    for step, after in theirs.items():
        assert world_of(after) == ours[step], (step, state)
    return theirs


def _word_sort(instance):
    return next(variable.sort for variable in instance.system.variables if variable.name == "flag")


def test_the_first_world_is_empty(instance):
    assert world_of(instance(2, 2).initial) == {
        "mode": "running",
        "shutdown": "none",
        "launching": 0,
        "owed": False,
        "torn": False,
        "slots": {1: None, 2: None},
        "children": {1: None, 2: None},
    }


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1)], ids=str)
def test_transcription_and_model_agree_in_every_reachable_state(reachable, instance, size):
    for state in reachable(*size):
        compare(instance(*size), state)


RARE = {"ask_orderly", "ask_immediate", "startup_fails", "stop"}
"""What ends a walk, or soon will: taken now and then, else no walk gets anywhere."""


def test_transcription_and_model_agree_on_random_walks_of_two_children_in_two_slots(instance):
    chance = random.Random(2009)
    two = instance(2, 2)
    taken, fullest = [], 0
    while len(taken) < 2_500:
        state = two.initial
        for _ in range(80):
            possible = compare(two, state)
            if not possible:
                break
            names = sorted({name for name, _ in possible})
            weights = [0.02 if name in RARE else 1 for name in names]
            name = chance.choices(names, weights)[0]
            step = chance.choice(sorted(each for each in possible if each[0] == name))
            state = possible[step]
            taken.append(name)
            fullest = max(fullest, sum(child is not None for child in world_of(state)["children"].values()))
    assert set(taken) == set(two.actions)
    assert fullest == 2
