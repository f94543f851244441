"""The content of revisions as the text that `export` writes, and what differs between two of them.

A task may have ten thousand shards. Of a list that nobody would read to its end a page shows the beginning, or
what differs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.translation import ngettext

from scheduling.definitions.writing import dump, task_form
from scheduling.models import TaskRevision

SHARDS_SHOWN = 20
# Of the shards that two revisions give different parameters.
SHARDS_COMPARED = 200
# One more than a comparison shows around a change, so that it leaps over what is left out.
_AROUND = 4


@dataclass(frozen=True)
class Line:
    """A line of a comparison; `sign` is `+`, `-`, a blank for what both have, or `@` for a leap."""

    sign: str
    text: str


def content_text(revision: TaskRevision) -> str:
    """What `revision` says, as the YAML of one task; its task's name and group are today's.

    Of many shards it has the first SHARDS_SHOWN, and a comment that says how many more there are.
    """
    shown, count = range(SHARDS_SHOWN), len(revision.shards)
    form = _form(revision, shown)
    if count <= len(shown):
        return dump(form)
    more = ngettext(
        "and %(count)d more shard, %(last)d: %(parameter)s",
        "and %(count)d more shards, to %(last)d: %(parameter)s",
        count - len(shown),
    ) % {"count": count - len(shown), "last": count - 1, "parameter": dump(revision.shards[-1]).split("\n")[0]}
    split = list(form).index("shards") + 1
    before, after = (dict(part) for part in (list(form.items())[:split], list(form.items())[split:]))
    return f"{dump(before)}  # {more}\n{dump(after) if after else ''}"


def compare(older: TaskRevision, newer: TaskRevision) -> list[Line]:
    """What turns `older` into `newer`, with three lines around each change; empty when they say the same.

    Of the shards that differ it has the first SHARDS_COMPARED.
    """
    shards = _shards_to_compare(older.shards, newer.shards)
    return difference(*(dump(_form(each, shards)) for each in (older, newer)))


def difference(before: str, after: str) -> list[Line]:
    """What turns one text into another, with three lines around each change; empty when they are the same."""
    compared = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="")
    _from, _to, *lines = list(compared) or ("", "")
    return [Line(line[0], line[1:]) for line in lines]


def _form(revision: TaskRevision, shards: Iterable[int]) -> dict[str, Any]:
    """A revision as its map in the file, with no other than these `shards` of those it has."""
    task = revision.task
    form = task_form(name=task.name, group=task.group.name, enabled=None, content=revision.content)
    if "shards" in form:
        form["shards"] = {number: form["shards"][number] for number in shards if number in form["shards"]}
    return form


def _shards_to_compare(older: list[str], newer: list[str]) -> list[int]:
    """The shards that differ, what lies around them, and the ends of the list, which others lie around."""
    count = max(len(older), len(newer))
    differ = [number for number in range(count) if older[number : number + 1] != newer[number : number + 1]]
    wanted = set[int]()
    for number in (0, len(older) - 1, len(newer) - 1, *differ[:SHARDS_COMPARED]):
        wanted.update(range(number - _AROUND, number + _AROUND + 1))
    return sorted(wanted)
