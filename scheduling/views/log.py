"""The log of one execution on the page of its instance: its tail, its parts, its search, its download."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.http import Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from config.http import HtmxRequest, NotFoundMessage
from scheduling import logs
from scheduling.models import Execution, Instance, LogChunk
from scheduling.permissions import visible

LONGEST_SEARCH = 200
# So many lines are shown above the one that was gone to.
CONTEXT = 30


@require_safe
def log_part(request: HtmxRequest, pk: int) -> HttpResponse:
    """A part of a log, for the page that shows it: `?before=` or `?starting=` a line, else the log anew.

    `execution` is the number of the attempt.
    """
    instance = visible(_instances(), request.user, pk=pk)
    executions = list(instance.executions.order_by("-number"))
    if not request.htmx:
        query = request.GET.copy()
        if asked := query.pop("before", None) or query.pop("starting", None):
            query["line"] = asked[-1]
        return HttpResponseRedirect(f"{reverse('instance-detail', args=[pk])}?{query.urlencode()}")
    for name in ("before", "starting"):
        if line := whole_number(request.GET.get(name)):
            chosen = _chosen(request, executions)
            window = getattr(logs.Index(chosen), name)(line) if chosen else logs.Window()
            context = _shown(instance, executions, chosen, window) | {"explicit": True}
            return render(request, f"scheduling/instance_log.html#{name}", context)
    context = whole(request, instance, executions)
    context |= {"instance": instance, "batch": instance.batch, "at_rest": instance.is_finished}
    return render(request, "scheduling/instance_log.html#card", context)


@require_safe
def log_download(request: HtmxRequest, pk: int) -> StreamingHttpResponse:
    """The whole log of an execution as plain text, as the job wrote it."""
    instance = visible(_instances(), request.user, pk=pk)
    chosen = _chosen(request, list(instance.executions.order_by("-number")))
    if chosen is None:
        raise Http404(NotFoundMessage(_("This instance has not run yet, so it has no log.")))
    name = f"{slugify(instance.batch.task.name)}-instance-{instance.pk}-attempt-{chosen.number}.log"
    return StreamingHttpResponse(
        logs.download(chosen),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def whole(request: HtmxRequest, instance: Instance, executions: list[Execution]) -> dict[str, Any]:
    """The log as a page first shows it: its tail, or where `?line=` or `?q=` lead."""
    chosen = _chosen(request, executions)
    wanted = request.GET.get("q", "").strip()[:LONGEST_SEARCH]
    if chosen is None:
        return _shown(instance, executions, None, logs.Window()) | {"wanted": wanted, "explicit": False}
    found = logs.search(chosen, wanted) if wanted else logs.Found()
    hit = min(max(1, whole_number(request.GET.get("hit")) or 1), max(1, len(found.lines)))
    line = found.lines[hit - 1] if found.lines else whole_number(request.GET.get("line"))
    index = logs.Index(chosen)
    window = index.starting(max(1, line - CONTEXT)) if 0 < line <= index.last_line else index.tail()
    return _shown(instance, executions, chosen, window) | {
        "explicit": "execution" in request.GET,
        "wanted": wanted,
        "found": found,
        "hit": hit,
        "hit_line": line if found.lines else 0,
        "asked_line": line,
    }


def news(request: HtmxRequest, instance: Instance, executions: list[Execution]) -> dict[str, Any]:
    """What a live page is told of its log: the lines behind what it shows, or the log of a new attempt."""
    chosen = _chosen(request, executions)
    explicit = "execution" in request.GET
    place = logs.Place.parse(request.GET.get("after", ""))
    last_line = whole_number(request.GET.get("line"))
    if str(chosen.pk if chosen else "") != request.GET.get("log", ""):
        begun = whole(request, instance, executions)
        return begun | {"explicit": explicit, "restarted": True, "log_changed": True}
    window, changed = logs.Window(end=place or logs.Place()), False
    if chosen is not None and place is not None:
        sequence = whole_number(request.GET.get("last"), none=-1)
        window = logs.Window(end=place, sequence=sequence, last_line=last_line)
        changed = LogChunk.objects.filter(execution=chosen, sequence__gt=sequence).exists()
        window = logs.Index(chosen, place).new() if changed else window
    context = _shown(instance, executions, chosen, window)
    # The page shows a line that had no end yet; it is replaced by what it is now.
    again = int(place is not None and place.line <= last_line)
    return context | {
        "explicit": explicit,
        "log_changed": changed,
        "follows": place is not None,
        "replaced": replace(window, entries=window.entries[:again]),
        "added": replace(window, entries=window.entries[again:]),
        "last_line": window.last if window.entries else last_line,
        "more": changed and window.later,
    }


def _shown(
    instance: Instance, executions: list[Execution], chosen: Execution | None, window: logs.Window
) -> dict[str, Any]:
    page = reverse("instance-detail", args=[instance.pk])
    return {
        "chosen": chosen,
        "latest": executions[0] if executions else None,
        "window": window,
        "line_address": f"{page}?execution={chosen.number}&" if chosen else "",
        "log_page": page,
        "log_part": reverse("instance-log", args=[instance.pk]),
        "log_download": reverse("instance-log-download", args=[instance.pk]),
        "follows": not window.later,
        "last_line": window.last,
        "more": False,
    }


def _instances() -> Any:
    return Instance.objects.select_related("batch__task")


def _chosen(request: HtmxRequest, executions: list[Execution]) -> Execution | None:
    if "execution" not in request.GET:
        return executions[0] if executions else None
    number = whole_number(request.GET["execution"])
    for execution in executions:
        if execution.number == number:
            return execution
    raise Http404(NotFoundMessage(_("This instance has no such execution. Open it without one.")))


def whole_number(text: str | None, *, none: int = 0) -> int:
    """The number that `text` is, or `none`."""
    # PostgreSQL's integer is what numbers and sequences are kept in.
    is_one = text is not None and text.isascii() and text.isdigit() and len(text) < 10
    return int(text) if is_one and text is not None else none
