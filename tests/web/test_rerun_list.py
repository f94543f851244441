"""The list of reruns downstream: what it shows and narrows, its live rows, and one's drafts."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from reruns.models import Rerun, RerunItem
from tests import factories as make
from tests.web.conftest import Desk, signed_in
from tests.web.pages import HTMX, element, live_address, marks, shown, state_of, text_of
from tests.web.rerun_support import cycles, finish, rerun


def buttons(page: Any, of: Rerun) -> list[str]:
    return re.findall(r'data-action="([\w-]+)"', element(page, f"rerun-{of.pk}"))


# --- the rows --------------------------------------------------------------------------------------


def test_the_navigation_leads_to_it(operator: Client) -> None:
    said = text_of(operator.get("/reruns/"))
    assert 'href="/reruns/" aria-current="page"' in said
    assert "There is no rerun yet." in said


def test_cycle_instances_lead_to_it_from_the_top_right(operator: Client) -> None:
    [head] = re.findall(r'<header class="page">.*?</header>', text_of(operator.get("/cycles/")), re.DOTALL)
    assert re.search(
        r'<a class="button" id="rerun-records" href="/reruns/">[^<]*(<svg.*?</svg>)?Rerun records', head
    )


def test_a_row_says_what_it_reruns_who_asked_why_and_how_far_it_is(desk: Desk, operator: Client) -> None:
    weather, flights, delays, scores = cycles(desk.team, "weather", "flights", "delays", "scores")
    of = rerun(weather, {"a:failed": flights, "b:waiting": delays, "c:frozen": scores}, reason="a wind spike")
    page = operator.get("/reruns/")
    row = element(page, f"rerun-{of.pk}")

    assert marks(page, "rerun") == [of.pk]
    assert state_of(page, f"rerun-{of.pk}") == "running"
    assert f'href="/cycles/{weather.pk}/">weather</a>' in row
    assert f"{weather.cycle_time:%Y-%m-%d %H:%M}</span> {desk.team.name}" in row
    assert ("mei" in row, "a wind spike" in row) == (True, True)
    assert 'aria-label="1 of 3 rerun, 1 failed, 1 waiting, 1 frozen"' in row
    assert "ends about" in row


def test_what_ended_says_when_and_how_long_it_took(desk: Desk, operator: Client) -> None:
    [weather] = cycles(desk.team, "weather")
    of = rerun(weather, state="terminated")
    row = element(operator.get("/reruns/"), f"rerun-{of.pk}")
    assert "took 10 min" in row


def test_a_rerun_is_shown_to_every_team_that_it_touches_and_to_nobody_else(
    desk: Desk, outsider: Client
) -> None:
    theirs = make.team("analytics")
    [weather] = cycles(desk.team, "weather")
    [delays] = cycles(theirs, "delays")
    touched = rerun(weather, {"a:waiting": delays})
    rerun(cycles(desk.team, "flights")[0])
    analyst = signed_in(make.user(team=theirs, role="viewer"))

    page = analyst.get("/reruns/")
    assert marks(page, "rerun") == [touched.pk]
    row = element(page, f"rerun-{touched.pk}")
    # The source is another team's: named, and no link.
    assert ("weather" in row, f"/cycles/{weather.pk}/" in row) == (True, False)
    assert marks(outsider.get("/reruns/"), "rerun") == []


def test_what_may_be_done_is_offered_in_each_state_to_those_who_may(desk: Desk, operator: Client) -> None:
    offered = {
        "running": ["pause", "terminate"],
        "paused": ["resume", "terminate"],
        "failed": ["resume", "terminate"],
        "terminating": [],
        "success": [],
        "terminated": [],
    }
    found = {
        state: rerun(each, state=state)
        for state, each in zip(offered, cycles(desk.team, *offered), strict=True)
    }
    page, seen = operator.get("/reruns/"), desk.sign_in("viewer").get("/reruns/")
    assert {state: buttons(page, of) for state, of in found.items()} == offered
    assert [buttons(seen, of) for of in found.values()] == [[]] * 6


def test_the_last_submitted_stands_first_and_older_ones_on_further_pages(desk: Desk, operator: Client) -> None:
    [weather] = cycles(desk.team, "weather")
    found = [rerun(weather, state="terminated") for _ in range(52)]
    for number, of in enumerate(found):
        Rerun.objects.filter(pk=of.pk).update(changed_at=timezone.now() - timedelta(minutes=number))
    first = operator.get("/reruns/")
    [older] = re.findall(r'rel="next" href="([^"]*)"', text_of(first))
    newest = [of.pk for of in Rerun.objects.order_by("-submitted_at", "-pk")]
    assert marks(first, "rerun") == newest[:50]
    assert marks(operator.get("/reruns/" + older.replace("&amp;", "&")), "rerun") == newest[50:]


def test_more_rows_take_no_more_queries(desk: Desk, operator: Client) -> None:
    first, *others = cycles(desk.team, *"abcdef")
    rerun(first)
    operator.get("/reruns/")
    with CaptureQueriesContext(connection) as one:
        operator.get("/reruns/")
    for each in others:
        rerun(each, {"x:waiting": first} if each is others[0] else None)
    with CaptureQueriesContext(connection) as six:
        operator.get("/reruns/")
    assert len(six) == len(one)


# --- narrowed --------------------------------------------------------------------------------------


def test_it_is_narrowed_by_state_team_person_workflow_and_time(desk: Desk) -> None:
    theirs = make.team("analytics")
    [weather, flights] = cycles(desk.team, "weather", "flights")
    [delays] = cycles(theirs, "delays")
    reader = make.user(team=desk.team)
    make.Membership.objects.create(team=theirs, user=reader, role="viewer")
    client = signed_in(reader)
    ours = rerun(flights, state="failed")
    across = rerun(weather, {"a:waiting": delays}, by=reader)
    old = rerun(flights, state="terminated")
    # Its record does not change: it is submitted long ago from the beginning.
    Rerun.objects.filter(pk=ours.pk).update(submitted_at=timezone.now() - timedelta(days=20))

    def found(query: str) -> list[int]:
        return marks(client.get(f"/reruns/?{query}"), "rerun")

    assert found("") == [old.pk, across.pk]
    assert found("window=30d") == [old.pk, across.pk, ours.pk]
    assert found("state=running") == [across.pk]
    assert found("state=running&state=failed&window=30d") == [across.pk, ours.pk]
    assert found("team=analytics") == [across.pk]
    assert found(f"team={desk.team.name}&window=30d") == [old.pk, across.pk, ours.pk]
    assert found(f"by={reader.username}") == [across.pk]
    assert found("workflow=delays") == [across.pk]
    assert found(f"workflow={flights.workflow_id}") == [old.pk]


def test_a_wrong_filter_says_so_and_shows_nothing(desk: Desk, operator: Client) -> None:
    rerun(cycles(desk.team, "weather")[0])
    page = operator.get("/reruns/?workflow=nothing-like-it")
    assert (page.status_code, marks(page, "rerun")) == (422, [])
    assert "There is no workflow nothing-like-it to see." in text_of(page)


def test_a_filter_is_kept_under_a_name_and_applied_when_it_is_the_default(desk: Desk, operator: Client) -> None:
    rerun(cycles(desk.team, "weather")[0])
    kept = {"page": "reruns", "query": "state=failed", "name": "what stands still"}
    operator.post("/saved-filters/", kept)
    [saved] = operator.user.saved_filters.all()  # type: ignore[attr-defined]
    assert (saved.page, saved.query) == ("reruns", "state=failed")


# --- live ------------------------------------------------------------------------------------------


def test_only_rows_that_changed_come_anew_and_new_ones_come_in(desk: Desk, operator: Client) -> None:
    weather, flights, delays = cycles(desk.team, "weather", "flights", "delays")
    goes, stays = rerun(weather), rerun(flights)
    page = operator.get("/reruns/")
    asked = live_address(page), shown(page)
    assert operator.get(asked[0], headers=asked[1]).status_code == 204

    finish(goes, "paused")
    came = rerun(delays)
    changes = operator.get(asked[0], headers=asked[1])
    assert f'<tr id="rerun-{goes.pk}" hx-swap-oob="true">' in text_of(changes)
    assert f'id="rerun-{stays.pk}"' not in text_of(changes)
    assert f'<tbody hx-swap-oob="afterbegin:#reruns"><tr id="rerun-{came.pk}">' in text_of(changes)


def test_a_page_on_which_all_has_ended_and_nothing_can_come_rests(desk: Desk, operator: Client) -> None:
    of = rerun(cycles(desk.team, "weather")[0], state="terminated")
    until = (timezone.now() - timedelta(minutes=1)).isoformat().replace("+00:00", "Z")
    address = f"window=range&until={until}"
    page = operator.get(f"/reruns/?{address}")
    assert marks(page, "rerun") == [of.pk]
    answer = operator.get(f"/reruns/changes/?{address}", headers=HTMX)
    assert (answer.status_code, "every" in text_of(answer)) == (286, False)
    assert operator.get("/reruns/changes/", headers=HTMX).status_code == 200


# --- drafts ----------------------------------------------------------------------------------------


def test_ones_own_drafts_stand_above_to_be_gone_on_with_or_discarded(desk: Desk, operator: Client) -> None:
    [weather, flights] = cycles(desk.team, "weather", "flights")
    mine = rerun(weather, state="draft", by=operator.user)  # type: ignore[attr-defined]
    rerun(flights, state="draft", by=make.user(team=desk.team))
    page = operator.get("/reruns/")
    said = text_of(page)
    assert marks(page, "rerun") == []
    assert re.findall(r'<li id="draft-(\d+)">', said) == [str(mine.pk)]
    assert f'href="/reruns/{mine.pk}/discard/"' in said


def test_a_draft_is_discarded_by_its_author_alone(desk: Desk, operator: Client) -> None:
    [weather] = cycles(desk.team, "weather")
    mine = rerun(weather, state="draft", by=operator.user)  # type: ignore[attr-defined]
    address = f"/reruns/{mine.pk}/discard/"
    assert desk.sign_in("owner").post(address).status_code == 404
    assert "with 1 instance that was chosen" in text_of(operator.get(address))
    assert operator.post(address).headers["Location"] == "/reruns/"
    assert not Rerun.objects.filter(pk=mine.pk).exists()


def test_what_was_submitted_is_not_discarded(desk: Desk, operator: Client) -> None:
    of = rerun(cycles(desk.team, "weather")[0])
    answer = operator.post(f"/reruns/{of.pk}/discard/")
    assert (answer.status_code, Rerun.objects.filter(pk=of.pk).exists()) == (409, True)


# --- found -----------------------------------------------------------------------------------------


def test_it_is_found_by_its_number_however_that_is_written(
    desk: Desk, operator: Client, outsider: Client
) -> None:
    of = rerun(cycles(desk.team, "weather")[0])
    for written in (f"R-{of.pk}", f"r{of.pk}", f"R{of.pk}"):
        assert operator.get("/find/", {"q": written}).headers["Location"] == f"/reruns/{of.pk}/"
    assert "Nothing that you may see" in text_of(outsider.get("/find/", {"q": f"R-{of.pk}"}))


# --- the overview ----------------------------------------------------------------------------------


def test_the_overview_shows_what_is_not_over_and_what_stands_still_first(desk: Desk, operator: Client) -> None:
    weather, flights, delays, scores = cycles(desk.team, "weather", "flights", "delays", "scores")
    stands = rerun(weather, {"a:failed": flights, "b:frozen": scores}, state="failed")
    runs = rerun(delays)
    rerun(flights, state="terminated")
    block = element(operator.get("/"), "reruns-active")
    assert re.findall(r'id="active-rerun-(\d+)"', block) == [str(stands.pk), str(runs.pk)]
    assert "1 instance did not succeed; 1 frozen until it is resumed or terminated" in block


def test_the_overview_is_silent_about_reruns_when_none_is_active(desk: Desk, operator: Client) -> None:
    rerun(cycles(desk.team, "weather")[0], state="terminated")
    assert element(operator.get("/"), "reruns-active") == '<section id="reruns-active"></section>'


# --- cycle pages -----------------------------------------------------------------------------------


def shown_as(item: RerunItem) -> str:
    """Where the record of its rerun shows an item, as an address stands in a page."""
    asked = urlencode({"view": "list", "name": item.name})
    return html.escape(f"/reruns/{item.rerun_id}/?{asked}#item-{item.pk}")


def test_a_cycle_says_which_rerun_made_it_and_in_which_it_was_chosen(desk: Desk, operator: Client) -> None:
    weather, flights = cycles(desk.team, "weather", "flights")
    of = rerun(weather, {"a:waiting": flights})
    source = of.items.get(is_source=True)
    waits = of.items.get(is_source=False)
    made = element(operator.get(f"/cycles/{source.instance_id}/"), f"cycle-{source.instance_id}")
    assert f'<dt>Made by rerun</dt><dd><a href="{shown_as(source)}">R-{of.pk}</a>' in made
    chosen = element(operator.get(f"/cycles/{weather.pk}/"), f"cycle-{weather.pk}")
    assert f"R-{of.pk} · rerun as {source.instance_id}" in chosen
    waiting = element(operator.get(f"/cycles/{flights.pk}/"), f"cycle-{flights.pk}")
    assert f'href="{shown_as(waits)}"' in waiting
    assert f"R-{of.pk} · waiting to rerun" in waiting


def test_what_leads_to_an_item_finds_it_however_many_there_are(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reruns.views.rerun.PAGE_SIZE", 1)
    weather, flights = cycles(desk.team, "weather", "flights")
    of = rerun(weather, {"a:waiting": flights})
    page = element(operator.get(f"/cycles/{flights.pk}/"), f"cycle-{flights.pk}")
    led = re.search(r'href="(/reruns/[^"]+)"', page)
    assert led is not None
    found = operator.get(html.unescape(led.group(1)))
    assert marks(found, "item") == [of.items.get(is_source=False).pk]


def test_a_draft_is_no_fact_of_a_cycle(desk: Desk, operator: Client) -> None:
    [weather] = cycles(desk.team, "weather")
    rerun(weather, state="draft")
    assert "Chosen in rerun" not in text_of(operator.get(f"/cycles/{weather.pk}/"))
