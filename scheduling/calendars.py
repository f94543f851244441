"""When a task is due: cron and fixed rate, in its own time zone. Pure arithmetic, no database.

**Cron** has five fields, or six with the seconds first. Where the clocks change it keeps the rules of Debian's
cron, by the two kinds of expression:

- *Times of day* – neither minute nor hour begins with `*`, as in `30 2 * * *`. Due once for each time: one
  that the clocks jump over is due the moment after the jump, one that they show twice is due the first time.
- *Repetition* – minute or hour begins with `*`, as in `*/15 * * * *` or `0 * * * *`. Due as time passes: what
  the clocks jump over is not due, what they show twice is due twice.

cronsim matches expressions against wall clocks without a zone here, and the zone's rules are applied to what
it finds: its own handling of zones takes every change for a whole hour, which Lord Howe Island's is not.

**Fixed rate** has no clock: every due time is the one before it plus the interval, so any due time says where
the grid lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim

_DAY = timedelta(days=1)
_MOMENT = timedelta(microseconds=1)


class Schedule(Protocol):
    """What decides when something is due; a TaskRevision is one.

    `interval` is in seconds. A bad `cron` raises CronSimError and an unknown `timezone` ZoneInfoNotFoundError;
    validation keeps both out of the database.
    """

    @property
    def trigger(self) -> str: ...
    @property
    def cron(self) -> str: ...
    @property
    def interval(self) -> int | None: ...
    @property
    def timezone(self) -> str: ...


def next_due(schedule: Schedule, after: datetime) -> datetime | None:
    """The first due time later than `after` (aware), in UTC; None when there is none within fifty years.

    At a fixed rate `after` is the due time before, or the moment at which the grid begins.
    """
    if schedule.trigger == "cron":
        return _next_of_cron(schedule.cron, ZoneInfo(schedule.timezone), after)
    if schedule.trigger == "fixed_rate" and schedule.interval:
        return after.astimezone(UTC) + timedelta(seconds=schedule.interval)
    return None


def previous_due(schedule: Schedule, before: datetime) -> datetime | None:
    """The last due time earlier than `before`, in UTC; at a fixed rate `before` must be a due time itself."""
    if schedule.trigger == "cron":
        return _previous_of_cron(schedule.cron, ZoneInfo(schedule.timezone), before)
    if schedule.trigger == "fixed_rate" and schedule.interval:
        return before.astimezone(UTC) - timedelta(seconds=schedule.interval)
    return None


def latest_due(schedule: Schedule, due: datetime, until: datetime) -> datetime:
    """The last due time not later than `until`, on the grid of `due`, which is a due time at or before it."""
    if schedule.trigger == "fixed_rate" and schedule.interval:
        interval = timedelta(seconds=schedule.interval)
        return due + (until - due) // interval * interval
    return max(due, previous_due(schedule, until + _MOMENT) or due)


def next_on_grid(schedule: Schedule, due: datetime | None, at: datetime) -> datetime | None:
    """The first due time after `at` on the grid of `due`, a due time; without one, the grid begins at `at`."""
    if due is None or due > at:
        return due or next_due(schedule, at)
    return next_due(schedule, latest_due(schedule, due, at))


def due_between(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """Every due time later than `after` and not later than `until`, one at a time and in order."""
    if schedule.trigger == "cron":
        yield from takewhile(lambda due: due <= until, _walk(schedule.cron, ZoneInfo(schedule.timezone), after))
        return
    due = next_due(schedule, after)
    while due is not None and due <= until:
        yield due
        due = next_due(schedule, due)


def period(schedule: Schedule, at: datetime) -> timedelta | None:
    """How far the last due time up to `at` is from the one before, on the wall clock of the schedule's zone.

    So a day is 24 hours also when the clocks change. None when nothing is scheduled.
    """
    if schedule.trigger == "fixed_rate" and schedule.interval:
        return timedelta(seconds=schedule.interval)
    zone = ZoneInfo(schedule.timezone)
    latest = previous_due(schedule, at + _MOMENT)
    earlier = latest and previous_due(schedule, latest)
    return _wall(latest, zone) - _wall(earlier, zone) if latest and earlier else None


def data_date(schedule: Schedule, scheduled_for: datetime) -> date:
    """The local date of the data that a run works on: one period before its due time.

    That is the field's habit: what runs daily at 01:00 works on yesterday, what runs hourly at 00:00 on
    yesterday's last hour. Without a schedule it is the day before.
    """
    back = period(schedule, scheduled_for)
    # Nothing (not None) where the clocks show an hour again: that run works on the hour's first pass.
    return (_wall(scheduled_for, ZoneInfo(schedule.timezone)) - (_DAY if back is None else back)).date()


def offset(zone: str, at: datetime) -> timedelta:
    """How far the clocks of `zone` are ahead of UTC at `at`."""
    return at.astimezone(ZoneInfo(zone)).utcoffset() or timedelta(0)


def change_within(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """When the clocks of `zone` change between two moments that one change lies between.

    It is the first second later than `low` and not later than `high` with the zone's offset at `high`, in UTC.
    """
    after = high.astimezone(zone).utcoffset()
    early, late = int(low.timestamp()), int(high.timestamp())
    while late - early > 1:
        middle = (early + late) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == after:
            late = middle
        else:
            early = middle
    return datetime.fromtimestamp(late, UTC)


# --- cron over a change of the clocks --------------------------------------------------------------


def _walk(expression: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Every due time later than `after`, in order, until the expression has none within fifty years."""
    # When the clocks are about to go back, begin with whatever they show again.
    change = _second_pass(zone, after) if _repeats(expression) else None
    begin = _wall(change, zone) - timedelta(seconds=1) if change else _wall(after, zone)
    again: list[datetime] = []  # due the second time round, after all that is due the first
    for match in CronSim(expression, begin):
        first, *second = _instants(expression, zone, match) or [after]
        for due in [first] if second else [*again, first]:
            if due > after:
                yield due
                after = due
        again = [*again, *second] if second else []


# Tasks share expressions and due times, and the instances of a batch its data date.
@lru_cache(4096)
def _next_of_cron(expression: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    return next(_walk(expression, zone, after), None)


@lru_cache(4096)
def _previous_of_cron(expression: str, zone: ZoneInfo, before: datetime) -> datetime | None:
    for match in CronSim(expression, _wall(before, zone), reverse=True):
        earlier = [instant for instant in _instants(expression, zone, match) if instant < before]
        if earlier:
            found = earlier[-1]
            break
    else:
        return None
    # While the clocks show an hour again, later wall times of its first pass are earlier: walk to the last.
    while (following := _next_of_cron(expression, zone, found)) is not None and following < before:
        found = following
    return found


def _repeats(expression: str) -> bool:
    """Whether it is a repetition, not a list of times of day (see above)."""
    minute_and_hour = expression.split()[-5:-3]
    return any(each.startswith("*") for each in minute_and_hour)


def _instants(expression: str, zone: ZoneInfo, wall: datetime) -> list[datetime]:
    """When the expression, matched by the wall clock `wall`, is due: never, once or twice, in order."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return [first]
    if first < second:
        return [first, second] if _repeats(expression) else [first]
    return [] if _repeats(expression) else [change_within(zone, second, first)]


def _second_pass(zone: ZoneInfo, at: datetime) -> datetime | None:
    """When the clocks go back to before what they show at `at`, if they do that next."""
    again = at.astimezone(zone).replace(fold=1).astimezone(UTC)
    return change_within(zone, at, again) if again > at else None


def _wall(at: datetime, zone: ZoneInfo) -> datetime:
    """What a clock in `zone` shows at `at`."""
    return at.astimezone(zone).replace(tzinfo=None, fold=0)
