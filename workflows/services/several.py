"""Act on many cycle instances in one call. What one of them is refused never drops the others.

>>> services.freeze_all(CycleInstance.objects.filter(state="not_ready"), reason="the source is being repaired")
41 done, 1 refused
  4711: Cycle instance 4711 cannot be frozen: it was frozen by mei already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.utils.translation import gettext as _

from scheduling import journal
from scheduling.services.results import MOST_AT_ONCE, Refused, Result, attempt, ids_of
from workflows.models import CycleInstance
from workflows.services import operations
from workflows.states import CycleState


def stop_all(
    instances: Iterable[CycleInstance],
    *,
    discards_earlier: bool | None = None,
    by: journal.By = None,
    reason: str = "",
    limit: int | None = MOST_AT_ONCE,
) -> Result[CycleInstance]:
    """Stop each of `instances` (a QuerySet or any objects) as `stop` does, in a transaction of its own.

    Raises TooMany, and does nothing, when there are more than `limit`; None takes any number.
    """

    def stop(one: CycleInstance) -> CycleInstance:
        return operations.stop(one, discards_earlier=discards_earlier, by=by, reason=reason)

    return _each(instances, limit, _last_in_turn, stop)


def freeze_all(
    instances: Iterable[CycleInstance],
    *,
    by: journal.By = None,
    reason: str = "",
    limit: int | None = MOST_AT_ONCE,
) -> Result[CycleInstance]:
    """Freeze each of `instances` as `freeze` does; see `stop_all`."""
    return _each(instances, limit, _last_in_turn, lambda one: operations.freeze(one, by=by, reason=reason))


def unfreeze_all(
    instances: Iterable[CycleInstance],
    *,
    by: journal.By = None,
    reason: str = "",
    limit: int | None = MOST_AT_ONCE,
) -> Result[CycleInstance]:
    """Unfreeze each of `instances` as `unfreeze` does, the oldest cycle first; see `stop_all`."""
    return _each(instances, limit, _oldest, lambda one: operations.unfreeze(one, by=by, reason=reason))


def mark_success_all(
    instances: Iterable[CycleInstance],
    *,
    by: journal.By = None,
    reason: str = "",
    limit: int | None = MOST_AT_ONCE,
) -> Result[CycleInstance]:
    """Mark each of `instances` as `mark_success` does, the oldest cycle first; see `stop_all`."""
    return _each(instances, limit, _oldest, lambda one: operations.mark_success(one, by=by, reason=reason))


def rerun_all(
    instances: Iterable[CycleInstance],
    *,
    discards_earlier: bool = False,
    by: journal.By = None,
    reason: str = "",
    limit: int | None = MOST_AT_ONCE,
) -> Result[CycleInstance]:
    """Rerun each of `instances` as `rerun` does with the nodes that it proposes, the oldest cycle first.

    The result holds the new instances; see `stop_all`.
    """

    def rerun(one: CycleInstance) -> CycleInstance:
        return operations.rerun(one, discards_earlier=discards_earlier, by=by, reason=reason)

    return _each(instances, limit, _oldest, rerun)


def _oldest(one: CycleInstance) -> Any:
    return one.cycle_time, one.pk


def _last_in_turn(one: CycleInstance) -> Any:
    # Stopping what runs would let the next in turn begin, only to stop that too.
    return one.state == CycleState.RUNNING, -one.cycle_time.timestamp(), -one.pk


def _each(
    instances: Iterable[CycleInstance],
    limit: int | None,
    order: Callable[[CycleInstance], Any],
    act: Callable[[CycleInstance], CycleInstance],
) -> Result[CycleInstance]:
    too_many = _("One action takes at most %d cycle instances, and these are more. Do it in parts.")
    ids = ids_of(instances, limit, too_many)
    found = CycleInstance.objects.select_related("workflow__revision", "revision", "cycle").in_bulk(ids)
    result: Result[CycleInstance] = Result()
    for one in sorted(found.values(), key=order):
        attempt(result, one.pk, lambda pk: [act(found[pk])])
    gone = _("It is not there any more.")
    result.refused += [Refused(pk, gone) for pk in ids if pk not in found]
    return result
