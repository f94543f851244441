"""Where a user stands: their roles in teams, and what other teams granted to these teams.

Read once for each user object, which is once a request, as Django does with its permissions: queries then get
the ids of teams and tasks as constants and join no big table. Models are looked up by name, since queries need
this, and models import queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


@dataclass(frozen=True)
class Standing:
    """`roles` by team id; `grants` by task id, each a (team id granted to, permission without its prefix).

    `beyond` are the tasks among the granted that no team of the user owns: what the roles do not show already.
    """

    roles: Mapping[int, str]
    grants: Mapping[int, tuple[tuple[int, str], ...]]
    beyond: tuple[int, ...] = ()


def standing_of(user: AbstractBaseUser | AnonymousUser) -> Standing:
    """The standing of `user`, read once in the life of the object."""
    standing: Standing | None = getattr(user, "_tailrace_standing", None)
    if standing is None:
        standing = _read(user)
        user._tailrace_standing = standing  # type: ignore[union-attr]
    return standing


def _read(user: AbstractBaseUser | AnonymousUser) -> Standing:
    if user.pk is None:
        return Standing({}, {})
    memberships: Any = apps.get_model("scheduling", "Membership")._default_manager
    # One question for both: a row a grant, and one without for each team that was granted nothing.
    rows = memberships.filter(user=user.pk).values_list(
        "team_id",
        "role",
        "team__granted__task_id",
        "team__granted__permission",
        "team__granted__task__team_id",
    )
    roles: dict[int, str] = {}
    grants: dict[int, tuple[tuple[int, str], ...]] = {}
    owners: dict[int, int] = {}
    for team, role, task, permission, owner in rows:
        roles[team] = role
        if task is not None:
            grants[task] = (*grants.get(task, ()), (team, permission))
            owners[task] = owner
    return Standing(roles, grants, tuple(sorted(task for task in grants if owners[task] not in roles)))
