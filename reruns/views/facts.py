"""What the page of a cycle instance tells of reruns: which made it, and in which it was chosen."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext as _

from reruns.models import RerunItem
from reruns.states import ItemState, RerunState
from scheduling.permissions import User
from scheduling.views.batch import Fact
from workflows.models import CycleInstance

SHOWN = 3


def of_cycle(instance: CycleInstance, user: User) -> Iterable[Fact]:
    """The reruns that made `instance`, or for which it was chosen, the newest first.

    Who sees the instance sees these: a rerun is shown to the teams whose cycles it touches.
    """
    items = RerunItem.objects.filter(Q(instance=instance.pk) | Q(original=instance.pk))
    submitted = items.exclude(rerun__state=RerunState.DRAFT).select_related("rerun")
    for item in submitted.order_by("-rerun")[:SHOWN]:
        # By its name, as of very many instances the record shows a page.
        asked = urlencode({"view": "list", "name": item.name})
        address = f"{reverse('rerun-detail', args=[item.rerun_id])}?{asked}#item-{item.pk}"
        if item.instance_id == instance.pk:
            yield Fact(_("Made by rerun"), f"R-{item.rerun_id}", address)
        else:
            yield Fact(_("Chosen in rerun"), f"R-{item.rerun_id} · {_standing(item)}", address)


def _standing(item: RerunItem) -> str:
    """What became of it there."""
    if item.state in {ItemState.WAITING, ItemState.FROZEN, ItemState.UNFROZEN}:
        return str(ItemState(item.state).label).lower()
    if item.state == ItemState.CANCELLED:
        return _("not rerun")
    return _("rerun as %d") % item.instance_id if item.instance_id else str(item.get_state_display()).lower()
