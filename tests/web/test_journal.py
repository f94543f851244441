"""The journal's page: everything that was done, by whom and why, to those who may see it."""

from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path
from typing import Any

import pgtrigger
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from scheduling import deeds, journal, services
from scheduling.models import JournalEntry, Membership
from scheduling.views.journal import PAGE_SIZE
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import element, live_address, marks, shown, text_of

ROOT = Path(__file__).parents[2]


def entry(desk: Desk, action: str = "stopped", **fields: Any) -> JournalEntry:
    """An entry about the desk's task, written by hand."""
    about = {"object_type": "task", "object_id": desk.task.pk, "object_name": desk.task.name}
    who = {"at": timezone.now(), "team_id": desk.team.pk, "actor": "ann", "via": "web"}
    return JournalEntry.objects.create(**(about | who | {"action": action} | fields))


def entries(response: Any) -> list[int]:
    return marks(response, "entry")


def test_what_was_done_stands_there_with_who_when_and_why(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    services.stop(batch, by=operator.user, reason="wrong input file")
    stopped = JournalEntry.objects.get(action="stopped")

    row = element(operator.get("/journal/"), f"entry-{stopped.pk}")

    for shown_there in ("Stopped", operator.user.username, "Shell", "wrong input file", "extract", "<time "):
        assert shown_there in row
    assert f'href="/batches/{batch.pk}/"' in row


def test_a_batchs_end_shows_the_state_it_came_to(desk: Desk, operator: Client) -> None:
    make.end_batch(make.batch(desk.task), "failed")
    ended = JournalEntry.objects.get(action="ended")

    assert 'data-state="failed"' in element(operator.get("/journal/"), f"entry-{ended.pk}")


def test_what_is_gone_has_no_link(desk: Desk, operator: Client) -> None:
    gone = entry(desk, object_type="batch", object_id=2**40)

    assert f"/batches/{2**40}/" not in element(operator.get("/journal/"), f"entry-{gone.pk}")


def test_other_teams_entries_are_not_there(desk: Desk, operator: Client, outsider: Client) -> None:
    made = entry(desk)

    assert made.pk in entries(operator.get("/journal/"))
    assert entries(outsider.get("/journal/")) == []
    assert outsider.get(f"/journal/{made.pk}/").status_code == 404
    assert operator.get(f"/journal/{made.pk}/").status_code == 200


def test_who_is_in_several_teams_reads_all_of_them_in_one_order(desk: Desk, operator: Client) -> None:
    other = make.team()
    other.memberships.create(user=operator.user, role="viewer")
    now = timezone.now()
    made = [
        entry(desk, at=now + timedelta(seconds=n), team_id=(desk.team if n % 2 else other).pk) for n in range(6)
    ]

    assert entries(operator.get("/journal/?action=stopped")) == [each.pk for each in reversed(made)]


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("who=ann", {"web", "shell"}),
        ("who=ann, schedule", {"web", "shell", "schedule"}),
        ("who=nobody", set()),
        ("via=web", {"web"}),
        ("via=web&via=shell", {"web", "shell"}),
        ("via=schedule", {"schedule"}),
        ("via=engine", {"engine"}),
        ("via=engine&via=web", {"engine", "web"}),
        ("action=stopped", {"web", "shell"}),
        ("action=triggered", {"schedule"}),
        ("action=triggered&action=stopped", {"web", "shell", "schedule"}),
        ("type=node", {"engine"}),
        ("type=batch", set()),
        ("object=4711", {"engine"}),
        ("object=4712", set()),
        ("name=node-a", {"engine"}),
        ("name=extract", {"web", "shell", "schedule"}),
        ("window=1d", {"web", "schedule"}),
        ("window=all", {"web", "shell", "schedule", "engine"}),
    ],
)
def test_a_filter_keeps_what_it_names(desk: Desk, operator: Client, query: str, kept: set[str]) -> None:
    day = timedelta(days=1)
    now = timezone.now()
    with pgtrigger.ignore("scheduling.JournalEntry:journal_kept"):
        JournalEntry.objects.all()._raw_delete("default")
    made = {
        "web": entry(desk),
        "shell": entry(desk, via="shell", at=now - 2 * day),
        "schedule": entry(desk, "triggered", via="engine", actor="schedule"),
        "engine": entry(
            desk,
            "node_offline",
            via="engine",
            actor="engine",
            at=now - 40 * day,
            object_type="node",
            object_id=4711,
            object_name="node-a",
        ),
    }
    if "window" not in query:
        query += "&window=all"

    found = set(entries(operator.get(f"/journal/?{query}")))

    assert {name for name, each in made.items() if each.pk in found} == kept


def test_a_span_of_time_counts_before_the_window(desk: Desk, operator: Client) -> None:
    old = entry(desk, at=timezone.now() - timedelta(days=60))
    day = (old.at - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    end = (old.at + timedelta(hours=1)).isoformat().replace("+00:00", "Z")

    assert entries(operator.get("/journal/", {"since": day, "until": end})) == [old.pk]
    assert entries(operator.get("/journal/", {"since": day, "until": day})) == []


@pytest.mark.parametrize("query", ["object=x", "since=yesterday", "via=post", "action=sang"])
def test_an_invalid_filter_shows_its_mistake_and_no_rows(desk: Desk, operator: Client, query: str) -> None:
    entry(desk)

    answer = operator.get(f"/journal/?{query}")

    assert answer.status_code == 422
    assert entries(answer) == []
    assert 'role="alert"' in text_of(answer)


def test_pages_go_through_everything_once_and_back(desk: Desk, operator: Client) -> None:
    at = timezone.now()
    made = [entry(desk, at=at) for _ in range(2 * PAGE_SIZE + 5)]
    first = operator.get("/journal/?action=stopped")
    second = operator.get(f"/journal/?action=stopped&older={first.context['page'].older}")
    third = operator.get(f"/journal/?action=stopped&older={second.context['page'].older}")

    assert entries(first) + entries(second) + entries(third) == [each.pk for each in reversed(made)]
    assert third.context["page"].older is None
    back = operator.get(f"/journal/?action=stopped&newer={third.context['page'].newer}")
    assert entries(back) == entries(second)
    assert 'id="live"' not in text_of(second)
    assert operator.get("/journal/?older=x").status_code == 404


def test_new_entries_come_in_at_the_top_and_the_page_does_not_grow(desk: Desk, operator: Client) -> None:
    made = [entry(desk) for _ in range(PAGE_SIZE)]
    page = operator.get("/journal/?action=stopped")
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204

    newer = entry(desk)
    answer = operator.get(live_address(page), headers=shown(page))

    assert entries(answer) == [made[0].pk, newer.pk]
    assert f'<tr id="entry-{made[0].pk}" hx-swap-oob="delete"></tr>' in text_of(answer)
    assert 'hx-swap-oob="afterbegin:#entries"' in text_of(answer)


def test_no_query_is_added_by_a_row(desk: Desk, operator: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as made:
            operator.get("/journal/?window=all")
        return len(made)

    batch = make.batch(desk.task)
    services.stop_instance(batch.instances.first(), by="ann")
    few = queries()
    for _ in range(5):
        services.stop_instance(make.batch(desk.task).instances.first(), by="ann")

    assert queries() == few


def test_an_edit_shows_what_it_changed_as_a_diff(desk: Desk, operator: Client) -> None:
    services.save_task(
        team=desk.team,
        group=desk.group,
        name="extract",
        content={"kind": "shell", "spec": {"command": "false"}, "shards": ["AA"], "mode": "sharded"},
        by="ann",
        reason="try it",
    )
    edited = JournalEntry.objects.get(action="edited")

    page = text_of(operator.get(f"/journal/{edited.pk}/"))

    assert '<span data-sign="-">- command: &#x27;true&#x27;</span>' in page
    assert '<span data-sign="+">+ command: &#x27;false&#x27;</span>' in page
    assert "try it" in page


def test_details_are_told_in_words(desk: Desk, operator: Client) -> None:
    source = make.end_batch(make.batch(desk.task), "failed")
    again = services.rerun(source, by="ann")
    rerun = JournalEntry.objects.get(object_type="batch", action="rerun", object_id=again.pk)

    row = element(operator.get("/journal/"), f"entry-{rerun.pk}")

    assert f'<dt>Rerun of</dt><dd><a class="id" href="/batches/{source.pk}/">{source.pk}</a></dd>' in row
    assert "<dt>Trigger</dt><dd>Manual</dd>" in row


def _written_actions() -> set[str]:
    """Every action that some code gives to the journal as a constant."""
    found = set()
    for path in (
        *ROOT.glob("scheduling/**/*.py"),
        *ROOT.glob("workflows/**/*.py"),
        *ROOT.glob("reruns/**/*.py"),
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"journal.record", "journal.entry"}:
                found |= {each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)}
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == "deed"
                and isinstance(node.value, ast.IfExp)
            ):
                found |= {each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)}
    return found


def test_every_action_that_is_written_has_words() -> None:
    written = _written_actions() - {"node_"}

    assert {"stopped", "triggered"} <= written
    assert written - set(deeds.ACTIONS) == set(), "say in scheduling/deeds.py what these are called"


def test_the_shells_user_and_name_stand_there(desk: Desk, operator: Client) -> None:
    with journal.acting_via("shell"):
        services.set_enabled(desk.task, False, reason="incident 12")
    made = JournalEntry.objects.get(action="disabled")

    row = element(operator.get("/journal/?via=shell&action=disabled"), f"entry-{made.pk}")

    assert made.actor in row
    assert "incident 12" in row


def test_an_invalid_filter_shows_nothing_to_people_of_several_teams_too(operator: Client, desk: Desk) -> None:
    Membership.objects.create(team=make.team(), user=operator.user, role="viewer")  # type: ignore[attr-defined]
    services.trigger(desk.task)

    for query in ("window=bogus", "object=abc", "via=moon"):
        answer = operator.get(f"/journal/?{query}")
        assert answer.status_code == 422, query
        assert marks(answer, "entry") == []
