"""The execution records, with the live view that keeps them fresh."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from config.http import HtmxRequest, NotFoundMessage
from scheduling.filters import BASIC, WORKFLOW, BatchFilter
from scheduling.models import Batch
from scheduling.queries import BadCursor, Cursor, Page, newest_first
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.rows import BatchRow, difference, shown_by

PAGE_SIZE = 50


@require_safe
def batch_list(request: HtmxRequest) -> HttpResponse:
    """Execution records: one tab, filtered, newest first, in keyset pages."""
    context = _list(request)
    return render(request, "scheduling/batch_list.html", context, status=context["status"])


@require_safe
def batch_list_changes(request: HtmxRequest) -> HttpResponse:
    """What differs on a list page since it last asked.

    The first page never comes to rest, as a new batch may begin at any time; older ones do.
    """
    context = _list(request)
    changes = difference(request, context["rows"])
    at_rest = context["at_rest"]
    if not changes and not at_rest:
        return HttpResponse(status=NOTHING_NEW)
    context |= {"changes": changes}
    return render(
        request,
        "scheduling/batch_list.html#changes",
        context,
        status=STOP_POLLING if at_rest else 200,
    )


def _list(request: HtmxRequest) -> dict[str, Any]:
    tab = WORKFLOW if request.GET.get("tab") == WORKFLOW else BASIC
    filters = BatchFilter(request.GET, tab=tab, request=request)
    page = _page_of(request, filters.rows_of().for_rows())
    rows = BatchRow.of(page.rows, request.user)
    valid = filters.is_valid()
    exact = valid and bool(filters.form.cleaned_data["batch"])
    grows = valid and not exact and page.newer is None
    query = request.GET.copy()
    for name in ("older", "newer"):
        query.pop(name, None)
    return {
        "tab": tab,
        "filters": filters,
        "page": page,
        "rows": rows,
        "shown": shown_by(rows),
        "at_rest": not grows and all(row.batch.is_finished for row in rows),
        "query": query.urlencode(),
        "asked": request.GET.urlencode(),
        "time_zone": timezone.get_current_timezone_name(),
        "status": 200 if valid else 422,
    }


def _page_of(request: HtmxRequest, batches: Any) -> Page[Batch]:
    cursors: dict[str, Cursor] = {}
    for name in ("older", "newer"):
        if text := request.GET.get(name):
            try:
                cursors[name] = Cursor.parse(text)
            except BadCursor as error:
                raise Http404(
                    NotFoundMessage(_("The address names no page of the list. Open the list anew."))
                ) from error
    return newest_first(batches, size=PAGE_SIZE, **cursors)
