"""Gives the tests a PostgreSQL of their own, takes it away again whatever happened, and spares them waste.

One embedded server in a temporary directory serves the whole session. With pytest-xdist the controller starts
it and its workers inherit DATABASE_URL; pytest-django makes one database a worker. A DATABASE_URL given from
outside is used as it is.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import transaction
from django.test import client
from django.test.utils import ContextList
from django.utils import timezone, translation

from config import clock, database
from tests import databases

_SERVER = pytest.StashKey[tuple[database.EmbeddedServer, Path]]()
# Where the session's own server is; its workers hear of it this way.
_DIRECTORY = "TAILRACE_TESTS"
_tests = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not os.environ.get("DATABASE_URL"):
        _start_server(config)
    # pytest-django has read the settings by now, but nobody has connected yet.
    settings.DATABASES["default"].update(database.settings_from_url(os.environ["DATABASE_URL"]))
    # Hashing that is as slow as it should be would be most of the time of whatever makes or signs in a user.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    client.store_rendered_templates = _keep_context_of_page
    databases.empty_in_one_statement()
    # The clock that time-machine moves, asked each time. Processes under test ask the database.
    clock._ask, clock._since_boot, clock.READ_AGAIN_SECONDS = clock.own, float, 0.0
    if directory := os.environ.get(_DIRECTORY):
        databases.migrate_once(Path(directory))


def _keep_context_of_page(
    store: dict[str, Any], signal: Any, sender: Any, template: Any, context: Any, **_: Any
) -> None:
    """What the test client does for `response.context`, for the page alone.

    Copying the context of each icon, row and widget in it takes longer than rendering them.
    """
    if "context" not in store:
        store |= {"templates": [template], "context": ContextList([copy(context)])}


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    # A request leaves its language and zone behind, which the next one sets for itself; a test that makes none
    # shall not depend on what was asked before it.
    translation.deactivate()
    timezone.deactivate()
    # Looking for cycles as often as Python does takes an eighth of all the time. Now and then is soon enough to
    # hear of what was left open.
    if next(_tests) % 40 == 0:
        gc.collect(0)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    # All that was imported stays: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    gc.disable()


def _start_server(config: pytest.Config) -> None:
    # Without this, a terminated session would leave the server behind.
    signal.signal(signal.SIGTERM, _ended_from_outside)
    directory = Path(tempfile.mkdtemp(prefix="tailrace-tests-"))
    os.environ[_DIRECTORY] = str(directory)
    server = database.EmbeddedServer(directory / "postgres")
    config.stash[_SERVER] = (server, directory)
    try:
        os.environ["DATABASE_URL"] = url = server.start()
        # It is thrown away with the session; that it outlives a crash of the machine is nobody's wish. A crash
        # of the server itself, which tests do cause, loses nothing all the same.
        with psycopg.connect(url, autocommit=True) as session:
            for switched_off in ("fsync", "full_page_writes", "jit"):
                session.execute(f"ALTER SYSTEM SET {switched_off} = off")
            session.execute("SELECT pg_reload_conf()")
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
    os.environ.pop(_DIRECTORY, None)
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
