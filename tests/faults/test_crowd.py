"""Everything at once never deadlocks, nor do replacements of several batches."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from datetime import timedelta

import pytest
from django.db import DatabaseError, OperationalError, transaction
from django.utils import timezone
from psycopg.errors import SerializationFailure

from scheduling import services, transitions
from scheduling.engine import recovery
from scheduling.errors import NotAvailable, TransitionRefused
from scheduling.models import Batch, Instance, Node, Task
from tests import factories
from tests.engine.support import Elsewhere, check, claim, end, identity, start
from tests.faults.races import deadlocks, running

pytestmark = pytest.mark.django_db(transaction=True)


# --- everything at once ------------------------------------------------------------------------------


def start_as_a_worker(claimed):
    """Start, and try again as a worker does when the batch went back to the queue at that moment."""
    while True:
        try:
            return start(claimed)
        except OperationalError as error:
            if not isinstance(error.__cause__, SerializationFailure):
                raise


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
            started = start_as_a_worker(claimed)
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
