"""Finds executions whose worker or node is gone, and claims that nobody started, and sets things right.

Everything here looks at the records as they are, so it may run at any time, twice, and after any crash.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Now

from scheduling import journal, reasons, transitions
from scheduling.errors import is_transient
from scheduling.models import Execution, Instance, Node
from scheduling.reasons import said
from scheduling.services import give_up_waiting, settle_overlap
from scheduling.states import InstanceState, NodeState, Outcome

logger = logging.getLogger(__name__)


def live_executions(node_id: int) -> QuerySet[Execution]:
    """What the records say runs on a node now, with instance and batch."""
    found = Execution.objects.live().filter(node_id=node_id).select_related("instance__batch")
    return found.annotate(now=Now()).order_by("id")


_HOLDS = """
SELECT EXISTS (
    SELECT FROM scheduling_instance WHERE node_id = %(node)s AND claimed AND ended_at IS NULL
) AS anything
"""


def holds_anything(node_id: int) -> bool:
    """Whether a node holds an instance: claimed, running or terminating. One look into an index."""
    return bool(transitions.execute(_HOLDS, {"node": node_id}).anything)


def lose(
    executions: Iterable[Execution], *, reason: str, node_gone: bool = False, confirmed: bool = True
) -> int:
    """End executions that their worker will not report any more; returns how many were still live.

    One past its deadline is timed out, one that was being stopped is terminated, any other is lost: it
    goes back to the queue when it has retries left, except a broadcast's whose node is gone. Unless its
    process is `confirmed` dead, one that was being stopped has failed: nobody saw it end. One whose end
    cannot be recorded stays as it is, and holds up no other.
    """
    ended = 0
    for execution in executions:
        try:
            ended += _lose(
                execution, reason, may_retry=not (node_gone and execution.instance.pinned), confirmed=confirmed
            )
        except Exception as error:
            if is_transient(error):
                raise
            # What hears of the end of a batch is in the same transaction, and may be anything.
            logger.exception("execution %s cannot be ended", execution.pk)
    return ended


def _lose(execution: Any, reason: str, *, may_retry: bool, confirmed: bool) -> bool:
    instance = execution.instance
    late = overdue(execution)
    why = said(reasons.TIMED_OUT_DEAF) if late else reason
    done = transitions.end(
        batch=instance.batch_id,
        instance=instance.pk,
        execution=execution.pk,
        token=execution.token,
        outcome=Outcome.TIMED_OUT if late else Outcome.LOST,
        error=why,
        reason=why,
        confirmed=confirmed,
        may_retry=may_retry,
        # Not joined to what is looked at every second: few are late.
        retry_after=instance.batch.revision.retry_interval if late else 0,
    )
    if done is None:
        return False
    logger.warning("execution %s of instance %s: %s", execution.pk, instance.pk, reason)
    if done.batch_ended:
        settle_overlap(instance.batch.task_id)
    return True


def release_claims(node_id: int) -> int:
    """Give back what a node has claimed and not started; its tokens are stale from now on."""
    return _release(Instance.objects.filter(node_id=node_id))


def expire_claims(node_id: int | None = None) -> int:
    """Give back every claim (of one node) whose lease ended before it was started."""
    expired = Instance.objects.filter(claimed_until__lt=Now())
    return _release(expired if node_id is None else expired.filter(node_id=node_id))


def _release(instances: QuerySet[Instance]) -> int:
    claimed = instances.filter(state=InstanceState.WAITING, claimed=True, ended_at__isnull=True).order_by()
    groups: set[int] = set()
    released = 0
    # One by one: a stop or another release may be locking the same rows in another order.
    for instance, group in claimed.values_list("pk", "group_id"):
        if claimed.filter(pk=instance).update(claimed=False, claimed_until=None):
            released += 1
            groups.add(group)
    for group in groups:
        transitions.notify(transitions.WORK_CHANNEL, group)
    return released


def take_over(node: Node, *, reason: str, confirmed: bool = True) -> None:
    """Set right what an earlier life of `node` left behind; `confirmed`: its processes are known to be gone."""
    release_claims(node.pk)
    lose(live_executions(node.pk), reason=reason, confirmed=confirmed)


def node_gone(
    node: Node,
    *,
    reason: str,
    confirmed: bool = False,
    by: journal.By = journal.ENGINE,
    last_heard: datetime | None = None,
) -> None:
    """Mark a node offline and give its work to others, or end what only it could have done.

    `confirmed`: all its processes are known to have ended. With `last_heard` it is left alone if it has sent
    another heartbeat since. A crash on the way is made good by `finish_absent_nodes`.
    """
    if not transitions.set_node_state(node, NodeState.OFFLINE, by=by, reason=reason, last_heard=last_heard):
        return
    logger.warning("node %s is offline: %s", node.name, reason)
    _hand_on(node, reason=said(reasons.NODE_LOST, why=reason), confirmed=confirmed)


def _hand_on(node: Node, *, reason: str, confirmed: bool) -> None:
    release_claims(node.pk)
    lose(live_executions(node.pk), reason=reason, node_gone=True, confirmed=confirmed)
    give_up_waiting(node)


def finish_absent_nodes() -> int:
    """Hand on whatever nodes that are not online still hold, as the records say.

    Closes every gap between a node's going and its work's: a crash half way, or a broadcast that was
    begun at the same moment. Returns how many nodes it found.
    """
    unfinished = Instance.objects.filter(ended_at__isnull=True)
    holding = unfinished.filter(claimed=True)
    waiting = unfinished.filter(pinned=True, claimed=False)
    offline = set(holding.filter(node__state=NodeState.OFFLINE).values_list("node_id", flat=True).distinct())
    absent = set(waiting.exclude(node__state=NodeState.ONLINE).values_list("node_id", flat=True).distinct())
    for pk in sorted(offline | absent):
        # Read only now: one before it may have taken long, and it may be back.
        node = Node.objects.select_related("group").get(pk=pk)
        if node.pk in offline and node.state == NodeState.OFFLINE:
            _hand_on(
                node,
                reason=said(reasons.NODE_LOST, why=said(reasons.NODE_OFFLINE, node=node.name)),
                confirmed=False,
            )
        elif node.state != NodeState.ONLINE:
            give_up_waiting(node)
    return len(offline | absent)


def node_stopped(node: Node, boot_id: UUID) -> None:
    """Sign a node off that has ended all its processes, unless another life of it has begun already."""
    current = Node.objects.select_related("group").filter(pk=node.pk, boot_id=boot_id).first()
    if current is not None:
        node_gone(current, reason=said(reasons.NODE_STOPPED, node=node.name), confirmed=True)


class SilenceWatch:
    """Marks nodes offline whose heartbeat has not changed for NODE_TIMEOUT seconds.

    The leading scheduler calls it again and again. Silence is counted by its own clock, and only while a
    heartbeat could have been recorded and seen: after a gap in the calls, a failed write, or a change of the
    database server, every node gets the whole time again.
    """

    def __init__(self) -> None:
        self._called_at = time.monotonic()
        self._server: datetime | None = None
        # Per node: its last heartbeat, and since when that has been the last.
        self._heard: dict[int, tuple[datetime, float]] = {}

    def __call__(self) -> int:
        patience = settings.TAILRACE["NODE_TIMEOUT"]
        # Whatever fails from here on, the next call begins with none.
        before, self._heard = self._heard, {}
        present = transitions.heartbeats()
        now = time.monotonic()
        if present.server != self._server or now - self._called_at > patience / 2:
            before = {}
        self._server, self._called_at = present.server, now
        heard = {}
        for node, beat in present.last.items():
            last, since = before.get(node, (None, now))
            heard[node] = (beat, since if last == beat else now)
        # No proof is needed while every node is heard.
        longest = max((now - since for _beat, since in heard.values()), default=0)
        if (heard and not before) or longest > patience / 3:
            transitions.prove_writable()
        self._heard = heard
        silent = [node for node, (_beat, since) in heard.items() if now - since > patience]
        for node in Node.objects.filter(pk__in=silent).select_related("group").order_by("pk"):
            # Those before it may have taken long, and it may be heard again.
            reason = said(reasons.NODE_SILENT, seconds=round(patience))
            node_gone(node, reason=reason, last_heard=heard[node.pk][0])
        return len(silent)


def overdue(execution: Any) -> bool:
    """Whether one of `live_executions` should have ended by now, by the database's clock."""
    deadline = execution.deadline_at
    return deadline is not None and deadline < execution.now
