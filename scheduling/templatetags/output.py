"""How pages write the output of a job: numbered lines, in the colours that a terminal would show them in."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache

from ansi2html import Ansi2HTMLConverter
from django import template
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from scheduling import logs, terminal

register = template.Library()

_CONVERTER = Ansi2HTMLConverter(inline=False)
_TEXT = "\x01"


@register.simple_tag
def log_lines(window: logs.Window, address: str, wanted: str = "", oob: bool = False) -> SafeString:
    """The lines and gaps of `window`; each line's number links to it at `address` (a query string to add to).

    What `wanted` matches is marked. Each takes the place of the one that the page shows when it is `oob`.
    """
    looked_for = logs.pattern(wanted) if wanted else None
    link, at, times = escape(address), None, ""
    parts = []
    # Written here and not in a template, which takes a hundred times as long for a thousand lines.
    for entry in window.entries:
        if isinstance(entry, logs.Gap):
            parts.append(f'<div class="gap">{escape(logs.gap_in_words(entry.dropped_bytes))}</div>')
            continue
        if entry.at != at:
            at, times = entry.at, _times(entry.at)
        number = entry.number
        swap = ' hx-swap-oob="true"' if oob else ""
        parts.append(
            f'<div class="line" id="L{number}"{swap}>'
            f'<a href="{link}line={number}#L{number}" {times}>{number}</a>'
            f"<span>{_body(entry, looked_for)}</span></div>"
        )
    return mark_safe("".join(parts))  # noqa: S308 - every text in it was escaped


def _times(at: datetime) -> str:
    local = timezone.localtime(at)
    return f'data-at="{date_format(local, "H:i:s")}" title="{local:%Y-%m-%d %H:%M:%S %Z}"'


def _body(line: logs.Line, looked_for: re.Pattern[str] | None) -> str:
    shown, after = terminal.screen(line.text, line.style)
    body = _runs(shown, looked_for)
    if line.unread:
        mark = _("… %s of this line not shown; the download has it …") % filesizeformat(line.unread)
        body += f'<i class="gap">{escape(mark)}</i>' + _runs(terminal.screen(line.rest, after)[0], looked_for)
    return body


def _runs(runs: list[terminal.Run], looked_for: re.Pattern[str] | None) -> str:
    if looked_for is None:
        return "".join(_styled(style, text) for style, text in runs)
    inside = [match.span() for match in looked_for.finditer(terminal.text_of(runs))]
    parts, position = list[str](), 0
    for style, text in runs:
        # A hit may lie across changes of style: each run marks its own part of it.
        at = 0
        for begin, end in inside:
            first, last = max(begin - position, at), min(end - position, len(text))
            if first < last:
                parts += (_styled(style, text[at:first]), f"<mark>{_styled(style, text[first:last])}</mark>")
                at = last
        parts.append(_styled(style, text[at:]))
        position += len(text)
    return "".join(parts)


def _styled(style: terminal.Style, text: str) -> str:
    if not style or not text:
        return escape(text)
    before, after = _span(style)
    return before + escape(text) + after


@lru_cache(maxsize=1024)
def _span(style: terminal.Style) -> tuple[str, str]:
    """What stands before and behind text of a style: a span with the library's classes, if it needs one."""
    whole = _CONVERTER.convert(f"\x1b[{style}m{_TEXT}\x1b[0m", full=False)
    before, _text, after = whole.partition(_TEXT)
    return before, after
