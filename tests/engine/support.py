"""What the tests of the engine share: claiming by hand, what must always hold, and second connections."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction
from django.db.models import Q

from scheduling import transitions
from scheduling.engine import broker
from scheduling.models import Batch, Execution, Node
from scheduling.states import BATCH, INSTANCE, BatchState, InstanceState
from tests.processes import eventually

COUNTERS = {"success": "succeeded", "failed": "failed", "timed_out": "timed_out", "terminated": "terminated"}


def row(thing: Any) -> dict[str, Any]:
    """Every column of the row behind `thing`, as the database has it now."""
    return dict(type(thing).objects.filter(pk=thing.pk).values().get())


def identity(node: Node, *, boot_id: uuid.UUID | None = None) -> broker.Identity:
    """The present life of `node`, begun here when it has none; with `boot_id` another life."""
    if node.boot_id is None:
        node.boot_id = uuid.uuid4()
        node.save(update_fields=["boot_id"])
    return broker.Identity(node.pk, node.name, node.group_id, boot_id or node.boot_id, node.slots)


def claim(node: Node, capacity: int = 1000) -> list[broker.Claim]:
    return broker.claim(identity(node), capacity).claims


def start(claimed: broker.Claim, *, worker: int = 1) -> transitions.Started | None:
    """Start what was claimed as a worker does."""
    return transitions.start(
        batch=claimed.batch, instance=claimed.instance, token=claimed.token, worker=worker, timeout=None
    )


def end(
    claimed: broker.Claim, execution: int, outcome: str = "success", **report: Any
) -> transitions.Ended | None:
    """Report how what was claimed and started ended."""
    return transitions.end(
        batch=claimed.batch,
        instance=claimed.instance,
        execution=execution,
        token=claimed.token,
        outcome=outcome,
        **report,
    )


# --- what must always hold ---------------------------------------------------------------------------


def check(batch: Batch) -> None:
    """A batch, its instances and their executions agree (mission row A3, and what the counters promise)."""
    batch.refresh_from_db()
    # Two questions are all: some tests ask this a thousand times.
    instances = list(batch.instances.values_list("pk", "state", "executions_count", named=True))
    states = Counter(instance.state for instance in instances)
    counted = {state: getattr(batch, counter) for state, counter in COUNTERS.items()}
    assert counted == {state: states[state] for state in COUNTERS}, (batch.state, states)
    assert sum(states.values()) == batch.total
    unfinished = {state for state in INSTANCE.unfinished if states[state]}
    match batch.state:
        case BatchState.WAITING:
            assert unfinished == {InstanceState.WAITING}
            assert set(states) <= {InstanceState.WAITING, InstanceState.TERMINATED}
        case BatchState.RUNNING:
            assert unfinished - {InstanceState.TERMINATING}
            assert set(states) != {InstanceState.WAITING}
        case BatchState.TERMINATING:
            assert unfinished == {InstanceState.TERMINATING}
        case BatchState.CONDITION_NOT_MET:
            assert set(states) == {InstanceState.TERMINATED}
        case judged:
            assert not unfinished
            assert judged == (
                "success" if batch.succeeded * 100 >= batch.success_ratio * batch.total else "failed"
            )
    assert (batch.ended_at is not None) == (batch.state in BATCH.final)
    live: list[int] = []
    numbers: dict[int, list[int]] = {instance.pk: [] for instance in instances}
    executions = Execution.objects.filter(instance__batch=batch).order_by("number")
    for instance, number, ended_at in executions.values_list("instance_id", "number", "ended_at"):
        numbers[instance].append(number)
        live += [instance] if ended_at is None else []
    assert sorted(live) == sorted(i.pk for i in instances if i.state in {"running", "terminating"})
    assert numbers == {i.pk: list(range(1, i.executions_count + 1)) for i in instances}


def claimable(batch: Batch) -> bool:
    """Whether any node might claim something of the batch, now or later."""
    return batch.instances.filter(state="waiting", claimed=False).filter(~Q(run_after=None)).exists()


# --- second connections ------------------------------------------------------------------------------


class Elsewhere[Value]:
    """`act` in a thread of its own, which has a database connection of its own."""

    def __init__(self, act: Callable[[], Value]) -> None:
        self._value: Value | None = None
        self._error: BaseException | None = None
        self.backend = 0
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(act,), daemon=True)
        self._thread.start()
        assert self._connected.wait(20)

    def _run(self, act: Callable[[], Value]) -> None:
        try:
            connection.ensure_connection()
            self.backend = connection.connection.info.backend_pid
            self._connected.set()
            self._value = act()
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._error = error
        finally:
            connection.close()

    @property
    def is_blocked(self) -> bool:
        """Whether it waits for a lock that another connection holds."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [self.backend])
            return bool(cursor.fetchone()[0])

    def until_blocked(self) -> None:
        eventually(lambda: self._error or self.is_blocked)
        assert self._error is None, self._error

    def result(self) -> Value:
        """What `act` returned; raises what it raised."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "it never came back"
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


@contextmanager
def before_commit(first: Callable[[], Any], then: Callable[[], Any]) -> Iterator[Elsewhere[Any]]:
    """`first` here, uncommitted; `then` elsewhere, until it waits for us; commits at the end of the block."""
    with transaction.atomic():
        first()
        other = Elsewhere(then)
        other.until_blocked()
        yield other
