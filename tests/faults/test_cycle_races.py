"""Verbs of workflows that meet: real second connections, interleaved by locks that are waited for."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import DatabaseError, transaction

from scheduling import services as scheduling
from scheduling.errors import TransitionRefused
from scheduling.models import Batch, DeploymentGroup, Instance, JournalEntry
from tests import factories as make
from tests.engine.cycle_support import Picture
from tests.engine.support import Elsewhere, before_commit
from tests.faults.races import deadlocks
from workflows import services, transitions
from workflows.errors import CycleRefused
from workflows.models import Backfill, Cycle, CycleInstance, NodeRun, Workflow
from workflows.services import clock

pytestmark = pytest.mark.django_db(transaction=True)

HOURLY = {"cron": "0 * * * *", "timezone": "UTC"}
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_deadlocks() -> Any:
    before = deadlocks()
    yield
    assert deadlocks() == before


@pytest.fixture
def noon() -> Any:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What each act returns, or the refusal that it met, all of them begun at the same moment."""
    together = threading.Barrier(len(acts))

    def begin(act: Callable[[], Any]) -> Any:
        together.wait(20)
        try:
            return act()
        except (CycleRefused, TransitionRefused) as refused:
            return refused

    threads = [Elsewhere(lambda act=act: begin(act)) for act in acts]
    return [thread.result() for thread in threads]


def started(instance: CycleInstance, key: str) -> Instance:
    """The instance of a running node's batch, which has started too."""
    run = instance.node_runs.select_related("batch").get(node__key=key)
    [found] = make.start_batch(run.batch)
    return found


def everything_agrees() -> Picture:
    picture = Picture()
    picture.check()
    picture.check_nothing_overlooked()
    return picture


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


# --- cycles ------------------------------------------------------------------------------------------


def two_upstreams(**below: Any) -> tuple[Workflow, Workflow, Workflow]:
    group = make.group()
    common = {"cron": "*/20 * * * *", "timezone": "UTC", "parallelism": 0, "starts_at": NOON, "group": group}
    first, second = (make.workflow(name, **common) for name in ("one", "two"))
    waits_for = [{"workflow": "one"}, {"workflow": "two"}]
    return first, second, make.workflow("down", depends_on=waits_for, **(common | below))


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


# --- reruns and marks --------------------------------------------------------------------------------


def failed_cycle(**content: Any) -> CycleInstance:
    """A scheduled instance that failed, at noon of the next hour."""
    workflow = make.workflow(parallelism=0, **(HOURLY | content))
    clock.make_due(NOON + timedelta(hours=1))
    instance = CycleInstance.objects.get(workflow=workflow, state="running")
    return make.end_node(instance, "a", "failed")


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


# --- edits -------------------------------------------------------------------------------------------


def edit(workflow: Workflow, **content: Any) -> Workflow:
    return make.workflow(workflow.name, group=DeploymentGroup.objects.get(team=workflow.team), **content)


def test_what_succeeds_on_the_spot_waits_for_nobody_while_its_own_workflow_is_locked() -> None:
    group = make.group()
    make.task("all", group=group, mode="broadcast")
    # Locks are taken by id: that of what waits comes before that of what it waits for.
    down = make.workflow("down", group=group, **HOURLY)
    nodes = [{"key": "all", "core": False}, {"key": "then", "after": ["all"]}]
    up = make.workflow("up", group=group, nodes=nodes, starts_at=NOON - timedelta(days=1), **HOURLY)
    edit(down, depends_on=[{"workflow": "up"}], starts_at=NOON - timedelta(days=1), **HOURLY)
    [waiting] = services.backfill(down, since=NOON, until=NOON, by="ann").instances.all()
    assert waiting.state == "not_ready"

    with before_commit(
        lambda: Workflow.objects.locked([down.pk]),
        lambda: services.backfill(up, since=NOON, until=NOON, by="ann"),
    ) as other:
        Workflow.objects.locked([up.pk])

    assert other.result().instances.get().state == "success"
    assert make.fresh(waiting).state == "running"
    everything_agrees()


def test_an_edit_that_meets_the_time_of_its_cycles_makes_them_run_what_it_says(noon: Any) -> None:
    workflow = make.workflow(parallelism=0, **HOURLY)
    with before_commit(
        lambda: edit(workflow, parallelism=1, nodes="a > b", **HOURLY),
        lambda: clock.make_due(NOON + timedelta(hours=3)),
    ) as other:
        pass
    other.result()
    picture = everything_agrees()
    states = [each["state"] for each in picture.instances.values() if each["due"]]
    assert sorted(states) == ["ready", "ready", "running"]
    [running] = CycleInstance.objects.filter(state="running")
    assert make.states(running) == {"a": "running", "b": "waiting"}


def test_an_edit_after_its_cycles_became_ready_leaves_those_alone(noon: Any) -> None:
    workflow = make.workflow(parallelism=1, **HOURLY)
    with before_commit(
        lambda: clock.make_due(NOON + timedelta(hours=2)),
        lambda: edit(workflow, parallelism=1, nodes="a > b", **HOURLY),
    ) as other:
        pass
    other.result()
    everything_agrees()
    numbers = CycleInstance.objects.order_by("cycle_time").values_list("revision__number", flat=True)
    assert list(numbers)[:3] == [1, 1, 2]


@pytest.mark.parametrize("verb", ["freeze", "stop"])
def test_what_is_done_to_an_instance_while_its_workflow_is_edited_is_done_to_the_edited_one(
    noon: Any, verb: str
) -> None:
    workflow = make.workflow(**HOURLY)
    instance = CycleInstance.objects.earliest("cycle_time")
    with before_commit(
        lambda: edit(workflow, nodes="a > b", **HOURLY),
        lambda: getattr(services, verb)(instance, by="ann", reason="wait"),
    ) as other:
        pass
    other.result()
    instance = make.fresh(instance)
    assert instance.revision.number == 2
    assert instance.is_frozen if verb == "freeze" else instance.state == "terminated"
    everything_agrees()


def test_a_generation_that_meets_an_edit_follows_the_edit(noon: Any) -> None:
    workflow = make.workflow(**HOURLY)
    later = NOON + timedelta(days=1)
    with before_commit(
        lambda: edit(workflow, nodes="a > b", **HOURLY), lambda: clock.generate_due(later)
    ) as other:
        pass
    other.result()
    everything_agrees()
    assert set(CycleInstance.objects.values_list("revision__number", flat=True)) == {2}
    assert CycleInstance.objects.count() == 59, "to the end of the day after tomorrow"


def test_an_edit_of_the_upstream_that_meets_its_end_leaves_no_cycle_behind(noon: Any) -> None:
    first, second, below = two_upstreams()
    clock.make_due(NOON + timedelta(hours=1))
    one = CycleInstance.objects.filter(workflow=first, state="running").latest("cycle_time")
    running = started(one, "a")
    with before_commit(
        lambda: edit(first, nodes="a > b", cron="*/20 * * * *", timezone="UTC", parallelism=0),
        lambda: make.end(running),
    ) as other:
        pass
    other.result()
    make.end_node(CycleInstance.objects.get(workflow=second, cycle_time=one.cycle_time), "a")
    assert CycleInstance.objects.get(workflow=below, cycle_time=one.cycle_time).state == "running"
    everything_agrees()


def test_two_generations_that_need_the_same_upstream_cycles_in_other_orders_share_them(noon: Any) -> None:
    group = make.group()
    for name in ("one", "two"):
        make.workflow(name, group=group, starts_at=NOON - timedelta(days=1), **HOURLY)
    for day in range(1, 9):
        later = NOON + timedelta(days=day)
        noon.move_to(later)
        orders = (("one", "two"), ("two", "one"))
        below = [
            make.workflow(
                f"below-{day}-{number}",
                group=group,
                mode="offline",
                depends_on=[{"workflow": each, "cycles": "last", "count": 200} for each in order],
                **HOURLY,
            )
            for number, order in enumerate(orders)
        ]
        Workflow.objects.filter(pk__in=[each.pk for each in below]).update(mode="online")
        Cycle.objects.filter(instances__isnull=True, upstreams__isnull=True).delete()
        assert [
            made > 0 for made in at_once(*[lambda pk=each.pk: services.generate(pk) for each in below])
        ] == [
            True,
            True,
        ]
    everything_agrees()


# --- backfills ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["end", "terminate"])
def test_the_end_of_a_cycle_that_meets_the_end_of_its_backfill_begins_no_more(noon: Any, first: str) -> None:
    workflow = make.workflow(parallelism=0, **HOURLY)
    found = services.backfill(workflow, since=NOON - timedelta(hours=5), until=NOON)
    running = started(found.instances.get(state="running"), "a")

    def end() -> None:
        make.end(running)

    def terminate() -> None:
        services.terminate_backfill(found, by="ann")

    acts = [end, terminate] if first == "end" else [terminate, end]
    with before_commit(*acts) as other:
        pass
    other.result()
    for each in NodeRun.objects.running().select_related("batch"):
        make.end_batch(each.batch, "terminated")
    found.refresh_from_db()
    assert found.state == "terminated"
    everything_agrees()


def test_the_ends_of_two_cycles_of_a_backfill_at_once_give_two_others_their_turn(noon: Any) -> None:
    workflow = make.workflow(parallelism=0, **HOURLY)
    found = services.backfill(workflow, since=NOON - timedelta(hours=20), until=NOON, parallelism=2)
    running = found.instances.filter(state="running")
    for _repetition in range(9):
        one, two = (started(each, "a") for each in running.all())
        at_once(lambda one=one: make.end(one), lambda two=two: make.end(two))
        everything_agrees()
        assert running.count() == 2


# --- everything at once ------------------------------------------------------------------------------


class Crowd:
    """Threads that do whatever they like with three workflows that wait for each other, for a while."""

    def __init__(self, seed: int) -> None:
        self.group = make.group()
        make.task("everywhere", group=self.group, mode="broadcast")
        common = {"group": self.group, "starts_at": datetime.now(UTC) - timedelta(days=2)} | HOURLY
        nodes = "a > b, a > c!, b > d?, c > d"
        self.workflows = [
            make.workflow("one", nodes=nodes, parallelism=2, **common),
            make.workflow("two", nodes="a, b > everywhere?", parallelism=0, **common),
            make.workflow(
                "down", nodes="a > b", depends_on=[{"workflow": "two"}, {"workflow": "one"}], **common
            ),
        ]
        CycleInstance.objects.update(due_at=datetime.now(UTC))
        clock.make_due()
        self.seed = seed
        self.until = time.monotonic() + 8

    def __call__(self, number: int) -> tuple[int, list[str]]:
        """Act; returns how many verbs did something, and every error of the database."""
        chance = random.Random(self.seed + number)
        done, errors = 0, []
        while time.monotonic() < self.until:
            act = chance.choice(self.acts)
            try:
                act(self, chance)
                done += 1
            except (CycleRefused, TransitionRefused, AssertionError, IndexError, Instance.DoesNotExist):
                pass
            except DatabaseError as error:
                errors.append(f"{act.__name__}: {type(error.__cause__).__name__}: {error}")
        return done, errors

    def an_instance(self, chance: random.Random) -> CycleInstance:
        return chance.choice(list(CycleInstance.objects.filter(due=True).order_by("-pk")[:20]))

    def work(self, chance: random.Random) -> None:
        running = list(NodeRun.objects.running().select_related("batch")[:30])
        make.end_batch(chance.choice(running).batch, chance.choice(["success", "success", "failed"]))

    def stop(self, chance: random.Random) -> None:
        services.stop(self.an_instance(chance), by="crowd")

    def stop_batch(self, chance: random.Random) -> None:
        running = list(NodeRun.objects.running().select_related("batch")[:30])
        scheduling.stop(chance.choice(running).batch, by="crowd")

    def rerun(self, chance: random.Random) -> None:
        ended = list(CycleInstance.objects.filter(ended_at__isnull=False).order_by("-pk")[:10])
        services.rerun(chance.choice(ended), by="crowd", node_parallelism=chance.randint(0, 1))

    def mark(self, chance: random.Random) -> None:
        ended = list(CycleInstance.objects.filter(state__in=["failed", "terminated"]).order_by("-pk")[:10])
        services.mark_success(chance.choice(ended), by="crowd")

    def freeze(self, chance: random.Random) -> None:
        services.freeze(self.an_instance(chance), by="crowd")

    def unfreeze(self, chance: random.Random) -> None:
        services.unfreeze(
            chance.choice(list(CycleInstance.objects.filter(frozen_at__isnull=False)[:5])), by="crowd"
        )

    def edit(self, chance: random.Random) -> None:
        workflow = chance.choice(self.workflows)
        upstream = [{"workflow": "one"}, {"workflow": "two"}] if workflow.name == "down" else []
        if workflow.name == "one" and chance.random() < 0.5:
            upstream = [{"workflow": "two"}]
        edit(
            workflow,
            nodes=chance.choice(["a", "a > b", "a > c!, b"]),
            # A lower limit stops nothing that runs.
            parallelism=workflow.current.parallelism,
            depends_on=upstream,
            **HOURLY,
        )

    def switch(self, chance: random.Random) -> None:
        services.set_enabled(chance.choice(self.workflows), chance.random() < 0.7, by="crowd")

    def backfill(self, chance: random.Random) -> None:
        now = datetime.now(UTC)
        since = now - timedelta(hours=chance.randint(1, 12))
        services.backfill(
            chance.choice(self.workflows), since=since, until=now, parallelism=chance.randint(1, 3), by="crowd"
        )

    def change_backfill(self, chance: random.Random) -> None:
        found = chance.choice(list(Backfill.objects.unfinished()[:5]))
        verb = chance.choice([services.pause_backfill, services.resume_backfill, services.terminate_backfill])
        verb(found, by="crowd")

    def test(self, chance: random.Random) -> None:
        services.run_test(chance.choice(self.workflows), by="crowd")

    def look(self, chance: random.Random) -> None:
        chance.choice([clock.make_due, clock.carry_on, clock.make_overlooked_ready, clock.generate_due])()

    acts = (work,) * 8 + (stop, stop_batch, rerun, mark, freeze, unfreeze, unfreeze, edit, switch)
    acts += (backfill, change_backfill, test, look, look)


def test_a_crowd_of_verbs_never_deadlocks_and_leaves_everything_in_agreement() -> None:
    crowd = Crowd(seed=random.randrange(10**6))
    threads = [Elsewhere(lambda number=number: crowd(number)) for number in range(6)]
    results = [thread.result() for thread in threads]
    assert [error for _done, errors in results for error in errors] == [], crowd.seed
    assert sum(done for done, _errors in results) > 20, "the machine is too busy to tell"
    with transaction.atomic():
        clock.carry_on()
        clock.make_overlooked_ready()
    everything_agrees()
