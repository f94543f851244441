"""Holes of a submitted rerun: results that its instances read, that are affected too, and that are not rerun.

The plan finds them (`Plan.holes`); items keep them (`RerunItem.holes`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from reruns.models import Rerun, RerunItem
from reruns.states import ItemState
from workflows.models import Cycle, CycleDependency, CycleInstance

_NOT_BEGUN = (ItemState.WAITING, ItemState.FROZEN)


def readers_of(rerun: Rerun, cycles: Collection[int]) -> list[tuple[RerunItem, list[int]]]:
    """The other items that have not begun and read one of these cycles (ids) directly, each with which."""
    reads: dict[int, list[int]] = {}
    pairs = CycleDependency.objects.filter(upstream__in=cycles).order_by("upstream_id")
    for cycle, upstream in pairs.values_list("cycle_id", "upstream_id"):
        reads.setdefault(cycle, []).append(upstream)
    items = RerunItem.objects.filter(rerun=rerun.pk, cycle__in=reads.keys() - set(cycles), state__in=_NOT_BEGUN)
    return [(item, reads[item.cycle_id]) for item in items.order_by("wave", "pk")]


def overtaken(
    items: Sequence[RerunItem], rerun: Rerun, instances: Mapping[int, CycleInstance]
) -> dict[int, list[str]]:
    """The holes that somebody reran too late, after the instance of the item began; names by item.

    `items` are of `rerun`; `instances` are those that the items speak of, by id.
    """
    cycles = {hole["cycle"] for item in items for hole in item.holes}
    if not cycles:
        return {}
    runs = Cycle.objects.filter(pk__in=cycles).select_related("effective")
    effective = {cycle.pk: cycle.effective for cycle in runs}
    found: dict[int, list[str]] = {}
    for item in items:
        mine = instances.get(item.instance_id or 0)
        if mine is None or mine.started_at is None:
            continue
        for hole in item.holes:
            run = effective.get(hole["cycle"])
            if run is None or rerun.submitted_at is None or run.created_at <= rerun.submitted_at:
                continue
            if run.ended_at is None or run.ended_at > mine.started_at:
                found.setdefault(item.pk, []).append(hole["name"])
    return found
