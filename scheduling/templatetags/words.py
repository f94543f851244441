"""How the overview, tasks and nodes write spans of time and moments in a zone that is not the reader's."""

from __future__ import annotations

from datetime import datetime, timedelta
from html import escape
from zoneinfo import ZoneInfo

from django import template
from django.utils import timezone
from django.utils.safestring import SafeString

from scheduling import words
from scheduling.templatetags.tailrace import NOTHING, duration

register = template.Library()


@register.filter
def seconds(span: float | None) -> str:
    """A number of seconds in the two units that matter."""
    return NOTHING if span is None else duration(timedelta(seconds=span))


@register.filter
def axis(span: float) -> str:
    """A number of seconds as an axis has it: `0`, `500 ms`, `30 s`, `1 h`."""
    if not span:
        return "0"
    return duration(timedelta(seconds=span)) if span < 1 else words.length(timedelta(seconds=span))


@register.filter
def away(moment: datetime | None) -> SafeString | str:
    """A `<time>` that says how long it is until a moment; its title is the moment itself."""
    if moment is None:
        return NOTHING
    local, said = timezone.localtime(moment), escape(words.until(moment, timezone.now()))
    whole = f"{local.isoformat(' ', 'seconds')[:19]} {escape(local.tzname() or '')}"
    return SafeString(f'<time class="away" datetime="{local.isoformat()}" title="{whole}">{said}</time>')


@register.filter
def clock_in(moment: datetime, zone: str) -> str:
    """The date, the time and the zone's short name, by the clocks of `zone`."""
    return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S %Z}"


@register.filter
def whole_percent(share: float | None) -> str:
    """`0.953` as `95 %`; only all is 100 and only none is 0."""
    if share is None:
        return NOTHING
    rounded = round(100 * share)
    return f"{min(99, max(1, rounded)) if 0 < share < 1 else rounded} %"
