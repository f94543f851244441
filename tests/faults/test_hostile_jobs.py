"""Jobs that do to their worker what no job should: each still ends, and the worker serves the next one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from scheduling import services
from scheduling.models import Batch, Execution
from scheduling.reasons import in_words
from scheduling.states import Outcome
from tests import factories
from tests.faults.cluster import Cluster, cluster
from tests.processes import eventually

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


def trigger(running: Cluster, call: str, **content: Any) -> Batch:
    task = factories.task(group=running.group, kind="python", spec={"call": call}, **content)
    return services.trigger(task, by="test")


def test_no_job_leaves_its_instance_running_or_its_worker_useless(running: Cluster) -> None:
    running.start_node("n1", workers=1)
    hostile = {
        call: trigger(running, call)
        for call in (
            *("undecodable", "cancelled", "exits_high", "exits_truly", "fails_oddly"),
            *("begins", "manual_commit", "half_atomic", "read_only"),
        )
    }
    hostile["deaf"] = trigger(running, "deaf", timeout=1)
    friendly = trigger(running, "noop")
    for batch in (*hostile.values(), friendly):
        running.ended(batch)
    ended = {call: batch.instances.get().state for call, batch in hostile.items()}
    assert ended == {
        "undecodable": "failed",
        "cancelled": "failed",
        "exits_high": "failed",
        "exits_truly": "failed",
        "fails_oddly": "failed",
        "begins": "success",
        "manual_commit": "success",
        "half_atomic": "success",
        "read_only": "success",
        "deaf": "timed_out",
    }
    assert friendly.instances.get().state == "success"
    assert not Execution.objects.filter(outcome=Outcome.LOST).exists()
    said = {call: batch.instances.get().executions.get() for call, batch in hostile.items()}
    assert said["undecodable"].error == "ValueError: a file called ?"
    assert (in_words(said["exits_high"].error), said["exits_high"].exit_code) == (
        "the job called sys.exit(100000)",
        None,
    )
    assert said["exits_truly"].exit_code == 1
    assert (said["fails_oddly"].error, said["fails_oddly"].exit_code) == ("None", None)


def test_a_child_that_a_job_forked_does_not_go_on_as_a_second_worker(running: Cluster) -> None:
    running.start_node("n1", workers=2)
    batch = trigger(running, "forks", shards=[str(number) for number in range(20)], mode="sharded")
    running.ended(batch, within=20)
    executions = Execution.objects.filter(instance__batch=batch)
    assert list(executions.values_list("outcome", flat=True)) == ["success"] * 20
    assert "came too late" not in running.log.read_text()


def test_a_killed_node_leaves_no_process_of_a_job_that_ran_inside_a_worker(running: Cluster) -> None:
    running.start_node("n1", workers=1)
    trigger(running, "leaves_a_child", parameters={"asleep": "7531"})
    eventually(lambda: asleep("7531"), within=15, log=running.log)
    running.processes["n1"].send_signal(signal.SIGKILL)
    eventually(lambda: not asleep("7531"), within=5, log=running.log)


def test_a_node_that_starts_anew_ends_what_outlived_the_kill_of_all_its_processes(running: Cluster) -> None:
    running.start_node("n1", workers=1)
    command = "setsid sh -c 'sleep 7532; true' & sleep 7533"
    task = factories.task(group=running.group, kind="shell", spec={"command": command})
    batch = services.trigger(task, by="test")
    eventually(lambda: asleep("7532") and asleep("7533"), within=15, log=running.log)
    node = running.processes["n1"]
    ours = [one for one in node.children(recursive=True) if one.name() not in {"sleep", "sh"}]
    for process in (node, *ours):
        # Frozen first, so that none of them can clean up after another.
        process.suspend()
    for process in (node, *ours):
        process.kill()
    psutil.wait_procs([node, *ours], timeout=5)
    assert asleep("7532")
    running.start_node("n1", workers=1)
    assert not asleep("7532")
    assert not asleep("7533")
    running.ended(batch)
    assert batch.instances.get().state == "failed"


def asleep(seconds: str) -> list[psutil.Process]:
    """The processes `sleep SECONDS` that live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cmdline() == ["sleep", seconds] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
