"""The rows of the journal; one tag each, as in `rows`, and for the same reason."""

from __future__ import annotations

from functools import cache
from html import escape

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from scheduling.clocks import by_clock
from scheduling.reasons import actor_in_words, in_words
from scheduling.templatetags.rows import head
from scheduling.templatetags.tailrace import address, chip, choice, when
from scheduling.views.journal import Detail, EntryRow

register = template.Library()


class Words:
    """The words of one language that rows are made of."""

    def __init__(self) -> None:
        self.details, self.itself = escape(_("Details")), escape(_("The entry by itself"))


@cache
def _words_in(language: str | None) -> Words:
    return Words()


@register.simple_tag
def entry_row(row: EntryRow, *, oob: bool = False) -> SafeString:
    """The row of an EntryRow; it takes the place of the one that the page shows when it is `oob`."""
    entry = row.entry
    state = f" {chip(row.state.value, str(row.state.label))}" if row.state else ""
    name = escape(by_clock(entry.object_name))
    name = f'<a href="{row.address}">{name}</a>' if row.address else name
    return SafeString(
        f"""{head(row.mark, oob)}
  <td>{when(entry.at)}</td>
  <td class="by">{_by(row)}</td>
  <td class="did">{escape(row.action)}{state}</td>
  <th scope="row" class="name">{name}<small>{escape(row.object_type)} {_id(row)}</small></th>
  <td class="why">{escape(in_words(entry.reason))}</td>
  <td class="more">{_more(row)}</td>
</tr>"""
    )


def _by(row: EntryRow) -> str:
    entry = row.entry
    if entry.via == "engine":
        return escape(actor_in_words(entry.actor))
    return f"<b>{escape(entry.actor)}</b><small>{escape(choice(entry, 'via'))}</small>"


def _id(row: EntryRow) -> str:
    query = f"?object={row.object_id}&amp;type={escape(row.entry.object_type)}"
    return f'<a class="id" href="{query}" aria-label="{escape(row.all_label)}">{row.object_id}</a>'


def _more(row: EntryRow) -> str:
    """All that the entry tells, folded away."""
    if not row.details:
        return ""
    said, page = _words_in(get_language()), address("journal-entry", row.entry.pk)
    return (
        f"<details><summary>{said.details}</summary>{entry_details(row)}"
        f'<p><a href="{page}">{said.itself}</a></p></details>'
    )


@register.simple_tag
def entry_details(row: EntryRow) -> SafeString:
    """What the entry of an EntryRow tells beside what was done."""
    told = "".join(
        f"<div><dt>{escape(detail.label)}</dt><dd>{_value(detail)}</dd></div>" for detail in row.details
    )
    return SafeString(f'<dl class="parameters">{told}</dl>')


def _value(detail: Detail) -> str:
    if detail.is_moment and not detail.address:
        return when(detail.value)
    shown = escape(str(detail.value))
    if detail.address:
        return f'<a class="id" href="{detail.address}">{shown}</a>'
    return f"<code>{shown}</code>" if detail.is_data else shown
