"""What a filter's box offers while one types: the tasks and the people that its reader may see."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.filters.fields import as_id, printable
from scheduling.journal import ENGINE, SCHEDULE
from scheduling.models import Task
from scheduling.queries import colleagues_of

# As many as one takes in at a glance; who types on sees others.
MOST_OFFERED = 12


@require_safe
def suggest_tasks(request: HtmxRequest) -> HttpResponse:
    """Tasks whose name has what was typed in it, or whose ID it is; a name of two tasks is offered as IDs."""
    typed = printable(request.GET.get("task", "")).strip()
    found = list(Task.objects.visible_to(request.user).suggested(typed, as_id(typed))[:MOST_OFFERED])
    names = [task.name for task in found]
    offers = [
        (
            task.name if names.count(task.name) == 1 else str(task.pk),
            task.name,
            f"{task.group.name} · {task.pk}",
        )
        for task in found
    ]
    return offer(request, "task", offers)


@require_safe
def suggest_people(request: HtmxRequest) -> HttpResponse:
    """Who may have begun a batch: the schedule, and the people of one's teams."""
    typed = printable(request.GET.get("by", "")).strip().lower()
    people = colleagues_of(request.user, typed)[:MOST_OFFERED]
    parts = [actor.name for actor in (SCHEDULE, ENGINE) if typed in actor.name]
    return offer(request, "by", [(name, name, "") for name in [*parts, *people]])


def offer(request: HtmxRequest, field: str, offers: list[tuple[str, str, str]]) -> HttpResponse:
    """`offers`: what is put into the filter, what it is called, and what tells it from its like."""
    return render(request, "scheduling/batch_list.html#offers", {"offers": offers, "field": field})
