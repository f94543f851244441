"""Schedules, policies and spans of time in the words of a person who was asked.

No database: what comes in are plain values or a revision, what goes out is text in the reader's language.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.dates import MONTHS, WEEKDAYS
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from scheduling.calendars import Schedule
from scheduling.models import TaskRevision
from scheduling.models.tasks import Misfire, Overlap, Trigger

# Longer lists of times are harder to read than the expression itself.
_MOST_LISTED = 6
_MINUTE = timedelta(minutes=1)
_DAY_NAMES = {name: day for day, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}
_MONTH_NAMES = {
    name: number
    for number, name in enumerate(
        ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), start=1
    )
}


# --- spans of time ---------------------------------------------------------------------------------


def length(span: timedelta) -> str:
    """A span in its two largest units, in whole seconds: `45 s`, `3 min 05 s`, `2 h 10 min`, `4 d 6 h`."""
    seconds = abs(int(span.total_seconds()))
    if seconds < 60:
        return _("%d s") % seconds
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        if not seconds:
            return _("%d min") % minutes
        return _("%(minutes)d min %(seconds)02d s") % {"minutes": minutes, "seconds": seconds}
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return (
            _("%(hours)d h %(minutes)02d min") % {"hours": hours, "minutes": minutes}
            if minutes
            else _("%d h") % hours
        )
    days, hours = divmod(hours, 24)
    return _("%(days)d d %(hours)d h") % {"days": days, "hours": hours} if hours else _("%d d") % days


def moment(at: datetime) -> str:
    """A moment in full, by the reader's clocks: `2026-03-29 02:00:00 CEST`."""
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S %Z}"


def relative(moment: datetime, now: datetime) -> str:
    """How far `moment` is from `now`, to the minute: `in 3 h 05 min`, `in under a minute`, `2 d 4 h ago`.

    No seconds, so that what a page says of a moment stays true for a while.
    """
    away = moment - now
    if away >= timedelta(0):
        return _("in under a minute") if away < _MINUTE else _("in %s") % length(away // _MINUTE * _MINUTE)
    return _("under a minute ago") if -away < _MINUTE else _("%s ago") % length(-away // _MINUTE * _MINUTE)


def until(due: datetime, now: datetime) -> str:
    """How long it is until something is due: as `relative`, and `due now` from then on."""
    return relative(due, now) if due > now else _("due now")


def every(seconds: int) -> str:
    """An interval: `every minute`, `every 5 minutes`, `every 1 h 30 min`."""
    if seconds and seconds % 86400 == 0:
        days = seconds // 86400
        return ngettext("every day", "every %(count)d days", days) % {"count": days}
    if seconds and seconds % 3600 == 0:
        hours = seconds // 3600
        return ngettext("every hour", "every %(count)d hours", hours) % {"count": hours}
    if seconds and seconds % 60 == 0 and seconds < 3600:
        return _every_minutes(seconds // 60)
    if seconds < 60:
        return ngettext("every second", "every %(count)d seconds", seconds) % {"count": seconds}
    return _("every %s") % length(timedelta(seconds=seconds))


def _every_minutes(minutes: int) -> str:
    return ngettext("every minute", "every %(count)d minutes", minutes) % {"count": minutes}


# --- schedules -------------------------------------------------------------------------------------


def of_trigger(schedule: Schedule) -> str:
    """What begins a task: `every day at 02:00 Europe/Berlin`, `every 5 minutes`, `by hand only`.

    A cron expression that has no short wording stands as it is, with its zone.
    """
    match schedule.trigger:
        case Trigger.CRON:
            return _of_cron(schedule.cron, schedule.timezone)
        case Trigger.FIXED_RATE:
            return every(schedule.interval or 0)
        case Trigger.WORKFLOW:
            return _("by workflows")
        case _:
            return _("by hand only")


def _of_cron(expression: str, zone: str) -> str:
    fields = expression.upper().split()
    if len(fields) == 6:
        seconds, *fields = fields
        if fields == ["*"] * 5 and (step := _step(seconds, 60)):
            return every(step)
        if seconds != "0":
            return f"{expression} ({zone})"
    words = _of_fields(*fields) if len(fields) == 5 else None
    if words is None:
        return f"{expression} ({zone})"
    # What repeats every few minutes of every day looks the same on every clock.
    everywhere = fields[1:] == ["*"] * 4 and "*" in fields[0]
    return words if everywhere else f"{words} {zone}"


def _of_fields(minute: str, hour: str, day: str, month: str, weekday: str) -> str | None:
    days = _days(day, month, weekday)
    if days is None:
        return None
    repeated = _repetition(minute, hour)
    if repeated:
        return _("%(how_often)s, %(days)s") % {"how_often": repeated, "days": days} if days else repeated
    minutes, hours = _numbers(minute), _numbers(hour)
    if not minutes or not hours or len(minutes) * len(hours) > _MOST_LISTED:
        return None
    times = [f"{each:02d}:{part:02d}" for each in hours for part in minutes]
    return _("%(days)s at %(times)s") % {
        "days": days or pgettext("schedule", "every day"),
        "times": _listed(times),
    }


def _repetition(minute: str, hour: str) -> str | None:
    if hour == "*":
        if step := _step(minute, 60):
            return _every_minutes(step)
        minutes = _numbers(minute)
        if minutes and len(minutes) <= _MOST_LISTED:
            return ngettext(
                "every hour at minute %(minutes)s", "every hour at minutes %(minutes)s", len(minutes)
            ) % {"minutes": _listed([str(each) for each in minutes])}
        return None
    step, minutes = _step(hour, 24), _numbers(minute)
    if len(minutes) != 1:
        return None
    if step:
        return _("%(hours)s at minute %(minute)d") % {"hours": every(step * 3600), "minute": minutes[0]}
    first, _dash, last = hour.partition("-")
    if first.isdigit() and last.isdigit():
        return _("every hour from %(first)s to %(last)s") % {
            "first": f"{int(first):02d}:{minutes[0]:02d}",
            "last": f"{int(last):02d}:{minutes[0]:02d}",
        }
    return None


def _days(day: str, month: str, weekday: str) -> str | None:
    """On which days, or the empty text for every day; None when that has no short wording."""
    if month != "*":
        months, dates = _numbers(month, _MONTH_NAMES), _numbers(day)
        if weekday == "*" and len(months) == len(dates) == 1:
            return _("every year on %(day)d %(month)s") % {"day": dates[0], "month": MONTHS[months[0]]}
        return None
    if day == "*":
        return _weekdays(weekday)
    if weekday != "*":
        return None
    if day == "L":
        return _("every month on its last day")
    dates = _numbers(day)
    if not dates or len(dates) > _MOST_LISTED:
        return None
    return ngettext("every month on day %(days)s", "every month on days %(days)s", len(dates)) % {
        "days": _listed([str(each) for each in dates])
    }


def _weekdays(weekday: str) -> str | None:
    if weekday == "*":
        return ""
    first, dash, last = weekday.partition("-")
    ends = [*_numbers(first, _DAY_NAMES), *_numbers(last, _DAY_NAMES)]
    if dash and len(ends) == 2:
        return _("%(first)s to %(last)s") % {"first": _weekday(ends[0]), "last": _weekday(ends[1])}
    days = _numbers(weekday, _DAY_NAMES)
    return _("every %s") % _listed([_weekday(each) for each in days]) if days else None


def _weekday(day: int) -> str:
    # Cron begins with Sunday as 0 or 7, Django with Monday as 0.
    return str(WEEKDAYS[(day - 1) % 7])


def _step(field: str, whole: int) -> int:
    """The n of `*` or `*/n` when that divides the whole evenly, so that "every n" is true; else 0."""
    if field == "*":
        return 1
    star, _slash, step = field.partition("/")
    return int(step) if star == "*" and step.isdigit() and int(step) and whole % int(step) == 0 else 0


def _numbers(field: str, names: dict[str, int] | None = None) -> list[int]:
    """The numbers of a plain list such as `1,15`; none at all for anything else."""
    found = [(names or {}).get(part, part) for part in field.split(",")]
    return [int(part) for part in found] if all(str(part).isdigit() for part in found) else []


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) == 1:
        return words[0]
    return _("%(first)s and %(last)s") % {"first": ", ".join(words[:-1]), "last": words[-1]}


# --- what a task does about trouble ----------------------------------------------------------------


def of_overlap(revision: TaskRevision) -> str:
    """What happens when a run is due while an earlier one is unfinished."""
    return {
        Overlap.ALLOW: _("A run begins even while an earlier one is unfinished."),
        Overlap.SKIP: _("A run is skipped while an earlier one is unfinished."),
        Overlap.QUEUE: _("A run waits until the earlier one has ended."),
        Overlap.REPLACE: _("A run stops the earlier one, then begins."),
    }[Overlap(revision.overlap)]


def of_misfire(revision: TaskRevision) -> str:
    """What happens to due times that passed while no scheduler ran."""
    return {
        Misfire.SKIP: _("Due times that were missed are skipped."),
        Misfire.RUN_ONCE: _("Due times that were missed are made good by one run."),
        Misfire.RUN_ALL: _("Due times that were missed are all run."),
    }[Misfire(revision.misfire)]


def of_retries(revision: TaskRevision) -> str:
    """How often a failed instance is tried again, and when."""
    if not revision.retry_count:
        return _("A failed instance is not tried again.")
    words = ngettext(
        "A failed instance is tried again once",
        "A failed instance is tried again up to %(count)d times",
        revision.retry_count,
    ) % {"count": revision.retry_count}
    if not revision.retry_interval:
        return _("%s, at once.") % words
    return _("%(words)s, after %(pause)s.") % {
        "words": words,
        "pause": length(timedelta(seconds=revision.retry_interval)),
    }


def of_timeout(revision: TaskRevision) -> str:
    """When an instance is ended for taking too long."""
    if revision.timeout is None:
        return _("An instance may take as long as it needs.")
    return _("An instance is ended after %s.") % length(timedelta(seconds=revision.timeout))


def of_success_ratio(revision: TaskRevision) -> str:
    """How many instances must succeed."""
    if revision.success_ratio == 100:
        return _("A batch succeeds when all of its instances do.")
    return _("A batch succeeds when %d %% of its instances do.") % revision.success_ratio
