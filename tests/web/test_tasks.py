import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from scheduling import services
from scheduling.models import Batch, DeploymentGroup, JournalEntry, Node, Task
from scheduling.states import NodeState
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, actions_of, element, live_address, marks, shown, state_of, text_of, words_of

REASON = {"reason": "the feed was late"}


@pytest.fixture
def developer(desk: Desk) -> Client:
    return desk.sign_in("developer")


# --- the list --------------------------------------------------------------------------------------


def test_tasks_are_listed_by_name_with_how_they_run(desk: Desk, operator: Client) -> None:
    nightly = make.task("clean", group=desk.group, cron="0 2 * * *", timezone="Europe/Berlin")
    make.end_batch(make.batch(desk.task))
    last = make.end_batch(make.batch(desk.task), "failed")
    page = operator.get("/tasks/")
    assert marks(page, "task") == [nightly.pk, desk.task.pk]
    assert "every day at 02:00 Europe/Berlin shell · Random node Enabled" in words_of(
        page, f"task-{nightly.pk}"
    )
    assert "never ran" in words_of(page, f"task-{nightly.pk}")
    row = element(page, f"task-{desk.task.pk}")
    assert f'href="/batches/{last.pk}/"' in row
    assert 'data-state="failed"' in row
    assert "The last 2 runs: 50 % succeeded" in row


def test_the_list_says_when_a_task_is_due(desk: Desk, operator: Client) -> None:
    with time_machine.travel(datetime(2026, 3, 2, 22, 30, tzinfo=UTC), tick=False):
        task = make.task(group=desk.group, cron="0 2 * * *")
        assert "in 3 h 30 min 02:00:00" in words_of(desk.sign_in().get("/tasks/"), f"task-{task.pk}")


def test_tasks_of_other_teams_are_neither_listed_nor_found(desk: Desk, outsider: Client) -> None:
    assert marks(outsider.get("/tasks/"), "task") == []
    address = f"/tasks/{desk.task.pk}/"
    for path in ("", "changes/", "run/", "enable/", "disable/"):
        assert outsider.get(address + path).status_code == 404


def test_an_empty_list_says_what_to_do(desk: Desk, outsider: Client, operator: Client) -> None:
    assert "manage.py apply tasks.yaml" in text_of(outsider.get("/tasks/"))
    assert "No task matches. Clear the filter" in text_of(operator.get("/tasks/?name=nonesuch"))


def test_buttons_stand_only_for_those_who_may(desk: Desk, viewer: Client, operator: Client) -> None:
    mark = f"task-{desk.task.pk}"
    assert actions_of(viewer.get("/tasks/"), mark) == []
    assert actions_of(operator.get("/tasks/"), mark) == ["run"]
    developer = desk.sign_in("developer")
    assert actions_of(developer.get("/tasks/"), mark) == ["run", "disable"]
    services.set_enabled(desk.task, False)
    assert actions_of(developer.get("/tasks/"), mark) == ["run", "enable"]


def test_the_list_comes_in_pages_that_keep_the_filter(desk: Desk, operator: Client) -> None:
    for _ in range(51):
        make.task(group=desk.group)
    page = operator.get("/tasks/?name=task")
    assert len(marks(page, "task")) == 50
    assert 'href="?name=task&amp;page=2"' in text_of(page)
    assert len(marks(operator.get("/tasks/?name=task&page=2"), "task")) == 1
    assert len(marks(operator.get("/tasks/?name=task&page=99"), "task")) == 1


def test_the_list_takes_the_same_number_of_queries_however_long_it_is(
    desk: Desk, operator: Client, django_assert_num_queries: Any
) -> None:
    # Session, user, the form's groups, the count, the page, the runs, and the roles of the user.
    for _ in range(2):
        with django_assert_num_queries(7):
            operator.get("/tasks/?last=never&last=success")
        for _ in range(5):
            make.end_batch(make.batch(make.task(group=desk.group)))


def test_only_the_changed_row_comes_back(desk: Desk, operator: Client) -> None:
    other = make.task("clean", group=desk.group)
    page = operator.get("/tasks/?group=etl")
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    make.start_batch(make.batch(other))
    answer = operator.get(live_address(page), headers=shown(page))
    assert marks(answer, "task") == [other.pk]
    assert 'data-state="running"' in element(answer, f"task-{other.pk}")
    assert f'<tr id="task-{other.pk}" hx-swap-oob="true">' in text_of(answer)


def test_a_task_that_leaves_the_filter_leaves_the_page(desk: Desk, operator: Client) -> None:
    page = operator.get("/tasks/?enabled=yes")
    services.set_enabled(desk.task, False)
    answer = operator.get(live_address(page), headers=shown(page))
    assert f'<tr id="task-{desk.task.pk}" hx-swap-oob="delete">' in text_of(answer)


# --- one task --------------------------------------------------------------------------------------


def test_the_page_of_a_task_shows_its_content_as_export_writes_it(desk: Desk, operator: Client) -> None:
    page = text_of(operator.get(f"/tasks/{desk.task.pk}/"))
    assert "name: extract\ngroup: etl\nkind: shell\ncommand: &#x27;true&#x27;\nmode: sharded\n" in page


def test_a_stopped_run_counts_neither_as_a_success_nor_as_a_failure(desk: Desk, operator: Client) -> None:
    make.end_batch(make.batch(desk.task))
    services.stop(make.batch(desk.task), by="mei", reason="wrong day")
    page = operator.get(f"/tasks/{desk.task.pk}/")
    assert "100 % of the last 2 runs" in words_of(page, f"task-{desk.task.pk}")
    assert 'data-state="failed"' not in element(page, f"task-{desk.task.pk}")
    assert marks(operator.get("/tasks/?last=failed"), "task") == []
    assert marks(operator.get("/tasks/?last=terminated"), "task") == [desk.task.pk]


def test_the_page_of_a_task_shows_how_its_runs_went(desk: Desk, operator: Client) -> None:
    good, bad, going = (make.batch(desk.task) for _ in range(3))
    make.end_batch(good)
    make.end_batch(bad, "failed")
    make.start_batch(going)
    page = operator.get(f"/tasks/{desk.task.pk}/")
    assert marks(page, "batch") == [going.pk, bad.pk, good.pk]
    assert f'href="/batches/?tab=basic&amp;task={desk.task.pk}"' in text_of(page)
    points = re.findall(r'<svg class="point" data-state="(\w+)"', text_of(page))
    assert points == ["success", "failed"]
    assert "50 % of the last 3 runs" in words_of(page, f"task-{desk.task.pk}")
    assert f"Batch {bad.pk}: Failed, took" in text_of(page)


def test_a_task_that_never_ran_says_so(desk: Desk, operator: Client) -> None:
    page = operator.get(f"/tasks/{desk.task.pk}/")
    assert "No run has ended yet." in words_of(page, "durations")
    assert "It has not run yet. Run it now.<" in text_of(page), "nothing else begins it"
    scheduled = make.task("hourly", group=desk.group, trigger="cron", cron="0 * * * *")
    other = text_of(operator.get(f"/tasks/{scheduled.pk}/"))
    assert "It has not run yet. Run it now, or wait until it is due." in other
    make.start_batch(make.batch(scheduled))
    assert "None has ended yet" in text_of(operator.get("/tasks/")), "not: the last 0 runs"
    assert "It has no schedule of its own." in words_of(page, "due")


def test_a_task_without_content_says_so_and_cannot_be_run(desk: Desk, operator: Client) -> None:
    task = Task.objects.create(team=desk.team, group=desk.group, name="hollow")
    page = operator.get(f"/tasks/{task.pk}/")
    assert "This task has no content yet" in text_of(page)
    assert actions_of(page, f"task-{task.pk}") == []
    answer = operator.post(f"/tasks/{task.pk}/run/", REASON)
    assert answer.status_code == 409
    assert "has no content yet" in text_of(answer)


def test_due_times_are_said_in_words_in_both_zones_and_over_a_change_of_the_clocks(desk: Desk) -> None:
    # In Berlin the clocks go forward at 01:00 UTC on 29 March 2026.
    with time_machine.travel(datetime(2026, 3, 27, 12, tzinfo=UTC), tick=False):
        task = make.task(group=desk.group, cron="30 4 * * *", timezone="Europe/Berlin")
        said = words_of(desk.sign_in().get(f"/tasks/{task.pk}/"), "due")
    assert "in 15 h 30 min 03:30:00 03-28 2026-03-28 04:30:00 CET" in said
    assert "in 1 d 14 h 02:30:00 03-29 2026-03-29 04:30:00 CEST the clocks go forward by 1 h before it" in said
    assert said.count("04:30:00") == 5


def test_a_disabled_task_says_when_it_would_be_due(desk: Desk, operator: Client) -> None:
    task = make.task(group=desk.group, interval=3600, enabled=False)
    said = words_of(operator.get(f"/tasks/{task.pk}/"), "due")
    assert "It is disabled, so it does not run." in said
    assert "in 59 min" in said
    assert "in 4 h 59 min" in said


def edit(task: Task, **content: Any) -> Task:
    """Give `task` another revision, which has `content` instead of what it had."""
    assert task.revision is not None
    whole = {**task.revision.content, **content}
    return services.save_task(
        team=task.team, group=task.group, name=task.name, content=whole, by="mei", reason="it was too slow"
    )


def test_revisions_are_compared_the_last_two_at_first_then_any_two(desk: Desk, operator: Client) -> None:
    edit(edit(desk.task, timeout=600), priority=7)
    address = f"/tasks/{desk.task.pk}/"
    page = operator.get(address)
    comparison = element(page, "comparison")
    assert "From revision 2 to 3" in comparison
    assert re.findall(r'data-sign="[+-]">(.*)', comparison) == ["+ priority: 7"]
    both = element(operator.get(f"{address}?from=3&to=1"), "comparison")
    assert "From revision 1 to 3" in both
    assert re.findall(r'data-sign="[+-]">(.*)', both) == ["+ timeout: 10m", "+ priority: 7"]
    assert "They say the same." in element(operator.get(f"{address}?from=2&to=2"), "comparison")
    # What is not there falls back.
    assert "From revision 2 to 3" in element(operator.get(f"{address}?from=77&to=x"), "comparison")


def test_the_journal_of_a_task_is_on_its_page(desk: Desk, operator: Client) -> None:
    edit(desk.task, timeout=600)
    said = words_of(operator.get(f"/tasks/{desk.task.pk}/"), "journal")
    assert "mei Edited revision 2 it was too slow" in said
    assert "tests Created revision 1" in said


def test_who_may_edit_and_may_enter_the_administration_is_led_there(desk: Desk, operator: Client) -> None:
    address, link = f"/tasks/{desk.task.pk}/", f"/admin/scheduling/task/{desk.task.pk}/change/"
    assert link in text_of(desk.sign_in("developer", is_staff=True).get(address))
    assert link not in text_of(desk.sign_in("developer").get(address))
    assert link not in text_of(operator.get(address))


def test_only_the_parts_of_a_task_that_differ_come_back(desk: Desk, operator: Client) -> None:
    address = f"/tasks/{desk.task.pk}/"
    page = operator.get(address)
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    make.batch(desk.task)
    answer = operator.get(live_address(page), headers=shown(page))
    changed = re.findall(r'id="([\w-]+)"[^>]*hx-swap-oob', text_of(answer))
    assert changed == [f"task-{desk.task.pk}", "durations", "batches-of-task"]


@pytest.mark.parametrize("path", ["", "changes/"])
def test_the_page_of_a_task_takes_the_same_number_of_queries_whatever_happened(
    desk: Desk, operator: Client, django_assert_num_queries: Any, path: str
) -> None:
    def more() -> None:
        make.start_batch(make.batch(desk.task))
        make.end_batch(make.batch(desk.task))
        edit(Task.objects.get(pk=desk.task.pk), timeout=timezone.now().microsecond + 1)

    more()
    headers = shown(operator.get(f"/tasks/{desk.task.pk}/"))
    # Session, user, the task, its runs, the roles of the user, its batches and what runs of them, the
    # journal; and the page its revisions, and two of them whole.
    count = 8 if path else 10
    for _ in range(2):
        with django_assert_num_queries(count):
            operator.get(f"/tasks/{desk.task.pk}/{path}", headers=headers)
        for _ in range(2):
            more()


# --- run now ---------------------------------------------------------------------------------------


def parameters(*lines: tuple[str, str, str]) -> dict[str, Any]:
    names, values, kinds = zip(*lines, strict=True)
    return {**REASON, "name": names, "value": values, "as": kinds}


@pytest.fixture
def daily(desk: Desk) -> Task:
    return make.task("daily", group=desk.group, parameters={"day": "2013-01-01", "limit": 5, "tags": ["a"]})


def test_the_run_form_is_filled_with_the_tasks_own_parameters(daily: Task, operator: Client) -> None:
    page = text_of(operator.get(f"/tasks/{daily.pk}/run/"))
    lines = re.findall(
        r'name="name" value="(\w*)".*?name="value" value="([^"]*)".*?value="(\w+)" selected', page, re.DOTALL
    )
    assert lines == [
        ("day", "2013-01-01", "text"),
        ("limit", "5", "json"),
        ("tags", "[&quot;a&quot;]", "json"),
    ]
    assert "A batch begins with one instance, on whichever node has a slot free." in page


def test_only_what_differs_goes_over_the_tasks_own_parameters(daily: Task, operator: Client) -> None:
    data = parameters(
        ("day", "2013-02-02", "text"), ("limit", "5", "json"), ("tags", '["a"]', "json"), ("extra", "x", "text")
    )
    answer = operator.post(f"/tasks/{daily.pk}/run/", data)
    batch = Batch.objects.get()
    assert answer["Location"] == f"/batches/{batch.pk}/"
    assert batch.parameters == {"day": "2013-02-02", "extra": "x"}
    assert (batch.trigger, batch.requested_by) == ("manual", operator.user)
    entry = JournalEntry.objects.get(object_type="batch", object_id=batch.pk)
    assert (entry.reason, entry.via) == ("the feed was late", "web")


def test_a_number_written_as_text_is_another_value(daily: Task, operator: Client) -> None:
    operator.post(f"/tasks/{daily.pk}/run/", parameters(("limit", "5", "text")))
    assert Batch.objects.get().parameters == {"limit": "5"}


def test_a_run_from_a_page_stays_there_and_names_the_batch(daily: Task, operator: Client) -> None:
    answer = operator.post(f"/tasks/{daily.pk}/run/", REASON, headers=HTMX)
    batch = Batch.objects.get()
    assert f'<a class="id" href="/batches/{batch.pk}/">' in text_of(answer)
    assert "acted" in answer["HX-Trigger-After-Settle"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([("limit", "five", "json")], "This is not JSON"),
        ([("limit", "[" * 100_000, "json")], "This is not JSON"),
        ([("", "5", "text")], "Give it a name, or empty its value."),
        ([("extra", "1", "text"), ("extra", "2", "text")], "This parameter is there twice"),
        ([("day", "1", "text"), ("day", "2", "text")], "This parameter is there twice"),
        ([("batch_id", "1", "text")], "is built in and cannot be set"),
        ([("day", "${nonesuch}", "text")], "nonesuch"),
    ],
)
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_parameter_that_is_wrong_is_said_at_its_line(
    daily: Task, operator: Client, lines: list[Any], said: str, headers: dict[str, str]
) -> None:
    answer = operator.post(f"/tasks/{daily.pk}/run/", parameters(*lines), headers=headers)
    assert answer.status_code == 422
    assert re.search(rf'<p class="error" id="error-\d">[^<]*{said}', text_of(answer))
    assert not Batch.objects.exists()


def test_a_run_needs_a_reason_and_keeps_what_was_filled_in(daily: Task, operator: Client) -> None:
    answer = operator.post(f"/tasks/{daily.pk}/run/", {**parameters(("extra", "mine", "text")), "reason": " "})
    assert answer.status_code == 422
    assert 'value="mine"' in text_of(answer)
    assert 'id="id_reason_error"' in text_of(answer)


def test_another_line_is_added_without_running_anything(daily: Task, operator: Client) -> None:
    data = {**parameters(("extra", "mine", "text")), "add": "1"}
    page = text_of(operator.post(f"/tasks/{daily.pk}/run/", data, headers=HTMX))
    assert len(re.findall('name="name"', page)) == 5
    assert 'value="mine"' in page
    assert 'value="the feed was late"' in page
    assert not Batch.objects.exists()


def test_a_text_of_several_lines_stays_one(desk: Desk, operator: Client) -> None:
    task = make.task(group=desk.group, parameters={"note": "one\ntwo"})
    assert "<textarea" in text_of(operator.get(f"/tasks/{task.pk}/run/"))
    operator.post(f"/tasks/{task.pk}/run/", parameters(("note", "one\r\ntwo", "text")))
    assert Batch.objects.get().parameters == {}


def test_the_run_form_says_what_the_overlap_policy_will_do(desk: Desk, operator: Client) -> None:
    said = {}
    for overlap in ("skip", "queue", "replace"):
        task = make.task(group=desk.group, overlap=overlap)
        earlier = make.batch(task)
        said[overlap] = text_of(operator.get(f"/tasks/{task.pk}/run/")).replace(str(earlier.pk), "N")
    assert "this will be refused until that has ended." in said["skip"]
    assert "It waits until batch N of the task has ended" in said["queue"]
    assert "Batch N of the task is stopped first" in said["replace"]


def test_a_run_that_the_overlap_policy_skips_is_refused_with_the_reason(desk: Desk, operator: Client) -> None:
    task = make.task(group=desk.group, overlap="skip")
    make.batch(task)
    answer = operator.post(f"/tasks/{task.pk}/run/", REASON, headers=HTMX)
    assert answer.status_code == 409
    assert "skips a run while batch" in text_of(answer)
    assert Batch.objects.count() == 1


def test_the_run_form_says_where_it_will_run(desk: Desk, operator: Client) -> None:
    broadcast = make.task(group=desk.group, mode="broadcast")
    make.node(group=desk.group)
    assert "one instance on each of 2 online nodes of group etl" in text_of(
        operator.get(f"/tasks/{broadcast.pk}/run/")
    )
    assert "with 3 instances, one a shard." in text_of(operator.get(f"/tasks/{desk.task.pk}/run/"))
    Node.objects.update(state=NodeState.OFFLINE)
    assert "so the batch fails at once." in text_of(operator.get(f"/tasks/{broadcast.pk}/run/"))
    assert "so it waits for one." in text_of(operator.get(f"/tasks/{desk.task.pk}/run/"))


# --- enable and disable ----------------------------------------------------------------------------


def test_disabling_says_what_follows_then_stops_the_schedule(desk: Desk, developer: Client) -> None:
    task = make.task(group=desk.group, interval=3600)
    make.batch(task)
    address = f"/tasks/{task.pk}/disable/"
    page = text_of(developer.get(address))
    assert "Its schedule stops: the run due in 59 min" in page
    assert "1 unfinished batch goes on to its end." in page
    answer = developer.post(address, REASON, headers=HTMX)
    assert answer.status_code == 200
    task.refresh_from_db()
    assert (task.enabled, task.due_at) == (False, None)
    entry = JournalEntry.objects.get(object_type="task", object_id=task.pk, action="disabled")
    assert (entry.actor, entry.reason) == (developer.user.username, "the feed was late")
    assert state_of(developer.get("/tasks/"), f"task-{task.pk}") == "disabled"


def test_enabling_says_when_it_is_due_and_keeps_the_grid(desk: Desk, developer: Client) -> None:
    task = make.task(group=desk.group, interval=3600, enabled=False)
    due = task.next_due_at
    address = f"/tasks/{task.pk}/enable/"
    page = text_of(developer.get(address))
    assert "It runs every hour." in page
    assert "It is due next in 59 min" in page
    assert developer.post(address, {**REASON, "back": "/tasks/?kind=shell"})["Location"] == "/tasks/?kind=shell"
    task.refresh_from_db()
    assert task.due_at == due


@pytest.mark.parametrize(
    ("misfire", "decides"),
    [
        ("skip", "It missed 3 due times. Its misfire policy skips them."),
        ("run_once", "It missed 3 due times. Its misfire policy runs it once, for the latest of them."),
        ("run_all", "It missed 3 due times. Its misfire policy runs all of them."),
    ],
)
def test_enabling_says_how_the_misfire_policy_decides_about_missed_due_times(
    desk: Desk, developer: Client, misfire: str, decides: str
) -> None:
    task = make.task(group=desk.group, interval=3600, misfire=misfire)
    services.set_enabled(task, False)
    Task.objects.filter(pk=task.pk).update(next_due_at=timezone.now() - timedelta(minutes=150))
    page = text_of(developer.get(f"/tasks/{task.pk}/enable/"))
    assert decides in page
    assert "It is due next in 29 min" in page


def test_a_disabled_task_shows_no_due_time(desk: Desk, developer: Client) -> None:
    task = make.task("resting", group=desk.group, interval=3600)
    assert "in 59 min" in words_of(developer.get("/tasks/"), f"task-{task.pk}")
    services.set_enabled(task, False)
    assert "in 59 min" not in words_of(developer.get("/tasks/"), f"task-{task.pk}")


def test_what_is_so_already_is_refused_at_once(desk: Desk, developer: Client) -> None:
    answer = developer.get(f"/tasks/{desk.task.pk}/enable/", headers=HTMX)
    assert answer.status_code == 409
    assert "Task extract is enabled already." in text_of(answer)
    assert "id_reason" not in text_of(answer)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    ("role", "verb", "permission"),
    [
        ("viewer", "run", "scheduling.run_task"),
        ("operator", "disable", "scheduling.edit_task"),
        ("operator", "enable", "scheduling.edit_task"),
    ],
)
def test_who_sees_a_task_but_may_not_is_told_which_permission_is_missing(
    desk: Desk, role: str, verb: str, permission: str, method: str
) -> None:
    answer = getattr(desk.sign_in(role), method)(f"/tasks/{desk.task.pk}/{verb}/", REASON)
    assert answer.status_code == 403
    assert permission in text_of(answer)
    assert Task.objects.get(pk=desk.task.pk).enabled
    assert not Batch.objects.exists()


def test_nothing_is_switched_without_a_reason(desk: Desk, developer: Client) -> None:
    assert developer.post(f"/tasks/{desk.task.pk}/disable/", {"reason": ""}).status_code == 422
    assert Task.objects.get(pk=desk.task.pk).enabled


def test_groups_of_other_teams_are_not_offered_as_filters(desk: Desk, outsider: Client) -> None:
    assert DeploymentGroup.objects.filter(name="etl").exists()
    assert "etl" not in text_of(outsider.get("/tasks/"))


def test_when_a_task_last_ran_is_the_same_instant_in_every_readers_zone(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task))
    operator.cookies["tz"] = "America/New_York"
    local = batch.created_at.astimezone(ZoneInfo("America/New_York"))
    assert f'<time datetime="{local.isoformat()}"' in text_of(operator.get("/tasks/"))
