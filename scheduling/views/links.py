"""Addresses of the execution records, narrowed to what a figure or a mark on another page stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from scheduling.filters import BASIC, WORKFLOW
from scheduling.models.tasks import Trigger


def tab_of(trigger: str) -> str:
    """The tab that lists batches of `trigger`."""
    return WORKFLOW if trigger == Trigger.WORKFLOW else BASIC


def records_of(triggers: Iterable[str] | Mapping[str, int], **narrowed: Any) -> str:
    """The list of batches with these triggers, one each or so many of each: the tab that has most of them."""
    tabs: Counter[str] = Counter()
    for trigger, count in Counter(triggers).items():
        tabs[tab_of(trigger)] += count
    return records(tab=WORKFLOW if tabs[WORKFLOW] > tabs[BASIC] else BASIC, **narrowed)


def records(
    *, tab: str = BASIC, since: datetime | None = None, until: datetime | None = None, **narrowed: Any
) -> str:
    """The address of the list of batches; `narrowed` are its filters by name, lists for several values.

    `since` and `until` bound the time at which the batches were begun.
    """
    query: list[tuple[str, Any]] = [("tab", tab)]
    for name, value in narrowed.items():
        query += [(name, each) for each in (value if isinstance(value, list | tuple) else [value])]
    for name, moment in (("since", since), ("until", until)):
        if moment is not None:
            query.append((name, moment.isoformat()))
    return f"{reverse('batch-list')}?{urlencode(query)}"
