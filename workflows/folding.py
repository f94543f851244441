"""Large flows made small enough to read: nodes that say the same are drawn as one box. No Django, no database.

A wide fan of *twins* – nodes with the same neighbours and the same state – is always one box. Beyond that,
three steps, each only if the drawing is still too large:

1. All twins become one box, and so do the links of a *chain* in the same state. Both leave the shape as it
   is; repeated, a fan of equal chains becomes one box.
2. Of each layer, nodes in the same state that stand near each other become one box: the flow seen from afar.
3. Layers that follow each other become one box, whatever the states in them.

What needs somebody's eye stays apart as long as there is little of it. No step makes a cycle: twins and
chains cannot, and an arrow never leads back to an earlier layer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import chain

# A drawing of so many nodes is read as it is.
LIMIT = 200
# Seen from afar, it is about so many boxes.
AFAR = 72
# So many twins are folded in a small flow too.
FAN = 24
# Fewer than these are drawn one by one.
FEWEST, FEWEST_TROUBLED = 3, 9
TROUBLED = frozenset({"failed", "timed_out", "lost", "terminating", "terminated", "running"})


@dataclass(frozen=True)
class Group:
    """Nodes that are drawn as one box: `key` names it as long as its first node is in it."""

    key: str
    members: tuple[str, ...]
    states: dict[str, int]
    """How many are in each state, most first."""


@dataclass(frozen=True)
class Folded:
    """`groups` by key; `shown`: for each node the key of the box that stands for it, itself or its group."""

    groups: dict[str, Group]
    shown: dict[str, str]


def fold(
    states: Mapping[str, str],
    edges: Iterable[tuple[str, str]],
    *,
    limit: int = LIMIT,
    fan: int = FAN,
    opened: Collection[str] = (),
    apart: Collection[str] = (),
) -> Folded:
    """Fold an acyclic flow of the nodes `states` (key to state) until about `limit` boxes are left.

    `opened`: keys of nodes whose group is drawn one by one; `apart`: keys of nodes that are folded only
    into bands, such as the one that is selected. A flow within `limit` is left as it is but for fans of `fan`
    twins and more. The edges' ends must be among the nodes.
    """
    folding = _Folding(states, sorted(set(edges)), frozenset(apart))
    if len(states) > limit:
        folding.by_likeness()
    else:
        folding.by_fan(fan)
    if folding.count > limit:
        folding.by_layer()
    if folding.count > limit:
        folding.by_band(limit)
    return folding.result(frozenset(opened))


class _Folding:
    """A flow in which boxes stand for nodes: at first each for itself, named by the first of its members."""

    def __init__(
        self, states: Mapping[str, str], edges: Sequence[tuple[str, str]], apart: frozenset[str]
    ) -> None:
        self.states, self.edges, self.apart = states, edges, apart
        self.members: dict[str, tuple[str, ...]] = {key: (key,) for key in sorted(states)}
        self.box_of = {key: key for key in states}
        self._connect()

    @property
    def count(self) -> int:
        return len(self.members)

    def _connect(self) -> None:
        self.before: dict[str, set[str]] = {box: set() for box in self.members}
        self.after: dict[str, set[str]] = {box: set() for box in self.members}
        for source, target in self.edges:
            first, second = self.box_of[source], self.box_of[target]
            if first != second:
                self.before[second].add(first)
                self.after[first].add(second)

    def _state(self, box: str) -> str:
        return self.states[self.members[box][0]]

    def _join(self, sets: Iterable[Sequence[str]], *, mixed: bool = False) -> bool:
        """Make one box of each of `sets` that is large enough; whether any was."""
        joined = False
        for boxes in sets:
            members = sorted(chain.from_iterable(self.members[box] for box in boxes))
            troubled = not mixed and self.states[members[0]] in TROUBLED
            if len(boxes) < 2 or len(members) < (FEWEST_TROUBLED if troubled else FEWEST):
                continue
            for box in boxes:
                del self.members[box]
            self.members[members[0]] = tuple(members)
            self.box_of |= dict.fromkeys(members, members[0])
            joined = True
        if joined:
            self._connect()
        return joined

    def _alike(self, likeness: Callable[[str], Hashable]) -> list[list[str]]:
        alike: dict[Hashable, list[str]] = defaultdict(list)
        for box in self.members:
            if box not in self.apart:
                alike[likeness(box)].append(box)
        return list(alike.values())

    # --- fans, and the three steps ---

    def by_fan(self, least: int) -> None:
        """Fold what has at least so many twins."""
        self._join(twins for twins in self._twins() if len(twins) >= least)

    def by_likeness(self) -> None:
        """Fold twins and chains until nothing more is alike."""
        while self._join(self._twins()) | self._join(self._chains()):
            pass

    def _twins(self) -> list[list[str]]:
        return self._alike(
            lambda box: (self._state(box), frozenset(self.before[box]), frozenset(self.after[box]))
        )

    def _chains(self) -> list[list[str]]:
        chains: list[list[str]] = []
        place: dict[str, list[str]] = {}
        for box in TopologicalSorter(self.before).static_order():
            before = self.before[box]
            link = len(before) == 1 and len(self.after[box]) == 1 and box not in self.apart
            if not link:
                continue
            (above,) = before
            if above in place and self._state(above) == self._state(box):
                place[box] = place[above]
            else:
                place[box] = []
                chains.append(place[box])
            place[box].append(box)
        return chains

    def by_layer(self) -> None:
        """Fold what is in the same state and near each other in the same layer, a few at a time."""
        depths, height = self._depths(), self._heights()
        size = -(-self.count // AFAR)
        rows = self._alike(lambda box: (depths[box], self._state(box)))
        for row in rows:
            row.sort(key=lambda box: (height[box], box))
        self._join(row[at : at + size] for row in rows for at in range(0, len(row), size))

    def _heights(self) -> dict[str, float]:
        """About how high each box will stand in its layer, as a share: near to what leads to it."""
        layers: dict[int, list[str]] = defaultdict(list)
        for box, depth in self._depths().items():
            layers[depth].append(box)
        height: dict[str, float] = {}
        for depth in sorted(layers):
            wish = {
                box: sum(height[above] for above in self.before[box]) / max(1, len(self.before[box]))
                for box in layers[depth]
            }
            ordered = sorted(layers[depth], key=lambda box: (wish[box], box))
            height |= {box: (place + 0.5) / len(ordered) for place, box in enumerate(ordered)}
        return height

    def by_band(self, limit: int) -> None:
        """Fold layers that follow each other into as few bands as `limit` asks for; `apart` goes with them."""
        depths = self._depths()
        layers = max(depths.values()) + 1
        bands = min(layers, max(1, limit))
        band: dict[int, list[str]] = defaultdict(list)
        for box in self.members:
            band[depths[box] * bands // layers].append(box)
        self._join(band.values(), mixed=True)

    def _depths(self) -> dict[str, int]:
        depths: dict[str, int] = {}
        for box in TopologicalSorter(self.before).static_order():
            depths[box] = max((depths[above] + 1 for above in self.before[box]), default=0)
        return depths

    def result(self, opened: frozenset[str]) -> Folded:
        groups = {}
        shown = {key: key for key in self.states}
        for members in self.members.values():
            if len(members) == 1 or not opened.isdisjoint(members):
                continue
            group = Group(f"fold-{members[0]}", members, self._count(members))
            groups[group.key] = group
            shown |= dict.fromkeys(members, group.key)
        return Folded(groups, shown)

    def _count(self, members: Iterable[str]) -> dict[str, int]:
        counted = Counter(self.states[key] for key in members)
        return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
