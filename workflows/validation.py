"""What a workflow may be: the same rules for `apply`, pages and the shell, every mistake told at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from scheduling import rules
from scheduling.errors import InvalidDefinition
from scheduling.models.tasks import Misfire
from workflows import graph
from workflows.known import End, Known, Stored, reference, written_as
from workflows.models import WorkflowRevision
from workflows.models.definitions import Condition, Join, Offset

MOST_NODES = 5000
MOST_LAST = 1000

_FIELDS: dict[str, Callable[[Any], Any]] = {
    "misfire": rules.choice(Misfire),
    "parallelism": rules.whole(0, 1000),
    "timeout": rules.optional(rules.seconds(1)),
}
_NODE_FIELDS: dict[str, Callable[[Any], Any]] = {
    "join": rules.choice(Join),
    "timeout": rules.optional(rules.seconds(1)),
}


@dataclass
class _Cleaning:
    ours: End
    given: Mapping[str, Any]
    known: Known
    errors: dict[str, str] = field(default_factory=dict)
    clean: dict[str, Any] = field(default_factory=dict)

    @property
    def team(self) -> str:
        return self.ours[0]


def clean_content(
    team: str, name: str, content: Mapping[str, Any], known: Known | None = None
) -> dict[str, Any]:
    """The whole content of the workflow `name` of `team`, from what a person gave; raises InvalidDefinition.

    `content` has the fields of `WorkflowRevision.CONTENT`; `nodes`, each a map of key, task (a name), join,
    parameters, timeout, core and `after`, a list of keys or of maps of node, on and expected; and `depends_on`,
    a list of maps of workflow (a name, or team/name), cycles and count. Tasks and workflows that it names are
    those of `known`, by default of the database.
    """
    cleaning = _Cleaning((team, name), content, known or Stored())
    fields = [*WorkflowRevision.CONTENT, "nodes", "depends_on"]
    for key in content:
        if key not in fields:
            cleaning.errors[str(key)] = rules.unknown_field(key, fields)
    _schedule(cleaning)
    _nodes(cleaning)
    _dependencies(cleaning)
    if cleaning.errors:
        raise InvalidDefinition(cleaning.errors)
    return cleaning.clean


def _field(cleaning: _Cleaning, at: str, rule: Callable[[Any], Any], value: Any) -> Any:
    try:
        return rule(value)
    except rules.Mistake as mistake:
        cleaning.errors[at] = str(mistake)
        return None


def _schedule(cleaning: _Cleaning) -> None:
    given, clean = cleaning.given, cleaning.clean
    zone = _field(cleaning, "timezone", rules.zone, given.get("timezone", "UTC"))
    clean["timezone"] = zone
    clean["cron"] = _field(
        cleaning, "cron", lambda value: rules.cron(value, zone or "UTC"), given.get("cron", "")
    )
    for name, rule in _FIELDS.items():
        default = getattr(WorkflowRevision(), name)
        clean[name] = _field(cleaning, name, rule, given.get(name, default))
    waiting = cleaning.known.dependants(cleaning.ours)
    if clean["cron"] == "" and waiting:
        cleaning.errors["cron"] = _(
            "It is missing, and %(names)s waits for its cycles; a workflow without a schedule has none."
        ) % {"names": ", ".join(written_as(cleaning.team, end) for end in sorted(waiting))}


# --- nodes -------------------------------------------------------------------------------------------


def _nodes(cleaning: _Cleaning) -> None:
    given = cleaning.given.get("nodes")
    cleaning.clean["nodes"] = []
    if not _is_list(given) or not given:
        cleaning.errors["nodes"] = _("It is missing; a workflow has at least one node, {key: …, task: …}.")
        return
    if len(given) > MOST_NODES:
        cleaning.errors["nodes"] = _("%(count)d nodes are more than %(most)d.") % {
            "count": len(given),
            "most": MOST_NODES,
        }
        return
    wanted = {str(node["task"]) for node in given if isinstance(node, Mapping) and "task" in node}
    tasks = cleaning.known.tasks(cleaning.team, wanted)
    seen: set[str] = set()
    for number, node in enumerate(given):
        _node(cleaning, f"nodes[{number}]", node, tasks, seen)
    _edges(cleaning, given)


def _node(cleaning: _Cleaning, at: str, node: Any, tasks: Collection[str], seen: set[str]) -> None:
    if not isinstance(node, Mapping):
        cleaning.errors[at] = _(
            "%(value)s is not a map such as {key: clean, task: clean, after: [extract]}."
        ) % {"value": rules.shown(node)}
        return
    known = ("key", "task", "join", "parameters", "timeout", "core", "after")
    for name in node:
        if name not in known:
            cleaning.errors[f"{at}.{name}"] = rules.unknown_field(name, known)
    key = node.get("key")
    if not isinstance(key, str) or not key.replace("-", "").replace("_", "").isalnum() or len(key) > 100:
        cleaning.errors[f"{at}.key"] = _(
            "%(value)s is no name: letters, digits, - and _, at most 100 of them."
        ) % {"value": rules.shown(key)}
        return
    if key in seen:
        cleaning.errors[f"{at}.key"] = _("Another node has the key %(value)s already.") % {
            "value": rules.shown(key)
        }
        return
    seen.add(key)
    task = node.get("task")
    if task is None:
        cleaning.errors[f"{at}.task"] = _("It is missing; name a task of the team.")
    elif task not in tasks:
        cleaning.errors[f"{at}.task"] = _("The team %(team)s has no task %(name)s; define it first.") % {
            "team": cleaning.team,
            "name": rules.shown(task),
        }
    core = node.get("core", True)
    if not isinstance(core, bool):
        cleaning.errors[f"{at}.core"] = _("It is neither true nor false.")
    wrong: dict[str, str] = {}
    parameters = rules.parameters(node.get("parameters", {}), wrong)
    cleaning.errors.update({f"{at}.{name}": message for name, message in wrong.items()})
    cleaning.clean["nodes"].append(
        {"key": key, "task": task, "core": core, "parameters": parameters, "after": []}
        | {
            name: _field(cleaning, f"{at}.{name}", rule, node.get(name, "all" if name == "join" else None))
            for name, rule in _NODE_FIELDS.items()
        }
    )


def _edges(cleaning: _Cleaning, given: Sequence[Any]) -> None:
    """The edges of the nodes that are sound, and whether they lead in a circle."""
    clean = {node["key"]: node for node in cleaning.clean["nodes"]}
    for number, node in enumerate(given):
        if not isinstance(node, Mapping) or node.get("key") not in clean:
            continue
        after = node.get("after", [])
        if not _is_list(after):
            cleaning.errors[f"nodes[{number}].after"] = _("It is not a list of keys, e.g. [extract].")
            continue
        edges = clean[node["key"]]["after"]
        for place, each in enumerate(after):
            edge = _edge(cleaning, f"nodes[{number}].after[{place}]", each, clean)
            if edge is not None and edge["node"] in {other["node"] for other in edges}:
                cleaning.errors[f"nodes[{number}].after[{place}]"] = _("It waits for %(node)s already.") % {
                    "node": rules.shown(edge["node"])
                }
            elif edge is not None:
                edges.append(edge)
    try:
        graph.refuse_cycles(
            clean, [(edge["node"], key) for key, node in clean.items() for edge in node["after"]]
        )
    except graph.CycleFound as found:
        cleaning.errors["nodes"] = _("The nodes wait for each other in a circle: %(path)s.") % {"path": found}


def _edge(cleaning: _Cleaning, at: str, given: Any, nodes: Mapping[str, Any]) -> dict[str, Any] | None:
    edge = {"node": given} if isinstance(given, str) else given
    if not isinstance(edge, Mapping) or not isinstance(edge.get("node"), str):
        cleaning.errors[at] = _("%(value)s is neither a key nor a map such as {node: clean, on: failure}.") % {
            "value": rules.shown(given)
        }
        return None
    for name in edge:
        if name not in {"node", "on", "expected"}:
            cleaning.errors[f"{at}.{name}"] = rules.unknown_field(name, ("node", "on", "expected"))
    if edge["node"] not in nodes:
        cleaning.errors[f"{at}.node" if edge is given else at] = rules.not_among(edge["node"], nodes)
        return None
    condition = _field(cleaning, f"{at}.on", rules.choice(Condition), edge.get("on", "success"))
    clean = {"node": edge["node"], "on": condition}
    if condition == Condition.RESULT:
        if "expected" not in edge:
            cleaning.errors[f"{at}.expected"] = _("It is missing; say which result lets the node run.")
        clean["expected"] = rules.json(edge.get("expected"), f"{at}.expected", cleaning.errors)
    elif "expected" in edge:
        cleaning.errors[f"{at}.expected"] = _("It belongs to the condition “result”.")
    return clean


# --- other workflows ---------------------------------------------------------------------------------


def _dependencies(cleaning: _Cleaning) -> None:
    given = cleaning.given.get("depends_on", [])
    clean: list[dict[str, Any]] = []
    cleaning.clean["depends_on"] = clean
    if not _is_list(given):
        cleaning.errors["depends_on"] = _("It is not a list, e.g. [{workflow: weather_hourly, cycles: same}].")
        return
    seen: set[tuple[str, str, str]] = set()
    for number, each in enumerate(given):
        at = f"depends_on[{number}]"
        dependency = _dependency(cleaning, at, each)
        if dependency is None:
            continue
        identity = (*reference(cleaning.team, dependency["workflow"]), dependency["cycles"])
        if identity in seen:
            cleaning.errors[at] = _("This dependency stands here already.")
            continue
        seen.add(identity)
        clean.append(dependency)


def _dependency(cleaning: _Cleaning, at: str, given: Any) -> dict[str, Any] | None:
    known = ("workflow", "cycles", "count")
    if not isinstance(given, Mapping) or not isinstance(given.get("workflow"), str):
        cleaning.errors[at] = _("%(value)s is not a map such as {workflow: weather_hourly, cycles: same}.") % {
            "value": rules.shown(given)
        }
        return None
    for name in given:
        if name not in known:
            cleaning.errors[f"{at}.{name}"] = rules.unknown_field(name, known)
    offset = _field(cleaning, f"{at}.cycles", rules.choice(Offset), given.get("cycles", "same"))
    count = _field(cleaning, f"{at}.count", rules.whole(1, MOST_LAST), given.get("count", 1))
    if offset is None or count is None:
        return None
    if offset != Offset.LAST and "count" in given and count != 1:
        cleaning.errors[f"{at}.count"] = _("It belongs to “last”: {cycles: last, count: 7}.")
    upstream = reference(cleaning.team, given["workflow"])
    if upstream == cleaning.ours:
        if offset != Offset.PREVIOUS:
            cleaning.errors[f"{at}.cycles"] = _("A workflow waits for its own cycles only as “previous”.")
            return None
    else:
        _upstream(cleaning, f"{at}.workflow", upstream)
    written = written_as(cleaning.team, upstream)
    return {"workflow": written, "cycles": offset} | ({"count": count} if offset == Offset.LAST else {})


def _upstream(cleaning: _Cleaning, at: str, upstream: End) -> None:
    """Refuse an upstream that does not exist, has no cycles, or waits for this workflow itself."""
    cron = cleaning.known.cron(upstream)
    if cron is None:
        cleaning.errors[at] = _("There is no workflow %(name)s; define it first.") % {
            "name": rules.shown(written_as(cleaning.team, upstream))
        }
    elif not cron:
        cleaning.errors[at] = _("It has no schedule, so it has no cycles to wait for.")
    elif way := _way_back(cleaning, upstream):
        path = " → ".join(written_as(cleaning.team, end) for end in [cleaning.ours, *way])
        cleaning.errors[at] = _("Workflows wait for each other in a circle: %(path)s.") % {"path": path}


def _way_back(cleaning: _Cleaning, upstream: End) -> list[End]:
    """The shortest way from an upstream through what it waits for to this workflow; empty without one."""
    came_from: dict[End, End | None] = {upstream: None}
    frontier = [upstream]
    for end in frontier:
        if end == cleaning.ours:
            way = [end]
            while (before := came_from[way[-1]]) is not None:
                way.append(before)
            return way[::-1]
        for each in sorted(cleaning.known.upstreams(end)):
            if each not in came_from:
                came_from[each] = end
                frontier.append(each)
    return []


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
