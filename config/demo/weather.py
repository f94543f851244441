"""The jobs of the demo's workflows: the weather of each hour, and what is made of it further down.

Two days before the first start the wind sensor of one airport told 1048 mph for an hour – a reading that really
stands in the data of 2013. Nothing refuses it where it comes in: the day's figures, their costs and the week's
report carry it on, and only the team that checks stations fails loudly. The task accept-correction makes the
feed right; what lies downstream is then for a rerun.
"""

from __future__ import annotations

import datetime as dt
import os
from contextlib import AbstractContextManager
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from config.demo import flights
from config.demo.flights import DataMissing, Row, number
from scheduling.jobs import JobContext, JobFailed, job

NEW_YORK = ZoneInfo("America/New_York")
BROKEN_WIND = 1048.36
# The strongest gust ever measured on the ground was 253 mph; who reports more has a broken sensor.
STRONGEST_WIND = 253


def warehouse() -> AbstractContextManager[psycopg.Connection[Any]]:
    """A transaction on the warehouse, committed at its end."""
    url = os.environ.get("TAILRACE_SQL_WAREHOUSE")
    if not url:
        raise JobFailed(
            "TAILRACE_SQL_WAREHOUSE is not set on this node: it is the URL of the warehouse database"
        )
    return psycopg.connect(url)


def reports_of(hour: dt.datetime) -> list[Row]:
    """What the three airports reported for the hour that begins at `hour`."""
    local = hour.astimezone(NEW_YORK)
    try:
        return [row for row in flights.weather_of(local.date()) if int(row["hour"]) == local.hour]
    except DataMissing as missing:
        raise JobFailed(str(missing)) from missing


@job
def load_hour(context: JobContext) -> dict[str, Any]:
    """Bring the reports of the hour before the cycle time into the warehouse; again replaces them."""
    hour = context.cycle_time - dt.timedelta(hours=1)
    reports = reports_of(hour)
    with warehouse() as connection:
        faults = dict(
            connection.execute(
                "SELECT origin, wind_speed FROM sensor_faults WHERE hour = %s", [hour]
            ).fetchall()
        )
        connection.execute("DELETE FROM weather WHERE hour = %s", [hour])
        complete = 0
        for report in reports:
            origin = report["origin"]
            wind = faults.get(origin, number(report["wind_speed"]))
            values = [hour, origin, number(report["temp"]), wind, number(report["precip"])]
            connection.execute("INSERT INTO weather VALUES (%s, %s, %s, %s, %s)", values)
            complete += wind is not None
            context.logger.info("%s wind %s mph", origin, "unknown" if wind is None else f"{wind:.1f}")
    return {"hour": hour.isoformat(), "reports": len(reports), "complete": complete == len(flights.AIRPORTS)}


@job
def fill_gaps(context: JobContext) -> dict[str, Any]:
    """Give airports that reported no wind for the hour the mean of those that did."""
    hour = context.cycle_time - dt.timedelta(hours=1)
    with warehouse() as connection:
        filled = connection.execute(
            "INSERT INTO weather (hour, origin, wind_speed, filled)"
            " SELECT %(hour)s, origin, mean.wind, true FROM unnest(%(airports)s::text[]) origin,"
            " (SELECT avg(wind_speed) wind FROM weather WHERE hour = %(hour)s AND NOT filled) mean"
            " WHERE mean.wind IS NOT NULL"
            " ON CONFLICT (hour, origin) DO UPDATE SET wind_speed = excluded.wind_speed, filled = true"
            " WHERE weather.wind_speed IS NULL",
            {"hour": hour, "airports": list(flights.AIRPORTS)},
        ).rowcount
    context.logger.info("%d of %d airports filled", filled, len(flights.AIRPORTS))
    return {"hour": hour.isoformat(), "filled": filled}


@job
def check_stations(context: JobContext) -> dict[str, Any]:
    """Refuse a day on which a station reported a wind that nobody ever measured."""
    with warehouse() as connection:
        reports = connection.execute(
            "SELECT hour, origin, wind_speed, filled FROM weather"
            " WHERE (hour AT TIME ZONE 'America/New_York')::date = %s ORDER BY hour, origin",
            [context.data_date],
        ).fetchall()
        broken = [row for row in reports if row[2] is not None and row[2] > STRONGEST_WIND]
        for hour, origin, wind, _filled in broken:
            context.logger.warning("%s at %s: %.2f mph", origin, hour.astimezone(NEW_YORK), wind)
        if broken:
            hour, origin, wind, _filled = broken[0]
            raise JobFailed(
                f"{origin} reported a wind of {wind:.2f} mph at {hour.astimezone(NEW_YORK):%H:%M %Z} on "
                f"{context.data_date}; the strongest ever measured is {STRONGEST_WIND}. Its sensor is broken, "
                f"and whatever used the hour is wrong: run accept-correction, then rerun weather_hourly "
                # As records name a cycle, which pages make a link by their reader's clock.
                f"{hour.astimezone(dt.UTC) + dt.timedelta(hours=1):%Y-%m-%d %H:%M} UTC and its downstream"
            )
        filled = sum(row[3] for row in reports)
        connection.execute(
            "INSERT INTO station_quality VALUES (%s, %s, %s)"
            " ON CONFLICT (day) DO UPDATE SET reports = excluded.reports, filled = excluded.filled",
            [context.data_date, len(reports), filled],
        )
    return {"day": context.data_date.isoformat(), "reports": len(reports), "filled": filled}


@job
def delay_costs(context: JobContext) -> dict[str, Any]:
    """What the day's delays cost: each costs `per_flight`, but for those that the wind excuses."""
    per_flight = float(context.parameters.get("per_flight", 250))
    budget = float(context.parameters.get("budget", 40_000))
    with warehouse() as connection:
        delayed, excused = connection.execute(
            "SELECT coalesce(sum(delayed), 0), coalesce(sum(delayed_by_wind), 0)"
            " FROM wind_impact WHERE day = %s",
            [context.data_date],
        ).fetchone() or (0, 0)
        cost = (delayed - excused) * per_flight
        connection.execute(
            "INSERT INTO delay_costs (day, owed, excused, cost)"
            " VALUES (%(day)s, %(owed)s, %(excused)s, %(cost)s)"
            " ON CONFLICT (day) DO UPDATE SET owed = excluded.owed, excused = excluded.excused,"
            " cost = excluded.cost, booked = ''",
            {"day": context.data_date, "owed": delayed - excused, "excused": excused, "cost": cost},
        )
    context.logger.info("%d delays, %d excused by wind: $%s", delayed, excused, f"{cost:,.2f}")
    return {"day": context.data_date.isoformat(), "cost": cost, "over_budget": cost > budget}
