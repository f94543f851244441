"""Rows that somebody holds locked for long: they delay their own work, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from scheduling.engine.scheduler import SOURCES, Scheduler
from scheduling.engine.steps import Source
from scheduling.models import Task
from tests import factories
from tests.faults.test_scheduler import in_thread
from tests.processes import database_url, eventually, manage
from workflows import services as workflow_services
from workflows.models import CycleInstance, Workflow
from workflows.states import CycleState

pytestmark = pytest.mark.django_db(transaction=True)
HELD_SECONDS = 6


@contextmanager
def held(*statements: str) -> Iterator[psycopg.Connection[Any]]:
    """Another session holds in a transaction what `statements` lock."""
    with psycopg.connect(database_url()) as other:
        for statement in statements:
            other.execute(statement)
        yield other
        other.rollback()


def due_cycle(workflow: Workflow) -> CycleInstance:
    """An instance of `workflow` that falls due now."""
    workflow_services.generate(workflow.pk)
    instance = CycleInstance.objects.filter(workflow=workflow).earliest("cycle_time")
    CycleInstance.objects.filter(pk=instance.pk).update(due_at=timezone.now())
    return instance


def fires_on_time(task: Task, *, seconds: int, log: Path | None = None) -> None:
    """A task with an interval of a second fires every second for so long."""
    # What was due before the scheduler had started is no measure.
    fired = task.batches.filter(scheduled_for__gt=timezone.now())
    eventually(lambda: fired.count() >= seconds, within=seconds + 3, log=log)
    late = [batch.created_at - batch.scheduled_for for batch in fired]
    assert max(late) < timedelta(seconds=1.5)


def test_a_locked_workflow_delays_its_own_cycles_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    locked, free = (factories.workflow(cron="0 * * * *") for _ in range(2))
    of_locked, of_free = due_cycle(locked), due_cycle(free)
    task = factories.task(interval=1)
    with (
        held(f"SELECT FROM workflows_workflow WHERE id = {locked.pk} FOR UPDATE") as other,
        manage("scheduler", log=log),
    ):
        eventually(lambda: task.batches.exists(), within=20, log=log)
        fires_on_time(task, seconds=HELD_SECONDS, log=log)
        assert CycleInstance.objects.get(pk=of_free.pk).state == CycleState.RUNNING
        assert CycleInstance.objects.get(pk=of_locked.pk).state == CycleState.NOT_READY
        other.rollback()
        eventually(
            lambda: CycleInstance.objects.get(pk=of_locked.pk).state == CycleState.RUNNING,
            within=15,
            log=log,
        )


def test_cycles_of_a_locked_workflow_fill_no_round() -> None:
    locked, free = (factories.workflow(cron="* * * * *") for _ in range(2))
    for workflow in (locked, free):
        workflow_services.generate(workflow.pk)
    now = timezone.now()
    CycleInstance.objects.filter(workflow=locked).update(due_at=now - timedelta(seconds=2))
    wanted = due_cycle(free)
    assert CycleInstance.objects.filter(workflow=locked).count() > workflow_services.clock.ROUND
    with held(f"SELECT FROM workflows_workflow WHERE id = {locked.pk} FOR UPDATE"):
        assert workflow_services.clock.make_due() == 1
        assert CycleInstance.objects.get(pk=wanted.pk).due
        assert workflow_services.clock.make_due() == 0
        assert workflow_services.clock.carry_on() == 0
        assert workflow_services.generate(locked.pk, wait=False) == 0
    assert workflow_services.clock.make_due() > 0


def test_a_locked_instance_stays_and_the_others_of_its_workflow_fall_due() -> None:
    workflow = factories.workflow(cron="0 * * * *")
    workflow_services.generate(workflow.pk)
    first, second = CycleInstance.objects.filter(workflow=workflow).order_by("cycle_time")[:2]
    CycleInstance.objects.filter(pk__in=[first.pk, second.pk]).update(due_at=timezone.now())
    with held(f"SELECT FROM workflows_cycleinstance WHERE id = {first.pk} FOR UPDATE"):
        assert workflow_services.clock.make_due() == 1
        assert [CycleInstance.objects.get(pk=each.pk).due for each in (first, second)] == [False, True]
    assert workflow_services.clock.make_due() == 1


@pytest.mark.parametrize("table", ["scheduling_team", "scheduling_deploymentgroup"])
def test_a_locked_team_or_group_delays_its_own_triggers_alone(table: str) -> None:
    blocked, task = factories.task(interval=3600), factories.task(interval=1)
    due = timezone.now()
    Task.objects.filter(pk=blocked.pk).update(next_due_at=due)
    key = blocked.team_id if table == "scheduling_team" else blocked.group_id
    with held(f"SELECT FROM {table} WHERE id = {key} FOR UPDATE") as other, in_thread(Scheduler(steps=())):
        eventually(lambda: task.batches.exists())
        fires_on_time(task, seconds=3)
        assert blocked.batches.count() == 0
        assert Task.objects.get(pk=blocked.pk).next_due_at == due
        other.rollback()
        eventually(lambda: blocked.batches.count() == 1, within=2)
        assert blocked.batches.get().scheduled_for == due


def test_triggers_go_on_while_everything_else_waits() -> None:
    """As during the submit of a rerun with thousands of items."""

    def wait() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(4711)")
        return 0

    slow = Source("wait", wait, lambda: None)
    task = factories.task(interval=1)
    with (
        held("SELECT pg_advisory_xact_lock(4711)") as other,
        in_thread(Scheduler(steps=(), sources=(*SOURCES, slow))),
    ):
        eventually(lambda: task.batches.exists())
        fires_on_time(task, seconds=HELD_SECONDS)
        other.rollback()
