"""The outbox: what somebody may see of it, and its pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db import models

from scheduling.queries.paging import Cursor, Page, newest_first
from scheduling.queries.reach import within_reach

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class NotificationQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        """What concerns the teams of `user`; a grant on a task shows its runs, and not who is told of them."""
        return within_reach(self, user, team="team")

    def newest(self, *, size: int, older: Cursor | None = None, newer: Cursor | None = None) -> Page[Any]:
        """A page of `size` rows with their teams: the newest, or those older or just newer than a cursor."""
        return newest_first(self.select_related("team"), size=size, older=older, newer=newer)

    def given_up(self) -> Self:
        """What was tried until there was no hope left."""
        return self.filter(state="given_up")
