from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _

from scheduling import functions


class WorkflowsConfig(AppConfig):
    name = "workflows"
    verbose_name = _("Workflows")

    def ready(self) -> None:
        from workflows import hooks

        hooks.connect()
        post_migrate.connect(_set_up, sender=self)


def _set_up(*, using: str, **_kwargs: Any) -> None:
    """Bring the database's functions up to the code's, after every migrate."""
    functions.install(using, Path(__file__).parent / "transitions.sql")
