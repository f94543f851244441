"""What lies downstream of a cycle: read at once, as plain rows, since it may be a hundred thousand cycles.

How many statements that takes depends neither on how many cycles there are nor on how many workflows.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.db import connection

from reruns.planning import CycleGraph
from scheduling import clocks
from workflows.detail_queries import TYPICAL_OF


class WorkflowRow(NamedTuple):
    """A workflow: its content of today, and how many of its cycles run at once (0: any number)."""

    name: str
    team_id: int
    team: str
    revision_id: int
    parallelism: int


class NodeRow(NamedTuple):
    """A node of a content, who owns its task, what the task does today, and when either was last edited."""

    key: str
    task_id: int
    team_id: int
    team: str
    task_revision_id: int | None
    edited_at: datetime


class Frozen(NamedTuple):
    """Who froze an instance, when and why."""

    by: str
    at: datetime
    reason: str


@dataclass(frozen=True)
class Affected:
    """The source cycle, which is at `source`, and everything downstream of it, the oldest first.

    A column each, as rows of objects would take many times as long to make. `instance_id` is the effective
    instance, None for a cycle that has none; what follows is of that instance. `cycle_time` is in microseconds
    of the epoch, `data_date` a day's ordinal. Of `frozen` there are those that are. `ready_at` is the source's.
    """

    cycle_time: Sequence[int]
    workflow_id: Sequence[int]
    cycle_id: Sequence[int]
    instance_id: Sequence[int | None]
    state: Sequence[str]
    online: Sequence[bool]
    waits: Sequence[bool]
    revision_id: Sequence[int]
    data_date: Sequence[int]
    frozen: Mapping[int, Frozen]
    ready_at: datetime | None
    position: Mapping[int, int]
    source: int
    graph: CycleGraph

    def __len__(self) -> int:
        return len(self.cycle_id)

    @cached_property
    def workflows(self) -> dict[int, WorkflowRow]:
        """The workflows of the cycles, by id."""
        return _workflows(set(self.workflow_id))

    @cached_property
    def zones(self) -> dict[int, ZoneInfo]:
        """The time zone of each content that ran, by its id."""
        ids = {each for each in set(self.revision_id) if each}
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id, timezone FROM workflows_workflowrevision WHERE id = ANY(%s)", [list(ids)]
            )
            return {pk: ZoneInfo(zone) for pk, zone in cursor.fetchall()}

    def moment(self, at: int) -> datetime:
        """The cycle time of the cycle at `at`."""
        return EPOCH + timedelta(microseconds=self.cycle_time[at])

    def name(self, at: int) -> str:
        """The workflow and the cycle time of the cycle at `at`, in the reader's time zone."""
        return f"{self.workflows[self.workflow_id[at]].name} {clocks.titled(self.moment(at))}"

    def stored_name(self, at: int) -> str:
        """The same in UTC; see `scheduling.clocks`."""
        return f"{self.workflows[self.workflow_id[at]].name} {clocks.stored(self.moment(at))}"


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# LATERAL with OFFSET 0 makes every step look its cycles up in the index: the planner, who cannot know how wide
# a step is, else may read all dependencies for each step of a long chain.
_DOWNSTREAM = """
WITH RECURSIVE affected AS (
    SELECT id FROM workflows_cycle WHERE id = %(cycle)s
    UNION
    SELECT next.cycle_id FROM affected CROSS JOIN LATERAL (
        SELECT cycle_id FROM workflows_cycledependency WHERE upstream_id = affected.id OFFSET 0
    ) next
)
SELECT array_agg(id)::text FROM affected
"""

# Given as a literal, the planner knows how many there are: few are looked up, very many joined at once. A
# column comes as one array: very many rows take longer to send and to receive than all the rest.
_COLUMNS = """
SELECT array_agg(cycle_time), array_agg(workflow_id), array_agg(cycle_id), array_agg(instance_id),
    array_agg(state), array_agg(online), array_agg(waits), array_agg(revision_id), array_agg(data_date),
    array_agg(cycle_id) FILTER (WHERE frozen), array_agg(frozen_by) FILTER (WHERE frozen),
    array_agg(frozen_at) FILTER (WHERE frozen), array_agg(frozen_reason) FILTER (WHERE frozen),
    max(ready_at) FILTER (WHERE cycle_id = %(cycle)s)
FROM (
    SELECT (date_part('epoch', cycle.cycle_time) * 1000000)::bigint AS cycle_time, cycle.workflow_id,
        cycle.id AS cycle_id, instance.id AS instance_id, instance.state, instance.online,
        instance.waits_for_upstream AS waits, instance.revision_id,
        instance.data_date - date '0001-01-01' + 1 AS data_date, instance.frozen_at IS NOT NULL AS frozen,
        instance.frozen_by, instance.frozen_at, instance.frozen_reason, instance.ready_at
    FROM unnest(%(cycles)s::bigint[]) AS affected (id) JOIN workflows_cycle cycle ON cycle.id = affected.id
    LEFT JOIN workflows_cycleinstance instance ON instance.id = cycle.effective_id
    ORDER BY cycle.cycle_time, cycle.workflow_id, cycle.id
) AS placed
"""

_EDGES = """
SELECT array_agg(dependency.upstream_id), array_agg(dependency.cycle_id)
FROM unnest(%(cycles)s::bigint[]) AS affected (id)
JOIN workflows_cycledependency dependency ON dependency.upstream_id = affected.id
"""

_WORKFLOWS = """
SELECT workflow.id, workflow.name, workflow.team_id, team.name,
    coalesce(workflow.revision_id, 0), coalesce(revision.parallelism, 1)
FROM workflows_workflow workflow JOIN scheduling_team team ON team.id = workflow.team_id
LEFT JOIN workflows_workflowrevision revision ON revision.id = workflow.revision_id
WHERE workflow.id = ANY(%(workflows)s)
"""

_NODES = """
SELECT node.revision_id, node.key, node.task_id, task.team_id, team.name, task.revision_id,
    greatest(revision.created_at, content.created_at)
FROM workflows_workflownode node JOIN scheduling_task task ON task.id = node.task_id
JOIN scheduling_team team ON team.id = task.team_id
JOIN workflows_workflowrevision revision ON revision.id = node.revision_id
LEFT JOIN scheduling_taskrevision content ON content.id = task.revision_id
WHERE node.revision_id = ANY(%(revisions)s) ORDER BY node.revision_id, node.number
"""

_NODE_EDGES = """
SELECT target.revision_id, source.key, target.key
FROM workflows_workflownode target JOIN workflows_workflowedge edge ON edge.target_id = target.id
JOIN workflows_workflownode source ON source.id = edge.source_id
WHERE target.revision_id = ANY(%(revisions)s)
"""


# What `_COLUMNS` selects, in its order.
_NAMES = (
    *("cycle_time", "workflow_id", "cycle_id", "instance_id", "state", "online", "waits", "revision_id"),
    *("data_date", "frozen", "frozen_by", "frozen_at", "frozen_reason", "ready_at"),
)


@contextmanager
def very_many() -> Iterator[None]:
    """For reading very many rows, in a transaction: until its end PostgreSQL sorts and joins in memory.

    By default it does so in files. Python, which would look through what has come for garbage again and again,
    does not while it comes.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL work_mem = '32MB'")
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def load(cycle_id: int, *, alone: bool = False) -> Affected | None:
    """The cycle and all that waits for it, however indirectly (`alone`: without that); None when it is gone."""
    with connection.cursor() as cursor:

        def row(statement: str, **given: int | str) -> tuple[Any, ...]:
            cursor.execute(statement, given)
            found: tuple[Any, ...] = cursor.fetchone()
            return found

        cycles = f"{{{cycle_id}}}" if alone else row(_DOWNSTREAM, cycle=cycle_id)[0]
        columns: dict[str, Any] = dict(zip(_NAMES, row(_COLUMNS, cycle=cycle_id, cycles=cycles), strict=True))
        if columns["cycle_id"] is None:
            return None
        position = {pk: at for at, pk in enumerate(columns["cycle_id"])}
        edges = (None, None) if alone else row(_EDGES, cycles=cycles)
    since = zip(*(columns.pop(f"frozen_{name}") or () for name in ("by", "at", "reason")), strict=True)
    frozen = zip(columns["frozen"] or (), since, strict=True)
    columns["frozen"] = {position[pk]: Frozen(*each) for pk, each in frozen}
    return Affected(
        **columns,
        position=position,
        source=position[cycle_id],
        graph=CycleGraph.of(len(position), _placed(position, *edges)),
    )


def _placed(
    position: Mapping[int, int], upstreams: Sequence[int] | None, downstreams: Sequence[int] | None
) -> Iterable[tuple[int, int]]:
    """Edges by the places of their cycles."""
    ups = list(map(position.get, upstreams or ()))
    downs = list(map(position.get, downstreams or ()))
    edges: Iterable[Any] = zip(ups, downs, strict=True)
    # A cycle that was generated, or deleted, between the statements has no place.
    return (edge for edge in edges if None not in edge) if None in ups or None in downs else edges


def _workflows(ids: Collection[int]) -> dict[int, WorkflowRow]:
    with connection.cursor() as cursor:
        cursor.execute(_WORKFLOWS, {"workflows": list(ids)})
        return {pk: WorkflowRow(*rest) for pk, *rest in cursor.fetchall()}


def nodes_by_content(revisions: Collection[int]) -> dict[int, list[NodeRow]]:
    """The nodes of each of these revisions, in the order of the definition."""
    found: dict[int, list[NodeRow]] = {revision: [] for revision in revisions}
    with connection.cursor() as cursor:
        cursor.execute(_NODES, {"revisions": list(revisions)})
        for revision, *rest in cursor.fetchall():
            found[revision].append(NodeRow(*rest))
    return found


def edges_by_content(revisions: Collection[int]) -> dict[int, list[tuple[str, str]]]:
    """The edges of each of these revisions, from key to key."""
    found: dict[int, list[tuple[str, str]]] = {revision: [] for revision in revisions}
    with connection.cursor() as cursor:
        cursor.execute(_NODE_EDGES, {"revisions": list(revisions)})
        for revision, source, target in cursor.fetchall():
            found[revision].append((source, target))
    return found


# --- how long things usually take ----------------------------------------------------------------------

# Reruns are left out: what they carried took no time.
_NEWEST = f"""
    SELECT id, extract(epoch FROM ended_at - started_at)::float8 AS took
    FROM workflows_cycleinstance
    WHERE workflow_id = workflow.id AND state = 'success' AND started_at IS NOT NULL AND rerun_of_id IS NULL
    ORDER BY cycle_time DESC, id DESC LIMIT {TYPICAL_OF}
"""

_TYPICAL = f"""
SELECT workflow.id, (
    SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY took) FROM ({_NEWEST}) newest
) FROM unnest(%(workflows)s::bigint[]) AS workflow (id)
"""

_TYPICAL_NODES = f"""
SELECT workflow.id, node.key,
    percentile_disc(0.5) WITHIN GROUP (
        ORDER BY extract(epoch FROM run.ended_at - coalesce(batch.started_at, run.started_at))::float8
    )
FROM unnest(%(workflows)s::bigint[]) AS workflow (id) CROSS JOIN LATERAL ({_NEWEST}) newest
JOIN workflows_noderun run ON run.instance_id = newest.id
JOIN workflows_workflownode node ON node.id = run.node_id
LEFT JOIN scheduling_batch batch ON batch.id = run.batch_id
WHERE run.state = 'success' AND NOT run.carried AND run.started_at IS NOT NULL
GROUP BY workflow.id, node.key
"""


def typical_seconds(workflows: Collection[int]) -> dict[int, float]:
    """How long a cycle of each of these workflows usually takes: the median of its last successes."""
    with connection.cursor() as cursor:
        cursor.execute(_TYPICAL, {"workflows": list(workflows)})
        return {workflow: took for workflow, took in cursor.fetchall() if took is not None}


def typical_node_seconds(workflows: Collection[int]) -> dict[int, dict[str, float]]:
    """The same of each node, by workflow and key, without its wait in the queue."""
    found: dict[int, dict[str, float]] = {workflow: {} for workflow in workflows}
    with connection.cursor() as cursor:
        cursor.execute(_TYPICAL_NODES, {"workflows": list(workflows)})
        for workflow, key, took in cursor.fetchall():
            found[workflow][key] = took
    return found
