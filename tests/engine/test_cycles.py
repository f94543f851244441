"""Cycle instances: how nodes follow each other, how the whole ends, and what operators do to one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.utils import timezone

from scheduling import services as batch_services
from scheduling.models import Batch, Deadline, JournalEntry, Notification
from scheduling.notifications.deadlines import pass_due
from tests import factories as make
from tests.engine.cycle_support import Picture
from workflows import services, transitions
from workflows.errors import CycleRefused
from workflows.models import CycleInstance, NodeRun
from workflows.services import clock

pytestmark = pytest.mark.django_db


def test_nodes_run_in_the_order_of_their_edges_and_the_whole_succeeds() -> None:
    instance = make.cycle(make.workflow(nodes="a > b > c"))

    assert make.states(instance) == {"a": "running", "b": "waiting", "c": "waiting"}
    instance = make.end_node(instance, "a")
    assert make.states(instance) == {"a": "success", "b": "running", "c": "waiting"}
    make.end_node(instance, "b")
    instance = make.end_node(instance, "c")
    assert (instance.state, instance.succeeded, instance.total) == ("success", 3, 3)
    assert instance.ended_at is not None


def test_a_join_of_all_waits_for_every_branch_and_fires_once() -> None:
    instance = make.cycle(make.workflow(nodes="a > c, b > c"))

    make.end_node(instance, "a")
    assert make.states(instance)["c"] == "waiting"
    make.end_node(instance, "b")

    assert make.states(instance)["c"] == "running"
    assert Batch.objects.filter(node_runs__instance=instance, node_runs__node__key="c").count() == 1


def test_a_join_of_any_starts_with_the_first_branch_and_not_again_with_the_second() -> None:
    nodes = [{"key": "a"}, {"key": "b"}, {"key": "c", "after": ["a", "b"], "join": "any"}]
    instance = make.cycle(make.workflow(nodes=nodes))

    make.end_node(instance, "b")
    [begun] = NodeRun.objects.filter(instance=instance, node__key="c").values_list("batch", flat=True)
    make.end_node(instance, "a")

    assert NodeRun.objects.get(instance=instance, node__key="c").batch_id == begun
    assert make.end_node(instance, "c").state == "success"


def test_a_branch_that_is_not_taken_leaves_a_batch_that_says_so() -> None:
    instance = make.cycle(make.workflow(nodes="load > report, load > alarm!, alarm > clean"))

    make.end_node(instance, "load")
    instance = make.end_node(instance, "report")

    assert make.states(instance) == {
        "load": "success",
        "report": "success",
        "alarm": "condition_not_met",
        "clean": "condition_not_met",
    }
    assert instance.state == "success"
    batch = Batch.objects.get(node_runs__instance=instance, node_runs__node__key="alarm")
    assert (batch.state, batch.trigger, batch.total) == ("condition_not_met", "workflow", 0)
    assert batch.reason == "Its branch was not taken: load (failure)"


def test_a_failed_core_node_fails_the_cycle_after_its_handler_ran() -> None:
    instance = make.cycle(make.workflow(nodes="load > report, load > alarm!"))

    instance = make.end_node(instance, "load", "failed")
    assert (instance.state, make.states(instance)["alarm"]) == ("running", "running")
    instance = make.end_node(instance, "alarm")

    assert (instance.state, instance.reason) == ("failed", "Did not succeed: load")


def test_only_core_nodes_decide() -> None:
    nodes = [{"key": "load"}, {"key": "mail", "after": ["load"], "core": False}]
    instance = make.cycle(make.workflow(nodes=nodes))

    make.end_node(instance, "load")
    instance = make.end_node(instance, "mail", "failed")

    assert instance.state == "success"


def test_a_result_chooses_the_branch() -> None:
    nodes = [
        {"key": "check", "task": "check"},
        {"key": "repair", "after": [{"node": "check", "on": "result", "expected": {"late": True}}]},
        {"key": "publish", "after": [{"node": "check", "on": "result", "expected": {"late": False}}]},
    ]
    instance = make.cycle(make.workflow(nodes=nodes))
    [check] = Batch.objects.filter(node_runs__instance=instance)
    [running] = make.start_batch(check)
    make.end(running, result={"late": True, "rows": 3})

    assert make.states(instance) == {"check": "success", "repair": "running", "publish": "condition_not_met"}


def test_a_broadcast_without_a_node_fails_its_node_on_the_spot_and_the_rest_follows() -> None:
    group = make.group()
    make.task("all", group=group, mode="broadcast")
    instance = make.cycle(make.workflow(nodes="all > after, all > alarm!", group=group))

    assert make.states(instance) == {"all": "failed", "after": "condition_not_met", "alarm": "running"}


def test_the_end_of_a_batch_that_is_told_twice_changes_nothing() -> None:
    instance = make.cycle(make.workflow(nodes="a > b"))
    [batch] = Batch.objects.filter(node_runs__instance=instance)
    make.end_node(instance, "a")
    before = make.states(instance), Batch.objects.count(), make.fresh(instance).succeeded

    transitions.batch_ended(batch.pk)

    assert before == (make.states(instance), Batch.objects.count(), make.fresh(instance).succeeded)


# --- the calendar ------------------------------------------------------------------------------------

DAILY = {"cron": "0 1 * * *", "timezone": "UTC"}
HOURLY = {"cron": "0 * * * *", "timezone": "UTC"}
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
at_noon = time_machine.travel(NOON, tick=False)


@at_noon
def test_cycles_are_generated_to_the_end_of_tomorrow_and_not_twice() -> None:
    workflow = make.workflow(**DAILY)
    assert CycleInstance.objects.count() == 1
    assert services.generate(workflow.pk, NOON) == 0
    assert services.generate(workflow.pk, NOON + timedelta(days=1)) == 1
    assert [each.cycle_time.day for each in CycleInstance.objects.order_by("cycle_time")] == [21, 22]
    first = CycleInstance.objects.order_by("cycle_time").first()
    assert first is not None
    assert (first.state, first.run_type, first.online, str(first.data_date)) == (
        "not_ready",
        "online",
        True,
        "2026-11-20",
    )
    assert first.cycle.effective_id == first.pk


@pytest.mark.long
@at_noon
def test_a_cycle_is_ready_when_its_time_came_and_all_its_upstream_succeeded() -> None:
    team = make.group()
    hourly = make.workflow("weather", group=team, starts_at=NOON - timedelta(days=3), parallelism=0, **HOURLY)
    daily = make.workflow(
        "flights", group=team, depends_on=[{"workflow": "weather", "cycles": "within_period"}], **DAILY
    )
    day = CycleInstance.objects.get(workflow=daily)
    assert day.cycle.upstreams.count() == 24

    late = datetime(2026, 11, 21, 1, 30, tzinfo=UTC)
    clock.make_due(late)
    assert make.fresh(day).state == "not_ready"
    hours = list(CycleInstance.objects.filter(workflow=hourly, cycle_time__lte=late).order_by("cycle_time"))
    assert {each.state for each in hours} == {"running"}
    for each in hours:
        make.end_node(each, "a")
    # Its first eleven hours were never generated: they are missing still.
    assert make.fresh(day).state == "not_ready"
    missing = services.backfill(hourly, since=NOON - timedelta(hours=11), until=NOON, parallelism=24)
    for each in missing.instances.all():
        make.end_node(each, "a")

    assert make.fresh(day).state == "running"
    missing.refresh_from_db()
    assert missing.state == "success"


@at_noon
def test_parallelism_holds_ready_cycles_back_the_oldest_first() -> None:
    make.workflow(parallelism=1, **HOURLY)
    clock.make_due(NOON + timedelta(hours=2))
    first, second = CycleInstance.objects.exclude(state="not_ready").order_by("cycle_time")

    assert (first.state, second.state) == ("running", "ready")
    make.end_node(first, "a", "failed")
    assert make.fresh(second).state == "running"


# --- operators ---------------------------------------------------------------------------------------


def test_a_stop_cancels_what_has_not_begun_and_ends_when_the_batches_confirm() -> None:
    instance = make.cycle(make.workflow(nodes="a > b, c"))
    running = Batch.objects.get(node_runs__instance=instance, node_runs__node__key="a")
    make.start_batch(running)

    instance = services.stop(instance, by="ann", reason="wrong file")

    assert (instance.state, instance.stopping) == ("running", "stop")
    assert make.states(instance) == {"a": "running", "b": "cancelled", "c": "terminated"}
    running.refresh_from_db()
    assert running.state == "terminating"
    make.end(running.instances.get(), "terminated")
    instance = make.fresh(instance)
    assert (instance.state, instance.reason) == (
        "terminated",
        "The cycle instance was stopped by ann: wrong file",
    )
    with pytest.raises(CycleRefused, match="only an unfinished one"):
        services.stop(instance)


def test_a_rerun_of_chosen_nodes_carries_the_others() -> None:
    workflow = make.workflow(nodes="a > b > c")
    source = make.cycle(workflow)
    make.end_node(source, "a")
    source = make.end_node(source, "b", "failed")
    assert source.state == "failed"
    assert [each.key for each in services.choice_for_rerun(source) if each.chosen] == ["b", "c"]

    again = services.rerun(source, by="ann", reason="the file was late")

    assert make.states(again) == {"a": "success", "b": "running", "c": "waiting"}
    carried = again.node_runs.get(node__key="a")
    assert carried.carried
    assert carried.batch_id == source.node_runs.get(node__key="a").batch_id
    make.end_node(again, "b")
    again = make.end_node(again, "c")
    assert (again.state, again.number, again.rerun_of_id) == ("success", 2, source.pk)
    assert make.fresh(source).state == "failed"
    assert JournalEntry.objects.filter(object_type="cycleinstance", object_id=again.pk, action="rerun").exists()


def test_a_rerun_of_only_what_failed_is_no_success_while_what_follows_was_left_out() -> None:
    source = make.cycle(make.workflow(nodes="a > b"))
    source = make.end_node(source, "a", "failed")

    again = services.rerun(source, nodes=["a"], by="ann")
    again = make.end_node(again, "a")

    assert (again.state, again.reason) == (
        "failed",
        "Node b did not succeed: Its branch was not taken: a (success)",
    )


@at_noon
def test_a_frozen_cycle_waits_until_it_is_unfrozen() -> None:
    make.workflow(**HOURLY)
    first = CycleInstance.objects.order_by("cycle_time").first()
    assert first is not None
    services.freeze(first, by="ann", reason="wait for the fix", holder="rerun:1")
    clock.make_due(NOON + timedelta(hours=1))

    assert make.fresh(first).state == "not_ready"
    with pytest.raises(CycleRefused, match="which alone can unfreeze it"):
        services.unfreeze(first, by="bob")
    assert services.unfreeze(first, holder="rerun:1").state == "running"


@at_noon
def test_marking_a_failure_as_success_lets_the_downstream_go_on() -> None:
    group = make.group()
    upstream = make.workflow("up", group=group, starts_at=NOON, **DAILY)
    downstream = make.workflow("down", group=group, depends_on=[{"workflow": "up"}], **DAILY)
    clock.make_due(NOON + timedelta(days=1))
    up, down = (CycleInstance.objects.get(workflow=each) for each in (upstream, downstream))
    make.end_node(up, "a", "failed")
    assert make.fresh(down).state == "not_ready"

    services.mark_success(up, by="ann", reason="checked by hand")

    assert make.fresh(down).state == "running"
    with pytest.raises(CycleRefused):
        services.mark_success(up, by="ann")


@at_noon
def test_a_rerun_that_was_stopped_before_it_began_can_be_marked_and_shows_that_nothing_ran() -> None:
    make.workflow(cron="0 13,14 * * *", timezone="UTC", starts_at=NOON, parallelism=1)
    clock.make_due(NOON + timedelta(hours=2))
    first, second = CycleInstance.objects.filter(due=True).order_by("cycle_time")
    make.end_node(first, "a", "failed")
    assert make.fresh(second).state == "running", "which leaves no room for the rerun"
    again = services.rerun(first, by="ann")
    services.stop(again, by="ann")

    services.mark_success(again, by="ann", reason="it was delivered by hand")

    assert make.fresh(first).cycle.succeeded
    assert (make.fresh(again).state, make.fresh(again).started_at) == ("success", None)
    assert [run.state for run in again.node_runs.all()] == ["cancelled"]
    Picture().check()


# --- who is told -------------------------------------------------------------------------------------

RULES = [{"channel": "ops", "on": ["failure", "late"], "late_after": "2h"}]


def told() -> list[tuple[str, str]]:
    return list(Notification.objects.order_by("key").values_list("event", "subject"))


@at_noon
def test_a_failed_cycle_is_told_of_once_and_a_test_is_not() -> None:
    workflow = make.workflow("flights", group=make.group(team=make.team("air")), notify=RULES, **DAILY)
    make.end_node(make.cycle(workflow), "a", "failed")
    assert told() == []
    clock.make_due(NOON + timedelta(days=1))

    online = CycleInstance.objects.get(run_type="online")
    failed = make.end_node(online, "a", "failed", error="exit code 3")
    services.mark_success(failed, by="ann")

    assert told() == [("failure", "[air] flights 2026-11-21 01:00 UTC failed")]
    text = Notification.objects.get().text
    assert "data date 2026-11-20, ended: failed" in text
    assert text.splitlines()[-1] == "Node a did not succeed: exit code 3"


@at_noon
@pytest.mark.parametrize(
    ("other", "state", "event"), [("success", "terminated", "stopped"), ("failed", "failed", "failure")]
)
def test_a_cycle_whose_nodes_were_stopped_was_stopped_and_failed_only_when_another_node_did(
    other: str, state: str, event: str
) -> None:
    rules = [{"channel": "ops", "on": ["failure", "stopped"]}]
    make.workflow("flights", group=make.group(team=make.team("air")), nodes="a, b", notify=rules, **DAILY)
    clock.make_due(NOON + timedelta(days=1))
    online = CycleInstance.objects.get(run_type="online")
    batch = online.node_runs.get(node__key="a").batch
    [running] = make.start_batch(batch)
    batch_services.stop(batch, by="ann", reason="wrong file")
    make.end(running, "terminated")
    ended = make.end_node(online, "b", other)
    assert ended.state == state
    assert [event for event, _subject in told()] == [event]


@at_noon
def test_a_stopped_cycle_is_an_event_that_rules_for_failures_do_not_name() -> None:
    make.workflow("flights", notify=RULES, **DAILY)
    clock.make_due(NOON + timedelta(days=1))
    services.stop(CycleInstance.objects.get(run_type="online"), by="ann", reason="wrong file")
    assert CycleInstance.objects.get().state == "terminated"
    assert told() == []


@at_noon
def test_the_message_of_a_failed_cycle_names_the_cause_of_each_node() -> None:
    make.workflow("flights", nodes="a, b", notify=RULES, **DAILY)
    clock.make_due(NOON + timedelta(days=1))
    online = CycleInstance.objects.get(run_type="online")
    make.end_node(online, "a", "failed", error="exit code 3")

    failed = make.end_node(online, "b", "timed_out", error="ended after its time-out of 60 s")

    assert failed.reason == "Nodes a, b did not succeed; a: exit code 3"
    lines = Notification.objects.get().text.splitlines()
    assert lines[-2:] == ["– a: exit code 3", "– b: ended after its time-out of 60 s"]


def test_a_cycle_that_stops_on_failure_names_the_node_and_the_cause() -> None:
    source = make.end_node(make.cycle(make.workflow(nodes="a, b")), "a", "failed")
    again = services.rerun(make.end_node(source, "b", "failed"), stop_on_failure=True, by="ann")

    make.end_node(again, "a", "failed", error="exit code 3")

    reason = make.fresh(again).reason
    assert reason == "Stopped because a node failed. Node a did not succeed: exit code 3"


@at_noon
def test_a_cycle_that_has_not_ended_two_hours_after_its_time_is_late() -> None:
    make.workflow("flights", group=make.group(team=make.team("air")), notify=RULES, **DAILY)
    [deadline] = Deadline.objects.all()
    assert deadline.at == datetime(2026, 11, 21, 3, tzinfo=UTC)

    pass_due()

    # The database's clock, which decides, is long past that.
    assert told() == [("late", "[air] flights 2026-11-21 01:00 UTC is late")]


@at_noon
def test_a_cycle_that_ended_in_time_is_not_late() -> None:
    make.workflow("flights", notify=RULES, **DAILY)
    clock.make_due(NOON + timedelta(days=1))
    Deadline.objects.update(at=timezone.now() + timedelta(days=3650))

    make.end_node(CycleInstance.objects.get(), "a")

    assert not Deadline.objects.exists()
