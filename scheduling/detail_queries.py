"""What the pages of one batch and of one instance ask beyond the thing itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Count, Q

from scheduling.models import Batch, Instance, JournalEntry, Node
from scheduling.states import InstanceState, NodeState

# Of a chain of reruns and of a journal, which nobody reads beyond.
CHAIN_SHOWN = 50
ENTRIES_SHOWN = 100

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

    batch: Batch
    depth: int
    reason: str


def chain_of(batch: Batch, user: Any) -> list[Relative]:
    """The batch that `batch` goes back to and everything that was rerun from it, oldest first.

    Empty when `batch` neither is a rerun nor was rerun. `reason` is what was given when it was asked for.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FAMILY, {"batch": batch.pk, "most": CHAIN_SHOWN})
        depths = dict(cursor.fetchall())
    if len(depths) < 2:
        return []
    batches = Batch.objects.visible_to(user).filter(pk__in=depths).order_by("pk")
    asked = JournalEntry.objects.filter(object_type="batch", object_id__in=list(depths), action="rerun")
    reasons = dict(asked.values_list("object_id", "reason"))
    return [Relative(each, depths[each.pk], reasons.get(each.pk, "")) for each in batches]


def journal_of_batch(batch: Batch) -> list[JournalEntry]:
    """What was done to `batch` and to its instances, and what became of it, newest first."""
    return list(JournalEntry.objects.about(batch)[:ENTRIES_SHOWN])


def journal_of_instance(instance: Instance) -> list[JournalEntry]:
    """What was done to `instance` or to its whole batch, oldest first."""
    of_instance = Q(object_type="instance", object_id=instance.pk)
    of_batch = Q(
        object_type="batch",
        object_id=instance.batch_id,
        action__in=["triggered", "rerun", "stopped", "condition_not_met"],
    )
    newest = JournalEntry.objects.filter(of_instance | of_batch).order_by("-at", "-pk")[:ENTRIES_SHOWN]
    return list(newest)[::-1]


@dataclass(frozen=True)
class Capacity:
    """The nodes of a group that are online, their slots and how many of these are taken."""

    nodes: int
    slots: int
    taken: int


def capacity_of(group_id: int) -> Capacity:
    """How much of a group could run something now."""
    nodes = list(Node.objects.filter(group=group_id, state=NodeState.ONLINE))
    taken = Instance.objects.executing().filter(node__in=nodes).count()
    return Capacity(len(nodes), sum(node.slots for node in nodes), taken)


def in_front_of(batch: Batch) -> Batch | None:
    """The oldest unfinished batch of the same task that was begun before `batch`."""
    return Batch.objects.unfinished().filter(task=batch.task_id, pk__lt=batch.pk).order_by("pk").first()


def unconfirmed_on(batch: Batch) -> Counter[str]:
    """How many instances each node was told to end and has not confirmed."""
    told = batch.instances.filter(state=InstanceState.TERMINATING, node__isnull=False)
    return Counter(dict(told.order_by().values_list("node__name").annotate(Count("pk"))))


def waiting_instances(batch: Batch, most: int) -> list[Instance]:
    """The first `most` of the instances that wait, with their nodes."""
    return list(
        batch.instances.filter(state=InstanceState.WAITING).select_related("node").order_by("number")[:most]
    )
