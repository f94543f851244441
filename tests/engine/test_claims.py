"""Who may claim what, in which order, and how the database finds it."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from scheduling import services, transitions
from scheduling.engine import broker, recovery
from scheduling.models import Batch, Instance, Node
from tests import factories
from tests.engine.support import claim, end, identity, start

pytestmark = pytest.mark.django_db


def shards(count: int, *, group: Any, **content: Any) -> Batch:
    return factories.batch(factories.task(group=group, shards=[str(n) for n in range(count)], **content))


def ids(batch: Batch) -> list[int]:
    return list(batch.instances.order_by("number").values_list("pk", flat=True))


def claimed_by(node: Node, capacity: int = 1000) -> list[int]:
    return [one.instance for one in claim(node, capacity)]


# --- order and time ----------------------------------------------------------------------------------


def test_higher_priority_comes_first_then_age():
    node = factories.node()
    low, usual, late, high = (shards(2, group=node.group, priority=priority) for priority in (-1, 0, 0, 5))
    assert claimed_by(node) == ids(high) + ids(usual) + ids(late) + ids(low)


def test_with_little_room_the_best_are_taken():
    node = factories.node()
    usual, high = (shards(3, group=node.group, priority=priority) for priority in (0, 5))
    assert claimed_by(node, 2) == ids(high)[:2]
    assert claimed_by(node, 4) == [ids(high)[2], ids(usual)[0]]


def test_a_broadcast_and_a_shard_are_ordered_together():
    node = factories.node()
    usual = shards(1, group=node.group)
    [pinned] = ids(factories.batch(factories.task(group=node.group, mode="broadcast", priority=3)))
    assert claimed_by(node, 1) == [pinned]
    assert claimed_by(node, 2) == ids(usual)


def test_nothing_is_claimed_before_its_time():
    node = factories.node()
    batch = shards(2, group=node.group)
    later, now = ids(batch)
    Instance.objects.filter(pk=later).update(run_after=timezone.now() + timedelta(minutes=1))
    assert claimed_by(node) == [now]
    Instance.objects.filter(pk=later).update(run_after=timezone.now() - timedelta(seconds=1))
    assert claimed_by(node) == [later]


def test_a_held_batch_is_not_claimed_until_it_is_released():
    node = factories.node()
    task = factories.task(group=node.group, overlap="queue")
    first, held = factories.batch(task), factories.batch(task)
    assert held.held
    assert claimed_by(node) == ids(first)
    factories.end_batch(first)
    assert claimed_by(node) == []
    services.settle_overlap(task.pk)
    assert claimed_by(node) == ids(held)


def test_an_instance_stopped_and_rerun_in_a_held_batch_stays_held():
    node = factories.node()
    task = factories.task(group=node.group, overlap="queue", shards=["a", "b"])
    first, held = factories.batch(task), factories.batch(task)
    instance = held.instances.first()
    services.stop_instance(instance, by="ann")
    services.rerun_instance(instance, by="ann")
    assert set(claimed_by(node)) == set(ids(first))
    factories.end_batch(first)
    services.settle_overlap(task.pk)
    assert set(claimed_by(node)) == set(ids(held))


def test_an_instance_rerun_in_a_batch_that_was_stopped_while_held_runs_at_once():
    node = factories.node()
    task = factories.task(group=node.group, overlap="queue")
    first, held = factories.batch(task), factories.batch(task)
    services.stop(held, by="ann")
    services.stop(first, by="ann")
    services.rerun_instance(held.instances.get(), by="ann")
    held.refresh_from_db()
    assert not held.held
    assert ids(held)[0] in claimed_by(node)


# --- places ------------------------------------------------------------------------------------------


def test_a_node_claims_only_in_its_group():
    node, other = factories.node(), factories.node()
    batch = shards(2, group=node.group)
    assert claimed_by(other) == []
    assert claimed_by(node) == ids(batch)


def test_a_broadcast_instance_is_claimed_only_by_its_node():
    group = factories.group()
    nodes = [factories.node(group=group) for _ in range(3)]
    batch = factories.batch(factories.task(group=group, mode="broadcast"))
    for node in nodes:
        assert claimed_by(node) == [batch.instances.get(node=node).pk]


def test_a_rerun_instance_waits_a_while_for_the_node_that_ran_it():
    group = factories.group()
    here, there = factories.node(group=group), factories.node(group=group)
    batch = shards(1, group=group)
    [instance] = batch.instances.all()
    factories.start(instance, here)
    factories.end(instance, "failed")
    services.rerun_instance(instance, by="ann")
    assert claimed_by(there) == []
    Instance.objects.filter(pk=instance.pk).update(prefers_node_until=timezone.now() - timedelta(seconds=1))
    assert claimed_by(there) == [instance.pk]


def test_the_preferred_node_claims_at_once():
    group = factories.group()
    here, _there = factories.node(group=group), factories.node(group=group)
    batch = shards(1, group=group)
    [instance] = batch.instances.all()
    factories.start(instance, here)
    factories.end(instance, "failed")
    services.rerun_instance(instance, by="ann")
    assert claimed_by(here) == [instance.pk]


@pytest.mark.parametrize("state", ["draining", "offline"])
def test_a_node_that_is_not_online_claims_nothing(state: str):
    node = factories.node(state=state)
    shards(2, group=node.group)
    assert claimed_by(node) == []


def test_an_earlier_life_of_a_node_claims_nothing():
    node = factories.node()
    batch = shards(2, group=node.group)
    earlier = identity(node)
    transitions.boot_node(node, boot_id=uuid.uuid4(), host="here", pid=1)
    assert broker.claim(earlier, 10).claims == []
    node.refresh_from_db()
    assert claimed_by(node) == ids(batch)


# --- how many ----------------------------------------------------------------------------------------


def test_a_node_never_holds_more_than_its_capacity_in_whatever_state():
    node = factories.node()
    shards(10, group=node.group)
    first, second, third = claim(node, 3)
    assert claim(node, 3) == []
    started = start(first)
    running = start(second)
    assert started is not None
    assert running is not None
    services.stop_instance(Instance.objects.get(pk=second.instance), by="ann")
    assert claim(node, 3) == []
    assert len(claim(node, 4)) == 1
    end(first, started.execution_id)
    assert len(claim(node, 4)) == 1
    assert third.instance in set(Instance.objects.filter(node=node, claimed=True).values_list("pk", flat=True))


def test_a_claim_says_whether_it_filled_the_node():
    node = factories.node()
    shards(3, group=node.group)
    full, last = broker.claim(identity(node), 2), broker.claim(identity(node), 9)
    assert (len(full.claims), full.full, full.limited) == (2, True, False)
    assert (len(last.claims), last.full, last.limited) == (1, False, False)
    assert broker.claim(identity(node), 9) == broker.Claimed([], full=False, limited=False)
    assert broker.claim(identity(node), 3) == broker.Claimed([], full=True, limited=False)


def test_a_claim_says_that_an_end_may_admit_another_shard():
    node = factories.node()
    shards(3, group=node.group, shard_concurrency=1)
    first, second = broker.claim(identity(node), 9), broker.claim(identity(node), 9)
    assert (len(first.claims), first.full, first.limited) == (1, False, True)
    assert (second.claims, second.full, second.limited) == ([], False, True)


def test_shards_at_once_on_a_node_are_limited_and_refilled_when_one_ends():
    node = factories.node()
    batch = shards(6, group=node.group, shard_concurrency=2)
    first, second = claim(node)
    assert [first.instance, second.instance] == ids(batch)[:2]
    assert claim(node) == []
    started = start(first)
    assert started is not None
    assert claim(node) == []
    end(first, started.execution_id)
    assert claimed_by(node) == ids(batch)[2:3]
    assert claim(node) == []


def test_each_node_has_its_own_fill_of_shards():
    group = factories.group()
    batch = shards(6, group=group, shard_concurrency=2)
    nodes = [factories.node(group=group) for _ in range(3)]
    assert sorted(one for node in nodes for one in claimed_by(node)) == ids(batch)


def test_the_shards_of_each_batch_are_counted_by_themselves():
    node = factories.node()
    first, second = (shards(4, group=node.group, shard_concurrency=2) for _ in range(2))
    taken = claimed_by(node) + claimed_by(node)
    assert sorted(taken) == sorted(ids(first)[:2] + ids(second)[:2])
    assert claimed_by(node) == []


def test_a_batch_that_has_its_fill_does_not_stand_in_the_way_of_others():
    node = factories.node()
    first = shards(50, group=node.group, shard_concurrency=1, priority=9)
    other = shards(2, group=node.group)
    taken = claimed_by(node, 4)
    assert taken == ids(first)[:1]
    assert claimed_by(node, 4) == ids(other)


# --- what is over ------------------------------------------------------------------------------------


def test_a_stopped_batch_has_nothing_to_claim():
    node = factories.node()
    batch = shards(3, group=node.group)
    running = claim(node, 1)[0]
    assert start(running) is not None
    services.stop(batch, by="ann")
    batch.refresh_from_db()
    assert batch.state == "terminating"
    assert claim(node) == []


def test_a_claim_that_was_not_started_in_time_comes_back_and_the_old_one_is_stale():
    group = factories.group()
    slow, quick = factories.node(group=group), factories.node(group=group)
    batch = shards(1, group=group)
    [old] = claim(slow)
    assert recovery.expire_claims() == 0
    assert claim(quick) == []
    Instance.objects.filter(pk=old.instance).update(claimed_until=timezone.now() - timedelta(seconds=1))
    assert recovery.expire_claims() == 1
    assert start(old) is None
    [new] = claim(quick)
    assert new.instance == old.instance
    assert new.token != old.token
    assert start(old) is None
    started = start(new)
    assert started is not None
    assert end(old, started.execution_id) is None
    assert end(new, started.execution_id) == transitions.Ended("success", retry=False, batch_ended=True)
    batch.refresh_from_db()
    assert batch.state == "success"


def test_a_started_instance_has_no_lease_that_could_expire():
    node = factories.node()
    shards(1, group=node.group)
    [claimed] = claim(node)
    assert start(claimed) is not None
    instance = Instance.objects.get(pk=claimed.instance)
    assert instance.claimed_until is None
    assert recovery.expire_claims() == 0
    assert recovery.release_claims(node.pk) == 0


# --- how it is found -----------------------------------------------------------------------------------


def explain(statement: str, parameters: Any) -> str:
    with psycopg.Cursor(connection.connection) as cursor:
        cursor.execute("EXPLAIN " + statement, parameters)  # type: ignore[arg-type]
        return "\n".join(line for (line,) in cursor.fetchall())


@pytest.fixture
def long_history() -> Node:
    """A node whose group has 20,000 finished instances and a few that wait."""
    node = factories.node(slots=8)
    old = shards(1, group=node.group)
    factories.end_batch(old)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns"
            " WHERE table_name = 'scheduling_instance' AND column_name NOT IN ('id', 'number')"
        )
        [columns] = cursor.fetchone()
        cursor.execute(
            f"INSERT INTO scheduling_instance (number, {columns})"
            f" SELECT n, {columns} FROM scheduling_instance, generate_series(1, 20000) n WHERE batch_id = %s",
            [old.pk],
        )
        shards(5, group=node.group)
        cursor.execute("ANALYZE scheduling_instance")
    return node


def test_a_claim_is_served_by_the_indexes_of_the_queue(long_history: Node):
    who = identity(long_history)
    plan = explain(
        broker._CLAIM,
        {
            "node": who.node_id,
            "boot": who.boot_id,
            "group": who.group_id,
            "capacity": 8,
            "lease": 5,
        },
    )
    assert "Seq Scan on scheduling_instance" not in plan
    for index in ("instance_claimable", "instance_claimable_pinned", "instance_in_flight"):
        assert f"using {index}" in plan or f"on {index} " in plan, plan


def test_what_nodes_execute_is_found_by_the_index_of_what_is_in_flight(long_history: Node):
    statement, parameters = Instance.objects.executing().filter(node__in=[long_history]).query.sql_with_params()

    assert "instance_in_flight" in explain(statement, parameters)


def test_start_and_end_find_their_rows_by_primary_key(long_history: Node):
    [claimed] = claim(long_history, 1)
    before = scans()
    started = transitions.start(
        batch=claimed.batch, instance=claimed.instance, token=claimed.token, worker=1, timeout=None
    )
    assert started is not None
    transitions.end(
        batch=claimed.batch,
        instance=claimed.instance,
        execution=started.execution_id,
        token=claimed.token,
        outcome="success",
    )
    during = {
        index: count - before.get(index, 0) for index, count in scans().items() if count > before.get(index, 0)
    }
    assert during["scheduling_instance_pkey"] >= 2
    assert not {"seq scan", "instance_in_flight", "batch_unfinished"} & set(during), during


def test_the_statements_of_every_instance_are_planned_once_a_connection():
    node = factories.node()
    shards(1, group=node.group)
    [claimed] = claim(node)
    assert start(claimed) is not None
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(statement, ' ') FROM pg_prepared_statements")
        [prepared] = cursor.fetchone()
    assert "tailrace_start_execution" in prepared
    assert "scheduling_instance" in prepared


def test_a_start_changes_its_row_in_place():
    node = factories.node()
    shards(1, group=node.group)
    [claimed] = claim(node)
    before = updates()
    assert start(claimed) is not None
    assert tuple(after - earlier for after, earlier in zip(updates(), before, strict=True)) == (1, 1)


def updates() -> tuple[int, int]:
    """How many instances this transaction has updated so far, and how many of them in place."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_stat_get_xact_tuples_updated(t), pg_stat_get_xact_tuples_hot_updated(t)"
            " FROM (SELECT 'scheduling_instance'::regclass AS t)"
        )
        return cursor.fetchone()


def scans() -> dict[str, int]:
    """How often this transaction has used each index so far, and has read the whole table of instances."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexrelname, pg_stat_get_xact_numscans(indexrelid) FROM pg_stat_user_indexes UNION ALL"
            " SELECT 'seq scan', pg_stat_get_xact_numscans('scheduling_instance'::regclass)"
        )
        return dict(cursor.fetchall())
