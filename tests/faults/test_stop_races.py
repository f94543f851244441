"""Stops that meet starts, ends and stops: real second connections, interleaved by locks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scheduling import services, transitions
from scheduling.engine import recovery
from scheduling.errors import NotAvailable, TransitionRefused
from scheduling.models import Batch, Instance, JournalEntry
from tests import factories
from tests.engine.support import before_commit, check, claim, end, start
from tests.faults.races import batch_of, instance_of, running

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_end_that_comes_during_a_stop_is_recorded_as_it_was():
    batch = batch_of(2)
    (first, execution), (second, other) = running(batch)
    with before_commit(
        lambda: services.stop(batch, by="ann"), lambda: end(first, execution, "success")
    ) as ending:
        pass
    assert ending.result() == transitions.Ended("success", retry=False, batch_ended=False)
    check(batch)
    assert batch.state == "terminating"
    end(second, other, "terminated")
    check(batch)
    assert (batch.state, batch.succeeded, batch.terminated) == ("failed", 1, 1)


def test_a_stop_that_comes_during_an_end_stops_the_rest():
    batch = batch_of(2)
    (first, execution), _other = running(batch)
    with before_commit(
        lambda: end(first, execution, "success"), lambda: services.stop(batch, by="ann")
    ) as stopping:
        pass
    assert stopping.result().state == "terminating"
    check(batch)
    assert instance_of(first).state == "success"


def test_a_stop_that_comes_during_the_last_end_is_refused(told: list[tuple[int, str]]):
    batch = batch_of(1)
    [(claimed, execution)] = running(batch)
    with before_commit(
        lambda: end(claimed, execution, "success"), lambda: services.stop(batch, by="ann")
    ) as stopping:
        pass
    with pytest.raises(TransitionRefused, match="has state Success; only an unfinished batch"):
        stopping.result()
    check(batch)
    assert told == [(batch.pk, "success")]


@pytest.mark.parametrize(
    "verb", [services.stop, services.rerun, services.stop_instance, services.rerun_instance]
)
def test_what_is_removed_while_one_acts_on_it_is_refused(verb: Callable[..., Any]):
    batch = batch_of(1)
    thing = batch.instances.get() if "instance" in verb.__name__ else batch
    if "rerun" in verb.__name__:
        factories.end_batch(batch)

    def remove() -> None:
        Batch.objects.select_for_update().get(pk=batch.pk).delete()

    with before_commit(remove, lambda: verb(thing, by="ann")) as acting:
        pass
    with pytest.raises(NotAvailable, match=rf"{thing.pk} is not there any more; retention removed it\."):
        acting.result()
    assert not Batch.objects.exists()


def test_a_start_that_comes_during_a_stop_runs_nothing():
    batch = batch_of(2)
    node = factories.node(group=batch.group)
    claimed = claim(node)
    with before_commit(lambda: services.stop(batch, by="ann"), lambda: start(claimed[0])) as starting:
        pass
    assert starting.result() is None
    assert start(claimed[1]) is None
    check(batch)
    assert (batch.state, batch.terminated, batch.started_at) == ("failed", 2, None)


@pytest.mark.parametrize("already_running", [0, 1])
def test_a_stop_that_comes_during_a_start_sees_the_started_one(already_running: int):
    batch = batch_of(3)
    node = factories.node(group=batch.group)
    claimed = claim(node)
    for one in claimed[:already_running]:
        assert start(one) is not None
    with before_commit(lambda: start(claimed[1]), lambda: services.stop(batch, by="ann")) as stopping:
        pass
    stopping.result()
    check(batch)
    assert batch.state == "terminating"
    assert instance_of(claimed[1]).state == "terminating"
    assert instance_of(claimed[2]).state == "terminated"


@pytest.mark.parametrize("first", ["retry", "stop"])
def test_a_stopped_batch_never_gets_an_instance_back_into_the_queue(first: str):
    batch = batch_of(1, retry_count=3)
    [(claimed, execution)] = running(batch)

    def fail() -> transitions.Ended | None:
        return end(claimed, execution, "failed")

    def stop() -> Batch:
        return services.stop(batch, by="ann")

    if first == "retry":
        with before_commit(fail, stop) as stopping:
            pass
        assert stopping.result().state == "failed"
    else:
        with before_commit(stop, fail) as failing:
            pass
        assert failing.result() == transitions.Ended("failed", retry=False, batch_ended=True)
    check(batch)
    assert batch.state == "failed"
    assert batch.reason == "Stopped by ann"
    assert claim(factories.node(group=batch.group)) == []


def test_of_two_stops_at_once_one_is_refused():
    batch = batch_of(2)
    running(batch)
    with before_commit(
        lambda: services.stop(batch, by="ann"), lambda: services.stop(batch, by="bob")
    ) as second:
        pass
    with pytest.raises(TransitionRefused, match="has state Terminating; only an unfinished batch"):
        second.result()
    assert JournalEntry.objects.filter(action="stopped", object_type="batch").count() == 1


def test_a_stop_and_a_release_of_claims_take_turns_and_do_not_deadlock():
    batch = batch_of(50)
    node = factories.node(group=batch.group)
    claim(node)
    # The rows lie in another order than their numbers, as after many updates.
    for pk in batch.instances.order_by("-number").values_list("pk", flat=True)[:25]:
        Instance.objects.filter(pk=pk).update(priority=0)
    with before_commit(
        lambda: services.stop(batch, by="ann"), lambda: recovery.release_claims(node.pk)
    ) as releasing:
        pass
    assert releasing.result() == 0
    check(batch)
    assert batch.state == "failed"
