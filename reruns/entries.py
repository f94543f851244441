"""The way into a rerun downstream: from the menu of a cycle instance, and from its page."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from django.urls import reverse
from django.utils.translation import pgettext

from config import clock
from reruns import eligibility
from reruns.eligibility import Refusal
from workflows.models import CycleInstance
from workflows.permissions import RERUN
from workflows.states import CycleState
from workflows.views import rows
from workflows.views.rows import Entry


def register() -> None:
    """Hang it in; doing so again changes nothing."""
    if offer not in rows.ENTRIES:
        rows.ENTRIES.append(offer)


def offer(instance: CycleInstance, may: frozenset[str], zone: str) -> Entry | None:
    """A rerun downstream of `instance`, or why none can begin there; nothing for who may not rerun it."""
    if RERUN not in may:
        return None
    refusal = refusal_of(instance, ZoneInfo(zone))
    return Entry(
        verb="rerun-downstream",
        label=pgettext("verb", "Rerun downstream"),
        drawing="below",
        address=f"{reverse('rerun-new')}?cycle={instance.pk}",
        refusal=refusal.in_short if refusal else "",
    )


def refusal_of(instance: CycleInstance, zone: ZoneInfo) -> Refusal | None:
    """Why no rerun can begin at an instance, as far as itself, its time zone and its cycle tell."""
    if not instance.online:
        return eligibility.NOT_ONLINE
    effective = instance.cycle.effective_id
    if effective != instance.pk:
        return eligibility.not_effective_refusal(effective)
    if late := eligibility.ready_time_refusal(instance.ready_at, clock.now(), zone):
        return late
    if instance.state == CycleState.CANCELLED:
        return eligibility.state_refusal(instance.state)
    return None
