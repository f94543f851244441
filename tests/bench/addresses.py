"""Every list page and filter, deep page, count and question that the pages' figure is about, as addresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.db import connection
from django.urls import reverse
from django.utils import timezone

# The longest log that is kept of an instance, in chunks.
HUGE_LOG_CHUNKS = 5000


@dataclass
class World:
    """Facts about the records that addresses are made of, as one person may see them."""

    teams: list[int]

    def _one(self, statement: str, **facts: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement, {"teams": self.teams} | facts)
            row = cursor.fetchone()
        return row[0] if row else None

    def task(self, rank: float) -> str:
        """The name of a task by its number of batches: 0 is the one with most, 1 the one with fewest."""
        return str(
            self._one(
                "SELECT task.name FROM scheduling_task task JOIN LATERAL (SELECT count(*) AS n FROM"
                " scheduling_batch WHERE task_id = task.id) counted ON true WHERE team_id = ANY(%(teams)s)"
                " ORDER BY n DESC, task.id OFFSET round(%(rank)s * (SELECT count(*) - 1 FROM"
                " scheduling_task WHERE team_id = ANY(%(teams)s))) LIMIT 1",
                rank=rank,
            )
        )

    @cached_property
    def most(self) -> str:
        return self.task(0)

    @cached_property
    def fewest(self) -> str:
        return self.task(1)

    def group(self, order: str) -> str:
        return str(
            self._one(
                "SELECT name FROM scheduling_deploymentgroup WHERE team_id = ANY(%(teams)s) ORDER BY"
                " (SELECT count(*) FROM scheduling_batch WHERE group_id = scheduling_deploymentgroup.id)"
                f" {order}"
            )
        )

    def cursor(self, share: float) -> str:
        """The mark of the page that begins after this share of the team's batches."""
        from scheduling.models import Batch
        from scheduling.queries import Cursor

        rows = Batch.objects.filter(team__in=self.teams).order_by("-created_at", "-pk")
        return str(Cursor.of(rows[int(rows.count() * share)]))

    def batch(self, where: str = "true") -> int:
        return int(
            self._one(
                f"SELECT id FROM scheduling_batch WHERE team_id = ANY(%(teams)s) AND {where}"
                " ORDER BY total DESC, id DESC LIMIT 1"
            )
        )

    @cached_property
    def huge(self) -> int:
        return self.batch()

    @cached_property
    def workflow(self) -> str:
        """The name of the workflow with the most cycle instances."""
        return str(
            self._one(
                "SELECT name FROM workflows_workflow WHERE id = (SELECT workflow_id FROM"
                " workflows_cycleinstance WHERE team_id = ANY(%(teams)s) GROUP BY 1"
                " ORDER BY count(*) DESC LIMIT 1)"
            )
        )

    @cached_property
    def workflow_id(self) -> int:
        """Its id; other teams may have one of the same name."""
        return int(
            self._one(
                "SELECT id FROM workflows_workflow WHERE name = %(name)s AND team_id = ANY(%(teams)s) LIMIT 1",
                name=self.workflow,
            )
        )

    def cycle_cursor(self, share: float) -> str:
        """The mark of the page that begins after this share of the teams' cycle instances."""
        from scheduling.queries import Cursor
        from workflows.models import CycleInstance

        rows = CycleInstance.objects.filter(team__in=self.teams, cycle_time__lte=timezone.now())
        rows = rows.order_by("-cycle_time", "-pk")
        return str(Cursor.of(rows[int(rows.count() * share)], "cycle_time"))

    def cycle(self, where: str) -> int:
        return int(
            self._one(
                f"SELECT id FROM workflows_cycleinstance WHERE team_id = ANY(%(teams)s) AND {where}"
                " ORDER BY id DESC LIMIT 1"
            )
        )

    def ids(self, count: int) -> str:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM scheduling_batch WHERE team_id = ANY(%s) ORDER BY md5(id::text) LIMIT %s",
                [self.teams, count],
            )
            return ",".join(str(pk) for (pk,) in cursor.fetchall())

    def instance(self, of: str) -> int:
        return int(
            self._one(
                f"SELECT instance.id FROM scheduling_instance instance WHERE batch_id = %(batch)s {of} LIMIT 1",
                batch=self.huge,
            )
        )

    def chatty(self) -> int:
        """The instance with the longest log of all that these teams have."""
        return int(
            self._one(
                "SELECT instance_id FROM scheduling_execution WHERE id = (SELECT execution_id FROM"
                " scheduling_logchunk chunk JOIN scheduling_execution e ON e.id = execution_id"
                " JOIN scheduling_instance i ON i.id = e.instance_id"
                " JOIN scheduling_batch b ON b.id = i.batch_id"
                " WHERE sequence > 100 AND b.team_id = ANY(%(teams)s) LIMIT 1)"
            )
            or self.instance("")
        )


def page(name: str, /, *arguments: Any, **query: Any) -> str:
    return reverse(name, args=arguments) + (f"?{urlencode(query, doseq=True)}" if query else "")


# What is measured: words -> address.
ADDRESSES: dict[str, Callable[[World], str]] = {
    "records, first page": lambda w: page("batch-list"),
    "records, workflow tab": lambda w: page("batch-list", tab="workflow"),
    "last 24 hours": lambda w: page("batch-list", window="1d"),
    "last 30 days": lambda w: page("batch-list", window="30d"),
    "state failed": lambda w: page("batch-list", state="failed"),
    "state running": lambda w: page("batch-list", state="running"),
    "state terminating, 30 days": lambda w: page("batch-list", state="terminating", window="30d"),
    "state waiting, workflow tab": lambda w: page("batch-list", state="waiting", tab="workflow"),
    "condition not met, basic tab (none)": lambda w: page("batch-list", state="condition_not_met"),
    "condition not met, workflow tab": lambda w: page("batch-list", state="condition_not_met", tab="workflow"),
    "trigger manual": lambda w: page("batch-list", trigger="manual"),
    "trigger manual, state failed": lambda w: page("batch-list", trigger="manual", state="failed"),
    "all states but success": lambda w: page(
        "batch-list", state=["waiting", "running", "failed", "terminating"]
    ),
    "group with most": lambda w: page("batch-list", group=w.group("DESC")),
    "group with fewest": lambda w: page("batch-list", group=w.group("ASC")),
    "group with most, terminating": lambda w: page("batch-list", group=w.group("DESC"), state="terminating"),
    "group with most, manual, failed": lambda w: page(
        "batch-list", group=w.group("DESC"), trigger="manual", state="failed"
    ),
    "task with most": lambda w: page("batch-list", task=w.most),
    "task with fewest": lambda w: page("batch-list", task=w.fewest),
    "task with most, terminating": lambda w: page("batch-list", task=w.most, state="terminating"),
    "task with most, manual": lambda w: page("batch-list", task=w.most, trigger="manual"),
    "task of another group": lambda w: page("batch-list", task=w.most, group=w.group("ASC")),
    "twenty tasks, failed": lambda w: page(
        "batch-list", task=",".join({w.task(n / 20) for n in range(20)}), state="failed"
    ),
    "by a person": lambda w: page("batch-list", by="mei"),
    "by nobody there is": lambda w: page("batch-list", by="nobody"),
    "by a person, failed": lambda w: page("batch-list", by="mei", state="failed"),
    "by the schedule": lambda w: page("batch-list", by="schedule"),
    "by the schedule or a person": lambda w: page("batch-list", by="schedule,mei"),
    "by the engine, workflow tab (none)": lambda w: page("batch-list", by="engine", tab="workflow"),
    "task by a person": lambda w: page("batch-list", task=w.most, by="mei"),
    "group by a person": lambda w: page("batch-list", group=w.group("ASC"), by="mei"),
    "an old day": lambda w: page(
        "batch-list",
        since=f"{timezone.now() - timedelta(days=6.5):%Y-%m-%dT%H:%M}",
        until=f"{timezone.now() - timedelta(days=5.5):%Y-%m-%dT%H:%M}",
    ),
    "an old day, failed, manual": lambda w: page(
        "batch-list",
        since=f"{timezone.now() - timedelta(days=6.5):%Y-%m-%dT%H:%M}",
        until=f"{timezone.now() - timedelta(days=5.5):%Y-%m-%dT%H:%M}",
        state="failed",
        trigger="manual",
    ),
    "one batch by ID": lambda w: page("batch-list", batch=w.huge),
    "200 batches by ID": lambda w: page("batch-list", batch=w.ids(200)),
    "an invalid filter": lambda w: page("batch-list", state="asleep"),
    "10 % deep": lambda w: page("batch-list", older=w.cursor(0.1)),
    "50 % deep": lambda w: page("batch-list", older=w.cursor(0.5)),
    "99 % deep": lambda w: page("batch-list", older=w.cursor(0.99)),
    "50 % deep, back": lambda w: page("batch-list", newer=w.cursor(0.5)),
    "50 % deep, failed": lambda w: page("batch-list", older=w.cursor(0.5), state="failed"),
    "50 % deep, terminating (none)": lambda w: page("batch-list", older=w.cursor(0.5), state="terminating"),
    "live changes of the first page": lambda w: page("batch-list-changes"),
    "live changes, terminating": lambda w: page("batch-list-changes", state="terminating"),
    "count of all": lambda w: page("batch-list-count"),
    "count of failed": lambda w: page("batch-list-count", state="failed"),
    "count of a rare combination": lambda w: page(
        "batch-list-count", state=["failed", "terminating"], trigger="manual", group=w.group("DESC")
    ),
    "count of a task's": lambda w: page("batch-list-count", task=w.most),
    "bulk stop of all that match": lambda w: page("batches-stop", all="1", state=["running", "waiting"]),
    "bulk rerun of all that match": lambda w: page("batches-rerun", all="1", state="failed"),
    "batch of 10,000": lambda w: page("batch-detail", w.huge),
    "batch of 10,000, deep": lambda w: page("batch-detail", w.huge, **{"from": 9900}),
    "batch of 10,000, failed": lambda w: page("batch-detail", w.huge, state="failed"),
    "batch of 10,000, terminating (none)": lambda w: page("batch-detail", w.huge, state="terminating"),
    "batch of 10,000, one shard": lambda w: page("batch-detail", w.huge, shard=5000),
    "batch of 10,000, live changes": lambda w: page("batch-changes", w.huge),
    "batch of one": lambda w: page("batch-detail", w.batch("total = 1")),
    "instance": lambda w: page("instance-detail", w.instance("ORDER BY (state = 'success') DESC")),
    "instance with a huge log": lambda w: page("instance-detail", w.chatty()),
    "instance, live changes": lambda w: page("instance-changes", w.chatty(), after=HUGE_LOG_CHUNKS),
    "overview": lambda w: page("home"),
    "overview, live changes": lambda w: page("overview-changes"),
    "overview, timeline": lambda w: page("overview-timeline"),
    "tasks": lambda w: page("task-list"),
    "tasks, live changes": lambda w: page("task-list-changes"),
    "task page": lambda w: page(
        "task-detail", w._one("SELECT id FROM scheduling_task WHERE name = %(name)s", name=w.most)
    ),
    "nodes": lambda w: page("node-list"),
    "journal": lambda w: page("journal"),
    "journal, a person": lambda w: page("journal", person="mei"),
    "journal, an action": lambda w: page("journal", action="stopped"),
    "journal, an object": lambda w: page("journal", object=w.huge, type="batch"),
    "tasks, failed last": lambda w: page("task-list", last="failed"),
    "notifications": lambda w: page("notification-list"),
    "cycles, first page": lambda w: page("cycle-list"),
    "cycles, last 24 hours": lambda w: page("cycle-list", window="1d"),
    "cycles, last 30 days": lambda w: page("cycle-list", window="30d"),
    "cycles, still to come": lambda w: page("cycle-list", window="ahead"),
    "cycles, an old day": lambda w: page(
        "cycle-list",
        since=f"{timezone.now() - timedelta(days=6.5):%Y-%m-%dT%H:%M}",
        until=f"{timezone.now() - timedelta(days=5.5):%Y-%m-%dT%H:%M}",
    ),
    "cycles, failed": lambda w: page("cycle-list", state="failed"),
    "cycles, running": lambda w: page("cycle-list", state="running"),
    "cycles, not ready": lambda w: page("cycle-list", state="not_ready"),
    "cycles, all states but success": lambda w: page(
        "cycle-list", state=["not_ready", "ready", "running", "failed", "terminated", "cancelled"]
    ),
    "cycles, reruns": lambda w: page("cycle-list", run_type="rerun"),
    "cycles, tests (none)": lambda w: page("cycle-list", run_type="test", window="30d"),
    "cycles, of a team": lambda w: page("cycle-list", team="bench-large"),
    "cycles, of a workflow": lambda w: page("cycle-list", workflow=w.workflow),
    "cycles, of a workflow, failed": lambda w: page("cycle-list", workflow=w.workflow, state="failed"),
    "cycles, of a workflow, tests (none)": lambda w: page("cycle-list", workflow=w.workflow, run_type="test"),
    "cycles, frozen": lambda w: page("cycle-list", frozen="yes"),
    "cycles, frozen, still to come": lambda w: page("cycle-list", frozen="yes", window="ahead"),
    "cycles, not frozen": lambda w: page("cycle-list", frozen="no"),
    "cycles, ready an old hour": lambda w: page(
        "cycle-list",
        ready_since=f"{timezone.now() - timedelta(days=5.05):%Y-%m-%dT%H:%M}",
        ready_until=f"{timezone.now() - timedelta(days=5):%Y-%m-%dT%H:%M}",
    ),
    "cycles, 50 % deep": lambda w: page("cycle-list", window="30d", older=w.cycle_cursor(0.5)),
    "cycles, 99 % deep": lambda w: page("cycle-list", window="30d", older=w.cycle_cursor(0.99)),
    "cycles, 50 % deep, back": lambda w: page("cycle-list", window="30d", newer=w.cycle_cursor(0.5)),
    "cycles, an invalid filter": lambda w: page("cycle-list", state="asleep"),
    "cycles, live changes": lambda w: page("cycle-list-changes"),
    "cycles, count of all": lambda w: page("cycle-list-count"),
    "cycles, count of failed, 30 days": lambda w: page("cycle-list-count", state="failed", window="30d"),
    "cycles, bulk stop of all that match": lambda w: page("cycles-stop", all="1", query="state=running"),
    "cycles, bulk rerun of all that match": lambda w: page("cycles-rerun", all="1", query="state=failed"),
    "cycle that failed": lambda w: page("cycle-detail", w.cycle("state = 'failed'")),
    "cycle that runs, live changes": lambda w: page("cycle-changes", w.cycle("state = 'success'")),
    "workflows": lambda w: page("workflow-list"),
    "workflows, last cycle failed": lambda w: page("workflow-list", last="failed"),
    "workflows, by name": lambda w: page("workflow-list", name="hourly"),
    "workflows, live changes": lambda w: page("workflow-list-changes"),
    "workflow page": lambda w: page("workflow-detail", w.workflow_id),
    "workflow, live changes": lambda w: page("workflow-changes", w.workflow_id),
    "workflow, its days": lambda w: page("workflow-days", w.workflow_id),
    "backfills": lambda w: page("backfill-list"),
}
