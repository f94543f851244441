"""Ends and reruns that meet: real second connections, interleaved by locks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from scheduling import services, transitions
from scheduling.engine import recovery
from scheduling.engine.broker import Claim
from scheduling.errors import TransitionRefused
from scheduling.models import Execution, Instance, JournalEntry, Node
from scheduling.signals import batch_ended
from tests import factories
from tests.engine.support import before_commit, check, claim, end, start
from tests.faults.races import batch_of, instance_of, running

pytestmark = pytest.mark.django_db(transaction=True)


# --- ends --------------------------------------------------------------------------------------------


def test_a_lost_execution_at_whose_end_somebody_stumbles_holds_up_no_other(caplog: pytest.LogCaptureFixture):
    stumbling, other = batch_of(1), batch_of(1)
    lost = [running(batch)[0][1] for batch in (stumbling, other)]

    def stumble(batch_id: int, **_: Any) -> None:
        if batch_id == stumbling.pk:
            raise RuntimeError("no such luck")

    batch_ended.connect(stumble)
    try:
        assert recovery.lose(Execution.objects.filter(pk__in=lost).annotate(now=Now()), reason="gone") == 1
    finally:
        batch_ended.disconnect(stumble)
    assert "no such luck" in caplog.text
    for batch, state in ((stumbling, "running"), (other, "failed")):
        check(batch)
        assert batch.state == state
    # It is found again, and ends as soon as it can.
    assert recovery.lose(Execution.objects.live().annotate(now=Now()), reason="gone") == 1


def test_two_ends_of_the_last_two_instances_judge_the_batch_once(told: list[tuple[int, str]]):
    batch = batch_of(2)
    (first, one), (second, two) = running(batch)
    with before_commit(lambda: end(first, one), lambda: end(second, two)) as other:
        pass
    assert other.result() == transitions.Ended("success", retry=False, batch_ended=True)
    check(batch)
    assert told == [(batch.pk, "success")]
    assert JournalEntry.objects.filter(object_type="batch", action="ended", object_id=batch.pk).count() == 1


def test_a_report_made_twice_at_once_counts_once(told: list[tuple[int, str]]):
    batch = batch_of(1)
    [(claimed, execution)] = running(batch)
    with before_commit(lambda: end(claimed, execution), lambda: end(claimed, execution, "failed")) as other:
        pass
    assert other.result() is None
    check(batch)
    assert (batch.state, told) == ("success", [(batch.pk, "success")])


def test_two_first_starts_at_once_both_run_and_the_batch_starts_once():
    batch = batch_of(2)
    node = factories.node(group=batch.group)
    first, second = claim(node)
    with before_commit(lambda: start(first), lambda: start(second)) as other:
        pass
    assert other.result() is not None
    check(batch)
    assert batch.state == "running"
    assert JournalEntry.objects.filter(object_type="batch", action="started", object_id=batch.pk).count() == 1


def test_one_delivery_started_by_two_workers_at_once_runs_once():
    batch = batch_of(1)
    [claimed] = claim(factories.node(group=batch.group))
    with before_commit(lambda: start(claimed, worker=1), lambda: start(claimed, worker=2)) as other:
        pass
    assert other.result() is None
    check(batch)


def test_a_worker_whose_answer_was_lost_hears_of_its_own_start():
    batch = batch_of(1)
    [claimed] = claim(factories.node(group=batch.group))
    first = start(claimed, worker=1)
    assert start(claimed, worker=1) == first
    assert first is not None
    end(claimed, first.execution_id)
    assert start(claimed, worker=1) is None
    check(batch)


# --- reruns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["rerun", "end"])
def test_a_rerun_and_the_end_of_a_sibling_are_both_counted(first: str, told: list[tuple[int, str]]):
    batch = batch_of(2)
    (one, execution), (two, other) = running(batch)
    end(one, execution, "failed")

    def rerun() -> Instance:
        return services.rerun_instance(instance_of(one), by="ann")

    def end_sibling() -> transitions.Ended | None:
        return end(two, other)

    acts: list[Callable[[], Any]] = [rerun, end_sibling] if first == "rerun" else [end_sibling, rerun]
    with before_commit(*acts) as later:
        pass
    later.result()
    check(batch)
    assert (batch.state, batch.succeeded, batch.failed) == ("running", 1, 0)
    assert told == ([] if first == "rerun" else [(batch.pk, "failed")])
    [(again, execution)] = running(batch)
    end(again, execution)
    check(batch)
    assert batch.state == "success"


def test_of_two_reruns_of_one_instance_at_once_one_is_refused():
    batch = batch_of(1)
    [(claimed, execution)] = running(batch)
    end(claimed, execution, "failed")
    instance = instance_of(claimed)
    with before_commit(
        lambda: services.rerun_instance(instance, by="ann"),
        lambda: services.rerun_instance(instance, by="bob"),
    ) as second:
        pass
    with pytest.raises(TransitionRefused, match="has state Waiting; only a finished instance"):
        second.result()
    check(batch)
    assert len(running(batch)) == 1


def test_a_retry_and_a_start_at_once_never_leave_a_waiting_batch_with_a_running_instance() -> None:
    """Each order of the two transactions, on two connections: the start is tried again, as a worker does."""
    for end_first in (True, False):
        batch = batch_of(2, retry_count=1)
        [(running_claim, execution)] = running(batch, 1)
        [waiting_claim] = claim(Node.objects.get(group=batch.group), 2)

        def fail(claimed: Claim = running_claim, execution: int = execution) -> None:
            end(claimed, execution, "failed", may_retry=True)

        def begin(claimed: Claim = waiting_claim) -> None:
            while True:
                with suppress(OperationalError):
                    assert start(claimed) is not None
                    return

        first, then = (fail, begin) if end_first else (begin, fail)
        with before_commit(first, then) as other:
            pass
        other.result()
        check(batch)
        assert batch.state == "running"
