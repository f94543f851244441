"""Claims instances for a node: django-q2's broker, whose queue is the Instance table itself.

There is no second queue that could drift from the records: a stopped batch's instances are not waiting
any more, so nobody can claim them, and many nodes share one table with SKIP LOCKED.
"""

from __future__ import annotations

import logging
import select
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django_q.brokers import Broker
from django_q.signing import SignedPackage
from psycopg.rows import namedtuple_row

from scheduling.engine.channels import Counter, Flag
from scheduling.transitions import WORK_CHANNEL, Claim

logger = logging.getLogger(__name__)

# The longest wait for a NOTIFY, in seconds: instances whose time comes (retries) are found by looking.
POLL = 1.0
# A node asks for what it can start within this many seconds at its present speed, beyond its free slots.
_AHEAD = 0.25
_MOST_AHEAD = 100


@dataclass(frozen=True)
class Identity:
    """The node that claims, in one life of it."""

    node_id: int
    name: str
    group_id: int
    boot_id: UUID
    slots: int


# In order: what this node holds; how many more it may; which sharded batches have their fill here; what
# waits for any node and what waits for this one; of those the best, with the shards of a batch counted.
_CLAIM = """
WITH held AS MATERIALIZED (
    SELECT batch_id, max(shard_concurrency) AS shard_concurrency, count(*) AS n
    FROM scheduling_instance
    WHERE node_id = %(node)s AND claimed AND ended_at IS NULL
    GROUP BY batch_id
), room AS MATERIALIZED (
    -- Always one row: without one the LIMITs below would be NULL, which limits nothing.
    SELECT CASE WHEN EXISTS (
        SELECT FROM scheduling_node WHERE id = %(node)s AND boot_id = %(boot)s AND state = 'online'
    ) THEN greatest(0, %(capacity)s - (SELECT coalesce(sum(n), 0) FROM held)::int) ELSE 0 END AS n
), filled AS MATERIALIZED (
    SELECT coalesce(array_agg(batch_id), '{}') AS batches
    FROM held WHERE shard_concurrency > 0 AND n >= shard_concurrency
), anywhere AS (
    SELECT id, batch_id, priority, shard_concurrency
    FROM scheduling_instance
    WHERE group_id = %(group)s AND state = 'waiting' AND ended_at IS NULL AND NOT claimed AND NOT pinned
        AND run_after <= statement_timestamp()
        AND (prefers_node_until IS NULL OR node_id = %(node)s OR prefers_node_until < statement_timestamp())
        AND batch_id <> ALL ((SELECT batches FROM filled)::bigint[])
    ORDER BY priority DESC, id
    LIMIT (SELECT n FROM room)
    FOR UPDATE SKIP LOCKED
), here AS (
    SELECT id, batch_id, priority, shard_concurrency
    FROM scheduling_instance
    WHERE node_id = %(node)s AND state = 'waiting' AND ended_at IS NULL AND NOT claimed AND pinned
        AND run_after <= statement_timestamp()
    ORDER BY priority DESC, id
    LIMIT (SELECT n FROM room)
    FOR UPDATE SKIP LOCKED
), ranked AS (
    SELECT found.id, found.priority, found.shard_concurrency,
        coalesce(held.n, 0) + row_number() OVER (PARTITION BY found.batch_id ORDER BY found.id) AS nth
    FROM (SELECT * FROM anywhere UNION ALL SELECT * FROM here) found
    LEFT JOIN held ON held.batch_id = found.batch_id
), taken AS (
    SELECT id FROM ranked
    WHERE shard_concurrency = 0 OR nth <= shard_concurrency
    ORDER BY priority DESC, id
    LIMIT (SELECT n FROM room)
), claimed AS (
    UPDATE scheduling_instance instance
    SET claimed = true, token = gen_random_uuid(), node_id = %(node)s,
        claimed_until = statement_timestamp() + make_interval(secs => %(lease)s)
    FROM taken, scheduling_batch batch, scheduling_taskrevision revision
    WHERE instance.id = taken.id AND batch.id = instance.batch_id AND revision.id = batch.revision_id
    RETURNING instance.id, instance.batch_id, instance.token, instance.priority, revision.timeout
)
SELECT claimed.*, room.n AS room,
    EXISTS (SELECT FROM held WHERE shard_concurrency > 0)
        OR EXISTS (SELECT FROM ranked WHERE shard_concurrency > 0) AS limited
FROM room LEFT JOIN claimed ON true
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one look at the queue gave: the claims, best first; whether they took all the room there was; and
    whether the node works on a batch that limits its shards here, so that any end may admit another."""

    claims: list[Claim]
    full: bool
    limited: bool


def claim(identity: Identity, capacity: int) -> Claimed:
    """Claim what `identity` may start next, so that it holds at most `capacity` instances."""
    connection.ensure_connection()
    with (
        connection.wrap_database_errors,
        psycopg.Cursor(connection.connection, row_factory=namedtuple_row) as cursor,
    ):
        rows: list[Any] = cursor.execute(
            _CLAIM,
            {
                "node": identity.node_id,
                "boot": identity.boot_id,
                "group": identity.group_id,
                "capacity": capacity,
                "lease": settings.TAILRACE["CLAIM_SECONDS"],
            },
            prepare=True,
        ).fetchall()
    room, limited = rows[0].room, rows[0].limited
    found = sorted((row for row in rows if row.id is not None), key=lambda row: (-row.priority, row.id))
    claims = [Claim(row.id, row.batch_id, row.token, row.timeout) for row in found]
    return Claimed(claims, full=len(claims) >= room, limited=limited)


class InstanceBroker(Broker):  # type: ignore[misc]  # django-q2 ships no types
    """django-q2's broker of one node. Its pusher process calls `dequeue` for ever."""

    def __init__(
        self,
        list_key: str | None = None,
        *,
        identity: Identity | None = None,
        finished: Counter | None = None,
        stopping: Flag | None = None,
    ) -> None:
        super().__init__(list_key)
        self.identity = identity
        self.finished = finished or Counter()
        self.stopping = stopping or Flag()
        self._listening: Any = None
        self._woken = True
        self._rates: deque[tuple[float, int]] = deque(maxlen=8)
        self._awaited = 0

    def ping(self) -> bool:
        return True

    def info(self) -> str:
        return "Tailrace instances"

    def dequeue(self) -> list[tuple[int, str]] | None:
        """Claim and return signed tasks; when there is nothing or no room, wait for a change first."""
        if self.identity is None:
            raise RuntimeError("Instances are claimed by a node: start it with manage.py node.")
        try:
            self._listen()
            self._wait()
            if self.stopping.is_set():
                return None
            ahead = self._ahead()
            # News that arrive with the answer may be of what the claim could not see yet.
            self._woken = False
            claimed = claim(self.identity, self.identity.slots + ahead)
        except (DatabaseError, psycopg.Error) as error:
            self._reconnect_later(error)
            return None
        if claimed.limited and claimed.claims and not claimed.full:
            # Behind the shards that were too many for this node there may be more.
            self._woken = True
        if claimed.full:
            # Half of what was claimed ahead is used up before the next claim: claims stay few and large.
            self._awaited = max(1, ahead // 2)
        else:
            self._awaited = 1 if claimed.limited else sys.maxsize
        return [(one.instance, SignedPackage.dumps(as_task(one))) for one in claimed.claims]

    def _ahead(self) -> int:
        now = time.monotonic()
        self._rates.append((now, self.finished.take()))
        since = self._rates[0][0]
        if now <= since:
            return 0
        rate = sum(count for at, count in self._rates if at > since) / (now - since)
        return min(_MOST_AHEAD, int(rate * _AHEAD))

    def _listen(self) -> None:
        connection.ensure_connection()
        if self._listening is not connection.connection:
            raw = connection.connection
            # The queue's indexes are tiny and right; a plan made while the table is empty would not use them.
            raw.execute("SET enable_seqscan = off")
            raw.execute(f"LISTEN {WORK_CHANNEL}")
            raw.add_notify_handler(self._heard)
            self._listening = raw
            self._woken = True

    def _heard(self, notification: psycopg.Notify) -> None:
        if self.identity and notification.payload in ("", str(self.identity.group_id)):
            self._woken = True

    def _wait(self) -> None:
        """Return when there may be something to claim: news, enough finished, or the poll's time."""
        until = time.monotonic() + POLL
        while not self._woken:
            left = until - time.monotonic()
            if left <= 0:
                return
            raw = self._listening
            ready, _, _ = select.select([raw.fileno(), self.finished, self.stopping], [], [], left)
            if self.stopping in ready:
                return
            if raw.fileno() in ready:
                raw.pgconn.consume_input()
                while (notify := raw.pgconn.notifies()) is not None:
                    self._heard(psycopg.Notify(notify.relname.decode(), notify.extra.decode(), notify.be_pid))
            if self.finished in ready:
                count = self.finished.take()
                self._rates.append((time.monotonic(), count))
                self._awaited -= count
                if self._awaited <= 0:
                    return

    def _reconnect_later(self, error: Exception) -> None:
        logger.warning("%s cannot claim: %s; trying again", self.identity and self.identity.name, error)
        self._listening = None
        connection.close()
        self.stopping.wait(0.5)


def as_task(one: Claim) -> dict[str, Any]:
    """The claim as django-q2's workers take it."""
    from scheduling.engine import execution

    return {
        "id": str(one.instance),
        "name": str(one.instance),
        "func": execution.run,
        "args": (one,),
        "kwargs": {},
        "timeout": one.timeout or -1,
    }
