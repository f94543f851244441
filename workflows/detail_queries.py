"""What the page of one cycle instance asks beyond the instance itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.postgres.aggregates import ArrayAgg
from django.db import connection
from django.db.models import Count, F, Func, Q

from scheduling.models import Batch, Execution, JournalEntry
from scheduling.states import BatchState
from workflows import reasons
from workflows.models import Cycle, CycleDependency, CycleInstance, NodeRun, RunType, WorkflowNode
from workflows.states import CycleState, NodeRunState

# Successful runs that "usually" is reckoned from.
TYPICAL_OF = 15
RUNS_SHOWN = 50
NODE_RUNS_SHOWN = 12
ENTRIES_SHOWN = 100
# Cycles that the graph of upstream and downstream reaches, and how far it goes.
NEIGHBOURS = 1500
MOST_LEVELS = 6
# Cycles that are looked at for the root causes of what waits.
WALKED = 2000


def instances() -> Any:
    """Cycle instances with what their page shows."""
    return CycleInstance.objects.select_related(
        "workflow__revision", "team", "revision", "cycle__effective", "backfill", "rerun_of"
    )


def runs_of(instance: CycleInstance) -> list[NodeRun]:
    """The node runs of an instance in the order of the definition, with node, task and batch.

    As long as it has not begun these are unsaved ones, which say what will run.
    """
    runs = instance.node_runs.select_related("node__task", "batch").defer(
        "batch__parameters", "node__parameters"
    )
    found = list(runs.order_by("node__number"))
    if found:
        return found
    state = NodeRunState.CANCELLED if instance.is_finished else NodeRunState.WAITING
    nodes = WorkflowNode.objects.filter(revision=instance.revision_id).select_related("task").order_by("number")
    return [NodeRun(instance=instance, node=node, state=state) for node in nodes]


def successes_until(numbers: Mapping[int, int]) -> dict[int, int]:
    """The success that is effective when only the runs up to a number count, by cycle; see `Cycle`.

    `numbers` are run numbers by cycle, as is the result: 0 when retention removed that run. Cycles without such
    a success are left out.
    """
    past = Cycle.objects.filter(pk__in=list(numbers), past_success=True)
    found = dict.fromkeys(past.values_list("pk", flat=True), 0)
    runs = CycleInstance.objects.filter(cycle__in=list(numbers)).exclude(run_type=RunType.TEST)
    deciding = runs.filter(Q(state=CycleState.SUCCESS) | Q(discards_earlier=True)).order_by("number")
    for cycle, number, state in deciding.values_list("cycle", "number", "state"):
        if number > numbers[cycle]:
            continue
        if state == CycleState.SUCCESS:
            found[cycle] = number
        else:
            found.pop(cycle, None)
    return found


def readers_of(cycles: Collection[int]) -> tuple[list[str], list[str]]:
    """The cycles directly downstream of these (ids) that run now, and those that a rerun holds, by name."""
    below = CycleInstance.objects.filter(cycle__upstreams__upstream__in=cycles).exclude(cycle__in=cycles)
    named = below.select_related("workflow", "revision").order_by("cycle_time", "pk").distinct()
    running = [each.name for each in named.filter(state=CycleState.RUNNING)]
    held = [each.name for each in named.exclude(cycle__holder="").filter(cycle__effective=F("pk"))]
    return running, held


def other_runs(instance: CycleInstance) -> list[CycleInstance]:
    """The newest instances of the same cycle, `instance` among them unless it is old, the first run first."""
    newest = CycleInstance.objects.filter(cycle=instance.cycle_id).defer("parameters").order_by("-number")
    return list(newest[:RUNS_SHOWN])[::-1]


def journal_of(instance: CycleInstance) -> list[JournalEntry]:
    """What was done to an instance and what became of it, newest first."""
    return list(JournalEntry.objects.about(instance)[:ENTRIES_SHOWN])


def nodes_by_state(instance: CycleInstance) -> dict[str, int]:
    """How many nodes of an instance are in each state."""
    return dict(instance.node_runs.order_by().values_list("state").annotate(Count("pk")))


def troubles_of(instances: Iterable[CycleInstance]) -> dict[int, list[NodeRun]]:
    """The nodes that decided that each of these did not succeed, with the `error` of their last execution.

    Which they are stands in the reason that an instance was given at its end.
    """
    keys = {each.pk: named for each in instances if (named := reasons.nodes_named(each.reason))}
    found_runs: dict[int, list[NodeRun]] = {}
    if keys:
        runs = NodeRun.objects.filter(instance__in=keys).select_related("node")
        runs = runs.with_error(Execution.objects.all())
        for run in runs.order_by("node__number"):
            if run.node.key in keys[run.instance_id]:
                found_runs.setdefault(run.instance_id, []).append(run)
    return found_runs


def newest_number(instance: CycleInstance) -> int:
    """The number of the newest run of the cycle."""
    newest = CycleInstance.objects.filter(cycle=instance.cycle_id).order_by("-number")
    return int(newest.values_list("number", flat=True).first() or 0)


# --- around it ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Around:
    """How many upstream cycles there are and have succeeded; how many wait downstream, of how many teams.

    `from_workflows` are the workflows of those upstream.
    """

    upstream: int
    succeeded: int
    from_workflows: Sequence[int]
    downstream: int
    workflows: int
    teams: int


def around(instance: CycleInstance) -> Around:
    """What lies next to the cycle of an instance."""
    up = CycleDependency.objects.filter(cycle=instance.cycle_id).aggregate(
        all=Count("pk"),
        met=Count("pk", filter=Q(upstream__succeeded=True)),
        workflows=ArrayAgg("upstream__workflow", distinct=True, default=[]),
    )
    down = CycleDependency.objects.filter(upstream=instance.cycle_id).aggregate(
        all=Count("pk"),
        workflows=Count("cycle__workflow", distinct=True),
        teams=Count("cycle__workflow__team", distinct=True),
    )
    return Around(up["all"], up["met"], up["workflows"], down["all"], down["workflows"], down["teams"])


def waiting_dependants(instance: CycleInstance) -> int:
    """How many downstream cycles have an instance that waits to become ready."""
    dependants = CycleDependency.objects.filter(upstream=instance.cycle_id).values("cycle")
    return int(CycleInstance.objects.filter(cycle__in=dependants, state=CycleState.NOT_READY).count())


def unmet_upstreams(instance: CycleInstance, most: int) -> tuple[list[Cycle], int]:
    """The first `most` upstream cycles that did not succeed, by workflow and time, and how many there are."""
    unmet = Cycle.objects.filter(dependants__cycle=instance.cycle_id, succeeded=False)
    with_all = unmet.select_related("workflow__team", "workflow__revision", "effective")
    found = list(with_all.order_by("workflow__name", "cycle_time")[: most + 1])
    return found[:most], len(found) if len(found) <= most else unmet.count()


# A cycle that is blocked by nothing but its own upstream passes the question on to that.
_PASSES = """
    upstream.holder = '' AND effective.state = 'not_ready' AND effective.waits_for_upstream AND effective.due
    AND effective.frozen_at IS NULL AND (workflow.enabled OR effective.run_type <> 'online')
"""
_UNMET = """
    JOIN workflows_cycle upstream ON upstream.id = dependency.upstream_id AND NOT upstream.succeeded
    JOIN workflows_workflow workflow ON workflow.id = upstream.workflow_id
    LEFT JOIN workflows_cycleinstance effective ON effective.id = upstream.effective_id
"""
# Without an order, so that the walk ends with the last row that is taken.
_ROOTS = f"""
WITH RECURSIVE walk (start, id, passes) AS (
    SELECT dependency.cycle_id, upstream.id, coalesce({_PASSES}, false)
    FROM workflows_cycledependency dependency {_UNMET}
    WHERE dependency.cycle_id = ANY(%(cycles)s)
    UNION
    SELECT walk.start, upstream.id, coalesce({_PASSES}, false)
    FROM walk JOIN workflows_cycledependency dependency ON walk.passes AND dependency.cycle_id = walk.id
    {_UNMET}
)
SELECT start, id FROM (SELECT * FROM walk LIMIT %(most)s) walked WHERE NOT passes
"""


def root_causes(cycles: Iterable[int]) -> dict[int, list[Cycle]]:
    """For each of `cycles` (ids) that waits, the cycles at which the chains of what it waits for end.

    Those are the ones that are not merely blocked themselves: they failed, run, are frozen, not due or never
    ran. What failed comes first, then the oldest. At most WALKED cycles are looked at.
    """
    with connection.cursor() as cursor:
        cursor.execute(_ROOTS, {"cycles": list(cycles), "most": WALKED})
        pairs = cursor.fetchall()
    with_all = Cycle.objects.select_related("workflow__team", "workflow__revision", "effective")
    found = with_all.in_bulk({root for _start, root in pairs})
    roots: dict[int, list[Cycle]] = {}
    for cycle in sorted(found.values(), key=_failed_first):
        for start in {start for start, root in pairs if root == cycle.pk}:
            roots.setdefault(start, []).append(cycle)
    return roots


def _failed_first(cycle: Cycle) -> tuple[bool, Any, int]:
    state = cycle.effective.state if cycle.effective is not None else ""
    return state not in {CycleState.FAILED, CycleState.TERMINATED}, cycle.cycle_time, cycle.pk


def taking_room(instance: CycleInstance, most: int) -> list[CycleInstance]:
    """The oldest running instances that count against the parallelism of the workflow."""
    running = CycleInstance.objects.filter(workflow=instance.workflow_id, state=CycleState.RUNNING)
    others = running.exclude(run_type=RunType.TEST).exclude(pk=instance.pk)
    return list(others.select_related("workflow__revision").order_by("started_at", "pk")[:most])


def before_it(instance: CycleInstance) -> int:
    """How many ready instances of the workflow begin before this one, when there is room."""
    ready = CycleInstance.objects.startable(instance.workflow_id).exclude(run_type=RunType.TEST)
    earlier = Q(cycle_time__lt=instance.cycle_time) | Q(cycle_time=instance.cycle_time, pk__lt=instance.pk)
    return int(ready.filter(earlier).count())


def unconfirmed(instance: CycleInstance) -> list[NodeRun]:
    """The nodes whose batches have not ended although the instance is being stopped."""
    left = instance.node_runs.filter(ended_at__isnull=True, batch__isnull=False)
    return list(left.select_related("node", "batch").order_by("node__number"))


# --- how long things usually take --------------------------------------------------------------------

_TYPICAL = """
SELECT node.key,
  percentile_disc(0.5) WITHIN GROUP (ORDER BY run.ended_at - coalesce(batch.started_at, run.started_at))
FROM workflows_noderun run JOIN workflows_workflownode node ON node.id = run.node_id
LEFT JOIN scheduling_batch batch ON batch.id = run.batch_id
WHERE run.instance_id = ANY(%(instances)s) AND node.key = ANY(%(keys)s)
  AND run.state = 'success' AND NOT run.carried AND run.started_at IS NOT NULL
GROUP BY node.key
"""


def typical(workflow_id: int, keys: Iterable[str]) -> dict[str, timedelta]:
    """How long the nodes `keys` of a workflow usually run: the median of their last successes, where any.

    The wait in the queue is no part of it.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    succeeded = CycleInstance.objects.filter(workflow=workflow_id, state=CycleState.SUCCESS)
    newest = succeeded.order_by("-cycle_time", "-pk").values_list("pk", flat=True)[:TYPICAL_OF]
    with connection.cursor() as cursor:
        cursor.execute(_TYPICAL, {"instances": list(newest), "keys": wanted})
        return dict(cursor.fetchall())


# --- one node ----------------------------------------------------------------------------------------


def runs_of_node(instance: CycleInstance, key: str) -> list[NodeRun]:
    """The latest runs of the node `key` in other instances of the workflow, those of the same cycle first.

    Carried ones are left out: they are the runs of the instances that they were carried from.
    """
    runs = NodeRun.objects.filter(node__key=key, carried=False, instance__workflow=instance.workflow_id)
    with_all = runs.exclude(instance=instance.pk).select_related("instance", "batch")
    of_cycle = list(with_all.filter(instance__cycle=instance.cycle_id).order_by("-instance__number")[:5])
    recent = CycleInstance.objects.filter(workflow=instance.workflow_id, cycle_time__lte=instance.cycle_time)
    latest = recent.exclude(cycle=instance.cycle_id).order_by("-cycle_time", "-pk")[:NODE_RUNS_SHOWN]
    others = with_all.filter(instance__in=[each.pk for each in latest.only("pk")])
    return of_cycle + list(others.order_by("-instance__cycle_time", "-instance__number"))


def newest_execution(batch: Batch) -> Execution | None:
    """The execution to look at first: of an instance that failed, else one that runs, else the latest."""
    executions = Execution.objects.filter(instance__batch=batch, number=F("instance__executions_count"))
    rank = Func(
        F("instance__state"),
        template="array_position(ARRAY['failed','timed_out','running','terminating'], %(expressions)s::text)",
    )
    return (
        executions.annotate(rank=rank)
        .select_related("instance", "node")
        .order_by(F("rank").asc(nulls_last=True), "-started_at", "-pk")
        .first()
    )


def waiting_batches(instance: CycleInstance) -> list[NodeRun]:
    """The nodes that have begun but whose batch no execution node has taken yet."""
    waiting = instance.node_runs.filter(state=NodeRunState.RUNNING, batch__state=BatchState.WAITING)
    with_all = waiting.select_related("node", "batch__task__revision", "batch__group", "batch__revision")
    return list(with_all.order_by("node__number"))


# --- upstream and downstream -------------------------------------------------------------------------

# Shortest paths would do to find what is near; UNION keeps each cycle once a depth.
_NEAR = """
WITH RECURSIVE near AS (
    SELECT {there} AS id, 1 AS depth FROM workflows_cycledependency WHERE {here} = %(cycle)s
    UNION
    SELECT dependency.{there}, near.depth + 1
    FROM near JOIN workflows_cycledependency dependency ON dependency.{here} = near.id
    WHERE near.depth < %(levels)s
)
SELECT id, min(depth) FROM near GROUP BY id ORDER BY min(depth), id LIMIT %(most)s
"""


@dataclass(frozen=True)
class Neighbours:
    """Cycles near one: their distance (negative: upstream), and who of them waits for whom."""

    distance: Mapping[int, int]
    cycles: Mapping[int, Cycle]
    edges: Sequence[tuple[int, int]]
    """Pairs (upstream, downstream)."""
    cut: bool
    """There are more than were taken."""


def neighbours(cycle_id: int, levels: int) -> Neighbours:
    """The cycles up to `levels` dependencies before and after a cycle, with their effective instances."""
    distance = {cycle_id: 0}
    cut = False
    for here, there, sign in (("cycle_id", "upstream_id", -1), ("upstream_id", "cycle_id", 1)):
        with connection.cursor() as cursor:
            cursor.execute(
                _NEAR.format(here=here, there=there),
                {"cycle": cycle_id, "levels": min(levels, MOST_LEVELS), "most": NEIGHBOURS + 1},
            )
            found = cursor.fetchall()
        cut = cut or len(found) > NEIGHBOURS
        for pk, depth in found[:NEIGHBOURS]:
            distance.setdefault(pk, sign * depth)
    cycles = Cycle.objects.filter(pk__in=list(distance)).select_related(
        "workflow__team", "workflow__revision", "effective"
    )
    edges = CycleDependency.objects.filter(upstream__in=list(distance), cycle__in=list(distance))
    return Neighbours(
        distance,
        {cycle.pk: cycle for cycle in cycles},
        list(edges.order_by("upstream", "cycle").values_list("upstream_id", "cycle_id")),
        cut,
    )
