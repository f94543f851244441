"""What the nodes page shows of the schedulers: who leads, the last round, and clocks that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _

from config import clock
from scheduling.engine.lead import FROZEN_SECONDS
from scheduling.models import SchedulerProcess
from scheduling.views.sections import Section
from scheduling.words import length


def clock_in_words(difference: float | None) -> str:
    """How far a clock is from the database's, when that is too far; else the empty string."""
    if difference is None or not clock.is_off(difference):
        return ""
    text = _("clock %(span)s ahead") if difference > 0 else _("clock %(span)s behind")
    return text % {"span": length(timedelta(seconds=abs(difference)))}


@dataclass(frozen=True)
class SchedulerRow:
    """A scheduler: whether it leads, stands by or is silent, and what is wrong with its clock."""

    process: SchedulerProcess
    silent: bool

    @property
    def leads(self) -> bool:
        return self.process.leads and not self.silent

    @property
    def clock(self) -> str:
        return clock_in_words(self.process.clock_difference)


def schedulers_section(now: datetime) -> Section:
    """The schedulers of this installation, and the clock of the web itself; `now` is the database's time."""
    before = now - timedelta(seconds=FROZEN_SECONDS)
    rows = [SchedulerRow(each, each.heartbeat_at < before) for each in SchedulerProcess.objects.all()]
    own = clock_in_words((clock.own() - now).total_seconds())
    return Section("schedulers", _said(rows, own), {"schedulers": rows, "own_clock": own})


def _said(rows: Sequence[SchedulerRow], own: str) -> object:
    return own, [(row.process.pk, row.leads, row.silent, row.clock) for row in rows]
