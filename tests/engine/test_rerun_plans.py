"""Rows B4, B5, B8, D1 and D2: what may be rerun, what would become of each, and why not otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import translation

from reruns import services
from reruns.errors import Drift, RerunRefused
from reruns.models import Rerun, RerunItem
from reruns.plans import plan_of
from scheduling import clocks
from tests import factories as make
from tests.engine.rerun_support import Across, at, chain, cycle, draft, names, of, refused
from tests.engine.rerun_world import NOON
from workflows import services as workflow_services
from workflows.models import Cycle, CycleInstance

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]


# --- what lies downstream ------------------------------------------------------------------------------


def test_everything_downstream_is_a_candidate_whatever_lies_between() -> None:
    a, b, c = chain("a", "b", "c")
    cycle(make.workflow("beside"))
    upstream = cycle(make.workflow("before"))
    make_wait(a, upstream)

    plan = plan_of(draft(a, downstream=[c]))

    assert names(plan.candidates) == ["a", "b", "c"]
    assert names(plan.chosen) == ["a", "c"]
    assert [each.upstream for each in plan.candidates] == [[], [a.cycle_id], [b.cycle_id]]
    assert plan.dependencies == {a.cycle_id: set(), c.cycle_id: {a.cycle_id}}
    assert [each.wave for each in plan.candidates] == [1, 0, 2]
    assert plan.candidate(upstream.cycle_id) is None


def make_wait(instance: CycleInstance, *upstreams: CycleInstance) -> None:
    from workflows.models import CycleDependency

    for upstream in upstreams:
        CycleDependency.objects.create(cycle_id=instance.cycle_id, upstream_id=upstream.cycle_id)


def test_what_has_no_instance_is_passed_through_and_is_no_candidate() -> None:
    a, b, c = chain("a", "b", "c")
    rerun = draft(a, downstream=[c])
    Cycle.objects.filter(pk=b.cycle_id).update(effective=None)
    CycleInstance.objects.filter(pk=b.pk).delete()

    plan = plan_of(rerun)

    assert names(plan.candidates) == ["a", "c"]
    assert plan.dependencies[c.cycle_id] == {a.cycle_id}
    assert plan.candidate(b.cycle_id) is None
    with pytest.raises(RerunRefused, match="does not depend on what is rerun"):
        services.choose(rerun, [b.cycle_id])


def test_only_the_effective_run_of_a_cycle_counts() -> None:
    a, b = chain("a", "b")
    again = cycle(b.workflow, b.cycle_time, run_type="rerun", online=True, rerun_of=b)

    assert of(plan_of(draft(a)), b).instance_id == again.pk
    old_source = refused_source(again, b)
    assert old_source == f"Instance {again.pk} of the same cycle counts by now; begin at that one."


def refused_source(new: CycleInstance, old: CycleInstance) -> str:
    RerunItem.objects.all().delete()
    Rerun.objects.all().delete()
    return refused(old)[1]


def test_a_subtree_is_a_cycle_and_all_below_it() -> None:
    a, b, c = chain("a", "b", "c")
    d = cycle(make.workflow("d"), after=[a])
    plan = plan_of(draft(a))

    assert names(plan.subtree(b.cycle_id)) == ["b", "c"]
    assert names(plan.subtree(a.cycle_id)) == ["a", "b", "d", "c"]
    assert names(plan.subtree(d.cycle_id)) == ["d"]
    assert c.cycle_id in {each.cycle_id for each in plan.candidates}


# --- the source (B4) -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("run_type", "online"), [("backfill", False), ("rerun", False)])
def test_a_rerun_begins_only_at_an_instance_of_online_scheduling(run_type: str, online: bool) -> None:
    instance = cycle(make.workflow("a"), run_type=run_type, online=online)

    assert refused(instance) == (
        "mode",
        "It is offline or a test; only instances of online scheduling can be rerun here.",
    )


def test_a_test_run_is_not_what_counts_for_its_cycle() -> None:
    a = cycle(make.workflow("a"))
    test = cycle(a.workflow, a.cycle_time, run_type="test")

    assert refused(test) == ("state", f"Instance {a.pk} of the same cycle counts by now; begin at that one.")


@pytest.mark.parametrize(
    ("zone", "now", "opens"),
    [
        ("UTC", datetime(2026, 11, 20, 12, tzinfo=UTC), datetime(2026, 11, 19, tzinfo=UTC)),
        # Half past midnight in Shanghai: yesterday began 24.5 hours ago.
        ("Asia/Shanghai", datetime(2026, 11, 19, 16, 30, tzinfo=UTC), datetime(2026, 11, 18, 16, tzinfo=UTC)),
        # The clocks went back on 1 November 2026, so that day had 25 hours …
        ("America/New_York", datetime(2026, 11, 2, 12, tzinfo=UTC), datetime(2026, 11, 1, 4, tzinfo=UTC)),
        # … and forward on 8 March, which had 23.
        ("America/New_York", datetime(2026, 3, 9, 12, tzinfo=UTC), datetime(2026, 3, 8, 5, tzinfo=UTC)),
        # In Beirut they go forward at midnight: that day has no 00:00, and begins at 01:00.
        ("Asia/Beirut", datetime(2026, 3, 30, 12, tzinfo=UTC), datetime(2026, 3, 28, 22, tzinfo=UTC)),
    ],
)
def test_the_ready_time_lies_between_yesterday_midnight_in_its_zone_and_now(
    noon: Any, zone: str, now: datetime, opens: datetime
) -> None:
    noon.move_to(now)
    a = cycle(make.workflow("a", timezone=zone))

    def ready(moment: datetime | None) -> CycleInstance:
        CycleInstance.objects.filter(pk=a.pk).update(ready_at=moment)
        return make.fresh(a)

    for allowed in (opens, now):
        services.discard(services.plan(ready(allowed)))
    for too_old in (opens - timedelta(microseconds=1), now + timedelta(microseconds=1)):
        kind, said = refused(ready(too_old))
        assert kind == "ready_time"
        assert f"since {clocks.titled(opens)} (yesterday 00:00 in {zone})" in said


def test_what_was_never_ready_cannot_be_the_source() -> None:
    a = cycle(make.workflow("a"), state="not_ready")

    kind, said = refused(a, freeze_mode=True)

    assert (kind, said[:28]) == ("ready_time", "It has not been ready yet, s")


@pytest.mark.parametrize("state", ["ready", "running"])
def test_a_source_that_has_not_ended_needs_freeze_mode(state: str) -> None:
    a = cycle(make.workflow("a"), state=state)

    kind, said = refused(a)
    assert (kind, "Switch on freeze mode to terminate it" in said) == ("freeze_mode", True)

    assert plan_of(draft(a, freeze_mode=True)).source.action == "terminate"


@pytest.mark.parametrize("state", ["success", "failed", "terminated"])
def test_a_source_that_has_ended_is_rerun(state: str) -> None:
    plan = plan_of(draft(cycle(make.workflow("a"), state=state)))

    assert (plan.source.action, plan.source.is_source, plan.source.wave) == ("rerun", True, 1)


# --- what is downstream (B7, B8) -----------------------------------------------------------------------

ACTIONS = {
    "success": "rerun",
    "failed": "rerun",
    "terminated": "rerun",
    "ready": "terminate",
    "running": "terminate",
    "not_ready": "freeze",
}


@pytest.mark.parametrize(("state", "action"), ACTIONS.items())
@pytest.mark.parametrize("freeze_mode", [False, True])
def test_what_becomes_of_each_state_in_and_out_of_freeze_mode(
    state: str, action: str, freeze_mode: bool
) -> None:
    a = cycle(make.workflow("a"))
    b = cycle(make.workflow("b"), state=state, after=[a])

    found = of(plan_of(draft(a, freeze_mode=freeze_mode)), b)

    if action == "rerun" or freeze_mode:
        assert (found.action, found.refusal, found.chosen) == (action, None, True)
    else:
        assert (found.action, found.refusal.kind, found.chosen) == ("", "freeze_mode", False)
        does = {"freeze": "to freeze it until the rerun succeeded", "terminate": "to terminate it and rerun it"}
        assert does[action] in str(found.refusal)


def test_what_is_not_of_the_schedule_is_shown_and_cannot_be_chosen() -> None:
    a = cycle(make.workflow("a"))
    b = cycle(make.workflow("b"), run_type="backfill", after=[a])

    found = of(plan_of(draft(a, freeze_mode=True)), b)

    assert (found.state, found.refusal.kind, found.chosen) == ("success", "mode", False)


def test_a_downstream_instance_may_be_of_any_time() -> None:
    a = cycle(make.workflow("a"))
    b = cycle(make.workflow("b"), after=[a], ready_at=NOON - timedelta(days=40))

    assert of(plan_of(draft(a)), b).action == "rerun"


def test_what_somebody_froze_is_refused_with_who_when_and_why() -> None:
    a = cycle(make.workflow("a"))
    b = cycle(make.workflow("b"), state="not_ready", after=[a])
    workflow_services.freeze(b, by="mei", reason="bad input.")

    refusal = of(plan_of(draft(a, freeze_mode=True)), b).refusal

    assert (refusal.kind, refusal.rerun) == ("frozen", None)
    assert (
        str(refusal) == "It was frozen by mei on 2026-11-20 12:00 UTC: bad input. It has to be unfrozen first."
    )


def test_another_active_rerun_is_named_with_who_since_when_and_how_far(noon: Any) -> None:
    a, b, c, d = chain("a", "b", "c", "d")
    other = services.submit(draft(b, by="lee"), by="lee")
    noon.shift(timedelta(minutes=5))
    RerunItem.objects.filter(rerun=other, cycle=b.cycle_id).update(state="running", started_at=NOON)
    RerunItem.objects.filter(rerun=other, cycle=b.cycle_id).update(state="success", ended_at=NOON)

    plan = plan_of(draft(a))

    assert names(plan.refused) == ["b", "c", "d"]
    refusal = of(plan, c).refusal
    assert (refusal.kind, refusal.rerun, refusal.in_short) == ("held", other.pk, f"in rerun R-{other.pk}")
    assert str(refusal) == (
        f"It is in rerun R-{other.pk}, submitted by lee on 2026-11-20 12:00 UTC and done to 33 %. "
        "Wait for its end, or terminate it."
    )
    [conflict] = plan.conflicts
    assert (conflict.rerun.pk, conflict.rerun.actor, conflict.rerun.percent) == (other.pk, "lee", 33)
    assert names(conflict.cycles) == ["b", "c", "d"]
    assert d.cycle_id in {each.cycle_id for each in conflict.cycles}


def test_another_rerun_of_what_is_upstream_is_told_of_as_nothing_waits_for_it(noon: Any) -> None:
    a, b, c, _d = chain("a", "b", "c", "d")
    other = services.submit(services.plan(a, by="lee"), by="lee")

    plan = plan_of(draft(b))

    assert (names(plan.chosen), plan.conflicts) == (["b", "c", "d"], [])
    [upstream] = plan.upstream_reruns
    assert (upstream.rerun.pk, names(upstream.cycles)) == (other.pk, ["b"])
    assert plan_of(draft(c)).upstream_reruns == []


def test_another_rerun_of_what_is_upstream_is_told_of_however_much_it_holds(noon: Any) -> None:
    a, b, c, d = chain("a", "b", "c", "d")
    other = services.submit(services.plan(a, downstream=[b, c], by="lee"), by="lee")

    [upstream] = plan_of(draft(d)).upstream_reruns

    assert (upstream.rerun.pk, names(upstream.cycles)) == (other.pk, ["d"])


def test_what_another_rerun_froze_is_in_that_rerun() -> None:
    a = cycle(make.workflow("a"))
    b = cycle(make.workflow("b"), after=[a])
    c = cycle(make.workflow("c"), state="not_ready", after=[b])
    other = services.submit(draft(b, freeze_mode=True, by="lee"))

    found = of(plan_of(draft(a, freeze_mode=True)), c)

    assert (found.refusal.kind, found.refusal.rerun) == ("held", other.pk)


def test_other_drafts_hold_nothing() -> None:
    a, b = chain("a", "b")
    draft(a)

    assert names(plan_of(draft(a)).chosen) == ["a", "b"]
    assert plan_of(draft(b)).conflicts == []


# --- order and time (D2) -------------------------------------------------------------------------------


def test_durations_are_those_of_the_last_successes() -> None:
    a = cycle(make.workflow("a"), took=60)
    b_flow = make.workflow("b", parallelism=0)
    for hour, took in enumerate((100, 300, 200)):
        cycle(b_flow, at(hour, day=-2), took=took)
    cycle(b_flow, at(5, day=-2), "failed", took=9000)
    cycle(b_flow, at(6, day=-2), took=1, run_type="rerun", rerun_of=a)
    b = cycle(b_flow, at(), "failed", after=[a], took=5)

    plan = plan_of(draft(a))

    assert (of(plan, b).starts, of(plan, b).ends) == (60, 260)
    assert (plan.summary.total_seconds, plan.summary.longest_path_seconds) == (260, 260)
    assert plan.summary.ends_at == NOON + timedelta(seconds=260)
    assert names(plan.longest_path) == ["a", "b"]


def test_some_of_the_nodes_take_the_longest_way_through_them() -> None:
    a = cycle(make.workflow("a", nodes="x > y, x > z"), took=30)
    rerun = draft(a, nodes=["x", "z"])

    assert plan_of(rerun).summary.total_seconds == 60
    services.choose_nodes(rerun, a.cycle_id, ["y", "z"])
    assert plan_of(rerun).summary.total_seconds == 30


def test_what_never_succeeded_counts_as_nothing_and_is_told() -> None:
    a, b = chain("a", "b", state="failed")

    plan = plan_of(draft(a, nodes=["a"]))

    assert (plan.summary.unknown, plan.summary.total_seconds, plan.summary.waves) == (2, 0, 2)
    assert of(plan, b).node_count == 1


def test_instances_at_once_are_limited_by_the_rerun_and_by_each_workflow() -> None:
    a = cycle(make.workflow("a"), took=10)
    flow = make.workflow("b", parallelism=2)
    several = [cycle(flow, at(hour), after=[a], took=10) for hour in range(4)]

    rerun = draft(a)
    assert [of(plan_of(rerun), each).starts for each in several] == [10, 10, 20, 20]
    rerun = services.save_settings(rerun, parallelism=1)
    assert [of(plan_of(rerun), each).starts for each in several] == [10, 20, 30, 40]


def test_the_sums_tell_what_will_happen() -> None:
    a = cycle(make.workflow("a", nodes="x > y"))
    b = cycle(make.workflow("b", nodes="x > y > z"), state="running", after=[a])
    c = cycle(make.workflow("c"), state="not_ready", after=[b])
    cycle(make.workflow("d"), after=[b])

    plan = plan_of(draft(a, freeze_mode=True, downstream=[b, c]))

    sums = plan.summary
    assert (sums.instances, sums.nodes, sums.terminated, sums.frozen, sums.skipped) == (2, 5, 1, 1, 1)
    assert (sums.waves, of(plan, c).wave, of(plan, c).starts) == (2, 3, sums.total_seconds)


def test_what_is_frozen_is_passed_through() -> None:
    a = cycle(make.workflow("a"))
    b = cycle(make.workflow("b"), state="not_ready", after=[a])
    c = cycle(make.workflow("c"), after=[b])

    plan = plan_of(draft(a, freeze_mode=True))

    assert [each.action for each in plan.candidates] == ["rerun", "freeze", "rerun"]
    assert plan.dependencies == {a.cycle_id: set(), c.cycle_id: {a.cycle_id}}


def test_what_is_not_ready_and_not_chosen_waits_or_runs_as_planned() -> None:
    """
    a (chosen) ──► wait ──► wait_too          b (not chosen) ──► planned
    """
    a, b = chain("a", "b")
    waits = cycle(make.workflow("wait"), state="not_ready", after=[a])
    too = cycle(make.workflow("wait_too"), state="not_ready", after=[waits])
    planned = cycle(make.workflow("planned"), state="not_ready", after=[b])
    asked = cycle(make.workflow("asked"), state="not_ready", after=[a], waits_for_upstream=False)
    ready = cycle(make.workflow("ready"), state="ready", after=[a])

    plan = plan_of(draft(a, downstream=None))

    assert [of(plan, each).outlook for each in (a, b, waits, too, planned, asked, ready)] == [
        "",
        "",
        "waits",
        "waits",
        "as_planned",
        "as_planned",
        "",
    ]


def test_far_too_many_dependencies_are_refused_with_what_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reruns.plans.MOST_DEPENDENCIES", 5)
    a = cycle(make.workflow("a"))
    sides = [cycle(make.workflow(name), after=[a]) for name in ("p", "q", "r")]
    hub = cycle(make.workflow("hub"), after=sides)
    ends = [cycle(make.workflow(name), after=[hub]) for name in ("x", "y", "z")]

    with pytest.raises(RerunRefused, match=r"such as hub 2026-11-19 00:00 UTC"):
        _ = plan_of(draft(a, downstream=[*sides, *ends])).dependencies


# --- what changed since --------------------------------------------------------------------------------


def test_what_changed_since_it_was_chosen_is_told() -> None:
    a, b, c = chain("a", "b", "c")
    rerun = draft(a)
    assert plan_of(rerun).drift == []
    again = cycle(b.workflow, b.cycle_time, run_type="rerun", online=True, rerun_of=b)

    plan = plan_of(rerun)

    assert plan.drift == [Drift(b.name, f"Success (instance {b.pk})", f"Success (instance {again.pk})")]
    assert names(plan.chosen) == ["a", "b", "c"]
    assert of(plan, c).chosen


def test_what_cannot_be_done_any_more_is_lost_and_told() -> None:
    a, b = chain("a", "b")
    rerun = draft(a)
    cycle(b.workflow, b.cycle_time, "running", run_type="rerun", online=True, rerun_of=b)

    plan = plan_of(rerun)

    assert [(each.name, each.now) for each in plan.drift] == [(b.name, "Running, which needs freeze mode")]
    assert (names(plan.chosen), list(plan.lost)) == (["a"], [b.cycle_id])


def test_what_does_not_depend_on_it_any_more_is_lost_too() -> None:
    a, b = chain("a", "b")
    rerun = draft(a)
    b.cycle.upstreams.all().delete()

    assert [(each.name, each.now) for each in plan_of(rerun).drift] == [(b.name, "is not downstream any more")]


def test_a_draft_whose_source_is_gone_says_so() -> None:
    a, _b = chain("a", "b")
    rerun = draft(a)
    CycleInstance.objects.all().delete()
    Cycle.objects.all().delete()

    with pytest.raises(RerunRefused, match=r"its workflow was deleted\. Discard the draft"):
        plan_of(rerun)


# --- how it reads --------------------------------------------------------------------------------------


def test_the_shell_prints_it_to_be_read() -> None:
    across = Across()
    plan = across.plan()
    rerun = plan.rerun

    assert str(plan).splitlines() == [
        f"R-{rerun.pk}: rerun downstream of hourly 2026-11-19 00:00 UTC (Draft)",
        "reruns 1 (nodes: 1), of these terminates first 0; freezes until it succeeded 0; leaves alone 1",
        "waves: 1; longest path 1 min, all 1 min: would end 2026-11-20 12:01 UTC",
        "wave  starts     ends       action                  nodes  state       cycle",
        "   1  0 s        1 min      Rerun                   1/1    Success     hourly 2026-11-19 00:00 UTC",
        "cannot be chosen:",
        f"  {across.close.cycle_id:>8}  close 2026-11-19 00:00 UTC: {of(plan, across.close).refusal}",
        "for what you may not rerun of finance ask wang",
    ]
    assert repr(rerun) == f"<R-{rerun.pk}: draft, rerun downstream of hourly 2026-11-19 00:00 UTC>"


def test_refusals_are_said_in_the_language_of_who_reads_them() -> None:
    across = Across()
    refusal = of(across.plan(), across.close).refusal

    with translation.override("zh-hans"):
        assert str(refusal) == "您没有其任务的重跑权限。请联系 finance 的所有者。"


# --- how much it asks of the database -------------------------------------------------------------------


def queries_of(source: CycleInstance, user: Any) -> int:
    rerun = draft(source, by=user, freeze_mode=True)
    with CaptureQueriesContext(
        connection,
    ) as captured:
        plan = plan_of(rerun, user=type(user).objects.get(pk=user.pk))
        str(plan)
        _ = (plan.dependencies, plan.drift, plan.conflicts, plan.missing, plan.outlooks)
        for each in plan.candidates:
            _ = (each.name, each.cycle_time, each.refusal, each.nodes, each.upstream, each.outlook)
    return len(captured)


def test_it_asks_the_same_few_statements_however_much_is_affected() -> None:
    across = Across()
    make.grant(across.tasks["sum"], to=across.weather)
    few = queries_of(across.source, across.mei)
    group = make.group(team=across.finance)
    for number in range(5):
        flow = make.workflow(f"flow-{number}", group=group)
        for hour in range(3):
            cycle(flow, at(hour), "not_ready" if hour else "success", after=[across.close])

    assert queries_of(across.source, across.mei) == few
    assert few <= 17
