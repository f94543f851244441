import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404

from scheduling.models import Batch, DeploymentGroup, Execution, Instance, Node, Task
from scheduling.permissions import RERUN, STOP, authorised, visible
from tests import factories as make
from tests.web.conftest import Desk


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


@pytest.mark.parametrize("model", [DeploymentGroup, Node, Task, Batch, Instance, Execution])
def test_strangers_and_inactive_users_see_nothing_of_any_team(desk: Desk, model: type) -> None:
    make.start_batch(make.batch(make.task(group=make.group())))  # of a team without members
    make.start_batch(make.batch(desk.task))
    for nobody in (AnonymousUser(), make.user(team=desk.team, is_active=False), make.user()):
        assert not model.objects.visible_to(nobody).exists()
    assert model.objects.visible_to(make.user(team=desk.team)).exists()


def test_a_lookup_hides_what_is_not_visible_and_names_the_permission_that_lacks(desk: Desk) -> None:
    viewer, outsider = make.user(team=desk.team, role="viewer"), make.user(team=make.team(), role="owner")
    assert visible(Task.objects, viewer, pk=desk.task.pk) == desk.task
    with pytest.raises(Http404):
        authorised(Task.objects, outsider, STOP, pk=desk.task.pk)
    with pytest.raises(PermissionDenied, match=STOP):
        authorised(Task.objects, viewer, STOP, pk=desk.task.pk)
    assert authorised(Task.objects, make.user(team=desk.team), STOP, pk=desk.task.pk) == desk.task
