"""Removes the records of finished batches when they are older than their task keeps them.

Old means ended long ago; what is unfinished never is, nor is a batch whose rerun is. The journal stays, and
so do tasks with all their revisions.

A step is one short transaction of a few thousand rows at most. It locks the batches that it takes rows from,
and passes over those that somebody else holds: nobody waits for it, and nobody reruns what is half gone. Logs
go first, then executions; a batch goes in one piece with its instances. Every foreign key that points to what
is deleted has an index that begins with it, so that PostgreSQL's own checks are look-ups.

A step finds what is old by ranges of the index `batch_newest_of_task`: it never walks over what stays, however
many tasks keep theirs for a year.
"""

from __future__ import annotations

import logging
import time
from dataclasses import astuple, dataclass, field
from typing import Any, NamedTuple, Self

from django.conf import settings
from django.db import DatabaseError, OperationalError, connection, transaction

from scheduling.models import Task
from scheduling.states import BATCH

logger = logging.getLogger(__name__)

# Rows that one step deletes: it begins with the least, and finds out how many it can in the time it has.
LEAST_ROWS, MOST_ROWS = 250, 4000
# What a step is to take, in seconds, and when PostgreSQL is to give it up.
STEP_SECONDS = 0.04
LONGEST_SECONDS = 0.5
# Of each turn of the scheduler's loop, which fires triggers in between.
TURN_SECONDS = 0.1
# How long to wait, in seconds, when nothing is old.
REST_SECONDS = 60.0
TASKS_AT_ONCE = 200
REPORT_EVERY = 10_000

_ALL = 2**31 - 1

_TASKS = """
    SELECT id, statement_timestamp() - make_interval(days => coalesce(retention_days, %(days)s)) AS kept_since
    FROM scheduling_task
"""
# What was made after `kept_since` has not ended before it either: that bounds the ranges of the index.
_OLD = """
    SELECT {columns} FROM ({tasks}) task
    CROSS JOIN LATERAL (
        SELECT id, total FROM scheduling_batch
        WHERE task_id = task.id AND state = ANY(%(final)s)
            AND created_at < task.kept_since AND ended_at < task.kept_since
            AND NOT EXISTS (
                SELECT FROM scheduling_batch again
                WHERE again.rerun_of_id = scheduling_batch.id AND again.state = ANY(%(unfinished)s)
            )
        {lock}
    ) old
"""
_LOCK = "ORDER BY created_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED"
# Reruns are to forget what they were reruns of; one that somebody holds keeps its source for this time.
_RERUNS = """
    SELECT again.rerun_of_id, bool_and(locked.id IS NOT NULL)
    FROM scheduling_batch again
    LEFT JOIN (
        SELECT id FROM scheduling_batch WHERE rerun_of_id = ANY(%(batches)s) FOR NO KEY UPDATE SKIP LOCKED
    ) locked ON locked.id = again.id
    WHERE again.rerun_of_id = ANY(%(batches)s) GROUP BY 1
"""
_OF_INSTANCES = """
    FROM scheduling_instance instance
    JOIN scheduling_execution execution ON execution.instance_id = instance.id
"""
_THESE = "instance.batch_id = ANY(%(batches)s) AND instance.number >= %(low)s AND instance.number < %(high)s"
_CHUNKS_GO = f"""
    DELETE FROM scheduling_logchunk WHERE id IN (
        SELECT chunk.id {_OF_INSTANCES} JOIN scheduling_logchunk chunk ON chunk.execution_id = execution.id
        WHERE {_THESE} LIMIT %(limit)s
    )
"""
_EXECUTIONS_GO = f"""
    DELETE FROM scheduling_execution WHERE id IN (
        SELECT execution.id {_OF_INSTANCES} WHERE {_THESE} LIMIT %(limit)s
    )
"""
# What goes round; apps above add theirs.
SWEEPS: list[type[Sweep]] = []
# How apps above let go of `batches`; they add their statements when they are ready.
LETTING_GO: list[str] = []
_BATCHES_GO = (
    "DELETE FROM scheduling_instance WHERE batch_id = ANY(%(batches)s)",
    "UPDATE scheduling_batch SET rerun_of_id = NULL WHERE rerun_of_id = ANY(%(batches)s)",
    "DELETE FROM scheduling_batch WHERE id = ANY(%(batches)s)",
)
_WHAT_GOES = f"""
    WITH gone AS MATERIALIZED ({{old}}),
    execution AS MATERIALIZED (
        SELECT execution.id {_OF_INSTANCES} WHERE instance.batch_id IN (SELECT id FROM gone)
    )
    SELECT (SELECT count(*) FROM gone),
        (SELECT count(*) FROM scheduling_instance WHERE batch_id IN (SELECT id FROM gone)),
        (SELECT count(*) FROM execution),
        (SELECT count(*) FROM scheduling_logchunk WHERE execution_id IN (SELECT id FROM execution))
"""


@dataclass
class Counted:
    """How many rows of each table are gone, or would go: fields that are numbers."""

    @property
    def counts(self) -> tuple[int, ...]:
        return astuple(self)

    def __add__(self, other: Self) -> Self:
        pairs = zip(self.counts, other.counts, strict=True)
        return type(self)(*(one + another for one, another in pairs))

    def __bool__(self) -> bool:
        return any(self.counts)

    @property
    def words(self) -> str:
        """The numbers as a person reads them."""
        raise NotImplementedError


@dataclass
class Removed(Counted):
    """Rows of tasks."""

    batches: int = 0
    instances: int = 0
    executions: int = 0
    chunks: int = 0

    @property
    def words(self) -> str:
        return (
            f"{self.batches:,} batches, {self.instances:,} instances, {self.executions:,} executions and "
            f"{self.chunks:,} pieces of logs"
        )


class Old(NamedTuple):
    """What of one task is old: its id, and how many batches and instances."""

    task: int
    batches: int
    instances: int


@dataclass(eq=False)
class Sweep:
    """Goes round all tasks and removes what is old, step by step; any number may do so at once.

    `removed` is what is gone so far. As a step of the scheduler's loop it is called over and over, and takes no
    more than `TURN_SECONDS` of a turn.
    """

    removed: Any = field(default_factory=Removed)
    rows: int = LEAST_ROWS
    _after: int = 0
    _found: bool = False
    _huge: tuple[int, int] = (0, 0)
    _rests_until: float = 0.0

    @staticmethod
    def would_go() -> tuple[list[str], Counted]:
        """What a sweep would remove now: a line for each that has any, and how much in all."""
        rows = old()
        tasks = Task.objects.select_related("team").in_bulk([row.task for row in rows])
        lines = [
            f"{(task := tasks[row.task]).team.name}/{task.name}: {row.batches:,} batches with "
            f"{row.instances:,} instances; keeps {task.records_kept}"
            for row in rows
        ]
        return sorted(lines), would_remove()

    def __call__(self) -> int:
        """Do what a turn has time for. Returns 0: the rest is for the next turns."""
        now = time.monotonic()
        deadline = now + TURN_SECONDS
        while now >= self._rests_until and now + STEP_SECONDS < deadline:
            before = self.removed
            if not self.step():
                self._rests_until = now + REST_SECONDS
            elif self.removed.counts[0] // REPORT_EVERY > before.counts[0] // REPORT_EVERY:
                logger.info("Removed %s so far", self.removed.words)
            now = time.monotonic()
        return 0

    def step(self) -> bool:
        """Remove one step's worth in one transaction; False when a whole round found nothing old.

        Raises OperationalError when even the least takes too long.
        """
        began = time.monotonic()
        before = self.removed
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {int(LONGEST_SECONDS * 1000)}")
                goes_on = self._step(cursor)
        except DatabaseError as error:
            self.removed = before
            if self.rows == LEAST_ROWS or not isinstance(error, OperationalError):
                raise
            self.rows = LEAST_ROWS
            return True
        took = time.monotonic() - began
        if took > STEP_SECONDS:
            self.rows = max(LEAST_ROWS, self.rows // 2)
        elif took < STEP_SECONDS / 2 and sum(self.removed.counts) - sum(before.counts) >= self.rows:
            self.rows = min(MOST_ROWS, self.rows * 2)
        return goes_on

    def _step(self, cursor: Any) -> bool:
        cursor.execute(
            "SELECT id FROM scheduling_task WHERE id > %s ORDER BY id LIMIT %s", [self._after, TASKS_AT_ONCE]
        )
        tasks = [task for (task,) in cursor.fetchall()]
        if not tasks:
            again, self._after, self._found = self._found, 0, False
            return again
        batches = _lock_old(cursor, tasks, limit=self.rows)
        if not batches:
            self._after = tasks[-1]
            return True
        self._found = True
        self._remove(cursor, batches)
        return True

    def _remove(self, cursor: Any, batches: dict[int, int]) -> None:
        """Remove what belongs to the first of some locked batches (totals by id), and then those themselves."""
        first, total = next(iter(batches.items()))
        huge = total > self.rows
        begin = self._huge[1] if huge and self._huge[0] == first else 0
        end = begin + self.rows if huge else _ALL
        chosen = [first] if huge else _together(batches, self.rows)
        place = {"batches": chosen, "low": begin, "high": end, "limit": self.rows}
        for name, statement in (("chunks", _CHUNKS_GO), ("executions", _EXECUTIONS_GO)):
            cursor.execute(statement, place)
            self.removed += Removed(**{name: cursor.rowcount})
            if cursor.rowcount == self.rows:
                return
        if end < total:
            # What is done of it need not be looked at again.
            self._huge = first, end
            return
        for statement in LETTING_GO:
            cursor.execute(statement, place)
        gone = []
        for statement in _BATCHES_GO:
            cursor.execute(statement, place)
            gone.append(cursor.rowcount)
        self.removed += Removed(instances=gone[0], batches=gone[2])


SWEEPS.append(Sweep)


def _facts(**more: Any) -> dict[str, Any]:
    return {
        "days": settings.TAILRACE["RETENTION_DAYS"],
        "final": sorted(BATCH.final),
        "unfinished": sorted(BATCH.unfinished),
    } | more


def _lock_old(cursor: Any, tasks: list[int], *, limit: int) -> dict[int, int]:
    """Some old batches of `tasks`, locked: their totals by id. None of those whose reruns others hold."""
    found = _OLD.format(columns="old.id, old.total", tasks=_TASKS + "WHERE id = ANY(%(tasks)s)", lock=_LOCK)
    cursor.execute(found + "LIMIT %(limit)s", _facts(tasks=tasks, limit=limit))
    batches = dict(cursor.fetchall())
    cursor.execute(_RERUNS, {"batches": list(batches)})
    for batch, all_locked in cursor.fetchall():
        if not all_locked:
            del batches[batch]
    return batches


def _together(batches: dict[int, int], rows: int) -> list[int]:
    """As many of the batches, in order, as have at most `rows` instances in all."""
    chosen, instances = [], 0
    for batch, total in batches.items():
        instances += total
        if instances > rows:
            break
        chosen.append(batch)
    return chosen


def old() -> list[Old]:
    """What is old now, a row a task that has any; nothing is locked or removed."""
    with connection.cursor() as cursor:
        cursor.execute(
            _OLD.format(columns="task.id, count(*), sum(old.total)", tasks=_TASKS, lock="")
            + "GROUP BY task.id",
            _facts(),
        )
        return [Old(*row) for row in cursor.fetchall()]


def would_remove() -> Removed:
    """How many rows a sweep would remove now; it counts them one by one."""
    with connection.cursor() as cursor:
        cursor.execute(_WHAT_GOES.format(old=_OLD.format(columns="old.id", tasks=_TASKS, lock="")), _facts())
        return Removed(*cursor.fetchone())
