"""Two weeks are backfilled through the pages, with real nodes and a real scheduler running."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from tests import factories as make
from tests.faults.cluster import cluster
from tests.flows.pages import sign_in

pytestmark = pytest.mark.django_db(transaction=True)

DAYS = 14
# The data of later days is not there before somebody opens the gate.
LOAD = '[ "$PARAM_DAY" \\< "{day}" ] || while [ ! -e "{gate}" ]; do sleep 0.05; done; echo "loaded $PARAM_DAY"'
LONG = 20_000


def test_a_backfill_of_fourteen_days_is_begun_paused_resumed_and_ends(page: Page, tmp_path: Path) -> None:
    until = timezone.now().date() - timedelta(days=2)
    since = until - timedelta(days=DAYS - 1)
    gate = tmp_path / "gate"
    command = LOAD.format(day=since + timedelta(days=4), gate=gate)
    with cluster(tmp_path) as running:
        make.user("mei", team=running.group.team, role="operator")
        make.task("load", group=running.group, spec={"command": command}, parameters={"day": "${data_date}"})
        workflow = make.workflow(
            "flights",
            group=running.group,
            nodes="load > publish",
            cron="0 1 * * *",
            timezone="UTC",
            parallelism=0,
            starts_at=timezone.now() - timedelta(days=30),
        )
        running.start_scheduler("scheduler")
        running.start_node("node-a", workers=2, wait=False)

        # First what would run is shown, in its order; only then it is begun.
        sign_in(page, f"/workflows/{workflow.pk}/")
        page.get_by_role("link", name="Backfill flights").click()
        page.get_by_label("Data from").fill(f"{since}")
        page.get_by_label("Data until").fill(f"{until}")
        page.get_by_label("Cycles at once").fill("2")
        page.get_by_role("button", name="Show what would run").last.click()
        dates = page.locator("#plan tbody th")
        expect(dates).to_have_count(DAYS)
        expect(dates.first).to_have_text(f"{since}")
        page.get_by_label("Reason").fill("the tariff was wrong")
        page.get_by_role("button", name=f"Backfill {DAYS} cycles").click()

        # Four days run through; the next two wait for their data, and no third begins.
        counts = page.locator(".counts")
        expect(counts.locator("[data-state=success]")).to_contain_text("4", timeout=LONG)
        expect(counts.locator("[data-state=running]")).to_contain_text("2")
        expect(counts.locator("[data-state=not_ready]")).to_contain_text(f"{DAYS - 6}")

        # Paused, what has begun goes on to its end, and nothing more begins.
        page.get_by_role("link", name="Pause").click()
        expect(page.get_by_role("dialog")).to_contain_text("2 cycles that have had it go on")
        page.get_by_label("Reason").fill("look at the first week")
        page.keyboard.press("Enter")
        state = page.locator(".title .state")
        expect(state).to_have_attribute("data-state", "paused")
        gate.touch()
        expect(counts.locator("[data-state=success]")).to_contain_text("6", timeout=LONG)
        expect(counts.locator("[data-state=running]")).to_have_count(0)
        expect(counts.locator("[data-state=not_ready]")).to_contain_text(f"{DAYS - 6}")
        expect(page.locator(".note")).to_contain_text("look at the first week")

        page.get_by_role("link", name="Resume").click()
        page.get_by_label("Reason").fill("all is well")
        page.keyboard.press("Enter")
        expect(state).to_have_attribute("data-state", "success", timeout=LONG)
        expect(page.locator(".backfill-bar")).to_contain_text(f"{DAYS} / {DAYS}")
        expect(page.locator("#cycles .at-state [data-state=success]")).to_have_count(DAYS)
        expect(page.locator("#journal")).to_contain_text(
            re.compile("all is well.*look at the first week.*the tariff was wrong", re.DOTALL)
        )
        assert page.get_by_role("link", name=re.compile("Pause|Resume|Terminate")).count() == 0
