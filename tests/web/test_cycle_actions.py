from __future__ import annotations

import re

import pytest
from django.test import Client

from scheduling.models import JournalEntry
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, text_of
from workflows import services
from workflows.models import CycleInstance

REASON = {"reason": "the file was late"}
SETTINGS = {"content": "ran", "node_parallelism": "0", "on_failure": "go_on", **REASON}


def failed(desk: Desk, nodes: str = "a > b, b > c") -> CycleInstance:
    instance = make.end_node(make.cycle(make.workflow("flights", group=desk.group, nodes=nodes)), "a")
    return make.end_node(instance, "b", "failed")


def scheduled(desk: Desk, name: str = "daily", **content: object) -> CycleInstance:
    workflow = make.workflow(name, group=desk.group, cron="0 1 * * *", timezone="UTC", **content)
    services.generate(workflow.pk)
    return CycleInstance.objects.filter(workflow=workflow).earliest("cycle_time")


def ticked(page: object) -> list[str]:
    return re.findall(r'name="node" value="(\w+)" checked', text_of(page))


# --- stop, mark, freeze, unfreeze --------------------------------------------------------------------


def test_a_stop_says_what_it_will_hit_and_asks_why(desk: Desk, operator: Client) -> None:
    instance = make.end_node(make.cycle(make.workflow(group=desk.group, nodes="a > b, b > c")), "a")
    address = f"/cycles/{instance.pk}/stop/"
    page = text_of(operator.get(address, headers=HTMX))
    assert "<dialog" in page
    assert "1 node runs: its batch is told to end" in page
    assert "1 waiting node never begins." in page
    assert "1 node has ended and stays as it is." in page
    assert operator.post(address, {"reason": " "}).status_code == 422

    answer = operator.post(address, REASON, headers=HTMX)

    assert answer.status_code == 200
    assert "acted" in answer["HX-Trigger-After-Settle"]
    assert make.fresh(instance).state == "terminated"
    entry = JournalEntry.objects.get(object_type="cycleinstance", action="stopped")
    assert (entry.user, entry.reason, entry.via) == (operator.user, "the file was late", "web")  # type: ignore[attr-defined]


def test_marking_a_failure_as_a_success_says_who_goes_on(desk: Desk, operator: Client) -> None:
    instance = failed(desk)
    address = f"/cycles/{instance.pk}/mark-success/"
    page = text_of(operator.get(address))
    assert "1 node that did not succeed stays as it ended" in page
    operator.post(address, REASON)
    assert make.fresh(instance).state == "success"


def test_freezing_holds_it_back_and_says_who_waits_with_it(desk: Desk, operator: Client) -> None:
    instance = scheduled(desk)
    scheduled(desk, "after", depends_on=[{"workflow": "daily"}])
    page = text_of(operator.get(f"/cycles/{instance.pk}/freeze/"))
    assert "1 downstream cycle waits with it." in page
    operator.post(f"/cycles/{instance.pk}/freeze/", REASON)
    assert make.fresh(instance).frozen_by == operator.user.username  # type: ignore[attr-defined]
    assert "It goes on waiting for its time." in text_of(operator.get(f"/cycles/{instance.pk}/unfreeze/"))
    operator.post(f"/cycles/{instance.pk}/unfreeze/", REASON)
    assert not make.fresh(instance).is_frozen


def test_what_a_rerun_froze_is_not_unfrozen_by_hand(desk: Desk, operator: Client) -> None:
    instance = services.freeze(scheduled(desk), by="ann", reason="rerun", holder="rerun:12")
    address = f"/cycles/{instance.pk}/unfreeze/"
    assert "which alone can unfreeze it" in text_of(operator.get(address))
    answer = operator.post(address, REASON, headers=HTMX)
    assert answer.status_code == 409
    assert "which alone can unfreeze it" in text_of(answer)
    assert make.fresh(instance).is_frozen


@pytest.mark.parametrize("verb", ["stop", "freeze", "unfreeze"])
def test_what_is_not_possible_any_more_is_refused_with_the_state_as_it_is(
    desk: Desk, operator: Client, verb: str
) -> None:
    instance = failed(desk)
    address = f"/cycles/{instance.pk}/{verb}/"
    asked = operator.get(address, headers=HTMX)
    assert asked.status_code == 409
    assert "id_reason" not in text_of(asked)
    answer = operator.post(address, REASON, headers=HTMX)
    assert answer.status_code == 409
    assert 'data-state="failed"' in text_of(answer)
    # The page that asked looks what changed.
    assert "acted" in answer["HX-Trigger-After-Settle"]


# --- rerun -------------------------------------------------------------------------------------------


def test_a_rerun_proposes_what_failed_and_what_comes_after_it(desk: Desk, operator: Client) -> None:
    instance = failed(desk)
    page = operator.get(f"/cycles/{instance.pk}/rerun/", headers=HTMX)
    assert ticked(page) == ["b", "c"]
    assert "Run 2 of this cycle begins." in text_of(page)
    assert ticked(operator.get(f"/cycles/{instance.pk}/rerun/?from=a")) == ["a", "b", "c"]


def test_ticking_a_node_with_all_after_it_keeps_what_was_filled_in(desk: Desk, operator: Client) -> None:
    instance = failed(desk)
    given = {**SETTINGS, "node": ["c"], "after": "b", "node_parallelism": "3", "on_failure": "stop"}
    page = operator.post(f"/cycles/{instance.pk}/rerun/", given, headers=HTMX)
    assert page.status_code == 200
    assert ticked(page) == ["b", "c"]
    assert 'value="the file was late"' in text_of(page)
    assert 'value="3"' in text_of(page)
    assert CycleInstance.objects.filter(rerun_of=instance).count() == 0
    for tick, wanted in (("all", ["a", "b", "c"]), ("none", []), ("proposed", ["b", "c"])):
        given = {**SETTINGS, "node": ["a"], "tick": tick}
        assert ticked(operator.post(f"/cycles/{instance.pk}/rerun/", given)) == wanted


def test_a_rerun_runs_the_ticked_nodes_with_the_settings(desk: Desk, operator: Client) -> None:
    instance = failed(desk)
    given = {**SETTINGS, "node": ["b", "c"], "node_parallelism": "2", "on_failure": "stop"}
    given |= {"name": ["limit"], "value": ["5"], "as": ["json"]}
    own = {**HTMX, "HX-Current-URL": f"http://testserver/cycles/{instance.pk}/?node=b"}
    answer = operator.post(f"/cycles/{instance.pk}/rerun/", given, headers=own)
    again = CycleInstance.objects.get(rerun_of=instance)
    assert answer["HX-Redirect"] == f"/cycles/{again.pk}/"
    assert make.states(again) == {"a": "success", "b": "running", "c": "waiting"}
    assert (again.parameters, again.node_parallelism, again.stop_on_failure) == ({"limit": 5}, 2, True)


def test_a_rerun_asked_from_a_list_stays_there(desk: Desk, operator: Client) -> None:
    instance = failed(desk)
    current = {**HTMX, "HX-Current-URL": "http://testserver/batches/"}
    answer = operator.post(f"/cycles/{instance.pk}/rerun/", {**SETTINGS, "node": ["b"]}, headers=current)
    again = CycleInstance.objects.get(rerun_of=instance)
    assert f'href="/cycles/{again.pk}/"' in text_of(answer)


def test_the_content_of_today_shows_todays_nodes(desk: Desk, operator: Client) -> None:
    instance = failed(desk)
    make.workflow("flights", group=desk.group, nodes="a > b, b > e")
    page = operator.post(
        f"/cycles/{instance.pk}/rerun/", {**SETTINGS, "content": "now", "again": "1", "node": "b"}
    )
    assert re.findall(r'name="node" value="(\w+)"', text_of(page)) == ["a", "b", "e"]
    assert ticked(page) == ["b", "e"]


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"node": []}, 409, "No node is chosen"),
        ({"node": ["gone"]}, 409, "has no node gone"),
        ({"node": ["b"], "reason": ""}, 422, "Say why"),
        ({"node": ["b"], "node_parallelism": "-1"}, 422, "greater than or equal to 0"),
        ({"node": ["b"], "name": ["x"], "value": ["{"], "as": ["json"]}, 422, "This is not JSON"),
    ],
)
def test_what_cannot_be_run_is_said_and_nothing_runs(
    desk: Desk, operator: Client, given: dict, status: int, said: str
) -> None:
    instance = failed(desk)
    answer = operator.post(f"/cycles/{instance.pk}/rerun/", {**SETTINGS, **given}, headers=HTMX)
    assert answer.status_code == status
    assert said in text_of(answer)
    assert not CycleInstance.objects.filter(rerun_of=instance).exists()


def test_a_cycle_whose_other_run_is_unfinished_is_not_rerun(desk: Desk, operator: Client) -> None:
    instance = scheduled(desk, nodes="a")
    services.stop(instance, by="ann", reason="wrong file")
    again = services.rerun(make.fresh(instance), by="ann")
    answer = operator.post(f"/cycles/{instance.pk}/rerun/", {**SETTINGS, "node": ["a"]}, headers=HTMX)
    assert answer.status_code == 409
    assert f"Cycle instance {again.pk} of the same cycle is unfinished" in text_of(answer)
