"""What the pages of the apps below show of reruns; registered when the addresses are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _

from reruns.filters import RerunFilter
from reruns.models import Rerun
from reruns.views import attention, facts
from reruns.views.reruns import PAGE
from scheduling.permissions import User
from scheduling.views import find, journal, overview, saved
from workflows.views import cycle_head

_NUMBER = re.compile(r"r-?(\d{1,18})", re.IGNORECASE | re.ASCII)


def register() -> None:
    """Hang it in; doing so again changes nothing."""
    saved.PAGES[PAGE] = saved.Listing(RerunFilter, "rerun-list")
    journal.PAGES["rerun"] = (Rerun, "rerun-detail")
    _add(find.FINDERS, _reruns)
    _add(overview.BLOCKS, overview.Block("reruns/attention.html", attention.section))
    _add(cycle_head.FACTS, facts.of_cycle)


def _add(registry: list[Any], *entries: Any) -> None:
    registry += [each for each in entries if each not in registry]


def _reruns(text: str, number: int | None, user: User) -> Iterable[find.Find]:
    """By `R-12`, `r12` or `12`."""
    named = _NUMBER.fullmatch(text)
    meant = int(named[1]) if named else number
    if meant is None:
        return
    for each in Rerun.objects.visible_to(user).filter(pk=meant).select_related("team"):
        address = reverse("rerun-detail", args=[each.pk])
        name = each.title
        yield find.Find(_("Rerun downstream"), each.pk, name, address, each.team.name, stateful=each)
