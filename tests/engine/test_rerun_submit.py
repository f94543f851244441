"""Row D2: what is submitted is exactly what was shown; what changed since is confirmed, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import PermissionDenied

from reruns import services
from reruns.errors import Drift, PlanDrifted, RerunRefused
from reruns.models import Rerun
from reruns.views import rerun_impact as impact
from scheduling.models import JournalEntry, Membership, Task
from tests import factories as make
from tests.engine.cycle_support import Picture, everything
from tests.engine.rerun_world import HOURLY, NOON, World, fresh, settle
from workflows import services as workflow_services
from workflows.models import Cycle, CycleInstance

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]


def kept(rerun: Rerun) -> Any:
    return (
        everything(),
        Rerun.objects.filter(pk=rerun.pk).values().get(),
        list(rerun.items.order_by("pk").values()),
    )


def refused(rerun: Rerun, says: str, error: type[Exception] = RerunRefused, **options: Any) -> Any:
    before = kept(rerun)
    with pytest.raises(error, match=says) as caught:
        services.submit(rerun, **options)
    assert kept(rerun) == before
    return caught.value


def test_submitting_marks_and_holds_what_the_plan_says_and_begins_nothing(noon: Any) -> None:
    world = World("a > b > c, b > d", noon, waiting="d", running="c")
    operator = make.user("mei", team=world.group.team)
    draft = world.draft("a", "b", "c", "d", freeze_mode=True, by=operator, parallelism=3)

    rerun = services.submit(draft, by=operator, reason="bad weather")

    assert (rerun.state, rerun.submitted_at, rerun.reason, rerun.actor) == (
        "running",
        NOON.replace(hour=13),
        "bad weather",
        "mei",
    )
    assert (fresh(rerun).responsible_id, rerun.unasked, rerun.due, rerun.parallelism) == (
        operator.pk,
        False,
        False,
        3,
    )
    assert fresh(rerun).due
    assert world.states(rerun) == {"a": "waiting", "b": "waiting", "c": "waiting", "d": "frozen"}
    actions = {name: world.item(rerun, name).action for name in "abcd"}
    assert actions == {"a": "rerun", "b": "rerun", "c": "terminate", "d": "freeze"}
    assert all(rerun.items.values_list("owned", flat=True))
    assert set(Cycle.objects.filter(holder=rerun.holder)) == {world.cycle(name) for name in "abc"}
    assert (world.at("c").state, world.at("d").is_frozen) == ("running", True)
    entry = JournalEntry.objects.get(object_type="rerun", object_id=rerun.pk)
    assert (entry.action, entry.actor, entry.reason, entry.team_id) == (
        "submitted",
        "mei",
        "bad weather",
        world.group.team_id,
    )
    assert entry.details == {"instances": 3, "terminated_first": 1, "frozen": 1}
    Picture().check()


def test_submitted_from_the_shell_nobody_is_responsible(noon: Any) -> None:
    rerun = World("a > b", noon).rerun("a", "b")
    assert (rerun.responsible, rerun.unasked) == (None, True)


def test_what_changed_since_it_was_shown_is_confirmed_exactly(noon: Any) -> None:
    world = World("a > b, a > c", noon)
    draft = world.draft("a", "b", "c")
    workflow_services.rerun(world.at("b"))
    world.end("b")
    drifted = refused(draft, "1 chosen instance has changed", PlanDrifted)
    [drift] = drifted.drift
    assert drift.name == "b 2026-11-20 13:00 UTC"
    refused(draft, "has changed", PlanDrifted, confirmed=[])
    refused(draft, "has changed", PlanDrifted, confirmed=[Drift(drift.name, drift.was, "something else")])
    refused(draft, "has changed", PlanDrifted, confirmed=[drift, Drift("d", "was", "is")])

    services.submit(draft, confirmed=[drift])
    item = world.item(draft, "b")
    assert (item.original_id, item.seen_state, item.state) == (world.at("b").pk, "success", "waiting")
    entry = JournalEntry.objects.get(object_type="rerun", object_id=draft.pk)
    assert entry.details["confirmed_drift"] == 1


def test_what_began_since_is_terminated_when_that_is_confirmed(noon: Any) -> None:
    world = World("a > b", noon, waiting="b")
    draft = world.draft("a", "b", freeze_mode=True)
    CycleInstance.objects.filter(pk=world.at("b").pk).update(due_at=NOON)
    from workflows.services import clock

    clock.make_due()
    assert world.at("b").state == "running"
    drifted = refused(draft, "has changed", PlanDrifted)
    services.submit(draft, confirmed=drifted.drift)
    assert (world.item(draft, "b").action, world.states(draft)["b"]) == ("terminate", "waiting")


def edited(world: World, name: str, upstream: str, nodes: str) -> None:
    """Somebody edits a workflow while its cycle is being planned."""
    make.workflow(name, group=world.group, nodes=nodes, depends_on=[{"workflow": upstream}], **HOURLY)


def test_a_workflow_that_was_edited_since_is_confirmed(noon: Any) -> None:
    world = World("a > b", noon)
    draft = world.draft("a", "b", as_it_ran=False)
    edited(world, "b", "a", "n > m")
    drifted = refused(draft, "1 chosen instance has changed", PlanDrifted)
    assert drifted.drift == [Drift("b 2026-11-20 13:00 UTC", "1 node", "2 nodes")]
    services.submit(draft, confirmed=drifted.drift)
    assert world.item(draft, "b").node_total == 2


@pytest.mark.parametrize("what", ["workflow", "task"])
def test_an_edit_that_keeps_the_nodes_is_confirmed_too(noon: Any, what: str) -> None:
    world = World("a > b", noon)
    draft = world.draft("a", "b", as_it_ran=False)
    noon.shift(60)
    if what == "workflow":
        edited(world, "b", "a", "m")
    else:
        task = Task.objects.get(workflow_nodes__revision=world.workflows["b"].revision_id)
        make.task(task.name, group=world.group, spec={"command": "echo corrected"})
    drifted = refused(draft, "has changed|have changed", PlanDrifted)
    drift = drifted.drift[-1]
    assert (drift.name, drift.was) == ("b 2026-11-20 13:00 UTC", "1 node")
    assert drift.now == "1 node, the workflow or a task of it edited at 2026-11-20 13:01:00"
    services.submit(draft, confirmed=drifted.drift)


def test_as_it_ran_an_edit_changes_nothing(noon: Any) -> None:
    world = World("a > b", noon)
    draft = world.draft("a", "b")
    edited(world, "b", "a", "n > m")
    services.submit(draft)
    assert world.item(draft, "b").node_total == 1


def test_chosen_nodes_that_an_edit_removed_are_refused_by_name_until_others_are_chosen(noon: Any) -> None:
    world = World("a > b", noon, nodes="n > m")
    draft = world.draft("a", as_it_ran=False)
    services.choose_nodes(draft, world.cycle("b").pk, ["m"])
    edited(world, "b", "a", "n > x")
    refused(draft, r"b 2026-11-20 13:00 UTC: Its workflow was edited and has no node m any more")
    services.choose_nodes(draft, world.cycle("b").pk, ["x"])
    services.submit(draft)
    assert world.item(draft, "b").nodes == ["x"]


def test_what_cannot_be_rerun_any_more_is_refused_by_name_however_it_is_confirmed(noon: Any) -> None:
    world = World("a > b", noon)
    draft = world.draft("a", "b")
    workflow_services.rerun(world.at("b"))
    refusal = refused(draft, r"b 2026-11-20 13:00 UTC: .*freeze mode")
    assert "Take these out of the plan" in str(refusal)
    refused(draft, "freeze mode", confirmed=services.plan_of(draft).drift)


def test_what_a_person_froze_meanwhile_is_refused(noon: Any) -> None:
    world = World("a > b", noon, waiting="b")
    draft = world.draft("a", "b", freeze_mode=True)
    workflow_services.freeze(world.at("b"), by="bob", reason="mine")
    refused(draft, r"(?i)frozen by bob")


def test_a_second_rerun_of_the_same_cycle_is_told_who_holds_it_since_when_and_how_far(noon: Any) -> None:
    world = World("a > b > c", noon)
    mei = make.user("mei", team=world.group.team)
    first, second = world.draft("a", "b", by=mei), world.draft("b", "c")
    services.submit(first, by=mei)
    settle()
    world.end("a")
    refusal = refused(second, rf"{first}")
    for said in ("mei", "50"):
        assert said in str(refusal)
    world.end("b")
    drift = services.plan_of(second).drift
    assert services.submit(second, confirmed=drift).state == "running"


def test_it_is_submitted_once(noon: Any) -> None:
    world = World("a", noon)
    rerun = world.rerun("a")
    refused(rerun, rf"{rerun} was submitted by {rerun.actor} already; it has state Running")


def test_a_draft_that_is_gone_or_somebody_elses_is_refused(noon: Any) -> None:
    world = World("a", noon)
    mei, bob = (make.user(team=world.group.team) for _each in range(2))
    draft = world.draft("a", by=mei)
    with pytest.raises(PermissionDenied):
        services.submit(draft, by=bob)
    services.discard(draft, by=mei)
    with pytest.raises(RerunRefused, match="This draft is gone"):
        services.submit(draft, by=mei)


# --- B5: permission, at submit and when an instance is generated --------------------------------------


def test_who_may_not_rerun_a_chosen_task_any_more_is_refused(noon: Any) -> None:
    other = make.group()
    world = World("a > b", noon, of_group={"b": other})
    mei = make.user("mei", team=world.group.team)
    Membership.objects.create(team=other.team, user=mei, role="operator")
    draft = world.draft("a", "b", by=mei)
    Membership.objects.filter(team=other.team, user=mei).update(role="viewer")
    refused(draft, rf"(?s)b 2026-11-20 13:00 UTC: .*{other.team.name}", by=again(mei))


def again(user: Any) -> Any:
    """The user as the next request has it."""
    return type(user).objects.get(pk=user.pk)


@pytest.fixture
def across(noon: Any) -> tuple[World, Any, Any]:
    """A rerun of two teams' cycles by mei, who may rerun both; the second team."""
    other = make.group()
    world = World("a > b > c", noon, nodes="x > y", of_group={"b": other})
    mei = make.user("mei", team=world.group.team)
    Membership.objects.create(team=other.team, user=mei, role="operator")
    return world, mei, other.team


def test_a_right_that_is_taken_away_meanwhile_stops_that_item_with_the_reason(across: Any) -> None:
    world, mei, team = across
    rerun = world.rerun("a", "b", "c", by=mei)
    Membership.objects.filter(team=team, user=mei).delete()
    world.end("a")
    item = world.item(rerun, "b")
    assert (item.state, item.reason) == ("failed", "Not to be rerun any more by mei: x, y")
    assert (item.instance_id, world.states(rerun)["c"], fresh(rerun).state) == (None, "waiting", "failed")
    assert world.cycle("b").holder == rerun.holder

    # Whoever may not is told before they confirm.
    assert impact.of_resuming(fresh(rerun), type(mei).objects.get(pk=mei.pk))[-1] == (
        "You may not rerun 1 of these, which will fail: b 2026-11-20 13:00 UTC (x, y). "
        "Ask for permission first."
    )

    # Somebody who may resumes it, and answers for it from then on.
    boss = make.user("boss", is_superuser=True)
    assert "You may not rerun" not in " ".join(impact.of_resuming(fresh(rerun), boss))
    services.resume(fresh(rerun), by=boss)
    settle()
    assert (world.states(rerun)["b"], fresh(rerun).responsible) == ("running", boss)
    world.end("b")
    world.end("c")
    assert fresh(rerun).state == "success"


def test_a_right_to_nodes_that_do_not_run_is_not_asked_for(across: Any) -> None:
    world, mei, team = across
    draft = world.draft("a", "b", by=mei)
    services.choose_nodes(draft, world.cycle("b").pk, ["y"], by=mei)
    rerun = services.submit(draft, by=mei)
    settle()
    Membership.objects.filter(team=team, user=mei).delete()
    task = world.workflows["b"].current.nodes.get(key="y").task
    make.grant(task, to=world.group.team)
    world.end("a")
    assert world.states(rerun)["b"] == "running"


@pytest.mark.parametrize("how", ["deleted", "inactive"])
def test_nobody_gains_rights_by_being_gone(across: Any, how: str) -> None:
    world, mei, _team = across
    rerun = world.rerun("a", "b", by=mei)
    if how == "deleted":
        mei.delete()
    else:
        type(mei).objects.filter(pk=mei.pk).update(is_active=False)
    world.end("a")
    item = world.item(rerun, "b")
    said = "The account that was responsible" if how == "deleted" else "Not to be rerun any more by mei"
    assert (item.state, item.reason.startswith(said)) == ("failed", True), item.reason
