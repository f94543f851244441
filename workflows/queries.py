"""Named QuerySets of workflows, cycle instances, node runs and backfills; pages go through `visible_to`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.db.models import Count, Exists, OuterRef

from scheduling.queries.reach import within_reach
from workflows.states import CycleState, NodeRunState

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class WorkflowQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="team")

    def locked(self, ids: Iterable[int]) -> dict[int, Any]:
        """These workflows by id, locked in the one order in which everybody locks them."""
        rows = self.filter(pk__in=sorted(set(ids))).order_by("pk").select_for_update(no_key=True)
        # Not joined: that would show no revision where somebody edited while this waited for the lock.
        return {row.pk: row for row in rows.prefetch_related("revision")}

    def depending_on(self, workflow_ids: Iterable[int]) -> Self:
        """Workflows whose current revision depends on one of these, themselves left out."""
        ids = list(workflow_ids)
        return self.filter(revision__dependencies__upstream__in=ids).exclude(pk__in=ids).distinct()


class CycleInstanceQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="team")

    def unfinished(self) -> Self:
        return self.filter(ended_at__isnull=True)

    def not_ready_of(self, cycle_ids: Iterable[int]) -> Self:
        """Instances of these cycles that wait to become ready."""
        return self.filter(cycle__in=list(cycle_ids), state=CycleState.NOT_READY, ended_at__isnull=True)

    def fallen_due(self, now: datetime) -> Self:
        """Instances whose time came since the clock was last looked at, the longest ago first."""
        waiting = self.filter(state=CycleState.NOT_READY, due=False, due_at__lte=now)
        return waiting.order_by("due_at")

    def with_upstream_met(self) -> Self:
        """Those that wait for no upstream cycle, or whose upstream cycles all succeeded."""
        dependencies: Any = self.model._meta.apps.get_model("workflows", "CycleDependency")._default_manager
        unmet = dependencies.filter(cycle=OuterRef("cycle"), upstream__succeeded=False)
        return self.filter(models.Q(waits_for_upstream=False) | ~Exists(unmet))

    def startable(self, workflow_id: int) -> Self:
        """Ready instances of a workflow that may begin as soon as there is room, the oldest cycle first."""
        ready = self.filter(workflow=workflow_id, state=CycleState.READY, frozen_at__isnull=True)
        return ready.order_by("cycle_time", "pk")

    def taking_room(self, workflow_id: int) -> int:
        """How many running instances count against the workflow's parallelism; tests do not."""
        running = self.filter(workflow=workflow_id, state=CycleState.RUNNING)
        return int(running.exclude(run_type="test").count())

    def for_rows(self) -> Self:
        """With what a row shows; whatever else a template asks for raises instead of querying row by row."""
        return (
            self.select_related("workflow", "team", "revision")
            .defer("parameters")
            .fetch_mode(models.FETCH_RAISE)
        )

    def count_by_state(self) -> dict[str, int]:
        return dict(self.order_by().values_list("state").annotate(Count("pk")))


class NodeRunQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="instance__team")

    def unfinished(self) -> Self:
        return self.filter(ended_at__isnull=True)

    def running(self) -> Self:
        return self.filter(state=NodeRunState.RUNNING)


class BackfillQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="team")

    def unfinished(self) -> Self:
        return self.filter(ended_at__isnull=True)
