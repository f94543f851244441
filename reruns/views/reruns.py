"""The list of reruns, live, with one's own drafts above it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from reruns.filters import RerunFilter
from reruns.models import Rerun
from reruns.states import RerunState
from reruns.views.rows import RerunRow
from scheduling.models import SavedFilter
from scheduling.queries import Page, newest_first
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.paging import cursors_of
from scheduling.views.rows import difference, shown_by
from scheduling.views.saved import default_query

TEMPLATE = "reruns/rerun_list.html"
# The name of this list among the saved filters.
PAGE = "reruns"
PAGE_SIZE = 50
DRAFTS_SHOWN = 10


@require_safe
def rerun_list(request: HtmxRequest) -> HttpResponse:
    """The reruns that one may see, filtered, the last submitted first; above them one's drafts.

    Opened bare, the page applies the filter that its reader made the default.
    """
    if not request.GET and (query := default_query(request, PAGE)):
        return redirect(f"{request.path}?{query}")
    context = _list(request)
    drafts = list(Rerun.objects.drafts_of(request.user).select_related("team")[: DRAFTS_SHOWN + 1])
    context |= {
        "drafts": drafts[:DRAFTS_SHOWN],
        "more_drafts": len(drafts) > DRAFTS_SHOWN,
        "saved": list(SavedFilter.objects.filter(user=request.user.pk, page=PAGE)),
        "kept_days": settings.TAILRACE["RETENTION_DAYS"],
    }
    if not context["rows"]:
        submitted = Rerun.objects.visible_to(request.user).exclude(state=RerunState.DRAFT)
        context["none_at_all"] = not submitted.exists()
    return render(request, TEMPLATE, context, status=context["status"])


@require_safe
def rerun_list_changes(request: HtmxRequest) -> HttpResponse:
    """What differs on a list page since it last asked; one on which nothing can change comes to rest."""
    context = _list(request)
    changes = difference(request, context["rows"])
    at_rest = context["at_rest"]
    if not changes and not at_rest:
        return HttpResponse(status=NOTHING_NEW)
    context |= {"changes": changes}
    return render(request, f"{TEMPLATE}#changes", context, status=STOP_POLLING if at_rest else 200)


def _list(request: HtmxRequest) -> dict[str, Any]:
    filters = RerunFilter(request.GET, user=request.user)
    valid = filters.is_valid()
    page = newest_first(
        filters.rows_of().select_related("team"), size=PAGE_SIZE, time="submitted_at", **cursors_of(request)
    )
    rows = RerunRow.of(page.rows, request.user)
    ended = all(row.rerun.is_finished for row in rows)
    return {
        "filters": filters,
        "page": page,
        "rows": rows,
        "shown": shown_by(rows),
        "at_rest": not (valid and _grows(filters, page)) and ended,
        "query": filters.query,
        "asked": request.GET.urlencode(),
        "saved_page": PAGE,
        "saved_list": "rerun-list",
        "time_zone": timezone.get_current_timezone_name(),
        "status": 200 if valid else 422,
    }


def _grows(filters: RerunFilter, page: Page[Rerun]) -> bool:
    """Whether a rerun that is submitted now may come in on this page."""
    _since, until = filters.bounds
    return page.newer is None and (until is None or until > timezone.now())
