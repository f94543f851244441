from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection

from config import clock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A database whose clock stood at NOON at second 0 since boot, and when it was asked; the last is now."""
    now = [100.0]
    monkeypatch.setattr(clock, "_since_boot", lambda: now[-1])
    monkeypatch.setattr(clock, "_ask", lambda: NOON + timedelta(seconds=now[-1]))
    monkeypatch.setattr(clock, "READ_AGAIN_SECONDS", 5.0)
    monkeypatch.setattr(clock, "_read", None)
    return now


def test_between_two_questions_the_time_since_boot_goes_on(
    asked: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clock.now() == NOON + timedelta(seconds=100)
    monkeypatch.setattr(clock, "_ask", lambda: pytest.fail("asked again too soon"))
    asked.append(104.5)
    assert clock.now() == NOON + timedelta(seconds=104.5)


def test_after_five_seconds_the_database_is_asked_again_and_its_jump_followed(
    asked: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now()
    monkeypatch.setattr(clock, "_ask", lambda: NOON + timedelta(hours=1))
    asked.append(105.0)
    assert clock.now() == NOON + timedelta(hours=1)


def test_a_slow_answer_makes_it_late_never_early(asked: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly() -> datetime:
        at = NOON + timedelta(seconds=asked[-1])
        asked.append(asked[-1] + 3)
        return at

    monkeypatch.setattr(clock, "_ask", slowly)
    assert clock.now() == NOON + timedelta(seconds=100)
    assert asked[-1] == 103


@pytest.mark.django_db
def test_a_machine_whose_clock_is_set_wrong_has_the_database_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> datetime:
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            return cursor.fetchone()[0]

    monkeypatch.setattr(clock, "_ask", ask)
    monkeypatch.setattr(clock, "_read", None)
    right = datetime.now(UTC)
    with time_machine.travel(right + timedelta(hours=1)):
        assert abs(clock.now() - right) < timedelta(seconds=10)
        assert clock.own() - clock.now() > timedelta(minutes=59)


def test_a_clock_that_goes_off_is_told_once_and_once_when_it_is_right_again() -> None:
    watch = clock.Watch()
    assert [watch(each) for each in (None, 0.0, -1.9)] == ["", "", ""]
    assert watch(-3.26).startswith("This machine's clock is 3.3 s behind the database's.")
    assert watch(600.0) == ""
    assert watch(0.3) == "This machine's clock agrees with the database's again"
    assert watch(600.0).startswith("This machine's clock is 600.0 s ahead of the database's.")
