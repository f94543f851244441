"""What people and policies do to a cycle instance: stop, mark, freeze, cancel."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import transaction
from django.utils.translation import gettext as _

from config import clock
from scheduling import journal
from scheduling.reasons import said, said_with
from workflows import reasons
from workflows.errors import CycleRefused
from workflows.models import CycleInstance, Stopping, Workflow
from workflows.states import CYCLE, CycleState
from workflows.transitions import lifecycle, nodes

_UNBEGUN = CYCLE.sources(CycleState.CANCELLED)


def _refused(instance: CycleInstance, what: str) -> CycleRefused:
    return CycleRefused(
        _("Cycle instance %(id)s has state %(state)s; %(what)s")
        % {"id": instance.pk, "state": instance.get_state_display(), "what": what}
    )


def stop(
    instance_id: int, *, by: journal.By, reason: str, discards_earlier: bool | None = None
) -> CycleInstance:
    """End what has not begun at once, and let nothing more of a running instance begin.

    Its running batches are stopped after the commit; it ends when they have confirmed. `discards_earlier` sets
    whether an earlier success of the cycle counts no more (True) or counts again (False); None leaves that as
    it was. Raises CycleRefused when it has ended or is being stopped already.
    """
    text = said_with(reasons.CYCLE_STOPPED, reasons.CYCLE_STOPPED_WHY, reason, who=journal.actor(by).name)
    with transaction.atomic():
        instance, workflows = _lock_unbegun(instance_id)
        if instance is not None:
            _decide_on_earlier(instance, discards_earlier)
            journal.record("stopped", instance, by, reason=reason, details=_on_earlier(discards_earlier))
            _end_unbegun(instance, workflows, CycleState.TERMINATED, text)
            return instance
    with transaction.atomic():
        instance = lifecycle.lock(instance_id)
        if instance.is_finished:
            raise _refused(instance, _("only an unfinished one can be stopped."))
        if instance.stopping:
            raise _refused(instance, _("it is being stopped already."))
        instance.stopped_by = journal.actor(by).name
        _decide_on_earlier(instance, discards_earlier)
        instance.save(update_fields=["stopped_by", "discards_earlier"])
        journal.record("stopped", instance, by, reason=reason, details=_on_earlier(discards_earlier))
        nodes.begin_stopping(instance, Stopping.STOP, text)
        lifecycle.finish_if_ended(instance)
        return instance


def _decide_on_earlier(instance: CycleInstance, discards_earlier: bool | None) -> None:
    if discards_earlier is not None:
        instance.discards_earlier = discards_earlier


def _on_earlier(discards_earlier: bool | None) -> dict[str, bool]:
    return {} if discards_earlier is None else {"discards_earlier": discards_earlier}


def _lock_unbegun(instance_id: int) -> tuple[CycleInstance | None, dict[int, Workflow]]:
    """An instance that has not begun, else None; locked after its workflow, so that nobody can begin it.

    With the workflows that were locked: its own, and those of what its end may let go on.
    """
    unbegun = CycleInstance.objects.filter(pk=instance_id, state__in=_UNBEGUN)
    found = unbegun.first()
    if found is None:
        return None, {}
    waiting = lifecycle.dependants(found.cycle_id) if lifecycle.may_release(found) else {}
    workflows = Workflow.objects.locked({found.workflow_id, *waiting.values()})
    return (lifecycle.lock(instance_id) if unbegun.exists() else None), workflows


@transaction.atomic
def time_out(instance_id: int) -> bool:
    """Begin to stop a running instance whose deadline has passed; False when there is nothing to do."""
    instance = lifecycle.lock(instance_id)
    now = clock.now()
    if instance.state != CycleState.RUNNING or instance.stopping or not instance.deadline_at:
        return False
    if instance.deadline_at > now:
        return False
    text = said(reasons.CYCLE_TIMED_OUT, seconds=instance.revision.timeout)
    journal.record("timed_out", instance, journal.ENGINE, reason=text)
    nodes.begin_stopping(instance, Stopping.TIMEOUT, text)
    lifecycle.finish_if_ended(instance)
    return True


@transaction.atomic
def cancel(instance_id: int, *, by: journal.By, reason: str) -> bool:
    """Drop an instance that has not begun; False when it has, or has ended."""
    instance, workflows = _lock_unbegun(instance_id)
    if instance is None:
        return False
    journal.record("cancelled", instance, by, reason=reason)
    _end_unbegun(instance, workflows, CycleState.CANCELLED, reason)
    return True


def _end_unbegun(
    instance: CycleInstance, workflows: Mapping[int, Workflow], state: CycleState, reason: str
) -> None:
    _thaw(instance)
    nodes.cancel_waiting(instance, reason)
    instance.state, instance.ended_at, instance.reason = state, clock.now(), reason
    instance.save()
    lifecycle.tell_ended(instance, workflows)


@transaction.atomic
def mark_success(instance_id: int, *, by: journal.By, reason: str) -> CycleInstance:
    """Call an instance that failed or was terminated a success; what waits for its cycle goes on.

    Raises CycleRefused when it is neither.
    """
    instance = lifecycle.lock(instance_id)
    if not instance.can_mark_success:
        raise _refused(instance, _("only one that failed or was terminated can be marked as a success."))
    before, instance.state = instance.state, CycleState.SUCCESS
    instance.reason = said(reasons.MARKED_SUCCESS, who=journal.actor(by).name, why=reason)
    instance.save(update_fields=["state", "reason"])
    details = {"state_before": before, "state_after": CycleState.SUCCESS.value}
    journal.record("marked", instance, by, reason=reason, details=details)
    lifecycle.tell_ended(instance)
    return instance


# --- freeze ------------------------------------------------------------------------------------------


@transaction.atomic
def freeze(instance_id: int, *, by: journal.By, reason: str, holder: str = "") -> CycleInstance:
    """Hold an instance back that has not begun, until it is unfrozen; `holder` alone may do that, if given.

    Raises CycleRefused when it has begun or is frozen already.
    """
    instance = lifecycle.lock(instance_id)
    if instance.is_frozen:
        raise _refused(instance, _("it was frozen by %(who)s already.") % {"who": instance.frozen_by})
    if not instance.can_freeze:
        raise _refused(instance, _("only one that has not begun can be frozen."))
    instance.frozen_at, instance.frozen_by = clock.now(), journal.actor(by).name
    instance.frozen_reason, instance.holder = reason, holder
    instance.save(update_fields=["frozen_at", "frozen_by", "frozen_reason", "holder"])
    journal.record("frozen", instance, by, reason=reason)
    return instance


@transaction.atomic
def unfreeze(instance_id: int, *, by: journal.By, reason: str, holder: str = "") -> CycleInstance:
    """Let a frozen instance go on; it becomes ready, or begins, if all else is given.

    Raises CycleRefused when it is not frozen, or frozen by something else than `holder`.
    """
    workflow_id = CycleInstance.objects.values_list("workflow_id", flat=True).get(pk=instance_id)
    [workflow] = Workflow.objects.locked([workflow_id]).values()
    instance = lifecycle.lock(instance_id)
    if not instance.is_frozen:
        raise _refused(instance, _("it is not frozen."))
    if instance.holder != holder:
        raise _refused(
            instance,
            _("it is frozen by %(who)s for %(holder)s, which alone can unfreeze it.")
            % {"who": instance.frozen_by, "holder": instance.holder or instance.frozen_by},
        )
    _thaw(instance)
    instance.save(update_fields=["frozen_at", "frozen_by", "frozen_reason", "holder"])
    journal.record("unfrozen", instance, by, reason=reason)
    lifecycle.make_ready(CycleInstance.objects.filter(pk=instance_id))
    lifecycle.begin_ready(workflow)
    instance.refresh_from_db()
    return instance


def _thaw(instance: CycleInstance) -> None:
    instance.frozen_at, instance.frozen_by = None, ""
    instance.frozen_reason, instance.holder = "", ""
