"""What scheduling refuses, and why. `config.http` maps each to a response; messages are for operators."""

from __future__ import annotations

from collections.abc import Mapping


class SchedulingError(Exception):
    """Base of everything that scheduling refuses; its text says what, why, and what to do."""


class TransitionRefused(SchedulingError):
    """The state of a batch or instance does not allow what was asked; the row was left as it is."""


class NotAvailable(SchedulingError):
    """What was asked needs something that is not there: a node that is online, or a record that is kept."""


class LastOwner(SchedulingError):
    """A team keeps at least one owner, who can let others in."""


class StillInUse(SchedulingError):
    """What was to be deleted is still referred to."""


class InvalidDefinition(SchedulingError):
    """A task's definition has mistakes: `errors` maps each field to what is wrong with it."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        self.errors = dict(errors)
        super().__init__("; ".join(f"{field}: {message}" for field, message in self.errors.items()))


class TooMany(SchedulingError):
    """More things at once than one action takes; nothing was done."""


class NotSaved(SchedulingError):
    """A filter cannot be kept under that name."""
