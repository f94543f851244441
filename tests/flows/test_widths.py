"""Every action of a list can be reached without scrolling its card, at every usual width of a window."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests import factories as make
from tests.flows.pages import sign_in

pytestmark = pytest.mark.django_db(transaction=True)

# Right edges of the buttons of rows that lie beyond what their card shows, in CSS pixels.
BEYOND = """() => [...document.querySelectorAll("main .card .act :is(a, button)")]
    .filter(each => each.checkVisibility())
    .map(each => each.getBoundingClientRect().right - each.closest(".card").getBoundingClientRect().right)
    .filter(beyond => beyond > 0)"""


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_no_action_on_a_task_lies_beyond_the_edge(page: Page, language: str) -> None:
    group = make.group("nightly-ingest", team=make.team("warehouse"))
    make.user("mei", role="developer", team=group.team)
    for name in ("extract_the_orders_of_the_shop", "load"):
        task = make.task(name, group=group, trigger="cron", cron="10 6 * * mon-fri", timezone="Asia/Shanghai")
        for outcome in ("failed", "success", "success"):
            make.end_batch(make.batch(task), outcome)
    sign_in(page, "/nodes/")
    page.set_extra_http_headers({"Accept-Language": language})
    page.goto("/tasks/")
    for width in (1440, 1280, 1024, 800, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.locator(".tasks tbody .act :is(a, button)").count() == 4
        assert page.evaluate(BEYOND) == [], width
