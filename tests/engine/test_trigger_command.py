"""`trigger` begins a batch from the shell, and waits for it when asked."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from scheduling.models import Batch
from scheduling.states import BatchState
from tests import factories

pytestmark = pytest.mark.django_db


def trigger(task: str, *arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("trigger", task, *arguments, stdout=out, stderr=out, no_color=True, **options)
    return out.getvalue()


def test_a_triggered_task_begins_a_batch_with_its_parameters() -> None:
    task = factories.task("extract", group=(node := factories.node()).group)
    said = trigger("extract", "--param", "day=2013-01-01", "--param", "limit:=5", reason="again")
    batch = Batch.objects.get()
    assert said == f"batch {batch.pk} of {task.team.name}/extract: /batches/{batch.pk}/\n"
    assert batch.parameters == {"day": "2013-01-01", "limit": 5}
    assert batch.trigger == "manual"
    assert node.group_id == batch.group_id


def test_a_batch_that_nobody_can_run_says_so() -> None:
    factories.task("extract", group=factories.group("etl"))
    assert "No node of the group etl is online; the batch waits for one." in trigger("extract")


def test_a_task_is_found_by_team_and_name() -> None:
    for team in ("a", "b"):
        factories.task("extract", group=factories.group(team=factories.team(team)))
    with pytest.raises(
        CommandError, match="several teams have a task extract: write one of a/extract, b/extract"
    ):
        trigger("extract")
    assert " of b/extract: " in trigger("b/extract")
    assert " of a/extract: " in trigger("extract", team="a")
    with pytest.raises(CommandError, match="a/extract is not of the team b; leave --team out"):
        trigger("a/extract", team="b")
    with pytest.raises(CommandError, match=r"there is no task extarct\. Did you mean [ab]/extract"):
        trigger("extarct")
    with pytest.raises(CommandError, match=r"there is no task zzz\.$"):
        trigger("zzz")


@pytest.mark.parametrize(
    ("given_param", "said"),
    [
        ("x", "write name=text"),
        ("=5", "write name=text"),
        ("x:={", "is not JSON"),
        ("batch_id=5", "parameters.batch_id"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(given_param: str, said: str) -> None:
    factories.task("extract")
    with pytest.raises(CommandError, match=said):
        trigger("extract", "--param", given_param)
    assert not Batch.objects.exists()


def test_a_refused_trigger_is_said_in_one_line() -> None:
    factories.task("extract", overlap="skip")
    trigger("extract")
    with pytest.raises(CommandError, match="skips a run while batch"):
        trigger("extract")


@pytest.mark.parametrize(("outcome", "code"), [("success", 0), ("failed", 1)])
def test_waiting_ends_with_the_batch_and_by_its_result(
    monkeypatch: pytest.MonkeyPatch, outcome: str, code: int
) -> None:
    factories.task("extract")
    # The batch ends between two looks at it.
    monkeypatch.setattr("time.sleep", lambda _seconds: factories.end_batch(Batch.objects.get(), outcome))
    if code:
        with pytest.raises(SystemExit) as leaving:
            trigger("extract", wait=True)
        assert leaving.value.code == code
    else:
        assert "success (1 of 1 instances succeeded)" in trigger("extract", wait=True)
    assert Batch.objects.get().state == BatchState(outcome)
