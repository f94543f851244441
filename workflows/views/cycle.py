"""The page of one cycle instance, with the live view that keeps it fresh."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe
from django_htmx.http import replace_url

from config.http import HtmxRequest
from scheduling.permissions import visible
from scheduling.views import timeline as events
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.log import whole_number
from scheduling.views.rows import Row, difference, shown_by, shown_on
from workflows import detail_queries as ask
from workflows.models import CycleInstance
from workflows.states import NodeRunState
from workflows.views.cycle_flow import Choice, FlowSection, flow_section, timeline_section
from workflows.views.cycle_head import CycleHead, why_section
from workflows.views.cycle_panel import panel_sections
from workflows.views.cycle_related import related_section

PAGE = "workflows/cycle_detail.html"
VIEWS = ("flow", "timeline", "related")
# More than anybody unfolds one by one.
MOST_OPENED = 50
# A month of days, or the hours of a day.
MOST_ONE_BY_ONE = 31


@require_safe
def cycle_detail(request: HtmxRequest, pk: int) -> HttpResponse:
    """A cycle instance: why it is as it is, its nodes as a flow or upon time, and the cycles around it."""
    shown = CyclePage(request, visible(ask.instances(), request.user, pk=pk))
    return render(request, PAGE, shown.context | {"events": events.of_journal(ask.journal_of(shown.instance))})


@require_safe
def cycle_changes(request: HtmxRequest, pk: int) -> HttpResponse:
    """What differs on the page of a cycle instance since it last asked."""
    shown = CyclePage(request, visible(ask.instances(), request.user, pk=pk))
    found = difference(request, shown.sections)
    if not found and not shown.at_rest:
        return HttpResponse(status=NOTHING_NEW)
    changed = {section.mark for section in found.changed} | {section.mark for _, section in found.added}
    context = shown.context | {"changed": changed}
    flow = shown.flow
    if flow is not None and flow.mark in changed:
        context["changed_flow"] = flow.since(shown_on(request).get(flow.mark, ""))
    if f"cycle-{pk}" in changed:
        context["events"] = events.of_journal(ask.journal_of(shown.instance))
    return render(request, f"{PAGE}#changes", context, status=STOP_POLLING if shown.at_rest else 200)


@require_safe
def cycle_node(request: HtmxRequest, pk: int) -> HttpResponse:
    """The panel of the node `?node=`, beside the flow; without one the panel goes."""
    instance = visible(ask.instances(), request.user, pk=pk)
    address = reverse("cycle-detail", args=[pk]) + choice_of(request).query
    if not request.htmx:
        return HttpResponseRedirect(address)
    response = render(request, f"{PAGE}#node", CyclePage(request, instance).context)
    return replace_url(response, address)


def choice_of(request: HtmxRequest) -> Choice:
    """What the address of the page chooses; what makes no sense is left out."""
    view = request.GET.get("view", "")
    opened = [_word(given, 120) for given in request.GET.getlist("open")[:MOST_OPENED]]
    return Choice(
        view=view if view in VIEWS else VIEWS[0],
        node=_word(request.GET.get("node", ""), 100),
        opened=tuple(dict.fromkeys(opened)),
        whole="whole" in request.GET,
        levels=min(max(whole_number(request.GET.get("levels"), none=2), 1), ask.MOST_LEVELS),
    )


def _word(given: str, most: int) -> str:
    # The database takes no NUL, not even to find nothing by it.
    return given.replace("\0", "")[:most]


class CyclePage:
    """The parts of the page of `instance` as the address of `request` chooses them."""

    def __init__(self, request: HtmxRequest, instance: CycleInstance) -> None:
        self.request, self.instance = request, instance
        self.choice = choice_of(request)
        self.flow: FlowSection | None = None
        self.calm = True
        self.head = CycleHead.of(instance, request.user)
        self.sections: list[Row] = [self.head.section(), why_section(instance, request.user)]
        self.sections += self._view()
        if self.choice.view != "related":
            self.sections += panel_sections(instance, self.runs, self.choice.node, self.typical, request.user)

    @cached_property
    def runs(self) -> list[Any]:
        return ask.runs_of(self.instance)

    @cached_property
    def typical(self) -> dict[str, Any]:
        running = [run.node.key for run in self.runs if run.state == NodeRunState.RUNNING]
        return ask.typical(self.instance.workflow_id, [*running, *filter(None, [self.choice.node])])

    def _view(self) -> list[Row]:
        if self.choice.view == "timeline":
            return [timeline_section(self.instance, self.runs, self.choice)]
        if self.choice.view == "related":
            self.flow, self.calm = related_section(self.instance, self.choice, self.request.user)
        else:
            self.flow = flow_section(self.instance, self.runs, self.choice, self.typical)
        return [self.flow]

    def _upstream(self) -> str:
        """Where the upstream cycles are to be seen: one by one, as long as they can be told apart."""
        around = self.head.around
        if around.upstream > MOST_ONE_BY_ONE:
            return self.choice.changed(view="related", open=[], whole=False)
        return self.choice.changed(view="related", open=around.from_workflows, whole=False, levels=1)

    @property
    def at_rest(self) -> bool:
        """Whether nothing on the page changes by itself any more."""
        return self.instance.is_finished and self.calm

    @property
    def context(self) -> dict[str, Any]:
        context: dict[str, Any] = {
            "choice": self.choice,
            "views": {view: self.choice.changed(view=view, open=[], whole=False) for view in VIEWS},
            "upstream": self._upstream(),
            "no_node": self.choice.changed(node=""),
            "shown": shown_by(self.sections),
            "at_rest": self.at_rest,
            "time_zone": timezone.get_current_timezone_name(),
        }
        for section in self.sections:
            context |= section.context  # type: ignore[attr-defined]
        return context
