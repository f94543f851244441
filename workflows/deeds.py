"""What the journal calls the things of workflows and what is done to them."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from scheduling import deeds
from workflows.models import RunType
from workflows.states import BackfillState, CycleState, NodeRunState


def register() -> None:
    """Make the words known; called once, when the app is ready."""
    deeds.extend(
        actions={
            "ready": pgettext_lazy("journal", "Became ready"),
            "frozen": pgettext_lazy("journal", "Froze"),
            "unfrozen": pgettext_lazy("journal", "Unfroze"),
            "cancelled": pgettext_lazy("journal", "Cancelled"),
            "timed_out": pgettext_lazy("journal", "Ran out of time"),
            "backfilled": pgettext_lazy("journal", "Began a backfill"),
            "paused": pgettext_lazy("journal", "Paused"),
            "resumed": pgettext_lazy("journal", "Resumed"),
            "terminated": pgettext_lazy("journal", "Terminated"),
        },
        objects={
            "workflow": _("Workflow"),
            "cycleinstance": _("Cycle instance"),
            "noderun": _("Node run"),
            "backfill": _("Backfill"),
        },
        details={
            "run_type": _("Run type"),
            "cycles": _("Cycles"),
            "nodes": _("Nodes"),
            **{state.value: state.label for state in CycleState},
        },
        choices={"run_type": RunType},
        states={"cycleinstance": CycleState, "backfill": BackfillState, "noderun": NodeRunState},
        named={("cycleinstance", "rerun_of"): "cycle-detail"},
    )
