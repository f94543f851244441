"""Claims that meet claims, drains, leases and losses: real second connections, interleaved by locks."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from scheduling import services
from scheduling.engine import recovery
from scheduling.engine.broker import Claim
from scheduling.errors import TransitionRefused
from scheduling.models import Instance, Node
from tests import factories
from tests.engine.support import Elsewhere, before_commit, check, claim, end, identity, start
from tests.faults.races import batch_of, instance_of, running

pytestmark = pytest.mark.django_db(transaction=True)


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
    assert len(set(batch.instances.values_list("token", flat=True))) == 200


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
    assert instance_of(claimed).reason == "Node lost: not heard of"


def test_a_start_that_meets_the_loss_of_its_node_is_lost_with_it():
    batch = batch_of(1)
    node = factories.node(group=batch.group)
    [claimed] = claim(node)
    with before_commit(lambda: start(claimed), lambda: recovery.node_gone(node, reason="silence")) as gone:
        pass
    gone.result()
    check(batch)
    assert instance_of(claimed).reason == "Node lost: silence"
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
