"""Batches: how they are made, and what becomes of those that their task's overlap policy holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, transaction
from django.utils.translation import gettext as _

from config import clock
from scheduling import journal, reasons, transitions, validation
from scheduling.errors import TransitionRefused
from scheduling.models import Batch, Node, Task, TaskRevision
from scheduling.models.batches import Cause
from scheduling.models.tasks import Mode, Overlap, Trigger
from scheduling.notifications import batches as notifications
from scheduling.reasons import said
from scheduling.states import BatchState

# How long a rerun waits for the node that ran it last before any other may take it, in seconds.
PREFER_NODE_FOR = 5.0


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
    """A batch to be made.

    `data_date` and `timezone` are the cycle's when it belongs to one. `passed_over` says why a batch of a
    branch that was not taken never runs: it is made as *condition not met*, without instances.
    """

    task: Task
    revision: TaskRevision
    trigger: str
    scheduled_for: datetime
    slots: Sequence[Slot]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    held: bool = False
    rerun_of: Batch | None = None
    data_date: date | None = None
    timezone: str = ""
    passed_over: str = ""
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


def create_batches(requests: Sequence[BatchRequest]) -> list[Batch]:
    """Make batches with their instances, in one statement however many there are.

    A request without slots (a broadcast, and no node is online) becomes a failed batch that says so.
    """
    return [each.batch for each in make_batches(requests)]


@transaction.atomic(savepoint=False)
def make_batches(requests: Sequence[BatchRequest]) -> list[Made]:
    """`create_batches` for who makes many and needs to know little of them."""
    at = clock.now()
    making = transitions.Making()
    for position, request in enumerate(requests):
        making.batches.append(_batch_row(request, position, at))
        if not request.passed_over:
            making.slots.extend(_slot_row(slot, position) for slot in request.slots)
    ids = transitions.make(
        making,
        prefer_seconds=PREFER_NODE_FOR,
        timeouts=[request.revision.timeout for request in requests],
    )
    made = [Made(request, pk, at) for request, pk in zip(requests, ids, strict=True)]
    for each in made:
        if each.is_finished:
            transitions.tell_ended(each.batch)
    journal.record_all(
        journal.entry(
            "ended", each.batch, journal.ENGINE, reason=each.batch.reason, details={"state": each.batch.state}
        )
        for each in made
        if each.is_finished and not each.request.passed_over
    )
    notifications.watch_batches(each.batch for each in made if each.request.task.notify)
    return made


@dataclass(slots=True)
class Made:
    """A batch as it was made; the record, which costs more than the making, is there when asked for."""

    request: BatchRequest
    pk: int
    at: datetime

    @property
    def is_finished(self) -> bool:
        return _first_state(self.request)[0] != BatchState.WAITING

    @property
    def batch(self) -> Batch:
        """The record, as it is in the database."""
        request = self.request
        state, reason = _first_state(request)
        who = journal.actor(request.by)
        batch = Batch(
            pk=self.pk,
            team_id=request.task.team_id,
            task=request.task,
            revision=request.revision,
            group_id=request.task.group_id,
            trigger=request.trigger,
            scheduled_for=request.scheduled_for,
            state=state,
            reason=reason,
            parameters=dict(request.parameters),
            data_date=request.data_date,
            timezone=request.timezone,
            success_ratio=request.revision.success_ratio,
            held=request.held,
            rerun_of=request.rerun_of,
            requested_by_id=who.user_id,
            actor=who.name,
            created_at=self.at,
            ended_at=self.at if self.is_finished else None,
            total=len(request.slots),
        )
        batch._state.adding, batch._state.db = False, DEFAULT_DB_ALIAS
        return batch


def _first_state(request: BatchRequest) -> tuple[BatchState, str]:
    """In which state a batch begins, and why."""
    if request.passed_over:
        return BatchState.CONDITION_NOT_MET, request.passed_over
    if not request.slots:
        return BatchState.FAILED, said(reasons.NO_NODE_ONLINE)
    return BatchState.WAITING, ""


def _batch_row(request: BatchRequest, position: int, at: datetime) -> dict[str, Any]:
    task, revision = request.task, request.revision
    state, why = _first_state(request)
    who = journal.actor(request.by)
    deed = "condition_not_met" if request.passed_over else "rerun" if request.rerun_of else "triggered"
    details = {"trigger": request.trigger, "instances": len(request.slots)}
    if request.rerun_of is not None:
        details["rerun_of"] = request.rerun_of.pk
    return {
        "position": position,
        "team": task.team_id,
        "task": task.pk,
        "task_name": task.name,
        "revision": revision.pk,
        "group": task.group_id,
        "trigger": request.trigger,
        "scheduled_for": request.scheduled_for.isoformat(),
        "state": state,
        "why": why,
        "parameters": dict(request.parameters),
        "data_date": request.data_date and request.data_date.isoformat(),
        "timezone": request.timezone,
        "success_ratio": revision.success_ratio,
        "held": request.held,
        "rerun_of": request.rerun_of and request.rerun_of.pk,
        "user": who.user_id,
        "actor": who.name,
        "via": who.via,
        "at": at.isoformat(),
        "ended": state != BatchState.WAITING,
        "total": len(request.slots),
        "cause": Cause.TRIGGER if request.rerun_of is None else Cause.RERUN,
        "priority": revision.priority,
        "shard_concurrency": revision.shard_concurrency if revision.mode == Mode.SHARDED else 0,
        "retries": revision.retry_count,
        "action": deed,
        "reason": request.reason,
        "details": details,
    }


def _slot_row(slot: Slot, position: int) -> dict[str, Any]:
    return {
        "of": position,
        "number": slot.number,
        "shard_parameter": slot.shard_parameter,
        "node": slot.node_id,
        "pinned": slot.pinned,
        "prefer": slot.prefer,
    }


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
        lock_task(task)
        held = held_by_overlap(task)
        nodes = Node.objects.online().filter(group_id=task.group_id)
        request = BatchRequest(
            task=task,
            revision=task.revision,
            trigger=kind,
            scheduled_for=scheduled_for or clock.now(),
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


def lock_task(task: Task) -> None:
    Task.objects.select_for_update(no_key=True).only("pk").get(pk=task.pk)


def held_by_overlap(task: Task) -> bool:
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

    Each batch is dealt with in a transaction of its own: a worker that ends an instance of one batch and
    starts one of another locks both, in the order of its work, and whoever held several could meet it.
    """
    while _settle_next(task_id):
        pass


@transaction.atomic
def _settle_next(task_id: int) -> bool:
    """Stop or let go one batch of the task; False when there is none to deal with."""
    # Not joined: that would show no revision where somebody edited the task while this waited for the lock.
    task = Task.objects.select_for_update(no_key=True).prefetch_related("revision").get(pk=task_id)
    unfinished = list(Batch.objects.unfinished().filter(task=task).order_by("id"))
    held = [batch for batch in unfinished if batch.held]
    if not held:
        return False
    overlap = task.revision.overlap if task.revision is not None else Overlap.ALLOW
    if overlap == Overlap.ALLOW:
        transitions.release_held(held[0].pk)
        return True
    if overlap == Overlap.REPLACE:
        outdated = next((batch for batch in unfinished if batch.can_stop and batch != held[-1]), None)
        if outdated is not None:
            # It may end by itself at this very moment, which is as good.
            with suppress(TransitionRefused):
                reason = said(reasons.REPLACED, batch=held[-1].pk)
                transitions.stop_batch(outdated.pk, by=journal.SCHEDULE, reason=reason)
            return True
    if len(held) == len(unfinished):
        transitions.release_held(held[0].pk)
    return False
