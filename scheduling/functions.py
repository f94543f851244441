"""Installs the functions of the database from the apps' SQL files, under running services.

`manage.py migrate` calls this once per app; see docs/decisions/0021. Functions are replaced in one transaction,
so every session sees either the old body or the new one. CREATE OR REPLACE cannot change the columns of a
result: a function whose arguments or result change gets a new name, and the old one stays for processes of the
version before.
"""

from __future__ import annotations

from pathlib import Path

from django.db import ProgrammingError, connections, transaction
from django.db.backends.utils import CursorWrapper
from psycopg import errors
from psycopg.errors import Diagnostic

# Two migrates at once would replace the same rows of the catalogue, which PostgreSQL refuses.
_INSTALLING = int.from_bytes(b"tr:funcs")

_OVERLOADED = """
SELECT proname, array_agg(oid::regprocedure::text ORDER BY oid) FROM pg_proc
WHERE pronamespace = current_schema()::regnamespace AND proname = ANY(%s)
GROUP BY proname HAVING count(*) > 1
"""


class SignatureChanged(Exception):
    """A function of the database was given other arguments or another result under its old name."""


def install(using: str, *files: Path) -> None:
    """Run the CREATE OR REPLACE FUNCTION statements of `files` in one transaction on the connection `using`.

    Raises SignatureChanged when a function has another result than before, or would exist with two lists of
    arguments.
    """
    statements = [file.read_text() for file in files]
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_INSTALLING])
        for statement in statements:
            _replace(cursor, statement)
        cursor.execute(_OVERLOADED, [_names(statements)])
        for name, versions in cursor.fetchall():
            raise SignatureChanged(
                f"The function {name} exists as {' and '.join(versions)}. "
                "Give the changed one a new name in its SQL file and in the code that calls it."
            )


def _replace(cursor: CursorWrapper, statement: str) -> None:
    try:
        cursor.execute(statement)
    except ProgrammingError as error:
        if not isinstance(error.__cause__, errors.InvalidFunctionDefinition):
            raise
        raise SignatureChanged(_other_result(error.__cause__.diag)) from error


def _other_result(refused: Diagnostic) -> str:
    # Only the hint names the function, as "Use DROP FUNCTION name(arguments) first."
    function = (refused.message_hint or "").removeprefix("Use DROP FUNCTION ").removesuffix(" first.")
    return (
        f"Cannot replace the function {function}: {refused.message_primary}. "
        "Give the changed one a new name in its SQL file and in the code that calls it."
    )


def _names(statements: list[str]) -> list[str]:
    created = "CREATE OR REPLACE FUNCTION "
    return [
        line.removeprefix(created).split("(")[0]
        for statement in statements
        for line in statement.splitlines()
        if line.startswith(created)
    ]
