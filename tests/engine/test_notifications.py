"""Who is told of what: one notification for each event and channel, in the transaction of the event."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from scheduling import notifications, services
from scheduling.engine import triggers
from scheduling.engine.sender import Sender, message_of
from scheduling.errors import InvalidDefinition
from scheduling.models import Batch, Deadline, Notification, Task
from scheduling.notifications import channels, deadlines, outbox
from tests import factories as make
from tests.doors import Door, mail_door, web_door
from tests.engine.support import Elsewhere
from tests.processes import eventually

pytestmark = pytest.mark.django_db(transaction=True)

OPS = {"channel": "ops", "on": ["failure"]}
ALL = {"channel": "ops", "on": ["success", "failure", "stopped"]}


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """The channel `ops`, which is a web hook on this machine."""
    with web_door() as opened:
        monkeypatch.setenv("TAILRACE_CHANNEL_OPS", opened.address)
        yield opened


def told(*rules: dict[str, Any], **content: Any) -> Task:
    """A task with rules (by default, the channel ops is told of failures)."""
    task = make.task(**content)
    return services.save_task(
        team=task.team,
        group=task.group,
        name=task.name,
        content=task.revision.content,
        notify=list(rules) or [OPS],
        by="tests",
    )


def posted() -> list[tuple[str, str]]:
    return list(Notification.objects.order_by("id").values_list("event", "channel"))


def post(count: int = 1, *, channel: str = "ops", event: str = "failure") -> list[Notification]:
    """Notifications that wait, of no event in particular."""
    team = make.team()
    first = Notification.objects.count()
    for number in range(first, first + count):
        outbox.post(
            f"test:{number}",
            event=event,
            channels=[channel],
            team_id=team.pk,
            subject=f"notification {number}",
            text="something happened",
            path="/batches/1/",
        )
    return list(Notification.objects.order_by("id")[first:])


def send_all(sender: Sender | None = None, channel: str = "ops") -> None:
    sender = sender or Sender()
    while sender.send_next(channel):
        pass


def due_now() -> None:
    Notification.objects.update(next_attempt_at=timezone.now())


# --- what is posted --------------------------------------------------------------------------------


def test_a_failure_is_told_to_those_who_are_told_of_failures() -> None:
    task = told(OPS, {"channel": "chat", "on": ["success"]}, {"channel": "boss", "on": ["success", "failure"]})
    make.end_batch(make.batch(task), "failed")
    assert posted() == [("failure", "ops"), ("failure", "boss")]
    make.end_batch(make.batch(task))
    assert posted()[2:] == [("success", "chat"), ("success", "boss")]


def test_it_says_what_failed_when_why_and_where_to_look(settings: Any) -> None:
    task = told(shards=["AA", "UA"])
    batch = make.batch(task)
    good, bad = make.start_batch(batch)
    make.end(good)
    make.end(bad, "failed", error="exit code 3", may_retry=False)
    notification = Notification.objects.get()
    assert notification.subject == f"[{task.team.name}] {task.name} failed"
    lines = notification.text.splitlines()
    assert lines[0].startswith(f"Batch {batch.pk} of the task {task.name} ended at ")
    assert "1 of 2 instances succeeded; 100 % are needed." in lines
    assert f"– shard 1 (UA) on {bad.node.name}: exit code 3" in lines
    assert notification.path == reverse("batch-detail", args=[batch.pk])
    settings.TAILRACE["URL"] = "https://tailrace.example.org"
    subject, text = message_of(outbox.claim("ops"), "ops")
    settings.TAILRACE["URL"] = ""
    assert text.endswith(f"https://tailrace.example.org/batches/{batch.pk}/")
    assert subject == notification.subject


def test_a_batch_that_cannot_begin_is_told_of(settings: Any) -> None:
    make.batch(told(mode="broadcast"))
    assert posted() == [("failure", "ops")]
    assert "No node of the deployment group is online" in Notification.objects.get().text


def test_each_end_of_a_batch_is_told_once_and_a_repeat_is_not() -> None:
    batch = make.end_batch(make.batch(told()), "failed")
    services.mark(batch, "success", reason="it was fine", by="tests")
    services.mark(batch, "failed", reason="it was not", by="tests")
    assert posted() == [("failure", "ops")]
    services.rerun_instance(batch.instances.get(), by="tests", reason="again")
    batch.refresh_from_db()
    make.end_batch(batch, "failed")
    assert posted() == [("failure", "ops")] * 2


def test_a_stopped_batch_of_a_workflow_is_told_of_by_the_rules_of_its_own_task_only() -> None:
    services.stop(make.batch(told(ALL, trigger="workflow"), kind="workflow"), by="tests", reason="wrong day")
    services.stop(make.batch(make.task(trigger="workflow"), kind="workflow"), by="tests", reason="wrong day")
    assert posted() == [("stopped", "ops")]
    assert "Stopped by tests: wrong day" in Notification.objects.get().text


def test_a_stopped_batch_is_its_own_event_and_off_by_default() -> None:
    for rule, events in ((OPS, []), (ALL, ["stopped"])):
        Notification.objects.all().delete()
        batch = make.batch(told(rule))
        make.start_batch(batch)
        services.stop(batch, by="ann", reason="wrong input")
        make.end(batch.instances.get(), "terminated")
        assert [event for event, _channel in posted()] == events
    mail = Notification.objects.get()
    assert mail.subject.endswith("was stopped")
    assert "Stopped by ann: wrong input" in mail.text


def test_a_stopped_batch_that_reached_its_ratio_succeeded() -> None:
    batch = make.batch(told(ALL, shards=["a", "b"], success_ratio=50))
    first, second = make.start_batch(batch)
    make.end(first, "success")
    services.stop(batch, by="ann")
    make.end(second, "terminated")
    assert posted() == [("success", "ops")]


def test_a_batch_that_another_replaced_was_stopped_and_did_not_fail() -> None:
    task = told(ALL, overlap="replace")
    old = services.trigger(task, by="ann")
    make.start_batch(old)
    services.trigger(task, by="ann")
    make.end(old.instances.get(), "terminated")
    assert posted() == [("stopped", "ops")]
    assert Batch.objects.failures_by_task(timezone.now() - timedelta(hours=1)).count() == 0


def test_the_stop_of_an_only_instance_is_a_stop_and_its_rerun_may_fail() -> None:
    batch = make.batch(told(ALL))
    [only] = make.start_batch(batch)
    services.stop_instance(only, by="ann")
    make.end(only, "terminated")
    assert posted() == [("stopped", "ops")]
    services.rerun_instance(only, by="ann")
    make.end_batch(Batch.objects.get(pk=batch.pk), "failed")
    assert posted() == [("stopped", "ops"), ("failure", "ops")]


def test_an_event_that_is_undone_posts_nothing() -> None:
    batch = make.batch(told())
    make.start_batch(batch)
    with transaction.atomic():
        make.end_batch(batch, "failed")
        assert posted() == [("failure", "ops")]
        transaction.set_rollback(True)
    assert posted() == []


def queries_of_an_end(task: Task) -> list[str]:
    batch = make.batch(task)
    [instance] = make.start_batch(batch)
    with CaptureQueriesContext(
        connection,
    ) as captured:
        make.end(instance, "failed", may_retry=False)
    return [each["sql"] for each in captured]


def test_a_task_without_rules_pays_nothing_for_those_that_have_some() -> None:
    without, beside = queries_of_an_end(make.task()), queries_of_an_end(told())
    assert not [sql for sql in without if "scheduling_notification" in sql or "scheduling_deadline" in sql]
    # The batch, what went wrong (two), and all channels in one insert.
    assert len(beside) - len(without) == 4
    task = make.task()
    with CaptureQueriesContext(connection) as captured:
        make.batch(task)
    assert not [each for each in captured if "scheduling_deadline" in each["sql"]]


# --- lateness --------------------------------------------------------------------------------------

LATE = {"channel": "ops", "on": ["late"], "late_after": "1h"}


def passes(seconds: float) -> None:
    """Let time go on for what is watched."""
    Deadline.objects.update(at=F("at") - timedelta(seconds=seconds))


def test_what_has_not_ended_by_its_time_is_told_once() -> None:
    batch = make.batch(told(LATE))
    assert deadlines.pass_due() == 0
    passes(3601)
    assert deadlines.pass_due() == 1
    assert (deadlines.pass_due(), Deadline.objects.count()) == (0, 0)
    notification = Notification.objects.get()
    assert notification.key == f"batch:{batch.pk}:late:3600:ops"
    assert "It has not begun: no node has taken it." in notification.text


def test_what_ended_in_time_is_not_late_and_what_ended_too_late_was() -> None:
    in_time, too_late = make.batch(told(LATE)), make.batch(told(LATE))
    make.end_batch(in_time)
    passes(3601)
    make.end_batch(too_late)
    deadlines.pass_due()
    assert [each.key.split(":")[1] for each in Notification.objects.all()] == [str(too_late.pk)]
    assert "ended later: success" in Notification.objects.get().text


def test_a_scheduled_batch_is_late_by_its_due_time() -> None:
    task = told(LATE, cron="0 * * * *", misfire="run_once")
    due = timezone.now() - timedelta(seconds=2)
    Task.objects.filter(pk=task.pk).update(next_due_at=due)
    triggers.fire_due()
    assert Deadline.objects.get().at == due + timedelta(hours=1)


def test_a_rule_that_is_gone_when_the_time_comes_tells_nobody() -> None:
    make.batch(task := told(LATE))
    Task.objects.filter(pk=task.pk).update(notify=[])
    passes(3601)
    deadlines.pass_due()
    assert (posted(), Deadline.objects.count()) == ([], 0)


def test_a_due_time_that_no_scheduler_fired_is_told_of() -> None:
    task = told(LATE, cron="0 * * * *", misfire="skip")
    Task.objects.filter(pk=task.pk).update(next_due_at=timezone.now() - timedelta(hours=3))
    triggers.fire_due()
    assert Batch.objects.count() == 0
    assert Notification.objects.get().subject.endswith("did not run")


def test_what_a_handler_cannot_tell_stands_in_nobodys_way(caplog: pytest.LogCaptureFixture) -> None:
    @notifications.when_late("broken")
    def broken(_due: Any) -> None:
        raise ValueError("no")

    now = timezone.now()
    notifications.watch("broken", [(1, now, 0)])
    make.batch(told(LATE))
    passes(3601)
    deadlines.pass_due()
    assert posted() == [("late", "ops")]
    assert Deadline.objects.get().at > now


# --- sending ---------------------------------------------------------------------------------------


def test_a_notification_arrives_and_is_recorded(door: Door) -> None:
    post()
    send_all()
    assert door.subjects == ["notification 0"]
    row = Notification.objects.get()
    assert (row.state, row.attempts, row.last_error) == ("sent", 1, "")


def test_it_arrives_by_mail_as_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_door() as mail:
        monkeypatch.setenv("TAILRACE_CHANNEL_MAIL", mail.address)
        channels.send("mail", subject="extract failed", text="1 < 2 & <b>more</b>\nsecond line")
    assert "extract failed" in mail.letters[0]["mail"]
    assert "<b>more</b>" not in mail.letters[0]["mail"].partition("text/html")[2]


def test_two_senders_send_everything_exactly_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MESSAGES_A_MINUTE", 1000)
    post(40)
    both = [Elsewhere(lambda: send_all(Sender())) for _ in range(2)]
    for each in both:
        each.result()
    assert sorted(door.subjects) == sorted(f"notification {n}" for n in range(40))
    assert set(Notification.objects.values_list("state", "attempts")) == {("sent", 1)}


def test_what_was_refused_is_tried_again_after_ever_longer_whiles(door: Door) -> None:
    door.answer = lambda n: 200 if n == 2 else 500
    post()
    waits = []
    for _ in range(3):
        before = timezone.now()
        assert Sender().send_next("ops") is (_ == 2)
        waits.append((Notification.objects.get().next_attempt_at - before).total_seconds())
        due_now()
    assert [round(each) for each in waits[:2]] == [15, 30]
    assert (Notification.objects.get().state, door.subjects) == ("sent", ["notification 0"])


def test_after_some_hours_it_is_given_up_and_can_be_tried_again(door: Door) -> None:
    door.answer = lambda _n: 500
    post(3)
    Notification.objects.exclude(key="test:2:ops").update(give_up_at=timezone.now())
    Sender().send_next("ops")
    rows = Notification.objects.order_by("id")
    # What waited behind it for as long is not tried one by one.
    assert [each.state for each in rows] == ["given_up", "given_up", "waiting"]
    assert "error=500" in rows[1].last_error
    door.answer = lambda _n: 200
    assert outbox.try_again(Notification.objects.all()) == 2
    send_all()
    assert sorted(door.subjects) == ["notification 0", "notification 1", "notification 2"]


def test_a_channel_that_is_not_set_is_given_up_with_what_to_set(door: Door) -> None:
    post(3, channel="no-where")
    Sender().turn()
    [(state, error)] = set(Notification.objects.values_list("state", "last_error"))
    assert state == "given_up"
    assert error.startswith(
        "There is no channel “no-where” here; there are: ops. Set TAILRACE_CHANNEL_NO_WHERE"
    )


def test_a_lease_that_is_over_is_sent_again_and_the_first_sender_records_nothing(door: Door) -> None:
    post()
    lost = outbox.claim("ops")
    assert outbox.claim("ops") == []
    due_now()
    send_all()
    outbox.record_failed(lost, "too late")
    assert (Notification.objects.get().state, door.subjects) == ("sent", ["notification 0"])


def test_a_bad_night_is_summed_up(door: Door) -> None:
    post(37)
    send_all()
    assert len(door.letters) == outbox.MESSAGES_A_MINUTE
    assert door.subjects[-1] == "notification 9, and 27 more"
    assert "These are 28: 28 × failure." in door.letters[-1]["message"]
    assert "– and 18 more" in door.letters[-1]["message"]
    assert set(Notification.objects.values_list("state", flat=True)) == {"sent"}
    post()
    send_all()
    assert len(door.letters) == outbox.MESSAGES_A_MINUTE
    Notification.objects.filter(state="sent").update(sent_at=F("sent_at") - timedelta(seconds=61))
    send_all()
    assert door.subjects[-1] == "notification 37"


def test_a_slow_channel_holds_up_no_other(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_door() as slow:
        released = threading.Event()
        slow.answer = lambda _n: 200 if released.wait(9) else 500
        monkeypatch.setenv("TAILRACE_CHANNEL_SLOW", slow.address)
        post(1, channel="slow")
        post(5)
        sender = Sender()
        running = Elsewhere(sender.run)
        eventually(lambda: len(door.letters) == 5 and slow.knocks == 1)
        released.set()
        eventually(lambda: Notification.objects.filter(state="sent").count() == 6)
        sender.stop()
        running.result()


# --- secrets ---------------------------------------------------------------------------------------


def test_no_piece_of_an_address_is_kept_logged_or_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    secrets = ["hunter2-pass", "T0K3N-of-ops", "robot", "s3cret&x", "s3cret%26x", "hooks.example.invalid"]
    for address in (
        "json://robot:hunter2-pass@hooks.example.invalid/T0K3N-of-ops?+X-Key=s3cret%26x",
        "json://robot:hunter2-pass@127.0.0.1:1/T0K3N-of-ops",
        "mailto://robot:hunter2-pass@127.0.0.1:1?to=T0K3N-of-ops@hooks.example.invalid",
        "unheard-of://robot:hunter2-pass@T0K3N-of-ops",
    ):
        monkeypatch.setenv("TAILRACE_CHANNEL_OPS", address)
        post()
        Sender().send_next("ops")
    seen = " ".join(Notification.objects.values_list("last_error", flat=True))
    # What Apprise itself says goes nowhere, which only the tests' own ears overhear.
    seen += " ".join(each.getMessage() for each in caplog.records if each.name != "apprise")
    seen += "".join(capfd.readouterr())
    assert "The channel did not take it: " in seen
    assert "TAILRACE_CHANNEL_OPS is not an address that Apprise knows" in seen
    assert [secret for secret in secrets if secret in seen] == []


# --- rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "field", "says"),
    [
        ("ops", "notify.0", "not a map"),
        ({"on": ["failure"]}, "notify.0.channel", "missing"),
        ({**OPS, "channel": "mailto://me:secret@host"}, "notify.0.channel", "An address is no name"),
        ({**OPS, "on": ["failed"]}, "notify.0.on", "Did you mean “failure”"),
        ({**OPS, "on": []}, "notify.0.on", "no list of events"),
        ({**OPS, "on": ["late"]}, "notify.0.late_after", "missing"),
        ({**OPS, "late_after": "2h"}, "notify.0.late_after", "does not name"),
        ({**LATE, "late_after": "soon"}, "notify.0.late_after", "no duration"),
        ({**LATE, "late_after": "31d"}, "notify.0.late_after", "30d"),
        ({**OPS, "chanel": "x"}, "notify.0.chanel", "Did you mean “channel”"),
    ],
)
def test_a_mistake_in_a_rule_is_named(rule: Any, field: str, says: str) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        notifications.clean_rules([rule])
    assert says in refused.value.errors[field]
    assert "secret" not in str(refused.value)


def test_clean_rules_stay_as_they_are_and_a_repeat_is_refused() -> None:
    clean = notifications.clean_rules([{"channel": "ops", "on": ["late", "failure"], "late_after": "2h"}])
    assert clean == [{"channel": "ops", "on": ["failure", "late"], "late_after": 7200}]
    assert notifications.clean_rules(clean) == clean
    with pytest.raises(InvalidDefinition, match=r"notify\.1"):
        notifications.clean_rules([OPS, OPS])


# --- keeping ---------------------------------------------------------------------------------------


def test_old_ones_that_are_done_go_and_those_that_wait_stay() -> None:
    post(3)
    Notification.objects.filter(key="test:0:ops").update(state="sent", sent_at=timezone.now())
    Notification.objects.filter(key="test:1:ops").update(state="given_up")
    assert notifications.remove_old() == 0
    Notification.objects.update(created_at=timezone.now() - timedelta(days=8))
    assert notifications.remove_old() == 2
    assert Notification.objects.get().key == "test:2:ops"
