"""When the runs of a cycle waited and ran, upon a common axis of time. No Django, no database.

A timeline is a table whose rows hold a bar each. Bars are drawn on a ground SPAN wide that stretches to the
width of its column, so places are numbers from 0 to SPAN; the labels of the axis, whose text must not
stretch, stand at percentages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from scheduling.charts import percent

SPAN = 1000
MOST_TICKS = 7
# Steps of an axis of clock times, in seconds.
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAY = 86400
_SHORTEST = timedelta(seconds=1)


@dataclass(frozen=True)
class Run:
    """One row. Times are aware; each is None as long as it has not come.

    `after`: the keys of the runs that it waited for, which is what the critical path goes along.
    """

    key: str
    name: str
    state: str
    word: str
    queued_at: datetime | None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    href: str = ""
    sub: str = ""
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A stretch of a bar."""

    x: str
    width: str


@dataclass(frozen=True)
class Row:
    """A run with its bar: `wait` from queued to started, `ran` from started to ended (or to now)."""

    run: Run
    wait: Part | None
    ran: Part | None
    waited: timedelta | None
    took: timedelta | None
    critical: bool
    open: bool
    """It has not ended: its last part goes on to now."""


@dataclass(frozen=True)
class Tick:
    """A line of the axis: at `x` of SPAN and `at` per cent, with the clock, and the day where it changes."""

    x: str
    at: str
    clock: str
    day: str


@dataclass(frozen=True)
class Timeline:
    """What `workflows/timeline.html` draws; `now` is where the line of the present stands, if it is in view."""

    mark: str
    rows: Sequence[Row]
    ticks: Sequence[Tick]
    now: str
    begin: datetime | None
    end: datetime | None
    critical: timedelta | None
    """How long the critical path took from its beginning to its end."""

    @property
    def rules(self) -> str:
        """The lines of the ticks as one SVG path, over a row of height 1."""
        return "".join(f"M{tick.x} 0v1" for tick in self.ticks)


def timeline(runs: Iterable[Run], *, now: datetime, zone: tzinfo, mark: str = "timeline") -> Timeline:
    """Place `runs` in their order upon an axis from the first that was queued to the last that ended.

    What has not ended reaches to `now`; what was never queued has no bar. Clocks are those of `zone`.
    """
    listed = list(runs)
    begun = [run.queued_at or run.started_at for run in listed]
    first = min((moment for moment in begun if moment), default=None)
    if first is None:
        return Timeline(
            mark, [Row(run, None, None, None, None, False, False) for run in listed], [], "", None, None, None
        )
    last = max(
        max(_end(run, now) for run, moment in zip(listed, begun, strict=True) if moment), first + _SHORTEST
    )
    if last <= now < last + (last - first) / 20:
        # The line of the present is not the edge of the drawing.
        last = now + (now - first) / 50
    path = critical_path(listed, now=now)
    axis = _Axis(first, last)
    on_path = [run for run in listed if run.key in path]
    return Timeline(
        mark=mark,
        rows=[_row(run, axis, now, run.key in path) for run in listed],
        ticks=_ticks(axis, zone),
        now=axis.place(now) if first <= now <= last else "",
        begin=first,
        end=last,
        critical=max(_end(run, now) for run in on_path) - min(_begin(run) for run in on_path)
        if on_path
        else None,
    )


def critical_path(runs: Iterable[Run], *, now: datetime) -> list[str]:
    """The keys of the runs that decided when all was over, in their order.

    From the one that ended last (what runs ends `now` or later) back over those of its upstreams that ended
    last. Whatever ran beside them could have been quicker without any effect.
    """
    known = {run.key: run for run in runs if run.started_at is not None}
    if not known:
        return []

    def latest(keys: Iterable[str]) -> str | None:
        there = [key for key in keys if key in known]
        return max(there, key=lambda key: (_end(known[key], now), key), default=None)

    path, here = list[str](), latest(known)
    while here is not None and here not in path:
        path.append(here)
        here = latest(known[here].after)
    return path[::-1]


# --- one row ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    first: datetime
    last: datetime

    def share(self, moment: datetime) -> float:
        return min(1.0, max(0.0, (moment - self.first) / (self.last - self.first)))

    def place(self, moment: datetime) -> str:
        return f"{SPAN * self.share(moment):.2f}"

    def part(self, begin: datetime, end: datetime) -> Part:
        return Part(self.place(begin), f"{SPAN * (self.share(max(begin, end)) - self.share(begin)):.2f}")


def _begin(run: Run) -> datetime:
    begun = run.queued_at or run.started_at
    assert begun is not None  # noqa: S101 - only what has begun is placed
    return begun


def _end(run: Run, now: datetime) -> datetime:
    """When it ended; what has not, or is about to begin, ends now."""
    return run.ended_at or max(now, _begin(run))


def _row(run: Run, axis: _Axis, now: datetime, critical: bool) -> Row:
    queued, started = run.queued_at or run.started_at, run.started_at
    if queued is None:
        return Row(run, None, None, None, None, False, False)
    end = _end(run, now)
    left_off = started or end
    return Row(
        run,
        wait=axis.part(queued, left_off) if left_off > queued else None,
        ran=axis.part(started, end) if started else None,
        waited=max(left_off - queued, timedelta(0)),
        took=end - started if started else None,
        critical=critical,
        open=run.ended_at is None,
    )


# --- the axis --------------------------------------------------------------------------------------


def _ticks(axis: _Axis, zone: tzinfo) -> list[Tick]:
    moments = clock_moments(axis.first, axis.last, zone)
    ticks, day = list[Tick](), None
    for moment in moments:
        local = moment.astimezone(zone)
        midnight = (local.hour, local.minute, local.second) == (0, 0, 0)
        clock = f"{local:%H:%M}" if all(each.second == 0 for each in moments) else f"{local:%H:%M:%S}"
        changed = local.date() != day
        day = local.date()
        date = f"{local:%m-%d}"
        # Days are named by themselves when the axis counts them.
        if midnight and len(moments) > 1 and moments[1] - moments[0] >= timedelta(hours=23):
            clock, date = date, ""
        ticks.append(Tick(axis.place(moment), percent(axis.share(moment)), clock, date if changed else ""))
    return ticks


def clock_moments(first: datetime, last: datetime, zone: tzinfo) -> list[datetime]:
    """The round clock times of `zone` from `first` to `last`, MOST_TICKS at most, in UTC.

    They are round by the clock on the wall also on the day on which the clock is changed; an hour that does not
    exist then is left out.
    """
    least = (last - first).total_seconds() / MOST_TICKS
    step = next((step for step in _STEPS if step >= least), None)
    if step is None:
        step = _DAY * int(-(-least // _DAY))
    if step <= 3600:
        # Zones are whole quarters of an hour away from UTC; counting there passes no hour twice and skips none.
        shift = (first.astimezone(zone).utcoffset() or timedelta(0)).total_seconds()
        at = -(-(first.timestamp() + shift) // step) * step - shift
        return [
            datetime.fromtimestamp(at + step * n, UTC) for n in range(int((last.timestamp() - at) // step) + 1)
        ]
    local = first.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    found = []
    while (moment := local.replace(tzinfo=zone).astimezone(UTC)) <= last:
        exists = moment.astimezone(zone).replace(tzinfo=None) == local
        if exists and moment >= first:
            found.append(moment)
        local += timedelta(seconds=step)
    return found
