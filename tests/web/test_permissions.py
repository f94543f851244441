from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404

from scheduling import services
from scheduling.errors import InvalidDefinition, LastOwner, StillInUse
from scheduling.models import (
    Batch,
    DeploymentGroup,
    Execution,
    Instance,
    JournalEntry,
    LogChunk,
    Membership,
    Node,
    Task,
    TaskGrant,
    Team,
)
from scheduling.permissions import EDIT_TASK, RERUN, RUN, STOP, VIEW, authorised, visible
from tests import factories as make
from tests.web.conftest import Desk

SEEN = [DeploymentGroup, Node, Task, Batch, Instance, Execution, LogChunk, JournalEntry]


def with_output(batch: Batch) -> Batch:
    """Every instance of `batch` runs and has written a line."""
    for instance in make.start_batch(batch):
        execution = instance.executions.get()
        LogChunk.objects.create(execution=execution, sequence=0, text="x", written_at=execution.started_at)
    return batch


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("viewer", {"view"}),
        ("operator", {"view", "run_task", "stop_task", "rerun_task", "drain_node"}),
        ("developer", {"view", "run_task", "stop_task", "rerun_task", "drain_node", "edit_task"}),
        ("owner", {"view", "run_task", "stop_task", "rerun_task", "drain_node", "edit_task", "edit_team"}),
    ],
)
def test_each_role_adds_to_the_ones_before_it(desk: Desk, role: str, allowed: set[str]) -> None:
    user = make.user(team=desk.team, role=role)
    everything = {"view", "run_task", "stop_task", "rerun_task", "drain_node", "edit_task", "edit_team"}
    assert {name for name in everything if user.has_perm(f"scheduling.{name}", desk.task)} == allowed


def test_a_role_holds_for_everything_of_its_team_and_nothing_else(desk: Desk) -> None:
    batch = make.batch(desk.task)
    instance = batch.instances.first()
    execution = make.start(instance)
    mine, other = make.user(team=desk.team), make.user(team=make.team())
    for thing in (desk.team, desk.group, desk.node, desk.task, batch, instance, execution):
        assert mine.has_perm(RERUN, thing)
        assert not other.has_perm(RERUN, thing)


def test_a_role_is_worth_nothing_to_an_inactive_user_or_without_an_object(desk: Desk) -> None:
    assert not make.user(team=desk.team, is_active=False).has_perm(RERUN, desk.task)
    assert not make.user(team=desk.team).has_perm(RERUN)


@pytest.mark.parametrize("model", SEEN)
def test_strangers_and_inactive_users_see_nothing_of_any_team(desk: Desk, model: type) -> None:
    with_output(make.batch(make.task(group=make.group())))  # of a team without members
    with_output(make.batch(desk.task))
    for nobody in (AnonymousUser(), make.user(team=desk.team, is_active=False), make.user()):
        assert not model.objects.visible_to(nobody).exists()
    assert model.objects.visible_to(make.user(team=desk.team)).exists()


def test_a_lookup_hides_what_is_not_visible_and_names_the_permission_that_lacks(desk: Desk) -> None:
    viewer, outsider = make.user(team=desk.team, role="viewer"), make.user(team=make.team(), role="owner")
    assert visible(Task.objects, viewer, pk=desk.task.pk) == desk.task
    with pytest.raises(Http404):
        authorised(Task.objects, outsider, STOP, pk=desk.task.pk)
    with pytest.raises(PermissionDenied, match=r"Stop runs \(scheduling\.stop_task\)"):
        authorised(Task.objects, viewer, STOP, pk=desk.task.pk)
    assert authorised(Task.objects, make.user(team=desk.team), STOP, pk=desk.task.pk) == desk.task


# --- grants ----------------------------------------------------------------------------------------


def things_of(batch: Batch) -> list[Any]:
    instance = batch.instances.first()
    return [batch.task, batch, instance, instance.executions.get()]


@pytest.mark.parametrize("role", ["operator", "developer", "owner"])
def test_a_grant_lets_who_may_do_it_at_home_do_just_that(desk: Desk, role: str) -> None:
    batch, guests = with_output(make.batch(desk.task)), make.team()
    make.grant(desk.task, "rerun_task", to=guests)
    guest = make.user(team=guests, role=role)
    for thing in things_of(batch):
        assert [guest.has_perm(each, thing) for each in (VIEW, RERUN)] == [True, True]
        assert [guest.has_perm(each, thing) for each in (RUN, STOP, EDIT_TASK)] == [False] * 3
    for thing in (desk.team, desk.group, desk.node, make.task(group=desk.group)):
        assert not guest.has_perm(VIEW, thing)


def test_a_viewer_of_the_team_that_was_granted_an_action_only_sees(desk: Desk) -> None:
    batch, guests = with_output(make.batch(desk.task)), make.team()
    make.grant(desk.task, "run_task", "stop_task", "rerun_task", to=guests)
    guest = make.user(team=guests, role="viewer")
    for thing in things_of(batch):
        assert [guest.has_perm(each, thing) for each in (VIEW, RUN, STOP, RERUN)] == [True, False, False, False]


def test_of_several_teams_each_grant_counts_with_the_role_there(desk: Desk) -> None:
    watching, running = make.team(), make.team()
    make.grant(desk.task, "stop_task", to=watching)
    make.grant(desk.task, "rerun_task", to=running)
    guest = make.user(team=watching, role="viewer")
    Membership.objects.create(team=running, user=guest, role="operator")
    assert [guest.has_perm(each, desk.task) for each in (VIEW, STOP, RERUN)] == [True, False, True]


@pytest.mark.parametrize("model", SEEN)
def test_a_grant_shows_the_task_with_its_records_and_nothing_else_of_the_team(desk: Desk, model: type) -> None:
    mine, theirs = with_output(make.batch(desk.task)), with_output(make.batch(make.task(group=desk.group)))
    services.stop(mine, by="tests")
    guests = make.team()
    make.grant(desk.task, "view", to=guests)
    guest = make.user(team=guests, role="viewer")
    shown, everything = model.objects.visible_to(guest), model.objects.all()
    of_task = {
        Task: lambda task: everything.filter(pk=task.pk),
        Batch: lambda task: everything.filter(task=task),
        Instance: lambda task: everything.filter(batch__task=task),
        Execution: lambda task: everything.filter(instance__batch__task=task),
        LogChunk: lambda task: everything.filter(execution__instance__batch__task=task),
        JournalEntry: lambda task: everything.filter(task=task),
    }
    if model in of_task:
        assert shown.exists()
        assert set(shown) == set(of_task[model](desk.task))
        assert not (set(shown) & set(of_task[model](theirs.task)))
    else:
        assert not shown.exists()


def test_the_journal_of_a_granted_task_has_its_batches_and_instances(desk: Desk) -> None:
    batch, guests = with_output(make.batch(desk.task)), make.team()
    make.grant(desk.task, "view", to=guests)
    services.stop_instance(batch.instances.first(), by="tests")
    shown = JournalEntry.objects.visible_to(make.user(team=guests, role="viewer"))
    assert set(shown.values_list("object_type", "action")) == {
        ("task", "created"),
        ("task", "granted"),
        ("batch", "triggered"),
        ("batch", "started"),
        ("instance", "stopped"),
    }


def test_without_grants_a_list_asks_for_teams_alone_and_never_joins(
    desk: Desk, django_assert_num_queries: Any
) -> None:
    user, guests = make.user(team=desk.team), make.team()
    make.grant(desk.task, "view", to=guests)
    guest = make.user(team=guests)
    statement = str(Batch.objects.visible_to(user).query)
    assert f'WHERE "scheduling_batch"."team_id" IN ({desk.team.pk})' in statement
    assert " OR " not in statement
    assert " JOIN " not in statement + str(Batch.objects.visible_to(guest).query)
    again = type(user).objects.get(pk=user.pk)
    with django_assert_num_queries(3):  # the standing once, and each list
        list(Batch.objects.visible_to(again))
        list(Task.objects.visible_to(again))
        again.has_perm(STOP, desk.task)


def test_an_administrator_of_the_installation_passes_everywhere(desk: Desk) -> None:
    batch, administrator = with_output(make.batch(desk.task)), make.user(is_superuser=True)
    for model in SEEN:
        assert set(model.objects.visible_to(administrator)) == set(model.objects.all())
    for thing in (*things_of(batch), desk.team, desk.group, desk.node):
        assert administrator.has_perm(EDIT_TASK, thing)
    assert not make.user(is_superuser=True, is_active=False).has_perm(VIEW, desk.task)


# --- the services that grant -----------------------------------------------------------------------


def test_granting_and_revoking_stand_in_the_journal_of_the_task(desk: Desk) -> None:
    guests, owner = make.team("guests"), make.user(team=desk.team, role="owner")
    services.grant(desk.task, team=guests, permissions=["rerun_task"], by=owner, reason="they load after us")
    services.grant(desk.task, team=guests, permissions=["rerun_task", "view"], by=owner)
    services.revoke(TaskGrant.objects.get(), by=owner, reason="done")
    assert not TaskGrant.objects.exists()
    entries = JournalEntry.objects.filter(object_type="task", object_id=desk.task.pk, user=owner).order_by("id")
    assert [(each.action, each.reason, each.details) for each in entries] == [
        ("granted", "they load after us", {"team": "guests", "permission": "rerun_task"}),
        ("revoked", "done", {"team": "guests", "permission": "rerun_task"}),
    ]


def test_an_action_replaces_the_grant_to_see_which_it_includes(desk: Desk) -> None:
    guests = make.team("guests")
    make.grant(desk.task, "view", to=guests)
    make.grant(desk.task, "stop_task", to=guests)
    assert services.granted_on([desk.task]) == {desk.task.pk: {"guests": ["stop_task"]}}


def test_what_cannot_be_granted_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidDefinition, match=r"grants.warehouse: It owns the task"):
        services.grant(desk.task, team=desk.team, permissions=["view"])
    with pytest.raises(InvalidDefinition, match=r"grants.nobody: There is no such team"):
        services.set_grants(desk.task, {"nobody": ["view"]})


# --- members ---------------------------------------------------------------------------------------


def test_the_roles_decide_who_is_staff(desk: Desk) -> None:
    mei = make.user("mei")
    for role, staff in (("viewer", False), ("developer", True), ("owner", True), ("developer", True)):
        if role == "developer":
            make.user(team=desk.team, role="owner")
        services.set_member(team=desk.team, user=mei, role=role, by="tests")
        mei.refresh_from_db()
        assert mei.is_staff is staff
    services.remove_member(mei.memberships.get(), by="tests", reason="moved")
    mei.refresh_from_db()
    assert not mei.is_staff
    entries = JournalEntry.objects.filter(object_type="team").order_by("id")
    assert [entry.action for entry in entries] == ["joined", *["role_changed"] * 3, "left"]
    assert entries.last().details == {"user": "mei", "role": "developer"}


def test_the_last_owner_stays(desk: Desk) -> None:
    mei = make.user("mei", team=desk.team, role="owner")
    gone = make.user(team=desk.team, role="owner", is_active=False)
    with pytest.raises(LastOwner, match="mei is the last owner of the team warehouse"):
        services.set_member(team=desk.team, user=mei, role="viewer")
    with pytest.raises(LastOwner, match="Make somebody else an owner first"):
        services.remove_member(mei.memberships.get())
    services.remove_member(gone.memberships.get())
    make.user(team=desk.team, role="owner")
    services.set_member(team=desk.team, user=mei, role="viewer")


# --- deleting --------------------------------------------------------------------------------------


def test_what_is_in_use_is_not_deleted_and_what_is_not_is(desk: Desk) -> None:
    make.batch(desk.task)
    for thing, said in (
        (desk.task, "has records of what ran.*Disable it instead"),
        (desk.group, "still has tasks, nodes, records"),
        (desk.team, "still has groups, tasks"),
    ):
        with pytest.raises(StillInUse, match=said):
            services.delete(thing)
    team = make.team()
    unused = make.task(group=make.group(team=team))
    make.grant(unused, to=desk.team)
    for thing in (unused, unused.group, team):
        services.delete(type(thing).objects.get(pk=thing.pk), by="tests", reason="a mistake")
    assert not Team.objects.filter(pk=team.pk).exists()
    entries = JournalEntry.objects.filter(action="deleted", reason="a mistake").order_by("id")
    assert [entry.object_type for entry in entries] == ["task", "deploymentgroup", "team"]
