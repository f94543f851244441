"""What the races share: batches whose instances run, and how often PostgreSQL had to end a deadlock."""

from __future__ import annotations

from typing import Any

from django.db import connection

from scheduling.engine.broker import Claim
from scheduling.models import Batch, Instance, Node
from tests import factories
from tests.engine.support import claim, start


def batch_of(total: int, **content: Any) -> Batch:
    return factories.batch(factories.task(shards=[str(n) for n in range(total)], **content))


def running(batch: Batch, count: int | None = None) -> list[tuple[Claim, int]]:
    """(claim, execution) of instances that run now: `count` of them, or all."""
    node = Node.objects.filter(group=batch.group).first() or factories.node(group=batch.group)
    made = []
    for claimed in claim(node, batch.total if count is None else count):
        started = start(claimed)
        assert started is not None
        made.append((claimed, started.execution_id))
    return made


def instance_of(claimed: Claim) -> Instance:
    return Instance.objects.get(pk=claimed.instance)


def deadlocks() -> int:
    """How many deadlocks PostgreSQL has ended in this database so far."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])
