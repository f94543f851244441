"""When a workflow's cycles are, which data each works on, and which upstream cycles that makes it need.

Pure arithmetic, no database. `scheduling.calendars` says when cron is due and what a change of the clocks does
to that; a due time of a workflow is a **slot**, and the cycle there bears it as its *cycle time*.

**Data.** A cycle works on what came before it: from where the data of the cycle before ended to where its own
ends. That is the cycle time, cut down on the wall clock of the calendar's zone to

- the beginning of the day when the cron names one time of day: `0 1 * * *`, `0 2 * * MON-FRI`, `0 4 1 */3 *`,
- the beginning of the hour when it names one minute of several hours: `5 * * * *`, `0 6,18 * * *`,
- nothing when it names several minutes: `*/15 * * * *`.

So what runs daily at 01:00 works on yesterday; at five past every hour, on the clock hour before; on Mondays,
on last Monday to Sunday; on the 1st, on the calendar month before; on the 31st, on all since there last was a
31st. No two cycles share data and none is left out, whatever the clocks do:

- A day has 23 or 25 hours where they change by one, each with its own cycle.
- A day begins with its first midnight, or when the clocks jump over that.
- A time of day that was jumped over stands for its own day, also when it came due on the next. Apia had no
  30 December 2011: that day's cycle, due as the 31st began, works on the 29th, and the 31st's on nothing: its
  period is empty.
- Clocks that go back within an hour begin a new one: Lord Howe Island has a half hour more, and a cycle for it
  when the cron's minute is shown again.
- A time that is no slot (a test run by hand) works on the newest whole period that is over.

**Upstream.** Instants decide, so zones may differ. A cycle lies in the period that has the *middle* of its
data, as a week belongs to the year of its Thursday. Beginnings would not do: a summer's day of London begins in
UTC's day before, and `5-59/15 * * * *` would wait for the cycle of `*/15 * * * *` after it, not for the one
before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim

from scheduling import calendars

_MOMENT = timedelta(microseconds=1)
_FOREVER = datetime.max.replace(tzinfo=UTC)


class Calendar(Protocol):
    """When a workflow is due; a WorkflowRevision is one. An empty `cron` means that no clock makes its cycles.

    A bad `cron` raises CronSimError and an unknown `timezone` ZoneInfoNotFoundError; validation keeps both out
    of the database.
    """

    @property
    def cron(self) -> str: ...
    @property
    def timezone(self) -> str: ...


class Grain(StrEnum):
    """How often a calendar's cycles come."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    INTERVAL = "interval"


class Offset(StrEnum):
    """Which cycles of an upstream workflow a cycle waits for."""

    SAME = "same"
    PREVIOUS = "previous"
    LAST = "last"
    WITHIN_PERIOD = "within_period"


@dataclass(frozen=True, slots=True)
class Period:
    """The data of a cycle: from `start` up to but not including `end`, aware instants in UTC."""

    start: datetime
    end: datetime

    @property
    def middle(self) -> datetime:
        return self.start + (self.end - self.start) / 2

    def __contains__(self, at: datetime) -> bool:
        return self.start <= at < self.end


# --- slots -----------------------------------------------------------------------------------------


def slots(calendar: Calendar, after: datetime, until: datetime) -> Iterator[datetime]:
    """Every cycle time later than `after` and not later than `until`, in UTC, one at a time and in order."""
    return calendars.due_between(_cron(calendar), after, until)


def next_slot(calendar: Calendar, after: datetime) -> datetime | None:
    """The first cycle time later than `after`; None when none ever comes."""
    return calendars.next_due(_cron(calendar), after)


def latest_slot(calendar: Calendar, at: datetime) -> datetime | None:
    """The last cycle time not later than `at`."""
    return calendars.previous_due(_cron(calendar), at + _MOMENT)


def previous_slot(calendar: Calendar, before: datetime) -> datetime | None:
    """The last cycle time earlier than `before`."""
    return calendars.previous_due(_cron(calendar), before)


def is_slot(calendar: Calendar, at: datetime) -> bool:
    """Whether the calendar has a cycle at exactly `at`."""
    return next_slot(calendar, at - _MOMENT) == at


# --- data ------------------------------------------------------------------------------------------


def grain(calendar: Calendar) -> Grain | None:
    """How often the cycles come: once each hour, day, week or month, or else by intervals; None without cron.

    Told by what the cron matches, not by how it is written: `0 0-23 * * *` is hourly. A month's last day, its
    last Friday and its second Monday are monthly.
    """
    return _pattern(calendar.cron).grain if calendar.cron else None


def data_period(calendar: Calendar, cycle_time: datetime) -> Period:
    """What the cycle at `cycle_time` works on (see the module); without a schedule, the calendar day before."""
    return _data_period(_cron(calendar), cycle_time.astimezone(UTC))


def data_date(calendar: Calendar, cycle_time: datetime) -> date:
    """The date in the calendar's zone at which the data of the cycle at `cycle_time` begins."""
    return data_period(calendar, cycle_time).start.astimezone(ZoneInfo(calendar.timezone)).date()


def slots_of_data(
    calendar: Calendar,
    first: date,
    last: date,
    until: datetime,
    *,
    first_time: time | None = None,
    last_time: time | None = None,
) -> tuple[datetime, datetime] | None:
    """The first and the last cycle time up to `until` whose data dates lie from `first` to `last`.

    With `first_time`, data begins at that time of the first date or later; with `last_time`, before that time
    of the last. Both are on the clocks of the calendar's zone.
    """
    zone = ZoneInfo(calendar.timezone)
    since = datetime.combine(first, first_time, zone) if first_time else None
    before = datetime.combine(last, last_time, zone) if last_time is not None else None
    found: tuple[datetime, datetime] | None = None
    # Data is dated by its beginning, so that no cycle comes before the day of its data does.
    for slot in slots(calendar, _midnight(zone, first) - _MOMENT, until):
        begin, day = data_period(calendar, slot).start, data_date(calendar, slot)
        if day > last or (before is not None and begin >= before):
            break
        if day >= first and (since is None or begin >= since):
            found = (found[0] if found else slot, slot)
    return found


# --- upstream --------------------------------------------------------------------------------------


def upstream_slots(
    offset: Offset,
    count: int,
    *,
    downstream: Calendar,
    cycle_time: datetime,
    upstream: Calendar,
    since: datetime | None,
) -> list[datetime]:
    """Which cycle times of `upstream` the cycle of `downstream` at `cycle_time` waits for, in order.

    - SAME: the upstream's cycle for the same data. Where it is finer, all its cycles there; where it is
      coarser, the one that has the middle of the downstream's data. Only without a schedule there is none.
    - WITHIN_PERIOD: all whose data lies in the downstream's; mostly none where the upstream is coarser.
    - LAST: the newest `count` not later than `cycle_time`; ValueError when `count` is less than 1.
    - PREVIOUS: the newest earlier than `cycle_time`, as for a workflow that waits for its own last cycle.

    Only LAST reads `count`. The upstream begins to exist at `since` (None: it always did): slots not later than
    that are left out. With SAME and WITHIN_PERIOD a slot may be later than `cycle_time`: what runs at 01:00 may
    wait for what runs at 03:00.
    """
    above = _cron(upstream)
    period = data_period(downstream, cycle_time)
    found: tuple[datetime, ...]
    match offset:
        case Offset.SAME:
            alike = grain(downstream) == grain(upstream) != Grain.INTERVAL
            found = (() if alike else _within(above, period)) or _covering(above, period)
        case Offset.WITHIN_PERIOD:
            found = _within(above, period)
        case Offset.LAST:
            found = _newest(above, count, cycle_time + _MOMENT)
        case Offset.PREVIOUS:
            found = _newest(above, 1, cycle_time)
    return [slot for slot in found if since is None or slot > since]


# --- how -------------------------------------------------------------------------------------------


class _Cron(NamedTuple):
    """A calendar as `scheduling.calendars` reads it, and as a key of caches."""

    trigger: str
    cron: str
    timezone: str
    interval: int | None = None


class _Pattern(NamedTuple):
    """What a cron expression amounts to."""

    grain: Grain
    cut: Grain  # what a cycle time is cut down to, where the data ends: DAY, HOUR or INTERVAL (not at all)
    time_of_day: time  # for a cut to DAY


def _cron(calendar: Calendar) -> _Cron:
    return _Cron("cron" if calendar.cron else "workflow", calendar.cron, calendar.timezone)


@lru_cache(1024)
def _pattern(expression: str) -> _Pattern:
    fields = CronSim(expression, _FOREVER)
    if len(fields.seconds) > 1 or len(fields.minutes) > 1:
        return _Pattern(Grain.INTERVAL, Grain.INTERVAL, time.min)
    weekdays = {each if isinstance(each, tuple) else each % 7 for each in fields.weekdays}
    every_month, every_date, any_weekday = len(fields.months) == 12, len(fields.days) == 31, len(weekdays) == 7
    if len(fields.hours) > 1:
        hourly = len(fields.hours) == 24 and every_month and every_date and any_weekday
        return _Pattern(Grain.HOUR if hourly else Grain.INTERVAL, Grain.HOUR, time.min)
    at = time(min(fields.hours), min(fields.minutes), min(fields.seconds))
    grain = Grain.INTERVAL
    if every_month and every_date and any_weekday:
        grain = Grain.DAY
    elif every_month and every_date and len(weekdays) == 1:
        grain = Grain.MONTH if isinstance(min(weekdays), tuple) else Grain.WEEK
    elif every_month and any_weekday and len(fields.days) == 1:
        grain = Grain.MONTH
    return _Pattern(grain, Grain.DAY, at)


@lru_cache(16384)
def _data_period(calendar: _Cron, at: datetime) -> Period:
    slot = at if is_slot(calendar, at) else _newest_over(calendar, at)
    before = slot and previous_slot(calendar, slot)
    if slot and before:
        return Period(_edge(calendar, before), _edge(calendar, slot))
    zone = ZoneInfo(calendar.timezone)
    end = _midnight(zone, at.astimezone(zone).date())
    return Period(_midnight(zone, (end - _MOMENT).astimezone(zone).date()), end)


def _newest_over(calendar: _Cron, at: datetime) -> datetime | None:
    """The slot of the newest data that is over at `at`: today's at night too, before it is due."""
    following = next_slot(calendar, at)
    return following if following and _edge(calendar, following) <= at else latest_slot(calendar, at)


def _edge(calendar: _Cron, slot: datetime) -> datetime:
    """Where the data of the cycle at `slot` ends (see the module)."""
    pattern, zone = _pattern(calendar.cron), ZoneInfo(calendar.timezone)
    wall = slot.astimezone(zone)
    if pattern.cut is Grain.DAY:
        # A time that the clocks jumped over is due when they have, which may be the day after.
        return _midnight(zone, wall.date() - timedelta(days=wall.time() < pattern.time_of_day))
    if pattern.cut is Grain.HOUR:
        begin = slot - timedelta(minutes=wall.minute, seconds=wall.second)
        changed = begin.astimezone(zone).utcoffset() != wall.utcoffset()
        return calendars.change_within(zone, begin, slot) if changed else begin
    return slot


def _midnight(zone: ZoneInfo, day: date) -> datetime:
    """When `day` begins in `zone`: at its first midnight, or when the clocks jump over that."""
    first, second = (datetime.combine(day, time(fold=fold), zone).astimezone(UTC) for fold in (0, 1))
    return first if first <= second else calendars.change_within(zone, second, first)


def _cycles(calendar: _Cron, after: datetime) -> Iterator[tuple[datetime, Period]]:
    """The slots later than `after` with their data, in order, without end."""
    before = previous_slot(calendar, after + _MOMENT)
    if before is None:
        return
    start = _edge(calendar, before)
    for slot in calendars.due_between(calendar, after, _FOREVER):
        end = _edge(calendar, slot)
        yield slot, Period(start, end)
        start = end


# Many workflows wait for the same hours of the same day.
@lru_cache(512)
def _within(calendar: _Cron, period: Period) -> tuple[datetime, ...]:
    """The slots whose data has its middle in `period`."""
    found = []
    # A slot is never earlier than the end of its data; of an empty period, it may be the start of this one.
    for slot, data in _cycles(calendar, period.start - _MOMENT):
        if data.middle >= period.end:
            break
        if data.middle >= period.start:
            found.append(slot)
    return tuple(found)


@lru_cache(4096)
def _covering(calendar: _Cron, period: Period) -> tuple[datetime, ...]:
    """The one slot with the data of `period`, or else with its middle."""
    for slot, data in _cycles(calendar, period.start - _MOMENT):
        if data == period or period.middle in data:
            return (slot,)
    return ()


def _newest(calendar: _Cron, count: int, before: datetime) -> tuple[datetime, ...]:
    """The newest `count` slots earlier than `before`, in order."""
    if count < 1:
        raise ValueError(f"The number of cycles to wait for is {count}; it must be at least 1.")
    found: list[datetime] = []
    slot = previous_slot(calendar, before)
    while slot is not None and len(found) < count:
        found.append(slot)
        slot = previous_slot(calendar, slot)
    return tuple(reversed(found))
