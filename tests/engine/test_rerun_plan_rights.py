"""Row B5: who may rerun what of a plan, and whom to ask for what lacks."""

from __future__ import annotations

import pytest

from reruns import choices
from reruns.errors import Drift
from reruns.plans import plan_of
from tests import factories as make
from tests.engine.rerun_support import Across, draft, names, of, refused

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]


def test_what_one_may_not_rerun_is_named_with_whom_to_ask() -> None:
    across = Across()

    plan = across.plan()

    found = of(plan, across.close)
    assert (found.chosen, found.action, len(found.content.permitted), found.node_total) == (False, "", 0, 3)
    assert found.refusal.kind == "permission"
    assert str(found.refusal) == "You have no permission to rerun its tasks. Ask an owner of finance."
    assert plan.missing == [("finance", ["close"], ["wang"], 1)]
    assert names(plan.chosen) == ["hourly"]


def test_a_grant_of_single_tasks_lets_one_rerun_these_nodes() -> None:
    across = Across()
    make.grant(across.tasks["sum"], to=across.weather)
    make.grant(across.tasks["book"], to=across.weather)
    make.grant(across.tasks["send"], "view", to=across.weather)

    plan = across.plan()

    found = of(plan, across.close)
    assert (found.action, found.nodes, found.node_count, len(found.content.permitted)) == (
        "rerun",
        ("sum", "book"),
        2,
        2,
    )
    assert [node.key for node in found.content.lacking] == ["send"]
    assert plan.missing == [("finance", ["close"], ["wang"], 1)]
    assert plan.summary.nodes == 3
    assert [(each.key, each.permitted, each.chosen) for each in choices.nodes_of(found)] == [
        ("sum", True, True),
        ("book", True, True),
        ("send", False, False),
    ]


def test_with_a_grant_of_all_tasks_nothing_lacks() -> None:
    across = Across()
    for task in across.tasks.values():
        make.grant(task, to=across.weather)

    plan = across.plan()

    assert (of(plan, across.close).nodes, plan.missing) == ((), [])


@pytest.mark.parametrize(
    ("state", "says"), [("not_ready", "To freeze it you need"), ("running", "To terminate it you need")]
)
def test_freezing_and_terminating_need_permission_for_all_nodes(state: str, says: str) -> None:
    across = Across(state)
    make.grant(across.tasks["sum"], to=across.weather)

    refusal = of(across.plan(freeze_mode=True), across.close).refusal

    assert refusal.kind == "permission"
    assert str(refusal).startswith(says)
    assert "you have none for book, send. Ask an owner of finance." in str(refusal)


def test_a_source_that_one_may_not_rerun_is_refused() -> None:
    across = Across()

    assert refused(across.close, by=across.mei)[0] == "permission"


@pytest.mark.parametrize("role", ["viewer", "operator", "developer", "owner"])
def test_a_role_in_the_owning_team_carries_the_permission(role: str) -> None:
    across = Across()
    other = make.user("zhao", team=across.finance, role=role)

    plan = plan_of(draft(across.source), user=other)

    assert len(of(plan, across.close).content.permitted) == (0 if role == "viewer" else 3)


def test_the_shell_and_an_administrator_are_asked_nothing() -> None:
    across = Across()

    for user in (None, make.user(is_superuser=True)):
        plan = plan_of(draft(across.source, by=user), user=user)
        assert (names(plan.chosen), plan.missing) == (["hourly", "close"], [])


def test_a_right_that_is_taken_away_meanwhile_shows_in_the_draft() -> None:
    across = Across()
    for task in across.tasks.values():
        make.grant(task, to=across.weather)
    rerun = draft(across.source, by=across.mei)
    across.tasks["send"].grants.all().delete()
    mei = type(across.mei).objects.get(pk=across.mei.pk)

    plan = plan_of(rerun, user=mei)

    assert names(plan.chosen) == ["hourly"]
    [(cycle_id, refusal)] = plan.lost.items()
    assert (cycle_id, refusal.kind) == (across.close.cycle_id, "permission")
    assert "its nodes send" in str(refusal)
    assert plan.drift == [
        Drift(across.close.name, f"Success (instance {across.close.pk})", "no permission for send")
    ]
