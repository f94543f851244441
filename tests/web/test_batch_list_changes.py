import pytest
from django.test import Client

from scheduling import services
from scheduling.models import Batch
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, live_address, marks, shown, state_of, text_of


def test_nothing_new_is_answered_with_nothing(desk: Desk, operator: Client) -> None:
    make.batch(desk.task)
    page = operator.get("/batches/")
    answer = operator.get(live_address(page), headers=shown(page))
    assert (answer.status_code, answer.content) == (204, b"")


def test_only_the_changed_row_comes_back_out_of_band(desk: Desk, operator: Client) -> None:
    changed, _ = make.batch(desk.task), make.batch(desk.task)
    page = operator.get("/batches/")
    make.start_batch(changed)
    answer = operator.get(live_address(page), headers=shown(page))
    assert answer.status_code == 200
    assert marks(answer, "batch") == [changed.pk]
    assert f'<tr id="batch-{changed.pk}" hx-swap-oob="true">' in text_of(answer)
    assert "HX-Trigger" not in answer
    assert state_of(answer, f"batch-{changed.pk}") == "running"
    again = operator.get(live_address(answer), headers=shown(answer))
    assert again.status_code == 204


def test_an_instance_that_starts_changes_its_batchs_row(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    first, second, _ = batch.instances.select_related("group", "node")
    make.start(first)
    page = operator.get("/batches/")
    make.start(second)
    answer = operator.get(live_address(page), headers=shown(page))
    assert marks(answer, "batch") == [batch.pk]


def test_a_new_batch_comes_in_at_the_top(desk: Desk, operator: Client) -> None:
    make.batch(desk.task)
    page = operator.get("/batches/")
    new = make.batch(desk.task)
    answer = operator.get(live_address(page), headers=shown(page))
    assert '<tbody hx-swap-oob="afterbegin:#batches">' in text_of(answer)
    assert marks(answer, "batch") == [new.pk]
    assert "rows-changed" in answer["HX-Trigger"], "the page counts anew"


def test_a_batch_that_leaves_the_filter_leaves_the_page(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    page = operator.get("/batches/?state=waiting")
    make.start_batch(batch)
    answer = operator.get(live_address(page), headers=shown(page))
    assert f'<tr id="batch-{batch.pk}" hx-swap-oob="delete">' in text_of(answer)
    assert "rows-changed" in answer["HX-Trigger"]


def test_a_page_that_cannot_change_any_more_stops_asking(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task))
    page = operator.get(f"/batches/?batch={batch.pk}")
    assert "every 2s" not in text_of(page)
    answer = operator.get(live_address(page), headers=shown(page))
    assert answer.status_code == 286
    # An action wakes it again.
    services.rerun_instance(batch.instances.first(), by=operator.user)
    answer = operator.get(live_address(page), headers=shown(page))
    assert answer.status_code == 200
    assert "every 2s" in text_of(answer)


def test_the_first_page_goes_on_asking_as_new_batches_may_begin(desk: Desk, operator: Client) -> None:
    make.end_batch(make.batch(desk.task))
    page = operator.get("/batches/")
    assert "every 2s" in text_of(page)
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204


def test_a_mark_that_is_not_one_of_ours_is_not_put_into_the_page(desk: Desk, operator: Client) -> None:
    answer = operator.get("/batches/changes/", headers={**HTMX, "X-Shown": '"><script>:1 batch-7:1'})
    assert "script" not in text_of(answer)
    assert '<tr id="batch-7" hx-swap-oob="delete">' in text_of(answer)


@pytest.mark.parametrize("count", [1, 12])
def test_asking_for_changes_takes_the_same_number_of_queries_however_long_the_list_is(
    desk: Desk, operator: Client, django_assert_num_queries, count: int
) -> None:
    for _ in range(count):
        make.start_batch(make.batch(desk.task))
    page = operator.get("/batches/")
    Batch.objects.update(reason="changed")
    with django_assert_num_queries(7):
        answer = operator.get(live_address(page), headers=shown(page))
    assert len(marks(answer, "batch")) == count
