"""Named QuerySets and keyset pages. Every list and look-up of a page goes through `visible_to`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.db import models
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
        return self.select_related("task__revision", "task__group", "group", "revision", "rerun_of")


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
