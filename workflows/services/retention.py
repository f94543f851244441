"""Removes cycle instances when they are older than their workflow keeps them.

As in scheduling: old means ended long ago, a step is one short transaction, and nobody waits for it. What is
unfinished stays, and so does every instance of a cycle of which one is unfinished (the source of its rerun, the
result that it would have back), of a backfill that has not ended, and of a cycle that an app above needs.

A cycle outlives its instances, and still says whether it succeeded: later cycles may wait for that. It goes
when it is older than `CYCLE_DAYS`, has no instance, and nothing that waits for it is younger or has one.

A step locks the workflow that it is at, as whoever makes or marks an instance does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import connection

from scheduling.services import retention
from workflows.states import CYCLE

# How long a cycle without instances says whether it succeeded.
CYCLE_DAYS = 400

_NEXT = """
    SELECT id, coalesce(retention_days, %(days)s) FROM workflows_workflow
    WHERE id > %(after)s ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
"""
_OLD = """
    SELECT {columns} FROM workflows_workflow workflow
    CROSS JOIN LATERAL (
        SELECT statement_timestamp()
            - make_interval(days => coalesce(workflow.retention_days, %(days)s)) AS since
    ) kept
    JOIN workflows_cycleinstance instance ON instance.workflow_id = workflow.id
        AND instance.state = ANY(%(final)s)
        AND instance.cycle_time < kept.since AND instance.ended_at < kept.since
    WHERE NOT EXISTS (
            SELECT FROM workflows_cycleinstance other
            WHERE other.cycle_id = instance.cycle_id AND other.ended_at IS NULL
        )
        AND NOT EXISTS (
            SELECT FROM workflows_backfill backfill
            WHERE backfill.id = instance.backfill_id AND backfill.ended_at IS NULL
        )
"""
_OF_WORKFLOW = (
    " AND workflow.id = %(workflow)s ORDER BY instance.cycle_time, instance.id LIMIT %(limit)s"
    " FOR UPDATE OF instance SKIP LOCKED"
)
# What apps above still need of `{cycle}`, as queries that find a row then; they add theirs when they are ready.
NEEDED: list[str] = []
# Reruns are to forget what they were reruns of; one that somebody holds keeps its source for this time.
_HELD = """
    SELECT rerun_of_id FROM workflows_cycleinstance again WHERE rerun_of_id = ANY(%(instances)s)
        AND id NOT IN (
            SELECT id FROM workflows_cycleinstance
            WHERE rerun_of_id = ANY(%(instances)s) FOR NO KEY UPDATE SKIP LOCKED
        )
"""
_RUNS_GO = """
    DELETE FROM workflows_noderun WHERE id IN (
        SELECT id FROM workflows_noderun WHERE instance_id = ANY(%(instances)s) LIMIT %(limit)s
    )
"""
# How apps above let go of `instances`; they add their statements when they are ready.
LETTING_GO: list[str] = []
_INSTANCES_GO = (
    """
    UPDATE workflows_cycle SET effective_id = NULL, past_success = succeeded
    WHERE effective_id = ANY(%(instances)s)
    """,
    "UPDATE workflows_cycleinstance SET rerun_of_id = NULL WHERE rerun_of_id = ANY(%(instances)s)",
    "DELETE FROM workflows_cycleinstance WHERE id = ANY(%(instances)s)",
)
_FORGOTTEN = """
    SELECT cycle.id FROM workflows_cycle cycle
    WHERE {of_workflow} cycle.cycle_time < statement_timestamp() - make_interval(days => %(cycle_days)s)
        AND NOT EXISTS (SELECT FROM workflows_cycleinstance WHERE cycle_id = cycle.id)
        AND NOT EXISTS (
            SELECT FROM workflows_cycledependency dependency
            JOIN workflows_cycle waiting ON waiting.id = dependency.cycle_id
            WHERE dependency.upstream_id = cycle.id AND (
                waiting.cycle_time >= statement_timestamp() - make_interval(days => %(cycle_days)s)
                OR EXISTS (SELECT FROM workflows_cycleinstance WHERE cycle_id = waiting.id)
            )
        )
"""
_FORGOTTEN_OF_WORKFLOW = " ORDER BY cycle.cycle_time LIMIT %(limit)s FOR UPDATE OF cycle SKIP LOCKED"
_CYCLES_GO = (
    "DELETE FROM workflows_cycledependency WHERE upstream_id = ANY(%(cycles)s)",
    "DELETE FROM workflows_cycledependency WHERE cycle_id = ANY(%(cycles)s)",
    "DELETE FROM workflows_cycle WHERE id = ANY(%(cycles)s)",
)


@dataclass
class Removed(retention.Counted):
    """Rows of workflows."""

    instances: int = 0
    node_runs: int = 0
    cycles: int = 0

    @property
    def words(self) -> str:
        return (
            f"{self.instances:,} cycle instances with {self.node_runs:,} node runs, and {self.cycles:,} cycles"
        )


@dataclass(eq=False)
class Sweep(retention.Sweep):
    """Goes round all workflows and removes what is old, step by step; any number may do so at once."""

    removed: Any = field(default_factory=Removed)

    @staticmethod
    def would_go() -> tuple[list[str], retention.Counted]:
        """What a sweep would remove now: a line for each workflow that has any, and how much in all."""
        columns = "team.name, workflow.name, workflow.retention_days, count(*), sum(instance.total)"
        old = _old(columns).replace(
            "CROSS JOIN", "JOIN scheduling_team team ON team.id = workflow.team_id CROSS JOIN", 1
        )
        with connection.cursor() as cursor:
            cursor.execute(old + "GROUP BY 1, 2, 3 ORDER BY 1, 2", _facts())
            rows = cursor.fetchall()
            cursor.execute(f"SELECT count(*) FROM ({_forgotten('')}) cycle", _facts())
            [cycles] = cursor.fetchone()
        lines = [
            f"{team}/{workflow}: {count:,} cycle instances with {runs:,} node runs; "
            f"keeps {_facts()['days'] if days is None else days} days"
            for team, workflow, days, count, runs in rows
        ]
        return lines, Removed(sum(row[3] for row in rows), sum(row[4] for row in rows), cycles)

    def _step(self, cursor: Any) -> bool:
        cursor.execute(_NEXT, _facts(after=self._after))
        row = cursor.fetchone()
        if row is None:
            again, self._after, self._found = self._found, 0, False
            return again
        place = _facts(workflow=row[0], limit=self.rows)
        if self._remove_instances(cursor, place) or self._remove_cycles(cursor, place):
            self._found = True
        else:
            self._after = row[0]
        return True

    def _remove_instances(self, cursor: Any, place: dict[str, Any]) -> bool:
        cursor.execute(_old("instance.id, instance.total") + _OF_WORKFLOW, place)
        found = dict(cursor.fetchall())
        cursor.execute(_HELD, {"instances": list(found)})
        for (held,) in cursor.fetchall():
            found.pop(held, None)
        if not found:
            return False
        chosen = place | {"instances": _together(found, self.rows)}
        cursor.execute(_RUNS_GO, chosen)
        self.removed += Removed(node_runs=cursor.rowcount)
        if cursor.rowcount == self.rows:
            # There may be more of them; the instance goes when they have gone.
            return True
        for statement in (*LETTING_GO, *_INSTANCES_GO):
            cursor.execute(statement, chosen)
        self.removed += Removed(instances=cursor.rowcount)
        return True

    def _remove_cycles(self, cursor: Any, place: dict[str, Any]) -> bool:
        of_workflow = "cycle.workflow_id = %(workflow)s AND"
        cursor.execute(_forgotten(of_workflow) + _FORGOTTEN_OF_WORKFLOW, place)
        cycles = [cycle for (cycle,) in cursor.fetchall()]
        if not cycles:
            return False
        for statement in _CYCLES_GO:
            cursor.execute(statement, {"cycles": cycles})
        self.removed += Removed(cycles=cursor.rowcount)
        return True


def _old(columns: str) -> str:
    return _OLD.format(columns=columns) + _unless_needed("instance.cycle_id")


def _forgotten(of_workflow: str) -> str:
    return _FORGOTTEN.format(of_workflow=of_workflow) + _unless_needed("cycle.id")


def _unless_needed(cycle: str) -> str:
    return "".join(f" AND NOT EXISTS ({query.format(cycle=cycle)})" for query in NEEDED)


def _facts(**more: Any) -> dict[str, Any]:
    days = settings.TAILRACE["RETENTION_DAYS"]
    return {"days": days, "cycle_days": max(CYCLE_DAYS, days), "final": sorted(CYCLE.final)} | more


def _together(instances: dict[int, int], rows: int) -> list[int]:
    """The first of the instances, and as many more as have at most `rows` node runs in all."""
    chosen: list[int] = []
    runs = 0
    for instance, total in instances.items():
        runs += total
        if chosen and runs > rows:
            break
        chosen.append(instance)
    return chosen
