"""The list of reruns, live, with one's own drafts above it."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from reruns.filters import RerunFilter
from reruns.models import Rerun
from reruns.states import RerunState
from reruns.views.rows import RerunRow
from scheduling.queries import Page
from scheduling.views.lists import RecordList

# The name of this list among the saved filters.
PAGE = "reruns"
DRAFTS_SHOWN = 10


def _grows(filters: RerunFilter) -> bool:
    """Whether a rerun that is submitted now may match."""
    _since, until = filters.bounds
    return until is None or until > timezone.now()


RERUNS = RecordList(
    "reruns/rerun_list.html", PAGE, "rerun-list", RerunFilter, RerunRow.of, _grows, "submitted_at"
)


@require_safe
def rerun_list(request: HtmxRequest) -> HttpResponse:
    """The reruns that one may see, filtered, the last submitted first; above them one's drafts."""

    def also(_filters: RerunFilter, page: Page[Rerun]) -> dict[str, Any]:
        drafts = list(Rerun.objects.drafts_of(request.user).select_related("team")[: DRAFTS_SHOWN + 1])
        submitted = Rerun.objects.visible_to(request.user).exclude(state=RerunState.DRAFT)
        return {
            "drafts": drafts[:DRAFTS_SHOWN],
            "more_drafts": len(drafts) > DRAFTS_SHOWN,
            "none_at_all": not page.rows and not submitted.exists(),
        }

    return RERUNS.page(request, also)


@require_safe
def rerun_list_changes(request: HtmxRequest) -> HttpResponse:
    """What differs on a page since it last asked."""
    return RERUNS.changes(request)
