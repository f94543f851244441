"""Fixtures of the tests of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import time_machine

from tests.engine.rerun_world import NOON
from tests.engine.states import InEveryState


@pytest.fixture(scope="module")
def in_every_state(lasting: None) -> InEveryState:
    return InEveryState()


@pytest.fixture
def noon() -> Any:
    """The clock stands still at NOON; moved by what it yields."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a file into the current directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def writing(text: str, name: str = "flights.yaml") -> str:
        Path(name).write_text(text)
        return name

    return writing
