"""The frame's box: from a pasted ID or a piece of a name to the page that is meant."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.filters.fields import printable
from scheduling.models import Batch, Instance, Task

# More than one reads is no help; who sees this many types another letter.
MOST_TASKS = 50
_LARGEST_ID = 2**63 - 1


@require_safe
def find(request: HtmxRequest) -> HttpResponse:
    """Go to the one thing that `q` means, or list what it may mean: tasks by name, batches, instances by ID."""
    text = printable(request.GET.get("q", "")).strip()[:200]
    found = _meant(text, request.user)
    things = [thing for kind in found.values() for thing in kind]
    if len(things) == 1:
        return HttpResponseRedirect(_address(things[0]))
    return render(request, "scheduling/find.html", {"text": text, **found})


def _meant(text: str, user: Any) -> dict[str, list[Any]]:
    digits = text.lstrip("#")
    number = int(digits) if digits.isascii() and digits.isdigit() and int(digits) <= _LARGEST_ID else None
    tasks = Task.objects.visible_to(user).select_related("team").order_by("name", "pk")
    exact = list(tasks.filter(name=text)[:MOST_TASKS])
    return {
        "tasks": exact or (list(tasks.filter(name__icontains=text)[:MOST_TASKS]) if text else []),
        "batches": [] if number is None else list(Batch.objects.visible_to(user).for_rows().filter(pk=number)),
        "instances": []
        if number is None
        else list(Instance.objects.visible_to(user).select_related("batch__task").filter(pk=number)),
    }


def _address(thing: Task | Batch | Instance) -> str:
    match thing:
        case Batch():
            return reverse("batch-detail", args=[thing.pk])
        case Instance():
            return reverse("instance-detail", args=[thing.pk])
        case _:
            return reverse("task-detail", args=[thing.pk])
