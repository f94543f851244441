"""What an app above holds: cycles that it is about to run anew, and instances that it keeps frozen.

All of it at once, one statement each: a rerun holds thousands. Callers hold the locks of the workflows, by id,
so that nothing of them becomes ready, begins or ends meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

from django.db import transaction
from django.utils.translation import gettext as _

from config import clock
from scheduling import journal
from workflows import words
from workflows.errors import CycleRefused
from workflows.models import Cycle, CycleInstance, Workflow
from workflows.states import CycleState
from workflows.transitions import lifecycle
from workflows.transitions.effective import set_effective

logger = logging.getLogger(__name__)


def hold_cycles(cycle_ids: Collection[int], holder: str) -> None:
    """Let these cycles count as not succeeded until `holder` reruns them or lets go of them.

    Raises CycleRefused, and holds none, when another holds one of them.
    """
    cycles = Cycle.objects.filter(pk__in=list(cycle_ids))
    held = cycles.exclude(holder__in=["", holder]).select_related("workflow").order_by("pk").first()
    if held is not None:
        raise CycleRefused(
            _("The cycle %(cycle)s is held by %(holder)s already.")
            % {"cycle": held, "holder": words.of_holder(held.holder)}
        )
    cycles.update(holder=holder, succeeded=False)


def release_cycles(cycle_ids: Collection[int] | None, holder: str) -> set[int]:
    """Let go of those of these cycles (None: all) that `holder` holds; they count for what their run says.

    Returns the workflows in which something may go on for it now: `look_again` lets it.
    """
    held = Cycle.objects.filter(holder=holder)
    if cycle_ids is not None:
        held = held.filter(pk__in=list(cycle_ids))
    released = list(held.values_list("pk", flat=True))
    if not released:
        return set()
    set_effective(released, released=True)
    return _waiting_for(released)


def restore_earlier(runs_after: Mapping[int, int]) -> set[int]:
    """Let earlier successes count again that runs later than `runs_after` (ids, by cycle) discarded.

    A run that is unfinished counts until it ends. Returns the workflows in which something may go on for it
    now: `look_again` lets it.
    """
    discarding = CycleInstance.objects.filter(cycle__in=list(runs_after), discards_earlier=True)
    again = [pk for pk, cycle in discarding.values_list("pk", "cycle") if pk > runs_after[cycle]]
    if not again:
        return set()
    CycleInstance.objects.filter(pk__in=again).update(discards_earlier=False)
    cycles = list(CycleInstance.objects.filter(pk__in=again).values_list("cycle", flat=True).distinct())
    set_effective(cycles)
    return _waiting_for(cycles)


def _waiting_for(cycle_ids: Collection[int]) -> set[int]:
    """The workflows in which something waits for those of these cycles that have succeeded."""
    succeeded = Cycle.objects.filter(pk__in=list(cycle_ids), succeeded=True)
    waiting = CycleInstance.objects.filter(
        state=CycleState.NOT_READY, cycle__upstreams__upstream__in=succeeded.values("pk")
    )
    return set(waiting.values_list("workflow_id", flat=True))


def freeze_for(holder: str, instance_ids: Collection[int], *, by: journal.By, reason: str) -> None:
    """Freeze all of these instances for `holder`, which alone may unfreeze them.

    Raises CycleRefused, and freezes none, when one has begun or is frozen already.
    """
    ids = sorted(instance_ids)
    able = CycleInstance.objects.filter(
        pk__in=ids, state__in=[CycleState.NOT_READY, CycleState.READY], frozen_at__isnull=True
    )
    # Locked without a join, and read afterwards: see the package.
    locked = set(able.order_by("pk").select_for_update(no_key=True).values_list("pk", flat=True))
    for missing in ids:
        if missing not in locked:
            text = _("Cycle instance %(id)s has begun or is frozen already; it cannot be frozen.")
            raise CycleRefused(text % {"id": missing})
    CycleInstance.objects.filter(pk__in=ids).update(
        frozen_at=clock.now(), frozen_by=journal.actor(by).name, frozen_reason=reason, holder=holder
    )
    _record("frozen", ids, by, reason)


def thaw_of(
    holder: str, *, by: journal.By, reason: str, instance_ids: Collection[int] | None = None
) -> set[int]:
    """Unfreeze what `holder` keeps frozen (of `instance_ids`, if given).

    Returns the workflows in which something may go on for it now: `look_again` lets it.
    """
    frozen = CycleInstance.objects.filter(holder=holder, frozen_at__isnull=False)
    if instance_ids is not None:
        frozen = frozen.filter(pk__in=list(instance_ids))
    locked = frozen.order_by("pk").select_for_update(no_key=True)
    found = dict(locked.values_list("pk", "workflow_id"))
    CycleInstance.objects.filter(pk__in=list(found)).update(
        frozen_at=None, frozen_by="", frozen_reason="", holder=""
    )
    _record("unfrozen", found, by, reason)
    return set(found.values())


def _record(action: str, ids: Iterable[int], by: journal.By, reason: str) -> None:
    instances = CycleInstance.objects.select_related("workflow", "revision").filter(pk__in=list(ids))
    journal.record_all(journal.entry(action, each, by, reason=reason) for each in instances.order_by("pk"))


def look_again(workflow_ids: Iterable[int]) -> None:
    """Make ready and begin what may go on in these workflows, each in a transaction of its own.

    Where that fails it is logged and left to the scheduler, which looks at everything that is due and waits.
    """
    for workflow_id in sorted(set(workflow_ids)):
        try:
            with transaction.atomic():
                for workflow in Workflow.objects.locked([workflow_id]).values():
                    lifecycle.make_ready(CycleInstance.objects.filter(workflow=workflow_id))
                    lifecycle.begin_ready(workflow)
        except Exception:
            logger.exception("Could not let workflow %s go on", workflow_id)
