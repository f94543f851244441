"""The list of tasks shows what its filters ask for."""

from __future__ import annotations

import pytest
from django.test import Client

from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import marks, text_of


@pytest.fixture(scope="module")
def variety(lasting_desk: Desk) -> dict[str, int]:
    """Tasks that differ in everything that the list can be filtered by."""
    desk = lasting_desk
    elsewhere = make.group("ingest", team=desk.team)
    tasks = {
        "extract": desk.task,
        "load": make.task("load", group=elsewhere, enabled=False),
        "check": make.task(
            "check", group=desk.group, kind="http", spec={"url": "https://example.org/", "method": "GET"}
        ),
    }
    make.end_batch(make.batch(tasks["extract"]), "failed")
    make.end_batch(make.batch(tasks["extract"]))
    make.end_batch(make.batch(tasks["load"]), "failed")
    return {name: task.pk for name, task in tasks.items()}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("name=tract", ["extract"]),
        ("name=tract,OAD", ["extract", "load"]),
        ("group=ingest", ["load"]),
        ("group=ingest&group=etl", ["check", "extract", "load"]),
        ("kind=http", ["check"]),
        ("enabled=no", ["load"]),
        ("enabled=yes&enabled=no", ["check", "extract", "load"]),
        # By the newest run alone.
        ("last=failed", ["load"]),
        ("last=success&last=never", ["check", "extract"]),
        ("last=failed&group=etl", []),
    ],
)
def test_tasks_are_filtered(variety: dict[str, int], operator: Client, query: str, found: list[str]) -> None:
    assert marks(operator.get(f"/tasks/?{query}"), "task") == [variety[name] for name in found]


def test_an_invalid_filter_shows_its_mistake_and_no_task(desk: Desk, operator: Client) -> None:
    answer = operator.get("/tasks/?last=asleep")
    assert answer.status_code == 422
    assert "asleep is not one of the available choices" in text_of(answer)
    assert marks(answer, "task") == []
