"""Row D4: which run of a cycle counts when a rerun ends without a success, and what a run is given for once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from reruns import services
from reruns.plans import plan_of
from scheduling.models import JournalEntry
from tests import factories as make
from tests.engine.cycle_support import Picture
from tests.engine.rerun_world import HOUR, NOON, World, fresh, settle
from workflows import services as workflow_services
from workflows.models import CycleInstance
from workflows.services import retention

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]


def counts(world: World, name: str) -> tuple[bool, bool]:
    """Whether the first run of a cycle is the effective one, and whether the cycle succeeded."""
    cycle = world.cycle(name)
    return cycle.effective == cycle.instances.get(number=1), cycle.succeeded


def test_terminated_it_gives_every_cycle_its_earlier_success_back(noon: Any) -> None:
    world = World("a > b > c, a > d", noon)
    rerun = world.rerun("a", "b", "c", "d")
    world.end("a")
    world.end("d", outcome="failed")
    assert (counts(world, "b"), counts(world, "d")) == ((False, False), (False, False)), "until the rerun ends"
    stop_of_running = world.at("b")
    services.terminate(rerun, by="ann", reason="enough")
    end_stopped(stop_of_running)
    assert fresh(rerun).state == "terminated"
    assert {name: counts(world, name) for name in "abcd"} == {
        "a": (False, True),
        "b": (True, True),
        "c": (True, True),
        "d": (True, True),
    }
    kept = {world.workflows[name].pk: world.item(rerun, name).kept for name in "abcd"}
    assert list(kept.values()) == [False, True, False, True]
    entry = JournalEntry.objects.get(object_type="rerun", object_id=rerun.pk, action="terminated")
    assert entry.details == {"earlier_results": "kept"}


def test_terminated_with_the_earlier_results_discarded_its_cycles_have_not_succeeded(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    world.end("a")
    running = world.at("b")
    services.terminate(rerun, discard_earlier=True, by="ann")
    end_stopped(running)
    assert (counts(world, "b"), world.item(rerun, "b").kept) == ((False, False), False)


def end_stopped(instance: CycleInstance) -> None:
    for run in instance.node_runs.running().select_related("batch"):
        make.end_batch(run.batch, "terminated")
    settle()


@pytest.mark.parametrize("outcome", ["failed", "timed_out", "terminated"])
def test_a_rerun_by_hand_that_does_not_succeed_leaves_the_earlier_success(noon: Any, outcome: str) -> None:
    world = World("a > b", noon, waiting="b")
    workflow_services.rerun(world.at("a"), by="ann")
    assert counts(world, "a") == (False, False), "while it runs, what waits for the cycle waits for its result"
    CycleInstance.objects.filter(pk=world.at("b").pk).update(due=True)
    world.end("a", outcome=outcome)
    assert (counts(world, "a"), world.at("b").state) == ((True, True), "running")


@pytest.mark.parametrize("discards", [False, True])
def test_a_stop_says_whether_the_earlier_success_counts(noon: Any, discards: bool) -> None:
    world = World("a > b", noon)
    again = workflow_services.rerun(world.at("a"), by="ann")
    workflow_services.stop(again, discards_earlier=discards, by="ann")
    end_stopped(again)
    assert counts(world, "a") == (not discards, not discards)


def test_what_a_run_was_given_once_is_not_inherited(noon: Any) -> None:
    world = World("a > b", noon)
    world.rerun("a", "b", parameters={"full": "yes"})
    for name in "ab":
        assert world.at(name).parameters == {"full": "yes"}
        world.end(name)
    rerun = world.rerun("a", "b")
    world.end("a")
    assert [world.at(name).parameters for name in "ab"] == [{}, {}]
    world.end("b")
    assert workflow_services.rerun(world.at("b"), by="ann").parameters == {}
    assert fresh(rerun).state == "success"


# --- backfills -----------------------------------------------------------------------------------------


def backfilled(world: World, name: str, **options: Any) -> CycleInstance:
    moment = NOON + HOUR
    found = workflow_services.backfill(world.workflows[name], since=moment, until=moment, by="ann", **options)
    instance: CycleInstance = found.instances.get()
    return instance


def test_a_backfilled_cycle_is_rerun_like_any_other(noon: Any) -> None:
    world = World("a > b > c", noon)
    for name in "ab":
        assert backfilled(world, name).online
        world.end(name)
    plan = plan_of(services.plan(world.at("a"), downstream="all"))
    assert {each.workflow: each.refusal for each in plan.candidates} == dict.fromkeys("abc")
    plan = plan_of(services.plan(world.at("b"), downstream="all"))
    assert len(plan.chosen) == 2


def test_a_backfill_of_an_offline_workflow_is_not_online(noon: Any) -> None:
    world = World("a", noon)
    make.workflow("a", group=world.group, mode="offline", nodes="n", starts_at=NOON, cron="0 * * * *")
    assert not backfilled(world, "a").online


def test_a_stopped_backfill_leaves_the_earlier_success(noon: Any) -> None:
    world = World("a > b", noon)
    running = backfilled(world, "a")
    workflow_services.terminate_backfill(running.backfill, by="ann")
    end_stopped(running)
    assert counts(world, "a") == (True, True)
    Picture().check()


@pytest.mark.parametrize("begun", [False, True])
def test_a_success_whose_record_was_removed_counts_again(noon: Any, begun: bool) -> None:
    world = World("a > b", noon)
    noon.move_to(NOON + timedelta(days=60))
    sweep = retention.Sweep()
    while sweep.step():
        pass
    cycle = world.cycle("a")
    assert (cycle.effective, cycle.succeeded) == (None, True)
    moment = NOON + HOUR
    found = workflow_services.backfill(
        world.workflows["a"], since=moment if begun else moment - HOUR, until=moment, by="ann"
    )
    running = list(found.instances.filter(state="running"))
    workflow_services.terminate_backfill(found, by="ann")
    for each in running:
        end_stopped(each)
    assert world.cycle("a").succeeded
