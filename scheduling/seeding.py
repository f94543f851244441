"""Makes up records by the million, to see how pages and clean-up do with them; `manage.py seed_records`.

PostgreSQL draws them itself, in slices of time that are a transaction each. They look like those of a busy
team: many small batches and a few huge ones, tasks that never fail and tasks that often do, retries, stops,
slow nights, the output of some. Nothing of it ever runs: the tasks are switched off and no node is online.
"""

from __future__ import annotations

import json
import queue
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from scheduling import journal, services
from scheduling.models import DeploymentGroup, JournalEntry, Node, Task, Team
from scheduling.models.journal import Via
from scheduling.models.tasks import Mode, Trigger

SEEDER = journal.Actor("seed_records", Via.SHELL)
# Whoever looks for a task or a group by its name means a real one.
PREFIX = "seeded-"
GROUPS = tuple(
    PREFIX + name
    for name in ("ingest", "etl", "warehouse", "reports", "features", "billing", "exports", "checks")
)
NODES_EACH = 8
_VERBS = ("extract", "load", "clean", "join", "publish", "check", "archive", "score")
_THINGS = (
    "orders",
    "customers",
    "payments",
    "clicks",
    "flights",
    "stock",
    "prices",
    "refunds",
    "sessions",
    "sensors",
)
_PEOPLE = ["mei", "jonas", "amara", "luca"]
_ERRORS = [
    "ConnectionError: the warehouse did not answer within 30 s",
    "exit code 1: part-0.parquet: No such file or directory",
    "ValueError: column fare is null in row 1881",
    "exit code 137 (often SIGKILL: out of memory?)",
    "HTTP 503 from the partner's API: try again later",
    "UniqueViolation: duplicate key value violates unique constraint orders_pkey",
]
# Instances of a batch: how many tasks have such batches, their mode, and what share of all instances is theirs.
_BANDS = {
    10_000: (2, Mode.SHARDED, 0.08),
    1_000: (6, Mode.SHARDED, 0.20),
    200: (12, Mode.SHARDED, 0.24),
    40: (20, Mode.SHARDED, 0.24),
    NODES_EACH: (30, Mode.BROADCAST, 0.24),
    2: (4, Mode.SHARDED, 1.0),
    1: (126, Mode.RANDOM, 0.0),
}
_SLICE = 100_000
_STATEMENTS = [part for part in Path(__file__).with_suffix(".sql").read_text().split(";\n") if part.strip()]

_PLAN_TABLE = """
CREATE TEMP TABLE seed_plan AS SELECT * FROM jsonb_to_recordset(%s::jsonb) AS plan (
    team_id bigint, task_id bigint, task text, revision_id bigint, group_id bigint, nodes bigint[],
    trigger text, mode text, total int, count bigint, step float, phase float, seconds float, timeout int,
    retry_count int, retry_interval int, success_ratio int, flakiness float
)
"""


class Impossible(ValueError):
    """These numbers do not fit each other; the message says which would."""


@dataclass(frozen=True)
class Made:
    """How much there is of what was asked for."""

    batches: int
    instances: int
    slices: int


def shape(instances: int, batches: int) -> dict[int, int]:
    """How many batches of which size make exactly `instances` in `batches`; raises Impossible."""
    if not 0 < batches <= instances <= batches * max(_BANDS):
        raise Impossible(
            f"{instances:,} instances do not fit {batches:,} batches: a batch has 1 to {max(_BANDS):,} of them."
        )
    sizes = [size for size in _BANDS if size > 1]
    # The more instances a batch has on average, the fewer small batches there are.
    for smallest in range(len(sizes) - 1, 0, -1):
        found = _counts(instances, batches, [*sizes[:smallest], sizes[-1]])
        if found[1] >= 0:
            return {size: count for size, count in found.items() if count}
    raise Impossible(
        f"{instances:,} instances in {batches:,} batches would all be huge ones; ask for more batches."
    )


def _counts(instances: int, batches: int, sizes: list[int]) -> dict[int, int]:
    surplus = left = instances - batches
    found = {}
    for size in sizes:
        # What does not make a whole batch is left to the next smaller ones, in the end to pairs.
        share = left if size in sizes[-2:] else min(left, int(_BANDS[size][2] * surplus))
        found[size] = share // (size - 1)
        left -= found[size] * (size - 1)
    return found | {1: batches - sum(found.values())}


def seed(
    instances: int, *, batches: int, days: float, team: str, unfinished: int = 0, sessions: int = 2
) -> Iterator[Made]:
    """Make records of the last `days` in the team called `team`, and yield what there is after each slice.

    About `unfinished` of the newest batches wait, run or are being stopped. Slices are drawn in so many
    `sessions` of the database at once. Raises Impossible at the first step.
    """
    sizes = shape(instances, batches)
    now = timezone.now()
    slices = max(1, -(-instances // _SLICE))
    facts = {
        "since": now - timedelta(days=days),
        "now": now,
        "unfinished": unfinished,
        "people": _PEOPLE,
        "errors": _ERRORS,
    }
    work: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    for number in range(slices):
        bounds = {"low": number / slices, "high": (number + 1) / slices, "is_last": number == slices - 1}
        work.put(facts | bounds)
    drawn: queue.SimpleQueue[tuple[int, int] | BaseException] = queue.SimpleQueue()
    plan = _plan(team, sizes, days)
    threads = [threading.Thread(target=_draw, args=(plan, work, drawn)) for _ in range(sessions)]
    try:
        for thread in threads:
            thread.start()
        done = Made(0, 0, slices)
        for _ in range(slices):
            counts = drawn.get()
            if isinstance(counts, BaseException):
                raise counts
            done = Made(done.batches + counts[0], done.instances + counts[1], slices)
            yield done
    finally:
        with suppress(queue.Empty):
            while True:
                work.get_nowait()
        for thread in threads:
            thread.join()


def _draw(plan: list[dict[str, Any]], work: Any, drawn: Any) -> None:
    """Draw slices until there is no more work, in a session of this thread's own."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_PLAN_TABLE, [json.dumps(plan)])
        with suppress(queue.Empty):
            while True:
                drawn.put(_slice(work.get_nowait()))
    except BaseException as error:  # noqa: BLE001 - raised again where the slices are waited for
        drawn.put(error)
    finally:
        connection.close()


def _slice(facts: dict[str, Any]) -> tuple[int, int]:
    """How many batches and instances were made of one slice of time."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL work_mem = '128MB'")
        counts = []
        for statement in _STATEMENTS:
            cursor.execute(statement, facts)
            counts.append(cursor.rowcount)
    return counts[2], counts[3]


# --- the workspace ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """A task that is to be made: how many of its batches, and how far apart, on average."""

    name: str
    size: int
    count: int
    step: float
    trigger: str


def _kinds(sizes: dict[int, int], days: float, first: int, chance: random.Random) -> Iterator[_Kind]:
    for size, batches in sizes.items():
        tasks = min(_BANDS[size][0], batches)
        # Few tasks run often, and many seldom.
        weights = [(rank + 1) ** -0.8 for rank in range(tasks)]
        shares = [int(batches * weight / sum(weights)) for weight in weights]
        shares[0] += batches - sum(shares)
        for count in filter(None, shares):
            step = days * 86400 / count
            often = step < 60
            trigger = chance.choices(
                [Trigger.FIXED_RATE, Trigger.CRON, Trigger.WORKFLOW, Trigger.MANUAL],
                [80, 0, 20, 0] if often else [15, 55, 20, 10],
            )[0]
            name = f"{PREFIX}{chance.choice(_VERBS)}-{chance.choice(_THINGS)}-{first}"
            yield _Kind(name, size, count, step, trigger)
            first += 1


def _content(kind: _Kind, chance: random.Random) -> dict[str, Any]:
    content: dict[str, Any] = {
        "kind": "shell",
        "spec": {"command": f"exec jobs/{kind.name.removeprefix(PREFIX).rsplit('-', 1)[0]}"},
        "mode": _BANDS[kind.size][1].value,
        "trigger": kind.trigger,
        "timeout": 3600,
        "retry_count": chance.choice([0, 0, 1, 2]),
        "retry_interval": chance.choice([5, 30]),
        "success_ratio": chance.choice([100, 100, 100, 90]),
    }
    if content["mode"] == Mode.SHARDED:
        content["shards"] = [f"part-{number}" for number in range(kind.size)]
    if kind.trigger == Trigger.FIXED_RATE:
        content["interval"] = max(1, round(kind.step))
    if kind.trigger == Trigger.CRON:
        minutes = round(kind.step / 60)
        minute = chance.randrange(60)
        if minutes < 45:
            content["cron"] = f"*/{minutes} * * * *"
        elif minutes < 20 * 60:
            content["cron"] = f"{minute} */{max(1, round(minutes / 60))} * * *"
        else:
            content["cron"] = f"{minute} {chance.randrange(24)} * * *"
    return content


def _workspace(name: str) -> tuple[Team, list[DeploymentGroup], dict[int, list[int]]]:
    """The team, its groups, and the ids of the nodes of each; raises Impossible for somebody's own team."""
    team, created = Team.objects.get_or_create(name=name)
    if created:
        journal.record("created", team, SEEDER)
    elif not JournalEntry.objects.filter(
        object_type="team", object_id=team.pk, action="created", actor=SEEDER.name
    ).exists():
        raise Impossible(f"the team {name} is not one of made-up records; name another with --team.")
    groups = [DeploymentGroup.objects.get_or_create(team=team, name=each)[0] for each in GROUPS]
    nodes = {
        group.pk: [
            Node.objects.get_or_create(
                name=f"{name}-{group.name}-{number}", defaults={"group": group, "slots": 4}
            )[0].pk
            for number in range(1, NODES_EACH + 1)
        ]
        for group in groups
    }
    return team, groups, nodes


def _plan(team_name: str, sizes: dict[int, int], days: float) -> list[dict[str, Any]]:
    """Make the tasks; a row of `seed_plan` for each: what the statements are to draw of it."""
    team, groups, nodes = _workspace(team_name)
    first = Task.objects.filter(team=team).count() + 1
    chance = random.Random(f"{team_name} {first}")  # noqa: S311 - draws what tasks are like
    rows = []
    for kind in _kinds(sizes, days, first, chance):
        group = chance.choices(groups, range(2 * len(groups), len(groups), -1))[0]
        content = _content(kind, chance)
        task = services.save_task(
            team=team, group=group, name=kind.name, content=content, enabled=False, by=SEEDER
        )
        # An attempt takes from a second to a quarter of an hour, and a whole batch no longer than that.
        longest = min(900.0, kind.step * 0.8, 900.0 * NODES_EACH * 4 / kind.size)
        seconds = min(longest, chance.lognormvariate(2.5, 1.2))
        flaky = chance.choices([0.0, 0.02, 0.1, 0.3], [35, 50, 12, 3])[0]
        rows.append(
            {
                "team_id": team.pk,
                "task_id": task.pk,
                "task": task.name,
                "revision_id": task.revision_id,
                "group_id": group.pk,
                "nodes": nodes[group.pk],
                "trigger": kind.trigger,
                "mode": content["mode"],
                "total": kind.size,
                "count": kind.count,
                "step": kind.step,
                "phase": chance.random(),
                "seconds": seconds,
                "timeout": content["timeout"],
                "retry_count": content["retry_count"],
                "retry_interval": content["retry_interval"],
                "success_ratio": content["success_ratio"],
                "flakiness": flaky,
            }
        )
    return rows
