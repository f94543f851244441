"""Runs upon an axis of time: where bars and ticks stand, and which runs decided when all was over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.timeline import MOST_TICKS, Run, clock_moments, critical_path, timeline

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def run(key: str, *seconds: float | None, **fields: Any) -> Run:
    """A run queued, started and ended so many seconds past noon."""
    times = [None if each is None else at(each) for each in seconds]
    return Run(key, key, fields.pop("state", "success"), "Success", *times, **fields)


def test_a_bar_waits_from_queued_to_started_and_runs_until_it_ended() -> None:
    drawn = timeline([run("a", 0, 20, 60), run("b", 60, 60, 100)], now=at(5000), zone=UTC)
    first, second = drawn.rows
    assert first.wait
    assert first.ran
    assert second.ran
    assert (first.wait.x, first.wait.width) == ("0.00", "200.00")
    assert (first.ran.x, first.ran.width) == ("200.00", "400.00")
    assert (first.waited, first.took) == (timedelta(seconds=20), timedelta(seconds=40))
    assert second.wait is None
    assert (second.ran.x, second.ran.width) == ("600.00", "400.00")
    assert drawn.now == "", "the present is not in view"


def test_what_has_not_ended_reaches_to_now_and_what_was_not_queued_has_no_bar() -> None:
    drawn = timeline([run("a", 0, 10, state="running"), run("b", 50), run("c", None)], now=at(100), zone=UTC)
    a, b, c = drawn.rows
    assert a.ran
    assert b.wait
    assert float(a.ran.x) + float(a.ran.width) == pytest.approx(float(drawn.now), abs=0.02)
    assert (a.open, a.took) == (True, timedelta(seconds=90))
    assert (b.ran, b.waited) == (None, timedelta(seconds=50))
    assert (c.wait, c.ran, c.waited, c.open) == (None, None, None, False)
    assert 950 < float(drawn.now) < 1000, "the line of the present is not at the very edge"


def test_nothing_and_what_has_no_length_can_be_drawn() -> None:
    assert timeline([], now=NOON, zone=UTC).rows == []
    assert timeline([run("a", None)], now=NOON, zone=UTC).rows[0].ran is None
    drawn = timeline([run("a", 0, 0, 0)], now=at(9000), zone=UTC)
    assert drawn.rows[0].ran is not None
    assert drawn.rows[0].ran.width == "0.00"


def test_clocks_that_disagree_draw_no_bar_backwards() -> None:
    drawn = timeline([run("a", 10, 5, 3), run("b", 0, 1, 20)], now=at(100), zone=UTC)
    row = drawn.rows[0]
    assert row.ran is not None
    assert row.ran.width == "0.00"
    assert row.waited == timedelta(0)


def test_the_critical_path_goes_back_over_what_ended_last() -> None:
    runs = [
        run("extract", 0, 0, 10),
        run("slow", 10, 10, 90, after=("extract",)),
        run("quick", 10, 10, 20, after=("extract",)),
        run("publish", 90, 91, 95, after=("slow", "quick")),
        run("aside", 0, 0, 50),
    ]
    assert critical_path(runs, now=at(200)) == ["extract", "slow", "publish"]
    drawn = timeline(runs, now=at(200), zone=UTC)
    assert [row.run.key for row in drawn.rows if row.critical] == ["extract", "slow", "publish"]
    assert drawn.critical == timedelta(seconds=95)


def test_what_still_runs_is_the_end_of_the_critical_path() -> None:
    runs = [run("a", 0, 0, 90), run("b", 0, 1, state="running"), run("c", 91)]
    assert critical_path(runs, now=at(100)) == ["b"]
    assert critical_path([run("a", None)], now=at(100)) == []


@pytest.mark.parametrize(
    ("first", "last", "zone", "clocks"),
    [
        ("11-21T12:00:10", "11-21T12:14:00", "UTC", "12:02 12:04 12:06 12:08 12:10 12:12 12:14"),
        ("11-21T12:00:10", "11-21T18:30:00", "Asia/Kolkata", "18:00 19:00 20:00 21:00 22:00 23:00 00:00"),
        # The clock goes from 02:00 to 03:00 at 01:00 UTC, and in autumn from 03:00 to 02:00.
        ("03-28T23:40:00", "03-29T03:00:00", "Europe/Berlin", "01:00 01:30 03:00 03:30 04:00 04:30 05:00"),
        ("03-28T22:00:00", "03-29T10:00:00", "Europe/Berlin", "00:00 04:00 06:00 08:00 10:00 12:00"),
        ("10-24T23:30:00", "10-25T02:30:00", "Europe/Berlin", "01:30 02:00 02:30 02:00 02:30 03:00 03:30"),
        ("11-18T12:00:00", "11-28T12:00:00", "UTC", "11-20 11-22 11-24 11-26 11-28"),
    ],
)  # fmt: skip
def test_ticks_are_round_by_the_clock_on_the_readers_wall(
    first: str, last: str, zone: str, clocks: str
) -> None:
    begin, end = (datetime.fromisoformat(f"2026-{moment}+00:00") for moment in (first, last))
    drawn = timeline(
        [Run("a", "a", "success", "Success", begin, begin, end)],
        now=end + timedelta(days=90),
        zone=ZoneInfo(zone),
    )
    assert [tick.clock for tick in drawn.ticks] == clocks.split()


def test_the_day_is_written_where_it_changes() -> None:
    drawn = timeline([run("a", 10 * 3600, 10 * 3600, 14 * 3600)], now=at(10**6), zone=UTC)
    assert [(tick.clock, tick.day) for tick in drawn.ticks if tick.day] == [
        ("22:00", "11-21"),
        ("00:00", "11-22"),
    ]


@given(
    st.integers(1, 10**8), st.integers(0, 10**7), st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"])
)
def test_an_axis_has_few_ticks_all_of_them_in_view(length: int, begin: int, zone: str) -> None:
    first = at(begin)
    moments = clock_moments(first, first + timedelta(seconds=length), ZoneInfo(zone))
    assert len(moments) <= MOST_TICKS + 1
    assert moments == sorted(set(moments))
    assert all(first <= moment <= first + timedelta(seconds=length) for moment in moments)
