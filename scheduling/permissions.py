"""Who may do what: roles in teams, answered through Django's `user.has_perm(permission, object)`."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Model

from scheduling.models import Membership
from scheduling.models.teams import Role

# What each role adds to the ones before it.
_ADDED = {
    Role.VIEWER: {"scheduling.view"},
    Role.OPERATOR: {
        "scheduling.run_task",
        "scheduling.stop_task",
        "scheduling.rerun_task",
        "scheduling.drain_node",
    },
    Role.DEVELOPER: {"scheduling.edit_task"},
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
    for path in (
        ("team_id",),
        ("group", "team_id"),
        ("batch", "team_id"),
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


class TeamBackend(BaseBackend):
    """Answers `has_perm` for one object by the user's role in the team that owns it."""

    def has_perm(self, user_obj: AbstractBaseUser | AnonymousUser, perm: str, obj: Model | None = None) -> bool:
        if obj is None or not user_obj.is_authenticated or not user_obj.is_active:
            return False
        team = team_of(obj)
        role = Membership.objects.filter(user=user_obj.pk, team=team).values_list("role", flat=True).first()
        return role is not None and perm in granted_by(role)
