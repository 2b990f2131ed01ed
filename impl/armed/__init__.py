"""A supervisor of worker processes with a dead man switch, as PostgreSQL has for its children. Standard library only.

A child that leaves, however quietly, while it is engaged in shared memory is taken for crashed, whatever its exit
status says: the others are stopped, and a new generation begins with new shared memory.
"""

from armed.engagement import Engager
from armed.errors import (
    AlreadyArmed,
    ArmedError,
    Closed,
    CrashWhileClosing,
    ForeignProcess,
    InUse,
    LostAtEnd,
    NotArmed,
    NotRunning,
    RecoveryLimit,
    SlotsExhausted,
    StartupFailed,
    StillArmed,
    Unsupported,
    WrongThread,
)
from armed.exits import exit_status
from armed.recovery import Mode
from armed.registry import Registry, cancel
from armed.slots import SlotState, SlotTable
from armed.supervisor import Child, Decision, Event, EventKind, Kind, Outcome, Supervisor, decide

__all__ = [
    "AlreadyArmed",
    "ArmedError",
    "Child",
    "Closed",
    "CrashWhileClosing",
    "Decision",
    "Engager",
    "Event",
    "EventKind",
    "ForeignProcess",
    "InUse",
    "Kind",
    "LostAtEnd",
    "Mode",
    "NotArmed",
    "NotRunning",
    "Outcome",
    "RecoveryLimit",
    "Registry",
    "SlotState",
    "SlotTable",
    "SlotsExhausted",
    "StartupFailed",
    "StillArmed",
    "Supervisor",
    "Unsupported",
    "WrongThread",
    "cancel",
    "decide",
    "exit_status",
]
