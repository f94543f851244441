"""What a workflow's DAG means, against drawings worked out by hand and a reference that is slow and obvious.

In the drawings an arrow is an edge on success; `-failure->` and the like name another condition. A node joins
on all of its edges unless it is drawn `(any)`.
"""

from __future__ import annotations

import pytest

from tests.unit.graph_support import FAILED, OK, Run, graph
from workflows.graph import (
    FAILURES,
    PASSED_OVER,
    SUCCESS,
    CycleFound,
    Edge,
    Ended,
    Graph,
    matches,
    refuse_cycles,
)


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
