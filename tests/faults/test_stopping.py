"""A node that is asked to stop lets its jobs end, however long it takes and whoever else is signalled."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from scheduling import services
from scheduling.models import Batch, Execution, JournalEntry, Node
from scheduling.states import InstanceState, NodeState, Outcome
from tests import factories
from tests.faults.cluster import ENVIRONMENT, Cluster, cluster, nothing_lost_or_doubled, orphans_of
from tests.processes import ROOT, eventually

pytestmark = [pytest.mark.django_db(transaction=True)]

NODE_TIMEOUT = float(ENVIRONMENT["TAILRACE_NODE_TIMEOUT"])
# A job that ends within the grace, and long after a silent node would have been given up.
SECONDS = 2.5 * NODE_TIMEOUT
GRACE = 30.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


def processes_of(running: Cluster, name: str) -> list[psutil.Process]:
    node = running.processes[name]
    return [node, *node.children(recursive=True)]


def signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def all_run(batch: Batch) -> bool:
    return batch.instances.filter(state=InstanceState.RUNNING).count() == batch.total


def gone(processes: list[psutil.Process]) -> bool:
    return not orphans_of({process.pid for process in processes})


def shell_batch(running: Cluster, command: str) -> Batch:
    made = factories.task(group=running.group, kind="shell", spec={"command": command})
    return services.trigger(made, by="test")


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        ("mixed", signal.SIGTERM),
        ("control-group", signal.SIGTERM),
        ("terminal", signal.SIGINT),
        ("terminal", signal.SIGHUP),
    ],
)
def test_jobs_end_within_a_grace_longer_than_the_node_time_out(
    running: Cluster, mode: str, number: signal.Signals
) -> None:
    running.start_node("n1", workers=2, grace=GRACE)
    running.start_node("n2", workers=2)
    running.start_scheduler("s1")
    batch = running.trigger(4, seconds=SECONDS)
    eventually(lambda: all_run(batch), log=running.log)
    whole = processes_of(running, "n1")
    signal_all(whole[:1] if mode == "mixed" else whole, number)
    running.ended(batch)
    nothing_lost_or_doubled(running, batch)
    assert not Execution.objects.exclude(outcome=Outcome.SUCCESS).exists()
    eventually(lambda: gone(whole), log=running.log)
    entries = JournalEntry.objects.filter(object_type="node", object_name="n1").order_by("id")
    assert list(entries.values_list("action", flat=True)) == ["node_online", "node_draining", "node_offline"]
    assert entries[1].reason == "stopping; running jobs may finish"


def test_the_kill_mode_of_our_unit_lets_a_shell_job_end(running: Cluster, tmp_path: Path) -> None:
    running.start_node("n1", workers=1, grace=GRACE)
    running.start_scheduler("s1")
    batch = shell_batch(running, f"sleep {SECONDS}; touch {tmp_path}/done")
    eventually(lambda: all_run(batch), log=running.log)
    whole = processes_of(running, "n1")
    assert unit("tailrace-node@.service")["Service"]["KillMode"] == "mixed"
    signal_all(whole[:1], signal.SIGTERM)
    running.ended(batch)
    assert batch.state == "success"
    assert (tmp_path / "done").exists()
    eventually(lambda: gone(whole), log=running.log)


def test_a_sigterm_to_every_process_reaches_the_command_of_a_shell_job_and_nothing_above_it(
    running: Cluster, tmp_path: Path
) -> None:
    """The reason why the unit does not keep systemd's own kill mode."""
    running.start_node("n1", workers=1, grace=GRACE)
    command = (
        f"trap 'touch {tmp_path}/heard; sleep {SECONDS}; exit 7' TERM; touch {tmp_path}/up; sleep 60 & wait"
    )
    batch = shell_batch(running, command)
    eventually(lambda: (tmp_path / "up").exists(), log=running.log)
    whole = processes_of(running, "n1")
    signal_all(whole, signal.SIGTERM)
    running.ended(batch)
    assert (tmp_path / "heard").exists()
    # What the command made of the signal is its own result, and nobody ended it before that.
    assert Execution.objects.get().exit_code == 7
    eventually(lambda: gone(whole), log=running.log)


def test_no_broadcast_waits_for_a_node_that_is_stopping(running: Cluster) -> None:
    running.start_node("n1", workers=1, grace=GRACE)
    running.start_node("n2", workers=1)
    running.trigger(2, seconds=60)
    eventually(lambda: Execution.objects.live().count() == 2, log=running.log)
    running.processes["n1"].send_signal(signal.SIGTERM)
    eventually(lambda: Node.objects.get(name="n1").state == NodeState.DRAINING, log=running.log)
    everywhere = services.trigger(factories.task(group=running.group, mode="broadcast"), by="test")
    assert list(everywhere.instances.values_list("node__name", flat=True)) == ["n2"]


def test_a_second_signal_ends_the_grace(running: Cluster) -> None:
    running.start_node("n1", workers=1, grace=GRACE)
    batch = running.trigger(1, seconds=60)
    eventually(lambda: all_run(batch), log=running.log)
    whole = processes_of(running, "n1")
    whole[0].send_signal(signal.SIGTERM)
    eventually(lambda: Node.objects.get(name="n1").state == NodeState.DRAINING, log=running.log)
    whole[0].send_signal(signal.SIGTERM)
    eventually(lambda: gone(whole), within=5, log=running.log)


def test_a_worker_that_dies_while_its_node_stops_is_noticed_at_once(running: Cluster) -> None:
    running.start_node("n1", workers=2, grace=GRACE)
    batch = running.trigger(2, seconds=SECONDS)
    eventually(lambda: all_run(batch), log=running.log)
    running.processes["n1"].send_signal(signal.SIGTERM)
    eventually(lambda: Node.objects.get(name="n1").state == NodeState.DRAINING, log=running.log)
    running.of("n1", "worker")[0].kill()
    eventually(lambda: Execution.objects.filter(outcome=Outcome.LOST).exists(), within=4, log=running.log)
    assert Execution.objects.live().exists()


def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser(delimiters=("=",), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "docs" / "systemd" / name)
    return parser


def test_the_unit_of_a_node_gives_more_time_than_the_grace_that_it_asks_for() -> None:
    service = unit("tailrace-node@.service")["Service"]
    grace = float(service["ExecStart"].split("--grace ")[1].split()[0])
    assert float(service["TimeoutStopSec"]) >= grace + 10
