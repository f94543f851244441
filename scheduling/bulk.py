"""Inserts many new rows at once, by COPY: some ten times faster than `bulk_create`, whose time goes into
preparing every value of every row on its own. For the engine's hot tables, whose fields hold plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.models import Field, JSONField, Model
from psycopg import sql
from psycopg.types.json import Jsonb


def insert[M: Model](rows: Sequence[M], *, keys: bool = True) -> list[M]:
    """Insert unsaved objects of one model and give them their primary keys, unless nobody asks for `keys`.

    As with `bulk_create` no `save` and no signal is called; defaults of the model apply. Raises Django's
    IntegrityError or DataError, and then nothing was inserted; call it in a transaction.
    """
    if not rows:
        return []
    meta = rows[0]._meta
    concrete = (each for each in meta.concrete_fields if not each.generated)
    fields: list[Field[Any, Any]] = [each for each in concrete if keys or not each.primary_key]
    json = {each.attname for each in fields if isinstance(each, JSONField)}
    names = [each.attname for each in fields]
    copy = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(meta.db_table),
        sql.SQL(", ").join(sql.Identifier(each.column or "") for each in fields),
    )
    with connection.cursor() as cursor:
        if keys:
            cursor.execute(
                "SELECT nextval(pg_get_serial_sequence(%s, 'id')) FROM generate_series(1, %s)",
                [meta.db_table, len(rows)],
            )
            for row, (key,) in zip(rows, cursor.fetchall(), strict=True):
                row.pk = key
        with connection.wrap_database_errors, cursor.copy(copy) as target:
            for row in rows:
                target.write_row([_plain(getattr(row, name), name in json) for name in names])
    for row in rows:
        row._state.adding, row._state.db = False, connection.alias
    return list(rows)


def _plain(value: Any, is_json: bool) -> Any:
    return Jsonb(value) if is_json and value is not None else value
