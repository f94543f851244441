"""Records as ranges of an index: see docs/decisions/0007."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.db import connection

from scheduling.queries.paging import Cursor

# Who begins batches that no person began: nearly all, so that an index of persons leaves them out.
MACHINES = ("engine", "schedule")


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Rows of TABLE by place and state, in a span of TIME, as ranges of an index each.

    `places` says where: ids by the words of COLUMNS, what is in any of them. `states` are those wanted, all of
    them when nothing narrows. `also` are further values that a column must be one of, by the same words; they
    are looked at row by row, so they should be few that the ranges hold and these do not admit.

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
        way = "ASC" if newer is not None else "DESC"
        order = f"ORDER BY {self.TIME} {way}, id {way} LIMIT %(size)s"
        cursor = newer or older
        beyond = "" if cursor is None else f"AND ({self.TIME}, id) {'>' if newer else '<'} (%(at)s, %(pk)s)"
        facts = {"size": size, "at": cursor and cursor.at, "pk": cursor and cursor.pk}
        found = self._rows(f"SELECT id, {self.TIME} FROM ({self._union(beyond, order)}) one {order}", facts)
        ids = [pk for pk, _at in found]
        return ids[::-1] if newer is not None else ids

    def count(self, most: int) -> int:
        """How many there are, counting no further than `most`."""
        # In order, although it does not matter: else the planner may prefer to read the whole table.
        found = self._union("", f"ORDER BY {self.TIME} DESC, id DESC LIMIT %(size)s")
        counted = self._rows(
            f"SELECT count(*) FROM (SELECT FROM ({found}) one LIMIT %(size)s) counted", {"size": most}
        )
        return int(counted[0][0])

    # --- what a kind of row may say of itself ---

    def values(self, place: str) -> str:
        """The rows of values that have a range each: `place` and what else the index begins with."""
        return f"unnest(%({place})s::bigint[]) place, unnest(%(states)s::text[]) now"

    def narrowed(self, place: str) -> str:
        """What of a row at its place agrees with `values`."""
        return "AND state = now"

    def facts(self) -> dict[str, Any]:
        """The parameters of the statements."""
        facts: dict[str, Any] = {"states": list(self.states), "since": self.since, "until": self.until}
        facts |= {place: list(values) for place, values in self.places.items()}
        return facts | {f"also_{place}": list(values) for place, values in self.also.items()}

    # --- the statements ---

    def _union(self, beyond: str, limited: str) -> str:
        return " UNION ".join(self._of_place(place, beyond, limited) for place in self.places)

    def _of_place(self, place: str, beyond: str, limited: str) -> str:
        span = [beyond]
        if self.since is not None:
            span.append(f"AND {self.TIME} >= %(since)s")
        if self.until is not None:
            span.append(f"AND {self.TIME} < %(until)s")
        span += [f"AND {self.COLUMNS[each]} = ANY(%(also_{each})s)" for each in self.also]
        matches = f"{self.COLUMNS[place]} = place {self.narrowed(place)} {' '.join(span)}"
        return (
            f"SELECT found.id, found.{self.TIME} FROM {self.values(place)}, LATERAL"
            f" (SELECT id, {self.TIME} FROM {self.TABLE} WHERE {matches} {limited}) found"
        )

    def _rows(self, statement: str, facts: dict[str, Any]) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(statement, self.facts() | facts)
            return cursor.fetchall()


@dataclass(frozen=True, kw_only=True)
class BatchRanges(Ranges):
    """Batches by "team", "group" or "task", trigger and state; or by "actor", who is none of MACHINES."""

    TABLE = "scheduling_batch"
    TIME = "created_at"
    COLUMNS: ClassVar = {"team": "team_id", "group": "group_id", "task": "task_id", "actor": "actor"}

    triggers: Sequence[str]

    def count_by_slot(self, since: datetime, slot: timedelta, slots: int) -> dict[tuple[int, str], int]:
        """How many were begun in each `slot` of time from `since` on, by (number of slot, state); none where 0.

        Each is a piece of the index that is counted without a look at the rows.
        """
        found: dict[tuple[int, str], int] = {}
        for place in self.places:
            rows = self._rows(
                f"SELECT slot, now, sum(counted.n) FROM {self.values(place)},"
                " generate_series(0, %(slots)s - 1) slot, LATERAL (SELECT count(*) AS n FROM scheduling_batch"
                f" WHERE {self.COLUMNS[place]} = place AND trigger = kind AND state = now"
                " AND created_at >= %(from)s + slot * %(slot)s"
                " AND created_at < %(from)s + (slot + 1) * %(slot)s"
                " ) counted WHERE counted.n > 0 GROUP BY 1, 2",
                {"from": since, "slot": slot, "slots": slots},
            )
            for number, state, count in rows:
                found[number, state] = found.get((number, state), 0) + int(count)
        return found

    def values(self, place: str) -> str:
        if place == "actor":
            return "unnest(%(actor)s::text[]) place"
        return f"{super().values(place)}, unnest(%(triggers)s::text[]) kind"

    def narrowed(self, place: str) -> str:
        if place != "actor":
            return f"AND trigger = kind {super().narrowed(place)}"
        machines = ", ".join(f"'{each}'" for each in MACHINES)
        return f"AND NOT (actor IN ({machines})) AND trigger = ANY(%(triggers)s) AND state = ANY(%(states)s)"

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"triggers": list(self.triggers)}
