"""The thread of a worker that stores the running job's log and hears of stops.

It has a connection of its own while a job runs for long. Short jobs never meet it: it looks every 0.2 s whether
something has been running for a while, so it costs an instance nothing. After some seconds without a job it
closes its connection and sleeps until the next job begins.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import connection as django_connection

from config import sessions
from scheduling import transitions
from scheduling.jobs import JobStopped
from scheduling.states import InstanceState

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from scheduling.engine.logs import LogSink
    from scheduling.transitions import Claim, Started

logger = logging.getLogger(__name__)

_LOOK = 0.2
_FLUSH = 0.5
# A job that takes longer than this needs one connection instead of two; opening the other again takes some
# milliseconds.
_LONG = 1.0
# After so many seconds without work a worker closes its connections.
IDLE_AFTER = 5.0
_INTERRUPT = signal.SIGUSR1

_STORE = """
INSERT INTO scheduling_logchunk (execution_id, sequence, text, dropped_bytes, written_at)
SELECT id, %(sequence)s, %(text)s, %(dropped)s, clock_timestamp()
FROM scheduling_execution WHERE id = %(execution)s AND token = %(token)s AND ended_at IS NULL
ON CONFLICT DO NOTHING
"""


class Watched:
    """One running execution, as the watcher sees it."""

    def __init__(
        self, claim: Claim, started: Started, sink: LogSink, unused: BaseDatabaseWrapper | None = None
    ) -> None:
        """`unused` is the main thread's connection when the job does not use it."""
        self.unused = unused
        self.claim = claim
        self.started = started
        self.sink = sink
        self.began = time.monotonic()
        self.stop = threading.Event()
        self.interruptible = False
        self.asked_at: float | None = None
        self.interrupted = False


class Watcher(threading.Thread):
    """Watches the main thread's job; start it in the worker's main thread."""

    def __init__(self) -> None:
        super().__init__(name="watcher", daemon=True)
        self._current: Watched | None = None
        self._busy = threading.Lock()
        self._awake = threading.Event()
        self._idle_since = time.monotonic()
        self._connection: psycopg.Connection[Any] | None = None
        signal.signal(_INTERRUPT, self._interrupt)

    @contextmanager
    def watching(
        self, claim: Claim, started: Started, sink: LogSink, unused: BaseDatabaseWrapper | None = None
    ) -> Iterator[Watched]:
        """Watch an execution during the block; after it the watcher touches it no more.

        `unused`, a connection that allows another thread to close it, is closed when the job takes long.
        """
        watched = self._current = Watched(claim, started, sink, unused)
        if not self._awake.is_set():
            self._awake.set()
        try:
            yield watched
        finally:
            self._current = None
            # A flush that is under way ends before the main thread writes the log's rest.
            with self._busy:
                pass

    def run(self) -> None:
        while True:
            watched = self._current
            if watched is None or time.monotonic() - watched.began < _LOOK:
                self._rest(watched)
                continue
            try:
                self._wait(watched)
                with self._busy:
                    if self._current is watched:
                        self._look(watched)
            except psycopg.Error as error:
                logger.warning("execution %s: %s; trying again", watched.started.execution_id, error)
                self._disconnect()
                time.sleep(_FLUSH)
            if self._current is watched:
                self._insist(watched)

    def _rest(self, watched: Watched | None) -> None:
        """Sleep for a look, or, when the worker has been idle for some seconds, until its next job."""
        now = time.monotonic()
        if watched is not None:
            self._idle_since = now
        elif now - self._idle_since > IDLE_AFTER:
            self._awake.clear()
            # One that began before the line above may have seen it still set.
            if self._current is None:
                self._disconnect()
                self._awake.wait()
                self._idle_since = time.monotonic()
        time.sleep(_LOOK)

    def _wait(self, watched: Watched) -> None:
        """Until there is news of a stop, much to store, or it is time to look."""
        raw = self._connected()
        until = time.monotonic() + _FLUSH
        while self._current is watched and (left := until - time.monotonic()) > 0:
            if watched.sink.ready.is_set():
                return
            if select.select([raw.fileno()], [], [], min(left, 0.05))[0]:
                raw.pgconn.consume_input()
                while raw.pgconn.notifies() is not None:
                    pass
                return

    def _look(self, watched: Watched) -> None:
        """Store what was printed, and read what the record says of this execution."""
        watched.sink.flush()
        if watched.unused is not None and time.monotonic() - watched.began > _LONG:
            watched.unused.close()
            watched.unused = None
        row = (
            self._connected()
            .execute(
                "SELECT state FROM scheduling_instance WHERE id = %s AND token = %s",
                [watched.claim.instance, watched.claim.token],
                prepare=True,
            )
            .fetchone()
        )
        if (row is None or row[0] != InstanceState.RUNNING) and not watched.stop.is_set():
            # Asked to stop – or fenced: somebody else owns the instance now, and this run must not go on.
            watched.asked_at = time.monotonic()
            watched.stop.set()

    def store(self, execution_id: int, token: UUID, sequence: int, text: str, dropped_bytes: int) -> None:
        """Write one chunk of a log, from this thread or the main one, each on its own connection.

        An execution that has ended takes no more: what a fenced worker still prints changes nothing.
        """
        chunk = {
            "execution": execution_id,
            "token": token,
            "sequence": sequence,
            "text": text,
            "dropped": dropped_bytes,
        }
        if threading.current_thread() is self:
            self._connected().execute(_STORE, chunk, prepare=True)
        else:
            transitions.execute(_STORE, chunk)

    def _insist(self, watched: Watched) -> None:
        """A job that was asked to stop and does not is interrupted, and in the end killed with its worker."""
        if watched.asked_at is None:
            return
        grace = settings.TAILRACE["STOP_GRACE"]
        waited = time.monotonic() - watched.asked_at
        if waited > grace and not watched.interrupted:
            watched.interrupted = True
            signal.pthread_kill(threading.main_thread().ident or 0, _INTERRUPT)
        elif waited > 2 * grace + 2:
            logger.warning("execution %s does not stop; killing its worker", watched.started.execution_id)
            os.kill(os.getpid(), signal.SIGKILL)

    def _interrupt(self, _signal: int, _frame: object) -> None:
        watched = self._current
        # The job that it was meant for may have ended at this moment, and the worker's next one have begun.
        if watched is not None and watched.interruptible and watched.interrupted:
            raise JobStopped

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            parameters = django_connection.get_connection_params()
            parameters.pop("cursor_factory", None)
            parameters.pop("context", None)
            parameters.pop("prepare_threshold", None)
            self._connection = psycopg.connect(**parameters, autocommit=True)
            sessions.prepare(self._connection)
            self._connection.execute(f"LISTEN {transitions.STOP_CHANNEL}")
        return self._connection

    def _disconnect(self) -> None:
        with suppress(psycopg.Error):
            if self._connection is not None:
                self._connection.close()
        self._connection = None
