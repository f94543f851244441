"""When a rerun that runs will end, reckoned anew from what is left of it and from how what ran went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from reruns import planning
from reruns.models import OnFailure, Rerun
from reruns.record_queries import Counts, Shape, Standing, pace_of, shape_of, standing_of
from reruns.states import ItemState, RerunState
from workflows.models import Workflow

# It is reckoned again when something happened, and else so often, in seconds: a page asks every two.
_EVERY = 15
# So many are simulated; what more of them come to is told by the longest way and by what runs at once.
_SIMULATED = 500
# What a few instances took says no more than this of the others.
_SLOWEST, _FASTEST = 4.0, 0.25


@dataclass(frozen=True)
class Forecast:
    """When what can run ends; None when nothing can be said. `blocked` wait for what did not succeed."""

    ends_at: datetime | None
    blocked: int


def forecast(rerun: Rerun, counts: Counts, now: datetime) -> Forecast:
    """When `rerun` ends, as things stand."""
    # Of a large one something changes all the time.
    told = rerun.state if counts.total > _SIMULATED else (*sorted(counts.by_state.items()), rerun.state)
    return Forecast(*_reckoned(rerun.pk, told, int(now.timestamp()) // _EVERY))


@lru_cache(maxsize=128)
def _reckoned(pk: int, _told: object, slot: int) -> tuple[datetime | None, int]:
    rerun = Rerun.objects.get(pk=pk)
    shape, standing = shape_of(rerun), standing_of(rerun)
    now = datetime.fromtimestamp(slot * _EVERY, tz=rerun.created_at.tzinfo)
    lanes = {each.workflow_id for each in shape.pieces}
    room = Workflow.objects.filter(pk__in=lanes, revision__parallelism__gt=0)
    left, blocked = remaining(
        shape,
        standing,
        now,
        pace=pace_of(rerun) or 1.0,
        limit=rerun.parallelism,
        room=dict(room.values_list("pk", "revision__parallelism")),
        stopped=_stands_still(rerun, standing),
    )
    return (None if left is None else now + timedelta(seconds=left)), blocked


def _stands_still(rerun: Rerun, standing: Mapping[int, Standing]) -> bool:
    """Whether nothing more is generated, so that only what runs goes on."""
    if rerun.state != RerunState.RUNNING:
        return True
    return rerun.on_failure == OnFailure.STOP and any(each.state in _UNSUCCESSFUL for each in standing.values())


_UNSUCCESSFUL = frozenset({ItemState.FAILED, ItemState.TERMINATED})


def remaining(
    shape: Shape,
    standing: Mapping[int, Standing],
    now: datetime,
    *,
    pace: float = 1.0,
    limit: int = 0,
    room: Mapping[int, int] | None = None,
    stopped: bool = False,
) -> tuple[float | None, int]:
    """In how many seconds what can still run has ended, and how many cannot as something before them failed.

    `pace` is how long things took against what they usually take, `limit` how many run at once, `room` how many
    of each workflow; `stopped`: only what runs goes on. None when nothing is left, or of none is known how long
    it takes.
    """
    blocked: set[int] = set()
    for pk, stands in standing.items():
        if stands.state in _UNSUCCESSFUL:
            blocked |= shape.below(pk)
    waiting = {pk for pk, stands in standing.items() if stands.state == ItemState.WAITING}
    running = [pk for pk, stands in standing.items() if stands.state == ItemState.RUNNING]
    seconds = {piece.pk: piece.seconds * min(_SLOWEST, max(_FASTEST, pace)) for piece in shape.pieces}
    going_on = {*running, *(() if stopped else waiting - blocked)}
    order = [piece for piece in shape.pieces if piece.pk in going_on]
    if not any(seconds[piece.pk] for piece in order):
        return None, len(blocked & waiting)
    at = {piece.pk: number for number, piece in enumerate(order)}
    takes = {}
    for pk, number in at.items():
        begun = standing[pk].started_at if standing[pk].state == ItemState.RUNNING else None
        passed = (now - begun).total_seconds() if begun is not None else 0.0
        takes[number] = max(0.0, seconds[pk] - passed)
    edges = [(at[up], at[pk]) for pk in at for up in shape.upstreams.get(pk, ()) if up in at]
    lanes = [piece.workflow_id for piece in order]
    if len(order) > _SIMULATED:
        return _at_least(takes, edges, lanes, limit, room or {}), len(blocked & waiting)
    graph = planning.CycleGraph.of(len(order), edges)
    plan = planning.simulate(graph, takes, limit=limit, lanes=lanes, room=room or {})
    return plan.total, len(blocked & waiting)


def _at_least(
    takes: Mapping[int, float],
    edges: Iterable[tuple[int, int]],
    lanes: Sequence[int],
    limit: int,
    room: Mapping[int, int],
) -> float:
    """The longest way through, or what all of them take when no more than so many run at once.

    The numbers of `takes` are in an order in which each comes after all that it waits for.
    """
    before: dict[int, float] = defaultdict(float)
    upstreams: dict[int, list[int]] = defaultdict(list)
    of_lane: dict[int, float] = defaultdict(float)
    for upstream, number in edges:
        upstreams[number].append(upstream)
    for number in sorted(takes):
        before[number] = takes[number] + max((before[up] for up in upstreams[number]), default=0.0)
        of_lane[lanes[number]] += takes[number]
    in_turn = [sum(takes.values()) / limit] if limit else []
    in_turn += [seconds / room[lane] for lane, seconds in of_lane.items() if room.get(lane)]
    return max([*before.values(), *in_turn])
