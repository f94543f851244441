"""What people and the engine ask of scheduling, in their words. Each call is whole: all of it or nothing.

Every service takes `by=` (a user, a name, or nothing for the operating system's user) and `reason=`, writes
the journal, and is usable as it stands from `manage.py shell`:

    >>> services.stop(Batch.objects.get(pk=4711), reason="wrong input file")
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from scheduling import bulk, calendars, journal, transitions, validation
from scheduling.errors import NotAvailable, TransitionRefused
from scheduling.models import Batch, DeploymentGroup, Instance, Node, Task, TaskRevision, Team
from scheduling.models.batches import Cause
from scheduling.models.tasks import Mode, Overlap, Trigger
from scheduling.states import BatchState, NodeState

SCHEDULE_CHANNEL = "tailrace_schedule"
# How long a rerun waits for the node that ran it last before any other may take it, in seconds.
PREFER_NODE_FOR = 5.0


# --- definitions -----------------------------------------------------------------------------------


@transaction.atomic
def save_task(
    *,
    team: Team,
    group: DeploymentGroup,
    name: str,
    content: Mapping[str, Any],
    enabled: bool = True,
    by: journal.By = None,
    reason: str = "",
) -> Task:
    """Create or change a task; changed content makes a new revision, the same content none.

    `content` has the fields of `TaskRevision.CONTENT`; what is left out takes its default.
    Raises InvalidDefinition with every mistake at once.
    """
    cleaned = validation.clean_content(content)
    digest = content_digest(cleaned)
    task, created = Task.objects.select_for_update().get_or_create(
        team=team, name=name, defaults={"group": group, "enabled": enabled}
    )
    before = task.revision
    if before is None or before.digest != digest:
        number = (task.revisions.order_by("-number").values_list("number", flat=True).first() or 0) + 1
        task.revision = TaskRevision.objects.create(
            task=task,
            number=number,
            digest=digest,
            created_by_id=journal.actor(by).user_id,
            **cleaned,
        )
    changed = created or task.revision != before or (task.group_id, task.enabled) != (group.pk, enabled)
    if not changed:
        return task
    schedule_changed = (
        before is None or _schedule(before) != _schedule(task.revision) or task.enabled != enabled
    )
    task.group, task.enabled = group, enabled
    if schedule_changed:
        task.next_due_at = calendars.next_due(task.revision, timezone.now()) if enabled else None
    task.save()
    details = {"revision": task.revision.number, "digest": digest}
    journal.record("created" if created else "edited", task, by, reason=reason, details=details)
    if schedule_changed:
        transitions.notify(SCHEDULE_CHANNEL)
    return task


def _schedule(revision: TaskRevision) -> tuple[Any, ...]:
    return revision.trigger, revision.cron, revision.interval, revision.timezone


def content_digest(content: Mapping[str, Any]) -> str:
    """The hash of a task's content; equal content has an equal hash."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@transaction.atomic
def set_enabled(task: Task, enabled: bool, *, by: journal.By = None, reason: str = "") -> Task:
    """Switch a task's schedule on or off; what runs goes on. Its due times begin anew from now."""
    task = Task.objects.select_for_update(of=("self",)).select_related("revision").get(pk=task.pk)
    if task.enabled != enabled and task.revision is not None:
        task.enabled = enabled
        task.next_due_at = calendars.next_due(task.revision, timezone.now()) if enabled else None
        task.save(update_fields=["enabled", "next_due_at"])
        journal.record("enabled" if enabled else "disabled", task, by, reason=reason)
        transitions.notify(SCHEDULE_CHANNEL)
    return task


# --- batches ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """Where one instance of a batch is to run. `prefer` is a wish, `pinned` a must."""

    number: int
    shard_parameter: str = ""
    node_id: int | None = None
    pinned: bool = False
    prefer: bool = False


@dataclass(frozen=True)
class BatchRequest:
    """A batch to be made."""

    task: Task
    revision: TaskRevision
    trigger: str
    scheduled_for: datetime
    slots: Sequence[Slot]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    held: bool = False
    rerun_of: Batch | None = None
    reason: str = ""
    by: journal.By = None


def slots_of(revision: TaskRevision, online_nodes: Iterable[Node]) -> list[Slot]:
    """The slots of a new batch of `revision`: one, one a shard, or one an online node."""
    match revision.mode:
        case Mode.BROADCAST:
            nodes = sorted(online_nodes, key=lambda node: node.name)
            return [Slot(number, node_id=node.pk, pinned=True) for number, node in enumerate(nodes)]
        case Mode.SHARDED:
            return [Slot(number, shard_parameter=value) for number, value in enumerate(revision.shards)]
        case _:
            return [Slot(0)]


@transaction.atomic
def create_batches(requests: Sequence[BatchRequest]) -> list[Batch]:
    """Make batches with their instances, in few statements however many there are.

    A request without slots (a broadcast, and no node is online) becomes a failed batch that says so.
    """
    now = timezone.now()
    batches = bulk.insert([_new_batch(request, now) for request in requests])
    instances: list[Instance] = []
    for request, batch in zip(requests, batches, strict=True):
        batch.task = request.task
        if not batch.is_finished:
            instances.extend(_new_instance(request, batch, slot, now) for slot in request.slots)
    bulk.insert(instances)
    journal.record_all(
        journal.entry(
            "rerun" if request.rerun_of else "triggered",
            batch,
            request.by,
            reason=request.reason,
            details={"trigger": batch.trigger, "instances": batch.total}
            | ({"rerun_of": request.rerun_of.pk} if request.rerun_of else {}),
        )
        for request, batch in zip(requests, batches, strict=True)
    )
    for group_id in sorted({batch.group_id for batch in batches}):
        transitions.notify(transitions.WORK_CHANNEL, group_id)
    return batches


def _new_batch(request: BatchRequest, now: datetime) -> Batch:
    empty = not request.slots
    who = journal.actor(request.by)
    return Batch(
        team_id=request.task.team_id,
        task=request.task,
        revision=request.revision,
        group_id=request.task.group_id,
        trigger=request.trigger,
        scheduled_for=request.scheduled_for,
        state=BatchState.FAILED if empty else BatchState.WAITING,
        reason=_("No node of the deployment group is online") if empty else "",
        parameters=dict(request.parameters),
        success_ratio=request.revision.success_ratio,
        held=request.held,
        rerun_of=request.rerun_of,
        requested_by_id=who.user_id,
        actor=who.name,
        created_at=now,
        ended_at=now if empty else None,
        total=len(request.slots),
    )


def _new_instance(request: BatchRequest, batch: Batch, slot: Slot, now: datetime) -> Instance:
    revision = request.revision
    return Instance(
        batch=batch,
        group_id=batch.group_id,
        number=slot.number,
        shard_parameter=slot.shard_parameter,
        cause=Cause.RERUN if request.rerun_of else Cause.TRIGGER,
        node_id=slot.node_id,
        pinned=slot.pinned,
        prefers_node_until=now + timedelta(seconds=PREFER_NODE_FOR) if slot.prefer else None,
        priority=revision.priority,
        shard_concurrency=revision.shard_concurrency if revision.mode == Mode.SHARDED else 0,
        run_after=None if batch.held else now,
        retries_left=revision.retry_count,
    )


def trigger(
    task: Task,
    *,
    parameters: Mapping[str, Any] | None = None,
    by: journal.By = None,
    reason: str = "",
    kind: str = Trigger.MANUAL,
    scheduled_for: datetime | None = None,
) -> Batch:
    """Begin a batch of `task` now, with `parameters` over its own.

    The task's overlap policy holds: with *skip* an unfinished batch of the task refuses the new one
    (TransitionRefused), with *queue* and *replace* the new one is held until the earlier ones ended.
    """
    task = Task.objects.select_related("revision", "team", "group").get(pk=task.pk)
    if task.revision is None:
        raise TransitionRefused(_("Task %(name)s has no content yet; save it first.") % {"name": task.name})
    overrides = validation.clean_parameters(parameters or {})
    with transaction.atomic():
        _lock_task(task)
        held = _held_by_overlap(task)
        nodes = Node.objects.online().filter(group_id=task.group_id)
        request = BatchRequest(
            task=task,
            revision=task.revision,
            trigger=kind,
            scheduled_for=scheduled_for or timezone.now(),
            slots=slots_of(task.revision, nodes),
            parameters=overrides,
            held=held,
            reason=reason,
            by=by,
        )
        [batch] = create_batches([request])
    if held:
        settle_overlap(task.pk)
        batch.refresh_from_db()
    return batch


def _lock_task(task: Task) -> None:
    Task.objects.select_for_update(no_key=True).only("pk").get(pk=task.pk)


def _held_by_overlap(task: Task) -> bool:
    """Whether a new batch must wait; raises TransitionRefused when the policy is to skip it."""
    revision = task.revision
    if revision is None or revision.overlap == Overlap.ALLOW:
        return False
    running = Batch.objects.unfinished().filter(task=task).order_by("id").first()
    if running is None:
        return False
    if revision.overlap == Overlap.SKIP:
        raise TransitionRefused(
            _("Task %(name)s skips a run while batch %(id)s is unfinished (its overlap policy).")
            % {"name": task.name, "id": running.pk}
        )
    return True


def settle_overlap(task_id: int) -> None:
    """Bring the held batches of a task forward as its policy says; may be called at any time.

    *Queue*: when nothing of the task runs, the oldest held batch is let go. *Replace*: everything but the
    newest batch is stopped first. *Allow* (the policy was edited meanwhile): all of them are let go.
    """
    with transaction.atomic():
        task = (
            Task.objects.select_for_update(no_key=True, of=("self",)).select_related("revision").get(pk=task_id)
        )
        unfinished = list(Batch.objects.unfinished().filter(task=task).order_by("id"))
        held = [batch for batch in unfinished if batch.held]
        if not held:
            return
        overlap = task.revision.overlap if task.revision is not None else Overlap.ALLOW
        if overlap == Overlap.ALLOW:
            for batch in held:
                transitions.release_held(batch.pk)
            return
        replace = overlap == Overlap.REPLACE
        outdated = [batch for batch in unfinished if batch.can_stop and batch != held[-1]] if replace else []
        for batch in outdated:
            # It may end by itself at this very moment, which is as good.
            with suppress(TransitionRefused):
                transitions.stop_batch(
                    batch.pk, by=journal.SCHEDULE, reason=_("replaced by batch %d") % held[-1].pk
                )
        still = Batch.objects.unfinished().filter(task=task).order_by("held", "id").first()
        if still is not None and still.held:
            transitions.release_held(still.pk)


def stop(batch: Batch, *, by: journal.By = None, reason: str = "") -> Batch:
    """Stop an unfinished batch: what waits never runs, what runs is ended and confirms it."""
    stopped = transitions.stop_batch(batch.pk, by=by, reason=reason)
    if stopped.is_finished:
        settle_overlap(stopped.task_id)
    return stopped


def stop_instance(instance: Instance, *, by: journal.By = None, reason: str = "") -> Instance:
    """Stop one unfinished instance; the others of its batch go on."""
    stopped = transitions.stop_instance(instance.pk, by=by, reason=reason)
    if stopped.batch.is_finished:
        settle_overlap(stopped.batch.task_id)
    return stopped


def rerun(batch: Batch, *, by: journal.By = None, reason: str = "") -> Batch:
    """Run a finished batch again: a new batch with the same content, parameters, due time and nodes.

    A broadcast goes to exactly the nodes of the source; those that are not online are ended with that
    reason, and if none is online nothing is begun (NotAvailable). Other modes prefer the nodes of the
    source and fall back. Raises TransitionRefused when the source has not ended or never ran.
    """
    source = Batch.objects.select_related("task__revision", "revision", "group").get(pk=batch.pk)
    if not source.can_rerun:
        raise TransitionRefused(
            _("Batch %(id)s is %(state)s; only a finished batch can be rerun.")
            % {"id": source.pk, "state": source.get_state_display().lower()}
        )
    instances = list(source.instances.select_related("node").order_by("number"))
    slots = [
        Slot(
            number=instance.number,
            shard_parameter=instance.shard_parameter,
            node_id=instance.node_id,
            pinned=instance.pinned,
            prefer=not instance.pinned and instance.node is not None,
        )
        for instance in instances
    ]
    absent = [
        instance.node
        for instance in instances
        if instance.pinned and instance.node is not None and instance.node.state != NodeState.ONLINE
    ]
    if instances and len(absent) == len(instances):
        raise NotAvailable(
            _("A broadcast reruns on its own nodes, and none of them is online: %(nodes)s.")
            % {"nodes": ", ".join(node.name for node in absent)}
        )
    if not instances:
        slots = slots_of(source.revision, Node.objects.online().filter(group_id=source.group_id))
    with transaction.atomic():
        _lock_task(source.task)
        held = _held_by_overlap(source.task)
        request = BatchRequest(
            task=source.task,
            revision=source.revision,
            trigger=Trigger.MANUAL,
            scheduled_for=source.scheduled_for,
            slots=slots,
            parameters=source.parameters,
            held=held,
            rerun_of=source,
            reason=reason,
            by=by,
        )
        [again] = create_batches([request])
    for node in {node.pk: node for node in absent}.values():
        give_up_waiting(node)
    if held:
        settle_overlap(source.task_id)
    again.refresh_from_db()
    return again


def node_words(node: Node) -> dict[str, str]:
    """A node's name and state in words, for messages."""
    return {"node": node.name, "state": str(node.get_state_display()).lower()}


def rerun_instance(instance: Instance, *, by: journal.By = None, reason: str = "") -> Instance:
    """Run a finished instance again as a new execution of it; its earlier executions stay.

    A broadcast instance runs only on its own node: if that is not online, nothing is done and
    NotAvailable says so. Others prefer the node that ran them last and fall back to another.
    """
    instance = Instance.objects.select_related("node", "batch__revision").get(pk=instance.pk)
    online = instance.node is not None and instance.node.state == NodeState.ONLINE
    if instance.pinned and not online and instance.node is not None and instance.can_rerun:
        raise NotAvailable(
            _("Node %(node)s is %(state)s, and a broadcast instance reruns only on its own node.")
            % node_words(instance.node)
        )
    return transitions.rerun_instance(
        instance.pk,
        by=by,
        reason=reason,
        prefer_node_for=PREFER_NODE_FOR if online and not instance.pinned else None,
        retries=instance.batch.revision.retry_count,
    )


# --- nodes -----------------------------------------------------------------------------------------


def drain(node: Node, *, by: journal.By = None, reason: str = "") -> Node:
    """Let a node finish what it runs and claim nothing more; what waits only for it is ended."""
    with transaction.atomic():
        node = _lock_node(node)
        if node.state == NodeState.OFFLINE:
            raise TransitionRefused(
                _("Node %(name)s is offline; only an online node can be drained.") % {"name": node.name}
            )
        transitions.set_drained(node, True)
        changed = transitions.set_node_state(node, NodeState.DRAINING, by=by, reason=reason)
    if changed:
        give_up_waiting(node)
    return node


def undrain(node: Node, *, by: journal.By = None, reason: str = "") -> Node:
    """Let a drained node claim again; one that is offline meanwhile, as soon as it is back."""
    with transaction.atomic():
        node = _lock_node(node)
        if not node.drained:
            raise TransitionRefused(
                _("Node %(node)s is %(state)s; only a draining node can take up work again.") % node_words(node)
            )
        transitions.set_drained(node, False)
        if node.state == NodeState.DRAINING:
            transitions.set_node_state(node, NodeState.ONLINE, by=by, reason=reason)
            transitions.notify(transitions.WORK_CHANNEL, node.group_id)
    return node


def _lock_node(node: Node) -> Node:
    # It may go offline at this very moment, which must not be overwritten.
    nodes = Node.objects.select_for_update(no_key=True, of=("self",)).select_related("group")
    locked: Node = nodes.get(pk=node.pk)
    return locked


def give_up_waiting(node: Node) -> None:
    """End what waits for a node that does not claim and can run nowhere else; settle what was held by it."""
    reason = _("Node %(node)s is %(state)s") % node_words(node)
    for task_id in {batch.task_id for batch in transitions.give_up_waiting(node, reason=reason)}:
        settle_overlap(task_id)
