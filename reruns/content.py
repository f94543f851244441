"""The content that a submitted rerun runs: pinned at submit, so that a later edit changes nothing by itself.

`Rerun.pinned` maps the ids of workflows, and of tasks, to those of their revisions. With *content as it ran*
only nodes that never ran in their source take the pinned revision of their task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from reruns.errors import RerunRefused
from reruns.models import Action, Rerun, RerunItem
from reruns.situation import contents_for
from reruns.states import ItemState
from scheduling.clocks import by_clock
from scheduling.models import Task
from workflows.graphs import keys_of
from workflows.models import CycleInstance, Workflow, WorkflowRevision
from workflows.services import Pinned

# Items that may still be generated; a failed one when the rerun is resumed.
UNDONE = (ItemState.WAITING, ItemState.FAILED, ItemState.TERMINATED)


@dataclass(frozen=True)
class Edit:
    """A workflow, or a task of it, edited after its content was pinned; `instances` may still run it."""

    workflow: str
    task: str
    """Empty when the workflow itself was edited."""
    edited_at: datetime
    edited_by: str
    instances: int


def pins_of(workflows: Mapping[int, int], tasks: Mapping[int, int | None]) -> dict[str, dict[str, int]]:
    """What `Rerun.pinned` stores: revision ids by workflow and by task."""
    return {
        "workflows": {str(pk): revision for pk, revision in workflows.items()},
        "tasks": {str(pk): revision for pk, revision in tasks.items() if revision is not None},
    }


def pinned_for(rerun: Rerun, source: CycleInstance) -> Pinned:
    """The content of a rerun of `source`, whose workflow is locked. Raises RerunRefused when it is gone."""
    revision = source.revision
    if not rerun.as_it_ran:
        pk = rerun.pinned["workflows"].get(str(source.workflow_id))
        found = WorkflowRevision.objects.filter(pk=pk).first()
        if found is None:
            raise RerunRefused(_("The content pinned at submit was removed. Run the current content instead."))
        revision = found
    return Pinned(revision, {int(task): pk for task, pk in rerun.pinned["tasks"].items()})


def edits_of(rerun: Rerun) -> list[Edit]:
    """What was edited since the content was pinned, of workflows with instances that may still run it."""
    if rerun.as_it_ran or rerun.is_finished or rerun.is_draft:
        return []
    counts = _undone(rerun)
    workflows = Workflow.objects.filter(pk__in=counts).select_related("revision__created_by").order_by("name")
    found = []
    for workflow in workflows:
        revision, count = workflow.revision, counts[workflow.pk]
        if revision is not None and revision.pk != rerun.pinned["workflows"].get(str(workflow.pk)):
            found.append(Edit(workflow.name, "", revision.created_at, _author(revision), count))
    return found + _edited_tasks(rerun, counts)


def _undone(rerun: Rerun) -> dict[int, int]:
    """How many instances may still be generated, by workflow."""
    items = RerunItem.objects.filter(rerun=rerun.pk, state__in=UNDONE).exclude(action=Action.FREEZE)
    counts: dict[int, int] = {}
    for workflow in items.values_list("workflow_id", flat=True):
        counts[workflow] = counts.get(workflow, 0) + 1
    return counts


def _edited_tasks(rerun: Rerun, counts: Mapping[int, int]) -> list[Edit]:
    pins, revisions = rerun.pinned["tasks"], rerun.pinned["workflows"]
    contents = contents_for({revisions[str(pk)] for pk in counts if str(pk) in revisions}, None)
    names = dict(Workflow.objects.filter(pk__in=counts).values_list("pk", "name"))
    of_task: dict[int, int] = {}
    for workflow in counts:
        content = contents.get(revisions.get(str(workflow), 0))
        for node in content.nodes if content else ():
            of_task.setdefault(node.task_id, workflow)
    tasks = Task.objects.filter(pk__in=of_task).select_related("revision__created_by").order_by("name")
    return [
        Edit(
            names[of_task[task.pk]],
            task.name,
            task.revision.created_at,
            _author(task.revision),
            counts[of_task[task.pk]],
        )
        for task in tasks
        if task.revision is not None and pins.get(str(task.pk)) != task.revision_id
    ]


def _author(revision: Any) -> str:
    return revision.created_by.get_username() if revision.created_by else ""


def current_pins(rerun: Rerun) -> dict[str, dict[str, int]]:
    """The pins of a locked rerun with the current content of every workflow that may still run.

    Raises RerunRefused when chosen nodes are not in it.
    """
    counts = _undone(rerun)
    current = dict(Workflow.objects.filter(pk__in=counts).values_list("pk", "revision_id"))
    workflows = {pk: revision for pk, revision in current.items() if revision is not None}
    _refuse_missing_nodes(rerun, workflows)
    contents = contents_for(set(workflows.values()), None)
    tasks = {node.task_id: node.task_revision_id for each in contents.values() for node in each.nodes}
    fresh = pins_of(workflows, tasks)
    return {kind: rerun.pinned[kind] | fresh[kind] for kind in fresh}


def _refuse_missing_nodes(rerun: Rerun, revisions: Mapping[int, int]) -> None:
    items: Iterable[RerunItem] = RerunItem.objects.filter(rerun=rerun.pk, state__in=UNDONE)
    for item in items:
        known = set(keys_of(revisions[item.workflow_id]).values()) if item.workflow_id in revisions else set()
        if gone := sorted({*item.nodes} - known):
            raise RerunRefused(
                _("%(name)s has no node %(nodes)s in its current content. Take the instance out first.")
                % {"name": by_clock(item.name), "nodes": ", ".join(gone)}
            )
