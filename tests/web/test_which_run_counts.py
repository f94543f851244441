"""Which result stays effective: every dialog that may replace one says so and offers the choice, alike."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from reruns import services as rerun_services
from reruns.models import Rerun
from tests import factories as make
from tests.engine.rerun_support import cycle
from tests.web.conftest import Desk
from tests.web.pages import HTMX, element, text_of
from tests.web.test_cycle_list import answered, asked
from workflows import services
from workflows.forms import AS_IT_RAN, GO_ON
from workflows.models import CycleInstance

LABEL = "Discard the earlier result: downstream cycles wait until a new run succeeds"
DISCARDS = {"discards_earlier": "on"}


@pytest.fixture
def succeeded(desk: Desk) -> CycleInstance:
    return cycle(make.workflow("weather", group=desk.group, nodes="a"))


def ended(instance: CycleInstance, outcome: str) -> None:
    for run in instance.node_runs.running().select_related("batch"):
        make.end_batch(run.batch, outcome)


def counts(instance: CycleInstance) -> bool:
    """Whether `instance` is the effective run of its cycle, which has succeeded."""
    slot = make.fresh(instance).cycle
    return slot.effective_id == instance.pk and slot.succeeded


@pytest.mark.parametrize("discards", [False, True])
def test_a_stop_offers_to_discard_the_earlier_result(
    succeeded: CycleInstance, operator: Client, discards: bool
) -> None:
    again = services.rerun(succeeded, by="mei")
    question = text_of(operator.get(f"/cycles/{again.pk}/stop/"))
    assert "Run 1 succeeded. It becomes effective again, and downstream cycles use its result." in question
    assert f'<input type="checkbox" name="discards_earlier"> {LABEL}' in question
    operator.post(f"/cycles/{again.pk}/stop/", {"reason": "enough"} | (DISCARDS if discards else {}))
    ended(again, "terminated")
    assert counts(succeeded) is not discards


def test_a_choice_is_kept_when_the_reason_is_missing(succeeded: CycleInstance, operator: Client) -> None:
    again = services.rerun(succeeded, by="mei")
    answer = operator.post(f"/cycles/{again.pk}/stop/", DISCARDS)
    assert answer.status_code == 422
    assert f'name="discards_earlier" checked> {LABEL}' in text_of(answer)


def test_a_stop_of_a_run_that_discards_says_so_and_offers_to_keep_the_result(
    succeeded: CycleInstance, operator: Client
) -> None:
    again = services.rerun(succeeded, discards_earlier=True, by="mei")
    question = text_of(operator.get(f"/cycles/{again.pk}/stop/"))
    assert "Run 1 succeeded and was to be discarded. Untick the box to make it effective again." in question
    assert f'name="discards_earlier" checked> {LABEL}' in question
    operator.post(f"/cycles/{again.pk}/stop/", {"reason": "enough"})
    ended(again, "terminated")
    assert counts(succeeded)


@pytest.mark.parametrize("discards", [False, True])
def test_many_are_stopped_with_the_same_choice(desk: Desk, operator: Client, discards: bool) -> None:
    first = [cycle(make.workflow(name, group=desk.group, nodes="a")) for name in ("weather", "flights")]
    alone = services.rerun(cycle(make.workflow("new", group=desk.group, nodes="a"), state="failed"), by="mei")
    again = [*(services.rerun(each, by="mei") for each in first), alone]
    question = asked(operator, "stop", *again)
    said = text_of(question)
    assert "2 of them replace a success, which becomes effective again." in said
    assert "Discard the earlier results: downstream cycles wait until new runs succeed" in said
    answered(operator, "stop", question, **(DISCARDS if discards else {}))
    for each in again:
        ended(each, "terminated")
    assert [counts(each) for each in first] == [not discards] * 2


def test_where_nothing_succeeded_before_there_is_no_choice(desk: Desk, operator: Client) -> None:
    failed = cycle(make.workflow("weather", group=desk.group, nodes="a"), state="failed")
    for page in (f"/cycles/{failed.pk}/rerun/", f"/cycles/rerun/?query=&cycle={failed.pk}"):
        assert "discards_earlier" not in text_of(operator.get(page, headers=HTMX))
    again = services.rerun(failed, by="mei")
    assert "discards_earlier" not in text_of(operator.get(f"/cycles/{again.pk}/stop/"))
    assert "discards_earlier" not in text_of(asked(operator, "stop", again))


@pytest.mark.parametrize("discards", [False, True])
def test_a_rerun_by_hand_offers_the_same_choice(
    succeeded: CycleInstance, operator: Client, discards: bool
) -> None:
    page = f"/cycles/{succeeded.pk}/rerun/"
    question = text_of(operator.get(page))
    assert "If it does not succeed, the earlier result becomes effective again." in question
    assert LABEL in question
    sent = {
        "node": "a",
        "content": AS_IT_RAN,
        "node_parallelism": 0,
        "on_failure": GO_ON,
        "reason": "wrong",
    }
    operator.post(page, sent | (DISCARDS if discards else {}))
    again = CycleInstance.objects.get(rerun_of=succeeded)
    assert again.discards_earlier is discards
    ended(again, "failed")
    assert counts(succeeded) is not discards


@pytest.mark.parametrize("discards", [False, True])
def test_many_are_rerun_with_the_same_choice(
    succeeded: CycleInstance, operator: Client, discards: bool
) -> None:
    question = asked(operator, "rerun", succeeded)
    said = text_of(question)
    assert "1 cycle has a success, which becomes effective again when its rerun does not succeed." in said
    assert LABEL in said
    answered(operator, "rerun", question, **(DISCARDS if discards else {}))
    assert CycleInstance.objects.get(rerun_of=succeeded).discards_earlier is discards


def test_an_earlier_success_whose_record_was_removed_is_said_too(
    succeeded: CycleInstance, operator: Client
) -> None:
    again = services.rerun(succeeded, by="mei")
    type(again.cycle).objects.filter(pk=again.cycle_id).update(past_success=True)
    CycleInstance.objects.filter(pk=again.pk).update(rerun_of=None)
    succeeded.node_runs.all().delete()
    succeeded.delete()
    question = text_of(operator.get(f"/cycles/{again.pk}/stop/"))
    assert "An earlier run succeeded. Its result becomes effective again" in question


# --- a rerun downstream ------------------------------------------------------------------------------


@pytest.mark.parametrize("discards", [False, True])
def test_terminating_offers_the_choice_and_the_record_shows_what_was_kept(
    desk: Desk, operator: Client, discards: bool
) -> None:
    who: Any = operator.user  # type: ignore[attr-defined]
    weather = cycle(make.workflow("weather", group=desk.group, nodes="a"))
    cycle(make.workflow("flights", group=desk.group, nodes="a"), after=[weather])
    rerun = rerun_services.plan(weather, downstream="all", by=who)
    rerun_services.submit(rerun, by=who, reason="the sensor was wrong")
    rerun_services.advance(rerun.pk)
    question = text_of(operator.get(f"/reruns/{rerun.pk}/terminate/"))
    assert f"1 cycle keeps its earlier result, as its rerun has not succeeded: {weather.name}." in question
    assert LABEL in question
    chosen = {"discard_earlier": "on"} if discards else {}
    operator.post(f"/reruns/{rerun.pk}/terminate/", {"reason": "enough"} | chosen)
    item = rerun.items.get(cycle=weather.cycle_id)
    assert item.instance is not None
    ended(item.instance, "terminated")
    rerun_services.advance(rerun.pk)
    rerun = Rerun.objects.get(pk=rerun.pk)
    assert rerun.state == "terminated"
    row = element(operator.get(f"/reruns/{rerun.pk}/?view=list"), f"item-{item.pk}")
    assert ("earlier result kept" in row) is not discards
    assert counts(weather) is not discards


def test_what_was_stopped_for_a_rerun_and_has_no_earlier_success_is_named_when_it_is_terminated(
    desk: Desk, operator: Client
) -> None:
    who: Any = operator.user  # type: ignore[attr-defined]
    weather = cycle(make.workflow("weather", group=desk.group, nodes="a"))
    flights = cycle(make.workflow("flights", group=desk.group, nodes="a"), state="ready", after=[weather])
    rerun = rerun_services.plan(weather, downstream="all", freeze_mode=True, by=who)
    rerun_services.submit(rerun, by=who, reason="the sensor was wrong")
    services.stop(flights, by=who, reason="for the rerun")
    ended(flights, "terminated")
    flights.refresh_from_db()
    assert flights.state == "terminated"
    said = text_of(operator.get(f"/reruns/{rerun.pk}/terminate/"))
    assert f"1 cycle is left without a result; rerun it by hand: {flights.name}." in said


def test_the_record_shows_edits_since_the_submit_with_the_choice_to_run_them(
    desk: Desk, operator: Client, viewer: Client
) -> None:
    who: Any = operator.user  # type: ignore[attr-defined]
    weather = cycle(make.workflow("weather", group=desk.group, nodes="a"))
    flights = cycle(make.workflow("flights", group=desk.group, nodes="a"), after=[weather])
    rerun = rerun_services.plan(weather, downstream="all", as_it_ran=False, by=who)
    rerun_services.submit(rerun, by=who, reason="the sensor was wrong")
    page = f"/reruns/{rerun.pk}/"
    assert "Edited since the submit" not in text_of(operator.get(page))
    refused = operator.get(f"{page}take-content/")
    assert refused.status_code == 409

    make.workflow("flights", group=desk.group, nodes="a > b")
    drift = element(operator.get(page), "drift")
    assert "flights was edited on " in drift
    assert "1 instance may still run it." in drift
    assert 'id="take-content"' in drift
    assert 'id="take-content"' not in element(viewer.get(page), "drift")

    asked_first = text_of(operator.get(f"{page}take-content/"))
    assert "Instances already generated keep the content of the submit." in asked_first
    operator.post(f"{page}take-content/", {"reason": "b was missing"})
    rerun.refresh_from_db()
    flights.workflow.refresh_from_db()
    assert rerun.pinned["workflows"][str(flights.workflow_id)] == flights.workflow.revision_id
    after = operator.get(page)
    assert "Edited since the submit" not in text_of(after)
    assert "b was missing" in element(after, "journal")
