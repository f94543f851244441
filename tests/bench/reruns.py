"""The figures of reruns downstream: plans over 100,000 cycle instances, submitting 10,000, and generating."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from reruns import services
from reruns.models import Rerun, RerunEdge, RerunItem
from reruns.plans import Plan, plan_of
from tests.bench.engine import bench_group, task_of
from tests.bench.harness import Figure
from workflows import services as workflow_services
from workflows.models import Cycle, CycleDependency, CycleInstance, Workflow
from workflows.services import generation

AFFECTED = 100_000
WORKFLOWS = 200
PAGE = 100
RUNS = 3
CHOSEN = 10_000
FANS = (("source", 1), ("rerun", 300), ("alone", 300))
WANTED = 2.0
MEMORY = 400


def planning() -> list[Figure]:
    """A plan of everything downstream of one cycle, loaded and reckoned: with nothing ticked, and with all."""
    source = _affected()
    draft = services.plan(source, by="bench")
    full = services.plan(source, downstream="all", freeze_mode=True, by="bench")
    found = []
    for named, rerun in (("only the source chosen", draft), ("all chosen", full)):
        took = [_timed(lambda rerun=rerun: _page(plan_of(rerun))) for _run in range(RUNS)]
        found.append(
            Figure(
                f"plan over {AFFECTED:,} affected instances, its sums and a page of {PAGE}, {named}",
                _seconds(took),
                f"want ≤ {WANTED:.0f} s",
                statistics.median(took) <= WANTED,
            )
        )
    found.append(_memory(full))
    return [*found, *_ticks(draft)]


def _page(plan: Plan) -> None:
    """What the list page reads: the sums, what stands against it, and everything that its first rows show."""
    assert len(plan.candidates) == AFFECTED
    assert plan.summary.total_seconds >= 0
    assert (plan.drift, plan.conflicts, plan.missing) == ([], [], [])
    for each in plan.candidates[:PAGE]:
        shown = (each.name, each.team, each.state_label, each.action_label, each.data_date, each.upstream)
        assert all(part is not None for part in shown)
        assert (each.wave > 0, each.starts is not None, each.ends is not None) == (each.chosen,) * 3
        assert (each.outlook, each.refusal, each.permitted_nodes) == ("", None, 3)


def _memory(rerun: Rerun) -> Figure:
    """The peak of what Python holds while the plan is made; traced, so it says nothing about time."""
    tracemalloc.start()
    _page(plan_of(rerun))
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    said = f"{peak / 2**20:.0f} MiB at its peak"
    return Figure("memory of that plan", said, f"want ≤ {MEMORY} MiB", peak <= MEMORY * 2**20)


def _ticks(draft: Rerun) -> list[Figure]:
    """Ticking 10,000 of them in one go, stored with order and times; then submitting these."""
    some = [each.cycle_id for each in plan_of(draft).candidates[: CHOSEN + 1]]
    ticking = _timed(lambda: services.choose(draft, some, by="bench"))
    assert RerunItem.objects.filter(rerun=draft).count() == len(some)
    submitting = _timed(lambda: services.submit(draft, by="bench", reason="measured"))
    assert Cycle.objects.filter(holder=draft.holder).count() == len(some)
    edges = RerunEdge.objects.filter(item__rerun=draft).count()
    return [
        Figure(
            f"{CHOSEN:,} of these ticked at once, and stored", f"{ticking:.1f} s", "want ≤ 5 s", ticking <= 5
        ),
        Figure(
            f"submit of {CHOSEN:,} instances with {edges:,} dependencies",
            f"{submitting:.1f} s",
            "want ≤ 30 s, better 10",
            submitting <= 30,
        ),
    ]


def generating() -> list[Figure]:
    """What a rerun adds to each instance that it generates, against rerunning each by itself."""
    task_of("bench-noop", kind="python", spec={"call": "noop"})
    source, fan, alone = (_fan(f"bench-fan-of-{name}", count) for name, count in FANS)
    for each in fan:
        CycleDependency.objects.create(cycle_id=each.cycle_id, upstream_id=source[0].cycle_id)
    began = time.monotonic()
    for each in alone:
        workflow_services.rerun(each, by="bench")
    plain = (time.monotonic() - began) / len(alone) * 1000
    rerun = services.submit(services.plan(source[0], downstream=fan, by="bench"), by="bench")
    services.advance(rerun.pk)
    begun = CycleInstance.objects.get(rerun_of=source[0])
    workflow_services.stop(begun, by="bench")
    workflow_services.mark_success(begun, by="bench")
    began = time.monotonic()
    while services.advance(rerun.pk):
        pass
    ours = (time.monotonic() - began) / len(fan) * 1000
    assert CycleInstance.objects.filter(rerun_of__in=fan, state="running").count() == len(fan)
    return [
        Figure(
            f"generating each of {len(fan)} instances of a rerun",
            f"{ours:.1f} ms, of which {ours - plain:.1f} ms is the rerun's",
            f"by itself {plain:.1f} ms; want ≤ 15 ms more",
            ours - plain <= 15,
        )
    ]


def _fan(name: str, count: int) -> list[CycleInstance]:
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


def _timed(act: Callable[[], Any]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def _seconds(took: list[float]) -> str:
    return f"{statistics.median(took):.2f} s ({' '.join(f'{each:.2f}' for each in took)})"


# --- what is planned over ------------------------------------------------------------------------------


def _affected() -> CycleInstance:
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


ALL = (planning, generating)
