"""The list of workflows, with the live view that keeps it fresh."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Page, Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.views.live import NOTHING_NEW
from scheduling.views.rows import difference, shown_by
from workflows.filters import WorkflowFilter
from workflows.models import Workflow
from workflows.views.rows import RECENT, WorkflowRow

TEMPLATE = "workflows/workflow_list.html"
PAGE_SIZE = 50


@require_safe
def workflow_list(request: HtmxRequest) -> HttpResponse:
    """The workflows by name, filtered, fifty a page."""
    context = _list(request)
    return render(request, TEMPLATE, context, status=context["status"])


@require_safe
def workflow_list_changes(request: HtmxRequest) -> HttpResponse:
    """The rows that differ from what the page shows; who came or went is seen when the page is opened anew."""
    context = _list(request)
    found = difference(request, context["rows"])
    if not found:
        return HttpResponse(status=NOTHING_NEW)
    return render(request, f"{TEMPLATE}#changes", context | {"changed": found.changed, "gone": found.gone})


def _list(request: HtmxRequest) -> dict[str, Any]:
    filters = WorkflowFilter(request.GET, request=request)
    page: Page[Workflow] = Paginator(filters.rows_of().for_rows(), PAGE_SIZE).get_page(request.GET.get("page"))
    rows = WorkflowRow.of(list(page.object_list), request.user)
    query = request.GET.copy()
    query.pop("page", None)
    return {
        "filters": filters,
        "page": page,
        "rows": rows,
        "shown": shown_by(rows),
        # Said, since to find that a name is not there is what takes a template longest.
        "oob": False,
        "recent": RECENT,
        "query": query.urlencode(),
        "asked": request.GET.urlencode(),
        "time_zone": timezone.get_current_timezone_name(),
        "status": 200 if filters.is_valid() else 422,
    }
