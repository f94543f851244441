from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.management.color import Style

from scheduling import definitions
from scheduling.definitions import Change, Plan, Step, written
from scheduling.errors import SchedulingError


class Command(BaseCommand):
    help = (
        "Apply definitions of teams, groups, tasks and workflows from YAML files: check them, show what would "
        "change, ask, and then apply all of it or nothing. What the files do not mention is left alone, and so "
        "is the switch of a task or workflow whose map has no `enabled`."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="a YAML file; - is the standard input")
        parser.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal")
        parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")

    def handle(self, *, files: list[str], yes: bool, dry_run: bool, **options: Any) -> None:
        try:
            wanted = definitions.read_files(files)
        except definitions.InvalidDefinitions as refusal:
            # Bare lines, so that editors and build logs find file and line at their beginning.
            self.stderr.write(str(refusal))
            count = len(refusal.mistakes)
            raise CommandError(f"{count} mistake{'s' if count > 1 else ''}; nothing was applied.") from None
        plan = definitions.plan(wanted)
        self.stdout.write(described(plan, self.style))
        if plan.changes_nothing or dry_run:
            return
        if not yes:
            self.ask()
        try:
            definitions.apply(wanted, plan)
        except SchedulingError as refusal:
            raise CommandError(str(refusal)) from None
        self.stdout.write("Applied.")

    def ask(self) -> None:
        if not sys.stdin.isatty():
            raise CommandError(
                "there is no terminal to ask on; nothing was applied. Pass --yes to apply without asking."
            )
        try:
            answer = input("Apply these changes? [y/N] ")
        except (EOFError, KeyboardInterrupt):
            answer = ""
        if answer.strip().lower() not in {"y", "yes"}:
            raise CommandError("nothing was applied.")


def described(plan: Plan, style: Style) -> str:
    """The plan as a person reads it: a block for each thing that changes, then the sums."""
    lines: list[str] = []
    team = ""
    for step in sorted(plan.steps, key=lambda step: step.team):
        if step.action == "unchanged":
            continue
        if step.team != team:
            team = step.team
            lines.append(f"team {team}" + (" (new)" if step.thing == "team" else ""))
        if step.thing != "team":
            lines += _step(step, style)
    counts = plan.counts
    sums = ", ".join(f"{counts[action]} {action}" for action in ("new", "changed", "unchanged"))
    left = " and ".join(
        f"{count} more of these teams' {thing}s" for thing, count in plan.left_alone.items() if count
    )
    others = f"; {left} are left alone" if left else ""
    return "\n".join([*lines, f"{sums}{others}."])


def _step(step: Step, style: Style) -> list[str]:
    warnings = [style.WARNING(f"      ! {warning}") for warning in step.warnings]
    if step.action == "new":
        head = style.SUCCESS(f"  + {step.thing} {step.name}")
        added = [style.SUCCESS(line) for change in step.changes for line in _added(change)]
        return [head, *added, *warnings]
    lines = [style.WARNING(f"  ~ {step.thing} {step.name}")]
    for change in step.changes:
        lines += _changed(change, style)
    return lines + warnings


def _added(change: Change) -> list[str]:
    value = written(change.after)
    if "\n" not in value:
        return [f"      {change.field}: {value}"]
    return [f"      {change.field}:", *(f"        {line}".rstrip() for line in value.splitlines())]


def _changed(change: Change, style: Style) -> list[str]:
    before, after = written(change.before), written(change.after)
    if not (lines := change.difference):
        return [f"      {change.field}: {style.ERROR(before)} → {style.SUCCESS(after)}"]
    colours = {"+": style.SUCCESS, "-": style.ERROR}
    return [
        f"      {change.field}:",
        *(f"        {colours.get(line[0], str)(line.rstrip())}" for line in lines),
    ]
