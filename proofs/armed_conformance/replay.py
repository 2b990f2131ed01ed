"""A history as a file: what the harness ordered, to be done again, on the same implementation or on another.

    {"format": "armed history 1", "slots": 2,
     "orders": [["start"], ["step", 1, "serve"], ["step", 1, "arm"], ["end", 1, "RAW_EXIT_0"], ["supervise"]]}

An order is a method of `Lockstep`; then the number of a child, counted from 1 as they were started (an auxiliary one's,
among those that are there); then what of it:
the value of a `Step` or of a `Circumstance`, the name of an `ExitKind`. An orderly shutdown and the end of everything
follow the last order, if it is not ["stop"].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Final

from armed_conformance.histories import History, play
from armed_conformance.lockstep import CHILDREN, Coverage, DoesNotReturn, Lockstep, Mismatch, Order
from armed_conformance.protocol import Cannot, Circumstance, ExitKind, Implementation, NotHere, Step

FORMAT: Final = "armed history 1"


class BadHistory(ValueError):
    """The file holds no history that can be replayed; the message says where and why."""


def save(mismatch: Mismatch, file: str | PathLike[str]) -> None:
    """Write what was ordered before implementation and model disagreed. Raises OSError."""
    orders = ",\n  ".join(json.dumps(order) for order in mismatch.orders)
    text = f'{{"format": "{FORMAT}", "slots": {mismatch.slots}, "orders": [\n  {orders}\n]}}\n'
    Path(file).write_text(text, encoding="utf-8")


def shrink(make: Callable[[], Implementation], mismatch: Mismatch) -> Mismatch:
    """Leave out every child and order without which they still disagree, and return how they do then."""
    smallest = mismatch
    try:
        for child in sorted({*map(_child, mismatch.orders)} - {0}, reverse=True):
            smallest = _if_still(make, smallest, _without(child, smallest.orders))
        at = len(smallest.orders) - 1
        while at >= 0:
            smallest = _if_still(make, smallest, [*smallest.orders[:at], *smallest.orders[at + 1 :]])
            at = min(at, len(smallest.orders)) - 1
    except DoesNotReturn:
        pass  # each further try would take as long
    return smallest


def _if_still(make: Callable[[], Implementation], smallest: Mismatch, fewer: list[Order]) -> Mismatch:
    """Return how they disagree with fewer orders; if they do not, how they did. Raises DoesNotReturn.

    What is not here any more is not seen to disagree: the difference that was found is what counts.
    """
    try:
        play(History("shrunk", smallest.slots, partial(follow, orders=fewer)), make(), Coverage())
    except DoesNotReturn:
        raise
    except Mismatch as found:
        return found
    except NotHere:
        pass
    return smallest


def _child(order: Order) -> int:
    """Return the child that is ordered, 0 for none."""
    match order:
        case (_, int(number), _):
            return number
    return 0


def _without(child: int, orders: Sequence[Order]) -> list[Order]:
    """Return the orders without those of a child, and without the last start before them: most often its own."""
    of_it = [at for at, order in enumerate(orders) if _child(order) == child]
    starts = [at for at, order in enumerate(orders[: of_it[0]]) if order[0] == "start"]
    left: list[Order] = []
    for at, order in enumerate(orders):
        match order:
            case (name, int(number), what) if number > child:
                left.append((name, number - 1, what))
            case _ if at not in (*of_it, *starts[-1:]):
                left.append(order)
    return left


def load(file: str | PathLike[str]) -> History:
    """Read a history. Raises BadHistory, and OSError where the file cannot be read."""
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadHistory(f"{file} is no JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BadHistory(f'{file} is no history: it has no "format": "{FORMAT}"')
    slots, orders = data.get("slots"), data.get("orders")
    if not isinstance(slots, int) or not 1 <= slots <= CHILDREN:
        raise BadHistory(f"{file}: slots is {slots!r}, not a number from 1 to {CHILDREN}")
    if not isinstance(orders, list) or not orders:
        raise BadHistory(f"{file}: it has no orders")
    checked = [_check(f"{file}: order {number}", order) for number, order in enumerate(orders, 1)]
    return History(f"the history in {file}", slots, partial(follow, orders=checked))


_CHOICES: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "start": (),
    "supervise": (),
    "stop": (),
    "arrange": (tuple(each.value for each in Circumstance),),
    "step": ((), tuple(each.value for each in Step)),
    "end": ((), tuple(each.name for each in ExitKind)),
    "end_auxiliary": ((), tuple(each.name for each in ExitKind)),
}
"""Order -> what may follow in each place; an empty one stands for a child's number."""


def _check(where: str, order: Any) -> Order:
    if not isinstance(order, list) or not order or not isinstance(order[0], str) or order[0] not in _CHOICES:
        raise BadHistory(f"{where} is {json.dumps(order)}: it must begin with one of {', '.join(_CHOICES)}")
    choices = _CHOICES[order[0]]
    if len(order) != 1 + len(choices):
        raise BadHistory(f"{where} is {json.dumps(order)}: {order[0]} is followed by {len(choices)}")
    for given, possible in zip(order[1:], choices, strict=True):
        if possible and given not in possible:
            raise BadHistory(f"{where}: {json.dumps(given)} is none of {', '.join(possible)}")
        if not possible and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
            raise BadHistory(f"{where}: {json.dumps(given)} is no child's number: they count from 1")
    return tuple(order)


def follow(lockstep: Lockstep, orders: list[Order]) -> None:
    """Do what was ordered. What cannot be ordered is left out, and counted; so is what is of a child not there.

    On another implementation than the one that differed, or on one that was mended, a history may go another way.
    """
    seen = lockstep.coverage
    for order in orders:
        if lockstep.stopped:
            seen.not_done["the supervisor has stopped"] += 1
            continue
        try:
            obey(lockstep, order)
            seen.obeyed[order[0]] += 1
        except Cannot as reason:
            seen.not_done[str(reason)] += 1


def obey(lockstep: Lockstep, order: Order) -> None:
    """Do what is ordered. Raises Cannot, also of a child that is not there, and Mismatch where something differs."""
    match order:
        case ("start" | "supervise" | "stop" as name,):
            getattr(lockstep, name)()
        case ("arrange", str(circumstance)):
            lockstep.arrange(Circumstance(circumstance))
        case ("step", int(number), str(step)) if (child := lockstep.child(number)) is not None:
            lockstep.step(child, Step(step))
        case ("end_auxiliary", int(which), str(kind)):
            lockstep.end_auxiliary(which, ExitKind[kind])
        case ("end", int(number), str(kind)) if (child := lockstep.child(number)) is not None:
            lockstep.end(child, ExitKind[kind])
        case (_, number, _):
            raise Cannot(f"child {number} is not there")
