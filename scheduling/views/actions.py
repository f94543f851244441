"""Stop and rerun, of a batch, of an instance and of several: what it will hit, then the deed with its reason.

A GET says what will happen and asks why (as a dialog for htmx, else as a page); a POST does it. A refusal is
answered with 409, the reason, and the row as it is now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HttpResponseClientRedirect, trigger_client_event

from config.http import HtmxRequest, NotFoundMessage, status_of
from scheduling import services
from scheduling.errors import SchedulingError
from scheduling.models import Batch, Instance
from scheduling.permissions import RERUN, STOP, authorised
from scheduling.services.several import MOST_INSTANCES
from scheduling.states import UNSUCCESSFUL
from scheduling.views import batch as batch_page
from scheduling.views import impact
from scheduling.views import instances as instance_page
from scheduling.views.rows import BatchRow, InstanceRow

# Heard by the live view of whatever page asked: it asks at once what changed.
ACTED = "acted"

PERMISSIONS = {"stop": STOP, "rerun": RERUN}
SERVICES: dict[tuple[str, type], Callable[..., Any]] = {
    ("stop", Batch): services.stop,
    ("rerun", Batch): services.rerun,
    ("stop", Instance): services.stop_instance,
    ("rerun", Instance): services.rerun_instance,
}
TITLES = {
    ("stop", Batch): gettext_lazy("Stop batch %(id)d of %(task)s"),
    ("rerun", Batch): gettext_lazy("Rerun batch %(id)d of %(task)s"),
    ("stop", Instance): gettext_lazy("Stop instance %(id)d of %(task)s"),
    ("rerun", Instance): gettext_lazy("Rerun instance %(id)d of %(task)s"),
}
BUTTONS = {
    ("stop", Batch): gettext_lazy("Stop the batch"),
    ("rerun", Batch): gettext_lazy("Rerun the batch"),
    ("stop", Instance): gettext_lazy("Stop the instance"),
    ("rerun", Instance): gettext_lazy("Rerun the instance"),
}
SEVERAL = {
    "stop": ngettext_lazy("Stop %(n)d instance of batch %(id)d", "Stop %(n)d instances of batch %(id)d", "n"),
    "rerun": ngettext_lazy(
        "Rerun %(n)d instance of batch %(id)d", "Rerun %(n)d instances of batch %(id)d", "n"
    ),
}


class ReasonForm(forms.Form):
    """Why an operator acts; it stands in the journal beside who and when."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=500,
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True}),
        error_messages={"required": gettext_lazy("Say why; it is kept in the journal.")},
    )


@dataclass(frozen=True)
class Option:
    """A box on the confirm step; `perform` takes whether it was ticked as the keyword `name`."""

    name: str
    label: str
    ticked: bool = False


@dataclass(frozen=True)
class Action:
    """One thing that may be done, as the confirm step words it; `perform` takes the thing, `by` and `reason`.

    Done to several `instances` of a batch, it takes these. `refusal` says why it is not `possible` now.
    """

    verb: str
    title: str
    button: str
    effects: list[str]
    perform: Callable[..., Any]
    possible: bool
    refusal: str = ""
    instances: Sequence[Instance] = field(default=())
    option: Option | None = None


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def batch(request: HtmxRequest, pk: int, verb: str) -> HttpResponse:
    """Stop an unfinished batch, or run a finished one again as a new one."""
    return _act(request, authorised(Batch.objects.for_page(), request.user, PERMISSIONS[verb], pk=pk), verb)


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def instance(request: HtmxRequest, pk: int, verb: str) -> HttpResponse:
    """Stop one unfinished instance, the others of its batch go on; or run a finished one again."""
    return _act(request, authorised(instance_page.instances(), request.user, PERMISSIONS[verb], pk=pk), verb)


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def several(request: HtmxRequest, pk: int, verb: str) -> HttpResponse:
    """Stop or rerun instances of a batch: those that `?instance=` names, or `?which=unsuccessful`.

    The confirm step names them one by one, so what is done is what was confirmed.
    """
    of = authorised(Batch.objects.for_page(), request.user, PERMISSIONS[verb], pk=pk)
    action = _of_several(verb, of, _named(request, of))
    form = _form(request)
    if request.method != "POST" or action.refusal or not form.is_valid():
        return _confirm(request, of, action, form)
    try:
        result = action.perform(action.instances, by=request.user, reason=form.cleaned_data["reason"])
    except SchedulingError as refusal:
        return _confirm(request, of, action, form, refusal=str(refusal), status=status_of(refusal) or 409)
    context = {"action": action, "result": result, "done": _done_in_words(verb, len(result.done))}
    context |= {"back": _back(request, of), "batch": of}
    template = "scheduling/confirm.html#several" if request.htmx else "scheduling/confirm.html"
    response = render(request, template, context, status=200 if result.done else 409)
    return trigger_client_event(response, ACTED, after="settle")


def _of_one(verb: str, thing: Batch | Instance) -> Action:
    kind = type(thing)
    task = thing.task if isinstance(thing, Batch) else thing.batch.task
    possible = thing.can_stop if verb == "stop" else thing.can_rerun
    return Action(
        verb=verb,
        title=TITLES[verb, kind] % {"id": thing.pk, "task": task.name},
        button=str(BUTTONS[verb, kind]),
        effects=impact.of(verb, thing),
        perform=SERVICES[verb, kind],
        possible=possible,
        refusal="" if possible else _not_now(thing),
    )


def _of_several(verb: str, of: Batch, instances: Sequence[Instance]) -> Action:
    possible = any(each.can_stop if verb == "stop" else each.can_rerun for each in instances)
    title = SEVERAL[verb] % {"n": len(instances), "id": of.pk}
    refusal = ""
    if len(instances) > MOST_INSTANCES:
        refusal = _("One action takes at most %(most)d instances. Narrow the choice, and do it in parts.")
        refusal %= {"most": MOST_INSTANCES}
    elif not instances:
        refusal = _("No instance was chosen. Tick some, and ask again.")
    elif not possible:
        refusal = (
            _("All of these have ended or are being stopped by now.")
            if verb == "stop"
            else _("None of these has ended yet.")
        )
    return Action(
        verb=verb,
        title=title,
        button=title,
        effects=impact.of_several(verb, instances),
        perform=services.stop_instances if verb == "stop" else services.rerun_instances,
        possible=not refusal,
        refusal=refusal,
        instances=instances,
    )


def _named(request: HtmxRequest, of: Batch) -> Sequence[Instance]:
    """The instances of the batch that the address or the form names; Http404 when one is not there."""
    given = request.POST if request.method == "POST" else request.GET
    of_batch = instance_page.instances().filter(batch=of).order_by("number")
    if given.get("which") == "unsuccessful":
        found = list(of_batch.filter(state__in=UNSUCCESSFUL)[: MOST_INSTANCES + 1])
    else:
        words = [word for value in given.getlist("instance") for word in value.split(",") if word]
        wanted = {int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 19}
        found = list(of_batch.filter(pk__in=wanted))
        if len(found) < len(wanted) or len(wanted) < len(set(words)):
            raise Http404(NotFoundMessage(_("An instance that was named is not of this batch.")))
    for each in found:
        each.batch = of
    return found


def _done_in_words(verb: str, count: int) -> str:
    if verb == "stop":
        text = ngettext("%d instance is being stopped.", "%d instances are being stopped.", count)
    else:
        text = ngettext("%d instance runs again.", "%d instances run again.", count)
    return text % count


def _form(request: HtmxRequest) -> ReasonForm:
    return ReasonForm(request.POST if request.method == "POST" else None)


def _act(request: HtmxRequest, thing: Batch | Instance, verb: str) -> HttpResponse:
    action = _of_one(verb, thing)
    form = _form(request)
    if request.method != "POST" or not form.is_valid():
        return _confirm(request, thing, action, form)
    try:
        result = action.perform(thing, by=request.user, reason=form.cleaned_data["reason"])
    except SchedulingError as refusal:
        return _refused(request, thing, action, refusal)
    return _done(request, thing, result)


def _confirm(
    request: HtmxRequest,
    thing: Batch | Instance,
    action: Action,
    form: ReasonForm | None,
    *,
    refusal: str = "",
    status: int | None = None,
) -> HttpResponse:
    refusal = refusal or action.refusal
    if status is None:
        status = 409 if refusal else 422 if form is not None and form.is_bound else 200
    context = {"thing": thing, "action": action, "form": form, "refusal": refusal}
    context["back"] = _back(request, thing)
    template = "scheduling/confirm.html"
    return render(request, f"{template}#dialog" if request.htmx else template, context, status=status)


def _not_now(thing: Batch | Instance) -> str:
    return _("%(name)s has state %(state)s by now, so this is not possible any more.") % {
        "name": str(thing._meta.verbose_name).capitalize() + f" {thing.pk}",
        "state": thing.get_state_display(),
    }


def _refused(request: HtmxRequest, thing: Any, action: Action, refusal: SchedulingError) -> HttpResponse:
    status = status_of(refusal) or 409
    there = type(thing).objects.filter(pk=thing.pk).exists()
    if there:
        thing.refresh_from_db(fields=["state"])
    if not request.htmx or not there:
        return _confirm(request, thing, action, None, refusal=str(refusal), status=status)
    return _fresh(request, thing, refusal=str(refusal), status=status)


def _done(request: HtmxRequest, thing: Batch | Instance, result: Any) -> HttpResponse:
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
        every = Batch.objects.all()
        fresh = (every.for_page() if own_page else every.for_rows()).get(pk=thing.pk)
        template = "scheduling/batch_detail.html#fresh" if own_page else "scheduling/batch_list.html#fresh"
        [row] = BatchRow.of([fresh], request.user)
        context = batch_page.head_context(request, fresh) if own_page else {"row": row}
    else:
        fresh = instance_page.instances().get(pk=thing.pk)
        page = "instance_detail.html#fresh" if own_page else "batch_detail.html#fresh_instance"
        template = f"scheduling/{page}"
        [instance_row] = InstanceRow.of([fresh], request.user)
        context = instance_page.head_context(request, fresh) if own_page else {"row": instance_row}
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
