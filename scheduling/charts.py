"""The arithmetic of the charts: where each mark stands, in per cent of the drawing. No Django, no database.

A chart is drawn as an SVG without a viewBox whose places are percentages: it takes the width that it is
given, and its text and its marks keep their size on every screen. All places are text such as `12.50%`,
with the origin at the top left as SVG has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

# Steps of an axis of durations, in seconds: the round numbers of a clock.
_CLOCK = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
_LONG_CLOCK = (3600, 7200, 10800, 21600, 43200, 86400)
_MOST_TICKS = 4
# How many times as long as nearly all others a run takes to be left out of the scale.
_FAR = 4


# A list has a thousand of them, and one that is frozen takes five times as long to make.
@dataclass(slots=True)
class Run:
    """One run of a task as the charts need it: its batch, its state, and how many seconds it took."""

    pk: int
    state: str
    took: float | None


@dataclass(frozen=True)
class Mark:
    """A run, or a part of a column, at its place. Points use `x` and `y` alone."""

    state: str
    x: str
    y: str
    width: str = ""
    height: str = ""
    run: Run | None = None
    beyond: bool = False
    """It took longer than the chart is high, and stands at its top."""


@dataclass(frozen=True)
class Level:
    """A horizontal line at `y` that stands for `value` (seconds, or a count)."""

    value: float
    y: str


@dataclass(frozen=True)
class Durations:
    """The durations of runs, oldest at the left; `median` and `p95` are None when nothing has ended."""

    points: list[Mark]
    ticks: list[Level]
    median: Level | None
    p95: Level | None


@dataclass(frozen=True)
class Column:
    """One column of a stacked chart, parts from the bottom upward; `x` and `width` span its whole slot."""

    x: str
    width: str
    middle: str
    total: int
    top: str
    parts: list[Mark]


@dataclass(frozen=True)
class Stack:
    """Columns over a common axis of counts."""

    columns: list[Column]
    ticks: list[Level]


def percent(share: float) -> str:
    """`0.125` as `12.50%`, never outside the drawing."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of `values` do not exceed (nearest rank); None without any."""
    if not values:
        return None
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def success_rate(states: Sequence[str]) -> float | None:
    """The share of `success` among what ended `success` or `failed`; None when nothing did."""
    judged = [state for state in states if state in {"success", "failed"}]
    return judged.count("success") / len(judged) if judged else None


def clock_ticks(longest: float) -> list[float]:
    """Round durations from 0 to the first that is not below `longest` (seconds), five of them at most."""
    return _ticks(longest, _clock_step)


def count_ticks(highest: int) -> list[float]:
    """Round whole numbers from 0 to the first that is not below `highest`, five of them at most."""
    return _ticks(highest, _count_step)


def _ticks(highest: float, step_of: Callable[[float], float]) -> list[float]:
    step = step_of(highest / _MOST_TICKS)
    return [round(step * number, 3) for number in range(max(1, ceil(round(highest / step, 6))) + 1)]


def _clock_step(least: float) -> float:
    for step in (*_CLOCK, *_LONG_CLOCK):
        if step >= least:
            return step
    return 86400 * ceil(least / 86400)


def _count_step(least: float) -> float:
    size = 1
    while True:
        for step in (size, 2 * size, 5 * size):
            if step >= least:
                return step
        size *= 10


def durations(runs: Sequence[Run]) -> Durations:
    """A chart of `runs`, oldest first; those without a duration (still running) have no point.

    A few runs that took far longer than all others do not flatten the chart: they stand at its top.
    """
    measured = [(place, run, run.took) for place, run in enumerate(runs) if run.took is not None]
    seconds = [took for _, _, took in measured]
    longest, p95 = max(seconds, default=1.0), quantile(seconds, 0.95)
    if p95 and longest > _FAR * p95:
        longest = 2 * p95
    ticks = clock_ticks(longest)
    top = ticks[-1]

    def level(value: float | None) -> Level | None:
        return None if value is None else Level(value, percent(1 - value / top))

    return Durations(
        points=[
            Mark(
                run.state,
                percent((place + 0.5) / len(runs)),
                percent(1 - took / top),
                run=run,
                beyond=took > top,
            )
            for place, run, took in measured
        ],
        ticks=[Level(tick, percent(1 - tick / top)) for tick in ticks],
        median=level(quantile(seconds, 0.5)),
        p95=level(p95),
    )


# What a sparkline is drawn on: bars stand on a base line, and failures are underlined below it.
SPARK_SLOT, SPARK_BASE, SPARK_HEIGHT = 6, 20, 25


def sparkline(runs: Sequence[Run], slots: int) -> dict[str, str]:
    """The last `slots` of `runs` (oldest first) as bars that end at the right, full at thrice the median.

    One SVG path a state, on a ground of `slots * SPARK_SLOT` by SPARK_HEIGHT: a list shows hundreds of bars,
    and so costs a few elements a row. A run without a duration, and one that took next to nothing, still has
    a bar that can be seen.
    """
    shown = runs[-slots:]
    took = [run.took for run in shown if run.took is not None]
    longest = min(max(took, default=0.0), 3 * (quantile(took, 0.5) or 0.0))
    paths: dict[str, list[str]] = {}
    for place, run in enumerate(shown, start=slots - len(shown)):
        share = (run.took or 0.0) / longest if longest else 0.0
        height = round(SPARK_BASE * min(1.0, max(0.16, share)))
        left = place * SPARK_SLOT
        bars = paths.setdefault(run.state, [])
        bars.append(f"M{left} {SPARK_BASE}v-{height}h{SPARK_SLOT - 1}v{height}z")
        if run.state == "failed":
            bars.append(f"M{left} {SPARK_BASE + 2}h{SPARK_SLOT - 1}v3h-{SPARK_SLOT - 1}z")
    return {state: "".join(bars) for state, bars in paths.items()}


def stack(slots: Sequence[Mapping[str, int]], order: Sequence[str]) -> Stack:
    """A column for each of `slots` (counts by state), its parts in `order` from the bottom upward."""
    totals = [sum(slot.get(state, 0) for state in order) for slot in slots]
    ticks = count_ticks(max(totals, default=0))
    top = ticks[-1]
    width = 1 / max(1, len(slots))
    columns = []
    for place, (slot, total) in enumerate(zip(slots, totals, strict=True)):
        parts, below = [], 0
        for state in order:
            count = slot.get(state, 0)
            if not count:
                continue
            below += count
            parts.append(
                Mark(
                    state,
                    percent((place + 0.14) * width),
                    percent(1 - below / top),
                    percent(0.72 * width),
                    percent(count / top),
                )
            )
        columns.append(
            Column(
                x=percent(place * width),
                width=percent(width),
                middle=percent((place + 0.5) * width),
                total=total,
                top=percent(1 - total / top),
                parts=parts,
            )
        )
    return Stack(columns, [Level(tick, percent(1 - tick / top)) for tick in ticks])
