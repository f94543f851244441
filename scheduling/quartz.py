"""Cron expressions of Quartz: recognised, and translated where there is an equivalent.

Quartz has six or seven fields (seconds first, the year last), counts weekdays from 1 = Sunday, and has `?` for
the one of day and weekday that does not matter.
"""

from __future__ import annotations

import re

_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_NEAREST_WEEKDAY = re.compile(r"\d+W", re.IGNORECASE)
_BEFORE_LAST = re.compile(r"L-\d+W?", re.IGNORECASE)
_WEEKDAY = re.compile(r"(?P<first>\w+?)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?(?P<rest>L|#\d)?", re.IGNORECASE)


class Untranslatable(ValueError):
    """The expression means something that has no equivalent; `part` is the piece of it that does."""

    def __init__(self, part: str) -> None:
        self.part = part
        super().__init__(part)


def is_quartz(expression: str) -> bool:
    """Whether only Quartz would read it so: with `?`, a year, the nearest weekday or days before the last."""
    fields = expression.split()
    if len(fields) not in {5, 6, 7}:
        return False
    parts = [part for field in fields for part in field.split(",")]
    return (
        len(fields) == 7
        or "?" in fields
        or any(_NEAREST_WEEKDAY.fullmatch(part) or _BEFORE_LAST.fullmatch(part) for part in parts)
    )


def translated(expression: str) -> str:
    """What a Quartz expression is in five fields, or six with the seconds first.

    Raises Untranslatable.
    """
    fields = expression.split()
    if len(fields) == 7:
        year = fields.pop()
        if year not in {"*", "?"}:
            raise Untranslatable(year)
    # Five fields have `?` from Quartz and lack its seconds.
    second = fields.pop(0) if len(fields) == 6 else "0"
    minute, hour, day, month, weekday = fields
    for part in day.split(","):
        if _NEAREST_WEEKDAY.fullmatch(part) or _BEFORE_LAST.fullmatch(part):
            raise Untranslatable(part)
    days = ",".join(_weekday(part) for part in weekday.split(","))
    clock = [_from_zero(field) for field in (second, minute, hour)]
    found = [*clock, "*" if day == "?" else day, month, days]
    return " ".join(found[1:] if clock[0] == "0" else found)


def _from_zero(field: str) -> str:
    """`0/15` as `*/15`: the same times, and a repetition over a change of the clocks."""
    return f"*{field[1:]}" if field.startswith("0/") else field


def _weekday(part: str) -> str:
    """One part of the field of weekdays, counted from 0 = Sunday."""
    if part in {"?", "*"}:
        return "*"
    if part.upper() == "L":
        return "6"
    found = _WEEKDAY.fullmatch(part)
    if found is None:
        raise Untranslatable(part)
    first, last = (_number(each, part) for each in (found["first"], found["last"] or found["first"]))
    if found["rest"]:
        return f"{first}{found['rest']}"
    if found["step"]:
        # Without an end, a step goes on to Saturday.
        last = last if found["last"] else 6
        return ",".join(map(str, _run(first, last)[:: int(found["step"]) or 1]))
    if not found["last"]:
        return str(first) if part.isdigit() else part
    if first > last:
        return ",".join(map(str, _run(first, last)))
    return f"{first}-{last}" if part[0].isdigit() else part


def _run(first: int, last: int) -> list[int]:
    """The weekdays from one to another, over the end of the week when need be."""
    return [(first + number) % 7 for number in range((last - first) % 7 + 1)]


def _number(name: str, part: str) -> int:
    if name.upper() in _DAYS:
        return _DAYS.index(name.upper())
    if name.isdigit() and 1 <= int(name) <= 7:
        return int(name) - 1
    raise Untranslatable(part)
