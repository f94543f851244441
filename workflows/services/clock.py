"""What the passing of time does: generates cycles, makes them due, and ends what ran too long.

The leading scheduler does these as its steps; each is safe to do twice, or by two at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from config import clock
from scheduling import journal
from scheduling import services as scheduling
from scheduling.errors import SchedulingError
from scheduling.models.tasks import Misfire
from scheduling.reasons import said
from scheduling.states import BATCH, BatchState
from workflows import periods, reasons, transitions
from workflows.models import Backfill, CycleInstance, NodeRun, RunType, Workflow
from workflows.services import backfills
from workflows.services.generation import generate_due
from workflows.states import CycleState, NodeRunState

# Instances that one transaction makes due.
ROUND = 200


def next_due_at() -> datetime | None:
    """When the next instance is due that nobody has looked at yet; None when none is."""
    waiting = CycleInstance.objects.filter(state=CycleState.NOT_READY, due=False, due_at__isnull=False)
    found: datetime | None = waiting.order_by("due_at").values_list("due_at", flat=True).first()
    return found


def make_due(now: datetime | None = None) -> int:
    """Let instances whose time has come be ready if all else is given; how many were due.

    Scheduled ones whose time no scheduler saw are dropped as the misfire policy of their workflow says.
    """
    now = now or clock.now()

    def work(instances: Any, workflows: Mapping[int, Workflow]) -> None:
        _drop_misfired(instances, workflows, now)
        instances.filter(state=CycleState.NOT_READY).update(due=True)
        _make_ready(instances, workflows)

    return _with_free(CycleInstance.objects.fallen_due(now), work)


def _with_free(found: Any, work: Callable[[Any, Mapping[int, Workflow]], None]) -> int:
    """Do `work` to up to ROUND of the instances `found`, locked with their workflows; how many.

    Those that somebody else holds, or their workflow, stay as they are and hold up no other.
    """
    busy: set[int] = set()
    while rows := list(found.exclude(workflow__in=busy).values_list("pk", "workflow_id")[:ROUND]):
        with transaction.atomic():
            workflows = Workflow.objects.locked({workflow for _instance, workflow in rows}, wait=False)
            mine = found.filter(pk__in=[instance for instance, workflow in rows if workflow in workflows])
            locked = mine.order_by("cycle_time", "pk").select_for_update(
                no_key=True, skip_locked=True, of=("self",)
            )
            if ids := list(locked.values_list("pk", flat=True)):
                work(CycleInstance.objects.filter(pk__in=ids), workflows)
                return len(ids)
        busy |= {workflow for _instance, workflow in rows}
    return 0


def _make_ready(instances: Any, workflows: Mapping[int, Workflow]) -> None:
    ready = {each.workflow_id for each in transitions.make_ready(instances)}
    for workflow_id in sorted(ready):
        transitions.begin_ready(workflows[workflow_id])


def _drop_misfired(instances: Any, workflows: Mapping[int, Workflow], now: datetime) -> None:
    """Cancel scheduled instances that were not made due in time, unless their workflow's policy runs them.

    Of a workflow that is switched off, `set_enabled` decides. Frozen ones are kept for their holder.
    """
    seconds = cast("float", settings.TAILRACE["MISFIRE_GRACE"])
    decided = [
        workflow
        for workflow in workflows.values()
        if workflow.enabled and workflow.revision and workflow.revision.misfire != Misfire.RUN_ALL
    ]
    misfired = instances.filter(
        workflow__in=decided,
        run_type=RunType.ONLINE,
        state=CycleState.NOT_READY,
        frozen_at__isnull=True,
        due_at__lt=now - timedelta(seconds=seconds),
    )
    for each in misfired.order_by("cycle_time"):
        revision = workflows[each.workflow_id].current
        template = reasons.MISFIRED
        if revision.misfire == Misfire.RUN_ONCE:
            if each.cycle_time == periods.latest_slot(revision, now):
                continue
            template = reasons.MISFIRED_BUT_LATEST
        transitions.cancel(each.pk, by=journal.SCHEDULE, reason=said(template, seconds=f"{seconds:g}"))


def time_out_cycles(now: datetime | None = None) -> int:
    """Stop instances that went on after their time-out; how many."""
    late = CycleInstance.objects.filter(
        state=CycleState.RUNNING, stopping="", deadline_at__lte=now or clock.now()
    )
    stopped = [each for each in late.values_list("pk", flat=True)[:ROUND] if transitions.time_out(each)]
    return len(stopped)


def time_out_nodes(now: datetime | None = None) -> int:
    """Stop the batches of nodes that went on after their time-out; how many."""
    # Those that were marked too: whoever marked one may have been killed before the stop.
    late = NodeRun.objects.filter(
        state=NodeRunState.RUNNING,
        deadline_at__lte=now or clock.now(),
        batch__state__in=BATCH.sources(BatchState.TERMINATING),
    ).select_related("batch", "node")
    return sum(time_out_node(run) for run in late[:ROUND])


def make_overlooked_ready() -> int:
    """Make ready what an upstream's end overlooked, since it was made in the same moment; how many.

    An instance that is being made while its last upstream ends may see the one before, and be unseen by the
    other. Only what is due and waits for its upstream is looked at.
    """
    waiting = CycleInstance.objects.filter(state=CycleState.NOT_READY, due=True, frozen_at__isnull=True)
    overlooked = waiting.filter(Q(workflow__enabled=True) | ~Q(run_type=RunType.ONLINE)).with_upstream_met()
    return _with_free(overlooked, _make_ready)


def carry_on() -> int:
    """Finish what a process that was killed left half done: stops that were asked, room that is free."""
    stopping = CycleInstance.objects.filter(state=CycleState.RUNNING).exclude(stopping="")
    told = sum(transitions.stop_batches(each) for each in stopping.values_list("pk", flat=True)[:ROUND])
    ready = CycleInstance.objects.filter(state=CycleState.READY, frozen_at__isnull=True)
    begun = 0
    for workflow_id in sorted(set(ready.order_by().values_list("workflow_id", flat=True).distinct())):
        with transaction.atomic():
            for workflow in Workflow.objects.locked([workflow_id], wait=False).values():
                begun += transitions.begin_ready(workflow)
    for each in Backfill.objects.unfinished():
        told += backfills.carry_on(each)
    return told + begun


def time_out_node(run: NodeRun) -> bool:
    """Stop the batch of a node that went on after its time-out; False when it has ended meanwhile."""
    text = said(reasons.NODE_TIMED_OUT, seconds=run.node.timeout)
    marked = NodeRun.objects.filter(pk=run.pk, ended_at__isnull=True).update(timed_out=True, reason=text)
    if not marked or run.batch is None:
        return False
    try:
        scheduling.stop(run.batch, by="engine", reason=text)
    except SchedulingError:
        # Stopped, or ended, already: its end says how.
        return False
    return True


__all__ = [
    "carry_on",
    "generate_due",
    "make_due",
    "make_overlooked_ready",
    "next_due_at",
    "time_out_cycles",
    "time_out_nodes",
]
