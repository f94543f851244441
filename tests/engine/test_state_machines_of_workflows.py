"""Every move of a cycle instance, node run and backfill, legal and illegal, by raw SQL; every constraint."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError, ProgrammingError, connection, transaction
from django.utils import timezone

from scheduling.states import Machine
from tests import factories as make
from tests.engine.states import duplicate, pairs, sql
from tests.engine.support import row
from workflows import services
from workflows.models import (
    Backfill,
    CycleDependency,
    CycleInstance,
    NodeRun,
    Workflow,
    WorkflowDependency,
    WorkflowEdge,
)
from workflows.states import BACKFILL, CYCLE, NODE_RUN, BackfillState, CycleState, NodeRunState

pytestmark = [pytest.mark.long, pytest.mark.django_db]

# As the design says it, written out once more so that a slip in the table shows.
LEGAL_CYCLE = {
    ("not_ready", "ready"),
    ("not_ready", "cancelled"),
    ("not_ready", "terminated"),
    ("ready", "running"),
    ("ready", "cancelled"),
    ("ready", "terminated"),
    ("running", "success"),
    ("running", "failed"),
    ("running", "terminated"),
    ("failed", "success"),
    ("terminated", "success"),
}
LEGAL_NODE_RUN = {
    ("waiting", "running"),
    ("waiting", "condition_not_met"),
    ("waiting", "cancelled"),
    ("running", "success"),
    ("running", "failed"),
    ("running", "terminated"),
    ("running", "timed_out"),
}
LEGAL_BACKFILL = {
    ("running", "paused"),
    ("running", "terminating"),
    ("running", "success"),
    ("running", "failed"),
    ("paused", "running"),
    ("paused", "terminating"),
    ("paused", "success"),
    ("paused", "failed"),
    ("terminating", "terminated"),
}


@pytest.mark.parametrize(
    ("machine", "legal", "initial"),
    [
        (CYCLE, LEGAL_CYCLE, "not_ready"),
        (NODE_RUN, LEGAL_NODE_RUN, "waiting"),
        (BACKFILL, LEGAL_BACKFILL, "running"),
    ],
)
def test_the_table_says_what_the_design_says(
    machine: Machine, legal: set[tuple[str, str]], initial: str
) -> None:
    assert set(machine.moves) == legal
    assert machine.initial == initial


# --- raw SQL -----------------------------------------------------------------------------------------


def put(thing: Any, machine: Machine, state: str) -> Any:
    """`thing` in a state that no verb need have led to, past the trigger."""
    table = thing._meta.db_table
    with connection.cursor() as cursor:
        # Foreign keys have been checked by now; a table with events pending cannot be altered.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        move(thing, machine, state)
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    thing.refresh_from_db()
    return thing


def move(thing: Any, machine: Machine, new: str) -> None:
    """What someone might type into psql."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {thing._meta.db_table} SET state = %s, ended_at = %s WHERE id = %s",
            [new, (thing.ended_at or timezone.now()) if new in machine.final else None, thing.pk],
        )


def check_raw_moves(thing: Any, machine: Machine, legal: set[tuple[str, str]], states: Any) -> None:
    """Every pair of states, on one row."""
    for old, new in pairs(states):
        before = row(put(thing, machine, old))
        if (old, new) in legal:
            move(thing, machine, new)
            assert row(thing)["state"] == new
            changed = {name for name, value in row(thing).items() if value != before[name]}
            assert changed <= {"state", "ended_at"}
        else:
            with pytest.raises(ProgrammingError, match=f'field "state" from "{old}" to "{new}" on table'):
                move(thing, machine, new)
            assert row(thing) == before


def test_raw_sql_moves_a_cycle_instance_only_along_the_table() -> None:
    check_raw_moves(make.cycle(), CYCLE, LEGAL_CYCLE, CycleState)


def test_raw_sql_moves_a_node_run_only_along_the_table() -> None:
    check_raw_moves(make.cycle().node_runs.get(), NODE_RUN, LEGAL_NODE_RUN, NodeRunState)


def test_raw_sql_moves_a_backfill_only_along_the_table() -> None:
    check_raw_moves(a_backfill(), BACKFILL, LEGAL_BACKFILL, BackfillState)


# --- constraints -------------------------------------------------------------------------------------

EVERY_SIX_HOURS = {"cron": "0 */6 * * *", "timezone": "UTC"}
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def a_backfill() -> Backfill:
    now = timezone.now()
    return services.backfill(
        make.workflow(**EVERY_SIX_HOURS), since=now - timedelta(hours=12), until=now, by="tests"
    )


def _workflow(**changes: Any) -> None:
    duplicate("workflows_workflow", make.workflow().pk, **({"name": make.unique("twin")} | changes))


def _revision(**changes: Any) -> None:
    duplicate("workflows_workflowrevision", make.workflow().current.pk, **({"number": 99} | changes))


def _node(**changes: Any) -> None:
    node = make.workflow().current.nodes.get()
    duplicate("workflows_workflownode", node.pk, **({"key": "twin"} | changes))


def _edge(**changes: Any) -> None:
    revision = make.workflow(nodes="a > b").current
    edge = WorkflowEdge.objects.get(target__revision=revision)
    # The other way round, so that it is not the same edge.
    other = {"source_id": edge.target_id, "target_id": edge.source_id}
    duplicate("workflows_workflowedge", edge.pk, **(other | changes))


def _edge_twice() -> None:
    revision = make.workflow(nodes="a > b").current
    duplicate("workflows_workflowedge", WorkflowEdge.objects.get(target__revision=revision).pk)


def _dependency(**changes: Any) -> None:
    group = make.group()
    make.workflow("up", group=group, **EVERY_SIX_HOURS)
    below = make.workflow("down", group=group, depends_on=[{"workflow": "up"}], **EVERY_SIX_HOURS)
    dependency = WorkflowDependency.objects.get(revision=below.current)
    duplicate("workflows_workflowdependency", dependency.pk, **changes)


def _cycle(**changes: Any) -> None:
    duplicate("workflows_cycle", make.cycle().cycle_id, **changes)


def _cycle_dependency() -> None:
    group = make.group()
    make.workflow("up", group=group, starts_at=timezone.now() - timedelta(days=2), **EVERY_SIX_HOURS)
    make.workflow("down", group=group, depends_on=[{"workflow": "up"}], **EVERY_SIX_HOURS)
    first = CycleDependency.objects.first()
    assert first is not None
    duplicate("workflows_cycledependency", first.pk)


def _instance(**changes: Any) -> None:
    duplicate("workflows_cycleinstance", make.cycle().pk, **({"number": 99} | changes))


def _scheduled_twice() -> None:
    make.workflow(**EVERY_SIX_HOURS)
    first = CycleInstance.objects.first()
    assert first is not None
    duplicate("workflows_cycleinstance", first.pk, number=99)


def _run(**changes: Any) -> None:
    run = make.cycle(make.workflow(nodes="a > b")).node_runs.get(node__key="b")
    other = make.workflow().current.nodes.get()
    duplicate("workflows_noderun", run.pk, **({"node_id": other.pk} | changes))


def _run_twice() -> None:
    duplicate("workflows_noderun", make.cycle().node_runs.get().pk)


def _backfill(**changes: Any) -> None:
    duplicate("workflows_backfill", a_backfill().pk, **changes)


VIOLATIONS: dict[str, list[Callable[[], None]]] = {
    "workflow_name_once_a_team": [lambda: duplicate("workflows_workflow", make.workflow().pk)],
    "workflow_mode_legal": [lambda: _workflow(mode="moon")],
    "workflow_paused_when_off": [lambda: _workflow(enabled=False), lambda: _workflow(paused_at=LATER)],
    "workflow_revision_number_once": [lambda: _revision(number=1)],
    "workflow_misfire_legal": [lambda: _revision(misfire="shrug")],
    "node_key_once_a_revision": [lambda: _node(key="a")],
    "node_join_legal": [lambda: _node(join="few")],
    "edge_once": [_edge_twice],
    "edge_condition_legal": [lambda: _edge(condition="moon")],
    "edge_expects_on_result_only": [lambda: _edge(expected='{"late": true}')],
    "dependency_once": [_dependency],
    "dependency_offset_legal": [lambda: _dependency(offset="next")],
    "cycle_time_once_a_workflow": [_cycle],
    "cycle_held_has_not_succeeded": [
        lambda: _cycle(succeeded=True, holder="rerun:1", cycle_time=LATER),
    ],
    "cycle_dependency_once": [_cycle_dependency],
    "cycle_instance_number_once": [lambda: _instance(number=1)],
    "cycle_one_unfinished": [_scheduled_twice],
    "cycle_run_type_legal": [lambda: _instance(run_type="moon")],
    "cycle_stopping_legal": [lambda: _instance(stopping="perhaps")],
    "cycle_ended_when_final": [
        lambda: _instance(state="frozen"),
        lambda: _instance(ended_at=LATER),
        lambda: _instance(state="success"),
        lambda: _instance(state="terminated"),
        lambda: _instance(state="cancelled"),
        lambda: _instance(state="not_ready", ended_at=LATER),
    ],
    "cycle_frozen_by_someone": [
        lambda: _instance(state="ready", frozen_at=LATER),
        lambda: _instance(holder="rerun:1"),
        lambda: _instance(frozen_by="ann"),
        lambda: _instance(frozen_reason="why"),
    ],
    "cycle_frozen_before_it_runs": [lambda: _instance(frozen_at=LATER, frozen_by="ann")],
    "cycle_counts_within_total": [
        lambda: _instance(succeeded=2),
        lambda: _instance(succeeded=1, failed=1),
        lambda: _instance(failed=1, passed_over=1),
    ],
    "node_run_once": [_run_twice],
    "node_run_ended_when_final": [
        lambda: _run(state="asleep"),
        lambda: _run(ended_at=LATER),
        lambda: _run(state="success"),
        lambda: _run(state="condition_not_met"),
        lambda: _run(state="running", ended_at=LATER),
    ],
    "backfill_order_legal": [lambda: _backfill(order="shuffled")],
    "backfill_ended_when_final": [
        lambda: _backfill(state="asleep"),
        lambda: _backfill(ended_at=LATER),
        lambda: _backfill(state="success"),
        lambda: _backfill(state="terminating", ended_at=LATER),
    ],
    "backfill_runs_something": [lambda: _backfill(parallelism=0)],
    "backfill_range": [lambda: _backfill(since=LATER)],
}

# The models that these tests are about; what else workflows keeps has tests of its own.
MODELS = {
    "workflow",
    "workflowrevision",
    "workflownode",
    "workflowedge",
    "workflowdependency",
    "cycle",
    "cycledependency",
    "cycleinstance",
    "noderun",
    "backfill",
}


def models() -> list[Any]:
    return [each for each in apps.get_app_config("workflows").get_models() if each._meta.model_name in MODELS]


def test_every_constraint_of_workflows_is_tried_here() -> None:
    assert len(models()) == len(MODELS)
    names = {constraint.name for model in models() for constraint in model._meta.constraints}
    assert names == set(VIOLATIONS)


@pytest.mark.parametrize(
    ("name", "violate"), [(name, violate) for name, each in VIOLATIONS.items() for violate in each]
)
def test_the_database_refuses_by_name(name: str, violate: Callable[[], None]) -> None:
    with pytest.raises(IntegrityError) as refused:
        violate()
    assert refused.value.__cause__.diag.constraint_name == name  # type: ignore[union-attr]


def test_every_trigger_of_workflows_is_tried_here() -> None:
    names = {trigger.name for model in models() for trigger in getattr(model._meta, "triggers", [])}
    assert names == {
        "cycle_moves",
        "node_run_moves",
        "backfill_moves",
        "workflow_revision_immutable",
        "workflow_node_immutable",
        "workflow_edge_immutable",
        "workflow_dependency_immutable",
    }


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("workflowrevision", "cron", "9 * * * *"),
        ("workflowrevision", "parallelism", 7),
        ("workflowrevision", "digest", "x"),
        ("workflownode", "key", "other"),
        ("workflownode", "core", False),
        ("workflowedge", "condition", "always"),
        ("workflowdependency", "offset", "last"),
    ],
)
def test_content_cannot_be_changed(table: str, column: str, value: Any) -> None:
    group = make.group()
    make.workflow("up", group=group, **EVERY_SIX_HOURS)
    make.workflow("down", group=group, nodes="a > b", depends_on=[{"workflow": "up"}], **EVERY_SIX_HOURS)
    with pytest.raises(ProgrammingError, match=f"Cannot update rows from workflows_{table}"):
        sql(f'UPDATE workflows_{table} SET "{column}" = %s', value)


def test_records_of_workflows_outlive_the_user_who_asked() -> None:
    user = make.user()
    instance = make.cycle(by=user)
    name = user.get_username()
    user.delete()
    instance = make.fresh(instance)
    assert (instance.requested_by_id, instance.actor) == (None, name)
    assert Workflow.objects.filter(pk=instance.workflow_id).exists()
    assert NodeRun.objects.filter(instance=instance).exists()
