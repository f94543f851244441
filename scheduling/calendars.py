"""When a task is due: cron and fixed rate, in its own time zone. Pure arithmetic, no database."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim


class Schedule(Protocol):
    """What decides when something is due; a TaskRevision is one."""

    trigger: str
    cron: str
    interval: int | None
    timezone: str


def next_due(schedule: Schedule, after: datetime) -> datetime | None:
    """The first due time later than `after` (aware), or None when nothing is scheduled."""
    if schedule.trigger == "cron":
        zone = ZoneInfo(schedule.timezone)
        return next(CronSim(schedule.cron, after.astimezone(zone))).astimezone(UTC)
    if schedule.trigger == "fixed_rate" and schedule.interval:
        return after + timedelta(seconds=schedule.interval)
    return None


def data_date(schedule: Schedule, scheduled_for: datetime) -> date:
    return (scheduled_for.astimezone(ZoneInfo(schedule.timezone)) - timedelta(days=1)).date()
