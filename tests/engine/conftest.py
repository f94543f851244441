"""Fixtures of the tests of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.states import InEveryState


@pytest.fixture(scope="module")
def in_every_state(lasting: None) -> InEveryState:
    return InEveryState()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a file into the current directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def writing(text: str, name: str = "flights.yaml") -> str:
        Path(name).write_text(text)
        return name

    return writing
