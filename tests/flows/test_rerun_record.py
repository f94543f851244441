"""A rerun is watched from its record, paused, resumed and terminated, in a real browser."""

from __future__ import annotations

import pytest
from django.db.models import Q
from playwright.sync_api import Page, expect

from reruns import services
from reruns.models import Rerun, RerunItem
from tests import factories as make
from tests.engine.rerun_support import cycle
from tests.flows.pages import sign_in
from workflows.models import Cycle, CycleInstance

pytestmark = pytest.mark.django_db(transaction=True)


def begun() -> Rerun:
    """mei reruns weather and all downstream of it: flights, then delays; scores, not ready, is frozen."""
    team = make.team("warehouse")
    mei = make.user("mei", team=team, role="operator")
    make.user("vic", team=team, role="viewer")
    group = make.group(team=team)
    before: list[CycleInstance] = []
    for name in ("weather", "flights", "delays", "scores"):
        workflow = make.workflow(name, group=group, nodes="a")
        state = "not_ready" if name == "scores" else "success"
        before = [cycle(workflow, state=state, after=before)]
    weather = CycleInstance.objects.get(workflow__name="weather")
    draft = services.plan(weather, downstream="all", freeze_mode=True, by=mei)
    services.submit(draft, by=mei, reason="the sensor was wrong")
    services.advance(draft.pk)
    return Rerun.objects.get(pk=draft.pk)


def end(of: Rerun, name: str, outcome: str = "success") -> None:
    """What the nodes and the scheduler do."""
    item = of.items.select_related("instance").get(name__startswith=name)
    assert item.instance is not None
    make.end_node(item.instance, "a", outcome)
    services.advance(of.pk)


def expect_state(page: Page, of: Rerun, name: str, state: str) -> None:
    item = of.items.get(name__startswith=name)
    expect(page.locator(f"#item-{item.pk} .state")).to_have_attribute("data-state", state)


def confirm(page: Page, reason: str) -> None:
    """Give the reason that the dialog asks for, by keyboard."""
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Reason")).to_be_focused()
    page.keyboard.type(reason)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)


def test_a_running_rerun_is_watched_paused_resumed_and_terminated_and_nothing_stays_frozen(page: Page) -> None:
    of = begun()
    # From the cycles to the records, and from there to this one.
    sign_in(page, "/cycles/")
    page.get_by_role("link", name="Rerun records").click()
    page.get_by_role("link", name=f"R-{of.pk}", exact=True).click()
    expect_state(page, of, "flights", "waiting_to_rerun")
    expect_state(page, of, "scores", "waiting_to_unfreeze")

    # What waits gets its new instance before one's eyes, and its label vanishes.
    old = of.items.get(name__startswith="flights").original_id
    expect(page.locator("#items")).to_contain_text(str(old))
    end(of, "weather")
    expect_state(page, of, "flights", "running")
    made = of.items.get(name__startswith="flights").instance_id
    expect(page.get_by_role("link", name=str(made), exact=True)).to_be_visible()
    expect(page.get_by_role("link", name=str(old), exact=True)).to_have_count(0)
    expect(page.locator("#progress")).to_contain_text("1 of 3 rerun")

    # Paused: what runs ends, and nothing follows it.
    page.locator(f"#pause-rerun-{of.pk}").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("1 instance that waits to rerun is not generated")
    confirm(page, "look first")
    expect(page.locator(".title .state")).to_have_attribute("data-state", "paused")
    end(of, "flights", "failed")
    expect_state(page, of, "flights", "failed")
    expect(page.locator("#holdups")).to_contain_text("1 instance waits for it")
    expect(page.locator("#holdups")).to_contain_text("Paused by mei (look first)")

    # Resumed, it runs what failed again and nothing else.
    page.locator(f"#resume-rerun-{of.pk}").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 instance that succeeded does not run again.")
    confirm(page, "corrected")
    services.advance(of.pk)
    expect_state(page, of, "flights", "running")
    expect(page.locator("#holdups")).not_to_contain_text("Paused by")

    # The flow shows the same.
    page.get_by_role("link", name="Flow view").click()
    flights = of.items.get(name__startswith="flights")
    expect(page.locator(f"#node-i{flights.pk}")).to_have_attribute("data-state", "running")
    end(of, "flights")
    expect(page.locator(f"#node-i{flights.pk}")).to_have_attribute("data-state", "success")

    # Terminated midway: what runs is stopped, what is frozen goes free.
    page.locator(f"#terminate-rerun-{of.pk}").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 frozen instance is unfrozen")
    confirm(page, "the numbers are right already")
    services.advance(of.pk)
    running = of.items.select_related("instance__cycle").get(name__startswith="delays")
    assert running.instance is not None
    for run in running.instance.node_runs.select_related("batch"):
        if run.batch is not None and not run.batch.is_finished:
            make.end_batch(run.batch, "terminated")
    services.advance(of.pk)
    expect(page.locator(".title .state")).to_have_attribute("data-state", "terminated")
    expect(page.locator("#journal")).to_contain_text("the numbers are right already")
    assert not CycleInstance.objects.filter(Q(frozen_at__isnull=False) | ~Q(holder="")).exists()
    assert not Cycle.objects.exclude(holder="").exists()
    assert not RerunItem.objects.filter(owned=True).exists()


def test_a_viewer_watches_it_live_and_has_no_buttons(page: Page) -> None:
    of = begun()
    sign_in(page, f"/reruns/{of.pk}/", name="vic")
    expect_state(page, of, "weather", "running")
    expect(page.locator("[data-action]")).to_have_count(0)
    expect(page.locator("#items input")).to_have_count(0)
    end(of, "weather", "failed")
    expect_state(page, of, "weather", "failed")
    expect(page.locator("#holdups")).to_contain_text("2 instances wait for it")
    expect(page.locator("[data-action]")).to_have_count(0)


def test_the_box_that_ticks_all_goes_with_the_boxes_of_the_rows_when_the_rerun_ends(page: Page) -> None:
    of = begun()
    sign_in(page, f"/reruns/{of.pk}/")
    every = page.get_by_role("checkbox", name="Tick everything of this page that has not started")
    every.focus()
    for name in ("weather", "flights", "delays"):
        expect(every).to_be_focused()
        end(of, name)
    expect(page.locator(".title .state")).to_have_attribute("data-state", "success")
    expect(page.locator("#items input")).to_have_count(0)
    expect(every).to_be_hidden()
    expect(page.locator("#main")).to_be_focused()


def test_what_has_not_started_is_ticked_and_taken_out(page: Page) -> None:
    of = begun()
    sign_in(page, f"/reruns/{of.pk}/")
    page.get_by_role("checkbox", name="Tick delays").check()
    page.get_by_role("button", name="Take out…").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 instance is not rerun")
    confirm(page, "nobody reads it")
    item = of.items.get(name__startswith="delays")
    expect(page.locator(f"#item-{item.pk}")).to_contain_text("not rerun")
    expect(page.get_by_role("checkbox", name="Tick delays")).to_have_count(0)
    expect(page.locator("#bulk")).to_be_hidden()
