"""Laws of a workflow's DAG, and a reference that is slow and obvious, against graphs drawn at random."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.graph_support import FAILED, OK, Run
from workflows.graph import (
    FAILURES,
    PASSED_OVER,
    SUCCESS,
    Condition,
    CycleFound,
    Decision,
    Edge,
    Ended,
    Graph,
    Join,
    refuse_cycles,
)

# --- laws, and the reference -----------------------------------------------------------------------

HOW = [OK, OK, FAILED, Ended("timed_out"), Ended("terminated"), Ended("cancelled"), Ended(SUCCESS, 1)]


KEYS = tuple("abcdefgh")
EDGES = st.lists(
    st.tuples(
        st.integers(0, 7), st.integers(0, 7), st.sampled_from(list(Condition)), st.sampled_from([None, 1])
    ),
    max_size=14,
)
JOINS = st.lists(st.sampled_from(list(Join)), min_size=8, max_size=8)
OUTCOMES = st.lists(st.sampled_from(HOW), min_size=8, max_size=8).map(
    lambda drawn: dict(zip(KEYS, drawn, strict=True))
)
SOME = st.sets(st.sampled_from(KEYS))
ORDERS = st.integers(0, 2**32).map(random.Random)
thrifty = settings(max_examples=60, deadline=None)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Eight nodes, and edges that all lead the same way along some order of them: no circle."""
    keys = draw(st.permutations(KEYS))
    edges = [Edge(keys[min(a, b)], keys[max(a, b)], how, what) for a, b, how, what in draw(EDGES) if a != b]
    return Graph(dict(zip(KEYS, draw(JOINS), strict=True)), tuple(edges))


def reference(drawn: Graph, outcomes: dict[str, Ended]) -> dict[str, str]:
    """How all ends, by the sentences of the module alone: sweep over the nodes until nothing is open."""
    ended: dict[str, Ended] = {}
    while len(ended) < len(drawn.joins):
        for key, join in drawn.joins.items():
            edges = [edge for edge in drawn.edges if edge.target == key]
            if key in ended or any(edge.source not in ended for edge in edges):
                continue
            satisfied = [satisfies(edge, ended[edge.source]) for edge in edges]
            runs_ = not edges or (all(satisfied) if join == "all" else any(satisfied))
            ended[key] = outcomes[key] if runs_ else Ended("condition_not_met")
    return {key: ended[key].state for key in drawn.joins}


def satisfies(edge: Edge, source: Ended) -> bool:
    return {
        "success": source.state == "success",
        "failure": source.state not in ("success", "condition_not_met"),
        "result": source.state == "success" and source.result == edge.expected,
        "always": True,
    }[edge.condition]


@thrifty
@given(graphs(), OUTCOMES, ORDERS, ORDERS)
def test_every_run_ends_as_the_reference_in_whatever_order_its_nodes_end(drawn, outcomes, one, another):
    expected = reference(drawn, outcomes)
    for order in (one, another):
        made = Run(drawn, outcomes)
        assert made.to_the_end(order) == expected
        # Every node that was not passed over began, once.
        assert sorted(made.begun) == sorted(key for key in expected if expected[key] != PASSED_OVER)


@thrifty
@given(graphs(), OUTCOMES, ORDERS)
def test_no_node_starts_before_its_condition_holds_and_none_is_asked_in_vain(drawn, outcomes, order):
    made = Run(drawn, outcomes)
    while made.running:
        made.step(order.choice(made.running))
        for key in drawn.joins:
            edges, begun = drawn.incoming[key], key in made.running or key in made.ended
            known = [satisfies(edge, made.ended[edge.source]) for edge in edges if edge.source in made.ended]
            every = len(known) == len(edges)
            if key in made.running:
                # What it began by still holds: an edge that is satisfied never dies.
                assert not edges or (any(known) if drawn.joins[key] == Join.ANY else every and all(known))
            # Asking about the touched nodes only leaves none behind that could begin or be passed over.
            assert begun == (drawn.decide(key, made.ended) != Decision.WAIT)


@thrifty
@given(graphs(), OUTCOMES, ORDERS)
def test_a_decision_stands_however_much_more_ends(drawn, outcomes, order):
    """So that an end that is told twice, or late, changes nothing: joins fire once."""
    keys = list(drawn.joins)
    order.shuffle(keys)
    for key in keys:
        decisions = [
            drawn.decide(key, {each: outcomes[each] for each in keys[:number]})
            for number in range(len(keys) + 1)
        ]
        assert decisions[-1] != Decision.WAIT
        settled = [each for each in decisions if each != Decision.WAIT]
        assert len(set(settled)) == 1
        assert decisions == [Decision.WAIT] * (len(decisions) - len(settled)) + settled


@thrifty
@given(graphs(), OUTCOMES)
def test_an_end_that_settles_its_target_does_so_alone(drawn, outcomes):
    for source, target in {(edge.source, edge.target) for edge in drawn.edges}:
        alone = {source: outcomes[source]}
        edges = drawn.incoming[target]
        if any(drawn.settles(edge, outcomes[source]) for edge in edges if edge.source == source):
            assert drawn.decide(target, alone) != Decision.WAIT
        elif any(edge.source != source for edge in edges):
            assert drawn.decide(target, alone) == Decision.WAIT


@thrifty
@given(graphs(), SOME)
def test_order_and_descendants_agree_with_looking_at_every_path(drawn, chosen):
    place = {key: number for number, key in enumerate(drawn.order)}
    assert set(place) == set(drawn.joins)
    assert all(place[edge.source] < place[edge.target] for edge in drawn.edges)
    after = {key for key in drawn.joins if any(leads(drawn, each, key) for each in chosen)}
    assert drawn.descendants(chosen) == after - chosen


def leads(drawn: Graph, source: str, target: str) -> bool:
    steps = [edge.target for edge in drawn.edges if edge.source == source]
    return target in steps or any(leads(drawn, step, target) for step in steps)


@thrifty
@given(st.lists(st.tuples(st.sampled_from(KEYS[:6]), st.sampled_from(KEYS[:6])), max_size=8))
def test_a_circle_is_found_exactly_where_one_is_and_its_path_is_one(edges):
    reached = set(edges)
    for _ in KEYS:
        reached |= {(a, d) for a, b in reached for c, d in edges if b == c}
    if all(a != b for a, b in reached):
        refuse_cycles(KEYS, edges)
        return
    with pytest.raises(CycleFound) as refusal:
        refuse_cycles(KEYS, edges)
    path = refusal.value.path
    assert path[0] == path[-1]
    assert len(path) == len(set(path)) + 1
    assert set(pairwise(path)) <= set(edges)


@thrifty
@given(graphs(), OUTCOMES, SOME)
def test_a_rerun_of_chosen_nodes_runs_as_if_the_others_were_not_there(drawn, outcomes, carried):
    chosen = {key: join for key, join in drawn.joins.items() if key not in carried}
    alone = Graph(
        chosen, tuple(edge for edge in drawn.edges if edge.source in chosen and edge.target in chosen)
    )
    ended = Run(drawn.without(carried), outcomes).to_the_end()
    assert {key: ended[key] for key in chosen} == Run(alone, outcomes).to_the_end()


@thrifty
@given(graphs(), OUTCOMES, SOME)
def test_after_a_whole_run_the_failures_are_the_core_nodes_that_failed(drawn, outcomes, core):
    made = Run(Graph(drawn.joins, drawn.edges, frozenset(core)), outcomes)
    ended = made.to_the_end()
    failed = [key for key, state in ended.items() if state in FAILURES and (not core or key in core)]
    assert list(made.graph.failures(made.ended)) == failed
