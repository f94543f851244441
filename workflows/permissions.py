"""What one may do to workflows and their cycle instances, beside seeing them; see scheduling.permissions."""

from __future__ import annotations

from django.utils.translation import gettext_lazy

RUN = "workflows.run_workflow"
STOP = "workflows.stop_workflow"
RERUN = "workflows.rerun_workflow"
EDIT = "workflows.edit_workflow"


def register() -> None:
    """Make them known; called once, when the app is ready."""
    from scheduling import permissions
    from scheduling.models.teams import Role

    permissions.extend(
        words={
            RUN: gettext_lazy("Run and backfill workflows"),
            STOP: gettext_lazy("Stop cycles"),
            RERUN: gettext_lazy("Rerun, freeze and mark cycles"),
            EDIT: gettext_lazy("Edit workflows"),
        },
        added={Role.OPERATOR: {RUN, STOP, RERUN}, Role.DEVELOPER: {EDIT}},
        team_paths={
            "workflow": ("team_id",),
            "workflowrevision": ("workflow", "team_id"),
            "cycleinstance": ("team_id",),
            "noderun": ("instance", "team_id"),
            "backfill": ("team_id",),
        },
    )
