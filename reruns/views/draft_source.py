"""Step 1: where a rerun downstream begins, and which nodes of that instance are rerun."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from config.http import HtmxRequest, NotFoundMessage, status_of
from reruns import services
from reruns.choices import NodeChoice, nodes_of, source_nodes, source_refusal
from reruns.models import Action, Rerun, Step
from reruns.plans import plan_of
from reruns.views.draft import for_draft, head, is_stale, stages, stale_words
from reruns.views.draft_nodes import asks_anew, content_of, rows_of, ticked_by
from scheduling.errors import SchedulingError
from scheduling.permissions import RERUN, denied, visible
from workflows.models import CycleInstance

TEMPLATE = "reruns/draft_source.html"


def instances() -> Any:
    """Cycle instances with what this step shows of the source."""
    return CycleInstance.objects.select_related("workflow__revision", "revision", "team", "cycle__effective")


@require_http_methods(["GET", "HEAD", "POST"])
def rerun_new(request: HtmxRequest) -> HttpResponse:
    """Choose the nodes of the instance `?cycle=`, which makes the draft."""
    instance = visible(instances(), request.user, pk=_asked(request))
    choices = source_nodes(instance, user=request.user)
    if not any(each.permitted for each in choices):
        raise denied(RERUN)
    context = _shown(request, instance, choices) | {
        "name": instance.name,
        "stages": stages(None, Step.SOURCE),
        "back": reverse("cycle-detail", args=[instance.pk]),
        "freeze_mode": "freeze_mode" in request.POST,
        "begun": Rerun.objects.drafts_of(request.user).filter(source=instance.pk).first(),
    }
    refusal = source_refusal(instance, user=request.user)
    if refusal is not None:
        return render(request, TEMPLATE, context | {"impossible": refusal}, status=409)
    if request.method != "POST" or asks_anew(request):
        return render(request, TEMPLATE, context)
    return _make(request, instance, context)


def _asked(request: HtmxRequest) -> int:
    """The id that the address names; Http404 when it names none."""
    asked = request.GET.get("cycle", "")
    if not (asked.isascii() and asked.isdigit() and len(asked) < 19):
        raise Http404(NotFoundMessage(_("Say at which cycle instance the rerun begins, as in ?cycle=4711.")))
    return int(asked)


def _shown(
    request: HtmxRequest, instance: CycleInstance, choices: list[NodeChoice], rerun: Rerun | None = None
) -> dict[str, Any]:
    """The source and its nodes; ticked are those that the form says, else those that are chosen or proposed."""
    revision = content_of(instance, rerun)
    chosen = {each.key for each in choices if each.chosen}
    if request.method == "POST":
        chosen = ticked_by(request, choices, revision)
    return {
        "cycle": instance,
        "nodes": rows_of(instance, revision, choices, chosen),
        "chosen": chosen,
        "none_failed": not any(each.proposed for each in choices),
        "unfinished": not instance.is_finished,
        "focused": request.POST.get("after", ""),
    }


def _make(request: HtmxRequest, instance: CycleInstance, context: dict[str, Any]) -> HttpResponse:
    who: Any = request.user
    if not context["chosen"]:
        return render(request, TEMPLATE, context | {"refusal": none_ticked()}, status=422)
    try:
        rerun = services.plan(instance, nodes=context["chosen"], freeze_mode=context["freeze_mode"], by=who)
    except SchedulingError as refusal:
        context["refusal"] = str(refusal)
        return render(request, TEMPLATE, context, status=status_of(refusal) or 409)
    return HttpResponseRedirect(reverse("draft-downstream", args=[rerun.pk]))


def none_ticked() -> str:
    return _("No node is ticked. Tick at least one: what is downstream is repaired from what they make.")


@for_draft
def draft_source(request: HtmxRequest, rerun: Rerun) -> HttpResponse:
    """Choose the nodes of the source again."""
    plan = plan_of(rerun, user=request.user)
    candidate = plan.source
    instance = instances().get(pk=candidate.instance_id)
    context = head(request, rerun, Step.SOURCE) | _shown(request, instance, nodes_of(candidate), rerun)
    context |= {
        "back": reverse("rerun-list"),
        "freeze_mode": rerun.freeze_mode,
        "impossible": candidate.refusal,
        "whole": candidate.action == Action.FREEZE,
    }
    if request.method != "POST" or asks_anew(request):
        return render(request, TEMPLATE, context)
    if not context["chosen"]:
        return render(request, TEMPLATE, context | {"refusal": none_ticked()}, status=422)
    if is_stale(request, rerun):
        return render(request, TEMPLATE, context | {"refusal": stale_words()}, status=409)
    who: Any = request.user
    try:
        services.choose_nodes(rerun, candidate.cycle_id, context["chosen"], by=who)
    except SchedulingError as refusal:
        context["refusal"] = str(refusal)
        return render(request, TEMPLATE, context, status=status_of(refusal) or 409)
    return HttpResponseRedirect(reverse("draft-downstream", args=[rerun.pk]))
