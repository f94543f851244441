"""The list of cycle instances, with the live view and the count that keep it useful."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.models import SavedFilter
from scheduling.permissions import may_somewhere
from scheduling.queries import Page, capped_count, newest_first
from scheduling.services import MOST_AT_ONCE
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.paging import cursors_of
from scheduling.views.rows import difference, shown_by
from scheduling.views.saved import default_query
from workflows.filters import AHEAD, CycleFilter
from workflows.models import CycleInstance
from workflows.permissions import RERUN, STOP
from workflows.views.rows import CycleRow

TEMPLATE = "workflows/cycle_list.html"
# The name of this list among the saved filters.
PAGE = "cycles"
PAGE_SIZE = 50
# Nobody reads further, and counting does not get slower.
MOST_COUNTED = 10_000


@require_safe
def cycle_list(request: HtmxRequest) -> HttpResponse:
    """Cycle instances, filtered, the newest cycle first, in keyset pages.

    Opened bare, the page applies the filter that its reader made the default.
    """
    if not request.GET and (query := default_query(request, PAGE)):
        return redirect(f"{request.path}?{query}")
    context = _list(request)
    context |= {
        "saved": list(SavedFilter.objects.filter(user=request.user.pk, page=PAGE)),
        "count": _known_count(context["page"]),
        "most_at_once": MOST_AT_ONCE,
        "kept_days": settings.TAILRACE["RETENTION_DAYS"],
    }
    if not context["rows"]:
        context["none_at_all"] = not CycleInstance.objects.visible_to(request.user).exists()
    return render(request, TEMPLATE, context, status=context["status"])


@require_safe
def cycle_list_changes(request: HtmxRequest) -> HttpResponse:
    """What differs on a list page since it last asked; one on which nothing can change comes to rest."""
    context = _list(request)
    changes = difference(request, context["rows"])
    at_rest = context["at_rest"]
    if not changes and not at_rest:
        return HttpResponse(status=NOTHING_NEW)
    context |= {"changes": changes}
    return render(request, f"{TEMPLATE}#changes", context, status=STOP_POLLING if at_rest else 200)


@require_safe
def cycle_list_count(request: HtmxRequest) -> HttpResponse:
    """How many instances match, asked apart so that the page need not wait for it."""
    filters = CycleFilter(request.GET, user=request.user)
    count = capped_count(filters.rows_of(), MOST_COUNTED, within=filters.within)
    return render(request, f"{TEMPLATE}#count", {"count": _said_count(count)})


def _list(request: HtmxRequest) -> dict[str, Any]:
    filters = CycleFilter(request.GET, user=request.user)
    valid = filters.is_valid()
    page = newest_first(
        filters.rows_of().for_rows(),
        size=PAGE_SIZE,
        within=filters.within,
        time="cycle_time",
        **cursors_of(request),
    )
    rows = CycleRow.of(page.rows, request.user)
    ended = all(row.instance.is_finished for row in rows)
    return {
        "filters": filters,
        "page": page,
        "rows": rows,
        "shown": shown_by(rows),
        "at_rest": not (valid and _grows(filters, page)) and ended,
        "query": filters.query,
        "asked": request.GET.urlencode(),
        "may_stop": may_somewhere(request.user, STOP),
        "may_rerun": may_somewhere(request.user, RERUN),
        "ahead": AHEAD,
        "saved_page": PAGE,
        "saved_list": "cycle-list",
        "time_zone": timezone.get_current_timezone_name(),
        "status": 200 if valid else 422,
    }


def _grows(filters: CycleFilter, page: Page[CycleInstance]) -> bool:
    """Whether an instance that is made, or whose time comes, may come in on this page."""
    _since, until = filters.bounds
    past = filters.form.cleaned_data["window"] == "range" and until is not None and until < timezone.now()
    return page.newer is None and not past and not filters.form.cleaned_data["cycle"]


def _known_count(page: Page[CycleInstance]) -> str | None:
    """The count when the page itself tells it: it holds all there is."""
    return _said_count(len(page.rows)) if page.older is None and page.newer is None else None


def _said_count(count: int) -> str:
    return f"{MOST_COUNTED:,}+" if count > MOST_COUNTED else f"{count:,}"
