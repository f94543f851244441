"""The list of cycle instances, with the live view and the count that keep it useful."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.permissions import may_somewhere
from scheduling.queries import Page
from scheduling.views.lists import RecordList
from workflows.filters import AHEAD, CycleFilter
from workflows.models import CycleInstance
from workflows.permissions import RERUN, STOP
from workflows.views.rows import CycleRow

# The name of this list among the saved filters.
PAGE = "cycles"


def _grows(filters: CycleFilter) -> bool:
    """Whether an instance that is made, or whose time comes, may match."""
    _since, until = filters.bounds
    past = filters.form.cleaned_data["window"] == "range" and until is not None and until < timezone.now()
    return not past and not filters.form.cleaned_data["cycle"]


CYCLES = RecordList(
    "workflows/cycle_list.html", PAGE, "cycle-list", CycleFilter, CycleRow.of, _grows, "cycle_time"
)


@require_safe
def cycle_list(request: HtmxRequest) -> HttpResponse:
    """Cycle instances, filtered, the newest cycle first."""

    def also(_filters: CycleFilter, page: Page[CycleInstance]) -> dict[str, Any]:
        none = not page.rows and not CycleInstance.objects.visible_to(request.user).exists()
        return {"none_at_all": none}

    return CYCLES.page(request, also, **_offered(request))


@require_safe
def cycle_list_changes(request: HtmxRequest) -> HttpResponse:
    """What differs on a page since it last asked."""
    return CYCLES.changes(request, **_offered(request))


@require_safe
def cycle_list_count(request: HtmxRequest) -> HttpResponse:
    """How many instances match."""
    return CYCLES.count(request)


def _offered(request: HtmxRequest) -> dict[str, Any]:
    return {
        "may_stop": may_somewhere(request.user, STOP),
        "may_rerun": may_somewhere(request.user, RERUN),
        "ahead": AHEAD,
    }
