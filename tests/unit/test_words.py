from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from scheduling import words
from scheduling.models import TaskRevision

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def cron(expression: str, zone: str = "Europe/Berlin") -> Any:
    return SimpleNamespace(trigger="cron", cron=expression, timezone=zone, interval=None)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("0 2 * * *", "every day at 02:00 Europe/Berlin"),
        ("0 0 2 * * *", "every day at 02:00 Europe/Berlin"),
        ("5 0,12 * * *", "every day at 00:05 and 12:05 Europe/Berlin"),
        ("0 6,12,18 * * *", "every day at 06:00, 12:00 and 18:00 Europe/Berlin"),
        ("0 * * * *", "every hour at minute 0 Europe/Berlin"),
        ("0,30 * * * *", "every hour at minutes 0 and 30 Europe/Berlin"),
        ("15 */6 * * *", "every 6 hours at minute 15 Europe/Berlin"),
        ("0 8-17 * * *", "every hour from 08:00 to 17:00 Europe/Berlin"),
        ("30 7 * * 1-5", "Monday to Friday at 07:30 Europe/Berlin"),
        ("0 3 * * 0", "every Sunday at 03:00 Europe/Berlin"),
        ("0 3 * * 7", "every Sunday at 03:00 Europe/Berlin"),
        ("0 9 * * mon,THU", "every Monday and Thursday at 09:00 Europe/Berlin"),
        ("*/5 * * * MON-FRI", "every 5 minutes, Monday to Friday Europe/Berlin"),
        ("0 0 1 * *", "every month on day 1 at 00:00 Europe/Berlin"),
        ("0 0 1,15 * *", "every month on days 1 and 15 at 00:00 Europe/Berlin"),
        ("15 3 L * *", "every month on its last day at 03:15 Europe/Berlin"),
        ("0 0 1 1 *", "every year on 1 January at 00:00 Europe/Berlin"),
    ],
)
def test_a_common_schedule_is_said_in_words(expression: str, said: str) -> None:
    assert words.of_trigger(cron(expression)) == said


@pytest.mark.parametrize(
    "expression",
    [
        # Every seven minutes it is not: after :56 comes :00.
        "*/7 * * * *",
        "0 */5 * * *",
        "0 9 * * MON#1",
        "0 9 1 * MON",
        "1-10 2 * * *",
        "5 0 2 * * *",
        "0 0 1 1-6 *",
        "0,10,20,30 1,2,3 * * *",
    ],
)
def test_what_has_no_short_wording_stands_as_it_is(expression: str) -> None:
    assert words.of_trigger(cron(expression)) == f"{expression} (Europe/Berlin)"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1, "every second"),
        (30, "every 30 seconds"),
        (60, "every minute"),
        (300, "every 5 minutes"),
        (90, "every 1 min 30 s"),
        (3600, "every hour"),
        (5400, "every 1 h 30 min"),
        (7200, "every 2 hours"),
        (86400, "every day"),
        (172800, "every 2 days"),
    ],
)
def test_a_fixed_rate_is_said_in_words(seconds: int, said: str) -> None:
    assert words.of_trigger(SimpleNamespace(trigger="fixed_rate", interval=seconds)) == said  # type: ignore[arg-type]


def test_what_has_no_schedule_says_what_begins_it() -> None:
    assert words.of_trigger(TaskRevision(trigger="manual")) == "by hand only"
    assert words.of_trigger(TaskRevision(trigger="workflow")) == "by workflows"


@pytest.mark.parametrize(
    ("away", "said"),
    [
        (timedelta(0), "in under a minute"),
        (timedelta(seconds=59), "in under a minute"),
        (timedelta(minutes=3, seconds=40), "in 3 min"),
        (timedelta(hours=3, minutes=5), "in 3 h 05 min"),
        (timedelta(days=2), "in 2 d"),
        (timedelta(days=2, hours=4, minutes=9), "in 2 d 4 h"),
        (timedelta(seconds=-1), "under a minute ago"),
        (timedelta(minutes=-90), "1 h 30 min ago"),
    ],
)
def test_a_moment_is_said_by_how_far_off_it_is(away: timedelta, said: str) -> None:
    assert words.relative(NOW + away, NOW) == said


def test_what_was_to_come_is_due_from_its_time_on() -> None:
    assert words.until(NOW + timedelta(minutes=3), NOW) == "in 3 min"
    assert words.until(NOW, NOW) == words.until(NOW - timedelta(hours=1), NOW) == "due now"


def test_what_a_task_does_about_trouble_is_said_in_words() -> None:
    plain = TaskRevision()
    assert words.of_retries(plain) == "A failed instance is not tried again."
    assert words.of_timeout(plain) == "An instance may take as long as it needs."
    assert words.of_success_ratio(plain) == "A batch succeeds when all of its instances do."
    firm = TaskRevision(
        retry_count=3, retry_interval=30, timeout=600, success_ratio=80, overlap="queue", misfire="run_all"
    )
    assert words.of_retries(firm) == "A failed instance is tried again up to 3 times, after 30 s."
    assert words.of_retries(TaskRevision(retry_count=1)) == "A failed instance is tried again once, at once."
    assert words.of_timeout(firm) == "An instance is ended after 10 min."
    assert words.of_success_ratio(firm) == "A batch succeeds when 80 % of its instances do."
    assert words.of_overlap(firm) == "A run waits until the earlier one has ended."
    assert words.of_misfire(firm) == "Due times that were missed are all run."
