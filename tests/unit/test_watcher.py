"""Whom a worker's watcher interrupts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any, cast

import pytest

from scheduling.engine.watcher import _INTERRUPT, Watched, Watcher
from scheduling.jobs import JobStopped

NOTHING = cast("Any", None)


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """One whose thread does not run."""
    before = signal.getsignal(_INTERRUPT)
    yield Watcher()
    signal.signal(_INTERRUPT, before)


def interrupted(watched: Watched) -> bool:
    watched.interruptible = True
    try:
        os.kill(os.getpid(), _INTERRUPT)
    except JobStopped:
        return True
    return False


def test_an_interruption_reaches_the_job_that_does_not_stop_and_not_the_one_that_follows_it(watcher: Watcher):
    with watcher.watching(NOTHING, NOTHING, NOTHING) as first:
        first.interrupted = True
        assert interrupted(first)
    with watcher.watching(NOTHING, NOTHING, NOTHING) as following:
        assert not interrupted(following)
