"""How many connections to PostgreSQL a node holds, as PostgreSQL counts them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from scheduling import services
from scheduling.models import Batch
from tests import factories
from tests.faults.cluster import Cluster, cluster
from tests.processes import eventually

pytestmark = [pytest.mark.django_db(transaction=True)]

WORKERS = 4


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


def connections(node: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [f"tailrace node {node}"]
        )
        return int(cursor.fetchone()[0])


def busy(running: Cluster, kind: str, spec: dict[str, str], **content: object) -> Batch:
    """A batch that keeps every worker busy, which all have begun."""
    shards = [str(number) for number in range(WORKERS)]
    task = factories.task(group=running.group, kind=kind, spec=spec, mode="sharded", shards=shards, **content)
    batch = services.trigger(task, by="test")
    eventually(lambda: batch.instances.filter(state="running").count() == WORKERS, within=20, log=running.log)
    return batch


def test_an_idle_node_holds_three_connections_and_a_busy_one_one_more_for_each_job(running: Cluster) -> None:
    running.start_node("n'1", workers=WORKERS)
    batch = busy(running, "shell", {"command": "sleep 600"})
    eventually(lambda: connections("n'1") == 3 + WORKERS, within=15, log=running.log)

    services.stop(batch, by="test")
    running.ended(batch)
    eventually(lambda: connections("n'1") == 3, within=20, log=running.log)

    # What was closed is opened again by the next job.
    again = running.trigger(20, seconds=0.1)
    running.ended(again)
    assert again.state == "success"


def test_a_python_job_keeps_the_connection_that_it_may_use(running: Cluster) -> None:
    running.start_node("n1", workers=WORKERS)
    batch = busy(running, "python", {"call": "effect"}, parameters={"seconds": 4})
    running.ended(batch)
    assert batch.state == "success"
    assert connections("n1") <= 3 + 2 * WORKERS
