"""The execution records, and the live view and the count that keep the list useful."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.filters import BatchFilter
from scheduling.models import Batch
from scheduling.permissions import RERUN, STOP, may_somewhere
from scheduling.queries import Page
from scheduling.views.lists import RecordList
from scheduling.views.rows import BatchRow
from scheduling.views.saved import BATCHES


def _grows(filters: BatchFilter) -> bool:
    """Whether a batch that begins from now on may match."""
    until = filters.bounds[1]
    return not filters.names_batches and (until is None or until > timezone.now())


RECORDS = RecordList("scheduling/batch_list.html", BATCHES, "batch-list", BatchFilter, BatchRow.of, _grows)


@require_safe
def batch_list(request: HtmxRequest) -> HttpResponse:
    """Execution records: one tab, filtered, newest first."""

    def also(filters: BatchFilter, page: Page[Batch]) -> dict[str, Any]:
        emptiness = {} if page.rows else _emptiness(request, filters)
        return {"tab": filters.tab} | emptiness

    return RECORDS.page(request, also, **_offered(request))


@require_safe
def batch_list_changes(request: HtmxRequest) -> HttpResponse:
    """What differs on a page since it last asked."""
    return RECORDS.changes(request, **_offered(request))


@require_safe
def batch_list_count(request: HtmxRequest) -> HttpResponse:
    """How many batches match."""
    return RECORDS.count(request)


def _offered(request: HtmxRequest) -> dict[str, Any]:
    return {"may_act": any(may_somewhere(request.user, permission) for permission in (STOP, RERUN))}


def _emptiness(request: HtmxRequest, filters: BatchFilter) -> dict[str, Any]:
    """Why there are no rows, as far as it can be told: no batch at all, or older than is kept."""
    days: int = settings.TAILRACE["RETENTION_DAYS"]
    until = filters.bounds[1] if filters.is_valid() else None
    removed = until is not None and until < timezone.now() - timedelta(days=days)
    return {
        "none_at_all": not Batch.objects.visible_to(request.user).exists(),
        "removed_after": days if removed else None,
    }
