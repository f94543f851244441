"""Notifications that were given up: somebody mended the channel, and lets them go out after all."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from scheduling import journal, notifications
from scheduling.errors import TransitionRefused
from scheduling.models import Notification

MOST_AT_ONCE = 1000


@transaction.atomic
def notify_again(wanted: Any, *, by: journal.By = None, reason: str = "") -> int:
    """Try those of the QuerySet `wanted` again that were given up, a thousand at most; returns how many.

    notify_again(Notification.objects.filter(channel="ops")) after the channel was set, for instance. Raises
    TransitionRefused when none of them was given up.
    """
    found = wanted.given_up().select_for_update(of=("self",)).order_by("pk")[:MOST_AT_ONCE]
    again: list[Notification] = list(found)
    if not again:
        raise TransitionRefused(
            _("None of these was given up, so there is nothing to try again: what waits is tried by itself.")
        )
    notifications.try_again(Notification.objects.filter(pk__in=[each.pk for each in again]))
    journal.record_all(journal.entry("tried_again", each, by, reason=reason) for each in again)
    return len(again)
