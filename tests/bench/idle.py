"""What an installation costs that has nothing to do: CPU seconds a minute, and memory."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from django.db import connection
from django.utils import timezone

from config.demo import NODES
from scheduling import services
from scheduling.errors import SchedulingError
from scheduling.models import Batch, Node, Task
from tests.bench.engine import bench_group, running_node
from tests.bench.harness import Figure, process, until
from workflows.models import Workflow

OTHERS = 1300
WORKERS = 8
# Long enough for every loop that polls to have turned many times.
SECONDS = float(os.environ.get("BENCH_IDLE_SECONDS", "30"))
# By then an idle worker has closed its connections.
SETTLE = 8.0


def idle() -> Iterator[Figure]:
    """All of `make run` without jobs, an idle scheduler, and an idle node beside many processes of others."""
    # First: the demo is installed only where there is nothing yet.
    yield _whole()
    with process("scheduler") as scheduler:
        until(lambda: _connections("tailrace scheduler"))
        yield _cost("idle scheduler", scheduler.pid, 1.0)
    bench_group()
    with _other_processes(OTHERS), running_node(WORKERS) as node:
        yield _cost(f"idle node of {WORKERS} workers, {OTHERS:,} other processes on the host", node, 0.2)


def _whole() -> Figure:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with process("up", PORT=str(port), DEMO_PASSWORD="bench") as up:
        until(lambda: Node.objects.filter(state="online").count() == len(NODES))
        Task.objects.update(enabled=False)
        Workflow.objects.update(enabled=False, paused_at=timezone.now())
        for batch in Batch.objects.unfinished():
            with contextlib.suppress(SchedulingError):
                services.stop(batch, by="bench")
        until(lambda: not Batch.objects.unfinished().exists())
        connection.close()
        return _cost("idle `make run` without its demo's jobs", up.pid, 4.0, memory=500)


def _cost(name: str, root: int, wanted: float, *, memory: float = 0) -> Figure:
    """CPU seconds a minute of a process and all below it, with those of their PostgreSQL sessions, and PSS."""
    time.sleep(SETTLE)
    began, before, server = time.monotonic(), _cpu(tree(root)), _cpu(_server())
    time.sleep(SECONDS)
    minutes = (time.monotonic() - began) / 60
    used, by_server = (_cpu(tree(root)) - before) / minutes, (_cpu(_server()) - server) / minutes
    own, of_server = pss(tree(root)), pss(_server())
    said = (
        f"{used:.2f} CPU s a minute, PostgreSQL {by_server:.2f}; "
        f"PSS {own:.0f} MB, PostgreSQL {of_server:.0f} MB"
    )
    want = f"want ≤ {wanted:g} s" + (f", PSS ≤ {memory:g} MB in all" if memory else "")
    return Figure(name, said, want, used <= wanted and not 0 < memory < own + of_server)


def tree(root: int) -> list[psutil.Process]:
    """A process and all below it."""
    first = psutil.Process(root)
    return [first, *first.children(recursive=True)]


def _server() -> list[psutil.Process]:
    pid = int((Path(os.environ["TAILRACE_VAR"]) / "postgres" / "postmaster.pid").read_text().split()[0])
    return tree(pid)


def _cpu(processes: list[psutil.Process]) -> float:
    """The seconds that they have used, with those of children that ended meanwhile."""
    total = 0.0
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(each.cpu_times()[:4])
    return total


def pss(processes: list[psutil.Process]) -> float:
    """Their memory in MB, each shared page divided among those that share it."""
    total = 0
    for each in processes:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _connections(name: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [name])
        return int(cursor.fetchone()[0])


@contextmanager
def _other_processes(count: int) -> Iterator[None]:
    """So many processes that do nothing, as those of others on a host."""
    # They end by themselves, should the bench be killed.
    started = [subprocess.Popen(["sleep", f"{SETTLE + SECONDS + 300:g}"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in started:
            each.kill()
        for each in started:
            each.wait()


ALL = (idle,)
