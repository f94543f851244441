"""An operator's first minutes, in a real browser."""

from __future__ import annotations

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from scheduling.models import Batch, Instance, JournalEntry, LogChunk
from tests import factories as make
from tests.flows.pages import loaded, sign_in

pytestmark = pytest.mark.django_db(transaction=True)


def running_batch() -> Batch:
    team = make.team("warehouse")
    make.user("mei", team=team)
    group = make.group("etl", team=team)
    make.node("node-a", group=group)
    batch = make.batch(make.task("extract", group=group, shards=["AA", "UA"]))
    make.start_batch(batch)
    return batch


def test_an_operator_signs_in_opens_a_batch_and_stops_it(page: Page) -> None:
    batch = running_batch()
    sign_in(page, "/batches/")
    page.get_by_role("link", name=str(batch.pk), exact=True).click()
    loaded(page)
    head = page.locator(f"#batch-{batch.pk}")
    expect(head.locator(".state")).to_have_attribute("data-state", "running")

    stop = head.locator("[data-action=stop]")
    stop.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 running instances are told to end")
    expect(dialog.get_by_label("Reason")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(stop).to_be_focused()

    page.keyboard.press("Enter")
    dialog.get_by_label("Reason").fill("wrong input file")
    page.keyboard.press("Enter")
    expect(head.locator(".state")).to_have_attribute("data-state", "terminating")
    expect(head).to_contain_text("Stopped by mei: wrong input file")
    expect(page.locator("#instances [data-state=terminating]")).to_have_count(2)
    expect(dialog).to_have_count(0)

    # The nodes confirm, and the page hears of it by itself.
    for instance in batch.instances.all():
        make.end(instance, "terminated")
    expect(head.locator(".state")).to_have_attribute("data-state", "terminated")
    expect(page.locator("#instances [data-action=rerun]")).to_have_count(2)
    assert JournalEntry.objects.filter(action="stopped", actor="mei", via="web").count() == 1


def test_a_viewer_finds_no_button_and_is_told_why_when_trying_the_address(page: Page) -> None:
    batch = running_batch()
    make.user("lena", team=batch.team, role="viewer")
    sign_in(page, "/batches/", name="lena")
    expect(page.locator(f"#batch-{batch.pk} .state")).to_have_attribute("data-state", "running")
    expect(page.locator("[data-action]")).to_have_count(0)
    page.get_by_role("link", name=str(batch.pk), exact=True).click()
    expect(page.locator("#instances .state")).to_have_count(2)
    expect(page.locator("[data-action]")).to_have_count(0)

    page.goto(f"/batches/{batch.pk}/stop/")
    expect(page.get_by_role("main")).to_contain_text("scheduling.stop_task")
    assert not Batch.objects.filter(state="terminating").exists()


def test_a_stop_that_comes_too_late_is_refused_beside_the_row(page: Page) -> None:
    batch = running_batch()
    sign_in(page, "/batches/")
    page.locator(f"#batch-{batch.pk} [data-action=stop]").click()
    page.get_by_label("Reason").fill("too late")
    make.end_batch(batch)
    page.get_by_role("button", name="Stop the batch").click()
    refusal = page.locator(f"#batch-{batch.pk}-refused")
    expect(refusal).to_contain_text("only an unfinished batch that was not stopped yet can be stopped")
    expect(page.locator(f"#batch-{batch.pk} .state")).to_have_attribute("data-state", "success")


def test_a_lost_connection_is_said_until_the_server_answers_again(page: Page) -> None:
    batch = running_batch()
    sign_in(page, "/batches/")
    stop = page.locator(f"#batch-{batch.pk} [data-action=stop]")
    notices = page.locator("#notices")
    page.context.set_offline(True)
    stop.click()
    expect(notices.get_by_role("alert").first).to_contain_text("The server cannot be reached.")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.context.set_offline(False)
    stop.click()
    expect(page.get_by_role("dialog")).to_contain_text("2 running instances are told to end")
    # What asked by itself meanwhile is heard again as well.
    expect(notices.get_by_role("alert", include_hidden=True)).to_have_count(0)


def test_a_rerun_from_the_list_brings_the_new_batch_to_its_top(page: Page) -> None:
    batch = make.end_batch(running_batch())
    sign_in(page, "/batches/")
    page.locator(f"#batch-{batch.pk} [data-action=rerun]").click()
    page.get_by_label("Reason").fill("the feed was corrected")
    page.get_by_role("button", name="Rerun the batch").click()
    again = page.locator("#batches tr").first
    expect(again).to_contain_text("rerun")
    expect(again.locator(".state")).to_have_attribute("data-state", "waiting")
    expect(page.locator("#batches tr")).to_have_count(2)
    expect(page.locator("#notices")).to_contain_text("has begun")


def test_a_log_grows_while_the_job_runs_and_ends_with_it(page: Page) -> None:
    batch = running_batch()
    instance = batch.instances.first()
    assert instance is not None
    execution = instance.executions.get()

    def write(sequence: int, text: str) -> None:
        LogChunk.objects.create(execution=execution, sequence=sequence, text=text, written_at=timezone.now())

    write(0, "reading flights\n")
    sign_in(page, f"/instances/{instance.pk}/")
    lines = page.locator("#log .line > span")
    expect(lines).to_have_text(["reading flights"])
    write(1, "<b>3,141</b> rows\n")
    expect(lines).to_have_text(["reading flights", "<b>3,141</b> rows"])
    make.end(instance, "failed", error="exit code 3", exit_code=3, may_retry=False)
    head = page.locator(f"#instance-{instance.pk}")
    expect(head.locator(".state")).to_have_attribute("data-state", "failed")
    expect(page.locator("#executions")).to_contain_text("exit code 3")
    expect(page.locator("#live")).to_have_attribute("hx-trigger", "acted from:body")

    # A rerun from elsewhere is not seen by a page at rest; one from here wakes it.
    page.locator("[data-action=rerun]").click()
    page.get_by_label("Reason").fill("again")
    page.get_by_role("button", name="Rerun the instance").click()
    expect(head.locator(".state")).to_have_attribute("data-state", "waiting")
    make.start(Instance.objects.select_related("group", "node").get(pk=instance.pk))
    expect(page.locator("#log-card h2")).to_have_text("Log of attempt 2")
