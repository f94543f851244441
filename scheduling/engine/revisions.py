"""What firing needs to know of tasks' revisions, read before it is needed: a revision never changes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import QuerySet

from config import clock
from scheduling.models import Task, TaskRevision

READ_AHEAD = timedelta(seconds=30)
MOST = 5000
# What the job does may be long, and a round has hundreds of them.
_FIELDS = (
    "mode",
    "shards",
    "shard_concurrency",
    "trigger",
    "cron",
    "interval",
    "timezone",
    "timeout",
    "retry_count",
    "success_ratio",
    "overlap",
    "misfire",
    "priority",
)


class Revisions:
    """The revisions that this process has read, by id."""

    def __init__(self) -> None:
        self._known: dict[int, TaskRevision] = {}
        self._ahead_of: datetime | None = None

    def give(self, tasks: Iterable[Task]) -> None:
        """Set the revision of locked tasks.

        Joined to them, it would be missing where somebody edits a task at this moment.
        """
        wanted = [(task, task.revision_id) for task in tasks if task.revision_id is not None]
        self._read(revision_id for _task, revision_id in wanted)
        for task, revision_id in wanted:
            task.revision = self._known[revision_id]

    def read_ahead(self, due: datetime | None, tasks: QuerySet[Task]) -> None:
        """Read those of `tasks`, the next of which are due at `due`, once and if that is soon."""
        if due is None or due == self._ahead_of or due - clock.now() > READ_AHEAD:
            return
        self._ahead_of = due
        soon = tasks.filter(next_due_at=due, revision__isnull=False)
        self._read(soon.values_list("revision_id", flat=True)[:MOST])

    def _read(self, ids: Iterable[int]) -> None:
        wanted = set(ids)
        if len(self._known) + len(wanted) > 2 * MOST:
            self._known.clear()
        if missing := wanted - self._known.keys():
            self._known |= TaskRevision.objects.only(*_FIELDS).in_bulk(missing)
