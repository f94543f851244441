"""Named QuerySets of workflows, cycle instances, node runs and backfills; pages go through `visible_to`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.db.models import Case, Count, Exists, F, Max, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Extract, JSONObject, TruncDate

from scheduling.queries.reach import within_reach
from scheduling.queries.records import as_json
from workflows.states import CycleState, NodeRunState

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class WorkflowQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="team")

    def locked(self, ids: Iterable[int], *, wait: bool = True) -> dict[int, Any]:
        """These workflows by id, locked in the one order in which everybody locks them.

        Without `wait`, those alone that nobody else holds.
        """
        found = self.filter(pk__in=sorted(set(ids))).order_by("pk")
        rows = found.select_for_update(no_key=True, skip_locked=not wait)
        # Not joined: that would show no revision where somebody edited while this waited for the lock.
        return {row.pk: row for row in rows.prefetch_related("revision")}

    def depending_on(self, workflow_ids: Iterable[int]) -> Self:
        """Workflows whose current revision depends on one of these, themselves left out."""
        ids = list(workflow_ids)
        return self.filter(revision__dependencies__upstream__in=ids).exclude(pk__in=ids).distinct()

    def suggested(self, typed: str, number: int | None) -> Self:
        """What somebody who typed `typed` may mean: part of a name, or the id `number`."""
        meant = Q(name__icontains=typed) if number is None else Q(name__icontains=typed) | Q(pk=number)
        return self.filter(meant).select_related("team").order_by("name", "pk")

    def with_last_state(self, now: datetime) -> Self:
        """With `last_state`: how the newest cycle that has come stands, by its effective run; or None."""
        cycles: Any = self.model._meta.apps.get_model("workflows", "Cycle")._default_manager
        newest = cycles.filter(workflow=OuterRef("pk"), cycle_time__lte=now, effective__isnull=False)
        return self.annotate(last_state=Subquery(newest.order_by("-cycle_time").values("effective__state")[:1]))

    def for_rows(self) -> Self:
        """With what a row shows; whatever else a template asks for raises instead of querying row by row."""
        return self.select_related("team", "revision").order_by("name", "pk").fetch_mode(models.FETCH_RAISE)

    def for_page(self) -> Self:
        """With what the page of one workflow shows."""
        return self.select_related("team", "revision__created_by")


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
        """With what a row shows; whatever else a template asks for raises instead of querying row by row.

        Of workflow, team and revision that is a text each, as for batches.
        """
        texts = {"workflow_name": "workflow__name", "team_name": "team__name", "zone": "revision__timezone"}
        return (
            self.annotate(**{name: F(path) for name, path in texts.items()})
            .select_related("cycle")
            .defer("parameters")
            .fetch_mode(models.FETCH_RAISE)
        )

    def cycle_between(self, since: datetime | None, until: datetime | None) -> Self:
        """Those whose cycle time is at or after `since` and before `until`; None is no bound."""
        bounds = {"cycle_time__gte": since, "cycle_time__lt": until}
        return self.filter(**{name: moment for name, moment in bounds.items() if moment is not None})

    def for_bulk(self) -> Self:
        """With what the question about many says of each, newest first."""
        return self.select_related("workflow", "revision", "cycle").order_by("-cycle_time", "-pk")

    def count_by_state(self) -> dict[str, int]:
        return dict(self.order_by().values_list("state").annotate(Count("pk")))

    def failures_by_workflow(self, since: datetime) -> Self:
        """`workflow`, `count` and `at`, the last, of effective runs that failed since; newest first."""
        failed = self.filter(state=CycleState.FAILED, ended_at__gte=since).exclude(run_type="test").effective()
        grouped = failed.order_by().values("workflow").annotate(count=Count("pk"), at=Max("ended_at"))
        return grouped.order_by("-at", "workflow")

    def effective(self) -> Self:
        """Those whose result is the one that counts for their cycle."""
        return self.filter(cycle__effective=F("pk"))

    def failed_at(self, moments: Iterable[datetime]) -> Self:
        """What failed at exactly these moments."""
        return self.filter(state=CycleState.FAILED, ended_at__in=list(moments)).order_by("pk")

    def late(self, before: datetime) -> Self:
        """Scheduled ones whose time came before `before` and that have not begun, the longest ago first."""
        waiting = Q(state=CycleState.NOT_READY, due=True) | Q(state=CycleState.READY)
        found = self.filter(waiting, online=True, due_at__lt=before, workflow__enabled=True)
        return found.order_by("due_at", "pk")

    def with_unmet(self) -> Self:
        """With `unmet`: the oldest upstream cycle, by its id, that has not succeeded; None when all have."""
        dependencies: Any = self.model._meta.apps.get_model("workflows", "CycleDependency")._default_manager
        unmet = dependencies.filter(cycle=OuterRef("cycle"), upstream__succeeded=False)
        oldest = unmet.order_by("upstream__cycle_time").values("upstream")[:1]
        return self.annotate(unmet=Subquery(oldest))

    def count_up_to(self, most: int) -> int:
        """How many there are, but no more than `most` and one: whoever shows it says "more than"."""
        return self.order_by()[: most + 1].count()


class NodeRunQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="instance__team")

    def unfinished(self) -> Self:
        return self.filter(ended_at__isnull=True)

    def running(self) -> Self:
        return self.filter(state=NodeRunState.RUNNING)

    def only_stopped(self) -> bool:
        """Whether some of them were stopped by somebody, and no other of them failed."""
        stopped = Q(state=NodeRunState.TERMINATED, batch__stopped=True)
        bad = [NodeRunState.FAILED, NodeRunState.TIMED_OUT, NodeRunState.TERMINATED]
        found = set(self.filter(state__in=bad).values_list(Case(When(stopped, then=True), default=False)))
        return found == {(True,)}

    def with_error(self, executions: models.QuerySet[Any]) -> Self:
        """With `error`: the newest error among the `executions` of each node's batch, or None."""
        failed = executions.filter(instance__batch=OuterRef("batch")).exclude(error="")
        return self.annotate(error=Subquery(failed.order_by("-ended_at", "-pk").values("error")[:1]))

    def running_by_instance(self, instances: Iterable[Any]) -> dict[int, int]:
        """How many nodes of each running instance run, in one query."""
        of = [each.pk for each in instances if each.state == CycleState.RUNNING]
        counted = self.running().filter(instance__in=of).order_by().values_list("instance")
        return dict(counted.annotate(Count("pk")))


class BackfillQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="team")

    def unfinished(self) -> Self:
        return self.filter(ended_at__isnull=True)

    def for_rows(self) -> Self:
        """With what a row shows; whatever else a template asks for raises instead of querying row by row."""
        return self.select_related("workflow", "team").fetch_mode(models.FETCH_RAISE)


# --- cycles, which have no QuerySet of their own -----------------------------------------------------


def newest_cycles(
    workflows: models.QuerySet[Any], cycles: models.QuerySet[Any], now: datetime, *, size: int
) -> dict[int, list[dict[str, Any]]]:
    """The `size` newest of `cycles` of each of `workflows` that have come, newest first, in one query.

    Each is a map of its effective run's `pk`, `state` and `took` (seconds, or None), and `at`, the cycle time
    (seconds of the epoch).
    """
    come = cycles.filter(workflow=OuterRef("pk"), cycle_time__lte=now, effective__isnull=False)
    as_map = JSONObject(
        pk="effective",
        state="effective__state",
        # Else Django counts from midnight of 1970 in the reader's zone.
        at=Extract("cycle_time", "epoch", tzinfo=UTC),
        took=Extract(F("effective__ended_at") - F("effective__started_at"), "epoch"),
    )
    found = workflows.order_by().annotate(
        newest=as_json(come.order_by("-cycle_time").values_list(as_map)[:size])
    )
    return dict(found.values_list("pk", "newest"))


def cycles_by_day(
    cycles: models.QuerySet[Any], workflow: Any, since: datetime, until: datetime, zone: Any
) -> dict[tuple[Any, str], int]:
    """How many cycles of a workflow there are by (day in `zone`, state of the effective run)."""
    come = cycles.filter(workflow=workflow, cycle_time__gte=since, cycle_time__lte=until)
    effective: Any = cycles.model._meta.get_field("effective").related_model
    # Of what succeeded, which is nearly all, the cycle itself tells; only the others are looked up, one by one.
    # A join of thousands of cycles would be with all instances of all workflows.
    state = effective._default_manager.filter(pk=OuterRef("effective")).values("state")
    stands_as = Case(When(succeeded=True, then=Value(CycleState.SUCCESS.value)), default=Subquery(state))
    days = come.filter(effective__isnull=False).annotate(
        day=TruncDate("cycle_time", tzinfo=zone), stands_as=stands_as
    )
    counted = days.order_by().values_list("day", "stands_as").annotate(Count("pk"))
    return {(day, state): count for day, state, count in counted}


def counts_by_backfill(instances: models.QuerySet[Any], backfills: Iterable[Any]) -> dict[int, dict[str, int]]:
    """How many instances of each of `backfills` are in which state, in one query."""
    counted = instances.filter(backfill__in=[each.pk for each in backfills]).order_by()
    found: dict[int, dict[str, int]] = {}
    for backfill, state, count in counted.values_list("backfill", "state").annotate(Count("pk")):
        found.setdefault(backfill, {})[state] = count
    return found
