"""When things are due, against tables worked out by hand from the zones' published changes of the clocks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSimError
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduling import calendars


@dataclass
class Schedule:
    trigger: str = "manual"
    cron: str = ""
    interval: int | None = None
    timezone: str = "UTC"


def cron(expression: str, zone: str = "UTC") -> Schedule:
    return Schedule("cron", cron=expression, timezone=zone)


def every(seconds: int, zone: str = "UTC") -> Schedule:
    return Schedule("fixed_rate", interval=seconds, timezone=zone)


def at(text: str) -> datetime:
    """A moment from ISO text with its offset; without one it is UTC."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


NEW_YORK, BERLIN, LORD_HOWE = "America/New_York", "Europe/Berlin", "Australia/Lord_Howe"

# (zone, expression, begin, the due times that follow). The changes of 2025:
# New York   9 March, 02:00 -05:00 to -04:00    2 November, 02:00 back
# Berlin    30 March, 02:00 +01:00 to +02:00   26 October, 03:00 back
# Lord Howe  5 October, 02:00 +10:30 to +11:00  6 April, 02:00 back; half an hour
TABLE = [
    # A time of day that does not exist: the moment after the jump, and once.
    (
        NEW_YORK,
        "30 2 * * *",
        "2025-03-08T00:00-05:00",
        ["2025-03-08T02:30-05:00", "2025-03-09T03:00-04:00", "2025-03-10T02:30-04:00"],
    ),
    (
        NEW_YORK,
        "0,30 2,3 * * *",
        "2025-03-09T00:00-05:00",
        ["2025-03-09T03:00-04:00", "2025-03-09T03:30-04:00", "2025-03-10T02:00-04:00"],
    ),
    (BERLIN, "15 2 * * *", "2025-03-30T00:00+01:00", ["2025-03-30T03:00+02:00", "2025-03-31T02:15+02:00"]),
    (LORD_HOWE, "10 2 * * *", "2025-10-05T00:00+10:30", ["2025-10-05T02:30+11:00", "2025-10-06T02:10+11:00"]),
    # A time of day that exists twice: the first, and only that.
    (
        NEW_YORK,
        "30 1 * * *",
        "2025-11-01T12:00-04:00",
        ["2025-11-02T01:30-04:00", "2025-11-03T01:30-05:00"],
    ),
    (BERLIN, "30 2 * * *", "2025-10-26T00:00+02:00", ["2025-10-26T02:30+02:00", "2025-10-27T02:30+01:00"]),
    (LORD_HOWE, "45 1 * * *", "2025-04-06T00:00+11:00", ["2025-04-06T01:45+11:00", "2025-04-07T01:45+10:30"]),
    # Begun while the clocks show the hour again: today's has been.
    (NEW_YORK, "45 1 * * *", "2025-11-02T01:10-05:00", ["2025-11-03T01:45-05:00"]),
    # Repetition: what the clocks jump over is not due.
    (
        NEW_YORK,
        "0 * * * *",
        "2025-03-09T00:30-05:00",
        ["2025-03-09T01:00-05:00", "2025-03-09T03:00-04:00", "2025-03-09T04:00-04:00"],
    ),
    (BERLIN, "*/20 2 * * *", "2025-03-30T00:00+01:00", ["2025-03-31T02:00+02:00", "2025-03-31T02:20+02:00"]),
    (
        LORD_HOWE,
        "30 * * * *",
        "2025-10-05T01:00+10:30",
        ["2025-10-05T01:30+10:30", "2025-10-05T02:30+11:00", "2025-10-05T03:30+11:00"],
    ),
    (
        LORD_HOWE,
        "*/15 3 * * *",
        "2025-10-05T00:00+10:30",
        ["2025-10-05T03:00+11:00", "2025-10-05T03:15+11:00", "2025-10-05T03:30+11:00"],
    ),
    # Repetition: what the clocks show twice is due twice.
    (
        NEW_YORK,
        "0 * * * *",
        "2025-11-02T00:30-04:00",
        ["2025-11-02T01:00-04:00", "2025-11-02T01:00-05:00", "2025-11-02T02:00-05:00"],
    ),
    (
        BERLIN,
        "*/30 2 * * *",
        "2025-10-26T01:00+02:00",
        [
            "2025-10-26T02:00+02:00",
            "2025-10-26T02:30+02:00",
            "2025-10-26T02:00+01:00",
            "2025-10-26T02:30+01:00",
            "2025-10-27T02:00+01:00",
        ],
    ),
    (
        LORD_HOWE,
        "*/20 1 * * *",
        "2025-04-06T00:00+11:00",
        [
            "2025-04-06T01:00+11:00",
            "2025-04-06T01:20+11:00",
            "2025-04-06T01:40+11:00",
            "2025-04-06T01:40+10:30",
            "2025-04-07T01:00+10:30",
        ],
    ),
    # The jump is at midnight, and a whole day is jumped over.
    (
        "Africa/Cairo",
        "0 0 * * *",
        "2025-04-24T12:00+02:00",
        ["2025-04-25T01:00+03:00", "2025-04-26T00:00+03:00"],
    ),
    (
        "Pacific/Apia",
        "0 9 * * *",
        "2011-12-29T00:00-10:00",
        ["2011-12-29T09:00-10:00", "2011-12-31T00:00+14:00", "2011-12-31T09:00+14:00"],
    ),
    # Nothing to do with clocks: months' ends, either day field, seconds.
    ("UTC", "0 0 L * *", "2024-02-01", ["2024-02-29", "2024-03-31", "2024-04-30"]),
    ("UTC", "0 0 29 2 *", "2025-01-01", ["2028-02-29", "2032-02-29"]),
    ("UTC", "0 0 13 * FRI", "2025-06-01", ["2025-06-06", "2025-06-13", "2025-06-20"]),
    ("UTC", "*/20 0 0 * * *", "2025-06-01", ["2025-06-01T00:00:20", "2025-06-01T00:00:40", "2025-06-02"]),
]


@pytest.mark.parametrize(("zone", "expression", "begin", "expected"), TABLE)
def test_cron_is_due_as_worked_out_by_hand(zone, expression, begin, expected):
    schedule, moment, found = cron(expression, zone), at(begin), []
    for _ in expected:
        moment = calendars.next_due(schedule, moment)
        found.append(moment)
    assert found == [at(text) for text in expected]


@pytest.mark.parametrize(("zone", "expression", "begin", "expected"), TABLE)
def test_previous_due_walks_the_same_table_backwards(zone, expression, begin, expected):
    schedule, times = cron(expression, zone), [at(text) for text in expected]
    moment, found = times[-1] + timedelta(seconds=1), []
    for _ in expected:
        moment = calendars.previous_due(schedule, moment)
        found.append(moment)
    assert found == times[::-1]
    assert calendars.previous_due(schedule, times[0]) <= at(begin)


def test_due_times_are_in_utc_and_strictly_later():
    due = calendars.next_due(cron("0 1 * * *", BERLIN), at("2025-06-01T01:00+02:00"))
    assert due == at("2025-06-01T23:00")
    assert due.tzinfo is UTC


def test_a_due_time_within_the_running_second_is_the_next_one():
    assert calendars.next_due(cron("* * * * *"), at("2025-06-01T00:00:59.999")) == at("2025-06-01T00:01")


@pytest.mark.parametrize("expression", ["0 0 */16 2 MON#2", "0 0 */29 2 1#2"])
@pytest.mark.parametrize("zone", ["UTC", NEW_YORK])
def test_what_never_comes_due_is_said_to_be_never_due(expression, zone):
    assert calendars.next_due(cron(expression, zone), at("2025-01-01")) is None
    assert calendars.previous_due(cron(expression, zone), at("2025-01-01")) is None


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4,6 *", "61 * * * *", "* * * *", ""])
def test_an_expression_that_means_nothing_is_refused_at_once(expression):
    with pytest.raises(CronSimError):
        calendars.next_due(cron(expression), at("2025-01-01"))


def test_a_fixed_rate_stays_on_its_grid():
    first = calendars.next_due(every(420), at("2025-06-01T10:00:30"))
    assert first == at("2025-06-01T10:07:30")
    assert calendars.next_due(every(420), first) == at("2025-06-01T10:14:30")
    assert calendars.previous_due(every(420), first) == at("2025-06-01T10:00:30")


@pytest.mark.parametrize(
    ("due", "expected"),
    [("09:00", "10:40"), ("10:40", "10:40"), ("10:30", "10:40"), ("10:31", "10:31"), (None, "10:40")],
)
def test_the_next_due_time_on_a_grid_however_long_ago_its_last_one_was(due, expected):
    grid = due and at(f"2025-06-01T{due}")
    assert calendars.next_on_grid(every(600), grid, at("2025-06-01T10:30")) == at(f"2025-06-01T{expected}")


def test_a_fixed_rate_does_not_notice_a_change_of_the_clocks():
    due = calendars.due_between(
        every(3600, NEW_YORK), at("2025-03-09T00:30-05:00"), at("2025-03-09T04:00-04:00")
    )
    assert list(due) == [at("2025-03-09T01:30-05:00"), at("2025-03-09T03:30-04:00")]


@pytest.mark.parametrize(
    ("schedule", "due", "until", "latest"),
    [
        (every(60), "2025-06-01T00:00:10", "2025-06-01T00:05:09", "2025-06-01T00:04:10"),
        (every(60), "2025-06-01T00:00:10", "2025-06-01T00:05:10", "2025-06-01T00:05:10"),
        (every(60), "2025-06-01T00:00:10", "2025-06-01T00:00:10", "2025-06-01T00:00:10"),
        (cron("0 * * * *"), "2025-06-01T01:00", "2025-06-03T04:59:59", "2025-06-03T04:00"),
        (cron("0 * * * *"), "2025-06-01T01:00", "2025-06-03T04:00", "2025-06-03T04:00"),
        (cron("0 0 1 1 *"), "2025-01-01", "2025-06-01", "2025-01-01"),
    ],
)
def test_the_latest_due_time_after_a_gap_lies_on_the_same_grid(schedule, due, until, latest):
    assert calendars.latest_due(schedule, at(due), at(until)) == at(latest)


def test_nothing_is_due_by_hand_or_in_a_workflow():
    for trigger in ("manual", "workflow"):
        assert calendars.next_due(Schedule(trigger), at("2025-06-01")) is None
        assert calendars.previous_due(Schedule(trigger), at("2025-06-01")) is None
        assert list(calendars.due_between(Schedule(trigger), at("2025-06-01"), at("2026-06-01"))) == []


def test_due_times_between_two_moments_leave_out_the_first_and_include_the_last():
    due = calendars.due_between(cron("0 * * * *"), at("2025-06-01T01:00"), at("2025-06-01T03:00"))
    assert list(due) == [at("2025-06-01T02:00"), at("2025-06-01T03:00")]


def test_due_times_between_two_moments_come_one_at_a_time():
    endless = calendars.due_between(cron("* * * * *"), at("2000-01-01"), at("2100-01-01"))
    assert list(islice(endless, 2)) == [at("2000-01-01T00:01"), at("2000-01-01T00:02")]


@pytest.mark.parametrize(
    ("schedule", "moment", "expected"),
    [
        (cron("0 1 * * *"), "2025-06-10T01:00", date(2025, 6, 9)),
        # Run by hand in the afternoon, and at night before today's run: a day back all the same.
        (cron("0 1 * * *"), "2025-06-10T15:23", date(2025, 6, 9)),
        (cron("0 1 * * *"), "2025-06-10T00:10", date(2025, 6, 9)),
        (cron("0 * * * *"), "2025-06-10T00:00", date(2025, 6, 9)),
        (cron("0 * * * *"), "2025-06-10T01:00", date(2025, 6, 10)),
        (cron("0 2 1 * *"), "2025-03-01T02:00", date(2025, 2, 1)),
        (cron("0 2 * * MON"), "2025-06-09T02:00", date(2025, 6, 2)),
        (cron("0 2 * * MON-FRI"), "2025-06-09T02:00", date(2025, 6, 6)),
        # The date is the zone's, and a day is a day when it has 23 or 25 hours.
        (cron("0 1 * * *", NEW_YORK), "2025-06-10T05:00", date(2025, 6, 9)),
        (cron("30 0 * * *", NEW_YORK), "2025-03-10T00:30-04:00", date(2025, 3, 9)),
        (cron("30 0 * * *", NEW_YORK), "2025-11-03T00:30-05:00", date(2025, 11, 2)),
        (cron("30 2 * * *", NEW_YORK), "2025-03-09T03:00-04:00", date(2025, 3, 8)),
        # An hour that is shown twice works, the second time, on its first: the same date.
        (cron("0 * * * *", NEW_YORK), "2025-11-02T01:00-05:00", date(2025, 11, 2)),
        (every(86400, "Asia/Shanghai"), "2025-06-10T16:30", date(2025, 6, 10)),
        (every(3600), "2025-06-10T00:30", date(2025, 6, 9)),
        (every(86400, NEW_YORK), "2025-03-10T00:30-04:00", date(2025, 3, 9)),
        (Schedule("manual", timezone="Asia/Shanghai"), "2025-06-10T15:59", date(2025, 6, 9)),
        (Schedule("workflow", timezone="Asia/Shanghai"), "2025-06-10T16:00", date(2025, 6, 10)),
    ],
)
def test_the_data_date_is_one_period_before_the_due_time(schedule, moment, expected):
    assert calendars.data_date(schedule, at(moment)) == expected


def test_the_period_of_what_has_no_schedule_is_unknown():
    assert calendars.period(Schedule("manual"), at("2025-06-01")) is None
    assert calendars.period(cron("0 0 * * *", NEW_YORK), at("2025-03-10T04:00")) == timedelta(days=1)


fields = st.tuples(
    st.sampled_from(["0", "30", "*", "*/20", "15,45", "7-59/13"]),
    st.sampled_from(["0", "1", "2", "3", "*", "*/2", "1-3", "23"]),
).map(lambda pair: f"{pair[0]} {pair[1]} * * *")
changes = st.sampled_from(
    [
        (NEW_YORK, "2025-03-09"),
        (NEW_YORK, "2025-11-02"),
        (LORD_HOWE, "2025-04-05"),
        (LORD_HOWE, "2025-10-04"),
        ("America/Santiago", "2025-09-07"),
        ("Africa/Cairo", "2025-10-30"),
    ]
)


@settings(max_examples=60, deadline=None)
@given(fields, changes)
def test_across_a_change_of_the_clocks_cron_agrees_with_looking_at_the_clock_every_minute(expression, change):
    """The rules told by the clock alone: look at it every minute of two days, and note what is due."""
    zone, day = ZoneInfo(change[0]), at(change[1])
    minute = timedelta(minutes=1)
    due, shown, before = [], set(), None
    for moment in (day + minute * n for n in range(2 * 24 * 60)):
        wall = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        repeats = expression.split()[0].startswith("*") or expression.split()[1].startswith("*")
        jumped = [] if repeats or before is None else list(_minutes(before + minute, wall))
        if any(_matches(expression, each) for each in jumped) or (
            _matches(expression, wall) and (repeats or wall not in shown)
        ):
            due.append(moment)
        shown.add(wall)
        before = wall
    schedule = cron(expression, change[0])
    found = list(calendars.due_between(schedule, day - timedelta(seconds=1), day + timedelta(days=2) - minute))
    assert found == due
    backwards = [calendars.previous_due(schedule, later) for later in due[1:]]
    assert backwards == due[:-1]


def _minutes(start: datetime, stop: datetime):
    while start < stop:
        yield start
        start += timedelta(minutes=1)


def _matches(expression: str, wall: datetime) -> bool:
    minute, hour = expression.split()[:2]
    return _in(minute, wall.minute, 60) and _in(hour, wall.hour, 24)


def _in(text: str, value: int, end: int) -> bool:
    base, _, step = text.partition("/")
    if base == "*":
        allowed = range(0, end, int(step or 1))
    elif "-" in base:
        first, last = map(int, base.split("-"))
        allowed = range(first, last + 1, int(step or 1))
    else:
        allowed = [int(each) for each in base.split(",")]
    return value in allowed
