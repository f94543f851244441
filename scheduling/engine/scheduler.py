"""The scheduler process: one leads, any number stand by and take over the moment it is gone.

The lead (`engine.lead`) saves needless work and nothing more: that a trigger fires once rests on the row locks
of `triggers.fire_due`, which hold also while two believe that they lead.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from django.contrib.sessions.backends.db import SessionStore
from django.db import Error as DjangoDatabaseError
from django.db import close_old_connections, connection

from config import clock
from scheduling import notifications
from scheduling.engine import recovery, triggers
from scheduling.engine import steps as added
from scheduling.engine.lead import STANDBY_SECONDS, Lead
from scheduling.engine.steps import Source, Step
from scheduling.services import retention

logger = logging.getLogger(__name__)

# Everything that changes a due time sends a NOTIFY; this is the net under it.
POLL_SECONDS = 10.0
# Tasks fired in one transaction: a busy minute costs few commits, and a kill undoes half a second at most.
ROUND = 500
# Due tasks that somebody else holds locked for the moment are tried again after this.
LOCKED_SECONDS = 0.05


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
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self._lead = Lead(self._rouse)

    @property
    def leads(self) -> bool:
        """Whether this scheduler leads now."""
        return self._lead.leads

    def stop(self) -> None:
        """Ask it to end after the transaction it is in."""
        self._stopping = True
        self._rouse()

    def _rouse(self) -> None:
        # Full: it is awake already; closed: it has ended.
        with suppress(OSError):
            self._waker.send(b"\0")

    def run(self) -> None:
        """Stand by, lead, and come back after every loss of the lead, until `stop`."""
        self._lead.start()
        try:
            while not self._stopping:
                self._lead.idle = not self.leads
                if self._lead.idle:
                    self._wait(POLL_SECONDS)
                    continue
                with self._beside():
                    while self.leads and not self._stopping:
                        self._wait(self._work())
        finally:
            self._lead.stop()
            connection.close()
            self._wake.close()
            self._waker.close()

    def _work(self) -> float:
        """Do what is due, triggers first, and return for how many seconds there is nothing to do."""
        fired = [self._guarded(source.name, source.run) for source in self._sources]
        now = time.monotonic()
        for step, due in self._due.items():
            if due <= now and not self._stopping:
                again = self._guarded(step.name, step.run)
                self._due[step] = now if again else now + step.seconds
        if None not in fired:
            self._lead.round_done()
        if any(fired) or self._stopping:
            return 0.0
        if None in fired:
            return STANDBY_SECONDS
        return max(min(self._until_due(), min(self._due.values(), default=now) - time.monotonic()), 0.0)

    def _until_due(self) -> float:
        try:
            known = [at for source in self._sources if (at := source.next_due_at()) is not None]
            now = clock.now()
        except DjangoDatabaseError:
            connection.close()
            return STANDBY_SECONDS
        if not known:
            return POLL_SECONDS
        left = (min(known) - now).total_seconds()
        return min(left, POLL_SECONDS) if left > 0 else LOCKED_SECONDS

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
        finally:
            self._lead.step_done()
        return None

    def _wait(self, seconds: float) -> None:
        """Sleep until `seconds` passed, `stop` was called, the lead changed or the schedule did."""
        if seconds > 0 and not self._stopping:
            select.select([self._wake], [], [], seconds)
        with suppress(BlockingIOError):
            self._wake.recv(4096)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
