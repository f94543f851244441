"""Fields of our own."""

from __future__ import annotations

from typing import Any

from django.db import models


class StoredField(models.GeneratedField):
    """A stored generated column, whose system check does not connect to the database.

    To learn whether the server has such columns, Django asks for its version, in every command. All versions of
    PostgreSQL that Tailrace supports have them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"db_persist": True})

    def deconstruct(self) -> Any:
        name, _path, args, options = super().deconstruct()
        return name, "django.db.models.GeneratedField", args, options

    def _check_supported(self, databases: Any) -> list[Any]:
        return []
