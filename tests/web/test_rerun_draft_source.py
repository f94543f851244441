"""Step 1: where a rerun downstream begins, and with which nodes."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from reruns.models import Rerun
from scheduling.models import Membership
from tests import factories as make
from tests.engine.rerun_support import at, cycle
from tests.web.conftest import Desk
from tests.web.draft_support import Downstream, address, chosen, seen, text_without_marks, ticked
from tests.web.pages import element, text_of
from workflows import services as workflow_services
from workflows.models import CycleInstance


@pytest.fixture
def world(desk: Desk) -> Downstream:
    return Downstream(desk)


def new(instance: CycleInstance) -> str:
    return f"/reruns/new/?cycle={instance.pk}"


# --- the way in ----------------------------------------------------------------------------------------


def test_the_menu_and_the_page_of_an_instance_lead_into_it(world: Downstream, operator: Client) -> None:
    row = element(operator.get("/cycles/?window=30d"), f"cycle-{world.hourly.pk}")
    assert f'href="/reruns/new/?cycle={world.hourly.pk}" data-action="rerun-downstream"' in row
    page = text_of(operator.get(f"/cycles/{world.hourly.pk}/"))
    assert f'href="/reruns/new/?cycle={world.hourly.pk}" data-action="rerun-downstream"' in page


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("backfill", "offline or a test"),
        ("long ago", "got ready before yesterday 00:00"),
        ("not ready", "has not been ready yet"),
        ("replaced", "counts by now"),
    ],
)
def test_where_none_can_begin_the_reason_stands_there_and_the_server_refuses(
    desk: Desk, operator: Client, what: str, why: str
) -> None:
    instance = impossible(desk, what)
    row = element(operator.get("/cycles/?window=30d"), f"cycle-{instance.pk}")
    assert 'data-action="rerun-downstream"' not in row
    assert why in row
    page = operator.get(f"/cycles/{instance.pk}/")
    assert 'data-action="rerun-downstream"' not in text_of(page)
    assert why in text_of(page)

    for answer in (operator.get(new(instance)), operator.post(new(instance), {"node": "a"})):
        assert answer.status_code == 409
        assert "A rerun downstream cannot begin here." in text_of(answer)
    there = re.findall(r'id="begin-there" href="([^"]+)"', text_of(operator.get(new(instance))))
    effective = make.fresh(instance).cycle.effective
    assert there == ([new(effective)] if what == "replaced" and effective else [])
    assert not Rerun.objects.exists()


def impossible(desk: Desk, what: str) -> CycleInstance:
    """An instance at which no rerun downstream can begin."""
    workflow = make.workflow("once", group=desk.group)
    if what == "backfill":
        return cycle(workflow, run_type="backfill")
    if what == "not ready":
        return cycle(workflow, at(1), "not_ready")
    if what == "replaced":
        first = cycle(workflow, at(1))
        workflow_services.rerun(first, by="tests", reason="again")
        return first
    return cycle(workflow, at(1), ready_at=timezone.now() - timedelta(days=3))


def test_who_may_not_rerun_sees_no_way_in(world: Downstream, viewer: Client) -> None:
    assert "rerun-downstream" not in text_of(viewer.get(f"/cycles/{world.hourly.pk}/"))
    assert "rerun-downstream" not in element(viewer.get("/cycles/?window=30d"), f"cycle-{world.hourly.pk}")
    assert viewer.get(new(world.hourly)).status_code == 403


@pytest.mark.parametrize(
    "asked", ["", "?cycle=", "?cycle=x", "?cycle=99999999999999999999999", "?cycle=987654"]
)
def test_an_address_that_names_no_instance_is_not_found(operator: Client, asked: str) -> None:
    assert operator.get(f"/reruns/new/{asked}").status_code == 404


def test_who_has_begun_already_is_led_to_that_draft(world: Downstream, desk: Desk, operator: Client) -> None:
    assert 'id="go-on"' not in text_of(operator.get(new(world.hourly)))
    world.draft(operator)
    newest = world.draft(operator)
    assert f'id="go-on" href="/reruns/{newest.pk}/"' in text_of(operator.get(new(world.hourly)))
    assert 'id="go-on"' not in text_of(operator.get(new(world.daily)))
    assert 'id="go-on"' not in text_of(desk.sign_in().get(new(world.hourly)))
    # Of the draft's own step the draft is known.
    assert 'id="go-on"' not in text_of(operator.get(address(newest, "source")))


# --- the nodes -----------------------------------------------------------------------------------------


def test_what_failed_and_was_cancelled_is_ticked_already(world: Downstream, operator: Client) -> None:
    page = operator.get(new(world.hourly))
    assert ticked(page) == ["check", "publish"]
    answer = operator.post(new(world.hourly), {"node": ticked(page)})
    made = Rerun.objects.get()
    assert answer["Location"] == address(made, "downstream")
    assert chosen(made) == {"hourly": ["check", "publish"]}


def test_of_a_success_nothing_is_ticked_and_something_must_be(world: Downstream, operator: Client) -> None:
    page = operator.get(new(world.daily))
    assert ticked(page) == []
    assert "Nothing of it failed" in text_of(page)
    answer = operator.post(new(world.daily), {})
    assert answer.status_code == 422
    assert "No node is ticked." in text_of(answer)
    assert not Rerun.objects.exists()


@pytest.mark.parametrize(
    ("asked", "then"),
    [
        ({"tick": "all"}, ["load", "check", "publish"]),
        ({"tick": "none", "node": ["load"]}, []),
        ({"tick": "proposed", "node": ["load"]}, ["check", "publish"]),
        ({"after": "check"}, ["check", "publish"]),
        ({"after": "load"}, ["load", "check", "publish"]),
        ({"after": "nothing of this name", "node": ["load"]}, ["load"]),
    ],
)
def test_the_form_ticks_without_a_script(
    world: Downstream, operator: Client, asked: dict[str, Any], then: list[str]
) -> None:
    page = operator.post(new(world.hourly), asked)
    assert (page.status_code, ticked(page)) == (200, then)
    assert not Rerun.objects.exists()


def test_nodes_that_one_may_not_rerun_are_named_and_cannot_be_ticked(world: Downstream, desk: Desk) -> None:
    both = desk.sign_in("operator")
    make_member(world, both, "viewer")
    page = both.get(new(world.costs))
    assert '<input type="checkbox" name="node" value="reckon" disabled>' in text_of(page)
    assert "No permission to rerun: ask an owner of finance" in text_of(page)
    assert ticked(both.post(new(world.costs), {"tick": "all"})) == ["book"]
    assert ticked(both.post(new(world.costs), {"node": ["reckon"], "after": "reckon"})) == ["book"]


def make_member(world: Downstream, client: Client, role: str) -> None:
    Membership.objects.create(team=world.finance, user=client.user, role=role)  # type: ignore[attr-defined]


def test_what_runs_begins_a_rerun_only_in_freeze_mode(world: Downstream, operator: Client) -> None:
    page = operator.get(new(world.scores))
    assert "In freeze mode it is terminated first, then rerun." in text_of(page)
    answer = operator.post(new(world.scores), {"node": "a"})
    assert answer.status_code == 409
    assert "Switch on freeze mode" in text_of(answer)
    # Nothing of what was asked is lost.
    assert ticked(answer) == ["a"]

    assert operator.post(new(world.scores), {"node": "a", "freeze_mode": "on"}).status_code == 302
    assert Rerun.objects.get().freeze_mode


# --- again, from the draft -----------------------------------------------------------------------------


def test_the_nodes_are_chosen_again_from_the_draft(world: Downstream, operator: Client) -> None:
    draft = world.draft(operator, world.daily, nodes=["check", "publish"])
    page = operator.get(address(draft, "source"))
    assert ticked(page) == ["check", "publish"]
    answer = operator.post(address(draft, "source"), {"node": ["load", "check", "publish"]} | seen(page))
    assert answer["Location"] == address(draft, "downstream")
    assert chosen(draft) == {"hourly": [], "daily": []}


def test_an_old_window_does_not_overwrite_the_nodes(world: Downstream, operator: Client) -> None:
    draft = world.draft(operator, nodes=["check"])
    old = seen(operator.get(address(draft, "source")))
    operator.post(address(draft, "source"), {"node": ["load"]} | old)
    answer = operator.post(address(draft, "source"), {"node": ["publish"]} | old)
    assert answer.status_code == 409
    assert "changed in another window" in text_of(answer)
    assert chosen(draft) == {"hourly": ["load"]}


# --- whose it is ---------------------------------------------------------------------------------------

STEPS = ["source", "downstream", "settings", "plan"]


@pytest.mark.parametrize("step", STEPS)
def test_a_draft_is_its_authors_alone(world: Downstream, desk: Desk, operator: Client, step: str) -> None:
    draft = world.draft(operator)
    assert operator.get(address(draft, step)).status_code == 200
    for other in (desk.sign_in("owner"), desk.sign_in("operator")):
        assert other.get(address(draft, step)).status_code == 404
        assert other.post(address(draft, step), {}).status_code == 404


@pytest.mark.parametrize("step", STEPS)
def test_a_draft_is_left_where_its_author_was(world: Downstream, operator: Client, step: str) -> None:
    draft = world.draft(operator)
    page = operator.get(address(draft, step))
    draft.refresh_from_db()
    assert draft.step == step
    assert f"draft {draft}, saved" in text_without_marks(page)
