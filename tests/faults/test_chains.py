"""A chain runs from end to start in one worker, and holds up nobody who wants the node to end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from scheduling.models import Execution, Instance
from tests import factories as make
from tests.faults.cluster import cluster
from tests.processes import eventually

LINKS = 150


@pytest.mark.django_db(transaction=True)
def test_a_node_asked_to_end_does_so_in_the_middle_of_a_chain_and_the_next_goes_on(tmp_path: Path) -> None:
    with cluster(tmp_path) as running:
        running.start_node("n1", workers=1)
        make.task(
            "link",
            group=running.group,
            kind="python",
            spec={"call": "effect"},
            parameters={"seconds": 0.05},
        )
        keys = [f"n{number}" for number in range(LINKS)]
        nodes = [
            {"key": key, "task": "link", "after": keys[number - 1 : number] if number else []}
            for number, key in enumerate(keys)
        ]
        cycle = make.cycle(make.workflow(group=running.group, nodes=nodes))
        eventually(lambda: len(running.effects()) > 10, within=20, log=running.log)
        running.processes["n1"].terminate()
        running.processes["n1"].wait(8)
        done = len(running.effects())
        assert done < LINKS
        left = Instance.objects.filter(ended_at__isnull=True)
        assert Counter(left.values_list("state", "claimed")) == {("waiting", False): 1}

        running.start_node("n2", workers=2)
        eventually(lambda: make.fresh(cycle).is_finished, within=40, log=running.log)
        assert make.fresh(cycle).state == "success"
        assert len(running.effects()) == LINKS
        assert Counter(Execution.objects.values_list("outcome", "cause")) == {("success", "trigger"): LINKS}
