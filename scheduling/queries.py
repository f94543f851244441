"""Named QuerySets. Every list and look-up of a page goes through `visible_to`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.utils import timezone

from scheduling.states import BATCH, NodeState

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


def _within_teams(queryset: Any, user: AbstractBaseUser | AnonymousUser, team_path: str) -> Any:
    if getattr(user, "is_superuser", False):
        return queryset
    return queryset.filter(**{f"{team_path}__memberships__user": user.pk})


class GroupQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "team")  # type: ignore[no-any-return]


class NodeQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "group__team")  # type: ignore[no-any-return]

    def online(self) -> Self:
        return self.filter(state=NodeState.ONLINE)

    def silent_for(self, seconds: float) -> Self:
        """Nodes thought alive that have not been heard of for `seconds`."""
        return self.exclude(state=NodeState.OFFLINE).filter(
            heartbeat_at__lt=timezone.now() - timedelta(seconds=seconds)
        )


class TaskQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "team")  # type: ignore[no-any-return]


class BatchQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "team")  # type: ignore[no-any-return]

    def unfinished(self) -> Self:
        return self.filter(state__in=sorted(BATCH.unfinished))


class InstanceQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "batch__team")  # type: ignore[no-any-return]


class ExecutionQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "instance__batch__team")  # type: ignore[no-any-return]

    def live(self) -> Self:
        return self.filter(ended_at__isnull=True)
