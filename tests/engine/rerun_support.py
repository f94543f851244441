"""Cycles in any state and who waits for whom, made at once: what reruns are planned over."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from tests import factories as make
from workflows.models import CycleDependency, CycleInstance, NodeRun, Workflow, WorkflowNode
from workflows.services import generation
from workflows.states import CYCLE, CycleState

MINUTE = timedelta(minutes=1)


def at(hour: int = 0, *, day: int = 0) -> datetime:
    """The whole hour `hour` of today (or `day` days from it) in UTC."""
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=day, hours=hour)


def cycle(
    of: Workflow,
    cycle_time: datetime | None = None,
    state: str = "success",
    *,
    after: Iterable[CycleInstance] = (),
    took: float = 60,
    nodes: dict[str, str] | None = None,
    run_type: str = "online",
    **values: Any,
) -> CycleInstance:
    """An instance of a cycle of the workflow `of` in `state`, whose cycle waits for those of `after`.

    It took `took` seconds; `nodes` says how each of its nodes ended (by default as it did).
    """
    now = timezone.now()
    [slot] = generation.make_cycles(of, [cycle_time or at()])
    began = state not in {CycleState.NOT_READY, CycleState.READY}
    final = state in CYCLE.final
    times = {
        "ready_at": None if state == CycleState.NOT_READY else now - MINUTE,
        "started_at": now - timedelta(seconds=took) if began else None,
        "ended_at": now if final else None,
    }
    [made] = generation.new_instances(
        of, [slot], run_type=run_type, **({"online": run_type == "online", "state": state} | times | values)
    )
    CycleDependency.objects.bulk_create(
        CycleDependency(cycle=slot, upstream_id=each.cycle_id) for each in after
    )
    if began:
        _node_runs(made, state, nodes or {}, took)
    return make.fresh(made)


def _node_runs(instance: CycleInstance, state: str, ended: dict[str, str], took: float) -> None:
    now = timezone.now()
    for node in WorkflowNode.objects.filter(revision=instance.revision_id):
        how = ended.get(node.key, state)
        unfinished = how in {"waiting", "running"}
        NodeRun.objects.create(
            instance=instance,
            node=node,
            state=how,
            started_at=now - timedelta(seconds=took),
            ended_at=None if unfinished else now,
        )


def chain(*names: str, state: str = "success", **values: Any) -> list[CycleInstance]:
    """One cycle of each of these workflows, which are made with it: each waits for the one before."""
    found: list[CycleInstance] = []
    for name in names:
        found.append(cycle(make.workflow(name), state=state, after=found[-1:], **values))
    return found
