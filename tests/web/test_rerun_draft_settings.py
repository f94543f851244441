"""Step 3: how the rerun runs, and who is told."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from reruns.models import Rerun
from tests.web.conftest import Desk
from tests.web.draft_support import Downstream, address, seen, text_without_marks
from tests.web.pages import text_of

SETTINGS = {"content": "now", "parallelism": "3", "node_parallelism": "2", "on_failure": "stop"}


@pytest.fixture
def world(desk: Desk) -> Downstream:
    return Downstream(desk)


@pytest.fixture
def draft(world: Downstream, operator: Client) -> Rerun:
    return world.draft(operator, world.daily)


@pytest.fixture(autouse=True)
def channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_CHANNEL_OPS", "json://example.org")


def save(client: Client, draft: Rerun, **asked: Any) -> Any:
    page = client.get(address(draft, "settings"))
    return client.post(address(draft, "settings"), SETTINGS | seen(page) | asked)


def test_settings_are_saved_and_lead_to_the_plan(draft: Rerun, operator: Client) -> None:
    told = ["success:ops", "terminated:ops", "instance_failed:ops"]
    answer = save(operator, draft, tell=told, name=["day"], value=["7"], **{"as": ["json"]})
    assert answer["Location"] == address(draft, "plan")
    draft.refresh_from_db()
    assert (draft.as_it_ran, draft.parallelism, draft.node_parallelism) == (False, 3, 2)
    assert (draft.on_failure, draft.parameters) == ("stop", {"day": 7})
    assert draft.notify == [{"channel": "ops", "on": ["success", "terminated", "instance_failed"]}]

    page = text_of(operator.get(address(draft, "settings")))
    assert 'name="name" value="day"' in page
    assert page.count('value="success:ops" checked') == 1
    assert re.search(r'name="content" value="now"[^>]* checked', page)


def test_back_saves_too(draft: Rerun, operator: Client) -> None:
    assert save(operator, draft, back="1")["Location"] == address(draft, "downstream")
    draft.refresh_from_db()
    assert draft.parallelism == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"parallelism": ""}, "Say how many may run at once; 0 is no limit."),
        ({"node_parallelism": "-1"}, "greater than or equal to 0"),
        ({"on_failure": "explode"}, "Select a valid choice"),
        ({"name": ["a"], "value": ["{"], "as": ["json"]}, "This is not JSON"),
        ({"name": ["a", "a"], "value": ["1", "2"], "as": ["text", "text"]}, "there twice"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_of_it_is_lost(
    draft: Rerun, operator: Client, wrong: dict[str, Any], said: str
) -> None:
    answer = save(operator, draft, **wrong)
    assert answer.status_code == 422
    assert said in text_of(answer).replace("&#x27;", "'")
    draft.refresh_from_db()
    assert draft.parallelism == 0


def test_a_parameter_that_no_job_may_be_given_is_said_at_its_line(draft: Rerun, operator: Client) -> None:
    answer = save(operator, draft, name=["data_date"], value=["x"], **{"as": ["text"]})
    assert answer.status_code == 422
    assert 'class="error" id="error-1"' in text_of(answer)


def test_a_line_is_added_without_a_script(draft: Rerun, operator: Client) -> None:
    page = save(operator, draft, add="1", name=["day"], value=["7"], **{"as": ["text"]}, tell=["success:ops"])
    assert text_of(page).count('name="value"') == 2
    # Whatever else was filled in is still there.
    assert 'name="parallelism" value="3"' in text_of(page)
    assert 'value="success:ops" checked' in text_of(page)
    draft.refresh_from_db()
    assert draft.parameters == {}


def test_an_old_window_does_not_overwrite_the_settings(draft: Rerun, operator: Client) -> None:
    old = seen(operator.get(address(draft, "settings")))
    save(operator, draft)
    answer = operator.post(address(draft, "settings"), SETTINGS | old | {"parallelism": "9"})
    assert answer.status_code == 409
    assert "changed in another window" in text_of(answer)
    draft.refresh_from_db()
    assert draft.parallelism == 3


def test_a_channel_that_is_not_configured_here_stays_with_the_draft(draft: Rerun, operator: Client) -> None:
    Rerun.objects.filter(pk=draft.pk).update(notify=[{"channel": "night", "on": ["terminated"]}])
    page = operator.get(address(draft, "settings"))
    assert "not configured here" in text_of(page)
    assert 'value="terminated:night" checked' in text_of(page)


def test_without_channels_the_page_says_how_to_have_one(
    draft: Rerun, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TAILRACE_CHANNEL_OPS")
    assert "No channel is configured" in text_without_marks(operator.get(address(draft, "settings")))


def test_an_event_that_nothing_tells_of_is_left_out(draft: Rerun, operator: Client) -> None:
    save(operator, draft, tell=["late:ops", "success:", "nonsense"])
    draft.refresh_from_db()
    assert draft.notify == []
