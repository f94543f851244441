"""What proves that nothing is stranded, and forgets drafts that nobody came back to."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction

from config import clock
from reruns import reasons
from reruns.models import Rerun, RerunItem
from reruns.states import ItemState, RerunState
from scheduling import journal
from scheduling.reasons import said
from workflows.models import Cycle, CycleInstance, Workflow
from workflows.transitions import look_again, release_cycles, thaw_of

logger = logging.getLogger(__name__)

PREFIX = "rerun:"


def free_stranded() -> list[str]:
    """Free the instances and cycles that a rerun keeps which is gone, has ended, or knows nothing of them.

    No path is known that leaves any; each is logged and journalled as what it is. Returns a line for each.
    """
    lines = []
    for holder in sorted(_holders()):
        lines += _free(holder)
    for line in lines:
        logger.warning("Freed what nothing held any more: %s", line)
    return lines


def _holders() -> set[str]:
    """Who holds anything at all, as far as it is a rerun."""
    frozen = CycleInstance.objects.filter(frozen_at__isnull=False, holder__startswith=PREFIX)
    held = Cycle.objects.exclude(holder="").filter(holder__startswith=PREFIX)
    return {
        holder
        for things in (frozen, held)
        for holder in things.order_by().values_list("holder", flat=True).distinct()
    }


def _free(holder: str) -> list[str]:
    frozen, held = _stranded(holder)
    if not frozen and not held:
        return []
    with transaction.atomic():
        Workflow.objects.locked([*frozen.values(), *held.values()])
        # Looked at again: it may have been submitted, or let go, while the locks were waited for.
        frozen, held = _stranded(holder)
        lines = _named(frozen, held, holder)
        why = said(reasons.HELD_BY_NOBODY, batch=holder.removeprefix(PREFIX))
        touched = thaw_of(holder, by=journal.ENGINE, reason=why, instance_ids=list(frozen))
        touched |= release_cycles(list(held), holder)
        cycles = Cycle.objects.select_related("effective__workflow", "effective__revision").filter(pk__in=held)
        effective = [cycle.effective for cycle in cycles if cycle.effective is not None]
        journal.record_all(journal.entry("freed", each, journal.ENGINE, reason=why) for each in effective)
    look_again(touched)
    return lines


def _stranded(holder: str) -> tuple[dict[int, int], dict[int, int]]:
    """Frozen instances and held cycles that no item accounts for, each with its workflow."""
    number = holder.removeprefix(PREFIX)
    items = RerunItem.objects.none()
    if number.isdigit() and Rerun.objects.active().filter(pk=int(number)).exists():
        items = RerunItem.objects.owned().filter(rerun=int(number))
    kept = items.filter(state=ItemState.FROZEN).values_list("original_id", flat=True)
    # What could not be generated is held as long as somebody may resume it.
    waits = items.filter(state__in=[ItemState.WAITING, ItemState.FAILED]).values_list("cycle_id", flat=True)
    frozen = CycleInstance.objects.filter(holder=holder, frozen_at__isnull=False).exclude(pk__in=list(kept))
    held = Cycle.objects.filter(holder=holder).exclude(pk__in=list(waits))
    return dict(frozen.values_list("pk", "workflow_id")), dict(held.values_list("pk", "workflow_id"))


def _named(frozen: dict[int, int], held: dict[int, int], holder: str) -> list[str]:
    instances = CycleInstance.objects.select_related("workflow", "revision").filter(pk__in=list(frozen))
    lines = [f"{each.name} was frozen by {holder}" for each in instances.order_by("pk")]
    cycles = Cycle.objects.select_related("workflow").filter(pk__in=list(held)).order_by("pk")
    return lines + [f"{each} was held by {holder}" for each in cycles]


def forget_drafts() -> int:
    """Remove drafts that nobody changed for as long as records are kept; how many."""
    since = clock.now() - timedelta(days=settings.TAILRACE["RETENTION_DAYS"])
    old = Rerun.objects.filter(state=RerunState.DRAFT, changed_at__lt=since)
    return int(old.delete()[1].get("reruns.Rerun", 0))
