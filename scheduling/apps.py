from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class SchedulingConfig(AppConfig):
    name = "scheduling"
    verbose_name = _("Scheduling")

    def ready(self) -> None:
        post_migrate.connect(_set_up, sender=self)
        connection_created.connect(_prepare_statements)


def _set_up(*, using: str, **_kwargs: Any) -> None:
    """Bring the database's functions and the care of its tables up to the code's, after every migrate."""
    with connections[using].cursor() as cursor:
        for name in ("transitions.sql", "making.sql", "storage.sql"):
            cursor.execute((Path(__file__).parent / name).read_text())


def _prepare_statements(*, connection: Any, **_kwargs: Any) -> None:
    """Let psycopg prepare statements: without a threshold not even those are that ask for it, the engine's.

    Django sets none, for poolers that hand a session to another client after each transaction; the engine
    cannot work through those anyway.
    """
    connection.connection.prepare_threshold = 5
