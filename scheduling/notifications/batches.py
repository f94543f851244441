"""Notifications of a task's batches: one succeeded, failed, was stopped, is late, or never began.

The texts are made when the event happens, in the installation's language: their readers have no other, and the
records that they speak of may be gone when a mail is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.conf import settings
from django.db.models import Q
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling import words
from scheduling.models import Batch, Deadline, Execution, Instance, Task
from scheduling.models.tasks import SCHEDULED
from scheduling.notifications import deadlines, outbox
from scheduling.notifications.rules import (
    FAILURE,
    LATE,
    STOPPED,
    SUCCESS,
    channels_for,
    channels_for_lateness,
    late_limits,
)
from scheduling.reasons import in_words
from scheduling.states import BatchState, InstanceState

KIND = "batch"
INSTANCES_NAMED = 3
_LONGEST_ERROR = 300


def page_of(batch_id: int) -> str:
    """The batch's page. Written out, for the sake of workers, which need not load every view to end a batch."""
    return f"/batches/{batch_id}/"


# --- begun and ended -------------------------------------------------------------------------------


def watch_batches(batches: Iterable[Batch]) -> None:
    """Watch those new batches whose tasks (loaded) have a rule on lateness; costs nothing for any other."""
    limits = [
        (batch.pk, _counts_from(batch), after)
        for batch in batches
        if batch.task.notify and not batch.is_finished
        for after in late_limits(batch.task.notify)
    ]
    if limits:
        deadlines.watch(KIND, limits)


def _counts_from(batch: Batch) -> datetime:
    """A scheduled batch is late by its due time; one begun by hand, again or by a workflow from that moment."""
    on_time = batch.trigger in SCHEDULED and batch.rerun_of_id is None
    return batch.scheduled_for if on_time else batch.created_at


def tell_ended(batch_id: int) -> None:
    """Tell of the end of a batch whose task has rules, in the transaction that ended it.

    It is told of once for each time that it ended, and each way: a rerun of one of its instances ends it anew.
    """
    batch = Batch.objects.select_related("task__team").get(pk=batch_id)
    rules = batch.task.notify
    if late_limits(rules):
        deadlines.ended(KIND, batch.pk)
    event = _event_of(batch)
    told = channels_for(rules, event) if event is not None else []
    if event is None or not told or batch.ended_at is None:
        return
    with translation.override(settings.LANGUAGE_CODE):
        outbox.post(
            f"batch:{batch.pk}:{event}:{int(batch.ended_at.timestamp() * 1000)}",
            event=event,
            channels=told,
            team_id=batch.team_id,
            subject=_subject(batch, event),
            text="\n".join(_ended_text(batch, batch.ended_at)),
            path=page_of(batch.pk),
        )


def _event_of(batch: Batch) -> str | None:
    """The event that the end of `batch` is; None when it is none."""
    match batch.state:
        case BatchState.SUCCESS:
            return SUCCESS
        case BatchState.FAILED:
            return FAILURE if batch.is_failure else STOPPED
        case _:
            return None


def _subject(batch: Batch, event: str) -> str:
    sentence = {
        SUCCESS: _("[%(team)s] %(task)s succeeded"),
        FAILURE: _("[%(team)s] %(task)s failed"),
        STOPPED: _("[%(team)s] %(task)s was stopped"),
        LATE: _("[%(team)s] %(task)s is late"),
    }[event]
    return sentence % {"team": batch.task.team.name, "task": batch.task.name}


def _ended_text(batch: Batch, ended_at: datetime) -> list[str]:
    state = str(BatchState(batch.state).label).lower()
    lines = [
        _("Batch %(id)d of the task %(task)s ended at %(time)s: %(state)s.")
        % {"id": batch.pk, "task": batch.task.name, "time": _moment(ended_at), "state": state}
    ]
    if batch.started_at is not None:
        lines.append(_("It took %(length)s.") % {"length": words.length(ended_at - batch.started_at)})
    return [*lines, *_why(batch), _begun(batch)]


def _begun(batch: Batch) -> str:
    how = {"trigger": batch.get_trigger_display(), "time": _moment(batch.scheduled_for)}
    return _("Trigger: %(trigger)s, due %(time)s.") % how


def _why(batch: Batch) -> list[str]:
    lines = [in_words(batch.reason)] if batch.reason else []
    if batch.total and batch.succeeded < batch.total:
        counts = {"done": batch.succeeded, "total": batch.total, "need": batch.success_ratio}
        lines.append(_("%(done)d of %(total)d instances succeeded; %(need)d %% are needed.") % counts)
        lines += _worst(batch)
    return lines


def _worst(batch: Batch) -> list[str]:
    """What the first few instances that did not succeed say of it."""
    wrong = [InstanceState.FAILED, InstanceState.TIMED_OUT, InstanceState.TERMINATED]
    found = Instance.objects.filter(batch=batch, state__in=wrong).select_related("node").order_by("number")
    instances = list(found[: INSTANCES_NAMED + 1])
    named = instances[:INSTANCES_NAMED]
    last = Q()
    for instance in named:
        last |= Q(instance=instance, number=instance.executions_count)
    errors = dict(Execution.objects.filter(last).values_list("instance_id", "error")) if named else {}
    lines = []
    for instance in named:
        why = in_words(errors.get(instance.pk, "") or instance.reason) or _("no reason was given")
        lines.append(f"– {_place(instance)}: {' '.join(why.split())[:_LONGEST_ERROR]}")
    more = batch.total - batch.succeeded - len(named)
    if len(instances) > len(named):
        lines.append(ngettext("– and %(count)d more", "– and %(count)d more", more) % {"count": more})
    return lines


def _place(instance: Instance) -> str:
    what = _("instance %(number)d") % {"number": instance.number}
    if instance.shard_parameter:
        what = _("shard %(number)d (%(parameter)s)") % {
            "number": instance.number,
            "parameter": instance.shard_parameter[:60],
        }
    return _("%(what)s on %(node)s") % {"what": what, "node": instance.node.name} if instance.node else what


def _moment(moment: datetime) -> str:
    return f"{timezone.localtime(moment, timezone.get_default_timezone()):%Y-%m-%d %H:%M:%S %Z}"


# --- late ------------------------------------------------------------------------------------------


@deadlines.when_late(KIND)
def tell_late(due: Sequence[Deadline]) -> None:
    """Tell of the batches among `due` that had not ended when their time came."""
    batches = Batch.objects.select_related("task__team").in_bulk([each.object_id for each in due])
    with translation.override(settings.LANGUAGE_CODE):
        for each in due:
            batch = batches.get(each.object_id)
            if batch is None or (batch.ended_at is not None and batch.ended_at <= each.at):
                continue
            if batch.state == BatchState.CONDITION_NOT_MET:
                continue
            outbox.post(
                f"batch:{batch.pk}:{LATE}:{each.after}",
                event=LATE,
                channels=channels_for_lateness(batch.task.notify, each.after),
                team_id=batch.team_id,
                subject=_subject(batch, LATE),
                text="\n".join([*_late_text(batch, each), _begun(batch)]),
                path=page_of(batch.pk),
            )


def _late_text(batch: Batch, deadline: Deadline) -> list[str]:
    facts = {
        "id": batch.pk,
        "task": batch.task.name,
        "time": _moment(deadline.at),
        "state": str(BatchState(batch.state).label).lower(),
    }
    if batch.ended_at is not None:
        text = _("Batch %(id)d of the task %(task)s was to have ended by %(time)s and ended later: %(state)s.")
        return [text % facts]
    text = _("Batch %(id)d of the task %(task)s was to have ended by %(time)s and has not: it is %(state)s.")
    if batch.held:
        return [text % facts, _("It is held: an earlier batch of the task is unfinished.")]
    if batch.started_at is None:
        return [text % facts, _("It has not begun: no node has taken it.")]
    counts = {"ended": batch.ended_count, "total": batch.total, "time": _moment(batch.started_at)}
    return [text % facts, _("It began at %(time)s; %(ended)d of %(total)d instances have ended.") % counts]


def tell_missed(task: Task, *, due: datetime, reason: str) -> None:
    """Tell those who are told when the task is late that it was due and did not begin at all.

    `reason` is as it is stored; `task` needs nothing loaded. Costs nothing for a task without such a rule.
    """
    if not (told := channels_for(task.notify, LATE)):
        return
    with translation.override(settings.LANGUAGE_CODE):
        names = {"team": task.team.name, "task": task.name}
        text = _("The task %(task)s was due at %(time)s and did not run.")
        outbox.post(
            f"task:{task.pk}:missed:{int(due.timestamp())}",
            event=LATE,
            channels=told,
            team_id=task.team_id,
            subject=_("[%(team)s] %(task)s did not run") % names,
            text="\n".join([text % (names | {"time": _moment(due)}), in_words(reason)]),
            path=f"/tasks/{task.pk}/",
        )
