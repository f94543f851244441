"""A batch is judged by its success ratio, once, and its counters always equal a recount."""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from scheduling import services, transitions
from scheduling.engine import recovery
from scheduling.engine.broker import Claim
from scheduling.errors import TransitionRefused
from scheduling.models import Batch, Execution, Instance, JournalEntry
from scheduling.signals import batch_ended
from scheduling.states import BATCH
from tests import factories
from tests.engine.support import check, claim, claimable, end, start

pytestmark = pytest.mark.django_db


def batch_of(total: int, *, ratio: int = 100, **content: Any) -> Batch:
    return factories.batch(
        factories.task(shards=[str(n) for n in range(total)], success_ratio=ratio, **content)
    )


# --- the border --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    # With a hundred each success is one per cent, where the border is met exactly.
    ("ratio", "total"),
    [*itertools.product([1, 50, 67, 100], [1, 2, 3, 7]), (1, 100), (67, 100)],
)
def test_the_ratio_is_judged_right_at_its_border(ratio: int, total: int):
    needed = math.ceil(total * ratio / 100)
    batch = batch_of(total, ratio=ratio)
    node = factories.node(group=batch.group, slots=100)
    outcomes = ["failed"] * (total - needed + 1) + ["success"] * (needed - 1)
    for claimed, outcome in zip(claim(node), outcomes, strict=True):
        report(claimed, outcome)
    check(batch)
    assert batch.state == "failed", "one success short"
    services.rerun_instance(batch.instances.get(number=0), by="ann")
    report(claim(node)[0], "success")
    check(batch)
    assert batch.state == "success", "just enough"


def report(claimed: Claim, outcome: str) -> None:
    started = start(claimed)
    assert started is not None
    assert end(claimed, started.execution_id, outcome) is not None


@pytest.mark.parametrize("how", ["failed", "timed_out", "terminated", "lost"])
def test_whatever_is_not_a_success_counts_against_the_ratio(how: str):
    for ratio, judged in ((66, "success"), (67, "failed")):
        batch = batch_of(3, ratio=ratio)
        first, second, third = factories.start_batch(batch)
        factories.end(first)
        factories.end(second)
        if how == "terminated":
            services.stop_instance(third, by="ann")
        factories.end(third, how)
        check(batch)
        assert batch.state == judged
        assert batch.ended_count == 3


def test_a_stopped_batch_is_judged_by_the_same_ratio_and_shows_why():
    for ratio, judged in ((50, "success"), (51, "failed")):
        batch = batch_of(2, ratio=ratio)
        first, second = factories.start_batch(batch)
        factories.end(first)
        services.stop(batch, by="ann", reason="wrong input")
        check(batch)
        assert batch.state == "terminating"
        factories.end(second, "terminated")
        check(batch)
        assert (batch.state, batch.reason) == (judged, "Stopped by ann: wrong input")


def test_a_batch_that_never_started_is_failed_when_stopped():
    batch = batch_of(3, ratio=1)
    services.stop(batch, by="ann")
    check(batch)
    assert (batch.state, batch.terminated, batch.started_at) == ("failed", 3, None)


def test_stopping_the_instances_one_by_one_ends_the_batch_with_the_reason():
    batch = batch_of(2)
    for instance in batch.instances.all():
        services.stop_instance(instance, by="ann", reason="not today")
        check(batch)
    assert (batch.state, batch.reason) == ("failed", "Stopped by ann: not today")


def test_when_all_that_is_left_is_being_stopped_the_batch_is_terminating():
    batch = batch_of(3)
    first, second, third = factories.start_batch(batch)
    services.stop_instance(first, by="ann")
    check(batch)
    assert batch.state == "running"
    factories.end(second)
    services.stop_instance(third, by="ann")
    check(batch)
    assert batch.state == "terminating"
    factories.end(first, "terminated")
    factories.end(third, "success")
    check(batch)
    assert (batch.state, batch.succeeded, batch.terminated) == ("failed", 2, 1)


def test_whichever_ends_first_a_batch_with_only_stopped_instances_left_is_terminating():
    batch = batch_of(3)
    first, second, third = factories.start_batch(batch)
    services.stop_instance(first, by="ann", reason="bad shard")
    factories.end(second)
    check(batch)
    assert batch.state == "running"
    factories.end(third)
    check(batch)
    assert (batch.state, batch.reason) == ("terminating", "Stopped by ann: bad shard")
    stopped = JournalEntry.objects.filter(object_type="batch", object_id=batch.pk, action="stopped")
    assert [entry.reason for entry in stopped] == ["Stopped by ann: bad shard"]
    factories.end(first, "terminated")
    check(batch)
    assert (batch.state, batch.reason) == ("failed", "Stopped by ann: bad shard")


def test_a_batch_whose_only_instance_waits_for_its_retry_waits():
    batch = batch_of(1, retry_count=1, retry_interval=60)
    (only,) = factories.start_batch(batch)
    check(batch)
    assert batch.state == "running"
    began = batch.started_at
    factories.end(only, "failed", may_retry=True)
    check(batch)
    assert (batch.state, batch.started_at, batch.ended_at) == ("waiting", began, None)
    services.stop(batch, by="ann")
    check(batch)
    assert batch.state == "failed"


def test_a_batch_waits_again_exactly_when_all_of_its_instances_do():
    batch = batch_of(3, retry_count=1)
    first, second, third = factories.start_batch(batch)
    for instance, state in ((first, "running"), (second, "running"), (third, "waiting")):
        factories.end(instance, "failed", may_retry=True)
        check(batch)
        assert batch.state == state
    again = factories.start_batch(batch)
    check(batch)
    assert batch.state == "running"
    actions = JournalEntry.objects.filter(object_type="batch", object_id=batch.pk).order_by("pk")
    assert list(actions.values_list("action", flat=True)) == ["triggered", "started", "requeued", "started"]
    factories.end(again[0], "success")
    factories.end(again[1], "failed")
    check(batch)
    assert batch.state == "running"


def test_a_batch_whose_one_instance_succeeded_runs_while_the_other_waits_for_its_retry():
    batch = batch_of(2, retry_count=1)
    first, second = factories.start_batch(batch)
    factories.end(first, "success")
    factories.end(second, "failed", may_retry=True)
    check(batch)
    assert batch.state == "running"


def test_a_rerun_of_all_instances_makes_the_batch_wait_and_of_some_makes_it_run():
    batch = batch_of(2, retry_count=0)
    for instance in factories.start_batch(batch):
        factories.end(instance, "failed", may_retry=False)
    first, second = batch.instances.all()
    services.rerun_instance(first, by="ann")
    check(batch)
    assert batch.state == "running"
    services.rerun_instance(second, by="ann")
    check(batch)
    assert batch.state == "waiting"


def test_a_broadcast_without_an_online_node_fails_at_once_and_says_so():
    group = factories.group()
    factories.node(group=group, state="offline")
    factories.node(group=group, state="draining")
    batch = factories.batch(factories.task(group=group, mode="broadcast", success_ratio=1))
    assert (batch.state, batch.total) == ("failed", 0)
    assert batch.reason == "No node of the deployment group is online"
    assert batch.ended_at is not None
    entries = JournalEntry.objects.filter(object_type="batch", object_id=batch.pk).order_by("pk")
    assert [(one.action, one.reason, one.details.get("state")) for one in entries] == [
        ("triggered", "", None),
        ("ended", batch.reason, "failed"),
    ]


def test_a_rerun_of_instances_opens_the_batch_again_and_judges_it_anew():
    batch = batch_of(2)
    factories.end_batch(batch, "failed")
    for instance, judged in zip(batch.instances.all(), ("failed", "success"), strict=True):
        services.rerun_instance(instance, by="ann")
        check(batch)
        assert (batch.state, batch.ended_at, batch.reason) == ("running", None, "")
        again = batch.instances.select_related("node", "group").get(pk=instance.pk)
        factories.start(again)
        factories.end(again)
        check(batch)
        assert batch.state == judged
    services.rerun_instance(batch.instances.get(number=0), by="ann")
    factories.end_batch(batch, "failed")
    check(batch)
    assert (batch.state, batch.succeeded, batch.failed) == ("failed", 1, 1)


def test_each_end_of_a_batch_is_told_once():
    heard: list[tuple[int, str, str]] = []

    def hear(batch_id: int, state: str, trigger: str, **_: Any) -> None:
        heard.append((batch_id, state, trigger))

    batch_ended.connect(hear)
    try:
        batch = batch_of(2)
        factories.end_batch(batch)
        assert heard == [(batch.pk, "success", "manual")]
        services.rerun_instance(batch.instances.get(number=0), by="ann")
        services.stop_instance(batch.instances.get(number=0), by="ann")
        passed_over = factories.passed_over_batch()
    finally:
        batch_ended.disconnect(hear)
    assert heard[1:] == [(batch.pk, "failed", "manual"), (passed_over.pk, "condition_not_met", "workflow")]


def test_the_end_of_a_broadcast_that_found_no_node_is_told_as_it_is_made():
    heard: list[tuple[int, str, str]] = []

    def hear(batch_id: int, state: str, trigger: str, **_: Any) -> None:
        heard.append((batch_id, state, trigger))

    batch_ended.connect(hear)
    try:
        batch = factories.batch(factories.task(mode="broadcast"))
    finally:
        batch_ended.disconnect(hear)
    assert heard == [(batch.pk, "failed", "manual")]


def test_a_receiver_that_raises_undoes_the_whole_end():
    def refuse(**_: Any) -> None:
        raise RuntimeError("not now")

    batch = batch_of(1)
    [instance] = factories.start_batch(batch)
    batch_ended.connect(refuse)
    try:
        with pytest.raises(RuntimeError, match="not now"), transaction.atomic():
            factories.end(instance)
    finally:
        batch_ended.disconnect(refuse)
    check(batch)
    assert batch.state == "running"
    factories.end(instance)
    check(batch)
    assert batch.state == "success"


# --- any order of verbs ------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Verbs in any order on one batch of a few instances, by two nodes; every step leaves it whole."""

    @initialize(total=st.integers(1, 6), ratio=st.sampled_from([1, 34, 50, 67, 100]), retries=st.integers(0, 2))
    def begin(self, total: int, ratio: int, retries: int) -> None:
        self._atomic = transaction.atomic()
        self._atomic.__enter__()
        self.batch = batch_of(total, ratio=ratio, retry_count=retries)
        self.nodes = [factories.node(group=self.batch.group) for _ in range(2)]
        self.claims: list[Any] = []
        self.running: list[tuple[Any, int]] = []
        self.ended: dict[int, dict[str, Any]] = {}

    def teardown(self) -> None:
        if hasattr(self, "_atomic"):
            transaction.set_rollback(True)
            self._atomic.__exit__(None, None, None)

    def an_instance(self, data: Any) -> Instance:
        return self.batch.instances.get(number=data.draw(st.integers(0, self.batch.total - 1)))

    @rule(node=st.integers(0, 1), capacity=st.integers(1, 6))
    def claim(self, node: int, capacity: int) -> None:
        self.claims += claim(self.nodes[node], capacity)

    @rule(data=st.data())
    @precondition(lambda self: self.claims)
    def start_a_claim_new_or_stale(self, data: Any) -> None:
        claimed = data.draw(st.sampled_from(self.claims))
        started = start(claimed)
        if started:
            self.running.append((claimed, started.execution_id))

    @rule(
        data=st.data(),
        outcome=st.sampled_from(["success", "failed", "timed_out", "terminated", "lost"]),
        may_retry=st.booleans(),
    )
    @precondition(lambda self: self.running)
    def report_an_end_live_or_stale(self, data: Any, outcome: str, may_retry: bool) -> None:
        claimed, execution = data.draw(st.sampled_from(self.running))
        was_live = Execution.objects.live().filter(pk=execution).exists()
        ended = end(claimed, execution, outcome, may_retry=may_retry)
        assert (ended is not None) == was_live

    @rule(node=st.integers(0, 1))
    def a_node_gives_its_claims_back(self, node: int) -> None:
        recovery.release_claims(self.nodes[node].pk)

    @rule()
    def leases_run_out(self) -> None:
        Instance.objects.filter(claimed_until__isnull=False).update(claimed_until="2020-01-01T00:00Z")
        recovery.expire_claims()

    @rule(node=st.integers(0, 1))
    def a_node_is_lost_and_comes_back(self, node: int) -> None:
        recovery.node_gone(self.nodes[node], reason="silence")
        assert not recovery.live_executions(self.nodes[node].pk).exists()
        transitions.set_node_state(self.nodes[node], "online", by="tests")

    @rule(data=st.data())
    def stop_an_instance(self, data: Any) -> None:
        with suppress(TransitionRefused):
            services.stop_instance(self.an_instance(data), by="ann")

    @rule(data=st.data())
    def rerun_an_instance(self, data: Any) -> None:
        with suppress(TransitionRefused):
            services.rerun_instance(self.an_instance(data), by="ann")

    @rule()
    def stop_the_batch(self) -> None:
        with suppress(TransitionRefused):
            services.stop(self.batch, by="ann")

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "batch"):
            return
        check(self.batch)
        if self.batch.state in BATCH.final or self.batch.state == "terminating":
            assert not claimable(self.batch)
            assert not claim(self.nodes[0])
        executions = Execution.objects.filter(instance__batch=self.batch)
        for execution in executions.filter(ended_at__isnull=False).values():
            assert self.ended.setdefault(execution["id"], execution) == execution
        assert set(self.ended) <= set(executions.values_list("pk", flat=True))


@pytest.mark.long
def test_verbs_in_any_order_keep_batch_instances_and_executions_in_agreement():
    run_state_machine_as_test(
        AnyOrder,
        settings=settings(
            max_examples=20,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
