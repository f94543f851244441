"""Row E5: a chosen instance that reads an affected result which is not rerun is said, accepted and recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reruns import services
from reruns.errors import Hole, HolesNotAccepted
from reruns.holes import overtaken
from reruns.models import Rerun
from reruns.plans import plan_of
from scheduling.models import JournalEntry
from tests import factories as make
from tests.engine.definitions import apply
from tests.engine.rerun_world import World, fresh, settle
from workflows import services as workflow_services
from workflows.models import CycleInstance, Workflow
from workflows.services import clock
from workflows.views import impact

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]

HOLE = """\
team: lab
groups: [{name: g}]
tasks:
  - {name: ok, group: g, kind: shell, trigger: workflow, command: 'true'}
workflows:
  - name: h_hourly
    starts: 2026-11-20
    schedule: {cron: "0 * * * *"}
    parallelism: 8
    nodes: [{key: a, task: ok}]
  - name: h_mid
    starts: 2026-11-20
    schedule: {cron: "0 1 * * *"}
    nodes: [{key: b, task: ok}]
    depends_on: [{workflow: h_hourly, cycles: within_period}]
  - name: h_down
    starts: 2026-11-20
    schedule: {cron: "30 1 * * *"}
    nodes: [{key: c, task: ok}]
    depends_on: [{workflow: h_mid}]
"""


def pairs(rerun: Rerun, by: Any = None) -> list[tuple[str, str]]:
    return [(each.name, each.upstream) for each in plan_of(rerun, user=by).holes]


def test_an_hour_a_day_and_a_day_after_it_where_the_middle_is_not_chosen(noon: Any, tmp_path: Path) -> None:
    make.team("lab")
    noon.move_to(datetime(2026, 11, 19, 23, tzinfo=UTC))
    path = tmp_path / "h7-hole.yaml"
    path.write_text(HOLE)
    apply(str(path), yes=True)
    for workflow in Workflow.objects.all():
        workflow_services.generate(workflow.pk)
    noon.move_to(datetime(2026, 11, 21, 2, tzinfo=UTC))
    for workflow in Workflow.objects.all():
        workflow_services.generate(workflow.pk)
    while due := clock.make_due():
        assert due
        settle()
    for name in ("h_hourly", "h_mid", "h_down"):
        while running := list(CycleInstance.objects.filter(workflow__name=name, state="running")):
            for each in running:
                for run in each.node_runs.running().select_related("batch"):
                    make.end_batch(run.batch)
            settle()
    a = CycleInstance.objects.get(workflow__name="h_hourly", cycle_time=datetime(2026, 11, 20, 5, tzinfo=UTC))
    c = CycleInstance.objects.get(workflow__name="h_down", cycle_time=datetime(2026, 11, 21, 1, 30, tzinfo=UTC))
    draft = services.plan(a, downstream=[c])
    assert pairs(draft) == [("h_down 2026-11-21 01:30 UTC", "h_mid 2026-11-21 01:00 UTC")]
    assert "h_mid 2026-11-21 01:00 UTC, read by h_down 2026-11-21 01:30 UTC" in str(plan_of(draft))
    with pytest.raises(
        HolesNotAccepted, match="h_down 2026-11-21 01:30 UTC reads h_mid 2026-11-21 01:00 UTC, which"
    ):
        services.submit(draft)
    assert fresh(draft).is_draft

    services.choose(draft, plan_of(draft).between)
    assert pairs(draft) == []
    services.submit(draft)
    assert fresh(draft).state == "running"


def test_exactly_what_was_shown_has_to_be_accepted(noon: Any) -> None:
    world = World("a > b > d, a > c > d", noon)
    draft = world.draft("a", "d")
    shown = plan_of(draft).holes
    assert [each.upstream.split()[0] for each in shown] == ["b", "c"]
    for accepted in ([], shown[:1], [*shown, Hole(1, "x", 2, "y")]):
        with pytest.raises(HolesNotAccepted) as refused:
            services.submit(draft, accepted=accepted)
        assert refused.value.holes == shown
    services.choose(draft, [shown[0].upstream_id])
    with pytest.raises(HolesNotAccepted, match="c 2026-11-20 13:00 UTC"):
        services.submit(draft, accepted=shown)
    services.choose(draft, [shown[1].upstream_id])
    with pytest.raises(HolesNotAccepted, match="all upstream instances are rerun now"):
        services.submit(draft, accepted=shown)
    services.submit(draft)


def test_an_accepted_hole_stays_in_the_record(noon: Any) -> None:
    world = World("a > b > c", noon)
    draft = world.draft("a", "c")
    services.submit(draft, accepted=plan_of(draft).holes, by="ann", reason="c is urgent")
    settle()
    world.end("a")
    world.end("c")
    done = fresh(draft)
    assert done.state == "success"
    assert world.item(done, "c").holes == [{"cycle": world.cycle("b").pk, "name": "b 2026-11-20 13:00 UTC"}]
    assert world.item(done, "a").holes == []
    entry = JournalEntry.objects.get(object_type="rerun", object_id=done.pk, action="submitted")
    assert entry.details["not_rerun_upstream"] == 1


def test_what_closes_all_holes_goes_up_the_chain(noon: Any) -> None:
    world = World("a > b > c > d", noon)
    plan = plan_of(world.draft("a", "d"))
    assert [(each.name[0], each.upstream[0]) for each in plan.holes] == [("d", "c")]
    assert plan.between == {world.cycle(name).pk for name in "bc"}


def test_what_has_not_run_is_no_hole(noon: Any) -> None:
    world = World("a > b > c", noon, waiting="b c")
    draft = world.draft("a", "c", freeze_mode=True)
    assert pairs(draft) == []


def test_what_is_frozen_reads_it_too(noon: Any) -> None:
    world = World("a > b > c", noon, waiting="c")
    draft = world.draft("a", "c", freeze_mode=True)
    assert [(name[0], upstream[0]) for name, upstream in pairs(draft)] == [("c", "b")]


def test_taking_out_leaves_a_hole_in_what_stays(noon: Any) -> None:
    world = World("a > b > c", noon)
    rerun = world.rerun("a", "b", "c")
    services.take_out(rerun, [world.item(rerun, "b")], by="ann", reason="b is right")
    assert world.item(rerun, "c").holes == [{"cycle": world.cycle("b").pk, "name": "b 2026-11-20 13:00 UTC"}]
    world.end("a")
    assert world.running() == ["c"]


def test_a_hole_that_is_rerun_by_hand_while_its_reader_runs_is_told(noon: Any) -> None:
    world = World("a > b > c", noon)
    draft = world.draft("a", "c")
    services.submit(draft, accepted=plan_of(draft).holes)
    settle()
    assert "1 downstream cycle waits in a rerun downstream and may begin earlier: c 2026-11-20 13:00 UTC." in (
        impact.of_rerunning(world.at("b"))
    )
    world.end("a")
    noon.shift(timedelta(seconds=1))
    assert "1 downstream cycle runs now with the old result: c 2026-11-20 13:00 UTC. Rerun it afterwards." in (
        impact.of_rerunning(world.at("b"))
    )

    def late() -> list[str]:
        item = world.item(fresh(draft), "c")
        return overtaken([item], fresh(draft), {item.instance_id or 0: world.at("c")}).get(item.pk, [])

    assert late() == []
    workflow_services.rerun(world.at("b"), by="ann")
    assert late() == ["b 2026-11-20 13:00 UTC"]


def test_a_hole_that_was_rerun_before_its_reader_began_is_closed(noon: Any) -> None:
    world = World("a > b > c", noon)
    draft = world.draft("a", "c")
    services.submit(draft, accepted=plan_of(draft).holes)
    settle()
    noon.shift(timedelta(seconds=1))
    workflow_services.rerun(world.at("b"), by="ann")
    world.end("b")
    noon.shift(timedelta(seconds=1))
    world.end("a")
    item = world.item(fresh(draft), "c")
    assert overtaken([item], fresh(draft), {item.instance_id or 0: world.at("c")}) == {}
