"""The database's clock, by which everything falls due on every machine.

Clocks of machines differ and jump. The database is asked for its time every few seconds; in between, the
kernel's time since boot is added, which nobody can set and which goes on through a suspend.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from django.db import connection

READ_AGAIN_SECONDS = 5.0
# A clock that is further off is not synchronised.
WARN_SECONDS = 2.0

_read: tuple[datetime, float] | None = None


def now() -> datetime:
    """The database's time; behind it by the milliseconds that the answer took, and never ahead.

    Raises django.db.Error when the database is to be asked and does not answer.
    """
    global _read
    known = _read
    if known is None or _since_boot() - known[1] >= READ_AGAIN_SECONDS:
        at = _ask()
        known = _read = (at, _since_boot())
    return known[0] + timedelta(seconds=_since_boot() - known[1])


def own() -> datetime:
    """The time by this machine's clock, to be compared with the database's."""
    return datetime.now(UTC)


def is_off(difference: float | None) -> bool:
    """Whether a clock that is `difference` seconds ahead of the database's needs a warning."""
    return difference is not None and abs(difference) > WARN_SECONDS


class Watch:
    """Says once when the clock of this machine goes off, and once when it is right again."""

    def __init__(self) -> None:
        self._was_off = False

    def __call__(self, difference: float | None) -> str:
        """A sentence for the log, or the empty string; `difference` in seconds."""
        if is_off(difference) == self._was_off:
            return ""
        self._was_off = not self._was_off
        if not self._was_off or difference is None:
            return "This machine's clock agrees with the database's again"
        return (
            f"This machine's clock is {abs(difference):.1f} s {direction(difference)} the database's. "
            "Schedules follow the database's clock; synchronise this one (NTP), since its logs tell wrong times"
        )


def direction(difference: float) -> str:
    return "ahead of" if difference > 0 else "behind"


def _ask() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        [at] = cursor.fetchone()
    return at


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
