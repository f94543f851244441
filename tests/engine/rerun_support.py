"""Cycles in any state and who waits for whom, made at once: what reruns are planned over."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from reruns import choices, services
from reruns.errors import RerunRefused
from reruns.models import Rerun
from reruns.plans import Plan, plan_of
from tests import factories as make
from workflows.models import CycleDependency, CycleInstance, NodeRun, Workflow, WorkflowNode
from workflows.services import generation
from workflows.states import CYCLE, CycleState

MINUTE = timedelta(minutes=1)


def at(hour: int = 0, *, day: int = 0) -> datetime:
    """The whole hour `hour` of yesterday in UTC, which has come by any time of today; or `day` days from it."""
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=day - 1, hours=hour)


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


def names(candidates: Any) -> list[str]:
    return [each.workflow for each in candidates]


def draft(source: CycleInstance, **options: Any) -> Rerun:
    return services.plan(source, **({"downstream": "all"} | options))


def of(plan: Plan, instance: CycleInstance) -> Any:
    found = plan.candidate(instance.cycle_id)
    assert found is not None
    return found


def refused(instance: CycleInstance, **options: Any) -> tuple[str, str]:
    """Why a rerun cannot begin at `instance`, as the service and the page are told."""
    with pytest.raises(RerunRefused) as caught:
        services.plan(instance, **options)
    assert not Rerun.objects.exists()
    refusal = choices.source_refusal(
        instance, user=options.get("by"), freeze_mode=options.get("freeze_mode", False)
    )
    assert refusal is not None
    assert str(caught.value) == f"{instance.name}: {refusal}"
    return refusal.kind, str(refusal)


class Across:
    """Two teams, of which one depends on the other: `mei` operates weather, `wang` owns finance."""

    def __init__(self, state: str = "success") -> None:
        self.weather, self.finance = make.team("weather"), make.team("finance")
        self.mei = make.user("mei", team=self.weather)
        make.user("wang", team=self.finance, role="owner")
        make.user("gone", team=self.finance, role="owner", is_active=False)
        make.user("li", team=self.finance, role="operator")
        self.source = cycle(make.workflow("hourly", group=make.group(team=self.weather)))
        group = make.group(team=self.finance)
        self.close = cycle(
            make.workflow("close", group=group, nodes="sum > book > send"), state=state, after=[self.source]
        )
        self.tasks = {each.name: each for each in group.tasks.all()}

    def plan(self, **options: Any) -> Plan:
        return plan_of(draft(self.source, by=self.mei, **options), user=self.mei)
