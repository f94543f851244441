"""The sender as a real process: killed in the middle of a message, and two of them at once."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from django.db.models import F

from scheduling.models import Notification
from scheduling.notifications import outbox
from tests import factories
from tests.doors import web_door
from tests.processes import eventually, manage

pytestmark = pytest.mark.django_db(transaction=True)


def post(count: int) -> None:
    place = {"team_id": factories.team().pk, "channels": ["ops"], "event": "failure"}
    for number in range(count):
        outbox.post(f"n:{number}", subject=f"n{number}", text="failed", **place)


def all_sent() -> bool:
    return not Notification.objects.exclude(state="sent").exists()


def test_a_scheduler_killed_while_it_sends_loses_no_notification_and_repeats_at_most_that_one(tmp_path: Path):
    hangs = threading.Event()
    log = tmp_path / "log"
    with web_door() as door:
        # The fourth message arrives, and before its sender can record that, it is dead.
        def answer(number: int) -> int:
            if number == 3:
                hangs.wait(20)
            return 200

        door.answer = answer
        post(8)
        with manage("scheduler", log=log, TAILRACE_CHANNEL_OPS=door.address) as first:
            eventually(lambda: door.knocks == 4, within=30, log=log)
            first.kill()
            first.wait()
        hangs.set()
        # So long that nobody else takes it; a test need not wait for that.
        Notification.objects.filter(attempts=1, state="waiting").update(
            next_attempt_at=F("next_attempt_at") - timedelta(seconds=outbox.LEASE_SECONDS)
        )
        with manage("scheduler", log=log, TAILRACE_CHANNEL_OPS=door.address):
            eventually(all_sent, within=30, log=log)
        told = Counter(door.subjects)
    assert set(told) == {f"n{number}" for number in range(8)}
    assert [subject for subject, times in told.items() if times > 1] in ([], ["n3"])
    # Whatever was logged, it was not where to.
    assert "hunter2-pass" not in log.read_text()
    assert "T0K3N" not in log.read_text()


def test_a_scheduler_ends_soon_while_a_channel_hangs(tmp_path: Path):
    released = threading.Event()
    log = tmp_path / "log"
    with web_door() as door:
        door.answer = lambda _n: 200 if released.wait(30) else 500
        post(1)
        with manage("scheduler", log=log, TAILRACE_CHANNEL_OPS=f"{door.address}?rto=30") as scheduler:
            eventually(lambda: door.knocks == 1, within=30, log=log)
            scheduler.terminate()
            assert scheduler.wait(10) == 0
        released.set()
    assert Notification.objects.get().state == "waiting"
