"""What the leading scheduler does: by the clock, and every so often; apps above add to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


# Two are the same when they are one: what a step runs need not be hashable.
@dataclass(frozen=True, eq=False)
class Source:
    """Something that falls due: `run` does what is due now, `next_due_at` says when there is more to do.

    `run` returns how many it dealt with; it is called again at once until that is 0.
    """

    name: str
    run: Callable[[], int]
    next_due_at: Callable[[], datetime | None]
    apart: bool = False
    """It has a loop of its own, whose statements wait for locks for a moment only."""


@dataclass(frozen=True, eq=False)
class Step:
    """A piece of housekeeping that the leader does every `seconds`.

    `run` says whether it did something (a bool or a count); then it is called again without waiting.
    """

    name: str
    run: Callable[[], int]
    seconds: float


SOURCES: list[Source] = []
STEPS: list[Step] = []
