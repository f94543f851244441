from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from scheduling.models import Batch
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import actions_of, element, marks, state_of, text_of


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
    # Session, user, the form's groups, the page, what executes, and the roles of the user.
    make.start_batch(make.batch(desk.task))
    for _ in range(2):
        with django_assert_num_queries(6):
            operator.get("/batches/")
        for _ in range(15):
            make.start_batch(make.batch(desk.task))


def test_a_filter_takes_several_values_in_one_box_or_in_several(desk: Desk, operator: Client) -> None:
    other, third = make.task("clean", group=desk.group), make.task("load", group=desk.group)
    a, b, c = make.batch(desk.task), make.batch(other), make.batch(third)
    assert marks(operator.get("/batches/?task=extract,clean"), "batch") == [b.pk, a.pk]
    assert marks(operator.get(f"/batches/?task=extract&task={third.pk}"), "batch") == [c.pk, a.pk]
    assert marks(operator.get(f"/batches/?batch={a.pk}%20{c.pk}"), "batch") == [c.pk, a.pk]


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
    monkeypatch.setattr("scheduling.views.batches.PAGE_SIZE", 3)
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
    monkeypatch.setattr("scheduling.views.batches.PAGE_SIZE", 1)
    make.batch(desk.task)
    make.batch(desk.task)
    assert 'rel="next" href="?state=waiting&amp;older=' in text_of(operator.get("/batches/?state=waiting"))
