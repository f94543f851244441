"""`manage.py shell`: Django's, with what an operator needs at hand. docs/shell.md shows what to do with it."""

from __future__ import annotations

import getpass
import importlib.util
import sys
from typing import Any

from django.apps import apps
from django.core.management.commands import shell

# Only what is imported can be found by its dotted path.
from scheduling import journal, services, states
from scheduling.engine import rescue

OURS = ("scheduling", "workflows", "reruns")
AT_HAND = (
    f"{services.__name__}",
    f"{rescue.__name__}",
    f"{journal.__name__}",
    *(f"{states.__name__}.{name}" for name in ("BatchState", "InstanceState", "NodeState")),
    "datetime.datetime",
    "datetime.timedelta",
    "django.utils.timezone.now",
)


class Command(shell.Command):
    def get_auto_imports(self) -> list[str]:
        """Django's imports and ours; where names collide (django-q2 has a Task too), ours."""
        ours = [f"{model.__module__}.{model.__name__}" for model in apps.get_models() if _is_ours(model)]
        wanted = [*ours, *AT_HAND]
        names = {path.rpartition(".")[2] for path in wanted}
        others = [path for path in super().get_auto_imports() or [] if path.rpartition(".")[2] not in names]
        return [*others, *wanted]

    def get_namespace(self, **options: Any) -> dict[str, Any]:
        """What is imported; says so to a person."""
        verbosity = options.get("verbosity", 1)
        interactive = not options.get("command") and sys.stdin.isatty()
        options["verbosity"] = verbosity if verbosity > 1 else 0
        found: dict[str, Any] = super().get_namespace(**options)
        # The services of the apps above go by the app's name: workflows.services.
        for app in OURS[1:]:
            if importlib.util.find_spec(f"{app}.services"):
                importlib.import_module(f"{app}.services")
                found[app] = importlib.import_module(app)
        if found and interactive and verbosity:
            self.stdout.write(banner())
        return found


def _is_ours(model: Any) -> bool:
    return model._meta.app_label in OURS


def banner() -> str:
    """What a person is told at the start: what is at hand, and in whose name they act."""
    models = ", ".join(sorted(model.__name__ for model in apps.get_models() if _is_ours(model)))
    return (
        "Tailrace. At hand: services, workflows.services, reruns.services, rescue, now(), timedelta, "
        f"{models}.\n"
        f"What you do is journalled as os:{getpass.getuser()}; give by= and reason= to say more.\n"
        "help(services) lists what can be done, and docs/shell.md the fixes of a bad night."
    )
