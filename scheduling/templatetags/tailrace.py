"""How pages write times, durations, counters and output."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

register = template.Library()

NOTHING = "–"
_MINUTES = gettext_noop("%(minutes)d min %(seconds)02d s")
_HOURS = gettext_noop("%(hours)d h %(minutes)02d min")
# What a terminal would obey rather than show: colours, cursor moves, titles.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


@register.filter
def when(moment: datetime | None) -> SafeString | str:
    """A `<time>`: the clock, and the day when that is not today; its title says all."""
    if moment is None:
        return NOTHING
    local, now = timezone.localtime(moment), timezone.localtime()
    clock, day = date_format(local, "H:i:s"), ""
    if local.date() != now.date():
        day = date_format(local, "m-d" if local.year == now.year else "Y-m-d")
    whole = f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local.tzname()}"
    dated = format_html(" <small>{}</small>", day) if day else ""
    return format_html('<time datetime="{}" title="{}">{}{}</time>', local.isoformat(), whole, clock, dated)


@register.simple_tag
def took(started: datetime | None, ended: datetime | None) -> SafeString | str:
    """How long something took; what still runs counts on in the browser."""
    if started is None:
        return NOTHING
    passed = (ended or timezone.now()) - started
    if ended is None:
        seconds = max(0, int(passed.total_seconds()))
        forms = "|".join([_("%(seconds)d s"), _(_MINUTES), _(_HOURS)])
        return format_html(
            '<span data-running-for="{}" data-words="{}">{}</span>', seconds, forms, duration(passed)
        )
    return duration(passed)


@register.filter
def duration(passed: timedelta) -> str:
    """A length of time in the two units that matter."""
    seconds = max(0.0, passed.total_seconds())
    if seconds < 1:
        return _("%(milliseconds)d ms") % {"milliseconds": seconds * 1000}
    if seconds < 10:
        return _("%(seconds).1f s") % {"seconds": seconds}
    if seconds < 60:
        return _("%(seconds)d s") % {"seconds": seconds}
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return _(_MINUTES) % {"minutes": minutes, "seconds": rest}
    hours, minutes = divmod(minutes, 60)
    return _(_HOURS) % {"hours": hours, "minutes": minutes}


@register.filter
def printable(text: str) -> str:
    """Output as a page can show it: without a terminal's escape sequences."""
    return _ESCAPES.sub("", text) if "\x1b" in text else text


@register.filter
def segments(row: Any) -> list[dict[str, str]]:
    """The parts of a batch's counters bar, as positions and widths in per cent."""
    total = row.batch.total
    parts, at = [], 0.0
    for state, count in (
        ("success", row.batch.succeeded),
        ("failed", row.not_succeeded),
        ("terminated", row.batch.terminated),
        ("running", row.running),
    ):
        if count and total:
            width = min(100 * count / total, 100 - at)
            parts.append({"state": state, "x": f"{at:.2f}", "width": f"{width:.2f}"})
            at += width
    return parts
