"""The menu of saved filters: keep, rename, make the default, delete. Each answers with the menu as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.http import Http404, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from config.http import HtmxRequest
from scheduling import services
from scheduling.errors import NotSaved
from scheduling.filters import BatchFilter
from scheduling.models import SavedFilter

# The name of the execution records among the saved filters.
BATCHES = "batches"


@dataclass(frozen=True)
class Listing:
    """A list whose filters can be saved: its FilterSet, and the name of its address."""

    filters: Callable[..., Any]
    list_page: str


# By the name under which the filters of a list are saved; apps above add theirs.
PAGES = {BATCHES: Listing(BatchFilter, "batch-list")}


@require_POST
def saved_add(request: HtmxRequest) -> HttpResponse:
    """Keep the filter in `query` under `name`."""
    return _menu(request, _add)


@require_POST
def saved_rename(request: HtmxRequest, pk: int) -> HttpResponse:
    """Give it the name `name`."""
    saved = _own(request, pk)
    return _menu(request, lambda request: services.rename_filter(saved, request.POST.get("name", "")))


@require_POST
def saved_default(request: HtmxRequest, pk: int) -> HttpResponse:
    """Make it the default, or with `default=0` no longer."""
    saved = _own(request, pk)
    return _menu(request, lambda request: services.make_default(saved, request.POST.get("default") != "0"))


@require_POST
def saved_delete(request: HtmxRequest, pk: int) -> HttpResponse:
    """Forget it."""
    saved = _own(request, pk)
    return _menu(request, lambda request: saved.delete())


def _own(request: HtmxRequest, pk: int) -> SavedFilter:
    return get_object_or_404(SavedFilter, pk=pk, user=request.user.pk)


def _add(request: HtmxRequest) -> SavedFilter:
    page = _page_of(request)
    filters = PAGES[page].filters(QueryDict(request.POST.get("query", "")), user=request.user)
    if not filters.is_valid():
        raise NotSaved(_("The filter is not valid. Correct it, and save it then."))
    return services.save_filter(request.user, page=page, name=request.POST.get("name", ""), query=filters.query)


def _page_of(request: HtmxRequest) -> str:
    page = request.POST.get("page", BATCHES)
    if page not in PAGES:
        raise Http404
    return page


def _menu(request: HtmxRequest, change: Callable[[HtmxRequest], Any]) -> HttpResponse:
    refusal = ""
    try:
        change(request)
    except NotSaved as error:
        if not request.htmx:
            raise
        refusal = str(error)
    query, page = request.POST.get("query", ""), _page_of(request)
    if not request.htmx:
        return HttpResponseRedirect(f"{reverse(PAGES[page].list_page)}?{query}")
    context = {
        "saved": SavedFilter.objects.filter(user=request.user.pk, page=page),
        "query": query,
        "refusal": refusal,
        "saved_page": page,
        "saved_list": PAGES[page].list_page,
    }
    return render(request, "scheduling/saved_filters.html#menu", context, status=422 if refusal else 200)
