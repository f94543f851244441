"""The scheduler process: one leads, any number stand by and take over the moment it is gone.

The lead (`engine.lead`) saves needless work and nothing more: that a trigger fires once rests on the row locks
of `triggers.fire_due`, which hold also while two believe that they lead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.contrib.sessions.backends.db import SessionStore
from django.db import connection

from config import sessions
from scheduling import notifications
from scheduling.engine import recovery, triggers
from scheduling.engine import steps as added
from scheduling.engine.lead import Lead
from scheduling.engine.loop import POLL_SECONDS, Loop
from scheduling.engine.steps import Source, Step
from scheduling.services import retention

# Tasks fired in one transaction: a busy minute costs few commits, and a kill undoes half a second at most.
ROUND = 500
# Firing waits for no lock that others hold; what it cannot have now stays due.
IMPATIENT = {"lock_timeout": "100ms"}


def _forget_sessions() -> int:
    """Remove what is left of sessions that nobody will come back to. Returns 0: it is done for the hour."""
    SessionStore.clear_expired()
    return 0


SOURCES: Sequence[Source] = (
    Source("fire what is due", lambda: triggers.fire_due(limit=ROUND), triggers.next_due_at, apart=True),
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
        every = (*SOURCES, *added.SOURCES) if sources is None else sources
        steps = (*STEPS, *added.STEPS) if steps is None else steps
        self._beside = beside
        self._stopping = False
        # Triggers wait for nobody: what workflows, reruns and housekeeping wait for is not theirs.
        self._apart = [Loop([source], (), self._goes_on) for source in every if source.apart]
        self._main = Loop([source for source in every if not source.apart], steps, self._goes_on)
        self._lead = Lead(self._rouse, [loop.pulse for loop in (*self._apart, self._main)])

    @property
    def leads(self) -> bool:
        """Whether this scheduler leads now."""
        return self._lead.leads

    def stop(self) -> None:
        """Ask it to end after the transaction it is in."""
        self._stopping = True
        self._rouse()

    def _goes_on(self) -> bool:
        return self.leads and not self._stopping

    def _rouse(self) -> None:
        for loop in (*self._apart, self._main):
            loop.rouse()

    def run(self) -> None:
        """Stand by, lead, and come back after every loss of the lead, until `stop`."""
        self._lead.start()
        try:
            while not self._stopping:
                self._lead.idle = not self.leads
                if self._lead.idle:
                    self._main.sleep(POLL_SECONDS)
                    continue
                with self._beside(), self._loops_apart():
                    self._main.run()
        finally:
            self._lead.stop()
            connection.close()
            for loop in (*self._apart, self._main):
                loop.close()

    @contextmanager
    def _loops_apart(self) -> Iterator[None]:
        threads = [threading.Thread(target=_run_apart, args=[loop], name="triggers") for loop in self._apart]
        for thread in threads:
            thread.start()
        try:
            yield
        except BaseException:
            self.stop()
            raise
        finally:
            for thread in threads:
                thread.join()


def _run_apart(loop: Loop) -> None:
    sessions.limit_thread(IMPATIENT)
    try:
        loop.run()
    finally:
        connection.close()
