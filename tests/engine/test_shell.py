"""The shell has everything at hand, and docs/shell.md works as it is printed."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from reruns.models import Rerun
from scheduling import reasons, services
from scheduling.engine import rescue
from scheduling.errors import InvalidDefinition, TransitionRefused
from scheduling.management.commands import shell
from scheduling.models import Batch, Instance, JournalEntry, Node, Task
from scheduling.signals import batch_ended
from tests import factories as make
from tests.engine import rerun_support
from tests.processes import database_url
from workflows import services as workflow_services
from workflows.models import CycleInstance

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "shell.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def printed(number: int, block: int = 0) -> str:
    """The `block`-th piece of code of the fix `number`."""
    section = re.split(r"^## \d+\. ", PAGE.read_text(), flags=re.MULTILINE)[number]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)[block]


def run(code: str) -> None:
    """Run `code` with what the shell imports and nothing else."""
    exec(code, shell.Command().get_namespace(verbosity=0, command=code))  # noqa: S102


@pytest.fixture
def group(db: None) -> Any:
    return make.group("etl", team=make.team("warehouse"))


@pytest.fixture
def node(group: Any) -> Node:
    return make.node("etl-2", group=group)


@pytest.fixture
def task(group: Any, node: Node) -> Task:
    return make.task("extract", group=group, shards=["AA", "UA", "DL"], interval=3600)


def numbered(model: Any, pk: int, made: Callable[[], Any]) -> Any:
    """What `made` makes, whose first row of `model` gets the number `pk`."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [model._meta.db_table, pk - 1])
    return made()


def one_of_three_succeeded(task: Task) -> Batch:
    """A batch that failed, of which one instance in three succeeded."""
    batch = make.batch(task)
    succeeded, *failed = make.start_batch(batch)
    make.end(succeeded)
    for instance in failed:
        make.end(instance, "failed", may_retry=False)
    batch.refresh_from_db()
    return batch


def entry(action: str) -> JournalEntry:
    return JournalEntry.objects.get(action=action)


# --- the page --------------------------------------------------------------------------------------


def test_the_page_has_fixes_of_at_most_three_lines() -> None:
    assert re.findall(r"^## (\d+)\. ", PAGE.read_text(), re.MULTILINE) == [str(n) for n in range(1, 15)]
    assert all(len(block.splitlines()) <= 3 for block in BLOCKS)
    tested = re.findall(r"printed\((\d+)(?:, (\d))?\)\)", Path(__file__).read_text())
    assert len(set(tested)) == len(BLOCKS)


def test_1_everything_of_a_task_is_stopped(task: Task) -> None:
    running, waiting = make.batch(task), make.batch(task)
    make.start_batch(running)
    other = make.batch(make.task("load", group=task.group))

    run(printed(1))

    states = dict(Batch.objects.values_list("pk", "state"))
    assert states == {running.pk: "terminating", waiting.pk: "failed", other.pk: "waiting"}
    assert {each.reason for each in JournalEntry.objects.filter(action="stopped")} == {"wrong input file"}


def test_2_what_failed_between_two_times_is_rerun(task: Task) -> None:
    failed = make.end_batch(make.batch(task), "failed")
    make.end_batch(make.batch(task), "success")
    old = make.end_batch(make.batch(task), "failed")
    Batch.objects.filter(pk=old.pk).update(ended_at=timezone.now() - timedelta(hours=7))
    make.end_batch(make.batch(), "failed")

    run(printed(2))

    again = Batch.objects.get(rerun_of__isnull=False)
    assert (again.rerun_of, again.revision, again.state) == (failed, failed.revision, "waiting")
    assert entry("rerun").reason == "the feed was corrected"


def test_3_a_batch_is_judged_by_another_ratio(task: Task) -> None:
    batch = numbered(Batch, 4711, lambda: make.batch(task))
    failed, *others = make.start_batch(batch)
    make.end(failed, "failed", may_retry=False)
    for instance in others:
        make.end(instance)
    batch.refresh_from_db()
    assert (batch.pk, batch.state) == (4711, "failed")

    run(printed(3))

    batch.refresh_from_db()
    assert (batch.state, batch.success_ratio) == ("success", 60)
    assert entry("judged").details["state_before"] == "failed"
    assert entry("judged").reason == "two airlines are on strike"


def test_3_a_batch_is_marked(task: Task) -> None:
    batch = make.end_batch(numbered(Batch, 4711, lambda: make.batch(task)), "failed")

    run(printed(3, 1))

    batch.refresh_from_db()
    assert (batch.state, batch.failed) == ("success", 3)
    assert entry("marked").reason == "loaded by hand, see ticket 812"
    assert "loaded by hand" in batch.reason


def test_4_a_node_is_taken_out_and_back(node: Node) -> None:
    run(printed(4))
    node.refresh_from_db()
    assert node.state == "draining"
    assert entry("node_draining").reason == "new disk"

    run(printed(4, 1))
    node.refresh_from_db()
    assert node.state == "online"


def test_5_a_dead_node_loses_its_work_to_others(task: Task, node: Node) -> None:
    task = make.task("load", group=task.group, retry_count=1)
    [instance] = make.start_batch(make.batch(task))
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=1))

    run(printed(5))

    node.refresh_from_db()
    instance.refresh_from_db()
    assert (node.state, instance.state, instance.cause) == ("offline", "waiting", "lost")
    gone = entry("node_offline")
    assert (gone.actor, gone.via) == (f"os:{getpass.getuser()}", "shell")
    assert "its power supply died" in gone.reason


def test_6_what_shows_terminating_for_ever_gets_an_end(task: Task, node: Node) -> None:
    batch = numbered(Instance, 52013, lambda: make.batch(task))
    instance, *_others = make.start_batch(batch)
    services.stop(batch, by="ann")
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=1))

    run(printed(6))

    instance.refresh_from_db()
    assert (instance.pk, instance.state) == (52013, "terminated")
    assert instance.executions.get().outcome == "terminated"
    assert entry("given_up").reason == "etl-2 is gone"
    assert {each.state for each in batch.instances.exclude(pk=instance.pk)} == {"terminating"}


def test_7_the_journal_tells_who_did_it(task: Task, capsys: Any) -> None:
    batch = numbered(Batch, 4711, lambda: make.batch(task, by="mei"))
    services.stop_instance(batch.instances.all()[0], by="ann", reason="bad shard")
    services.stop(batch, by="bob", reason="all of it")
    make.batch(task, by="eve")

    run(printed(7))

    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == [
        "bob (shell) ended batch 4711: Stopped by bob: all of it",
        "bob (shell) stopped batch 4711: all of it",
        f"ann (shell) stopped instance {batch.instances.all()[0].pk}: bad shard",
        "mei (shell) triggered batch 4711",
    ]


def test_8_a_task_runs_for_yesterday_with_other_parameters(task: Task) -> None:
    run(printed(8))

    batch = Batch.objects.get()
    assert (batch.task, batch.parameters) == (task, {"limit": 10})
    assert timezone.now() - batch.scheduled_for >= timedelta(days=1)


def test_9_a_group_is_switched_off_and_on_again(task: Task) -> None:
    off_before = make.task("off", group=task.group, interval=60, enabled=False)
    other = make.task("elsewhere", interval=60)
    touched = make.task("touched", group=task.group, interval=60)

    run(printed(9))

    assert set(Task.objects.filter(enabled=True)) == {other}
    services.set_enabled(touched, True, by="ann")
    services.set_enabled(touched, False, by="ann")
    run(printed(9, 1))
    enabled = set(Task.objects.filter(enabled=True))
    assert enabled == {task, other}
    assert off_before not in enabled
    assert JournalEntry.objects.filter(action="enabled", reason="incident 812 is over").count() == 1


def test_10_what_is_late_is_found(task: Task, capsys: Any) -> None:
    make.task("in_time", interval=60)
    Task.objects.filter(pk=task.pk).update(next_due_at=timezone.now() - timedelta(minutes=5))

    run(printed(10))

    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["extract"]


def test_10_and_so_are_late_cycles(group: Any, capsys: Any) -> None:
    make.workflow("flights_daily", group=group, cron="0 1 * * *", starts_at=timezone.now() - timedelta(days=2))
    first, *_later = CycleInstance.objects.order_by("cycle_time")
    CycleInstance.objects.filter(pk=first.pk).update(due=True, due_at=timezone.now() - timedelta(minutes=5))

    run(printed(10, 1))

    [said] = capsys.readouterr().out.splitlines()
    assert said.endswith(f"{first.name} {first.pk}")


def test_11_the_cycles_without_success_are_rerun(group: Any) -> None:
    failed, terminated, repaired = (
        rerun_support.cycle(make.workflow(name, group=group), state=state)
        for name, state in (
            ("flights_daily", "failed"),
            ("weather_daily", "terminated"),
            ("claims_daily", "failed"),
        )
    )
    make.end_node(workflow_services.rerun(repaired, reason="at once"), "a", "success")

    run(printed(11))

    for source in (failed, terminated):
        again = CycleInstance.objects.get(rerun_of=source)
        assert (again.state, again.actor) == ("running", f"os:{getpass.getuser()}")
    assert repaired.cycle.instances.count() == 2


def test_12_what_has_not_begun_of_a_workflow_is_held_back_and_let_go(group: Any) -> None:
    make.workflow("flights_daily", group=group, cron="0 1 * * *")
    waiting = CycleInstance.objects.filter(state="not_ready")
    assert waiting.exists()

    run(printed(12))
    assert not waiting.filter(frozen_at__isnull=True).exists()
    run(printed(12, 1))
    assert not waiting.filter(frozen_at__isnull=False).exists()


def test_13_a_week_is_backfilled(group: Any) -> None:
    since = timezone.now() - timedelta(days=30)
    make.workflow("flights_daily", group=group, cron="0 1 * * *", starts_at=since, misfire="skip")

    run(printed(13))

    assert CycleInstance.objects.filter(run_type="backfill").count() == 7


def test_14_what_a_bad_hour_poisoned_is_rerun(group: Any, capsys: Any) -> None:
    poisoned, report = (make.workflow(name, group=group) for name in ("weather", "report"))
    source = numbered(CycleInstance, 4711, lambda: rerun_support.cycle(poisoned))
    waiting = rerun_support.cycle(report, state="not_ready", after=[source])

    numbered(Rerun, 208, lambda: run(printed(14)))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"R-208: rerun downstream of {source.name} (Draft)"
    assert [("Rerun" in line, "Freeze" in line) for line in said[-2:]] == [(True, False), (False, True)]
    run(printed(14, 1))

    rerun = Rerun.objects.get()
    assert (rerun.pk, rerun.state, rerun.reason) == (208, "running", "the weather of nine o'clock was wrong")
    assert make.fresh(waiting).holder == "rerun:208"
    assert entry("submitted").actor == f"os:{getpass.getuser()}"


# --- what they refuse ------------------------------------------------------------------------------


def test_a_node_that_is_heard_of_keeps_its_work(task: Task, node: Node) -> None:
    [instance] = make.start_batch(make.batch(make.task(group=task.group)))

    with pytest.raises(TransitionRefused, match="so it lives"):
        rescue.release_node(node)
    with pytest.raises(TransitionRefused, match="so it lives"):
        rescue.give_up_instance(instance)

    instance.refresh_from_db()
    assert instance.state == "running"
    rescue.release_node(node, even_if_heard=True, reason="hangs")
    instance.refresh_from_db()
    assert instance.state == "failed"
    assert reasons.recognise(instance.reason) is not None


def test_only_what_runs_can_be_given_up(task: Task) -> None:
    with pytest.raises(TransitionRefused, match="only one that runs or is being stopped"):
        rescue.give_up_instance(make.batch(task).instances.all()[0])


def test_a_node_that_is_offline_already_is_cleared(task: Task, node: Node) -> None:
    [instance] = make.start_batch(make.batch(make.task(group=task.group)))
    Node.objects.update(state="offline")

    rescue.release_node(node, by="ann", reason="nobody else did")

    instance.refresh_from_db()
    assert instance.state == "failed"
    assert entry("given_up").actor == "ann"


def test_what_nobody_saw_end_is_failed(task: Task) -> None:
    [instance] = make.start_batch(batch := make.batch(make.task(group=task.group)))
    services.stop(batch, by="ann")
    Node.objects.update(heartbeat_at=None)

    rescue.give_up_instance(instance, by="ann")

    instance.refresh_from_db()
    batch.refresh_from_db()
    assert (instance.state, batch.state) == ("failed", "failed")


def test_without_a_ratio_a_batch_is_judged_by_its_tasks_of_today(task: Task) -> None:
    batch = one_of_three_succeeded(task)
    content = task.revision.content | {"success_ratio": 30}
    services.save_task(team=task.team, group=task.group, name=task.name, content=content, by="ann")

    assert services.rejudge(batch, by="ann").state == "success"


@pytest.mark.parametrize("ratio", [0, 101])
def test_a_ratio_is_a_share_of_a_hundred(task: Task, ratio: int) -> None:
    with pytest.raises(InvalidDefinition, match="from 1 to 100"):
        services.rejudge(make.end_batch(make.batch(task)), success_ratio=ratio)


def test_a_batch_without_instances_cannot_be_judged_but_marked(group: Any) -> None:
    empty = make.batch(make.task(group=group, mode="broadcast"))
    assert (empty.state, empty.total) == ("failed", 0)

    with pytest.raises(TransitionRefused, match="mark it instead"):
        services.rejudge(empty, success_ratio=1)
    assert services.mark(empty, "success", reason="no node was meant to run").state == "success"


def test_a_mark_needs_its_reason_and_a_state_that_ends(task: Task) -> None:
    batch = make.end_batch(make.batch(task))

    with pytest.raises(TransitionRefused, match="Say why"):
        services.mark(batch, "failed", reason=" ")
    with pytest.raises(TransitionRefused, match="not as “terminating”"):
        services.mark(batch, "terminating", reason="x")


def test_another_judgement_is_told_upward_and_the_same_is_not(task: Task) -> None:
    batch, told = one_of_three_succeeded(task), []

    def hear(**event: Any) -> None:
        told.append(event["state"])

    batch_ended.connect(hear)
    try:
        services.rejudge(batch, success_ratio=100)
        services.rejudge(batch, success_ratio=30)
    finally:
        batch_ended.disconnect(hear)

    assert told == ["success"]


# --- the shell itself ------------------------------------------------------------------------------


def test_ours_come_before_what_others_call_the_same() -> None:
    found = shell.Command().get_namespace(verbosity=0)

    assert found["Task"] is Task
    assert found["now"] is timezone.now
    for name in (
        *("services", "rescue", "reruns", "timedelta", "User"),
        *("Batch", "Instance", "Node", "JournalEntry", "Rerun", "RerunItem"),
    ):
        assert name in found


def test_the_banner_names_the_models_and_who_acts() -> None:
    said = shell.banner()

    assert "Batch, Cycle, CycleDependency, CycleInstance, Deadline, DeploymentGroup, Execution" in said
    assert f"os:{getpass.getuser()}" in said


@pytest.mark.django_db(transaction=True)
def test_a_real_shell_is_journalled_as_the_systems_user() -> None:
    task = make.task("extract", interval=3600)
    code = "print(services.set_enabled(Task.objects.get(name='extract'), False, reason='incident 812'))"
    environment = os.environ | {"DATABASE_URL": database_url()}

    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("extract\n", 0), done.stderr
    made = JournalEntry.objects.get(object_type="task", action="disabled", object_id=task.pk)
    assert (made.actor, made.via, made.reason) == (f"os:{getpass.getuser()}", "shell", "incident 812")
