"""The demo's Python jobs: what a data team's code looks like here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from statistics import fmean
from typing import Any

from config.demo import flights
from config.demo.flights import DataMissing, Row, number
from config.demo.weather import warehouse
from scheduling.jobs import JobContext, JobFailed, job

WEEKS_CHECKED = 6


@job
def carrier_delays(context: JobContext) -> dict[str, Any]:
    """How late one carrier (the shard's parameter) left and arrived on the data date, by airport."""
    carrier = context.shard_parameter
    rows = [row for row in _flights(context.data_date) if row["carrier"] == carrier]
    day = flights.in_2013(context.data_date)
    context.log.write(f"{_airlines().get(carrier, carrier)}, {day}: {len(rows)} flights\n\n")
    _log_table(
        context,
        ("origin", "flights", "cancelled", "mean delay", "worst"),
        [_delay_row(origin, [row for row in rows if row["origin"] == origin]) for origin in flights.AIRPORTS],
    )
    delays = _known(row["dep_delay"] for row in rows)
    return {
        "carrier": carrier,
        "flights": len(rows),
        "cancelled": len(rows) - len(delays),
        "mean_delay": round(fmean(delays), 1) if delays else None,
    }


@job
def load_flights(context: JobContext) -> dict[str, Any]:
    """Copy the data date's flights into the warehouse; loading a day again replaces it."""
    rows = _flights(context.data_date)
    columns = ("carrier", "flight", "origin", "dest", "sched_dep_time", "dep_delay", "arr_delay", "distance")
    context.logger.info("loading %d flights of %s", len(rows), flights.in_2013(context.data_date))
    with warehouse() as connection:
        # Two loads of a day at once would otherwise both keep their rows.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('load_flights'))")
        replaced = connection.execute("DELETE FROM flights WHERE day = %s", [context.data_date]).rowcount
        with connection.cursor().copy(f"COPY flights (day, {', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(
                    [context.data_date, *(None if row[name] == "NA" else row[name] for name in columns)]
                )
    context.logger.info("done; %d earlier rows of the day were replaced", replaced)
    return {"day": context.data_date.isoformat(), "loaded": len(rows), "replaced": replaced}


@job
def check_weather(context: JobContext) -> dict[str, Any]:
    """Refuse a day whose weather feed lacks more hours than `tolerated_hours`.

    Checks the data date and the same weekday of the five weeks before, one in turn every twenty seconds: the
    feed of 2013 has holes on about half of its days.
    """
    turn = int(context.cycle_time.timestamp()) // 20 % WEEKS_CHECKED
    day = flights.in_2013(context.data_date - timedelta(weeks=turn))
    tolerated = int(context.parameters.get("tolerated_hours", 0))
    context.logger.info("%s: %d weeks before the data date", day, turn)
    reports = {(row["origin"], int(row["hour"])): row for row in _weather(day)}
    lacking = {
        (airport, hour): problem
        for airport in flights.AIRPORTS
        for hour in range(24)
        if (problem := _lacks(reports.get((airport, hour))))
    }
    total = len(flights.AIRPORTS) * 24
    for (airport, hour), problem in lacking.items():
        context.logger.warning("%s %02d:00 %s", airport, hour, problem)
    if len(lacking) > tolerated:
        hours = ", ".join(f"{airport} {hour:02}:00" for airport, hour in list(lacking)[:5])
        more = ", …" if len(lacking) > 5 else ""
        raise JobFailed(
            f"the weather feed of {day} lacks {len(lacking)} of {total} hourly reports ({hours}{more}); "
            f"at most {tolerated} are tolerated"
        )
    return {"day": day.isoformat(), "reports": total - len(lacking), "lacking": len(lacking)}


@job
def worst_day(context: JobContext) -> dict[str, Any]:
    """Find the worst day of the year, slowly: about `seconds`, saying every now and then how far it is."""
    pause = float(context.parameters.get("seconds", 150)) / 365
    worst: tuple[float, date] | None = None
    for number_of_day in range(365):
        day = date(2013, 1, 1) + timedelta(days=number_of_day)
        delays = _known(row["dep_delay"] for row in _flights(day))
        worst = max(filter(None, [worst, (fmean(delays), day)]))
        if number_of_day % 15 == 14:
            context.logger.info(
                "%3d%% up to %s; worst so far %s, %.0f minutes late on average",
                *((number_of_day + 1) * 100 // 365, day, worst[1], worst[0]),
            )
        context.sleep(pause)
    if worst is None:
        raise JobFailed("the year has no flights")
    return {"day": worst[1].isoformat(), "mean_delay": round(worst[0], 1)}


def _lacks(report: Row | None) -> str:
    if report is None:
        return "no report"
    missing = [name for name in ("temp", "wind_speed", "pressure") if number(report[name]) is None]
    return f"no {', '.join(missing)}" if missing else ""


def _flights(day: date) -> list[Row]:
    try:
        return flights.flights_of(day)
    except DataMissing as missing:
        raise JobFailed(str(missing)) from missing


def _weather(day: date) -> list[Row]:
    try:
        return flights.weather_of(day)
    except DataMissing as missing:
        raise JobFailed(str(missing)) from missing


def _airlines() -> dict[str, str]:
    try:
        return flights.airlines()
    except DataMissing as missing:
        raise JobFailed(str(missing)) from missing


def _known(texts: Iterable[str]) -> list[float]:
    return [value for value in map(number, texts) if value is not None]


def _delay_row(origin: str, rows: Sequence[Row]) -> tuple[object, ...]:
    delays = _known(row["dep_delay"] for row in rows)
    mean, worst = (f"{fmean(delays):.1f} min", f"{max(delays):.0f} min") if delays else ("–", "–")
    return origin, len(rows), len(rows) - len(delays), mean, worst


def _log_table(context: JobContext, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        context.log.write("  ".join(cells) + "\n")
