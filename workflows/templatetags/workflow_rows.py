"""The rows of workflows and what may be done to one; one tag each, as in `scheduling.templatetags.rows`."""

from __future__ import annotations

from functools import cache
from html import escape

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from scheduling.templatetags.charts import recent
from scheduling.templatetags.rows import head
from scheduling.templatetags.tailrace import NOTHING, address, choice, icon, state
from scheduling.templatetags.task_rows import last_of, to_come
from workflows.views.rows import Upstream, WorkflowRow

register = template.Library()


class Words:
    """The words of one language that rows are made of."""

    def __init__(self) -> None:
        self.none_yet = escape(_("no cycle yet"))
        # By verb: what the button is called when it is seen, and when it is heard.
        self.buttons = {
            "run": (escape(_("Test…")), _("Run %(name)s as a test")),
            "backfill": (escape(_("Backfill…")), _("Backfill %(name)s")),
            "disable": (escape(_("Switch off…")), _("Switch off %(name)s")),
            "enable": (escape(_("Switch on…")), _("Switch on %(name)s")),
        }


@cache
def _words_in(language: str | None) -> Words:
    return Words()


@register.simple_tag
def workflow_row(row: WorkflowRow, *, oob: bool = False) -> SafeString:
    """The row of a WorkflowRow; it takes the place of the one that the page shows when it is `oob`."""
    it, mark = row.workflow, row.mark
    where = address("workflow-detail", it.pk)
    drawn = (
        recent(row.recent) if row.cycles else f'<span class="muted">{_words_in(get_language()).none_yet}</span>'
    )
    return SafeString(
        f"""{head(mark, oob)}
  <th scope="row" class="name"><a id="open-{mark}" href="{where}">{escape(it.name)}</a>\
<small>{escape(it.team.name)}</small></th>
  <td class="schedule">{escape(row.schedule)}<small>{escape(choice(it, "mode"))}</small></td>
  <td class="at-switch">{state(row.switch)}</td>
  <td class="at-due minor">{to_come(row.next_at)}</td>
  <td class="at-last">{last_of(row)}</td>
  <td class="at-recent">{drawn}</td>
  <td class="upstreams minor">{", ".join(map(_upstream, row.upstreams)) or NOTHING}</td>
</tr>"""
    )


def _upstream(each: Upstream) -> str:
    name = escape(each.name)
    if each.address:
        return f'<a href="{each.address}">{name}</a>'
    return f'{name} <span class="muted">({escape(each.team)})</span>'


@register.simple_tag
def workflow_buttons(row: WorkflowRow) -> SafeString:
    """What the user of a WorkflowRow may do to the workflow."""
    verbs = []
    if row.may_run:
        verbs.append("run")
        if row.workflow.current.cron:
            verbs.append("backfill")
    if row.may_edit:
        verbs.append("disable" if row.workflow.enabled else "enable")
    return SafeString("".join(_button(verb, row) for verb in verbs))


def _button(verb: str, row: WorkflowRow) -> str:
    shown, spoken = _words_in(get_language()).buttons[verb]
    where = address(f"workflow-{verb}", row.workflow.pk)
    mark = f"{'switch' if verb in {'enable', 'disable'} else verb}-{row.mark}"
    # A backfill is a page of its own; what else is asked is so in a dialog.
    asked = "" if verb == "backfill" else f' hx-get="{where}" hx-target="#dialog"'
    drawing = icon("run") if verb == "run" else ""
    heard = escape(spoken % {"name": row.workflow.name})
    return (
        f'<a class="button" id="{mark}" href="{where}" data-action="{verb}" aria-label="{heard}"{asked}>'
        f"{drawing}{shown}</a>"
    )
