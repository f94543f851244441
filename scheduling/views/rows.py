"""What pages show of batches and instances, and what of it changed since a page last asked.

A page sends back, in the header X-Shown, which rows it shows and a digest of each; the answer is only what
differs. Nothing about a page is kept on the server.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from django.http import HttpRequest
from django.utils import timezone

from scheduling.models import Batch, Execution, Instance
from scheduling.models.tasks import SCHEDULED
from scheduling.permissions import RERUN, STOP, Rights, User
from scheduling.states import BatchState

# From when on a start is called late: a scheduler is not, a busy group is.
LATE = timedelta(seconds=5)

SHOWN_HEADER = "X-Shown"


class Row(Protocol):
    """Something that stands on a page under an id, and is shown anew when its digest changes."""

    @property
    def mark(self) -> str: ...

    @property
    def digest(self) -> str: ...


def digest_of(*shown: Any) -> str:
    """A short digest of the `repr` of what is shown."""
    return f"{zlib.crc32(repr(shown).encode()):08x}"


@dataclass(frozen=True)
class BatchRow:
    """A batch with how many of its instances run, and what this user may do to it now."""

    batch: Batch
    running: int
    may_stop: bool
    may_rerun: bool
    # Whatever its state: it may be one of many that something is done to.
    may_act: bool
    recovered: bool = False
    """It failed, and a later batch of its task succeeded."""

    @classmethod
    def of(cls, batches: Sequence[Batch], user: User) -> list[BatchRow]:
        """One row a batch, in three queries however many there are (one of them for the user's roles)."""
        executing = Instance.objects.executing_by_batch(batches)
        failed = Batch.objects.filter(pk__in=[batch.pk for batch in batches if batch.is_failure])
        recovered = set(failed.with_recovered().filter(recovered=True).values_list("pk", flat=True))
        rights = Rights(user)
        rows = []
        for batch in batches:
            stop, rerun = rights.has(STOP, batch), rights.has(RERUN, batch)
            rows.append(
                cls(
                    batch=batch,
                    running=executing.get(batch.pk, 0),
                    may_stop=stop and batch.can_stop,
                    may_rerun=rerun and batch.can_rerun,
                    may_act=stop or rerun,
                    recovered=batch.pk in recovered,
                )
            )
        return rows

    @property
    def mark(self) -> str:
        return f"batch-{self.batch.pk}"

    @property
    def digest(self) -> str:
        batch = self.batch
        counters = (batch.succeeded, batch.failed, batch.timed_out, batch.terminated, self.running)
        times = (batch.started_at, batch.ended_at)
        stands = (batch.listed_state, batch.held, self.recovered)
        return digest_of(stands, counters, times, batch.reason, self.may_stop, self.may_rerun)

    @property
    def late_by(self) -> timedelta | None:
        """By how much it started, or if it waits is, later than it was due; None when that is next to nothing.

        Only what a schedule began was due: a rerun keeps the due time of what it reruns.
        """
        batch = self.batch
        if batch.trigger not in SCHEDULED or batch.rerun_of_id or (batch.is_finished and not batch.started_at):
            return None
        late: timedelta = (batch.started_at or timezone.now()) - batch.scheduled_for
        return late if late >= LATE else None

    @property
    def waiting(self) -> int:
        # The counters and the running instances are read a moment apart.
        return max(0, self.batch.total - self.batch.ended_count - self.running)


@dataclass(frozen=True)
class InstanceRow:
    """An instance and what this user may do to it now."""

    instance: Instance
    may_stop: bool
    may_rerun: bool
    execution: int | None = None
    """The id of its newest execution."""

    @classmethod
    def of(cls, instances: Iterable[Instance], user: User) -> list[InstanceRow]:
        """One row an instance; each needs its `batch` loaded."""
        rights, instances = Rights(user), list(instances)
        executions = Execution.objects.newest_of(instances)
        return [
            cls(
                instance=instance,
                may_stop=instance.can_stop and rights.has(STOP, instance),
                may_rerun=_can_rerun(instance) and rights.has(RERUN, instance),
                execution=executions.get(instance.pk),
            )
            for instance in instances
        ]

    @property
    def mark(self) -> str:
        return f"instance-{self.instance.pk}"

    @property
    def digest(self) -> str:
        it = self.instance
        times = (it.started_at, it.ended_at)
        return digest_of(
            it.state, it.node_id, it.executions_count, times, it.reason, self.may_stop, self.may_rerun
        )


def _can_rerun(instance: Instance) -> bool:
    return instance.can_rerun and instance.batch.state not in {
        BatchState.TERMINATING,
        BatchState.CONDITION_NOT_MET,
    }


@dataclass(frozen=True)
class ExecutionRow:
    """An execution in the history of its instance."""

    execution: Execution

    @property
    def mark(self) -> str:
        return f"execution-{self.execution.pk}"

    @property
    def digest(self) -> str:
        return digest_of(self.execution.outcome, self.execution.ended_at)


def shown_by(rows: Iterable[Row]) -> str:
    """What a page that shows `rows` is to send back: its marks and digests, in order."""
    return " ".join(f"{row.mark}:{row.digest}" for row in rows)


@dataclass
class Difference:
    """How to bring a page up to date: rows to replace, rows to put in (with the mark before), marks to drop."""

    changed: list[Row] = field(default_factory=list)
    added: list[tuple[str | None, Row]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.gone)


def shown_on(request: HttpRequest) -> dict[str, str]:
    """What the page that asks has shown: the digest of each row and section by its mark."""
    pairs = (part.partition(":") for part in request.headers.get(SHOWN_HEADER, "").split())
    return {mark: digest for mark, _colon, digest in pairs}


def difference(request: HttpRequest, rows: Iterable[Row]) -> Difference:
    """What differs between `rows` and what the page that asks has shown.

    Rows are added behind the row that precedes them, the first at the top (None).
    """
    shown = shown_on(request)
    found = Difference()
    before: str | None = None
    for row in rows:
        if row.mark not in shown:
            found.added.append((before, row))
        elif shown.pop(row.mark) != row.digest:
            found.changed.append(row)
        before = row.mark
    # Marks come from the browser and go into its page: only those of the right shape are ours.
    found.gone = [mark for mark in shown if all(part.isalnum() for part in mark.split("-"))]
    return found


@dataclass(frozen=True)
class Head:
    """The head of a thing's page: its facts and why it is as it is, shown anew when either changes."""

    row: BatchRow | InstanceRow
    whys: Sequence[Any]

    @property
    def mark(self) -> str:
        return self.row.mark

    @property
    def digest(self) -> str:
        return digest_of(self.row.digest, self.whys)
