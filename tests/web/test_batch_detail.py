import pytest
from django.test import Client

from scheduling import services
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import actions_of, element, live_address, marks, shown, state_of, text_of


def test_it_shows_the_facts_and_every_instance(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task, parameters={"carrier": "<AA>"}))
    page = operator.get(f"/batches/{batch.pk}/")
    assert state_of(page, f"batch-{batch.pk}") == "success"
    instances = list(batch.instances.order_by("number"))
    assert marks(page, "instance") == [instance.pk for instance in instances]
    row = element(page, f"instance-{instances[1].pk}")
    assert "<code>UA</code>" in row
    assert "node-a" in row
    assert "&lt;AA&gt;" in text_of(page)


def test_it_leads_to_what_it_is_a_rerun_of_and_to_its_reruns(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task))
    again = services.rerun(batch, by=operator.user)
    assert f'href="/batches/{batch.pk}/"' in element(operator.get(f"/batches/{again.pk}/"), f"batch-{again.pk}")
    assert f'href="/batches/{again.pk}/"' in text_of(operator.get(f"/batches/{batch.pk}/"))


def test_buttons_follow_the_state_of_the_batch_and_of_each_instance(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    first, second, third = batch.instances.select_related("group", "node")
    make.start(first)
    make.end(first)
    make.start(second)
    page = operator.get(f"/batches/{batch.pk}/")
    assert actions_of(page, f"batch-{batch.pk}") == ["stop"]
    assert [actions_of(page, f"instance-{each.pk}") for each in (first, second, third)] == [
        ["rerun"],
        ["stop"],
        ["stop"],
    ]


def test_a_viewer_sees_it_without_buttons(desk: Desk, viewer: Client) -> None:
    batch = make.batch(desk.task)
    assert "data-action" not in text_of(viewer.get(f"/batches/{batch.pk}/"))


@pytest.mark.parametrize(
    "address", ["/batches/{}/", "/batches/{}/changes/", "/batches/{}/stop/", "/batches/{}/rerun/"]
)
def test_another_teams_batch_is_not_found_as_if_it_were_not_there(
    desk: Desk, outsider: Client, address: str
) -> None:
    batch = make.batch(desk.task)
    there, not_there = outsider.get(address.format(batch.pk)), outsider.get(address.format(10**12))
    assert (there.status_code, not_there.status_code) == (404, 404)
    assert text_of(there).replace("csrf", "") != ""
    assert "extract" not in text_of(there)


def test_many_instances_come_in_pages_by_number(desk: Desk, operator: Client) -> None:
    wide = make.task(group=desk.group, shards=[str(number) for number in range(230)])
    batch = make.batch(wide)
    numbers = dict(batch.instances.values_list("pk", "number"))
    page = operator.get(f"/batches/{batch.pk}/")
    assert [numbers[pk] for pk in marks(page, "instance")] == list(range(100))
    assert 'href="?from=100"' in text_of(page)
    last = operator.get(f"/batches/{batch.pk}/?from=200")
    assert [numbers[pk] for pk in marks(last, "instance")] == list(range(200, 230))
    assert 'href="?from=100"' in text_of(last)
    assert "?from=300" not in text_of(last)


@pytest.mark.parametrize("shards", [2, 90])
def test_it_takes_the_same_number_of_queries_however_many_instances_it_has(
    desk: Desk, operator: Client, django_assert_num_queries, shards: int
) -> None:
    batch = make.batch(make.task(group=desk.group, shards=["x"] * shards))
    make.start_batch(batch)
    # Session, user, the batch, what executes, the user's roles, the instances, the reruns.
    with django_assert_num_queries(7):
        operator.get(f"/batches/{batch.pk}/")


def test_only_changed_rows_come_back_and_the_head_with_them(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    page = operator.get(f"/batches/{batch.pk}/")
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    first = batch.instances.select_related("group", "node").first()
    make.start(first)
    answer = operator.get(live_address(page), headers=shown(page))
    assert marks(answer, "instance") == [first.pk]
    assert state_of(answer, f"batch-{batch.pk}") == "running"


def test_it_stops_asking_when_all_has_ended(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    page = operator.get(f"/batches/{batch.pk}/")
    make.end_batch(batch)
    answer = operator.get(live_address(page), headers=shown(page))
    assert answer.status_code == 286
    assert len(marks(answer, "instance")) == 3
    assert "every 2s" not in text_of(answer)
