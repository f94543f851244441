"""What a workflow's DAG means: which node starts when, which is passed over, and how it all ended.

Pure: nodes are known by their keys, states are the values of `states.NodeRunState`. An edge is *satisfied* or
*dead* once its source ended; a node joins its edges:

- *all*: it starts when every edge is satisfied, and is passed over as soon as one is dead;
- *any*: it starts when one edge is satisfied, and is passed over when all are dead.

A node that is passed over has ended too: of its own edges only those with the condition *always* are satisfied.
A node without edges starts at once. In a partial rerun the nodes that were not chosen are carried: what they
left behind is given, so their edges count for nothing (`without`): a chosen node waits for chosen ones only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import rustworkx


class Condition(StrEnum):
    """When an edge lets its target run."""

    SUCCESS = "success"
    FAILURE = "failure"
    ALWAYS = "always"
    RESULT = "result"


class Join(StrEnum):
    """How many of its edges a node needs."""

    ALL = "all"
    ANY = "any"


class Decision(StrEnum):
    """What becomes of a node that has not begun."""

    WAIT = "wait"
    START = "start"
    PASS_OVER = "pass_over"  # noqa: S105 - no password


SUCCESS = "success"
PASSED_OVER = "condition_not_met"
# A node that was stopped, or never begun because its cycle was, did not do its work either.
FAILURES = frozenset({"failed", "timed_out", "terminated", "cancelled"})


@dataclass(frozen=True)
class Ended:
    """How a node ended, and what its job returned (None when nothing needs it)."""

    state: str
    result: Any = None


@dataclass(frozen=True)
class Edge:
    """`target` may run when `source` ended as `condition` says; `expected` is for the condition *result*."""

    source: str
    target: str
    condition: Condition = Condition.SUCCESS
    expected: Any = None

    def holds(self, source: Ended) -> bool:
        """Whether the edge is satisfied by a source that ended so; False is dead."""
        match self.condition:
            case Condition.SUCCESS:
                return source.state == SUCCESS
            case Condition.FAILURE:
                return source.state in FAILURES
            case Condition.RESULT:
                return source.state == SUCCESS and matches(source.result, self.expected)
            case _:
                return True


def matches(result: Any, expected: Any) -> bool:
    """Whether a job's result is what an edge expects: equal, but that a map may hold more than is expected.

    >>> matches({"rows": 0, "late": True}, {"late": True})
    True
    """
    if isinstance(expected, Mapping) and isinstance(result, Mapping):
        return all(key in result and matches(result[key], value) for key, value in expected.items())
    if isinstance(expected, list) and isinstance(result, list):
        return len(result) == len(expected) and all(map(matches, result, expected))
    # JSON tells true from 1, Python does not; 1 and 1.0 are one number to both.
    return isinstance(result, bool) == isinstance(expected, bool) and bool(result == expected)


class CycleFound(ValueError):
    """The edges lead in a circle; `path` begins and ends with the same key."""

    def __init__(self, path: list[str]) -> None:
        self.path = path
        super().__init__(" → ".join(path))


def refuse_cycles(keys: Collection[str], edges: Iterable[tuple[str, str]]) -> None:
    """Raise CycleFound with the path when `edges` (source, target) between `keys` lead in a circle."""
    names = list(keys)
    index = {key: number for number, key in enumerate(names)}
    graph: rustworkx.PyDiGraph[str, Any] = rustworkx.PyDiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from_no_data([(index[source], index[target]) for source, target in edges])
    found = rustworkx.digraph_find_cycle(graph)
    if found:
        path = [names[source] for source, _target in found]
        raise CycleFound([*path, path[0]])


@dataclass(frozen=True)
class Graph:
    """The nodes of one revision in the order of its definition, with their joins, and its edges."""

    joins: Mapping[str, Join]
    edges: tuple[Edge, ...] = ()
    core: frozenset[str] = field(default_factory=frozenset)
    """The nodes that decide the result; empty: all of them."""

    @cached_property
    def incoming(self) -> Mapping[str, tuple[Edge, ...]]:
        return _by(self.joins, self.edges, lambda edge: edge.target)

    @cached_property
    def outgoing(self) -> Mapping[str, tuple[Edge, ...]]:
        return _by(self.joins, self.edges, lambda edge: edge.source)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The keys, each after all that it waits for; raises CycleFound."""
        refuse_cycles(self.joins, [(edge.source, edge.target) for edge in self.edges])
        left = {key: len(self.incoming[key]) for key in self.joins}
        ready = [key for key in self.joins if not left[key]]
        found: list[str] = []
        while ready:
            key = ready.pop(0)
            found.append(key)
            for edge in self.outgoing[key]:
                left[edge.target] -= 1
                if not left[edge.target]:
                    ready.append(edge.target)
        return tuple(found)

    def without(self, carried: Collection[str]) -> Graph:
        """The graph in which what `carried` nodes left behind is given: their edges are gone."""
        if not carried:
            return self
        kept = tuple(edge for edge in self.edges if edge.source not in carried and edge.target not in carried)
        return Graph(self.joins, kept, self.core)

    def descendants(self, keys: Iterable[str]) -> frozenset[str]:
        """Everything that comes after any of `keys`, without them."""
        found: set[str] = set()
        wanted = set(keys)
        heap = list(wanted)
        while heap:
            for edge in self.outgoing[heap.pop()]:
                if edge.target not in found:
                    found.add(edge.target)
                    heap.append(edge.target)
        return frozenset(found - wanted)

    def decide(self, key: str, ended: Mapping[str, Ended]) -> Decision:
        """What becomes of the node `key`, which has not begun, given the sources that have `ended`."""
        edges = self.incoming[key]
        if not edges:
            return Decision.START
        known = [edge.holds(ended[edge.source]) for edge in edges if edge.source in ended]
        decisive = self.joins[key] == Join.ANY
        if decisive in known:
            return Decision.START if decisive else Decision.PASS_OVER
        if len(known) < len(edges):
            return Decision.WAIT
        return Decision.PASS_OVER if decisive else Decision.START

    def settles(self, edge: Edge, source: Ended) -> bool:
        """Whether the end of `source` alone decides what becomes of the edge's target."""
        return edge.holds(source) == (self.joins[edge.target] == Join.ANY)

    def failures(self, ended: Mapping[str, Ended]) -> Iterator[str]:
        """The core nodes that keep the whole from being a success, in the order of the definition.

        Those that failed, and those that were passed over although, as their sources now stand, they should
        have run: the carried ones of a rerun that began before them.
        """
        for key in self.joins:
            if self.core and key not in self.core:
                continue
            state = ended[key].state
            left_out = state == PASSED_OVER and self.decide(key, ended) == Decision.START
            if state in FAILURES or left_out:
                yield key


def _by(keys: Iterable[str], edges: Iterable[Edge], end: Any) -> Mapping[str, tuple[Edge, ...]]:
    found: dict[str, list[Edge]] = {key: [] for key in keys}
    for edge in edges:
        found[end(edge)].append(edge)
    return {key: tuple(those) for key, those in found.items()}
