"""The execution records, and the live view, the count and the suggestions that keep the list useful."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.filters import BatchFilter
from scheduling.models import Batch, SavedFilter
from scheduling.permissions import RERUN, STOP, may_somewhere
from scheduling.queries import Page, capped_count, newest_first
from scheduling.services import MOST_AT_ONCE
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.paging import cursors_of
from scheduling.views.rows import BatchRow, difference, shown_by
from scheduling.views.saved import BATCHES, default_query

PAGE_SIZE = 50
# Nobody reads further, and counting does not get slower.
MOST_COUNTED = 10_000


@require_safe
def batch_list(request: HtmxRequest) -> HttpResponse:
    """Execution records: one tab, filtered, newest first, in keyset pages.

    Opened bare, the page applies the filter that its reader made the default.
    """
    if not request.GET and (query := default_query(request, BATCHES)):
        return redirect(f"{request.path}?{query}")
    context = _list(request)
    context |= {
        "saved": list(SavedFilter.objects.filter(user=request.user.pk, page=BATCHES)),
        "count": _known_count(context),
        "most_at_once": MOST_AT_ONCE,
    }
    if not context["rows"]:
        context |= _emptiness(request, context["filters"])
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


@require_safe
def batch_list_count(request: HtmxRequest) -> HttpResponse:
    """How many batches match, asked apart so that the page need not wait for it."""
    filters = BatchFilter(request.GET, user=request.user)
    count = capped_count(filters.rows_of(), MOST_COUNTED, within=filters.within)
    return render(request, "scheduling/batch_list.html#count", {"count": _said_count(count)})


def _list(request: HtmxRequest) -> dict[str, Any]:
    filters = BatchFilter(request.GET, user=request.user)
    valid = filters.is_valid()
    page = _page_of(request, filters)
    rows = BatchRow.of(page.rows, request.user)
    return {
        "tab": filters.tab,
        "filters": filters,
        "page": page,
        "rows": rows,
        "shown": shown_by(rows),
        "at_rest": not (valid and _grows(filters, page)) and all(row.batch.is_finished for row in rows),
        "query": filters.query,
        "asked": request.GET.urlencode(),
        "saved_page": BATCHES,
        "saved_list": "batch-list",
        "may_act": any(may_somewhere(request.user, permission) for permission in (STOP, RERUN)),
        "time_zone": timezone.get_current_timezone_name(),
        "status": 200 if valid else 422,
    }


def _grows(filters: BatchFilter, page: Page[Batch]) -> bool:
    """Whether a batch that begins from now on may come in on this page."""
    until = filters.bounds[1]
    return page.newer is None and not filters.names_batches and (until is None or until > timezone.now())


def _page_of(request: HtmxRequest, filters: BatchFilter) -> Page[Batch]:
    return newest_first(
        filters.rows_of().for_rows(), size=PAGE_SIZE, within=filters.within, **cursors_of(request)
    )


def _known_count(context: dict[str, Any]) -> str | None:
    """The count when the page itself tells it: it holds all there is."""
    page = context["page"]
    return _said_count(len(page.rows)) if page.older is None and page.newer is None else None


def _said_count(count: int) -> str:
    return f"{MOST_COUNTED:,}+" if count > MOST_COUNTED else f"{count:,}"


def _emptiness(request: HtmxRequest, filters: BatchFilter) -> dict[str, Any]:
    """Why there are no rows, as far as it can be told: no batch at all, or older than is kept."""
    days: int = settings.TAILRACE["RETENTION_DAYS"]
    until = filters.bounds[1] if filters.is_valid() else None
    removed = until is not None and until < timezone.now() - timedelta(days=days)
    return {
        "none_at_all": not Batch.objects.visible_to(request.user).exists(),
        "removed_after": days if removed else None,
    }
