"""What lies downstream of a cycle: read at once, as plain rows, since it may be a hundred thousand cycles.

How many statements that takes depends neither on how many cycles there are nor on how many workflows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

from django.db import connection

from reruns.planning import CycleGraph
from workflows.detail_queries import TYPICAL_OF


class Row(NamedTuple):
    """A cycle and its effective instance (None: it has none); `ready_at` is of the source only."""

    cycle_id: int
    workflow_id: int
    cycle_time: datetime
    instance_id: int | None
    state: str
    online: bool
    waits: bool
    revision_id: int
    data_date: date
    frozen_at: datetime | None
    frozen_by: str
    frozen_reason: str
    ready_at: datetime | None


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
    """The source cycle, which is `rows[source]`, and everything downstream of it, the oldest first."""

    rows: list[Row]
    position: Mapping[int, int]
    source: int
    graph: CycleGraph

    @cached_property
    def workflows(self) -> dict[int, WorkflowRow]:
        """The workflows of the rows by id."""
        return _workflows({row.workflow_id for row in self.rows})

    @cached_property
    def zones(self) -> dict[int, ZoneInfo]:
        """The time zone of each content that ran, by its id."""
        ids = {row.revision_id for row in self.rows if row.instance_id is not None}
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id, timezone FROM workflows_workflowrevision WHERE id = ANY(%s)", [list(ids)]
            )
            return {pk: ZoneInfo(zone) for pk, zone in cursor.fetchall()}

    def name(self, at: int) -> str:
        """How a person knows the cycle at `at`, which has an instance."""
        row = self.rows[at]
        local = row.cycle_time.astimezone(self.zones[row.revision_id])
        return f"{self.workflows[row.workflow_id].name} {local:%Y-%m-%d %H:%M}"


# LATERAL with OFFSET 0 makes every step look its cycles up in the index: the planner, who cannot know how wide
# a step is, else may read all dependencies for each step of a long chain.
_DOWNSTREAM = """
WITH RECURSIVE affected AS (
    SELECT %(cycle)s::bigint AS id
    UNION
    SELECT next.cycle_id FROM affected CROSS JOIN LATERAL (
        SELECT cycle_id FROM workflows_cycledependency WHERE upstream_id = affected.id OFFSET 0
    ) next
)
"""

_ALONE = "WITH affected AS (SELECT %(cycle)s::bigint AS id)"

_ROWS = """
SELECT cycle.id, cycle.workflow_id, cycle.cycle_time,
    instance.id, instance.state, instance.online, instance.waits_for_upstream, instance.revision_id,
    instance.data_date, instance.frozen_at, instance.frozen_by, instance.frozen_reason,
    CASE WHEN cycle.id = %(cycle)s THEN instance.ready_at END
FROM affected JOIN workflows_cycle cycle ON cycle.id = affected.id
LEFT JOIN workflows_cycleinstance instance ON instance.id = cycle.effective_id
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


def load(cycle_id: int, *, alone: bool = False) -> Affected | None:
    """The cycle and all that waits for it, however indirectly (`alone`: without that); None when it is gone."""
    with connection.cursor() as cursor:
        cursor.execute((_ALONE if alone else _DOWNSTREAM) + _ROWS, {"cycle": cycle_id})
        rows = list(map(Row._make, cursor.fetchall()))
        rows.sort(key=attrgetter("workflow_id"))
        rows.sort(key=attrgetter("cycle_time"))
        position = {row.cycle_id: number for number, row in enumerate(rows)}
        if cycle_id not in position:
            return None
        cursor.execute(_EDGES, {"cycles": [] if alone else list(position)})
        # A cycle that was generated between the two statements is not in the first.
        edges = [(position[up], position[down]) for up, down in cursor.fetchall() if down in position]
    return Affected(rows, position, position[cycle_id], CycleGraph.of(len(rows), edges))


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
