"""What becomes of items when instances end, and when somebody does by hand what a rerun would have done."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce

from reruns import notifications, reasons, transitions
from reruns.models import Rerun, RerunItem
from reruns.states import ItemState, RerunState
from scheduling.reasons import said
from workflows.models import CycleInstance, RunType, Workflow
from workflows.states import CycleState
from workflows.transitions import look_again, release_cycles

_BAD = (ItemState.FAILED, ItemState.TERMINATED)


def cycle_ended(instance_id: int, cycle_id: int) -> None:
    """Record what the end of an instance is to the item of its cycle, in the transaction of that end.

    Whoever ends or marks an instance holds the lock of its workflow, and so may change the item. Told again, it
    changes nothing.
    """
    item = RerunItem.objects.owned().filter(cycle=cycle_id).select_related("rerun__team").first()
    if item is None:
        return
    instance = CycleInstance.objects.get(pk=instance_id)
    if _note(item, instance):
        transitions.call_later(item.rerun_id)


def _note(item: RerunItem, instance: CycleInstance) -> bool:
    """Let an item be what the end of `instance` makes of it; whether that concerns its rerun."""
    match item.state:
        case ItemState.RUNNING if instance.pk == item.instance_id:
            transitions.ended(item, instance)
            # Who terminates the whole rerun knows.
            if item.state in _BAD and item.rerun.state != RerunState.TERMINATING:
                notifications.tell_failed(item)
            return True
        case ItemState.FROZEN if instance.pk == item.original_id:
            reason = said(reasons.DROPPED, why=instance.reason)
            transitions.unfreeze(RerunItem.objects.filter(pk=item.pk), reason)
            return True
        case ItemState.FAILED | ItemState.TERMINATED if _counts(item, instance):
            return _repaired(item, instance)
        case ItemState.WAITING:
            # What was to be terminated first may have ended.
            return instance.pk == item.original_id
        case _:
            return False


def _counts(item: RerunItem, instance: CycleInstance) -> bool:
    """Whether an instance of a failed item's cycle is the item's own, or came after it."""
    return instance.run_type != RunType.TEST and instance.pk >= (item.instance_id or item.original_id)


def _repaired(item: RerunItem, instance: CycleInstance) -> bool:
    if instance.state == CycleState.SUCCESS:
        transitions.ended(item, instance)
        # It is held still where it could not be generated once more.
        touched = release_cycles([item.cycle_id], item.rerun.holder)
        transaction.on_commit(lambda: look_again(touched), robust=True)
        return True
    if instance.pk != item.instance_id and instance.state != CycleState.CANCELLED:
        transitions.failed_again(item, instance)
        notifications.tell_failed(item)
    return False


def take_over(rerun: Rerun) -> int:
    """Follow what somebody made of the cycles of failed items by hand; how many items changed."""
    items = RerunItem.objects.owned().filter(rerun=rerun.pk, state__in=_BAD)
    known = Coalesce(F("instance_id"), F("original_id"))
    overtaken = items.filter(cycle__effective__gt=known).values_list("pk", "workflow_id")
    return sum(_take_over(item, workflow) for item, workflow in list(overtaken))


@transaction.atomic
def _take_over(item_id: int, workflow_id: int) -> bool:
    Workflow.objects.locked([workflow_id])
    items = RerunItem.objects.owned().filter(pk=item_id, state__in=_BAD)
    item = items.select_related("rerun__team", "cycle__effective").first()
    return item is not None and overtaken(item)


def overtaken(item: RerunItem) -> bool:
    """Let a failed item be what a newer instance of its cycle is, if there is one; its workflow is locked."""
    instance = item.cycle.effective
    if instance is None or instance.pk <= (item.instance_id or item.original_id):
        return False
    if instance.is_finished:
        return _repaired(item, instance)
    transitions.taken_over(item, instance)
    return True
