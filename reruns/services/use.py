"""What keeps a team or a workflow from being deleted as far as reruns go."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from reruns.models import Rerun, RerunItem
from scheduling.models import Team
from workflows.models import Workflow


def use_of(thing: Any) -> str:
    """What keeps a team from being deleted; empty: nothing."""
    if isinstance(thing, Team) and Rerun.objects.filter(team=thing).exists():
        return _("The team %(name)s still has %(used)s. Delete them first.") % {
            "name": thing.name,
            "used": _("reruns downstream"),
        }
    return ""


def use_of_workflow(workflow: Workflow) -> str:
    """What keeps a workflow from being deleted; empty: nothing."""
    item = RerunItem.objects.owned().filter(workflow=workflow.pk).select_related("rerun").first()
    if item is None:
        return ""
    return _("%(rerun)s holds cycles of the workflow %(name)s. Wait for its end, or terminate it first.") % {
        "rerun": item.rerun,
        "name": workflow.name,
    }
