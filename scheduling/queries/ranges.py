"""Records as ranges of an index: see docs/decisions/0007."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.db import connection

from scheduling.queries.paging import Cursor

# Who begins nearly all batches, so that an index of who began what leaves them out.
MACHINES = ("schedule",)

_KIND = "AND trigger = kind AND listed_state = now"
_PERSON = f"AND NOT (actor IN ({', '.join(repr(each) for each in MACHINES)}))"


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Rows of TABLE by place and state, in a span of TIME, as ranges of an index each.

    `places` says where: ids by the words of COLUMNS, what is in any of them. `states` are those wanted, all of
    them when nothing narrows. `also` are further values that a column must be one of, by the same words; they
    are looked at row by row, so there should be few that the ranges hold and these do not admit.

    PostgreSQL plans "the newest fifty of several teams, rare states only" by walking over everything newer. A
    range for each value is never longer than the page, so a page costs the same whatever is asked for and
    however much there is.
    """

    TABLE: ClassVar[str]
    TIME: ClassVar[str]
    COLUMNS: ClassVar[Mapping[str, str]]

    places: Mapping[str, Sequence[Any]] = field(kw_only=False)
    states: Sequence[str]
    since: datetime | None = None
    until: datetime | None = None
    also: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def page(self, *, size: int, older: Cursor | None = None, newer: Cursor | None = None) -> list[int]:
        """Up to `size` ids, newest first: the newest, those older, or those just newer than a cursor."""
        return [pk for _at, pk in self.places_of_page(size=size, older=older, newer=newer)]

    def places_of_page(
        self, *, size: int, older: Cursor | None = None, newer: Cursor | None = None
    ) -> list[tuple[datetime, int]]:
        """As `page`, each id behind its time."""
        order = self._order("" if newer is not None else " DESC")
        cursor = newer or older
        facts = {"size": size, "at": cursor and cursor.at, "pk": cursor and cursor.pk}
        union = self._union(self._span(older, newer), order)
        found = self._rows(f"SELECT {self.TIME}, id FROM ({union}) one {order} LIMIT %(size)s", facts)
        return sorted(((at, pk) for at, pk in found), reverse=True)

    def count(self, most: int) -> int:
        """How many there are, counting no further than `most`."""
        # In order, although it does not matter: else the planner may prefer to read the whole table.
        found = self._union(self._span(), self._order(" DESC"))
        counted = self._rows(
            f"SELECT count(*) FROM (SELECT FROM ({found}) one LIMIT %(size)s) counted", {"size": most}
        )
        return int(counted[0][0])

    # --- what a kind of row may say of itself ---

    def of(self, place: str, span: str, order: str) -> tuple[str, str]:
        """The values that the ranges of a place are made of, and the rows of one of them."""
        return (
            f"unnest(%({place})s::bigint[]) place, unnest(%(states)s::text[]) now",
            f"{self.rows} {self.COLUMNS[place]} = place AND state = now {span} {self._also()}",
        )

    def _also(self, *, but: str = "") -> str:
        """What rows are looked at for, one by one."""
        return " ".join(f"AND {self.COLUMNS[each]} = ANY(%(also_{each})s)" for each in self.also if each != but)

    def facts(self) -> dict[str, Any]:
        """The parameters of the statements."""
        facts: dict[str, Any] = {"states": list(self.states), "since": self.since, "until": self.until}
        facts |= {place: list(values) for place, values in self.places.items()}
        return facts | {f"also_{place}": list(values) for place, values in self.also.items()}

    # --- the statements ---

    @property
    def rows(self) -> str:
        """The beginning of a statement that selects rows."""
        return f"SELECT id, {self.TIME} FROM {self.TABLE} WHERE"

    def _order(self, way: str) -> str:
        return f"ORDER BY {self.TIME}{way}, id{way}"

    def _span(self, older: Cursor | None = None, newer: Cursor | None = None) -> str:
        """The span of time, as far as it lies beyond a cursor.

        It has one bound to a side: of two PostgreSQL may take the outer one, and read from there to the other.
        """
        bounds = []
        if newer is not None and (self.since is None or self.since <= newer.at):
            bounds.append(f"AND ({self.TIME}, id) > (%(at)s, %(pk)s)")
        elif self.since is not None:
            bounds.append(f"AND {self.TIME} >= %(since)s")
        if older is not None and (self.until is None or older.at < self.until):
            bounds.append(f"AND ({self.TIME}, id) < (%(at)s, %(pk)s)")
        elif self.until is not None:
            bounds.append(f"AND {self.TIME} < %(until)s")
        return " ".join(bounds)

    def _union(self, span: str, order: str) -> str:
        parts = (self.of(place, span, order) for place in self.places)
        return " UNION ".join(
            f"SELECT found.id, found.{self.TIME} FROM {values}, LATERAL ({rows} {order} LIMIT %(size)s) found"
            for values, rows in parts
        )

    def _rows(self, statement: str, facts: dict[str, Any]) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(statement, self.facts() | facts)
            return cursor.fetchall()


@dataclass(frozen=True, kw_only=True)
class BatchRanges(Ranges):
    """Batches by "team", "group" or "task", trigger and state; or by "actor", who is none of MACHINES.

    Of places by id that are narrowed by others (`also`) both indexes are walked side by side, and no row is
    read that only one of them has. MACHINES, and what narrows places by actor, are looked at row by row.
    """

    TABLE = "scheduling_batch"
    TIME = "created_at"
    COLUMNS: ClassVar = {"team": "team_id", "group": "group_id", "task": "task_id", "actor": "actor"}

    triggers: Sequence[str]

    def count_by_slot(self, since: datetime, slot: timedelta, slots: int) -> Counter[tuple[int, str, str]]:
        """How many were begun in each `slot` from `since` on, by (number of slot, trigger, listed state).

        Each is a piece of the index that is counted without a look at the rows.
        """
        found: Counter[tuple[int, str, str]] = Counter()
        for place in self.places:
            rows = self._rows(
                f"SELECT slot, kind, now, sum(counted.n) FROM {self._values(place)},"
                " generate_series(0, %(slots)s - 1) slot, LATERAL (SELECT count(*) AS n FROM scheduling_batch"
                f" WHERE {self.COLUMNS[place]} = place {_KIND}"
                " AND created_at >= %(from)s + slot * %(slot)s"
                " AND created_at < %(from)s + (slot + 1) * %(slot)s"
                " ) counted WHERE counted.n > 0 GROUP BY 1, 2, 3",
                {"from": since, "slot": slot, "slots": slots},
            )
            for number, trigger, state, count in rows:
                found[number, trigger, state] += int(count)
        return found

    def _values(self, place: str) -> str:
        return (
            f"unnest(%({place})s::bigint[]) place, unnest(%(triggers)s::text[]) kind,"
            " unnest(%(states)s::text[]) now"
        )

    def of(self, place: str, span: str, order: str) -> tuple[str, str]:
        if place == "actor":
            return self._of_people(span)
        values, found = self._values(place), f"{self.rows} {self.COLUMNS[place]} = place {_KIND} {span}"
        if machines := set(self.also.get("actor", ())) & set(MACHINES):
            found += " AND actor = ANY(%(also_actor)s)"
        for each in self.also:
            if each == "actor" and machines:
                continue
            values += f", unnest(%(also_{each})s::{'text' if each == 'actor' else 'bigint'}[]) also_{each}"
            other = (
                f"actor = also_actor {_PERSON}"
                if each == "actor"
                else f"{self.COLUMNS[each]} = also_{each} {_KIND}"
            )
            # The offset keeps each side as it is: the order of its index, which is all that is read of it.
            found = (
                f"SELECT id, created_at FROM ({found} {order} OFFSET 0) one"
                f" JOIN ({self.rows} {other} {span} {order} OFFSET 0) of_{each} USING (created_at, id)"
            )
        return values, found

    def _of_people(self, span: str) -> tuple[str, str]:
        return "unnest(%(actor)s::text[]) place", (
            f"{self.rows} actor = place {_PERSON} AND trigger = ANY(%(triggers)s)"
            f" AND listed_state = ANY(%(states)s) {span} {self._also()}"
        )

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"triggers": list(self.triggers)}


@dataclass(frozen=True)
class Either:
    """What is in one of several Ranges, which have nothing in common."""

    parts: Sequence[Ranges]

    def page(self, *, size: int, older: Cursor | None = None, newer: Cursor | None = None) -> list[int]:
        """As `Ranges.page`."""
        found = [each.places_of_page(size=size, older=older, newer=newer) for each in self.parts]
        ordered = sorted(itertools.chain.from_iterable(found), reverse=True)
        return [pk for _at, pk in (ordered[-size:] if newer is not None else ordered[:size])]

    def count(self, most: int) -> int:
        """As `Ranges.count`."""
        return min(most, sum(each.count(most) for each in self.parts))
