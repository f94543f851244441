"""The record of one rerun, with the live view that keeps it fresh as long as it has not ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from django.core.paginator import Page, Paginator
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from reruns import record_queries as ask
from reruns.content import edits_of
from reruns.filters import ItemFilter
from reruns.forecast import forecast
from reruns.models import Rerun, RerunItem
from reruns.permissions import may_operate
from reruns.states import RerunState
from reruns.views.holdups import section_of as holdups_section
from reruns.views.rerun_flow import flow_section
from reruns.views.rerun_impact import edit_in_words
from reruns.views.rows import ItemRow, RerunRow
from reruns.views.which import VIEWS, Which
from scheduling.models import Team
from scheduling.permissions import visible
from scheduling.views import timeline as events
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.rows import Row, difference, shown_by, shown_on
from scheduling.views.sections import Section
from workflows.views.cycle_flow import FlowSection

TEMPLATE = "reruns/rerun_detail.html"
PAGE_SIZE = 100
# A page of so many asks less often what changed.
LARGE = 1000


@require_safe
def rerun_detail(request: HtmxRequest, pk: int) -> HttpResponse:
    """A rerun: how far it is, what holds it up, its instances as a list or a flow."""
    rerun = _found(request, pk)
    # Nothing of a draft has happened yet: it is gone on with.
    if rerun.is_draft:
        return HttpResponseRedirect(_step_of(rerun))
    shown = RecordPage(request, rerun)
    return render(request, TEMPLATE, shown.context, status=shown.status)


@require_safe
def rerun_changes(request: HtmxRequest, pk: int) -> HttpResponse:
    """What differs on the record of a rerun since it last asked."""
    shown = RecordPage(request, _found(request, pk))
    found = difference(request, shown.parts)
    at_rest = shown.at_rest
    if not found and not at_rest:
        return HttpResponse(status=NOTHING_NEW)
    sections = {section.mark for section in shown.sections}
    changed = {part.mark for part in found.changed}
    rows = [part for part in found.changed if part.mark not in sections]
    came = any(row.mark not in sections for _before, row in found.added)
    gone = any(mark.startswith("item-") for mark in found.gone)
    context = shown.context | {"changed": changed, "changed_rows": rows, "moved": came or gone}
    if shown.flow is not None and shown.flow.mark in changed:
        context["changed_flow"] = shown.flow.since(shown_on(request).get(shown.flow.mark, ""))
    return render(request, f"{TEMPLATE}#changes", context, status=STOP_POLLING if at_rest else 200)


def _step_of(rerun: Rerun) -> str:
    """Where its author left a draft."""
    try:
        return reverse(f"draft-{rerun.step}", args=[rerun.pk])
    except NoReverseMatch:
        return reverse("rerun-list")


def _found(request: HtmxRequest, pk: int) -> Rerun:
    found: Rerun = visible(Rerun.objects.select_related("team"), request.user, pk=pk)
    return found


@dataclass(frozen=True)
class Progress:
    """How far a rerun is: its counts, the wave it is in, and when it ends as things go."""

    counts: ask.Counts
    wave: ask.Wave
    ends_at: datetime | None
    blocked: int
    holes: int
    """How many items read results that are not rerun."""

    @classmethod
    def of(cls, rerun: Rerun, counts: ask.Counts) -> Progress:
        wave = ask.wave_of(rerun)
        holes = RerunItem.objects.filter(rerun=rerun.pk).exclude(holes=[]).count()
        if rerun.state not in {RerunState.RUNNING, RerunState.PAUSED, RerunState.TERMINATING}:
            return cls(counts, wave, None, 0, holes)
        ends = forecast(rerun, counts, timezone.now())
        return cls(counts, wave, ends.ends_at, ends.blocked, holes)


class RecordPage:
    """The parts of the record of `rerun` as the address of `request` chooses them."""

    def __init__(self, request: HtmxRequest, rerun: Rerun) -> None:
        self.request, self.rerun = request, rerun
        self.which = Which.of(request)
        [self.row] = RerunRow.of([rerun], request.user)
        self.may = may_operate(request.user, rerun)
        self.flow: FlowSection | None = None
        self.rows: list[ItemRow] = []
        self.status = 200
        self.sections: list[Row] = [
            self._head(),
            self._progress(),
            self._holdups(),
            self._drift(),
            self._journal(),
        ]
        if self.which.view == "flow":
            self.flow = flow_section(rerun, self.which, request.user)
            self.sections.append(self.flow)
        else:
            self._list()
        self.parts: list[Row] = [*self.sections, *self.rows]

    @cached_property
    def entries(self) -> list[Any]:
        return ask.journal_of(self.rerun)

    def _head(self) -> Section:
        return Section(self.row.mark, self.row.digest, {"row": self.row, "rerun": self.rerun})

    def _progress(self) -> Section:
        found = Progress.of(self.rerun, self.row.counts)
        # The clock of the end goes on by a minute at a time.
        ends = found.ends_at and found.ends_at.replace(second=0, microsecond=0)
        said = (
            self.rerun.state,
            sorted(found.counts.by_state.items()),
            found.wave,
            ends,
            found.blocked,
            found.holes,
        )
        return Section("progress", said, {"progress": found})

    def _holdups(self) -> Section:
        return holdups_section(self.rerun, self.row.counts, self.entries, self.request.user, may=self.may)

    def _drift(self) -> Section:
        edits = edits_of(self.rerun)
        return Section("drift", edits, {"edits": [edit_in_words(each) for each in edits]})

    def _journal(self) -> Section:
        return Section(
            "journal", [entry.pk for entry in self.entries], {"events": events.of_journal(self.entries)}
        )

    def _list(self) -> None:
        teams = RerunItem.objects.filter(rerun=self.rerun.pk).order_by().values("team").distinct()
        names = dict(Team.objects.filter(pk__in=teams).order_by("name").values_list("pk", "name"))
        self.filters = ItemFilter(self.request.GET, rerun=self.rerun, teams=names)
        self.status = 200 if self.filters.is_valid() else 422
        ordered = self.filters.rows_of().order_by("wave", "cycle_time", "pk")
        self.page: Page[RerunItem] = Paginator(ordered, PAGE_SIZE).get_page(self.request.GET.get("page"))
        self.rows = ItemRow.of(list(self.page.object_list), self.rerun, self.request.user)

    @property
    def at_rest(self) -> bool:
        """Whether nothing on the page changes any more."""
        return self.rerun.is_finished

    @property
    def context(self) -> dict[str, Any]:
        query = self.request.GET.copy()
        query.pop("page", None)
        context: dict[str, Any] = {
            "which": self.which,
            "views": {view: self.which.changed(view=view) for view in VIEWS},
            "rows": self.rows,
            "may": self.may,
            "shown": shown_by(self.parts),
            "at_rest": self.at_rest,
            "asked": self.request.GET.urlencode(),
            "every": "5s" if self.row.counts.total > LARGE else "2s",
            "query": query.urlencode(),
            "time_zone": timezone.get_current_timezone_name(),
        }
        if self.which.view == "list":
            context |= {"filters": self.filters, "page": self.page}
        for section in self.sections:
            context |= section.context  # type: ignore[attr-defined]
        return context
