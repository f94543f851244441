"""A server, processes and figures for the benchmarks; nothing here is measured."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what it is held against."""

    name: str
    ours: str
    against: str
    holds: bool


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` (0..1) of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * int(share * 100) // 100) - 1))]


def median_of(runs: int, measure: Callable[[], float]) -> tuple[float, list[float]]:
    found = [measure() for _ in range(runs)]
    return statistics.median(found), found


def timed(act: Callable[[], Any]) -> float:
    """The seconds that `act` takes."""
    began = time.monotonic()
    act()
    return time.monotonic() - began


def seconds(took: list[float]) -> str:
    """The median of some runs, with all of them."""
    return f"{statistics.median(took):.2f} s ({' '.join(f'{each:.2f}' for each in took)})"


@contextlib.contextmanager
def own_server(*, kept: bool = False) -> Iterator[str]:
    """A fresh embedded PostgreSQL, as durable as it comes; DATABASE_URL points to it in the block.

    `kept` is one that stays for the next time, under TAILRACE_VAR.
    """
    sys.path.insert(0, str(ROOT))
    from config import database

    folder = Path(tempfile.mkdtemp(prefix="tailrace-bench-"))
    if kept:
        folder.rmdir()
        folder = Path(os.environ.get("TAILRACE_VAR") or ROOT / "var") / "bench"
    server = database.EmbeddedServer(folder / "postgres")
    try:
        os.environ["DATABASE_URL"] = server.start()
        os.environ["TAILRACE_VAR"] = str(folder)
        yield os.environ["DATABASE_URL"]
    finally:
        server.stop()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def defaults_in_database() -> None:
    """Give columns the plain defaults of the models: the INSERTs here name only the columns they set."""
    from django.apps import apps
    from django.db import connection
    from psycopg import sql

    fields = (
        (model._meta.db_table, each.column, each.default)
        for app in ("scheduling", "workflows", "reruns")
        for model in apps.get_app_config(app).get_models()
        for each in model._meta.local_concrete_fields
        if isinstance(each.default, bool | int | str)
    )
    with connection.cursor() as cursor:
        for table, column, value in fields:
            names = sql.Identifier(table), sql.Identifier(column)
            cursor.execute(
                sql.SQL("ALTER TABLE {} ALTER {} SET DEFAULT {}").format(*names, sql.Literal(str(value)))
            )


@contextlib.contextmanager
def process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`manage.py ARGUMENTS`, ended with the block; what it says goes to the bench's log."""
    log = Path(os.environ["TAILRACE_VAR"]) / "log"
    with log.open("ab") as output:
        started = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield started
        except KeyboardInterrupt:
            # Nobody reads its figures any more: it has the time to end its own processes, not its work.
            _end(started, within=5)
            raise
        finally:
            _end(started, within=15)


def _end(started: subprocess.Popen[bytes], *, within: float) -> None:
    """Ask a process to end, and kill after `within` seconds what is left of it and its process group.

    A cluster of the peer may wait for work that nobody does any more, and its parts outlive it.
    """
    started.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.wait(within)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def interrupt_once() -> None:
    """Let the first SIGINT, SIGTERM or SIGHUP interrupt the run; ignore more, so that it can tidy up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in _INTERRUPTS:
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    for number in _INTERRUPTS:
        signal.signal(number, interrupt)


def run_apart(arguments: Sequence[str]) -> int:
    """Run `python -m tests.bench ARGUMENTS`; return its exit code. An interrupt waits for its end."""
    apart = subprocess.Popen([sys.executable, "-m", "tests.bench", *arguments])
    try:
        return apart.wait()
    except KeyboardInterrupt:
        apart.send_signal(signal.SIGINT)
        apart.wait()
        raise


def until(condition: Callable[[], object], *, within: float = 120, every: float = 0.005) -> float:
    """Wait for `condition`; the monotonic time at which it held. Raises TimeoutError with the log's end."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            log = (Path(os.environ["TAILRACE_VAR"]) / "log").read_text(errors="replace")[-3000:]
            raise TimeoutError(f"not within {within} s: {condition}\n{log}")
        time.sleep(every)
    return time.monotonic()


def machine() -> str:
    """The machine and what the figures depend on, in a line each."""
    from django.db import connection

    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    with connection.cursor() as cursor:
        settings = []
        for name in ("server_version", "fsync", "synchronous_commit", "shared_buffers", "wal_sync_method"):
            cursor.execute(f"SHOW {name}")
            settings.append(f"{name}={cursor.fetchone()[0]}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    # Built without, as pyenv does it unasked, the same code takes half as long again and more.
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    build = "" if optimised else " built without --enable-optimizations"
    return (
        f"machine: {os.cpu_count()} × {model}, {memory} GiB, load {load}\n"
        f"Python {platform.python_version()}{build}; PostgreSQL {', '.join(settings)}"
    )
