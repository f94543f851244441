"""How every connection to our database is set up, and which poolers are refused.

Everything is set by SET after connecting: a pooler such as PgBouncer refuses `options` as a startup parameter,
or ignores it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

# What libpq does on our side: give up connecting, and notice within about ten seconds that the server's machine
# is gone or that packets are dropped. On a unix socket all but the first mean nothing.
CLIENT = {
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
# What the server does on its side: notice as soon that our machine is gone, and end a session that stands still
# inside a transaction. A frozen process, or one that is cut off, would keep its locks from all others.
_SERVER = {
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "idle_in_transaction_session_timeout": "30s",
    # Our statements read a few rows of an index, also where PostgreSQL expects many. To begin a parallel worker
    # takes 20 ms, the compiler more, of a page that should take 50 in all.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
# The engine computes little between two statements, and stops and ends of jobs wait for its locks.
ENGINE = {"idle_in_transaction_session_timeout": "5s"}

_ours = dict(_SERVER)
_of_thread = threading.local()

TRANSACTION_POOLING = (
    "DATABASE_URL leads to a pooler that gives each transaction another session (transaction or statement "
    "pooling). Connect directly, or through a pooler in session mode: the engine uses LISTEN, advisory locks "
    "and prepared statements, which do not survive transaction pooling."
)


def limit(settings: dict[str, str]) -> None:
    """Give sessions that this process opens from now on these PostgreSQL `settings` as well."""
    _ours.update(settings)


def limit_thread(settings: dict[str, str]) -> None:
    """Give sessions that this thread opens from now on these PostgreSQL `settings` as well."""
    _of_thread.settings = settings


def prepare(session: Any, **settings: str) -> None:
    """Set up a new psycopg connection in autocommit, in one round trip; `settings` are for this one alone."""
    values = _ours | getattr(_of_thread, "settings", {}) | settings
    quoted = {name: value.replace("'", "''") for name, value in values.items()}
    session.execute("; ".join(f"SET {name} = '{value}'" for name, value in quoted.items()))


def is_pooled_by_transaction(first: Any, connect: Callable[[], Any]) -> bool:
    """Whether something between us and the server hands sessions out by transaction.

    `first` is a psycopg connection in autocommit, `connect` opens another one like it. A pooler gives its
    clients process numbers of its own, so a direct connection is known by its number and costs one statement.
    Behind a pooler, two connections run transactions at the same time: with a session each, their numbers
    differ and neither changes.
    """
    import psycopg

    own = _process(first)
    if own == first.info.backend_pid:
        return False
    with contextlib.closing(connect()) as second:
        for _round in range(3):
            try:
                second.execute("BEGIN")
                other = _process(second)
                if other == own or _process(first) != own:
                    return True
                # The session that is free last is often the next to be given out, and sometimes the first.
                first.execute("BEGIN")
                second.execute("COMMIT")
                first.execute("COMMIT")
            except psycopg.errors.ProtocolViolation:
                return True
            if _process(second) != other or _process(first) != own or _process(first) != own:
                return True
    return False


def _process(session: Any) -> int:
    return int(session.execute("SELECT pg_backend_pid()").fetchone()[0])
