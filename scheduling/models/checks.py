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


def only_allowed_moves(machine: Machine, *, name: str) -> pgtrigger.Trigger:
    """Refuse, in the database, every update of `state` that the table does not list.

    Like pgtrigger's FSM, but with the table in the trigger's condition: an allowed move then costs a
    comparison and no function call, on a path that every instance takes three times.
    """
    allowed = ", ".join(f"'{old}:{new}'" for old, new in sorted(machine.moves))
    return pgtrigger.Trigger(
        name=name,
        when=pgtrigger.Before,
        operation=pgtrigger.Update,
        condition=pgtrigger.Condition(
            "OLD.state <> NEW.state AND (OLD.state || ':' || NEW.state) NOT IN (" + allowed + ")"
        ),
        func=(
            'RAISE EXCEPTION \'Invalid transition of field "state" from "%" to "%" on table %\','
            " OLD.state, NEW.state, TG_TABLE_NAME;"
        ),
    )
