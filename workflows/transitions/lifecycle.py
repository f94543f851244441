"""The life of a cycle instance: ready, begun, ended, and what its end makes possible elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from config import clock
from scheduling import journal
from scheduling import services as scheduling
from scheduling.errors import SchedulingError
from scheduling.models import Batch
from scheduling.transitions import execute
from workflows import notifications
from workflows.errors import CycleRefused
from workflows.graph import Ended
from workflows.graphs import graph_of, revision_of
from workflows.models import Cycle, CycleDependency, CycleInstance, NodeRun, RunType, Stopping, Workflow
from workflows.signals import cycle_instance_ended
from workflows.states import CycleState
from workflows.transitions import nodes
from workflows.transitions.effective import set_effective


def make_ready(candidates: Any) -> list[CycleInstance]:
    """Make those of `candidates` (a QuerySet) ready whose time has come and whose upstream succeeded.

    Frozen ones stay, and scheduled ones of a workflow that is switched off. Their workflows are locked.
    """
    possible = (
        candidates.filter(state=CycleState.NOT_READY, due=True, frozen_at__isnull=True)
        .filter(Q(workflow__enabled=True) | ~Q(run_type=RunType.ONLINE))
        .with_upstream_met()
        .select_related("workflow", "revision")
    )
    ready = list(possible.select_for_update(no_key=True, of=("self",)).order_by("cycle_time", "pk"))
    if ready:
        now = clock.now()
        CycleInstance.objects.filter(pk__in=[each.pk for each in ready]).update(
            state=CycleState.READY, ready_at=now
        )
        for each in ready:
            each.state, each.ready_at = CycleState.READY, now
        journal.record_all(journal.entry("ready", each, journal.ENGINE) for each in ready)
    return ready


# Workflows whose instances are being begun in this thread, and whether there may be more to begin.
_beginning: ContextVar[dict[int, bool] | None] = ContextVar("beginning", default=None)


def begin_ready(workflow: Workflow) -> int:
    """Begin as many ready instances of a locked `workflow` as its parallelism lets, the oldest cycle first.

    Returns how many. Tests begin at once and take no room. An instance that ends on the spot makes room for
    the next: that is begun by the call under way, however many there are.
    """
    beginning = _beginning.get()
    if beginning is None:
        _beginning.set(beginning := {})
    if workflow.pk in beginning:
        beginning[workflow.pk] = True
        return 0
    begun, beginning[workflow.pk] = 0, True
    try:
        while beginning[workflow.pk]:
            beginning[workflow.pk] = False
            begun += _begin_startable(workflow)
    finally:
        del beginning[workflow.pk]
    return begun


def _begin_startable(workflow: Workflow) -> int:
    startable = CycleInstance.objects.startable(workflow.pk)
    if not workflow.enabled:
        startable = startable.exclude(run_type=RunType.ONLINE)
    found = startable.select_for_update(no_key=True, skip_locked=True)
    limit = workflow.revision.parallelism if workflow.revision else 1
    if not limit:
        begun = list(found)
    else:
        begun = list(found.filter(run_type=RunType.TEST))
        room = limit - CycleInstance.objects.taking_room(workflow.pk)
        begun += found.exclude(run_type=RunType.TEST)[: max(room, 0)]
    for instance in begun:
        instance.workflow, instance.revision = workflow, revision_of(instance.revision_id)
        _begin(instance)
    return len(begun)


def _begin(instance: CycleInstance) -> None:
    now = clock.now()
    instance.state, instance.started_at = CycleState.RUNNING, now
    if instance.revision.timeout:
        instance.deadline_at = now + timedelta(seconds=instance.revision.timeout)
    nodes.prepare(instance)
    instance.save(update_fields=["state", "started_at", "deadline_at", "total"])
    journal.record("started", instance, journal.ENGINE)
    nodes.start_roots(instance)
    finish_if_ended(instance)


# --- the end -----------------------------------------------------------------------------------------


def lock(instance_id: int) -> CycleInstance:
    """A cycle instance, locked, as it is then. Raises CycleRefused when retention has removed it."""
    if not CycleInstance.objects.only("pk").select_for_update(no_key=True).filter(pk=instance_id):
        raise gone(instance_id)
    # Read only now: a join would show nothing where an edit gave it another revision meanwhile.
    return _read(instance_id)


def gone(instance_id: int) -> CycleRefused:
    """What to raise when an instance is acted on that is not there any more."""
    text = _("Cycle instance %(id)s is not there any more; retention removed it.")
    return CycleRefused(text % {"id": instance_id})


def _read(instance_id: int) -> CycleInstance:
    return CycleInstance.objects.select_related("workflow", "revision").get(pk=instance_id)


_FIELDS = [field.attname for field in CycleInstance._meta.concrete_fields]
_INSTANCE = f"SELECT {', '.join(_FIELDS)} FROM workflows_cycleinstance WHERE id = %(id)s"


def _read_locked(instance_id: int) -> CycleInstance:
    """An instance, on the path of every node: without what a QuerySet costs, and with what never changes."""
    row = execute(_INSTANCE, {"id": instance_id})
    # Django's connections hand JSON over as text.
    values = row._asdict() | {"parameters": json.loads(row.parameters)}
    instance = CycleInstance.from_db(connection.alias, _FIELDS, list(values.values()))
    instance.revision = revision_of(instance.revision_id)
    return instance


def batch_ended(batch_id: int) -> None:
    """Let a cycle instance go on whose node's batch has ended, or end it. Told twice, it does nothing more."""
    with transaction.atomic(savepoint=False):
        node = nodes.end(batch_id)
        if node is not None and nodes.has_consequences(node):
            # The function has locked it.
            instance = _read_locked(node.instance_id)
            nodes.follow(instance, node)
            finish_if_ended(instance)


def finish_if_ended(instance: CycleInstance) -> None:
    """End a running instance whose nodes have all ended, judge it by its core nodes, and tell of it."""
    if instance.ended_count < instance.total:
        if instance.stopping:
            stop_batches_soon(instance.pk)
        return
    graph = graph_of(instance.revision_id)
    runs = NodeRun.objects.filter(instance=instance).values_list("node_id", "state", "result")
    failures = list(graph.failures({str(node): Ended(state, result) for node, state, result in runs}))
    if not failures:
        state = CycleState.SUCCESS
    # Stopped by its time-out or by a failure, it has failed.
    elif instance.stopping == Stopping.STOP or (not instance.stopping and instance.node_runs.only_stopped()):
        state = CycleState.TERMINATED
    else:
        state = CycleState.FAILED
    if failures and not instance.reason:
        instance.reason = nodes.why_failed(instance, failures)
    _conclude(instance, state)


def _conclude(instance: CycleInstance, state: CycleState) -> None:
    instance.state, instance.ended_at = state, clock.now()
    instance.save(update_fields=["state", "ended_at", "reason"])
    journal.record("ended", instance, journal.ENGINE, reason=instance.reason, details={"state": state.value})
    tell_ended(instance)


def tell_ended(instance: CycleInstance, locked: Mapping[int, Workflow] | None = None) -> None:
    """Let the cycle know how its effective instance ended, tell the apps above, and release what waited.

    `locked` are the workflows that are locked already, with its own, when it had not begun.
    """
    waiting: Mapping[int, int] = {}
    if may_release(instance):
        waiting = dependants(instance.cycle_id)
    if (locked or _beginning.get()) and not set(waiting.values()) <= (locked or {}).keys():
        # Its workflow is locked already, and others before that one are not locked now: it ended on the spot,
        # or an edit has let more wait for it since those that wait were locked.
        _release_soon(instance.cycle_id)
        waiting = {}
    workflows = locked or Workflow.objects.locked({instance.workflow_id, *waiting.values()})
    # With the lock held: every other change of the effective run holds it too.
    if instance.run_type != RunType.TEST:
        set_effective([instance.cycle_id])
    if waiting and not Cycle.objects.filter(pk=instance.cycle_id, succeeded=True).exists():
        waiting = {}
    _release(workflows, instance.workflow_id, waiting)
    notifications.tell_ended(instance)
    cycle_instance_ended.send(
        sender=CycleInstance, instance_id=instance.pk, cycle_id=instance.cycle_id, state=instance.state
    )


def stop_batches_soon(instance_id: int) -> None:
    """Stop what runs of an instance that is being stopped, once this transaction is through.

    Batches are locked before cycle instances, so it cannot be done in the same one.
    """
    transaction.on_commit(lambda: stop_batches(instance_id))


def stop_batches(instance_id: int) -> int:
    """Stop the batches of what still runs of an instance that is being stopped; how many were told to."""
    instance = CycleInstance.objects.get(pk=instance_id)
    if not instance.stopping or instance.is_finished:
        return 0
    by = journal.Actor(instance.stopped_by or journal.ENGINE.name, journal.ENGINE.via)
    told = 0
    for batch in Batch.objects.filter(node_runs__instance=instance_id, node_runs__ended_at=None, ended_at=None):
        with suppress(SchedulingError):
            scheduling.stop(batch, by=by, reason=instance.reason)
            told += 1
    return told


def may_release(instance: CycleInstance) -> bool:
    """Whether what waits for the cycle may go on with the end of `instance`.

    A rerun or a backfill that ends without a success gives the cycle back the success that it had before.
    """
    if instance.state == CycleState.SUCCESS:
        return instance.run_type != RunType.TEST
    return instance.run_type in {RunType.BACKFILL, RunType.RERUN}


def dependants(cycle_id: int) -> dict[int, int]:
    """The cycles that wait for this one, each with its workflow."""
    found = CycleDependency.objects.filter(upstream=cycle_id)
    return dict(found.values_list("cycle", "cycle__workflow"))


def _release_soon(cycle_id: int) -> None:
    """Let go on what waits for a cycle that succeeded, once this transaction is through.

    Should the process be killed before that, the scheduler finds it among what was overlooked.
    """
    transaction.on_commit(lambda: release_dependants(cycle_id))


@transaction.atomic
def release_dependants(cycle_id: int) -> None:
    """Make ready, and begin, what waits for a cycle and for nothing else."""
    waiting = dependants(cycle_id)
    workflows = Workflow.objects.locked(waiting.values())
    ready = make_ready(CycleInstance.objects.not_ready_of(waiting))
    for workflow_id in sorted({each.workflow_id for each in ready}):
        begin_ready(workflows[workflow_id])


def _release(workflows: Mapping[int, Workflow], workflow_id: int, waiting: Mapping[int, int]) -> None:
    """Let go on what the end of an instance makes possible: what waits for its cycle, or for its room."""
    touched = {workflow_id}
    if waiting:
        ready = make_ready(CycleInstance.objects.not_ready_of(waiting))
        touched |= {each.workflow_id for each in ready}
    for each in sorted(touched):
        begin_ready(workflows[each])
