"""`migrate` runs while nodes and schedulers work; no job and no due time is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from scheduling import functions
from scheduling.models import Batch, Execution, JournalEntry, Task
from scheduling.states import Outcome
from tests import factories
from tests.faults.cluster import Cluster, cluster, nothing_lost_or_doubled
from tests.processes import eventually

pytestmark = [pytest.mark.django_db(transaction=True)]

# A function of an earlier version under a name that the present one does not use.
EARLIER = (
    "CREATE FUNCTION tailrace_start_of_old(p_batch bigint, OUT execution_id bigint)"
    " LANGUAGE sql AS $$ SELECT p_batch $$"
)

CALLED_FOR_EVERY_JOB = ("tailrace_start_execution", "tailrace_end_execution", "tailrace_next_execution")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        try:
            yield made
        finally:
            call_command("migrate", verbosity=0)
            with connection.cursor() as cursor:
                cursor.execute("DROP FUNCTION IF EXISTS tailrace_start_of_old")


def drop_functions() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT oid::regprocedure::text FROM pg_proc"
            " WHERE pronamespace = current_schema()::regnamespace AND proname LIKE 'tailrace\\_%'"
        )
        for (function,) in cursor.fetchall():
            cursor.execute(f"DROP FUNCTION {function}")


def add_a_column_to_each_result() -> None:
    """Change the functions that a worker calls for every job, as a version did that dropped them first."""
    with transaction.atomic(), connection.cursor() as cursor:
        for name in CALLED_FOR_EVERY_JOB:
            cursor.execute(
                "SELECT pg_get_functiondef(%s::regproc), %s::regproc::regprocedure::text", [name, name]
            )
            [(definition, function)] = cursor.fetchall()
            head, body = definition.split(")\n RETURNS record\n", 1)
            cursor.execute(f"DROP FUNCTION {function}")
            cursor.execute(f"{head}, OUT added int)\n RETURNS record\n{body}")


def ticking(cluster: Cluster) -> Task:
    """A task that is due every second."""
    return factories.task(
        group=cluster.group, interval=1, kind="python", spec={"call": "noop"}, misfire="run_all"
    )


def fired_every_second(task: Task) -> None:
    due = list(
        Batch.objects.filter(task=task).order_by("scheduled_for").values_list("scheduled_for", flat=True)
    )
    assert len(due) > 3
    assert {later - sooner for sooner, later in pairwise(due)} == {timedelta(seconds=1)}
    assert not JournalEntry.objects.filter(action__in=["trigger_failed", "unscheduled"]).exists()


def no_worker_was_lost() -> None:
    assert not Execution.objects.filter(outcome=Outcome.LOST).exists()


def test_twenty_migrates_under_load_lose_nothing(running: Cluster) -> None:
    with connection.cursor() as cursor:
        cursor.execute(EARLIER)
    running.start_node("n1")
    running.start_scheduler("s1")
    task = ticking(running)
    batch = running.trigger(1500, seconds=0)
    for _ in range(20):
        call_command("migrate", verbosity=0)
    running.ended(batch)
    nothing_lost_or_doubled(running, batch)
    fired_every_second(task)
    no_worker_was_lost()
    with connection.cursor() as cursor:
        # Processes of the version before may still call it.
        cursor.execute("SELECT tailrace_start_of_old(7)")
        assert cursor.fetchone() == (7,)


def test_jobs_that_end_while_functions_are_missing_are_recorded_when_migrate_has_run(running: Cluster) -> None:
    """As when processes of the new version are started before its migrate."""
    running.start_node("n1")
    running.start_scheduler("s1")
    task = ticking(running)
    batch = running.trigger(40, seconds=0.3)
    running.started(batch, 4)
    drop_functions()
    # Those that ran have left their rows, and cannot report.
    eventually(
        lambda: "does not answer (function tailrace_" in running.log.read_text(), within=20, log=running.log
    )
    eventually(lambda: "fire what is due" in running.log.read_text(), within=20, log=running.log)
    call_command("migrate", verbosity=0)
    running.ended(batch)
    nothing_lost_or_doubled(running, batch)
    before = task.batches.count()
    eventually(lambda: task.batches.count() > before + 2, within=20, log=running.log)
    fired_every_second(task)
    no_worker_was_lost()


def test_running_workers_survive_results_with_another_column(running: Cluster) -> None:
    """PostgreSQL answers their prepared statements with "cached plan must not change result type"."""
    running.start_node("n1")
    running.start_scheduler("s1")
    task = ticking(running)
    batch = running.trigger(400, seconds=0.05)
    running.started(batch, 60)
    add_a_column_to_each_result()
    running.ended(batch)
    assert "cached plan must not change result type" in running.log.read_text()
    nothing_lost_or_doubled(running, batch)
    before = task.batches.count()
    eventually(lambda: task.batches.count() > before + 2, within=20, log=running.log)
    fired_every_second(task)
    no_worker_was_lost()
    drop_functions()


def test_a_changed_signature_under_the_old_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "functions.sql"
    body = "RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;"
    with transaction.atomic():
        file.write_text(f"CREATE OR REPLACE FUNCTION tailrace_probe(a int) {body}")
        functions.install("default", file)
        file.write_text(f"CREATE OR REPLACE FUNCTION tailrace_probe(a int, b int) {body}")
        with pytest.raises(functions.SignatureChanged, match=r"tailrace_probe.*new name"):
            functions.install("default", file)
        transaction.set_rollback(True)


def test_a_changed_result_under_the_old_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "functions.sql"
    with transaction.atomic():
        for result in ("int", "bigint"):
            file.write_text(
                f"CREATE OR REPLACE FUNCTION tailrace_probe() RETURNS {result} LANGUAGE sql AS 'SELECT 1'"
            )
            if result == "int":
                functions.install("default", file)
        with pytest.raises(
            functions.SignatureChanged, match=r"function tailrace_probe\(\): .*return type.*new name"
        ):
            functions.install("default", file)
        transaction.set_rollback(True)
