"""The demo's bad hour of weather is found from the overview, in three clicks, while everything really runs."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from config import database, demo
from config.demo import history
from tests import factories
from tests.flows.pages import sign_in
from tests.processes import database_url, manage
from workflows import services
from workflows.models import Workflow

pytestmark = pytest.mark.django_db(transaction=True)

FEEDS, REPORTS = "weather/feeds", "analytics/reports"
LONG = 40_000


def only_since_the_broken_day(now: datetime) -> None:
    """As `history.begin`, with no more of a history than the story is about."""
    Workflow.objects.update(generated_until=history._midnight(now, history.BROKEN_DAYS_AGO))
    for workflow in Workflow.objects.order_by("pk"):
        services.generate(workflow.pk, now)


@pytest.fixture
def warehouse(monkeypatch: pytest.MonkeyPatch) -> object:
    """The demo's second database, dropped afterwards."""
    name = factories.unique("bad_hour").replace("-", "_")
    url = database.url_with_database(database_url(), name)
    monkeypatch.setenv("TAILRACE_SQL_WAREHOUSE", url)
    monkeypatch.setenv("DEMO_PASSWORD", "secret")
    monkeypatch.setattr(history, "begin", only_since_the_broken_day)
    yield url
    with psycopg.connect(database.url_with_database(database_url(), "postgres"), autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def test_the_bad_hour_is_found_from_the_overview_in_three_clicks(
    page: Page, tmp_path: Path, warehouse: str
) -> None:
    demo.install(port=8000)
    log, var = tmp_path / "log", {"TAILRACE_VAR": str(tmp_path)}
    with ExitStack() as running:
        for name, group, workers in (("feeds", FEEDS, "4"), ("reports", REPORTS, "1")):
            running.enter_context(manage("node", name, "--group", group, "--workers", workers, log=log, **var))
        running.enter_context(manage("scheduler", log=log, **var))

        # A day failed at those who check the stations; the page says so as it happens, and why.
        sign_in(page, "/", name="operator")
        trouble = page.locator("#attention .failures")
        expect(trouble).to_contain_text("station_quality_daily", timeout=LONG)
        expect(trouble).to_contain_text("EWR reported a wind of 1048.36 mph at 17:00")

        trouble.locator("td a.id").click()
        cycle = history.broken_hour(timezone.now()) + timedelta(hours=1)
        name = f"weather_hourly {cycle.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        expect(page.locator("#why").get_by_role("link", name=name)).to_be_visible()

        page.get_by_role("link", name="24 of 24 succeeded").click()
        expect(page.locator("#related .node")).to_have_count(26)

        page.locator("#related .node", has_text=f"{cycle.astimezone(UTC):%m-%d %H:%M}").filter(
            has_text="weather"
        ).click()
        expect(page.locator("h1")).to_have_text(name)
