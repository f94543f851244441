"""Plain functions that make what a test needs, through the services that the product itself uses.

Everything has a sensible default, and names are unique within the process: `task()` alone makes a team, a
group and a manual shell task.
"""

from __future__ import annotations

import itertools
import os
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from scheduling import services, transitions
from scheduling.models import (
    Batch,
    DeploymentGroup,
    Execution,
    Instance,
    Membership,
    Node,
    Task,
    TaskGrant,
    Team,
)
from scheduling.models.teams import Role
from scheduling.states import NodeState, Outcome
from workflows import services as workflow_services
from workflows.models import CycleInstance, NodeRun, Workflow

_numbers = itertools.count(1)


def unique(word: str) -> str:
    """`word` with a number that no other call in this process gets."""
    return f"{word}-{next(_numbers)}"


def _team(given: Team | None) -> Team:
    return given or team()


def _group(given: DeploymentGroup | None) -> DeploymentGroup:
    return given or group()


# --- people and places -----------------------------------------------------------------------------


def team(name: str | None = None) -> Team:
    return Team.objects.create(name=name or unique("team"))


def user(
    username: str | None = None, *, team: Team | None = None, role: str = Role.OPERATOR, **fields: Any
) -> Any:
    """A user with the password "secret", member of `team` in `role` when one is given."""
    made = get_user_model().objects.create_user(username or unique("user"), password="secret", **fields)
    if team is not None:
        Membership.objects.create(team=team, user=made, role=role)
    return made


def grant(task: Task, *permissions: str, to: Team) -> TaskGrant:
    """What `to` is granted on `task` (to rerun it by default); the last of the grants made."""
    services.grant(task, team=to, permissions=permissions or ["rerun_task"], by="tests")
    return task.grants.filter(team=to).last()  # type: ignore[return-value]


def group(name: str | None = None, *, team: Team | None = None) -> DeploymentGroup:
    return DeploymentGroup.objects.create(team=_team(team), name=name or unique("group"))


def node(
    name: str | None = None,
    *,
    group: DeploymentGroup | None = None,
    state: str = NodeState.ONLINE,
    slots: int = 2,
    **fields: Any,
) -> Node:
    """A node's row, heard of just now; no process stands behind it."""
    return Node.objects.create(
        name=name or unique("node"),
        group=_group(group),
        state=state,
        slots=slots,
        **({"heartbeat_at": timezone.now()} | fields),
    )


# --- work ------------------------------------------------------------------------------------------


def task(
    name: str | None = None, *, group: DeploymentGroup | None = None, enabled: bool = True, **content: Any
) -> Task:
    """A task of `content` (fields of TaskRevision.CONTENT); a manual shell task that does nothing by default.

    `cron=` or `interval=` alone are enough to make it a scheduled one, `shards=` to make it sharded.
    """
    place = _group(group)
    if "cron" in content:
        content.setdefault("trigger", "cron")
    elif "interval" in content:
        content.setdefault("trigger", "fixed_rate")
    if "shards" in content:
        content.setdefault("mode", "sharded")
    return services.save_task(
        team=place.team,
        group=place,
        name=name or unique("task"),
        content={"kind": "shell", "spec": {"command": "true"}} | content,
        enabled=enabled,
        by="tests",
    )


def batch(of: Task | None = None, **options: Any) -> Batch:
    """A batch of the task `of`, begun by hand; `options` are those of `services.trigger`."""
    return services.trigger(of or task(), **({"by": "tests"} | options))


def passed_over_batch(of: Task | None = None) -> Batch:
    """A batch of a workflow's branch that was not taken: it has no instances."""
    given = of or task()
    assert given.revision is not None
    request = services.BatchRequest(
        task=given,
        revision=given.revision,
        trigger="workflow",
        scheduled_for=timezone.now(),
        slots=[],
        passed_over="the branch was not taken",
        by="tests",
    )
    return services.create_batches([request])[0]


def start(instance: Instance, on: Node | None = None) -> Execution:
    """Make a waiting instance run on `on` (any node by default) as a claim and a start would."""
    execution, _token = _begin(instance, on)
    instance.refresh_from_db()
    return Execution.objects.get(pk=execution)


def end(instance: Instance, outcome: str = Outcome.SUCCESS, **report: Any) -> None:
    """Report the running `instance` as ended; `report` are further arguments of `transitions.end`."""
    live = instance.executions.live().first()
    assert live is not None, f"instance {instance.pk} is {instance.state} and has no live execution"
    _report(instance, live.pk, instance.token, outcome, **report)
    instance.refresh_from_db()


def _begin(instance: Instance, on: Node | None = None) -> tuple[int, UUID]:
    """Make a waiting instance run; its execution's id and its token then. `instance` is left as it is."""
    place = on or instance.node or Node.objects.filter(group=instance.group_id).first()
    if place is None:
        place = node(group=instance.group)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE scheduling_instance SET token = gen_random_uuid(), claimed = true, node_id = %s"
            " WHERE id = %s RETURNING token",
            [place.pk, instance.pk],
        )
        [token] = cursor.fetchone()
    started = transitions.start(
        batch=instance.batch_id, instance=instance.pk, token=token, worker=os.getpid(), timeout=None
    )
    assert started is not None, f"instance {instance.pk} is {instance.state} and cannot start"
    return started.execution_id, token


def _report(instance: Instance, execution: int, token: UUID, outcome: str, **report: Any) -> None:
    ended = transitions.end(
        batch=instance.batch_id,
        instance=instance.pk,
        execution=execution,
        token=token,
        outcome=outcome,
        **report,
    )
    assert ended is not None, f"instance {instance.pk} is not run by token {token}"


def start_batch(batch: Batch) -> list[Instance]:
    """Make every instance of `batch` run."""
    instances = list(batch.instances.select_related("group", "node"))
    for instance in instances:
        _begin(instance)
        instance.refresh_from_db()
    batch.refresh_from_db()
    return instances


def end_batch(batch: Batch, outcome: str = Outcome.SUCCESS, **report: Any) -> Batch:
    """Run every instance of `batch` that has not ended, and end it with `outcome`; `report` as for `end`."""
    for instance in batch.instances.select_related("group", "node"):
        if instance.state == "waiting":
            _report(instance, *_begin(instance), outcome, **{"may_retry": False} | report)
        elif not instance.is_finished:
            end(instance, outcome, **{"may_retry": False} | report)
    batch.refresh_from_db()
    return batch


# --- workflows -------------------------------------------------------------------------------------


def workflow(
    name: str | None = None,
    *,
    group: DeploymentGroup | None = None,
    nodes: Any = "a",
    mode: str = "online",
    starts_at: Any = None,
    notify: Any = None,
    **content: Any,
) -> Workflow:
    """A workflow whose tasks are made with it.

    `nodes` is a text such as "a > b, a > c!" (`!` on failure, `?` always), or maps as in a definition; nodes
    that name no task get one of their own key.
    """
    place = _group(group)
    given = _nodes(nodes) if isinstance(nodes, str) else nodes
    for each in given:
        each.setdefault("task", each["key"])
        if not Task.objects.filter(team=place.team, name=each["task"]).exists():
            task(each["task"], group=place)
    return workflow_services.save_workflow(
        team=place.team,
        name=name or unique("workflow"),
        content={"nodes": given} | content,
        mode=mode,
        starts_at=starts_at,
        notify=notify,
        by="tests",
    )


def _nodes(text: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for piece in text.split(","):
        keys = [each.strip() for each in piece.split(">")]
        for number, written in enumerate(keys):
            key = written.rstrip("!?")
            node = found.setdefault(key, {"key": key, "after": []})
            if number:
                condition = {"!": "failure", "?": "always"}.get(written[-1], "success")
                node["after"].append({"node": keys[number - 1].rstrip("!?"), "on": condition})
    return list(found.values())


def cycle(of: Workflow | None = None, **options: Any) -> CycleInstance:
    """A test run of a workflow, which begins at once; `options` are those of `services.run_test`."""
    return workflow_services.run_test(of or workflow(), **({"by": "tests"} | options))


def end_node(instance: CycleInstance, key: str, outcome: str = Outcome.SUCCESS, **report: Any) -> CycleInstance:
    """End the running node `key` of a cycle instance with `outcome`, and return the instance as it is then."""
    run = instance.node_runs.select_related("batch").get(node__key=key)
    assert run.batch is not None, f"node {key} is {run.state} and has no batch"
    end_batch(run.batch, outcome, **report)
    return fresh(instance)


def fresh(instance: CycleInstance) -> CycleInstance:
    """A cycle instance as it is in the database now."""
    return CycleInstance.objects.select_related("workflow", "revision", "cycle").get(pk=instance.pk)


def runs(instance: CycleInstance) -> list[NodeRun]:
    """The node runs of a cycle instance in the order of the definition."""
    return list(instance.node_runs.order_by("node__number"))


def states(instance: CycleInstance) -> dict[str, str]:
    """The state of each node of a cycle instance, by its key."""
    return dict(instance.node_runs.order_by("node__number").values_list("node__key", "state"))
