"""Cycle instances for the pages' figures: workflows of every pace, most cycles well, some not, a few to come.

PostgreSQL draws them, as those of scheduling/seeding.sql, past the same constraints and triggers as the
engine's own. Nothing of it ever runs: their tasks are the seeded ones, which are switched off.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db import connection, transaction
from django.utils import timezone

from scheduling import journal
from scheduling.models import Task, Team
from workflows import services
from workflows.models import Workflow

SEEDER = journal.Actor("seed_records", journal.Via.SHELL)
PREFIX = "seeded-"


@dataclass(frozen=True)
class Pace:
    """Workflows of one schedule: the share of all cycles that is theirs, and how far back these go."""

    name: str
    cron: str
    step: timedelta
    back: timedelta
    share: float

    @property
    def cycles(self) -> int:
        return self.back // self.step


PACES = (
    Pace("daily", "0 2 * * *", timedelta(days=1), timedelta(days=30), 0.02),
    Pace("hourly", "0 * * * *", timedelta(hours=1), timedelta(days=30), 0.48),
    Pace("often", "*/5 * * * *", timedelta(minutes=5), timedelta(days=7), 0.46),
    Pace("each-minute", "* * * * *", timedelta(minutes=1), timedelta(days=7), 0.04),
)
# extract, then clean and check beside each other, then publish.
_NODES = {"extract": [], "clean": ["extract"], "check": ["extract"], "publish": ["clean", "check"]}

_CYCLES = """
    INSERT INTO workflows_cycle (workflow_id, cycle_time, succeeded)
    SELECT workflow, at, false FROM unnest(%(workflows)s::bigint[]) workflow, generate_series(
        date_trunc('day', now()) - %(back)s, date_trunc('day', now()) + interval '47 hours', %(step)s
    ) at ORDER BY at, workflow
"""
# One in twelve of the hourly cycles waits for that of the workflow before it.
_DEPENDENCIES = """
    INSERT INTO workflows_cycledependency (cycle_id, upstream_id)
    SELECT cycle.id, upstream.id
    FROM workflows_cycle cycle
    JOIN workflows_workflow workflow ON workflow.id = cycle.workflow_id AND workflow.team_id = %(team)s
    JOIN workflows_workflowdependency dependency ON dependency.revision_id = workflow.revision_id
    JOIN workflows_cycle upstream
        ON upstream.workflow_id = dependency.upstream_id AND upstream.cycle_time = cycle.cycle_time
"""
_INSTANCES = """
    INSERT INTO workflows_cycleinstance (
        cycle_id, workflow_id, team_id, revision_id, cycle_time, data_date, number, run_type, online, state,
        reason, stopping, stopped_by, waits_for_upstream, stop_on_failure, node_parallelism, parameters, actor,
        due_at, due, frozen_at, frozen_by, frozen_reason, holder, created_at, ready_at, started_at, ended_at,
        total, succeeded, failed, passed_over
    )
    SELECT cycle_id, workflow_id, team_id, revision_id, cycle_time, (cycle_time - interval '1 day')::date, 1,
        'online', true, state, CASE WHEN state = 'failed' THEN 'Node clean failed' ELSE '' END, '', '', true,
        false, 0, '{}', 'schedule', cycle_time, cycle_time <= now(),
        CASE WHEN frozen THEN now() END, CASE WHEN frozen THEN 'mei' ELSE '' END,
        CASE WHEN frozen THEN 'the source moves' ELSE '' END, '', cycle_time - interval '1 day',
        CASE WHEN state NOT IN ('not_ready', 'cancelled') THEN cycle_time END,
        CASE WHEN begun THEN cycle_time + interval '1 second' END,
        CASE WHEN state IN ('success', 'failed', 'terminated', 'cancelled')
            THEN least(now(), cycle_time + make_interval(secs => 20 + 200 * luck)) END,
        CASE WHEN begun THEN 4 ELSE 0 END,
        CASE WHEN NOT begun THEN 0 WHEN state = 'success' THEN 4 ELSE 1 END,
        CASE WHEN state = 'failed' THEN 1 ELSE 0 END,
        CASE WHEN state IN ('failed', 'terminated') THEN 2 ELSE 0 END
    FROM (
        SELECT drawn.*, state IN ('running', 'success', 'failed', 'terminated') AS begun,
            state = 'not_ready' AND luck < 0.002 AS frozen
        FROM (
            SELECT cycle.id AS cycle_id, workflow_id, team_id, revision_id, cycle_time, luck,
                CASE
                    WHEN cycle_time > now() THEN 'not_ready'
                    WHEN cycle_time > now() - interval '4 minutes' THEN
                        CASE WHEN luck < 0.6 THEN 'running' WHEN luck < 0.8 THEN 'ready' ELSE 'success' END
                    WHEN luck < 0.0002 THEN 'not_ready'
                    WHEN luck < 0.03 THEN 'failed'
                    WHEN luck < 0.035 THEN 'terminated'
                    WHEN luck < 0.04 THEN 'cancelled'
                    ELSE 'success'
                END AS state
            FROM (
                SELECT workflows_cycle.*, team_id, revision_id, random() AS luck FROM workflows_cycle
                JOIN workflows_workflow workflow ON workflow.id = workflow_id AND team_id = %(team)s
            ) cycle
        ) drawn
    ) made ORDER BY cycle_time, workflow_id
"""
# Half of what failed was rerun by somebody, with success.
_RERUNS = """
    INSERT INTO workflows_cycleinstance (
        cycle_id, workflow_id, team_id, revision_id, cycle_time, data_date, number, run_type, online, state,
        reason, stopping, stopped_by, waits_for_upstream, stop_on_failure, node_parallelism, parameters, actor,
        rerun_of_id, due, frozen_by, frozen_reason, holder, created_at, ready_at, started_at, ended_at,
        total, succeeded, failed, passed_over
    )
    SELECT cycle_id, workflow_id, team_id, revision_id, cycle_time, data_date, 2, 'rerun', true, 'success',
        '', '', '', false, false, 0, '{}', (%(people)s::text[])[1 + id %% cardinality(%(people)s::text[])],
        id, true, '', '', '', ended_at, ended_at, ended_at, least(now(), ended_at + interval '90 seconds'),
        4, 4, 0, 0
    FROM workflows_cycleinstance
    WHERE team_id = %(team)s AND state = 'failed' AND id %% 2 = 0 ORDER BY cycle_time, workflow_id
"""
_EFFECTIVE = """
    UPDATE workflows_cycle cycle SET effective_id = newest.id, succeeded = newest.state = 'success'
    FROM (
        SELECT DISTINCT ON (cycle_id) cycle_id, id, state FROM workflows_cycleinstance
        WHERE team_id = %(team)s AND state <> 'cancelled' ORDER BY cycle_id, number DESC
    ) newest WHERE newest.cycle_id = cycle.id
"""
_NODE_RUNS = """
    INSERT INTO workflows_noderun (
        instance_id, node_id, state, reason, carried, pending, timed_out, started_at, ended_at
    )
    SELECT instance, node, state, '', false, 0, false, CASE WHEN begun THEN started_at END,
        CASE WHEN state NOT IN ('waiting', 'running') THEN coalesce(ended_at, now()) END
    FROM (
        SELECT drawn.*, state IN ('running', 'success', 'failed', 'terminated') AS begun
        FROM (
            SELECT instance.id AS instance, node.id AS node, instance.started_at, instance.ended_at,
                CASE
                    WHEN instance.state = 'success' OR node.key = 'extract' THEN 'success'
                    WHEN instance.state = 'running' THEN
                        CASE WHEN node.key = 'publish' THEN 'waiting' ELSE 'running' END
                    WHEN instance.state = 'failed' AND node.key = 'clean' THEN 'failed'
                    WHEN instance.state = 'terminated' AND node.key = 'clean' THEN 'terminated'
                    WHEN instance.state = 'failed' THEN 'condition_not_met'
                    ELSE 'cancelled'
                END AS state
            FROM workflows_cycleinstance instance
            JOIN workflows_workflownode node ON node.revision_id = instance.revision_id
            WHERE instance.team_id = %(team)s AND instance.total > 0
        ) drawn
    ) made
"""
_JOURNAL = """
    INSERT INTO scheduling_journalentry (
        at, action, object_type, object_id, object_name, team_id, actor, via, reason, details
    )
    SELECT at, action, 'cycleinstance', instance.id, workflow.name, instance.team_id, entry.actor, via, '',
        details
    FROM workflows_cycleinstance instance
    JOIN workflows_workflow workflow ON workflow.id = instance.workflow_id
    CROSS JOIN LATERAL (VALUES
        (started_at, 'started', 'engine', 'engine', '{}'::jsonb),
        (ended_at, 'ended', 'engine', 'engine', jsonb_build_object('state', state)),
        (CASE WHEN run_type = 'rerun' THEN instance.created_at END, 'rerun', instance.actor, 'web', '{}')
    ) entry (at, action, actor, via, details)
    WHERE instance.team_id = %(team)s AND at IS NOT NULL ORDER BY at
"""


def seed(cycles: int, *, team: Team) -> int:
    """Make workflows of `team` with about so many cycles, each with its instances; how many instances."""
    with transaction.atomic(), connection.cursor() as cursor:
        for pace in PACES:
            count = max(2, round(cycles * pace.share / pace.cycles))
            cursor.execute(
                _CYCLES, {"workflows": _workflows(team, pace, count), "back": pace.back, "step": pace.step}
            )
        facts = {"team": team.pk, "people": ["mei", "jonas", "amara", "luca"]}
        for statement in (_DEPENDENCIES, _INSTANCES, _RERUNS, _EFFECTIVE, _NODE_RUNS, _JOURNAL):
            cursor.execute(statement, facts)
        cursor.execute("SELECT count(*) FROM workflows_cycleinstance WHERE team_id = %(team)s", facts)
        return int(cursor.fetchone()[0])


def _workflows(team: Team, pace: Pace, count: int) -> list[int]:
    """So many workflows of one pace; each in twelve waits for the one before it."""
    tasks = list(Task.objects.filter(team=team).order_by("pk").values_list("name", flat=True)[:40])
    now = timezone.now().replace(microsecond=0)
    made: list[Workflow] = []
    for number in range(count):
        nodes = [
            {"key": key, "task": tasks[(number + at) % len(tasks)], "after": after}
            for at, (key, after) in enumerate(_NODES.items())
        ]
        content = {"cron": pace.cron, "nodes": nodes}
        if number % 12 == 1:
            content["depends_on"] = [{"workflow": made[-1].name, "cycles": "same"}]
        # Offline, since what is online has its cycles made one by one.
        name = f"{PREFIX}{pace.name}-{number + 1}"
        made.append(
            services.save_workflow(
                team=team,
                name=name,
                content=content,
                mode="offline",
                starts_at=now - pace.back - timedelta(days=1),
                by=SEEDER,
            )
        )
    ids = [workflow.pk for workflow in made]
    Workflow.objects.filter(pk__in=ids).update(mode="online", generated_until=now + timedelta(days=2))
    return ids
