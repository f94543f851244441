"""Fires what is due: each due time becomes one batch, whatever the number of schedulers, kills and restarts.

One transaction takes due tasks under row locks, makes their batches and moves their next due times on. Cut
short at any point, it leaves nothing behind and the next round does all of it; locked rows are passed over, so
two schedulers at once share the work. The unique constraint `trigger_fires_once` stands behind that.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, cast

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import Exists, OuterRef, Q

from config import clock
from scheduling import calendars, journal, reasons, services, transitions
from scheduling.engine.revisions import Revisions
from scheduling.errors import is_transient
from scheduling.models import Batch, JournalEntry, Node, Task, TaskRevision
from scheduling.models.tasks import Misfire, Mode, Overlap
from scheduling.notifications import batches as notifications
from scheduling.reasons import said
from scheduling.services import BatchRequest
from scheduling.states import BATCH, BatchState

logger = logging.getLogger(__name__)

# Missed due times of one task that a single round makes good, so that no round grows without bound.
RUN_ALL_STEP = 20
# A round that makes so many instances takes no further task: tasks may have ten thousand shards, and what makes
# them all in one transaction would keep every other task waiting, and at some size be refused.
ENOUGH_INSTANCES = 10_000
# Missed due times of a cron schedule are counted one by one; nobody needs to know more exactly than this.
COUNT_UP_TO = 1000
_MOMENT = timedelta(microseconds=1)
# Locks that one round waits for in vain; what is left then stays due.
MOST_WAITS = 4
# Failures of one statement, after which its transaction goes on from the savepoint: a lock timeout, a deadlock,
# a serialization failure. A cancelled statement is none: it was cancelled to stop the scheduler.
_OF_ONE_STATEMENT = frozenset({"55P03", "40P01", "40001"})
_revisions = Revisions()


def fire_due(now: datetime | None = None, limit: int = 100) -> int:
    """Fire up to `limit` tasks that are due at `now`, in the order of their due times, what has misfired last.

    Each is moved on by one due time, or past all that it missed as its misfire policy says. Returns how many
    tasks it dealt with: 0 when nothing (more) is due or others hold what is. Call it until then.
    """
    now = now or clock.now()
    with transaction.atomic():
        tasks = _due(now, limit)
        if not tasks:
            return 0
        _revisions.give(tasks)
        firing = _Firing(now, unfinished=_unfinished_batches(tasks), nodes=_nodes_of_broadcasts(tasks))
        # What makes good for hours may take many rounds, and is the longest due in each.
        grace = _grace_begins(now)
        for task in sorted(tasks, key=lambda task: cast("datetime", task.next_due_at) < grace):
            firing.add(task)
            if firing.instances >= ENOUGH_INSTANCES:
                break
        _create(firing)
        journal.record_all(firing.entries)
        for task, due, reason in firing.missed:
            notifications.tell_missed(task, due=due, reason=reason)
        _move_on(firing.following)
    for task_id in {request.task.pk for request in firing.requests if request.held}:
        _settle(task_id)
    return len(firing.following)


def _due(now: datetime, limit: int) -> list[Task]:
    """Up to `limit` due tasks, locked, whose team and group nobody holds; the keys of those are locked too."""
    teams: set[int] = set()
    groups: set[int] = set()
    found = (
        Task.objects.filter(enabled=True, next_due_at__lte=now)
        .only("team", "group", "name", "revision", "next_due_at", "enabled_at", "notify")
        .order_by("next_due_at", "id")
        .select_for_update(no_key=True, skip_locked=True)
    )
    # Batches refer to team and group, and to insert one waits for whoever deletes or renames those.
    while tasks := list(found.exclude(team__in=teams).exclude(group__in=groups)[:limit]):
        busy_teams = _busy(_TEAMS, {task.team_id for task in tasks})
        busy_groups = _busy(_GROUPS, {task.group_id for task in tasks})
        free = [task for task in tasks if task.team_id not in busy_teams and task.group_id not in busy_groups]
        if free:
            return free
        teams |= busy_teams
        groups |= busy_groups
    return []


def _busy(query: str, wanted: set[int]) -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute(query, [sorted(wanted)])
        return wanted - {pk for (pk,) in cursor.fetchall()}


_TEAMS = "SELECT id FROM scheduling_team WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE SKIP LOCKED"
_GROUPS = "SELECT id FROM scheduling_deploymentgroup WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE SKIP LOCKED"


def next_due_at() -> datetime | None:
    """When the next enabled task is due; None when none ever is.

    Whoever asks waits for it: what firing needs to know of the tasks that are due then is read meanwhile.
    """
    due = Task.objects.filter(enabled=True, next_due_at__isnull=False).order_by("next_due_at")
    first = due.values_list("next_due_at", flat=True).first()
    _revisions.read_ahead(first, due)
    return first


def settle_held() -> int:
    """Settle the tasks whose held batches nobody brings forward any more; returns how many tasks.

    Firing settles after its commit and the engine after an end, so this finds something only when one of them
    was killed in between.
    """
    others = Batch.objects.unfinished().filter(task=OuterRef("task"))
    stranded = (
        Batch.objects.unfinished()
        .filter(held=True)
        .filter(
            ~Exists(others.filter(held=False))
            | Q(task__revision__overlap=Overlap.ALLOW)
            | Q(task__revision__overlap=Overlap.REPLACE)
            & Exists(
                others.exclude(pk=OuterRef("pk")).filter(
                    state__in=sorted(BATCH.sources(BatchState.TERMINATING))
                )
            )
        )
    )
    tasks = set(stranded.order_by().values_list("task_id", flat=True).distinct())
    for task_id in sorted(tasks):
        _settle(task_id)
    return len(tasks)


@dataclass
class _Firing:
    """What one round is going to write, gathered before anything is written."""

    now: datetime
    unfinished: dict[int, int | None]
    """The oldest unfinished batch of each task that has one; None for one that this round makes."""
    nodes: dict[int, list[Node]]
    requests: list[BatchRequest] = field(default_factory=list)
    entries: list[JournalEntry] = field(default_factory=list)
    following: dict[int, datetime | None] = field(default_factory=dict)
    missed: list[tuple[Task, datetime, str]] = field(default_factory=list)
    """Due times for which nothing runs, and why: a policy that somebody chose is no reason to tell of it."""
    instances: int = 0

    def add(self, task: Task) -> None:
        """Fire `task`. A schedule that cannot be reckoned loses its due time, not the other tasks theirs."""
        try:
            self._add(task)
        except Exception as error:
            if isinstance(error, DatabaseError):
                raise
            logger.exception("The schedule of task %s (%d) cannot be reckoned", task.name, task.pk)
            reason = said(reasons.UNSCHEDULED, error=error)
            self.entries.append(journal.entry("unscheduled", task, journal.SCHEDULE, reason=reason))
            self.missed.append((task, task.next_due_at or self.now, reason))
            self.following[task.pk] = None

    def _add(self, task: Task) -> None:
        revision, due = task.revision, task.next_due_at
        if revision is None or due is None:
            raise ValueError(said(reasons.NO_CONTENT))
        missed_before = _missed_before(task, self.now)
        runs, last = _answer(revision, due, self.now, missed_before)
        following = calendars.next_due(revision, last)
        if due < missed_before:
            was_off = task.enabled_at is not None and due < task.enabled_at
            reason = said(reasons.MISSED_WHILE_OFF) if was_off else _misfired()
            self._record_misfire(task, revision, due, last, reason)
            if not runs and not was_off:
                self.missed.append((task, due, reason))
        for each in runs:
            self._fire(task, revision, each)
        self.following[task.pk] = following

    def _fire(self, task: Task, revision: TaskRevision, due: datetime) -> None:
        busy = task.pk in self.unfinished and revision.overlap != Overlap.ALLOW
        if busy and revision.overlap == Overlap.SKIP:
            self._record_skip(task, due)
            return
        slots = services.slots_of(revision, self.nodes.get(task.group_id, ()))
        self.requests.append(
            BatchRequest(
                task=task,
                revision=revision,
                trigger=revision.trigger,
                scheduled_for=due,
                slots=slots,
                held=busy,
                by=journal.SCHEDULE,
            )
        )
        self.instances += len(slots)
        if slots:
            self.unfinished.setdefault(task.pk, None)

    def _record_skip(self, task: Task, due: datetime) -> None:
        earlier = self.unfinished[task.pk]
        reason = said(reasons.SKIPPED_FOR, batch=earlier) if earlier else said(reasons.SKIPPED)
        details = {"due": due.isoformat(), "unfinished_batch": earlier}
        self.entries.append(
            journal.entry("trigger_skipped", task, journal.SCHEDULE, reason=reason, details=details)
        )

    def _record_misfire(
        self, task: Task, revision: TaskRevision, due: datetime, last: datetime, reason: str
    ) -> None:
        missed = 1 + sum(1 for _due in islice(calendars.due_between(revision, due, last), COUNT_UP_TO))
        details: dict[str, Any] = {
            "policy": revision.misfire,
            "count": min(missed, COUNT_UP_TO),
            "count_is_exact": missed <= COUNT_UP_TO,
            "first_due": due.isoformat(),
            "last_due": last.isoformat(),
        }
        entry = journal.entry("misfired", task, journal.SCHEDULE, reason=reason, details=details)
        self.entries.append(entry)


def _misfired() -> str:
    return said(reasons.MISFIRED, seconds=f"{settings.TAILRACE['MISFIRE_GRACE']:g}")


def _grace_begins(now: datetime) -> datetime:
    """What was due before this moment has misfired."""
    return now - timedelta(seconds=cast("float", settings.TAILRACE["MISFIRE_GRACE"]))


def _missed_before(task: Task, now: datetime) -> datetime:
    """Due times before this moment are misfires: nobody fired them in time, or the task was disabled."""
    grace = _grace_begins(now)
    return max(grace, task.enabled_at) if task.enabled_at else grace


def _answer(
    revision: TaskRevision, due: datetime, now: datetime, missed_before: datetime
) -> tuple[Sequence[datetime], datetime]:
    """The due times to run now, and the last one that is thereby dealt with."""
    if due >= missed_before:
        return [due], due
    match revision.misfire:
        case Misfire.SKIP:
            return [], calendars.latest_due(revision, due, missed_before - _MOMENT)
        case Misfire.RUN_ONCE:
            # One run makes good whatever has come due up to this moment, not only what is past the grace.
            latest = calendars.latest_due(revision, due, now)
            return [latest], latest
        case _:
            step = max(1, min(RUN_ALL_STEP, ENOUGH_INSTANCES // max(1, len(revision.shards))))
            missed = islice(calendars.due_between(revision, due, missed_before - _MOMENT), step - 1)
            runs = [due, *missed]
            return runs, runs[-1]


def _unfinished_batches(tasks: Sequence[Task]) -> dict[int, int | None]:
    overlapping = [task.pk for task in tasks if task.revision and task.revision.overlap != Overlap.ALLOW]
    found = Batch.objects.unfinished().filter(task__in=overlapping).order_by("task", "-id")
    return dict(found.values_list("task_id", "id"))


def _nodes_of_broadcasts(tasks: Sequence[Task]) -> dict[int, list[Node]]:
    groups = {task.group_id for task in tasks if task.revision and task.revision.mode == Mode.BROADCAST}
    nodes: dict[int, list[Node]] = {}
    for node in Node.objects.online().filter(group__in=groups):
        nodes.setdefault(node.group_id, []).append(node)
    return nodes


def _create(firing: _Firing) -> None:
    """Make all batches at once; if one of them is refused, make them one by one without it.

    The database may refuse it, or what hears of a batch that ends at once.
    """
    if not firing.requests:
        return
    try:
        with transaction.atomic():
            services.make_batches(firing.requests)
    except Exception as error:
        if is_transient(error) and not _is_of_one_statement(error):
            raise
        waits = 0
        # In any order, so that no locked task is in the way of the same others in each round.
        for request in random.sample(firing.requests, len(firing.requests)):
            if waits == MOST_WAITS:
                firing.following.pop(request.task.pk, None)
            elif not _create_alone(request, firing):
                waits += 1


def _is_of_one_statement(error: Exception) -> bool:
    return getattr(error.__cause__, "sqlstate", None) in _OF_ONE_STATEMENT


def _create_alone(request: BatchRequest, firing: _Firing) -> bool:
    """Make one batch, or say why not; False when somebody held for too long what it needs."""
    due = request.scheduled_for.isoformat()
    try:
        with transaction.atomic():
            services.make_batches([request])
    except Exception as error:
        if is_transient(error):
            if not _is_of_one_statement(error):
                raise
            # The task stays due. Its batches of this round, if there are others, are refused as fired already.
            logger.warning("Task %s cannot be fired for %s yet: %s", request.task.name, due, error)
            firing.following.pop(request.task.pk, None)
            return False
        if getattr(getattr(error.__cause__, "diag", None), "constraint_name", "") == "trigger_fires_once":
            logger.warning("Task %s has fired for %s already; not again", request.task.name, due)
            return True
        logger.exception("Task %s cannot be fired for %s", request.task.name, due)
        reason = said(reasons.NOT_MADE, error=error)
        firing.missed.append((request.task, request.scheduled_for, reason))
        firing.entries.append(
            journal.entry(
                "trigger_failed",
                request.task,
                journal.SCHEDULE,
                reason=reason,
                details={"due": due},
            )
        )
    return True


_MOVE_ON = """
UPDATE scheduling_task task SET next_due_at = moved.due
FROM unnest(%(tasks)s::bigint[], %(following)s::timestamptz[]) AS moved (id, due) WHERE task.id = moved.id
"""


def _move_on(following: dict[int, datetime | None]) -> None:
    transitions.execute(_MOVE_ON, {"tasks": list(following), "following": list(following.values())})


def _settle(task_id: int) -> None:
    try:
        services.settle_overlap(task_id)
    except DatabaseError:
        # What fired stays fired; settle_held comes back to the task.
        logger.exception("The held batches of task %d could not be brought forward yet", task_id)
