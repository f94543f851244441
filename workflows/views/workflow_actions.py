"""Run a workflow now as a test; switch its schedule on and off."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HttpResponseClientRedirect

from config.http import HtmxRequest, status_of
from scheduling.errors import InvalidDefinition, SchedulingError
from scheduling.filters.fields import MomentField
from scheduling.models.tasks import Misfire
from scheduling.permissions import authorised
from scheduling.views.actions import Action
from scheduling.views.asking import ask, back_of, confirm
from scheduling.views.parameter_lines import ParameterLines
from scheduling.views.task_rows import Switch
from scheduling.words import moment, relative
from workflows import periods, services, words
from workflows.forms import refuse_far_off
from workflows.models import CycleInstance, RunType, Workflow
from workflows.permissions import EDIT, RUN
from workflows.states import CycleState

RUN_TEMPLATE = "workflows/workflow_run.html"


# --- run now ---------------------------------------------------------------------------------------


class TestForm(forms.Form):
    """For which cycle a test runs, and why."""

    cycle_time = MomentField(
        label=gettext_lazy("Cycle time"),
        error_messages={"required": gettext_lazy("Say for which cycle it runs.")},
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=500,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Say why; it is kept in the journal.")},
    )

    def clean_cycle_time(self) -> datetime:
        """A time at which there may be a cycle."""
        cycle_time: datetime = self.cleaned_data["cycle_time"]
        refuse_far_off(cycle_time.year)
        return cycle_time


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def workflow_run(request: HtmxRequest, pk: int) -> HttpResponse:
    """Run a workflow now as a test: for a cycle time, by default its latest, with parameters over its own."""
    workflow: Workflow = authorised(Workflow.objects.for_page(), request.user, RUN, pk=pk)
    lines = ParameterLines({})
    adding = "add" in request.POST
    latest = _latest(workflow)
    form = TestForm(
        request.POST if request.method == "POST" and not adding else None,
        initial={name: request.POST.get(name, "") for name in ("cycle_time", "reason")}
        if adding
        else {"cycle_time": latest},
    )
    context: dict[str, Any] = {
        "workflow": workflow,
        "lines": lines,
        "form": form,
        "effects": _of_testing(workflow, latest),
        "back": back_of(request, reverse("workflow-detail", args=[pk])),
        "time_zone": timezone.get_current_timezone_name(),
    }
    if workflow.revision is None:
        refusal = _("Workflow %(name)s has no content yet; save it first.") % {"name": workflow.name}
        return confirm(request, RUN_TEMPLATE, context | {"refusal": refusal, "form": None}, status=409)
    if request.method != "POST":
        return confirm(request, RUN_TEMPLATE, context, status=200)
    lines.read(request.POST)
    if adding:
        lines.add()
        return confirm(request, RUN_TEMPLATE, context | {"added": True}, status=200)
    overrides = lines.overrides()
    if not form.is_valid() or lines.wrong:
        return confirm(request, RUN_TEMPLATE, context, status=422)
    return _run(request, workflow, overrides, context)


def _run(
    request: HtmxRequest, workflow: Workflow, overrides: dict[str, Any], context: dict[str, Any]
) -> HttpResponse:
    given = context["form"].cleaned_data
    who: Any = request.user
    try:
        begun = services.run_test(
            workflow, cycle_time=given["cycle_time"], parameters=overrides, by=who, reason=given["reason"]
        )
    except InvalidDefinition as refusal:
        context["refusal"] = context["lines"].refuse(refusal.errors)
        return confirm(request, RUN_TEMPLATE, context, status=422)
    except SchedulingError as refusal:
        context["refusal"] = str(refusal)
        return confirm(request, RUN_TEMPLATE, context, status=status_of(refusal) or 409)
    page = reverse("cycle-detail", args=[begun.pk])
    return HttpResponseClientRedirect(page) if request.htmx else HttpResponseRedirect(page)


def _latest(workflow: Workflow) -> datetime:
    now = timezone.now()
    revision = workflow.revision
    latest = periods.latest_slot(revision, now) if revision and revision.cron else None
    return latest or now.replace(microsecond=0)


def _of_testing(workflow: Workflow, latest: datetime) -> list[str]:
    revision = workflow.revision
    if revision is None:
        return []
    nodes = revision.nodes.count()
    return [
        ngettext(
            "A test run begins at once, with the %(count)d node of revision %(number)d.",
            "A test run begins at once, with the %(count)d nodes of revision %(number)d.",
            nodes,
        )
        % {"count": nodes, "number": revision.number},
        _("The cycle proposed works on the data of %(date)s.")
        % {"date": date_format(periods.data_date(revision, latest), "Y-m-d")}
        if revision.cron
        else _("It has no schedule, so it works on the data of the day before."),
        _("It waits for no upstream cycle and takes no room from scheduled cycles."),
        _("It replaces no result of the cycle: what waits for that downstream does not begin by it."),
    ]


# --- the schedule ----------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def workflow_enable(request: HtmxRequest, pk: int) -> HttpResponse:
    """Switch a workflow's schedule on."""
    return _switch(request, pk, True)


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def workflow_disable(request: HtmxRequest, pk: int) -> HttpResponse:
    """Switch a workflow's schedule off; what runs goes on."""
    return _switch(request, pk, False)


def _switch(request: HtmxRequest, pk: int, enabled: bool) -> HttpResponse:
    workflow: Workflow = authorised(Workflow.objects.for_page(), request.user, EDIT, pk=pk)
    named = {"name": workflow.name}
    if enabled:
        title, button = _("Switch on the schedule of %(name)s") % named, _("Switch it on")
        not_now = _("The schedule of %(name)s is on already.") % named
    else:
        title, button = _("Switch off the schedule of %(name)s") % named, _("Switch it off")
        not_now = _("The schedule of %(name)s is off already.") % named
    action = Action(
        verb="enable" if enabled else "disable",
        title=title,
        button=button,
        effects=_of_enabling(workflow) if enabled else _of_disabling(workflow),
        perform=lambda thing, **said: services.set_enabled(thing, enabled, **said),
        possible=workflow.enabled != enabled,
    )
    shown = Switch("enabled" if workflow.enabled else "disabled")
    return ask(request, workflow, action, back_to="workflow-list", not_now=not_now, shown=shown)


def _of_enabling(workflow: Workflow) -> list[str]:
    revision, now = workflow.revision, timezone.now()
    if revision is None or not revision.cron:
        return [_("It has no schedule, so no cycle is made; it is run by hand.")]
    effects = [_("Its cycles are %s.") % words.of_schedule(revision)]
    following = periods.next_slot(revision, now)
    if following is not None:
        effects.append(
            _("The next is %(relative)s, at %(moment)s.")
            % {"relative": relative(following, now), "moment": moment(following)}
        )
    missed = _missed(workflow, now)
    if missed:
        text = ngettext("%d cycle was missed.", "%d cycles were missed.", missed) % missed
        effects.append(f"{text} {_of_missed(revision.misfire)}")
    return effects


def _missed(workflow: Workflow, now: datetime) -> int:
    """How many cycles came due since it was switched off, counted no further than a thousand."""
    if workflow.paused_at is None:
        return 0
    count = 0
    for _slot in periods.slots(workflow.current, workflow.paused_at, now):
        count += 1
        if count == 1000:
            break
    return count


def _of_missed(misfire: str) -> str:
    return {
        Misfire.SKIP: _("Its misfire policy is to skip them."),
        Misfire.RUN_ONCE: _("Its misfire policy is to run only the newest of them."),
        Misfire.RUN_ALL: _("Its misfire policy is to run them all."),
    }[Misfire(misfire)]


def _of_disabling(workflow: Workflow) -> list[str]:
    scheduled = CycleInstance.objects.filter(workflow=workflow, run_type=RunType.ONLINE)
    ready = scheduled.filter(state=CycleState.READY).count()
    running = CycleInstance.objects.filter(workflow=workflow, state=CycleState.RUNNING).count()
    effects = [_("No scheduled cycle of it becomes ready or begins any more.")]
    if ready:
        effects.append(
            ngettext(
                "%d cycle that is ready waits until it is switched on again.",
                "%d cycles that are ready wait until it is switched on again.",
                ready,
            )
            % ready
        )
    if running:
        effects.append(
            ngettext("%d running cycle goes on to its end.", "%d running cycles go on to their end.", running)
            % running
        )
    dependants = Workflow.objects.depending_on([workflow.pk]).count()
    if dependants:
        effects.append(
            ngettext(
                "%d workflow that depends on it waits for its cycles.",
                "%d workflows that depend on it wait for its cycles.",
                dependants,
            )
            % dependants
        )
    return [*effects, _("Tests, backfills and reruns are still possible.")]
