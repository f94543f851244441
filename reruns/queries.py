"""Named QuerySets of reruns and their items; pages go through `visible_to`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.db.models import Exists, OuterRef, Q

from reruns.states import RERUN, ItemState, RerunState
from scheduling.queries.reach import within_reach
from scheduling.standing import standing_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

ACTIVE = sorted(RERUN.unfinished - {RerunState.DRAFT})


class RerunQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        """Those of one's teams or with a cycle of one's teams; drafts are their author's alone."""
        if user.pk is None or not user.is_active:
            return self.none()
        if getattr(user, "is_superuser", False):
            return self
        teams = sorted(standing_of(user).roles)
        items: Any = self.model._meta.apps.get_model("reruns", "RerunItem")._default_manager
        touching = Exists(items.filter(rerun=OuterRef("pk"), team__in=teams))
        drafts = Q(state=RerunState.DRAFT)
        return self.filter(Q(drafts, requested_by=user.pk) | (~drafts & (Q(team__in=teams) | touching)))

    def active(self) -> Self:
        """Those that were submitted and have not ended: what they hold is theirs."""
        return self.filter(state__in=ACTIVE, ended_at__isnull=True)

    def drafts_of(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return self.filter(state=RerunState.DRAFT, requested_by=user.pk).order_by("-changed_at", "-pk")

    def for_rows(self) -> Self:
        """With what a row shows."""
        return self.select_related("team")

    def locked(self, pk: int) -> Any:
        """This rerun, locked: after workflows and instances, before items."""
        return self.select_for_update(no_key=True).get(pk=pk)


class RerunItemQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="team")

    def owned(self) -> Self:
        """Those whose cycle a rerun holds now."""
        return self.filter(owned=True)

    def waiting(self) -> Self:
        return self.filter(state=ItemState.WAITING)

    def generatable(self) -> Self:
        """Waiting ones whose upstream items all succeeded or were taken out, the earliest wave first."""
        edges: Any = self.model._meta.apps.get_model("reruns", "RerunEdge")._default_manager
        met = [ItemState.SUCCESS, ItemState.CANCELLED]
        unmet = edges.filter(item=OuterRef("pk")).exclude(upstream__state__in=met)
        return self.waiting().filter(~Exists(unmet)).order_by("wave", "cycle_time", "pk")
