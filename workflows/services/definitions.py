"""Workflows: their content in revisions, and whether their schedule is on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from config import clock
from scheduling import journal
from scheduling.models import Task, Team
from scheduling.models.tasks import Misfire
from scheduling.notifications import clean_rules
from scheduling.reasons import said
from scheduling.services import SCHEDULE_CHANNEL, content_digest
from scheduling.transitions import execute
from scheduling.transitions import notify as wake
from scheduling.validation import clean_retention
from workflows import periods, reasons, transitions, validation
from workflows.known import reference
from workflows.models import (
    CycleInstance,
    Mode,
    RunType,
    Workflow,
    WorkflowDependency,
    WorkflowEdge,
    WorkflowNode,
    WorkflowRevision,
)
from workflows.services.generation import generate, regenerate
from workflows.states import CycleState

_EDITING = int.from_bytes(b"tr:edits")


@transaction.atomic
def save_workflow(
    *,
    team: Team,
    name: str,
    content: Mapping[str, Any],
    mode: str = Mode.ONLINE,
    starts_at: datetime | None = None,
    retention_days: Any = None,
    notify: Any = None,
    by: journal.By = None,
    reason: str = "",
) -> Workflow:
    """Create or change a workflow; changed content makes a new revision, the same content none.

    `content` is as `validation.clean_content` takes it. `starts_at` is when its cycles begin to exist, now for
    a new one that says nothing. What is not ready of it, and of what depends on it, follows at once.
    Raises InvalidDefinition with every mistake at once.
    """
    # One at a time: two edits at once could make workflows wait for each other in a circle.
    execute("SELECT pg_advisory_xact_lock(%(key)s)", {"key": _EDITING})
    cleaned = validation.clean_content(team.name, name, content)
    kept_days, rules = clean_retention(retention_days), clean_rules(notify)
    digest = content_digest(cleaned)
    # Whole seconds, since it is written into files.
    now = clock.now().replace(microsecond=0)
    workflow, created = Workflow.objects.get_or_create(
        team=team, name=name, defaults={"mode": mode, "starts_at": starts_at or now, "generated_until": now}
    )
    dependants = Workflow.objects.depending_on([workflow.pk]).values_list("pk", flat=True)
    locked = Workflow.objects.locked([workflow.pk, *dependants])
    workflow = locked[workflow.pk]
    before = workflow.revision
    wanted = (mode, starts_at or workflow.starts_at, kept_days, rules)
    unchanged = before is not None and before.digest == digest
    if unchanged and _rules_of(workflow) == wanted:
        return workflow
    had_schedule = workflow.mode == Mode.ONLINE and before is not None and bool(before.cron)
    if not unchanged:
        workflow.revision = _new_revision(workflow, cleaned, digest, by)
    workflow.mode, workflow.starts_at, workflow.retention_days, workflow.notify = wanted
    if not had_schedule:
        # What no schedule asked for was not missed either.
        workflow.generated_until = now
    workflow.save()
    details = {"revision": workflow.revision.number, "digest": digest}
    journal.record("created" if created else "edited", workflow, by, reason=reason, details=details)
    regenerate(locked.values(), by=by)
    generate(workflow.pk, now)
    wake(SCHEDULE_CHANNEL)
    return workflow


def _new_revision(
    workflow: Workflow, content: Mapping[str, Any], digest: str, by: journal.By
) -> WorkflowRevision:
    newest = workflow.revisions.order_by("-number").values_list("number", flat=True).first() or 0
    revision = WorkflowRevision.objects.create(
        workflow=workflow,
        number=newest + 1,
        digest=digest,
        created_by_id=journal.actor(by).user_id,
        **{name: content[name] for name in WorkflowRevision.CONTENT},
    )
    used = {node["task"] for node in content["nodes"]}
    tasks = {task.name: task for task in Task.objects.filter(team=workflow.team_id, name__in=used)}
    nodes = WorkflowNode.objects.bulk_create(
        WorkflowNode(
            revision=revision,
            number=number,
            key=node["key"],
            task=tasks[node["task"]],
            join=node["join"],
            parameters=node["parameters"],
            timeout=node["timeout"],
            core=node["core"],
        )
        for number, node in enumerate(content["nodes"])
    )
    by_key = {node.key: node for node in nodes}
    WorkflowEdge.objects.bulk_create(
        WorkflowEdge(
            source=by_key[edge["node"]],
            target=by_key[node["key"]],
            condition=edge["on"],
            expected=edge.get("expected"),
        )
        for node in content["nodes"]
        for edge in node["after"]
    )
    WorkflowDependency.objects.bulk_create(_dependencies(workflow, revision, content))
    return revision


def _dependencies(
    workflow: Workflow, revision: WorkflowRevision, content: Mapping[str, Any]
) -> Iterator[WorkflowDependency]:
    for each in content["depends_on"]:
        team, name = reference(workflow.team.name, each["workflow"])
        yield WorkflowDependency(
            revision=revision,
            upstream=Workflow.objects.get(team__name=team, name=name),
            offset=each["cycles"],
            count=each.get("count", 1),
        )


def _rules_of(workflow: Workflow) -> tuple[Any, ...]:
    """What is kept beside the revision."""
    return workflow.mode, workflow.starts_at, workflow.retention_days, workflow.notify


@transaction.atomic
def set_enabled(workflow: Workflow, enabled: bool, *, by: journal.By = None, reason: str = "") -> Workflow:
    """Switch a workflow's schedule off or on; what runs goes on.

    Switched off, nothing of its schedule becomes ready or begins. Switched on again, the cycles whose time
    passed meanwhile are made good as its misfire policy says.
    """
    workflow = Workflow.objects.locked([workflow.pk])[workflow.pk]
    if workflow.enabled == enabled:
        return workflow
    now = clock.now()
    since, workflow.enabled, workflow.paused_at = workflow.paused_at, enabled, None if enabled else now
    workflow.save(update_fields=["enabled", "paused_at"])
    journal.record("enabled" if enabled else "disabled", workflow, by, reason=reason)
    if enabled and since is not None:
        _catch_up(workflow, since, now, by)
        generate(workflow.pk, now)
    wake(SCHEDULE_CHANNEL)
    return workflow


def _catch_up(workflow: Workflow, since: datetime, now: datetime, by: journal.By) -> None:
    """Drop what was missed between the two times as the misfire policy says, and let the rest become ready.

    Frozen ones are kept for their holder.
    """
    missed = CycleInstance.objects.filter(
        workflow=workflow,
        run_type=RunType.ONLINE,
        state=CycleState.NOT_READY,
        frozen_at__isnull=True,
        cycle_time__gt=since,
        cycle_time__lte=now,
    ).order_by("cycle_time")
    policy = workflow.revision.misfire if workflow.revision else Misfire.RUN_ALL
    if policy != Misfire.RUN_ALL:
        if policy == Misfire.RUN_ONCE and workflow.current.cron:
            # Not generated yet, it is made by `generate`.
            missed = missed.exclude(cycle_time=periods.latest_slot(workflow.current, now))
        template = reasons.MISSED if policy == Misfire.SKIP else reasons.MISSED_BUT_LATEST
        for each in list(missed.values_list("pk", flat=True)):
            transitions.cancel(each, by=by, reason=said(template))
    waiting = CycleInstance.objects.filter(workflow=workflow, state=CycleState.NOT_READY)
    transitions.make_ready(waiting)
    transitions.begin_ready(workflow)
