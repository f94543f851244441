"""Statements that are prepared, and what wakes those who wait."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
from django.db import connection
from psycopg.rows import namedtuple_row

STOP_CHANNEL = "tailrace_stop"
WORK_CHANNEL = "tailrace_work"


def execute(statement: str, parameters: dict[str, Any]) -> Any:
    """Run one prepared statement on Django's connection and return its first row, or None.

    Django binds on the client, which makes the server plan these long statements anew each time.
    """
    return next(iter(execute_all(statement, parameters)), None)


def execute_all(statement: str, parameters: dict[str, Any]) -> list[Any]:
    """Like `execute`, and return every row."""
    connection.ensure_connection()
    with (
        connection.wrap_database_errors,
        psycopg.Cursor(connection.connection, row_factory=namedtuple_row) as cursor,
    ):
        cursor.execute(statement, parameters, prepare=True)
        return cursor.fetchall() if cursor.description else []


def notify(channel: str, payload: object = "") -> None:
    """Wake whoever listens on `channel`; PostgreSQL delivers it when the transaction commits."""
    execute("SELECT pg_notify(%(channel)s, %(payload)s)", {"channel": channel, "payload": str(payload)})


def database_now() -> datetime:
    """The time by the database's clock, which decides when an instance may be claimed and a lease is over."""
    moment: datetime = execute("SELECT statement_timestamp() AS now", {}).now
    return moment
