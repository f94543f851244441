"""What is switched off for a whole group while something is wrong, and on again after."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.db.models import OuterRef, Subquery

from scheduling import journal
from scheduling.models import DeploymentGroup, JournalEntry, Task
from scheduling.services.tasks import set_enabled

_SWITCHES = ("enabled", "disabled", "edited")


@transaction.atomic
def disable_group(group: DeploymentGroup, *, by: journal.By = None, reason: str = "") -> list[Task]:
    """Switch off the schedule of every enabled task of `group`, and return those; what runs goes on."""
    tasks = Task.objects.filter(group=group, enabled=True).order_by("pk")
    return _switch(tasks, False, group, by, reason)


@transaction.atomic
def enable_group(group: DeploymentGroup, *, by: journal.By = None, reason: str = "") -> list[Task]:
    """Switch on again what `disable_group` switched off, and return it.

    A task that was off before, or that somebody has switched or edited since, stays as it is. Each task's
    misfire policy decides about the due times that passed meanwhile.
    """
    last = JournalEntry.objects.filter(object_type="task", object_id=OuterRef("pk"), action__in=_SWITCHES)
    with_group = last.order_by("-at", "-id").values("details__group")[:1]
    tasks = Task.objects.filter(group=group, enabled=False).annotate(switched_with=Subquery(with_group))
    return _switch(tasks.filter(switched_with=group.name).order_by("pk"), True, group, by, reason)


def _switch(
    tasks: Iterable[Task], enabled: bool, group: DeploymentGroup, by: journal.By, reason: str
) -> list[Task]:
    with_group = {"group": group.name}
    return [set_enabled(task, enabled, by=by, reason=reason, details=with_group) for task in list(tasks)]
