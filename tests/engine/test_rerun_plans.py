from __future__ import annotations

from typing import Any

import pytest

from reruns import services
from reruns.plans import plan_of
from tests.engine.rerun_support import chain

pytestmark = pytest.mark.django_db


def names(candidates: Any) -> list[str]:
    return [each.workflow for each in candidates]


def test_everything_downstream_is_a_candidate() -> None:
    a, b, c = chain("a", "b", "c")
    rerun = services.plan(a, downstream="all")
    plan = plan_of(rerun)
    assert names(plan.candidates) == ["a", "b", "c"]
    assert [each.wave for each in plan.candidates] == [1, 2, 3]
    assert plan.dependencies == {a.cycle_id: set(), b.cycle_id: {a.cycle_id}, c.cycle_id: {b.cycle_id}}
    assert plan.drift == []
    print(plan)
    assert plan.summary.total_seconds == 180
