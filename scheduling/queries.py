"""Named QuerySets and keyset pages. Every list and look-up of a page goes through `visible_to`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.db.models import Count, Q
from django.db.models.functions import Now

from scheduling.standing import standing_of
from scheduling.states import BATCH, InstanceState, NodeState

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


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
    if task is not None and standing.grants:
        within |= Q(**{f"{task}__in": sorted(standing.grants)})
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


class TaskQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_reach(self, user, team="team", task="pk")


class BatchQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_reach(self, user, team="team", task="task")

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
        return _within_reach(self, user, team="batch__team", task="batch__task")

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
        return _within_reach(self, user, team="instance__batch__team", task="instance__batch__task")

    def live(self) -> Self:
        return self.filter(ended_at__isnull=True)


class LogQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        path = "execution__instance__batch"
        return _within_reach(self, user, team=f"{path}__team", task=f"{path}__task")


class JournalQuerySet(models.QuerySet[Any]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        return _within_reach(self, user, team="team", task="task")


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
    queryset: models.QuerySet[Any], *, size: int, older: Cursor | None = None, newer: Cursor | None = None
) -> Page[Any]:
    """`size` rows by (created_at, id) descending: the newest, those older, or those just newer than a cursor.

    The bound on created_at alone is redundant, and what lets the index serve the page wherever it lies.
    """
    if newer is not None:
        beyond = Q(created_at__gte=newer.at) & (Q(created_at__gt=newer.at) | Q(pk__gt=newer.pk))
        rows = list(queryset.filter(beyond).order_by("created_at", "pk")[: size + 1])[::-1]
        if len(rows) <= size:
            # Less than a page is newer: that is the first page, whole.
            return newest_first(queryset, size=size)
        return Page(rows[1:], newer=Cursor.of(rows[1]), older=Cursor.of(rows[-1]))
    if older is not None:
        queryset = queryset.filter(
            Q(created_at__lte=older.at) & (Q(created_at__lt=older.at) | Q(pk__lt=older.pk))
        )
    rows = list(queryset.order_by("-created_at", "-pk")[: size + 1])
    shown = rows[:size]
    return Page(
        shown,
        newer=Cursor.of(shown[0]) if older is not None and shown else None,
        older=Cursor.of(shown[-1]) if len(rows) > size else None,
    )


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
