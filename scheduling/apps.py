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
        connection_created.connect(_plan_for_short_statements)


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


def _plan_for_short_statements(*, connection: Any, **_kwargs: Any) -> None:
    """Begin neither a parallel worker nor the compiler for a statement.

    Every statement of ours is of a few rows of an index. Where PostgreSQL expects many it still reads few, and
    to begin a worker takes 20 ms, the compiler more, of a page that should take 50 in all.
    """
    connection.connection.execute("SET max_parallel_workers_per_gather = 0; SET jit = off")
