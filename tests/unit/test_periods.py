"""Which data a cycle works on and what it waits for, against tables worked out by hand, and by laws."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from zoneinfo import ZoneInfo

import pytest

from scheduling import calendars
from tests.unit.period_support import (
    APIA,
    BERLIN,
    CAIRO,
    LONDON,
    LORD_HOWE,
    NEW_YORK,
    NUUK,
    SHANGHAI,
    Calendar,
    at,
    upstream,
)
from workflows import periods
from workflows.periods import Grain, Offset, Period

TORONTO = "America/Toronto"


# --- the grain -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 * * * *", Grain.HOUR),
        ("59 0-23 * * *", Grain.HOUR),
        ("30 5 */1 * * *", Grain.HOUR),
        ("0 0 * * *", Grain.DAY),
        ("30 2 1-31 * 0-6", Grain.DAY),
        ("15 30 2 * * *", Grain.DAY),
        ("0 4 * * MON", Grain.WEEK),
        ("0 4 * * 7", Grain.WEEK),
        ("0 4 * * 0,7", Grain.WEEK),
        ("0 4 1 * *", Grain.MONTH),
        ("0 4 31 * *", Grain.MONTH),
        ("0 4 L * *", Grain.MONTH),
        ("0 4 LW * *", Grain.MONTH),
        ("0 4 * * 1#2", Grain.MONTH),
        ("0 4 * * 5L", Grain.MONTH),
        ("*/15 * * * *", Grain.INTERVAL),
        ("*/30 0 0 * * *", Grain.INTERVAL),
        ("0 */2 * * *", Grain.INTERVAL),
        ("0 * * * MON", Grain.INTERVAL),
        ("0 2 * * MON-FRI", Grain.INTERVAL),
        ("0 2 1,15 * *", Grain.INTERVAL),
        ("0 2 1 */3 *", Grain.INTERVAL),
        ("0 2 1 * MON", Grain.INTERVAL),  # cron's either: every 1st, and every Monday
        ("0 2 * 6 *", Grain.INTERVAL),
        ("", None),
    ],
)
def test_the_grain_is_told_by_what_the_cron_matches(expression, expected):
    assert periods.grain(Calendar(expression)) == expected


# --- slots -----------------------------------------------------------------------------------------


def test_slots_are_after_the_first_moment_and_up_to_the_last_in_utc():
    found = list(periods.slots(Calendar("0 * * * *"), at("2025-06-01T01:00"), at("2025-06-01T03:00")))
    assert found == [at("2025-06-01T02:00"), at("2025-06-01T03:00")]
    assert all(slot.tzinfo is UTC for slot in found)


def test_the_slots_about_a_moment():
    daily, slot = Calendar("0 1 * * *", BERLIN), at("2025-06-10T01:00+02:00")
    before, after = slot - timedelta(days=1), slot + timedelta(days=1)
    assert periods.is_slot(daily, slot)
    assert not periods.is_slot(daily, slot + timedelta(microseconds=1))
    assert not periods.is_slot(daily, slot - timedelta(seconds=1))
    assert periods.next_slot(daily, slot) == after
    assert periods.next_slot(daily, slot - timedelta(microseconds=1)) == slot
    assert periods.latest_slot(daily, slot) == slot
    assert periods.latest_slot(daily, slot - timedelta(microseconds=1)) == before
    assert periods.previous_slot(daily, slot) == before
    assert periods.previous_slot(daily, slot + timedelta(microseconds=1)) == slot


@pytest.mark.parametrize("expression", ["", "0 0 */16 2 MON#2"])
def test_a_calendar_without_a_schedule_or_that_is_never_due_has_no_slots(expression):
    calendar, moment = Calendar(expression), at("2025-06-10")
    assert list(periods.slots(calendar, at("1970-01-01"), at("2040-01-01"))) == []
    assert periods.next_slot(calendar, moment) is None
    assert periods.latest_slot(calendar, moment) is None
    assert periods.previous_slot(calendar, moment) is None
    assert not periods.is_slot(calendar, moment)
    assert periods.data_period(calendar, moment) == Period(at("2025-06-09"), moment)
    for offset in Offset:
        assert upstream(offset, Calendar("0 0 * * *"), moment, calendar) == []


# --- data ------------------------------------------------------------------------------------------

# (zone, cron, cycle time, its data from, to). The changes of the clocks:
# New York   2025: 9 March, 02:00 -05:00 to -04:00; 2 November, 02:00 back
# Lord Howe  2025: 5 October, 02:00 +10:30 to +11:00; 6 April, 02:00 back; half an hour
# Cairo      2025: 25 April, 00:00 +02:00 to +03:00
# Havana     2025: 2 November, 01:00 back to 00:00, -04:00 to -05:00
# Nuuk       2024: 30 March, 23:00 -02:00 to the 31st, 00:00 -01:00
# Apia       2011: 30 December left out, -10:00 to +14:00
PERIODS = [
    # Daily: the day before, of 24, 23 and 25 hours.
    ("UTC", "0 1 * * *", "2025-06-10T01:00", "2025-06-09T00:00", "2025-06-10T00:00"),
    ("UTC", "30 0 1 * * *", "2025-06-10T01:00:30", "2025-06-09T00:00", "2025-06-10T00:00"),
    ("UTC", "0 0 * * *", "2024-03-01T00:00", "2024-02-29T00:00", "2024-03-01T00:00"),
    (NEW_YORK, "0 1 * * *", "2025-03-10T01:00-04:00", "2025-03-09T00:00-05:00", "2025-03-10T00:00-04:00"),
    (NEW_YORK, "0 1 * * *", "2025-11-03T01:00-05:00", "2025-11-02T00:00-04:00", "2025-11-03T00:00-05:00"),
    # Its time of day does not exist on the 9th, and exists twice on the 2nd.
    (NEW_YORK, "30 2 * * *", "2025-03-09T03:00-04:00", "2025-03-08T00:00-05:00", "2025-03-09T00:00-05:00"),
    (NEW_YORK, "30 1 * * *", "2025-11-02T01:30-04:00", "2025-11-01T00:00-04:00", "2025-11-02T00:00-04:00"),
    # Midnight does not exist, and exists twice.
    (CAIRO, "0 0 * * *", "2025-04-25T01:00+03:00", "2025-04-24T00:00+02:00", "2025-04-25T01:00+03:00"),
    (CAIRO, "0 9 * * *", "2025-04-26T09:00+03:00", "2025-04-25T01:00+03:00", "2025-04-26T00:00+03:00"),
    (
        "America/Havana",
        "0 6 * * *",
        "2025-11-03T06:00-05:00",
        "2025-11-02T00:00-04:00",
        "2025-11-03T00:00-05:00",
    ),
    # Toronto's clocks once jumped from 23:30 to 00:30: the day begins there.
    (TORONTO, "0 6 * * *", "1919-04-01T06:00-04:00", "1919-03-31T00:30-04:00", "1919-04-01T00:00-04:00"),
    # The 30th's 23:30 does not exist and comes due as the 31st begins: it is the 30th's cycle all the same.
    (NUUK, "30 23 * * *", "2024-03-31T00:00-01:00", "2024-03-29T00:00-02:00", "2024-03-30T00:00-02:00"),
    (NUUK, "30 23 * * *", "2024-03-31T23:30-01:00", "2024-03-30T00:00-02:00", "2024-03-31T00:00-01:00"),
    # A whole day does not exist. Its own cycle comes due as the next begins, or is one with the next's.
    (APIA, "0 9 * * *", "2011-12-31T00:00+14:00", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00"),
    (APIA, "0 9 * * *", "2011-12-31T09:00+14:00", "2011-12-31T00:00+14:00", "2011-12-31T00:00+14:00"),
    (APIA, "0 9 * * *", "2012-01-01T09:00+14:00", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"),
    (APIA, "0 0 * * *", "2011-12-31T00:00+14:00", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00"),
    # Hourly: the clock hour before, whatever the minute.
    ("UTC", "0 * * * *", "2025-06-10T00:00", "2025-06-09T23:00", "2025-06-10T00:00"),
    ("UTC", "55 * * * *", "2025-06-10T00:55", "2025-06-09T23:00", "2025-06-10T00:00"),
    ("Asia/Kolkata", "5 * * * *", "2025-06-10T01:05+05:30", "2025-06-10T00:00+05:30", "2025-06-10T01:00+05:30"),
    # 02:00 does not exist: 03:00 follows 01:00. 01:00 exists twice: each has its hour.
    (NEW_YORK, "5 * * * *", "2025-03-09T03:05-04:00", "2025-03-09T01:00-05:00", "2025-03-09T03:00-04:00"),
    (NEW_YORK, "5 * * * *", "2025-03-09T04:05-04:00", "2025-03-09T03:00-04:00", "2025-03-09T04:00-04:00"),
    (NEW_YORK, "5 * * * *", "2025-11-02T01:05-04:00", "2025-11-02T00:00-04:00", "2025-11-02T01:00-04:00"),
    (NEW_YORK, "5 * * * *", "2025-11-02T01:05-05:00", "2025-11-02T01:00-04:00", "2025-11-02T01:00-05:00"),
    (NEW_YORK, "5 * * * *", "2025-11-02T02:05-05:00", "2025-11-02T01:00-05:00", "2025-11-02T02:00-05:00"),
    # Half an hour is shown twice: a cycle of its own when the minute is among them, else a longer hour.
    (LORD_HOWE, "45 * * * *", "2025-04-06T01:45+11:00", "2025-04-06T00:00+11:00", "2025-04-06T01:00+11:00"),
    (LORD_HOWE, "45 * * * *", "2025-04-06T01:45+10:30", "2025-04-06T01:00+11:00", "2025-04-06T01:30+10:30"),
    (LORD_HOWE, "45 * * * *", "2025-04-06T02:45+10:30", "2025-04-06T01:30+10:30", "2025-04-06T02:00+10:30"),
    (LORD_HOWE, "0 * * * *", "2025-04-06T02:00+10:30", "2025-04-06T01:00+11:00", "2025-04-06T02:00+10:30"),
    # Half an hour does not exist: it begins when the clocks have jumped, or is left out with its cycle.
    (LORD_HOWE, "45 * * * *", "2025-10-05T02:45+11:00", "2025-10-05T01:00+10:30", "2025-10-05T02:30+11:00"),
    (LORD_HOWE, "45 * * * *", "2025-10-05T03:45+11:00", "2025-10-05T02:30+11:00", "2025-10-05T03:00+11:00"),
    (LORD_HOWE, "0 * * * *", "2025-10-05T03:00+11:00", "2025-10-05T01:00+10:30", "2025-10-05T03:00+11:00"),
    # Weekly: the seven days before.
    ("UTC", "0 4 * * MON", "2025-06-09T04:00", "2025-06-02T00:00", "2025-06-09T00:00"),
    ("UTC", "0 4 * * SUN", "2025-01-05T04:00", "2024-12-29T00:00", "2025-01-05T00:00"),
    (NEW_YORK, "0 6 * * WED", "2025-03-12T06:00-04:00", "2025-03-05T00:00-05:00", "2025-03-12T00:00-04:00"),
    # Monthly: since that day of the month was last.
    ("UTC", "0 4 1 * *", "2024-03-01T04:00", "2024-02-01T00:00", "2024-03-01T00:00"),
    (SHANGHAI, "0 4 15 * *", "2025-01-15T04:00+08:00", "2024-12-15T00:00+08:00", "2025-01-15T00:00+08:00"),
    ("UTC", "0 4 31 * *", "2025-03-31T04:00", "2025-01-31T00:00", "2025-03-31T00:00"),
    ("UTC", "0 4 31 * *", "2025-08-31T04:00", "2025-07-31T00:00", "2025-08-31T00:00"),
    ("UTC", "0 4 29 * *", "2025-03-29T04:00", "2025-01-29T00:00", "2025-03-29T00:00"),
    ("UTC", "0 4 29 * *", "2024-03-29T04:00", "2024-02-29T00:00", "2024-03-29T00:00"),
    ("UTC", "0 4 L * *", "2024-03-31T04:00", "2024-02-29T00:00", "2024-03-31T00:00"),
    ("UTC", "0 4 * * 1#2", "2025-07-14T04:00", "2025-06-09T00:00", "2025-07-14T00:00"),
    # Intervals: since the cycle before, in whole days or hours where the cron has one time of them.
    ("UTC", "*/15 * * * *", "2025-06-10T00:00", "2025-06-09T23:45", "2025-06-10T00:00"),
    ("UTC", "5-59/15 * * * *", "2025-06-10T00:05", "2025-06-09T23:50", "2025-06-10T00:05"),
    (NEW_YORK, "*/30 * * * *", "2025-11-02T01:00-05:00", "2025-11-02T01:30-04:00", "2025-11-02T01:00-05:00"),
    (NEW_YORK, "*/30 * * * *", "2025-03-09T03:00-04:00", "2025-03-09T01:30-05:00", "2025-03-09T03:00-04:00"),
    ("UTC", "30 0,12 * * *", "2025-06-10T12:30", "2025-06-10T00:00", "2025-06-10T12:00"),
    ("UTC", "0 2 * * MON-FRI", "2025-06-09T02:00", "2025-06-06T00:00", "2025-06-09T00:00"),
    ("UTC", "0 2 1 */3 *", "2025-04-01T02:00", "2025-01-01T00:00", "2025-04-01T00:00"),
    ("UTC", "0 2 29 2 *", "2028-02-29T02:00", "2024-02-29T00:00", "2028-02-29T00:00"),
    # By hand, at a time that is no slot: the newest whole period that is over.
    ("UTC", "0 1 * * *", "2025-06-10T15:23", "2025-06-09T00:00", "2025-06-10T00:00"),
    ("UTC", "0 1 * * *", "2025-06-10T00:10", "2025-06-09T00:00", "2025-06-10T00:00"),
    ("UTC", "5 * * * *", "2025-06-10T10:02", "2025-06-10T09:00", "2025-06-10T10:00"),
    ("UTC", "*/15 * * * *", "2025-06-10T10:20:07.5", "2025-06-10T10:00", "2025-06-10T10:15"),
    ("UTC", "0 4 * * MON", "2025-06-12T11:00", "2025-06-02T00:00", "2025-06-09T00:00"),
    ("UTC", "0 4 1 * *", "2025-06-20T11:00", "2025-05-01T00:00", "2025-06-01T00:00"),
    # Without a schedule: the calendar day before, of those that were.
    (SHANGHAI, "", "2025-06-10T23:59+08:00", "2025-06-09T00:00+08:00", "2025-06-10T00:00+08:00"),
    (SHANGHAI, "", "2025-06-11T00:00+08:00", "2025-06-10T00:00+08:00", "2025-06-11T00:00+08:00"),
    (APIA, "", "2011-12-31T12:00+14:00", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00"),
]


@pytest.mark.parametrize(("zone", "expression", "cycle_time", "start", "end"), PERIODS)
def test_a_cycle_works_on_the_period_worked_out_by_hand(zone, expression, cycle_time, start, end):
    calendar, cycle_time = Calendar(expression, zone), at(cycle_time)
    found = periods.data_period(calendar, cycle_time)
    assert found == Period(at(start), at(end))
    assert found.start.tzinfo is UTC
    assert periods.data_date(calendar, cycle_time) == at(start).astimezone(ZoneInfo(zone)).date()


def test_a_period_has_its_start_and_not_its_end():
    period = Period(at("2025-06-09"), at("2025-06-10"))
    assert period.start in period
    assert period.middle == at("2025-06-09T12:00")
    assert period.end not in period


@pytest.mark.parametrize(
    "expression",
    ["0 * * * *", "45 * * * *", "0 0 * * *", "30 2 * * *", "30 23 * * *", "0 4 * * SUN", "0 2 L * *"],
)
@pytest.mark.parametrize("zone", ["UTC", NEW_YORK, LORD_HOWE, CAIRO])
def test_a_task_in_a_cycle_and_a_task_by_itself_have_the_same_data_date(zone, expression):
    """Also over both changes of the clocks, where a run's date is the one its period begins on."""
    calendar = Calendar(expression, zone)
    about_changes = [("2025-03-08", "2025-03-11"), ("2025-04-05", "2025-04-07"), ("2025-04-24", "2025-04-28")]
    about_changes += [("2025-10-04", "2025-10-06"), ("2025-10-30", "2025-11-04")]
    for first, last in about_changes:
        for slot in periods.slots(calendar, at(first), at(last)):
            # Of the hours those of the night, where dates and clocks change.
            if slot.astimezone(ZoneInfo(zone)).hour in (23, 0, 1, 2) or periods.grain(calendar) != Grain.HOUR:
                assert periods.data_date(calendar, slot) == calendars.data_date(calendar, slot)


def test_where_a_jump_crosses_midnight_the_cycle_keeps_its_day_and_a_task_by_itself_does_not():
    """Nuuk's 31 March: its 23:30 follows the 30th's, due half an hour late, after midnight.

    Counting one period back from there stays on the 31st, a day that has not ended at 23:30: the cycle is
    right, which knows whose cycle the late one was.
    """
    calendar, slot = Calendar("30 23 * * *", NUUK), at("2024-03-31T23:30-01:00")
    assert periods.data_date(calendar, slot) == date(2024, 3, 30)
    assert calendars.data_date(calendar, slot) == date(2024, 3, 31)


# --- upstream --------------------------------------------------------------------------------------

HOURLY, DAILY, WEEKLY, MONTHLY = "0 * * * *", "0 1 * * *", "0 4 * * MON", "0 4 1 * *"

# (offset, downstream, cycle time, upstream, the slots it waits for: all, or the first, the last and how many)
UPSTREAM = [
    # The same cycle.
    (Offset.SAME, (DAILY, NEW_YORK), "2025-06-10T01:00-04:00", (DAILY, NEW_YORK), ["2025-06-10T01:00-04:00"]),
    (
        Offset.SAME,
        (DAILY, NEW_YORK),
        "2025-06-10T01:00-04:00",
        ("0 3 * * *", NEW_YORK),
        ["2025-06-10T03:00-04:00"],
    ),
    (Offset.SAME, (DAILY, "UTC"), "2025-06-10T01:00", ("30 0 * * *", "UTC"), ["2025-06-10T00:30"]),
    (Offset.SAME, ("50 * * * *", "UTC"), "2025-06-10T00:50", ("5 * * * *", "UTC"), ["2025-06-10T00:05"]),
    (Offset.SAME, ("5 * * * *", "UTC"), "2025-06-10T00:05", ("50 * * * *", "UTC"), ["2025-06-10T00:50"]),
    (Offset.SAME, (MONTHLY, "UTC"), "2024-03-01T04:00", ("0 2 1 * *", "UTC"), ["2024-03-01T02:00"]),
    # Days of other zones: the one that shares most of it.
    (Offset.SAME, (DAILY, "UTC"), "2025-06-10T01:00", (DAILY, LONDON), ["2025-06-10T01:00+01:00"]),
    (Offset.SAME, (DAILY, LONDON), "2025-06-10T01:00+01:00", (DAILY, "UTC"), ["2025-06-10T01:00"]),
    (Offset.SAME, (DAILY, NEW_YORK), "2025-06-10T01:00-04:00", (DAILY, BERLIN), ["2025-06-10T01:00+02:00"]),
    (Offset.SAME, (DAILY, BERLIN), "2025-06-10T01:00+02:00", (DAILY, NEW_YORK), ["2025-06-10T01:00-04:00"]),
    # New York's day of 25 hours has the middle of two days of Shanghai; it waits for one.
    (Offset.SAME, (DAILY, NEW_YORK), "2025-11-03T01:00-05:00", (DAILY, SHANGHAI), ["2025-11-04T01:00+08:00"]),
    (Offset.SAME, (DAILY, NEW_YORK), "2025-03-10T01:00-04:00", (DAILY, SHANGHAI), ["2025-03-11T01:00+08:00"]),
    # The hour that exists twice, and a cycle on an empty period.
    (Offset.SAME, (HOURLY, NEW_YORK), "2025-11-02T01:00-04:00", (HOURLY, NEW_YORK), ["2025-11-02T01:00-04:00"]),
    (Offset.SAME, (HOURLY, NEW_YORK), "2025-11-02T01:00-05:00", (HOURLY, NEW_YORK), ["2025-11-02T01:00-05:00"]),
    (Offset.SAME, (HOURLY, NEW_YORK), "2025-11-02T01:00-05:00", (HOURLY, "UTC"), ["2025-11-02T06:00"]),
    (
        Offset.SAME,
        ("0 9 * * *", APIA),
        "2011-12-31T00:00+14:00",
        ("0 8 * * *", APIA),
        ["2011-12-31T00:00+14:00"],
    ),
    (
        Offset.SAME,
        ("0 9 * * *", APIA),
        "2011-12-31T09:00+14:00",
        ("0 8 * * *", APIA),
        ["2011-12-31T08:00+14:00"],
    ),
    # Intervals that lie apart: the peer, whether it is before or after.
    (
        Offset.SAME,
        ("5-59/15 * * * *", "UTC"),
        "2025-06-10T00:20",
        ("*/15 * * * *", "UTC"),
        ["2025-06-10T00:15"],
    ),
    (
        Offset.SAME,
        ("*/15 * * * *", "UTC"),
        "2025-06-10T00:15",
        ("5-59/15 * * * *", "UTC"),
        ["2025-06-10T00:20"],
    ),
    (
        Offset.SAME,
        ("0 2 * * MON-FRI", "UTC"),
        "2025-06-09T02:00",
        ("0 1 * * MON-FRI", "UTC"),
        ["2025-06-09T01:00"],
    ),
    (
        Offset.SAME,
        ("0 1 * * MON-FRI", "UTC"),
        "2025-06-09T01:00",
        ("0 2 * * MON-FRI", "UTC"),
        ["2025-06-09T02:00"],
    ),
    # Monday's works on the weekend too.
    (
        Offset.SAME,
        ("0 2 * * MON-FRI", "UTC"),
        "2025-06-09T02:00",
        (DAILY, "UTC"),
        ["2025-06-07T01:00", "2025-06-08T01:00", "2025-06-09T01:00"],
    ),
    # A finer upstream: all of it; a coarser one: the cycle that has this data.
    (
        Offset.SAME,
        (DAILY, "UTC"),
        "2025-06-10T01:00",
        (HOURLY, "UTC"),
        ("2025-06-09T01:00", "2025-06-10T00:00", 24),
    ),
    (Offset.SAME, (HOURLY, "UTC"), "2025-06-10T05:00", (DAILY, "UTC"), ["2025-06-11T01:00"]),
    (Offset.SAME, (HOURLY, "UTC"), "2025-06-10T00:00", (DAILY, "UTC"), ["2025-06-10T01:00"]),
    (Offset.SAME, (DAILY, "UTC"), "2025-06-10T01:00", (WEEKLY, "UTC"), ["2025-06-16T04:00"]),
    # All hours of a day: 24, 23, 25; of a zone that is half an hour apart; of quarters.
    (
        Offset.WITHIN_PERIOD,
        (DAILY, NEW_YORK),
        "2025-06-10T01:00-04:00",
        (HOURLY, NEW_YORK),
        ("2025-06-09T01:00-04:00", "2025-06-10T00:00-04:00", 24),
    ),
    (
        Offset.WITHIN_PERIOD,
        (DAILY, NEW_YORK),
        "2025-03-10T01:00-04:00",
        ("5 * * * *", NEW_YORK),
        ("2025-03-09T01:05-05:00", "2025-03-10T00:05-04:00", 23),
    ),
    (
        Offset.WITHIN_PERIOD,
        (DAILY, NEW_YORK),
        "2025-11-03T01:00-05:00",
        ("55 * * * *", NEW_YORK),
        ("2025-11-02T01:55-04:00", "2025-11-03T00:55-05:00", 25),
    ),
    (
        Offset.WITHIN_PERIOD,
        (DAILY, NEW_YORK),
        "2025-11-03T01:00-05:00",
        (HOURLY, "UTC"),
        ("2025-11-02T05:00", "2025-11-03T05:00", 25),
    ),
    (
        Offset.WITHIN_PERIOD,
        (DAILY, LORD_HOWE),
        "2025-04-07T01:00+10:30",
        ("45 * * * *", LORD_HOWE),
        ("2025-04-06T01:45+11:00", "2025-04-07T00:45+10:30", 25),
    ),
    (
        Offset.WITHIN_PERIOD,
        (DAILY, "Asia/Kolkata"),
        "2025-06-10T01:00+05:30",
        (HOURLY, "UTC"),
        ("2025-06-08T19:00", "2025-06-09T18:00", 24),
    ),
    (
        Offset.WITHIN_PERIOD,
        (HOURLY, "UTC"),
        "2025-06-10T00:00",
        ("*/15 * * * *", "UTC"),
        ["2025-06-09T23:15", "2025-06-09T23:30", "2025-06-09T23:45", "2025-06-10T00:00"],
    ),
    # The days of a week, of a month, of a leap February, of three months' worth on a 31st.
    (
        Offset.WITHIN_PERIOD,
        (WEEKLY, NEW_YORK),
        "2025-11-03T04:00-05:00",
        (DAILY, NEW_YORK),
        ("2025-10-28T01:00-04:00", "2025-11-03T01:00-05:00", 7),
    ),
    (
        Offset.WITHIN_PERIOD,
        ("0 6 * * WED", "UTC"),
        "2025-06-11T06:00",
        (DAILY, "UTC"),
        ("2025-06-05T01:00", "2025-06-11T01:00", 7),
    ),
    (
        Offset.WITHIN_PERIOD,
        (MONTHLY, "UTC"),
        "2024-03-01T04:00",
        (DAILY, "UTC"),
        ("2024-02-02T01:00", "2024-03-01T01:00", 29),
    ),
    (
        Offset.WITHIN_PERIOD,
        ("0 4 31 * *", "UTC"),
        "2025-03-31T04:00",
        (DAILY, "UTC"),
        ("2025-02-01T01:00", "2025-03-31T01:00", 59),
    ),
    # A week belongs to the month of its Thursday: 30 June to 6 July is July's, 28 July to 3 August too.
    (
        Offset.WITHIN_PERIOD,
        (MONTHLY, "UTC"),
        "2025-08-01T04:00",
        (WEEKLY, "UTC"),
        ["2025-07-07T04:00", "2025-07-14T04:00", "2025-07-21T04:00", "2025-07-28T04:00", "2025-08-04T04:00"],
    ),
    # An hour has no day in it, but one: the hour of noon has its middle.
    (Offset.WITHIN_PERIOD, (HOURLY, "UTC"), "2025-06-10T05:00", (DAILY, "UTC"), []),
    # The day that Apia left out has no hours; the days about it have theirs.
    (Offset.WITHIN_PERIOD, ("0 9 * * *", APIA), "2011-12-31T09:00+14:00", (HOURLY, APIA), []),
    (
        Offset.WITHIN_PERIOD,
        ("0 9 * * *", APIA),
        "2011-12-31T00:00+14:00",
        (HOURLY, APIA),
        ("2011-12-29T01:00-10:00", "2011-12-31T00:00+14:00", 24),
    ),
    # The cycle before, its own or another's.
    (
        Offset.PREVIOUS,
        (HOURLY, NEW_YORK),
        "2025-11-02T01:00-05:00",
        (HOURLY, NEW_YORK),
        ["2025-11-02T01:00-04:00"],
    ),
    (Offset.PREVIOUS, ("0 4 31 * *", "UTC"), "2025-03-31T04:00", ("0 4 31 * *", "UTC"), ["2025-01-31T04:00"]),
    (Offset.PREVIOUS, (DAILY, "UTC"), "2025-06-10T01:00", (WEEKLY, "UTC"), ["2025-06-09T04:00"]),
    (Offset.PREVIOUS, (DAILY, "UTC"), "2025-06-10T15:23", (DAILY, "UTC"), ["2025-06-10T01:00"]),
    # The newest, the one at the same time among them.
    (Offset.LAST, (DAILY, "UTC"), "2025-06-10T01:00", (DAILY, "UTC"), ["2025-06-10T01:00"]),
    (Offset.LAST, (DAILY, "UTC"), "2025-06-10T01:00", (WEEKLY, "UTC"), ["2025-06-09T04:00"]),
    (Offset.LAST, (DAILY, "UTC"), "2025-06-09T01:00", (WEEKLY, "UTC"), ["2025-06-02T04:00"]),
]


@pytest.mark.parametrize(("offset", "downstream", "cycle_time", "above", "expected"), UPSTREAM)
def test_a_cycle_waits_for_the_upstream_cycles_worked_out_by_hand(
    offset, downstream, cycle_time, above, expected
):
    found = upstream(offset, Calendar(*downstream), at(cycle_time), Calendar(*above))
    if isinstance(expected, tuple):
        first, last, number = expected
        assert (found[0], found[-1], len(found)) == (at(first), at(last), number)
    else:
        assert found == [at(text) for text in expected]
    assert all(periods.is_slot(Calendar(*above), slot) for slot in found)
    assert found == sorted(set(found))


def test_the_last_cycles_are_as_many_as_asked_for_in_order():
    found = upstream(Offset.LAST, Calendar(DAILY), at("2025-06-10T01:30"), Calendar(HOURLY), count=3)
    assert found == [at("2025-06-09T23:00"), at("2025-06-10T00:00"), at("2025-06-10T01:00")]


@pytest.mark.parametrize("count", [0, -1])
def test_a_wait_for_the_last_none_is_refused(count):
    with pytest.raises(ValueError, match=f"cycles to wait for is {count}; it must be at least 1"):
        upstream(Offset.LAST, Calendar(DAILY), at("2025-06-10T01:00"), Calendar(HOURLY), count=count)


@pytest.mark.parametrize(
    ("offset", "kept"),
    [(Offset.SAME, 2), (Offset.WITHIN_PERIOD, 2), (Offset.LAST, 2), (Offset.PREVIOUS, 1)],
)
def test_nothing_is_waited_for_before_the_upstream_began_to_exist(offset, kept):
    """The upstream exists since the slot of 22:00 on the 9th, which is left out with all before it."""
    daily, cycle_time, since = Calendar("0 0 * * *"), at("2025-06-10T00:00"), at("2025-06-09T22:00")
    hourly = Calendar("0 * * * *")
    found = upstream(offset, daily, cycle_time, hourly, count=9, since=since)
    assert found == [at("2025-06-09T23:00"), at("2025-06-10T00:00")][:kept]
    assert upstream(offset, daily, cycle_time, hourly, count=9, since=cycle_time) == []
