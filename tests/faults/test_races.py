"""Verbs that meet: real second connections, interleaved by locks that are seen to be waited for."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from scheduling import services, transitions
from scheduling.engine import recovery
from scheduling.engine.broker import Claim
from scheduling.errors import NotAvailable, TransitionRefused
from scheduling.models import Batch, Instance, JournalEntry, Node, Task
from scheduling.signals import batch_ended
from tests import factories
from tests.engine.support import Elsewhere, before_commit, check, claim, end, identity, start

pytestmark = pytest.mark.django_db(transaction=True)


def batch_of(total: int, **content: Any) -> Batch:
    return factories.batch(factories.task(shards=[str(n) for n in range(total)], **content))


def running(batch: Batch, count: int | None = None) -> list[tuple[Claim, int]]:
    """(claim, execution) of instances that run now: `count` of them, or all."""
    node = Node.objects.filter(group=batch.group).first() or factories.node(group=batch.group)
    made = []
    for claimed in claim(node, batch.total if count is None else count):
        started = start(claimed)
        assert started is not None
        made.append((claimed, started.execution_id))
    return made


def instance_of(claimed: Claim) -> Instance:
    return Instance.objects.get(pk=claimed.instance)


@pytest.fixture
def told() -> Any:
    """The (batch, state) of every `batch_ended` while the test runs."""
    heard: list[tuple[int, str]] = []

    def hear(batch_id: int, state: str, **_: Any) -> None:
        heard.append((batch_id, state))

    batch_ended.connect(hear)
    yield heard
    batch_ended.disconnect(hear)


# --- claims ------------------------------------------------------------------------------------------


def test_two_nodes_that_claim_at_once_share_the_work_without_waiting():
    batch = batch_of(200)
    nodes = [factories.node(group=batch.group) for _ in range(2)]
    with transaction.atomic():
        first = claim(nodes[0], 120)
        # The first has not committed: the second must neither wait for it nor take the same.
        second = Elsewhere(lambda: claim(nodes[1])).result()
    assert len(first) == 120
    assert len(second) == 80
    assert {one.instance for one in first}.isdisjoint(one.instance for one in second)
    assert not batch.instances.filter(claimed=False).exists()
    assert set(batch.instances.values_list("token", flat=True)) == {1}


def test_many_claims_at_once_take_every_instance_exactly_once():
    batch = batch_of(200)
    nodes = [factories.node(group=batch.group) for _ in range(4)]
    together = threading.Barrier(4)

    def claim_all(node: Node) -> list[int]:
        together.wait(20)
        taken: list[int] = []
        while batch.instances.filter(claimed=False).exists():
            taken += [one.instance for one in claim(node, len(taken) + 7)]
        return taken

    threads = [Elsewhere(lambda node=node: claim_all(node)) for node in nodes]
    taken = [one for thread in threads for one in thread.result()]
    assert sorted(taken) == sorted(batch.instances.values_list("pk", flat=True))


def test_a_drain_waits_for_a_claim_and_ends_what_only_that_node_could_have_run():
    group = factories.group()
    node = factories.node(group=group)
    batch = factories.batch(factories.task(group=group, mode="broadcast"))
    claimed: list[Claim] = []
    identity(node)
    with before_commit(lambda: claimed.extend(claim(node)), lambda: services.drain(node, by="ann")) as drain:
        pass
    drain.result()
    assert len(claimed) == 1
    assert start(claimed[0]) is None
    check(batch)
    assert (batch.state, batch.reason) == ("failed", f"Node {node.name} is draining")
    assert claim(node) == []


def test_a_claim_after_an_uncommitted_drain_changes_nothing_for_the_drained():
    group = factories.group()
    node = factories.node(group=group)
    batch = factories.batch(factories.task(group=group, mode="broadcast"))
    identity(node)
    with transaction.atomic():
        services.drain(node, by="ann")
        assert Elsewhere(lambda: claim(node)).result() == []
    check(batch)
    assert batch.state == "failed"


@pytest.mark.parametrize("first", ["expire", "start"])
def test_a_lease_that_ends_while_the_instance_starts_does_one_of_both(first: str):
    batch = batch_of(1)
    node = factories.node(group=batch.group)
    [claimed] = claim(node)
    Instance.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    if first == "expire":
        with before_commit(recovery.expire_claims, lambda: start(claimed)) as starting:
            pass
        assert starting.result() is None
        assert len(claim(node)) == 1
    else:
        with before_commit(lambda: start(claimed), recovery.expire_claims) as expiring:
            pass
        assert expiring.result() == 0
        assert instance_of(claimed).state == "running"
    check(batch)


# --- stop --------------------------------------------------------------------------------------------


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


# --- ends --------------------------------------------------------------------------------------------


def test_two_ends_of_the_last_two_instances_judge_the_batch_once(told: list[tuple[int, str]]):
    batch = batch_of(2)
    (first, one), (second, two) = running(batch)
    with before_commit(lambda: end(first, one), lambda: end(second, two)) as other:
        pass
    assert other.result() == transitions.Ended("success", retry=False, batch_ended=True)
    check(batch)
    assert told == [(batch.pk, "success")]
    assert JournalEntry.objects.filter(action="ended", object_id=batch.pk).count() == 1


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
    assert JournalEntry.objects.filter(action="started", object_id=batch.pk).count() == 1


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


# --- fencing -----------------------------------------------------------------------------------------


def test_what_a_lost_node_reports_late_is_refused():
    batch = batch_of(2, retry_count=1)
    node = factories.node(group=batch.group)
    first, second = claim(node)
    started = start(first)
    assert started is not None
    recovery.node_gone(node, reason="not heard of")
    assert end(first, started.execution_id) is None
    assert start(second) is None
    other = factories.node(group=batch.group)
    again = {one.instance: one for one in claim(other)}
    assert set(again) == {first.instance, second.instance}
    begun = start(again[first.instance])
    assert begun is not None
    # Neither the old execution nor the old token of the new one.
    assert end(first, started.execution_id) is None
    assert end(first, begun.execution_id) is None
    check(batch)
    assert end(again[first.instance], begun.execution_id) is not None
    check(batch)
    outcomes = instance_of(first).executions.order_by("number").values_list("outcome", flat=True)
    assert list(outcomes) == ["lost", "success"]


def test_a_late_end_that_meets_the_loss_of_its_node_counts_once():
    batch = batch_of(1)
    [(claimed, execution)] = running(batch)
    node = Node.objects.get(group=batch.group)
    with before_commit(
        lambda: recovery.node_gone(node, reason="not heard of"), lambda: end(claimed, execution)
    ) as late:
        pass
    assert late.result() is None
    check(batch)
    assert (batch.state, batch.failed) == ("failed", 1)
    assert instance_of(claimed).reason == "node_lost: not heard of"


def test_a_start_that_meets_the_loss_of_its_node_is_lost_with_it():
    batch = batch_of(1)
    node = factories.node(group=batch.group)
    [claimed] = claim(node)
    with before_commit(lambda: start(claimed), lambda: recovery.node_gone(node, reason="silence")) as gone:
        pass
    gone.result()
    check(batch)
    assert instance_of(claimed).reason == "node_lost: silence"
    assert not recovery.live_executions(node.pk).exists()


def test_a_drain_does_not_overwrite_that_the_node_went_offline():
    node = factories.node()
    with before_commit(
        lambda: recovery.node_gone(node, reason="silence"), lambda: services.drain(node, by="ann")
    ) as draining:
        pass
    with pytest.raises(TransitionRefused, match="is offline; only an online node can be drained"):
        draining.result()
    node.refresh_from_db()
    assert node.state == "offline"


# --- everything at once ------------------------------------------------------------------------------


class Crowd:
    """Threads that do whatever verbs they like on a few batches of one group, for a while."""

    def __init__(self, seed: int) -> None:
        group = factories.group()
        self.nodes = [factories.node(group=group) for _ in range(3)]
        for node in self.nodes:
            identity(node)
        tasks = [
            factories.task(group=group, shards=[str(n) for n in range(12)], retry_count=2, shard_concurrency=k)
            for k in (0, 2)
        ]
        tasks += [
            factories.task(group=group, mode="broadcast", retry_count=1),
            factories.task(group=group, overlap="queue"),
        ]
        self.tasks: list[Task] = tasks
        self.seed = seed
        self.until = time.monotonic() + 4
        for task in tasks:
            factories.batch(task)

    def __call__(self, number: int) -> tuple[int, list[str]]:
        """Act; returns how many verbs did something, and every error of the database."""
        chance = random.Random(self.seed + number)
        done, errors = 0, []
        while time.monotonic() < self.until:
            try:
                chance.choice(self.acts)(self, chance)
                done += 1
            except (TransitionRefused, NotAvailable):
                pass
            except DatabaseError as error:
                errors.append(f"{type(error.__cause__).__name__}: {error}")
        return done, errors

    def work(self, chance: random.Random) -> None:
        for claimed in claim(chance.choice(self.nodes), chance.randint(1, 20)):
            started = start(claimed)
            if started and chance.random() < 0.9:
                outcome = chance.choice(["success", "success", "failed", "timed_out", "terminated"])
                ended = end(claimed, started.execution_id, outcome)
                if ended and ended.batch_ended:
                    services.settle_overlap(Batch.objects.get(pk=claimed.batch).task_id)

    def trigger(self, chance: random.Random) -> None:
        services.trigger(chance.choice(self.tasks), by="crowd")

    def a_batch(self, chance: random.Random) -> Batch:
        return chance.choice(list(Batch.objects.filter(total__gt=0).order_by("-id")[:6]))

    def an_instance(self, chance: random.Random) -> Instance:
        return chance.choice(list(self.a_batch(chance).instances.all()))

    def stop(self, chance: random.Random) -> None:
        services.stop(self.a_batch(chance), by="crowd")

    def rerun(self, chance: random.Random) -> None:
        services.rerun(self.a_batch(chance), by="crowd")

    def stop_instance(self, chance: random.Random) -> None:
        services.stop_instance(self.an_instance(chance), by="crowd")

    def rerun_instance(self, chance: random.Random) -> None:
        services.rerun_instance(self.an_instance(chance), by="crowd")

    def lose_a_node(self, chance: random.Random) -> None:
        node = Node.objects.select_related("group").get(pk=chance.choice(self.nodes).pk)
        recovery.node_gone(node, reason="crowd")
        assert node.boot_id is not None
        transitions.boot_node(node, boot_id=node.boot_id, host="here", pid=1)

    def drain(self, chance: random.Random) -> None:
        node = chance.choice(self.nodes)
        services.drain(node, by="crowd")
        with suppress(TransitionRefused):
            services.undrain(node, by="crowd")

    def expire(self, chance: random.Random) -> None:
        Instance.objects.filter(pk=self.an_instance(chance).pk, claimed=True).update(
            claimed_until=timezone.now() - timedelta(seconds=1)
        )
        recovery.expire_claims()

    acts = (work,) * 4 + (trigger, stop, rerun, stop_instance, rerun_instance, lose_a_node, drain, expire)


def deadlocks() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def test_a_crowd_of_verbs_never_deadlocks_and_leaves_everything_in_agreement():
    before = deadlocks()
    crowd = Crowd(seed=random.randrange(10**6))
    threads = [Elsewhere(lambda number=number: crowd(number)) for number in range(8)]
    results = [thread.result() for thread in threads]
    assert [error for _done, errors in results for error in errors] == [], crowd.seed
    assert sum(done for done, _errors in results) > 100
    assert deadlocks() == before
    for batch in Batch.objects.filter(total__gt=0):
        check(batch)


# --- overlap -----------------------------------------------------------------------------------------


def test_replacing_several_batches_never_holds_one_while_it_waits_for_another():
    task = factories.task(overlap="replace")
    first = factories.batch(task)
    running(first)
    outdated, newest = (services.create_batches([held_request(task)])[0] for _ in range(2))
    with transaction.atomic():
        # A worker that ends an instance of `outdated` and starts one of `first` locks them in this order.
        Batch.objects.select_for_update(no_key=True).get(pk=outdated.pk)
        settling = Elsewhere(lambda: services.settle_overlap(task.pk))
        settling.until_blocked()
        assert Batch.objects.select_for_update(no_key=True, nowait=True).get(pk=first.pk).state == "terminating"
    settling.result()
    outdated.refresh_from_db()
    newest.refresh_from_db()
    assert (outdated.state, newest.state, newest.held) == ("failed", "waiting", True)


def held_request(task: Task) -> services.BatchRequest:
    assert task.revision is not None
    return services.BatchRequest(
        task=task,
        revision=task.revision,
        trigger="manual",
        scheduled_for=timezone.now(),
        slots=services.slots_of(task.revision, []),
        held=True,
        by="ann",
    )
