"""An older state of the database comes back under running workers; and records that refuse a start."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import psutil
from django.db import connection

from config import database
from scheduling import services
from scheduling.models import Batch, Execution, Instance, LogChunk
from scheduling.states import Outcome
from tests import factories
from tests.faults.cluster import Cluster, cluster
from tests.processes import eventually

# How long the runs of the older and of the newer history last, in seconds. The first end within the second.
LOST, KEPT = 7, 14


def stop(server: database.EmbeddedServer, how: signal.Signals) -> None:
    connection.close()
    process = psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))
    process.send_signal(how)
    process.wait(30)


def trigger(running: Cluster, run: str, seconds: int) -> Batch:
    task = factories.task(
        group=running.group,
        kind="python",
        spec={"call": "headless"},
        mode="sharded",
        shards=["a", "b", "c", "d"],
        parameters={"run": run, "seconds": seconds},
    )
    return services.trigger(task, by="test")


def live(batch: Batch) -> int:
    return Execution.objects.live().filter(instance__batch=batch).count()


def given_out() -> tuple[set[int], set[int]]:
    """The ids of executions and of instances."""
    return (
        set(Execution.objects.values_list("pk", flat=True)),
        set(Execution.objects.values_list("instance_id", flat=True)),
    )


def test_workers_of_a_lost_history_report_into_no_new_row(
    own_server: database.EmbeddedServer, tmp_path: Path
) -> None:
    """As after a failover to a replica that lagged behind: ids are given out a second time."""
    with cluster(tmp_path) as running:
        # Nobody stops the runs of the lost history before their end: they have to be refused.
        running.environment["TAILRACE_STOP_GRACE"] = "30"
        running.start_node("n1")
        stop(own_server, signal.SIGINT)
        older = tmp_path / "older"
        subprocess.run(["cp", "-a", own_server.data, older], check=True)
        own_server.start()
        running.start_scheduler("s1")

        lost = trigger(running, "lost", LOST)
        eventually(lambda: live(lost) == 4, within=30, log=running.log)
        ids = given_out()
        stop(own_server, signal.SIGQUIT)
        shutil.rmtree(own_server.data)
        shutil.move(older, own_server.data)
        own_server.start()

        assert not Batch.objects.exists()
        kept = trigger(running, "kept", KEPT)
        running.start_node("n2")
        eventually(lambda: live(kept) == 4, within=30, log=running.log)
        assert given_out() == ids
        running.ended(kept, within=60)
        assert (kept.state, kept.succeeded) == ("success", 4)
        for execution in Execution.objects.all():
            assert execution.outcome == Outcome.SUCCESS
            # Its own worker reported, not one that had begun earlier.
            assert (execution.ended_at - execution.started_at).total_seconds() >= KEPT
        assert set("".join(LogChunk.objects.values_list("text", flat=True)).split()) == {"kept"}
        assert "came too late" in running.log.read_text()
        connection.close()


def one_instance(running: Cluster) -> Instance:
    """A waiting instance of a group without nodes."""
    task = factories.task(group=running.group, kind="python", spec={"call": "noop"})
    return services.trigger(task, by="test").instances.get()


def test_an_execution_left_live_beside_a_waiting_instance_stops_no_worker(
    transactional_db: None, tmp_path: Path
) -> None:
    """The rows of `execution_one_live` and of `execution_number_once_an_instance`."""
    with cluster(tmp_path) as running:
        instance = one_instance(running)
        node = factories.node(group=running.group, state="draining")
        left = Execution.objects.create(
            instance=instance,
            number=1,
            cause="trigger",
            node=node,
            worker=1,
            token="00000000-0000-4000-8000-000000000000",
            started_at=instance.batch.created_at,
        )
        running.start_node("n1", workers=1)
        workers = [each.pid for each in running.of("n1", "worker")]
        running.ended(instance.batch)
        assert instance.batch.state == "success"
        left.refresh_from_db()
        assert left.outcome == Outcome.LOST
        assert "execution_" in left.error
        assert instance.executions.get(outcome=Outcome.SUCCESS).number == 2
        assert [each.pid for each in running.of("n1", "worker")] == workers


def test_a_start_that_is_always_refused_is_given_up_with_the_reason(
    transactional_db: None, tmp_path: Path
) -> None:
    with cluster(tmp_path) as running:
        first, refused, last = (one_instance(running) for _ in range(3))
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;"
                "CREATE TRIGGER refuses BEFORE INSERT ON scheduling_execution FOR EACH ROW"
                f" WHEN (NEW.instance_id = {refused.pk}) EXECUTE FUNCTION refuse()"
            )
        try:
            running.start_node("n1", workers=1)
            workers = [each.pid for each in running.of("n1", "worker")]
            for each in (first, refused, last):
                running.ended(each.batch)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP FUNCTION refuse CASCADE")
        # Before and after it, also the one whose end and its start were asked for at once.
        assert [each.batch.state for each in (first, refused, last)] == ["success", "failed", "success"]
        refused.refresh_from_db()
        assert refused.state == "terminated"
        assert refused.reason == "The database refused the start: not this one"
        assert not Execution.objects.exclude(outcome=Outcome.SUCCESS).exists()
        assert [each.pid for each in running.of("n1", "worker")] == workers
