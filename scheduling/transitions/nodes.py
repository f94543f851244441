"""States of a node, and its heartbeat."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from scheduling import journal, reasons
from scheduling.models import Node
from scheduling.reasons import said
from scheduling.states import NodeState
from scheduling.transitions.statements import WORK_CHANNEL, execute, notify


def set_node_state(
    node: Node, state: str, *, by: journal.By, reason: str = "", silent_for: float | None = None
) -> bool:
    """Compare-and-set a node's state, with a journal entry; False when it had that state already.

    With `silent_for` (seconds), also when the node has been heard of since.
    """
    others = Node.objects.filter(pk=node.pk).exclude(state=state)
    with transaction.atomic():
        changed = (others if silent_for is None else others.silent_for(silent_for)).update(state=state)
        if changed:
            journal.record(f"node_{NodeState(state).value}", node, by, reason=reason)
    node.state = state
    return bool(changed)


def set_drained(node: Node, drained: bool) -> None:
    """Remember what was asked of a node, over its restarts and silences."""
    Node.objects.filter(pk=node.pk).update(drained=drained)
    node.drained = drained


def _present(node: Node, *, stopping: bool = False) -> str:
    """The state of a node that is there."""
    return NodeState.DRAINING if node.drained or stopping else NodeState.ONLINE


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


def heartbeat(node_id: int, boot_id: UUID, *, stopping: bool = False) -> bool:
    """Note that the node lives; False when another life of it has begun.

    A node that was thought offline and is heard again is online, or draining if that was asked: what it
    ran was given to others and is fenced, and it may claim anew. A `stopping` node is draining: it finishes
    its jobs and takes no new work.
    """
    row = execute(_HEARTBEAT, {"node": node_id, "boot": boot_id})
    if row is None:
        return False
    if row.state == NodeState.OFFLINE or (stopping and row.state == NodeState.ONLINE):
        node = Node.objects.select_related("group").get(pk=node_id)
        why = said(reasons.NODE_STOPPING if stopping else reasons.NODE_HEARD_AGAIN)
        set_node_state(node, _present(node, stopping=stopping), by=journal.ENGINE, reason=why)
        notify(WORK_CHANNEL, node.group_id)
    return True


_HEARTBEAT = """
UPDATE scheduling_node SET heartbeat_at = clock_timestamp()
WHERE id = %(node)s AND boot_id = %(boot)s
RETURNING state
"""
