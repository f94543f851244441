"""What is done to many records at once: first which, how many and what becomes of them, then the deed.

A GET with ticked records (`batch=` or whatever the kind is called) or with everything that a filter matches
(`all=1` and the filter's address in `query=`) says what will be hit and asks why. Which records these are is
fixed then: the POST names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django_htmx.http import trigger_client_event

from config.http import HtmxRequest
from scheduling.errors import TooMany
from scheduling.filters.fields import as_id, words_of
from scheduling.permissions import User, denied, may_somewhere
from scheduling.queries import capped_count, newest_first
from scheduling.services.results import MOST_AT_ONCE, Refused, Result
from scheduling.views.actions import ACTED, Option, ReasonForm
from scheduling.views.asking import chosen_of
from scheduling.views.lists import MOST_COUNTED, said_count

TEMPLATE = "scheduling/bulk.html"
# After the deed a page without htmx leads here, so that loading it again does nothing again.
TOLD = "told"


@dataclass(frozen=True)
class Kind:
    """The records that are acted on: how they are named, found and shown."""

    name: str
    """What a ticked one is called in an address."""
    filters: Callable[..., Any]
    """The FilterSet of the list, which takes the address and `user`; a field of it is named `name`."""
    visible: Callable[[User], Any]
    rows: Callable[[Any], Any]
    """A queryset with what the question says of each, newest first."""
    list_page: str
    detail_page: str
    too_many: Callable[[str, int], str]
    """The refusal when more match (so many, in words) than one action takes (so many)."""
    none_matches: Callable[[], str]
    came: Callable[[int], str]
    """That so many more match by the time of the deed, and were left alone."""
    fixed: Sequence[str] = ()
    """What of the list's address narrows the ticked ones too."""
    time: str = "created_at"


@dataclass(frozen=True)
class Verb:
    """One of the things that are done to many; the words are of how many are hit, of how many there are."""

    name: str
    permission: str
    may: Callable[[Any], bool]
    perform: Callable[..., Result[Any]]
    title: Callable[[int, int], str]
    button: Callable[[int], str]
    done: Callable[[int], str]
    effects: Callable[[Sequence[Any]], list[str]]
    none: Callable[[], str]
    """That it cannot be done to any of them."""
    not_now: Callable[[Any], str]
    """Why it cannot be done to this one."""
    destroys: bool = False
    option: Callable[[Sequence[Any]], Option | None] = lambda _hit: None
    """A choice beside the reason; `perform` takes it as its keyword argument."""
    made: Callable[[list[Any], User, datetime], str] | None = None
    """The query of the list that shows what came of it, done since a moment."""
    made_link: Callable[[], str] = str


def act(request: HtmxRequest, kind: Kind, verb: Verb) -> HttpResponse:
    """Answer the question (GET) or do the deed (POST).

    Raises PermissionDenied when the user may do this nowhere, whatever was named.
    """
    if not may_somewhere(request.user, verb.permission):
        raise denied(verb.permission)
    if request.method == "POST":
        return _do(request, kind, verb)
    return _told(request, kind, verb) if TOLD in request.GET else _ask(request, kind, verb)


# --- which -----------------------------------------------------------------------------------------


@dataclass
class Plan:
    """Which of the records meant will be hit, and which are left alone: records by the reason."""

    hit: list[Any] = field(default_factory=list)
    left: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.hit) + sum(len(records) for records in self.left.values())

    @classmethod
    def of(cls, records: Iterable[Any], verb: Verb, user: User) -> Plan:
        """Raises PermissionDenied when the user may do this to none of them."""
        plan = cls()
        forbidden = _no_permission(verb)
        for record in records:
            if not user.has_perm(verb.permission, record):
                plan.left.setdefault(forbidden, []).append(record)
            elif not verb.may(record):
                plan.left.setdefault(verb.not_now(record), []).append(record)
            else:
                plan.hit.append(record)
        if len(plan.left.get(forbidden, [])) == plan.count > 0:
            raise PermissionDenied(forbidden)
        return plan


def _no_permission(verb: Verb) -> str:
    return str(denied(verb.permission))


def not_now(record: Any) -> str:
    """That the state of `record` does not allow it."""
    return _("The state is: %(state)s.") % {"state": record.get_state_display().lower()}


def _meant(request: HtmxRequest, kind: Kind) -> Any:
    """The filter that says which records are meant: the list's own, or the ticked ones by ID."""
    asked = QueryDict(request.GET.get("query", ""))
    if request.GET.get("all"):
        return kind.filters(asked, user=request.user)
    ticked = QueryDict(mutable=True)
    for name in kind.fixed:
        ticked[name] = asked.get(name, "")
    ticked.setlist(kind.name, request.GET.getlist(kind.name))
    return kind.filters(ticked, user=request.user)


# --- the question ----------------------------------------------------------------------------------


def _ask(request: HtmxRequest, kind: Kind, verb: Verb) -> HttpResponse:
    filters = _meant(request, kind)
    refuse = _Confirm(request, kind, verb, request.GET.get("query", ""))
    if not request.GET.get("all") and not words_of(request.GET.getlist(kind.name)):
        return refuse(Plan(), refusal=_("Nothing is ticked."), status=422)
    if not filters.is_valid():
        mistakes = [str(each) for errors in filters.form.errors.values() for each in errors]
        refusal = _("The filter is not valid, so it says nothing: %s") % " ".join(mistakes)
        return refuse(Plan(), refusal=refusal, status=422)
    # Counted first: to read the rows of too many, only to refuse them, takes longer than all the rest.
    count = capped_count(filters.rows_of(), MOST_COUNTED, within=filters.within)
    if count > MOST_AT_ONCE:
        return refuse(Plan(), refusal=_too_many(kind, count), status=422)
    found = kind.rows(filters.rows_of())
    records = newest_first(found, size=MOST_AT_ONCE, within=filters.within, time=kind.time).rows
    plan = Plan.of(records, verb, request.user)
    if not plan.hit:
        return refuse(plan, refusal=verb.none() if plan.count else kind.none_matches(), status=409)
    return refuse(plan, form=ReasonForm(), everything=bool(request.GET.get("all")))


def _too_many(kind: Kind, count: int) -> str:
    return kind.too_many(said_count(count), MOST_AT_ONCE)


@dataclass(frozen=True)
class _Confirm:
    """The question, or why it is not asked, as a dialog for htmx, else as a page."""

    request: HtmxRequest
    kind: Kind
    verb: Verb
    query: str

    def __call__(self, plan: Plan, *, status: int = 200, **context: Any) -> HttpResponse:
        verb = self.verb
        option = verb.option(plan.hit) if plan.hit else None
        context |= {
            "option": option,
            "option_ticked": any(chosen_of(self.request, option).values()),
            "kind": self.kind,
            "verb": verb,
            "plan": plan,
            "query": self.query,
            "title": verb.title(len(plan.hit), plan.count),
            "button": verb.button(len(plan.hit)),
            "effects": verb.effects(plan.hit) if plan.hit else [],
            "bound": " ".join(str(record.pk) for record in plan.hit),
            "others": " ".join(str(record.pk) for records in plan.left.values() for record in records),
        }
        template = f"{TEMPLATE}#dialog" if self.request.htmx else TEMPLATE
        return render(self.request, template, context, status=status)


# --- the deed --------------------------------------------------------------------------------------


def _do(request: HtmxRequest, kind: Kind, verb: Verb) -> HttpResponse:
    ids = _ids_in(request, "bound")
    query, everything = request.POST.get("query", ""), bool(request.POST.get("all"))
    confirm = _Confirm(request, kind, verb, query)
    if len(ids) > MOST_AT_ONCE:
        raise TooMany(kind.too_many(f"{len(ids):,}", MOST_AT_ONCE))
    visible = list(kind.rows(kind.visible(request.user).filter(pk__in=ids)))
    form = ReasonForm(request.POST)
    if not form.is_valid() or not ids:
        refusal = "" if ids else _("Nothing is ticked.")
        plan = Plan.of(visible, verb, request.user)
        return confirm(plan, form=form, refusal=refusal, everything=everything, status=422)
    permitted = [record for record in visible if request.user.has_perm(verb.permission, record)]
    if visible and not permitted:
        raise PermissionDenied(_no_permission(verb))
    came = _came_since(request, kind, query, ids) if everything else 0
    begun = timezone.now()
    chosen = chosen_of(request, verb.option(permitted))
    result = verb.perform(permitted, by=request.user, reason=form.cleaned_data["reason"], **chosen)
    result.refused += _unreachable(ids, visible, permitted, verb)
    outcome = {
        "of": [kind.name, verb.name],
        "done": len(result.done),
        "refused": [{"pk": each.pk, "why": each.why} for each in result.refused],
        "came": came,
        "query": query,
        "made": verb.made(result.done, request.user, begun) if verb.made and result.done else "",
    }
    if not request.htmx:
        request.session[TOLD] = outcome
        return redirect(f"{request.path}?{TOLD}")
    response = render(request, f"{TEMPLATE}#outcome", _words_of(outcome, kind, verb))
    return trigger_client_event(response, ACTED, after="settle")


def _told(request: HtmxRequest, kind: Kind, verb: Verb) -> HttpResponse:
    """What became of the last deed of this session."""
    outcome = request.session.get(TOLD)
    if outcome is None or outcome["of"] != [kind.name, verb.name]:
        return redirect(kind.list_page)
    return render(request, TEMPLATE, _words_of(outcome, kind, verb))


def _words_of(outcome: dict[str, Any], kind: Kind, verb: Verb) -> dict[str, Any]:
    return {
        "kind": kind,
        "verb": verb,
        "title": verb.done(outcome["done"]),
        "came": kind.came(outcome["came"]) if outcome["came"] else "",
        "outcome": outcome,
    }


def _ids_in(request: HtmxRequest, name: str) -> list[int]:
    return [number for word in words_of([request.POST.get(name, "")]) if (number := as_id(word)) is not None]


def _unreachable(ids: list[int], visible: list[Any], permitted: list[Any], verb: Verb) -> list[Refused]:
    seen, allowed = {record.pk for record in visible}, {record.pk for record in permitted}
    gone = _("It is not there any more, or not yours to see.")
    return [Refused(pk, gone if pk not in seen else _no_permission(verb)) for pk in ids if pk not in allowed]


def _came_since(request: HtmxRequest, kind: Kind, query: str, ids: list[int]) -> int:
    """How many more match by now than when the question was asked; they are left alone."""
    filters = kind.filters(QueryDict(query), user=request.user)
    known = {*ids, *_ids_in(request, "others")}
    return capped_count(filters.rows_of().exclude(pk__in=known), MOST_AT_ONCE)
