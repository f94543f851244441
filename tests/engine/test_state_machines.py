"""Every move of a batch and an instance, legal and illegal, by raw SQL and by every verb; every constraint."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError, ProgrammingError, connection, transaction
from django.utils import timezone

from scheduling import notifications, transitions
from scheduling.errors import TransitionRefused
from scheduling.models import Batch, Deadline, Execution, Instance, JournalEntry, Notification, SavedFilter
from scheduling.states import BATCH, INSTANCE, BatchState, InstanceState, Machine, Outcome
from tests import factories
from tests.engine.support import row

pytestmark = pytest.mark.django_db

# As the design says it, written out once more so that a slip in the table shows.
LEGAL_BATCH = {
    ("waiting", "running"),
    ("waiting", "terminating"),
    ("waiting", "condition_not_met"),
    ("running", "success"),
    ("running", "failed"),
    ("running", "terminating"),
    ("terminating", "success"),
    ("terminating", "failed"),
    ("success", "running"),
    ("failed", "running"),
    ("success", "failed"),
    ("failed", "success"),
}
LEGAL_INSTANCE = {
    ("waiting", "running"),
    ("waiting", "terminated"),
    ("running", "success"),
    ("running", "failed"),
    ("running", "timed_out"),
    ("running", "terminating"),
    ("terminating", "terminated"),
    ("terminating", "success"),
    ("terminating", "failed"),
    ("terminating", "timed_out"),
    ("success", "waiting"),
    ("failed", "waiting"),
    ("terminated", "waiting"),
    ("timed_out", "waiting"),
}


def pairs(states: Any) -> list[tuple[str, str]]:
    return [(old, new) for old, new in itertools.product(states.values, repeat=2) if old != new]


def instance_in(state: str, *, others: int = 0, **content: Any) -> Instance:
    """An instance that came to `state` by the verbs; `others` of its batch wait."""
    batch = factories.batch(factories.task(shards=[str(n) for n in range(others + 1)], **content))
    instance = batch.instances.select_related("group", "node").first()
    assert instance is not None
    match state:
        case "waiting":
            pass
        case "running":
            factories.start(instance)
        case "terminating":
            factories.start(instance)
            transitions.stop_instance(instance.pk, by="tests", reason="")
        case "terminated":
            transitions.stop_instance(instance.pk, by="tests", reason="")
        case ended:
            factories.start(instance)
            factories.end(instance, ended, may_retry=False)
    instance.refresh_from_db()
    assert instance.state == state
    return instance


def batch_in(state: str) -> Batch:
    """A batch of two instances that came to `state` by the verbs."""
    batch = factories.batch(factories.task(shards=["a", "b"]))
    match state:
        case "waiting":
            pass
        case "running":
            factories.start_batch(batch)
        case "terminating":
            factories.start_batch(batch)
            transitions.stop_batch(batch.pk, by="tests", reason="")
        case "condition_not_met":
            transitions.mark_condition_not_met(batch.pk, reason="the branch was not taken")
        case judged:
            factories.end_batch(batch, judged)
    batch.refresh_from_db()
    assert batch.state == state
    return batch


# --- the tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "legal"), [(BATCH, LEGAL_BATCH), (INSTANCE, LEGAL_INSTANCE)])
def test_the_table_says_what_the_design_says(machine: Machine, legal: set[tuple[str, str]]):
    assert set(machine.moves) == legal
    assert machine.initial == "waiting"


def test_the_final_states_are_those_of_the_design():
    assert BATCH.final == {"success", "failed", "condition_not_met"}
    assert INSTANCE.final == {"success", "failed", "terminated", "timed_out"}
    assert len(BatchState) == 6
    assert len(InstanceState) == 7


# --- raw SQL ---------------------------------------------------------------------------------------


def move(thing: Batch | Instance, machine: Machine, new: str) -> None:
    """What someone might type into psql."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {thing._meta.db_table} SET state = %s, ended_at = %s WHERE id = %s",
            [new, (thing.ended_at or timezone.now()) if new in machine.final else None, thing.pk],
        )


def check_raw_move(thing: Batch | Instance, machine: Machine, new: str, legal: set[tuple[str, str]]) -> None:
    old, before = thing.state, row(thing)
    if (old, new) in legal:
        move(thing, machine, new)
        changed = {name for name, value in row(thing).items() if value != before[name]}
        assert changed == {"state"} | (
            {"ended_at"} if (old in machine.final) != (new in machine.final) else set()
        )
        assert row(thing)["state"] == new
    else:
        with pytest.raises(ProgrammingError, match=f'field "state" from "{old}" to "{new}" on table'):
            move(thing, machine, new)
        assert row(thing) == before


@pytest.mark.parametrize(("old", "new"), pairs(BatchState))
def test_raw_sql_moves_a_batch_only_along_the_table(old: str, new: str):
    check_raw_move(batch_in(old), BATCH, new, LEGAL_BATCH)


@pytest.mark.parametrize(("old", "new"), pairs(InstanceState))
def test_raw_sql_moves_an_instance_only_along_the_table(old: str, new: str):
    check_raw_move(instance_in(old), INSTANCE, new, LEGAL_INSTANCE)


# --- the verbs on an instance ------------------------------------------------------------------------


def changed(before: dict[str, Any], thing: Any) -> set[str]:
    return {name for name, value in row(thing).items() if value != before[name]}


@pytest.mark.parametrize("state", InstanceState.values)
def test_start_takes_only_a_waiting_instance(state: str):
    instance = instance_in(state, others=1)
    # Even with a valid claim on it, which no other state can have.
    Instance.objects.filter(pk=instance.pk).update(claimed=True, token=77, node=factories.node())
    before, batch_before = row(instance), row(instance.batch)
    executions = list(Execution.objects.values())
    started = transitions.start(batch=instance.batch_id, instance=instance.pk, token=77, worker=1, timeout=None)
    if state == "waiting":
        assert started is not None
        assert changed(before, instance) == {"state", "executions_count", "started_at"}
        assert changed(batch_before, instance.batch) == {"state", "started_at"}
        [execution] = instance.executions.all()
        assert (execution.pk, execution.token, execution.ended_at) == (started.execution_id, 77, None)
        assert execution.started_at == row(instance)["started_at"] == row(instance.batch)["started_at"]
    else:
        assert started is None
        assert (row(instance), row(instance.batch)) == (before, batch_before)
        assert list(Execution.objects.values()) == executions


ENDS = {
    ("running", "success"): "success",
    ("running", "failed"): "failed",
    ("running", "timed_out"): "timed_out",
    ("running", "terminated"): "failed",
    ("running", "lost"): "failed",
    ("terminating", "success"): "success",
    ("terminating", "failed"): "failed",
    ("terminating", "timed_out"): "timed_out",
    ("terminating", "terminated"): "terminated",
    ("terminating", "lost"): "terminated",
}
COUNTER = {"success": "succeeded", "failed": "failed", "timed_out": "timed_out", "terminated": "terminated"}


@pytest.mark.parametrize("outcome", Outcome.values)
@pytest.mark.parametrize("state", InstanceState.values)
def test_end_takes_only_what_runs_and_records_how_it_ended(state: str, outcome: str):
    instance = instance_in(state, others=1)
    before, batch_before = row(instance), row(instance.batch)
    execution = instance.executions.first()
    executions = list(Execution.objects.values())
    ended = transitions.end(
        batch=instance.batch_id,
        instance=instance.pk,
        execution=execution.pk if execution else 0,
        token=instance.token,
        outcome=outcome,
        exit_code=3,
        error="what was said",
        reason="why",
        result={"rows": 7},
        may_retry=False,
    )
    expected = ENDS.get((state, outcome))
    if expected is None:
        assert ended is None
        assert (row(instance), row(instance.batch)) == (before, batch_before)
        assert list(Execution.objects.values()) == executions
        return
    assert ended == transitions.Ended(expected, retry=False, batch_ended=False)
    assert row(instance)["state"] == expected
    # A stop that was obeyed keeps who asked for it, and why.
    kept = expected == "terminated" and before["reason"]
    assert changed(before, instance) == {"state", "ended_at"} | (set() if kept else {"reason"})
    assert changed(batch_before, instance.batch) == {COUNTER[expected]}
    assert execution is not None
    execution.refresh_from_db()
    assert execution.outcome == ("terminated" if expected == "terminated" else outcome)
    assert (execution.exit_code, execution.error, execution.result) == (3, "what was said", {"rows": 7})
    assert execution.ended_at == row(instance)["ended_at"]


@pytest.mark.parametrize("outcome", ["failed", "timed_out", "lost", "terminated"])
def test_end_puts_a_failure_with_retries_left_back_into_the_queue(outcome: str):
    instance = instance_in("running", retry_count=2)
    before, batch_before = row(instance), row(instance.batch)
    factories.end(instance, outcome, retry_after=30)
    assert changed(before, instance) == {
        "state",
        "cause",
        "reason",
        "claimed",
        "started_at",
        "run_after",
        "retries_left",
    } - ({"reason"} if not row(instance)["reason"] else set())
    assert (instance.state, instance.retries_left, instance.claimed) == ("waiting", 1, False)
    assert instance.cause == ("lost" if outcome == "lost" else "retry")
    assert (instance.run_after - timezone.now()).total_seconds() == pytest.approx(30, abs=5)
    assert row(instance.batch) == batch_before


@pytest.mark.parametrize("outcome", ["failed", "timed_out", "lost"])
def test_an_instance_that_was_told_to_stop_is_not_retried(outcome: str):
    instance = instance_in("terminating", others=1, retry_count=5)
    assert instance.batch.state == "running" or row(instance.batch)["state"] == "running"
    factories.end(instance, outcome)
    assert instance.is_finished
    assert row(instance.batch)["state"] == "running"


@pytest.mark.parametrize("state", InstanceState.values)
def test_stop_instance_takes_only_what_waits_or_runs(state: str):
    instance = instance_in(state, others=1)
    before, batch_before = row(instance), row(instance.batch)
    journal = JournalEntry.objects.count()
    if state in {"waiting", "running"}:
        transitions.stop_instance(instance.pk, by="ann", reason="wrong shard")
        after = row(instance)
        assert after["reason"] == "Stopped by ann: wrong shard"
        if state == "waiting":
            assert after["state"] == "terminated"
            assert changed(before, instance) == {"state", "ended_at", "reason"}
            assert changed(batch_before, instance.batch) == {"terminated"}
        else:
            assert after["state"] == "terminating"
            assert changed(before, instance) == {"state", "reason"}
            assert row(instance.batch) == batch_before
        assert JournalEntry.objects.count() == journal + 1
    else:
        with pytest.raises(TransitionRefused, match=r"only an unfinished one that was not stopped yet"):
            transitions.stop_instance(instance.pk, by="ann", reason="")
        assert (row(instance), row(instance.batch)) == (before, batch_before)
        assert JournalEntry.objects.count() == journal


@pytest.mark.parametrize("state", InstanceState.values)
def test_rerun_instance_takes_only_what_has_ended(state: str):
    instance = instance_in(state, others=1, retry_count=2)
    before, batch_before = row(instance), row(instance.batch)
    executions = list(Execution.objects.values())
    journal = JournalEntry.objects.count()

    def rerun() -> Instance:
        return transitions.rerun_instance(instance.pk, by="ann", reason="", prefer_node_for=5, retries=2)

    if state in INSTANCE.final:
        rerun()
        after = row(instance)
        assert (after["state"], after["cause"], after["reason"]) == ("waiting", "rerun", "")
        assert (after["retries_left"], after["claimed"], after["started_at"]) == (2, False, None)
        assert changed(before, instance) <= {
            "state",
            "cause",
            "reason",
            "claimed",
            "started_at",
            "ended_at",
            "retries_left",
            "run_after",
            "prefers_node_until",
        }
        assert changed(batch_before, instance.batch) == {COUNTER[state]}
        assert JournalEntry.objects.count() == journal + 1
    else:
        with pytest.raises(TransitionRefused, match="only a finished instance can be rerun"):
            rerun()
        assert (row(instance), row(instance.batch)) == (before, batch_before)
        assert JournalEntry.objects.count() == journal
    assert list(Execution.objects.values()) == executions


# --- the verbs on a batch ----------------------------------------------------------------------------


def refused_without_a_trace(batch: Batch, verb: Callable[[], Any], says: str) -> None:
    before = row(batch), list(batch.instances.values()), JournalEntry.objects.count()
    with pytest.raises(TransitionRefused, match=says):
        verb()
    assert (row(batch), list(batch.instances.values()), JournalEntry.objects.count()) == before


@pytest.mark.parametrize("state", BatchState.values)
def test_stop_batch_takes_only_what_is_unfinished_and_was_not_stopped(state: str):
    batch = batch_in(state)
    before = row(batch)

    def stop() -> Batch:
        return transitions.stop_batch(batch.pk, by="ann", reason="wrong file")

    if state == "waiting":
        assert stop().state == "failed"
        assert changed(before, batch) == {"state", "ended_at", "reason", "terminated"}
        assert set(batch.instances.values_list("state", flat=True)) == {"terminated"}
    elif state == "running":
        assert stop().state == "terminating"
        assert changed(before, batch) == {"state", "reason"}
        assert set(batch.instances.values_list("state", flat=True)) == {"terminating"}
    else:
        refused_without_a_trace(batch, stop, "only an unfinished batch that was not stopped yet can be stopped")
        return
    assert row(batch)["reason"] == "Stopped by ann: wrong file"


@pytest.mark.parametrize("state", BatchState.values)
def test_only_a_waiting_batch_is_passed_over(state: str):
    batch = batch_in(state)
    before = row(batch)

    def pass_over() -> Batch:
        return transitions.mark_condition_not_met(batch.pk, reason="not on Mondays")

    if state == "waiting":
        pass_over()
        assert changed(before, batch) == {"state", "ended_at", "reason", "terminated"}
        assert (row(batch)["state"], row(batch)["reason"]) == ("condition_not_met", "not on Mondays")
        assert set(batch.instances.values_list("state", flat=True)) == {"terminated"}
    else:
        refused_without_a_trace(batch, pass_over, "only a waiting batch can be passed over")


@pytest.mark.parametrize("state", BatchState.values)
@pytest.mark.parametrize("ratio", [0, 100])
def test_only_what_ended_by_its_instances_is_judged_anew(state: str, ratio: int):
    batch = batch_in(state)
    before = row(batch)

    def judge() -> Batch:
        return transitions.judge_anew(batch.pk, success_ratio=ratio, by="ann", reason="late data")

    if state not in {"success", "failed"}:
        refused_without_a_trace(batch, judge, "only one that ended as a success or failed")
        return
    expected = "failed" if state == "failed" and ratio == 100 else "success"
    assert judge().state == expected
    assert changed(before, batch) == {"reason"} | ({"state"} if expected != state else set()) | (
        {"success_ratio"} if ratio != 100 else set()
    )
    assert row(batch)["reason"] == f"Judged anew by ann, needing {ratio} %: late data"
    assert JournalEntry.objects.get(action="judged").details == {
        "state_before": state,
        "state_after": expected,
        "ratio_before": 100,
        "ratio_after": ratio,
        "succeeded": 2 if state == "success" else 0,
        "total": 2,
    }


@pytest.mark.parametrize("state", BatchState.values)
@pytest.mark.parametrize("wanted", [BatchState.SUCCESS, BatchState.FAILED])
def test_only_what_ended_otherwise_is_marked(state: str, wanted: BatchState):
    batch = batch_in(state)
    before = row(batch)

    def mark() -> Batch:
        return transitions.mark(batch.pk, wanted, by="ann", reason="seen by eye")

    if state not in {"success", "failed"} - {wanted.value}:
        says = "already" if state == wanted else "only one that ended as a success or failed"
        refused_without_a_trace(batch, mark, says)
        return
    assert mark().state == wanted
    assert changed(before, batch) == {"state", "reason"}
    assert row(batch)["reason"] == f"Marked as {wanted.value} by ann: seen by eye"
    entry = JournalEntry.objects.get(action="marked")
    assert (entry.reason, entry.details) == (
        "seen by eye",
        {"state_before": state, "state_after": wanted.value},
    )


@pytest.mark.parametrize("state", ["terminating", "condition_not_met"])
def test_no_instance_is_rerun_in_a_batch_that_is_being_stopped_or_was_passed_over(state: str):
    batch = batch_in(state)
    instance = batch.instances.first()
    assert instance is not None
    if state == "terminating":
        factories.end(instance, "failed")

    def rerun() -> Instance:
        return transitions.rerun_instance(instance.pk, by="ann", reason="", prefer_node_for=None, retries=0)

    refused_without_a_trace(batch, rerun, "rerun the instance when the batch has ended")


@pytest.mark.parametrize("state", BatchState.values)
def test_only_a_held_unfinished_batch_is_released(state: str):
    batch = batch_in(state)
    before = row(batch), list(batch.instances.values())
    assert not transitions.release_held(batch.pk)
    assert (row(batch), list(batch.instances.values())) == before
    Batch.objects.filter(pk=batch.pk).update(held=True)
    assert transitions.release_held(batch.pk) == (state not in BATCH.final)
    assert changed(before[0], batch) == ({"held"} if state in BATCH.final else set())


@pytest.mark.parametrize("state", InstanceState.values)
def test_giving_up_a_node_ends_only_what_waits_for_it(state: str):
    instance = instance_in(state, others=1)
    node = factories.node(group=instance.group)
    Instance.objects.filter(pk=instance.pk).update(node=node, pinned=True)
    before, batch_before = row(instance), row(instance.batch)
    assert transitions.give_up_waiting(node, reason="it left") == []
    if state == "waiting":
        assert changed(before, instance) == {"state", "ended_at", "reason"}
        assert (row(instance)["state"], row(instance)["reason"]) == ("terminated", "it left")
        assert changed(batch_before, instance.batch) == {"terminated"}
    else:
        assert (row(instance), row(instance.batch)) == (before, batch_before)


def test_giving_up_the_last_instance_ends_the_batch_with_the_reason():
    instance = instance_in("waiting")
    node = factories.node(group=instance.group)
    Instance.objects.filter(pk=instance.pk).update(node=node, pinned=True)
    assert transitions.give_up_waiting(node, reason="it left") == [instance.batch]
    instance.batch.refresh_from_db()
    assert (instance.batch.state, instance.batch.reason) == ("failed", "it left")


# --- constraints -------------------------------------------------------------------------------------


def sql(statement: str, *parameters: Any) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        # Deferred constraints speak up now, and the trigger for moves is not what is asked here.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(statement, parameters)


def duplicate(table: str, pk: int, **changes: Any) -> None:
    """Insert a copy of a row with a new id and `changes`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND column_name <> 'id'",
            [table],
        )
        columns = [name for (name,) in cursor.fetchall()]
    values = ", ".join("%s" if name in changes else f'"{name}"' for name in columns)
    names = ", ".join(f'"{name}"' for name in columns)
    sql(
        f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} WHERE id = %s",
        *(changes[name] for name in columns if name in changes),
        pk,
    )


def _batch(**changes: Any) -> None:
    scheduled = {"scheduled_for": timezone.now()}
    duplicate("scheduling_batch", batch_in("waiting").pk, **(scheduled | changes))


def _instance(**changes: Any) -> None:
    duplicate("scheduling_instance", instance_in("waiting").pk, **({"number": 99} | changes))


def _execution(state: str = "success", **changes: Any) -> None:
    execution = instance_in(state).executions.get()
    duplicate("scheduling_execution", execution.pk, **({"number": 99} | changes))


def _revision(**changes: Any) -> None:
    revision = factories.task().revision
    assert revision is not None
    duplicate("scheduling_taskrevision", revision.pk, **({"number": 99} | changes))


def _node(**changes: Any) -> None:
    duplicate("scheduling_node", factories.node().pk, **({"name": factories.unique("twin")} | changes))


def _fires_twice() -> None:
    batch = factories.batch(factories.task(cron="0 * * * *"), kind="cron")
    duplicate("scheduling_batch", batch.pk)


def _twin(thing: Any) -> None:
    duplicate(thing._meta.db_table, thing.pk)


def _twin_task(**changes: Any) -> None:
    duplicate("scheduling_task", factories.task().pk, **({"name": factories.unique("twin")} | changes))


def _chunk_twice() -> None:
    execution = instance_in("running").executions.get()
    for _time in range(2):
        sql(
            "INSERT INTO scheduling_logchunk (execution_id, sequence, text, dropped_bytes, written_at)"
            " VALUES (%s, 0, '', 0, now())",
            execution.pk,
        )


def _membership(**changes: Any) -> None:
    member = factories.user(team=factories.team()).memberships.get()
    duplicate("scheduling_membership", member.pk, **changes)


def _grant(**changes: Any) -> None:
    granted = factories.grant(factories.task(), to=factories.team())
    duplicate("scheduling_taskgrant", granted.pk, **changes)


def _journal(**changes: Any) -> None:
    factories.task()
    entry = JournalEntry.objects.first()
    assert entry is not None
    duplicate("scheduling_journalentry", entry.pk, **changes)


def _saved_filters(*, names: tuple[str, str], default: bool = False) -> None:
    user = factories.user()
    for name in names:
        SavedFilter.objects.create(user=user, page="batches", name=name, query="", is_default=default)


def _notification(**changes: Any) -> None:
    notifications.post(
        "test:1",
        event="failure",
        channels=["ops"],
        team_id=factories.team().pk,
        subject="failed",
        text="failed",
    )
    row = Notification.objects.get()
    duplicate("scheduling_notification", row.pk, **({"key": "test:2"} | changes))


def _deadline() -> Deadline:
    return Deadline(kind="batch", object_id=1, after=60, at=timezone.now())


VIOLATIONS: dict[str, list[Callable[[], None]]] = {
    "saved_filter_name_once": [lambda: _saved_filters(names=("mine", "mine"))],
    "saved_filter_one_default": [lambda: _saved_filters(names=("mine", "other"), default=True)],
    "notification_state_legal": [lambda: _notification(state="lost")],
    "notification_sent_at_when_sent": [
        lambda: _notification(state="sent"),
        lambda: _notification(sent_at=timezone.now()),
    ],
    "deadline_once_a_limit": [lambda: Deadline.objects.bulk_create([_deadline(), _deadline()])],
    "trigger_fires_once": [_fires_twice],
    "batch_trigger_legal": [lambda: _batch(trigger="moon")],
    "batch_ended_when_final": [
        lambda: _batch(state="paused"),
        lambda: _batch(ended_at=timezone.now()),
        lambda: _batch(state="success"),
        lambda: _batch(state="condition_not_met"),
        lambda: _batch(state="terminating", ended_at=timezone.now()),
    ],
    "batch_counts_within_total": [
        lambda: _batch(succeeded=3),
        lambda: _batch(succeeded=1, failed=1, timed_out=1),
        lambda: _batch(terminated=1, timed_out=2),
        lambda: _batch(succeeded=-1, failed=2),
    ],
    "instance_number_once_a_batch": [lambda: _twin(instance_in("waiting"))],
    "instance_ended_when_final": [
        lambda: _instance(state="frozen"),
        lambda: _instance(ended_at=timezone.now()),
        lambda: _instance(state="terminated"),
        lambda: _instance(state="timed_out"),
        lambda: _instance(state="terminating", ended_at=timezone.now()),
    ],
    "instance_pinned_has_node": [lambda: _instance(pinned=True)],
    "execution_number_once_an_instance": [lambda: _execution(number=1)],
    "execution_one_live": [lambda: _execution("running")],
    "execution_ended_with_outcome": [
        lambda: _execution(outcome="maybe"),
        lambda: _execution(ended_at=None),
        lambda: _execution(outcome=None),
    ],
    "chunk_sequence_once_an_execution": [_chunk_twice],
    "revision_number_once_a_task": [lambda: _revision(number=1)],
    "revision_mode_legal": [lambda: _revision(mode="everywhere")],
    "revision_trigger_legal": [lambda: _revision(trigger="moon")],
    "revision_overlap_legal": [lambda: _revision(overlap="fight")],
    "revision_misfire_legal": [lambda: _revision(misfire="shrug")],
    "revision_ratio_1_to_100": [lambda: _revision(success_ratio=0), lambda: _revision(success_ratio=101)],
    "revision_timeout_positive": [lambda: _revision(timeout=0)],
    "revision_trigger_has_its_schedule": [
        lambda: _revision(trigger="cron"),
        lambda: _revision(trigger="fixed_rate"),
        lambda: _revision(trigger="cron", cron="0 * * * *", interval=60),
        lambda: _revision(trigger="fixed_rate", interval=0),
        lambda: _revision(cron="0 * * * *"),
        lambda: _revision(trigger="workflow", interval=60),
    ],
    "task_name_once_a_team": [lambda: _twin(factories.task())],
    "task_keeps_records_a_day": [lambda: _twin_task(retention_days=0)],
    "group_name_once_a_team": [lambda: _twin(factories.group())],
    "node_state_legal": [lambda: _node(state="asleep")],
    "node_has_a_slot": [lambda: _node(slots=0)],
    "membership_once": [_membership],
    "membership_role_legal": [lambda: _membership(role="king", user_id=factories.user().pk)],
    "grant_once": [_grant],
    "grant_permission_legal": [lambda: _grant(permission="edit_task")],
    "journal_via_legal": [lambda: _journal(via="post")],
}


def test_every_constraint_of_scheduling_is_tried_here():
    names = {
        constraint.name
        for model in apps.get_app_config("scheduling").get_models()
        for constraint in model._meta.constraints
    }
    assert names == set(VIOLATIONS)


# A value of no state also breaks "ended exactly when final" for none, but one trigger value breaks two checks.
ALSO = {"revision_trigger_legal": {"revision_trigger_has_its_schedule"}}


@pytest.mark.parametrize(
    ("name", "violate"), [(name, violate) for name, each in VIOLATIONS.items() for violate in each]
)
def test_the_database_refuses_by_name(name: str, violate: Callable[[], None]):
    with pytest.raises(IntegrityError) as refused:
        violate()
    assert refused.value.__cause__.diag.constraint_name in {name} | ALSO.get(name, set())  # type: ignore[union-attr]


def test_every_trigger_of_scheduling_is_tried_here():
    names = {
        trigger.name
        for model in apps.get_app_config("scheduling").get_models()
        for trigger in getattr(model._meta, "triggers", [])
    }
    assert names == {"batch_moves", "instance_moves", "revision_immutable", "journal_immutable"}


@pytest.mark.parametrize("column", ["spec", "success_ratio", "digest", "number", "kind", "retry_count"])
def test_a_revision_cannot_be_changed(column: str):
    revision = factories.task().revision
    other = {"spec": '{"command": "false"}', "digest": "x", "kind": "http"}.get(column, 7)
    with pytest.raises(ProgrammingError, match="Cannot update rows from scheduling_taskrevision"):
        sql(f"UPDATE scheduling_taskrevision SET {column} = %s WHERE id = %s", other, revision.pk)


@pytest.mark.parametrize("column", ["action", "actor", "reason", "at", "details", "object_id"])
def test_a_journal_entry_cannot_be_changed(column: str):
    factories.task()
    entry = JournalEntry.objects.first()
    other = {"at": timezone.now(), "details": "{}", "object_id": 99}.get(column, "other")
    if column == "details":
        other = '{"x": 1}'
    with pytest.raises(ProgrammingError, match="Cannot update rows from scheduling_journalentry"):
        sql(f"UPDATE scheduling_journalentry SET {column} = %s WHERE id = %s", other, entry.pk)


def test_what_a_user_wrote_stays_when_the_user_is_deleted():
    author = factories.user()
    task = factories.task()
    transitions.stop_batch(factories.batch(task).pk, by=author, reason="gone soon")
    name = author.get_username()
    author.delete()
    entry = JournalEntry.objects.get(action="stopped")
    assert (entry.user_id, entry.actor, entry.reason) == (None, name, "gone soon")
