"""Where the boxes and arrows of a flow stand: layers from left to right. No Django, no database.

A node's layer is the longest way to it; what only leads to one place stands right before it all the same.
fast-sugiyama orders every layer so that few arrows cross (Sugiyama, Tagawa and Toda 1981; Gansner et al.
1993). How high each stands within its layer is decided here, because boxes have different heights and a long
arrow that only passes needs far less room than a box. Layer after layer, nodes go as near to the middle of
their neighbours as those beside them allow: a least-squares fit under an order, which pooling adjacent
violators solves exactly and in linear time (Best and Chakravarti 1990).

Arrows bend only in the gaps between layers and run level through a layer, so none passes behind a box. Long
arrows from the same box share a trunk, and part where their ways do. Lengths are in pixels, with the origin
at the top left. The same flow gives the same drawing in whatever order its nodes and arrows come.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import fast_sugiyama

MARGIN = 24
GAP = 18  # between boxes that stand above each other
LANE = 12  # between an arrow that passes through a layer and what is beside it
LAYER_GAP = 56  # at least this much between layers, for the arrows to bend in
PART_GAP = 36  # between parts that no arrow connects
# Steps up to this many are worth a second look for crossings, which doubles what they cost.
_THOROUGH = 800
# How strongly an arrow wants to be straight, by how many of its ends only pass.
_PULL = (1.0, 2.0, 8.0)
_ASPECT = 2.0  # of the grid of isolated nodes, when nothing else gives its width


@dataclass(frozen=True)
class Node:
    """A box to be placed, of `width` by `height` pixels."""

    key: str
    width: int
    height: int


@dataclass(frozen=True)
class Place:
    """Where a box stands: its top left corner, and its layer, counted from 0."""

    x: int
    y: int
    width: int
    height: int
    layer: int


@dataclass(frozen=True)
class Route:
    """An arrow as the data of an SVG path, and a point on it, in its first bend, where a label may stand."""

    path: str
    label_x: float
    label_y: float


@dataclass(frozen=True)
class Layout:
    """A drawing of `width` by `height`; `places` in reading order: part after part, layer after layer."""

    width: int
    height: int
    places: dict[str, Place]
    routes: dict[tuple[str, str], Route]


def lay_out(
    nodes: Iterable[Node],
    edges: Iterable[tuple[str, str]],
    labels: Mapping[tuple[str, str], float] | None = None,
) -> Layout:
    """Place `nodes` and route `edges` (pairs of keys; one given twice is one arrow).

    `labels`: how wide the text on an arrow is; the gap that it stands in is made to hold it. Raises ValueError
    for a cycle, a key given twice and an edge whose end is not among the nodes.
    """
    known = _by_key(nodes)
    pairs = sorted(set(edges))
    depths = _depths(known, pairs)
    parts = _parts(known, pairs, depths)
    alone = [known[keys[0]] for keys, _ in parts if len(keys) == 1]
    drawn = [_Part(known, keys, own, depths, labels or {}) for keys, own in parts if len(keys) > 1]

    places: dict[str, Place] = {}
    routes: dict[tuple[str, str], Route] = {}
    width, top = 0, MARGIN
    for part in drawn:
        part.move(MARGIN, top)
        places |= part.places()
        routes |= part.routes()
        width, top = max(width, part.width), top + part.height + PART_GAP
    grid, grid_width, grid_height = _grid(alone, width, top)
    places |= grid
    bottom = top + grid_height if alone else top - PART_GAP if drawn else MARGIN
    return Layout(max(width, grid_width) + 2 * MARGIN, bottom + MARGIN, places, routes)


# --- what is connected, and in which order ---------------------------------------------------------


def _by_key(nodes: Iterable[Node]) -> dict[str, Node]:
    listed = sorted(nodes, key=lambda node: node.key)
    known = {node.key: node for node in listed}
    if len(known) < len(listed):
        raise ValueError("two nodes of a flow have the same key")
    return known


def _depths(known: Mapping[str, Node], pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The layer of each node."""
    before: dict[str, list[str]] = {key: [] for key in known}
    after: dict[str, list[str]] = {key: [] for key in known}
    for source, target in pairs:
        if source not in known or target not in known:
            missing = source if source not in known else target
            raise ValueError(f"an edge of a flow ends at {missing!r}, which is not one of its nodes")
        before[target].append(source)
        after[source].append(target)
    depths: dict[str, int] = {}
    try:
        for key in TopologicalSorter(before).static_order():
            depths[key] = max((depths[source] + 1 for source in before[key]), default=0)
    except CycleError as error:
        raise ValueError(f"a flow has a cycle: {' → '.join(error.args[1])}") from None
    # What nothing else hangs on moves to the right, all that leads to it included: short arrows for long ones.
    free: dict[str, bool] = {}
    for key in depths:
        free[key] = all(free[source] and len(after[source]) == 1 for source in before[key])
    for key in reversed(list(depths)):
        if free[key] and after[key]:
            depths[key] = min(depths[target] for target in after[key]) - 1
    return depths


def _parts(
    known: Mapping[str, Node], pairs: Sequence[tuple[str, str]], depths: Mapping[str, int]
) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """The keys and edges of each connected part, the largest part first; keys in the order of their depth."""
    beside: dict[str, list[str]] = {key: [] for key in known}
    for source, target in pairs:
        beside[source].append(target)
        beside[target].append(source)
    part_of: dict[str, int] = {}
    for number, key in enumerate(known):
        reached = [] if key in part_of else [key]
        while reached:
            here = reached.pop()
            if here not in part_of:
                part_of[here] = number
                reached += beside[here]
    keys: dict[int, list[str]] = defaultdict(list)
    own: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for key in sorted(known, key=lambda key: (depths[key], key)):
        keys[part_of[key]].append(key)
    for pair in pairs:
        own[part_of[pair[0]]].append(pair)
    return sorted(((keys[part], own[part]) for part in keys), key=lambda each: (-len(each[0]), each[0][0]))


# --- one connected part ----------------------------------------------------------------------------


class _Part:
    """One connected part. Vertices are numbers: its nodes, and from len(nodes) on the bends of long arrows."""

    def __init__(
        self,
        known: Mapping[str, Node],
        keys: Sequence[str],
        pairs: Sequence[tuple[str, str]],
        depths: Mapping[str, int],
        labels: Mapping[tuple[str, str], float],
    ) -> None:
        self.nodes = [known[key] for key in keys]
        self.pairs = pairs
        self.layer_of = dict(enumerate(depths[key] for key in keys))
        self.chains = self._chains(keys)
        self.segments = sorted({step for chain in self.chains for step in itertools.pairwise(chain)})
        self.layers = _ordered(self.layer_of, self.segments)
        self.middle = self._heights()
        self.lefts, self.rights = self._columns(labels)
        self.x = self.y = 0

    def _chains(self, keys: Sequence[str]) -> list[list[int]]:
        """Each edge as the vertices that it goes through, its ends included; makes the bends."""
        number = {key: place for place, key in enumerate(keys)}
        bends: dict[tuple[int, int], int] = {}
        chains = []
        for source, target in ((number[source], number[target]) for source, target in self.pairs):
            chain = [source]
            for layer in range(self.layer_of[source] + 1, self.layer_of[target]):
                bend = bends.setdefault((source, layer), len(self.layer_of))
                self.layer_of[bend] = layer
                chain.append(bend)
            chains.append([*chain, target])
        return chains

    def _height(self, vertex: int) -> int:
        return self.nodes[vertex].height if vertex < len(self.nodes) else 0

    def _heights(self) -> dict[int, int]:
        """The middle of every vertex, the top of the part being 0."""
        count = len(self.nodes)
        before: dict[int, list[tuple[int, float]]] = defaultdict(list)
        after: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for source, target in self.segments:
            pull = _PULL[(source >= count) + (target >= count)]
            before[target].append((source, pull))
            after[source].append((target, pull))
        offsets = [self._offsets(layer) for layer in self.layers]
        middle = {
            vertex: offset - row[-1] / 2
            for layer, row in zip(self.layers, offsets, strict=True)
            for vertex, offset in zip(layer, row, strict=True)
        }
        rows = list(zip(self.layers, offsets, strict=True))
        sweeps = 8 if len(middle) < 1500 else 4
        for _ in range(sweeps):
            for layer, row in rows:
                _settle(layer, row, middle, before)
            for layer, row in reversed(rows):
                _settle(layer, row, middle, after)
        both = {vertex: before[vertex] + after[vertex] for vertex in middle}
        for layer, row in [*rows, *reversed(rows)]:
            _settle(layer, row, middle, both)
        top = min(middle[vertex] - self._height(vertex) // 2 for vertex in middle)
        return {vertex: round(y - top) for vertex, y in middle.items()}

    def _offsets(self, layer: Sequence[int]) -> list[float]:
        """How far below the first of its layer each vertex stands at the least."""
        offsets, total = [0.0], 0.0
        for above, below in itertools.pairwise(layer):
            boxes = above < len(self.nodes) and below < len(self.nodes)
            total += (self._height(above) + self._height(below)) / 2 + (GAP if boxes else LANE)
            offsets.append(total)
        return offsets

    def _columns(self, labels: Mapping[tuple[str, str], float]) -> tuple[list[int], list[int]]:
        """Where each layer begins and ends."""
        lefts, rights, left = list[int](), list[int](), 0
        gaps = [float(LAYER_GAP)] * len(self.layers)
        for pair, chain in zip(self.pairs, self.chains, strict=True):
            depth = self.layer_of[chain[0]]
            gaps[depth] = max(gaps[depth], labels[pair] + 48 if labels.get(pair) else 0)
            # A steep arrow in a narrow gap is hard to follow.
            rises = (abs(self.middle[a] - self.middle[b]) for a, b in itertools.pairwise(chain))
            for passed, rise in enumerate(rises):
                gaps[depth + passed] = max(gaps[depth + passed], min(120.0, rise / 6))
        for layer, gap in zip(self.layers, gaps, strict=True):
            lefts.append(left)
            rights.append(left + max((self.nodes[v].width for v in layer if v < len(self.nodes)), default=0))
            left = rights[-1] + _whole(gap)
        return lefts, rights

    @property
    def width(self) -> int:
        return self.rights[-1]

    @property
    def height(self) -> int:
        return max(y + -(-self._height(vertex) // 2) for vertex, y in self.middle.items())

    def move(self, x: int, y: int) -> None:
        """Put its top left corner there."""
        self.x, self.y = x, y

    def places(self) -> dict[str, Place]:
        """Its boxes, layer after layer and from the top downward."""
        found = {}
        for depth, layer in enumerate(self.layers):
            for vertex in layer:
                if vertex < len(self.nodes):
                    node = self.nodes[vertex]
                    top = self.y + self.middle[vertex] - node.height // 2
                    found[node.key] = Place(self.x + self.lefts[depth], top, node.width, node.height, depth)
        return found

    def routes(self) -> dict[tuple[str, str], Route]:
        """Its arrows, by the keys of their ends."""
        return {pair: self._route(chain) for pair, chain in zip(self.pairs, self.chains, strict=True)}

    def _route(self, chain: Sequence[int]) -> Route:
        source, depth = chain[0], self.layer_of[chain[0]]
        y = self.y + self.middle[source]
        path = [f"M{self.x + self.lefts[depth] + self.nodes[source].width:g} {y:g}"]
        start = x = self.x + self.rights[depth]
        if self.nodes[source].width < x - self.x - self.lefts[depth]:
            path.append(f"H{x:g}")
        first = self.x + self.lefts[depth + 1], self.y + self.middle[chain[1]]
        for vertex in chain[1:]:
            depth += 1
            left, below = self.x + self.lefts[depth], self.y + self.middle[vertex]
            if below == y:
                path.append(f"H{left:g}")
            else:
                bend = (x + left) / 2
                path.append(f"C{bend:g} {y:g} {bend:g} {below:g} {left:g} {below:g}")
            x, y = left, below
            if vertex >= len(self.nodes):
                x = self.x + self.rights[depth]
                path.append(f"H{x:g}")
        middle = self.y + self.middle[source]
        return Route("".join(path), (start + first[0]) / 2, (middle + first[1]) / 2)


def _ordered(layer_of: Mapping[int, int], segments: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The vertices of each layer from the top downward, so that few of the steps between layers cross."""
    led_to = {target for _source, target in segments}
    # The library counts layers from where a way begins, so ways that begin late get a lead.
    lead: list[tuple[int, int]] = []
    for vertex, layer in layer_of.items():
        if layer and vertex not in led_to:
            first = len(layer_of) + len(lead)
            way = [*range(first, first + layer), vertex]
            lead += itertools.pairwise(way)
    positions, *_ = fast_sugiyama.from_edges(
        [*segments, *lead],
        vertex_spacing=1,
        dummy_vertices=False,
        ranking_type="up",
        crossing_minimization="barycenter",
        transpose=len(segments) + len(lead) <= _THOROUGH,
    )[0]
    across = {int(vertex): place for vertex, (place, _along) in positions}
    layers: list[list[int]] = [[] for _ in range(max(layer_of.values()) + 1)]
    for vertex in sorted(layer_of, key=lambda vertex: (across[vertex], vertex)):
        layers[layer_of[vertex]].append(vertex)
    # Upside down it is as good; the way round is taken that agrees with the order of the keys.
    falls = sum(a < b or -1 for layer in layers for a, b in itertools.pairwise(layer))
    return layers if falls >= 0 else [layer[::-1] for layer in layers]


def _settle(
    layer: Sequence[int],
    offsets: Sequence[float],
    middle: dict[int, float],
    neighbours: Mapping[int, Sequence[tuple[int, float]]],
) -> None:
    """Move a layer as near as its order allows to the middle of its neighbours, each by its pull."""
    # Blocks of vertices that touch: where the first would stand, what they weigh, how many they are.
    blocks: list[tuple[float, float, int]] = []
    for vertex, offset in zip(layer, offsets, strict=True):
        pulls = neighbours[vertex]
        if pulls:
            weight = sum(pull for _, pull in pulls)
            wish = sum(middle[other] * pull for other, pull in pulls) / weight
        else:
            weight, wish = 0.01, middle[vertex]
        place, size = wish - offset, 1
        while blocks and blocks[-1][0] > place:
            above, heavy, many = blocks.pop()
            place = (above * heavy + place * weight) / (heavy + weight)
            weight, size = weight + heavy, size + many
        blocks.append((place, weight, size))
    at = 0
    for place, _weight, size in blocks:
        for index in range(at, at + size):
            middle[layer[index]] = place + offsets[index]
        at += size


# --- what no arrow touches -------------------------------------------------------------------------


def _grid(nodes: Sequence[Node], width: int, top: int) -> tuple[dict[str, Place], int, int]:
    """Isolated nodes row by row, under a drawing of `width`; with the width and height of the grid."""
    if not nodes:
        return {}, 0, 0
    ordered = sorted(nodes, key=lambda node: node.key)
    column = max(node.width for node in ordered) + GAP
    row = max(node.height for node in ordered) + GAP
    # Under a narrow drawing, or none, the grid is about twice as wide as it is high.
    wanted = max(width, (_ASPECT * column * row * len(ordered)) ** 0.5)
    across = max(1, min(len(ordered), int((wanted + GAP) // column)))
    places = {
        node.key: Place(
            MARGIN + index % across * column,
            top + index // across * row,
            node.width,
            node.height,
            index % across,
        )
        for index, node in enumerate(ordered)
    }
    return places, across * column - GAP, -(-len(ordered) // across) * row - GAP


def _whole(length: float) -> int:
    return int(-(-length // 1))
