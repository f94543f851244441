"""The plan as it will run, what drifted since, and its submission."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from reruns import services
from reruns.models import Rerun
from reruns.views.draft_timeline import tick_at
from scheduling.models import JournalEntry
from tests import factories as make
from tests.engine.rerun_support import at, cycle
from tests.web.conftest import Desk
from tests.web.draft_support import Downstream, address, chosen, seen, text_without_marks
from tests.web.pages import element, marks, text_of
from workflows import services as workflow_services
from workflows.models import CycleInstance


@pytest.fixture
def world(desk: Desk) -> Downstream:
    return Downstream(desk)


@pytest.fixture
def draft(world: Downstream, operator: Client) -> Rerun:
    """The source, `daily` after it and `report` after that; `board` is frozen and `scores` terminated."""
    downstream = [world.daily, world.report, world.board, world.scores]
    return world.draft(operator, *downstream, freeze_mode=True)


def submit(client: Client, draft: Rerun, page: Any = None, **asked: Any) -> Any:
    shown = page or client.get(address(draft, "plan"))
    drift = re.search(r'name="drift" value="(\w+)"', text_of(shown))
    sent = {"reason": "the sensor was wrong"} | seen(shown) | ({"drift": drift.group(1)} if drift else {})
    return client.post(address(draft, "plan"), sent | asked)


# --- what it says --------------------------------------------------------------------------------------


def test_the_plan_says_wave_by_wave_what_is_done_to_each(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    page = operator.get(address(draft, "plan"))
    order = [world.hourly, world.daily, world.report, world.scores, world.board]
    assert marks(page, "cycle") == [each.pk for each in order]
    said = text_without_marks(page)
    for words in ("Wave 1", "Wave 2", "Wave 3", "When the rerun has succeeded"):
        assert words in said
    assert "will be rerun" in element(page, f"cycle-{world.daily.pk}")
    assert "will be terminated, then rerun" in element(page, f"cycle-{world.scores.pk}")
    assert "will be frozen until the rerun succeeded" in element(page, f"cycle-{world.board.pk}")
    assert "2 of 3 nodes" in element(page, f"cycle-{world.hourly.pk}")
    assert "Rerun 4 instances" in said


def test_the_plan_says_what_is_left_and_what_becomes_of_it(world: Downstream, operator: Client) -> None:
    draft = world.draft(operator, world.daily)
    said = text_without_marks(operator.get(address(draft, "plan")))
    assert "1 offline or a test" in said
    assert "1 no permission of finance claims" in said
    # What waits for a cycle of the rerun waits for its result.
    assert "1 that is not ready waits for the result" in said
    assert "Not ready · waits for the result of the rerun" in said


def test_the_plan_says_its_settings_and_who_is_told(draft: Rerun, operator: Client) -> None:
    rules = [{"channel": "ops", "on": ["success"]}]
    services.save_settings(
        draft,
        as_it_ran=False,
        parallelism=2,
        on_failure="stop",
        parameters={"day": 7},
        notify=rules,
        by=operator.user,  # type: ignore[attr-defined]
    )
    said = text_without_marks(operator.get(address(draft, "plan")))
    for words in ("as it is now", "2 instances", "nothing more is generated", "day=7", "ops:"):
        assert words in said


def test_when_the_source_itself_cannot_be_rerun_any_more_nothing_is_offered(
    world: Downstream, operator: Client
) -> None:
    draft = world.draft(operator, world.daily)
    other = services.plan(world.hourly, by="lin", nodes=["check"])
    services.submit(other, by="lin", reason="in a hurry")
    page = operator.get(address(draft, "plan"))
    assert f"A rerun downstream cannot begin here. It is in rerun {other}" in text_without_marks(page)
    assert 'id="submit"' not in text_of(page)
    assert 'name="confirmed"' not in text_of(page)


def test_a_draft_that_was_discarded_in_another_window_says_so(world: Downstream, operator: Client) -> None:
    draft = world.draft(operator, world.daily)
    page = operator.get(address(draft, "plan"))
    sent = {"reason": "the wind was wrong"} | seen(page)
    services.discard(draft, by=operator.user)  # type: ignore[attr-defined]
    answer = operator.post(address(draft, "plan"), sent)
    assert answer.status_code == 404
    assert "This draft is gone: it was discarded" in text_of(answer)


def test_the_longest_path_is_marked(world: Downstream, operator: Client) -> None:
    slow = cycle(make.workflow("slow", group=world.desk.group), at(2), after=[world.daily], took=900)
    draft = world.draft(operator, world.daily, world.report, slow)
    page = operator.get(address(draft, "plan"))
    critical = [each for each in (world.hourly, world.daily, world.report, slow) if on_path(page, each)]
    assert critical == [world.hourly, world.daily, slow]


def on_path(page: Any, instance: CycleInstance) -> bool:
    return f'<tr id="cycle-{instance.pk}" class="critical">' in text_of(page)


def test_a_clock_near_an_end_of_the_axis_stays_inside_it() -> None:
    assert [tick_at(share, "12:00").edge for share in (0.0, 0.5, 0.97)] == ["first", "", "last"]


def test_the_page_asks_no_more_the_more_is_planned(world: Downstream, draft: Rerun, operator: Client) -> None:
    # The first look also keeps at which step its author is.
    operator.get(address(draft, "plan"))
    few = queries(operator, draft)
    more = [
        cycle(make.workflow(f"more_{n}", group=world.desk.group), at(2), after=[world.daily]) for n in range(20)
    ]
    services.choose(draft, [each.cycle_id for each in more], by=operator.user)  # type: ignore[attr-defined]
    assert queries(operator, draft) == few


def queries(client: Client, draft: Rerun) -> int:
    with CaptureQueriesContext(connection) as asked:
        assert client.get(address(draft, "plan")).status_code == 200
    return len(asked)


def test_a_long_plan_comes_in_pages(world: Downstream, operator: Client) -> None:
    workflow = make.workflow("many", group=world.desk.group)
    many = [cycle(workflow, at(hour, day=-9), after=[world.daily]) for hour in range(120)]
    draft = world.draft(operator, world.daily, *many)
    assert len(marks(operator.get(address(draft, "plan")), "cycle")) == 100
    second = operator.get(f"{address(draft, 'plan')}?page=2")
    assert len(marks(second, "cycle")) == 22
    assert "101 to 122 of 122" in text_of(second)


# --- submitting ----------------------------------------------------------------------------------------


def test_submitting_makes_the_record_and_says_why(world: Downstream, draft: Rerun, operator: Client) -> None:
    answer = submit(operator, draft)
    assert answer["Location"] == f"/reruns/{draft.pk}/"
    draft.refresh_from_db()
    assert (draft.state, draft.reason) == ("running", "the sensor was wrong")
    entry = JournalEntry.objects.filter(object_type="rerun", object_id=draft.pk).earliest("pk")
    assert (entry.user, entry.reason) == (operator.user, "the sensor was wrong")  # type: ignore[attr-defined]


def test_a_reason_is_asked_for(draft: Rerun, operator: Client) -> None:
    answer = submit(operator, draft, reason=" ")
    assert answer.status_code == 422
    assert "Say why; it is kept in the journal." in text_of(answer)
    draft.refresh_from_db()
    assert draft.is_draft


def test_an_old_window_submits_nothing_and_loses_nothing(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    old = operator.get(address(draft, "plan"))
    services.choose(draft, [world.costs.cycle_id], by=operator.user)  # type: ignore[attr-defined]
    answer = submit(operator, draft, old)
    assert answer.status_code == 409
    assert "changed in another window" in text_of(answer)
    assert 'value="the sensor was wrong"' in text_of(answer)
    draft.refresh_from_db()
    assert draft.is_draft


def test_what_drifted_is_shown_and_has_to_be_confirmed(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    page = operator.get(address(draft, "plan"))
    workflow_services.mark_success(world.report, by="ann", reason="looked at it")
    answer = submit(operator, draft, page)
    assert answer.status_code == 409
    said = text_without_marks(answer)
    assert "The plan has changed since you chose it" in said
    assert (
        f"{world.report.name} Failed (instance {world.report.pk}) Success (instance {world.report.pk})" in said
    )
    assert 'value="the sensor was wrong"' in text_of(answer)

    # Shown is not yet confirmed; and a box that was ticked for something else confirms nothing.
    assert submit(operator, draft, answer).status_code == 409
    assert submit(operator, draft, answer, confirmed="on", drift="0").status_code == 409
    assert submit(operator, draft, answer, confirmed="on").status_code == 302
    draft.refresh_from_db()
    assert draft.state == "running"


def test_what_cannot_be_done_any_more_is_named_and_left_out_when_confirmed(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    other = services.plan(world.report, by="lin", nodes=["a"])
    services.submit(other, by="lin", reason="in a hurry")
    page = operator.get(address(draft, "plan"))
    assert f"in rerun {other}" in text_without_marks(page)
    assert submit(operator, draft, page).status_code == 409
    assert submit(operator, draft, page, confirmed="on").status_code == 302
    assert chosen(draft).keys() == {"hourly", "daily", "board", "scores"}


def test_a_source_that_cannot_be_rerun_any_more_is_refused(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    other = services.plan(world.hourly, by="lin")
    services.submit(other, by="lin", reason="in a hurry")
    answer = submit(operator, draft, confirmed="on")
    assert answer.status_code == 409
    assert f"in rerun {other}" in text_without_marks(answer)
    draft.refresh_from_db()
    assert draft.is_draft


def test_a_draft_is_submitted_once(draft: Rerun, operator: Client) -> None:
    page = operator.get(address(draft, "plan"))
    assert submit(operator, draft, page).status_code == 302
    answer = submit(operator, draft, page)
    assert answer.status_code == 409
    assert "has been submitted already" in text_of(answer)
