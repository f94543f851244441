"""What the steps of a draft share: whose it is, how far it is, and whether a page of it is old."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers

from config.http import HtmxRequest, NotFoundMessage, answer
from reruns.models import Rerun
from reruns.models import Step as StepOf
from scheduling.permissions import visible

ADDRESSES = {
    StepOf.SOURCE: "draft-source",
    StepOf.DOWNSTREAM: "draft-downstream",
    StepOf.SETTINGS: "draft-settings",
    StepOf.PLAN: "draft-plan",
}

type DraftView = Callable[..., HttpResponse]


@dataclass(frozen=True)
class Stage:
    """A step as the head of the page shows it; `address` is empty where it cannot be gone to yet."""

    name: str
    address: str
    current: bool
    done: bool


def stages(rerun: Rerun | None, current: str) -> list[Stage]:
    """The four steps; without a draft only the first can be gone to."""
    order = list(StepOf)
    at = order.index(StepOf(current))
    return [
        Stage(
            str(step.label),
            reverse(ADDRESSES[step], args=[rerun.pk]) if rerun else "",
            number == at,
            number < at,
        )
        for number, step in enumerate(order)
    ]


def for_draft(view: DraftView) -> DraftView:
    """Look up the draft that the address names. What has been submitted leads to its record instead."""

    @require_http_methods(["GET", "HEAD", "POST"])
    @vary_on_headers("HX-Request")
    @wraps(view)
    def look_up(request: HtmxRequest, pk: int, **named: Any) -> HttpResponse:
        try:
            rerun: Rerun = visible(Rerun.objects.select_related("team"), request.user, pk=pk)
        except Http404:
            # As a rule it was discarded in another window.
            message = _("This draft is gone: it was discarded, or it is not yours to see.")
            raise Http404(NotFoundMessage(message)) from None
        if rerun.is_draft:
            return view(request, rerun, **named)
        if request.method == "POST":
            return answer(
                request,
                title=_("Refused"),
                message=_("%(rerun)s has been submitted already; look at its record.") % {"rerun": rerun},
                status=409,
                leads_to=(record_of(pk), _("The record of %(rerun)s") % {"rerun": rerun}),
            )
        return HttpResponseRedirect(record_of(pk))

    return look_up


def record_of(pk: int) -> str:
    """Where the record of a submitted rerun is."""
    return reverse("rerun-detail", args=[pk])


def address_of(rerun: Rerun) -> str:
    """Where its author left a draft."""
    return reverse(ADDRESSES[StepOf(rerun.step)], args=[rerun.pk])


def left_at(request: HtmxRequest, rerun: Rerun, step: str) -> None:
    """Remember at which step the author of a draft is."""
    if rerun.step != step and not request.htmx and request.method == "GET":
        Rerun.objects.filter(pk=rerun.pk, requested_by=request.user.pk).update(step=step)


def stamp_of(rerun: Rerun) -> str:
    """What tells one state of a draft from every other."""
    return rerun.changed_at.isoformat()


def is_stale(request: HtmxRequest, rerun: Rerun) -> bool:
    """Whether the page that sends this form shows a draft that was changed since, in another window."""
    return request.POST.get("seen", "") != stamp_of(rerun)


def stale_words() -> str:
    return _(
        "This draft was changed in another window since this page was shown, so nothing was done. "
        "Here it is as it stands now; look again."
    )


def head(request: HtmxRequest, rerun: Rerun, step: str) -> dict[str, Any]:
    """What every step shows."""
    left_at(request, rerun, step)
    return {
        "rerun": rerun,
        "step": step,
        "stages": stages(rerun, step),
        "stamp": stamp_of(rerun),
    }
