"""Chains of reruns: the batch that others go back to, and everything that was rerun from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connection, models

# Nobody reads beyond.
LONGEST = 50

_FAMILY = """
WITH RECURSIVE up AS (
    SELECT id, rerun_of_id, 0 AS depth FROM scheduling_batch WHERE id = %(batch)s
    UNION ALL
    SELECT b.id, b.rerun_of_id, up.depth + 1 FROM up JOIN scheduling_batch b ON b.id = up.rerun_of_id
    WHERE up.depth < %(most)s
), down AS (
    SELECT id, 0 AS depth FROM (SELECT id FROM up ORDER BY depth DESC LIMIT 1) root
    UNION ALL
    SELECT b.id, down.depth + 1 FROM down JOIN scheduling_batch b ON b.rerun_of_id = down.id
    WHERE down.depth < %(most)s
)
SELECT id, depth FROM down ORDER BY id LIMIT %(most)s
"""


@dataclass(frozen=True)
class Relative:
    """A batch of a chain of reruns: `depth` counts the reruns between the first batch and it."""

    batch: Any
    depth: int
    reason: str


def chain_of(batch: Any, batches: models.QuerySet[Any], entries: models.QuerySet[Any]) -> list[Relative]:
    """The batch that `batch` goes back to and everything that was rerun from it, oldest first.

    Empty when `batch` neither is a rerun nor was rerun. Those that are not among `batches` are left out;
    `reason` is what was given, as the journal's `entries` have it, when the rerun was asked for.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FAMILY, {"batch": batch.pk, "most": LONGEST})
        depths = dict(cursor.fetchall())
    if len(depths) < 2:
        return []
    asked = entries.filter(object_type="batch", object_id__in=list(depths), action="rerun")
    reasons = dict(asked.values_list("object_id", "reason"))
    found = batches.filter(pk__in=depths).order_by("pk")
    return [Relative(each, depths[each.pk], reasons.get(each.pk, "")) for each in found]
