"""Stop and rerun of many batches, ticked or all that a filter matches; see `many`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import HttpResponse, QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers

from config.http import HtmxRequest
from scheduling import services
from scheduling.filters import BatchFilter
from scheduling.models import Batch, Instance
from scheduling.permissions import RERUN, STOP
from scheduling.states import InstanceState
from scheduling.views.many import Kind, Verb, act, not_now

_TASKS_NAMED = 5


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def batches_stop(request: HtmxRequest) -> HttpResponse:
    """Stop unfinished batches, ticked or all that match."""
    return act(request, _BATCHES, _STOP)


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def batches_rerun(request: HtmxRequest) -> HttpResponse:
    """Rerun finished batches, ticked or all that match."""
    return act(request, _BATCHES, _RERUN)


# --- what will happen ------------------------------------------------------------------------------


def _of_stop(batches: Sequence[Batch]) -> list[str]:
    counts = Instance.objects.filter(batch__in=batches).count_by_state()
    running, waiting = counts.get(InstanceState.RUNNING, 0), counts.get(InstanceState.WAITING, 0)
    said = [
        (
            running,
            ngettext(
                "%d running instance is told to end, and shows terminating until its node confirms that.",
                "%d running instances are told to end, and show terminating until their nodes confirm that.",
                running,
            ),
        ),
        (
            waiting,
            ngettext(
                "%d waiting instance will never start.", "%d waiting instances will never start.", waiting
            ),
        ),
    ]
    return [*(text % count for count, text in said if count), _by_task(batches)]


def _of_rerun(batches: Sequence[Batch]) -> list[str]:
    new = ngettext("%d new batch begins", "%d new batches begin", len(batches)) % len(batches)
    total = sum(batch.total for batch in batches)
    instances = ngettext("%d instance", "%d instances", total) % total
    effects = [
        _("%(new)s with %(instances)s, each with the content, parameters and due time of the one it reruns.")
        % {"new": new, "instances": instances}
    ]
    before = Batch.objects.filter(pk__in=[batch.pk for batch in batches]).rerun_before()
    if before:
        effects.append(
            ngettext("%d of them has been rerun before.", "%d of them have been rerun before.", before) % before
        )
    return [*effects, _by_task(batches)]


def _by_task(batches: Sequence[Batch]) -> str:
    counts = Counter(batch.task.name for batch in batches).most_common()
    named = [f"{name} × {count}" for name, count in counts[:_TASKS_NAMED]]
    rest = len(counts[_TASKS_NAMED:])
    if rest:
        named.append(ngettext("%d other task", "%d other tasks", rest) % rest)
    return _("Tasks: %s.") % ", ".join(named)


def _made(done: list[Batch], user: Any, since: datetime) -> str:
    """The query that lists the new batches: what this person began by hand in these seconds."""
    query = QueryDict(mutable=True)
    until = max(batch.created_at for batch in done) + timedelta(seconds=1)
    query.update(
        {
            "trigger": "manual",
            "by": user.get_username(),
            "since": _address_moment(since),
            "until": _address_moment(until),
        }
    )
    return query.urlencode(safe=":")


def _address_moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"


# --- in words --------------------------------------------------------------------------------------


def _too_many(count: str, most: int) -> str:
    return _(
        "%(count)s batches match, and one action takes at most %(most)d, so that its answer comes while you "
        "wait and can be read. Narrow the filter, for example to one task, and do so in parts."
    ) % {"count": count, "most": most}


def _title_of_stop(hit: int, count: int) -> str:
    text = ngettext("Stop %(hit)d of %(count)d batch", "Stop %(hit)d of %(count)d batches", count)
    return text % {"hit": hit, "count": count}


def _title_of_rerun(hit: int, count: int) -> str:
    text = ngettext("Rerun %(hit)d of %(count)d batch", "Rerun %(hit)d of %(count)d batches", count)
    return text % {"hit": hit, "count": count}


_BATCHES = Kind(
    name="batch",
    filters=BatchFilter,
    visible=lambda user: Batch.objects.visible_to(user),
    rows=lambda batches: batches.select_related("task", "group").order_by("-created_at", "-pk"),
    list_page="batch-list",
    detail_page="batch-detail",
    too_many=_too_many,
    none_matches=lambda: _("No batch matches any more."),
    came=lambda count: (
        ngettext(
            "%(came)d more batch matches the filter by now; it was left alone.",
            "%(came)d more batches match the filter by now; they were left alone.",
            count,
        )
        % {"came": count}
    ),
    fixed=["tab"],
)
_STOP = Verb(
    name="stop",
    permission=STOP,
    may=lambda batch: batch.can_stop,
    perform=services.stop_all,
    title=_title_of_stop,
    button=lambda count: ngettext("Stop %d batch", "Stop %d batches", count) % count,
    done=lambda count: ngettext("%d batch is stopped", "%d batches are stopped", count) % count,
    effects=_of_stop,
    none=lambda: _("None of them can be stopped."),
    not_now=not_now,
    destroys=True,
)
_RERUN = Verb(
    name="rerun",
    permission=RERUN,
    may=lambda batch: batch.can_rerun,
    perform=services.rerun_all,
    title=_title_of_rerun,
    button=lambda count: ngettext("Rerun %d batch", "Rerun %d batches", count) % count,
    done=lambda count: ngettext("%d new batch has begun", "%d new batches have begun", count) % count,
    effects=_of_rerun,
    none=lambda: _("None of them can be rerun."),
    not_now=not_now,
    made=_made,
    made_link=lambda: _("Show the new batches"),
)
