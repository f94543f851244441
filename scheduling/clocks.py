"""The one clock of a page: moments and names of cycles in the reader's time zone, which every title names.

A name that is stored (in the journal, in the record of a rerun, in an error of a job) says its time in UTC:
`weather_hourly 2026-11-27 23:00 UTC`. A page says the same in its reader's zone, which is the active one:
`weather_hourly 2026-11-27 18:00 EST`. No database.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from django.utils import timezone

_FORMAT = "%Y-%m-%d %H:%M"
_MINUTE = r"\d{4}-\d\d-\d\d \d\d:\d\d"
_STORED = re.compile(rf"\b({_MINUTE}) UTC\b", re.ASCII)
_SHOWN = re.compile(rf"\b({_MINUTE})(?: ([A-Z]{{2,5}}|[+-]\d{{2,4}}))?(?![\w:])", re.ASCII)
_ENDS_WITH = re.compile(rf" ({_MINUTE})(?: (\S+))?$", re.ASCII)


def minute(at: datetime) -> str:
    """`2026-11-27 18:00` in the active zone, for where the page names the zone."""
    return f"{timezone.localtime(at):{_FORMAT}}"


def titled(at: datetime) -> str:
    """`2026-11-27 18:00 EST` in the active zone, for titles and sentences."""
    return f"{timezone.localtime(at):{_FORMAT} %Z}"


def stored(at: datetime) -> str:
    """`2026-11-27 23:00 UTC`, for names that are stored."""
    return f"{at.astimezone(UTC):{_FORMAT}} UTC"


def by_clock(text: str) -> str:
    """A stored name in the active zone; any other text as it is."""
    return _STORED.sub(lambda found: titled(moment_of(found[1])), text) if " UTC" in text else text


def to_store(text: str) -> str:
    """A name that was read on a page, in the active zone, as it is stored; any other text as it is."""
    return _SHOWN.sub(_in_utc, text)


def without_zone(text: str) -> str:
    """A stored or shown name by the reader's clock, without the zone: `weather_hourly 2026-11-27 18:00`."""
    return _SHOWN.sub(r"\1", by_clock(text))


def parted(name: str) -> tuple[str, str]:
    """The workflow of a stored name, and its cycle time in the active zone ("" when it has none)."""
    found = _ENDS_WITH.search(name)
    return (name[: found.start()], minute(moment_of(found[1]))) if found else (name, "")


def moment_of(text: str) -> datetime:
    """The moment of `2026-11-27 23:00` in UTC."""
    return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)


def _in_utc(found: re.Match[str]) -> str:
    if found[2] == "UTC":
        return found[0]
    try:
        wall = moment_of(found[1])
    except ValueError:
        return found[0]
    # An hour that the clocks repeat is told apart by its zone's name.
    passes = [wall.replace(tzinfo=timezone.get_current_timezone(), fold=fold) for fold in (0, 1)]
    meant = [each for each in passes if found[2] in (None, each.tzname())]
    return stored(meant[0]) if meant else found[0]
