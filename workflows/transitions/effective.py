"""Which run of a cycle counts: the only writer of `Cycle.effective` and `Cycle.succeeded`, but for holds.

docs/decisions/0017-which-run-counts.md says why.
"""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import Case, F, OuterRef, Q, Subquery, When
from django.db.models.functions import Coalesce

from workflows.models import Cycle, CycleInstance, RunType
from workflows.states import CycleState


def set_effective(cycle_ids: Collection[int], *, released: bool = False) -> None:
    """Set the effective run of each cycle, and whether the cycle succeeded; see `Cycle` for the rule.

    The workflows of the cycles are locked. A held cycle has not succeeded; `released` lifts the hold.
    """
    runs = CycleInstance.objects.filter(cycle=OuterRef("pk")).exclude(run_type=RunType.TEST)
    counts = Q(state=CycleState.SUCCESS) | Q(ended_at__isnull=True) | Q(discards_earlier=True)
    first = (
        runs.exclude(state=CycleState.CANCELLED)
        .annotate(counts=Case(When(counts, then=True), default=False))
        .annotate(
            is_success=Case(
                When(state=CycleState.SUCCESS, then=True),
                When(counts=True, then=False),
                default=OuterRef("past_success"),
            )
        )
        .order_by("-counts", "-number")
    )
    succeeded = Coalesce(Subquery(first.values("is_success")[:1]), F("past_success"))
    Cycle.objects.filter(pk__in=list(cycle_ids)).update(
        effective=Subquery(first.values("pk")[:1]),
        succeeded=succeeded if released else Case(When(holder="", then=succeeded), default=False),
        **({"holder": ""} if released else {}),
    )
