"""Backfill: cycles in order and so many at a time, whatever becomes of them, and after any crash."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests import factories as make
from tests.engine.cycle_support import Picture, traceless
from tests.engine.rerun_world import NOON
from workflows import services, transitions
from workflows.errors import CycleRefused
from workflows.models import Backfill, CycleInstance, Workflow
from workflows.services import backfills, clock

pytestmark = [pytest.mark.long, pytest.mark.django_db, pytest.mark.usefixtures("noon")]

HOUR = timedelta(hours=1)
HOURLY = {"cron": "0 * * * *", "timezone": "UTC"}


def hours(workflow: Workflow | None = None, count: int = 4, **options: Any) -> Backfill:
    """A backfill of the last `count` hours of a workflow, until noon."""
    of = workflow or make.workflow(parallelism=0, **HOURLY)
    return services.backfill(of, since=NOON - (count - 1) * HOUR, until=NOON, by="ann", **options)


def in_state(found: Backfill, state: str) -> list[int]:
    """The hours of the instances of a backfill in this state."""
    instances = found.instances.filter(state=state).order_by("cycle_time")
    return [each.cycle_time.hour for each in instances]


def end(found: Backfill, hour: int, outcome: str = "success") -> Backfill:
    make.end_node(found.instances.get(cycle_time__hour=hour), "a", outcome)
    return Backfill.objects.get(pk=found.pk)


@pytest.mark.parametrize(
    ("order", "turns"), [("oldest_first", [9, 10, 11, 12]), ("newest_first", [12, 11, 10, 9])]
)
def test_the_cycles_have_their_turn_in_order_and_the_last_one_ends_it(order: str, turns: list[int]) -> None:
    found = hours(order=order)
    for hour in turns:
        assert in_state(found, "running") == [hour]
        found = end(found, hour)
    assert (found.state, found.ended_at is not None) == ("success", True)
    Picture().check()


def test_so_many_run_at_once_as_it_says() -> None:
    found = hours(parallelism=3)
    assert in_state(found, "running") == [9, 10, 11]
    end(found, 10)
    assert in_state(found, "running") == [9, 11, 12]


def test_its_workflow_still_holds_back_what_it_has_no_room_for() -> None:
    found = hours(make.workflow(parallelism=1, **HOURLY), parallelism=3)
    assert (in_state(found, "running"), in_state(found, "ready")) == ([9], [10, 11])
    end(found, 9)
    assert (in_state(found, "running"), in_state(found, "ready")) == ([10], [11, 12])


@pytest.mark.parametrize("outcome", ["failed", "timed_out"])
def test_a_failed_cycle_drops_none_of_the_others(outcome: str) -> None:
    found = hours()
    found = end(found, 9, outcome)
    assert (found.state, in_state(found, "running")) == ("running", [10])
    for hour in (10, 11, 12):
        found = end(found, hour)
    assert (found.state, in_state(found, "success")) == ("failed", [10, 11, 12])


def test_a_stopped_cycle_drops_none_of_the_others_before_and_after_its_turn() -> None:
    found = hours()
    services.stop(found.instances.get(cycle_time__hour=11), by="ann")
    running = found.instances.get(cycle_time__hour=9)
    services.stop(running, by="ann")
    assert in_state(found, "running") == [10]
    end(found, 10)
    found = end(found, 12)
    assert (found.state, in_state(found, "terminated")) == ("failed", [9, 11])


def test_paused_it_gives_no_turn_and_resumed_it_goes_on() -> None:
    found = services.pause_backfill(hours(), by="ann", reason="wait")
    found = end(found, 9)
    assert (found.state, in_state(found, "running")) == ("paused", [])
    found = services.resume_backfill(found, by="ann")
    assert (found.state, in_state(found, "running")) == ("running", [10])


@pytest.mark.parametrize(("outcome", "state"), [("failed", "paused"), ("success", "running")])
def test_it_pauses_on_a_failure_if_so_asked(outcome: str, state: str) -> None:
    found = end(hours(pause_on_failure=True), 9, outcome)
    assert found.state == state
    assert in_state(found, "running") == ([] if state == "paused" else [10])


def test_the_last_cycle_ends_a_paused_one_too() -> None:
    found = services.pause_backfill(hours(count=1))
    assert end(found, 12).state == "success"


def test_terminated_it_cancels_what_has_not_begun_and_ends_when_the_rest_confirms() -> None:
    found = hours(parallelism=2)
    running = found.instances.filter(state="running").order_by("cycle_time")
    make.start_batch(running[0].node_runs.get().batch)

    found = services.terminate_backfill(found, by="ann", reason="wrong file")

    assert (found.state, in_state(found, "cancelled")) == ("terminating", [11, 12])
    assert (in_state(found, "terminated"), in_state(found, "running")) == ([10], [9])
    found = end(found, 9, "terminated")
    assert (found.state, in_state(found, "terminated")) == ("terminated", [9, 10])
    Picture().check()


@pytest.mark.parametrize("verb", ["pause_backfill", "resume_backfill", "terminate_backfill"])
def test_what_has_ended_is_neither_paused_nor_resumed_nor_terminated(verb: str) -> None:
    found = end(hours(count=1), 12)
    with pytest.raises(CycleRefused, match=f"Backfill {found.pk} has state Success, from which it cannot be"):
        getattr(services, verb)(found)


# --- crashes -----------------------------------------------------------------------------------------


def test_a_process_that_was_killed_while_it_terminated_is_made_good_step_by_step() -> None:
    found = hours(parallelism=2)
    # It was marked, and nothing more; then one was cancelled, and nothing more; then a stop was asked.
    Backfill.objects.filter(pk=found.pk).update(state="terminating")
    [_nine, _ten, eleven, _twelve] = found.instances.order_by("cycle_time")
    transitions.cancel(eleven.pk, by="ann", reason="")
    transitions.stop(found.instances.get(cycle_time__hour=9).pk, by="ann", reason="")

    while clock.carry_on():
        pass

    found.refresh_from_db()
    assert (found.state, in_state(found, "terminated"), in_state(found, "cancelled")) == (
        "terminated",
        [9, 10],
        [11, 12],
    )
    Picture().check()


def test_turns_that_nobody_gave_are_given() -> None:
    found = hours(parallelism=2)
    CycleInstance.objects.filter(state="ready").update(state="not_ready")
    found.instances.filter(state="running").first()
    Backfill.objects.filter(pk=found.pk).update(parallelism=4)

    assert backfills.carry_on(Backfill.objects.get(pk=found.pk)) == 1
    assert in_state(found, "running") == [9, 10, 11, 12]
    assert backfills.carry_on(Backfill.objects.get(pk=found.pk)) == 0


# --- plans and refusals ------------------------------------------------------------------------------


def test_the_plan_says_what_would_run_and_makes_nothing() -> None:
    workflow = make.workflow(**HOURLY)
    first = hours(workflow, 2)
    before = CycleInstance.objects.count(), Backfill.objects.count()

    plan = services.plan_backfill(workflow, since=NOON - 3 * HOUR, until=NOON, order="newest_first")

    assert [each.cycle_time.hour for each in plan] == [12, 11, 10, 9]
    unfinished = {each.cycle_time.hour: each.pk for each in first.instances.all()}
    assert [each.refused for each in plan] == [
        f"Cycle instance {unfinished[12]} of it is unfinished.",
        f"Cycle instance {unfinished[11]} of it is unfinished.",
        "",
        "",
    ]
    assert before == (CycleInstance.objects.count(), Backfill.objects.count())


def test_unfinished_cycles_are_left_out_and_when_all_are_it_is_refused() -> None:
    workflow = make.workflow(parallelism=0, **HOURLY)
    hours(workflow, 2)
    assert in_state(hours(workflow, 4, parallelism=4), "running") == [9, 10]
    with pytest.raises(CycleRefused, match="Every cycle of this range is unfinished already"):
        hours(workflow, 4)


@pytest.mark.parametrize(
    ("content", "since", "until", "says"),
    [
        ({}, NOON - HOUR, NOON, "has no schedule, so it has no cycles"),
        (HOURLY, NOON, NOON - HOUR, "ends before it begins"),
        (HOURLY, NOON, NOON + HOUR, "ends in the future"),
        (HOURLY, NOON - timedelta(minutes=9), NOON - timedelta(minutes=5), "has no cycle in this range"),
        (HOURLY, NOON - 6000 * HOUR, NOON, "more than 5000 cycles"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(
    content: dict[str, Any], since: datetime, until: datetime, says: str
) -> None:
    workflow = make.workflow(**content)
    for ask in (services.plan_backfill, services.backfill):
        with pytest.raises(CycleRefused, match=says):
            traceless(lambda ask=ask: ask(workflow, since=since, until=until), AssertionError)
    assert not Backfill.objects.exists()


def test_cycles_that_wait_for_the_one_before_do_not_begin_with_the_newest() -> None:
    itself = [{"workflow": "chain", "cycles": "previous"}]
    workflow = make.workflow("chain", depends_on=itself, starts_at=NOON - 3 * HOUR, **HOURLY)
    with pytest.raises(CycleRefused, match=r"waits for the one before it.*the oldest first"):
        hours(workflow, order="newest_first")

    found = hours(workflow, order="newest_first", waits_for_upstream=False)
    assert in_state(found, "running") == [12]
    services.terminate_backfill(found)
    found = hours(workflow)
    for hour in (9, 10, 11, 12):
        assert in_state(found, "running") == [hour]
        found = end(found, hour)
    assert found.state == "success"


def test_a_cycle_whose_upstream_is_missing_waits_for_it_when_it_is_its_turn() -> None:
    group = make.group()
    upstream = make.workflow("up", group=group, starts_at=NOON - 9 * HOUR, parallelism=0, **HOURLY)
    below = make.workflow("down", group=group, depends_on=[{"workflow": "up"}], **HOURLY)
    plan = services.plan_backfill(below, since=NOON, until=NOON)
    found = hours(below, 2)
    assert (len(plan), in_state(found, "not_ready")) == (1, [11, 12])
    [candidate] = services.plan_backfill(below, since=NOON - HOUR, until=NOON - HOUR)
    assert candidate.waits_for == 1

    above = hours(upstream, 1)
    end(above, 12)
    assert in_state(found, "running") == [], "it is the turn of eleven o'clock"
    above = services.backfill(upstream, since=NOON - HOUR, until=NOON - HOUR)
    end(above, 11)
    assert in_state(found, "running") == [11]
    end(found, 11)
    assert in_state(found, "running") == [12]
