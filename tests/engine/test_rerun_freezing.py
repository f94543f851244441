"""Rows B8, B13 and D5: what a rerun freezes it frees, whatever happens, and nobody else does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from reruns import services
from reruns.models import Rerun, RerunItem
from reruns.services import housekeeping
from scheduling.engine import steps
from scheduling.errors import StillInUse
from scheduling.models import JournalEntry
from scheduling.services import teams
from tests import factories as make
from tests.engine.cycle_support import Picture
from tests.engine.rerun_world import HOUR, HOURLY, NOON, World, fresh, settle
from workflows import services as workflow_services
from workflows.errors import CycleRefused
from workflows.models import CycleInstance
from workflows.services import clock, deleting
from workflows.services.retention import Sweep

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]


@pytest.fixture
def world(noon: Any) -> World:
    """`c` and `d` are not ready when the rerun of `a` and `b` begins, which freezes `c`."""
    return World("a > b > c, c > d", noon, waiting="c")


@pytest.fixture
def rerun(world: World) -> Rerun:
    return world.rerun("a", "b", "c", freeze_mode=True)


def time_comes(world: World) -> None:
    """The cycle of 13:00 of every workflow is due."""
    CycleInstance.objects.filter(state="not_ready").update(due_at=NOON)
    clock.make_due()
    clock.make_overlooked_ready()


def test_what_is_not_ready_is_frozen_by_who_submitted_it_for_the_rerun(world: World, rerun: Rerun) -> None:
    frozen = world.at("c")
    assert (frozen.state, frozen.holder, frozen.frozen_by) == ("not_ready", rerun.holder, rerun.actor)
    assert frozen.frozen_reason == "bad weather"
    assert world.states(rerun) == {"a": "running", "b": "waiting", "c": "frozen"}
    with pytest.raises(CycleRefused, match="which alone can unfreeze it"):
        workflow_services.unfreeze(frozen, by="ann")


def test_it_is_let_go_and_generated_when_the_rerun_has_succeeded_and_not_before(
    world: World, rerun: Rerun
) -> None:
    time_comes(world)
    world.end("a")
    assert (world.at("c").state, world.at("c").is_frozen) == ("not_ready", True)
    world.end("b")
    assert (fresh(rerun).state, world.states(rerun)["c"]) == ("success", "unfrozen")
    assert (world.at("c").state, world.at("c").is_frozen, world.at("c").number) == ("running", False, 1)
    world.end("c")
    time_comes(world)
    assert world.at("d").state == "running"
    Picture().check()


def test_while_an_instance_failed_or_is_unfinished_it_stays_frozen(world: World, rerun: Rerun) -> None:
    time_comes(world)
    world.end("a", outcome="failed")
    assert (fresh(rerun).state, world.at("c").is_frozen) == ("failed", True)
    services.resume(rerun)
    settle()
    world.end("a")
    assert world.at("c").is_frozen
    services.pause(rerun)
    world.end("b")
    assert (fresh(rerun).state, world.at("c").is_frozen) == ("paused", True)


def test_terminating_the_rerun_forces_it_free(world: World, rerun: Rerun) -> None:
    time_comes(world)
    world.end("a")
    world.end("b", outcome="failed")
    services.terminate(rerun, by="ann")
    assert (world.at("c").is_frozen, world.at("c").state) == (False, "running"), "b succeeded before"


def test_it_waits_where_the_earlier_results_are_discarded(world: World, rerun: Rerun) -> None:
    time_comes(world)
    world.end("a")
    world.end("b", outcome="failed")
    services.terminate(rerun, discard_earlier=True, by="ann")
    assert (world.at("c").is_frozen, world.at("c").state) == (False, "not_ready"), "b failed"
    workflow_services.mark_success(world.at("b"), by="ann", reason="fine")
    assert world.at("c").state == "running"


def test_frozen_for_a_day_with_no_scheduler_it_goes_on_when_the_rerun_ends(
    world: World, rerun: Rerun, noon: Any
) -> None:
    noon.move_to(NOON + timedelta(days=1))
    clock.make_due()
    assert world.at("c").is_frozen
    world.end("a")
    world.end("b")
    assert world.at("c").state == "running"


# --- what happens to it while it is frozen -----------------------------------------------------------


def test_stopped_by_an_operator_it_is_dropped_from_the_rerun(world: World, rerun: Rerun) -> None:
    workflow_services.stop(world.at("c"), by="ann", reason="not today")
    settle()
    item = world.item(rerun, "c")
    assert (item.state, item.owned) == ("unfrozen", False)
    assert item.reason == (
        "Its instance ended although it was frozen: The cycle instance was stopped by ann: not today"
    )
    world.end("a")
    world.end("b")
    assert (fresh(rerun).state, world.at("c").state) == ("success", "terminated")


def test_dropped_by_an_edit_of_its_workflow_it_is_dropped_from_the_rerun(world: World, rerun: Rerun) -> None:
    make.workflow("c", group=world.group, nodes="n", mode="offline", depends_on=[{"workflow": "b"}], **HOURLY)
    assert (world.states(rerun)["c"], world.at("c").state) == ("unfrozen", "cancelled")
    assert not CycleInstance.objects.filter(frozen_at__isnull=False).exists()
    world.end("a")
    world.end("b")
    assert fresh(rerun).state == "success"


def test_an_edit_that_keeps_it_leaves_it_frozen(world: World, rerun: Rerun) -> None:
    make.workflow("c", group=world.group, nodes="n > m", depends_on=[{"workflow": "b"}], **HOURLY)
    assert (world.states(rerun)["c"], world.at("c").is_frozen) == ("frozen", True)


def test_a_workflow_with_cycles_of_a_rerun_is_not_deleted(noon: Any) -> None:
    world = World("a > b, a > c", noon, waiting="c")
    rerun = world.rerun("a", "c", freeze_mode=True)
    with pytest.raises(StillInUse, match=rf"{rerun} holds cycles of the workflow c"):
        deleting.delete_workflow(world.workflows["c"])
    services.terminate(rerun)
    deleting.delete_workflow(world.workflows["c"])


def test_a_team_with_reruns_is_not_deleted(world: World, rerun: Rerun) -> None:
    assert "has reruns downstream" in "".join(use(world.group.team) for use in teams.USES)


def test_retention_keeps_what_an_active_rerun_owns(world: World, rerun: Rerun, noon: Any) -> None:
    world.end("a")
    world.end("b", outcome="failed")
    of_a = CycleInstance.objects.filter(workflow=world.workflows["a"], state="success")
    # By the database's clock.
    of_a.update(ended_at=NOON - timedelta(days=900))
    of_a.update(cycle_time=NOON - timedelta(days=900))

    def sweep() -> int:
        swept = Sweep()
        while swept.step():
            pass
        return int(of_a.count())

    assert sweep() == 2
    services.terminate(rerun)
    assert sweep() == 0


# --- nothing is stranded -----------------------------------------------------------------------------


def test_as_long_as_a_rerun_holds_it_nothing_is_free(world: World, rerun: Rerun) -> None:
    assert services.free_stranded() == []
    world.end("a", outcome="failed")
    assert services.free_stranded() == []
    assert world.at("c").is_frozen


def test_what_a_rerun_that_is_gone_froze_or_held_is_freed_and_reported(
    world: World, rerun: Rerun, caplog: pytest.LogCaptureFixture
) -> None:
    time_comes(world)
    world.end("a")
    workflow_services.stop(world.at("b"), by="ann")
    holder, frozen = rerun.holder, world.at("c")
    RerunItem.objects.filter(rerun=rerun).delete()
    Rerun.objects.filter(pk=rerun.pk).delete()
    hold(world, "b", holder)

    lines = services.free_stranded()

    assert lines == [
        f"c 2026-11-20 13:00 UTC was frozen by {holder}",
        f"b 2026-11-20 13:00 UTC was held by {holder}",
    ]
    assert [record.getMessage() for record in caplog.records if record.name == housekeeping.__name__] == [
        f"Freed what nothing held any more: {line}" for line in lines
    ]
    assert (world.at("c").is_frozen, world.cycle("b").holder) == (False, "")
    entries = JournalEntry.objects.filter(action__in=["unfrozen", "freed"], actor="engine")
    assert sorted(entries.values_list("action", "object_id", "reason")) == [
        ("freed", world.at("b").pk, f"{said(rerun)}"),
        ("unfrozen", frozen.pk, f"{said(rerun)}"),
    ]
    assert services.free_stranded() == []
    Picture().check()


def said(rerun: Rerun) -> str:
    return f"Rerun downstream {rerun.pk} is gone or has ended, and keeps nothing any more"


def hold(world: World, name: str, holder: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workflows_cycle SET holder = %s, succeeded = false WHERE id = %s",
            [holder, world.cycle(name).pk],
        )


def test_what_an_ended_rerun_or_one_that_knows_nothing_of_it_keeps_is_freed(world: World, rerun: Rerun) -> None:
    world.end("a")
    world.end("b")
    workflow_services.freeze(world.at("d"), by="ann", holder=rerun.holder)
    other = World("x > y", world.traveller)
    active = other.rerun("x")
    hold(other, "y", active.holder)
    hold(world, "a", rerun.holder)
    assert len(services.free_stranded()) == 3
    assert not CycleInstance.objects.filter(frozen_at__isnull=False).exists()
    assert world.cycle("a").succeeded
    assert other.cycle("y").succeeded


def test_what_a_person_froze_is_nobodys_business(world: World, rerun: Rerun) -> None:
    workflow_services.freeze(world.at("d"), by="ann", reason="later")
    assert services.free_stranded() == []
    assert world.at("d").is_frozen


def test_the_scheduler_advances_reruns_and_keeps_house_for_them() -> None:
    assert "advance reruns" in {source.name for source in steps.SOURCES}
    found = {step.name: step for step in steps.STEPS if "rerun" in step.name}
    assert found.keys() == {"carry on reruns", "free what no rerun holds", "forget old drafts of reruns"}
    assert {name: step.run() for name, step in found.items()} == dict.fromkeys(found, 0)
    [source] = [each for each in steps.SOURCES if each.name == "advance reruns"]
    assert (source.run(), source.next_due_at()) == (0, None)


def test_the_scheduler_knows_when_a_rerun_is_due(world: World) -> None:
    [source] = [each for each in steps.SOURCES if each.name == "advance reruns"]
    services.submit(world.draft("a", "b"))
    assert source.next_due_at() == timezone.now()
    while source.run():
        pass
    assert (source.next_due_at(), world.running()) == (None, ["a"])


def test_drafts_that_nobody_came_back_to_are_forgotten(world: World, rerun: Rerun, noon: Any) -> None:
    other = World("x > y", noon)
    old, young = other.draft("x", "y"), other.draft("x")
    noon.shift(timedelta(days=8))
    Rerun.objects.filter(pk=young.pk).update(changed_at=timezone.now() - HOUR)
    assert housekeeping.forget_drafts() == 1
    assert set(Rerun.objects.values_list("pk", flat=True)) == {rerun.pk, young.pk}
    assert not RerunItem.objects.filter(rerun=old.pk).exists()
