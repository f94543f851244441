"""What people and policies do to a batch and its instances: stop, rerun, judge anew, pass over, let go."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from config import clock
from scheduling import journal, reasons, signals
from scheduling.errors import TransitionRefused
from scheduling.models import Batch, Instance, Node
from scheduling.models.batches import Cause
from scheduling.notifications import batches as notifications
from scheduling.reasons import said
from scheduling.states import BatchState, InstanceState, Outcome
from scheduling.transitions.making import Claim
from scheduling.transitions.statements import STOP_CHANNEL, WORK_CHANNEL, database_now, execute, notify


def tell_ended(batch: Batch) -> None:
    """Tell the apps above and whom its task names, in the transaction that ended it, that `batch` has ended."""
    signals.batch_ended.send(sender=Batch, batch_id=batch.pk, state=batch.state, trigger=batch.trigger)
    if batch.task.notify:
        notifications.tell_ended(batch.pk)


_COUNT = "SELECT tailrace_count(%(batch)s, %(succeeded)s, %(failed)s, %(timed_out)s, %(terminated)s)"
_LEFT_STOPPING = "SELECT tailrace_left_stopping(%(batch)s) AS reason"
_REQUEUED = "SELECT tailrace_requeued(%(batch)s)"
_COUNTERS = ("succeeded", "failed", "timed_out", "terminated")


def _count(batch: Batch, counts: dict[str, int], by: journal.By) -> None:
    """Add ended instances to the locked `batch`, and end it when none is left."""
    if not any(counts.values()):
        return
    execute(_COUNT, {"batch": batch.pk} | {name: counts.get(name, 0) for name in _COUNTERS})
    batch.refresh_from_db()
    if batch.is_finished:
        journal.record("ended", batch, by, reason=batch.reason, details={"state": batch.state})
        tell_ended(batch)
    elif batch.state == BatchState.RUNNING and execute(_LEFT_STOPPING, {"batch": batch.pk}).reason is not None:
        batch.refresh_from_db(fields=["state", "reason"])
        journal.record("stopped", batch, by, reason=batch.reason)


def _lock(batch_id: int) -> Batch:
    return Batch.objects.select_for_update(no_key=True, of=("self",)).select_related("task").get(pk=batch_id)


# --- stop ------------------------------------------------------------------------------------------


def _begin_terminating(batch: Batch, reason: str, *, stopped: bool) -> None:
    """Nothing of the locked `batch` will start any more; it is judged when what still runs has ended.

    `stopped`: a person or the overlap policy asked for it, so that the end is no failure.
    """
    batch.stopped = stopped
    batch.state = BatchState.TERMINATING
    batch.reason = reason
    batch.save(update_fields=["state", "reason", "stopped"])


def _stopped(by: journal.By, reason: str) -> str:
    return reasons.said_with(reasons.STOPPED, reasons.STOPPED_WHY, reason, who=journal.actor(by).name)


@transaction.atomic
def stop_batch(batch_id: int, *, by: journal.By, reason: str) -> Batch:
    """Ask a batch to end: what waits never starts, what runs is told to end.

    Raises TransitionRefused when the batch has ended or was stopped already.
    """
    batch = _lock(batch_id)
    if not batch.can_stop:
        raise TransitionRefused(
            _(
                "Batch %(id)s has state %(state)s; only an unfinished batch that was not stopped yet "
                "can be stopped."
            )
            % {"id": batch.pk, "state": batch.get_state_display()}
        )
    text = _stopped(by, reason)
    _begin_terminating(batch, text, stopped=True)
    journal.record("stopped", batch, by, reason=reason)
    of_batch = Instance.objects.filter(batch_id=batch.pk)
    # Two statements, each with a fresh look: an instance that starts during the first is seen by the second.
    never = of_batch.filter(state=InstanceState.WAITING).update(
        state=InstanceState.TERMINATED,
        ended_at=clock.now(),
        reason=text,
    )
    running = of_batch.filter(state=InstanceState.RUNNING).update(state=InstanceState.TERMINATING, reason=text)
    if running:
        notify(STOP_CHANNEL)
    _count(batch, {"terminated": never}, by)
    return batch


@transaction.atomic
def stop_instance(instance_id: int, *, by: journal.By, reason: str) -> Instance:
    """Ask one instance to end; the rest of its batch goes on.

    Raises TransitionRefused when it has ended or was stopped already.
    """
    batch = _lock(Instance.objects.values_list("batch_id", flat=True).get(pk=instance_id))
    of_batch = Instance.objects.filter(batch_id=batch.pk)
    stopped = {"pk": instance_id}
    text = _stopped(by, reason)
    never = of_batch.filter(**stopped, state=InstanceState.WAITING).update(
        state=InstanceState.TERMINATED, ended_at=clock.now(), reason=text
    )
    running = 0
    if not never:
        # Should the job fail or time out before the stop reaches it, it must not be tried again.
        running = of_batch.filter(**stopped, state=InstanceState.RUNNING).update(
            state=InstanceState.TERMINATING, reason=text, retries_left=0
        )
    instance = Instance.objects.select_related("batch__task").get(pk=instance_id)
    if not never and not running:
        raise TransitionRefused(
            _(
                "Instance %(id)s has state %(state)s; only an unfinished one that was not stopped yet "
                "can be stopped."
            )
            % {"id": instance.pk, "state": instance.get_state_display()}
        )
    journal.record("stopped", instance, by, reason=reason)
    if running:
        notify(STOP_CHANNEL)
    others = of_batch.filter(state__in=[InstanceState.WAITING, InstanceState.RUNNING]).exists()
    if not others and batch.can_stop:
        # Whatever is left of the batch is being stopped: that is what terminating means.
        _begin_terminating(batch, text, stopped=True)
        journal.record("stopped", batch, by, reason=reason)
    _count(batch, {"terminated": never}, by)
    instance.batch = batch
    return instance


# --- rerun -----------------------------------------------------------------------------------------

_COUNTER = {
    InstanceState.SUCCESS: "succeeded",
    InstanceState.FAILED: "failed",
    InstanceState.TIMED_OUT: "timed_out",
    InstanceState.TERMINATED: "terminated",
}


@transaction.atomic
def rerun_instance(
    instance_id: int, *, by: journal.By, reason: str, prefer_node_for: float | None, retries: int
) -> Instance:
    """Put a finished instance back into the queue; its executions so far stay its history.

    `prefer_node_for`: seconds during which only its last node may claim it, or None.
    Raises TransitionRefused when the instance has not ended or its batch is being stopped.
    """
    batch = _lock(Instance.objects.values_list("batch_id", flat=True).get(pk=instance_id))
    instance = Instance.objects.select_for_update(of=("self",)).select_related("node").get(pk=instance_id)
    if not instance.can_rerun:
        raise TransitionRefused(
            _("Instance %(id)s has state %(state)s; only a finished instance can be rerun.")
            % {"id": instance.pk, "state": instance.get_state_display()}
        )
    if batch.state in {BatchState.TERMINATING, BatchState.CONDITION_NOT_MET}:
        raise TransitionRefused(
            _("Batch %(id)s has state %(state)s; rerun the instance when the batch has ended.")
            % {"id": batch.pk, "state": batch.get_state_display()}
        )
    counter = _COUNTER[InstanceState(instance.state)]
    now = database_now()
    instance.state = InstanceState.WAITING
    instance.cause = Cause.RERUN
    instance.reason = ""
    instance.claimed = False
    instance.started_at = instance.ended_at = None
    instance.retries_left = retries
    if batch.is_finished:
        # Whatever it was held for, this rerun was asked for now.
        batch.state, batch.ended_at, batch.reason, batch.held = BatchState.RUNNING, None, "", False
        batch.stopped = False
    instance.run_after = None if batch.held else now
    instance.prefers_node_until = None if prefer_node_for is None else now + timedelta(seconds=prefer_node_for)
    instance.save()
    setattr(batch, counter, getattr(batch, counter) - 1)
    batch.save()
    if batch.state == BatchState.RUNNING and not batch.ended_count:
        execute(_REQUEUED, {"batch": batch.pk})
        batch.refresh_from_db(fields=["state"])
    instance.batch = batch
    journal.record("rerun", instance, by, reason=reason)
    notify(WORK_CHANNEL, instance.group_id)
    return instance


# --- judge anew ------------------------------------------------------------------------------------


@transaction.atomic
def judge_anew(batch_id: int, *, success_ratio: int, by: journal.By, reason: str) -> Batch:
    """Judge an ended batch by another success ratio (in per cent), whichever way that turns out.

    Raises TransitionRefused when the batch has not ended, or has nothing to judge by.
    """
    batch = _lock_judged(batch_id)
    if not batch.total:
        raise TransitionRefused(
            _("Batch %(id)s has no instances, so there is nothing to judge it by; mark it instead.")
            % {"id": batch.pk}
        )
    reached = batch.succeeded * 100 >= success_ratio * batch.total
    ratios = {"ratio_before": batch.success_ratio, "ratio_after": success_ratio}
    counts = {"succeeded": batch.succeeded, "total": batch.total}
    batch.success_ratio = success_ratio
    batch.reason = reasons.said_with(
        reasons.JUDGED_ANEW,
        reasons.JUDGED_ANEW_WHY,
        reason,
        who=journal.actor(by).name,
        ratio=success_ratio,
    )
    return _decide(
        batch,
        BatchState.SUCCESS if reached else BatchState.FAILED,
        action="judged",
        by=by,
        reason=reason,
        details=ratios | counts,
    )


@transaction.atomic
def mark(batch_id: int, state: BatchState, *, by: journal.By, reason: str) -> Batch:
    """Call an ended batch a success or failed, whatever its instances say.

    Raises TransitionRefused when the batch has not ended, or is in that state already.
    """
    batch = _lock_judged(batch_id)
    if batch.state == state:
        raise TransitionRefused(
            _("Batch %(id)s has state %(state)s already.")
            % {"id": batch.pk, "state": batch.get_state_display()}
        )
    batch.stopped = False
    batch.reason = said(reasons.MARKED, state=state.value, who=journal.actor(by).name, why=reason)
    return _decide(batch, state, action="marked", by=by, reason=reason, details={})


def _lock_judged(batch_id: int) -> Batch:
    batch = _lock(batch_id)
    if batch.state not in {BatchState.SUCCESS, BatchState.FAILED}:
        raise TransitionRefused(
            _(
                "Batch %(id)s has state %(state)s; only one that ended as a success or failed "
                "can be judged anew."
            )
            % {"id": batch.pk, "state": batch.get_state_display()}
        )
    return batch


def _decide(
    batch: Batch, state: BatchState, *, action: str, by: journal.By, reason: str, details: dict[str, Any]
) -> Batch:
    before, batch.state = batch.state, state
    batch.save(update_fields=["state", "success_ratio", "reason", "stopped"])
    moved = {"state_before": before, "state_after": state.value}
    journal.record(action, batch, by, reason=reason, details=moved | details)
    if before != state:
        tell_ended(batch)
    return batch


# --- never run -------------------------------------------------------------------------------------


@transaction.atomic
def give_up_waiting(node: Node, batch_id: int, *, reason: str) -> Batch | None:
    """End what of a batch waits for this one node and can run nowhere else; the batch, if it ended by that."""
    batch = _lock(batch_id)
    waiting = Instance.objects.only_for(node).filter(batch=batch, ended_at__isnull=True)
    count = waiting.update(state=InstanceState.TERMINATED, ended_at=clock.now(), reason=reason)
    if batch.can_stop and batch.ended_count + count == batch.total:
        _begin_terminating(batch, reason, stopped=False)
    _count(batch, {"terminated": count}, journal.ENGINE)
    return batch if count and batch.is_finished else None


@transaction.atomic
def clear_claimed(claim: Claim, *, reason: str) -> bool:
    """End executions that the records call live though their instance is claimed anew; nobody can report them.

    A start is refused while there is one, or while an earlier execution has its number. False when the claim is
    not valid any more.
    """
    _lock(claim.batch)
    instance = _claimed(claim)
    if instance is None:
        return False
    instance.executions.live().update(ended_at=Now(), outcome=Outcome.LOST, error=reason)
    numbers = instance.executions.aggregate(highest=Max("number", default=0))
    count = max(instance.executions_count, numbers["highest"])
    Instance.objects.filter(pk=instance.pk).update(executions_count=count)
    return True


@transaction.atomic
def give_up_start(claim: Claim, *, reason: str) -> Batch | None:
    """Terminate a claimed instance that cannot be started; the batch, if it ended by that."""
    batch = _lock(claim.batch)
    instance = _claimed(claim)
    if instance is None:
        return None
    Instance.objects.filter(pk=instance.pk).update(
        state=InstanceState.TERMINATED, claimed=False, claimed_until=None, ended_at=Now(), reason=reason
    )
    if batch.can_stop and batch.ended_count + 1 == batch.total:
        _begin_terminating(batch, reason, stopped=False)
    _count(batch, {"terminated": 1}, journal.ENGINE)
    return batch if batch.is_finished else None


def _claimed(claim: Claim) -> Instance | None:
    """The instance, locked, if the claim is valid."""
    valid = Instance.objects.filter(
        pk=claim.instance, token=claim.token, claimed=True, state=InstanceState.WAITING
    )
    return valid.select_for_update(of=("self",), no_key=True).first()


@transaction.atomic
def release_held(batch_id: int) -> bool:
    """Let a held batch's instances be claimed; False when it is not held any more."""
    batch = _lock(batch_id)
    if not batch.held or batch.is_finished:
        return False
    batch.held = False
    batch.save(update_fields=["held"])
    Instance.objects.filter(batch=batch, state=InstanceState.WAITING).update(run_after=Now())
    notify(WORK_CHANNEL, batch.group_id)
    return True
