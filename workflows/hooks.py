"""Where workflows hangs itself into the ground that it stands on."""

from __future__ import annotations

from typing import Any

from scheduling import reasons as known_reasons
from scheduling import signals
from scheduling.definitions import sections
from scheduling.engine import steps
from scheduling.engine.steps import Source, Step
from scheduling.models.tasks import Trigger
from scheduling.services import teams
from workflows import permissions, reasons
from workflows.definitions import WORKFLOWS
from workflows.services.deleting import use_of
from workflows.signals import cycle_instance_ended


def connect() -> None:
    """Called once, when the apps are ready."""
    from scheduling.services import retention
    from workflows import deeds
    from workflows.services.retention import Sweep

    signals.batch_ended.connect(_batch_ended, dispatch_uid="workflows")
    cycle_instance_ended.connect(_cycle_instance_ended, dispatch_uid="backfills")
    known_reasons.register(vars(reasons))
    permissions.register()
    deeds.register()
    sections.register(WORKFLOWS)
    teams.USES.append(use_of)
    retention.LETTING_GO.append(
        "UPDATE workflows_noderun SET batch_id = NULL WHERE batch_id = ANY(%(batches)s)"
    )
    retention.SWEEPS.append(Sweep)
    steps.SOURCES.append(Source("make cycles due", _clock("make_due"), _clock("next_due_at")))
    steps.STEPS += (
        Step("generate cycles", _clock("generate_due"), 30.0),
        Step("make ready what was overlooked", _clock("make_overlooked_ready"), 10.0),
        Step("end cycles that ran too long", _clock("time_out_cycles"), 1.0),
        Step("end nodes that ran too long", _clock("time_out_nodes"), 1.0),
        Step("carry on what was left half done", _clock("carry_on"), 5.0),
        Step("remove old cycle instances", Sweep(), 0.5),
    )


def _clock(name: str) -> Any:
    """A function of `services.clock`, which imports models and so cannot be imported before they are ready."""

    def call() -> Any:
        from workflows.services import clock

        return getattr(clock, name)()

    return call


def _cycle_instance_ended(*, instance_id: int, **_kwargs: Any) -> None:
    from workflows.services import backfills

    backfills.cycle_ended(instance_id)


def _batch_ended(*, batch_id: int, trigger: str, **_kwargs: Any) -> None:
    if trigger == Trigger.WORKFLOW:
        from workflows import transitions

        transitions.batch_ended(batch_id)
