"""Who may do what: roles in teams, answered through Django's `user.has_perm(permission, object)`.

A view looks a thing up with `visible` or `authorised`, which fetch *and* authorise in one place: what the
user may not see is a 404, what they see but may not touch a 403 that names the permission.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AbstractBaseUser, AbstractUser, AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from scheduling.models import Membership, Team
from scheduling.models.teams import Role

type User = AbstractUser | AnonymousUser

RUN = "scheduling.run_task"
STOP = "scheduling.stop_task"
RERUN = "scheduling.rerun_task"
EDIT = "scheduling.edit_task"
DRAIN = "scheduling.drain_node"

# What each role adds to the ones before it.
_ADDED = {
    Role.VIEWER: {"scheduling.view"},
    Role.OPERATOR: {RUN, STOP, RERUN, DRAIN},
    Role.DEVELOPER: {EDIT},
    Role.OWNER: {"scheduling.edit_team"},
}


def granted_by(role: str) -> frozenset[str]:
    """Every permission that `role` carries."""
    granted: set[str] = set()
    for each, added in _ADDED.items():
        granted |= added
        if each == role:
            return frozenset(granted)
    return frozenset()


def team_of(thing: Model) -> int | None:
    """The id of the team that owns `thing` (a team, group, node, task, batch, instance or execution)."""
    # An instance has a batch and a group: the batch first, as pages have it loaded.
    for path in (
        ("team_id",),
        ("batch", "team_id"),
        ("group", "team_id"),
        ("instance", "batch", "team_id"),
    ):
        found: Any = thing
        for name in path:
            found = getattr(found, name, None)
            if found is None:
                break
        else:
            return int(found)
    return thing.pk if thing._meta.model_name == "team" else None


def roles_of(user: AbstractBaseUser | AnonymousUser) -> dict[int, str]:
    """The user's role by team id; read once for each user object, as Django does with its permissions."""
    roles: dict[int, str] | None = getattr(user, "_tailrace_roles", None)
    if roles is None:
        roles = dict(Membership.objects.filter(user=user.pk).values_list("team_id", "role"))
        user._tailrace_roles = roles  # type: ignore[union-attr]
    return roles


class TeamBackend(BaseBackend):
    """Answers `has_perm` for one object by the user's role in the team that owns it."""

    def has_perm(self, user_obj: AbstractBaseUser | AnonymousUser, perm: str, obj: Model | None = None) -> bool:
        if obj is None or not user_obj.is_authenticated or not user_obj.is_active:
            return False
        team = team_of(obj)
        role = None if team is None else roles_of(user_obj).get(team)
        return role is not None and perm in granted_by(role)


def places_of(user: User) -> dict[str, list[int]]:
    """Where the batches are that `user` sees, as `queries.Ranges` takes it: the ids of teams."""
    if not user.is_active:
        return {"team": []}
    if user.is_superuser:
        return {"team": list(Team.objects.values_list("pk", flat=True))}
    return {"team": sorted(roles_of(user))}


def visible(queryset: Any, user: User, **lookup: Any) -> Any:
    """The one object of `queryset` that `lookup` names; Http404 when there is none that `user` may see."""
    return get_object_or_404(queryset.visible_to(user), **lookup)


def authorised(queryset: Any, user: Any, permission: str, **lookup: Any) -> Any:
    """Like `visible`, and PermissionDenied (403, naming `permission`) when the user may not do that to it."""
    thing: Model = visible(queryset, user, **lookup)
    if not user.has_perm(permission, thing):
        raise PermissionDenied(
            _("You need the permission %(permission)s in the team that owns this. Ask an owner of the team.")
            % {"permission": permission}
        )
    return thing
