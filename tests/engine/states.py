"""Batches and instances in any state, and what a verb changed of them or left alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from scheduling import transitions
from scheduling.errors import TransitionRefused
from scheduling.models import Batch, Instance, JournalEntry
from scheduling.states import BatchState, InstanceState
from tests import factories
from tests.engine.support import row


def instance_in(state: str, *, others: int = 0, **content: Any) -> Instance:
    """An instance that came to `state` by the verbs; `others` of its batch wait."""
    batch = factories.batch(factories.task(shards=[str(n) for n in range(others + 1)], **content))
    instance = batch.instances.select_related("group", "node").first()
    assert instance is not None
    match state:
        case "waiting":
            pass
        case "running":
            factories.start(instance)
        case "terminating":
            factories.start(instance)
            transitions.stop_instance(instance.pk, by="tests", reason="")
        case "terminated":
            transitions.stop_instance(instance.pk, by="tests", reason="")
        case ended:
            factories.start(instance)
            factories.end(instance, ended, may_retry=False)
    instance.refresh_from_db()
    assert instance.state == state
    return instance


def batch_in(state: str) -> Batch:
    """A batch of two instances that came to `state` by the verbs; one that was passed over has none."""
    if state == "condition_not_met":
        return factories.passed_over_batch()
    batch = factories.batch(factories.task(shards=["a", "b"]))
    match state:
        case "waiting":
            pass
        case "running":
            factories.start_batch(batch)
        case "terminating":
            factories.start_batch(batch)
            transitions.stop_batch(batch.pk, by="tests", reason="")
        case judged:
            factories.end_batch(batch, judged)
    batch.refresh_from_db()
    assert batch.state == state
    return batch


class InEveryState:
    """A batch of two instances in each state, and an instance, beside one that waits, in each of its states.

    Making them is most of what a test of one move takes, so a module makes them once (`in_every_state`).
    """

    def __init__(self) -> None:
        self._batches = {state: batch_in(state).pk for state in BatchState.values}
        self._instances = {state: instance_in(state, others=1).pk for state in InstanceState.values}

    def batch(self, state: str) -> Batch:
        return Batch.objects.get(pk=self._batches[state])

    def instance(self, state: str) -> Instance:
        return Instance.objects.select_related("batch", "group").get(pk=self._instances[state])


def changed(before: dict[str, Any], thing: Any) -> set[str]:
    return {name for name, value in row(thing).items() if value != before[name]}


def refused_without_a_trace(batch: Batch, verb: Callable[[], Any], says: str) -> None:
    before = row(batch), list(batch.instances.values()), JournalEntry.objects.count()
    with pytest.raises(TransitionRefused, match=says):
        verb()
    assert (row(batch), list(batch.instances.values()), JournalEntry.objects.count()) == before


def pairs(states: Any) -> list[tuple[str, str]]:
    """Every two different states, in both directions."""
    return [(old, new) for old, new in itertools.product(states.values, repeat=2) if old != new]


def sql(statement: str, *parameters: Any) -> None:
    """Execute a statement that the database may refuse."""
    with transaction.atomic(), connection.cursor() as cursor:
        # Deferred constraints speak up now, and the trigger for moves is not what is asked here.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(statement, parameters)


def duplicate(table: str, pk: int, **changes: Any) -> None:
    """Insert a copy of a row with a new id and `changes`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
            " AND column_name <> 'id' AND is_generated = 'NEVER'",
            [table],
        )
        columns = [name for (name,) in cursor.fetchall()]
    values = ", ".join("%s" if name in changes else f'"{name}"' for name in columns)
    names = ", ".join(f'"{name}"' for name in columns)
    sql(
        f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} WHERE id = %s",
        *(changes[name] for name in columns if name in changes),
        pk,
    )
