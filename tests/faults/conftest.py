"""Fixtures of the tests of faults."""

from typing import Any

import pytest

from scheduling.signals import batch_ended


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
