"""Workflows, and what they are made of, are deleted only while nothing refers to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from scheduling import journal
from scheduling.errors import StillInUse
from scheduling.models import Task, Team
from workflows.models import CycleInstance, Workflow, WorkflowDependency, WorkflowNode

# What apps above say keeps a workflow; empty: nothing. They add theirs when they are ready.
USES: list[Callable[[Workflow], str]] = []


@transaction.atomic
def delete_workflow(workflow: Workflow, *, by: journal.By = None, reason: str = "") -> None:
    """Delete a workflow that never ran and that no other waits for, with the cycles that were to come.

    Raises StillInUse, with what uses it.
    """
    workflow = Workflow.objects.locked([workflow.pk])[workflow.pk]
    if used := use_of(workflow) or next(filter(None, (use(workflow) for use in USES)), ""):
        raise StillInUse(used)
    journal.record("deleted", workflow, by, reason=reason)
    Workflow.objects.filter(pk=workflow.pk).update(revision=None)
    workflow.cycles.update(effective=None)
    CycleInstance.objects.filter(workflow=workflow).delete()
    WorkflowDependency.objects.filter(revision__workflow=workflow).delete()
    workflow.revision = None
    workflow.delete()


def use_of(thing: Any) -> str:
    """What keeps a workflow, or a task or team, from being deleted as far as workflows go; empty: nothing."""
    match thing:
        case Workflow():
            return _use_of_workflow(thing)
        case Task():
            return _use_of_task(thing)
        case Team() if Workflow.objects.filter(team=thing).exists():
            return _("The team %(name)s still has %(used)s. Delete them first.") % {
                "name": thing.name,
                "used": _("workflows"),
            }
    return ""


def _use_of_workflow(workflow: Workflow) -> str:
    waiting = WorkflowDependency.objects.filter(upstream=workflow).exclude(revision__workflow=workflow)
    now = waiting.filter(revision__current_of__isnull=False).values_list("revision__workflow__name", flat=True)
    if names := sorted(set(now)):
        return _("The workflow %(names)s waits for the cycles of %(name)s. Let go of it there first.") % {
            "names": ", ".join(names),
            "name": workflow.name,
        }
    if CycleInstance.objects.filter(workflow=workflow, started_at__isnull=False).exists():
        return _(
            "The workflow %(name)s has records of what ran, which stay until their retention ends. "
            "Switch it off instead; nothing of its schedule runs then."
        ) % {"name": workflow.name}
    if names := sorted(set(waiting.values_list("revision__workflow__name", flat=True))):
        return _(
            "An earlier revision of the workflow %(names)s waits for the cycles of %(name)s, and revisions are "
            "kept. Switch it off instead; nothing of its schedule runs then."
        ) % {"names": ", ".join(names), "name": workflow.name}
    return ""


def _use_of_task(task: Task) -> str:
    nodes = WorkflowNode.objects.filter(task=task)
    now = nodes.filter(revision__current_of__isnull=False).values_list("revision__workflow__name", flat=True)
    if names := sorted(set(now)):
        return _("The task %(name)s is a node of the workflow %(names)s. Take it out there first.") % {
            "name": task.name,
            "names": ", ".join(names),
        }
    if names := sorted(set(nodes.values_list("revision__workflow__name", flat=True))):
        return _(
            "The task %(name)s is in an earlier revision of the workflow %(names)s, which is kept. Disable it "
            "instead; a disabled task does not run by itself."
        ) % {"name": task.name, "names": ", ".join(names)}
    return ""
