"""Machines whose clocks are set wrong: what falls due follows the database's clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from scheduling.models import Node, SchedulerProcess, Task
from tests import factories
from tests.processes import ROOT, database_url, eventually
from workflows.models import CycleInstance
from workflows.states import CycleState

pytestmark = pytest.mark.django_db(transaction=True)

# manage.py on a machine whose clock is ahead by so many seconds, for everything but time since boot.
_SHIFTED = """
import sys, time, time_machine
time_machine.travel(time.time() + float(sys.argv[1])).start()
sys.argv[:] = ["manage.py", *sys.argv[2:]]
import runpy
runpy.run_path("manage.py", run_name="__main__")
"""


@contextmanager
def shifted(seconds: float, *arguments: str, log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _SHIFTED, str(seconds), *arguments],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": database_url()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("ahead", [600, 3600])
def test_a_scheduler_whose_clock_is_ahead_fires_and_readies_nothing_early(tmp_path: Path, ahead: int) -> None:
    log = tmp_path / "log"
    now = timezone.now()
    early = factories.task(cron="* * * * *", misfire="run_all")
    due = now + timedelta(seconds=ahead - 60)
    Task.objects.filter(pk=early.pk).update(next_due_at=due)
    timely = factories.task(interval=3600)
    Task.objects.filter(pk=timely.pk).update(next_due_at=now + timedelta(seconds=3))
    workflow = factories.workflow(cron="* * * * *")
    with shifted(ahead, "scheduler", log=log):
        eventually(lambda: timely.batches.exists(), within=30, log=log)
        eventually(lambda: CycleInstance.objects.filter(workflow=workflow).exists(), within=30, log=log)
        # The loop has gone round for three seconds and more: what its clock says is due would have fired.
        last = SchedulerProcess.objects.get().last_round_at
        eventually(
            lambda: SchedulerProcess.objects.get().last_round_at > last + timedelta(seconds=3),
            within=30,
            log=log,
        )
        ended = timezone.now()
        assert "s ahead of the database's. Schedules follow" in log.read_text()
        assert SchedulerProcess.objects.get().clock_difference == pytest.approx(ahead, abs=15)
    assert early.batches.count() == 0
    assert Task.objects.get(pk=early.pk).next_due_at == due
    assert timely.batches.get().scheduled_for == now + timedelta(seconds=3)
    begun = CycleInstance.objects.exclude(state=CycleState.NOT_READY)
    assert not begun.filter(cycle_time__gt=ended).exists()


def test_a_node_whose_clock_is_behind_says_so_in_its_log_and_in_its_row(tmp_path: Path) -> None:
    log, group = tmp_path / "log", factories.group()
    place = f"{group.team.name}/{group.name}"
    with shifted(-90, "node", "slow-clock", "--group", place, "--workers", "1", log=log):
        eventually(lambda: "behind the database's" in log.read_text(), within=30, log=log)
        assert Node.objects.get().clock_difference == pytest.approx(-90, abs=15)
