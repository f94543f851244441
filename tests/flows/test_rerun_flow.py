"""A rerun downstream is planned in the browser: all steps, both views, and a part by keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.utils import timezone
from playwright.sync_api import Locator, Page, Route, expect

from reruns import services
from reruns.models import Rerun
from tests import factories as make
from tests.engine.rerun_support import at, cycle
from tests.flows.pages import loaded, sign_in
from workflows.models import CycleInstance

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> CycleInstance:
    """An hour that failed, a day after it, a report and scores after that, and a board that is to come."""
    monkeypatch.setenv("TAILRACE_CHANNEL_OPS", "json://example.org")
    group = make.group(team=make.team("warehouse"))
    make.user("mei", team=group.team, role="operator")
    ended = {"load": "success", "check": "failed", "publish": "cancelled"}
    hourly = make.workflow("hourly", group=group, nodes="load > check, check > publish")
    found = cycle(hourly, at(4), "failed", nodes=ended)
    daily = cycle(make.workflow("daily", group=group, nodes="a > b"), at(1), after=[found])
    cycle(make.workflow("report", group=group, nodes="a > b"), at(2), "failed", after=[daily])
    cycle(make.workflow("scores", group=group), at(2), "running", after=[daily])
    cycle(make.workflow("board", group=group), at(6), "not_ready", after=[daily])
    return found


def box(page: Page, name: str) -> Locator:
    """The box of a workflow's instance in the flow."""
    return page.locator(f'.dag [data-title="{name}"] .pick')


def begin_choosing(page: Page, source: CycleInstance) -> None:
    """Come to step 2 of a new draft."""
    sign_in(page, f"/reruns/new/?cycle={source.pk}")
    page.get_by_role("button", name="Choose what is downstream").click()
    page.wait_for_url("**/downstream/")
    loaded(page)


@contextmanager
def held_up(page: Page) -> Iterator[list[Route]]:
    """What is ticked meanwhile stays under way until its route goes on."""
    held: list[Route] = []
    page.route("**/downstream/", lambda route: held.append(route), times=1)
    with page.expect_request("**/downstream/"):
        yield held


def sums(page: Page) -> Locator:
    return page.locator("#sums")


def test_a_rerun_is_planned_from_the_menu_to_its_record(page: Page, source: CycleInstance) -> None:
    sign_in(page, "/cycles/?window=30d")
    page.get_by_role("button", name=f"Actions on instance {source.pk}").click()
    page.get_by_role("link", name="Rerun downstream").click()

    # What failed is ticked already.
    expect(page.get_by_role("checkbox", checked=True)).to_have_count(2)
    page.get_by_role("button", name="Tick load and all after it").click()
    expect(page.get_by_role("checkbox", checked=True)).to_have_count(3)
    page.get_by_role("button", name="What did not succeed").click()
    expect(page.get_by_role("checkbox", checked=True)).to_have_count(2)
    page.get_by_role("button", name="Choose what is downstream").click()

    # A click on a box ticks it, and the panel says what that comes to.
    box(page, "daily").click()
    expect(box(page, "daily")).to_have_attribute("aria-checked", "true")
    expect(sums(page)).to_contain_text("2 instances · 4 nodes")
    # It says that it cannot be ticked; a click then tells why.
    box(page, "board").click(force=True)
    expect(page.locator("#draft-notice")).to_contain_text("Switch on freeze mode to freeze it")
    page.get_by_role("switch", name="Freeze mode").click()
    expect(page.get_by_role("switch", name="Freeze mode")).to_have_attribute("aria-checked", "true")
    page.get_by_role("button", name="Tick all 4").click()
    expect(sums(page)).to_contain_text("4 instances")
    expect(sums(page)).to_contain_text("1 not ready")
    expect(box(page, "scores")).to_have_attribute("aria-checked", "true")

    # The list is the same selection; each row says what becomes of it.
    page.get_by_role("link", name="List view").click()
    loaded(page)
    rows = page.locator("#downstream tr")
    expect(rows.filter(has_text="board")).to_contain_text("will be frozen until the rerun succeeded")
    expect(rows.filter(has_text="scores")).to_contain_text("will be terminated, then rerun")
    rows.filter(has_text="scores").get_by_role("checkbox").uncheck()
    expect(sums(page)).to_contain_text("3 instances")
    rows.filter(has_text="report").get_by_role("link", name="2 of 2 nodes").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("checkbox", name="a", exact=True).uncheck()
    dialog.get_by_role("button", name="Rerun the ticked nodes").last.click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(rows.filter(has_text="report")).to_contain_text("1 of 2 nodes")

    page.get_by_role("link", name="Settings →").first.click()
    page.get_by_label("Instances at once").fill("2")
    page.get_by_label("Generate nothing more").check()
    page.get_by_label("ops: The rerun succeeded").check()
    page.get_by_role("button", name="Plan →").last.click()

    expect(page.locator("#waves")).to_contain_text("Wave 3")
    expect(page.locator("#waves")).to_contain_text("When the rerun has succeeded")
    expect(page.locator("#skipped")).to_contain_text("not ticked")
    page.get_by_role("button", name="Rerun 3 instances").click()
    # Without a reason the browser lets nobody through.
    expect(page.get_by_label("Reason")).to_be_focused()
    page.get_by_label("Reason").fill("the sensor was wrong")
    page.get_by_role("button", name="Rerun 3 instances").click()
    page.wait_for_url(re.compile(r"/reruns/\d+/$"))
    rerun = Rerun.objects.get()
    assert (rerun.state, rerun.reason, rerun.parallelism) == ("running", "the sensor was wrong", 2)
    assert rerun.notify == [{"channel": "ops", "on": ["success"]}]


def test_the_flow_is_ticked_by_keyboard_alone(page: Page, source: CycleInstance) -> None:
    sign_in(page, f"/reruns/new/?cycle={source.pk}")
    page.get_by_label("check", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/downstream/")
    loaded(page)

    box(page, "daily").focus()
    page.keyboard.press("Enter")
    expect(sums(page)).to_contain_text("2 instances")
    expect(box(page, "daily")).to_be_focused()
    page.keyboard.press("Space")
    expect(sums(page)).to_contain_text("1 instance ·")
    expect(box(page, "daily")).to_be_focused()
    page.keyboard.press("Shift+Enter")
    expect(sums(page)).to_contain_text("3 instances")
    expect(box(page, "report")).to_have_attribute("aria-checked", "true")

    # From a box one comes to its count of nodes; the dialog gives the focus back.
    expect(page.locator(".htmx-settling")).to_have_count(0)
    page.keyboard.press("Tab")
    expect(page.locator('.dag [data-title="daily"] .count-of')).to_be_focused()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_quick_ticks_are_all_kept(page: Page, source: CycleInstance) -> None:
    begin_choosing(page, source)
    page.get_by_role("switch", name="Freeze mode").click()
    expect(page.get_by_role("switch", name="Freeze mode")).to_have_attribute("aria-checked", "true")
    # As fast as a hand can, without waiting for any answer.
    names = ["daily", "report", "scores", "board"]
    page.evaluate(
        "names => names.forEach(name => document.querySelector(`[data-title=${name}] .pick`)"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true})))",
        names,
    )
    expect(sums(page)).to_contain_text("4 instances")
    expect(sums(page)).to_contain_text("1 not ready")
    for name in names:
        expect(box(page, name)).to_have_attribute("aria-checked", "true")


def test_who_goes_on_at_once_takes_all_ticks_along(page: Page, source: CycleInstance) -> None:
    begin_choosing(page, source)
    # The first is under way and the second waits for it when the link is followed.
    with held_up(page) as held:
        box(page, "daily").click()
    box(page, "report").click()
    page.get_by_role("link", name="Settings →").first.click()
    expect(box(page, "report")).to_have_attribute("aria-checked", "true")
    with page.expect_response("**/downstream/"):
        held[0].continue_()

    page.wait_for_url("**/settings/")
    expect(page.locator("#sums")).to_contain_text("3 instances")
    page.get_by_role("button", name="Plan →").last.click()
    page.wait_for_url("**/plan/")


def test_a_button_pressed_at_once_takes_all_ticks_along(page: Page, source: CycleInstance) -> None:
    begin_choosing(page, source)
    with held_up(page) as held:
        box(page, "daily").click()
    box(page, "report").click()
    page.get_by_role("button", name="Invert").click()
    held[0].continue_()
    # What was ticked is not any more, and the others are.
    expect(box(page, "daily")).to_have_attribute("aria-checked", "false")
    expect(box(page, "report")).to_have_attribute("aria-checked", "false")
    expect(page.locator("#draft-notice")).to_be_empty()


def test_who_is_refused_stays_to_read_why(page: Page, source: CycleInstance) -> None:
    begin_choosing(page, source)
    with held_up(page) as held:
        page.get_by_role("button", name=re.compile("^Tick all")).click()
    page.get_by_role("link", name="Settings →").first.click()
    Rerun.objects.update(changed_at=timezone.now())
    held[0].continue_()
    expect(page.locator("#draft-notice")).to_contain_text("changed in another window")
    assert page.url.endswith("/downstream/")


@pytest.mark.parametrize("view", ["flow", "list"])
def test_a_tick_that_is_refused_is_not_shown_as_one(page: Page, source: CycleInstance, view: str) -> None:
    begin_choosing(page, source)
    page.goto(f"{page.url}?view={view}")
    loaded(page)
    services.submit(Rerun.objects.get(), by="lee", reason="in another window")
    tick = box(page, "daily") if view == "flow" else page.get_by_role("checkbox", name="Tick daily")
    tick.click()
    expect(page.get_by_text("has been submitted already")).to_be_visible()
    expect(tick).not_to_be_checked()


def test_what_another_window_changed_is_not_overwritten(page: Page, source: CycleInstance) -> None:
    begin_choosing(page, source)
    other = page.context.new_page()
    other.goto(page.url)
    box(other, "daily").click()
    expect(sums(other)).to_contain_text("2 instances")

    page.get_by_role("button", name="Invert").click()
    expect(page.locator("#draft-notice")).to_contain_text("changed in another window")
    expect(box(page, "daily")).to_have_attribute("aria-checked", "true")
    expect(sums(page)).to_contain_text("2 instances")
