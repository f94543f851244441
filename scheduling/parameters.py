"""What a job's parameters may say: `${data_date-1d:%Y%m%d}` and the like; and durations such as `1h30m`.

A string value may hold expressions:

| written | gives, for the cycle 2026-03-02 01:00 UTC of a daily schedule |
| --- | --- |
| `${batch_id}` | `815` |
| `${data_date}` | `2026-03-01` |
| `${data_date-1w:%Y%m%d}` | `20260222` |
| `${cycle_time+2h:%Y-%m-%dT%H}` | `2026-03-02T03` |
| `$${HOME}` | `${HOME}`: two dollars are one, literally |

Offsets are in m(inutes), h(ours), d(ays) and w(eeks), and may follow one another (`-1d+6h`). Days and
weeks move the calendar date and keep the wall clock; minutes and hours are elapsed time, so that
`+24h` and `+1d` differ on the two days a year when clocks are changed. This module imports no Django.
"""

from __future__ import annotations

import datetime as dt
import difflib
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

BUILTINS = ("cycle_time", "data_date", "batch_id", "shard_index", "shard_count", "shard_param")
"""Names that every job knows; a parameter of a task's own cannot take one."""

_DATED = ("cycle_time", "data_date")
_TOKEN = re.compile(r"\$\$|\$\{(?P<body>[^{}]*)\}|(?P<open>\$\{)")
_BODY = re.compile(
    r"\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*(?P<offset>(?:[+-]\s*\d+\s*[A-Za-z]+\s*)*)(?::(?P<format>.*))?",
    re.DOTALL,
)
_OFFSET = re.compile(r"([+-])\s*(\d+)\s*([A-Za-z]+)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIRECTIVES = frozenset("aAbBdDeFfGHIjmMpRSTuUVwWyYzZ%")
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

type Known = Callable[[str], bool]
type Value = Callable[[str], Any]


class ParameterError(ValueError):
    """A parameter cannot be expanded; the message names the parameter, the expression and what is known."""


def builtins(
    *,
    cycle_time: dt.datetime,
    data_date: dt.date,
    batch_id: int,
    shard_index: int = 0,
    shard_count: int = 1,
    shard_param: str = "",
) -> dict[str, Any]:
    """The built-in parameters of one execution, by name, as `expand` takes them."""
    return {
        "cycle_time": cycle_time,
        "data_date": data_date,
        "batch_id": batch_id,
        "shard_index": shard_index,
        "shard_count": shard_count,
        "shard_param": shard_param,
    }


def expand(parameters: Mapping[str, Any], builtins: Mapping[str, Any]) -> dict[str, Any]:
    """`parameters` with every expression in every string replaced, also inside lists and maps.

    `builtins` are the values that expressions may name. Raises ParameterError for the first mistake.
    """
    return {name: _walk(value, name, builtins) for name, value in parameters.items()}


def expand_text(text: str, values: Mapping[str, Any], *, where: str, quote: Callable[[str], str] = str) -> str:
    """`text` with its expressions replaced by `values`, each passed through `quote`.

    `where` names the text in an error. Raises ParameterError.
    """
    if "$" not in text:
        return text

    def replaced(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name, days, seconds, form = _parsed(match, where, values)
        return quote(_rendered(values[name], days, seconds, form, where=where, written=match[0]))

    return _TOKEN.sub(replaced, text)


def check(parameters: Mapping[str, Any], also_known: Collection[str] = ()) -> dict[str, str]:
    """What is wrong with `parameters` as a task or a trigger gives them: {parameter: message}, or empty.

    `also_known` are names beside the built-in ones that expressions may use.
    """
    errors: dict[str, str] = {}
    spelled: dict[str, str] = {}
    known = dict.fromkeys((*BUILTINS, *also_known))
    for name, value in parameters.items():
        twin = spelled.setdefault(str(name).upper(), str(name))
        try:
            _check_name(name, twin)
            _check_value(value, name, known)
        except ParameterError as error:
            errors[str(name)] = str(error)
    return errors


def check_text(text: str, *, where: str, known: Collection[str] | None = None) -> None:
    """Raise ParameterError unless the expressions of `text` are well formed.

    Their names must be among `known`; None leaves names to be looked up when the job runs.
    """
    names = None if known is None else dict.fromkeys(known)
    for match in _TOKEN.finditer(text):
        if match[0] != "$$":
            _parsed(match, where, names)


def _check_name(name: object, twin: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ParameterError(
            f"parameter name {name!r} must be letters, digits and underscores, and begin with no digit"
        )
    if name in BUILTINS:
        raise ParameterError(f"parameter {name!r} is built in and cannot be set; choose another name")
    if twin != name:
        raise ParameterError(
            f"parameters {twin!r} and {name!r} differ only in case; jobs see both as PARAM_{name.upper()}"
        )


def _check_value(value: object, name: str, known: Mapping[str, Any]) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise ParameterError(f"parameter {name!r} holds a NUL character, which no process can be given")
        check_text(value, where=f"parameter {name!r}", known=known)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _check_value(inner, f"{name}.{key}", known)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_value(inner, f"{name}[{index}]", known)
    elif value is not None and not isinstance(value, bool | int | float):
        raise ParameterError(
            f"parameter {name!r} is a {type(value).__name__}; write a text, number, true, false, list or map"
        )


def _walk(value: Any, name: str, values: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return expand_text(value, values, where=f"parameter {name!r}")
    if isinstance(value, Mapping):
        return {key: _walk(inner, f"{name}.{key}", values) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(inner, f"{name}[{index}]", values) for index, inner in enumerate(value)]
    return value


def _parsed(
    match: re.Match[str], where: str, known: Mapping[str, Any] | None
) -> tuple[str, int, int, str | None]:
    """Name, offset in days, offset in seconds and format of one `${…}`; raises ParameterError."""
    written = match[0]
    if match["open"]:
        raise ParameterError(
            f"{where}: '${{' is never closed; write '}}' after the name, or '$${{' for a literal '${{'"
        )
    body = _BODY.fullmatch(match["body"])
    if body is None:
        raise ParameterError(f"{where}: {written!r} is not understood; write e.g. ${{data_date-1d:%Y%m%d}}")
    name, form = body["name"], body["format"]
    if known is not None and name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ParameterError(
            f"{where}: {written!r} names {name!r}, which is not known; known are {', '.join(known)}.{hint}"
        )
    days, seconds = _offset(name, body["offset"] or "", where, written)
    if form is not None:
        _check_format(name, form, where, written)
    return name, days, seconds, form


def _offset(name: str, text: str, where: str, written: str) -> tuple[int, int]:
    days = seconds = 0
    for sign, digits, unit in _OFFSET.findall(text):
        if unit not in _UNITS:
            raise ParameterError(f"{where}: {written!r} has the offset unit {unit!r}; write m, h, d or w")
        if name not in _DATED:
            raise ParameterError(
                f"{where}: {written!r} moves {name!r}, which is no time; only {' and '.join(_DATED)} are"
            )
        if name == "data_date" and unit in "mh":
            raise ParameterError(
                f"{where}: {written!r} moves a date by less than a day; write d or w, or use cycle_time"
            )
        count = int(sign + digits[:12])
        if unit in "dw":
            days += count * (7 if unit == "w" else 1)
        else:
            seconds += count * _UNITS[unit]
    return days, seconds


def _check_format(name: str, form: str, where: str, written: str) -> None:
    if name not in _DATED:
        raise ParameterError(
            f"{where}: {written!r} formats {name!r}, which is no time; only {' and '.join(_DATED)} are"
        )
    for directive in re.findall(r"%(.?)", form, re.DOTALL):
        if directive not in _DIRECTIVES or not directive:
            raise ParameterError(
                f"{where}: {written!r} has the directive '%{directive}', which strftime does not know"
            )
    if not form:
        raise ParameterError(f"{where}: {written!r} has a colon and no format after it; write e.g. :%Y%m%d")


def _rendered(value: Any, days: int, seconds: int, form: str | None, *, where: str, written: str) -> str:
    try:
        if days:
            value = value + dt.timedelta(days=days)
        if seconds:
            # Elapsed time: adding to a local time directly would ignore a change of the clocks between.
            value = (value.astimezone(dt.UTC) + dt.timedelta(seconds=seconds)).astimezone(value.tzinfo)
    except OverflowError as error:
        raise ParameterError(f"{where}: {written!r} leaves the years 1 to 9999") from error
    if form is not None:
        return str(value.strftime(form))
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value)


def written(value: Any) -> str:
    """`value` as a page shows it: JSON, and a text as it is unless that could be read as another value."""
    if isinstance(value, str) and value == value.strip() and not _reads_as_json(value):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _reads_as_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return not text
    return True


_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SIZES = (7 * 86400, 86400, 3600, 60, 1)
_LONGEST = 10 * 365 * 86400


def parse_duration(value: str | int) -> int:
    """Seconds of `10m`, `1h30m`, `2d`, `45s`, or of a plain number of seconds (text or int).

    Raises ValueError, with what to write instead, for anything else, negative ones, and more than ten years.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is no duration; write e.g. 45s, 10m, 1h30m, 2d, or a number of seconds")
    text = str(value).strip()
    if re.fullmatch(r"-\s*\d.*", text):
        raise ValueError(f"{value!r} is negative; a duration is 0 or more")
    match = _DURATION.fullmatch(text.lower().replace(" ", ""))
    if re.fullmatch(r"[0-9]+", text):
        seconds = int(text[:20])
    elif match and text and text.isascii():
        seconds = sum(
            int(count[:20]) * size for count, size in zip(match.groups(), _SIZES, strict=True) if count
        )
    else:
        raise ValueError(f"{value!r} is no duration; write e.g. 45s, 10m, 1h30m, 2d, or a number of seconds")
    if seconds > _LONGEST:
        raise ValueError(f"{value!r} is longer than ten years")
    return seconds


def format_duration(seconds: int) -> str:
    """The shortest text that `parse_duration` reads as `seconds`: 600 gives `10m`, 5400 `1h30m`, 0 `0s`."""
    if seconds < 0:
        raise ValueError(f"{seconds} is negative; a duration is 0 or more")
    parts = []
    for size, unit in zip(_SIZES[1:], "dhms", strict=True):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
