"""What a selection of cycles means: who waits for whom, in which order, and how long it takes.

Pure: cycles are the numbers 0 to size - 1, the earlier ones first where nothing else decides. Of the cycles of
a graph some are *chosen*; the others, and those that are only frozen, take no time and are passed through: a
chosen cycle waits for every chosen one that it reaches upstream. Each function walks the graph once.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import rustworkx

# Above it a rerun is refused: nobody could tell what waits for what, and storing it would take minutes.
MOST_DEPENDENCIES = 1_000_000
NAMED = 3


class TooManyDependencies(ValueError):
    """Far too many chosen cycles wait for each other by way of unchosen ones, most of all of `between`."""

    def __init__(self, between: list[int]) -> None:
        self.between = between
        super().__init__(f"choose some of {between}")


@dataclass(frozen=True)
class CycleGraph:
    """Who waits for whom: `upstreams` of each cycle; `order` has each after all that it waits for."""

    upstreams: list[list[int]]
    order: list[int]

    @classmethod
    def of(cls, size: int, edges: Iterable[tuple[int, int]]) -> CycleGraph:
        """The graph of `edges` (upstream, downstream).

        Where edges lead in a circle, as edits of definitions can leave it between cycles of the past, only
        those from an earlier to a later one of the circle count.
        """
        given = list(edges)
        try:
            order = _order(size, given)
        except rustworkx.DAGHasCycle:
            given = _without_circles(size, given)
            order = _order(size, given)
        upstreams: list[list[int]] = [[] for _ in range(size)]
        for upstream, downstream in given:
            upstreams[downstream].append(upstream)
        return cls(upstreams, order)

    def __len__(self) -> int:
        return len(self.upstreams)

    @cached_property
    def downstreams(self) -> list[list[int]]:
        """Who waits for each; of what `order` leaves out nothing is known."""
        found: list[list[int]] = [[] for _ in self.upstreams]
        for downstream in self.order:
            for upstream in self.upstreams[downstream]:
                found[upstream].append(downstream)
        return found

    def leading_to(self, chosen: Collection[int]) -> CycleGraph:
        """The same without whatever no chosen cycle is downstream of; the chosen ones stay."""
        wanted = [False] * len(self)
        for each in reversed(self.order):
            if wanted[each] or each in chosen:
                wanted[each] = True
                for upstream in self.upstreams[each]:
                    wanted[upstream] = True
        return CycleGraph(self.upstreams, [each for each in self.order if wanted[each]])

    def below(self, start: int) -> list[int]:
        """Everything downstream of `start`, without it, in the graph's order."""
        found = {start}
        heap = [start]
        while heap:
            for each in self.downstreams[heap.pop()]:
                if each not in found:
                    found.add(each)
                    heap.append(each)
        found.discard(start)
        return [each for each in self.order if each in found]


def _graph(size: int, edges: list[tuple[int, int]]) -> rustworkx.PyDiGraph[int, None]:
    graph: rustworkx.PyDiGraph[int, None] = rustworkx.PyDiGraph()
    graph.add_nodes_from(range(size))
    graph.add_edges_from_no_data(edges)
    return graph


def _order(size: int, edges: list[tuple[int, int]]) -> list[int]:
    generations = rustworkx.topological_generations(_graph(size, edges))
    return [each for generation in generations for each in sorted(generation)]


def _without_circles(size: int, edges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    part = list(range(size))
    for number, members in enumerate(rustworkx.strongly_connected_components(_graph(size, edges))):
        for each in members:
            part[each] = number
    return [(up, down) for up, down in edges if part[up] != part[down] or up < down]


# --- the order -----------------------------------------------------------------------------------------


def waves(graph: CycleGraph, chosen: Collection[int]) -> dict[int, int]:
    """The wave of each chosen cycle: 1 when it waits for no chosen one, else one after the last of these."""
    last = [0] * len(graph)
    found: dict[int, int] = {}
    for each in graph.order:
        upstreams = graph.upstreams[each]
        wave = max([last[upstream] for upstream in upstreams]) if upstreams else 0
        if each in chosen:
            wave += 1
            found[each] = wave
        last[each] = wave
    return found


def longest_path(graph: CycleGraph, seconds: Mapping[int, float]) -> tuple[float, list[int]]:
    """How long the chosen cycles (with their durations) take at least, and those that decide it, in order."""
    until = [0.0] * len(graph)
    through = [-1] * len(graph)
    before: dict[int, int] = {}
    for each in graph.order:
        ended, last = 0.0, -1
        for upstream in graph.upstreams[each]:
            if through[upstream] >= 0 and (last < 0 or until[upstream] > ended):
                ended, last = until[upstream], through[upstream]
        if each in seconds:
            before[each] = last
            ended, last = ended + seconds[each], each
        until[each], through[each] = ended, last
    if not before:
        return 0.0, []
    path = [max(before, key=until.__getitem__)]
    total = until[path[0]]
    while before[path[-1]] >= 0:
        path.append(before[path[-1]])
    return total, path[::-1]


# --- who waits for whom --------------------------------------------------------------------------------


def contract(
    graph: CycleGraph, chosen: Collection[int], *, most: int = MOST_DEPENDENCIES
) -> dict[int, set[int]]:
    """The chosen cycles that each chosen one waits for: those that it reaches through none but unchosen ones.

    Raises TooManyDependencies when there are more than `most`.
    """
    graph = graph.leading_to(chosen)
    readers = [0] * len(graph)
    for each in graph.order:
        for upstream in graph.upstreams[each]:
            readers[upstream] += 1
    found: dict[int, set[int]] = {}
    reached: dict[int, set[int]] = {}
    weights: dict[int, int] = {}
    total = 0
    for each in graph.order:
        mine, more = _union(graph.upstreams[each], chosen, reached, readers)
        # What was looked at counts too, as it takes as long.
        total += max(more, len(mine)) if each in chosen else more
        if each in chosen:
            found[each] = mine
        else:
            reached[each] = mine
            weights[each] = len(mine) * readers[each]
        if total > most:
            raise TooManyDependencies(heapq.nlargest(NAMED, weights, key=weights.__getitem__))
    return found


def _union(
    upstreams: list[int], chosen: Collection[int], reached: dict[int, set[int]], readers: list[int]
) -> tuple[set[int], int]:
    """What is reached by way of `upstreams`, and how many entries had to be copied for it."""
    mine = {upstream for upstream in upstreams if upstream in chosen}
    copied = len(mine)
    for upstream in upstreams:
        if upstream in chosen:
            continue
        theirs = reached[upstream]
        readers[upstream] -= 1
        # Nobody reads it after this: a long chain of unchosen cycles hands one set on, and copies none.
        if not readers[upstream] and len(theirs) > len(mine):
            mine, theirs = theirs, mine
        copied += len(theirs)
        mine |= theirs
        if not readers[upstream]:
            del reached[upstream]
    return mine, copied


# --- how long it takes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """When each chosen cycle begins and ends, and all of them have: seconds from the beginning."""

    starts: Mapping[int, float]
    ends: Mapping[int, float]
    total: float


def simulate(
    graph: CycleGraph,
    seconds: Mapping[int, float],
    *,
    limit: int = 0,
    lanes: Sequence[int] | None = None,
    room: Mapping[int, int] | None = None,
) -> Schedule:
    """How the chosen cycles, which take `seconds` each, follow each other.

    No more than `limit` (0: any number) are generated and unfinished at once; their turn is by wave, then by
    number. What is generated waits in its lane, the lower number first, until that has room: `lanes` are the
    workflows of the cycles, `room` how many each runs at once (0 or missing: any number).
    """
    return _Simulation(graph, seconds, limit, lanes or [0] * len(graph), room or {}).run()


class _Simulation:
    """Events in the order of time, kept in heaps: what ends, what may be generated, what waits in each lane."""

    def __init__(
        self,
        graph: CycleGraph,
        seconds: Mapping[int, float],
        limit: int,
        lanes: Sequence[int],
        room: Mapping[int, int],
    ) -> None:
        self.graph, self.seconds, self.limit = graph, seconds, limit
        self.downstreams = graph.downstreams
        self.waves = waves(graph, seconds) if limit else {}
        self.lanes, self.room = lanes, room
        self.unmet = [len(each) for each in graph.upstreams]
        self.ready: list[tuple[int, int]] = []
        self.queues: dict[int, list[int]] = defaultdict(list)
        self.running: list[tuple[float, int]] = []
        self.taken: dict[int, int] = defaultdict(int)
        self.unfinished = 0
        self.starts: dict[int, float] = {}
        self.ends: dict[int, float] = {}

    def run(self) -> Schedule:
        now = 0.0
        self.arrive([each for each in self.graph.order if not self.unmet[each]])
        self.generate(now)
        running = self.running
        while running:
            now = running[0][0]
            lanes = set()
            # All that end at one moment do so before anything has its turn.
            while running and running[0][0] == now:
                each = heapq.heappop(running)[1]
                lane = self.lanes[each]
                lanes.add(lane)
                self.taken[lane] -= 1
                self.unfinished -= 1
                self.arrive(self.freed_by(each))
            for lane in lanes:
                self.begin(lane, now)
            self.generate(now)
        return Schedule(self.starts, self.ends, now)

    def arrive(self, cycles: list[int]) -> None:
        """Nothing keeps `cycles` any more: they have their turn, or are passed through."""
        while cycles:
            each = cycles.pop()
            if each not in self.seconds:
                cycles += self.freed_by(each)
            elif self.limit:
                heapq.heappush(self.ready, (self.waves[each], each))
            else:
                self.ready.append((0, each))

    def freed_by(self, cycle: int) -> list[int]:
        unmet, freed = self.unmet, []
        for each in self.downstreams[cycle]:
            unmet[each] -= 1
            if not unmet[each]:
                freed.append(each)
        return freed

    def generate(self, now: float) -> None:
        """Let what is ready into its lane, as far as the limit goes, and begin what has room there."""
        turn: list[int] = []
        if self.limit:
            while self.ready and self.unfinished + len(turn) < self.limit:
                turn.append(heapq.heappop(self.ready)[1])
        else:
            turn = [each for _wave, each in self.ready]
            self.ready.clear()
        self.unfinished += len(turn)
        for each in sorted(turn):
            lane = self.lanes[each]
            room = self.room.get(lane, 0)
            # Where there is room nothing is queued.
            if not room or self.taken[lane] < room:
                self.start(each, lane, now)
            else:
                heapq.heappush(self.queues[lane], each)

    def begin(self, lane: int, now: float) -> None:
        queue, room = self.queues[lane], self.room.get(lane, 0)
        while queue and (not room or self.taken[lane] < room):
            self.start(heapq.heappop(queue), lane, now)

    def start(self, cycle: int, lane: int, now: float) -> None:
        self.taken[lane] += 1
        self.starts[cycle] = now
        self.ends[cycle] = end = now + self.seconds[cycle]
        heapq.heappush(self.running, (end, cycle))
