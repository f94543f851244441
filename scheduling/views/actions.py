"""Stop and rerun, of a batch and of an instance: first what it will hit, then the deed with its reason.

A GET says what will happen and asks why (as a dialog for htmx, else as a page); a POST does it. A refusal is
answered with 409, the reason, and the row as it is now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HttpResponseClientRedirect, trigger_client_event

from config.http import HtmxRequest, status_of
from scheduling import services
from scheduling.errors import SchedulingError
from scheduling.models import Batch, Instance
from scheduling.permissions import RERUN, STOP, authorised
from scheduling.views import impact
from scheduling.views.rows import BatchRow, InstanceRow

# Heard by the live view of whatever page asked: it asks at once what changed.
ACTED = "acted"


class ReasonForm(forms.Form):
    """Why an operator acts; it stands in the journal beside who and when."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=500,
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True}),
        error_messages={"required": gettext_lazy("Say why; it is kept in the journal.")},
    )


@dataclass(frozen=True)
class Action:
    """One thing that may be done, as the confirm step words it."""

    verb: str
    title: str
    button: str
    effects: list[str]
    perform: Callable[..., Any]
    possible: bool


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def batch_stop(request: HtmxRequest, pk: int) -> HttpResponse:
    """Stop an unfinished batch."""
    batch = authorised(Batch.objects.for_page(), request.user, STOP, pk=pk)
    return _act(
        request,
        batch,
        Action(
            verb="stop",
            title=_("Stop batch %(id)d of %(task)s") % {"id": batch.pk, "task": batch.task.name},
            button=_("Stop the batch"),
            effects=impact.of_stopping(batch),
            perform=services.stop,
            possible=batch.can_stop,
        ),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def batch_rerun(request: HtmxRequest, pk: int) -> HttpResponse:
    """Run a finished batch again, as a new one."""
    batch = authorised(Batch.objects.for_page(), request.user, RERUN, pk=pk)
    return _act(
        request,
        batch,
        Action(
            verb="rerun",
            title=_("Rerun batch %(id)d of %(task)s") % {"id": batch.pk, "task": batch.task.name},
            button=_("Rerun the batch"),
            effects=impact.of_rerunning(batch),
            perform=services.rerun,
            possible=batch.can_rerun,
        ),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def instance_stop(request: HtmxRequest, pk: int) -> HttpResponse:
    """Stop one unfinished instance; the others of its batch go on."""
    instance = authorised(_instances(), request.user, STOP, pk=pk)
    return _act(
        request,
        instance,
        Action(
            verb="stop",
            title=_("Stop instance %(id)d of %(task)s") % {"id": instance.pk, "task": instance.batch.task.name},
            button=_("Stop the instance"),
            effects=impact.of_stopping_instance(instance),
            perform=services.stop_instance,
            possible=instance.can_stop,
        ),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def instance_rerun(request: HtmxRequest, pk: int) -> HttpResponse:
    """Run a finished instance again, as a new execution of it."""
    instance = authorised(_instances(), request.user, RERUN, pk=pk)
    return _act(
        request,
        instance,
        Action(
            verb="rerun",
            title=_("Rerun instance %(id)d of %(task)s")
            % {"id": instance.pk, "task": instance.batch.task.name},
            button=_("Rerun the instance"),
            effects=impact.of_rerunning_instance(instance),
            perform=services.rerun_instance,
            possible=instance.can_rerun,
        ),
    )


def _instances() -> Any:
    return Instance.objects.select_related("batch__task", "node")


def _act(request: HtmxRequest, thing: Batch | Instance, action: Action) -> HttpResponse:
    form = ReasonForm(request.POST if request.method == "POST" else None)
    if request.method != "POST" or not form.is_valid():
        status = 422 if form.is_bound else 200 if action.possible else 409
        return _confirm(request, thing, action, form=form, status=status)
    try:
        result = action.perform(thing, by=request.user, reason=form.cleaned_data["reason"])
    except SchedulingError as refusal:
        return _refused(request, thing, action, refusal)
    return _done(request, thing, action, result)


def _confirm(request: HtmxRequest, thing: Batch | Instance, action: Action, **context: Any) -> HttpResponse:
    template = "scheduling/confirm.html"
    status = context.pop("status")
    context |= {"thing": thing, "action": action, "back": _back(request, thing)}
    context["refusal"] = context.get("refusal") or ("" if action.possible else _not_now(thing))
    return render(request, f"{template}#dialog" if request.htmx else template, context, status=status)


def _not_now(thing: Batch | Instance) -> str:
    return _("%(name)s is %(state)s by now, so this is not possible any more.") % {
        "name": str(thing._meta.verbose_name).capitalize() + f" {thing.pk}",
        "state": str(thing.get_state_display()).lower(),
    }


def _refused(request: HtmxRequest, thing: Any, action: Action, refusal: SchedulingError) -> HttpResponse:
    status = status_of(refusal) or 409
    thing.refresh_from_db(fields=["state"])
    if not request.htmx:
        return _confirm(request, thing, action, form=None, refusal=str(refusal), status=status)
    return _fresh(request, thing, refusal=str(refusal), status=status)


def _done(request: HtmxRequest, thing: Batch | Instance, action: Action, result: Any) -> HttpResponse:
    begun = result if isinstance(result, Batch) and result.pk != thing.pk else None
    if not request.htmx:
        return HttpResponseRedirect(_page_of(begun) if begun else _back(request, thing))
    if begun and _asked_from_own_page(request, thing):
        return HttpResponseClientRedirect(_page_of(begun))
    return _fresh(request, thing, begun=begun, status=200)


def _fresh(request: HtmxRequest, thing: Any, *, status: int, **said: Any) -> HttpResponse:
    """The row or page head of `thing` as it is now, swapped out of band; the dialog goes."""
    own_page = _asked_from_own_page(request, thing)
    if isinstance(thing, Batch):
        fresh = Batch.objects.for_page().get(pk=thing.pk)
        [row] = BatchRow.of([fresh], request.user)
        template = "scheduling/batch_detail.html#fresh" if own_page else "scheduling/batch_list.html#fresh"
        context: dict[str, Any] = {"batch": fresh, "row": row}
    else:
        fresh = _instances().get(pk=thing.pk)
        [instance_row] = InstanceRow.of([fresh], request.user)
        template = (
            "scheduling/instance_detail.html#fresh"
            if own_page
            else "scheduling/batch_detail.html#fresh_instance"
        )
        context = {"instance": fresh, "batch": fresh.batch, "row": instance_row}
    response = render(request, template, context | said, status=status)
    return trigger_client_event(response, ACTED, after="settle")


def _page_of(thing: Batch | Instance) -> str:
    name = "batch-detail" if isinstance(thing, Batch) else "instance-detail"
    return reverse(name, args=[thing.pk])


def _asked_from_own_page(request: HtmxRequest, thing: Batch | Instance) -> bool:
    current = request.htmx.current_url_abs_path or ""
    return current.partition("?")[0] == _page_of(thing)


def _back(request: HtmxRequest, thing: Batch | Instance) -> str:
    """Where the operator came from when that is a page of ours, else the page of `thing`."""
    asked = request.POST.get("back") or request.headers.get("Referer", "")
    safe = url_has_allowed_host_and_scheme(asked, {request.get_host()}, require_https=request.is_secure())
    return asked if safe and request.path not in asked else _page_of(thing)
