"""What is done to one cycle instance: stop, mark success, freeze, unfreeze, and rerun with chosen nodes.

A GET says what it will hit and asks why (as a dialog for htmx, else as a page); a POST does it. A refusal is
answered with 409 and the reason, upon which the page that asked looks what changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HttpResponseClientRedirect, trigger_client_event

from config.http import HtmxRequest, status_of
from scheduling.errors import InvalidDefinition, SchedulingError
from scheduling.permissions import authorised
from scheduling.views.actions import ACTED, Action, Option
from scheduling.views.asking import ask as ask_why
from scheduling.views.asking import back_of, confirm, refused
from scheduling.views.parameter_lines import ParameterLines
from workflows import detail_queries as ask
from workflows import services
from workflows.forms import RerunSettings
from workflows.graphs import keys_from
from workflows.links import address_of
from workflows.models import CycleInstance, RunType
from workflows.permissions import RERUN, STOP
from workflows.states import NodeRunState
from workflows.views import impact
from workflows.words import of_holder

RERUN_TEMPLATE = "workflows/cycle_rerun.html"


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def cycle_stop(request: HtmxRequest, pk: int) -> HttpResponse:
    """Stop an unfinished cycle instance."""
    return _act(
        request,
        pk,
        STOP,
        "stop",
        title=_("Stop cycle instance %(id)d of %(workflow)s"),
        button=_("Stop the cycle instance"),
        effects=impact.of_stopping,
        perform=services.stop,
        possible=lambda instance: instance.can_stop,
        option=lambda instance: impact.discards_earlier([instance]),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def cycle_mark_success(request: HtmxRequest, pk: int) -> HttpResponse:
    """Call one that failed or was terminated a success."""
    return _act(
        request,
        pk,
        RERUN,
        "mark-success",
        title=_("Mark cycle instance %(id)d of %(workflow)s as a success"),
        button=_("Mark as a success"),
        effects=impact.of_marking,
        perform=services.mark_success,
        possible=lambda instance: instance.can_mark_success,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def cycle_freeze(request: HtmxRequest, pk: int) -> HttpResponse:
    """Hold one back that has not begun."""
    return _act(
        request,
        pk,
        RERUN,
        "freeze",
        title=_("Freeze cycle instance %(id)d of %(workflow)s"),
        button=_("Freeze"),
        effects=impact.of_freezing,
        perform=services.freeze,
        possible=lambda instance: instance.can_freeze,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def cycle_unfreeze(request: HtmxRequest, pk: int) -> HttpResponse:
    """Let a frozen one go on."""
    return _act(
        request,
        pk,
        RERUN,
        "unfreeze",
        title=_("Unfreeze cycle instance %(id)d of %(workflow)s"),
        button=_("Unfreeze"),
        effects=impact.of_unfreezing,
        perform=services.unfreeze,
        possible=lambda instance: instance.is_frozen and not instance.holder,
    )


def _act(
    request: HtmxRequest,
    pk: int,
    permission: str,
    verb: str,
    *,
    title: str,
    button: str,
    effects: Callable[[CycleInstance], list[str]],
    perform: Callable[..., Any],
    possible: Callable[[CycleInstance], bool],
    option: Callable[[CycleInstance], Option | None] = lambda _instance: None,
) -> HttpResponse:
    instance: CycleInstance = authorised(ask.instances(), request.user, permission, pk=pk)
    can = possible(instance)
    action = Action(
        verb=verb,
        title=title % {"id": pk, "workflow": instance.workflow.name},
        button=button,
        effects=effects(instance) if can else [],
        perform=perform,
        possible=can,
        option=option(instance) if can else None,
    )
    return ask_why(request, instance, action, back_to=address_of(instance), not_now=_not_now(instance))


def _not_now(instance: CycleInstance) -> str:
    if instance.is_frozen and instance.holder:
        return _("It is frozen by %(who)s for %(holder)s, which alone can unfreeze it.") % {
            "who": instance.frozen_by,
            "holder": of_holder(instance.holder),
        }
    if instance.is_finished and instance.cycle.holder:
        return _(
            "%(holder)s holds its cycle and is about to rerun it; terminate that, or take this out of it."
        ) % {"holder": of_holder(instance.cycle.holder).capitalize()}
    if instance.stopping and not instance.is_finished:
        return _("Cycle instance %(id)s is being stopped already.") % {"id": instance.pk}
    if instance.is_frozen:
        text = _("Cycle instance %(id)s has state %(state)s and is frozen, so this is not possible now.")
    else:
        text = _("Cycle instance %(id)s has state %(state)s by now, so this is not possible any more.")
    return text % {"id": instance.pk, "state": instance.get_state_display()}


# --- rerun -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tick:
    """A node on the form: `state` is how it ended (empty: it has never run)."""

    key: str
    task: str
    state: str
    chosen: bool

    def get_state_display(self) -> str:
        return str(NodeRunState(self.state).label)


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def cycle_rerun(request: HtmxRequest, pk: int) -> HttpResponse:
    """Run a finished cycle instance again with chosen nodes; `?from=` proposes a node and all after it.

    The form is also sent to be shown anew: with more ticked (`after`, `tick`), with another content (`again`)
    or with a line for one more parameter (`add`).
    """
    instance: CycleInstance = authorised(ask.instances(), request.user, RERUN, pk=pk)
    lines = ParameterLines({})
    asked_anew = bool({"after", "tick", "again", "add"} & request.POST.keys())
    settings = RerunSettings(request.POST if request.method == "POST" and not asked_anew else None)
    context: dict[str, Any] = {
        "cycle": instance,
        "settings": settings,
        "lines": lines,
        "back": back_of(request, address_of(instance)),
        "effects": impact.of_rerunning(instance),
        "has_result": instance.cycle.succeeded and instance.run_type != RunType.TEST,
    }
    if not instance.can_rerun or instance.cycle.holder:
        return refused(request, RERUN_TEMPLATE, context | {"impossible": _not_now(instance)}, status=409)
    if request.method == "POST":
        lines.read(request.POST)
    if asked_anew:
        settings.initial = {name: request.POST.get(name) for name in settings.fields}
        if "add" in request.POST:
            lines.add()
            context["added"] = True
    context["nodes"] = _ticks(request, instance, as_it_ran=settings.as_it_ran)
    if request.method != "POST" or asked_anew:
        context["focused"] = request.POST.get("after", "")
        return confirm(request, RERUN_TEMPLATE, context, status=200)
    overrides = lines.overrides()
    if not settings.is_valid() or lines.wrong:
        return confirm(request, RERUN_TEMPLATE, context, status=422)
    return _rerun(request, instance, overrides, context)


def _ticks(request: HtmxRequest, instance: CycleInstance, *, as_it_ran: bool) -> list[Tick]:
    choices = services.choice_for_rerun(instance, as_it_ran=as_it_ran)
    keys = [each.key for each in choices]
    revision = instance.revision_id if as_it_ran else instance.workflow.current.pk
    chosen = {each.key for each in choices if each.chosen}
    if request.method == "POST":
        # What has never run is not for choosing: it always runs.
        chosen = set(request.POST.getlist("node")) | {each.key for each in choices if not each.state}
        chosen = {"all": set(keys), "none": set()}.get(request.POST.get("tick", ""), chosen)
        if request.POST.get("tick") == "proposed":
            chosen = {each.key for each in choices if each.chosen}
        chosen |= keys_from(request.POST.get("after", ""), revision)
    elif "from" in request.GET:
        chosen = keys_from(request.GET["from"], revision) or chosen
    return [Tick(each.key, each.task, each.state, each.key in chosen) for each in choices]


def _rerun(
    request: HtmxRequest, instance: CycleInstance, overrides: dict[str, Any], context: dict[str, Any]
) -> HttpResponse:
    who: Any = request.user
    chosen = request.POST.getlist("node")
    try:
        begun = services.rerun(
            instance, nodes=chosen, parameters=overrides, by=who, **context["settings"].as_arguments()
        )
    except InvalidDefinition as refusal:
        context["refusal"] = context["lines"].refuse(refusal.errors)
        return confirm(request, RERUN_TEMPLATE, context, status=422)
    except SchedulingError as refusal:
        instance.refresh_from_db()
        context["refusal"] = str(refusal)
        return refused(request, RERUN_TEMPLATE, context, status=status_of(refusal) or 409)
    if not request.htmx:
        return HttpResponseRedirect(address_of(begun))
    if (request.htmx.current_url_abs_path or "").startswith(reverse("cycle-detail", args=[instance.pk])):
        return HttpResponseClientRedirect(address_of(begun))
    response = render(request, f"{RERUN_TEMPLATE}#done", {"begun": begun})
    return trigger_client_event(response, ACTED, after="settle")
