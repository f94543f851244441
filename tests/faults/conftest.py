"""Fixtures of the tests of faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection

from config import database
from scheduling.signals import batch_ended
from tests.engine.rerun_world import NOON
from tests.faults.races import deadlocks
from workflows import graphs


@pytest.fixture(autouse=True)
def jobs_of_these_tests(settings: Any) -> None:
    settings.TAILRACE = settings.TAILRACE | {"JOB_MODULES": ["tests.faults.jobs"]}


@pytest.fixture
def told() -> Any:
    """The (batch, state) of every `batch_ended` while the test runs."""
    heard: list[tuple[int, str]] = []

    def hear(batch_id: int, state: str, **_: Any) -> None:
        heard.append((batch_id, state))

    batch_ended.connect(hear)
    yield heard
    batch_ended.disconnect(hear)


@pytest.fixture
def no_deadlocks() -> Any:
    before = deadlocks()
    yield
    assert deadlocks() == before


@pytest.fixture
def noon() -> Any:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture
def own_server(tmp_path: Path, django_db_blocker: Any) -> Iterator[database.EmbeddedServer]:
    """A server that only this test uses, with our tables, on Django's connection."""
    server = database.EmbeddedServer(tmp_path / "pg" / "postgres")
    before = dict(connection.settings_dict)
    with django_db_blocker.unblock():
        connection.close()
        connection.settings_dict.update(database.settings_from_url(server.start()))
        # What another server had under the same ids.
        for known in (graphs.revision_of, graphs.graph_of, graphs.nodes_of, graphs.keys_of):
            known.cache_clear()
        graphs.task_revision_of.cache_clear()
        try:
            call_command("migrate", verbosity=0)
            yield server
        finally:
            connection.close()
            connection.settings_dict.update(before)
            server.stop()
