"""What the database itself refuses: every constraint by its name, and every trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, IntegrityError, ProgrammingError, transaction
from django.utils import timezone

from scheduling import notifications, transitions
from scheduling.models import Deadline, Execution, JournalEntry, Notification, SavedFilter
from tests import factories
from tests.engine.states import batch_in, duplicate, instance_in, sql

pytestmark = [pytest.mark.long, pytest.mark.django_db]


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
    assert names == {
        "batch_moves",
        "instance_moves",
        "execution_final",
        "revision_immutable",
        "journal_immutable",
        "journal_kept",
    }


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


def test_a_journal_entry_cannot_be_deleted():
    factories.task()
    with pytest.raises(DatabaseError, match="Cannot delete rows from scheduling_journalentry"):
        sql("DELETE FROM scheduling_journalentry")
    with transaction.atomic(), pytest.raises(DatabaseError, match="Cannot delete"):
        JournalEntry.objects.all().delete()


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "failed"},
        {"error": "other"},
        {"exit_code": 3},
        {"ended_at": None, "outcome": None},
        {"worker": 3},
        {"result": 3},
    ],
    ids=lambda change: "-".join(change),
)
def test_an_ended_execution_cannot_be_changed(change: dict[str, object]):
    instance = factories.batch().instances.get()
    execution = factories.start(instance)
    factories.end(instance)
    with transaction.atomic(), pytest.raises(DatabaseError, match="has ended and cannot change"):
        Execution.objects.filter(pk=execution.pk).update(**change)
    execution.refresh_from_db()
    assert execution.outcome == "success"


def test_what_a_user_wrote_stays_when_the_user_is_deleted():
    author = factories.user()
    task = factories.task()
    transitions.stop_batch(factories.batch(task).pk, by=author, reason="gone soon")
    name = author.get_username()
    author.delete()
    entry = JournalEntry.objects.get(action="stopped")
    assert (entry.user_id, entry.actor, entry.reason) == (None, name, "gone soon")
