"""What the tests of definitions in files share: good files, mistakes, and the commands."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import call_command

from scheduling import definitions
from scheduling.definitions import InvalidDefinitions
from scheduling.models import DeploymentGroup, Task, Team

GOOD = """\
team: warehouse
groups: [{name: etl}]
tasks:
  - {name: extract, group: etl, kind: shell, command: "true", mode: sharded,
     shards: {0: AA, 1: UA, 2: NO}, timeout: 10m, retries: {count: 2, interval: 30s}, success_ratio: 100}
  - name: tidy
    group: etl
    kind: shell
    command: rm -rf "$WORKDIR"
    mode: broadcast
    trigger: {cron: "5 0 * * *", timezone: America/New_York}
"""

WORKFLOWS = """\
team: warehouse
groups: [{name: etl}]
tasks:
  - {name: extract, group: etl, kind: shell, command: "true"}
  - {name: clean, group: etl, kind: shell, command: "true"}
  - {name: alarm, group: etl, kind: shell, command: "true"}
workflows:
  - name: flights_daily
    schedule: {cron: "0 1 * * *", timezone: America/New_York}
    mode: online
    starts: 2026-11-01
    nodes:
      - {key: extract, task: extract, params: {region: east, days: 2}, timeout: 10m}
      - {key: clean, task: clean, after: [extract], join: all}
      - {key: alarm, task: alarm, after: [{node: clean, on: failure}], core: false}
      - {key: small, task: clean, after: [{node: extract, on: result, expected: {rows: 0}}]}
    depends_on:
      - {workflow: weather_hourly, cycles: within_period}
      - {workflow: flights_daily, cycles: previous}
  - name: weather_hourly
    schedule: {cron: "0 * * * *", timezone: America/New_York}
    starts: 2026-11-01
    parallelism: 0
    misfire: skip
    timeout: 2h
    retention: 30d
    notify: [{channel: ops, on: [late, failure], late_after: 90m}]
    nodes: [{key: load, task: extract}]
"""


def mistakes_of(*files: str) -> list[str]:
    """What is wrong in these files, each with its place."""
    with pytest.raises(InvalidDefinitions) as refusal:
        definitions.read_files(files)
    return [str(mistake) for mistake in refusal.value.mistakes]


def apply(*files: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("apply", *files, stdout=out, no_color=True, **({"yes": True} | options))
    return out.getvalue()


def export(**options: Any) -> str:
    out = io.StringIO()
    call_command("export", stdout=out, **options)
    return out.getvalue()


def forget_everything() -> None:
    """Make the installation an empty one."""
    Task.objects.update(revision=None)
    for model in (Task, DeploymentGroup, Team):
        model.objects.all().delete()


def waiting_for(name: str, *upstreams: str) -> str:
    """The line of a workflow that waits for these."""
    waits = ", ".join(f"{{workflow: {each}}}" for each in upstreams)
    rest = f"schedule: {{cron: 0 * * * *}}, nodes: [{{key: a, task: a}}], depends_on: [{waits}]"
    return f"- {{name: {name}, {rest}}}\n"


def team_of(team: str, *workflows: str) -> str:
    """A file with a task, and these lines of workflows."""
    task = "{name: a, group: etl, kind: shell, command: x}"
    return f"team: {team}\ngroups: [{{name: etl}}]\ntasks: [{task}]\nworkflows:\n{''.join(workflows)}"
