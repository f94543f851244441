import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connections
from django.test import Client
from django.utils import timezone

from scheduling.engine.lead import LEAD_KEY
from scheduling.health import SharedCheck
from scheduling.models import Notification, SchedulerProcess
from scheduling.states import NodeState
from tests import factories as make
from tests.processes import database_url

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def lead() -> Iterator[psycopg.Connection[Any]]:
    """A session that holds the schedulers' lead."""
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute("SELECT pg_advisory_lock(%s)", [LEAD_KEY])
        yield session


def scheduler(*, leads: bool, round_ago: float | None = 0.0) -> None:
    now = timezone.now()
    last = None if round_ago is None else now - timedelta(seconds=round_ago)
    SchedulerProcess.objects.create(
        host="a", pid=1, started_at=now, heartbeat_at=now, leads=leads, last_round_at=last
    )


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The database's address leads to a socket that never answers, as when packets are dropped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = connections["default"].settings_dict
        monkeypatch.setitem(settings, "HOST", "127.0.0.1")
        monkeypatch.setitem(settings, "PORT", str(listener.getsockname()[1]))
        yield listener
        ends = [each for each in threading.enumerate() if each.name == "health"]
    # The kernel ends the connections with their listener, and the checks with them.
    for each in ends:
        each.join(10)
        assert not each.is_alive()


def test_it_is_well_when_a_leader_goes_its_rounds_and_nobody_need_sign_in(lead: object) -> None:
    scheduler(leads=True, round_ago=4)
    scheduler(leads=False, round_ago=None)
    answer = Client().get("/healthz")
    body = answer.json()
    assert (answer.status_code, body["status"], body["problem"], body["database"]) == (200, "ok", "", "ok")
    assert (body["scheduler"]["leading"], body["scheduler"]["standing_by"]) == (True, 1)
    assert 4 <= body["scheduler"]["last_round_seconds_ago"] < 10
    assert "no-store" in answer["Cache-Control"]


def test_it_is_unwell_when_no_scheduler_leads() -> None:
    scheduler(leads=True)
    answer = Client().get("/healthz")
    body = answer.json()
    assert (answer.status_code, body["status"]) == (503, "nothing is scheduled")
    assert body["problem"] == "No scheduler leads, so nothing is scheduled. Start one: manage.py scheduler"
    assert body["scheduler"] == {"leading": False, "last_round_seconds_ago": None, "standing_by": 0}


def test_it_is_unwell_when_the_leader_has_finished_no_round_for_too_long(lead: object) -> None:
    scheduler(leads=True, round_ago=185)
    answer = Client().get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["problem"].startswith("The leading scheduler finished its last round 3 min ago.")


def test_it_counts_the_nodes_of_each_group_and_says_how_long_the_oldest_notification_waits(
    lead: object,
) -> None:
    group, empty = make.group(), make.group()
    for state in (NodeState.ONLINE, NodeState.ONLINE, NodeState.OFFLINE):
        make.node(group=group, state=state)
    now = timezone.now()
    for number, (state, minutes) in enumerate([("sent", 60), ("waiting", 5), ("waiting", 1)]):
        at = now - timedelta(minutes=minutes)
        Notification.objects.create(
            key=number, team=group.team, channel="ops", event="failure", state=state, created_at=at,
            next_attempt_at=at, give_up_at=at, sent_at=at if state == "sent" else None,
        )  # fmt: skip
    body = Client().get("/healthz").json()
    assert body["nodes"] == [
        {"group": group.pk, "online": 2, "draining": 0, "offline": 1},
        {"group": empty.pk, "online": 0, "draining": 0, "offline": 0},
    ]
    assert 300 <= body["outbox"]["oldest_waits_seconds"] < 310
    assert group.name not in str(body)


def test_it_says_so_when_the_database_refuses() -> None:
    def refuse() -> Any:
        raise OperationalError("server closed the connection")

    report = SharedCheck(refuse)()
    assert (report.status, report.body["status"]) == (503, "database unavailable")


def test_it_answers_in_time_while_all_packets_to_the_database_are_dropped(silent: socket.socket) -> None:
    browser = Client()
    browser.cookies["sessionid"] = "of somebody who is signed in"
    answers: list[tuple[int, str, float]] = []

    def ask() -> None:
        began = time.monotonic()
        answer = browser.get("/healthz")
        answers.append((answer.status_code, answer.json()["problem"], time.monotonic() - began))

    browser.get("/livez")
    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(status, problem[:41]) for status, problem, _took in answers] == [
        (503, "The database has not answered for 2 s. Ch")
    ] * 20
    assert max(took for *_rest, took in answers) < 3
    # One that hangs is not waited for again, and one is enough for all.
    ask()
    assert answers[-1][2] < 0.5
    began = time.monotonic()
    assert browser.get("/livez").json() == {"status": "ok"}
    assert time.monotonic() - began < 0.5
    silent.settimeout(1)
    silent.accept()[0].close()
    with pytest.raises(TimeoutError):
        silent.accept()


@pytest.mark.parametrize("address", ["/healthz", "/livez"])
def test_they_only_answer_to_be_read(address: str) -> None:
    answer = Client().post(address)
    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
