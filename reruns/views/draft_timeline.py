"""The plan upon an axis of time: when each instance would run, if all takes as long as it usually does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from django.core.paginator import Page, Paginator
from django.utils import timezone

from reruns.candidates import Candidate
from reruns.eligibility import in_part
from reruns.plans import Plan
from reruns.views.draft_words import deed_of, nodes_of
from scheduling import clocks
from scheduling.charts import percent
from workflows.timeline import SPAN, clock_moments

PAGE_SIZE = 100
# The share of the axis, where it is narrow, that half a clock takes.
EDGE = 0.12


@dataclass(frozen=True)
class Tick:
    """A line of the axis, at `x` of SPAN and `at` per cent.

    `edge` is the end of the axis ("first" or "last") that is too near for the clock to fit around the line.
    """

    x: str
    at: str
    clock: str
    edge: str


@dataclass(frozen=True)
class PlannedRow:
    """An instance of the plan: what is done to it, when, and its bar."""

    candidate: Candidate
    deed: str
    nodes: str
    starts_at: datetime | None
    ends_at: datetime | None
    x: str
    width: str
    critical: bool
    reads: str
    """What it reads that is affected and not rerun, by name."""

    @property
    def clock(self) -> str:
        """The cycle time without its year."""
        return clocks.minute(self.candidate.cycle_time)[5:]

    @property
    def mark(self) -> str:
        return f"cycle-{self.candidate.instance_id}"

    @property
    def took(self) -> float | None:
        it = self.candidate
        return it.ends - it.starts if it.starts is not None and it.ends is not None else None


@dataclass(frozen=True)
class Wave:
    """Instances that may begin together; `freed` are those that are let go at the end."""

    number: int
    freed: bool
    rows: Sequence[PlannedRow]


@dataclass(frozen=True)
class PlanTimeline:
    """A page of the plan, wave by wave."""

    page: Page[Candidate]
    waves: Sequence[Wave]
    ticks: Sequence[Tick]

    @property
    def rules(self) -> str:
        """The lines of the ticks as one SVG path, over a row of height 1."""
        return "".join(f"M{tick.x} 0v1" for tick in self.ticks)


def timeline_of(plan: Plan, page: str | None) -> PlanTimeline:
    """The page `page` of what is chosen in `plan`, in the order in which it would run."""
    chosen = sorted(plan.chosen, key=lambda each: (each.wave, each.starts or 0.0, each.name))
    shown: Page[Candidate] = Paginator(chosen, PAGE_SIZE).get_page(page)
    critical = {each.cycle_id for each in plan.longest_path}
    holes: dict[int, list[str]] = {}
    for hole in plan.holes:
        holes.setdefault(hole.cycle_id, []).append(hole.upstream_title)
    rows = [
        _row(each, plan, each.cycle_id in critical, holes.get(each.cycle_id, ())) for each in shown.object_list
    ]
    last = plan.summary.waves
    return PlanTimeline(
        shown, [Wave(number, number > last, list(of)) for number, of in _by_wave(rows)], _ticks(plan)
    )


def _by_wave(rows: Iterable[PlannedRow]) -> Iterable[tuple[int, Iterable[PlannedRow]]]:
    return groupby(rows, key=lambda row: row.candidate.wave)


def _row(candidate: Candidate, plan: Plan, critical: bool, reads: Sequence[str]) -> PlannedRow:
    begins, total = plan.situation.now, max(plan.schedule.total, 1.0)
    starts, ends = candidate.starts, candidate.ends
    return PlannedRow(
        candidate,
        deed_of(candidate),
        nodes_of(candidate),
        None if starts is None else begins + timedelta(seconds=starts),
        None if ends is None else begins + timedelta(seconds=ends),
        f"{SPAN * (starts or 0.0) / total:.2f}",
        f"{SPAN * ((ends or 0.0) - (starts or 0.0)) / total:.2f}",
        critical,
        in_part(list(reads)),
    )


def _ticks(plan: Plan) -> list[Tick]:
    zone = timezone.get_current_timezone()
    begins, length = plan.situation.now, timedelta(seconds=max(plan.schedule.total, 1.0))
    moments = clock_moments(begins, begins + length, zone)
    whole = all(moment.second == 0 for moment in moments)
    return [
        tick_at((moment - begins) / length, f"{moment.astimezone(zone):{'%H:%M' if whole else '%H:%M:%S'}}")
        for moment in moments
    ]


def tick_at(share: float, clock: str) -> Tick:
    """The line at a `share` of the axis, from 0 to 1."""
    edge = "first" if share < EDGE else "last" if share > 1 - EDGE else ""
    return Tick(f"{SPAN * share:.2f}", percent(share), clock, edge)
