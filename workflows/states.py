"""The states of cycle instances, node runs and backfills, and every allowed transition.

As in scheduling, this table is the one source for the code, the database and docs/states.md. *Frozen* is no
state but a mark on top of one.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from scheduling.states import Machine


class CycleState(models.TextChoices):
    NOT_READY = "not_ready", _("Not ready")
    READY = "ready", _("Ready")
    RUNNING = "running", pgettext_lazy("cycle", "Running")
    SUCCESS = "success", _("Success")
    FAILED = "failed", pgettext_lazy("cycle", "Failed")
    TERMINATED = "terminated", pgettext_lazy("cycle", "Terminated")
    CANCELLED = "cancelled", pgettext_lazy("cycle", "Cancelled")


class NodeRunState(models.TextChoices):
    WAITING = "waiting", _("Waiting")
    RUNNING = "running", pgettext_lazy("cycle", "Running")
    SUCCESS = "success", _("Success")
    FAILED = "failed", pgettext_lazy("cycle", "Failed")
    TERMINATED = "terminated", pgettext_lazy("cycle", "Terminated")
    TIMED_OUT = "timed_out", _("Timed out")
    CANCELLED = "cancelled", pgettext_lazy("cycle", "Cancelled")
    CONDITION_NOT_MET = "condition_not_met", _("Condition not met")


class BackfillState(models.TextChoices):
    RUNNING = "running", pgettext_lazy("cycle", "Running")
    PAUSED = "paused", _("Paused")
    TERMINATING = "terminating", _("Terminating")
    SUCCESS = "success", _("Success")
    FAILED = "failed", pgettext_lazy("cycle", "Failed")
    TERMINATED = "terminated", pgettext_lazy("cycle", "Terminated")


_C, _N, _F = CycleState, NodeRunState, BackfillState

CYCLE = Machine(
    "CycleInstance",
    CycleState,
    initial=_C.NOT_READY,
    final=frozenset({_C.SUCCESS, _C.FAILED, _C.TERMINATED, _C.CANCELLED}),
    moves={
        (_C.NOT_READY, _C.READY): "its time has come and every upstream cycle succeeded",
        (_C.NOT_READY, _C.CANCELLED): "its schedule, backfill or misfire policy drops it",
        (_C.NOT_READY, _C.TERMINATED): "a stop is asked",
        (_C.READY, _C.RUNNING): "the workflow's parallelism lets it begin",
        (_C.READY, _C.CANCELLED): "its backfill is terminated",
        (_C.READY, _C.TERMINATED): "a stop is asked",
        (_C.RUNNING, _C.SUCCESS): "all nodes ended, no core node failed",
        (_C.RUNNING, _C.FAILED): "all nodes ended, a core node failed",
        (_C.RUNNING, _C.TERMINATED): "a stop was asked and all nodes ended",
        (_C.FAILED, _C.SUCCESS): "marked by an operator",
        (_C.TERMINATED, _C.SUCCESS): "marked by an operator",
    },
)

NODE_RUN = Machine(
    "NodeRun",
    NodeRunState,
    initial=_N.WAITING,
    final=frozenset(set(_N) - {_N.WAITING, _N.RUNNING}),
    moves={
        (_N.WAITING, _N.RUNNING): "its join is satisfied; its batch begins",
        (_N.WAITING, _N.CONDITION_NOT_MET): "its branch was not taken",
        (_N.WAITING, _N.CANCELLED): "its cycle instance is stopped before it began",
        (_N.RUNNING, _N.SUCCESS): "its batch succeeded",
        (_N.RUNNING, _N.FAILED): "its batch failed",
        (_N.RUNNING, _N.TERMINATED): "its batch was stopped",
        (_N.RUNNING, _N.TIMED_OUT): "its batch, or the node itself, ran out of time",
    },
)

BACKFILL = Machine(
    "Backfill",
    BackfillState,
    initial=_F.RUNNING,
    final=frozenset({_F.SUCCESS, _F.FAILED, _F.TERMINATED}),
    moves={
        (_F.RUNNING, _F.PAUSED): "paused by an operator, or after a failure if so asked",
        (_F.PAUSED, _F.RUNNING): "resumed",
        (_F.RUNNING, _F.TERMINATING): "terminate is asked",
        (_F.PAUSED, _F.TERMINATING): "terminate is asked",
        (_F.TERMINATING, _F.TERMINATED): "nothing of it runs any more",
        (_F.RUNNING, _F.SUCCESS): "every cycle succeeded",
        (_F.RUNNING, _F.FAILED): "every cycle ended, some not as a success",
        (_F.PAUSED, _F.SUCCESS): "every cycle succeeded",
        (_F.PAUSED, _F.FAILED): "every cycle ended, some not as a success",
    },
)
