"""The states of batches and instances, which of them are final, and every allowed transition.

This table is the one source for the code (transitions/ compares and sets against it), the database
triggers and CHECK constraints (models/), the buttons (what may be stopped or rerun) and docs/states.md.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class BatchState(models.TextChoices):
    WAITING = "waiting", _("Waiting")
    RUNNING = "running", _("Running")
    SUCCESS = "success", _("Success")
    FAILED = "failed", _("Failed")
    TERMINATING = "terminating", _("Terminating")
    CONDITION_NOT_MET = "condition_not_met", _("Condition not met")


class ListedState(models.TextChoices):
    """The state by which batches are listed and counted: stopped and replaced ones apart from failed ones."""

    WAITING = "waiting", _("Waiting")
    RUNNING = "running", _("Running")
    SUCCESS = "success", _("Success")
    FAILED = "failed", _("Failed")
    STOPPED = "terminated", _("Failed (stopped)")
    TERMINATING = "terminating", _("Terminating")
    CONDITION_NOT_MET = "condition_not_met", _("Condition not met")


class InstanceState(models.TextChoices):
    WAITING = "waiting", _("Waiting")
    RUNNING = "running", _("Running")
    SUCCESS = "success", _("Success")
    FAILED = "failed", _("Failed")
    TERMINATING = "terminating", _("Terminating")
    TERMINATED = "terminated", _("Terminated")
    TIMED_OUT = "timed_out", _("Timed out")


class Outcome(models.TextChoices):
    """How one execution ended. `lost`: its worker or node went away before it could say."""

    SUCCESS = "success", _("Success")
    FAILED = "failed", _("Failed")
    TERMINATED = "terminated", _("Terminated")
    TIMED_OUT = "timed_out", _("Timed out")
    LOST = "lost", _("Lost")


class NodeState(models.TextChoices):
    ONLINE = "online", _("Online")
    DRAINING = "draining", _("Draining")
    OFFLINE = "offline", _("Offline")


class Machine:
    """One state machine: its name, its states, which are final, and the allowed moves."""

    all: ClassVar[list[Machine]] = []

    def __init__(
        self,
        name: str,
        states: type[models.TextChoices],
        *,
        initial: str,
        final: frozenset[str],
        moves: dict[tuple[str, str], str],
    ) -> None:
        self.name = name
        self.states = states
        self.initial = str(initial)
        self.final = frozenset(str(state) for state in final)
        self.moves = {(str(old), str(new)): why for (old, new), why in moves.items()}
        self.unfinished = frozenset(states.values) - self.final
        Machine.all.append(self)

    def sources(self, target: str) -> frozenset[str]:
        """The states from which `target` can be reached in one move."""
        return frozenset(old for old, new in self.moves if new == target)

    def allows(self, old: str, new: str) -> bool:
        return (old, new) in self.moves


_B, _I = BatchState, InstanceState

# Ended, and not as a success: these are rerun together.
UNSUCCESSFUL = frozenset({_I.FAILED, _I.TIMED_OUT, _I.TERMINATED})

BATCH = Machine(
    "Batch",
    BatchState,
    initial=_B.WAITING,
    final=frozenset({_B.SUCCESS, _B.FAILED, _B.CONDITION_NOT_MET}),
    moves={
        (_B.WAITING, _B.RUNNING): "one of its instances starts",
        (_B.WAITING, _B.TERMINATING): "a stop is asked, or no node is left to start it",
        (_B.WAITING, _B.CONDITION_NOT_MET): "the branch of the workflow was not taken",
        (_B.RUNNING, _B.SUCCESS): "all instances ended, success ratio reached",
        (_B.RUNNING, _B.FAILED): "all instances ended, success ratio missed",
        (_B.RUNNING, _B.TERMINATING): "a stop is asked, or all that is unfinished is being stopped",
        (_B.RUNNING, _B.WAITING): "all its instances wait, the last to run for its retry",
        (_B.TERMINATING, _B.SUCCESS): "all instances ended, success ratio reached",
        (_B.TERMINATING, _B.FAILED): "all instances ended, success ratio missed",
        (_B.SUCCESS, _B.RUNNING): "some of its instances are rerun",
        (_B.FAILED, _B.RUNNING): "some of its instances are rerun",
        (_B.SUCCESS, _B.WAITING): "all of its instances are rerun",
        (_B.FAILED, _B.WAITING): "all of its instances are rerun",
        (_B.SUCCESS, _B.FAILED): "judged anew with another success ratio, or marked by an operator",
        (_B.FAILED, _B.SUCCESS): "judged anew with another success ratio, or marked by an operator",
    },
)

INSTANCE = Machine(
    "Instance",
    InstanceState,
    initial=_I.WAITING,
    final=frozenset({_I.SUCCESS, _I.FAILED, _I.TERMINATED, _I.TIMED_OUT}),
    moves={
        (_I.WAITING, _I.RUNNING): "a worker starts it",
        (
            _I.WAITING,
            _I.TERMINATED,
        ): "stopped, refused by the database, or its node went away, before it started",
        (_I.RUNNING, _I.SUCCESS): "the job succeeded",
        (_I.RUNNING, _I.FAILED): "the job failed, or its worker or node was lost",
        (_I.RUNNING, _I.TIMED_OUT): "the time-out passed and the job was ended",
        (_I.RUNNING, _I.TERMINATING): "a stop is asked",
        (_I.TERMINATING, _I.TERMINATED): "the node confirmed that the job is dead",
        (_I.TERMINATING, _I.SUCCESS): "the job succeeded before the stop reached it",
        (_I.TERMINATING, _I.FAILED): "the job failed before the stop reached it",
        (_I.TERMINATING, _I.TIMED_OUT): "the time-out passed before the stop was confirmed",
        (_I.SUCCESS, _I.WAITING): "rerun",
        (_I.FAILED, _I.WAITING): "retry or rerun",
        (_I.TERMINATED, _I.WAITING): "rerun",
        (_I.TIMED_OUT, _I.WAITING): "retry or rerun",
    },
)
