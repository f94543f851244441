"""Which errors of the database pass, and which say that the data is wrong."""

from __future__ import annotations

import psycopg
import pytest
from django import db
from psycopg import errors

from scheduling.errors import is_transient


def of_django(raw: psycopg.Error) -> db.Error:
    """`raw` as Django hands it on."""
    kinds = (
        "DataError",
        "OperationalError",
        "IntegrityError",
        "InternalError",
        "ProgrammingError",
        "NotSupportedError",
        "DatabaseError",
        "InterfaceError",
        "Error",
    )
    kind = next(each for each in kinds if isinstance(raw, getattr(psycopg, each)))
    made: db.Error = getattr(db, kind)(str(raw))
    made.__cause__ = raw
    return made


TRANSIENT = [
    psycopg.OperationalError("the connection is closed"),
    psycopg.InterfaceError("the connection is closed"),
    errors.UndefinedFunction(),
    errors.UndefinedColumn(),
    errors.FeatureNotSupported("cached plan must not change result type"),
    errors.LockNotAvailable(),
    errors.QueryCanceled(),
    errors.SerializationFailure(),
    errors.DeadlockDetected(),
    errors.ReadOnlySqlTransaction(),
    errors.IdleInTransactionSessionTimeout(),
    errors.DiskFull(),
    errors.AdminShutdown(),
    errors.InsufficientPrivilege(),
]
OF_THE_DATA = [
    psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"),
    psycopg.ProgrammingError("cannot adapt type 'object'"),
    errors.UniqueViolation(),
    errors.CheckViolation(),
    errors.NumericValueOutOfRange(),
    errors.ProgramLimitExceeded("total size of jsonb array elements exceeds the maximum"),
    errors.RaiseException("Invalid transition"),
]


@pytest.mark.parametrize("raw", TRANSIENT, ids=lambda raw: type(raw).__name__)
def test_the_databases_own_trouble_is_transient(raw: psycopg.Error) -> None:
    assert is_transient(raw)
    assert is_transient(of_django(raw))


@pytest.mark.parametrize("raw", OF_THE_DATA, ids=lambda raw: type(raw).__name__)
def test_what_the_data_causes_is_not_transient(raw: psycopg.Error) -> None:
    assert not is_transient(raw)
    assert not is_transient(of_django(raw))


def test_other_errors_are_not_transient() -> None:
    assert not is_transient(KeyError("x"))
