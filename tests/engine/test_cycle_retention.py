"""Old cycle instances go, in small steps that nobody waits for; what later cycles need of them stays."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F

from scheduling.engine import steps
from scheduling.services import retention as of_tasks
from tests import factories as make
from tests.engine.cycle_support import Picture
from tests.engine.support import Elsewhere, before_commit
from workflows import services, transitions
from workflows.errors import CycleRefused
from workflows.models import Cycle, CycleDependency, CycleInstance, NodeRun, Workflow
from workflows.services import retention
from workflows.services.retention import Removed, Sweep

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True)]

HOURLY = {"cron": "0 * * * *", "timezone": "UTC"}


def ended(workflow: Workflow, *, hours: int = 1, days: float = 40) -> CycleInstance:
    """An instance of the cycle `hours` ago that succeeded, as if all of that had been `days` earlier."""
    now = datetime.now(UTC)
    at = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)
    found = services.backfill(workflow, since=at, until=at, waits_for_upstream=False)
    [instance] = found.instances.all()
    for node in instance.node_runs.order_by("node__number"):
        instance = make.end_node(instance, node.node.key)
    return aged(instance, days=days)


def aged(instance: CycleInstance, *, days: float) -> CycleInstance:
    by = timedelta(days=days)
    earlier = {name: F(name) - by for name in ("cycle_time", "created_at", "ended_at")}
    CycleInstance.objects.filter(pk=instance.pk).update(**earlier)
    Cycle.objects.filter(pk=instance.cycle_id).update(cycle_time=F("cycle_time") - by)
    return make.fresh(instance)


def swept(sweep: Sweep | None = None) -> Removed:
    sweep = sweep or Sweep()
    while sweep.step():
        pass
    removed: Removed = sweep.removed
    return removed


@pytest.fixture
def workflow() -> Workflow:
    made = make.workflow(nodes="a > b", parallelism=0, **HOURLY)
    Workflow.objects.update(retention_days=30)
    return made


def test_what_ended_longer_ago_than_its_workflow_keeps_goes_with_its_nodes(workflow: Workflow) -> None:
    old, young = ended(workflow, days=31), ended(workflow, hours=2, days=29)
    unended = CycleInstance.objects.unfinished().count()

    assert swept() == Removed(instances=1, node_runs=2)

    assert not CycleInstance.objects.filter(pk=old.pk).exists()
    assert NodeRun.objects.filter(instance=young).count() == 2
    assert CycleInstance.objects.count() == unended + 1
    assert not swept()


def test_a_workflow_that_says_nothing_keeps_them_as_long_as_the_installation(
    workflow: Workflow, settings: Any
) -> None:
    Workflow.objects.update(retention_days=None)
    ended(workflow, days=50)
    settings.TAILRACE = settings.TAILRACE | {"RETENTION_DAYS": 60}
    assert not swept()
    settings.TAILRACE = settings.TAILRACE | {"RETENTION_DAYS": 40}
    assert swept().instances == 1


def test_a_cycle_still_says_that_it_succeeded_and_lets_what_waits_for_it_go_on(workflow: Workflow) -> None:
    old = ended(workflow)
    cycle = old.cycle

    swept()

    cycle.refresh_from_db()
    assert (cycle.effective_id, cycle.succeeded) == (None, True)
    waiting = CycleInstance.objects.filter(state="not_ready").first()
    assert waiting is not None
    CycleDependency.objects.create(cycle=waiting.cycle, upstream=cycle)
    CycleInstance.objects.filter(pk=waiting.pk).update(due=True)
    assert CycleInstance.objects.filter(pk=waiting.pk).with_upstream_met().exists()


def test_what_is_unfinished_stays_and_so_does_what_its_cycle_may_need_again(workflow: Workflow) -> None:
    source = ended(workflow)
    rerun = services.rerun(source, nodes=["b"], by="ann")
    tested = aged(make.cycle(workflow), days=90)

    assert not swept()

    for key in ("a", "b"):
        tested = make.end_node(tested, key)
    aged(make.end_node(rerun, "b"), days=40)
    aged(tested, days=90)
    Picture().check()
    assert swept() == Removed(instances=3, node_runs=6)


def test_a_rerun_forgets_a_source_that_went_before_it(workflow: Workflow) -> None:
    source = ended(workflow)
    rerun = make.end_node(services.rerun(source, nodes=["b"], by="ann"), "b")

    assert swept().instances == 1

    assert make.fresh(rerun).rerun_of_id is None
    assert rerun.node_runs.get(node__key="a").carried


def test_an_unfinished_backfill_keeps_what_it_is_judged_by(workflow: Workflow) -> None:
    ended(workflow)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE workflows_backfill DISABLE TRIGGER USER")
        cursor.execute("UPDATE workflows_backfill SET state = 'paused', ended_at = NULL")
        cursor.execute("ALTER TABLE workflows_backfill ENABLE TRIGGER USER")
    assert not swept()


def test_cycles_go_when_nothing_of_them_is_left_and_nothing_that_is_waits_for_them(workflow: Workflow) -> None:
    def cycle(days: int) -> Cycle:
        return Cycle.objects.create(workflow=workflow, cycle_time=datetime.now(UTC) - timedelta(days=days))

    forgotten, needed, young = cycle(402), cycle(401), cycle(399)
    with_instance = ended(workflow, days=450).cycle
    Workflow.objects.update(retention_days=1000)
    CycleDependency.objects.create(cycle=needed, upstream=forgotten)
    CycleDependency.objects.create(cycle=young, upstream=needed)

    assert swept().cycles == 1

    left = set(Cycle.objects.filter(instances__state__isnull=True).values_list("pk", flat=True))
    assert {needed.pk, young.pk} <= left
    assert forgotten.pk not in left
    assert Cycle.objects.filter(pk=with_instance.pk).exists()


def test_a_huge_instance_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = make.workflow(nodes=", ".join(f"n{number}" for number in range(9)), parallelism=0, **HOURLY)
    Workflow.objects.update(retention_days=30)
    ended(workflow)
    monkeypatch.setattr(of_tasks, "LEAST_ROWS", 4)
    sweep = Sweep(rows=4)
    monkeypatch.setattr(of_tasks, "MOST_ROWS", 4)

    seen = []
    while sweep.step():
        seen.append(sweep.removed.node_runs)

    assert seen[:3] == [4, 8, 9]
    assert sweep.removed == Removed(instances=1, node_runs=9)


# --- beside others -----------------------------------------------------------------------------------


def test_nobody_waits_for_a_workflow_that_somebody_holds(workflow: Workflow) -> None:
    ended(workflow)
    with transaction.atomic():
        Workflow.objects.locked([workflow.pk])
        assert not Elsewhere(swept).result()
    assert swept().instances == 1


@pytest.mark.parametrize("verb", ["rerun", "mark_success", "freeze", "stop"])
def test_what_is_done_to_an_instance_at_the_moment_it_goes_is_refused(workflow: Workflow, verb: str) -> None:
    old = ended(workflow)
    with before_commit(swept, lambda: getattr(services, verb)(old, by="ann")) as late:
        pass
    with pytest.raises(CycleRefused, match="is not there any more; retention removed it"):
        late.result()


def test_an_instance_that_is_being_marked_stays_for_this_time(workflow: Workflow) -> None:
    old = ended(workflow)
    with transaction.atomic():
        transitions.lifecycle.lock(old.pk)
        assert not Elsewhere(swept).result()
    assert swept().instances == 1


# --- in the scheduler, and by hand -------------------------------------------------------------------


def test_the_leading_scheduler_does_it_bit_by_bit(workflow: Workflow) -> None:
    ended(workflow)
    [step] = [step for step in steps.STEPS if step.name == "remove old cycle instances"]
    assert step.run() == 0
    assert CycleInstance.objects.filter(ended_at__isnull=False).count() == 0


def test_the_command_says_how_much_would_go_and_then_removes_it(workflow: Workflow) -> None:
    ended(workflow)
    would, did, again = (io.StringIO() for _ in range(3))
    call_command("retain", dry_run=True, stdout=would)
    line = f"{workflow.team.name}/{workflow.name}: 1 cycle instances with 2 node runs; keeps 30 days"
    assert line in would.getvalue()
    assert "Would remove 1 cycle instances with 2 node runs, and 0 cycles." in would.getvalue()
    call_command("retain", stdout=did)
    assert "Removed 1 cycle instances with 2 node runs, and 0 cycles." in did.getvalue()
    call_command("retain", stdout=again)
    assert "Nothing is old enough to go." in again.getvalue()


def test_every_key_that_points_to_what_goes_has_an_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT con.conrelid::regclass::text, a.attname FROM pg_constraint con"
            " JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = con.conkey[1]"
            " WHERE con.contype = 'f'"
            " AND con.confrelid = ANY(ARRAY['workflows_cycle', 'workflows_cycleinstance']::regclass[])"
            " AND NOT EXISTS (SELECT FROM pg_index i"
            " WHERE i.indrelid = con.conrelid AND i.indkey[0] = con.conkey[1])"
        )
        assert cursor.fetchall() == []


def test_the_rows_of_a_step_are_bounded(workflow: Workflow) -> None:
    assert retention.CYCLE_DAYS >= 400
    for hours in range(1, 6):
        ended(workflow, hours=hours)
    sweep = Sweep(rows=4)
    sweep.step()
    assert (sweep.removed.node_runs, sweep.removed.instances) in {(4, 0), (4, 2)}
    assert swept().instances + sweep.removed.instances == 5
