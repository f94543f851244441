"""Old records go, in small steps that nobody waits for, and nothing else does."""

from __future__ import annotations

import io
import time
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from scheduling import definitions, services
from scheduling.engine.scheduler import STEPS
from scheduling.errors import InvalidDefinition, NotAvailable
from scheduling.models import Batch, Execution, Instance, JournalEntry, LogChunk, Task, TaskRevision
from scheduling.services import retention
from scheduling.services.retention import Removed, Sweep
from tests import factories as make
from tests.engine.support import Elsewhere, before_commit, check
from tests.processes import eventually

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True)]


def aged(batch: Batch, *, days: float) -> Batch:
    """`batch` as if all of it had happened `days` earlier."""
    by = timedelta(days=days)
    earlier = {"created_at": F("created_at") - by, "ended_at": F("ended_at") - by}
    Batch.objects.filter(pk=batch.pk).update(scheduled_for=F("scheduled_for") - by, **earlier)
    batch.refresh_from_db()
    return batch


def ended(task: Task | None = None, *, days: float = 8, outcome: str = "success") -> Batch:
    """A batch that ended `days` ago, with a piece of log for each execution."""
    batch = make.end_batch(make.batch(task), outcome)
    executions = Execution.objects.filter(instance__batch=batch)
    LogChunk.objects.bulk_create(
        LogChunk(execution=execution, sequence=n, text="a line\n", written_at=timezone.now())
        for execution in executions
        for n in range(2)
    )
    return aged(batch, days=days)


def swept(sweep: Sweep | None = None) -> Removed:
    sweep = sweep or Sweep()
    while sweep.step():
        pass
    return sweep.removed


def left() -> set[int]:
    return set(Batch.objects.values_list("pk", flat=True))


def test_what_ended_more_than_a_week_ago_goes_with_all_that_belongs_to_it() -> None:
    task = make.task(shards=["a", "b"])
    old, recent = ended(task, days=7.1), ended(task, days=6.9)
    assert swept() == Removed(batches=1, instances=2, executions=2, chunks=4)
    assert left() == {recent.pk}
    assert Instance.objects.count() == Execution.objects.count() == 2
    assert LogChunk.objects.count() == 4
    assert JournalEntry.objects.filter(object_type="batch", object_id=old.pk, action="ended").exists()
    assert TaskRevision.objects.filter(pk=old.revision_id).exists()


def test_a_batch_is_as_old_as_its_end_not_as_its_beginning() -> None:
    long_one = ended(days=8)
    Batch.objects.filter(pk=long_one.pk).update(ended_at=timezone.now())
    assert not swept()


@pytest.mark.parametrize("outcome", ["success", "failed"])
def test_both_ends_are_ends(outcome: str) -> None:
    ended(outcome=outcome)
    assert swept().batches == 1


def test_what_is_unfinished_never_goes() -> None:
    waiting, running = make.batch(), make.batch()
    make.start_batch(running)
    aged(waiting, days=400)
    aged(running, days=400)
    assert not swept()


def test_a_batch_whose_rerun_is_unfinished_stays_until_that_ends() -> None:
    source = ended()
    rerun = services.rerun(source, by="tests")
    assert not swept()
    make.end_batch(rerun)
    assert swept().batches == 1
    rerun.refresh_from_db()
    assert rerun.rerun_of is None
    check(rerun)


def test_a_task_may_keep_its_records_longer_or_shorter() -> None:
    longer, shorter, plain = make.task(), make.task(), make.task()
    Task.objects.filter(pk=longer.pk).update(retention_days=30)
    Task.objects.filter(pk=shorter.pk).update(retention_days=1)
    kept = {ended(longer, days=29).pk, ended(shorter, days=0.9).pk, ended(plain, days=6).pk}
    for task, days in ((longer, 31), (shorter, 2), (plain, 8)):
        ended(task, days=days)
    assert swept().batches == 3
    assert left() == kept


def test_the_installation_says_how_long_a_week_is(settings: Any) -> None:
    settings.TAILRACE = settings.TAILRACE | {"RETENTION_DAYS": 30}
    ended(days=8)
    assert not swept()


def test_a_step_stays_within_its_rows_and_a_batch_goes_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch larger than a step loses its logs and executions part by part, and its instances at the end."""
    monkeypatch.setattr(retention, "MOST_ROWS", 3)
    monkeypatch.setattr(retention, "LEAST_ROWS", 3)
    huge = ended(make.task(shards=[str(n) for n in range(8)]))
    sweep, before = Sweep(rows=3), Removed()
    while sweep.step():
        gone = [now - then for now, then in zip(sweep.removed.counts, before.counts, strict=True)]
        assert max(gone[2:]) <= 3
        assert gone[1] in {0, 8}
        if huge.pk in left():
            assert Instance.objects.count() == 8
        before = sweep.removed
    assert sweep.removed == Removed(batches=1, instances=8, executions=8, chunks=16)


def test_a_batch_without_instances_goes_too() -> None:
    aged(make.batch(make.task(mode="broadcast")), days=8)
    assert swept() == Removed(batches=1)


def test_no_step_looks_at_what_stays() -> None:
    """A step reads old batches by an index with the age in its condition, whichever index the planner takes."""
    task = make.task()
    template = ended(task, days=1)
    fields = [
        f.attname for f in Batch._meta.concrete_fields if not f.generated and f.name not in {"id", "created_at"}
    ]
    columns = ", ".join(f'"{name}"' for name in fields)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO scheduling_batch ({columns}, created_at)"
            f" SELECT {columns}, created_at + n * interval '1 second' FROM scheduling_batch,"
            " generate_series(1, 20000) n WHERE id = %s",
            [template.pk],
        )
        cursor.execute("ANALYZE scheduling_batch")
    with CaptureQueriesContext(connection) as queries:
        Sweep().step()
    [found] = [
        query["sql"] for query in queries if "SKIP LOCKED" in query["sql"] and "kept_since" in query["sql"]
    ]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {found}")
        [[[explained]]] = cursor.fetchall()
        cursor.execute("SELECT pg_relation_size('scheduling_batch') / current_setting('block_size')::int")
        [[pages]] = cursor.fetchall()
    plan = explained["Plan"]
    read = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert read < 50 < pages / 4, plan


# --- beside others ---------------------------------------------------------------------------------


def test_workers_end_instances_while_a_step_is_under_way() -> None:
    task = make.task(shards=["a", "b"])
    old, running = ended(task), make.batch(task)
    first, second = make.start_batch(running)
    with transaction.atomic():
        assert Sweep().step()
        for instance in (first, second):
            began = time.monotonic()
            Elsewhere(lambda instance=instance: make.end(instance)).result()
            assert time.monotonic() - began < retention.LONGEST_SECONDS
        fresh = Elsewhere(lambda: services.trigger(task, by="tests")).result()
    check(running)
    assert running.state == "success"
    assert left() == {running.pk, fresh.pk}
    assert old.pk not in left()


def test_a_batch_that_somebody_holds_is_passed_over() -> None:
    held, other = ended(), ended()
    with transaction.atomic():
        Batch.objects.select_for_update().get(pk=held.pk)
        assert Elsewhere(swept).result().batches == 1
    assert left() == {held.pk}
    assert other.pk not in left()


def test_a_batch_whose_rerun_somebody_holds_is_passed_over() -> None:
    source = ended()
    rerun = make.end_batch(services.rerun(source, by="tests"))
    with transaction.atomic():
        Batch.objects.select_for_update().get(pk=rerun.pk)
        assert not Elsewhere(swept).result()
    assert swept().batches == 1


def test_who_reruns_an_instance_of_what_is_going_waits_a_moment_and_finds_it_gone() -> None:
    old = ended()
    instance = old.instances.get()

    def rerun() -> str:
        try:
            services.rerun_instance(instance, by="tests")
        except NotAvailable as refusal:
            return str(refusal)
        return "rerun"

    with before_commit(lambda: Sweep().step(), rerun) as other:
        pass
    assert other.result() == f"Instance {instance.pk} is not there any more; retention removed it."
    assert not left()


def test_a_rerun_that_came_first_keeps_the_batch() -> None:
    old = ended()
    instance = old.instances.get()
    with transaction.atomic():
        services.rerun_instance(instance, by="tests")
        assert not Elsewhere(swept).result()
    check(old)
    assert old.state == "waiting"


def test_a_statement_that_takes_too_long_is_given_up_and_smaller_steps_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended()
    monkeypatch.setattr(retention, "LONGEST_SECONDS", 0.05)
    monkeypatch.setattr(retention, "_CHUNKS_GO", f"SELECT pg_sleep(5); {retention._CHUNKS_GO}")
    sweep = Sweep(rows=retention.MOST_ROWS)
    assert sweep.step()
    assert sweep.rows == retention.LEAST_ROWS
    assert not sweep.removed


# --- in the scheduler, and by hand -----------------------------------------------------------------


def test_a_turn_of_the_scheduler_is_short_and_rests_when_nothing_is_old() -> None:
    [step] = [step for step in STEPS if step.name == "remove old records"]
    assert isinstance(step.run, Sweep)
    assert len(dict.fromkeys(STEPS)) == len(STEPS)
    for _ in range(3):
        ended()
    sweep = Sweep()
    assert sweep() == 0
    while left():
        sweep()

    def asks() -> bool:
        with CaptureQueriesContext(connection) as queries:
            sweep()
        return bool(queries)

    # The round in which it finds nothing may take more than a turn.
    eventually(lambda: not asks())
    assert not asks()


def test_the_command_says_how_much_would_go_and_then_removes_it() -> None:
    task = make.task("load", shards=["a", "b"])
    Task.objects.filter(pk=task.pk).update(retention_days=2)
    ended(task, days=3)
    ended(task, days=1)
    would, did, again = (io.StringIO() for _ in range(3))
    call_command("retain", dry_run=True, stdout=would)
    assert f"{task.team.name}/load: 1 batches with 2 instances; keeps 2 days" in would.getvalue()
    assert "Would remove 1 batches, 2 instances, 2 executions and 4 pieces of logs." in would.getvalue()
    assert Batch.objects.count() == 2
    call_command("retain", stdout=did)
    assert "Removed 1 batches, 2 instances, 2 executions and 4 pieces of logs." in did.getvalue()
    call_command("retain", stdout=again)
    assert "Nothing is old enough to go." in again.getvalue()


# --- what a task says of it ------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "days"), [("30d", 30), ("2w", 14), ("24h", 1), (90, 90), (None, None)])
def test_a_task_says_how_long_in_whole_days(given: Any, days: int | None) -> None:
    task = make.task()
    saved = services.save_task(
        team=task.team, group=task.group, name=task.name, content=task.revision.content, retention_days=given
    )
    assert saved.retention_days == days
    assert saved.revision == task.revision


def test_saving_a_task_without_a_word_of_it_leaves_it_as_it_is() -> None:
    task = make.task()
    content, place = task.revision.content, {"team": task.team, "group": task.group, "name": task.name}
    services.save_task(**place, content=content, retention_days=3)
    assert services.save_task(**place, content=content | {"priority": 4}).retention_days == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("36h", "not whole days; write e.g. 30d"),
        ("30", "not whole days; write e.g. 30d"),
        ("0d", "from 1 to 3650"),
        (0, "from 1 to 3650"),
        (True, "from 1 to 3650"),
        ("ever", "is no duration"),
        ("3651d", "longer than ten years"),
    ],
)
def test_what_is_no_number_of_days_is_refused(given: Any, said: str) -> None:
    task = make.task()
    with pytest.raises(InvalidDefinition) as refusal:
        services.save_task(
            team=task.team,
            group=task.group,
            name=task.name,
            content=task.revision.content,
            retention_days=given,
        )
    assert said in refusal.value.errors["retention"]


def test_the_words_say_whose_rule_it_is() -> None:
    assert Task(retention_days=1).records_kept == "1 day"
    assert Task(retention_days=30).records_kept == "30 days"
    assert Task().records_kept == "7 days (the installation's default)"


FILE = """\
team: keepers
groups: [{name: etl}]
tasks:
  - name: tidy
    group: etl
    kind: shell
    command: "true"
    retention: %s
"""


def test_a_file_of_definitions_says_how_long_records_are_kept(tmp_path: Any) -> None:
    file = tmp_path / "keep.yaml"
    file.write_text(FILE % "30d")
    definitions.apply(definitions.read_files([str(file)]))
    assert Task.objects.get(name="tidy").retention_days == 30
    assert "retention: 30d" in definitions.export()
    assert definitions.plan(definitions.read_files([str(file)])).changes_nothing

    file.write_text(FILE.replace("    retention: %s\n", ""))
    plan = definitions.plan(definitions.read_files([str(file)]))
    assert [(c.field, c.before, c.after) for step in plan.steps for c in step.changes] == [
        ("retention", "30d", None)
    ]
    definitions.apply(definitions.read_files([str(file)]))
    assert Task.objects.get(name="tidy").retention_days is None


@pytest.mark.parametrize("given", ["36h", "30", "[1]", "", "soon"])
def test_a_mistake_is_told_with_file_line_and_field(tmp_path: Any, given: str) -> None:
    file = tmp_path / "keep.yaml"
    file.write_text(FILE % given)
    with pytest.raises(definitions.InvalidDefinitions) as refusal:
        definitions.read_files([str(file)])
    [mistake] = refusal.value.mistakes
    assert str(mistake).startswith(f"{file}:8: tasks[0].retention: ")
