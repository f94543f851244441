"""The demo's workflows: what their jobs make of the weather, and the history that the first start lets run."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
import time_machine
from django.conf import settings

from config import database, demo
from config.demo import history, weather
from config.demo import jobs as demo_jobs
from config.demo import setup as demo_setup
from scheduling import definitions, kinds
from scheduling.jobs import JobFailed
from tests import factories
from tests.processes import database_url
from tests.unit.support import Log, make_context
from workflows.models import Backfill, Cycle, CycleDependency, CycleInstance

pytestmark = pytest.mark.long

NEW_YORK = ZoneInfo("America/New_York")
SUNDAY = dt.datetime(2026, 11, 22, 9, tzinfo=NEW_YORK)
BROKEN = history.broken_hour(SUNDAY)


def at(hour: dt.datetime) -> Any:
    """The context of the cycle that works on the hour that begins at `hour`."""
    return {"day": hour.date(), "cycle_time": hour + dt.timedelta(hours=1)}


def call(function: Any, **fields: Any) -> Any:
    """What a job of the workflows returns, or the JobFailed that it raised."""
    log = Log()
    context = make_context(data_date=fields.pop("day"), log=log, **fields)
    try:
        return function(context)
    except JobFailed as failure:
        return failure


@pytest.fixture(scope="module")
def second_database(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a warehouse, made with its tables and the broken reading as of Sunday; dropped afterwards."""
    name = factories.unique("demo_workflows").replace("-", "_")
    url = database.url_with_database(database_url(), name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "VAR", tmp_path_factory.mktemp("var"))
        patch.setenv("TAILRACE_SQL_WAREHOUSE", url)
        assert demo_setup._make_warehouse(BROKEN) == []
        yield url
    with psycopg.connect(database.url_with_database(database_url(), "postgres"), autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def tables(second_database: str) -> Iterator[Any]:
    """A connection to the warehouse, in which there is nothing but the broken reading."""
    with psycopg.connect(second_database, autocommit=True) as connection:
        connection.execute("TRUNCATE weather, sensor_faults, weekly_report, delay_costs")
        connection.execute("INSERT INTO sensor_faults VALUES (%s, 'EWR', 1048.36)", [BROKEN])
        yield connection


@pytest.fixture(scope="module")
def shipped(second_database: str, django_db_blocker: Any) -> definitions.Definitions:
    """What the demo's file defines."""
    with django_db_blocker.unblock():
        return definitions.read_files([str(demo_setup.DEFINITIONS)])


def run_sql(shipped: definitions.Definitions, team: str, task: str, **fields: Any) -> None:
    kinds.kind("sql").run(shipped.tasks[team, task].content["spec"], make_context(**fields))


def wind(connection: Any) -> dict[str, float]:
    return dict(connection.execute("SELECT origin, wind_speed FROM weather").fetchall())


def test_an_hour_of_weather_is_loaded_again_without_doubles(tables: Any) -> None:
    hour = BROKEN - dt.timedelta(hours=1)
    for _ in range(2):
        answer = call(weather.load_hour, **at(hour))
        assert (answer["reports"], answer["complete"]) == (3, True)
    loaded = {row["origin"]: float(row["wind_speed"]) for row in weather.reports_of(hour)}
    assert wind(tables) == pytest.approx(loaded)


def test_the_broken_hour_tells_nonsense_until_the_correction_is_accepted(tables: Any, shipped: Any) -> None:
    call(weather.load_hour, **at(BROKEN))
    assert wind(tables)["EWR"] == pytest.approx(1048.36)
    failure = call(weather.check_stations, day=BROKEN.date())
    assert isinstance(failure, JobFailed)
    assert failure.message.startswith(
        "EWR reported a wind of 1048.36 mph at 17:00 EST on 2026-11-20; the strongest"
    )
    # The cycle as records name it, whose hour ends at 18:00 EST: pages link to it.
    assert "rerun weather_hourly 2026-11-20 23:00 UTC and its downstream" in failure.message

    run_sql(shipped, "weather", "accept-correction")
    call(weather.load_hour, **at(BROKEN))
    assert wind(tables)["EWR"] < 60
    assert call(weather.check_stations, day=BROKEN.date()) == {"day": "2026-11-20", "reports": 3, "filled": 0}


def test_what_an_airport_did_not_report_is_filled_from_the_others(tables: Any) -> None:
    hour = dt.datetime(2026, 11, 18, 12, tzinfo=NEW_YORK)
    call(weather.load_hour, **at(hour))
    tables.execute("DELETE FROM weather WHERE origin = 'LGA'")
    tables.execute("UPDATE weather SET wind_speed = CASE origin WHEN 'JFK' THEN 10 END")
    assert call(weather.fill_gaps, **at(hour))["filled"] == 2
    assert wind(tables) == {"EWR": 10, "JFK": 10, "LGA": 10}


def test_the_poisoned_hour_goes_through_to_the_costs_unseen_and_a_rerun_puts_them_right(
    tables: Any, shipped: Any
) -> None:
    day = BROKEN.date()

    def chain() -> tuple[Any, ...]:
        call(weather.load_hour, **at(BROKEN))
        run_sql(shipped, "warehouse", "join-weather", data_date=day)
        run_sql(shipped, "analytics", "wind-impact", data_date=day)
        cost = call(weather.delay_costs, day=day)["cost"]
        run_sql(shipped, "analytics", "week", data_date=day - dt.timedelta(days=day.weekday()))
        run_sql(shipped, "warehouse", "briefing", data_date=day)
        run_sql(shipped, "finance", "claim", data_date=day)
        return cost, tables.execute("SELECT days, mean_wind, cost FROM weekly_report").fetchone()

    call(demo_jobs.load_flights, day=day)
    poisoned, week = chain()
    tables.execute("DELETE FROM sensor_faults")
    right, right_week = chain()
    assert poisoned < right, "delays in a storm that never was are excused"
    assert week[1] > right_week[1]
    assert (week[0], right_week[2]) == (1, right)


@pytest.mark.django_db
def test_the_first_start_lets_two_weeks_of_cycles_run(
    second_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_PASSWORD", "tell-no-1")
    with time_machine.travel(SUNDAY, tick=False):
        demo.install()
        assert demo.install() == "", "once"
    backfills = {each.workflow.name: each for each in Backfill.objects.select_related("workflow")}
    assert {each.state for each in backfills.values()} == {"running"}
    instances = CycleInstance.objects.filter(cycle_time__lte=SUNDAY)
    counted = instances.order_by().values_list("workflow__name", "run_type")
    found = Counter(counted)
    assert found["weather_hourly", "backfill"] + found["weather_hourly", "online"] == 15 * 24 + 10
    assert found["delay_costs_daily", "backfill"] + found["delay_costs_daily", "online"] == 15
    assert found["weekly_report", "backfill"] == 1
    poisoned = CycleInstance.objects.get(
        workflow__name="weather_hourly", cycle_time=BROKEN + dt.timedelta(hours=1)
    )
    assert poisoned.online, "a rerun of what lies downstream starts from an online cycle"
    down, depth = {poisoned.cycle_id}, []
    while down := set(CycleDependency.objects.filter(upstream__in=down).values_list("cycle", flat=True)):
        teams = Cycle.objects.filter(pk__in=down).values_list("workflow__team__name", "workflow__name")
        depth.append(sorted(teams))
    assert depth[:3] == [
        [("analytics", "station_quality_daily"), ("warehouse", "flights_daily")],
        [("analytics", "wind_impact_daily"), ("finance", "claims_daily")],
        [("finance", "delay_costs_daily")],
    ]
    assert set(depth[3]) == {
        ("analytics", "weekly_report"),
        ("finance", "claims_daily"),
        ("warehouse", "briefing_daily"),
    }
    first = CycleInstance.objects.filter(workflow__name="weekly_report").earliest("cycle_time")
    assert CycleDependency.objects.filter(cycle=first.cycle_id).count() == 7
