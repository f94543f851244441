"""What reruns refuses; messages are for operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduling.clocks import by_clock
from scheduling.errors import SchedulingError


class RerunError(SchedulingError):
    """Base of what reruns refuses."""


class RerunRefused(RerunError):
    """The state of a rerun, or of what was chosen, does not allow what was asked; nothing was changed."""


@dataclass(frozen=True)
class Drift:
    """What became of one chosen cycle since the plan was shown: `was` and `now` in words.

    `name` is the stored one, in UTC.
    """

    name: str
    was: str
    now: str

    @property
    def title(self) -> str:
        """The name in the reader's time zone."""
        return by_clock(self.name)


@dataclass(frozen=True)
class Hole:
    """A chosen cycle reads an `upstream` that is affected and has run, but is not rerun with it.

    Ids are of cycles; names are the stored ones, in UTC.
    """

    cycle_id: int
    name: str
    upstream_id: int
    upstream: str

    @property
    def title(self) -> str:
        """The name in the reader's time zone."""
        return by_clock(self.name)

    @property
    def upstream_title(self) -> str:
        """The name of the upstream cycle in the reader's time zone."""
        return by_clock(self.upstream)


class HolesNotAccepted(RerunError):
    """Chosen instances read results that are not rerun; choose these too, or accept exactly `holes`."""

    def __init__(self, message: str, holes: Sequence[Hole]) -> None:
        self.holes = list(holes)
        super().__init__(message)


class PlanDrifted(RerunError):
    """Chosen instances have changed since the plan was shown; look at `drift` and confirm."""

    def __init__(self, message: str, drift: Sequence[Drift]) -> None:
        self.drift = list(drift)
        super().__init__(message)
