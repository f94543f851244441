"""Tasks: their content in revisions, and whether their schedule is on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import EllipsisType
from typing import Any

from django.db import transaction

from config import clock
from scheduling import calendars, journal, notifications, transitions, validation
from scheduling.models import DeploymentGroup, Task, TaskRevision, Team
from scheduling.models.tasks import Trigger

SCHEDULE_CHANNEL = "tailrace_schedule"


@transaction.atomic
def save_task(
    *,
    team: Team,
    group: DeploymentGroup,
    name: str,
    content: Mapping[str, Any],
    enabled: bool = True,
    retention_days: int | EllipsisType | None = ...,
    notify: notifications.Rules | EllipsisType = ...,
    by: journal.By = None,
    reason: str = "",
) -> Task:
    """Create or change a task; changed content makes a new revision, the same content none.

    `content` has the fields of `TaskRevision.CONTENT`; what is left out takes its default. `retention_days` is
    how long records are kept, None as long as the installation does, and `notify` the rules of who is told of
    its runs; left out, they stay as they are.
    Raises InvalidDefinition with every mistake at once.
    """
    cleaned = validation.clean_content(content)
    digest = content_digest(cleaned)
    task, created = Task.objects.select_for_update().get_or_create(
        team=team, name=name, defaults={"group": group, "enabled": enabled}
    )
    before = task.revision
    if before is None or before.digest != digest:
        number = (task.revisions.order_by("-number").values_list("number", flat=True).first() or 0) + 1
        task.revision = TaskRevision.objects.create(
            task=task,
            number=number,
            digest=digest,
            created_by_id=journal.actor(by).user_id,
            **cleaned,
        )
    kept = task.retention_days if retention_days is ... else validation.clean_retention(retention_days)
    rules = task.notify if notify is ... else notifications.clean_rules(notify)
    wanted = (group.pk, enabled, kept, rules)
    as_it_is = (task.group_id, task.enabled, task.retention_days, task.notify)
    if not created and task.revision == before and as_it_is == wanted:
        return task
    schedule_changed = before is None or _schedule(before) != _schedule(task.revision)
    switched = task.enabled != enabled
    task.group, task.retention_days, task.notify = group, kept, rules
    if schedule_changed:
        task.next_due_at = calendars.next_due(task.revision, clock.now())
    if switched:
        _switch(task, enabled)
    task.save()
    details = {"revision": task.revision.number, "digest": digest}
    journal.record("created" if created else "edited", task, by, reason=reason, details=details)
    if schedule_changed or switched:
        transitions.notify(SCHEDULE_CHANNEL)
    return task


def _schedule(revision: TaskRevision) -> tuple[Any, ...]:
    """What decides the due times: the time zone only with cron."""
    zone = revision.timezone if revision.trigger == Trigger.CRON else None
    return revision.trigger, revision.cron, revision.interval, zone


def _switch(task: Task, enabled: bool) -> None:
    """Switch a locked task without saving it. Its due times stay, for the misfire policy to decide."""
    task.enabled = enabled
    if not enabled:
        return
    task.enabled_at = clock.now()
    if task.next_due_at is None and task.revision is not None:
        # The scheduler could not compute it when the task fired last.
        task.next_due_at = calendars.next_due(task.revision, task.enabled_at)


def content_digest(content: Mapping[str, Any]) -> str:
    """The hash of a task's content; equal content has an equal hash."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@transaction.atomic
def set_enabled(
    task: Task,
    enabled: bool,
    *,
    by: journal.By = None,
    reason: str = "",
    details: Mapping[str, Any] | None = None,
) -> Task:
    """Switch a task's schedule on or off; what runs goes on.

    Due times that pass while it is off are missed; once it is on again, its misfire policy decides about them.
    A fixed rate keeps its grid.
    """
    # Not joined: that would show no revision where somebody edited the task while this waited for the lock.
    task = Task.objects.select_for_update().prefetch_related("revision").get(pk=task.pk)
    if task.enabled != enabled and task.revision is not None:
        _switch(task, enabled)
        task.save(update_fields=["enabled", "enabled_at", "next_due_at"])
        action = "enabled" if enabled else "disabled"
        journal.record(action, task, by, reason=reason, details=dict(details or {}))
        transitions.notify(SCHEDULE_CHANNEL)
    return task
