"""The frame's box leads to what was meant."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client

from scheduling import services
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import text_of


def count_from(*, batches: int, instances: int) -> None:
    """Let the next batch and the next instance have the ids after these."""
    with connection.cursor() as cursor:
        for table, last in (("scheduling_batch", batches), ("scheduling_instance", instances)):
            cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, last])


def test_an_id_that_only_one_thing_has_leads_straight_to_it(operator: Client, desk: Desk) -> None:
    count_from(batches=1_000_000, instances=2_000_000)
    instance = services.trigger(desk.task).instances.latest("pk")

    assert operator.get("/find/", {"q": f" #{instance.pk} "})["Location"] == f"/instances/{instance.pk}/"


def test_an_id_that_is_a_batch_s_and_an_instance_s_lists_both(operator: Client, desk: Desk) -> None:
    count_from(batches=1_000_000, instances=1_000_000)
    batch = services.trigger(desk.task)

    page = text_of(operator.get("/find/", {"q": str(batch.pk)}))

    assert f"/batches/{batch.pk}/" in page
    assert f"/instances/{batch.pk}/" in page


def test_a_piece_of_a_name_finds_tasks_and_a_whole_name_only_its_own(operator: Client, desk: Desk) -> None:
    make.task("extract_more", group=desk.group)

    page = text_of(operator.get("/find/", {"q": "XTRAC"}))

    assert "extract_more" in page
    assert operator.get("/find/", {"q": "extract"}).status_code == 302


@pytest.mark.parametrize("text", ["", "nothing like it", "99999999999999999999", "0", "²", "\0", "a\0b"])
def test_what_means_nothing_says_what_to_type(operator: Client, text: str) -> None:
    answer = operator.get("/find/", {"q": text})

    assert answer.status_code == 200
    assert "Type a piece of the name of a task" in text_of(answer)


def test_what_is_another_team_s_is_not_found(outsider: Client, desk: Desk) -> None:
    batch = services.trigger(desk.task)

    assert "Type a piece" in text_of(outsider.get("/find/", {"q": str(batch.pk)}))
    assert "Type a piece" in text_of(outsider.get("/find/", {"q": "extract"}))
