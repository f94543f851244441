"""How every connection is set up."""

from __future__ import annotations

import time

import psycopg
import pytest
from django.db import connection

from config import sessions
from tests.processes import database_url, eventually

pytestmark = pytest.mark.django_db


def shown(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return str(cursor.fetchone()[0])


def test_web_and_commands_may_not_stand_still_in_a_transaction_for_long() -> None:
    assert shown("idle_in_transaction_session_timeout") == "30s"


def test_a_connection_is_given_up_when_nobody_answers_and_noticed_when_packets_are_dropped() -> None:
    parameters = connection.get_connection_params()

    assert parameters.items() >= sessions.CLIENT.items()
    assert int(parameters["connect_timeout"]) <= 5
    assert int(parameters["tcp_user_timeout"]) <= 10_000


def test_the_server_ends_a_session_that_stands_still_in_a_transaction_and_frees_its_locks() -> None:
    with psycopg.connect(database_url(), autocommit=True) as frozen, psycopg.connect(database_url()) as other:
        sessions.prepare(frozen, idle_in_transaction_session_timeout="100ms")
        frozen.execute("BEGIN")
        frozen.execute("SELECT pg_advisory_xact_lock(4711)")
        began = time.monotonic()
        eventually(lambda: other.execute("SELECT pg_try_advisory_xact_lock(4711)").fetchone()[0], within=5)

        assert time.monotonic() - began < 5
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            frozen.execute("SELECT 1")
