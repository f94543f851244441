"""What an app above holds: cycles it is about to rerun, and instances it keeps frozen, until it lets go."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils.html import strip_tags

from scheduling.models import JournalEntry
from tests import factories as make
from tests.engine.cycle_support import Picture, traceless
from tests.engine.rerun_world import NOON
from workflows import detail_queries as ask
from workflows import services, transitions, why
from workflows.errors import CycleRefused
from workflows.models import Cycle, CycleInstance, Workflow
from workflows.services import clock, retention

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]

HOUR = timedelta(hours=1)
HOURLY = {"cron": "0 * * * *", "timezone": "UTC", "parallelism": 0, "misfire": "run_all"}
HOLDER = "rerun:12"


@pytest.fixture
def pair() -> tuple[Workflow, Workflow]:
    """Two workflows, `down` waiting for `up`, whose cycles of one and two o'clock are there."""
    group = make.group(team=make.team("desk"))
    up = make.workflow("up", group=group, starts_at=NOON - HOUR, **HOURLY)
    down = make.workflow("down", group=group, starts_at=NOON - HOUR, depends_on=[{"workflow": "up"}], **HOURLY)
    for each in (up, down):
        services.generate(each.pk)
    return up, down


def of(workflow: Workflow, hour: int = 13) -> CycleInstance:
    """The newest instance of a cycle of a workflow."""
    found = CycleInstance.objects.filter(workflow=workflow, cycle_time=NOON.replace(hour=hour))
    newest = found.order_by("-number").first()
    assert newest is not None
    return make.fresh(newest)


def held(instance: CycleInstance, holder: str = HOLDER) -> None:
    with transaction.atomic():
        Workflow.objects.locked([instance.workflow_id])
        transitions.hold_cycles([instance.cycle_id], holder)


def release(instance: CycleInstance, holder: str = HOLDER) -> None:
    with transaction.atomic():
        Workflow.objects.locked([instance.workflow_id])
        again = transitions.release_cycles([instance.cycle_id], holder)
    transitions.look_again(again)


def succeeded(instance: CycleInstance) -> bool:
    return Cycle.objects.get(pk=instance.cycle_id).succeeded


def at_one(noon: Any, hours: int = 1) -> None:
    noon.move_to(NOON + hours * HOUR)
    clock.make_due()


def test_what_waits_for_a_held_cycle_waits_for_its_rerun(pair: Any, noon: Any) -> None:
    up, down = pair
    at_one(noon)
    held(of(up))
    make.end_node(of(up), "a")
    assert (of(up).state, succeeded(of(up)), of(down).state) == ("success", False, "not_ready")

    again = services.rerun(of(up), holder=HOLDER, by="ann")
    assert Cycle.objects.get(pk=again.cycle_id).holder == ""
    assert (again.state, of(down).state) == ("running", "not_ready")
    make.end_node(again, "a")
    assert of(down).state == "running"
    Picture().check()


def test_a_success_counts_no_more_while_its_cycle_is_held(pair: Any, noon: Any) -> None:
    up, down = pair
    noon.move_to(NOON + HOUR)
    clock.make_due()
    services.freeze(of(down), by="ann")
    make.end_node(of(up), "a")
    held(of(up))
    services.unfreeze(of(down), by="ann")
    assert (succeeded(of(up)), of(down).state) == (False, "not_ready")

    release(of(up))
    assert (succeeded(of(up)), of(down).state) == (True, "running")
    Picture().check()


def test_letting_go_of_what_failed_releases_nothing_and_of_what_others_hold_neither(
    pair: Any, noon: Any
) -> None:
    up, down = pair
    at_one(noon)
    held(of(up))
    make.end_node(of(up), "a", "failed")
    release(of(up), "rerun:99")
    assert Cycle.objects.get(pk=of(up).cycle_id).holder == HOLDER
    release(of(up))
    assert (succeeded(of(up)), of(down).state) == (False, "not_ready")
    Picture().check()


def test_marking_the_instance_of_a_held_cycle_lets_nothing_go_until_it_is_let_go(pair: Any, noon: Any) -> None:
    up, down = pair
    at_one(noon)
    make.end_node(of(up), "a", "failed")
    held(of(up))
    services.mark_success(of(up), by="ann", reason="looked right")
    assert (succeeded(of(up)), of(down).state) == (False, "not_ready")
    release(of(up))
    assert (succeeded(of(up)), of(down).state) == (True, "running")


@pytest.mark.parametrize("holder", ["", "rerun:13"])
def test_nobody_else_reruns_a_held_cycle(pair: Any, noon: Any, holder: str) -> None:
    up, _down = pair
    at_one(noon)
    make.end_node(of(up), "a")
    held(of(up))

    def rerun() -> None:
        with pytest.raises(CycleRefused, match=r"is held by rerun 12, which is about to rerun it"):
            services.rerun(of(up), holder=holder, by="ann")
        raise CycleRefused

    traceless(rerun, CycleRefused)


def test_a_rerun_that_is_refused_keeps_the_hold(pair: Any, noon: Any) -> None:
    up, _down = pair
    at_one(noon)
    make.end_node(of(up), "a")
    held(of(up))
    with pytest.raises(CycleRefused, match="has no node moon"):
        services.rerun(of(up), holder=HOLDER, nodes=["moon"])
    assert Cycle.objects.get(pk=of(up).cycle_id).holder == HOLDER


def test_a_rerun_that_is_not_to_begin_is_ready_until_somebody_looks(pair: Any, noon: Any) -> None:
    up, _down = pair
    at_one(noon)
    make.end_node(of(up), "a")
    with transaction.atomic():
        workflow = Workflow.objects.locked([up.pk])[up.pk]
        source = of(up)
        source.workflow = workflow
        assert services.rerun_locked(source, by="ann").state == "ready"
    transitions.look_again([up.pk])
    assert of(up).state == "running"


def test_a_test_of_a_held_cycle_may_be_rerun(pair: Any, noon: Any) -> None:
    up, _down = pair
    at_one(noon)
    make.end_node(of(up), "a")
    test = make.end_node(services.run_test(up, cycle_time=of(up).cycle_time), "a", "failed")
    held(of(up))
    assert services.rerun(test).run_type == "test"
    assert (succeeded(of(up)), Cycle.objects.get(pk=test.cycle_id).holder) == (False, HOLDER)


def test_a_backfill_leaves_held_cycles_out_and_says_who_holds_them(pair: Any, noon: Any) -> None:
    up, _down = pair
    at_one(noon, hours=2)
    for hour in (13, 14):
        make.end_node(of(up, hour), "a")
    held(of(up))
    plan = services.plan_backfill(up, since=NOON + HOUR, until=NOON + 2 * HOUR)
    assert [each.refused for each in plan] == ["It is held by rerun 12, which is about to rerun it.", ""]
    found = services.backfill(up, since=NOON + HOUR, until=NOON + 2 * HOUR)
    assert [each.cycle_time.hour for each in found.instances.all()] == [14]
    with pytest.raises(CycleRefused, match="or held by a rerun; there is nothing to run"):
        services.backfill(up, since=NOON + HOUR, until=NOON + HOUR)
    Picture().check()


def test_two_holders_do_not_hold_one_cycle(pair: Any) -> None:
    up, _down = pair
    held(of(up))
    held(of(up))
    with pytest.raises(CycleRefused, match=r"The cycle up 2026-11-20 13:00 UTC is held by rerun 12 already"):
        held(of(up), "rerun:13")
    assert Cycle.objects.get(pk=of(up).cycle_id).holder == HOLDER


def test_why_says_which_rerun_it_waits_for(pair: Any, noon: Any) -> None:
    up, down = pair
    at_one(noon)
    make.end_node(of(up), "a", "failed")
    held(of(up))
    user = make.user(team=up.team)
    [cause] = why.of_cycle(ask.instances().get(pk=of(down).pk), user)
    assert strip_tags(cause.text) == "Blocked by up 2026-11-20 13:00 UTC: rerun 12 will rerun this cycle"


# --- frozen, many at once ----------------------------------------------------------------------------


def frozen(*instances: CycleInstance) -> None:
    with transaction.atomic():
        Workflow.objects.locked(each.workflow_id for each in instances)
        transitions.freeze_for(HOLDER, [each.pk for each in instances], by="ann", reason="bad weather")


def thaw(**of: Any) -> set[int]:
    with transaction.atomic():
        again = transitions.thaw_of(HOLDER, by="ann", reason="mended", **of)
    transitions.look_again(again)
    return again


def test_what_is_frozen_at_once_waits_and_goes_on_when_it_is_unfrozen(pair: Any, noon: Any) -> None:
    up, down = pair
    frozen(of(up), of(down))
    at_one(noon)
    assert (of(up).state, of(up).holder, of(up).frozen_by) == ("not_ready", HOLDER, "ann")
    with pytest.raises(CycleRefused, match="which alone can unfreeze it"):
        services.unfreeze(of(up), by="ann")

    assert thaw() == {up.pk, down.pk}
    assert (of(up).state, of(up).frozen_at, of(up).holder, of(down).state) == ("running", None, "", "not_ready")
    entries = JournalEntry.objects.filter(object_type="cycleinstance", action__in=["frozen", "unfrozen"])
    assert sorted(entries.values_list("action", "object_id", "actor", "reason")) == [
        ("frozen", of(up).pk, "ann", "bad weather"),
        ("frozen", of(down).pk, "ann", "bad weather"),
        ("unfrozen", of(up).pk, "ann", "mended"),
        ("unfrozen", of(down).pk, "ann", "mended"),
    ]
    Picture().check()


def test_some_of_what_is_frozen_may_be_unfrozen_alone(pair: Any) -> None:
    up, down = pair
    frozen(of(up), of(down))
    assert thaw(instance_ids=[of(up).pk]) == {up.pk}
    assert (of(up).is_frozen, of(down).is_frozen) == (False, True)
    assert thaw(instance_ids=[of(up).pk]) == set()


def test_what_has_begun_or_is_frozen_keeps_all_of_them_from_being_frozen(pair: Any, noon: Any) -> None:
    up, down = pair
    at_one(noon)
    with pytest.raises(CycleRefused, match=f"instance {of(up).pk} has begun or is frozen already"):
        traceless(lambda: frozen(of(down), of(up)), AssertionError)
    services.freeze(of(down), by="bob")
    with pytest.raises(CycleRefused, match=f"instance {of(down).pk} has begun or is frozen already"):
        frozen(of(down), of(down, 14))
    assert of(down, 14).frozen_at is None


def test_a_workflow_that_cannot_go_on_does_not_keep_the_others(
    pair: Any, noon: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from django.db import OperationalError

    from workflows.transitions import holding

    up, _down = pair
    other = make.workflow("other", group=make.group(), starts_at=NOON, **HOURLY)
    services.generate(other.pk)
    frozen(of(up), of(other))
    at_one(noon)
    make_ready = holding.lifecycle.make_ready

    def fails(instances: Any) -> Any:
        if instances.filter(workflow=up).exists():
            raise OperationalError("deadlock detected")
        return make_ready(instances)

    monkeypatch.setattr(holding.lifecycle, "make_ready", fails)
    thaw()
    assert (of(up).state, of(other).state) == ("not_ready", "running")
    assert f"Could not let workflow {up.pk} go on" in caplog.text
    monkeypatch.undo()
    clock.make_overlooked_ready()
    assert of(up).state == "running"


# --- retention ---------------------------------------------------------------------------------------


def test_what_an_app_above_needs_stays_with_its_cycle(
    pair: Any, noon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    up, _down = pair
    at_one(noon, hours=2)
    for hour in (13, 14):
        make.end_node(of(up, hour), "a")
    old = NOON - timedelta(days=900)
    CycleInstance.objects.filter(workflow=up, state="success").update(cycle_time=old, ended_at=old)
    [first, second] = CycleInstance.objects.filter(workflow=up, state="success").order_by("pk")
    held(second)
    needed = f"SELECT FROM workflows_cycle needed WHERE needed.id = {{cycle}} AND needed.holder = '{HOLDER}'"
    monkeypatch.setattr(retention, "NEEDED", [needed])

    def sweep() -> set[int]:
        swept = retention.Sweep()
        while swept.step():
            pass
        return set(CycleInstance.objects.filter(workflow=up, state="success").values_list("pk", flat=True))

    assert [line.split("; ")[0] for line in retention.Sweep.would_go()[0]] == [
        "desk/up: 1 cycle instances with 1 node runs"
    ]
    assert sweep() == {second.pk}
    release(second)
    assert sweep() == set()
    assert not CycleInstance.objects.filter(pk=first.pk).exists()
