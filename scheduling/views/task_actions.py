"""Run a task now, with parameters over its own; switch its schedule on and off."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any

from django import forms
from django.http import HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers

from config.http import HtmxRequest, status_of
from scheduling import calendars, services, words
from scheduling.errors import InvalidDefinition, SchedulingError
from scheduling.models import Batch, Node, Task
from scheduling.models.tasks import SCHEDULED, Misfire, Mode, Overlap
from scheduling.permissions import EDIT_TASK, RUN, authorised
from scheduling.views.actions import Action, ReasonForm
from scheduling.views.asking import ask, back_of, confirm, done
from scheduling.views.parameter_lines import ParameterLines
from scheduling.views.task_rows import Switch

RUN_TEMPLATE = "scheduling/task_run.html"
# Missed due times are counted one by one, and the question shows no larger count.
MOST_MISSED = 1000


# --- run now ---------------------------------------------------------------------------------------


class RunForm(ReasonForm):
    """Why a task is run now."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=500,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Say why; it is kept in the journal.")},
    )


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def task_run(request: HtmxRequest, pk: int) -> HttpResponse:
    """Begin a batch of a task now. The parameters on the form that differ from the task's own go over them."""
    task: Task = authorised(Task.objects.for_page(), request.user, RUN, pk=pk)
    lines = ParameterLines(task.revision.parameters if task.revision else {})
    form = RunForm(request.POST if request.method == "POST" and "add" not in request.POST else None)
    context: dict[str, Any] = {
        "task": task,
        "lines": lines,
        "form": form,
        "effects": _of_running(task),
        "back": back_of(request, reverse("task-detail", args=[pk])),
    }
    if request.method != "POST":
        return confirm(request, RUN_TEMPLATE, context, status=200)
    lines.read(request.POST)
    if "add" in request.POST:
        lines.add()
        context |= {"added": True, "reason": request.POST.get("reason", "")}
        form.initial["reason"] = context["reason"]
        return confirm(request, RUN_TEMPLATE, context, status=200)
    overrides = lines.overrides()
    if not form.is_valid() or lines.wrong:
        return confirm(request, RUN_TEMPLATE, context, status=422)
    return _run(request, task, overrides, context, form.cleaned_data["reason"])


def _run(
    request: HtmxRequest, task: Task, overrides: dict[str, Any], context: dict[str, Any], reason: str
) -> HttpResponse:
    who: Any = request.user
    try:
        begun = services.trigger(task, parameters=overrides, by=who, reason=reason)
    except InvalidDefinition as refusal:
        context["refusal"] = context["lines"].refuse(refusal.errors)
        return confirm(request, RUN_TEMPLATE, context, status=422)
    except SchedulingError as refusal:
        return confirm(
            request, RUN_TEMPLATE, context | {"refusal": str(refusal)}, status=status_of(refusal) or 409
        )
    return done(request, context["back"], begun=begun)


def _of_running(task: Task) -> list[str]:
    revision = task.revision
    if revision is None:
        return []
    online = Node.objects.online().filter(group=task.group_id).count()
    group = {"group": task.group.name, "count": online}
    match revision.mode:
        case Mode.BROADCAST:
            effects = [
                ngettext(
                    "A batch begins with one instance on the online node of group %(group)s.",
                    "A batch begins with one instance on each of %(count)d online nodes of group %(group)s.",
                    online,
                )
                % group
                if online
                else _("No node of group %(group)s is online, so the batch fails at once.") % group
            ]
        case Mode.SHARDED:
            shards = len(revision.shards)
            effects = [
                ngettext(
                    "A batch begins with %d instance.", "A batch begins with %d instances, one a shard.", shards
                )
                % shards
            ]
        case _:
            effects = [_("A batch begins with one instance, on whichever node has a slot free.")]
    if not online and revision.mode != Mode.BROADCAST:
        effects.append(_("No node of group %(group)s is online, so it waits for one.") % group)
    return effects + _of_overlap(task)


def _of_overlap(task: Task) -> list[str]:
    if task.revision is None or task.revision.overlap == Overlap.ALLOW:
        return []
    unfinished = (
        Batch.objects.unfinished().filter(task=task).order_by("pk").values_list("pk", flat=True).first()
    )
    if unfinished is None:
        return []
    return [
        {
            Overlap.SKIP: _(
                "Batch %d of the task is unfinished, and its overlap policy is to skip: this will be refused "
                "until that has ended."
            ),
            Overlap.QUEUE: _("It waits until batch %d of the task has ended, as the overlap policy says."),
            Overlap.REPLACE: _("Batch %d of the task is stopped first, as the overlap policy says."),
        }[Overlap(task.revision.overlap)]
        % unfinished
    ]


# --- the schedule ----------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def task_enable(request: HtmxRequest, pk: int) -> HttpResponse:
    """Switch a task's schedule on."""
    return _switch(request, pk, True)


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def task_disable(request: HtmxRequest, pk: int) -> HttpResponse:
    """Switch a task's schedule off; what runs goes on."""
    return _switch(request, pk, False)


def _switch(request: HtmxRequest, pk: int, enabled: bool) -> HttpResponse:
    task: Task = authorised(Task.objects.for_page(), request.user, EDIT_TASK, pk=pk)
    named = {"name": task.name}
    if enabled:
        title, button = _("Enable task %(name)s") % named, _("Enable the task")
        not_now = _("Task %(name)s is enabled already.") % named
    else:
        title, button = _("Disable task %(name)s") % named, _("Disable the task")
        not_now = _("Task %(name)s is disabled already.") % named
    action = Action(
        verb="enable" if enabled else "disable",
        title=title,
        button=button,
        effects=_of_enabling(task) if enabled else _of_disabling(task),
        perform=lambda thing, **said: services.set_enabled(thing, enabled, **said),
        possible=task.enabled != enabled and task.revision_id is not None,
    )
    return ask(request, task, action, back_to="task-list", not_now=not_now, shown=Switch.of(task))


def _of_enabling(task: Task) -> list[str]:
    if task.revision is None or task.revision.trigger not in SCHEDULED:
        return [_("It has no schedule of its own, so it runs when it is asked to.")]
    now = timezone.now()
    due = calendars.next_on_grid(task.revision, task.next_due_at, now)
    effects = [_("It runs %s.") % words.of_trigger(task.revision)]
    if due is not None:
        effects.append(
            _("It is due next %(relative)s, at %(moment)s.")
            % {"relative": words.relative(due, now), "moment": words.moment(due)}
        )
    if missed := _missed(task, now):
        text = ngettext("It missed %(n)s due time.", "It missed %(n)s due times.", missed)
        effects.append(f"{text % {'n': _counted(missed)}} {_of_missed(task.revision.misfire)}")
    return effects


def _missed(task: Task, now: datetime) -> int:
    """How many due times passed while it was disabled, counted up to one more than MOST_MISSED."""
    if task.revision is None or task.next_due_at is None or task.next_due_at > now:
        return 0
    missed = calendars.due_between(task.revision, task.next_due_at, now)
    return 1 + sum(1 for _due in islice(missed, MOST_MISSED))


def _counted(missed: int) -> str:
    return _("more than %d") % MOST_MISSED if missed > MOST_MISSED else str(missed)


def _of_missed(misfire: str) -> str:
    return {
        Misfire.SKIP: _("Its misfire policy skips them."),
        Misfire.RUN_ONCE: _("Its misfire policy runs it once, for the latest of them."),
        Misfire.RUN_ALL: _("Its misfire policy runs all of them."),
    }[Misfire(misfire)]


def _of_disabling(task: Task) -> list[str]:
    effects = []
    if task.due_at is not None:
        effects.append(
            _("Its schedule stops: the run due %(relative)s, at %(moment)s, does not start, nor later ones.")
            % {"relative": words.relative(task.due_at, timezone.now()), "moment": words.moment(task.due_at)}
        )
        effects.append(_("When it is enabled again, its misfire policy decides about the due times missed."))
    unfinished = Batch.objects.unfinished().filter(task=task).count()
    if unfinished:
        effects.append(
            ngettext(
                "%d unfinished batch goes on to its end.",
                "%d unfinished batches go on to their end.",
                unfinished,
            )
            % unfinished
        )
    return [*effects, _("It can still be run by hand, and by workflows.")]
