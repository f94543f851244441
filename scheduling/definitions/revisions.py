"""The content of revisions as the text that `export` writes, and what differs between two of them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from scheduling.definitions.writing import dump, task_form
from scheduling.models import TaskRevision


@dataclass(frozen=True)
class Line:
    """A line of a comparison; `sign` is `+`, `-`, a blank for what both have, or `@` for a leap."""

    sign: str
    text: str


def content_text(revision: TaskRevision) -> str:
    """What `revision` says, as the YAML of one task; its task's name and group are today's."""
    task = revision.task
    return dump(task_form(name=task.name, group=task.group.name, enabled=None, content=revision.content))


def compare(older: TaskRevision, newer: TaskRevision) -> list[Line]:
    """What turns `older` into `newer`, with three lines around each change; empty when they say the same."""
    return difference(content_text(older), content_text(newer))


def difference(before: str, after: str) -> list[Line]:
    """What turns one text into another, with three lines around each change; empty when they are the same."""
    _from, _to, *lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="")) or (
        "",
        "",
    )
    return [Line(line[0], line[1:]) for line in lines]
