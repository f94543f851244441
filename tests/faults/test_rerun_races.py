"""Verbs of reruns that meet: real second connections, interleaved by locks that are waited for."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from reruns import services
from reruns.errors import RerunRefused
from reruns.models import Rerun
from reruns.services import advancing, generating
from tests import factories as make
from tests.engine.rerun_picture import RerunPicture
from tests.engine.rerun_world import NOON, World, fresh
from tests.engine.support import Elsewhere, before_commit
from tests.faults.races import REFUSALS, at_once
from workflows import services as workflow_services
from workflows.models import NodeRun
from workflows.services import clock

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_deadlocks", "noon")]


def everything_agrees() -> RerunPicture:
    picture = RerunPicture()
    picture.check()
    return picture


def begun(world: World, *names: str, **settings: Any) -> Rerun:
    """A rerun whose first wave runs."""
    rerun = services.submit(world.draft(*names, **settings))
    while advancing.advance_due():
        pass
    return fresh(rerun)


def next_of(world: World, rerun: Rerun, name: str) -> Callable[[], bool]:
    item = world.item(rerun, name)
    return lambda: generating.generate(rerun.pk, item.pk, item.workflow_id)


# --- submit ------------------------------------------------------------------------------------------


def test_of_two_that_are_submitted_over_one_cycle_at_the_same_moment_one_is_told_of_the_other(
    noon: Any,
) -> None:
    world = World("a > c, b > c, c > d", noon)
    for _repetition in range(5):
        drafts = [world.draft("a", "c", "d"), world.draft("b", "c")]
        found = at_once(*[lambda draft=draft: services.submit(draft) for draft in drafts])
        [refused] = [each for each in found if isinstance(each, RerunRefused)]
        [won] = [each for each in found if isinstance(each, Rerun)]
        assert f"{won}" in str(refused)
        everything_agrees()
        services.terminate(won)
    assert not Rerun.objects.exclude(state__in=["draft", "terminated"]).exists()


def test_a_draft_is_submitted_once_however_often_somebody_clicks(noon: Any) -> None:
    draft = World("a > b", noon).draft("a", "b")
    found = at_once(*[lambda: services.submit(draft)] * 4)
    assert [type(each) for each in found].count(Rerun) == 1
    everything_agrees()


def test_a_draft_that_is_edited_while_it_is_submitted_runs_as_it_is_then(noon: Any) -> None:
    world = World("a > b, a > c", noon)
    draft = world.draft("a")
    both = [world.cycle("b").pk, world.cycle("c").pk]
    with before_commit(lambda: services.choose(draft, both), lambda: services.submit(draft)) as other:
        pass
    other.result()
    assert world.states(draft) == {"a": "waiting", "b": "waiting", "c": "waiting"}
    everything_agrees()


def test_a_schedule_that_begins_a_cycle_while_it_is_being_frozen_comes_first_or_not_at_all(noon: Any) -> None:
    world = World("a > b", noon, waiting="b")
    draft = world.draft("a", "b", freeze_mode=True)
    world.at("b").cycle.instances.update(due_at=NOON)
    with transaction.atomic():
        services.submit(draft)
        # It waits for nobody: what is locked is passed over.
        Elsewhere(clock.make_due).result()
    clock.make_due()
    assert (world.at("b").state, world.at("b").is_frozen) == ("not_ready", True)
    everything_agrees()


# --- pause, take out, and two schedulers, against generation ------------------------------------------


@pytest.mark.parametrize("first", ["pause", "generate"])
def test_pausing_against_generating(noon: Any, first: str) -> None:
    world = World("a > b", noon)
    rerun = services.submit(world.draft("a", "b"))
    acts = [lambda: services.pause(rerun), next_of(world, rerun, "a")]
    with before_commit(*(acts if first == "pause" else acts[::-1])) as other:
        pass
    other.result()
    expected = "waiting" if first == "pause" else "running"
    assert (fresh(rerun).state, world.states(rerun)["a"]) == ("paused", expected)
    everything_agrees()


@pytest.mark.parametrize("first", ["take_out", "generate"])
def test_taking_out_against_generating(noon: Any, first: str) -> None:
    world = World("a > b", noon)
    rerun = services.submit(world.draft("a", "b"))
    item = world.item(rerun, "a")

    def take_out() -> Any:
        try:
            return services.take_out(rerun, [item])
        except RerunRefused as refused:
            return refused

    acts = [take_out, next_of(world, rerun, "a")]
    with before_commit(*(acts if first == "take_out" else acts[::-1])) as other:
        pass
    if first == "take_out":
        assert other.result() is False
        assert world.states(rerun)["a"] == "cancelled"
    else:
        assert "only what has not begun can be taken out" in str(other.result())
        assert world.states(rerun)["a"] == "running"
    everything_agrees()


def test_two_schedulers_keep_the_limit_and_generate_nothing_twice(noon: Any) -> None:
    names = [f"w{number}" for number in range(8)]
    world = World(", ".join(f"a > {name}" for name in names), noon)
    rerun = begun(world, "a", *names, parallelism=3)
    for _round in range(30):
        for name in world.running():
            instance = world.at(name)
            make.end_batch(instance.node_runs.select_related("batch").get().batch)
        at_once(*[lambda: advancing.advance(rerun.pk)] * 3)
        running = rerun.items.filter(state="running").count()
        assert running <= 3
        everything_agrees()
        if fresh(rerun).is_finished:
            break
    assert fresh(rerun).state == "success"
    assert {world.at(name).number for name in ("a", *names)} == {2}


# --- ends --------------------------------------------------------------------------------------------


def started(world: World, name: str) -> Any:
    run = world.at(name).node_runs.select_related("batch").get()
    [found] = make.start_batch(run.batch)
    return found


@pytest.mark.parametrize("first", ["terminate", "end"])
def test_terminating_against_an_end(noon: Any, first: str) -> None:
    world = World("a > b > c", noon, waiting="c")
    rerun = begun(world, "a", "b", "c", freeze_mode=True)
    running = started(world, "a")

    def end() -> None:
        make.end(running)

    def terminate() -> Any:
        # Without what follows the commit: that is looked at below.
        from reruns.services import running as verbs

        return verbs._terminating(rerun, False, "ann", "wrong")

    acts = [terminate, end] if first == "terminate" else [end, terminate]
    with before_commit(*acts) as other:
        pass
    other.result()
    while advancing.carry_on():
        pass
    assert fresh(rerun).state == "terminated"
    assert world.states(rerun) == {"a": "success", "b": "cancelled", "c": "unfrozen"}
    everything_agrees()


def test_the_ends_of_two_upstreams_at_the_same_moment_let_what_waits_for_both_go_once(noon: Any) -> None:
    world = World("a > b > d, a > c > d", noon)
    rerun = begun(world, "a", "b", "c", "d")
    make.end_batch(world.at("a").node_runs.select_related("batch").get().batch)
    while advancing.advance_due():
        pass
    first, second = started(world, "b"), started(world, "c")
    at_once(lambda: make.end(first), lambda: make.end(second))
    at_once(*[advancing.advance_due] * 2)
    while advancing.carry_on():
        pass
    assert (world.states(rerun)["d"], world.at("d").number) == ("running", 2)
    everything_agrees()


def test_marking_a_success_against_resuming(noon: Any) -> None:
    for first in ("mark", "resume"):
        world = World("a > b", noon)
        rerun = begun(world, "a", "b")
        make.end_batch(world.at("a").node_runs.select_related("batch").get().batch, "failed")
        while advancing.carry_on():
            pass
        failed = world.at("a")
        acts = [
            lambda failed=failed: workflow_services.mark_success(failed, by="ann", reason="fine"),
            lambda rerun=rerun: services.resume(rerun, by="ann"),
        ]
        with before_commit(*(acts if first == "mark" else acts[::-1])) as other:
            pass
        other.result()
        assert world.states(rerun)["a"] == ("success" if first == "mark" else "waiting")
        everything_agrees()


# --- everything at once ------------------------------------------------------------------------------


def attempt(act: Callable[[], Any]) -> None:
    try:
        act()
    except (*REFUSALS, AssertionError):
        # Another was quicker.
        return


def nodes_end(seed: int) -> None:
    chance = random.Random(seed)
    for _round in range(12):
        for run in NodeRun.objects.running().select_related("batch"):
            outcome = chance.choice(["success", "success", "failed"])
            if chance.random() < 0.5:
                attempt(lambda run=run, outcome=outcome: make.end_batch(run.batch, outcome))


def people(rerun: Rerun) -> None:
    chance = random.Random(7)
    for _round in range(12):
        verb = chance.choice([services.pause, services.resume, services.resume])
        attempt(lambda verb=verb: verb(rerun, by="ann"))


def schedulers() -> None:
    for _round in range(12):
        advancing.carry_on()
        clock.carry_on()
        clock.make_overlooked_ready()


def until_it_ends(rerun: Rerun) -> Rerun:
    """Every job succeeds, and whoever sees it resumes it."""
    for _round in range(60):
        if fresh(rerun).state in {"paused", "failed"}:
            services.resume(rerun)
        schedulers()
        for run in NodeRun.objects.running().select_related("batch"):
            make.end_batch(run.batch)
        if fresh(rerun).is_finished:
            break
    return fresh(rerun)


def test_everything_at_once_deadlocks_nowhere_and_comes_to_an_end(noon: Any) -> None:
    shape = "a > b > d, a > c > d, d > e, c > f, a > g, g > h"
    world = World(shape, noon, waiting="h")
    draft = world.draft("a", "b", "c", "d", "e", "f", "g", "h", freeze_mode=True, parallelism=3)
    rerun = services.submit(draft)
    at_once(lambda: nodes_end(1), lambda: people(rerun), schedulers, schedulers)
    everything_agrees()
    assert until_it_ends(rerun).state == "success"
    assert world.at("h").frozen_at is None
    everything_agrees()


def test_what_is_undone_leaves_nothing_of_a_submit(noon: Any) -> None:
    world = World("a > b", noon, waiting="b")
    draft = world.draft("a", "b", freeze_mode=True)
    with transaction.atomic():
        services.submit(draft)
        transaction.set_rollback(True)
    assert (fresh(draft).state, world.at("b").is_frozen, world.cycle("a").holder) == ("draft", False, "")
    everything_agrees()
