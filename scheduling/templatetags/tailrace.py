"""How pages write states, counters, actions, times, durations and output.

A list page shows each of these fifty times or more, so tags build their markup themselves: a template
within a template costs twenty times as much. Whatever does not come from our own code is escaped here.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from django import template
from django.templatetags.static import static
from django.urls import get_script_prefix, get_urlconf, reverse
from django.utils import timezone
from django.utils.html import escape
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

register = template.Library()

NOTHING = "–"
_MINUTES = gettext_noop("%(minutes)d min %(seconds)02d s")
_HOURS = gettext_noop("%(hours)d h %(minutes)02d min")
# What a terminal would obey rather than show: colours, cursor moves, titles.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


# --- addresses and icons ---------------------------------------------------------------------------

_ANY_ID = 7_777_777_777


@register.simple_tag
def address(name: str, pk: int) -> str:
    """What `{% url name pk %}` says, without resolving it anew for every row."""
    before, after = _around_id(name, get_script_prefix(), get_urlconf())
    return f"{before}{int(pk)}{after}"


@cache
def _around_id(name: str, prefix: str, urlconf: str | None) -> tuple[str, str]:
    before, _mark, after = reverse(name, args=[_ANY_ID]).partition(str(_ANY_ID))
    return before, after


@register.simple_tag
def icon(name: str) -> SafeString:
    """A drawing of the sprite; what it means is said beside it."""
    return _icon(name, get_script_prefix())


@cache
def _icon(name: str, prefix: str) -> SafeString:
    return SafeString(
        f'<svg aria-hidden="true"><use href="{escape(static("icons.svg"))}#{escape(name)}"/></svg>'
    )


# --- states and counters ---------------------------------------------------------------------------


@register.simple_tag
def state(of: Any) -> SafeString:
    """The chip of the state of a batch, an instance or a node: its glyph and its word."""
    return _chip(of.state, of.get_state_display())


@register.simple_tag
def outcome(of: Any) -> SafeString:
    """The chip of how an execution ended, or that it runs."""
    return _chip(of.outcome, of.get_outcome_display()) if of.outcome else _chip("running", _("Running"))


def _chip(identifier: str, word: str) -> SafeString:
    known = escape(identifier)
    return SafeString(f'<span class="state" data-state="{known}">{icon(identifier)}{escape(word)}</span>')


@register.simple_tag
def counters(row: Any) -> SafeString:
    """How the instances of a BatchRow stand, as a bar and in words that leave out what is none."""
    batch = row.batch
    total = batch.total
    parts = [
        ("success", batch.succeeded, ""),
        ("failed", batch.failed, _("%d failed")),
        ("timed_out", batch.timed_out, _("%d timed out")),
        ("terminated", batch.terminated, _("%d terminated")),
        ("running", row.running, _("%d running")),
        ("waiting", 0 if batch.is_finished else row.waiting, _("%d waiting")),
    ]
    bar, spoken, words, at = "", [_("%d of %d succeeded") % (batch.succeeded, total)], "", 0.0
    for identifier, count, text in parts:
        if not count:
            continue
        if text:
            said = text % count
            spoken.append(said)
            bad = identifier in {"failed", "timed_out"}
            words += f' · <span data-tone="failed">{escape(said)}</span>' if bad else f" · {escape(said)}"
        if identifier != "waiting" and total:
            width = min(100 * count / total, 100 - at)
            bar += f'<rect data-state="{identifier}" x="{at:.2f}" width="{width:.2f}" height="6"/>'
            at += width
    return SafeString(
        '<div class="counters"><svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(", ".join(spoken))}">{bar}</svg>'
        f'<small aria-hidden="true">{batch.succeeded} / {total}{words}</small></div>'
    )


# --- actions ---------------------------------------------------------------------------------------


@register.simple_tag
def actions(row: Any, *, icons: bool = False) -> SafeString:
    """The stop or rerun button of a BatchRow or InstanceRow, as far as its user may; `icons`: without words."""
    mark: str = row.mark
    kind, _dash, pk = mark.partition("-")
    buttons = ""
    if row.may_stop:
        buttons += _button(kind, int(pk), mark, "stop", icons)
    if row.may_rerun:
        buttons += _button(kind, int(pk), mark, "rerun", icons)
    return SafeString(buttons)


def _button(kind: str, pk: int, mark: str, verb: str, icons: bool) -> str:
    where = address(f"{kind}-{verb}", pk)
    label, word = _spoken_action(kind, verb) % pk, _("Stop") if verb == "stop" else _("Rerun")
    look = "button danger" if verb == "stop" else "button"
    tip = f' title="{escape(word)}"' if icons else ""
    return (
        f'<a class="{look}{" glyph" if icons else ""}" id="{verb}-{mark}" href="{where}" data-action="{verb}" '
        f'aria-label="{escape(label)}"{tip} hx-get="{where}" hx-target="#dialog">'
        f"{icon(verb)}{'' if icons else escape(word)}</a>"
    )


def _spoken_action(kind: str, verb: str) -> str:
    match kind, verb:
        case "batch", "stop":
            return _("Stop batch %d")
        case "batch", _:
            return _("Rerun batch %d")
        case _, "stop":
            return _("Stop instance %d")
    return _("Rerun instance %d")


@register.simple_tag
def tick(pk: int) -> SafeString:
    """The box that ticks the batch `pk` for what is done to many."""
    label = escape(_("Tick batch %d") % pk)
    return SafeString(
        f'<input type="checkbox" class="tick" id="tick-batch-{pk}" name="batch" value="{pk}" form="bulk" '
        f'aria-label="{label}">'
    )


@register.simple_tag
def copyable(pk: int) -> SafeString:
    """A button that copies the id `pk`."""
    label = escape(_("Copy the ID %d") % pk)
    return SafeString(
        f'<button type="button" class="copy" id="copy-{pk}" data-copy="{pk}" aria-label="{label}">'
        f"{icon('copy')}</button>"
    )


# --- times -----------------------------------------------------------------------------------------


@register.filter
def when(moment: datetime | None) -> SafeString | str:
    """A `<time>`: the clock, and the day when that is not today; its title says all."""
    if moment is None:
        return NOTHING
    local, now = timezone.localtime(moment), timezone.localtime()
    clock = f"{local.hour:02d}:{local.minute:02d}:{local.second:02d}"
    dated = ""
    if local.date() != now.date():
        day = f"{local.month:02d}-{local.day:02d}"
        dated = f" <small>{day if local.year == now.year else f'{local.year}-{day}'}</small>"
    whole = f"{local.date().isoformat()} {clock}.{local.microsecond // 1000:03d} {local.tzname()}"
    return SafeString(f'<time datetime="{local.isoformat()}" title="{escape(whole)}">{clock}{dated}</time>')


@register.simple_tag
def took(started: datetime | None, ended: datetime | None) -> SafeString | str:
    """How long something took; what still runs counts on in the browser."""
    if started is None:
        return NOTHING
    passed = (ended or timezone.now()) - started
    if ended is None:
        seconds = max(0, int(passed.total_seconds()))
        forms = "|".join([_("%(seconds)d s"), _(_MINUTES), _(_HOURS)])
        shown = f'data-running-for="{seconds}" data-words="{escape(forms)}"'
        return SafeString(f"<span {shown}>{escape(duration(passed))}</span>")
    return duration(passed)


@register.simple_tag
def late(row: Any) -> SafeString | str:
    """By how much a BatchRow started, or is, later than due; nothing when it is not late."""
    passed: timedelta | None = row.late_by
    if passed is None:
        return ""
    said = _("%s late") % duration(passed)
    return SafeString(f'<small data-tone="late">{escape(said)}</small>')


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
