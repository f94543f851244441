"""Edits and backfills of workflows that meet what runs, and a crowd of verbs: real second connections."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from scheduling import services as scheduling
from scheduling.errors import TransitionRefused
from scheduling.models import DeploymentGroup, Instance
from tests import factories as make
from tests.engine.rerun_world import NOON
from tests.engine.support import Elsewhere, before_commit
from tests.faults.races import (
    HOURLY,
    at_once,
    everything_agrees,
    started,
    two_upstreams,
)
from workflows import services, transitions
from workflows.errors import CycleRefused
from workflows.models import Backfill, Cycle, CycleInstance, NodeRun, Workflow
from workflows.services import clock
from workflows.transitions import lifecycle

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_deadlocks")]


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


def test_what_an_edit_lets_wait_for_a_cycle_that_is_being_dropped_goes_on_afterwards(monkeypatch: Any) -> None:
    group = make.group()
    common = {"group": group, "starts_at": NOON - timedelta(days=1)} | HOURLY
    # Locks are taken by id: that of what waits comes before that of what it waits for.
    down, up = make.workflow("down", **common), make.workflow("up", **common)
    [earlier] = services.backfill(up, since=NOON, until=NOON, by="ann").instances.all()
    make.end_node(earlier, "a", "success")
    again = services.backfill(up, since=NOON - timedelta(hours=1), until=NOON, parallelism=1, by="ann")
    unbegun = again.instances.get(state="not_ready")
    read, edited, known = threading.Event(), threading.Event(), lifecycle.dependants

    def dependants(cycle_id: int) -> dict[int, int]:
        found = known(cycle_id)
        if not read.is_set():
            read.set()
            assert edited.wait(20)
        return found

    monkeypatch.setattr(lifecycle, "dependants", dependants)
    dropping = Elsewhere(lambda: transitions.cancel(unbegun.pk, by="ann", reason=""))
    assert read.wait(20)
    edit(down, depends_on=[{"workflow": "up"}], starts_at=NOON - timedelta(days=1), **HOURLY)
    [waiting] = services.backfill(down, since=NOON, until=NOON, by="ann").instances.all()
    assert waiting.state == "not_ready"
    with transaction.atomic():
        Workflow.objects.locked([down.pk])
        edited.set()
        dropping.until_blocked()
        Workflow.objects.locked([up.pk])

    assert dropping.result()
    assert make.fresh(waiting).state == "running"
    everything_agrees()


def test_an_edit_that_meets_the_time_of_its_cycles_makes_them_run_what_it_says(noon: Any) -> None:
    workflow = make.workflow(parallelism=0, **HOURLY)
    with transaction.atomic():
        edit(workflow, parallelism=1, nodes="a > b", **HOURLY)
        # It waits for nobody: what is locked is passed over.
        Elsewhere(lambda: clock.make_due(NOON + timedelta(hours=3))).result()
    clock.make_due(NOON + timedelta(hours=3))
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
    with transaction.atomic():
        edit(workflow, nodes="a > b", **HOURLY)
        Elsewhere(lambda: clock.generate_due(later)).result()
    clock.generate_due(later)
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
