"""The More menu of a cycle's row: by keyboard, while its row changes, and where CSS cannot place it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests import factories as make
from tests.flows.pages import sign_in
from tests.processes import eventually
from workflows.models import CycleInstance

pytestmark = pytest.mark.django_db(transaction=True)


# Right edge at right edge, and right below the button or right above it.
STANDS_AT = """([button, menu]) => {
  const [by, stands] = [button, menu].map((id) => document.getElementById(id).getBoundingClientRect());
  const gap = Math.min(Math.abs(by.bottom - stands.top), Math.abs(stands.bottom - by.top));
  return stands.width > 0 && Math.abs(by.right - stands.right) < 2 && gap < 5;
}"""


def running(nodes: str = "a > b", *, count: int = 1) -> list[CycleInstance]:
    team = make.team("desk")
    make.user("mei", team=team)
    workflow = make.workflow("flights", group=make.group(team=team), nodes=nodes)
    return [make.cycle(workflow) for _ in range(count)]


def test_by_keyboard_an_instance_is_stopped_from_its_menu_though_its_row_changes_meanwhile(page: Page) -> None:
    [instance] = running()
    sign_in(page, "/cycles/")
    row, menu = page.locator(f"#cycle-{instance.pk}"), page.locator(f"#menu-{instance.pk}")
    page.locator(f"#more-{instance.pk}").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    stop = menu.get_by_role("link", name="Stop")
    expect(stop).to_be_focused()

    make.end_node(instance, "a")
    expect(row.locator(".at-counters")).to_contain_text("1 / 2")

    expect(menu).to_be_visible()
    expect(stop).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("1 node runs")
    expect(menu).to_be_hidden()
    page.keyboard.press("Escape")
    more = page.locator(f"#more-{instance.pk}")
    expect(more).to_be_focused()

    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_label("Reason").fill("wrong file")
    page.keyboard.press("Enter")
    expect(row.locator(".at-state .state")).to_have_attribute("data-state", "terminated")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(menu).to_be_hidden()
    expect(more).to_be_focused()


def test_where_css_knows_no_anchors_the_menu_stands_at_its_button_all_the_same(page: Page) -> None:
    instances = running(count=12)
    page.add_init_script("CSS.supports = () => false")
    page.route("**/workflows.css", _without_anchors)
    page.set_viewport_size({"width": 1000, "height": 600})
    sign_in(page, "/cycles/")
    for instance in (instances[-1], instances[0]):
        button, menu = page.locator(f"#more-{instance.pk}"), page.locator(f"#menu-{instance.pk}")
        button.scroll_into_view_if_needed()
        button.click()
        expect(menu).to_be_in_viewport(ratio=1)
        eventually(lambda at=instance: stands_at_its_button(page, at))
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, -100)
    eventually(lambda: page.evaluate("scrollY") < before)
    eventually(lambda: stands_at_its_button(page, instance))


def stands_at_its_button(page: Page, instance: CycleInstance) -> bool:
    return bool(page.evaluate(STANDS_AT, [f"more-{instance.pk}", f"menu-{instance.pk}"]))


def _without_anchors(route: Route) -> None:
    answer = route.fetch()
    css = re.sub(r"position-(area|try-fallbacks):[^;]*;", "", answer.text())
    assert css != answer.text()
    route.fulfill(response=answer, body=css)
