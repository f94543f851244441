"""Named QuerySets and keyset pages. Every list and look-up of a page goes through `visible_to`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.db import connection, models
from django.db.models import Count, Q
from django.db.models.functions import Now

from scheduling.states import BATCH, InstanceState, NodeState

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


def _within_teams(queryset: Any, user: AbstractBaseUser | AnonymousUser, team_path: str) -> Any:
    # A user without an id would compare with NULL, which a team without members matches.
    if user.pk is None or not user.is_active:
        return queryset.none()
    if getattr(user, "is_superuser", False):
        return queryset
    return queryset.filter(**{f"{team_path}__memberships__user": user.pk})


class GroupQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "team")


class NodeQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "group__team")

    def online(self) -> Self:
        return self.filter(state=NodeState.ONLINE)

    def silent_for(self, seconds: float) -> Self:
        """Nodes thought alive that have not been heard of for `seconds`."""
        return self.exclude(state=NodeState.OFFLINE).filter(heartbeat_at__lt=Now() - timedelta(seconds=seconds))


class TaskQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "team")


class BatchQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "team")

    def unfinished(self) -> Self:
        return self.filter(state__in=sorted(BATCH.unfinished))

    def for_rows(self) -> Self:
        """With what a row shows; whatever else a template asks for raises instead of querying row by row."""
        return (
            self.select_related("task", "group")
            .defer("parameters", "task__next_due_at", "task__created_at")
            .fetch_mode(models.FETCH_RAISE)
        )

    def for_page(self) -> Self:
        """With what the page of one batch shows."""
        return self.select_related("task", "group", "revision", "rerun_of")


class InstanceQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "batch__team")

    def executing_by_batch(self, batches: Iterable[Any]) -> dict[int, int]:
        """How many instances of each unfinished batch run or are being ended, in one query."""
        unfinished = [batch.pk for batch in batches if not batch.is_finished]
        executing = [InstanceState.RUNNING, InstanceState.TERMINATING]
        counted = self.filter(batch__in=unfinished, state__in=executing).order_by().values_list("batch")
        return dict(counted.annotate(Count("pk")))

    def count_by_state(self) -> dict[str, int]:
        return dict(self.order_by().values_list("state").annotate(Count("pk")))

    def for_rows(self) -> Self:
        """With what a row shows; see `BatchQuerySet.for_rows`."""
        return self.select_related("batch", "node").defer("batch__parameters").fetch_mode(models.FETCH_RAISE)


class ExecutionQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_teams(self, user, "instance__batch__team")

    def live(self) -> Self:
        return self.filter(ended_at__isnull=True)


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


# --- logs ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogPiece:
    """Output in one run: `text`, or a gap of `dropped_bytes` that were not kept."""

    text: str = ""
    dropped_bytes: int = 0


@dataclass(frozen=True)
class LogPart:
    """What follows a sequence number; `last` is where the next question begins, `more` if there is any now."""

    pieces: list[LogPiece]
    last: int
    more: bool


def log_after(chunks: models.QuerySet[Any], sequence: int, *, limit: int) -> LogPart:
    """The output in `chunks` of one execution after `sequence` (-1: all), of at most `limit` chunks."""
    found = list(chunks.filter(sequence__gt=sequence).order_by("sequence")[: limit + 1])
    pieces: list[LogPiece] = []
    texts: list[str] = []
    for chunk in found[:limit]:
        if chunk.dropped_bytes:
            pieces += [LogPiece("".join(texts)), LogPiece(dropped_bytes=chunk.dropped_bytes)]
            texts = []
        texts.append(chunk.text)
    pieces.append(LogPiece("".join(texts)))
    return LogPart(
        pieces=[piece for piece in pieces if piece.text or piece.dropped_bytes],
        last=found[:limit][-1].sequence if found else sequence,
        more=len(found) > limit,
    )
