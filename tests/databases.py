"""What the tests are spared: migrations for each worker's database, and a flush after each that commits."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.postgresql.creation import DatabaseCreation
from django.test import TransactionTestCase

TEMPLATE = "test_template"
_AS_MIGRATED = {"auth_permission", "django_content_type", "django_migrations"}
_create_test_db = DatabaseCreation.create_test_db
_flush = TransactionTestCase._fixture_teardown


def empty_in_one_statement() -> None:
    """Let tests that commit be followed by what Django's flush comes to, in a fiftieth of its time.

    Flush truncates every table there is, sends `post_migrate` and makes permissions and content types anew,
    which no test changes.
    """
    TransactionTestCase._fixture_teardown = _empty


def _empty(case: TransactionTestCase) -> None:
    connection.ensure_connection()
    if connection.connection.info.parameter_status("is_superuser") != "on":
        _flush(case)
        return
    tables = connection.introspection.django_table_names(only_existing=False, include_views=False)
    ours = [f'"{table}"' for table in sorted(set(tables) - _AS_MIGRATED)]
    emptied = "; ".join(f"DELETE FROM {table}" for table in ours)
    with transaction.atomic(), connection.cursor() as cursor:
        # As truncating does: what a killed process had under way is waited for, lest it comes afterwards.
        cursor.execute(f"LOCK TABLE {', '.join(ours)}")
        # Neither order nor the triggers that keep history matter to what goes as a whole.
        cursor.execute(f"SET LOCAL session_replication_role = replica; {emptied}")


def migrate_once(directory: Path) -> None:
    """Let the first worker that needs a database migrate a template of it, and all of them copy that.

    `directory` is of the server, which is this session's own: the template goes with it.
    """
    done = directory / "migrated"

    def create(creation: DatabaseCreation, *arguments: Any, **options: Any) -> str:
        here = creation.connection
        name = creation._get_test_db_name()
        with (directory / "migrating").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                here.settings_dict["TEST"]["NAME"] = TEMPLATE
                _create_test_db(creation, *arguments, **options)
                here.settings_dict["TEST"]["NAME"] = name
                here.close()
                done.touch()
            with creation._nodb_cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE {TEMPLATE}')
        settings.DATABASES[here.alias]["NAME"] = here.settings_dict["NAME"] = name
        return name

    DatabaseCreation.create_test_db = create
