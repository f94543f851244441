"""When a rerun that runs will end, reckoned from what is left of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reruns.forecast import remaining
from reruns.record_queries import Piece, Shape, Standing

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def shape(*seconds: float, edges: Any = ()) -> Shape:
    """Items 1, 2, … that take so long, all of one workflow; `edges` are pairs (upstream, item)."""
    pieces = [Piece(pk, f"item {pk}", 1, 1, pk, 1, False, each) for pk, each in enumerate(seconds, start=1)]
    ups: dict[int, list[int]] = {}
    downs: dict[int, list[int]] = {}
    for up, down in edges:
        ups.setdefault(down, []).append(up)
        downs.setdefault(up, []).append(down)
    return Shape(pieces, ups, downs, ())


def stands(*states: str, began: float = 0) -> dict[int, Standing]:
    begun = NOW - timedelta(seconds=began)
    return {pk: Standing(state, None, 0, "", begun) for pk, state in enumerate(states, start=1)}


@pytest.mark.parametrize(
    ("states", "options", "left"),
    [
        (("running", "waiting", "waiting"), {}, (260, 0)),
        (("success", "running", "waiting"), {}, (160, 0)),
        (("success", "success", "waiting"), {}, (100, 0)),
        (("success", "success", "success"), {}, (None, 0)),
        (("success", "failed", "waiting"), {}, (None, 1)),
        (("running", "waiting", "waiting"), {"pace": 2.0}, (560, 0)),
        (("running", "waiting", "waiting"), {"stopped": True}, (60, 0)),
    ],
)
def test_a_chain_ends_when_its_rest_has_run(states: Any, options: Any, left: Any) -> None:
    """1 → 2 → 3, each 100 s; what runs has run for 40 s."""
    chain = shape(100, 100, 100, edges=[(1, 2), (2, 3)])
    assert remaining(chain, stands(*states, began=40), NOW, **options) == left


def test_branches_run_beside_each_other_as_far_as_the_limit_lets_them() -> None:
    """1 is done, 2, 3 and 4 follow it."""
    fan = shape(10, 100, 100, 100, edges=[(1, 2), (1, 3), (1, 4)])
    waiting = stands("success", "waiting", "waiting", "waiting")
    assert remaining(fan, waiting, NOW) == (100, 0)
    assert remaining(fan, waiting, NOW, limit=2) == (200, 0)
    assert remaining(fan, waiting, NOW, room={1: 1}) == (300, 0)


def test_a_large_one_takes_its_longest_way_or_what_so_many_at_once_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1 is done; 2 > 3 takes 200 s, 4 and 5 take 100 s."""
    monkeypatch.setattr("reruns.forecast._SIMULATED", 1)
    some = shape(10, 100, 100, 100, 100, edges=[(1, 2), (2, 3), (1, 4), (1, 5)])
    waiting = stands("success", *["waiting"] * 4)
    assert remaining(some, waiting, NOW) == (200, 0)
    assert remaining(some, waiting, NOW, limit=1) == (400, 0)
    assert remaining(some, waiting, NOW, room={1: 1}) == (400, 0)


def test_what_waits_for_a_failed_one_is_not_reckoned_with() -> None:
    fork = shape(10, 100, 500, edges=[(1, 3)])
    assert remaining(fork, stands("failed", "running", "waiting"), NOW) == (100, 1)


def test_what_nobody_knows_is_not_guessed() -> None:
    assert remaining(shape(0, 0), stands("waiting", "waiting"), NOW) == (None, 0)
