"""What a single field of a definition may hold: each rule turns what a person gave into what is stored.

A rule raises Mistake, whose text says what is wrong and what to write instead.
"""

from __future__ import annotations

import functools
import math
import re
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from django.utils import timezone
from django.utils.translation import gettext as _

from scheduling import parameters as job_parameters
from scheduling import quartz

MOST_SHARDS = 10_000
# Deeper JSON is a mistake, or an attack on whoever walks it.
_DEEPEST = 50
_LONGEST_TEXT = 1_000_000
# Names of cron(8) for expressions; its @reboot has no time.
NAMED_CRONS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Mistake(ValueError):
    """One field is wrong; the text says how."""


# --- what messages say -------------------------------------------------------------------------------


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


def sentence(message: str) -> str:
    """A message as a sentence."""
    message = message[:1].upper() + message[1:]
    return message if message.endswith((".", "?")) else f"{message}."


def not_among(value: object, allowed: Iterable[str]) -> str:
    """What to say of a value that is not one of the `allowed`, with the nearest that is."""
    allowed = list(allowed)
    message = _("%(value)s is not one of %(allowed)s.") % {"value": shown(value), "allowed": ", ".join(allowed)}
    close = get_close_matches(str(value), allowed, n=1)
    return message + (_(" Did you mean “%(close)s”?") % {"close": close[0]} if close else "")


# --- rules -------------------------------------------------------------------------------------------


def choice(choices: Any) -> Callable[[Any], str]:
    """One of the values of `choices`."""

    def rule(value: Any) -> str:
        if not isinstance(value, str) or value not in choices.values:
            raise Mistake(not_among(value, choices.values))
        return str(value)

    return rule


def whole(least: int, most: int) -> Callable[[Any], int]:
    """A whole number between the two."""

    def rule(value: Any) -> int:
        # True is an int in Python, and never a number of anything.
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Mistake(
                _("%(value)s is not a whole number from %(least)d to %(most)d.")
                % {"value": shown(value), "least": least, "most": most}
            )
        return value

    return rule


def seconds(least: int) -> Callable[[Any], int]:
    """Seconds, or a duration such as `10m`, not shorter than `least`."""

    def rule(value: Any) -> int:
        try:
            found = job_parameters.parse_duration(value)
        except ValueError as error:
            raise Mistake(sentence(str(error))) from None
        if found < least:
            raise Mistake(
                _("%(value)s is too short; the least is %(least)ds.") % {"value": shown(value), "least": least}
            )
        return found

    return rule


def optional(rule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What `rule` allows, or None."""
    return lambda value: None if value is None else rule(value)


def zone(value: Any) -> str:
    """The name of a time zone."""
    known = _zones()
    if isinstance(value, str) and value in known:
        return value
    close = get_close_matches(str(value), known, n=1)
    raise Mistake(
        _("%(value)s is not a time zone; write one such as UTC or America/New_York.") % {"value": shown(value)}
        + (_(" Did you mean “%(close)s”?") % {"close": close[0]} if close else "")
    )


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"})


def cron(value: Any, zone: str) -> str:
    """A cron expression that comes due some day, with single spaces; empty for none.

    A name such as `@daily` is stored as the expression that it stands for.
    """
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or len(value) > 120:
        raise Mistake(
            _("%(value)s is not a cron expression (text of at most 120 letters).") % {"value": shown(value)}
        )
    expression = " ".join(value.split())
    if expression.startswith("@"):
        expression = _named_cron(expression)
    if quartz.is_quartz(expression):
        raise Mistake(_of_quartz(expression))
    try:
        coming = _coming(expression, zone)
    except ValueError as error:
        raise Mistake(
            _(
                "%(value)s is not a cron expression: %(error)s. "
                "Write minute, hour, day, month and weekday, e.g. 5 0 * * *."
            )
            % {"value": shown(value), "error": str(error).lower() or _("it cannot be read")}
        ) from None
    try:
        next(coming)
    except StopIteration:
        raise Mistake(_("%(value)s never comes due: no such date exists.") % {"value": shown(value)}) from None
    return expression


def _coming(expression: str, zone: str) -> CronSim:
    """Raises ValueError when the expression cannot be read."""
    try:
        return CronSim(expression, timezone.now().astimezone(ZoneInfo(zone)))
    except (CronSimError, AssertionError) as error:
        raise ValueError(str(error)) from None


def _named_cron(name: str) -> str:
    if found := NAMED_CRONS.get(name.lower()):
        return found
    raise Mistake(not_among(name, NAMED_CRONS))


def _of_quartz(expression: str) -> str:
    """What to say of an expression of Quartz: how it is written here, or why it cannot be."""
    named = {"value": shown(expression)}
    try:
        here = quartz.translated(expression)
        _coming(here, "UTC")
    except quartz.Untranslatable as wrong:
        return _(
            "%(value)s is Quartz syntax, and %(part)s has no equivalent here. "
            "Write minute, hour, day, month and weekday (0 = Sunday), e.g. 5 0 * * *."
        ) % {**named, "part": shown(wrong.part)}
    except ValueError:
        return (
            _(
                "%(value)s is Quartz syntax. "
                "Write minute, hour, day, month and weekday (0 = Sunday), e.g. 5 0 * * *."
            )
            % named
        )
    return _("%(value)s is Quartz syntax; write %(here)s.") % {**named, "here": here}


def shards(value: Any) -> list[str]:
    """The parameters of shards by index: a list, a map, `0=a,1=b`, or a number of shards without parameters."""
    if value is None:
        return []
    if (number := _number_of_shards(value)) is not None:
        # Not built before its size is known to be allowed.
        found: list[Any] = [""] * whole(1, MOST_SHARDS)(number)
    elif isinstance(value, str):
        pairs = [_pair(piece) for piece in value.split(",")] if value.strip() else []
        found = _by_index(pairs)
    elif isinstance(value, Mapping):
        found = _by_index([(_index(index), parameter) for index, parameter in value.items()])
    elif isinstance(value, list | tuple):
        found = list(value)
    else:
        raise Mistake(
            _("%(value)s is not a list of shards; write {0: a, 1: b}, or their number.")
            % {"value": shown(value)}
        )
    if len(found) > MOST_SHARDS:
        raise Mistake(
            _("It has %(count)d shards, and a task has at most %(most)d.")
            % {"count": len(found), "most": MOST_SHARDS}
        )
    return [_shard(parameter, index) for index, parameter in enumerate(found)]


def _number_of_shards(value: Any) -> int | None:
    """The number that `value` is, also as text; None when it is something else."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value, re.ASCII):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _pair(piece: str) -> tuple[int, str]:
    index, equals, parameter = piece.partition("=")
    if not equals:
        raise Mistake(_("%(piece)s is not index=parameter; write 0=a,1=b.") % {"piece": shown(piece.strip())})
    return _index(index.strip()), parameter.strip()


def _index(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise Mistake(_("%(value)s is not a shard index; they are 0, 1, 2…") % {"value": shown(value)})


def _by_index(pairs: list[tuple[int, Any]]) -> list[Any]:
    found: dict[int, Any] = {}
    for index, parameter in pairs:
        if index in found:
            raise Mistake(_("It has shard %(index)d twice.") % {"index": index})
        found[index] = parameter
    if found and max(found) >= len(found):
        missing = next(index for index in count() if index not in found)
        raise Mistake(
            _("It has no shard %(missing)d; the indexes run from 0 to %(last)d without a gap.")
            % {"missing": missing, "last": max(found)}
        )
    return [found[index] for index in range(len(found))]


def _shard(parameter: Any, index: int) -> str:
    if isinstance(parameter, bool) or not isinstance(parameter, str | int | float):
        raise Mistake(
            _("Shard %(index)d has the parameter %(value)s, which is not a text.")
            % {"index": index, "value": shown(parameter)}
        )
    text = str(parameter)
    if problem := _unstorable(text):
        raise Mistake(_("Shard %(index)d: %(problem)s") % {"index": index, "problem": problem})
    if len(text) > 1000:
        raise Mistake(_("Shard %(index)d has a parameter of more than 1000 letters.") % {"index": index})
    return text


def parameters(given: Any, errors: dict[str, str]) -> dict[str, Any]:
    """Parameters of a job; what is wrong is put into `errors`, its fields `parameters.<name>`."""
    if not isinstance(given, Mapping):
        errors["parameters"] = _("%(value)s is not a map of names to values.") % {"value": shown(given)}
        return {}
    cleaned = {name: json(value, f"parameters.{name}", errors) for name, value in given.items()}
    for name, message in job_parameters.check(cleaned).items():
        errors.setdefault(f"parameters.{name}", sentence(message))
    return cleaned


def json(value: Any, field: str, errors: dict[str, str]) -> Any:
    """`value` as PostgreSQL gives it back from a jsonb column; what it cannot keep is put into `errors`."""
    try:
        return _storable(value, 0)
    except Mistake as mistake:
        errors[field] = str(mistake)
        return None


def _storable(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise Mistake(_("It is nested more than %(depth)d deep.") % {"depth": _DEEPEST})
    match value:
        case None | bool():
            return value
        case str():
            if problem := _unstorable(value):
                raise Mistake(problem)
            return str(value)
        case int() | float():
            return _number(value)
        case Mapping():
            if wrong := [key for key in value if not isinstance(key, str) or _unstorable(key)]:
                raise Mistake(_("It has the key %(key)s, and keys are texts.") % {"key": shown(wrong[0])})
            return {str(key): _storable(inner, depth + 1) for key, inner in value.items()}
        case list() | tuple():
            return [_storable(inner, depth + 1) for inner in value]
    raise Mistake(
        _("%(value)s is a %(type)s; write text, a number, true, false, a list or a map.")
        % {"value": shown(value), "type": type(value).__name__}
    )


def _number(value: int | float) -> int | float:
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise Mistake(_("It holds a number that JSON cannot: write it as text."))
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
