"""The frame's box: from a pasted ID or a piece of a name to the page that is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from config.http import HtmxRequest
from scheduling.filters.fields import printable
from scheduling.models import Batch, Instance, Task
from scheduling.permissions import User

# More than one reads is no help; who sees this many types another letter.
MOST_NAMED = 50
_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Find:
    """Something that was meant: its kind in words, its name with the team that tells it from its like."""

    kind: str
    pk: int
    name: str
    address: str
    team: str = ""
    stateful: Any = None
    """What has the state that is shown; None where there is none."""


type Finder = Callable[[str, int | None, User], Iterable[Find]]


@require_safe
def find(request: HtmxRequest) -> HttpResponse:
    """Go to the one thing that `q` means, or list what it may mean: by a name, or by an ID."""
    text = printable(request.GET.get("q", "")).strip()[:200]
    digits = text.lstrip("#")
    number = int(digits) if digits.isascii() and digits.isdigit() and int(digits) <= _LARGEST_ID else None
    finds = [each for finder in FINDERS for each in finder(text, number, request.user)]
    if len(finds) == 1:
        return HttpResponseRedirect(finds[0].address)
    return render(request, "scheduling/find.html", {"text": text, "finds": finds})


def named(things: Any, text: str) -> list[Any]:
    """Those of `things`, by name, that `text` names, or where it names none, whose names have it in them."""
    ordered = things.order_by("name", "pk")
    exact = list(ordered.filter(name=text)[:MOST_NAMED])
    return exact or (list(ordered.filter(name__icontains=text)[:MOST_NAMED]) if text else [])


def _batches(text: str, number: int | None, user: User) -> Iterable[Find]:
    if number is None:
        return
    for batch in Batch.objects.visible_to(user).for_rows().filter(pk=number):
        address = reverse("batch-detail", args=[batch.pk])
        yield Find(_("Batch"), batch.pk, batch.task_name, address, stateful=batch)


def _instances(text: str, number: int | None, user: User) -> Iterable[Find]:
    if number is None:
        return
    for each in Instance.objects.visible_to(user).select_related("batch__task").filter(pk=number):
        address = reverse("instance-detail", args=[each.pk])
        yield Find(_("Instance"), each.pk, each.batch.task.name, address, stateful=each)


def _tasks(text: str, number: int | None, user: User) -> Iterable[Find]:
    for task in named(Task.objects.visible_to(user).select_related("team"), text):
        yield Find(_("Task"), task.pk, task.name, reverse("task-detail", args=[task.pk]), task.team.name)


# What is looked for, in the order in which it is listed; apps above add theirs.
FINDERS: list[Finder] = [_batches, _instances, _tasks]
