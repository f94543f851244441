"""The page of one workflow, with the live view that keeps it fresh."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import pgettext_lazy
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling import charts
from scheduling.models import JournalEntry, Task
from scheduling.permissions import User, visible
from scheduling.queries import newest_first
from scheduling.templatetags.tailrace import address
from scheduling.views.sections import Section, changes, context_of
from scheduling.views.tasks import compared
from scheduling.words import length, until
from workflows import definitions, drawing, periods, words
from workflows.models import Backfill, Cycle, CycleInstance, Workflow, WorkflowEdge, WorkflowNode
from workflows.models.definitions import Join
from workflows.queries import cycles_by_day
from workflows.ranges import CycleRanges
from workflows.states import CycleState
from workflows.views.rows import (
    BackfillRow,
    CycleRow,
    WorkflowRow,
    downstreams_of,
    upstreams_of,
)

TEMPLATE = "workflows/workflow_detail.html"
CHARTED = 100
DAYS = 30
CYCLES_SHOWN = 15
BACKFILLS_SHOWN = 5
NEXT_SHOWN = 5
REVISIONS_SHOWN = 50
ENTRIES_SHOWN = 20
# What a day's cycles stand as, from the bottom upward; what has not ended, or was stopped, is the third.
OTHER = "waiting"
LAYERS = (CycleState.SUCCESS.value, CycleState.FAILED.value, OTHER)
# What decides a cycle's result, and what does not, in the shape in which a flow shows states.
_CORE = {True: ("core", pgettext_lazy("node", "Core")), False: ("aside", pgettext_lazy("node", "Not core"))}


@require_safe
def workflow_detail(request: HtmxRequest, pk: int) -> HttpResponse:
    """A workflow: how it ran, when its cycles are, what it consists of, what it waits for and what for it."""
    workflow = visible(Workflow.objects.for_page(), request.user, pk=pk)
    context = context_of(_sections(request, workflow)) | _content(request, workflow)
    return render(request, TEMPLATE, context | _of(workflow))


@require_safe
def workflow_changes(request: HtmxRequest, pk: int) -> HttpResponse:
    """The parts of a workflow's page that differ from what it shows."""
    workflow = visible(Workflow.objects.for_page(), request.user, pk=pk)
    return changes(request, f"{TEMPLATE}#changes", _sections(request, workflow), **_of(workflow))


@require_safe
def workflow_days(request: HtmxRequest, pk: int) -> HttpResponse:
    """How the cycles of each of the last days stand: counted apart, as they may be tens of thousands."""
    workflow = visible(Workflow.objects.for_page(), request.user, pk=pk)
    return render(request, f"{TEMPLATE}#days", {"workflow": workflow} | _days(workflow, timezone.now()))


def _of(workflow: Workflow) -> dict[str, Any]:
    return {"workflow": workflow, "time_zone": timezone.get_current_timezone_name()}


def _sections(request: HtmxRequest, workflow: Workflow) -> list[Section]:
    now = timezone.now()
    [row] = WorkflowRow.of([workflow], request.user, size=CHARTED)
    return [
        _head(row),
        _durations(row),
        _cycles(request.user, workflow, now),
        _backfills(request.user, workflow),
        _next(workflow, now),
        _journal(workflow),
    ]


def _head(row: WorkflowRow) -> Section:
    return Section(row.mark, row.digest, {"row": row, "performance": row.performance})


def _durations(row: WorkflowRow) -> Section:
    return Section(
        "durations",
        [(run.pk, run.state, run.took) for run in row.cycles],
        {
            "chart": charts.durations(row.cycles),
            "runs": row.cycles,
            "newest": [run for run in reversed(row.cycles) if run.took is not None],
        },
    )


@dataclass(frozen=True)
class Day:
    """A day of the history: its counts by layer, and its column."""

    date: Any
    counts: dict[str, int]
    column: charts.Column


def _days(workflow: Workflow, now: datetime) -> dict[str, Any]:
    zone = ZoneInfo(workflow.revision.timezone if workflow.revision else "UTC")
    today = now.astimezone(zone).date()
    dates = [today - timedelta(days=before) for before in reversed(range(DAYS))]
    counted = cycles_by_day(Cycle.objects.all(), workflow, now - timedelta(days=DAYS), now, zone)
    counts = {date: dict.fromkeys(LAYERS, 0) for date in dates}
    for (date, state), count in counted.items():
        if date in counts:
            counts[date][state if state in LAYERS[:2] else OTHER] += count
    stack = charts.stack([counts[date] for date in dates], LAYERS)
    days = [Day(date, counts[date], column) for date, column in zip(dates, stack.columns, strict=True)]
    return {"days": days, "day_ticks": stack.ticks, "any_day": bool(counted)}


def _cycles(user: User, workflow: Workflow, now: datetime) -> Section:
    ranges = CycleRanges({"workflow": [workflow.pk]}, states=CycleState.values, until=now)
    found = CycleInstance.objects.visible_to(user).for_rows()
    rows = CycleRow.of(newest_first(found, size=CYCLES_SHOWN, within=ranges, time="cycle_time").rows, user)
    return Section("cycles-of-workflow", [(row.mark, row.digest) for row in rows], {"rows": rows})


def _backfills(user: User, workflow: Workflow) -> Section:
    recent = Backfill.objects.visible_to(user).filter(workflow=workflow).order_by("-created_at", "-pk")
    rows = BackfillRow.of(list(recent.for_rows()[:BACKFILLS_SHOWN]), user)
    return Section("backfills-of-workflow", [(row.mark, row.digest) for row in rows], {"backfills": rows})


# --- when its cycles are ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Coming:
    """A cycle to come: its time, the date of its data, and its instance if it has been made already."""

    at: datetime
    data_date: Any
    instance: CycleInstance | None


def _next(workflow: Workflow, now: datetime) -> Section:
    revision = workflow.revision
    coming: list[Coming] = []
    if revision is not None and revision.cron:
        following = list(islice(_slots_after(revision, now), NEXT_SHOWN))
        made = {
            each.cycle_time: each
            for each in CycleInstance.objects.filter(
                workflow=workflow, cycle_time__in=following, state__in=[CycleState.NOT_READY, CycleState.READY]
            )
        }
        coming = [Coming(slot, periods.data_date(revision, slot), made.get(slot)) for slot in following]
    said = [
        (each.at, until(each.at, now), each.instance and (each.instance.pk, each.instance.frozen_at))
        for each in coming
    ]
    return Section("next", (workflow.enabled, workflow.mode, workflow.revision_id, said), {"coming": coming})


def _slots_after(revision: Any, after: datetime) -> Any:
    while (slot := periods.next_slot(revision, after)) is not None:
        yield slot
        after = slot


def _journal(workflow: Workflow) -> Section:
    of_workflow = JournalEntry.objects.filter(object_type="workflow", object_id=workflow.pk)
    entries = list(of_workflow.order_by("-at", "-pk")[:ENTRIES_SHOWN])
    return Section("journal", [entry.pk for entry in entries], {"entries": entries})


# --- what it consists of ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """A node as the table of the content shows it; `task_seen`: its reader may open the task."""

    node: WorkflowNode
    after: list[str]
    task_seen: bool
    timeout: str


def _content(request: HtmxRequest, workflow: Workflow) -> dict[str, Any]:
    revision = workflow.revision
    if revision is None:
        return {"nodes": []}
    nodes = list(revision.nodes.select_related("task"))
    edges = list(WorkflowEdge.objects.filter(target__revision=revision).select_related("source").order_by("pk"))
    seen = set(
        Task.objects.visible_to(request.user)
        .filter(pk__in=[node.task_id for node in nodes])
        .values_list("pk", flat=True)
    )
    incoming: dict[int, list[WorkflowEdge]] = defaultdict(list)
    for edge in edges:
        incoming[edge.target_id].append(edge)
    upstreams = upstreams_of([workflow], request.user).get(revision.pk, [])
    own = revision.dependencies.filter(upstream=workflow).first()
    return {
        "nodes": [_node(node, incoming[node.pk], seen) for node in nodes],
        "flow": _flow(request, nodes, edges, seen),
        "upstreams": upstreams,
        "own": words.of_offset(own) if own else "",
        "downstreams": downstreams_of(workflow, request.user),
        "policies": [
            (_("Misfire"), words.of_misfire(revision)),
            (_("Parallelism"), words.of_parallelism(revision)),
            (_("Time-out"), words.of_timeout(revision)),
        ],
        **_revisions(request, workflow),
    }


def _revisions(request: HtmxRequest, workflow: Workflow) -> dict[str, Any]:
    """The newest revisions, and what differs between the two that are asked for, or the last two."""
    listed = list(workflow.revisions.select_related("created_by").order_by("-number")[:REVISIONS_SHOWN])
    older, newer = compared(request, listed)
    whole = {each.number: each for each in listed if each.number in {older, newer}}
    for each in whole.values():
        each.workflow = workflow
    return {
        "revisions": listed,
        "older": older,
        "newer": newer,
        "comparison": definitions.compare(whole[older], whole[newer]) if len(whole) == 2 else None,
    }


def _node(node: WorkflowNode, incoming: Sequence[WorkflowEdge], seen: set[int]) -> Node:
    after = [f"{edge.source.key}{_suffix(edge)}" for edge in incoming]
    timeout = length(timedelta(seconds=node.timeout)) if node.timeout else ""
    return Node(node, after, node.task_id in seen, timeout)


def _suffix(edge: WorkflowEdge) -> str:
    label = words.of_condition(edge.condition, edge.expected)
    return f" ({label})" if label else ""


def _flow(
    request: HtmxRequest, nodes: list[WorkflowNode], edges: list[WorkflowEdge], seen: set[int]
) -> drawing.Flow:
    joined = {edge.target_id for edge in edges}
    boxes = []
    for node in nodes:
        state, word = _CORE[node.core]
        sub = node.task.name
        if node.join == Join.ANY and node.pk in joined:
            sub = _("%(task)s · after any") % {"task": sub}
        boxes.append(
            drawing.Box(
                key=node.key,
                title=node.key,
                state=state,
                word=str(word),
                sub=sub,
                href=address("task-detail", node.task_id) if node.task_id in seen else "",
            )
        )
    keys = {node.pk: node.key for node in nodes}
    arrows = [
        drawing.Arrow(
            keys[edge.source_id], keys[edge.target_id], label=words.of_condition(edge.condition, edge.expected)
        )
        for edge in edges
    ]
    opened = request.GET.getlist("open")
    folds = drawing.Folds(
        opened=opened,
        whole="whole" in request.GET,
        open_href=lambda key: f"?{urlencode({'open': [*opened, key]}, doseq=True)}#content",
        fold_href="?#content",
        whole_href="?whole=1#content",
    )
    return drawing.draw(boxes, arrows, mark="definition", folds=folds)
