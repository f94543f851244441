"""The cycles that the figures of reruns are about; nothing here is measured."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from tests.bench.engine import bench_group, task_of
from workflows import services as workflow_services
from workflows.models import Cycle, CycleInstance, Workflow
from workflows.services import generation

AFFECTED = 100_000
WORKFLOWS = 200


def fan_of(name: str, count: int) -> list[CycleInstance]:
    """The instances of `count` cycles of a workflow, which ran and took no room."""
    workflow = _workflow(bench_group().team, name, parallelism=0)
    now = timezone.now()
    slots = generation.make_cycles(workflow, [now - timedelta(minutes=number) for number in range(count)])
    with transaction.atomic():
        return generation.new_instances(
            workflow,
            slots,
            run_type="online",
            online=True,
            state="success",
            ready_at=now,
            started_at=now,
            ended_at=now,
        )


def affected() -> CycleInstance:
    """The source of 200 workflows of 500 hourly cycles: each waits for the one before and two others.

    Made by statements, as none of it is measured.
    """
    task_of("bench-noop", kind="python", spec={"call": "noop"})
    team = bench_group().team
    workflows = [_workflow(team, f"bench-affected-{number}", parallelism=2) for number in range(WORKFLOWS)]
    per = AFFECTED // WORKFLOWS
    with connection.cursor() as cursor:
        ids = [each.pk for each in workflows]
        cursor.execute(_CYCLES, {"workflows": ids, "per": per})
        cursor.execute(_BEFORE, {"workflows": ids})
        cursor.execute(_BESIDE, {"workflows": ids})
        cursor.execute(_INSTANCES, {"workflows": ids, "team": team.pk})
        cursor.execute(_EFFECTIVE, {"workflows": ids})
        cursor.execute("VACUUM ANALYZE workflows_cycle, workflows_cycledependency, workflows_cycleinstance")
    first = Cycle.objects.filter(workflow=workflows[0]).order_by("cycle_time")[0]
    assert first.effective is not None
    return first.effective


def _workflow(team: Any, name: str, *, parallelism: int) -> Workflow:
    nodes = [{"key": key, "task": "bench-noop", "after": []} for key in "abc"]
    content = {"nodes": nodes, "parallelism": parallelism}
    return workflow_services.save_workflow(team=team, name=name, content=content, by="bench")


_CYCLES = """
INSERT INTO workflows_cycle (workflow_id, cycle_time, succeeded, holder)
SELECT workflow, date_trunc('hour', now()) - n * interval '1 hour', true, ''
FROM unnest(%(workflows)s::bigint[]) workflow, generate_series(1, %(per)s) n
"""

_BEFORE = """
INSERT INTO workflows_cycledependency (cycle_id, upstream_id)
SELECT cycle.id, before.id FROM workflows_cycle cycle
JOIN workflows_cycle before ON before.workflow_id = cycle.workflow_id
    AND before.cycle_time = cycle.cycle_time - interval '1 hour'
WHERE cycle.workflow_id = ANY(%(workflows)s)
"""

# The workflow at n waits for those at n / 2 and n / 3, so that all are downstream of the first.
_BESIDE = """
INSERT INTO workflows_cycledependency (cycle_id, upstream_id)
SELECT DISTINCT cycle.id, other.id
FROM unnest(%(workflows)s::bigint[]) WITH ORDINALITY AS down (id, n)
CROSS JOIN LATERAL unnest(ARRAY[down.n / 2, down.n / 3]) AS parent
JOIN unnest(%(workflows)s::bigint[]) WITH ORDINALITY AS up (id, n) ON up.n = parent
JOIN workflows_cycle cycle ON cycle.workflow_id = down.id
JOIN workflows_cycle other ON other.workflow_id = up.id AND other.cycle_time = cycle.cycle_time
"""

_INSTANCES = """
INSERT INTO workflows_cycleinstance (
    cycle_id, workflow_id, team_id, revision_id, cycle_time, data_date, number, run_type, online, state, reason,
    stopping, stopped_by, waits_for_upstream, stop_on_failure, node_parallelism, parameters, actor, due_at, due,
    frozen_by, frozen_reason, holder, created_at, ready_at, started_at, ended_at, total, succeeded, failed,
    passed_over
)
SELECT cycle.id, cycle.workflow_id, %(team)s, workflow.revision_id, cycle.cycle_time, cycle.cycle_time::date, 1,
    'online', true, 'success', '', '', '', true, false, 0, '{}', 'schedule', cycle.cycle_time, true,
    '', '', '', now(), now(), now() - (10 + cycle.id %% 50) * interval '1 second', now(), 3, 3, 0, 0
FROM workflows_cycle cycle JOIN workflows_workflow workflow ON workflow.id = cycle.workflow_id
WHERE cycle.workflow_id = ANY(%(workflows)s)
"""

_EFFECTIVE = """
UPDATE workflows_cycle cycle SET effective_id = instance.id
FROM workflows_cycleinstance instance
WHERE instance.cycle_id = cycle.id AND cycle.workflow_id = ANY(%(workflows)s)
"""
