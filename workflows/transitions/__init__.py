"""The only writer of the states of cycle instances, node runs and backfills: one function a verb.

Rows are locked in one order everywhere – batch, running or ended cycle instance, workflows by id, waiting cycle
instances – so that no two verbs can deadlock. What makes instances ready or begins them holds the lock of
their workflow, so the ends of two upstream cycles cannot both overlook that the other was the last.

The end of a batch, of its node, of the cycle instance, the readiness of what waits for that and the start of
what may now run are one transaction.
"""

from workflows.transitions.instances import (
    cancel,
    freeze,
    mark_success,
    set_effective,
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
    "gone",
    "make_ready",
    "mark_success",
    "prepare",
    "set_effective",
    "stop",
    "stop_batches",
    "time_out",
    "unfreeze",
]
