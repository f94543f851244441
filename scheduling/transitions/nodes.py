"""States of a node, and its heartbeat."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import transaction

from config import clock
from scheduling import journal, reasons
from scheduling.models import Node
from scheduling.reasons import said
from scheduling.states import NodeState
from scheduling.transitions.statements import WORK_CHANNEL, execute, execute_all, notify


def set_node_state(
    node: Node, state: str, *, by: journal.By, reason: str = "", last_heard: datetime | None = None
) -> bool:
    """Compare-and-set a node's state, with a journal entry; False when it had that state already.

    With `last_heard`, also when that is not the node's last heartbeat.
    """
    others = Node.objects.filter(pk=node.pk).exclude(state=state)
    if last_heard is not None:
        others = others.filter(heartbeat_at=last_heard)
    with transaction.atomic():
        changed = others.update(state=state)
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
    now = clock.now()
    Node.objects.filter(pk=node.pk).update(
        boot_id=boot_id, host=host, pid=pid, started_at=now, heartbeat_at=now
    )
    node.refresh_from_db(fields=["drained"])
    set_node_state(node, _present(node), by=journal.ENGINE)
    notify(WORK_CHANNEL, node.group_id)


class Heard(NamedTuple):
    """By how many seconds the node's clock is ahead of the database's."""

    clock_difference: float


def heartbeat(node_id: int, boot_id: UUID, *, stopping: bool = False) -> Heard | None:
    """Note that the node lives; None when another life of it has begun.

    A node that was thought offline and is heard again is online, or draining if that was asked: what it
    ran was given to others and is fenced, and it may claim anew. A `stopping` node is draining: it finishes
    its jobs and takes no new work.
    """
    row = execute(_HEARTBEAT, {"node": node_id, "boot": boot_id, "clock": clock.own()})
    if row is None:
        return None
    if row.state == NodeState.OFFLINE or (stopping and row.state == NodeState.ONLINE):
        node = Node.objects.select_related("group").get(pk=node_id)
        why = said(reasons.NODE_STOPPING if stopping else reasons.NODE_HEARD_AGAIN)
        set_node_state(node, _present(node, stopping=stopping), by=journal.ENGINE, reason=why)
        notify(WORK_CHANNEL, node.group_id)
    return Heard(row.clock_difference)


_HEARTBEAT = """
UPDATE scheduling_node SET heartbeat_at = clock_timestamp(),
    clock_difference = extract(epoch FROM %(clock)s::timestamptz - clock_timestamp())
WHERE id = %(node)s AND boot_id = %(boot)s
RETURNING state, clock_difference
"""


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """The last heartbeat of each node that is not offline, and when the database server started."""

    server: datetime
    last: dict[int, datetime]


def heartbeats() -> Heartbeats:
    """Read the last heartbeats. `server` differs after a restart of the database and after a failover."""
    rows = execute_all(_HEARTBEATS, {})
    return Heartbeats(rows[0].server, {row.id: row.heartbeat_at for row in rows if row.id is not None})


_HEARTBEATS = """
SELECT pg_postmaster_start_time() AS server, node.id, node.heartbeat_at
FROM (SELECT) one LEFT JOIN scheduling_node node ON node.state <> 'offline' AND node.heartbeat_at IS NOT NULL
"""


def prove_writable() -> None:
    """Write as a heartbeat does, and change nothing.

    Raises DatabaseError while the database refuses writes: then no node can be heard and no job can report.
    """
    execute(_WRITE, {})


# A row that is locked for the moment is passed over: waiting for it would prove nothing more.
_WRITE = """
UPDATE scheduling_node SET heartbeat_at = heartbeat_at
WHERE id = (SELECT id FROM scheduling_node ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
"""
