"""What a workflow's DAG means, against drawings worked out by hand and a reference that is slow and obvious.

In the drawings an arrow is an edge on success; `-failure->` and the like name another condition. A node joins
on all of its edges unless it is drawn `(any)`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    matches,
    refuse_cycles,
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


def states(drawn: Graph, **outcomes: Ended) -> dict[str, str]:
    return Run(drawn, outcomes).to_the_end()


def passed_over(drawn: Graph, **outcomes: Ended) -> set[str]:
    return {key for key, state in states(drawn, **outcomes).items() if state == PASSED_OVER}


# --- drawings --------------------------------------------------------------------------------------


def test_nodes_without_edges_start_at_once():
    """a   b   c"""
    assert Run(graph(nodes="a b c"), {}).running == ["a", "b", "c"]


def test_a_chain_runs_one_after_the_other():
    """a -> b -> c"""
    run = Run(graph("a -> b", "b -> c"), {})
    assert run.running == ["a"]
    run.step("a")
    assert run.running == ["b"]
    run.step("b")
    assert run.running == ["c"]
    assert run.to_the_end() == {"a": SUCCESS, "b": SUCCESS, "c": SUCCESS}


@pytest.mark.parametrize("state", sorted(FAILURES))
def test_whatever_is_no_success_passes_over_all_that_needs_it(state):
    """a -> b -> c"""
    assert passed_over(graph("a -> b", "b -> c"), a=Ended(state)) == {"b", "c"}


def test_a_join_on_all_waits_for_the_last():
    """
    a --.
    b ---> d
    c --'
    """
    run = Run(graph("a -> d", "b -> d", "c -> d"), {})
    for key in ("b", "c"):
        run.step(key)
        assert "d" not in run.begun
    run.step("a")
    assert run.begun[-1] == "d"


def test_a_join_on_all_is_passed_over_with_the_first_dead_edge_while_the_others_run():
    """
    a --.
    b ---> d -> e
    """
    run = Run(graph("a -> d", "b -> d", "d -> e"), {"a": FAILED})
    run.step("a")
    assert run.running == ["b"]
    assert run.ended["d"].state == run.ended["e"].state == PASSED_OVER
    assert run.to_the_end()["b"] == SUCCESS
    assert run.begun == ["a", "b"]


def test_a_join_on_any_starts_with_the_first_and_once():
    """
    a --.
    b ---> d (any)
    """
    run = Run(graph("a -> d", "b -> d", anyhow="d"), {})
    run.step("b")
    assert run.running == ["a", "d"]
    run.step("d")
    run.step("a")
    assert run.begun == ["a", "b", "d"]


def test_a_join_on_any_outlives_dead_edges_until_the_last():
    """
    a --.
    b ---> d (any)
    """
    drawn = graph("a -> d", "b -> d", anyhow="d")
    assert passed_over(drawn, a=FAILED) == set()
    assert passed_over(drawn, b=FAILED) == set()
    assert passed_over(drawn, a=FAILED, b=FAILED) == {"d"}


def test_a_failure_handler_runs_after_a_failure_only():
    """
    load -> publish
    load -failure-> alarm
    """
    drawn = graph("load -> publish", "load -failure-> alarm")
    assert passed_over(drawn) == {"alarm"}
    for state in FAILURES:
        assert passed_over(drawn, load=Ended(state)) == {"publish"}


def test_cleaning_up_comes_after_whatever_happened():
    """load -> check -always-> clean"""
    drawn = graph("load -> check", "check -always-> clean")
    assert passed_over(drawn) == set()
    assert passed_over(drawn, check=FAILED) == set()
    # Also after a node that was passed over itself.
    assert passed_over(drawn, load=FAILED) == {"check"}


def test_neither_success_nor_failure_nor_result_follows_a_node_that_was_passed_over():
    """
          .---------> c
    a -> b -failure-> d
          '-result=1-> e
    """
    drawn = graph("a -> b", "b -> c", "b -failure-> d", "b -result=1-> e")
    assert passed_over(drawn, a=FAILED) == {"b", "c", "d", "e"}


def test_the_result_of_a_job_chooses_the_branch():
    """
    count -result=0-> warn  --.
    count -result=1-> write ---> report (any)
    """
    drawn = graph(
        "count -result=0-> warn",
        "count -result=1-> write",
        "warn -> report",
        "write -> report",
        anyhow="report",
    )
    assert passed_over(drawn, count=Ended(SUCCESS, 0)) == {"write"}
    assert passed_over(drawn, count=Ended(SUCCESS, 1)) == {"warn"}
    assert passed_over(drawn, count=Ended(SUCCESS, 2)) == {"warn", "write", "report"}
    # A result that a failed job left behind is none.
    assert passed_over(drawn, count=Ended("failed", 1)) == {"warn", "write", "report"}


def test_branches_that_were_not_taken_meet_again():
    """
    a -> b ----------> d
     '-failure-> c --'
    """
    edges = ("a -> b", "a -failure-> c", "b -> d", "c -> d")
    assert passed_over(graph(*edges)) == {"c", "d"}
    assert passed_over(graph(*edges, anyhow="d")) == {"c"}
    assert passed_over(graph(*edges, anyhow="d"), a=FAILED) == {"b"}


def test_two_edges_between_two_nodes_are_two_conditions():
    """
    a -success-> b (any)
    a -failure-> b
    """
    assert passed_over(graph("a -> b", "a -failure-> b", anyhow="b"), a=FAILED) == set()
    assert passed_over(graph("a -> b", "a -failure-> b"), a=FAILED) == {"b"}


# --- the result ------------------------------------------------------------------------------------


def failures(drawn: Graph, **outcomes: Ended) -> list[str]:
    run = Run(drawn, outcomes)
    run.to_the_end()
    return list(drawn.failures(run.ended))


def test_every_node_decides_the_result_in_the_order_of_the_definition():
    """
    c -> d
    a -> b
    """
    drawn = graph("c -> d", "a -> b")
    assert failures(drawn) == []
    assert failures(drawn, a=FAILED, d=Ended("timed_out")) == ["d", "a"]


def test_a_branch_that_was_not_taken_is_no_failure():
    """
    load -> publish
    load -failure-> alarm
    """
    assert failures(graph("load -> publish", "load -failure-> alarm")) == []


def test_only_core_nodes_decide_where_there_are_any():
    """load* -> publish* -> mail"""
    drawn = graph("load -> publish", "publish -> mail", core="load publish")
    assert failures(drawn, mail=FAILED) == []
    assert failures(drawn, publish=FAILED) == ["publish"]


def test_a_failure_that_was_handled_counts_unless_the_core_leaves_it_out():
    """
    load -> publish
    load -failure-> retry -> publish (any)*
    """
    edges = ("load -> publish", "load -failure-> retry", "retry -> publish")
    assert failures(graph(*edges, anyhow="publish"), load=FAILED) == ["load"]
    assert failures(graph(*edges, anyhow="publish", core="publish"), load=FAILED) == []


def test_a_carried_node_that_was_passed_over_and_should_now_have_run_is_a_failure():
    """a -> b -> c: a failed, and is rerun alone: b should have run, and c waits for b."""
    drawn = graph("a -> b", "b -> c")
    ended = {"a": OK, "b": Ended(PASSED_OVER), "c": Ended(PASSED_OVER)}
    assert list(drawn.failures(ended)) == ["b"]
    assert list(drawn.failures(ended | {"a": FAILED})) == ["a"]


# --- what an edge expects of a result --------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "expected", "answer"),
    [
        (3, 3, True),
        (3.0, 3, True),
        (3, 4, False),
        ("3", 3, False),
        (True, True, True),
        (1, True, False),
        (True, 1, False),
        (0, False, False),
        (None, None, True),
        (None, False, False),
        ("late", "late", True),
        ({"rows": 0, "late": True}, {"late": True}, True),
        ({"rows": 0, "late": True}, {"late": 1}, False),
        ({"rows": 0}, {"late": True}, False),
        ({"rows": 0}, {}, True),
        ({"by": {"eu": 1, "us": 2}}, {"by": {"us": 2}}, True),
        ({"by": {"eu": 1}}, {"by": {"us": 2}}, False),
        ({"by": None}, {"by": {"us": 2}}, False),
        ([1, 2], [1, 2], True),
        ([1, 2], [1], False),
        ([1], [True], False),
        ([{"a": 1, "b": 2}], [{"a": 1}], True),
        ({"a": 1}, [("a", 1)], False),
    ],
)
def test_a_result_matches_what_is_equal_or_holds_all_that_is_expected(result, expected, answer):
    assert matches(result, expected) is answer


# --- circles, order, parts -------------------------------------------------------------------------


def test_a_circle_is_refused_with_its_path():
    """a -> b -> c -> b"""
    with pytest.raises(CycleFound) as refusal:
        refuse_cycles("abcd", [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")])
    assert refusal.value.path in (["b", "c", "b"], ["c", "b", "c"])
    assert str(refusal.value) in ("b → c → b", "c → b → c")


def test_a_node_that_waits_for_itself_is_a_circle():
    """a -> b -> b"""
    with pytest.raises(CycleFound) as refusal:
        refuse_cycles("ab", [("a", "b"), ("b", "b")])
    assert refusal.value.path == ["b", "b"]


def test_a_circle_away_from_the_first_node_is_found():
    """a    b -> c -> b"""
    with pytest.raises(CycleFound):
        _ = graph("b -> c", "c -> b", nodes="a b c").order


def test_the_order_keeps_the_definitions_where_the_edges_leave_it_open():
    """
    d -> b
    c    a
    """
    assert graph("d -> b", nodes="d c b a").order == ("d", "c", "a", "b")


def test_what_comes_after_some_nodes_is_without_them():
    """
    a -> b -> d
    c ------'    e
    """
    drawn = graph("a -> b", "b -> d", "c -> d", nodes="a b c d e")
    assert drawn.descendants(["a"]) == {"b", "d"}
    assert drawn.descendants(["a", "b"]) == {"d"}
    assert drawn.descendants(["d", "e"]) == drawn.descendants([]) == frozenset()


def test_chosen_nodes_wait_for_chosen_ones_only():
    """
    a -> b -> d -> e       chosen: a, d, e
    c ------'
    """
    drawn = graph("a -> b", "b -> d", "c -> d", "d -> e", core="d")
    part = drawn.without({"b", "c"})
    assert part.edges == (Edge("d", "e"),)
    assert part.core == drawn.core
    assert part.order == ("a", "b", "d", "c", "e")
    assert drawn.without(set()) is drawn


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
