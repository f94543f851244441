from __future__ import annotations

import argparse
import json
import sys
import time
from difflib import get_close_matches
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from scheduling import services
from scheduling.errors import InvalidDefinition, SchedulingError
from scheduling.models import Batch, Node, Task
from scheduling.states import BatchState

POLL_SECONDS = 0.3


class Command(BaseCommand):
    help = "Begin a batch of a task now, and print its number and page."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("task", metavar="TASK", help="its name, or team/name")
        parser.add_argument("--team", metavar="T", help="its team, when several have a task of this name")
        parser.add_argument(
            "--param",
            action="append",
            default=[],
            metavar="K=V",
            help="a parameter over the task's own: k=text, or k:=JSON for a number, a list…; repeatable",
        )
        parser.add_argument("--reason", default="", help="why, for the journal")
        parser.add_argument("--wait", action="store_true", help="wait until it ends; exit 0 on success, else 1")

    def handle(
        self, *, task: str, team: str | None, param: list[str], reason: str, wait: bool, **options: Any
    ) -> None:
        found = find_task(task, team)
        try:
            batch = services.trigger(found, parameters=dict(map(parameter, param)), reason=reason)
        except InvalidDefinition as refusal:
            raise CommandError("\n".join(f"{name}: {why}" for name, why in refusal.errors.items())) from None
        except SchedulingError as refusal:
            raise CommandError(str(refusal)) from None
        self.stdout.write(f"batch {batch.pk} of {found.team.name}/{found.name}: /batches/{batch.pk}/")
        if not batch.is_finished and not Node.objects.online().filter(group=found.group_id).exists():
            self.stderr.write(f"No node of the group {found.group.name} is online; the batch waits for one.")
        if batch.is_finished or wait:
            self.follow(batch)

    def follow(self, batch: Batch) -> None:
        """Wait for the end of `batch`, and exit by how it ended."""
        state = ""
        try:
            while not batch.is_finished:
                if batch.state != state:
                    state = batch.state
                    self.stdout.write(state)
                    self.stdout.flush()
                time.sleep(POLL_SECONDS)
                batch.refresh_from_db()
        except KeyboardInterrupt:
            self.stderr.write(f"\nNo longer waiting; batch {batch.pk} goes on.")
            sys.exit(130)
        counts = f"{batch.succeeded} of {batch.total} instances succeeded"
        self.stdout.write(": ".join(filter(None, [f"{batch.state} ({counts})", batch.reason])))
        if batch.state != BatchState.SUCCESS:
            sys.exit(1)


def find_task(name: str, team: str | None = None) -> Task:
    """The task called `name` or `team/name`; raises CommandError when there is none, or more than one."""
    if "/" in name:
        owner, _, name = name.partition("/")
        if team and team != owner:
            raise CommandError(f"{owner}/{name} is not of the team {team}; leave --team out.")
        team = owner
    tasks = Task.objects.select_related("team", "group").order_by("team__name", "name")
    found: list[Task] = list(tasks.filter(name=name, **({"team__name": team} if team else {})))
    if len(found) > 1:
        choices = ", ".join(f"{task.team.name}/{task.name}" for task in found)
        raise CommandError(f"several teams have a task {name}: write one of {choices}.")
    if found:
        return found[0]
    names = [f"{owner}/{each}" for owner, each in tasks.values_list("team__name", "name")]
    wanted = f"{team}/{name}" if team else name
    by_name = {full if team else full.partition("/")[2]: full for full in names}
    near = [by_name[each] for each in get_close_matches(wanted, by_name, n=3, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise CommandError(f"there is no task {wanted}.{hint}")


def parameter(given: str) -> tuple[str, Any]:
    """`day=2013-01-01` as text, `limit:=5` as JSON; raises CommandError for anything else."""
    name, equals, value = given.partition("=")
    if not equals or not name.strip(":"):
        raise CommandError(f"--param {given}: write name=text, or name:=JSON.")
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError as error:
        hint = f"write {name[:-1]}={value} for text"
        raise CommandError(f"--param {given}: {value} is not JSON ({error}); {hint}.") from None
