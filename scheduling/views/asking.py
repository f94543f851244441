"""The confirm step of what is done to tasks and nodes: first what will happen and why, then the deed.

These pages are live and show a thing in several places at once, so the answer to a deed is only a notice and
the event at which the page asks what changed.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.http import trigger_client_event

from config.http import HtmxRequest, status_of
from scheduling.errors import SchedulingError
from scheduling.models import Batch
from scheduling.views.actions import ACTED, Action, Option, ReasonForm

TEMPLATE = "scheduling/confirm.html"


def ask(
    request: HtmxRequest, thing: Model, action: Action, *, back_to: str, not_now: str, shown: Any = None
) -> HttpResponse:
    """Say what `action` will do to `thing` and ask why; on a POST with a reason do it.

    `back_to` is the page (its name or its address) for whoever came from nowhere of ours, `not_now` the refusal
    when the action is not possible as things stand, `shown` what the step shows the state of (`thing` if None).
    """
    form = ReasonForm(request.POST if request.method == "POST" else None)
    context: dict[str, Any] = {"thing": shown or thing, "action": action, "form": form}
    context["back"] = back = back_of(request, resolve_url(back_to))
    chosen = chosen_of(request, action.option)
    context["option_ticked"] = any(chosen.values())
    if request.method != "POST" or not form.is_valid():
        context["refusal"] = "" if action.possible else not_now
        status = 422 if form.is_bound else 200 if action.possible else 409
        return confirm(request, TEMPLATE, context, status=status)
    try:
        action.perform(thing, by=request.user, reason=form.cleaned_data["reason"], **chosen)
    except SchedulingError as refusal:
        thing.refresh_from_db()
        return refused(request, TEMPLATE, context | {"refusal": str(refusal)}, status=status_of(refusal) or 409)
    return done(request, back)


def chosen_of(request: HtmxRequest, option: Option | None) -> dict[str, bool]:
    """The keyword argument that `option` stands for: as it was sent, else as it is shown first."""
    if option is None:
        return {}
    return {option.name: option.name in request.POST if request.method == "POST" else option.ticked}


def refused(request: HtmxRequest, template: str, context: dict[str, Any], *, status: int) -> HttpResponse:
    """The confirm step with the refusal; things are not as the page shows them, so it asks what changed."""
    return trigger_client_event(confirm(request, template, context, status=status), ACTED, after="settle")


def confirm(request: HtmxRequest, template: str, context: dict[str, Any], *, status: int) -> HttpResponse:
    """The confirm step as a dialog for htmx, else as a page."""
    return render(request, f"{template}#dialog" if request.htmx else template, context, status=status)


def done(request: HtmxRequest, back: str, *, begun: Batch | None = None) -> HttpResponse:
    """Back to where it was asked; a page that is there stays, says what has begun, and asks what changed."""
    if not request.htmx:
        return HttpResponseRedirect(reverse("batch-detail", args=[begun.pk]) if begun else back)
    response = render(request, "scheduling/task_run.html#done", {"begun": begun})
    return trigger_client_event(response, ACTED, after="settle")


def back_of(request: HtmxRequest, otherwise: str) -> str:
    """Where the operator came from when that is a page of ours, else `otherwise`."""
    asked = request.POST.get("back") or request.headers.get("Referer", "")
    safe = url_has_allowed_host_and_scheme(asked, {request.get_host()}, require_https=request.is_secure())
    return asked if safe and request.path not in asked else otherwise
