import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from scheduling import journal, services
from scheduling.filters import records
from scheduling.models import Batch, Task
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import actions_of, element, live_address, marks, shown, state_of, text_of, words_of


def test_batches_are_listed_newest_first_with_their_state_and_counters(desk: Desk, operator: Client) -> None:
    first, second = make.end_batch(make.batch(desk.task)), make.batch(desk.task)
    make.start_batch(second)
    page = operator.get("/batches/")
    assert marks(page, "batch") == [second.pk, first.pk]
    assert state_of(page, f"batch-{first.pk}") == "success"
    assert 'aria-label="0 of 3 succeeded, 3 running"' in element(page, f"batch-{second.pk}")


def test_batches_of_other_teams_are_not_listed(desk: Desk, outsider: Client) -> None:
    make.batch(desk.task)
    assert marks(outsider.get("/batches/"), "batch") == []


@pytest.mark.parametrize("query", ["tab=basic", "by=mei", "by=schedule,mei", "by=mei&state=waiting"])
def test_batches_of_a_granted_task_are_listed_with_those_of_ones_own_team(
    desk: Desk, operator: Client, query: str
) -> None:
    foreign = make.task()
    make.grant(foreign, to=desk.team)
    granted, own = make.batch(foreign, by="mei"), make.batch(desk.task, by="mei")
    make.batch(make.task(group=foreign.group), by="mei")
    assert marks(operator.get(f"/batches/?{query}"), "batch") == [own.pk, granted.pk]


def test_a_superuser_sees_every_team(desk: Desk) -> None:
    batch = make.batch(desk.task)
    assert marks(desk.sign_in(is_superuser=True).get("/batches/"), "batch") == [batch.pk]


def test_each_tab_shows_its_own_triggers(desk: Desk, operator: Client) -> None:
    manual, workflow = make.batch(desk.task), make.batch(desk.task, kind="workflow")
    assert marks(operator.get("/batches/?tab=basic"), "batch") == [manual.pk]
    assert marks(operator.get("/batches/?tab=workflow"), "batch") == [workflow.pk]


def test_buttons_stand_only_where_the_state_allows_them(desk: Desk, operator: Client) -> None:
    waiting, ended, stopping = make.batch(desk.task), make.batch(desk.task), make.batch(desk.task)
    make.end_batch(ended)
    make.start_batch(stopping)
    Batch.objects.filter(pk=stopping.pk).update(state="terminating")
    page = operator.get("/batches/")
    assert actions_of(page, f"batch-{waiting.pk}") == ["stop"]
    assert actions_of(page, f"batch-{ended.pk}") == ["rerun"]
    assert actions_of(page, f"batch-{stopping.pk}") == []


def test_a_viewer_sees_no_buttons(desk: Desk, viewer: Client) -> None:
    batch = make.batch(desk.task)
    assert actions_of(viewer.get("/batches/"), f"batch-{batch.pk}") == []


def test_the_list_takes_the_same_number_of_queries_however_long_it_is(
    desk: Desk, operator: Client, django_assert_num_queries
) -> None:
    # Session, user, the form's groups, the page's ids, its rows, what executes, the roles, saved filters.
    make.start_batch(make.batch(desk.task))
    for _ in range(2):
        with django_assert_num_queries(8):
            operator.get("/batches/?tab=basic")
        for _ in range(15):
            make.start_batch(make.batch(desk.task))


def test_a_filter_takes_several_values_in_one_box_or_in_several(desk: Desk, operator: Client) -> None:
    other, third = make.task("clean", group=desk.group), make.task("load", group=desk.group)
    a, b, c = make.batch(desk.task), make.batch(other), make.batch(third)
    assert marks(operator.get("/batches/?task=extract,clean"), "batch") == [b.pk, a.pk]
    assert marks(operator.get(f"/batches/?task=extract&task={third.pk}"), "batch") == [c.pk, a.pk]
    assert marks(operator.get(f"/batches/?batch={a.pk}%20{c.pk}"), "batch") == [c.pk, a.pk]


def test_a_word_is_a_part_of_a_name_and_digits_are_an_id_first(desk: Desk, operator: Client) -> None:
    other, third = make.task("extract_orders", group=desk.group), make.task("load", group=desk.group)
    a, b, c = make.batch(desk.task), make.batch(other), make.batch(third)
    for words, found in [
        ("extract", [b, a]),
        ("EXTRACT_O", [b]),
        ("order,oad", [c, b]),
        (f"{third.pk}", [c]),
        (f"{third.pk},order", [c, b]),
    ]:
        assert marks(operator.get(f"/batches/?task={words}"), "batch") == [each.pk for each in found], words
    numbered = make.batch(make.task(f"year_{10**6 + third.pk}", group=desk.group))
    assert marks(operator.get(f"/batches/?task={10**6 + third.pk}"), "batch") == [numbered.pk]
    page = operator.get("/batches/?task=order,nonesuch")
    assert "There is no task nonesuch to see" in text_of(page)


def test_a_word_that_is_in_too_many_names_is_refused(desk: Desk, operator: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(records, "_MOST_NAMED", 2)
    make.task("extract_orders", group=desk.group)
    assert operator.get("/batches/?task=extract").status_code == 200
    make.task("extract_items", group=desk.group)
    page = operator.get("/batches/?task=xtrac")
    assert page.status_code == 422
    assert "More than 2 names contain xtrac. Write more of the name." in text_of(page)
    assert operator.get("/batches/?task=orders").status_code == 200


def test_stopped_batches_are_listed_apart_from_failed_ones_and_say_why(desk: Desk, operator: Client) -> None:
    failed = make.end_batch(make.batch(desk.task), "failed")
    stopped = make.batch(desk.task)
    services.stop(stopped, by="mei", reason="wrong day")
    assert marks(operator.get("/batches/?state=failed"), "batch") == [failed.pk]
    page = operator.get("/batches/?state=terminated")
    assert marks(page, "batch") == [stopped.pk]
    assert "Failed (stopped) Stopped by mei: wrong day" in words_of(page, f"batch-{stopped.pk}")


def test_a_failed_batch_says_that_a_later_one_succeeded(desk: Desk, operator: Client) -> None:
    earlier = make.end_batch(make.batch(desk.task))
    bad = make.end_batch(make.batch(desk.task), "failed")
    other = make.end_batch(make.batch(make.task(group=desk.group)), "failed")
    running = make.batch(desk.task)
    make.start_batch(running)
    page = operator.get("/batches/")
    assert "recovered" not in text_of(page)
    make.end_batch(running)
    changes = text_of(operator.get(live_address(page), headers=shown(page)))
    assert f'id="batch-{bad.pk}"' in changes
    page = operator.get("/batches/")
    assert "Failed recovered" in words_of(page, f"batch-{bad.pk}")
    for batch in (earlier, other, running):
        assert "recovered" not in words_of(page, f"batch-{batch.pk}")


def test_batches_are_filtered_by_state_trigger_and_group(desk: Desk, operator: Client) -> None:
    elsewhere = make.batch(make.task(group=make.group("ingest", team=desk.team)))
    ended = make.end_batch(make.batch(desk.task), "failed")
    cron = make.batch(desk.task, kind="cron")
    assert marks(operator.get("/batches/?state=failed&state=success"), "batch") == [ended.pk]
    assert marks(operator.get("/batches/?trigger=cron"), "batch") == [cron.pk]
    assert marks(operator.get("/batches/?group=ingest"), "batch") == [elsewhere.pk]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("batch=12a", "Not an ID: 12a"),
        ("batch=99999999999999999999", "Not an ID"),
        ("state=asleep", "asleep is not one of the available choices"),
        ("trigger=workflow", "workflow is not one of the available choices"),
        ("task=nonesuch", "There is no task nonesuch to see"),
        ("group=nonesuch", "nonesuch is not one of the available choices"),
        ("window=1y", "1y is not one of the available choices"),
        ("batch=" + ",".join(map(str, range(1, 202))), "201 values are too many"),
        ("window=range", "Say from when or until when"),
        ("since=yesterday", "Not a moment"),
        ("since=2026-01-02&until=2026-01-01", "The end is not after the beginning"),
    ],
)
def test_an_invalid_filter_shows_its_mistake_and_no_rows(
    desk: Desk, operator: Client, query: str, said: str
) -> None:
    make.batch(desk.task)
    page = operator.get(f"/batches/?{query}")
    assert page.status_code == 422
    assert said in text_of(page)
    assert marks(page, "batch") == []


@pytest.mark.parametrize(
    ("address", "row"),
    [
        ("/batches/?state=&trigger=&group=&task=&window=", "batch"),
        ("/batches/{batch}/?state=&node=&cause=&shard=", "instance"),
        ("/tasks/?group=&kind=&last=&enabled=&name=", "task"),
        ("/journal/?action=&via=&type=&who=&window=", "entry"),
    ],
)
def test_an_empty_value_narrows_nothing(desk: Desk, operator: Client, address: str, row: str) -> None:
    batch = make.batch(desk.task)
    journal.record("stopped", batch, "ann")
    address = address.format(batch=batch.pk)
    page, plain = operator.get(address), operator.get(address.partition("?")[0])
    assert page.status_code == 200
    assert marks(page, row) == marks(plain, row) != []


def test_a_filter_does_not_tell_of_tasks_and_groups_of_other_teams(desk: Desk, outsider: Client) -> None:
    page = outsider.get("/batches/?task=extract&group=etl")
    assert "There is no task extract to see" in text_of(page)
    assert page.status_code == 422


def test_the_window_is_seven_days_unless_asked_or_ids_are_named(desk: Desk, operator: Client) -> None:
    old = make.batch(desk.task)
    Batch.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=8))
    assert marks(operator.get("/batches/"), "batch") == []
    assert marks(operator.get("/batches/?window=30d"), "batch") == [old.pk]
    assert marks(operator.get(f"/batches/?batch={old.pk}"), "batch") == [old.pk]


@pytest.mark.parametrize(
    "cursor", ["x", "1", "1.x", "1.2.3", "99999999999999999999999.1", "1.99999999999999999999"]
)
def test_a_page_mark_that_is_not_ours_is_not_found(desk: Desk, operator: Client, cursor: str) -> None:
    assert operator.get(f"/batches/?older={cursor}").status_code == 404


def test_pages_follow_each_other_without_gap_or_repeat_also_within_one_moment(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduling.views.lists.PAGE_SIZE", 3)
    task = make.task(group=desk.group)
    batches = [make.batch(task) for _ in range(8)]
    # All made in the same microsecond, so that only the id tells them apart.
    Batch.objects.update(created_at=timezone.now())
    expected = sorted((batch.pk for batch in batches), reverse=True)

    page, seen, pages = operator.get("/batches/?state=waiting"), [], []
    while True:
        seen += marks(page, "batch")
        pages.append(marks(page, "batch"))
        older = page.context["page"].older
        if older is None:
            break
        page = operator.get(f"/batches/?state=waiting&older={older}")
    assert seen == expected
    while (newer := page.context["page"].newer) is not None:
        pages.pop()
        page = operator.get(f"/batches/?state=waiting&newer={newer}")
        assert marks(page, "batch") == pages[-1]
    assert len(pages) == 1


def test_the_page_links_keep_the_filter(desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduling.views.lists.PAGE_SIZE", 1)
    make.batch(desk.task)
    make.batch(desk.task)
    page = operator.get("/batches/?state=waiting")
    assert 'rel="next" href="?tab=basic&amp;state=waiting&amp;older=' in text_of(page)


def test_batches_are_filtered_by_who_began_them(desk: Desk, operator: Client) -> None:
    mine, theirs = make.batch(desk.task, by="mei"), make.batch(desk.task, by="ravi")
    make.batch(desk.task)
    assert marks(operator.get("/batches/?by=mei"), "batch") == [mine.pk]
    assert marks(operator.get("/batches/?by=mei,ravi"), "batch") == [theirs.pk, mine.pk]


def test_what_the_schedule_began_is_found_beside_what_people_reran(desk: Desk, operator: Client) -> None:
    due = make.end_batch(make.batch(desk.task, kind="cron", by=journal.SCHEDULE))
    again = services.rerun(due, by="mei")
    make.batch(desk.task, by="ravi")
    assert marks(operator.get("/batches/?by=schedule"), "batch") == [due.pk]
    assert marks(operator.get("/batches/?by=schedule,mei"), "batch") == [again.pk, due.pk]
    assert marks(operator.get("/batches/?by=engine"), "batch") == []
    assert "<b>2</b> batches match" in text_of(operator.get("/batches/count/?by=schedule,mei"))


def test_a_tasks_batches_are_filtered_by_the_group_that_they_ran_in(desk: Desk, operator: Client) -> None:
    before = make.batch(desk.task, by="mei")
    Task.objects.filter(pk=desk.task.pk).update(group=make.group("ingest", team=desk.team))
    make.group("ingest")
    after = make.batch(Task.objects.get(pk=desk.task.pk), by="ravi")
    make.batch(make.task(group=desk.group))
    of_task = f"/batches/?task={desk.task.name}"
    assert marks(operator.get(f"{of_task}&group={desk.group.name}"), "batch") == [before.pk]
    assert marks(operator.get(f"{of_task}&group=ingest"), "batch") == [after.pk]
    assert marks(operator.get(f"{of_task}&group=ingest&by=mei"), "batch") == []
    assert marks(operator.get(f"{of_task}&group={desk.group.name}&by=mei"), "batch") == [before.pk]


def test_a_range_of_time_includes_its_beginning_and_not_its_end(desk: Desk, operator: Client) -> None:
    batches = [make.batch(desk.task) for _ in range(3)]
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for hours, batch in enumerate(batches):
        Batch.objects.filter(pk=batch.pk).update(created_at=noon + timedelta(hours=hours))
    page = operator.get("/batches/?since=2026-01-31T12:00&until=2026-01-31T13:00")
    assert marks(page, "batch") == [batches[0].pk]
    # An address that was shared carries its offset.
    page = operator.get("/batches/?since=2026-01-31T21:00:00%2B08:00")
    assert marks(page, "batch") == [batches[2].pk, batches[1].pk]
    assert 'name="since" value="2026-01-31T13:00:00"' in text_of(page)


def test_each_value_that_narrows_the_list_can_be_taken_away(desk: Desk, operator: Client) -> None:
    page = operator.get(f"/batches/?task=extract&task={desk.task.pk}&state=failed&window=30d")
    chips = {(chip.label, chip.value): chip.without for chip in page.context["filters"].chips()}
    assert chips == {
        ("Task", "extract"): f"tab=basic&task={desk.task.pk}&state=failed&window=30d",
        ("Task", f"extract ({desk.task.pk})"): "tab=basic&task=extract&state=failed&window=30d",
        ("State", "Failed"): f"tab=basic&task=extract&task={desk.task.pk}&window=30d",
        ("Begun", "Last 30 days"): f"tab=basic&task=extract&task={desk.task.pk}&state=failed",
    }


def test_a_wrong_value_can_be_taken_away_and_a_long_list_is_one_chip(desk: Desk, operator: Client) -> None:
    page = operator.get("/batches/?state=asleep&batch=1,2,3,4,5,6,7")
    chips = [(chip.value, chip.without) for chip in page.context["filters"].chips()]
    assert chips == [
        ("7 values", "tab=basic&state=asleep"),
        ("asleep", "tab=basic&batch=1&batch=2&batch=3&batch=4&batch=5&batch=6&batch=7"),
    ]


def test_a_timed_out_instance_is_called_timed_out_and_not_failed(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    first, second, _ = make.start_batch(batch)
    make.end(first, "timed_out", may_retry=False)
    make.end(second, "failed", may_retry=False)
    row = element(operator.get("/batches/"), f"batch-{batch.pk}")
    assert 'aria-label="0 of 3 succeeded, 1 failed, 1 timed out, 1 running"' in row


def test_what_a_schedule_began_late_is_said_to_be_late_and_a_rerun_is_not(desk: Desk, operator: Client) -> None:
    hour_ago = timezone.now() - timedelta(hours=1, minutes=1)
    late = make.batch(desk.task, kind="cron", scheduled_for=hour_ago)
    prompt = make.batch(desk.task, kind="cron")
    make.start_batch(late)
    again = services.rerun(make.end_batch(late), by="mei")
    page = operator.get("/batches/")
    assert "1 h 01 min late" in element(page, f"batch-{late.pk}")
    for other in (prompt, again):
        assert "data-tone" not in element(page, f"batch-{other.pk}")


def test_a_viewer_has_nothing_to_tick(desk: Desk, viewer: Client, operator: Client) -> None:
    batch = make.batch(desk.task)
    tick = f'class="tick" id="tick-batch-{batch.pk}" name="batch"'
    assert tick in text_of(operator.get("/batches/"))
    assert tick not in text_of(viewer.get("/batches/"))


# --- counts, suggestions, nothing ------------------------------------------------------------------


def test_the_count_stands_in_the_page_when_it_is_known_and_is_asked_for_else(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.batch(desk.task)
    assert "<b>1</b> batch matches" in text_of(operator.get("/batches/?state=waiting"))
    make.batch(desk.task)
    page = text_of(operator.get("/batches/?state=waiting"))
    assert "<b>2</b> batches match" in page
    assert 'hx-trigger="acted from:body, rows-changed from:body"' in page
    monkeypatch.setattr("scheduling.views.lists.PAGE_SIZE", 1)
    address = "/batches/count/?tab=basic&amp;state=waiting"
    page = text_of(operator.get("/batches/?state=waiting"))
    assert f'{address}" hx-trigger="load, acted from:body, rows-changed from:body"' in page
    assert "<b>2</b> batches match" in text_of(operator.get(address.replace("&amp;", "&")))
    monkeypatch.setattr("scheduling.views.lists.MOST_COUNTED", 1)
    assert "<b>1+</b> batches match" in text_of(operator.get("/batches/count/?tab=basic"))
    assert "<b>0</b> batches match" in text_of(operator.get("/batches/count/?state=asleep"))


def test_tasks_are_suggested_by_part_of_their_name_or_by_their_id(desk: Desk, operator: Client) -> None:
    make.task("clean_extracts", group=desk.group)
    make.task("load", group=desk.group)
    make.task("extract_of_others")
    suggested = offers(operator.get("/suggest/tasks/?task=EXTRACT"))
    assert suggested == ["clean_extracts", "extract"]
    assert offers(operator.get(f"/suggest/tasks/?task={desk.task.pk}"))[-1] == "extract"
    assert "Nothing has that in its name" in text_of(operator.get("/suggest/tasks/?task=nonesuch"))


def test_tasks_of_one_name_in_two_teams_are_suggested_by_id(desk: Desk) -> None:
    elsewhere = make.group()
    other = make.task("extract", group=elsewhere)
    client = desk.sign_in()
    elsewhere.team.memberships.create(user=client.user, role="viewer")
    assert offers(client.get("/suggest/tasks/?task=extract")) == [str(desk.task.pk), str(other.pk)]


def test_people_of_ones_teams_are_suggested_and_no_others(desk: Desk) -> None:
    client = desk.sign_in(username="mei")
    make.user("meili", team=make.team())
    desk.sign_in(username="ameil")
    assert offers(client.get("/suggest/people/?by=mei")) == ["ameil", "mei"]
    assert offers(client.get("/suggest/people/?by=sched")) == ["schedule"]


def offers(response: Any) -> list[str]:
    return re.findall(r'role="option"[^>]* data-value="([^"]*)"', text_of(response))


def test_an_empty_list_says_what_to_do(desk: Desk, operator: Client, settings: Any) -> None:
    assert "No batch has begun yet" in text_of(operator.get("/batches/"))
    make.batch(desk.task)
    nothing = text_of(operator.get("/batches/?state=failed"))
    assert "Clear the filter" in nothing
    assert 'href="?tab=basic&amp;state=failed&amp;window=30d"' in nothing
    settings.TAILRACE = settings.TAILRACE | {"RETENTION_DAYS": 7}
    assert "kept for 7 days" in text_of(operator.get("/batches/?until=2026-01-01"))
