"""Cycles ahead: which exist, what an edit or a switch makes of them, and what they wait for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pgtrigger
import pytest
from django.db import connection

from scheduling.models import DeploymentGroup, JournalEntry
from tests import factories as make
from tests.engine.cycle_support import Picture
from tests.engine.rerun_world import NOON
from workflows import services, transitions
from workflows.models import Backfill, Cycle, CycleInstance, NodeRun, Workflow, WorkflowRevision
from workflows.services import clock, generation

pytestmark = [pytest.mark.long, pytest.mark.django_db, pytest.mark.usefixtures("noon")]

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOURLY = {"cron": "0 * * * *", "timezone": "UTC"}
DAILY = {"cron": "0 1 * * *", "timezone": "UTC"}


def edit(workflow: Workflow, **content: Any) -> Workflow:
    return make.workflow(workflow.name, group=DeploymentGroup.objects.get(team=workflow.team), **content)


def waiting(workflow: Workflow) -> list[str]:
    """The cycle times that wait to become ready, as day and hour in UTC."""
    found = CycleInstance.objects.filter(workflow=workflow, state="not_ready").order_by("cycle_time")
    return [f"{each.cycle_time:%d-%H:%M}" for each in found]


def upstreams(instance: CycleInstance) -> list[str]:
    found = instance.cycle.upstreams.order_by("upstream__workflow__name", "upstream__cycle_time")
    return [f"{each.upstream.workflow.name} {each.upstream.cycle_time:%d-%H:%M}" for each in found]


def fresh(workflow: Workflow) -> Workflow:
    return Workflow.objects.get(pk=workflow.pk)


# --- the horizon -------------------------------------------------------------------------------------


def test_cycles_exist_to_the_end_of_tomorrow_on_the_clocks_of_the_workflow(noon: Any) -> None:
    late = datetime(2026, 11, 20, 20, tzinfo=UTC)
    noon.move_to(late)
    in_utc = make.workflow(cron="30 23 * * *", timezone="UTC")
    # There it is the 21st already.
    in_shanghai = make.workflow(cron="30 23 * * *", timezone="Asia/Shanghai")

    assert waiting(in_utc) == ["20-23:30", "21-23:30"]
    assert waiting(in_shanghai) == ["21-15:30", "22-15:30"]


def test_generating_again_makes_only_what_is_new() -> None:
    workflow = make.workflow(starts_at=NOON - DAY, **HOURLY)
    before = CycleInstance.objects.count()

    assert clock.generate_due() == 0
    assert services.generate(workflow.pk) == 0
    Workflow.objects.update(generated_until=NOON - 3 * HOUR)
    assert clock.generate_due() == 1
    assert CycleInstance.objects.count() == before + 3, "what nobody generated in three hours"
    assert services.generate(workflow.pk, NOON + DAY) == 24
    Picture().check()


def test_a_workflow_that_cannot_be_generated_keeps_no_other_from_its_cycles(caplog: Any) -> None:
    bad, good = make.workflow(**HOURLY), make.workflow(**HOURLY)
    with pgtrigger.ignore("workflows.WorkflowRevision:workflow_revision_immutable"):
        WorkflowRevision.objects.filter(workflow=bad).update(cron="x")

    assert clock.generate_due(NOON + DAY) == 1
    assert fresh(good).generated_until == datetime(2026, 11, 22, tzinfo=UTC) + DAY - timedelta(microseconds=1)
    assert f"Could not generate the cycles of workflow {bad.name}" in caplog.text


def test_a_cycle_that_has_not_run_is_no_success_whatever_else_succeeded() -> None:
    workflow = make.workflow(parallelism=0, **HOURLY)
    # As in a new installation, in which the first cycle and its instance have the same number.
    with connection.cursor() as cursor:
        for table in ("workflows_cycle", "workflows_cycleinstance"):
            cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), 5000000)", [table])
    other = make.workflow(parallelism=0, **HOURLY)
    clock.make_due(NOON + HOUR)
    first = CycleInstance.objects.filter(workflow=other).earliest("cycle_time")
    assert first.pk == first.cycle_id
    make.end_node(first, "a")

    services.generate(workflow.pk, NOON + DAY)

    assert list(Cycle.objects.filter(succeeded=True)) == [first.cycle]


# --- the beginning -----------------------------------------------------------------------------------


def test_a_workflow_has_no_cycles_before_it_begins() -> None:
    workflow = make.workflow(starts_at=NOON + DAY, **DAILY)
    assert waiting(workflow) == []
    workflow = make.workflow(starts_at=NOON + 13 * HOUR, **DAILY)
    assert waiting(workflow) == ["21-01:00"], "the moment at which it begins is its first"

    edit(workflow, starts_at=NOON + DAY, **DAILY)

    assert waiting(workflow) == []


def test_nothing_waits_for_cycles_from_before_the_upstream_began() -> None:
    group = make.group()
    make.workflow("up", group=group, starts_at=NOON + HOUR, **HOURLY)
    below = make.workflow(
        "down", group=group, depends_on=[{"workflow": "up", "cycles": "within_period"}], **DAILY
    )

    [first, *_others] = CycleInstance.objects.filter(workflow=below).order_by("cycle_time")
    # Of the day's 24 hours those whose cycles come from 13:00 on, the last of them at midnight.
    assert upstreams(first)[0] == "up 20-13:00"
    assert (len(upstreams(first)), upstreams(first)[-1]) == (12, "up 21-00:00")


def test_a_schedule_given_to_a_workflow_begins_then(noon: Any) -> None:
    plain = make.workflow()
    offline = make.workflow(mode="offline", **DAILY)
    assert CycleInstance.objects.count() == 0

    noon.shift(9 * DAY)
    for workflow in (plain, offline):
        edit(workflow, mode="online", **DAILY)
        assert waiting(workflow) == ["30-01:00"], "days without a schedule were not missed"


# --- edits -------------------------------------------------------------------------------------------


def test_a_changed_schedule_drops_what_it_has_no_more_and_makes_what_it_has_now() -> None:
    workflow = make.workflow(cron="0 1,2 * * *", timezone="UTC")
    edit(workflow, cron="0 2,3 * * *", timezone="UTC")

    assert waiting(workflow) == ["21-02:00", "21-03:00"]
    gone = CycleInstance.objects.get(state="cancelled")
    assert (gone.cycle_time.hour, gone.reason) == (1, "The workflow's schedule has no such cycle any more")
    assert gone.cycle.effective_id is None

    edit(workflow, cron="0 1,2 * * *", timezone="UTC")

    assert waiting(workflow) == ["21-01:00", "21-02:00"], "the schedule has it again"
    Picture().check()


def test_an_edit_reaches_only_what_is_not_ready() -> None:
    workflow = make.workflow(parallelism=1, **HOURLY)
    clock.make_due(NOON + 2 * HOUR)

    workflow = edit(workflow, nodes="a > b", parallelism=1, **HOURLY)

    numbers = CycleInstance.objects.order_by("cycle_time").values_list("state", "revision__number")
    assert list(numbers)[:3] == [("running", 1), ("ready", 1), ("not_ready", 2)]


def test_an_edit_gives_the_cycles_that_stay_their_dates_anew() -> None:
    workflow = make.workflow(cron="0 1 * * *", timezone="UTC")
    [instance] = CycleInstance.objects.all()
    assert str(instance.data_date) == "2026-11-20"

    edit(workflow, cron="0 9 * * *", timezone="Asia/Shanghai")

    assert waiting(workflow) == ["21-01:00"]
    assert str(make.fresh(instance).data_date) == "2026-11-20"

    edit(workflow, cron="0 1,13 * * *", timezone="UTC")

    instance = make.fresh(instance)
    assert str(instance.data_date) == str(generation.periods.data_date(instance.revision, instance.cycle_time))


def test_an_edit_of_the_upstream_changes_what_the_downstream_waits_for() -> None:
    group = make.group()
    upstream = make.workflow("up", group=group, starts_at=NOON - DAY, cron="0 1 * * *", timezone="UTC")
    below = make.workflow(
        "down", group=group, depends_on=[{"workflow": "up"}], cron="0 5 * * *", timezone="UTC"
    )
    [instance] = CycleInstance.objects.filter(workflow=below)
    assert upstreams(instance) == ["up 21-01:00"]

    edit(upstream, cron="0 3 * * *", timezone="UTC")

    assert upstreams(instance) == ["up 21-03:00"]


def test_a_dependency_that_is_dropped_lets_the_cycle_go_on_at_once() -> None:
    group = make.group()
    make.workflow("up", group=group, starts_at=NOON - DAY, **DAILY)
    below = make.workflow("down", group=group, depends_on=[{"workflow": "up"}], **DAILY)
    clock.make_due(NOON + DAY)
    [instance] = CycleInstance.objects.filter(workflow=below)
    assert instance.state == "not_ready"

    edit(below, **DAILY)

    assert make.fresh(instance).state == "running"


def test_going_offline_drops_what_has_not_begun_and_coming_back_makes_it_again() -> None:
    workflow = make.workflow(**HOURLY)
    clock.make_due(NOON + HOUR)

    edit(workflow, mode="offline", **HOURLY)

    assert waiting(workflow) == []
    assert CycleInstance.objects.filter(state="running").count() == 1
    assert clock.generate_due(NOON + DAY) == 0

    edit(workflow, mode="online", **HOURLY)

    assert waiting(workflow)[0] == "20-14:00"
    Picture().check()


# --- off and on --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "begin", "dropped"),
    [("run_all", ["13", "14", "15", "16", "17"], 0), ("run_once", ["17"], 4), ("skip", [], 5)],
)
@pytest.mark.parametrize("generated", [True, False], ids=["generated before", "not generated"])
def test_what_was_missed_while_it_was_off_is_made_good_as_its_policy_says(
    noon: Any, policy: str, begin: list[str], dropped: int, generated: bool
) -> None:
    workflow = make.workflow(parallelism=0, misfire=policy, **HOURLY)
    if not generated:
        CycleInstance.objects.all().delete()
        Workflow.objects.update(generated_until=NOON)
    services.set_enabled(workflow, False, by="ann")
    noon.shift(5 * HOUR)
    clock.make_due()
    assert not CycleInstance.objects.exclude(state="not_ready").exists(), "nothing begins while it is off"
    assert clock.generate_due() == 0

    services.set_enabled(workflow, True, by="ann")
    clock.make_due()

    running = CycleInstance.objects.filter(state="running").order_by("cycle_time")
    assert [f"{each.cycle_time:%H}" for each in running] == begin
    assert waiting(workflow)[0] == "20-18:00", "what is to come is as it was"
    assert CycleInstance.objects.filter(state="cancelled").count() == (dropped if generated else 0)
    Picture().check()


def test_run_once_runs_the_latest_missed_cycle_also_when_the_rest_was_not_generated(noon: Any) -> None:
    workflow = make.workflow(misfire="run_once", **DAILY)
    Workflow.objects.update(generated_until=NOON + 20 * HOUR)
    services.set_enabled(workflow, False, by="ann")
    noon.shift(DAY)

    services.set_enabled(workflow, True, by="ann")
    clock.make_due()

    assert CycleInstance.objects.get(state="running").cycle_time == NOON + 13 * HOUR


def test_run_once_runs_one_of_however_many(monkeypatch: Any, noon: Any) -> None:
    monkeypatch.setattr(generation, "MOST_AT_ONCE", 10)
    workflow = make.workflow(parallelism=0, misfire="run_once", starts_at=NOON - 9 * DAY, **HOURLY)
    Workflow.objects.update(generated_until=NOON - 35 * HOUR)
    CycleInstance.objects.all().delete()
    while clock.generate_due():
        pass

    clock.make_due()

    assert CycleInstance.objects.get(state="running").cycle_time == NOON
    policies = JournalEntry.objects.filter(object_type="workflow", action="misfired", object_id=workflow.pk)
    assert sum(entry.details["count"] for entry in policies) == 34


# --- what cycles wait for ----------------------------------------------------------------------------


def test_a_workflow_that_waits_for_its_own_last_cycle_runs_one_after_the_other() -> None:
    group = make.group()
    itself = [{"workflow": "chain", "cycles": "previous"}]
    workflow = make.workflow("chain", group=group, parallelism=0, depends_on=itself, **HOURLY)
    clock.make_due(NOON + 3 * HOUR)
    first, second, third = CycleInstance.objects.filter(due=True).order_by("cycle_time")
    # The cycle of noon is the first that its beginning lets it have, and nobody generated it.
    assert upstreams(first) == ["chain 20-12:00"]
    services.backfill(workflow, since=NOON, until=NOON, waits_for_upstream=False)
    make.end_node(CycleInstance.objects.get(run_type="backfill"), "a")

    states = [make.fresh(each).state for each in (first, second, third)]
    assert states == ["running", "not_ready", "not_ready"]
    make.end_node(first, "a", "failed")
    assert make.fresh(second).state == "not_ready"
    services.mark_success(first, by="ann")
    assert make.fresh(second).state == "running"


@pytest.mark.parametrize(("parallelism", "running"), [(0, 4), (1, 1), (3, 3)])
def test_so_many_cycles_run_at_once_as_the_workflow_says(parallelism: int, running: int) -> None:
    make.workflow(parallelism=parallelism, **HOURLY)
    clock.make_due(NOON + 4 * HOUR)
    assert CycleInstance.objects.filter(state="running").count() == running
    Picture().check_nothing_overlooked()


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_on_which_the_clocks_change_waits_for_the_hours_that_it_has(
    noon: Any, day: str, hours: int
) -> None:
    berlin = {"timezone": "Europe/Berlin", "group": make.group()}
    noon.move_to(datetime.fromisoformat(f"{day}T12:00:00+00:00"))
    make.workflow("up", starts_at=NOON - 400 * DAY, cron="0 * * * *", **berlin)
    below = make.workflow(
        "down", cron="0 3 * * *", depends_on=[{"workflow": "up", "cycles": "within_period"}], **berlin
    )
    [instance] = CycleInstance.objects.filter(workflow=below)
    assert (str(instance.data_date), len(upstreams(instance))) == (day, hours)


def test_an_hour_that_does_not_exist_runs_once_and_one_that_exists_twice_runs_twice(noon: Any) -> None:
    noon.move_to(datetime(2026, 3, 28, 23, tzinfo=UTC))
    spring = make.workflow(cron="30 2 * * *", timezone="Europe/Berlin")
    assert waiting(spring)[:2] == ["29-01:00", "30-00:30"]
    noon.move_to(datetime(2026, 10, 24, 23, tzinfo=UTC))
    autumn = make.workflow(cron="0 * * * *", timezone="Europe/Berlin")
    assert sum(each.startswith("25-") for each in waiting(autumn)) == 24


# --- on the spot -------------------------------------------------------------------------------------


def test_many_cycles_that_end_on_the_spot_are_begun_one_after_the_other() -> None:
    group = make.group()
    make.task("a", group=group, mode="broadcast")
    workflow = make.workflow(group=group, parallelism=0, starts_at=NOON - 30 * DAY, **HOURLY)

    clock.make_due(NOON + 20 * HOUR)
    found = services.backfill(workflow, since=NOON - 150 * HOUR, until=NOON)

    found = Backfill.objects.get(pk=found.pk)
    assert (found.state, found.instances.filter(state="failed").count()) == ("failed", 151)
    assert CycleInstance.objects.filter(run_type="online", state="failed").count() == 20
    Picture().check()


def test_a_node_that_ends_on_the_spot_beside_a_branch_that_is_not_taken_is_counted() -> None:
    group = make.group()
    make.task("all", group=make.group(team=group.team), mode="broadcast")
    instance = make.cycle(make.workflow(nodes="load > alarm!, load > all", group=group))

    instance = make.end_node(instance, "load")

    assert (instance.state, instance.passed_over, instance.failed) == ("failed", 1, 1)


def test_a_rerun_that_is_stopped_before_it_began_leaves_nothing_waiting() -> None:
    workflow = make.workflow(nodes="a > b", parallelism=1, **HOURLY)
    clock.make_due(NOON + 2 * HOUR)
    source = make.end_node(CycleInstance.objects.earliest("cycle_time"), "a", "failed")
    again = services.rerun(source, by="ann")
    assert (again.state, workflow.current.parallelism) == ("ready", 1)

    again = services.stop(again, by="ann", reason="wait for the fix")

    assert (again.state, make.states(again)) == ("terminated", {"a": "cancelled", "b": "cancelled"})
    third = services.rerun(again, nodes=["a"], by="ann")
    assert third.node_runs.get(node__key="b").carried
    Picture().check()


def test_a_node_whose_time_out_was_marked_by_a_process_that_was_killed_is_stopped(noon: Any) -> None:
    instance = make.cycle(make.workflow(nodes=[{"key": "a", "timeout": 60}]))
    NodeRun.objects.update(timed_out=True)
    noon.shift(HOUR)

    assert clock.time_out_nodes() == 1
    assert (make.states(instance), make.fresh(instance).state) == ({"a": "timed_out"}, "failed")
    assert clock.time_out_nodes() == 0


def test_dropping_a_backfill_gives_a_cycle_its_success_back_and_what_waits_goes_on(noon: Any) -> None:
    group = make.group()
    upstream = make.workflow("up", group=group, starts_at=NOON - DAY, parallelism=1, **HOURLY)
    clock.make_due(NOON + 2 * HOUR)
    noon.shift(2 * HOUR)
    for each in CycleInstance.objects.filter(due=True).order_by("cycle_time"):
        make.end_node(each, "a")
    found = services.backfill(upstream, since=NOON + HOUR, until=NOON + 2 * HOUR)
    below = make.workflow("down", group=group, starts_at=NOON - DAY, depends_on=[{"workflow": "up"}], **HOURLY)
    again = services.backfill(below, since=NOON + 2 * HOUR, until=NOON + 2 * HOUR)
    [instance] = again.instances.all()
    assert instance.state == "not_ready"

    services.terminate_backfill(found, by="ann")

    assert make.fresh(instance).state == "running"
    transitions.stop_batches(instance.pk)
    Picture().check()
