"""Verbs of workflows that meet: real second connections, interleaved by locks that are waited for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from scheduling.models import Batch, JournalEntry
from tests import factories as make
from tests.engine.rerun_world import NOON
from tests.engine.support import before_commit
from tests.faults.races import (
    HOURLY,
    at_once,
    everything_agrees,
    failed_cycle,
    started,
    two_upstreams,
)
from workflows import services, transitions
from workflows.errors import CycleRefused
from workflows.models import Cycle, CycleInstance
from workflows.services import clock

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_deadlocks")]


# --- nodes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("join", ["all", "any"])
def test_the_ends_of_two_branches_at_the_same_moment_fire_the_join_once(join: str) -> None:
    nodes = [{"key": "a"}, {"key": "b"}, {"key": "c", "after": ["a", "b"], "join": join}]
    workflow = make.workflow(nodes=nodes)
    for _repetition in range(25):
        instance = make.cycle(workflow)
        first, second = started(instance, "a"), started(instance, "b")
        at_once(lambda first=first: make.end(first), lambda second=second: make.end(second))
        assert make.states(instance) == {"a": "success", "b": "success", "c": "running"}
        assert Batch.objects.filter(node_runs__instance=instance).count() == 3
        assert make.end_node(instance, "c").state == "success"
    everything_agrees()


def test_the_ends_of_the_last_two_nodes_at_the_same_moment_end_the_instance_once() -> None:
    workflow = make.workflow(nodes="a, b")
    for _repetition in range(10):
        instance = make.cycle(workflow)
        first, second = started(instance, "a"), started(instance, "b")
        at_once(lambda first=first: make.end(first), lambda second=second: make.end(second))
        assert make.fresh(instance).state == "success"
        ends = JournalEntry.objects.filter(action="ended", object_type="cycleinstance", object_id=instance.pk)
        assert ends.count() == 1


@pytest.mark.parametrize("first", ["stop", "end"])
def test_a_stop_that_meets_an_end_lets_nothing_more_begin_and_is_confirmed(first: str) -> None:
    instance = make.cycle(make.workflow(nodes="a > b, c"))
    a, c = started(instance, "a"), started(instance, "c")

    def stop() -> None:
        # The batches are stopped in the same breath, as after a commit.
        transitions.stop(instance.pk, by="ann", reason="enough")

    def end() -> None:
        make.end(a)

    acts = [stop, end] if first == "stop" else [end, stop]
    with before_commit(*acts) as other:
        pass
    other.result()
    transitions.stop_batches(instance.pk)
    if first == "stop":
        assert make.states(instance) == {"a": "success", "b": "cancelled", "c": "running"}
    else:
        assert make.states(instance) == {"a": "success", "b": "terminated", "c": "running"}
    make.end(c, "terminated")
    assert make.fresh(instance).state == "terminated"
    everything_agrees()


def test_a_stop_and_a_time_out_of_one_instance_do_not_both_begin() -> None:
    instance = make.cycle(make.workflow(timeout=1))
    CycleInstance.objects.update(deadline_at=NOON - timedelta(days=900))
    started(instance, "a")
    with before_commit(
        lambda: transitions.time_out(instance.pk),
        lambda: transitions.stop(instance.pk, by="ann", reason=""),
    ) as other:
        pass
    with pytest.raises(CycleRefused, match="being stopped already"):
        other.result()
    assert make.fresh(instance).stopping == "timeout"


def test_the_ends_of_two_upstream_cycles_at_once_make_the_downstream_ready_exactly_once(noon: Any) -> None:
    first, second, below = two_upstreams()
    clock.make_due(NOON + timedelta(hours=17))
    waiting = list(CycleInstance.objects.filter(workflow=below, due=True).order_by("cycle_time"))[1:51]
    assert len(waiting) == 50
    for instance in waiting:
        above = [
            CycleInstance.objects.get(workflow=each, cycle_time=instance.cycle_time) for each in (first, second)
        ]
        one, two = (started(each, "a") for each in above)
        at_once(lambda one=one: make.end(one), lambda two=two: make.end(two))
        assert make.fresh(instance).state == "running", "it was missed"
    begun = JournalEntry.objects.filter(
        object_id__in=[each.pk for each in waiting], object_type="cycleinstance"
    )
    assert begun.filter(action="ready").count() == 50
    assert begun.filter(action="started").count() == 50
    everything_agrees()


def test_an_upstream_that_ends_before_the_other_has_committed_is_not_overlooked(noon: Any) -> None:
    first, second, below = two_upstreams()
    clock.make_due(NOON + timedelta(hours=1))
    last = CycleInstance.objects.filter(workflow=below, due=True).latest("cycle_time")
    one, two = (
        started(CycleInstance.objects.get(workflow=each, cycle_time=last.cycle_time), "a")
        for each in (first, second)
    )
    with before_commit(lambda: make.end(one), lambda: make.end(two)) as other:
        pass
    other.result()
    assert make.fresh(last).state == "running"


def test_two_schedulers_that_make_the_same_cycles_due_begin_each_once(noon: Any) -> None:
    make.workflow(parallelism=2, **HOURLY)
    late = NOON + timedelta(hours=5)
    at_once(*[lambda: clock.make_due(late)] * 3)
    everything_agrees()
    assert CycleInstance.objects.filter(state="running").count() == 2
    assert Batch.objects.count() == 2


def test_parallelism_holds_when_the_ends_of_two_cycles_meet(noon: Any) -> None:
    workflow = make.workflow(parallelism=2, **HOURLY)
    clock.make_due(NOON + timedelta(hours=20))
    for _repetition in range(5):
        running = CycleInstance.objects.filter(workflow=workflow, state="running")
        one, two = (started(each, "a") for each in running)
        at_once(lambda one=one: make.end(one), lambda two=two: make.end(two))
        everything_agrees()
        assert running.count() == 2


def test_of_two_reruns_of_one_cycle_at_once_one_is_refused(noon: Any) -> None:
    source = failed_cycle()
    with before_commit(
        lambda: services.rerun(source, by="ann"), lambda: services.rerun(source, by="bob")
    ) as second:
        pass
    with pytest.raises(CycleRefused, match="of the same cycle is unfinished"):
        second.result()
    assert CycleInstance.objects.filter(rerun_of=source).count() == 1
    everything_agrees()


@pytest.mark.parametrize("first", ["mark", "rerun"])
def test_a_mark_that_meets_a_rerun_of_the_same_cycle_leaves_the_rerun_in_charge(noon: Any, first: str) -> None:
    source = failed_cycle()

    def mark() -> None:
        services.mark_success(source, by="ann", reason="seen")

    def rerun() -> None:
        services.rerun(source, by="bob")

    acts = [mark, rerun] if first == "mark" else [rerun, mark]
    with before_commit(*acts) as other:
        pass
    other.result()
    everything_agrees()
    assert make.fresh(source).state == "success"
    assert not Cycle.objects.get(pk=source.cycle_id).succeeded


def test_a_mark_and_a_rerun_at_the_same_moment_never_wait_for_each_other(noon: Any) -> None:
    for _repetition in range(10):
        source = failed_cycle()
        at_once(
            lambda source=source: services.mark_success(source, by="ann", reason="seen"),
            lambda source=source: services.rerun(source, by="bob"),
        )
        everything_agrees()


@pytest.mark.parametrize("first", ["mark", "cancel"])
def test_a_mark_that_meets_the_cancelling_of_a_newer_instance_is_not_lost(noon: Any, first: str) -> None:
    source = failed_cycle()
    noon.move_to(NOON + timedelta(hours=2))
    # Oldest first, so that of the marked cycle has not had its turn.
    since = source.cycle_time - timedelta(hours=1)
    found = services.backfill(source.workflow, since=since, until=source.cycle_time)
    unbegun = found.instances.get(state="not_ready")
    assert unbegun.cycle_id == source.cycle_id

    def mark() -> None:
        services.mark_success(source, by="ann", reason="seen")

    def cancel() -> None:
        transitions.cancel(unbegun.pk, by="bob", reason="")

    acts = [mark, cancel] if first == "mark" else [cancel, mark]
    with before_commit(*acts) as other:
        pass
    other.result()
    everything_agrees()
    cycle = Cycle.objects.get(pk=source.cycle_id)
    assert (cycle.effective_id, cycle.succeeded) == (source.pk, True)
