"""Teams: who is in them, what they grant one another, and what is deleted only while it is unused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from scheduling import journal
from scheduling.errors import InvalidDefinition, LastOwner, StillInUse
from scheduling.models import Batch, DeploymentGroup, Membership, Node, Task, TaskGrant, Team
from scheduling.models.teams import Granted, Role

# Roles that may enter the administration.
STAFF_ROLES = (Role.DEVELOPER, Role.OWNER)


# --- members ---------------------------------------------------------------------------------------


@transaction.atomic
def set_member(*, team: Team, user: Any, role: str, by: journal.By = None, reason: str = "") -> Membership:
    """Make `user` a member of `team` in `role`, or give a member another role.

    Raises LastOwner when the team would be left without an owner.
    """
    _lock(team)
    membership = Membership.objects.filter(team=team, user=user).first()
    if membership is not None and membership.role == role:
        return membership
    if membership is None:
        membership = Membership.objects.create(team=team, user=user, role=role)
        action = "joined"
    else:
        _keep_an_owner(membership)
        membership.role = role
        membership.save(update_fields=["role"])
        action = "role_changed"
    settle_staff(user)
    journal.record(action, team, by, reason=reason, details={"user": user.get_username(), "role": role})
    return membership


@transaction.atomic
def remove_member(membership: Membership, *, by: journal.By = None, reason: str = "") -> None:
    """Take somebody out of a team. Raises LastOwner when the team would be left without an owner."""
    _lock(membership.team)
    membership = Membership.objects.select_related("team", "user").get(pk=membership.pk)
    _keep_an_owner(membership)
    team, user, role = membership.team, membership.user, membership.role
    membership.delete()
    settle_staff(user)
    journal.record("left", team, by, reason=reason, details={"user": user.get_username(), "role": role})


def _keep_an_owner(leaving: Membership) -> None:
    others = Membership.objects.filter(team=leaving.team_id, role=Role.OWNER, user__is_active=True)
    if leaving.role == Role.OWNER and not others.exclude(pk=leaving.pk).exists():
        raise LastOwner(
            _("%(user)s is the last owner of the team %(team)s. Make somebody else an owner first.")
            % {"user": leaving.user.get_username(), "team": leaving.team.name}
        )


def settle_staff(user: Any) -> None:
    """Django's own mark of who may enter the administration follows from the roles."""
    staff = user.is_superuser or Membership.objects.filter(user=user, role__in=STAFF_ROLES).exists()
    if user.is_staff != staff:
        user.is_staff = staff
        user.save(update_fields=["is_staff"])


def _lock(team: Team) -> None:
    # Two owners who leave at once would each see the other stay.
    Team.objects.select_for_update(no_key=True).only("pk").get(pk=team.pk)


# --- grants ----------------------------------------------------------------------------------------


def canonical(permissions: Iterable[str]) -> list[str]:
    """`permissions` (values of Granted) once each, in one order; acting includes seeing, which is left out."""
    given = set(permissions)
    acting = [each.value for each in Granted if each in given and each != Granted.VIEW]
    return acting or [Granted.VIEW.value] * (Granted.VIEW in given)


@transaction.atomic
def set_grants(
    task: Task, wanted: Mapping[str, Iterable[str]], *, by: journal.By = None, reason: str = ""
) -> None:
    """Make `wanted` (permissions by the name of the team) exactly what is granted on `task`.

    Raises InvalidDefinition, its fields `grants.<team>`, for a team that does not exist or owns the task.
    """
    task = Task.objects.select_for_update(no_key=True, of=("self",)).select_related("team").get(pk=task.pk)
    teams = {team.name: team for team in Team.objects.filter(name__in=wanted)}
    errors = {f"grants.{name}": _("There is no such team.") for name in wanted if name not in teams}
    if task.team.name in wanted:
        errors[f"grants.{task.team.name}"] = _("It owns the task; grants are for other teams.")
    if errors:
        raise InvalidDefinition(errors)
    goal = {(teams[name].pk, each) for name, listed in wanted.items() for each in canonical(listed)}
    present = {(grant.team_id, grant.permission): grant for grant in task.grants.select_related("team")}
    for key, grant in present.items():
        if key not in goal:
            grant.delete()
            _record("revoked", grant, by, reason)
    who = journal.actor(by).name
    for team_id, permission in sorted(goal - present.keys()):
        made = TaskGrant.objects.create(task=task, team_id=team_id, permission=permission, granted_by=who)
        _record("granted", made, by, reason)


def grant(
    task: Task, *, team: Team, permissions: Iterable[str], by: journal.By = None, reason: str = ""
) -> None:
    """Grant `permissions` (values of Granted) on `task` to `team`, beside what it was granted already."""
    with transaction.atomic():
        Task.objects.select_for_update(no_key=True).only("pk").get(pk=task.pk)
        wanted = granted_on([task]).get(task.pk, {})
        wanted[team.name] = [*wanted.get(team.name, ()), *permissions]
        set_grants(task, wanted, by=by, reason=reason)


@transaction.atomic
def revoke(given: TaskGrant, *, by: journal.By = None, reason: str = "") -> None:
    """Take one grant back."""
    given = TaskGrant.objects.select_related("task", "team").select_for_update(of=("self",)).get(pk=given.pk)
    given.delete()
    _record("revoked", given, by, reason)


def granted_on(tasks: Iterable[Task]) -> dict[int, dict[str, list[str]]]:
    """What is granted on each of `tasks`, by its id and the name of the team; tasks without are left out."""
    found: dict[int, dict[str, list[str]]] = {}
    rows = TaskGrant.objects.filter(task__in=tasks).values_list("task_id", "team__name", "permission")
    # Sorted here: the order must not depend on the server's collation.
    for task, team, permission in sorted(rows):
        found.setdefault(task, {}).setdefault(team, []).append(permission)
    return {
        task: {team: canonical(permissions) for team, permissions in by_team.items()}
        for task, by_team in found.items()
    }


def _record(action: str, given: TaskGrant, by: journal.By, reason: str) -> None:
    details = {"team": given.team.name, "permission": given.permission}
    journal.record(action, given.task, by, reason=reason, details=details)


# --- what is made and deleted here -----------------------------------------------------------------


@transaction.atomic
def create_team(*, name: str, by: journal.By = None, reason: str = "") -> Team:
    """A new team without members; an administrator or the shell gives it its first owner."""
    team = Team.objects.create(name=name)
    journal.record("created", team, by, reason=reason)
    return team


@transaction.atomic
def create_group(*, team: Team, name: str, by: journal.By = None, reason: str = "") -> DeploymentGroup:
    """A new deployment group, without nodes."""
    group = DeploymentGroup.objects.create(team=team, name=name)
    journal.record("created", group, by, reason=reason)
    return group


@transaction.atomic
def delete(thing: Team | DeploymentGroup | Task, *, by: journal.By = None, reason: str = "") -> None:
    """Delete a team, group or task that nothing refers to any more.

    A task with records is not deleted, since they say what ran: disable it, and delete it when its records are
    past their retention. Raises StillInUse, with what uses it.
    """
    locked: Any = type(thing)._default_manager.select_for_update(of=("self",)).get(pk=thing.pk)
    if used := use_of(locked):
        raise StillInUse(used)
    journal.record("deleted", locked, by, reason=reason)
    if isinstance(locked, Task):
        Task.objects.filter(pk=locked.pk).update(revision=None)
        locked.revision = None
    locked.delete()


# What apps above say of the use that they make of a thing, as `use_of` does; each adds a function of its own.
USES: list[Callable[[Any], str]] = []


def use_of(thing: Team | DeploymentGroup | Task) -> str:
    """What keeps `thing` from being deleted, and what to do instead; empty when nothing does."""
    return _use_here(thing) or next(filter(None, (use(thing) for use in USES)), "")


def _use_here(thing: Team | DeploymentGroup | Task) -> str:
    match thing:
        case Task():
            if Batch.objects.filter(task=thing).exists():
                return _(
                    "The task %(name)s has records of what ran, which stay until their retention ends. "
                    "Disable it instead; a disabled task does not run by itself."
                ) % {"name": thing.name}
        case DeploymentGroup():
            users = {
                _("tasks"): Task.objects.filter(group=thing),
                _("nodes"): Node.objects.filter(group=thing),
                _("records"): Batch.objects.filter(group=thing),
            }
            if used := [word for word, rows in users.items() if rows.exists()]:
                return _("The group %(name)s still has %(used)s. Move or delete them first.") % {
                    "name": thing.name,
                    "used": ", ".join(used),
                }
        case Team():
            users = {
                _("groups"): DeploymentGroup.objects.filter(team=thing),
                _("tasks"): Task.objects.filter(team=thing),
            }
            if used := [word for word, rows in users.items() if rows.exists()]:
                return _("The team %(name)s still has %(used)s. Delete them first.") % {
                    "name": thing.name,
                    "used": ", ".join(used),
                }
    return ""
