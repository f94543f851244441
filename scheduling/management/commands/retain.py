from __future__ import annotations

import argparse
import time
from typing import Any

from django.core.management.base import BaseCommand

from scheduling.services import retention

REPORT_SECONDS = 2.0


class Command(BaseCommand):
    help = (
        "Remove the records of finished batches that are older than their tasks keep them, with instances, "
        "executions and logs, and of cycle instances older than their workflows keep them; the journal stays. "
        "The scheduler does so all the time: this is for a clean-up that cannot wait. It may run beside "
        "everything else, and be ended and begun again at any time."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say how much would go, and remove nothing")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        if dry_run:
            self.say_what_would_go()
            return
        removed = [done for sweep in retention.SWEEPS if (done := self.sweep(sweep()))]
        self.stdout.write(f"Removed {_list(removed)}." if removed else "Nothing is old enough to go.")

    def sweep(self, sweep: retention.Sweep) -> retention.Counted:
        """Go round until nothing old is left, saying now and then how far it is."""
        reported = time.monotonic()
        while sweep.step():
            if time.monotonic() - reported > REPORT_SECONDS:
                self.stdout.write(f"removed {sweep.removed.words} so far")
                self.stdout.flush()
                reported = time.monotonic()
        removed: retention.Counted = sweep.removed
        return removed

    def say_what_would_go(self) -> None:
        found = [sweep.would_go() for sweep in retention.SWEEPS]
        for line in (line for lines, _would in found for line in lines):
            self.stdout.write(line)
        would = [each for _lines, each in found if each]
        self.stdout.write(f"Would remove {_list(would)}." if would else "Nothing is old enough to go.")


def _list(removed: list[retention.Counted]) -> str:
    return "; ".join(each.words for each in removed)
