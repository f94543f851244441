"""Why a cycle is not running is read on its page, and each reason leads to what it speaks of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from scheduling.models import DeploymentGroup
from tests import factories as make
from tests.flows.pages import sign_in
from workflows import services
from workflows.models import CycleInstance, Workflow
from workflows.services import clock

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Story:
    """An instance that does not run, what its page says, the words that lead on, and what is there."""

    instance: CycleInstance
    says: str
    link: str
    leads_to: str


class Desk:
    """Workflows of a team, with the cycles of the last days."""

    def __init__(self) -> None:
        self.group: DeploymentGroup = make.group("etl", team=make.team("desk"))
        self.since: datetime = timezone.now() - timedelta(days=3)

    def workflow(self, name: str, *upstream: Any, generate: bool = True, **content: Any) -> Workflow:
        made = make.workflow(
            name,
            group=self.group,
            starts_at=self.since,
            depends_on=[each if isinstance(each, dict) else {"workflow": each} for each in upstream],
            **({"cron": "0 * * * *", "timezone": "UTC", "parallelism": 0} | content),
        )
        # Without this they would begin with the next one to come.
        Workflow.objects.filter(pk=made.pk).update(generated_until=self.since)
        if generate:
            services.generate(made.pk)
        return made


def first(workflow: Workflow) -> CycleInstance:
    return CycleInstance.objects.filter(workflow=workflow).earliest("cycle_time")


def last(workflow: Workflow) -> CycleInstance:
    return CycleInstance.objects.filter(workflow=workflow).latest("cycle_time")


def upstream_failed(desk: Desk) -> Story:
    up, down = desk.workflow("weather"), desk.workflow("flights", "weather")
    clock.make_due()
    make.end_node(first(up), "a", "failed")
    return Story(first(down), r"Blocked by weather .*: failed at", "weather", "weather")


def upstream_runs(desk: Desk) -> Story:
    desk.workflow("weather")
    down = desk.workflow("flights", "weather")
    clock.make_due()
    return Story(first(down), r"Blocked by weather .*: running since", "weather", "weather")


def upstream_is_frozen(desk: Desk) -> Story:
    up, down = desk.workflow("weather"), desk.workflow("flights", "weather")
    services.freeze(first(up), by="ann", reason="the supplier looks at it")
    clock.make_due()
    return Story(first(down), r"Blocked by weather .*: frozen by ann", "weather", "weather")


def upstream_never_ran(desk: Desk) -> Story:
    up, down = desk.workflow("weather", generate=False), desk.workflow("flights", "weather")
    Workflow.objects.filter(pk=up.pk).update(generated_until=timezone.now())
    clock.make_due()
    return Story(first(down), "never ran; a backfill of its workflow can run it", "weather", "weather")


def its_own_cycle_before(desk: Desk) -> Story:
    desk.workflow("flights", generate=False)
    workflow = desk.workflow("flights", {"workflow": "flights", "cycles": "previous"})
    clock.make_due()
    second = CycleInstance.objects.filter(workflow=workflow).order_by("cycle_time")[1]
    before = f"flights {first(workflow).cycle_time:%Y-%m-%d %H:%M} UTC"
    return Story(second, f"Blocked by {before}: running since", before, before)


def its_time_has_not_come(desk: Desk) -> Story:
    workflow = desk.workflow("flights")
    return Story(last(workflow), r"Its time comes at .* in .* by the schedule of flights", "flights", "flights")


def others_take_the_room(desk: Desk) -> Story:
    workflow = desk.workflow("flights", parallelism=1)
    clock.make_due()
    waiting = CycleInstance.objects.filter(workflow=workflow, state="ready").earliest("cycle_time")
    takes = f"{first(workflow).cycle_time:%Y-%m-%d %H:%M} UTC"
    return Story(waiting, f"runs 1 cycle at once, and {takes} takes the room", takes, f"flights {takes}")


def it_is_frozen(desk: Desk) -> Story:
    workflow = desk.workflow("flights")
    services.freeze(first(workflow), by="ann", reason="hold it for the audit")
    clock.make_due()
    return Story(first(workflow), "Frozen by ann at .*: hold it for the audit", "Frozen", "flights")


def its_workflow_is_off(desk: Desk) -> Story:
    workflow = desk.workflow("flights", parallelism=1)
    clock.make_due()
    services.set_enabled(workflow, False, by="ann", reason="holidays")
    ready = CycleInstance.objects.filter(workflow=workflow, state="ready").earliest("cycle_time")
    return Story(ready, "Workflow flights is switched off, since", "flights", "flights")


def its_backfill_is_paused(desk: Desk) -> Story:
    workflow = desk.workflow("flights", generate=False)
    now = timezone.now()
    begun = services.backfill(workflow, since=now - timedelta(hours=5), until=now, by="ann")
    services.pause_backfill(begun, by="ann", reason="look first")
    waiting = begun.instances.filter(due=False).earliest("cycle_time")
    return Story(waiting, "its turn in backfill .*, which is paused", "backfill", f"Backfill {begun.pk}")


def no_node_is_online(desk: Desk) -> Story:
    instance = make.cycle(desk.workflow("flights"))
    return Story(instance, "a: No node of the group etl is online", "The nodes", "Nodes")


def it_failed(desk: Desk) -> Story:
    instance = make.end_node(make.cycle(desk.workflow("flights")), "a", "failed")
    return Story(instance, "a did not succeed", "a", "flights")


CAUSES: list[Callable[[Desk], Story]] = [
    upstream_failed,
    upstream_runs,
    upstream_is_frozen,
    upstream_never_ran,
    its_own_cycle_before,
    its_time_has_not_come,
    others_take_the_room,
    it_is_frozen,
    its_workflow_is_off,
    its_backfill_is_paused,
    no_node_is_online,
    it_failed,
]


@pytest.mark.parametrize("so", CAUSES, ids=lambda so: so.__name__)
def test_the_page_says_why_it_is_not_running_and_leads_there(page: Page, so: Callable[[Desk], Story]) -> None:
    desk = Desk()
    make.user("mei", team=desk.group.team, role="operator")
    story = so(desk)

    sign_in(page, f"/cycles/{story.instance.pk}/")
    why = page.locator("#why")
    expect(why).to_contain_text(re.compile(story.says))
    why.get_by_role("link", name=story.link).first.click()

    expect(page.locator("main h1")).to_have_text(re.compile(rf"^{story.leads_to}\b"))
    if so is it_is_frozen:
        expect(page.locator("#journal")).to_be_in_viewport()
        expect(page.locator("#journal")).to_contain_text("hold it for the audit")
    if so is its_time_has_not_come:
        expect(page.locator("#next")).to_be_in_viewport()
    if so is it_failed:
        expect(page.locator("#panel h2")).to_have_text("a")


def test_what_was_the_reason_goes_from_the_page_as_it_ends(page: Page) -> None:
    desk = Desk()
    make.user("mei", team=desk.group.team, role="operator")
    waiting = others_take_the_room(desk).instance
    running = first(waiting.workflow)
    sign_in(page, f"/cycles/{waiting.pk}/")
    expect(page.locator("#why")).to_contain_text("takes the room")

    make.end_node(running, "a")

    expect(page.locator(".title .state")).to_have_attribute("data-state", "running")
    expect(page.locator("#why")).not_to_contain_text("takes the room")
