from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from scheduling.engine import node
from scheduling.errors import SchedulingError
from scheduling.models import DeploymentGroup


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a node needs at least 1 worker (got {number})")
    return number


class Command(BaseCommand):
    help = "Run an execution node of a deployment group until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="the node's name, unique in the installation")
        parser.add_argument("--group", required=True, help="its deployment group: name or team/name")
        parser.add_argument("--workers", type=_at_least_one, default=2, help="instances at once (default 2)")
        parser.add_argument(
            "--grace",
            type=float,
            default=20,
            help="what running jobs get when the node stops, in seconds (20)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        group = self._group(options["group"])
        try:
            node.main(name=options["name"], group=group, workers=options["workers"], grace=options["grace"])
        except SchedulingError as refusal:
            raise CommandError(str(refusal)) from refusal

    def _group(self, name: str) -> DeploymentGroup:
        team, _, group = name.rpartition("/")
        found = DeploymentGroup.objects.filter(name=group).select_related("team")
        if team:
            found = found.filter(team__name=team)
        match list(found):
            case [one]:
                return one
            case []:
                known = ", ".join(map(_full_name, DeploymentGroup.objects.select_related("team")))
                raise CommandError(
                    f"There is no deployment group {name!r}. There are: {known or 'none; apply some'}."
                )
            case several:
                raise CommandError(
                    f"{name!r} is a group of several teams; say which: {', '.join(map(_full_name, several))}."
                )


def _full_name(group: DeploymentGroup) -> str:
    return f"{group.team.name}/{group.name}"
