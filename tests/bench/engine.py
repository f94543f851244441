"""The engine's figures: throughput, trigger lateness, stop, and a killed worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import psutil
from django.db import connection
from django.utils import timezone

from scheduling import services, transitions
from scheduling.models import Batch, DeploymentGroup, Execution, Instance, Node, Task, Team
from scheduling.models.tasks import Trigger
from tests.bench import jobs
from tests.bench.harness import Figure, median_of, percentile, process, until

RUNS = 3
WORKERS = 2
INSTANCES = int(os.environ.get("BENCH_INSTANCES", "6000"))
LATE_TASKS = 500
STOPS = 20
KILLS = 10
_ENVIRONMENT = {"TAILRACE_JOB_MODULES": "tests.bench.jobs", "TAILRACE_LOG_LEVEL": "WARNING"}


def bench_group() -> DeploymentGroup:
    team, _ = Team.objects.get_or_create(name="bench")
    return DeploymentGroup.objects.get_or_create(team=team, name="bench")[0]


def task_of(name: str, **content: Any) -> Task:
    group = bench_group()
    saved = services.save_task(team=group.team, group=group, name=name, content=content, by="bench")
    return Task.objects.select_related("revision").get(pk=saved.pk)


@contextmanager
def running_node(workers: int = WORKERS) -> Iterator[int]:
    """A node that has all its workers; its pid."""
    with process(
        "node", "bench", "--group", "bench", "--workers", str(workers), "--grace", "1", **_ENVIRONMENT
    ) as started:
        until(
            lambda: (
                len(_workers(started.pid)) == workers and Node.objects.filter(pid=started.pid, state="online")
            )
        )
        yield started.pid
    connection.close()


def _workers(node: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(node).children(recursive=True)
        return [one for one in below if one.is_running() and one.name() == "tr:worker"]
    return []


# --- throughput --------------------------------------------------------------------------------------


def _rate(left: Any, total: int) -> float:
    """Tasks a second from the moment the first is gone until all are."""
    began = until(lambda: left() < total, every=0.02)
    done = total - left()
    return (total - done) / (until(lambda: left() == 0, every=0.02) - began)


def _scalar(statement: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.fetchone()[0] or 0)


def ours_per_second(shards: int) -> float:
    """No-op instances a second, in batches of `shards`; every record is there at the end."""
    mode = {"mode": "sharded", "shards": [str(n) for n in range(shards)]} if shards > 1 else {"mode": "random"}
    task = task_of(f"noop-{shards}", kind="python", spec={"call": "noop"}, **mode)
    assert task.revision is not None
    request = services.BatchRequest(
        task=task,
        revision=task.revision,
        trigger=Trigger.MANUAL,
        scheduled_for=timezone.now(),
        slots=services.slots_of(task.revision, []),
        by="bench",
    )
    batches = services.create_batches([request] * (INSTANCES // shards))
    first = batches[0].pk
    ended = "succeeded + failed + timed_out + terminated"
    left = f"SELECT sum(total - ({ended})) FROM scheduling_batch WHERE id >= {first}"
    total = len(batches) * shards
    with process(
        "node", "bench", "--group", "bench", "--workers", str(WORKERS), "--grace", "1", **_ENVIRONMENT
    ):
        rate = _rate(lambda: _scalar(left), total)
    recorded = Execution.objects.filter(instance__batch_id__gte=first, outcome="success").count()
    assert recorded == total, f"{recorded} of {total} recorded"
    connection.close()
    return rate


def peer_per_second() -> float:
    """The peer's no-op tasks a second, from its queue table; it records none."""
    from django_q.models import OrmQ

    now = timezone.now()
    OrmQ.objects.bulk_create(
        OrmQ(key="peer", payload=_peer_task(number), lock=now) for number in range(INSTANCES)
    )
    with process("qcluster", DJANGO_SETTINGS_MODULE="tests.bench.peer_settings", BENCH_WORKERS=str(WORKERS)):
        rate = _rate(lambda: _scalar("SELECT count(*) FROM django_q_ormq"), INSTANCES)
    connection.close()
    return rate


def _peer_task(number: int) -> str:
    from django_q import core_signing
    from django_q.signing import PickleSerializer

    task = {
        "id": f"{number:032x}",
        "name": str(number),
        "func": jobs.peer_noop,
        "args": (),
        "kwargs": {},
        "started": timezone.now(),
    }
    return str(core_signing.dumps(task, salt="peer", serializer=PickleSerializer))


def throughput() -> list[Figure]:
    """Ours and the peer's in turn, so that both meet the same machine."""
    found: dict[str, list[float]] = {"shards": [], "single": [], "peer": []}
    for _ in range(RUNS):
        found["peer"].append(peer_per_second())
        found["shards"].append(ours_per_second(100))
        found["single"].append(ours_per_second(1))
    peer = sorted(found["peer"])[RUNS // 2]
    figures = []
    # The peer has no batches: one that is journalled and judged for each instance is more than it does.
    for key, words, wanted in (
        ("shards", "in batches of 100", 1.2),
        ("single", "each a batch of its own", 1.0),
    ):
        ours = sorted(found[key])[RUNS // 2]
        figures.append(
            Figure(
                f"no-op instances a second, {words}",
                f"{ours:,.0f} ({_runs(found[key])})",
                f"django-q2 ORM broker, tuned: {peer:,.0f} ({_runs(found['peer'])}); "
                f"{ours / peer:.2f} ×, want ≥ {wanted} ×",
                ours >= wanted * peer,
            )
        )
    return figures


def _runs(values: list[float]) -> str:
    return " ".join(f"{value:,.0f}" for value in values)


# --- lateness ----------------------------------------------------------------------------------------


def _lateness() -> float:
    """p99, in ms, of due time to visible batch, over tasks that are due in the same second."""
    with process("scheduler", **_ENVIRONMENT), running_node():
        due = (timezone.now() + timedelta(seconds=3)).replace(microsecond=0)
        Task.objects.filter(name__startswith="late-").update(next_due_at=due)
        transitions.notify(services.SCHEDULE_CHANNEL)
        late: list[float] = []
        count = f"SELECT count(*) FROM scheduling_batch WHERE scheduled_for = '{due.isoformat()}'"
        while len(late) < LATE_TASKS:
            seen = _scalar(count)
            late += [(timezone.now() - due).total_seconds() * 1000] * (seen - len(late))
            if timezone.now() > due + timedelta(seconds=30):
                raise TimeoutError(f"only {len(late)} of {LATE_TASKS} fired")
            time.sleep(0.002)
    connection.close()
    return percentile(late, 0.99)


def lateness() -> list[Figure]:
    for number in range(LATE_TASKS):
        task_of(f"late-{number}", kind="python", spec={"call": "noop"}, trigger="fixed_rate", interval=86400)
    p99, runs = median_of(RUNS, _lateness)
    Task.objects.filter(name__startswith="late-").update(enabled=False)
    return [
        Figure(
            f"lateness of {LATE_TASKS} triggers due at once, p99",
            f"{p99:.0f} ms ({_runs(runs)})",
            "want ≤ 250 ms",
            p99 <= 250,
        )
    ]


# --- stop --------------------------------------------------------------------------------------------

_TREE = "(sleep 600 & (sleep 600 & setsid sleep 600 & wait) & wait) & sleep 600"


def _stop_p95() -> float:
    """p95, in s, of the request to stop a shell job to: all its processes dead and the record terminated."""
    task = task_of("tree", kind="shell", spec={"command": _TREE})
    took = []
    with running_node() as node:
        for _ in range(STOPS):
            batch = services.trigger(task, by="bench")
            sleeping: list[psutil.Process] = []

            def asleep(sleeping: list[psutil.Process] = sleeping) -> bool:
                sleeping[:] = [one for one in _below(node) if _name(one) == "sleep"]
                return len(sleeping) == 4

            until(asleep)
            began = time.monotonic()
            services.stop(batch, by="bench")
            until(lambda batch=batch: Instance.objects.filter(batch=batch, state="terminated").exists())  # type: ignore[misc]
            assert not [one for one in sleeping if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
            took.append(time.monotonic() - began)
    return percentile(took, 0.95)


def _below(node: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(node).children(recursive=True)
    return []


def _name(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return str(process.name())
    return ""


def stop() -> list[Figure]:
    p95, runs = median_of(RUNS, _stop_p95)
    return [
        Figure(
            "stop of a shell job with grandchildren, all dead and terminated, p95",
            f"{p95:.2f} s ({' '.join(f'{run:.2f}' for run in runs)})",
            "want ≤ 1.5 s",
            p95 <= 1.5,
        )
    ]


# --- killed worker -----------------------------------------------------------------------------------


def _recovery_worst() -> float:
    """The longest of several: kill -9 of a busy worker to its execution recorded and the retry started."""
    task = task_of("busy", kind="shell", spec={"command": "sleep 600"}, retry_count=1)
    took = []
    with running_node():
        for _ in range(KILLS):
            batch = services.trigger(task, by="bench")
            live = Execution.objects.live().filter(instance__batch=batch)
            until(live.exists)
            worker = live.get().worker
            began = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            again = Execution.objects.filter(instance__batch=batch, number=2, cause="lost")
            took.append(until(again.exists) - began)
            services.stop(batch, by="bench")
            until(lambda batch=batch: Batch.objects.get(pk=batch.pk).is_finished)  # type: ignore[misc]
    return max(took)


def killed_worker() -> list[Figure]:
    worst, runs = median_of(RUNS, _recovery_worst)
    return [
        Figure(
            f"killed worker: kill to recorded and retried, worst of {KILLS}",
            f"{worst:.2f} s ({' '.join(f'{run:.2f}' for run in runs)})",
            "want ≤ 2 s (Airflow 3: 60 to 300 s)",
            worst <= 2,
        )
    ]


ALL = (throughput, lateness, stop, killed_worker)
