"""Step 2: which instances downstream are rerun with the source, in a flow or a list, on one selection.

The selection is kept on the server: every tick is a POST, whose answer is what it changed on the page. What is
done to many at once is done to what matches the filter, as the page shows it.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import ngettext

from config.http import HtmxRequest, status_of
from reruns import services
from reruns.models import Rerun, Step
from reruns.plans import Plan, plan_of
from reruns.views.draft import for_draft, head, is_stale, stale_words
from reruns.views.draft_filter import DraftFilter
from reruns.views.draft_flow import flow_view
from reruns.views.draft_list import list_view
from reruns.views.draft_words import notes_of
from scheduling.errors import SchedulingError

TEMPLATE = "reruns/draft_downstream.html"
NAMED = 3


@for_draft
def draft_downstream(request: HtmxRequest, rerun: Rerun) -> HttpResponse:
    """Everything downstream of the source, to be ticked."""
    if request.method != "POST":
        return render(request, TEMPLATE, _context(request, rerun))
    notice, status, plan = "", 200, None
    try:
        # What is said of many means what the page showed; a single tick means the same whatever else is ticked.
        if is_stale(request, rerun) and not _names_its_cycles(request):
            notice, status = stale_words(), 409
        else:
            plan, notice = _change(request, rerun)
    except SchedulingError as refusal:
        notice, status = str(refusal), status_of(refusal) or 409
    rerun.refresh_from_db()
    if not request.htmx and not notice:
        return HttpResponseRedirect(request.get_full_path())
    context = _context(request, rerun, plan) | {"notice": notice, "refused": status >= 400}
    if not request.htmx:
        return render(request, TEMPLATE, context, status=status)
    return render(request, f"{TEMPLATE}#changes", context | _changed(request, context), status=status)


def _context(request: HtmxRequest, rerun: Rerun, plan: Plan | None = None) -> dict[str, Any]:
    """What the page shows; `plan` is the current one where it is known already."""
    plan = plan or plan_of(rerun, user=request.user)
    filters = DraftFilter(request.GET, plan)
    context = head(request, rerun, Step.DOWNSTREAM) | {
        "plan": plan,
        "filters": filters,
        "notes": notes_of(plan, request.user),
        "ticked": sum(not each.is_source for each in plan.chosen),
        "time_zone": timezone.get_current_timezone_name(),
    }
    if filters.view == "list":
        shown = list_view(filters, request)
        return context | {"listed": shown, "shown": shown.shown}
    drawn = flow_view(filters, request)
    return context | {"drawn": drawn, "flow": drawn.flow, "shown": drawn.shown}


def _changed(request: HtmxRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What differs from what the page that asks shows."""
    shown = request.POST.get("shown", "")
    if "listed" in context:
        return {"changed_rows": context["listed"].since(shown)}
    return {"changed_flow": context["drawn"].since(shown)}


# --- what is done to the selection ---------------------------------------------------------------------


def _names_its_cycles(request: HtmxRequest) -> bool:
    return bool({"on", "off", "keep", "after", "not_after", "look"} & request.POST.keys())


def _change(request: HtmxRequest, rerun: Rerun) -> tuple[Plan | None, str]:
    """Do what the form asks; returns the new plan (None: nothing was asked) and what there is to say of it."""
    who: Any = request.user
    if "freeze_mode" in request.POST:
        plan, dropped = services.set_freeze_mode(rerun, request.POST["freeze_mode"] == "on", by=who)
        return plan, _without_freeze_mode(dropped) if dropped else ""
    if not {"on", "off", "keep", "tick", "after", "not_after"} & request.POST.keys():
        return None, ""
    return services.change(rerun, lambda plan: _ticks(request, plan), by=who), ""


def _ticks(request: HtmxRequest, plan: Plan) -> services.Ticks:
    """What the form ticks and unticks."""
    on, off = _named(request, plan)
    # In one order whatever it was picked by, as its names are said in that. What is asked for one by one is
    # refused in words; of many, what can be is done.
    wanted = sorted(on)
    return services.Ticks(wanted, off, skip_refused=len(wanted) > 1)


def _named(request: HtmxRequest, plan: Plan) -> tuple[set[int], set[int]]:
    asked = request.POST
    if "on" in asked or "off" in asked:
        return _numbers(asked.get("on", "")), _numbers(asked.get("off", ""))
    if "keep" in asked:
        listed, ticked = _numbers(asked.get("listed", "")), _numbers(",".join(asked.getlist("cycle")))
        return ticked, listed - ticked
    if asked.get("tick") == "between":
        return plan.between, set()
    if "tick" in asked:
        return _of_many(asked["tick"], DraftFilter(request.GET, plan))
    for name in ("after", "not_after"):
        for cycle in _numbers(asked.get(name, "")):
            if plan.candidate(cycle) is not None:
                below = {each.cycle_id for each in plan.subtree(cycle)}
                return (below, set()) if name == "after" else (set(), below)
    return set(), set()


def _of_many(asked: str, filters: DraftFilter) -> tuple[set[int], set[int]]:
    """The cycles that a word ticks and unticks, of what matches and can be ticked."""
    every = {each.cycle_id for each in filters.tickable}
    # What was ticked and cannot be any more is unticked with the rest.
    ticked = {each.cycle_id for each in filters.matching if each.chosen}
    failed = {each.cycle_id for each in filters.failed}
    return {
        "all": (every - ticked, set[int]()),
        "none": (set[int](), ticked),
        "failed": (failed - ticked, ticked - failed),
        "invert": (every - ticked, ticked),
    }.get(asked, (set(), set()))


def _numbers(text: str) -> set[int]:
    words = (word.strip() for word in text.split(","))
    return {int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 19}


def _without_freeze_mode(dropped: list[str]) -> str:
    named = ", ".join(dropped[:NAMED]) + ("…" if len(dropped) > NAMED else "")
    return ngettext(
        "Without freeze mode %(count)d instance is not ticked any more: %(names)s",
        "Without freeze mode %(count)d instances are not ticked any more: %(names)s",
        len(dropped),
    ) % {"count": len(dropped), "names": named}
