"""Node runs: how they begin as batches, how the ends of batches end them, and what follows from that.

Callers hold the lock of the cycle instance.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from config import clock
from scheduling import journal
from scheduling import services as scheduling
from scheduling.models import Execution, Node, Task, TaskRevision
from scheduling.models.tasks import Mode, Trigger
from scheduling.reasons import said
from scheduling.services import BatchRequest
from scheduling.transitions import execute, execute_all
from workflows import reasons
from workflows.graph import Decision, Ended, Graph
from workflows.graphs import graph_of, keys_of, nodes_of, revision_of, task_revision_of
from workflows.models import CycleInstance, NodeRun, Stopping, WorkflowNode
from workflows.states import NodeRunState

_FAILED = frozenset({NodeRunState.FAILED, NodeRunState.TERMINATED, NodeRunState.TIMED_OUT})


def prepare(
    instance: CycleInstance,
    *,
    carried: Mapping[int, NodeRun] | None = None,
    pinned: Mapping[int, int] | None = None,
) -> None:
    """Give `instance` its node runs, unless it has them; `carried` are those that it keeps, by node id.

    `pinned` are the revisions of tasks that nodes run instead of today's. The caller saves `total` and the
    counters.
    """
    if instance.total:
        return
    carried, pinned = carried or {}, pinned or {}
    graph = graph_of(instance.revision_id).without({str(node) for node in carried})
    runs = [
        _carry(instance, node, carried[node])
        if node in carried
        else NodeRun(
            instance=instance,
            node_id=node,
            revision_id=pinned.get(node),
            pending=len(graph.incoming[str(node)]),
        )
        for node in keys_of(instance.revision_id)
    ]
    NodeRun.objects.bulk_create(runs)
    instance.total = len(runs)
    for run in runs:
        _count(instance, run.state)


def _carry(instance: CycleInstance, node: int, source: NodeRun) -> NodeRun:
    """What a rerun keeps of a node: how it ended, with its batch."""
    return NodeRun(
        instance=instance,
        node_id=node,
        carried=True,
        state=source.state,
        reason=source.reason,
        batch_id=source.batch_id,
        result=source.result,
        started_at=source.started_at,
        ended_at=source.ended_at,
    )


def start_roots(instance: CycleInstance) -> None:
    """Begin the nodes of a cycle instance that wait for no other."""
    roots = NodeRun.objects.filter(instance=instance, state=NodeRunState.WAITING, pending=0)
    _proceed(instance, list(roots.order_by("node__number").values_list("node_id", flat=True)), {}, {})


@dataclass(frozen=True, slots=True)
class NodeEnd:
    """What the end of a batch did: which node ended and how, what waits for it, the instance's counters.

    `heeded` says whether it is more to the instance than to its followers.
    """

    instance_id: int
    revision_id: int
    node_id: int
    state: str
    result: Any
    followers: list[int] | None
    pending: list[int] | None
    total: int
    succeeded: int
    failed: int
    passed_over: int
    heeded: bool


def end(batch_id: int) -> NodeEnd | None:
    """End the node run whose batch has ended; None when no node run waits for that batch (any more)."""
    row = execute("SELECT * FROM tailrace_end_node(%(batch)s)", {"batch": batch_id})
    if row.instance_id is None:
        return None
    # Django's connections hand JSON over as text.
    result = None if row.result is None else json.loads(row.result)
    return NodeEnd(**row._asdict() | {"result": result})


def has_consequences(node: NodeEnd) -> bool:
    """Whether anything follows from the end of a node but that its followers wait for one node less."""
    if node.heeded or 0 in (node.pending or ()):
        return True
    graph, ended = graph_of(node.revision_id), Ended(node.state, node.result)
    waiting = {str(follower) for follower in node.followers or ()}
    edges = graph.outgoing[str(node.node_id)] if waiting else ()
    return any(edge.target in waiting and graph.settles(edge, ended) for edge in edges)


def follow(instance: CycleInstance, node: NodeEnd) -> None:
    """Let happen what follows from the end of a node."""
    _note_counters(instance, node)
    ended = {str(node.node_id): Ended(node.state, node.result)}
    _proceed(instance, [], ended, _pending(node))


def _note_counters(instance: CycleInstance, node: NodeEnd) -> None:
    instance.succeeded, instance.failed = node.succeeded, node.failed
    instance.passed_over = node.passed_over


def _pending(node: NodeEnd) -> dict[str, int]:
    return dict(zip(map(str, node.followers or ()), node.pending or (), strict=True))


def begin_stopping(instance: CycleInstance, why: Stopping, reason: str) -> None:
    """Let nothing more of a running instance begin; what runs is stopped by `services.stop_batches`."""
    instance.stopping, instance.reason = why, reason
    cancel_waiting(instance, reason)
    instance.save(update_fields=["stopping", "reason", "passed_over"])


def cancel_waiting(instance: CycleInstance, reason: str) -> None:
    """End the nodes that have not begun, and never will; the caller saves the counter."""
    waiting = NodeRun.objects.filter(instance=instance, state=NodeRunState.WAITING)
    cancelled = waiting.update(state=NodeRunState.CANCELLED, ended_at=clock.now(), reason=reason)
    instance.passed_over += cancelled


def _count(instance: CycleInstance, state: str) -> None:
    match state:
        case NodeRunState.SUCCESS:
            instance.succeeded += 1
        case NodeRunState.FAILED | NodeRunState.TIMED_OUT | NodeRunState.TERMINATED:
            instance.failed += 1
        case NodeRunState.CONDITION_NOT_MET | NodeRunState.CANCELLED:
            instance.passed_over += 1


# --- what follows ------------------------------------------------------------------------------------


def _proceed(
    instance: CycleInstance, start: list[int], ended: dict[str, Ended], pending: dict[str, int]
) -> None:
    """Begin `start`, draw the conclusions from what `ended`, and so on until there is nothing more to do.

    `pending` is what those that waited for the `ended` ones, and have not begun, wait for still.
    """
    graph = _graph(instance)
    while start or ended:
        failed = [node for node, each in ended.items() if each.state in _FAILED]
        if failed and instance.stop_on_failure and not instance.stopping:
            why = said(reasons.STOPPED_ON_FAILURE, why=why_failed(instance, failed))
            begin_stopping(instance, Stopping.FAILURE, why)
        if instance.stopping:
            break
        decided = _decide(instance, graph, ended, pending)
        passed = [node for node, decision in decided.items() if decision == Decision.PASS_OVER]
        start += [node for node, decision in decided.items() if decision == Decision.START]
        ended, pending = _pass_over(instance, graph, passed)
        if not ended:
            begun, start = _within_limit(instance, graph, start), []
            ended, pending = _begin(instance, begun)


def _graph(instance: CycleInstance) -> Graph:
    """The graph of what this instance runs itself."""
    graph = graph_of(instance.revision_id)
    if instance.rerun_of_id is None:
        return graph
    carried = NodeRun.objects.filter(instance=instance, carried=True).values_list("node_id", flat=True)
    return graph.without({str(node) for node in carried})


def _decide(
    instance: CycleInstance, graph: Graph, ended: Mapping[str, Ended], pending: Mapping[str, int]
) -> dict[int, Decision]:
    """What becomes of the nodes that waited for those that `ended`; those that go on waiting are left out."""
    if not pending:
        return {}
    edges = [edge for node in ended for edge in graph.outgoing[node]]
    settled = {edge.target for edge in edges if graph.settles(edge, ended[edge.source])}
    complete = [node for node, left in pending.items() if not left]
    sources = {edge.source for node in complete for edge in graph.incoming[node]}
    known = _ended(instance, sources - ended.keys()) | dict(ended)
    decided: dict[int, Decision] = {}
    for node in sorted(pending, key=int):
        if node in settled or not pending[node]:
            decision = graph.decide(node, known)
            if decision != Decision.WAIT:
                decided[int(node)] = decision
    return decided


_COUNT_DOWN = """
    UPDATE workflows_noderun run SET pending = pending - met.count
    FROM unnest(%(nodes)s::bigint[], %(counts)s::int[]) met (node, count)
    WHERE run.instance_id = %(instance)s AND run.node_id = met.node AND run.state = 'waiting'
    RETURNING run.node_id, run.pending
"""


def _count_down(instance: CycleInstance, graph: Graph, ended: Iterable[str]) -> dict[str, int]:
    """Take the ended sources off what each target waits for; what is left, of the targets that wait still."""
    counts = Counter(edge.target for node in ended for edge in graph.outgoing[node])
    if not counts:
        return {}
    nodes = [int(node) for node in counts]
    rows = execute_all(_COUNT_DOWN, {"nodes": nodes, "counts": list(counts.values()), "instance": instance.pk})
    return {str(row.node_id): row.pending for row in rows}


def _ended(instance: CycleInstance, nodes: Collection[str]) -> dict[str, Ended]:
    if not nodes:
        return {}
    runs = NodeRun.objects.filter(
        instance=instance, node__in=[int(node) for node in nodes], ended_at__isnull=False
    )
    return {
        str(node): Ended(state, result)
        for node, state, result in runs.values_list("node_id", "state", "result")
    }


def why_failed(instance: CycleInstance, nodes: Sequence[str]) -> str:
    """Why an instance did not succeed whose `nodes` (ids) did not: their keys, and the first known cause."""
    keys = keys_of(instance.revision_id)
    named = ", ".join(keys[int(node)] for node in nodes)
    runs = NodeRun.objects.filter(instance=instance, node__in=[int(node) for node in nodes])
    for run in runs.with_error(Execution.objects.all()).order_by("ended_at", "pk"):
        if why := run.error or run.reason:
            node = keys[run.node_id]
            if len(nodes) == 1:
                return said(reasons.NODE_FAILED, node=node, why=why)
            return said(reasons.NODES_FAILED, nodes=named, node=node, why=why)
    return said(reasons.CORE_FAILED, nodes=named)


# --- nodes that are not run --------------------------------------------------------------------------


def _pass_over(
    instance: CycleInstance, graph: Graph, nodes: list[int]
) -> tuple[dict[str, Ended], dict[str, int]]:
    """Record, with batches that say so, that the branch of these nodes was not taken."""
    if not nodes:
        return {}, {}
    runs = _runs(instance, nodes)
    why = [_why_passed_over(instance, graph, run) for run in runs]
    batches = scheduling.create_batches(
        [_request(instance, run, passed_over=reason) for run, reason in zip(runs, why, strict=True)]
    )
    execute(
        _NOT_TAKEN,
        {
            "now": clock.now(),
            "runs": [run.pk for run in runs],
            "batches": [batch.pk for batch in batches],
            "why": why,
        },
    )
    instance.passed_over += len(runs)
    # At once: a node that ends on the spot is counted by the database.
    execute(_COUNT_PASSED_OVER, {"instance": instance.pk, "passed_over": instance.passed_over})
    ended = {str(run.node.pk): Ended(NodeRunState.CONDITION_NOT_MET) for run in runs}
    return ended, _count_down(instance, graph, ended)


_NOT_TAKEN = """
    UPDATE workflows_noderun run
    SET state = 'condition_not_met', batch_id = passed.batch, ended_at = %(now)s, reason = passed.why
    FROM unnest(%(runs)s::bigint[], %(batches)s::bigint[], %(why)s::text[]) passed (run, batch, why)
    WHERE run.id = passed.run
"""


_COUNT_PASSED_OVER = "UPDATE workflows_cycleinstance SET passed_over = %(passed_over)s WHERE id = %(instance)s"


def _why_passed_over(instance: CycleInstance, graph: Graph, run: _Run) -> str:
    keys = keys_of(instance.revision_id)
    edges = graph.incoming[str(run.node.pk)]
    sources = ", ".join(f"{keys[int(edge.source)]} ({edge.condition.value})" for edge in edges)
    return said(reasons.BRANCH_NOT_TAKEN, edges=sources)


# --- nodes that are run ------------------------------------------------------------------------------


def _within_limit(instance: CycleInstance, graph: Graph, start: list[int]) -> list[int]:
    """What of `start`, and of what was held back before, may begin under the instance's limit."""
    if not instance.node_parallelism:
        return start
    runs = NodeRun.objects.filter(instance=instance)
    room = instance.node_parallelism - runs.running().count()
    if room <= 0:
        return []
    waiting = runs.filter(state=NodeRunState.WAITING).order_by("node__number").values_list("node_id", flat=True)
    ended = _ended(instance, list(graph.joins))
    able = [node for node in waiting if graph.decide(str(node), ended) == Decision.START]
    return able[:room]


def _begin(instance: CycleInstance, nodes: list[int]) -> tuple[dict[str, Ended], dict[str, int]]:
    """Begin these nodes, each as a batch; those that ended on the spot, as no node is online for them."""
    if not nodes:
        return {}, {}
    runs = _runs(instance, nodes)
    broadcast = {run.task.group_id for run in runs if run.revision.mode == Mode.BROADCAST}
    online: dict[int, list[Node]] = {group: [] for group in broadcast}
    if broadcast:
        for node in Node.objects.online().filter(group__in=broadcast):
            online[node.group_id].append(node)
    batches = scheduling.create_batches([_request(instance, run, online=online) for run in runs])
    execute(
        _BEGIN,
        {
            "now": clock.now(),
            "runs": [run.pk for run in runs],
            "batches": [batch.pk for batch in batches],
            "timeouts": [run.node.timeout for run in runs],
        },
    )
    ended: dict[str, Ended] = {}
    pending: dict[str, int] = {}
    for batch in batches:
        if batch.is_finished and (node := end(batch.pk)) is not None:
            _note_counters(instance, node)
            ended[str(node.node_id)] = Ended(node.state, node.result)
            pending |= _pending(node)
    return ended, pending


_BEGIN = """
    UPDATE workflows_noderun run
    SET state = 'running', batch_id = begun.batch, started_at = %(now)s,
        deadline_at = %(now)s + make_interval(secs => begun.timeout)
    FROM unnest(%(runs)s::bigint[], %(batches)s::bigint[], %(timeouts)s::int[]) begun (run, batch, timeout)
    WHERE run.id = begun.run
"""


_RUNS = """
    SELECT run.id, run.node_id, coalesce(run.revision_id, task.revision_id) AS revision_id,
        task.id AS task_id, task.name, task.team_id, task.group_id
    FROM workflows_noderun run
    JOIN workflows_workflownode node ON node.id = run.node_id
    JOIN scheduling_task task ON task.id = node.task_id
    WHERE run.instance_id = %(instance)s AND run.node_id = ANY(%(nodes)s)
    ORDER BY node.number
"""


@dataclass(frozen=True, slots=True)
class _Run:
    """A node run that is to begin or to be passed over, with the content that it would run."""

    pk: int
    node: WorkflowNode
    task: Task
    revision: TaskRevision


def _runs(instance: CycleInstance, nodes: list[int]) -> list[_Run]:
    of_revision = nodes_of(instance.revision_id)
    return [
        _Run(
            row.id,
            of_revision[row.node_id],
            Task(pk=row.task_id, name=row.name, team_id=row.team_id, group_id=row.group_id),
            task_revision_of(row.revision_id),
        )
        for row in execute_all(_RUNS, {"instance": instance.pk, "nodes": nodes})
    ]


def _request(
    instance: CycleInstance,
    run: _Run,
    *,
    online: Mapping[int, list[Node]] | None = None,
    passed_over: str = "",
) -> BatchRequest:
    nodes = (online or {}).get(run.task.group_id, [])
    return BatchRequest(
        task=run.task,
        revision=run.revision,
        trigger=Trigger.WORKFLOW,
        scheduled_for=instance.cycle_time,
        slots=[] if passed_over else scheduling.slots_of(run.revision, nodes),
        parameters={**run.node.parameters, **instance.parameters},
        data_date=instance.data_date,
        timezone=revision_of(instance.revision_id).timezone,
        passed_over=passed_over,
        by=_actor(instance),
    )


def _actor(instance: CycleInstance) -> journal.Actor:
    return journal.Actor(instance.actor, journal.ENGINE.via, instance.requested_by_id)
