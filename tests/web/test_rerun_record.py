"""The record of one rerun: what it says, what holds it up, its list and its flow, and what of it changes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from reruns.forecast import _reckoned
from reruns.models import Rerun, RerunEdge, RerunItem
from reruns.record_queries import shape_named
from reruns.views.rows import in_short
from tests import factories as make
from tests.web.conftest import Desk, signed_in
from tests.web.pages import HTMX, element, live_address, marks, shown, state_of, text_of
from tests.web.rerun_support import cycles, finish, item, rerun
from tests.web.test_cycle_list import come, daily
from workflows import services as workflow_services


def of_item(of: Rerun, name: str) -> RerunItem:
    return of.items.get(name__startswith=name)


def row(page: Any, of: Rerun, name: str) -> str:
    return element(page, f"item-{of_item(of, name).pk}")


def section(page: Any, mark: str) -> str:
    return element(page, mark)


@pytest.fixture
def poisoned(desk: Desk) -> Rerun:
    """weather succeeded, flights failed, delays waits for it, scores is frozen."""
    weather, flights, delays, scores = cycles(desk.team, "weather", "flights", "delays", "scores")
    return rerun(weather, {"a:failed": flights, "b:waiting": delays, "c:frozen": scores})


# --- what it says ----------------------------------------------------------------------------------


def test_the_head_says_what_is_rerun_by_whom_and_why_and_how_far_it_is(
    poisoned: Rerun, operator: Client
) -> None:
    page = operator.get(f"/reruns/{poisoned.pk}/")
    head, progress = element(page, f"rerun-{poisoned.pk}"), section(page, "progress")
    assert state_of(page, f"rerun-{poisoned.pk}") == "running"
    assert f'href="/cycles/{poisoned.source_id}/"' in head
    assert re.search(r"“the sensor was wrong” <span[^>]*>by mei, ", head)
    assert "<b>1 of 3 rerun</b>" in progress
    assert "wave 3 of 3" in progress
    assert 'aria-label="1 of 3 rerun, 1 failed, 1 waiting, 1 frozen"' in progress


def test_settings_are_said(poisoned: Rerun, operator: Client) -> None:
    said = text_of(operator.get(f"/reruns/{poisoned.pk}/"))
    for label, value in {
        "Content": "as it ran",
        "Instances at once": "any number",
        "When an instance fails": "Go on with the other branches",
    }.items():
        assert re.search(rf"<dt>{label}</dt><dd>{value}", said), label


def test_what_waits_has_its_label_and_the_old_instance_what_runs_has_the_new_one(
    desk: Desk, operator: Client
) -> None:
    weather, flights, delays, scores = cycles(desk.team, "weather", "flights", "delays", "scores")
    of = rerun(weather, {"a:running": flights, "b:waiting": delays, "c:frozen": scores})
    page = operator.get(f"/reruns/{of.pk}/")
    made = of_item(of, "flights").instance

    assert made is not None
    assert state_of(page, f"item-{of_item(of, 'flights').pk}") == "running"
    assert f'href="/cycles/{made.pk}/">{made.pk}</a>' in row(page, of, "flights")
    assert str(flights.pk) not in re.findall(r'class="id"[^>]*>(\d+)<', row(page, of, "flights"))
    for name, label, instance in (
        ("delays", "waiting_to_rerun", delays),
        ("scores", "waiting_to_unfreeze", scores),
    ):
        assert state_of(page, f"item-{of_item(of, name).pk}") == label
        assert f'href="/cycles/{instance.pk}/">{instance.pk}</a>' in row(page, of, name)
    assert "Waiting to rerun" in row(page, of, "delays")
    assert "now success" in row(page, of, "delays")


def test_the_labels_are_the_terms_of_the_field(poisoned: Rerun, desk: Desk) -> None:
    page = desk.sign_in().get(f"/reruns/{poisoned.pk}/", HTTP_ACCEPT_LANGUAGE="zh-CN")
    assert "待重跑" in row(page, poisoned, "delays")
    assert "待解冻" in row(page, poisoned, "scores")
    for term in ("重跑下游记录", "流程视图", "列表视图", "暂停…", "终止…", "冻结模式"):
        assert term in text_of(page), term


def test_the_label_vanishes_when_it_unfreezes(poisoned: Rerun, operator: Client) -> None:
    frozen = of_item(poisoned, "scores")
    RerunItem.objects.filter(pk=frozen.pk).update(state="unfrozen", ended_at=poisoned.submitted_at)
    page = operator.get(f"/reruns/{poisoned.pk}/")
    assert state_of(page, f"item-{frozen.pk}") == frozen.original.state


def test_a_row_says_which_nodes_run_and_what_it_waits_for(poisoned: Rerun, operator: Client) -> None:
    waits, failed = of_item(poisoned, "delays"), of_item(poisoned, "flights")
    RerunItem.objects.filter(pk=waits.pk).update(nodes=["b"])
    said = row(operator.get(f"/reruns/{poisoned.pk}/"), poisoned, "delays")
    assert '<span title="b">1 of 2</span>' in said
    assert f'#item-{failed.pk}">{in_short(failed.name)}</a>' in said


def test_of_many_upstreams_a_row_names_those_that_failed_first_and_counts_the_others(
    desk: Desk, operator: Client
) -> None:
    *before, last = cycles(desk.team, "a", "b", "c", "d", "e", "last")
    of = rerun(before[0])
    ups = [of.items.get(), *(item(of, each, "waiting", wave=2) for each in before[1:-1])]
    ups.append(item(of, before[-1], "failed", wave=3))
    waits = item(of, last, "waiting", wave=4)
    for each in ups:
        RerunEdge.objects.create(item=waits, upstream=each)
    said = row(operator.get(f"/reruns/{of.pk}/"), of, "last")
    assert re.findall(r">([a-e]) \d\d-", said)[0] == "e"
    assert "and 2 more" in said


def test_items_of_teams_that_one_does_not_see_are_named_and_not_linked(desk: Desk) -> None:
    theirs = make.team("analytics")
    [weather] = cycles(desk.team, "weather")
    [delays] = cycles(theirs, "delays")
    of = rerun(weather, {"a:waiting": delays})
    page = signed_in(make.user(team=theirs, role="viewer")).get(f"/reruns/{of.pk}/")
    assert "weather" in row(page, of, "weather")
    assert 'href="/cycles/' not in row(page, of, "weather")
    assert f'href="/cycles/{delays.pk}/"' in row(page, of, "delays")


def test_it_is_not_there_for_teams_that_it_does_not_touch(poisoned: Rerun, outsider: Client) -> None:
    for page in ("", "changes/", "pause/", "take-out/"):
        assert outsider.get(f"/reruns/{poisoned.pk}/{page}").status_code == 404


def test_a_draft_leads_to_the_step_at_which_it_was_left(desk: Desk, operator: Client) -> None:
    of = rerun(cycles(desk.team, "weather")[0], state="draft", by=operator.user)  # type: ignore[attr-defined]
    assert operator.get(f"/reruns/{of.pk}/").status_code == 302


# --- what holds it up ------------------------------------------------------------------------------


def test_the_note_says_what_failed_who_waits_for_it_and_what_can_be_done(
    poisoned: Rerun, operator: Client
) -> None:
    note = section(operator.get(f"/reruns/{poisoned.pk}/"), "holdups")
    failed = of_item(poisoned, "flights")
    assert f'href="/cycles/{failed.instance_id}/"' in note
    assert "1 instance waits for it" in note
    assert "1 instance stays frozen until all of it has succeeded" in note
    assert re.findall(r'data-action="([\w-]+)"', note) == ["mark-success", "rerun"]
    for way in (f"/reruns/{poisoned.pk}/terminate/", "?view=list&amp;state=waiting"):
        assert f'href="{way}"' in note


def test_a_failed_rerun_is_to_be_resumed_and_a_viewer_is_offered_nothing(poisoned: Rerun, desk: Desk) -> None:
    finish(poisoned, "failed")
    note = section(desk.sign_in().get(f"/reruns/{poisoned.pk}/"), "holdups")
    assert f'href="/reruns/{poisoned.pk}/resume/"' in note
    assert "Nothing more of it can run until somebody steps in." in note
    viewed = section(desk.sign_in("viewer").get(f"/reruns/{poisoned.pk}/"), "holdups")
    assert (viewed.count("data-action"), "/resume/" in viewed, "1 instance waits for it" in viewed) == (
        0,
        False,
        True,
    )


def test_a_rerun_that_goes_well_has_no_note(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    weather, flights, scores = cycles(desk.team, "weather", "flights", "scores")
    of = rerun(weather, {"a:running": flights, "b:frozen": scores})
    monkeypatch.setattr("reruns.views.holdups.lead.is_led", lambda: True)
    assert section(operator.get(f"/reruns/{of.pk}/"), "holdups").endswith('aria-live="polite"></section>')


def test_without_a_scheduler_it_says_why_nothing_goes_on(poisoned: Rerun, operator: Client) -> None:
    assert "No scheduler leads" in section(operator.get(f"/reruns/{poisoned.pk}/"), "holdups")


# --- the list narrowed -----------------------------------------------------------------------------


def test_its_list_is_narrowed_by_state_team_workflow_and_name(poisoned: Rerun, operator: Client) -> None:
    def found(query: str) -> list[str]:
        page = operator.get(f"/reruns/{poisoned.pk}/?view=list&{query}")
        names = dict(poisoned.items.values_list("pk", "name"))
        return [names[pk].split()[0] for pk in marks(page, "item")]

    assert found("") == ["weather", "flights", "delays", "scores"]
    assert found("state=waiting&state=frozen") == ["delays", "scores"]
    assert found("name=flig") == ["flights"]
    assert found(f"team={poisoned.team_id}&state=failed") == ["flights"]
    assert found(f"workflow={of_item(poisoned, 'delays').workflow_id}") == ["delays"]
    assert operator.get(f"/reruns/{poisoned.pk}/?view=list&state=nonsense").status_code == 422


def test_more_items_take_no_more_queries(desk: Desk, operator: Client) -> None:
    first, *others = cycles(desk.team, *"abcdefg")
    of = rerun(first)
    few = item(of, others[0], "waiting", wave=2, after=of.items.get())
    # When it ends is reckoned once as long as nothing happens.
    _reckoned.cache_clear()
    with CaptureQueriesContext(connection) as two:
        operator.get(f"/reruns/{of.pk}/?view=list")
    for each in others[1:]:
        item(of, each, "waiting", wave=2, after=few)
    shape_named.cache_clear()
    with CaptureQueriesContext(connection) as seven:
        page = operator.get(f"/reruns/{of.pk}/?view=list")
    assert (len(marks(page, "item")), len(seven)) == (7, len(two))


# --- the flow --------------------------------------------------------------------------------------


def test_the_flow_draws_each_item_in_its_state_and_who_waits_for_whom(
    poisoned: Rerun, operator: Client
) -> None:
    said = text_of(operator.get(f"/reruns/{poisoned.pk}/?view=flow"))
    drawn = dict(re.findall(r'id="node-i(\d+)" data-state="(\w+)"', said))
    assert {
        of_item(poisoned, name).pk: state
        for name, state in {
            "weather": "success",
            "flights": "failed",
            "delays": "waiting_to_rerun",
            "scores": "waiting_to_unfreeze",
        }.items()
    } == {int(pk): state for pk, state in drawn.items()}
    edge = (of_item(poisoned, "flights").pk, of_item(poisoned, "delays").pk)
    assert f'data-from="i{edge[0]}" data-to="i{edge[1]}"' in said


def test_a_box_says_which_cycle_it_is_in_full_however_long_the_name_of_the_workflow(
    desk: Desk, operator: Client
) -> None:
    [source] = cycles(desk.team, "quality_of_stations_by_hour")
    of = rerun(source)
    [only] = of.items.all()
    said = text_of(operator.get(f"/reruns/{of.pk}/?view=flow"))
    drawn = re.search(rf'id="node-i{only.pk}".*?</a>', said, re.S)
    assert drawn is not None
    assert f" {source.cycle_time:%m-%d %H:%M}</text>" in drawn.group()
    # Otherwise the middle of it would have been cut.
    assert "…" in drawn.group()


def test_a_box_that_changed_comes_alone(poisoned: Rerun, operator: Client) -> None:
    page = operator.get(f"/reruns/{poisoned.pk}/?view=flow")
    failed, waits = of_item(poisoned, "flights"), of_item(poisoned, "delays")
    RerunItem.objects.filter(pk=failed.pk).update(state="success")
    changes = text_of(operator.get(live_address(page), headers=shown(page)))
    assert f'id="node-i{failed.pk}" data-state="success"' in changes
    assert f'id="node-i{waits.pk}"' not in changes


def test_a_flow_whose_workflows_wait_for_each_other_has_a_box_for_each_wave(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reruns.views.rerun_flow.ONE_BY_ONE", 3)
    weather, flights = cycles(desk.team, "weather", "flights")
    of = rerun(weather)
    [first] = of.items.all()
    second = item(of, flights, "waiting", wave=2, after=first)
    for wave, (workflow, after) in enumerate([(weather, second), (flights, first), (weather, first)], start=3):
        item(of, make.cycle(workflow.workflow), "waiting", wave=min(wave, 4), after=after)
    drawn = text_of(operator.get(f"/reruns/{of.pk}/?view=flow"))
    assert re.findall(r'data-title="(2 × wave 4)"', drawn) == ["2 × wave 4"]
    assert 'href="?view=list&amp;wave=4"' in drawn
    assert len(marks(operator.get(f"/reruns/{of.pk}/?view=list&wave=4"), "item")) == 2


def test_a_large_flow_has_a_box_for_each_workflow_that_is_opened(
    poisoned: Rerun, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reruns.views.rerun_flow.ONE_BY_ONE", 4)
    flights = of_item(poisoned, "flights")
    again = make.cycle(flights.workflow)
    item(poisoned, again, "waiting", wave=flights.wave)
    drawn = text_of(operator.get(f"/reruns/{poisoned.pk}/?view=flow"))
    assert 'data-title="2 × flights"' in drawn
    assert f"open={flights.workflow_id}" in drawn
    opened = text_of(operator.get(f"/reruns/{poisoned.pk}/?view=flow&open={flights.workflow_id}"))
    assert f'id="node-i{flights.pk}"' in opened


# --- live, and at rest -----------------------------------------------------------------------------


def test_only_rows_that_changed_come_anew_with_the_head_and_the_bar(desk: Desk, operator: Client) -> None:
    weather, flights, delays = cycles(desk.team, "weather", "flights", "delays")
    of = rerun(weather, {"a:running": flights, "b:waiting": delays})
    page = operator.get(f"/reruns/{of.pk}/")
    asked = live_address(page), shown(page)
    assert operator.get(asked[0], headers=asked[1]).status_code == 204

    runs = of_item(of, "flights")
    assert runs.instance is not None
    for key in ("a", "b"):
        make.end_node(runs.instance, key)
    RerunItem.objects.filter(pk=runs.pk).update(state="success", ended_at=runs.started_at)
    changes = text_of(operator.get(asked[0], headers=asked[1]))
    assert f'<tr id="item-{runs.pk}" hx-swap-oob="true">' in changes
    assert f'id="item-{of_item(of, "weather").pk}"' not in changes
    assert "<b>2 of 3 rerun</b>" in changes


def test_the_record_of_what_ended_does_not_change_and_cycle_pages_do(desk: Desk, operator: Client) -> None:
    weather, scores = cycles(desk.team, "weather", "scores")
    of = rerun(weather, {"a:unfrozen": scores})
    RerunItem.objects.filter(rerun=of, is_source=False).update(shown_state="not_ready")
    Rerun.objects.filter(pk=of.pk).update(state="success", ended_at=of.submitted_at)
    page = operator.get(f"/reruns/{of.pk}/")
    # Today it is a success; then it was not ready.
    assert state_of(page, f"item-{of_item(of, 'scores').pk}") == "not_ready"
    assert state_of(operator.get(f"/cycles/{scores.pk}/"), f"cycle-{scores.pk}") == "success"
    assert "This is the record of what happened then." in text_of(page)
    assert "every" not in re.findall(r'id="live".*?>', text_of(page))[0]
    assert operator.get(f"/reruns/{of.pk}/changes/", headers=HTMX).status_code == 286


def test_an_instance_that_retention_removed_is_named_and_not_linked(poisoned: Rerun, operator: Client) -> None:
    waits = of_item(poisoned, "delays")
    RerunItem.objects.filter(pk=waits.pk).update(original=987_654_321)
    said = row(operator.get(f"/reruns/{poisoned.pk}/"), poisoned, "delays")
    assert '<span class="id plain">987654321</span>' in said


def test_a_frozen_cycle_says_by_which_rerun_and_cannot_be_unfrozen_by_hand(
    desk: Desk, operator: Client
) -> None:
    [instance, *_] = come(daily(desk))
    of = rerun(cycles(desk.team, "weather")[0])
    workflow_services.freeze(instance, by="mei", reason="it is being repaired", holder=of.holder)
    listed = element(operator.get("/cycles/"), f"cycle-{instance.pk}")
    assert f'href="/reruns/{of.pk}/">R-{of.pk}</a>' in listed
    assert f"Kept frozen by rerun R-{of.pk}" in listed
    assert 'data-action="unfreeze"' not in listed
    page = operator.get(f"/cycles/{instance.pk}/")
    assert f'href="/reruns/{of.pk}/"' in section(page, "why")
    assert 'data-action="unfreeze"' not in text_of(page)
