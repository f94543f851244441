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
from itertools import chain

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
    """Who waits for whom: the `upstreams` and `downstreams` of each cycle, by its number.

    `order` has each after all that it waits for; of what it leaves out nothing is known.
    """

    upstreams: list[list[int]]
    downstreams: list[list[int]]
    order: list[int]

    @classmethod
    def of(cls, size: int, edges: Iterable[tuple[int, int]]) -> CycleGraph:
        """The graph of `edges` (upstream, downstream).

        Where edges lead in a circle, as edits of definitions can leave it between cycles of the past, only
        those from an earlier to a later one of the circle count.
        """
        downstreams: list[list[int]] = [[] for _ in range(size)]
        for upstream, downstream in edges:
            downstreams[upstream].append(downstream)
        found = _walked(downstreams)
        return found if len(found.order) == size else _walked(_without_circles(downstreams))

    def __len__(self) -> int:
        return len(self.upstreams)

    def leading_to(self, chosen: Collection[int]) -> CycleGraph:
        """The same without whatever no chosen cycle is downstream of; the chosen ones stay."""
        if len(chosen) == len(self.order):
            return self
        wanted = set(chosen)
        left = list(chosen)
        while left:
            for upstream in self.upstreams[left.pop()]:
                if upstream not in wanted:
                    wanted.add(upstream)
                    left.append(upstream)
        order = [each for each in self.order if each in wanted]
        downstreams: list[list[int]] = [[] for _ in self.upstreams]
        for each in order:
            for upstream in self.upstreams[each]:
                downstreams[upstream].append(each)
        return CycleGraph(self.upstreams, downstreams, order)

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


def _walked(downstreams: list[list[int]]) -> CycleGraph:
    """Generation by generation, the lower number first; what is in a circle, or after one, is left out."""
    upstreams: list[list[int]] = [[] for _ in downstreams]
    unmet = [0] * len(downstreams)
    for each in chain.from_iterable(downstreams):
        unmet[each] += 1
    order: list[int] = []
    generation = [each for each, upstream in enumerate(unmet) if not upstream]
    while generation:
        order += generation
        following = []
        for upstream in generation:
            for each in downstreams[upstream]:
                upstreams[each].append(upstream)
                unmet[each] = left = unmet[each] - 1
                if not left:
                    following.append(each)
        generation = sorted(following)
    return CycleGraph(upstreams, downstreams, order)


def _without_circles(downstreams: list[list[int]]) -> list[list[int]]:
    graph: rustworkx.PyDiGraph[int, None] = rustworkx.PyDiGraph()
    graph.add_nodes_from(range(len(downstreams)))
    graph.add_edges_from_no_data([(up, down) for up, downs in enumerate(downstreams) for down in downs])
    part = [0] * len(downstreams)
    for number, members in enumerate(rustworkx.strongly_connected_components(graph)):
        for each in members:
            part[each] = number
    return [
        [down for down in downs if part[up] != part[down] or up < down] for up, downs in enumerate(downstreams)
    ]


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
    """What ends at each moment, what may be generated then, and what waits in each lane.

    Many end at the same moment, as the cycles of a workflow all take what they usually take.
    """

    def __init__(
        self,
        graph: CycleGraph,
        seconds: Mapping[int, float],
        limit: int,
        lanes: Sequence[int],
        room: Mapping[int, int],
    ) -> None:
        self.graph, self.seconds, self.limit = graph, seconds, limit
        self.waves = waves(graph, seconds) if limit else {}
        self.lanes, self.room = lanes, room
        self.unmet = [len(each) for each in graph.upstreams]
        self.ready: list[tuple[int, int]] = []
        self.queues: dict[int, list[int]] = {}
        self.taken: dict[int, int] = defaultdict(int)
        self.unfinished = 0
        self.moments: list[float] = []
        self.ending: dict[float, list[int]] = {}
        self.starts: dict[int, float] = {}
        self.ends: dict[int, float] = {}

    def run(self) -> Schedule:
        now = 0.0
        first = [each for each in self.graph.order if not self.unmet[each]]
        chosen = [each for each in first if each in self.seconds]
        passed = [each for each in first if each not in self.seconds]
        self.start(self.generated(chosen + self.freed_by(passed)), now)
        while self.moments:
            # All that end at one moment do so before anything has its turn.
            now = heapq.heappop(self.moments)
            ended = self.ending.pop(now)
            self.start(self.let_in(ended) + self.generated(self.freed_by(ended)), now)
        return Schedule(self.starts, self.ends, now)

    def freed_by(self, ended: list[int]) -> list[int]:
        """The chosen cycles that nothing keeps any more after these, straight or through what is not chosen."""
        unmet, downstreams, seconds = self.unmet, self.graph.downstreams, self.seconds
        freed: list[int] = []
        over = ended.copy()
        for upstream in over:
            for each in downstreams[upstream]:
                unmet[each] = left = unmet[each] - 1
                if not left:
                    # What is passed through is over at once, and frees others in its turn.
                    (freed if each in seconds else over).append(each)
        return freed

    def let_in(self, ended: list[int]) -> list[int]:
        """What gets the room that these leave in their lanes."""
        self.unfinished -= len(ended)
        lanes = [self.lanes[each] for each in ended]
        for lane in lanes:
            self.taken[lane] -= 1
        begun: list[int] = []
        for lane in self.queues.keys() & lanes:
            queue = self.queues[lane]
            while queue and self.taken[lane] < self.room[lane]:
                self.taken[lane] += 1
                begun.append(heapq.heappop(queue))
            if not queue:
                del self.queues[lane]
        return begun

    def generated(self, freed: list[int]) -> list[int]:
        """Let what is free into its lane, as far as the limit goes; what has room there."""
        turn = freed
        if self.limit:
            for each in freed:
                heapq.heappush(self.ready, (self.waves[each], each))
            turn = []
            while self.ready and self.unfinished + len(turn) < self.limit:
                turn.append(heapq.heappop(self.ready)[1])
        self.unfinished += len(turn)
        begun: list[int] = []
        for each in sorted(turn):
            lane = self.lanes[each]
            room = self.room.get(lane, 0)
            if not room or self.taken[lane] < room:
                self.taken[lane] += 1
                begun.append(each)
            else:
                heapq.heappush(self.queues.setdefault(lane, []), each)
        return begun

    def start(self, cycles: list[int], now: float) -> None:
        self.starts.update(dict.fromkeys(cycles, now))
        for each in cycles:
            self.ends[each] = end = now + self.seconds[each]
            if end in self.ending:
                self.ending[end].append(each)
            else:
                self.ending[end] = [each]
                heapq.heappush(self.moments, end)
