"""Everything is killed in the middle of a rerun of 300 instances: each ends right, and nothing is run twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from django.db import connection
from django.utils import timezone

from config import database
from reruns import services
from reruns.models import Rerun
from scheduling.models import Batch, Execution
from scheduling.states import Outcome
from tests.engine.rerun_picture import RerunPicture
from tests.engine.rerun_support import cycle
from tests.faults.cluster import Cluster, cluster
from tests.faults.test_cycle_kills import STUCK_SECONDS, kill, workflow
from tests.faults.test_database_restart import postmaster, reachable
from tests.processes import eventually
from workflows.models import CycleInstance, NodeRun

WORKFLOWS, CYCLES = 13, 25
FROZEN = 10


def poisoned(running: Cluster) -> tuple[CycleInstance, list[CycleInstance]]:
    """The source, and all instances with it: each waits for up to two of the workflow before.

    The first of the last workflow are not ready: their time has not come, and they are to be frozen.
    """
    chance = random.Random(11)
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    [source] = above = [cycle(workflow(running, "w0", seconds=0.05, nodes="extract > load"), now)]
    made = [source]
    for number in range(1, WORKFLOWS):
        of = workflow(running, f"w{number}", seconds=0.05, nodes="extract > load", parallelism=0)
        last = number == WORKFLOWS - 1
        above = [
            cycle(
                of,
                now - timedelta(hours=hour),
                "not_ready" if last and hour < FROZEN else "success",
                after=chance.sample(above, min(len(above), 2)),
                **({"due_at": now + timedelta(days=9)} if last else {}),
            )
            for hour in range(CYCLES)
        ]
        made += above
    return source, made


def ended_items(rerun: Rerun) -> int:
    return int(rerun.items.filter(state="success").count())


def until(rerun: Rerun, count: int, running: Cluster) -> None:
    eventually(lambda: ended_items(rerun) >= count, within=60, log=running.log)


def all_end(rerun: Rerun, running: Cluster) -> None:
    """Wait until the rerun has ended, and what it had frozen too; fail when nothing happens for too long."""
    seen, moved = -1, time.monotonic()
    while (
        not Rerun.objects.get(pk=rerun.pk).is_finished
        or CycleInstance.objects.filter(ended_at__isnull=True).exists()
    ):
        now = NodeRun.objects.filter(ended_at__isnull=False).count()
        if now != seen:
            seen, moved = now, time.monotonic()
        said = running.log.read_text(errors="replace")[-4000:]
        assert time.monotonic() < moved + STUCK_SECONDS, f"nothing moves any more\n{said}"
        time.sleep(0.05)


def test_everything_is_killed_in_the_middle_of_a_rerun_and_each_instance_ends_right(
    own_server: database.EmbeddedServer, tmp_path: Path
) -> None:
    with cluster(tmp_path) as running:
        running.start_node("n1")
        running.start_node("n2")
        running.start_scheduler("s1")
        source, chosen = poisoned(running)
        assert len(chosen) == 1 + (WORKFLOWS - 1) * CYCLES
        draft = services.plan(source, downstream="all", freeze_mode=True, parallelism=40)
        rerun = services.submit(draft, reason="killed all the time")
        assert rerun.items.count() == len(chosen)
        CycleInstance.objects.filter(state="not_ready").update(due=True)
        running.start_scheduler("s2")

        until(rerun, 20, running)
        for process in running.of("n1", "worker"):
            process.send_signal(signal.SIGKILL)
        until(rerun, 60, running)
        kill(running, "s1")
        kill(running, "n2")
        until(rerun, 100, running)
        server = postmaster(own_server)
        server.send_signal(signal.SIGQUIT)
        server.wait(30)
        connection.close()
        kill(running, "n1")
        own_server.start()
        eventually(reachable, within=30)
        running.start_node("n3")

        all_end(rerun, running)
        assert Rerun.objects.get(pk=rerun.pk).state == "success"
        all_agrees()
        nothing_doubled(running, rerun, len(chosen))
        connection.close()


def all_agrees() -> None:
    """What must hold of reruns and cycles; of what the test made up itself only what it is asked for."""
    picture = RerunPicture()
    picture.check_holders()
    for rerun in picture.reruns.values():
        picture.check_rerun(rerun, picture.of[rerun["id"]])
    for slot in picture.cycles.values():
        picture.check_cycle(slot)
    ran = [
        each for pk, each in picture.instances.items() if any(r["batch_id"] for r in picture.runs[pk].values())
    ]
    assert ran
    for instance in ran:
        picture.check_counters(instance)
        picture.check_nodes(instance)
        picture.check_end(instance)


def nothing_doubled(running: Cluster, rerun: Rerun, chosen: int) -> None:
    """Each cycle ran once more, each of its nodes once, and its jobs left a row for each success."""
    assert Counter(rerun.items.values_list("state", flat=True)) == {
        "success": chosen - FROZEN,
        "unfrozen": FROZEN,
    }
    again = CycleInstance.objects.filter(run_type="rerun")
    assert set(again.values_list("state", flat=True)) == {"success"}
    assert again.count() == again.values("cycle").distinct().count() == chosen - FROZEN
    assert set(CycleInstance.objects.filter(run_type="online").values_list("state", flat=True)) == {"success"}
    batches = Batch.objects.filter(trigger="workflow")
    assert set(batches.values_list("state", flat=True)) == {"success"}
    assert batches.count() == 2 * chosen
    executions = Execution.objects.all()
    assert not executions.live().exists()
    succeeded = executions.filter(outcome=Outcome.SUCCESS)
    assert succeeded.count() == 2 * chosen
    assert set(Counter(succeeded.values_list("instance_id", flat=True)).values()) == {1}
    rows = Counter(execution for execution, _instance in running.effects())
    assert max(rows.values()) == 1
    assert set(succeeded.values_list("pk", flat=True)) <= set(rows)
    # Whatever else left a row was killed before it could say so.
    others = executions.filter(pk__in=rows).exclude(outcome=Outcome.SUCCESS)
    assert set(others.values_list("outcome", flat=True)) <= {Outcome.LOST}
