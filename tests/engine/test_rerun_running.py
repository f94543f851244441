"""Rows B10 and B12: a rerun follows the dependencies, under its limit, and goes on as it was asked to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from reruns import services
from reruns.services import advancing, following, generating
from scheduling.models import JournalEntry
from tests import factories as make
from tests.engine.cycle_support import Picture, commit, everything
from tests.engine.rerun_world import NOON, World, fresh, settle
from workflows import services as workflow_services
from workflows.models import CycleInstance

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]


def test_what_is_downstream_is_generated_only_when_all_its_chosen_upstreams_succeeded(noon: Any) -> None:
    world = World("a > b > d, a > c > d", noon)
    before = {name: world.at(name).pk for name in "abcd"}
    rerun = world.rerun("a", "b", "c", "d")
    assert world.states(rerun) == {"a": "running", "b": "waiting", "c": "waiting", "d": "waiting"}
    assert world.at("a").rerun_of_id == before["a"]
    assert (world.at("b").pk, world.at("d").pk) == (before["b"], before["d"])

    world.end("a")
    assert world.states(rerun) == {"a": "success", "b": "running", "c": "running", "d": "waiting"}
    world.end("b")
    assert world.states(rerun)["d"] == "waiting"
    world.end("c")
    assert (world.states(rerun)["d"], world.item(rerun, "d").instance_id) == ("running", world.at("d").pk)
    world.end("d")

    rerun = fresh(rerun)
    assert (rerun.state, rerun.ended_at is not None) == ("success", True)
    assert not rerun.items.filter(owned=True).exists()
    assert {name: world.at(name).number for name in "abcd"} == dict.fromkeys("abcd", 2)
    Picture().check()


def test_what_is_reached_only_through_others_waits_all_the_same(noon: Any) -> None:
    world = World("a > b > c", noon)
    between = world.at("b").pk
    rerun = world.rerun("a", "c")
    assert world.states(rerun) == {"a": "running", "c": "waiting"}
    world.end("a")
    assert world.states(rerun) == {"a": "success", "c": "running"}
    world.end("c")
    assert (fresh(rerun).state, world.at("b").pk) == ("success", between)


def test_its_cycles_are_held_until_their_instances_are_generated(noon: Any) -> None:
    world = World("a > b > c", noon)
    rerun = world.rerun("a", "b", "c")
    held = {name: world.cycle(name).holder for name in "abc"}
    assert held == {"a": "", "b": rerun.holder, "c": rerun.holder}
    assert not any(world.cycle(name).succeeded for name in "abc")
    world.end("a")
    assert (world.cycle("a").succeeded, world.cycle("b").holder) == (True, "")
    world.end("b", "c")
    assert all(world.cycle(name).succeeded and not world.cycle(name).holder for name in "abc")


def test_no_more_instances_run_at_once_than_it_says_the_earliest_wave_first(noon: Any) -> None:
    world = World("a > b, a > c, a > d, b > e", noon)
    rerun = world.rerun("a", "b", "c", "d", "e", parallelism=2)
    world.end("a")
    assert world.running() == ["b", "c"]
    world.end("c")
    assert world.running() == ["b", "d"]
    world.end("b", "d")
    assert world.running() == ["e"]
    world.end("e")
    assert fresh(rerun).state == "success"


def test_chosen_nodes_run_and_the_others_are_carried_with_the_settings_of_the_rerun(noon: Any) -> None:
    world = World("a > b", noon, nodes="x > y")
    draft = world.draft("a", "b", parameters={"fixed": "yes"}, node_parallelism=1)
    services.choose_nodes(draft, world.cycle("b").pk, ["y"])
    rerun = services.submit(draft, reason="bad weather")
    settle()
    again = world.at("a")
    assert (again.parameters, again.node_parallelism, again.run_type) == ({"fixed": "yes"}, 1, "rerun")
    world.end("a")
    assert dict(world.at("b").node_runs.values_list("node__key", "carried")) == {"x": True, "y": False}
    world.end("b")
    assert fresh(rerun).state == "success"


# --- failures ----------------------------------------------------------------------------------------


def test_one_that_failed_drops_nothing_of_the_other_branches(noon: Any) -> None:
    world = World("a > b > d, a > c > e", noon)
    rerun = world.rerun("a", "b", "c", "d", "e")
    world.end("a")
    world.end("b", outcome="failed")
    assert (fresh(rerun).state, world.running()) == ("running", ["c"])
    world.end("c")
    world.end("e")
    assert fresh(rerun).state == "failed"
    assert world.states(rerun) == {
        "a": "success",
        "b": "failed",
        "c": "success",
        "d": "waiting",
        "e": "success",
    }
    assert (fresh(rerun).ended_at, world.cycle("d").holder) == (None, rerun.holder)


def test_if_so_asked_nothing_more_is_generated_after_a_failure(noon: Any) -> None:
    world = World("a > b, a > c > d", noon)
    rerun = world.rerun("a", "b", "c", "d", on_failure="stop")
    world.end("a")
    world.end("b", outcome="failed")
    assert fresh(rerun).state == "running", "c runs still"
    world.end("c")
    assert (fresh(rerun).state, world.states(rerun)["d"]) == ("failed", "waiting")


def test_resumed_it_reruns_only_what_did_not_succeed_also_among_the_nodes(noon: Any) -> None:
    world = World("a > b > c", noon, nodes="x > y")
    rerun = world.rerun("a", "b", "c")
    world.end("a")
    of_b = world.at("b")
    make.end_node(of_b, "x")
    make.end_node(of_b, "y", "failed")
    settle()
    assert fresh(rerun).state == "failed"
    first = world.at("a").pk

    services.resume(fresh(rerun), by="ann", reason="disk is back")
    settle()
    assert world.states(rerun) == {"a": "success", "b": "running", "c": "waiting"}
    assert world.at("b").rerun_of_id == of_b.pk
    assert dict(world.at("b").node_runs.values_list("node__key", "carried")) == {"x": True, "y": False}
    world.end("b")
    world.end("c")
    assert (fresh(rerun).state, world.at("a").pk) == ("success", first)


def test_resuming_a_failed_node_that_was_not_chosen_runs_only_what_was_chosen(noon: Any) -> None:
    world = World("a", noon, nodes="x > y")
    rerun = services.submit(services.plan(world.at("a"), nodes=["y"]))
    settle()
    world.end("a", outcome="failed")
    services.resume(fresh(rerun))
    settle()
    assert dict(world.at("a").node_runs.values_list("node__key", "carried")) == {"x": True, "y": False}


def test_marked_a_success_it_lets_a_failed_rerun_go_on(noon: Any) -> None:
    world = World("a > b > c", noon)
    rerun = world.rerun("a", "b", "c")
    world.end("a")
    world.end("b", outcome="failed")
    assert fresh(rerun).state == "failed"
    workflow_services.mark_success(world.at("b"), by="ann", reason="it is right")
    settle()
    assert (fresh(rerun).state, world.states(rerun)["b"], world.running()) == ("running", "success", ["c"])
    world.end("c")
    assert fresh(rerun).state == "success"
    entry = JournalEntry.objects.get(object_type="rerun", object_id=rerun.pk, action="resumed")
    assert (entry.actor, entry.reason) == ("engine", "What had failed was repaired")


def test_what_somebody_reruns_by_hand_takes_the_place_of_what_failed(noon: Any) -> None:
    world = World("a > b > c", noon)
    rerun = world.rerun("a", "b", "c")
    world.end("a")
    world.end("b", outcome="failed")
    again = workflow_services.rerun(world.at("b"), by="ann")
    while advancing.carry_on():
        pass
    assert (fresh(rerun).state, world.states(rerun)["b"]) == ("running", "running")
    assert world.item(rerun, "b").instance_id == again.pk
    world.end("b", outcome="failed")
    assert (fresh(rerun).state, world.states(rerun)["b"]) == ("failed", "failed")

    workflow_services.rerun(world.at("b"), by="ann")
    world.end("b")
    assert (world.states(rerun)["b"], world.running()) == ("success", ["c"])


def test_resumed_it_waits_for_what_somebody_reruns_by_hand_already(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    world.end("a", outcome="failed")
    again = workflow_services.rerun(world.at("a"), by="ann")
    services.resume(fresh(rerun))
    settle()
    assert (world.item(rerun, "a").instance_id, world.states(rerun)["a"]) == (again.pk, "running")
    world.end("a")
    world.end("b")
    assert (fresh(rerun).state, CycleInstance.objects.filter(rerun_of__isnull=False).count()) == ("success", 3)


def test_a_stopped_instance_counts_as_not_succeeded(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    workflow_services.stop(world.at("a"), by="ann", reason="enough")
    settle()
    assert (fresh(rerun).state, world.states(rerun)) == ("failed", {"a": "terminated", "b": "waiting"})


# --- what is terminated first ------------------------------------------------------------------------


def test_what_runs_is_terminated_and_then_rerun(noon: Any) -> None:
    world = World("a > b > c", noon, running="b")
    rerun = world.rerun("a", "b", freeze_mode=True)
    old = world.at("b")
    # Its batch had not begun, so the stop is confirmed at once.
    assert (old.state, old.reason) == (
        "terminated",
        f"The cycle instance was stopped by {rerun.actor}: Stopped to be rerun by rerun downstream {rerun.pk}",
    )
    world.end("a")
    assert (world.states(rerun)["b"], world.at("b").rerun_of_id) == ("running", old.pk)


def test_it_waits_until_a_stop_is_confirmed(noon: Any) -> None:
    world = World("a > b", noon, running="b")
    run = world.at("b").node_runs.select_related("batch").get()
    make.start_batch(run.batch)
    rerun = world.rerun("a", "b", freeze_mode=True)
    world.end("a")
    assert (world.states(rerun)["b"], world.at("b").stopping, fresh(rerun).state) == (
        "waiting",
        "stop",
        "running",
    )
    make.end_batch(run.batch, "terminated")
    settle()
    assert (world.states(rerun)["b"], world.at("b").number) == ("running", 2)


# --- events that come twice, and crashes -------------------------------------------------------------


def test_an_event_that_is_told_again_changes_nothing(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    world.end("a")
    before = everything(), list(rerun.items.order_by("pk").values())
    for instance in CycleInstance.objects.filter(ended_at__isnull=False):
        following.cycle_ended(instance.pk, instance.cycle_id)
    settle()
    while advancing.carry_on():
        pass
    assert (everything(), list(rerun.items.order_by("pk").values())) == before


def test_an_end_whose_process_was_killed_before_it_could_say_so_is_found(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    make.end_node(world.at("a"), "n")
    commit(killed=True)
    assert (fresh(rerun).due, world.states(rerun)["b"]) == (False, "waiting")
    assert advancing.carry_on() > 0
    assert world.states(rerun)["b"] == "running"


def test_one_rerun_that_cannot_be_advanced_does_not_hold_up_the_others(
    noon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = World("a > b", noon), World("c > d", noon)
    of_first, of_second = first.rerun("a", "b"), second.rerun("c", "d")
    advance = advancing.advance

    def fails(rerun_id: int, **options: Any) -> int:
        if rerun_id == of_first.pk:
            raise RuntimeError("out of order")
        return advance(rerun_id, **options)

    monkeypatch.setattr(advancing, "advance", fails)
    first.end("a")
    second.end("c")
    assert (first.states(of_first)["b"], second.states(of_second)["d"]) == ("waiting", "running")
    monkeypatch.undo()
    advancing.carry_on()
    assert first.states(of_first)["b"] == "running"


def test_one_item_that_breaks_does_not_hold_up_its_siblings(
    noon: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World("a > b, a > c", noon)
    rerun = world.rerun("a", "b", "c")
    broken, generate = world.item(rerun, "b").pk, generating.generate

    def breaks(rerun_id: int, item_id: int, workflow_id: int) -> bool:
        if item_id == broken:
            raise ZeroDivisionError
        return generate(rerun_id, item_id, workflow_id)

    monkeypatch.setattr(generating, "generate", breaks)
    world.end("a")
    assert world.states(rerun) == {"a": "success", "b": "waiting", "c": "running"}
    assert f"Could not generate item {broken} of rerun {rerun.pk}" in caplog.text
    monkeypatch.undo()
    advancing.carry_on()
    assert world.running() == ["b", "c"]


# --- by hand, in the corners -------------------------------------------------------------------------


def test_what_somebody_reruns_by_hand_is_not_stopped_with_a_rerun_that_is_being_terminated(noon: Any) -> None:
    world = World("a > b, a > c", noon)
    rerun = world.rerun("a", "b", "c")
    world.end("a")
    world.end("b", outcome="failed")
    run = world.at("c").node_runs.select_related("batch").get()
    make.start_batch(run.batch)
    services.terminate(fresh(rerun))
    workflow_services.rerun(world.at("b"), by="ann")
    while advancing.carry_on():
        pass
    assert (fresh(rerun).state, world.at("b").state, world.at("b").stopping) == ("terminating", "running", "")
    commit()
    make.end_batch(run.batch, "terminated")
    settle()
    assert (fresh(rerun).state, world.at("b").state) == ("terminated", "running")


def test_what_took_its_place_and_was_cancelled_is_not_what_is_rerun_then(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    world.end("a", outcome="failed")
    failed = world.at("a")
    found = workflow_services.backfill(
        world.workflows["a"], since=NOON, until=NOON + timedelta(hours=1), order="oldest_first"
    )
    assert world.at("a").backfill_id == found.pk
    while advancing.carry_on():
        pass
    assert world.item(rerun, "a").instance_id == world.at("a").pk
    workflow_services.terminate_backfill(found)
    while advancing.carry_on():
        pass
    assert (world.states(rerun)["a"], fresh(rerun).state) == ("terminated", "failed")
    services.resume(fresh(rerun))
    settle()
    assert (world.states(rerun)["a"], world.at("a").rerun_of_id) == ("running", failed.pk)
    Picture().check()


def test_it_stops_and_generates_no_longer_at_once_than_the_scheduler_has_time(
    noon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advancing, "LOOK_SECONDS", -1)
    world = World("a > b, a > c", noon, running="b c")
    rerun = services.submit(world.draft("a", "b", "c", freeze_mode=True))
    assert services.advance(rerun.pk) == 2, "one is stopped, one is generated"
    assert (len(world.running()), fresh(rerun).due) == (2, True)
    settle()
    world.end("a")
    assert world.running() == ["b", "c"]
