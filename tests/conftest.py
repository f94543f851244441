"""Gives the tests a PostgreSQL of their own, takes it away again whatever happened, and spares them waste.

One embedded server in a temporary directory serves the whole session. With pytest-xdist the controller starts
it and its workers inherit DATABASE_URL; pytest-django makes one database a worker. A DATABASE_URL given from
outside is used as it is.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import transaction

from config import database

_SERVER = pytest.StashKey[tuple[database.EmbeddedServer, Path]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not os.environ.get("DATABASE_URL"):
        _start_server(config)
    # pytest-django has read the settings by now, but nobody has connected yet.
    settings.DATABASES["default"].update(database.settings_from_url(os.environ["DATABASE_URL"]))
    # Hashing that is as slow as it should be would be most of the time of whatever makes or signs in a user.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    # All that was imported stays: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()


def _start_server(config: pytest.Config) -> None:
    # Without this, a terminated session would leave the server behind.
    signal.signal(signal.SIGTERM, _ended_from_outside)
    directory = Path(tempfile.mkdtemp(prefix="tailrace-tests-"))
    server = database.EmbeddedServer(directory / "postgres")
    config.stash[_SERVER] = (server, directory)
    try:
        os.environ["DATABASE_URL"] = url = server.start()
        # It is thrown away with the session; that it outlives a crash of the machine is nobody's wish. A crash
        # of the server itself, which tests do cause, loses nothing all the same.
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
    except BaseException:
        pytest_unconfigure(config)
        raise


def _ended_from_outside(*_: Any) -> None:
    pytest.exit("the test session was terminated", returncode=143)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    server, directory = config.stash.get(_SERVER, (None, None))
    if server is None or directory is None:
        return
    del config.stash[_SERVER]
    os.environ.pop("DATABASE_URL", None)
    try:
        server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def lasting(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A transaction around a whole module: what its module-wide fixtures make is there for all of its tests.

    What a test itself does is undone after it as ever: its own transaction is a savepoint in this one. Nobody
    else sees any of it, so this is nothing for tests that commit (`transaction=True`) or that two connections
    take part in.
    """
    with django_db_blocker.unblock(), transaction.atomic():
        yield
        transaction.set_rollback(True)
