"""CHECK constraints and triggers that several tables share, made from the tables in states.py."""

from __future__ import annotations

import pgtrigger
from django.db import models

from scheduling.states import Machine


def legal_values(field: str, choices: type[models.TextChoices], *, name: str) -> models.CheckConstraint:
    """`field` holds one of `choices` and nothing else."""
    return models.CheckConstraint(condition=models.Q(**{f"{field}__in": choices.values}), name=name)


def ended_exactly_when_final(machine: Machine, *, name: str) -> models.CheckConstraint:
    """`ended_at` is set in the final states of `machine` and in no other."""
    final = models.Q(state__in=sorted(machine.final))
    return models.CheckConstraint(
        condition=(final & models.Q(ended_at__isnull=False)) | (~final & models.Q(ended_at__isnull=True)),
        name=name,
    )


def only_allowed_moves(machine: Machine, *, name: str) -> pgtrigger.FSM:
    """Refuse, in the database, every update of `state` that the table does not list."""
    return pgtrigger.FSM(
        name=name,
        field="state",
        transitions=sorted(machine.moves),
        # Most updates leave the state alone; the condition spares them the function call.
        condition=pgtrigger.Q(old__state__df=pgtrigger.F("new__state")),
    )
