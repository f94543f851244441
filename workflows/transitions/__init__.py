"""The only writer of the states of cycle instances, node runs and backfills: one function a verb.

Rows are locked in one order everywhere – batch, running or ended cycle instance, workflows by id, waiting cycle
instances, cycles – so that no two verbs can deadlock. What makes instances ready, begins them, or changes which
one is effective holds the lock of their workflow, so the ends of two upstream cycles cannot both overlook that
the other was the last. What is locked is read without joins: a row that was edited while its lock was waited
for is joined to what it pointed to before, or to nothing.

The end of a batch, of its node, of the cycle instance, the readiness of what waits for that and the start of
what may now run are one transaction.
"""

from workflows.transitions.effective import set_effective
from workflows.transitions.holding import (
    freeze_for,
    hold_cycles,
    look_again,
    release_cycles,
    restore_earlier,
    thaw_of,
)
from workflows.transitions.instances import (
    cancel,
    freeze,
    mark_success,
    stop,
    time_out,
    unfreeze,
)
from workflows.transitions.lifecycle import batch_ended, begin_ready, gone, make_ready, stop_batches
from workflows.transitions.nodes import prepare

__all__ = [
    "batch_ended",
    "begin_ready",
    "cancel",
    "freeze",
    "freeze_for",
    "gone",
    "hold_cycles",
    "look_again",
    "make_ready",
    "mark_success",
    "prepare",
    "release_cycles",
    "restore_earlier",
    "set_effective",
    "stop",
    "stop_batches",
    "thaw_of",
    "time_out",
    "unfreeze",
]
