"""Behind a real PgBouncer: session mode works, and in the other modes every process refuses to start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from config import database, sessions
from scheduling.engine.lead import FROZEN_SECONDS
from tests import factories
from tests.faults.cluster import cluster, nothing_lost_or_doubled
from tests.faults.test_scheduler import leader
from tests.pooler import pgbouncer
from tests.processes import ROOT, database_url, eventually, manage

pytestmark = pytest.mark.django_db(transaction=True)

SENTENCE = "Connect directly, or through a pooler in session mode"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def web(log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A gunicorn as the README starts it, on a free port."""
    port = free_port()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{port}"),
                *("--no-control-socket", "--worker-class", "gthread", "--threads", "8"),
            ],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(15)


def test_scheduler_and_node_work_through_a_pooler_in_session_mode(tmp_path: Path) -> None:
    # With PgBouncer's defaults: it refuses startup parameters that it does not know.
    with pgbouncer("session") as url, cluster(tmp_path) as running:
        running.environment["DATABASE_URL"] = url
        running.start_node("n1")
        running.start_scheduler("s1")
        batch = running.trigger(50)
        task = factories.task(group=running.group, interval=1)
        running.ended(batch)
        nothing_lost_or_doubled(running, batch)
        # A stop is heard by LISTEN, a due time is fired.
        eventually(lambda: task.batches.count() >= 2, log=running.log)


def test_a_leader_that_is_frozen_loses_its_lead_behind_a_pooler(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pgbouncer("session") as url, manage("scheduler", log=log, DATABASE_URL=url) as first:
        eventually(leader, within=20, log=log)
        with manage("scheduler", log=log, DATABASE_URL=url):
            eventually(lambda: "standing by" in log.read_text(), within=20, log=log)
            led = leader()
            first.send_signal(signal.SIGSTOP)
            try:
                eventually(lambda: leader() not in {None, led}, within=FROZEN_SECONDS + 5, log=log)
            finally:
                first.send_signal(signal.SIGCONT)
            eventually(lambda: "leads no more" in log.read_text(), log=log)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("pool", [{}, {"server_round_robin": 1}, {"default_pool_size": 1}], ids=str)
def test_other_modes_are_told_from_session_mode(mode: str, pool: dict[str, int]) -> None:
    with pgbouncer(mode, **pool) as url:
        for _time in range(3):
            with pytest.raises(database.UnsuitableDatabase, match=SENTENCE):
                database.check_server(url)


def test_transaction_mode_is_noticed_while_others_use_the_pool() -> None:
    with pgbouncer("transaction") as url, psycopg.connect(url) as one, psycopg.connect(url) as two:
        one.execute("SELECT 1")
        two.execute("SELECT 1")
        with pytest.raises(database.UnsuitableDatabase, match=SENTENCE):
            database.check_server(url)
        one.commit()
        with pytest.raises(database.UnsuitableDatabase, match=SENTENCE):
            database.check_server(url)


def test_session_mode_and_a_direct_connection_are_accepted() -> None:
    with pgbouncer("session") as url:
        database.check_server(url)
    database.check_server(database_url())


def test_a_direct_connection_costs_no_second_one() -> None:
    def refuse() -> psycopg.Connection:
        pytest.fail("a second connection is needed behind a pooler only")

    with psycopg.connect(database_url(), autocommit=True) as direct:
        assert not sessions.is_pooled_by_transaction(direct, refuse)


@pytest.mark.parametrize(
    "command",
    [
        ("scheduler",),
        ("node", "n1", "--group", "etl"),
        ("trigger", "tidy"),
        ("migrate",),
        ("up",),
        ("shell", "-c", "print(1)"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_refuses_transaction_mode_and_says_why(tmp_path: Path, command: tuple[str, ...]) -> None:
    log = tmp_path / "log"
    own = {"TAILRACE_VAR": str(tmp_path / "var"), "PORT": str(free_port())}
    with (
        pgbouncer("transaction") as url,
        manage(*command, log=log, DATABASE_URL=url, **own) as process,
    ):
        assert process.wait(20) != 0
    said = log.read_text()
    assert SENTENCE in said
    assert "Traceback" not in said


def test_the_web_refuses_transaction_mode_and_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pgbouncer("transaction") as url, web(log, DATABASE_URL=url) as process:
        assert process.wait(30) != 0
    assert SENTENCE in log.read_text()
