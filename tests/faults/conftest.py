from typing import Any

import pytest


@pytest.fixture(autouse=True)
def jobs_of_these_tests(settings: Any) -> None:
    settings.TAILRACE = settings.TAILRACE | {"JOB_MODULES": ["tests.faults.jobs"]}
