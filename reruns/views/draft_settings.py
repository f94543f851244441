"""Step 3: how the rerun runs, and who is told of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from config.http import HtmxRequest, status_of
from reruns import services
from reruns.forms import EVENTS, SettingsForm, rules_from, told_of
from reruns.models import Rerun, Step
from reruns.plans import plan_of
from reruns.views.draft import for_draft, head, is_stale, stale_words
from reruns.views.draft_words import notes_of
from scheduling.errors import InvalidDefinition, SchedulingError
from scheduling.views.parameter_lines import ParameterLines

TEMPLATE = "reruns/draft_settings.html"


@for_draft
def draft_settings(request: HtmxRequest, rerun: Rerun) -> HttpResponse:
    """The settings of a draft; what is sent is saved, and leads to the plan, or back to what is downstream."""
    lines = ParameterLines({})
    posted = request.method == "POST"
    adding = "add" in request.POST
    form = SettingsForm.of(rerun, request.POST if posted and not adding else None)
    context: dict[str, Any] = {"form": form, "lines": lines, "events": EVENTS.items()}
    context["told"] = told_of(rules_from(request.POST) if posted else rerun.notify)
    if posted:
        lines.read(request.POST)
    if adding:
        lines.add()
        form.initial = {name: request.POST.get(name) for name in form.fields}
        return _shown(request, rerun, context | {"added": True})
    if not posted:
        lines.lines = [replace(line, own=False) for line in ParameterLines(rerun.parameters).lines]
        return _shown(request, rerun, context)
    overrides = lines.overrides()
    if not form.is_valid() or lines.wrong:
        return _shown(request, rerun, context, status=422)
    if is_stale(request, rerun):
        return _shown(request, rerun, context | {"refusal": stale_words()}, status=409)
    return _save(request, rerun, overrides, context)


def _save(
    request: HtmxRequest, rerun: Rerun, overrides: dict[str, Any], context: dict[str, Any]
) -> HttpResponse:
    who: Any = request.user
    lines: ParameterLines = context["lines"]
    try:
        services.save_settings(
            rerun,
            parameters=overrides,
            notify=rules_from(request.POST),
            by=who,
            **context["form"].as_settings(),
        )
    except InvalidDefinition as refusal:
        context["refusal"] = lines.refuse(refusal.errors)
        return _shown(request, rerun, context, status=422)
    except SchedulingError as refusal:
        return _shown(request, rerun, context | {"refusal": str(refusal)}, status=status_of(refusal) or 409)
    where = "draft-downstream" if "back" in request.POST else "draft-plan"
    return HttpResponseRedirect(reverse(where, args=[rerun.pk]))


def _shown(request: HtmxRequest, rerun: Rerun, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    # A refused save leaves values on the object that were not saved.
    rerun.refresh_from_db()
    plan = plan_of(rerun, user=request.user)
    context |= head(request, rerun, Step.SETTINGS) | {"plan": plan, "notes": notes_of(plan, request.user)}
    return render(request, TEMPLATE, context, status=status)
