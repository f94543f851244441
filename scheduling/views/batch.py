"""The page of one batch, with the live view that keeps it fresh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.models import Batch, Instance
from scheduling.permissions import visible
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.rows import BatchRow, InstanceRow, difference, shown_by

INSTANCES_SIZE = 100
RERUNS_SHOWN = 20


@require_safe
def batch_detail(request: HtmxRequest, pk: int) -> HttpResponse:
    """A batch: its facts and its instances by number, a hundred a page."""
    batch = visible(Batch.objects.for_page(), request.user, pk=pk)
    context = batch_context(request, batch)
    context["reruns"] = list(
        batch.reruns.visible_to(request.user).order_by("pk").only("pk", "state")[:RERUNS_SHOWN]
    )
    return render(request, "scheduling/batch_detail.html", context)


@require_safe
def batch_changes(request: HtmxRequest, pk: int) -> HttpResponse:
    """What differs on a batch's page since it last asked."""
    batch = visible(Batch.objects.for_page(), request.user, pk=pk)
    context = batch_context(request, batch)
    changes = difference(request, [context["row"], *context["instances"].rows])
    at_rest = context["at_rest"]
    if not changes and not at_rest:
        return HttpResponse(status=NOTHING_NEW)
    context |= {
        "changes": changes,
        "head_changed": context["row"] in changes.changed,
        "changed_rows": [row for row in changes.changed if row is not context["row"]],
    }
    return render(
        request, "scheduling/batch_detail.html#changes", context, status=STOP_POLLING if at_rest else 200
    )


@dataclass(frozen=True)
class InstancePage:
    """A page of a batch's instances by number; `after` and `before` are the numbers its neighbours begin at."""

    rows: list[InstanceRow]
    first: int
    following: int | None
    preceding: int | None


def batch_context(request: HtmxRequest, batch: Batch) -> dict[str, Any]:
    """What the page of `batch` (from `for_page`) and its fragments show."""
    [row] = BatchRow.of([batch], request.user)
    instances = _instances_of(request, batch)
    return {
        "batch": batch,
        "row": row,
        "instances": instances,
        "shown": shown_by([row, *instances.rows]),
        "at_rest": batch.is_finished and all(each.instance.is_finished for each in instances.rows),
        "time_zone": timezone.get_current_timezone_name(),
    }


def _instances_of(request: HtmxRequest, batch: Batch) -> InstancePage:
    given = request.GET.get("from", "0")
    first = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0
    # Numbers are dense from 0, so a page is a range of them.
    found = list(
        Instance.objects.filter(batch=batch, number__gte=first)
        .select_related("node")
        .order_by("number")[:INSTANCES_SIZE]
    )
    for instance in found:
        instance.batch = batch
    end = first + INSTANCES_SIZE
    return InstancePage(
        rows=InstanceRow.of(found, request.user),
        first=first,
        following=end if end < batch.total else None,
        preceding=max(0, first - INSTANCES_SIZE) if first else None,
    )
