"""Which nodes of an instance are rerun: the choice, as step 1 and the dialog of step 2 show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django_htmx.http import trigger_client_event

from config.http import HtmxRequest, NotFoundMessage, status_of
from reruns import services
from reruns.candidates import Candidate
from reruns.choices import NodeChoice, nodes_of
from reruns.models import Action, Rerun
from reruns.plans import plan_of
from reruns.views.draft import for_draft, is_stale, stale_words, stamp_of
from scheduling.errors import SchedulingError
from scheduling.views.asking import confirm
from workflows.graphs import keys_from
from workflows.models import CycleInstance, WorkflowNode
from workflows.states import NodeRunState

TEMPLATE = "reruns/draft_nodes.html"
# What the page of step 2 hears when a dialog of it has changed the draft.
PICKED = "picked"


@dataclass(frozen=True)
class NodeRow:
    """A node to be ticked: its task and whose that is, how it ended in the instance, and whether one may."""

    key: str
    task: str
    task_id: int
    team: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None
    succeeded: int
    total: int
    permitted: bool
    chosen: bool

    def get_state_display(self) -> str:
        return str(NodeRunState(self.state).label)


def content_of(instance: CycleInstance, rerun: Rerun | None = None) -> int:
    """The id of the content that a rerun of an instance runs: that of then, or today's."""
    as_it_ran = rerun is None or rerun.as_it_ran
    return instance.revision_id if as_it_ran else instance.workflow.revision_id or instance.revision_id


def rows_of(
    instance: CycleInstance, revision_id: int, choices: Sequence[NodeChoice], chosen: Iterable[str]
) -> list[NodeRow]:
    """The rows of `choices`, of which `chosen` (keys) are ticked; in two queries however many there are."""
    runs: dict[str, Any] = {
        run["node__key"]: run
        for run in instance.node_runs.values(
            "node__key", "started_at", "ended_at", "batch__started_at", "batch__succeeded", "batch__total"
        )
    }
    tasks = {
        node.key: node.task
        for node in WorkflowNode.objects.filter(revision=revision_id).select_related("task__team")
    }
    ticked = set(chosen)
    rows = []
    for each in choices:
        run = runs.get(each.key, {})
        task = tasks[each.key]
        rows.append(
            NodeRow(
                key=each.key,
                task=each.task,
                task_id=task.pk,
                team=task.team.name,
                state=each.state,
                started_at=run.get("batch__started_at") or run.get("started_at"),
                ended_at=run.get("ended_at"),
                succeeded=run.get("batch__succeeded") or 0,
                total=run.get("batch__total") or 0,
                permitted=each.permitted,
                chosen=each.permitted and each.key in ticked,
            )
        )
    return rows


def ticked_by(request: HtmxRequest, choices: Sequence[NodeChoice], revision_id: int) -> set[str]:
    """The keys that a posted form ticks: its boxes, and what its buttons `tick` and `after` ask for."""
    permitted = {each.key for each in choices if each.permitted}
    whole = {
        "all": permitted,
        "none": set[str](),
        "proposed": {each.key for each in choices if each.proposed},
    }
    asked = request.POST.get("tick", "")
    wanted = whole[asked] if asked in whole else set(request.POST.getlist("node"))
    return (wanted | keys_from(request.POST.get("after", ""), revision_id)) & permitted


def asks_anew(request: HtmxRequest) -> bool:
    """Whether a posted form only asks to be shown with other ticks."""
    return bool({"tick", "after"} & request.POST.keys())


# --- the dialog of step 2 ------------------------------------------------------------------------------


@for_draft
def draft_nodes(request: HtmxRequest, rerun: Rerun, cycle: int) -> HttpResponse:
    """Choose the nodes of one instance downstream, which is chosen by that."""
    back = reverse("draft-downstream", args=[rerun.pk])
    refusal, status = "", 200
    if request.method == "POST" and not asks_anew(request):
        try:
            if not is_stale(request, rerun):
                return _chosen(request, rerun, cycle, back)
            refusal, status = stale_words(), 409
        except SchedulingError as error:
            refusal, status = str(error), status_of(error) or 409
    plan = plan_of(rerun, user=request.user)
    candidate = plan.candidate(cycle)
    if candidate is None:
        raise Http404(NotFoundMessage(_("That cycle is not downstream of the source of this draft.")))
    choices, revision = nodes_of(candidate), _revision_of(candidate, rerun)
    chosen = {each.key for each in choices if each.chosen}
    if request.method == "POST":
        chosen = ticked_by(request, choices, revision)
    instance = CycleInstance.objects.select_related("workflow", "team").get(pk=candidate.instance_id)
    context: dict[str, Any] = {
        "rerun": rerun,
        "candidate": candidate,
        "cycle": instance,
        "nodes": rows_of(instance, revision, choices, chosen),
        "whole": candidate.action == Action.FREEZE,
        "fixed": candidate.refusal is not None,
        "focused": request.POST.get("after", ""),
        "stamp": stamp_of(rerun),
        "back": back,
    }
    return confirm(request, TEMPLATE, context | ({"refusal": refusal} if refusal else {}), status=status)


def _revision_of(candidate: Candidate, rerun: Rerun) -> int:
    instance = CycleInstance.objects.select_related("workflow").get(pk=candidate.instance_id)
    return content_of(instance, rerun)


def _chosen(request: HtmxRequest, rerun: Rerun, cycle: int, back: str) -> HttpResponse:
    """Choose the ticked nodes. Raises RerunRefused when that cannot be."""
    who: Any = request.user
    services.choose_nodes(
        rerun,
        cycle,
        lambda candidate: ticked_by(request, nodes_of(candidate), _revision_of(candidate, rerun)),
        by=who,
    )
    if not request.htmx:
        return HttpResponseRedirect(back)
    return trigger_client_event(render(request, f"{TEMPLATE}#done"), PICKED, after="settle")
