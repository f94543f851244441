"""The lead: which of the schedulers works, held by a thread that does nothing else.

Who leads is decided by a session-level advisory lock of PostgreSQL, so leading ends with the connection,
however the process ended, and needs no clock but PostgreSQL's, which ends the session of a frozen process. The
thread also listens for changes of the schedule and writes the scheduler's heartbeat, so that neither waits for
a long round.
"""

from __future__ import annotations

import hashlib
import logging
import os
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from django.db import connection

from config import clock, sessions
from scheduling.services import SCHEDULE_CHANNEL

logger = logging.getLogger("scheduling.engine.scheduler")

# Advisory locks are numbers, and each database has its own: no two installations can meet on one.
LEAD_KEY = int.from_bytes(hashlib.sha256(b"tailrace scheduler").digest()[:8], signed=True)

STANDBY_SECONDS = 0.5
BACKOFF_SECONDS = (0.1, 2.0)
# A process that is frozen, swapped out, or cut off from the network sends nothing. After so long PostgreSQL
# ends its session, and with it the lead.
FROZEN_SECONDS = 15.0
HEARTBEAT_SECONDS = 3.0
# A loop that finishes no step for so long hangs, in a system call or a deadlock: the process gives up its lead.
STUCK_SECONDS = 120.0
END_SECONDS = 2.0

_BEAT = """
INSERT INTO scheduling_schedulerprocess AS own
    (id, host, pid, started_at, heartbeat_at, leads, last_round_at, clock_difference)
VALUES (%(id)s, %(host)s, %(pid)s, clock_timestamp(), clock_timestamp(), %(leads)s,
    clock_timestamp() - make_interval(secs => %(round_age)s),
    extract(epoch FROM %(clock)s::timestamptz - clock_timestamp()))
ON CONFLICT (id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at, leads = excluded.leads,
    last_round_at = excluded.last_round_at, clock_difference = excluded.clock_difference
RETURNING clock_difference
"""
# Rows of killed processes are of use to whoever looks for them for a day.
_FORGET = "DELETE FROM scheduling_schedulerprocess WHERE heartbeat_at < clock_timestamp() - interval '1 day'"


class Pulse:
    """When a loop last finished a step, and a round of all that is due."""

    def __init__(self) -> None:
        self.round_done()

    def step_done(self) -> None:
        self.step_at = time.monotonic()

    def round_done(self) -> None:
        self.step_at = self.round_at = time.monotonic()


class Lead:
    """Takes and holds the lead in a thread from `start` to `stop`."""

    def __init__(self, wake: Callable[[], None], pulses: Sequence[Pulse]) -> None:
        """`wake` is called, in the thread, when the lead was taken or lost, or the schedule has changed.

        `pulses` are those of the loops: the lead is given up when one of them hangs.
        """
        self._announce = wake
        self._id = uuid.uuid4()
        self._stopping = threading.Event()
        self.idle = True
        """Set by the scheduler: no loop works, so it may take the lead."""
        self._pulses = pulses
        self._has_led = False
        self._beat_at = 0.0
        self._watch_clock = clock.Watch()
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="lead", daemon=True)
        self.leads = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Give up the lead and end the thread. One that waits for a dead connection is left behind."""
        self._stopping.set()
        self._waker.send(b"\0")
        self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            self._wake.close()
            self._waker.close()

    # --- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        shortest, longest = BACKOFF_SECONDS
        backoff = shortest
        while not self._stopping.is_set():
            try:
                with self._connect() as session:
                    backoff = shortest
                    session.execute(f"LISTEN {SCHEDULE_CHANNEL}")
                    self._beat(session, _FORGET)
                    if self._take(session):
                        self._hold(session)
                    self._lose()
                    if self._stopping.is_set():
                        self._write(session, "DELETE FROM scheduling_schedulerprocess WHERE id = %(id)s")
            except psycopg.Error as error:
                lost = "; this scheduler leads no more" if self.leads else ""
                self._lose()
                logger.warning(
                    "PostgreSQL does not answer%s: %s. Trying again in %.1f s", lost, _line(error), backoff
                )
                self._wait(backoff)
                backoff = min(backoff * 2, longest)

    def _connect(self) -> psycopg.Connection[Any]:
        """A connection that does nothing but hold the lead, listen, and write the heartbeat."""
        parameters = {"application_name": "tailrace scheduler"} | connection.get_connection_params()
        for djangos in ("cursor_factory", "context", "prepare_threshold"):
            parameters.pop(djangos, None)
        session = psycopg.connect(**parameters, autocommit=True)
        sessions.prepare(session, idle_session_timeout=f"{FROZEN_SECONDS * 1000:.0f}ms", lock_timeout="1s")
        return session

    def _take(self, session: psycopg.Connection[Any]) -> bool:
        """Wait until this scheduler leads; False when it is to stop."""
        waiting = False
        while not self._stopping.is_set():
            if self.idle:
                row = session.execute("SELECT pg_try_advisory_lock(%s)", [LEAD_KEY]).fetchone()
                if row and row[0]:
                    logger.info("This scheduler leads")
                    for pulse in self._pulses:
                        pulse.round_done()
                    self.leads = self._has_led = True
                    self._beat(session)
                    self._announce()
                    return True
                if not waiting:
                    logger.info("Another scheduler leads; standing by")
                    waiting = True
            self._beat_if_due(session)
            self._wait(STANDBY_SECONDS)
        return False

    def _hold(self, session: psycopg.Connection[Any]) -> None:
        while not self._stopping.is_set():
            if any(time.monotonic() - pulse.step_at > STUCK_SECONDS for pulse in self._pulses):
                logger.error(
                    "A loop has finished no step for %.0f s; this scheduler leads no more", STUCK_SECONDS
                )
                return
            self._wait(self._beat_at + HEARTBEAT_SECONDS - time.monotonic(), session)
            if list(session.notifies(timeout=0)):
                self._announce()
            self._beat_if_due(session)

    def _lose(self) -> None:
        if self.leads:
            self.leads = False
            self._announce()

    def _wait(self, seconds: float, session: psycopg.Connection[Any] | None = None) -> None:
        """Sleep until `seconds` passed, `stop` was called, or `session` heard something or broke."""
        if seconds > 0 and not self._stopping.is_set():
            sockets: list[Any] = [self._wake] if session is None else [self._wake, session]
            select.select(sockets, [], [], seconds)

    def _beat_if_due(self, session: psycopg.Connection[Any]) -> None:
        if time.monotonic() - self._beat_at >= HEARTBEAT_SECONDS:
            self._beat(session)

    def _beat(self, session: psycopg.Connection[Any], *others: str) -> None:
        self._beat_at = time.monotonic()
        row = self._write(session, _BEAT)
        if row is not None and (why := self._watch_clock(row[0])):
            logger.warning("%s", why)
        for statement in others:
            self._write(session, statement)

    def _write(self, session: psycopg.Connection[Any], statement: str) -> tuple[Any, ...] | None:
        """Execute `statement` and return its row, if any.

        A refusal, as by a read-only database, shows that the session lives.
        """
        age = time.monotonic() - min(pulse.round_at for pulse in self._pulses) if self._has_led else None
        values = {"id": self._id, "host": socket.gethostname(), "pid": os.getpid()}
        values |= {"leads": self.leads, "round_age": age, "clock": clock.own()}
        try:
            cursor = session.execute(statement, values)
            return cursor.fetchone() if cursor.description else None
        except psycopg.Error as error:
            if session.closed:
                raise
            logger.warning("Could not write the scheduler's heartbeat: %s", _line(error))
            return None


def is_led() -> bool:
    """Whether some scheduler leads now, as PostgreSQL knows it by the lock that the leader holds."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {LED}", {"lead": LEAD_KEY})
        return bool(cursor.fetchone()[0])


LED = """EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid::bigint << 32 | objid::bigint) = %(lead)s
)"""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
