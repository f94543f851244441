"""Keyset pages of a list, newest first, and counts that end at a cap."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Q

if TYPE_CHECKING:
    from scheduling.queries.ranges import Either, Ranges


class BadCursor(ValueError):
    """A page mark in an address is not one that we made."""


@dataclass(frozen=True)
class Cursor:
    """A place in a list that is ordered by time and id, newest first: just before or after one row."""

    at: datetime
    pk: int

    @classmethod
    def of(cls, row: Any, time: str = "created_at") -> Cursor:
        return cls(getattr(row, time), row.pk)

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
    within: Ranges | Either | None = None,
    time: str = "created_at",
) -> Page[Any]:
    """`size` rows by (`time`, id) descending: the newest, those older, or those just newer than a cursor.

    The bound on the time alone is redundant, and what lets the index serve the page wherever it lies. With
    `within`, ranges that admit exactly what `queryset` does, the rows are found by those.
    """
    if within is not None:
        found = queryset.in_bulk(within.page(size=size + 1, older=older, newer=newer))
        ordered = sorted(found.values(), key=lambda row: (getattr(row, time), row.pk), reverse=True)
        if newer is not None and len(ordered) <= size:
            return newest_first(queryset, size=size, within=within, time=time)
        return page_of(ordered, size, older=older, newer=newer, time=time)
    if newer is not None:
        beyond = Q(**{f"{time}__gte": newer.at}) & (Q(**{f"{time}__gt": newer.at}) | Q(pk__gt=newer.pk))
        rows = list(queryset.filter(beyond).order_by(time, "pk")[: size + 1])[::-1]
        if len(rows) <= size:
            # Less than a page is newer: that is the first page, whole.
            return newest_first(queryset, size=size, time=time)
        return page_of(rows, size, newer=newer, time=time)
    if older is not None:
        queryset = queryset.filter(
            Q(**{f"{time}__lte": older.at}) & (Q(**{f"{time}__lt": older.at}) | Q(pk__lt=older.pk))
        )
    return page_of(list(queryset.order_by(f"-{time}", "-pk")[: size + 1]), size, older=older, time=time)


def page_of(
    rows: list[Any],
    size: int,
    *,
    older: Cursor | None = None,
    newer: Cursor | None = None,
    time: str = "created_at",
) -> Page[Any]:
    """The page that `rows`, newest first and one more than fit when there are more, make."""
    if newer is not None:
        return Page(rows[1:], newer=Cursor.of(rows[1], time), older=Cursor.of(rows[-1], time))
    shown = rows[:size]
    return Page(
        shown,
        newer=Cursor.of(shown[0], time) if older is not None and shown else None,
        older=Cursor.of(shown[-1], time) if len(rows) > size else None,
    )


def capped_count(queryset: models.QuerySet[Any], most: int, *, within: Ranges | Either | None = None) -> int:
    """How many rows there are, counting no further than `most` + 1; `within` is as for `newest_first`."""
    if within is not None:
        return within.count(most + 1)
    return queryset.order_by()[: most + 1].count()
