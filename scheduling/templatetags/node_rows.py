"""The rows of nodes; one tag each, as in `rows`, and for the same reason."""

from __future__ import annotations

from functools import cache
from html import escape

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from scheduling.models import Node
from scheduling.templatetags.rows import executing
from scheduling.templatetags.tailrace import NOTHING, address, state, took, when
from scheduling.views.node_rows import NodeRow

register = template.Library()


class Words:
    """The words of one language that rows are made of."""

    def __init__(self) -> None:
        self.process, self.drained = escape(_("process")), escape(_("drained"))
        self.more, self.nothing = _("and %(n)s more"), escape(_("nothing"))
        self.heard, self.just_now = escape(_("heard of")), escape(_("just now"))
        self.drain, self.undrain = escape(_("Drain")), escape(_("Take back"))


@cache
def _words_in(language: str | None) -> Words:
    return Words()


@register.simple_tag
def node_row(row: NodeRow) -> SafeString:
    """The row of a NodeRow, its instances loaded."""
    node, said = row.node, _words_in(get_language())
    of = f" · {said.process} {node.pid}" if node.pid else ""
    return SafeString(
        f"""<tr id="{row.mark}">
  <th scope="row" class="name">{escape(node.name)}<small>{escape(node.host)}{of}</small></th>
  <td class="at-state">{state(node)}{_drained(node, said)}{_clock(row)}</td>
  <td class="at-load"><div class="counters"><svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none"\
 aria-hidden="true"><rect data-state="running" width="{row.load}" height="6"/></svg>\
<small>{escape(row.slots_in_words)}</small></div></td>
  <td class="at-runs">{_runs(row, said)}</td>
  <td class="heard" data-label="{said.heard}">{_heard(row, said)}</td>
  <td class="minor">{when(node.started_at)}<small>{_boot(node)}</small></td>
  <td class="act">{_buttons(row, said)}</td>
</tr>"""
    )


def _drained(node: Node, said: Words) -> str:
    return f' <span class="tag">{said.drained}</span>' if node.drained and node.state == "offline" else ""


def _clock(row: NodeRow) -> str:
    return f' <span class="tag wrong">{escape(row.clock)}</span>' if row.clock else ""


def _runs(row: NodeRow, said: Words) -> str:
    """What it runs: a few of it by name, and how many more."""
    if not row.instances:
        return f'<span class="muted">{said.nothing}</span>'
    more = f'<li class="muted">{escape(said.more % {"n": row.more})}</li>' if row.more else ""
    return f'<ul class="executing">{executing(row)}{more}</ul>'


def _heard(row: NodeRow, said: Words) -> str:
    heard_at = row.node.heartbeat_at
    if row.fresh:
        return said.just_now
    return f"{took(heard_at, None)} <small>{when(heard_at)}</small>" if heard_at else NOTHING


def _boot(node: Node) -> str:
    boot = escape(str(node.boot_id)) if node.boot_id else ""
    return boot and f'<code title="{boot}">{boot[:8]}</code>'


def _buttons(row: NodeRow, said: Words) -> str:
    drain = _button("drain", row, row.drain_label, said.drain) if row.may_drain else ""
    return drain + (_button("undrain", row, row.undrain_label, said.undrain) if row.may_undrain else "")


def _button(verb: str, row: NodeRow, spoken: str, word: str) -> str:
    where = address(f"node-{verb}", row.node.pk)
    return (
        f'<a class="button" id="{verb}-{row.mark}" href="{where}" data-action="{verb}" '
        f'aria-label="{escape(spoken)}" hx-get="{where}" hx-target="#dialog">{word}</a>'
    )
