"""What a task may be: the same rules for `apply`, the admin and the shell, every mistake told at once.

`clean_content` turns what a person wrote into the one form that is stored: defaults filled in, durations in
seconds, shards as a list. Cleaning what is clean changes nothing, and what comes back from the database is
equal to what went in, so the content hash of a task is the same on every way.
"""

from __future__ import annotations

import functools
import math
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from django.utils import timezone
from django.utils.translation import gettext as _

from scheduling import kinds
from scheduling import parameters as job_parameters
from scheduling.errors import InvalidDefinition
from scheduling.models import TaskRevision
from scheduling.models.tasks import Misfire, Mode, Overlap, Trigger

MOST_SHARDS = 10_000
MOST_RETRIES = 1000
MOST_RETENTION_DAYS = 3650
# Deeper JSON is a mistake, or an attack on whoever walks it.
_DEEPEST = 50
_LONGEST_TEXT = 1_000_000


class _Mistake(ValueError):
    """One field is wrong; the text says how."""


def clean_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """The whole content of a revision, from what a person gave of it; raises InvalidDefinition.

    Takes the fields of `TaskRevision.CONTENT`. Durations may be seconds or text such as `10m`; shards a list,
    a map of index to parameter, or `0=a,1=b`; `trigger` may be left out when `cron` or `interval` says it.
    The errors of nested fields have dotted names: `spec.command`, `parameters.day`.
    """
    return _Cleaning(content).finish()


def clean_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that a person gives to one batch; raises InvalidDefinition, its fields `parameters.<name>`."""
    errors: dict[str, str] = {}
    cleaned = _parameters(parameters, errors)
    if errors:
        raise InvalidDefinition(errors)
    return cleaned


def clean_retention(value: Any) -> int | None:
    """For how many days a task's records are kept: whole days, or text such as `30d`; None is the default.

    Raises InvalidDefinition, its field `retention`.
    """
    try:
        if value is None or isinstance(value, int):
            return _optional(_whole(1, MOST_RETENTION_DAYS))(value)
        seconds = job_parameters.parse_duration(value)
        if seconds % 86400 or not str(value).strip()[-1:].isalpha():
            raise _Mistake(not_whole_days(value))
        return _whole(1, MOST_RETENTION_DAYS)(seconds // 86400)
    except ValueError as mistake:
        raise InvalidDefinition({"retention": _sentence(str(mistake))}) from None


def not_whole_days(value: object) -> str:
    """What to say of a value that is no number of days."""
    return _("%(value)s is not whole days; write e.g. 30d.") % {"value": shown(value)}


class _Cleaning:
    """One pass over a content: each field is cleaned alone, then those that must fit one another."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.given = content
        self.errors: dict[str, str] = {}
        blank = TaskRevision()
        self.clean: dict[str, Any] = {name: getattr(blank, name) for name in TaskRevision.CONTENT}

    def finish(self) -> dict[str, Any]:
        for name in self.given:
            if name not in TaskRevision.CONTENT:
                self.errors[str(name)] = unknown_field(name, TaskRevision.CONTENT)
        self.job()
        self.sharding()
        self.schedule()
        for name, rule in _RULES.items():
            self.field(name, rule)
        self.clean["parameters"] = _parameters(self.given.get("parameters", {}), self.errors)
        if self.errors:
            raise InvalidDefinition(self.errors)
        return self.clean

    def field(self, name: str, rule: Callable[[Any], Any]) -> bool:
        """Clean one field if it was given; whether its value can be relied upon."""
        if name in self.given:
            try:
                self.clean[name] = rule(self.given[name])
            except _Mistake as mistake:
                self.errors[name] = str(mistake)
        return name not in self.errors

    def job(self) -> None:
        known = kinds.kinds()
        name = self.given.get("kind")
        if name is None or name == "":
            self.errors["kind"] = _("It is missing; it is one of %(kinds)s.") % {"kinds": ", ".join(known)}
            return
        if not isinstance(name, str) or name not in known:
            self.errors["kind"] = not_among(name, known)
            return
        self.clean["kind"] = name
        try:
            spec = known[name].clean(self.given.get("spec", {}))
        except kinds.SpecErrors as wrong:
            for field, message in wrong.errors.items():
                self.errors[f"spec.{field}" if field else "spec"] = message
        else:
            self.clean["spec"] = _json(spec, "spec", self.errors)

    def sharding(self) -> None:
        sound = self.field("mode", _choice(Mode)) & self.field("shards", _shards)
        sound &= self.field("shard_concurrency", _whole(0, 32767))
        if not sound:
            return
        if self.clean["mode"] == Mode.SHARDED:
            if not self.clean["shards"]:
                self.errors["shards"] = _(
                    "It is missing; a sharded task has at least one shard, e.g. {0: a, 1: b}."
                )
            return
        for name in ("shards", "shard_concurrency"):
            if self.clean[name]:
                self.errors[name] = _(
                    "It belongs to the mode “sharded”, and this task's mode is “%(mode)s”."
                ) % {"mode": self.clean["mode"]}

    def schedule(self) -> None:
        has_cron, has_interval = (self.given.get(name) not in (None, "") for name in ("cron", "interval"))
        if "trigger" not in self.given:
            if has_cron and has_interval:
                self.errors["trigger"] = _(
                    "It has both a cron expression and an interval; a task has one of them."
                )
            elif has_cron or has_interval:
                self.clean["trigger"] = Trigger.CRON.value if has_cron else Trigger.FIXED_RATE.value
        sound = self.field("trigger", _choice(Trigger))
        zone = self.field("timezone", _timezone)
        self.field("cron", lambda value: _cron(value, self.clean["timezone"] if zone else "UTC"))
        self.field("interval", _optional(_seconds(1)))
        if not sound:
            return
        for name, needed_by, example in (
            ("cron", Trigger.CRON, "5 0 * * *"),
            ("interval", Trigger.FIXED_RATE, "30s"),
        ):
            given, needed = (has_cron if name == "cron" else has_interval), self.clean["trigger"] == needed_by
            if needed and not given:
                self.errors[name] = _(
                    "It is missing; the trigger “%(trigger)s” needs it, e.g. %(example)s."
                ) % {
                    "trigger": needed_by.value,
                    "example": example,
                }
            elif given and not needed:
                self.errors[name] = _(
                    "It belongs to the trigger “%(trigger)s”, and this task's is “%(is)s”."
                ) % {
                    "trigger": needed_by.value,
                    "is": self.clean["trigger"],
                }


def unknown_field(name: object, known: Iterable[str]) -> str:
    """What to say of a field that does not exist, with the nearest that does."""
    known = list(known)
    close = get_close_matches(str(name), known, n=1)
    if close:
        return _("This field is not known. Did you mean “%(close)s”?") % {"close": close[0]}
    return _("This field is not known; known are %(fields)s.") % {"fields": ", ".join(known)}


def shown(value: object) -> str:
    """A value as messages quote it: short, on one line, texts in quotation marks."""
    text = value if isinstance(value, str) else repr(value)
    short = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:80])
    short += "…" if len(text) > 80 else ""
    return f"“{short}”" if isinstance(value, str) else short


def _sentence(message: str) -> str:
    message = message[:1].upper() + message[1:]
    return message if message.endswith((".", "?")) else f"{message}."


def not_among(value: object, allowed: Iterable[str]) -> str:
    """What to say of a value that is not one of the `allowed`, with the nearest that is."""
    allowed = list(allowed)
    message = _("%(value)s is not one of %(allowed)s.") % {"value": shown(value), "allowed": ", ".join(allowed)}
    close = get_close_matches(str(value), allowed, n=1)
    return message + (_(" Did you mean “%(close)s”?") % {"close": close[0]} if close else "")


# --- single fields: what was given -> what is stored, or _Mistake ------------------------------------


def _choice(choices: Any) -> Callable[[Any], str]:
    def rule(value: Any) -> str:
        if not isinstance(value, str) or value not in choices.values:
            raise _Mistake(not_among(value, choices.values))
        return str(value)

    return rule


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def rule(value: Any) -> int:
        # True is an int in Python, and never a number of anything.
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _Mistake(
                _("%(value)s is not a whole number from %(least)d to %(most)d.")
                % {"value": shown(value), "least": least, "most": most}
            )
        return value

    return rule


def _seconds(least: int) -> Callable[[Any], int]:
    def rule(value: Any) -> int:
        try:
            seconds = job_parameters.parse_duration(value)
        except ValueError as error:
            raise _Mistake(_sentence(str(error))) from None
        if seconds < least:
            raise _Mistake(
                _("%(value)s is too short; the least is %(least)ds.") % {"value": shown(value), "least": least}
            )
        return seconds

    return rule


def _optional(rule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else rule(value)


def _timezone(value: Any) -> str:
    known = _zones()
    if isinstance(value, str) and value in known:
        return value
    close = get_close_matches(str(value), known, n=1)
    raise _Mistake(
        _("%(value)s is not a time zone; write one such as UTC or America/New_York.") % {"value": shown(value)}
        + (_(" Did you mean “%(close)s”?") % {"close": close[0]} if close else "")
    )


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"})


def _cron(value: Any, zone: str) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or len(value) > 120:
        raise _Mistake(
            _("%(value)s is not a cron expression (text of at most 120 letters).") % {"value": shown(value)}
        )
    expression = " ".join(value.split())
    try:
        coming = CronSim(expression, timezone.now().astimezone(ZoneInfo(zone)))
    except (CronSimError, ValueError, AssertionError) as error:
        raise _Mistake(
            _(
                "%(value)s is not a cron expression: %(error)s. "
                "Write minute, hour, day, month and weekday, e.g. 5 0 * * *."
            )
            % {"value": shown(value), "error": str(error).lower() or _("it cannot be read")}
        ) from None
    try:
        next(coming)
    except StopIteration:
        raise _Mistake(_("%(value)s never comes due: no such date exists.") % {"value": shown(value)}) from None
    return expression


def _shards(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        pairs = [_pair(piece) for piece in value.split(",")] if value.strip() else []
        found = _by_index(pairs)
    elif isinstance(value, Mapping):
        found = _by_index([(_index(index), parameter) for index, parameter in value.items()])
    elif isinstance(value, list | tuple):
        found = list(value)
    else:
        raise _Mistake(_("%(value)s is not a list of shards; write {0: a, 1: b}.") % {"value": shown(value)})
    if len(found) > MOST_SHARDS:
        raise _Mistake(
            _("It has %(count)d shards, and a task has at most %(most)d.")
            % {"count": len(found), "most": MOST_SHARDS}
        )
    return [_shard(parameter, index) for index, parameter in enumerate(found)]


def _pair(piece: str) -> tuple[int, str]:
    index, equals, parameter = piece.partition("=")
    if not equals:
        raise _Mistake(_("%(piece)s is not index=parameter; write 0=a,1=b.") % {"piece": shown(piece.strip())})
    return _index(index.strip()), parameter.strip()


def _index(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise _Mistake(_("%(value)s is not a shard index; they are 0, 1, 2…") % {"value": shown(value)})


def _by_index(pairs: list[tuple[int, Any]]) -> list[Any]:
    found: dict[int, Any] = {}
    for index, parameter in pairs:
        if index in found:
            raise _Mistake(_("It has shard %(index)d twice.") % {"index": index})
        found[index] = parameter
    if found and max(found) >= len(found):
        missing = next(index for index in count() if index not in found)
        raise _Mistake(
            _("It has no shard %(missing)d; the indexes run from 0 to %(last)d without a gap.")
            % {"missing": missing, "last": max(found)}
        )
    return [found[index] for index in range(len(found))]


def _shard(parameter: Any, index: int) -> str:
    if isinstance(parameter, bool) or not isinstance(parameter, str | int | float):
        raise _Mistake(
            _("Shard %(index)d has the parameter %(value)s, which is not a text.")
            % {"index": index, "value": shown(parameter)}
        )
    text = str(parameter)
    if problem := _unstorable(text):
        raise _Mistake(_("Shard %(index)d: %(problem)s") % {"index": index, "problem": problem})
    if len(text) > 1000:
        raise _Mistake(_("Shard %(index)d has a parameter of more than 1000 letters.") % {"index": index})
    return text


_RULES: dict[str, Callable[[Any], Any]] = {
    "timeout": _optional(_seconds(1)),
    "retry_count": _whole(0, MOST_RETRIES),
    "retry_interval": _seconds(0),
    "success_ratio": _whole(1, 100),
    "overlap": _choice(Overlap),
    "misfire": _choice(Misfire),
    "priority": _whole(-100, 100),
}


# --- JSON ------------------------------------------------------------------------------------------


def _parameters(given: Any, errors: dict[str, str]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        errors["parameters"] = _("%(value)s is not a map of names to values.") % {"value": shown(given)}
        return {}
    cleaned = {name: _json(value, f"parameters.{name}", errors) for name, value in given.items()}
    for name, message in job_parameters.check(cleaned).items():
        errors.setdefault(f"parameters.{name}", _sentence(message))
    return cleaned


def _json(value: Any, field: str, errors: dict[str, str]) -> Any:
    """`value` as PostgreSQL gives it back from a jsonb column; what it cannot keep is put into `errors`."""
    try:
        return _storable(value, 0)
    except _Mistake as mistake:
        errors[field] = str(mistake)
        return None


def _storable(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise _Mistake(_("It is nested more than %(depth)d deep.") % {"depth": _DEEPEST})
    match value:
        case None | bool():
            return value
        case str():
            if problem := _unstorable(value):
                raise _Mistake(problem)
            return str(value)
        case int() | float():
            return _number(value)
        case Mapping():
            if wrong := [key for key in value if not isinstance(key, str) or _unstorable(key)]:
                raise _Mistake(_("It has the key %(key)s, and keys are texts.") % {"key": shown(wrong[0])})
            return {str(key): _storable(inner, depth + 1) for key, inner in value.items()}
        case list() | tuple():
            return [_storable(inner, depth + 1) for inner in value]
    raise _Mistake(
        _("%(value)s is a %(type)s; write text, a number, true, false, a list or a map.")
        % {"value": shown(value), "type": type(value).__name__}
    )


def _number(value: int | float) -> int | float:
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise _Mistake(_("It holds a number that JSON cannot: write it as text."))
    if isinstance(value, float):
        # jsonb keeps decimal digits: 1e22 comes back as an integer, and -0.0 without its sign.
        return int(value) if abs(value) >= 1e16 else value + 0.0
    return value


def _unstorable(text: str) -> str | None:
    if len(text) > _LONGEST_TEXT:
        return _("It holds a text of more than %(most)d letters.") % {"most": _LONGEST_TEXT}
    if "\0" in text:
        return _("It holds a NUL character.")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return _("It holds half of a surrogate pair, which is no character.")
    return None
