"""What the tests of the job kinds share."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.support import JOBS


@pytest.fixture
def job_modules(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs of `jobs_for_tests`, and no kinds but ours."""
    settings.TAILRACE = {**settings.TAILRACE, "JOB_MODULES": [JOBS], "KINDS": []}
    monkeypatch.setenv("TAILRACE_JOB_MODULES", JOBS)
