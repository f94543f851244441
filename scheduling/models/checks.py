"""CHECK constraints and triggers that several tables share, made from the tables in states.py."""

from __future__ import annotations

from collections.abc import Iterable

import pgtrigger
from django.db import models

from scheduling.states import Machine


def one_of(field: str, values: Iterable[str]) -> models.Q:
    """`field` is one of `values`, written as one constant.

    PostgreSQL reads every CHECK of a table anew for every statement that writes to it, and a list takes it
    longer the more elements it has.
    """
    elements = ",".join(value or '""' for value in sorted(values))
    constant = "%(expressions)s = ANY ('{" + elements + "}'::text[])"
    return models.Q(models.Func(models.F(field), template=constant, output_field=models.BooleanField()))


def legal_values(field: str, choices: type[models.TextChoices], *, name: str) -> models.CheckConstraint:
    """`field` holds one of `choices` and nothing else."""
    return models.CheckConstraint(condition=one_of(field, choices.values), name=name)


def ended_exactly_when_final(machine: Machine, *, name: str) -> models.CheckConstraint:
    """`state` is one of `machine`'s, and `ended_at` is set in the final ones and in no other."""
    return models.CheckConstraint(
        condition=(one_of("state", machine.unfinished) & models.Q(ended_at__isnull=True))
        | (one_of("state", machine.final) & models.Q(ended_at__isnull=False)),
        name=name,
    )


def final_once_ended(*, name: str) -> pgtrigger.Trigger:
    """Refuse, in the database, every change of a row that has `ended_at`."""
    return pgtrigger.Trigger(
        name=name,
        when=pgtrigger.Before,
        operation=pgtrigger.Update,
        condition=pgtrigger.Condition("OLD.ended_at IS NOT NULL AND OLD.* IS DISTINCT FROM NEW.*"),
        func=(
            "RAISE EXCEPTION 'Row % of table % has ended and cannot change. Rerun its instance instead.',"
            " OLD.id, TG_TABLE_NAME;"
        ),
    )


def only_allowed_moves(machine: Machine, *, name: str) -> pgtrigger.Trigger:
    """Refuse, in the database, every update of `state` that the table does not list.

    Like pgtrigger's FSM, but with the table in the trigger's condition: an allowed move then costs a
    comparison and no function call, on a path that every instance takes three times.
    """
    allowed = ",".join(f"{old}:{new}" for old, new in sorted(machine.moves))
    return pgtrigger.Trigger(
        name=name,
        when=pgtrigger.Before,
        operation=pgtrigger.Update,
        condition=pgtrigger.Condition(
            "OLD.state <> NEW.state AND (OLD.state || ':' || NEW.state) <> ALL ('{" + allowed + "}'::text[])"
        ),
        func=(
            'RAISE EXCEPTION \'Invalid transition of field "state" from "%" to "%" on table %\','
            " OLD.state, NEW.state, TG_TABLE_NAME;"
        ),
    )
