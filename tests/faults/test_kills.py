"""Every process of the product is killed with at least 200 instances in flight; nothing is lost or doubled."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from django.db import connection

from scheduling.models import Execution, Instance
from scheduling.states import InstanceState, Outcome
from tests.faults.cluster import Cluster, cluster, nothing_lost_or_doubled, orphans_of
from tests.processes import eventually

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


def kill(*processes: psutil.Process) -> None:
    for process in processes:
        process.send_signal(signal.SIGKILL)


def test_a_killed_busy_worker_loses_nothing(running: Cluster) -> None:
    running.start_node("n1")
    batch = running.trigger(200, seconds=0.1)
    running.started(batch, 20)
    for killed in range(3):
        [busy, *_] = [process for process in running.of("n1", "worker") if is_busy(process)]
        kill(busy)
        running.started(batch, 20 + 30 * (killed + 1))
    running.ended(batch)
    nothing_lost_or_doubled(running, batch)
    assert Execution.objects.filter(outcome=Outcome.LOST).count() >= 1


def is_busy(process: psutil.Process) -> bool:
    return Execution.objects.live().filter(worker=process.pid).exists()


def test_killing_all_idle_workers_at_once_stalls_nothing(running: Cluster) -> None:
    running.start_node("n1")
    first = running.trigger(20, seconds=0)
    running.ended(first)
    kill(*running.of("n1", "worker"))
    batch = running.trigger(200, seconds=0.02)
    running.ended(batch)
    nothing_lost_or_doubled_in(running, first, batch)


def nothing_lost_or_doubled_in(running: Cluster, *batches: object) -> None:
    for batch in batches:
        succeeded = Instance.objects.filter(batch=batch, state=InstanceState.SUCCESS).count()
        assert succeeded == batch.total  # type: ignore[attr-defined]
    assert len(running.effects()) == sum(batch.total for batch in batches)  # type: ignore[attr-defined]


@pytest.mark.parametrize("role", ["sentinel", "pusher"])
def test_a_killed_part_of_a_node_is_replaced_and_nothing_is_lost(running: Cluster, role: str) -> None:
    running.start_node("n1")
    batch = running.trigger(200, seconds=0.1)
    running.started(batch, 20)
    before = {process.pid for each in ("sentinel", "worker", "pusher") for process in running.of("n1", each)}
    [victim] = running.of("n1", role)
    kill(victim)
    running.ended(batch)
    nothing_lost_or_doubled(running, batch)
    if role == "sentinel":
        assert not orphans_of(before)
    # And it still stops as it should.
    node = running.processes["n1"]
    below = {process.pid for process in node.children(recursive=True)}
    node.send_signal(signal.SIGTERM)
    eventually(lambda: not orphans_of({node.pid} | below), within=10, log=running.log)


def test_a_killed_node_gives_its_work_to_another(running: Cluster) -> None:
    running.start_node("n1")
    running.start_node("n2")
    running.start_scheduler("s1")
    batch = running.trigger(200, seconds=0.2)
    running.started(batch, 20)
    node = running.processes["n1"]
    below = {process.pid for process in node.children(recursive=True)}
    kill(node)
    eventually(lambda: not orphans_of(below), within=5, log=running.log)
    running.ended(batch)
    nothing_lost_or_doubled(running, batch)
    lost = Execution.objects.filter(outcome=Outcome.LOST)
    assert set(lost.values_list("node__name", flat=True)) == {"n1"}


def nothing_under_way() -> bool:
    """Whether the database has answered all that any other connection asked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend'"
            " AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone() == (0,)


def test_a_node_that_was_cut_off_reports_too_late_and_changes_nothing(running: Cluster) -> None:
    running.start_node("n1")
    running.start_scheduler("s1")
    batch = running.trigger(200, seconds=0.3)
    running.started(batch, 10)
    frozen = [running.processes["n1"], *running.processes["n1"].children(recursive=True)]
    for process in frozen:
        process.suspend()
    # What they had sent is carried out all the same; only what is live after that can come too late.
    eventually(nothing_under_way)
    held = set(Execution.objects.live().values_list("pk", flat=True))
    assert held
    running.start_node("n2")
    eventually(lambda: not Execution.objects.live().filter(pk__in=held).exists(), within=20, log=running.log)
    lost = dict(Execution.objects.filter(pk__in=held).values_list("pk", "ended_at"))
    for process in frozen:
        process.resume()
    running.ended(batch)
    eventually(lambda: running.log.read_text().count("came too late") >= 1, log=running.log)
    assert dict(Execution.objects.filter(pk__in=held).values_list("pk", "ended_at")) == lost
    assert set(Execution.objects.filter(pk__in=held).values_list("outcome", flat=True)) == {Outcome.LOST}
    assert not Instance.objects.filter(batch=batch).exclude(state=InstanceState.SUCCESS).exists()
    assert Execution.objects.filter(outcome=Outcome.SUCCESS).count() == 200
