"""What the tests of a workflow's DAG share: graphs from a few lines, and a run as the engine makes it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from workflows.graph import (
    PASSED_OVER,
    SUCCESS,
    Condition,
    Decision,
    Edge,
    Ended,
    Graph,
    Join,
)

OK, FAILED = Ended(SUCCESS), Ended("failed")


def graph(*lines: str, core: str = "", anyhow: str = "", nodes: str = "") -> Graph:
    """A graph from lines such as `a -> b` and `a -failure-> b`; the nodes of `anyhow` join on any."""
    edges, keys = [], dict.fromkeys(nodes.split())
    for line in lines:
        source, arrow, target = line.split()
        condition, _, expected = arrow.strip("->").partition("=")
        keys |= dict.fromkeys((source, target))
        edges.append(
            Edge(source, target, Condition(condition or "success"), int(expected) if expected else None)
        )
    joins = {key: Join.ANY if key in anyhow.split() else Join.ALL for key in keys}
    return Graph(joins, tuple(edges), frozenset(core.split()))


# --- a run, as the engine makes it -----------------------------------------------------------------


@dataclass
class Run:
    """Ends one running node after the other, and asks only about the nodes that the end touches."""

    graph: Graph
    outcomes: dict[str, Ended]

    def __post_init__(self) -> None:
        self.ended: dict[str, Ended] = {}
        self.running: list[str] = []
        self.begun: list[str] = []
        for key in self.graph.joins:
            if not self.graph.incoming[key]:
                self.ask(key)

    def ask(self, key: str) -> None:
        if key in self.running or key in self.ended:
            return
        decision = self.graph.decide(key, self.ended)
        if decision == Decision.START:
            self.running.append(key)
            self.begun.append(key)
        elif decision == Decision.PASS_OVER:
            self.end(key, Ended(PASSED_OVER))

    def end(self, key: str, how: Ended) -> None:
        self.ended[key] = how
        for edge in self.graph.outgoing[key]:
            self.ask(edge.target)

    def step(self, key: str) -> None:
        self.running.remove(key)
        self.end(key, self.outcomes.get(key, OK))

    def to_the_end(self, order: random.Random | None = None) -> dict[str, str]:
        while self.running:
            self.step(order.choice(self.running) if order else self.running[0])
        return {key: self.ended[key].state for key in self.graph.joins}
