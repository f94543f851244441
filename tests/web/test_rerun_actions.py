"""What is done to a rerun on its pages: each verb says first what it will do, does it, or is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from reruns import services
from reruns.models import Rerun, RerunItem
from scheduling.models import JournalEntry
from tests import factories as make
from tests.engine.rerun_support import cycle
from tests.web.conftest import Desk
from tests.web.pages import HTMX, element, live_address, shown, state_of, text_of
from workflows import services as workflow_services
from workflows.models import CycleInstance

CHAIN = ("weather", "flights", "delays")


@pytest.fixture
def cycles(desk: Desk) -> dict[str, CycleInstance]:
    """weather > flights > delays have succeeded; scores, which waits for delays, is not ready."""
    found: dict[str, CycleInstance] = {}
    before: list[CycleInstance] = []
    for name in (*CHAIN, "scores"):
        workflow = make.workflow(name, group=desk.group, nodes="a")
        found[name] = cycle(workflow, state="success" if name in CHAIN else "not_ready", after=before)
        before = [found[name]]
    return found


@pytest.fixture
def running(cycles: dict[str, CycleInstance], operator: Client) -> Rerun:
    """Downstream of weather, which runs again; flights and delays wait, scores is frozen."""
    who = operator.user  # type: ignore[attr-defined]
    draft = services.plan(cycles["weather"], downstream="all", freeze_mode=True, by=who)
    services.submit(draft, by=who, reason="the sensor was wrong")
    return go_on(draft)


def go_on(of: Rerun) -> Rerun:
    """What the scheduler does."""
    services.advance(of.pk)
    of.refresh_from_db()
    return of


def items(of: Rerun) -> dict[str, str]:
    return {name.split()[0]: state for name, state in of.items.values_list("name", "state")}


def of_item(of: Rerun, name: str) -> RerunItem:
    return of.items.select_related("instance__workflow").get(name__startswith=name)


def end(of: Rerun, name: str, outcome: str = "success") -> Rerun:
    """The instance of an item ends, and the rerun goes on."""
    instance = of_item(of, name).instance
    assert instance is not None
    make.end_node(instance, "a", outcome)
    return go_on(of)


def act(client: Client, of: Rerun, verb: str, **more: Any) -> Any:
    return client.post(f"/reruns/{of.pk}/{verb}/", {"reason": "to look first"} | more)


def effects(page: Any) -> list[str]:
    [listed] = re.findall(r'<ul class="effects">(.*?)</ul>', text_of(page), re.DOTALL)
    return re.findall(r"<li>(.*?)</li>", listed)


# --- pause and resume ------------------------------------------------------------------------------


def test_pausing_says_what_waits_and_what_goes_on_and_pauses(running: Rerun, operator: Client) -> None:
    asked = operator.get(f"/reruns/{running.pk}/pause/")
    assert effects(asked) == [
        "2 instances that wait to rerun are not generated until the rerun is resumed.",
        "1 instance that runs goes on.",
        "1 instance stays frozen.",
    ]
    assert act(operator, running, "pause").headers["Location"] == f"/reruns/{running.pk}/"
    end(running, "weather")
    assert (running.state, items(running)["flights"]) == ("paused", "waiting")
    note = element(operator.get(f"/reruns/{running.pk}/"), "holdups")
    assert "(to look first): nothing more is generated until it is resumed." in note


def test_resuming_says_what_follows_and_what_is_not_run_again(running: Rerun, operator: Client) -> None:
    end(running, "weather")
    act(operator, running, "pause")
    end(running, "flights", "failed")
    assert effects(operator.get(f"/reruns/{running.pk}/resume/")) == [
        "1 instance that did not succeed is rerun: its nodes that did not, and what follows them.",
        "1 instance that waits to rerun follows when its upstream has succeeded.",
        "1 instance that succeeded does not run again.",
        "1 instance stays frozen.",
        "From now on your permissions count for what it runs.",
    ]
    act(operator, running, "resume")
    assert items(go_on(running)) == {
        "weather": "success",
        "flights": "running",
        "delays": "waiting",
        "scores": "frozen",
    }


def test_a_reason_has_to_be_given(running: Rerun, operator: Client) -> None:
    answer = act(operator, running, "pause", reason="")
    running.refresh_from_db()
    assert (answer.status_code, running.state) == (422, "running")
    assert "Say why" in text_of(answer)


def test_the_journal_says_who_did_what_and_why(running: Rerun, operator: Client) -> None:
    act(operator, running, "pause", reason="until noon")
    entry = JournalEntry.objects.get(object_type="rerun", object_id=running.pk, action="paused")
    who = operator.user  # type: ignore[attr-defined]
    assert (entry.actor, entry.reason, entry.via) == (who.username, "until noon", "web")
    journal = element(operator.get(f"/reruns/{running.pk}/"), "journal")
    assert "Paused" in journal
    assert "until noon" in journal
    assert f'href="/reruns/{running.pk}/"' in text_of(operator.get("/journal/"))


# --- terminate -------------------------------------------------------------------------------------


def test_terminating_says_what_stops_what_is_cancelled_and_what_unfreezes(
    running: Rerun, operator: Client
) -> None:
    weather = of_item(running, "weather").title
    assert effects(operator.get(f"/reruns/{running.pk}/terminate/")) == [
        "1 running instance is stopped: 1 node that runs is told to end.",
        "2 instances that wait to rerun are cancelled; their cycles keep the results they have.",
        "1 frozen instance is unfrozen and generated as its schedule has it.",
        f"1 cycle keeps its earlier result, as its rerun has not succeeded: {weather}.",
        "What has ended stays as it ended.",
        "It shows terminating until all of that is done, and cannot be resumed.",
    ]


def test_terminating_ends_and_leaves_nothing_frozen(
    running: Rerun, operator: Client, cycles: dict[str, CycleInstance]
) -> None:
    scores = cycles["scores"]
    assert CycleInstance.objects.get(pk=scores.pk).holder == running.holder
    act(operator, running, "terminate")
    go_on(running)
    assert running.state in {"terminating", "terminated"}
    assert CycleInstance.objects.get(pk=scores.pk).frozen_at is None
    assert (items(running)["delays"], items(running)["scores"]) == ("cancelled", "unfrozen")
    row = element(operator.get(f"/reruns/{running.pk}/"), f"item-{of_item(running, 'scores').pk}")
    assert "waiting_to_unfreeze" not in row


# --- taken out -------------------------------------------------------------------------------------


def test_what_has_not_started_is_taken_out_and_what_waited_for_it_waits_on(
    running: Rerun, operator: Client
) -> None:
    flights, scores = of_item(running, "flights"), of_item(running, "scores")
    asked = operator.get(f"/reruns/{running.pk}/take-out/?item={flights.pk}&item={scores.pk}")
    assert effects(asked)[:4] == [
        "1 instance is not rerun; its cycle keeps the result it has.",
        "1 instance that waits for them stays in, and waits for what they waited for.",
        f"1 instance that stays in reads results that are then not rerun: {of_item(running, 'delays').title}.",
        "1 frozen instance is unfrozen and generated as its schedule has it.",
    ]
    act(operator, running, "take-out", instance=f"{flights.pk},{scores.pk},")
    assert items(running) == {
        "weather": "running",
        "flights": "cancelled",
        "delays": "waiting",
        "scores": "unfrozen",
    }
    row = element(operator.get(f"/reruns/{running.pk}/"), f"item-{flights.pk}")
    assert ("not rerun" in row, "Taken out by" in row, 'class="tick"' in row) == (True, True, False)
    said = text_of(operator.get(f"/reruns/{running.pk}/?view=flow"))
    drawn = re.search(rf'id="node-i{flights.pk}".*?</a>', said, re.S)
    assert drawn
    assert ("not rerun" in drawn[0], "carried over" in drawn[0]) == (True, False)
    end(running, "weather")
    assert items(running)["delays"] == "running"


def test_what_has_started_by_now_stays_in_and_that_is_said(running: Rerun, operator: Client) -> None:
    ticked = [of_item(running, "weather").pk, of_item(running, "delays").pk]
    asked = operator.get(f"/reruns/{running.pk}/take-out/?item={ticked[0]}&item={ticked[1]}")
    assert "1 that was ticked has started by now, and stays in." in effects(asked)
    act(operator, running, "take-out", instance=",".join(map(str, ticked)))
    assert (items(running)["weather"], items(running)["delays"]) == ("running", "cancelled")


@pytest.mark.parametrize("which", ["", "weather"])
def test_nothing_that_can_be_taken_out_is_refused(running: Rerun, operator: Client, which: str) -> None:
    ticked = of_item(running, which).pk if which else ""
    answer = act(operator, running, "take-out", instance=ticked)
    assert answer.status_code == 409
    said = "All that is ticked has started by now" if which else "Tick first what is to be taken out."
    assert said in text_of(answer)


def test_boxes_are_there_for_what_has_not_started_alone(
    running: Rerun, operator: Client, viewer: Client
) -> None:
    def ticks(client: Client) -> set[str]:
        page = text_of(client.get(f"/reruns/{running.pk}/"))
        pks = [int(pk) for pk in re.findall(r'id="tick-item-(\d+)"', page)]
        return {name.split()[0] for name in running.items.filter(pk__in=pks).values_list("name", flat=True)}

    assert (ticks(operator), ticks(viewer)) == ({"flights", "delays", "scores"}, set())


# --- marked ----------------------------------------------------------------------------------------


def test_an_instance_that_is_marked_as_a_success_lets_the_rerun_go_on(running: Rerun, operator: Client) -> None:
    end(running, "weather", "failed")
    failed = of_item(running, "weather")
    page = operator.get(f"/reruns/{running.pk}/")
    assert f'href="/cycles/{failed.instance_id}/mark-success/"' in element(page, f"item-{failed.pk}")
    done = operator.post(f"/cycles/{failed.instance_id}/mark-success/", {"reason": "it is right after all"})
    assert done.status_code == 302
    assert items(go_on(running))["flights"] == "running"


def test_a_cycle_that_is_rerun_by_hand_repairs_its_item(running: Rerun, operator: Client) -> None:
    end(running, "weather", "failed")
    failed = of_item(running, "weather")
    assert failed.instance is not None
    workflow_services.rerun(failed.instance, by=operator.user)  # type: ignore[attr-defined]
    go_on(running)
    end(running, "weather")
    assert (items(running)["weather"], items(running)["flights"]) == ("success", "running")


# --- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "before"),
    [("pause", ["pause"]), ("resume", []), ("terminate", ["terminate"]), ("pause", ["terminate"])],
)
def test_what_is_not_possible_any_more_is_refused_with_the_state(
    running: Rerun, operator: Client, verb: str, before: list[str]
) -> None:
    for each in before:
        act(operator, running, each)
    running.refresh_from_db()
    for answer in (operator.get(f"/reruns/{running.pk}/{verb}/"), act(operator, running, verb)):
        assert answer.status_code == 409
        said = f"Rerun {running} has state {running.get_state_display()} by now"
        assert said in text_of(answer) or "cannot be" in text_of(answer)


def test_htmx_is_answered_with_a_dialog_and_the_page_asks_what_changed(
    running: Rerun, operator: Client
) -> None:
    asked = operator.get(f"/reruns/{running.pk}/pause/", headers=HTMX)
    assert text_of(asked).lstrip().startswith("<dialog")
    done = operator.post(f"/reruns/{running.pk}/pause/", {"reason": "why"}, headers=HTMX)
    assert (done.status_code, "acted" in done.headers["HX-Trigger-After-Settle"]) == (200, True)


@pytest.mark.parametrize("verb", ["pause", "resume", "terminate", "take-out"])
def test_a_viewer_may_not_and_is_told_which_permission_lacks(running: Rerun, viewer: Client, verb: str) -> None:
    answer = act(viewer, running, verb)
    assert answer.status_code == 403
    assert "reruns.operate_rerun" in text_of(answer)


def test_who_only_owns_what_is_downstream_may_look_and_not_operate(running: Rerun, desk: Desk) -> None:
    theirs = make.team("analytics")
    RerunItem.objects.filter(rerun=running, name__startswith="delays").update(team=theirs)
    analyst = Client()
    analyst.force_login(make.user(team=theirs, role="owner"))
    page = analyst.get(f"/reruns/{running.pk}/")
    assert (page.status_code, "data-action" in element(page, f"rerun-{running.pk}")) == (200, False)
    assert act(analyst, running, "pause").status_code == 403


def test_a_cycle_that_waits_its_turn_says_what_holds_it_and_is_not_rerun_by_hand(
    running: Rerun, operator: Client, cycles: dict[str, CycleInstance]
) -> None:
    pk = cycles["flights"].pk
    listed = element(operator.get("/cycles/"), f"cycle-{pk}")
    assert f'href="/reruns/{running.pk}/">R-{running.pk}</a>' in listed
    assert ("waiting to rerun" in listed, 'data-action="rerun"' in listed) == (True, False)
    page = operator.get(f"/cycles/{pk}/")
    assert "What is to become of it?" in element(page, "why")
    assert "is about to rerun it" in element(page, "why")
    assert 'data-action="rerun"' not in element(page, f"cycle-{pk}")
    answer = operator.post(f"/cycles/{pk}/rerun/", {"node": "a", "content": "ran", "reason": "now"})
    assert answer.status_code == 409
    assert "holds its cycle and is about to rerun it" in text_of(answer)


# --- to the end ------------------------------------------------------------------------------------


def test_a_rerun_watched_to_its_end_unfreezes_and_rests(
    running: Rerun, operator: Client, cycles: dict[str, CycleInstance]
) -> None:
    page = operator.get(f"/reruns/{running.pk}/")
    for name in CHAIN:
        asked = live_address(page), shown(page)
        end(running, name)
        assert operator.get(asked[0], headers=asked[1]).status_code == (286 if name == "delays" else 200)
        page = operator.get(f"/reruns/{running.pk}/")
    assert (running.state, CycleInstance.objects.get(pk=cycles["scores"].pk).frozen_at) == ("success", None)
    assert state_of(page, f"rerun-{running.pk}") == "success"
    assert "<b>3 of 3 rerun</b>" in element(page, "progress")
    assert state_of(page, f"item-{of_item(running, 'scores').pk}") == "not_ready"
