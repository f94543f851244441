"""What is due is fired, once; what was missed is treated as its task says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pgtrigger
import pytest
from django.conf import settings
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from scheduling import services
from scheduling.engine import triggers
from scheduling.engine.revisions import READ_AHEAD, Revisions
from scheduling.models import Batch, Instance, JournalEntry, Task, TaskRevision
from scheduling.signals import batch_ended
from tests import factories

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def due(task: Task, at: datetime = NOW) -> Task:
    """`task`, next due at `at`."""
    Task.objects.filter(pk=task.pk).update(next_due_at=at)
    task.refresh_from_db()
    return task


def rewrite_cron(task: Task, cron: str) -> None:
    """Put `cron` into the task's present revision, which no code path of ours would do."""
    with pgtrigger.ignore("scheduling.TaskRevision:revision_immutable"):
        TaskRevision.objects.filter(pk=task.revision_id).update(cron=cron)
    task.refresh_from_db()


def fire_all(now: datetime = NOW, limit: int = 100) -> list[int]:
    """Fire until nothing is due; how many tasks each round dealt with."""
    rounds = []
    while fired := triggers.fire_due(now, limit):
        rounds.append(fired)
    return rounds


def runs(task: Task) -> list[datetime]:
    """The due times for which `task` has batches, in the order in which they were made."""
    return list(task.batches.order_by("id").values_list("scheduled_for", flat=True))


def entries(task: Task, action: str) -> list[JournalEntry]:
    return list(
        JournalEntry.objects.filter(object_type="task", object_id=task.pk, action=action).order_by("id")
    )


# --- on time ---------------------------------------------------------------------------------------


def test_a_due_task_gets_one_batch_and_its_next_due_time():
    task = due(factories.task(cron="0 * * * *", shards=["a", "b"]))
    assert fire_all() == [1]
    [batch] = task.batches.all()
    assert (batch.trigger, batch.scheduled_for, batch.state, batch.actor) == (
        "cron",
        NOW,
        "waiting",
        "schedule",
    )
    assert batch.revision_id == task.revision_id
    assert [each.shard_parameter for each in batch.instances.all()] == ["a", "b"]
    task.refresh_from_db()
    assert task.next_due_at == NOW + 60 * MINUTE
    entry = JournalEntry.objects.get(object_type="batch", object_id=batch.pk)
    assert (entry.action, entry.via) == ("triggered", "engine")


def test_firing_again_fires_nothing():
    task = due(factories.task(interval=60))
    assert fire_all() == [1]
    assert fire_all() == []
    assert runs(task) == [NOW]


def test_what_is_due_later_is_left_alone():
    task = due(factories.task(interval=60), NOW + timedelta(microseconds=1))
    assert fire_all() == []
    assert runs(task) == []


def test_a_fixed_rate_fires_on_its_grid_however_late_the_scheduler_is():
    task = due(factories.task(interval=10), NOW - timedelta(seconds=25))
    fire_all()
    assert runs(task) == [NOW - timedelta(seconds=back) for back in (25, 15, 5)]
    task.refresh_from_db()
    assert task.next_due_at == NOW + timedelta(seconds=5)


def test_cron_fires_by_the_clock_of_the_tasks_zone():
    before_the_change = datetime(2026, 3, 7, 7, 30, tzinfo=UTC)
    task = due(factories.task(cron="30 2 * * *", timezone="America/New_York"), before_the_change)
    fire_all(before_the_change)
    task.refresh_from_db()
    assert task.next_due_at == datetime(2026, 3, 8, 7, 0, tzinfo=UTC)


def test_the_longest_due_are_fired_first_and_no_round_exceeds_its_limit():
    group = factories.group()
    tasks = [due(factories.task(interval=3600, group=group), NOW - each * MINUTE / 10) for each in range(5)]
    assert fire_all(limit=2) == [2, 2, 1]
    fired = list(Batch.objects.order_by("id").values_list("task_id", flat=True))
    assert fired == [task.pk for task in reversed(tasks)]


def test_a_round_ends_with_its_fill_of_instances_and_the_next_takes_the_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(triggers, "ENOUGH_INSTANCES", 5)
    group = factories.group()
    contents: list[dict[str, object]] = [{}, {"shards": ["a", "b", "c", "d"]}, {}, {"shards": list("abcdefgh")}]
    tasks = [
        due(factories.task(interval=3600, group=group, **content), NOW - (9 - age) * MINUTE / 10)
        for age, content in enumerate(contents)
    ]
    assert fire_all() == [2, 2]
    assert list(Batch.objects.order_by("id").values_list("task_id", "total")) == [
        (task.pk, total) for task, total in zip(tasks, (1, 4, 1, 8), strict=True)
    ]


@pytest.mark.parametrize("ahead", [timedelta(seconds=20), timedelta(hours=1)], ids=["soon", "later"])
def test_what_is_due_soon_is_known_before_it_is_due(monkeypatch: pytest.MonkeyPatch, ahead: timedelta):
    monkeypatch.setattr(triggers, "_revisions", Revisions())
    at = timezone.now() + ahead
    task = due(factories.task(interval=60), at)
    assert triggers.next_due_at() == at
    with CaptureQueriesContext(connection) as queries:
        assert triggers.fire_due(at) == 1
    read_then = [each for each in queries if 'FROM "scheduling_taskrevision"' in each["sql"]]
    assert len(read_then) == (ahead > READ_AHEAD)
    assert runs(task) == [at]


def test_a_disabled_task_never_fires():
    task = due(factories.task(interval=60, enabled=False))
    assert triggers.next_due_at() is None
    assert fire_all() == []
    assert runs(task) == []


def test_manual_and_workflow_tasks_have_no_due_time():
    for trigger in ("manual", "workflow"):
        assert factories.task(trigger=trigger).next_due_at is None
    assert triggers.next_due_at() is None


def test_due_times_missed_while_a_task_was_disabled_are_recorded_with_that_reason():
    task = due(factories.task(interval=3600, misfire="skip"), timezone.now() - timedelta(minutes=150))
    services.set_enabled(task, False, by="tests")
    task = services.set_enabled(task, True, by="tests")
    grid = task.next_due_at
    fire_all(timezone.now())
    [entry] = entries(task, "misfired")
    assert (entry.reason, entry.details["count"]) == ("The task was disabled when it was due.", 3)
    task.refresh_from_db()
    assert (runs(task), task.next_due_at) == ([], grid + timedelta(hours=3))


def test_enabling_a_task_whose_due_time_could_not_be_computed_computes_it_again():
    task = factories.task(interval=60, enabled=False)
    Task.objects.filter(pk=task.pk).update(next_due_at=None)
    task = services.set_enabled(task, True, by="tests")
    assert task.next_due_at > timezone.now()


def test_another_time_zone_keeps_the_grid_of_a_fixed_rate():
    task = due(factories.task("zoned", interval=3600))
    content = {"kind": "shell", "spec": {"command": "true"}, "interval": 3600, "timezone": "Asia/Tokyo"}
    task = services.save_task(team=task.team, group=task.group, name="zoned", content=content, by="tests")
    assert (task.revision.timezone, task.next_due_at) == ("Asia/Tokyo", NOW)


def test_an_edited_schedule_begins_anew_without_a_misfire():
    task = due(factories.task("edited", interval=60), timezone.now() - timedelta(days=1))
    edited = {"kind": "shell", "spec": {"command": "true"}, "trigger": "fixed_rate", "interval": 120}
    task = services.save_task(team=task.team, group=task.group, name="edited", content=edited, by="tests")
    assert task.next_due_at > timezone.now() + timedelta(seconds=110)


def test_a_schedule_with_an_end_is_fired_for_the_last_time():
    task = due(factories.task(cron="0 0 1 1 *"))
    # Validation keeps such a schedule out today; an installation may hold one from yesterday, whose last
    # date has come: a leap day that falls on a Monday, say, after the last one within sight.
    rewrite_cron(task, "0 0 */16 2 MON#2")
    fire_all()
    task.refresh_from_db()
    assert runs(task) == [NOW]
    assert task.next_due_at is None


def test_the_next_due_time_is_the_earliest_of_all_enabled_tasks():
    due(factories.task(interval=60), NOW + 2 * MINUTE)
    due(factories.task(interval=60), NOW + MINUTE)
    due(factories.task(interval=60, enabled=False), NOW)
    assert triggers.next_due_at() == NOW + MINUTE


def test_a_broadcast_goes_to_the_nodes_online_in_its_group():
    group = factories.group()
    nodes = [factories.node(group=group) for _ in range(2)]
    factories.node(group=group, state="draining")
    factories.node()
    task = due(factories.task(mode="broadcast", interval=60, group=group))
    fire_all()
    instances = Instance.objects.filter(batch__task=task)
    assert {(each.node_id, each.pinned) for each in instances} == {(node.pk, True) for node in nodes}


def test_a_broadcast_without_a_node_fails_and_says_so():
    task = due(factories.task(mode="broadcast", interval=60))
    fire_all()
    [batch] = task.batches.all()
    assert (batch.state, batch.reason) == ("failed", "No node of the deployment group is online")


# --- statements ------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", ["allow", "skip"])
def test_the_number_of_statements_does_not_grow_with_the_number_of_tasks(overlap):
    group = factories.group()
    counts = []
    for size in (1, 100):
        for _ in range(size):
            due(factories.task(cron="0 * * * *", group=group, overlap=overlap))
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert triggers.fire_due(NOW) == size
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 14


# --- what must not hold up the others --------------------------------------------------------------


def test_a_due_time_that_has_fired_already_is_not_fired_again_and_holds_up_no_other():
    group = factories.group()
    tasks = [factories.task(interval=60, group=group) for _ in range(3)]
    for task in tasks:
        due(task)
    triggers.fire_due(NOW)
    for task in tasks[1:2]:
        due(task)
    fresh = due(factories.task(interval=60, group=group))
    assert fire_all() == [2]
    assert [runs(task) for task in tasks] == [[NOW]] * 3
    assert runs(fresh) == [NOW]
    tasks[1].refresh_from_db()
    assert tasks[1].next_due_at == NOW + MINUTE


def test_a_batch_at_whose_end_somebody_stumbles_holds_up_no_other():
    """A broadcast without a node ends as it is made, and that is told in the round's transaction."""
    task = due(factories.task(interval=60))
    stumbling = due(factories.task(interval=60, group=task.group, mode="broadcast"))

    def stumble(**_: object) -> None:
        raise RuntimeError("no such luck")

    batch_ended.connect(stumble)
    try:
        assert fire_all() == [2]
    finally:
        batch_ended.disconnect(stumble)
    assert (runs(task), runs(stumbling)) == ([NOW], [])
    [entry] = entries(stumbling, "trigger_failed")
    assert "no such luck" in entry.reason
    stumbling.refresh_from_db()
    assert stumbling.next_due_at == NOW + MINUTE


def test_no_due_time_moves_on_because_a_function_is_missing():
    task = due(factories.task(interval=60))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'tailrace\\_make%'"
            " AND pronamespace = current_schema()::regnamespace"
        )
        [(making,)] = cursor.fetchall()
        cursor.execute(f"ALTER FUNCTION {making} RENAME TO renamed_make")
    with pytest.raises(DatabaseError, match="does not exist"):
        triggers.fire_due(NOW)
    task.refresh_from_db()
    assert (runs(task), task.next_due_at) == ([], NOW)
    assert not JournalEntry.objects.filter(action="trigger_failed").exists()


def test_a_lock_timeout_of_one_task_keeps_its_due_time_and_holds_up_no_other():
    task = due(factories.task(interval=60))
    waiting = due(factories.task(interval=60, group=task.group, mode="broadcast"))

    def wait(**_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE lock_not_available USING MESSAGE = 'locked'; END $$")

    batch_ended.connect(wait)
    try:
        assert fire_all() == [1]
    finally:
        batch_ended.disconnect(wait)
    waiting.refresh_from_db()
    assert (runs(task), runs(waiting), waiting.next_due_at) == ([NOW], [], NOW)
    assert not entries(waiting, "trigger_failed")
    assert fire_all() == [1]
    assert runs(waiting) == [NOW]


def test_a_schedule_that_cannot_be_reckoned_holds_up_no_other():
    task = factories.task(interval=60)
    rotten = factories.task(interval=60, group=task.group)
    digest = {"digest": "x", "kind": "shell", "spec": {}, "number": 2}
    rotten.revision = rotten.revisions.create(
        trigger="cron", cron="0 0 * * *", timezone="Atlantis/Sunk", **digest
    )
    rotten.save()
    due(task), due(rotten)
    assert fire_all() == [2]
    assert runs(task) == [NOW]
    rotten.refresh_from_db()
    assert (runs(rotten), rotten.next_due_at) == ([], None)
    [entry] = entries(rotten, "unscheduled")
    assert "Atlantis/Sunk" in entry.reason


# --- misfires --------------------------------------------------------------------------------------


def missed(misfire: str, *, since: timedelta, **content) -> Task:
    """A task that has been due since `since` ago, and nobody fired it."""
    return due(factories.task(misfire=misfire, **({"interval": 60} | content)), NOW - since)


def test_skip_passes_over_what_was_missed_and_records_it():
    task = missed("skip", since=10.5 * MINUTE)
    fire_all()
    # 30 s ago is within the grace, so it is late but not missed.
    assert runs(task) == [NOW - MINUTE / 2]
    [entry] = entries(task, "misfired")
    assert entry.details == {
        "policy": "skip",
        "count": 10,
        "count_is_exact": True,
        "first_due": (NOW - 10.5 * MINUTE).isoformat(),
        "last_due": (NOW - 1.5 * MINUTE).isoformat(),
    }
    assert entry.reason == "No scheduler fired it within 60 s of its due time."
    task.refresh_from_db()
    assert task.next_due_at == NOW + MINUTE / 2


def test_run_once_makes_one_batch_for_the_latest_due_time():
    task = missed("run_once", since=10.5 * MINUTE)
    fire_all()
    assert runs(task) == [NOW - MINUTE / 2]
    [entry] = entries(task, "misfired")
    assert (entry.details["count"], entry.details["policy"]) == (11, "run_once")
    task.refresh_from_db()
    assert task.next_due_at == NOW + MINUTE / 2


def test_run_all_makes_every_batch_in_order_and_in_bounded_rounds():
    count = 2 * triggers.RUN_ALL_STEP + 5
    task = missed("run_all", since=count * MINUTE)
    rounds = fire_all()
    assert runs(task) == [NOW - back * MINUTE for back in range(count, -1, -1)]
    assert len(rounds) < 10
    assert sum(entry.details["count"] for entry in entries(task, "misfired")) == count - 1
    task.refresh_from_db()
    assert task.next_due_at == NOW + MINUTE


def test_run_all_makes_the_fewer_batches_a_round_the_more_shards_they_have(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(triggers, "ENOUGH_INSTANCES", 9)
    task = missed("run_all", since=4.5 * MINUTE, shards=["a", "b", "c"])
    assert triggers.fire_due(NOW) == 1
    assert task.batches.count() == 3
    fire_all()
    assert runs(task) == [NOW - (back + 0.5) * MINUTE for back in range(4, -1, -1)]


def test_a_task_that_makes_good_for_hours_keeps_none_waiting_that_is_on_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(triggers, "ENOUGH_INSTANCES", 3)
    late = missed("run_all", since=600 * MINUTE, shards=["a", "b", "c"])
    on_time = due(factories.task(interval=60, group=late.group))
    assert triggers.fire_due(NOW) == 2
    assert runs(on_time) == [NOW]
    assert runs(late) == [NOW - 600 * MINUTE]


@pytest.mark.parametrize(("policy", "expected"), [("skip", 0), ("run_once", 1), ("run_all", 1)])
def test_a_daily_cron_task_that_was_missed_once(policy, expected):
    task = missed(policy, since=60 * MINUTE, cron="0 11 * * *", interval=None)
    fire_all()
    assert runs(task) == [NOW - 60 * MINUTE] * expected
    assert [entry.details["count"] for entry in entries(task, "misfired")] == [1]
    task.refresh_from_db()
    assert task.next_due_at == NOW + 23 * 60 * MINUTE


def test_a_due_time_exactly_as_old_as_the_grace_is_no_misfire():
    grace = timedelta(seconds=settings.TAILRACE["MISFIRE_GRACE"])
    task = missed("skip", since=grace, interval=3600)
    fire_all()
    assert runs(task) == [NOW - grace]
    assert entries(task, "misfired") == []


def test_a_year_of_missed_minutes_is_passed_over_at_once_and_its_count_says_that_it_is_a_lower_bound():
    task = missed("run_once", since=timedelta(days=365), cron="* * * * *", interval=None)
    fire_all()
    assert runs(task) == [NOW]
    [entry] = entries(task, "misfired")
    assert (entry.details["count"], entry.details["count_is_exact"]) == (triggers.COUNT_UP_TO, False)
