"""Finds executions whose worker or node is gone, and claims that nobody started, and sets things right.

Everything here looks at the records as they are, so it may run at any time, twice, and after any crash.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from scheduling import journal, transitions
from scheduling.models import Execution, Instance, Node
from scheduling.services import give_up_waiting, settle_overlap
from scheduling.states import InstanceState, NodeState, Outcome

logger = logging.getLogger(__name__)


def live_executions(node_id: int) -> QuerySet[Execution]:
    """What the records say runs on a node now, with instance and batch."""
    return Execution.objects.live().filter(node_id=node_id).select_related("instance__batch").order_by("id")


def lose(executions: Iterable[Execution], *, reason: str, node_gone: bool = False) -> int:
    """End executions whose process is known to be dead; returns how many were still live.

    One past its deadline is timed out, one that was being stopped is terminated, any other is lost: it
    goes back to the queue when it has retries left, except a broadcast's whose node is gone.
    """
    ended = 0
    for execution in executions:
        instance = execution.instance
        overdue = execution.deadline_at is not None and execution.deadline_at <= timezone.now()
        done = transitions.end(
            batch=instance.batch_id,
            instance=instance.pk,
            execution=execution.pk,
            token=execution.token,
            outcome=Outcome.TIMED_OUT if overdue else Outcome.LOST,
            error=reason,
            reason=reason,
            may_retry=not (node_gone and instance.pinned),
        )
        if done:
            ended += 1
            logger.warning("execution %s of instance %s: %s", execution.pk, instance.pk, reason)
            if done.batch_ended:
                settle_overlap(instance.batch.task_id)
    return ended


def release_claims(node_id: int) -> int:
    """Give back what a node has claimed and not started; its tokens are stale from now on."""
    return _release(Instance.objects.filter(node_id=node_id))


def expire_claims(node_id: int | None = None) -> int:
    """Give back every claim (of one node) whose lease ended before it was started."""
    expired = Instance.objects.filter(claimed_until__lt=timezone.now())
    return _release(expired if node_id is None else expired.filter(node_id=node_id))


def _release(instances: QuerySet[Instance]) -> int:
    claimed = instances.filter(state=InstanceState.WAITING, claimed=True).order_by()
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


def take_over(node: Node, *, reason: str) -> None:
    """Set right what an earlier life of `node` left behind, when all its processes are gone."""
    release_claims(node.pk)
    lose(live_executions(node.pk), reason=reason)


def node_gone(node: Node, *, reason: str) -> None:
    """Mark a node offline and give its work to others, or end what only it could have done."""
    if not transitions.set_node_state(node, NodeState.OFFLINE, by=journal.ENGINE, reason=reason):
        return
    logger.warning("node %s is offline: %s", node.name, reason)
    release_claims(node.pk)
    lose(live_executions(node.pk), reason=f"node_lost: {reason}", node_gone=True)
    give_up_waiting(node)


def node_stopped(node: Node, boot_id: UUID) -> None:
    """Sign a node off that has ended all its processes, unless another life of it has begun already."""
    current = Node.objects.select_related("group").filter(pk=node.pk, boot_id=boot_id).first()
    if current is not None:
        node_gone(current, reason="stopped")


class SilenceWatch:
    """Marks nodes offline that have not been heard of for NODE_TIMEOUT seconds.

    Called again and again by the leading scheduler. After a gap in its own calls (it was not leading, or
    the database was away) it first gives every node the time to be heard: silence counts only while
    someone listened.
    """

    def __init__(self) -> None:
        self._listening_since = self._called_at = time.monotonic()

    def __call__(self) -> int:
        now, patience = time.monotonic(), settings.TAILRACE["NODE_TIMEOUT"]
        if now - self._called_at > patience / 2:
            self._listening_since = now
        self._called_at = now
        if now - self._listening_since < patience:
            return 0
        silent = list(Node.objects.silent_for(patience).select_related("group"))
        for node in silent:
            node_gone(node, reason=_("not heard of for %d s") % patience)
        return len(silent)


def overdue(execution: Any, *, grace: float) -> bool:
    """Whether an execution should have ended `grace` seconds ago by its own time-out."""
    return (
        execution.deadline_at is not None and execution.deadline_at + timedelta(seconds=grace) < timezone.now()
    )
