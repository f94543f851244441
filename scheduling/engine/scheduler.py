"""The scheduler process: one leads, any number stand by and take over the moment it is gone.

Who leads is decided by a session-level advisory lock of PostgreSQL, so leading ends with the connection,
however the process ended, and needs no clock but PostgreSQL's, which ends the session of a leader that stands
still. It spares needless work and nothing more: that a trigger fires once rests on the row locks of
`triggers.fire_due`, which hold also while two believe that they lead.
"""

from __future__ import annotations

import hashlib
import logging
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import psycopg
from django.contrib.sessions.backends.db import SessionStore
from django.db import Error as DjangoDatabaseError
from django.db import close_old_connections, connection
from django.utils import timezone

from config import sessions
from scheduling import notifications
from scheduling.engine import recovery, triggers
from scheduling.engine import steps as added
from scheduling.engine.steps import Source, Step
from scheduling.services import SCHEDULE_CHANNEL, retention

logger = logging.getLogger(__name__)

# Advisory locks are numbers, and each database has its own: no two installations can meet on one.
LEAD_KEY = int.from_bytes(hashlib.sha256(b"tailrace scheduler").digest()[:8], signed=True)

STANDBY_SECONDS = 0.5
# Everything that changes a due time sends a NOTIFY; this is the net under it.
POLL_SECONDS = 10.0
# Tasks fired in one transaction: a busy minute costs few commits, and a kill undoes half a second at most.
ROUND = 500
# Due tasks that somebody else holds locked for the moment are tried again after this.
LOCKED_SECONDS = 0.05
BACKOFF_SECONDS = (0.1, 2.0)

# A leader that stands still – frozen, swapped out, its machine cut off – says nothing for so long and has lost
# its lead: PostgreSQL ends the session that holds it. A step that takes longer than that costs the lead, too,
# and nothing else: what is done by two at once is done once.
FROZEN_SECONDS = 15.0
SIGN_OF_LIFE_SECONDS = 3.0


def _forget_sessions() -> int:
    """Remove what is left of sessions that nobody will come back to. Returns 0: it is done for the hour."""
    SessionStore.clear_expired()
    return 0


SOURCES: Sequence[Source] = (
    Source("fire what is due", lambda: triggers.fire_due(limit=ROUND), triggers.next_due_at),
)
STEPS: Sequence[Step] = (
    Step("settle held batches", triggers.settle_held, 5.0),
    Step("give back expired claims", recovery.expire_claims, 1.0),
    Step("find silent nodes", recovery.SilenceWatch(), 1.0),
    Step("hand on what absent nodes hold", recovery.finish_absent_nodes, 2.0),
    # A fifth of the time at most, so that triggers and the other steps never wait for it.
    Step("remove old records", retention.Sweep(), 0.5),
    Step("remove old notifications", notifications.remove_old, 60.0),
    Step("forget sessions that ended", _forget_sessions, 3600.0),
)


class Scheduler:
    """One scheduler; `run` returns after `stop`, which any thread or signal handler may call."""

    def __init__(
        self,
        steps: Sequence[Step] | None = None,
        sources: Sequence[Source] | None = None,
        beside: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """`beside` is entered whenever it begins to lead, and left when it leads no more."""
        self._due = dict.fromkeys((*STEPS, *added.STEPS) if steps is None else steps, 0.0)
        self._sources = (*SOURCES, *added.SOURCES) if sources is None else sources
        self._beside = beside
        self._stopping = False
        self._alive_at = 0.0
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self.leads = False

    def stop(self) -> None:
        """Ask it to end after the transaction it is in."""
        self._stopping = True
        try:
            self._waker.send(b"\0")
        except OSError:
            return  # full: it has been woken; closed: it has ended

    def run(self) -> None:
        """Stand by, lead, and come back after every loss of the database, until `stop`."""
        shortest, longest = BACKOFF_SECONDS
        backoff = shortest
        try:
            while not self._stopping:
                try:
                    with self._connect() as session:
                        backoff = shortest
                        self._stand_by(session)
                        self._lead(session)
                except psycopg.OperationalError as error:
                    lost = "; this scheduler leads no more" if self.leads else ""
                    self.leads = False
                    logger.warning(
                        "PostgreSQL does not answer%s: %s. Trying again in %.1f s", lost, _line(error), backoff
                    )
                    self._wait(backoff)
                    backoff = min(backoff * 2, longest)
        finally:
            self.leads = False
            connection.close()
            self._wake.close()
            self._waker.close()

    def _connect(self) -> psycopg.Connection[Any]:
        """A connection that does nothing but hold the lead and listen."""
        parameters = {"application_name": "tailrace scheduler"} | connection.get_connection_params()
        for djangos in ("cursor_factory", "context", "prepare_threshold"):
            parameters.pop(djangos, None)
        session = psycopg.connect(**parameters, autocommit=True)
        sessions.prepare(session, idle_session_timeout=f"{FROZEN_SECONDS * 1000:.0f}ms")
        return session

    def _stand_by(self, session: psycopg.Connection[Any]) -> None:
        """Return when this scheduler leads or is to stop."""
        waiting = False
        while not self._stopping:
            row = session.execute("SELECT pg_try_advisory_lock(%s)", [LEAD_KEY]).fetchone()
            if row and row[0]:
                self.leads = True
                logger.info("This scheduler leads")
                return
            if not waiting:
                logger.info("Another scheduler leads; standing by")
                waiting = True
            self._wait(STANDBY_SECONDS)

    def _lead(self, session: psycopg.Connection[Any]) -> None:
        if not self._stopping:
            session.execute(f"LISTEN {SCHEDULE_CHANNEL}")
        with self._beside():
            while not self._stopping:
                self._wait(self._work(), session)

    def _work(self) -> float:
        """Do what is due, triggers first, and return for how many seconds there is nothing to do."""
        fired = [self._guarded(source.name, source.run) for source in self._sources]
        now = time.monotonic()
        for step, due in self._due.items():
            if due <= now and not self._stopping:
                again = self._guarded(step.name, step.run)
                self._due[step] = now if again else now + step.seconds
        if any(fired) or self._stopping:
            return 0.0
        if None in fired:
            return STANDBY_SECONDS
        return max(min(self._until_due(), min(self._due.values(), default=now) - time.monotonic()), 0.0)

    def _until_due(self) -> float:
        try:
            known = [at for source in self._sources if (at := source.next_due_at()) is not None]
        except DjangoDatabaseError:
            connection.close()
            return STANDBY_SECONDS
        if not known:
            return POLL_SECONDS
        due = min(known)
        return (
            min((due - timezone.now()).total_seconds(), POLL_SECONDS)
            if due > timezone.now()
            else LOCKED_SECONDS
        )

    def _guarded(self, name: str, run: Callable[[], int]) -> int | None:
        """What `run` returns, or None when it failed: one step's failure is not the others'."""
        try:
            return int(run())
        except DjangoDatabaseError as error:
            logger.warning("Could not %s: %s", name, _line(error))
            # Closed even when it works: its prepared statements may be obsolete after a migrate.
            connection.close()
        except Exception:
            logger.exception("Could not %s", name)
            close_old_connections()
        return None

    def _wait(self, seconds: float, session: psycopg.Connection[Any] | None = None) -> None:
        """Sleep until `seconds` passed, `stop` was called, or `session` heard something or broke.

        Raises psycopg.OperationalError when it broke.
        """
        sockets: list[Any] = [self._wake] if session is None else [self._wake, session]
        if seconds > 0 and not self._stopping:
            select.select(sockets, [], [], seconds)
        if session is not None:
            for _notification in session.notifies(timeout=0):
                pass
            if time.monotonic() - self._alive_at > SIGN_OF_LIFE_SECONDS:
                session.execute("SELECT")
                self._alive_at = time.monotonic()


def is_led() -> bool:
    """Whether some scheduler leads now, as PostgreSQL knows it by the lock that the leader holds."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND (classid::bigint << 32 | objid::bigint) = %s)",
            [LEAD_KEY],
        )
        return bool(cursor.fetchone()[0])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
