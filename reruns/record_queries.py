"""What the pages of reruns ask beyond what QuerySets of their own say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Count, Max, Min, Q, Sum
from django.db.models.functions import Extract

from reruns.models import Action, Rerun, RerunEdge, RerunItem
from reruns.states import ItemState
from scheduling.models import JournalEntry, Team
from workflows.models import CycleDependency, CycleInstance, Workflow

ENTRIES_SHOWN = 50
UPSTREAMS_NAMED = 3
_FROZEN = frozenset({ItemState.FROZEN, ItemState.UNFROZEN})
# What an item that waits need not wait for any more.
_MET = [ItemState.SUCCESS.value, ItemState.CANCELLED.value]


@dataclass(frozen=True)
class Counts:
    """How many items of a rerun are in each state. What is frozen is beside the `total`, which is rerun."""

    by_state: Mapping[str, int]

    def of(self, state: str) -> int:
        """How many are in `state`."""
        return self.by_state.get(state, 0)

    @property
    def total(self) -> int:
        """How many there are to rerun."""
        return sum(count for state, count in self.by_state.items() if state not in _FROZEN)

    @property
    def succeeded(self) -> int:
        return self.of(ItemState.SUCCESS)

    @property
    def failed(self) -> int:
        """How many did not succeed: they failed, or were terminated."""
        return self.of(ItemState.FAILED) + self.of(ItemState.TERMINATED)

    @property
    def frozen(self) -> int:
        """How many wait to be unfrozen."""
        return self.of(ItemState.FROZEN)


def counts_of(reruns: Iterable[Rerun]) -> dict[int, Counts]:
    """How the items of each of `reruns` stand, in one query."""
    ids = [each.pk for each in reruns]
    counted: dict[int, dict[str, int]] = {pk: {} for pk in ids}
    items = RerunItem.objects.filter(rerun__in=ids).order_by().values_list("rerun", "state")
    for rerun, state, count in items.annotate(Count("pk")):
        counted[rerun][state] = count
    return {pk: Counts(found) for pk, found in counted.items()}


class Wave(NamedTuple):
    """The earliest wave in which something is left to do (None: nothing is), and the last."""

    now: int | None
    last: int


def wave_of(rerun: Rerun) -> Wave:
    """How far a rerun is in its order."""
    left = Q(state__in=[ItemState.WAITING, ItemState.RUNNING])
    to_rerun = RerunItem.objects.filter(rerun=rerun.pk).exclude(action=Action.FREEZE)
    found = to_rerun.aggregate(now=Min("wave", filter=left), last=Max("wave"))
    return Wave(found["now"], found["last"] or 0)


def visible_sources(reruns: Iterable[Rerun], instances: Any) -> set[int]:
    """Which of the sources are among the `instances` that somebody may see; others are gone, or not theirs."""
    return set(instances.filter(pk__in={each.source_id for each in reruns}).values_list("pk", flat=True))


def journal_of(rerun: Rerun) -> list[JournalEntry]:
    """What was done to a rerun and what became of it, newest first."""
    return list(JournalEntry.objects.about(rerun)[:ENTRIES_SHOWN])


# --- items of one rerun --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """What items name by ids alone, as far as it is still there."""

    instances: Mapping[int, CycleInstance]
    workflows: Mapping[int, Workflow]
    teams: Mapping[int, str]


def known_of(items: Sequence[RerunItem]) -> Known:
    """The instances, workflows and teams of `items`, each in one query."""
    ids = {each.instance_id or each.original_id for each in items}
    states = ("state", "started_at", "ended_at", "team_id", "cycle_id", "frozen_at", "holder")
    return Known(
        CycleInstance.objects.only(*states).in_bulk(ids),
        Workflow.objects.select_related("revision").in_bulk({each.workflow_id for each in items}),
        dict(Team.objects.filter(pk__in={each.team_id for each in items}).values_list("pk", "name")),
    )


class Unmet(NamedTuple):
    """An upstream item that has not succeeded."""

    pk: int
    name: str
    state: str
    team_id: int


_UNMET = """
SELECT item_id, id, name, state, team_id, count FROM (
    SELECT edge.item_id, up.id, up.name, up.state, up.team_id,
           count(*) OVER of_item AS count,
           row_number() OVER (of_item ORDER BY up.state NOT IN ('failed', 'terminated'), up.wave, up.id) AS at
    FROM reruns_rerunedge edge JOIN reruns_rerunitem up ON up.id = edge.upstream_id
    WHERE edge.item_id = ANY(%(items)s) AND up.state <> ALL (%(met)s)
    WINDOW of_item AS (PARTITION BY edge.item_id)
) upstreams WHERE at <= %(most)s ORDER BY item_id, at
"""


def unmet_upstreams(items: Iterable[RerunItem]) -> dict[int, tuple[list[Unmet], int]]:
    """The first upstream items that each waiting one of `items` waits for, what failed first, and how many."""
    ids = [each.pk for each in items if each.state == ItemState.WAITING]
    found: dict[int, tuple[list[Unmet], int]] = {}
    if not ids:
        return found
    with connection.cursor() as cursor:
        cursor.execute(_UNMET, {"items": ids, "met": _MET, "most": UPSTREAMS_NAMED})
        for item, pk, name, state, team, count in cursor.fetchall():
            found.setdefault(item, ([], count))[0].append(Unmet(pk, name, state, team))
    return found


# --- what hardly changes any more ----------------------------------------------------------------------


class Piece(NamedTuple):
    """What of an item stands from the submit on. `seconds` is how long it usually takes (0: nobody knows)."""

    pk: int
    name: str
    workflow_id: int
    team_id: int
    cycle_id: int
    wave: int
    freeze: bool
    seconds: float


@dataclass(frozen=True)
class Shape:
    """The items of a submitted rerun and who waits for whom, in the order of the waves."""

    pieces: Sequence[Piece]
    upstreams: Mapping[int, Sequence[int]]
    dependants: Mapping[int, Sequence[int]]
    loose: Sequence[tuple[int, int]]
    """Pairs (item, frozen item) between which cycles depend directly: what is frozen is in no wave."""

    def below(self, pk: int) -> set[int]:
        """All items that wait for one, directly or not."""
        found: set[int] = set()
        heap = [pk]
        while heap:
            for each in self.dependants.get(heap.pop(), ()):
                if each not in found:
                    found.add(each)
                    heap.append(each)
        return found


def shape_of(rerun: Rerun) -> Shape:
    """The shape of a submitted rerun, which is read once and again when something was taken out."""
    return shape_named(key_of(rerun))


def key_of(rerun: Rerun) -> tuple[int, Any, int]:
    """What names the shape of a rerun: its id, and what differs when its dependencies do."""
    taken_out = RerunItem.objects.filter(rerun=rerun.pk, state=ItemState.CANCELLED).count()
    return rerun.pk, rerun.submitted_at, taken_out


@lru_cache(maxsize=16)
def shape_named(key: tuple[int, Any, int]) -> Shape:
    """The shape that `key_of` names."""
    pk, _submitted_at, _taken_out = key
    rows = RerunItem.objects.filter(rerun=pk).order_by("wave", "cycle_time", "pk")
    fields = ("pk", "name", "workflow_id", "team_id", "cycle_id", "wave", "action", "starts_at", "ends_at")
    pieces = [
        Piece(
            item,
            name,
            workflow,
            team,
            cycle,
            wave,
            action == Action.FREEZE,
            max(0.0, (end or 0) - (start or 0)),
        )
        for item, name, workflow, team, cycle, wave, action, start, end in rows.values_list(*fields)
    ]
    upstreams: dict[int, list[int]] = {}
    dependants: dict[int, list[int]] = {}
    edges = RerunEdge.objects.filter(item__rerun=pk).order_by().values_list("upstream_id", "item_id")
    for upstream, item in edges:
        upstreams.setdefault(item, []).append(upstream)
        dependants.setdefault(upstream, []).append(item)
    return Shape(pieces, upstreams, dependants, _loose(pieces))


def _loose(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    frozen = [each.cycle_id for each in pieces if each.freeze]
    if not frozen:
        return []
    item_of = {each.cycle_id: each.pk for each in pieces}
    pairs = CycleDependency.objects.filter(cycle__in=frozen).values_list("upstream_id", "cycle_id")
    return [(item_of[up], item_of[down]) for up, down in pairs if up in item_of]


class Standing(NamedTuple):
    """How one item stands; `shown` is what the finished record shows."""

    state: str
    instance_id: int | None
    original_id: int
    shown: str
    started_at: Any


def standing_of(rerun: Rerun) -> dict[int, Standing]:
    """How each item of a rerun stands."""
    fields = ("pk", "state", "instance_id", "original_id", "shown_state", "started_at")
    rows = RerunItem.objects.filter(rerun=rerun.pk).values_list(*fields)
    return {pk: Standing(*rest) for pk, *rest in rows}


def live_states(instances: Iterable[int]) -> dict[int, str]:
    """The state of each of these instances that is still there."""
    return dict(CycleInstance.objects.filter(pk__in=list(instances)).values_list("pk", "state"))


def pace_of(rerun: Rerun) -> float | None:
    """How long what succeeded took against what it usually takes; None as long as too little did."""
    done = RerunItem.objects.filter(rerun=rerun.pk, state=ItemState.SUCCESS, started_at__isnull=False)
    took = Extract("ended_at", "epoch") - Extract("started_at", "epoch")
    usual = done.filter(ends_at__isnull=False, starts_at__isnull=False)
    found = usual.aggregate(count=Count("pk"), took=Sum(took), usually=Sum("ends_at") - Sum("starts_at"))
    if found["count"] < 3 or not found["usually"] or found["usually"] < 1 or not found["took"]:
        return None
    return float(found["took"] / found["usually"])
