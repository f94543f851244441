"""What is told of a workflow's cycles: that one succeeded, failed, was stopped, or has not ended by its time.

As with tasks (scheduling.notifications), texts are made when the event happens, in the installation's language.
Tests are nobody's business but of who began them: nothing is told of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.conf import settings
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling import words
from scheduling.models import Deadline, Execution
from scheduling.notifications import (
    channels_for,
    channels_for_lateness,
    ended,
    late_limits,
    post,
    watch,
    when_late,
)
from scheduling.notifications.rules import FAILURE, STOPPED, SUCCESS
from scheduling.reasons import in_words
from workflows.models import CycleInstance, NodeRun, RunType
from workflows.states import CycleState, NodeRunState

KIND = "cycle"
NODES_NAMED = 3
_EVENT_OF = {
    CycleState.SUCCESS.value: SUCCESS,
    CycleState.FAILED.value: FAILURE,
    CycleState.TERMINATED.value: STOPPED,
}


def watch_cycles(instances: Iterable[CycleInstance]) -> None:
    """Watch scheduled instances whose workflow (loaded) has a rule on lateness, from the cycle time on."""
    limits = [
        (instance.pk, instance.cycle_time, after)
        for instance in instances
        if instance.run_type == RunType.ONLINE
        for after in late_limits(instance.workflow.notify)
    ]
    if limits:
        watch(KIND, limits)


def tell_ended(instance: CycleInstance) -> None:
    """Tell of the end of an instance whose workflow has rules, in the transaction that ended it."""
    rules = instance.workflow.notify
    if not rules or instance.run_type == RunType.TEST:
        return
    if late_limits(rules):
        ended(KIND, instance.pk)
    event = _EVENT_OF.get(instance.state)
    told = channels_for(rules, event) if event is not None else []
    if event is None or not told or instance.ended_at is None:
        return
    with translation.override(settings.LANGUAGE_CODE), timezone.override(None):
        post(
            f"cycle:{instance.pk}:{event}",
            event=event,
            channels=told,
            team_id=instance.team_id,
            subject=_subject(instance, event),
            text="\n".join(_ended_text(instance)),
            path=page_of(instance.pk),
        )


def page_of(instance_id: int) -> str:
    """The instance's page; written out, as workers need not load every view to end one."""
    return f"/cycles/{instance_id}/"


def _subject(instance: CycleInstance, event: str) -> str:
    sentence = {
        SUCCESS: _("[%(team)s] %(cycle)s succeeded"),
        FAILURE: _("[%(team)s] %(cycle)s failed"),
        STOPPED: _("[%(team)s] %(cycle)s was stopped"),
        "late": _("[%(team)s] %(cycle)s is late"),
    }[event]
    return sentence % {"team": instance.workflow.team.name, "cycle": instance.name}


def _ended_text(instance: CycleInstance) -> list[str]:
    lines = [
        _("Cycle instance %(id)d of the workflow %(workflow)s, data date %(date)s, ended: %(state)s.")
        % _facts(instance)
    ]
    if instance.started_at is not None and instance.ended_at is not None:
        took = words.length(instance.ended_at - instance.started_at)
        lines.append(_("It took %(length)s.") % {"length": took})
    if instance.reason:
        lines.append(in_words(instance.reason))
    return lines + _worst(instance)


def _facts(instance: CycleInstance) -> dict[str, object]:
    return {
        "id": instance.pk,
        "workflow": instance.workflow.name,
        "date": instance.data_date.isoformat(),
        "state": str(CycleState(instance.state).label).lower(),
    }


def _worst(instance: CycleInstance) -> list[str]:
    """The first few of several nodes that did not succeed, each with its cause."""
    wrong = [NodeRunState.FAILED, NodeRunState.TIMED_OUT, NodeRunState.TERMINATED]
    found = NodeRun.objects.filter(instance=instance, state__in=wrong).select_related("node")
    runs = list(found.with_error(Execution.objects.all()).order_by("ended_at", "pk"))
    if len(runs) < 2 and instance.reason:
        # The instance's own reason says it.
        return []
    lines = [
        f"– {run.node.key}: {in_words(run.error or run.reason) or NodeRunState(run.state).label}"
        for run in runs[:NODES_NAMED]
    ]
    more = len(runs) - NODES_NAMED
    if more > 0:
        lines.append(ngettext("– and %(count)d more", "– and %(count)d more", more) % {"count": more})
    return lines


@when_late(KIND)
def tell_late(due: Sequence[Deadline]) -> None:
    """Tell of the instances among `due` that had not ended when their time came."""
    found = CycleInstance.objects.select_related("workflow__team", "revision")
    instances = found.in_bulk([each.object_id for each in due])
    with translation.override(settings.LANGUAGE_CODE), timezone.override(None):
        for each in due:
            instance = instances.get(each.object_id)
            if instance is None or instance.state == CycleState.CANCELLED:
                continue
            if instance.ended_at is not None and instance.ended_at <= each.at:
                continue
            by = words.moment(each.at)
            text = _(
                "Cycle instance %(id)d of the workflow %(workflow)s, data date %(date)s, was to have ended by "
                "%(time)s: it is %(state)s."
            ) % (_facts(instance) | {"time": by})
            post(
                f"cycle:{instance.pk}:late:{each.after}",
                event="late",
                channels=channels_for_lateness(instance.workflow.notify, each.after),
                team_id=instance.team_id,
                subject=_subject(instance, "late"),
                text=text,
                path=page_of(instance.pk),
            )
