"""What lies downstream of a cycle: read at once, as plain rows, since it may be a hundred thousand cycles.

How many statements that takes depends neither on how many cycles there are nor on how many workflows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.db import connection

from reruns.planning import CycleGraph
from workflows.detail_queries import TYPICAL_OF


class WorkflowRow(NamedTuple):
    """A workflow: its content of today, and how many of its cycles run at once (0: any number)."""

    name: str
    team_id: int
    team: str
    revision_id: int
    parallelism: int


class NodeRow(NamedTuple):
    """A node of a content, and who owns its task."""

    key: str
    task_id: int
    team_id: int
    team: str


@dataclass(frozen=True)
class Affected:
    """The source cycle, which is at `source`, and everything downstream of it, the oldest first.

    A column each, as rows of objects would take many times as long to make. `instance_id` is the effective
    instance, None for a cycle that has none; what follows is of that instance. `cycle_time` is in microseconds
    of the epoch. `ready_at` is the source's.
    """

    cycle_time: Sequence[int]
    workflow_id: Sequence[int]
    cycle_id: Sequence[int]
    instance_id: Sequence[int | None]
    state: Sequence[str]
    online: Sequence[bool]
    waits: Sequence[bool]
    revision_id: Sequence[int]
    data_date: Sequence[date]
    frozen_at: Sequence[datetime | None]
    frozen_by: Sequence[str]
    frozen_reason: Sequence[str]
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

    def local_time(self, at: int) -> datetime:
        """The cycle time of what is at `at` and has an instance, on the clocks of its workflow's zone."""
        moment = EPOCH + timedelta(microseconds=self.cycle_time[at])
        return moment.astimezone(self.zones[self.revision_id[at]])

    def name(self, at: int) -> str:
        """How a person knows the cycle at `at`, which has an instance."""
        return f"{self.workflows[self.workflow_id[at]].name} {self.local_time(at):%Y-%m-%d %H:%M}"


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
SELECT id FROM affected
"""

# Given as a literal, the planner knows how many there are: few are looked up, very many joined at once.
_ROWS = """
SELECT (extract(epoch FROM cycle.cycle_time) * 1000000)::bigint, cycle.workflow_id, cycle.id,
    instance.id, instance.state, instance.online, instance.waits_for_upstream, instance.revision_id,
    instance.data_date, instance.frozen_at, instance.frozen_by, instance.frozen_reason
FROM unnest(%(cycles)s::bigint[]) AS affected (id) JOIN workflows_cycle cycle ON cycle.id = affected.id
LEFT JOIN workflows_cycleinstance instance ON instance.id = cycle.effective_id
"""

_READY_AT = """
SELECT instance.ready_at FROM workflows_cycle cycle
JOIN workflows_cycleinstance instance ON instance.id = cycle.effective_id WHERE cycle.id = %(cycle)s
"""

_EDGES = """
SELECT dependency.upstream_id, dependency.cycle_id
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
SELECT node.revision_id, node.key, node.task_id, task.team_id, team.name
FROM workflows_workflownode node JOIN scheduling_task task ON task.id = node.task_id
JOIN scheduling_team team ON team.id = task.team_id
WHERE node.revision_id = ANY(%(revisions)s) ORDER BY node.revision_id, node.number
"""

_NODE_EDGES = """
SELECT target.revision_id, source.key, target.key
FROM workflows_workflownode target JOIN workflows_workflowedge edge ON edge.target_id = target.id
JOIN workflows_workflownode source ON source.id = edge.source_id
WHERE target.revision_id = ANY(%(revisions)s)
"""


# What `_ROWS` selects, in its order.
_COLUMNS = (
    *("cycle_time", "workflow_id", "cycle_id", "instance_id", "state", "online", "waits", "revision_id"),
    *("data_date", "frozen_at", "frozen_by", "frozen_reason"),
)


def load(cycle_id: int, *, alone: bool = False) -> Affected | None:
    """The cycle and all that waits for it, however indirectly (`alone`: without that); None when it is gone."""
    with connection.cursor() as cursor:
        ids = [cycle_id]
        if not alone:
            cursor.execute(_DOWNSTREAM, {"cycle": cycle_id})
            ids = [pk for (pk,) in cursor.fetchall()]
        cursor.execute(_ROWS, {"cycles": _literal(ids)})
        rows = sorted(cursor.fetchall())
        if not rows:
            return None
        columns: dict[str, Any] = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
        position = {pk: at for at, pk in enumerate(columns["cycle_id"])}
        cursor.execute(_READY_AT, {"cycle": cycle_id})
        ready_at = [moment for (moment,) in cursor.fetchall()]
        edges: list[tuple[int, int]] = []
        if not alone:
            cursor.execute(_EDGES, {"cycles": _literal(ids)})
            # A cycle that was generated between the two statements is not in the first.
            edges = [(position[up], position[down]) for up, down in cursor.fetchall() if down in position]
    return Affected(
        **columns,
        ready_at=ready_at[0] if ready_at else None,
        position=position,
        source=position[cycle_id],
        graph=CycleGraph.of(len(rows), edges),
    )


def _literal(ids: Iterable[int]) -> str:
    """An array as PostgreSQL writes it; a list is adapted number by number, which takes long for very many."""
    return f"{{{','.join(map(str, ids))}}}"


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
    percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM run.ended_at - run.started_at)::float8)
FROM unnest(%(workflows)s::bigint[]) AS workflow (id) CROSS JOIN LATERAL ({_NEWEST}) newest
JOIN workflows_noderun run ON run.instance_id = newest.id
JOIN workflows_workflownode node ON node.id = run.node_id
WHERE run.state = 'success' AND NOT run.carried AND run.started_at IS NOT NULL
GROUP BY workflow.id, node.key
"""


def typical_seconds(workflows: Collection[int]) -> dict[int, float]:
    """How long a cycle of each of these workflows usually takes: the median of its last successes."""
    with connection.cursor() as cursor:
        cursor.execute(_TYPICAL, {"workflows": list(workflows)})
        return {workflow: took for workflow, took in cursor.fetchall() if took is not None}


def typical_node_seconds(workflows: Collection[int]) -> dict[int, dict[str, float]]:
    """The same of each node, by workflow and key."""
    found: dict[int, dict[str, float]] = {workflow: {} for workflow in workflows}
    with connection.cursor() as cursor:
        cursor.execute(_TYPICAL_NODES, {"workflows": list(workflows)})
        for workflow, key, took in cursor.fetchall():
            found[workflow][key] = took
    return found
