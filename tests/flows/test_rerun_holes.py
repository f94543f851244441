"""A result that is read but not rerun: the plan names it; it is ticked as well or accepted, in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from reruns import services
from reruns.models import Rerun
from tests import factories as make
from tests.engine.rerun_support import cycle
from tests.flows.pages import sign_in
from workflows.models import CycleInstance

pytestmark = pytest.mark.django_db(transaction=True)


def drafted() -> Rerun:
    """mei reruns weather and delays, not flights, which lies between."""
    team = make.team("warehouse")
    mei = make.user("mei", team=team, role="operator")
    group = make.group(team=team)
    before: list[CycleInstance] = []
    for name in ("weather", "flights", "delays"):
        before = [cycle(make.workflow(name, group=group, nodes="a"), after=before)]
    found = {each.workflow.name: each for each in CycleInstance.objects.select_related("workflow")}
    return services.plan(found["weather"], downstream=[found["delays"]], by=mei)


def test_what_lies_between_is_ticked_as_well(page: Page) -> None:
    draft = drafted()
    sign_in(page, f"/reruns/{draft.pk}/plan/")
    holes = page.locator("#holes")
    expect(holes).to_contain_text("1 result is read but not rerun")
    holes.get_by_role("button", name="Tick flights").click()
    expect(page.locator("#holes")).to_have_count(0)
    page.get_by_label("Reason").fill("the sensor was wrong")
    page.get_by_role("button", name="Rerun 3 instances").click()
    expect(page.locator("#progress")).to_contain_text("0 of 3 rerun")


def test_what_stays_as_it_is_has_to_be_accepted_and_stays_in_the_record(page: Page) -> None:
    draft = drafted()
    sign_in(page, f"/reruns/{draft.pk}/plan/")
    page.get_by_label("Reason").fill("delays are urgent")
    page.locator("#submit").click()
    expect(page.get_by_role("alert")).to_contain_text("chosen instances read results that are not rerun")
    page.get_by_label("I accept that these results are not rerun").check()
    page.locator("#submit").click()
    expect(page.locator("#progress")).to_contain_text("1 instance reads results that are not rerun")
    page.get_by_role("link", name="List view").click()
    expect(page.locator("#items")).to_contain_text("reads flights")
