"""The outbox: what somebody may see of it, and its pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db import models

from scheduling.queries.reach import within_reach

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class NotificationQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        """What concerns the teams of `user`; a grant on a task shows its runs, and not who is told of them."""
        return within_reach(self, user, team="team")

    def for_rows(self) -> Self:
        """With what a row of the list shows, and without the texts, which it does not."""
        return self.select_related("team").defer("text")

    def given_up(self) -> Self:
        """What was tried until there was no hope left."""
        return self.filter(state="given_up")
