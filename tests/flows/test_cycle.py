"""A cycle that fails is watched, understood and repaired, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests import factories as make
from tests.flows.pages import sign_in
from workflows.models import CycleInstance

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_cycle_is_watched_live_and_what_failed_of_it_is_rerun(page: Page) -> None:
    team = make.team("warehouse")
    make.user("mei", team=team, role="operator")
    instance = make.cycle(
        make.workflow("flights", group=make.group(team=team), nodes="fetch > clean, clean > load")
    )

    # Nobody takes the first node, and the page says so; then it runs and the flow goes on by itself.
    sign_in(page, f"/cycles/{instance.pk}/")
    expect(page.locator("#why")).to_contain_text("No node of the group")
    make.end_node(instance, "fetch")
    expect(page.locator("[data-title=fetch]")).to_have_attribute("data-state", "success")
    expect(page.locator("[data-title=clean]")).to_have_attribute("data-state", "running")

    # One looks at the next node, which fails while one looks; the address leads back to it.
    page.locator("[data-title=clean]").click()
    panel = page.locator("#panel")
    expect(panel.locator("h2")).to_have_text("clean")
    expect(page).to_have_url(f"{page.url.partition('/cycles/')[0]}/cycles/{instance.pk}/?node=clean")
    make.end_node(instance, "clean", "failed")
    expect(panel.locator(".state").first).to_have_attribute("data-state", "failed")
    expect(page.locator(".title .state")).to_have_attribute("data-state", "failed")
    expect(page.locator("#panel #panel")).to_have_count(0)

    # Rerun from there: it and what comes after it are ticked, the first is carried.
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
    again = CycleInstance.objects.get(rerun_of=instance)
    make.end_node(again, "clean")
    make.end_node(again, "load")
    expect(page.locator(".title .state")).to_have_attribute("data-state", "success")
    expect(page.locator("#journal")).to_contain_text("the file was late")
