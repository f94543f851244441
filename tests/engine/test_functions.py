"""The functions of the database keep their names for their arguments and results."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection

pytestmark = pytest.mark.django_db

# One line a function. Add the lines of new functions; remove a line only with its function.
KNOWN = Path(__file__).parent / "functions.txt"

SIGNATURES = """
SELECT format('%s(%s) RETURNS %s', proname, pg_get_function_arguments(oid), pg_get_function_result(oid))
FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND proname LIKE 'tailrace\\_%'
ORDER BY proname
"""


def test_a_function_with_a_changed_signature_has_a_new_name():
    """Processes of the version before call the old name with the old arguments while migrate runs."""
    with connection.cursor() as cursor:
        cursor.execute(SIGNATURES)
        found = [signature for (signature,) in cursor.fetchall()]
    assert found == KNOWN.read_text().splitlines()


def test_every_sql_file_replaces_its_functions():
    root = Path(__file__).parents[2]
    files = [*root.glob("scheduling/*.sql"), *root.glob("workflows/*.sql"), *root.glob("reruns/*.sql")]
    assert files
    for file in files:
        text = file.read_text()
        assert "CREATE FUNCTION" not in text, file
        assert "DROP FUNCTION" not in text, file
