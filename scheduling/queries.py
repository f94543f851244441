"""Named QuerySets and keyset pages. Every list and look-up of a page goes through `visible_to`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.contrib.auth import get_user_model
from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection, models
from django.db.models import Count, F, Max, OuterRef, Q, Subquery
from django.db.models.functions import Extract, JSONObject, Now

from scheduling.standing import standing_of
from scheduling.states import BatchState, InstanceState, NodeState

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


_MOMENT: models.Field[datetime, datetime] = models.DateTimeField()


def _within_reach(
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


class GroupQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_reach(self, user, team="team")


class NodeQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_reach(self, user, team="group__team")

    def online(self) -> Self:
        return self.filter(state=NodeState.ONLINE)

    def silent_for(self, seconds: float) -> Self:
        """Nodes thought alive that have not been heard of for `seconds`."""
        return self.exclude(state=NodeState.OFFLINE).filter(heartbeat_at__lt=Now() - timedelta(seconds=seconds))

    def for_rows(self) -> Self:
        """With what a row shows, group by group."""
        return self.select_related("group__team").order_by("group__team__name", "group__name", "name", "pk")


class TaskQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_reach(self, user, team="team", task="pk")

    def suggested(self, typed: str, number: int | None) -> Self:
        """What somebody who typed `typed` may mean: part of a name, or the id `number`."""
        meant = Q(name__icontains=typed) if number is None else Q(name__icontains=typed) | Q(pk=number)
        return self.filter(meant).select_related("group").order_by("name", "pk")

    def late(self, before: datetime) -> Self:
        """Enabled tasks whose due time passed before `before` and that nobody fired, the latest first."""
        return self.filter(enabled=True, next_due_at__lt=before).order_by("next_due_at", "pk")

    def with_last_state(self, batches: models.QuerySet[Any]) -> Self:
        """With `last_state`, the state of the newest of `batches` of the task; None when there is none."""
        newest = batches.filter(task=OuterRef("pk")).order_by("-created_at", "-pk")
        return self.annotate(last_state=Subquery(newest.values("state")[:1]))

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
        return _within_reach(self, user, team="team", task="task")

    def unfinished(self) -> Self:
        return self.filter(ended_at__isnull=True)

    def for_rows(self) -> Self:
        """With what a row shows; whatever else a template asks for raises instead of querying row by row."""
        return (
            self.select_related("task", "group")
            .defer("parameters", "task__next_due_at", "task__created_at")
            .fetch_mode(models.FETCH_RAISE)
        )

    def created_between(self, since: datetime | None, until: datetime | None) -> Self:
        """What was begun at or after `since` and before `until`; None is no bound."""
        bounds = {"created_at__gte": since, "created_at__lt": until}
        return self.filter(**{name: moment for name, moment in bounds.items() if moment is not None})

    def failed_between(self, since: datetime, until: datetime) -> Self:
        """What ended failed at or after `since` and before `until`, the oldest first."""
        failed = self.filter(state=BatchState.FAILED, ended_at__gte=since, ended_at__lt=until)
        return failed.order_by("ended_at", "pk")

    def for_rerun(self) -> Self:
        """With what a rerun takes over, down to the nodes that ran the instances."""
        return self.select_related("task__revision", "revision", "group").prefetch_related("instances__node")

    def rerun_before(self) -> int:
        """How many of these have been rerun already."""
        again = self.model._default_manager.filter(rerun_of__in=self.order_by().values("pk"))
        return again.values("rerun_of").distinct().count()

    def for_page(self) -> Self:
        """With what the page of one batch shows."""
        return self.select_related("task__revision", "task__group", "group", "revision", "rerun_of")

    def executing(self) -> Self:
        """What runs or is being ended, the longest first."""
        states = [BatchState.RUNNING, BatchState.TERMINATING]
        return self.filter(state__in=states).order_by(F("started_at").asc(nulls_last=True), "pk")

    def waiting_since(self, before: datetime) -> Self:
        """What was begun before `before` and has not started yet, the oldest first."""
        return self.filter(state=BatchState.WAITING, created_at__lt=before).order_by("created_at", "pk")

    def with_ahead(self) -> Self:
        """With `ahead`: the oldest unfinished batch of the same task that came before; None without one."""
        of_task = self.model._default_manager.unfinished().filter(task=OuterRef("task"))
        earlier = of_task.filter(pk__lt=OuterRef("pk"))
        return self.annotate(ahead=Subquery(earlier.order_by("pk").values("pk")[:1]))

    def failures_by_task(self, since: datetime) -> Self:
        """For each task that failed since: `task`, `count`, and `at`, when it failed last; newest first."""
        failed = self.filter(state=BatchState.FAILED, ended_at__gte=since)
        grouped = failed.order_by().values("task").annotate(count=Count("pk"), at=Max("ended_at"))
        return grouped.order_by("-at", "task")

    def failed_at(self, moments: Iterable[datetime]) -> Self:
        """What failed at exactly these moments."""
        return self.filter(state=BatchState.FAILED, ended_at__in=list(moments)).order_by("pk")

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
        return _within_reach(self, user, team="batch__team", task="batch__task")

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
        return _within_reach(self, user, team="instance__batch__team", task="instance__batch__task")

    def live(self) -> Self:
        return self.filter(ended_at__isnull=True)


class LogQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        path = "execution__instance__batch"
        return _within_reach(self, user, team=f"{path}__team", task=f"{path}__task")


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

    Each is a map of `pk`, `state`, `created` (seconds of the epoch) and `took` (seconds, or None).
    """
    newest = batches.filter(task=OuterRef("pk")).order_by("-created_at", "-pk")
    as_map = JSONObject(
        pk="pk",
        state="state",
        created=Extract("created_at", "epoch"),
        took=Extract(F("ended_at") - F("started_at"), "epoch"),
    )
    found = tasks.order_by().annotate(runs=ArraySubquery(newest.values_list(as_map)[:size]))
    return dict(found.values_list("pk", "runs"))


def executing_on(
    nodes: models.QuerySet[Any], instances: InstanceQuerySet, *, size: int
) -> dict[int, list[int]]:
    """The ids of up to `size` instances that each of `nodes` executes, the longest running first."""
    longest = instances.executing().filter(node=OuterRef("pk")).order_by("started_at", "pk")
    found = nodes.order_by().annotate(executing=ArraySubquery(longest.values("pk")[:size]))
    return dict(found.values_list("pk", "executing"))


# --- pages -----------------------------------------------------------------------------------------


class BadCursor(ValueError):
    """A page mark in an address is not one that we made."""


@dataclass(frozen=True)
class Cursor:
    """A place in a list that is ordered by time and id, newest first: just before or after one row."""

    at: datetime
    pk: int

    @classmethod
    def of(cls, row: Any) -> Cursor:
        return cls(row.created_at, row.pk)

    @classmethod
    def at_entry(cls, entry: Any) -> Cursor:
        return cls(entry.at, entry.pk)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that `str` wrote (microseconds of the epoch, a dot, the id); raises BadCursor."""
        try:
            microseconds, pk = (int(part) for part in text.split("."))
            if not 0 < pk < 2**63:
                raise BadCursor(text)
            return cls(datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds), pk)
        except (ValueError, OverflowError) as error:
            raise BadCursor(text) from error

    def __str__(self) -> str:
        return f"{(self.at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)}.{self.pk}"


@dataclass(frozen=True)
class Page[Row: models.Model]:
    """Some rows of a list, and the cursors of its neighbours (None: there is no such page)."""

    rows: list[Row]
    newer: Cursor | None = None
    older: Cursor | None = None


def newest_first(
    queryset: models.QuerySet[Any],
    *,
    size: int,
    older: Cursor | None = None,
    newer: Cursor | None = None,
    within: Ranges | None = None,
) -> Page[Any]:
    """`size` rows by (created_at, id) descending: the newest, those older, or those just newer than a cursor.

    The bound on created_at alone is redundant, and what lets the index serve the page wherever it lies. With
    `within`, ranges that admit exactly what `queryset` does, the rows are found by those.
    """
    if within is not None:
        found = queryset.in_bulk(within.page(size=size + 1, older=older, newer=newer))
        ordered = sorted(found.values(), key=lambda row: (row.created_at, row.pk), reverse=True)
        if newer is not None and len(ordered) <= size:
            return newest_first(queryset, size=size, within=within)
        return _page(ordered, size, older=older, newer=newer)
    if newer is not None:
        beyond = Q(created_at__gte=newer.at) & (Q(created_at__gt=newer.at) | Q(pk__gt=newer.pk))
        rows = list(queryset.filter(beyond).order_by("created_at", "pk")[: size + 1])[::-1]
        if len(rows) <= size:
            # Less than a page is newer: that is the first page, whole.
            return newest_first(queryset, size=size)
        return _page(rows, size, newer=newer)
    if older is not None:
        queryset = queryset.filter(
            Q(created_at__lte=older.at) & (Q(created_at__lt=older.at) | Q(pk__lt=older.pk))
        )
    return _page(list(queryset.order_by("-created_at", "-pk")[: size + 1]), size, older=older)


def _page(rows: list[Any], size: int, *, older: Cursor | None = None, newer: Cursor | None = None) -> Page[Any]:
    """The page that `rows`, newest first and one more than fit when there are more, make."""
    if newer is not None:
        return Page(rows[1:], newer=Cursor.of(rows[1]), older=Cursor.of(rows[-1]))
    shown = rows[:size]
    return Page(
        shown,
        newer=Cursor.of(shown[0]) if older is not None and shown else None,
        older=Cursor.of(shown[-1]) if len(rows) > size else None,
    )


# --- the journal -----------------------------------------------------------------------------------

# Of an object's many entries these are the most, and all by the engine; what people do is rare beside them.
ROUTINE = ("ended", "started", "triggered")


class JournalQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_reach(self, user, team="team", task="task")

    def about(self, thing: models.Model) -> Self:
        """What was done to `thing`, and to the instances of a batch, the newest first."""
        name = thing._meta.model_name
        entries = Q(object_type=name, object_id=thing.pk)
        if name == "batch":
            instances = thing.instances.order_by("number")  # type: ignore[attr-defined]
            ends = [each.values_list("pk", flat=True).first() for each in (instances, instances.reverse())]
            if None not in ends:
                # Made together, they have ids of one range, which the index serves; and few others have them.
                of_instances = Q(object_type="instance", object_id__range=sorted(ends))
                entries |= of_instances & Q(object_id__in=instances.order_by().values("pk"))
        return self.filter(entries).order_by("-at", "-pk")

    def by_people(self) -> Self:
        return self.exclude(via="engine")

    def newest_of(
        self, parts: Iterable[Q], *, size: int, older: Cursor | None = None, newer: Cursor | None = None
    ) -> Page[Any]:
        """A page as of `newest_first`, by (at, id), of entries that lie in one of the disjoint `parts`.

        Each part is read on its own and the newest of all are taken: an index on (part, at, id) then serves
        every page, where a condition that spans parts would be read along the whole journal.
        """
        beyond, order = Q(), ("-at", "-pk")
        if newer is not None:
            beyond = Q(at__gte=newer.at) & (Q(at__gt=newer.at) | Q(pk__gt=newer.pk))
            order = ("at", "pk")
        elif older is not None:
            beyond = Q(at__lte=older.at) & (Q(at__lt=older.at) | Q(pk__lt=older.pk))
        of_parts = [self.filter(part, beyond).order_by(*order)[: size + 1] for part in parts]
        if not of_parts or self.query.is_empty():
            return Page([])
        first, *others = of_parts
        found = list(first.union(*others, all=True).order_by(*order)[: size + 1] if others else first)
        if newer is not None:
            if len(found) <= size:
                return self.newest_of(parts, size=size)
            rows = found[::-1][1:]
            return Page(rows, newer=Cursor.at_entry(rows[0]), older=Cursor.at_entry(rows[-1]))
        rows = found[:size]
        return Page(
            rows,
            newer=Cursor.at_entry(rows[0]) if older is not None and rows else None,
            older=Cursor.at_entry(rows[-1]) if len(found) > size else None,
        )


def capped_count(queryset: models.QuerySet[Any], most: int, *, within: Ranges | None = None) -> int:
    """How many rows there are, counting no further than `most` + 1; `within` is as for `newest_first`."""
    if within is not None:
        return within.count(most + 1)
    return queryset.order_by()[: most + 1].count()


# --- records by ranges -----------------------------------------------------------------------------

# Who begins batches that no person began: nearly all, so that an index of persons leaves them out.
MACHINES = ("engine", "schedule")

_COLUMNS = {"team": "team_id", "group": "group_id", "task": "task_id", "actor": "actor"}


@dataclass(frozen=True)
class Ranges:
    """Batches by place, trigger and state, begun in a span of time, as ranges of an index each.

    `places` says where: ids by "team", "group" or "task", what is in any of them; or names by "actor", without
    MACHINES. `triggers` and `states` are those wanted, all of them when
    nothing narrows. `also` are further values that a column must be one of, by the same words; they are looked
    at row by row, so they should be few that the ranges hold and these do not admit.

    PostgreSQL plans "the newest fifty of several teams, rare states only" by walking over everything newer. A
    range for each value is never longer than the page, so a page costs the same whatever is asked for and
    however much there is.
    """

    places: Mapping[str, Sequence[Any]]
    triggers: Sequence[str]
    states: Sequence[str]
    since: datetime | None = None
    until: datetime | None = None
    also: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def page(self, *, size: int, older: Cursor | None = None, newer: Cursor | None = None) -> list[int]:
        """Up to `size` ids, newest first: the newest, those older, or those just newer than a cursor."""
        way = "ASC" if newer is not None else "DESC"
        order = f"ORDER BY created_at {way}, id {way} LIMIT %(size)s"
        cursor = newer or older
        beyond = "" if cursor is None else f"AND (created_at, id) {'>' if newer else '<'} (%(at)s, %(pk)s)"
        facts = {"size": size, "at": cursor and cursor.at, "pk": cursor and cursor.pk}
        found = self._rows(f"SELECT id, created_at FROM ({self._union(beyond, order)}) one {order}", facts)
        ids = [pk for pk, _created_at in found]
        return ids[::-1] if newer is not None else ids

    def count(self, most: int) -> int:
        """How many there are, counting no further than `most`."""
        # In order, although it does not matter: else the planner may prefer to read the whole table.
        found = self._union("", "ORDER BY created_at DESC, id DESC LIMIT %(size)s")
        counted = self._rows(
            f"SELECT count(*) FROM (SELECT FROM ({found}) one LIMIT %(size)s) counted", {"size": most}
        )
        return int(counted[0][0])

    def count_by_slot(self, since: datetime, slot: timedelta, slots: int) -> dict[tuple[int, str], int]:
        """How many were begun in each `slot` of time from `since` on, by (number of slot, state); none where 0.

        Each is a piece of the index that is counted without a look at the rows.
        """
        found: dict[tuple[int, str], int] = {}
        for place in self.places:
            rows = self._rows(
                f"SELECT slot, now, sum(counted.n) FROM {self._values(place)},"
                " generate_series(0, %(slots)s - 1) slot, LATERAL (SELECT count(*) AS n FROM scheduling_batch"
                f" WHERE {_COLUMNS[place]} = place AND trigger = kind AND state = now"
                " AND created_at >= %(from)s + slot * %(slot)s"
                " AND created_at < %(from)s + (slot + 1) * %(slot)s"
                " ) counted WHERE counted.n > 0 GROUP BY 1, 2",
                {"from": since, "slot": slot, "slots": slots},
            )
            for number, state, count in rows:
                found[number, state] = found.get((number, state), 0) + int(count)
        return found

    def _values(self, place: str) -> str:
        return (
            f"unnest(%({place})s::bigint[]) place, unnest(%(triggers)s::text[]) kind,"
            " unnest(%(states)s::text[]) now"
        )

    def _union(self, beyond: str, limited: str) -> str:
        return " UNION ".join(self._of_place(place, beyond, limited) for place in self.places)

    def _of_place(self, place: str, beyond: str, limited: str) -> str:
        span = [beyond]
        if self.since is not None:
            span.append("AND created_at >= %(since)s")
        if self.until is not None:
            span.append("AND created_at < %(until)s")
        span += [f"AND {_COLUMNS[each]} = ANY(%(also_{each})s)" for each in self.also]
        if place == "actor":
            machines = ", ".join(f"'{each}'" for each in MACHINES)
            values = "unnest(%(actor)s::text[]) place"
            narrowed = (
                f"AND NOT (actor IN ({machines})) AND trigger = ANY(%(triggers)s) AND state = ANY(%(states)s)"
            )
        else:
            values = self._values(place)
            narrowed = "AND trigger = kind AND state = now"
        matches = f"{_COLUMNS[place]} = place {narrowed} {' '.join(span)}"
        return (
            f"SELECT found.id, found.created_at FROM {values}, LATERAL"
            f" (SELECT id, created_at FROM scheduling_batch WHERE {matches} {limited}) found"
        )

    def _rows(self, statement: str, facts: dict[str, Any]) -> list[tuple[Any, ...]]:
        facts |= {"triggers": list(self.triggers), "states": list(self.states)}
        facts |= {"since": self.since, "until": self.until}
        facts |= {place: list(values) for place, values in self.places.items()}
        facts |= {f"also_{place}": list(values) for place, values in self.also.items()}
        with connection.cursor() as cursor:
            cursor.execute(statement, facts)
            return cursor.fetchall()
