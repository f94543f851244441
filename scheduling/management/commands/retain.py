from __future__ import annotations

import argparse
import time
from typing import Any

from django.core.management.base import BaseCommand

from scheduling.models import Task
from scheduling.services import retention

REPORT_SECONDS = 2.0


class Command(BaseCommand):
    help = (
        "Remove the records of finished batches that are older than their tasks keep them, with instances, "
        "executions and logs; the journal stays. The scheduler does so all the time: this is for a clean-up "
        "that cannot wait. It may run beside everything else, and be ended and begun again at any time."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say how much would go, and remove nothing")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        if dry_run:
            self.say_what_would_go()
            return
        sweep = retention.Sweep()
        reported = time.monotonic()
        while sweep.step():
            if time.monotonic() - reported > REPORT_SECONDS:
                self.stdout.write(f"removed {words(sweep.removed)} so far")
                self.stdout.flush()
                reported = time.monotonic()
        self.stdout.write(
            f"Removed {words(sweep.removed)}." if sweep.removed else "Nothing is old enough to go."
        )

    def say_what_would_go(self) -> None:
        rows = retention.old()
        tasks = Task.objects.select_related("team").in_bulk([row.task for row in rows])
        for row in sorted(rows, key=lambda row: (tasks[row.task].team.name, tasks[row.task].name)):
            task = tasks[row.task]
            self.stdout.write(
                f"{task.team.name}/{task.name}: {row.batches:,} batches with {row.instances:,} instances; "
                f"keeps {task.records_kept}"
            )
        would = retention.would_remove()
        self.stdout.write(f"Would remove {words(would)}." if would else "Nothing is old enough to go.")


def words(removed: retention.Removed) -> str:
    """What is gone, in words."""
    return (
        f"{removed.batches:,} batches, {removed.instances:,} instances, {removed.executions:,} executions and "
        f"{removed.chunks:,} pieces of logs"
    )
