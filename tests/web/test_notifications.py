"""The page of notifications: what was said, what waits, and what was given up and can be tried again."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from scheduling import definitions, notifications, services
from scheduling.definitions import InvalidDefinitions
from scheduling.models import JournalEntry, Notification, Task
from tests import factories as make
from tests.doors import web_door
from tests.web.conftest import Desk
from tests.web.pages import element, live_address, marks, shown, text_of
from tests.web.test_admin import changes_of, fields_of, sent

pytestmark = pytest.mark.django_db

WHY = "There is no channel “ops” here, nor any other. Set TAILRACE_CHANNEL_OPS to its address."


def post(desk: Desk, count: int = 1, *, state: str = "waiting", channel: str = "ops") -> list[Notification]:
    """Notifications of the desk's team in `state`."""
    keys = [make.unique("event") for _ in range(count)]
    for key in keys:
        notifications.post(
            key,
            event="failure",
            channels=[channel],
            team_id=desk.team.pk,
            subject=f"[warehouse] extract failed {key}",
            text="Batch 1 failed.\nexit code 3",
            path="/batches/1/",
        )
    found = Notification.objects.filter(key__in=[f"{key}:{channel}" for key in keys])
    found.update(state=state, last_error=WHY if state == "given_up" else "")
    return list(found.order_by("pk"))


def test_what_was_given_up_stands_there_with_why(desk: Desk, operator: Client) -> None:
    [one] = post(desk, state="given_up")
    row = element(operator.get("/notifications/"), f"notification-{one.pk}")
    for said in (one.subject, "Failure", "ops", "TAILRACE_CHANNEL_OPS", "exit code 3", 'href="/batches/1/"'):
        assert said in row
    assert 'data-state="given_up"' in row


def test_other_teams_notifications_are_not_there(desk: Desk, operator: Client, outsider: Client) -> None:
    [one] = post(desk, state="given_up")
    assert marks(operator.get("/notifications/"), "notification") == [one.pk]
    assert marks(outsider.get("/notifications/"), "notification") == []
    assert outsider.post(f"/notifications/{one.pk}/again/").status_code == 404
    assert outsider.post("/notifications/again/").status_code == 302
    one.refresh_from_db()
    assert one.state == "given_up"


def test_a_filter_narrows_by_state_and_channel_and_a_wrong_one_shows_nothing(
    desk: Desk, operator: Client
) -> None:
    [lost], [waits], [chat] = post(desk, state="given_up"), post(desk), post(desk, channel="chat")
    assert marks(operator.get("/notifications/?state=given_up"), "notification") == [lost.pk]
    assert marks(operator.get("/notifications/?state=waiting&channel=ops"), "notification") == [waits.pk]
    assert marks(operator.get("/notifications/?channel=chat,nobody"), "notification") == [chat.pk]
    wrong = operator.get("/notifications/?state=lost")
    assert (wrong.status_code, marks(wrong, "notification")) == (422, [])


def test_the_page_turns_and_asks_no_more_for_more_rows(desk: Desk, operator: Client) -> None:
    rows = post(desk, 3)
    with CaptureQueriesContext(connection) as few:
        operator.get("/notifications/")
    rows += post(desk, 57, state="given_up")
    with CaptureQueriesContext(connection) as many:
        first = operator.get("/notifications/")
    assert len(many) == len(few)
    older = operator.get(f"/notifications/?older={first.context['page'].older}")
    both = marks(first, "notification") + marks(older, "notification")
    assert both == [each.pk for each in reversed(rows)]


def test_a_row_changes_where_it_stands_when_it_was_sent(desk: Desk, operator: Client) -> None:
    post(desk)
    page = operator.get("/notifications/")
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    Notification.objects.update(state="given_up", last_error=WHY)
    assert 'data-state="given_up"' in text_of(operator.get(live_address(page), headers=shown(page)))


def test_who_may_rerun_tries_again_what_was_given_up(desk: Desk, operator: Client, viewer: Client) -> None:
    [one], [two], [sent_one] = post(desk, state="given_up"), post(desk, state="given_up"), post(desk)
    assert "Try again" not in text_of(viewer.get("/notifications/"))
    assert viewer.post(f"/notifications/{one.pk}/again/").status_code == 403
    assert operator.post(f"/notifications/{one.pk}/again/").status_code == 302
    assert operator.post(f"/notifications/{sent_one.pk}/again/").status_code == 409
    assert operator.post("/notifications/again/?state=given_up").status_code == 302
    assert set(Notification.objects.values_list("state", flat=True)) == {"waiting"}
    entries = JournalEntry.objects.filter(action="tried_again", actor=operator.user.username)
    assert set(entries.values_list("object_id", flat=True)) == {one.pk, two.pk}


def test_a_tasks_page_says_who_is_told_of_what(desk: Desk, operator: Client) -> None:
    assert "Nobody is told of its runs" in text_of(operator.get(f"/tasks/{desk.task.pk}/"))
    rules = [{"channel": "ops", "on": ["failure", "late"], "late_after": 7200}]
    Task.objects.filter(pk=desk.task.pk).update(notify=rules)
    assert "failure; not ended 2 h after it was due" in text_of(operator.get(f"/tasks/{desk.task.pk}/"))


# --- definitions and the administration ------------------------------------------------------------

FILE = """\
team: warehouse

groups:
  - name: etl

tasks:
  - name: extract
    group: etl
    kind: shell
    command: 'true'
    notify:
      - channel: ops
        'on':
          - failure
          - late
        late_after: 2h
"""


def applied(text: str) -> definitions.Plan:
    documents, mistakes = definitions.read("x.yaml", text.encode())
    return definitions.apply(definitions.check(documents, mistakes), by="tests")


def test_rules_are_applied_shown_as_a_difference_and_exported_byte_for_byte() -> None:
    applied(FILE)
    first = Task.objects.get().revision
    assert definitions.export() == FILE
    assert applied(FILE).changes_nothing
    step = applied(FILE.replace("2h", "3h").replace("'on':", "on:")).steps[-1]
    assert [change.field for change in step.changes] == ["notify"]
    task = Task.objects.get()
    assert (task.notify[0]["late_after"], task.revision) == (10800, first)
    assert applied(FILE.partition("    notify")[0]).counts["changed"] == 1
    assert Task.objects.get().notify == []


def test_every_mistake_in_a_rule_is_named_with_its_line() -> None:
    with pytest.raises(InvalidDefinitions) as refused:
        applied(FILE.replace("- late\n", "- lat\n").replace("ops", "Ops Team"))
    said = [str(each) for each in refused.value.mistakes]
    assert said[0].startswith("x.yaml:12: tasks[0].notify[0].channel: “Ops Team” is no name of a channel")
    assert "x.yaml:13: tasks[0].notify[0].on: “lat” is not one of success, failure, stopped, late." in said[1]


def test_the_form_of_a_task_takes_rules_and_names_mistakes(desk: Desk) -> None:
    developer = desk.sign_in("developer")
    address = f"/admin/scheduling/task/{desk.task.pk}/change/"
    form = fields_of(developer.get(address)) | {"notify": "- {channel: ops, on: [failed]}"}
    assert "[0].on: “failed” is not one of success, failure, stopped, late." in text_of(
        developer.post(address, form)
    )
    confirm = developer.post(address, form | {"notify": "- {channel: ops, on: failure}"})
    assert list(changes_of(confirm)) == ["notify"]
    developer.post(address, sent(confirm) | {"reason": "on call", "_confirmed": "1"})
    desk.task.refresh_from_db()
    assert desk.task.notify == [{"channel": "ops", "on": ["failure"]}]
    assert "channel: ops" in fields_of(developer.get(address))["notify"]


def test_saving_a_task_without_a_word_on_rules_leaves_them(desk: Desk) -> None:
    place: dict[str, Any] = {"team": desk.team, "group": desk.group, "name": "extract", "by": "tests"}
    content = desk.task.revision.content
    services.save_task(**place, content=content, notify=[{"channel": "ops", "on": ["failure"]}])
    assert services.save_task(**place, content=content | {"priority": 4}).notify != []


# --- the command -----------------------------------------------------------------------------------


def test_the_command_tells_a_channel_or_says_what_went_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError, match="There is no channel “ops” here"):
        call_command("notify", test="ops")
    with web_door() as door:
        monkeypatch.setenv("TAILRACE_CHANNEL_OPS", door.address)
        call_command("notify")
        call_command("notify", test="ops")
        door.answer = lambda _n: 401
        with pytest.raises(CommandError, match="error=401") as refused:
            call_command("notify", test="ops")
    assert door.subjects == ["A test of the channel ops"]
    assert "hunter2-pass" not in str(refused.value)
    said = capsys.readouterr().out
    assert said == "ops\nThe channel ops (TAILRACE_CHANNEL_OPS) took the message.\n"
