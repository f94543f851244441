"""The list of workflows, with the live view that keeps it fresh."""

from __future__ import annotations

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.views.lists import NumberedList
from workflows.filters import WorkflowFilter
from workflows.views.rows import RECENT, WorkflowRow

WORKFLOWS = NumberedList("workflows/workflow_list.html", WorkflowFilter, WorkflowRow.of, {"recent": RECENT})


@require_safe
def workflow_list(request: HtmxRequest) -> HttpResponse:
    """The workflows by name, filtered, fifty a page."""
    return WORKFLOWS.page(request)


@require_safe
def workflow_list_changes(request: HtmxRequest) -> HttpResponse:
    """The workflows that differ from what the page shows."""
    return WORKFLOWS.changes(request)
