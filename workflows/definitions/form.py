"""A workflow as its map in a file, and what that map gives for the content of a revision.

A file says `schedule: {cron, timezone}` and `params` where a revision has `cron`, `timezone` and `parameters`;
`content_place` leads from a field of the one to its place in the other, so that a mistake is told where it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.translation import gettext as _

from scheduling import notifications, rules
from scheduling.definitions.reading import Path
from scheduling.definitions.writing import sorted_keys
from scheduling.parameters import format_duration
from workflows.models import Mode, Workflow, WorkflowEdge, WorkflowRevision
from workflows.models.definitions import Condition, Join, Offset

KEYS = (
    *("name", "schedule", "mode", "starts", "enabled", "parallelism", "misfire", "timeout", "retention"),
    *("notify", "nodes", "depends_on"),
)
SCHEDULE_KEYS = ("cron", "timezone")
# Fields of a revision's content that stand in the map under their own names.
_SAME = ("parallelism", "misfire", "timeout", "nodes", "depends_on")
_BLANK = WorkflowRevision()


@dataclass(frozen=True)
class WorkflowDefinition:
    """A workflow as a file defines it; `content` is cleaned. None where the file leaves something as it is."""

    team: str
    name: str
    content: dict[str, Any]
    mode: str = Mode.ONLINE.value
    starts_at: datetime | None = None
    enabled: bool | None = None
    retention_days: int | None = None
    notify: list[dict[str, Any]] = field(default_factory=list)


# --- from the file -----------------------------------------------------------------------------------


def given_content(data: Mapping[str | int, Any]) -> dict[str, Any]:
    """The content that a workflow's map gives, not cleaned yet."""
    given = {name: data[name] for name in _SAME if name in data}
    schedule = data.get("schedule")
    if isinstance(schedule, Mapping):
        given |= {name: schedule[name] for name in SCHEDULE_KEYS if name in schedule}
    if isinstance(given.get("nodes"), list):
        given["nodes"] = [_given_node(node) for node in given["nodes"]]
    return given


def _given_node(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    return {"parameters" if name == "params" else name: value for name, value in node.items()}


def content_place(at: str) -> Path:
    """Where in a workflow's map the field `at` of an InvalidDefinition stands."""
    pieces = re.finditer(r"\[(\d+)\]|([^.\[\]]+)", at)
    place: list[str | int] = [int(piece[1]) if piece[1] else piece[2] for piece in pieces]
    if place[0] in SCHEDULE_KEYS:
        return ("schedule", *place)
    return tuple("params" if name == "parameters" else name for name in place)


def clean_starts(value: Any, timezone: str) -> datetime:
    """When a workflow's cycles begin to exist: a date (its first moment in `timezone`) or an instant.

    Raises rules.Mistake.
    """
    try:
        if not isinstance(value, str):
            raise ValueError
        if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            return datetime.combine(date.fromisoformat(value), time.min, ZoneInfo(timezone))
        at = datetime.fromisoformat(value)
    except ValueError:
        raise rules.Mistake(
            _("%(value)s is neither a date nor an instant; write e.g. 2026-03-01 or 2026-03-01T06:00+01:00.")
            % {"value": rules.shown(value)}
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=ZoneInfo(timezone))


def written_starts(at: datetime, timezone: str) -> str:
    """`at` as a file says it, on the clocks of `timezone`; what `clean_starts` reads."""
    local = at.astimezone(ZoneInfo(timezone))
    if local.replace(tzinfo=None).time() == time.min and not local.fold:
        return local.date().isoformat()
    return local.isoformat()


# --- to the file -------------------------------------------------------------------------------------


def content_of(revision: WorkflowRevision) -> dict[str, Any]:
    """The content of a stored revision, equal to what was cleaned and saved; three queries."""
    team = revision.workflow.team_id
    after: dict[int, list[dict[str, Any]]] = {}
    nodes = list(revision.nodes.select_related("task").order_by("number"))
    keys = {node.pk: node.key for node in nodes}
    for edge in WorkflowEdge.objects.filter(target__revision=revision).order_by("pk"):
        plain: dict[str, Any] = {"node": keys[edge.source_id], "on": edge.condition}
        if edge.condition == Condition.RESULT:
            plain["expected"] = edge.expected
        after.setdefault(edge.target_id, []).append(plain)
    dependencies = []
    for each in revision.dependencies.select_related("upstream__team").order_by("pk"):
        upstream = each.upstream
        name = upstream.name if upstream.team_id == team else f"{upstream.team.name}/{upstream.name}"
        count = {"count": each.count} if each.offset == Offset.LAST else {}
        dependencies.append({"workflow": name, "cycles": each.offset} | count)
    return {name: getattr(revision, name) for name in WorkflowRevision.CONTENT} | {
        "nodes": [
            {
                "key": node.key,
                "task": node.task.name,
                "core": node.core,
                "parameters": node.parameters,
                "after": after.get(node.pk, []),
                "join": node.join,
                "timeout": node.timeout,
            }
            for node in nodes
        ],
        "depends_on": dependencies,
    }


def workflow_form(
    *,
    name: str,
    content: Mapping[str, Any],
    mode: str = Mode.ONLINE,
    starts_at: datetime | None = None,
    enabled: bool | None = None,
    retention_days: int | None = None,
    notify: notifications.Rules = (),
) -> dict[str, Any]:
    """A workflow as its map in the file: canonical order, defaults left out, durations in their short form."""
    schedule = {key: content[key] for key in SCHEDULE_KEYS if content[key] != getattr(_BLANK, key)}
    form: dict[str, Any] = {"name": name}
    form |= {"schedule": schedule} if schedule else {}
    form |= {"mode": str(mode)} if mode != Mode.ONLINE else {}
    form |= {"starts": written_starts(starts_at, content["timezone"])} if starts_at else {}
    form |= {"enabled": False} if enabled is False else {}
    for key in ("parallelism", "misfire", "timeout"):
        if content[key] != getattr(_BLANK, key):
            form[key] = format_duration(content[key]) if key == "timeout" else content[key]
    form |= {"retention": f"{retention_days}d"} if retention_days is not None else {}
    form |= {"notify": notifications.written_rules(notify)} if notify else {}
    form["nodes"] = [_node_form(node) for node in content["nodes"]]
    if content["depends_on"]:
        form["depends_on"] = [
            each if each["cycles"] != Offset.SAME else {"workflow": each["workflow"]}
            for each in content["depends_on"]
        ]
    return form


def form_of(workflow: Workflow, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A stored workflow as its map in the file, with its current content."""
    return workflow_form(
        name=workflow.name,
        content=content if content is not None else content_of(workflow.current),
        mode=workflow.mode,
        starts_at=workflow.starts_at,
        enabled=workflow.enabled,
        retention_days=workflow.retention_days,
        notify=workflow.notify,
    )


def _node_form(node: Mapping[str, Any]) -> dict[str, Any]:
    form: dict[str, Any] = {"key": node["key"], "task": node["task"]}
    if node["after"]:
        form["after"] = [_edge_form(edge) for edge in node["after"]]
    if node["join"] != Join.ALL:
        form["join"] = node["join"]
    if node["parameters"]:
        form["params"] = sorted_keys(node["parameters"])
    if node["timeout"] is not None:
        form["timeout"] = format_duration(node["timeout"])
    return form if node["core"] else form | {"core": False}


def _edge_form(edge: Mapping[str, Any]) -> Any:
    if edge["on"] == Condition.SUCCESS:
        return edge["node"]
    expected = {"expected": sorted_keys(edge["expected"])} if "expected" in edge else {}
    return {"node": edge["node"], "on": edge["on"]} | expected


def by_node(form: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow's map for a comparison: its nodes by their keys, so that each is compared with itself."""
    nodes = {
        node["key"]: {name: value for name, value in node.items() if name != "key"} for node in form["nodes"]
    }
    return {name: nodes if name == "nodes" else value for name, value in form.items()}
