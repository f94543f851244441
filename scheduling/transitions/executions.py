"""Start and end of an execution, which every instance goes through: they are functions of the database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NotRequired, TypedDict, Unpack
from uuid import UUID

from django.db import connection, transaction
from psycopg.types.json import Jsonb

from scheduling import signals
from scheduling.models import Batch
from scheduling.models.batches import Cause
from scheduling.notifications import batches as notifications
from scheduling.states import InstanceState, Outcome
from scheduling.transitions.making import Offer, offering
from scheduling.transitions.statements import execute

_START = "SELECT * FROM tailrace_start_execution(%(batch)s, %(instance)s, %(token)s, %(worker)s, %(timeout)s)"


@dataclass(frozen=True, slots=True)
class Started:
    """What a worker needs to know of the execution that it has just begun."""

    execution_id: int
    attempt: int
    number: int
    shard_parameter: str
    total: int
    revision_id: int
    parameters: dict[str, Any]
    scheduled_for: datetime
    data_date: date | None
    timezone: str


class Starting(TypedDict):
    """What `start` takes. `timeout` is in seconds; `worker` is the process that will run it."""

    batch: int
    instance: int
    token: UUID
    worker: int
    timeout: int | None


def start(**starting: Unpack[Starting]) -> Started | None:
    """Turn a claimed instance into a running one with a new execution.

    Returns None when the claim is not valid any more (stopped, expired and claimed again, delivered
    twice): then nothing was changed and nothing may run. Asked again by the worker whose start went
    through while the database's answer was lost, it returns that start.
    """
    return _started(execute(_START, {**starting}))


def _started(row: Any) -> Started | None:
    if row is None or row.execution_id is None:
        return None
    values = {name: getattr(row, name) for name in Started.__slots__}
    # Django's connections hand JSON over as text.
    return Started(**values | {"parameters": json.loads(row.parameters)})


# --- end -------------------------------------------------------------------------------------------

_ENDING = """
    %(batch)s, %(instance)s, %(execution)s, %(token)s, %(outcome)s, %(state)s, %(state_if_terminating)s,
    %(exit_code)s, %(error)s, %(reason)s, %(result)s, %(may_retry)s, %(retry_cause)s, %(retry_after)s, %(alone)s
"""
_END = f"SELECT * FROM tailrace_end_execution({_ENDING})"
_HAND_OVER = f"""
SELECT * FROM tailrace_next_execution({_ENDING},
    %(next_batch)s, %(next_instance)s, %(next_token)s, %(next_worker)s, %(next_timeout)s)
"""

_STATE_OF = {
    Outcome.SUCCESS: (InstanceState.SUCCESS, InstanceState.SUCCESS),
    Outcome.FAILED: (InstanceState.FAILED, InstanceState.FAILED),
    Outcome.TIMED_OUT: (InstanceState.TIMED_OUT, InstanceState.TIMED_OUT),
    # A process that is known to be dead confirms a stop that was asked; otherwise it just failed.
    Outcome.TERMINATED: (InstanceState.FAILED, InstanceState.TERMINATED),
    Outcome.LOST: (InstanceState.FAILED, InstanceState.TERMINATED),
}


@dataclass(frozen=True, slots=True)
class Ended:
    """What `end` did: the instance's state, whether it goes back to the queue, whether its batch ended."""

    state: str
    retry: bool
    batch_ended: bool


class Ending(TypedDict):
    """What `end` takes. `retry_after` is in seconds; `siblings` spares a look when the batch has but one;
    without `confirmed`, nobody saw the process end."""

    batch: int
    instance: int
    execution: int
    token: UUID
    outcome: str
    exit_code: NotRequired[int | None]
    error: NotRequired[str]
    reason: NotRequired[str]
    result: NotRequired[Any]
    may_retry: NotRequired[bool]
    confirmed: NotRequired[bool]
    retry_after: NotRequired[float]
    siblings: NotRequired[bool]


def end(**ending: Unpack[Ending]) -> Ended | None:
    """Record how the execution that holds `token` ended, count it, and judge its batch when it was the last.

    Returns None when the token is stale (a fenced execution's late report, or a report made twice): then
    nothing was changed.
    """
    return _ended(_END, ending, {})[0]


def end_and_take(ending: Ending, offer: Offer) -> tuple[Ended | None, Started | None]:
    """`end` one execution, and let the worker behind `offer` take what the end of its batch has made ready.

    What it took is `offer.claim`, and stands with the transaction. It is started in the same one, unless it
    has a time-out: whoever sees to that starts it.
    """
    return _ended(_END, ending, {}, offer)


def hand_over(ending: Ending, starting: Starting) -> tuple[Ended | None, Started | None]:
    """`end` one execution and `start` the worker's next in one transaction: half the commits of both alone."""
    return _ended(_HAND_OVER, ending, {f"next_{name}": value for name, value in starting.items()})


def _ended(
    statement: str, ending: Ending, more: dict[str, Any], offer: Offer | None = None
) -> tuple[Ended | None, Started | None]:
    """Run `statement`; the end of a batch is told to `batch_ended` in the transaction that made it."""
    outcome = Outcome(ending["outcome"])
    state, state_if_terminating = _STATE_OF[outcome]
    if not ending.get("confirmed", True):
        state_if_terminating = state
    result = ending.get("result")
    told = more | {
        "batch": ending["batch"],
        "instance": ending["instance"],
        "execution": ending["execution"],
        "token": ending["token"],
        "outcome": outcome.value,
        "state": state.value,
        "state_if_terminating": state_if_terminating.value,
        "exit_code": ending.get("exit_code"),
        "error": ending.get("error", ""),
        "reason": ending.get("reason", ""),
        "result": None if result is None else Jsonb(result),
        "may_retry": ending.get("may_retry", True),
        "retry_cause": (Cause.LOST if outcome == Outcome.LOST else Cause.RETRY).value,
        "retry_after": float(ending.get("retry_after", 0)),
    }
    row, taken = None, None
    if offer is not None:
        offer.claim = None
    alone = ending.get("siblings", True) and not connection.in_atomic_block
    if alone:
        row = execute(statement, told | {"alone": True})
    if row is None or (row.known and row.state is None):
        # It may be the batch's last instance.
        with transaction.atomic(savepoint=False), offering(offer):
            row = execute(statement, told | {"alone": False})
            if row.batch_ended:
                signals.batch_ended.send(
                    sender=Batch, batch_id=ending["batch"], state=row.batch_state, trigger=row.trigger
                )
                if row.tells:
                    notifications.tell_ended(ending["batch"])
                if offer is not None and offer.claim is not None and offer.claim.timeout is None:
                    claim = offer.claim
                    taken = start(
                        batch=claim.batch,
                        instance=claim.instance,
                        token=claim.token,
                        worker=offer.worker,
                        timeout=None,
                    )
    begun = _started(row) if more else taken
    return (Ended(row.state, row.retry, row.batch_ended) if row.known else None), begun
