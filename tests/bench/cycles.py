"""The figures of workflows: a hop in a chain, one wide DAG, generation, readiness among many that wait."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from scheduling.models import Execution
from tests.bench.engine import RUNS, bench_group, running_node, task_of
from tests.bench.harness import Figure, percentile, until
from workflows import services
from workflows.models import Cycle, CycleDependency, CycleInstance, NodeRun, Workflow
from workflows.services import clock, generation
from workflows.states import CycleState
from workflows.transitions import lifecycle

HOPS = 60
WIDE = 1000
CYCLES = 10_000
WAITING = 100_000
READIED = 30


def _seconds(took: list[float]) -> str:
    return f"{statistics.median(took):.1f} s ({' '.join(f'{each:.1f}' for each in took)})"


def _workflow(name: str, keys: list[str], after: Callable[[int], list[str]], **content: Any) -> Workflow:
    task_of("bench-noop", kind="python", spec={"call": "noop"})
    nodes = [{"key": key, "task": "bench-noop", "after": after(number)} for number, key in enumerate(keys)]
    return services.save_workflow(
        team=bench_group().team, name=name, content={"nodes": nodes, "parallelism": 0} | content, by="bench"
    )


def _ended(instance: CycleInstance) -> bool:
    return CycleInstance.objects.filter(pk=instance.pk, ended_at__isnull=False).exists()


def hop() -> list[Figure]:
    """From the end of a node's execution to the start of the next node's, and from start to start."""
    keys = [f"n{number}" for number in range(HOPS)]
    chain = _workflow("bench-chain", keys, lambda number: keys[number - 1 : number] if number else [])
    gaps: list[float] = []
    periods: list[float] = []
    with running_node():
        for _run in range(RUNS):
            instance = services.run_test(chain, by="bench")
            until(lambda instance=instance: _ended(instance), within=60)
            executions = Execution.objects.filter(instance__batch__node_runs__instance=instance)
            times = list(executions.order_by("started_at").values_list("started_at", "ended_at"))
            for (began, ended), (begins, _ends) in itertools.pairwise(times):
                gaps.append((begins - ended).total_seconds() * 1000)
                periods.append((begins - began).total_seconds() * 1000)
    p50, p95 = statistics.median(gaps), percentile(gaps, 0.95)
    # A start is on record with the commit that also ends the one before it: what that costs is in here.
    period = statistics.median(periods)
    said = f"p50 {p50:.1f} ms, p95 {p95:.1f} ms of {len(gaps)} hops; from start to start p50 {period:.1f} ms"
    return [Figure("hop in a chain", said, "Airflow 3 710 ms, Dagster 1,050 ms; want p50 ≤ 10 ms", p50 <= 10)]


def wide() -> list[Figure]:
    """One DAG of a root, 1,000 nodes beside each other, and a join of all: how long until it has ended."""
    keys = ["root", *(f"n{number}" for number in range(WIDE)), "join"]

    def after(number: int) -> list[str]:
        return [] if number == 0 else keys[1:-1] if number == len(keys) - 1 else ["root"]

    fan = _workflow("bench-fan", keys, after)
    took = []
    with running_node():
        for _run in range(RUNS):
            began = time.monotonic()
            instance = services.run_test(fan, by="bench")
            took.append(until(lambda instance=instance: _ended(instance), within=120) - began)
            assert NodeRun.objects.filter(instance=instance, state="success").count() == WIDE + 2
    rate = WIDE / statistics.median(took)
    said = f"{_seconds(took)} for {WIDE + 2} nodes, {rate:.0f} nodes a second"
    return [Figure("one wide DAG", said, "want every node run once, ≤ 20 s", statistics.median(took) <= 20)]


def generation_of_cycles() -> list[Figure]:
    """10,000 cycles of an hourly workflow, each with its dependency on another."""
    now = timezone.now()
    since = now - timedelta(hours=CYCLES)
    took = []
    for run in range(RUNS):
        up = _workflow(f"bench-up-{run}", ["a"], lambda _n: [], cron="0 * * * *")
        down = _workflow(
            f"bench-down-{run}",
            ["a"],
            lambda _n: [],
            cron="30 * * * *",
            depends_on=[{"workflow": up.name, "cycles": "same"}],
        )
        Workflow.objects.filter(pk__in=[up.pk, down.pk]).update(starts_at=since, generated_until=since)
        began, made = time.monotonic(), 0
        while round_made := generation.generate(down.pk, now):
            made += round_made
        took.append(time.monotonic() - began)
        assert made >= CYCLES - 60, made
    rate = CYCLES / statistics.median(took)
    said = f"{_seconds(took)} for {CYCLES:,} cycles with dependencies, {rate:.0f} a second"
    return [Figure("generation ahead", said, "want ≤ 15 s", statistics.median(took) <= 15)]


def readiness() -> list[Figure]:
    """One cycle becomes ready among 100,000 that wait, and what these cost while nothing happens."""
    upstream = _workflow("bench-source", ["a"], lambda _n: [], cron="0 * * * *")
    waiting = _workflow(
        "bench-waiting",
        ["a"],
        lambda _n: [],
        cron="* * * * *",
        depends_on=[{"workflow": upstream.name, "cycles": "same"}],
    )
    before = timezone.now() - timedelta(days=365)
    _make_waiting(upstream, waiting, before)
    took, idle = [], []
    for instance in _ended_instances(upstream, before):
        began = time.monotonic()
        with transaction.atomic():
            lifecycle.tell_ended(instance)
        took.append((time.monotonic() - began) * 1000)
        began = time.monotonic()
        clock.make_due()
        idle.append((time.monotonic() - began) * 1000)
    ready = CycleInstance.objects.filter(workflow=waiting).exclude(state="not_ready").count()
    assert ready == len(took), (ready, len(took))
    p95 = percentile(took, 0.95)
    said = (
        f"p50 {statistics.median(took):.1f} ms, p95 {p95:.1f} ms; "
        f"a look of the clock with nothing due p50 {statistics.median(idle):.1f} ms"
    )
    return [Figure(f"readiness of one cycle among {WAITING:,}", said, "want p95 ≤ 50 ms", p95 <= 50)]


def _ended_instances(upstream: Workflow, last: datetime) -> list[CycleInstance]:
    """Instances of upstream cycles that have succeeded, and nobody was told yet."""
    cycles = list(Cycle.objects.filter(workflow=upstream, cycle_time__lt=last).order_by("pk")[:READIED])
    now = timezone.now()
    with transaction.atomic():
        return generation.new_instances(
            upstream,
            cycles,
            run_type="online",
            online=True,
            due=True,
            state=CycleState.SUCCESS,
            started_at=now,
            ended_at=now,
        )


def _make_waiting(upstream: Workflow, waiting: Workflow, last: datetime) -> None:
    """100,000 instances that wait, each for one cycle of its own, as statements: it is not what is measured.

    Their times lie before `last`, where the workflows' own schedules have made none.
    """
    with connection.cursor() as cursor:
        for workflow in (upstream, waiting):
            cursor.execute(
                "INSERT INTO workflows_cycle (workflow_id, cycle_time, succeeded, holder)"
                " SELECT %s, %s - n * interval '1 minute', false, '' FROM generate_series(1, %s) n",
                [workflow.pk, last, WAITING],
            )
        cursor.execute(
            "INSERT INTO workflows_cycledependency (cycle_id, upstream_id)"
            " SELECT down.id, up.id FROM workflows_cycle down JOIN workflows_cycle up USING (cycle_time)"
            " WHERE down.workflow_id = %s AND up.workflow_id = %s AND cycle_time < %s",
            [waiting.pk, upstream.pk, last],
        )
    cycles = Cycle.objects.filter(workflow=waiting, cycle_time__lt=last)
    with transaction.atomic():
        generation.new_instances(
            waiting, list(cycles), run_type="online", online=True, due=True, due_at=timezone.now()
        )
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE workflows_cycle, workflows_cycledependency, workflows_cycleinstance")
    made = CycleDependency.objects.filter(cycle__workflow=waiting, cycle__cycle_time__lt=last)
    assert made.count() == WAITING, made.count()


ALL = (hop, wide, generation_of_cycles, readiness)
