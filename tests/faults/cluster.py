"""Real nodes and schedulers under test, and what must hold after any of their processes was killed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from django.db import connection
from psycopg import sql

from scheduling import services
from scheduling.models import Batch, DeploymentGroup, Execution, Instance, Node
from scheduling.states import InstanceState, NodeState, Outcome
from tests import factories
from tests.faults import jobs
from tests.processes import eventually, manage

ENVIRONMENT = {
    "TAILRACE_JOB_MODULES": "tests.faults.jobs",
    "TAILRACE_NODE_TIMEOUT": "3",
    "TAILRACE_CLAIM_SECONDS": "2",
    "TAILRACE_STOP_GRACE": "1",
}


class Cluster:
    """Nodes of one group, each a real `manage.py node`, and schedulers when asked for."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.log = folder / "log"
        self.group: DeploymentGroup = factories.group()
        self._stack = stack
        self.processes: dict[str, psutil.Process] = {}
        self.environment = dict(ENVIRONMENT)
        with connection.cursor() as cursor:
            cursor.execute(jobs.TABLE)

    def start_node(self, name: str, *, workers: int = 4, wait: bool = True, grace: float = 1) -> None:
        arguments = ("node", name, "--group", f"{self.group.team.name}/{self.group.name}")
        of_node = ("--workers", str(workers), "--grace", f"{grace:g}")
        started = self._stack.enter_context(manage(*arguments, *of_node, log=self.log, **self.environment))
        self.processes[name] = psutil.Process(started.pid)
        if wait:
            eventually(lambda: self._ready(name, workers), within=20, log=self.log)

    def start_scheduler(self, name: str) -> None:
        started = self._stack.enter_context(manage("scheduler", log=self.log, **self.environment))
        self.processes[name] = psutil.Process(started.pid)

    def _ready(self, name: str, workers: int) -> bool:
        online = Node.objects.filter(name=name, state=NodeState.ONLINE, pid=self.processes[name].pid).exists()
        return online and len(self.of(name, "worker")) == workers and bool(self.of(name, "pusher"))

    def of(self, node: str, role: str) -> list[psutil.Process]:
        """The living processes of a node in a role: sentinel, pusher, monitor or worker."""
        try:
            below = self.processes[node].children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        found = []
        for process in below:
            try:
                if process.name() == f"tr:{role}" and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def trigger(self, shards: int = 200, *, seconds: float = 0.1, **content: object) -> Batch:
        """A batch of `shards` instances that each work for `seconds` and leave a row."""
        made = factories.task(
            group=self.group,
            kind="python",
            spec={"call": "effect"},
            mode="sharded",
            shards=[str(number) for number in range(shards)],
            parameters={"seconds": seconds},
            retry_count=3,
            **content,
        )
        return services.trigger(made, by="test")

    def effects(self) -> list[tuple[int, int]]:
        """(execution, instance) of every row that a job left."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT execution_id, instance_id FROM effects")
            return list(cursor.fetchall())

    def started(self, batch: Batch, count: int) -> None:
        """Wait until `count` instances of the batch have left their row."""
        eventually(lambda: len(self.effects()) >= count, within=30, log=self.log)

    def ended(self, batch: Batch, *, within: float = 40) -> None:
        """Wait for the batch's end."""

        def finished() -> bool:
            batch.refresh_from_db()
            return batch.is_finished

        eventually(finished, within=within, log=self.log)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster whose processes are all gone at the end of the block."""
    with ExitStack() as stack:
        yield Cluster(folder, stack)
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP TABLE effects"))


def nothing_lost_or_doubled(cluster: Cluster, batch: Batch) -> None:
    """All instances succeeded, once each by the records, and the jobs' own rows say the same."""
    states = Counter(batch.instances.values_list("state", flat=True))
    assert states == {InstanceState.SUCCESS: batch.total}
    batch.refresh_from_db()
    assert (batch.state, batch.succeeded, batch.ended_count) == ("success", batch.total, batch.total)
    executions = Execution.objects.filter(instance__batch=batch)
    assert not executions.live().exists()
    successes = Counter(executions.filter(outcome=Outcome.SUCCESS).values_list("instance_id", flat=True))
    assert set(successes.values()) == {1}
    assert len(successes) == batch.total
    # What the jobs themselves left: once for every recorded success, and never twice for one execution.
    rows = Counter(execution for execution, _instance in cluster.effects())
    assert max(rows.values()) == 1
    assert set(executions.filter(outcome=Outcome.SUCCESS).values_list("pk", flat=True)) <= set(rows)
    assert set(rows) <= set(executions.values_list("pk", flat=True))
    assert not Instance.objects.filter(batch=batch, claimed=True, state=InstanceState.WAITING).exists()


def orphans_of(pids: set[int]) -> list[psutil.Process]:
    """Which of these processes still live (zombies do not)."""
    living = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE and pid != os.getpid():
                living.append(process)
        except psutil.NoSuchProcess:
            continue
    return living
