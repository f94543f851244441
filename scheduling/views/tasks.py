"""The list of tasks and the page of one, each with the live view that keeps it fresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import Any

from django.contrib import admin
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling import calendars, charts, notifications, words
from scheduling.definitions import revisions
from scheduling.filters import TaskFilter
from scheduling.models import Batch, JournalEntry, Task, TaskRevision
from scheduling.models.tasks import SCHEDULED
from scheduling.permissions import visible
from scheduling.views.links import records, tab_of
from scheduling.views.lists import NumberedList
from scheduling.views.rows import BatchRow
from scheduling.views.sections import Section, changes, context_of
from scheduling.views.task_rows import RECENT, Performance, TaskRow

DETAIL = "scheduling/task_detail.html"
CHARTED = 100
BATCHES_SHOWN = 15
DUE_SHOWN = 5
REVISIONS_SHOWN = 100
ENTRIES_SHOWN = 20


TASKS = NumberedList("scheduling/task_list.html", TaskFilter, TaskRow.of, {"recent": RECENT})


# --- the list --------------------------------------------------------------------------------------


@require_safe
def task_list(request: HtmxRequest) -> HttpResponse:
    """The tasks by name, filtered, fifty a page."""
    return TASKS.page(request)


@require_safe
def task_list_changes(request: HtmxRequest) -> HttpResponse:
    """The tasks that differ from what the page shows."""
    return TASKS.changes(request)


# --- one task --------------------------------------------------------------------------------------


@require_safe
def task_detail(request: HtmxRequest, pk: int) -> HttpResponse:
    """A task: how it ran, when it is due, what it does, what it did before, and who changed what."""
    task = visible(Task.objects.for_page(), request.user, pk=pk)
    context = context_of(_sections(request, task)) | _content(request, task) | _of_task(request, task)
    return render(request, DETAIL, context)


@require_safe
def task_changes(request: HtmxRequest, pk: int) -> HttpResponse:
    """The parts of a task's page that differ from what it shows."""
    task = visible(Task.objects.for_page(), request.user, pk=pk)
    return changes(request, f"{DETAIL}#changes", _sections(request, task), **_of_task(request, task))


def _of_task(request: HtmxRequest, task: Task) -> dict[str, Any]:
    return {
        "task": task,
        "told": notifications.told_in_words(task.notify),
        "time_zone": timezone.get_current_timezone_name(),
        # Definitions are edited in the administration, which does not let everybody in.
        "change_address": reverse("admin:scheduling_task_change", args=[task.pk])
        if admin.site.has_permission(request)
        else "",
    }


def _sections(request: HtmxRequest, task: Task) -> list[Section]:
    [row] = TaskRow.of([task], request.user, size=CHARTED)
    return [_head(row), _due(task), _durations(row), _batches(request, task), _journal(task)]


def _head(row: TaskRow) -> Section:
    task, revision = row.task, row.task.revision
    policies = revision and [
        (_("Retries"), words.of_retries(revision)),
        (_("Time-out"), words.of_timeout(revision)),
        (_("Success"), words.of_success_ratio(revision)),
        (_("Overlap"), words.of_overlap(revision)),
        (_("Misfire"), words.of_misfire(revision)),
    ]
    return Section(
        row.mark,
        row.digest,
        {"row": row, "performance": Performance.of(row.runs), "policies": policies, "revision": task.revision},
    )


def _durations(row: TaskRow) -> Section:
    return Section(
        "durations",
        [(run.pk, run.state, run.took) for run in row.runs],
        {
            "chart": charts.durations(row.runs),
            "runs": row.runs,
            "slow_first": [run for run in reversed(row.runs) if run.took is not None],
        },
    )


def _batches(request: HtmxRequest, task: Task) -> Section:
    batches = Batch.objects.visible_to(request.user).filter(task=task).order_by("-created_at", "-pk")
    rows = BatchRow.of(list(batches.for_rows()[:BATCHES_SHOWN]), request.user)
    tab = tab_of(rows[0].batch.trigger) if rows else tab_of("")
    return Section(
        "batches-of-task",
        [(row.mark, row.digest) for row in rows],
        {"batches": rows, "records_address": records(tab=tab, task=task.pk)},
    )


def _journal(task: Task) -> Section:
    of_task = JournalEntry.objects.filter(object_type="task", object_id=task.pk)
    entries = list(of_task.order_by("-at", "-pk")[:ENTRIES_SHOWN])
    return Section("journal", [entry.pk for entry in entries], {"entries": entries})


# --- when it is due --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Due:
    """A due time; `jump` is how far the clocks of the task's zone were set since the one before, in words."""

    at: datetime
    jump: str


def _due(task: Task) -> Section:
    now = timezone.now()
    due = upcoming(task, now) if task.revision and task.revision.trigger in SCHEDULED else []
    return Section(
        "due",
        (task.enabled, task.revision_id, [(each.at, words.until(each.at, now)) for each in due]),
        {"due": due, "scheduled": bool(task.revision and task.revision.trigger in SCHEDULED)},
    )


def upcoming(task: Task, now: datetime) -> list[Due]:
    """The next due times of a scheduled task; of a disabled one, what they would be if it were enabled now."""
    revision = task.revision
    if revision is None:
        return []
    first = task.due_at if task.enabled else calendars.next_on_grid(revision, task.next_due_at, now)
    moments = [] if first is None else [first, *islice(_after(revision, first), DUE_SHOWN - 1)]
    jumps = ["", *(_jump(revision.timezone, *pair) for pair in pairwise(moments))]
    return [Due(at, jump) for at, jump in zip(moments, jumps, strict=True)]


def _after(revision: TaskRevision, due: datetime) -> Any:
    while (following := calendars.next_due(revision, due)) is not None:
        yield following
        due = following


def _jump(zone: str, earlier: datetime, later: datetime) -> str:
    offsets = [calendars.offset(zone, moment) for moment in (earlier, later)]
    forward = offsets[1] - offsets[0]
    if not forward:
        return ""
    if forward > timedelta(0):
        return _("the clocks go forward by %s before it") % words.length(forward)
    return _("the clocks go back by %s before it") % words.length(forward)


# --- what it does ----------------------------------------------------------------------------------


def _content(request: HtmxRequest, task: Task) -> dict[str, Any]:
    listed = list(
        task.revisions.select_related("created_by")
        .only("number", "created_at", "digest", "created_by__username", "task")
        .order_by("-number")[:REVISIONS_SHOWN]
    )
    older, newer = compared(request, listed)
    whole = {each.number: each for each in task.revisions.filter(number__in={older, newer})}
    for each in (*whole.values(), *filter(None, [task.revision])):
        each.task = task
    return {
        "text": revisions.content_text(task.revision) if task.revision else "",
        "revisions": listed,
        "older": older,
        "newer": newer,
        "comparison": revisions.compare(whole[older], whole[newer]) if len(whole) == 2 else None,
    }


def compared(request: HtmxRequest, listed: Sequence[Any]) -> tuple[int, int]:
    """The numbers of the two revisions to compare, older first: those asked for, else the last two."""
    numbers = [each.number for each in listed] or [0]
    asked = []
    for name, otherwise in (("from", numbers[min(1, len(numbers) - 1)]), ("to", numbers[0])):
        given = request.GET.get(name, "")
        asked.append(int(given) if given.isdigit() and int(given) in numbers else otherwise)
    return min(asked), max(asked)
