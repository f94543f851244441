"""What the tests of the engine share, made once a module."""

from __future__ import annotations

import pytest

from tests.engine.states import InEveryState


@pytest.fixture(scope="module")
def in_every_state(lasting: None) -> InEveryState:
    return InEveryState()
