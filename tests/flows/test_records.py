"""Operators at the execution records: finding, ticking, repairing, and a page that is left open."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from scheduling import services
from scheduling.models import Batch, DeploymentGroup, Instance, JournalEntry, SavedFilter
from tests import factories as make
from tests.flows.pages import sign_in

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def etl() -> DeploymentGroup:
    """The group "etl" of a team in which mei is an operator."""
    team = make.team("warehouse")
    make.user("mei", team=team)
    group = make.group("etl", team=team)
    make.node("node-a", group=group)
    return group


def failed(task: Any, *, hours_ago: float = 0) -> Batch:
    batch = make.end_batch(make.batch(task), "failed")
    Batch.objects.filter(pk=batch.pk).update(created_at=timezone.now() - timedelta(hours=hours_ago))
    return batch


def many_failed(task: Any, count: int) -> list[Batch]:
    """Failures by the hundred: one made as others are, and copies of it."""
    [first] = [failed(task)]
    instance = first.instances.get()
    copies = [_copy(first) for _ in range(count - 1)]
    Batch.objects.bulk_create(copies)
    instances = []
    for batch in copies:
        again = _copy(instance)
        again.batch = batch
        instances.append(again)
    Instance.objects.bulk_create(instances)
    return [first, *copies]


def _copy(row: Any) -> Any:
    fields = row._meta.concrete_fields
    return type(row)(
        **{
            each.attname: getattr(row, each.attname)
            for each in fields
            if not (each.primary_key or each.generated)
        }
    )


def test_yesterdays_failures_of_one_group_are_found_and_rerun(page: Page, etl: DeploymentGroup) -> None:
    extract = make.task("extract", group=etl)
    yesterday = [failed(extract, hours_ago=20), failed(make.task("load", group=etl), hours_ago=22)]
    failed(extract, hours_ago=60)
    failed(make.task(group=make.group("ml", team=etl.team)), hours_ago=20)
    make.end_batch(make.batch(extract))
    sign_in(page, "/batches/")
    rows = page.locator("#batches tr")
    expect(rows).to_have_count(5)

    page.locator("summary", has_text="State").click()
    page.get_by_role("checkbox", name="Failed", exact=True).check()
    page.locator("summary", has_text="Group").click()
    page.get_by_role("checkbox", name="etl", exact=True).check()
    page.get_by_label("Begun").select_option("Last 24 hours")
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(rows).to_have_count(2)
    expect(page.locator(".chips")).to_contain_text("Group etl")

    # Kept under a name, it is one click away tomorrow.
    page.get_by_text("Saved filters").click()
    page.get_by_label("Name of this filter").fill("etl failures")
    # Browsers, their extensions and people who resize a box write a style; htmx must not copy it past the CSP.
    page.get_by_label("Name of this filter").evaluate("box => box.style.width = '150px'")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="etl failures")).to_have_attribute("aria-current", "true")
    page.keyboard.press("Escape")
    assert SavedFilter.objects.get().query == "tab=basic&state=failed&group=etl&window=1d"

    page.get_by_label("Tick every batch of this page").check()
    rerun = page.get_by_role("button", name="Rerun…")
    rerun.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Rerun 2 of 2 batches")
    # Whoever thinks again is back at the button, and stays there while the rows change.
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(rerun).to_be_focused()
    Batch.objects.filter(pk__in=[batch.pk for batch in yesterday]).update(reason="seen", actor="ravi")
    expect(rows.get_by_text("ravi")).to_have_count(2)
    expect(rerun).to_be_focused()
    page.keyboard.press("Enter")
    dialog.get_by_label("Reason").fill("the feed was corrected")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("2 new batches have begun")
    expect(page.locator("#ticked-count")).to_have_text("0")
    assert Batch.objects.filter(rerun_of__in=yesterday).count() == 2
    dialog.get_by_role("link", name="Show the new batches").click()
    expect(rows).to_have_count(2)
    expect(rows.locator("[data-state=waiting].state")).to_have_count(2)


def test_three_hundred_are_rerun_at_once_in_a_few_seconds(page: Page, etl: DeploymentGroup) -> None:
    sources = many_failed(make.task("extract", group=etl), 300)
    running = make.batch(make.task("load", group=etl))
    make.start_batch(running)
    sign_in(page, "/batches/")
    expect(page.locator("#count")).to_contain_text("301 batches match")
    page.get_by_label("Tick every batch of this page").check()
    expect(page.locator("#ticked-count")).to_have_text("50")
    page.get_by_label("All that match the filter 301").check()
    page.get_by_role("button", name="Rerun…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Rerun 300 of 301 batches")
    expect(dialog).to_contain_text("The state is: running.")
    dialog.get_by_label("Reason").fill("the whole day again")
    begun = time.monotonic()
    dialog.get_by_role("button", name="Rerun 300 batches").click()
    expect(dialog).to_contain_text("300 new batches have begun", timeout=10_000)
    assert time.monotonic() - begun < 10
    assert Batch.objects.filter(rerun_of__in=sources).count() == 300
    assert JournalEntry.objects.filter(action="rerun", actor="mei", via="web").count() == 300
    # Nothing is ticked any more, and the button that was pressed is gone.
    page.keyboard.press("Escape")
    expect(page.get_by_label("Tick every batch of this page")).to_be_focused()
    expect(page.locator("#batches tr").first.locator(".state")).to_have_attribute("data-state", "waiting")


def test_a_page_left_open_while_a_thousand_instances_change_keeps_ticks_and_focus(
    page: Page, etl: DeploymentGroup
) -> None:
    shards = [str(number) for number in range(100)]
    batches = [make.batch(make.task(group=etl, shards=shards)) for _ in range(10)]
    sign_in(page, "/batches/")
    box = page.get_by_label(f"Tick batch {batches[4].pk}", exact=True)
    box.check()
    page.get_by_label(f"Tick batch {batches[7].pk}", exact=True).click(modifiers=["Shift"])
    expect(page.locator("#ticked-count")).to_have_text("4")
    stop = page.get_by_role("link", name=f"Stop batch {batches[5].pk}")
    stop.focus()

    # All thousand change; what an engine does in many small steps, here in a few large ones.
    for batch in batches:
        make.start(batch.instances.select_related("group", "node").first())
    waiting = Instance.objects.filter(state="waiting")
    waiting.update(state="running", claimed=True, started_at=timezone.now())
    for batch in batches:
        expect(page.locator(f"#batch-{batch.pk}")).to_contain_text("100 running")
    expect(page.locator("#ticked-count")).to_have_text("4")
    expect(page.locator("#batches .tick:checked")).to_have_count(4)
    expect(stop).to_be_focused()

    new = make.batch(make.task(group=etl))
    expect(page.locator("#batches tr").first).to_have_attribute("id", f"batch-{new.pk}")
    expect(page.locator("#batches .tick:checked")).to_have_count(4)
    services.stop(batches[5], by="ravi", reason="elsewhere")
    expect(page.locator(f"#batch-{batches[5].pk} .state")).to_have_attribute("data-state", "terminating")
    expect(page.locator("#ticked-count")).to_have_text("4")


def test_tasks_are_added_to_the_filter_and_taken_away_by_keyboard_alone(
    page: Page, etl: DeploymentGroup
) -> None:
    for name in ("extract_flights", "extract_weather", "load"):
        make.batch(make.task(name, group=etl))
    sign_in(page, "/batches/")
    rows = page.locator("#batches tr")
    expect(rows).to_have_count(3)
    page.wait_for_load_state()
    page.keyboard.press("/")
    box = page.get_by_role("combobox", name="Task name contains, or ID")
    expect(box).to_be_focused()
    page.keyboard.type("extr")
    expect(page.locator(".combo [role=option]")).to_have_count(2)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    # The focus is where it was, so another one follows.
    expect(box).to_be_focused()
    page.keyboard.type("load")
    expect(page.locator(".combo [role=option]")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(2)
    assert page.url.endswith("/batches/?tab=basic&task=extract_flights&task=load&window=7d")

    page.get_by_role("link", name="Remove Task extract_flights").focus()
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("load")

    page.goto("/batches/")
    page.wait_for_load_state()
    page.get_by_label("Tick every batch of this page").focus()
    page.keyboard.press("Tab")
    for key in (" ", "j", "j", " "):
        page.keyboard.press(key)
    expect(page.locator("#ticked-count")).to_have_text("2")
    expect(page.locator("#batches tr:last-child .tick")).to_be_focused()
