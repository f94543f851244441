"""What is done to a rerun: pause, resume, terminate, take items out; and a draft is discarded.

A GET says what will happen and asks why (as a dialog for htmx, else as a page); a POST does it. A refusal is
answered with 409 and the reason, upon which the page that asked looks what changed.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HttpResponseClientRedirect

from config.http import HtmxRequest
from reruns import services
from reruns.content import edits_of
from reruns.errors import RerunRefused
from reruns.models import Rerun, RerunItem
from reruns.permissions import OPERATE, may_operate
from reruns.states import ItemState
from reruns.views import rerun_impact as impact
from scheduling.filters.fields import as_id, words_of
from scheduling.permissions import denied, visible
from scheduling.views.actions import Action, Option
from scheduling.views.asking import ask
from workflows.views.impact import discard_label

NOT_STARTED = [ItemState.WAITING.value, ItemState.FROZEN.value]
DISCARD = "reruns/draft_discard.html"


def _authorised(request: HtmxRequest, pk: int) -> Rerun:
    """The submitted rerun that the address names, if the user may operate it."""
    found: Rerun = visible(Rerun.objects.select_related("team"), request.user, pk=pk)
    if not may_operate(request.user, found):
        raise denied(OPERATE)
    return found


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def rerun_act(request: HtmxRequest, pk: int, verb: str) -> HttpResponse:
    """Pause, resume or terminate a rerun."""
    found = _authorised(request, pk)
    named = {"rerun": str(found), "name": found.name}
    titles = {
        "pause": _("Pause rerun %(rerun)s downstream of %(name)s"),
        "resume": _("Resume rerun %(rerun)s downstream of %(name)s"),
        "terminate": _("Terminate rerun %(rerun)s downstream of %(name)s"),
        "take-content": _("Run the current content in rerun %(rerun)s"),
    }
    buttons = {
        "pause": _("Pause"),
        "resume": _("Resume"),
        "terminate": _("Terminate"),
        "take-content": _("Run the current content"),
    }
    does = {
        "pause": (services.pause, found.can_pause, impact.of_pausing),
        "resume": (services.resume, found.can_resume, lambda rerun: impact.of_resuming(rerun, request.user)),
        "terminate": (services.terminate, found.can_terminate, impact.of_terminating),
        "take-content": (services.take_content, bool(edits_of(found)), impact.of_taking_content),
    }
    perform, possible, effects = does[verb]
    action = Action(
        verb=verb,
        title=titles[verb] % named,
        button=buttons[verb],
        effects=effects(found) if possible else [],
        perform=perform,
        possible=possible,
        option=_discard_earlier(found) if possible and verb == "terminate" else None,
    )
    return ask(request, found, action, back_to=_page_of(found), not_now=_not_now(found))


def _discard_earlier(found: Rerun) -> Option | None:
    """The choice whether earlier results count again; None when there are none."""
    count = len(impact.results_kept(found))
    return Option("discard_earlier", discard_label(count)) if count else None


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def rerun_take_out(request: HtmxRequest, pk: int) -> HttpResponse:
    """Take out of a rerun what `item` names and has not started: it is not rerun, or unfreezes."""
    found = _authorised(request, pk)
    items = _named(request, found)
    out = [each for each in items if each.state in NOT_STARTED]
    possible = bool(out) and not found.is_finished
    not_now = _nothing_to_take_out(found, items)

    def perform(rerun: Rerun, *, by: Any, reason: str) -> None:
        if not possible:
            raise RerunRefused(not_now)
        services.take_out(rerun, out, by=by, reason=reason)

    title = ngettext(
        "Take %(count)d instance out of rerun %(rerun)s",
        "Take %(count)d instances out of rerun %(rerun)s",
        len(out),
    )
    action = Action(
        verb="take-out",
        title=title % {"count": len(out), "rerun": found},
        button=_("Take out"),
        effects=impact.of_taking_out(found, out, started=len(items) - len(out)),
        perform=perform,
        possible=possible,
        instances=out,  # type: ignore[arg-type]
    )
    return ask(request, found, action, back_to=_page_of(found), not_now=not_now)


def _named(request: HtmxRequest, found: Rerun) -> list[RerunItem]:
    """The items that are ticked; the step that confirms sends them as `instance`, as others do."""
    sent = (request.GET.getlist("item"), request.POST.getlist("item"), request.POST.getlist("instance"))
    ids = [number for words in sent for word in words_of(words) if (number := as_id(word)) is not None]
    return list(RerunItem.objects.filter(rerun=found.pk, pk__in=ids).order_by("wave", "pk"))


def _nothing_to_take_out(found: Rerun, items: list[RerunItem]) -> str:
    if found.is_finished:
        return _not_now(found)
    if not items:
        return _("Tick first what is to be taken out.")
    return _("All that is ticked has started by now, so nothing of it can be taken out any more.")


def _page_of(found: Rerun) -> str:
    return reverse("rerun-detail", args=[found.pk])


def _not_now(found: Rerun) -> str:
    return _("Rerun %(rerun)s has state %(state)s by now, so this is not possible any more.") % {
        "rerun": found,
        "state": found.get_state_display(),
    }


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def rerun_discard(request: HtmxRequest, pk: int) -> HttpResponse:
    """Forget a draft, of which nothing has run."""
    found: Rerun = visible(Rerun.objects.select_related("team"), request.user, pk=pk)
    if not found.is_draft:
        if not may_operate(request.user, found):
            raise PermissionDenied
        context = {"rerun": found, "refusal": _not_now(found)}
        return render(request, f"{DISCARD}#dialog" if request.htmx else DISCARD, context, status=409)
    if request.method != "POST":
        context = {"rerun": found, "count": found.items.count()}
        return render(request, f"{DISCARD}#dialog" if request.htmx else DISCARD, context)
    services.discard(found, by=request.user)
    address = reverse("rerun-list")
    return HttpResponseClientRedirect(address) if request.htmx else HttpResponseRedirect(address)
