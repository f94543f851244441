"""How pages write states, counters, actions, times, durations and output.

A list page shows each of these fifty times or more and is asked for every two seconds, so tags build their
markup themselves, from words that are translated once a language: a template within a template, or a
`gettext` for each word, would be most of what a page costs. Whatever is not our own is escaped here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from html import escape
from typing import Any

from django import template
from django.db.models import Choices, Model
from django.forms import BoundField
from django.templatetags.static import static
from django.urls import get_script_prefix, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from scheduling import parameters

register = template.Library()

NOTHING = "–"


class Words:
    """The words of one language that rows are made of."""

    def __init__(self) -> None:
        self.running = _("Running")
        self.succeeded = _("%(done)d of %(total)d succeeded")
        self.counts = {
            "failed": _("%d failed"),
            "timed_out": _("%d timed out"),
            "terminated": _("%d terminated"),
            "running": _("%d running"),
            "waiting": _("%d waiting"),
        }
        self.verbs = {"stop": _("Stop"), "rerun": _("Rerun")}
        self.actions = {
            ("batch", "stop"): _("Stop batch %d"),
            ("batch", "rerun"): _("Rerun batch %d"),
            ("instance", "stop"): _("Stop instance %d"),
            ("instance", "rerun"): _("Rerun instance %d"),
        }
        self.milliseconds = _("%(milliseconds)d ms")
        self.seconds = _("%(seconds)d s")
        self.tenths = _("%(seconds).1f s")
        self.minutes = _("%(minutes)d min %(seconds)02d s")
        self.hours = _("%(hours)d h %(minutes)02d min")
        # For the clock that runs on in the browser.
        self.clock = f"{self.seconds}|{self.minutes}|{self.hours}"


@cache
def _words_in(language: str | None) -> Words:
    return Words()


def words() -> Words:
    """The words of the language that is active."""
    return _words_in(get_language())


@cache
def _choices(model: type[Model], field: str, language: str | None) -> dict[str, str]:
    described: Any = model._meta.get_field(field)
    if described.generated:
        described = described.output_field
    return {str(value): str(label) for value, label in described.flatchoices}


def choice(of: Any, field: str) -> str:
    """What `of.get_<field>_display()` says, which translates every choice of the field to say one."""
    if not isinstance(of, Model):
        # Something that only looks like a row of a table, such as whether a task's schedule is on.
        return str(getattr(of, f"get_{field}_display")())
    value = getattr(of, field)
    return _choices(type(of), field, get_language()).get(value, value)


@cache
def _labels(states: type[Choices], language: str | None) -> dict[str, str]:
    return {str(each.value): str(each.label) for each in states}


def label(states: type[Choices], value: str) -> str:
    """What `str(states(value).label)` says, translated once a language."""
    return _labels(states, get_language())[value]


# --- addresses and icons ---------------------------------------------------------------------------

_ANY_ID = 7_777_777_777


@register.simple_tag
def address(name: str, pk: int) -> str:
    """What `{% url name pk %}` says, without resolving it anew for every row."""
    before, after = _around_id(name, get_script_prefix())
    return f"{before}{int(pk)}{after}"


@cache
def _around_id(name: str, prefix: str) -> tuple[str, str]:
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
    field = "listed_state" if hasattr(of, "listed_state") else "state"
    return chip(getattr(of, field), choice(of, field))


@register.simple_tag
def outcome(of: Any) -> SafeString:
    """The chip of how an execution ended, or that it runs."""
    return chip(of.outcome, choice(of, "outcome")) if of.outcome else chip("running", words().running)


def chip(identifier: str, word: str) -> SafeString:
    """A state's glyph and its word."""
    known = escape(identifier)
    return SafeString(f'<span class="state" data-state="{known}">{icon(identifier)}{escape(word)}</span>')


@register.simple_tag
def counters(row: Any) -> SafeString:
    """How the instances of a BatchRow stand, as a bar and in words that leave out what is none."""
    batch, said = row.batch, words()
    total = batch.total
    counts = {
        "success": batch.succeeded,
        "failed": batch.failed,
        "timed_out": batch.timed_out,
        "terminated": batch.terminated,
        "running": row.running,
        "waiting": 0 if batch.is_finished else row.waiting,
    }
    return progress(counts, batch.succeeded, total, said.counts)


def progress(counts: Mapping[str, int], done: int, total: int, phrases: Mapping[str, str]) -> SafeString:
    """`done` of `total` as a bar with a part for each of `counts`, and in `phrases` for those there are.

    `success` needs no phrase, as it is what is done, and `waiting` has no part, as it is the ground of the bar.
    """
    spoken = [words().succeeded % {"done": done, "total": total}]
    bar, text, at = "", "", 0.0
    for identifier, count in counts.items():
        if not count:
            continue
        if identifier != "success":
            phrase = phrases[identifier] % count
            spoken.append(phrase)
            # A count and its word stay on one line.
            phrase = phrase.replace(" ", "\N{NO-BREAK SPACE}")
            bad = identifier in {"failed", "timed_out"}
            text += f' · <span data-tone="failed">{escape(phrase)}</span>' if bad else f" · {escape(phrase)}"
        if identifier != "waiting" and total:
            width = min(100 * count / total, 100 - at)
            bar += f'<rect data-state="{identifier}" x="{at:.2f}" width="{width:.2f}" height="6"/>'
            at += width
    return SafeString(
        '<div class="counters"><svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(", ".join(spoken))}">{bar}</svg>'
        f'<small aria-hidden="true">{done} / {total}{text}</small></div>'
    )


# --- what is done to a row ------------------------------------------------------------------------


@register.simple_tag
def actions(row: Any, *, icons: bool = False) -> SafeString:
    """The stop or rerun button of a BatchRow or InstanceRow, as far as its user may; `icons`: without words."""
    mark: str = row.mark
    may = {"stop": row.may_stop, "rerun": row.may_rerun}
    return SafeString("".join(_button(mark, verb, icons) for verb, is_so in may.items() if is_so))


def _button(mark: str, verb: str, icons: bool) -> str:
    kind, _dash, pk = mark.partition("-")
    said, where = words(), address(f"{kind}-{verb}", int(pk))
    word = escape(said.verbs[verb])
    look = ("button danger" if verb == "stop" else "button") + (" glyph" if icons else "")
    tip = f' title="{word}"' if icons else ""
    return (
        f'<a class="{look}" id="{verb}-{mark}" href="{where}" data-action="{verb}" '
        f'aria-label="{escape(said.actions[kind, verb] % int(pk))}"{tip} hx-get="{where}" hx-target="#dialog">'
        f"{icon(verb)}{'' if icons else word}</a>"
    )


# --- filters ---------------------------------------------------------------------------------------


@register.simple_tag
def boxes(field: BoundField) -> SafeString:
    """The boxes of a field of several choices, as its widget says them in twenty templates."""
    name, chosen = field.html_name, {str(value) for value in field.value() or []}
    described: Any = field.field
    return SafeString(
        "".join(
            f'<label><input type="checkbox" name="{name}" value="{escape(str(value))}" id="id_{name}_{number}"'
            f"{' checked' if str(value) in chosen else ''}> {escape(str(text))}</label>"
            for number, (value, text) in enumerate(described.choices)
        )
    )


# --- times -----------------------------------------------------------------------------------------


@register.filter
def written(value: Any) -> str:
    """A parameter or a result: JSON, or a plain text as it is."""
    return parameters.written(value)


@register.filter
def when(moment: datetime | None) -> SafeString | str:
    """A `<time>`: the clock, and the day when that is not today; its title says all."""
    if moment is None:
        return NOTHING
    zone = timezone.get_current_timezone()
    local, today = moment.astimezone(zone), datetime.now(zone).isoformat()
    # Cut out of the one text: a page has hundreds of them, and each number formatted costs as much as that.
    text = local.isoformat()
    day, clock, dated = text[:10], text[11:19], ""
    if day != today[:10]:
        dated = f" <small>{day[5:] if day[:4] == today[:4] else day}</small>"
    whole = f"{day} {clock}.{local.microsecond // 1000:03d} {escape(local.tzname() or '')}"
    return SafeString(f'<time datetime="{text}" title="{whole}">{clock}{dated}</time>')


@register.simple_tag
def took(started: datetime | None, ended: datetime | None) -> SafeString | str:
    """How long something took; what still runs counts on in the browser."""
    if started is None:
        return NOTHING
    passed = (ended or timezone.now()) - started
    if ended is None:
        seconds = max(0, int(passed.total_seconds()))
        shown = f'data-running-for="{seconds}" data-words="{escape(words().clock)}"'
        return SafeString(f"<span {shown}>{escape(duration(passed))}</span>")
    return duration(passed)


@register.filter
def duration(passed: timedelta) -> str:
    """A length of time in the two units that matter."""
    said, seconds = words(), max(0.0, passed.total_seconds())
    if seconds < 1:
        return said.milliseconds % {"milliseconds": seconds * 1000}
    if seconds < 10:
        return said.tenths % {"seconds": seconds}
    if seconds < 60:
        return said.seconds % {"seconds": seconds}
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return said.minutes % {"minutes": minutes, "seconds": rest}
    hours, minutes = divmod(minutes, 60)
    return said.hours % {"hours": hours, "minutes": minutes}
