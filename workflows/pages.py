"""What the pages of scheduling show of workflows; registered when the addresses are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _

from scheduling.models import Batch
from scheduling.models.tasks import Trigger
from scheduling.permissions import User
from scheduling.views import batch as batch_page
from scheduling.views import find, journal, overview, saved
from workflows.filters import CycleFilter
from workflows.links import instance_name, sees
from workflows.models import Backfill, CycleInstance, NodeRun, Workflow
from workflows.views import attention
from workflows.views.cycles import PAGE


def register() -> None:
    """Hang it in; doing so again changes nothing."""
    saved.PAGES[PAGE] = saved.Listing(CycleFilter, "cycle-list")
    journal.PAGES |= {
        "workflow": (Workflow, "workflow-detail"),
        "cycleinstance": (CycleInstance, "cycle-detail"),
        "backfill": (Backfill, "backfill-detail"),
    }
    _add(find.FINDERS, _cycles, _workflows)
    _add(overview.BLOCKS, overview.Block("workflows/attention.html", attention.section))
    _add(batch_page.FACTS, _cycle_of)


def _add(registry: list[Any], *entries: Any) -> None:
    registry += [each for each in entries if each not in registry]


def _cycles(text: str, number: int | None, user: User) -> Iterable[find.Find]:
    if number is None:
        return
    for each in CycleInstance.objects.visible_to(user).filter(pk=number).select_related("workflow__revision"):
        name = f"{each.workflow.name} {instance_name(each)}"
        address = reverse("cycle-detail", args=[each.pk])
        yield find.Find(_("Cycle instance"), each.pk, name, address, stateful=each)


def _workflows(text: str, number: int | None, user: User) -> Iterable[find.Find]:
    for each in find.named(Workflow.objects.visible_to(user).select_related("team"), text):
        address = reverse("workflow-detail", args=[each.pk])
        yield find.Find(_("Workflow"), each.pk, each.name, address, each.team.name)


def _cycle_of(batch: Batch, user: User) -> batch_page.Fact | None:
    """The cycle instance that a batch is a node of."""
    if batch.trigger != Trigger.WORKFLOW:
        return None
    runs = NodeRun.objects.filter(batch=batch, carried=False)
    run = runs.select_related("instance__workflow__revision", "node").first()
    if run is None:
        return None
    instance = run.instance
    address = f"{reverse('cycle-detail', args=[instance.pk])}?node={run.node.key}"
    return batch_page.Fact(
        _("Cycle"),
        f"{instance.workflow.name} {instance_name(instance)}",
        address if sees(user, instance.team_id) else "",
    )
