"""What somebody may see: the one condition behind every `visible_to`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import Q

from scheduling.standing import standing_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


def within_reach(
    queryset: Any, user: AbstractBaseUser | AnonymousUser, *, team: str, task: str | None = None
) -> Any:
    """What belongs to a team of `user`, or to a task that was granted to one; the paths lead to either."""
    if user.pk is None or not user.is_active:
        return queryset.none()
    if getattr(user, "is_superuser", False):
        return queryset
    standing = standing_of(user)
    # Sorted, so that the same standing always makes the same statement.
    within = Q(**{f"{team}__in": sorted(standing.roles)})
    if task is not None and standing.beyond:
        within |= Q(**{f"{task}__in": standing.beyond})
    return queryset.filter(within)
