"""The last day on the overview: how the batches went that were begun in each hour.

It counts a whole day, so the page that stands already asks for it, and then once a minute.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling import charts
from scheduling.models.tasks import Trigger
from scheduling.permissions import User, places_of
from scheduling.queries import BatchRanges
from scheduling.states import BATCH, BatchState, ListedState
from scheduling.views.links import records_of

HOUR = timedelta(hours=1)
HOURS = 24
# The states of the timeline from the bottom upward; what has not ended, was stopped or was not taken is third.
OTHER = "waiting"
LAYERS = (BatchState.SUCCESS.value, BatchState.FAILED.value, OTHER)


@require_safe
def overview_timeline(request: HtmxRequest) -> HttpResponse:
    """The timeline as it is now."""
    return render(request, "scheduling/overview.html#timeline", _timeline(request.user, timezone.now()))


@dataclass(frozen=True)
class Slot:
    """An hour of the timeline: when it began, its counts, its column, and the list that it stands for."""

    begins: datetime
    counts: dict[str, int]
    column: charts.Column
    address: str

    @property
    def clock(self) -> str:
        return f"{timezone.localtime(self.begins):%H:%M}"

    @property
    def said(self) -> dict[str, str]:
        """The counts as text: a template writes a number as the language does, and is slow at that."""
        return {layer: str(count) for layer, count in self.counts.items()}

    @property
    def in_words(self) -> str:
        counts = {"good": self.counts["success"], "bad": self.counts["failed"], "other": self.counts[OTHER]}
        return _("%(good)s succeeded, %(bad)s failed, %(other)s other") % counts


def _timeline(user: User, now: datetime) -> dict[str, Any]:
    local = timezone.localtime(now)
    # By elapsed time, so that a day on which the clocks change has its 24 hours too.
    last = now - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    first = last - (HOURS - 1) * HOUR
    everything = BatchRanges(places_of(user), triggers=Trigger.values, states=ListedState.values)
    counted = everything.count_by_slot(first, HOUR, HOURS)
    counts: list[dict[str, int]] = [dict.fromkeys(LAYERS, 0) for _hour in range(HOURS)]
    begun: list[Counter[str]] = [Counter() for _hour in range(HOURS)]
    failed: list[Counter[str]] = [Counter() for _hour in range(HOURS)]
    for (slot, trigger, state), count in counted.items():
        # A batch may have been begun after `now` was read.
        hour = min(slot, HOURS - 1)
        counts[hour][state if state in BATCH.final and state in LAYERS else OTHER] += count
        begun[hour][trigger] += count
        if state == BatchState.FAILED:
            failed[hour][trigger] += count
    stack = charts.stack(counts, LAYERS)
    slots = [
        Slot(
            begins=first + hour * HOUR,
            counts=counts[hour],
            column=stack.columns[hour],
            # Who follows an hour in which something failed wants to see that.
            address=records_of(
                failed[hour] or begun[hour], since=first + hour * HOUR, until=first + (hour + 1) * HOUR
            ),
        )
        for hour in range(HOURS)
    ]
    return {
        "slots": slots,
        "ticks": stack.ticks,
        "any_batch": bool(counted),
        "day": {layer: sum(each[layer] for each in counts) for layer in LAYERS},
    }
