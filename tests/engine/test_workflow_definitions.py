"""What a workflow may not be: every refusal, with the field that it is about."""

from __future__ import annotations

from typing import Any

import pytest

from scheduling.errors import InvalidDefinition
from tests import factories as make
from workflows import services
from workflows.models import Workflow, WorkflowRevision
from workflows.validation import MOST_NODES

pytestmark = pytest.mark.django_db

HOURLY = {"cron": "0 * * * *"}


def a(**fields: Any) -> dict[str, Any]:
    return {"key": "a", "task": "a"} | fields


def b(*after: Any) -> list[dict[str, Any]]:
    """A node, and another that waits so."""
    return [a(), a(key="b", after=list(after))]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"nodes": [a()], "colour": "red"}, "colour", "This field is not known"),
    ({"nodes": [a()], "cron": "61 * * * *"}, "cron", ""),
    ({"nodes": [a()], "cron": 7}, "cron", ""),
    ({"nodes": [a()], "timezone": "Mars"}, "timezone", ""),
    ({"nodes": [a()], "misfire": "shrug"}, "misfire", "“shrug” is not one of"),
    ({"nodes": [a()], "parallelism": -1}, "parallelism", ""),
    ({"nodes": [a()], "parallelism": 1001}, "parallelism", ""),
    ({"nodes": [a()], "parallelism": "many"}, "parallelism", ""),
    ({"nodes": [a()], "timeout": 0}, "timeout", ""),
    # Nodes
    ({}, "nodes", "It is missing; a workflow has at least one node"),
    ({"nodes": []}, "nodes", "It is missing"),
    ({"nodes": "a"}, "nodes", "It is missing"),
    ({"nodes": [a()] * (MOST_NODES + 1)}, "nodes", "5001 nodes are more than 5000."),
    ({"nodes": ["a"]}, "nodes[0]", "“a” is not a map such as {key: clean"),
    ({"nodes": [a(colour="red")]}, "nodes[0].colour", "This field is not known"),
    ({"nodes": [a(key="a b")]}, "nodes[0].key", "“a b” is no name"),
    ({"nodes": [a(key="")]}, "nodes[0].key", ""),
    ({"nodes": [a(key="a" * 101)]}, "nodes[0].key", ""),
    ({"nodes": [a(key=["a"])]}, "nodes[0].key", ""),
    ({"nodes": [a(), a()]}, "nodes[1].key", "Another node has the key “a” already."),
    ({"nodes": [{"key": "a"}]}, "nodes[0].task", "It is missing; name a task of the team."),
    ({"nodes": [a(task="gone")]}, "nodes[0].task", "The team etl has no task “gone”; define it first."),
    ({"nodes": [a(task=["a"])]}, "nodes[0].task", "The team etl has no task"),
    ({"nodes": [a(task={"name": "a"})]}, "nodes[0].task", "The team etl has no task"),
    ({"nodes": [a(join="most")]}, "nodes[0].join", "“most” is not one of all, any."),
    ({"nodes": [a(timeout=0)]}, "nodes[0].timeout", ""),
    ({"nodes": [a(core="perhaps")]}, "nodes[0].core", "It is neither true nor false."),
    ({"nodes": [a(parameters=["x"])]}, "nodes[0].parameters", ""),
    # Edges
    ({"nodes": [a(after="b")]}, "nodes[0].after", "It is not a list of keys"),
    ({"nodes": b(7)}, "nodes[1].after[0]", "7 is neither a key nor a map"),
    ({"nodes": b({"on": "failure"})}, "nodes[1].after[0]", ""),
    ({"nodes": b("c")}, "nodes[1].after[0]", "“c” is not one of a, b."),
    ({"nodes": b({"node": "c"})}, "nodes[1].after[0].node", "“c” is not one of a, b."),
    ({"nodes": b({"node": "a", "when": "late"})}, "nodes[1].after[0].when", "This field is not known"),
    ({"nodes": b({"node": "a", "on": "moon"})}, "nodes[1].after[0].on", "“moon” is not one of"),
    ({"nodes": b({"node": "a", "on": "result"})}, "nodes[1].after[0].expected", "It is missing; say which"),
    (
        {"nodes": b({"node": "a", "expected": 1})},
        "nodes[1].after[0].expected",
        "It belongs to the condition “result”.",
    ),
    ({"nodes": b("a", {"node": "a", "on": "failure"})}, "nodes[1].after[1]", "It waits for “a” already."),
    ({"nodes": [a(after=["a"])]}, "nodes", "The nodes wait for each other in a circle: a → a."),
    # Other workflows
    ({"nodes": [a()], "depends_on": "up"}, "depends_on", "It is not a list"),
    ({"nodes": [a()], "depends_on": ["up"]}, "depends_on[0]", "“up” is not a map"),
    ({"nodes": [a()], "depends_on": [{"cycles": "same"}]}, "depends_on[0]", ""),
    (
        {"nodes": [a()], "depends_on": [{"workflow": "up", "x": 1}]},
        "depends_on[0].x",
        "This field is not known",
    ),
    ({"nodes": [a()], "depends_on": [{"workflow": "gone"}]}, "depends_on[0].workflow", "There is no workflow"),
    (
        {"nodes": [a()], "depends_on": [{"workflow": "plain"}]},
        "depends_on[0].workflow",
        "It has no schedule, so it has no cycles to wait for.",
    ),
    (
        {"nodes": [a()], "depends_on": [{"workflow": "up", "cycles": "next"}]},
        "depends_on[0].cycles",
        "“next” is",
    ),
    (
        {"nodes": [a()], "depends_on": [{"workflow": "up", "cycles": "last", "count": 0}]},
        "depends_on[0].count",
        "",
    ),
    (
        {"nodes": [a()], "depends_on": [{"workflow": "up", "count": 7}]},
        "depends_on[0].count",
        "It belongs to “last”",
    ),
    (
        {"nodes": [a()], "depends_on": [{"workflow": "up"}, {"workflow": "etl/up"}]},
        "depends_on[1]",
        "This dependency stands here already.",
    ),
    (
        {"nodes": [a()], "depends_on": [{"workflow": "it"}]},
        "depends_on[0].cycles",
        "A workflow waits for its own cycles only as “previous”.",
    ),
]


@pytest.fixture
def team() -> Any:
    team = make.team("etl")
    group = make.group(team=team)
    make.task("a", group=group)
    make.workflow("up", group=group, **HOURLY)
    make.workflow("plain", group=group)
    return team


def errors_of(team: Any, content: dict[str, Any], name: str = "it") -> dict[str, str]:
    with pytest.raises(InvalidDefinition) as refused:
        services.save_workflow(team=team, name=name, content=content, by="tests")
    return refused.value.errors


def test_each_mistake_is_refused_with_its_field_and_leaves_nothing(team: Any) -> None:
    before = Workflow.objects.count(), WorkflowRevision.objects.count()
    wrong = []
    for content, field, says in REFUSED:
        found = errors_of(team, content)
        if list(found) != [field] or not found[field] or not found[field].startswith(says):
            wrong.append((field, says, found))
    assert wrong == []
    assert (Workflow.objects.count(), WorkflowRevision.objects.count()) == before


def test_every_mistake_is_told_at_once(team: Any) -> None:
    found = errors_of(
        team,
        {
            "cron": "never",
            "nodes": [a(join="most"), a(key="b", after=["c"]), a(key="d", task="gone")],
            "depends_on": [{"workflow": "gone"}],
        },
    )
    assert list(found) == [
        "cron",
        "nodes[0].join",
        "nodes[2].task",
        "nodes[1].after[0]",
        "depends_on[0].workflow",
    ]


def test_a_circle_of_nodes_is_named_with_its_path(team: Any) -> None:
    nodes = [a(after=["c"]), a(key="b", after=["a"]), a(key="c", after=["b"]), a(key="d", after=["c"])]
    said = errors_of(team, {"nodes": nodes})["nodes"]
    path = said.removeprefix("The nodes wait for each other in a circle: ").removesuffix(".").split(" → ")
    assert path[0] == path[-1]
    assert set(path) == {"a", "b", "c"}
    assert all((path[at], path[at + 1]) in {("a", "b"), ("b", "c"), ("c", "a")} for at in range(3))


def test_a_circle_of_workflows_is_named_with_its_path(team: Any) -> None:
    group = make.group(team=team)
    make.workflow("middle", group=group, depends_on=[{"workflow": "up"}], **HOURLY)
    make.workflow("down", group=group, depends_on=[{"workflow": "middle", "cycles": "last"}], **HOURLY)
    said = errors_of(team, {"nodes": [a()], "depends_on": [{"workflow": "down"}]} | HOURLY, name="up")
    path = "up → down → middle → up"
    assert said == {"depends_on[0].workflow": f"Workflows wait for each other in a circle: {path}."}


def test_what_was_refused_before_is_saved_when_it_is_right(team: Any) -> None:
    content = {
        "nodes": [a(), a(key="b", join="any", after=[{"node": "a", "on": "result", "expected": None}])],
        "depends_on": [
            {"workflow": "up", "cycles": "last", "count": 3},
            {"workflow": "it", "cycles": "previous"},
        ],
    } | HOURLY
    saved = services.save_workflow(team=team, name="it", content=content, by="tests")
    again = services.save_workflow(team=team, name="it", content=content, by="tests")
    assert (saved.current.number, again.current.number) == (1, 1)
    assert saved.current.dependencies.count() == 2
