"""What lists have in common: the rows that match a filter, a page of them, and the view that keeps it fresh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django_htmx.http import trigger_client_event

from config.http import HtmxRequest
from scheduling.models import SavedFilter
from scheduling.queries import Page, capped_count, newest_first
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.paging import cursors_of
from scheduling.views.rows import Row, difference, shown_by

PAGE_SIZE = 50
# Nobody reads further, and counting does not get slower.
MOST_COUNTED = 10_000
# Tells a page that rows came or went, so that it counts anew.
ROWS_CHANGED = "rows-changed"

type RowsOf = Callable[[list[Any], Any], list[Any]]


@dataclass(frozen=True)
class NumberedList:
    """Definitions and the like, of which there are hundreds: in numbered pages, in the order of `rows_of`.

    Its live view tells of rows that changed; who came or went is seen when the page is opened anew.
    """

    template: str
    filters: Callable[..., Any]
    rows: RowsOf
    also: dict[str, Any] = field(default_factory=dict)

    def page(self, request: HtmxRequest) -> HttpResponse:
        """The page that the address names; an invalid filter shows its mistakes and no rows."""
        context = self._context(request)
        return render(request, self.template, context, status=context["status"])

    def changes(self, request: HtmxRequest) -> HttpResponse:
        """The rows that differ from what the page shows."""
        context = self._context(request)
        found = difference(request, context["rows"])
        if not found:
            return HttpResponse(status=NOTHING_NEW)
        context |= {"changed": found.changed, "gone": found.gone}
        return render(request, f"{self.template}#changes", context)

    def _context(self, request: HtmxRequest) -> dict[str, Any]:
        filters = self.filters(request.GET, request=request)
        page = Paginator(filters.rows_of().for_rows(), PAGE_SIZE).get_page(request.GET.get("page"))
        rows = self.rows(list(page.object_list), request.user)
        query = request.GET.copy()
        query.pop("page", None)
        return _common(request, filters, rows) | {"page": page, "query": query.urlencode()} | self.also


@dataclass(frozen=True)
class RecordList:
    """Records, of which there are millions: in keyset pages, the newest by `time` first, with saved filters."""

    template: str
    # The name of the list among the saved filters, and that of its address.
    saved_as: str
    address: str
    filters: Callable[..., Any]
    rows: RowsOf
    # Whether a record that is made from now on may come in on this page, the first one of a valid filter.
    grows: Callable[[Any], bool]
    time: str = "created_at"

    def page(
        self, request: HtmxRequest, also: Callable[[Any, Page[Any]], dict[str, Any]], **offered: Any
    ) -> HttpResponse:
        """The page that the address names, with what `also` says of the filter and the page.

        Opened bare, it applies the filter that its reader made the default.
        """
        saved = list(SavedFilter.objects.filter(user=request.user.pk, page=self.saved_as))
        default = next((each.query for each in saved if each.is_default), "")
        if default and not request.GET:
            return redirect(f"{request.path}?{default}")
        context = self._context(request) | offered
        context |= {
            "saved": saved,
            **_known_count(context["page"]),
            "kept_days": settings.TAILRACE["RETENTION_DAYS"],
        }
        context |= also(context["filters"], context["page"])
        return render(request, self.template, context, status=context["status"])

    def changes(self, request: HtmxRequest, **offered: Any) -> HttpResponse:
        """What differs on a page since it last asked; one on which nothing can change comes to rest."""
        context = self._context(request) | offered
        changes = difference(request, context["rows"])
        at_rest = context["at_rest"]
        if not changes and not at_rest:
            return HttpResponse(status=NOTHING_NEW)
        context |= {"changes": changes}
        status = STOP_POLLING if at_rest else 200
        response = render(request, f"{self.template}#changes", context, status=status)
        return trigger_client_event(response, ROWS_CHANGED) if changes.added or changes.gone else response

    def count(self, request: HtmxRequest) -> HttpResponse:
        """How many records match, asked apart so that the page need not wait for it."""
        filters = self.filters(request.GET, user=request.user)
        count = capped_count(filters.rows_of(), MOST_COUNTED, within=filters.within)
        return render(request, f"{self.template}#count", _counted(count))

    def _context(self, request: HtmxRequest) -> dict[str, Any]:
        filters = self.filters(request.GET, user=request.user)
        page: Page[Any] = newest_first(
            filters.rows_of().for_rows(),
            size=PAGE_SIZE,
            within=filters.within,
            time=self.time,
            **cursors_of(request),
        )
        rows = self.rows(page.rows, request.user)
        growing = filters.is_valid() and page.newer is None and self.grows(filters)
        return _common(request, filters, rows) | {
            "page": page,
            "at_rest": not growing and all(record.is_finished for record in page.rows),
            "query": filters.query,
            "saved_page": self.saved_as,
            "saved_list": self.address,
        }


def _common(request: HtmxRequest, filters: Any, rows: list[Row]) -> dict[str, Any]:
    return {
        "filters": filters,
        "rows": rows,
        "shown": shown_by(rows),
        # Said, since to find that a name is not there is what takes a template longest.
        "oob": False,
        "asked": request.GET.urlencode(),
        "time_zone": timezone.get_current_timezone_name(),
        "status": 200 if filters.is_valid() else 422,
    }


def _known_count(page: Page[Any]) -> dict[str, Any]:
    """The count when the page itself tells it: it holds all there is."""
    return _counted(len(page.rows) if page.older is None and page.newer is None else None)


def _counted(count: int | None) -> dict[str, Any]:
    return {"counted": count, "count": None if count is None else said_count(count)}


def said_count(count: int) -> str:
    """A count that was cut off at the most that is counted, in words."""
    return f"{MOST_COUNTED:,}+" if count > MOST_COUNTED else f"{count:,}"
