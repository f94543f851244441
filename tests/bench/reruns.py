"""The figures of reruns downstream: plans over 100,000 cycle instances, submitting 10,000, and generating."""

from __future__ import annotations

import statistics
import time
import tracemalloc

from reruns import services
from reruns.models import Rerun, RerunEdge, RerunItem
from reruns.plans import Plan, plan_of
from tests.bench.engine import task_of
from tests.bench.harness import Figure, seconds, timed
from tests.bench.rerun_cycles import AFFECTED, affected, fan_of
from tests.bench.rerun_pages import record_of
from workflows import services as workflow_services
from workflows.models import Cycle, CycleDependency, CycleInstance

PAGE = 100
RUNS = 3
CHOSEN = 10_000
FANS = (("source", 1), ("rerun", 300), ("alone", 300))
WANTED = 2.0
MEMORY = 400


def planning() -> list[Figure]:
    """A plan of everything downstream of one cycle, loaded and reckoned: with nothing ticked, and with all."""
    source = affected()
    draft = services.plan(source, by="bench")
    full = services.plan(source, downstream="all", freeze_mode=True, by="bench")
    found = []
    for named, rerun in (("only the source chosen", draft), ("all chosen", full)):
        took = [timed(lambda rerun=rerun: _page(plan_of(rerun))) for _run in range(RUNS)]
        found.append(
            Figure(
                f"plan over {AFFECTED:,} affected instances, its sums and a page of {PAGE}, {named}",
                seconds(took),
                f"want ≤ {WANTED:.0f} s",
                statistics.median(took) <= WANTED,
            )
        )
    found.append(_memory(full))
    return [*found, *_ticks(draft)]


def _page(plan: Plan) -> None:
    """What the list page reads: the sums, what stands against it, and everything that its first rows show."""
    assert len(plan.candidates) == AFFECTED
    assert plan.summary.total_seconds >= 0
    assert (plan.drift, plan.conflicts, plan.missing) == ([], [], [])
    for each in plan.candidates[:PAGE]:
        shown = (each.name, each.team, each.state_label, each.action_label, each.data_date, each.upstream)
        assert all(part is not None for part in shown)
        assert (each.wave > 0, each.starts is not None, each.ends is not None) == (each.chosen,) * 3
        assert (each.outlook, each.refusal, len(each.content.permitted)) == ("", None, 3)


def _memory(rerun: Rerun) -> Figure:
    """The peak of what Python holds while the plan is made; traced, so it says nothing about time."""
    tracemalloc.start()
    _page(plan_of(rerun))
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    said = f"{peak / 2**20:.0f} MiB at its peak"
    return Figure("memory of that plan", said, f"want ≤ {MEMORY} MiB", peak <= MEMORY * 2**20)


def _ticks(draft: Rerun) -> list[Figure]:
    """Ticking 10,000 of them in one go, stored with order and times; then submitting these."""
    some = [each.cycle_id for each in plan_of(draft).candidates[: CHOSEN + 1]]
    ticking = timed(lambda: services.choose(draft, some, by="bench"))
    assert RerunItem.objects.filter(rerun=draft).count() == len(some)
    submitting = timed(lambda: services.submit(draft, by="bench", reason="measured"))
    assert Cycle.objects.filter(holder=draft.holder).count() == len(some)
    edges = RerunEdge.objects.filter(item__rerun=draft).count()
    return [
        Figure(
            f"{CHOSEN:,} of these ticked at once, and stored", f"{ticking:.1f} s", "want ≤ 5 s", ticking <= 5
        ),
        Figure(
            f"submit of {CHOSEN:,} instances with {edges:,} dependencies",
            f"{submitting:.1f} s",
            "want ≤ 30 s, better 10",
            submitting <= 30,
        ),
        record_of(draft),
    ]


def generating() -> list[Figure]:
    """What a rerun adds to each instance that it generates, against rerunning each by itself."""
    task_of("bench-noop", kind="python", spec={"call": "noop"})
    source, fan, alone = (fan_of(f"bench-fan-of-{name}", count) for name, count in FANS)
    for each in fan:
        CycleDependency.objects.create(cycle_id=each.cycle_id, upstream_id=source[0].cycle_id)
    began = time.monotonic()
    for each in alone:
        workflow_services.rerun(each, by="bench")
    plain = (time.monotonic() - began) / len(alone) * 1000
    rerun = services.submit(services.plan(source[0], downstream=fan, by="bench"), by="bench")
    services.advance(rerun.pk)
    begun = CycleInstance.objects.get(rerun_of=source[0])
    workflow_services.stop(begun, by="bench")
    workflow_services.mark_success(begun, by="bench")
    began = time.monotonic()
    while services.advance(rerun.pk):
        pass
    ours = (time.monotonic() - began) / len(fan) * 1000
    assert CycleInstance.objects.filter(rerun_of__in=fan, state="running").count() == len(fan)
    return [
        Figure(
            f"generating each of {len(fan)} instances of a rerun",
            f"{ours:.1f} ms, of which {ours - plain:.1f} ms is the rerun's",
            f"by itself {plain:.1f} ms; want ≤ 15 ms more",
            ours - plain <= 15,
        )
    ]


ALL = (planning, generating)
