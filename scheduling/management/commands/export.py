from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from scheduling import definitions
from scheduling.models import Team
from scheduling.rules import not_among


class Command(BaseCommand):
    help = "Print the definitions of every team (or of some) as the YAML that `apply` accepts."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--team", action="append", metavar="T", help="only this team; may be repeated")

    def handle(self, *, team: list[str] | None, **options: Any) -> None:
        known = {each.name: each for each in Team.objects.all()}
        for name in team or ():
            if name not in known:
                raise CommandError(f"team: {not_among(name, sorted(known))}")
        chosen = [known[name] for name in dict.fromkeys(team)] if team else None
        self.stdout.write(definitions.export(chosen), ending="")
