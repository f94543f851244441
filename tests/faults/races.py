"""What the races share: batches whose instances run."""

from __future__ import annotations

from typing import Any

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
