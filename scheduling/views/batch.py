"""The page of one batch, with the live view that keeps it fresh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.definitions import revisions
from scheduling.filters import InstanceFilter
from scheduling.models import Batch, Execution, JournalEntry
from scheduling.permissions import RERUN, STOP, User, visible
from scheduling.queries import chain_of
from scheduling.states import InstanceState
from scheduling.views import effective, timeline, why
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.log import whole_number
from scheduling.views.rows import BatchRow, Head, InstanceRow, difference, shown_by

INSTANCES_SIZE = 100
ENTRIES_SHOWN = 100


@require_safe
def batch_detail(request: HtmxRequest, pk: int) -> HttpResponse:
    """A batch: its facts and why it is so, its instances by number or node, its reruns, content and journal."""
    batch = visible(Batch.objects.for_page(), request.user, pk=pk)
    context = _context(request, batch) | _history_context(request, batch)
    context |= _content_context(batch)
    return render(request, "scheduling/batch_detail.html", context, status=context["status"])


@require_safe
def batch_changes(request: HtmxRequest, pk: int) -> HttpResponse:
    """What differs on a batch's page since it last asked."""
    batch = visible(Batch.objects.for_changes(), request.user, pk=pk)
    context = _context(request, batch)
    head = context["head"]
    changes = difference(request, [head, *context["instances"].rows])
    at_rest = context["at_rest"]
    if not changes and not at_rest:
        return HttpResponse(status=NOTHING_NEW)
    context |= {
        "head_changed": head in changes.changed,
        "changed_rows": [row for row in changes.changed if row is not head],
        # Rows that come, go or move to another node: the table is put in anew.
        "rows_moved": bool(changes.added or changes.gone or (context["by_node"] and changes.changed)),
        "history_changed": bool(changes),
    }
    if changes:
        context |= _history_context(request, batch)
    return render(
        request, "scheduling/batch_detail.html#changes", context, status=STOP_POLLING if at_rest else 200
    )


def _context(request: HtmxRequest, batch: Batch) -> dict[str, Any]:
    context = head_context(request, batch) | _instances_context(request, batch)
    return context | {"shown": shown_by([context["head"], *context["instances"].rows])}


# --- the head --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """How many instances are in a state, and the filter that shows them."""

    state: str
    label: str
    count: int
    query: str
    current: bool


@dataclass(frozen=True)
class Fact:
    """Something that an app above knows of a batch; `address` is empty where its reader may not go."""

    label: str
    text: str
    address: str = ""


# What apps above know of a batch.
FACTS: list[Callable[[Batch, User], Fact | None]] = []


def head_context(request: HtmxRequest, batch: Batch) -> dict[str, Any]:
    """What the head of the page of `batch` (from `for_page`) shows."""
    [row] = BatchRow.of([batch], request.user)
    return {
        "batch": batch,
        "row": row,
        "head": Head(row, why.of_batch(batch)),
        "counts": _counts(request, row),
        "known": [fact for each in FACTS if (fact := each(batch, request.user))],
    }


def _counts(request: HtmxRequest, row: BatchRow) -> list[Count]:
    batch = row.batch
    asked = request.GET.getlist("state")
    ended = [
        ([InstanceState.SUCCESS], batch.succeeded),
        ([InstanceState.FAILED], batch.failed),
        ([InstanceState.TIMED_OUT], batch.timed_out),
        ([InstanceState.TERMINATED], batch.terminated),
        ([InstanceState.RUNNING, InstanceState.TERMINATING], row.running),
        ([InstanceState.WAITING], row.waiting),
    ]
    counts = [
        Count(
            state=states[0].value,
            label=str(states[0].label),
            count=count,
            query="&".join(f"state={state.value}" for state in states),
            current=sorted(asked) == sorted(state.value for state in states),
        )
        for states, count in ended
        if count
    ]
    return [Count("", _("All"), batch.total, "", not asked), *counts]


# --- the instances ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class InstancePage:
    """Some of a batch's instances, and the query strings of the pages before and behind (empty: none)."""

    rows: list[InstanceRow]
    preceding: str = ""
    following: str = ""


def _instances_context(request: HtmxRequest, batch: Batch) -> dict[str, Any]:
    filters = InstanceFilter(request.GET, batch=batch)
    by_node = request.GET.get("by") == "node"
    page = _by_node(request, batch, filters) if by_node else _by_number(request, batch, filters)
    valid = filters.is_valid()
    return {
        "filters": filters,
        "instances": page,
        "by_node": by_node,
        "switch": _query(request, by=None if by_node else "node"),
        "asked": request.GET.urlencode(),
        "may_act": request.user.has_perm(STOP, batch) or request.user.has_perm(RERUN, batch),
        "at_rest": batch.is_finished and all(row.instance.is_finished for row in page.rows),
        "time_zone": timezone.get_current_timezone_name(),
        "status": 200 if valid else 422,
    }


def _by_number(request: HtmxRequest, batch: Batch, filters: InstanceFilter) -> InstancePage:
    first = whole_number(request.GET.get("from"))
    rows = filters.rows.select_related("node").order_by("number")
    found = list(rows.filter(number__gte=first)[: INSTANCES_SIZE + 1])
    before = list(rows.filter(number__lt=first).order_by("-number")[:INSTANCES_SIZE]) if first else []
    following = found[INSTANCES_SIZE].number if len(found) > INSTANCES_SIZE else None
    return InstancePage(
        _rows(request, batch, found[:INSTANCES_SIZE]),
        preceding=_query(request, **{"from": before[-1].number}) if before else "",
        following=_query(request, **{"from": following}) if following is not None else "",
    )


def _by_node(request: HtmxRequest, batch: Batch, filters: InstanceFilter) -> InstancePage:
    skipped = whole_number(request.GET.get("from"))
    rows = filters.rows.select_related("node").order_by("node__name", "number")
    found = list(rows[skipped : skipped + INSTANCES_SIZE + 1])
    before = max(0, skipped - INSTANCES_SIZE)
    return InstancePage(
        _rows(request, batch, found[:INSTANCES_SIZE]),
        preceding=_query(request, **{"from": before}) if skipped else "",
        following=_query(request, **{"from": skipped + INSTANCES_SIZE}) if len(found) > INSTANCES_SIZE else "",
    )


def _rows(request: HtmxRequest, batch: Batch, found: list[Any]) -> list[InstanceRow]:
    for instance in found:
        instance.batch = batch
    return InstanceRow.of(found, request.user)


def _query(request: HtmxRequest, **changed: Any) -> str:
    """The address's query with some of it changed (None: left out); another order begins at its first page."""
    query = request.GET.copy()
    query.pop("from", None)
    for name, value in changed.items():
        query.pop(name, None)
        if value is not None:
            query[name] = str(value)
    return "?" + query.urlencode()


# --- what happened ---------------------------------------------------------------------------------


def _history_context(request: HtmxRequest, batch: Batch) -> dict[str, Any]:
    return {
        "chain": chain_of(batch, Batch.objects.visible_to(request.user), JournalEntry.objects.all()),
        "events": timeline.of_journal(list(JournalEntry.objects.about(batch)[:ENTRIES_SHOWN])),
    }


def _content_context(batch: Batch) -> dict[str, Any]:
    """The content as it ran, and what was changed since; `difference` is empty when it is today's."""
    as_ran, today = batch.revision, batch.task.revision
    as_ran.task = batch.task
    changed = []
    if today is not None and today != as_ran:
        today.task = batch.task
        changed = revisions.compare(as_ran, today)
    given = effective.of_batch(batch)
    newest = Execution.objects.filter(instance__batch=batch).order_by("-number").first() if given else None
    return {
        "content": revisions.content_text(as_ran),
        "today": today,
        "difference": changed,
        "effective": given,
        "execution": newest,
    }
