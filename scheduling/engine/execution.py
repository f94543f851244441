"""What a worker process does with one claimed instance: start it, run its job, report how it ended.

`run` is the function that django-q2's workers call. It reads and writes the records itself, each in one
transaction, so nothing depends on django-q2's result queue.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import psycopg
from django.conf import settings
from django.db import DatabaseError, DataError, connection, connections, transaction
from django.db.backends.signals import connection_created
from django_q.exceptions import TimeoutException

from scheduling import calendars, journal, kinds, parameters, reasons, transitions
from scheduling.engine import logs
from scheduling.engine.broker import as_task
from scheduling.engine.watcher import IDLE_AFTER, Watcher
from scheduling.errors import is_transient
from scheduling.jobs import JobContext, JobFailed, JobStopped
from scheduling.kinds.process import no_descendant_left
from scheduling.models import Execution, JournalEntry, TaskRevision
from scheduling.models.tasks import Overlap
from scheduling.reasons import said
from scheduling.services import settle_overlap
from scheduling.states import Outcome

if TYPE_CHECKING:
    from scheduling.engine.broker import Identity
    from scheduling.engine.channels import Counter, Flag, MessageQueue
    from scheduling.transitions import Claim

logger = logging.getLogger(__name__)

# The waits between two tries to report while the database is away, in seconds.
_PATIENCE = (0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(slots=True)
class Ending:
    """How a job ended, as `transitions.end` takes it."""

    outcome: str
    result: Any = None
    exit_code: int | None = None
    error: str = ""


class Worker:
    """The state of this worker process; made once after the fork, by `prepare`."""

    def __init__(self, identity: Identity, tasks: MessageQueue, finished: Counter, stopping: Flag) -> None:
        self.identity = identity
        self.tasks = tasks
        self.finished = finished
        self.stopping = stopping
        self.watcher = Watcher()
        self.watcher.start()

    def next_claim(self) -> Claim | None:
        """A claim that is there to be started in the transaction that ends the present one.

        One with a time-out goes back to django-q2, whose alarm has to be set for it.
        """
        message = self.tasks.get_nowait()
        if isinstance(message, dict) and message["timeout"] == -1:
            claim: Claim = message["args"][0]
            return claim
        if message is not None:
            self.tasks.put_back(message)
        return None

    def offer(self) -> transitions.Offer | None:
        """What may follow from the end of the present instance is this worker's, if nothing waits for it."""
        if not self.tasks.empty() or self.stopping.is_set():
            return None
        own = self.identity
        return transitions.Offer(own.node_id, own.boot_id, own.group_id, worker=os.getpid())


_worker: Worker | None = None


def prepare(identity: Identity, tasks: MessageQueue, finished: Counter, stopping: Flag) -> None:
    """Make this process a worker of a node, with messages from `tasks`; it counts what it `finished`.

    When `stopping` is set, it begins nothing that it was not given.
    """
    global _worker  # one per process, and django-q2 hands its function nothing of ours
    _worker = Worker(identity, tasks, finished, stopping)
    # The watcher closes it.
    connections["default"].inc_thread_sharing()
    tasks.on_idle, tasks.idle_after = connections.close_all, IDLE_AFTER


def run(claim: Claim) -> None:
    """Execute one claimed instance, and then those that wait already, each begun as the one before it ends.

    Does nothing when the claim is not valid any more. Lets django-q2's TimeoutException through once
    everything is recorded: the worker is then replaced.
    """
    if _worker is None:
        raise RuntimeError("Instances run in a node's workers: start one with manage.py node.")
    try:
        started = _begin(claim)
        if started is None:
            _worker.finished.add()
        while started is not None:
            claim, started = _execute(_worker, claim, started)
    except TimeoutException:
        raise
    except BaseException:
        # Whatever this was, an execution may be left running that nobody runs. The sentinel finds those of a
        # worker that is gone, and only those.
        logger.exception("instance %s: this worker cannot go on and ends", claim.instance)
        os._exit(1)


def _starting(claim: Claim) -> transitions.Starting:
    return {
        "batch": claim.batch,
        "instance": claim.instance,
        "token": claim.token,
        "worker": os.getpid(),
        "timeout": claim.timeout,
    }


def _begin(claim: Claim) -> transitions.Started | None:
    """Start what was claimed. A start that the database refuses twice is given up with the reason."""
    try:
        return _with_patience(lambda: transitions.start(**_starting(claim)))
    except DatabaseError as refusal:
        logger.exception("instance %s cannot be started; trying once more", claim.instance)
        reason = _refused(refusal)
    try:
        _with_patience(lambda: transitions.clear_claimed(claim, reason=reason))
        return _with_patience(lambda: transitions.start(**_starting(claim)))
    except DatabaseError as refusal:
        reason = _refused(refusal)
    try:
        batch = _with_patience(lambda: transitions.give_up_start(claim, reason=reason))
        if batch is not None:
            _with_patience(functools.partial(settle_overlap, batch.task_id))
    except DatabaseError:
        # Its lease ends, and another worker tries. This one lives on for other jobs.
        logger.exception("instance %s cannot be given up: %s", claim.instance, reason)
    return None


def _refused(refusal: DatabaseError) -> str:
    return _storable(said(reasons.START_REFUSED, error=str(refusal).splitlines()[0]))[:500]


def _execute(
    worker: Worker, claim: Claim, started: transitions.Started
) -> tuple[Claim, transitions.Started | None]:
    """Run what was started and report it; return the next claim and its start, if there was one."""
    # It has begun on record only: a database that goes away now must not end it.
    revision = _with_patience(lambda: _revision(started.revision_id))
    # Of a kind that is not there, the job says so.
    kind = kinds.kinds().get(revision.kind)
    unused = None if kind is None or kind.uses_connection else connections["default"]
    sink = logs.LogSink(
        functools.partial(worker.watcher.store, started.execution_id, claim.token),
        head_bytes=settings.TAILRACE["LOG_HEAD_BYTES"],
        tail_bytes=settings.TAILRACE["LOG_TAIL_BYTES"],
    )
    timed_out: TimeoutException | None = None
    with (
        worker.watcher.watching(claim, started, sink, unused) as watched,
        no_descendant_left(settings.TAILRACE["STOP_GRACE"]),
    ):
        try:
            ending = _run_job(claim, started, revision, watched, sink)
        except TimeoutException as error:
            timed_out = error
            ending = Ending(Outcome.TIMED_OUT, error=said(reasons.TIMED_OUT, seconds=claim.timeout))
    _leave_no_transaction()
    _with_patience(lambda: sink.flush(final=True))
    following = None if timed_out else worker.next_claim()
    # One that timed out is the last thing that this worker does.
    offer = None if timed_out or following else worker.offer()
    try:
        begun = _report(claim, started, revision, ending, following, offer)
    finally:
        worker.finished.add()
    if timed_out is not None:
        raise timed_out
    taken = offer.claim if offer else None
    if taken is not None and taken.timeout is not None:
        # It goes through django-q2, whose alarm has to be set.
        worker.tasks.put_back(as_task(taken))
    return following or taken or claim, begun


def _run_job(
    claim: Claim, started: transitions.Started, revision: Revision, watched: Any, sink: logs.LogSink
) -> Ending:
    """Run the job in this thread and say how it ended; only a time-out comes through."""
    began = time.monotonic()
    try:
        with _interruptible(watched):
            kind = kinds.kind(revision.kind)
            context = _context(claim, started, revision, watched, sink)
            result = kind.run(revision.spec, context)
    except TimeoutException:
        raise
    except JobStopped:
        return Ending(Outcome.TERMINATED, error=said(reasons.STOPPED_ON_REQUEST))
    except JobFailed as failure:
        return Ending(
            Outcome.FAILED,
            result=_redacted(failure.result, sink),
            exit_code=_exit_code(failure.exit_code),
            error=sink.redacted(failure.message),
        )
    except BaseException as error:  # whatever a job does is recorded
        logger.exception("execution %s broke its job kind %s", started.execution_id, revision.kind)
        text = f"{type(error).__name__}: {error}"
        sink.write(f"{text}\n")
        return Ending(Outcome.FAILED, error=sink.redacted(text))
    if claim.timeout and time.monotonic() - began > claim.timeout + 1:
        # It swallowed the alarm and went on.
        return Ending(Outcome.TIMED_OUT, error=said(reasons.TIMED_OUT_LATE, seconds=claim.timeout))
    return Ending(Outcome.SUCCESS, result=_redacted(result, sink))


def _redacted(result: Any, sink: logs.LogSink) -> Any:
    """`result` with every text in it as the log would show it."""
    match result:
        case str():
            return sink.redacted(result)
        case dict():
            return {sink.redacted(str(name)): _redacted(value, sink) for name, value in result.items()}
        case list() | tuple():
            return [_redacted(value, sink) for value in result]
        case _:
            return result


@contextmanager
def _interruptible(watched: Any) -> Iterator[None]:
    """In the block, django-q2's alarm and the watcher's last word may interrupt this thread; after it, not."""
    watched.interruptible = True
    worker = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != worker:
            # A child that the job forked and let return: it must not go on as a second worker with our sockets.
            os._exit(1)
        # First of all: an alarm that rings from here on would hit the report.
        signal.alarm(0)
        watched.interruptible = False


# --- what is needed to run ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Revision:
    """A task's content as a worker keeps it: revisions never change, so each is read once."""

    task_id: int
    task: str
    kind: str
    spec: dict[str, Any]
    parameters: dict[str, Any]
    sharded: bool
    trigger: str
    cron: str
    interval: int | None
    timezone: str
    retry_interval: int
    settles_overlap: bool


def _forget_revisions(**_signal: Any) -> None:
    """A new connection may lead to a server with another history, where the same id is another revision."""
    _revision.cache_clear()


connection_created.connect(_forget_revisions)


@functools.lru_cache(maxsize=512)
def _revision(revision_id: int) -> Revision:
    found = TaskRevision.objects.select_related("task").get(pk=revision_id)
    return Revision(
        task_id=found.task_id,
        task=found.task.name,
        kind=found.kind,
        spec=found.spec,
        parameters=found.parameters,
        sharded=bool(found.shards),
        trigger=found.trigger,
        cron=found.cron,
        interval=found.interval,
        timezone=found.timezone,
        retry_interval=found.retry_interval,
        settles_overlap=found.overlap in {Overlap.QUEUE, Overlap.REPLACE},
    )


@functools.lru_cache(maxsize=1024)
def _data_date(revision_id: int, scheduled_for: Any) -> Any:
    return calendars.data_date(_revision(revision_id), scheduled_for)


def _context(
    claim: Claim, started: transitions.Started, revision: Revision, watched: Any, sink: logs.LogSink
) -> JobContext:
    context = JobContext(
        execution_id=started.execution_id,
        instance_id=claim.instance,
        batch_id=claim.batch,
        task=revision.task,
        attempt=started.attempt,
        shard_index=started.number if revision.sharded else 0,
        shard_count=started.total if revision.sharded else 1,
        shard_parameter=started.shard_parameter,
        cycle_time=started.scheduled_for.astimezone(ZoneInfo(started.timezone or revision.timezone)),
        data_date=started.data_date or _data_date(started.revision_id, started.scheduled_for),
        log=sink,
        stop=watched.stop,
        stop_grace=settings.TAILRACE["STOP_GRACE"],
    )
    given = {**revision.parameters, **started.parameters}
    if given:
        context.parameters = parameters.expand(given, context.builtins)
    return context


# --- report ------------------------------------------------------------------------------------------


def _report(
    claim: Claim,
    started: transitions.Started,
    revision: Revision,
    ending: Ending,
    following: Claim | None,
    offer: transitions.Offer | None,
) -> transitions.Started | None:
    """Record how an execution ended, however long the database is away; and start what comes next.

    That is the claim that is there already, or what follows from this end and `offer` lets this worker take.
    """
    told: transitions.Ending = {
        "batch": claim.batch,
        "instance": claim.instance,
        "execution": started.execution_id,
        "siblings": started.total > 1,
        "token": claim.token,
        "retry_after": revision.retry_interval,
        "outcome": ending.outcome,
        "result": ending.result,
        "exit_code": ending.exit_code,
        "error": (error := _storable(ending.error)),
        "reason": error[:500],
    }

    taken: Claim | None = None

    def tell() -> tuple[transitions.Ended | None, transitions.Started | None]:
        if following is not None:
            return transitions.hand_over(told, _starting(following))
        if offer is None:
            return transitions.end(**told), None
        nonlocal taken
        taken = offer.claim or taken
        ended, begun = transitions.end_and_take(told, offer)
        if ended is None and taken is not None:
            # An earlier try went through, and only the answer to its commit was lost: what it took is there.
            offer.claim = taken
            begun = transitions.start(**_starting(taken)) if taken.timeout is None else None
        return ended, begun

    try:
        ended, begun = _with_patience(tell)
    except (DatabaseError, ValueError):
        # Either this end is refused or the start of what follows: each is done by itself.
        if offer is not None:
            offer.claim = None
        ended = _report_alone(told)
        begun = _begin(following) if following else None
    if ended is None:
        logger.warning(
            "instance %s: a report with token %s came too late and changed nothing", claim.instance, claim.token
        )
        _with_patience(lambda: _record_refusal(started.execution_id, Outcome(told["outcome"])))
    elif ended.batch_ended and revision.settles_overlap:
        _with_patience(lambda: settle_overlap(revision.task_id))
    return begun


def _report_alone(told: transitions.Ending) -> transitions.Ended | None:
    try:
        return _with_patience(lambda: transitions.end(**told))
    except (DataError, ValueError) as refusal:
        # It cannot be stored (a NUL in a result's text, say): tell so instead of losing the execution.
        text = _storable(said(reasons.RESULT_REFUSED, error=refusal))
        told |= {"outcome": Outcome.FAILED, "result": None, "error": text, "reason": text}
        return _with_patience(lambda: transitions.end(**told))


@transaction.atomic
def _record_refusal(execution_id: int, outcome: Outcome) -> None:
    """Write in the journal, once per execution, that a worker's report was refused.

    Not when the execution ended as the report says: then an earlier try of this report went through.
    """
    executions = Execution.objects.select_related("instance__batch__task", "node")
    execution = executions.filter(pk=execution_id, ended_at__isnull=False).exclude(outcome=outcome).first()
    if execution is None:
        return
    instance, details = execution.instance, {"execution": execution_id, "node": execution.node.name}
    earlier = JournalEntry.objects.filter(
        object_type="instance", object_id=instance.pk, action="report_refused", details=details
    )
    if not earlier.exists():
        why = said(reasons.REPORT_REFUSED, node=execution.node.name, state=outcome)
        journal.record("report_refused", instance, journal.ENGINE, reason=why, details=details)


def _storable(text: str) -> str:
    """`text` as PostgreSQL can hold it: no NUL, and no half of a character."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _exit_code(given: object) -> int | None:
    """What a job says is its exit code, unless it is none that the records could hold."""
    return int(given) if isinstance(given, int) and -(2**15) <= given < 2**15 else None


def _leave_no_transaction() -> None:
    """Drop the connection when the job, which shares it, left it in a transaction: ours would not commit."""
    raw = connection.connection
    idle = raw is None or raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    if connection.in_atomic_block or not connection.get_autocommit() or not idle:
        logger.warning("a job left the connection in a transaction; what it had not committed is lost")
        _drop_connection()


def _drop_connection() -> None:
    connection.in_atomic_block = False
    connection.needs_rollback = False
    connection.savepoint_ids = []
    connection.run_on_commit = []
    with suppress(Exception):
        connection.close()
    connection.connection = None
    connection.autocommit = False


def _with_patience[Value](attempt: Callable[[], Value]) -> Value:
    """`attempt` until the database takes it, which must be safe to do twice, as every verb's CAS is.

    Besides lost connections this mends a session that a job made read-only or left in a transaction, and waits
    for a migrate under way.
    """
    tries = 0
    while True:
        try:
            return attempt()
        except Exception as error:
            if not is_transient(error):
                raise
            wait = _PATIENCE[min(tries, len(_PATIENCE) - 1)]
            tries += 1
            logger.warning("the database does not answer (%s); trying again in %s s", error, wait)
            _drop_connection()
            time.sleep(wait)
