"""The overview's part on reruns: those that are not over, what needs somebody first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Case, Value, When
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from reruns.models import Rerun
from reruns.record_queries import Counts
from reruns.states import ItemState, RerunState
from reruns.views.rows import RerunRow
from scheduling.permissions import User
from scheduling.views.sections import Section

SHOWN = 8
# What stands still and keeps others waiting comes first.
_ORDER = (RerunState.FAILED, RerunState.PAUSED, RerunState.TERMINATING, RerunState.RUNNING)


@dataclass(frozen=True)
class Active:
    """A rerun that is not over, and what of it wants a look."""

    row: RerunRow
    why: str


def section(user: User, now: datetime) -> Section:
    """The reruns that are not over."""
    ranked = Case(*(When(state=state, then=Value(at)) for at, state in enumerate(_ORDER)), default=Value(9))
    active: Any = Rerun.objects.visible_to(user).active()
    found = list(active.select_related("team").order_by(ranked, "-submitted_at", "-pk")[: SHOWN + 1])
    rows = [Active(row, _why(row.rerun, row.counts)) for row in RerunRow.of(found[:SHOWN], user)]
    address = "&".join(f"state={state}" for state in _ORDER)
    return Section(
        "reruns-active",
        [(each.row.mark, each.row.digest, each.why) for each in rows] + [len(found)],
        {
            "active_reruns": rows,
            "more_active_reruns": len(found) > SHOWN,
            "active_reruns_address": f"{reverse('rerun-list')}?{address}&window=30d",
        },
    )


def _why(rerun: Rerun, counts: Counts) -> str:
    """What wants a look; empty when it goes well."""
    said = []
    if counts.failed:
        text = ngettext("%d instance did not succeed", "%d instances did not succeed", counts.failed)
        said.append(text % counts.failed)
    if rerun.state == RerunState.PAUSED:
        waiting = counts.of(ItemState.WAITING)
        said.append(ngettext("paused with %d that waits", "paused with %d that wait", waiting) % waiting)
    if counts.frozen and (rerun.state in {RerunState.FAILED, RerunState.PAUSED} or counts.failed):
        text = ngettext(
            "%d frozen until it is resumed or terminated",
            "%d frozen until it is resumed or terminated",
            counts.frozen,
        )
        said.append(text % counts.frozen)
    if rerun.state == RerunState.FAILED and not said:
        said.append(_("nothing more of it can run"))
    return "; ".join(said)
