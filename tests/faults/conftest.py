"""Fixtures of the tests of faults."""

from __future__ import annotations

from typing import Any

import pytest
import time_machine

from scheduling.signals import batch_ended
from tests.engine.rerun_world import NOON
from tests.faults.races import deadlocks


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
