"""Who may do what: roles in teams, answered through Django's `user.has_perm(permission, object)`.

A role in the team that owns a thing carries the permissions of that role. A grant carries one permission on one
task, with its batches and instances, to the members of another team, each as far as their role *there* goes. An
installation's administrator (Django's superuser) passes every check.

A view looks a thing up with `visible` or `authorised`, which fetch *and* authorise in one place: what the
user may not see is a 404, what they see but may not touch a 403 that names the permission.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AbstractBaseUser, AbstractUser, AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling.models import Team
from scheduling.models.teams import Role
from scheduling.standing import standing_of

type User = AbstractUser | AnonymousUser

PREFIX = "scheduling."
VIEW = "scheduling.view"
RUN = "scheduling.run_task"
STOP = "scheduling.stop_task"
RERUN = "scheduling.rerun_task"
DRAIN = "scheduling.drain_node"
EDIT_TASK = "scheduling.edit_task"
EDIT_TEAM = "scheduling.edit_team"

# Every permission in words.
WORDS: dict[str, Any] = {
    VIEW: gettext_lazy("See"),
    RUN: gettext_lazy("Run tasks"),
    STOP: gettext_lazy("Stop runs"),
    RERUN: gettext_lazy("Rerun"),
    DRAIN: gettext_lazy("Drain nodes"),
    EDIT_TASK: gettext_lazy("Edit tasks and groups"),
    EDIT_TEAM: gettext_lazy("Manage the team"),
}

# What each role adds to the ones before it.
_ADDED: dict[Role, set[str]] = {
    Role.VIEWER: {VIEW},
    Role.OPERATOR: {RUN, STOP, RERUN, DRAIN},
    Role.DEVELOPER: {EDIT_TASK},
    Role.OWNER: {EDIT_TEAM},
}

# Where the team that owns a thing, and the task that it belongs to, are found from it; () is the thing itself.
_TEAM_PATHS: dict[str, tuple[str, ...]] = {
    "team": ("pk",),
    "membership": ("team_id",),
    "deploymentgroup": ("team_id",),
    "node": ("group", "team_id"),
    "task": ("team_id",),
    "taskrevision": ("task", "team_id"),
    "taskgrant": ("task", "team_id"),
    "batch": ("team_id",),
    "instance": ("batch", "team_id"),
    "execution": ("instance", "batch", "team_id"),
    "journalentry": ("team_id",),
    "notification": ("team_id",),
}
_TASK_PATHS: dict[str, tuple[str, ...]] = {
    "task": ("pk",),
    "taskrevision": ("task_id",),
    "batch": ("task_id",),
    "instance": ("batch", "task_id"),
    "execution": ("instance", "batch", "task_id"),
    "journalentry": ("task_id",),
}


def extend(
    words: Mapping[str, Any], added: Mapping[Role, set[str]], team_paths: Mapping[str, tuple[str, ...]]
) -> None:
    """Let an app above have permissions: in words, by the role that adds them, and whose its things are."""
    WORDS.update(words)
    for role, permissions in added.items():
        _ADDED[role] |= permissions
    _TEAM_PATHS.update(team_paths)


def granted_by(role: str) -> frozenset[str]:
    """Every permission that `role` carries."""
    granted: set[str] = set()
    for each, added in _ADDED.items():
        granted |= added
        if each == role:
            return frozenset(granted)
    return frozenset()


def team_of(thing: Model) -> int | None:
    """The id of the team that owns `thing`, whatever of scheduling that is; None for what no team owns."""
    return _follow(thing, _TEAM_PATHS)


def task_of(thing: Model) -> int | None:
    """The id of the task that `thing` is, or belongs to; None when it belongs to none."""
    return _follow(thing, _TASK_PATHS)


def _follow(thing: Model, paths: dict[str, tuple[str, ...]]) -> int | None:
    path = paths.get(thing._meta.model_name or "")
    if path is None:
        return None
    found: Any = thing
    for name in path:
        found = getattr(found, name)
    return None if found is None else int(found)


def in_words(permission: str) -> str:
    """`Stop runs (scheduling.stop_task)`: what a person asks for, and what it is called."""
    return f"{WORDS.get(permission, permission)} ({permission})"


def teams_where(user: User, permission: str) -> frozenset[int]:
    """The ids of the teams in which the role of `user` carries `permission`; a superuser's are all teams."""
    if not user.is_active:
        return frozenset()
    if user.is_superuser:
        return frozenset(Team.objects.values_list("pk", flat=True))
    return frozenset(team for team, role in standing_of(user).roles.items() if permission in granted_by(role))


def may_somewhere(user: User, permission: str) -> bool:
    """Whether the role of `user` carries `permission` in any team; by a grant nobody does more than at home."""
    return user.is_superuser or bool(teams_where(user, permission))


class TeamBackend(BaseBackend):
    """Answers `has_perm` for one object, by the user's role in the team that owns it or by a grant."""

    def has_perm(self, user_obj: AbstractBaseUser | AnonymousUser, perm: str, obj: Model | None = None) -> bool:
        if obj is None or not user_obj.is_authenticated or not user_obj.is_active:
            return False
        standing = standing_of(user_obj)
        team = team_of(obj)
        role = None if team is None else standing.roles.get(team)
        if role is not None and perm in granted_by(role):
            return True
        task = task_of(obj) if standing.grants else None
        grants = standing.grants.get(task, ()) if task is not None else ()
        # Any grant includes seeing; and nobody does more by a grant than at home.
        return any(
            perm in {VIEW, PREFIX + permission} and perm in granted_by(standing.roles[grantee])
            for grantee, permission in grants
        )


class Rights:
    """What one user may do to each of many things: every team, and every granted task, is asked about once."""

    def __init__(self, user: User) -> None:
        self._user = user
        self._granted = () if user.is_superuser else standing_of(user).grants
        self._known: dict[tuple[str, int | None, int | None], bool] = {}

    def has(self, permission: str, thing: Model) -> bool:
        """What `user.has_perm(permission, thing)` says of a thing that a team owns."""
        task = task_of(thing) if self._granted else None
        of = (permission, team_of(thing), task if task in self._granted else None)
        if of not in self._known:
            self._known[of] = self._user.has_perm(permission, thing)
        return self._known[of]


def places_of(user: User) -> dict[str, list[int]]:
    """Where the batches are that `user` sees, as `queries.Ranges` takes it: ids of teams and granted tasks."""
    if not user.is_active:
        return {"team": []}
    if user.is_superuser:
        return {"team": list(Team.objects.values_list("pk", flat=True))}
    standing = standing_of(user)
    granted = {"task": list(standing.beyond)} if standing.beyond else {}
    return {"team": sorted(standing.roles)} | granted


def visible(queryset: Any, user: User, **lookup: Any) -> Any:
    """The one object of `queryset` that `lookup` names; Http404 when there is none that `user` may see."""
    return get_object_or_404(queryset.visible_to(user), **lookup)


def authorised(queryset: Any, user: Any, permission: str, **lookup: Any) -> Any:
    """Like `visible`, and PermissionDenied (403, naming `permission`) when the user may not do that to it."""
    thing: Model = visible(queryset, user, **lookup)
    if not user.has_perm(permission, thing):
        raise denied(permission)
    return thing


def denied(permission: str) -> PermissionDenied:
    """The 403 that says which permission lacks, and whom to ask."""
    return PermissionDenied(
        _("You need the permission %(permission)s here. Ask an owner of the team that owns this.")
        % {"permission": in_words(permission)}
    )
