from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _

from config import sessions
from scheduling import functions


class SchedulingConfig(AppConfig):
    name = "scheduling"
    verbose_name = _("Scheduling")

    def ready(self) -> None:
        post_migrate.connect(_set_up, sender=self)
        connection_created.connect(_prepare_session)
        from scheduling.checks import enough_connections

        checks.register(enough_connections, deploy=True)


def _set_up(*, using: str, **_kwargs: Any) -> None:
    """Bring the database's functions and the settings of its tables up to the code's, after every migrate."""
    here = Path(__file__).parent
    functions.install(using, here / "transitions.sql", here / "making.sql")
    with connections[using].cursor() as cursor:
        cursor.execute((here / "storage.sql").read_text())


def _prepare_session(*, connection: Any, **_kwargs: Any) -> None:
    """Set the session's limits, and let psycopg prepare the engine's statements.

    Django sets no threshold, for poolers that hand a session to another client after each transaction; the
    engine cannot work through those anyway.
    """
    connection.connection.prepare_threshold = 5
    sessions.prepare(connection.connection)
