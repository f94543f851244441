"""The More menu of a cycle's row: by keyboard, while its row changes, and where CSS cannot place it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests import factories as make
from tests.flows.pages import sign_in
from workflows.models import CycleInstance

pytestmark = pytest.mark.django_db(transaction=True)


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
    expect(row.locator(".at-state")).to_contain_text("stopping")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(more).to_be_focused()
    make.end_node(instance, "b", "terminated")
    expect(row.locator(".at-state .state")).to_have_attribute("data-state", "terminated")
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
        by, stands = button.bounding_box(), menu.bounding_box()
        assert by is not None
        assert stands is not None
        assert abs(by["x"] + by["width"] - stands["x"] - stands["width"]) < 2
        below, above = by["y"] + by["height"] - stands["y"], stands["y"] + stands["height"] - by["y"]
        assert min(abs(below), abs(above)) < 5
    page.mouse.wheel(0, -300)
    expect(menu).to_be_hidden()


def _without_anchors(route: Route) -> None:
    answer = route.fetch()
    css = re.sub(r"position-(area|try-fallbacks):[^;]*;", "", answer.text())
    assert css != answer.text()
    route.fulfill(response=answer, body=css)
