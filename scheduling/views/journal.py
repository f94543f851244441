"""The journal: who did what to which object, when, why and from where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling import deeds
from scheduling.definitions.revisions import Line, compare
from scheduling.filters import PEOPLE, JournalFilter
from scheduling.models import Batch, Instance, JournalEntry, Task, TaskRevision
from scheduling.permissions import visible
from scheduling.queries import Page
from scheduling.standing import standing_of
from scheduling.templatetags.tailrace import address
from scheduling.views.paging import cursors_of
from scheduling.views.rows import difference, shown_by

NOTHING_NEW = 204
PAGE_SIZE = 50

# The kinds of objects that have a page, with its name; apps above add theirs.
PAGES: dict[str, tuple[Any, str]] = {
    "batch": (Batch, "batch-detail"),
    "instance": (Instance, "instance-detail"),
    "task": (Task, "task-detail"),
}


@dataclass(frozen=True)
class Detail:
    """One thing that an entry tells beside what was done: its name, its value, and the batch it names.

    `is_data`: the value is somebody's text and no word of ours.
    """

    label: str
    value: Any
    address: str = ""
    is_data: bool = False

    @property
    def is_moment(self) -> bool:
        return isinstance(self.value, datetime)


@dataclass(frozen=True)
class EntryRow:
    """An entry as the list shows it; `address` leads to its object, if that still has a page."""

    entry: JournalEntry
    address: str = ""

    # An entry never changes, so its mark says all of it.
    digest: str = field(default="0", init=False)

    @property
    def mark(self) -> str:
        return f"entry-{self.entry.pk}"

    @property
    def action(self) -> str:
        return deeds.action_in_words(self.entry.action)

    @cached_property
    def object_type(self) -> str:
        return deeds.object_in_words(self.entry.object_type)

    @cached_property
    def object_id(self) -> str:
        # As text, since a template writes a number as the reader's language does, three times a row.
        return str(self.entry.object_id)

    @property
    def all_label(self) -> str:
        return _("All entries about %(type)s %(id)s") % {"type": self.object_type, "id": self.object_id}

    @cached_property
    def state(self) -> Any:
        """The state that the object came to, when the entry tells."""
        told = self.entry.details.get("state_after") or self.entry.details.get("state")
        return deeds.state_of(self.entry.object_type, told)

    @cached_property
    def details(self) -> list[Detail]:
        return [
            self._detail(key, value)
            for key, value in self.entry.details.items()
            if key != "state" and value not in (None, "")
        ]

    def _detail(self, key: str, value: Any) -> Detail:
        page = deeds.page_named_by(self.entry.object_type, key)
        address = reverse(page, args=[value]) if page and isinstance(value, int) else ""
        shown = deeds.value_of_detail(key, value)
        is_data = isinstance(value, str) and shown == value
        return Detail(deeds.detail_in_words(key), shown, address, is_data)


def rows_of(entries: Iterable[JournalEntry]) -> list[EntryRow]:
    """One row an entry, in one query for each kind of object that is among them."""
    entries = list(entries)
    there: dict[str, set[int]] = {}
    for object_type, (model, _name) in PAGES.items():
        if ids := {entry.object_id for entry in entries if entry.object_type == object_type}:
            there[object_type] = set(model.objects.filter(pk__in=ids).values_list("pk", flat=True))
    return [EntryRow(entry, _address(entry, there)) for entry in entries]


def _address(entry: JournalEntry, there: dict[str, set[int]]) -> str:
    if entry.object_id not in there.get(entry.object_type, ()):
        return ""
    return address(PAGES[entry.object_type][1], entry.object_id)


# --- the list --------------------------------------------------------------------------------------


@require_safe
def journal(request: HtmxRequest) -> HttpResponse:
    """The entries that the user may see, filtered, newest first, in keyset pages."""
    context = _list(request)
    status = 200 if context["filters"].is_valid() else 422
    return render(request, "scheduling/journal.html", context, status=status)


@require_safe
def journal_changes(request: HtmxRequest) -> HttpResponse:
    """What the newest page shows now that it did not when it last asked."""
    context = _list(request)
    changes = difference(request, context["rows"])
    if not changes:
        return HttpResponse(status=NOTHING_NEW)
    return render(request, "scheduling/journal.html#changes", context | {"changes": changes})


def _list(request: HtmxRequest) -> dict[str, Any]:
    filters = JournalFilter(request.GET, request=request)
    page = _page_of(request, filters.rows_of())
    rows = rows_of(page.rows)
    query = request.GET.copy()
    for name in ("older", "newer"):
        query.pop(name, None)
    everybodys = query.copy()
    everybodys.pop("via", None)
    peoples = everybodys.copy()
    peoples.setlist("via", list(PEOPLE))
    return {
        "filters": filters,
        "page": page,
        "rows": rows,
        "shown": shown_by(rows),
        # Said, since to find that a name is not there is what takes a template longest.
        "oob": False,
        "grows": filters.is_valid() and page.newer is None and not filters.is_past,
        "query": query.urlencode(),
        "everybodys": everybodys.urlencode(),
        "peoples": peoples.urlencode(),
        "only_people": filters.only_people,
        "time_zone": timezone.get_current_timezone_name(),
    }


def _page_of(request: HtmxRequest, entries: Any) -> Page[JournalEntry]:
    page: Page[JournalEntry] = entries.newest_of(_parts_of(request.user), size=PAGE_SIZE, **cursors_of(request))
    return page


def _parts_of(user: Any) -> list[Q]:
    """What of the journal `user` may see, as conditions that exclude each other."""
    if user.is_superuser and user.is_active:
        return [Q()]
    standing = standing_of(user)
    teams = sorted(standing.roles)
    return [*(Q(team=team) for team in teams), *(Q(task=task) for task in standing.beyond)]


# --- one entry -------------------------------------------------------------------------------------


@require_safe
def journal_entry(request: HtmxRequest, pk: int) -> HttpResponse:
    """One entry with all that it tells; an edit of a task with what it changed."""
    entry = visible(JournalEntry.objects.all(), request.user, pk=pk)
    [row] = rows_of([entry])
    return render(
        request,
        "scheduling/journal_entry.html",
        {"row": row, "entry": entry, "lines": _changed(entry), "time_zone": _zone()},
    )


def _zone() -> str:
    return timezone.get_current_timezone_name()


def _changed(entry: JournalEntry) -> list[Line]:
    """What the edit of a task changed in its definition; nothing for any other entry."""
    number = entry.details.get("revision")
    if entry.object_type != "task" or not isinstance(number, int):
        return []
    found = TaskRevision.objects.filter(task=entry.object_id, number__in=[number - 1, number])
    revisions = list(found.select_related("task__group").order_by("number"))
    return compare(*revisions) if len(revisions) == 2 else []
