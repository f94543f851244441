"""The rows of tasks and what may be done to one; one tag each, as in `rows`, and for the same reason."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from scheduling.templatetags.charts import recent
from scheduling.templatetags.rows import head
from scheduling.templatetags.tailrace import NOTHING, address, choice, icon, state, when
from scheduling.templatetags.words import away
from scheduling.views.task_rows import TaskRow

register = template.Library()


class Words:
    """The words of one language that rows are made of."""

    def __init__(self) -> None:
        self.never_ran = escape(_("never ran"))
        self.run = escape(_("Run now"))
        self.enable, self.disable = escape(_("Enable")), escape(_("Disable"))


@cache
def _words_in(language: str | None) -> Words:
    return Words()


@register.simple_tag
def task_row(row: TaskRow, *, oob: bool = False) -> SafeString:
    """The row of a TaskRow; it takes the place of the one that the page shows when it is `oob`."""
    task, mark = row.task, row.mark
    drawn = (
        recent(row.recent) if row.runs else f'<span class="muted">{_words_in(get_language()).never_ran}</span>'
    )
    where = address("task-detail", task.pk)
    of = f"{escape(task.team.name)} / {escape(task.group.name)}"
    return SafeString(
        f"""{head(mark, oob)}
  <th scope="row" class="name"><a id="open-{mark}" href="{where}">{escape(task.name)}</a>\
<small>{of}</small></th>
  <td class="trigger">{escape(row.trigger) or NOTHING}<small>{_kind(task.revision)}</small></td>
  <td class="at-switch">{state(row.switch)}</td>
  <td class="at-due minor">{to_come(task.due_at)}</td>
  <td class="at-last">{last_of(row)}</td>
  <td class="at-recent">{drawn}</td>
  <td class="act">{task_buttons(row)}</td>
</tr>"""
    )


def _kind(revision: Any) -> str:
    return f"{escape(revision.kind)} · {escape(choice(revision, 'mode'))}" if revision else ""


def to_come(moment: Any) -> str:
    """How far off something is, and below it when that is."""
    return f"{away(moment)}<small>{when(moment)}</small>" if moment else NOTHING


def last_of(row: Any) -> str:
    """How the last run of a TaskRow or WorkflowRow went, and when that was."""
    last = row.last
    if last is None:
        return NOTHING
    link = f'<a id="last-{row.mark}" href="{last.address}">{state(last)}</a>'
    return f"{link}<small>{when(last.at)}</small>"


@register.simple_tag
def task_buttons(row: TaskRow) -> SafeString:
    """What the user of a TaskRow may do to the task."""
    task, said, found = row.task, _words_in(get_language()), ""
    if row.may_run:
        where = address("task-run", task.pk)
        found = _button("run", row, where, row.run_label, f"{icon('run')}{said.run}")
    if row.may_edit:
        verb, word = ("disable", said.disable) if task.enabled else ("enable", said.enable)
        found += _button(verb, row, address(f"task-{verb}", task.pk), row.switch_label, word)
    return SafeString(found)


def _button(verb: str, row: TaskRow, where: str, spoken: str, shown: str) -> str:
    mark = f"run-{row.mark}" if verb == "run" else f"switch-{row.mark}"
    return (
        f'<a class="button" id="{mark}" href="{where}" data-action="{verb}" aria-label="{escape(spoken)}" '
        f'hx-get="{where}" hx-target="#dialog">{shown}</a>'
    )
