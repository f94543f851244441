from __future__ import annotations

import argparse
import os
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config import database
from scheduling import seeding


class Command(BaseCommand):
    help = (
        "Make up records of the last days in a team of their own, as many as you like, to see how the pages "
        "and the clean-up do with them. Nothing of it ever runs. Become a member of the team to see it."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instances", type=number, metavar="N", help="instances to make, e.g. 1000000")
        parser.add_argument(
            "--batches", type=number, metavar="M", help="in so many batches; a tenth of N by default"
        )
        parser.add_argument(
            "--days", type=float, default=7.0, metavar="D", help="over the last D days; 7 by default"
        )
        parser.add_argument("--team", default="made-up", metavar="T", help="the team, made when missing")
        parser.add_argument(
            "--unfinished",
            type=number,
            default=0,
            metavar="K",
            help="let about K of the newest batches wait, run or be stopping; a scheduler ends those that run",
        )
        parser.add_argument(
            "--yes", action="store_true", help="also into a database that is not the embedded one"
        )

    def handle(
        self,
        *,
        instances: int,
        batches: int | None,
        days: float,
        team: str,
        unfinished: int,
        yes: bool,
        **options: Any,
    ) -> None:
        if not yes and not is_embedded():
            raise CommandError(
                "this is not the embedded database, and made-up records are not easily told from real ones; "
                "nothing was made. Pass --yes if you mean it."
            )
        if not 0 < days <= 3650:
            raise CommandError(f"--days {days:g}: give more than 0 and at most 3650.")
        wanted = seeding.seed(
            instances,
            batches=max(min(instances, 100), instances // 10) if batches is None else batches,
            days=days,
            team=team,
            unfinished=unfinished,
        )
        began = time.monotonic()
        try:
            for number, made in enumerate(wanted, 1):
                rate = made.instances / max(time.monotonic() - began, 1e-9) * 60
                self.stdout.write(
                    f"{number}/{made.slices}: {made.instances:,} instances in {made.batches:,} batches "
                    f"({rate:,.0f} instances a minute)"
                )
                self.stdout.flush()
        except seeding.Impossible as refusal:
            raise CommandError(str(refusal)) from None
        self.stdout.write(how_to_see(team))


def how_to_see(team: str) -> str:
    """What to type to see the records of `team`, which has no members by itself."""
    return (
        f"Who joins the team {team} sees them; in manage.py shell: "
        f"services.set_member(team=Team.objects.get(name={team!r}), "
        'user=User.objects.get(username="YOUR-NAME"), role="operator")'
    )


def number(text: str) -> int:
    """A whole number, also written 10_000_000 or 10,000,000."""
    found = int(text.replace(",", ""))
    if found < 0:
        raise ValueError(text)
    return found


def is_embedded() -> bool:
    """Whether the database is the one under TAILRACE_VAR that no other installation shares."""
    return os.environ.get("DATABASE_URL") == database.EmbeddedServer(database.embedded_data()).url
