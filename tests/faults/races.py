"""What the races share: what runs and what waits, acts at once, and deadlocks that PostgreSQL ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection

from reruns.errors import RerunRefused
from scheduling.engine.broker import Claim
from scheduling.errors import TransitionRefused
from scheduling.models import Batch, Instance, Node
from tests import factories as make
from tests.engine.cycle_support import Picture
from tests.engine.rerun_world import NOON
from tests.engine.support import Elsewhere, claim, start
from workflows.errors import CycleRefused
from workflows.models import CycleInstance, Workflow
from workflows.services import clock

# What a verb may answer that came too late.
REFUSALS = (RerunRefused, CycleRefused, TransitionRefused)
HOURLY = {"cron": "0 * * * *", "timezone": "UTC"}


def batch_of(total: int, **content: Any) -> Batch:
    return make.batch(make.task(shards=[str(n) for n in range(total)], **content))


def running(batch: Batch, count: int | None = None) -> list[tuple[Claim, int]]:
    """(claim, execution) of instances that run now: `count` of them, or all."""
    node = Node.objects.filter(group=batch.group).first() or make.node(group=batch.group)
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


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What each act returns, or the refusal that it met, all of them begun at the same moment."""
    together = threading.Barrier(len(acts))

    def begin(act: Callable[[], Any]) -> Any:
        together.wait(20)
        try:
            return act()
        except REFUSALS as refused:
            return refused

    threads = [Elsewhere(lambda act=act: begin(act)) for act in acts]
    return [thread.result() for thread in threads]


def started(instance: CycleInstance, key: str) -> Instance:
    """The instance of a running node's batch, which has started too."""
    run = instance.node_runs.select_related("batch").get(node__key=key)
    [found] = make.start_batch(run.batch)
    return found


def everything_agrees() -> Picture:
    picture = Picture()
    picture.check()
    picture.check_nothing_overlooked()
    return picture


def two_upstreams(**below: Any) -> tuple[Workflow, Workflow, Workflow]:
    group = make.group()
    common = {"cron": "*/20 * * * *", "timezone": "UTC", "parallelism": 0, "starts_at": NOON, "group": group}
    first, second = (make.workflow(name, **common) for name in ("one", "two"))
    waits_for = [{"workflow": "one"}, {"workflow": "two"}]
    return first, second, make.workflow("down", depends_on=waits_for, **(common | below))


def failed_cycle(**content: Any) -> CycleInstance:
    """A scheduled instance that failed, at noon of the next hour."""
    workflow = make.workflow(parallelism=0, **(HOURLY | content))
    clock.make_due(NOON + timedelta(hours=1))
    instance = CycleInstance.objects.get(workflow=workflow, state="running")
    return make.end_node(instance, "a", "failed")
