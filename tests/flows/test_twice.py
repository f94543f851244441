"""Who clicks twice, or presses Enter once too often, has asked once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from tests import factories as make
from tests.flows.pages import sign_in
from workflows.models import Backfill, CycleInstance, Workflow

pytestmark = pytest.mark.django_db(transaction=True)


def workflow(**content: Any) -> Workflow:
    team = make.team("desk")
    make.user("mei", team=team)
    return make.workflow("flights", group=make.group(team=team), **content)


def test_a_test_run_asked_for_by_two_presses_of_enter_begins_once(page: Page) -> None:
    asked = workflow()
    sign_in(page, f"/workflows/{asked.pk}/")
    page.get_by_role("link", name="Run flights as a test").click()
    page.get_by_label("Reason").fill("to try it")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_url("**/cycles/*/")
    expect(page.locator("h1")).to_contain_text("flights")
    assert CycleInstance.objects.count() == 1


def test_a_backfill_started_by_a_double_click_begins_and_is_shown(page: Page) -> None:
    asked = workflow(cron="0 1 * * *", timezone="UTC", starts_at=timezone.now() - timedelta(days=20))
    sign_in(page, f"/workflows/{asked.pk}/backfill/")
    page.get_by_role("button", name="Show what would run").last.click()
    page.get_by_label("Reason").fill("the tariff was wrong")
    page.get_by_role("button", name="Backfill 7 cycles").dblclick()
    page.wait_for_url("**/backfills/*/")
    expect(page.locator("h1")).to_have_text(f"Backfill {Backfill.objects.get().pk}")
    # Back on the form, one may ask again; now that they run, there is nothing to begin.
    page.go_back()
    page.get_by_role("button", name="Show what would run").last.click()
    expect(page.locator("#plan")).to_contain_text("Nothing would run.")


def test_what_was_refused_may_be_sent_again(page: Page) -> None:
    asked = workflow()
    sign_in(page, f"/workflows/{asked.pk}/")
    page.get_by_role("link", name="Run flights as a test").click()
    page.get_by_label("Cycle time").fill("1950-01-01T00:00:00")
    page.get_by_label("Reason").fill("to try it")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("There are no cycles in 1950")
    page.get_by_label("Cycle time").fill("2026-01-01T00:00:00")
    page.keyboard.press("Enter")
    page.wait_for_url("**/cycles/*/")
