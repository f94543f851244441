"""Ranges admit what a filter of the same words admits, in the same order, wherever the page lies."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from scheduling.models import Batch
from scheduling.models.tasks import Trigger
from scheduling.queries import BatchRanges, Cursor, Either, Ranges, newest_first
from scheduling.states import BatchState
from tests import factories as make

pytestmark = pytest.mark.django_db

ALL: dict[str, Any] = {"triggers": Trigger.values, "states": BatchState.values}


@pytest.fixture(scope="module")
def batches(lasting: None) -> list[Batch]:
    """Of two tasks of one team and one of another, by several triggers and people, in every final state."""
    first = make.task()
    second = make.task(group=make.group(team=first.team))
    made = []
    for n, task in enumerate(itertools.islice(itertools.cycle([first, second, make.task()]), 24)):
        batch = make.batch(task, kind=["cron", "manual"][n % 2], by=["mei", "jonas", "schedule"][n % 3])
        made.append(make.end_batch(batch, ["success", "failed"][n % 4 == 0]) if n % 5 else batch)
    # Pairs begun in the same microsecond, which only their ids tell apart.
    for n, batch in enumerate(made):
        Batch.objects.filter(pk=batch.pk).update(created_at=made[0].created_at + timedelta(seconds=n // 2))
    return list(Batch.objects.order_by("pk"))


def agree(ranges: Ranges | Either, expected: Any) -> None:
    """Every page of `ranges`, from either end, and its count are those of the queryset `expected`."""
    wanted = list(expected.order_by("-created_at", "-pk").values_list("pk", flat=True))
    assert ranges.count(1000) == len(wanted)
    page, seen, turned = newest_first(Batch.objects.all(), size=3, within=ranges), [], []
    while True:
        seen += [row.pk for row in page.rows]
        turned.append([row.pk for row in page.rows])
        if page.older is None:
            break
        page = newest_first(Batch.objects.all(), size=3, older=page.older, within=ranges)
    assert seen == wanted
    while page.newer is not None:
        turned.pop()
        page = newest_first(Batch.objects.all(), size=3, newer=page.newer, within=ranges)
        assert [row.pk for row in page.rows] == turned[-1]


@pytest.mark.parametrize("place", ["team", "group", "task"])
def test_ranges_of_a_place_are_what_a_filter_says(batches: list[Batch], place: str) -> None:
    ids = [getattr(batches[0], f"{place}_id"), getattr(batches[2], f"{place}_id")]
    agree(BatchRanges({place: ids}, **ALL), Batch.objects.filter(**{f"{place}__in": ids}))
    agree(
        BatchRanges({place: ids}, triggers=["manual"], states=["failed", "waiting"]),
        Batch.objects.filter(**{f"{place}__in": ids}, trigger="manual", state__in=["failed", "waiting"]),
    )


def test_places_of_two_kinds_may_overlap(batches: list[Batch]) -> None:
    team, task = batches[0].team_id, batches[0].task_id
    agree(BatchRanges({"team": [team], "task": [task, batches[2].task_id]}, **ALL), Batch.objects.all())


def test_ranges_of_people_are_narrowed_row_by_row(batches: list[Batch]) -> None:
    team = batches[0].team_id
    agree(
        BatchRanges({"actor": ["mei"]}, triggers=["manual"], states=["success"], also={"team": [team]}),
        Batch.objects.filter(actor="mei", trigger="manual", state="success", team=team),
    )


@pytest.mark.parametrize("also", [["group"], ["actor"], ["group", "actor"], ["team"]])
@pytest.mark.parametrize("place", ["task", "group"])
def test_ranges_are_narrowed_by_other_places_and_people(
    batches: list[Batch], place: str, also: list[str]
) -> None:
    values = {name: [getattr(batches[0], f"{name}_id")] for name in {place, *also} - {"actor"}}
    values |= {"actor": ["mei", "jonas"]} if "actor" in also else {}
    # A task's earlier batches may have another group.
    elsewhere = make.group(team=batches[0].team)
    Batch.objects.filter(pk__in=[batch.pk for batch in batches[::4]]).update(group=elsewhere)
    agree(
        BatchRanges({place: values.pop(place)}, **ALL, also=values),
        Batch.objects.filter(
            **{f"{place}": getattr(batches[0], f"{place}_id")},
            **{f"{name}__in": given for name, given in values.items()},
        ),
    )


def test_machines_are_looked_for_row_by_row(batches: list[Batch]) -> None:
    agree(
        BatchRanges({"task": [batches[0].task_id]}, **ALL, also={"actor": ["schedule", "mei"]}),
        Batch.objects.filter(task=batches[0].task_id, actor__in=["schedule", "mei"]),
    )


def test_ranges_that_have_nothing_in_common_are_one_list(batches: list[Batch]) -> None:
    first, second = ({"task": [batch.task_id]} for batch in (batches[0], batches[2]))
    agree(
        Either([BatchRanges(first, **ALL), BatchRanges(second, **ALL)]),
        Batch.objects.filter(task__in=[batches[0].task_id, batches[2].task_id]),
    )


def test_a_span_of_time_has_its_beginning_and_not_its_end(batches: list[Batch]) -> None:
    since, until = batches[4].created_at, batches[10].created_at
    places = {"team": [batch.team_id for batch in batches[:3:2]]}
    agree(
        BatchRanges(places, since=since, until=until, **ALL),
        Batch.objects.filter(created_at__gte=since, created_at__lt=until),
    )
    agree(BatchRanges(places, until=since, **ALL), Batch.objects.filter(created_at__lt=since))


def test_a_cursor_beyond_the_span_of_time_admits_what_the_span_does(batches: list[Batch]) -> None:
    since, until = batches[4].created_at, batches[10].created_at
    ranges = BatchRanges({"team": [batch.team_id for batch in batches[:3:2]]}, since=since, until=until, **ALL)
    first, last = (Cursor.of(Batch.objects.get(pk=batches[place].pk)) for place in (0, -1))
    whole = ranges.page(size=50)
    assert whole == [batch.pk for batch in batches[9:3:-1]]
    assert ranges.page(size=50, newer=first) == ranges.page(size=50, older=last) == whole
    assert ranges.page(size=50, older=first) == ranges.page(size=50, newer=last) == []


def test_a_count_stops_where_nobody_reads_on(batches: list[Batch]) -> None:
    ranges = BatchRanges({"team": [batches[0].team_id, batches[2].team_id]}, **ALL)
    assert ranges.count(5) == 5


def test_slots_of_time_are_counted_by_trigger_and_state(batches: list[Batch]) -> None:
    since, slot = batches[0].created_at, timedelta(seconds=3)
    places = {"team": [batches[0].team_id, batches[2].team_id]}
    wanted = Counter(((batch.created_at - since) // slot, batch.trigger, batch.state) for batch in batches)
    assert BatchRanges(places, **ALL).count_by_slot(since, slot, 10) == wanted
    assert BatchRanges(places, **ALL).count_by_slot(since, slot, 1) == {
        key: count for key, count in wanted.items() if key[0] == 0
    }


def test_nothing_wanted_is_nothing_found(batches: list[Batch]) -> None:
    agree(BatchRanges({"team": []}, **ALL), Batch.objects.none())
    agree(BatchRanges({"team": [batches[0].team_id]}, triggers=[], states=["failed"]), Batch.objects.none())


def test_no_range_reads_more_than_a_page(batches: list[Batch]) -> None:
    """Among thousands that succeeded, what is rare is found without a look at them."""
    fields = [
        f.attname
        for f in Batch._meta.concrete_fields
        if not f.generated and f.name not in {"id", "created_at", "scheduled_for"}
    ]
    columns = ", ".join(f'"{name}"' for name in fields)
    template = next(batch for batch in batches if batch.state == "success")
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO scheduling_batch ({columns}, created_at, scheduled_for)"
            f" SELECT {columns}, created_at + n * interval '1 second', created_at + n * interval '1 second'"
            " FROM scheduling_batch, generate_series(1, 20000) n WHERE id = %s",
            [template.pk],
        )
        cursor.execute("ANALYZE scheduling_batch")
    with CaptureQueriesContext(connection) as queries:
        for wanted in ({}, {"states": ["terminating"]}, {"triggers": ["workflow"]}):
            ranges = BatchRanges({"team": [template.team_id]}, **(ALL | wanted))
            ranges.page(size=51, older=Cursor(template.created_at + timedelta(seconds=10_000), template.pk))
            ranges.count(1000)
    for query in queries:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT TEXT) {query['sql']}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
        assert "batch_of_team" in plan
        assert "Removed by Filter" not in plan
        assert "Seq Scan on scheduling_batch" not in plan
