"""A loop of the leading scheduler: does what falls due and the housekeeping, and sleeps until there is more."""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from django.db import Error as DjangoDatabaseError
from django.db import close_old_connections, connection

from config import clock
from scheduling.engine.lead import STANDBY_SECONDS, Pulse
from scheduling.engine.steps import Source, Step

logger = logging.getLogger("scheduling.engine.scheduler")

# Everything that changes a due time sends a NOTIFY; this is the net under it.
POLL_SECONDS = 10.0
# Due things that somebody else holds locked for the moment are tried again after this.
LOCKED_SECONDS = 0.05


class Loop:
    """Runs its sources and steps in the thread that calls `run`; `rouse` may be called by any thread."""

    def __init__(self, sources: Sequence[Source], steps: Sequence[Step], goes_on: Callable[[], bool]) -> None:
        """`goes_on` is asked before each piece of work and each sleep."""
        self._sources = sources
        self._due = dict.fromkeys(steps, 0.0)
        self._goes_on = goes_on
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self.pulse = Pulse()

    def run(self) -> None:
        """Work as long as it goes on."""
        while self._goes_on():
            self.sleep(self._work())

    def rouse(self) -> None:
        """End the sleep, now or the next one."""
        # Full: it is awake already; closed: it has ended.
        with suppress(OSError):
            self._waker.send(b"\0")

    def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, or until roused."""
        if seconds > 0:
            select.select([self._wake], [], [], seconds)
        with suppress(BlockingIOError):
            self._wake.recv(4096)

    def close(self) -> None:
        self._wake.close()
        self._waker.close()

    def _work(self) -> float:
        """Do what is due, and return for how many seconds there is nothing to do."""
        done = [self._guarded(source.name, source.run) for source in self._sources]
        now = time.monotonic()
        for step, due in self._due.items():
            if due <= now and self._goes_on():
                again = self._guarded(step.name, step.run)
                self._due[step] = now if again else now + step.seconds
        if None not in done:
            self.pulse.round_done()
        if any(done) or not self._goes_on():
            return 0.0
        if None in done:
            return STANDBY_SECONDS
        until_step = min(self._due.values(), default=now + POLL_SECONDS) - time.monotonic()
        return max(min(self._until_due(), until_step), 0.0)

    def _until_due(self) -> float:
        try:
            known = [at for source in self._sources if (at := source.next_due_at()) is not None]
            if not known:
                return POLL_SECONDS
            left = (min(known) - clock.now()).total_seconds()
        except DjangoDatabaseError:
            connection.close()
            return STANDBY_SECONDS
        return min(left, POLL_SECONDS) if left > 0 else LOCKED_SECONDS

    def _guarded(self, name: str, run: Callable[[], int]) -> int | None:
        """What `run` returns, or None when it failed: one step's failure is not the others'."""
        try:
            return int(run())
        except DjangoDatabaseError as error:
            logger.warning("Could not %s: %s", name, " ".join(str(error).split()))
            # Closed even when it works: its prepared statements may be obsolete after a migrate.
            connection.close()
        except Exception:
            logger.exception("Could not %s", name)
            close_old_connections()
        finally:
            self.pulse.step_done()
        return None
