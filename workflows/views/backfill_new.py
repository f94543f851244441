"""Asking for a backfill: a range of data dates, first what would run, then the start."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from config.http import HtmxRequest, status_of
from scheduling.errors import InvalidDefinition, SchedulingError
from scheduling.permissions import authorised
from scheduling.views.parameter_lines import ParameterLines
from scheduling.views.rows import digest_of
from workflows import periods, services
from workflows.forms import refuse_far_off
from workflows.models import Order, Workflow
from workflows.permissions import RUN
from workflows.services import Candidate

TEMPLATE = "workflows/backfill_new.html"
PROPOSED_DAYS = 7
# Longer plans are counted whole and shown in part.
MOST_SHOWN = 200


def _date_box() -> forms.DateInput:
    # A browser takes no other way of writing a date, whatever the reader's language.
    return forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")


def _time_box() -> forms.TimeInput:
    return forms.TimeInput(attrs={"type": "time"}, format="%H:%M")


class BackfillForm(forms.Form):
    """Which cycles, by the dates and times of their data, and in what manner they have their turn.

    Times are on the clocks of the workflow; without them, whole days are backfilled.
    """

    since = forms.DateField(label=gettext_lazy("Data from"), widget=_date_box())
    since_time = forms.TimeField(label=gettext_lazy("From time"), widget=_time_box(), required=False)
    until = forms.DateField(label=gettext_lazy("Data until"), widget=_date_box())
    until_time = forms.TimeField(label=gettext_lazy("Until time"), widget=_time_box(), required=False)
    order = forms.ChoiceField(label=gettext_lazy("Order"), choices=Order.choices, initial=Order.OLDEST_FIRST)
    parallelism = forms.IntegerField(
        label=gettext_lazy("Cycles at once"), min_value=1, max_value=100, initial=1
    )
    waits_for_upstream = forms.BooleanField(
        label=gettext_lazy("Wait for upstream cycles"),
        help_text=gettext_lazy("A cycle whose turn it is begins only when its upstream cycles have succeeded"),
        required=False,
        initial=True,
    )
    pause_on_failure = forms.BooleanField(
        label=gettext_lazy("Pause when a cycle fails"),
        help_text=gettext_lazy("Else one that fails never keeps the others from running"),
        required=False,
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=500,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def __init__(self, *args: Any, workflow: Workflow, starting: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.workflow = workflow
        self.slots: tuple[datetime, datetime] | None = None
        if starting:
            self.fields["reason"].required = True
            self.fields["reason"].error_messages["required"] = _("Say why; it is kept in the journal.")

    def clean_since(self) -> date:
        """A date of which there may be cycles."""
        since: date = self.cleaned_data["since"]
        refuse_far_off(since.year)
        return since

    def clean(self) -> dict[str, Any]:
        """The range has an order, and holds cycles that have come."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        if since is None or until is None:
            return cleaned
        newest = newest_data(self.workflow)
        begin, end = cleaned.get("since_time"), cleaned.get("until_time")
        if until < since or (until == since and end is not None and end <= (begin or time.min)):
            self.add_error("until", _("The end is before the beginning. Swap them."))
        elif newest is None or until > newest:
            self.add_error("until", self._not_yet(newest))
        else:
            self.slots = periods.slots_of_data(
                self.workflow.current, since, until, timezone.now(), first_time=begin, last_time=end
            )
            if self.slots is None:
                self.add_error("since", _("The workflow has no cycle for data of these dates and times."))
        return cleaned

    def _not_yet(self, newest: date | None) -> ValidationError:
        if newest is None:
            return ValidationError(_("No cycle of the workflow has come yet."))
        named = {"date": date_format(newest, "Y-m-d")}
        return ValidationError(
            _("Its newest cycle that has come works on the data of %(date)s; the range must end there.") % named
        )


def newest_data(workflow: Workflow) -> date | None:
    """The data date of the newest cycle that has come."""
    revision = workflow.current
    slot = periods.latest_slot(revision, timezone.now())
    return periods.data_date(revision, slot) if slot else None


@dataclass(frozen=True)
class Plan:
    """What a backfill would run, and a digest of it, by which a start knows that this is what was shown."""

    candidates: list[Candidate]

    @property
    def running(self) -> list[Candidate]:
        return [each for each in self.candidates if not each.refused]

    @property
    def left_out(self) -> int:
        return len(self.candidates) - len(self.running)

    @property
    def waiting(self) -> int:
        """How many wait for an upstream cycle that has not succeeded."""
        return sum(bool(each.waits_for) for each in self.running)

    @property
    def replacing(self) -> int:
        """How many have run before."""
        return sum(each.effective is not None for each in self.running)

    @property
    def shown(self) -> list[Candidate]:
        return self.candidates[:MOST_SHOWN]

    @property
    def more(self) -> int:
        return max(0, len(self.candidates) - MOST_SHOWN)

    @property
    def digest(self) -> str:
        return digest_of([(each.cycle_time, bool(each.refused)) for each in self.candidates])


@require_http_methods(["GET", "HEAD", "POST"])
def backfill_new(request: HtmxRequest, pk: int) -> HttpResponse:
    """Ask for a backfill: a POST shows what would run, and one with `start` begins what was shown."""
    workflow: Workflow = authorised(Workflow.objects.for_page(), request.user, RUN, pk=pk)
    if workflow.revision is None or not workflow.revision.cron:
        refusal = _("Workflow %(name)s has no schedule, so it has no cycles.") % {"name": workflow.name}
        return render(request, TEMPLATE, {"workflow": workflow, "refusal": refusal}, status=409)
    lines = ParameterLines({})
    posted = request.method == "POST"
    starting = "start" in request.POST
    form = BackfillForm(
        request.POST if posted else None, workflow=workflow, starting=starting, initial=_proposed(workflow)
    )
    context: dict[str, Any] = {
        "workflow": workflow,
        "form": form,
        "lines": lines,
        "time_zone": timezone.get_current_timezone_name(),
    }
    if not posted:
        return render(request, TEMPLATE, context)
    lines.read(request.POST)
    if "add" in request.POST:
        lines.add()
        return render(request, TEMPLATE, context | {"added": True})
    overrides = lines.overrides()
    form.full_clean()
    if form.slots is None:
        return render(request, TEMPLATE, context, status=422)
    return _planned(request, workflow, form.slots, context, overrides, starting=starting)


def _proposed(workflow: Workflow) -> dict[str, Any]:
    newest = newest_data(workflow)
    return {"until": newest, "since": newest and newest - timedelta(days=PROPOSED_DAYS - 1)}


def _planned(
    request: HtmxRequest,
    workflow: Workflow,
    slots: tuple[datetime, datetime],
    context: dict[str, Any],
    overrides: dict[str, Any],
    *,
    starting: bool,
) -> HttpResponse:
    form: BackfillForm = context["form"]
    since, until = slots
    given = form.cleaned_data
    try:
        plan = Plan(
            services.plan_backfill(
                workflow,
                since=since,
                until=until,
                order=given.get("order", Order.OLDEST_FIRST),
                waits_for_upstream=given["waits_for_upstream"],
            )
        )
    except SchedulingError as refusal:
        return render(request, TEMPLATE, context | {"refusal": str(refusal)}, status=status_of(refusal) or 409)
    context["plan"] = plan
    if not form.is_valid() or context["lines"].wrong:
        return render(request, TEMPLATE, context, status=422)
    if not starting:
        return render(request, TEMPLATE, context)
    if request.POST.get("planned") != plan.digest:
        drift = _(
            "This is not what was shown before: the dates, the order or the cycles have changed. Look again."
        )
        return render(request, TEMPLATE, context | {"refusal": drift}, status=409)
    return _start(request, workflow, slots, context, overrides)


def _start(
    request: HtmxRequest,
    workflow: Workflow,
    slots: tuple[datetime, datetime],
    context: dict[str, Any],
    overrides: dict[str, Any],
) -> HttpResponse:
    form: BackfillForm = context["form"]
    given = form.cleaned_data
    who: Any = request.user
    try:
        begun = services.backfill(
            workflow,
            since=slots[0],
            until=slots[1],
            order=given["order"],
            parallelism=given["parallelism"],
            waits_for_upstream=given["waits_for_upstream"],
            pause_on_failure=given["pause_on_failure"],
            parameters=overrides,
            by=who,
            reason=given["reason"],
        )
    except InvalidDefinition as refusal:
        context["refusal"] = context["lines"].refuse(refusal.errors)
        return render(request, TEMPLATE, context, status=422)
    except SchedulingError as refusal:
        return render(request, TEMPLATE, context | {"refusal": str(refusal)}, status=status_of(refusal) or 409)
    return HttpResponseRedirect(reverse("backfill-detail", args=[begun.pk]))
