"""What the tests of periods share: calendars, moments and zones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from workflows import periods

NEW_YORK, BERLIN, LONDON, SHANGHAI = "America/New_York", "Europe/Berlin", "Europe/London", "Asia/Shanghai"
LORD_HOWE, CAIRO, NUUK, APIA = "Australia/Lord_Howe", "Africa/Cairo", "America/Nuuk", "Pacific/Apia"


@dataclass(frozen=True)
class Calendar:
    """A calendar, and enough of a task's schedule to ask `calendars` the same."""

    cron: str = ""
    timezone: str = "UTC"
    trigger: str = "cron"
    interval: int | None = None


def at(text: str) -> datetime:
    """A moment from ISO text with its offset; without one it is UTC."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def upstream(offset, downstream, cycle_time, above, *, count=1, since=None):
    return periods.upstream_slots(
        offset, count, downstream=downstream, cycle_time=cycle_time, upstream=above, since=since
    )
