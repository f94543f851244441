"""A morning at the tasks and nodes, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from scheduling.models import Batch, Node, Task
from tests import factories as make
from tests.flows.pages import sign_in

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_task_is_run_with_a_parameter_then_disabled_and_a_node_is_drained(page: Page) -> None:
    team = make.team("warehouse")
    make.user("mei", team=team, role="developer")
    group = make.group("etl", team=team)
    node = make.node("node-a", group=group)
    task = make.task("extract", group=group, interval=3600, parameters={"day": "2013-01-01"})

    # From the overview to the task, by the batch that failed.
    make.end_batch(make.batch(task), "failed")
    sign_in(page, "/")
    expect(page.locator("#failures")).to_contain_text("1×")
    page.locator("#failures").get_by_role("link", name="extract", exact=True).click()

    # Run it with another day and one parameter more; the page shows the new batch by itself.
    page.locator("[data-action=run]").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Value")).to_be_focused()
    dialog.get_by_label("Value").fill("2013-02-02")
    dialog.get_by_role("button", name="Add a parameter").click()
    expect(dialog.get_by_label("Name").nth(1)).to_be_focused()
    dialog.get_by_label("Name").nth(1).fill("limit")
    dialog.get_by_label("Value").nth(1).fill("many")
    dialog.get_by_label("Written as").nth(1).select_option("json")
    dialog.get_by_label("Reason").fill("the feed was late")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("This is not JSON")
    dialog.get_by_label("Value").nth(1).fill("5")
    page.keyboard.press("Enter")
    expect(page.locator("#notices")).to_contain_text("has begun")
    expect(dialog).to_have_count(0)
    batch = Batch.objects.latest("pk")
    assert batch.parameters == {"day": "2013-02-02", "limit": 5}
    expect(page.locator(f"#batch-{batch.pk} .state")).to_have_attribute("data-state", "waiting")

    # Disable it; its head and its due times follow.
    page.locator("[data-action=disable]").click()
    expect(dialog).to_contain_text("1 unfinished batch goes on to its end.")
    expect(dialog.get_by_label("Reason")).to_be_focused()
    page.keyboard.type("until the feed is mended")
    page.keyboard.press("Enter")
    expect(page.locator(".title .state").first).to_have_attribute("data-state", "disabled")
    expect(page.locator("#due")).to_contain_text("It is disabled")
    expect(page.locator("#journal")).to_contain_text("until the feed is mended")
    assert not Task.objects.get().enabled

    # Drain the node.
    make.start_batch(batch)
    page.goto("/nodes/")
    row = page.locator(f"#node-{node.pk}")
    expect(row).to_contain_text("extract")
    row.locator("[data-action=drain]").click()
    expect(dialog).to_contain_text("1 instance that it runs goes on to its end.")
    page.keyboard.type("a new disk")
    page.keyboard.press("Enter")
    expect(row.locator(".state")).to_have_attribute("data-state", "draining")
    make.end_batch(batch)
    expect(row).to_contain_text("nothing")
    expect(row.locator("[data-action=undrain]")).to_be_visible()
    assert Node.objects.get().state == "draining"
