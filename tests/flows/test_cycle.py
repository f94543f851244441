"""A cycle that fails is watched, understood and repaired, in a real browser, while its nodes really run."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests import factories as make
from tests.faults.cluster import cluster
from tests.flows.pages import sign_in

pytestmark = pytest.mark.django_db(transaction=True)

# Runs until it is let go, and then fails unless its input has arrived.
CLEAN = 'while [ ! -e "{folder}/go" ]; do sleep 0.05; done; echo looking; test -e "{folder}/input"'
LONG = 20_000


def test_a_cycle_is_watched_live_and_what_failed_of_it_is_rerun(page: Page, tmp_path: Path) -> None:
    with cluster(tmp_path) as running:
        make.user("mei", team=running.group.team, role="operator")
        make.task("clean", group=running.group, spec={"command": CLEAN.format(folder=tmp_path)})
        instance = make.cycle(
            make.workflow("flights", group=running.group, nodes="fetch > clean, clean > load")
        )

        # No node is there to take the first node of the flow, and the page says so; then one comes.
        sign_in(page, f"/cycles/{instance.pk}/")
        expect(page.locator("#why")).to_contain_text("No node of the group")
        running.start_node("node-a", workers=2, wait=False)
        expect(page.locator("[data-title=fetch]")).to_have_attribute("data-state", "success", timeout=LONG)
        expect(page.locator("[data-title=clean]")).to_have_attribute("data-state", "running", timeout=LONG)
        expect(page.locator("#why")).to_be_empty()

        # One looks at the next node, which fails while one looks; the address leads back to it.
        page.locator("[data-title=clean]").click()
        panel = page.locator("#panel")
        expect(panel.locator("h2")).to_have_text("clean")
        expect(page).to_have_url(f"{page.url.partition('/cycles/')[0]}/cycles/{instance.pk}/?node=clean")
        (tmp_path / "go").touch()
        expect(panel.locator(".state").first).to_have_attribute("data-state", "failed", timeout=LONG)
        expect(panel.locator("#panel-log")).to_contain_text("looking")
        expect(page.locator(".title .state")).to_have_attribute("data-state", "failed")
        expect(page.locator("#why")).to_contain_text("clean did not succeed: exit code 1")
        expect(page.locator("#panel #panel")).to_have_count(0)

        # Rerun from there: it and what comes after it are ticked, the first is carried.
        (tmp_path / "input").touch()
        panel.get_by_role("link", name="Rerun from here").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("checkbox", checked=True)).to_have_count(2)
        dialog.get_by_role("button", name="Tick fetch and all after it").click()
        expect(dialog.get_by_role("checkbox", checked=True)).to_have_count(3)
        dialog.get_by_role("button", name="What did not succeed").click()
        expect(dialog.get_by_role("checkbox", checked=True)).to_have_count(2)
        dialog.get_by_label("Reason").fill("the file was late")
        page.keyboard.press("Enter")
        expect(page.locator(".cycle-runs")).to_contain_text("run 2")
        expect(page.locator(".title .state")).to_have_attribute("data-state", "success", timeout=LONG)
        expect(page.locator("#journal")).to_contain_text("the file was late")
        assert [run.carried for run in make.runs(instance.cycle.instances.get(number=2))] == [
            True,
            False,
            False,
        ]

        # Whoever goes back to the run that failed sees that another took its place.
        page.go_back()
        expect(page.locator(".title .state")).to_have_attribute("data-state", "failed")
        expect(page.locator(".cycle-runs")).to_contain_text("run 2")
