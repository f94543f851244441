"""What the tests of definitions in files share: a good file, and the commands."""

from __future__ import annotations

import io
from typing import Any

from django.core.management import call_command

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
