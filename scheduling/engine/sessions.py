"""How the engine's processes hold their sessions, so that one that stands still holds up nobody else."""

from __future__ import annotations

from typing import Any

from django.db.backends.signals import connection_created


def never_idle_in_transaction() -> None:
    """Let PostgreSQL end a session of this process that stands still inside a transaction.

    A process that is frozen, or cut off, at that moment would keep what it has locked from all others.
    """
    connection_created.connect(_limit)


def _limit(*, connection: Any, **_kwargs: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '5s'")
