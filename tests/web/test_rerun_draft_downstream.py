"""Step 2: one selection in two views, ticked one by one and many at once."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from reruns import services, situation
from reruns.models import Rerun
from scheduling.models import Membership
from tests import factories as make
from tests.engine.rerun_support import at, cycle
from tests.web.conftest import Desk
from tests.web.draft_support import Downstream, address, chosen, seen, text_without_marks, ticked
from tests.web.pages import HTMX, marks, text_of
from workflows.models import CycleInstance


@pytest.fixture
def world(desk: Desk) -> Downstream:
    return Downstream(desk)


@pytest.fixture
def draft(world: Downstream, operator: Client) -> Rerun:
    return world.draft(operator, nodes=["check", "publish"])


def post(client: Client, draft: Rerun, page: Any, query: str = "", **asked: Any) -> Any:
    """What a page of step 2 sends by its script."""
    return client.post(address(draft, "downstream") + query, asked | seen(page), headers=HTMX)


def box(page: Any, instance: CycleInstance) -> str:
    """The box of an instance in the flow."""
    found = re.search(rf'<g class="node pickable[^>]*id="node-{instance.cycle_id}".*?</g>', text_of(page), re.S)
    assert found, f"no box of {instance}"
    return found.group()


def row(page: Any, instance: CycleInstance) -> str:
    found = re.search(rf'<tr id="cycle-{instance.pk}".*?</tr>', text_of(page), re.S)
    assert found, f"no row of {instance}"
    return found.group()


# --- what is shown -------------------------------------------------------------------------------------


def test_the_flow_shows_all_online_downstream_with_its_state_and_a_tick(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    page = operator.get(address(draft, "downstream"))
    assert 'data-state="success" data-ticked="false"' in box(page, world.daily)
    assert 'data-state="failed" data-ticked="true"' in box(page, world.hourly)
    assert 'aria-disabled="true"' in box(page, world.hourly)
    assert f'id="node-{world.by_hand.cycle_id}"' not in text_of(page)
    assert "1 instance downstream is offline or a test" in text_of(page)
    offline = operator.get(f"{address(draft, 'downstream')}?offline=1")
    assert "offline or a test" in box(offline, world.by_hand)


def test_the_list_says_what_becomes_of_each_and_why_it_cannot_be_ticked(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    page = operator.get(f"{address(draft, 'downstream')}?view=list")
    assert "will be rerun" in row(page, world.hourly)
    assert "stays as it is" in row(page, world.daily)
    assert "Switch on freeze mode to freeze it" in row(page, world.board)
    assert "Switch on freeze mode to terminate it" in row(page, world.scores)
    assert "You have no permission to rerun its tasks. Ask an owner of finance." in row(page, world.claims)
    assert 'type="checkbox"' not in row(page, world.claims)
    # Who may rerun one of its nodes can tick it, with that one.
    assert f'name="cycle" value="{world.costs.cycle_id}"' in row(page, world.costs)


def test_the_panel_counts_and_names_whom_to_ask(world: Downstream, draft: Rerun, operator: Client) -> None:
    said = text_without_marks(operator.get(address(draft, "downstream")))
    assert "Rerun 1 instance · 2 nodes" in said
    assert "2 instances have not ended; freeze mode admits them." in said
    assert "claims, costs : of 2 instances you may not rerun what belongs to team finance. Ask wang." in said


def test_what_another_rerun_holds_says_who_and_how_far_it_is(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    other = services.plan(world.report, by="lin", nodes=["a"])
    services.submit(other, by="lin", reason="in a hurry")
    page = operator.get(f"{address(draft, 'downstream')}?view=list")
    assert f"It is in rerun {other}, submitted by lin" in row(page, world.report)
    assert f'href="/reruns/{other.pk}/"' in row(page, world.report)
    assert "this rerun of lin, done to 0 %, holds 1 instance." in text_without_marks(page)


def test_of_a_rerun_that_stands_still_it_says_that_it_does_not_end_by_itself(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    other = services.plan(world.report, by="lin", nodes=["a"])
    services.submit(other, by="lin", reason="in a hurry")
    item = other.items.get()
    item.state, item.ended_at = "failed", timezone.now()
    item.save()
    Rerun.objects.filter(pk=other.pk).update(state="failed")
    page = operator.get(f"{address(draft, 'downstream')}?view=list")
    # Nothing of it has succeeded, and who waits for its end waits for ever.
    said = row(page, world.report)
    assert "done to 0 % and stands still (Failed). Resume that one, or terminate it." in said
    assert "Wait for its end" not in said
    assert "this rerun of lin stands still (Failed), done to 0 %, and holds 1 instance." in text_without_marks(
        page
    )


def test_cycle_times_are_in_the_time_zone_of_the_reader(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    in_shanghai = f"{world.daily.cycle_time + timedelta(hours=8):%Y-%m-%d %H:%M}"
    operator.cookies["zone"] = "Asia/Shanghai"
    page = operator.get(f"{address(draft, 'downstream')}?view=list")
    assert page.context["time_zone"] == "Asia/Shanghai"
    assert f'<span class="time">{in_shanghai}</span>' in row(page, world.daily)


def test_what_somebody_froze_says_so(world: Downstream, operator: Client) -> None:
    draft = world.draft(operator, freeze_mode=True)
    CycleInstance.objects.filter(pk=world.board.pk).update(
        frozen_at=world.hourly.ended_at, frozen_by="ann", frozen_reason="until noon"
    )
    page = operator.get(f"{address(draft, 'downstream')}?view=list")
    assert "It was frozen by ann" in row(page, world.board)


# --- ticks ---------------------------------------------------------------------------------------------


def test_a_tick_is_kept_and_answered_with_what_it_changed(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    page = operator.get(address(draft, "downstream"))
    answer = post(operator, draft, page, on=str(world.daily.cycle_id))
    assert chosen(draft) == {"hourly": ["check", "publish"], "daily": []}
    assert "2 instances · 4 nodes" in text_without_marks(answer)
    # Only its box is sent again, and the panel.
    assert re.findall(r'id="node-(\d+)"', text_of(answer)) == [str(world.daily.cycle_id)]
    assert 'data-ticked="true"' in box(answer, world.daily)

    answer = post(operator, draft, answer, off=str(world.daily.cycle_id))
    assert chosen(draft) == {"hourly": ["check", "publish"]}
    assert 'data-ticked="false"' in box(answer, world.daily)


def test_the_list_shows_the_same_selection(world: Downstream, draft: Rerun, operator: Client) -> None:
    listed = operator.get(f"{address(draft, 'downstream')}?view=list")
    answer = post(operator, draft, listed, "?view=list", on=f"{world.daily.cycle_id},{world.report.cycle_id}")
    # What waits for them waits for the rerun's result now, so that row is sent as well.
    assert set(marks(answer, "cycle")) == {world.daily.pk, world.report.pk, world.board.pk}
    assert "will be rerun" in row(answer, world.report)
    assert "waits for the result of the rerun" in row(answer, world.board)
    flow = operator.get(address(draft, "downstream"))
    assert 'data-ticked="true"' in box(flow, world.report)


def test_the_boxes_of_the_list_are_kept_without_a_script(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    services.choose(draft, [world.report.cycle_id], by=operator.user)  # type: ignore[attr-defined]
    page = operator.get(f"{address(draft, 'downstream')}?view=list")
    listed = re.search(r'name="listed" value="([^"]*)"', text_of(page))
    assert listed
    asked = {"keep": "1", "listed": listed.group(1), "cycle": [world.daily.cycle_id]}
    answer = operator.post(f"{address(draft, 'downstream')}?view=list", asked)
    assert (answer.status_code, answer["Location"]) == (302, f"{address(draft, 'downstream')}?view=list")
    assert chosen(draft) == {"hourly": ["check", "publish"], "daily": []}


@pytest.mark.parametrize("name", ["claims", "board", "by_hand"])
def test_what_cannot_be_ticked_is_refused_with_the_reason(
    world: Downstream, draft: Rerun, operator: Client, name: str
) -> None:
    page = operator.get(address(draft, "downstream"))
    answer = post(operator, draft, page, on=str(getattr(world, name).cycle_id))
    assert answer.status_code == 409
    assert f"{name} " in text_without_marks(answer)
    assert chosen(draft) == {"hourly": ["check", "publish"]}


@pytest.mark.parametrize(
    ("asked", "query", "then"),
    [
        ("all", "", {"daily", "report", "costs"}),
        ("failed", "", {"report"}),
        ("invert", "", {"daily", "costs"}),
        ("none", "", set()),
        ("all", "?state=failed", {"report"}),
        ("all", "?q=DAI", {"report", "daily"}),
        ("none", "?state=success", {"report"}),
        ("all", "?team=987654", {"report"}),
        ("all", "?ticked=no&state=success", {"report", "daily", "costs"}),
        ("nonsense", "", {"report"}),
    ],
)
def test_many_are_ticked_at_once_of_what_matches(
    world: Downstream, draft: Rerun, operator: Client, asked: str, query: str, then: set[str]
) -> None:
    services.choose(draft, [world.report.cycle_id], by=operator.user)  # type: ignore[attr-defined]
    page = operator.get(address(draft, "downstream") + query)
    assert post(operator, draft, page, query, tick=asked).status_code == 200
    assert chosen(draft).keys() - {"hourly"} == then


def test_one_is_ticked_with_all_downstream_of_it(world: Downstream, draft: Rerun, operator: Client) -> None:
    page = operator.get(address(draft, "downstream"))
    page = post(operator, draft, page, after=str(world.daily.cycle_id))
    assert chosen(draft).keys() == {"hourly", "daily", "report", "costs"}
    post(operator, draft, page, not_after=str(world.daily.cycle_id))
    assert chosen(draft).keys() == {"hourly"}


def test_what_is_said_of_many_in_an_old_window_is_not_done(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    old = operator.get(address(draft, "downstream"))
    post(operator, draft, old, on=str(world.daily.cycle_id))
    answer = post(operator, draft, old, tick="invert")
    assert answer.status_code == 409
    assert "changed in another window" in text_of(answer)
    assert chosen(draft).keys() == {"hourly", "daily"}
    # It shows what is ticked by now, and a tick of one is done as ever.
    assert 'data-ticked="true"' in box(answer, world.daily)
    post(operator, draft, old, on=str(world.report.cycle_id))
    assert chosen(draft).keys() == {"hourly", "daily", "report"}


# --- freeze mode ---------------------------------------------------------------------------------------


def test_freeze_mode_admits_the_rest_and_says_each_effect(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    page = operator.get(f"{address(draft, 'downstream')}?view=list")
    page = post(operator, draft, page, "?view=list", freeze_mode="on")
    page = post(operator, draft, page, "?view=list", tick="all")
    assert chosen(draft).keys() == {"hourly", "daily", "report", "board", "scores", "costs"}
    assert "will be frozen until the rerun succeeded" in row(page, world.board)
    assert "will be terminated, then rerun" in row(page, world.scores)
    said = text_without_marks(page)
    assert "Terminated first 1 ready or running" in said
    assert "Frozen until success 1 not ready" in said

    page = post(operator, draft, page, "?view=list", freeze_mode="off")
    assert "Without freeze mode 2 instances are not ticked any more: board" in text_without_marks(page)
    assert chosen(draft).keys() == {"hourly", "daily", "report", "costs"}


def test_what_freeze_mode_lets_go_is_said_in_the_order_of_the_cycles(desk: Desk, operator: Client) -> None:
    # A set of numbers gives a power of two before those below it.
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval(pg_get_serial_sequence('workflows_cycle', 'id'), %s)", [2**20 - 5])
    world = Downstream(desk)
    draft = world.draft(operator, world.daily, freeze_mode=True)
    page = post(operator, draft, operator.get(f"{address(draft, 'downstream')}?view=list"), tick="all")
    page = post(operator, draft, page, freeze_mode="off")
    assert world.board.cycle_id == 2**20 - 1
    assert "2 instances are not ticked any more: board" in text_without_marks(page)


def test_freeze_mode_stays_on_while_the_source_needs_it(world: Downstream, operator: Client) -> None:
    user: Any = operator.user  # type: ignore[attr-defined]
    draft = services.plan(world.scores, freeze_mode=True, by=user)
    answer = post(operator, draft, operator.get(address(draft, "downstream")), freeze_mode="off")
    assert answer.status_code == 409
    draft.refresh_from_db()
    assert draft.freeze_mode


# --- the choice of nodes -------------------------------------------------------------------------------


def nodes(draft: Rerun, instance: CycleInstance) -> str:
    return f"/reruns/{draft.pk}/nodes/{instance.cycle_id}/"


def test_the_count_of_nodes_opens_their_choice(world: Downstream, draft: Rerun, operator: Client) -> None:
    page = operator.get(address(draft, "downstream"))
    assert f'href="{nodes(draft, world.daily)}" hx-get="{nodes(draft, world.daily)}"' in text_of(page)
    dialog = operator.get(nodes(draft, world.daily), headers=HTMX)
    assert "<dialog" in text_of(dialog)
    assert ticked(dialog) == ["extract", "join"]
    answer = operator.post(nodes(draft, world.daily), {"node": "join"} | seen(dialog), headers=HTMX)
    assert "picked" in answer["HX-Trigger-After-Settle"]
    # To choose its nodes is to choose it.
    assert chosen(draft) == {"hourly": ["check", "publish"], "daily": ["join"]}
    answer = post(operator, draft, page, look="1")
    assert "1 of 2 nodes" in text_of(answer)


def test_no_node_at_all_is_refused(world: Downstream, draft: Rerun, operator: Client) -> None:
    page = operator.get(nodes(draft, world.daily))
    answer = operator.post(nodes(draft, world.daily), seen(page))
    assert answer.status_code == 409
    assert "choose at least one to rerun" in text_of(answer)
    assert chosen(draft).keys() == {"hourly"}


def test_nodes_without_permission_cannot_be_ticked_there_either(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    page = operator.get(nodes(draft, world.costs))
    assert '<input type="checkbox" name="node" value="reckon" disabled>' in text_of(page)
    assert ticked(page) == ["book"]
    operator.post(nodes(draft, world.costs), {"node": ["reckon", "book"]} | seen(page))
    assert chosen(draft)["costs"] == ["book"]


def test_what_is_frozen_is_frozen_whole_and_what_cannot_be_ticked_is_only_shown(
    world: Downstream, operator: Client
) -> None:
    draft = world.draft(operator, freeze_mode=True)
    assert "It is frozen as a whole" in text_of(operator.get(nodes(draft, world.board)))
    page = operator.get(nodes(draft, world.claims))
    assert "Ask an owner of finance" in text_of(page)
    assert 'class="primary"' not in text_of(page)


def test_an_old_dialog_changes_nothing(world: Downstream, draft: Rerun, operator: Client) -> None:
    old = operator.get(nodes(draft, world.daily), headers=HTMX)
    post(operator, draft, operator.get(address(draft, "downstream")), on=str(world.report.cycle_id))
    answer = operator.post(nodes(draft, world.daily), {"node": "join"} | seen(old), headers=HTMX)
    assert (answer.status_code, "daily" in chosen(draft)) == (409, False)


def test_only_what_is_downstream_has_a_choice(world: Downstream, draft: Rerun, operator: Client) -> None:
    elsewhere = cycle(make.workflow(group=world.desk.group), at(1))
    assert operator.get(nodes(draft, elsewhere)).status_code == 404


# --- however many there are ----------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["flow", "list"])
def test_the_page_asks_no_more_the_more_there_is(world: Downstream, operator: Client, view: str) -> None:
    draft = world.draft(operator)
    few = queries(operator, draft, view)
    for number in range(30):
        workflow = make.workflow(f"more_{number}", group=world.desk.group)
        cycle(workflow, at(2), after=[world.daily])
    assert queries(operator, draft, view) == few


def queries(client: Client, draft: Rerun, view: str) -> int:
    with CaptureQueriesContext(connection) as asked:
        assert client.get(f"{address(draft, 'downstream')}?view={view}").status_code == 200
    return len(asked)


def test_the_list_comes_in_pages(world: Downstream, operator: Client) -> None:
    workflow = make.workflow("many", group=world.desk.group)
    for hour in range(120):
        cycle(workflow, at(hour, day=-9), after=[world.daily])
    draft = world.draft(operator)
    page = operator.get(f"{address(draft, 'downstream')}?view=list&state=success")
    assert len(marks(page, "cycle")) == 100
    assert "1 to 100 of 123" in text_of(page)
    second = operator.get(f"{address(draft, 'downstream')}?view=list&state=success&page=2")
    assert len(marks(second, "cycle")) == 23
    # What is done to many is done to all that match, not to the page alone.
    post(operator, draft, page, "?view=list&state=success", tick="all")
    assert draft.items.count() == 1 + 122


def test_a_large_flow_is_folded_and_a_group_is_ticked_whole(world: Downstream, operator: Client) -> None:
    workflow = make.workflow("fan", group=world.desk.group)
    fan = [cycle(workflow, at(hour, day=-3), after=[world.daily]) for hour in range(30)]
    draft = world.draft(operator)
    page = operator.get(address(draft, "downstream"))
    values = re.findall(r'data-pick="([\d,]*,[\d,]*)"', text_of(page))
    # With what looks the same and may be ticked; `claims` is in the group too and may not.
    assert [set(map(int, each.split(","))) for each in values] == [{it.cycle_id for it in [*fan, world.costs]}]
    assert "0 of 32 ticked" in text_of(page)
    page = post(operator, draft, page, on=values[0])
    assert "31 of 32 ticked" in text_of(page)
    assert 'data-ticked="true"' in text_of(page)
    page = post(operator, draft, page, off=str(fan[0].cycle_id))
    assert 'data-ticked="mixed"' in text_of(page)


# --- submitted meanwhile -------------------------------------------------------------------------------


def test_what_was_submitted_in_another_window_is_not_changed_any_more(
    world: Downstream, draft: Rerun, operator: Client
) -> None:
    page = operator.get(address(draft, "downstream"))
    services.submit(draft, by=operator.user, reason="now")  # type: ignore[attr-defined]
    answer = post(operator, draft, page, on=str(world.daily.cycle_id))
    assert answer.status_code == 409
    assert "has been submitted already" in text_of(answer)
    assert f'href="/reruns/{draft.pk}/"' in text_of(answer)
    page = operator.post(address(draft, "plan"), {"reason": "once more"} | seen(page))
    assert page.status_code == 409
    assert f'href="/reruns/{draft.pk}/">The record of {draft}</a>' in text_of(page)
    assert operator.get(address(draft, "downstream"))["Location"] == f"/reruns/{draft.pk}/"


@pytest.mark.parametrize("view", ["list", "flow"])
def test_what_is_ticked_and_cannot_be_done_any_more_is_unticked_by_itself(
    world: Downstream, operator: Client, view: str
) -> None:
    draft = world.draft(operator, world.daily, world.report)
    other = services.plan(world.report, by="lin", nodes=["a"])
    services.submit(other, by="lin", reason="in a hurry")
    page = operator.get(f"{address(draft, 'downstream')}?view={view}")
    assert "is ticked cannot be done any more" in text_without_marks(page)
    if view == "list":
        assert f'id="tick-{world.report.cycle_id}"' in row(page, world.report)
    else:
        assert 'data-ticked="true"' in box(page, world.report)
        assert "aria-disabled" not in box(page, world.report)
    answer = post(operator, draft, page, f"?view={view}", off=str(world.report.cycle_id))
    assert "report" not in chosen(draft)
    shown = row(answer, world.report) if view == "list" else box(answer, world.report)
    assert "checkbox" not in shown if view == "list" else 'aria-disabled="true"' in shown


def test_a_right_that_was_taken_away_is_seen_at_once(world: Downstream, draft: Rerun, operator: Client) -> None:
    page = operator.get(address(draft, "downstream"))
    page = post(operator, draft, page, on=str(world.daily.cycle_id))
    Membership.objects.filter(user=operator.user).update(role="viewer")  # type: ignore[attr-defined]
    page = operator.get(address(draft, "downstream"))
    assert "2 instances that are ticked cannot be done any more" in text_without_marks(page)


@pytest.mark.parametrize(
    "asked",
    [
        lambda world: {"on": world.daily.cycle_id},
        lambda world: {"off": world.daily.cycle_id},
        lambda world: {"after": world.daily.cycle_id},
        lambda _world: {"tick": "all"},
        lambda _world: {"tick": "invert"},
        lambda _world: {"freeze_mode": "on"},
        lambda _world: {"look": "1"},
    ],
    ids=["on", "off", "after", "all", "invert", "freeze mode", "look"],
)
def test_a_tick_computes_the_plan_once(
    world: Downstream, operator: Client, monkeypatch: pytest.MonkeyPatch, asked: Any
) -> None:
    draft = world.draft(operator, world.report)
    page = operator.get(address(draft, "downstream"))
    computed = []

    def counted(*given: Any, **named: Any) -> Any:
        computed.append(given)
        return situation.situation_of(*given, **named)

    monkeypatch.setattr("reruns.plans.situation_of", counted)
    monkeypatch.setattr("reruns.services.drafts.situation_of", counted)
    answer = operator.post(address(draft, "downstream"), seen(page) | asked(world), headers=HTMX)
    assert answer.status_code == 200
    assert len(computed) == 1
