"""Stop and rerun of many batches: first which, how many and what becomes of them, then the deed.

A GET with ticked batches (`batch=`) or with everything that a filter matches (`all=1` and the filter's address
in `query=`) says what will be hit and asks why. Which batches these are is fixed then: the POST names them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import trigger_client_event

from config.http import HtmxRequest
from scheduling import services
from scheduling.filters import BatchFilter
from scheduling.filters.fields import as_id, words_of
from scheduling.models import Batch, Instance
from scheduling.permissions import RERUN, STOP, User, denied, may_somewhere
from scheduling.queries import capped_count, newest_first
from scheduling.services import MOST_AT_ONCE, Refused, Result
from scheduling.services.bulk import check_count
from scheduling.states import InstanceState
from scheduling.views.actions import ACTED, ReasonForm

# After the deed a page without htmx leads here, so that loading it again does nothing again.
TOLD = "told"
_TASKS_NAMED = 5


@dataclass(frozen=True)
class Verb:
    """One of the two things that are done to many batches."""

    name: str
    permission: str
    may: Callable[[Batch], bool]
    perform: Callable[..., Result[Batch]]


_STOP = Verb("stop", STOP, lambda batch: batch.can_stop, services.stop_all)
_RERUN = Verb("rerun", RERUN, lambda batch: batch.can_rerun, services.rerun_all)


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def batches_stop(request: HtmxRequest) -> HttpResponse:
    """Stop unfinished batches, ticked or all that match."""
    return _answer(request, _STOP)


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def batches_rerun(request: HtmxRequest) -> HttpResponse:
    """Rerun finished batches, ticked or all that match."""
    return _answer(request, _RERUN)


def _answer(request: HtmxRequest, verb: Verb) -> HttpResponse:
    if not may_somewhere(request.user, verb.permission):
        raise denied(verb.permission)
    if request.method == "POST":
        return _do(request, verb)
    return _told(request, verb) if TOLD in request.GET else _ask(request, verb)


# --- which -----------------------------------------------------------------------------------------


@dataclass
class Plan:
    """Which of the batches meant will be hit, and which are left alone: batches by the reason."""

    hit: list[Batch] = field(default_factory=list)
    left: dict[str, list[Batch]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.hit) + sum(len(batches) for batches in self.left.values())

    @classmethod
    def of(cls, batches: Iterable[Batch], verb: Verb, user: User) -> Plan:
        """Raises PermissionDenied when the user may do this to none of them."""
        plan = cls()
        forbidden = _no_permission(verb)
        for batch in batches:
            if not user.has_perm(verb.permission, batch):
                plan.left.setdefault(forbidden, []).append(batch)
            elif not verb.may(batch):
                plan.left.setdefault(_not_now(batch), []).append(batch)
            else:
                plan.hit.append(batch)
        if len(plan.left.get(forbidden, [])) == plan.count > 0:
            raise PermissionDenied(forbidden)
        return plan


def _no_permission(verb: Verb) -> str:
    return str(denied(verb.permission))


def _not_now(batch: Batch) -> str:
    return _("The state is: %(state)s.") % {"state": batch.get_state_display().lower()}


def _meant(request: HtmxRequest) -> BatchFilter:
    """The filter that says which batches are meant: the list's own, or the ticked ones by ID."""
    if request.GET.get("all"):
        return BatchFilter(QueryDict(request.GET.get("query", "")), user=request.user)
    data = QueryDict(request.GET.get("query", "")).copy()
    ticked = QueryDict(mutable=True)
    ticked["tab"] = data.get("tab", "")
    ticked.setlist("batch", request.GET.getlist("batch"))
    return BatchFilter(ticked, user=request.user)


def _rows(batches: Any) -> Any:
    return batches.select_related("task", "group").order_by("-created_at", "-pk")


# --- the question ----------------------------------------------------------------------------------


def _ask(request: HtmxRequest, verb: Verb) -> HttpResponse:
    filters = _meant(request)
    query = request.GET.get("query", "")
    if not request.GET.get("all") and not words_of(request.GET.getlist("batch")):
        return _confirm(request, verb, Plan(), query=query, refusal=_("Nothing is ticked."), status=422)
    if not filters.is_valid():
        mistakes = [str(each) for errors in filters.form.errors.values() for each in errors]
        refusal = _("The filter is not valid, so it says nothing: %s") % " ".join(mistakes)
        return _confirm(request, verb, Plan(), query=query, refusal=refusal, status=422)
    batches = newest_first(_rows(filters.rows_of()), size=MOST_AT_ONCE + 1, within=filters.within).rows
    if len(batches) > MOST_AT_ONCE:
        return _confirm(request, verb, Plan(), query=query, refusal=_too_many(filters), status=422)
    plan = Plan.of(batches, verb, request.user)
    if not plan.hit:
        refusal = _("None of them can be stopped.") if verb is _STOP else _("None of them can be rerun.")
        refusal = refusal if plan.count else _("No batch matches any more.")
        return _confirm(request, verb, plan, query=query, refusal=refusal, status=409)
    return _confirm(
        request, verb, plan, query=query, form=ReasonForm(), everything=bool(request.GET.get("all"))
    )


def _too_many(filters: BatchFilter) -> str:
    count = capped_count(filters.rows_of(), 10_000, within=filters.within)
    return _(
        "%(count)s batches match, and one action takes at most %(most)d, so that its answer comes while you "
        "wait and can be read. Narrow the filter, for example to one task, and do so in parts."
    ) % {"count": f"{count:,}" if count <= 10_000 else "10,000+", "most": MOST_AT_ONCE}


def _confirm(
    request: HtmxRequest, verb: Verb, plan: Plan, *, status: int = 200, **context: Any
) -> HttpResponse:
    template = "scheduling/bulk.html"
    context |= {
        "verb": verb.name,
        "plan": plan,
        "title": _title(verb, plan),
        "button": _button(verb, len(plan.hit)),
        "effects": _effects(verb, plan.hit),
        "bound": " ".join(str(batch.pk) for batch in plan.hit),
        "others": " ".join(str(batch.pk) for batches in plan.left.values() for batch in batches),
    }
    return render(request, f"{template}#dialog" if request.htmx else template, context, status=status)


def _title(verb: Verb, plan: Plan) -> str:
    if verb is _STOP:
        text = ngettext("Stop %(hit)d of %(count)d batch", "Stop %(hit)d of %(count)d batches", plan.count)
    else:
        text = ngettext("Rerun %(hit)d of %(count)d batch", "Rerun %(hit)d of %(count)d batches", plan.count)
    return text % {"hit": len(plan.hit), "count": plan.count}


def _button(verb: Verb, count: int) -> str:
    if verb is _STOP:
        return ngettext("Stop %d batch", "Stop %d batches", count) % count
    return ngettext("Rerun %d batch", "Rerun %d batches", count) % count


def _effects(verb: Verb, batches: Sequence[Batch]) -> list[str]:
    """What will happen to the batches that are hit, in sentences."""
    if not batches:
        return []
    return [*(_effects_of_stop(batches) if verb is _STOP else _effects_of_rerun(batches)), _by_task(batches)]


def _effects_of_stop(batches: Sequence[Batch]) -> list[str]:
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
    return [text % count for count, text in said if count]


def _effects_of_rerun(batches: Sequence[Batch]) -> list[str]:
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
    return effects


def _by_task(batches: Sequence[Batch]) -> str:
    counts = Counter(batch.task.name for batch in batches).most_common()
    named = [f"{name} × {count}" for name, count in counts[:_TASKS_NAMED]]
    rest = len(counts[_TASKS_NAMED:])
    if rest:
        named.append(ngettext("%d other task", "%d other tasks", rest) % rest)
    return _("Tasks: %s.") % ", ".join(named)


# --- the deed --------------------------------------------------------------------------------------


def _do(request: HtmxRequest, verb: Verb) -> HttpResponse:
    ids = _ids_in(request, "bound")
    check_count(ids)
    visible = list(_rows(Batch.objects.visible_to(request.user).filter(pk__in=ids)))
    form = ReasonForm(request.POST)
    query = request.POST.get("query", "")
    everything = bool(request.POST.get("all"))
    if not form.is_valid() or not ids:
        plan = Plan.of(visible, verb, request.user)
        refusal = "" if ids else _("Nothing is ticked.")
        return _confirm(
            request, verb, plan, query=query, form=form, refusal=refusal, everything=everything, status=422
        )
    permitted = [batch for batch in visible if request.user.has_perm(verb.permission, batch)]
    if visible and not permitted:
        raise PermissionDenied(_no_permission(verb))
    came = _came_since(request, query, ids) if everything else 0
    begun = timezone.now()
    result = verb.perform(permitted, by=request.user, reason=form.cleaned_data["reason"])
    result.refused += _unreachable(ids, visible, permitted, verb)
    return _result(request, verb, result, came=came, query=query, since=begun)


def _ids_in(request: HtmxRequest, name: str) -> list[int]:
    return [number for word in words_of([request.POST.get(name, "")]) if (number := as_id(word)) is not None]


def _unreachable(ids: list[int], visible: list[Batch], permitted: list[Batch], verb: Verb) -> list[Refused]:
    seen, allowed = {batch.pk for batch in visible}, {batch.pk for batch in permitted}
    gone = _("It is not there any more, or not yours to see.")
    return [Refused(pk, gone if pk not in seen else _no_permission(verb)) for pk in ids if pk not in allowed]


def _came_since(request: HtmxRequest, query: str, ids: list[int]) -> int:
    """How many more match by now than when the question was asked; they are left alone."""
    filters = BatchFilter(QueryDict(query), user=request.user)
    known = {*ids, *_ids_in(request, "others")}
    return capped_count(filters.rows_of().exclude(pk__in=known), MOST_AT_ONCE)


def _result(
    request: HtmxRequest, verb: Verb, result: Result[Batch], *, came: int, query: str, since: datetime
) -> HttpResponse:
    outcome = {
        "verb": verb.name,
        "done": len(result.done),
        "refused": [{"pk": each.pk, "why": each.why} for each in result.refused],
        "came": came,
        "query": query,
        "begun": _address_of(result.done, request.user, since) if verb is _RERUN and result.done else "",
    }
    if not request.htmx:
        request.session[TOLD] = outcome
        return redirect(f"{request.path}?{TOLD}")
    response = render(request, "scheduling/bulk.html#outcome", _outcome_context(verb, outcome))
    return trigger_client_event(response, ACTED, after="settle")


def _told(request: HtmxRequest, verb: Verb) -> HttpResponse:
    """What became of the last deed of this session."""
    outcome = request.session.get(TOLD)
    if outcome is None or outcome["verb"] != verb.name:
        return redirect("batch-list")
    return render(request, "scheduling/bulk.html", _outcome_context(verb, outcome))


def _outcome_context(verb: Verb, outcome: dict[str, Any]) -> dict[str, Any]:
    return {"title": _done(verb, outcome["done"]), "outcome": outcome}


def _done(verb: Verb, count: int) -> str:
    if verb is _STOP:
        return ngettext("%d batch is stopped", "%d batches are stopped", count) % count
    return ngettext("%d new batch has begun", "%d new batches have begun", count) % count


def _address_of(done: list[Batch], user: Any, since: datetime) -> str:
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
