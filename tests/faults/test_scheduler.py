"""The scheduler process: one leads, the others take over, and no trigger is lost or fired twice."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import psycopg
import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import Count
from django.utils import timezone

from scheduling.engine import triggers
from scheduling.engine.lead import FROZEN_SECONDS, HEARTBEAT_SECONDS, LEAD_KEY
from scheduling.engine.scheduler import STEPS, Scheduler
from scheduling.engine.steps import Source, Step
from scheduling.models import Batch, DeploymentGroup, Instance, SchedulerProcess, Task, TaskRevision
from tests import factories
from tests.processes import database_url, eventually, manage

pytestmark = pytest.mark.django_db(transaction=True)


def due_tasks(count: int) -> None:
    """`count` hourly tasks, all due now."""
    first = factories.task(cron="0 * * * *", misfire="run_all")
    content = {**first.revision.content, "digest": first.revision.digest, "number": 1}
    place = {"team": first.team, "group": first.group}
    others = Task.objects.bulk_create(Task(name=factories.unique("many"), **place) for _ in range(count - 1))
    TaskRevision.objects.bulk_create(TaskRevision(task=task, **content) for task in others)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE scheduling_task SET next_due_at = now(), revision_id = revision.id"
            " FROM scheduling_taskrevision revision"
            " WHERE revision.task_id = scheduling_task.id AND scheduling_task.id = ANY(%s)",
            [[first.pk, *(task.pk for task in others)]],
        )


def fired_exactly_once(count: int) -> None:
    batches = Batch.objects.values("task").annotate(times=Count("id"))
    assert [each["times"] for each in batches] == [1] * count
    assert Instance.objects.count() == count


def leader() -> int | None:
    """The server process whose session leads, None when none does."""
    key = LEAD_KEY & (2**64 - 1)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [key >> 32, key & (2**32 - 1)],
        )
        row = cursor.fetchone()
    return row[0] if row else None


def waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        return cursor.fetchone()[0] > 0


def seconds_until(condition, *, within: float = 10, log=None) -> float:
    began = time.monotonic()
    eventually(condition, within=within, log=log)
    return time.monotonic() - began


@contextmanager
def in_thread(scheduler: Scheduler):
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    try:
        yield scheduler
    finally:
        scheduler.stop()
        thread.join(10)
        assert not thread.is_alive()


# --- exactly once ----------------------------------------------------------------------------------


def test_schedulers_on_one_set_of_a_thousand_due_triggers_make_a_thousand_batches():
    due_tasks(1000)
    together = threading.Barrier(3)
    shares, failures = [], []

    def fire() -> None:
        share = 0
        try:
            together.wait()
            while triggers.next_due_at() <= timezone.now():
                share += triggers.fire_due(limit=37)
        except Exception as error:  # noqa: BLE001 – a thread cannot fail a test by itself
            failures.append(error)
        finally:
            shares.append(share)
            connection.close()

    threads = [threading.Thread(target=fire) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    fired_exactly_once(1000)
    assert sum(shares) == 1000
    assert all(shares), f"they did not share the work: {shares}"


def test_a_leader_killed_between_claim_and_commit_loses_nothing_and_its_standby_fires_everything_once(tmp_path):
    due_tasks(200)
    log = tmp_path / "log"
    with ExitStack() as running:
        # Whoever fires now stops in the middle of its transaction: due rows locked, batches made, no commit.
        blocker = running.enter_context(psycopg.connect(database_url()))
        blocker.execute("LOCK TABLE scheduling_journalentry IN EXCLUSIVE MODE")
        first = running.enter_context(manage("scheduler", log=log))
        eventually(waits_for_a_lock, within=20, log=log)
        led = leader()
        running.enter_context(manage("scheduler", log=log))
        eventually(lambda: "standing by" in log.read_text(), within=20, log=log)
        assert Batch.objects.count() == 0

        first.kill()
        first.wait()
        eventually(lambda: leader() not in {None, led}, within=5, log=log)
        blocker.rollback()

        eventually(lambda: Batch.objects.count() == 200, within=20, log=log)
        eventually(lambda: not Task.objects.filter(next_due_at__lte=timezone.now()).exists(), log=log)
        fired_exactly_once(200)


def test_a_standby_takes_over_within_a_second_of_a_kill(tmp_path):
    log = tmp_path / "log"
    with manage("scheduler", log=log) as first:
        eventually(leader, within=20, log=log)
        with manage("scheduler", log=log):
            eventually(lambda: "standing by" in log.read_text(), within=20, log=log)
            led = leader()
            first.kill()
            assert seconds_until(lambda: leader() not in {None, led}, log=log) < 1.2
            due_tasks(10)
            with connection.cursor() as cursor:
                cursor.execute("NOTIFY tailrace_schedule")
            eventually(lambda: Batch.objects.count() == 10, log=log)


def test_a_standby_takes_over_from_a_leader_that_is_frozen_and_leads_no_more_when_it_goes_on(tmp_path):
    first_log, log = tmp_path / "first", tmp_path / "log"
    with manage("scheduler", log=first_log) as first:
        eventually(leader, within=20, log=first_log)
        with manage("scheduler", log=log):
            eventually(lambda: "standing by" in log.read_text(), within=20, log=log)
            led = leader()
            first.send_signal(signal.SIGSTOP)
            try:
                taken_over = seconds_until(
                    lambda: leader() not in {None, led}, within=FROZEN_SECONDS + 5, log=log
                )
                assert taken_over > FROZEN_SECONDS - HEARTBEAT_SECONDS - 2
                due_tasks(10)
                with connection.cursor() as cursor:
                    cursor.execute("NOTIFY tailrace_schedule")
                eventually(lambda: Batch.objects.count() == 10, log=log)
            finally:
                first.send_signal(signal.SIGCONT)
            eventually(lambda: "leads no more" in first_log.read_text(), within=10, log=first_log)
            eventually(lambda: "standing by" in first_log.read_text(), within=10, log=first_log)
            fired_exactly_once(10)


@pytest.fixture
def impatient(monkeypatch):
    """PostgreSQL ends the session of a leader that is silent for a second."""
    monkeypatch.setattr("scheduling.engine.lead.FROZEN_SECONDS", 1.0)
    monkeypatch.setattr("scheduling.engine.lead.HEARTBEAT_SECONDS", 0.2)


def test_a_leader_that_is_alive_keeps_its_lead_however_little_there_is_to_do(impatient):
    with in_thread(Scheduler(steps=(Step("rest", lambda: 0, 0.1),), sources=())) as scheduler:
        eventually(lambda: scheduler.leads)
        led, began = leader(), time.monotonic()
        eventually(lambda: time.monotonic() - began > 2.5)
        assert leader() == led


def test_a_leader_keeps_its_lead_through_a_step_that_takes_longer_than_the_time_out(impatient):
    def busy() -> int:
        began = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(2)")
        while time.monotonic() - began < 4:
            sum(range(1000))
        done.append(leader())
        return 0

    done: list[int | None] = []
    with in_thread(Scheduler(steps=(Step("work", busy, 60),), sources=())) as scheduler:
        eventually(lambda: scheduler.leads)
        led = leader()
        eventually(lambda: done)
        assert done == [led]
        assert scheduler.leads
        assert leader() == led


def test_a_leader_whose_loop_hangs_gives_up_its_lead_until_the_loop_goes_on(monkeypatch, caplog):
    monkeypatch.setattr("scheduling.engine.lead.HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr("scheduling.engine.lead.STUCK_SECONDS", 1.0)
    free = threading.Event()

    def hang() -> int:
        free.wait()
        return 0

    with ExitStack() as running:
        first = running.enter_context(in_thread(Scheduler(steps=(Step("hang", hang, 60),), sources=())))
        running.callback(free.set)
        eventually(lambda: first.leads)
        second = running.enter_context(in_thread(Scheduler(steps=(), sources=())))
        eventually(lambda: second.leads)
        assert not first.leads
        assert "finished no step for 1 s; this scheduler leads no more" in caplog.text
        free.set()
        second.stop()
        eventually(lambda: first.leads)


# --- the heartbeat ---------------------------------------------------------------------------------


def test_a_heartbeat_tells_who_leads_and_when_it_finished_its_last_round(impatient):
    with in_thread(Scheduler(steps=(Step("tick", lambda: 0, 0.1),), sources=())) as first:
        eventually(lambda: first.leads)
        with in_thread(Scheduler(steps=(), sources=())):
            eventually(lambda: SchedulerProcess.objects.filter(leads=False).exists())
            row = SchedulerProcess.objects.get(leads=True)
            eventually(lambda: SchedulerProcess.objects.get(pk=row.pk).last_round_at > row.last_round_at)
            assert abs(SchedulerProcess.objects.get(pk=row.pk).clock_difference) < 1
        assert [each.leads for each in SchedulerProcess.objects.all()] == [True]
    assert not SchedulerProcess.objects.exists()


def test_a_round_whose_triggers_fail_is_no_round(impatient):
    def fail() -> int:
        raise RuntimeError("no such luck")

    source = Source("break", fail, lambda: None)
    with in_thread(Scheduler(steps=(), sources=(source,))) as scheduler:
        eventually(lambda: scheduler.leads)
        row = SchedulerProcess.objects.get()
        eventually(
            lambda: SchedulerProcess.objects.get().heartbeat_at > row.heartbeat_at + timedelta(seconds=1)
        )
        later = SchedulerProcess.objects.get()
    assert abs(later.last_round_at - row.last_round_at) < timedelta(seconds=0.3)


def test_a_heartbeat_that_the_database_refuses_costs_no_lead(impatient, caplog):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE scheduling_schedulerprocess ADD CONSTRAINT shut CHECK (pid < 0) NOT VALID")
    try:
        with in_thread(Scheduler(steps=(), sources=())) as scheduler:
            eventually(lambda: caplog.text.count("Could not write the scheduler's heartbeat") > 3)
            assert scheduler.leads
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE scheduling_schedulerprocess DROP CONSTRAINT shut")


def test_a_leader_frozen_in_the_middle_of_firing_keeps_nothing_from_its_standby(tmp_path):
    due_tasks(50)
    log = tmp_path / "log"
    with ExitStack() as running:
        blocker = running.enter_context(psycopg.connect(database_url()))
        blocker.execute("LOCK TABLE scheduling_journalentry IN EXCLUSIVE MODE")
        first = running.enter_context(manage("scheduler", log=log))
        eventually(waits_for_a_lock, within=20, log=log)
        first.send_signal(signal.SIGSTOP)
        try:
            # It stands still with the due rows locked and their batches made.
            blocker.rollback()
            running.enter_context(manage("scheduler", log=log))
            eventually(lambda: Batch.objects.count() == 50, within=FROZEN_SECONDS + 15, log=log)
        finally:
            first.send_signal(signal.SIGCONT)
        fired_exactly_once(50)


# --- waking ----------------------------------------------------------------------------------------


def test_a_sleeping_leader_hears_of_a_new_task_and_fires_it_when_it_is_due():
    with in_thread(Scheduler(steps=())) as scheduler:
        eventually(lambda: scheduler.leads)
        task = factories.task(interval=1)
        eventually(lambda: task.batches.count() >= 2, within=5)
    lateness = [batch.created_at - batch.scheduled_for for batch in task.batches.all()]
    assert all(timedelta() <= late < timedelta(seconds=0.5) for late in lateness)


def test_a_due_task_that_somebody_holds_locked_is_fired_as_soon_as_it_is_free():
    due_tasks(1)
    task = Task.objects.get()
    with psycopg.connect(database_url()) as other, in_thread(Scheduler(steps=())) as scheduler:
        other.execute("SELECT FROM scheduling_task WHERE id = %s FOR UPDATE", [task.pk])
        eventually(lambda: scheduler.leads)
        due_tasks(1)
        eventually(lambda: Batch.objects.count() == 1)
        assert task.batches.count() == 0
        other.rollback()
        assert seconds_until(lambda: task.batches.count() == 1) < 1


# --- housekeeping ----------------------------------------------------------------------------------


def test_a_failing_step_stops_neither_the_triggers_nor_the_other_steps(caplog):
    calls = []

    def broken() -> int:
        calls.append("broken")
        raise RuntimeError("no such luck")

    def sound() -> int:
        calls.append("sound")
        return 0

    with in_thread(Scheduler(steps=(Step("break", broken, 0.05), Step("tidy", sound, 0.05)))):
        due_tasks(1)
        eventually(lambda: calls.count("sound") > 2 and calls.count("broken") > 2)
        with connection.cursor() as cursor:
            cursor.execute("NOTIFY tailrace_schedule")
        eventually(lambda: Batch.objects.count() == 1)
    assert "Could not break" in caplog.text


def test_a_step_that_did_something_is_called_again_at_once_and_then_at_its_interval():
    work, calls = [3, 2, 1, 0], []

    def step() -> int:
        calls.append(time.monotonic())
        return work.pop(0) if work else 0

    with in_thread(Scheduler(steps=(Step("drain", step, 60),))):
        eventually(lambda: len(calls) == 4, within=5)
        factories.task(interval=3600)  # its NOTIFY makes the loop go round once more
        eventually(lambda: Task.objects.exists())
    assert len(calls) == 4


def test_only_the_leader_keeps_house():
    calls = []
    step = Step("note", lambda: bool(calls.append(threading.current_thread().name)), 0.02)
    with in_thread(Scheduler(steps=(step,))) as first:
        eventually(lambda: first.leads)
        with in_thread(
            Scheduler(steps=(Step("never", lambda: pytest.fail("it does not lead"), 0.02),))
        ) as second:
            seen = len(calls)
            eventually(lambda: len(calls) > seen + 10)
            assert not second.leads


# --- ending and losing the database ----------------------------------------------------------------


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_leader_and_a_standby_end_soon_after_being_asked(tmp_path, sent):
    log = tmp_path / "log"
    with manage("scheduler", log=log) as first:
        eventually(leader, within=20, log=log)
        with manage("scheduler", log=log) as second:
            eventually(lambda: "standing by" in log.read_text(), within=20, log=log)
            for process in (second, first):
                process.send_signal(sent)
                assert process.wait(10) == 0
    assert leader() is None
    assert "Traceback" not in log.read_text()


def test_a_leader_that_waits_for_a_lock_ends_all_the_same_and_leaves_nothing_behind(tmp_path):
    due_tasks(5)
    log = tmp_path / "log"
    with psycopg.connect(database_url()) as blocker:
        blocker.execute("LOCK TABLE scheduling_journalentry IN EXCLUSIVE MODE")
        with manage("scheduler", log=log) as process:
            eventually(waits_for_a_lock, within=20, log=log)
            process.terminate()
            assert process.wait(2) == 0
        blocker.rollback()
    assert Batch.objects.count() == 0
    assert Task.objects.filter(next_due_at__lte=timezone.now()).count() == 5
    assert "Traceback" not in log.read_text()


def test_a_leader_that_loses_its_connections_says_so_and_leads_again(caplog):
    with in_thread(Scheduler(steps=())) as scheduler:
        eventually(lambda: scheduler.leads)
        led = leader()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        eventually(lambda: leader() not in {None, led})
        due_tasks(3)
        with connection.cursor() as cursor:
            cursor.execute("NOTIFY tailrace_schedule")
        eventually(lambda: Batch.objects.count() == 3)
    assert "PostgreSQL does not answer; this scheduler leads no more" in caplog.text
    assert "Traceback" not in caplog.text


def test_the_lead_is_taken_by_one_only():
    with ExitStack() as running:
        schedulers = [running.enter_context(in_thread(Scheduler(steps=()))) for _ in range(4)]
        eventually(lambda: any(each.leads for each in schedulers))
        assert sum(each.leads for each in schedulers) == 1
        next(each for each in schedulers if each.leads).stop()
        eventually(lambda: sum(each.leads for each in schedulers) == 1)


def test_stopping_a_scheduler_that_has_ended_is_harmless():
    with in_thread(Scheduler(steps=())) as scheduler:
        pass
    scheduler.stop()
    assert not scheduler.leads
    assert DeploymentGroup.objects.count() == 0


def test_what_is_left_of_sessions_that_ended_is_removed(db: None) -> None:
    [step] = [step for step in STEPS if step.name == "forget sessions that ended"]
    for key, days in (("ended", -1), ("lasting", 1)):
        Session.objects.create(
            session_key=key, session_data="", expire_date=timezone.now() + timedelta(days=days)
        )

    assert step.run() == 0
    assert list(Session.objects.values_list("session_key", flat=True)) == ["lasting"]
