"""The states of reruns and of their items, and every allowed transition.

As in scheduling, this table is the one source for the code, the database, the buttons and docs/states.md.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from scheduling.states import Machine


class RerunState(models.TextChoices):
    DRAFT = "draft", _("Draft")
    RUNNING = "running", pgettext_lazy("cycle", "Running")
    PAUSED = "paused", _("Paused")
    TERMINATING = "terminating", _("Terminating")
    SUCCESS = "success", _("Success")
    FAILED = "failed", pgettext_lazy("cycle", "Failed")
    TERMINATED = "terminated", pgettext_lazy("cycle", "Terminated")


class ItemState(models.TextChoices):
    PLANNED = "planned", _("Planned")
    WAITING = "waiting", _("Waiting to rerun")
    RUNNING = "running", pgettext_lazy("cycle", "Running")
    SUCCESS = "success", _("Success")
    FAILED = "failed", pgettext_lazy("cycle", "Failed")
    TERMINATED = "terminated", pgettext_lazy("cycle", "Terminated")
    CANCELLED = "cancelled", pgettext_lazy("cycle", "Cancelled")
    FROZEN = "frozen", _("Waiting to unfreeze")
    UNFROZEN = "unfrozen", _("Unfrozen")


_R, _I = RerunState, ItemState

RERUN = Machine(
    "Rerun",
    RerunState,
    initial=_R.DRAFT,
    # A rerun that failed holds what it froze and waits for somebody: it has not ended.
    final=frozenset({_R.SUCCESS, _R.TERMINATED}),
    moves={
        (_R.DRAFT, _R.RUNNING): "submitted",
        (_R.RUNNING, _R.PAUSED): "paused by an operator",
        (_R.PAUSED, _R.RUNNING): "resumed",
        (_R.RUNNING, _R.SUCCESS): "everything that it reruns succeeded",
        (_R.RUNNING, _R.FAILED): "nothing more can run, and something did not succeed",
        (_R.FAILED, _R.RUNNING): "resumed, or what had failed was marked as a success",
        (_R.RUNNING, _R.TERMINATING): "terminate is asked",
        (_R.PAUSED, _R.TERMINATING): "terminate is asked",
        (_R.FAILED, _R.TERMINATING): "terminate is asked",
        (_R.TERMINATING, _R.TERMINATED): "nothing of it runs any more, and nothing is frozen",
    },
)

ITEM = Machine(
    "RerunItem",
    ItemState,
    initial=_I.PLANNED,
    final=frozenset({_I.SUCCESS, _I.FAILED, _I.TERMINATED, _I.CANCELLED, _I.UNFROZEN}),
    moves={
        (_I.PLANNED, _I.WAITING): "submitted, to be rerun",
        (_I.PLANNED, _I.FROZEN): "submitted, to be frozen",
        (_I.WAITING, _I.RUNNING): "all chosen upstream items succeeded; its rerun instance is generated",
        (_I.WAITING, _I.FAILED): "its rerun instance cannot be generated",
        (_I.WAITING, _I.CANCELLED): "taken out, or the rerun is terminated",
        (_I.RUNNING, _I.SUCCESS): "its rerun instance succeeded",
        (_I.RUNNING, _I.FAILED): "its rerun instance failed",
        (_I.RUNNING, _I.TERMINATED): "its rerun instance was terminated",
        (_I.FAILED, _I.WAITING): "the rerun is resumed",
        (_I.TERMINATED, _I.WAITING): "the rerun is resumed",
        (_I.FAILED, _I.RUNNING): "somebody reruns the cycle by hand",
        (_I.TERMINATED, _I.RUNNING): "somebody reruns the cycle by hand",
        (_I.FAILED, _I.SUCCESS): "marked as a success",
        (_I.TERMINATED, _I.SUCCESS): "marked as a success",
        (_I.FROZEN, _I.UNFROZEN): "the rerun succeeded or is terminated, it was taken out, or it was dropped",
    },
)
