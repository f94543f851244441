"""Where reruns hangs itself into the floors below."""

from __future__ import annotations

from typing import Any

from config import clock
from scheduling import reasons as known_reasons
from scheduling.engine import steps
from scheduling.engine.steps import Source, Step
from scheduling.services import teams
from workflows.signals import cycle_instance_ended


def connect() -> None:
    """Called once, when the apps are ready."""
    from reruns import deeds, notifications, permissions, reasons
    from reruns.services.use import use_of, use_of_workflow
    from workflows.services import deleting, retention

    cycle_instance_ended.connect(_cycle_instance_ended, dispatch_uid="reruns")
    known_reasons.register(vars(reasons))
    permissions.register()
    deeds.register()
    notifications.register()
    teams.USES.append(use_of)
    deleting.USES.append(use_of_workflow)
    retention.NEEDED.append(
        "SELECT FROM reruns_rerunitem needed WHERE needed.cycle_id = {cycle} AND needed.owned"
    )
    steps.SOURCES.append(Source("advance reruns", _service("advance_due"), _next_due_at))
    steps.STEPS += (
        Step("carry on reruns", _service("carry_on"), 2.0),
        Step("free what no rerun holds", _free_stranded, 30.0),
        Step("forget old drafts of reruns", _forget_drafts, 3600.0),
    )


def _service(name: str) -> Any:
    """A function of `services.advancing`, which imports models and so cannot be imported yet."""

    def call() -> Any:
        from reruns.services import advancing

        return getattr(advancing, name)()

    return call


def _next_due_at() -> Any:
    """Now when a rerun is due; otherwise it takes an event, of which the scheduler hears."""

    from reruns.models import Rerun

    return clock.now() if Rerun.objects.active().filter(due=True).exists() else None


def _free_stranded() -> int:
    from reruns.services import housekeeping

    return len(housekeeping.free_stranded())


def _forget_drafts() -> int:
    from reruns.services import housekeeping

    return housekeeping.forget_drafts()


def _cycle_instance_ended(*, instance_id: int, cycle_id: int, **_kwargs: Any) -> None:
    from reruns.services import following

    following.cycle_ended(instance_id, cycle_id)
