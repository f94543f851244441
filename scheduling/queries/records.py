"""Named QuerySets of groups, nodes, tasks, batches, instances, executions and logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.contrib.auth import get_user_model
from django.contrib.postgres.expressions import ArraySubquery
from django.db import models
from django.db.models import Count, Exists, F, Func, Max, OuterRef, Q, Subquery
from django.db.models.functions import Extract, JSONObject, Now

from scheduling.queries.reach import within_reach
from scheduling.states import BatchState, InstanceState, NodeState

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class GroupQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="team")


@dataclass(frozen=True)
class Capacity:
    """The nodes of a group that are online, their slots and how many of these are taken."""

    nodes: int
    slots: int
    taken: int


class NodeQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="group__team")

    def online(self) -> Self:
        return self.filter(state=NodeState.ONLINE)

    def capacity(self, instances: InstanceQuerySet) -> Capacity:
        """How much of these nodes could run something now, beside those of `instances` that they execute."""
        online = list(self.online())
        taken = instances.executing().filter(node__in=online).count()
        return Capacity(len(online), sum(node.slots for node in online), taken)

    def silent_for(self, seconds: float) -> Self:
        """Nodes thought alive that have not been heard of for `seconds`."""
        return self.exclude(state=NodeState.OFFLINE).filter(heartbeat_at__lt=Now() - timedelta(seconds=seconds))

    def for_rows(self) -> Self:
        """With what a row shows, group by group."""
        return self.select_related("group__team").in_order()

    def in_order(self) -> Self:
        return self.order_by("group__team__name", "group__name", "name", "pk")


class TaskQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="team", task="pk")

    def suggested(self, typed: str, number: int | None) -> Self:
        """What somebody who typed `typed` may mean: part of a name, or the id `number`."""
        meant = Q(name__icontains=typed) if number is None else Q(name__icontains=typed) | Q(pk=number)
        return self.filter(meant).select_related("group").order_by("name", "pk")

    def late(self, before: datetime) -> Self:
        """Enabled tasks whose due time passed before `before` and that nobody fired, the latest first."""
        return self.filter(enabled=True, next_due_at__lt=before).order_by("next_due_at", "pk")

    def with_last_state(self, batches: models.QuerySet[Any]) -> Self:
        """With `last_state`, the listed state of the newest of `batches` of the task; or None."""
        newest = batches.filter(task=OuterRef("pk")).order_by("-created_at", "-pk")
        return self.annotate(last_state=Subquery(newest.values("listed_state")[:1]))

    def for_rows(self) -> Self:
        """With what a row shows; whatever else a template asks for raises instead of querying row by row."""
        return (
            self.select_related("team", "group", "revision")
            .defer("revision__spec", "revision__parameters", "revision__shards")
            .order_by("name", "pk")
            .fetch_mode(models.FETCH_RAISE)
        )

    def for_page(self) -> Self:
        """With what the page of one task shows."""
        return self.select_related("team", "group", "revision__created_by")


class BatchQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="team", task="task")

    def unfinished(self) -> Self:
        return self.filter(ended_at__isnull=True)

    def for_rows(self) -> Self:
        """With what a row shows; whatever else a template asks for raises instead of querying row by row.

        Of task and group that is the names alone; an object of each for every row took two milliseconds a page.
        """
        return (
            self.annotate(task_name=F("task__name"), group_name=F("group__name"))
            .defer("parameters")
            .fetch_mode(models.FETCH_RAISE)
        )

    def created_between(self, since: datetime | None, until: datetime | None) -> Self:
        """What was begun at or after `since` and before `until`; None is no bound."""
        bounds = {"created_at__gte": since, "created_at__lt": until}
        return self.filter(**{name: moment for name, moment in bounds.items() if moment is not None})

    def failed_between(self, since: datetime, until: datetime) -> Self:
        """What ended failed at or after `since` and before `until`, the oldest first."""
        failed = self.filter(state=BatchState.FAILED, stopped=False, ended_at__gte=since, ended_at__lt=until)
        return failed.order_by("ended_at", "pk")

    def for_rerun(self) -> Self:
        """With what a rerun takes over, down to the nodes that ran the instances."""
        return self.select_related("task__revision", "revision", "group").prefetch_related("instances__node")

    def rerun_before(self) -> int:
        """How many of these have been rerun already."""
        again = self.model._default_manager.filter(rerun_of__in=self.order_by().values("pk"))
        return again.values("rerun_of").distinct().count()

    def for_page(self) -> Self:
        """With what the page of one batch shows; of today's revision not the shards, which may be many."""
        related = ("task__revision", "task__group", "group", "revision", "rerun_of")
        return self.select_related(*related).defer("task__revision__shards")

    def for_changes(self) -> Self:
        """As `for_page`, without the content as it ran, which does not change."""
        return self.for_page().defer("revision__shards")

    def executing(self) -> Self:
        """What runs or is being ended, the longest first."""
        states = [BatchState.RUNNING, BatchState.TERMINATING]
        return self.filter(state__in=states).order_by(F("started_at").asc(nulls_last=True), "pk")

    def waiting_since(self, before: datetime) -> Self:
        """What was begun before `before` and has not started yet, the oldest first."""
        never_began = self.filter(state=BatchState.WAITING, started_at__isnull=True, created_at__lt=before)
        return never_began.order_by("created_at", "pk")

    def with_ahead(self) -> Self:
        """With `ahead`: the oldest unfinished batch of the same task that came before; None without one."""
        of_task = self.model._default_manager.unfinished().filter(task=OuterRef("task"))
        earlier = of_task.filter(pk__lt=OuterRef("pk"))
        return self.annotate(ahead=Subquery(earlier.order_by("pk").values("pk")[:1]))

    def in_front_of(self, batch: Any) -> Self:
        """The unfinished ones of the same task that were begun before `batch`, the oldest first."""
        return self.unfinished().filter(task=batch.task_id, pk__lt=batch.pk).order_by("pk")

    def failures_by_task(self, since: datetime) -> Self:
        """For each task that failed since: `task`, `count`, and `at`, when it failed last; newest first."""
        failed = self.filter(state=BatchState.FAILED, stopped=False, ended_at__gte=since)
        grouped = failed.order_by().values("task").annotate(count=Count("pk"), at=Max("ended_at"))
        return grouped.order_by("-at", "task")

    def failed_at(self, moments: Iterable[datetime]) -> Self:
        """What failed at exactly these moments."""
        return self.filter(state=BatchState.FAILED, stopped=False, ended_at__in=list(moments)).order_by("pk")

    def with_recovered(self) -> Self:
        """With `recovered`: whether a batch of the same task that was begun later has succeeded."""
        # Of every trigger, so that the index of a task's states answers it without a look at other batches.
        triggers = [trigger for trigger, _word in self.model._meta.get_field("trigger").choices]
        later = self.model._default_manager.filter(
            task=OuterRef("task"),
            trigger__in=triggers,
            listed_state=BatchState.SUCCESS,
            created_at__gt=OuterRef("created_at"),
        )
        return self.annotate(recovered=Exists(later))

    def with_failure(self, instances: models.QuerySet[Any]) -> Self:
        """With `failure`: why the first of the `instances` of each batch that did not succeed failed."""
        bad = [InstanceState.FAILED, InstanceState.TIMED_OUT]
        of_batch = instances.filter(batch=OuterRef("pk"), state__in=bad).order_by("number")
        return self.annotate(failure=Subquery(of_batch.values("reason")[:1]))

    def count_up_to(self, most: int) -> int:
        """How many there are, but no more than `most` and one: whoever shows it says "more than"."""
        return self.order_by()[: most + 1].count()


class InstanceQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="batch__team", task="batch__task")

    def executing_by_batch(self, batches: Iterable[Any]) -> dict[int, int]:
        """How many instances of each unfinished batch run or are being ended, in one query."""
        unfinished = [batch.pk for batch in batches if not batch.is_finished]
        counted = self.executing().filter(batch__in=unfinished).order_by().values_list("batch")
        return dict(counted.annotate(Count("pk")))

    def executing(self) -> Self:
        """What runs or is being ended on a node (`claimed` lets the index of what a node holds serve it)."""
        executing = [InstanceState.RUNNING, InstanceState.TERMINATING]
        return self.filter(claimed=True, ended_at__isnull=True, state__in=executing)

    def count_by_node(self, nodes: Iterable[Any]) -> dict[int, int]:
        """How many instances each of `nodes` executes."""
        counted = self.executing().filter(node__in=list(nodes)).order_by().values_list("node")
        return dict(counted.annotate(Count("pk")))

    def waiting(self) -> Self:
        """What waits to be run, by number."""
        return self.filter(state=InstanceState.WAITING).order_by("number")

    def unconfirmed_by_node(self) -> Counter[str]:
        """How many of these each node, by name, was told to end and has not confirmed."""
        told = self.filter(state=InstanceState.TERMINATING, node__isnull=False)
        return Counter(dict(told.order_by().values_list("node__name").annotate(Count("pk"))))

    def only_for(self, node: Any) -> Self:
        """What waits for this one node and can run nowhere else."""
        return self.filter(node=node, pinned=True, state=InstanceState.WAITING)

    def count_by_state(self) -> dict[str, int]:
        return dict(self.order_by().values_list("state").annotate(Count("pk")))

    def for_rows(self) -> Self:
        """With what a row shows; see `BatchQuerySet.for_rows`."""
        return self.select_related("batch", "node").defer("batch__parameters").fetch_mode(models.FETCH_RAISE)


class ExecutionQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return within_reach(self, user, team="instance__batch__team", task="instance__batch__task")

    def live(self) -> Self:
        return self.filter(ended_at__isnull=True)

    def newest_of(self, instances: Iterable[Any]) -> dict[int, int]:
        """The id of the newest execution of each of `instances` that ever ran, in one query."""
        began = [each.pk for each in instances if each.executions_count]
        newest = self.filter(instance__in=began, number=F("instance__executions_count"))
        return dict(newest.order_by().values_list("instance", "pk")) if began else {}


class LogQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        path = "execution__instance__batch"
        return within_reach(self, user, team=f"{path}__team", task=f"{path}__task")


def colleagues_of(user: AbstractBaseUser | AnonymousUser, typed: str) -> models.QuerySet[Any]:
    """The usernames with `typed` in them of those who share a team with `user`, in order."""
    people = get_user_model()._default_manager.filter(is_active=True, username__icontains=typed)
    if not getattr(user, "is_superuser", False):
        people = people.filter(memberships__team__memberships__user=user.pk).distinct()
    return people.order_by("username").values_list("username", flat=True)


# --- the newest of each ------------------------------------------------------------------------------


def newest_runs(
    tasks: models.QuerySet[Any], batches: models.QuerySet[Any], *, size: int
) -> dict[int, list[dict[str, Any]]]:
    """The `size` newest of `batches` of each of `tasks`, newest first, in one query however many there are.

    Each is a map of `pk`, `state` (as listed), `created` (seconds of the epoch) and `took` (seconds, or None).
    """
    newest = batches.filter(task=OuterRef("pk")).order_by("-created_at", "-pk")
    as_map = JSONObject(
        pk="pk",
        state="listed_state",
        # Else Django counts from midnight of 1970 in the reader's zone.
        created=Extract("created_at", "epoch", tzinfo=UTC),
        took=Extract(F("ended_at") - F("started_at"), "epoch"),
    )
    found = tasks.order_by().annotate(runs=as_json(newest.values_list(as_map)[:size]))
    return dict(found.values_list("pk", "runs"))


def as_json(maps: models.QuerySet[Any]) -> Func:
    """The one column of `maps`, JSON objects, as a list for each row of the query around it.

    As one JSON array, which is decoded at once; an array of JSON is so element by element, a thousand a page.
    """
    return Func(ArraySubquery(maps), function="to_jsonb", output_field=models.JSONField())


def executing_on(
    nodes: models.QuerySet[Any], instances: InstanceQuerySet, *, size: int
) -> dict[int, list[dict[str, Any]]]:
    """Up to `size` instances that each of `nodes` executes, the longest running first, in one query.

    Each is a map of `pk`, `state`, `started` (seconds of the epoch) and `task`, the name of its task.
    """
    longest = instances.executing().filter(node=OuterRef("pk")).order_by("started_at", "pk")
    # As a join it would be looked up of all that a node executes, and not of those few.
    task = _batches_of(instances).filter(pk=OuterRef("batch")).values("task__name")
    started = Extract("started_at", "epoch", tzinfo=UTC)
    as_map = JSONObject(pk="pk", state="state", started=started, task=Subquery(task))
    found = nodes.order_by().annotate(executing=as_json(longest.values_list(as_map)[:size]))
    return dict(found.values_list("pk", "executing"))


def _batches_of(instances: InstanceQuerySet) -> models.QuerySet[Any]:
    batch: Any = instances.model._meta.get_field("batch").related_model
    found: models.QuerySet[Any] = batch._default_manager.all()
    return found
