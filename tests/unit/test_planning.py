"""Waves, contracted dependencies and schedules, against drawings worked out by hand and a slow reference.

In the drawings an arrow leads from an upstream cycle to what waits for it; chosen cycles are in CAPITALS.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reruns import planning
from reruns.planning import CycleGraph, Schedule, TooManyDependencies


class Drawn:
    """A graph from chains such as "A > b > C": letters in the order in which they are first named."""

    def __init__(self, *chains: str) -> None:
        links = [[each.strip() for each in chain.split(">")] for chain in chains]
        self.names = list(dict.fromkeys(itertools.chain.from_iterable(links)))
        self.number = {name: at for at, name in enumerate(self.names)}
        edges = {pair for chain in links for pair in itertools.pairwise(chain)}
        self.graph = CycleGraph.of(
            len(self.names), [(self.number[up], self.number[down]) for up, down in sorted(edges)]
        )
        self.chosen = {self.number[name] for name in self.names if name.isupper()}

    def waves(self) -> dict[str, int]:
        return self.named(planning.waves(self.graph, self.chosen))

    def waits_for(self, **options: int) -> dict[str, str]:
        found = planning.contract(self.graph, self.chosen, **options)
        return {
            self.names[at]: "".join(sorted(self.names[up] for up in upstreams))
            for at, upstreams in found.items()
        }

    def seconds(self, **given: float) -> dict[int, float]:
        return {at: given.get(self.names[at], 1.0) for at in self.chosen}

    def longest(self, **given: float) -> tuple[float, str]:
        total, path = planning.longest_path(self.graph, self.seconds(**given))
        return total, "".join(self.names[at] for at in path)

    def simulate(self, *, limit: int = 0, lanes: str = "", room: int = 0, **given: float) -> Schedule:
        """Those of `lanes` share one workflow that runs `room` at once."""
        return planning.simulate(
            self.graph,
            self.seconds(**given),
            limit=limit,
            lanes=[7 if name in lanes else 0 for name in self.names],
            room={7: room},
        )

    def starts(self, **options: Any) -> dict[str, float]:
        return self.named(self.simulate(**options).starts)

    def named(self, found: Mapping[int, Any]) -> dict[str, Any]:
        return {self.names[at]: value for at, value in found.items()}


# --- worked out by hand --------------------------------------------------------------------------------


def test_a_chain_is_a_wave_each() -> None:
    """
    A ──► B ──► C
    """
    drawn = Drawn("A > B > C")

    assert drawn.waves() == {"A": 1, "B": 2, "C": 3}
    assert drawn.waits_for() == {"A": "", "B": "A", "C": "B"}
    assert drawn.longest() == (3, "ABC")


def test_what_is_not_chosen_is_passed_through() -> None:
    """
    A ──► b ──► c ──► D
    """
    drawn = Drawn("A > b > c > D")

    assert drawn.waves() == {"A": 1, "D": 2}
    assert drawn.waits_for() == {"A": "", "D": "A"}
    assert drawn.longest() == (2, "AD")
    assert drawn.starts() == {"A": 0, "D": 1}


def test_a_diamond_waits_for_both_sides() -> None:
    """
        ┌─► B ─┐
    A ──┤      ├──► D
        └─► c ─┘
    """
    drawn = Drawn("A > B > D", "A > c > D")

    # D reaches A through c, which nobody reruns, so it waits for A itself too.
    assert drawn.waits_for() == {"A": "", "B": "A", "D": "AB"}
    assert drawn.waves() == {"A": 1, "B": 2, "D": 3}


def test_a_chosen_cycle_is_not_looked_through() -> None:
    """
    A ──► B ──► C        C waits for B alone: B has waited for A
    """
    assert Drawn("A > B > C").waits_for()["C"] == "B"


def test_two_sources_of_a_wave_beside_the_ones_that_nobody_chose() -> None:
    """
    A ──► b ──┐
              ├──► e ──► F
    C ──► d ──┘          ▲
    g ───────────────────┘
    """
    drawn = Drawn("A > b > e > F", "C > d > e", "g > F")

    assert drawn.waits_for() == {"A": "", "C": "", "F": "AC"}
    assert drawn.waves() == {"A": 1, "C": 1, "F": 2}


def test_the_wave_is_one_after_the_last_that_it_waits_for() -> None:
    """
    A ──► B ──► C ──► D
    │                 ▲
    └─────────────────┘
    """
    assert Drawn("A > B > C > D", "A > D").waves() == {"A": 1, "B": 2, "C": 3, "D": 4}


def test_the_longest_path_is_of_time_not_of_instances() -> None:
    """
        ┌─► B ──► C ─┐
    A ──┤            ├──► E          B and C take 1 s, D takes 9
        └─► D ───────┘
    """
    drawn = Drawn("A > B > C > E", "A > D > E")

    assert drawn.longest(D=9) == (11, "ADE")
    assert drawn.longest(D=0.5) == (4, "ABCE")


def test_instances_that_take_no_time_are_on_the_path_too() -> None:
    """
    A ──► B            nobody knows how long they take
    """
    assert Drawn("A > B").longest(A=0, B=0) == (0, "A")
    assert Drawn("A > B").longest(A=0, B=3) == (3, "AB")


def test_nothing_chosen_takes_no_time() -> None:
    drawn = Drawn("a > b")

    assert (drawn.waves(), drawn.waits_for(), drawn.longest()) == ({}, {}, (0, ""))
    assert drawn.simulate() == Schedule({}, {}, 0)


def test_no_more_than_the_limit_run_at_once() -> None:
    """
        ┌─► B
    A ──┼─► C          two at once, each takes 10 s
        ├─► D
        └─► E
    """
    drawn = Drawn("A > B", "A > C", "A > D", "A > E")
    ten = dict.fromkeys("ABCDE", 10.0)

    assert drawn.starts(**ten) == {"A": 0, "B": 10, "C": 10, "D": 10, "E": 10}
    assert drawn.starts(limit=2, **ten) == {"A": 0, "B": 10, "C": 10, "D": 20, "E": 20}
    assert drawn.simulate(limit=2, **ten).total == 30
    assert drawn.simulate(limit=1, **ten).total == 50


def test_the_earlier_wave_has_its_turn_first() -> None:
    """
    A ──► D            one at once: B and C are of the first wave too, D is of the second
    B
    C
    """
    drawn = Drawn("A > D", "B", "C")

    assert drawn.starts(limit=1) == {"A": 0, "B": 1, "C": 2, "D": 3}


def test_a_workflow_runs_as_many_cycles_at_once_as_it_lets() -> None:
    """
    A   B   C          of one workflow, which runs one cycle at once
    D                  of another
    """
    drawn = Drawn("A", "B", "C", "D")

    assert drawn.starts(lanes="ABC", room=1) == {"A": 0, "B": 1, "C": 2, "D": 0}
    assert drawn.starts(lanes="ABC", room=2) == {"A": 0, "B": 0, "C": 1, "D": 0}


def test_what_waits_for_room_in_its_workflow_counts_against_the_limit() -> None:
    """
    A   B              of one workflow, which runs one cycle at once
    C                  of another; two at once: A and B are generated first, so C waits for A's end
    """
    assert Drawn("A", "B", "C").starts(limit=2, lanes="AB", room=1) == {"A": 0, "B": 1, "C": 1}


def test_an_hour_of_many_joins_in_a_day() -> None:
    """
    A ─► B ─► … (24 hours, each after the one before) ─┐
                                                       ├─► day ─► REPORT
    every hour ────────────────────────────────────────┘
    """
    hours = [f"H{number}" for number in range(24)]
    drawn = Drawn(" > ".join(hours), *(f"{hour} > day > REPORT" for hour in hours))
    found = planning.contract(drawn.graph, drawn.chosen)

    assert found[drawn.number["REPORT"]] == {drawn.number[hour] for hour in hours}
    assert drawn.waves()["REPORT"] == 25


def test_circles_of_the_past_are_cut_where_they_go_back() -> None:
    """
    A ──► B ──► C
    ▲           │      an edit turned a dependency round; C comes later than A
    └───────────┘
    """
    drawn = Drawn("A > B > C", "C > A")

    assert drawn.waits_for() == {"A": "", "B": "A", "C": "B"}


def test_what_is_below_a_cycle_comes_in_the_order_of_the_graph() -> None:
    """
    a ──► b ──► d
    └───► c ────┘      and e beside them
    """
    drawn = Drawn("a > b > d", "a > c > d", "e")

    assert [drawn.names[at] for at in drawn.graph.below(drawn.number["a"])] == ["b", "c", "d"]
    assert drawn.graph.below(drawn.number["d"]) == []


# --- far too many --------------------------------------------------------------------------------------


def fan(size: int) -> tuple[CycleGraph, set[int]]:
    """`size` chosen cycles, all waited for by one that is not, and that by `size` chosen ones."""
    hub = size
    edges = [(each, hub) for each in range(size)] + [(hub, hub + 1 + each) for each in range(size)]
    return CycleGraph.of(2 * size + 1, edges), set(range(2 * size + 1)) - {hub}


def test_far_too_many_dependencies_are_refused_and_what_lies_between_is_named() -> None:
    """
    A ─┐      ┌─► C
       ├─► h ─┤            with thousands on either side: choose h
    B ─┘      └─► D
    """
    graph, chosen = fan(3000)

    with pytest.raises(TooManyDependencies) as refused:
        planning.contract(graph, chosen)
    assert refused.value.between == [3000]
    # Chosen itself, the hub is what they wait for.
    assert sum(map(len, planning.contract(graph, chosen | {3000}).values())) == 6000


def test_the_limit_is_of_dependencies() -> None:
    graph, chosen = fan(3)

    assert len(planning.contract(graph, chosen, most=12)) == 6
    with pytest.raises(TooManyDependencies):
        planning.contract(graph, chosen, most=11)


def test_a_long_chain_of_unchosen_cycles_hands_on_what_it_collects() -> None:
    """
    A1    A2    A3  …
    │     │     │
    ▼     ▼     ▼
    u1 ─► u2 ─► u3 ─ … ─► Z          20,000 of them: a set copied at every step would be 200 million entries
    """
    size = 20_000
    edges = [(each, size + each) for each in range(size)]
    edges += [(size + each, size + each + 1) for each in range(size)]
    graph = CycleGraph.of(2 * size + 1, edges)
    began = time.process_time()

    found = planning.contract(graph, {*range(size), 2 * size})

    assert found[2 * size] == set(range(size))
    assert time.process_time() - began < 5


# --- against a slow reference --------------------------------------------------------------------------


@st.composite
def selections(draw: st.DrawFn) -> tuple[int, set[tuple[int, int]], dict[int, float]]:
    """The size of a graph, its edges, and how long each chosen cycle takes."""
    size = draw(st.integers(1, 12))
    # An edge leads from an earlier to a later one in some order of all, so that there is no circle.
    order = draw(st.permutations(range(size)))
    pairs = [(order[up], order[down]) for up in range(size) for down in range(up + 1, size)]
    edges = draw(st.sets(st.sampled_from(pairs), max_size=25)) if pairs else set()
    chosen = draw(st.sets(st.integers(0, size - 1)))
    return size, edges, {each: float(draw(st.integers(0, 4))) for each in sorted(chosen)}


def reached(cycle: int, edges: set[tuple[int, int]], chosen: Mapping[int, float]) -> set[int]:
    """The chosen cycles upstream of one through none but unchosen ones, path by path."""
    found: set[int] = set()
    for up, down in edges:
        if down == cycle:
            found |= {up} if up in chosen else reached(up, edges, chosen)
    return found


@settings(max_examples=300, deadline=None)
@given(selections())
def test_everything_chosen_waits_for_all_that_it_reaches(given: Any) -> None:
    size, edges, chosen = given

    assert planning.contract(CycleGraph.of(size, edges), chosen) == {
        each: reached(each, edges, chosen) for each in chosen
    }


@settings(max_examples=300, deadline=None)
@given(selections())
def test_waves_and_the_longest_path_follow_from_who_waits_for_whom(given: Any) -> None:
    size, edges, chosen = given
    graph = CycleGraph.of(size, edges)
    waits = {each: reached(each, edges, chosen) for each in chosen}

    def wave(cycle: int) -> int:
        return 1 + max(map(wave, waits[cycle]), default=0)

    def ended(cycle: int) -> float:
        return chosen[cycle] + max(map(ended, waits[cycle]), default=0.0)

    assert planning.waves(graph, chosen) == {each: wave(each) for each in chosen}
    total, path = planning.longest_path(graph, chosen)
    assert total == max(map(ended, chosen), default=0.0)
    assert sum(chosen[each] for each in path) == total
    assert all(up in waits[down] for up, down in itertools.pairwise(path))


def looked_at_anew(
    waits: Mapping[int, set[int]],
    seconds: Mapping[int, float],
    wave: Mapping[int, int],
    limit: int,
    room: Mapping[int, int],
) -> dict[int, float]:
    """When each cycle starts, looking at all of them whenever one ends; odd and even ones have a lane each."""
    starts: dict[int, float] = {}
    generated: set[int] = set()
    now = 0.0

    def over() -> set[int]:
        return {each for each in starts if starts[each] + seconds[each] <= now}

    def begin() -> None:
        for lane in (0, 1):
            running = [each for each in starts if each % 2 == lane and each not in over()]
            space = room[lane] - len(running) if room[lane] else len(seconds)
            queue = sorted(each for each in generated - starts.keys() if each % 2 == lane)
            starts.update(dict.fromkeys(queue[: max(space, 0)], now))

    while len(starts) < len(seconds):
        # Room that an end makes is taken before anything more is generated.
        begin()
        turn = [each for each in seconds if each not in generated and waits[each] <= over()]
        for each in sorted(turn, key=lambda each: (wave[each], each)):
            if not limit or len(generated - over()) < limit:
                generated.add(each)
        begin()
        now = min((end for each in starts if (end := starts[each] + seconds[each]) > now), default=now)
    return starts


@settings(max_examples=300, deadline=None)
@given(selections(), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))
def test_a_schedule_is_what_comes_of_looking_at_everything_anew(
    given: Any, limit: int, first: int, second: int
) -> None:
    size, edges, chosen = given
    # What takes no time ends before it is seen to run, which the reference cannot tell.
    chosen = {each: seconds or 1.0 for each, seconds in chosen.items()}
    graph = CycleGraph.of(size, edges)
    waits = planning.contract(graph, chosen)
    room = {0: first, 1: second}

    found = planning.simulate(graph, chosen, limit=limit, lanes=[each % 2 for each in range(size)], room=room)

    assert found.starts == looked_at_anew(waits, chosen, planning.waves(graph, chosen), limit, room)
    assert found.ends == {each: found.starts[each] + chosen[each] for each in chosen}
    assert found.total == max(found.ends.values(), default=0.0)


def test_a_hundred_thousand_cycles_take_no_more_than_a_moment() -> None:
    size = 100_000
    chance = random.Random(1)
    edges = [(chance.randrange(max(0, each - 500), each), each) for each in range(1, size) for _ in range(2)]
    graph = CycleGraph.of(size, set(edges))
    began = time.process_time()

    schedule = planning.simulate(graph, dict.fromkeys(range(size), 1.0), limit=50)

    assert len(schedule.ends) == size
    assert time.process_time() - began < 10
