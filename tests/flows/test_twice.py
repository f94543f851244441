"""Who presses Enter once too often has asked once; what did not get through may be asked again."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests import factories as make
from tests.flows.pages import sign_in
from workflows.models import CycleInstance

pytestmark = pytest.mark.django_db(transaction=True)


def ask_for_a_test(page: Page) -> None:
    """The question before a test run, answered but for the last press of Enter."""
    team = make.team("desk")
    make.user("mei", team=team)
    workflow = make.workflow("flights", group=make.group(team=team))
    sign_in(page, f"/workflows/{workflow.pk}/")
    page.get_by_role("link", name="Run flights as a test").click()
    page.get_by_label("Reason").fill("to try it")


def test_a_test_run_asked_for_by_two_presses_of_enter_begins_once(page: Page) -> None:
    ask_for_a_test(page)
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_url("**/cycles/*/")
    expect(page.locator("h1")).to_contain_text("flights")
    assert CycleInstance.objects.count() == 1


def test_what_did_not_reach_the_server_may_be_sent_again(page: Page) -> None:
    ask_for_a_test(page)
    page.route("**/run/", lambda route: route.abort("internetdisconnected"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("The server cannot be reached.")
    page.unroute("**/run/")
    page.keyboard.press("Enter")
    page.wait_for_url("**/cycles/*/")
    assert CycleInstance.objects.count() == 1
