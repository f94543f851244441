"""What scheduling refuses, and why. `config.http` maps each to a response; messages are for operators."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from django import db


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


# SQLSTATE classes of refusals that the data itself causes: cardinality, values, constraints, limits of size,
# and our own triggers. The same statement fails again however often it is tried.
_OF_THE_DATA = frozenset({"21", "22", "23", "54", "P0"})
_OF_THE_CONNECTION = (
    db.OperationalError,
    db.InterfaceError,
    db.InternalError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
)


def is_transient(error: BaseException) -> bool:
    """Whether `error` is the database's own trouble, so that the same statement may succeed later.

    True for a lost connection, a read-only or full server, a lock or statement timeout, a serialization
    failure, a function or column that a migrate is about to install, and a plan that a migrate made obsolete.
    False for wrong data, and for every error that is not the database's.
    """
    if not isinstance(error, db.Error | psycopg.Error):
        return False
    raw = error if isinstance(error, psycopg.Error) else error.__cause__
    state = getattr(raw, "sqlstate", None)
    return state[:2] not in _OF_THE_DATA if state else isinstance(error, _OF_THE_CONNECTION)
