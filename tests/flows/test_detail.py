"""What an operator does on the pages of a batch and of an instance, with jobs that really run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from scheduling import services
from scheduling.models import LogChunk, Membership
from tests import factories as make
from tests.faults.cluster import cluster
from tests.flows.pages import sign_in
from tests.processes import eventually

pytestmark = pytest.mark.django_db(transaction=True)

# Deaf to SIGTERM: the stop takes its grace, so that there is something to see of it.
DEAF = "trap '' TERM; i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo tick $i; sleep 0.1; done"
TALKS = r"for i in $(seq 60); do echo row $i; sleep 0.03; done; printf '\033[32mall read\033[0m\n'"


def test_a_broadcast_is_stopped_node_by_node_and_a_live_log_is_followed_to_its_end(
    page: Page, tmp_path: Path
) -> None:
    with cluster(tmp_path) as running:
        for name in ("node-a", "node-b"):
            running.start_node(name, workers=1, wait=False)
        mei = make.user("mei")
        Membership.objects.create(team=running.group.team, user=mei, role="operator")
        deaf = make.task("sweep", group=running.group, mode="broadcast", spec={"command": DEAF})
        talks = make.task("read", group=running.group, spec={"command": TALKS})
        nodes = running.group.nodes
        eventually(lambda: nodes.filter(state="online").count() == 2, within=60, log=running.log)

        batch = services.trigger(deaf, by="night")
        sign_in(page, f"/batches/{batch.pk}/")
        expect(page.locator("#instances [data-state=running]")).to_have_count(2, timeout=30_000)
        page.locator(f"#stop-batch-{batch.pk}").click()
        expect(page.get_by_role("dialog")).to_contain_text("2 running instances are told to end")
        page.get_by_label("Reason").fill("wrong input file")
        page.keyboard.press("Enter")
        expect(page.locator("#instances [data-state=terminating]")).to_have_count(2)
        expect(page.locator(".whys")).to_contain_text("have not confirmed that yet: node-a, node-b")
        expect(page.locator("#instances [data-state=terminated]")).to_have_count(2, timeout=30_000)
        expect(page.locator("#journal")).to_contain_text("wrong input file")

        instance = services.trigger(talks, by="night").instances.get()
        page.goto(f"/instances/{instance.pk}/")
        expect(page.locator("#log-follow")).to_have_attribute("aria-pressed", "true")
        expect(page.locator(".line").last).to_have_text(re.compile("all read"), timeout=30_000)
        expect(page.locator(f"#instance-{instance.pk} .state")).to_have_attribute("data-state", "success")
        assert page.locator(".line").count() == 61
        assert page.locator("#log").evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") < 40


def test_a_long_log_is_read_backwards_searched_and_linked_to(page: Page) -> None:
    team = make.team("warehouse")
    make.user("mei", team=team)
    instance = make.batch(make.task("extract", group=make.group("etl", team=team))).instances.get()
    execution = make.start(instance)
    text = "".join(f"row {number}\n" for number in range(1, 3001))
    LogChunk.objects.create(execution=execution, sequence=0, text=text, written_at=timezone.now())
    make.end(instance)
    sign_in(page, f"/instances/{instance.pk}/")
    expect(page.locator(".line")).to_have_count(1000)
    page.locator("#log").scroll_into_view_if_needed()
    expect(page.locator("#L3000")).to_be_in_viewport()

    page.locator("#earlier").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".line")).to_have_count(2000)
    expect(page.locator("#L1001")).to_have_text(re.compile("row 1001"))

    page.get_by_label("Search the whole log").fill("row 77")
    page.keyboard.press("Enter")
    expect(page.locator(".hits")).to_contain_text("Hit 1 of 11, in line 77")
    expect(page.locator("#L77")).to_be_in_viewport()
    page.get_by_role("link", name="Next hit").click()
    expect(page.locator(".hits")).to_contain_text("in line 770")
    expect(page.locator("#L770 mark")).to_be_in_viewport()

    page.locator("#L771 a").click()
    page.locator("#L773 a").click(modifiers=["Shift"])
    assert page.url.endswith(f"/instances/{instance.pk}/?execution=1&line=771#L771-L773")
    page.reload()
    expect(page.locator(".line.chosen")).to_have_count(3)
    expect(page.locator("#L771")).to_be_in_viewport()
    page.goto(f"/instances/{instance.pk}/#L5")
    expect(page.locator("#L5")).to_be_in_viewport()


def test_some_unsuccessful_instances_are_chosen_and_rerun(page: Page) -> None:
    team = make.team("warehouse")
    make.user("mei", team=team)
    group = make.group("etl", team=team)
    make.node("node-a", group=group)
    batch = make.end_batch(make.batch(make.task("extract", group=group, shards=["AA", "UA", "DL"])), "failed")
    sign_in(page, f"/batches/{batch.pk}/")
    expect(page.get_by_role("link", name="Rerun 3 unsuccessful instances")).to_be_visible()
    boxes = page.locator("#instances .tick")
    boxes.nth(0).check()
    boxes.nth(2).check()
    expect(page.locator("#several")).to_contain_text("2 chosen")
    page.get_by_role("button", name="Rerun the chosen").click()
    page.get_by_label("Reason").fill("the disk is free again")
    page.get_by_role("button", name="Rerun 2 instances").click()
    expect(page.locator("#notices")).to_contain_text("2 instances run again.")
    expect(page.locator("#instances [data-state=waiting]")).to_have_count(2)
    expect(page.locator("#several")).to_be_hidden()
