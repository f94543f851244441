"""Flows as they are drawn: nothing overlaps, arrows end where they say, the same flow is the same drawing."""

from __future__ import annotations

import itertools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.folding import FAN, LIMIT, fold
from workflows.layout import Layout, Node, Place, lay_out

Edges = list[tuple[str, str]]


@st.composite
def flows(draw: st.DrawFn) -> tuple[list[Node], Edges]:
    """A DAG of boxes of several sizes, from isolated ones to three arrows each."""
    count = draw(st.integers(1, 24))
    chance = random.Random(draw(st.integers(0, 10**6)))
    numbers = range(count)
    edges = [
        sorted(chance.sample(numbers, 2)) for _ in range(draw(st.integers(0, 3 * count)) if count > 1 else 0)
    ]
    return (
        [Node(f"n{number:02}", *chance.choice([(160, 46), (90, 60)])) for number in numbers],
        [(f"n{source:02}", f"n{target:02}") for source, target in edges],
    )


def overlap(one: Place, other: Place) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def points(path: str) -> list[tuple[float, float]]:
    """The points that a path goes through, the bends' own included as (x, y) of the ends of its strokes."""
    found, y = list[tuple[float, float]](), 0.0
    for letter, text in re.findall(r"([MHC])([^MHC]+)", path):
        numbers = [float(number) for number in text.split()]
        y = y if letter == "H" else numbers[-1]
        found.append((numbers[0] if letter == "H" else numbers[-2], y))
    return found


def check(layout: Layout, nodes: list[Node], edges: Edges) -> None:
    places = list(layout.places.items())
    assert {key for key, _ in places} == {node.key for node in nodes}
    for number, (key, place) in enumerate(places):
        assert place.x >= 0
        assert place.y >= 0
        assert place.x + place.width <= layout.width
        assert place.y + place.height <= layout.height
        for other, elsewhere in places[number + 1 :]:
            assert not overlap(place, elsewhere), f"{key} and {other} overlap"
    for source, target in edges:
        begin, end = layout.places[source], layout.places[target]
        way = points(layout.routes[source, target].path)
        assert way[0] == (begin.x + begin.width, begin.y + begin.height // 2)
        assert way[-1] == (end.x, end.y + end.height // 2)
        assert begin.layer < end.layer


@settings(max_examples=60, deadline=None)
@given(flows(), st.randoms(use_true_random=False))
def test_no_boxes_overlap_every_arrow_ends_at_its_boxes_and_order_does_not_matter(
    flow: tuple[list[Node], Edges], chance: random.Random
) -> None:
    nodes, edges = flow
    layout = lay_out(nodes, edges)
    check(layout, nodes, edges)
    chance.shuffle(nodes)
    chance.shuffle(edges)
    again = lay_out(nodes, edges)
    assert list(again.places.items()) == list(layout.places.items())
    assert again.routes == layout.routes


@settings(max_examples=40, deadline=None)
@given(flows())
def test_no_arrow_passes_behind_a_box_that_it_has_nothing_to_do_with(flow: tuple[list[Node], Edges]) -> None:
    nodes, edges = flow
    layout = lay_out(nodes, edges)
    for pair, route in layout.routes.items():
        way = points(route.path)
        level = [(a, b) for a, b in itertools.pairwise(way) if a[1] == b[1]]
        for key, place in layout.places.items():
            if key in pair:
                continue
            for (left, y), (right, _) in level:
                inside = (
                    place.y < y < place.y + place.height and left < place.x + place.width and place.x < right
                )
                assert not inside, f"{pair} passes behind {key}"


def test_layers_go_from_left_to_right_and_the_keys_from_the_top_downward() -> None:
    nodes = [Node(key, 100, 40) for key in ("begin", "a", "b", "c", "end")]
    edges = [("begin", key) for key in "abc"] + [(key, "end") for key in "abc"]
    places = lay_out(nodes, edges).places
    assert list(places) == ["begin", "a", "b", "c", "end"]
    assert places["begin"].x < places["a"].x == places["b"].x == places["c"].x < places["end"].x
    assert places["begin"].y == places["b"].y == places["end"].y


def test_what_only_leads_to_a_late_step_stands_right_before_it() -> None:
    nodes = [Node(key, 100, 40) for key in "abcdxy"]
    edges = [("a", "b"), ("b", "c"), ("c", "d"), ("x", "y"), ("y", "d")]
    assert {key: place.layer for key, place in lay_out(nodes, edges).places.items()} == {
        "a": 0, "b": 1, "c": 2, "d": 3, "x": 1, "y": 2,
    }  # fmt: skip


def test_parts_that_nothing_connects_stand_one_below_another_and_lone_boxes_in_a_grid() -> None:
    nodes = [Node(f"n{number:02}", 100, 40) for number in range(30)]
    layout = lay_out(nodes, [("n00", "n01"), ("n01", "n02"), ("n03", "n04")])
    assert layout.places["n03"].y > layout.places["n00"].y + 40
    lone = [layout.places[f"n{number:02}"] for number in range(5, 30)]
    assert min(place.y for place in lone) > layout.places["n03"].y + 40
    assert 3 <= len({place.y for place in lone}) <= 12
    check(layout, nodes, [])


def test_a_gap_is_wide_enough_for_what_is_written_on_its_arrows() -> None:
    nodes = [Node("a", 100, 40), Node("b", 100, 40)]
    layout = lay_out(nodes, [("a", "b")], {("a", "b"): 180.0})
    assert layout.places["b"].x - layout.places["a"].x - 100 > 180
    route = layout.routes["a", "b"]
    assert layout.places["a"].x + 100 < route.label_x < layout.places["b"].x


def test_nothing_is_an_empty_drawing() -> None:
    layout = lay_out([], [])
    assert layout.places == layout.routes == {}
    assert layout.width == layout.height > 0


@pytest.mark.parametrize(
    ("keys", "edges", "said"),
    [
        (
            "abc",
            [("a", "b"), ("b", "c"), ("c", "a")],
            "a cycle: (a → b → c → a|b → c → a → b|c → a → b → c)",
        ),
        ("a", [("a", "b")], "ends at 'b', which is not one of its nodes"),
        ("aa", [], "two nodes of a flow have the same key"),
    ],
)
def test_what_cannot_be_drawn_is_refused(keys: str, edges: Edges, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lay_out([Node(key, 100, 40) for key in keys], edges)


def test_two_thousand_nodes_are_drawn() -> None:
    chance = random.Random(1)
    nodes = [Node(f"n{number:04}", 160, 46) for number in range(2000)]
    edges = [(f"n{chance.randrange(max(0, n - 40), n):04}", f"n{n:04}") for n in range(1, 2000)]
    layout = lay_out(nodes, edges)
    assert len(layout.places) == 2000
    assert len(layout.routes) == len(set(edges))


# --- folding ---------------------------------------------------------------------------------------


def contracted(shown: dict[str, str], edges: Edges) -> Edges:
    return sorted({(shown[a], shown[b]) for a, b in edges if shown[a] != shown[b]})


@settings(max_examples=60, deadline=None)
@given(flows(), st.integers(1, 30), st.randoms(use_true_random=False))
def test_folding_keeps_every_node_and_makes_no_cycle(
    flow: tuple[list[Node], Edges], limit: int, chance: random.Random
) -> None:
    nodes, edges = flow
    states = {node.key: chance.choice(["success", "waiting", "failed"]) for node in nodes}
    folded = fold(states, edges, limit=limit)
    assert set(folded.shown) == set(states)
    members = sorted(key for group in folded.groups.values() for key in group.members)
    assert members == sorted(key for key, box in folded.shown.items() if box in folded.groups)
    boxes = [Node(box, 100, 40) for box in set(folded.shown.values())]
    check(lay_out(boxes, contracted(folded.shown, edges)), boxes, contracted(folded.shown, edges))


def fan(width: int) -> tuple[dict[str, str], Edges]:
    loads = [f"load_{number:03}" for number in range(width)]
    states = {"begin": "success", "end": "waiting"} | dict.fromkeys(loads, "success")
    return states, [("begin", load) for load in loads] + [(load, "end") for load in loads]


def test_a_wide_fan_is_one_box_for_each_state_and_what_failed_stands_for_itself() -> None:
    states, edges = fan(100)
    states |= {"load_007": "failed", "load_008": "failed"} | {f"load_{n:03}": "waiting" for n in range(60, 100)}
    folded = fold(states, edges)
    assert sorted((len(group.members), group.states) for group in folded.groups.values()) == [
        (40, {"waiting": 40}),
        (58, {"success": 58}),
    ]
    assert folded.shown["load_007"] == "load_007"


def test_only_what_has_the_same_neighbours_on_both_sides_is_a_twin() -> None:
    states, edges = fan(40)
    states["other"] = "waiting"
    edges += [("load_039", "other"), ("load_038", "other")]
    (group,) = fold(states, edges).groups.values()
    assert len(group.members) == 38


def test_a_few_that_failed_stand_for_themselves_in_a_large_flow_too_and_many_do_not() -> None:
    states, edges = fan(100)
    for few, groups in ((8, [92]), (9, [9, 91])):
        failed = states | {f"load_{number:03}": "failed" for number in range(few)}
        folded = fold(failed, edges, limit=20)
        assert sorted(len(group.members) for group in folded.groups.values()) == groups


def test_a_small_flow_is_left_as_it_is() -> None:
    assert fold(*fan(FAN - 1)).groups == {}


def test_a_group_can_be_opened_by_any_of_its_nodes_and_what_is_chosen_is_never_folded() -> None:
    states, edges = fan(100)
    assert fold(states, edges, opened=["load_050"]).groups == {}
    folded = fold(states, edges, apart=["load_050"])
    assert folded.shown["load_050"] == "load_050"
    assert len(next(iter(folded.groups.values())).members) == 99


def test_long_chains_and_equal_chains_are_folded() -> None:
    states = {f"c{number:03}": "success" if number < 200 else "waiting" for number in range(400)}
    edges = [(f"c{number:03}", f"c{number + 1:03}") for number in range(399)]
    assert [len(group.members) for group in fold(states, edges).groups.values()] == [199, 199]

    pipes = {"begin": "success", "end": "success"} | {
        f"p{p:02}s{s}": "success" for p in range(60) for s in range(5)
    }
    edges = [(f"p{p:02}s{s}", f"p{p:02}s{s + 1}") for p in range(60) for s in range(4)]
    edges += [("begin", f"p{p:02}s0") for p in range(60)] + [(f"p{p:02}s4", "end") for p in range(60)]
    assert [len(group.members) for group in fold(pipes, edges).groups.values()] == [300]


def test_what_is_too_large_for_everything_else_is_drawn_in_bands() -> None:
    chance = random.Random(3)
    nodes = 2000
    states = {f"n{n:04}": chance.choice(["success", "waiting", "failed"]) for n in range(nodes)}
    edges = [
        (f"n{chance.randrange(max(0, n - 5), n):04}", f"n{n:04}") for n in range(1, nodes) for _ in range(2)
    ]
    folded = fold(states, edges)
    assert len(set(folded.shown.values())) <= LIMIT
    assert any(len(group.states) > 1 for group in folded.groups.values())
