"""The page of one instance: its executions, and the log of one of them, live while it runs."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from config.http import HtmxRequest, NotFoundMessage
from scheduling.models import Execution, Instance, LogChunk
from scheduling.permissions import visible
from scheduling.queries import log_after
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.rows import ExecutionRow, InstanceRow, difference, shown_by

# What is kept of one log is bounded in bytes (about 1.3 MB), not in chunks: a slow job writes many small ones.
CHUNKS_AT_ONCE = 5000
FROM_THE_START = -1


@require_safe
def instance_detail(request: HtmxRequest, pk: int) -> HttpResponse:
    """An instance: facts, the history of its executions, and the log of the latest or of `?execution=`.

    `execution` is the number of the attempt.
    """
    instance = visible(Instance.objects.select_related("batch__task", "node"), request.user, pk=pk)
    context = instance_context(request, instance, after=FROM_THE_START)
    return render(request, "scheduling/instance_detail.html", context)


@require_safe
def instance_changes(request: HtmxRequest, pk: int) -> HttpResponse:
    """What differs on an instance's page since it last asked, and the output after `?after=`.

    A page that follows the latest execution gets the whole log anew when there is a later one.
    """
    instance = visible(Instance.objects.select_related("batch__task", "node"), request.user, pk=pk)
    after = _whole_number(request.GET.get("after"), FROM_THE_START)
    context = instance_context(request, instance, after=after, shown_log=request.GET.get("log"))
    changes = difference(request, [context["row"], *context["executions"]])
    news = bool(changes or context["log"].pieces or context["log_restarted"])
    if not news and not context["at_rest"]:
        return HttpResponse(status=NOTHING_NEW)
    context |= {
        "head_changed": context["row"] in changes.changed,
        "executions_changed": any(row is not context["row"] for row in changes.changed) or changes.added,
    }
    return render(
        request,
        "scheduling/instance_detail.html#changes",
        context,
        status=STOP_POLLING if context["at_rest"] else 200,
    )


def instance_context(
    request: HtmxRequest, instance: Instance, *, after: int, shown_log: str | None = None
) -> dict[str, Any]:
    """What the page of `instance` and its fragments show.

    `shown_log` is the id of the execution whose output up to `after` is already on the page.
    """
    executions = list(instance.executions.select_related("node").order_by("-number"))
    chosen = _chosen(request, executions)
    restarted = shown_log is not None and shown_log != (str(chosen.pk) if chosen else "")
    log = log_after(
        LogChunk.objects.filter(execution=chosen),
        FROM_THE_START if restarted else after,
        limit=CHUNKS_AT_ONCE,
    )
    [row] = InstanceRow.of([instance], request.user)
    rows = [ExecutionRow(execution) for execution in executions]
    return {
        "instance": instance,
        "batch": instance.batch,
        "row": row,
        "executions": rows,
        "chosen": chosen,
        "explicit": "execution" in request.GET,
        "log": log,
        "log_restarted": restarted,
        "shown": shown_by([row, *rows]),
        "at_rest": instance.is_finished and not log.more,
        "time_zone": timezone.get_current_timezone_name(),
    }


def _chosen(request: HtmxRequest, executions: list[Execution]) -> Execution | None:
    if "execution" not in request.GET:
        return executions[0] if executions else None
    number = _whole_number(request.GET["execution"], 0)
    for execution in executions:
        if execution.number == number:
            return execution
    raise Http404(NotFoundMessage(_("This instance has no such execution. Open it without one.")))


def _whole_number(text: str | None, default: int) -> int:
    # PostgreSQL's integer is what numbers and sequences are kept in.
    is_one = text is not None and text.isascii() and text.isdigit() and len(text) < 10
    return int(text) if is_one and text is not None else default
