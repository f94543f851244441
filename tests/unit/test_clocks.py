"""Names of cycles: stored in UTC, read by the reader's clock, and written back as they were read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.utils import timezone

from scheduling import clocks

AT = datetime(2026, 11, 27, 23, tzinfo=UTC)
NAME = "weather_hourly 2026-11-27 23:00 UTC"


def test_a_name_is_stored_in_utc_whoever_acts() -> None:
    with timezone.override("America/New_York"):
        assert f"weather_hourly {clocks.stored(AT)}" == NAME


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC", "2026-11-27 23:00 UTC"),
        ("America/New_York", "2026-11-27 18:00 EST"),
        ("Asia/Shanghai", "2026-11-28 07:00 CST"),
        ("Asia/Kolkata", "2026-11-28 04:30 IST"),
        ("America/Sao_Paulo", "2026-11-27 20:00 -03"),
    ],
)
def test_a_stored_name_is_shown_in_the_zone_of_its_reader_and_found_again(zone: str, shown: str) -> None:
    with timezone.override(zone):
        assert clocks.titled(AT) == shown
        assert clocks.by_clock(NAME) == f"weather_hourly {shown}"
        assert clocks.to_store(f"weather_hourly {shown}") == NAME
        assert clocks.parted(NAME) == ("weather_hourly", shown[:16])
        assert clocks.without_zone(NAME) == f"weather_hourly {shown[:16]}"
        # Without its zone it is by the reader's clock too.
        assert clocks.to_store(f"weather_hourly {shown[:16]}") == NAME


def test_both_passes_of_a_repeated_hour_are_told_apart_by_their_zone() -> None:
    first, second = datetime(2026, 11, 1, 5, 30, tzinfo=UTC), datetime(2026, 11, 1, 6, 30, tzinfo=UTC)
    with timezone.override("America/New_York"):
        assert clocks.titled(first) == "2026-11-01 01:30 EDT"
        assert clocks.titled(second) == "2026-11-01 01:30 EST"
        for each in (first, second):
            assert clocks.to_store(clocks.titled(each)) == clocks.stored(each)


@pytest.mark.parametrize(
    "text", ["extract", "", "at 12:00 UTC", "2026-13-01 10:00", "2026-11-27 23:00:05", "é 1"]
)
def test_other_text_stays_as_it_is(text: str) -> None:
    with timezone.override("Asia/Tokyo"):
        assert clocks.by_clock(text) == text
        assert clocks.to_store(text) == text
        assert clocks.parted(text) == (text, "")
