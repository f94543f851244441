"""Everything is killed in the middle of fifty running cycles: each ends right, and nothing is run twice."""

from __future__ import annotations

import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection

from config import database
from scheduling.models import Batch, Execution, Instance
from scheduling.states import Outcome
from tests import factories as make
from tests.engine.cycle_support import Picture
from tests.faults.cluster import Cluster, cluster, orphans_of
from tests.faults.test_database_restart import postmaster, reachable
from tests.processes import eventually
from workflows import services
from workflows.models import CycleInstance, NodeRun, Workflow

CYCLES = 50
# How long nothing at all may happen: a killed node is missed after 3 s, and a claim that it held runs out.
STUCK_SECONDS = 30


def workflow(running: Cluster, name: str, *, seconds: float = 0.1, nodes: str, **content: object) -> Workflow:
    """A workflow each of whose nodes works for `seconds` and leaves a row."""
    for task in ("extract", "clean", "check", "load", "alarm"):
        make.task(
            f"{name}-{task}",
            group=running.group,
            kind="python",
            spec={"call": "effect"},
            parameters={"seconds": seconds},
            retry_count=5,
        )
    given = make._nodes(nodes)
    for each in given:
        each["task"] = f"{name}-{each['key']}"
    return make.workflow(name, group=running.group, nodes=given, **content)


def ended_nodes() -> int:
    return NodeRun.objects.filter(ended_at__isnull=False).count()


def all_end(running: Cluster) -> None:
    """Wait until no cycle instance is unfinished; fail when nothing happens for too long."""
    seen, moved = ended_nodes(), time.monotonic()
    while CycleInstance.objects.filter(due=True, ended_at__isnull=True).exists():
        now = ended_nodes()
        if now != seen:
            seen, moved = now, time.monotonic()
        said = running.log.read_text(errors="replace")[-4000:]
        assert time.monotonic() < moved + STUCK_SECONDS, f"nothing moves any more\n{said}"
        time.sleep(0.05)


def kill(running: Cluster, name: str) -> None:
    """End a process and everything below it, at once and without a word."""
    process = running.processes[name]
    below = {each.pid for each in process.children(recursive=True)}
    process.send_signal(signal.SIGKILL)
    eventually(lambda: not orphans_of(below), within=20, log=running.log)


def test_everything_is_killed_in_the_middle_of_fifty_cycles_and_each_ends_right(
    own_server: database.EmbeddedServer, tmp_path: Path
) -> None:
    with cluster(tmp_path) as running:
        running.start_node("n1")
        running.start_node("n2")
        running.start_scheduler("s1")
        made = workflow(
            running,
            "daily",
            nodes="extract > clean, extract > check, clean > load, check > load, extract > alarm!",
            cron="0 * * * *",
            parallelism=0,
            starts_at=datetime.now(UTC) - timedelta(days=4),
        )
        until = datetime.now(UTC)
        found = services.backfill(made, since=until - timedelta(hours=CYCLES), until=until, parallelism=CYCLES)
        assert found.instances.filter(state="running").count() == CYCLES
        running.start_scheduler("s2")

        eventually(lambda: ended_nodes() > 20, within=30, log=running.log)
        for process in running.of("n1", "worker"):
            process.send_signal(signal.SIGKILL)
        eventually(lambda: ended_nodes() > 40, within=30, log=running.log)
        kill(running, "s1")
        kill(running, "n2")
        eventually(lambda: ended_nodes() > 70, within=30, log=running.log)
        server = postmaster(own_server)
        server.send_signal(signal.SIGQUIT)
        server.wait(30)
        connection.close()
        kill(running, "n1")
        own_server.start()
        eventually(reachable, within=30)
        running.start_node("n3")

        all_end(running)
        assert CycleInstance.objects.filter(state="success").count() == CYCLES
        found.refresh_from_db()
        assert found.state == "success"
        picture = Picture()
        picture.check()
        nothing_doubled(running)
        connection.close()


def nothing_doubled(running: Cluster) -> None:
    """Each node that ran has one batch, which succeeded once; jobs left a row for each success."""
    states = Counter(Batch.objects.filter(trigger="workflow").values_list("state", flat=True))
    assert states == {"success": 4 * CYCLES, "condition_not_met": CYCLES}
    assert Instance.objects.count() == Instance.objects.filter(state="success").count() == 4 * CYCLES
    executions = Execution.objects.all()
    assert not executions.live().exists()
    succeeded = executions.filter(outcome=Outcome.SUCCESS)
    assert set(Counter(succeeded.values_list("instance_id", flat=True)).values()) == {1}
    assert succeeded.count() == 4 * CYCLES
    rows = Counter(execution for execution, _instance in running.effects())
    assert max(rows.values()) == 1
    assert set(succeeded.values_list("pk", flat=True)) <= set(rows)
    # Whatever else left a row was killed before it could say so.
    others = executions.filter(pk__in=rows).exclude(outcome=Outcome.SUCCESS)
    assert set(others.values_list("outcome", flat=True)) <= {Outcome.LOST}


@pytest.mark.django_db(transaction=True)
def test_the_time_outs_of_a_node_and_of_a_cycle_end_the_process_that_runs(tmp_path: Path) -> None:
    with cluster(tmp_path) as running:
        running.start_node("n1")
        running.start_scheduler("s1")
        long = workflow(running, "long", seconds=600, nodes="extract > load, extract > alarm!", timeout=2)
        short = workflow(running, "short", seconds=0, nodes="extract")
        slow = make.workflow(
            "slow",
            group=running.group,
            nodes=[
                {"key": "extract", "task": "long-extract", "timeout": 2},
                {"key": "load", "task": "short-load", "after": ["extract"]},
                {"key": "alarm", "task": "short-alarm", "after": [{"node": "extract", "on": "failure"}]},
            ],
        )
        of_long, of_slow = make.cycle(long), make.cycle(slow)
        eventually(lambda: Execution.objects.live().count() == 2, within=30, log=running.log)
        eventually(lambda: make.fresh(of_long).is_finished, within=60, log=running.log)
        eventually(lambda: make.fresh(of_slow).is_finished, within=60, log=running.log)

        assert (make.fresh(of_long).state, make.fresh(of_slow).state) == ("failed", "failed")
        assert make.states(of_long) == {"extract": "terminated", "load": "cancelled", "alarm": "cancelled"}
        assert make.states(of_slow) == {
            "extract": "timed_out",
            "load": "condition_not_met",
            "alarm": "success",
        }
        assert not Execution.objects.live().exists()
        # Only the handler left a row: what ran too long never came to its end.
        assert len(running.effects()) == 1
        again = make.cycle(short)
        eventually(lambda: make.fresh(again).state == "success", within=60, log=running.log)
        Picture().check()
