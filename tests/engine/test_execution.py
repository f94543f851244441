"""What a worker does with an execution while the database goes away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from scheduling import reasons, transitions
from scheduling.engine import execution
from scheduling.engine.broker import Identity
from scheduling.engine.channels import Counter, Flag, MessageQueue
from scheduling.models import Execution, Instance, JournalEntry
from scheduling.reasons import said
from scheduling.states import InstanceState, Outcome
from tests import factories

TOKEN = UUID(int=1)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """This process as a worker, without the watcher's thread; it leaves the children of the tests alone."""
    monkeypatch.setattr(execution.Watcher, "start", lambda self: None)
    monkeypatch.setattr(execution, "no_descendant_left", lambda grace: nullcontext())
    node = factories.node()
    made = execution.Worker(
        Identity(node.pk, node.name, node.group_id, node.boot_id, 1), MessageQueue(), Counter(), Flag()
    )
    monkeypatch.setattr(execution, "_worker", made)
    yield made
    made.tasks._writer.close()
    made.tasks._reader.close()


def claim_on(node: int) -> transitions.Claim:
    """A claim of a new instance, which may not be retried, by a node."""
    group = factories.Node.objects.get(pk=node).group
    made = factories.batch(factories.task(group=group, kind="shell", spec={"command": "exit 0"}, retry_count=0))
    [instance] = made.instances.all()
    Instance.objects.filter(pk=instance.pk).update(claimed=True, node_id=node, token=TOKEN)
    return transitions.Claim(instance.pk, made.pk, TOKEN, None)


def test_a_connection_lost_right_after_the_start_costs_no_attempt(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claim_on(worker.identity.node_id)
    start = transitions.start

    def start_and_lose(**starting: Any) -> Any:
        started = start(**starting)
        connection.connection.pgconn.finish()
        return started

    monkeypatch.setattr(transitions, "start", start_and_lose)
    execution._revision.cache_clear()
    execution.run(claim)
    instance = Instance.objects.get(pk=claim.instance)
    assert (instance.state, Execution.objects.count()) == (InstanceState.SUCCESS, 1)


@pytest.mark.parametrize("given_up", [True, False])
def test_a_refused_report_is_in_the_journal_once_and_a_repeated_one_is_not(worker: Any, given_up: bool) -> None:
    claim = claim_on(worker.identity.node_id)
    started = transitions.start(batch=claim.batch, instance=claim.instance, token=TOKEN, worker=1, timeout=None)
    assert started is not None
    outcome = Outcome.LOST if given_up else Outcome.SUCCESS
    transitions.end(
        batch=claim.batch, instance=claim.instance, execution=started.execution_id, token=TOKEN, outcome=outcome
    )
    revision, ending = execution._revision(started.revision_id), execution.Ending(Outcome.SUCCESS)
    for _ in range(2):
        execution._report(claim, started, revision, ending, None, None)

    refused = JournalEntry.objects.filter(action="report_refused")
    assert [(one.object_type, one.object_id, one.reason, one.details) for one in refused] == [
        (
            "instance",
            claim.instance,
            said(reasons.REPORT_REFUSED, node=worker.identity.name, state=Outcome.SUCCESS),
            {"execution": started.execution_id, "node": worker.identity.name},
        )
    ] * given_up
