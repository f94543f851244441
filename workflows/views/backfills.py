"""Backfills: asking for one with a dry run, the list of them, and the page of one with its progress."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_safe
from django.views.decorators.vary import vary_on_headers

from config.http import HtmxRequest
from scheduling.models import JournalEntry
from scheduling.permissions import authorised, visible
from scheduling.queries import newest_first
from scheduling.views.actions import Action
from scheduling.views.asking import ask
from scheduling.views.lists import NumberedList
from scheduling.views.live import NOTHING_NEW, STOP_POLLING
from scheduling.views.paging import cursors_of
from scheduling.views.rows import difference, shown_by
from scheduling.views.sections import Section
from workflows import services
from workflows.filters import BackfillFilter
from workflows.models import Backfill, CycleInstance, NodeRun
from workflows.permissions import STOP
from workflows.states import BACKFILL, BackfillState, CycleState
from workflows.views.rows import BackfillRow, CycleRow

DETAIL = "workflows/backfill_detail.html"
PAGE_SIZE = 50
ENTRIES_SHOWN = 20


BACKFILLS = NumberedList("workflows/backfill_list.html", BackfillFilter, BackfillRow.of)


# --- the list --------------------------------------------------------------------------------------


@require_safe
def backfill_list(request: HtmxRequest) -> HttpResponse:
    """The backfills, filtered, newest first."""
    return BACKFILLS.page(request)


@require_safe
def backfill_list_changes(request: HtmxRequest) -> HttpResponse:
    """The backfills that differ from what the page shows."""
    return BACKFILLS.changes(request)


# --- one -------------------------------------------------------------------------------------------


@require_safe
def backfill_detail(request: HtmxRequest, pk: int) -> HttpResponse:
    """A backfill: how far it is, its cycles by state, and what was done to it."""
    return render(request, DETAIL, _context(request, pk))


@require_safe
def backfill_changes(request: HtmxRequest, pk: int) -> HttpResponse:
    """What differs on a backfill's page since it last asked."""
    context = _context(request, pk)
    found = difference(request, context["parts"])
    at_rest = context["at_rest"]
    if not found and not at_rest:
        return HttpResponse(status=NOTHING_NEW)
    head = {part.mark for part in context["sections"]}
    changed = [part for part in found.changed if part.mark not in head]
    context |= {
        "changed": {part.mark for part in found.changed},
        "changed_rows": changed,
        "moved": bool(found.added or found.gone),
    }
    return render(request, f"{DETAIL}#changes", context, status=STOP_POLLING if at_rest else 200)


def _context(request: HtmxRequest, pk: int) -> dict[str, Any]:
    found = visible(Backfill.objects.select_related("workflow__revision", "team"), request.user, pk=pk)
    [row] = BackfillRow.of([found], request.user)
    instances = CycleInstance.objects.filter(backfill=found)
    page = newest_first(instances.for_rows(), size=PAGE_SIZE, time="cycle_time", **cursors_of(request))
    rows = CycleRow.of(page.rows, request.user)
    of_backfill = JournalEntry.objects.filter(object_type="backfill", object_id=pk)
    entries = list(of_backfill.order_by("-at", "-pk")[:ENTRIES_SHOWN])
    sections = [
        Section(row.mark, row.digest),
        Section("journal", [entry.pk for entry in entries]),
    ]
    parts: list[Any] = [*sections, *rows]
    return {
        "row": row,
        "backfill": found,
        "page": page,
        "rows": rows,
        "entries": entries,
        "sections": sections,
        "parts": parts,
        "shown": shown_by(parts),
        "counts": [(state, str(state.label), row.counts[state]) for state in CycleState if state in row.counts],
        "asked": request.GET.urlencode(),
        "at_rest": found.is_finished,
        "time_zone": timezone.get_current_timezone_name(),
    }


# --- what is done to one ---------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def backfill_act(request: HtmxRequest, pk: int, verb: str) -> HttpResponse:
    """Pause, resume or terminate a backfill."""
    found: Backfill = authorised(Backfill.objects.select_related("workflow"), request.user, STOP, pk=pk)
    named = {"id": found.pk, "workflow": found.workflow.name}
    titles = {
        "pause": _("Pause backfill %(id)d of %(workflow)s"),
        "resume": _("Resume backfill %(id)d of %(workflow)s"),
        "terminate": _("Terminate backfill %(id)d of %(workflow)s"),
    }
    buttons = {"pause": _("Pause"), "resume": _("Resume"), "terminate": _("Terminate")}
    performs = {
        "pause": (services.pause_backfill, BackfillState.PAUSED, _of_pausing),
        "resume": (services.resume_backfill, BackfillState.RUNNING, _of_resuming),
        "terminate": (services.terminate_backfill, BackfillState.TERMINATING, _of_terminating),
    }
    perform, state, effects = performs[verb]
    action = Action(
        verb=verb,
        title=titles[verb] % named,
        button=buttons[verb],
        effects=effects(found),
        perform=perform,
        possible=BACKFILL.allows(found.state, state),
    )
    not_now = _("Backfill %(id)d has state %(state)s by now, so this is not possible any more.") % {
        "id": found.pk,
        "state": found.get_state_display(),
    }
    return ask(request, found, action, back_to=f"/backfills/{pk}/", not_now=not_now)


def _waiting(found: Backfill) -> int:
    """How many of its cycles have not had their turn."""
    return CycleInstance.objects.filter(backfill=found, due=False).unfinished().count()


def _begun(found: Backfill) -> int:
    """How many have had their turn and not ended."""
    return CycleInstance.objects.filter(backfill=found, due=True).unfinished().count()


def _of_pausing(found: Backfill) -> list[str]:
    waiting, begun = _waiting(found), _begun(found)
    return [
        ngettext(
            "%d cycle that has not had its turn waits until the backfill is resumed.",
            "%d cycles that have not had their turn wait until the backfill is resumed.",
            waiting,
        )
        % waiting,
        ngettext("%d cycle that has had it goes on.", "%d cycles that have had it go on.", begun) % begun,
    ]


def _of_resuming(found: Backfill) -> list[str]:
    waiting = _waiting(found)
    return [
        ngettext(
            "%(waiting)d cycle has its turn, at most %(most)d at once.",
            "%(waiting)d cycles have their turn, at most %(most)d at once.",
            waiting,
        )
        % {"waiting": waiting, "most": found.parallelism},
        _("What has ended stays as it ended; nothing that succeeded runs again."),
    ]


def _of_terminating(found: Backfill) -> list[str]:
    unfinished = CycleInstance.objects.filter(backfill=found).unfinished()
    running = unfinished.filter(state=CycleState.RUNNING).count()
    waiting = unfinished.count() - running
    nodes = NodeRun.objects.running().filter(instance__backfill=found).count()
    effects = []
    if waiting:
        text = ngettext(
            "%d cycle that has not begun is cancelled.", "%d cycles that have not begun are cancelled.", waiting
        )
        effects.append(text % waiting)
    if running:
        cycles = ngettext("%d running cycle is stopped", "%d running cycles are stopped", running) % running
        effects.append(
            ngettext(
                "%(cycles)s: %(nodes)d node that runs is told to end.",
                "%(cycles)s: %(nodes)d nodes that run are told to end.",
                nodes,
            )
            % {"cycles": cycles, "nodes": nodes}
        )
    return [
        *effects,
        _("It shows terminating until all of that has confirmed, and cannot be resumed."),
        _("What has ended stays as it ended."),
    ]
