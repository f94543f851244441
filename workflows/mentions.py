"""Cycles that the text of a job names, as links in the reader's time zone.

A job names a cycle as records do: `weather_hourly 2026-11-27 23:00 UTC` (see `scheduling.clocks`). A cycle that
its reader may see becomes a link to its effective instance; all other text stays as the job wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import reduce
from operator import or_

from django.db.models import Q
from django.utils.html import escape
from django.utils.safestring import SafeString

from scheduling import clocks
from scheduling.permissions import User
from workflows.links import address_of, anchor
from workflows.models import Cycle, CycleInstance

_MENTION = re.compile(r"([\w.-]{1,100}) (\d{4}-\d\d-\d\d \d\d:\d\d) UTC\b")
# More than a reason names.
_MOST = 20


def linked(texts: Iterable[str], user: User) -> list[SafeString]:
    """Each of `texts` as markup with its cycles as links; at most one query, and none when none is named."""
    texts = list(texts)
    named = {(name, at) for text in texts for name, at, _link in _mentions(text)}
    links = _links(sorted(named)[:_MOST], user) if named else {}
    return [_with_links(text, links) for text in texts]


def _mentions(text: str) -> Iterable[tuple[str, object, re.Match[str]]]:
    for found in _MENTION.finditer(text) if " UTC" in text else ():
        try:
            yield found[1], clocks.moment_of(found[2]), found
        except ValueError:
            continue


def _links(named: Iterable[tuple[str, object]], user: User) -> dict[tuple[str, object], SafeString]:
    which = reduce(or_, (Q(workflow__name=name, cycle_time=at) for name, at in named))
    seen = CycleInstance.objects.visible_to(user).values("pk")
    cycles = Cycle.objects.filter(which, effective__in=seen).select_related("workflow", "effective")
    return {
        (cycle.workflow.name, cycle.cycle_time): anchor(
            address_of(cycle.effective), f"{cycle.workflow.name} {clocks.titled(cycle.cycle_time)}"
        )
        for cycle in cycles
        if cycle.effective is not None
    }


def _with_links(text: str, links: dict[tuple[str, object], SafeString]) -> SafeString:
    parts, end = [], 0
    for name, at, found in _mentions(text):
        if link := links.get((name, at)):
            parts += [escape(text[end : found.start()]), link]
            end = found.end()
    return SafeString("".join([*parts, escape(text[end:])]))
