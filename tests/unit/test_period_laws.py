"""Laws of data and upstream cycles, in whatever zone and by whatever cron."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.period_support import (
    CAIRO,
    LORD_HOWE,
    NEW_YORK,
    NUUK,
    Calendar,
    at,
    upstream,
)
from workflows import periods
from workflows.periods import Offset

# --- laws ------------------------------------------------------------------------------------------

ZONES = ["UTC", NEW_YORK, LORD_HOWE, CAIRO, NUUK, "Asia/Kolkata", "America/Havana", "America/Santiago"]
HOURS = ["0 * * * *", "5 * * * *", "45 * * * *"]
DAYS = ["0 0 * * *", "30 2 * * *", "30 23 * * *"]
COARSE = ["0 4 * * MON", "0 0 * * SUN", "30 2 1 * *", "0 0 31 * *", "0 1 * * MON-FRI"]
FINE = ["*/15 * * * *", "7-59/20 1-3 * * *", "30 */6 * * *"]
# Any year since the clocks of these zones have changed as they do, and a change is as likely as no change.
moments = st.one_of(
    st.integers(0, 28 * 365 * 24 * 60).map(lambda minutes: at("2008-01-01") + timedelta(minutes=minutes)),
    st.sampled_from([at(change) for change in ("2025-03-09", "2025-04-05", "2025-10-04", "2025-11-01")]),
)
thrifty = settings(max_examples=40, deadline=None)


def some(expressions: list[str]) -> st.SearchStrategy[Calendar]:
    return st.builds(Calendar, st.sampled_from(expressions), st.sampled_from(ZONES))


def slots_from(calendar: Calendar, begin: datetime, number: int) -> list[datetime]:
    found = [periods.next_slot(calendar, begin)]
    while len(found) < number:
        found.append(periods.next_slot(calendar, found[-1]))
    return found


@thrifty
@given(some(HOURS + DAYS + COARSE + FINE), moments)
def test_the_data_of_cycles_meets_without_gap_or_overlap_and_is_over_when_they_are_due(calendar, begin):
    cycles = slots_from(calendar, begin, 8)
    assert cycles == sorted(set(cycles))
    data = [periods.data_period(calendar, slot) for slot in cycles]
    assert all(one.end == next_one.start for one, next_one in pairwise(data))
    assert all(period.start <= period.end <= slot for slot, period in zip(cycles, data, strict=True))
    assert list(periods.slots(calendar, begin, cycles[-1])) == cycles
    assert [periods.previous_slot(calendar, later) for later in cycles[1:]] == cycles[:-1]


@thrifty
@given(some(DAYS), some(HOURS), moments)
def test_every_day_has_its_hours_and_no_hour_is_in_two(daily, hourly, begin):
    cycles = slots_from(daily, begin, 5)
    found = [upstream(Offset.WITHIN_PERIOD, daily, slot, hourly) for slot in cycles]
    # In whatever zones: the hours of consecutive days follow each other, none twice, none left out.
    hours = [hour for day in found for hour in day]
    assert hours == list(periods.slots(hourly, hours[0] - timedelta(microseconds=1), hours[-1]))
    # A day has as many hours as it is long, but for one that it shares with the next.
    for slot, day in zip(cycles, found, strict=True):
        data = periods.data_period(daily, slot)
        assert abs(len(day) - (data.end - data.start) / timedelta(hours=1)) <= 1


@thrifty
@given(some(COARSE), some(DAYS + FINE[2:]), moments)
def test_all_that_is_finer_lies_in_exactly_one_period_of_what_is_coarser(coarse, fine, begin):
    found = [upstream(Offset.WITHIN_PERIOD, coarse, slot, fine) for slot in slots_from(coarse, begin, 3)]
    together = [slot for each in found for slot in each]
    assert together == list(periods.slots(fine, together[0] - timedelta(microseconds=1), together[-1]))


@thrifty
@given(st.sampled_from([HOURS, DAYS, COARSE[:2]]), st.data(), moments)
def test_of_an_upstream_of_the_same_grain_exactly_one_is_the_same_cycle(expressions, data, begin):
    downstream, above = data.draw(some(expressions)), data.draw(some(expressions))
    for slot in slots_from(downstream, begin, 4):
        found = upstream(Offset.SAME, downstream, slot, above)
        assert len(found) == 1
        assert upstream(Offset.SAME, downstream, slot, downstream) == [slot]
        own, its = periods.data_period(downstream, slot), periods.data_period(above, found[0])
        assert own == its or own.middle in its


@thrifty
@given(some(HOURS + DAYS + COARSE + FINE), some(HOURS + DAYS + COARSE + FINE), moments, st.integers(1, 5))
def test_what_is_last_and_previous_is_never_later_and_leaves_out_nothing_newer(downstream, above, begin, count):
    slot = periods.next_slot(downstream, begin)
    last = upstream(Offset.LAST, downstream, slot, above, count=count)
    assert len(last) == count
    assert last == list(periods.slots(above, last[0] - timedelta(microseconds=1), slot))
    [previous] = upstream(Offset.PREVIOUS, downstream, slot, above)
    assert previous < slot <= periods.next_slot(above, previous)


@thrifty
@given(
    st.sampled_from(list(Offset)),
    some(HOURS + DAYS + COARSE + FINE),
    some(HOURS + DAYS + COARSE + FINE),
    moments,
    st.timedeltas(timedelta(days=-8), timedelta(days=1)),
)
def test_a_bound_leaves_out_the_oldest_and_only_those(offset, downstream, above, begin, shift):
    slot = periods.next_slot(downstream, begin)
    every = upstream(offset, downstream, slot, above, count=5)
    since = slot + shift
    assert upstream(offset, downstream, slot, above, count=5, since=since) == [
        each for each in every if each > since
    ]
    assert offset == Offset.WITHIN_PERIOD or every
