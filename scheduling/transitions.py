"""The only writer of a state column: one function a verb.

Every verb is a compare-and-set against the table in states.py and runs in one transaction. Rows are
locked in one order everywhere – task, batch, instances by id, execution – so that no two verbs can
deadlock; whoever can put an instance back into the queue holds its batch's lock, so that a stop which
holds it sees every instance.

`start` and `end` run for every instance of the product, so they are functions of the database, in
transitions.sql.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NotRequired, TypedDict, Unpack
from uuid import UUID

import psycopg
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from scheduling import journal, reasons, signals
from scheduling.errors import TransitionRefused
from scheduling.models import Batch, Instance, Node
from scheduling.models.batches import Cause
from scheduling.reasons import said
from scheduling.states import BATCH, BatchState, InstanceState, NodeState, Outcome

STOP_CHANNEL = "tailrace_stop"
WORK_CHANNEL = "tailrace_work"


def execute(statement: str, parameters: dict[str, Any]) -> Any:
    """Run one prepared statement on Django's connection and return its first row, or None.

    Django binds on the client, which makes the server plan these long statements anew each time.
    """
    connection.ensure_connection()
    with (
        connection.wrap_database_errors,
        psycopg.Cursor(connection.connection, row_factory=namedtuple_row) as cursor,
    ):
        cursor.execute(statement, parameters, prepare=True)
        return cursor.fetchone() if cursor.description else None


def notify(channel: str, payload: object = "") -> None:
    """Wake whoever listens on `channel`; PostgreSQL delivers it when the transaction commits."""
    execute("SELECT pg_notify(%(channel)s, %(payload)s)", {"channel": channel, "payload": str(payload)})


def database_now() -> datetime:
    """The time by the database's clock, which decides when an instance may be claimed and a lease is over."""
    moment: datetime = execute("SELECT statement_timestamp() AS now", {}).now
    return moment


def tell_ended(batch: Batch) -> None:
    """Tell the apps above, in the transaction that ended it, that `batch` has ended."""
    signals.batch_ended.send(sender=Batch, batch_id=batch.pk, state=batch.state, trigger=batch.trigger)


# --- start -----------------------------------------------------------------------------------------

_START = "SELECT * FROM tailrace_start(%(batch)s, %(instance)s, %(token)s, %(worker)s, %(timeout)s)"


@dataclass(frozen=True, slots=True)
class Started:
    """What a worker needs to know of the execution that it has just begun."""

    execution_id: int
    attempt: int
    number: int
    shard_parameter: str
    total: int
    revision_id: int
    parameters: dict[str, Any]
    scheduled_for: datetime


class Starting(TypedDict):
    """What `start` takes. `timeout` is in seconds; `worker` is the process that will run it."""

    batch: int
    instance: int
    token: int
    worker: int
    timeout: int | None


def start(**starting: Unpack[Starting]) -> Started | None:
    """Turn a claimed instance into a running one with a new execution.

    Returns None when the claim is not valid any more (stopped, expired and claimed again, delivered
    twice): then nothing was changed and nothing may run. Asked again by the worker whose start went
    through while the database's answer was lost, it returns that start.
    """
    return _started(execute(_START, {**starting}))


def _started(row: Any) -> Started | None:
    if row is None or row.execution_id is None:
        return None
    values = {name: getattr(row, name) for name in Started.__slots__}
    # Django's connections hand JSON over as text.
    return Started(**values | {"parameters": json.loads(row.parameters)})


# --- end -------------------------------------------------------------------------------------------

_ENDING = """
    %(batch)s, %(instance)s, %(execution)s, %(token)s, %(outcome)s, %(state)s, %(state_if_terminating)s,
    %(exit_code)s, %(error)s, %(reason)s, %(result)s, %(may_retry)s, %(retry_cause)s, %(retry_after)s, %(alone)s
"""
_END = f"SELECT * FROM tailrace_end({_ENDING})"
_HAND_OVER = f"""
SELECT * FROM tailrace_hand_over({_ENDING},
    %(next_batch)s, %(next_instance)s, %(next_token)s, %(next_worker)s, %(next_timeout)s)
"""

_STATE_OF = {
    Outcome.SUCCESS: (InstanceState.SUCCESS, InstanceState.SUCCESS),
    Outcome.FAILED: (InstanceState.FAILED, InstanceState.FAILED),
    Outcome.TIMED_OUT: (InstanceState.TIMED_OUT, InstanceState.TIMED_OUT),
    # A process that is known to be dead confirms a stop that was asked; otherwise it just failed.
    Outcome.TERMINATED: (InstanceState.FAILED, InstanceState.TERMINATED),
    Outcome.LOST: (InstanceState.FAILED, InstanceState.TERMINATED),
}


@dataclass(frozen=True, slots=True)
class Ended:
    """What `end` did: the instance's state, whether it goes back to the queue, whether its batch ended."""

    state: str
    retry: bool
    batch_ended: bool


class Ending(TypedDict):
    """What `end` takes. `retry_after` is in seconds; `siblings` spares a look when the batch has but one;
    without `confirmed`, nobody saw the process end."""

    batch: int
    instance: int
    execution: int
    token: int
    outcome: str
    exit_code: NotRequired[int | None]
    error: NotRequired[str]
    reason: NotRequired[str]
    result: NotRequired[Any]
    may_retry: NotRequired[bool]
    confirmed: NotRequired[bool]
    retry_after: NotRequired[float]
    siblings: NotRequired[bool]


def end(**ending: Unpack[Ending]) -> Ended | None:
    """Record how the execution that holds `token` ended, count it, and judge its batch when it was the last.

    Returns None when the token is stale (a fenced execution's late report, or a report made twice): then
    nothing was changed.
    """
    return _ended(_END, ending, {})[0]


def hand_over(ending: Ending, starting: Starting) -> tuple[Ended | None, Started | None]:
    """`end` one execution and `start` the worker's next in one transaction: half the commits of both alone."""
    return _ended(_HAND_OVER, ending, {f"next_{name}": value for name, value in starting.items()})


def _ended(statement: str, ending: Ending, more: dict[str, Any]) -> tuple[Ended | None, Started | None]:
    """Run `statement`; the end of a batch is told to `batch_ended` in the transaction that made it."""
    outcome = Outcome(ending["outcome"])
    state, state_if_terminating = _STATE_OF[outcome]
    if not ending.get("confirmed", True):
        state_if_terminating = state
    result = ending.get("result")
    told = more | {
        "batch": ending["batch"],
        "instance": ending["instance"],
        "execution": ending["execution"],
        "token": ending["token"],
        "outcome": outcome.value,
        "state": state.value,
        "state_if_terminating": state_if_terminating.value,
        "exit_code": ending.get("exit_code"),
        "error": ending.get("error", ""),
        "reason": ending.get("reason", ""),
        "result": None if result is None else Jsonb(result),
        "may_retry": ending.get("may_retry", True),
        "retry_cause": (Cause.LOST if outcome == Outcome.LOST else Cause.RETRY).value,
        "retry_after": float(ending.get("retry_after", 0)),
    }
    row = None
    alone = ending.get("siblings", True) and not connection.in_atomic_block
    if alone:
        row = execute(statement, told | {"alone": True})
    if row is None or (row.known and row.state is None):
        # It may be the batch's last instance.
        with transaction.atomic(savepoint=False):
            row = execute(statement, told | {"alone": False})
            if row.batch_ended:
                signals.batch_ended.send(
                    sender=Batch, batch_id=ending["batch"], state=row.batch_state, trigger=row.trigger
                )
    if not row.known:
        return None, _started(row) if more else None
    return Ended(row.state, row.retry, row.batch_ended), _started(row) if more else None


_COUNT = "SELECT tailrace_count(%(batch)s, %(succeeded)s, %(failed)s, %(timed_out)s, %(terminated)s)"
_COUNTERS = ("succeeded", "failed", "timed_out", "terminated")


def _count(batch: Batch, counts: dict[str, int], by: journal.By) -> None:
    """Add ended instances to the locked `batch`, and end it when none is left."""
    if not any(counts.values()):
        return
    execute(_COUNT, {"batch": batch.pk} | {name: counts.get(name, 0) for name in _COUNTERS})
    batch.refresh_from_db()
    if batch.is_finished:
        journal.record("ended", batch, by, reason=batch.reason, details={"state": batch.state})
        tell_ended(batch)


def _lock(batch_id: int) -> Batch:
    return Batch.objects.select_for_update(no_key=True, of=("self",)).select_related("task").get(pk=batch_id)


# --- stop ------------------------------------------------------------------------------------------


def _begin_terminating(batch: Batch, reason: str) -> None:
    """Nothing of the locked `batch` will start any more; it is judged when what still runs has ended."""
    batch.state = BatchState.TERMINATING
    batch.reason = reason
    batch.save(update_fields=["state", "reason"])


def _stopped(by: journal.By, reason: str) -> str:
    return reasons.said_with(reasons.STOPPED, reasons.STOPPED_WHY, reason, who=journal.actor(by).name)


@transaction.atomic
def stop_batch(batch_id: int, *, by: journal.By, reason: str) -> Batch:
    """Ask a batch to end: what waits never starts, what runs is told to end.

    Raises TransitionRefused when the batch has ended or was stopped already.
    """
    batch = _lock(batch_id)
    if not batch.can_stop:
        raise TransitionRefused(
            _(
                "Batch %(id)s has state %(state)s; only an unfinished batch that was not stopped yet "
                "can be stopped."
            )
            % {"id": batch.pk, "state": batch.get_state_display()}
        )
    text = _stopped(by, reason)
    _begin_terminating(batch, text)
    journal.record("stopped", batch, by, reason=reason)
    of_batch = Instance.objects.filter(batch_id=batch.pk)
    # Two statements, each with a fresh look: an instance that starts during the first is seen by the second.
    never = of_batch.filter(state=InstanceState.WAITING).update(
        state=InstanceState.TERMINATED,
        ended_at=timezone.now(),
        reason=text,
    )
    running = of_batch.filter(state=InstanceState.RUNNING).update(state=InstanceState.TERMINATING, reason=text)
    if running:
        notify(STOP_CHANNEL)
    _count(batch, {"terminated": never}, by)
    return batch


@transaction.atomic
def stop_instance(instance_id: int, *, by: journal.By, reason: str) -> Instance:
    """Ask one instance to end; the rest of its batch goes on.

    Raises TransitionRefused when it has ended or was stopped already.
    """
    batch = _lock(Instance.objects.values_list("batch_id", flat=True).get(pk=instance_id))
    of_batch = Instance.objects.filter(batch_id=batch.pk)
    stopped = {"pk": instance_id}
    text = _stopped(by, reason)
    never = of_batch.filter(**stopped, state=InstanceState.WAITING).update(
        state=InstanceState.TERMINATED, ended_at=timezone.now(), reason=text
    )
    running = 0
    if not never:
        # Should the job fail or time out before the stop reaches it, it must not be tried again.
        running = of_batch.filter(**stopped, state=InstanceState.RUNNING).update(
            state=InstanceState.TERMINATING, reason=text, retries_left=0
        )
    instance = Instance.objects.select_related("batch__task").get(pk=instance_id)
    if not never and not running:
        raise TransitionRefused(
            _(
                "Instance %(id)s has state %(state)s; only an unfinished one that was not stopped yet "
                "can be stopped."
            )
            % {"id": instance.pk, "state": instance.get_state_display()}
        )
    journal.record("stopped", instance, by, reason=reason)
    if running:
        notify(STOP_CHANNEL)
    others = of_batch.filter(state__in=[InstanceState.WAITING, InstanceState.RUNNING]).exists()
    if not others and batch.can_stop:
        # Whatever is left of the batch is being stopped: that is what terminating means.
        _begin_terminating(batch, text)
        journal.record("stopped", batch, by, reason=reason)
    _count(batch, {"terminated": never}, by)
    instance.batch = batch
    return instance


# --- rerun -----------------------------------------------------------------------------------------

_COUNTER = {
    InstanceState.SUCCESS: "succeeded",
    InstanceState.FAILED: "failed",
    InstanceState.TIMED_OUT: "timed_out",
    InstanceState.TERMINATED: "terminated",
}


@transaction.atomic
def rerun_instance(
    instance_id: int, *, by: journal.By, reason: str, prefer_node_for: float | None, retries: int
) -> Instance:
    """Put a finished instance back into the queue; its executions so far stay its history.

    `prefer_node_for`: seconds during which only its last node may claim it, or None.
    Raises TransitionRefused when the instance has not ended or its batch is being stopped.
    """
    batch = _lock(Instance.objects.values_list("batch_id", flat=True).get(pk=instance_id))
    instance = Instance.objects.select_for_update(of=("self",)).select_related("node").get(pk=instance_id)
    if not instance.can_rerun:
        raise TransitionRefused(
            _("Instance %(id)s has state %(state)s; only a finished instance can be rerun.")
            % {"id": instance.pk, "state": instance.get_state_display()}
        )
    if batch.state in {BatchState.TERMINATING, BatchState.CONDITION_NOT_MET}:
        raise TransitionRefused(
            _("Batch %(id)s has state %(state)s; rerun the instance when the batch has ended.")
            % {"id": batch.pk, "state": batch.get_state_display()}
        )
    counter = _COUNTER[InstanceState(instance.state)]
    now = database_now()
    instance.state = InstanceState.WAITING
    instance.cause = Cause.RERUN
    instance.reason = ""
    instance.claimed = False
    instance.started_at = instance.ended_at = None
    instance.retries_left = retries
    if batch.is_finished:
        # Whatever it was held for, this rerun was asked for now.
        batch.state, batch.ended_at, batch.reason, batch.held = BatchState.RUNNING, None, "", False
    instance.run_after = None if batch.held else now
    instance.prefers_node_until = None if prefer_node_for is None else now + timedelta(seconds=prefer_node_for)
    instance.save()
    setattr(batch, counter, getattr(batch, counter) - 1)
    batch.save()
    instance.batch = batch
    journal.record("rerun", instance, by, reason=reason)
    notify(WORK_CHANNEL, instance.group_id)
    return instance


# --- judge anew ------------------------------------------------------------------------------------


@transaction.atomic
def judge_anew(batch_id: int, *, success_ratio: int, by: journal.By, reason: str) -> Batch:
    """Judge an ended batch by another success ratio (in per cent), whichever way that turns out.

    Raises TransitionRefused when the batch has not ended, or has nothing to judge by.
    """
    batch = _lock_judged(batch_id)
    if not batch.total:
        raise TransitionRefused(
            _("Batch %(id)s has no instances, so there is nothing to judge it by; mark it instead.")
            % {"id": batch.pk}
        )
    reached = batch.succeeded * 100 >= success_ratio * batch.total
    ratios = {"ratio_before": batch.success_ratio, "ratio_after": success_ratio}
    counts = {"succeeded": batch.succeeded, "total": batch.total}
    batch.success_ratio = success_ratio
    batch.reason = reasons.said_with(
        reasons.JUDGED_ANEW,
        reasons.JUDGED_ANEW_WHY,
        reason,
        who=journal.actor(by).name,
        ratio=success_ratio,
    )
    return _decide(
        batch,
        BatchState.SUCCESS if reached else BatchState.FAILED,
        action="judged",
        by=by,
        reason=reason,
        details=ratios | counts,
    )


@transaction.atomic
def mark(batch_id: int, state: BatchState, *, by: journal.By, reason: str) -> Batch:
    """Call an ended batch a success or failed, whatever its instances say.

    Raises TransitionRefused when the batch has not ended, or is in that state already.
    """
    batch = _lock_judged(batch_id)
    if batch.state == state:
        raise TransitionRefused(
            _("Batch %(id)s has state %(state)s already.")
            % {"id": batch.pk, "state": batch.get_state_display()}
        )
    batch.reason = said(reasons.MARKED, state=state.value, who=journal.actor(by).name, why=reason)
    return _decide(batch, state, action="marked", by=by, reason=reason, details={})


def _lock_judged(batch_id: int) -> Batch:
    batch = _lock(batch_id)
    if batch.state not in {BatchState.SUCCESS, BatchState.FAILED}:
        raise TransitionRefused(
            _(
                "Batch %(id)s has state %(state)s; only one that ended as a success or failed "
                "can be judged anew."
            )
            % {"id": batch.pk, "state": batch.get_state_display()}
        )
    return batch


def _decide(
    batch: Batch, state: BatchState, *, action: str, by: journal.By, reason: str, details: dict[str, Any]
) -> Batch:
    before, batch.state = batch.state, state
    batch.save(update_fields=["state", "success_ratio", "reason"])
    moved = {"state_before": before, "state_after": state.value}
    journal.record(action, batch, by, reason=reason, details=moved | details)
    if before != state:
        signals.batch_ended.send(sender=Batch, batch_id=batch.pk, state=batch.state, trigger=batch.trigger)
    return batch


# --- never run -------------------------------------------------------------------------------------


@transaction.atomic
def mark_condition_not_met(batch_id: int, *, reason: str) -> Batch:
    """End a waiting batch of a workflow whose branch was not taken; its instances never run."""
    batch = _lock(batch_id)
    if not BATCH.allows(batch.state, BatchState.CONDITION_NOT_MET):
        raise TransitionRefused(
            _("Batch %(id)s has state %(state)s; only a waiting batch can be passed over.")
            % {"id": batch.pk, "state": batch.get_state_display()}
        )
    now = timezone.now()
    batch.terminated += Instance.objects.filter(batch=batch, state=InstanceState.WAITING).update(
        state=InstanceState.TERMINATED, ended_at=now, reason=reason
    )
    batch.state, batch.ended_at, batch.reason = BatchState.CONDITION_NOT_MET, now, reason
    batch.save()
    journal.record("condition_not_met", batch, journal.ENGINE, reason=reason)
    tell_ended(batch)
    return batch


def give_up_waiting(node: Node, *, reason: str) -> list[Batch]:
    """End what waits for this one node and can run nowhere else; returns the batches that ended by it."""
    pinned = Instance.objects.filter(node=node, pinned=True, state=InstanceState.WAITING, ended_at__isnull=True)
    batches = sorted(set(pinned.values_list("batch_id", flat=True)))
    ended = []
    for batch_id in batches:
        with transaction.atomic():
            batch = _lock(batch_id)
            count = pinned.filter(batch_id=batch_id).update(
                state=InstanceState.TERMINATED, ended_at=timezone.now(), reason=reason
            )
            if batch.can_stop and batch.ended_count + count == batch.total:
                _begin_terminating(batch, reason)
            _count(batch, {"terminated": count}, journal.ENGINE)
            if count and batch.is_finished:
                ended.append(batch)
    return ended


@transaction.atomic
def release_held(batch_id: int) -> bool:
    """Let a held batch's instances be claimed; False when it is not held any more."""
    batch = _lock(batch_id)
    if not batch.held or batch.is_finished:
        return False
    batch.held = False
    batch.save(update_fields=["held"])
    Instance.objects.filter(batch=batch, state=InstanceState.WAITING).update(run_after=Now())
    notify(WORK_CHANNEL, batch.group_id)
    return True


# --- nodes -----------------------------------------------------------------------------------------


def set_node_state(node: Node, state: str, *, by: journal.By, reason: str = "") -> bool:
    """Compare-and-set a node's state, with a journal entry; False when it had that state already."""
    with transaction.atomic():
        changed = Node.objects.filter(pk=node.pk).exclude(state=state).update(state=state)
        if changed:
            journal.record(f"node_{NodeState(state).value}", node, by, reason=reason)
    node.state = state
    return bool(changed)


def set_drained(node: Node, drained: bool) -> None:
    """Remember what was asked of a node, over its restarts and silences."""
    Node.objects.filter(pk=node.pk).update(drained=drained)
    node.drained = drained


def _present(node: Node) -> str:
    """The state of a node that is there."""
    return NodeState.DRAINING if node.drained else NodeState.ONLINE


@transaction.atomic
def boot_node(node: Node, *, boot_id: UUID, host: str, pid: int) -> None:
    """Begin a life of `node`: it is online, and what holds another boot ID speaks for it no more."""
    now = timezone.now()
    Node.objects.filter(pk=node.pk).update(
        boot_id=boot_id, host=host, pid=pid, started_at=now, heartbeat_at=now
    )
    node.refresh_from_db(fields=["drained"])
    set_node_state(node, _present(node), by=journal.ENGINE)
    notify(WORK_CHANNEL, node.group_id)


def heartbeat(node_id: int, boot_id: UUID) -> bool:
    """Note that the node lives; False when another life of it has begun.

    A node that was thought offline and is heard again is online, or draining if that was asked: what it
    ran was given to others and is fenced, and it may claim anew.
    """
    row = execute(_HEARTBEAT, {"node": node_id, "boot": boot_id})
    if row is None:
        return False
    if row.state == NodeState.OFFLINE:
        node = Node.objects.select_related("group").get(pk=node_id)
        set_node_state(node, _present(node), by=journal.ENGINE, reason=said(reasons.NODE_HEARD_AGAIN))
        notify(WORK_CHANNEL, node.group_id)
    return True


_HEARTBEAT = """
UPDATE scheduling_node SET heartbeat_at = clock_timestamp()
WHERE id = %(node)s AND boot_id = %(boot)s
RETURNING state
"""
