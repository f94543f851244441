"""The page of one instance: its executions, what happened to it, and the log of one execution, live."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.models import Execution, Instance, JournalEntry
from scheduling.permissions import visible
from scheduling.views import effective, log, timeline, why
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.rows import ExecutionRow, Head, InstanceRow, difference, shown_by

# Of a journal, which nobody reads beyond.
ENTRIES_SHOWN = 100


def instances() -> Any:
    """Instances with what the page of one shows."""
    related = ("batch__task__revision", "batch__revision", "batch__group", "node")
    return Instance.objects.select_related(*related).defer(
        "batch__task__revision__shards", "batch__revision__shards"
    )


@require_safe
def instance_detail(request: HtmxRequest, pk: int) -> HttpResponse:
    """An instance: facts, executions, what happened, and the log of the latest or of `?execution=`.

    `execution` is the number of the attempt, `line` one of its lines, `q` what to search for and `hit` which
    of the lines that hold it.
    """
    instance = visible(instances(), request.user, pk=pk)
    executions = executions_of(instance)
    context = _context(request, instance, executions) | log.whole(request, instance, executions)
    context |= _events_context(instance, executions) | {"effective": effective.of_instance(instance)}
    return render(request, "scheduling/instance_detail.html", context)


@require_safe
def instance_changes(request: HtmxRequest, pk: int) -> HttpResponse:
    """What differs on an instance's page since it last asked, and the output behind what it shows.

    A page that follows the latest execution gets the log of a later one when there is one.
    """
    instance = visible(instances(), request.user, pk=pk)
    executions = executions_of(instance)
    context = _context(request, instance, executions) | log.news(request, instance, executions)
    head = context["head"]
    changes = difference(request, [head, *context["executions"]])
    at_rest = context["at_rest"] and not context["more"]
    if not (changes or context["log_changed"] or at_rest):
        return HttpResponse(status=NOTHING_NEW)
    context |= {
        "head_changed": head in changes.changed,
        "executions_changed": bool(changes),
    }
    if changes:
        context |= _events_context(instance, executions)
    return render(
        request, "scheduling/instance_detail.html#changes", context, status=STOP_POLLING if at_rest else 200
    )


def executions_of(instance: Instance) -> list[Execution]:
    """Every execution of `instance`, the latest first."""
    return list(instance.executions.select_related("node").order_by("-number"))


def head_context(
    request: HtmxRequest, instance: Instance, executions: list[Execution] | None = None
) -> dict[str, Any]:
    """What the head of the page of `instance` (from `instances`) shows."""
    [row] = InstanceRow.of([instance], request.user)
    whys = why.of_instance(instance, executions_of(instance) if executions is None else executions)
    return {"instance": instance, "batch": instance.batch, "row": row, "head": Head(row, whys)}


def _context(request: HtmxRequest, instance: Instance, executions: list[Execution]) -> dict[str, Any]:
    context = head_context(request, instance, executions)
    rows = [ExecutionRow(execution) for execution in executions]
    return context | {
        "executions": rows,
        "shown": shown_by([context["head"], *rows]),
        "at_rest": instance.is_finished,
        "time_zone": timezone.get_current_timezone_name(),
    }


def _events_context(instance: Instance, executions: list[Execution]) -> dict[str, Any]:
    newest = JournalEntry.objects.leading_to(instance)[:ENTRIES_SHOWN]
    return {"events": timeline.of_instance(list(newest)[::-1], executions)}
