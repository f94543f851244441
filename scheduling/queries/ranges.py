"""Records as ranges of an index: see docs/decisions/0007."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from scheduling.queries.paging import Cursor

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
