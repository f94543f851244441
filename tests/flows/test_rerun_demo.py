"""The demo's poisoned hour, in the browser and with everything really running: corrected at its source, its
downstream of four teams planned, terminated midway, begun anew, paused, failed, resumed – until all is right.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db.models import Q
from django.utils import timezone
from playwright.sync_api import Page, expect

from config import database, demo
from config.demo import history, weather
from config.demo import jobs as demo_jobs
from config.demo import setup as demo_setup
from reruns.models import Rerun, RerunItem
from scheduling import definitions, kinds
from scheduling.models import Batch, Task
from tests import factories
from tests.flows.pages import loaded, sign_in
from tests.processes import database_url, eventually, manage
from tests.unit.support import Log, make_context
from workflows import services
from workflows.models import Cycle, CycleInstance, Workflow

pytestmark = pytest.mark.django_db(transaction=True)

LONG = 60_000
GROUPS = {"feeds": "weather/feeds", "reports": "analytics/reports", "ledger": "finance/ledger"}
# What the hour went into, with the columns that it decides.
TABLES = {
    "weather": "SELECT hour, origin, wind_speed FROM weather WHERE hour >= %(since)s AND hour < %(until)s",
    "flight_weather": "SELECT origin, hour, delayed, wind_speed FROM flight_weather WHERE day = %(day)s",
    "wind_impact": "SELECT origin, mean_wind, delayed_by_wind FROM wind_impact WHERE day = %(day)s",
    "delay_costs": "SELECT owed, excused, cost FROM delay_costs WHERE day = %(day)s",
    "station_quality": "SELECT reports, filled FROM station_quality WHERE day = %(day)s",
}


def from_the_broken_day(now: dt.datetime) -> None:
    """As `history.begin`, with the hours of the broken day and the days that follow it."""
    for workflow in Workflow.objects.order_by("pk"):
        days_ago = 2 if workflow.name == "weather_hourly" else 1
        workflow.starts_at = history._midnight(now, days_ago)
        workflow.generated_until = workflow.starts_at - dt.timedelta(microseconds=1)
        workflow.save(update_fields=["starts_at", "generated_until"])
    for workflow in Workflow.objects.order_by("pk"):
        services.generate(workflow.pk, now)
    # What runs beside the workflows would only make this slow.
    Task.objects.exclude(revision__trigger="workflow").exclude(name="accept-correction").update(enabled=False)


@pytest.fixture
def warehouses(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The demo's second database, and an empty one for a clean run."""
    names = [factories.unique("repaired").replace("-", "_"), factories.unique("clean").replace("-", "_")]
    urls = [database.url_with_database(database_url(), name) for name in names]
    monkeypatch.setenv("TAILRACE_SQL_WAREHOUSE", urls[0])
    monkeypatch.setenv("DEMO_PASSWORD", "secret")
    monkeypatch.setattr(history, "begin", from_the_broken_day)
    yield urls[0], urls[1]
    with psycopg.connect(database.url_with_database(database_url(), "postgres"), autocommit=True) as server:
        for name in names:
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def numbers(url: str, broken: dt.datetime) -> dict[str, list[Any]]:
    """What the tables say of the day of the broken hour."""
    midnight = broken.replace(hour=0)
    values = {"day": broken.date(), "since": midnight, "until": midnight + dt.timedelta(days=1)}
    with psycopg.connect(url) as connection:
        return {
            name: sorted(connection.execute(question, values).fetchall()) for name, question in TABLES.items()
        }


def clean_run(url: str, broken: dt.datetime, patch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """The numbers of that day as they would be, had no sensor ever been broken."""
    patch.setenv("TAILRACE_SQL_WAREHOUSE", url)
    assert demo_setup._make_warehouse(broken) == []
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM sensor_faults")
    tasks = definitions.read_files([str(demo_setup.DEFINITIONS)]).tasks

    def context(**more: Any) -> Any:
        return make_context(data_date=broken.date(), log=Log(), **more)

    for hour in range(24):
        ends = context(cycle_time=broken.replace(hour=0) + dt.timedelta(hours=hour + 1))
        if not weather.load_hour(ends)["complete"]:
            weather.fill_gaps(ends)
    demo_jobs.load_flights(context())
    for team, task in (("warehouse", "join-weather"), ("analytics", "wind-impact")):
        kinds.kind("sql").run(tasks[team, task].content["spec"], context())
    weather.delay_costs(context())
    weather.check_stations(context())
    return numbers(url, broken)


class Demo:
    """The demo with its processes, as the story needs them."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self.log, self.var, self._running = folder / "log", {"TAILRACE_VAR": str(folder)}, running
        self.broken = history.broken_hour(timezone.now())

    def start(self, *arguments: str) -> Any:
        return self._running.enter_context(manage(*arguments, log=self.log, **self.var))

    def node(self, name: str, group: str) -> Any:
        return self.start("node", name, "--group", group, "--workers", "2", "--grace", "1")

    def until(self, condition: Callable[[], Any]) -> None:
        eventually(condition, within=60, log=self.log)

    def of_day(self, workflow: str) -> CycleInstance:
        """The effective instance of a daily workflow's cycle that worked on the broken day."""
        cycles = Cycle.objects.filter(workflow__name=workflow, effective__data_date=self.broken.date())
        found = cycles.select_related("effective").get().effective
        assert found is not None
        return found

    def has_state(self, workflow: str, *states: str) -> bool:
        return self.of_day(workflow).state in states

    def poisoned(self) -> bool:
        """Whether all that can run of the day has run, and those who check the stations have failed."""
        done = ("flights_daily", "wind_impact_daily", "delay_costs_daily")
        return all(self.has_state(each, "success") for each in done) and self.has_state(
            "station_quality_daily", "failed"
        )


def confirm(page: Page, reason: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill(reason)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)


def plan(page: Page, source: CycleInstance, *, at_once: int, reason: str) -> Rerun:
    """Go through all steps: the whole hour, everything downstream of it, freeze mode on."""
    page.goto(f"/cycles/{source.pk}/")
    page.locator('[data-action="rerun-downstream"]').first.click()
    loaded(page)
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Choose what is downstream").click()
    page.wait_for_url("**/downstream/**")
    freeze = page.get_by_role("switch", name="Freeze mode")
    freeze.click()
    expect(freeze).to_have_attribute("aria-checked", "true")
    page.get_by_role("button", name=re.compile("^Tick all")).click()
    for team in ("warehouse", "analytics", "finance"):
        expect(page.locator("body")).to_contain_text(team)
    expect(page.locator("#sums")).to_contain_text("Frozen until success")
    page.get_by_role("link", name="Settings →").first.click()
    page.get_by_label("Instances at once").fill(str(at_once))
    page.get_by_role("button", name="Plan →").last.click()
    expect(page.locator("#waves")).to_contain_text("delay_costs_daily")
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=re.compile(r"^Rerun \d+ instances")).click()
    page.wait_for_url(re.compile(r"/reruns/\d+/$"))
    return Rerun.objects.latest("pk")


def expect_state(page: Page, state: str) -> None:
    expect(page.locator(".title .state")).to_have_attribute("data-state", state, timeout=LONG)


def nothing_is_held() -> bool:
    frozen = CycleInstance.objects.filter(Q(frozen_at__isnull=False) | ~Q(holder=""))
    return not frozen.exists() and not Cycle.objects.exclude(holder="").exists()


def test_the_poisoned_hour_is_repaired_and_the_warehouse_is_right(
    page: Page, tmp_path: Path, warehouses: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.install(port=8000)
    with ExitStack() as running:
        world = Demo(tmp_path, running)
        world.start("scheduler")
        for name, group in GROUPS.items():
            world.node(name, group)
        etl = world.node("etl", "warehouse/etl")
        world.until(world.poisoned)
        before = numbers(warehouses[0], world.broken)

        # The feed is corrected: from now on the hour says what the wind was.
        correction = Task.objects.get(name="accept-correction")
        sign_in(page, f"/tasks/{correction.pk}/", name="operator")
        page.locator('[data-action="run"]').first.click()
        page.get_by_label("Reason").fill("the supplier corrected its feed")
        page.get_by_role("button", name=re.compile("^Run")).last.click()
        world.until(lambda: Batch.objects.filter(task=correction, state="success").exists())

        # While nobody works for the warehouse's team, what is downstream of it waits.
        etl.terminate()
        etl.wait(timeout=20)
        source = CycleInstance.objects.get(
            workflow__name="weather_hourly", cycle_time=world.broken + dt.timedelta(hours=1)
        )
        first = plan(page, source, at_once=1, reason="wind sensor of EWR")
        world.until(lambda: first.items.get(is_source=True).state == "success")
        assert CycleInstance.objects.filter(holder=first.holder, frozen_at__isnull=False).exists()

        # Terminated midway, it leaves everything as free as it was.
        page.locator(f"#terminate-rerun-{first.pk}").click()
        expect(page.get_by_role("dialog")).to_contain_text("unfrozen")
        confirm(page, "not during office hours")
        expect_state(page, "terminated")
        world.until(nothing_is_held)
        page.goto("/cycles/?frozen=yes")
        expect(page.locator("tr[id^=cycle-]")).to_have_count(0)

        # Begun anew, paused while the flights wait for a node: what runs ends, nothing follows.
        again = Cycle.objects.select_related("effective").get(pk=source.cycle_id).effective
        assert again is not None
        second = plan(page, again, at_once=1, reason="wind sensor of EWR, again")
        flights = second.items.get(
            name__startswith="flights_daily", cycle=world.of_day("flights_daily").cycle_id
        )
        world.until(lambda: RerunItem.objects.get(pk=flights.pk).state == "running")
        page.locator(f"#pause-rerun-{second.pk}").click()
        confirm(page, "look at the flights first")
        expect_state(page, "paused")
        world.node("etl-2", "warehouse/etl")
        expect(page.locator(f"#item-{flights.pk} .state")).to_have_attribute(
            "data-state", "success", timeout=LONG
        )
        assert not second.items.filter(state="running").exists()
        assert second.items.filter(state="waiting").exists()

        # One branch fails, since somebody renamed a table; the others go on, and what is frozen stays frozen.
        with psycopg.connect(warehouses[0], autocommit=True) as connection:
            connection.execute("ALTER TABLE wind_impact RENAME TO wind_impact_old")
            page.locator(f"#resume-rerun-{second.pk}").click()
            confirm(page, "the flights are right")
            expect_state(page, "failed")
            expect(page.locator("#holdups")).to_contain_text("wind_impact_daily")
            assert world.has_state("station_quality_daily", "success")
            assert CycleInstance.objects.filter(holder=second.holder, frozen_at__isnull=False).exists()
            connection.execute("ALTER TABLE wind_impact_old RENAME TO wind_impact")

        # Resumed, it runs what did not succeed, and nothing else again.
        succeeded = dict(second.items.filter(state="success").values_list("pk", "instance"))
        page.locator(f"#resume-rerun-{second.pk}").click()
        confirm(page, "the table is back")
        expect_state(page, "success")
        assert succeeded == dict(second.items.filter(pk__in=succeeded).values_list("pk", "instance"))
        world.until(nothing_is_held)
        world.until(lambda: world.has_state("claims_daily", "success"))

    repaired = numbers(warehouses[0], world.broken)
    assert repaired == clean_run(warehouses[1], world.broken, monkeypatch)
    assert before["wind_impact"] != repaired["wind_impact"]
    assert before["delay_costs"] != repaired["delay_costs"]
